//! Which frame asks or says where an address is, by the letter of RFC 826 and RFC 4861, and which datagram is a probe.
//!
//! Byte by byte, with nothing of the core's parsing. Not here: who answers.

use vswitch_core::verdict::Why;

/// What a frame to a group or to one station is handed out for; `rest` is its type and payload.
pub(super) fn neigh(to_group: bool, rest: &[u8]) -> Option<Why> {
    let (ethertype, payload) = rest.split_at_checked(2)?;
    let asks = match *ethertype {
        [0x08, 0x06] => {
            if payload.len() < 28 || payload[..6] != [0, 1, 8, 0, 6, 4] {
                return None;
            }
            payload[6..8] == [0, 1] && payload[14..18] != payload[24..28]
        }
        [0x86, 0xdd] => {
            if payload.len() < 40 + 24 || payload[0] & 0xf0 != 0x60 {
                return None;
            }
            let len = u16::from_be_bytes([payload[4], payload[5]]);
            let (next_header, hop_limit, kind, code) = (payload[6], payload[7], payload[40], payload[41]);
            if len < 24 || next_header != 58 || hop_limit != 255 || ![135, 136].contains(&kind) || code != 0 {
                return None;
            }
            kind == 135
        }
        _ => return None,
    };
    Some(if asks && to_group { Why::Neigh } else { Why::NeighSeen })
}

/// Whether a member's datagram is a probe.
pub(super) fn is_probe(datagram: &[u8]) -> bool {
    datagram.len() >= 48 && datagram[0] & 0b0000_1001 == 0b0000_0001 && datagram[8..12] == *b"VSWP"
}
