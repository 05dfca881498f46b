//! The body of the properties of VXLAN: any datagram from anybody ends as RFC 7348 and the configuration say, and
//! any frame that crosses to another switch arrives there as it left. Property tests and fuzz targets feed it
//! bytes.
//!
//! What should become of a datagram is decided here byte by byte, with nothing of the core's parsing. Not here:
//! VLAN modes (see [`crate::switch_body`]).

use crate::driven::{Driven, from_peer};
use crate::frames::hex;
use crate::offload_body::Choices;
use crate::reference::Spec;
use std::net::IpAddr;
use vswitch_core::frame::Arrival;
use vswitch_core::port::{Attachment, Carries, InnerVlan, Port, PortId, Tunnel};
use vswitch_core::time::Instant;
use vswitch_core::verdict::{DropReason, Why};
use vswitch_core::wire::vlan::Vlan;
use vswitch_core::wire::vxlan::Vni;

/// The access port of VLAN 10, whose VNI is [`VNI`].
pub const ACCESS: u32 = 1;
/// The trunk of every VLAN.
pub const TRUNK: u32 = 2;
/// VNI of VLAN 10, which every peer shares.
pub const VNI: u32 = 10_010;
/// VNI of VLAN 20, which the second peer does not share.
pub const OTHER_VNI: u32 = 0x00ff_ffff;

fn id(number: u32) -> PortId {
    PortId::new(number).expect("small")
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).expect("below 4095")
}

fn vni(number: u32) -> Vni {
    Vni::new(number).expect("24 bits")
}

/// The address of peer `n`, 0..4: two of each family.
#[must_use]
pub fn peer(n: u8) -> IpAddr {
    if n < 2 { IpAddr::from([192, 0, 2, 10 + n]) } else { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n.into()]) }
}

/// Two local ports, two VLANs with VNIs, four peers of the mesh: the second shares VLAN 10 alone.
#[must_use]
pub fn spec(inner_vlan: InnerVlan, strict: bool) -> Spec {
    let mut spec = Spec::new(vec![
        Port::new(id(ACCESS), Attachment::Access(vlan(10))),
        Port::new(id(TRUNK), Attachment::trunk_all()),
    ]);
    spec.mac_limit = 64;
    spec.bridges[0].vnis = [(vlan(10), vni(VNI)), (vlan(20), vni(OTHER_VNI))].into();
    spec.ports.extend((0..4).map(|n| {
        let carries = Carries::PerVni((n == 1).then(|| vec![vni(VNI)]));
        let remote = peer(n);
        let mut port = Port::peer(id(40 + u32::from(n)), remote, 4789, 9000);
        port.attachment = Attachment::Tunnel(Tunnel {
            remote,
            local: None,
            udp_port: 4789,
            carries,
            floods: None,
            inner_vlan,
            strict,
        });
        port
    }));
    spec
}

/// Whether a datagram from a peer is no frame but a probe, by the letter.
fn is_probe(from: Option<u8>, datagram: &[u8]) -> bool {
    from.is_some() && datagram.len() >= 48 && datagram[0] & 0x09 == 0x01 && datagram[8..12] == *b"VSWP"
}

/// Why a datagram from `from` is refused, by the letter; `None` when it is let in.
fn refusal(from: Option<u8>, carry: bool, strict: bool, datagram: &[u8]) -> Option<DropReason> {
    let Some(from) = from else { return Some(DropReason::UnknownPeer) };
    let Some((header, inner)) = datagram.split_at_checked(8) else { return Some(DropReason::VxlanShort) };
    if header[0] & 0x08 == 0 {
        return Some(DropReason::VxlanNoVni);
    }
    if strict && (header[0] != 0x08 || header[1..4] != [0; 3] || header[7] != 0) {
        return Some(DropReason::VxlanReserved);
    }
    match (from, u32::from_be_bytes([0, header[4], header[5], header[6]])) {
        (1, OTHER_VNI) => return Some(DropReason::VniNotShared),
        (_, VNI | OTHER_VNI) => {}
        _ => return Some(DropReason::UnknownVni),
    }
    if inner.len() < 14 {
        return Some(DropReason::ShortFrame);
    }
    let tagged = matches!(inner[12..14], [0x81, 0x00] | [0x88, 0xa8]);
    if tagged && inner.len() < 18 {
        return Some(DropReason::VlanTruncated);
    }
    if tagged && (inner[14] & 0x0f, inner[15]) == (0x0f, 0xff) {
        return Some(DropReason::VlanReserved);
    }
    if tagged && !carry {
        return Some(DropReason::InnerVlan);
    }
    if inner[..5] == [0x01, 0x80, 0xc2, 0, 0] && inner[5] < 16 {
        return Some(DropReason::ReservedGroup);
    }
    None
}

/// The first byte chooses the peer and the configuration, the rest is the datagram; then the same bytes cross as a
/// frame.
///
/// # Panics
/// When a property does not hold.
pub fn vxlan_body(data: &[u8]) {
    let choices = &mut Choices::new(data);
    let bits = choices.byte();
    let datagram = data.get(1..).unwrap_or_default();
    if datagram.len() > 65_535 {
        return;
    }
    let (carry, strict) = (bits & 8 != 0, bits & 16 != 0);
    let from = (bits & 7 < 5).then_some((bits & 7) % 4);
    let remote = from.map_or_else(|| IpAddr::from([203, 0, 113, 9]), peer);
    let inner_vlan = if carry { InnerVlan::Carry } else { InnerVlan::Strip };
    let spec = spec(inner_vlan, strict);
    let mut switch = Driven::new(&spec);
    let passed = switch.pass(Instant::ZERO, from_peer(remote), datagram);
    let refused = refusal(from, carry, strict, datagram);
    if is_probe(from, datagram) {
        let whys: Vec<Why> = passed.punts.iter().map(|punt| punt.why).collect();
        assert_eq!((passed.dropped, whys), (None, vec![Why::Probe]), "{}", hex(datagram));
        assert!(passed.sent.is_empty() && switch.macs().is_empty());
    } else if let Some(reason) = refused {
        assert_eq!(passed.dropped, Some(reason), "{}", hex(datagram));
        assert!(passed.sent.is_empty());
        assert!(switch.macs().is_empty(), "a refused datagram taught something");
    } else {
        let inner = &datagram[8..];
        // The payload behind addresses and at most two tags is never touched.
        let tail = inner.get(22..).unwrap_or_default();
        for (port, frame) in &passed.sent {
            assert!(port.get() < 40, "from a peer to a peer");
            assert!(frame.ends_with(tail) && frame[..12] == inner[..12], "{}", hex(frame));
        }
    }
    crosses(datagram, inner_vlan);
}

/// A frame that comes in by the access port leaves to every peer with the right header, and comes out of the access
/// port of a switch at the other end as it went in.
fn crosses(frame: &[u8], inner_vlan: InnerVlan) {
    let spec = spec(inner_vlan, true);
    let (mut near, mut far) = (Driven::new(&spec), Driven::new(&spec));
    let passed = near.pass(Instant::ZERO, Arrival::Port(id(ACCESS)), frame);
    for (port, datagram) in passed.sent.iter().filter(|sent| sent.0.get() >= 40) {
        assert_eq!(datagram[..8], [8, 0, 0, 0, 0, 0x27, 0x1a, 0], "to {port}");
        let arrived = far.pass(Instant::ZERO, from_peer(peer(0)), datagram);
        for (port, bytes) in &arrived.sent {
            let tagged = matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]);
            // A priority tag has done its work; the trunk writes the VLAN's.
            if *port == id(ACCESS) && !tagged {
                assert_eq!(hex(bytes), hex(frame));
            }
        }
        assert!(!arrived.sent.is_empty() || arrived.dropped == Some(DropReason::SamePort));
    }
}
