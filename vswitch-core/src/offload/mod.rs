//! What a frame still owes: a checksum to finish, a superframe to cut.
//!
//! A frame may be larger than the wire: the sender's kernel hands over up to 64 KiB with one header, and says
//! what is missing. These facts travel with the frame through tag edits and encapsulation to the port that
//! pays for them, or to one that need not: [`finish_checksum`] and [`cut`] pay, [`Train`] puts together again
//! what a wire made small.
//!
//! Not here: which port can take what (see [`crate::port`]), and reading facts from a kernel.

mod checksum;
mod cut;
mod merge;

pub use checksum::{finish_checksum, finished_value, partial_checksum};
pub use cut::{count, cut, cut_parts, header_len};
pub use merge::{MAX_PIECES, Merged, Piece, Sums, Train};

use crate::wire::ip::{Tcp, Udp};
use core::fmt;

/// The longest headers that are cut or merged, Ethernet and tags included.
pub const MAX_HEADERS_LEN: usize = 192;

/// Why offload facts do not fit the bytes they came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffloadError {
    /// There is nothing to cut: the facts name no superframe.
    NotSuperframe,
    /// The checksum is not where the facts say: it lies past the end, or is not the transport's.
    Checksum,
    /// The headers are not those of the kind, malformed, those of a fragment, or do not cover the whole frame.
    Headers,
    /// The header length is not that of the headers, or exceeds [`MAX_HEADERS_LEN`].
    HeaderLen,
    /// The size of the frames to be cut is 0.
    Size,
}

impl fmt::Display for OffloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSuperframe => "not a superframe",
            Self::Checksum => "the checksum is not where the offload facts say",
            Self::Headers => "the headers are not those of the superframe's kind",
            Self::HeaderLen => "the header length is wrong or above 192",
            Self::Size => "the size of the frames to be cut is 0",
        })
    }
}

impl core::error::Error for OffloadError {}

/// A checksum that the sender left unfinished: its field holds the folded sum of the pseudo-header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// The byte at which summing begins: the first of the TCP or UDP header.
    pub start: u16,
    /// Where the field is, from `start`.
    pub offset: u16,
}

/// What kind of superframe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4 (TSO4).
    Tcp4,
    /// TCP over IPv6 (TSO6).
    Tcp6,
    /// UDP over IPv4 or IPv6 (USO): many datagrams of equal size.
    Udp,
}

/// A superframe: headers once, payload of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The transport.
    pub kind: GsoKind,
    /// Payload bytes of each frame to be cut; the last may have fewer.
    pub size: u16,
    /// All headers in front of the payload, Ethernet and tags included.
    pub header_len: u16,
}

/// The offload facts of a frame; positions count from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Offload {
    /// A checksum to finish.
    pub checksum: Option<Checksum>,
    /// A superframe to cut.
    pub gso: Option<Gso>,
}

impl Offload {
    /// Nothing is owed.
    pub const NONE: Self = Self { checksum: None, gso: None };

    /// Whether nothing is owed.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.checksum.is_none() && self.gso.is_none()
    }

    /// The facts after the frame grew (or, below zero, shrank) by `by` bytes in front of its payload: a tag
    /// edit or an encapsulation. `None` when a position leaves 0..=65,535.
    #[must_use]
    pub fn shifted(self, by: i32) -> Option<Self> {
        let shift = |at: u16| i32::from(at).checked_add(by).and_then(|at| u16::try_from(at).ok());
        let mut moved = self;
        if let Some(checksum) = &mut moved.checksum {
            checksum.start = shift(checksum.start)?;
        }
        if let Some(gso) = &mut moved.gso {
            gso.header_len = shift(gso.header_len)?;
        }
        Some(moved)
    }
}

impl GsoKind {
    /// Where the transport's checksum field is, from its header's first byte.
    const fn checksum_offset(self) -> u16 {
        match self {
            Self::Tcp4 | Self::Tcp6 => Tcp::CHECKSUM_OFFSET,
            Self::Udp => Udp::CHECKSUM_OFFSET,
        }
    }
}

/// `value` where the checks before have shown that it fits.
fn word(value: usize) -> u16 {
    debug_assert!(value <= 0xffff);
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// Writes `bytes` at `at`, where the checks before have shown that they fit.
fn put<const N: usize>(head: &mut [u8], at: usize, bytes: [u8; N]) {
    debug_assert!(at + N <= head.len());
    if let Some(to) = head.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *to = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_move_with_the_frame_or_are_lost() {
        let gso = Gso { kind: GsoKind::Tcp4, size: 1400, header_len: 54 };
        let facts = Offload { checksum: Some(Checksum { start: 34, offset: 16 }), gso: Some(gso) };
        let moved = facts.shifted(4).unwrap();
        assert_eq!((moved.checksum.unwrap().start, moved.gso.unwrap().header_len), (38, 58));
        assert_eq!(moved.shifted(-4), Some(facts));
        assert_eq!(facts.shifted(-35), None);
        assert_eq!((facts.shifted(i32::MAX), facts.shifted(i32::MIN)), (None, None));
        assert_eq!(Offload::NONE.shifted(i32::MIN), Some(Offload::NONE));
    }
}
