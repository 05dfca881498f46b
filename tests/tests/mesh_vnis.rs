//! VLANs with a VNI that come, go and change while a mesh with a real etcd runs: floods go to exactly those who have
//! one, nobody hears of others' stations, and the store keeps nothing of what is gone.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use vswitch_tests::lab::until;
use vswitch_tests::mesh::{CLUSTER, Cluster, Flood, Plan, Stream, Subnet, in_cluster, membership, pod, v4};
use vswitch_tests::node::PATIENCE;

const ALL: [usize; 5] = [1, 2, 3, 4, 5];

/// The mesh's one VLAN, and further ones: VLAN, VNI, and the nodes with a pod there.
fn plan(more: &[(u16, u32, &[usize])]) -> Plan {
    let mut plan = Plan::new(ALL.len(), membership());
    for (vlan, vni, nodes) in more {
        plan.subnets.push(Subnet { vlan: *vlan, nodes: nodes.to_vec() });
        plan.segments += &format!("\n[[segment]]\nname = \"v{vlan}\"\nvlan = {vlan}\nvni = {vni}\n");
    }
    plan
}

fn reload(cluster: &Cluster, plan: &Plan) {
    cluster.mesh.write(plan);
    for n in cluster.mesh.running() {
        let answer = cluster.mesh.node(n).call("reload", &Value::Null).unwrap();
        assert_eq!(answer["failed"], json!([]), "node {n}");
    }
}

/// Waits until a broadcast of node `from` in the subnet goes to exactly these nodes.
fn until_floods(cluster: &Cluster, subnet: u8, from: usize, to: &[usize]) {
    let wanted: BTreeMap<IpAddr, usize> = to.iter().map(|n| (v4(*n), 1)).collect();
    let flood = Flood { mesh: &cluster.mesh, pods: &cluster.pods, from, subnet };
    let what = format!("floods of node {from} in subnet {subnet} to go to {to:?}");
    until(&what, PATIENCE, || (flood.copies(&[]).datagrams == wanted).then_some(()));
    let arrived = flood.copies(to).arrived;
    assert_eq!(arrived, to.iter().map(|n| (*n, 1)).collect(), "{what}");
}

/// Waits until the store has claims in exactly these VNIs.
fn until_claimed(cluster: &Cluster, vnis: &[u32]) {
    let range = format!("{CLUSTER}/v1/stations/");
    until(&format!("claims in {vnis:?}"), PATIENCE, || {
        let keys = cluster.store.keys(&range);
        let mut found: Vec<u32> =
            keys.iter().filter_map(|key| key.strip_prefix(&range)?.split('/').next()?.parse().ok()).collect();
        found.dedup();
        (found == vnis).then_some(())
    });
}

/// The VLANs of which node `n` knows a station.
fn vlans(cluster: &Cluster, n: usize) -> Vec<u64> {
    vlans_of(cluster.rows(n, "mac.list").iter())
}

/// The same where it knows it from the cluster: a flood that was under way leaves what it taught.
fn claimed_vlans(cluster: &Cluster, n: usize) -> Vec<u64> {
    vlans_of(cluster.rows(n, "mac.list").iter().filter(|row| row["state"] == "cluster"))
}

fn vlans_of<'a>(rows: impl Iterator<Item = &'a Value>) -> Vec<u64> {
    let mut vlans: Vec<u64> = rows.filter_map(|row| row["vlan"].as_u64()).collect();
    vlans.sort_unstable();
    vlans.dedup();
    vlans
}

#[test]
fn vlans_come_change_and_go_by_reload_and_concern_only_those_who_have_them() {
    let test = "vlans_come_change_and_go_by_reload_and_concern_only_those_who_have_them";
    in_cluster(test, &plan(&[]), |_lab, mut cluster| {
        cluster.start(&ALL);
        until_claimed(&cluster, &[10_010]);
        let stream = Stream::start(&cluster.mesh.underlay, 1, &[(1, 2), (2, 4), (4, 5), (5, 1)]);

        let (left, right): (&[usize], &[usize]) = (&[1, 2, 3], &[4, 5]);
        reload(&cluster, &plan(&[(20, 10_020, left), (30, 30_030, right)]));
        cluster.pods.until_all_reach(2, left, PATIENCE);
        cluster.pods.until_all_reach(3, right, PATIENCE);
        until_floods(&cluster, 2, 1, &[2, 3]);
        until_floods(&cluster, 3, 4, &[5]);
        until_floods(&cluster, 1, 1, &[2, 3, 4, 5]);
        until_claimed(&cluster, &[10_010, 10_020, 30_030]);
        for n in ALL {
            let own = if left.contains(&n) { 20 } else { 30 };
            assert_eq!(vlans(&cluster, n), [10, own], "node {n}");
        }

        // The same VLANs with other VNIs.
        reload(&cluster, &plan(&[(20, 20_020, left), (30, 10_020, right)]));
        cluster.pods.until_all_reach(2, left, PATIENCE);
        cluster.pods.until_all_reach(3, right, PATIENCE);
        until_floods(&cluster, 2, 3, &[1, 2]);
        until_floods(&cluster, 3, 5, &[4]);
        until_claimed(&cluster, &[10_010, 10_020, 20_020]);

        reload(&cluster, &plan(&[]));
        until_claimed(&cluster, &[10_010]);
        for n in ALL {
            until(&format!("node {n} to know VLAN 10 alone"), PATIENCE, || {
                (vlans(&cluster, n) == [10]).then_some(())
            });
        }
        until_floods(&cluster, 1, 5, &[1, 2, 3, 4]);
        assert!(stream.stop() > 0, "in the VLAN that stayed nothing was lost");
    });
}

#[test]
fn a_node_hears_the_floods_of_a_vni_as_long_as_it_has_a_port_there() {
    let test = "a_node_hears_the_floods_of_a_vni_as_long_as_it_has_a_port_there";
    let left: &[usize] = &[1, 2, 3];
    in_cluster(test, &plan(&[(20, 10_020, left)]), |_lab, mut cluster| {
        cluster.start(&ALL);
        cluster.pods.until_all_reach(2, left, PATIENCE);
        until_floods(&cluster, 2, 1, &[2, 3]);
        for _ in 0..2 {
            let settings = json!({"tag": 20, "addresses": [format!("{}/16", pod(2, 4))]});
            let node = cluster.mesh.node(4);
            node.call("port.add", &json!({"name": "late", "settings": settings})).unwrap();
            until_floods(&cluster, 2, 1, &[2, 3, 4]);
            until_floods(&cluster, 2, 4, left);
            cluster.pods.until_all_reach(2, &[1, 2, 3, 4], PATIENCE);
            node.call("port.del", &json!({"name": "late"})).unwrap();
            until_floods(&cluster, 2, 1, &[2, 3]);
        }
        // It hears of nobody's stations there any more, nor does anybody of its own.
        for n in [4, 5] {
            assert_eq!(claimed_vlans(&cluster, n), [10], "node {n}");
        }
        until("the claims of node 4 in VLAN 20 to be gone", PATIENCE, || {
            let rows = cluster.rows(1, "mac.list");
            let late = |row: &Value| row["vlan"] == 20 && row["peer"] == *v4(4).to_string();
            (!rows.iter().any(|row| late(row) && row["state"] == "cluster")).then_some(())
        });
    });
}
