//! What the tests under loom need: a table small enough to try every interleaving, and steps on demand that come
//! by themselves only in a full one. Not here: anything of the ordinary build.

use super::{MacTable, Shape};
use crate::port::Segment;
use crate::wire::ethernet::Mac;
use core::time::Duration;

impl MacTable {
    /// A table of two buckets, for ports and segments 0..4: small enough to try every interleaving.
    #[must_use]
    pub fn tiny(limit: u32, ageing: Duration, seed: [u64; 2]) -> Self {
        let (ports, handles, segments, indices) = (4, 8, 4, 8);
        Self::with_shape(
            &Shape { limit, buckets: 2, ports, handles, segments, indices, exact: false },
            ageing,
            seed,
        )
    }

    /// Displaces the entry of a key to its other bucket, if that has a vacant slot.
    pub fn displace(&self, segment: Segment, mac: Mac) -> bool {
        self.hold().displace_key(segment.index(), mac.as_u64())
    }

    /// Flushes `from` and gives its index to `to`, as if all others were in use.
    pub fn reuse_index(&self, from: Segment, to: Segment) {
        self.hold().reuse_index(from.index(), to.index());
    }
}
