//! `vswitchctl import ovs`: a bridge of an Open vSwitch database becomes a configuration file, with what the file has
//! no words for listed in it and said.
//!
//! Rows are read by the rules that the daemon reads them by. Not here: where rows come from ([`live`], [`dump`]), what
//! they mean (see `control/source/ovsdb`), and the running daemon, which is not asked.

mod cell;
mod dump;
mod live;
mod show;
mod toml;
mod unsaid;

use super::client::Failure;
use super::{EXIT_FAILED, say, say_cause};
use crate::config::{Config, PortConfig, PortKind};
use crate::control::source::ovsdb::{Database, NotARemote, Remote, Wish, read};
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No database is larger, in bytes of JSON or text.
const MAX_LEN: u64 = 256 << 20;

/// The options of the verb, as given.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) db: Option<String>,
    pub(super) file: Option<PathBuf>,
    pub(super) bridge: Option<String>,
    pub(super) output: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    from: From,
    bridge: Option<String>,
    output: Option<PathBuf>,
    timeout: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum From {
    /// A running server.
    Server(Remote),
    /// What `ovsdb-client dump` or `ovs-vsctl show` printed; `-` for standard input.
    File(PathBuf),
}

impl Options {
    /// The first option that was given, by name.
    pub(super) fn given(&self) -> Option<&'static str> {
        [
            (self.db.is_some(), "--db"),
            (self.file.is_some(), "--file"),
            (self.bridge.is_some(), "--bridge"),
            (self.output.is_some(), "--output"),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }

    /// What the words behind `import` ask for with these options, or what is wrong with them. `rundir` is the value of
    /// `OVS_RUNDIR`.
    pub(super) fn order(
        self,
        words: &[&str],
        rundir: Option<&Path>,
        timeout: Duration,
    ) -> Result<Order, String> {
        if words != ["ovs"] {
            return Err(format!(
                "{:?} is not understood; expected import ovs",
                [&["import"], words].concat().join(" ")
            ));
        }
        let from = match (self.db, self.file) {
            (Some(_), Some(_)) => return Err("--db and --file are given; one of them is allowed".to_owned()),
            (Some(remote), None) => {
                From::Server(remote.parse().map_err(|error: NotARemote| format!("--db: {error}"))?)
            }
            (None, Some(file)) => From::File(file),
            (None, None) => {
                let rundir = rundir.unwrap_or_else(|| Path::new("/run/openvswitch"));
                From::Server(Remote::Unix(rundir.join("db.sock")))
            }
        };
        Ok(Order { from, bridge: self.bridge, output: self.output, timeout })
    }
}

/// A file in the making.
#[derive(Debug, PartialEq)]
struct Imported {
    /// TOML.
    text: String,
    /// What it does not express, a line each.
    unsaid: Vec<String>,
}

impl Order {
    /// Does it, and gives what is to be printed; what the file does not express is said to `err`.
    pub(super) fn run(&self, err: &mut dyn Write) -> Result<String, Failure> {
        let failed = |reason: String| Failure::Here(reason, EXIT_FAILED);
        let read = match &self.from {
            From::Server(remote) => {
                live::fetch(remote, self.timeout).map(|database| dump::Read { database, partly: None })
            }
            From::File(file) => text_of(file)
                .map_err(|error| format!("{} cannot be read: {error}", file.display()))
                .and_then(|text| dump::read(&text).map_err(|reason| format!("{}: {reason}", file.display()))),
        };
        let read = read.map_err(failed)?;
        let mut imported = import(&read.database, self.bridge.as_deref()).map_err(failed)?;
        imported.unsaid.extend(read.partly.map(str::to_owned));
        let text = toml::with_comment(&imported.text, &imported.unsaid);
        if !imported.unsaid.is_empty() {
            say(err, "the file has no words for these, which are listed in it as well:");
            imported.unsaid.iter().for_each(|line| say_cause(err, line));
        }
        let Some(output) = &self.output else { return Ok(text) };
        let written = OpenOptions::new().write(true).create_new(true).open(output);
        let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| failed(format!("{} cannot be written: {error}", output.display())))?;
        Ok(String::new())
    }
}

fn text_of(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let source: Box<dyn Read> =
        if file == Path::new("-") { Box::new(io::stdin()) } else { Box::new(std::fs::File::open(file)?) };
    source.take(MAX_LEN + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_LEN {
        return Err(io::Error::other(format!("it is larger than {MAX_LEN} bytes")));
    }
    Ok(text)
}

/// The bridge that is wanted, or the only one.
fn choose<'a>(wish: &'a Wish, wanted: Option<&str>) -> Result<&'a str, String> {
    let names: Vec<&str> = wish.bridges.iter().map(|bridge| bridge.name.as_str()).collect();
    match (wanted, names.as_slice()) {
        (Some(wanted), _) => names.iter().find(|name| **name == wanted).copied().ok_or_else(|| {
            let reason = wish.complaints.iter().find(|said| said.starts_with(&format!("bridge {wanted} ")));
            reason.cloned().unwrap_or_else(|| match names.as_slice() {
                [] => "the database has no bridge".to_owned(),
                names => format!("there is no bridge {wanted:?}; there are {}", names.join(", ")),
            })
        }),
        (None, [name]) => Ok(name),
        (None, []) => Err("the database has no bridge".to_owned()),
        (None, names) => {
            Err(format!("the database has the bridges {}; --bridge says which is meant", names.join(", ")))
        }
    }
}

/// The file's version of a bridge.
fn import(database: &Database, wanted: Option<&str>) -> Result<Imported, String> {
    let wish = read(database);
    let name = choose(&wish, wanted)?;
    let bridge =
        wish.bridges.iter().find(|bridge| bridge.name == name).ok_or("the database has no such bridge")?;
    let (mut ports, mut lost) = (Vec::new(), Vec::new());
    for port in wish.ports.iter().filter(|port| port.bridge.as_deref() == Some(name)) {
        if let PortKind::Patch { .. } = port.kind {
            let reason = "the file has one bridge, and nothing for a patch port to lead to";
            lost.push((port.name.clone(), reason.to_owned()));
            continue;
        }
        let port = PortConfig { bridge: None, protected: false, ..port.clone() };
        let port = PortConfig { mcast_flood: false, mcast_flood_reports: false, ..port };
        let json = port.to_json();
        match PortConfig::from_json(&json, &Config::default()) {
            Ok(read) if read == port => ports.push(json),
            Ok(_) => lost.push((port.name, "the file would make another port of it".to_owned())),
            Err(reason) => lost.push((port.name, reason)),
        }
    }
    let text = toml::file(bridge, &ports);
    let unsaid = unsaid::list(database, &wish, name, &lost);
    // What is written can be read: the daemon would refuse the whole file else.
    Config::parse(&text, "imported").map_err(|errors| errors.to_string())?;
    Ok(Imported { text, unsaid })
}
