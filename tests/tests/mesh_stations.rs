//! Stations of a mesh with a real etcd: pods that move without a word, addresses that change hands, a MAC in two
//! places, and requests for addresses, which the underlay does not see.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::Mac;
use vswitch_tests::daemon::Raw;
use vswitch_tests::frames::Frame;
use vswitch_tests::lab::{Stopwatch, until};
use vswitch_tests::mesh::{Cluster, Plan, Station, Stream, in_cluster, membership, pod, pod6, without};
use vswitch_tests::node::{Outer, PATIENCE, Wire};

const NODES: usize = 8;

/// How often pods try to reach a station.
const PACE: Duration = Duration::from_millis(20);

fn all() -> Vec<usize> {
    (1..=NODES).collect()
}

fn others(one: usize) -> Vec<usize> {
    without(&all(), one)
}

/// Waits until a packet from each of `senders` has found the station's address at node `at`.
fn until_found(cluster: &Cluster, station: &Station, at: usize, senders: &[usize]) {
    cluster.pods.until_found(station.address, at, senders, Stopwatch::start(), PACE, PATIENCE);
}

/// Asserts that every packet of `senders` to the station's address arrives at node `at`, and nowhere else.
fn only_at(cluster: &Cluster, station: &Station, at: usize, senders: &[usize]) {
    let found = cluster.pods.whereabouts(station.address, senders, 5);
    assert_eq!(found, [(at, 5 * senders.len())].into());
}

#[test]
fn a_silent_pod_that_moves_is_reached_at_its_new_node_and_the_old_one_hears_no_more() {
    let test = "a_silent_pod_that_moves_is_reached_at_its_new_node_and_the_old_one_hears_no_more";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cluster.start(&all());
        let station = Station::new(1, 10, 1);
        station.come(&cluster.mesh, 2);
        until_found(&cluster, &station, 2, &others(2));
        // The old node has it still: whoever came later is right. Its own kernel would not ask the switch.
        station.come(&cluster.mesh, 6);
        let senders = without(&others(2), 6);
        until_found(&cluster, &station, 6, &senders);
        others(6).iter().for_each(|n| cluster.until_known(*n, &station.mac, 6));
        only_at(&cluster, &station, 6, &senders);
        // And once more, after it has left.
        station.leave(&cluster.mesh, 2);
        station.leave(&cluster.mesh, 6);
        station.come(&cluster.mesh, 3);
        until_found(&cluster, &station, 3, &others(3));
        only_at(&cluster, &station, 3, &others(3));
    });
}

#[test]
fn an_address_that_a_new_mac_takes_over_is_found_at_it() {
    let test = "an_address_that_a_new_mac_takes_over_is_found_at_it";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cluster.start(&all());
        let old = Station::new(1, 10, 1);
        let new = Station { mac: Station::new(1, 10, 2).mac, ..old.clone() };
        old.come(&cluster.mesh, 2);
        until_found(&cluster, &old, 2, &others(2));
        old.leave(&cluster.mesh, 2);
        new.come(&cluster.mesh, 7);
        // The pods' kernels have the old MAC in mind until somebody tells them.
        until_found(&cluster, &new, 7, &others(7));
        only_at(&cluster, &new, 7, &others(7));
    });
}

#[test]
fn a_mac_on_two_nodes_is_told_once_and_costs_the_others_nothing() {
    let test = "a_mac_on_two_nodes_is_told_once_and_costs_the_others_nothing";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cluster.start(&all());
        cluster.until_stations(&all());
        let stream = Stream::start(&cluster.mesh.underlay, 1, &[(1, 3), (3, 4), (4, 5), (5, 1)]);
        let station = Station::new(1, 10, 1);
        let places = [2, 6];
        let mouths = places.map(|n| {
            station.come(&cluster.mesh, n);
            cluster.mesh.underlay.nodes[n - 1].inside(|| Raw::open(&station.port))
        });
        // Both say something again and again: each time the MAC seems to have moved. The ethertype is IEEE 802's for
        // experiments.
        let frame =
            Frame::new(Mac::BROADCAST, station.mac.parse().unwrap()).payload(0x88b5, &[0; 46]).bytes();
        let told = |n: usize| {
            let log = cluster.mesh.node(n).daemon.log();
            let words = [station.mac.as_str(), &station.port, "node-2", "node-6"];
            let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let clock = Stopwatch::start();
        until("a word that names the MAC, its port and both nodes", PATIENCE, || {
            mouths.iter().for_each(|mouth| mouth.send(&frame));
            std::thread::sleep(Duration::from_millis(20));
            places.iter().any(|n| !told(*n).is_empty()).then_some(())
        });
        // It goes on, and is not told again.
        while clock.elapsed() < Duration::from_secs(5) {
            mouths.iter().for_each(|mouth| mouth.send(&frame));
            std::thread::sleep(Duration::from_millis(20));
        }
        for n in places {
            assert!(told(n).len() <= 1, "node {n}: {:?}", told(n));
        }
        assert!(stream.stop() > 0);
    });
}

/// Whether a frame is an ARP packet, or a neighbour solicitation or advertisement, other than what a station says of
/// itself unasked (RFC 5227 §2.3, RFC 4861 §7.2.6) or before it uses an address (RFC 4862 §5.4.2).
fn asks_for_an_address(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x06]) => frame.get(28..32) != frame.get(38..42),
        Some([0x86, 0xdd]) if frame.get(20) == Some(&58) => match frame.get(54) {
            Some(135) => frame.get(22..38) != Some(&[0; 16]),
            Some(136) => frame.get(58).is_some_and(|flags| flags & 0x40 != 0),
            _ => false,
        },
        _ => false,
    }
}

/// What the nodes have sent each other that asks for an address, or answers.
fn asked(wires: &mut [Wire]) -> Vec<Vec<u8>> {
    let outers = wires.iter_mut().flat_map(Wire::frames).filter_map(|frame| Outer::parse(&frame));
    let tunnelled = outers.filter(|outer| outer.dst_port == 4789);
    tunnelled.map(|outer| outer.inner().to_vec()).filter(|inner| asks_for_an_address(inner)).collect()
}

#[test]
fn a_request_for_a_known_address_never_crosses_the_underlay() {
    let plan = Plan { v6: true, ..Plan::new(NODES, membership()) };
    in_cluster("a_request_for_a_known_address_never_crosses_the_underlay", &plan, |_lab, mut cluster| {
        for node in &cluster.mesh.underlay.nodes {
            // One datagram each, so that all are seen.
            node.ethtool("under", "tx-udp-segmentation off");
        }
        cluster.start(&all());
        cluster.until_stations(&all());
        // Each address is usable, and known to all, before anything is counted.
        let ping = |from: usize, to: IpAddr| {
            let from = &cluster.mesh.underlay.nodes[from - 1];
            until(&format!("an answer of {to}"), PATIENCE, || {
                (from.ping_with(to, 56, 1, "-W 1").received == 1).then_some(())
            });
        };
        for n in all() {
            let next = n % NODES + 1;
            ping(n, pod6(1, next).into());
            ping(n, pod(1, next).into());
        }
        cluster.mesh.underlay.forget_neighbours();
        let mut wires: Vec<Wire> = all().iter().map(|n| cluster.mesh.underlay.wire(*n)).collect();
        cluster.pods.until_all_reach(1, &all(), PATIENCE);
        for n in all() {
            ping(n, pod6(1, (n + 2) % NODES + 1).into());
        }
        let seen = asked(&mut wires);
        assert!(seen.is_empty(), "{} cross, such as {:02x?}", seen.len(), seen.first());
        // Of one that nobody has, all are asked.
        let _ = cluster.mesh.underlay.nodes[0].ping(IpAddr::from([10, 1, 251, 1]), 56, 1);
        assert!(asked(&mut wires).len() >= NODES - 1);
    });
}
