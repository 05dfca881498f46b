//! Neighbours asked for and found: ARP (RFC 826, over Ethernet and IPv4) and the two messages of Neighbor Discovery
//! that do the same for IPv6 (RFC 4861 §4.3, §4.4).
//!
//! Here is only which frame is one and whether it asks. Not here: who answers, what the options say, checksums.

use super::be16;
use super::ethernet::{ADDRESSES_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV6, addresses};
use super::ip::{PROTOCOL_ICMPV6, V6_HEADER_LEN};
use super::vlan::TAG_LEN;

/// ICMPv6 type of a Neighbor Solicitation (RFC 4861 §4.3).
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 type of a Neighbor Advertisement (RFC 4861 §4.4).
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// ARP's operation that asks (RFC 826).
pub const ARP_REQUEST: u16 = 1;
/// An ARP message over Ethernet and IPv4, in bytes.
pub const ARP_LEN: usize = 28;

/// Hardware type, protocol type and both lengths of ARP over Ethernet and IPv4.
pub(crate) const ARP_OF_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Both messages have a fixed header and a target.
const ND_LEN: usize = 24;

//= RFC 4861 §7.1.1
//# The IP Hop Limit field has a value of 255, i.e., the packet could not possibly have been forwarded by a router.
const ND_HOP_LIMIT: u8 = 255;

/// What a message about neighbours wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// It asks everybody where an address is: an ARP request to a group address, a multicast solicitation. One by
    /// which somebody asks whether an address is still free is among them (RFC 5227 §2.1.1, RFC 4862 §5.4.2).
    Question,
    /// It says where an address is, or asks the one who has it: a reply, an advertisement, an announcement (RFC 5227
    /// §2.3), a request to one station.
    Statement,
}

/// The message in `frame`, behind a tag where `is_tagged`, and behind no more; `None` for any other frame, a message
/// cut short or of other protocols included, and for one behind IPv6 extension headers.
#[inline(always)]
#[must_use]
pub fn message(frame: &[u8], is_tagged: bool) -> Option<Message> {
    let at = ADDRESSES_LEN + if is_tagged { TAG_LEN } else { 0 };
    match be16(frame, at)? {
        ETHERTYPE_ARP => arp(frame, at + 2),
        // Most IPv6 frames are gone here.
        ETHERTYPE_IPV6 if frame.get(at + 2 + 6) == Some(&PROTOCOL_ICMPV6) => discovery(frame, at + 2),
        _ => None,
    }
}

#[inline(never)]
fn arp(frame: &[u8], at: usize) -> Option<Message> {
    let arp: &[u8; ARP_LEN] = frame.get(at..)?.first_chunk()?;
    if !arp.starts_with(&ARP_OF_IPV4) {
        return None;
    }
    let (sender, target) = (&arp[14..18], &arp[24..28]);
    let asks = be16(arp, 6)? == ARP_REQUEST && sender != target;
    Some(if asks && is_for_all(frame)? { Message::Question } else { Message::Statement })
}

#[inline(never)]
fn discovery(frame: &[u8], at: usize) -> Option<Message> {
    let packet = frame.get(at..)?.first_chunk::<{ V6_HEADER_LEN + ND_LEN }>()?;
    let (header, icmp) = packet.split_at(V6_HEADER_LEN);
    let is_whole = usize::from(be16(header, 4)?) >= ND_LEN;
    if header[0] >> 4 != 6 || header[7] != ND_HOP_LIMIT || icmp[1] != 0 || !is_whole {
        return None;
    }
    match icmp[0] {
        NEIGHBOUR_SOLICITATION if is_for_all(frame)? => Some(Message::Question),
        NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => Some(Message::Statement),
        _ => None,
    }
}

fn is_for_all(frame: &[u8]) -> Option<bool> {
    addresses(frame).map(|(dst, _)| dst.is_group())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const ALL: [u8; 6] = [0xff; 6];
    const NODES: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 2];
    const ONE: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const A: [u8; 4] = [10, 10, 0, 1];
    const B: [u8; 4] = [10, 10, 0, 2];

    fn ethernet(dst: [u8; 6], kind: u16) -> Vec<u8> {
        let mut frame = Vec::from(dst);
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend(kind.to_be_bytes());
        frame
    }

    fn arp(dst: [u8; 6], operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let mut frame = ethernet(dst, ETHERTYPE_ARP);
        frame.extend(ARP_OF_IPV4);
        frame.extend([0, operation, 2, 0, 0, 0, 0, 1]);
        frame.extend(sender);
        frame.extend([0; 6]);
        frame.extend(target);
        frame
    }

    fn discovery(dst: [u8; 6], kind: u8) -> Vec<u8> {
        let mut frame = ethernet(dst, ETHERTYPE_IPV6);
        frame.extend([0x60, 0, 0, 0, 0, 24, PROTOCOL_ICMPV6, 255]);
        frame.extend([0; 32]);
        frame.push(kind);
        frame.extend([0; 23]);
        frame
    }

    #[test]
    fn arp_that_asks_everybody_is_a_question_and_all_other_arp_a_statement() {
        for (frame, expected) in [
            (arp(ALL, 1, A, B), Message::Question),
            // A probe.
            (arp(ALL, 1, [0; 4], B), Message::Question),
            // Announcements, in both ways that are in use.
            (arp(ALL, 1, A, A), Message::Statement),
            (arp(ALL, 2, A, A), Message::Statement),
            (arp(ONE, 2, A, B), Message::Statement),
            (arp(ONE, 1, A, B), Message::Statement),
        ] {
            assert_eq!(message(&frame, false), Some(expected), "{frame:x?}");
            assert_eq!(message(&frame, true), None);
        }
    }

    #[test]
    fn a_multicast_solicitation_is_a_question_and_other_discovery_of_neighbours_a_statement() {
        for (frame, expected) in [
            (discovery(NODES, 135), Some(Message::Question)),
            (discovery(ONE, 135), Some(Message::Statement)),
            (discovery(NODES, 136), Some(Message::Statement)),
            (discovery(ONE, 136), Some(Message::Statement)),
            // Router solicitation and advertisement, redirect, echo.
            (discovery(NODES, 133), None),
            (discovery(NODES, 134), None),
            (discovery(ONE, 137), None),
            (discovery(ONE, 128), None),
        ] {
            assert_eq!(message(&frame, false), expected, "{frame:x?}");
        }
    }

    #[test]
    fn what_came_through_a_router_or_has_another_code_is_no_discovery() {
        // Version, payload length, next header, hop limit, code.
        for (at, value) in [(14, 0x40), (19, 23), (20, 17), (20, 0), (21, 254), (21, 0), (55, 1)] {
            let mut frame = discovery(NODES, 135);
            frame[at] = value;
            assert_eq!(message(&frame, false), None, "byte {at}");
        }
    }

    #[test]
    fn arp_of_other_networks_is_none() {
        for at in 14..20 {
            let mut frame = arp(ALL, 1, A, B);
            frame[at] ^= 1;
            assert_eq!(message(&frame, false), None, "byte {at}");
        }
    }

    #[test]
    fn one_tag_is_looked_behind_where_one_was_read_and_a_second_never() {
        for whole in [arp(ALL, 1, A, B), discovery(NODES, 135)] {
            let mut tagged = whole.clone();
            tagged.splice(12..12, [0x81, 0, 0, 10]);
            assert_eq!(message(&tagged, true), Some(Message::Question));
            assert_eq!(message(&tagged, false), None);
            tagged.splice(12..12, [0x88, 0xa8, 0, 20]);
            assert_eq!(message(&tagged, true), None);
        }
    }

    #[test]
    fn a_message_cut_short_is_none_and_padding_changes_nothing() {
        for whole in [arp(ALL, 1, A, B), discovery(NODES, 135)] {
            for len in 0..whole.len() {
                assert_eq!(message(&whole[..len], false), None, "{len} bytes");
                assert_eq!(message(&whole[..len], true), None, "{len} bytes");
            }
            let padded = [&whole[..], &[0; 18]].concat();
            assert_eq!(message(&padded, false), Some(Message::Question));
        }
    }
}
