//! Doubly linked lists through the slots; a slot is in one of them at most.
//!
//! They may be kept in the order of a number, then that under which each slot was filed is kept too. Not
//! here: what the lists are of. All of it is under the lock.

use super::sync::{AtomicU32, AtomicU64, Held, zeroed_u32, zeroed_u64};
use alloc::boxed::Box;

/// The lists. A link is a slot plus one, or zero.
pub(super) struct Links {
    next: Box<[AtomicU32]>,
    prev: Box<[AtomicU32]>,
    heads: Box<[AtomicU32]>,
    tails: Box<[AtomicU32]>,
    filed: Box<[AtomicU64]>,
}

impl Links {
    /// Lists 0..`lists` through `slots`; the first `filed` slots can be filed.
    pub(super) fn new(slots: usize, lists: usize, filed: usize) -> Self {
        Self {
            next: zeroed_u32(slots),
            prev: zeroed_u32(slots),
            heads: zeroed_u32(lists),
            tails: zeroed_u32(lists),
            filed: zeroed_u64(filed),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.next) * 2 + size_of_val(&*self.heads) * 2 + size_of_val(&*self.filed)
    }

    /// The first slot of `list`.
    pub(super) fn front(&self, list: u32) -> Option<u32> {
        to_slot(self.heads[list as usize].get())
    }

    /// The link to the last slot of `list`.
    pub(super) fn back(&self, list: u32) -> u32 {
        self.tails[list as usize].get()
    }

    /// The slot behind this one.
    pub(super) fn after(&self, slot: u32) -> Option<u32> {
        to_slot(self.next[slot as usize].get())
    }

    /// The slot before this one.
    pub(super) fn before(&self, slot: u32) -> Option<u32> {
        to_slot(self.prev[slot as usize].get())
    }

    /// The slots of `list`, from the front.
    pub(super) fn iter(&self, list: u32) -> impl Iterator<Item = u32> + '_ {
        core::iter::successors(self.front(list), |slot| self.after(*slot))
    }

    /// Puts `slot` behind the link `after`, or in front when that is zero.
    pub(super) fn link(&self, list: u32, slot: u32, after: u32) {
        let list = list as usize;
        let next = match to_slot(after) {
            None => self.heads[list].get(),
            Some(prev) => self.next[prev as usize].get(),
        };
        self.prev[slot as usize].set(after);
        self.next[slot as usize].set(next);
        match to_slot(after) {
            None => self.heads[list].set(slot + 1),
            Some(prev) => self.next[prev as usize].set(slot + 1),
        }
        match to_slot(next) {
            None => self.tails[list].set(slot + 1),
            Some(next) => self.prev[next as usize].set(slot + 1),
        }
    }

    /// Takes `slot` out of `list`.
    pub(super) fn unlink(&self, list: u32, slot: u32) {
        let list = list as usize;
        let (prev, next) = (self.prev[slot as usize].get(), self.next[slot as usize].get());
        match to_slot(prev) {
            None => self.heads[list].set(next),
            Some(prev) => self.next[prev as usize].set(next),
        }
        match to_slot(next) {
            None => self.tails[list].set(prev),
            Some(next) => self.prev[next as usize].set(prev),
        }
    }

    /// `to` takes the place of `from`.
    pub(super) fn replace(&self, list: u32, from: u32, to: u32) {
        let prev = self.prev[from as usize].get();
        self.unlink(list, from);
        self.link(list, to, prev);
        if let (Some(old), Some(new)) = (self.filed.get(from as usize), self.filed.get(to as usize)) {
            new.set(old.get());
        }
    }

    /// The number under which `slot` was filed.
    pub(super) fn filed(&self, slot: u32) -> u64 {
        self.filed[slot as usize].get()
    }

    /// Puts `slot` into `list` by `number`, behind its equals.
    pub(super) fn file(&self, list: u32, slot: u32, number: u64) {
        self.filed[slot as usize].set(number);
        let mut after = self.back(list);
        while let Some(other) = to_slot(after)
            && self.filed(other) > number
        {
            after = self.prev[other as usize].get();
        }
        self.link(list, slot, after);
    }

    /// [`Self::file`], out of its place in the same list.
    pub(super) fn refile(&self, list: u32, slot: u32, number: u64) {
        self.unlink(list, slot);
        self.file(list, slot, number);
    }
}

/// The slot that a link leads to.
pub(super) fn to_slot(link: u32) -> Option<u32> {
    link.checked_sub(1)
}
