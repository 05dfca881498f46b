//! Versions of the CNI specification: which are spoken here, and what each has. Not here: the results' forms.

use std::fmt;

/// A version that this plugin speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0: results with interfaces, chains.
    V030,
    /// 0.3.1: a correction of the text.
    V031,
    /// 0.4.0: CHECK, and `prevResult` for DEL.
    V040,
    /// 1.0.0: configuration lists only; addresses have no `version`.
    V100,
    /// 1.1.0: GC, STATUS, `mtu` and more of routes.
    V110,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] = [Self::V030, Self::V031, Self::V040, Self::V100, Self::V110];

    /// As it is written.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::V030 => "0.3.0",
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }

    /// The version that `text` names, if it is spoken here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.text() == text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
