//! Traffic between namespaces: ping and TCP.

use super::{Deadline, Namespace};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// What came of a ping.
#[derive(Clone, Debug, PartialEq)]
pub struct Ping {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Duplicates received.
    pub duplicates: u32,
    /// Mean round trip in milliseconds, when there was a reply.
    pub mean_ms: Option<f64>,
    /// Everything that ping printed.
    pub text: String,
}

/// What came of a TCP transfer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// Bytes that arrived, each as it was sent.
    pub bytes: u64,
    /// From connecting to the receiver's word that it has all.
    pub took: Duration,
}

impl Transfer {
    /// Gigabits of payload per second.
    #[must_use]
    pub fn gigabits_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let bits = self.bytes as f64 * 8.0;
        bits / self.took.as_secs_f64() / 1e9
    }
}

impl Namespace {
    /// Pings `to` `count` times, 20 ms apart, with `size` bytes of payload each, which may be fragmented; waits
    /// a second for the last reply.
    ///
    /// # Panics
    /// When there is no ping.
    #[must_use]
    pub fn ping(&self, to: IpAddr, size: usize, count: u32) -> Ping {
        self.ping_with(to, size, count, "")
    }

    /// The same with further options of ping, such as `-M do` or `-I eth0`.
    ///
    /// # Panics
    /// When there is no ping.
    #[must_use]
    pub fn ping_with(&self, to: IpAddr, size: usize, count: u32, options: &str) -> Ping {
        let line = format!("ping -n -i 0.02 -W 1 -c {count} -s {size} {options} {to}");
        let output = self.try_run(&line);
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let summary = text.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
        let number = |word: &str| {
            let before = summary.split(", ").find(|part| part.contains(word));
            before.and_then(|part| part.trim_start_matches('+').split(' ').next()?.parse().ok()).unwrap_or(0)
        };
        let (sent, received, duplicates) = (number("transmitted"), number("received"), number("duplicates"));
        let times = text.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "));
        let mean_ms = times.and_then(|times| times.split('/').nth(1)?.parse().ok());
        Ping { sent, received, duplicates, mean_ms, text }
    }
}

const CHUNK: usize = 64 * 1024;

/// What stands at `offset` of a transfer: a pattern that shows loss, repetition and reordering of whole segments.
fn pattern(offset: u64) -> u8 {
    let mixed = (offset / 251).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    u8::try_from((mixed + offset % 251) & 0xff).unwrap_or(0)
}

fn chunk(from: u64, len: usize) -> Vec<u8> {
    (from..).take(len).map(pattern).collect()
}

/// Sends `bytes` over one TCP connection from a client in `from` to a server at `address` in `to`, and checks every
/// one of them there.
///
/// # Errors
/// When it is not over `within` that time, or the bytes are not those that were sent.
pub fn tcp_transfer(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    bytes: u64,
    within: Duration,
) -> io::Result<Transfer> {
    // An address that the server's namespace lacks is the client's to find out: listen on all.
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 8], 0).into() };
    let listener = to.inside(|| TcpListener::bind(any))?;
    let address = SocketAddr::new(address, listener.local_addr()?.port());
    let deadline = Deadline::after(within);
    // Made once, so that making it is not measured.
    let pattern = chunk(0, CHUNK * 251);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, bytes, deadline, within, &pattern));
        let sent = from.inside(|| send(address, bytes, within, &pattern));
        let received = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let took = sent?;
        received?;
        Ok(Transfer { bytes, took })
    })
}

fn serve(
    listener: &TcpListener,
    bytes: u64,
    deadline: Deadline,
    within: Duration,
    pattern: &[u8],
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let (mut stream, _) = loop {
        match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && deadline.left().is_some() => {
                std::thread::sleep(Duration::from_millis(1));
            }
            accepted => break accepted?,
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(within))?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    let mut total = 0u64;
    while total < bytes {
        let len = stream.read(&mut buffer[..CHUNK.min(pattern.len() - at)])?;
        if len == 0 || buffer[..len] != pattern[at..at + len] {
            return Err(io::Error::other(format!("wrong or missing bytes after {total} of {bytes}")));
        }
        at = (at + len) % pattern.len();
        total += len as u64;
    }
    stream.write_all(b"all")
}

fn send(address: SocketAddr, bytes: u64, within: Duration, pattern: &[u8]) -> io::Result<Duration> {
    let began = Deadline::after(within);
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_write_timeout(Some(within))?;
    stream.set_read_timeout(Some(within))?;
    let mut left = bytes;
    for piece in pattern.chunks(CHUNK).cycle() {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        stream.write_all(&piece[..len])?;
        left -= len as u64;
        if left == 0 {
            break;
        }
    }
    let mut word = [0; 3];
    stream.read_exact(&mut word)?;
    Ok(within.saturating_sub(began.left().unwrap_or_default()))
}
