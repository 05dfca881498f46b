//! Socket options and calls that the standard library does not know, on its own sockets.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Sets an integer option.
///
/// # Panics
/// When the kernel refuses.
#[track_caller]
pub fn set(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    let set = set_bytes(socket, level, name, &value.to_ne_bytes());
    set.unwrap_or_else(|error| panic!("option {name} of level {level} to {value}: {error}"));
}

/// Sets an option to these bytes.
///
/// # Errors
/// When the kernel refuses.
pub fn set_bytes(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "the standard library does not know these options")]
    // SAFETY: the kernel reads `len` bytes, which outlive the call.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the kernel cut what `socket` sends into datagrams of `size` bytes, as late as it can (udp(7)); 0 ends it.
///
/// # Panics
/// When the kernel refuses.
pub fn segment(socket: &UdpSocket, size: u16) {
    set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, size.into());
}

/// The TOS or traffic class of what `socket` sends from now on.
///
/// # Panics
/// When the kernel refuses.
pub fn set_tos(socket: &impl AsRawFd, v6: bool, tos: u8) {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { (libc::IPPROTO_IP, libc::IP_TOS) };
    set(socket, level, name, tos.into());
}

/// The TTL or hop limit of what `socket` sends from now on.
///
/// # Panics
/// When the kernel refuses.
pub fn set_ttl(socket: &impl AsRawFd, v6: bool, ttl: u8) {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) } else { (libc::IPPROTO_IP, libc::IP_TTL) };
    set(socket, level, name, ttl.into());
}

/// Puts options into every IP header that `socket` sends: for IPv4 two no-operations and a router alert (RFC 2113)
/// of zero, for IPv6 a destination options header of padding alone (RFC 8200 §4.6).
///
/// # Panics
/// When the kernel refuses.
pub fn set_ip_options(socket: &impl AsRawFd, v6: bool) {
    let set = if v6 {
        const IPV6_DSTOPTS: libc::c_int = 59;
        set_bytes(socket, libc::IPPROTO_IPV6, IPV6_DSTOPTS, &[0, 0, 1, 4, 0, 0, 0, 0])
    } else {
        set_bytes(socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1, 1, 0x94, 4, 0, 0, 1, 0])
    };
    set.expect("root may, for it is in a namespace of its own");
}

/// Room for much of what a busy machine leaves lying.
///
/// # Panics
/// When the kernel refuses.
pub fn set_room(socket: &impl AsRawFd) {
    let bytes: libc::c_int = 8 << 20;
    let forced = set_bytes(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes.to_ne_bytes());
    if forced.is_err() {
        set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
    }
}

/// Signs every segment to and from `peer` with a key (RFC 2385); false where the kernel cannot.
#[must_use]
pub fn sign(socket: &impl AsRawFd, peer: IpAddr) -> bool {
    const TCP_MD5SIG: libc::c_int = 14;
    const KEY: &[u8] = b"a secret of two";
    // struct tcp_md5sig (linux/tcp.h): sockaddr_storage, flags, prefix length, key length, interface, key.
    let mut value = vec![0_u8; 216];
    match peer {
        IpAddr::V4(peer) => {
            value[..2].copy_from_slice(&2_u16.to_ne_bytes());
            value[4..8].copy_from_slice(&peer.octets());
        }
        IpAddr::V6(peer) => {
            value[..2].copy_from_slice(&10_u16.to_ne_bytes());
            value[8..24].copy_from_slice(&peer.octets());
        }
    }
    value[130..132].copy_from_slice(&15_u16.to_ne_bytes());
    value[136..136 + KEY.len()].copy_from_slice(KEY);
    set_bytes(socket, libc::IPPROTO_TCP, TCP_MD5SIG, &value).is_ok()
}

/// Sends `bytes`, the last of which is urgent (RFC 9293 §3.8.5).
///
/// # Errors
/// When the connection breaks.
pub fn send_urgent(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        let rest = &bytes[sent..];
        #[expect(unsafe_code, reason = "the standard library sends nothing urgent")]
        // SAFETY: the kernel reads the bytes, which outlive the call.
        let more = unsafe {
            libc::send(
                stream.as_raw_fd(),
                rest.as_ptr().cast(),
                rest.len(),
                libc::MSG_OOB | libc::MSG_NOSIGNAL,
            )
        };
        sent += usize::try_from(more).map_err(|_| io::Error::last_os_error())?;
    }
    Ok(())
}

/// A TCP socket that `prepare` has seen before it connects to `address`.
///
/// # Errors
/// When the kernel refuses, or nobody answers.
pub fn connect(address: SocketAddr, prepare: impl FnOnce(&OwnedFd)) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    #[expect(unsafe_code, reason = "the standard library makes a socket and connects it in one")]
    // SAFETY: numbers in, a number out.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    #[expect(unsafe_code, reason = "a descriptor that C made")]
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    prepare(&socket);
    let mut name = [0_u8; 28];
    name[..2].copy_from_slice(&libc::sa_family_t::try_from(family).map_err(io::Error::other)?.to_ne_bytes());
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    let len: libc::socklen_t = match address.ip() {
        IpAddr::V4(ip) => {
            name[4..8].copy_from_slice(&ip.octets());
            16
        }
        IpAddr::V6(ip) => {
            name[8..24].copy_from_slice(&ip.octets());
            28
        }
    };
    #[expect(unsafe_code, reason = "the standard library makes a socket and connects it in one")]
    // SAFETY: the kernel reads `len` bytes of a sockaddr_in or sockaddr_in6, which outlive the call.
    let connected = unsafe { libc::connect(fd, name.as_ptr().cast(), len) };
    if connected == 0 { Ok(TcpStream::from(socket)) } else { Err(io::Error::last_os_error()) }
}

/// What `listener` accepts within `wait`.
///
/// # Errors
/// When nobody comes.
pub fn accept(listener: &TcpListener, wait: std::time::Duration) -> io::Result<TcpStream> {
    let mut poll = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
    #[expect(unsafe_code, reason = "the standard library cannot wait for a descriptor")]
    // SAFETY: the kernel reads and writes the one pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, wait) };
    if ready <= 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    listener.accept().map(|(stream, _)| stream)
}

/// Datagrams that the kernel may hand over several at a time (UDP_GRO, udp(7)), taken apart again.
///
/// # Errors
/// When nothing comes in time.
pub fn receive_merged(socket: &UdpSocket) -> io::Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0_u8; 1 << 16];
    let mut control = [0_u64; 8];
    let mut pieces = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    #[expect(unsafe_code, reason = "a structure of C that is all zeros where nothing is said")]
    // SAFETY: msghdr is numbers and pointers, for which zero and null are values.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut pieces;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let len = loop {
        #[expect(unsafe_code, reason = "the standard library has no control messages")]
        // SAFETY: the kernel writes into the buffer and the control space, whose lengths it is told.
        let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
        let error = io::Error::last_os_error();
        match usize::try_from(len) {
            Ok(len) => break len,
            // A socket with a time limit is not called again by the kernel.
            Err(_) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(error),
        }
    };
    let mut size = len.max(1);
    #[expect(unsafe_code, reason = "control messages are walked with C's macros")]
    // SAFETY: the kernel filled the control space and set its length; the macros stay within it, and what is read
    // is one int behind a header that says so.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_UDP && (*header).cmsg_type == libc::UDP_GRO {
                let told = libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned();
                size = usize::try_from(told).unwrap_or(size);
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    let bytes = &buffer[..len];
    Ok(if len == 0 { vec![Vec::new()] } else { bytes.chunks(size).map(<[u8]>::to_vec).collect() })
}
