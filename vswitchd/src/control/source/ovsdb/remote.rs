//! Where a database server is, and the way there.
//!
//! Not here: what is said on the way.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How long a way there may take to open. Its side of a Unix socket waits for nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a database server is: `unix:PATH` or `tcp:HOST:PORT` (ovsdb(7), "Connection Methods").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A Unix domain socket.
    Unix(PathBuf),
    /// Host and port; an IPv6 address in brackets.
    Tcp(String),
}

/// Why a text is no [`Remote`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no database server; unix:PATH or tcp:HOST:PORT is expected")]
pub struct NotARemote(String);

impl FromStr for Remote {
    type Err = NotARemote;

    fn from_str(text: &str) -> Result<Self, NotARemote> {
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", at)) if at.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
                Ok(Self::Tcp(at.to_owned()))
            }
            _ => Err(NotARemote(text.to_owned())),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(at) => write!(f, "tcp:{at}"),
        }
    }
}

/// An open way to a server, which nothing waits on.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(mio::net::UnixStream),
    Tcp(mio::net::TcpStream),
}

impl Remote {
    /// Opens the way.
    ///
    /// # Errors
    /// The server is not there.
    pub(super) fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(path) => mio::net::UnixStream::connect(path).map(Stream::Unix),
            Self::Tcp(at) => {
                let mut last = io::Error::from(ErrorKind::NotFound);
                for address in at.to_socket_addrs()? {
                    match std::net::TcpStream::connect_timeout(&address, PATIENCE) {
                        Ok(stream) => {
                            stream.set_nonblocking(true)?;
                            stream.set_nodelay(true)?;
                            return Ok(Stream::Tcp(mio::net::TcpStream::from_std(stream)));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

impl Stream {
    /// As what mio waits on.
    pub(super) fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Self::Unix(stream) => stream,
            Self::Tcp(stream) => stream,
        }
    }
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl io::Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_a_socket_or_a_host_and_a_port() {
        for text in ["unix:/run/openvswitch/db.sock", "tcp:127.0.0.1:6640", "tcp:[::1]:6640"] {
            assert_eq!(text.parse::<Remote>().unwrap().to_string(), text);
        }
        for text in ["", "unix:", "tcp:", "tcp:host", "tcp:host:x", "ssl:host:6640", "/run/db.sock"] {
            assert!(text.parse::<Remote>().is_err(), "{text}");
        }
    }
}
