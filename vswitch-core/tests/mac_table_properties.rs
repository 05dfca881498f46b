//! The MAC table against a naive one, over random sequences of calls.
//!
//! The naive table is a list, the one seen longest ago first, and two heaps of ports: every rule of the house
//! about learning, ageing, limits and fairness, written as a search through all entries. Not here: threads.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "the numbers of a test are small, and its panics are failures"
)]

use core::time::Duration;
use std::collections::BTreeMap;
use vswitch_core::mac_table::{Entry, EntryState, Learned, MacTable, Refused};
use vswitch_core::{Instant, Mac, PortId, Segment, Vlan};

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

#[derive(Clone, Copy, PartialEq)]
struct Known {
    key: (u16, u64),
    port: u32,
    fixed: bool,
    /// The second it was seen in.
    seen: u64,
}

/// Ports by weight, a heavier one nearer to the front: entry `i` stands above entries `2i+1` and `2i+2`.
#[derive(Default)]
struct Heap(Vec<(u32, usize)>);

impl Heap {
    /// Gives `port` this weight; without one it leaves and the last takes its place.
    fn weigh(&mut self, port: u32, weight: usize) {
        let known = self.0.iter().position(|entry| entry.0 == port);
        let mut at = known.unwrap_or_else(|| {
            self.0.push((port, 0));
            self.0.len() - 1
        });
        self.0[at].1 = weight;
        if weight == 0 {
            self.0.swap_remove(at);
        }
        let weight_at = |heap: &Self, at: usize| heap.0.get(at).map_or(0, |entry| entry.1);
        while at > 0 && weight_at(self, at) > weight_at(self, (at - 1) / 2) {
            self.0.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        loop {
            let [left, right] = [at * 2 + 1, at * 2 + 2];
            let child = if weight_at(self, right) > weight_at(self, left) { right } else { left };
            if weight_at(self, child) <= weight_at(self, at) {
                return;
            }
            self.0.swap(at, child);
            at = child;
        }
    }

    fn top(&self) -> Option<u32> {
        self.0.first().map(|entry| entry.0)
    }
}

struct Naive {
    limit: usize,
    ageing: u64,
    now: u64,
    /// The one seen longest ago first.
    entries: Vec<Known>,
    quotas: BTreeMap<u32, usize>,
    /// Ports with entries, and those with learned ones.
    heap: Heap,
    givers: Heap,
}

impl Naive {
    fn new(limit: usize, ageing: u64) -> Self {
        let (entries, quotas) = (Vec::new(), BTreeMap::new());
        Self { limit, ageing, now: 0, entries, quotas, heap: Heap::default(), givers: Heap::default() }
    }

    fn find(&self, key: (u16, u64)) -> Option<Known> {
        self.entries.iter().find(|known| known.key == key).copied()
    }

    /// Takes out those that `which` picks, one after another.
    fn take_out(&mut self, which: impl Fn(&Known) -> bool) {
        while let Some(at) = self.entries.iter().position(&which) {
            let known = self.entries.remove(at);
            self.weigh(known.port);
        }
    }

    fn put(&mut self, known: Known) {
        self.entries.push(known);
        self.weigh(known.port);
    }

    fn advance(&mut self, by: u64) {
        self.now += by;
        let (now, ageing) = (self.now, self.ageing);
        self.take_out(|known| !known.fixed && now - known.seen >= ageing);
    }

    fn learned(&self, port: u32) -> usize {
        self.entries.iter().filter(|known| known.port == port && !known.fixed).count()
    }

    fn weight(&self, port: u32) -> usize {
        self.entries.iter().filter(|known| known.port == port).count()
    }

    fn weigh(&mut self, port: u32) {
        let weight = self.weight(port);
        self.heap.weigh(port, weight);
        self.givers.weigh(port, if self.learned(port) > 0 { weight } else { 0 });
    }

    /// The heaviest port that has something to give.
    fn heaviest(&self) -> Option<u32> {
        self.heap.top().filter(|port| self.learned(*port) > 0).or_else(|| self.givers.top())
    }

    fn give_up(&mut self, port: u32) {
        let oldest = self.entries.iter().find(|known| known.port == port && !known.fixed).unwrap().key;
        self.take_out(|known| known.key == oldest);
    }

    fn learn(&mut self, key: (u16, u64), port: u32) -> Learned {
        let Some(quota) = self.quotas.get(&port).copied() else { return Learned::Refused(Refused::Invalid) };
        let seen = self.now;
        let before = self.find(key);
        let answer = match before {
            Some(known) if known.port == port => {
                if !known.fixed && known.seen < seen {
                    self.entries.retain(|known| known.key != key);
                    self.entries.push(Known { seen, ..known });
                }
                return Learned::Same;
            }
            Some(known) if known.fixed => return Learned::Refused(Refused::Static),
            _ if quota == 0 => return Learned::Refused(Refused::Full),
            Some(known) => Learned::Moved { from: PortId::new(known.port).unwrap() },
            None => Learned::New,
        };
        while self.learned(port) >= quota {
            self.give_up(port);
        }
        if before.is_none() && self.entries.len() >= self.limit {
            match self.heaviest() {
                Some(top) if self.weight(top) >= self.weight(port) => self.give_up(top),
                _ => return Learned::Refused(Refused::Full),
            }
        }
        self.take_out(|known| known.key == key);
        self.put(Known { key, port, fixed: false, seen });
        answer
    }

    fn add(&mut self, key: (u16, u64), port: u32) -> bool {
        if !self.quotas.contains_key(&port) {
            return false;
        }
        if self.find(key).is_none() && self.entries.len() >= self.limit {
            match self.heaviest() {
                Some(top) => self.give_up(top),
                None => return false,
            }
        }
        self.take_out(|known| known.key == key);
        self.put(Known { key, port, fixed: true, seen: self.now });
        true
    }

    fn bind(&mut self, port: u32, quota: Option<usize>) {
        let quota = quota.unwrap_or(usize::MAX);
        self.quotas.insert(port, quota);
        while self.learned(port) > quota {
            self.give_up(port);
        }
    }

    fn listed(&self) -> Vec<Entry> {
        let entry = |known: &Known| Entry {
            segment: segment(known.key.0),
            mac: mac(known.key.1),
            port: port(known.port),
            age: Duration::from_secs(if known.fixed { 0 } else { self.now - known.seen }),
            state: if known.fixed { EntryState::Static } else { EntryState::Learned },
        };
        in_order(self.entries.iter().map(entry).collect())
    }
}

fn segment(number: u16) -> Segment {
    Segment::new((number % 16) as u8, Vlan::new(number).unwrap()).unwrap()
}

fn mac(number: u64) -> Mac {
    Mac::from_u64(0x0200_0000_0000 + number)
}

fn port(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn listed(table: &MacTable, now: Instant) -> Vec<Entry> {
    let mut entries = Vec::new();
    table.for_each(now, |entry| entries.push(entry));
    in_order(entries)
}

fn in_order(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by_key(|entry| (entry.segment.vlan().get(), entry.mac));
    entries
}

/// How many of everything a run has.
struct Size {
    limit: u32,
    stations: u64,
    segments: u64,
    ports: u64,
    quotas: bool,
    steps: usize,
}

fn run(seed: u64, size: &Size) {
    let mut dice = Dice(seed);
    let table = MacTable::new(size.limit, Duration::from_secs(30), [dice.roll(!0), dice.roll(!0)]);
    let mut naive = Naive::new(size.limit as usize, 30);
    for number in 1..size.ports as u32 {
        table.bind(port(number), None);
        naive.bind(number, None);
    }
    for step in 0..size.steps {
        let at = Instant::from_secs(naive.now);
        let key = (dice.roll(size.segments) as u16, dice.roll(size.stations));
        let on = dice.roll(size.ports) as u32;
        let (s, m, p) = (segment(key.0), mac(key.1), port(on));
        let what = format!("seed {seed} step {step}");
        match dice.roll(200) {
            0..5 => {
                // A static entry comes without a time: that of the last sweep is taken.
                table.sweep(at, 0);
                assert_eq!(table.add_static(s, m, p).is_ok(), naive.add(key, on), "{what}: add {key:?} {on}");
            }
            5..12 => {
                let there = naive.find(key).is_some();
                naive.take_out(|known| known.key == key);
                assert_eq!(table.remove(at, s, m), there, "{what}: remove {key:?}");
            }
            // Nor does a flush bring the time along.
            12..14 => {
                table.sweep(at, 0);
                table.flush_port(p);
                naive.take_out(|known| !known.fixed && known.port == on);
            }
            14..16 => {
                table.sweep(at, 0);
                table.flush_segment(s);
                naive.take_out(|known| !known.fixed && known.key.0 == key.0);
            }
            16..18 => {
                table.sweep(at, 0);
                table.flush_port_segment(p, s);
                naive.take_out(|known| !known.fixed && known.key.0 == key.0 && known.port == on);
            }
            18 => {
                table.sweep(at, 0);
                table.forget_port(p);
                naive.quotas.remove(&on);
                naive.take_out(|known| !known.fixed && known.port == on);
                naive.take_out(|known| known.port == on);
            }
            19..22 => {
                table.sweep(at, 0);
                let quota = (size.quotas && dice.roll(2) == 0).then(|| dice.roll(6) as usize);
                table.bind(p, quota.map(|quota| quota as u32));
                naive.bind(on, quota);
            }
            22..30 => naive.advance(1 + dice.roll(3)),
            30 => naive.advance(dice.roll(40)),
            31 if dice.roll(10) == 0 => {
                table.sweep(at, 0);
                table.flush();
                naive.take_out(|known| !known.fixed);
            }
            31..36 => table.sweep(at, dice.roll(9) as usize),
            36 => {
                table.sweep(at, usize::MAX);
                assert_eq!(table.len() as usize, naive.entries.len(), "{what}");
                for number in 0..size.ports as u32 {
                    assert_eq!(table.entries_of(port(number)) as usize, naive.weight(number), "{what}");
                }
            }
            37 => assert_eq!(listed(&table, at), naive.listed(), "{what}"),
            38..80 => {
                let there = naive.find(key).map(|known| port(known.port));
                assert_eq!(table.lookup(at, s, m), there, "{what}: lookup {key:?}");
            }
            _ => {
                let would = table.would_learn(at, s, m, p);
                let learned = naive.learn(key, on);
                assert_eq!(would, learned, "{what}: would learn {key:?} on {on}");
                assert_eq!(table.learn(at, s, m, p), learned, "{what}: learn {key:?} on {on}");
            }
        }
        assert!(table.len() <= size.limit, "{what}");
    }
    assert_eq!(listed(&table, Instant::from_secs(naive.now)), naive.listed(), "seed {seed}");
}

#[test]
fn a_small_table_does_what_a_naive_one_does_in_exact_order() {
    for seed in 0..150 {
        let size = Size { limit: 10, stations: 12, segments: 2, ports: 5, quotas: true, steps: 3_000 };
        run(seed, &size);
        let size =
            Size { limit: 40, stations: 30, segments: 3, ports: 7, quotas: seed % 2 == 0, steps: 3_000 };
        run(seed, &size);
    }
}

#[test]
fn a_table_of_1024_entries_still_has_the_exact_order() {
    for seed in 0..4 {
        let size = Size { limit: 1024, stations: 900, segments: 2, ports: 6, quotas: false, steps: 20_000 };
        run(seed, &size);
    }
}

#[test]
fn a_large_table_that_is_not_full_does_what_a_naive_one_does() {
    for seed in 0..20 {
        let size = Size { limit: 5_000, stations: 200, segments: 5, ports: 9, quotas: false, steps: 10_000 };
        run(seed, &size);
    }
}

#[test]
fn a_full_large_table_keeps_to_every_limit_and_takes_from_nobody_who_has_less() {
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let table = MacTable::new(2_000, Duration::from_secs(300), [dice.roll(!0), dice.roll(!0)]);
        (1..=8).for_each(|number| table.bind(port(number), (number == 8).then_some(50)));
        for number in 0..20 {
            table.add_static(segment(9), mac(number), port(7)).unwrap();
        }
        let mut counts = [0; 9];
        for step in 0..60_000 {
            // Low ports bring more stations than high ones.
            let on = 1 + (dice.roll(8) * dice.roll(8) / 8) as u32;
            let on = if step % 16 == 0 { 8 } else { on };
            let m = mac(dice.roll(3_000) << 8 | u64::from(on));
            let at = Instant::from_secs(step / 500);
            let answer = table.learn(at, segment(1), m, port(on));
            assert!(matches!(answer, Learned::New | Learned::Same), "{answer:?}");
            assert_eq!(table.lookup(at, segment(1), m), Some(port(on)));
            let before = counts;
            for number in (1..=8).filter(|number| *number != on as usize) {
                counts[number] = table.entries_of(port(number as u32));
                let gave = counts[number] < before[number];
                assert!(!gave || before[number] >= before[on as usize], "{number} gave to {on}");
            }
            counts[on as usize] = table.entries_of(port(on));
            assert!(table.len() <= 2_000 && counts[8] <= 50);
        }
        assert_eq!((table.len(), counts[8]), (2_000, 50));
        let now = Instant::from_secs(60_000 / 500);
        assert!((0..20).all(|number| table.lookup(now, segment(9), mac(number)) == Some(port(7))));
    }
}
