//! The seat of ovs-vswitchd: a host in a namespace with the stock `ovsdb-server`, and either stock `ovs-vswitchd` (its
//! userspace datapath) or our daemon as the switch of that database, in the same run directory.
//!
//! What is typed on such a host is a script of the shell with the stock tools, word for word the same for both
//! switches. Not here: what a test expects.

mod database;
mod stage;
mod wires;

pub use stage::Stage;
pub use wires::{Facing, Nodes, V4, V6, reach};

use crate::daemon::{Directory, Host, Raw, Said, hush, program};
use crate::lab::{Daemon, Lab, Namespace, check, skip, until};
use crate::node::{PATIENCE, in_nodes};
use std::path::{Path, PathBuf};
use std::process::Command;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// Which switch sits in the seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Stock `ovs-vswitchd` with its userspace datapath.
    Stock,
    /// Our daemon.
    Ours,
}

/// Runs `body` as [`in_nodes`] does, where there is an Open vSwitch; else a loud word, and in CI a failure.
pub fn in_seats(test: &str, body: impl FnOnce(&Lab)) {
    if !Path::new(SCHEMA).exists() {
        return skip("Open vSwitch is not installed (Debian: openvswitch-switch)");
    }
    in_nodes(test, body);
}

/// A host with a database and a switch. Fields are dropped in order: the switch before its database, the namespace after
/// both.
#[derive(Debug)]
pub struct Seat {
    switch: Switch,
    vswitchd: Option<Daemon>,
    database: Option<Daemon>,
    host: Namespace,
    directory: Directory,
}

impl Seat {
    /// A host called `name` in the laboratory, with an empty database and the switch running.
    ///
    /// # Panics
    /// When either does not start.
    #[must_use]
    pub fn new(lab: &Lab, name: &str, switch: Switch) -> Self {
        let host = lab.namespace(name);
        hush_links(&host);
        let mut seat = Self { switch, vswitchd: None, database: None, host, directory: Directory::new() };
        check(Command::new("ovsdb-tool").arg("create").arg(seat.file("conf.db")).arg(SCHEMA));
        seat.start_database();
        // `--no-wait`: nobody is there yet to carry anything out.
        seat.sh("ovs-vsctl --no-wait init");
        seat.start_switch();
        seat
    }

    /// Which switch it is.
    #[must_use]
    pub const fn switch(&self) -> Switch {
        self.switch
    }

    /// Its namespace.
    #[must_use]
    pub const fn host(&self) -> &Namespace {
        &self.host
    }

    /// A file in the run directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.0.join(name)
    }

    /// The address of the database.
    #[must_use]
    pub fn remote(&self) -> String {
        format!("unix:{}", self.file("db.sock").display())
    }

    fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.host.command(program);
        self.at_home(&mut command);
        command
    }

    /// Has the programs of Open vSwitch find their files in this run directory.
    fn at_home(&self, command: &mut Command) {
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &self.directory.0);
        }
    }

    /// Starts the database server with the rows that it had.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_database(&mut self) {
        assert!(self.database.is_none(), "one server at a time");
        let mut command = self.inside("ovsdb-server");
        command.arg(self.file("conf.db")).arg(format!("--remote=p{}", self.remote()));
        command.arg(format!("--unixctl={}", self.file("ovsdb.ctl").display()));
        let database = Daemon::spawn(&mut command);
        drop(database.until_connectable(&self.file("db.sock"), PATIENCE));
        self.database = Some(database);
    }

    /// Kills the database server where it stands.
    ///
    /// # Panics
    /// When none runs.
    pub fn kill_database(&mut self) {
        drop(self.database.take().expect("a server runs"));
        let _ = std::fs::remove_file(self.file("db.sock"));
    }

    /// The database server's process.
    ///
    /// # Panics
    /// When none runs.
    #[must_use]
    pub fn database(&self) -> &Daemon {
        self.database.as_ref().expect("a server runs")
    }

    /// Starts the switch and waits until `ovs-appctl` finds it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_switch(&mut self) {
        assert!(self.vswitchd.is_none(), "one switch at a time");
        let mut command = match self.switch {
            Switch::Stock => {
                let mut command = self.inside("ovs-vswitchd");
                command.arg(self.remote()).args(["--pidfile", "--disable-system"]);
                command
            }
            Switch::Ours => {
                let (socket, state) = (self.file("control.sock"), self.file("state.json"));
                let toml = format!("[control]\nsocket = {socket:?}\nstate = {state:?}\n");
                std::fs::write(self.file("vswitchd.toml"), toml).expect("the directory is there");
                let mut command = self.inside(program("vswitchd").expect("looked for before the test began"));
                command.arg("--ovsdb").arg(self.remote()).arg("--as-ovs-vswitchd");
                command.arg("--config").arg(self.file("vswitchd.toml"));
                command
            }
        };
        let vswitchd = Daemon::spawn(&mut command);
        until(&format!("a switch that answers ({:?})", self.switch), PATIENCE, || {
            (self.try_sh("ovs-appctl version").code == 0).then_some(())
        });
        self.vswitchd = Some(vswitchd);
    }

    /// Ends the switch by a signal, such as `TERM`, and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end_switch(&mut self, signal: &str) {
        let mut vswitchd = self.vswitchd.take().expect("the switch runs");
        vswitchd.signal(signal);
        vswitchd.until_exit(PATIENCE);
    }

    /// The switch's process.
    ///
    /// # Panics
    /// When none runs.
    #[must_use]
    pub fn vswitchd(&self) -> &Daemon {
        self.vswitchd.as_ref().expect("the switch runs")
    }

    /// Whether the switch still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.vswitchd().pid()));
        // A dead child of ours that nobody has waited for is a zombie.
        status.is_ok_and(|text| !text.contains(") Z "))
    }

    /// A stock tool that talks to this host's database or switch; not started yet. It is in no namespace, and needs none.
    #[must_use]
    pub fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.at_home(&mut command);
        command
    }

    /// Runs a script of the shell on the host, with the stock tools at home there; a command that fails ends it. What
    /// comes of it is the caller's.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn try_sh(&self, script: &str) -> Said {
        Host::run_command(self.inside("sh").args(["-e", "-c", script]))
    }

    /// The same, which must succeed; returns what it printed. `ovs-vsctl` succeeds when the database has the rows; what
    /// the switch then could not do it only tells of, and here that is a failure too.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let said = self.try_sh(script);
        let good = said.code == 0 && !said.err.contains("Error detected");
        assert!(good, "{script}\n{}{}", said.out, said.err);
        said.out
    }

    /// Adds a bridge of the userspace datapath.
    ///
    /// # Panics
    /// When that fails.
    pub fn bridge(&self, name: &str) {
        self.sh(&format!("ovs-vsctl add-br {name} -- set bridge {name} datapath_type=netdev"));
    }

    /// A pod at `bridge`: a namespace whose `eth0` is the other end of the veth `port`, which is added with these
    /// further words, such as `tag=10`; with `addresses`.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn pod(&self, lab: &Lab, bridge: &str, port: &str, words: &str, addresses: &[&str]) -> Namespace {
        let pod =
            lab.namespace(&format!("{}-{port}", self.host.name().rsplit('-').next().unwrap_or_default()));
        hush_links(&pod);
        self.host.veth(port, &pod, "eth0");
        if self.switch == Switch::Stock {
            // Its userspace datapath passes on what a veth leaves undone as if it were done.
            pod.ethtool("eth0", "tx off tso off gso off");
        }
        for address in addresses {
            pod.address("eth0", address);
        }
        self.sh(&format!("ovs-vsctl add-port {bridge} {port} {words}"));
        pod
    }

    /// A pod that says nothing of its own accord, and all frames in and out of it.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn raw_pod(&self, lab: &Lab, bridge: &str, port: &str, words: &str) -> (Namespace, Raw) {
        let pod =
            lab.namespace(&format!("{}-{port}", self.host.name().rsplit('-').next().unwrap_or_default()));
        hush(&pod);
        self.host.veth(port, &pod, "eth0");
        let raw = pod.inside(|| Raw::open("eth0"));
        self.sh(&format!("ovs-vsctl add-port {bridge} {port} {words}"));
        (pod, raw)
    }
}

/// Interfaces that come to `namespace` get no IPv6 address that nobody gave them: less is said unasked.
fn hush_links(namespace: &Namespace) {
    namespace.inside(|| {
        // A kernel without IPv6 has no such switch and says nothing either.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1");
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
    });
}

/// Makes a test of every case for each of these switches, in a module called after it: `on_seats! { stock: Stock,
/// ours: Ours => { a_case, another } }` calls `a_case(&Lab, Switch)`.
#[macro_export]
macro_rules! on_seats {
    ($($module:ident: $switch:ident),* => $cases:tt) => {
        $(mod $module { $crate::on_seats! { @ $module $switch $cases } })*
    };
    (@ $module:ident $switch:ident { $($case:ident),* $(,)? }) => {
        $(
            #[test]
            fn $case() {
                use $crate::ovs_seat::{Switch, in_seats};
                let name = concat!(stringify!($module), "::", stringify!($case));
                in_seats(name, |lab| super::$case(lab, Switch::$switch));
            }
        )*
    };
}
