//! Claims, one rule at a time. Not here: many nodes together (see `tests/tests/cluster_sim.rs`).

use super::*;

const LEASE: Duration = Duration::from_secs(10);

fn vni() -> Vni {
    Vni::new(10).unwrap()
}

fn mac(last: u8) -> Mac {
    Mac::from_u64(0x0200_0000_0000 + u64::from(last))
}

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn record(ips: &[IpAddr], sequence: u64) -> StationRecord {
    StationRecord { ips: ips.to_vec(), sequence, port: "theirs".into() }
}

fn at(seconds: u64) -> Instant {
    Instant::from_secs(seconds)
}

fn claims(changes: &[Change]) -> Vec<u64> {
    let claim = |change: &Change| match change {
        Change::Claim { record, .. } => Some(record.sequence),
        Change::Withdraw { .. } => Some(0),
        _ => None,
    };
    changes.iter().filter_map(claim).collect()
}

fn node(stations: &Stations, last: u8) -> Option<&str> {
    stations.get(vni(), mac(last)).map(|(at, _)| at.node)
}

#[test]
fn a_station_that_comes_here_gets_a_sequence_above_all_others() {
    let mut stations = Stations::new("me", LEASE);
    stations.local(at(0), vni(), mac(1), &[ip(1)], "a");
    assert_eq!(claims(&stations.drain()), [1]);
    stations.local(at(0), vni(), mac(1), &[], "a");
    assert!(stations.drain().is_empty());
    stations.put(at(0), vni(), mac(2), "other", record(&[ip(2)], 7));
    stations.local(at(0), vni(), mac(2), &[], "a");
    assert_eq!(claims(&stations.drain()), [8]);
    assert_eq!(node(&stations, 2), Some("me"));
}

#[test]
fn whoever_loses_takes_its_claim_back() {
    let mut stations = Stations::new("me", LEASE);
    stations.local(at(0), vni(), mac(1), &[ip(1)], "a");
    stations.drain();
    stations.put(at(1), vni(), mac(1), "other", record(&[ip(1)], 2));
    assert_eq!(claims(&stations.drain()), [0]);
    assert_eq!(node(&stations, 1), Some("other"));
    assert_eq!(stations.address(vni(), ip(1)), Some(mac(1)));
    // It is still here, and the other one lets go of it.
    stations.deleted(at(2), vni(), mac(1), "other");
    stations.due(at(3), |_| false);
    assert_eq!(claims(&stations.drain()), [1]);
    assert_eq!(node(&stations, 1), Some("me"));
}

#[test]
fn at_equal_sequences_the_lower_name_wins_on_both_sides() {
    let mut low = Stations::new("a", LEASE);
    let mut high = Stations::new("b", LEASE);
    low.local(at(0), vni(), mac(1), &[], "p");
    high.local(at(0), vni(), mac(1), &[], "p");
    low.drain();
    high.drain();
    low.put(at(0), vni(), mac(1), "b", record(&[], 1));
    high.put(at(0), vni(), mac(1), "a", record(&[], 1));
    assert_eq!((claims(&low.drain()), claims(&high.drain())), (vec![], vec![0]));
    assert_eq!((node(&low, 1), node(&high, 1)), (Some("a"), Some("a")));
}

#[test]
fn an_address_follows_to_another_station() {
    let mut stations = Stations::new("me", LEASE);
    stations.put(at(0), vni(), mac(1), "other", record(&[ip(9)], 4));
    assert_eq!(stations.address(vni(), ip(9)), Some(mac(1)));
    stations.local(at(1), vni(), mac(2), &[ip(9)], "a");
    assert_eq!(stations.address(vni(), ip(9)), Some(mac(2)));
    assert_eq!(claims(&stations.drain()), [5]);
    stations.local_gone(vni(), mac(2));
    assert_eq!(stations.address(vni(), ip(9)), Some(mac(1)));
    stations.node_gone("other");
    assert_eq!((stations.address(vni(), ip(9)), stations.macs().len()), (None, 0));
    assert_eq!(stations.addresses().count(), 0);
}

#[test]
fn a_claim_that_was_taken_back_goes_unless_its_node_is_lost_as_well() {
    let mut stations = Stations::new("me", LEASE);
    stations.put(at(0), vni(), mac(1), "other", record(&[], 1));
    stations.deleted(at(0), vni(), mac(1), "other");
    assert_eq!(stations.next_due(), Some(Instant::ZERO.after(SECOND_THOUGHT)));
    stations.due(at(1), |_| true);
    assert_eq!(node(&stations, 1), Some("other"));
    stations.put(at(2), vni(), mac(1), "other", record(&[], 1));
    stations.due(at(60), |_| false);
    assert_eq!(node(&stations, 1), Some("other"));
    stations.deleted(at(61), vni(), mac(1), "other");
    stations.due(at(62), |_| false);
    assert_eq!((node(&stations, 1), stations.next_due()), (None, None));
}

#[test]
fn a_listing_is_a_difference() {
    let mut stations = Stations::new("me", LEASE);
    let all = vni()..=vni();
    stations.local(at(0), vni(), mac(9), &[], "a");
    let one = |last| ((vni(), mac(last)), "other".to_owned(), record(&[], 1));
    stations.listed(at(0), &all, vec![one(1), one(2)]);
    stations.listed(at(1), &all, vec![one(1)]);
    stations.due(at(20), |_| false);
    assert_eq!((node(&stations, 1), node(&stations, 2)), (Some("other"), Some("other")));
    stations.due(at(21), |_| false);
    assert_eq!(
        (node(&stations, 1), node(&stations, 2), node(&stations, 9)),
        (Some("other"), None, Some("me"))
    );
    // What stands under our name without our knowing is from an earlier life.
    stations.drain();
    stations.listed(at(22), &all, vec![((vni(), mac(7)), "me".to_owned(), record(&[], 1)), one(1)]);
    assert_eq!(stations.drain()[0], Change::Withdraw { vni: vni(), mac: mac(7) });
}

#[test]
fn a_station_on_two_nodes_is_named_once_and_left_alone_for_a_while() {
    let mut stations = Stations::new("me", LEASE);
    let mut sequence = 0;
    let mut duplicates = 0;
    let mut last = Vec::new();
    for second in 0..60 {
        stations.local(at(second), vni(), mac(1), &[], "mine");
        last = stations.drain();
        for change in &last {
            match change {
                Change::Claim { record, .. } => sequence = record.sequence,
                Change::Duplicate { here, there, their_port, .. } => {
                    assert_eq!(
                        (here.as_str(), there.as_str(), their_port.as_str()),
                        ("mine", "other", "theirs")
                    );
                    duplicates += 1;
                }
                _ => {}
            }
        }
        sequence += 1;
        stations.put(at(second), vni(), mac(1), "other", record(&[], sequence));
        stations.drain();
    }
    assert_eq!((duplicates, claims(&last).len()), (1, 0));
    stations.local(at(400), vni(), mac(1), &[], "mine");
    assert_eq!(claims(&stations.drain()).len(), 1);
}

#[test]
fn a_vni_that_is_not_watched_any_more_is_forgotten_but_for_what_is_here() {
    let mut stations = Stations::new("me", LEASE);
    stations.put(at(0), vni(), mac(1), "other", record(&[ip(1)], 1));
    stations.local(at(0), vni(), mac(2), &[], "a");
    stations.forget(vni());
    assert_eq!((node(&stations, 1), node(&stations, 2)), (None, Some("me")));
}

#[test]
fn what_came_before_the_first_listing_came_from_where_that_says_it_is() {
    let mut stations = Stations::new("me", LEASE);
    let all = vni()..=vni();
    stations.local(at(0), vni(), mac(1), &[ip(1)], "a");
    stations.local(at(0), vni(), mac(2), &[ip(9)], "a");
    stations.drain();
    let theirs = |last, ips: &[IpAddr], sequence| ((vni(), mac(last)), "b".to_owned(), record(ips, sequence));
    stations.listed(at(1), &all, vec![theirs(1, &[ip(1)], 1), theirs(8, &[ip(9)], 6)]);
    assert_eq!(claims(&stations.drain()), [2, 7]);
    assert_eq!((node(&stations, 1), stations.address(vni(), ip(9))), (Some("me"), Some(mac(2))));
    // Later ones know better than we do.
    stations.listed(at(2), &all, vec![theirs(1, &[ip(1)], 3)]);
    assert_eq!((claims(&stations.drain()), node(&stations, 1)), (vec![0], Some("b")));
}

#[test]
fn an_address_that_goes_to_and_fro_is_followed_and_not_for_ever() {
    let mut stations = Stations::new("me", LEASE);
    let mut sequence = 1;
    stations.local(at(0), vni(), mac(1), &[ip(9)], "a");
    let mut back = 0;
    for second in 1..60 {
        sequence += 2;
        stations.put(at(second), vni(), mac(2), "other", record(&[ip(9)], sequence));
        assert_eq!(stations.address(vni(), ip(9)), Some(mac(2)));
        // It is seen without using the address: no sign that it has it.
        stations.local(at(second), vni(), mac(1), &[], "a");
        assert_eq!(stations.address(vni(), ip(9)), Some(mac(2)));
        stations.local(at(second), vni(), mac(1), &[ip(9)], "a");
        back += usize::from(stations.address(vni(), ip(9)) == Some(mac(1)));
    }
    assert_eq!(back, MOVES);
}

#[test]
fn a_claim_that_the_store_lost_loses_against_one_that_it_has() {
    let mut stations = Stations::new("me", LEASE);
    stations.put(at(0), vni(), mac(1), "cut-off", record(&[ip(1)], 7));
    stations.deleted(at(0), vni(), mac(1), "cut-off");
    stations.due(at(1), |_| true);
    assert_eq!(node(&stations, 1), Some("cut-off"));
    stations.put(at(2), vni(), mac(1), "new", record(&[ip(1)], 1));
    assert_eq!(node(&stations, 1), Some("new"));
    stations.put(at(3), vni(), mac(1), "cut-off", record(&[ip(1)], 7));
    assert_eq!(node(&stations, 1), Some("cut-off"));
}

#[test]
fn the_highest_sequence_of_all_leaves_nobody_in_doubt() {
    let mut stations = Stations::new("me", LEASE);
    stations.put(at(0), vni(), mac(1), "a", record(&[], MAX_SEQUENCE));
    stations.put(at(0), vni(), mac(2), "z", record(&[], MAX_SEQUENCE));
    stations.local(at(1), vni(), mac(1), &[], "p");
    stations.local(at(1), vni(), mac(2), &[], "p");
    assert_eq!(claims(&stations.drain()), [MAX_SEQUENCE, 0, MAX_SEQUENCE]);
    assert_eq!((node(&stations, 1), node(&stations, 2)), (Some("a"), Some("me")));
}

#[test]
fn what_is_written_can_be_read_whatever_a_station_says() {
    let mut stations = Stations::new("me", LEASE);
    let odd = ["255.255.255.255", "224.0.0.1", "0.0.0.0", "::", "ff02::1", "::ffff:10.0.0.1", "10.0.0.1"];
    stations.local(at(0), vni(), mac(1), &odd.map(|ip| ip.parse().unwrap()), "p");
    let changes = stations.drain();
    let Some(Change::Claim { record, .. }) = changes.last() else { panic!("{changes:?}") };
    assert_eq!(record.ips, [ip(1)]);
    assert_eq!(StationRecord::from_json(&record.to_json()).as_ref(), Ok(record));
}

#[test]
fn somebody_with_our_name_is_not_fought_over_keys() {
    let mut stations = Stations::new("me", LEASE);
    stations.put(at(0), vni(), mac(1), "me", record(&[], 1));
    assert!(stations.drain().is_empty() && stations.macs().len() == 0);
}

#[test]
fn one_node_has_a_bound_and_others_are_not_kept_from_theirs() {
    let mut stations = Stations::new("me", LEASE);
    let wide = |n: usize| Mac::from_u64(0x0200_0000_0000 + n as u64);
    for round in 0..2 {
        for n in 0..=MAX_OF_NODE {
            stations.put(at(round), vni(), wide(n), "greedy", record(&[], 1));
        }
        stations.put(at(round), vni(), wide(MAX_OF_NODE), "other", record(&[ip(1)], 1));
        assert_eq!((stations.macs().len(), stations.ignored().is_some()), (MAX_OF_NODE + 1, true));
        stations.node_gone("greedy");
        stations.node_gone("other");
        assert_eq!((stations.macs().len(), stations.addresses().count(), stations.count), (0, 0, 0));
        stations.drain();
    }
}
