//! UDP sockets made before they are bound, and the options std does not know. Sending and receiving many
//! datagrams is [`super::mmsg`]'s.

use super::address::SocketName;
use super::{check, len_of};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A non-blocking UDP socket of `address`'s family, not bound. An IPv6 one carries IPv6 only.
pub fn udp(address: IpAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: plain numbers in; the result is checked before use.
    let fd = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if address.is_ipv6() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    Ok(socket)
}

/// A blocking raw socket for ICMP (or ICMPv6, by `address`'s family), not connected. Of IPv4 it receives whole
/// packets, of IPv6 messages; the kernel fills in the checksum of IPv6 alone (raw(7), RFC 3542 §3.1).
/// `PermissionDenied` without CAP_NET_RAW.
pub fn icmp(address: IpAddr) -> io::Result<OwnedFd> {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    // SAFETY: plain numbers in; the result is checked before use.
    let fd = check(unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds `socket` to `address`.
pub fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let name = SocketName::from(address);
    // SAFETY: `name` is an initialised socket address of `name.len()` bytes and outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), name.len()) }).map(drop)
}

fn set(socket: impl AsFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = len_of::<libc::c_int>();
    // SAFETY: `value` is a c_int and outlives the call; `len` is its size.
    check(unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const value).cast(), len)
    })
    .map(drop)
}

/// Lets several sockets of this user share an address; the kernel spreads flows over them (SO_REUSEPORT).
pub fn share_port(socket: &OwnedFd) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
}

/// Asks for the count of datagrams lost to a full queue with each datagram (SO_RXQ_OVFL).
pub fn report_overflow(socket: &OwnedFd) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)
}

/// Takes IPv6 datagrams without a UDP checksum, as tunnels may send (RFC 6935).
pub fn take_zero_checksums(socket: &OwnedFd) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, 1)
}

/// Never fragments what `socket` sends, and does not believe path-MTU messages about it either: larger than
/// the interface is EMSGSIZE (IP_PMTUDISC_PROBE).
pub fn never_fragment(socket: &OwnedFd, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
    }
}

/// Lets the kernel fragment what `socket` sends wherever it is too large: IPv4 without DF.
pub fn allow_fragments(socket: &OwnedFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)
}

/// The DS field and ECN of all packets that `socket`, of `address`'s family, sends (IP_TOS, IPV6_TCLASS).
pub fn set_tos(socket: &OwnedFd, address: IpAddr, tos: u8) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_TOS, tos.into()),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, tos.into()),
    }
}

/// The TTL, or hop limit, of all unicast packets that `socket`, of `address`'s family, sends: 1..=255.
pub fn set_ttl(socket: &OwnedFd, address: IpAddr, ttl: u8) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_TTL, ttl.into()),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, ttl.into()),
    }
}

/// Sends UDP over IPv4 without a checksum (SO_NO_CHECK).
pub fn leave_out_checksums(socket: &OwnedFd) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)
}

/// The MTU of the path from `local`, or any address of this node, to `remote` as the kernel knows it (IP_MTU,
/// IPV6_MTU), in bytes of IP packet. An error where there is no route.
pub fn path_mtu(local: Option<IpAddr>, remote: SocketAddr) -> io::Result<u32> {
    let socket = udp(remote.ip())?;
    if let Some(local) = local {
        bind(&socket, SocketAddr::new(local, 0))?;
    }
    let name = SocketName::from(remote);
    // SAFETY: `name` is an initialised socket address of `name.len()` bytes and outlives the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), name.len()) })?;
    let (level, option) = match remote {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut mtu: libc::c_int = 0;
    let mut len = len_of::<libc::c_int>();
    // SAFETY: the kernel writes at most `len` bytes into `mtu`, and how many into `len`.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut mtu).cast(), &raw mut len)
    })?;
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Asks for `bytes` of receive queue, beyond the system's limit where we may (SO_RCVBUFFORCE).
pub fn set_receive_queue(socket: &OwnedFd, bytes: u32) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

/// Asks for `bytes` of send queue, beyond the system's limit where we may (SO_SNDBUFFORCE).
pub fn set_send_queue(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
        .or_else(|_| set(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes))
}

/// Whether the kernel cuts a message of `socket` into datagrams when asked to (UDP_SEGMENT, Linux 4.18).
pub fn can_segment(socket: &OwnedFd) -> bool {
    set(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

/// Lets the kernel hand over many datagrams of one flow as one message (UDP_GRO, Linux 5.0).
pub fn take_trains(socket: &OwnedFd) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// How many datagrams `socket` has lost since it was made, to a full queue or a bad checksum, modulo 2³²
/// (SO_MEMINFO): the same count that comes with a datagram, but to be had when none comes.
pub fn lost(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// SK_MEMINFO_VARS of linux/sock_diag.h: nine numbers, the last of which is SK_MEMINFO_DROPS.
    const VARS: usize = 9;
    let mut vars = [0_u32; VARS];
    let mut len = len_of::<[u32; VARS]>();
    // SAFETY: the kernel writes at most `len` bytes into `vars`, and how many into `len`.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            vars.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    Ok(vars[VARS - 1])
}

/// Who is at the other end of a Unix socket, as the kernel saw it when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process id, in our process namespace.
    pub pid: i32,
    /// User id, in our user namespace.
    pub uid: u32,
    /// Group id, in our user namespace.
    pub gid: u32,
}

/// The credentials of `stream`'s other end (SO_PEERCRED).
pub fn peer_credentials(stream: BorrowedFd<'_>) -> io::Result<Credentials> {
    let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = len_of::<libc::ucred>();
    // SAFETY: the kernel writes at most `len` bytes into `who`, and how many into `len`.
    check(unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut who).cast(),
            &raw mut len,
        )
    })?;
    Ok(Credentials { pid: who.pid, uid: who.uid, gid: who.gid })
}
