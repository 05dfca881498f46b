//! Rules before a bridge's normal way, by the core: what an OpenFlow table says of frames.
//!
//! A switch with rules is held to a search through their list, and where that says `Normal`, to a switch without any. Not
//! here: OpenFlow itself.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::net::IpAddr;
use vswitch_core::port::{Carries, Guard, InnerVlan, Policers, Tunnel};
use vswitch_core::switch::{Rule, RuleAction, RuleCount, RuleMatch, RuleVlan, Step};
use vswitch_core::verdict::Why;
use vswitch_core::wire::ethernet::MAX_FRAME_LEN;
use vswitch_core::{Arrival, Attachment, DropReason, Instant, Mac, Port, PortId, Verdict, Vlan, Vni};
use vswitch_tests::driven::{Driven, Passed, from_peer};
use vswitch_tests::frames::{Frame, ctag, describe_all, hex, station, vxlan};
use vswitch_tests::offload_body::Choices;
use vswitch_tests::reference::{BridgeSpec, Sent, Spec};
use vswitch_tests::rng::Rng;
use vswitch_tests::switch_body::{VLANS, some_frame, some_spec};

const VNI: u32 = 7;

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap()
}

fn access(number: u32, tag: u16) -> Port {
    Port::new(id(number), Attachment::Access(vlan(tag)))
}

fn trunk(number: u32) -> Port {
    Port::new(id(number), Attachment::trunk_all())
}

fn remote(port: PortId) -> IpAddr {
    IpAddr::from([192, 0, 2, u8::try_from(port.get()).unwrap()])
}

fn tunnelled(port: Port) -> Port {
    let vni = Vni::new(VNI).unwrap();
    let tunnel = Tunnel {
        remote: remote(port.id),
        local: None,
        udp_port: 4789,
        carries: Carries::Inside { in_vni: vni, out_vni: vni, attachment: Box::new(port.attachment) },
        floods: None,
        inner_vlan: InnerVlan::Strip,
        strict: false,
    };
    Port { attachment: Attachment::Tunnel(tunnel), ..port }
}

fn all() -> RuleMatch {
    RuleMatch::default()
}

fn from_port(number: u32) -> RuleMatch {
    RuleMatch { in_port: Some(id(number)), ..all() }
}

/// Rules in this order, numbered so.
fn rules(list: &[(RuleMatch, &[RuleAction])]) -> Option<Vec<Rule>> {
    let rule = |(id, (matches, actions)): (u32, &(RuleMatch, &[RuleAction]))| Rule {
        id,
        matches: *matches,
        actions: actions.to_vec(),
    };
    Some((0..).zip(list).map(rule).collect())
}

fn switch(ports: Vec<Port>, list: &[(RuleMatch, &[RuleAction])]) -> Driven {
    let mut spec = Spec::new(ports);
    spec.bridges[0].rules = rules(list);
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

fn some_match(choices: &mut Choices<'_>, ports: &[PortId]) -> RuleMatch {
    let bits = choices.byte();
    let pick = usize::from(choices.byte());
    let of = |bit: u8| bits >> bit & 1 != 0;
    RuleMatch {
        in_port: of(0).then(|| ports[pick % ports.len()]),
        vlan: (bits & 6 == 6).then(|| match VLANS.get(pick % 7) {
            Some(vid) => RuleVlan::Vid(*vid),
            None => RuleVlan::Untagged,
        }),
        pcp: (bits & 0x18 == 0x18).then_some(bits >> 5),
        src: (bits & 0x60 == 0x60).then(|| station(u32::from(bits & 7))),
        dst: (bits & 0x90 == 0x90).then_some(Mac::BROADCAST),
        ethertype: (bits & 0x84 == 0x84).then(|| [0x0800, 0x0806, 0x88b5, 0x8100, 0x05ff][pick % 5]),
    }
}

fn some_actions(choices: &mut Choices<'_>, ports: &[PortId]) -> Vec<RuleAction> {
    (0..choices.byte() % 4)
        .map(|_| match choices.byte() {
            n @ 0..100 => RuleAction::Output(ports[usize::from(n) % ports.len()]),
            100..130 => RuleAction::InPort,
            130..160 => RuleAction::Flood,
            _ => RuleAction::Normal,
        })
        .collect()
}

/// Whether a frame that arrives at `port` is as `matches` says, read by the letter of OpenFlow.
fn fits(matches: &RuleMatch, port: PortId, bytes: &[u8]) -> bool {
    let frame = Frame::parse(bytes).unwrap();
    let first = frame.tags.first();
    let kind = match frame.tags.get(1) {
        Some(second) => second.tpid,
        None => u16::from_be_bytes([frame.rest[0], frame.rest[1]]),
    };
    let kind = match frame.rest.get(2..10) {
        _ if kind >= 0x600 => kind,
        Some([0xaa, 0xaa, 3, 0, 0, 0, high, low]) if *high >= 6 => u16::from_be_bytes([*high, *low]),
        _ => 0x05ff,
    };
    matches.in_port.is_none_or(|wanted| wanted == port)
        && matches.vlan.is_none_or(|wanted| match wanted {
            RuleVlan::Untagged => first.is_none(),
            RuleVlan::Vid(vid) => first.is_some_and(|tag| tag.vid() == vid),
        })
        && matches.pcp.is_none_or(|pcp| first.is_some_and(|tag| tag.priority().pcp() == pcp))
        && matches.src.is_none_or(|src| frame.src == src)
        && matches.dst.is_none_or(|dst| frame.dst == dst)
        && matches.ethertype.is_none_or(|wanted| wanted == kind)
}

#[test]
fn a_rule_makes_no_more_copies_of_a_frame_than_can_be_sent() {
    let actions = vec![RuleAction::Flood; 256];
    let mut switch = switch((1..=101).map(trunk).collect(), &[(all(), &actions)]);
    let passed = from(&mut switch, 1, &plain());
    assert_eq!(passed.sent.len(), 8192);
    assert_eq!(passed.story.verdict, Verdict::Rule(0));
    let dropped = |switch: &mut Driven| {
        switch.worker().counters().port(id(1)).dropped[DropReason::TooManyCopies.index()]
    };
    let before = dropped(&mut switch);
    assert!(before > 0);
    // The next frame has all of its own.
    assert_eq!(from(&mut switch, 1, &plain()).sent.len(), 8192);
    assert_eq!(dropped(&mut switch), 2 * before);
}

#[test]
fn every_frame_meets_the_first_rule_that_it_matches() {
    let mut rng = Rng::from_env(63);
    let (mut normal, mut raw) = (0, 0);
    let mut dropped = [0; 3];
    for _ in 0..300 {
        let data = rng.bytes(3000);
        let choices = &mut Choices::new(&data);
        let mut spec = some_spec(choices);
        spec.ports.retain(|port| port.tunnel().is_none());
        spec.bridges.iter_mut().for_each(|bridge| bridge.neigh_suppress = false);
        let chosen = choices.byte();
        let is_tunnel = |port: PortId| chosen >> (port.get() % 8) & 1 != 0;
        for port in &mut spec.ports {
            (port.bridge, port.mac_limit) = (0, None);
            if is_tunnel(port.id) {
                *port = tunnelled(port.clone());
                port.mtu = 9000;
            }
        }
        let ids: Vec<PortId> = spec.ports.iter().map(|port| port.id).collect();
        let list: Vec<Rule> = (0..u32::from(choices.byte() % 12))
            .map(|id| Rule { id, matches: some_match(choices, &ids), actions: some_actions(choices, &ids) })
            .collect();
        let mut without = Driven::new(&spec);
        spec.bridges[0].rules = Some(list.clone());
        let mut switch = Driven::new(&spec);
        let mut counts = vec![RuleCount::default(); list.len()];
        for step in 0..40u64 {
            let port = ids[usize::from(choices.byte()) % ids.len()];
            let frame = some_frame(choices, 5);
            let now = Instant::from_secs(step);
            let wrapped = vxlan(Vni::new(VNI).unwrap(), &frame);
            let (arrival, bytes) = match is_tunnel(port) {
                true => (from_peer(remote(port)), &wrapped),
                false => (Arrival::Port(port), &frame),
            };
            let passed = switch.pass(now, arrival, bytes);
            if Frame::parse(&frame).is_none() || frame.len() > MAX_FRAME_LEN {
                assert!(passed.sent.is_empty());
                continue;
            }
            let found = list.iter().find(|rule| fits(&rule.matches, port, &frame));
            let mut expected = Sent::new();
            for action in found.map_or(&[][..], |rule| &rule.actions) {
                let to: Vec<PortId> = match action {
                    RuleAction::Output(to) => vec![*to].into_iter().filter(|to| *to != port).collect(),
                    RuleAction::InPort => vec![port],
                    RuleAction::Flood => ids.iter().copied().filter(|to| *to != port).collect(),
                    RuleAction::Normal => continue,
                };
                raw += to.len();
                let send = |to| (to, if is_tunnel(to) { wrapped.clone() } else { frame.clone() });
                expected.extend(to.into_iter().map(send));
            }
            let mut reason = match found {
                None => Some(DropReason::NoFlow),
                Some(rule) if rule.actions.is_empty() => Some(DropReason::FlowDrop),
                Some(_) => Some(DropReason::NoEgress),
            };
            if let Some(rule) = found {
                let count = &mut counts[rule.id as usize];
                (count.frames, count.bytes) = (count.frames + 1, count.bytes + frame.len() as u64);
                if rule.actions.contains(&RuleAction::Normal) {
                    let by_normal = without.pass(now, arrival, bytes);
                    reason = by_normal.dropped;
                    expected.extend(by_normal.sent);
                    normal += 1;
                }
            }
            expected.sort();
            let text = || format!("{} at {port}: {found:?}", hex(&frame));
            assert_eq!(describe_all(&passed.sent), describe_all(&expected), "{}", text());
            assert!(passed.sent == expected);
            assert_eq!(passed.dropped, reason.filter(|_| expected.is_empty()), "{}", text());
            match passed.dropped {
                Some(DropReason::NoFlow) => dropped[0] += 1,
                Some(DropReason::FlowDrop) => dropped[1] += 1,
                Some(_) => dropped[2] += 1,
                None => {}
            }
            assert_eq!(switch.macs().len(), without.macs().len(), "only the normal way learns");
        }
        for (id, count) in (0..).zip(&counts).filter(|_| list.len() != 1) {
            assert_eq!(switch.worker().counters().rule(id), *count);
        }
    }
    assert!(normal > 1000 && raw > 1000 && dropped.iter().all(|n| *n > 100), "{normal} {raw} {dropped:?}");
}

#[test]
fn without_rules_that_match_nothing_passes_and_with_one_normal_rule_nothing_changes() {
    let two = || vec![access(1, 10), access(2, 10)];
    let mut secure = switch(two(), &[]);
    assert_eq!(from(&mut secure, 1, &plain()).dropped, Some(DropReason::NoFlow));
    assert!(secure.macs().is_empty());
    let mut normal = switch(two(), &[(all(), &[RuleAction::Normal])]);
    let passed = from(&mut normal, 1, &plain());
    assert_eq!(ports(&passed), [2]);
    assert!(!passed.story.steps.iter().any(|step| matches!(step, Step::Matched { .. })));
    assert_eq!(normal.worker().counters().rule(0), RuleCount::default());
}

#[test]
fn output_knows_no_vlans_and_says_so_to_whoever_asks() {
    let list: [(RuleMatch, &[RuleAction]); 2] =
        [(from_port(1), &[RuleAction::Output(id(2)), RuleAction::Output(id(1))]), (all(), &[])];
    let mut switch = switch(vec![access(1, 10), access(2, 20), tunnelled(trunk(3))], &list);
    let tagged = plain().tag(ctag(4095, 3));
    let passed = from(&mut switch, 1, &tagged);
    assert_eq!(passed.sent, [(id(2), tagged.bytes())]);
    assert_eq!(passed.story.verdict, Verdict::Rule(0));
    let steps: Vec<String> =
        passed.story.steps.iter().map(|step| step.text(&|port| port.to_string())).collect();
    assert!(steps.contains(&"matches rule 0".to_owned()), "{steps:?}");
    assert_eq!(from(&mut switch, 2, &plain()).dropped, Some(DropReason::FlowDrop));
    let count = switch.worker().counters().rule(0);
    assert_eq!(count, RuleCount { frames: 1, bytes: tagged.bytes().len() as u64 });
    assert_eq!(switch.worker().counters().port(id(2)).dropped[DropReason::FlowDrop.index()], 1);
}

#[test]
fn a_port_of_another_bridge_and_one_that_is_not_there_are_sent_nothing() {
    for to in [9, 30] {
        let mut far = access(9, 1);
        far.bridge = 1;
        let mut spec = Spec::new(vec![access(1, 1), access(2, 1), far]);
        spec.bridges.push(BridgeSpec::default());
        spec.bridges[0].rules = rules(&[(all(), &[RuleAction::Output(id(to))])]);
        let mut switch = Driven::new(&spec);
        assert_eq!(from(&mut switch, 1, &plain()).dropped, Some(DropReason::NoEgress));
        spec.bridges[0].rules = rules(&[(all(), &[RuleAction::Output(id(to)), RuleAction::Output(id(2))])]);
        assert_eq!(ports(&from(&mut Driven::new(&spec), 1, &plain())), [2]);
    }
}

#[test]
fn a_frame_that_comes_over_a_cable_meets_the_rules_there() {
    let mut far = [access(2, 1), access(3, 1)];
    far.iter_mut().for_each(|port| port.bridge = 1);
    let [a, b] = far;
    let near = Port { patch: Some(id(9)), ..trunk(8) };
    let other = Port { patch: Some(id(8)), bridge: 1, ..trunk(9) };
    let mut spec = Spec::new(vec![access(1, 1), near, other, a, b]);
    spec.bridges.push(BridgeSpec::default());
    spec.bridges[1].rules = rules(&[
        (from_port(9), &[RuleAction::Output(id(3))]),
        (from_port(3), &[RuleAction::Output(id(9))]),
        (all(), &[RuleAction::Flood]),
    ]);
    let mut switch = Driven::new(&spec);
    let tagged = plain().tag(ctag(1, 0));
    assert_eq!(from(&mut switch, 1, &plain()).sent, [(id(3), tagged.bytes())]);
    assert_eq!(from(&mut switch, 3, &tagged).sent, [(id(1), plain().bytes())]);
    assert_eq!(ports(&from(&mut switch, 2, &tagged)), [1, 3]);
}

#[test]
fn a_guarded_port_is_guarded_and_a_full_path_is_told_before_and_after_any_rule() {
    let mut guarded = access(1, 10);
    guarded.guard = Some(Guard { mac: station(1), addresses: vec![] }.into());
    guarded.policers = Policers::default();
    let list: [(RuleMatch, &[RuleAction]); 1] = [(all(), &[RuleAction::Flood])];
    let mut switch = switch(vec![guarded, access(2, 20), tunnelled(trunk(3))], &list);
    assert_eq!(
        from(&mut switch, 1, &Frame::new(station(2), station(9))).dropped,
        Some(DropReason::SpoofedMac)
    );
    assert_eq!(ports(&from(&mut switch, 1, &Frame::new(station(2), station(1)))), [2, 3]);
    let big = Frame::new(station(1), station(2)).payload(0x0800, &[0x45; 1451]);
    let passed = from(&mut switch, 2, &big);
    assert_eq!(ports(&passed), [1]);
    assert_eq!(passed.punts[0].why, Why::TooBig { mtu: 1450 });
}

#[test]
fn what_matched_is_added_up_over_workers() {
    let list: [(RuleMatch, &[RuleAction]); 1] = [(all(), &[RuleAction::Flood])];
    let mut switch = switch(vec![access(1, 1), access(2, 1)], &list);
    from(&mut switch, 1, &plain());
    let mut sum = switch.worker().counters().clone();
    sum.add(switch.worker().counters());
    assert_eq!((sum.rule(0).frames, sum.rule(70_000).frames), (2, 0));
}
