//! Messages of a database server: how large they may be, and why a stream cannot be read on.
//!
//! Not here: where a message ends (see [`Objects`]), and what it says.

use crate::control::objects::{NoObject, Objects};
use serde_json::Value;

/// The longest message, in bytes: some fifty thousand interfaces. Read, it may take thirty times as much.
pub(super) const MAX_LEN: usize = 64 << 20;
/// How deep a message may be: a map in a row of a table of an update is at eight.
const MAX_DEPTH: usize = 64;

/// Why a stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garbled {
    /// Something else than an object.
    #[error("it sends something else than JSON objects")]
    NoObject,
    /// A message of more bytes than are taken.
    #[error("it sends a message of more than {MAX_LEN} bytes")]
    TooLong,
    /// Objects in objects without end.
    #[error("it sends JSON that is more than {MAX_DEPTH} deep")]
    TooDeep,
    /// An object that is none.
    #[error("it sends JSON that cannot be read: {0}")]
    NoJson(String),
}

/// Bytes that have come, cut into messages.
#[derive(Debug)]
pub struct Framing(Objects);

impl Default for Framing {
    fn default() -> Self {
        Self(Objects::new(MAX_LEN, MAX_DEPTH))
    }
}

impl Framing {
    /// Adds what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.push(bytes);
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// What has come is none, and the stream cannot be read on.
    pub fn message(&mut self) -> Result<Option<Value>, Garbled> {
        let object = self.0.next().map_err(|error| match error {
            NoObject::Else => Garbled::NoObject,
            NoObject::TooLong => Garbled::TooLong,
            NoObject::TooDeep => Garbled::TooDeep,
        })?;
        let read = |object: Vec<u8>| serde_json::from_slice(&object);
        object.map(read).transpose().map_err(|error| Garbled::NoJson(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_is_an_error_and_no_panic() {
        for text in ["]", "x", "[]", "1", "{]", "{\"a\":}", "\"\""] {
            let mut framing = Framing::default();
            framing.push(text.as_bytes());
            assert!(framing.message().is_err(), "{text}");
        }
        let mut framing = Framing::default();
        framing.push("{\"a\":".repeat(MAX_DEPTH).as_bytes());
        assert_eq!(framing.message(), Ok(None));
        framing.push(b"[");
        assert_eq!(framing.message(), Err(Garbled::TooDeep));
    }

    #[test]
    fn a_message_without_end_is_given_up() {
        let mut framing = Framing::default();
        framing.push(b"{\"");
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..MAX_LEN / piece.len() {
            assert_eq!(framing.message(), Ok(None));
            framing.push(&piece);
        }
        assert_eq!(framing.message(), Err(Garbled::TooLong));
    }
}
