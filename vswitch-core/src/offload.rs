//! What a frame still owes: a checksum to finish, a superframe to cut.
//!
//! A frame may be larger than the wire: the sender's kernel hands over up to 64 KiB with one header, and says
//! what is missing. These facts travel with the frame through tag edits and encapsulation to the port that
//! pays for them, or to one that need not.

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
        let shift = |at: u16| u16::try_from(i32::from(at) + by).ok();
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
