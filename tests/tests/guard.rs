//! A guarded port, rule by rule and with any frame: what its station may say passes, everything else is dropped by name,
//! teaches nothing, and `trace` says why.
//!
//! `VSWITCH_SEED` repeats a run, `VSWITCH_RUNS` lengthens it. Not here: the daemon and real kernels (see
//! `daemon_guard.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::catch_unwind;
use std::sync::Arc;
use vswitch_core::port::{Guard, Segment};
use vswitch_core::{Arrival, Attachment, DropReason, Instant, Mac, Port, PortId, Vlan};
use vswitch_tests::driven::{Driven, Passed};
use vswitch_tests::frames::{Frame, ctag, hex, ip, stag, station};
use vswitch_tests::guard_body::guard_body;
use vswitch_tests::reference::Spec;
use vswitch_tests::rng::Rng;

const NOW: Instant = Instant::from_secs(1);
const ACCESS: u32 = 1;
const TRUNK: u32 = 2;
const CUSTOMER: u32 = 3;
const OTHER: u32 = 4;

#[test]
fn whatever_a_guarded_port_sends_a_naive_reader_of_another_library_judges_alike() {
    let runs = std::env::var("VSWITCH_RUNS").map_or(20_000, |runs| runs.parse().unwrap());
    let mut rng = Rng::from_env(1);
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for run in 0..runs {
        let len = rng.within(2..=12);
        let mut data = rng.bytes(len);
        // Half of the frames are as they begin.
        if rng.within(0..=1) == 0 {
            data[1] &= 0x7f;
            data.truncate(7);
        }
        match catch_unwind(|| guard_body(&data)) {
            Ok(end) => *ends.entry(end.map_or("sent", DropReason::name)).or_default() += 1,
            Err(_) => panic!("run {run} of seed {}: {}", rng.seed(), hex(&data)),
        }
    }
    println!("{runs} frames: {ends:?}");
    // A run that never meets an end says nothing about it.
    for end in SPOOFED.iter().map(|reason| reason.name()).chain(["sent", "short_frame", "reserved_group"]) {
        assert!(runs < 20_000 || end == "reserved_group" || ends.contains_key(end), "{end} never came");
    }
}

#[test]
fn bytes_of_every_pattern_are_a_frame_too() {
    for byte in [0, 1, 0x55, 0x80, 0x81, 0xaa, 0xff] {
        for len in [0, 1, 2, 13, 14, 43, 87, 2000] {
            let _ = guard_body(&vec![byte; len]);
        }
    }
}

const SPOOFED: [DropReason; 7] = [
    DropReason::SpoofedMac,
    DropReason::SpoofedArp,
    DropReason::SpoofedIpv4,
    DropReason::SpoofedIpv6,
    DropReason::SpoofedNd,
    DropReason::DhcpServer,
    DropReason::RouterAdvertisement,
];

fn ten() -> Vlan {
    Vlan::new(10).unwrap()
}

fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)
}

/// Of station `n`.
fn link_local(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, n)
}

fn all_nodes() -> Ipv6Addr {
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
}

/// Three ports behind which station 1 is said to be, with 10.0.0.1 and fd00::1, and one where anybody is.
fn switch() -> Driven {
    let addresses = vec![(v4(1).into(), 32), (v6(1).into(), 128)];
    let guard = Arc::new(Guard { mac: station(1), addresses });
    let port = |number, attachment, guarded: bool| {
        let mut port = Port::new(PortId::new(number).unwrap(), attachment);
        port.guard = guarded.then(|| Arc::clone(&guard));
        port
    };
    Driven::new(&Spec::new(vec![
        port(ACCESS, Attachment::Access(ten()), true),
        port(TRUNK, Attachment::trunk_all(), true),
        port(CUSTOMER, Attachment::dot1q_tunnel(ten(), None), true),
        port(OTHER, Attachment::trunk_all(), false),
    ]))
}

fn from(port: u32, frame: &[u8]) -> Passed {
    SWITCH.with_borrow_mut(|switch| from_of(switch, port, frame))
}

thread_local! {
    /// Made once for a test; before each frame it knows nobody.
    static SWITCH: RefCell<Driven> = RefCell::new(switch());
}

fn from_of(switch: &mut Driven, port: u32, frame: &[u8]) -> Passed {
    switch.macs().flush();
    let passed = switch.pass(NOW, Arrival::Port(PortId::new(port).unwrap()), frame);
    if passed.dropped.is_some() {
        let segment = Segment::new(0, ten()).unwrap();
        assert_eq!(switch.macs().lookup(NOW, segment, station(1)), None, "a refused frame teaches nothing");
        assert!(switch.macs().is_empty());
    }
    passed
}

fn mine() -> Frame {
    Frame::new(Mac::BROADCAST, station(1))
}

fn nd(kind: u8, source: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Frame {
    mine().neighbour((kind, 0), (source, all_nodes()), target, options)
}

fn named(kind: u8, station_number: u32) -> Vec<u8> {
    [&[kind, 1][..], &station(station_number).bytes()].concat()
}

fn icmpv6(source: Ipv6Addr, message: &[u8]) -> Frame {
    mine().ip(source.into(), all_nodes().into(), 58, message)
}

fn behind(source: Ipv6Addr, first: u8, headers: &[u8]) -> Frame {
    mine().ip(source.into(), all_nodes().into(), first, headers)
}

const ROUTER: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
const NOBODY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const EVERYBODY: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

/// What is true of station 1.
fn truths() -> Vec<(&'static str, Frame)> {
    let (me, you) = (IpAddr::V4(v4(1)), IpAddr::V4(v4(2)));
    let (me6, you6) = (IpAddr::V6(v6(1)), IpAddr::V6(v6(2)));
    let zero = Mac::from_u64(0);
    vec![
        ("an ARP request", mine().arp(1, (station(1), v4(1)), (zero, v4(2)))),
        ("an ARP reply", mine().arp(2, (station(1), v4(1)), (station(2), v4(2)))),
        ("an announcement", mine().arp(1, (station(1), v4(1)), (zero, v4(1)))),
        ("a probe", mine().arp(1, (station(1), Ipv4Addr::UNSPECIFIED), (zero, v4(1)))),
        ("UDP", mine().udp((me, 4000), (you, 53), b"x")),
        ("a DHCP client without an address", mine().udp((NOBODY_V4, 68), (EVERYBODY, 67), b"x")),
        ("a DHCP client with one", mine().udp((me, 68), (you, 67), b"x")),
        ("a ping", mine().echo_request(me, you, 1, b"x")),
        ("a ping of IPv6", mine().echo_request(me6, you6, 1, b"x")),
        ("a ping from link-local", mine().echo_request(link_local(1).into(), you6, 1, b"x")),
        ("a DHCPv6 client", mine().udp((link_local(1).into(), 546), (all_nodes().into(), 547), b"x")),
        ("a solicitation", nd(135, v6(1), v6(2), &named(1, 1))),
        ("duplicate address detection", nd(135, Ipv6Addr::UNSPECIFIED, v6(1), &[14, 1, 1, 2, 3, 4, 5, 6])),
        ("the same of link-local", nd(135, Ipv6Addr::UNSPECIFIED, link_local(1), &[])),
        ("an advertisement", nd(136, v6(1), v6(1), &named(2, 1))),
        ("an advertisement of link-local", nd(136, link_local(1), link_local(1), &named(2, 1))),
        (
            "a router solicitation",
            icmpv6(link_local(1), &[&[133, 0, 0, 0, 0, 0, 0, 0][..], &named(1, 1)].concat()),
        ),
        (
            "a report of groups without an address",
            behind(
                Ipv6Addr::UNSPECIFIED,
                0,
                &[&[58, 0, 5, 2, 0, 0, 1, 0][..], &[143, 0, 0, 0, 0, 0, 0, 0]].concat(),
            ),
        ),
        (
            "a first fragment with all its headers",
            behind(v6(1), 44, &[&[17, 0, 0, 1, 0, 0, 0, 7][..], &[0x0f, 0xa0, 0, 53, 0, 16, 0, 0]].concat()),
        ),
        ("a later fragment", behind(v6(1), 44, &[17, 0, 0, 9, 0, 0, 0, 7, 1, 2, 3])),
        ("something else", mine().payload(0x88b5, b"hello")),
    ]
}

/// What is not, and how it ends.
fn lies() -> Vec<(&'static str, Frame, DropReason)> {
    use DropReason::{
        DhcpServer, RouterAdvertisement, SpoofedArp, SpoofedIpv4, SpoofedIpv6, SpoofedMac, SpoofedNd,
    };
    let (me, you) = (IpAddr::V4(v4(1)), IpAddr::V4(v4(2)));
    let (me6, you6) = (IpAddr::V6(v6(1)), IpAddr::V6(v6(2)));
    let zero = Mac::from_u64(0);
    let nobody = Ipv6Addr::UNSPECIFIED;
    let routers_behind = |headers: &[u8]| [headers, &ROUTER].concat();
    vec![
        ("another MAC", Frame::new(Mac::BROADCAST, station(2)).udp((me, 1), (you, 2), b""), SpoofedMac),
        ("another MAC of no IP", Frame::new(station(3), station(2)).payload(0x88b5, b""), SpoofedMac),
        ("another MAC in ARP", mine().arp(2, (station(2), v4(1)), (station(3), v4(3))), SpoofedArp),
        ("another address in ARP", mine().arp(2, (station(1), v4(2)), (station(3), v4(3))), SpoofedArp),
        ("an announcement of another's", mine().arp(1, (station(1), v4(2)), (zero, v4(2))), SpoofedArp),
        (
            "a probe for another's",
            mine().arp(1, (station(1), Ipv4Addr::UNSPECIFIED), (zero, v4(2))),
            SpoofedArp,
        ),
        (
            "an answer from nobody",
            mine().arp(2, (station(1), Ipv4Addr::UNSPECIFIED), (zero, v4(1))),
            SpoofedArp,
        ),
        ("ARP cut short", mine().payload(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1]), SpoofedArp),
        ("another IPv4", mine().udp((you, 1), (me, 2), b""), SpoofedIpv4),
        ("nobody's IPv4", mine().udp((NOBODY_V4, 68), (you, 67), b""), SpoofedIpv4),
        ("nobody's ping", mine().echo_request(NOBODY_V4, EVERYBODY, 1, b""), SpoofedIpv4),
        ("IPv4 cut short", mine().payload(0x0800, &[0x45, 0, 0, 20]), SpoofedIpv4),
        ("a DHCP offer", mine().udp((me, 67), (EVERYBODY, 68), b"x"), DhcpServer),
        ("a DHCP offer in a server's name", mine().udp((you, 67), (EVERYBODY, 68), b"x"), DhcpServer),
        ("a DHCP offer from another port", mine().udp((me, 4000), (you, 68), b"x"), DhcpServer),
        ("a DHCPv6 reply", mine().udp((link_local(1).into(), 547), (you6, 546), b"x"), DhcpServer),
        ("a DHCPv6 reply from another port", mine().udp((me6, 4000), (you6, 546), b"x"), DhcpServer),
        (
            "a DHCPv6 reply behind options",
            behind(v6(1), 60, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &[2, 35, 2, 34, 0, 8, 0, 0]].concat()),
            DhcpServer,
        ),
        ("another IPv6", mine().echo_request(you6, me6, 1, b""), SpoofedIpv6),
        ("another's link-local", mine().echo_request(link_local(2).into(), you6, 1, b""), SpoofedIpv6),
        ("nobody's IPv6", mine().udp((nobody.into(), 1), (you6, 2), b""), SpoofedIpv6),
        ("a group's IPv6", mine().udp((all_nodes().into(), 1), (you6, 2), b""), SpoofedIpv6),
        ("nobody's advertisement", nd(136, nobody, v6(1), &named(2, 1)), SpoofedIpv6),
        ("nobody's later fragment", behind(nobody, 44, &[58, 0, 0, 9, 0, 0, 0, 7, 1]), SpoofedIpv6),
        (
            "a first fragment that hides its end",
            behind(v6(1), 44, &[60, 0, 0, 1, 0, 0, 0, 7, 58, 3, 1, 12, 0, 0, 0, 0]),
            SpoofedIpv6,
        ),
        (
            "a first fragment without its ports",
            behind(v6(1), 44, &[17, 0, 0, 1, 0, 0, 0, 7, 1, 2, 3, 4]),
            SpoofedIpv6,
        ),
        ("IPv6 cut short", mine().payload(0x86dd, &[0x60, 0, 0, 0]), SpoofedIpv6),
        ("an advertisement of another's address", nd(136, v6(1), v6(2), &named(2, 1)), SpoofedNd),
        ("an advertisement of another's MAC", nd(136, v6(1), v6(1), &named(2, 2)), SpoofedNd),
        ("a solicitation with another's MAC", nd(135, v6(1), v6(2), &named(1, 2)), SpoofedNd),
        (
            "another's MAC behind one's own",
            nd(135, v6(1), v6(2), &[named(1, 1), named(1, 2)].concat()),
            SpoofedNd,
        ),
        ("an option of length 0", nd(135, v6(1), v6(2), &[14, 0, 0, 0, 0, 0, 0, 0]), SpoofedNd),
        ("detection of another's duplicate", nd(135, nobody, v6(2), &[]), SpoofedNd),
        (
            "an advertisement in one fragment",
            behind(
                v6(1),
                44,
                &[&[58, 0, 0, 0, 0, 0, 0, 7, 136, 0, 0, 0, 0, 0, 0, 0][..], &v6(1).octets()].concat(),
            ),
            SpoofedNd,
        ),
        ("a router", icmpv6(link_local(1), &ROUTER), RouterAdvertisement),
        ("a router in another's name", icmpv6(link_local(2), &ROUTER), RouterAdvertisement),
        (
            "a redirect",
            icmpv6(link_local(1), &[&[137, 0, 0, 0, 0, 0, 0, 0][..], &[0; 32]].concat()),
            RouterAdvertisement,
        ),
        (
            "a router behind hop-by-hop options",
            behind(link_local(1), 0, &routers_behind(&[58, 0, 1, 4, 0, 0, 0, 0])),
            RouterAdvertisement,
        ),
        (
            "a router behind three headers",
            behind(
                link_local(1),
                0,
                &routers_behind(&[60, 0, 1, 4, 0, 0, 0, 0, 43, 0, 1, 4, 0, 0, 0, 0, 58, 0, 0, 0, 0, 0, 0, 0]),
            ),
            RouterAdvertisement,
        ),
        (
            "a router in a first fragment",
            behind(link_local(1), 44, &routers_behind(&[60, 0, 0, 1, 0, 0, 0, 7, 58, 0, 1, 4, 0, 0, 0, 0])),
            RouterAdvertisement,
        ),
    ]
}

#[test]
fn a_station_that_says_what_is_true_is_heard_by_everybody() {
    for (what, frame) in truths() {
        let passed = from(ACCESS, &frame.bytes());
        assert_eq!(passed.dropped, None, "{what}");
        assert_eq!(passed.sent.len(), 3, "{what}");
    }
}

#[test]
fn what_is_not_true_of_the_station_is_dropped_by_name_in_any_dress() {
    for (what, frame, reason) in lies() {
        assert_eq!(from(ACCESS, &frame.bytes()).dropped, Some(reason), "{what}");
        let dresses: [(u32, &[_]); 6] = [
            (TRUNK, &[]),
            (TRUNK, &[ctag(10, 3)]),
            (TRUNK, &[ctag(10, 0), ctag(0, 0)]),
            (TRUNK, &[stag(10, 0), ctag(0, 0), stag(0, 7), ctag(7, 0), ctag(0, 0)]),
            (CUSTOMER, &[ctag(7, 0), ctag(8, 0)]),
            (ACCESS, &[ctag(0, 5), ctag(0, 0), ctag(0, 0)]),
        ];
        for (port, tags) in dresses {
            let mut bytes = frame.clone().tags(tags).bytes();
            assert_eq!(from(port, &bytes).dropped, Some(reason), "{what} behind {tags:?}");
            // In 802.2 SNAP, behind a length that is true or is not.
            let at = 12 + 4 * tags.len();
            for length in [[0, 0], [0, 60], [5, 0xff]] {
                let mut wrapped = bytes.clone();
                wrapped.splice(at..at, [length[0], length[1], 0xaa, 0xaa, 3, 0, 0, 0]);
                assert_eq!(from(port, &wrapped).dropped, Some(reason), "{what} in SNAP {length:?}");
            }
            // Padding behind it changes nothing.
            bytes.resize(bytes.len().max(60), 0);
            assert_eq!(from(port, &bytes).dropped, Some(reason), "{what}, padded");
        }
        assert_eq!(from(OTHER, &frame.bytes()).dropped, None, "{what} from a port without a guard");
    }
}

#[test]
fn every_reason_is_among_what_the_lies_end_with() {
    for reason in SPOOFED {
        assert!(lies().iter().any(|(.., end)| *end == reason), "{reason}");
        assert!(reason.is_ingress());
    }
}

#[test]
fn frames_of_one_batch_are_each_held_against_the_guard() {
    let mut switch = switch();
    let arrival = Arrival::Port(PortId::new(ACCESS).unwrap());
    let (good, bad) = (truths()[4].1.bytes(), lies()[8].1.bytes());
    let frames = [&good, &bad, &good, &bad, &bad, &good].map(|frame| (arrival, frame.clone()));
    let sent = switch.pass_all(NOW, &frames);
    assert_eq!(sent.iter().filter(|(port, _)| port.get() == OTHER).count(), 3);
    let counts = switch.worker().counters().port(PortId::new(ACCESS).unwrap());
    assert_eq!((counts.rx_frames, counts.dropped[DropReason::SpoofedIpv4.index()]), (6, 3));
}

#[test]
fn what_the_switch_says_itself_in_a_stations_name_is_not_held_against_it() {
    let frame = Frame::new(Mac::BROADCAST, station(2)).arp(1, (station(2), v4(2)), (Mac::from_u64(0), v4(2)));
    let arrival = Arrival::Port(PortId::new(ACCESS).unwrap());
    let (sent, dropped) = switch().resume(NOW, arrival, &frame.bytes());
    assert_eq!((sent.len(), dropped), (3, None));
}

#[test]
fn the_story_of_a_refused_frame_tells_the_rule_and_what_would_have_been_right() {
    let told = |frame: &Frame| {
        let story = from(ACCESS, &frame.bytes()).story;
        let texts: Vec<String> =
            story.steps.iter().map(|step| step.text(&|_| "\"pod\"".to_owned())).collect();
        texts[texts.len() - 2..].join("\n")
    };
    assert_eq!(
        told(&Frame::new(Mac::BROADCAST, station(2)).payload(0x88b5, b"")),
        "port \"pod\" may not say that: the source MAC is 02:00:00:00:00:02; its own is 02:00:00:00:00:01\n\
         dropped at port \"pod\": the source MAC is not the port's, and anti_spoof is on (spoofed_mac)"
    );
    let first = |frame: &Frame| told(frame).lines().next().unwrap().to_owned();
    assert_eq!(
        first(&mine().udp((v4(2).into(), 1), (v4(1).into(), 2), b"")),
        "port \"pod\" may not say that: the IPv4 source is 10.0.0.2; its own are 10.0.0.1"
    );
    assert_eq!(
        first(&nd(136, v6(1), v6(2), &[])),
        "port \"pod\" may not say that: the Neighbor Discovery message claims address fd00::2; its own are fd00::1, \
         fe80::ff:fe00:1"
    );
    assert_eq!(
        first(&icmpv6(link_local(1), &ROUTER)),
        "port \"pod\" may not say that: ICMPv6 type 134 is a router's"
    );
    assert_eq!(
        first(&mine().udp((v4(1).into(), 67), (EVERYBODY, 68), b"")),
        "port \"pod\" may not say that: UDP from port 67 to port 68 is a DHCP server's"
    );
}

#[test]
fn a_guard_without_addresses_lets_nobody_speak_ip_who_has_none_and_one_of_all_lets_all() {
    let with = |addresses: Vec<(IpAddr, u8)>, frame: &Frame| {
        let mut port = Port::new(PortId::new(1).unwrap(), Attachment::Access(ten()));
        port.guard = Some(Arc::new(Guard { mac: station(1), addresses }));
        let other = Port::new(PortId::new(2).unwrap(), Attachment::Access(ten()));
        Driven::new(&Spec::new(vec![port, other])).pass(
            NOW,
            Arrival::Port(PortId::new(1).unwrap()),
            &frame.bytes(),
        )
    };
    let all = || vec![(NOBODY_V4, 0), (Ipv6Addr::UNSPECIFIED.into(), 0)];
    let packet = |source: IpAddr, to: IpAddr| {
        Frame::new(station(2), station(1))
            .payload(if source.is_ipv4() { 0x0800 } else { 0x86dd }, &ip(source, to, 59, b""))
    };
    for (source, to) in [(v4(7).into(), v4(8).into()), (v6(7).into(), v6(8).into())] {
        assert!(with(vec![], &packet(source, to)).dropped.is_some(), "{source}");
        assert_eq!(with(all(), &packet(source, to)).dropped, None, "{source}");
    }
    for nobody in [IpAddr::from([0; 4]), IpAddr::from([224, 0, 0, 1]), all_nodes().into(), EVERYBODY] {
        assert!(with(all(), &packet(nobody, nobody)).dropped.is_some(), "{nobody}");
    }
    assert_eq!(with(vec![], &truths()[5].1).dropped, None, "who looks for an address may");
    assert_eq!(with(all(), &icmpv6(link_local(1), &ROUTER)).dropped, Some(DropReason::RouterAdvertisement));
}
