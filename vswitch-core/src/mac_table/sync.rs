//! The atomics of the MAC table: core's own, or loom's when its orderings are being tried out.
//!
//! Not here: any protocol. The arrays come zeroed.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

#[cfg(not(loom))]
pub(super) use core::hint::spin_loop;
#[cfg(not(loom))]
pub(super) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(loom)]
pub(super) use loom::hint::spin_loop;
#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// `n` zeroes. An optimising build neither writes nor touches them here: the vector comes from the
/// allocator zeroed and is collected in place, so that pages cost memory only when they are first used.
pub(super) fn zeroed_u32(n: usize) -> Box<[AtomicU32]> {
    vec![0u32; n].into_iter().map(AtomicU32::new).collect::<Vec<_>>().into_boxed_slice()
}

/// [`zeroed_u32`], twice as wide.
pub(super) fn zeroed_u64(n: usize) -> Box<[AtomicU64]> {
    vec![0u64; n].into_iter().map(AtomicU64::new).collect::<Vec<_>>().into_boxed_slice()
}

/// A value with cache lines of its own, so that writing it does not disturb the readers of its neighbours.
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

/// Arithmetic on a number that only the holder of the lock changes.
pub(super) trait Held<T> {
    /// The number.
    fn get(&self) -> T;
    /// Puts another there.
    fn set(&self, value: T);
}

impl Held<u32> for AtomicU32 {
    #[inline]
    fn get(&self) -> u32 {
        self.load(Ordering::Relaxed)
    }
    #[inline]
    fn set(&self, value: u32) {
        self.store(value, Ordering::Relaxed);
    }
}

impl Held<u64> for AtomicU64 {
    #[inline]
    fn get(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }
    #[inline]
    fn set(&self, value: u64) {
        self.store(value, Ordering::Relaxed);
    }
}
