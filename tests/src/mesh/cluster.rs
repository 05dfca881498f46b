//! A mesh whose nodes find each other through a real etcd, which runs on the router and may be paused, killed and
//! started again while they run.

use super::{Membership, Mesh, Plan, Pods, ROUTER, Routed, v4};
use crate::etcd::{Etcd, PORT, with_etcd};
use crate::lab::{Lab, Stopwatch, until};
use crate::node::{PATIENCE, in_nodes};
use serde_json::{Value, json};
use std::time::Duration;

/// Seconds of a node's lease in these meshes.
pub const LEASE: u16 = 3;

/// Where the nodes find their etcd.
#[must_use]
pub fn etcd_url() -> String {
    format!("http://{ROUTER}:{PORT}")
}

/// Nodes, their pods and their etcd.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes; none runs at first.
    pub mesh: Mesh,
    /// Their pods.
    pub pods: Pods,
    /// Their etcd; it runs.
    pub store: Etcd,
}

/// How the nodes of a [`Cluster`] find each other.
#[must_use]
pub fn membership() -> Membership {
    Membership::Cluster { etcd: etcd_url(), prefix: CLUSTER.to_owned(), lease: LEASE }
}

/// The prefix of a [`Cluster`].
pub const CLUSTER: &str = "/vswitch/test";

/// Runs `body` with a cluster by `plan`, as [`in_nodes`] does, where etcd is installed; else a loud word, and in CI a
/// failure.
pub fn in_cluster(test: &str, plan: &Plan, body: impl FnOnce(&Lab, Cluster)) {
    with_etcd(|| {
        in_nodes(test, |lab| {
            let underlay = Routed::new(lab, plan.nodes);
            let store = Etcd::start_in(&underlay.router, ROUTER.into());
            let mesh = Mesh::on(underlay, plan);
            let pods = Pods::open(&mesh.underlay);
            body(lab, Cluster { mesh, pods, store });
        });
    });
}

impl Cluster {
    /// Starts the daemons of these nodes and waits until all their pods in subnet 1 reach each other.
    ///
    /// # Panics
    /// When they do not.
    pub fn start(&mut self, nodes: &[usize]) {
        self.mesh.start(nodes);
        self.pods.until_all_reach(1, &self.mesh.running(), PATIENCE);
    }

    /// Waits until node `n` has exactly these peers, all with `state`.
    ///
    /// # Panics
    /// When it has not.
    pub fn until_peers(&self, n: usize, peers: &[usize], state: &str) {
        let mut wanted: Vec<(String, String)> =
            peers.iter().map(|peer| (v4(*peer).to_string(), state.to_owned())).collect();
        wanted.sort();
        let mut last = Vec::new();
        let clock = Stopwatch::start();
        while clock.elapsed() < PATIENCE {
            last = self.peers(n);
            if last == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("peers of node {n}: {last:?}, not {wanted:?}");
    }

    /// The peers of node `n` as they are: address and state, in order of the text.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn peers(&self, n: usize) -> Vec<(String, String)> {
        let rows = self.rows(n, "peer.list");
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let mut peers: Vec<_> = rows.iter().map(|row| (text(row, "address"), text(row, "state"))).collect();
        peers.sort();
        peers
    }

    /// The rows of a table of node `n`.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn rows(&self, n: usize, method: &str) -> Vec<Value> {
        let answer = self.mesh.node(n).call(method, &json!({}));
        let answer = answer.unwrap_or_else(|error| panic!("{method} of node {n}: {error}"));
        answer.as_array().unwrap_or_else(|| panic!("{method} of node {n}: {answer}")).clone()
    }

    /// The MAC of node `n`'s pod in subnet `subnet`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn mac(&self, subnet: u8, n: usize) -> String {
        let port = format!("s{subnet}n{n}");
        let rows = self.rows(n, "port.list");
        let row = rows.iter().find(|row| row["name"] == *port).unwrap_or_else(|| panic!("no port {port}"));
        row["mac"].as_str().expect("a port has a MAC").to_owned()
    }

    /// Waits until node `n` knows this MAC in VLAN 10 and behind peer `at`, as the cluster says.
    ///
    /// # Panics
    /// When it does not.
    pub fn until_known(&self, n: usize, mac: &str, at: usize) {
        let (peer, mut last) = (v4(at).to_string(), Value::Null);
        let clock = Stopwatch::start();
        while clock.elapsed() < PATIENCE {
            let rows = self.rows(n, "mac.list");
            last = rows.into_iter().find(|row| row["mac"] == mac && row["vlan"] == 10).unwrap_or(Value::Null);
            if last["peer"] == *peer && last["state"] == "cluster" {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("node {n} has {mac} as {last}, not behind {peer} by the cluster");
    }

    /// Waits until node `n` knows this MAC nowhere.
    ///
    /// # Panics
    /// When it still does.
    pub fn until_forgotten(&self, n: usize, mac: &str) {
        until(&format!("node {n} to forget {mac}"), PATIENCE, || {
            std::thread::sleep(Duration::from_millis(20));
            self.rows(n, "mac.list").iter().all(|row| row["mac"] != mac).then_some(())
        });
    }

    /// Waits until every one of `nodes` knows the pod of every other in subnet 1 where it is.
    ///
    /// # Panics
    /// When one does not.
    pub fn until_stations(&self, nodes: &[usize]) {
        for at in nodes {
            let mac = self.mac(1, *at);
            nodes.iter().filter(|n| *n != at).for_each(|n| self.until_known(*n, &mac, *at));
        }
    }
}
