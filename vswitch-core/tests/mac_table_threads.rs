//! The MAC table under several threads at once.
//!
//! Not here: every interleaving, which loom tries on a tiny table (`mac_table_loom.rs`).
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "the numbers of a test are small, and its panics are failures"
)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use vswitch_core::mac_table::{Learned, MacTable, Refused};
use vswitch_core::{Instant, Mac, PortId, Segment, Vlan};

fn port(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn segment(number: u16) -> Segment {
    Segment::new(0, Vlan::new(number).unwrap()).unwrap()
}

/// A station that never moves: its port is in its address.
fn fixed(number: u64) -> (Mac, PortId) {
    (Mac::from_u64(0x0200_0000_0000 | number), port(1 + (number % 7) as u32))
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 11
}

fn counts_agree(table: &MacTable, now: Instant) {
    table.sweep(now, usize::MAX);
    let mut by_port = [0; 12];
    let mut all = 0;
    table.for_each(now, |entry| {
        by_port[entry.port.index()] += 1;
        all += 1;
        assert_eq!(table.lookup(now, entry.segment, entry.mac), Some(entry.port));
    });
    assert_eq!(table.len(), all);
    for (number, count) in (0..).zip(by_port) {
        assert_eq!(table.entries_of(port(number)), count, "port {number}");
    }
}

/// Learners, readers and a control thread at work together: a station that never moved is reported on its
/// own port or not at all, whatever is flushed, evicted, displaced or reused meanwhile.
#[test]
fn no_station_is_ever_seen_on_a_port_it_was_never_on() {
    // Small: everything happens all the time. Larger: the coarse order.
    for (limit, stations, steps) in [(16, 40_u64, 150_000_u64), (1_500, 2_500, 150_000)] {
        let table = MacTable::new(limit, Duration::from_secs(10), [3, 5]);
        (1..=7).for_each(|number| table.bind(port(number), (number == 3).then_some(4)));
        let done = AtomicBool::new(false);
        let second = AtomicU64::new(0);
        let (hits, busy) = (AtomicU64::new(0), AtomicU64::new(0));
        let now = || Instant::from_secs(second.load(Ordering::Relaxed));
        std::thread::scope(|scope| {
            let learners: Vec<_> = (0..3_u64)
                .map(|worker| {
                    let (table, hits, busy, now) = (&table, &hits, &busy, &now);
                    scope.spawn(move || {
                        let mut dice = 0x1234_5678 + worker;
                        for _ in 0..steps {
                            let (mac, home) = fixed(next(&mut dice) % stations);
                            let vlan = segment((next(&mut dice) % 2) as u16);
                            match table.learn(now(), vlan, mac, home) {
                                Learned::Moved { from } => panic!("{mac} moved from {from} to {home}"),
                                Learned::Refused(Refused::Busy) => drop(busy.fetch_add(1, Ordering::Relaxed)),
                                _ => {}
                            }
                            let (mac, home) = fixed(next(&mut dice) % stations);
                            if let Some(found) = table.lookup(now(), vlan, mac) {
                                assert_eq!(found, home, "{mac}");
                                hits.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    })
                })
                .collect();
            let (table, done, now, second) = (&table, &done, &now, &second);
            scope.spawn(move || {
                let mut dice = 99;
                while !done.load(Ordering::Relaxed) {
                    let number = 1 + (next(&mut dice) % 7) as u32;
                    match next(&mut dice) % 8 {
                        0 => table.flush_port(port(number)),
                        1 => table.flush_segment(segment((number % 2) as u16)),
                        2 => {
                            table.forget_port(port(number));
                            table.bind(port(number), (number == 3).then_some(4));
                        }
                        3 => table.sweep(now(), usize::MAX),
                        4 => {
                            let (mac, home) = fixed(u64::from(number));
                            let _ = table.add_static(segment(0), mac, home);
                        }
                        5 => drop(table.remove(now(), segment(0), fixed(u64::from(number)).0)),
                        6 => table.for_each(now(), |entry| {
                            assert_eq!(fixed(entry.mac.as_u64() & 0xffff).1, entry.port);
                        }),
                        _ => drop(second.fetch_add(1, Ordering::Relaxed)),
                    }
                    std::thread::yield_now();
                }
            });
            learners.into_iter().for_each(|learner| learner.join().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        counts_agree(&table, now());
        println!("limit {limit}: hits {hits:?}, busy {busy:?}, flush rounds to second {second:?}");
        assert!(hits.load(Ordering::Relaxed) > 1_000);
    }
}

/// While newcomers are inserted, displaced and evicted around it, a station that is not evicted is found by
/// every lookup.
#[test]
fn a_lookup_never_misses_a_station_that_is_there() {
    let table = MacTable::new(64, Duration::from_secs(300), [11, 13]);
    (1..=3).for_each(|number| table.bind(port(number), (number == 2).then_some(54)));
    for number in 0..10 {
        table.add_static(segment(1), fixed(number).0, port(1)).unwrap();
    }
    let now = Instant::from_secs(1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut lookups = 0_u64;
            while !done.load(Ordering::Relaxed) {
                for number in 0..10 {
                    assert_eq!(table.lookup(now, segment(1), fixed(number).0), Some(port(1)));
                    lookups += 1;
                }
            }
            lookups
        });
        for number in 100..400_000 {
            assert_eq!(table.learn(now, segment(1), fixed(number).0, port(2)), Learned::New);
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    counts_agree(&table, now);
}

/// Two workers hear the same stations on two ports: each answer is one of the two, and the counts add up.
#[test]
fn stations_that_move_to_and_fro_are_on_one_of_their_ports() {
    let table = MacTable::new(5_000, Duration::from_secs(300), [17, 19]);
    (8..=9).for_each(|number| table.bind(port(number), None));
    let now = Instant::from_secs(1);
    std::thread::scope(|scope| {
        for own in [8, 9] {
            let table = &table;
            scope.spawn(move || {
                for round in 0..400_000_u64 {
                    let mac = fixed(round % 50).0;
                    match table.learn(now, segment(1), mac, port(own)) {
                        Learned::Moved { from } => assert_eq!(from, port(17 - own)),
                        Learned::New | Learned::Same | Learned::Refused(Refused::Busy) => {}
                        other => panic!("{other:?}"),
                    }
                    assert!(table.lookup(now, segment(1), mac).is_none_or(|on| on.get() / 2 == 4));
                }
            });
        }
    });
    counts_agree(&table, now);
    assert_eq!(table.len(), 50);
}
