//! Ways that are smaller than their senders think, and become smaller still, while load runs: TCP gets through, what does
//! not fit is counted and answered, and the underlay sees no fragment.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use vswitch_tests::lab::{Lab, Namespace};
use vswitch_tests::node::{Outer, in_nodes, is_fragment};
use vswitch_tests::numbered::{Numbered, numbered};
use vswitch_tests::rng::Rng;
use vswitch_tests::scene::{Place, Plan, Scene, ip};
use vswitch_tests::sight::Sight;
use vswitch_tests::streams::{Tcp, Udp, tcp, udp};
use vswitch_tests::sums::Watch;

const A: [&str; 2] = ["10.10.0.1/24", "fd10::1/64"];
const B: [&str; 2] = ["10.10.0.2/24", "fd10::2/64"];
const C: [&str; 2] = ["10.10.0.3/24", "fd10::3/64"];
const D: [&str; 2] = ["10.10.0.4/24", "fd10::4/64"];
const E: [&str; 2] = ["10.10.0.5/24", "fd10::5/64"];

/// The MTU of the way to `to` as the pod's kernel has learned it.
fn learned(pod: &Namespace, to: IpAddr) -> Option<u16> {
    let route = pod.ip(&format!("route get {to}"));
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1).and_then(|word| word.parse().ok())
}

/// Asserts that every datagram that arrived on the underlay since this was last asked is whole, may not be fragmented,
/// takes no more than `mtu`, and has a checksum that is right or none.
fn assert_unfragmented(under: &Sight, mtu: usize) {
    let frames = under.frames();
    let mut tunnelled = 0;
    for frame in &frames {
        assert!(!is_fragment(frame), "a fragment on the underlay");
        let outer = Outer::parse(frame);
        if outer.as_ref().is_some_and(Outer::is_probe) {
            // It tries what the way carries, or was sent before that was known.
            continue;
        }
        assert!(frame.len() <= mtu + 14, "{} bytes on an underlay of {mtu}", frame.len() - 14);
        let Some(outer) = outer.filter(|outer| outer.dst_port == 4789) else { continue };
        assert_ne!(outer.dont_fragment, Some(false), "{:?}", outer.src);
        assert!(outer.checksum == 0 || outer.checksum_holds, "a wrong checksum outside");
        tunnelled += 1;
    }
    assert!(tunnelled > 100, "{tunnelled} datagrams of {} frames", frames.len());
}

/// Runs `work` while datagrams and TCP cross between `a` and `b` all the time.
fn under_load<T>(a: &Namespace, b: &Namespace, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    let rounds = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let how = Numbered { flows: 6, datagrams: 50, longest: 1100 };
                let outcome = numbered((a, ip("10.10.0.1")), (b, ip("10.10.0.2")), &how);
                assert!(outcome.received * 2 > outcome.sent, "{outcome:?}");
                rounds.fetch_add(1, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            let mut rng = Rng::new(3);
            while !over.load(Ordering::SeqCst) {
                tcp(b, a, ip("fd10::1"), &Tcp { bytes: 200_000, ..Tcp::default() }, &mut rng);
            }
        });
        // Ends the load also when the work fails.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let over = Over(&over);
        vswitch_tests::lab::until("load", vswitch_tests::node::PATIENCE, || {
            (rounds.load(Ordering::SeqCst) > 0).then_some(())
        });
        let done = work();
        drop(over);
        done
    })
}

/// The way from `a` to `b` takes packets of `fitting` bytes: everything gets there somehow.
fn gets_through(scene: &Scene, fitting: u16, rng: &mut Rng) {
    let (a, b) = (scene.pod("a"), scene.pod("b"));
    for to in [ip("10.10.0.2"), ip("fd10::2")] {
        tcp(a, b, to, &Tcp { bytes: 1_500_000, ..Tcp::default() }, rng);
        tcp(a, b, to, &Tcp { bytes: 200_000, changing: true, urgent: true, ..Tcp::default() }, rng);
        assert_eq!(learned(a, to), Some(fitting), "{to}");
        // The pod's kernel knows by now, and makes fragments itself.
        udp(a, b, to, &Udp { count: 60, shortest: 1500, longest: 9000, ..Udp::default() }, rng);
        let ping = a.ping_with(to, usize::from(fitting), 1, "-M do -W 0.1");
        assert!(ping.received == 0 && ping.text.contains(&format!("{fitting}")), "{}", ping.text);
    }
}

fn a_way_that_shrinks(lab: &Lab, v6: bool, keys: &str) {
    let (peer, wrap) = if v6 { ("2001:db8::2", 70) } else { ("192.0.2.2", 50) };
    let smaller = format!("[[peer]]\naddress = \"{peer}\"\nmtu = 1450");
    let nodes = [smaller.as_str(), ""];
    let keys = format!("tag = 10\n{keys}");
    let places = [
        Place { pod: "a", node: 1, keys: &keys, addresses: &A },
        Place { pod: "b", node: 2, keys: &keys, addresses: &B },
    ];
    let mut scene = Scene::new(lab, &Plan { nodes: &nodes, underlay: "", v6, places: &places });
    let under = Sight::open(&scene.underlay.nodes[1], "under");
    let mut rng = Rng::from_env(31);
    assert_eq!(scene.pod("b").ping_with(ip("10.10.0.1"), 56, 1, "-W 10").received, 1);
    let mut mtu = 1450;
    for next in [1400, 1360, 0] {
        let before = scene.nodes[0].drops("too_big");
        let watch = Watch::new(&scene.spaces());
        under_load(scene.pod("a"), scene.pod("b"), || gets_through(&scene, mtu - wrap, &mut rng));
        assert!(scene.nodes[0].drops("too_big") > before, "full segments did not fit {mtu}");
        watch.unmoved(&format!("seed {}, {mtu}", rng.seed()));
        assert_unfragmented(&under, mtu.into());
        if next > 0 {
            scene.reload(1, &format!("mtu = {mtu}"), &format!("mtu = {next}"));
            mtu = next;
        }
    }
}

#[test]
fn tcp_gets_through_a_way_that_shrinks_under_load_over_ipv4() {
    in_nodes("tcp_gets_through_a_way_that_shrinks_under_load_over_ipv4", |lab| {
        a_way_that_shrinks(lab, false, "");
    });
}

#[test]
fn tcp_gets_through_a_way_that_shrinks_under_load_over_ipv6() {
    in_nodes("tcp_gets_through_a_way_that_shrinks_under_load_over_ipv6", |lab| {
        a_way_that_shrinks(lab, true, "");
    });
}

#[test]
fn tcp_gets_through_a_way_that_shrinks_under_load_from_a_pod_with_a_larger_mtu() {
    in_nodes("tcp_gets_through_a_way_that_shrinks_under_load_from_a_pod_with_a_larger_mtu", |lab| {
        a_way_that_shrinks(lab, false, "mtu = 9000");
    });
}

#[test]
fn datagrams_that_do_not_fit_are_counted_and_answered() {
    in_nodes("datagrams_that_do_not_fit_are_counted_and_answered", |lab| {
        let places = [
            Place { pod: "a", node: 1, keys: "tag = 10\nmtu = 1500", addresses: &A },
            Place { pod: "b", node: 2, keys: "tag = 10\nmtu = 1500", addresses: &B },
        ];
        let scene = Scene::new(lab, &Plan { nodes: &["", ""], underlay: "", v6: false, places: &places });
        let (a, b) = (scene.pod("a"), scene.pod("b"));
        for to in [ip("10.10.0.2"), ip("fd10::2")] {
            assert_eq!(a.ping_with(to, 56, 1, "-W 10").received, 1);
            let (server, client) = [b, a]
                .map(|pod| {
                    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    pod.inside(|| std::net::UdpSocket::bind(any)).unwrap()
                })
                .into();
            client.connect((to, server.local_addr().unwrap().port())).unwrap();
            let before = scene.nodes[0].drops("too_big");
            // Ten of them in a superframe, each too long by a byte.
            let fitting: u16 = if to.is_ipv4() { 1450 - 28 } else { 1450 - 48 };
            a.ip("route flush cache");
            if to.is_ipv4() {
                // Otherwise Linux leaves DF out of a superframe.
                let always = libc::IP_PMTUDISC_DO;
                vswitch_tests::socket::set(&client, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, always);
            }
            vswitch_tests::socket::segment(&client, fitting + 1);
            client.send(&vec![7; usize::from(fitting + 1) * 10]).unwrap();
            vswitch_tests::lab::until("an answer", vswitch_tests::node::PATIENCE, || {
                (learned(a, to) == Some(1450)).then_some(())
            });
            let counted = scene.nodes[0].drops("too_big") - before;
            // A superframe dies as one frame.
            assert!((1..=10).contains(&counted), "{counted}");
        }
    });
}

#[test]
fn pods_of_different_mtus_talk_on_one_node_and_to_another() {
    in_nodes("pods_of_different_mtus_talk_on_one_node_and_to_another", |lab| {
        let places = [
            Place { pod: "a", node: 1, keys: "tag = 10\nmtu = 9000", addresses: &A },
            Place { pod: "b", node: 2, keys: "tag = 10", addresses: &B },
            Place { pod: "c", node: 1, keys: "tag = 10\nmtu = 9000", addresses: &C },
            Place { pod: "d", node: 1, keys: "tag = 10\nmtu = 1280", addresses: &D },
            Place { pod: "e", node: 1, keys: "tag = 10\nmtu = 4000\noffload = false", addresses: &E },
        ];
        let scene = Scene::new(lab, &Plan { nodes: &["", ""], underlay: "", v6: false, places: &places });
        let under = Sight::open(&scene.underlay.nodes[1], "under");
        let watch = Watch::new(&scene.spaces());
        let mut rng = Rng::from_env(32);
        let pod = |name| scene.pod(name);
        let all = [("a", &A), ("b", &B), ("c", &C), ("d", &D), ("e", &E)];
        for (from, _) in all {
            for (to, addresses) in all.iter().filter(|(to, _)| *to != from) {
                for address in addresses.iter() {
                    let address = ip(address.split('/').next().unwrap());
                    tcp(pod(from), pod(to), address, &Tcp { bytes: 300_000, ..Tcp::default() }, &mut rng);
                    let small = Udp { count: 40, longest: 1200, superframes: true, ..Udp::default() };
                    udp(pod(from), pod(to), address, &small, &mut rng);
                }
            }
        }
        watch.unmoved(&format!("seed {}", rng.seed()));
        assert_unfragmented(&under, 1500);
    });
}
