//! The wire of ovs-appctl: JSON-RPC 1.0.
//!
//! Not here: where a request ends (see [`super::super::objects`]), sockets (see [`super::serve`]), and what the methods
//! mean.

use serde::Deserialize;
use serde_json::{Value, json};

/// The longest request, in bytes: a frame of 64 KiB in hexadecimal digits fits eight times.
pub(super) const MAX_REQUEST_LEN: usize = 1 << 20;
/// How deep a request may be nested; a good one is two deep.
pub(super) const MAX_DEPTH: usize = 16;

/// What is no request: the client is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

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
