//! Peers of a mesh that know no probes, stop, die, are impersonated, or are not to be asked at all.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::{Mac, Vni};
use vswitch_tests::frames::{self, Frame};
use vswitch_tests::lab::{Stopwatch, skip, until};
use vswitch_tests::mesh::{Flood, Hearing, Membership, Mesh, Plan, Pods, Stream, pod, v4};
use vswitch_tests::node::{Outer, PATIENCE, Wire, in_nodes, knows};

/// What a datagram of the probes has behind its VXLAN header, and which it is (see docs of `wire::probe`).
const MAGIC: &[u8] = b"VSWP";
const PROBE: u8 = 1;
const ANSWER: u8 = 2;
const ASK_ANSWER: u8 = 4;

/// The kind of the probe datagram that `frame` holds, from whom it came, and to whom it goes.
fn probe_in(frame: &[u8]) -> Option<(u8, IpAddr, IpAddr)> {
    let outer = Outer::parse(frame).filter(|outer| outer.dst_port == 4789)?;
    let kind = *outer.payload.strip_prefix(&[1, 0, 0, 0, 0, 0, 0, 0])?.strip_prefix(MAGIC)?.get(1)?;
    Some((kind, outer.src, outer.dst))
}

/// Waits until each of `nodes` has asked node `whom` so many times, as its link shows.
fn until_asked(wire: &mut Wire, nodes: &[usize], whom: usize, times: usize) {
    let mut asked: BTreeMap<IpAddr, usize> = BTreeMap::new();
    until(&format!("node {whom} to be asked"), PATIENCE * 2, || {
        for frame in wire.frames() {
            if let Some((PROBE, from, to)) = probe_in(&frame)
                && to == v4(whom)
            {
                *asked.entry(from).or_default() += 1;
            }
        }
        nodes.iter().all(|n| asked.get(&v4(*n)).is_some_and(|count| *count >= times)).then_some(())
    });
}

fn state(mesh: &Mesh, at: usize, of: usize) -> Value {
    let rows = mesh.node(at).call("peer.list", &Value::Null).unwrap_or_default();
    let address = v4(of).to_string();
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["address"] == *address));
    row.map(|row| row["state"].clone()).unwrap_or_default()
}

fn until_state(mesh: &Mesh, at: &[usize], of: usize, wanted: &str) {
    for at in at {
        until(&format!("node {of} to be {wanted} for node {at}"), PATIENCE, || {
            (state(mesh, *at, of) == wanted).then_some(())
        });
    }
}

/// Every ordered pair of these.
fn pairs(nodes: &[usize]) -> Vec<(usize, usize)> {
    let pairs = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (*a, *b)));
    pairs.filter(|(a, b)| a != b).collect()
}

#[test]
fn a_kernel_that_knows_no_probes_stays_unknown_and_is_used() {
    in_nodes("a_kernel_that_knows_no_probes_stays_unknown_and_is_used", |lab| {
        if !knows(&lab.namespace("vxlan"), "type vxlan id 1 dstport 4789") {
            return skip("the kernel has no VXLAN");
        }
        let mut mesh = Mesh::new(lab, &Plan::new(3, Membership::Static));
        let pods = Pods::open(&mesh.underlay);
        // The third node is Linux alone.
        let linux = &mesh.underlay.nodes[2];
        linux.ip(&format!("link add name vx type vxlan id 10010 local {} dstport 4789", v4(3)));
        for n in [1, 2] {
            linux.run(&format!("bridge fdb append 00:00:00:00:00:00 dev vx dst {}", v4(n)));
        }
        linux.bridge("br", &["vx"]);
        linux.ip("link set dev br mtu 1450");
        linux.address("br", &format!("{}/16", pod(1, 3)));
        let mut tunnel = Wire::open(linux, "vx");
        let mut wire = mesh.underlay.wire(3);
        mesh.start(&[1, 2]);
        pods.until_all_reach(1, &[1, 2, 3], PATIENCE);
        let stream = Stream::start(&mesh.underlay, 1, &[(1, 3), (3, 2), (2, 1)]);
        until_asked(&mut wire, &[1, 2], 3, 3);
        for at in [1, 2] {
            assert_eq!(state(&mesh, at, 3), "unknown");
            assert_eq!(state(&mesh, at, 3 - at), "up");
            let others = if at == 1 { [2, 3] } else { [1, 3] };
            let copies = Flood { mesh: &mesh, pods: &pods, from: at, subnet: 1 }.copies(&others);
            assert_eq!(copies.datagrams, others.iter().map(|n| (v4(*n), 1)).collect());
        }
        assert!(stream.stop() > 0);
        pods.until_all_reach(1, &[1, 2, 3], PATIENCE);
        let probes = tunnel.frames().iter().filter(|frame| frame.windows(4).any(|at| at == MAGIC)).count();
        assert_eq!(probes, 0, "probes are nothing that the kernel's stations see");
    });
}

fn static_plan(nodes: usize, probe: bool) -> Plan {
    let plan = Plan::new(nodes, Membership::Static);
    // What is first here continues [mesh].
    Plan { segments: format!("probe = {probe}\n{}", plan.segments), ..plan }
}

fn reload(mesh: &Mesh, plan: &Plan) {
    mesh.write(plan);
    for n in mesh.running() {
        let answer = mesh.node(n).call("reload", &Value::Null).unwrap();
        assert_eq!(answer["failed"].as_array().map(Vec::len), Some(0), "{answer}");
    }
}

#[test]
fn one_that_dies_hears_no_flood_and_is_up_again_when_it_is_back() {
    in_nodes("one_that_dies_hears_no_flood_and_is_up_again_when_it_is_back", |lab| {
        let mut mesh = Mesh::new(lab, &Plan::new(4, Membership::Static));
        let pods = Pods::open(&mesh.underlay);
        mesh.start(&[1, 2, 3, 4]);
        pods.until_all_reach(1, &[1, 2, 3, 4], PATIENCE);
        for n in 1..=4 {
            until_state(&mesh, &[1, 2, 3].map(|at| if at == n { 4 } else { at }), n, "up");
        }
        let stream = Stream::start(&mesh.underlay, 1, &[(1, 2), (2, 3), (3, 1)]);
        for _ in 0..2 {
            mesh.end(4, "KILL");
            let mut hearing = Hearing::open(&mesh, 4);
            until_state(&mesh, &[1, 2, 3], 4, "down");
            let pace = Duration::from_millis(60);
            hearing.until_silent(&pods, 1, &[1, 2, 3], Stopwatch::start(), pace, PATIENCE);
            mesh.start(&[4]);
            until_state(&mesh, &[1, 2, 3], 4, "up");
            until_state(&mesh, &[4], 1, "up");
            pods.until_all_reach(1, &[1, 2, 3, 4], PATIENCE);
            let copies = Flood { mesh: &mesh, pods: &pods, from: 1, subnet: 1 }.copies(&[2, 3, 4]);
            assert_eq!(copies.datagrams, [2, 3, 4].map(|n| (v4(n), 1)).into());
        }
        // Those that did not die have lost nothing.
        assert!(stream.stop() > 0);
    });
}

#[test]
fn without_probes_all_peers_are_unknown_and_hear_floods_and_with_them_again_all_is_found_out() {
    let test = "without_probes_all_peers_are_unknown_and_hear_floods_and_with_them_again_all_is_found_out";
    in_nodes(test, |lab| {
        let mut mesh = Mesh::new(lab, &static_plan(3, true));
        let pods = Pods::open(&mesh.underlay);
        mesh.start(&[1, 2, 3]);
        pods.until_all_reach(1, &[1, 2, 3], PATIENCE);
        until_state(&mesh, &[1, 2], 3, "up");
        mesh.end(3, "KILL");
        until_state(&mesh, &[1, 2], 3, "down");
        let flood = |mesh: &Mesh| Flood { mesh, pods: &pods, from: 1, subnet: 1 }.copies(&[2]).datagrams;
        assert_eq!(flood(&mesh), [(v4(2), 1)].into());

        let stream = Stream::start(&mesh.underlay, 1, &[(1, 2), (2, 1)]);
        reload(&mesh, &static_plan(3, false));
        for (at, of) in [(1, 2), (1, 3), (2, 1), (2, 3)] {
            assert_eq!(state(&mesh, at, of), "unknown", "node {of} at node {at}");
        }
        assert_eq!(flood(&mesh), [(v4(2), 1), (v4(3), 1)].into());

        reload(&mesh, &static_plan(3, true));
        until_state(&mesh, &[1], 2, "up");
        until_state(&mesh, &[2], 1, "up");
        mesh.start(&[3]);
        until_state(&mesh, &[1, 2], 3, "up");
        pods.until_reached(1, pairs(&[1, 2, 3]), PATIENCE);
        mesh.end(3, "KILL");
        until_state(&mesh, &[1, 2], 3, "down");
        assert!(stream.stop() > 0);
    });
}

/// A UDP datagram to node 1 that says it comes from node 3, as node 1's link brings it.
fn forged(dst: Mac, payload: &[u8]) -> Vec<u8> {
    let src = Mac::new([2, 0, 0, 0, 0, 0x99]);
    Frame::new(dst, src).udp((v4(3), 40_000), (v4(1), 4789), payload).bytes()
}

fn probe(kind: u8, nonce: [u8; 16], len: u16) -> Vec<u8> {
    let mut payload = vec![1, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(MAGIC);
    payload.extend([1, kind]);
    payload.extend(len.to_be_bytes());
    payload.extend(nonce);
    payload.resize(48, 0);
    payload
}

#[test]
fn one_that_is_stopped_is_down_whatever_others_send_in_its_name() {
    in_nodes("one_that_is_stopped_is_down_whatever_others_send_in_its_name", |lab| {
        let mut mesh = Mesh::new(lab, &Plan::new(3, Membership::Static));
        let pods = Pods::open(&mesh.underlay);
        mesh.start(&[1, 2, 3]);
        pods.until_all_reach(1, &[1, 2, 3], PATIENCE);
        until_state(&mesh, &[1, 2], 3, "up");
        let text = mesh.underlay.nodes[0].run("cat /sys/class/net/under/address");
        let own: Mac = text.trim().parse().unwrap();
        mesh.node(3).daemon.signal("STOP");
        until_state(&mesh, &[1, 2], 3, "down");

        // Off the path nobody sees what it is asked; a thousand guesses are as good as one.
        let mut towards = mesh.underlay.wire(1);
        let mut before = mesh.underlay.wire(3);
        let heard = mesh.node(1).peer(v4(3), "rx_frames");
        let station =
            Frame::new(Mac::BROADCAST, Mac::new([2, 0, 0, 0, 0, 0x33])).payload(0x88b5, &[7; 60]).bytes();
        let vni = Vni::new(10010).unwrap();
        for guess in 0..1000_u32 {
            let mut nonce = [0x5a; 16];
            nonce[..4].copy_from_slice(&guess.to_be_bytes());
            for kind in [ANSWER, ASK_ANSWER] {
                towards.send(&forged(own, &probe(kind, nonce, 48)));
            }
            if guess % 50 == 0 {
                towards.send(&forged(own, &frames::vxlan(vni, &station)));
                towards.send(&forged(own, &probe(PROBE, nonce, 48)));
            }
        }
        until("traffic in its name", PATIENCE, || {
            (mesh.node(1).peer(v4(3), "rx_frames") >= heard + 20).then_some(())
        });
        // Two more questions are as many verdicts: it is still down.
        before.frames();
        until_asked(&mut before, &[1], 3, 3);
        assert_eq!(state(&mesh, 1, 3), "down");
        assert!(!mesh.node(1).daemon.log().lines().any(|line| line.contains("before=down")));
        mesh.node(3).daemon.signal("CONT");
        until_state(&mesh, &[1, 2], 3, "up");
        pods.until_all_reach(1, &[1, 2, 3], PATIENCE);
    });
}
