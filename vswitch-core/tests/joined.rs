//! Where mirrors, snooping, patch ports, ordinary tunnels and rules meet in one frame's way.
//!
//! Not here: each of them alone.
#![allow(clippy::unwrap_used, reason = "a test's panics are failures")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::port::{Carries, InnerVlan, Tunnel};
use vswitch_core::switch::{
    Bridge, Mirror, MirrorTo, Punt, Rule, RuleAction, RuleMatch, Snooping, Topology, Worker,
};
use vswitch_core::verdict::Why;
use vswitch_core::{
    Arrival, Attachment, Batch, DropReason, Instant, MacTable, Offload, Port, PortId, Segment, TxList, Vlan,
    Vni,
};

/// Of bridge 0: two stations, a cable's end, and who looks on.
const A: u32 = 1;
const B: u32 = 2;
const CABLE: u32 = 8;
const OUT: u32 = 9;
/// Of bridge 1.
const FAR: u32 = 11;
const FAR_CABLE: u32 = 18;
const FAR_OUT: u32 = 19;

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap()
}

fn port(bridge: u8, number: u32, attachment: Attachment) -> Port {
    Port { bridge, ..Port::new(id(number), attachment) }
}

fn access() -> Attachment {
    Attachment::Access(vlan(10))
}

fn ports() -> Vec<Port> {
    let cable = |bridge, number, other| Port {
        patch: Some(id(other)),
        ..port(bridge, number, Attachment::trunk_all())
    };
    vec![
        port(0, A, access()),
        port(0, B, access()),
        cable(0, CABLE, FAR_CABLE),
        port(0, OUT, Attachment::trunk_all()),
        port(1, FAR, access()),
        cable(1, FAR_CABLE, CABLE),
        port(1, FAR_OUT, Attachment::trunk_all()),
    ]
}

/// One that selects nothing.
fn mirror(output: u32) -> Mirror {
    let (sources, destinations) = (vec![], vec![]);
    let output = MirrorTo::Port(id(output));
    Mirror { id: 0, select_all: false, sources, destinations, vlans: None, output, snaplen: None }
}

fn mirrored(mirror: Mirror) -> Bridge {
    Bridge { mirrors: vec![mirror], ..Bridge::default() }
}

fn frame(tag: Option<u16>) -> Vec<u8> {
    let tag = tag.map(|vid| [&[0x81, 0][..], &vid.to_be_bytes()].concat()).unwrap_or_default();
    [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &tag, &[0x88, 0xb5], &[7; 46]].concat()
}

struct Switch {
    worker: Worker,
    batch: Batch,
    tx: TxList,
}

impl Switch {
    fn new(bridges: [Bridge; 2], ports: Vec<Port>) -> Self {
        let topology = Topology::new(bridges.into(), ports).unwrap();
        let macs = Arc::new(MacTable::few_ports(100, Duration::from_secs(300), [1, 2]));
        topology.ports().for_each(|port| macs.bind(port.id, None));
        Self { worker: Worker::new(Arc::new(topology), macs), batch: Batch::new(1), tx: TxList::new() }
    }

    /// What leaves, by rising port, and that `explain` says the same.
    fn pass(&mut self, port: u32, bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let (now, arrival) = (Instant::from_secs(1), Arrival::Port(id(port)));
        let told = self.worker.explain(now, arrival, bytes).outputs;
        let mut told: Vec<_> = told.into_iter().map(|output| (output.port.get(), output.bytes)).collect();
        self.batch.clear();
        self.tx.clear();
        self.batch.copy_in(arrival, bytes, Offload::NONE);
        self.worker.forward(now, &self.batch, &mut self.tx);
        let mut sent = Vec::new();
        for port in self.tx.ports() {
            for record in self.tx.records(*port) {
                sent.push((port.get(), self.tx.pieces(record, &self.batch).collect::<Vec<_>>().concat()));
            }
        }
        told.sort();
        sent.sort();
        assert_eq!(told, sent, "explain and forward agree");
        sent
    }

    fn dropped(&self, port: u32, reason: DropReason) -> u64 {
        self.worker.counters().port(id(port)).dropped[reason.index()]
    }
}

#[test]
fn what_leaves_by_a_cable_is_copied_before_it_arrives_at_the_other_end() {
    let to_cable = Mirror { destinations: vec![id(CABLE)], ..mirror(OUT) };
    let mut switch = Switch::new([mirrored(to_cable), Bridge::default()], ports());
    let sent = switch.pass(A, &frame(None));
    let expected = [(B, None), (OUT, Some(10)), (FAR, None), (FAR_OUT, Some(10))];
    assert_eq!(sent, expected.map(|(port, tag)| (port, frame(tag))));
    assert_eq!(switch.worker.counters().mirror(0).frames, 1);
}

#[test]
fn what_has_crossed_a_cable_is_copied_in_the_bridge_it_comes_to() {
    for far in [
        Mirror { select_all: true, ..mirror(FAR_OUT) },
        Mirror { sources: vec![id(FAR_CABLE)], ..mirror(FAR_OUT) },
        Mirror { destinations: vec![id(FAR)], ..mirror(FAR_OUT) },
    ] {
        let mut switch = Switch::new([Bridge::default(), mirrored(far)], ports());
        let sent = switch.pass(A, &frame(None));
        let expected = [(B, None), (OUT, Some(10)), (FAR, None), (FAR_OUT, Some(10))];
        assert_eq!(sent, expected.map(|(port, tag)| (port, frame(tag))));
    }
    // Cut short, whatever was written anew on the way.
    for snaplen in [20, 24, 40] {
        let far = Mirror { select_all: true, snaplen: Some(snaplen), ..mirror(FAR_OUT) };
        let mut ends = ports();
        ends.iter_mut().filter(|port| port.id == id(FAR_CABLE)).for_each(|p| p.attachment = access());
        ends.iter_mut().filter(|port| port.id == id(CABLE)).for_each(|p| p.attachment = access());
        let mut switch = Switch::new([Bridge::default(), mirrored(far)], ends);
        let sent = switch.pass(OUT, &frame(Some(10)));
        let copy = frame(Some(10))[..usize::from(snaplen).max(24)].to_vec();
        assert_eq!(sent, [(A, frame(None)), (B, frame(None)), (FAR, frame(None)), (FAR_OUT, copy)]);
    }
}

#[test]
fn copies_cross_a_cable_and_nothing_comes_back() {
    let all = Mirror { select_all: true, ..mirror(CABLE) };
    let mut switch = Switch::new([mirrored(all), Bridge::default()], ports());
    let sent = switch.pass(A, &frame(None));
    let expected = [(B, None), (OUT, Some(10)), (FAR, None), (FAR_OUT, Some(10))];
    assert_eq!(sent, expected.map(|(port, tag)| (port, frame(tag))));
    assert_eq!(switch.pass(FAR, &frame(None)), [(FAR_OUT, frame(Some(10)))]);
    assert_eq!(switch.dropped(CABLE, DropReason::MirrorOutput), 1);
}

#[test]
fn copies_leave_by_an_ordinary_tunnel_and_what_it_brings_is_dropped() {
    let remote = IpAddr::from([192, 0, 2, 1]);
    let vni = Vni::new(7).unwrap();
    let tunnel = Tunnel {
        remote,
        local: None,
        udp_port: 4789,
        carries: Carries::Inside { in_vni: vni, out_vni: vni, attachment: Box::new(Attachment::trunk_all()) },
        floods: None,
        inner_vlan: InnerVlan::Strip,
        strict: false,
    };
    let all = Mirror { select_all: true, ..mirror(OUT) };
    let near = vec![port(0, A, access()), port(0, B, access()), port(0, OUT, Attachment::Tunnel(tunnel))];
    let mut switch = Switch::new([mirrored(all), Bridge::default()], near);
    let datagram = [&[8, 0, 0, 0, 0, 0, 7, 0][..], &frame(Some(10))].concat();
    assert_eq!(switch.pass(A, &frame(None)), [(B, frame(None)), (OUT, datagram.clone())]);
    switch.batch.clear();
    let arrival = Arrival::Underlay { local: remote, remote, udp_port: 4789 };
    switch.batch.copy_in(arrival, &datagram, Offload::NONE);
    switch.tx.clear();
    switch.worker.forward(Instant::from_secs(1), &switch.batch, &mut switch.tx);
    assert!(switch.tx.is_empty());
    assert_eq!(switch.dropped(OUT, DropReason::MirrorOutput), 1);
}

#[test]
fn what_rules_send_or_drop_is_copied_once() {
    let rule = |in_port, actions| Rule {
        id: in_port,
        matches: RuleMatch { in_port: Some(id(in_port)), ..RuleMatch::default() },
        actions,
    };
    let rules = || vec![rule(A, vec![RuleAction::Output(id(B))]), rule(B, vec![])];
    let all = Mirror { select_all: true, ..mirror(OUT) };
    let with = |mirror: Mirror, rules| {
        let near = Bridge { mirrors: vec![mirror], rules: Some(rules), ..Bridge::default() };
        Switch::new([near, Bridge::default()], ports())
    };
    let mut switch = with(all.clone(), rules());
    assert_eq!(switch.pass(A, &frame(None)), [(B, frame(None)), (OUT, frame(Some(10)))]);
    assert_eq!(switch.pass(B, &frame(None)), [(OUT, frame(Some(10)))]);
    assert_eq!(switch.dropped(B, DropReason::FlowDrop), 1);
    // A frame in no VLAN is nothing to copy.
    assert_eq!(switch.pass(A, &frame(Some(5))), [(B, frame(Some(5)))]);
    let to_b = Mirror { destinations: vec![id(B)], ..mirror(OUT) };
    assert_eq!(with(to_b, rules()).pass(A, &frame(None)), [(B, frame(None)), (OUT, frame(Some(10)))]);
    // Together with the normal way too.
    let both = vec![rule(A, vec![RuleAction::Output(id(B)), RuleAction::Normal])];
    let sent = with(all.clone(), both).pass(A, &frame(None));
    let of = |port| sent.iter().filter(|(to, _)| *to == port).count();
    assert_eq!((of(OUT), of(B), of(FAR)), (1, 2, 1));
    // A flood of rules spares whoever looks on.
    let sent = with(all, vec![rule(A, vec![RuleAction::Flood])]).pass(A, &frame(None));
    assert_eq!(sent.iter().filter(|(to, _)| *to == OUT).count(), 1);
}

#[test]
fn reports_that_cross_a_cable_are_shown_in_the_bridge_that_snoops() {
    let far = Bridge { snooping: Some(Snooping { flood_unregistered: true }), ..Bridge::default() };
    let mut switch = Switch::new([Bridge::default(), far], ports());
    // IGMPv2: a report for 239.1.2.3.
    let ip = [0x46, 0, 0, 32, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 1, 239, 1, 2, 3, 0x94, 4, 0, 0];
    let report = [0x16, 0, 0, 0, 239, 1, 2, 3];
    let frame = [&[1, 0, 0x5e, 1, 2, 3][..], &[2, 0, 0, 0, 0, 1], &[8, 0], &ip, &report, &[0; 14]].concat();
    switch.pass(A, &frame);
    let segment = Segment::new(1, vlan(10));
    let punt = Punt { frame: 0, from: 0, port: id(FAR_CABLE), segment, why: Why::Snoop };
    assert_eq!(switch.worker.punts(), [punt]);
}
