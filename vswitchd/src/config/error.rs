//! What is wrong with a configuration, and where: errors, warnings, places.
//!
//! Not here: the rules themselves.

use std::fmt;
use std::sync::Arc;

/// Where in a file something stands. All places are equal: where a wish stands is no part of what it means.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Place {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

fn write_at(f: &mut fmt::Formatter<'_>, place: Option<&Place>, text: &str) -> fmt::Result {
    match place {
        Some(place) => write!(f, "{place}: {text}"),
        None => f.write_str(text),
    }
}

/// One reason why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where; `None` when the words came from no file, or the file could not be read.
    pub place: Option<Place>,
    /// The key at fault, as `port.tag`; empty when there is none.
    pub key: String,
    /// What is wrong and what is allowed.
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_at(f, self.place.as_ref(), &self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// Every reason why a configuration is refused, at least one, in the order of the file. Shown one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) const fn new(errors: Vec<ConfigError>) -> Self {
        Self(errors)
    }

    pub(super) fn one(place: Option<Place>, reason: String) -> Self {
        Self(vec![ConfigError { place, key: String::new(), reason }])
    }

    /// The reasons.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// All reasons in one line, for where there is no room for more.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        self.0.iter().map(ConfigError::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Something allowed but hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where; `None` when it is about the file as a whole.
    pub place: Option<Place>,
    /// What.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_at(f, self.place.as_ref(), &self.text)
    }
}
