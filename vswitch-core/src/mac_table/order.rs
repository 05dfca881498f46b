//! Who was seen least recently: one pair of lists through the slots for every handle.
//!
//! In a small table the order is exact: a station's stamp is renewed by every frame, without the lock, and
//! its place in the list is put right when it comes to the front. In a large one the order is by tick, with
//! a second chance: stations seen only once wait in a list of their own and count as one tick older, so
//! that a flood of new addresses turns over there and not among the stations that speak.
//!
//! Not here: whose entry is given up (see [`super`]). Except for the stamps all of it is under the lock.

use super::slots::Value;
use super::sync::{Apart, AtomicU32, AtomicU64, Held, Ordering, zeroed_u32, zeroed_u64};
use crate::time::Instant;
use alloc::boxed::Box;

/// The largest table whose order is exact, in entries.
pub(super) const EXACT: u32 = 1024;
/// Entries looked at before one is chosen.
const STEPS: usize = 8;
/// A port with at most this many entries in a large table is looked through whole.
const FEW: usize = 32;

/// Set in `filed` when the slot is in the second list of its owner.
const SECOND: u32 = 1 << 31;

/// The lists. A link is a slot plus one, or zero.
pub(super) struct Order {
    next: Box<[AtomicU32]>,
    prev: Box<[AtomicU32]>,
    /// The tick under which a slot was filed, and which list it is in.
    filed: Box<[AtomicU32]>,
    heads: Box<[AtomicU32]>,
    tails: Box<[AtomicU32]>,
    /// Exact order only: when a slot was last seen, and the stamp under which it was filed.
    stamps: Box<[AtomicU64]>,
    filed_stamps: Box<[AtomicU64]>,
    clock: Apart<AtomicU64>,
}

impl Order {
    /// Lists for owners 0..=`owners` through `slots`.
    pub(super) fn new(slots: u32, owners: u32, exact: bool) -> Self {
        let slots = slots as usize;
        let lists = (owners as usize + 1) * 2;
        let stamps = if exact { slots } else { 0 };
        Self {
            next: zeroed_u32(slots),
            prev: zeroed_u32(slots),
            filed: zeroed_u32(slots),
            heads: zeroed_u32(lists),
            tails: zeroed_u32(lists),
            stamps: zeroed_u64(stamps),
            filed_stamps: zeroed_u64(stamps),
            clock: Apart(AtomicU64::new(0)),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.next) * 3 + size_of_val(&*self.heads) * 2 + size_of_val(&*self.stamps) * 2
    }

    pub(super) fn is_exact(&self) -> bool {
        !self.stamps.is_empty()
    }

    /// Notes that the station of `slot` was seen. Without the lock: a stamp that lands on the slot's next
    /// tenant makes that one look younger, no more.
    #[inline]
    pub(super) fn stamp(&self, slot: u32, now: Instant) {
        if let Some(stamp) = self.stamps.get(slot as usize) {
            // The time, or one more than the last stamp, whichever is later. Two workers at once may get
            // the same one, or put the clock back to what the slower one saw; the time mends that.
            let next = (self.clock.0.load(Ordering::Relaxed) + 1).max(now.as_nanos());
            self.clock.0.store(next, Ordering::Relaxed);
            stamp.store(next, Ordering::Relaxed);
        }
    }

    /// Puts `slot`, just seen, behind all others of `owner`.
    pub(super) fn push(&self, owner: u32, slot: u32, value: Value, now: Instant) {
        if self.is_exact() {
            self.stamp(slot, now);
            self.file_by_stamp(owner, slot);
        } else {
            self.link(list(owner, value.is_confirmed()), slot, value.tick(), self.tail(owner, value));
        }
    }

    /// Puts `slot`, seen some time ago, where its age belongs; in a large table in front of all others.
    pub(super) fn push_old(&self, owner: u32, slot: u32, value: Value, seen: Instant) {
        if self.is_exact() {
            self.stamps[slot as usize].set(seen.as_nanos());
            self.file_by_stamp(owner, slot);
        } else {
            self.link(list(owner, value.is_confirmed()), slot, value.tick(), 0);
        }
    }

    fn tail(&self, owner: u32, value: Value) -> u32 {
        self.tails[list(owner, value.is_confirmed()) as usize].get()
    }

    /// Takes `slot` out of the list it is in.
    pub(super) fn unlink(&self, owner: u32, slot: u32) {
        let list = list(owner, self.filed[slot as usize].get() & SECOND != 0) as usize;
        let (prev, next) = (self.prev[slot as usize].get(), self.next[slot as usize].get());
        match prev {
            0 => self.heads[list].set(next),
            prev => self.next[prev as usize - 1].set(next),
        }
        match next {
            0 => self.tails[list].set(prev),
            next => self.prev[next as usize - 1].set(prev),
        }
    }

    /// `to` takes the place of `from`.
    pub(super) fn replace(&self, owner: u32, from: u32, to: u32) {
        let filed = self.filed[from as usize].get();
        let prev = self.prev[from as usize].get();
        if self.is_exact() {
            self.stamps[to as usize].set(self.stamps[from as usize].get());
            self.filed_stamps[to as usize].set(self.filed_stamps[from as usize].get());
        }
        self.unlink(owner, from);
        self.link(list(owner, filed & SECOND != 0), to, filed & !SECOND, prev);
    }

    /// The slots of `owner`, first list first, from the front.
    pub(super) fn of(&self, owner: u32) -> impl Iterator<Item = u32> + '_ {
        let from = |first: u32| {
            core::iter::successors(to_slot(first), |slot| to_slot(self.next[*slot as usize].get()))
        };
        from(self.heads[list(owner, false) as usize].get())
            .chain(from(self.heads[list(owner, true) as usize].get()))
    }

    /// The slot that `owner` gives up first. `value` reads a slot; `is_void` tells of one that is of no use
    /// any more.
    pub(super) fn least_recent(
        &self,
        owner: u32,
        now: u32,
        value: impl Fn(u32) -> Value,
        is_void: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        if self.is_exact() {
            return self.least_recent_exactly(owner);
        }
        // One seen only once counts as one tick older.
        let rank = |slot: u32| {
            let value = value(slot);
            (value.age(now) + u32::from(!value.is_confirmed()), !value.is_confirmed())
        };
        if self.of(owner).nth(FEW).is_none() {
            let void = self.of(owner).find(|slot| is_void(*slot));
            return void.or_else(|| {
                // Of equals the first.
                self.of(owner).reduce(|best, slot| if rank(slot) > rank(best) { slot } else { best })
            });
        }
        let (first, second) = (list(owner, false), list(owner, true));
        for _ in 0..STEPS {
            let once = to_slot(self.heads[first as usize].get());
            let twice = to_slot(self.heads[second as usize].get());
            if let Some(slot) = [once, twice].into_iter().flatten().find(|slot| is_void(*slot)) {
                return Some(slot);
            }
            match (once, twice) {
                (Some(slot), _) if value(slot).is_confirmed() => self.refile(owner, slot, value(slot)),
                (_, Some(slot)) if value(slot).tick() != self.filed[slot as usize].get() & !SECOND => {
                    self.refile(owner, slot, value(slot));
                }
                (Some(once), Some(twice)) => {
                    return Some(if rank(twice) > rank(once) { twice } else { once });
                }
                (once, twice) => return once.or(twice),
            }
        }
        // Many have been seen again since anybody asked. Their turn to be filed comes with the next calls;
        // meanwhile the newcomers at the back are candidates too.
        let back = core::iter::successors(to_slot(self.tails[first as usize].get()), |slot| {
            to_slot(self.prev[*slot as usize].get())
        });
        let fronts = [first, second].map(|list| to_slot(self.heads[list as usize].get()));
        let candidates = fronts.into_iter().flatten().chain(back.take(STEPS));
        candidates.reduce(|best, slot| if rank(slot) > rank(best) { slot } else { best })
    }

    fn refile(&self, owner: u32, slot: u32, value: Value) {
        self.unlink(owner, slot);
        self.link(list(owner, true), slot, value.tick(), self.tails[list(owner, true) as usize].get());
    }

    /// The list is in the order of the filed stamps, and no stamp is below its filed one: a front whose two
    /// agree is the least of all. After a few that do not, look at every one.
    fn least_recent_exactly(&self, owner: u32) -> Option<u32> {
        for _ in 0..STEPS {
            let slot = to_slot(self.heads[list(owner, false) as usize].get())?;
            if self.stamps[slot as usize].get() == self.filed_stamps[slot as usize].get() {
                return Some(slot);
            }
            self.unlink(owner, slot);
            self.file_by_stamp(owner, slot);
        }
        self.of(owner).min_by_key(|slot| self.stamps[*slot as usize].get())
    }

    fn file_by_stamp(&self, owner: u32, slot: u32) {
        let list = list(owner, false);
        let stamp = self.stamps[slot as usize].get();
        self.filed_stamps[slot as usize].set(stamp);
        let mut after = self.tails[list as usize].get();
        while let Some(other) = to_slot(after)
            && self.filed_stamps[other as usize].get() > stamp
        {
            after = self.prev[other as usize].get();
        }
        self.link(list, slot, 0, after);
    }

    /// Puts `slot` behind the link `after`, or in front when that is zero.
    fn link(&self, list: u32, slot: u32, tick: u32, after: u32) {
        let list_at = list as usize;
        self.filed[slot as usize].set(tick | if list & 1 != 0 { SECOND } else { 0 });
        let next = match to_slot(after) {
            None => self.heads[list_at].get(),
            Some(prev) => self.next[prev as usize].get(),
        };
        self.prev[slot as usize].set(after);
        self.next[slot as usize].set(next);
        match to_slot(after) {
            None => self.heads[list_at].set(slot + 1),
            Some(prev) => self.next[prev as usize].set(slot + 1),
        }
        match to_slot(next) {
            None => self.tails[list_at].set(slot + 1),
            Some(next) => self.prev[next as usize].set(slot + 1),
        }
    }
}

fn list(owner: u32, second: bool) -> u32 {
    owner * 2 + u32::from(second)
}

fn to_slot(link: u32) -> Option<u32> {
    link.checked_sub(1)
}
