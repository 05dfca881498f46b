//! Numbers that stand for something, can be struck out at a stroke, and come back as late as possible.
//!
//! Two pools of them: handles, which stand for a port's entries, and indices, which stand for a segment.
//! Whatever the slots still say under a number that was struck out is void. Such a number is given out
//! again only when a sweep has been over every bucket since, and the one struck out longest ago first; the
//! fresh ones go before it. Not here: what the numbers stand for.

use super::sync::{AtomicU32, AtomicU64, Held, zeroed_u32, zeroed_u64};
use alloc::boxed::Box;

/// A pool of numbers from 1 to its size. All of it under the lock.
pub(super) struct Names {
    fresh: AtomicU32,
    /// The queue of those struck out: the next in it, and the count of swept buckets at which each is free.
    next: Box<[AtomicU32]>,
    free_at: Box<[AtomicU64]>,
    head: AtomicU32,
    tail: AtomicU32,
}

impl Names {
    pub(super) fn new(size: u32) -> Self {
        Self {
            fresh: AtomicU32::new(1),
            next: zeroed_u32(size as usize + 1),
            free_at: zeroed_u64(size as usize + 1),
            head: AtomicU32::new(0),
            tail: AtomicU32::new(0),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.next) + size_of_val(&*self.free_at)
    }

    /// Whether [`Self::take`] would give one.
    pub(super) fn has(&self, swept: u64) -> bool {
        let head = self.head.get();
        (self.fresh.get() as usize) < self.next.len()
            || head != 0 && self.free_at[head as usize].get() <= swept
    }

    /// A number that no slot names.
    pub(super) fn take(&self, swept: u64) -> Option<u32> {
        let fresh = self.fresh.get();
        if (fresh as usize) < self.next.len() {
            self.fresh.set(fresh + 1);
            return Some(fresh);
        }
        let head = self.head.get();
        if head == 0 || self.free_at[head as usize].get() > swept {
            return None;
        }
        let next = self.next[head as usize].get();
        self.head.set(next);
        if next == 0 {
            self.tail.set(0);
        }
        Some(head)
    }

    /// Strikes `name` out until `free_at` buckets have been swept.
    pub(super) fn strike(&self, name: u32, free_at: u64) {
        self.next[name as usize].set(0);
        self.free_at[name as usize].set(free_at);
        let tail = self.tail.get();
        if tail == 0 {
            self.head.set(name);
        } else {
            self.next[tail as usize].set(name);
        }
        self.tail.set(name);
    }
}
