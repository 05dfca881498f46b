//! Many datagrams with one system call: recvmmsg and sendmmsg. No buffers of its own, nothing allocated.

use super::address::SocketName;
use super::{check, len_of};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How many datagrams one call receives or sends at most.
pub const DATAGRAMS: usize = 32;

/// How many pieces one call gathers at most, over all its datagrams.
pub const PIECES: usize = 128;

/// A datagram that was received.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// Bytes written to its buffer.
    pub len: usize,
    /// Who sent it.
    pub from: Option<SocketAddr>,
    /// It was longer than its buffer; the end is lost.
    pub truncated: bool,
}

/// What one call received.
#[derive(Debug)]
pub struct Datagrams {
    got: [Datagram; DATAGRAMS],
    len: usize,
    /// The socket's count of datagrams lost so far, modulo 2³², if one of these told it (SO_RXQ_OVFL).
    pub lost: Option<u32>,
}

impl Datagrams {
    /// The datagrams; *n* lies in the *n*th buffer.
    #[must_use]
    pub fn all(&self) -> &[Datagram] {
        &self.got[..self.len]
    }
}

/// Room for one control message with a `u32`, aligned as `cmsghdr` wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

const NO_HEADER: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

/// Receives up to [`DATAGRAMS`] waiting datagrams, one into each of `buffers` in order. Never waits:
/// `WouldBlock` when there is none.
pub fn receive(socket: BorrowedFd<'_>, buffers: &mut [&mut [u8]]) -> io::Result<Datagrams> {
    let wanted = buffers.len().min(DATAGRAMS);
    let mut names = [SocketName::EMPTY; DATAGRAMS];
    let mut controls = [Control([0; 64]); DATAGRAMS];
    let mut iovs = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; DATAGRAMS];
    let mut headers = [NO_HEADER; DATAGRAMS];
    for (i, buffer) in buffers.iter_mut().take(wanted).enumerate() {
        iovs[i] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let header = &mut headers[i].msg_hdr;
        header.msg_name = (&raw mut names[i]).cast();
        header.msg_namelen = len_of::<SocketName>();
        header.msg_iov = &raw mut iovs[i];
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut controls[i]).cast();
        header.msg_controllen = size_of::<Control>();
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most DATAGRAMS")]
    let vlen = wanted as libc::c_uint;
    // SAFETY: the first `vlen` headers each describe one live, writable name, control area and buffer of the
    // lengths given; all of them outlive the call, and `buffers` are disjoint by their borrow.
    let got = check(unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            vlen,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    })?;
    let len = usize::try_from(got).unwrap_or(0).min(wanted);
    let mut datagrams =
        Datagrams { got: [Datagram { len: 0, from: None, truncated: false }; DATAGRAMS], len, lost: None };
    for (i, header) in headers.iter().take(len).enumerate() {
        datagrams.got[i] = Datagram {
            len: (header.msg_len as usize).min(iovs[i].iov_len),
            from: names[i].get(),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        };
        datagrams.lost = lost(&header.msg_hdr).or(datagrams.lost);
    }
    Ok(datagrams)
}

/// The overflow count among a received message's control messages.
fn lost(header: &libc::msghdr) -> Option<u32> {
    // SAFETY: the kernel filled `msg_control` with `msg_controllen` bytes of control messages, and the memory
    // behind them (`Control`, in the caller's frame) is alive and aligned.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole header inside the control area.
        let found = unsafe { *at };
        if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SO_RXQ_OVFL {
            // SAFETY: this message's data is one u32; CMSG_DATA need not be aligned for it.
            return Some(unsafe { libc::CMSG_DATA(at).cast::<u32>().read_unaligned() });
        }
        // SAFETY: as for CMSG_FIRSTHDR; `at` lies in the same control area.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
    None
}

/// A run of datagrams for one destination, each gathered from pieces.
#[derive(Debug)]
pub struct Run<'a> {
    pieces: [IoSlice<'a>; PIECES],
    used: usize,
    /// For each datagram the number behind its last piece, and its bytes.
    ends: [(usize, usize); DATAGRAMS],
    len: usize,
}

impl Default for Run<'_> {
    fn default() -> Self {
        Self { pieces: [IoSlice::new(&[]); PIECES], used: 0, ends: [(0, 0); DATAGRAMS], len: 0 }
    }
}

impl<'a> Run<'a> {
    /// Adds a datagram; `false`, and nothing added, when there is no room for it.
    pub fn push(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> bool {
        if self.len == DATAGRAMS {
            return false;
        }
        let (mut used, mut bytes) = (self.used, 0);
        for piece in pieces {
            let Some(place) = self.pieces.get_mut(used) else { return false };
            *place = IoSlice::new(piece);
            used += 1;
            bytes += piece.len();
        }
        self.used = used;
        self.ends[self.len] = (used, bytes);
        self.len += 1;
        true
    }

    /// How many datagrams it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of datagram `i`; 0 when there is none.
    #[must_use]
    pub fn bytes(&self, i: usize) -> usize {
        self.ends[..self.len].get(i).map_or(0, |end| end.1)
    }

    /// Forgets all datagrams.
    pub const fn clear(&mut self) {
        self.used = 0;
        self.len = 0;
    }

    /// Sends the datagrams from the `first`th on and returns how many of them the kernel took, at least one; an
    /// error is the first one's. Never waits.
    pub fn send(&self, first: usize, socket: BorrowedFd<'_>, to: &SocketName) -> io::Result<usize> {
        let mut headers = [NO_HEADER; DATAGRAMS];
        let mut from = first.checked_sub(1).and_then(|i| self.ends[..self.len].get(i)).map_or(0, |end| end.0);
        let ends = self.ends[..self.len].get(first..).unwrap_or_default();
        for (header, &(end, _)) in headers.iter_mut().zip(ends) {
            let pieces = &self.pieces[from..end];
            let header = &mut header.msg_hdr;
            header.msg_name = std::ptr::from_ref(to).cast_mut().cast();
            header.msg_namelen = to.len();
            // An IoSlice is an iovec (std's promise on Unix).
            header.msg_iov = pieces.as_ptr().cast_mut().cast();
            header.msg_iovlen = pieces.len();
            from = end;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most DATAGRAMS")]
        let vlen = ends.len() as libc::c_uint;
        // SAFETY: the first `vlen` headers each describe a live name and live pieces (borrowed for 'a, which
        // outlives self); sendmmsg only reads them, and writes only `msg_len` in `headers`.
        let sent = check(unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), vlen, libc::MSG_DONTWAIT)
        })?;
        Ok(usize::try_from(sent).unwrap_or(0))
    }
}
