//! Rows put into the database as no tool would put them: many at once, and of any content.

use super::Seat;
use serde_json::{Deserializer, Value, json};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The server has this long for one transaction of thousands of rows.
const PATIENCE: Duration = Duration::from_secs(60);

impl Seat {
    /// What the server answers to these operations on the database (RFC 7047 §4.1.3): one result for each, and one more
    /// when the whole fails.
    ///
    /// # Panics
    /// When the server does not answer.
    #[must_use]
    pub fn transact(&self, operations: &[Value]) -> Vec<Value> {
        let mut stream = UnixStream::connect(self.file("db.sock")).expect("the server runs");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let database = Value::from("Open_vSwitch");
        let params: Vec<&Value> = std::iter::once(&database).chain(operations).collect();
        let request = json!({"id": 1, "method": "transact", "params": params});
        stream.write_all(request.to_string().as_bytes()).expect("the server reads");
        let answer = Deserializer::from_reader(stream).into_iter::<Value>().next();
        let answer = answer.expect("the server answers").expect("the answer is JSON");
        assert!(answer["error"].is_null(), "{answer}");
        answer["result"].as_array().expect("results").clone()
    }

    /// Adds these ports to `bridge` in one transaction, each with the columns of its interface, and asks the switch to
    /// say when it has them; returns the number that `cur_cfg` will have then.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn insert_ports(&self, bridge: &str, ports: &[(String, Value)]) -> i64 {
        let mut operations = Vec::new();
        let mut named = Vec::new();
        for (n, (name, interface)) in ports.iter().enumerate() {
            let mut row = interface.clone();
            row["name"] = json!(name);
            operations.push(
                json!({"op": "insert", "table": "Interface", "uuid-name": format!("i{n}"), "row": row}),
            );
            let row = json!({"name": name, "interfaces": ["named-uuid", format!("i{n}")]});
            operations
                .push(json!({"op": "insert", "table": "Port", "uuid-name": format!("p{n}"), "row": row}));
            named.push(json!(["named-uuid", format!("p{n}")]));
        }
        let named = json!([["ports", "insert", ["set", named]]]);
        let here = json!([["name", "==", bridge]]);
        operations.push(json!({"op": "mutate", "table": "Bridge", "where": here, "mutations": named}));
        let next = json!([["next_cfg", "+=", 1]]);
        operations.push(json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": next}));
        let columns = json!(["next_cfg"]);
        operations.push(json!({"op": "select", "table": "Open_vSwitch", "where": [], "columns": columns}));
        let results = self.transact(&operations);
        let wrong = results.iter().find(|result| result.get("error").is_some());
        assert!(wrong.is_none() && results.len() == operations.len(), "{wrong:?}");
        results[operations.len() - 1]["rows"][0]["next_cfg"].as_i64().expect("a number")
    }

    /// Columns of every row of a table, each row as an object.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn rows(&self, table: &str, columns: &[&str]) -> Vec<Value> {
        let operation = json!({"op": "select", "table": table, "where": [], "columns": columns});
        let results = self.transact(&[operation]);
        results[0]["rows"].as_array().unwrap_or_else(|| panic!("{table}: {results:?}")).clone()
    }

    /// Whether the switch says that it carries out what the database had at `next_cfg`.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn carries_out(&self, next_cfg: i64) -> bool {
        self.rows("Open_vSwitch", &["cur_cfg"])[0]["cur_cfg"].as_i64().is_some_and(|cur| cur >= next_cfg)
    }
}
