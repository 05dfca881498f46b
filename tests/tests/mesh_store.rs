//! Real nodes whose etcd is paused, killed, emptied or out of reach while their pods talk: no frame is lost, statuses
//! say so, and what changed meanwhile is everywhere afterwards.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::time::Duration;
use vswitch_tests::lab::{Stopwatch, until};
use vswitch_tests::mesh::{
    CLUSTER, Cluster, LEASE, Membership, Plan, Station, Stream, in_cluster, membership, v4, without,
};
use vswitch_tests::node::PATIENCE;

const NODES: usize = 8;

fn all() -> Vec<usize> {
    (1..=NODES).collect()
}

/// Every node sends to the next one.
fn ring(cluster: &Cluster) -> Stream {
    let pairs: Vec<(usize, usize)> = (1..=NODES).map(|n| (n, n % NODES + 1)).collect();
    Stream::start(&cluster.mesh.underlay, 1, &pairs)
}

/// Lets the stream run for so long.
fn flow(stream: &Stream, time: Duration) {
    let (clock, before) = (Stopwatch::start(), stream.sent());
    until("the stream to flow", PATIENCE + time, || {
        std::thread::sleep(Duration::from_millis(10));
        (clock.elapsed() >= time && stream.sent() > before + 100).then_some(())
    });
}

/// For how long etcd is away: longer than every lease lasts, or as many seconds as VSWITCH_OUTAGE says.
fn leases() -> Duration {
    let outage = std::env::var("VSWITCH_OUTAGE").map(|seconds| seconds.parse().expect("a number of seconds"));
    Duration::from_secs(outage.unwrap_or_else(|_| u64::from(LEASE) * 3))
}

fn down(cluster: &Cluster) {
    cluster.mesh.until_status("cluster", &"down".into());
    for n in cluster.mesh.running() {
        let status = cluster.mesh.node(n).ctl("status");
        let reason = status["cluster_reason"].as_str().unwrap_or_default();
        assert!(!reason.is_empty(), "node {n}: {status}");
    }
}

fn up(cluster: &Cluster) {
    cluster.mesh.until_status("cluster", &"up".into());
}

#[test]
fn while_etcd_is_paused_no_frame_is_lost_and_changes_wait_for_it() {
    let test = "while_etcd_is_paused_no_frame_is_lost_and_changes_wait_for_it";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cluster.start(&all());
        cluster.until_stations(&all());
        let stream = ring(&cluster);
        flow(&stream, Duration::from_millis(500));
        cluster.store.pause();
        down(&cluster);
        flow(&stream, leases());
        for n in all() {
            cluster.until_peers(n, &without(&all(), n), "up");
        }
        // A station comes, and one that was there before goes to another node.
        let (fresh, moved) = (Station::new(1, 10, 1), Station::new(1, 10, 2));
        moved.come(&cluster.mesh, 2);
        fresh.come(&cluster.mesh, 5);
        moved.leave(&cluster.mesh, 2);
        moved.come(&cluster.mesh, 7);
        flow(&stream, Duration::from_secs(1));
        cluster.store.resume();
        up(&cluster);
        for (station, at) in [(&fresh, 5), (&moved, 7)] {
            without(&all(), at).iter().for_each(|n| cluster.until_known(*n, &station.mac, at));
            let found = cluster.pods.whereabouts(station.address, &without(&all(), at), 3);
            assert_eq!(found, [(at, 3 * (NODES - 1))].into());
        }
        assert!(stream.stop() > 0);
        cluster.until_stations(&all());
    });
}

#[test]
fn etcd_that_dies_and_comes_back_costs_no_frame() {
    let test = "etcd_that_dies_and_comes_back_costs_no_frame";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cluster.start(&all());
        cluster.until_stations(&all());
        let stream = ring(&cluster);
        for _ in 0..2 {
            cluster.store.kill();
            down(&cluster);
            flow(&stream, leases());
            cluster.store.run();
            up(&cluster);
            flow(&stream, Duration::from_secs(1));
        }
        assert!(stream.stop() > 0);
        for n in all() {
            cluster.until_peers(n, &without(&all(), n), "up");
        }
        cluster.until_stations(&all());
    });
}

#[test]
fn etcd_that_comes_back_empty_is_filled_again_and_costs_no_frame() {
    let test = "etcd_that_comes_back_empty_is_filled_again_and_costs_no_frame";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cluster.start(&all());
        cluster.until_stations(&all());
        let stream = ring(&cluster);
        cluster.store.kill();
        down(&cluster);
        cluster.store.lose();
        cluster.store.run();
        up(&cluster);
        flow(&stream, leases());
        assert!(stream.stop() > 0);
        cluster.until_stations(&all());
        // Who starts now finds all the others.
        cluster.mesh.end(NODES, "TERM");
        cluster.start(&[NODES]);
        cluster.until_stations(&all());
    });
}

#[test]
fn a_cluster_that_is_reached_in_another_way_by_reload_costs_no_frame() {
    let test = "a_cluster_that_is_reached_in_another_way_by_reload_costs_no_frame";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cluster.start(&all());
        cluster.until_stations(&all());
        let stream = ring(&cluster);
        let Membership::Cluster { etcd, prefix, lease } = membership() else { unreachable!() };
        cluster.mesh.write(&Plan::new(NODES, Membership::Cluster { etcd, prefix, lease: lease + 1 }));
        all().iter().for_each(|n| drop(cluster.mesh.node(*n).ctl("reload")));
        up(&cluster);
        cluster.until_stations(&all());
        assert!(stream.stop() > 0);
        for n in all() {
            let others: Vec<usize> = without(&all(), n);
            cluster.until_peers(n, &others, "up");
        }
    });
}

#[test]
fn a_node_that_starts_while_etcd_is_away_joins_when_it_is_back() {
    let test = "a_node_that_starts_while_etcd_is_away_joins_when_it_is_back";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        let early = without(&all(), NODES);
        cluster.start(&early);
        cluster.store.kill();
        cluster.mesh.start(&[NODES]);
        down(&cluster);
        cluster.store.run();
        cluster.pods.until_all_reach(1, &all(), PATIENCE);
        up(&cluster);
        cluster.until_stations(&all());
    });
}

#[test]
fn a_node_that_slept_through_its_lease_and_a_compaction_is_a_member_again() {
    let test = "a_node_that_slept_through_its_lease_and_a_compaction_is_a_member_again";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cluster.start(&all());
        cluster.until_stations(&all());
        let (asleep, awake) = (3, without(&all(), 3));
        let mac = cluster.mac(1, asleep);
        let pairs: Vec<(usize, usize)> = vec![(1, 2), (4, 5), (5, 1)];
        let stream = Stream::start(&cluster.mesh.underlay, 1, &pairs);
        cluster.mesh.node(asleep).daemon.signal("STOP");
        awake.iter().for_each(|n| cluster.until_forgotten(*n, &mac));
        let station = Station::new(1, 10, 1);
        station.come(&cluster.mesh, 5);
        cluster.until_known(1, &station.mac, 5);
        // All that was told meanwhile is history now, and history is thrown away.
        cluster.store.compact();
        cluster.mesh.node(asleep).daemon.signal("CONT");
        cluster.pods.until_all_reach(1, &all(), PATIENCE);
        cluster.until_stations(&all());
        cluster.until_known(asleep, &station.mac, 5);
        assert!(stream.stop() > 0);
    });
}

#[test]
fn what_is_no_record_in_etcd_takes_no_node_down_and_no_frame() {
    let test = "what_is_no_record_in_etcd_takes_no_node_down_and_no_frame";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cluster.start(&all());
        cluster.until_stations(&all());
        let stream = ring(&cluster);
        let store = &cluster.store;
        let node = |name: &str, value: &str| store.put(&format!("{CLUSTER}/v1/nodes/{name}"), value);
        node("nonsense", "nonsense");
        node("empty", "{}");
        node("list", "[]");
        node("ours", r#"{"addresses":["198.18.1.1"],"port":0,"mtu":0,"boot":0,"version":"","vnis":[]}"#);
        node(
            "group",
            r#"{"addresses":["224.0.0.1"],"port":4789,"mtu":1500,"boot":1,"version":"1","vnis":["0-16777215"]}"#,
        );
        node(
            "backwards",
            r#"{"addresses":["198.18.9.9"],"port":4789,"mtu":1500,"boot":1,"version":"1","vnis":["9-1"]}"#,
        );
        node("deep", &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)));
        let station = |key: &str, value: &str| store.put(&format!("{CLUSTER}/v1/stations/{key}"), value);
        station("00010010/ff:ff:ff:ff:ff:ff/evil", r#"{"ips":["10.1.0.1"],"sequence":1,"port":"x"}"#);
        station("00010010/02:00:00:00:00:99/evil", r#"{"ips":["10.1.0.1"],"sequence":-1,"port":"x"}"#);
        station("00010010/02:00:00:00:00:98/evil", "nonsense");
        station("00010010/nonsense", "{}");
        station(
            "00010010/02:00:00:00:00:96/nobody",
            r#"{"ips":[],"sequence":18446744073709551615,"port":"x"}"#,
        );
        station("99999999/02:00:00:00:00:97/evil", r#"{"ips":[],"sequence":1,"port":"x"}"#);
        store.put(&format!("{CLUSTER}/v1/suspects/node-1/evil"), "nonsense");
        store.put(&format!("{CLUSTER}/v2/nodes/node-1"), "nonsense");
        flow(&stream, Duration::from_secs(2));
        assert!(stream.stop() > 0);
        cluster.pods.until_all_reach(1, &all(), PATIENCE);
        up(&cluster);
        // What is a record is still read.
        let station = Station::new(1, 10, 1);
        station.come(&cluster.mesh, 5);
        without(&all(), 5).iter().for_each(|n| cluster.until_known(*n, &station.mac, 5));
    });
}

fn across(half: &[usize], other: &[usize]) -> Vec<(usize, usize)> {
    half.iter().flat_map(|a| other.iter().flat_map(move |b| [(*a, *b), (*b, *a)])).collect()
}

/// Cuts the mesh into two halves, lets each see that the other is gone, heals it, and sees all of it whole again. With
/// `alone` one half has no etcd meanwhile.
fn cut_and_heal(cluster: &mut Cluster, alone: bool) {
    cluster.start(&all());
    cluster.until_stations(&all());
    let (half, other): (Vec<usize>, Vec<usize>) =
        ((1..=NODES / 2).collect(), (NODES / 2 + 1..=NODES).collect());
    cluster.mesh.underlay.cut(&half, alone);
    assert_eq!(cluster.pods.reaching(1, &across(&half, &other), 2), BTreeSet::new());
    for n in all() {
        let (own, gone) = if half.contains(&n) { (&half, &other) } else { (&other, &half) };
        // Those beyond the cut are down, or no members any more; those on this side are up.
        until(&format!("node {n} to see the cut"), PATIENCE, || {
            std::thread::sleep(Duration::from_millis(50));
            let peers = cluster.peers(n);
            let is = |peer: &usize, state: &str| peers.contains(&(v4(*peer).to_string(), state.to_owned()));
            let own = without(own, n).iter().all(|peer| is(peer, "up"));
            (own && !gone.iter().any(|peer| is(peer, "up"))).then_some(())
        });
    }
    for side in [&half, &other] {
        cluster.pods.until_all_reach(1, side, PATIENCE);
    }
    // A station goes over to the other side while nobody there can be told by a frame.
    let station = Station::new(1, 10, 1);
    station.come(&cluster.mesh, 2);
    station.leave(&cluster.mesh, 2);
    station.come(&cluster.mesh, NODES - 1);
    cluster.mesh.underlay.heal();
    cluster.pods.until_all_reach(1, &all(), PATIENCE);
    up(cluster);
    for n in all() {
        cluster.until_peers(n, &without(&all(), n), "up");
    }
    cluster.until_stations(&all());
    let at = NODES - 1;
    without(&all(), at).iter().for_each(|n| cluster.until_known(*n, &station.mac, at));
}

#[test]
fn a_mesh_that_was_cut_in_two_is_whole_again_without_a_restart() {
    let test = "a_mesh_that_was_cut_in_two_is_whole_again_without_a_restart";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cut_and_heal(&mut cluster, false);
    });
}

#[test]
fn a_half_that_was_cut_off_from_etcd_too_is_whole_again_without_a_restart() {
    let test = "a_half_that_was_cut_off_from_etcd_too_is_whole_again_without_a_restart";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cut_and_heal(&mut cluster, true);
    });
}
