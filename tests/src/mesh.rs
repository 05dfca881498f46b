//! A mesh: many real daemons with one byte-identical file, each on a node of its own behind a router.
//!
//! On every node a pod of each subnet stands in the node's own namespace, which is cheap enough for a hundred of them.
//! Not here: what a test expects, and what a figure must be.

mod cluster;
mod flood;
mod measure;
mod pods;
mod routed;
mod station;
mod stream;

pub use cluster::{CLUSTER, Cluster, LEASE, etcd_url, in_cluster, membership};
pub use flood::{Copies, Flood, Hearing};
pub use measure::{NeighbourRoom, cpu_time, percentile, resident, sockets};
pub use pods::Pods;
pub use routed::{PREFIX, PREFIX_V6, ROUTER, Routed, v4, v6};
pub use station::Station;
pub use stream::Stream;

use crate::lab::{Deadline, Lab, check, until};
use crate::node::{Fleet, Node, PATIENCE};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

/// A VLAN in which pods stand.
#[derive(Clone, Debug)]
pub struct Subnet {
    /// Its VLAN.
    pub vlan: u16,
    /// The nodes that have a pod in it.
    pub nodes: Vec<usize>,
}

impl Subnet {
    /// A subnet with a pod on each of the first `count` nodes.
    #[must_use]
    pub fn on_all(vlan: u16, count: usize) -> Self {
        Self { vlan, nodes: (1..=count).collect() }
    }
}

/// How the nodes find each other.
#[derive(Clone, Debug)]
pub enum Membership {
    /// Every address that a node may have is in the file.
    Static,
    /// The name of every node is.
    Named {
        /// The names.
        names: Vec<String>,
        /// Who knows their addresses.
        server: IpAddr,
    },
    /// Through etcd at this URL, under this prefix, with a lease of so many seconds.
    Cluster {
        /// Where etcd is.
        etcd: String,
        /// The cluster's prefix.
        prefix: String,
        /// Seconds.
        lease: u16,
    },
}

/// What a mesh is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Places on the underlay, 1 and up; whether a daemon runs there is another matter.
    pub nodes: usize,
    /// How they find each other.
    pub membership: Membership,
    /// The prefixes that pick a node's underlay addresses: [`PREFIX`], [`PREFIX_V6`], or both.
    pub underlay: Vec<&'static str>,
    /// The pods; subnet *s*, 1 and up, is 10.*s*.0.0/16.
    pub subnets: Vec<Subnet>,
    /// The `[[segment]]` tables.
    pub segments: String,
    /// Whether pods have IPv6 addresses too: those of [`pod6`].
    pub v6: bool,
    /// Further text of the file.
    pub more: String,
}

impl Plan {
    /// One VLAN with a VNI, 10 and 10010, and a pod on each of `nodes` nodes.
    #[must_use]
    pub fn new(nodes: usize, membership: Membership) -> Self {
        let segments = "\n[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010\n".to_owned();
        Self {
            nodes,
            membership,
            underlay: vec![PREFIX],
            subnets: vec![Subnet::on_all(10, nodes)],
            segments,
            v6: false,
            more: String::new(),
        }
    }

    /// The file.
    fn toml(&self) -> String {
        let mut text = format!("[underlay]\naddress = {:?}\n", self.underlay);
        let _ = match &self.membership {
            Membership::Static => {
                let address = if self.underlay.contains(&PREFIX) { v4 } else { v6 };
                writeln!(text, "\n[mesh]\npeers = [\"{}-{}\"]", address(1), address(self.nodes))
            }
            Membership::Named { names, .. } => writeln!(text, "\n[mesh]\npeers = {names:?}"),
            Membership::Cluster { etcd, prefix, lease } => {
                writeln!(text, "\n[cluster]\netcd = [{etcd:?}]\nprefix = {prefix:?}\nlease = {lease}")
            }
        };
        text += &self.segments;
        for (subnet, Subnet { vlan, nodes }) in (1..).zip(&self.subnets) {
            for n in nodes {
                let (node, address) = (name(*n), pod(subnet, *n));
                let also = if self.v6 { format!(", \"{}/64\"", pod6(subnet, *n)) } else { String::new() };
                let _ = write!(
                    text,
                    "\n[[port]]\nname = \"s{subnet}n{n}\"\nnode = [{node:?}]\ntag = {vlan}\n\
                     addresses = [\"{address}/16\"{also}]\n"
                );
            }
        }
        text + &self.more
    }
}

/// The name of node `n`.
#[must_use]
pub fn name(n: usize) -> String {
    format!("node-{n}")
}

/// The address of node `n`'s pod in subnet `subnet`.
#[must_use]
pub fn pod(subnet: u8, n: usize) -> Ipv4Addr {
    let n = u16::try_from(n).expect("a few thousand nodes").to_be_bytes();
    Ipv4Addr::new(10, subnet, n[0], n[1])
}

/// The same in IPv6.
#[must_use]
pub fn pod6(subnet: u8, n: usize) -> Ipv6Addr {
    let n = u16::try_from(n).expect("a few thousand nodes");
    Ipv6Addr::new(0xfd10, u16::from(subnet), 0, 0, 0, 0, 0, n)
}

/// These nodes without this one.
#[must_use]
pub fn without(nodes: &[usize], one: usize) -> Vec<usize> {
    nodes.iter().copied().filter(|n| *n != one).collect()
}

/// Daemons that are started at a time: more would wait for each other.
const BATCH: usize = 6;

/// Nodes, and the daemons that run on them.
#[derive(Debug)]
pub struct Mesh {
    /// By number less one.
    nodes: Vec<Option<Node>>,
    fleet: Fleet,
    /// Where they are.
    pub underlay: Routed,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        // All at once: one after the other each would wait for the kernel to take its TAPs away.
        let running: Vec<String> =
            self.nodes.iter().flatten().map(|node| node.daemon.pid().to_string()).collect();
        // In a panic they are asked what they know, one by one.
        if !running.is_empty() && !std::thread::panicking() {
            let _ = Command::new("kill").args(["-s", "KILL"]).args(running).output();
        }
    }
}

impl Mesh {
    /// An underlay and a file by `plan`; nothing runs yet.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn new(lab: &Lab, plan: &Plan) -> Self {
        Self::on(Routed::new(lab, plan.nodes), plan)
    }

    /// The same on an underlay that is there.
    ///
    /// # Panics
    /// When the temporary directory cannot be written.
    #[must_use]
    pub fn on(underlay: Routed, plan: &Plan) -> Self {
        if plan.v6 {
            underlay.with_ipv6();
        }
        let fleet = Fleet::new(&plan.toml());
        if let Membership::Named { server, .. } = &plan.membership {
            fleet.resolve_by(*server);
        }
        Self { nodes: (0..plan.nodes).map(|_| None).collect(), fleet, underlay }
    }

    /// Puts another file in place of the one that nodes run from; those that run keep what they have read.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, plan: &Plan) {
        self.fleet.write(&plan.toml());
    }

    /// The numbers of the nodes that run.
    #[must_use]
    pub fn running(&self) -> Vec<usize> {
        (1..).zip(&self.nodes).filter(|(_, node)| node.is_some()).map(|(n, _)| n).collect()
    }

    /// The daemon of node `n`.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn node(&self, n: usize) -> &Node {
        self.nodes[n - 1].as_ref().unwrap_or_else(|| panic!("{} does not run", name(n)))
    }

    /// Starts the daemon of node `n` and does not wait.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&mut self, n: usize) {
        self.nodes[n - 1] = Some(self.fleet.spawn(&self.underlay.nodes[n - 1], &name(n)));
    }

    /// Waits until node `n` answers on its control socket, which is when all its ports are there.
    ///
    /// # Panics
    /// When it does not, or ends.
    pub fn until_ready(&self, n: usize) {
        let node = self.node(n);
        let deadline = Deadline::after(PATIENCE);
        while node.call("status", &serde_json::Value::Null).is_err() {
            let dead = !std::path::Path::new(&format!("/proc/{}/fd/0", node.daemon.pid())).exists();
            assert!(
                !dead && deadline.left().is_some(),
                "{} is not ready; it said:\n{}",
                name(n),
                node.daemon.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the daemons of these nodes, a few at a time; the last ones may not be ready yet.
    ///
    /// # Panics
    /// When one does not become ready.
    pub fn spawn_all(&mut self, numbers: &[usize]) {
        for (at, n) in numbers.iter().enumerate() {
            if let Some(before) = at.checked_sub(BATCH) {
                self.until_ready(numbers[before]);
            }
            self.spawn(*n);
        }
    }

    /// Starts the daemons of these nodes and waits until all are ready.
    ///
    /// # Panics
    /// When one does not become ready.
    pub fn start(&mut self, numbers: &[usize]) {
        self.spawn_all(numbers);
        numbers.iter().for_each(|n| self.until_ready(*n));
    }

    /// Ends the daemon of node `n` by a signal and waits for its end; it can be started again.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(&mut self, n: usize, signal: &str) {
        let mut node = self.nodes[n - 1].take().unwrap_or_else(|| panic!("{} does not run", name(n)));
        node.daemon.signal(signal);
        node.daemon.until_exit(PATIENCE);
    }

    /// Kills the daemon of node `n` and does not wait for the kernel to take its ports away.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&self, n: usize) {
        check(Command::new("kill").args(["-s", "KILL", &self.node(n).daemon.pid().to_string()]));
    }

    /// Waits until every node that runs says of its `status` that `key` is `value`.
    ///
    /// # Panics
    /// When one does not.
    pub fn until_status(&self, key: &str, value: &serde_json::Value) {
        for n in self.running() {
            until(&format!("{key} of {} to be {value}", name(n)), PATIENCE, || {
                std::thread::sleep(Duration::from_millis(20));
                self.node(n)
                    .call("status", &serde_json::Value::Null)
                    .is_ok_and(|now| now[key] == *value)
                    .then_some(())
            });
        }
    }
}
