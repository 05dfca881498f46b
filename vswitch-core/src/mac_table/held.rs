//! What the holder of the lock may do: everything that gives a slot another key or an entry another port.
//!
//! Not here: lookups and refreshes, which need no lock (see [`super`]), and what forgets many entries at once (see
//! `flush.rs`).

use super::ask::Hit;
use super::bridges::{bridge_of, bridge_of_segment};
use super::order::STATICS;
use super::slots::{Slots, TICKS, Value, low};
use super::sync::{Held, Ordering};
use super::{AddError, Learned, MacTable, Refused, key_of, tick_of};
use crate::port::PortId;
use crate::time::Instant;
use core::time::Duration;

/// The lock, held until this is dropped.
pub(super) struct Holder<'a> {
    pub(super) table: &'a MacTable,
}

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        self.table.books.0.locked.store(false, Ordering::Release);
    }
}

impl Holder<'_> {
    /// The time of the latest change or sweep.
    pub(super) fn now(&self) -> Instant {
        Instant::from_nanos(self.table.books.0.now.get())
    }

    pub(super) fn learn(&self, now: Instant, segment: usize, mac: u64, port: usize) -> Learned {
        let t = self.table;
        let own = t.handle_of(port);
        if own == 0 {
            return Learned::Refused(Refused::Invalid);
        }
        t.books.0.now.set(now.as_nanos());
        let tick = tick_of(now);
        self.expire(tick);
        let Some(index) = self.index(segment) else { return Learned::Refused(Refused::Full) };
        let key = key_of(index, mac);
        if let Some(slot) = t.slots.position(key) {
            let value = t.slots.value(slot);
            if !self.table.is_void(slot, tick) {
                return self.learn_known(now, slot, value, own, port);
            }
            self.clear(slot);
        }
        if !self.make_room(tick, bridge_of_segment(segment), port, own) {
            return Learned::Refused(Refused::Full);
        }
        match self.place(tick, key) {
            Some(slot) => {
                self.fill(slot, key, Value::new(own, false, false, tick));
                Learned::New
            }
            None => Learned::Refused(Refused::Full),
        }
    }

    fn learn_known(&self, now: Instant, slot: u32, value: Value, own: u32, port: usize) -> Learned {
        let t = self.table;
        let tick = tick_of(now);
        let from = t.port_of[value.handle() as usize].get().checked_sub(1).and_then(PortId::new);
        match from {
            Some(from) if from.index() == port => {
                t.refresh(&Hit { slot, value, port: from.get() }, &t.moment(now));
                Learned::Same
            }
            _ if value.is_static() => Learned::Refused(Refused::Static),
            Some(from) if self.make_share(tick, port, own) => {
                self.change(slot, Value::new(own, false, true, tick));
                Learned::Moved { from }
            }
            _ => Learned::Refused(Refused::Full),
        }
    }

    /// Brings `port` below its own limit.
    fn make_share(&self, tick: u32, port: usize, own: u32) -> bool {
        let t = self.table;
        let quota = t.quota_of(port);
        if quota > 0 && t.held_by[own as usize].get() >= quota {
            self.tidy(tick);
        }
        while t.held_by[own as usize].get() >= quota {
            if !self.give_up(tick, own) {
                return false;
            }
        }
        true
    }

    /// Brings a bridge down to `below` entries, as far as that can be done by giving up learned ones.
    fn make_space(&self, tick: u32, bridge: usize, below: u32) -> bool {
        let t = self.table;
        if t.bridges.len(bridge) > below {
            self.tidy(tick);
        }
        while t.bridges.len(bridge) > below {
            let giver = t.bridges.givers.top(bridge).map(|(giver, _)| giver);
            if !giver.is_some_and(|giver| self.give_up(tick, t.handle_of(giver))) {
                return false;
            }
        }
        true
    }

    /// Makes room for one more entry of `port` in `bridge`.
    fn make_room(&self, tick: u32, bridge: usize, port: usize, own: u32) -> bool {
        let t = self.table;
        let bridge = t.bridge_for(bridge, port);
        if !self.make_share(tick, port, own) || !self.make_space(tick, bridge, t.bridges.limit(bridge) - 1) {
            return false;
        }
        if t.books.0.len.get() >= t.limit {
            self.tidy(tick);
        }
        while t.books.0.len.get() >= t.limit {
            let Some(giver) = t.giver(port) else { return false };
            if !self.give_up(tick, t.handle_of(giver)) {
                return false;
            }
        }
        true
    }

    /// Before anything alive is given up: clears what is void, in a small table all that has aged out, a
    /// piece of a large one while something struck out may still be there.
    pub(super) fn tidy(&self, tick: u32) {
        let t = self.table;
        self.expire(tick);
        if !t.order.is_exact() && t.books.0.swept.get() < t.books.0.clean_at.get() {
            self.sweep(self.now(), 16);
        }
    }

    /// Clears what has aged out of a small table, the oldest first. It comes before every change of what
    /// the ports have, so that all these changes have one order.
    pub(super) fn expire(&self, tick: u32) {
        let t = self.table;
        if t.order.is_exact() && t.books.0.tidied.get() != tick {
            t.books.0.tidied.set(tick);
            if t.bridges.age_apart() {
                // The oldest may live on where a younger one does not.
                return self.clear_some(t.order.by_age(), |slot| t.is_void(slot, tick));
            }
            while let Some(slot) = t.order.oldest().filter(|slot| t.is_void(*slot, tick)) {
                self.clear(slot);
            }
        }
    }

    /// Clears the entry under `handle` that was seen least recently.
    pub(super) fn give_up(&self, tick: u32, handle: u32) -> bool {
        let t = self.table;
        let value = |slot| t.slots.value(slot);
        match t.order.least_recent(handle, tick, value, |slot| self.table.is_void(slot, tick)) {
            Some(slot) => {
                self.clear(slot);
                true
            }
            None => false,
        }
    }

    /// A vacant slot for `key`: in its first bucket if there is one, so that most lookups are over after one
    /// line, else in its second; else what is void there makes room; else an entry moves to its other
    /// bucket, where another may have to move before it. With half of the slots in use that is always
    /// enough: some forty buckets would have to be full, of which one in seven is.
    pub(super) fn place(&self, tick: u32, key: u64) -> Option<u32> {
        let t = self.table;
        let (first, second) = t.slots.places(t.slots.hash(key));
        if let Some(slot) = t.slots.vacancy(first).or_else(|| t.slots.vacancy(second)) {
            return Some(slot);
        }
        let both = || Slots::slots_of(first).chain(Slots::slots_of(second));
        if let Some(slot) = both().find(|slot| t.is_void(*slot, tick)) {
            self.clear(slot);
            return Some(slot);
        }
        both().find(|slot| self.make_way(*slot)).or_else(|| {
            both().find(|slot| {
                let mut behind = Slots::slots_of(self.other_bucket(*slot));
                let vacate = |next| {
                    let void = t.is_void(next, tick);
                    if void {
                        self.clear(next);
                    }
                    void || self.make_way(next)
                };
                behind.any(vacate) && self.make_way(*slot)
            })
        })
    }

    /// Moves the entry of `slot` to its other bucket, if that has a vacant slot.
    fn make_way(&self, slot: u32) -> bool {
        let vacant = self.table.slots.vacancy(self.other_bucket(slot));
        if let Some(vacant) = vacant {
            self.displace(slot, vacant);
        }
        vacant.is_some()
    }

    fn other_bucket(&self, slot: u32) -> u32 {
        let (a, b) = self.table.slots.places(self.table.slots.hash(self.table.slots.key(slot)));
        if Slots::slots_of(a).contains(&slot) { b } else { a }
    }

    /// Moves an entry to a vacant slot of its other bucket. It is in both for a moment and never in neither;
    /// a reader that looked into the one before and into the other after learns it from the count.
    fn displace(&self, from: u32, to: u32) {
        let t = self.table;
        let value = t.slots.value(from);
        t.slots.fill(to, t.slots.key(from), value);
        t.order.replace(owner(value), from, to);
        t.displaced.fetch_add(1, Ordering::Release);
        t.slots.vacate(from);
    }

    pub(super) fn fill(&self, slot: u32, key: u64, tenant: Value) {
        let t = self.table;
        self.take_in(key, tenant);
        t.slots.fill(slot, key, tenant);
        t.order.push(owner(tenant), slot, tenant, self.now());
        self.count(tenant, 1);
    }

    /// The same station under other facts.
    fn change(&self, slot: u32, tenant: Value) {
        let t = self.table;
        let before = t.slots.value(slot);
        t.order.unlink(owner(before), slot);
        t.slots.change(slot, tenant);
        t.order.push(owner(tenant), slot, tenant, self.now());
        self.count(before, u32::MAX);
        self.take_in(t.slots.key(slot), tenant);
        self.count(tenant, 1);
    }

    pub(super) fn clear(&self, slot: u32) {
        let t = self.table;
        let value = t.slots.value(slot);
        t.order.unlink(owner(value), slot);
        t.slots.vacate(slot);
        self.count(value, u32::MAX);
    }

    /// Before an entry comes under the handle of `tenant`: if it is the first of its port, it says to which bridge that
    /// belongs.
    fn take_in(&self, key: u64, tenant: Value) {
        let t = self.table;
        let port = t.port_of[tenant.handle() as usize].get().checked_sub(1);
        if let Some(port) = port.map(|port| port as usize).filter(|port| t.weight(*port) == 0) {
            t.bridges.take_in(port, bridge_of(&t.segment_of, key));
        }
    }

    /// Adds `by` to the entries under a handle; `u32::MAX` takes one away.
    fn count(&self, value: Value, by: u32) {
        let t = self.table;
        let handle = value.handle() as usize;
        t.held_by[handle].set(t.held_by[handle].get().wrapping_add(by));
        if let Some(port) = t.port_of[handle].get().checked_sub(1) {
            t.books.0.len.set(t.books.0.len.get().wrapping_add(by));
            t.bridges.count(port as usize, by);
            self.rank(port as usize);
        }
    }

    pub(super) fn rank(&self, port: usize) {
        let t = self.table;
        let weight = t.weight(port);
        let gives = Some(weight).filter(|_| t.learned_by(port) > 0);
        t.ranks.rank(0, port, Some(weight).filter(|weight| *weight > 0));
        t.givers.rank(0, port, gives);
        t.bridges.givers.rank(t.bridges.of_port(port), port, gives);
    }

    pub(super) fn sweep(&self, now: Instant, buckets: usize) {
        let t = self.table;
        t.books.0.now.set(now.as_nanos());
        let tick = tick_of(now);
        self.expire(tick);
        let all = t.slots.buckets();
        let buckets = u32::try_from(buckets).unwrap_or(all).min(all);
        let swept = t.books.0.swept.get();
        let from = low(swept) & (all - 1);
        for bucket in from..from + buckets {
            for slot in Slots::slots_of(bucket & (all - 1)) {
                if !t.slots.value(slot).is_vacant() && self.table.is_void(slot, tick) {
                    self.clear(slot);
                }
            }
        }
        t.books.0.swept.set(swept + u64::from(buckets));
    }

    /// After something was struck out: the count of swept buckets at which nothing is left of it.
    pub(super) fn clean_at(&self) -> u64 {
        let t = self.table;
        let at = t.books.0.swept.get() + u64::from(t.slots.buckets());
        t.books.0.clean_at.set(at);
        at
    }

    /// Makes sure that the next who needs a handle or an index finds one, if any can be free. Frames take
    /// indices and must not pay for a whole sweep.
    pub(super) fn replenish(&self) {
        let t = self.table;
        if !t.handles.has(t.books.0.swept.get()) || !t.indices.has(t.books.0.swept.get()) {
            self.sweep(self.now(), usize::MAX);
        }
    }

    pub(super) fn take_handle(&self, port: usize) -> Option<u32> {
        let t = self.table;
        let handle = t.handles.take(t.books.0.swept.get())?;
        t.port_of[handle as usize].store(u32::try_from(port).ok()? + 1, Ordering::Release);
        Some(handle)
    }

    /// Makes every entry under `handle` void.
    pub(super) fn strike_handle(&self, handle: u32) {
        let t = self.table;
        if handle != 0 {
            let (port, held) = (t.port_of[handle as usize].get(), t.held_by[handle as usize].get());
            t.port_of[handle as usize].store(0, Ordering::Release);
            t.books.0.len.set(t.books.0.len.get() - held);
            t.bridges.count(port.saturating_sub(1) as usize, held.wrapping_neg());
            t.handles.strike(handle, self.clean_at());
        }
    }

    /// The index of `segment`, given to it now if need be.
    fn index(&self, segment: usize) -> Option<u32> {
        let t = self.table;
        let index = t.index_of.get(segment)?.get();
        if index != 0 {
            return Some(index);
        }
        let index = t.indices.take(t.books.0.swept.get())?;
        self.publish(segment, index);
        Some(index)
    }

    pub(super) fn publish(&self, segment: usize, index: u32) {
        let t = self.table;
        t.segment_of[index as usize].store(u32::try_from(segment).unwrap_or(0) + 1, Ordering::Release);
        t.index_of[segment].store(index, Ordering::Release);
    }

    pub(super) fn bind(&self, port: usize, mac_limit: Option<u32>) {
        let t = self.table;
        let tick = tick_of(self.now());
        let Some(quota) = t.quota.get(port) else { return };
        quota.set(mac_limit.unwrap_or(u32::MAX));
        let own = t.handle_of(port);
        if own == 0 {
            self.replenish();
            t.learned[port].set(self.take_handle(port).unwrap_or(0));
        }
        let over = || t.held_by[own as usize].get() > t.quota_of(port);
        if over() {
            self.tidy(tick);
        }
        while over() && self.give_up(tick, own) {}
    }

    /// `limit` and `ageing`, in seconds, are what a table can have.
    pub(super) fn set_bridge(&self, bridge: usize, limit: Option<u32>, ageing: Option<u32>) {
        let t = self.table;
        t.bridges.set(bridge, limit, ageing);
        t.bridges.agree(t.ageing.load(Ordering::Relaxed));
        t.books.0.tidied.set(u32::MAX);
        self.make_space(tick_of(self.now()), bridge, t.bridges.limit(bridge));
    }

    pub(super) fn add_static(&self, segment: usize, mac: u64, port: usize) -> Result<(), AddError> {
        self.add(segment, mac, port, true)
    }

    pub(super) fn restore_static(&self, segment: usize, mac: u64, port: usize) -> bool {
        self.add(segment, mac, port, false).is_ok()
    }

    /// With `insist`, in place of what is there and of somebody's learned entry.
    fn add(&self, segment: usize, mac: u64, port: usize, insist: bool) -> Result<(), AddError> {
        let t = self.table;
        let tick = tick_of(self.now());
        if !t.is_bound(port) {
            return Err(AddError::Invalid);
        }
        self.expire(tick);
        self.replenish();
        let index = self.index(segment).ok_or(AddError::Full)?;
        if t.statics[port].get() == 0 {
            t.statics[port].set(self.take_handle(port).ok_or(AddError::Full)?);
        }
        let tenant = Value::new(t.statics[port].get(), true, true, tick);
        let key = key_of(index, mac);
        match t.slots.position(key) {
            Some(slot) if t.is_void(slot, tick) => self.clear(slot),
            Some(_) if !insist => return Err(AddError::Full),
            Some(slot) => {
                self.change(slot, tenant);
                return Ok(());
            }
            None => {}
        }
        let bridge = t.bridge_for(bridge_of_segment(segment), port);
        let limit = t.bridges.limit(bridge);
        if t.bridges.len(bridge) >= limit && !(insist && self.make_space(tick, bridge, limit - 1)) {
            return Err(AddError::Full);
        }
        if t.books.0.len.get() >= t.limit {
            self.tidy(tick);
        }
        while t.books.0.len.get() >= t.limit {
            let (giver, _) = t.heaviest().filter(|_| insist).ok_or(AddError::Full)?;
            if !self.give_up(tick, t.handle_of(giver)) {
                return Err(AddError::Full);
            }
        }
        let slot = self.place(tick, key).ok_or(AddError::Full)?;
        self.fill(slot, key, tenant);
        Ok(())
    }

    pub(super) fn remove(&self, tick: u32, segment: usize, mac: u64) -> bool {
        let t = self.table;
        self.expire(tick);
        let index = t.index_of[segment].get();
        let Some(slot) = t.slots.position(key_of(index, mac)).filter(|_| index != 0) else { return false };
        let lived = !self.table.is_void(slot, tick);
        self.clear(slot);
        lived
    }

    pub(super) fn restore(&self, now: Instant, age: Duration, segment: usize, mac: u64, port: usize) -> bool {
        let t = self.table;
        let (tick, seconds) = (tick_of(now), u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
        self.expire(tick);
        let own = t.handle_of(port);
        let bridge = t.bridge_for(bridge_of_segment(segment), port);
        if own == 0
            || seconds >= t.ageing_of(bridge_of_segment(segment))
            || t.bridges.len(bridge) >= t.bridges.limit(bridge)
            || t.books.0.len.get() >= t.limit
            || t.held_by[own as usize].get() >= t.quota_of(port)
        {
            return false;
        }
        let Some(index) = self.index(segment) else { return false };
        let key = key_of(index, mac);
        if let Some(slot) = t.slots.position(key) {
            if !self.table.is_void(slot, tick) {
                return false;
            }
            self.clear(slot);
        }
        let Some(slot) = self.place(tick, key) else { return false };
        let tenant = Value::new(own, false, true, tick.wrapping_sub(seconds) & (TICKS - 1));
        self.take_in(key, tenant);
        t.slots.fill(slot, key, tenant);
        t.order.push_old(
            own,
            slot,
            tenant,
            Instant::from_nanos(
                now.as_nanos().saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
            ),
        );
        self.count(tenant, 1);
        true
    }
}

fn owner(value: Value) -> u32 {
    if value.is_static() { STATICS } else { value.handle() }
}

/// Steps that the model needs one at a time.
#[cfg(loom)]
impl Holder<'_> {
    /// Displaces the entry of a key to its other bucket, if that has a vacant slot.
    pub(super) fn displace_key(&self, segment: usize, mac: u64) -> bool {
        let t = self.table;
        let Some(slot) = t.slots.position(key_of(t.index_of[segment].get(), mac)) else { return false };
        self.make_way(slot)
    }

    /// Flushes `from` and gives its index to `to`, as if all others were in use.
    pub(super) fn reuse_index(&self, from: usize, to: usize) {
        let t = self.table;
        let old = t.index_of[from].get();
        self.flush_segment(from);
        self.sweep(self.now(), usize::MAX);
        self.publish(to, old);
    }
}
