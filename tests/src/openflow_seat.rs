//! A bridge `br0` with two internal ports, `p1` and `p2`, in our daemon and its database: what ovs-ofctl is tried on.
//!
//! Not here: what a test expects, and stock Open vSwitch (see [`crate::ovs`]).

use crate::daemon::{Host, PATIENCE, Raw, Said, with_host};
use crate::lab::{Lab, skip};
use crate::ovsdb_server::OvsdbServer;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

/// The daemon and its database.
#[derive(Debug)]
pub struct Seat {
    /// Ends before the database.
    pub host: Host,
    /// The database.
    pub database: OvsdbServer,
}

/// Runs `body` with a seat, where there are the stock tools.
pub fn with_seat(test: &str, body: impl FnOnce(&Lab, Seat)) {
    if Command::new("ovs-ofctl").arg("--version").output().is_err() {
        return skip("there is no ovs-ofctl (Debian: openvswitch-common)");
    }
    with_host(test, |lab, mut host| {
        let Some(database) = OvsdbServer::start() else { return };
        host.configure("");
        let mut command = host.vswitchd();
        host.start_with(command.args(["--ovsdb", &database.remote()]));
        let seat = Seat { host, database };
        seat.vsctl(
            "add-br br0 -- add-port br0 p1 -- set interface p1 type=internal ofport_request=1 \
             -- add-port br0 p2 -- set interface p2 type=internal ofport_request=2",
        );
        body(lab, seat);
    });
}

/// Runs the stock tool for the bridges of the switch whose run directory this is.
#[must_use]
pub fn ofctl_at(directory: &Path, words: &[&str]) -> Said {
    let mut command = Command::new("ovs-ofctl");
    command.env("OVS_RUNDIR", directory).arg("--timeout=60").args(words);
    Host::run_command(&mut command)
}

/// Asks the stock tool in that run directory.
#[must_use]
pub fn appctl_at(directory: &Path, words: &[&str]) -> Said {
    let mut command = Command::new("ovs-appctl");
    command.env("OVS_RUNDIR", directory).arg("--timeout=20").args(words);
    Host::run_command(&mut command)
}

impl Seat {
    /// Changes the database by `ovs-vsctl`, words split at blanks, and waits until that is in force.
    ///
    /// # Panics
    /// When it fails.
    pub fn vsctl(&self, words: &str) {
        let mut command = Command::new("ovs-vsctl");
        command.arg(format!("--db={}", self.database.remote())).arg("--timeout=20");
        let said = Host::run_command(command.args(words.split_whitespace()));
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{words}: {said:?}\n{}", self.host.log());
    }

    /// Asks `ovs-ofctl`.
    #[must_use]
    pub fn ofctl(&self, words: &[&str]) -> Said {
        ofctl_at(&self.host.file(""), words)
    }

    /// What it says, which must be no error.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    #[track_caller]
    pub fn must(&self, words: &[&str]) -> String {
        let said = self.ofctl(words);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{words:?}: {said:?}\n{}", self.host.log());
        said.out
    }

    /// Changes flows of br0, without a word.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn flows(&self, verb: &str, flow: &str) {
        let words = [verb, "br0", flow];
        let words = if flow.is_empty() { &words[..2] } else { &words[..] };
        assert_eq!(self.must(words), "");
    }

    /// The flows of br0 without their counts, by falling priority.
    ///
    /// # Panics
    /// When they cannot be had.
    #[must_use]
    #[track_caller]
    pub fn dump(&self) -> Vec<String> {
        let text = self.must(&["--no-stats", "dump-flows", "br0"]);
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    /// The end of an internal port that its owner has, up.
    #[must_use]
    pub fn raw(&self, port: &str) -> Raw {
        self.host.namespace().ip(&format!("link set {port} up"));
        self.host.namespace().inside(|| Raw::open(port))
    }

    /// A connection to br0's socket, before any word.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.host.file("br0.mgmt")).expect("the daemon listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
        stream
    }
}

/// Sends `message` and gives the next one that comes.
///
/// # Panics
/// When none comes.
pub fn ask(stream: &mut UnixStream, message: &[u8]) -> Vec<u8> {
    stream.write_all(message).expect("the daemon reads");
    receive(stream)
}

/// The next message that comes.
///
/// # Panics
/// When none comes.
pub fn receive(stream: &mut UnixStream) -> Vec<u8> {
    let mut message = vec![0; 8];
    stream.read_exact(&mut message).expect("the daemon answers");
    let len = usize::from(u16::from_be_bytes([message[2], message[3]]));
    message.resize(len, 0);
    stream.read_exact(&mut message[8..]).expect("the daemon finishes what it says");
    message
}
