//! Who was seen least recently: one pair of lists through the slots for every handle.
//!
//! In a small table the order is exact: a station's stamp is renewed by its first frame in every second,
//! without the lock, and its place in the list is put right when it comes to the front. One more list has
//! the learned entries of all ports, for those that age out. Within the second a station is as old as its
//! first frame: a flood from its own port that turns over that port's whole share in a second takes it
//! along, as it does in Open vSwitch.
//!
//! In a large one the order is by tick, with a second chance: stations seen only once wait in a list of
//! their own and count as one tick older, so that a flood of new addresses turns over there and not among
//! the stations that speak.
//!
//! Not here: whose entry is given up (see [`super`]). Except for the stamps all of it is under the lock.

use super::links::{Links, to_slot};
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
/// The owner of the list of all static entries: no handle has this number.
pub(super) const STATICS: u32 = 0;

/// The lists.
pub(super) struct Order {
    links: Links,
    /// The tick under which a slot was filed, and which list it is in.
    filed: Box<[AtomicU32]>,
    /// Exact order only: all learned entries in one list, and when a slot was last seen.
    all: Links,
    stamps: Box<[AtomicU64]>,
    clock: Apart<AtomicU64>,
}

impl Order {
    /// Lists for owners 0..=`owners` through `slots`.
    pub(super) fn new(slots: u32, owners: u32, exact: bool) -> Self {
        let slots = slots as usize;
        let stamps = if exact { slots } else { 0 };
        Self {
            links: Links::new(slots, (owners as usize + 1) * 2, stamps),
            filed: zeroed_u32(slots),
            all: Links::new(stamps, 1, stamps),
            stamps: zeroed_u64(stamps),
            clock: Apart(AtomicU64::new(0)),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.links.memory_bytes()
            + self.all.memory_bytes()
            + size_of_val(&*self.filed)
            + size_of_val(&*self.stamps)
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
            let list = list(owner, value.is_confirmed());
            self.link(list, slot, value.tick(), self.links.back(list));
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

    fn file_by_stamp(&self, owner: u32, slot: u32) {
        let stamp = self.stamps[slot as usize].get();
        self.filed[slot as usize].set(0);
        self.links.file(list(owner, false), slot, stamp);
        if owner != STATICS {
            self.all.file(0, slot, stamp);
        }
    }

    /// Takes `slot` out of the lists it is in.
    pub(super) fn unlink(&self, owner: u32, slot: u32) {
        self.links.unlink(list(owner, self.filed[slot as usize].get() & SECOND != 0), slot);
        if self.is_exact() && owner != STATICS {
            self.all.unlink(0, slot);
        }
    }

    /// `to` takes the place of `from`.
    pub(super) fn replace(&self, owner: u32, from: u32, to: u32) {
        let filed = self.filed[from as usize].get();
        self.filed[to as usize].set(filed);
        self.links.replace(list(owner, filed & SECOND != 0), from, to);
        if self.is_exact() {
            self.stamps[to as usize].set(self.stamps[from as usize].get());
            if owner != STATICS {
                self.all.replace(0, from, to);
            }
        }
    }

    /// The slots of `owner`, first list first, from the front.
    pub(super) fn of(&self, owner: u32) -> impl Iterator<Item = u32> + '_ {
        self.links.iter(list(owner, false)).chain(self.links.iter(list(owner, true)))
    }

    /// Exact order only: the learned entry of any port that was seen least recently.
    pub(super) fn oldest(&self) -> Option<u32> {
        self.least(&self.all, 0)
    }

    /// Exact order only: all learned entries, the one seen least recently first.
    pub(super) fn by_age(&self) -> impl Iterator<Item = u32> + '_ {
        let mut next = self.all.front(0);
        while let Some(slot) = next {
            next = self.all.after(slot);
            // One that was seen again goes further back.
            let stamp = self.stamps[slot as usize].get();
            if self.all.filed(slot) != stamp {
                self.all.refile(0, slot, stamp);
            }
        }
        self.all.iter(0)
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
            return self.least(&self.links, list(owner, false));
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
            let once = self.links.front(first);
            let twice = self.links.front(second);
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
        let back = core::iter::successors(to_slot(self.links.back(first)), |slot| self.links.before(*slot));
        let fronts = [first, second].map(|list| self.links.front(list));
        let candidates = fronts.into_iter().flatten().chain(back.take(STEPS));
        candidates.reduce(|best, slot| if rank(slot) > rank(best) { slot } else { best })
    }

    fn refile(&self, owner: u32, slot: u32, value: Value) {
        self.unlink(owner, slot);
        let second = list(owner, true);
        self.link(second, slot, value.tick(), self.links.back(second));
    }

    fn link(&self, list: u32, slot: u32, tick: u32, after: u32) {
        self.filed[slot as usize].set(tick | if list & 1 != 0 { SECOND } else { 0 });
        self.links.link(list, slot, after);
    }

    /// The list is in the order of the filed stamps, and no stamp is below its filed one: a front whose two
    /// agree is the least of all. After a few that do not, look at every one.
    fn least(&self, links: &Links, list: u32) -> Option<u32> {
        for _ in 0..STEPS {
            let slot = links.front(list)?;
            let stamp = self.stamps[slot as usize].get();
            if stamp == links.filed(slot) {
                return Some(slot);
            }
            links.refile(list, slot, stamp);
        }
        links.iter(list).min_by_key(|slot| self.stamps[*slot as usize].get())
    }
}

fn list(owner: u32, second: bool) -> u32 {
    owner * 2 + u32::from(second)
}
