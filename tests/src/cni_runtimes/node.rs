//! A machine that is a node of the mesh: the daemon under its keeper, as they run on a real one, and networks of CNI.
//!
//! Not here: a runtime.

use super::{Machine, PROGRAMS_AT};
use crate::lab::{Namespace, until};
use crate::node::{Node, PATIENCE};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Where the daemon is reached: its default.
const SOCKET: &str = "/run/vswitchd/control.sock";

/// A network of one plugin, the one under test, as `vswitchctl cni install` would write it, with further `keys`.
///
/// # Panics
/// When `keys` is no object.
#[must_use]
pub fn conflist(name: &str, keys: &Value) -> String {
    let mut plugin = json!({"type": "vswitch-cni"});
    let keys = keys.as_object().expect("an object of further keys");
    plugin.as_object_mut().expect("it is one").extend(keys.clone());
    json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["0.4.0", "1.0.0", "1.1.0"],
        "name": name,
        "plugins": [plugin],
    })
    .to_string()
}

/// What an interface is and has, as a container sees it: index, MAC, MTU, addresses, routes. Once its link-local address
/// is its own for certain, no word of this changes by itself.
pub const SEEN: &str = "while ip address show dev eth0 | grep -q tentative; do sleep 0.05; done
    ip address show dev eth0; ip route; ip -6 route show dev eth0";

/// A network of Debian's own plugins: a runtime that works with it works on this system.
pub const STOCK: &str = r#"{"cniVersion": "0.4.0", "name": "stock", "plugins": [{"type": "bridge", "bridge": "cni0",
    "isGateway": true, "ipam": {"type": "host-local", "subnet": "10.88.0.0/24"}}]}"#;

/// Keys of a network whose addresses are 10.`net`.0.`first` to 10.`net`.0.`last` in 10.`net`.0.0/16, of Debian's
/// host-local.
#[must_use]
pub fn host_local(net: u8, first: u8, last: u8) -> Value {
    let range = json!({
        "subnet": format!("10.{net}.0.0/16"),
        "rangeStart": format!("10.{net}.0.{first}"),
        "rangeEnd": format!("10.{net}.0.{last}"),
    });
    json!({"ipam": {"type": "host-local", "ranges": [[range]]}})
}

/// Keys of a network whose addresses are the daemon's own to give, in 10.1.0.0/24.
#[must_use]
pub fn built_in() -> Value {
    json!({"ipam": {"type": "vswitch", "pools": [{"subnet": "10.1.0.0/24"}]}})
}

/// The addresses that host-local has given out for a network, in order.
#[must_use]
pub fn leases(machine: &Machine, network: &str) -> Vec<String> {
    let mut files = machine.list(&format!("/var/lib/cni/networks/{network}"));
    // Beside them it has a lock, and remembers the last.
    files.retain(|name| name.parse::<IpAddr>().is_ok());
    files
}

/// Two segments with a VNI, VLAN 10 and VLAN 20, and two nodes.
const FILE: &str = r#"
[underlay]
address = "192.0.2.0/24"
[mesh]
peers = ["192.0.2.1-192.0.2.2"]
[[segment]]
name = "blue"
vlan = 10
vni = 10010
[[segment]]
name = "red"
vlan = 20
vni = 10020
"#;

/// A machine with a running daemon.
#[derive(Debug)]
pub struct CniNode {
    /// The daemon, under its keeper.
    pub node: Node,
    /// Where it runs.
    pub machine: Machine,
    name: String,
}

impl CniNode {
    /// Starts the daemon of the node called `name` on a machine in `namespace`, which has an address of the underlay
    /// (see [`crate::node::Underlay`]), and waits until it is ready. It has the segments `blue` and `red`.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start(namespace: &Namespace, name: &str) -> Self {
        let machine = Machine::new(namespace);
        machine.write("/etc/vswitchd.toml", FILE);
        std::fs::create_dir_all(machine.path("/run/vswitchd")).expect("it is memory");
        std::fs::create_dir_all(machine.path("/var/lib/vswitchd")).expect("it is memory");
        let line = format!("{PROGRAMS_AT}/vswitchd keeper -- {}", Self::daemon(name));
        let node = Node::new(machine.start(&line), machine.path(SOCKET));
        node.until_ready();
        Self { node, machine, name: name.to_owned() }
    }

    fn daemon(name: &str) -> String {
        format!("{PROGRAMS_AT}/vswitchd --config /etc/vswitchd.toml --node {name}")
    }

    /// Writes a network's configuration.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn network(&self, name: &str, keys: &Value) {
        self.machine.write(&format!("/etc/cni/net.d/10-{name}.conflist"), &conflist(name, keys));
    }

    /// What the daemon knows of attachments.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    #[track_caller]
    pub fn attachments(&self) -> Vec<Value> {
        let answer = self.node.call("cni.list", &Value::Null).expect("cni.list is answered");
        answer.as_array().unwrap_or_else(|| panic!("cni.list: {answer}")).clone()
    }

    /// The one attachment of the container called so, as containerd says it or podman.
    ///
    /// # Panics
    /// When there is not just one.
    #[must_use]
    #[track_caller]
    pub fn attachment(&self, container: &str) -> Value {
        let all = self.attachments();
        let is = |row: &&Value| row["container"].as_str().is_some_and(|name| name.ends_with(container));
        let found: Vec<&Value> = all.iter().filter(is).collect();
        assert!(found.len() == 1, "{container} is not attached once: {all:?}");
        found[0].clone()
    }

    /// The first address of that attachment, without its prefix length.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn address(&self, container: &str) -> String {
        let row = self.attachment(container);
        let address = row["addresses"][0].as_str().and_then(|address| address.split('/').next());
        address.unwrap_or_else(|| panic!("{row}")).to_owned()
    }

    /// Waits until the daemon knows of no attachment, and no port of any is there.
    ///
    /// # Panics
    /// When something stays.
    #[track_caller]
    pub fn until_nothing_left(&self) {
        until("no attachment", PATIENCE, || self.attachments().is_empty().then_some(()));
        until("no port", PATIENCE, || (self.node.ctl("port") == json!([])).then_some(()));
        let links = self.machine.run("ip -o link show");
        let of_ours = |line: &&str| line.contains(": cni") || line.contains(": vgw");
        assert!(links.lines().find(of_ours).is_none(), "{links}");
    }

    /// Kills the daemon with `kill -9` and waits until the next one, which the keeper starts, is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn kill_daemon(&self) {
        let number = || self.node.call("status", &Value::Null).ok()?["pid"].as_u64();
        let before = number().expect("it runs");
        self.machine.run(&format!("kill -9 {before}"));
        until("the next daemon", PATIENCE, || number().filter(|now| *now != before));
    }

    /// Ends the daemon and its keeper; nobody answers any more.
    ///
    /// # Panics
    /// When they do not end.
    pub fn stop(&mut self) {
        self.machine.signal(&self.node.daemon, "TERM");
        let _ = self.node.daemon.until_exit(PATIENCE);
    }

    /// Starts daemon and keeper again and waits until they are ready.
    ///
    /// # Panics
    /// When they are not.
    pub fn start_again(&mut self) {
        let line = format!("{PROGRAMS_AT}/vswitchd keeper -- {}", Self::daemon(&self.name));
        self.node = Node::new(self.machine.start(&line), self.machine.path(SOCKET));
        self.node.until_ready();
    }
}
