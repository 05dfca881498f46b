//! Seeded TCP streams and UDP datagrams between pods, compared byte for byte at both ends.

use crate::lab::Namespace;
use crate::node::PATIENCE;
use crate::rng::Rng;
use crate::socket::{
    accept, connect, receive_merged, segment, send_urgent, set, set_ip_options, set_room, set_tos, set_ttl,
    sign,
};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::channel;

/// How a TCP stream is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp {
    /// Bytes each way, at least.
    pub bytes: usize,
    /// Now and then a byte is urgent.
    pub urgent: bool,
    /// DSCP and TTL change now and then.
    pub changing: bool,
    /// Options in every IP header.
    pub ip_options: bool,
    /// Every segment is signed (RFC 2385).
    pub signed: bool,
    /// The largest segment, 0 for the default.
    pub max_segment: u16,
    /// Small writes leave at once.
    pub no_delay: bool,
}

/// One TCP connection from a client in `from` to a server at `address` in `to`, both sending at the same time.
/// Returns what the server received; that both received what the other sent is asserted.
///
/// # Panics
/// When anything is lost or changed, or takes too long.
#[track_caller]
pub fn tcp(from: &Namespace, to: &Namespace, address: IpAddr, how: &Tcp, rng: &mut Rng) -> Vec<u8> {
    try_tcp(from, to, address, how, rng).unwrap_or_else(|error| panic!("TCP to {address}, {how:?}: {error}"))
}

fn try_tcp(from: &Namespace, to: &Namespace, at: IpAddr, how: &Tcp, rng: &mut Rng) -> io::Result<Vec<u8>> {
    let listener = to.inside(|| TcpListener::bind(any(at)))?;
    set(&listener, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1);
    let peer = from.inside(|| source_to(at))?;
    let (data, back) = (rng.bytes(how.bytes), rng.bytes(how.bytes));
    if how.signed && !sign(&listener, peer) {
        crate::lab::skip("the kernel does not sign TCP segments (CONFIG_TCP_MD5SIG)");
        return Ok(data);
    }
    let to_connect = SocketAddr::new(at, listener.local_addr()?.port());
    let client = from.inside(|| {
        connect(to_connect, |socket| {
            set(socket, libc::SOL_SOCKET, libc::SO_OOBINLINE, 1);
            if how.signed {
                assert!(sign(socket, at), "the listener could be signed for");
            }
            if how.max_segment > 0 {
                set(socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG, how.max_segment.into());
            }
            if how.ip_options {
                set_ip_options(socket, at.is_ipv6());
            }
        })
    })?;
    let server = accept(&listener, PATIENCE)?;
    if how.ip_options {
        set_ip_options(&server, at.is_ipv6());
    }
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(how.no_delay)?;
    }
    let (mut one, mut other) = (rng.fork(), rng.fork());
    let (arrived, returned) = std::thread::scope(|scope| {
        let client = &client;
        let server = &server;
        let writers = [
            scope.spawn(|| write(client, at.is_ipv6(), &data, how, &mut one)),
            scope.spawn(|| write(server, at.is_ipv6(), &back, how, &mut other)),
        ];
        let readers = [scope.spawn(|| read(server)), scope.spawn(|| read(client))];
        for writer in writers {
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        let [arrived, returned] =
            readers.map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        io::Result::Ok((arrived?, returned?))
    })?;
    assert!(arrived == data, "TCP to {at}, {how:?}: {}", first_difference(&arrived, &data));
    assert!(returned == back, "TCP from {at}, {how:?}: {}", first_difference(&returned, &back));
    Ok(arrived)
}

fn any(family: IpAddr) -> SocketAddr {
    if family.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 8], 0).into() }
}

/// The address that the calling thread's namespace uses towards `to`.
fn source_to(to: IpAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(any(to))?;
    socket.connect((to, 9))?;
    Ok(socket.local_addr()?.ip())
}

fn first_difference(got: &[u8], sent: &[u8]) -> String {
    let at = got.iter().zip(sent).position(|(a, b)| a != b);
    format!("{} of {} bytes, the first that differs {at:?}", got.len(), sent.len())
}

fn write(mut stream: &TcpStream, v6: bool, bytes: &[u8], how: &Tcp, rng: &mut Rng) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        // Small, odd, and more than a superframe.
        let largest = *rng.pick(&[3, 700, 2000, 9000, 70_000]);
        let (piece, rest) = left.split_at(rng.within(1..=largest).min(left.len()));
        if how.changing && rng.one_in(4) {
            set_tos(stream, v6, *rng.pick(&[0, 0x28, 0xb8]));
            set_ttl(stream, v6, *rng.pick(&[64, 63, 200]));
        }
        if how.urgent && rng.one_in(3) {
            send_urgent(stream, piece)?;
        } else {
            stream.write_all(piece)?;
        }
        left = rest;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

fn read(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// How datagrams are sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Udp {
    /// How many datagrams.
    pub count: usize,
    /// The shortest, in bytes of payload.
    pub shortest: usize,
    /// The longest; longer than the MTU means fragments.
    pub longest: usize,
    /// Superframes: the kernel is left to cut, into datagrams of one size and a shorter last one.
    pub superframes: bool,
    /// Without a checksum (IPv4 only).
    pub no_checksum: bool,
    /// The receiver takes them as superframes.
    pub merged: bool,
    /// DSCP, ECN and TTL change now and then.
    pub changing: bool,
    /// Options in every IP header.
    pub ip_options: bool,
}

/// How many datagrams, and how many bytes, may be under way: nothing that has room for a moment's work loses any.
const UNDER_WAY: (usize, usize) = (40, 100_000);

/// Datagrams from `from` to `address` in `to`; returns them as they were received. That each arrived once, whole, and
/// in order is asserted.
///
/// # Panics
/// When one is lost, changed, repeated or overtaken.
#[track_caller]
pub fn udp(from: &Namespace, to: &Namespace, address: IpAddr, how: &Udp, rng: &mut Rng) -> Vec<Vec<u8>> {
    let server = to.inside(|| UdpSocket::bind(any(address))).expect("a port is free");
    let client = from.inside(|| UdpSocket::bind(any(address))).expect("a port is free");
    set_room(&server);
    server.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let v6 = address.is_ipv6();
    if how.no_checksum {
        set(&client, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    }
    if how.merged {
        set(&server, libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    if how.ip_options {
        set_ip_options(&client, v6);
    }
    let to_port = (address, server.local_addr().expect("it is bound").port());
    let mut plan = sends(how, rng);
    let expected: Vec<Vec<u8>> = plan.iter().flat_map(Send::datagrams).collect();
    let (said, heard) = channel();
    let received = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            // It ends with this thread's share, so that the sender hears of a loss.
            let said = said;
            let mut received = Vec::new();
            while received.len() < expected.len() {
                match receive_merged(&server) {
                    Ok(datagrams) => {
                        let bytes = datagrams.iter().map(Vec::len).sum::<usize>();
                        let _ = said.send((datagrams.len(), bytes));
                        received.extend(datagrams);
                    }
                    Err(_) => break,
                }
            }
            received
        });
        let mut under_way = (0, 0);
        for send in &mut plan {
            let (count, bytes) = (send.datagrams().len(), send.bytes.len());
            while under_way != (0, 0)
                && (under_way.0 + count > UNDER_WAY.0 || under_way.1 + bytes > UNDER_WAY.1)
            {
                let Ok((count, bytes)) = heard.recv() else { break };
                under_way = (under_way.0.saturating_sub(count), under_way.1.saturating_sub(bytes));
            }
            if how.changing {
                set_tos(&client, v6, *rng.pick(&[0, 1, 2, 3, 0x28]));
                set_ttl(&client, v6, *rng.pick(&[64, 64, 63]));
            }
            if how.superframes {
                segment(&client, send.size);
            }
            let sent = client.send_to(&send.bytes, to_port);
            sent.unwrap_or_else(|error| panic!("UDP to {address}, {how:?}, {bytes} bytes: {error}"));
            under_way = (under_way.0 + count, under_way.1 + bytes);
        }
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    for (i, (got, sent)) in received.iter().zip(&expected).enumerate() {
        assert!(got == sent, "UDP to {address}, {how:?}, datagram {i}: {}", first_difference(got, sent));
    }
    assert_eq!(received.len(), expected.len(), "UDP to {address}, {how:?}");
    received
}

/// One call of send.
struct Send {
    bytes: Vec<u8>,
    /// Bytes of each datagram but the last.
    size: u16,
}

impl Send {
    fn datagrams(&self) -> Vec<Vec<u8>> {
        if self.bytes.is_empty() {
            return vec![Vec::new()];
        }
        let size = if self.size == 0 { self.bytes.len() } else { usize::from(self.size) };
        self.bytes.chunks(size).map(<[u8]>::to_vec).collect()
    }
}

fn sends(how: &Udp, rng: &mut Rng) -> Vec<Send> {
    let mut sends = Vec::new();
    let mut left = how.count;
    let mut same = how.shortest.max(1);
    while left > 0 {
        if how.superframes {
            let size = rng.within(1..=how.longest);
            let count = rng.within(1..=UNDER_WAY.0).min(left).min(60_000 / size);
            // The last may be shorter.
            let len = count * size - if rng.one_in(2) { rng.below(size) } else { 0 };
            sends.push(Send { bytes: rng.bytes(len), size: u16::try_from(size).expect("below the MTU") });
            left -= count;
        } else {
            // Runs of one size, as an application sends them, and other sizes between.
            if rng.one_in(6) {
                same = rng.within(how.shortest..=how.longest);
            }
            let len = if rng.one_in(8) { rng.within(how.shortest..=how.longest) } else { same };
            sends.push(Send { bytes: rng.bytes(len), size: 0 });
            left -= 1;
        }
    }
    sends
}

/// A little of everything from `from` to each of `addresses` in `to`: TCP both ways, datagrams one by one, in
/// superframes and in fragments.
///
/// # Panics
/// When anything is lost, changed, repeated or overtaken.
#[track_caller]
pub fn sample(from: &Namespace, to: &Namespace, addresses: &[IpAddr], rng: &mut Rng) {
    for address in addresses {
        tcp(from, to, *address, &Tcp { bytes: 600_000, ..Tcp::default() }, rng);
        tcp(from, to, *address, &Tcp { bytes: 60_000, no_delay: true, urgent: true, ..Tcp::default() }, rng);
        let some = Udp { count: 100, longest: 1300, ..Udp::default() };
        for how in [
            some,
            Udp { superframes: true, ..some },
            Udp { superframes: true, merged: true, ..some },
            Udp { shortest: 2000, longest: 9000, count: 30, ..some },
        ] {
            udp(from, to, *address, &how, rng);
        }
        if address.is_ipv4() {
            udp(from, to, *address, &Udp { no_checksum: true, merged: true, ..some }, rng);
        }
    }
}
