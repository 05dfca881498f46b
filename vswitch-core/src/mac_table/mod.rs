//! The MAC table: on which port a station of a segment was last seen, shared by all workers.
//!
//! It is here that every frame of every worker asks twice, once for its destination and once to note its
//! source, while strangers choose the addresses. So a lookup and a refresh take no lock and one or two
//! cache lines; whatever changes who lives where takes one lock for all, and a worker that finds it taken
//! leaves the lesson to the next frame. Not here: what is done with the answer, the clock, the randomness.
//!
//! # Shape
//! A slot is two words: the key (an index for the segment, 16 bits, and the address, 48) and the value (see
//! `slots.rs`: tick, version, handle). Four slots make a bucket of 64 bytes. A key may lie in two buckets,
//! which a seeded hash picks; at most half of the slots are in use, and when both buckets are full an entry
//! moves to its other one.
//!
//! An entry names a *handle*, and the handle names the port; a port has one for what it learned and one for
//! what was set. To flush a port is to strike its handle out and give it another. In the same way a segment
//! has an *index*, and flushing it means another index (its static entries are copied first). What lies
//! under a name that was struck out is void from that moment and cleared when somebody comes past; until
//! then it takes up slots, and for a segment's flush also counts in [`MacTable::len`]. A small table, of up
//! to 1,024 entries, is flushed entry by entry instead.
//!
//! # Fairness
//! In a full table the port with the most entries gives up the learned one it saw least recently, and never
//! to a port that has more. Static entries count, but are not given up: where the heaviest port has nothing
//! else, the heaviest of those that have gives. Of equally heavy ports the one on top of a heap gives (see
//! `ranks.rs`), be it the learner or not. So a flood takes from each other port what that has more than the
//! flooder, and at a tie one entry more, which makes the flooder the heaviest; from then on it gives its own.
//!
//! A station is refreshed once a second, by its first frame in it. In tables of up to 1,024 entries who was
//! refreshed least recently is known exactly: the victim is the one that Open vSwitch 3.1 would choose. For
//! that, whatever ages out or is flushed there is cleared at once and the oldest first, because the heap
//! remembers the order. In larger ones it is known by the second, with a second chance (see `order.rs`).
//!
//! A bridge may have a limit and an ageing time of its own. At its limit it takes from its own ports by the same
//! rules, whatever room the table has; at the table's, from whoever has most, in whatever bridge. Readers hold
//! an entry against the shortest ageing time of all, and ask which is its bridge's only where that is past.
//!
//! # Thread-safety
//! Keys and values are written under the lock, but for one thing: a refresh replaces a value by one with
//! another tick.
//!
//! *A hit is true.* A reader takes the value, then the port behind its handle, then the key again, then the
//! value again. Every store it may read is a release (or a read-modify-write that carries one on) and every
//! load before the last an acquire, so that whatever it read, the last load sees at least what the writer
//! had done before. A slot that gets another tenant passes through a vacant value with the next version,
//! before the key changes; so two readings with the same version and handle mean that the key between them
//! was the key all along. A handle gets another port only after a sweep has vacated every slot that named
//! it; so a reader that saw the new port sees the slot vacated, and looks again. The same holds for an
//! index, which the reader took before anything else, a batch earlier perhaps: after a hit it asks whether
//! the segment still has it. That leaves a version that comes
//! round: 2¹⁸ tenants of one slot, the last under the same handle, between two loads of one reader.
//!
//! *A miss is true.* An entry that moves to its other bucket is written there, then a count goes up, then the
//! first copy is vacated. A reader that missed both copies read the vacated slot, hence sees the count at
//! its new value, and looks again. A static entry that changes its index is treated the same: copy, publish
//! the index, vacate.
//!
//! *A refresh hits its own.* It is a compare-and-swap of the whole word, version and handle with it. Its
//! order is relaxed: it publishes nothing but the tick. One that meets a change does nothing.
//!
//! *Nobody waits on the frame path.* A reader looks again only when somebody made a change in between, eight
//! times at most, and then reports a miss, which floods one frame. Control calls spin, for as long as one
//! insertion takes, or one piece of a sweep.
//!
//! `tests/mac_table_loom.rs` tries these claims under loom.
//!
//! # What it gives up
//! One lock for all insertions: at tens of thousands of new stations a second nobody notices, and a station
//! learned a frame later harms nobody. Memory: 28 bytes per slot and two slots per entry at least, and some
//! megabytes of address space for ports and segments that may never be. Ticks of one second: an entry may
//! live up to a second less than the ageing time. Exact counts at every moment: see [`MacTable::len`].

mod ask;
mod bridges;
mod entry;
mod flush;
mod held;
mod links;
mod listing;
mod names;
mod order;
mod ranks;
mod slots;
mod sync;
#[cfg(loom)]
mod tiny;

use crate::port::{PortId, Segment};
use crate::time::Instant;
use crate::wire::ethernet::Mac;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
pub(crate) use ask::{Moment, Spot};
use bridges::{Bridges, bridge_of, bridge_of_segment};
use core::fmt;
use core::time::Duration;
pub use entry::{AddError, Entry, EntryState, Learned, Refused};
use held::Holder;
use names::Names;
use order::Order;
use ranks::Ranks;
use slots::{Slots, TICKS, Value, WIDTH, low};
use sync::{Apart, AtomicBool, AtomicU32, AtomicU64, Ordering, zeroed_u32};

/// How large everything is.
struct Shape {
    /// Entries.
    limit: u32,
    /// A power of two, at least 2.
    buckets: u32,
    /// Ports are 0..ports.
    ports: usize,
    /// Handles are 1..=handles, at most 65,535.
    handles: u32,
    /// Segments are 0..segments.
    segments: usize,
    /// Indices are 1..=indices, at most 65,535.
    indices: u32,
    exact: bool,
}

impl Shape {
    /// For `limit` entries of ports 0..`ports`; `names` handles, and as many indices.
    fn new(limit: u32, ports: u32, names: u32) -> Self {
        let limit = limit.clamp(MacTable::MIN_LIMIT, MacTable::MAX_LIMIT);
        Self {
            limit,
            // At most half of the slots are ever in use.
            buckets: (limit * 2).max(64).next_power_of_two() / WIDTH,
            ports: ports as usize,
            handles: names,
            segments: 1 << 16,
            indices: names,
            exact: limit <= order::EXACT,
        }
    }
}

/// The table. See the head of this file.
pub struct MacTable {
    slots: Slots,
    order: Order,
    /// All ports that have entries, and those that have learned ones, by all their entries.
    ranks: Ranks,
    givers: Ranks,
    bridges: Bridges,
    /// By segment: the index under which its entries lie; 0: none yet.
    index_of: Box<[AtomicU32]>,
    /// By index: its segment plus one; 0 for one that is struck out.
    segment_of: Box<[AtomicU32]>,
    indices: Names,
    /// By handle: its port plus one; 0 for one that is struck out.
    port_of: Box<[AtomicU32]>,
    /// By handle: its entries.
    held_by: Box<[AtomicU32]>,
    handles: Names,
    /// By port: the handle of its learned entries, and 0 when it is not bound; the handle of its static
    /// ones, and 0 while it has none; how many it may learn.
    learned: Box<[AtomicU32]>,
    statics: Box<[AtomicU32]>,
    quota: Box<[AtomicU32]>,
    limit: u32,
    ageing: AtomicU32,
    /// Goes up whenever an entry has been copied to its other bucket and before the first copy goes.
    displaced: AtomicU64,
    /// What every insertion writes, away from what every lookup reads.
    books: Apart<Books>,
}

/// The lock, and numbers that only its holder changes.
#[derive(Default)]
struct Books {
    locked: AtomicBool,
    /// Entries under handles that are not struck out.
    len: AtomicU32,
    /// Buckets swept since the beginning, and the count at which nothing void is left of what was struck out.
    swept: AtomicU64,
    clean_at: AtomicU64,
    /// The time of the latest change or sweep, and the tick for which a small table is rid of what aged out.
    now: AtomicU64,
    tidied: AtomicU32,
}

impl MacTable {
    /// The smallest limit.
    pub const MIN_LIMIT: u32 = 10;
    /// The largest limit.
    pub const MAX_LIMIT: u32 = 1 << 24;

    /// An empty table for `limit` entries, 10..=16,777,216, which are forgotten when not seen for `ageing`,
    /// 10..=1,000,000 s; a value outside is replaced by the nearest inside. `seed` decides where entries
    /// lie: it should be random and must stay secret, for strangers choose the addresses. All memory is
    /// allocated here, though an operating system that hands out zeroed pages on first use will count most
    /// of it only when it is used.
    #[must_use]
    pub fn new(limit: u32, ageing: Duration, seed: [u64; 2]) -> Self {
        // Coverage counters make the zeroing of large arrays slow, and no fuzzer needs as many ports.
        if cfg!(fuzzing) {
            return Self::few_ports(limit, ageing, seed);
        }
        Self::with_shape(&Shape::new(limit, PortId::MAX + 1, 0xffff), ageing, seed)
    }

    /// [`Self::new`] for a switch of few ports, in some a megabyte where that one has twenty: for many switches in
    /// one process, and for allocators that write the zeroes. Port numbers are below 4,096, at most 2,000 ports are
    /// bound at a time, and stations are in at most 4,000 segments at a time. A port beyond stays unbound, and a
    /// station beyond is not learned.
    #[must_use]
    pub fn few_ports(limit: u32, ageing: Duration, seed: [u64; 2]) -> Self {
        Self::with_shape(&Shape::new(limit, 1 << 12, 0xfff), ageing, seed)
    }

    fn with_shape(shape: &Shape, ageing: Duration, seed: [u64; 2]) -> Self {
        let slots = Slots::new(shape.buckets, seed);
        let table = Self {
            order: Order::new(slots.count(), shape.handles, shape.exact),
            ranks: Ranks::new(shape.ports, 1),
            givers: Ranks::new(shape.ports, 1),
            bridges: Bridges::new(shape.ports),
            index_of: zeroed_u32(shape.segments),
            segment_of: zeroed_u32(shape.indices as usize + 1),
            indices: Names::new(shape.indices),
            port_of: zeroed_u32(shape.handles as usize + 1),
            held_by: zeroed_u32(shape.handles as usize + 1),
            handles: Names::new(shape.handles),
            learned: zeroed_u32(shape.ports),
            statics: zeroed_u32(shape.ports),
            quota: zeroed_u32(shape.ports),
            limit: shape.limit,
            ageing: AtomicU32::new(0),
            displaced: AtomicU64::new(0),
            books: Apart(Books::default()),
            slots,
        };
        table.set_ageing(ageing);
        table
    }

    /// How many entries it holds at most, static ones included.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// How many entries there are, static ones included. Those that have aged out, or whose segment was
    /// flushed, count until a sweep has passed them.
    pub fn len(&self) -> u32 {
        self.books.0.len.load(Ordering::Relaxed)
    }

    /// Whether [`Self::len`] is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long an entry lives without being seen.
    pub fn ageing(&self) -> Duration {
        Duration::from_secs(self.ageing.load(Ordering::Relaxed).into())
    }

    /// Changes it, to whole seconds in 10..=1,000,000. Entries that had aged out but were not yet swept
    /// come back when the new time covers them.
    pub fn set_ageing(&self, ageing: Duration) {
        let seconds = seconds_of(ageing);
        self.ageing.store(seconds, Ordering::Relaxed);
        self.bridges.agree(seconds);
        // A small table has to be looked through again before anything is given up.
        self.books.0.tidied.store(u32::MAX, Ordering::Relaxed);
    }

    /// Gives the entries of the bridge of this number, below [`Segment::BRIDGES`], a limit and an ageing time of their
    /// own; `None`: the table's. Both are taken to the nearest value that a table can have. When the bridge is at its
    /// limit, its port with the most entries gives up the one that was seen least recently.
    pub fn set_bridge(&self, bridge: u8, limit: Option<u32>, ageing: Option<Duration>) {
        let limit = limit.map(|limit| limit.clamp(Self::MIN_LIMIT, Self::MAX_LIMIT));
        self.hold().set_bridge(bridge.into(), limit, ageing.map(seconds_of));
    }

    /// The memory of all its arrays, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.slots.memory_bytes()
            + self.order.memory_bytes()
            + self.ranks.memory_bytes()
            + self.givers.memory_bytes()
            + self.bridges.memory_bytes()
            + self.indices.memory_bytes()
            + self.handles.memory_bytes()
            + [&self.index_of, &self.segment_of, &self.port_of, &self.held_by]
                .into_iter()
                .chain([&self.learned, &self.statics, &self.quota])
                .map(|array| size_of_val(&**array))
                .sum::<usize>()
    }

    /// Lets stations be learned on `port`, at most `mac_limit` of them (static entries do not count there).
    /// Again: changes the limit, and what is over it is given up at once, the least recently seen first.
    /// Any port can be bound, and 32,000 at a time; one too many stays unbound.
    pub fn bind(&self, port: PortId, mac_limit: Option<u32>) {
        self.hold().bind(port.index(), mac_limit);
    }

    /// Unbinds `port`: its entries, learned and static, are gone. Takes no longer for many entries than for
    /// 1,024.
    pub fn forget_port(&self, port: PortId) {
        self.hold().forget_port(port.index());
    }

    /// Forgets what was learned on `port`. Takes no longer for many entries than for 1,024.
    pub fn flush_port(&self, port: PortId) {
        self.hold().flush_port(port.index());
    }

    /// Forgets what was learned in `segment`. Takes no longer for many learned entries than for 1,024, only
    /// for many static ones.
    pub fn flush_segment(&self, segment: Segment) {
        self.hold().flush_segment(segment.index());
    }

    /// Forgets everything learned.
    pub fn flush(&self) {
        self.hold().flush();
    }

    /// Forgets what was learned on `port` in `segment`; looks at every entry of the port.
    pub fn flush_port_segment(&self, port: PortId, segment: Segment) {
        self.hold().flush_port_segment(port.index(), segment.index());
    }

    /// Where the station was last seen, if that was within the ageing time. Never waits.
    #[inline]
    #[must_use]
    pub fn lookup(&self, now: Instant, segment: Segment, mac: Mac) -> Option<PortId> {
        self.lookup_at(&self.moment(now), segment, &self.spot(segment, mac))
    }

    /// Notes that `mac` was seen as a source in `segment` on `port`. A station that is known there is
    /// refreshed, at most once a second, without waiting; for a new one or one that moved the lock is
    /// tried, and when somebody else has it the answer is [`Refused::Busy`].
    #[inline]
    pub fn learn(&self, now: Instant, segment: Segment, mac: Mac, port: PortId) -> Learned {
        self.learn_at(&self.moment(now), segment, &self.spot(segment, mac), port)
    }

    /// What [`Self::learn`] would answer, were nobody else at work; changes nothing.
    #[must_use]
    pub fn would_learn(&self, now: Instant, segment: Segment, mac: Mac, port: PortId) -> Learned {
        let own = port.index();
        if mac.is_group() || mac.is_zero() || !self.is_bound(own) {
            return Learned::Refused(Refused::Invalid);
        }
        let tick = tick_of(now);
        let hit = self.find(&self.moment(now), segment, mac);
        match hit {
            Some(hit) if hit.port == port.get() => return Learned::Same,
            Some(hit) if hit.value.is_static() => return Learned::Refused(Refused::Static),
            _ => {}
        }
        let bridge = bridge_of_segment(segment.index());
        let has_room = || self.bridge_has_room(bridge, own) && self.would_have_room(tick, own);
        let room = self.quota_of(own) > 0 && (hit.is_some() || has_room());
        match hit.and_then(|hit| PortId::new(hit.port)) {
            _ if !room => Learned::Refused(Refused::Full),
            Some(from) => Learned::Moved { from },
            None => Learned::New,
        }
    }

    /// Sets an entry that neither ages nor moves, in place of whatever was known of that station. When the
    /// table is full the port with the most entries gives one up, as of the latest sweep or change.
    ///
    /// # Errors
    /// [`AddError`]: the table is full of static entries, or the address or port cannot have one.
    pub fn add_static(&self, segment: Segment, mac: Mac, port: PortId) -> Result<(), AddError> {
        if mac.is_group() || mac.is_zero() {
            return Err(AddError::Invalid);
        }
        self.hold().add_static(segment.index(), mac.as_u64(), port.index())
    }

    /// Takes an entry out, learned or static; `false` when there is none, or none that has not aged out.
    pub fn remove(&self, now: Instant, segment: Segment, mac: Mac) -> bool {
        self.hold().remove(tick_of(now), segment.index(), mac.as_u64())
    }

    /// Puts a listed entry of another table into this one, age and all. `false` when it is not taken: it
    /// has aged out, the station is known here already, its port is not bound or has its share, or the
    /// table is full; nothing is given up for it. Those of many that should be kept come first: so the
    /// youngest first, which also keeps their order.
    pub fn restore(&self, now: Instant, entry: Entry) -> bool {
        let (segment, mac, port) = (entry.segment, entry.mac, entry.port);
        if mac.is_group() || mac.is_zero() {
            return false;
        }
        match entry.state {
            EntryState::Static => self.hold().restore_static(segment.index(), mac.as_u64(), port.index()),
            EntryState::Learned => {
                self.hold().restore(now, entry.age, segment.index(), mac.as_u64(), port.index())
            }
        }
    }

    /// A piece of background work: goes over the next `buckets` buckets of four slots and clears what has
    /// aged out or was flushed. Does nothing when somebody else is changing the table. Call it regularly:
    /// an entry that no sweep has met for four years may count as young again.
    pub fn sweep(&self, now: Instant, buckets: usize) {
        if let Some(held) = self.try_hold() {
            held.sweep(now, buckets);
        }
    }

    /// The entries of `port`, static ones included; those that have aged out count until they are swept.
    #[must_use]
    pub fn entries_of(&self, port: PortId) -> u32 {
        self.weight(port.index())
    }

    #[inline]
    fn port_behind(&self, value: Value) -> u32 {
        self.port_of.get(value.handle() as usize).map_or(0, |port| port.load(Ordering::Acquire))
    }

    /// Whether an entry in `bridge` has aged out.
    #[inline]
    fn has_aged(&self, bridge: usize, value: Value, tick: u32) -> bool {
        value.age(tick) >= self.ageing_of(bridge) && !value.is_static()
    }

    /// How long an entry in `bridge` lives, in seconds.
    fn ageing_of(&self, bridge: usize) -> u32 {
        self.bridges.ageing(bridge, self.ageing.load(Ordering::Relaxed))
    }

    fn is_bound(&self, port: usize) -> bool {
        self.handle_of(port) != 0
    }

    fn handle_of(&self, port: usize) -> u32 {
        self.learned.get(port).map_or(0, |handle| handle.load(Ordering::Relaxed))
    }

    fn quota_of(&self, port: usize) -> u32 {
        self.quota.get(port).map_or(0, |quota| quota.load(Ordering::Relaxed))
    }

    fn learned_by(&self, port: usize) -> u32 {
        self.held_by[self.handle_of(port) as usize].load(Ordering::Relaxed)
    }

    /// All entries of `port`. Handle 0 holds nothing.
    fn weight(&self, port: usize) -> u32 {
        let statics = self.statics.get(port).map_or(0, |handle| handle.load(Ordering::Relaxed));
        self.learned_by(port) + self.held_by[statics as usize].load(Ordering::Relaxed)
    }

    /// The heaviest port that has something to give up, and its weight.
    fn heaviest(&self) -> Option<(usize, u32)> {
        self.ranks.top(0).filter(|(port, _)| self.learned_by(*port) > 0).or_else(|| self.givers.top(0))
    }

    /// The bridge for which a new entry of `port` in `bridge` counts.
    fn bridge_for(&self, bridge: usize, port: usize) -> usize {
        if self.weight(port) > 0 { self.bridges.of_port(port) } else { bridge }
    }

    /// Whether the limit of the bridge leaves room for one more entry of `port`, or what was learned there can go.
    fn bridge_has_room(&self, bridge: usize, port: usize) -> bool {
        let bridge = self.bridge_for(bridge, port);
        self.bridges.len(bridge) < self.bridges.limit(bridge) || self.bridges.givers.top(bridge).is_some()
    }

    /// Which port gives up an entry for a new one of `port` when the table is full: the heaviest, unless
    /// this one, with nothing to give but static entries, has more.
    fn giver(&self, port: usize) -> Option<usize> {
        self.heaviest().filter(|(_, weight)| *weight >= self.weight(port)).map(|(top, _)| top)
    }

    /// Whether one more entry of `port` would find room. A small table is rid of what aged out before
    /// anything is given up, so only what is alive counts there.
    fn would_have_room(&self, tick: u32, port: usize) -> bool {
        if self.learned_by(port) > 0 || self.len() < self.limit || !self.order.is_exact() {
            return self.len() < self.limit || self.giver(port).is_some();
        }
        // By port: what it has, and how much of that could be given up.
        let mut alive = BTreeMap::new();
        for slot in 0..self.slots.count() {
            let value = self.slots.value(slot);
            if !value.is_vacant() && !self.is_void(slot, tick) {
                let (all, learned) = alive.entry(self.port_behind(value)).or_insert((0, 0));
                *all += 1;
                *learned += u32::from(!value.is_static());
            }
        }
        let own = alive.iter().find(|(of, _)| **of as usize == port + 1).map_or(0, |(_, (all, _))| *all);
        alive.values().map(|(all, _)| *all).sum::<u32>() < self.limit
            || alive.values().any(|(all, learned)| *all >= own && *learned > 0)
    }

    /// Whether an entry is of no use: its handle or index is struck out, or it has aged out.
    fn is_void(&self, slot: u32, tick: u32) -> bool {
        let (key, value) = (self.slots.key(slot), self.slots.value(slot));
        self.port_behind(value) == 0
            || self.segment_of[index_in(key)].load(Ordering::Relaxed) == 0
            || self.has_aged(bridge_of(&self.segment_of, key), value, tick)
    }

    fn try_hold(&self) -> Option<Holder<'_>> {
        let free =
            self.books.0.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        free.then(|| Holder { table: self })
    }

    fn hold(&self) -> Holder<'_> {
        loop {
            if let Some(held) = self.try_hold() {
                return held;
            }
            sync::spin_loop();
        }
    }
}

impl fmt::Debug for MacTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MacTable")
            .field("limit", &self.limit)
            .field("len", &self.len())
            .field("ageing", &self.ageing())
            .finish_non_exhaustive()
    }
}

/// The address in a key.
const MAC: u64 = (1 << 48) - 1;

#[inline]
fn key_of(index: u32, mac: u64) -> u64 {
    u64::from(index) << 48 | mac
}

fn index_in(key: u64) -> usize {
    usize::try_from(key >> 48).unwrap_or(0)
}

/// An ageing time that a table can have, in seconds.
fn seconds_of(ageing: Duration) -> u32 {
    u32::try_from(ageing.as_secs()).unwrap_or(u32::MAX).clamp(10, 1_000_000)
}

#[inline]
fn tick_of(now: Instant) -> u32 {
    low(now.as_secs()) & (TICKS - 1)
}

#[cfg(test)]
mod tests;
