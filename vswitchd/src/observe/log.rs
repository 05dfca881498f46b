//! What the daemon tells whoever runs it: one line per event, on stderr.
//!
//! For the control side only; nothing is ever logged per frame. A line that may repeat goes through
//! [`limited`]: one a second per key, and how many were held back. Not here: counters and events for programs.

use serde_json::Value;
use std::collections::HashMap;
use std::error::Error;
use std::fmt::Display;
use std::io::Write as _;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vswitch_core::Instant;

/// How much a line matters; `--log-level` shows the lines of its level and of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something works less than was meant.
    Warn,
    /// Something changed.
    Info,
    /// Why.
    Debug,
}

impl Level {
    const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    /// Its name, lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    /// `time LEVEL message key=value …`
    Text,
    /// One object per line: `time`, `level`, `message`, then the keys, whose values are strings.
    Json,
}

impl Format {
    const ALL: [Self; 2] = [Self::Text, Self::Json];

    const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// A word that `--log-level` or `--log-format` does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {word:?} is unknown; expected {allowed}")]
pub struct UnknownWord {
    what: &'static str,
    word: String,
    allowed: &'static str,
}

impl FromStr for Level {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|level| level.name() == word).ok_or_else(|| UnknownWord {
            what: "log level",
            word: word.to_owned(),
            allowed: "error, warn, info or debug",
        })
    }
}

impl FromStr for Format {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|format| format.name() == word).ok_or_else(|| UnknownWord {
            what: "log format",
            word: word.to_owned(),
            allowed: "text or json",
        })
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static FORMAT: AtomicU8 = AtomicU8::new(Format::Text as u8);
static LIMITER: Mutex<Option<Limiter>> = Mutex::new(None);

/// Sets what is shown and how; before that, `info` and `text`.
pub fn configure(level: Level, format: Format) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    FORMAT.store(format as u8, Ordering::Relaxed);
}

/// Sets what is shown from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether lines of `level` are shown.
#[must_use]
pub fn shows(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// What stands behind a message: keys, lower case with underscores, and values.
pub type Fields<'a> = &'a [(&'a str, &'a dyn Display)];

/// Logs a line of level `error`.
pub fn error(message: &str, fields: Fields<'_>) {
    log(Level::Error, message, fields);
}

/// Logs a line of level `warn`.
pub fn warn(message: &str, fields: Fields<'_>) {
    log(Level::Warn, message, fields);
}

/// Logs a line of level `info`.
pub fn info(message: &str, fields: Fields<'_>) {
    log(Level::Info, message, fields);
}

/// Logs a line of level `debug`.
pub fn debug(message: &str, fields: Fields<'_>) {
    log(Level::Debug, message, fields);
}

/// Logs a line, if its level is shown.
pub fn log(level: Level, message: &str, fields: Fields<'_>) {
    if shows(level) {
        let format =
            if FORMAT.load(Ordering::Relaxed) == Format::Json as u8 { Format::Json } else { Format::Text };
        let line = line(format, since_epoch(), level, message, fields);
        // There is nobody to tell that stderr is closed.
        drop(std::io::stderr().lock().write_all(line.as_bytes()));
    }
}

/// Logs a line unless one of the same `key` was logged within the last second. The next one that is logged
/// says under `suppressed` how many were not.
pub fn limited(level: Level, key: &str, message: &str, fields: Fields<'_>) {
    if !shows(level) {
        return;
    }
    let admitted = limiter(|limiter| limiter.admit(key, now()));
    match admitted {
        None => {}
        Some(0) => log(level, message, fields),
        Some(held_back) => {
            let mut all = fields.to_vec();
            all.push(("suppressed", &held_back));
            log(level, message, &all);
        }
    }
}

/// For a line that is dear to make: whether [`limited`] would log it, and how many of its `key` were held back
/// before. Whoever asks logs it.
#[must_use]
pub fn admitted(level: Level, key: &str) -> Option<u64> {
    if shows(level) { limiter(|limiter| limiter.admit(key, now())) } else { None }
}

/// Reports what [`limited`] has held back and no later line has told. Call it now and then, and before exit.
pub fn report_suppressed() {
    for (key, held_back) in limiter(|limiter| limiter.overdue(now())) {
        warn("repeated lines were suppressed", &[("key", &key), ("suppressed", &held_back)]);
    }
}

fn limiter<T>(ask: impl FnOnce(&mut Limiter) -> T) -> T {
    let mut guard = LIMITER.lock().unwrap_or_else(PoisonError::into_inner);
    ask(guard.get_or_insert_default())
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn now() -> Instant {
    Instant::ZERO.after(since_epoch())
}

/// `error` and its sources on one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn line(format: Format, time: Duration, level: Level, message: &str, fields: Fields<'_>) -> String {
    let time = rfc3339(time);
    let mut line = match format {
        Format::Text => format!("{time} {:<5} {}", level.name().to_ascii_uppercase(), one_line(message)),
        Format::Json => {
            format!(r#"{{"time":"{time}","level":"{}","message":{}"#, level.name(), Value::from(message))
        }
    };
    for (key, value) in fields {
        let value = value.to_string();
        line.push_str(&match format {
            Format::Text if is_plain(&value) => format!(" {key}={value}"),
            Format::Text => format!(" {key}={value:?}"),
            Format::Json => format!(",{}:{}", Value::from(*key), Value::from(value)),
        });
    }
    line.push_str(if format == Format::Json { "}\n" } else { "\n" });
    line
}

fn is_plain(value: &str) -> bool {
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\'));
    !value.is_empty() && value.chars().all(plain)
}

/// `text` with its control characters escaped, so that it cannot forge a line or drive a terminal.
fn one_line(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(escape).collect()
}

/// A time since 1970 as RFC 3339 writes it, UTC, milliseconds.
fn rfc3339(time: Duration) -> String {
    let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    // Eras of 400 years that begin on 1 March 0000, so that a leap day is the last of its year.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second, millisecond) =
        (second / 3_600, second / 60 % 60, second % 60, time.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

/// One line per key and second. Time is an argument.
#[derive(Debug, Default)]
pub struct Limiter {
    keys: HashMap<String, Spent>,
}

#[derive(Debug)]
struct Spent {
    at: Instant,
    held_back: u64,
}

impl Limiter {
    /// How many keys are told apart; those beyond share one.
    pub const MAX_KEYS: usize = 1024;
    const PERIOD: Duration = Duration::from_secs(1);
    const SHARED: &str = "others";

    /// Whether a line of `key` may be logged at `now`, and then how many of it were held back since the last.
    pub fn admit(&mut self, key: &str, now: Instant) -> Option<u64> {
        if !self.keys.contains_key(key) && self.keys.len() >= Self::MAX_KEYS {
            self.keys.retain(|_, spent| spent.held_back > 0 || !over(spent.at, now));
        }
        let full = !self.keys.contains_key(key) && self.keys.len() >= Self::MAX_KEYS;
        let key = if full { Self::SHARED } else { key };
        let Some(spent) = self.keys.get_mut(key) else {
            self.keys.insert(key.to_owned(), Spent { at: now, held_back: 0 });
            return Some(0);
        };
        if over(spent.at, now) {
            spent.at = now;
            return Some(std::mem::take(&mut spent.held_back));
        }
        spent.held_back += 1;
        None
    }

    /// The keys whose second is over and of which lines were held back, with how many; each is told once.
    pub fn overdue(&mut self, now: Instant) -> Vec<(String, u64)> {
        let mut told = Vec::new();
        self.keys.retain(|key, spent| {
            let keep = !over(spent.at, now);
            if !keep && spent.held_back > 0 {
                told.push((key.clone(), spent.held_back));
            }
            keep
        });
        told.sort();
        told
    }
}

/// Whether a second lies between; a clock that was set back counts as one.
fn over(at: Instant, now: Instant) -> bool {
    now < at || now.since(at) >= Limiter::PERIOD
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_millis(1_709_210_096_007);

    #[test]
    fn a_line_of_text_quotes_what_is_not_plain() {
        let fields: Fields<'_> =
            &[("port", &"tap-a"), ("count", &3), ("reason", &"no such file"), ("x", &"")];
        assert_eq!(
            line(Format::Text, TIME, Level::Info, "port is down", fields),
            "2024-02-29T12:34:56.007Z INFO  port is down port=tap-a count=3 reason=\"no such file\" x=\"\"\n"
        );
    }

    #[test]
    fn a_value_cannot_forge_a_line_or_drive_a_terminal() {
        let evil = "a\nERROR \u{1b}[2J";
        for format in Format::ALL {
            let line = line(format, TIME, Level::Warn, evil, &[("name", &evil)]);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(!line.contains('\u{1b}'));
        }
    }

    #[test]
    fn a_line_of_json_is_one_object_with_the_keys_in_order() {
        let line = line(Format::Json, TIME, Level::Error, "a \"b\"", &[("n", &7)]);
        assert_eq!(
            line,
            "{\"time\":\"2024-02-29T12:34:56.007Z\",\"level\":\"error\",\"message\":\"a \\\"b\\\"\",\"n\":\"7\"}\n"
        );
        assert!(serde_json::from_str::<Value>(&line).unwrap().is_object());
    }

    #[test]
    fn times_are_written_as_rfc_3339_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn one_line_a_second_is_admitted_per_key_and_the_rest_is_counted() {
        let (mut limiter, second) = (Limiter::default(), Instant::from_secs);
        assert_eq!(limiter.admit("a", second(10)), Some(0));
        assert_eq!(limiter.admit("b", second(10)), Some(0));
        for _ in 0..5 {
            assert_eq!(limiter.admit("a", second(10)), None);
        }
        assert_eq!(limiter.admit("a", second(11)), Some(5));
        assert_eq!(limiter.admit("a", second(11)), None);
        assert_eq!(limiter.overdue(second(11)), []);
        assert_eq!(limiter.overdue(second(12)), [("a".to_owned(), 1)]);
        assert_eq!(limiter.overdue(second(13)), []);
    }

    #[test]
    fn a_clock_set_back_silences_nobody() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.admit("a", Instant::from_secs(1_000)), Some(0));
        assert_eq!(limiter.admit("a", Instant::from_secs(10)), Some(0));
    }

    #[test]
    fn keys_beyond_the_limit_share_one() {
        let (mut limiter, at) = (Limiter::default(), Instant::from_secs(1));
        for key in 0..Limiter::MAX_KEYS {
            assert_eq!(limiter.admit(&key.to_string(), at), Some(0));
        }
        assert_eq!(limiter.admit("more", at), Some(0));
        assert_eq!(limiter.admit("and more", at), None);
        assert!(limiter.keys.len() <= Limiter::MAX_KEYS + 1);
    }

    #[test]
    fn levels_and_formats_are_known_by_name() {
        assert_eq!("debug".parse(), Ok(Level::Debug));
        assert_eq!("json".parse(), Ok(Format::Json));
        let error = "loud".parse::<Level>().unwrap_err();
        assert_eq!(error.to_string(), "log level \"loud\" is unknown; expected error, warn, info or debug");
    }
}
