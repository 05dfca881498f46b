//! Where one message ends: JSON-RPC over a stream has no other frame than its own braces (RFC 7047 §4).
//!
//! Not here: what a message says.

use serde_json::Value;

/// The longest message, in bytes: some hundred thousand interfaces.
const MAX_LEN: usize = 256 << 20;

/// Why a stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Garbled {
    /// Something else than an object.
    #[error("it sends something else than JSON objects")]
    NoObject,
    /// A message of more bytes than are taken.
    #[error("it sends a message of more than {MAX_LEN} bytes")]
    TooLong,
    /// An object that is none.
    #[error("it sends JSON that cannot be read: {0}")]
    NoJson(String),
}

/// Bytes that have come, and how far they were looked at: each is looked at once.
#[derive(Debug, Default)]
pub(super) struct Framing {
    bytes: Vec<u8>,
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Framing {
    /// Adds what has come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there.
    pub(super) fn next(&mut self) -> Result<Option<Value>, Garbled> {
        while let Some(byte) = self.bytes.get(self.seen).copied() {
            self.seen += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'{' | b'[' if self.depth > 0 || byte == b'{' => self.depth += 1,
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return self.take().map(Some);
                    }
                }
                b'"' if self.depth > 0 => self.in_string = true,
                _ if self.depth > 0 || byte.is_ascii_whitespace() => {}
                _ => return Err(Garbled::NoObject),
            }
        }
        if self.bytes.len() > MAX_LEN { Err(Garbled::TooLong) } else { Ok(None) }
    }

    fn take(&mut self) -> Result<Value, Garbled> {
        let message = serde_json::from_slice(&self.bytes[..self.seen]);
        self.bytes.drain(..self.seen);
        self.seen = 0;
        if self.bytes.is_empty() {
            // What a large message took is not kept for small ones.
            self.bytes = Vec::new();
        }
        message.map_err(|error| Garbled::NoJson(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let text = r#" {"a":"}\"{","b":[{}]}{"c":1}
            {"d":null}"#;
        let wanted = [json!({"a": "}\"{", "b": [{}]}), json!({"c": 1}), json!({"d": null})];
        for size in 1..text.len() {
            let mut framing = Framing::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                framing.push(piece);
                while let Some(message) = framing.next().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, wanted, "{size}");
        }
    }

    #[test]
    fn what_is_no_message_is_an_error_and_no_panic() {
        for text in ["]", "x", "[]", "1", "{]", "{\"a\":}", "\"\""] {
            let mut framing = Framing::default();
            framing.push(text.as_bytes());
            assert!(framing.next().is_err(), "{text}");
        }
        let mut framing = Framing::default();
        framing.push("{\"a\":".repeat(100_000).as_bytes());
        assert_eq!(framing.next(), Ok(None));
        framing.push("1}".as_bytes());
        framing.push("}".repeat(99_999).as_bytes());
        assert!(matches!(framing.next(), Err(Garbled::NoJson(_))));
    }
}
