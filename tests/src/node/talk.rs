//! Pods that talk, or hear nothing of each other.

use super::PATIENCE;
use crate::lab::{Namespace, tcp_transfer};
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Bytes of a TCP transfer that proves a way.
const TRANSFER: u64 = 1 << 20;

/// Pings `to` with 56, 1,400 and 3,200 bytes, the last in fragments, and asserts that every reply comes.
///
/// # Panics
/// When one does not.
pub fn pings(from: &Namespace, to: IpAddr) {
    for size in [56, 56, 1400, 1400, 3200, 3200] {
        // One at a time: for the last of several ping waits no longer than twice what the others took.
        let ping = from.ping_with(to, size, 1, "-W 10");
        assert_eq!((ping.sent, ping.received), (1, 1), "{to}, {size} bytes: {}", ping.text);
    }
}

/// Asserts that `to` cannot be reached.
///
/// # Panics
/// When it answers.
pub fn silence(from: &Namespace, to: IpAddr) {
    let ping = from.ping(to, 56, 1);
    assert_eq!(ping.received, 0, "{to} answered: {}", ping.text);
}

/// Sends `bytes` over TCP from a client in `from` to a server in `to` and asserts that they arrive as they were.
///
/// # Panics
/// When they do not.
pub fn tcp(from: &Namespace, to: &Namespace, address: IpAddr, bytes: u64) {
    let done = tcp_transfer(from, to, address, bytes, PATIENCE);
    done.unwrap_or_else(|error| panic!("TCP to {address}: {error}"));
}

/// Sends datagrams of many sizes from `from` to `address` in `to`, which sends each back, and compares them.
///
/// # Panics
/// When one is lost or changed.
pub fn udp_echo(from: &Namespace, to: &Namespace, address: IpAddr) {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 8], 0).into() };
    let server = to.inside(|| UdpSocket::bind(any)).expect("a port is free");
    let client = from.inside(|| UdpSocket::bind(any)).expect("a port is free");
    let port = server.local_addr().expect("it is bound").port();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    }
    let mut buffer = vec![0; 1 << 16];
    for len in [0, 1, 2, 17, 18, 19, 63, 64, 65, 511, 1400, 1401, 5000] {
        let sent: Vec<u8> = (0..len).map(|i: usize| u8::try_from(i % 251).unwrap_or(0)).collect();
        client.send_to(&sent, (address, port)).unwrap_or_else(|error| panic!("UDP to {address}: {error}"));
        let (got, back) =
            server.recv_from(&mut buffer).unwrap_or_else(|error| panic!("UDP of {len}: {error}"));
        server.send_to(&buffer[..got], back).unwrap_or_else(|error| panic!("UDP to {back}: {error}"));
        let got = client.recv(&mut buffer).unwrap_or_else(|error| panic!("UDP back of {len}: {error}"));
        assert_eq!(buffer[..got], sent, "UDP of {len}");
    }
}

/// All of the above, both ways where the direction matters: ping, TCP, UDP.
///
/// # Panics
/// When anything is lost or changed.
pub fn talk(from: &Namespace, from_address: IpAddr, to: &Namespace, to_address: IpAddr) {
    pings(from, to_address);
    tcp(from, to, to_address, TRANSFER);
    tcp(to, from, from_address, TRANSFER);
    udp_echo(from, to, to_address);
}
