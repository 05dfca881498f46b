//! A packet socket on a link: every frame that passes it, in order; and frames put onto it.
//!
//! What the kernel has sent or received when a question is asked is in the answer: nothing is waited for.

use crate::lab::Namespace;
use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};

/// Room for what passes between two questions.
const QUEUE: libc::c_int = 64 << 20;

/// An open packet socket.
#[derive(Debug)]
pub struct Wire {
    socket: File,
}

impl Wire {
    /// Listens on `link` of `namespace` from now on.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn open(namespace: &Namespace, link: &str) -> Self {
        let socket = namespace.inside(|| open(link)).unwrap_or_else(|error| panic!("{link}: {error}"));
        Self { socket }
    }

    /// The frames that have passed since this was last asked, both ways. A frame that a checksum or a cut was
    /// left to the link's hardware for shows as it was before.
    ///
    /// # Panics
    /// When the socket breaks.
    pub fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 1 << 17];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(len) => frames.push(buffer[..len].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return frames,
                Err(error) => panic!("packet socket: {error}"),
            }
        }
    }

    /// Puts `frame` onto the link.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn send(&mut self, frame: &[u8]) {
        let sent = self.socket.write(frame);
        assert!(sent.as_ref().is_ok_and(|len| *len == frame.len()), "{sent:?}");
    }
}

#[expect(unsafe_code, reason = "the standard library has no packet sockets")]
fn open(link: &str) -> std::io::Result<File> {
    let all = u16::try_from(libc::ETH_P_ALL).map_err(std::io::Error::other)?;
    let name = CString::new(link)?;
    // SAFETY: the name is a C string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    // SAFETY: plain numbers in; the result is checked before use.
    let fd = unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0)
    };
    if index == 0 || fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    let socket = unsafe { File::from_raw_fd(fd) };
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::c_ushort::try_from(libc::AF_PACKET).map_err(std::io::Error::other)?;
    address.sll_protocol = all.to_be();
    address.sll_ifindex = libc::c_int::try_from(index).map_err(std::io::Error::other)?;
    let len = |bytes: usize| libc::socklen_t::try_from(bytes).unwrap_or(0);
    // SAFETY: the option's value is a c_int of that size and outlives the call.
    let queue = unsafe {
        let wanted = QUEUE;
        let value = (&raw const wanted).cast();
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, len(size_of::<libc::c_int>()))
    };
    // In a user namespace the queue stays as small as the system's limit; that is enough for a ping.
    let _ = queue;
    // SAFETY: the address is a sockaddr_ll of that size and outlives the call.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len(size_of::<libc::sockaddr_ll>()))
    };
    if bound < 0 { Err(std::io::Error::last_os_error()) } else { Ok(socket) }
}
