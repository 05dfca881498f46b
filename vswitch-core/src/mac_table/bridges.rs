//! Limits and ageing times of single bridges, and what is counted for them: how many entries each has, and which of its
//! ports has the most.
//!
//! A port belongs to one bridge, that of the first of its entries, as long as it has any. Not here: what follows from a
//! limit (see [`super::held`]).

use super::index_in;
use super::ranks::Ranks;
use super::sync::{AtomicU32, Held, Ordering, zeroed_u32};
use crate::port::Segment;
use alloc::boxed::Box;

/// How many bridges there are.
const BRIDGES: usize = Segment::BRIDGES as usize;

/// What is said and counted of each bridge. Except for ageing times all of it is under the lock.
pub(super) struct Bridges {
    /// By bridge: how many entries it may have, and its ageing time in seconds; 0: nothing of its own.
    limits: Box<[AtomicU32]>,
    ageing: Box<[AtomicU32]>,
    /// The shortest ageing time of all, the table's included.
    shortest: AtomicU32,
    /// By bridge: its entries.
    len: Box<[AtomicU32]>,
    /// By port: the bridge of its entries.
    of_port: Box<[AtomicU32]>,
    /// By bridge: ports that have learned entries, by all their entries.
    pub(super) givers: Ranks,
}

impl Bridges {
    pub(super) fn new(ports: usize) -> Self {
        Self {
            limits: zeroed_u32(BRIDGES),
            ageing: zeroed_u32(BRIDGES),
            shortest: AtomicU32::new(0),
            len: zeroed_u32(BRIDGES),
            of_port: zeroed_u32(ports),
            givers: Ranks::new(ports, BRIDGES),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.of_port) + self.givers.memory_bytes() + 3 * size_of_val(&*self.len)
    }

    /// The shortest ageing time, in seconds.
    #[inline]
    pub(super) fn shortest(&self) -> u32 {
        self.shortest.load(Ordering::Relaxed)
    }

    /// The ageing time of `bridge`, in seconds, where the table's is `common`.
    pub(super) fn ageing(&self, bridge: usize, common: u32) -> u32 {
        match self.ageing.get(bridge).map_or(0, |own| own.load(Ordering::Relaxed)) {
            0 => common,
            own => own,
        }
    }

    /// Whether entries of one bridge live longer than those of another.
    pub(super) fn age_apart(&self) -> bool {
        self.ageing.iter().any(|own| own.load(Ordering::Relaxed) != 0)
    }

    /// After any ageing time has changed; `common` is the table's.
    pub(super) fn agree(&self, common: u32) {
        let shortest = (0..BRIDGES).map(|bridge| self.ageing(bridge, common)).min().unwrap_or(common);
        self.shortest.store(shortest.min(common), Ordering::Relaxed);
    }

    pub(super) fn set(&self, bridge: usize, limit: Option<u32>, ageing: Option<u32>) {
        if let (Some(own_limit), Some(own_ageing)) = (self.limits.get(bridge), self.ageing.get(bridge)) {
            own_limit.set(limit.unwrap_or(0));
            own_ageing.set(ageing.unwrap_or(0));
        }
    }

    /// How many entries `bridge` may have.
    pub(super) fn limit(&self, bridge: usize) -> u32 {
        match self.limits.get(bridge).map_or(0, Held::get) {
            0 => u32::MAX,
            own => own,
        }
    }

    /// How many entries `bridge` has.
    pub(super) fn len(&self, bridge: usize) -> u32 {
        self.len.get(bridge).map_or(0, Held::get)
    }

    /// The bridge to which `port` belongs as long as it has entries.
    pub(super) fn of_port(&self, port: usize) -> usize {
        self.of_port.get(port).map_or(0, |bridge| bridge.get() as usize)
    }

    /// `port`, which had no entries, is going to have one in `bridge`.
    pub(super) fn take_in(&self, port: usize, bridge: usize) {
        if let Some(of_port) = self.of_port.get(port) {
            of_port.set(u32::try_from(bridge % BRIDGES).unwrap_or(0));
        }
    }

    /// Adds `by` to the entries of the bridge of `port`, wrapping round.
    pub(super) fn count(&self, port: usize, by: u32) {
        if let Some(len) = self.len.get(self.of_port(port)) {
            len.set(len.get().wrapping_add(by));
        }
    }
}

/// The bridge of the segment that an index in `key` stands for, by the segments of all indices.
pub(super) fn bridge_of(segment_of: &[AtomicU32], key: u64) -> usize {
    let segment = segment_of.get(index_in(key)).map_or(0, |segment| segment.load(Ordering::Relaxed));
    bridge_of_segment(segment.saturating_sub(1) as usize)
}

/// The bridge of the segment of this index.
pub(super) const fn bridge_of_segment(segment: usize) -> usize {
    segment >> 12 & (BRIDGES - 1)
}
