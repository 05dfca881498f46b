//! Probes on the wire: what is asked and answered on the VXLAN port. The layout: [`vswitch_core::wire::probe`].
//!
//! Not here: whom to ask, when, and whom to believe (see [`super::Prober`]).

use std::net::{IpAddr, Ipv6Addr};
use vswitch_core::wire::probe::{
    ADDRESS_AT, KIND_AT, LEN_AT, MAGIC, MIN_LEN, NONCE_AT, VERSION, VERSION_AT, is_probe,
};
use vswitch_core::wire::vxlan;

/// A number that only who has seen it can return.
pub(super) type Nonce = [u8; 16];

/// Bytes of outer IPv4 and UDP headers.
const OUTER_V4: u16 = 20 + 8;
/// The same over IPv6.
const OUTER_V6: u16 = 40 + 8;

/// What one says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Answer this.
    Probe { nonce: Nonce },
    /// The probe of that nonce arrived with so many bytes of UDP payload.
    Answer { nonce: Nonce, len: u16 },
    /// Probe `target`, and say so when it answers.
    Ask { nonce: Nonce, target: IpAddr },
    /// Whom the asker meant has answered.
    AskAnswer { nonce: Nonce },
}

impl Message {
    /// The UDP payload, filled up to `len` bytes where that is more than it needs.
    pub(super) fn datagram(self, len: usize) -> Vec<u8> {
        let (kind, nonce, word, address) = match self {
            Self::Probe { nonce } => (1, nonce, None, Ipv6Addr::UNSPECIFIED),
            Self::Answer { nonce, len } => (2, nonce, Some(len), Ipv6Addr::UNSPECIFIED),
            Self::Ask { nonce, target } => {
                let target = match target {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                (3, nonce, None, target)
            }
            Self::AskAnswer { nonce } => (4, nonce, None, Ipv6Addr::UNSPECIFIED),
        };
        let len = len.clamp(MIN_LEN, usize::from(u16::MAX));
        let word = word.unwrap_or_else(|| u16::try_from(len).unwrap_or(u16::MAX));
        let mut datagram = Vec::with_capacity(len);
        datagram.extend(vxlan::OAM_HEADER);
        datagram.extend(MAGIC);
        datagram.extend([VERSION, kind]);
        datagram.extend(word.to_be_bytes());
        datagram.extend(nonce);
        datagram.extend(address.octets());
        datagram.resize(len, 0);
        datagram
    }

    /// What the first bytes of a UDP payload say; `None` where that is nothing known.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        if !is_probe(head) || head.get(VERSION_AT) != Some(&VERSION) {
            return None;
        }
        let nonce = *head.get(NONCE_AT..)?.first_chunk()?;
        let len = u16::from_be_bytes(*head.get(LEN_AT..)?.first_chunk()?);
        let address = Ipv6Addr::from(*head.get(ADDRESS_AT..)?.first_chunk::<16>()?);
        match head.get(KIND_AT)? {
            1 => Some(Self::Probe { nonce }),
            2 => Some(Self::Answer { nonce, len }),
            3 => Some(Self::Ask { nonce, target: IpAddr::V6(address).to_canonical() }),
            4 => Some(Self::AskAnswer { nonce }),
            _ => None,
        }
    }
}

/// The UDP payload of an outer IP packet of `mtu` bytes to `peer`.
pub(super) fn payload_of(peer: IpAddr, mtu: u16) -> usize {
    let outer = if peer.to_canonical().is_ipv6() { OUTER_V6 } else { OUTER_V4 };
    usize::from(mtu.saturating_sub(outer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_has_the_length_asked_for() {
        let nonce = *b"0123456789abcdef";
        let said = [
            Message::Probe { nonce },
            Message::Answer { nonce, len: 1472 },
            Message::Ask { nonce, target: "10.0.0.9".parse().unwrap() },
            Message::Ask { nonce, target: "fd00::9".parse().unwrap() },
            Message::AskAnswer { nonce },
        ];
        for message in said {
            let datagram = message.datagram(0);
            assert_eq!(datagram.len(), MIN_LEN);
            assert_eq!(Message::parse(&datagram), Some(message));
            assert_eq!(message.datagram(1472).len(), 1472);
            assert_eq!(message.datagram(1472)[..MIN_LEN][16..], datagram[16..]);
            for cut in 0..MIN_LEN {
                assert_eq!(Message::parse(&datagram[..cut]), None);
            }
        }
        let mut other = Message::Probe { nonce }.datagram(0);
        other[VERSION_AT] = 2;
        assert_eq!(Message::parse(&other), None);
        other[VERSION_AT] = VERSION;
        other[KIND_AT] = 9;
        assert_eq!(Message::parse(&other), None);
    }

    #[test]
    fn an_mtu_is_of_the_outer_packet() {
        assert_eq!(payload_of("10.0.0.1".parse().unwrap(), 1500), 1472);
        assert_eq!(payload_of("fd00::1".parse().unwrap(), 1500), 1452);
    }
}
