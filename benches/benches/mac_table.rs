//! The MAC table beside what else could be used: dashmap with its own hasher and with foldhash, and hashbrown with
//! foldhash, behind a lock and alone. The time is that of one lookup, refresh, insertion or move.
//!
//! Everybody does the same work: an entry has a port and the second it was seen, a lookup asks for its age, a
//! refresh writes once a second. What the others do not have is a limit, a limit per port, and a flush that does not
//! walk. At the end the tables race, lap by lap, on what a frame needs (learn the source, look the destination up),
//! with one thread and with two.

use criterion::{BenchmarkId, Criterion};
use dashmap::DashMap;
use foldhash::fast::RandomState as Fold;
use hashbrown::HashMap;
use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::RwLock;
use std::time::Duration;
use vswitch_benches::{
    Dice, NOW, Runner, abreast, criterion, each, port, race, segment, share, station, timed,
};
use vswitch_core::{Mac, MacTable};

const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
const PORTS: u64 = 16;
const SECOND: u32 = 1000;
const AGEING: u32 = 300;

/// A table as a switch uses it.
trait Table {
    fn new(stations: u64) -> Self;
    fn learn(&self, mac: Mac, port: u32);
    fn lookup(&self, mac: Mac) -> Option<u32>;
}

impl Table for MacTable {
    fn new(stations: u64) -> Self {
        let limit = u32::try_from(stations).unwrap_or(u32::MAX);
        let table = Self::new(limit, Duration::from_secs(AGEING.into()), [3, 4]);
        (0..=PORTS).for_each(|n| table.bind(port(n), None));
        table
    }

    fn learn(&self, mac: Mac, to: u32) {
        Self::learn(self, NOW, segment(), mac, port(to.into()));
    }

    fn lookup(&self, mac: Mac) -> Option<u32> {
        Self::lookup(self, NOW, segment(), mac).map(vswitch_core::PortId::get)
    }
}

/// Segment and address in one word.
fn key(mac: Mac) -> u64 {
    (segment().index() as u64) << 48 | mac.as_u64()
}

fn young(seen: u32) -> bool {
    SECOND - black_box(seen) < AGEING
}

/// Port, and the second it was seen.
type Entry = (u32, u32);

impl<S: BuildHasher + Clone + Default> Table for DashMap<u64, Entry, S> {
    fn new(stations: u64) -> Self {
        Self::with_capacity_and_hasher(usize::try_from(stations).unwrap_or(0), S::default())
    }

    fn learn(&self, mac: Mac, port: u32) {
        if self.get(&key(mac)).is_none_or(|entry| *entry != (port, SECOND)) {
            self.insert(key(mac), (port, SECOND));
        }
    }

    fn lookup(&self, mac: Mac) -> Option<u32> {
        self.get(&key(mac)).and_then(|entry| young(entry.1).then_some(entry.0))
    }
}

/// hashbrown behind a lock.
struct Locked(RwLock<HashMap<u64, Entry, Fold>>);

impl Table for Locked {
    fn new(stations: u64) -> Self {
        Self(RwLock::new(HashMap::with_capacity_and_hasher(
            usize::try_from(stations).unwrap_or(0),
            Fold::default(),
        )))
    }

    fn learn(&self, mac: Mac, port: u32) {
        let known = self.0.read().expect("no thread panics").get(&key(mac)) == Some(&(port, SECOND));
        if !known {
            self.0.write().expect("no thread panics").insert(key(mac), (port, SECOND));
        }
    }

    fn lookup(&self, mac: Mac) -> Option<u32> {
        let map = self.0.read().expect("no thread panics");
        map.get(&key(mac)).and_then(|entry| young(entry.1).then_some(entry.0))
    }
}

/// hashbrown for one thread.
struct Alone(RefCell<HashMap<u64, Entry, Fold>>);

impl Table for Alone {
    fn new(stations: u64) -> Self {
        Self(RefCell::new(HashMap::with_capacity_and_hasher(
            usize::try_from(stations).unwrap_or(0),
            Fold::default(),
        )))
    }

    fn learn(&self, mac: Mac, port: u32) {
        let mut map = self.0.borrow_mut();
        if map.get(&key(mac)) != Some(&(port, SECOND)) {
            map.insert(key(mac), (port, SECOND));
        }
    }

    fn lookup(&self, mac: Mac) -> Option<u32> {
        self.0.borrow().get(&key(mac)).and_then(|entry| young(entry.1).then_some(entry.0))
    }
}

fn home(n: u64) -> u32 {
    port(1 + n % PORTS).get()
}

fn filled<T: Table>(stations: u64) -> T {
    let table = T::new(stations);
    (0..stations).for_each(|n| table.learn(station(n), home(n)));
    table
}

/// Stations of `0..stations` in random order, often enough to touch all of a large table.
fn drawn(stations: u64, seed: u64) -> Vec<(Mac, u32)> {
    let mut dice = Dice::new(seed);
    let count = stations.clamp(1 << 16, 1 << 19);
    (0..count).map(|_| dice.below(stations)).map(|n| (station(n), home(n))).collect()
}

/// Endless slices of 32.
struct Turns<'a> {
    drawn: &'a [(Mac, u32)],
    at: usize,
}

impl<'a> Turns<'a> {
    fn next(&mut self) -> &'a [(Mac, u32)] {
        if self.at + 32 > self.drawn.len() {
            self.at = 0;
        }
        self.at += 32;
        &self.drawn[self.at - 32..self.at]
    }
}

fn one<T: Table>(criterion: &mut Criterion, name: &str, stations: u64) {
    let id = |what: &str| BenchmarkId::new(format!("{what}, {stations}"), name);
    let known = drawn(stations, 5);
    let strangers: Vec<_> =
        known.iter().map(|(mac, port)| (Mac::from_u64(mac.as_u64() ^ 1 << 40), *port)).collect();
    let table: T = filled(stations);
    let mut group = criterion.benchmark_group("one thread");
    for (what, drawn) in [("hit", &known), ("miss", &strangers)] {
        let mut turns = Turns { drawn, at: 0 };
        group.bench_function(id(what), |b| {
            each(b, 32, || {
                for (mac, _) in turns.next() {
                    black_box(table.lookup(*mac));
                }
            });
        });
    }
    let mut turns = Turns { drawn: &known, at: 0 };
    group.bench_function(id("refresh"), |b| {
        each(b, 32, || turns.next().iter().for_each(|(mac, port)| table.learn(*mac, *port)));
    });
    // Each time round the stations are on another port.
    let (mut turns, mut by) = (Turns { drawn: &known, at: 0 }, 1);
    group.bench_function(id("move"), |b| {
        each(b, 32, || {
            if turns.at == 0 || turns.at + 32 > known.len() {
                by = by % 7 + 1;
            }
            for (mac, port) in turns.next() {
                table.learn(*mac, (port + by) % u32::try_from(PORTS).unwrap_or(1) + 1);
            }
        });
    });
    drop(table);
    group.sample_size(10);
    group.bench_function(id("learn"), |b| {
        b.iter_custom(|things| {
            let (mut took, mut done) = (Duration::ZERO, 0);
            while done < things {
                let table = T::new(stations);
                took += timed(|| (0..stations).for_each(|n| table.learn(station(n), home(n))));
                done += stations;
            }
            share(took, things, done)
        });
    });
    group.finish();
}

/// One lap of `threads` threads: each learns sources and looks destinations up, and where stations move every 200th
/// source has moved, and moves back when it speaks again: one frame in a hundred moves a station. Nanoseconds a frame,
/// of all threads together.
fn lap<T: Table + Sync>(table: &T, threads: usize, moves: bool, plans: &[Vec<(Mac, u32)>]) -> f64 {
    let work = |thread: usize| {
        let (mut from, mut to) =
            (Turns { drawn: &plans[thread * 2], at: 0 }, Turns { drawn: &plans[thread * 2 + 1], at: 0 });
        let (mut left, mut by) = (200, 0);
        move || {
            for ((src, port), (dst, _)) in from.next().iter().zip(to.next()) {
                let mut port = *port;
                if moves {
                    left -= 1;
                    if left == 0 {
                        (left, by) = (200, by % 7 + 1);
                        port = (port + by) % u32::try_from(PORTS).unwrap_or(1) + 1;
                    }
                }
                table.learn(*src, port);
                black_box(table.lookup(*dst));
            }
        }
    };
    abreast((0..threads).map(work).collect(), 32)
}

fn race_all(threads: usize, stations: u64, moves: bool, laps: usize) {
    let plans: Vec<_> = (0..4).map(|seed| drawn(stations, 11 + seed)).collect();
    let ours: MacTable = filled(stations);
    let default: DashMap<u64, Entry, RandomState> = filled(stations);
    let folded: DashMap<u64, Entry, Fold> = filled(stations);
    let locked: Locked = filled(stations);
    let mut runners: Vec<Runner<'_>> = vec![
        ("MacTable", Box::new(|| lap(&ours, threads, moves, &plans))),
        ("dashmap", Box::new(|| lap(&default, threads, moves, &plans))),
        ("dashmap, foldhash", Box::new(|| lap(&folded, threads, moves, &plans))),
        ("RwLock<hashbrown>, foldhash", Box::new(|| lap(&locked, threads, moves, &plans))),
    ];
    let moves = if moves { ", 1 % moves" } else { "" };
    race(&format!("learn and look up, {threads} thread(s), {stations} stations{moves}"), laps, &mut runners);
}

fn main() {
    let mut criterion = criterion();
    for stations in SIZES {
        one::<MacTable>(&mut criterion, "MacTable", stations);
        one::<DashMap<u64, Entry, RandomState>>(&mut criterion, "dashmap", stations);
        one::<DashMap<u64, Entry, Fold>>(&mut criterion, "dashmap, foldhash", stations);
        one::<Locked>(&mut criterion, "RwLock<hashbrown>, foldhash", stations);
        one::<Alone>(&mut criterion, "hashbrown alone, foldhash", stations);
    }
    criterion.final_summary();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        race_all(2, 1_000, true, 1);
    } else if arguments.iter().all(|argument| argument.starts_with("--"))
        || arguments.iter().any(|a| a == "race")
    {
        for (threads, stations) in [(1, 10_000), (1, 100_000), (1, 1_000_000)] {
            race_all(threads, stations, false, 9);
        }
        race_all(2, 10_000, true, 9);
        for stations in SIZES {
            race_all(2, stations, false, 9);
        }
    }
}
