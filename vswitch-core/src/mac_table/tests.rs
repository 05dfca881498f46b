//! The table from outside, one behaviour at a time, and an audit of its insides.
#![cfg(not(loom))]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of a test are small")]

use super::*;
use crate::wire::vlan::Vlan;
use Learned::{Moved, New, Same};

mod bridges;

const AGEING: Duration = Duration::from_secs(300);

fn at(seconds: u64) -> Instant {
    Instant::from_secs(seconds)
}

fn port(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn segment(vlan: u16) -> Segment {
    Segment::new(0, Vlan::new(vlan).unwrap()).unwrap()
}

fn mac(number: u64) -> Mac {
    Mac::from_u64(0x0200_0000_0000 | number)
}

/// A table with ports 1..=8 bound.
fn table(limit: u32) -> MacTable {
    let table = MacTable::new(limit, AGEING, [7, 11]);
    (1..=8).for_each(|number| table.bind(port(number), None));
    table
}

#[test]
fn a_station_is_found_where_it_was_seen_last() {
    let table = table(100);
    assert_eq!(table.lookup(at(1), segment(1), mac(1)), None);
    assert_eq!(table.learn(at(1), segment(1), mac(1), port(1)), New);
    assert_eq!(table.lookup(at(1), segment(1), mac(1)), Some(port(1)));
    assert_eq!(table.lookup(at(1), segment(2), mac(1)), None, "another segment");
    assert_eq!(table.learn(at(1), segment(1), mac(1), port(1)), Same);
    assert_eq!(table.learn(at(2), segment(1), mac(1), port(2)), Moved { from: port(1) });
    assert_eq!(table.lookup(at(2), segment(1), mac(1)), Some(port(2)));
    assert_eq!((table.len(), table.entries_of(port(1)), table.entries_of(port(2))), (1, 0, 1));
}

fn known(table: &MacTable, now: Instant, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    numbers.into_iter().filter(|number| table.lookup(now, segment(1), mac(*number)).is_some()).collect()
}

fn listed(table: &MacTable, now: Instant) -> Vec<Entry> {
    let mut entries = Vec::new();
    table.for_each(now, |entry| entries.push(entry));
    entries.sort_by_key(|entry| (entry.segment, entry.mac));
    entries
}

/// Every count, list and rank, against the slots.
fn audit(table: &MacTable) {
    let mut held_by = BTreeMap::new();
    let mut listed = BTreeMap::new();
    for slot in 0..table.slots.count() {
        let (key, value) = (table.slots.key(slot), table.slots.value(slot));
        if value.is_vacant() {
            assert_eq!(key, 0, "a vacant slot has no key");
            continue;
        }
        assert_eq!(table.slots.position(key), Some(slot), "an entry lies where it is looked for, once");
        *held_by.entry(value.handle()).or_insert(0) += 1;
        listed.entry(if value.is_static() { 0 } else { value.handle() }).or_insert_with(Vec::new).push(slot);
    }
    let relaxed = |array: &[AtomicU32], i: usize| array[i].load(Ordering::Relaxed);
    let mut len = 0;
    for handle in 0..=0xffff {
        let count = held_by.get(&handle).copied().unwrap_or(0);
        assert_eq!(relaxed(&table.held_by, handle as usize), count, "handle {handle}");
        let mut list: Vec<u32> = table.order.of(handle).collect();
        list.sort_unstable();
        assert_eq!(list, listed.remove(&handle).unwrap_or_default(), "list of handle {handle}");
        len += if relaxed(&table.port_of, handle as usize) > 0 { count } else { 0 };
    }
    assert_eq!(table.len(), len);
    let weigh = |least: &dyn Fn(usize) -> bool| {
        let ports = (0..=PortId::MAX as usize).filter(|port| least(*port));
        ports.map(|port| (port, table.weight(port))).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(table.ranks.audit(0), weigh(&|port| table.weight(port) > 0));
    assert_eq!(table.givers.audit(0), weigh(&|port| table.learned_by(port) > 0));
    for bridge in 0..usize::from(Segment::BRIDGES) {
        let mine = |port: usize| table.weight(port) > 0 && table.bridges.of_port(port) == bridge;
        assert_eq!(table.bridges.len(bridge), weigh(&mine).values().sum::<u32>(), "bridge {bridge}");
        assert_eq!(
            table.bridges.givers.audit(bridge),
            weigh(&|port| mine(port) && table.learned_by(port) > 0)
        );
    }
    if table.order.is_exact() {
        let ages: Vec<u32> = table.order.by_age().collect();
        let mut sorted = ages.clone();
        sorted.sort_unstable();
        let is_learned =
            |slot: &u32| !table.slots.value(*slot).is_vacant() && !table.slots.value(*slot).is_static();
        assert_eq!(sorted, (0..table.slots.count()).filter(is_learned).collect::<Vec<_>>());
        assert_eq!(table.order.oldest(), ages.first().copied());
    }
}

#[test]
fn group_and_zero_sources_and_unbound_ports_teach_nothing() {
    let table = table(100);
    let invalid = Learned::Refused(Refused::Invalid);
    for (mac, port) in [(Mac::BROADCAST, port(1)), (Mac::default(), port(1)), (mac(1), port(9))] {
        assert_eq!(table.would_learn(at(1), segment(1), mac, port), invalid);
        assert_eq!(table.learn(at(1), segment(1), mac, port), invalid);
        assert_eq!(table.add_static(segment(1), mac, port), Err(AddError::Invalid));
    }
    assert_eq!(table.learn(at(1), segment(1), mac(1), PortId::new(PortId::MAX).unwrap()), invalid);
    assert!(table.is_empty());
}

#[test]
fn an_entry_lives_for_the_ageing_time_after_it_was_last_seen() {
    let table = table(100);
    table.learn(at(1000), segment(1), mac(1), port(1));
    table.learn(at(1100), segment(1), mac(1), port(1));
    table.learn(at(1090), segment(1), mac(1), port(1));
    assert_eq!(table.lookup(at(1399), segment(1), mac(1)), Some(port(1)));
    assert_eq!(listed(&table, at(1399))[0].age, Duration::from_secs(299));
    assert_eq!(table.lookup(at(1400), segment(1), mac(1)), None);
    assert_eq!(listed(&table, at(1400)), []);
    assert_eq!(table.len(), 1, "not swept yet");
    table.sweep(at(1400), usize::MAX);
    assert_eq!(table.len(), 0);
    table.learn(at(1400), segment(1), mac(1), port(1));
    assert_eq!(table.learn(at(1700), segment(1), mac(1), port(1)), New, "after it had aged out");
    assert_eq!(table.lookup(at(1600), segment(1), mac(1)), Some(port(1)), "by a clock that lags");
}

#[test]
fn the_ageing_time_and_the_limit_stay_in_their_ranges() {
    let table = MacTable::new(3, Duration::ZERO, [0, 0]);
    assert_eq!((table.limit(), table.ageing().as_secs()), (10, 10));
    table.set_ageing(Duration::from_secs(2_000_000));
    assert_eq!(table.ageing().as_secs(), 1_000_000);
}

#[test]
fn a_static_entry_neither_moves_nor_ages_nor_is_flushed() {
    for limit in [100, 2_000] {
        static_entry_stays(&table(limit));
    }
}

fn static_entry_stays(table: &MacTable) {
    table.learn(at(1), segment(1), mac(1), port(2));
    table.add_static(segment(1), mac(1), port(1)).unwrap();
    assert_eq!(table.learn(at(1), segment(1), mac(1), port(2)), Learned::Refused(Refused::Static));
    assert_eq!(table.learn(at(1), segment(1), mac(1), port(1)), Same);
    table.flush_port(port(1));
    table.flush_segment(segment(1));
    table.flush();
    table.flush_port_segment(port(1), segment(1));
    table.sweep(at(2_000_000), usize::MAX);
    assert_eq!(table.lookup(at(2_000_000), segment(1), mac(1)), Some(port(1)));
    table.add_static(segment(1), mac(1), port(2)).unwrap();
    assert_eq!(table.lookup(at(1), segment(1), mac(1)), Some(port(2)), "another takes its place");
    assert_eq!((table.entries_of(port(1)), table.entries_of(port(2)), table.len()), (0, 1, 1));
    table.forget_port(port(2));
    assert_eq!(table.lookup(at(1), segment(1), mac(1)), None);
    table.bind(port(2), None);
    assert_eq!(table.lookup(at(1), segment(1), mac(1)), None, "not even when the port comes back");
    audit(table);
}

#[test]
fn a_flush_takes_what_it_names_and_no_more() {
    [100, 2_000].into_iter().for_each(flushes_of_every_kind);
}

fn flushes_of_every_kind(limit: u32) {
    let fill = || {
        let table = table(limit);
        for (number, (vlan, on)) in (0..).zip([(1, 1), (1, 2), (2, 1), (2, 2)]) {
            table.learn(at(1), segment(vlan), mac(number), port(on));
        }
        table
    };
    let left = |table: &MacTable| {
        audit(table);
        let all = listed(table, at(1));
        all.iter().map(|entry| entry.mac.as_u64() & 0xff).collect::<Vec<_>>()
    };
    let flush = |how: &dyn Fn(&MacTable)| {
        let table = fill();
        how(&table);
        left(&table)
    };
    assert_eq!(flush(&|table| table.flush_port(port(1))), [1, 3]);
    assert_eq!(flush(&|table| table.forget_port(port(1))), [1, 3]);
    assert_eq!(flush(&|table| table.flush_segment(segment(1))), [2, 3]);
    assert_eq!(flush(&|table| table.flush_port_segment(port(2), segment(2))), [0, 1, 2]);
    assert_eq!(flush(&MacTable::flush), []);
    assert_eq!(flush(&|table| assert!(table.remove(at(1), segment(1), mac(0)))), [1, 2, 3]);
    assert_eq!(flush(&|table| assert!(!table.remove(at(1), segment(3), mac(0)))), [0, 1, 2, 3]);
}

#[test]
fn flushed_stations_are_learned_again_however_often() {
    [100, 2_000].into_iter().for_each(flush_and_learn_again);
}

fn flush_and_learn_again(limit: u32) {
    let table = table(limit);
    for round in 0..70_000 {
        assert_eq!(table.learn(at(1), segment(1), mac(1), port(1)), New, "round {round}");
        table.add_static(segment(2), mac(2), port(2)).unwrap();
        match round % 3 {
            0 => table.flush_port(port(1)),
            1 => table.flush_segment(segment(1)),
            _ => {
                table.forget_port(port(1));
                table.bind(port(1), None);
            }
        }
        assert_eq!(table.lookup(at(1), segment(1), mac(1)), None);
        assert_eq!(table.lookup(at(1), segment(2), mac(2)), Some(port(2)));
        table.flush_segment(segment(2));
    }
    audit(&table);
}

#[test]
fn a_port_at_its_limit_gives_up_its_own_least_recently_seen() {
    let table = table(100);
    table.bind(port(1), Some(3));
    table.learn(at(1), segment(1), mac(9), port(2));
    for (now, number) in [(1, 1), (1, 2), (1, 3), (2, 1), (2, 4)] {
        table.learn(at(now), segment(1), mac(number), port(1));
    }
    assert_eq!(known(&table, at(2), [1, 2, 3, 4, 9]), [1, 3, 4, 9]);
    table.add_static(segment(1), mac(5), port(1)).unwrap();
    assert_eq!(known(&table, at(1), [1, 3, 4, 5, 9]), [1, 3, 4, 5, 9], "a static entry is not learned");
    assert_eq!(table.learn(at(1), segment(1), mac(9), port(1)), Moved { from: port(2) });
    assert_eq!(known(&table, at(1), [1, 3, 4, 5, 9]), [1, 4, 5, 9]);
    table.bind(port(1), Some(1));
    assert_eq!(known(&table, at(1), [1, 4, 5, 9]), [5, 9]);
    table.bind(port(1), Some(0));
    assert_eq!(table.learn(at(1), segment(1), mac(1), port(1)), Learned::Refused(Refused::Full));
    audit(&table);
}

#[test]
fn a_small_limit_works_in_a_large_table() {
    let table = table(65_536);
    table.bind(port(1), Some(5));
    for number in 0..5 {
        assert_eq!(table.learn(at(number), segment(1), mac(number), port(1)), New);
    }
    table.learn(at(6), segment(1), mac(0), port(1));
    assert_eq!(table.learn(at(7), segment(1), mac(5), port(1)), New);
    assert_eq!(table.learn(at(8), segment(1), mac(6), port(1)), New);
    assert_eq!(known(&table, at(8), 0..7), [0, 3, 4, 5, 6]);
    audit(&table);
}

#[test]
fn in_a_full_table_the_port_with_the_most_entries_gives() {
    let table = table(10);
    for number in 0..7 {
        table.learn(at(1), segment(1), mac(number), port(1));
    }
    for number in 7..10 {
        table.learn(at(1), segment(1), mac(number), port(2));
    }
    table.learn(at(2), segment(1), mac(0), port(1));
    assert_eq!(table.learn(at(2), segment(1), mac(10), port(3)), New);
    assert_eq!(known(&table, at(2), 0..11), [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    table.learn(at(2), segment(1), mac(11), port(1));
    assert_eq!(known(&table, at(2), 0..12), [0, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    for number in 0..10 {
        table.add_static(segment(2), mac(number), port(4)).unwrap();
    }
    assert_eq!(known(&table, at(1), 0..12), []);
    assert_eq!(table.add_static(segment(2), mac(10), port(4)), Err(AddError::Full));
    assert_eq!(table.learn(at(1), segment(1), mac(1), port(1)), Learned::Refused(Refused::Full));
    assert_eq!(table.would_learn(at(1), segment(1), mac(1), port(1)), Learned::Refused(Refused::Full));
    audit(&table);
}

#[test]
fn a_station_becomes_young_by_its_first_frame_in_a_second_and_by_a_move() {
    let table = table(10);
    table.bind(port(1), Some(3));
    let learn = |now: u64, number: u64, on: u32| table.learn(at(now), segment(1), mac(number), port(on));
    (1..=3).for_each(|number| assert_eq!(learn(1, number, 1), New));
    assert_eq!(learn(1, 1, 1), Same);
    assert_eq!(learn(1, 4, 1), New);
    assert_eq!(known(&table, at(1), 1..5), [2, 3, 4], "the same second");
    assert_eq!((learn(2, 3, 1), learn(2, 2, 1), learn(2, 3, 1)), (Same, Same, Same));
    assert_eq!((learn(2, 5, 1), learn(2, 6, 1)), (New, New));
    assert_eq!(known(&table, at(2), 1..7), [2, 5, 6], "2 spoke after 3, in the next second");
    assert!(matches!((learn(2, 2, 2), learn(2, 2, 1)), (Moved { .. }, Moved { .. })));
    assert_eq!(learn(2, 7, 1), New);
    assert_eq!(known(&table, at(2), 1..8), [2, 6, 7], "a move counts at once");
    audit(&table);
}

#[test]
fn of_equal_ports_the_one_on_top_of_the_heap_gives() {
    for (one, two) in [(1, 2), (2, 1)] {
        let table = table(10);
        (0..5).for_each(|number| _ = table.learn(at(1), segment(1), mac(number), port(one)));
        (5..10).for_each(|number| _ = table.learn(at(1), segment(1), mac(number), port(two)));
        let mut gone = Vec::new();
        for number in 10..14 {
            let before = known(&table, at(1), 0..10);
            assert_eq!(table.learn(at(1), segment(1), mac(number), port(3)), New);
            let after = known(&table, at(1), 0..10);
            gone.extend(before.into_iter().filter(|number| !after.contains(number)));
        }
        // As Open vSwitch 3.1 does it; the port that came first, not the lower number.
        assert_eq!(gone, [0, 5, 6, 1]);
    }
}

#[test]
fn a_port_that_floods_takes_no_more_than_makes_it_the_heaviest() {
    for limit in [100, 2_000] {
        let table = table(limit);
        let share = u64::from(limit) / 4;
        for number in 0..u64::from(limit) {
            table.learn(at(1), segment(1), mac(number), port(1 + (number / share) as u32));
        }
        for number in 0..u64::from(limit) * 5 {
            assert_eq!(table.learn(at(1), segment(2), mac(number), port(5)), New);
        }
        let counts: Vec<u32> = (1..=5).map(|number| table.entries_of(port(number))).collect();
        assert!(counts[..4].iter().all(|count| *count >= limit / 5 - 1), "{counts:?}");
        assert!(counts[4] <= limit / 5 + 4, "{counts:?}");
    }
}

#[test]
fn static_entries_weigh_and_somebody_else_gives() {
    let table = table(10);
    for number in 0..5 {
        table.add_static(segment(2), mac(number), port(1)).unwrap();
    }
    (0..3).for_each(|number| _ = table.learn(at(1), segment(1), mac(number), port(2)));
    (3..5).for_each(|number| _ = table.learn(at(1), segment(1), mac(number), port(3)));
    // The heaviest has nothing to give, and takes nothing from those that have less.
    assert_eq!(table.would_learn(at(1), segment(1), mac(5), port(1)), Learned::Refused(Refused::Full));
    assert_eq!(table.learn(at(1), segment(1), mac(5), port(1)), Learned::Refused(Refused::Full));
    assert_eq!(table.learn(at(1), segment(1), mac(5), port(3)), New);
    assert_eq!(known(&table, at(1), 0..6), [1, 2, 3, 4, 5]);
    // With one learned entry it is the heaviest that can give, and does so.
    assert!(table.remove(at(1), segment(1), mac(3)));
    assert_eq!(table.learn(at(1), segment(1), mac(6), port(1)), New);
    assert_eq!(table.learn(at(1), segment(1), mac(7), port(3)), New);
    assert_eq!(known(&table, at(1), 0..8), [1, 2, 4, 5, 7]);
    assert_eq!(table.entries_of(port(1)), 5);
    audit(&table);
}

#[test]
fn a_flood_of_new_addresses_pushes_out_no_station_that_speaks() {
    for limit in [500, 5_000] {
        let table = table(limit);
        let stations = u64::from(limit) / 10;
        let speak = |now: u64| {
            for number in 0..stations * 2 {
                let learned = table.learn(at(now), segment(1), mac(number), port(1 + (number % 2) as u32));
                assert!(now == 0 || learned == Same, "station {number} at {now}: {learned:?}");
            }
        };
        speak(0);
        let mut flooder = 1 << 32;
        for now in 0..20 {
            speak(now);
            for _ in 0..limit / 4 {
                flooder += 1;
                assert_eq!(table.learn(at(now), segment(1), mac(flooder), port(1)), New);
            }
        }
        assert_eq!(table.len(), limit);
        audit(&table);
    }
}

#[test]
fn a_restored_table_keeps_ages_and_the_order() {
    for limit in [10, 2_000] {
        let old = table(limit);
        for number in 0..8 {
            old.learn(at(number), segment(1), mac(number), port(1));
        }
        old.add_static(segment(1), mac(8), port(2)).unwrap();
        let mut entries = listed(&old, at(10));
        entries.sort_by_key(|entry| entry.age);
        let new = table(limit);
        new.bind(port(1), Some(8));
        assert!(entries.iter().all(|entry| new.restore(at(10), *entry)));
        assert!(!new.restore(at(10), entries[0]), "known already");
        assert_eq!(listed(&new, at(10)), listed(&old, at(10)));
        new.learn(at(10), segment(1), mac(9), port(1));
        new.learn(at(10), segment(1), mac(10), port(1));
        assert_eq!(known(&new, at(10), 0..11), [2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let small = table(10);
        small.bind(port(1), Some(3));
        assert_eq!(entries.iter().filter(|entry| small.restore(at(10), **entry)).count(), 4);
        assert_eq!(known(&small, at(10), 0..9), [5, 6, 7, 8]);
        audit(&new);
    }
}

#[test]
fn the_insides_agree_after_any_sequence() {
    for limit in [10, 1024, 1100] {
        let table = table(limit);
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) % below
        };
        let mut now = 0;
        for step in 0..20_000 {
            let (s, on) = (segment(random(3) as u16), port(1 + random(8) as u32));
            let m = mac(random(u64::from(limit) * 2));
            match random(400) {
                0 => table.flush_port(on),
                1 => table.flush_segment(s),
                2 => table.flush_port_segment(on, s),
                3..10 => _ = table.add_static(s, m, on),
                10..20 => _ = table.remove(at(now), s, m),
                20..25 => now += random(200),
                25..30 => table.sweep(at(now), 3),
                30 => table.bind(on, Some(random(20) as u32)),
                31 => table.bind(on, None),
                _ => _ = table.learn(at(now), s, m, on),
            }
            if step % 1000 == 0 {
                audit(&table);
                assert!(table.len() <= limit);
            }
        }
        audit(&table);
        table.sweep(at(now), usize::MAX);
        assert_eq!(listed(&table, at(now)).len(), table.len() as usize);
    }
}

#[test]
fn moving_to_make_place_loses_nobody() {
    // Two buckets are full long before the table is, now and then; nobody may be refused or lost for it.
    for (limit, seeds) in [(32, 100), (1024, 4), (32_768, 1)] {
        for seed in 0..seeds {
            let table = MacTable::new(limit, AGEING, [seed, !seed]);
            (1..=2).for_each(|number| table.bind(port(number), None));
            for number in 0..u64::from(limit) {
                assert_eq!(table.learn(at(1), segment(1), mac(number), port(1)), New);
            }
            assert_eq!(known(&table, at(1), 0..u64::from(limit)).len(), limit as usize);
            for number in 0..u64::from(limit) * 3 {
                assert_eq!(table.learn(at(1), segment(2), mac(number), port(2)), New);
            }
            // At equal shares the port that was heavier gives once more; from then on the newcomer's own.
            assert_eq!((table.len(), table.entries_of(port(1))), (limit, limit / 2 - 1));
            let displaced = table.displaced.load(Ordering::Relaxed);
            assert!(displaced > 0 || limit < 1024, "the table was full enough to try it");
            if limit <= 1024 {
                audit(&table);
            }
        }
    }
}

#[test]
fn same_calls_make_the_same_table() {
    let run = || {
        let table = table(50);
        for number in 0..500 {
            table.learn(at(number / 9), segment(1), mac(number * 7 % 90), port(1 + (number % 5) as u32));
        }
        let mut entries = Vec::new();
        table.for_each(at(60), |entry| entries.push(entry));
        entries
    };
    assert_eq!(run(), run());
}

#[test]
fn a_table_for_few_ports_is_small_and_leaves_ports_beyond_unbound() {
    let (few, any) = (MacTable::few_ports(1024, AGEING, [3, 4]), MacTable::new(1024, AGEING, [3, 4]));
    assert!(few.memory_bytes() < 5 << 18, "{}", few.memory_bytes());
    assert!(any.memory_bytes() > 8 << 20, "{}", any.memory_bytes());
    for number in [4096, PortId::MAX] {
        few.bind(port(number), None);
        assert_eq!(few.learn(at(1), segment(1), mac(1), port(number)), Learned::Refused(Refused::Invalid));
        assert_eq!(few.add_static(segment(1), mac(1), port(number)), Err(AddError::Invalid));
        few.flush_port(port(number));
        few.forget_port(port(number));
        assert_eq!(few.entries_of(port(number)), 0);
    }
    (0..2000).for_each(|number| few.bind(port(2096 + number), None));
    assert_eq!(few.learn(at(1), segment(1), mac(1), port(4095)), New);
    assert_eq!(few.lookup(at(2), segment(1), mac(1)), Some(port(4095)));
}
