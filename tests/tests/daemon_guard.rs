//! Guarded ports of the running daemon, with real kernels behind them: what a kernel says by itself passes, and what
//! somebody makes it say does not.
//!
//! Not here: every rule (see `guard.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::Mac;
use vswitch_tests::daemon::{Host, PATIENCE, number, with_host};
use vswitch_tests::frames::{Frame, hex, station};
use vswitch_tests::lab::{Namespace, until};

const PODS: [&str; 2] = ["a", "b"];

fn v4(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

fn v6(n: u16) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])
}

/// Two pods with IPv6 as a kernel has it, in VLAN 10, guarded.
fn start(host: &mut Host, spaces: &[Namespace]) {
    let tables: String = (1..)
        .zip(spaces)
        .map(|(n, space)| {
            format!(
                "[[port]]\nname = \"p{n}\"\nnetns = {:?}\nifname = \"eth0\"\ntag = 10\nmac = \"{}\"\n\
                 addresses = [\"10.0.0.{n}/24\", \"fd00::{n}/64\"]\nanti_spoof = true\n",
                space.name(),
                station(n)
            )
        })
        .collect();
    host.start_on(&tables);
}

fn drops(host: &Host, reason: &str) -> u64 {
    host.drops().get(reason).copied().unwrap_or(0)
}

/// The frame is dropped, and this is why.
fn ends(host: &Host, from: &vswitch_tests::daemon::Raw, frame: &Frame, reason: &str) {
    let before = drops(host, reason);
    from.send(&frame.bytes());
    until(reason, PATIENCE, || (drops(host, reason) > before).then_some(()));
    let told = host.json(&format!("trace p1 {} --json", hex(&frame.bytes())));
    assert_eq!((told["verdict"].as_str(), told["reason"].as_str()), (Some("drop"), Some(reason)), "{told}");
    let steps = told["steps"].to_string();
    assert!(steps.contains("may not say that"), "{steps}");
}

#[test]
fn kernels_behind_guarded_ports_speak_as_themselves_and_as_nobody_else() {
    with_host("kernels_behind_guarded_ports_speak_as_themselves_and_as_nobody_else", |lab, mut host| {
        let spaces = PODS.map(|name| lab.namespace(name));
        start(&mut host, &spaces);
        let [a, b] = &spaces;
        // Addresses found to be free, neighbours, groups: all by the kernel's own words.
        for (to, n) in [(v4(2), 1), (v6(2), 1)] {
            until(&format!("{to} answers"), PATIENCE, || (a.ping(to, 56, 1).received == 1).then_some(n));
        }
        let link_local = format!("{}%eth0", Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 2));
        until("link-local answers", PATIENCE, || {
            a.try_run(&format!("ping -n -c 1 -W 1 {link_local}")).status.success().then_some(())
        });
        assert_eq!(b.ping(v4(1), 3000, 3).received, 3, "in fragments");
        assert_eq!(b.ping(v6(1), 3000, 3).received, 3, "in fragments");
        let spoofed: Vec<(String, u64)> =
            host.drops().into_iter().filter(|(reason, _)| reason.starts_with("spoofed")).collect();
        assert_eq!(spoofed, [], "nothing that a kernel says by itself is refused");

        // An address that nobody gave it.
        a.ip("addr add 10.0.0.99/24 dev eth0");
        a.ip("addr add fd00::99/64 dev eth0 nodad");
        assert_eq!(a.ping_with(v4(2), 56, 2, "-I 10.0.0.99").received, 0);
        assert!(drops(&host, "spoofed_arp") + drops(&host, "spoofed_ipv4") > 0);
        assert_eq!(a.ping_with(v6(2), 56, 2, "-I fd00::99").received, 0);
        assert!(drops(&host, "spoofed_ipv6") > 0);
        assert_eq!(a.ping(v4(2), 56, 1).received, 1, "as itself it is heard all the same");

        let raw = a.inside(|| vswitch_tests::daemon::Raw::open("eth0"));
        let mine = || Frame::new(Mac::BROADCAST, station(1));
        let everybody = IpAddr::V4(Ipv4Addr::BROADCAST);
        ends(&host, &raw, &mine().udp((v4(1), 67), (everybody, 68), b"offer"), "dhcp_server");
        let router = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let own = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1));
        let nodes = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
        ends(&host, &raw, &mine().ip(own, nodes, 58, &router), "router_advertisement");
        ends(&host, &raw, &mine().udp((v4(2), 1), (v4(2), 2), b""), "spoofed_ipv4");
        let claim =
            mine().arp(2, (station(1), Ipv4Addr::new(10, 0, 0, 2)), (station(2), Ipv4Addr::new(10, 0, 0, 2)));
        ends(&host, &raw, &claim, "spoofed_arp");
        let stolen = Frame::new(Mac::BROADCAST, station(2)).payload(0x88b5, b"");
        ends(&host, &raw, &stolen, "spoofed_mac");
        let place = host.macs().into_iter().find(|(mac, ..)| *mac == station(2).to_string()).unwrap();
        assert_eq!(place.2, "p2", "what is refused moves nobody");

        // Without its guard it may say what it likes; with a list, as much as that says.
        host.must("port set p1 anti_spoof=10.0.0.1,10.0.0.96/28,fd00::1");
        assert_eq!(a.ping_with(v4(2), 56, 1, "-I 10.0.0.99").received, 1);
        host.must("port set p1 anti_spoof=false");
        assert_eq!(a.ping_with(v6(2), 56, 1, "-I fd00::99").received, 1);
        assert!(number(&host.port("p1"), "rx_dropped") > 0);
    });
}

#[test]
fn a_port_in_the_peers_split_horizon_group_is_one_of_the_node_alone() {
    with_host("a_port_in_the_peers_split_horizon_group_is_one_of_the_node_alone", |lab, mut host| {
        let spaces = ["a", "b", "c"].map(|name| lab.namespace(name));
        let tables: String = (1..)
            .zip(&spaces)
            .map(|(n, space)| {
                let apart = if n < 3 { "split_horizon = true\n" } else { "" };
                format!(
                    "[[port]]\nname = \"p{n}\"\nnetns = {:?}\ntag = 10\naddresses = [\"10.0.0.{n}/24\"]\n{apart}",
                    space.name()
                )
            })
            .collect();
        host.start_on(&tables);
        // Two of one group do not hear each other, as they do not hear peers; the third hears both.
        for n in [1, 2] {
            until("p3 answers", PATIENCE, || (spaces[n - 1].ping(v4(3), 56, 1).received == 1).then_some(()));
        }
        assert_eq!(spaces[0].ping(v4(2), 56, 2).received, 0);
        host.must("port set p2 split_horizon=false");
        until("p2 answers", PATIENCE, || (spaces[0].ping(v4(2), 56, 1).received == 1).then_some(()));
    });
}
