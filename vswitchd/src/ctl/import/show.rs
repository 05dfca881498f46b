//! A database from what `ovs-vsctl show` printed: bridges, their ports, their interfaces, and a few columns of each.
//!
//! Not here: the columns that `show` leaves out, which nobody can read in it.

use super::cell;
use crate::control::source::ovsdb::{Atom, Database, Datum, Row, Uuid};

/// What nobody can know from it.
pub(super) const PARTLY: &str = "\"ovs-vsctl show\" tells no more than tag, trunks, type, options and fail_mode: what \
                                 vlan_mode, other_config and others say is not known; \"ovsdb-client dump\" tells all";

/// Reads the text.
///
/// # Errors
/// What is wrong with it, one line.
pub(super) fn read(text: &str) -> Result<Database, String> {
    let mut tree = Tree::default();
    for (number, line) in text.lines().enumerate() {
        let (bare, depth) = (line.trim_start(), line.len() - line.trim_start().len());
        if !bare.trim_end().is_empty() {
            tree.line(bare.trim_end(), depth).map_err(|reason| format!("line {}: {reason}", number + 1))?;
        }
    }
    tree.finish()
}

/// Rows whose lines are still coming, the outermost first.
#[derive(Default)]
struct Tree {
    database: Database,
    open: Vec<Open>,
    last: u64,
}

struct Open {
    table: &'static str,
    depth: usize,
    uuid: Uuid,
    row: Row,
}

/// Tables that stand in one another, and the column of the outer row that refers to the inner.
const INSIDE: [(&str, &str, &str); 5] = [
    ("Bridge", "Open_vSwitch", "bridges"),
    ("Manager", "Open_vSwitch", "manager_options"),
    ("Port", "Bridge", "ports"),
    ("Controller", "Bridge", "controller"),
    ("Interface", "Port", "interfaces"),
];

impl Tree {
    fn line(&mut self, line: &str, depth: usize) -> Result<(), String> {
        while self.open.last().is_some_and(|open| open.depth >= depth) {
            self.close();
        }
        if self.open.is_empty() {
            let uuid = line.parse().map_err(|_| {
                "neither a title of a table, as \"ovsdb-client dump\" begins, nor a UUID, as \"ovs-vsctl show\"".to_owned()
            })?;
            self.open.push(Open { table: "Open_vSwitch", depth, uuid, row: Row::new() });
            return Ok(());
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(column) = word.strip_suffix(':') {
            let datum = cell::parse(rest)?;
            if let Some(open) = self.open.last_mut() {
                open.row.insert(column.to_owned(), datum);
            }
            return Ok(());
        }
        let known = INSIDE.iter().find(|(table, ..)| *table == word);
        let (table, outer, column) = known.ok_or_else(|| format!("{line:?} is not understood"))?;
        let uuid = self.next_uuid()?;
        let open = self.open.last_mut().filter(|open| open.table == *outer);
        let open = open.ok_or_else(|| format!("{line:?} does not stand in a {outer}"))?;
        let references =
            open.row.entry((*column).to_owned()).or_insert_with(|| Datum { keys: vec![], values: None });
        references.keys.push(Atom::Uuid(uuid));
        // The tools quote a name that could be taken for something else.
        let name = cell::parse(rest)?;
        let key = if matches!(*table, "Manager" | "Controller") { "target" } else { "name" };
        let row = Row::from([(key.to_owned(), name)]);
        self.open.push(Open { table, depth, uuid, row });
        Ok(())
    }

    /// `show` prints no UUID but one: others are made up.
    fn next_uuid(&mut self) -> Result<Uuid, String> {
        self.last += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.last).parse().map_err(|_| "too many rows".to_owned())
    }

    fn close(&mut self) {
        if let Some(Open { table, uuid, row, .. }) = self.open.pop() {
            self.database.tables.entry(table.to_owned()).or_default().insert(uuid, row);
        }
    }

    fn finish(mut self) -> Result<Database, String> {
        while !self.open.is_empty() {
            self.close();
        }
        if self.database.tables.is_empty() { Err("it is empty".to_owned()) } else { Ok(self.database) }
    }
}
