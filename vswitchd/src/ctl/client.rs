//! One call over the control socket, from the client's side. Not here: what the answer means.

use crate::control::rpc::{PROTOCOL, RpcError};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// A daemon that may be asked.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    /// Its control socket.
    pub(super) socket: PathBuf,
    /// How long to wait for an answer.
    pub(super) timeout: Duration,
}

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// The daemon does not answer; a sentence with the socket and what to do.
    Unavailable(String),
    /// The daemon answered with this error.
    Refused(RpcError),
    /// What this program was to do itself could not be done; a sentence and the exit code.
    Here(String, u8),
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<RpcError>,
}

impl Daemon {
    /// The answer to one call.
    pub(super) fn call(&self, method: &str, params: &Value) -> Result<Value, Failure> {
        let unavailable = |error: &io::Error| Failure::Unavailable(self.sentence(error));
        let stream = connect(self.socket.clone(), self.timeout).map_err(|error| unavailable(&error))?;
        stream
            .set_read_timeout(Some(self.timeout))
            .and_then(|()| stream.set_write_timeout(Some(self.timeout)))
            .map_err(|error| unavailable(&error))?;
        let mut reader = BufReader::new(&stream);
        let hello = ask(&stream, &mut reader, 1, "hello", &json!({})).map_err(|error| unavailable(&error))?;
        let hello = hello.map_err(Failure::Refused)?;
        let protocol = hello.get("protocol").and_then(Value::as_u64);
        if protocol != Some(u64::from(PROTOCOL)) {
            let theirs = protocol.map_or_else(|| "unknown".to_owned(), |version| version.to_string());
            return Err(Failure::Refused(RpcError::refused(format!(
                "the daemon on {:?} speaks version {theirs} of the protocol, this vswitchctl version {PROTOCOL}; \
                 use the vswitchctl that came with it",
                self.socket
            ))));
        }
        ask(&stream, &mut reader, 2, method, params)
            .map_err(|error| unavailable(&error))?
            .map_err(Failure::Refused)
    }

    /// Why it does not answer, and what to do.
    fn sentence(&self, error: &io::Error) -> String {
        let start = "start it with vswitchd --config FILE, or name its socket with --socket PATH";
        let (what, remedy) = match error.kind() {
            ErrorKind::NotFound => ("there is no such socket".to_owned(), start),
            ErrorKind::ConnectionRefused => ("the daemon that made the socket has gone".to_owned(), start),
            ErrorKind::PermissionDenied => {
                ("permission denied".to_owned(), "run vswitchctl as root or as the daemon's user")
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => (
                format!("nothing came within {} seconds", self.timeout.as_secs()),
                "look at its log, or wait longer with --timeout SECONDS",
            ),
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                ("it closed the connection without an answer".to_owned(), "look at its log and try again")
            }
            ErrorKind::InvalidData => {
                ("what answers there is no vswitchd".to_owned(), "name its socket with --socket PATH")
            }
            _ => (error.to_string(), start),
        };
        format!("vswitchd does not answer on {:?}: {what}; {remedy}", self.socket)
    }
}

/// Connects, or gives up after `timeout`: connect(2) waits for as long as the daemon's backlog is full.
fn connect(socket: PathBuf, timeout: Duration) -> io::Result<UnixStream> {
    let (connected, result) = channel();
    thread::Builder::new().spawn(move || drop(connected.send(UnixStream::connect(socket))))?;
    match result.recv_timeout(timeout) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(ErrorKind::TimedOut.into()),
        Err(RecvTimeoutError::Disconnected) => Err(ErrorKind::Other.into()),
    }
}

fn ask(
    mut stream: &UnixStream,
    reader: &mut impl BufRead,
    id: u32,
    method: &str,
    params: &Value,
) -> io::Result<Result<Value, RpcError>> {
    let mut request =
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string().into_bytes();
    request.push(b'\n');
    // A server that refuses the connection says why and closes: what it said is worth more than EPIPE.
    let sent = stream.write_all(&request);
    let mut line = Vec::new();
    let read = reader.read_until(b'\n', &mut line);
    if !line.ends_with(b"\n") {
        sent?;
        read?;
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let reply: Reply = serde_json::from_slice(&line).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
    Ok(reply.error.map_or(Ok(reply.result), Err))
}
