//! What the table says: an entry, and what became of a request.
//!
//! Not here: how it is kept.

use crate::port::{PortId, Segment};
use crate::wire::ethernet::Mac;
use core::fmt;
use core::time::Duration;

/// What learning a source did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// A station that was not in the table.
    New,
    /// It was there, on this port.
    Same,
    /// It was on another port.
    Moved {
        /// The port it was on.
        from: PortId,
    },
    /// The table stays as it was.
    Refused(Refused),
}

/// Why a source was not learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another worker is inserting; the next frame teaches.
    Busy,
    /// No place could be made without taking from a port that has fewer.
    Full,
    /// A static entry says otherwise.
    Static,
    /// A group or zero address, or a port that is not bound.
    Invalid,
}

/// Whether an entry was learned or set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// Learned from a frame; it ages and moves.
    Learned,
    /// Set; it does neither.
    Static,
}

/// One entry, as a listing shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its segment.
    pub segment: Segment,
    /// Its address.
    pub mac: Mac,
    /// Where it is.
    pub port: PortId,
    /// Time since it was last seen as a source, in whole seconds; zero for a static entry.
    pub age: Duration,
    /// Learned or static.
    pub state: EntryState,
}

/// Why a static entry was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// Every entry that could make room is static.
    Full,
    /// A group or zero address, or a port that is not bound.
    Invalid,
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the MAC table is full of static entries",
            Self::Invalid => "not a station's address, or the port is not bound",
        })
    }
}

impl core::error::Error for AddError {}
