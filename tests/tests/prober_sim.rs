//! A hundred probers on a virtual network: who dies is found out, who lives is not forgotten, and paths are known.
//!
//! `VSWITCH_SEED` repeats a run. Not here: the rules one by one (see `prober.rs` here and the prober's own tests).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use vswitch_core::Instant;
use vswitch_tests::probing::{LIMIT, Probing};
use vswitch_tests::rng::Rng;
use vswitchd::slow::PeerState;

const SECOND: Duration = Duration::from_secs(1);

/// Everybody starts at once.
fn mesh(count: usize, seed: u64) -> Probing {
    let mut mesh = Probing::new(count, seed);
    (0..count).for_each(|n| mesh.start(n));
    mesh.introduce();
    mesh
}

/// Least, middle, 99 of 100, and greatest.
fn spread(mut values: Vec<u128>) -> [u128; 4] {
    values.sort_unstable();
    let at = |percent: usize| values[(values.len() - 1) * percent / 100];
    [at(0), at(50), at(99), at(100)]
}

/// How long each Down of a living peer lasted, in milliseconds; those that still do count to now.
fn downs(mesh: &Probing, since: Instant) -> Vec<u128> {
    let mut open: BTreeMap<(usize, usize), Instant> = BTreeMap::new();
    let mut lasted = Vec::new();
    for change in mesh.changes.iter().filter(|change| change.at >= since) {
        let pair = (change.node, change.peer);
        if change.state == PeerState::Down {
            open.insert(pair, change.at);
        } else if let Some(at) = open.remove(&pair) {
            lasted.push(change.at.since(at).as_millis());
        }
    }
    lasted.extend(open.values().map(|at| mesh.now.since(*at).as_millis()));
    lasted
}

#[test]
fn a_killed_node_is_down_everywhere_within_three_seconds() {
    let mut rng = Rng::from_env(1);
    for loss in [0, 10] {
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let mut mesh = mesh(100, rng.next());
            mesh.loss = loss;
            mesh.run(15 * SECOND);
            for victim in (0..100).step_by(7) {
                mesh.run(Duration::from_millis(rng.within(0..=1000) as u64));
                let (killed, before) = (mesh.now, mesh.changes.len());
                mesh.kill(victim);
                mesh.run(4 * SECOND);
                let mut when: BTreeMap<usize, Instant> = BTreeMap::new();
                for change in &mesh.changes[before..] {
                    if change.peer == victim && change.state == PeerState::Down {
                        when.entry(change.node).or_insert(change.at);
                    }
                }
                let times = spread(when.values().map(|at| at.since(killed).as_millis()).collect());
                first.push(times[0]);
                last.push(times[3]);
                assert_eq!(when.len(), 99, "seed {}, loss {loss}", rng.seed());
                mesh.start(victim);
                mesh.introduce();
                mesh.run(6 * SECOND);
                assert_eq!(mesh.count(PeerState::Up), 9900, "it is back");
            }
        }
        let (first, last) = (spread(first), spread(last));
        println!(
            "loss {loss} of 1000: first {first:?} ms, everywhere {last:?} ms (least, p50, p99, greatest)"
        );
        assert!(last[3] <= 3000, "seed {}: {last:?}", rng.seed());
    }
}

#[test]
fn without_a_store_everybody_finds_out_alone() {
    let mut mesh = mesh(20, Rng::from_env(2).next());
    (mesh.hints, mesh.members) = (false, false);
    mesh.introduce();
    mesh.run(5 * SECOND);
    assert_eq!(mesh.count(PeerState::Up), 380);
    mesh.kill(3);
    mesh.run(12 * SECOND);
    let down = (0..20).filter(|n| *n != 3 && mesh.thinks(*n, 3).unwrap().0 == PeerState::Down);
    assert_eq!(down.count(), 19);
}

#[test]
fn loss_alone_calls_nobody_down_for_long() {
    let mut rng = Rng::from_env(3);
    for (loss, seconds, longest) in [(0, 60, 0), (50, 60, 2000), (200, 30, 5000)] {
        let mut mesh = mesh(100, rng.next());
        mesh.loss = loss;
        mesh.run(15 * SECOND);
        let since = mesh.now;
        mesh.run(seconds * SECOND);
        let lasted = downs(&mesh, since);
        let greatest = lasted.iter().max().copied().unwrap_or(0);
        println!(
            "loss {loss} of 1000: {} false downs in {seconds} s, the longest {greatest} ms",
            lasted.len()
        );
        assert!(greatest <= longest, "seed {}: {greatest} ms", rng.seed());
    }
}

#[test]
fn halves_that_are_joined_again_know_each_other_soon() {
    let mut mesh = mesh(100, Rng::from_env(4).next());
    mesh.run(15 * SECOND);
    assert_eq!(mesh.count(PeerState::Up), 9900);
    mesh.passes = Box::new(|a, b| a % 2 == b % 2);
    mesh.run(30 * SECOND);
    assert_eq!((mesh.count(PeerState::Down), mesh.count(PeerState::Up)), (5000, 4900));
    mesh.passes = Box::new(|_, _| true);
    let mut took = 0;
    while mesh.count(PeerState::Up) < 9900 {
        mesh.run(Duration::from_millis(100));
        took += 100;
        assert!(took < 5000, "{} pairs", mesh.count(PeerState::Up));
    }
    println!("all up {took} ms after the halves were joined");
}

#[test]
fn paths_are_found_to_eight_bytes_and_never_too_large() {
    let mut rng = Rng::from_env(5);
    for loss in [0, 50] {
        let mut mesh = mesh(24, rng.next());
        let sizes = [1500, 1500, 1492, 1480, 1450, 1420, 1403, 1337, 1280, 900, 576];
        let path = move |a: usize, b: usize| sizes[(a.min(b) * 31 + a.max(b) * 17) % sizes.len()];
        (mesh.loss, mesh.path) = (loss, Box::new(path));
        mesh.run(40 * SECOND);
        let mut wrong = BTreeSet::new();
        for (a, b) in (0..24).flat_map(|a| (0..24).map(move |b| (a, b))).filter(|(a, b)| a != b) {
            let (state, mtu) = mesh.thinks(a, b).unwrap();
            let carries = path(a, b);
            assert_eq!(state, PeerState::Up, "{a} {b}");
            let Some(mtu) = mtu else { panic!("{a} to {b}, {carries} bytes: nothing is known") };
            assert!(mtu <= carries, "{a} to {b}: {mtu} of {carries}");
            if mtu + 8 < carries {
                wrong.insert((a, b, mtu, carries));
            }
        }
        println!("loss {loss} of 1000: {} of 552 paths are thought too small: {wrong:?}", wrong.len());
        assert!(wrong.len() <= loss / 10, "seed {}: {wrong:?}", rng.seed());
    }
}

#[test]
fn a_path_that_becomes_smaller_is_noticed_by_the_signs_of_life() {
    let mut mesh = mesh(20, Rng::from_env(6).next());
    mesh.run(10 * SECOND);
    let known = |mesh: &Probing, mtu: u16| {
        let pairs = (0..20).flat_map(|a| (0..20).map(move |b| (a, b))).filter(|(a, b)| a != b);
        pairs.filter(|(a, b)| mesh.thinks(*a, *b).unwrap().1 == Some(mtu)).count()
    };
    assert_eq!(known(&mesh, LIMIT), 380);
    mesh.path = Box::new(|_, _| 1420);
    let mut took = 0;
    while known(&mesh, 1420) < 380 {
        mesh.run(Duration::from_millis(500));
        took += 500;
        assert!(took < 60_000, "{} paths", known(&mesh, 1420));
        assert_eq!(mesh.count(PeerState::Up), 380);
    }
    println!("all of 20 nodes know their smaller paths after {took} ms");
    mesh.path = Box::new(|_, _| LIMIT);
    mesh.run(660 * SECOND);
    assert_eq!(known(&mesh, LIMIT), 380, "and their larger ones after ten minutes");
}

#[test]
fn nodes_that_speak_no_probes_are_unknown_for_ever_and_asked_ever_more_rarely() {
    let mut mesh = Probing::new(40, Rng::from_env(7).next());
    (mesh.members, mesh.hints) = (false, false);
    (0..20).for_each(|n| mesh.start(n));
    mesh.introduce();
    mesh.run(10 * SECOND);
    let early = std::mem::take(&mut mesh.sent);
    mesh.run(290 * SECOND);
    mesh.sent = (0, 0);
    mesh.run(10 * SECOND);
    println!(
        "20 that speak and 20 that do not: {early:?} datagrams and bytes in the first 10 s, {:?} later",
        mesh.sent
    );
    assert!(mesh.sent.0 < early.0 / 2);
    assert_eq!(mesh.count(PeerState::Up), 380);
    let mut silent = (0..20).flat_map(|a| (20..40).map(move |b| (a, b)));
    assert!(silent.all(|(a, b)| mesh.thinks(a, b).unwrap().0 == PeerState::Unknown));
    assert!(mesh.changes.iter().all(|change| change.state == PeerState::Up));
}

#[test]
fn a_node_sends_as_much_in_a_large_mesh_as_in_a_small_one() {
    let mut rng = Rng::from_env(8);
    for count in [10, 30, 100] {
        let mut mesh = mesh(count, rng.next());
        mesh.run(15 * SECOND);
        mesh.sent = (0, 0);
        mesh.run(50 * SECOND);
        // Two questions and as many answers in an interval, of which there were a hundred.
        let [datagrams, bytes] = [mesh.sent.0, mesh.sent.1].map(|sent| sent / count as u64);
        println!("{count} nodes: each sends {datagrams} datagrams, {bytes} bytes in 100 intervals");
        assert!((380..=410).contains(&datagrams), "{count} nodes: {datagrams}");
        assert_eq!(mesh.count(PeerState::Up), count * (count - 1));
    }
}
