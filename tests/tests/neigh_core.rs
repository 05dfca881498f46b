//! What the core hands out and to whom it floods, rule by rule: questions where an address is, statements, probes,
//! and the VNIs that a peer hosts.
//!
//! Not here: answers (the daemon's slow path), random configurations (see `switch.rs`), many nodes (see
//! `fabric_large.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::port::{Attachment, Carries, Segment, VlanSet};
use vswitch_core::switch::Step;
use vswitch_core::verdict::Why;
use vswitch_core::wire::{probe, vxlan as header};
use vswitch_core::{Arrival, DropReason, Instant, Mac, Port, PortId, Verdict, Vlan, Vni};
use vswitch_tests::driven::{Driven, Passed, from_peer};
use vswitch_tests::frames::{Frame, ctag, stag, station, vxlan};
use vswitch_tests::reference::Spec;

const ACCESS: u32 = 1;
const OTHER: u32 = 2;
const TRUNK: u32 = 3;
const CUSTOMER: u32 = 4;
const PEER: u32 = 8;
const NOW: Instant = Instant::from_secs(1);

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn ten() -> Vlan {
    Vlan::new(10).unwrap()
}

fn vni() -> Vni {
    Vni::new(10_010).unwrap()
}

fn remote(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

/// Two access ports and a customer's of VLAN 10, a trunk, and two peers.
fn spec() -> Spec {
    let mut spec = Spec::new(vec![
        Port::new(id(ACCESS), Attachment::Access(ten())),
        Port::new(id(OTHER), Attachment::Access(ten())),
        Port::new(id(TRUNK), Attachment::trunk_all()),
        Port::new(id(CUSTOMER), Attachment::dot1q_tunnel(ten(), None)),
        Port::peer(id(PEER), remote(8), 4789, 1500),
        Port::peer(id(PEER + 1), remote(9), 4789, 1500),
    ]);
    spec.bridges[0].vnis.insert(ten(), vni());
    spec.bridges[0].neigh_suppress = true;
    spec
}

fn switch() -> Driven {
    Driven::new(&spec())
}

fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 10, 0, n)
}

fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, n)
}

/// Station 1 asks for the address of station 2.
fn arp_question() -> Frame {
    let nobody = (Mac::from_u64(0), v4(2));
    Frame::new(Mac::BROADCAST, station(1)).arp(1, (station(1), v4(1)), nobody)
}

fn solicitation() -> Frame {
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2);
    let source = [&[1, 1][..], &station(1).bytes()].concat();
    Frame::new("33:33:ff:00:00:02".parse().unwrap(), station(1)).neighbour(
        (135, 0),
        (v6(1), group),
        v6(2),
        &source,
    )
}

fn arp_answer() -> Frame {
    Frame::new(station(2), station(1)).arp(2, (station(1), v4(1)), (station(2), v4(2)))
}

fn advertisement() -> Frame {
    Frame::new(station(2), station(1)).neighbour((136, 0x60), (v6(1), v6(2)), v6(1), &[])
}

fn announcement() -> Frame {
    Frame::new(Mac::BROADCAST, station(1)).arp(1, (station(1), v4(1)), (Mac::from_u64(0), v4(1)))
}

fn pass(switch: &mut Driven, port: u32, frame: &Frame) -> Passed {
    switch.pass(NOW, Arrival::Port(id(port)), &frame.bytes())
}

fn whys(passed: &Passed) -> Vec<Why> {
    passed.punts.iter().map(|punt| punt.why).collect()
}

fn ports(sent: &[(PortId, Vec<u8>)]) -> Vec<u32> {
    sent.iter().map(|sent| sent.0.get()).collect()
}

#[test]
fn a_question_is_handed_out_instead_of_flooded_and_teaches_all_the_same() {
    for question in [arp_question(), solicitation()] {
        let mut switch = switch();
        let passed = pass(&mut switch, ACCESS, &question);
        assert_eq!((whys(&passed), ports(&passed.sent)), (vec![Why::Neigh], vec![]));
        assert_eq!((passed.dropped, passed.story.verdict), (None, Verdict::Punt(Why::Neigh)));
        let punt = passed.punts[0];
        assert_eq!((punt.frame, punt.from, punt.port), (0, 0, id(ACCESS)));
        let segment = Segment::new(0, ten()).unwrap();
        assert_eq!(switch.macs().lookup(NOW, segment, station(1)), Some(id(ACCESS)));
        assert_eq!(switch.worker().counters().port(id(ACCESS)).rx_frames, 1);
    }
}

#[test]
fn what_found_no_answer_goes_where_it_would_have_gone_and_is_received_once() {
    for question in [arp_question(), solicitation()] {
        let (mut suppressing, mut plain) = (switch(), spec());
        plain.bridges[0].neigh_suppress = false;
        let flooded = pass(&mut Driven::new(&plain), ACCESS, &question);
        assert_eq!(ports(&flooded.sent), [OTHER, TRUNK, CUSTOMER, PEER, PEER + 1]);
        pass(&mut suppressing, ACCESS, &question);
        let (sent, dropped) = suppressing.resume(NOW, Arrival::Port(id(ACCESS)), &question.bytes());
        assert_eq!((sent, dropped), (flooded.sent, None));
        assert_eq!(suppressing.worker().counters().port(id(ACCESS)).rx_frames, 1);
    }
}

#[test]
fn what_the_switch_says_for_a_station_teaches_where_the_station_is() {
    let mut switch = switch();
    let (sent, _) = switch.resume(NOW, Arrival::Port(id(ACCESS)), &announcement().bytes());
    assert_eq!(ports(&sent), [OTHER, TRUNK, CUSTOMER, PEER, PEER + 1]);
    assert_eq!(ports(&pass(&mut switch, OTHER, &Frame::new(station(1), station(2))).sent), [ACCESS]);
    assert_eq!(switch.worker().counters().port(id(ACCESS)).rx_frames, 0);
    // What cannot leave is counted like any other frame's end.
    let unknown = switch.resume(NOW, Arrival::Port(id(77)), &announcement().bytes());
    assert_eq!(unknown, (vec![], Some(DropReason::NoSuchPort)));
}

#[test]
fn a_statement_goes_its_way_and_a_copy_is_handed_out() {
    for (frame, heard) in [
        (arp_answer(), vec![OTHER]),
        (advertisement(), vec![OTHER]),
        (announcement(), vec![OTHER, TRUNK, CUSTOMER, PEER, PEER + 1]),
    ] {
        let mut switch = switch();
        pass(&mut switch, OTHER, &Frame::new(Mac::BROADCAST, station(2)));
        let passed = pass(&mut switch, ACCESS, &frame);
        assert_eq!((whys(&passed), ports(&passed.sent)), (vec![Why::NeighSeen], heard));
        assert!(passed.story.steps.contains(&Step::Punted(Why::NeighSeen)));
    }
}

#[test]
fn of_a_train_of_one_flow_only_the_first_frame_is_looked_at() {
    let mut switch = switch();
    pass(&mut switch, OTHER, &Frame::new(Mac::BROADCAST, station(2)));
    pass(&mut switch, ACCESS, &Frame::new(Mac::BROADCAST, station(1)));
    let frames = vec![(Arrival::Port(id(ACCESS)), arp_answer().bytes()); 5];
    assert_eq!(switch.pass_all(NOW, &frames).len(), 5);
    assert_eq!(switch.worker().punts().len(), 1);
    // Questions have no such memory: each may be another's.
    let frames = vec![(Arrival::Port(id(ACCESS)), arp_question().bytes()); 5];
    assert_eq!(switch.pass_all(NOW, &frames).len(), 0);
    let punted: Vec<usize> = switch.worker().punts().iter().map(|punt| punt.frame).collect();
    assert_eq!(punted, [0, 1, 2, 3, 4]);
}

#[test]
fn nobody_looks_behind_a_customers_tag_at_a_peers_frames_or_into_flooded_vlans() {
    let question = arp_question();
    for (port, frame, expected) in [
        (TRUNK, question.clone().tag(ctag(10, 5)), vec![Why::Neigh]),
        (ACCESS, question.clone().tag(ctag(0, 5)), vec![Why::Neigh]),
        (CUSTOMER, question.clone(), vec![Why::Neigh]),
        (TRUNK, question.clone().tag(ctag(10, 0)).tag(ctag(7, 0)), vec![]),
        (TRUNK, question.clone().tag(stag(10, 0)).tag(ctag(0, 0)), vec![]),
        (CUSTOMER, question.clone().tag(ctag(7, 0)), vec![]),
    ] {
        assert_eq!(whys(&pass(&mut switch(), port, &frame)), expected, "{frame:?}");
    }
    for frame in [question.clone(), arp_answer(), solicitation()] {
        let passed = switch().pass(NOW, from_peer(remote(8)), &vxlan(vni(), &frame.bytes()));
        assert_eq!(whys(&passed), []);
        assert_eq!(ports(&passed.sent)[..2], [ACCESS, OTHER]);
    }
    let (mut flooding, mut off) = (spec(), spec());
    flooding.bridges[0].flood_vlans = VlanSet::from_iter([ten()]);
    off.bridges[0].neigh_suppress = false;
    for spec in [flooding, off] {
        for frame in [question.clone(), announcement()] {
            let passed = pass(&mut Driven::new(&spec), ACCESS, &frame);
            assert_eq!((whys(&passed), passed.sent.len()), (vec![], 5));
        }
    }
}

fn a_probe() -> Vec<u8> {
    let mut probe = [&header::OAM_HEADER[..], &probe::MAGIC].concat();
    probe.resize(1472, 0);
    probe
}

#[test]
fn a_members_probe_is_handed_out_whole_and_is_no_frame() {
    for strict in [false, true] {
        let mut spec = spec();
        let peer = spec.ports.iter_mut().find(|port| port.id == id(PEER)).unwrap();
        if let Attachment::Tunnel(tunnel) = &mut peer.attachment {
            tunnel.strict = strict;
        }
        let mut switch = Driven::new(&spec);
        let before = switch.worker().counters().clone();
        let passed = switch.pass(NOW, from_peer(remote(8)), &a_probe());
        assert_eq!((passed.dropped, passed.story.verdict), (None, Verdict::Punt(Why::Probe)));
        let punt = passed.punts[0];
        assert_eq!((punt.frame, punt.from, punt.port, punt.why), (0, 0, id(PEER), Why::Probe));
        assert_eq!(*switch.worker().counters(), before);
        assert!(switch.macs().is_empty());
    }
}

#[test]
fn what_only_looks_like_a_probe_ends_as_before() {
    let with = |at: usize, value: u8| {
        let mut bytes = a_probe();
        bytes[at] = value;
        bytes
    };
    for (name, from, datagram, reason) in [
        ("a stranger's", 77, a_probe(), DropReason::UnknownPeer),
        ("the I flag set", 8, with(0, 9), DropReason::UnknownVni),
        ("no flag at all", 8, with(0, 0), DropReason::VxlanNoVni),
        ("another magic", 8, with(9, b'v'), DropReason::VxlanNoVni),
        ("a byte short", 8, a_probe()[..probe::MIN_LEN - 1].to_vec(), DropReason::VxlanNoVni),
        ("no whole header", 8, a_probe()[..7].to_vec(), DropReason::VxlanShort),
    ] {
        let passed = switch().pass(NOW, from_peer(remote(from)), &datagram);
        assert_eq!((passed.dropped, whys(&passed)), (Some(reason), vec![]), "{name}");
    }
}

#[test]
fn nothing_that_a_port_sends_reaches_a_peer_as_a_probe() {
    let mut switch = switch();
    for frame in
        [Frame::new(Mac::BROADCAST, station(1)).bytes(), [&[0xff; 12][..], &a_probe()[..1400]].concat()]
    {
        let passed = switch.pass(NOW, Arrival::Port(id(ACCESS)), &frame);
        let datagrams = passed.sent.iter().filter(|sent| sent.0.get() >= PEER);
        assert!(datagrams.clone().count() > 0);
        assert!(datagrams.clone().all(|(_, bytes)| !probe::is_probe(bytes)));
    }
}

#[test]
fn a_peer_hears_no_floods_of_a_vni_it_does_not_host_and_is_reached_in_it_all_the_same() {
    let mut spec = spec();
    let peer = spec.ports.iter_mut().find(|port| port.id == id(PEER)).unwrap();
    if let Attachment::Tunnel(tunnel) = &mut peer.attachment {
        tunnel.floods = Some(vec![]);
    }
    let mut switch = Driven::new(&spec);
    let flooded = pass(&mut switch, ACCESS, &Frame::new(Mac::BROADCAST, station(1)));
    assert_eq!(ports(&flooded.sent), [OTHER, TRUNK, CUSTOMER, PEER + 1]);
    // It has a station there after all, as its own flood shows.
    let datagram = vxlan(vni(), &Frame::new(Mac::BROADCAST, station(2)).bytes());
    assert_eq!(
        ports(&switch.pass(NOW, from_peer(remote(8)), &datagram).sent),
        [ACCESS, OTHER, TRUNK, CUSTOMER]
    );
    assert_eq!(ports(&pass(&mut switch, ACCESS, &Frame::new(station(2), station(1))).sent), [PEER]);
}

#[test]
fn a_peer_that_shares_some_vnis_is_not_sent_the_floods_of_others_that_it_says_it_hosts() {
    let mut spec = spec();
    let peer = spec.ports.iter_mut().find(|port| port.id == id(PEER)).unwrap();
    if let Attachment::Tunnel(tunnel) = &mut peer.attachment {
        tunnel.carries = Carries::PerVni(Some(vec![Vni::new(5).unwrap()]));
        tunnel.floods = Some(vec![vni()]);
    }
    let mut switch = Driven::new(&spec);
    let flooded = pass(&mut switch, ACCESS, &Frame::new(Mac::BROADCAST, station(1)));
    assert_eq!(ports(&flooded.sent), [OTHER, TRUNK, CUSTOMER, PEER + 1]);
    let datagram = vxlan(vni(), &Frame::new(Mac::BROADCAST, station(2)).bytes());
    let passed = switch.pass(NOW, from_peer(remote(8)), &datagram);
    assert_eq!(passed.dropped, Some(DropReason::VniNotShared));
}

#[test]
fn the_story_of_a_frame_tells_what_is_handed_out_and_why() {
    let told = |port, frame: &Frame| {
        let story = pass(&mut switch(), port, frame).story;
        story.steps.last().map(|step| step.text(&|port| port.to_string())).unwrap()
    };
    assert_eq!(
        told(ACCESS, &arp_question()),
        "asks where an address is: answered here where the station is known, flooded where it is not"
    );
    let story = pass(&mut switch(), ACCESS, &announcement()).story;
    let texts: Vec<String> = story.steps.iter().map(|step| step.text(&|port| port.to_string())).collect();
    assert!(texts.contains(&"says where an address is: noted".to_owned()), "{texts:?}");
    let story = switch().pass(NOW, from_peer(remote(8)), &a_probe()).story;
    assert_eq!(
        story.steps.iter().map(|step| step.text(&|port| port.to_string())).collect::<Vec<_>>(),
        ["a probe of the path, not a frame: answered by the node itself"]
    );
}
