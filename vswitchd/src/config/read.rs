//! Reading a tree: typed looks at its values, and a report of everything that is wrong with them.
//!
//! A rule asks a [`Section`] for the keys it knows and refuses what it must; keys nobody asked for are unknown.
//! Not here: any rule.

use super::error::{ConfigError, ConfigErrors, Place, Warning};
use super::file::{Node, Span, Table, Value};
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// How many errors, and how many warnings, are told one by one.
const TOLD: usize = 100;

/// A file's name, its text, and the byte at which each line begins.
#[derive(Debug)]
struct Source<'a> {
    file: Arc<str>,
    text: &'a str,
    lines: Vec<usize>,
}

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Report<'a> {
    source: Option<Source<'a>>,
    errors: RefCell<Vec<(Option<usize>, String, String)>>,
    warnings: RefCell<Vec<(Option<usize>, String)>>,
}

impl<'a> Report<'a> {
    /// On words from nowhere.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// On the text of a file.
    pub(super) fn on_file(file: &str, text: &'a str) -> Self {
        let starts = text.match_indices('\n').map(|(newline, _)| newline + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        Self { source: Some(Source { file: file.into(), text, lines }), ..Self::default() }
    }

    /// Something is wrong.
    pub(super) fn error(&self, span: Option<&Span>, key: impl Into<String>, reason: impl Into<String>) {
        self.errors.borrow_mut().push((span.map(|span| span.start), key.into(), reason.into()));
    }

    /// Something is odd.
    pub(super) fn warn(&self, span: Option<&Span>, text: impl Into<String>) {
        self.warnings.borrow_mut().push((span.map(|span| span.start), text.into()));
    }

    /// How many errors there are.
    pub(super) fn len(&self) -> usize {
        self.errors.borrow().len()
    }

    /// Whether an error is about a key under `path`, as `segment`; asked of a long report, it may be.
    pub(super) fn has_error_under(&self, path: &str) -> bool {
        let errors = self.errors.borrow();
        errors.len() > TOLD
            || errors.iter().any(|(_, key, _)| {
                key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
    }

    /// Where byte `at` is.
    pub(super) fn place(&self, at: Option<usize>) -> Option<Place> {
        let source = self.source.as_ref()?;
        let at = at?;
        let line = source.lines.partition_point(|start| *start <= at);
        let before = source.text.get(*source.lines.get(line.checked_sub(1)?)?..at)?;
        Some(Place { file: Arc::clone(&source.file), line, column: before.chars().count() + 1 })
    }

    /// The warnings; or the errors, when there are any.
    pub(super) fn finish(self) -> Result<Vec<Warning>, ConfigErrors> {
        let mut errors = self.errors.take();
        errors.sort_by_key(|(at, ..)| *at);
        if errors.is_empty() {
            let mut warnings = self.warnings.take();
            warnings.sort_by_key(|(at, _)| *at);
            warnings.truncate(TOLD);
            let told = warnings.into_iter().map(|(at, text)| Warning { place: self.place(at), text });
            return Ok(told.collect());
        }
        let more = errors.len().saturating_sub(TOLD);
        let mut told: Vec<ConfigError> = errors
            .into_iter()
            .take(TOLD)
            .map(|(at, key, reason)| ConfigError { place: self.place(at), key, reason })
            .collect();
        if more > 0 {
            told.push(ConfigError { place: None, key: String::new(), reason: format!("and {more} more") });
        }
        Err(ConfigErrors::new(told))
    }
}

/// One table, whose keys are asked for by name.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// What it is in a key's path, as `port`; empty for the file itself.
    path: &'static str,
    /// What a message begins with, as `port "tap-a": `.
    subject: String,
    table: &'a Table,
    span: Option<&'a Span>,
    /// Where what is wrong with it goes.
    pub(super) report: &'a Report<'a>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) const fn new(
        path: &'static str,
        subject: String,
        table: &'a Table,
        span: Option<&'a Span>,
        report: &'a Report<'a>,
    ) -> Self {
        Self { path, subject, table, span, report, known: RefCell::new(Vec::new()) }
    }

    /// The value behind `key`, which is hereby known.
    pub(super) fn get(&self, key: &'static str) -> Option<Field<'_>> {
        self.known.borrow_mut().push(key);
        Some(Field { section: self, key, node: self.table.get(key)? })
    }

    /// The same; its absence is an error.
    pub(super) fn need(&self, key: &'static str) -> Option<Field<'_>> {
        let field = self.get(key);
        if field.is_none() {
            self.report.error(
                self.span,
                format!("{}.{key}", self.path),
                format!("{}{key} is missing", self.subject),
            );
        }
        field
    }

    /// Where it stands.
    pub(super) const fn span(&self) -> Option<&'a Span> {
        self.span
    }

    /// Whether `key` is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// The table `[key]` of the file.
    pub(super) fn table(&self, key: &'static str) -> Option<Section<'_>> {
        let field = self.get(key)?;
        match &field.node.value {
            Value::Table(table) => {
                let subject = format!("[{key}] ");
                Some(Section::new(key, subject, table, field.node.span.as_ref(), self.report))
            }
            Value::Array(_) => field.refuse_as(format!("[[{key}]] is a list; write [{key}], once")),
            _ => field.refuse_type(format!("a table [{key}] is expected")),
        }
    }

    /// The tables `[[key]]` of the file, each with its number from 1.
    pub(super) fn tables(&self, key: &'static str) -> Vec<(usize, &'a Table, Option<&'a Span>)> {
        self.known.borrow_mut().push(key);
        let Some(node) = self.table.get(key) else { return Vec::new() };
        let field = Field { section: self, key, node };
        let Value::Array(items) = &node.value else {
            let _: Option<()> = match node.value {
                Value::Table(_) => field.refuse_as(format!("[{key}] is one table; write [[{key}]]")),
                _ => field.refuse_type(format!("tables [[{key}]] are expected")),
            };
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            match &item.value {
                Value::Table(table) => tables.push((i + 1, table, item.span.as_ref())),
                _ => {
                    let item = Field { section: self, key, node: item };
                    let _: Option<()> = item.refuse_type(format!("a table [[{key}]] is expected"));
                }
            }
        }
        tables
    }

    /// Refuses the keys that nobody asked for. Call it behind the last `get`.
    pub(super) fn refuse_unknown(&self) {
        let known = self.known.borrow();
        for entry in self.table.0.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let nearest = if self.report.len() < TOLD { nearest(&entry.key, &known) } else { None };
            let advice = nearest.map_or_else(
                || format!("known are {}", known.join(", ")),
                |key| format!("did you mean {key:?}?"),
            );
            let path = if self.path.is_empty() { String::new() } else { format!("{}.", self.path) };
            let reason = format!("{}unknown key {:?}; {advice}", self.subject, entry.key);
            self.report.error(entry.key_span.as_ref(), format!("{path}{}", entry.key), reason);
        }
    }
}

/// One value behind a known key, or one item of its array.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    section: &'a Section<'a>,
    key: &'static str,
    node: &'a Node,
}

impl<'a> Field<'a> {
    /// The value.
    pub(super) const fn value(&self) -> &'a Value {
        &self.node.value
    }

    /// Where it stands.
    pub(super) const fn span(&self) -> Option<&'a Span> {
        self.node.span.as_ref()
    }

    /// What is wrong so far.
    pub(super) const fn report(&self) -> &'a Report<'a> {
        self.section.report
    }

    /// Refuses it: `port "tap-a": tag 4095 ` and `reason`. Always `None`, to be returned.
    pub(super) fn refuse<T>(&self, reason: impl Display) -> Option<T> {
        let shown = self.node.value.shown();
        let space = if shown.is_empty() { "" } else { " " };
        self.refuse_with_subject(&format!("{}{space}{shown} {reason}", self.key))
    }

    /// Refuses it for its type; `expected` is the second half of the sentence.
    pub(super) fn refuse_type<T>(&self, expected: impl Display) -> Option<T> {
        self.refuse(format!("is {}; {expected}", self.node.value.kind()))
    }

    /// Refuses it with a whole sentence of its own.
    pub(super) fn refuse_as<T>(&self, reason: impl Into<String>) -> Option<T> {
        self.section.report.error(self.span(), self.path(), reason);
        None
    }

    /// Refuses it with a sentence behind the subject, `port "tap-a": `.
    pub(super) fn refuse_with_subject<T>(&self, reason: &str) -> Option<T> {
        self.refuse_as(format!("{}{reason}", self.section.subject))
    }

    /// Says that it is odd, behind the subject.
    pub(super) fn warn(&self, text: impl Display) {
        self.section.report.warn(self.span(), format!("{}{text}", self.section.subject));
    }

    fn path(&self) -> String {
        let dot = if self.section.path.is_empty() { "" } else { "." };
        format!("{}{dot}{}", self.section.path, self.key)
    }

    /// A string.
    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::String(text) => Some(text),
            _ => self.refuse_type("a string is expected"),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        match self.node.value {
            Value::Boolean(yes) => Some(yes),
            _ => self.refuse_type("true or false is expected"),
        }
    }

    /// A whole number within `allowed`.
    pub(super) fn number<T: TryFrom<i64> + PartialOrd + Display>(
        &self,
        allowed: RangeInclusive<T>,
    ) -> Option<T> {
        let (low, high) = (allowed.start(), allowed.end());
        let Value::Integer(number) = self.node.value else {
            return self.refuse_type(format!("a number {low}..{high} is expected"));
        };
        match T::try_from(number) {
            Ok(number) if allowed.contains(&number) => Some(number),
            _ => self.refuse(format!("is out of range; {low}..{high} are allowed")),
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let allowed = || words.iter().map(|(word, _)| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let Value::String(text) = &self.node.value else {
            return self.refuse_type(format!("one of {} is expected", allowed()));
        };
        match words.iter().find(|(word, _)| word == text) {
            Some((_, meaning)) => Some(*meaning),
            None => self.refuse(format!("is unknown; {} are allowed", allowed())),
        }
    }

    /// The items of an array.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        match &self.node.value {
            Value::Array(items) => Some(items.iter().map(|node| Self { node, ..*self }).collect()),
            _ => self.refuse_type("an array is expected"),
        }
    }

    /// The items of an array, or the one value that stands for an array of one.
    pub(super) fn one_or_more(&self) -> Option<Vec<Self>> {
        let items = if matches!(self.node.value, Value::Array(_)) { self.items()? } else { vec![*self] };
        if items.is_empty() { self.refuse("is empty; at least one is expected") } else { Some(items) }
    }

    /// A name: 1..=`max` bytes, neither white space nor control characters.
    pub(super) fn name(&self, max: usize) -> Option<&'a str> {
        let text = self.text()?;
        if text.is_empty() || text.len() > max {
            return self.refuse(format!("has {} bytes; 1..{max} are allowed", text.len()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return self.refuse("holds white space or control characters; none are allowed");
        }
        Some(text)
    }

    /// The name of an interface, by the rules of Linux (`dev_valid_name`) and, so that it is taken as it
    /// stands, without the `%` that the kernel would replace by a number.
    pub(super) fn interface_name(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.is_empty() || text.len() > 15 {
            return self.refuse(format!("has {} bytes; an interface name has 1..15", text.len()));
        }
        // "all" and "default" name directories of /proc/sys/net that the kernel gives to no interface.
        if matches!(text, "." | ".." | "lo" | "all" | "default") {
            return self.refuse("is not free as an interface name");
        }
        if !text.bytes().all(|c| c.is_ascii_graphic()) || text.contains(['/', ':', '%']) {
            return self.refuse(
                "is not an interface name; printable ASCII without white space, \"/\", \":\" and \"%\" is allowed",
            );
        }
        Some(text)
    }

    /// An absolute path.
    pub(super) fn absolute_path(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.contains('\0') {
            return self.refuse("holds a zero byte");
        }
        if text.starts_with('/') {
            Some(text)
        } else {
            self.refuse("is not an absolute path, one that begins with \"/\"")
        }
    }

    /// A number within 0..=`max`, or a range in a string, as `"100-199"`. `what` names one of them.
    pub(super) fn range(&self, max: u32, what: &str) -> Option<RangeInclusive<u32>> {
        let allowed = |n: u32| n <= max;
        match &self.node.value {
            Value::Integer(number) => match u32::try_from(*number) {
                Ok(number) if allowed(number) => Some(number..=number),
                _ => self.refuse(format!("is not a {what}; 0..{max} are allowed")),
            },
            Value::String(text) => {
                let ends = text.split_once('-').and_then(|(low, high)| Some((decimal(low)?, decimal(high)?)));
                match ends {
                    None => self.refuse("is not a range; two numbers are expected, as in \"100-199\""),
                    Some((low, high)) if low > high => {
                        self.refuse("runs backwards; the lower number comes first")
                    }
                    Some((low, high)) => match (u32::try_from(low), u32::try_from(high)) {
                        (Ok(low), Ok(high)) if allowed(high) => Some(low..=high),
                        _ => {
                            let wrong = if low > u64::from(max) { low } else { high };
                            self.refuse(format!("holds {wrong}, which is not a {what}; 0..{max} are allowed"))
                        }
                    },
                }
            }
            _ => self.refuse_type(format!("a number 0..{max} or a range like \"100-199\" is expected")),
        }
    }

    /// A VLAN, 0..=4094.
    pub(super) fn vlan(&self) -> Option<u16> {
        match self.node.value {
            Value::Integer(_) => u16::try_from(*self.range(4094, "VLAN")?.start()).ok(),
            _ => self.refuse_type("a number 0..4094 is expected"),
        }
    }

    /// An array of VLANs and ranges of them, sorted, each once.
    pub(super) fn vlans(&self) -> Option<Vec<u16>> {
        let ranges: Vec<_> = self.items()?.iter().map(|item| item.range(4094, "VLAN")).collect();
        let mut vlans: Vec<u16> = Vec::new();
        for range in ranges {
            vlans.extend(range?.filter_map(|vlan| u16::try_from(vlan).ok()));
            if vlans.len() > 2 * 4095 {
                vlans.sort_unstable();
                vlans.dedup();
            }
        }
        vlans.sort_unstable();
        vlans.dedup();
        Some(vlans)
    }
}

/// A number in decimal digits and nothing else; one beyond 64 bits is as good as the largest.
fn decimal(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse().unwrap_or(u64::MAX))
}

/// The known key that `key` was probably meant to be: at most a third of its letters away.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let far = |known: &str| distance(key, known);
    known
        .iter()
        .map(|known| (far(known), *known))
        .min()
        .filter(|(far, known)| far * 3 <= known.len().max(3))
        .map(|(_, known)| known)
}

/// How many letters must be put in, taken out or replaced to make `a` of `b` (Levenshtein), or exchanged with
/// their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = usize::from(a[i - 1] != b[j - 1]);
                let mut least = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}
