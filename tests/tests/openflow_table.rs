//! A bridge's flow table: commands, counts, timeouts, and what the core is told.
//!
//! Not here: bytes (see `openflow_any.rs`), and ovs-ofctl (see `openflow.rs`).
#![allow(clippy::unwrap_used, reason = "a test")]

use vswitch_core::switch::{RuleAction, RuleVlan};
use vswitch_core::{Instant, Mac, PortId};
use vswitchd::control::openflow::{
    Count, FlowAction, FlowCommand, FlowError, FlowMatch, FlowMod, FlowTable, FlowVlan, MAX_FLOWS,
};

const NONE: Count = Count { frames: 0, bytes: 0 };

fn at(secs: u64) -> Instant {
    Instant::from_secs(secs)
}

fn count(frames: u64) -> Count {
    Count { frames, bytes: frames * 100 }
}

fn from_port(number: u16) -> FlowMatch {
    FlowMatch { in_port: Some(number), ..FlowMatch::default() }
}

fn flow_mod(command: FlowCommand, matches: FlowMatch, priority: u16, actions: &[FlowAction]) -> FlowMod {
    FlowMod {
        command,
        matches,
        priority,
        actions: actions.to_vec(),
        cookie: 0,
        idle_timeout: 0,
        hard_timeout: 0,
        check_overlap: false,
        out_port: None,
    }
}

fn add(matches: FlowMatch, priority: u16, actions: &[FlowAction]) -> FlowMod {
    flow_mod(FlowCommand::Add, matches, priority, actions)
}

fn delete(matches: FlowMatch) -> FlowMod {
    flow_mod(FlowCommand::Delete { strict: false }, matches, 0, &[])
}

/// An empty table.
fn empty() -> FlowTable {
    FlowTable::new(1, true, at(0))
}

fn priorities(table: &FlowTable) -> Vec<u16> {
    table.flows().iter().map(|flow| flow.priority).collect()
}

#[test]
fn a_new_bridge_is_a_learning_switch_and_a_secure_one_has_no_flow() {
    let mut table = FlowTable::new(1, false, at(0));
    assert!(table.is_plain());
    assert_eq!(table.rules(|_| None), None);
    assert_eq!((table.flows().len(), table.flows()[0].priority), (1, 0));
    assert_eq!(empty().rules(|_| None), Some(Vec::new()));
    // Changing fail_mode begins anew, whatever was there; saying the same again does not.
    table.change(&add(from_port(1), 5, &[]), at(1)).unwrap();
    table.set_fail_secure(false, at(2));
    assert_eq!(table.flows().len(), 2);
    table.set_fail_secure(true, at(3));
    assert_eq!(table.flows().len(), 0);
    table.set_fail_secure(false, at(4));
    assert!(table.is_plain() && table.is_changed());
}

#[test]
fn one_normal_flow_for_every_frame_needs_no_rule_whatever_its_priority() {
    let mut table = empty();
    table.change(&add(FlowMatch::default(), 77, &[FlowAction::Normal]), at(0)).unwrap();
    assert_eq!(table.rules(|_| None), None);
    table.change(&add(from_port(1), 1, &[]), at(0)).unwrap();
    assert_eq!(table.rules(PortId::from_number).unwrap().len(), 2);
}

trait FromNumber {
    fn from_number(number: u16) -> Option<PortId>;
}

impl FromNumber for PortId {
    /// Ports 1 to 9 are there.
    fn from_number(number: u16) -> Option<PortId> {
        (1..10).contains(&number).then(|| Self::new(u32::from(number) + 100)).flatten()
    }
}

#[test]
fn rules_come_in_falling_priority_and_of_equal_ones_the_older_first() {
    let mut table = empty();
    for (port, priority) in [(1, 5), (2, 9), (3, 5), (4, 1)] {
        table.change(&add(from_port(port), priority, &[FlowAction::Flood]), at(0)).unwrap();
    }
    let ports: Vec<_> = table.flows().iter().map(|flow| flow.matches.in_port.unwrap()).collect();
    assert_eq!(ports, [2, 1, 3, 4]);
    let rules = table.rules(PortId::from_number).unwrap();
    assert_eq!(rules[0].matches.in_port, PortId::new(102));
    assert_eq!(rules[0].actions, [RuleAction::Flood]);
}

#[test]
fn a_rule_says_what_its_flow_says() {
    let (src, dst) = (Mac::new([2, 0, 0, 0, 0, 1]), Mac::BROADCAST);
    let matches = FlowMatch {
        in_port: Some(1),
        vlan: Some(FlowVlan::Vid(10)),
        pcp: Some(3),
        src: Some(src),
        dst: Some(dst),
        ethertype: Some(0x806),
    };
    let actions =
        [FlowAction::Output(2), FlowAction::Normal, FlowAction::InPort, FlowAction::Flood, FlowAction::All];
    let mut table = empty();
    table.change(&add(matches, 1, &actions), at(0)).unwrap();
    let untagged = FlowMatch { vlan: Some(FlowVlan::Untagged), ..FlowMatch::default() };
    table.change(&add(untagged, 0, &[]), at(0)).unwrap();
    let rules = table.rules(PortId::from_number).unwrap();
    let port = |number| PortId::new(number).unwrap();
    assert_eq!(rules[0].matches.in_port, Some(port(101)));
    assert_eq!((rules[0].matches.vlan, rules[0].matches.pcp), (Some(RuleVlan::Vid(10)), Some(3)));
    assert_eq!((rules[0].matches.src, rules[0].matches.dst), (Some(src), Some(dst)));
    assert_eq!(rules[0].matches.ethertype, Some(0x806));
    let flood = RuleAction::Flood;
    let expected = [RuleAction::Output(port(102)), RuleAction::Normal, RuleAction::InPort, flood, flood];
    assert_eq!(rules[0].actions, expected);
    assert_eq!(rules[1].matches.vlan, Some(RuleVlan::Untagged));
    assert_eq!(rules[1].actions, []);
}

#[test]
fn a_flow_for_frames_from_a_port_that_is_not_there_is_for_none_and_one_to_it_drops() {
    let mut table = empty();
    table.change(&add(from_port(77), 1, &[FlowAction::Normal]), at(0)).unwrap();
    table.change(&add(from_port(1), 1, &[FlowAction::Output(78)]), at(0)).unwrap();
    let rules = table.rules(PortId::from_number).unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].actions, []);
    assert_eq!(table.flows().len(), 2, "both are kept for when it comes");
    // A flow that is NORMAL for every frame counts them as one among others, also where the others are for none.
    for other in [from_port(77), FlowMatch::default()] {
        let mut table = empty();
        table.change(&add(from_port(77), 1, &[]), at(0)).unwrap();
        table.change(&add(other, 9, &[FlowAction::Normal, FlowAction::Output(78)]), at(0)).unwrap();
        table.change(&add(FlowMatch::default(), 0, &[FlowAction::Normal]), at(0)).unwrap();
        let rules = table.rules(PortId::from_number).unwrap();
        assert_eq!((rules.len(), &rules[0].actions[..]), (2, &[RuleAction::Normal][..]));
    }
}

#[test]
fn adding_a_flow_that_is_there_begins_its_counts_and_its_life_anew() {
    let mut table = empty();
    table.change(&add(from_port(1), 1, &[]), at(0)).unwrap();
    table.settle(|_| NONE, NONE, at(0));
    table.published();
    table.settle(|_| count(5), NONE, at(1));
    assert_eq!(table.flows()[0].count, count(5));
    let old = table.flows()[0].id;
    table.change(&add(from_port(1), 1, &[FlowAction::Normal]), at(2)).unwrap();
    let flow = &table.flows()[0];
    assert_eq!((flow.count, flow.created, table.flows().len()), (NONE, at(2), 1));
    assert_ne!(flow.id, old, "frames of the old one do not count for it");
    // The same match at another priority is another flow.
    table.change(&add(from_port(1), 2, &[]), at(2)).unwrap();
    assert_eq!(priorities(&table), [2, 1]);
}

#[test]
fn overlap_is_looked_for_at_the_same_priority_and_only_where_it_is_asked_for() {
    let checked = |matches, priority| FlowMod { check_overlap: true, ..add(matches, priority, &[]) };
    let tagged = FlowMatch { vlan: Some(FlowVlan::Vid(5)), ..FlowMatch::default() };
    let urgent = FlowMatch { pcp: Some(7), ..FlowMatch::default() };
    let untagged = FlowMatch { vlan: Some(FlowVlan::Untagged), ..FlowMatch::default() };
    let mut table = empty();
    table.change(&checked(from_port(1), 1), at(0)).unwrap();
    table.change(&checked(from_port(2), 1), at(0)).unwrap();
    assert_eq!(table.change(&checked(tagged, 1), at(0)), Err(FlowError::Overlap));
    assert_eq!(table.flows().len(), 2);
    table.change(&checked(tagged, 2), at(0)).unwrap();
    assert_eq!(table.change(&checked(urgent, 2), at(0)), Err(FlowError::Overlap));
    // The very same flow is replaced.
    table.change(&checked(tagged, 2), at(0)).unwrap();
    table.change(&add(tagged, 1, &[]), at(0)).unwrap();
    // No frame without a tag has a priority.
    table.change(&checked(urgent, 9), at(0)).unwrap();
    table.change(&checked(untagged, 9), at(0)).unwrap();
}

#[test]
fn a_change_keeps_counts_and_age_and_one_that_finds_nothing_adds() {
    let modify = |strict, matches, priority, actions: &[FlowAction]| FlowMod {
        cookie: 9,
        ..flow_mod(FlowCommand::Modify { strict }, matches, priority, actions)
    };
    let mut table = empty();
    let narrow = FlowMatch { ethertype: Some(0x800), ..from_port(1) };
    table.change(&add(narrow, 3, &[]), at(0)).unwrap();
    table.change(&add(from_port(1), 4, &[]), at(0)).unwrap();
    table.settle(|_| NONE, NONE, at(0));
    table.published();
    table.change(&modify(false, from_port(1), 99, &[FlowAction::Flood]), at(5)).unwrap();
    table.settle(|_| count(2), NONE, at(5));
    for flow in table.flows() {
        assert_eq!((&flow.actions[..], flow.cookie), (&[FlowAction::Flood][..], 9));
        assert_eq!((flow.count, flow.created), (count(2), at(0)));
    }
    assert_eq!(priorities(&table), [4, 3]);
    table.change(&modify(true, from_port(1), 4, &[]), at(6)).unwrap();
    assert_eq!(table.flows()[0].actions, []);
    assert_eq!(table.flows()[1].actions, [FlowAction::Flood]);
    table.change(&modify(true, from_port(1), 5, &[]), at(6)).unwrap();
    table.change(&modify(false, from_port(2), 6, &[]), at(6)).unwrap();
    assert_eq!(priorities(&table), [6, 5, 4, 3]);
}

#[test]
fn deleting_takes_what_is_covered_and_strictly_the_one_alone() {
    let narrow = FlowMatch { ethertype: Some(0x800), ..from_port(1) };
    let full = || {
        let mut table = empty();
        for (matches, priority, action) in [
            (narrow, 3, FlowAction::Output(2)),
            (from_port(1), 4, FlowAction::Normal),
            (from_port(2), 5, FlowAction::Output(2)),
            (FlowMatch::default(), 6, FlowAction::Flood),
        ] {
            table.change(&add(matches, priority, &[action]), at(0)).unwrap();
        }
        table
    };
    let left = |flow_mod: &FlowMod| {
        let mut table = full();
        table.change(flow_mod, at(1)).unwrap();
        priorities(&table)
    };
    assert_eq!(left(&delete(from_port(1))), [6, 5]);
    assert_eq!(left(&delete(FlowMatch::default())), [] as [u16; 0]);
    assert_eq!(left(&delete(from_port(9))), [6, 5, 4, 3]);
    let to = |out_port| FlowMod { out_port: Some(out_port), ..delete(FlowMatch::default()) };
    assert_eq!(left(&to(2)), [6, 4]);
    assert_eq!(left(&to(0xfffa)), [6, 5, 3]);
    assert_eq!(left(&to(0xfffb)), [5, 4, 3]);
    let strictly = |matches, priority| flow_mod(FlowCommand::Delete { strict: true }, matches, priority, &[]);
    assert_eq!(left(&strictly(from_port(1), 4)), [6, 5, 3]);
    assert_eq!(left(&strictly(from_port(1), 3)), [6, 5, 4, 3]);
}

#[test]
fn a_hard_timeout_counts_from_the_last_change_and_an_idle_one_from_the_last_frame() {
    let mut table = empty();
    table.change(&FlowMod { hard_timeout: 10, ..add(from_port(1), 1, &[]) }, at(0)).unwrap();
    table.change(&FlowMod { idle_timeout: 5, ..add(from_port(2), 2, &[]) }, at(0)).unwrap();
    let (hard, idle) = (table.flows()[1].id, table.flows()[0].id);
    table.settle(|_| NONE, NONE, at(0));
    table.published();
    assert_eq!(table.next_due(at(0)), Some(at(1)), "an idle timeout is looked at each second");
    // Frames for the idle one at 3, for the other all the time.
    let counted =
        |secs: u64| move |id: u32| if id == idle { count(u64::from(secs >= 3)) } else { count(secs) };
    for secs in 1..8 {
        table.settle(counted(secs), NONE, at(secs));
        table.expire(at(secs));
        assert_eq!(table.flows().len(), 2, "at {secs}");
    }
    table.settle(counted(8), NONE, at(8));
    table.expire(at(8));
    assert_eq!(table.flows().iter().map(|flow| flow.id).collect::<Vec<_>>(), [hard]);
    assert!(table.is_changed());
    assert_eq!(table.next_due(at(8)), Some(at(10)));
    let modify = flow_mod(FlowCommand::Modify { strict: false }, from_port(1), 1, &[FlowAction::Flood]);
    table.change(&modify, at(9)).unwrap();
    table.expire(at(10));
    assert_eq!(table.next_due(at(10)), Some(at(19)));
    table.expire(at(19));
    assert_eq!((table.flows().len(), table.next_due(at(19))), (0, None));
}

#[test]
fn a_learning_switch_is_counted_by_its_ports_and_goes_on_as_a_flow_among_others() {
    let mut table = FlowTable::new(1, false, at(0));
    // What its ports had received before it was there does not count.
    table.settle(|_| NONE, count(50), at(0));
    table.published();
    table.settle(|_| NONE, count(10), at(1));
    assert_eq!(table.flows()[0].count, count(10));
    // Frames between this and the change still are its own.
    table.change(&add(from_port(1), 5, &[]), at(2)).unwrap();
    table.settle(|_| NONE, count(3), at(2));
    table.published();
    assert_eq!(table.flows()[1].count, count(13));
    // From now on the core counts: 4 and 3 of 7 frames.
    let (special, normal) = (table.flows()[0].id, table.flows()[1].id);
    let counted = |id: u32| if id == special { count(4) } else { count(3) };
    table.settle(counted, count(7), at(3));
    assert_eq!((table.flows()[0].count, table.flows()[1].count), (count(4), count(16)));
    assert_eq!((table.matched(), table.looked_up()), (count(20), 70));
    // And back.
    table.change(&delete(from_port(1)), at(4)).unwrap();
    table.settle(counted, NONE, at(4));
    table.published();
    table.settle(counted, count(1), at(5));
    assert_eq!((table.flows()[0].id, table.flows()[0].count), (normal, count(17)));
}

#[test]
fn a_number_counts_for_nobody_else_before_the_core_has_forgotten_its_flow() {
    let mut table = empty();
    table.change(&add(from_port(1), 1, &[]), at(0)).unwrap();
    table.settle(|_| NONE, NONE, at(0));
    table.published();
    let id = table.flows()[0].id;
    table.change(&delete(from_port(1)), at(1)).unwrap();
    table.change(&add(from_port(2), 1, &[]), at(1)).unwrap();
    assert_ne!(table.flows()[0].id, id);
    table.settle(|_| count(8), NONE, at(1));
    table.published();
    table.change(&add(from_port(3), 1, &[]), at(2)).unwrap();
    assert_eq!(table.flows()[1].id, id, "the lowest that is free");
    table.settle(|_| count(9), NONE, at(2));
    table.published();
    table.settle(|_| count(11), NONE, at(3));
    assert_eq!(table.flows()[1].count, count(2), "what was counted before is another's");
    assert_eq!(table.flows()[0].count, count(3));
}

#[test]
fn a_full_table_refuses_and_numbers_of_all_bridges_are_apart_and_below_65536() {
    let mut ids = std::collections::BTreeSet::new();
    for bridge in [1, 8, 15] {
        let mut table = FlowTable::new(bridge, true, at(0));
        for number in 0..MAX_FLOWS {
            let priority = u16::try_from(number).unwrap();
            table.change(&add(FlowMatch::default(), priority, &[]), at(0)).unwrap();
        }
        assert_eq!(table.change(&add(from_port(1), 1, &[]), at(0)), Err(FlowError::Full));
        table.change(&add(FlowMatch::default(), 7, &[FlowAction::Flood]), at(0)).unwrap();
        ids.extend(table.flows().iter().map(|flow| flow.id));
        // All of them replaced: when their numbers have been used up, the core must hear of it first.
        table.change(&delete(FlowMatch::default()), at(1)).unwrap();
        let fill = |table: &mut FlowTable| {
            (0..MAX_FLOWS).find_map(|number| {
                table.change(&add(from_port(1), u16::try_from(number).unwrap(), &[]), at(1)).err()
            })
        };
        assert_eq!(fill(&mut table), Some(FlowError::Full));
        table.settle(|_| NONE, NONE, at(1));
        table.published();
        assert_eq!(fill(&mut table), None);
        ids.extend(table.flows().iter().map(|flow| flow.id));
    }
    assert!(ids.len() >= 3 * MAX_FLOWS);
    assert!(ids.last().is_some_and(|last| *last < 65_536));
    let first = |bridge| {
        let mut table = FlowTable::new(bridge, true, at(0));
        table.change(&add(from_port(1), 1, &[]), at(0)).unwrap();
        table.flows()[0].id
    };
    assert_eq!((first(1), first(15)), (0, 14), "a few flows have low numbers");
}
