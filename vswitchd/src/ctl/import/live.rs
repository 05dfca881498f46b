//! The rows of a running database server, asked for once (RFC 7047 §4.1.3).
//!
//! Not here: staying with it (see `control/source/ovsdb`).

use super::MAX_LEN;
use crate::control::source::ovsdb::{Atom, Database, Datum, Remote, Row};
use serde_json::{Deserializer, Value, json};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The tables that say how a switch is wished to be. Every version of the schema has them.
const TABLES: [&str; 7] = ["Open_vSwitch", "Bridge", "Port", "Interface", "Mirror", "QoS", "Queue"];

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn connect(remote: &Remote, timeout: Duration) -> io::Result<Box<dyn Stream>> {
    let at = match remote {
        Remote::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            return Ok(Box::new(stream));
        }
        Remote::Tcp(at) => at,
    };
    let mut last = io::Error::from(ErrorKind::NotFound);
    for address in at.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(Box::new(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What the server at `remote` has. Each step waits `timeout` at most.
///
/// # Errors
/// A sentence.
pub(super) fn fetch(remote: &Remote, timeout: Duration) -> Result<Database, String> {
    let lost =
        |error: &dyn std::fmt::Display| format!("the database server at {remote} does not answer: {error}");
    let mut stream = connect(remote, timeout).map_err(|error| lost(&error))?;
    let select = |table: &&str| json!({"op": "select", "table": table, "where": []});
    let params: Value = [json!("Open_vSwitch")].into_iter().chain(TABLES.iter().map(select)).collect();
    let request = json!({"method": "transact", "params": params, "id": 0});
    stream.write_all(request.to_string().as_bytes()).map_err(|error| lost(&error))?;
    let reader = BufReader::new(stream.take(MAX_LEN));
    // Another message than the answer is a question whether we are there, which nobody will ask twice.
    let mut messages = Deserializer::from_reader(reader).into_iter::<Value>();
    let answer = loop {
        let message = messages.next().ok_or_else(|| lost(&"it closed the connection"))?;
        let message = message.map_err(|error| lost(&error))?;
        if message.get("id") == Some(&json!(0)) && message.get("method").is_none() {
            break message;
        }
    };
    let refused = |reason: &Value| format!("the database server at {remote} refused: {reason}");
    let results = answer.get("result").and_then(Value::as_array).ok_or_else(|| refused(&answer["error"]))?;
    let mut database = Database::default();
    for (table, result) in TABLES.iter().zip(results) {
        let rows = result.get("rows").and_then(Value::as_array).ok_or_else(|| refused(result))?;
        for row in rows {
            insert(&mut database, table, row).map_err(|reason| lost(&format!("table {table}: {reason}")))?;
        }
    }
    Ok(database)
}

fn insert(database: &mut Database, table: &str, row: &Value) -> Result<(), String> {
    let mut columns = Row::new();
    let mut uuid = None;
    for (column, value) in row.as_object().ok_or("a row is no object")? {
        let datum = Datum::from_json(value).map_err(|reason| format!("column {column}: {reason}"))?;
        match (column.as_str(), datum.keys.as_slice()) {
            ("_uuid", [Atom::Uuid(name)]) => uuid = Some(*name),
            _ => drop(columns.insert(column.clone(), datum)),
        }
    }
    let uuid = uuid.ok_or("a row has no _uuid")?;
    database.tables.entry(table.to_owned()).or_default().insert(uuid, columns);
    Ok(())
}
