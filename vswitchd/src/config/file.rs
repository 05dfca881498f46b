//! A configuration as typed: a tree of values, each with its place in the text.
//!
//! The only place that knows TOML. The words for one port can also come as JSON (the state file) or as
//! KEY=VALUE (`vswitchctl`); they become the same tree, so that one set of rules holds for all. Not here: what
//! any key means.

use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Bytes from..to of the text.
pub(super) type Span = Range<usize>;

/// A value and where it stands; nowhere, when it came from no file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) span: Option<Span>,
}

/// What can stand behind a key.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    /// A number that is no integer of 64 bits, as typed.
    Number(String),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

/// Keys and values, in the order of the text.
#[derive(Clone, Debug, Default)]
pub(super) struct Table(pub(super) Vec<Entry>);

/// One key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Option<Span>,
    pub(super) node: Node,
}

impl Value {
    /// What kind of value it is, with its article.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "a number",
            Self::Number(_) => "not a whole number of 64 bits",
            Self::Boolean(_) => "true or false",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }

    /// How a message shows it: as typed, and nothing for what is too long to show.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::String(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::Number(text) | Self::Datetime(text) => text.clone(),
            Self::Boolean(yes) => yes.to_string(),
            Self::Array(_) | Self::Table(_) => String::new(),
        }
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self { value, span: None }
    }
}

impl Table {
    /// The value behind `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The value behind `key`, if it is a string.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Puts `value` behind `key`, in place of what may be there.
    pub(super) fn set(&mut self, key: &str, value: Value) {
        self.unset(key);
        self.0.push(Entry { key: key.to_owned(), key_span: None, node: value.into() });
    }

    /// Takes `key` out.
    pub(super) fn unset(&mut self, key: &str) {
        self.0.retain(|entry| entry.key != key);
    }
}

/// A text that is not TOML: where, and why.
#[derive(Debug)]
pub(super) struct NotToml {
    pub(super) span: Option<Span>,
    pub(super) reason: String,
}

/// Reads TOML 1.1.
pub(super) fn parse(text: &str) -> Result<Table, NotToml> {
    let document = DeTable::parse(text).map_err(|error| NotToml {
        span: error.span(),
        reason: error.message().trim().replace('\n', ", "),
    })?;
    Ok(table(document.get_ref()))
}

fn table(from: &DeTable<'_>) -> Table {
    let mut entries: Vec<Entry> = from
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_span: Some(key.span()),
            node: Node { value: self::value(value.get_ref()), span: Some(value.span()) },
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.as_ref().map(|span| span.start));
    Table(entries)
}

fn value(from: &DeValue<'_>) -> Value {
    match from {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Number(number.to_string()), Value::Integer),
        DeValue::Float(number) => Value::Number(number.to_string()),
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(date) => Value::Datetime(date.to_string()),
        DeValue::Array(array) => Value::Array(
            array.iter().map(|item| Node { value: value(item.get_ref()), span: Some(item.span()) }).collect(),
        ),
        DeValue::Table(inner) => Value::Table(table(inner)),
    }
}

/// A JSON object as a table; null stands for a key that is not there. `None` when it is no object.
pub(super) fn from_json(json: &serde_json::Value) -> Option<Table> {
    let entries = json.as_object()?.iter().filter_map(|(key, value)| {
        Some(Entry { key: key.clone(), key_span: None, node: json_value(value)?.into() })
    });
    Some(Table(entries.collect()))
}

fn json_value(from: &serde_json::Value) -> Option<Value> {
    Some(match from {
        serde_json::Value::Null => return None,
        serde_json::Value::Bool(yes) => Value::Boolean(*yes),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Value::Number(number.to_string()), Value::Integer)
        }
        serde_json::Value::String(text) => Value::String(text.clone()),
        serde_json::Value::Array(array) => {
            Value::Array(array.iter().filter_map(json_value).map(Node::from).collect())
        }
        serde_json::Value::Object(_) => Value::Table(from_json(from)?),
    })
}

/// A table as a JSON object.
pub(super) fn to_json(table: &Table) -> serde_json::Value {
    table.0.iter().map(|entry| (entry.key.clone(), value_to_json(&entry.node.value))).collect()
}

fn value_to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) | Value::Number(text) | Value::Datetime(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Boolean(yes) => (*yes).into(),
        Value::Array(array) => array.iter().map(|node| value_to_json(&node.value)).collect(),
        Value::Table(table) => to_json(table),
    }
}
