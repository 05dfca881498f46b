//! What fits the path to a peer and what does not: the pods' MTU, and what a pod with a larger one is told.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::node::{
    Fleet, Node, PATIENCE, Underlay, Wire, in_nodes, is_fragment, pod, talk, tcp, v4, v6,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

struct Scene {
    underlay: Underlay,
    pods: Vec<Namespace>,
    nodes: Vec<Node>,
    _fleet: Fleet,
}

/// Two nodes on an underlay of `underlay_mtu`, each with a pod whose `[[port]]` has these `keys` besides.
fn scene(lab: &Lab, address: fn(u8) -> IpAddr, underlay_mtu: u16, keys: &str) -> Scene {
    let underlay = Underlay::new(lab, 2, underlay_mtu);
    underlay.cut_trains();
    let pods: Vec<_> = (1..=2).map(|n| lab.namespace(&format!("pod{n}"))).collect();
    let ports = (1..).zip(&pods).map(|(n, space)| {
        let addresses = [format!("10.10.0.{n}/24"), format!("fd10::{n}/64")];
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        pod(&format!("pod{n}"), &format!("n{n}"), space, &format!("tag = 10\n{keys}"), &addresses)
    });
    let ports: String = ports.collect();
    let prefix = if address(1).is_ipv4() { "192.0.2.0/24" } else { "2001:db8::/64" };
    let fleet = Fleet::new(&format!(
        "[underlay]\naddress = \"{prefix}\"\n[mesh]\npeers = [\"{}\", \"{}\"]\n[[segment]]\nname = \"blue\"\n\
         vlan = 10\nvni = 10010\n{ports}",
        address(1),
        address(2)
    ));
    let nodes: Vec<Node> =
        (1..).zip(&underlay.nodes).map(|(n, space)| fleet.start(space, &format!("n{n}"))).collect();
    Scene { underlay, pods, nodes, _fleet: fleet }
}

fn mtu(pod: &Namespace) -> String {
    pod.run("cat /sys/class/net/eth0/mtu").trim().to_owned()
}

fn default_mtu(lab: &Lab, address: fn(u8) -> IpAddr, underlay_mtu: u16, expected: u16) {
    let scene = scene(lab, address, underlay_mtu, "");
    assert_eq!(mtu(&scene.pods[0]), expected.to_string());
    let mut under = Wire::open(&scene.underlay.nodes[1], "under");
    talk(&scene.pods[0], ip("10.10.0.1"), &scene.pods[1], ip("10.10.0.2"));
    talk(&scene.pods[0], ip("fd10::1"), &scene.pods[1], ip("fd10::2"));
    // The largest packet that the pod may send takes the underlay to its last byte and no further.
    let full = usize::from(expected) - 28;
    assert_eq!(scene.pods[0].ping_with(ip("10.10.0.2"), full, 1, "-M do -W 10").received, 1);
    let frames = under.frames();
    assert_eq!(frames.iter().map(Vec::len).max(), Some(usize::from(underlay_mtu) + 14));
    assert!(!frames.iter().any(|frame| is_fragment(frame)));
    assert_eq!(scene.nodes[0].drops("too_big") + scene.nodes[1].drops("too_big"), 0);
}

#[test]
fn a_pod_fills_an_ipv4_underlay_of_1500_by_default() {
    in_nodes("a_pod_fills_an_ipv4_underlay_of_1500_by_default", |lab| default_mtu(lab, v4, 1500, 1450));
}

#[test]
fn a_pod_fills_an_ipv6_underlay_of_1500_by_default() {
    in_nodes("a_pod_fills_an_ipv6_underlay_of_1500_by_default", |lab| default_mtu(lab, v6, 1500, 1430));
}

#[test]
fn a_pod_fills_an_underlay_of_1400_by_default() {
    in_nodes("a_pod_fills_an_underlay_of_1400_by_default", |lab| default_mtu(lab, v4, 1400, 1350));
}

/// The MTU of the way to `to` as the pod's kernel has learned it.
fn learned(pod: &Namespace, to: IpAddr) -> Option<String> {
    let route = pod.ip(&format!("route get {to}"));
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1).map(str::to_owned)
}

/// How many ICMP fragmentation-needed and ICMPv6 packet-too-big messages are among `frames`.
fn answers(frames: &[Vec<u8>]) -> usize {
    let told = |frame: &&Vec<u8>| match (&frame[12..14], frame.get(20..)) {
        ([0x08, 0x00], _) => frame[23] == 1 && frame[34..36] == [3, 4],
        ([0x86, 0xdd], Some(_)) => frame[20] == 58 && frame[54..56] == [2, 0],
        _ => false,
    };
    frames.iter().filter(told).count()
}

fn a_larger_pod_is_told(lab: &Lab, address: fn(u8) -> IpAddr, underlay_mtu: u16, fitting: u16) {
    let scene = scene(lab, address, underlay_mtu, "mtu = 1500");
    let [a, b] = &scene.pods[..] else { unreachable!() };
    assert_eq!(mtu(a), "1500");
    let mut inside = Wire::open(a, "eth0");
    let mut under = Wire::open(&scene.underlay.nodes[0], "under");
    for to in [ip("10.10.0.2"), ip("fd10::2")] {
        let before = scene.nodes[0].drops("too_big");
        // TCP finds the size by itself from what it is told.
        tcp(a, b, to, 2 << 20);
        assert!(scene.nodes[0].drops("too_big") > before, "the first full segments did not fit");
        assert!(answers(&inside.frames()) > 0);
        assert_eq!(learned(a, to), Some(fitting.to_string()), "{to}");
        let ping = a.ping_with(to, 1440, 1, "-M do -W 1");
        assert!(ping.received == 0 && ping.text.contains(&fitting.to_string()), "{}", ping.text);
        // What the pods may fragment arrives, once both know how small.
        let back = if to.is_ipv4() { ip("10.10.0.1") } else { ip("fd10::1") };
        assert_eq!(b.ping_with(back, 1440, 1, "-M do -W 1").received, 0);
        let ping = a.ping_with(to, 3200, 1, "-M want -W 10");
        assert_eq!(ping.received, 1, "{}", ping.text);
    }
    let frames = under.frames();
    assert!(frames.iter().all(|frame| frame.len() <= usize::from(underlay_mtu) + 14 && !is_fragment(frame)));
}

#[test]
fn a_pod_with_a_larger_mtu_is_told_and_adapts_over_ipv4() {
    in_nodes("a_pod_with_a_larger_mtu_is_told_and_adapts_over_ipv4", |lab| {
        a_larger_pod_is_told(lab, v4, 1500, 1450);
    });
}

#[test]
fn a_pod_with_a_larger_mtu_is_told_and_adapts_over_ipv6() {
    in_nodes("a_pod_with_a_larger_mtu_is_told_and_adapts_over_ipv6", |lab| {
        a_larger_pod_is_told(lab, v6, 1500, 1430);
    });
}

#[test]
fn a_pod_with_a_larger_mtu_is_told_and_adapts_on_a_small_underlay() {
    in_nodes("a_pod_with_a_larger_mtu_is_told_and_adapts_on_a_small_underlay", |lab| {
        a_larger_pod_is_told(lab, v4, 1400, 1350);
    });
}

#[test]
fn what_may_be_fragmented_and_what_goes_to_a_group_is_counted_and_not_answered() {
    in_nodes("what_may_be_fragmented_and_what_goes_to_a_group_is_counted_and_not_answered", |lab| {
        let scene = scene(lab, v4, 1500, "mtu = 1500");
        let a = &scene.pods[0];
        // The stations know each other.
        assert_eq!(a.ping_with(ip("10.10.0.2"), 56, 1, "-W 10").received, 1);
        let mut inside = Wire::open(a, "eth0");
        let node = &scene.nodes[0];
        // 1,472 bytes and 28 of headers: 1,500 without DF; nobody answers.
        for (count, words) in (1..).zip([
            "-M dont 10.10.0.2",
            "-M dont -b 10.10.0.255",
            "-M do -I eth0 224.0.0.251",
            "-M do -I eth0 ff02::fb%eth0",
        ]) {
            let size = if words.contains("ff02") { 1452 } else { 1472 };
            let ping = a.try_run(&format!("ping -n -c 1 -W 1 -w 1 -s {size} {words}"));
            assert!(!ping.status.success(), "{words}");
            until(words, PATIENCE, || (node.drops("too_big") >= count).then_some(()));
        }
        assert_eq!(answers(&inside.frames()), 0);
        assert_eq!(learned(a, ip("10.10.0.2")), None);
        // And what is due an answer still gets one.
        let ping = a.ping_with(ip("10.10.0.2"), 1472, 1, "-M do -W 1");
        assert!(ping.text.contains("mtu = 1450"), "{}", ping.text);
        assert_eq!(answers(&inside.frames()), 1);
        // The station was not forgotten over all that.
        assert_eq!(a.ping_with(ip("10.10.0.2"), 1400, 1, "-W 10").received, 1);
    });
}
