//! What holds of any rows of an Open vSwitch database, however wild: shared by the property tests and fuzzing.
//!
//! Not here: where wild rows come from.

use std::collections::{BTreeMap, BTreeSet};
use vswitchd::config::PortKind;
use vswitchd::control::source::ovsdb::{
    BridgeReport, Database, InterfaceReport, Operation, Report, Wish, read, write,
};

/// The most bytes of a name that a wish takes from a database.
const LONGEST: usize = 64 + "…".len();

/// Reads `database`, checks what must hold, and writes a report on what was read.
///
/// # Panics
/// When something does not hold.
pub fn ovsdb_rows_body(database: &Database) {
    let wish = read(database);
    assert_eq!(wish, read(database), "the same rows make the same wish");
    bounded(&wish);
    consistent(&wish);
    written_once(database, &report_on(&wish));
}

fn bounded(wish: &Wish) {
    assert!(wish.bridges.len() <= 15);
    assert!(wish.stats_interval_ms >= 5000);
    assert!(wish.complaints.len() <= 257);
    let sentences = wish.complaints.iter().chain(wish.refused.values());
    assert!(sentences.into_iter().all(|sentence| sentence.len() <= 4096));
    assert!(wish.complaints.iter().all(|sentence| !sentence.contains(char::is_control)), "one line each");
    for port in &wish.ports {
        assert!((1..=LONGEST).contains(&port.name.len()) && !port.name.contains(['/', '\0']), "{port:?}");
        if let PortKind::Internal | PortKind::System = port.kind {
            assert!(port.name.len() <= 15);
        }
        assert!(port.tag.is_none_or(|tag| tag <= 4094));
        for vlans in [&port.trunks, &port.cvlans].into_iter().flatten() {
            assert!(vlans.iter().all(|vlan| *vlan <= 4094) && vlans.is_sorted(), "{port:?}");
        }
        assert!(port.mtu.is_none_or(|mtu| (68..=65_521).contains(&mtu)));
        assert!(port.mac.is_none_or(|mac| !mac.is_group() && !mac.is_zero()));
    }
    assert!(wish.mirrors.iter().all(|mirror| mirror.name.len() <= 64 * 10 + 3));
}

fn consistent(wish: &Wish) {
    let names: Vec<&str> = wish.ports.iter().map(|port| port.name.as_str()).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "sorted, and each once");
    let ports: BTreeMap<&str, _> = names.iter().copied().zip(&wish.ports).collect();
    let bridges: BTreeSet<&str> = wish.bridges.iter().map(|bridge| bridge.name.as_str()).collect();
    assert_eq!(bridges.len(), wish.bridges.len());
    for bridge in &bridges {
        let local = ports[bridge];
        assert_eq!((&local.kind, local.bridge.as_deref()), (&PortKind::Internal, Some(*bridge)));
    }
    assert!(wish.ports.iter().all(|port| port.bridge.as_deref().is_some_and(|name| bridges.contains(name))));
    for name in wish.refused.keys() {
        assert!(!ports.contains_key(name.as_str()) || bridges.contains(name.as_str()), "{name:?}");
    }
    for (name, ofport) in &wish.ofports {
        assert!(ports.contains_key(name.as_str()) && !bridges.contains(name.as_str()));
        assert!([ofport.request, ofport.before].into_iter().flatten().all(|n| (1..=0xfeff).contains(&n)));
    }
    for mirror in &wish.mirrors {
        let selected = mirror.sources.iter().chain(&mirror.destinations);
        assert!(
            selected.into_iter().all(|name| ports[name.as_str()].bridge.as_ref() == Some(&mirror.bridge))
        );
    }
}

/// A report that all of `wish` is in force.
pub(crate) fn report_on(wish: &Wish) -> Report {
    let mut report = Report { system: wish.system.clone(), cur_cfg: wish.next_cfg, ..Report::default() };
    for (number, bridge) in (1..).zip(&wish.bridges) {
        report.bridges.insert(bridge.name.clone(), BridgeReport { datapath_id: number });
    }
    for (number, port) in (1..).zip(&wish.ports) {
        let interface =
            InterfaceReport { ofport: Some(number), mtu: Some(1500), ..InterfaceReport::default() };
        report.interfaces.insert(port.name.clone(), interface);
    }
    for (name, error) in &wish.refused {
        let interface = InterfaceReport { error: Some(error.clone()), ..InterfaceReport::default() };
        report.interfaces.insert(name.clone(), interface);
    }
    report
}

/// What was written once is not written again.
fn written_once(database: &Database, report: &Report) {
    let mut database = database.clone();
    for Operation::Update { table, uuid, row } in write(&database, report) {
        assert!(!row.contains_key("external_ids") && !row.contains_key("other_config"));
        let there = database.tables.get_mut(&table).and_then(|rows| rows.get_mut(&uuid));
        there.expect("a row that is there is written to").extend(row);
    }
    assert_eq!(write(&database, report), []);
}
