//! Host names, as they may stand where an address may.
//!
//! Not here: asking for their addresses.

use super::Place;

/// A name among `[mesh] peers`: all its addresses are peers, as the DNS says at the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    /// The name in lower case; with a dot at its end no search list is tried.
    pub name: String,
    /// Where it stands first.
    pub place: Option<Place>,
}

/// Whether `text` is a host name by RFC 1123 §2.1: labels of 1..=63 letters, digits and inner hyphens, 253 bytes in
/// all, a dot at the end allowed. One with no letter in it, or whose last label is a number, is none: it is an
/// address gone wrong.
pub(super) fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let number = |label: &str| label.bytes().all(|c| c.is_ascii_digit());
    text.len() <= 253
        && text.split('.').all(label)
        && !text.rsplit('.').next().is_some_and(number)
        && text.bytes().any(|c| c.is_ascii_alphabetic())
}
