//! A thousand VLANs by one line of the file, on twenty real nodes: what they cost, and that the first, a middle one and
//! the last carry frames.
#![allow(clippy::unwrap_used, reason = "a test")]

use vswitch_tests::mesh::{Membership, Mesh, Plan, Pods, Subnet, resident, sockets};
use vswitch_tests::node::{PATIENCE, in_nodes};

const NODES: usize = 20;

/// Bytes that 999 VLANs and 18 peers may add to what a daemon of an unoptimised build has resident: 2 KiB for each VLAN
/// with a port, and room for allocators. A kilobyte for each pair of VLAN and peer would not fit.
const MORE: u64 = 16 << 20;

#[test]
fn a_thousand_vlans_on_twenty_nodes_take_no_socket_and_little_memory() {
    in_nodes("a_thousand_vlans_on_twenty_nodes_take_no_socket_and_little_memory", |lab| {
        let cost = |mesh: &Mesh, n: usize| {
            let pid = mesh.node(n).daemon.pid();
            (sockets(pid), resident(pid))
        };
        // What a daemon has that knows one VLAN and one peer.
        let (few_sockets, few_bytes) = {
            let mut mesh = Mesh::new(lab, &Plan::new(2, Membership::Static));
            let pods = Pods::open(&mesh.underlay);
            mesh.start(&[1, 2]);
            pods.until_all_reach(1, &[1, 2], PATIENCE);
            cost(&mesh, 1)
        };
        println!("1 VLAN, 1 peer: {few_sockets} sockets, {few_bytes} bytes resident");

        let mut plan = Plan::new(NODES, Membership::Static);
        plan.segments = "\n[[segment]]\nname = \"tenants\"\nvlan = \"1-1000\"\nvni = 10001\n".to_owned();
        plan.subnets = [1, 500, 1000].map(|vlan| Subnet::on_all(vlan, NODES)).into();
        // Who carries all of them on one port has them all.
        plan.more = "\n[[port]]\nname = \"fw\"\nvlan_mode = \"trunk\"\ntrunks = [\"1-1000\"]\n".to_owned();
        let mut mesh = Mesh::new(lab, &plan);
        let pods = Pods::open(&mesh.underlay);
        let all: Vec<usize> = (1..=NODES).collect();
        mesh.start(&all);
        for subnet in [1, 2, 3] {
            pods.until_all_reach(subnet, &all, PATIENCE);
            // The kernel has room for some thousand neighbours of all its namespaces together.
            mesh.underlay.forget_neighbours();
        }
        for n in all {
            let (sockets, bytes) = cost(&mesh, n);
            println!("node {n}, 1000 VLANs, 19 peers: {sockets} sockets, {bytes} bytes resident");
            assert_eq!(sockets, few_sockets, "node {n}");
            assert!(bytes <= few_bytes + MORE, "node {n}: {bytes} bytes, {few_bytes} with one VLAN");
            assert_eq!(mesh.node(n).ctl("segment").as_array().unwrap().len(), 1000);
        }
    });
}
