//! A thousand VLANs by one line of the file, on twenty real nodes: what they cost, and that the first, a middle one and
//! the last carry frames.
#![allow(clippy::unwrap_used, reason = "a test")]

use vswitch_tests::mesh::{Membership, Mesh, Plan, Pods, pod, resident, sockets};
use vswitch_tests::node::{PATIENCE, in_nodes};

const NODES: usize = 20;

/// Bytes that a daemon of an unoptimised build may have resident with 1,000 VLANs and 19 peers: a pair of the two that
/// cost a kilobyte would not fit.
const RESIDENT: u64 = 40 << 20;

/// Sockets that a daemon may have open: the underlay's, netlink's and the control socket's, but none for a VLAN and
/// none for a peer.
const SOCKETS: usize = 16;

#[test]
fn a_thousand_vlans_on_twenty_nodes_take_no_socket_each_and_little_memory() {
    in_nodes("a_thousand_vlans_on_twenty_nodes_take_no_socket_each_and_little_memory", |lab| {
        let mut plan = Plan::new(NODES, Membership::Static);
        plan.subnets.clear();
        plan.segments = "\n[[segment]]\nname = \"tenants\"\nvlan = \"1-1000\"\nvni = 10001\n".to_owned();
        plan.more = "\n[[port]]\nname = \"all\"\nvlan_mode = \"trunk\"\ntrunks = [\"1-1000\"]\n".to_owned();
        let mut mesh = Mesh::new(lab, &plan);
        let pods = Pods::open(&mesh.underlay);
        let all: Vec<usize> = (1..=NODES).collect();
        mesh.start(&all);
        for (n, node) in (1..).zip(&mesh.underlay.nodes) {
            let lines = [(1, 1), (2, 500), (3, 1000)].map(|(subnet, vlan)| {
                format!(
                    "link add link all name all.{vlan} type vlan id {vlan}\naddress add {}/16 dev all.{vlan}\n\
                     link set dev all.{vlan} up\n",
                    pod(subnet, n)
                )
            });
            node.ip_batch(&format!("link set dev all up\n{}", lines.concat()));
        }
        let idle: Vec<usize> = all.iter().map(|n| sockets(mesh.node(*n).daemon.pid())).collect();
        for subnet in [1, 2, 3] {
            pods.until_all_reach(subnet, &all, PATIENCE);
        }
        for (n, idle) in all.iter().zip(idle) {
            let pid = mesh.node(*n).daemon.pid();
            let (sockets, resident) = (sockets(pid), resident(pid));
            println!("node {n}: {sockets} sockets ({idle} before traffic), {resident} bytes resident");
            assert!(
                sockets <= SOCKETS && resident <= RESIDENT,
                "node {n}: {sockets} sockets, {resident} bytes"
            );
            assert_eq!(mesh.node(*n).ctl("status")["segments"], 1000);
        }
    });
}
