//! Bytes and their meaning: Ethernet, VLAN tags, VXLAN, and as much of IP, TCP and UDP as hashing,
//! checksums and segmentation need.
//!
//! This room knows nothing of the rest of the crate, allocates nothing and decides nothing: a function
//! here takes a slice and says what stands in it, or writes what it is told.

pub mod checksum;
pub mod ethernet;
pub mod flow;
pub mod group;
pub mod ip;
pub mod neigh;
pub mod probe;
pub mod vlan;
pub mod vxlan;

/// Two bytes at `at`, big-endian; `None` past the end.
#[must_use]
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([two[0], two[1]]))
}

/// Four bytes at `at`, big-endian; `None` past the end.
#[must_use]
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}
