//! Nodes of different abilities: offload at one end only, an underlay whose interfaces can less and less while traffic
//! runs, and Linux's own VXLAN at the other end. Whatever the way, what arrives is what was sent.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use vswitch_tests::lab::{Lab, Namespace, skip, until};
use vswitch_tests::node::{Node, PATIENCE, in_nodes, knows, pings, v4, v6};
use vswitch_tests::rng::Rng;
use vswitch_tests::scene::{Place, Plan, Scene, ip};
use vswitch_tests::streams::sample;
use vswitch_tests::sums::Watch;

const A: [&str; 2] = ["10.10.0.1/24", "fd10::1/64"];
const B: [&str; 2] = ["10.10.0.2/24", "fd10::2/64"];
const BASIC: &str = "[datapath]\noffload = false";

fn addresses(of: [&str; 2]) -> [IpAddr; 2] {
    of.map(|address| ip(address.split('/').next().unwrap()))
}

/// Both ways between `a` and `b`.
fn both_ways(a: &Namespace, b: &Namespace, rng: &mut Rng) {
    sample(a, b, &addresses(B), rng);
    sample(b, a, &addresses(A), rng);
}

fn pods(lab: &Lab, nodes: &[&str; 2], v6: bool) -> Scene {
    let places = [
        Place { pod: "a", node: 1, keys: "tag = 10", addresses: &A },
        Place { pod: "b", node: 2, keys: "tag = 10", addresses: &B },
    ];
    Scene::new(lab, &Plan { nodes, underlay: "", v6, places: &places })
}

/// Reasons for which nothing may die here.
fn nothing_died(nodes: &[Node]) {
    for reason in ["bad_offload", "too_big", "tx_error", "long_frame", "rx_truncated", "unknown_vni"] {
        assert_eq!(nodes.iter().map(|node| node.drops(reason)).sum::<u64>(), 0, "{reason}");
    }
}

#[test]
fn a_node_with_offload_and_one_without_understand_each_other() {
    in_nodes("a_node_with_offload_and_one_without_understand_each_other", |lab| {
        for v6 in [false, true] {
            let lab = if v6 { &Lab::new() } else { lab };
            let scene = pods(lab, &["", BASIC], v6);
            let before = missing(&scene, v6);
            let watch = Watch::new(&scene.spaces());
            let mut rng = Rng::from_env(41);
            both_ways(scene.pod("a"), scene.pod("b"), &mut rng);
            watch.unmoved(&format!("seed {}", rng.seed()));
            nothing_died(&scene.nodes);
            what_left_arrived(&scene, v6, &before);
        }
    });
}

/// Frames and bytes that a node counts as sent and the other not as received, both ways, however many a superframe or
/// train was. Some may be missing from before the other was there.
fn missing(scene: &Scene, v6: bool) -> Vec<u64> {
    let address = |n| if v6 { vswitch_tests::node::v6(n) } else { v4(n) };
    let [one, two] = &scene.nodes[..] else { unreachable!() };
    let ways = [(one, two, 1), (two, one, 2)].into_iter();
    ways.flat_map(|way| ["frames", "bytes"].map(|key| (way, key)))
        .map(|((from, to, n), key)| {
            let sent = || from.peer(address(3 - n), &format!("tx_{key}"));
            let received = || to.peer(address(n), &format!("rx_{key}"));
            // The pods' kernels say something now and then: not between two looks.
            until("a quiet moment", PATIENCE, || {
                let before = sent();
                let difference = before.checked_sub(received())?;
                (sent() == before).then_some(difference)
            })
        })
        .collect()
}

/// Asserts that no more is missing than before.
fn what_left_arrived(scene: &Scene, v6: bool, before: &[u64]) {
    until(&format!("{before:?} missing, not {:?}", missing(scene, v6)), PATIENCE, || {
        missing(scene, v6).iter().zip(before).all(|(now, before)| now <= before).then_some(())
    });
}

/// What an interface can, less and less and then all again; each on top of the one before.
const ABILITIES: [&str; 8] = [
    "gro on",
    "tx-udp-segmentation off",
    "gro off",
    "tso off gso off",
    "tx off",
    "rx off",
    "gro on gso on tso on tx on rx on tx-udp-segmentation on",
    "tx off",
];

fn less_and_less(lab: &Lab, v6: bool, change: impl Fn(&Scene, &str)) {
    let scene = pods(lab, &["", ""], v6);
    let before = missing(&scene, v6);
    let watch = Watch::new(&scene.spaces());
    let mut rng = Rng::from_env(42);
    let (a, b) = (scene.pod("a"), scene.pod("b"));
    both_ways(a, b, &mut rng);
    for abilities in ABILITIES {
        change(&scene, abilities);
        both_ways(a, b, &mut rng);
        watch.unmoved(&format!("seed {}, {abilities}", rng.seed()));
        let paths = scene.nodes.iter().map(|node| node.ctl("status")["underlay_path"].to_string());
        println!("{abilities}: {}", paths.collect::<Vec<_>>().join(" and "));
    }
    nothing_died(&scene.nodes);
    what_left_arrived(&scene, v6, &before);
}

#[test]
fn traffic_goes_on_when_the_underlays_interfaces_can_less_and_less() {
    in_nodes("traffic_goes_on_when_the_underlays_interfaces_can_less_and_less", |lab| {
        less_and_less(lab, false, |scene, abilities| {
            scene.underlay.nodes.iter().for_each(|node| node.ethtool("under", abilities));
        });
    });
}

#[test]
fn traffic_goes_on_when_one_of_two_nodes_can_less_and_less_over_ipv6() {
    in_nodes("traffic_goes_on_when_one_of_two_nodes_can_less_and_less_over_ipv6", |lab| {
        less_and_less(lab, true, |scene, abilities| {
            scene.underlay.nodes[0].ethtool("under", abilities);
            scene.underlay.wire.ethtool("w1", abilities);
        });
    });
}

#[test]
fn traffic_goes_on_when_the_pods_interfaces_can_less_and_less() {
    in_nodes("traffic_goes_on_when_the_pods_interfaces_can_less_and_less", |lab| {
        less_and_less(lab, false, |scene, abilities| {
            // A TAP has no checksums to give up on receipt.
            let abilities = abilities.replace("rx off", "").replace("rx on", "");
            if !abilities.trim().is_empty() {
                ["a", "b"].iter().for_each(|pod| scene.pod(pod).ethtool("eth0", abilities.trim()));
            }
        });
    });
}

fn linux(lab: &Lab, outer_v6: bool, offload: bool) {
    if !knows(&lab.namespace("vxlan"), "type vxlan id 1 dstport 4789") {
        return skip("the kernel has no VXLAN");
    }
    let nodes = [if offload { "" } else { BASIC }];
    // The second node of the plan's mesh is Linux's.
    let places = [Place { pod: "a", node: 1, keys: "tag = 10", addresses: &A }];
    let scene = Scene::new(lab, &Plan { nodes: &nodes, underlay: "", v6: outer_v6, places: &places });
    let linux = lab.namespace("linux");
    linux.veth("under", &scene.underlay.wire, "linux");
    scene.underlay.wire.ip("link set dev linux master wire");
    linux.address("under", &format!("{}/24", v4(2)));
    linux.address("under", &format!("{}/64", v6(2)));
    let (local, remote) = if outer_v6 { (v6(2), v6(1)) } else { (v4(2), v4(1)) };
    linux.ip(&format!("link add name vx type vxlan id 10010 local {local} remote {remote} dstport 4789"));
    let b = lab.namespace("b");
    linux.veth("pod", &b, "eth0");
    linux.bridge("br", &["vx", "pod"]);
    b.ip(&format!("link set dev eth0 mtu {}", if outer_v6 { 1430 } else { 1450 }));
    B.iter().for_each(|address| b.address("eth0", address));
    let a = scene.pod("a");
    let watch = Watch::new(&[a, &b, &linux, &scene.underlay.nodes[0]]);
    let mut rng = Rng::from_env(43);
    pings(a, ip("10.10.0.2"));
    both_ways(a, &b, &mut rng);
    for (space, link, abilities) in [
        (&linux, "under", "gro off"),
        (&linux, "under", "tso off gso off"),
        (&linux, "under", "tx off"),
        (&linux, "under", "gro on tso on gso on tx on"),
        (&linux, "vx", "tx off"),
        (&b, "eth0", "tso off gso off tx off"),
        (&scene.underlay.nodes[0], "under", "tx off gro off"),
    ] {
        space.ethtool(link, abilities);
        both_ways(a, &b, &mut rng);
        watch.unmoved(&format!("seed {}, {link} of {} {abilities}", rng.seed(), space.name()));
    }
    nothing_died(&scene.nodes);
}

#[test]
fn linux_at_the_other_end_understands_trains_over_ipv4_and_is_understood() {
    in_nodes("linux_at_the_other_end_understands_trains_over_ipv4_and_is_understood", |lab| {
        linux(lab, false, true);
    });
}

#[test]
fn linux_at_the_other_end_understands_trains_over_ipv6_and_is_understood() {
    in_nodes("linux_at_the_other_end_understands_trains_over_ipv6_and_is_understood", |lab| {
        linux(lab, true, true);
    });
}

#[test]
fn linux_at_the_other_end_understands_a_node_without_offload_and_is_understood() {
    in_nodes("linux_at_the_other_end_understands_a_node_without_offload_and_is_understood", |lab| {
        linux(lab, false, false);
    });
}

#[test]
fn connections_outlive_a_reload_that_takes_offload_away_and_gives_it_back() {
    in_nodes("connections_outlive_a_reload_that_takes_offload_away_and_gives_it_back", |lab| {
        let mut scene = pods(lab, &["[datapath]\noffload = true", ""], false);
        let mut rng = Rng::from_env(44);
        let steps = [("= true", "= false"), ("= false", "= true")];
        for (from, to) in steps {
            both_ways(scene.pod("a"), scene.pod("b"), &mut rng);
            scene.reload(1, &format!("offload {from}"), &format!("offload {to}"));
            let watch = Watch::new(&scene.spaces());
            both_ways(scene.pod("a"), scene.pod("b"), &mut rng);
            watch.unmoved(&format!("seed {}, offload {to}", rng.seed()));
            let status = scene.nodes[0].ctl("status");
            println!("offload {to}: {} {}", status["tap_path"], status["underlay_path"]);
        }
        nothing_died(&scene.nodes);
    });
}
