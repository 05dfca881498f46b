//! The MAC table's choice of victim against the naive table's, which is that of Open vSwitch 3.1, entry by entry.
//!
//! Every step is a frame, a flush, a removal or a passage of time, and after each the two must list the same
//! stations on the same ports with the same ages; so one wrong victim, or one tie decided otherwise, shows.
//! `VSWITCH_SEED` repeats a run, `VSWITCH_RUNS` lengthens it. Not here: Open vSwitch itself (see `ovs_oracle`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::time::Duration;
use vswitch_core::mac_table::{Entry, EntryState, MacTable};
use vswitch_core::port::{Attachment, Port, PortId, Segment};
use vswitch_core::time::Instant;
use vswitch_core::wire::vlan::Vlan;
use vswitch_tests::frames::station;
use vswitch_tests::reference::{Key, Station, Stations};
use vswitch_tests::rng::Rng;

/// What a run is made of.
struct Size {
    limit: u32,
    ports: u32,
    stations: usize,
    ageing: u64,
    /// Only one in so many of the steps that empty the table is taken.
    calm: usize,
    /// Whether entries are set too, and ports have limits of their own.
    more: bool,
    steps: usize,
}

/// How often what came, so that a run that never meets a thing is not taken for a proof of it.
#[derive(Debug, Default)]
struct Seen {
    steps: usize,
    victims: usize,
    ties: usize,
    moves: usize,
    aged: usize,
    flushed: usize,
}

fn segment(key: Key) -> Segment {
    Segment::new(key.0, key.1).unwrap()
}

fn listed(table: &MacTable, now: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    table.for_each(Instant::from_secs(now), |entry| entries.push(entry));
    entries.sort_by_key(|entry| (entry.segment, entry.mac));
    entries
}

fn expected(stations: &[Station], now: u64) -> Vec<Entry> {
    let entry = |station: &Station| Entry {
        segment: segment(station.key),
        mac: station.key.2,
        port: station.port,
        age: Duration::from_secs(if station.fixed { 0 } else { now - station.seen }),
        state: if station.fixed { EntryState::Static } else { EntryState::Learned },
    };
    let mut entries: Vec<Entry> = stations.iter().map(entry).collect();
    entries.sort_by_key(|entry| (entry.segment, entry.mac));
    entries
}

/// How many ports have the most entries of all.
fn heaviest(ports: &[Port], entries: &[Entry]) -> usize {
    let weights = || ports.iter().map(|port| entries.iter().filter(|entry| entry.port == port.id).count());
    let most = weights().max().unwrap();
    weights().filter(|weight| *weight == most).count()
}

fn run(rng: &mut Rng, size: &Size, seen: &mut Seen) {
    let table = MacTable::new(size.limit, Duration::from_secs(size.ageing), [rng.next(), rng.next()]);
    let mut naive = Stations::new(size.limit as usize, size.ageing);
    let mut ports: Vec<Port> =
        (1..=size.ports).map(|n| Port::new(PortId::new(n).unwrap(), Attachment::trunk_all())).collect();
    for port in &mut ports {
        port.mac_limit = (size.more && rng.one_in(4)).then(|| u32::try_from(rng.below(6)).unwrap());
        table.bind(port.id, port.mac_limit);
    }
    let vlans = [Vlan::UNTAGGED, Vlan::new(10).unwrap()];
    // Some ports talk more than others, and which is another matter in every run.
    rng.shuffle(&mut ports);
    let mut now = rng.below(100) as u64;
    let mut before: Vec<Entry> = Vec::new();
    for step in 0..size.steps {
        let key = (0, *rng.pick(&vlans), station(u32::try_from(rng.below(size.stations)).unwrap()));
        let port = if rng.one_in(3) { &ports[0] } else { rng.pick(&ports) };
        let at = |now: u64| Instant::from_secs(now);
        let mut aged = false;
        let what = match rng.below(100) {
            0..12 => {
                now += *rng.pick(&[0, 1, 1, 1, 5]);
                aged = true;
                // With or without somebody who clears up behind it.
                table.sweep(at(now), *rng.pick(&[0, 1, usize::MAX]));
                format!("now {now}")
            }
            12..14 => {
                assert_eq!(table.remove(at(now), segment(key), key.2), naive.delete(key));
                format!("remove {key:?}")
            }
            14..18 if !rng.one_in(size.calm) => continue,
            what @ 14..18 => {
                let (id, vlan) = (port.id, key.1);
                // These calls bring no time along: that of the last sweep is taken.
                table.sweep(at(now), 0);
                match what {
                    14 => table.flush_port(id),
                    15 => table.flush_segment(segment(key)),
                    16 => table.flush_port_segment(id, segment(key)),
                    _ if rng.one_in(3) => table.flush(),
                    _ => continue,
                }
                naive.flush(|station| {
                    (station.port == id || what == 15 || what == 17)
                        && (station.key.1 == vlan || what == 14 || what == 17)
                });
                format!("flush {what} {id:?} {vlan:?}")
            }
            18..21 if size.more => {
                table.sweep(at(now), 0);
                let set = table.add_static(segment(key), key.2, port.id).is_ok();
                assert_eq!(set, naive.set(key, port.id), "step {step}: set {key:?} on {:?}", port.id);
                format!("set {key:?} on {:?}", port.id)
            }
            _ => {
                // A frame may be the first to notice that time has passed.
                if rng.one_in(8) {
                    now += *rng.pick(&[1, 5]);
                    aged = true;
                }
                let _ = table.learn(at(now), segment(key), key.2, port.id);
                naive.learn(now, key, port);
                format!("{key:?} on {:?} at {now}", port.id)
            }
        };
        let after = listed(&table, now);
        let seed = rng.seed();
        assert_eq!(
            after,
            expected(naive.list(now), now),
            "seed {seed} step {step}: {what}; before: {before:?}"
        );
        seen.steps += 1;
        let place = |entries: &[Entry], of: &Entry| {
            entries.iter().find(|e| (e.segment, e.mac) == (of.segment, of.mac)).map(|entry| entry.port)
        };
        let gone = before.iter().filter(|entry| place(&after, entry).is_none()).count();
        seen.moves += usize::from(
            before.iter().any(|entry| place(&after, entry).is_some_and(|port| port != entry.port)),
        );
        if gone > 0 {
            if what.starts_with("flush") || what.starts_with("remove") {
                seen.flushed += 1;
            } else if aged {
                seen.aged += 1;
            } else {
                seen.victims += 1;
                seen.ties += usize::from(heaviest(&ports, &before) > 1);
            }
        }
        before = after;
    }
}

fn runs() -> usize {
    std::env::var("VSWITCH_RUNS").map_or(400, |runs| runs.parse().unwrap())
}

#[test]
fn a_table_of_ten_gives_up_what_open_vswitch_would() {
    let mut rng = Rng::from_env(1);
    let mut seen = Seen::default();
    for _ in 0..runs() {
        let size = Size {
            limit: 10,
            ports: 5,
            stations: rng.within(6..=40),
            ageing: 15,
            calm: 1,
            more: false,
            steps: 200,
        };
        run(&mut rng, &size, &mut seen);
    }
    println!("{seen:?}");
    let least = runs() * 2;
    assert!([seen.victims, seen.ties, seen.moves, seen.aged, seen.flushed].iter().all(|n| *n >= least));
}

#[test]
fn larger_tables_and_more_ports_do_too() {
    let mut rng = Rng::from_env(2);
    let mut seen = Seen::default();
    for _ in 0..runs() / 8 {
        let size = Size {
            limit: 60,
            ports: 20,
            stations: rng.within(40..=90),
            ageing: 200,
            calm: 20,
            more: false,
            steps: 1500,
        };
        run(&mut rng, &size, &mut seen);
    }
    let size =
        Size { limit: 1024, ports: 12, stations: 900, ageing: 100_000, calm: 100, more: false, steps: 4000 };
    run(&mut rng, &size, &mut seen);
    println!("{seen:?}");
    assert!(seen.victims > 1000 && seen.ties > 100);
}

#[test]
fn set_entries_and_limits_of_ports_change_the_choice_as_the_house_says() {
    let mut rng = Rng::from_env(3);
    let mut seen = Seen::default();
    for _ in 0..runs() {
        let size = Size {
            limit: 10,
            ports: 5,
            stations: rng.within(6..=30),
            ageing: 15,
            calm: 1,
            more: true,
            steps: 200,
        };
        run(&mut rng, &size, &mut seen);
    }
    println!("{seen:?}");
}
