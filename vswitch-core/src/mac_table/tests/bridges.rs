//! Limits and ageing times of single bridges.

use super::*;

fn of(bridge: u8, vlan: u16) -> Segment {
    Segment::new(bridge, Vlan::new(vlan).unwrap()).unwrap()
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn a_bridge_at_its_limit_takes_from_its_own_port_with_the_most_entries() {
    for limit in [100, 5000] {
        let table = table(limit);
        table.set_bridge(1, Some(10), None);
        // Port 1 is in bridge 0 and has more than anybody; ports 2 and 3 are in bridge 1.
        (0..40).for_each(|n| assert_eq!(table.learn(at(1), of(0, 1), mac(n), port(1)), New));
        (0..3).for_each(|n| assert_eq!(table.learn(at(2), of(1, 1), mac(100 + n), port(2)), New));
        (0..30).for_each(|n| assert_eq!(table.learn(at(3), of(1, 2), mac(200 + n), port(3)), New));
        let counts = [1, 2, 3].map(|number| table.entries_of(port(number)));
        assert_eq!(counts, [40, 3, 7], "{limit}");
        // The youngest are kept.
        assert_eq!(table.lookup(at(3), of(1, 2), mac(229)), Some(port(3)));
        assert_eq!(table.lookup(at(3), of(1, 2), mac(200)), None);
        // Who has less than others gets room from them.
        assert_eq!(table.would_learn(at(4), of(1, 1), mac(103), port(2)), New);
        assert_eq!(table.learn(at(4), of(1, 1), mac(103), port(2)), New);
        assert_eq!([2, 3].map(|number| table.entries_of(port(number))), [4, 6], "{limit}");
        audit(&table);
    }
}

#[test]
fn a_lower_limit_holds_at_once_and_none_gives_room_again() {
    let table = table(100);
    (0..30).for_each(|n| assert_eq!(table.learn(at(1), of(2, 1), mac(n), port(4)), New));
    table.set_bridge(2, Some(12), None);
    assert_eq!(table.entries_of(port(4)), 12);
    audit(&table);
    table.set_bridge(2, None, None);
    (30..50).for_each(|n| assert_eq!(table.learn(at(2), of(2, 1), mac(n), port(4)), New));
    assert_eq!(table.entries_of(port(4)), 32);
    audit(&table);
}

#[test]
fn a_bridge_full_of_static_entries_learns_nothing_more() {
    let table = table(100);
    table.set_bridge(1, Some(10), None);
    assert_eq!(table.learn(at(1), of(1, 1), mac(99), port(1)), New);
    (0..10).for_each(|n| assert_eq!(table.add_static(of(1, 1), mac(n), port(2)), Ok(())));
    assert_eq!(table.entries_of(port(1)), 0, "a static entry takes the place of a learned one");
    assert_eq!(table.add_static(of(1, 1), mac(10), port(2)), Err(AddError::Full));
    let full = Learned::Refused(Refused::Full);
    assert_eq!(table.would_learn(at(1), of(1, 1), mac(11), port(1)), full);
    assert_eq!(table.learn(at(1), of(1, 1), mac(11), port(1)), full);
    assert_eq!(table.learn(at(1), of(0, 1), mac(11), port(3)), New, "another bridge");
    audit(&table);
}

#[test]
fn a_bridge_ages_by_its_own_time() {
    for limit in [100, 5000] {
        let table = table(limit);
        table.set_bridge(1, None, seconds(20));
        table.set_bridge(2, None, seconds(3600));
        for (bridge, number) in [(0, 1), (1, 2), (2, 3)] {
            assert_eq!(table.learn(at(1000), of(bridge, 1), mac(1), port(number)), New);
        }
        let alive = |now| [0, 1, 2].map(|bridge| table.lookup(at(now), of(bridge, 1), mac(1)).is_some());
        assert_eq!(alive(1019), [true, true, true]);
        assert_eq!(alive(1020), [true, false, true]);
        assert_eq!(alive(1299), [true, false, true]);
        assert_eq!(alive(1300), [false, false, true]);
        assert_eq!(listed(&table, at(1300)).len(), 1);
        // What has aged out elsewhere is cleared though something older lives.
        table.sweep(at(1300), usize::MAX);
        assert_eq!(table.len(), 1, "{limit}");
        assert_eq!(table.learn(at(1300), of(2, 1), mac(1), port(3)), Same);
        assert_eq!(alive(4899), [false, false, true]);
        assert_eq!(alive(4900), [false, false, false]);
        audit(&table);
    }
}

#[test]
fn a_port_without_entries_belongs_to_no_bridge() {
    for limit in [100, 5000] {
        let table = table(limit);
        table.set_bridge(1, Some(10), None);
        (0..20).for_each(|n| assert_eq!(table.learn(at(1), of(0, 1), mac(n), port(1)), New));
        table.flush_port(port(1));
        audit(&table);
        (0..20).for_each(|n| assert_eq!(table.learn(at(1), of(1, 1), mac(n), port(1)), New));
        assert_eq!(table.entries_of(port(1)), 10, "{limit}");
        table.flush_segment(of(1, 1));
        table.forget_port(port(1));
        audit(&table);
    }
}
