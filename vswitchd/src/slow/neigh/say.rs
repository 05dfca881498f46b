//! The messages themselves: ARP, neighbour advertisements, and the frames of those that nobody asked for.
//!
//! Not here: whether anything is to be said.

use super::super::too_big::dressed;
use super::{is_station_v4, is_station_v6};
use pnet_packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket};
use pnet_packet::ethernet::EtherTypes;
use pnet_packet::icmpv6::ndp::{MutableNeighborAdvertPacket, NdpOption, NdpOptionTypes};
use pnet_packet::icmpv6::{self, Icmpv6Packet, Icmpv6Types};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv6::MutableIpv6Packet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::Mac;
use vswitch_core::wire::ethernet::{ADDRESSES_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV6};
use vswitch_core::wire::ip::V6_HEADER_LEN;

/// An ARP message of Ethernet and IPv4 (RFC 826).
const ARP_LEN: usize = 28;
/// Type, code, checksum, flags and target (RFC 4861 §4.4).
const ADVERT_LEN: usize = 24;
/// Type, length and a MAC address (RFC 4861 §4.6.1).
const OPTION_LEN: usize = 8;
/// What no router can have changed (RFC 4861 §7.1).
pub(super) const HOP_LIMIT: u8 = 255;
/// Flags of an advertisement (RFC 4861 §4.4).
pub(super) const SOLICITED: u8 = 0x40;
pub(super) const OVERRIDE: u8 = 0x20;
/// RFC 4291 §2.7.1, and its MAC address (RFC 2464 §7).
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub(super) const ALL_NODES_MAC: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);

/// The frame by which `owner` would say unasked that it has `ip`: an ARP announcement (RFC 5227 §3) or an unsolicited
/// neighbour advertisement (RFC 4861 §7.2.6), with `tag`, if any, behind its addresses. `None` for an address that no
/// station has.
#[must_use]
pub fn announcement(owner: Mac, ip: IpAddr, tag: Option<[u8; 4]>) -> Option<Vec<u8>> {
    let (to, ethertype, message) = match ip {
        IpAddr::V4(ip) if is_station_v4(ip) => {
            let message = arp(ArpOperations::Request, (owner, ip), (Mac::default(), ip))?;
            (Mac::BROADCAST, ETHERTYPE_ARP, message)
        }
        IpAddr::V6(ip) if is_station_v6(ip) => {
            (ALL_NODES_MAC, ETHERTYPE_IPV6, advertisement(owner, ip, ALL_NODES, OVERRIDE)?)
        }
        _ => return None,
    };
    let mut header = vec![0; ADDRESSES_LEN];
    header.extend_from_slice(tag.as_ref().map_or(&[], |tag| &tag[..]));
    header.extend_from_slice(&ethertype.to_be_bytes());
    Some(dressed(to, owner, &header, &message))
}

/// An ARP message.
pub(super) fn arp(
    operation: ArpOperation,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
) -> Option<Vec<u8>> {
    let mut buffer = vec![0; ARP_LEN];
    let mut message = MutableArpPacket::new(&mut buffer)?;
    message.set_hardware_type(ArpHardwareTypes::Ethernet);
    message.set_protocol_type(EtherTypes::Ipv4);
    message.set_hw_addr_len(6);
    message.set_proto_addr_len(4);
    message.set_operation(operation);
    message.set_sender_hw_addr(sender.0.bytes().into());
    message.set_sender_proto_addr(sender.1);
    message.set_target_hw_addr(target.0.bytes().into());
    message.set_target_proto_addr(target.1);
    Some(buffer)
}

/// An IPv6 packet that says `owner` has `target`, from `target`.
pub(super) fn advertisement(owner: Mac, target: Ipv6Addr, to: Ipv6Addr, flags: u8) -> Option<Vec<u8>> {
    let mut buffer = vec![0; V6_HEADER_LEN + ADVERT_LEN + OPTION_LEN];
    let message = &mut buffer[V6_HEADER_LEN..];
    let mut advert = MutableNeighborAdvertPacket::new(message)?;
    advert.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
    advert.set_flags(flags);
    advert.set_target_addr(target);
    let option =
        NdpOption { option_type: NdpOptionTypes::TargetLLAddr, length: 1, data: owner.bytes().to_vec() };
    advert.set_options(&[option]);
    let checksum = icmpv6::checksum(&Icmpv6Packet::new(message)?, &target, &to);
    MutableNeighborAdvertPacket::new(message)?.set_checksum(checksum);
    let mut packet = MutableIpv6Packet::new(&mut buffer)?;
    packet.set_version(6);
    packet.set_payload_length(u16::try_from(ADVERT_LEN + OPTION_LEN).ok()?);
    packet.set_next_header(IpNextHeaderProtocols::Icmpv6);
    packet.set_hop_limit(HOP_LIMIT);
    packet.set_source(target);
    packet.set_destination(to);
    Some(buffer)
}
