//! What leaves, read by another library: pnet parses our Ethernet, VLAN and VXLAN fields and the inner packets.
//!
//! Not here: what should leave (see `switch.rs`); checksums (see `offload.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use pnet_packet::Packet;
use pnet_packet::ethernet::{EtherTypes, EthernetPacket};
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv6::Ipv6Packet;
use pnet_packet::udp::UdpPacket;
use pnet_packet::vlan::VlanPacket;
use pnet_packet::vxlan::VxlanPacket;
use std::net::IpAddr;
use vswitch_core::port::{InnerVlan, VlanSet};
use vswitch_core::wire::vlan::{Priority, Tag};
use vswitch_core::{Arrival, Attachment, Instant, Mac, Port, PortId, Vlan, Vni};
use vswitch_tests::driven::Driven;
use vswitch_tests::frames::{Frame, station};
use vswitch_tests::reference::Spec;
use vswitch_tests::rng::Rng;

const ACCESS: u32 = 1;
const TRUNK: u32 = 2;
const NATIVE: u32 = 3;
const TUNNEL: u32 = 4;
const PEER: u32 = 40;

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap()
}

/// A tag as pnet reads it: PCP, DEI, VID.
type Read = (u8, u8, u16);

/// Addresses, tags, the type behind them, and the rest.
fn parse(frame: &[u8]) -> (Mac, Mac, Vec<Read>, u16, Vec<u8>) {
    let ethernet = EthernetPacket::new(frame).unwrap();
    let (d, s) = (ethernet.get_destination(), ethernet.get_source());
    let (dst, src) = (Mac::new([d.0, d.1, d.2, d.3, d.4, d.5]), Mac::new([s.0, s.1, s.2, s.3, s.4, s.5]));
    let (mut ethertype, mut payload) = (ethernet.get_ethertype(), ethernet.payload().to_vec());
    let mut tags = Vec::new();
    while ethertype == EtherTypes::Vlan || ethertype == EtherTypes::PBridge {
        let tag = VlanPacket::new(&payload).unwrap();
        tags.push((
            tag.get_priority_code_point().0,
            tag.get_drop_eligible_indicator(),
            tag.get_vlan_identifier(),
        ));
        ethertype = tag.get_ethertype();
        let behind = tag.payload().to_vec();
        payload = behind;
    }
    (dst, src, tags, ethertype.0, payload)
}

#[test]
fn pnet_reads_in_every_output_what_was_sent() {
    let mut rng = Rng::from_env(21);
    let vni = Vni::new(0x0012_3456).unwrap();
    let mut peer = Port::peer(id(PEER), IpAddr::from([192, 0, 2, 1]), 4789, 9000);
    if let Attachment::Tunnel(tunnel) = &mut peer.attachment {
        tunnel.inner_vlan = InnerVlan::Carry;
    }
    let mut spec = Spec::new(vec![
        Port::new(id(ACCESS), Attachment::Access(vlan(10))),
        Port::new(id(TRUNK), Attachment::trunk_all()),
        Port::new(id(NATIVE), Attachment::native(vlan(10), false, VlanSet::all())),
        Port::new(id(TUNNEL), Attachment::dot1q_tunnel(vlan(10), None)),
        peer,
    ]);
    spec.bridges[0].vnis.insert(vlan(10), vni);
    let mut switch = Driven::new(&spec);
    let mut compared = 0;
    for round in 0..1000u16 {
        let v6 = rng.one_in(2);
        let address = |n: u8| match v6 {
            true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n.into()]),
            false => IpAddr::from([10, 0, 0, n]),
        };
        let len = rng.below(1400);
        let data = rng.bytes(len);
        let (dst, src) = (Mac::BROADCAST, station(u32::from(round)));
        let plain = Frame::new(dst, src).udp((address(1), round), (address(2), 53), &data);
        let some_tag = |rng: &mut Rng, vid: u16| {
            let pcp = u8::try_from(rng.below(8)).unwrap();
            Tag::new(*rng.pick(&[0x8100, 0x88a8]), Priority::new(pcp, rng.one_in(2)).unwrap(), vid)
        };
        let depth = rng.below(3);
        let customer: Vec<Tag> = (0..depth).map(|_| some_tag(&mut rng, 7)).collect();
        // By the trunk the VLAN's tag stands in front; a customer's port takes the frame as it is.
        let (port, own) = if rng.one_in(2) { (TRUNK, Some(some_tag(&mut rng, 10))) } else { (TUNNEL, None) };
        let arrived: Vec<Tag> = own.iter().chain(&customer).copied().collect();
        let frame = plain.clone().tags(&arrived).bytes();
        let passed = switch.pass(Instant::ZERO, Arrival::Port(id(port)), &frame);
        let as_read = |tags: &[Tag]| -> Vec<Read> {
            tags.iter().map(|t| (t.priority().pcp(), t.priority().dei().into(), t.vid())).collect()
        };
        let priority = own.map_or(Priority::ZERO, Tag::priority);
        for (to, bytes) in &passed.sent {
            let (inner, expected) = match to.get() {
                PEER => {
                    let outer = VxlanPacket::new(bytes).unwrap();
                    assert_eq!((outer.get_flags(), outer.get_reserved1(), outer.get_reserved2()), (8, 0, 0));
                    assert_eq!(outer.get_vni(), vni.get());
                    let shown = (priority != Priority::ZERO).then(|| Tag::new(0x8100, priority, 0));
                    (&bytes[8..], shown.iter().chain(&customer).copied().collect())
                }
                TRUNK => {
                    let service = Tag::new(0x88a8, priority, 10);
                    (&bytes[..], [&[service][..], &customer].concat())
                }
                _ => (&bytes[..], customer.clone()),
            };
            let read = parse(inner);
            assert_eq!((read.0, read.1), (dst, src));
            assert_eq!(read.2, as_read(&expected), "to {to}: {own:?} {customer:?}");
            let datagram = match v6 {
                true => Ipv6Packet::new(&read.4).unwrap().payload().to_vec(),
                false => Ipv4Packet::new(&read.4).unwrap().payload().to_vec(),
            };
            let udp = UdpPacket::new(&datagram).unwrap();
            assert_eq!((udp.get_source(), udp.get_destination()), (round, 53));
            assert_eq!(udp.payload(), data);
            compared += 1;
        }
        // An access port takes a customer's frame only when it has no tag of its own.
        assert!(passed.sent.len() >= 3, "{arrived:?} {:?}", passed.sent.len());
    }
    assert!(compared > 3000, "{compared}");
    println!("{compared} outputs read by pnet");
}
