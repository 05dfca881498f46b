//! Rows follow what a server tells of them: `update` (RFC 7047 §4.1.6) and `update2`, `update3` (ovsdb-server(7)).
//!
//! Not here: asking for it.

use super::replica::{Atom, Database, Datum, Row, Uuid};
use super::schema::{Schema, is_state};
use serde_json::Value;
use std::cmp::Ordering;

/// The form in which rows are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Whole rows, old and new.
    Rows,
    /// What differs.
    Differences,
}

/// Changes rows as `updates` tells; whether any wish may have changed.
///
/// # Errors
/// What of it cannot be understood, in a sentence: the rows cannot be trusted any more.
pub(super) fn apply(
    database: &mut Database,
    schema: &Schema,
    form: Form,
    updates: &Value,
) -> Result<bool, String> {
    let tables = updates.as_object().ok_or("an update is no object")?;
    let mut wishes = false;
    for (table, rows) in tables {
        let told = rows.as_object().ok_or("an update of a table is no object")?;
        let rows = database.tables.entry(table.clone()).or_default();
        for (uuid, update) in told {
            let uuid: Uuid = uuid.parse().map_err(|error| format!("table {table}: {error}"))?;
            let update = update.as_object().ok_or("an update of a row is no object")?;
            let told = |word: &str| update.get(word).filter(|value| !value.is_null());
            match form {
                Form::Rows => match told("new") {
                    Some(new) => {
                        let new = row(new)?;
                        let old = rows.insert(uuid, new.clone()).unwrap_or_default();
                        let changed = new.iter().filter(|(column, datum)| old.get(*column) != Some(datum));
                        wishes |= old.is_empty() || !is_state(table, changed.map(|(column, _)| column));
                    }
                    None => wishes |= rows.remove(&uuid).is_some(),
                },
                Form::Differences => {
                    if let Some(new) = told("initial").or_else(|| told("insert")) {
                        rows.insert(uuid, row(new)?);
                        wishes = true;
                    } else if let Some(changes) = told("modify") {
                        let changes = row(changes)?;
                        wishes |= !is_state(table, changes.keys());
                        let known = rows.get_mut(&uuid).ok_or("a row is changed that is not there")?;
                        for (column, change) in changes {
                            modify(known, column.clone(), change, schema.holds_many(table, &column));
                        }
                    } else if update.contains_key("delete") {
                        wishes |= rows.remove(&uuid).is_some();
                    }
                }
            }
        }
    }
    Ok(wishes)
}

fn row(columns: &Value) -> Result<Row, String> {
    let columns = columns.as_object().ok_or("a row is no object")?;
    let datum = |(column, value): (&String, &Value)| {
        let datum = Datum::from_json(value).map_err(|error| format!("column {column}: {error}"))?;
        Ok((column.clone(), datum))
    };
    columns.iter().map(datum).collect()
}

/// Changes a column: a single value is replaced; of a set, what is told came if it was not there and went if it was;
/// of a map, a key came, went with the value it had, or has another.
fn modify(row: &mut Row, column: String, change: Datum, many: bool) {
    let known = row.entry(column).or_insert(Datum { keys: Vec::new(), values: None });
    if !many {
        *known = change;
        return;
    }
    let keys = std::mem::take(&mut known.keys);
    *known = match change.values {
        None => {
            let members = |keys: Vec<Atom>| keys.into_iter().map(|key| (key, ())).collect();
            let (keys, _) =
                merge::<()>(members(keys), members(change.keys)).into_iter().unzip::<_, _, _, Vec<_>>();
            Datum { keys, values: None }
        }
        Some(values) => {
            let pairs = keys.into_iter().zip(known.values.take().unwrap_or_default()).collect();
            let (keys, values) =
                merge(pairs, change.keys.into_iter().zip(values).collect()).into_iter().unzip();
            Datum { keys, values: Some(values) }
        }
    };
}

/// What `known` is after `changes`, in rising order, as a server tells a whole set; in as many steps as there are members.
fn merge<V: PartialEq>(mut known: Vec<(Atom, V)>, mut changes: Vec<(Atom, V)>) -> Vec<(Atom, V)> {
    known.sort_by(|(a, _), (b, _)| order(a, b));
    changes.sort_by(|(a, _), (b, _)| order(a, b));
    let mut merged = Vec::with_capacity(known.len().max(changes.len()));
    let (mut known, mut changes) = (known.into_iter().peekable(), changes.into_iter().peekable());
    loop {
        let first = match (known.peek(), changes.peek()) {
            (Some((a, _)), Some((b, _))) => order(a, b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return merged,
        };
        match first {
            Ordering::Less => merged.extend(known.next()),
            Ordering::Greater => merged.extend(changes.next()),
            Ordering::Equal => {
                let before = known.next();
                let change = changes.next();
                if change != before {
                    merged.extend(change);
                }
            }
        }
    }
}

/// Atoms of one kind in rising order, and the kinds in some.
fn order(a: &Atom, b: &Atom) -> Ordering {
    const fn kind(atom: &Atom) -> u8 {
        match atom {
            Atom::Integer(_) => 0,
            Atom::Real(_) => 1,
            Atom::Boolean(_) => 2,
            Atom::String(_) => 3,
            Atom::Uuid(_) => 4,
        }
    }
    match (a, b) {
        (Atom::Integer(a), Atom::Integer(b)) => a.cmp(b),
        (Atom::Boolean(a), Atom::Boolean(b)) => a.cmp(b),
        (Atom::String(a), Atom::String(b)) => a.cmp(b),
        (Atom::Uuid(a), Atom::Uuid(b)) => a.cmp(b),
        (Atom::Real(a), Atom::Real(b)) => a.total_cmp(b),
        (a, b) => kind(a).cmp(&kind(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ROW: &str = "550e8400-e29b-41d4-a716-446655440000";

    fn schema() -> Schema {
        let many = json!({"type": {"key": "string", "min": 0, "max": "unlimited"}});
        let one = json!({"type": {"key": "integer", "min": 0, "max": 1}});
        let columns = json!({"trunks": many, "other_config": many, "tag": one});
        let tables = json!({"Open_vSwitch": {"columns": {}}, "Port": {"columns": columns}});
        Schema::read(&json!({ "version": "1", "tables": tables })).unwrap()
    }

    fn told(database: &mut Database, change: &Value) -> Result<bool, String> {
        apply(database, &schema(), Form::Differences, &json!({"Port": {ROW: change}}))
    }

    fn column(database: &Database, column: &str) -> Value {
        database.tables["Port"][&ROW.parse().unwrap()][column].to_json()
    }

    #[test]
    fn differences_of_sets_maps_and_single_values_are_told_apart() {
        let mut database = Database::default();
        let map = json!(["map", [["a", "1"], ["b", "2"]]]);
        told(&mut database, &json!({"insert": {"tag": 5, "trunks": ["set", [1, 2]], "other_config": map}}))
            .unwrap();
        let change = json!(["map", [["a", "1"], ["b", "3"], ["c", "4"]]]);
        let changes = json!({"tag": ["set", []], "trunks": ["set", [2, 3]], "other_config": change});
        assert_eq!(told(&mut database, &json!({ "modify": changes })), Ok(true));
        assert_eq!(column(&database, "tag"), json!(["set", []]));
        assert_eq!(column(&database, "trunks"), json!(["set", [1, 3]]));
        assert_eq!(column(&database, "other_config"), json!(["map", [["b", "3"], ["c", "4"]]]));
        assert_eq!(told(&mut database, &json!({ "modify": {"trunks": 3} })), Ok(true));
        assert_eq!(column(&database, "trunks"), json!(1));
        assert_eq!(told(&mut database, &json!({ "delete": null })), Ok(true));
        assert!(database.tables["Port"].is_empty());
        assert!(told(&mut database, &json!({ "modify": {"tag": 1} })).is_err());
    }

    #[test]
    fn a_set_of_a_hundred_thousand_is_changed_in_one_go() {
        let members = |range: std::ops::Range<u32>| json!(["set", range.collect::<Vec<_>>()]);
        let mut database = Database::default();
        told(&mut database, &json!({"insert": {"trunks": members(0..100_000)}})).unwrap();
        told(&mut database, &json!({"modify": {"trunks": members(50_000..150_000)}})).unwrap();
        let Value::Array(set) = column(&database, "trunks") else { panic!("no set") };
        let found = set[1].as_array().unwrap();
        assert_eq!((found.len(), &found[49_999], &found[50_000]), (100_000, &json!(49_999), &json!(100_000)));
    }

    #[test]
    fn what_we_wrote_ourselves_is_no_wish() {
        let mut database = Database::default();
        let told = |database: &mut Database, update: Value| {
            apply(database, &Schema::default(), Form::Rows, &json!({"Interface": {ROW: update}}))
        };
        assert_eq!(told(&mut database, json!({"new": {"name": "p1", "ofport": 1}})), Ok(true));
        assert_eq!(told(&mut database, json!({"new": {"name": "p1", "ofport": 2}})), Ok(false));
        assert_eq!(told(&mut database, json!({"new": {"name": "p2", "ofport": 2}})), Ok(true));
        assert_eq!(told(&mut database, json!({"old": {"name": "p2"}})), Ok(true));
        assert_eq!(told(&mut database, json!({"old": {"name": "p2"}})), Ok(false));
    }
}
