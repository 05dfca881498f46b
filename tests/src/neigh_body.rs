//! What must hold for any frame that the slow path reads as ARP or neighbour discovery: the body that the fuzz target and
//! the property tests share.
//!
//! What may be believed is decided here byte by byte, with nothing of the product's parsing. Not here: who is answered.

use crate::frames::{checksum, hex, pseudo_header, station};
use std::net::{IpAddr, Ipv6Addr};
use vswitch_core::wire::ethernet::Mac;
use vswitch_core::wire::neigh::{Message, message};
use vswitchd::slow::{Refusal, Seen, announcement, read};

/// What a run may end with, for the test that wants to meet every end: nothing seen, seen, or refused.
pub type End = Result<Seen, Refusal>;

/// The station that answers.
const OWNER: u32 = 9;

/// A request for 10.0.0.2 from 02:00:00:00:00:01, which has 10.0.0.1.
#[must_use]
pub fn request() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(station(1).bytes());
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(station(1).bytes());
    frame.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    frame
}

/// A solicitation for fd00::2 from 02:00:00:00:00:01, which has fd00::1; without a source it wants to know whether the
/// address is free.
#[must_use]
pub fn solicitation(has_source: bool) -> Vec<u8> {
    let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 2];
    frame.extend(station(1).bytes());
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, if has_source { 32 } else { 24 }, 58, 255]);
    let mut from = [0; 16];
    if has_source {
        (from[0], from[15]) = (0xfd, 1);
    }
    frame.extend(from);
    frame.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2]);
    frame.extend([135, 0, 0, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    if has_source {
        frame.extend([1, 1]);
        frame.extend(station(1).bytes());
    }
    summed(frame)
}

/// An untagged frame of IPv6 with the right checksum, where it has one.
fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(sum) = sum(&frame, 14, true) {
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// The ICMPv6 checksum of an IPv6 packet at `at` without extension headers, `anew` as if its field were zero.
fn sum(frame: &[u8], at: usize, anew: bool) -> Option<u16> {
    let len = usize::from(u16::from_be_bytes([*frame.get(at + 4)?, *frame.get(at + 5)?]));
    let mut icmp = frame.get(at + 40..at + 40 + len)?.to_vec();
    if anew {
        icmp.get_mut(2..4)?.fill(0);
    }
    let address = |from: usize| <[u8; 16]>::try_from(&frame[from..from + 16]).map(Ipv6Addr::from).ok();
    let (from, to) = (IpAddr::V6(address(at + 8)?), IpAddr::V6(address(at + 24)?));
    Some(checksum(pseudo_header(from, to, 58, icmp.len()), &icmp))
}

/// The frame that `data` means: its first byte chooses what to begin with, or that the rest is the frame; then come
/// places and bytes to put there, or lengths to cut to.
#[must_use]
pub fn frame_of(data: &[u8]) -> Vec<u8> {
    let Some((choice, rest)) = data.split_first() else { return Vec::new() };
    let mut frame = match choice & 7 {
        0 => return rest.to_vec(),
        1 | 2 => request(),
        3 | 4 => solicitation(false),
        _ => solicitation(true),
    };
    let (mut edits, tail) = rest.as_chunks::<2>();
    if let Some((last, before)) = edits.split_last()
        && choice & 8 != 0
    {
        frame.resize(usize::from(last[0]), last[1]);
        edits = before;
    }
    for [at, byte] in edits {
        let at = usize::from(*at) % frame.len().max(1);
        if let Some(place) = frame.get_mut(at) {
            *place = *byte;
        }
    }
    if choice & 16 == 0 && frame.get(12..14) == Some(&[0x86, 0xdd]) {
        frame = summed(frame);
    }
    if choice & 32 != 0 && frame.len() >= 12 {
        frame.splice(12..12, [0x81, 0, 0, 10]);
    }
    frame.extend(tail);
    frame
}

/// Reads the frame that `data` means; what is believed of it must be true to the letter, and its answer must say what was
/// asked.
///
/// # Panics
/// When what must hold does not.
pub fn neigh_body(data: &[u8]) -> End {
    let frame = frame_of(data);
    let end = read(&frame, false);
    if let Ok(seen) = end {
        assert_eq!(read(&frame, true), end, "a right checksum may be owed: {}", hex(&frame));
        believed(&frame, &seen);
    }
    if let (Ok(Seen { question: Some(question), .. }), Ok(seen)) = (end, read(&frame, true)) {
        assert_eq!(seen.question, Some(question));
        let Some(answer) = question.answer(&frame, station(OWNER)) else {
            assert_eq!(seen.station, None, "only who has no address yet is left to the owner");
            announced(data);
            return end;
        };
        let type_at = type_at(&frame);
        assert_eq!(answer[6..12], station(OWNER).bytes(), "from the owner");
        assert_eq!(answer[12..type_at + 2], frame[12..type_at + 2], "in the dress of the question");
        let told = read(&answer, false).expect("what we say, we believe");
        assert_eq!(told, Seen { station: Some((station(OWNER), question.target())), question: None });
        assert_eq!(message(&answer, type_at == 16), Some(Message::Statement));
    }
    announced(data);
    end
}

/// Where the type stands, behind tags.
fn type_at(frame: &[u8]) -> usize {
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8])) && frame.len() >= at + 4 {
        at += 4;
    }
    at
}

/// Nothing is believed that the RFCs say must not be.
fn believed(frame: &[u8], seen: &Seen) {
    let at = type_at(frame);
    let source = Mac::new(frame[6..12].try_into().expect("six bytes"));
    assert!(source.as_u64() != 0 && frame[6] & 1 == 0);
    if let Some((mac, ip)) = seen.station {
        assert_eq!(mac, source);
        assert!(!ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback());
    }
    let body = &frame[at + 2..];
    match frame[at..at + 2] {
        [8, 6] => {
            assert_eq!(body[..6], [0, 1, 8, 0, 6, 4]);
            assert_eq!(body[8..14], frame[6..12]);
        }
        [0x86, 0xdd] => {
            assert_eq!((body[0] >> 4, body[6], body[7], body[41]), (6, 58, 255, 0), "{}", hex(frame));
            assert_eq!(sum(frame, at + 2, false), Some(0), "{}", hex(frame));
            let end = 40 + usize::from(u16::from_be_bytes([body[4], body[5]]));
            let mut option = 64;
            let mut names = Vec::new();
            while option < end {
                let len = usize::from(body[option + 1]) * 8;
                assert!(len > 0 && option + len <= end, "{}", hex(frame));
                if body[option] == if body[40] == 135 { 1 } else { 2 } {
                    assert_eq!(body[option + 2..option + len], frame[6..12]);
                    names.push(option);
                }
                option += len;
            }
            let nobody = body[8..24].iter().all(|byte| *byte == 0);
            assert!(!nobody || (body[40] == 135 && names.is_empty() && seen.station.is_none()));
            assert!(body[48] != 0xff, "an answer for a group");
        }
        _ => panic!("neither ARP nor IPv6: {}", hex(frame)),
    }
    // What asks here asks for the core too, if it went to everybody with no more than one tag.
    if seen.question.is_some() && frame[0] & 1 != 0 && at <= 16 {
        assert_eq!(message(frame, at == 16), Some(Message::Question), "{}", hex(frame));
    }
}

/// What is announced is read as just that.
fn announced(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<16>() else { return };
    let v6 = Ipv6Addr::from(*bytes);
    let v4 = v6.octets().last_chunk::<4>().map(|octets| IpAddr::from(*octets));
    for ip in v4.into_iter().chain([IpAddr::V6(v6)]) {
        let Some(frame) = announcement(station(OWNER), ip, None) else { continue };
        let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let station = (!link_local).then_some((station(OWNER), ip));
        assert_eq!(read(&frame, false), Ok(Seen { station, question: None }), "{ip}");
        assert_eq!(message(&frame, false), Some(Message::Statement), "{ip}");
    }
}
