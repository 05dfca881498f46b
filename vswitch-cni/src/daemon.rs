//! Calls to vswitchd over its control socket, one at a time. Not here: what they mean.

use crate::error::CniError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vswitchd::control::rpc::cni::{
    CniAdd, CniAdded, CniChecked, CniCollected, CniGc, CniKey, CniNetwork, CniRemoved, CniStatus,
};
use vswitchd::control::rpc::{PROTOCOL, RpcError};
use vswitchd::sys::rights;

/// How long an answer may take: as long as a burst of hundreds of pods may keep the daemon busy, and shorter than
/// runtimes wait for a plugin.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no result.
#[derive(Debug)]
pub enum Failure {
    /// The daemon does not answer, one sentence.
    Away(String),
    /// The daemon answered with this error.
    Refused(RpcError),
}

impl Failure {
    /// Whether the daemon said that there is no such attachment.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code == RpcError::UNKNOWN)
    }

    /// Whether the daemon said that the call may be made again.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code == RpcError::UNAVAILABLE)
    }

    /// As the runtime is told.
    #[must_use]
    pub fn error(self) -> CniError {
        match self {
            Self::Away(sentence) => CniError::new(CniError::TRY_AGAIN, sentence),
            Self::Refused(error) => {
                let code = match error.code {
                    RpcError::UNAVAILABLE => CniError::TRY_AGAIN,
                    RpcError::BAD_CONFIG | RpcError::INVALID_PARAMS => CniError::CONFIG,
                    RpcError::UNKNOWN => CniError::UNKNOWN_CONTAINER,
                    _ => CniError::REFUSED,
                };
                CniError::new(code, error.message).because(error.data.causes.join("; "))
            }
        }
    }
}

/// An attachment that the daemon knows, of `cni.list`.
#[derive(Clone, Debug, Deserialize)]
pub struct Known {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// The network's name.
    pub network: String,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<RpcError>,
}

/// The daemon behind a socket.
#[derive(Debug)]
pub struct Daemon {
    socket: PathBuf,
    connection: Option<BufReader<UnixStream>>,
    requests: u64,
}

impl Daemon {
    /// Connects, and makes sure that it is a daemon that knows of attachments.
    ///
    /// # Errors
    /// [`Failure::Away`] when nobody answers.
    pub fn connect(socket: &Path) -> Result<Self, Failure> {
        let mut daemon = Self { socket: socket.to_owned(), connection: None, requests: 0 };
        let hello = daemon.call("hello", &json!({}), None)?;
        let theirs = hello.get("protocol").and_then(Value::as_u64);
        let cni =
            hello.get("features").and_then(Value::as_array).is_some_and(|all| all.contains(&json!("cni")));
        if theirs == Some(u64::from(PROTOCOL)) && cni {
            return Ok(daemon);
        }
        Err(Failure::Refused(RpcError::refused(format!(
            "the vswitchd on {} knows nothing of CNI; let it be of the same release as this plugin",
            socket.display()
        ))))
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `cni.add`: makes the port and puts its interface into `namespace`.
    ///
    /// # Errors
    /// As [`Failure`] has them.
    pub fn add(&mut self, add: &CniAdd, namespace: BorrowedFd<'_>) -> Result<CniAdded, Failure> {
        self.typed("cni.add", &json!(add), Some(namespace))
    }

    /// `cni.del`: removes the port. That there is none is no error.
    ///
    /// # Errors
    /// As [`Failure`] has them.
    pub fn del(&mut self, key: &CniKey) -> Result<CniRemoved, Failure> {
        self.typed("cni.del", &json!(key), None)
    }

    /// `cni.check`: whether the port is up, and in `namespace`.
    ///
    /// # Errors
    /// As [`Failure`] has them.
    pub fn check(&mut self, key: &CniKey, namespace: BorrowedFd<'_>) -> Result<CniChecked, Failure> {
        self.typed("cni.check", &json!(key), Some(namespace))
    }

    /// `cni.gc`: removes the ports of a network that are not to stay.
    ///
    /// # Errors
    /// As [`Failure`] has them.
    pub fn gc(&mut self, gc: &CniGc) -> Result<Vec<CniRemoved>, Failure> {
        self.typed("cni.gc", &json!(gc), None).map(|CniCollected { removed }| removed)
    }

    /// `cni.gone`: the attachments of `network` whose namespace has died and that nobody has detached.
    ///
    /// # Errors
    /// As [`Failure`] has them.
    pub fn gone(&mut self, network: &str) -> Result<Vec<CniRemoved>, Failure> {
        let network = CniNetwork { network: network.to_owned() };
        self.typed("cni.gone", &json!(network), None).map(|CniCollected { removed }| removed)
    }

    /// `cni.list`: all attachments.
    ///
    /// # Errors
    /// As [`Failure`] has them.
    pub fn list(&mut self) -> Result<Vec<Known>, Failure> {
        self.typed("cni.list", &json!({}), None)
    }

    /// `cni.status`: whether a `cni.add` could succeed.
    ///
    /// # Errors
    /// As [`Failure`] has them.
    pub fn status(&mut self, status: &CniStatus) -> Result<(), Failure> {
        self.call("cni.status", &json!(status), None).map(drop)
    }

    fn typed<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<T, Failure> {
        let answer = self.call(method, params, descriptor)?;
        T::deserialize(&answer).map_err(|error| {
            Failure::Refused(RpcError::refused(format!(
                "vswitchd's answer to {method} is not understood: {error}"
            )))
        })
    }

    /// Asks on the connection that there is, or on a new one where the daemon has closed it meanwhile. Every call
    /// means the same when it is made twice.
    fn call(
        &mut self,
        method: &str,
        params: &Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Value, Failure> {
        let old = self.connection.take();
        let reused = old.is_some();
        let asked =
            old.map_or_else(|| self.open(), Ok).and_then(|on| self.ask(on, method, params, descriptor));
        let asked = match asked {
            Err(error) if reused && is_closed(&error) => {
                self.open().and_then(|on| self.ask(on, method, params, descriptor))
            }
            asked => asked,
        };
        match asked {
            Ok(Reply { error: Some(error), .. }) => Err(Failure::Refused(error)),
            Ok(Reply { result, .. }) => Ok(result),
            Err(error) => Err(Failure::Away(self.sentence(&error))),
        }
    }

    fn open(&self) -> io::Result<BufReader<UnixStream>> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(BufReader::new(stream))
    }

    fn ask(
        &mut self,
        mut on: BufReader<UnixStream>,
        method: &str,
        params: &Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<Reply> {
        self.requests += 1;
        let request = json!({"jsonrpc": "2.0", "id": self.requests, "method": method, "params": params});
        let mut request = request.to_string().into_bytes();
        request.push(b'\n');
        let sent = send(on.get_ref(), &request, descriptor);
        // A server that refuses the connection says why and closes: what it said is worth more than EPIPE.
        let mut line = Vec::new();
        let read = on.read_until(b'\n', &mut line);
        if !line.ends_with(b"\n") {
            sent?;
            read?;
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let reply: Reply =
            serde_json::from_slice(&line).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        self.connection = Some(on);
        Ok(reply)
    }

    fn sentence(&self, error: &io::Error) -> String {
        let what = match error.kind() {
            ErrorKind::NotFound => "there is no such socket".to_owned(),
            ErrorKind::ConnectionRefused => "the daemon that made the socket has gone".to_owned(),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("nothing came within {} seconds", PATIENCE.as_secs())
            }
            ErrorKind::InvalidData => "what answers there is no vswitchd".to_owned(),
            _ if is_closed(error) => "it closed the connection without an answer".to_owned(),
            _ => error.to_string(),
        };
        format!("vswitchd does not answer on {}: {what}", self.socket.display())
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

fn send(mut stream: &UnixStream, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let sent = loop {
        match rights::send(stream, bytes, descriptor.as_slice()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            sent => break sent?,
        }
    };
    stream.write_all(&bytes[sent..])
}
