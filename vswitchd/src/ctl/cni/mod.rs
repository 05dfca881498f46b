//! `vswitchctl cni install` and `uninstall`: the plugin and its network configuration list come to where container
//! runtimes look for them, and go again.
//!
//! A runtime that finds a list takes the node for ready. So the list is written last, whole, and only while the daemon
//! would take a pod. Not here: what the list must be ([`conflist`]), how files are written ([`files`]), the plugin.

mod conflist;
mod files;

use super::client::{Daemon, Failure};
use super::{EXIT_CONFIG, EXIT_FAILED, say};
use crate::control::rpc::RpcError;
use crate::datapath::clock;
use crate::sys::event::{Signal, Signals, wait_readable};
use conflist::Conflist;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The plugin's file name, which is its `type` in a network configuration.
const PLUGIN: &str = "vswitch-cni";
/// Where Debian has CNI plugins.
const PACKAGED: &str = "/usr/lib/cni/vswitch-cni";
const DEFAULT_FILE: &str = "/etc/vswitchd/cni.conflist";
const DEFAULT_BIN_DIR: &str = "/opt/cni/bin";
const DEFAULT_CONF_DIR: &str = "/etc/cni/net.d";
const DEFAULT_CONF_NAME: &str = "10-vswitch.conflist";

/// How often a daemon that is not ready is asked again, by an installation that waits for it.
const RETRY: Duration = Duration::from_millis(250);
/// How often one that stays looks at the daemon, at FILE and at the list.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// What it waits for an answer, at most: a daemon that answers no sooner takes no pod.
const PATIENCE: Duration = Duration::from_secs(5);

/// The options of the verbs, as given.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) bin_dir: Option<PathBuf>,
    pub(super) conf_dir: Option<PathBuf>,
    pub(super) conf_name: Option<String>,
    pub(super) binary: Option<PathBuf>,
    pub(super) follow: bool,
    pub(super) force: bool,
}

/// What to do.
#[derive(Debug)]
pub(super) enum Order {
    Install(Install),
    Uninstall(Uninstall),
}

/// Where runtimes look.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    bin_dir: PathBuf,
    conf_dir: PathBuf,
    conf_name: String,
}

#[derive(Debug)]
pub(super) struct Install {
    file: PathBuf,
    binary: Option<PathBuf>,
    place: Place,
    daemon: Daemon,
    follow: bool,
}

#[derive(Debug)]
pub(super) struct Uninstall {
    place: Place,
    daemon: Daemon,
    force: bool,
}

impl Options {
    /// The first option that was given, by name.
    pub(super) fn given(&self) -> Option<&'static str> {
        [
            (self.bin_dir.is_some(), "--bin-dir"),
            (self.conf_dir.is_some(), "--conf-dir"),
            (self.conf_name.is_some(), "--conf-name"),
            (self.binary.is_some(), "--binary"),
            (self.follow, "--follow"),
            (self.force, "--force"),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }

    /// What `cni install` or `cni uninstall` with these options and files asks for, or what is wrong with it.
    pub(super) fn order(self, verb: &str, files: &[&str], daemon: Daemon) -> Result<Order, String> {
        let conf_name = self.conf_name.unwrap_or_else(|| DEFAULT_CONF_NAME.to_owned());
        let plain = !conf_name.contains('/') && !conf_name.starts_with('.');
        if !plain || conf_name.strip_suffix(".conflist").is_none_or(str::is_empty) {
            return Err(format!("--conf-name is {conf_name:?}; expected a file name that ends in .conflist"));
        }
        let place = Place {
            bin_dir: self.bin_dir.unwrap_or_else(|| DEFAULT_BIN_DIR.into()),
            conf_dir: self.conf_dir.unwrap_or_else(|| DEFAULT_CONF_DIR.into()),
            conf_name,
        };
        match (verb, files) {
            ("install", [] | [_]) if self.force => Err("--force goes with cni uninstall only".to_owned()),
            ("install", [] | [_]) => Ok(Order::Install(Install {
                file: files.first().unwrap_or(&DEFAULT_FILE).into(),
                binary: self.binary,
                place,
                daemon,
                follow: self.follow,
            })),
            ("install", _) => Err("cni install takes one FILE".to_owned()),
            (_, [extra, ..]) => Err(format!("cni uninstall takes no {extra:?}")),
            _ if self.follow => Err("--follow goes with cni install only".to_owned()),
            _ if self.binary.is_some() => Err("--binary goes with cni install only".to_owned()),
            _ => Ok(Order::Uninstall(Uninstall { place, daemon, force: self.force })),
        }
    }
}

impl Order {
    /// Does it, and gives what is to be printed; what happens on the way is said to `err`.
    pub(super) fn run(&self, err: &mut dyn Write) -> Result<String, Failure> {
        match self {
            Self::Install(install) if install.follow => install.follow(err),
            Self::Install(install) => install.once(err),
            Self::Uninstall(uninstall) => uninstall.run(),
        }
    }
}

impl Place {
    fn plugin(&self) -> PathBuf {
        self.bin_dir.join(PLUGIN)
    }

    fn list(&self) -> PathBuf {
        self.conf_dir.join(&self.conf_name)
    }

    /// Writes the list where it is not there as it should be; whether it was written.
    fn write(&self, list: &Conflist) -> Result<bool, Failure> {
        let path = self.list();
        if std::fs::read(&path).is_ok_and(|there| there == list.text().as_bytes()) {
            return Ok(false);
        }
        files::write(&path, 0o644, list.text().as_bytes()).map_err(|error| failed("write", &path, &error))?;
        Ok(true)
    }

    /// Removes the list; whether it was there.
    fn clear(&self) -> Result<bool, Failure> {
        let path = self.list();
        files::remove(&path).map_err(|error| failed("remove", &path, &error))
    }

    /// What runtimes that take the first network configuration take instead of the list.
    fn shadowed_by(&self) -> Option<String> {
        let entries = std::fs::read_dir(&self.conf_dir).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        // The endings that libcni's ConfFiles looks for.
        let counts = |name: &String| {
            [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end)) && *name < self.conf_name
        };
        names.filter(counts).min()
    }
}

impl Install {
    /// The list as it should be now.
    fn wanted(&self) -> Result<Conflist, Failure> {
        Conflist::read(&self.file, &self.daemon.socket)
            .map_err(|reason| Failure::Here(format!("{}: {reason}", self.file.display()), EXIT_CONFIG))
    }

    /// Waits until the daemon is ready, as long as it may take to answer, then writes the list and is done.
    fn once(&self, err: &mut dyn Write) -> Result<String, Failure> {
        let list = self.wanted()?;
        self.place_plugin()?;
        let started = clock::now();
        while let Err(failure) = ready(&self.daemon, &list) {
            let hopeless = matches!(failure, Failure::Refused(_)) && !is_shortage(&failure);
            if hopeless || clock::now().since(started) + RETRY >= self.daemon.timeout {
                let path = self.place.list();
                say(err, &format!("{} is not written: the daemon would take no pod", path.display()));
                return Err(failure);
            }
            std::thread::sleep(RETRY);
        }
        self.place.write(&list)?;
        self.warn_of_others(err);
        Ok(format!("{}\n{}\n", self.place.plugin().display(), self.place.list().display()))
    }

    /// Keeps the list there while the daemon is ready and FILE says so, until a signal ends it; then it goes. The plugin
    /// stays: it removes the interfaces that it made.
    fn follow(&self, err: &mut dyn Write) -> Result<String, Failure> {
        let mut list = self.wanted()?;
        let signals = Signals::take().map_err(|error| here(&format!("cannot take signals: {error}")))?;
        self.place_plugin()?;
        let daemon = Daemon { timeout: self.daemon.timeout.min(PATIENCE), ..self.daemon.clone() };
        // What was said last, so that nothing is said twice.
        let (mut state, mut trouble) = (String::new(), String::new());
        loop {
            match self.wanted() {
                Ok(wanted) => {
                    list = wanted;
                    trouble.clear();
                }
                Err(failure) => say_new(err, &mut trouble, &failure.message()),
            }
            match ready(&daemon, &list) {
                Ok(()) => {
                    state.clear();
                    if self.place.write(&list)? {
                        say(err, &format!("{} is there", self.place.list().display()));
                        self.warn_of_others(err);
                    }
                }
                // Out of addresses, say. The runtime hears of it with each pod; a node that took the network back would be
                // taken for broken, and pods that are well would be moved away.
                Err(failure) if is_shortage(&failure) && self.place.list().exists() => {
                    say_new(err, &mut state, &failure.message());
                }
                Err(failure) => {
                    let message = failure.message();
                    if self.place.clear()? {
                        say(err, &format!("{} is removed: {message}", self.place.list().display()));
                        state = message;
                    } else {
                        say_new(err, &mut state, &message);
                    }
                }
            }
            if ended(&signals).map_err(|error| here(&format!("cannot wait for signals: {error}")))? {
                self.place.clear()?;
                return Ok(String::new());
            }
        }
    }

    fn place_plugin(&self) -> Result<(), Failure> {
        let source = self.binary.clone().or_else(own_plugin).ok_or_else(|| {
            here(&format!(
                "there is no {PLUGIN} beside vswitchctl and no {PACKAGED}; name it with --binary FILE"
            ))
        })?;
        let target = self.place.plugin();
        if files::same(&source, &target) {
            return Ok(());
        }
        let bytes = std::fs::read(&source).map_err(|error| failed("read", &source, &error))?;
        files::write(&target, 0o755, &bytes).map_err(|error| failed("write", &target, &error))
    }

    fn warn_of_others(&self, err: &mut dyn Write) {
        if let Some(other) = self.place.shadowed_by() {
            let directory = self.place.conf_dir.display();
            let own = &self.place.conf_name;
            say(err, &format!("{other} comes before {own} in {directory}: runtimes that take one take that"));
        }
    }
}

impl Uninstall {
    /// The list goes first: nobody asks for a pod any more. The plugin stays while the daemon knows interfaces that
    /// only it removes; a daemon that does not answer knows none.
    fn run(&self) -> Result<String, Failure> {
        self.place.clear()?;
        let left = self.daemon.call("cni.list", &json!({})).ok();
        let left = left.as_ref().and_then(Value::as_array).map_or(0, Vec::len);
        let plugin = self.place.plugin();
        if left > 0 && !self.force {
            return Err(here(&format!(
                "{} stays: {left} of the pods' interfaces are left to it (vswitchctl cni list); come again when they are \
                 gone, or with --force",
                plugin.display()
            )));
        }
        if own_plugin().is_none_or(|source| !files::same(&source, &plugin)) {
            files::remove(&plugin).map_err(|error| failed("remove", &plugin, &error))?;
        }
        Ok(String::new())
    }
}

/// Whether the daemon runs and would take a pod of the list's networks now.
fn ready(daemon: &Daemon, list: &Conflist) -> Result<(), Failure> {
    daemon.call("status", &json!({}))?;
    list.questions().iter().try_for_each(|question| daemon.call("cni.status", question).map(drop))
}

/// Whether the daemon runs and is as it should be, and only could not serve a pod this moment.
fn is_shortage(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused(error) if error.code == RpcError::UNAVAILABLE)
}

/// Waits for the next look; whether a signal said to end. SIGHUP: look now.
fn ended(signals: &Signals) -> io::Result<bool> {
    let fd: BorrowedFd<'_> = signals.fd();
    match wait_readable(fd, Some(LOOK_AROUND)) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
        _ => {}
    }
    while let Some(signal) = signals.next()? {
        match signal {
            Signal::Hangup => {}
            Signal::Terminate | Signal::Interrupt => return Ok(true),
        }
    }
    Ok(false)
}

/// The plugin that came with this program.
fn own_plugin() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(|at| at.join(PLUGIN)));
    beside.into_iter().chain([PathBuf::from(PACKAGED)]).find(|path| path.is_file())
}

fn say_new(err: &mut dyn Write, last: &mut String, text: &str) {
    if last != text {
        say(err, text);
        text.clone_into(last);
    }
}

fn here(text: &str) -> Failure {
    Failure::Here(text.to_owned(), EXIT_FAILED)
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    here(&format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(words: &[&str], options: Options) -> Result<Order, String> {
        let daemon = Daemon { socket: "/s".into(), timeout: PATIENCE };
        options.order(words[0], &words[1..], daemon)
    }

    #[test]
    fn runtimes_find_both_where_they_look_by_default() {
        let Ok(Order::Install(install)) = order(&["install"], Options::default()) else { panic!() };
        assert_eq!(install.file, Path::new("/etc/vswitchd/cni.conflist"));
        assert_eq!(install.place.plugin(), Path::new("/opt/cni/bin/vswitch-cni"));
        assert_eq!(install.place.list(), Path::new("/etc/cni/net.d/10-vswitch.conflist"));
        let Ok(Order::Uninstall(uninstall)) = order(&["uninstall"], Options::default()) else { panic!() };
        assert_eq!(uninstall.place, install.place);
    }

    #[test]
    fn options_go_with_their_verb_only() {
        let follow = || Options { follow: true, ..Options::default() };
        let force = || Options { force: true, ..Options::default() };
        let binary = || Options { binary: Some("/b".into()), ..Options::default() };
        assert!(order(&["install", "/f"], follow()).is_ok() && order(&["uninstall"], force()).is_ok());
        for (words, options, expected) in [
            (&["install"][..], force(), "--force"),
            (&["uninstall"], follow(), "--follow"),
            (&["uninstall"], binary(), "--binary"),
            (&["uninstall", "x"], Options::default(), "\"x\""),
            (&["install", "a", "b"], Options::default(), "one FILE"),
        ] {
            let error = order(words, options).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_list_by_a_name_that_runtimes_do_not_read_is_refused() {
        for name in ["a.conf", ".conflist", "x/y.conflist", "", ".a.conflist"] {
            let options = Options { conf_name: Some(name.to_owned()), ..Options::default() };
            assert!(order(&["install"], options).unwrap_err().contains("--conf-name"), "{name}");
        }
    }
}
