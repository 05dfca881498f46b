//! The body of the switch's main property: any configuration, any frames, any passage of time, and the core does
//! what the naive reference does, step by step. Property tests and fuzz targets feed it bytes; it panics when the
//! two part ways or a rule that needs no reference is broken.
//!
//! Every choice is drawn from the bytes, so that a fuzzer can steer both the configuration and the frames. Not
//! here: offload facts (see [`crate::vxlan_body`] and [`crate::offload_body`]); eviction from a full table, whose
//! order among equals has tests of its own.

use crate::driven::{Driven, Passed, from_peer};
use crate::frames::{Frame, describe, describe_all, hex, station, vxlan};
use crate::offload_body::Choices;
use crate::reference::{BridgeSpec, Reference, Sent, Spec};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::frame::Arrival;
use vswitch_core::port::{
    Attachment, Carries, Group, InnerVlan, Port, PortId, PriorityTags, Segment, Tunnel, VlanSet,
};
use vswitch_core::time::Instant;
use vswitch_core::verdict::{DropReason, Verdict, Why};
use vswitch_core::wire::ethernet::Mac;
use vswitch_core::wire::probe;
use vswitch_core::wire::vlan::{Priority, TPID_CTAG, TPID_STAG, Tag, Vlan};
use vswitch_core::wire::vxlan::{self as header, Vni};

/// The VLANs that ports and frames are drawn from.
pub const VLANS: [u16; 5] = [0, 10, 12, 20, 4094];
/// The numbers of peers begin here; of other ports, at 1.
pub const FIRST_PEER: u32 = 40;
/// The most steps one run takes.
const STEPS: usize = 60;

fn id(number: usize) -> PortId {
    u32::try_from(number).ok().and_then(PortId::new).expect("small")
}

fn one_of<T: Copy, const N: usize>(choices: &mut Choices<'_>, of: [T; N]) -> T {
    of[usize::from(choices.byte()) % N]
}

fn some_vlan(choices: &mut Choices<'_>) -> Vlan {
    Vlan::new(one_of(choices, VLANS)).expect("all are below 4095")
}

fn some_vlans(choices: &mut Choices<'_>) -> VlanSet {
    let bits = choices.byte();
    if bits & 0x80 == 0 {
        return VlanSet::all();
    }
    (0..).zip(VLANS).filter(|(at, _)| bits >> at & 1 != 0).filter_map(|(_, vlan)| Vlan::new(vlan)).collect()
}

/// The VNI of `vlan` in `bridge`.
#[must_use]
pub fn vni_of(bridge: usize, vlan: u16) -> Vni {
    u32::try_from(bridge * 5000 + usize::from(vlan)).ok().and_then(|n| Vni::new(10_000 + n)).expect("small")
}

/// The address of peer `n`: the two families in turn.
#[must_use]
pub fn peer_address(n: u8) -> IpAddr {
    if n.is_multiple_of(2) {
        Ipv4Addr::new(192, 0, 2, n).into()
    } else {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()).into()
    }
}

fn some_bridge(choices: &mut Choices<'_>, number: usize) -> BridgeSpec {
    let bits = choices.byte();
    let flooded = Vlan::new(VLANS[usize::from(bits >> 2) % VLANS.len()]).filter(|_| bits & 3 == 3);
    let named = choices.byte();
    BridgeSpec {
        forward_bpdu: bits & 0x80 != 0,
        keeps_vendor_protocols: bits & 1 != 0,
        flood_vlans: flooded.into_iter().collect(),
        vlan_limit: if bits & 0x40 != 0 { 2 } else { 1 },
        neigh_suppress: named & 0x80 != 0,
        rules: None,
        vnis: (0..)
            .zip(VLANS)
            .filter(|(at, _)| named >> at & 1 == 0)
            .filter_map(|(_, vlan)| Some((Vlan::new(vlan)?, vni_of(number, vlan))))
            .collect(),
    }
}

fn some_local_port(choices: &mut Choices<'_>, number: usize, bridges: usize) -> Port {
    let attachment = match choices.byte() % 5 {
        0 => Attachment::Access(some_vlan(choices)),
        1 => Attachment::Trunk { vlans: some_vlans(choices), native: None },
        2 => Attachment::native(some_vlan(choices), true, some_vlans(choices)),
        3 => Attachment::native(some_vlan(choices), false, some_vlans(choices)),
        _ => Attachment::Dot1qTunnel {
            vlan: some_vlan(choices),
            cvlans: Some(some_vlans(choices)).filter(|set| *set != VlanSet::all()),
            tpid: one_of(choices, [TPID_STAG, TPID_CTAG]),
        },
    };
    let mut port = Port::new(id(number), attachment);
    port.priority_tags = one_of(choices, [PriorityTags::No, PriorityTags::IfNonzero, PriorityTags::Always]);
    let bits = choices.byte();
    port.bridge = if bridges > 1 && bits & 3 == 3 { 1 } else { 0 };
    port.mac_limit = (bits >> 5 == 7).then_some(u32::from(bits >> 2) % 4);
    port
}

fn some_peer(choices: &mut Choices<'_>, n: u8, vnis: &[Vni]) -> Port {
    let bits = choices.byte();
    let some = choices.byte();
    let shared = vnis.iter().zip(0..8).filter(|(_, at)| some >> at & 1 != 0).map(|(vni, _)| *vni).collect();
    let hosted = if bits & 0x40 != 0 { Some(choices.byte()) } else { None };
    let floods = hosted.map(|hosted| {
        // Twice the same, and one that nobody has, say no more than once.
        let vnis = vnis.iter().chain(vnis.first()).zip(0..8);
        let hosted = vnis.filter(|(_, at)| hosted >> at & 1 != 0).map(|(vni, _)| *vni);
        hosted.chain([vni_of(7, 7)]).collect()
    });
    let mut port = Port::new(
        id(FIRST_PEER as usize + usize::from(n)),
        Attachment::Tunnel(Tunnel {
            remote: peer_address(n),
            local: None,
            udp_port: 4789,
            carries: Carries::PerVni((bits & 1 != 0).then_some(shared)),
            floods,
            inner_vlan: if bits & 2 != 0 { InnerVlan::Carry } else { InnerVlan::Strip },
            strict: bits & 4 != 0,
        }),
    );
    // A tunnel in no group is an ordinary port.
    port.group = if bits & 0x38 == 0x38 { Group::NONE } else { Group::MESH };
    port.mtu = if bits & 0x80 != 0 { 150 } else { 1500 };
    port
}

/// A configuration: one or two bridges, up to eight ports of every mode, up to four peers.
pub fn some_spec(choices: &mut Choices<'_>) -> Spec {
    let bits = choices.byte();
    let bridges: Vec<BridgeSpec> =
        (0..1 + usize::from(bits & 7 == 7)).map(|number| some_bridge(choices, number)).collect();
    let mut ports: Vec<Port> =
        (1..=2 + usize::from(bits >> 3) % 7).map(|n| some_local_port(choices, n, bridges.len())).collect();
    let vnis: Vec<Vni> = bridges.iter().flat_map(|bridge| bridge.vnis.values().copied()).collect();
    ports.extend((0..choices.byte() % 5).map(|n| some_peer(choices, n, &vnis)));
    let ageing = if bits & 0x40 != 0 { 10 } else { 300 };
    Spec { bridges, ports, mac_limit: 1024, ageing }
}

fn some_source(choices: &mut Choices<'_>) -> Mac {
    match choices.byte() {
        255 => Mac::from_u64(0),
        254 => Mac::BROADCAST,
        n => station(u32::from(n) % 8),
    }
}

fn some_destination(choices: &mut Choices<'_>) -> Mac {
    match choices.byte() {
        n @ 0..16 => Mac::from_u64(0x0180_c200_0000 | u64::from(n)),
        16 => Mac::from_u64(0x0180_c200_0010),
        17 => Mac::from_u64(0),
        // PVST+ and EAPS: protocols of vendors.
        18 => Mac::from_u64(0x0100_0ccc_cccd),
        19 => Mac::from_u64(0x00e0_2b00_0004),
        20..30 => Mac::from_u64(0x0100_5e00_0001),
        30..60 => Mac::BROADCAST,
        n => station(u32::from(n) % 10),
    }
}

fn some_tags(choices: &mut Choices<'_>, most: u8) -> Vec<Tag> {
    let depth = one_of(choices, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 5]).min(most);
    (0..depth)
        .map(|_| {
            let bits = choices.byte();
            let vid = if bits & 7 == 7 { one_of(choices, [4095, 7, 0, 10]) } else { one_of(choices, VLANS) };
            let pcp = if bits & 8 != 0 { bits >> 5 } else { 0 };
            let priority = Priority::new(pcp, bits & 0x18 == 0x18).expect("three bits");
            Tag::new(if bits & 16 != 0 && bits & 4 != 0 { TPID_STAG } else { TPID_CTAG }, priority, vid)
        })
        .collect()
}

/// A frame: mostly a good one, sometimes cut short, sometimes any bytes.
pub fn some_frame(choices: &mut Choices<'_>, most_tags: u8) -> Vec<u8> {
    let kind = choices.byte();
    if kind == 255 {
        let len = usize::from(choices.byte());
        return choices.bytes(len);
    }
    let (dst, src) = (some_destination(choices), some_source(choices));
    let frame = Frame::new(dst, src).tags(&some_tags(choices, most_tags));
    let frame = match kind % 8 {
        0 => frame.payload(one_of(choices, [0x9100, 0x8847, 0x0026, 0x8809]), &[kind; 50]),
        1 => {
            let len = usize::from(choices.byte());
            frame.payload(0x88b5, &vec![kind; len])
        }
        2 => {
            let (a, b) = (Ipv4Addr::new(10, 0, 0, kind).into(), Ipv4Addr::new(10, 0, 0, 9).into());
            frame.udp((a, 1000 + u16::from(kind)), (b, 53), &[kind; 20])
        }
        3 => frame.payload(0x88b5, &vec![1; 1430 + usize::from(kind)]),
        4..7 => some_neighbour(choices, frame),
        _ => frame,
    };
    let mut bytes = frame.bytes();
    if kind >= 248 {
        bytes.truncate(usize::from(choices.byte()) % 24);
    }
    bytes
}

/// ARP or Neighbor Discovery, one byte of it wrong now and then.
fn some_neighbour(choices: &mut Choices<'_>, frame: Frame) -> Frame {
    let (bits, wrong) = (choices.byte(), choices.byte());
    let dst = if wrong & 0x40 != 0 { Mac::BROADCAST } else { frame.dst };
    let frame = Frame { dst, ..frame };
    let mut frame = if bits & 1 == 0 {
        let address = |bits| Ipv4Addr::new(10, 0, 0, bits & 3);
        let (src, target) = (frame.src, Mac::from_u64(0));
        frame.arp(1 + u16::from(bits >> 1 & 1), (src, address(bits >> 2)), (target, address(bits >> 4)))
    } else {
        let address = |bits| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(bits & 3));
        let (src, target) = (address(bits >> 2), address(bits >> 4));
        frame.neighbour((133 + (bits >> 1 & 3), 0), (src, target), target, &[])
    };
    if wrong & 0x80 != 0 {
        let at = usize::from(wrong) % frame.rest.len();
        frame.rest[at] ^= 1 << (bits >> 5);
    }
    frame
}

/// A datagram of VXLAN: mostly a good one.
pub fn some_datagram(choices: &mut Choices<'_>, spec: &Spec) -> Vec<u8> {
    let vnis: Vec<Vni> = spec.bridges.iter().flat_map(|bridge| bridge.vnis.values().copied()).collect();
    let pick = usize::from(choices.byte());
    let vni = vnis.get(pick % (vnis.len() + usize::from(pick > 240)).max(1)).copied();
    let most_tags = if choices.byte() & 3 == 0 { 3 } else { 0 };
    let inner = some_frame(choices, most_tags);
    let mut bytes = vxlan(vni.unwrap_or_else(|| vni_of(7, 7)), &inner);
    match choices.byte() {
        bits @ 0..16 => bytes[usize::from(bits) % 8] ^= 1 << (choices.byte() % 8),
        16 => bytes.truncate(usize::from(choices.byte()) % 30),
        17 => bytes[0] = 0,
        18..24 => {
            bytes = [&header::OAM_HEADER[..], &probe::MAGIC, &bytes].concat();
            bytes[0] |= one_of(choices, [0, 0, 0, 8, 0x80]);
        }
        _ => {}
    }
    bytes
}

/// What arrives next, and where.
pub fn some_arrival(choices: &mut Choices<'_>, spec: &Spec) -> (Arrival, Vec<u8>) {
    let locals: Vec<PortId> =
        spec.ports.iter().filter(|port| port.tunnel().is_none()).map(|port| port.id).collect();
    let peers: Vec<IpAddr> =
        spec.ports.iter().filter_map(|port| port.tunnel()).map(|tunnel| tunnel.remote).collect();
    let (kind, pick) = (choices.byte(), usize::from(choices.byte()));
    match kind {
        255 => (Arrival::Port(id(30)), some_frame(choices, 5)),
        254 => (from_peer(peer_address(200)), some_datagram(choices, spec)),
        2..90 if !peers.is_empty() => {
            let remote = match peers[pick % peers.len()] {
                // As an IPv6 socket shows an IPv4 peer.
                IpAddr::V4(address) if kind == 2 => address.to_ipv6_mapped().into(),
                remote => remote,
            };
            (from_peer(remote), some_datagram(choices, spec))
        }
        _ => (Arrival::Port(locals[pick % locals.len()]), some_frame(choices, 5)),
    }
}

/// What `spec` and the frame say of the result without any model.
fn check_rules(spec: &Spec, arrival: Arrival, passed: &Passed) {
    let port_of = |id: PortId| spec.ports.iter().find(|port| port.id == id).expect("it sent something");
    let from = match arrival {
        Arrival::Port(id) => spec.ports.iter().find(|port| port.id == id),
        Arrival::Underlay { remote, .. } => {
            spec.ports.iter().find(|p| p.tunnel().is_some_and(|t| t.remote == remote.to_canonical()))
        }
    };
    for (n, (to, bytes)) in passed.sent.iter().enumerate() {
        let from = from.expect("what no port brought does not leave");
        let to = port_of(*to);
        assert_ne!(from.id, to.id, "it leaves by the port it came in by");
        assert!(from.group == Group::NONE || from.group != to.group, "it stays in its group");
        assert!(n == 0 || passed.sent[n - 1].0 != to.id, "it leaves twice by port {}", to.id);
        let inner = match to.tunnel() {
            Some(_) => {
                assert_eq!((&bytes[..4], bytes[7]), (&[8, 0, 0, 0][..], 0), "header {}", hex(&bytes[..8]));
                &bytes[8..]
            }
            None => &bytes[..],
        };
        assert!(Frame::parse(inner).is_some(), "what leaves is no frame: {}", hex(bytes));
    }
}

/// How often frames met each end: `"sent"`, the name of a drop, or what it was handed out for instead.
pub type Ends = BTreeMap<&'static str, u64>;

/// Two switches of one configuration, the core and the reference, fed the same steps; returns what became of the
/// frames.
///
/// # Panics
/// When a property does not hold.
pub fn switch_body(data: &[u8]) -> Ends {
    let mut ends = Ends::new();
    let choices = &mut Choices::new(data);
    let spec = some_spec(choices);
    let mut core = Driven::new(&spec);
    let mut naive = Reference::new(spec.clone());
    let mut now = 0u64;
    // Who was seen least recently within one second, the two tell apart differently.
    let one_a_second = spec.ports.iter().any(|port| port.mac_limit.is_some());
    for _ in 0..choices.byte() % 4 {
        let port = id(1 + usize::from(choices.byte()) % 8);
        let (vlan, mac) = (some_vlan(choices), station(u32::from(choices.byte()) % 8));
        if let Some(known) = spec.ports.iter().find(|p| p.id == port && p.tunnel().is_none()) {
            let segment = Segment::new(known.bridge, vlan).expect("two bridges at most");
            assert_eq!(core.macs().add_static(segment, mac, port), Ok(()));
            assert!(naive.stations.set((known.bridge, vlan, mac), port));
        }
    }
    for step in 0..STEPS {
        now += u64::from(one_a_second);
        match choices.byte() {
            0 => {
                core.macs().flush();
                naive.stations.flush(|_| true);
            }
            n @ 1..16 => now += u64::from(n),
            n @ 16..20 => now += u64::from(n) * 10,
            _ => {}
        }
        let (arrival, bytes) = some_arrival(choices, &spec);
        let passed = core.pass(Instant::from_secs(now), arrival, &bytes);
        let (expected, dropped) = match arrival {
            Arrival::Port(port) => (naive.frame_in(now, port, &bytes), naive.dropped()),
            Arrival::Underlay { remote, .. } => (naive.datagram_in(now, remote, &bytes), naive.dropped()),
        };
        check_rules(&spec, arrival, &passed);
        let punted = passed.punts.iter().map(|punt| punt.why).find(|why| !matches!(why, Why::TooBig { .. }));
        assert_eq!(punted, naive.punted(), "{}", describe(&bytes));
        if passed.sent != expected || !same_reason(passed.dropped, dropped) {
            panic!("{}", parted(&spec, step, now, arrival, &bytes, &passed, &expected, dropped));
        }
        let end = match passed.story.verdict {
            Verdict::Punt(why) => why.name(),
            _ if punted == Some(Why::NeighSeen) => Why::NeighSeen.name(),
            _ => passed.dropped.map_or("sent", DropReason::name),
        };
        *ends.entry(end).or_default() += 1;
        if let (Some(Why::Neigh), Arrival::Port(port)) = (punted, arrival) {
            let back = core.resume(Instant::from_secs(now), arrival, &bytes);
            assert_eq!(back, (naive.resume(now, port, &bytes), naive.dropped()), "{}", describe(&bytes));
        }
        if choices.byte() == 1 {
            core.worker().tick(Instant::from_secs(now));
        }
    }
    ends
}

const fn same_reason(core: Option<DropReason>, naive: Option<DropReason>) -> bool {
    match (core, naive) {
        (None, None) => true,
        (Some(a), Some(b)) => a as u8 == b as u8,
        _ => false,
    }
}

#[expect(clippy::too_many_arguments, reason = "everything a person needs to see in one message")]
fn parted(
    spec: &Spec,
    step: usize,
    now: u64,
    arrival: Arrival,
    bytes: &[u8],
    passed: &Passed,
    expected: &Sent,
    dropped: Option<DropReason>,
) -> String {
    let inner = if matches!(arrival, Arrival::Port(_)) { bytes } else { bytes.get(8..).unwrap_or_default() };
    let story: String =
        passed.story.steps.iter().map(|s| format!("    {}\n", s.text(&|port| port.to_string()))).collect();
    format!(
        "step {step} at {now} s, {arrival:?}\n  {}\n  {}\nthe core sent ({:?})\n{}and the reference ({dropped:?})\n{}\
         {story}{spec:#?}",
        describe(inner),
        hex(bytes),
        passed.dropped,
        describe_all(&passed.sent),
        describe_all(expected),
    )
}
