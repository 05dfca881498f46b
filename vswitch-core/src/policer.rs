//! How much may pass: a rate and a burst, kept by all workers together in one word.
//!
//! The generic cell rate algorithm (ITU-T I.371 annex A) in its virtual scheduling form, which is a token bucket that is
//! full in the beginning: what is kept is the time at which the bucket will be full again. Nothing waits, nothing is
//! queued; what does not pass is the caller's to drop. Not here: a clock, and which frames are asked about.

use crate::time::Instant;
use crate::wire::ethernet::MAX_FRAME_LEN;
use core::sync::atomic::{AtomicU64, Ordering};

/// Of one nanosecond, the parts in which times are counted: a short frame at 100 Gbit/s takes 5 ns.
const FRACTION_BITS: u32 = 10;
/// What one bit takes at 1 kbit/s.
const PARTS_PER_KBIT: u64 = 1_000_000 << FRACTION_BITS;
/// No bucket takes longer to fill, 13 days: what a clock of 64 bits can tell apart from the past.
const LONGEST: u64 = 1 << 60;
/// By how much one worker's time may be behind another's, 1.1 s. Times wrap around after 208 days: what is further ahead
/// than a bucket and this has long passed.
const SKEW: u64 = 1 << 40;

/// See the head of this file.
#[derive(Debug)]
pub struct Policer {
    rate: u32,
    burst: u32,
    /// How far ahead of now `full_at` may come.
    depth: u64,
    /// When the bucket will be full, in parts of a nanosecond, wrapped around.
    full_at: AtomicU64,
}

impl Policer {
    /// `rate` in kbit/s (1,000 bits) and `burst` in kbit: what may pass at once after a long silence, at least one
    /// superframe of the largest kind. 0 kbit/s counts as 1.
    #[must_use]
    pub fn new(rate: u32, burst: u32) -> Self {
        let rate = rate.max(1);
        let bits = (u128::from(burst) * 1_000).max(MAX_FRAME_LEN as u128 * 8);
        let depth = (bits * u128::from(PARTS_PER_KBIT)).div_ceil(u128::from(rate));
        let depth = u64::try_from(depth).map_or(LONGEST, |depth| depth.min(LONGEST));
        Self { rate, burst, depth, full_at: AtomicU64::new(0) }
    }

    /// The rate, in kbit/s.
    #[must_use]
    pub const fn rate(&self) -> u32 {
        self.rate
    }

    /// The burst that was asked for, in kbit.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    /// Whether a frame of `bytes` bytes may pass at `now`; it then counts as passed. Never waits: where two workers ask
    /// at once, one asks again.
    pub fn admits(&self, now: Instant, bytes: usize) -> bool {
        let then = |full_at| self.then(full_at, now, bytes);
        // Nothing else is told by this word: no order is needed.
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, then).is_ok()
    }

    /// What [`Self::admits`] would say; nothing counts.
    #[must_use]
    pub fn would_admit(&self, now: Instant, bytes: usize) -> bool {
        self.then(self.full_at.load(Ordering::Relaxed), now, bytes).is_some()
    }

    /// When the bucket will be full once the frame has passed; `None` when it may not.
    fn then(&self, full_at: u64, now: Instant, bytes: usize) -> Option<u64> {
        let now = now.as_nanos() << FRACTION_BITS;
        let ahead = full_at.wrapping_sub(now);
        let ahead = if ahead <= self.depth + SKEW { ahead } else { 0 };
        let bits = u64::try_from(bytes.min(MAX_FRAME_LEN)).unwrap_or(0) * 8;
        // Rounded up: never more than the rate.
        let after = ahead + (bits * PARTS_PER_KBIT).div_ceil(self.rate.into());
        (after <= self.depth).then(|| now.wrapping_add(after))
    }
}

/// Two are equal that limit alike, whatever has passed.
impl PartialEq for Policer {
    fn eq(&self, other: &Self) -> bool {
        (self.rate, self.burst) == (other.rate, other.burst)
    }
}

impl Eq for Policer {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::time::Duration;

    const START: Instant = Instant::from_secs(1_000_000);

    fn passed(policer: &Policer, now: Instant, bytes: usize) -> usize {
        (0..1_000_000).take_while(|_| policer.admits(now, bytes)).count()
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_to_the_bit() {
        // 8 Mbit/s are a byte in a microsecond.
        let policer = Policer::new(8_000, 8_000);
        assert_eq!(passed(&policer, START, 1_000), 1_000);
        assert!(!policer.admits(START, 1));
        let at = |micros| START.after(Duration::from_micros(micros));
        assert!(!policer.admits(at(999), 1_000));
        assert!(policer.would_admit(at(1_000), 1_000) && policer.admits(at(1_000), 1_000));
        assert!(!policer.would_admit(at(1_000), 1));
        // One byte for each microsecond, for as long as one likes.
        for micros in 1_001..20_000 {
            assert!(policer.admits(at(micros), 1), "{micros}");
            assert!(!policer.admits(at(micros), 1), "{micros}");
        }
        // Silence fills the bucket, and no more than that.
        assert_eq!(passed(&policer, START.after(Duration::from_secs(3600)), 1_000), 1_000);
    }

    #[test]
    fn the_largest_superframe_passes_at_any_rate() {
        for (rate, burst) in [(0, 0), (1, 0), (1, u32::MAX), (8_000, 1), (u32::MAX, 0), (u32::MAX, u32::MAX)]
        {
            let policer = Policer::new(rate, burst);
            assert!(policer.admits(START, MAX_FRAME_LEN), "{rate} {burst}");
        }
    }

    #[test]
    fn short_frames_at_high_rates_are_counted_to_a_thousandth() {
        // 100 Gbit/s: 60 bytes in 4.8 ns.
        let policer = Policer::new(100_000_000, 1_000);
        let full = passed(&policer, START, 60);
        assert!((2_082..=2_083).contains(&full), "{full} of 2083");
        let later = START.after(Duration::from_micros(9));
        let more = passed(&policer, later, 60);
        assert!((1_873..=1_876).contains(&more), "{more} of 1875");
    }

    #[test]
    fn a_worker_whose_clock_is_behind_gets_nothing_more() {
        let policer = Policer::new(8_000, 1_000);
        let behind = START;
        let ahead = START.after(Duration::from_millis(500));
        assert!(passed(&policer, ahead, 1_000) > 0);
        assert!(!policer.admits(behind, 1));
        assert!(policer.admits(ahead.after(Duration::from_millis(1)), 1_000));
    }

    #[test]
    fn a_port_that_was_silent_for_years_may_speak() {
        for days in [0, 1, 100, 104, 105, 200, 300, 1_000, 10_000] {
            let policer = Policer::new(8_000, 8_000);
            assert_eq!(passed(&policer, START, 1_000), 1_000);
            let later = START.after(Duration::from_secs(60 + days * 86_400));
            assert_eq!(passed(&policer, later, 1_000), 1_000, "{days} days");
        }
    }

    #[test]
    fn two_workers_at_once_share_what_there_is() {
        let policer = Policer::new(8_000, 8_000);
        let pass = || (0..10_000).filter(|_| policer.admits(START, 500)).count();
        let total: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(pass)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(total, 2_000);
    }
}
