//! A mesh of eight real nodes with one file: all pods reach each other, and a broadcast is one datagram for each node.
//! Here the nodes are in the file; those that find each other through etcd are tested in `mesh_*.rs`.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use vswitch_tests::lab::until;
use vswitch_tests::mesh::{Flood, Membership, Mesh, PREFIX_V6, Plan, Pods, Stream, Subnet, v4, v6, without};
use vswitch_tests::node::{PATIENCE, in_nodes};

const NODES: usize = 8;

#[test]
fn nodes_with_one_file_reach_each_other_and_each_hears_a_broadcast_once() {
    in_nodes("nodes_with_one_file_reach_each_other_and_each_hears_a_broadcast_once", |lab| {
        let mut plan = Plan::new(NODES, Membership::Static);
        plan.subnets.push(Subnet { vlan: 20, nodes: vec![1, 2, 3] });
        plan.segments += "\n[[segment]]\nname = \"red\"\nvlan = 20\nvni = 10020\n";
        let mut mesh = Mesh::new(lab, &plan);
        let pods = Pods::open(&mesh.underlay);
        let all: Vec<usize> = (1..=NODES).collect();
        mesh.start(&all);
        pods.until_all_reach(1, &all, PATIENCE);
        pods.until_all_reach(2, &[1, 2, 3], PATIENCE);
        for from in [1, NODES] {
            let others: Vec<usize> = without(&all, from);
            let copies = Flood { mesh: &mesh, pods: &pods, from, subnet: 1 }.copies(&others);
            assert_eq!(copies.datagrams, others.iter().map(|n| (v4(*n), 1)).collect());
            assert_eq!(copies.arrived, others.iter().map(|n| (*n, 1)).collect());
        }
        let copies = Flood { mesh: &mesh, pods: &pods, from: 2, subnet: 2 }.copies(&[1, 3]);
        assert_eq!(copies.arrived, [(1, 1), (3, 1)].into());
    });
}

#[test]
fn a_node_of_the_file_that_starts_late_is_reached_like_the_others() {
    in_nodes("a_node_of_the_file_that_starts_late_is_reached_like_the_others", |lab| {
        let mut mesh = Mesh::new(lab, &Plan::new(NODES, Membership::Static));
        let pods = Pods::open(&mesh.underlay);
        let early: Vec<usize> = (1..NODES).collect();
        mesh.start(&early);
        pods.until_all_reach(1, &early, PATIENCE);
        mesh.start(&[NODES]);
        let pairs = early.iter().flat_map(|n| [(*n, NODES), (NODES, *n)]);
        pods.until_reached(1, pairs, PATIENCE);
        mesh.end(NODES, "KILL");
        mesh.start(&[NODES]);
        pods.until_all_reach(1, &(1..=NODES).collect::<Vec<_>>(), PATIENCE);
    });
}

#[test]
fn an_underlay_of_ipv6_alone_carries_a_mesh() {
    in_nodes("an_underlay_of_ipv6_alone_carries_a_mesh", |lab| {
        let plan = Plan { underlay: vec![PREFIX_V6], ..Plan::new(NODES, Membership::Static) };
        let mut mesh = Mesh::new(lab, &plan);
        let pods = Pods::open(&mesh.underlay);
        let all: Vec<usize> = (1..=NODES).collect();
        mesh.start(&all);
        pods.until_all_reach(1, &all, PATIENCE);
        let others = without(&all, 1);
        let copies = Flood { mesh: &mesh, pods: &pods, from: 1, subnet: 1 }.copies(&others);
        assert_eq!(copies.datagrams, others.iter().map(|n| (v6(*n), 1)).collect());
    });
}

#[test]
fn two_halves_that_were_cut_apart_talk_among_themselves_and_again_to_all_when_healed() {
    let test = "two_halves_that_were_cut_apart_talk_among_themselves_and_again_to_all_when_healed";
    in_nodes(test, |lab| {
        let mut mesh = Mesh::new(lab, &Plan::new(NODES, Membership::Static));
        let pods = Pods::open(&mesh.underlay);
        let all: Vec<usize> = (1..=NODES).collect();
        mesh.start(&all);
        pods.until_all_reach(1, &all, PATIENCE);
        let (half, other) = all.split_at(NODES / 2);
        let stream = Stream::start(&mesh.underlay, 1, &[(1, 2), (2, 3), (5, 6), (8, 5)]);
        let mut sent = 0;
        for _ in 0..2 {
            mesh.underlay.cut(half, false);
            let across = half.iter().flat_map(|a| other.iter().flat_map(|b| [(*a, *b), (*b, *a)]));
            assert_eq!(pods.reaching(1, &across.collect::<Vec<_>>(), 2), BTreeSet::new());
            pods.until_all_reach(1, half, PATIENCE);
            pods.until_all_reach(1, other, PATIENCE);
            mesh.underlay.heal();
            pods.until_all_reach(1, &all, PATIENCE);
            until("the stream to flow", PATIENCE, || (stream.sent() > sent + 100).then_some(()));
            sent = stream.sent();
        }
        // Those that no cut was between have lost nothing.
        assert!(stream.stop() >= sent);
    });
}
