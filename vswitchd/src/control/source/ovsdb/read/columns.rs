//! One row, looked at by type: a column that is missing or holds another type says nothing, and nobody is hurt.
//!
//! Not here: what a column means.

use super::super::replica::{Atom, Database, Datum, Row, Uuid};
use std::borrow::Cow;

/// A row of a table.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a>(&'a Row);

impl<'a> Columns<'a> {
    /// The row itself.
    pub(crate) const fn new(row: &'a Row) -> Self {
        Self(row)
    }

    /// The row `uuid` of `table`.
    pub(crate) fn of(database: &'a Database, table: &str, uuid: &Uuid) -> Option<Self> {
        database.tables.get(table)?.get(uuid).map(Self)
    }

    fn keys(self, column: &str) -> &'a [Atom] {
        self.0.get(column).map_or(&[], |datum| &datum.keys)
    }

    /// Every column with what it holds, by name.
    pub(crate) fn all(self) -> impl Iterator<Item = (&'a str, &'a Datum)> {
        self.0.iter().map(|(column, datum)| (column.as_str(), datum))
    }

    /// A string, or the first of a set.
    pub(crate) fn text(self, column: &str) -> Option<&'a str> {
        self.keys(column).iter().find_map(text)
    }

    /// Every string of a set.
    pub(crate) fn texts(self, column: &str) -> impl Iterator<Item = &'a str> {
        self.keys(column).iter().filter_map(text)
    }

    /// An integer, or the first of a set.
    pub(crate) fn integer(self, column: &str) -> Option<i64> {
        self.integers(column).next()
    }

    /// Every integer of a set.
    pub(crate) fn integers(self, column: &str) -> impl Iterator<Item = i64> {
        self.keys(column).iter().filter_map(|atom| match atom {
            Atom::Integer(number) => Some(*number),
            _ => None,
        })
    }

    /// Whether the column says true.
    pub(crate) fn is_true(self, column: &str) -> bool {
        matches!(self.keys(column).first(), Some(Atom::Boolean(true)))
    }

    /// Every reference of a set, or every one that is a value of a map.
    pub(crate) fn references(self, column: &str) -> impl Iterator<Item = &'a Uuid> {
        let datum = self.0.get(column);
        let atoms = datum.map_or(&[][..], |datum| datum.values.as_deref().unwrap_or(&datum.keys));
        atoms.iter().filter_map(|atom| match atom {
            Atom::Uuid(uuid) => Some(uuid),
            _ => None,
        })
    }

    /// Whether a set or a map has anything in it.
    pub(crate) fn says(self, column: &str) -> bool {
        !self.keys(column).is_empty()
    }

    /// The pairs of a map from string to string.
    pub(crate) fn pairs(self, column: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let datum = self.0.get(column);
        let values = datum.and_then(|datum| datum.values.as_deref()).unwrap_or_default();
        self.keys(column).iter().zip(values).filter_map(|(key, value)| Some((text(key)?, text(value)?)))
    }

    /// The string that a map has behind `key`.
    pub(crate) fn option(self, column: &str, key: &str) -> Option<&'a str> {
        self.pairs(column).find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// The decimal number that a map has behind `key`; whatever else stands there says nothing, as in Open vSwitch.
    pub(crate) fn number(self, column: &str, key: &str) -> Option<i64> {
        self.option(column, key)?.trim().parse().ok()
    }

    /// Whether a map has `true` behind `key`.
    pub(crate) fn flag(self, column: &str, key: &str) -> bool {
        self.option(column, key) == Some("true")
    }
}

fn text(atom: &Atom) -> Option<&str> {
    match atom {
        Atom::String(text) => Some(text),
        _ => None,
    }
}

/// `text` for a sentence: on one line, and 64 characters of it at most.
pub(crate) fn short(text: &str) -> Cow<'_, str> {
    const MOST: usize = 64;
    if text.len() <= MOST && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    Cow::Owned(shown)
}
