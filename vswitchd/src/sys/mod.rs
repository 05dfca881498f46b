//! The operating system's doors: descriptors, ioctls, sockets, many datagrams per call, netlink, namespaces,
//! signals.
//!
//! Thin and without policy: a function here makes one wish of the kernel and says what the kernel said, as an
//! [`std::io::Error`] with the errno in it. What a failure means, and what to do then, is for the rooms above.
//! This is the only room of the project with unsafe code.
#![allow(unsafe_code, reason = "system calls that std does not offer; every other room is safe")]

pub mod address;
pub mod ethtool;
pub mod event;
pub mod lock;
pub mod mmsg;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod packet;
pub mod process;
pub mod random;
pub mod rights;
pub mod socket;
pub mod sysctl;
pub mod tun;

use std::io;

/// A system call's result: negative is an error, with the reason in `errno`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A system call's result that is a count of bytes.
fn count(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// The size of a kernel structure, as socket calls want it.
#[expect(clippy::cast_possible_truncation, reason = "no kernel structure comes near 4 GiB")]
const fn len_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}
