//! Traffic of every kind between pods, byte for byte, with the kernel's counters of checksum errors standing still.
#![allow(clippy::unwrap_used, reason = "a test")]

use vswitch_tests::lab::{Lab, Namespace, skip};
use vswitch_tests::node::{Fleet, Node, Underlay, in_nodes, is_installed, pings};
use vswitch_tests::rng::Rng;
use vswitch_tests::scene::{Place, Plan, Scene, ip};
use vswitch_tests::streams::{Tcp, Udp, tcp, udp};
use vswitch_tests::sums::{Watch, counter};

const A: [&str; 2] = ["10.10.0.1/24", "fd10::1/64"];
const B: [&str; 2] = ["10.10.0.2/24", "fd10::2/64"];

/// Pods `a` and `b` in one segment, on these nodes.
fn pair(lab: &Lab, nodes: &[&str], v6: bool, keys: [&str; 2]) -> Scene {
    let last = u8::try_from(nodes.len()).unwrap();
    let places = [
        Place { pod: "a", node: 1, keys: keys[0], addresses: &A },
        Place { pod: "b", node: last, keys: keys[1], addresses: &B },
    ];
    Scene::new(lab, &Plan { nodes, underlay: "", v6, places: &places })
}

/// Both answer and ask for explicit congestion notification (RFC 3168).
fn with_ecn(pods: &[&Namespace]) {
    for pod in pods {
        pod.inside(|| std::fs::write("/proc/sys/net/ipv4/tcp_ecn", "1")).unwrap();
    }
}

/// Everything that two pods may say to each other, from `a` to `b` and back, with `b` at `v4` and `v6`, and signed
/// besides where addresses stay what they are.
fn everything(a: &Namespace, b: &Namespace, [v4, v6]: [&str; 2], signed: bool, rng: &mut Rng) {
    for to in [ip(v4), ip(v6)] {
        pings(a, to);
        let some = Tcp { bytes: 300_001, ..Tcp::default() };
        for how in [
            Tcp { bytes: 3_000_001, ..some },
            Tcp { urgent: true, ..some },
            Tcp { changing: true, ..some },
            // Linux forgets a destination options header when it reckons what fits.
            Tcp { ip_options: true, max_segment: 1300, ..some },
            Tcp { signed, ..some },
            Tcp { max_segment: 333, ..some },
            Tcp { bytes: 50_000, no_delay: true, ..some },
        ] {
            tcp(a, b, to, &how, rng);
        }
        let some = Udp { count: 200, longest: 1300, ..Udp::default() };
        for how in [
            some,
            Udp { merged: true, ..some },
            Udp { superframes: true, ..some },
            Udp { superframes: true, merged: true, ..some },
            // Many and tiny in one superframe.
            Udp { superframes: true, longest: 9, ..some },
            Udp { changing: true, ..some },
            Udp { ip_options: true, longest: 1200, ..some },
            // In fragments, all of them: what is not one shows its ports, and may go another way.
            Udp { shortest: 2000, longest: 20_000, count: 60, ..some },
            Udp { shortest: 2000, longest: 20_000, count: 30, ip_options: true, ..some },
        ] {
            udp(a, b, to, &how, rng);
        }
        if to.is_ipv4() {
            udp(a, b, to, &Udp { no_checksum: true, ..some }, rng);
            udp(a, b, to, &Udp { no_checksum: true, merged: true, ..some }, rng);
            udp(a, b, to, &Udp { no_checksum: true, shortest: 2000, longest: 9000, count: 60, ..some }, rng);
        }
    }
}

/// Both directions between the pods of `scene`; no counter of an error moves.
fn nothing_moves(scene: &Scene, seed: u64) {
    let (a, b) = (scene.pod("a"), scene.pod("b"));
    let watch = Watch::new(&scene.spaces());
    let mut rng = Rng::from_env(seed);
    with_ecn(&[a, b]);
    everything(a, b, ["10.10.0.2", "fd10::2"], true, &mut rng);
    for to in [ip("10.10.0.1"), ip("fd10::1")] {
        udp(b, a, to, &Udp { count: 100, longest: 1400, ..Udp::default() }, &mut rng);
        udp(b, a, to, &Udp { count: 100, longest: 1300, superframes: true, ..Udp::default() }, &mut rng);
    }
    watch.unmoved(&format!("seed {}", rng.seed()));
    for reason in ["bad_offload", "too_big", "long_frame", "tx_error", "rx_truncated"] {
        assert_eq!(scene.drops(reason), 0, "{reason}");
    }
}

#[test]
fn no_checksum_error_is_counted_between_pods_of_one_node() {
    in_nodes("no_checksum_error_is_counted_between_pods_of_one_node", |lab| {
        nothing_moves(&pair(lab, &[""], false, ["tag = 10"; 2]), 1);
    });
}

#[test]
fn no_checksum_error_is_counted_between_pods_of_two_nodes_over_ipv4() {
    in_nodes("no_checksum_error_is_counted_between_pods_of_two_nodes_over_ipv4", |lab| {
        nothing_moves(&pair(lab, &["", ""], false, ["tag = 10"; 2]), 2);
    });
}

#[test]
fn no_checksum_error_is_counted_between_pods_of_two_nodes_over_ipv6() {
    in_nodes("no_checksum_error_is_counted_between_pods_of_two_nodes_over_ipv6", |lab| {
        nothing_moves(&pair(lab, &["", ""], true, ["tag = 10"; 2]), 3);
    });
}

#[test]
fn no_checksum_error_is_counted_between_pods_with_and_without_offload() {
    in_nodes("no_checksum_error_is_counted_between_pods_with_and_without_offload", |lab| {
        nothing_moves(&pair(lab, &[""], false, ["tag = 10\noffload = false", "tag = 10"]), 4);
    });
}

/// Addresses are translated, and some packets marked as having met congestion, in a pod between `a` and `b`.
const TRANSLATE: &str = "
table inet translate {
    chain before { type nat hook prerouting priority dstnat;
        iifname eth0 ip daddr 10.10.0.9 dnat ip to 10.20.0.2
        iifname eth0 ip6 daddr fd10::9 dnat ip6 to fd20::2
    }
    chain behind { type nat hook postrouting priority srcnat;
        oifname eth1 masquerade
    }
    chain way { type filter hook forward priority 0;
        ip ecn ect0 numgen inc mod 16 0 ip ecn set ce
        ip6 ecn ect0 numgen inc mod 16 0 ip6 ecn set ce
    }
}
";

fn behind_translation(lab: &Lab, nodes: &[&str]) {
    if !is_installed("nft") {
        return skip("nft is not installed (Debian: nftables)");
    }
    let last = u8::try_from(nodes.len()).unwrap();
    let places = [
        Place { pod: "a", node: 1, keys: "tag = 10\ngateway = \"10.10.0.9\"", addresses: &A },
        Place { pod: "router", node: 1, keys: "tag = 10", addresses: &["10.10.0.9/24", "fd10::9/64"] },
        Place { pod: "router", node: 1, keys: "tag = 20", addresses: &["10.20.0.9/24", "fd20::9/64"] },
        Place { pod: "b", node: last, keys: "tag = 20", addresses: &["10.20.0.2/24", "fd20::2/64"] },
    ];
    let scene = Scene::new(lab, &Plan { nodes, underlay: "", v6: false, places: &places });
    let (a, b, router) = (scene.pod("a"), scene.pod("b"), scene.pod("router"));
    for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        router.inside(|| std::fs::write(format!("/proc/sys/net/{family}"), "1")).unwrap();
    }
    let rules = std::env::temp_dir().join(router.name());
    std::fs::write(&rules, TRANSLATE).unwrap();
    let loaded = router.try_run(&format!("nft -f {}", rules.display()));
    let _ = std::fs::remove_file(&rules);
    if !loaded.status.success() {
        return skip(&format!("nft: {}", String::from_utf8_lossy(&loaded.stderr)));
    }
    let watch = Watch::new(&scene.spaces());
    let mut rng = Rng::from_env(5);
    with_ecn(&[a, b]);
    // `b` is where the router is.
    everything(a, b, ["10.10.0.9", "fd10::9"], false, &mut rng);
    watch.unmoved(&format!("seed {}", rng.seed()));
    for marked in ["IpExtInCEPkts", "Ip6InCEPkts"] {
        assert!(counter(b, marked) > 0 && counter(a, marked) > 0, "{marked}");
    }
}

#[test]
fn no_checksum_error_is_counted_behind_translated_addresses_and_congestion_on_one_node() {
    in_nodes("no_checksum_error_is_counted_behind_translated_addresses_and_congestion_on_one_node", |lab| {
        behind_translation(lab, &[""]);
    });
}

#[test]
fn no_checksum_error_is_counted_behind_translated_addresses_and_congestion_on_two_nodes() {
    in_nodes("no_checksum_error_is_counted_behind_translated_addresses_and_congestion_on_two_nodes", |lab| {
        behind_translation(lab, &["", ""]);
    });
}

/// Two nodes whose trunks hang on one cable, a kernel bridge: what pods send crosses it with a tag.
fn over_a_trunk(lab: &Lab, nodes: [&str; 2], keys: &str) {
    let underlay = Underlay::new(lab, 2, 1500);
    let (a, b, cable) = (lab.namespace("a"), lab.namespace("b"), lab.namespace("cable"));
    let spaces = [(&a, A), (&b, B)];
    let fleets = [0, 1].map(|n| {
        let (pod, addresses) = &spaces[n];
        Fleet::new(&format!(
            "{}\n[[port]]\nname = \"pod\"\nnetns = {:?}\nifname = \"eth0\"\naddresses = {addresses:?}\n{keys}\n\
             [[port]]\nname = \"trunk\"\nnetns = {:?}\nifname = \"t{n}\"\n",
            nodes[n],
            pod.name(),
            cable.name(),
        ))
    });
    let started = [0, 1].map(|n| fleets[n].spawn(&underlay.nodes[n], &format!("n{n}")));
    started.iter().for_each(Node::until_ready);
    cable.bridge("br", &["t0", "t1"]);
    let watch = Watch::new(&[&a, &b, &cable]);
    let mut rng = Rng::from_env(6);
    with_ecn(&[&a, &b]);
    everything(&a, &b, ["10.10.0.2", "fd10::2"], true, &mut rng);
    watch.unmoved(&format!("seed {}", rng.seed()));
}

#[test]
fn no_checksum_error_is_counted_over_a_tagged_trunk() {
    in_nodes("no_checksum_error_is_counted_over_a_tagged_trunk", |lab| {
        over_a_trunk(lab, ["", ""], "tag = 10");
    });
}

#[test]
fn no_checksum_error_is_counted_over_a_service_providers_trunk() {
    in_nodes("no_checksum_error_is_counted_over_a_service_providers_trunk", |lab| {
        let basic = "[datapath]\noffload = false";
        over_a_trunk(lab, ["", basic], "vlan_mode = \"dot1q-tunnel\"\ntag = 500");
    });
}
