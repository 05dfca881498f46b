//! Real nodes that find each other through a real etcd: they come, go, die and change their addresses, and nobody is
//! told. What happens while etcd is away is in `mesh_store.rs`, stations in `mesh_stations.rs`.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;
use vswitch_tests::lab::{Stopwatch, until};
use vswitch_tests::mesh::{
    CLUSTER, Cluster, Flood, Hearing, Membership, Plan, Subnet, etcd_url, in_cluster, membership, v4, without,
};
use vswitch_tests::node::PATIENCE;

const NODES: usize = 8;

fn all() -> Vec<usize> {
    (1..=NODES).collect()
}

/// Waits until a broadcast of node `from` in `subnet` leaves it once for each of the other `hosts` and for nobody else,
/// and asserts that each hears it once.
fn until_exact(cluster: &Cluster, from: usize, subnet: u8, hosts: &[usize]) {
    let others = without(hosts, from);
    let wanted = others.iter().map(|n| (v4(*n), 1)).collect();
    let flood = Flood { mesh: &cluster.mesh, pods: &cluster.pods, from, subnet };
    let mut last = None;
    let clock = Stopwatch::start();
    while clock.elapsed() < PATIENCE {
        let copies = flood.copies(&others);
        assert_eq!(copies.arrived, others.iter().map(|n| (*n, 1)).collect(), "from {from}");
        if copies.datagrams == wanted {
            return;
        }
        last = Some(copies);
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("a broadcast of {from}: {last:?}");
}

#[test]
fn nodes_find_each_other_in_any_order_and_flood_only_to_those_that_host_the_vni() {
    let test = "nodes_find_each_other_in_any_order_and_flood_only_to_those_that_host_the_vni";
    let mut plan = Plan::new(NODES, membership());
    plan.subnets.push(Subnet { vlan: 20, nodes: vec![2, 5, 8] });
    plan.segments += "\n[[segment]]\nname = \"red\"\nvlan = 20\nvni = 10020\n";
    in_cluster(test, &plan, |_lab, mut cluster| {
        // Half of them are there before etcd is.
        cluster.store.kill();
        cluster.mesh.start(&[8, 3, 5, 1]);
        cluster.mesh.until_status("cluster", &"down".into());
        cluster.store.run();
        cluster.mesh.start(&[2, 7, 6, 4]);
        cluster.pods.until_all_reach(1, &all(), PATIENCE);
        cluster.pods.until_all_reach(2, &[2, 5, 8], PATIENCE);
        cluster.mesh.until_status("cluster", &"up".into());
        for from in [1, 8] {
            until_exact(&cluster, from, 1, &all());
        }
        for from in [2, 8] {
            until_exact(&cluster, from, 2, &[2, 5, 8]);
        }
    });
}

#[test]
fn a_node_joins_by_starting_and_is_forgotten_when_it_stops() {
    let test = "a_node_joins_by_starting_and_is_forgotten_when_it_stops";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        let early: Vec<usize> = (1..NODES).collect();
        cluster.start(&early);
        for _ in 0..2 {
            cluster.start(&[NODES]);
            cluster.until_stations(&all());
            let mac = cluster.mac(1, NODES);
            cluster.mesh.end(NODES, "TERM");
            for n in &early {
                cluster.until_peers(*n, &without(&early, *n), "up");
                cluster.until_forgotten(*n, &mac);
            }
            until_exact(&cluster, 1, 1, &early);
        }
    });
}

#[test]
fn a_killed_node_leaves_every_flood_list_and_then_its_stations_go() {
    let test = "a_killed_node_leaves_every_flood_list_and_then_its_stations_go";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cluster.start(&all());
        cluster.until_stations(&all());
        let (dead, living) = (4, without(&all(), 4));
        let mac = cluster.mac(1, dead);
        let mut hearing = Hearing::open(&cluster.mesh, dead);
        cluster.mesh.end(dead, "KILL");
        let pace = Duration::from_millis(100);
        hearing.until_silent(&cluster.pods, 1, &living, Stopwatch::start(), pace, PATIENCE);
        for n in &living {
            cluster.until_peers(*n, &without(&living, *n), "up");
            cluster.until_forgotten(*n, &mac);
        }
        cluster.start(&[dead]);
        until_exact(&cluster, dead, 1, &all());
        until_exact(&cluster, 1, 1, &all());
        cluster.until_stations(&all());
    });
}

#[test]
fn a_node_whose_address_changes_is_followed() {
    let test = "a_node_whose_address_changes_is_followed";
    in_cluster(test, &Plan::new(NODES, membership()), |_lab, mut cluster| {
        cluster.start(&all());
        // Nobody's address so far.
        let (moved, new) = (3, 60);
        cluster.mesh.underlay.move_to(moved, new);
        cluster.pods.until_all_reach(1, &all(), PATIENCE);
        for n in without(&all(), moved) {
            let peers: Vec<usize> =
                without(&all(), n).iter().map(|p| if *p == moved { new } else { *p }).collect();
            cluster.until_peers(n, &peers, "up");
            cluster.until_known(n, &cluster.mac(1, moved), new);
        }
        // Floods go to the new address alone.
        let flood = Flood { mesh: &cluster.mesh, pods: &cluster.pods, from: 1, subnet: 1 };
        let copies = flood.copies(&without(&all(), 1));
        assert_eq!(copies.datagrams.get(&v4(new)), Some(&1), "{copies:?}");
        assert!(!copies.datagrams.contains_key(&v4(moved)), "{copies:?}");
    });
}

#[test]
fn clusters_that_share_an_etcd_see_nothing_of_each_other() {
    let test = "clusters_that_share_an_etcd_see_nothing_of_each_other";
    in_cluster(test, &Plan::new(6, membership()), |_lab, mut cluster| {
        cluster.start(&[1, 2, 3]);
        let prefix = "/vswitch/another".to_owned();
        cluster.mesh.write(&Plan::new(6, Membership::Cluster { etcd: etcd_url(), prefix, lease: 3 }));
        cluster.mesh.start(&[4, 5, 6]);
        cluster.pods.until_all_reach(1, &[4, 5, 6], PATIENCE);
        for n in 1..=6 {
            let own = if n < 4 { [1, 2, 3] } else { [4, 5, 6] };
            cluster.until_peers(n, &without(&own, n), "up");
        }
        let across: Vec<(usize, usize)> =
            (1..=3).flat_map(|a| (4..=6).flat_map(move |b| [(a, b), (b, a)])).collect();
        assert!(cluster.pods.reaching(1, &across, 3).is_empty());
    });
}

#[test]
fn a_node_that_comes_back_at_once_is_the_same_node_to_all() {
    let test = "a_node_that_comes_back_at_once_is_the_same_node_to_all";
    in_cluster(test, &Plan::new(4, membership()), |_lab, mut cluster| {
        cluster.start(&[1, 2, 3, 4]);
        // Its lease of before is still there, and so are its keys, when it writes them again.
        for _ in 0..3 {
            cluster.mesh.end(4, "KILL");
            cluster.start(&[4]);
        }
        // When the old lease ends, the new life's keys stay.
        let clock = Stopwatch::start();
        until("two leases to pass", PATIENCE, || {
            cluster.pods.until_all_reach(1, &[1, 2, 3, 4], PATIENCE);
            (clock.elapsed() > Duration::from_secs(6)).then_some(())
        });
        for n in 1..=4 {
            cluster.until_peers(n, &without(&[1, 2, 3, 4], n), "up");
        }
    });
}

#[test]
fn a_name_that_an_address_had_before_does_not_stand_before_the_one_that_it_has() {
    let test = "a_name_that_an_address_had_before_does_not_stand_before_the_one_that_it_has";
    in_cluster(test, &Plan::new(3, membership()), |_lab, mut cluster| {
        cluster.start(&[1, 2, 3]);
        cluster.until_stations(&[1, 2, 3]);
        let named = |name: &str| {
            let row = |row: &serde_json::Value| row["address"] == *v4(3).to_string() && row["node"] == *name;
            let rows = cluster.rows(1, "peer.list");
            rows.len() == 2 && rows.iter().any(row)
        };
        // An earlier life of the third node, and one that seems to be later; each is gone at once.
        for (boot, stands) in [(1, "node-3"), (9_000_000_000_000_u64, "zz")] {
            let record = format!(
                r#"{{"addresses":["{}"],"port":4789,"mtu":1500,"boot":{boot},"version":"0","vnis":[10010]}}"#,
                v4(3)
            );
            cluster.store.put(&format!("{CLUSTER}/v1/nodes/zz"), &record);
            until("it to be a member", PATIENCE, || {
                let status = cluster.mesh.node(1).call("status", &serde_json::Value::Null).ok()?;
                (status["cluster_members"] == 3).then_some(())
            });
            until("the member to be carried out", PATIENCE, || named(stands).then_some(()));
            cluster.store.delete(&format!("{CLUSTER}/v1/nodes/zz"));
            until("it to be forgotten though the address answers", PATIENCE, || {
                let status = cluster.mesh.node(1).call("status", &serde_json::Value::Null).ok()?;
                (status["cluster_members"] == 2 && named("node-3")).then_some(())
            });
            cluster.until_stations(&[1, 2, 3]);
            cluster.pods.until_all_reach(1, &[1, 2, 3], PATIENCE);
        }
    });
}
