//! How a worker waits: asleep, or looking again for a while first.
//!
//! To wake a thread costs whoever hands it a frame more than the frame does, and takes longer than switching it. So a
//! worker whose last wait was short looks again before it sleeps; one whose frames come seldom sleeps at once, and an
//! idle daemon does nothing. But where bytes come in bulk the processors have better things to do, and a frame that
//! waits finds company: nobody looks again then. And who looked in vain will not for a while: twice as long each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vswitch_core::Instant;

/// A wait that was worth not sleeping for.
const SHORT: Duration = Duration::from_micros(200);
/// How many times in a row a worker may look in vain for nothing: a round trip now and then takes longer.
const PATIENCE: u32 = 2;
/// After so many times more it sleeps 64 times before it looks again, after one time less half as often, and so on.
const DOUBLINGS: u32 = 7;
/// Bytes that are bulk when they come at once: more than any frame of a wire.
const BULK: usize = 10_000;
/// How long bulk is remembered.
const BULK_LASTS: Duration = Duration::from_millis(2);

/// When bulk last came in, for all workers.
#[derive(Clone, Debug, Default)]
pub(super) struct Bulk(Arc<AtomicU64>);

impl Bulk {
    /// So many bytes came at once.
    pub(super) fn came(&self, now: Instant, bytes: usize) {
        if bytes >= BULK {
            self.0.store(now.as_nanos(), Ordering::Relaxed);
        }
    }

    fn lasts(&self, now: Instant) -> bool {
        let since = Instant::from_nanos(self.0.load(Ordering::Relaxed));
        since > Instant::ZERO && now.since(since) < BULK_LASTS
    }
}

/// One worker's waiting.
#[derive(Debug, Default)]
pub(super) struct Idle {
    since: Instant,
    last_was_short: bool,
    /// For how long at most it has looked again since then, if it has.
    looked: Option<Duration>,
    /// How many times in a row it looked in vain, and how many waits are to pass before it looks again.
    in_vain: u32,
    sleeps: u32,
}

impl Idle {
    /// Nothing is to be done from `now` on.
    pub(super) const fn begins(&mut self, now: Instant) {
        self.since = now;
        self.looked = None;
    }

    /// Something is to be done.
    pub(super) fn ends(&mut self, now: Instant) {
        let waited = now.since(self.since);
        self.last_was_short = waited < SHORT;
        match self.looked {
            None => self.sleeps = self.sleeps.saturating_sub(1),
            Some(limit) if waited < limit => self.in_vain = 0,
            Some(_) => {
                self.in_vain = (PATIENCE + DOUBLINGS).min(self.in_vain + 1);
                self.sleeps = (1 << self.in_vain) >> (PATIENCE + 1);
            }
        }
    }

    /// Whether to look again at `now` instead of sleeping; not for longer than `limit`.
    pub(super) fn looks_again(&mut self, now: Instant, limit: Duration, bulk: &Bulk) -> bool {
        let may = self.last_was_short && self.sleeps == 0 && !bulk.lasts(now);
        let looks = may && now.since(self.since) < limit;
        if looks {
            self.looked = Some(limit);
        }
        looks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    fn at(micros: u64) -> Instant {
        Instant::from_secs(1).after(Duration::from_micros(micros))
    }

    #[test]
    fn a_worker_looks_again_after_a_short_wait_and_not_for_long() {
        let (mut idle, bulk) = (Idle::default(), Bulk::default());
        idle.begins(at(0));
        idle.ends(at(5000));
        idle.begins(at(5010));
        assert!(!idle.looks_again(at(5010), LIMIT, &bulk), "frames come seldom");
        idle.ends(at(5110));
        idle.begins(at(5120));
        assert!(idle.looks_again(at(5121), LIMIT, &bulk) && idle.looks_again(at(5169), LIMIT, &bulk));
        assert!(!idle.looks_again(at(5170), LIMIT, &bulk), "nothing came");
        assert!(!idle.looks_again(at(5121), Duration::ZERO, &bulk), "never");
    }

    #[test]
    fn who_looked_in_vain_sleeps_more_and_more_often() {
        let (mut idle, bulk) = (Idle::default(), Bulk::default());
        idle.ends(Instant::ZERO);
        // A frame each 100 us: too seldom for a look, not for a short wait.
        let looked = (0..1000).filter(|n| {
            idle.begins(at(100 * n));
            let looks = idle.looks_again(at(100 * n), LIMIT, &bulk);
            idle.ends(at(100 * n + 100));
            looks
        });
        // Two looks for nothing, six with 1, 2, … 32 sleeps behind them, then one in 65.
        assert_eq!(looked.count(), 8 + (1000_usize - 8 - 63).div_ceil(65));
        // And when they come quickly, soon again at every wait.
        let mut last = false;
        for n in 0..100 {
            idle.begins(at(200_000 + 20 * n));
            last = idle.looks_again(at(200_000 + 20 * n), LIMIT, &bulk);
            idle.ends(at(200_000 + 20 * n + 20));
        }
        assert!(last);
    }

    #[test]
    fn nobody_looks_again_while_any_worker_sees_bulk() {
        let (mut idle, bulk) = (Idle::default(), Bulk::default());
        let another = bulk.clone();
        idle.begins(at(0));
        idle.ends(at(10));
        idle.begins(at(20));
        another.came(at(20), 1514);
        assert!(idle.looks_again(at(21), LIMIT, &bulk));
        another.came(at(20), 65_000);
        assert!(!idle.looks_again(at(21), LIMIT, &bulk));
        idle.begins(at(2030));
        assert!(idle.looks_again(at(2031), LIMIT, &bulk));
    }
}
