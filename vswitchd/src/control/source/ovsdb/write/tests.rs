//! What is written back, and what is not touched.

use super::*;
use crate::control::source::ovsdb::BridgeReport;
use vswitch_core::Mac;

fn string(value: &str) -> Datum {
    set(Some(text(value)))
}

fn one(number: i64) -> Datum {
    set(Some(Atom::Integer(number)))
}

fn pairs(pairs: &[(&str, &str)]) -> Datum {
    map(pairs.iter().map(|(key, value)| (text(key), text(value))))
}

type Cells<'a> = Vec<(&'a str, Datum)>;

/// A database of these rows.
fn database(rows: &[(&str, u128, Cells<'_>)]) -> Database {
    let mut database = Database::default();
    for (table, uuid, cells) in rows {
        let row = cells.iter().map(|(column, datum)| ((*column).to_owned(), datum.clone())).collect();
        database.tables.entry((*table).to_owned()).or_default().insert(Uuid(*uuid), row);
    }
    database
}

/// The one update of a report on the interface p1, whose row has `cells` beside its name.
fn interface_update(cells: Cells<'_>, report: InterfaceReport) -> Option<Row> {
    let cells = [vec![("name", string("p1"))], cells].concat();
    let database = database(&[("Interface", 1, cells)]);
    let interfaces = BTreeMap::from([("p1".to_owned(), report)]);
    let mut operations = write(&database, &Report { interfaces, ..Report::default() });
    assert!(operations.len() <= 1);
    operations.pop().map(|operation| {
        let Operation::Update { row, .. } = operation;
        row
    })
}

fn row(cells: Cells<'_>) -> Row {
    cells.into_iter().map(|(column, datum)| (column.to_owned(), datum)).collect()
}

#[test]
fn every_status_column_of_an_interface_is_written_in_open_vswitchs_words() {
    let report = InterfaceReport {
        ofport: Some(3),
        error: None,
        mac: Some(Mac::new([2, 0, 0, 0, 0, 10])),
        mtu: Some(1500),
        ifindex: Some(7),
        admin_up: Some(true),
        link_up: Some(false),
        link_resets: Some(2),
        link_speed: Some(10_000_000_000),
        full_duplex: Some(true),
        statistics: BTreeMap::from([("rx_packets".to_owned(), 5), ("rx_bytes".to_owned(), u64::MAX)]),
        status: BTreeMap::from([("driver_name".to_owned(), "tun".to_owned())]),
    };
    let counts = [("rx_bytes", i64::MAX), ("rx_packets", 5)].map(|(k, n)| (text(k), Atom::Integer(n)));
    let expected = row(vec![
        ("ofport", one(3)),
        ("mac_in_use", string("02:00:00:00:00:0a")),
        ("mtu", one(1500)),
        ("ifindex", one(7)),
        ("admin_state", string("up")),
        ("link_state", string("down")),
        ("link_resets", one(2)),
        ("link_speed", one(10_000_000_000)),
        ("duplex", string("full")),
        ("statistics", map(counts.into_iter())),
        ("status", pairs(&[("driver_name", "tun")])),
    ]);
    assert_eq!(interface_update(vec![], report.clone()), Some(expected.clone()));
    // Written once is written.
    let cells = expected.iter().map(|(column, datum)| (column.as_str(), datum.clone())).collect();
    assert_eq!(interface_update(cells, report), None);
}

#[test]
fn an_error_goes_when_its_cause_does() {
    let good = InterfaceReport { ofport: Some(1), ..InterfaceReport::default() };
    let bad = InterfaceReport { error: Some("p1: why not".to_owned()), ..InterfaceReport::default() };
    let was = vec![("ofport", one(1)), ("mtu", one(1500)), ("statistics", pairs(&[("rx_packets", "1")]))];
    let update = interface_update(was, bad).expect("an update");
    assert_eq!(update["error"], string("p1: why not"));
    assert_eq!(update["ofport"], one(-1));
    assert!(update["mtu"].keys.is_empty() && update["statistics"].keys.is_empty());
    let was = vec![("ofport", one(-1)), ("error", string("p1: why not"))];
    let update = interface_update(was, good).expect("an update");
    assert_eq!(update, row(vec![("error", set(None)), ("ofport", one(1))]));
}

#[test]
fn counters_stay_while_a_report_has_none() {
    let good = InterfaceReport { ofport: Some(1), ..InterfaceReport::default() };
    let was = vec![("ofport", one(1)), ("statistics", pairs(&[("rx_packets", "1")]))];
    assert_eq!(interface_update(was, good), None);
}

#[test]
fn rows_and_columns_that_a_report_says_nothing_of_are_not_touched() {
    let cells = || vec![("name", string("p1")), ("external_ids", pairs(&[("a", "b")])), ("mtu", one(9))];
    let database = database(&[("Interface", 1, cells()), ("Port", 2, cells()), ("Queue", 3, cells())]);
    assert_eq!(write(&database, &Report::default()), []);
}

#[test]
fn a_bridge_has_a_datapath_id_while_it_runs_and_says_what_it_does_not_offer() {
    let yes = || set(Some(Atom::Boolean(true)));
    let id = |id: &str| ("datapath_id", string(id));
    let error = || pairs(&[("error", SPANNING_TREE)]);
    for (cells, runs, expected) in [
        (vec![], true, Some(vec![id("00000000000000ff")])),
        (vec![id("00000000000000ff")], true, None),
        (vec![id("00000000000000ff")], false, Some(vec![("datapath_id", set(None))])),
        (vec![], false, None),
        (vec![("stp_enable", yes())], false, Some(vec![("status", error())])),
        (vec![("rstp_enable", yes())], false, Some(vec![("rstp_status", error())])),
        (vec![("status", error())], false, Some(vec![("status", map(std::iter::empty()))])),
    ] {
        let shown = format!("{cells:?} {runs}");
        let cells = [vec![("name", string("br0"))], cells].concat();
        let database = database(&[("Bridge", 1, cells)]);
        let mut report = Report::default();
        if runs {
            report.bridges.insert("br0".to_owned(), BridgeReport { datapath_id: 255 });
        }
        let expected = expected.map(|cells| Operation::update("Bridge", Uuid(1), row(cells)));
        assert_eq!(write(&database, &report), expected.into_iter().collect::<Vec<_>>(), "{shown}");
    }
}

#[test]
fn what_a_mirror_copied_is_written_to_its_row() {
    let mirrors = Datum { keys: vec![Atom::Uuid(Uuid(2))], values: None };
    let database = database(&[
        ("Bridge", 1, vec![("name", string("br0")), ("mirrors", mirrors)]),
        ("Mirror", 2, vec![("name", string("m"))]),
        ("Mirror", 3, vec![("name", string("m"))]),
    ]);
    let mirrors = BTreeMap::from([(("br0".to_owned(), "m".to_owned()), (7, 700))]);
    let counts = [("tx_bytes", 700), ("tx_packets", 7)].map(|(key, n)| (text(key), Atom::Integer(n)));
    let expected = Operation::update("Mirror", Uuid(2), row(vec![("statistics", map(counts.into_iter()))]));
    assert_eq!(write(&database, &Report { mirrors, ..Report::default() }), [expected]);
}

#[test]
fn cur_cfg_is_written_last_and_goes_back_only_with_next_cfg() {
    for (next, current, report, expected) in [
        (5, 4, 5, Some(5)),
        (6, 4, 5, Some(5)),
        (5, 5, 5, None),
        (5, 5, 0, None),
        (2, 5, 2, Some(2)),
        (1, 0, 8, None),
        (2, 5, 8, None),
    ] {
        let cells = vec![("next_cfg", one(next)), ("cur_cfg", one(current))];
        let database =
            database(&[("Open_vSwitch", 9, cells), ("Interface", 1, vec![("name", string("p1"))])]);
        let interfaces = BTreeMap::from([("p1".to_owned(), InterfaceReport::default())]);
        let system = Uuid(9).to_string();
        let mut report = Report { system, cur_cfg: report, interfaces, ..Report::default() };
        let operations = write(&database, &report);
        assert_eq!(operations.len(), 1 + usize::from(expected.is_some()));
        if let Some(expected) = expected {
            let expected = Operation::update("Open_vSwitch", Uuid(9), row(vec![("cur_cfg", one(expected))]));
            assert_eq!(operations.last(), Some(&expected));
        }
        // Of what another database wished nothing is written to this one.
        report.system = Uuid(8).to_string();
        assert_eq!(write(&database, &report), []);
    }
}
