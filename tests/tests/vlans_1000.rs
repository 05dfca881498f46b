//! A thousand VLANs by one line of the file, on twenty real nodes: what they cost, and that the first, a middle one and
//! the last carry frames.
#![allow(clippy::unwrap_used, reason = "a test")]

use vswitch_tests::mesh::{
    Flood, Membership, Mesh, Plan, Pods, Subnet, in_cluster, membership, resident, sockets, v4, without,
};
use vswitch_tests::node::{PATIENCE, in_nodes};

const NODES: usize = 20;

/// Bytes that 999 VLANs and 18 peers may add to what a daemon of an unoptimised build has resident: 2 KiB for each VLAN
/// with a port, and room for allocators. A kilobyte for each pair of VLAN and peer would not fit.
const MORE: u64 = 16 << 20;

/// Twenty nodes, all of which have all VLANs.
fn many(membership: Membership) -> Plan {
    let mut plan = Plan::new(NODES, membership);
    plan.segments = "\n[[segment]]\nname = \"tenants\"\nvlan = \"1-1000\"\nvni = 10001\n".to_owned();
    plan.subnets = [1, 500, 1000].map(|vlan| Subnet::on_all(vlan, NODES)).into();
    // Who carries all of them on one port has them all.
    plan.more = "\n[[port]]\nname = \"fw\"\nvlan_mode = \"trunk\"\ntrunks = [\"1-1000\"]\n".to_owned();
    plan
}

/// Two nodes with one VLAN, and then twenty with a thousand: the sockets are the same, and the memory nearly.
fn cost(mesh: &mut Mesh, pods: &Pods, membership: &Membership) {
    let cost = |mesh: &Mesh, n: usize| {
        let pid = mesh.node(n).daemon.pid();
        (sockets(pid), resident(pid))
    };
    mesh.write(&Plan::new(2, membership.clone()));
    mesh.start(&[1, 2]);
    pods.until_all_reach(1, &[1, 2], PATIENCE);
    let (few_sockets, few_bytes) = cost(mesh, 1);
    println!("1 VLAN, 1 peer: {few_sockets} sockets, {few_bytes} bytes resident");
    mesh.end(1, "TERM");
    mesh.end(2, "TERM");

    mesh.write(&many(membership.clone()));
    let all: Vec<usize> = (1..=NODES).collect();
    mesh.start(&all);
    for subnet in [1, 2, 3] {
        pods.until_all_reach(subnet, &all, PATIENCE);
        let others = without(&all, 1);
        let copies = Flood { mesh, pods, from: 1, subnet }.copies(&others);
        assert_eq!(copies.datagrams, others.iter().map(|n| (v4(*n), 1)).collect());
        // The kernel has room for some thousand neighbours of all its namespaces together.
        mesh.underlay.forget_neighbours();
    }
    for n in all {
        let (sockets, bytes) = cost(mesh, n);
        println!("node {n}, 1000 VLANs, 19 peers: {sockets} sockets, {bytes} bytes resident");
        assert_eq!(sockets, few_sockets, "node {n}");
        assert!(bytes <= few_bytes + MORE, "node {n}: {bytes} bytes, {few_bytes} with one VLAN");
        assert_eq!(mesh.node(n).ctl("segment").as_array().unwrap().len(), 1000);
    }
}

#[test]
fn a_thousand_vlans_on_twenty_nodes_take_no_socket_and_little_memory() {
    in_nodes("a_thousand_vlans_on_twenty_nodes_take_no_socket_and_little_memory", |lab| {
        let mut mesh = Mesh::new(lab, &many(Membership::Static));
        let pods = Pods::open(&mesh.underlay);
        cost(&mut mesh, &pods, &Membership::Static);
    });
}

#[test]
fn a_thousand_vlans_that_every_node_tells_all_others_of_cost_no_more() {
    let test = "a_thousand_vlans_that_every_node_tells_all_others_of_cost_no_more";
    in_cluster(test, &many(membership()), |_lab, mut cluster| {
        cost(&mut cluster.mesh, &cluster.pods, &membership());
    });
}
