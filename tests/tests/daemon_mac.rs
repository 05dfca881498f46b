//! Learning through real TAPs: ageing, moves, limits, and what teaches nothing; with one worker and with two.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;
use vswitch_core::wire::ethernet::Mac;
use vswitch_tests::daemon::{Host, PATIENCE, Pod, Raw, number, text, with_host};
use vswitch_tests::frames::{Frame, station};
use vswitch_tests::lab::{Lab, until};

fn frame(to: u32, from: u32) -> Vec<u8> {
    Frame::new(station(to), station(from)).bytes()
}

fn broadcast(from: u32) -> Vec<u8> {
    Frame::new(Mac::BROADCAST, station(from)).bytes()
}

struct Rig {
    host: Host,
    pods: Vec<Pod>,
    raws: Vec<Raw>,
}

/// Three pods on VLAN 10: ports p0, p1, p2.
fn rig(lab: &Lab, host: Host, toml: &str) -> Rig {
    let pods: Vec<Pod> = (0..3).map(|n| Pod::new(lab, &format!("pod{n}"))).collect();
    let mut rig = Rig { host, pods, raws: Vec::new() };
    rig.configure(toml);
    rig.host.start();
    rig.raws = rig.pods.iter().enumerate().map(|(n, pod)| pod.raw(&format!("p{n}"))).collect();
    rig
}

impl Rig {
    fn configure(&self, toml: &str) {
        let tables = self.pods.iter().enumerate().map(|(n, pod)| pod.table(&format!("p{n}"), "tag = 10"));
        self.host.configure(&format!("{toml}\n{}", tables.collect::<String>()));
    }

    /// Station `number` speaks at a port until it is known there.
    fn speak(&self, at: usize, number: u32) {
        self.host.teach(&self.raws[at], &self.raws[(at + 1) % 3], &broadcast(number), &format!("p{at}"));
    }

    /// Which stations are where.
    fn stations(&self) -> BTreeMap<String, String> {
        self.host.macs().into_iter().map(|(mac, _, port, _)| (mac, port)).collect()
    }

    fn at(&self, port: &str) -> Vec<u32> {
        let number = |mac: &str| u32::from_str_radix(&mac.replace(':', "")[6..], 16).unwrap();
        self.stations().iter().filter(|(_, at)| *at == port).map(|(mac, _)| number(mac)).collect()
    }
}

#[test]
fn a_station_is_forgotten_after_its_age_and_not_before_whoever_is_sent_to() {
    with_host("a_station_is_forgotten_after_its_age_and_not_before_whoever_is_sent_to", |lab, host| {
        let rig = rig(lab, host, "[mac_table]\nageing = 10\n[datapath]\nworkers = 1");
        rig.speak(0, 1);
        rig.speak(1, 2);
        rig.host.must("mac add p2 10 02:00:00:00:00:03");
        let mut oldest = 0;
        until("station 1 aged out", Duration::from_secs(15), || {
            // Its own frames keep station 2; being sent to does not keep station 1.
            rig.raws[1].reaches(&rig.raws[0], &frame(1, 2));
            let rows = rig.host.rows("mac");
            let one = rows.iter().find(|row| row["mac"] == "02:00:00:00:00:01");
            oldest = one.map_or(oldest, |row| number(row, "age_seconds"));
            one.is_none().then_some(())
        });
        assert_eq!(oldest, 9, "the last age seen");
        assert_eq!((rig.at("p1"), rig.at("p2")), (vec![2], vec![3]), "a static entry never ages");
        let _ = rig.raws[2].drain();
        rig.raws[1].reaches(&rig.raws[0], &frame(1, 2));
        rig.raws[2].until(&frame(1, 2));
    });
}

#[test]
fn a_station_that_moves_is_found_where_it_spoke_last_and_the_move_is_counted() {
    with_host("a_station_that_moves_is_found_where_it_spoke_last_and_the_move_is_counted", |lab, host| {
        let rig = rig(lab, host, "[datapath]\nworkers = 2");
        let row = || rig.host.rows("mac").into_iter().find(|row| row["mac"] == "02:00:00:00:00:01").unwrap();
        rig.speak(0, 1);
        assert_eq!((text(&row(), "port"), number(&row(), "moves")), ("p0".into(), 0));
        for (moves, at) in [1, 2, 0].into_iter().enumerate() {
            rig.speak(at, 1);
            let moves = u64::try_from(moves).unwrap() + 1;
            // The event comes after the frame.
            until("the move", PATIENCE, || (number(&row(), "moves") == moves).then_some(()));
            assert_eq!(text(&row(), "port"), format!("p{at}"));
            let other = (at + 1) % 3;
            rig.raws[other].reaches(&rig.raws[at], &frame(1, 20 + u32::try_from(other).unwrap()));
        }
        assert_eq!(number(&rig.host.json("status"), "stations_moved"), 3);
    });
}

#[test]
fn a_port_at_its_limit_gives_up_its_own_least_recently_seen() {
    with_host("a_port_at_its_limit_gives_up_its_own_least_recently_seen", |lab, host| {
        let mut rig = rig(lab, host, "[mac_table]\nlimit = 100\nport_limit = 4\n[datapath]\nworkers = 1");
        for workers in [1, 2] {
            if workers == 2 {
                rig.host.end("TERM");
                rig.configure("[mac_table]\nlimit = 100\nport_limit = 4\n[datapath]\nworkers = 2");
                rig.host.start();
                rig.raws = rig.pods.iter().enumerate().map(|(n, pod)| pod.raw(&format!("p{n}"))).collect();
            }
            rig.speak(1, 101);
            for number in 1..=12 {
                rig.speak(0, number);
            }
            assert_eq!(rig.at("p0"), [9, 10, 11, 12], "workers = {workers}");
            assert_eq!(rig.at("p1"), [101], "others keep theirs");
            // Station 9 speaks again in another second, so 10 is the one that has been silent longest.
            until("another second", PATIENCE, || {
                let rows = rig.host.rows("mac --port p0");
                rows.iter().all(|row| number(row, "age_seconds") >= 1).then_some(())
            });
            rig.speak(0, 9);
            rig.speak(0, 13);
            assert_eq!(rig.at("p0"), [9, 11, 12, 13], "workers = {workers}");
            assert_eq!(number(&rig.host.port("p0"), "mac_entries"), 4);
        }
    });
}

#[test]
fn a_full_table_takes_from_the_port_that_has_most() {
    with_host("a_full_table_takes_from_the_port_that_has_most", |lab, host| {
        let rig = rig(lab, host, "[mac_table]\nlimit = 10\n[datapath]\nworkers = 2");
        rig.speak(1, 101);
        (1..=9).for_each(|number| rig.speak(0, number));
        assert_eq!((rig.at("p0").len(), rig.at("p1").len()), (9, 1));
        // A flood from one port costs that port alone.
        (201..=300).for_each(|number| rig.speak(0, number));
        assert_eq!(rig.at("p0"), (292..=300).collect::<Vec<_>>());
        assert_eq!(rig.at("p1"), [101]);
        // And whoever is new gets a fair share.
        (102..=120).for_each(|number| rig.speak(1, number));
        (401..=420).for_each(|number| rig.speak(2, number));
        let shares = [rig.at("p0").len(), rig.at("p1").len(), rig.at("p2").len()];
        assert_eq!(shares.iter().sum::<usize>(), 10);
        assert!(shares.iter().all(|share| (3..=4).contains(share)), "{shares:?}");
        assert_eq!(number(&rig.host.json("status"), "mac_entries"), 10);
    });
}

#[test]
fn what_is_flooded_reserved_or_from_a_group_teaches_nothing() {
    with_host("what_is_flooded_reserved_or_from_a_group_teaches_nothing", |lab, host| {
        let rig = rig(lab, host, "");
        let bpdu = |from| Frame::new(Mac::new([1, 0x80, 0xc2, 0, 0, 0]), station(from)).bytes();
        let from_group = Frame::new(Mac::BROADCAST, Mac::new([3, 0, 0, 0, 0, 7])).bytes();
        let from_zero = Frame::new(Mac::BROADCAST, Mac::new([0; 6])).bytes();
        // Forwarded, not learned.
        rig.raws[0].reaches(&rig.raws[1], &from_group);
        rig.raws[0].reaches(&rig.raws[1], &from_zero);
        assert!(rig.stations().is_empty());
        // Neither forwarded nor learned.
        rig.raws[0].send(&bpdu(5));
        until("the drop", PATIENCE, || (rig.host.drops().get("reserved_group") == Some(&1)).then_some(()));
        assert!(rig.stations().is_empty());

        rig.configure("[switch]\nforward_bpdu = true");
        rig.host.must("reload");
        rig.host.teach(&rig.raws[0], &rig.raws[1], &bpdu(5), "p0");
        assert_eq!(rig.at("p0"), [5]);

        // What was learned in a VLAN goes when the VLAN becomes a flooded one, and comes back when it is none again.
        rig.speak(1, 6);
        rig.configure("[switch]\nflood_vlans = [10]");
        rig.host.must("reload");
        assert!(rig.stations().is_empty(), "{:?}", rig.stations());
        rig.raws[0].reaches(&rig.raws[1], &broadcast(5));
        rig.raws[1].reaches(&rig.raws[0], &broadcast(6));
        rig.raws.iter().for_each(|raw| drop(raw.drain()));
        rig.raws[0].reaches(&rig.raws[1], &frame(6, 5));
        rig.raws[2].until(&frame(6, 5));
        assert!(rig.stations().is_empty(), "{:?}", rig.stations());
        rig.configure("");
        rig.host.must("reload");
        rig.speak(0, 5);
        assert_eq!(rig.at("p0"), [5]);
    });
}
