//! The naive reference switch against stock Open vSwitch: the same ports, the same frames, the same outcome.
//!
//! Open vSwitch reads one tag (`vlan-limit=1`), has no memory between two cases, and its own view of DEI (it loses
//! it), so frames here have none. Where we mean something else than Open vSwitch, a test of its own says so.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use vswitch_core::port::{Attachment, Port, PortId, PriorityTags, VlanSet};
use vswitch_core::wire::ethernet::Mac;
use vswitch_core::wire::vlan::{Priority, TPID_CTAG, TPID_STAG, Tag, Vlan};
use vswitch_tests::frames::{Frame, ctag, describe, describe_all, station};
use vswitch_tests::ovs::Ovs;
use vswitch_tests::reference::{Reference, Spec};
use vswitch_tests::rng::Rng;

const VLANS: [u16; 5] = [10, 12, 20, 300, 4094];

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap()
}

fn port(number: usize, attachment: Attachment) -> Port {
    Port::new(PortId::new(u32::try_from(number).unwrap()).unwrap(), attachment)
}

fn some_vlans(rng: &mut Rng) -> VlanSet {
    let mut vlans: VlanSet = (0..rng.within(1..=3)).map(|_| vlan(*rng.pick(&VLANS))).collect();
    if rng.one_in(3) {
        vlans.insert(Vlan::UNTAGGED);
    }
    vlans
}

fn some_port(rng: &mut Rng, number: usize) -> Port {
    let tag = vlan(if rng.one_in(8) { 0 } else { *rng.pick(&VLANS[..3]) });
    let trunks = if rng.one_in(2) { VlanSet::all() } else { some_vlans(rng) };
    // The first five ports have a mode each; the others any.
    let attachment = match if number <= 5 { number } else { rng.within(1..=5) } {
        1 => Attachment::Access(tag),
        2 => Attachment::Trunk { vlans: trunks, native: None },
        3 => Attachment::native(tag, true, trunks),
        4 => Attachment::native(tag, false, trunks),
        _ => Attachment::Dot1qTunnel {
            vlan: vlan(*rng.pick(&VLANS[..3])),
            cvlans: rng.one_in(2).then(|| some_vlans(rng)),
            tpid: *rng.pick(&[TPID_CTAG, TPID_STAG]),
        },
    };
    let mut port = port(number, attachment);
    port.priority_tags = *rng.pick(&[PriorityTags::No, PriorityTags::IfNonzero, PriorityTags::Always]);
    port
}

fn some_frame(rng: &mut Rng) -> Frame {
    let mut frame = Frame::new(Mac::BROADCAST, station(1));
    for _ in 0..rng.within(0..=3) {
        let vid = match rng.below(8) {
            0..3 => 0,
            3 => 1,
            _ => *rng.pick(&VLANS),
        };
        let pcp = if rng.one_in(2) { 0 } else { u8::try_from(rng.below(8)).unwrap() };
        // 0x9100 is no tag: what stands behind it is payload.
        let tpid = if rng.one_in(16) { 0x9100 } else { *rng.pick(&[TPID_CTAG, TPID_CTAG, TPID_STAG]) };
        frame.tags.push(Tag::new(tpid, Priority::new(pcp, false).unwrap(), vid));
    }
    frame
}

#[test]
fn the_reference_switch_and_open_vswitch_agree_on_every_random_case() {
    let Some(mut ovs) = Ovs::start(1) else { return };
    let mut rng = Rng::from_env(20_261_123);
    let (mut cases, mut carried, mut differences) = (0, 0, Vec::new());
    for _ in 0..24 {
        let ports: Vec<Port> = (1..=rng.within(12..=16)).map(|number| some_port(&mut rng, number)).collect();
        ovs.bridge(&ports, &[]);
        for _ in 0..32 {
            let (from, frame) = (rng.pick(&ports).id, some_frame(&mut rng).bytes());
            ovs.forget();
            let theirs = describe_all(&ovs.frame_in(from, &frame));
            let sent = Reference::new(Spec::new(ports.clone())).frame_in(0, from, &frame);
            let ours = describe_all(&sent);
            cases += 1;
            carried += usize::from(!sent.is_empty());
            if ours != theirs {
                let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) =
                    (ours.lines().collect(), theirs.lines().collect());
                differences.push(format!(
                    "port {from}: {}\n from {:?}\n we alone:   {:#?}\n they alone: {:#?}\n",
                    describe(&frame),
                    ports.iter().find(|port| port.id == from).unwrap().attachment,
                    ours.difference(&theirs).collect::<Vec<_>>(),
                    theirs.difference(&ours).collect::<Vec<_>>(),
                ));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "VSWITCH_SEED={}: {} of {cases} cases differ:\n{}",
        rng.seed(),
        differences.len(),
        differences[..differences.len().min(5)].concat()
    );
    assert!(carried > cases / 2, "only {carried} of {cases} frames went anywhere");
    println!("{cases} cases agree, {carried} of them carried");
}

#[test]
fn the_reference_table_and_open_vswitch_learn_move_age_and_evict_alike() {
    let Some(mut ovs) = Ovs::start(1) else { return };
    let _ = ovs.ask(&["time/stop"]);
    let mut rng = Rng::from_env(20_261_124);
    let mut steps = 0;
    for round in 0..8 {
        let count = rng.within(2..=6);
        let ports: Vec<Port> = (1..=count).map(|n| port(n, Attachment::trunk_all())).collect();
        // A small table for eviction; a large one for ageing.
        let (limit, ageing) = if round % 2 == 0 { (10, 300) } else { (100, 15) };
        ovs.bridge(&ports, &[&format!("mac-table-size={limit}"), &format!("mac-aging-time={ageing}")]);
        ovs.forget();
        let mut spec = Spec::new(ports);
        (spec.mac_limit, spec.ageing) = (limit, ageing);
        let mut ours = Reference::new(spec);
        let mut now = 0;
        for _ in 0..80 {
            let seconds = if rng.one_in(2) { 0 } else { rng.within(1..=3) };
            for _ in 0..seconds {
                let _ = ovs.ask(&["time/warp", "1000", "1000"]);
                let _ = ovs.ask(&["version"]);
                now += 1;
            }
            let from =
                PortId::new(u32::try_from(if rng.one_in(3) { 1 } else { rng.within(1..=count) }).unwrap())
                    .unwrap();
            let tags = if rng.one_in(3) { vec![ctag(10, 0)] } else { vec![] };
            let address = |rng: &mut Rng| station(u32::try_from(rng.within(1..=20)).unwrap());
            let frame = Frame::new(address(&mut rng), address(&mut rng)).tags(&tags).bytes();
            ovs.forget_flows();
            let theirs = ovs.frame_in(from, &frame);
            assert_eq!(
                describe_all(&ours.frame_in(now, from, &frame)),
                describe_all(&theirs),
                "VSWITCH_SEED={} round {round}, second {now}, port {from}: {}",
                rng.seed(),
                describe(&frame)
            );
            let listed: Vec<_> = ours
                .stations
                .list(now)
                .iter()
                .map(|s| (s.port.get(), s.key.1.get(), s.key.2.to_string(), Some(now - s.seen)))
                .collect();
            assert_eq!(listed, ovs.stations(), "VSWITCH_SEED={} round {round}, second {now}", rng.seed());
            steps += 1;
        }
    }
    println!("{steps} steps agree");
}

/// Ports 1 and 2 are trunks of everything, 3 an access port of VLAN 0, 4 a tunnel port of service VLAN 0.
fn odd_ports() -> Vec<Port> {
    let customers = Attachment::dot1q_tunnel(Vlan::UNTAGGED, None);
    vec![
        port(1, Attachment::trunk_all()),
        port(2, Attachment::trunk_all()),
        port(3, Attachment::Access(Vlan::UNTAGGED)),
        port(4, customers),
    ]
}

/// What Open vSwitch and we send when this frame arrives at that port.
fn both(ovs: &mut Ovs, from: u32, frame: &Frame) -> (String, String) {
    let from = PortId::new(from).unwrap();
    ovs.forget();
    let theirs = ovs.frame_in(from, &frame.bytes());
    let ours = Reference::new(Spec::new(odd_ports())).frame_in(0, from, &frame.bytes());
    (describe_all(&theirs), describe_all(&ours))
}

#[test]
fn open_vswitch_differs_where_we_mean_it_and_nowhere_else() {
    let Some(mut ovs) = Ovs::start(1) else { return };
    ovs.bridge(&odd_ports(), &[]);
    let frame = Frame::new(Mac::BROADCAST, station(1));
    let at = |number: u32, frame: &Frame| (PortId::new(number).unwrap(), frame.bytes());

    // IEEE 802.1Q table 9-2 reserves VID 4095; Open vSwitch carries it like any other.
    let reserved = frame.clone().tag(ctag(4095, 0));
    let (theirs, ours) = both(&mut ovs, 1, &reserved);
    assert_eq!((theirs, ours), (describe_all(&[at(2, &reserved)]), describe_all::<PortId>(&[])));

    // In service VLAN 0 Open vSwitch loses the customer's tag on the way to a trunk, so that one customer VLAN
    // comes out in another; we keep it, behind a service tag.
    let customer = frame.clone().tag(ctag(12, 0));
    let service = frame.clone().tag(Tag::new(TPID_STAG, Priority::ZERO, 0)).tag(ctag(12, 0));
    let (theirs, ours) = both(&mut ovs, 4, &customer);
    assert_eq!(theirs, describe_all(&[at(1, &frame), at(2, &frame)]));
    assert_eq!(ours, describe_all(&[at(1, &service), at(2, &service)]));

    // A zero source is nobody's address: Open vSwitch learns it, we do not. Both carry the frame.
    let nobody = Frame::new(Mac::BROADCAST, Mac::default());
    let (theirs, ours) = both(&mut ovs, 3, &nobody);
    assert_eq!(theirs, ours);
    assert_eq!(ovs.stations().len(), 1);

    // Beside the sixteen addresses that bridges keep to themselves, Open vSwitch drops some of other makers'
    // protocols; a file's bridge carries them like any address.
    for (address, they_carry) in [
        ("01:80:c2:00:00:00", false),
        ("01:80:c2:00:00:0f", false),
        ("01:80:c2:00:00:10", true),
        ("01:00:0c:cc:cc:cc", false),
        ("01:00:0c:cc:cc:cd", false),
        ("01:00:0c:cd:cd:cd", false),
        ("01:00:0c:00:00:00", false),
        ("00:e0:2b:00:00:00", false),
        ("00:e0:2b:00:00:04", false),
        ("00:e0:2b:00:00:06", false),
    ] {
        let address: Mac = address.parse().unwrap();
        let (theirs, ours) = both(&mut ovs, 1, &Frame::new(address, station(1)));
        assert_eq!(theirs.contains("port 2"), they_carry, "{address}");
        assert_eq!(ours.contains("port 2"), !address.is_reserved_group(), "{address}");
    }

    // What is cut short inside a tag goes nowhere; what ends behind the type is a frame.
    for len in 14..=18 {
        let from = PortId::new(1).unwrap();
        ovs.forget();
        let cut = &frame.clone().tag(ctag(10, 3)).bytes()[..len];
        let ours = Reference::new(Spec::new(odd_ports())).frame_in(0, from, cut);
        assert_eq!(describe_all(&ovs.frame_in(from, cut)), describe_all(&ours), "{len} bytes");
        assert_eq!(ours.len(), usize::from(len == 18));
    }
}
