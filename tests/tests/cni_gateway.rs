//! A pod behind a gateway port of its node, two nodes: what it reaches, and as whom; and that it cannot speak VXLAN to
//! any node, whatever else the host does to its packets.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use vswitch_core::Mac;
use vswitch_core::wire::vxlan::Vni;
use vswitch_tests::frames::{Frame, station, vxlan};
use vswitch_tests::lab::{Lab, Namespace, skip, until};
use vswitch_tests::node::{
    Fleet, Node, PATIENCE, Underlay, Wire, in_nodes, is_installed, pings, pod, v4, v6,
};
use vswitchd::sys::nftables::{self, Ruleset};
use vswitchd::sys::sysctl;

const VNI: u32 = 10010;

/// Two nodes with a pod each in one segment, whose gateways are `vgw10-1` and `vgw10-2` on their nodes; a third place on the underlay
/// that is no node.
struct Scene {
    underlay: Underlay,
    pods: Vec<Namespace>,
    nodes: Vec<Node>,
    _fleet: Fleet,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn scene(lab: &Lab) -> Scene {
    let underlay = Underlay::new(lab, 3, 1500);
    let pods: Vec<_> = (1..=2).map(|n| lab.namespace(&format!("pod{n}"))).collect();
    let mut ports = String::new();
    for (n, space) in (1..).zip(&pods) {
        let keys = format!("tag = 10\ngateway = [\"10.244.{n}.1\", \"fd00:244::{n}:1\"]");
        let addresses = [format!("10.244.{n}.2/16"), format!("fd00:244::{n}:2/64")];
        ports += &pod(
            &format!("pod{n}"),
            &format!("n{n}"),
            space,
            &keys,
            &addresses.each_ref().map(String::as_str),
        );
        ports += &format!(
            "\n[[port]]\nname = \"vgw10-{n}\"\nnode = \"n{n}\"\ntag = 10\n\
             addresses = [\"10.244.{n}.1/16\", \"fd00:244::{n}:1/64\"]\n"
        );
    }
    let fleet = Fleet::new(&format!(
        "[underlay]\naddress = [\"192.0.2.0/24\", \"2001:db8::/64\"]\n[mesh]\n\
         peers = [\"192.0.2.1-192.0.2.2\"]\n[[segment]]\nname = \"blue\"\nvlan = 10\nvni = {VNI}\n{ports}"
    ));
    let spawned = (1..).zip(&underlay.nodes[..2]).map(|(n, space)| fleet.spawn(space, &format!("n{n}")));
    let nodes: Vec<Node> = spawned.collect();
    nodes.iter().for_each(Node::until_ready);
    Scene { underlay, pods, nodes, _fleet: fleet }
}

impl Scene {
    /// What node 1's rules should be.
    fn rules(&self) -> Ruleset {
        Ruleset {
            gateways: vec!["vgw10-1".to_owned()],
            pods: vec![(ip("10.244.0.0"), 16), (ip("fd00:244::"), 64)],
            masquerade: vec![(ip("10.244.0.0"), 16), (ip("fd00:244::"), 64)],
            nodes: vec![(v4(1), 32), (v4(2), 32)],
            vxlan_ports: vec![4789],
        }
    }

    /// Node 1 passes packets on, with or without rules of ours.
    fn route(&self, rules: Option<&Ruleset>) {
        self.underlay.nodes[0].inside(|| {
            sysctl::forward(true, true).unwrap();
            rules.map_or_else(nftables::remove, nftables::apply).unwrap();
        });
    }

    /// How many packets node 1 has dropped by rules of ours.
    fn dropped(&self) -> u64 {
        let listed = self.underlay.nodes[0].run("nft list table inet vswitch");
        let counts =
            listed.lines().filter_map(|line| line.split_once("counter packets ")?.1.split(' ').next());
        counts.map(|count| count.parse::<u64>().unwrap()).sum()
    }

    /// Sends a forged VXLAN datagram from pod 1 to `to`, in fragments where `len` wants that. What it carries is a
    /// broadcast into the segment.
    fn forge(&self, to: IpAddr, len: usize) {
        let inner = Frame::new(Mac::BROADCAST, station(666)).payload(0x88b5, &vec![7; len]).bytes();
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 8], 0).into() };
        let socket = self.pods[0].inside(|| UdpSocket::bind(any)).unwrap();
        socket.send_to(&vxlan(Vni::new(VNI).unwrap(), &inner), (to, 4789)).unwrap();
    }
}

/// Rules of somebody else on the node that masquerade everything, as many hosts have.
const OTHERS: &str = "table ip others { chain behind { type nat hook postrouting priority 90; \
    ip saddr 10.244.0.0/16 masquerade; }; chain before { type nat hook prerouting priority -100; \
    ip daddr 198.51.100.9 dnat to 192.0.2.2; udp dport 5353 dnat to 192.0.2.2:4789; }; }";

fn load(space: &Namespace, text: &str) {
    let file = std::env::temp_dir().join(format!("{}.nft", space.name()));
    std::fs::write(&file, text).unwrap();
    space.run(&format!("nft -f {}", file.display()));
    std::fs::remove_file(&file).unwrap();
}

fn with_nft(test: &str, body: impl FnOnce(&Lab)) {
    if !is_installed("nft") {
        return skip("nft is not installed (Debian: nftables)");
    }
    in_nodes(test, body);
}

#[test]
fn a_masqueraded_pod_cannot_inject_into_the_mesh_nor_be_its_nodes_router() {
    with_nft("a_masqueraded_pod_cannot_inject_into_the_mesh_nor_be_its_nodes_router", |lab| {
        let scene = scene(lab);
        load(&scene.underlay.nodes[0], OTHERS);
        let mut wire = Wire::open(&scene.pods[1], "eth0");
        let mut heard = || {
            let forged = |frame: &Vec<u8>| frame.get(6..14) == Some(&forged_head());
            wire.frames().iter().filter(|frame| forged(frame)).count()
        };
        // Without our rules: the other node takes it for its peer's, and the pod there hears it; in fragments too.
        scene.route(None);
        for len in [60, 2000] {
            scene.forge(v4(2), len);
            until("the forged frame", PATIENCE, || (heard() == 1).then_some(()));
        }

        scene.route(Some(&scene.rules()));
        assert_eq!(scene.dropped(), 0);
        let mut dropped = 0;
        // The other node and this one, in both families; behind a translation of its address; whole and in fragments.
        for to in [v4(2), v4(1), v6(2), ip("198.51.100.9")] {
            for len in [60, 2000] {
                scene.forge(to, len);
                dropped += 1;
                until("the drop", PATIENCE, || (scene.dropped() == dropped).then_some(()));
            }
        }
        // Behind a translation of its port.
        let inner = Frame::new(Mac::BROADCAST, station(666)).payload(0x88b5, &[7; 60]).bytes();
        let socket = scene.pods[0].inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.send_to(&vxlan(Vni::new(VNI).unwrap(), &inner), "203.0.113.1:5353").unwrap();
        until("the drop", PATIENCE, || (scene.dropped() == dropped + 1).then_some(()));
        // To the gateway itself, of this node.
        scene.forge(ip("10.244.1.1"), 60);
        until("the drop", PATIENCE, || (scene.dropped() == dropped + 2).then_some(()));
        // A pod that wants to be the node's router.
        let advertisement = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let frame = Frame::new(Mac::new([0x33, 0x33, 0, 0, 0, 1]), station(1));
        let frame = frame.ip(ip("fe80::1"), ip("ff02::1"), 58, &advertisement);
        Wire::open(&scene.pods[0], "eth0").send(&frame.bytes());
        until("the drop", PATIENCE, || (scene.dropped() == dropped + 3).then_some(()));
        assert_eq!(heard(), 0);
        assert_eq!(scene.nodes[1].drops("unknown_peer"), 0);
        // The mesh itself is left alone, and so are pods that speak VXLAN with each other.
        pings(&scene.pods[0], ip("10.244.2.2"));
        let server = scene.pods[1].inside(|| UdpSocket::bind("0.0.0.0:4789")).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        scene.forge(ip("10.244.2.2"), 60);
        server.recv(&mut [0; 2048]).unwrap();
    });
}

/// Source address and type of what is forged.
fn forged_head() -> [u8; 8] {
    let mut head = [0; 8];
    head[..6].copy_from_slice(&station(666).bytes());
    head[6..].copy_from_slice(&[0x88, 0xb5]);
    head
}

#[test]
fn a_pod_reaches_the_world_as_its_node_and_pods_and_nodes_as_itself() {
    with_nft("a_pod_reaches_the_world_as_its_node_and_pods_and_nodes_as_itself", |lab| {
        let scene = scene(lab);
        scene.route(Some(&scene.rules()));
        // Nodes know the way back to pods.
        scene.underlay.nodes[1].ip("route replace 10.244.1.0/24 via 192.0.2.1");
        let asks = |space: &Namespace, to: IpAddr| -> IpAddr {
            let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 8], 0).into() };
            let server = space.inside(|| UdpSocket::bind((to, 0))).unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            let client = scene.pods[0].inside(|| UdpSocket::bind(any)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let port = server.local_addr().unwrap().port();
            client.send_to(b"who", (to, port)).unwrap();
            let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
            server.send_to(b"you", from).unwrap();
            assert_eq!(client.recv_from(&mut [0; 16]).unwrap().1, (to, port).into());
            from.ip()
        };
        // The third place is no node, and knows nothing of pods.
        assert_eq!(asks(&scene.underlay.nodes[2], v4(3)), v4(1));
        assert_eq!(asks(&scene.underlay.nodes[2], v6(3)), v6(1));
        for (space, to) in [
            (&scene.pods[1], ip("10.244.2.2")),
            (&scene.underlay.nodes[1], v4(2)),
            (&scene.underlay.nodes[0], v4(1)),
            (&scene.underlay.nodes[0], ip("10.244.1.1")),
        ] {
            assert_eq!(asks(space, to), ip("10.244.1.2"), "{to}");
        }
        assert_eq!(asks(&scene.pods[1], ip("fd00:244::2:2")), ip("fd00:244::1:2"));
        assert_eq!(scene.dropped(), 0);
    });
}
