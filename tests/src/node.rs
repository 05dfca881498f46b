//! Nodes: real daemons in namespaces of their own, one file for all of them, an underlay between them, and pods.
//!
//! What a node's file says is the test's. Not here: assertions about the switch, and other people's tunnels.

mod outer;
mod talk;
mod wire;

pub use outer::{Outer, is_fragment};
pub use talk::{pings, silence, talk, tcp, udp_echo};
pub use wire::Wire;

use crate::daemon::program;
use crate::lab::{self, Daemon, Lab, Namespace, until};
use serde_json::Value;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Everything that a test waits for happens within this time, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Programs that the nodes' tests call, beside those under test.
const PROGRAMS: [&str; 6] = ["ip", "bridge", "ping", "ethtool", "sh", "mount"];

/// Runs `body` as [`lab::in_lab`] does, where nodes can be had: both programs under test, the tools above,
/// a /dev/net/tun that may be opened, and a kernel with veth and bridges; else a loud word, and in CI a failure.
pub fn in_nodes(test: &str, body: impl FnOnce(&Lab)) {
    if let Some(name) = ["vswitchd", "vswitchctl"].into_iter().find(|name| program(name).is_none()) {
        return lab::skip(&format!("{name} is not beside the test: cargo build -p vswitchd builds it"));
    }
    if let Some(name) = PROGRAMS.into_iter().find(|name| !is_installed(name)) {
        return lab::skip(&format!("{name} is not installed (Debian: iproute2, iputils-ping, ethtool)"));
    }
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        return lab::skip(&format!("/dev/net/tun cannot be opened: {error}"));
    }
    lab::in_lab(test, |lab| {
        let probe = lab.namespace("probe");
        for kind in ["veth", "bridge"] {
            if !knows(&probe, &format!("type {kind}")) {
                return lab::skip(&format!("the kernel has no {kind}"));
            }
        }
        body(lab);
    });
}

/// Whether there is a program of this name on the path, or where Debian keeps those of the administrator.
#[must_use]
pub fn is_installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(also).any(|directory| directory.join(name).is_file())
}

/// Whether the kernel makes a link with these words behind its name, such as `type bridge`.
#[must_use]
pub fn knows(namespace: &Namespace, words: &str) -> bool {
    let name = namespace.name();
    let made =
        Command::new("ip").args(["-n", name, "link", "add", "name", "probe"]).args(words.split(' ')).output();
    let made = made.is_ok_and(|output| output.status.success());
    if made {
        namespace.ip("link delete probe");
    }
    made
}

fn under_test(name: &str) -> PathBuf {
    program(name).expect("looked for before the test began")
}

/// The underlay: a namespace with a kernel bridge, and one veth to each node, `under` there and `w1`, `w2` … here.
#[derive(Debug)]
pub struct Underlay {
    /// Where the bridge `wire` is.
    pub wire: Namespace,
    /// The nodes; number *n* has the addresses of [`v4`] and [`v6`] *n* + 1.
    pub nodes: Vec<Namespace>,
}

/// The underlay address of node `n`, 1 and up.
#[must_use]
pub fn v4(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

/// The same in IPv6.
#[must_use]
pub fn v6(n: u8) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)])
}

impl Underlay {
    /// An underlay for `count` nodes in both address families, with an MTU of `mtu`.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn new(lab: &Lab, count: u8, mtu: u16) -> Self {
        let wire = lab.namespace("wire");
        wire.bridge("wire", &[]);
        let nodes = (1..=count).map(|n| {
            let node = lab.namespace(&format!("n{n}"));
            node.veth("under", &wire, &format!("w{n}"));
            wire.ip(&format!("link set dev w{n} master wire mtu {mtu}"));
            node.ip(&format!("link set dev under mtu {mtu}"));
            node.address("under", &format!("{}/24", v4(n)));
            node.address("under", &format!("{}/64", v6(n)));
            node
        });
        let nodes = nodes.collect();
        Self { wire, nodes }
    }

    /// Lets every node's kernel cut a train before the wire instead of leaving that to its interface: what is captured
    /// is single datagrams.
    ///
    /// # Panics
    /// When ethtool fails.
    pub fn cut_trains(&self) {
        self.nodes.iter().for_each(|node| node.ethtool("under", "tx-udp-segmentation off"));
    }
}

/// The `[[port]]` of a pod on `node`: `eth0` in `namespace`, with `keys`, such as `tag = 10`, and `addresses`.
#[must_use]
pub fn pod(name: &str, node: &str, namespace: &Namespace, keys: &str, addresses: &[&str]) -> String {
    let netns = namespace.name();
    format!(
        "\n[[port]]\nname = {name:?}\nnode = {node:?}\nnetns = {netns:?}\nifname = \"eth0\"\n\
         addresses = {addresses:?}\n{keys}\n"
    )
}

/// A file that one or more nodes run, in a directory of its own, deleted when dropped.
#[derive(Debug)]
pub struct Fleet {
    directory: PathBuf,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Fleet {
    /// A fleet whose file is `toml` with a `[control]` section behind it.
    ///
    /// # Panics
    /// When the temporary directory cannot be written.
    #[must_use]
    pub fn new(toml: &str) -> Self {
        static FLEETS: AtomicU32 = AtomicU32::new(0);
        let number = FLEETS.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("vswitch-nodes-{}-{number}", std::process::id()));
        std::fs::create_dir_all(directory.join("own")).expect("the temporary directory can be written");
        let fleet = Self { directory };
        fleet.write(toml);
        fleet
    }

    fn file(&self) -> PathBuf {
        self.directory.join("vswitchd.toml")
    }

    /// Puts another text into the file; nobody is told.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, toml: &str) {
        // Each daemon sees a directory of its own here, so that the file can be the same for all.
        let own = self.directory.join("own");
        let own = own.display();
        let control = format!("\n[control]\nsocket = \"{own}/control.sock\"\nstate = \"{own}/state.json\"\n");
        std::fs::write(self.file(), format!("{toml}{control}")).expect("the directory is there");
    }

    /// Has the daemons that start from now on ask this server for names, and not wait long where nobody answers.
    ///
    /// # Panics
    /// When the fleet's directory cannot be written.
    pub fn resolve_by(&self, server: IpAddr) {
        let text = format!("nameserver {server}\noptions timeout:1 attempts:1\n");
        std::fs::write(self.directory.join("resolv.conf"), text).expect("the directory is there");
    }

    /// Starts the daemon of the node called `name` inside `namespace`, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start(&self, namespace: &Namespace, name: &str) -> Node {
        let node = self.spawn(namespace, name);
        node.until_ready();
        node
    }

    /// The same without waiting.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(&self, namespace: &Namespace, name: &str) -> Node {
        let directory = self.directory.join(name);
        std::fs::create_dir_all(&directory).expect("the directory is there");
        let mut command = namespace.command("sh");
        // `ip netns exec` has given the process a mount namespace of its own.
        let names = self.directory.join("resolv.conf");
        let names =
            if names.exists() { r#"mount --bind "$0/../resolv.conf" /etc/resolv.conf && "# } else { "" };
        command.arg("-c").arg(format!(r#"{names}mount --bind "$0" "$1" && shift && exec "$@""#));
        command.arg(&directory).arg(self.directory.join("own"));
        command.arg(under_test("vswitchd")).arg("--config").arg(self.file()).args(["--node", name]);
        command.env("OVS_RUNDIR", &directory);
        Node { daemon: Daemon::spawn(&mut command), socket: directory.join("control.sock") }
    }
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Node {
    /// Its process.
    pub daemon: Daemon,
    socket: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for table in ["drops --by-port", "port", "peer", "mac"] {
                eprintln!("{table}: {}", String::from_utf8_lossy(&self.try_ctl(table).stdout));
            }
        }
    }
}

impl Node {
    /// The daemon that a test has started by itself, with its control socket.
    #[must_use]
    pub const fn new(daemon: Daemon, socket: PathBuf) -> Self {
        Self { daemon, socket }
    }

    /// Waits until it answers on its control socket.
    ///
    /// # Panics
    /// When it does not.
    pub fn until_ready(&self) {
        drop(self.daemon.until_connectable(&self.socket, PATIENCE));
        until("an answer of vswitchd", PATIENCE, || self.try_ctl("status").status.success().then_some(()));
    }

    /// Runs `vswitchctl --json` with these words, split at blanks; what comes of it is the caller's.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn try_ctl(&self, words: &str) -> Output {
        let mut command = Command::new(under_test("vswitchctl"));
        command.arg("--json").arg("--socket").arg(&self.socket).args(words.split_whitespace());
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Waits until the pods that the daemon gave addresses to have been announced for the last time: until then it says
    /// something of its own accord.
    ///
    /// # Panics
    /// When they are not.
    pub fn until_announced(&self) {
        let ports = self.ctl("port");
        // Where their own frames are untagged.
        let untagged = |port: &&Value| match port["vlan_mode"].as_str() {
            Some("trunk") => port["trunks"].as_array().is_none_or(|vlans| vlans.contains(&0.into())),
            mode => mode != Some("dot1q-tunnel"),
        };
        let ports = ports.as_array().expect("a table").iter().filter(|port| port["link"] == "up");
        let addresses = |port: &Value| port["addresses"].as_array().map_or(0, Vec::len);
        let wanted: usize = ports.filter(untagged).map(|port| 2 * addresses(port)).sum();
        until("the announcements", PATIENCE, || {
            (self.ctl("status")["neigh_announced"].as_u64()? >= wanted as u64).then_some(())
        });
    }

    /// The same, which must succeed and print JSON or nothing.
    ///
    /// # Panics
    /// When it does not.
    pub fn ctl(&self, words: &str) -> Value {
        let output = self.try_ctl(words);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "vswitchctl {words}: {}\n{complaint}", output.status);
        if output.stdout.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("vswitchctl {words}: {error}"))
    }

    /// Calls one method over the control socket, without a process of its own: where many nodes are asked often.
    ///
    /// # Errors
    /// When nobody answers, or the answer is an error; its message is the daemon's.
    pub fn call(&self, method: &str, params: &Value) -> std::io::Result<Value> {
        crate::daemon::call(&self.socket, method, params)
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How many frames have died for `reason`.
    pub fn drops(&self, reason: &str) -> u64 {
        self.number("drops", "reason", reason, "count").unwrap_or(0)
    }

    /// Waits until exactly `count` frames have died for `reason`.
    ///
    /// # Panics
    /// When that does not happen; the message shows all drops.
    pub fn until_drops(&self, reason: &str, count: u64) {
        let what = format!("{count} drops for {reason}");
        let within = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(&what, PATIENCE, || (self.drops(reason) >= count).then_some(()));
        }));
        assert!(within.is_ok() && self.drops(reason) == count, "{what}: {}", self.ctl("drops"));
    }

    /// A number of the peer with this address, such as `rx_frames`.
    ///
    /// # Panics
    /// When there is no such peer or no such number.
    pub fn peer(&self, address: IpAddr, key: &str) -> u64 {
        let address = address.to_string();
        self.number("peer", "address", &address, key).unwrap_or_else(|| panic!("peer {address}: {key}"))
    }

    /// A number of the port of this name.
    ///
    /// # Panics
    /// When there is no such port or no such number.
    pub fn port(&self, name: &str, key: &str) -> u64 {
        self.number("port", "name", name, key).unwrap_or_else(|| panic!("port {name}: {key}"))
    }

    fn number(&self, table: &str, by: &str, name: &str, key: &str) -> Option<u64> {
        let rows = self.ctl(table);
        rows.as_array()?.iter().find(|row| row[by] == name)?[key].as_u64()
    }
}
