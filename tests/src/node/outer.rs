//! The outside of a VXLAN datagram, taken apart independently of the switch.

use crate::frames::{checksum, pseudo_header};
use std::net::IpAddr;

/// A UDP datagram on the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// The DF bit; `None` for IPv6, which has none.
    pub dont_fragment: Option<bool>,
    /// The UDP checksum field.
    pub checksum: u16,
    /// Whether that is the right sum.
    pub checksum_holds: bool,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// Where the IP header of an untagged frame begins.
const IP: usize = 14;

/// Whether an Ethernet frame holds a part of a fragmented IP datagram.
#[must_use]
pub fn is_fragment(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(20..22).is_some_and(|word| word[0] & 0x3f != 0 || word[1] != 0),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&44),
        _ => false,
    }
}

impl Outer {
    /// Whether it is no frame but a question, or an answer, between nodes.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        vswitch_core::wire::probe::is_probe(&self.payload)
    }

    /// The UDP datagram in `frame`; `None` when there is no whole one.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        if is_fragment(frame) {
            return None;
        }
        let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        let (src, dst, protocol, udp, dont_fragment): (IpAddr, IpAddr, u8, usize, Option<bool>) =
            match word(12)? {
                0x0800 => {
                    let four =
                        |at: usize| frame.get(at..at + 4)?.try_into().ok().map(|a: [u8; 4]| IpAddr::from(a));
                    let udp = IP + usize::from(frame.get(IP)? & 15) * 4;
                    (
                        four(IP + 12)?,
                        four(IP + 16)?,
                        *frame.get(IP + 9)?,
                        udp,
                        Some(frame.get(IP + 6)? & 0x40 != 0),
                    )
                }
                0x86dd => {
                    let sixteen = |at: usize| {
                        frame.get(at..at + 16)?.try_into().ok().map(|a: [u8; 16]| IpAddr::from(a))
                    };
                    (sixteen(IP + 8)?, sixteen(IP + 24)?, *frame.get(IP + 6)?, IP + 40, None)
                }
                _ => return None,
            };
        if protocol != crate::frames::protocol::UDP {
            return None;
        }
        let len = usize::from(word(udp + 4)?);
        let datagram = frame.get(udp..udp + len)?;
        let sum = checksum(pseudo_header(src, dst, protocol, len), datagram);
        Some(Self {
            src,
            dst,
            src_port: word(udp)?,
            dst_port: word(udp + 2)?,
            dont_fragment,
            checksum: word(udp + 6)?,
            checksum_holds: sum == 0,
            payload: datagram.get(8..)?.to_vec(),
        })
    }

    /// The VNI, where the payload begins with a VXLAN header.
    #[must_use]
    pub fn vni(&self) -> Option<u32> {
        let field = self.payload.get(4..7)?;
        Some(u32::from_be_bytes([0, field[0], field[1], field[2]]))
    }

    /// The frame behind the VXLAN header.
    #[must_use]
    pub fn inner(&self) -> &[u8] {
        self.payload.get(8..).unwrap_or_default()
    }
}
