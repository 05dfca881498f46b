//! The names of keys in the store.

/// Keys from `from` up to but not with `to`, in plain byte order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    /// The first key.
    pub from: String,
    /// The first key behind the range.
    pub to: String,
}
