//! Probes: what nodes ask and answer each other on the VXLAN port, so that the very path of frames is tried. Here is
//! only how one is told from a frame, and where its parts stand.
//!
//! ```text
//!  0        1        2        3        4                          7
//!  +--------+--------+--------+--------+--------+--------+--------+--------+
//!  | 0x01   |               0          |        VNI 0             |   0    |   VXLAN-GPE header, O bit set, I clear
//!  +--------+--------+--------+--------+--------+--------+--------+--------+
//!  | "V"      "S"      "W"      "P"    |version | kind   | length as sent  |
//!  +--------+--------+--------+--------+--------+--------+--------+--------+
//!  | nonce, 16 bytes                                                       |
//!  +--------+--------+--------+--------+--------+--------+--------+--------+
//!  | address, 16 bytes (IPv4-mapped), then zeros up to the length          |
//!  +--------+--------+--------+--------+--------+--------+--------+--------+
//! ```
//!
//! No frame inside VXLAN can be one: what a node sends for others always has the I flag set. Not here: writing probes,
//! what is said with them, and whom to believe.

use super::vxlan::{self, Header};

/// What stands behind the VXLAN-GPE header of every probe.
pub const MAGIC: [u8; 4] = *b"VSWP";
/// The version of what follows that is spoken here. A datagram of another one is recognised all the same.
pub const VERSION: u8 = 1;
/// A probe has at least so many bytes, all headers included.
pub const MIN_LEN: usize = 48;

/// Where [`MAGIC`] stands.
pub const MAGIC_AT: usize = vxlan::HEADER_LEN;
/// Where the version stands, one byte.
pub const VERSION_AT: usize = 12;
/// Where the kind stands, one byte.
pub const KIND_AT: usize = 13;
/// Where the length of the whole UDP payload as sent stands, two bytes, big-endian.
pub const LEN_AT: usize = 14;
/// Where the nonce stands, 16 bytes.
pub const NONCE_AT: usize = 16;
/// Where the address stands, 16 bytes.
pub const ADDRESS_AT: usize = 32;

/// Whether a UDP payload is a probe: the O bit of VXLAN-GPE, no I flag, the magic, and no less than [`MIN_LEN`]
/// bytes. Version, kind and length are not looked at.
#[must_use]
pub fn is_probe(datagram: &[u8]) -> bool {
    datagram.len() >= MIN_LEN
        && Header::parse(datagram).is_some_and(|header| header.is_oam() && !header.has_vni())
        && datagram[MAGIC_AT..].starts_with(&MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn probe() -> Vec<u8> {
        let mut bytes = Vec::from(vxlan::OAM_HEADER);
        bytes.extend(MAGIC);
        bytes.resize(MIN_LEN, 0);
        bytes
    }

    #[test]
    fn a_probe_is_known_by_its_flags_its_magic_and_its_length() {
        assert!(is_probe(&probe()));
        let mut long = probe();
        long.resize(9000, 0);
        assert!(is_probe(&long));
        for len in 0..MIN_LEN {
            assert!(!is_probe(&probe()[..len]), "{len} bytes");
        }
        for bit in 0..8 {
            for at in MAGIC_AT..MAGIC_AT + MAGIC.len() {
                let mut other = probe();
                other[at] ^= 1 << bit;
                assert!(!is_probe(&other), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn nothing_with_the_i_flag_is_a_probe_and_nothing_without_the_o_bit() {
        for flags in 0..=u8::MAX {
            let mut bytes = probe();
            bytes[0] = flags;
            assert_eq!(is_probe(&bytes), flags & 0x09 == 0x01, "flags {flags:#04x}");
        }
    }
}
