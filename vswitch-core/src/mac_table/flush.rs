//! What the holder of the lock may do to many entries at once: forget those of a port, of a segment, or all.
//!
//! Not here: what becomes of a single entry (see [`super::held`]).

use super::held::Holder;
use super::order::STATICS;
use super::sync::{Held, Ordering};
use super::{MAC, index_in, key_of, tick_of};
use alloc::vec::Vec;

impl Holder<'_> {
    pub(super) fn forget_port(&self, port: usize) {
        let t = self.table;
        if port >= t.learned.len() {
            return;
        }
        if t.order.is_exact() {
            self.flush_port(port);
            let statics = t.statics[port].get();
            self.clear_some(t.order.of(STATICS), |slot| t.slots.value(slot).handle() == statics);
        }
        self.strike_handle(t.handle_of(port));
        self.strike_handle(t.statics[port].get());
        t.learned[port].set(0);
        t.statics[port].set(0);
        self.rank(port);
        self.replenish();
    }

    pub(super) fn flush_port(&self, port: usize) {
        let t = self.table;
        self.expire(tick_of(self.now()));
        let own = t.handle_of(port);
        if t.held_by[own as usize].get() == 0 {
            return;
        }
        let fresh = if t.order.is_exact() { None } else { self.take_handle(port) };
        match fresh {
            Some(fresh) => {
                t.learned[port].set(fresh);
                self.strike_handle(own);
            }
            None => {
                while let Some(slot) = t.order.of(own).next() {
                    self.clear(slot);
                }
            }
        }
        self.rank(port);
        self.replenish();
    }

    pub(super) fn flush(&self) {
        if self.table.order.is_exact() {
            return self.clear_in_order(|_| true);
        }
        while let Some((port, _)) = self.table.givers.top(0) {
            self.flush_port(port);
        }
    }

    pub(super) fn flush_port_segment(&self, port: usize, segment: usize) {
        let t = self.table;
        let index = t.index_of[segment].get();
        let own = t.handle_of(port);
        if index != 0 && own != 0 {
            self.expire(tick_of(self.now()));
            self.clear_some(t.order.of(own), |slot| index_in(t.slots.key(slot)) == index as usize);
        }
    }

    /// Clears those learned entries of a small table that `which` picks, the oldest first.
    fn clear_in_order(&self, which: impl Fn(u32) -> bool) {
        self.expire(tick_of(self.now()));
        self.clear_some(self.table.order.by_age(), which);
    }

    /// Clears those entries of a list that `which` picks.
    pub(super) fn clear_some(&self, mut slots: impl Iterator<Item = u32>, which: impl Fn(u32) -> bool) {
        let mut next = slots.next();
        while let Some(slot) = next {
            // The iterator is already past the slot when that goes.
            next = slots.next();
            if which(slot) {
                self.clear(slot);
            }
        }
    }

    pub(super) fn flush_segment(&self, segment: usize) {
        let t = self.table;
        let old = t.index_of[segment].get();
        if old == 0 {
            return;
        }
        let is_old = |slot: u32| index_in(t.slots.key(slot)) == old as usize;
        if t.order.is_exact() {
            return self.clear_in_order(is_old);
        }
        match t.indices.take(t.books.0.swept.get()) {
            Some(fresh) if self.copy_statics(old, fresh) => {
                self.publish(segment, fresh);
                t.segment_of[old as usize].store(0, Ordering::Release);
                t.indices.strike(old, self.clean_at());
                self.clear_some(t.order.of(STATICS), is_old);
                return self.replenish();
            }
            Some(fresh) => {
                self.clear_some(t.order.of(STATICS), |slot| index_in(t.slots.key(slot)) == fresh as usize);
                t.segment_of[fresh as usize].set(0);
                t.indices.strike(fresh, t.books.0.swept.get());
            }
            None => {}
        }
        // No index was left, or no place for a static entry: one by one.
        for slot in 0..t.slots.count() {
            let value = t.slots.value(slot);
            if !value.is_vacant() && !value.is_static() && is_old(slot) {
                self.clear(slot);
            }
        }
    }

    /// Copies the static entries of one index to another that nobody reads yet.
    fn copy_statics(&self, old: u32, fresh: u32) -> bool {
        let t = self.table;
        let tick = tick_of(self.now());
        let of_old =
            |slot: &u32| index_in(t.slots.key(*slot)) == old as usize && !self.table.is_void(*slot, tick);
        let keys: Vec<u64> = t.order.of(STATICS).filter(of_old).map(|slot| t.slots.key(slot)).collect();
        // The copies are not void from here on.
        t.segment_of[fresh as usize].set(t.segment_of[old as usize].get());
        keys.into_iter().all(|key| {
            // Looked for again: the copies before it may have displaced it.
            let value = t.slots.position(key).map(|slot| t.slots.value(slot));
            let copy = key_of(fresh, key & MAC);
            match (value, self.place(tick, copy)) {
                (Some(value), Some(place)) => {
                    self.fill(place, copy, value);
                    true
                }
                _ => false,
            }
        })
    }
}
