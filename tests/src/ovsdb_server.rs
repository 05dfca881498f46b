//! A stock database server of our own in a temporary directory, with nobody who carries out what it says.
//!
//! It listens on Unix sockets only, needs no privilege and is gone when dropped. Not here: ovs-vswitchd (see
//! [`crate::ovs`]).

use crate::lab::{Daemon, check, skip};
use serde_json::{Deserializer, Value};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use vswitchd::control::source::ovsdb::{Atom, Database, Datum, Row};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that runs.
#[derive(Debug)]
pub struct OvsdbServer {
    /// Ends before the directory goes.
    daemon: Option<Daemon>,
    directory: PathBuf,
}

impl Drop for OvsdbServer {
    fn drop(&mut self) {
        self.daemon.take();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl OvsdbServer {
    /// Starts one with an empty database; `None`, after a loud word, where Open vSwitch is not installed.
    ///
    /// # Panics
    /// When it is installed and does not start; in CI also when it is not installed.
    #[must_use]
    pub fn start() -> Option<Self> {
        if !Path::new(SCHEMA).exists() {
            skip("Open vSwitch is not installed (Debian: openvswitch-switch)");
            return None;
        }
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("vswitch-ovsdb-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the temporary directory can be written");
        let mut server = Self { daemon: None, directory };
        let (file, socket) = (server.at("conf.db"), server.at("db.sock"));
        check(Command::new("ovsdb-tool").arg("create").arg(&file).arg(SCHEMA));
        let mut command = Command::new("ovsdb-server");
        command.env("OVS_RUNDIR", &server.directory).arg(&file);
        command.arg(format!("--remote=punix:{}", socket.display()));
        command.arg(format!("--unixctl={}", server.at("db.ctl").display()));
        let daemon = Daemon::spawn(&mut command);
        daemon.until_connectable(&socket, PATIENCE);
        server.daemon = Some(daemon);
        server.vsctl("init");
        Some(server)
    }

    /// A path in the server's directory.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Its address.
    #[must_use]
    pub fn remote(&self) -> String {
        format!("unix:{}", self.at("db.sock").display())
    }

    /// What `ovs-vsctl` prints for these words, which white space parts.
    ///
    /// # Panics
    /// When it fails.
    pub fn vsctl(&self, words: &str) -> String {
        let mut command = Command::new("ovs-vsctl");
        command.arg(format!("--db={}", self.remote())).args(["--no-wait", "--timeout=20"]);
        check(command.args(words.split_whitespace()))
    }

    /// What `ovsdb-client dump` prints in this format.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn dump(&self, format: &str) -> String {
        let format = format!("--format={format}");
        check(Command::new("ovsdb-client").args(["dump", &format, &self.remote()]))
    }

    /// What the server answers to these operations on its database (RFC 7047 §4.1.3).
    ///
    /// # Panics
    /// When `ovsdb-client` fails, or the answer is no JSON.
    pub fn transact(&self, operations: &[Value]) -> Value {
        let params: Value = [Value::from("Open_vSwitch")].iter().chain(operations).cloned().collect();
        let text =
            check(Command::new("ovsdb-client").args(["transact", &self.remote(), &params.to_string()]));
        serde_json::from_str(&text).expect("the answer is JSON")
    }

    /// All its rows.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn database(&self) -> Database {
        let mut database = Database::default();
        for table in Deserializer::from_str(&self.dump("json")).into_iter::<Value>() {
            let table = table.expect("a dump is JSON");
            let caption = table["caption"].as_str().and_then(|caption| caption.strip_suffix(" table"));
            let rows = database.tables.entry(caption.expect("a table has a name").to_owned()).or_default();
            let array = |value: &Value| value.as_array().cloned().expect("an array");
            let headings = array(&table["headings"]);
            for cells in array(&table["data"]) {
                let mut row = Row::new();
                for (heading, cell) in headings.iter().zip(array(&cells)) {
                    let column = heading.as_str().expect("a column has a name").to_owned();
                    row.insert(column, Datum::from_json(&cell).expect("a value"));
                }
                let uuid = row.remove("_uuid").expect("a row has a UUID");
                let [Atom::Uuid(uuid)] = uuid.keys[..] else { panic!("a row's UUID is one") };
                rows.insert(uuid, row);
            }
        }
        database
    }
}
