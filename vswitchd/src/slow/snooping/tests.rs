//! The table of groups, one behaviour at a time.

use super::*;
use std::net::Ipv4Addr;
use vswitch_core::Vlan;

const QUERY: Said = Said::Query;

fn at(seconds: u64) -> Instant {
    Instant::from_secs(seconds)
}

fn port(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn segment(bridge: u8, vlan: u16) -> Segment {
    Segment::new(bridge, Vlan::new(vlan).unwrap()).unwrap()
}

fn group(number: u8) -> IpAddr {
    Ipv4Addr::new(239, 0, 0, number).into()
}

fn joined(number: u8) -> Said {
    Said::Joined(group(number))
}

/// Bridge `number` with ports 1 to 4; 3 is sent everything and 4 all reports.
fn bridge(number: u8, limit: u32) -> SnoopedBridge {
    let port = |number, flood, flood_reports| (port(number), SnoopedPort { flood, flood_reports });
    let ports = [port(1, false, false), port(2, false, false), port(3, true, false), port(4, false, true)];
    let config = SnoopingConfig { ageing: Duration::from_secs(300), limit, flood_unregistered: true };
    SnoopedBridge { number, config, ports: ports.into() }
}

fn snooper(limit: u32) -> Snooper {
    let mut snooper = Snooper::default();
    assert!(!snooper.set(vec![bridge(1, limit)]));
    snooper
}

fn members(snooper: &Snooper, number: u8) -> Vec<u32> {
    let groups = snooper.groups();
    groups.members(segment(1, 10), group(number)).unwrap_or_default().iter().map(|port| port.get()).collect()
}

/// Both ways to look at the members agree.
fn audit(snooper: &Snooper) {
    for bridge in snooper.bridges.values() {
        let known = bridge.groups.iter().flat_map(|(key, group)| group.members.iter().map(move |m| (key, m)));
        let by_turn: BTreeMap<_, _> = known.map(|(key, (port, heard))| (heard.turn, (*key, *port))).collect();
        assert_eq!(by_turn, bridge.members_by_turn);
        let groups: BTreeMap<_, _> = bridge.groups.iter().map(|(key, group)| (group.turn, *key)).collect();
        assert_eq!(groups, bridge.groups_by_turn);
        assert!(bridge.groups.values().all(|group| !group.members.is_empty()));
    }
}

#[test]
fn a_port_is_a_member_from_its_report_until_it_leaves_or_is_silent() {
    let mut snooper = snooper(10);
    let here = segment(1, 10);
    assert!(snooper.hear(at(0), here, port(1), joined(1)));
    assert!(snooper.hear(at(10), here, port(2), joined(1)));
    assert!(!snooper.hear(at(20), here, port(1), joined(1)), "nothing new");
    assert_eq!(members(&snooper, 1), [1, 2]);
    assert!(snooper.groups().members(segment(1, 20), group(1)).is_none(), "another VLAN");
    assert_eq!(snooper.next_due(), Some(at(310)));
    assert!(!snooper.expire(at(309)));
    assert!(snooper.expire(at(310)));
    assert_eq!(members(&snooper, 1), [1]);
    assert!(snooper.hear(at(311), here, port(1), Said::Left(group(1))));
    assert!(!snooper.hear(at(311), here, port(1), Said::Left(group(1))));
    assert_eq!((snooper.len(), snooper.next_due()), (0, None));
    audit(&snooper);
}

#[test]
fn a_query_makes_a_port_a_routers_for_three_minutes() {
    let mut snooper = snooper(10);
    let here = segment(1, 10);
    assert!(snooper.hear(at(0), here, port(1), QUERY));
    assert!(!snooper.hear(at(100), here, port(1), QUERY));
    assert_eq!(snooper.groups().routers(here), [port(1)]);
    // It is sent all groups, so that it joins one says nothing.
    assert!(!snooper.hear(at(100), here, port(1), joined(1)));
    assert_eq!(snooper.next_due(), Some(at(280)));
    assert!(snooper.expire(at(280)));
    assert!(snooper.groups().routers(here).is_empty());
}

#[test]
fn ports_that_are_sent_everything_are_not_noted_and_those_with_many_hosts_do_not_leave_at_once() {
    let mut snooper = snooper(10);
    let here = segment(1, 10);
    for said in [joined(1), QUERY] {
        assert!(!snooper.hear(at(0), here, port(3), said));
    }
    assert!(snooper.hear(at(0), here, port(4), joined(1)));
    assert!(!snooper.hear(at(1), here, port(4), Said::Left(group(1))));
    assert_eq!(members(&snooper, 1), [4]);
    // Of a port or bridge that does not snoop nothing is noted either.
    assert!(!snooper.hear(at(1), here, port(9), joined(1)));
    assert!(!snooper.hear(at(1), segment(2, 10), port(1), joined(1)));
}

#[test]
fn a_full_table_gives_up_the_group_that_was_heard_of_longest_ago() {
    let mut snooper = snooper(3);
    let here = segment(1, 10);
    for number in 1..=3 {
        snooper.hear(at(u64::from(number)), here, port(1), joined(number));
    }
    snooper.hear(at(4), here, port(2), joined(1));
    assert!(snooper.hear(at(5), here, port(1), joined(4)));
    assert_eq!([1, 2, 3, 4].map(|number| members(&snooper, number).len()), [2, 0, 1, 1]);
    audit(&snooper);
    let shown: Vec<_> = snooper.list(at(10)).iter().map(|entry| (entry.group, entry.port.get())).collect();
    assert_eq!(shown, [(Some(group(3)), 1), (Some(group(1)), 1), (Some(group(1)), 2), (Some(group(4)), 1)]);
    // A smaller table holds at once.
    assert!(snooper.set(vec![bridge(1, 1)]));
    assert_eq!(snooper.len(), 1);
    audit(&snooper);
}

#[test]
fn what_is_known_stays_as_long_as_its_port_and_bridge_do() {
    let mut snooper = snooper(10);
    snooper.set(vec![bridge(1, 10), bridge(2, 10)]);
    for number in [1, 2] {
        snooper.hear(at(0), segment(number, 10), port(1), joined(1));
        snooper.hear(at(0), segment(number, 10), port(2), joined(1));
        snooper.hear(at(1), segment(number, 10), port(2), QUERY);
    }
    assert!(!snooper.set(vec![bridge(1, 10), bridge(2, 10)]));
    let mut smaller = bridge(1, 10);
    smaller.ports.remove(&port(1));
    assert!(snooper.set(vec![smaller.clone(), bridge(2, 10)]));
    assert_eq!(members(&snooper, 1), [2]);
    // A port that is sent everything from now on.
    smaller.ports.insert(port(2), SnoopedPort { flood: true, flood_reports: false });
    assert!(snooper.set(vec![smaller, bridge(2, 10)]));
    assert_eq!(snooper.len(), 3);
    assert!(snooper.flush(Some(2)));
    assert!(!snooper.flush(None));
    snooper.hear(at(5), segment(2, 10), port(1), joined(1));
    assert!(snooper.set(vec![]));
    assert_eq!(snooper.len(), 0);
    audit(&snooper);
}

#[test]
fn a_listing_tells_ages_groups_first_and_routers_last() {
    let mut snooper = snooper(10);
    let here = segment(1, 10);
    snooper.hear(at(0), here, port(2), QUERY);
    snooper.hear(at(5), here, port(1), joined(1));
    let entry = |port_number, group, seconds| GroupEntry {
        segment: here,
        port: port(port_number),
        group,
        age: Duration::from_secs(seconds),
    };
    assert_eq!(snooper.list(at(9)), [entry(1, Some(group(1)), 4), entry(2, None, 9)]);
}

/// Whatever comes in whatever order, both views agree and the table keeps to its size.
#[test]
fn any_messages_keep_the_table_in_order() {
    let mut snooper = snooper(5);
    let mut word: u64 = 0x9e37_79b9_7f4a_7c15;
    for step in 0..5000_u64 {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        let number = u8::try_from(word % 9).unwrap();
        let said = match word >> 8 & 7 {
            0 => QUERY,
            1 | 2 => Said::Left(group(number)),
            _ => joined(number),
        };
        let here = segment(1, if word & 0x1000 == 0 { 10 } else { 20 });
        snooper.hear(at(step), here, port(u32::try_from(word >> 16 & 3).unwrap() + 1), said);
        if word & 0xff_0000 == 0 {
            snooper.expire(at(step));
        }
        audit(&snooper);
        assert!(snooper.bridges.values().all(|bridge| bridge.groups.len() <= 5));
    }
}
