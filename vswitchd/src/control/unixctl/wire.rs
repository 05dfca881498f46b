//! The wire of ovs-appctl: JSON-RPC 1.0 objects, one after another, with nothing between them.
//!
//! Where an object ends is found by its braces alone, so what a client sends in pieces is looked at once. Not here:
//! sockets (see [`super::serve`]), and what the methods mean.

use serde::Deserialize;
use serde_json::{Value, json};

/// The longest request, in bytes: a frame of 64 KiB in hexadecimal digits fits eight times.
pub(super) const MAX_REQUEST_LEN: usize = 1 << 20;
/// How deep a request may be nested; a good one is two deep.
const MAX_DEPTH: usize = 16;

/// What cannot be the beginning of a request: the client is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Bytes that have arrived, cut into objects.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// How many of them were looked at.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Pieces {
    /// Whether there is the beginning of an object, or more.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds what has arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole object, if it is there.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        if self.depth == 0 {
            let blank = self.bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.bytes.drain(..blank);
            self.seen = 0;
        }
        while let Some(&byte) = self.bytes.get(self.seen) {
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
                b'{' | b'[' if self.depth < MAX_DEPTH && (self.depth > 0 || byte == b'{') => self.depth += 1,
                b'{' | b'[' => return Err(Malformed),
                _ if self.depth == 0 => return Err(Malformed),
                b'"' => self.in_string = true,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                let rest = self.bytes.split_off(self.seen);
                self.seen = 0;
                return Ok(Some(std::mem::replace(&mut self.bytes, rest)));
            }
        }
        if self.bytes.len() > MAX_REQUEST_LEN { Err(Malformed) } else { Ok(None) }
    }
}

/// A request as it stands on the wire (JSON-RPC 1.0).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wire {
    /// What is asked for.
    pub(super) method: String,
    /// With what; all strings, or the command says so.
    pub(super) params: Vec<Value>,
    /// What the answer repeats; never null, for that would be a notification.
    pub(super) id: Value,
}

impl Wire {
    /// Reads one object.
    ///
    /// # Errors
    /// [`Malformed`]: it is no request, but a notification, an answer, or nothing that the protocol knows.
    pub(super) fn parse(object: &[u8]) -> Result<Self, Malformed> {
        let wire: Self = serde_json::from_slice(object).map_err(|_| Malformed)?;
        if wire.id.is_null() { Err(Malformed) } else { Ok(wire) }
    }
}

/// The answer on the wire: text that ends with a line, or an error of such text.
pub(super) fn answer(id: &Value, answer: Result<String, String>) -> Vec<u8> {
    let whole = |mut text: String| {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text
    };
    let object = match answer {
        Ok(text) => json!({"id": id, "result": whole(text), "error": null}),
        Err(text) => json!({"id": id, "result": null, "error": whole(text)}),
    };
    object.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> (Vec<String>, Result<(), Malformed>) {
        let mut pieces = Pieces::default();
        let mut objects = Vec::new();
        for chunk in chunks {
            pieces.push(chunk);
            loop {
                match pieces.next() {
                    Ok(Some(object)) => objects.push(String::from_utf8(object).unwrap()),
                    Ok(None) => break,
                    Err(error) => return (objects, Err(error)),
                }
            }
        }
        (objects, Ok(()))
    }

    #[test]
    fn objects_are_found_wherever_they_are_cut() {
        let stream = br#" {"a":"}\"{\\"}{"b":[{"c":"\\"}]}
            {}"#;
        let whole = [r#"{"a":"}\"{\\"}"#, r#"{"b":[{"c":"\\"}]}"#, "{}"].map(str::to_owned).to_vec();
        assert_eq!(cut(&[stream]), (whole.clone(), Ok(())));
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(cut(&single), (whole.clone(), Ok(())));
        for at in 0..stream.len() {
            let (one, other) = stream.split_at(at);
            assert_eq!(cut(&[one, other]), (whole.clone(), Ok(())), "cut at {at}");
        }
    }

    #[test]
    fn what_begins_no_object_is_malformed() {
        for bad in [&b"x"[..], b"[1]", b"}", b"1", b"\"a\"", b"\xff", &b"{\"a\":".repeat(20)] {
            assert_eq!(cut(&[bad]).1, Err(Malformed), "{bad:?}");
        }
        assert_eq!(cut(&[b"{}x"]), (vec!["{}".to_owned()], Err(Malformed)));
    }

    #[test]
    fn a_request_that_never_ends_is_malformed_once_it_is_too_long() {
        let mut endless = b"{\"method\":\"".to_vec();
        endless.resize(MAX_REQUEST_LEN, b'a');
        assert_eq!(cut(&[&endless]).1, Ok(()));
        assert_eq!(cut(&[&endless, b"aa"]).1, Err(Malformed));
    }

    #[test]
    fn only_requests_are_requests() {
        let wire = Wire::parse(br#"{"id":0,"method":"fdb/show","params":["br0"]}"#).unwrap();
        assert_eq!((wire.method.as_str(), wire.params.len(), wire.id), ("fdb/show", 1, json!(0)));
        for bad in [
            r#"{"id":null,"method":"version","params":[]}"#,
            r#"{"method":"version","params":[]}"#,
            r#"{"id":0,"result":"x","error":null}"#,
            r#"{"id":0,"method":"version","params":{}}"#,
            r#"{"id":0,"method":1,"params":[]}"#,
            r#"{"id":0,"method":"version","params":[],"more":1}"#,
            "{,}",
        ] {
            assert!(Wire::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_end_with_a_line_and_stand_where_they_belong() {
        let text = |answered| String::from_utf8(answered).unwrap();
        assert_eq!(text(answer(&json!(3), Ok("a".into()))), r#"{"error":null,"id":3,"result":"a\n"}"#);
        assert_eq!(text(answer(&json!("x"), Err("b\n".into()))), r#"{"error":"b\n","id":"x","result":null}"#);
        assert_eq!(text(answer(&json!(3), Ok(String::new()))), r#"{"error":null,"id":3,"result":""}"#);
    }
}
