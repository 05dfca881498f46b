//! A thousand switches with a thousand VLANs in one process: a broadcast is one datagram for each node that hosts the
//! VNI and none for any other, and what is known afterwards goes to one node.
//!
//! `VSWITCH_SEED` repeats a run. Not here: links that lose and reorder (see `fabric.rs`), and how nodes learn what the
//! others host.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use vswitch_core::Vlan;
use vswitch_tests::fabric::Fabric;
use vswitch_tests::rng::Rng;

const NODES: usize = 1000;
const VLANS: u16 = 1000;
/// Stations in each VLAN, on as many nodes.
const MEMBERS: usize = 10;

/// Who hosts what, by node: each VLAN is on [`MEMBERS`] nodes, chosen by lot.
fn hosted(rng: &mut Rng) -> Vec<Vec<Vlan>> {
    let mut hosted = vec![Vec::new(); NODES];
    for vlan in (1..=VLANS).filter_map(Vlan::new) {
        let mut members = BTreeSet::new();
        while members.len() < MEMBERS {
            members.insert(rng.below(NODES));
        }
        members.into_iter().for_each(|node| hosted[node].push(vlan));
    }
    hosted
}

/// The most memory that this process has had resident, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// How long it is since now.
#[expect(clippy::disallowed_types, reason = "what a run takes is printed and judged by nobody")]
fn watch() -> impl Fn() -> Duration {
    let started = std::time::Instant::now();
    move || started.elapsed()
}

fn once_each(stations: &[usize]) -> BTreeMap<usize, u32> {
    stations.iter().map(|station| (*station, 1)).collect()
}

#[test]
fn a_thousand_nodes_of_a_thousand_vlans_flood_to_those_who_host_and_send_to_those_who_are_known() {
    let elapsed = watch();
    let mut rng = Rng::from_env(21);
    let hosted = hosted(&mut rng);
    let mut fabric = Fabric::hosting(rng.seed(), &hosted, 1..=VLANS, 300);
    println!("{NODES} nodes built after {:?}, {} MiB at most", elapsed(), peak_mib());
    // A station on every port; and who is in each VLAN, in the order of their nodes.
    let mut members: BTreeMap<Vlan, Vec<usize>> = BTreeMap::new();
    for (node, vlans) in hosted.iter().enumerate() {
        for (port, vlan) in (1..).zip(vlans) {
            members.entry(*vlan).or_default().push(fabric.attach(node, port, vlan.get(), false));
        }
    }
    let mut before = 0;
    let mut datagrams = |fabric: &Fabric| {
        let now = fabric.datagrams().0;
        now - std::mem::replace(&mut before, now)
    };
    for (vlan, stations) in &members {
        for station in stations {
            let number = fabric.broadcast(*station);
            fabric.settle();
            let others: Vec<usize> = stations.iter().copied().filter(|other| other != station).collect();
            assert_eq!(fabric.heard(number), once_each(&others), "seed {}: VLAN {vlan}", rng.seed());
            assert_eq!(
                datagrams(&fabric),
                MEMBERS as u64 - 1,
                "VLAN {vlan}: one for each node that hosts it"
            );
        }
    }
    for (vlan, stations) in &members {
        for (from, to) in stations.iter().zip(stations.iter().cycle().skip(1)) {
            let number = fabric.unicast(*from, *to);
            fabric.settle();
            assert_eq!(fabric.heard(number), once_each(&[*to]), "seed {}: VLAN {vlan}", rng.seed());
            assert_eq!(datagrams(&fabric), 1, "VLAN {vlan}: to the node where the station is");
        }
    }
    // A node knows all stations of the VLANs that it hosts, and no other.
    for (node, vlans) in hosted.iter().enumerate() {
        assert_eq!(fabric.known_at(node), vlans.len() * MEMBERS, "node {node}");
    }
    // One node more hosts a VLAN: it hears from then on, and all others as before.
    for vlan in [1, VLANS / 2, VLANS] {
        let stations = &members[&Vlan::new(vlan).unwrap()];
        let newcomer =
            (0..NODES).find(|node| stations.iter().all(|s| fabric.station(*s).node != *node)).unwrap();
        let port = fabric.host(newcomer, vlan);
        let new = fabric.attach(newcomer, port, vlan, false);
        for (from, others) in [(stations[0], &stations[1..]), (new, &stations[..])] {
            let number = fabric.broadcast(from);
            fabric.settle();
            let mut expected = once_each(others);
            if from != new {
                expected.insert(new, 1);
            }
            assert_eq!(fabric.heard(number), expected, "seed {}: VLAN {vlan}", rng.seed());
            assert_eq!(datagrams(&fabric), MEMBERS as u64);
        }
    }
    println!("all of it after {:?}, {} MiB at most", elapsed(), peak_mib());
}
