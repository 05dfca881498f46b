//! Packet sockets: all frames of one interface, with what the kernel says about each beside it (packet(7)).
//!
//! Receiving and sending many at once is [`super::mmsg`]'s, what the virtio-net header says is the link room's.

use super::{check, len_of};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What a packet socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The interface's number in its namespace; `None` since it was deleted or moved to another namespace.
    pub index: Option<u32>,
    /// What kind of frames it carries: an ARPHRD_ number of linux/if_arp.h.
    pub hardware: u16,
}

/// The number of the interface called `name` in the calling thread's namespace. ENODEV when there is none;
/// `InvalidInput` when the name has a zero byte in it.
pub fn index_of(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: `name` is a string with a zero byte at its end, and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// A non-blocking socket that receives every frame which interface `index` receives, whomever it is for, and none
/// that leaves by it. In front of each is a virtio-net header, on the way in and on the way out; a VLAN tag that the
/// kernel took out comes beside the frame, as does the count of those that the socket lost. `PermissionDenied` without
/// CAP_NET_RAW; ENODEV when there is no such interface.
pub fn open(index: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // Of no protocol, so that nothing comes in before it is set up.
    // SAFETY: plain numbers in; the result is checked before use.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    for option in [libc::PACKET_VNET_HDR, libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
        set(&socket, libc::SOL_PACKET, option, &1_i32)?;
    }
    super::socket::report_overflow(&socket)?;
    let index = libc::c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut name = no_name();
    name.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).unwrap_or(0);
    name.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
    name.sll_ifindex = index;
    let len = len_of::<libc::sockaddr_ll>();
    // SAFETY: `name` is an initialised sockaddr_ll of `len` bytes and outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), len) })?;
    let promiscuous = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::c_ushort::try_from(libc::PACKET_MR_PROMISC).unwrap_or(0),
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)?;
    Ok(socket)
}

/// What `socket` is bound to now.
pub fn bound(socket: BorrowedFd<'_>) -> io::Result<Bound> {
    let mut name = no_name();
    let mut len = len_of::<libc::sockaddr_ll>();
    // SAFETY: the kernel writes at most `len` bytes into `name`, and how many there are into `len`.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut name).cast(), &raw mut len) })?;
    let index = u32::try_from(name.sll_ifindex).ok().filter(|index| *index != 0);
    Ok(Bound { index, hardware: name.sll_hatype })
}

const fn no_name() -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: 0,
        sll_protocol: 0,
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = len_of::<T>();
    // SAFETY: `value` is an initialised T and outlives the call; `len` is its size.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), len)
    })
    .map(drop)
}
