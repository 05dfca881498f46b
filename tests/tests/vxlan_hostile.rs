//! Hostile and broken datagrams on the tunnel port of a real node: each ends in a named, counted drop, and the
//! pods never notice.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use vswitch_core::Mac;
use vswitch_core::wire::vxlan::Vni;
use vswitch_tests::frames::{Frame, ctag, protocol, station, udp, vxlan};
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::node::{Fleet, Node, PATIENCE, Underlay, Wire, in_nodes, is_fragment, pings, pod, v4, v6};
use vswitch_tests::pcap;
use vswitch_tests::rng::Rng;

const VNI: u32 = 10010;

/// Two nodes with a pod each, and a third address that is a member without a daemon: the attacker's.
struct Scene {
    underlay: Underlay,
    pods: Vec<Namespace>,
    nodes: Vec<Node>,
    _fleet: Fleet,
}

/// `more` goes into `[underlay]`, `port` into the pods' `[[port]]`.
fn scene(lab: &Lab, more: &str, port: &str) -> Scene {
    let underlay = Underlay::new(lab, 3, 1500);
    let pods: Vec<_> = (1..=2).map(|n| lab.namespace(&format!("pod{n}"))).collect();
    let ports: String = (1..)
        .zip(&pods)
        .map(|(n, pod_space)| {
            pod(&format!("pod{n}"), &format!("n{n}"), pod_space, port, &[&format!("10.10.0.{n}/24")])
        })
        .collect();
    // The attacker's IPv4 address shares one VNI of two, its IPv6 address all.
    let fleet = Fleet::new(&format!(
        "[underlay]\naddress = [\"192.0.2.0/24\", \"2001:db8::/64\"]\n{more}\n[mesh]\n\
         peers = [\"192.0.2.1-192.0.2.2\", \"2001:db8::3\"]\n[[peer]]\naddress = \"192.0.2.3\"\nvnis = [{VNI}]\n\
         [[segment]]\nname = \"blue\"\nvlan = 10\nvni = {VNI}\n[[segment]]\nname = \"red\"\nvlan = 20\n\
         vni = 10020\n{ports}"
    ));
    let spawned = (1..).zip(&underlay.nodes[..2]).map(|(n, space)| fleet.spawn(space, &format!("n{n}")));
    let nodes: Vec<Node> = spawned.collect();
    nodes.iter().for_each(Node::until_ready);
    underlay.nodes[2].ip("address add 192.0.2.66/24 dev under");
    Scene { underlay, pods, nodes, _fleet: fleet }
}

impl Scene {
    /// A socket of the attacker's with this source address.
    fn socket(&self, from: IpAddr) -> UdpSocket {
        self.underlay.nodes[2].inside(|| UdpSocket::bind((from, 0))).unwrap()
    }

    fn pods_talk(&self) {
        pings(&self.pods[0], "10.10.0.2".parse().unwrap());
    }

    /// All drops at the attacker's IPv4 peer.
    fn dropped(&self) -> u64 {
        let rows = self.nodes[0].ctl("drops --by-port");
        let here = |row: &&serde_json::Value| row["port"] == "192.0.2.3";
        rows.as_array().unwrap().iter().filter(here).map(|row| row["count"].as_u64().unwrap()).sum()
    }
}

const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 66));

fn target(address: IpAddr) -> SocketAddr {
    (address, 4789).into()
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

/// A broadcast that no kernel would make, told apart by `mark`.
fn shout(mark: u8) -> Frame {
    Frame::new(Mac::BROADCAST, station(666)).payload(0x88b5, &[mark; 60])
}

/// Waits until exactly this frame has come by.
fn hear(wire: &mut Wire, wanted: &[u8]) {
    let mut heard = Vec::new();
    until("a frame in the pod", PATIENCE, || {
        heard.extend(wire.frames());
        heard.iter().any(|frame| frame == wanted).then_some(())
    });
}

#[test]
fn what_a_stranger_sends_is_counted_once_a_datagram_and_goes_nowhere() {
    in_nodes("what_a_stranger_sends_is_counted_once_a_datagram_and_goes_nowhere", |lab| {
        let scene = scene(lab, "", "tag = 10");
        let mut ear = Wire::open(&scene.pods[0], "eth0");
        let (stranger, member) = (scene.socket(STRANGER), scene.socket(v4(3)));
        for len in 0..100 {
            let datagram = vxlan(vni(VNI), &shout(1).bytes());
            let datagram = &datagram[..len.min(datagram.len())];
            stranger.send_to(datagram, target(v4(1))).unwrap();
        }
        scene.nodes[0].until_drops("unknown_peer", 100);
        // The member's comes after all of the stranger's, on the same queue or after both are empty.
        member.send_to(&vxlan(vni(VNI), &shout(2).bytes()), target(v4(1))).unwrap();
        hear(&mut ear, &shout(2).bytes());
        assert!(!ear.frames().contains(&shout(1).bytes()));
        assert_eq!(scene.nodes[0].drops("unknown_peer"), 100);
        scene.pods_talk();
    });
}

#[test]
fn every_broken_datagram_of_a_member_has_its_reason() {
    in_nodes("every_broken_datagram_of_a_member_has_its_reason", |lab| {
        let scene = scene(lab, "", "tag = 10");
        let member = scene.socket(v4(3));
        let good = vxlan(vni(VNI), &shout(1).bytes());
        let flags = |flags: u8| [&[flags], &good[1..]].concat();
        let mut broken: Vec<(&str, Vec<u8>)> = Vec::new();
        broken.extend((0..8).map(|len| ("vxlan_short", good[..len].to_vec())));
        broken.extend([0x00, 0xf7, 0x04].map(|byte| ("vxlan_no_vni", flags(byte))));
        broken.extend([0, 10011, 0xff_ffff].map(|n| ("unknown_vni", vxlan(vni(n), &shout(1).bytes()))));
        broken.push(("vni_not_shared", vxlan(vni(10020), &shout(1).bytes())));
        for tag in [ctag(10, 0), ctag(0, 5), ctag(77, 0)] {
            broken.push(("inner_vlan", vxlan(vni(VNI), &shout(1).tag(tag).bytes())));
        }
        broken.extend((8..22).map(|len| ("short_frame", good[..len].to_vec())));
        let reserved =
            Frame::new("01:80:c2:00:00:0e".parse().unwrap(), station(666)).payload(0x88cc, &[0; 50]);
        broken.push(("reserved_group", vxlan(vni(VNI), &reserved.bytes())));
        let mut sent = std::collections::BTreeMap::new();
        for (reason, datagram) in &broken {
            member.send_to(datagram, target(v4(1))).unwrap();
            let count = sent.entry(*reason).or_insert(0);
            *count += 1;
            scene.nodes[0].until_drops(reason, *count);
        }
        // By default reserved bits mean nothing (RFC 7348 §5).
        let mut ear = Wire::open(&scene.pods[0], "eth0");
        let mut odd = vxlan(vni(VNI), &shout(9).bytes());
        (odd[0], odd[1], odd[2], odd[3], odd[7]) = (0xff, 1, 2, 3, 4);
        member.send_to(&odd, target(v4(1))).unwrap();
        hear(&mut ear, &shout(9).bytes());
        assert!(!ear.frames().contains(&shout(1).bytes()));
        assert_eq!(scene.dropped(), broken.len() as u64);
        scene.pods_talk();
    });
}

#[test]
fn strict_refuses_reserved_bits_and_carry_takes_inner_tags() {
    in_nodes("strict_refuses_reserved_bits_and_carry_takes_inner_tags", |lab| {
        let scene = scene(
            lab,
            "vxlan_reserved = \"strict\"\nvxlan_inner_vlan = \"carry\"",
            "vlan_mode = \"dot1q-tunnel\"\ntag = 10",
        );
        let member = scene.socket(v4(3));
        let good = vxlan(vni(VNI), &shout(1).bytes());
        for (count, (at, bit)) in (1..).zip([(0, 1), (0, 0x80), (1, 1), (3, 0x10), (7, 1)]) {
            let mut odd = good.clone();
            odd[at] |= bit;
            member.send_to(&odd, target(v4(1))).unwrap();
            scene.nodes[0].until_drops("vxlan_reserved", count);
        }
        let mut ear = Wire::open(&scene.pods[0], "eth0");
        let tagged = shout(2).tag(ctag(77, 3));
        member.send_to(&vxlan(vni(VNI), &tagged.bytes()), target(v4(1))).unwrap();
        // The customer's tag; packet sockets show it beside the frame, not in it.
        hear(&mut ear, &shout(2).bytes());
        assert_eq!(scene.nodes[0].drops("inner_vlan"), 0);
        member.send_to(&good, target(v4(1))).unwrap();
        hear(&mut ear, &shout(1).bytes());
        scene.pods_talk();
    });
}

#[test]
fn a_hundred_thousand_datagrams_of_garbage_harm_nobody() {
    in_nodes("a_hundred_thousand_datagrams_of_garbage_harm_nobody", |lab| {
        let scene = scene(lab, "", "tag = 10");
        let mut rng = Rng::new(4789);
        let (stranger, member) = (scene.socket(STRANGER), scene.socket(v4(3)));
        const EACH: u64 = 50_000;
        for i in 0..EACH {
            let len = rng.below(if i % 64 == 0 { 1400 } else { 120 });
            let mut garbage = rng.bytes(len);
            // Half of it gets as far as the frame inside.
            if i % 2 == 0 && len >= 8 {
                garbage[..8].copy_from_slice(&vxlan(vni(VNI), &[]));
            }
            member.send_to(&garbage, target(v4(1))).unwrap();
            stranger.send_to(&garbage, target(v4(1))).unwrap();
            if i % 10_000 == 0 {
                scene.pods_talk();
            }
        }
        scene.pods_talk();
        let node = &scene.nodes[0];
        // Every one is accounted for: by the peer, as a stranger's, or lost in the kernel's queue.
        let accounted =
            || node.peer(v4(3), "rx_frames") + node.drops("unknown_peer") + node.drops("rx_overflow");
        until("every datagram accounted for", PATIENCE, || (accounted() >= 2 * EACH).then_some(()));
        assert_eq!(accounted(), 2 * EACH, "{}", node.ctl("drops --by-port"));
        scene.pods_talk();
        // A pod of this VLAN hears what was well-formed; the table holds no group address from it.
        let rows = node.ctl("mac");
        for row in rows.as_array().unwrap() {
            let mac: Mac = row["mac"].as_str().unwrap().parse().unwrap();
            assert!(!mac.is_group() && !mac.is_zero());
        }
    });
}

#[test]
fn every_shared_capture_inside_vxlan_is_survived_and_counted() {
    in_nodes("every_shared_capture_inside_vxlan_is_survived_and_counted", |lab| {
        let Some(shared) = pcap::shared_dir() else { return };
        let scene = scene(lab, "", "tag = 10");
        let member = scene.socket(v4(3));
        let mut sent = 0;
        for file in pcap::files(&shared.join("pcaps")) {
            for record in pcap::read_file(&file).records {
                member.send_to(&vxlan(vni(VNI), &record.bytes), target(v4(1))).unwrap();
                sent += 1;
                // Some of them are VXLAN themselves: as they are, too.
                member.send_to(&record.bytes, target(v4(1))).unwrap();
                sent += 1;
            }
            scene.pods_talk();
        }
        let arrived = || scene.nodes[0].peer(v4(3), "rx_frames");
        until("every frame counted", PATIENCE, || (arrived() >= sent).then_some(()));
        assert_eq!(arrived(), sent);
        scene.pods_talk();
    });
}

/// The underlay's frame around `segment`, from the attacker's link to node 1.
fn outer(scene: &Scene, family: fn(u8) -> IpAddr, segment: &[u8]) -> Vec<u8> {
    let mac = |node: &Namespace| node.run("cat /sys/class/net/under/address").trim().parse().unwrap();
    let (to, from) = (mac(&scene.underlay.nodes[0]), mac(&scene.underlay.nodes[2]));
    Frame::new(to, from).ip(family(3), family(1), protocol::UDP, segment).bytes()
}

#[test]
fn a_datagram_without_a_checksum_is_taken_and_one_with_a_wrong_one_is_not() {
    in_nodes("a_datagram_without_a_checksum_is_taken_and_one_with_a_wrong_one_is_not", |lab| {
        let scene = scene(lab, "", "tag = 10");
        let mut ear = Wire::open(&scene.pods[0], "eth0");
        let mut under = Wire::open(&scene.underlay.nodes[2], "under");
        for family in [v4 as fn(u8) -> IpAddr, v6] {
            let segment =
                |mark| udp((family(3), 50_000), (family(1), 4789), &vxlan(vni(VNI), &shout(mark).bytes()));
            let mut wrong = segment(1);
            wrong[7] ^= 0x55;
            under.send(&outer(&scene, family, &wrong));
            let mut none = segment(2);
            none[6..8].fill(0);
            under.send(&outer(&scene, family, &none));
            hear(&mut ear, &shout(2).bytes());
            assert!(!ear.frames().contains(&shout(1).bytes()));
        }
        scene.pods_talk();
    });
}

#[test]
fn a_datagram_that_arrives_in_fragments_is_taken_whole() {
    in_nodes("a_datagram_that_arrives_in_fragments_is_taken_whole", |lab| {
        let scene = scene(lab, "", "tag = 10");
        let mut ear = Wire::open(&scene.pods[0], "eth0");
        let mut under = Wire::open(&scene.underlay.nodes[0], "under");
        for family in [v4 as fn(u8) -> IpAddr, v6] {
            let large = Frame::new(Mac::BROADCAST, station(666)).payload(0x88b5, &[7; 4000]).bytes();
            scene.socket(family(3)).send_to(&vxlan(vni(VNI), &large), target(family(1))).unwrap();
            hear(&mut ear, &large);
            assert!(under.frames().iter().any(|frame| is_fragment(frame)), "the underlay carried fragments");
        }
        scene.pods_talk();
    });
}
