//! The VXLAN header (RFC 7348 §5): flags, 24 reserved bits, a 24-bit VNI, 8 reserved bits.
//!
//! Not here: who may send one, and which segment a VNI is (see [`crate::switch`]).

use super::be32;
use core::fmt;

/// The VXLAN header is 8 bytes.
pub const HEADER_LEN: usize = 8;
/// The port IANA gave to VXLAN (RFC 7348 §5).
pub const UDP_PORT: u16 = 4789;
/// Outer IPv4 and UDP headers plus VXLAN and inner Ethernet: what an IPv4 underlay's MTU loses.
pub const OVERHEAD_IPV4: u16 = 20 + 8 + 8 + 14;
/// The same over IPv6.
pub const OVERHEAD_IPV6: u16 = 40 + 8 + 8 + 14;

//= RFC 7348 §5
//# The I flag MUST be set to 1 for a valid VXLAN Network ID (VNI). The other 7 bits (designated "R") are
//# reserved fields and MUST be set to zero on transmission and ignored on receipt.
const FLAG_I: u32 = 0x0800_0000;

//= draft-ietf-nvo3-vxlan-gpe §3.1
//# OAM Flag Bit (O bit): The O bit is set to indicate that the packet is an OAM packet.
const FLAG_O: u32 = 0x0100_0000;

/// The header of what nodes tell each other about the path: the O bit of VXLAN-GPE, and nothing else.
pub const OAM_HEADER: [u8; HEADER_LEN] = [1, 0, 0, 0, 0, 0, 0, 0];

/// A VXLAN network identifier, 0..=16,777,215.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

impl Vni {
    /// `None` above 24 bits.
    #[must_use]
    pub const fn new(vni: u32) -> Option<Self> {
        if vni < 1 << 24 { Some(Self(vni)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A header as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    first: u32,
    second: u32,
}

impl Header {
    /// The first eight bytes of `datagram`; `None` when there are fewer.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        Some(Self { first: be32(datagram, 0)?, second: be32(datagram, 4)? })
    }

    /// Whether the I flag says that the VNI is valid.
    #[must_use]
    pub const fn has_vni(self) -> bool {
        self.first & FLAG_I != 0
    }

    /// Whether the O bit of VXLAN-GPE is set, which RFC 7348 reserves: not a frame, but word about the path, where
    /// the I flag is clear.
    #[must_use]
    pub const fn is_oam(self) -> bool {
        self.first & FLAG_O != 0
    }

    /// Whether every reserved bit is zero.
    #[must_use]
    pub const fn reserved_is_zero(self) -> bool {
        self.first & !FLAG_I == 0 && self.second & 0xff == 0
    }

    /// The VNI field.
    #[must_use]
    pub const fn vni(self) -> Vni {
        Vni(self.second >> 8)
    }
}

/// The header to send: I flag set, everything reserved zero.
#[must_use]
pub const fn header(vni: Vni) -> [u8; HEADER_LEN] {
    let (a, b) = (FLAG_I.to_be_bytes(), (vni.0 << 8).to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_has_the_i_flag_and_nothing_else() {
        let bytes = header(Vni::new(0x0012_3456).unwrap());
        assert_eq!(bytes, [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        let parsed = Header::parse(&bytes).unwrap();
        assert!(parsed.has_vni() && parsed.reserved_is_zero());
        assert_eq!(parsed.vni().get(), 0x0012_3456);
        assert!(!parsed.is_oam());
        let oam = Header::parse(&OAM_HEADER).unwrap();
        assert!(oam.is_oam() && !oam.has_vni());
    }

    #[test]
    fn every_reserved_bit_is_seen() {
        for bit in (0..64).filter(|bit| *bit != 59) {
            let mut raw = u64::from_be_bytes(header(Vni(5)));
            raw |= 1 << bit;
            let parsed = Header::parse(&raw.to_be_bytes()).unwrap();
            assert!(parsed.has_vni());
            assert_eq!(parsed.reserved_is_zero(), (8..32).contains(&bit), "bit {bit}");
        }
        assert_eq!(Header::parse(&[8, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Vni::new(1 << 24), None);
    }
}
