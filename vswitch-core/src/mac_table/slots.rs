//! The slots: a key word and a value word each, four to a cache line, and where a key may lie.
//!
//! Not here: what a handle means, who may write (see [`super`]).

use super::sync::{AtomicU64, Ordering, zeroed_u64};
use alloc::boxed::Box;

/// Slots in a bucket; a bucket is one line of 64 bytes.
pub(super) const WIDTH: u32 = 4;
/// Words in a bucket: four keys, then their four values.
const WORDS: usize = 8;

/// Ticks are whole seconds, of which 28 bits are kept: they come round after eight and a half years.
pub(super) const TICKS: u32 = 1 << 28;

const HANDLE: u64 = 0xffff;
const STATIC: u64 = 1 << 16;
const CONFIRMED: u64 = 1 << 17;
const VERSION_SHIFT: u32 = 18;
const VERSION: u64 = 0x3_ffff << VERSION_SHIFT;
const TICK_SHIFT: u32 = 36;

/// The value word: `tick 28 | version 18 | confirmed | static | handle 16`; handle 0: the slot is vacant.
///
/// The version goes up whenever the slot loses its key and at no other time, so that two readings with the
/// same version and a handle in both belong to one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Value(pub(super) u64);

impl Value {
    pub(super) const fn handle(self) -> u32 {
        (self.0 & HANDLE) as u32
    }

    pub(super) const fn is_vacant(self) -> bool {
        self.0 & HANDLE == 0
    }

    pub(super) const fn is_static(self) -> bool {
        self.0 & STATIC != 0
    }

    /// Whether it was seen again after it was learned.
    pub(super) const fn is_confirmed(self) -> bool {
        self.0 & CONFIRMED != 0
    }

    pub(super) const fn tick(self) -> u32 {
        (self.0 >> TICK_SHIFT) as u32
    }

    /// Seconds from its last sighting to `now`; zero when another worker's clock is ahead of ours.
    pub(super) const fn age(self, now: u32) -> u32 {
        let age = now.wrapping_sub(self.tick()) & (TICKS - 1);
        if age < TICKS / 2 { age } else { 0 }
    }

    /// Whether there is nothing to note when it is seen at `tick`: it was seen then, and before.
    #[inline]
    pub(super) const fn was_seen(self, tick: u32) -> bool {
        let noted = (tick as u64) << TICK_SHIFT | CONFIRMED;
        (self.0 ^ noted) & (!0 << TICK_SHIFT | CONFIRMED) == 0
    }

    /// Whether the slot kept its key and its handle between the two readings.
    pub(super) const fn same_tenant(self, later: Self) -> bool {
        (self.0 ^ later.0) & (VERSION | HANDLE) == 0
    }

    /// Seen at `tick`, not for the first time.
    pub(super) const fn seen(self, tick: u32) -> Self {
        Self(self.0 & (VERSION | HANDLE | STATIC) | CONFIRMED | (tick as u64) << TICK_SHIFT)
    }

    /// The vacant word that follows.
    const fn vacated(self) -> Self {
        Self((self.0 & VERSION).wrapping_add(1 << VERSION_SHIFT) & VERSION)
    }

    /// Another tenant's facts under this slot's version.
    const fn tenant(self, of: Self) -> Self {
        Self(self.0 & VERSION | of.0 & !VERSION)
    }

    /// A tenant's facts; the version is the slot's to add.
    pub(super) const fn new(handle: u32, is_static: bool, confirmed: bool, tick: u32) -> Self {
        Self(
            handle as u64 & HANDLE
                | if is_static { STATIC } else { 0 }
                | if confirmed { CONFIRMED } else { 0 }
                | (tick as u64) << TICK_SHIFT,
        )
    }
}

/// All slots, numbered from 0, bucket by bucket.
pub(super) struct Slots {
    words: Box<[AtomicU64]>,
    /// Words before the first that starts a cache line.
    skip: u32,
    mask: u32,
    /// What each round of the hash xors in and multiplies by.
    rounds: [(u64, u64); 2],
}

/// The low half.
pub(super) const fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// The high and low half of the product, folded.
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128) * (b as u128);
    ((product & 0xffff_ffff_ffff_ffff) as u64) ^ ((product >> 64) as u64)
}

impl Slots {
    /// `buckets` is a power of two, at least 2.
    pub(super) fn new(buckets: u32, seed: [u64; 2]) -> Self {
        let words = zeroed_u64(buckets as usize * WORDS + WORDS - 1);
        let skip = u32::try_from(words.as_ptr().addr().wrapping_neg() % 64 / 8).unwrap_or(0);
        let rounds =
            [(seed[0], seed[1] ^ 0x9e37_79b9_7f4a_7c15 | 1), (seed[1], seed[0] ^ 0xd1b5_4a32_d192_ed03 | 1)];
        Self { words, skip, mask: buckets - 1, rounds }
    }

    pub(super) fn buckets(&self) -> u32 {
        self.mask + 1
    }

    pub(super) fn count(&self) -> u32 {
        self.buckets() * WIDTH
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    #[inline(always)]
    fn line(&self, bucket: u32) -> &[AtomicU64; WORDS] {
        let from = self.skip as usize + (bucket & self.mask) as usize * WORDS;
        let (line, _) = self.words[from..from + WORDS].as_chunks();
        &line[0]
    }

    #[inline]
    fn key_word(&self, slot: u32) -> &AtomicU64 {
        &self.line(slot / WIDTH)[(slot % WIDTH) as usize]
    }

    #[inline]
    fn value_word(&self, slot: u32) -> &AtomicU64 {
        &self.line(slot / WIDTH)[(slot % WIDTH + WIDTH) as usize]
    }

    /// The hash of `key`, which says where it may lie. Two rounds of folded multiplication under both words of the
    /// seed: whoever picks the keys but sees neither the seed nor the buckets cannot aim.
    #[inline(always)]
    pub(super) fn hash(&self, key: u64) -> u64 {
        let [(first_xor, first_by), (second_xor, second_by)] = self.rounds;
        fold(fold(key ^ first_xor, first_by) ^ second_xor, second_by)
    }

    /// The two buckets where a key with this hash may lie; never the same one.
    #[inline(always)]
    pub(super) fn places(&self, hash: u64) -> (u32, u32) {
        let first = low(hash) & self.mask;
        let second = first ^ (low(hash >> 32) | 1) & self.mask;
        (first, second)
    }

    /// Has the line of the first bucket brought into the cache.
    #[inline(always)]
    pub(super) fn touch(&self, hash: u64) -> u64 {
        self.line(low(hash))[0].load(Ordering::Relaxed)
    }

    /// The tenant of `key` in `bucket`: its slot and value. The answer was true at one moment during the
    /// call, and `then` ran at a moment when it still was, or the answer is `None`.
    ///
    /// `then` reads what the handle means. It runs between two readings of the value, which is what makes
    /// its answer one about this tenant.
    #[inline(always)]
    pub(super) fn scan<T>(
        &self,
        bucket: u32,
        key: u64,
        mut then: impl FnMut(Value) -> T,
    ) -> Option<Found<T>> {
        let line = self.line(bucket);
        // All four first, then one branch: which of them it is cannot be predicted. A key may stand twice
        // only where it is being vacated; then the value of that one is vacant.
        let mut match_bits = 0_u32;
        for i in 0..WIDTH {
            match_bits |= u32::from(line[i as usize].load(Ordering::Acquire) == key) << i;
        }
        while match_bits != 0 {
            let i = match_bits.trailing_zeros() % WIDTH;
            match_bits &= match_bits - 1;
            let word = &line[(i + WIDTH) as usize];
            let value = Value(word.load(Ordering::Acquire));
            if value.is_vacant() {
                continue;
            }
            let meant = then(value);
            let key_again = line[i as usize].load(Ordering::Acquire);
            let slot = (bucket & self.mask) * WIDTH + i;
            if key_again == key && value.same_tenant(Value(word.load(Ordering::Relaxed))) {
                return Some(Found { slot, value, meant });
            }
            return Some(Found { slot, value: Value(0), meant });
        }
        None
    }

    /// The key and value of a slot that belong together, and what `then` said of them in between; `None` when
    /// it is vacant, or would not hold still.
    pub(super) fn read<T>(&self, slot: u32, then: impl Fn(u64, Value) -> T) -> Option<(u64, Value, T)> {
        for _ in 0..8 {
            let value = self.value(slot);
            if value.is_vacant() {
                return None;
            }
            let key = self.key(slot);
            let meant = then(key, value);
            if value.same_tenant(Value(self.value_word(slot).load(Ordering::Relaxed))) {
                return Some((key, value, meant));
            }
        }
        None
    }

    /// A refresh: `to` in place of `from`, unless the word has changed since. The word alone decides; being
    /// a read-modify-write it carries on the release of whoever filled the slot.
    #[inline]
    pub(super) fn refresh(&self, slot: u32, from: Value, to: Value) -> bool {
        self.value_word(slot).compare_exchange(from.0, to.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    // What follows is for whoever holds the lock.

    pub(super) fn key(&self, slot: u32) -> u64 {
        self.key_word(slot).load(Ordering::Acquire)
    }

    pub(super) fn value(&self, slot: u32) -> Value {
        Value(self.value_word(slot).load(Ordering::Acquire))
    }

    /// The slot of `key`, if it has one.
    pub(super) fn position(&self, key: u64) -> Option<u32> {
        let (first, second) = self.places(self.hash(key));
        Self::slots_of(first)
            .chain(Self::slots_of(second))
            .find(|slot| self.key(*slot) == key && !self.value(*slot).is_vacant())
    }

    pub(super) fn slots_of(bucket: u32) -> core::ops::Range<u32> {
        bucket * WIDTH..bucket * WIDTH + WIDTH
    }

    /// A vacant slot of `bucket`.
    pub(super) fn vacancy(&self, bucket: u32) -> Option<u32> {
        Self::slots_of(bucket).find(|slot| self.value(*slot).is_vacant())
    }

    /// Makes a vacant slot the place of `key`: the key first, so that no reader meets the old one.
    pub(super) fn fill(&self, slot: u32, key: u64, tenant: Value) {
        let vacant = self.value(slot);
        self.key_word(slot).store(key, Ordering::Release);
        self.value_word(slot).store(vacant.tenant(tenant).0, Ordering::Release);
    }

    /// The same key under other facts.
    pub(super) fn change(&self, slot: u32, tenant: Value) {
        let now = self.value(slot);
        self.value_word(slot).swap(now.tenant(tenant).0, Ordering::Release);
    }

    /// Takes the tenant out: the value first, under a new version, so that a reader that saw it before and
    /// looks again knows.
    pub(super) fn vacate(&self, slot: u32) {
        let now = self.value(slot);
        self.value_word(slot).swap(now.vacated().0, Ordering::Release);
        self.key_word(slot).store(0, Ordering::Release);
    }
}

/// What [`Slots::scan`] found.
pub(super) struct Found<T> {
    pub(super) slot: u32,
    /// Vacant when the slot changed hands during the scan: look again.
    pub(super) value: Value,
    /// The answer of `then`.
    pub(super) meant: T,
}
