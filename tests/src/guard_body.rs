//! What must hold for any frame that a guarded port sends: the body that the fuzz target and the property tests share.
//!
//! What the guard should say is found by another parser, pnet's, and by rules written down a second time and more naively:
//! nothing of the product's parsing is used. Not here: particular frames (see `tests/guard.rs`).

use crate::driven::Driven;
use crate::frames::{hex, station};
use crate::reference::Spec;
use pnet_packet::Packet;
use pnet_packet::arp::ArpPacket;
use pnet_packet::ethernet::EthernetPacket;
use pnet_packet::icmpv6::Icmpv6Packet;
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv6::Ipv6Packet;
use pnet_packet::udp::UdpPacket;
use pnet_packet::vlan::VlanPacket;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use vswitch_core::port::{Guard, PortId};
use vswitch_core::switch::Step;
use vswitch_core::{Arrival, Attachment, DropReason, Instant, Port};

/// The guarded port, and one that hears it.
const GUARDED: u32 = 1;
const OTHER: u32 = 2;

/// The station behind the port.
const OWN: u32 = 1;
/// Its addresses, and those of all that begin like 192.0.2 and fd02.
const OWN_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
/// What it makes of its MAC address, 02:00:00:00:00:01.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1);

/// What the port is guarded by.
#[must_use]
pub fn guard() -> Guard {
    let addresses = vec![
        (OWN_V4.into(), 32),
        (OWN_V6.into(), 128),
        (Ipv4Addr::new(192, 0, 2, 0).into(), 24),
        (Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 0).into(), 16),
    ];
    Guard { mac: station(OWN), addresses }
}

/// Two trunks of all VLANs, the first one guarded or not.
fn switch(guard: Option<Guard>) -> Driven {
    let [mut guarded, other] = [GUARDED, OTHER]
        .map(|number| Port::new(PortId::new(number).expect("a small number"), Attachment::trunk_all()));
    guarded.guard = guard.map(Arc::new);
    let mut spec = Spec::new(vec![guarded, other]);
    spec.mac_limit = 10;
    Driven::new(&spec)
}

/// Bytes to choose by; zeros when there are no more.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }
}

/// The frame that `data` means: the first byte chooses what to begin with, or that the rest is the frame; the second one in
/// which dress; then come places and bytes to put there, and perhaps a length to cut to.
#[must_use]
pub fn frame_of(data: &[u8]) -> Vec<u8> {
    let mut choices = Choices(data);
    let base = choices.byte() % 32;
    if base == 0 {
        return choices.0.to_vec();
    }
    let dress = choices.byte();
    let (ethertype, packet) = packet(base, usize::from(dress >> 3 & 3), &mut choices);
    let mut frame = vec![0xff; 6];
    frame.extend(station(OWN).bytes());
    for _ in 0..dress & 3 {
        frame.extend([[0x81, 0], [0x88, 0xa8]][usize::from(choices.byte() & 1)]);
        frame.extend([0, 0]);
    }
    if dress & 4 != 0 {
        // Whatever length stands here.
        frame.extend([
            0,
            choices.byte(),
            0xaa,
            0xaa,
            3,
            0,
            0,
            if choices.byte() & 1 == 0 { 0 } else { 0xf8 },
        ]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    if dress & 0x80 != 0 {
        frame.truncate(usize::from(choices.byte()));
    }
    let edits = choices.0.as_chunks::<2>().0;
    for [at, byte] in edits {
        let at = usize::from(*at) % frame.len().max(1);
        if let Some(place) = frame.get_mut(at) {
            *place = *byte;
        }
    }
    frame
}

fn packet(base: u8, extensions: usize, choices: &mut Choices<'_>) -> (u16, Vec<u8>) {
    let mac = station(OWN).bytes();
    let none = Ipv4Addr::UNSPECIFIED;
    let all = Ipv4Addr::BROADCAST;
    let peer = Ipv4Addr::new(10, 0, 0, 9);
    let mut v6 =
        |source: Ipv6Addr, next: u8, upper: &[u8]| (0x86dd, ipv6(source, next, upper, extensions, choices));
    let nowhere = Ipv6Addr::UNSPECIFIED;
    let option = |kind: u8| [&[kind, 1][..], &mac].concat();
    let discovery = |kind: u8, target: Ipv6Addr, options: &[u8]| {
        [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), options].concat()
    };
    match base {
        1 => (0x0806, arp(1, OWN_V4, peer)),
        2 => (0x0806, arp(1, none, OWN_V4)),
        3 => (0x0806, arp(2, Ipv4Addr::new(192, 0, 2, 77), peer)),
        4 => (0x0800, ipv4(OWN_V4, peer, 17, 0, &udp(4000, 53))),
        5 => (0x0800, ipv4(none, all, 17, 0, &udp(68, 67))),
        6 => (0x0800, ipv4(OWN_V4, all, 17, 0, &udp(67, 68))),
        7 => (0x0800, ipv4(OWN_V4, peer, 6, 0, &[0; 20])),
        8 => (0x0800, ipv4(OWN_V4, peer, 17, 0x2000, &udp(4000, 53))),
        9 => (0x0800, ipv4(OWN_V4, peer, 17, 1, &udp(67, 68))),
        10 => (0x0800, ipv4(peer, OWN_V4, 1, 0, &[8; 8])),
        11 => v6(OWN_V6, 17, &udp(4000, 53)),
        12 => v6(LINK_LOCAL, 17, &udp(546, 547)),
        13 => v6(LINK_LOCAL, 17, &udp(547, 546)),
        14 => v6(OWN_V6, 6, &[0; 20]),
        15 => v6(OWN_V6, 58, &discovery(135, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9), &option(1))),
        16 => v6(nowhere, 58, &discovery(135, OWN_V6, &[14, 1, 0, 0, 0, 0, 0, 0])),
        17 => v6(OWN_V6, 58, &discovery(136, OWN_V6, &option(2))),
        18 => v6(LINK_LOCAL, 58, &discovery(136, LINK_LOCAL, &option(2))),
        19 => v6(LINK_LOCAL, 58, &[&[133, 0, 0, 0, 0, 0, 0, 0][..], &option(1)].concat()),
        20 => v6(LINK_LOCAL, 58, &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]),
        21 => v6(LINK_LOCAL, 58, &discovery(137, OWN_V6, &OWN_V6.octets())),
        22 => v6(nowhere, 58, &[143, 0, 0, 0, 0, 0, 0, 0]),
        23 => v6(nowhere, 58, &discovery(136, OWN_V6, &option(2))),
        24 => v6(OWN_V6, 58, &[128, 0, 0, 0, 0, 0, 0, 0]),
        25 => v6(Ipv6Addr::new(0xfd02, 1, 2, 3, 4, 5, 6, 7), 59, &[]),
        26 => v6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3), 17, &udp(4000, 53)),
        27 => v6(OWN_V6, 58, &discovery(136, Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3), &option(2))),
        28 => v6(OWN_V6, 58, &[&discovery(135, OWN_V6, &[])[..], &[2, 1, 2, 0, 0, 0, 0, 9]].concat()),
        29 => (0x88b5, vec![1, 2, 3]),
        30 => (0x0806, arp(1, peer, OWN_V4)),
        _ => (0x8035, arp(3, none, none)),
    }
}

fn arp(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mac = station(OWN).bytes();
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac, &sender.octets(), &[0; 6], &target.octets()].concat()
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 8, 0, 0]].concat()
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, fragment: u16, upper: &[u8]) -> Vec<u8> {
    let total = u8::try_from(20 + upper.len()).expect("short packets");
    let [high, low] = fragment.to_be_bytes();
    let front = [0x45, 0, 0, total, 0, 1, high, low, 64, protocol, 0, 0];
    [&front[..], &source.octets(), &destination.octets(), upper].concat()
}

/// With so many extension headers as `choices` say.
fn ipv6(source: Ipv6Addr, next: u8, upper: &[u8], extensions: usize, choices: &mut Choices<'_>) -> Vec<u8> {
    let mut body = upper.to_vec();
    let mut kind = next;
    for _ in 0..extensions {
        let chosen = choices.byte();
        let (own, header): (u8, Vec<u8>) = match chosen & 7 {
            0 | 1 => (0, [&[kind, 0][..], &[1, 4, 0, 0, 0, 0]].concat()),
            2 => (60, [&[kind, 1][..], &[1, 12], &[0; 12]].concat()),
            3 => (43, vec![kind, 0, 0, 0, 0, 0, 0, 0]),
            4 => (51, [&[kind, 1][..], &[0; 10]].concat()),
            // A whole datagram with a fragment header, a first fragment, a later one.
            5 => (44, vec![kind, 0, 0, 0, 0, 0, 0, 1]),
            6 => (44, vec![kind, 0, 0, 1, 0, 0, 0, 1]),
            _ => (44, vec![kind, 0, 0, 9, 0, 0, 0, 1]),
        };
        body.splice(0..0, header);
        kind = own;
    }
    let len = u16::try_from(body.len()).expect("short packets").to_be_bytes();
    let front = [0x60, 0, 0, 0, len[0], len[1], kind, 255];
    [&front[..], &source.octets(), &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], &body].concat()
}

fn is_own(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4 == OWN_V4 || v4.octets()[..3] == [192, 0, 2],
        IpAddr::V6(v6) => v6 == OWN_V6 || v6 == LINK_LOCAL || v6.segments()[0] == 0xfd02,
    }
}

/// For what the frame should be refused, if at all.
fn refusal(frame: &[u8]) -> Option<DropReason> {
    let ethernet = EthernetPacket::new(frame)?;
    let source = ethernet.get_source();
    if source.octets() != station(OWN).bytes() {
        return Some(DropReason::SpoofedMac);
    }
    behind(ethernet.get_ethertype().0, ethernet.payload())
}

fn behind(kind: u16, payload: &[u8]) -> Option<DropReason> {
    match kind {
        0x8100 | 0x88a8 => {
            let tag = VlanPacket::new(payload)?;
            behind(tag.get_ethertype().0, tag.payload())
        }
        0..=0x05ff
            if payload.len() >= 8
                && payload[..5] == [0xaa, 0xaa, 3, 0, 0]
                && matches!(payload[5], 0 | 0xf8) =>
        {
            behind(u16::from_be_bytes([payload[6], payload[7]]), &payload[8..])
        }
        0x0806 => (!arp_is_true(payload)).then_some(DropReason::SpoofedArp),
        0x0800 => refusal_v4(payload),
        0x86dd => refusal_v6(payload),
        _ => None,
    }
}

fn arp_is_true(payload: &[u8]) -> bool {
    let Some(arp) = ArpPacket::new(payload) else { return false };
    let is_of_ipv4 = (arp.get_hardware_type().0, arp.get_protocol_type().0) == (1, 0x0800)
        && (arp.get_hw_addr_len(), arp.get_proto_addr_len()) == (6, 4);
    let sender = arp.get_sender_proto_addr();
    let claimed = if sender.is_unspecified() && arp.get_operation().0 == 1 {
        arp.get_target_proto_addr()
    } else {
        sender
    };
    is_of_ipv4 && arp.get_sender_hw_addr().octets() == station(OWN).bytes() && is_own(claimed.into())
}

fn refusal_v4(payload: &[u8]) -> Option<DropReason> {
    let malformed = Some(DropReason::SpoofedIpv4);
    let Some(ip) = Ipv4Packet::new(payload) else { return malformed };
    let (header, total) = (usize::from(ip.get_header_length()) * 4, usize::from(ip.get_total_length()));
    if ip.get_version() != 4 || header < 20 || total < header || total > payload.len() {
        return malformed;
    }
    let mut is_request = false;
    if ip.get_next_level_protocol().0 == 17 && ip.get_fragment_offset() == 0 {
        let Some(udp) = UdpPacket::new(&payload[header..total]) else { return malformed };
        let (from, to) = (udp.get_source(), udp.get_destination());
        if from == 67 || to == 68 {
            return Some(DropReason::DhcpServer);
        }
        // More fragments is the lowest of three flags.
        is_request = (from, to) == (68, 67) && ip.get_flags() & 1 == 0 && ip.get_destination().is_broadcast();
    }
    let source = ip.get_source();
    let is_good = is_own(source.into()) || source.is_unspecified() && is_request;
    if is_good { None } else { malformed }
}

fn refusal_v6(payload: &[u8]) -> Option<DropReason> {
    let malformed = Some(DropReason::SpoofedIpv6);
    let Some(ip) = Ipv6Packet::new(payload) else { return malformed };
    let len = usize::from(ip.get_payload_length());
    if ip.get_version() != 6 || payload.len() < 40 + len {
        return malformed;
    }
    let source = ip.get_source();
    let of_source = if is_own(source.into()) { None } else { malformed };
    // The first fragment's header begins the count of headers anew.
    let (mut next, mut rest, mut count) = (ip.get_next_header().0, &payload[40..40 + len], 0);
    let (mut is_fragment, mut is_first) = (false, false);
    while matches!(next, 0 | 43 | 44 | 51 | 60 | 135) {
        count += 1;
        if count > 8 || rest.len() < 8 || is_first && next == 44 {
            return malformed;
        }
        let header = match next {
            44 => 8,
            51 => 4 * (usize::from(rest[1]) + 2),
            _ => 8 * (usize::from(rest[1]) + 1),
        };
        if next == 44 {
            is_fragment = true;
            if rest[2] != 0 || rest[3] & 0xf8 != 0 {
                return of_source;
            }
            if rest[3] & 1 != 0 {
                (is_first, count) = (true, 0);
            }
        }
        if rest.len() < header {
            return malformed;
        }
        next = rest[0];
        rest = &rest[header..];
    }
    match next {
        58 => refusal_icmpv6(rest, source, is_fragment),
        17 => match UdpPacket::new(rest) {
            None => malformed,
            Some(udp) if udp.get_source() == 547 || udp.get_destination() == 546 => {
                Some(DropReason::DhcpServer)
            }
            Some(_) => of_source,
        },
        6 if rest.len() < 20 => malformed,
        _ => of_source,
    }
}

fn refusal_icmpv6(message: &[u8], source: Ipv6Addr, is_fragment: bool) -> Option<DropReason> {
    let malformed = Some(DropReason::SpoofedIpv6);
    let Some(icmp) = Icmpv6Packet::new(message).filter(|_| message.len() >= 8) else { return malformed };
    let kind = icmp.get_icmpv6_type().0;
    if kind == 134 || kind == 137 {
        return Some(DropReason::RouterAdvertisement);
    }
    let untrue = Some(DropReason::SpoofedNd);
    let is_discovery = (133..=136).contains(&kind);
    if is_discovery && is_fragment {
        return untrue;
    }
    let is_silent = source.is_unspecified();
    if !(is_own(source.into()) || is_silent && matches!(kind, 131 | 132 | 135 | 143)) {
        return malformed;
    }
    if !is_discovery {
        return None;
    }
    let mut options = 8;
    if kind != 133 {
        options = 24;
        let Some(target) = message.get(8..24) else { return untrue };
        let target = Ipv6Addr::from(<[u8; 16]>::try_from(target).expect("sixteen bytes"));
        if (kind == 136 || is_silent) && !is_own(target.into()) {
            return untrue;
        }
    }
    while options < message.len() {
        let len = message.get(options + 1).map_or(0, |len| usize::from(*len) * 8);
        if len == 0 || options + len > message.len() {
            return untrue;
        }
        let is_link_layer = message[options] == 1 || message[options] == 2;
        if is_link_layer && message[options + 2..options + len] != station(OWN).bytes() {
            return untrue;
        }
        options += len;
    }
    None
}

/// Sends the frame that `data` means from a guarded port; returns why it was dropped, if it was.
///
/// # Panics
/// When what must hold does not.
pub fn guard_body(data: &[u8]) -> Option<DropReason> {
    SWITCHES.with_borrow_mut(|[guarded, unguarded]| held_against(guarded, unguarded, &frame_of(data)))
}

thread_local! {
    /// Made once: to make a switch takes longer than to pass a frame. Before each frame they know nobody.
    static SWITCHES: RefCell<[Driven; 2]> = RefCell::new([switch(Some(guard())), switch(None)]);
}

fn held_against(guarded: &mut Driven, unguarded: &mut Driven, frame: &[u8]) -> Option<DropReason> {
    let arrival = Arrival::Port(PortId::new(GUARDED).expect("a small number"));
    let now = Instant::from_secs(1);
    guarded.macs().flush();
    unguarded.macs().flush();
    let passed = guarded.pass(now, arrival, frame);
    let unguarded = unguarded.pass(now, arrival, frame);
    // What is no frame, or in no VLAN, is so before anybody asks who sends it.
    let expected = match unguarded.dropped {
        Some(reason) if reason != DropReason::ReservedGroup && reason != DropReason::SamePort => Some(reason),
        otherwise => refusal(frame).or(otherwise),
    };
    assert_eq!(passed.dropped, expected, "{}", hex(frame));
    if passed.dropped == unguarded.dropped {
        assert_eq!(passed.sent, unguarded.sent, "a guard changes nothing of what it lets pass");
        return passed.dropped;
    }
    assert!(passed.sent.is_empty() && guarded.macs().is_empty(), "{}", hex(frame));
    let told = passed.story.steps.iter().find_map(|step| match step {
        Step::Spoofed { breach, .. } => Some(breach.reason()),
        _ => None,
    });
    assert_eq!(told, passed.dropped, "{}", hex(frame));
    passed.story.steps.iter().for_each(|step| assert!(!step.text(&|port| port.to_string()).is_empty()));
    passed.dropped
}
