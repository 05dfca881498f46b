//! What the slow path has done, for whoever asks: counts that only grow.

use super::neigh::Refusal;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters, shared between the thread that counts and whoever reads.
#[derive(Debug, Default)]
pub struct SlowCounters {
    answered: AtomicU64,
    given_back: AtomicU64,
    snooped: AtomicU64,
    announced: AtomicU64,
    too_big: AtomicU64,
    refused: [AtomicU64; Refusal::COUNT],
}

/// What they came to at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlowCounts {
    /// Questions where an address is, answered in its owner's place.
    pub answered: u64,
    /// Questions given back to be flooded.
    pub given_back: u64,
    /// Stations with an address that were seen and not known as such: told to control.
    pub snooped: u64,
    /// Frames by which stations were announced, repeated ones included.
    pub announced: u64,
    /// Senders that were told that their packet is too big.
    pub too_big: u64,
    /// Messages neither believed nor answered, by the name of the reason, in the order of [`Refusal::ALL`].
    pub refused: Vec<(&'static str, u64)>,
}

impl SlowCounters {
    pub(super) fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn given_back(&self) {
        self.given_back.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snooped(&self) {
        self.snooped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn announced(&self) {
        self.announced.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn too_big(&self) {
        self.too_big.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        self.refused[refusal.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now; each is right, and they need not be of the very same moment.
    #[must_use]
    pub fn read(&self) -> SlowCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let refused =
            Refusal::ALL.iter().map(|refusal| (refusal.name(), count(&self.refused[refusal.index()])));
        SlowCounts {
            answered: count(&self.answered),
            given_back: count(&self.given_back),
            snooped: count(&self.snooped),
            announced: count(&self.announced),
            too_big: count(&self.too_big),
            refused: refused.collect(),
        }
    }
}
