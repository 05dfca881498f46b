//! Ethernet II (IEEE 802.3 §3): the MAC address and the first fourteen bytes of a frame.
//!
//! Not here: tags (see [`super::vlan`]); the frame check sequence, which no software link carries.

use core::fmt;
use core::str::FromStr;

/// Destination, source, type: 14 bytes before the payload of an untagged frame.
pub const HEADER_LEN: usize = 14;
/// The two addresses, 12 bytes: what precedes the first tag.
pub const ADDRESSES_LEN: usize = 12;
/// The largest frame the switch carries: 65,535 bytes of IP in a superframe behind header and two tags.
pub const MAX_FRAME_LEN: usize = 65_535 + HEADER_LEN + 8;

/// Ethertype of IPv4 (RFC 894).
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of ARP (RFC 826).
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethertype of IPv6 (RFC 2464).
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// A 48-bit MAC address (IEEE 802 §8.2).
///
/// Held as a number, the first wire byte most significant: what every frame asks of it is one operation then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(u64);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self((1 << 48) - 1);

    /// The address made of these six bytes, in wire order.
    #[must_use]
    pub const fn new(bytes: [u8; 6]) -> Self {
        let b = bytes;
        Self(u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]]))
    }

    /// The low 48 bits of `value`, the first wire byte most significant.
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        Self(value & Self::BROADCAST.0)
    }

    /// The address as a number below 2⁴⁸, the first wire byte most significant.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The six bytes in wire order.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        let b = self.0.to_be_bytes();
        [b[2], b[3], b[4], b[5], b[6], b[7]]
    }

    /// Whether the group bit is set: multicast or broadcast.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0 >> 40 & 1 != 0
    }

    /// Whether the U/L bit is set: locally administered (IEEE 802 §8.4).
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0 >> 41 & 1 != 0
    }

    /// Whether all bits are zero: no station's address.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether this is one of the addresses that a bridge keeps to itself,
    /// 01-80-C2-00-00-00 … 01-80-C2-00-00-0F (IEEE 802.1Q §8.6.3, table 8-1).
    #[must_use]
    pub const fn is_reserved_group(self) -> bool {
        self.0 & 0xffff_ffff_fff0 == 0x0180_c200_0000
    }

    /// Whether this is one of the addresses by which Cisco's and Extreme's switches speak to each other and which Open
    /// vSwitch's bridges keep to themselves: ISL; CDP, VTP and others; PVST+; STP Uplink Fast; CFM; EDP and EAPS, whose
    /// addresses are no groups (ovs-vswitchd.conf.db(5), `forward-bpdu`).
    #[must_use]
    pub const fn is_vendor_protocol(self) -> bool {
        matches!(self.0, 0x0100_0c00_0000 | 0x0100_0ccc_cccc | 0x0100_0ccc_cccd | 0x0100_0ccd_cdcd)
            || matches!(self.0, 0x0100_0ccc_ccc0..=0x0100_0ccc_ccc7)
            || matches!(self.0, 0x00e0_2b00_0000 | 0x00e0_2b00_0004 | 0x00e0_2b00_0006)
    }

    /// Whether this may be one that [`Self::is_reserved_group`] or [`Self::is_vendor_protocol`] means, by the bits that
    /// none of them has: one comparison, which hardly any other address passes.
    #[inline(always)]
    pub(crate) const fn may_be_kept(self) -> bool {
        self.0 & 0xfe1f_1032_3230 == 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = self.bytes();
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2], b[3], b[4], b[5])
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six pairs of hexadecimal digits with colons or hyphens between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a MAC address: six pairs of hexadecimal digits, like 02:00:00:00:00:0a, are expected",
        )
    }
}

impl core::error::Error for ParseMacError {}

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().ok_or(ParseMacError)?;
            if part.len() != 2 || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(ParseMacError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseMacError)?;
        }
        if parts.next().is_some() { Err(ParseMacError) } else { Ok(Self::new(bytes)) }
    }
}

/// The destination and source of `frame`; `None` when it is shorter than [`HEADER_LEN`].
#[inline]
#[must_use]
pub fn addresses(frame: &[u8]) -> Option<(Mac, Mac)> {
    let header = frame.first_chunk::<HEADER_LEN>()?;
    // Each address with the two bytes behind it is a word.
    let dst = u64::from_be_bytes(*header.first_chunk()?);
    let src = u64::from_be_bytes(*header.last_chunk()?);
    Some((Mac(dst >> 16), Mac(src >> 16)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    #[test]
    fn a_mac_survives_text_and_number() {
        let mac: Mac = "02:00:00:0a:fF:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:00:0a:ff:01");
        assert_eq!(Mac::from_u64(mac.as_u64()), mac);
        assert_eq!("02-00-00-0a-ff-01".parse(), Ok(mac));
        for bad in [
            "",
            "02:00:00:0a:ff",
            "02:00:00:0a:ff:01:02",
            "2:0:0:a:f:1",
            "02:00:00:0a:ff:0g",
            "+2:00:00:0a:ff:01",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(ParseMacError), "{bad}");
        }
    }

    #[test]
    fn the_addresses_are_the_first_twelve_bytes_of_a_whole_header() {
        let frame = [0xff, 2, 3, 4, 5, 6, 0xf7, 8, 9, 10, 11, 12, 13, 14, 15];
        let expected = (Mac::new([0xff, 2, 3, 4, 5, 6]), Mac::new([0xf7, 8, 9, 10, 11, 12]));
        assert_eq!(addresses(&frame), Some(expected));
        assert_eq!(addresses(&frame[..14]), Some(expected));
        assert_eq!(addresses(&frame[..13]), None);
        assert_eq!((expected.1.bytes(), expected.1.is_group()), ([0xf7, 8, 9, 10, 11, 12], true));
        assert!(Mac::BROADCAST.is_group() && !Mac::new([2, 1, 1, 1, 1, 1]).is_group());
        assert_eq!(Mac::BROADCAST.bytes(), [0xff; 6]);
    }

    #[test]
    fn only_the_sixteen_reserved_addresses_are_reserved() {
        for last in 0..=0xffu64 {
            assert_eq!(Mac::from_u64(0x0180_c200_0000 | last).is_reserved_group(), last < 16);
        }
        assert!(!Mac::BROADCAST.is_reserved_group());
    }

    #[test]
    fn fifteen_addresses_are_of_vendors_protocols_and_none_is_overlooked() {
        let near = |all: [u64; 3]| all.into_iter().flat_map(|from| from..from + 0x1_0000);
        let vendors = near([0x0100_0c00_0000, 0x0100_0ccc_cc00, 0x0100_0ccd_cd00])
            .chain(near([0x00e0_2b00_0000, 0x0180_c200_0000, 0x0200_0000_0000]))
            .map(Mac::from_u64);
        let kept: Vec<Mac> = vendors.filter(|mac| mac.is_vendor_protocol()).collect();
        assert_eq!(kept.len(), 15, "{kept:?}");
        let groups = (0..16).map(|last| Mac::from_u64(0x0180_c200_0000 | last));
        assert!(kept.into_iter().chain(groups).all(Mac::may_be_kept));
        for other in [0xffff_ffff_ffff, 0x0200_0000_0001, 0x0100_5e00_0001, 0x3333_0000_0001] {
            assert!(!Mac::from_u64(other).may_be_kept());
        }
    }
}
