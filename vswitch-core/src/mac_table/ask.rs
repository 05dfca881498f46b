//! What every frame asks of the table, made to take few instructions: where is this station, and note that one.
//!
//! A frame asks about two stations of one segment at one moment. So what can be said before, is: the moment as ticks,
//! and for each station the key and its hash, from which the line to read can be brought into the cache in advance.
//! The protocol is explained in [`super`]. Not here: what needs the lock.

use super::slots::{TICKS, Value};
use super::sync::Ordering;
use super::{Learned, MacTable, Refused, key_of, tick_of};
use crate::port::{PortId, Segment};
use crate::time::Instant;
use crate::wire::ethernet::Mac;

/// Readings of a slot that changes hands before a lookup takes it for a miss.
const RETRIES: usize = 8;

/// Where a station of a segment is looked for: its key, and the hash of that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    key: u64,
    hash: u64,
}

impl Spot {
    /// The address.
    #[inline]
    pub(crate) const fn mac(&self) -> Mac {
        Mac::from_u64(self.key)
    }

    /// A number that no other station has at this moment.
    #[inline]
    pub(crate) const fn key(&self) -> u64 {
        self.key
    }

    /// The segment's index at that moment; 0 when it had none.
    const fn index(&self) -> u32 {
        (self.key >> 48) as u32
    }
}

/// A point in time, the tick it is in, and what that makes of the ticks of entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    now: Instant,
    tick: u32,
    /// The latest tick of those that have aged out where entries live shortest, and how many there are before it.
    aged: u32,
    span: u32,
}

impl Moment {
    /// Whether an entry of this value has aged out, or may have: where entries live longer, that is asked again.
    #[inline(always)]
    fn is_past(&self, value: Value) -> bool {
        // From another worker's clock, ahead of ours, an entry counts as young.
        (self.aged.wrapping_sub(value.tick()) & (TICKS - 1) < self.span) & !value.is_static()
    }
}

/// A live entry as a reader found it.
pub(super) struct Hit {
    pub(super) slot: u32,
    pub(super) value: Value,
    pub(super) port: u32,
}

/// What came of one look.
enum Look {
    Hit(Hit),
    Miss,
    /// One that has aged out, unless entries of its bridge live longer than others.
    Past(Hit),
    /// Somebody made a change meanwhile: neither is certain.
    Again,
}

impl MacTable {
    /// Where two of `segment` are to be looked for, now or a moment later.
    #[inline(always)]
    pub(crate) fn spots(&self, segment: Segment, [one, other]: [Mac; 2]) -> [Spot; 2] {
        let index = self.index_of.get(segment.index()).map_or(0, |index| index.load(Ordering::Acquire));
        let spot = |mac: Mac| {
            let key = key_of(index, mac.as_u64());
            Spot { key, hash: self.slots.hash(key) }
        };
        [spot(one), spot(other)]
    }

    #[inline(always)]
    pub(super) fn spot(&self, segment: Segment, mac: Mac) -> Spot {
        let [spot, _] = self.spots(segment, [mac, mac]);
        spot
    }

    /// Reads a word of the line where most entries of this spot lie, for nothing but that it is in the cache when
    /// it is needed; what comes back means nothing.
    #[inline(always)]
    pub(crate) fn touch(&self, spot: &Spot) -> u64 {
        self.slots.touch(spot.hash)
    }

    /// [`Self::lookup`] of a spot in `segment`.
    #[inline(always)]
    pub(crate) fn lookup_at(&self, now: &Moment, segment: Segment, spot: &Spot) -> Option<PortId> {
        match self.look(now, segment, spot) {
            Look::Hit(hit) => PortId::new(hit.port),
            Look::Miss => None,
            Look::Past(_) | Look::Again => self.lookup_again(now, segment, spot),
        }
    }

    #[cold]
    #[inline(never)]
    fn lookup_again(&self, now: &Moment, segment: Segment, spot: &Spot) -> Option<PortId> {
        self.find(now, segment, spot.mac()).and_then(|hit| PortId::new(hit.port))
    }

    /// [`Self::learn`] of a spot in `segment`.
    #[inline(always)]
    pub(crate) fn learn_at(&self, now: &Moment, segment: Segment, spot: &Spot, port: PortId) -> Learned {
        match self.look(now, segment, spot) {
            Look::Hit(hit) if hit.port == port.get() && hit.value.was_seen(now.tick) => Learned::Same,
            _ => self.learn_again(now, segment, spot, port),
        }
    }

    /// For whoever has something to note.
    #[inline(never)]
    fn learn_again(&self, now: &Moment, segment: Segment, spot: &Spot, port: PortId) -> Learned {
        let mac = spot.mac();
        if mac.is_group() || mac.is_zero() {
            return Learned::Refused(Refused::Invalid);
        }
        if let Some(hit) = self.find(now, segment, mac) {
            if hit.port == port.get() {
                self.refresh(&hit, now);
                return Learned::Same;
            }
            if hit.value.is_static() && self.is_bound(port.index()) {
                return Learned::Refused(Refused::Static);
            }
        }
        self.learn_other(now.now, segment, mac, port)
    }

    /// This moment, for questions to this table.
    pub(crate) fn moment(&self, now: Instant) -> Moment {
        let (tick, ageing) = (tick_of(now), self.bridges.shortest());
        Moment { now, tick, aged: tick.wrapping_sub(ageing), span: TICKS / 2 - ageing }
    }

    #[cold]
    #[inline(never)]
    fn learn_other(&self, now: Instant, segment: Segment, mac: Mac, port: PortId) -> Learned {
        match self.try_hold() {
            Some(held) => held.learn(now, segment.index(), mac.as_u64(), port.index()),
            None => Learned::Refused(Refused::Busy),
        }
    }

    /// Looks for a live entry. Lock-free: whenever it looks again, somebody else has made a change.
    #[inline(never)]
    pub(super) fn find(&self, now: &Moment, segment: Segment, mac: Mac) -> Option<Hit> {
        for _ in 0..RETRIES {
            match self.look(now, segment, &self.spot(segment, mac)) {
                Look::Hit(hit) => return Some(hit),
                Look::Past(hit) => {
                    return (!self.has_aged(segment.bridge().into(), hit.value, now.tick)).then_some(hit);
                }
                Look::Miss => return None,
                Look::Again => {}
            }
        }
        None
    }

    #[inline(always)]
    fn look(&self, now: &Moment, segment: Segment, spot: &Spot) -> Look {
        let Some(index_word) = self.index_of.get(segment.index()) else { return Look::Miss };
        let is_same_index = || index_word.load(Ordering::Relaxed) == spot.index();
        if spot.index() == 0 {
            return if is_same_index() { Look::Miss } else { Look::Again };
        }
        let displaced = self.displaced.load(Ordering::Acquire);
        let (first, second) = self.slots.places(spot.hash);
        for bucket in [first, second] {
            let Some(found) = self.slots.scan(bucket, spot.key, |value| self.port_behind(value)) else {
                continue;
            };
            if found.value.is_vacant() || !is_same_index() {
                return Look::Again;
            }
            let Some(port) = found.meant.checked_sub(1) else { return Look::Miss };
            let hit = Hit { slot: found.slot, value: found.value, port };
            return if now.is_past(found.value) { Look::Past(hit) } else { Look::Hit(hit) };
        }
        let was_displaced = self.displaced.load(Ordering::Acquire) != displaced;
        if was_displaced || !is_same_index() { Look::Again } else { Look::Miss }
    }

    /// Refreshes what was found; a slot that changed meanwhile is left alone.
    pub(super) fn refresh(&self, hit: &Hit, now: &Moment) {
        if hit.value.is_static() {
            return;
        }
        // Not back in time, when another worker's clock is ahead.
        let behind = now.tick.wrapping_sub(hit.value.tick()) & (TICKS - 1);
        let is_later = (1..TICKS / 2).contains(&behind);
        if is_later || !hit.value.is_confirmed() {
            let tick = if is_later { now.tick } else { hit.value.tick() };
            if self.slots.refresh(hit.slot, hit.value, hit.value.seen(tick)) && is_later {
                self.order.stamp(hit.slot, now.now);
            }
        }
    }
}
