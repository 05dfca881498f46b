//! A raw socket on one interface: whole frames, tags included, in both directions.
//!
//! The kernel takes the outermost tag of a frame that it receives out of the bytes (`skb_vlan_untag`) and tells of
//! it beside them (packet(7), PACKET_AUXDATA); here it is put back.

use super::PATIENCE;
use crate::frames::describe;
use crate::lab::Deadline;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Bytes of a virtio-net header (`struct virtio_net_hdr`).
pub const FACTS_LEN: usize = 10;

/// Frames of one interface.
#[derive(Debug)]
pub struct Raw {
    socket: OwnedFd,
    /// Whether frames wear a virtio-net header.
    facts: bool,
}

/// Index of an interface in the calling thread's namespace.
pub(super) fn index(link: &str) -> Option<u32> {
    let name = CString::new(link).ok()?;
    #[expect(unsafe_code, reason = "the standard library knows no interfaces")]
    // SAFETY: the name is a C string that outlives the call, which only reads it.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

const fn size<T>() -> libc::socklen_t {
    #[expect(clippy::cast_possible_truncation, reason = "the sizes of a few small structures")]
    let size = size_of::<T>() as libc::socklen_t;
    size
}

fn check(result: libc::c_int, what: &str) {
    assert!(result >= 0, "{what}: {}", io::Error::last_os_error());
}

impl Raw {
    /// Opens it in the calling thread's namespace.
    ///
    /// # Panics
    /// When there is no such interface, or the right is missing.
    #[must_use]
    pub fn open(link: &str) -> Self {
        Self::open_with(link, false)
    }

    /// The same, but every frame wears a virtio-net header of [`FACTS_LEN`] bytes in front, in both directions
    /// (packet(7), PACKET_VNET_HDR): superframes are sent and received whole.
    ///
    /// # Panics
    /// When there is no such interface, or the right is missing.
    #[must_use]
    pub fn open_with_facts(link: &str) -> Self {
        Self::open_with(link, true)
    }

    fn open_with(link: &str, facts: bool) -> Self {
        let index = index(link).unwrap_or_else(|| panic!("there is no interface {link:?}"));
        let all = u16::try_from(libc::ETH_P_ALL).expect("a small number").to_be();
        #[expect(unsafe_code, reason = "the standard library has no packet sockets")]
        // SAFETY: the call takes numbers alone. Protocol 0: nothing is received before it is bound.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        check(fd, "opening a packet socket");
        #[expect(unsafe_code, reason = "a descriptor that C made")]
        // SAFETY: the kernel just made this descriptor and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let this = Self { socket, facts };
        // What it sends itself is not heard (since Linux 4.20).
        const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
        // linux/if_packet.h; the libc crate lacks it.
        const PACKET_VNET_HDR: libc::c_int = 15;
        this.option(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
        this.option(libc::SOL_PACKET, libc::PACKET_AUXDATA, 1);
        if facts {
            this.option(libc::SOL_PACKET, PACKET_VNET_HDR, 1);
        }
        this.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20);
        #[expect(unsafe_code, reason = "a structure of C that is all zeros where nothing is said")]
        // SAFETY: sockaddr_ll is plain numbers, for all of which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
        address.sll_protocol = all;
        address.sll_ifindex = i32::try_from(index).expect("an index is a positive number");
        #[expect(unsafe_code, reason = "the standard library has no packet sockets")]
        // SAFETY: the kernel reads one sockaddr_ll of the length given.
        let bound = unsafe {
            libc::bind(this.socket.as_raw_fd(), (&raw const address).cast(), size::<libc::sockaddr_ll>())
        };
        check(bound, "binding a packet socket");
        this
    }

    fn option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
        #[expect(unsafe_code, reason = "the standard library does not know these options")]
        // SAFETY: the kernel reads one int.
        let set = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size::<libc::c_int>(),
            )
        };
        // Without the right to a larger buffer the usual one must do.
        assert!(
            set == 0 || name == libc::SO_RCVBUFFORCE,
            "option {name} of a packet socket: {}",
            io::Error::last_os_error()
        );
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// What the kernel says: of a frame shorter than a header or longer than the MTU allows, or when the interface
    /// is down or gone.
    pub fn try_send(&self, frame: &[u8]) -> io::Result<()> {
        #[expect(unsafe_code, reason = "the standard library has no packet sockets")]
        // SAFETY: the kernel reads the frame's bytes, which outlive the call.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if usize::try_from(sent).is_ok_and(|sent| sent == frame.len()) {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }

    /// Sends one frame.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        self.try_send(frame).unwrap_or_else(|error| panic!("sending {} bytes: {error}", frame.len()));
    }

    /// The next frame that arrived, waiting at most `within`.
    ///
    /// # Panics
    /// When the socket fails otherwise than by its interface's end.
    #[must_use]
    pub fn receive(&self, within: Duration) -> Option<Vec<u8>> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let wait = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
        #[expect(unsafe_code, reason = "the standard library cannot wait for a descriptor")]
        // SAFETY: the kernel reads and writes the one pollfd.
        let ready = unsafe { libc::poll(&raw mut poll, 1, wait) };
        if ready <= 0 { None } else { self.read() }
    }

    /// Waits until exactly these bytes arrive; what comes before is thrown away.
    ///
    /// # Panics
    /// When they do not arrive.
    #[track_caller]
    pub fn until(&self, frame: &[u8]) {
        let deadline = Deadline::after(PATIENCE);
        while let Some(left) = deadline.left() {
            if self.receive(left).is_some_and(|bytes| bytes == frame) {
                return;
            }
        }
        panic!("not received within {PATIENCE:?}: {}", describe(frame));
    }

    /// Sends a frame that `to` must receive as it is.
    ///
    /// # Panics
    /// When it does not arrive.
    #[track_caller]
    pub fn reaches(&self, to: &Self, frame: &[u8]) {
        self.send(frame);
        to.until(frame);
    }

    /// Everything that has arrived until now.
    #[must_use]
    pub fn drain(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.read()).collect()
    }

    fn read(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0_u8; 66_000];
        let mut control = [0_u64; 16];
        let mut pieces = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        #[expect(unsafe_code, reason = "a structure of C that is all zeros where nothing is said")]
        // SAFETY: msghdr is numbers and pointers, for which zero and null are values.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut pieces;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        #[expect(unsafe_code, reason = "the standard library has no control messages")]
        // SAFETY: the kernel writes into the buffer and the control space, whose lengths it is told.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        let Ok(len) = usize::try_from(len) else {
            // That the interface went down is told once, before the frames that came until then.
            let down = io::Error::last_os_error().raw_os_error() == Some(libc::ENETDOWN);
            return if down { self.read() } else { None };
        };
        frame.truncate(len);
        let at = if self.facts { FACTS_LEN + 12 } else { 12 };
        if let Some((tpid, tci)) = tag_beside(&message)
            && frame.len() >= at
        {
            let tag = [tpid.to_be_bytes(), tci.to_be_bytes()].concat();
            frame.splice(at..at, tag);
        }
        Some(frame)
    }
}

/// The tag that the kernel took out: TPID and TCI.
fn tag_beside(message: &libc::msghdr) -> Option<(u16, u16)> {
    #[expect(unsafe_code, reason = "control messages are walked with C's macros")]
    // SAFETY: the kernel filled the control space and set its length; the macros stay within it, and what is read
    // is one tpacket_auxdata (plain numbers, read unaligned) behind a header that says so.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_PACKET && (*header).cmsg_type == libc::PACKET_AUXDATA {
                let facts: libc::tpacket_auxdata =
                    libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
                let has = |bit: u32| facts.tp_status & bit != 0;
                let tpid = if has(libc::TP_STATUS_VLAN_TPID_VALID) { facts.tp_vlan_tpid } else { 0x8100 };
                return has(libc::TP_STATUS_VLAN_VALID).then_some((tpid, facts.tp_vlan_tci));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
        None
    }
}
