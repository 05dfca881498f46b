//! Pods that came by CNI to two nodes: they talk across VXLAN, in both families, on several networks, through a trunk,
//! by their node's gateway; they cannot pretend, and are held to their bandwidth.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Duration;
use vswitch_core::wire::ethernet::Mac;
use vswitch_core::wire::vxlan::Vni;
use vswitch_tests::cni::{Attachment, Inside, Runner, attached, directories, vswitch};
use vswitch_tests::daemon::Raw;
use vswitch_tests::frames::{Frame, ctag, vxlan};
use vswitch_tests::lab::{Lab, Namespace, skip, tcp_transfer, until};
use vswitch_tests::node::{
    Fleet, Node, PATIENCE, Underlay, in_nodes, is_installed, pings, silence, talk, tcp, v4,
};
use vswitch_tests::scene::ip;

const FILE: &str = "[underlay]\naddress = \"192.0.2.0/24\"\n[mesh]\npeers = [\"192.0.2.1-192.0.2.2\"]\n\
    [[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010\n[[segment]]\nname = \"red\"\nvlan = 20\nvni = 10020\n";

/// Two nodes whose daemons run, and where plugins are.
struct Site<'a> {
    lab: &'a Lab,
    underlay: Underlay,
    nodes: Vec<Node>,
    path: Vec<PathBuf>,
    _fleet: Fleet,
}

fn site(test: &str, body: impl FnOnce(&Site<'_>)) {
    let Some(path) = directories() else { return };
    in_nodes(test, |lab| {
        let underlay = Underlay::new(lab, 2, 1500);
        let fleet = Fleet::new(FILE);
        let spaces = underlay.nodes.iter().zip(["n1", "n2"]);
        let nodes: Vec<Node> = spaces.map(|(space, name)| fleet.spawn(space, name)).collect();
        nodes.iter().for_each(Node::until_ready);
        body(&Site { lab, underlay, nodes, path, _fleet: fleet });
    });
}

impl Site<'_> {
    /// A runtime on node `n`, 1 and up, with the network of this name, `net` being the third number of its addresses, and
    /// further keys of its configuration. host-local gives addresses of both families, each node's out of its own range.
    fn network(&self, n: usize, name: &str, net: u8, more: &Value) -> Runner {
        let node = &self.nodes[n - 1];
        let data = node.socket().parent().unwrap().join("host-local");
        let ipam = json!({"type": "host-local", "dataDir": data, "ranges": [
            [{"subnet": format!("10.{net}.0.0/16"), "gateway": format!("10.{net}.{n}.1"),
              "rangeStart": format!("10.{net}.{n}.2"), "rangeEnd": format!("10.{net}.{n}.250")}],
            [{"subnet": format!("fd{net:02}::/64"), "gateway": format!("fd{net:02}::{n}:1"),
              "rangeStart": format!("fd{net:02}::{n}:2"), "rangeEnd": format!("fd{net:02}::{n}:fa")}]]});
        let mut keys = json!({"ipam": ipam, "capabilities": {"bandwidth": true, "mac": true, "ips": true}});
        keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Runner::new(&self.underlay.nodes[n - 1], &self.path, &vswitch(name, node.socket(), &keys))
    }

    fn blue(&self, n: usize, more: &Value) -> Runner {
        self.network(n, "blue", 10, more)
    }
}

/// The addresses in a result, without their prefix lengths.
fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    ips.iter().map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
}

#[test]
fn pods_of_two_nodes_talk_across_the_underlay_in_both_families() {
    site("pods_of_two_nodes_talk_across_the_underlay_in_both_families", |site| {
        let runners = [1, 2].map(|n| site.blue(n, &json!({})));
        let pods = ["a", "b"].map(|name| site.lab.namespace(name));
        let attachments = pods.each_ref().map(Attachment::new);
        let [a, b] = [0, 1].map(|n| addresses(&runners[n].add(&attachments[n]).unwrap()));
        assert_eq!((a[0].as_str(), b[0].as_str()), ("10.10.1.2", "10.10.2.2"));
        // The underlay holds 1,500 bytes, and a pod knows what is left of them.
        assert_eq!(Inside::must(&pods[0], "eth0").mtu, 1450);
        for (from, to) in a.iter().zip(&b) {
            talk(&pods[0], ip(from), &pods[1], ip(to));
        }
        for n in [0, 1] {
            runners[n].check(&attachments[n]).unwrap();
            runners[n].del(&attachments[n]).unwrap();
            assert_eq!(attached(site.nodes[n].socket()), Vec::<Value>::new());
        }
    });
}

#[test]
fn a_pod_on_two_networks_reaches_both_and_joins_none() {
    site("a_pod_on_two_networks_reaches_both_and_joins_none", |site| {
        let networks = |n: usize| [site.blue(n, &json!({})), site.network(n, "red", 20, &json!({}))];
        let (here, there) = (networks(1), networks(2));
        let [both, blue, red] = ["both", "blue", "red"].map(|name| site.lab.namespace(name));
        let own: Vec<String> = ["eth0", "net1"]
            .iter()
            .zip(&here)
            .map(|(ifname, runner)| {
                addresses(&runner.add(&Attachment::new(&both).at(ifname)).unwrap()).remove(0)
            })
            .collect();
        let of_blue = addresses(&there[0].add(&Attachment::new(&blue)).unwrap());
        let of_red = addresses(&there[1].add(&Attachment::new(&red)).unwrap());
        talk(&both, ip(&own[0]), &blue, ip(&of_blue[0]));
        talk(&both, ip(&own[1]), &red, ip(&of_red[0]));
        pings(&both, ip(&of_blue[1]));
        // Not even with a way there.
        for (pod, other) in [(&blue, &of_red), (&red, &of_blue)] {
            let net = if other[0].starts_with("10.20.") { "10.20.0.0/16" } else { "10.10.0.0/16" };
            pod.ip(&format!("route add {net} dev eth0"));
            silence(pod, ip(&other[0]));
        }
    });
}

#[test]
fn a_trunk_brings_its_vlans_to_the_pod_tagged_and_no_others() {
    site("a_trunk_brings_its_vlans_to_the_pod_tagged_and_no_others", |site| {
        let trunk = json!({"vlanMode": "trunk", "trunks": [10], "ipam": {}, "antiSpoof": false});
        let router = site.lab.namespace("router");
        let result = site.network(1, "trunk", 30, &trunk).add(&Attachment::new(&router)).unwrap();
        assert_eq!(addresses(&result), Vec::<String>::new());
        let pods = ["blue", "red"].map(|name| site.lab.namespace(name));
        let plain = json!({"ipam": {}, "antiSpoof": false});
        for (pod, (name, net)) in pods.iter().zip([("blue", 10), ("red", 20)]) {
            site.network(2, name, net, &plain).add(&Attachment::new(pod)).unwrap();
        }
        let raw = |pod: &Namespace| pod.inside(|| Raw::open("eth0"));
        let (trunk, [blue, red]) = (raw(&router), pods.each_ref().map(raw));
        let mac = |n: u8| Mac::new([2, 0, 0, 0, 7, n]);
        let frame = |n: u8| Frame::new(Mac::BROADCAST, mac(n)).payload(0x88b5, &[n; 60]);
        trunk.send(&frame(1).tag(ctag(10, 0)).bytes());
        blue.until(&frame(1).bytes());
        blue.send(&frame(2).bytes());
        trunk.until(&frame(2).tag(ctag(10, 0)).bytes());
        // The trunk does not carry VLAN 20, and untagged frames are in none of its VLANs: what follows arrives alone.
        trunk.send(&frame(3).tag(ctag(20, 0)).bytes());
        trunk.send(&frame(4).bytes());
        red.send(&frame(5).bytes());
        trunk.send(&frame(6).tag(ctag(10, 0)).bytes());
        blue.until(&frame(6).bytes());
        let strange = |frames: Vec<Vec<u8>>| {
            let marks = |frame: &Vec<u8>| frame.windows(2).any(|two| two == [0x88, 0xb5]);
            frames
                .into_iter()
                .filter(|frame| marks(frame))
                .filter(|frame| frame[6..12] != mac(5).bytes())
                .count()
        };
        assert_eq!(strange(red.drain()), 0);
    });
}

#[test]
fn a_node_and_its_pods_reach_each_other_by_the_gateway() {
    site("a_node_and_its_pods_reach_each_other_by_the_gateway", |site| {
        let network = json!({"isDefaultGateway": true, "ipMasq": true});
        let runners = [1, 2].map(|n| site.blue(n, &network));
        let pods = ["a", "b"].map(|name| site.lab.namespace(name));
        let attachments = pods.each_ref().map(Attachment::new);
        let results = [0, 1].map(|n| runners[n].add(&attachments[n]).unwrap());
        let [a, b] = results.each_ref().map(addresses);
        let gateway = Inside::must(&site.underlay.nodes[0], "vgw10");
        assert_eq!(gateway.addresses, ["10.10.1.1/16", "fd10::1:1/64"]);
        assert!(results[0]["interfaces"].as_array().unwrap().iter().any(|one| one["name"] == "vgw10"));
        // As kubelet does, and the other way round.
        for address in &a {
            pings(&site.underlay.nodes[0], ip(address));
        }
        tcp(&site.underlay.nodes[0], &pods[0], ip(&a[0]), 1 << 20);
        tcp(&pods[0], &site.underlay.nodes[0], ip("10.10.1.1"), 1 << 20);
        pings(&pods[0], ip("fd10::1:1"));
        // Each node's own; the other's is far away, but there.
        pings(&site.underlay.nodes[0], ip(&b[0]));
        pings(&pods[1], ip("10.10.1.1"));
        pings(&pods[0], ip(&b[0]));
        let routes = Inside::must(&pods[0], "eth0").routes;
        assert!(routes.iter().any(|route| route.starts_with("default via 10.10.1.1")), "{routes:?}");
        // A world behind the node that knows nothing of pods.
        let world = site.lab.namespace("world");
        world.veth("wire", &site.underlay.nodes[0], "world");
        world.address("wire", "198.51.100.9/24");
        site.underlay.nodes[0].address("world", "198.51.100.1/24");
        pings(&pods[0], ip("198.51.100.9"));
        tcp(&pods[0], &world, ip("198.51.100.9"), 1 << 20);
        for n in [0, 1] {
            runners[n].check(&attachments[n]).unwrap();
            runners[n].del(&attachments[n]).unwrap();
            assert_eq!(Inside::of(&site.underlay.nodes[n], "vgw10"), None, "nobody needs it any more");
        }
    });
}

/// How many packets the rules of gateways in `space` have dropped.
fn dropped(space: &Namespace) -> u64 {
    let listed = space.run("nft list table inet vswitch");
    let counts = listed.lines().filter_map(|line| line.split_once("counter packets ")?.1.split(' ').next());
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_masqueraded_pod_is_no_member_of_the_mesh() {
    if !is_installed("nft") {
        return skip("nft is not installed (Debian: nftables)");
    }
    site("a_masqueraded_pod_is_no_member_of_the_mesh", |site| {
        let network = json!({"isDefaultGateway": true, "ipMasq": true});
        let runners = [1, 2].map(|n| site.blue(n, &network));
        let pods = ["a", "b"].map(|name| site.lab.namespace(name));
        for (runner, pod) in runners.iter().zip(&pods) {
            runner.add(&Attachment::new(pod)).unwrap();
        }
        let heard = pods[1].inside(|| Raw::open("eth0"));
        let socket = |space: &Namespace| space.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        let (node, pod) = (socket(&site.underlay.nodes[0]), socket(&pods[0]));
        let frame = |n: u8| {
            Frame::new(Mac::BROADCAST, Mac::new([2, 0, 0, 0, 6, 6])).payload(0x88b5, &[n; 60]).bytes()
        };
        let says = |from: &UdpSocket, n: u8| {
            let datagram = vxlan(Vni::new(10010).unwrap(), &frame(n));
            from.send_to(&datagram, (v4(2), 4789)).unwrap();
        };
        // From the node's address it is as good as the node's own.
        says(&node, 1);
        heard.until(&frame(1));
        for n in 1..=3 {
            says(&pod, 10);
            until("the drop", PATIENCE, || (dropped(&site.underlay.nodes[0]) == n).then_some(()));
        }
        says(&node, 2);
        heard.until(&frame(2));
        says(&node, 3);
        until("the last frame, and none of the pod's before it", PATIENCE, || {
            let frames = heard.drain();
            assert!(!frames.contains(&frame(10)));
            frames.contains(&frame(3)).then_some(())
        });
        assert_eq!(site.nodes[1].drops("unknown_peer"), 0);
    });
}

#[test]
fn an_anycast_gateway_is_each_nodes_own_and_nothing_of_it_crosses_the_mesh() {
    site("an_anycast_gateway_is_each_nodes_own_and_nothing_of_it_crosses_the_mesh", |site| {
        let shared = ["10.10.0.254", "fd10::fe"];
        let network = json!({"isDefaultGateway": true, "anycastGateway": shared});
        let runners = [1, 2].map(|n| site.blue(n, &network));
        let pods = ["a", "b", "far"].map(|name| site.lab.namespace(name));
        let a = addresses(&runners[0].add(&Attachment::new(&pods[0])).unwrap());
        site.blue(2, &json!({})).add(&Attachment::new(&pods[2])).unwrap();
        for address in shared {
            pings(&pods[0], ip(address));
            // The other node has none yet, and the first one's is not there for its pods.
            silence(&pods[2], ip(address));
        }
        let routes = Inside::must(&pods[0], "eth0").routes;
        assert!(routes.iter().any(|route| route.starts_with("default via 10.10.0.254")), "{routes:?}");
        let b = addresses(&runners[1].add(&Attachment::new(&pods[1])).unwrap());
        let gateways = [0, 1].map(|n| Inside::must(&site.underlay.nodes[n], "vgw10"));
        assert_eq!(gateways[0].mac, gateways[1].mac);
        assert_eq!(gateways[0].addresses, gateways[1].addresses);
        // Its kernel is still waiting for the answers that did not come.
        pods[2].ip("neigh flush dev eth0");
        for address in shared {
            pings(&pods[1], ip(address));
            pings(&pods[2], ip(address));
        }
        talk(&pods[0], ip(&a[0]), &pods[1], ip(&b[0]));
        for (node, space) in site.nodes.iter().zip(&site.underlay.nodes) {
            pings(space, ip(if space.name() == site.underlay.nodes[0].name() { &a[0] } else { &b[0] }));
            let known = node.ctl("mac");
            let mine = |row: &&Value| row["mac"] == gateways[0].mac;
            let rows: Vec<&Value> = known.as_array().unwrap().iter().filter(mine).collect();
            assert!(!rows.is_empty() && rows.iter().all(|row| row["port"] == "vgw10"), "{known}");
        }
    });
}

#[test]
fn a_pod_cannot_speak_for_another() {
    site("a_pod_cannot_speak_for_another", |site| {
        let runners = [1, 2].map(|n| site.blue(n, &json!({})));
        let pods = ["good", "bad"].map(|name| site.lab.namespace(name));
        let [good, _] = [0, 1].map(|n| addresses(&runners[n].add(&Attachment::new(&pods[n])).unwrap()));
        let node = &site.nodes[1];
        pings(&pods[1], ip(&good[0]));
        pods[1].address("eth0", "10.10.77.77/16");
        pods[1].address("eth0", "fd10::77/64");
        for (address, to, reason) in
            [("10.10.77.77", &good[0], "spoofed_ipv4"), ("fd10::77", &good[1], "spoofed_ipv6")]
        {
            let before = node.drops(reason);
            assert_eq!(pods[1].ping_with(ip(to), 56, 1, &format!("-I {address}")).received, 0, "{address}");
            // Its own kernel asks in the name of that address first.
            let dropped = node.drops(reason) + node.drops("spoofed_arp") + node.drops("spoofed_nd");
            assert!(dropped > before, "{reason}");
        }
        // A MAC address of its own making.
        let raw = pods[1].inside(|| Raw::open("eth0"));
        let forged = Frame::new(Mac::BROADCAST, Mac::new([2, 0, 0, 0, 9, 9])).payload(0x88b5, &[1; 60]);
        raw.send(&forged.bytes());
        until("a forged MAC address dropped", PATIENCE, || (node.drops("spoofed_mac") > 0).then_some(()));
        // Nobody believes it, and what is true still goes through.
        pings(&pods[1], ip(&good[0]));
        // Where the network says so, a pod may.
        let free = site.lab.namespace("free");
        let [one, _]: [String; 2] =
            addresses(&site.blue(2, &json!({"antiSpoof": false})).add(&Attachment::new(&free)).unwrap())
                .try_into()
                .unwrap();
        free.address("eth0", "10.10.88.88/16");
        pings(&free, ip(&good[0]));
        let ping = free.ping_with(ip(&good[0]), 56, 1, "-W 10 -I 10.10.88.88");
        assert_eq!(ping.received, 1, "{one}: {}", ping.text);
    });
}

/// No more than the bucket holds and what the rate brings meanwhile, of which a little is allowed for headers.
fn within_rate(bits: u64, rate: u64, burst: u64, took: Duration) -> bool {
    let brought = u64::try_from(took.as_millis()).unwrap() * rate / 1000;
    bits <= burst + brought + brought / 20
}

#[test]
fn a_pod_is_held_to_its_bandwidth_both_ways() {
    site("a_pod_is_held_to_its_bandwidth_both_ways", |site| {
        let runners = [1, 2].map(|n| site.blue(n, &json!({})));
        let pods = ["narrow", "wide"].map(|name| site.lab.namespace(name));
        let (rate, burst) = (20_000_000, 2_000_000);
        let limits =
            json!({"ingressRate": rate, "ingressBurst": burst, "egressRate": rate, "egressBurst": burst});
        let narrow = Attachment::new(&pods[0]).capability("bandwidth", limits);
        let own = addresses(&runners[0].add(&narrow).unwrap());
        let other = addresses(&runners[1].add(&Attachment::new(&pods[1])).unwrap());
        pings(&pods[0], ip(&other[0]));
        for (from, to, address) in [(&pods[0], &pods[1], &other[0]), (&pods[1], &pods[0], &own[0])] {
            let bytes = 2 << 20;
            let transfer = tcp_transfer(from, to, ip(address), bytes, Duration::from_secs(60)).unwrap();
            assert!(within_rate(bytes * 8, rate, burst, transfer.took), "{transfer:?} towards {address}");
        }
        // And what does not care for losses.
        let before = site.nodes[0].drops("policed");
        let socket = pods[0].inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        until("datagrams policed", PATIENCE, || {
            for _ in 0..100 {
                let _ = socket.send_to(&[0; 1400], (ip(&other[0]), 9));
            }
            (site.nodes[0].drops("policed") > before).then_some(())
        });
    });
}
