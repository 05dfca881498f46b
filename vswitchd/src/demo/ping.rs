//! ICMP echo from inside a pod (RFC 792, RFC 4443 §4): requests out, replies in, nothing else.

use crate::datapath::clock;
use crate::sys::{netns, socket};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::time::Duration;
use vswitch_core::wire::checksum::checksum;

/// As `ping` sends.
const PAYLOAD: usize = 56;

/// One pod's echo requests to one address.
#[derive(Debug)]
pub(super) struct Ping {
    /// A raw ICMP socket: of std's sockets this is the one that sends and receives without a connection.
    socket: UdpSocket,
    v6: bool,
    id: u16,
    sequence: u16,
}

impl Ping {
    /// From the network namespace `pod` to `to`.
    pub(super) fn new(pod: BorrowedFd<'_>, to: IpAddr) -> io::Result<Self> {
        let socket = netns::within(pod, || {
            let socket = UdpSocket::from(socket::icmp(to)?);
            socket.connect((to, 0))?;
            io::Result::Ok(socket)
        })??;
        let [.., a, b] = std::process::id().to_be_bytes();
        Ok(Self { socket, v6: to.is_ipv6(), id: u16::from_be_bytes([a, b]), sequence: 0 })
    }

    /// Sends one request and waits for its reply, `limit` at most. The round trip; `None` without a reply. That
    /// nothing could be sent, for want of a route, is an error.
    pub(super) fn once(&mut self, limit: Duration) -> io::Result<Option<Duration>> {
        self.sequence = self.sequence.wrapping_add(1);
        let (request, reply) = if self.v6 { (128, 129) } else { (8, 0) };
        let expected = message(reply, self.id, self.sequence);
        let started = clock::now();
        match self.socket.send(&message(request, self.id, self.sequence)) {
            // The neighbour did not answer an earlier one either.
            Err(error) if is_silence(&error) => return Ok(None),
            sent => sent?,
        };
        let mut bytes = [0; 2048];
        loop {
            let left = limit.saturating_sub(clock::now().since(started));
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(&mut bytes) {
                Ok(len) if self.is_reply(&bytes[..len], &expected) => {
                    return Ok(Some(clock::now().since(started)));
                }
                Ok(_) => {}
                Err(error) if is_silence(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether `received` is `expected`. The checksums are not compared: that of ICMPv6 is the kernel's, and
    /// everything that it covers is compared itself.
    fn is_reply(&self, received: &[u8], expected: &[u8]) -> bool {
        let header = match received.first() {
            Some(first) if !self.v6 => usize::from(first & 0x0f) * 4,
            _ => 0,
        };
        received.get(header..).is_some_and(|message| {
            message.len() == expected.len() && message[..2] == expected[..2] && message[4..] == expected[4..]
        })
    }
}

/// Whether `error` is what becomes of a request that nobody answers.
fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::HostUnreachable
    )
}

/// Whether `error` says that there is no route. A new IPv6 address has none for a moment: the kernel makes it
/// behind our back.
pub(super) fn is_routeless(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable)
}

fn message(kind: u8, id: u16, sequence: u16) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(id.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend((0_u8..).take(PAYLOAD));
    // Of ICMPv6 the kernel knows the pseudo-header and writes the checksum itself.
    let sum = checksum(&bytes).to_be_bytes();
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_64_bytes_that_sum_up_and_name_their_sender() {
        let request = message(8, 0x1234, 7);
        assert_eq!((request.len(), checksum(&request)), (64, 0));
        assert_eq!(request[..2], [8, 0]);
        assert_eq!(request[4..8], [0x12, 0x34, 0, 7]);
    }
}
