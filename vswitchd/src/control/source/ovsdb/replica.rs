//! Tables of rows as an Open vSwitch database holds them (RFC 7047 §3), and what changes them (§5.2).
//!
//! Not here: JSON, and what a column means.

use std::collections::BTreeMap;

/// The name of a row (RFC 7047 §3.1), its first byte most significant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Atom {
    /// 64 bits with a sign.
    Integer(i64),
    /// 64 bits of floating point.
    Real(f64),
    /// True or false.
    Boolean(bool),
    /// UTF-8.
    String(String),
    /// A row.
    Uuid(Uuid),
}

/// What a column of a row holds: a value, a set, or a map where there are values.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    /// The value, the members of a set, or a map's keys.
    pub keys: Vec<Atom>,
    /// A map's values, as many as it has keys.
    pub values: Option<Vec<Atom>>,
}

/// Columns by name.
pub type Row = BTreeMap<String, Datum>;

/// Rows by table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Database {
    /// By name of the table.
    pub tables: BTreeMap<String, BTreeMap<Uuid, Row>>,
}

/// A change of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Gives columns of one row other values.
    Update {
        /// The name of the table.
        table: String,
        /// The row.
        uuid: Uuid,
        /// Its new columns.
        row: Row,
    },
}

impl Operation {
    /// Gives row `uuid` of `table` these columns.
    #[must_use]
    pub fn update(table: &str, uuid: Uuid, row: Row) -> Self {
        Self::Update { table: table.to_owned(), uuid, row }
    }
}
