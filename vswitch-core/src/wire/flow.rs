//! A number per flow: the entropy in the outer UDP source port of VXLAN.
//!
//! Not here: which ports there are to choose from.

use super::ethernet::ADDRESSES_LEN;
use super::ip::{self, Ip, PROTOCOL_TCP, PROTOCOL_UDP};
use super::vlan::tag_stack;
use super::{be16, be32};

//= RFC 7348 §5
//# It is recommended that the UDP source port number be calculated using a hash of fields from the inner
//# packet -- one example being a hash of the inner Ethernet frame's headers.

/// A hash of the flow that `frame` belongs to, spread over all 32 bits.
///
/// Of IP, behind any VLAN tags: addresses, protocol, and the ports of TCP and UDP; without the ports for any
/// part of a fragmented datagram, so that all its parts give one value. Of anything else, malformed IP included:
/// the MAC addresses and the ethertype behind the tags. Tags do not count: a flow keeps its value through a
/// translation. The two directions of a flow differ. The function may change between versions.
#[must_use]
pub fn entropy(frame: &[u8]) -> u32 {
    if let Some(ip) = ip::find(frame) {
        return hash(&ip);
    }
    let (_, type_at) = tag_stack(frame);
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(frame.iter().take(ADDRESSES_LEN)) {
        *to = *from;
    }
    fold(u64::from(be16(frame, type_at).unwrap_or(0)), &bytes)
}

fn hash(ip: &Ip<'_>) -> u32 {
    let has_ports = matches!(ip.protocol, PROTOCOL_TCP | PROTOCOL_UDP) && !ip.is_part();
    let ports = if has_ports { be32(ip.payload(), 0).unwrap_or(0) } else { 0 };
    fold(u64::from(ip.protocol) << 32 | u64::from(ports), ip.address_bytes())
}

/// The whole words of `bytes`, mixed into `start`.
#[inline]
fn fold(start: u64, bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<8>();
    let state = words.iter().fold(start, |state, word| mix(state, u64::from_ne_bytes(*word)));
    let last = mix(state, state);
    ((last >> 32) & 0xffff_ffff) as u32
}

/// A number of the flow that a whole TCP or UDP datagram belongs to; `front` are the first bytes of its frame of
/// `frame_len`, all headers among them. `None` for everything else: parts of fragmented datagrams, other protocols,
/// malformed IP.
#[must_use]
pub fn of_datagram(front: &[u8], frame_len: usize) -> Option<u32> {
    let ip = ip::find_in(front, frame_len).filter(|ip| !ip.is_part())?;
    matches!(ip.protocol, PROTOCOL_TCP | PROTOCOL_UDP).then(|| hash(&ip))
}

/// Two words to one: the halves of the 128-bit product of both, after each has been moved away from zero by
/// digits of π.
#[inline]
fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ 0x243f_6a88_85a3_08d3) * u128::from(word ^ 0x1319_8a2e_0370_7344);
    (product >> 64) as u64 ^ (product & 0xffff_ffff_ffff_ffff) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn udp4(tags: &[u8], ports: [u8; 4], fragment: [u8; 2]) -> Vec<u8> {
        let mut frame = alloc::vec![2; 12];
        frame.extend(tags);
        frame.extend([8, 0, 0x45, 0, 0, 32, 0, 1, fragment[0], fragment[1], 64, 17, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(ports);
        frame.extend([0; 8]);
        frame
    }

    #[test]
    fn a_flow_keeps_its_value_behind_other_tags() {
        let plain = entropy(&udp4(&[], [0, 1, 0, 2], [0, 0]));
        let frame = udp4(&[], [0, 1, 0, 2], [0, 0]);
        // Its first bytes suffice, and parts have no number of their own.
        assert_eq!(of_datagram(&frame[..42], frame.len()), Some(plain));
        assert_eq!(of_datagram(&udp4(&[], [0, 1, 0, 2], [0x20, 0]), 46), None);
        assert_eq!(entropy(&udp4(&[0x81, 0, 0, 5, 0x88, 0xa8, 0, 6], [0, 1, 0, 2], [0, 0])), plain);
        assert_ne!(entropy(&udp4(&[], [0, 1, 0, 3], [0, 0])), plain);
    }

    #[test]
    fn all_fragments_of_a_flow_share_one_value() {
        let first = entropy(&udp4(&[], [0, 1, 0, 2], [0x20, 0]));
        assert_eq!(entropy(&udp4(&[], [9, 9, 9, 9], [0x20, 1])), first);
        assert_eq!(entropy(&udp4(&[], [7, 7, 7, 7], [0, 2])), first);
    }

    #[test]
    fn what_is_not_ip_hashes_by_addresses_and_type() {
        let arp = |last: u8, rest: u8| [&[2; 11][..], &[last, 8, 6], &[rest; 28]].concat();
        assert_eq!(entropy(&arp(1, 1)), entropy(&arp(1, 2)));
        assert_ne!(entropy(&arp(1, 1)), entropy(&arp(2, 1)));
        let mut broken = udp4(&[], [0, 1, 0, 2], [0, 0]);
        broken[14] = 0x4f;
        let value = entropy(&broken);
        broken[40] = 0xee;
        assert_eq!(entropy(&broken), value);
        for len in 0..14 {
            let _ = entropy(&[0; 14][..len]);
        }
    }

    #[test]
    fn neighbouring_flows_spread_evenly() {
        let mut counts = [[0u32; 16]; 2];
        for port in 0..16_000u16 {
            let [a, b] = port.to_be_bytes();
            let value = entropy(&udp4(&[], [a, b, 0, 80], [0, 0]));
            counts[0][value as usize % 16] += 1;
            counts[1][(value >> 28) as usize] += 1;
        }
        for count in counts.as_flattened() {
            assert!((850..1150).contains(count), "{counts:?}");
        }
    }
}
