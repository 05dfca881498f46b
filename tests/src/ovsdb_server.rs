//! A stock database server of our own in a temporary directory, with nobody who carries out what it says.
//!
//! It listens on Unix sockets only, needs no privilege and is gone when dropped. It can be killed, started again on the
//! same data or on none, and paused. Not here: ovs-vswitchd (see [`crate::ovs`]).

use crate::lab::{Daemon, Deadline, check, skip};
use crate::ovsdb_client::Client;
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
        server.create(&Self::schema());
        server.run();
        server.vsctl("init");
        Some(server)
    }

    /// Makes its file anew, empty, by `schema`, while it does not run.
    ///
    /// # Panics
    /// When `ovsdb-tool` fails.
    pub fn create(&self, schema: &Value) {
        let file = self.at("conf.db");
        let _ = std::fs::remove_file(&file);
        check(Command::new("ovsdb-tool").arg("create").arg(file).arg(self.written(schema)));
    }

    /// Converts its database to `schema` while it runs.
    ///
    /// # Panics
    /// When it refuses.
    pub fn convert(&self, schema: &Value) {
        check(Command::new("ovsdb-client").args(["convert", &self.remote()]).arg(self.written(schema)));
    }

    fn written(&self, schema: &Value) -> PathBuf {
        let path = self.at("schema");
        std::fs::write(&path, schema.to_string()).expect("the directory is ours");
        path
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::connect(&self.at("db.sock"))
    }

    /// The schema of Open vSwitch as it is installed.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn schema() -> Value {
        let text = std::fs::read_to_string(SCHEMA).expect("a server is started where a schema is");
        serde_json::from_str(&text).expect("a schema is JSON")
    }

    /// Runs it on the file that is there, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn run(&mut self) {
        let socket = self.at("db.sock");
        let mut command = Command::new("ovsdb-server");
        command.env("OVS_RUNDIR", &self.directory).arg(self.at("conf.db"));
        command.arg(format!("--remote=punix:{}", socket.display()));
        command.arg(format!("--unixctl={}", self.at("db.ctl").display()));
        let daemon = Daemon::spawn(&mut command);
        daemon.until_connectable(&socket, PATIENCE);
        self.daemon = Some(daemon);
    }

    /// Kills it, as SIGKILL does.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Sends it a signal by name: `STOP` pauses it, `CONT` wakes it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, name: &str) {
        self.daemon.as_ref().expect("it runs").signal(name);
    }

    /// What it answers to `ovs-appctl` with these words.
    ///
    /// # Panics
    /// When that fails.
    pub fn appctl(&self, words: &str) -> String {
        let target = self.at("db.ctl");
        check(Command::new("ovs-appctl").arg("-t").arg(target).args(words.split_whitespace()))
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

    /// Waits until `ovs-vsctl` prints `expected` for these words.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn until(&self, words: &str, expected: &str) {
        let mut printed = String::new();
        let deadline = Deadline::after(PATIENCE);
        while printed != expected {
            assert!(deadline.left().is_some(), "{words}: {printed}, never {expected}");
            self.vsctl(words).trim().clone_into(&mut printed);
        }
    }

    /// `ovs-vsctl` with these words, which waits until they are in force.
    #[must_use]
    pub fn waiting_vsctl(&self, words: &str) -> Daemon {
        let mut command = Command::new("ovs-vsctl");
        command.arg(format!("--db={}", self.remote())).arg("--timeout=60");
        Daemon::spawn(command.args(words.split_whitespace()))
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
