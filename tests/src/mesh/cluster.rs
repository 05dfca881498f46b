//! A mesh whose nodes find each other through a real etcd, which runs on the router and may be paused, killed and
//! started again while they run.

use super::{Membership, Mesh, Plan, Pods, ROUTER, Routed, v4};
use crate::lab::{self, Daemon, Lab, Namespace, Stopwatch, until};
use crate::node::{PATIENCE, in_nodes, is_installed};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Seconds of a node's lease in these meshes.
pub const LEASE: u16 = 3;

/// etcd's port for clients.
const PORT: u16 = 2379;

/// An etcd on a router; killed when dropped, with what it has stored.
#[derive(Debug)]
pub struct Store {
    process: Option<Daemon>,
    directory: PathBuf,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.process = None;
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Store {
    /// An etcd that does not run yet.
    #[must_use]
    pub fn new() -> Self {
        static STORES: AtomicU32 = AtomicU32::new(0);
        let number = STORES.fetch_add(1, Ordering::Relaxed);
        // In memory, where there is room: a busy disk would stop etcd for seconds, and that is not what is tried here.
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let directory = parent.join(format!("vswitch-store-{}-{number}", std::process::id()));
        Self { process: None, directory }
    }

    /// Where the nodes find it.
    #[must_use]
    pub fn url() -> String {
        format!("http://{ROUTER}:{PORT}")
    }

    /// Its process number.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("etcd was started").pid()
    }

    /// Starts it with what it has stored, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(&mut self, router: &Namespace) {
        let mut command = router.command("etcd");
        let (clients, peers) = (Self::url(), "http://127.0.0.1:2380");
        command.args(["--name", "store", "--log-level", "error", "--unsafe-no-fsync", "--data-dir"]);
        command.arg(&self.directory);
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]);
        command.args(["--initial-cluster", &format!("store={peers}")]);
        self.process = Some(Daemon::spawn(&mut command));
        router.inside(|| until("etcd", PATIENCE, || TcpStream::connect((ROUTER, PORT)).ok().map(drop)));
    }

    /// Stops it where it is, so that connections stay and nobody answers.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self) {
        self.process.as_ref().expect("etcd was started").signal("STOP");
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self) {
        self.process.as_ref().expect("etcd was started").signal("CONT");
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Throws away what it has stored; it must not run.
    pub fn lose_everything(&self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs etcdctl in `namespace` with these words, split at blanks, and gives what it printed.
///
/// # Panics
/// When it fails.
pub fn etcdctl(namespace: &Namespace, words: &str) -> String {
    namespace.run(&format!("etcdctl --endpoints {} {words}", Store::url()))
}

/// Nodes, their pods and their etcd.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes; none runs at first.
    pub mesh: Mesh,
    /// Their pods.
    pub pods: Pods,
    /// Their etcd; it runs.
    pub store: Store,
}

/// How the nodes of a [`Cluster`] find each other.
#[must_use]
pub fn membership() -> Membership {
    Membership::Cluster { etcd: Store::url(), prefix: CLUSTER.to_owned(), lease: LEASE }
}

/// The prefix of a [`Cluster`].
pub const CLUSTER: &str = "/vswitch/test";

/// Runs `body` with a cluster by `plan`, as [`in_nodes`] does, where etcd is installed; else a loud word, and in CI a
/// failure.
pub fn in_cluster(test: &str, plan: &Plan, body: impl FnOnce(&Lab, Cluster)) {
    if !is_installed("etcd") || !is_installed("etcdctl") {
        return lab::skip("etcd or etcdctl is not installed (Debian: etcd-server, etcd-client)");
    }
    in_nodes(test, |lab| {
        let mut store = Store::new();
        let underlay = Routed::new(lab, plan.nodes);
        store.start(&underlay.router);
        let mesh = Mesh::on(underlay, plan);
        let pods = Pods::open(&mesh.underlay);
        body(lab, Cluster { mesh, pods, store });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_reaches_the_store_which_keeps_what_it_has_when_killed() {
        if !is_installed("etcdctl") || !is_installed("etcd") {
            return lab::skip("etcdctl or etcd is not installed (Debian: etcd-client, etcd-server)");
        }
        lab::in_lab(
            "mesh::cluster::tests::every_node_reaches_the_store_which_keeps_what_it_has_when_killed",
            |lab| {
                let underlay = Routed::new(lab, 2);
                let mut store = Store::new();
                store.start(&underlay.router);
                let ctl = |n: usize, words: &str| etcdctl(&underlay.nodes[n - 1], words);
                assert_eq!(ctl(1, "put key value"), "OK\n");
                store.pause();
                store.resume();
                store.kill();
                store.start(&underlay.router);
                assert_eq!(ctl(2, "get key --print-value-only"), "value\n");
                store.kill();
                store.lose_everything();
                store.start(&underlay.router);
                assert_eq!(ctl(2, "get key --print-value-only"), "");
            },
        );
    }
}
