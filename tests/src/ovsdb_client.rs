//! A plain client of a database server, for what the stock tools cannot do: large transactions, many of them, locks, and
//! counting what others write (RFC 7047 §4).
//!
//! Not here: the client under test.

use serde_json::{Deserializer, StreamDeserializer, Value, de::IoRead, json};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

const DATABASE: &str = "Open_vSwitch";

/// A connection.
pub struct Client {
    stream: UnixStream,
    messages: StreamDeserializer<'static, IoRead<UnixStream>, Value>,
    updates: usize,
}

impl Client {
    /// Connects to the server whose socket is `path`.
    ///
    /// # Panics
    /// When it is not there; below also when it goes away or says something else than what was asked.
    #[must_use]
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the server is there");
        let reader = stream.try_clone().expect("a descriptor is to be had");
        Self { stream, messages: Deserializer::from_reader(reader).into_iter(), updates: 0 }
    }

    /// The answer to a call.
    ///
    /// # Panics
    /// When it is an error.
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        let message = json!({ "id": 1, "method": method, "params": params });
        self.stream.write_all(message.to_string().as_bytes()).expect("the server reads");
        loop {
            let mut message = self.messages.next().expect("the server answers").expect("it says JSON");
            if message["method"] == "update" {
                self.updates += 1;
            } else if message["id"] == 1 {
                assert_eq!(message["error"], Value::Null, "{method}");
                return message["result"].take();
            }
        }
    }

    /// Carries out operations (RFC 7047 §4.1.3).
    ///
    /// # Panics
    /// When one is refused.
    pub fn transact(&mut self, operations: &[Value]) {
        let params: Vec<Value> = std::iter::once(json!(DATABASE)).chain(operations.iter().cloned()).collect();
        let answer = self.call("transact", &params.into());
        for result in answer.as_array().expect("one result for each") {
            assert!(result.get("error").is_none(), "{result}");
        }
    }

    /// Counts transactions that change one of these columns, from now on.
    pub fn watch(&mut self, columns: &[(&str, &[&str])]) {
        let tables: serde_json::Map<String, Value> = columns
            .iter()
            .map(|(table, columns)| ((*table).to_owned(), json!({ "columns": columns })))
            .collect();
        self.call("monitor", &json!([DATABASE, "watched", tables]));
    }

    /// How many there were.
    pub fn watched(&mut self) -> usize {
        // What the server told before the answer has been counted when the answer is here.
        self.call("echo", &json!([]));
        self.updates
    }
}
