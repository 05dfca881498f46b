//! Mirrors, one behaviour at a time: which frames are copied, where the copies go, in which dress, and how often.
#![allow(clippy::unwrap_used, reason = "a test's panics are failures")]

use std::sync::Arc;
use std::time::Duration;
use vswitch_core::port::VlanSet;
use vswitch_core::switch::{Bridge, Mirror, MirrorCount, MirrorTo, Step, Topology, Worker};
use vswitch_core::{
    Arrival, Attachment, Batch, DropReason, Instant, Mac, MacTable, Offload, Port, PortId, Segment, TxList,
    Verdict, Vlan,
};

const A: u32 = 1;
const B: u32 = 2;
const C: u32 = 3;
/// The port that looks on.
const OUT: u32 = 9;

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

/// One that selects nothing.
fn mirror(number: u32, output: MirrorTo) -> Mirror {
    let (sources, destinations) = (vec![], vec![]);
    Mirror { id: number, select_all: false, sources, destinations, vlans: None, output, snaplen: None }
}

fn all(output: MirrorTo) -> Mirror {
    Mirror { select_all: true, ..mirror(0, output) }
}

fn to_port() -> MirrorTo {
    MirrorTo::Port(id(OUT))
}

fn station(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

fn frame(dst: [u8; 6], src: [u8; 6], tag: Option<u16>) -> Vec<u8> {
    let mut bytes = [dst, src].concat();
    if let Some(vid) = tag {
        bytes.extend([0x81, 0x00]);
        bytes.extend(vid.to_be_bytes());
    }
    bytes.extend([0x88, 0xb5]);
    bytes.extend([7; 46]);
    bytes
}

struct Switch {
    worker: Worker,
    macs: Arc<MacTable>,
    tx: TxList,
    batch: Batch,
}

impl Switch {
    fn new(bridge: Bridge, ports: impl IntoIterator<Item = Port>) -> Self {
        Self::of_bridges(vec![bridge], ports)
    }

    fn of_bridges(bridges: Vec<Bridge>, ports: impl IntoIterator<Item = Port>) -> Self {
        let topology = Topology::new(bridges, ports).unwrap();
        let macs = Arc::new(MacTable::few_ports(100, Duration::from_secs(300), [1, 2]));
        topology.ports().for_each(|port| macs.bind(port.id, None));
        let worker = Worker::new(Arc::new(topology), Arc::clone(&macs));
        Self { worker, macs, tx: TxList::new(), batch: Batch::new(1) }
    }

    /// With access ports A, B and C in VLAN 10, and a trunk that looks on.
    fn of(mirrors: Vec<Mirror>) -> Self {
        let ports = [access(A, 10), access(B, 10), access(C, 10), trunk(OUT)];
        Self::new(Bridge { mirrors, ..Bridge::default() }, ports)
    }

    fn knows(self, port: u32, tag: u16, station: [u8; 6]) -> Self {
        let segment = Segment::new(0, vlan(tag)).unwrap();
        self.macs.add_static(segment, Mac::new(station), id(port)).unwrap();
        self
    }

    /// What leaves, by rising port, and that `explain` says the same.
    fn pass(&mut self, port: u32, bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let now = Instant::from_secs(1);
        let mut told: Vec<_> = (self.worker.explain(now, Arrival::Port(id(port)), bytes).outputs.into_iter())
            .map(|output| (output.port.get(), output.bytes))
            .collect();
        told.sort();
        self.batch.clear();
        self.tx.clear();
        self.batch.copy_in(Arrival::Port(id(port)), bytes, Offload::NONE);
        self.worker.forward(now, &self.batch, &mut self.tx);
        let mut sent = Vec::new();
        for port in self.tx.ports() {
            for record in self.tx.records(*port) {
                sent.push((port.get(), self.tx.pieces(record, &self.batch).collect::<Vec<_>>().concat()));
            }
        }
        sent.sort();
        assert_eq!(told, sent, "explain and forward agree");
        sent
    }

    /// By which ports it leaves, once for each time.
    fn ports(&mut self, port: u32, bytes: &[u8]) -> Vec<u32> {
        self.pass(port, bytes).into_iter().map(|(port, _)| port).collect()
    }

    fn dropped(&self, port: u32, reason: DropReason) -> u64 {
        self.worker.counters().port(id(port)).dropped[reason.index()]
    }
}

#[test]
fn a_frame_is_copied_once_however_many_conditions_it_meets() {
    let mut switch = Switch::of(vec![all(to_port())]);
    let flood = frame([0xff; 6], station(1), None);
    // Its own two, and one copy.
    assert_eq!(switch.ports(A, &flood), [B, C, OUT]);
    assert_eq!(switch.ports(B, &frame(station(1), station(2), None)), [A, OUT]);
    let bytes = 2 * u64::try_from(flood.len()).unwrap();
    assert_eq!(switch.worker.counters().mirror(0), MirrorCount { frames: 2, bytes });
    assert_eq!(switch.worker.counters().mirror(1), MirrorCount::default());
}

#[test]
fn a_copy_wears_the_frames_vlan_as_the_output_port_shows_it() {
    let ports = |out: Attachment| [access(A, 10), access(B, 10), Port::new(id(OUT), out)];
    let one: VlanSet = [vlan(20)].into_iter().collect();
    for (out, tag) in [
        (Attachment::trunk_all(), Some(10)),
        // A copy is output whether the port carries the VLAN or not.
        (Attachment::Trunk { vlans: one, native: None }, Some(10)),
        (Attachment::Access(vlan(20)), None),
        (Attachment::native(vlan(10), false, VlanSet::all()), None),
        (Attachment::dot1q_tunnel(vlan(30), None), None),
    ] {
        let bridge = Bridge { mirrors: vec![all(to_port())], ..Bridge::default() };
        let mut switch = Switch::new(bridge, ports(out)).knows(B, 10, station(2));
        let sent = switch.pass(A, &frame(station(2), station(1), None));
        let expected = frame(station(2), station(1), tag);
        assert_eq!(sent, [(B, frame(station(2), station(1), None)), (OUT, expected)]);
    }
}

#[test]
fn sources_select_what_arrives_and_destinations_what_leaves() {
    let from = Mirror { sources: vec![id(A)], ..mirror(0, to_port()) };
    let into = Mirror { destinations: vec![id(A)], ..mirror(0, to_port()) };
    let (there, back) = (frame(station(2), station(1), None), frame(station(1), station(2), None));
    for (mirror, copied) in [(from, [true, false]), (into, [false, true])] {
        let mut switch = Switch::of(vec![mirror]).knows(A, 10, station(1)).knows(B, 10, station(2));
        assert_eq!(switch.ports(A, &there).contains(&OUT), copied[0]);
        assert_eq!(switch.ports(B, &back).contains(&OUT), copied[1]);
        // A flood leaves by it as well.
        assert_eq!(switch.ports(C, &frame([0xff; 6], station(3), None)).contains(&OUT), copied[1]);
    }
}

#[test]
fn only_frames_of_the_vlans_that_are_selected_are_copied() {
    let vlans = Some([vlan(20)].into_iter().collect());
    let mirrors = vec![Mirror { vlans, ..all(to_port()) }];
    let ports = [trunk(A), trunk(B), trunk(OUT)];
    let mut switch = Switch::new(Bridge { mirrors, ..Bridge::default() }, ports);
    for (tag, expected) in [(None, vec![B]), (Some(10), vec![B]), (Some(20), vec![B, OUT])] {
        assert_eq!(switch.ports(A, &frame([0xff; 6], station(1), tag)), expected, "{tag:?}");
    }
    assert_eq!(switch.worker.counters().mirror(0).frames, 1);
}

#[test]
fn an_output_port_carries_nothing_else_and_what_arrives_there_is_dropped() {
    let quiet = Mirror { sources: vec![id(B)], ..mirror(0, to_port()) };
    let mut switch = Switch::of(vec![quiet]).knows(OUT, 10, station(9));
    assert_eq!(switch.ports(A, &frame([0xff; 6], station(1), None)), [B, C]);
    assert_eq!(switch.ports(A, &frame(station(9), station(1), None)), [] as [u32; 0]);
    assert_eq!(switch.dropped(OUT, DropReason::VlanNotOnEgress), 1);
    assert_eq!(switch.ports(OUT, &frame(station(1), station(9), Some(10))), [] as [u32; 0]);
    assert_eq!(switch.dropped(OUT, DropReason::MirrorOutput), 1);
    assert_eq!(switch.worker.counters().port(id(OUT)).rx_frames, 1);
}

#[test]
fn an_admitted_frame_that_goes_nowhere_is_copied_and_one_that_is_not_admitted_is_not() {
    let mut switch = Switch::of(vec![all(to_port())]).knows(A, 10, station(8));
    // For somebody behind its own port, and for bridges alone.
    for (dst, reason) in
        [(station(8), DropReason::SamePort), ([1, 0x80, 0xc2, 0, 0, 0], DropReason::ReservedGroup)]
    {
        assert_eq!(switch.pass(A, &frame(dst, station(1), None)), [(OUT, frame(dst, station(1), Some(10)))]);
        assert_eq!(switch.dropped(A, reason), 1);
    }
    assert_eq!(switch.ports(A, &frame([0xff; 6], station(1), Some(10))), [] as [u32; 0]);
    assert_eq!(switch.dropped(A, DropReason::VlanTaggedOnAccess), 1);
    let told = switch.worker.explain(
        Instant::from_secs(1),
        Arrival::Port(id(A)),
        &frame(station(8), station(1), None),
    );
    assert_eq!(told.verdict, Verdict::Drop(DropReason::SamePort));
    assert!(told.steps.contains(&Step::Mirrored { mirror: 0 }));
}

#[test]
fn mirrors_with_one_output_make_one_copy_and_those_with_others_one_each() {
    let other = MirrorTo::Port(id(8));
    let mirrors = vec![all(to_port()), Mirror { id: 1, ..all(to_port()) }, Mirror { id: 2, ..all(other) }];
    let ports = [access(A, 10), access(B, 10), trunk(8), trunk(OUT)];
    let mut switch = Switch::new(Bridge { mirrors, ..Bridge::default() }, ports);
    assert_eq!(switch.ports(A, &frame([0xff; 6], station(1), None)), [B, 8, OUT]);
    assert_eq!([0, 1, 2].map(|id| switch.worker.counters().mirror(id).frames), [1, 0, 1]);
}

#[test]
fn a_copy_is_cut_to_its_snaplen_and_the_frame_is_not() {
    for (snaplen, len) in [(64, 64), (30, 30), (1000, 64)] {
        let mirrors = vec![Mirror { snaplen: Some(snaplen), ..all(to_port()) }];
        let mut switch = Switch::of(mirrors).knows(B, 10, station(2));
        let original = frame(station(2), station(1), None);
        let tagged = frame(station(2), station(1), Some(10));
        assert_eq!(tagged.len(), 64);
        let copy = tagged[..len].to_vec();
        assert_eq!(switch.pass(A, &original), [(B, original), (OUT, copy)]);
    }
}

#[test]
fn an_output_vlan_hears_copies_with_its_own_tag() {
    let rspan = all(MirrorTo::Vlan(vlan(99)));
    let ports = [access(A, 10), access(B, 10), access(C, 99), trunk(4)];
    let bridge = Bridge { mirrors: vec![rspan], ..Bridge::default() };
    let mut switch = Switch::new(bridge, ports).knows(B, 10, station(2));
    let original = frame(station(2), station(1), None);
    let tagged = frame(station(2), station(1), Some(99));
    let expected = [(B, original.clone()), (C, original.clone()), (4, tagged)];
    assert_eq!(switch.pass(A, &original), expected);
    // As in Open vSwitch a trunk hears the copy of what it sent, in the other VLAN.
    let sent = switch.pass(4, &frame(station(2), station(1), Some(10)));
    assert_eq!(sent.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [B, C, 4]);
    // What is in that VLAN already is not copied, nor what is for bridges.
    assert_eq!(switch.ports(C, &frame([0xff; 6], station(3), None)), [4]);
    assert_eq!(switch.ports(A, &frame([1, 0x80, 0xc2, 0, 0, 0], station(1), None)), [] as [u32; 0]);
}

#[test]
fn a_mirror_to_a_port_that_is_not_there_harms_nobody() {
    let mirrors = vec![all(MirrorTo::Port(id(50))), Mirror { id: 70_000, ..all(to_port()) }];
    let mut switch = Switch::of(mirrors);
    assert_eq!(switch.ports(A, &frame([0xff; 6], station(1), None)), [B, C, OUT]);
    assert_eq!(switch.worker.counters().mirror(70_000), MirrorCount::default());
}

#[test]
fn a_frame_that_the_switch_lets_in_again_is_not_copied_again_on_arrival() {
    let mirrors = vec![Mirror { sources: vec![id(A)], ..mirror(0, to_port()) }];
    let mut switch = Switch::of(mirrors);
    switch.batch.copy_in(Arrival::Port(id(A)), &frame([0xff; 6], station(1), None), Offload::NONE);
    switch.worker.resume(Instant::from_secs(1), &switch.batch, &mut switch.tx);
    assert_eq!(switch.tx.ports(), [id(B), id(C)]);
}

#[test]
fn a_mirrored_superframe_is_copied_whole_with_what_it_owes() {
    use vswitch_core::offload::{Checksum, Gso, GsoKind};
    let mut switch = Switch::of(vec![all(to_port())]).knows(B, 10, station(2));
    let mut bytes = frame(station(2), station(1), None);
    bytes.resize(4000, 0);
    let checksum = Some(Checksum { start: 34, offset: 16 });
    let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1000, header_len: 54 });
    switch.batch = Batch::new(1);
    switch.batch.copy_in(Arrival::Port(id(A)), &bytes, Offload { checksum, gso });
    switch.worker.forward(Instant::from_secs(1), &switch.batch, &mut switch.tx);
    let copy = switch.tx.records(id(OUT)).next().unwrap();
    // The tag moves everything by four.
    assert_eq!(copy.offload.checksum.map(|checksum| checksum.start), Some(38));
    assert_eq!(copy.offload.gso.map(|gso| (gso.size, gso.header_len)), Some((1000, 58)));
    assert_eq!(switch.tx.records(id(B)).next().unwrap().offload, Offload { checksum, gso });
}

/// Two bridges and a cable between them: A and OUT in the first, B and 8 in the second, 5 and 6 its ends.
fn cabled(first: Bridge, second: Bridge) -> Switch {
    let far = |mut port: Port| {
        port.bridge = 1;
        port
    };
    let end = |number: u32, other: u32| {
        let mut port = trunk(number);
        port.patch = Some(id(other));
        port
    };
    let ports = [access(A, 10), end(5, 6), trunk(OUT), far(end(6, 5)), far(access(B, 10)), far(trunk(8))];
    Switch::of_bridges(vec![first, second], ports)
}

#[test]
fn what_crosses_a_cable_is_copied_at_both_ends_by_the_mirrors_of_each() {
    let into_cable = Mirror { destinations: vec![id(5)], ..mirror(0, to_port()) };
    let from_cable = Mirror { id: 1, sources: vec![id(6)], ..mirror(1, MirrorTo::Port(id(8))) };
    let with = |mirror| Bridge { mirrors: vec![mirror], ..Bridge::default() };
    let mut switch = cabled(with(into_cable), with(from_cable));
    let (plain, tagged) = (frame([0xff; 6], station(1), None), frame([0xff; 6], station(1), Some(10)));
    assert_eq!(switch.pass(A, &plain), [(B, plain.clone()), (8, tagged.clone()), (OUT, tagged)]);
    assert_eq!([0, 1].map(|id| switch.worker.counters().mirror(id).frames), [1, 1]);
    // From the other side neither looks on.
    assert_eq!(switch.ports(B, &frame([0xff; 6], station(2), None)), [A]);
}

#[test]
fn a_copy_that_crosses_a_cable_is_as_short_as_its_mirror_says() {
    // Everything of the first bridge is copied into the cable, and a trunk hears it in the second.
    let mirrors = vec![Mirror { snaplen: Some(40), ..all(MirrorTo::Port(id(5))) }];
    let mut switch = cabled(Bridge { mirrors, ..Bridge::default() }, Bridge::default());
    let original = frame([0xff; 6], station(1), None);
    let tagged = frame([0xff; 6], station(1), Some(10));
    let sent = switch.pass(A, &original);
    let expected = [(B, original[..36].to_vec()), (8, tagged[..40].to_vec()), (OUT, tagged)];
    assert_eq!(sent, expected);
}

#[test]
fn a_copy_into_an_ordinary_tunnel_wears_its_vni() {
    use vswitch_core::port::{Carries, InnerVlan, Tunnel};
    let vni = vswitch_core::Vni::new(77).unwrap();
    let carries =
        Carries::Inside { in_vni: vni, out_vni: vni, attachment: Box::new(Attachment::trunk_all()) };
    let tunnel = Tunnel {
        remote: [192, 0, 2, 1].into(),
        local: None,
        udp_port: 4789,
        carries,
        floods: None,
        inner_vlan: InnerVlan::Carry,
        strict: false,
    };
    let ports = [access(A, 10), access(B, 10), Port::new(id(OUT), Attachment::Tunnel(tunnel))];
    let bridge = Bridge { mirrors: vec![all(to_port())], ..Bridge::default() };
    let mut switch = Switch::new(bridge, ports).knows(B, 10, station(2));
    let original = frame(station(2), station(1), None);
    let copy = [&[8, 0, 0, 0, 0, 0, 77, 0][..], &frame(station(2), station(1), Some(10))].concat();
    assert_eq!(switch.pass(A, &original), [(B, original), (OUT, copy.clone())]);
    // What comes back by it is dropped.
    let back =
        Arrival::Underlay { local: [0, 0, 0, 0].into(), remote: [192, 0, 2, 1].into(), udp_port: 4789 };
    let told = switch.worker.explain(Instant::from_secs(1), back, &copy);
    assert_eq!(told.verdict, Verdict::Drop(DropReason::MirrorOutput));
}

#[test]
fn in_a_bridge_with_rules_a_frame_is_copied_once_whatever_they_do_with_it() {
    use RuleAction::{Flood, Normal, Output};
    use vswitch_core::switch::{Rule, RuleAction, RuleMatch};
    let source = Mirror { sources: vec![id(A)], ..mirror(0, to_port()) };
    let destination = Mirror { destinations: vec![id(B)], ..mirror(0, to_port()) };
    let cases: [(Vec<RuleAction>, Vec<u32>, [bool; 2]); 6] = [
        (vec![], vec![], [true, false]),
        (vec![Output(id(B))], vec![B], [true, true]),
        (vec![Output(id(C))], vec![C], [true, false]),
        (vec![Flood], vec![B, C], [true, true]),
        (vec![Normal], vec![B, C], [true, true]),
        (vec![Output(id(B)), Normal], vec![B, B, C], [true, true]),
    ];
    for (actions, expected, copied) in cases {
        for (mirrors, copied) in [(vec![source.clone()], copied[0]), (vec![destination.clone()], copied[1])] {
            let rules = Some(vec![Rule { id: 0, matches: RuleMatch::default(), actions: actions.clone() }]);
            let ports = [access(A, 10), access(B, 10), access(C, 10), trunk(OUT)];
            let mut switch = Switch::new(Bridge { mirrors, rules, ..Bridge::default() }, ports);
            let sent = switch.pass(A, &frame([0xff; 6], station(1), None));
            let copies: Vec<_> = sent.iter().filter(|(port, _)| *port == OUT).collect();
            let copy = (OUT, frame([0xff; 6], station(1), Some(10)));
            assert_eq!(copies, if copied { vec![&copy] } else { vec![] }, "{actions:?}");
            let others: Vec<u32> = sent.iter().map(|(port, _)| *port).filter(|port| *port != OUT).collect();
            assert_eq!(others, expected, "{actions:?}");
            // What its VLAN would not have let in is not shown, though the rules send it.
            let sent = switch.ports(A, &frame([0xff; 6], station(1), Some(20)));
            assert!(!sent.contains(&OUT), "{actions:?}");
        }
    }
}
