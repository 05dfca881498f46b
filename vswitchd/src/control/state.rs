//! What was changed at run time and must outlive the daemon: ports added, static MAC entries added, ports of
//! the file deleted. The state file and the pure operations on its content.
//!
//! A port's settings are JSON here, as a `[[port]]` table of the file would have them. Not here: what they
//! mean (the config room), and applying anything.
//!
//! ```json
//! {"version":1,
//!  "ports":[{"name":"tap-x","tag":10}],
//!  "macs":[{"port":"tap-x","vlan":10,"mac":"02:00:00:00:00:0a"}],
//!  "deleted":[{"name":"tap-a","fingerprint":"af63bd4c8601b7df"}]}
//! ```

use crate::observe::log;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use vswitch_core::{Mac, Vlan};

/// The version of the file that this daemon writes, and the newest that it reads.
pub const VERSION: u64 = 1;

/// Why the state cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Something is there that this daemon never wrote.
    #[error(
        "state file {path:?} is damaged: {reason}; repair it, or move it away to start without what was \
         changed at run time"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column where there is one.
        reason: String,
    },
    /// A later daemon wrote it.
    #[error(
        "state file {path:?} has version {version}; this vswitchd reads up to version {VERSION}: run the newer \
         one, or move the file away to start without what was changed at run time"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// The operating system refused.
    #[error("cannot {what} {path:?}")]
    Os {
        /// The step.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn os(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    move |source| StateError::Os { what, path: path.to_owned(), source }
}

/// Why an operation on the state is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// An `add` of a port that was added already.
    #[error("port {0:?} exists already; \"port set\" changes it")]
    PortExists(String),
    /// A `set` of a port that was never added.
    #[error("no port {0:?} was added at run time")]
    NoSuchPort(String),
    /// A deletion of an entry that is not there.
    #[error("no static entry of VLAN {vlan} has the address \"{mac}\"")]
    NoSuchMac {
        /// The VLAN asked for.
        vlan: Vlan,
        /// The address asked for.
        mac: Mac,
    },
}

/// What was changed at run time. Cheap to clone: change a clone, save it, then make it the one that counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    ports: BTreeMap<String, Map<String, Value>>,
    macs: BTreeMap<(Vlan, Mac), String>,
    deleted: BTreeMap<String, String>,
}

impl State {
    /// The ports added, by name, with their settings.
    pub fn ports(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.ports.iter().map(|(name, settings)| (name.as_str(), settings))
    }

    /// The settings of an added port.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<&Map<String, Value>> {
        self.ports.get(name)
    }

    /// The static MAC entries added: VLAN, address, port; by VLAN, then address.
    pub fn macs(&self) -> impl Iterator<Item = (Vlan, Mac, &str)> {
        self.macs.iter().map(|((vlan, mac), port)| (*vlan, *mac, port.as_str()))
    }

    /// Whether the file's port `name`, whose entry there has this fingerprint, was deleted.
    #[must_use]
    pub fn is_deleted(&self, name: &str, fingerprint: &str) -> bool {
        self.deleted.get(name).is_some_and(|deleted| deleted == fingerprint)
    }

    /// The ports of the file that were deleted, by name.
    pub fn deleted(&self) -> impl Iterator<Item = &str> {
        self.deleted.keys().map(String::as_str)
    }

    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.macs.is_empty() && self.deleted.is_empty()
    }

    /// Adds a port; settings that are null are left out.
    ///
    /// # Errors
    /// When it was added before. Whether the file has the name is for the caller to ask first.
    pub fn add_port(&mut self, name: &str, mut settings: Map<String, Value>) -> Result<(), ChangeError> {
        if self.ports.contains_key(name) {
            return Err(ChangeError::PortExists(name.to_owned()));
        }
        settings.retain(|_, value| !value.is_null());
        self.ports.insert(name.to_owned(), settings);
        Ok(())
    }

    /// Changes an added port: each of `settings` replaces the one of its key, and a null takes it away.
    ///
    /// # Errors
    /// When no such port was added.
    pub fn set_port(&mut self, name: &str, settings: Map<String, Value>) -> Result<(), ChangeError> {
        let Some(port) = self.ports.get_mut(name) else {
            return Err(ChangeError::NoSuchPort(name.to_owned()));
        };
        port.extend(settings);
        port.retain(|_, value| !value.is_null());
        Ok(())
    }

    /// Takes an added port away, with its static entries; `false` when it was never added.
    pub fn remove_port(&mut self, name: &str) -> bool {
        self.macs.retain(|_, port| port != name);
        self.ports.remove(name).is_some()
    }

    /// Remembers that the file's port `name` is deleted for as long as its entry keeps this [`fingerprint`].
    /// Its static entries go with it.
    pub fn delete_file_port(&mut self, name: &str, fingerprint: &str) {
        self.remove_port(name);
        self.deleted.insert(name.to_owned(), fingerprint.to_owned());
    }

    /// Adds a static entry, or replaces the one of that VLAN and address.
    pub fn add_mac(&mut self, vlan: Vlan, mac: Mac, port: &str) {
        self.macs.insert((vlan, mac), port.to_owned());
    }

    /// Takes a static entry away.
    ///
    /// # Errors
    /// When there is none.
    pub fn remove_mac(&mut self, vlan: Vlan, mac: Mac) -> Result<(), ChangeError> {
        self.macs.remove(&(vlan, mac)).map(drop).ok_or(ChangeError::NoSuchMac { vlan, mac })
    }

    /// Ends every deletion whose entry in the file has changed or gone, and gives the names. `in_file` is the
    /// fingerprint of the file's entry of that name. Call it with each file that is about to be applied.
    pub fn forget(&mut self, in_file: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let ended: Vec<String> = self
            .deleted
            .iter()
            .filter(|(name, fingerprint)| in_file(name).as_ref() != Some(fingerprint))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &ended {
            self.deleted.remove(name);
        }
        ended
    }
}

/// A short name for the content of an entry of the file: the same for the same settings in any order, 16
/// hexadecimal digits (FNV-1a, 64 bit, over its JSON with sorted keys).
#[must_use]
pub fn fingerprint(entry: &Value) -> String {
    let mut text = String::new();
    canonical(entry, &mut text);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// JSON with sorted keys, whether or not `serde_json` was built to keep their order.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            out.push('{');
            for (key, value) in members.iter().collect::<BTreeMap<_, _>>() {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// The file as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u64,
    #[serde(default)]
    ports: Vec<WrittenPort>,
    #[serde(default)]
    macs: Vec<WrittenMac>,
    #[serde(default)]
    deleted: Vec<WrittenDeletion>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WrittenPort {
    name: String,
    #[serde(flatten)]
    settings: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMac {
    port: String,
    vlan: u16,
    mac: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDeletion {
    name: String,
    fingerprint: String,
}

impl State {
    fn to_json(&self) -> String {
        let ports = self.ports.iter();
        let written = Written {
            version: VERSION,
            ports: ports
                .map(|(name, settings)| WrittenPort { name: name.clone(), settings: settings.clone() })
                .collect(),
            macs: self
                .macs()
                .map(|(vlan, mac, port)| WrittenMac {
                    port: port.to_owned(),
                    vlan: vlan.get(),
                    mac: mac.to_string(),
                })
                .collect(),
            deleted: self
                .deleted
                .iter()
                .map(|(name, fingerprint)| WrittenDeletion {
                    name: name.clone(),
                    fingerprint: fingerprint.clone(),
                })
                .collect(),
        };
        let mut text = serde_json::to_string_pretty(&written).expect("every key is a string");
        text.push('\n');
        text
    }

    fn from_json(text: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
        let Version { version } = serde_json::from_slice(text).map_err(damaged)?;
        if version > VERSION {
            return Err(Unreadable::Newer(version));
        }
        if version == 0 {
            return Err(Unreadable::Damaged("version 0 was never written".to_owned()));
        }
        let written: Written = serde_json::from_slice(text).map_err(damaged)?;
        let mut state = Self::default();
        // A port of the file that was set at run time is in it as deleted and as added.
        let (mut names, mut deleted) = (BTreeSet::new(), BTreeSet::new());
        let twice = |name: &str| Unreadable::Damaged(format!("port {name:?} is in it twice"));
        for WrittenPort { name, settings } in written.ports {
            if !names.insert(name.clone()) {
                return Err(twice(&name));
            }
            state.ports.insert(name, settings);
        }
        for WrittenMac { port, vlan, mac } in written.macs {
            let key = Vlan::new(vlan).zip(mac.parse().ok());
            let key = key.ok_or_else(|| {
                Unreadable::Damaged(format!("VLAN {vlan} with {mac:?} is no entry of a MAC table"))
            })?;
            state.macs.insert(key, port);
        }
        for WrittenDeletion { name, fingerprint } in written.deleted {
            if !deleted.insert(name.clone()) {
                return Err(twice(&name));
            }
            state.deleted.insert(name, fingerprint);
        }
        Ok(state)
    }
}

enum Unreadable {
    Damaged(String),
    Newer(u64),
}

/// Where the state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The state file at `path`; nothing is opened.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds; nothing when there is no file.
    ///
    /// # Errors
    /// When it cannot be read, is damaged or comes from a newer daemon. The daemon must not start then (exit 1):
    /// its next save would lose what the file holds.
    pub fn load(&self) -> Result<State, StateError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::default()),
            Err(error) => return Err(os("read state file", &self.path)(error)),
        };
        State::from_json(&text).map_err(|unreadable| match unreadable {
            Unreadable::Damaged(reason) => StateError::Damaged { path: self.path.clone(), reason },
            Unreadable::Newer(version) => StateError::Newer { path: self.path.clone(), version },
        })
    }

    /// Replaces what it holds: a new file beside it is renamed into its place.
    ///
    /// # Errors
    /// When the operating system refuses; the old content is still there then.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        replace(&self.path, state.to_json().as_bytes())
    }
}

/// Replaces what the file at `path` holds, wholly or not at all, also when the power fails: a new file (mode 0600) is
/// written beside it, flushed to the disk and renamed. Its directory is created (0755) when missing.
///
/// # Errors
/// When the operating system refuses; the old content is still there then.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755).create(directory).map_err(os("create directory", directory))?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    // A leftover of a daemon that was killed here may belong to somebody else or be a link: never reused.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(os("remove", &unfinished)(error));
        }
        _ => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = written {
        drop(fs::remove_file(&unfinished));
        return Err(os("write state file", path)(error));
    }
    // The new content is in its place; a directory that cannot be flushed does not take it back.
    if let Err(error) = File::open(directory).and_then(|directory| directory.sync_all()) {
        log::warn("state directory not flushed", &[("directory", &directory.display()), ("reason", &error)]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(value: Value) -> Map<String, Value> {
        let Value::Object(settings) = value else { panic!() };
        settings
    }

    fn station(last: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, last])
    }

    const TEN: Vlan = match Vlan::new(10) {
        Some(vlan) => vlan,
        None => panic!(),
    };

    #[test]
    fn a_port_is_added_once_then_set_then_removed_with_its_entries() {
        let mut state = State::default();
        state.add_port("x", settings(json!({"tag": 10, "mtu": null}))).unwrap();
        let again = state.add_port("x", Map::new());
        assert_eq!(again, Err(ChangeError::PortExists("x".into())));
        state.set_port("x", settings(json!({"tag": null, "mtu": 1400}))).unwrap();
        assert_eq!(state.port("x"), Some(&settings(json!({"mtu": 1400}))));
        assert_eq!(state.set_port("y", Map::new()), Err(ChangeError::NoSuchPort("y".into())));
        state.add_mac(TEN, station(1), "x");
        state.add_mac(TEN, station(2), "file-port");
        assert!(state.remove_port("x") && !state.remove_port("x"));
        assert_eq!(state.macs().collect::<Vec<_>>(), [(TEN, station(2), "file-port")]);
    }

    #[test]
    fn a_static_entry_is_replaced_and_an_absent_one_cannot_be_removed() {
        let mut state = State::default();
        state.add_mac(TEN, station(1), "a");
        state.add_mac(TEN, station(1), "b");
        assert_eq!(state.macs().collect::<Vec<_>>(), [(TEN, station(1), "b")]);
        state.remove_mac(TEN, station(1)).unwrap();
        let error = state.remove_mac(TEN, station(1)).unwrap_err();
        assert_eq!(error.to_string(), "no static entry of VLAN 10 has the address \"02:00:00:00:00:01\"");
        assert!(state.is_empty());
    }

    #[test]
    fn a_deletion_ends_when_the_entry_in_the_file_changes_or_goes() {
        let (old, new) = (fingerprint(&json!({"tag": 10})), fingerprint(&json!({"tag": 20})));
        let mut state = State::default();
        for name in ["same", "changed", "gone"] {
            state.delete_file_port(name, &old);
        }
        let ended = state.forget(|name| match name {
            "same" => Some(old.clone()),
            "changed" => Some(new.clone()),
            _ => None,
        });
        assert_eq!(ended, ["changed", "gone"]);
        assert!(state.is_deleted("same", &old) && !state.is_deleted("same", &new));
        assert_eq!(state.deleted().collect::<Vec<_>>(), ["same"]);
    }

    #[test]
    fn a_fingerprint_does_not_depend_on_the_order_of_keys() {
        let one = json!({"name": "a", "tag": 10, "trunks": [1, 2]});
        let two = json!({"trunks": [1, 2], "tag": 10, "name": "a"});
        assert_eq!(fingerprint(&one), fingerprint(&two));
        assert_ne!(fingerprint(&one), fingerprint(&json!({"name": "a", "tag": 10, "trunks": [2, 1]})));
        assert_ne!(fingerprint(&json!("1")), fingerprint(&json!(1)));
        // The value is in files, so it may never change.
        assert_eq!(fingerprint(&json!({})), "08f44b07b5901a25");
    }
}
