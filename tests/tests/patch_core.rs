//! Patch ports by the core: cables between bridges inside the switch.
//!
//! Two bridges joined so are held to two that a test joins, which takes what leaves by one port and brings it to the
//! other. Not here: who makes such ports.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::net::IpAddr;
use vswitch_core::offload::{Checksum, Gso, GsoKind};
use vswitch_core::port::{Carries, InnerVlan, Tunnel};
use vswitch_core::switch::Step;
use vswitch_core::verdict::Why;
use vswitch_core::{
    Arrival, Attachment, DropReason, Instant, Mac, Offload, Port, PortId, Verdict, Vlan, Vni,
};
use vswitch_tests::driven::{Driven, Passed};
use vswitch_tests::frames::{Frame, Tcp, ctag, describe_all, hex, stag, station, tcp_flag, vxlan};
use vswitch_tests::offload_body::Choices;
use vswitch_tests::reference::{BridgeSpec, Sent, Spec};
use vswitch_tests::rng::Rng;
use vswitch_tests::switch_body::{some_frame, some_spec};

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap()
}

fn access(tag: u16) -> Attachment {
    Attachment::Access(vlan(tag))
}

fn port(bridge: u8, number: u32, attachment: Attachment) -> Port {
    let mut port = Port::new(id(number), attachment);
    port.bridge = bridge;
    port
}

/// One end of a cable to port `other`.
fn patch(bridge: u8, number: u32, attachment: Attachment, other: u32) -> Port {
    Port { patch: PortId::new(other), ..port(bridge, number, attachment) }
}

fn bridges(count: usize, ports: Vec<Port>) -> Driven {
    let mut spec = Spec::new(ports);
    spec.bridges.resize(count, BridgeSpec::default());
    Driven::new(&spec)
}

fn from(switch: &mut Driven, port: u32, frame: &Frame) -> Passed {
    switch.pass(Instant::ZERO, Arrival::Port(id(port)), &frame.bytes())
}

fn ports(passed: &Passed) -> Vec<u32> {
    passed.sent.iter().map(|sent| sent.0.get()).collect()
}

fn plain() -> Frame {
    Frame::new(Mac::BROADCAST, station(1))
}

/// What leaves a switch whose cables a test carries the frames over.
fn carried(switch: &mut Driven, now: Instant, at: PortId, bytes: &[u8], cables: &[(PortId, PortId)]) -> Sent {
    let mut left = Sent::new();
    for (port, bytes) in switch.pass(now, Arrival::Port(at), bytes).sent {
        let other = cables.iter().find_map(|(a, b)| match port {
            port if port == *a => Some(*b),
            port if port == *b => Some(*a),
            _ => None,
        });
        match other {
            Some(other) => left.extend(carried(switch, now, other, &bytes, cables)),
            None => left.push((port, bytes)),
        }
    }
    left.sort();
    left
}

#[test]
fn bridges_joined_by_patch_ports_do_what_bridges_joined_by_hand_do() {
    let mut rng = Rng::from_env(62);
    let (mut sent, mut crossed) = (0, 0u64);
    for _ in 0..200 {
        let data = rng.bytes(3000);
        let choices = &mut Choices::new(&data);
        let mut wired = some_spec(choices);
        wired.ports.retain(|port| port.tunnel().is_none());
        wired.bridges.resize(4, wired.bridges[0].clone());
        for bridge in &mut wired.bridges {
            bridge.neigh_suppress = false;
            bridge.vnis.clear();
        }
        for port in &mut wired.ports {
            (port.bridge, port.mac_limit) = (choices.byte() % 4, None);
        }
        // Cables between neighbours only: there is one way to everywhere.
        let mut cables = Vec::new();
        for n in 0..3u8 {
            let (a, b) = (id(20 + 2 * u32::from(n)), id(21 + 2 * u32::from(n)));
            for (number, bridge) in [(a, n), (b, n + 1)] {
                let like = &wired.ports[usize::from(choices.byte()) % wired.ports.len()];
                let attachment =
                    if choices.byte() & 1 == 0 { Attachment::trunk_all() } else { like.attachment.clone() };
                wired.ports.push(Port { id: number, bridge, attachment, ..like.clone() });
            }
            cables.push((a, b));
        }
        let mut patched = wired.clone();
        for (a, b) in &cables {
            for (one, other) in [(*a, *b), (*b, *a)] {
                patched.ports.iter_mut().find(|port| port.id == one).unwrap().patch = Some(other);
            }
        }
        let ports: Vec<PortId> = wired.ports.iter().map(|port| port.id).collect();
        let (mut wired, mut patched) = (Driven::new(&wired), Driven::new(&patched));
        for step in 0..40u64 {
            let at = ports[usize::from(choices.byte()) % ports.len()];
            let frame = some_frame(choices, 5);
            let now = Instant::from_secs(step);
            let expected = carried(&mut wired, now, at, &frame, &cables);
            let passed = patched.pass(now, Arrival::Port(at), &frame);
            let text = || -> String {
                passed.story.steps.iter().map(|s| format!("{}\n", s.text(&|port| port.to_string()))).collect()
            };
            assert_eq!(describe_all(&passed.sent), describe_all(&expected), "{} {}", hex(&frame), text());
            assert!(passed.sent == expected);
            for port in &ports {
                let [wired, patched] = [&mut wired, &mut patched].map(|s| s.worker().counters().port(*port));
                assert_eq!(
                    (wired.rx_frames, wired.rx_bytes, wired.dropped),
                    (patched.rx_frames, patched.rx_bytes, patched.dropped),
                    "port {port}\n{}",
                    text()
                );
            }
            assert_eq!(wired.macs().len(), patched.macs().len());
            sent += passed.sent.len();
        }
        crossed += cables
            .iter()
            .flat_map(|(a, b)| [*a, *b])
            .map(|end| patched.worker().counters().port(end).tx_frames)
            .sum::<u64>();
    }
    assert!(sent > 2000 && crossed > 2000, "{sent} sent, {crossed} crossed");
}

#[test]
fn what_leaves_by_one_end_arrives_at_the_other_and_is_counted_and_learned_there() {
    let mut switch = bridges(
        2,
        vec![
            port(0, 1, access(10)),
            patch(0, 8, Attachment::trunk_all(), 9),
            patch(1, 9, Attachment::trunk_all(), 8),
            port(1, 2, access(10)),
            port(1, 3, Attachment::trunk_all()),
        ],
    );
    let passed = from(&mut switch, 1, &plain());
    let tagged = plain().tag(ctag(10, 0)).bytes();
    assert_eq!(passed.sent, [(id(2), plain().bytes()), (id(3), tagged.clone())]);
    assert_eq!(passed.story.verdict, Verdict::Flood(vswitch_core::Segment::new(0, vlan(10)).unwrap()));
    let step = Step::Crossed { from: id(8), to: id(9) };
    assert!(passed.story.steps.contains(&step));
    assert_eq!(step.text(&|port| format!("p{port}")), "crosses from patch port p8 to patch port p9");
    let counters = switch.worker().counters();
    let (out, there) = (counters.port(id(8)), counters.port(id(9)));
    let bytes = u64::try_from(tagged.len()).unwrap();
    assert_eq!((out.tx_frames, out.tx_bytes, out.rx_frames), (1, bytes, 0));
    assert_eq!((there.rx_frames, there.rx_bytes, there.tx_frames), (1, bytes, 0));
    // The answer finds its way alone.
    assert_eq!(ports(&from(&mut switch, 2, &Frame::new(station(1), station(2)))), [1]);
    assert_eq!(ports(&from(&mut switch, 1, &Frame::new(station(2), station(1)))), [2]);
}

#[test]
fn the_two_ends_of_a_cable_translate_vlans() {
    let customer = || Attachment::dot1q_tunnel(vlan(100), None);
    let mut switch = bridges(
        3,
        vec![
            port(0, 1, Attachment::trunk_all()),
            patch(0, 10, access(10), 11),
            patch(1, 11, access(20), 10),
            patch(1, 12, Attachment::trunk_all(), 13),
            patch(2, 13, customer(), 12),
            port(2, 2, Attachment::trunk_all()),
            port(1, 3, Attachment::trunk_all()),
        ],
    );
    // Off, on again, and on a second time.
    let passed = from(&mut switch, 1, &plain().tag(ctag(10, 3)));
    assert_eq!(
        passed.sent,
        [
            (id(2), plain().tag(stag(100, 0)).tag(ctag(20, 0)).bytes()),
            (id(3), plain().tag(ctag(20, 0)).bytes()),
        ]
    );
    // And all of them off.
    let passed = from(&mut switch, 2, &plain().tag(stag(100, 0)).tag(ctag(20, 6)));
    assert_eq!(
        passed.sent,
        [(id(1), plain().tag(ctag(10, 0)).bytes()), (id(3), plain().tag(ctag(20, 6)).bytes())]
    );
}

#[test]
fn as_many_bridges_as_there_are_stand_in_a_row() {
    let mut ports = vec![port(0, 1, access(1))];
    for n in 0..15u8 {
        let at = 20 + 2 * u32::from(n);
        ports.push(patch(n, at, Attachment::trunk_all(), at + 1));
        ports.push(patch(n + 1, at + 1, Attachment::trunk_all(), at));
    }
    ports.push(port(15, 2, access(1)));
    let mut switch = bridges(16, ports);
    let passed = from(&mut switch, 1, &plain());
    assert_eq!(passed.sent, [(id(2), plain().bytes())]);
    assert_eq!(from(&mut switch, 2, &Frame::new(station(1), station(2))).story.verdict, Verdict::To(id(49)));
}

#[test]
fn a_circle_of_cables_ends() {
    for cables in [2u32, 3, 50] {
        let mut all = vec![port(0, 1, access(1)), port(1, 2, access(1))];
        for n in 0..cables {
            let at = 20 + 2 * n;
            all.push(patch(0, at, Attachment::trunk_all(), at + 1));
            all.push(patch(1, at + 1, Attachment::trunk_all(), at));
        }
        let mut switch = bridges(2, all);
        for frame in [plain(), Frame::new(station(9), station(1))] {
            let before = switch.worker().counters().clone();
            let passed = from(&mut switch, 1, &frame);
            assert!((1..=64).contains(&passed.sent.len()), "{} copies", passed.sent.len());
            let looped = |counters: &vswitch_core::switch::Counters| -> u64 {
                let ends = (20..20 + 2 * cables).map(id);
                ends.map(|end| counters.port(end).dropped[DropReason::PatchLoop.index()]).sum()
            };
            assert!(looped(switch.worker().counters()) > looped(&before));
        }
        // The next frame has all its crossings again, in the same batch too.
        let frames = [1, 1].map(|at| (Arrival::Port(id(at)), plain().bytes()));
        let both = switch.pass_all(Instant::ZERO, &frames).len();
        let one = switch.pass_all(Instant::ZERO, &frames[..1]).len();
        assert_eq!(both, 2 * one);
    }
}

#[test]
fn a_circle_of_cables_between_many_ports_makes_no_more_copies_than_can_be_sent() {
    let mut all: Vec<Port> = (0..1000).map(|n| port(u8::from(n % 2 == 1), 100 + n, access(1))).collect();
    for n in 0..3 {
        let at = 20 + 2 * n;
        all.push(patch(0, at, Attachment::trunk_all(), at + 1));
        all.push(patch(1, at + 1, Attachment::trunk_all(), at));
    }
    let mut switch = bridges(2, all);
    let copies = from(&mut switch, 100, &plain()).sent.len();
    assert!((8192..8192 + 2 * 500).contains(&copies), "{copies} copies");
    assert_eq!(from(&mut switch, 100, &plain()).sent.len(), copies);
}

#[test]
fn a_cable_with_one_end_carries_nothing() {
    for other in [
        vec![],
        vec![port(1, 9, Attachment::trunk_all())],
        vec![patch(1, 9, Attachment::trunk_all(), 7)],
        vec![patch(1, 9, Attachment::trunk_all(), 9)],
    ] {
        let mut all = vec![port(0, 1, access(1)), patch(0, 8, Attachment::trunk_all(), 9)];
        all.extend(other);
        all.push(port(1, 2, access(1)));
        let mut switch = bridges(2, all);
        assert_eq!(from(&mut switch, 1, &plain()).dropped, Some(DropReason::LinkDown));
        assert_eq!(switch.worker().counters().port(id(8)).dropped[DropReason::LinkDown.index()], 1);
        assert_eq!(switch.worker().counters().port(id(8)).tx_frames, 0);
        // Whoever else is to hear it does.
        let mut spec = vec![port(0, 1, access(1)), port(0, 3, access(1))];
        spec.push(patch(0, 8, Attachment::trunk_all(), 9));
        let mut switch = bridges(2, spec);
        assert_eq!(ports(&from(&mut switch, 1, &plain())), [3]);
        assert_eq!(switch.worker().counters().port(id(8)).dropped[DropReason::LinkDown.index()], 1);
    }
    // A port that names itself is no cable.
    let mut switch = bridges(1, vec![port(0, 1, access(1)), patch(0, 8, access(1), 8)]);
    assert_eq!(from(&mut switch, 1, &plain()).dropped, Some(DropReason::LinkDown));
}

/// Bridge 0 with a tunnel, a cable, bridge 1.
fn beyond_a_tunnel() -> Driven {
    let tunnel = Tunnel {
        remote: IpAddr::from([192, 0, 2, 8]),
        local: None,
        udp_port: 4789,
        carries: Carries::Inside {
            in_vni: Vni::new(7).unwrap(),
            out_vni: Vni::new(7).unwrap(),
            attachment: Box::new(Attachment::trunk_all()),
        },
        floods: None,
        inner_vlan: InnerVlan::Strip,
        strict: false,
    };
    bridges(
        2,
        vec![
            port(0, 1, Attachment::Tunnel(tunnel)),
            patch(0, 8, access(10), 9),
            patch(1, 9, access(20), 8),
            port(1, 2, Attachment::trunk_all()),
        ],
    )
}

#[test]
fn a_superframe_crosses_whole_with_its_facts() {
    let header = Tcp {
        src: (IpAddr::from([10, 0, 0, 1]), 1),
        dst: (IpAddr::from([10, 0, 0, 2]), 2),
        seq: 1,
        ack: 1,
        flags: tcp_flag::ACK,
        window: 9,
    };
    let frame = Frame::new(Mac::BROADCAST, station(1)).tcp(&header, &[7; 20_000]);
    let [outside, inside] = [ctag(10, 0), ctag(20, 0)].map(|tag| frame.clone().tag(tag).bytes());
    let owed = |at: u16| Offload {
        checksum: Some(Checksum { start: at + 20, offset: 16 }),
        gso: Some(Gso { kind: GsoKind::Tcp4, size: 1300, header_len: at + 40 }),
    };
    let mut switch = beyond_a_tunnel();
    let datagram = vxlan(Vni::new(7).unwrap(), &outside);
    let arrival = vswitch_tests::driven::from_peer(IpAddr::from([192, 0, 2, 8]));
    let passed = switch.pass_owing(Instant::ZERO, arrival, &datagram, owed(14 + 4 + 8));
    assert_eq!((&passed.sent[..], passed.facts[0].0), (&[(id(2), inside.clone())][..], owed(14 + 4)));
    let passed = switch.pass_owing(Instant::ZERO, Arrival::Port(id(2)), &inside, owed(14 + 4));
    assert_eq!((&passed.sent[..], passed.facts[0].0), (&[(id(1), datagram)][..], owed(14 + 4 + 8)));
}

#[test]
fn who_sends_too_much_for_a_tunnel_beyond_a_cable_is_told_where_it_is() {
    let mut switch = beyond_a_tunnel();
    let frame =
        |len: usize| Frame::new(station(9), station(1)).tag(ctag(20, 0)).payload(0x0800, &vec![0x45; len]);
    assert_eq!(ports(&from(&mut switch, 2, &frame(1446))), [1]);
    let passed = from(&mut switch, 2, &frame(1447));
    assert_eq!(passed.dropped, Some(DropReason::TooBig));
    let [punt] = passed.punts[..] else { panic!("{:?}", passed.punts) };
    assert_eq!((punt.port, punt.from, punt.why), (id(2), 0, Why::TooBig { mtu: 1446 }));
    assert_eq!(punt.segment, vswitch_core::Segment::new(1, vlan(20)));
    assert_eq!(switch.worker().counters().port(id(1)).dropped[DropReason::TooBig.index()], 1);
}
