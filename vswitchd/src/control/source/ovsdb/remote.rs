//! Where a database server is, and the way there.
//!
//! Not here: what is said on the way.

use crossbeam_channel::{Receiver, bounded};
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

/// A way that is being opened.
pub(super) type Opening = Receiver<io::Result<Stream>>;

impl Remote {
    /// Opens the way: out of what it gives comes the stream, or why there is none, and then `done` is called. A name
    /// takes as long as its servers like, and nobody who stops is kept by that: whoever drops the opening has left it.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn open(&self, done: impl FnOnce() + Send + 'static) -> io::Result<Opening> {
        let (sender, opening) = bounded(1);
        match self {
            Self::Unix(path) => {
                drop(sender.send(mio::net::UnixStream::connect(path).map(Stream::Unix)));
                done();
            }
            Self::Tcp(at) => {
                let at = at.clone();
                let open = move || {
                    // Whoever wanted it may have left.
                    drop(sender.send(connect(&at)));
                    done();
                };
                std::thread::Builder::new().name("ovsdb-connect".into()).spawn(open)?;
            }
        }
        Ok(opening)
    }
}

fn connect(at: &str) -> io::Result<Stream> {
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

    #[test]
    fn a_server_that_does_not_answer_yet_holds_nobody_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        // The kernel answers nobody for whom there is no room.
        let knocking: Vec<_> = (0..4).map(|_| mio::net::TcpStream::connect(address).unwrap()).collect();
        let (done, is_done) = bounded(1);
        let opening = Remote::Tcp(address.to_string()).open(move || done.send(()).unwrap()).unwrap();
        assert!(opening.try_recv().is_err());
        // What comes of it comes, be it a stream or that there is none.
        drop((knocking, listener));
        is_done.recv().unwrap();
        drop(opening.try_recv().unwrap());
    }
}
