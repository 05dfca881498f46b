//! Two and three real nodes that run one identical file: who reaches whom, and what the underlay sees.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use vswitch_tests::frames::{Frame, station};
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::node::{
    Fleet, Node, Outer, PATIENCE, Underlay, Wire, in_nodes, is_fragment, pings, pod, silence, talk, v4, v6,
};

/// How the nodes find each other: the `[underlay]` and `[mesh]` of the file.
fn mesh(families: &str) -> &'static str {
    match families {
        "v4" => "[underlay]\naddress = \"192.0.2.0/24\"\n[mesh]\npeers = [\"192.0.2.1-192.0.2.3\"]\n",
        "v6" => "[underlay]\naddress = \"2001:db8::/64\"\n[mesh]\npeers = [\"2001:db8::1-2001:db8::3\"]\n",
        _ => panic!("{families}"),
    }
}

const SEGMENTS: &str = r#"
[[segment]]
name = "blue"
vlan = 10
vni = 10010

[[segment]]
name = "red"
vlan = 20
vni = 10020

[[segment]]
name = "tenants"
vlan = "100-199"
vni = 10100
"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A pod on each of `count` nodes, in VLAN 10: number *n* has 10.10.0.*n* and fd10::*n*.
fn blue_pods(lab: &Lab, count: u8) -> (Vec<Namespace>, String) {
    let pods: Vec<_> = (1..=count).map(|n| lab.namespace(&format!("blue{n}"))).collect();
    let ports = (1..=count).zip(&pods).map(|(n, namespace)| {
        let addresses = [format!("10.10.0.{n}/24"), format!("fd10::{n}/64")];
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        pod(&format!("blue{n}"), &format!("n{n}"), namespace, "tag = 10", &addresses)
    });
    let ports = ports.collect();
    (pods, ports)
}

fn start_all(fleet: &Fleet, underlay: &Underlay) -> Vec<Node> {
    let spawned = (1..).zip(&underlay.nodes).map(|(n, namespace)| fleet.spawn(namespace, &format!("n{n}")));
    let nodes: Vec<Node> = spawned.collect();
    nodes.iter().for_each(Node::until_ready);
    nodes
}

fn same_vlan_talks_and_others_do_not(lab: &Lab, count: u8, families: &str, workers: u8) {
    let underlay = Underlay::new(lab, count, 1500);
    let (blue, mut ports) = blue_pods(lab, count);
    // In the same IP network, so that nothing but the VLAN keeps them apart.
    let red = lab.namespace("red");
    ports += &pod("red", "n1", &red, "tag = 20", &["10.10.0.99/24"]);
    let unnamed = lab.namespace("unnamed");
    ports += &pod("unnamed", "n2", &unnamed, "tag = 30", &["10.10.0.98/24"]);
    let head = mesh(families);
    let fleet = Fleet::new(&format!("{head}\n[datapath]\nworkers = {workers}\n{SEGMENTS}{ports}"));
    let mut wires: Vec<Wire> = underlay.nodes.iter().map(|node| Wire::open(node, "under")).collect();
    let nodes = start_all(&fleet, &underlay);
    for (n, node) in (1..).zip(&nodes) {
        let status = node.ctl("status");
        // The file lists three nodes, there be two or three.
        assert_eq!((&status["peers"], &status["underlay"]), (&2.into(), &"ready".into()), "n{n}");
    }
    for (i, j) in (0..blue.len()).flat_map(|i| (i + 1..blue.len()).map(move |j| (i, j))) {
        let (v4, v6) = (|n| ip(&format!("10.10.0.{}", n + 1)), |n| ip(&format!("fd10::{}", n + 1)));
        talk(&blue[i], v4(i), &blue[j], v4(j));
        talk(&blue[i], v6(i), &blue[j], v6(j));
    }
    silence(&blue[1], ip("10.10.0.99"));
    silence(&blue[0], ip("10.10.0.98"));
    silence(&red, ip("10.10.0.2"));
    let mut tunnelled = 0;
    for frame in wires.iter_mut().flat_map(Wire::frames) {
        assert!(!is_fragment(&frame), "a fragment on the underlay");
        tunnelled += usize::from(Outer::parse(&frame).is_some_and(|outer| outer.dst_port == 4789));
    }
    assert!(tunnelled > 100, "{tunnelled} datagrams");
    for node in &nodes {
        for reason in ["unknown_peer", "too_big", "tx_error", "unknown_vni", "bad_offload"] {
            assert_eq!(node.drops(reason), 0, "{reason}");
        }
    }
}

#[test]
fn two_nodes_talk_over_ipv4() {
    in_nodes("two_nodes_talk_over_ipv4", |lab| same_vlan_talks_and_others_do_not(lab, 2, "v4", 1));
}

#[test]
fn two_nodes_talk_over_ipv6() {
    in_nodes("two_nodes_talk_over_ipv6", |lab| same_vlan_talks_and_others_do_not(lab, 2, "v6", 2));
}

#[test]
fn three_nodes_talk_over_ipv4() {
    in_nodes("three_nodes_talk_over_ipv4", |lab| same_vlan_talks_and_others_do_not(lab, 3, "v4", 2));
}

#[test]
fn a_node_with_both_families_talks_to_nodes_that_have_one() {
    in_nodes("a_node_with_both_families_talks_to_nodes_that_have_one", |lab| {
        let underlay = Underlay::new(lab, 3, 1500);
        underlay.nodes[1].ip(&format!("address del {}/64 dev under", v6(2)));
        underlay.nodes[2].ip(&format!("address del {}/24 dev under", v4(3)));
        let (blue, ports) = blue_pods(lab, 3);
        let head = "[underlay]\naddress = [\"192.0.2.0/24\", \"2001:db8::/64\"]\n[mesh]\n\
                    peers = [\"192.0.2.1-192.0.2.2\", \"2001:db8::1\", \"2001:db8::3\"]\n";
        let fleet = Fleet::new(&format!("{head}{SEGMENTS}{ports}"));
        let nodes = start_all(&fleet, &underlay);
        let facts = |node: &Node| {
            let status = node.ctl("status");
            (status["peers"].as_u64().unwrap(), status["underlay"].as_str().unwrap().to_owned())
        };
        let facts: Vec<_> = nodes.iter().map(facts).collect();
        // Those with one family say that they wait for the other, and have no peers in it.
        assert_eq!(facts, [(2, "ready".to_owned()), (1, "waiting".to_owned()), (1, "waiting".to_owned())]);
        for n in [2_usize, 3] {
            let to = ip(&format!("10.10.0.{n}"));
            talk(&blue[0], ip("10.10.0.1"), &blue[n - 1], to);
        }
    });
}

#[test]
fn a_range_of_segments_is_carried_to_its_ends() {
    in_nodes("a_range_of_segments_is_carried_to_its_ends", |lab| {
        let underlay = Underlay::new(lab, 2, 1500);
        let mut ports = String::new();
        let mut pods = Vec::new();
        // All in one IP network; the VLANs next to the range, and those in it, must not meet.
        for vlan in [100_u16, 150, 199, 99, 200] {
            for node in [1_u8, 2] {
                let namespace = lab.namespace(&format!("v{vlan}-{node}"));
                let (name, on) = (format!("v{vlan}"), format!("n{node}"));
                let address = format!("10.0.{vlan}.{node}/16");
                ports +=
                    &pod(&format!("{name}-{node}"), &on, &namespace, &format!("tag = {vlan}"), &[&address]);
                pods.push((vlan, node, namespace));
            }
        }
        let fleet = Fleet::new(&format!("{}{SEGMENTS}{ports}", mesh("v4")));
        let mut wire = Wire::open(&underlay.nodes[1], "under");
        let _nodes = start_all(&fleet, &underlay);
        let pod = |vlan, node| &pods.iter().find(|pod| (pod.0, pod.1) == (vlan, node)).unwrap().2;
        let address = |vlan: u16, node: u8| ip(&format!("10.0.{vlan}.{node}"));
        for vlan in [100, 150, 199] {
            wire.frames();
            talk(pod(vlan, 1), address(vlan, 1), pod(vlan, 2), address(vlan, 2));
            let frames = wire.frames();
            let outers = frames.iter().filter_map(|frame| Outer::parse(frame)).filter(|o| o.dst_port == 4789);
            // What the pods' kernels say on their own, in any VLAN, apart: IPv4 is what was asked for.
            let mut vnis: Vec<_> = outers.filter(|o| o.inner()[12..14] == [8, 0]).map(|o| o.vni()).collect();
            vnis.dedup();
            assert_eq!(vnis, [Some(10_000 + u32::from(vlan))]);
        }
        for (from, to) in [(99, 99), (200, 200), (100, 150), (199, 200)] {
            silence(pod(from, 1), address(to, 2));
        }
    });
}

/// A broadcast of our own kind from pod `n`, told apart by `mark`.
fn shout(n: u32, mark: u8) -> Vec<u8> {
    Frame::new(vswitch_core::Mac::BROADCAST, station(n)).payload(0x88b5, &[mark; 60]).bytes()
}

fn count(frames: &[Vec<u8>], wanted: &[u8]) -> usize {
    frames.iter().filter(|frame| frame.as_slice() == wanted).count()
}

/// Waits until `wanted` has come by on `wire`, and gives all that has.
fn hear(wire: &mut Wire, wanted: &[u8]) -> Vec<Vec<u8>> {
    let mut heard = Vec::new();
    until("a frame", PATIENCE, || {
        heard.extend(wire.frames());
        (count(&heard, wanted) > 0).then_some(())
    });
    heard
}

/// To whom the datagrams with this inner frame went that left from `from`.
fn replicas(frames: &[Vec<u8>], from: IpAddr, inner: &[u8]) -> Vec<IpAddr> {
    let outers = frames.iter().filter_map(|frame| Outer::parse(frame));
    let mut to: Vec<_> = outers.filter(|o| o.src == from && o.inner() == inner).map(|o| o.dst).collect();
    to.sort();
    to
}

#[test]
fn a_broadcast_goes_once_to_each_peer_of_its_vni_and_never_from_peer_to_peer() {
    in_nodes("a_broadcast_goes_once_to_each_peer_of_its_vni_and_never_from_peer_to_peer", |lab| {
        let underlay = Underlay::new(lab, 3, 1500);
        underlay.cut_trains();
        let (blue, mut ports) = blue_pods(lab, 3);
        let red: Vec<_> = (1..=3).map(|n| lab.namespace(&format!("red{n}"))).collect();
        for (n, namespace) in (1..).zip(&red) {
            ports += &pod(&format!("red{n}"), &format!("n{n}"), namespace, "tag = 20", &[]);
        }
        // The same for all: node 2 has no business with VNI 10020.
        let peer = "\n[[peer]]\naddress = \"192.0.2.2\"\nvnis = [10010]\n";
        let fleet = Fleet::new(&format!("{}{peer}{SEGMENTS}{ports}", mesh("v4")));
        let mut wires: Vec<Wire> = underlay.nodes.iter().map(|node| Wire::open(node, "under")).collect();
        let nodes = start_all(&fleet, &underlay);
        let mut ears: Vec<Wire> = blue.iter().chain(&red).map(|pod| Wire::open(pod, "eth0")).collect();
        let mut mouth = Wire::open(&blue[0], "eth0");
        mouth.send(&shout(1, 1));
        mouth.send(&shout(1, 2));
        // When the second has come, all that will ever become of the first has happened.
        for n in [1, 2] {
            let heard = hear(&mut ears[n], &shout(1, 2));
            assert_eq!((count(&heard, &shout(1, 1)), count(&heard, &shout(1, 2))), (1, 1), "node {}", n + 1);
        }
        let mut mouth = Wire::open(&red[0], "eth0");
        mouth.send(&shout(2, 1));
        mouth.send(&shout(2, 2));
        let heard = hear(&mut ears[5], &shout(2, 2));
        assert_eq!((count(&heard, &shout(2, 1)), count(&heard, &shout(2, 2))), (1, 1));
        // Nothing of it to node 2, and node 2 does not take it from node 1's word alone.
        for ear in [1, 2, 4] {
            let heard = ears[ear].frames();
            assert_eq!(count(&heard, &shout(2, 1)) + count(&heard, &shout(2, 2)), 0, "ear {ear}");
        }
        let seen: Vec<_> = wires.iter_mut().map(Wire::frames).collect();
        for mark in [1, 2] {
            assert_eq!(replicas(&seen[0], v4(1), &shout(1, mark)), [v4(2), v4(3)]);
            assert_eq!(replicas(&seen[0], v4(1), &shout(2, mark)), [v4(3)]);
            for n in [2, 3] {
                assert!(replicas(&seen[usize::from(n) - 1], v4(n), &shout(1, mark)).is_empty());
                assert!(replicas(&seen[usize::from(n) - 1], v4(n), &shout(2, mark)).is_empty());
            }
        }
        pings(&blue[1], ip("10.10.0.3"));
        // What its pod says on its own, the others refuse.
        assert_eq!(nodes[1].drops("vni_not_shared"), 0);
        Wire::open(&red[1], "eth0").send(&shout(3, 1));
        until("a refusal", PATIENCE, || (nodes[0].drops("vni_not_shared") > 0).then_some(()));
        until("a refusal", PATIENCE, || (nodes[2].drops("vni_not_shared") > 0).then_some(()));
    });
}

/// The same flow, frame after frame, and many flows, by raw frames from pod 1 to the station of pod 2.
fn outer_facts(lab: &Lab, families: &str, address: fn(u8) -> IpAddr) {
    let underlay = Underlay::new(lab, 2, 1500);
    let (blue, ports) = blue_pods(lab, 2);
    let fleet = Fleet::new(&format!("{}{SEGMENTS}{ports}", mesh(families)));
    // Or the veth would carry unfinished checksums.
    underlay.nodes.iter().for_each(|node| node.ethtool("under", "tx off"));
    let mut wire = Wire::open(&underlay.nodes[1], "under");
    let _nodes = start_all(&fleet, &underlay);
    talk(&blue[0], ip("10.10.0.1"), &blue[1], ip("10.10.0.2"));
    talk(&blue[0], ip("fd10::1"), &blue[1], ip("fd10::2"));
    let mac = |pod: &Namespace| pod.run("cat /sys/class/net/eth0/address").trim().parse().unwrap();
    let flow = |port: u16, size: usize| {
        let to = (ip("10.10.0.2"), 9);
        Frame::new(mac(&blue[1]), mac(&blue[0])).udp((ip("10.10.0.1"), port), to, &vec![0; size]).bytes()
    };
    let (mut mouth, mut ear) = (Wire::open(&blue[0], "eth0"), Wire::open(&blue[1], "eth0"));
    let ports = 5000..5200_u16;
    for size in [18, 900, 18] {
        for port in ports.clone() {
            mouth.send(&flow(port, size));
        }
        // One turn after the other: nothing is lost for want of room.
        hear(&mut ear, &flow(5199, size));
    }
    let frames = wire.frames();
    assert!(!frames.iter().any(|frame| is_fragment(frame)));
    let outers = frames.iter().filter_map(|frame| Outer::parse(frame)).filter(|o| o.dst_port == 4789);
    let outers: Vec<Outer> = outers.filter(|outer| !outer.is_probe()).collect();
    let mut sources = std::collections::BTreeSet::new();
    for outer in &outers {
        assert_eq!(outer.payload[..4], [8, 0, 0, 0]);
        assert_eq!((outer.vni(), outer.payload[7]), (Some(10010), 0));
        assert!(outer.src_port >= 49_152, "source port {}", outer.src_port);
        assert_eq!(outer.dont_fragment, address(1).is_ipv4().then_some(true));
        assert!(outer.checksum != 0 && outer.checksum_holds, "{outer:?}");
        assert!(![[0x81, 0], [0x88, 0xa8]].contains(&[outer.inner()[12], outer.inner()[13]]), "an inner tag");
        assert!(
            [address(1), address(2)].contains(&outer.src) && [address(1), address(2)].contains(&outer.dst)
        );
        if outer.src == address(1) {
            sources.insert(outer.src_port);
        }
    }
    assert!((8..=16).contains(&sources.len()), "source ports {sources:?}");
    let mut used = std::collections::BTreeSet::new();
    for port in ports {
        let of_flow = outers.iter().filter(|o| o.inner().get(34..36) == Some(&port.to_be_bytes()[..]));
        let mut from: Vec<u16> = of_flow.map(|outer| outer.src_port).collect();
        assert_eq!(from.len(), 3, "flow {port}");
        from.dedup();
        assert_eq!(from.len(), 1, "flow {port} has one source port");
        used.extend(from);
    }
    assert_eq!(used.len(), 16, "200 flows use every socket");
}

#[test]
fn the_outside_of_every_datagram_over_ipv4_is_as_rfc_7348_says() {
    in_nodes("the_outside_of_every_datagram_over_ipv4_is_as_rfc_7348_says", |lab| outer_facts(lab, "v4", v4));
}

#[test]
fn the_outside_of_every_datagram_over_ipv6_is_as_rfc_7348_says() {
    in_nodes("the_outside_of_every_datagram_over_ipv6_is_as_rfc_7348_says", |lab| outer_facts(lab, "v6", v6));
}
