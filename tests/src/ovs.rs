//! Stock Open vSwitch as an oracle: a private one in a temporary directory, with dummy ports and no kernel.
//!
//! It answers one question: which frames leave which port of a bridge when this frame arrives at that one. It
//! listens on Unix sockets only, needs no privilege and is gone when dropped. Not here: Open vSwitch as the remote
//! end of a real tunnel.

use crate::lab::Daemon;
use crate::pcap;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use vswitch_core::port::{Attachment, Port, PortId, PriorityTags, VlanSet};
use vswitch_core::wire::vlan::{TPID_STAG, Vlan};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Every daemon and command of Open vSwitch answers within this time or the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A private Open vSwitch.
#[derive(Debug)]
pub struct Ovs {
    /// Ends first, then the database, then the directory.
    _vswitchd: Daemon,
    _database: Daemon,
    directory: Directory,
    /// How much of each port's capture has been read.
    ports: BTreeMap<PortId, usize>,
}

#[derive(Debug)]
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Ovs {
    /// Starts one; `None`, after a loud word, where Open vSwitch is not installed.
    ///
    /// # Panics
    /// When it is installed and does not start; in CI also when it is not installed.
    #[must_use]
    pub fn start(vlan_limit: u8) -> Option<Self> {
        if !Path::new(SCHEMA).exists() {
            crate::lab::skip("Open vSwitch is not installed (Debian: openvswitch-switch)");
            return None;
        }
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("vswitch-ovs-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the temporary directory can be written");
        let directory = Directory(directory);
        let at = |name: &str| directory.0.join(name).display().to_string();
        run(Command::new("ovsdb-tool").args(["create", &at("conf.db"), SCHEMA]));
        let mut command = Self::command(&directory.0, "ovsdb-server");
        command.args([&at("conf.db"), &format!("--remote=punix:{}", at("db.sock"))]);
        command.arg(format!("--unixctl={}", at("db.ctl")));
        let database = Daemon::spawn(&mut command);
        database.until_connectable(&directory.0.join("db.sock"), PATIENCE);
        let mut ovs_vsctl = Self::vsctl(&directory.0);
        run(ovs_vsctl
            .args(["--no-wait", "--", "init", "--", "set", "Open_vSwitch", "."])
            .arg(format!("other_config:vlan-limit={vlan_limit}")));
        let mut command = Self::command(&directory.0, "ovs-vswitchd");
        command.arg(format!("unix:{}", at("db.sock"))).arg(format!("--unixctl={}", at("v.ctl")));
        // "override" makes every port a dummy, whatever its name.
        command.args(["--enable-dummy=override", "--disable-system", "--disable-system-route"]);
        let vswitchd = Daemon::spawn(&mut command);
        vswitchd.until_connectable(&directory.0.join("v.ctl"), PATIENCE);
        Some(Self { _vswitchd: vswitchd, _database: database, directory, ports: BTreeMap::new() })
    }

    fn command(directory: &Path, program: &str) -> Command {
        let mut command = Command::new(program);
        for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, directory);
        }
        command
    }

    fn vsctl(directory: &Path) -> Command {
        let mut command = Self::command(directory, "ovs-vsctl");
        command.arg(format!("--db=unix:{}", directory.join("db.sock").display()));
        command.arg(format!("--timeout={}", PATIENCE.as_secs()));
        command
    }

    /// Runs `ovs-vsctl` with these arguments and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn configure(&self, arguments: &[String]) -> String {
        run(Self::vsctl(&self.directory.0).args(arguments))
    }

    /// Makes bridge `br0` anew with these ports and `other_config` entries such as `mac-table-size=10`.
    ///
    /// # Panics
    /// When a port is a tunnel, or Open vSwitch refuses something.
    pub fn bridge(&mut self, ports: &[Port], other_config: &[&str]) {
        let mut arguments: Vec<String> =
            ["--if-exists", "del-br", "br0", "--", "add-br", "br0", "--", "set", "bridge", "br0"]
                .map(str::to_owned)
                .to_vec();
        arguments.extend(["datapath_type=dummy".to_owned(), "fail-mode=standalone".to_owned()]);
        arguments.extend(other_config.iter().map(|entry| format!("other_config:{entry}")));
        for port in ports {
            let name = name(port.id);
            arguments.extend(["--".to_owned(), "add-port".to_owned(), "br0".to_owned(), name.clone()]);
            arguments.extend(port_columns(port));
            arguments.extend(["--", "set", "interface", &name, "type=dummy"].map(str::to_owned));
            arguments.push(format!("ofport_request={}", port.id));
            arguments.push(format!("options:tx_pcap={}", self.capture(port.id).display()));
        }
        for port in self.ports.keys() {
            let _ = std::fs::remove_file(self.capture(*port));
        }
        self.configure(&arguments);
        self.ports = ports.iter().map(|port| (port.id, 0)).collect();
    }

    fn capture(&self, port: PortId) -> PathBuf {
        self.directory.0.join(format!("{}.pcap", name(port)))
    }

    /// The socket that `ovs-appctl -t` takes.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.0.join("v.ctl")
    }

    /// A command for `ovs-appctl`, such as `["fdb/show", "br0"]`; returns the answer.
    ///
    /// # Panics
    /// When the answer is an error.
    #[must_use]
    pub fn ask(&self, words: &[&str]) -> String {
        let mut socket =
            UnixStream::connect(self.directory.0.join("v.ctl")).expect("ovs-vswitchd listens there");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
        let request = json!({ "id": 0, "method": words[0], "params": words[1..] });
        socket.write_all(request.to_string().as_bytes()).expect("ovs-vswitchd reads");
        let mut answer = Vec::new();
        let mut buffer = [0; 65_536];
        loop {
            let len = socket.read(&mut buffer).expect("ovs-vswitchd answers in time");
            answer.extend(&buffer[..len]);
            if let Ok(value) = serde_json::from_slice::<Value>(&answer) {
                assert!(value["error"].is_null(), "{words:?}: {}", value["error"]);
                return value["result"].as_str().unwrap_or_default().to_owned();
            }
            assert!(len > 0, "ovs-vswitchd hung up on {words:?}");
        }
    }

    /// Forgets flows and learned stations: the next frame meets a switch that has seen nothing.
    pub fn forget(&self) {
        let _ = self.ask(&["revalidator/purge"]);
        let _ = self.ask(&["fdb/flush", "br0"]);
    }

    /// Forgets flows, which are a cache, but no station.
    pub fn forget_flows(&self) {
        let _ = self.ask(&["revalidator/purge"]);
    }

    /// `frame` arrives at `port`. Returns what leaves, by rising port number.
    ///
    /// # Panics
    /// When Open vSwitch writes something that is no capture.
    pub fn frame_in(&mut self, port: PortId, frame: &[u8]) -> Vec<(PortId, Vec<u8>)> {
        let _ = self.ask(&["netdev-dummy/receive", &name(port), &crate::frames::hex(frame)]);
        // The frame is queued by now and switched in the next turn of the daemon's loop. A new connection is
        // accepted at the beginning of a turn, behind the switching: when it is answered, all is written.
        let _ = self.ask(&["version"]);
        let _ = self.ask(&["version"]);
        let mut sent = Vec::new();
        for (port, read) in self.ports.clone() {
            let file = std::fs::read(self.capture(port)).expect("every port has a capture");
            let records = pcap::read(&file).expect("Open vSwitch writes captures").records;
            sent.extend(records[read..].iter().map(|record| (port, record.bytes.clone())));
            self.ports.insert(port, records.len());
        }
        sent
    }

    /// The stations that it has learned or was told of, oldest first: port, VLAN, address, and the age in seconds
    /// (`None` for a static one).
    #[must_use]
    pub fn stations(&self) -> Vec<(u32, u16, String, Option<u64>)> {
        let text = self.ask(&["fdb/show", "br0"]);
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            let port = words.next()?.parse().ok()?;
            let vlan = words.next()?.parse().ok()?;
            Some((port, vlan, words.next()?.to_owned(), words.next()?.parse().ok()))
        };
        text.lines().skip(1).filter_map(entry).collect()
    }
}

/// The name of the interface of a port.
#[must_use]
pub fn name(port: PortId) -> String {
    format!("p{port}")
}

/// The columns of the `Port` table that make a port what it is.
fn port_columns(port: &Port) -> Vec<String> {
    let list = |vlans: &VlanSet| {
        let mut text = String::new();
        for vlan in vlans.iter() {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{vlan}");
        }
        text
    };
    let mut columns = Vec::new();
    match &port.attachment {
        Attachment::Access(vlan) => columns.extend(["vlan_mode=access".to_owned(), format!("tag={vlan}")]),
        Attachment::Trunk { vlans, native } => {
            columns.push(match native {
                None => "vlan_mode=trunk".to_owned(),
                Some(native) if native.tagged => "vlan_mode=native-tagged".to_owned(),
                Some(_) => "vlan_mode=native-untagged".to_owned(),
            });
            columns.extend(native.map(|native| format!("tag={}", native.vlan)));
            if !vlans.has_every_vid() || (native.is_none() && !vlans.contains(Vlan::UNTAGGED)) {
                columns.push(format!("trunks={}", list(vlans)));
            }
        }
        Attachment::Dot1qTunnel { vlan, cvlans, tpid } => {
            columns.extend(["vlan_mode=dot1q-tunnel".to_owned(), format!("tag={vlan}")]);
            columns.extend(cvlans.as_ref().map(|cvlans| format!("cvlans={}", list(cvlans))));
            let ethtype = if *tpid == TPID_STAG { "802.1ad" } else { "802.1q" };
            columns.push(format!("other_config:qinq-ethtype={ethtype}"));
        }
        Attachment::Tunnel(_) => panic!("a tunnel is not a dummy port"),
    }
    match port.priority_tags {
        PriorityTags::No => {}
        PriorityTags::IfNonzero => columns.push("other_config:priority-tags=if-nonzero".to_owned()),
        PriorityTags::Always => columns.push("other_config:priority-tags=always".to_owned()),
    }
    columns
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{command:?}: {}\n{complaints}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
