//! VXLAN by the core, rule by rule of RFC 7348 and of the house.
//!
//! Not here: sockets, source ports and fragments, which are the daemon's; random configurations (see `switch.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::net::IpAddr;
use vswitch_core::offload::{Checksum, Gso, GsoKind};
use vswitch_core::port::{Carries, Group, InnerVlan};
use vswitch_core::verdict::Why;
use vswitch_core::wire::vlan::{Priority, Tag};
use vswitch_core::{Arrival, Attachment, DropReason, Instant, Mac, Offload, Port, PortId, Vlan, Vni};
use vswitch_tests::driven::{Driven, Passed, from_peer};
use vswitch_tests::frames::{
    Frame, Tcp, ctag, describe_all, hex, protocol, pseudo_header, stag, station, tcp_flag, vxlan,
};
use vswitch_tests::reference::Spec;
use vswitch_tests::rng::Rng;
use vswitch_tests::vxlan_body::{ACCESS, OTHER_VNI, TRUNK, VNI, peer, spec, vxlan_body};

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap()
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn plain() -> Frame {
    Frame::new(Mac::BROADCAST, station(1))
}

fn from_local(switch: &mut Driven, port: u32, frame: &Frame) -> Passed {
    switch.pass(Instant::ZERO, Arrival::Port(id(port)), &frame.bytes())
}

fn from_remote(switch: &mut Driven, n: u8, datagram: &[u8]) -> Passed {
    switch.pass(Instant::ZERO, from_peer(peer(n)), datagram)
}

fn ports(passed: &Passed) -> Vec<u32> {
    passed.sent.iter().map(|sent| sent.0.get()).collect()
}

fn strip() -> Driven {
    Driven::new(&spec(InnerVlan::Strip, false))
}

fn carry() -> Driven {
    Driven::new(&spec(InnerVlan::Carry, false))
}

#[test]
fn a_datagram_ends_as_its_header_says() {
    let good = vxlan(vni(VNI), &plain().bytes());
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let cases = [
        ("a good one", good.clone(), None, None),
        ("the I flag clear", with(0, 0), Some(DropReason::VxlanNoVni), Some(DropReason::VxlanNoVni)),
        ("every flag but I", with(0, 0xf7), Some(DropReason::VxlanNoVni), Some(DropReason::VxlanNoVni)),
        ("every flag", with(0, 0xff), None, Some(DropReason::VxlanReserved)),
        ("GPE's next protocol", with(3, 3), None, Some(DropReason::VxlanReserved)),
        ("GBP's group", with(2, 1), None, Some(DropReason::VxlanReserved)),
        ("the last reserved byte", with(7, 1), None, Some(DropReason::VxlanReserved)),
        ("another VNI", with(6, 9), Some(DropReason::UnknownVni), Some(DropReason::UnknownVni)),
        ("nothing", vec![], Some(DropReason::VxlanShort), Some(DropReason::VxlanShort)),
        ("seven bytes", good[..7].to_vec(), Some(DropReason::VxlanShort), Some(DropReason::VxlanShort)),
        ("a header alone", good[..8].to_vec(), Some(DropReason::ShortFrame), Some(DropReason::ShortFrame)),
        ("13 bytes inside", good[..21].to_vec(), Some(DropReason::ShortFrame), Some(DropReason::ShortFrame)),
        ("14 bytes inside", good[..22].to_vec(), None, None),
    ];
    for (name, datagram, by_rfc, by_strict) in cases {
        for (strict, expected) in [(false, by_rfc), (true, by_strict)] {
            let mut switch = Driven::new(&spec(InnerVlan::Strip, strict));
            let passed = from_remote(&mut switch, 0, &datagram);
            assert_eq!(passed.dropped, expected, "{name}, strict {strict}");
            assert_eq!(
                switch.macs().is_empty(),
                expected.is_some(),
                "{name}: what is refused teaches nothing"
            );
        }
    }
}

#[test]
fn every_single_reserved_bit_is_ignored_by_the_rfc_and_refused_by_strict() {
    let good = vxlan(vni(VNI), &plain().bytes());
    for bit in (0..64).filter(|bit| *bit != 4 && !(32..56).contains(bit)) {
        let mut datagram = good.clone();
        datagram[bit / 8] ^= 0x80 >> (bit % 8);
        for strict in [false, true] {
            let mut switch = Driven::new(&spec(InnerVlan::Strip, strict));
            let passed = from_remote(&mut switch, 2, &datagram);
            assert_eq!(passed.dropped, strict.then_some(DropReason::VxlanReserved), "bit {bit}");
        }
    }
}

#[test]
fn strangers_and_segments_that_are_not_shared_are_refused_by_name() {
    let mut switch = strip();
    let stranger = switch.pass(
        Instant::ZERO,
        from_peer(IpAddr::from([203, 0, 113, 1])),
        &vxlan(vni(VNI), &plain().bytes()),
    );
    assert_eq!(stranger.dropped, Some(DropReason::UnknownPeer));
    assert_eq!(switch.worker().counters().no_port[DropReason::UnknownPeer.index()], 1);
    // A stranger's garbage is a stranger's first of all.
    let garbage = switch.pass(Instant::ZERO, from_peer(IpAddr::from([203, 0, 113, 1])), &[1]);
    assert_eq!(garbage.dropped, Some(DropReason::UnknownPeer));
    let not_shared = from_remote(&mut switch, 1, &vxlan(vni(OTHER_VNI), &plain().bytes()));
    assert_eq!(not_shared.dropped, Some(DropReason::VniNotShared));
    assert_eq!(switch.worker().counters().port(id(41)).dropped[DropReason::VniNotShared.index()], 1);
    assert!(switch.macs().is_empty());
    assert_eq!(ports(&from_remote(&mut switch, 0, &vxlan(vni(OTHER_VNI), &plain().bytes()))), [TRUNK]);
    // An IPv4 peer as an IPv6 socket shows it is the same peer.
    let IpAddr::V4(v4) = peer(1) else { panic!() };
    let mapped = from_peer(v4.to_ipv6_mapped().into());
    let passed = switch.pass(Instant::ZERO, mapped, &vxlan(vni(VNI), &plain().bytes()));
    assert_eq!(ports(&passed), [ACCESS, TRUNK]);
}

#[test]
fn a_flood_goes_once_to_each_peer_of_that_vni_and_to_no_other() {
    let mut switch = strip();
    assert_eq!(ports(&from_local(&mut switch, ACCESS, &plain())), [TRUNK, 40, 41, 42, 43]);
    let in_20 = from_local(&mut switch, TRUNK, &plain().tag(ctag(20, 0)));
    assert_eq!(ports(&in_20), [40, 42, 43], "the second peer does not share VLAN 20");
    for (_, datagram) in &in_20.sent {
        assert_eq!(hex(datagram), hex(&vxlan(vni(OTHER_VNI), &plain().bytes())));
    }
    // A VLAN without a VNI stays at home.
    assert_eq!(ports(&from_local(&mut switch, TRUNK, &plain().tag(ctag(30, 0)))), [0; 0]);
    // A peer with an empty list hears nothing.
    let mut spec = spec(InnerVlan::Strip, false);
    for port in spec.ports.iter_mut().filter(|port| port.id == id(42)) {
        let Attachment::Tunnel(tunnel) = &mut port.attachment else { panic!() };
        tunnel.carries = Carries::PerVni(Some(Vec::new()));
    }
    let mut switch = Driven::new(&spec);
    assert_eq!(ports(&from_local(&mut switch, ACCESS, &plain())), [TRUNK, 40, 41, 43]);
}

#[test]
fn what_came_from_a_peer_never_leaves_to_a_peer() {
    let mut switch = strip();
    let to = |dst: u32, src: u32| vxlan(vni(VNI), &Frame::new(station(dst), station(src)).bytes());
    assert_eq!(ports(&from_remote(&mut switch, 0, &vxlan(vni(VNI), &plain().bytes()))), [ACCESS, TRUNK]);
    // Station 2 is behind peer 2; a frame for it from peer 0 went astray.
    assert_eq!(ports(&from_remote(&mut switch, 2, &to(99, 2))), [ACCESS, TRUNK]);
    assert_eq!(from_remote(&mut switch, 0, &to(2, 1)).dropped, Some(DropReason::SplitHorizon));
    // Without a local port in the segment a flood ends there as well.
    let mut lonely = spec(InnerVlan::Strip, false);
    lonely.ports.retain(|port| port.id.get() >= 40);
    let flood = from_remote(&mut Driven::new(&lonely), 0, &vxlan(vni(VNI), &plain().bytes()));
    assert_eq!(flood.dropped, Some(DropReason::SplitHorizon));
    // A tunnel in no group is an ordinary port.
    let mut chained = spec(InnerVlan::Strip, false);
    chained.ports.iter_mut().filter(|p| p.id == id(43)).for_each(|p| p.group = Group::NONE);
    let passed = from_remote(&mut Driven::new(&chained), 0, &vxlan(vni(VNI), &plain().bytes()));
    assert_eq!(ports(&passed), [ACCESS, TRUNK, 43]);
}

#[test]
fn the_outside_of_a_datagram_is_eight_bytes_of_header_and_the_frame() {
    let mut switch = strip();
    let passed = from_local(&mut switch, TRUNK, &plain().tag(ctag(20, 0)));
    let datagram = &passed.sent[0].1;
    assert_eq!(datagram[..8], [0x08, 0, 0, 0, 0xff, 0xff, 0xff, 0]);
    assert_eq!(datagram[8..], plain().bytes());
}

#[test]
fn one_flow_has_one_hash_and_many_flows_have_many() {
    let mut switch = strip();
    let flow = |n: u16, data: &[u8]| {
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        Frame::new(station(2), station(1)).udp((a, 1000 + n), (b, 53), data)
    };
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..256 {
        let a = from_local(&mut switch, ACCESS, &flow(n, b"one"));
        let b = from_local(&mut switch, ACCESS, &flow(n, b"another, longer"));
        let c = from_local(&mut switch, TRUNK, &flow(n, b"tagged").tag(ctag(20, 5)));
        let of = |passed: &Passed| {
            let peers = passed.sent.iter().zip(&passed.facts).filter(|(sent, _)| sent.0.get() >= 40);
            let mut all: Vec<u32> = peers.map(|(_, fact)| fact.1).collect();
            all.dedup();
            assert_eq!(all.len(), 1, "the copies of one frame have one hash");
            all[0]
        };
        assert_eq!((of(&a), of(&a)), (of(&b), of(&c)));
        seen.insert(of(&a) % 16);
    }
    assert_eq!(seen.len(), 16, "256 flows meet every one of 16 source ports");
}

#[test]
fn without_carry_tags_inside_are_stripped_on_the_way_out_and_refused_on_the_way_in() {
    let mut switch = strip();
    for tag in [ctag(0, 0), ctag(0, 5), ctag(7, 0), stag(100, 3)] {
        let tagged = plain().tag(tag).bytes();
        let passed = from_remote(&mut switch, 0, &vxlan(vni(VNI), &tagged));
        assert_eq!(passed.dropped, Some(DropReason::InnerVlan), "{tag:?}");
    }
    // The VLAN's own tag, a priority tag, and a priority tag inside the VLAN's are stripped.
    let bare = vxlan(vni(VNI), &plain().bytes());
    for (port, tags) in
        [(TRUNK, vec![ctag(10, 5)]), (ACCESS, vec![ctag(0, 5)]), (TRUNK, vec![ctag(10, 5), ctag(0, 1)])]
    {
        let passed = from_local(&mut switch, port, &plain().tags(&tags));
        let peers: Vec<_> = passed.sent.into_iter().filter(|sent| sent.0.get() >= 40).collect();
        assert_eq!(peers.len(), 4, "{tags:?}");
        assert!(peers.iter().all(|(_, datagram)| *datagram == bare), "{tags:?}\n{}", describe_all(&peers));
    }
    // A customer's VLAN is not ours to lose.
    let customer = from_local(&mut switch, TRUNK, &plain().tag(ctag(10, 0)).tag(ctag(7, 0)));
    assert_eq!(ports(&customer), [ACCESS]);
}

/// A trunk to a trunk over VXLAN with `carry`: every tag as it was.
#[test]
fn with_carry_priority_and_customer_tags_cross_whole() {
    let stacks: Vec<Vec<Tag>> = vec![
        vec![ctag(10, 0)],
        vec![ctag(10, 5)],
        vec![Tag::new(0x8100, Priority::new(3, true).unwrap(), 10)],
        vec![Tag::new(0x8100, Priority::new(0, true).unwrap(), 10)],
        vec![ctag(10, 0), ctag(7, 2)],
        vec![ctag(10, 6), stag(7, 2), ctag(8, 1)],
        vec![ctag(10, 0), ctag(0, 4)],
        vec![ctag(10, 2), ctag(0, 4), ctag(9, 0)],
    ];
    for tags in stacks {
        let (mut near, mut far) = (carry(), carry());
        let sent = plain().tags(&tags).bytes();
        let passed = near.pass(Instant::ZERO, Arrival::Port(id(TRUNK)), &sent);
        let (_, datagram) = passed.sent.iter().find(|sent| sent.0 == id(42)).unwrap();
        let arrived = from_remote(&mut far, 0, datagram);
        let (_, bytes) = arrived.sent.iter().find(|sent| sent.0 == id(TRUNK)).unwrap();
        assert_eq!(describe_all(&[(2, bytes.clone())]), describe_all(&[(2, sent.clone())]));
        assert_eq!(hex(bytes), hex(&sent));
    }
    // What has no tag inside travels without one.
    let passed = from_local(&mut carry(), ACCESS, &plain());
    assert_eq!(passed.sent.last().unwrap().1, vxlan(vni(VNI), &plain().bytes()));
}

fn one_peer(remote: IpAddr, mtu: u16, inner_vlan: InnerVlan) -> Driven {
    let mut spec = Spec::new(vec![
        Port::new(id(ACCESS), Attachment::Access(vlan(10))),
        Port::new(id(TRUNK), Attachment::trunk_all()),
        Port::peer(id(40), remote, 4789, mtu),
    ]);
    if let Some(Attachment::Tunnel(tunnel)) = spec.ports.last_mut().map(|port| &mut port.attachment) {
        tunnel.inner_vlan = inner_vlan;
    }
    spec.bridges[0].vnis.insert(vlan(10), vni(VNI));
    Driven::new(&spec)
}

#[test]
fn a_frame_that_does_not_fit_the_path_is_counted_and_its_sender_told_what_fits() {
    let v4 = IpAddr::from([192, 0, 2, 1]);
    let v6 = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
    // Outer IP 20 or 40, UDP 8, VXLAN 8, inner Ethernet 14: an inner IP packet of MTU - 50 or MTU - 70 fits.
    for (remote, mtu, fits) in
        [(v4, 1500u16, 1450usize), (v6, 1500, 1430), (v4, 9000, 8950), (v6, 1280, 1210)]
    {
        for (port, tags) in [(ACCESS, vec![]), (TRUNK, vec![ctag(10, 0)]), (ACCESS, vec![ctag(0, 3)])] {
            let mut switch = one_peer(remote, mtu, InnerVlan::Strip);
            switch.macs().add_static(segment(), station(9), id(40)).unwrap();
            let frame =
                |len: usize| Frame::new(station(9), station(1)).tags(&tags).payload(0x0800, &vec![0x45; len]);
            let passed = from_local(&mut switch, port, &frame(fits));
            assert_eq!((ports(&passed), passed.punts.len()), (vec![40], 0), "{remote} {mtu} {tags:?}");
            assert_eq!(passed.sent[0].1.len() + 28 + if remote.is_ipv6() { 20 } else { 0 }, usize::from(mtu));
            let passed = from_local(&mut switch, port, &frame(fits + 1));
            assert_eq!(passed.dropped, Some(DropReason::TooBig));
            let [punt] = passed.punts[..] else { panic!("{:?}", passed.punts) };
            assert_eq!((punt.port, punt.from), (id(port), 0));
            assert_eq!(punt.why, Why::TooBig { mtu: u16::try_from(fits).unwrap() });
            assert_eq!(switch.worker().counters().port(id(40)).dropped[DropReason::TooBig.index()], 1);
        }
    }
}

fn segment() -> vswitch_core::Segment {
    vswitch_core::Segment::new(0, vlan(10)).unwrap()
}

#[test]
fn tags_that_travel_inside_take_their_four_bytes_from_what_fits() {
    let mut switch = one_peer(IpAddr::from([192, 0, 2, 1]), 1500, InnerVlan::Carry);
    switch.macs().add_static(segment(), station(9), id(40)).unwrap();
    for (tags, fits) in [
        (vec![ctag(10, 0)], 1450),
        (vec![ctag(10, 5)], 1446),
        (vec![ctag(10, 0), ctag(7, 0)], 1446),
        (vec![ctag(10, 5), ctag(7, 0)], 1442),
    ] {
        let frame =
            |len: usize| Frame::new(station(9), station(1)).tags(&tags).payload(0x0800, &vec![0x45; len]);
        assert_eq!(ports(&from_local(&mut switch, TRUNK, &frame(fits))), [40], "{tags:?}");
        let passed = from_local(&mut switch, TRUNK, &frame(fits + 1));
        let mtu = u16::try_from(fits).unwrap();
        assert_eq!(passed.punts.first().map(|punt| punt.why), Some(Why::TooBig { mtu }), "{tags:?}");
    }
}

#[test]
fn a_flood_too_big_for_peers_still_reaches_local_ports_and_asks_nothing() {
    let mut switch = one_peer(IpAddr::from([192, 0, 2, 1]), 1500, InnerVlan::Strip);
    let big = plain().payload(0x0800, &[0x45; 1451]);
    let passed = from_local(&mut switch, ACCESS, &big);
    assert_eq!((ports(&passed), passed.punts.len()), (vec![TRUNK], 0), "never an answer to a group address");
    assert_eq!(switch.worker().counters().port(id(40)).dropped[DropReason::TooBig.index()], 1);
    // Unknown unicast is flooded too, but has one sender who can mend it.
    let unknown = Frame::new(station(9), station(1)).payload(0x0800, &[0x45; 1451]);
    let passed = from_local(&mut switch, ACCESS, &unknown);
    assert_eq!((ports(&passed), passed.punts.len()), (vec![TRUNK], 1));
}

#[test]
fn a_superframe_fits_when_each_of_its_frames_does() {
    let header = Tcp {
        src: (IpAddr::from([10, 0, 0, 1]), 1),
        dst: (IpAddr::from([10, 0, 0, 2]), 2),
        seq: 1,
        ack: 1,
        flags: tcp_flag::ACK,
        window: 9,
    };
    for (size, fits) in [(1410u16, true), (1411, false)] {
        for tags in [vec![], vec![ctag(10, 0)]] {
            let mut switch = one_peer(IpAddr::from([192, 0, 2, 1]), 1500, InnerVlan::Strip);
            switch.macs().add_static(segment(), station(9), id(40)).unwrap();
            let frame = Frame::new(station(9), station(1)).tags(&tags).tcp(&header, &[7; 20_000]);
            let l2 = u16::try_from(14 + 4 * tags.len()).unwrap();
            let owed = Offload {
                checksum: Some(Checksum { start: l2 + 20, offset: 16 }),
                gso: Some(Gso { kind: GsoKind::Tcp4, size, header_len: l2 + 40 }),
            };
            let port = if tags.is_empty() { ACCESS } else { TRUNK };
            let passed = switch.pass_owing(Instant::ZERO, Arrival::Port(id(port)), &frame.bytes(), owed);
            if fits {
                // The VLAN's tag is gone and the VXLAN header is in front: the facts moved with the bytes.
                let expected = Offload {
                    checksum: Some(Checksum { start: 8 + 34, offset: 16 }),
                    gso: Some(Gso { kind: GsoKind::Tcp4, size, header_len: 8 + 54 }),
                };
                assert_eq!(passed.facts[0].0, expected);
            } else {
                assert_eq!(passed.dropped, Some(DropReason::TooBig));
                assert_eq!(passed.punts[0].why, Why::TooBig { mtu: 1450 });
            }
        }
    }
}

#[test]
fn a_checksum_that_a_peer_left_unfinished_is_owed_by_every_copy_that_leaves() {
    let (src, dst) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let whole = Tcp { src: (src, 1), dst: (dst, 2), seq: 1, ack: 1, flags: tcp_flag::ACK, window: 9 };
    let good = Frame::new(Mac::BROADCAST, station(1)).tcp(&whole, b"some data").bytes();
    let mut partial = good.clone();
    let sum = pseudo_header(src, dst, protocol::TCP, 20 + 9);
    partial[14 + 20 + 16..14 + 20 + 18].copy_from_slice(&u16::try_from(sum).unwrap().to_be_bytes());
    let mut switch = strip();
    let passed = from_remote(&mut switch, 0, &vxlan(vni(VNI), &good));
    assert!(passed.facts.iter().all(|fact| fact.0.is_none()), "a finished checksum is left alone");
    let passed = from_remote(&mut switch, 0, &vxlan(vni(VNI), &partial));
    // The access port shows the frame as it came, the trunk with a tag of four bytes more.
    let starts: Vec<_> = passed.facts.iter().map(|fact| fact.0.checksum.unwrap()).collect();
    assert_eq!(starts, [Checksum { start: 34, offset: 16 }, Checksum { start: 38, offset: 16 }]);
    let mut finished = passed.sent[0].1.clone();
    vswitch_core::offload::finish_checksum(&mut finished, starts[0]).unwrap();
    assert_eq!(hex(&finished), hex(&good));
    // From a pod the same bytes are nobody's business: a TAP says what it owes.
    let passed = switch.pass(Instant::ZERO, Arrival::Port(id(ACCESS)), &partial);
    assert!(passed.facts.iter().all(|fact| fact.0.is_none()));
}

#[test]
fn any_datagram_from_anybody_ends_as_the_letter_says() {
    let mut rng = Rng::from_env(3);
    let inner = |rng: &mut Rng| {
        let mut frame = Frame::new(*rng.pick(&[Mac::BROADCAST, station(4), station(5)]), station(4));
        for _ in 0..rng.below(4) {
            let (vid, pcp) = (*rng.pick(&[0, 7, 10, 4095]), *rng.pick(&[0, 5]));
            frame = frame.tag(if rng.one_in(2) { ctag(vid, pcp) } else { stag(vid, pcp) });
        }
        let mut bytes = frame.bytes();
        if rng.one_in(4) {
            bytes.truncate(rng.below(30));
        }
        bytes
    };
    for _ in 0..300 {
        let vni = vni(*rng.pick(&[VNI, VNI, VNI, OTHER_VNI, 5]));
        let mut datagram = vxlan(vni, &inner(&mut rng));
        match rng.below(6) {
            0 => datagram.truncate(rng.below(12)),
            1 => {
                let at = rng.below(datagram.len().min(24));
                datagram[at] ^= 1 << rng.below(8);
            }
            2 => {
                let len = rng.below(80);
                datagram = rng.bytes(len);
            }
            _ => {}
        }
        datagram.insert(0, rng.next().to_le_bytes()[0]);
        vxlan_body(&datagram);
    }
}
