//! Tables of rows as an Open vSwitch database holds them (RFC 7047 §3), and what changes them (§5.2).
//!
//! Not here: messages, and what a column means.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The name of a row (RFC 7047 §3.1), its first byte most significant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

/// Why a text is no UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID, like 550e8400-e29b-41d4-a716-446655440000")]
pub struct NotAUuid;

impl FromStr for Uuid {
    type Err = NotAUuid;

    fn from_str(text: &str) -> Result<Self, NotAUuid> {
        let dashes = [8, 13, 18, 23];
        let fits = text.len() == 36
            && text.bytes().enumerate().all(|(i, byte)| match byte {
                b'-' => dashes.contains(&i),
                _ => byte.is_ascii_hexdigit() && !dashes.contains(&i),
            });
        let digits = text.replace('-', "");
        let number = u128::from_str_radix(&digits, 16).ok().filter(|_| fits);
        number.map(Self).ok_or(NotAUuid)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
        write!(f, "{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
    }
}

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

/// Why a JSON value is none of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a value as RFC 7047 §5.1 has them")]
pub struct NotAValue;

impl Atom {
    /// The atom that `json` writes.
    ///
    /// # Errors
    /// It is none.
    pub fn from_json(json: &Value) -> Result<Self, NotAValue> {
        match json {
            Value::String(text) => Ok(Self::String(text.clone())),
            Value::Bool(value) => Ok(Self::Boolean(*value)),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => Ok(Self::Integer(integer)),
                None => number.as_f64().map(Self::Real).ok_or(NotAValue),
            },
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(kind), Value::String(text)] if kind == "uuid" => {
                    text.parse().map(Self::Uuid).map_err(|_| NotAValue)
                }
                _ => Err(NotAValue),
            },
            Value::Null | Value::Object(_) => Err(NotAValue),
        }
    }

    /// It as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Integer(number) => json!(number),
            Self::Real(number) => json!(number),
            Self::Boolean(value) => json!(value),
            Self::String(text) => json!(text),
            Self::Uuid(uuid) => json!(["uuid", uuid.to_string()]),
        }
    }
}

impl Datum {
    /// The value, set or map that `json` writes.
    ///
    /// # Errors
    /// It is none.
    pub fn from_json(json: &Value) -> Result<Self, NotAValue> {
        if let Value::Array(pair) = json
            && let [Value::String(kind), Value::Array(items)] = pair.as_slice()
        {
            match kind.as_str() {
                "set" => {
                    let keys = items.iter().map(Atom::from_json).collect::<Result<_, _>>()?;
                    return Ok(Self { keys, values: None });
                }
                "map" => {
                    let (mut keys, mut values) = (Vec::new(), Vec::new());
                    for item in items {
                        let [key, value] = item.as_array().map_or(&[][..], Vec::as_slice) else {
                            return Err(NotAValue);
                        };
                        keys.push(Atom::from_json(key)?);
                        values.push(Atom::from_json(value)?);
                    }
                    return Ok(Self { keys, values: Some(values) });
                }
                _ => return Err(NotAValue),
            }
        }
        Ok(Self { keys: vec![Atom::from_json(json)?], values: None })
    }

    /// It as JSON: a set of one is written as its member.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let atom = Atom::to_json;
        match (&self.values, self.keys.as_slice()) {
            (Some(values), keys) => {
                let pairs: Vec<Value> =
                    keys.iter().zip(values).map(|(key, value)| json!([atom(key), atom(value)])).collect();
                json!(["map", pairs])
            }
            (None, [one]) => atom(one),
            (None, keys) => json!(["set", keys.iter().map(atom).collect::<Vec<_>>()]),
        }
    }
}

/// Columns by name.
pub type Row = BTreeMap<String, Datum>;

/// Rows by table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Database {
    /// By name of the table.
    pub tables: BTreeMap<String, BTreeMap<Uuid, Row>>,
}

impl Database {
    /// The row of table `Open_vSwitch`, of which there is one at most where the schema is kept to.
    #[must_use]
    pub fn system(&self) -> Option<(&Uuid, &Row)> {
        self.tables.get("Open_vSwitch")?.first_key_value()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_read_as_it_is_written() {
        let text = "550e8400-e29b-41d4-a716-446655440000";
        assert_eq!(text.parse::<Uuid>().map(|uuid| uuid.to_string()).as_deref(), Ok(text));
        for text in [
            "",
            "550e8400-e29b-41d4-a716-44665544000",
            "550e8400e-29b-41d4-a716-446655440000",
            "+50e8400-e29b-41d4-a716-446655440000",
            "5é0e8400-e29b-41d4-a716-44665544000",
        ] {
            assert_eq!(text.parse::<Uuid>(), Err(NotAUuid), "{text}");
        }
    }

    #[test]
    fn values_are_read_as_they_are_written_and_nothing_else_is_a_value() {
        let uuid = json!(["uuid", "550e8400-e29b-41d4-a716-446655440000"]);
        for value in [
            json!(5),
            json!(-1.5),
            json!(true),
            json!("x"),
            uuid.clone(),
            json!(["set", []]),
            json!(["set", [1, 2]]),
            json!(["set", [uuid, uuid]]),
            json!(["map", []]),
            json!(["map", [["a", uuid], ["b", 5]]]),
        ] {
            assert_eq!(Datum::from_json(&value).map(|datum| datum.to_json()), Ok(value));
        }
        for value in [
            json!(null),
            json!({}),
            json!([]),
            json!(["set"]),
            json!(["set", 5]),
            json!(["set", [["set", []]]]),
            json!(["map", [5]]),
            json!(["map", [["a"]]]),
            json!(["map", [["a", "b", "c"]]]),
            json!(["uuid", "5"]),
            json!(["named-uuid", "a"]),
        ] {
            assert_eq!(Datum::from_json(&value), Err(NotAValue), "{value}");
        }
    }
}
