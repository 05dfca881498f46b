//! A database from what `ovsdb-client dump` or `ovs-vsctl show` printed.
//!
//! Not here: the tree of `show` (see [`super::show`]).

use super::{cell, show};
use crate::control::source::ovsdb::{Atom, Database, Datum, Row};
use serde_json::{Deserializer, Value};

/// What came of a text.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) database: Database,
    /// What is missing in it for certain.
    pub(super) partly: Option<&'static str>,
}

/// Reads `text` as whichever of the two it is.
///
/// # Errors
/// What is wrong with it, one line.
pub(super) fn read(text: &str) -> Result<Read, String> {
    let first = text.trim_start();
    if first.starts_with("OVSDB ") {
        return Err(
            "this is the file of a database server; what \"ovsdb-client dump\" prints is expected, or \
                    the server's address behind --db"
                .to_owned(),
        );
    }
    let database = if first.starts_with('{') {
        json(first)?
    } else if first.lines().next().is_some_and(|line| line.ends_with(" table")) {
        tables(first)?
    } else {
        return show::read(text).map(|database| Read { database, partly: Some(show::PARTLY) });
    };
    if !database.tables.contains_key("Open_vSwitch") {
        return Err("there is no table Open_vSwitch in it".to_owned());
    }
    Ok(Read { database, partly: None })
}

/// Puts a row with its `_uuid` among its columns into `table`.
fn insert(database: &mut Database, table: &str, mut row: Row) -> Result<(), String> {
    let uuid = row.remove("_uuid").and_then(|datum| match datum.keys.as_slice() {
        [Atom::Uuid(uuid)] => Some(*uuid),
        _ => None,
    });
    let uuid = uuid.ok_or_else(|| {
        format!("a row of table {table} has no _uuid; the dump of the whole database is expected")
    })?;
    database.tables.entry(table.to_owned()).or_default().insert(uuid, row);
    Ok(())
}

/// `--format=json`: an object for each table.
fn json(text: &str) -> Result<Database, String> {
    let mut database = Database::default();
    for table in Deserializer::from_str(text).into_iter::<Value>() {
        let table = table.map_err(|error| format!("it is not JSON: {error}"))?;
        let unfit = || "one of its objects is no table".to_owned();
        let caption = table.get("caption").and_then(Value::as_str).ok_or_else(unfit)?;
        let name = caption.strip_suffix(" table").ok_or_else(unfit)?;
        let list = |key| table.get(key).and_then(Value::as_array).ok_or_else(unfit);
        let headings = list("headings")?;
        for cells in list("data")? {
            let cells = cells.as_array().filter(|cells| cells.len() == headings.len()).ok_or_else(unfit)?;
            let mut row = Row::new();
            for (heading, cell) in headings.iter().zip(cells) {
                let column = heading.as_str().ok_or_else(unfit)?;
                let datum = Datum::from_json(cell)
                    .map_err(|reason| format!("table {name}, column {column}: {reason}"))?;
                row.insert(column.to_owned(), datum);
            }
            insert(&mut database, name, row)?;
        }
    }
    Ok(database)
}

/// The default format: a title, headings, dashes as wide as the columns, rows; an empty line ends a table.
fn tables(text: &str) -> Result<Database, String> {
    let mut database = Database::default();
    let mut lines = text.lines();
    while let Some(title) = lines.next() {
        if title.trim().is_empty() {
            continue;
        }
        let name = title.strip_suffix(" table").ok_or_else(|| format!("{title:?} is no title of a table"))?;
        let headings = lines.next().ok_or_else(|| format!("table {name} has no headings"))?;
        let dashes = lines.next().filter(|line| line.starts_with('-'));
        let dashes = dashes.ok_or_else(|| format!("table {name} has no dashes under its headings"))?;
        let spans: Vec<_> = spans(dashes);
        let columns: Vec<&str> = headings.split_whitespace().collect();
        if columns.len() != spans.len() {
            return Err(format!("table {name} has {} headings over {} columns", columns.len(), spans.len()));
        }
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            let mut row = Row::new();
            for (i, (column, (from, to))) in columns.iter().zip(&spans).enumerate() {
                // Open vSwitch counts bytes, and trims the last column.
                let to = if i + 1 == columns.len() { line.len() } else { *to };
                let cell = line.get(*from..to.min(line.len())).unwrap_or_default();
                let datum =
                    cell::parse(cell).map_err(|reason| format!("table {name}, column {column}: {reason}"))?;
                row.insert((*column).to_owned(), datum);
            }
            insert(&mut database, name, row)?;
        }
    }
    Ok(database)
}

/// Where each run of dashes begins and ends.
fn spans(dashes: &str) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    let mut at = 0;
    for run in dashes.split(' ') {
        spans.push((at, at + run.len()));
        at += run.len() + 1;
    }
    spans
}
