//! Twenty-four switches in one process: exactly once, in the right segment, never back, whatever the links do.
//!
//! `VSWITCH_SEED` repeats a run. Not here: a single switch's rules.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::collections::BTreeMap;
use vswitch_core::{Attachment, Vlan};
use vswitch_tests::fabric::{Fabric, Faults};
use vswitch_tests::rng::Rng;

const NODES: usize = 24;
const VLANS: [u16; 3] = [10, 20, 30];
/// Ports 1..=3 are access ports of these, port 4 is a trunk of all.
const TRUNK: usize = 4;

fn ports() -> Vec<Attachment> {
    let access = VLANS.iter().map(|vlan| Attachment::Access(Vlan::new(*vlan).unwrap()));
    access.chain([Attachment::trunk_all()]).collect()
}

/// Four stations per node: one in each VLAN, and one more behind the trunk.
fn fabric(seed: u64) -> Fabric {
    let mut fabric = Fabric::new(seed, NODES, &ports(), 1..=99, 300);
    for node in 0..NODES {
        for (n, vlan) in VLANS.iter().enumerate() {
            fabric.attach(node, n + 1, *vlan, false);
        }
        fabric.attach(node, TRUNK, VLANS[node % 3], true);
    }
    fabric
}

fn once_each(stations: &[usize]) -> BTreeMap<usize, u32> {
    stations.iter().map(|station| (*station, 1)).collect()
}

/// Everybody has said something, so everybody is known where the broadcast came.
fn everybody_speaks(fabric: &mut Fabric, stations: usize) {
    for station in 0..stations {
        fabric.broadcast(station);
        fabric.settle();
    }
}

#[test]
fn a_broadcast_is_heard_exactly_once_by_all_of_its_segment_and_by_nobody_else() {
    let mut fabric = fabric(Rng::from_env(11).seed());
    for station in 0..NODES * 4 {
        let number = fabric.broadcast(station);
        fabric.settle();
        let others = fabric.others_of(station);
        assert_eq!(fabric.heard(number), once_each(&others), "seed {}", fabric.seed());
    }
    assert_eq!(fabric.datagrams(), ((NODES * 4 * (NODES - 1)) as u64, 0), "one datagram for each peer");
}

#[test]
fn a_known_station_hears_exactly_once_and_alone() {
    let mut rng = Rng::from_env(12);
    let mut fabric = fabric(rng.seed());
    everybody_speaks(&mut fabric, NODES * 4);
    let before = fabric.datagrams().0;
    let mut remote = 0;
    for _ in 0..2000 {
        let from = rng.below(NODES * 4);
        let to = *rng.pick(&fabric.others_of(from));
        remote += u64::from(fabric.station(from).node != fabric.station(to).node);
        let number = fabric.unicast(from, to);
        fabric.settle();
        assert_eq!(fabric.heard(number), once_each(&[to]), "seed {}: {from} to {to}", fabric.seed());
    }
    assert_eq!(fabric.datagrams().0 - before, remote, "one datagram, and none between ports of one node");
}

#[test]
fn an_unknown_station_hears_exactly_once_by_flooding() {
    let mut fabric = fabric(Rng::from_env(13).seed());
    let number = fabric.unicast(0, 4 * 7);
    fabric.settle();
    assert_eq!(fabric.heard(number).get(&(4 * 7)), Some(&1));
    assert_eq!(fabric.heard(number), once_each(&fabric.others_of(0)));
}

#[test]
fn links_that_lose_duplicate_and_reorder_make_no_loop_no_leak_and_no_copy_of_their_own() {
    let mut rng = Rng::from_env(14);
    let mut fabric = fabric(rng.seed());
    fabric.set_faults(Faults { loss: 100, duplication: 50, delay: 1_000..=50_000_000 });
    let mut numbers = Vec::new();
    for _ in 0..1500 {
        let from = rng.below(NODES * 4);
        let number = if rng.one_in(3) {
            fabric.broadcast(from)
        } else {
            fabric.unicast(from, *rng.pick(&fabric.others_of(from)))
        };
        numbers.push(number);
        // Many are under way at once, and overtake one another.
        if rng.one_in(10) {
            fabric.settle();
        }
    }
    // What is heard too often, in another segment or by the sender panics on the way.
    fabric.settle();
    let (sent, lost) = fabric.datagrams();
    assert!(lost * 1000 / sent > 70 && lost * 1000 / sent < 130, "{lost} of {sent}");
    let heard: u32 = numbers.iter().flat_map(|number| fabric.heard(*number).into_values()).sum();
    println!("seed {}: {sent} datagrams, {lost} lost, {heard} times heard", rng.seed());
    // And when the links are good again, so is everything.
    fabric.set_faults(Faults::NONE);
    everybody_speaks(&mut fabric, NODES * 4);
    let number = fabric.unicast(0, *fabric.others_of(0).last().unwrap());
    fabric.settle();
    assert_eq!(fabric.heard(number).into_values().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_run_of_one_seed_is_the_same_run_again() {
    let run = |seed| {
        let mut fabric = fabric(seed);
        fabric.set_faults(Faults { loss: 200, duplication: 100, delay: 0..=9_000_000 });
        let numbers: Vec<u64> = (0..20).map(|station| fabric.broadcast(station)).collect();
        fabric.settle();
        (fabric.datagrams(), numbers.iter().map(|number| fabric.heard(*number)).collect::<Vec<_>>())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_station_that_moves_is_found_by_its_first_frame() {
    let mut rng = Rng::from_env(15);
    let mut fabric = fabric(rng.seed());
    everybody_speaks(&mut fabric, NODES * 4);
    for _ in 0..100 {
        // One of the stations on access ports, to that of another node, or behind the trunk's own switch.
        let moving = 4 * rng.below(NODES) + rng.below(3);
        let vlan = fabric.station(moving).vlan.get();
        let port = 1 + VLANS.iter().position(|v| *v == vlan).unwrap();
        fabric.move_to(moving, rng.below(NODES), port);
        // Stations that now share a port hear nothing of each other through the switch.
        let here = fabric.station(moving);
        let apart: Vec<usize> = fabric
            .others_of(moving)
            .into_iter()
            .filter(|other| {
                (fabric.station(*other).node, fabric.station(*other).port) != (here.node, here.port)
            })
            .collect();
        let number = fabric.broadcast(moving);
        fabric.settle();
        assert_eq!(fabric.heard(number), once_each(&apart), "seed {}", rng.seed());
        let from = *rng.pick(&apart);
        let number = fabric.unicast(from, moving);
        fabric.settle();
        assert_eq!(fabric.heard(number).get(&moving), Some(&1), "seed {}: from {from}", rng.seed());
    }
}

#[test]
fn a_station_that_moves_in_silence_is_found_when_the_old_place_has_aged() {
    let mut fabric = Fabric::new(Rng::from_env(16).seed(), NODES, &ports(), 1..=99, 15);
    let (a, b) = (fabric.attach(0, 1, 10, false), fabric.attach(1, 1, 10, false));
    fabric.broadcast(b);
    fabric.settle();
    assert_eq!(fabric.known_at(0), 1);
    fabric.move_to(b, 2, 1);
    let lost = fabric.unicast(a, b);
    fabric.sleep(14);
    assert_eq!(fabric.heard(lost), BTreeMap::new(), "it still goes to the old place");
    fabric.sleep(1);
    assert_eq!(fabric.known_at(0), 0);
    let found = fabric.unicast(a, b);
    fabric.settle();
    assert_eq!(fabric.heard(found), once_each(&[b]));
    fabric.sleep(15);
    assert_eq!((0..NODES).map(|node| fabric.known_at(node)).sum::<usize>(), 0);
}

#[test]
fn a_partition_keeps_its_sides_whole_and_heals() {
    let mut fabric = fabric(Rng::from_env(17).seed());
    everybody_speaks(&mut fabric, NODES * 4);
    fabric.partition(|node| node % 3);
    for station in 0..NODES * 4 {
        let number = fabric.broadcast(station);
        fabric.settle();
        let mut near = fabric.others_of(station);
        near.retain(|other| fabric.side_of(*other) == fabric.side_of(station));
        assert_eq!(fabric.heard(number), once_each(&near), "seed {}", fabric.seed());
    }
    fabric.heal();
    for station in 0..NODES * 4 {
        let number = fabric.broadcast(station);
        fabric.settle();
        assert_eq!(fabric.heard(number), once_each(&fabric.others_of(station)), "seed {}", fabric.seed());
    }
}

#[test]
fn a_thousand_ports_in_a_thousand_vlans_keep_apart() {
    let access = (1..=1000).map(|vlan| Attachment::Access(Vlan::new(vlan).unwrap())).collect::<Vec<_>>();
    let mut fabric = Fabric::new(Rng::from_env(18).seed(), 3, &access, 1..=1000, 300);
    for node in 0..3 {
        for vlan in 1..=1000u16 {
            fabric.attach(node, vlan.into(), vlan, false);
        }
    }
    for station in 0..3000 {
        let number = fabric.broadcast(station);
        fabric.settle();
        let expected = once_each(&[(station + 1000) % 3000, (station + 2000) % 3000]);
        assert_eq!(fabric.heard(number), expected, "seed {}", fabric.seed());
    }
    for node in 0..3 {
        assert_eq!(fabric.known_at(node), 3000);
    }
    for station in 0..1000 {
        let number = fabric.unicast(station, station + 2000);
        fabric.settle();
        assert_eq!(fabric.heard(number), once_each(&[station + 2000]));
    }
}
