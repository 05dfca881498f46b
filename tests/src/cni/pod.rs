//! What a pod has, as its own kernel says; and what is left on a host of pods that are gone.

use super::host_local_leases;
use crate::daemon::{Host, PATIENCE, call};
use crate::lab::{Namespace, until};
use serde_json::{Value, json};
use std::path::Path;

/// An interface inside a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Its index.
    pub index: u64,
    /// Its MAC address.
    pub mac: String,
    /// Its MTU.
    pub mtu: u64,
    /// Its addresses with their prefix lengths, without link-local ones, sorted.
    pub addresses: Vec<String>,
    /// Its routes in the main tables of both families, as `ip route` writes them, without those that the kernel makes of
    /// itself; sorted.
    pub routes: Vec<String>,
}

impl Inside {
    /// The interface of this name; `None` when there is none.
    ///
    /// # Panics
    /// When `ip` prints something else than it should.
    #[must_use]
    pub fn of(pod: &Namespace, ifname: &str) -> Option<Self> {
        let output = pod.try_run(&format!("ip -j address show dev {ifname}"));
        if !output.status.success() {
            return None;
        }
        let rows: Value = serde_json::from_slice(&output.stdout).expect("ip was asked for JSON");
        let row = &rows[0];
        let own = row["addr_info"].as_array().map(Vec::as_slice).unwrap_or_default();
        let own = own.iter().filter(|one| one["scope"] != "link");
        let mut addresses: Vec<String> = own
            .map(|one| format!("{}/{}", one["local"].as_str().unwrap_or_default(), one["prefixlen"]))
            .collect();
        addresses.sort();
        let mut routes: Vec<String> = Vec::new();
        for family in ["-4", "-6"] {
            let output = pod.try_run(&format!("ip {family} route show dev {ifname}"));
            if !output.status.success() {
                // It went between two questions.
                return None;
            }
            let text = String::from_utf8_lossy(&output.stdout);
            let own =
                text.lines().filter(|line| !line.contains("proto kernel") && !line.starts_with("fe80::"));
            routes.extend(own.map(|line| line.trim().to_owned()));
        }
        routes.sort();
        Some(Self {
            index: row["ifindex"].as_u64().expect("an index"),
            mac: row["address"].as_str().expect("a MAC address").to_owned(),
            mtu: row["mtu"].as_u64().expect("an MTU"),
            addresses,
            routes,
        })
    }

    /// The same, which must be there.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    #[track_caller]
    pub fn must(pod: &Namespace, ifname: &str) -> Self {
        Self::of(pod, ifname).unwrap_or_else(|| panic!("no {ifname} in {}", pod.name()))
    }
}

/// The attachments that the daemon at `socket` knows.
///
/// # Panics
/// When it does not answer.
#[must_use]
#[track_caller]
pub fn attached(socket: &Path) -> Vec<Value> {
    let rows = call(socket, "cni.list", &json!({})).unwrap_or_else(|error| panic!("cni.list: {error}"));
    rows.as_array().unwrap_or_else(|| panic!("cni.list: {rows}")).clone()
}

/// What is left of pods on a host whose daemon runs, a line for each thing: attachments, ports, interfaces, addresses
/// that host-local holds for these networks, the plugin's notes, descriptors in a keeper. Nothing, when all pods have gone.
///
/// # Panics
/// When the daemon does not answer.
#[must_use]
pub fn left(host: &Host, networks: &[&str]) -> Vec<String> {
    let socket = host.socket();
    let ask = |method: &str| {
        call(&socket, method, &Value::Null)
            .unwrap_or_else(|error| panic!("{method}: {error}\n{}", host.log()))
    };
    let mut left: Vec<String> = attached(&socket).iter().map(|row| format!("attachment {row}")).collect();
    let ports = ask("port.list");
    let ports = ports.as_array().expect("a table").iter().filter_map(|port| port["name"].as_str());
    let of_pods = |name: &&str| name.starts_with("cni") || name.starts_with("vgw");
    left.extend(ports.filter(of_pods).map(|name| format!("port {name}")));
    let links = host.namespace().ip("-o link show type tun");
    let names = links.lines().filter_map(|line| line.split(": ").nth(1));
    left.extend(names.map(|name| format!("interface {name}")));
    for network in networks {
        let leases = host_local_leases(host, network);
        left.extend(leases.iter().map(|address| format!("lease of {address} in {network}")));
        // The plugin's notes of leases that may be owed.
        let notes = std::fs::read_dir(host.file("cni").join(network)).into_iter().flatten().flatten();
        left.extend(notes.map(|note| format!("note {} in {network}", note.file_name().to_string_lossy())));
    }
    let kept = &ask("status")["keeper_descriptors"];
    if kept.as_u64().is_some_and(|kept| kept > 0) {
        left.push(format!("{kept} descriptors in the keeper"));
    }
    left
}

/// Waits until nothing is left, as [`left`] has it.
///
/// # Panics
/// When something stays.
#[track_caller]
pub fn until_left(host: &Host, networks: &[&str]) {
    let mut last = Vec::new();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("nothing left", PATIENCE, || {
            last = left(host, networks);
            last.is_empty().then_some(())
        });
    }));
    assert!(done.is_ok(), "left of pods that are gone: {last:#?}\n{}", host.log());
}
