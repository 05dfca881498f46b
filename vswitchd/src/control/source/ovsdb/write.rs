//! What is in force becomes operations on status columns, as ovs-vswitchd.conf.db(5) words them.
//!
//! Pure. Only what differs from the rows is written, only columns that tell how things are, and only rows that are
//! there: no wish and no `external_ids` is ever touched. Not here: the transaction around them (see `session.rs`).

use super::read::{Columns, SPANNING_TREE, short};
use super::replica::{Atom, Database, Datum, Operation, Row, Uuid};
use super::words::{InterfaceReport, Report};
use std::collections::BTreeMap;

/// The updates that make `database` say what `report` does, `cur_cfg` last. A row that `report` says nothing of
/// keeps what it says, but for a bridge: one that does not run has no `datapath_id`. None where `database` is another
/// than the one whose wish is in force, as when its file was replaced and control has not heard of it yet.
#[must_use]
pub fn write(database: &Database, report: &Report) -> Vec<Operation> {
    let mut operations = Vec::new();
    if database.system().map(|(uuid, _)| uuid.to_string()).unwrap_or_default() != report.system {
        return operations;
    }
    let mut update = |table: &str, columns_of: &dyn Fn(Columns<'_>) -> Vec<(&'static str, Datum)>| {
        for (uuid, row) in database.tables.get(table).into_iter().flatten() {
            let wanted = columns_of(Columns::new(row));
            operations.extend(difference(table, *uuid, row, wanted));
        }
    };
    update("Bridge", &|row| bridge(row, report));
    update("Interface", &|row| {
        let name = row.text("name").unwrap_or_default();
        report.interfaces.get(name).map(interface).unwrap_or_default()
    });
    let copied = mirror_counts(database, report);
    for (uuid, (frames, bytes)) in copied {
        let row = &database.tables["Mirror"][uuid];
        let counts = [("tx_bytes", bytes), ("tx_packets", frames)];
        let counts = counts.into_iter().map(|(key, count)| (text(key), integer(count)));
        operations.extend(difference("Mirror", *uuid, row, vec![("statistics", map(counts))]));
    }
    if let Some((uuid, row)) = database.system() {
        let columns = Columns::new(row);
        let (next, current) =
            (columns.integer("next_cfg").unwrap_or_default(), columns.integer("cur_cfg").unwrap_or_default());
        // It goes back only where somebody turned `next_cfg` back, and never says what nobody has wished.
        if report.cur_cfg <= next && (report.cur_cfg > current || current > next) {
            let wanted = vec![("cur_cfg", set(Some(Atom::Integer(report.cur_cfg))))];
            operations.extend(difference("Open_vSwitch", *uuid, row, wanted));
        }
    }
    operations
}

/// The update that gives `row` these columns; `None` where it has them.
fn difference(table: &str, uuid: Uuid, row: &Row, wanted: Vec<(&str, Datum)>) -> Option<Operation> {
    let nothing = set(None);
    // A server leaves out a column that is empty.
    let differs = |column: &str, wanted: &Datum| {
        let now = row.get(column).unwrap_or(&nothing);
        now != wanted && !(now.keys.is_empty() && wanted.keys.is_empty())
    };
    let row: Row = wanted
        .into_iter()
        .filter(|(column, datum)| differs(column, datum))
        .map(|(column, datum)| (column.to_owned(), datum))
        .collect();
    (!row.is_empty()).then(|| Operation::update(table, uuid, row))
}

fn bridge(row: Columns<'_>, report: &Report) -> Vec<(&'static str, Datum)> {
    let name = row.text("name").unwrap_or_default();
    let id = report.bridges.get(name).map(|bridge| Atom::String(format!("{:016x}", bridge.datapath_id)));
    let refusal = |wished: &str| {
        let error = row.is_true(wished).then(|| (text("error"), text(SPANNING_TREE)));
        map(error.into_iter())
    };
    vec![("datapath_id", set(id)), ("status", refusal("stp_enable")), ("rstp_status", refusal("rstp_enable"))]
}

fn interface(report: &InterfaceReport) -> Vec<(&'static str, Datum)> {
    let state = |up: Option<bool>| set(up.map(|up| text(if up { "up" } else { "down" })));
    let number = |number: Option<u64>| set(number.map(integer));
    let ofport = report.ofport.map_or(-1, i64::from);
    let mut columns = vec![
        ("admin_state", state(report.admin_up)),
        ("duplex", set(report.full_duplex.map(|full| text(if full { "full" } else { "half" })))),
        ("error", set(report.error.as_deref().map(text))),
        ("ifindex", number(report.ifindex.map(u64::from))),
        ("link_resets", number(report.link_resets)),
        ("link_speed", number(report.link_speed)),
        ("link_state", state(report.link_up)),
        ("mac_in_use", set(report.mac.map(|mac| Atom::String(mac.to_string())))),
        ("mtu", number(report.mtu.map(u64::from))),
        ("ofport", set(Some(Atom::Integer(ofport)))),
        ("status", map(report.status.iter().map(|(key, value)| (text(key), text(value))))),
    ];
    // Counters that nobody has asked for yet are not gone.
    if !report.statistics.is_empty() || report.ofport.is_none() {
        let counts = report.statistics.iter().map(|(key, count)| (text(key), integer(*count)));
        columns.push(("statistics", map(counts)));
    }
    columns
}

/// Frames and bytes by row of table `Mirror`.
fn mirror_counts<'a>(database: &'a Database, report: &Report) -> BTreeMap<&'a Uuid, (u64, u64)> {
    let mut counts = BTreeMap::new();
    if report.mirrors.is_empty() {
        return counts;
    }
    for row in database.tables.get("Bridge").into_iter().flat_map(BTreeMap::values) {
        let row = Columns::new(row);
        let bridge = row.text("name").unwrap_or_default();
        for uuid in row.references("mirrors") {
            let Some(mirror) = Columns::of(database, "Mirror", uuid) else { continue };
            let name = short(mirror.text("name").unwrap_or_default()).into_owned();
            if let Some(copied) = report.mirrors.get(&(bridge.to_owned(), name)) {
                counts.insert(uuid, *copied);
            }
        }
    }
    counts
}

fn text(text: &str) -> Atom {
    Atom::String(text.to_owned())
}

/// A database has no number above 2⁶³ - 1.
fn integer(number: u64) -> Atom {
    Atom::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A set of one, or of none.
fn set(atom: Option<Atom>) -> Datum {
    Datum { keys: atom.into_iter().collect(), values: None }
}

/// A map whose keys come in rising order.
fn map(pairs: impl Iterator<Item = (Atom, Atom)>) -> Datum {
    let (keys, values) = pairs.unzip();
    Datum { keys, values: Some(values) }
}

#[cfg(test)]
mod tests;
