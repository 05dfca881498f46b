//! Messages of IGMP (RFC 1112, RFC 2236, RFC 3376) and Multicast Listener Discovery (RFC 2710, RFC 3810): who listens to
//! which group, and who asks.
//!
//! Not here: what is made of it (see [`super::snooping`]).

use std::net::{IpAddr, Ipv6Addr};
use vswitch_core::wire::checksum::Sum;
use vswitch_core::wire::group::{
    IGMP_LEAVE, IGMP_QUERY, IGMP_V1_REPORT, IGMP_V2_REPORT, IGMP_V3_REPORT, MLD_DONE, MLD_QUERY, MLD_REPORT,
    MLD_V2_REPORT, PROTOCOL_IGMP,
};
use vswitch_core::wire::ip::{self, PROTOCOL_ICMPV6, Version};

/// Header of IGMP of any version, and what stands in front of a report's records.
const IGMP_LEN: usize = 8;
/// The same of MLD; of version 1 a group follows.
const MLD_LEN: usize = 8;
/// In front of a record's group: its type, the length of its auxiliary data in words of four bytes, and the number of its
/// sources (RFC 3376 §4.2.4, RFC 3810 §5.2.4).
const RECORD_LEN: usize = 4;
/// Record types that say which sources a host listens to, and no others (RFC 3376 §4.2.12, RFC 3810 §5.2.12).
const MODE_IS_INCLUDE: u8 = 1;
const CHANGE_TO_INCLUDE: u8 = 3;
/// The last of the types that are known, all of which mean that somebody listens where there are sources.
const BLOCK_OLD_SOURCES: u8 = 6;

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Somebody listens to this group.
    Joined(IpAddr),
    /// Somebody listens to it no more.
    Left(IpAddr),
    /// A router asks.
    Query,
}

/// Tells `hear` what the message in `frame` says, piece by piece. Nothing where there is none, or where its checksum is
/// wrong; that is not looked at if it is `owed`. What is behind the first piece that is cut short is not believed.
pub(super) fn read(frame: &[u8], owed: bool, mut hear: impl FnMut(Said)) {
    let Some(packet) = ip::find(frame).filter(|packet| !packet.is_part()) else { return };
    let Some(message) = frame.get(packet.transport_at..packet.end) else { return };
    let start = match packet.version {
        Version::V4 => Some(Sum::new()),
        Version::V6 => packet.pseudo_header(message.len()),
    };
    // A sum over a field that is right comes out as all ones, which the complement makes zero.
    if !owed && start.is_none_or(|sum| sum.with(message).checksum() != 0) {
        return;
    }
    let Some(&kind) = message.first() else { return };
    let from_nobody = packet.source().is_unspecified();
    match (packet.version, packet.protocol, kind) {
        // One without an address is a switch that asks in a router's place (RFC 4541 §2.1.1).
        (_, _, IGMP_QUERY | MLD_QUERY) if from_nobody => {}
        (Version::V4, PROTOCOL_IGMP, IGMP_QUERY) | (Version::V6, PROTOCOL_ICMPV6, MLD_QUERY) => {
            hear(Said::Query);
        }
        (Version::V4, PROTOCOL_IGMP, IGMP_V1_REPORT | IGMP_V2_REPORT) => {
            group_at(message, 4, Version::V4).into_iter().for_each(|group| hear(Said::Joined(group)));
        }
        (Version::V4, PROTOCOL_IGMP, IGMP_LEAVE) => {
            group_at(message, 4, Version::V4).into_iter().for_each(|group| hear(Said::Left(group)));
        }
        (Version::V6, PROTOCOL_ICMPV6, MLD_REPORT) => {
            group_at(message, MLD_LEN, Version::V6).into_iter().for_each(|group| hear(Said::Joined(group)));
        }
        (Version::V6, PROTOCOL_ICMPV6, MLD_DONE) => {
            group_at(message, MLD_LEN, Version::V6).into_iter().for_each(|group| hear(Said::Left(group)));
        }
        (Version::V4, PROTOCOL_IGMP, IGMP_V3_REPORT) => records(message, IGMP_LEN, Version::V4, hear),
        (Version::V6, PROTOCOL_ICMPV6, MLD_V2_REPORT) => records(message, MLD_LEN, Version::V6, hear),
        _ => {}
    }
}

/// The records of a report: a group with the sources that are listened to, of which a snooping switch only asks whether
/// there are any.
fn records(message: &[u8], header_len: usize, version: Version, mut hear: impl FnMut(Said)) {
    let count = message.get(6..8).map_or(0, |count| u16::from_be_bytes([count[0], count[1]]));
    let address_len = address_len(version);
    let mut at = header_len;
    for _ in 0..count {
        let Some(&[kind, auxiliary, high, low]) = message.get(at..).and_then(|rest| rest.first_chunk())
        else {
            return;
        };
        let sources = usize::from(u16::from_be_bytes([high, low]));
        let group = group_at(message, at + RECORD_LEN, version);
        at += RECORD_LEN + address_len * (1 + sources) + 4 * usize::from(auxiliary);
        if at > message.len() {
            return;
        }
        //= RFC 3376 §4.2.12
        //# Unrecognized Record Type values MUST be silently ignored.
        let Some(group) = group.filter(|_| (MODE_IS_INCLUDE..=BLOCK_OLD_SOURCES).contains(&kind)) else {
            continue;
        };
        // Only these sources, and of them none: nothing at all.
        let listens = sources > 0 || !matches!(kind, MODE_IS_INCLUDE | CHANGE_TO_INCLUDE);
        hear(if listens { Said::Joined(group) } else { Said::Left(group) });
    }
}

const fn address_len(version: Version) -> usize {
    match version {
        Version::V4 => 4,
        Version::V6 => 16,
    }
}

/// The group at `at`; `None` where there is none, or an address that is no group's.
fn group_at(message: &[u8], at: usize, version: Version) -> Option<IpAddr> {
    let rest = message.get(at..)?;
    let group = match version {
        Version::V4 => IpAddr::from(*rest.first_chunk::<4>()?),
        Version::V6 => IpAddr::V6(Ipv6Addr::from(*rest.first_chunk::<16>()?)),
    };
    group.is_multicast().then_some(group)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use vswitch_core::wire::checksum::checksum;

    /// A frame of IGMP from 10.0.0.9 to `to`, with its checksum.
    pub(crate) fn igmp(to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
        let mut frame = vec![1, 0, 0x5e, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0];
        let total = u16::try_from(24 + message.len()).unwrap().to_be_bytes();
        // With the router alert option, as hosts send it.
        frame.extend([0x46, 0, total[0], total[1], 0, 0, 0, 0, 1, PROTOCOL_IGMP, 0, 0, 10, 0, 0, 9]);
        frame.extend(to.octets());
        frame.extend([0x94, 4, 0, 0]);
        frame.extend(message);
        let sum = checksum(message).to_be_bytes();
        frame[38 + 2..38 + 4].copy_from_slice(&sum);
        frame
    }

    /// A report or leave of version 1 or 2, or a query.
    pub(crate) fn igmp_of(kind: u8, group: Ipv4Addr) -> Vec<u8> {
        igmp(group, &[&[kind, 0, 0, 0][..], &group.octets()].concat())
    }

    /// A frame of MLD from fe80::9, with its checksum.
    pub(crate) fn mld(message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x86, 0xdd, 0x60, 0, 0, 0];
        frame.extend(u16::try_from(8 + message.len()).unwrap().to_be_bytes());
        frame.extend([0, 1]);
        let addresses = [[0xfe80, 0, 0, 0, 0, 0, 0, 9], [0xff02, 0, 0, 0, 0, 0, 0, 0x16]].map(Ipv6Addr::from);
        addresses.iter().for_each(|address| frame.extend(address.octets()));
        frame.extend([PROTOCOL_ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
        frame.extend(message);
        let packet = ip::find(&frame).unwrap();
        let sum = packet.pseudo_header(message.len()).unwrap().with(message).checksum().to_be_bytes();
        frame[62 + 2..62 + 4].copy_from_slice(&sum);
        frame
    }

    fn said(frame: &[u8]) -> Vec<Said> {
        let mut said = Vec::new();
        read(frame, false, |piece| said.push(piece));
        said
    }

    #[test]
    fn messages_of_every_version_are_understood() {
        let group = Ipv4Addr::new(239, 1, 2, 3);
        let other = Ipv4Addr::new(239, 1, 2, 4);
        let group6: Ipv6Addr = "ff05::1:3".parse().unwrap();
        let (joined, left) = (Said::Joined(group.into()), Said::Left(group.into()));
        assert_eq!(said(&igmp_of(0x12, group)), [joined]);
        assert_eq!(said(&igmp_of(0x16, group)), [joined]);
        assert_eq!(said(&igmp_of(0x17, group)), [left]);
        assert_eq!(said(&igmp_of(0x11, group)), [Said::Query]);
        let record = |kind: u8, group: Ipv4Addr, sources: &[[u8; 4]], auxiliary: &[[u8; 4]]| {
            let counts =
                [kind, u8::try_from(auxiliary.len()).unwrap(), 0, u8::try_from(sources.len()).unwrap()];
            [&counts[..], &group.octets(), sources.as_flattened(), auxiliary.as_flattened()].concat()
        };
        let records = [
            record(4, group, &[], &[]),
            record(3, group, &[], &[[1; 4]]),
            record(1, other, &[[10, 0, 0, 1], [10, 0, 0, 2]], &[]),
            record(2, Ipv4Addr::new(10, 0, 0, 1), &[], &[]),
            record(9, other, &[[10, 0, 0, 1]], &[[1; 4]]),
            record(0, other, &[], &[]),
            record(6, group, &[], &[]),
        ];
        let report = [&[0x22, 0, 0, 0, 0, 0, 0, 7][..], &records.concat()].concat();
        let all = [joined, left, Said::Joined(other.into()), joined];
        assert_eq!(said(&igmp(Ipv4Addr::new(224, 0, 0, 22), &report)), all);
        // Cut short inside the third record's sources: the two before count.
        let short = &report[..report.len() - 8 - 8 - 16 - 8 - 4];
        assert_eq!(said(&igmp(Ipv4Addr::new(224, 0, 0, 22), short)), all[..2]);
        let of = |kind: u8| mld(&[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group6.octets()].concat());
        assert_eq!(said(&of(131)), [Said::Joined(group6.into())]);
        assert_eq!(said(&of(132)), [Said::Left(group6.into())]);
        assert_eq!(said(&of(130)), [Said::Query]);
        let record6 = |kind: u8| [&[kind, 0, 0, 0][..], &group6.octets()].concat();
        let report = [&[143, 0, 0, 0, 0, 0, 0, 2][..], &record6(4), &record6(3)].concat();
        assert_eq!(said(&mld(&report)), [Said::Joined(group6.into()), Said::Left(group6.into())]);
    }

    #[test]
    fn what_is_damaged_or_no_message_says_nothing() {
        let good = igmp_of(0x16, Ipv4Addr::new(239, 1, 2, 3));
        for at in 38..46 {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(said(&bad), [], "{at}");
        }
        for len in 0..good.len() {
            assert_eq!(said(&good[..len]), [], "{len}");
        }
        let mut nobody = igmp_of(0x11, Ipv4Addr::new(224, 0, 0, 1));
        nobody[26..30].fill(0);
        assert_eq!(said(&nobody), []);
        // Its sum is still to be made.
        let mut owed = good;
        owed[40] ^= 1;
        let mut heard = 0;
        read(&owed, true, |_| heard += 1);
        assert_eq!(heard, 1);
    }
}
