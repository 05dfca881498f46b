//! How a worker waits: asleep, or looking again for a while first.
//!
//! To wake a thread costs whoever hands it a frame more than the frame does, and takes longer than switching it. So a
//! worker whose last wait was short looks again before it sleeps; one whose frames come seldom sleeps at once, and an
//! idle daemon does nothing. But where bytes come in bulk the processors have better things to do, and a frame that
//! waits finds company: nobody looks again then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vswitch_core::Instant;

/// A wait that was worth not sleeping for.
const SHORT: Duration = Duration::from_micros(200);
/// How long a worker looks again before it sleeps.
const LOOK_AGAIN: Duration = Duration::from_micros(50);
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
}

impl Idle {
    /// Nothing is to be done from `now` on.
    pub(super) const fn begins(&mut self, now: Instant) {
        self.since = now;
    }

    /// Something is to be done.
    pub(super) fn ends(&mut self, now: Instant) {
        self.last_was_short = now.since(self.since) < SHORT;
    }

    /// Whether to look again at `now` instead of sleeping.
    pub(super) fn looks_again(&self, now: Instant, bulk: &Bulk) -> bool {
        self.last_was_short && now.since(self.since) < LOOK_AGAIN && !bulk.lasts(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_secs(1).after(Duration::from_micros(micros))
    }

    #[test]
    fn a_worker_looks_again_after_a_short_wait_and_not_for_long() {
        let (mut idle, bulk) = (Idle::default(), Bulk::default());
        idle.begins(at(0));
        idle.ends(at(5000));
        idle.begins(at(5010));
        assert!(!idle.looks_again(at(5010), &bulk), "frames come seldom");
        idle.ends(at(5110));
        idle.begins(at(5120));
        assert!(idle.looks_again(at(5121), &bulk) && idle.looks_again(at(5169), &bulk));
        assert!(!idle.looks_again(at(5170), &bulk), "nothing came");
    }

    #[test]
    fn nobody_looks_again_while_any_worker_sees_bulk() {
        let (mut idle, bulk) = (Idle::default(), Bulk::default());
        idle.begins(at(0));
        idle.ends(at(10));
        idle.begins(at(20));
        bulk.clone().came(at(20), 1514);
        assert!(idle.looks_again(at(21), &bulk));
        bulk.clone().came(at(20), 65_000);
        assert!(!idle.looks_again(at(21), &bulk));
        idle.begins(at(2030));
        assert!(idle.looks_again(at(2031), &bulk));
    }
}
