//! A TCP transfer between two pods, in which every byte that arrives is compared with the one that was sent.

use crate::datapath::clock;
use crate::sys::netns;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::Duration;

/// Whichever of the two comes first ends a transfer.
const BYTES: u64 = 256 << 20;
const TIME: Duration = Duration::from_millis(1500);
/// How long either end waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// The content repeats after this many bytes: a prime, so that a piece lost, doubled or moved does not fit.
const PERIOD: usize = 1_000_003;

/// What has been carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

impl Transfer {
    /// Bits per second.
    #[expect(clippy::cast_precision_loss, reason = "a figure of three digits")]
    pub(super) fn rate(self) -> f64 {
        self.bytes as f64 * 8.0 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Sends from the network namespace `from` to `address` in the network namespace `to`.
pub(super) fn transfer(from: BorrowedFd<'_>, to: BorrowedFd<'_>, address: IpAddr) -> io::Result<Transfer> {
    let listener = netns::within(to, || TcpListener::bind((address, 0)))??;
    let target = listener.local_addr()?;
    let client = netns::within(from, || connect(&target))??;
    // The handshake is over, so the connection is in the queue.
    let (server, _) = listener.accept()?;
    carry(client, &server)
}

fn connect(target: &SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(target, PATIENCE)
}

fn carry(mut client: TcpStream, server: &TcpStream) -> io::Result<Transfer> {
    client.set_write_timeout(Some(PATIENCE))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let content = content();
    let started = clock::now();
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(server, &content));
        let sent = send(&mut client, &content).and_then(|sent| {
            client.shutdown(Shutdown::Write)?;
            Ok(sent)
        });
        if sent.is_err() {
            // Else the receiver would wait for what never comes.
            let _ = server.shutdown(Shutdown::Both);
        }
        let received = receiver.join().unwrap_or_else(|_| Err(io::Error::other("the receiver panicked")));
        let (sent, received) = (sent?, received?);
        if sent != received {
            return Err(broken(format!("{sent} bytes were sent and {received} arrived")));
        }
        Ok(Transfer { bytes: received, time: clock::now().since(started) })
    })
}

fn broken(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Bytes without a pattern (xorshift, Marsaglia 2003).
fn content() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(PERIOD + 8);
    while bytes.len() < PERIOD {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(PERIOD);
    bytes
}

fn send(client: &mut TcpStream, content: &[u8]) -> io::Result<u64> {
    let started = clock::now();
    let (mut sent, mut at) = (0, 0);
    while sent < BYTES && clock::now().since(started) < TIME {
        let len = client.write(&content[at..content.len().min(at + (256 << 10))])?;
        sent += len as u64;
        at = (at + len) % content.len();
    }
    Ok(sent)
}

/// Counts what comes until the end; the first byte that is not the expected one is an error.
fn receive(mut server: &TcpStream, content: &[u8]) -> io::Result<u64> {
    let mut bytes = vec![0; 256 << 10];
    let (mut received, mut at) = (0, 0);
    loop {
        let len = match server.read(&mut bytes) {
            Ok(0) => return Ok(received),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &bytes[..len];
        while !rest.is_empty() {
            let part = rest.len().min(content.len() - at);
            if rest[..part] != content[at..at + part] {
                return Err(broken(format!("not what was sent, behind byte {received}")));
            }
            rest = &rest[part..];
            at = (at + part) % content.len();
            received += part as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = connect(&listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn a_transfer_counts_every_byte() {
        let (client, server) = pair();
        let transfer = carry(client, &server).unwrap();
        assert!(transfer.bytes > PERIOD as u64 && transfer.bytes <= BYTES + (256 << 10), "{transfer:?}");
        assert!(transfer.rate() > 0.0);
    }

    #[test]
    fn one_wrong_byte_is_found() {
        let (mut client, server) = pair();
        let content = content();
        let mut wrong = content.clone();
        wrong[70_000] ^= 1;
        let sender = thread::spawn(move || {
            let _ = client.write_all(&wrong);
        });
        assert_eq!(receive(&server, &content).unwrap_err().kind(), ErrorKind::InvalidData);
        drop(server);
        sender.join().unwrap();
    }
}
