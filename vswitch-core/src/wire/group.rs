//! Multicast as a bridge that snoops tells it apart (RFC 4541): messages of IGMP (RFC 1112, RFC 2236, RFC 3376) and
//! Multicast Listener Discovery (RFC 2710, RFC 3810), what stays on a link, and all other groups.
//!
//! Here is only which of these a frame is. Not here: which groups a message names, checksums.

use super::ip::{self, PROTOCOL_ICMPV6, Version};
use core::net::{IpAddr, Ipv6Addr};

/// IP's protocol number of IGMP.
pub const PROTOCOL_IGMP: u8 = 2;
/// IGMP: who is there, of all versions (RFC 2236 §2.1).
pub const IGMP_QUERY: u8 = 0x11;
/// IGMP: a report of version 1 (RFC 1112, appendix I).
pub const IGMP_V1_REPORT: u8 = 0x12;
/// IGMP: a report of version 2 (RFC 2236 §2.1).
pub const IGMP_V2_REPORT: u8 = 0x16;
/// IGMP: a host leaves a group (RFC 2236 §2.1).
pub const IGMP_LEAVE: u8 = 0x17;
/// IGMP: a report of version 3 (RFC 3376 §4.2).
pub const IGMP_V3_REPORT: u8 = 0x22;
/// ICMPv6: who is there, of both versions (RFC 2710 §3.1).
pub const MLD_QUERY: u8 = 130;
/// ICMPv6: a report of version 1 (RFC 2710 §3.1).
pub const MLD_REPORT: u8 = 131;
/// ICMPv6: a host leaves a group (RFC 2710 §3.1).
pub const MLD_DONE: u8 = 132;
/// ICMPv6: a report of version 2 (RFC 3810 §5.2).
pub const MLD_V2_REPORT: u8 = 143;

/// Every node of a link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a frame to a group address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multicast {
    /// A host says what it listens to: a report of any version, or that of IGMP by which it leaves.
    Report,
    /// Any other message of IGMP or MLD: a query, or that of MLD by which a host leaves.
    Query,
    /// IP that every node of the link hears: to 224.0.0.0/24 or ff02::1.
    Link,
    /// IP to this group.
    Group(IpAddr),
}

/// What `frame` is; `None` for what is not IP to a group, or cannot be read.
#[must_use]
pub fn read(frame: &[u8]) -> Option<Multicast> {
    let packet = ip::find(frame)?;
    let is_there = packet.transport_at < packet.end && !packet.is_part();
    let kind = frame.get(packet.transport_at).filter(|_| is_there);
    match (packet.version, packet.protocol, kind) {
        (Version::V4, PROTOCOL_IGMP, kind) => {
            let reports = [IGMP_V1_REPORT, IGMP_V2_REPORT, IGMP_V3_REPORT, IGMP_LEAVE];
            return Some(is_report(kind.is_some_and(|kind| reports.contains(kind))));
        }
        (Version::V6, PROTOCOL_ICMPV6, Some(&kind @ (MLD_QUERY..=MLD_DONE | MLD_V2_REPORT))) => {
            return Some(is_report(matches!(kind, MLD_REPORT | MLD_V2_REPORT)));
        }
        _ => {}
    }
    match packet.destination() {
        IpAddr::V4(v4) if v4.octets().starts_with(&[224, 0, 0]) => Some(Multicast::Link),
        IpAddr::V6(ALL_NODES) => Some(Multicast::Link),
        group if group.is_multicast() => Some(Multicast::Group(group)),
        _ => None,
    }
}

const fn is_report(is_report: bool) -> Multicast {
    if is_report { Multicast::Report } else { Multicast::Query }
}
