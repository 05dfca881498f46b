//! The answer to a packet that does not fit the way to a peer.
//!
//! ICMP destination unreachable, fragmentation needed (RFC 792, RFC 1191 §4), or ICMPv6 packet too big
//! (RFC 4443 §3.2). It comes from the address the refused packet was sent to, as the Linux VXLAN device does
//! it: the switch has no address of its own. Not here: deciding that a packet is too big.

use pnet_packet::icmp::destination_unreachable::{IcmpCodes, MutableDestinationUnreachablePacket};
use pnet_packet::icmp::{self, IcmpPacket, IcmpTypes};
use pnet_packet::icmpv6::{self, Icmpv6Code, Icmpv6Packet, Icmpv6Types, MutableIcmpv6Packet};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4::{self, Ipv4Flags, MutableIpv4Packet};
use pnet_packet::ipv6::MutableIpv6Packet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::Mac;
use vswitch_core::wire::ethernet::{ADDRESSES_LEN, addresses};
use vswitch_core::wire::ip::{self, Ip, PROTOCOL_ICMP, PROTOCOL_ICMPV6, Version};

/// RFC 1812 §4.3.2.3: as much as fits 576 bytes.
const QUOTE_V4: usize = 576 - 20 - 8;
/// RFC 4443 §2.4 (c): as much as fits the minimum IPv6 MTU.
const QUOTE_V6: usize = 1280 - 40 - 8;
/// The least MTU that is ever told: what every host must take (RFC 791 §3.2, RFC 8200 §5).
const LEAST_V4: u16 = 68;
const LEAST_V6: u16 = 1280;
const HOP_LIMIT: u8 = 64;
const ICMP_LEN: usize = 8;

/// The frame to send back to the sender of `frame`, whose first bytes these are: packets of at most `mtu` bytes
/// fit. `None` when no answer is due: to group addresses, for later fragments, for IPv4 that may be fragmented,
/// for ICMP errors, for what is no IP.
#[must_use]
pub fn too_big(frame: &[u8], mtu: u16) -> Option<Vec<u8>> {
    let (dst, src) = addresses(frame)?;
    if dst.is_group() || src.is_group() || src.is_zero() {
        return None;
    }
    // The quote ends where our copy of the frame does; the length field knows the rest.
    let whole = padded(frame)?;
    let packet = ip::find(&whole)?;
    if !packet.dont_fragment()
        || packet.fragment.is_some_and(|fragment| fragment.offset > 0)
        || is_error(&packet)
    {
        return None;
    }
    let header = frame.get(..packet.at)?;
    let quoted = frame.get(packet.at..packet.end.min(frame.len()))?;
    let answer = match (packet.source(), packet.destination()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            if !answerable_v4(source) || !answerable_v4(destination) {
                return None;
            }
            v4(destination, source, mtu.max(LEAST_V4), &quoted[..quoted.len().min(QUOTE_V4)])?
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            if source.is_unspecified() || source.is_multicast() || destination.is_multicast() {
                return None;
            }
            v6(destination, source, mtu.max(LEAST_V6), &quoted[..quoted.len().min(QUOTE_V6)])?
        }
        _ => return None,
    };
    Some(dressed(src, dst, header, &answer))
}

/// `frame` with zeros where our copy was cut short, so that its length fields can be believed.
fn padded(frame: &[u8]) -> Option<Vec<u8>> {
    let (_, type_at) = vswitch_core::wire::vlan::tag_stack(frame);
    let at = type_at + 2;
    let len = match frame.get(at)? >> 4 {
        4 => usize::from(u16::from_be_bytes([*frame.get(at + 2)?, *frame.get(at + 3)?])),
        6 => 40 + usize::from(u16::from_be_bytes([*frame.get(at + 4)?, *frame.get(at + 5)?])),
        _ => return None,
    };
    let mut whole = frame.to_vec();
    whole.resize(whole.len().max(at + len), 0);
    Some(whole)
}

/// Whether the packet is itself an ICMP error, which is never answered by another (RFC 1122 §3.2.2).
fn is_error(packet: &Ip<'_>) -> bool {
    let kind = packet.payload().first().copied();
    match (packet.version, packet.protocol) {
        (Version::V4, PROTOCOL_ICMP) => !matches!(kind, Some(0 | 8..=10 | 13..=18)),
        (Version::V6, PROTOCOL_ICMPV6) => !matches!(kind, Some(128..)),
        _ => false,
    }
}

fn answerable_v4(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast() && !address.is_loopback()
}

/// Addresses swapped, then tags and type as they came.
pub(super) fn dressed(to: Mac, from: Mac, header: &[u8], answer: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len() + answer.len());
    out.extend_from_slice(&to.bytes());
    out.extend_from_slice(&from.bytes());
    out.extend_from_slice(&header[ADDRESSES_LEN..]);
    out.extend_from_slice(answer);
    out
}

fn v4(source: Ipv4Addr, destination: Ipv4Addr, mtu: u16, quote: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 20 + ICMP_LEN + quote.len()];
    let total = u16::try_from(buffer.len()).ok()?;
    let mut icmp = MutableDestinationUnreachablePacket::new(&mut buffer[20..])?;
    icmp.set_icmp_type(IcmpTypes::DestinationUnreachable);
    icmp.set_icmp_code(IcmpCodes::FragmentationRequiredAndDFFlagSet);
    icmp.set_next_hop_mtu(mtu);
    icmp.set_payload(quote);
    let checksum = icmp::checksum(&IcmpPacket::new(&buffer[20..])?);
    MutableDestinationUnreachablePacket::new(&mut buffer[20..])?.set_checksum(checksum);
    let mut packet = MutableIpv4Packet::new(&mut buffer)?;
    packet.set_version(4);
    packet.set_header_length(5);
    packet.set_total_length(total);
    packet.set_flags(Ipv4Flags::DontFragment);
    packet.set_ttl(HOP_LIMIT);
    packet.set_next_level_protocol(IpNextHeaderProtocols::Icmp);
    packet.set_source(source);
    packet.set_destination(destination);
    let checksum = ipv4::checksum(&packet.to_immutable());
    packet.set_checksum(checksum);
    Some(buffer)
}

fn v6(source: Ipv6Addr, destination: Ipv6Addr, mtu: u16, quote: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 40 + ICMP_LEN + quote.len()];
    let payload_len = u16::try_from(ICMP_LEN + quote.len()).ok()?;
    {
        let mut icmp = MutableIcmpv6Packet::new(&mut buffer[40..])?;
        icmp.set_icmpv6_type(Icmpv6Types::PacketTooBig);
        icmp.set_icmpv6_code(Icmpv6Code(0));
        let mut body = u32::from(mtu).to_be_bytes().to_vec();
        body.extend_from_slice(quote);
        icmp.set_payload(&body);
    }
    let checksum = icmpv6::checksum(&Icmpv6Packet::new(&buffer[40..])?, &source, &destination);
    MutableIcmpv6Packet::new(&mut buffer[40..])?.set_checksum(checksum);
    let mut packet = MutableIpv6Packet::new(&mut buffer)?;
    packet.set_version(6);
    packet.set_payload_length(payload_len);
    packet.set_next_header(IpNextHeaderProtocols::Icmpv6);
    packet.set_hop_limit(HOP_LIMIT);
    packet.set_source(source);
    packet.set_destination(destination);
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ethertype: u16, tags: &[u8], packet: &[u8]) -> Vec<u8> {
        let mut out = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        out.extend_from_slice(tags);
        out.extend_from_slice(&ethertype.to_be_bytes());
        out.extend_from_slice(packet);
        out
    }

    fn v4_packet(flags: u8, protocol: u8, len: usize) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 7, flags, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.resize(len, 8);
        packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        packet
    }

    #[test]
    fn ipv4_with_df_is_told_the_mtu_in_its_own_vlan_from_where_it_was_going() {
        let asked = frame(0x0800, &[0x81, 0, 0, 10], &v4_packet(0x40, 17, 1500));
        let answer = too_big(&asked[..1312], 1446).unwrap();
        assert_eq!(&answer[..18], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 10, 8, 0]);
        assert_eq!(answer.len(), 18 + 576);
        assert_eq!(&answer[30..38], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!(&answer[38..40], [3, 4]);
        assert_eq!(&answer[44..46], 1446_u16.to_be_bytes());
        assert_eq!(&answer[46..], &asked[18..18 + 548]);
        assert_eq!(vswitch_core::wire::checksum::checksum(&answer[38..]), 0);
        assert_eq!(vswitch_core::wire::checksum::checksum(&answer[18..38]), 0);
    }

    #[test]
    fn ipv6_is_told_and_its_checksum_holds() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
        packet.extend_from_slice(&[0xfd; 16]);
        packet.extend_from_slice(&[0xfc; 16]);
        packet.resize(1500, 1);
        packet[4..6].copy_from_slice(&1460_u16.to_be_bytes());
        let answer = too_big(&frame(0x86dd, &[], &packet), 1430).unwrap();
        assert_eq!(answer.len(), 14 + 1280);
        assert_eq!(&answer[54..56], [2, 0]);
        assert_eq!(&answer[58..62], 1430_u32.to_be_bytes());
        let ip = ip::find(&answer).unwrap();
        let sum = ip.pseudo_header(ip.payload().len()).unwrap().with(ip.payload());
        assert_eq!(sum.checksum(), 0);
    }

    #[test]
    fn what_must_not_be_answered_is_not() {
        let quiet = [
            frame(0x0800, &[], &v4_packet(0x00, 17, 1500)),
            frame(0x0806, &[], &v4_packet(0x40, 17, 1500)),
            frame(0x0800, &[], &{
                let mut error = v4_packet(0x40, 1, 1500);
                error[20] = 3;
                error
            }),
            frame(0x0800, &[], &{
                let mut multicast = v4_packet(0x40, 17, 1500);
                multicast[16] = 224;
                multicast
            }),
        ];
        for asked in quiet {
            assert_eq!(too_big(&asked, 1400), None, "{asked:?}");
        }
        let mut group = frame(0x0800, &[], &v4_packet(0x40, 17, 1500));
        group[0] = 0xff;
        assert_eq!(too_big(&group, 1400), None);
    }
}
