//! Many datagrams with one system call: recvmmsg and sendmmsg, and many in one message of them: trains, which the
//! kernel cuts late (UDP_SEGMENT) and puts together early (UDP_GRO). No buffers of its own, nothing allocated.

use super::address::SocketName;
use super::{check, len_of};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How many messages one call receives or sends at most.
pub const MESSAGES: usize = 32;

/// How many pieces one call gathers at most, over all its messages.
pub const PIECES: usize = 256;

/// Datagrams of one train: what every kernel with UDP_SEGMENT takes.
pub const TRAIN: u32 = 64;

/// Bytes of one train: what the length field of UDP over IPv4 leaves.
pub const TRAIN_BYTES: u32 = 65_507;

/// What was received into one buffer.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Bytes written to the buffer.
    pub len: usize,
    /// Who sent it.
    pub from: Option<SocketAddr>,
    /// It was longer than its buffer; the end is lost.
    pub truncated: bool,
    /// Bytes of each datagram in it, the last may have fewer (UDP_GRO); `None` when it is one datagram.
    pub segment: Option<usize>,
    /// The VLAN tag that the kernel took out of it, as it was: TPID, then TCI (PACKET_AUXDATA).
    pub tag: Option<[u8; 4]>,
}

/// What one call received.
#[derive(Debug)]
pub struct Messages {
    got: [Message; MESSAGES],
    len: usize,
    /// The socket's count of datagrams lost so far, modulo 2³², if one of these told it (SO_RXQ_OVFL).
    pub lost: Option<u32>,
}

impl Messages {
    /// The messages; *n* lies in the *n*th buffer.
    #[must_use]
    pub fn all(&self) -> &[Message] {
        &self.got[..self.len]
    }
}

/// Room for the control messages of one message, aligned as `cmsghdr` wants it: a `u32` and an `int`, or a `u32` and a
/// `tpacket_auxdata`, in; a `u16` out.
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

/// Receives up to [`MESSAGES`] waiting messages, one into each of `buffers` in order. Never waits: `WouldBlock` when
/// there is none.
pub fn receive(socket: BorrowedFd<'_>, buffers: &mut [&mut [u8]]) -> io::Result<Messages> {
    let wanted = buffers.len().min(MESSAGES);
    let mut names = [SocketName::EMPTY; MESSAGES];
    let mut controls = [Control([0; 64]); MESSAGES];
    let mut iovs = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MESSAGES];
    let mut headers = [NO_HEADER; MESSAGES];
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
    #[expect(clippy::cast_possible_truncation, reason = "at most MESSAGES")]
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
    let nothing = Message { len: 0, from: None, truncated: false, segment: None, tag: None };
    let mut messages = Messages { got: [nothing; MESSAGES], len, lost: None };
    for (i, header) in headers.iter().take(len).enumerate() {
        let told = told(&header.msg_hdr);
        messages.got[i] = Message {
            len: (header.msg_len as usize).min(iovs[i].iov_len),
            from: names[i].get(),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            segment: told.segment,
            tag: told.tag,
        };
        messages.lost = told.lost.or(messages.lost);
    }
    Ok(messages)
}

/// What the control messages of a received message say.
#[derive(Default)]
struct Told {
    lost: Option<u32>,
    segment: Option<usize>,
    tag: Option<[u8; 4]>,
}

/// TPID of a tag of which the kernel does not say it: IEEE 802.1Q's.
const TPID_CTAG: u16 = 0x8100;

/// The tag of `packet`, if one was taken out of it.
fn tag_of(packet: libc::tpacket_auxdata) -> Option<[u8; 4]> {
    if packet.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let says = packet.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
    let [a, b] = if says { packet.tp_vlan_tpid } else { TPID_CTAG }.to_be_bytes();
    let [c, d] = packet.tp_vlan_tci.to_be_bytes();
    Some([a, b, c, d])
}

fn told(header: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: the kernel filled `msg_control` with `msg_controllen` bytes of control messages, and the memory
    // behind them (`Control`, in the caller's frame) is alive and aligned.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole header inside the control area.
        let found = unsafe { *at };
        match (found.cmsg_level, found.cmsg_type) {
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                // SAFETY: this message's data is one u32; CMSG_DATA need not be aligned for it.
                told.lost = Some(unsafe { libc::CMSG_DATA(at).cast::<u32>().read_unaligned() });
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: this message's data is one int; CMSG_DATA need not be aligned for it.
                let segment = unsafe { libc::CMSG_DATA(at).cast::<libc::c_int>().read_unaligned() };
                told.segment = usize::try_from(segment).ok().filter(|segment| *segment > 0);
            }
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                // SAFETY: this message's data is one tpacket_auxdata; CMSG_DATA need not be aligned for it.
                let packet = unsafe { libc::CMSG_DATA(at).cast::<libc::tpacket_auxdata>().read_unaligned() };
                told.tag = tag_of(packet);
            }
            _ => {}
        }
        // SAFETY: as for CMSG_FIRSTHDR; `at` lies in the same control area.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
    told
}

/// One message of a run: a datagram, or a train of equally long ones of which the last may be shorter.
#[derive(Clone, Copy, Debug, Default)]
struct Outgoing {
    /// The number behind its last piece.
    end: usize,
    bytes: usize,
    /// Bytes of its first datagram.
    segment: usize,
    datagrams: usize,
    /// The last datagram was shorter: none may follow.
    closed: bool,
}

/// A run of datagrams for one destination, each gathered from pieces. Where trains are wanted, datagrams that follow
/// each other become one wherever their lengths allow.
#[derive(Debug)]
pub struct Run<'a> {
    pieces: [IoSlice<'a>; PIECES],
    messages: [Outgoing; MESSAGES],
    len: usize,
    trains: bool,
}

impl<'a> Run<'a> {
    /// An empty run, of trains or of single datagrams.
    #[must_use]
    pub fn new(trains: bool) -> Self {
        let messages = [Outgoing::default(); MESSAGES];
        Self { pieces: [IoSlice::new(&[]); PIECES], messages, len: 0, trains }
    }

    /// Adds a datagram, of no train if it is to be `alone`; `false`, and nothing added, when there is no room for it.
    pub fn push(&mut self, pieces: impl Iterator<Item = &'a [u8]>, alone: bool) -> bool {
        let begin = self.last().map_or(0, |last| last.end);
        let (mut end, mut bytes) = (begin, 0);
        for piece in pieces {
            let Some(place) = self.pieces.get_mut(end) else { return false };
            *place = IoSlice::new(piece);
            end += 1;
            bytes += piece.len();
        }
        if let Some(last) = self.len.checked_sub(1).and_then(|last| self.messages.get_mut(last))
            && self.trains
            && !alone
            && !last.closed
            && bytes > 0
            && bytes <= last.segment
            && last.datagrams < TRAIN as usize
            && last.bytes + bytes <= TRAIN_BYTES as usize
        {
            last.end = end;
            last.bytes += bytes;
            last.datagrams += 1;
            last.closed = bytes < last.segment;
            return true;
        }
        let Some(next) = self.messages.get_mut(self.len) else { return false };
        *next = Outgoing { end, bytes, segment: bytes, datagrams: 1, closed: alone || bytes == 0 };
        self.len += 1;
        true
    }

    fn last(&self) -> Option<&Outgoing> {
        self.all().last()
    }

    fn all(&self) -> &[Outgoing] {
        &self.messages[..self.len]
    }

    /// How many messages it has become.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of message `i`, and how many datagrams they are; zeros when there is none.
    #[must_use]
    pub fn size(&self, i: usize) -> (usize, usize) {
        self.all().get(i).map_or((0, 0), |message| (message.bytes, message.datagrams))
    }

    /// The datagrams of message `i`, each as its pieces.
    pub fn datagrams(&self, i: usize) -> impl Iterator<Item = &[IoSlice<'a>]> {
        let (segment, mut rest) =
            self.all().get(i).map_or((0, &[][..]), |message| (message.segment, self.pieces_of(i, message)));
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let count = rest.iter().take_while(|piece| {
                let belongs = bytes < segment;
                bytes += piece.len();
                belongs
            });
            let count = count.count();
            let (datagram, later) = rest.split_at(count);
            rest = later;
            (!datagram.is_empty()).then_some(datagram)
        })
    }

    fn pieces_of(&self, i: usize, message: &Outgoing) -> &[IoSlice<'a>] {
        let begin = i.checked_sub(1).and_then(|before| self.all().get(before)).map_or(0, |before| before.end);
        &self.pieces[begin..message.end]
    }

    /// Forgets all datagrams.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Sends the messages from the `first`th on and returns how many of them the kernel took, at least one; an
    /// error is the first one's. `None` sends to where `socket` is bound. Never waits.
    pub fn send(&self, first: usize, socket: BorrowedFd<'_>, to: Option<&SocketName>) -> io::Result<usize> {
        let mut headers = [NO_HEADER; MESSAGES];
        let mut controls = [Control([0; 64]); MESSAGES];
        let messages = self.all().iter().enumerate().skip(first);
        let mut vlen = 0;
        for (((i, message), header), control) in messages.zip(&mut headers).zip(&mut controls) {
            let pieces = self.pieces_of(i, message);
            let header = &mut header.msg_hdr;
            if let Some(to) = to {
                header.msg_name = std::ptr::from_ref(to).cast_mut().cast();
                header.msg_namelen = to.len();
            }
            // An IoSlice is an iovec (std's promise on Unix).
            header.msg_iov = pieces.as_ptr().cast_mut().cast();
            header.msg_iovlen = pieces.len();
            if message.datagrams > 1 {
                segment_at(message.segment, header, control);
            }
            vlen += 1;
        }
        // SAFETY: the first `vlen` headers each describe a live name or none, live pieces (borrowed for 'a, which outlives
        // self) and a live control area or none; sendmmsg only reads them, and writes only `msg_len` in `headers`.
        let sent = check(unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), vlen, libc::MSG_DONTWAIT)
        })?;
        Ok(usize::try_from(sent).unwrap_or(0))
    }
}

/// Asks in `control` for the message of `header` to be cut into datagrams of `segment` bytes.
fn segment_at(segment: usize, header: &mut libc::msghdr, control: &mut Control) {
    let segment = u16::try_from(segment).unwrap_or(u16::MAX);
    header.msg_control = std::ptr::from_mut(control).cast();
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, len) = unsafe { (libc::CMSG_SPACE(2) as usize, libc::CMSG_LEN(2) as usize) };
    header.msg_controllen = space;
    // SAFETY: the control area has room for one message of two bytes and is aligned for its header, so
    // CMSG_FIRSTHDR points to its beginning and CMSG_DATA inside it.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = libc::SOL_UDP;
        (*message).cmsg_type = libc::UDP_SEGMENT;
        (*message).cmsg_len = len;
        libc::CMSG_DATA(message).cast::<u16>().write_unaligned(segment);
    }
}
