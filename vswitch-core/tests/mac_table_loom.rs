//! The MAC table's concurrent protocol under loom, which tries the interleavings and the weak orderings
//! that a machine may never show:
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p vswitch-core --test mac_table_loom --release`
//!
//! Two threads on a table of two buckets of four slots. Not here: anything that one thread can show.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a panic of a test is a failure")]

use core::time::Duration;
use loom::sync::Arc;
use loom::thread;
use vswitch_core::mac_table::{Learned, MacTable, Refused};
use vswitch_core::{Instant, Mac, PortId, Segment, Vlan};

const AGEING: Duration = Duration::from_secs(300);

/// Tries every interleaving.
fn explore(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = None;
    model.max_branches = 20_000;
    model.check(body);
}

fn table(limit: u32) -> Arc<MacTable> {
    let table = MacTable::tiny(limit, AGEING, [1, 2]);
    table.bind(port(1), None);
    table.bind(port(2), None);
    Arc::new(table)
}

fn port(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn segment(number: u16) -> Segment {
    Segment::new(0, Vlan::new(number).unwrap()).unwrap()
}

fn mac(number: u64) -> Mac {
    Mac::from_u64(0x0200_0000_0000 | number)
}

const S: u16 = 1;
fn at(seconds: u64) -> Instant {
    Instant::from_secs(seconds)
}

#[test]
fn a_reader_never_takes_the_port_of_a_slots_next_tenant() {
    explore(|| {
        // One entry at most: the newcomer gets the old one's slot.
        let table = table(1);
        table.learn(at(1), segment(S), mac(1), port(1));
        let reader = {
            let table = table.clone();
            thread::spawn(move || table.lookup(at(1), segment(S), mac(1)))
        };
        assert_eq!(table.learn(at(1), segment(S), mac(2), port(2)), Learned::New);
        let seen = reader.join().unwrap();
        assert!(seen.is_none() || seen == Some(port(1)), "{seen:?}");
        assert_eq!(table.lookup(at(1), segment(S), mac(1)), None);
        assert_eq!(table.lookup(at(1), segment(S), mac(2)), Some(port(2)));
    });
}

#[test]
fn a_refresh_never_lands_on_a_slots_next_tenant() {
    explore(|| {
        let table = table(1);
        table.learn(at(1), segment(S), mac(1), port(1));
        let worker = {
            let table = table.clone();
            thread::spawn(move || table.learn(at(200), segment(S), mac(1), port(1)))
        };
        let learned = table.learn(at(1), segment(S), mac(2), port(1));
        let refreshed = worker.join().unwrap();
        // The newcomer's word is the old one's but for the version. It was seen at 1 and never again: it is
        // gone at 301, whatever was refreshed.
        let newcomer = table.lookup(at(301), segment(S), mac(2));
        assert_eq!(newcomer, None, "{learned:?} {refreshed:?}");
        assert!(table.len() <= 1);
        let busy = Learned::Refused(Refused::Busy);
        assert!(learned == Learned::New || learned == busy);
        assert!(refreshed == Learned::Same || refreshed == Learned::New || refreshed == busy);
    });
}

#[test]
fn a_lookup_never_misses_a_station_that_is_being_displaced() {
    for already in [false, true] {
        explore(move || {
            let table = table(8);
            table.learn(at(1), segment(S), mac(1), port(1));
            if already {
                assert!(table.displace(segment(S), mac(1)));
            }
            let reader = {
                let table = table.clone();
                thread::spawn(move || table.lookup(at(1), segment(S), mac(1)))
            };
            assert!(table.displace(segment(S), mac(1)));
            assert_eq!(reader.join().unwrap(), Some(port(1)));
            assert_eq!(table.lookup(at(1), segment(S), mac(1)), Some(port(1)));
        });
    }
}

#[test]
fn a_flushed_port_has_no_entry_but_those_learned_since() {
    explore(|| {
        let table = table(4);
        table.learn(at(1), segment(S), mac(1), port(1));
        let worker = {
            let table = table.clone();
            thread::spawn(move || {
                let refreshed = table.learn(at(2), segment(S), mac(1), port(1));
                let learned = table.learn(at(2), segment(S), mac(2), port(1));
                (refreshed, learned, table.lookup(at(2), segment(S), mac(1)))
            })
        };
        table.flush_port(port(1));
        let after = table.lookup(at(2), segment(S), mac(1));
        let (refreshed, learned, _) = worker.join().unwrap();
        assert!(matches!(refreshed, Learned::Same | Learned::New | Learned::Refused(Refused::Busy)));
        // Only a newcomer's entry may be there after the flush; a refresh does not bring an old one back.
        let last = table.lookup(at(2), segment(S), mac(1));
        if refreshed != Learned::New {
            assert_eq!((after, last), (None, None), "{refreshed:?}");
        } else {
            assert_eq!(last, Some(port(1)));
        }
        let mut entries = 0;
        table.for_each(at(2), |_| entries += 1);
        assert_eq!(table.len(), entries, "{refreshed:?} {learned:?}");
    });
}

#[test]
fn a_handle_that_comes_back_never_lends_its_port_to_an_old_entry() {
    explore(|| {
        let table = table(4);
        // All eight handles have been used: the next one given out is the one struck out first.
        for _ in 0..6 {
            table.forget_port(port(3));
            table.bind(port(3), None);
        }
        table.learn(at(1), segment(S), mac(1), port(1));
        let reader = {
            let table = table.clone();
            thread::spawn(move || table.lookup(at(1), segment(S), mac(1)))
        };
        table.forget_port(port(1));
        // Around the queue until port 2 has the handle that port 1 had; then the station comes back elsewhere,
        // to the slot it had before.
        for _ in 0..6 {
            table.forget_port(port(2));
            table.sweep(at(1), usize::MAX);
            table.bind(port(2), None);
        }
        assert_eq!(table.learn(at(1), segment(S), mac(1), port(3)), Learned::New);
        let seen = reader.join().unwrap();
        assert_ne!(seen, Some(port(2)), "where it never was");
    });
}

#[test]
fn an_index_that_comes_back_never_shows_another_segments_station() {
    explore(|| {
        let table = table(4);
        table.learn(at(1), segment(S), mac(1), port(1));
        let reader = {
            let table = table.clone();
            thread::spawn(move || table.lookup(at(1), segment(S), mac(1)))
        };
        table.reuse_index(segment(S), segment(2));
        assert_eq!(table.learn(at(1), segment(2), mac(1), port(2)), Learned::New);
        let seen = reader.join().unwrap();
        assert!(seen.is_none() || seen == Some(port(1)), "{seen:?}");
    });
}

#[test]
fn a_lookup_finds_a_static_entry_through_a_flush_of_its_segment() {
    explore(|| {
        let table = table(4);
        table.add_static(segment(S), mac(1), port(1)).unwrap();
        let reader = {
            let table = table.clone();
            thread::spawn(move || table.lookup(at(1), segment(S), mac(1)))
        };
        table.flush_segment(segment(S));
        assert_eq!(reader.join().unwrap(), Some(port(1)));
    });
}

#[test]
fn two_workers_that_hear_a_station_on_two_ports_agree_on_one() {
    explore(|| {
        let table = table(4);
        table.learn(at(1), segment(S), mac(1), port(1));
        let worker = {
            let table = table.clone();
            thread::spawn(move || table.learn(at(2), segment(S), mac(1), port(1)))
        };
        let moved = table.learn(at(2), segment(S), mac(1), port(2));
        let stayed = worker.join().unwrap();
        let on = table.lookup(at(2), segment(S), mac(1)).unwrap();
        match (moved, stayed) {
            (Learned::Moved { .. }, Learned::Same | Learned::Refused(Refused::Busy)) => {
                assert_eq!(on, port(2))
            }
            (Learned::Moved { .. }, Learned::Moved { .. }) => assert_eq!(on, port(1)),
            (Learned::Refused(Refused::Busy), _) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(table.entries_of(port(1)) + table.entries_of(port(2)), 1);
    });
}
