//! What a socket lost since it was last asked. The kernel's count itself comes from [`crate::sys`].

use std::sync::atomic::{AtomicU32, Ordering};

/// The kernel's count of lost messages of one socket when it was last told. Written by one worker only.
#[derive(Debug, Default)]
pub(super) struct Losses(AtomicU32);

impl Losses {
    /// How many were lost since the last time, `count` being what the kernel says now. Its count only grows, modulo
    /// 2³²; but one that waited in the queue with its message may be older than one that was asked for.
    pub(super) fn newly(&self, count: u32) -> u64 {
        let newly = count.wrapping_sub(self.0.load(Ordering::Relaxed));
        if newly > u32::MAX / 2 {
            return 0;
        }
        self.0.store(count, Ordering::Relaxed);
        u64::from(newly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_is_told_once_and_an_older_count_tells_nothing() {
        let losses = Losses::default();
        assert_eq!([5, 5, 3, 9].map(|count| losses.newly(count)), [5, 0, 0, 4]);
        let losses = Losses(AtomicU32::new(u32::MAX));
        assert_eq!([1, u32::MAX, 1].map(|count| losses.newly(count)), [2, 0, 0]);
    }
}
