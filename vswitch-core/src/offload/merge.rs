//! A train of wire frames into one superframe: the reverse of [`super::cut()`].
//!
//! Payload is not copied: a superframe is freshly written headers and one range for each frame taken.

use super::{Checksum, Gso, GsoKind, MAX_HEADERS_LEN, Offload, put, word};
use crate::wire::be16;
use crate::wire::checksum::{Sum, checksum};
use crate::wire::ip::{
    self, PROTOCOL_TCP, PROTOCOL_UDP, TCP_HEADER_LEN, Tcp, UDP_HEADER_LEN, V4_HEADER_LEN, V6_HEADER_LEN,
    Version,
};

/// How many frames a train takes.
pub const MAX_PIECES: usize = 128;

/// The longest IP datagram a train becomes.
const MAX_IP_LEN: usize = 65_535;

/// The payload of one frame of a train, as a range of what arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Piece {
    /// Which arrived frame.
    pub frame: u32,
    /// First byte.
    pub from: u32,
    /// The byte behind the last.
    pub to: u32,
}

/// What a [`Train`] has become.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'a> {
    /// All headers, at most [`MAX_HEADERS_LEN`] bytes.
    pub head: &'a [u8],
    /// The payload that follows them, one piece for each frame, in order.
    pub pieces: &'a [Piece],
    /// What the superframe owes: a checksum and to be cut. When one frame alone was taken, this is that frame
    /// (without padding), and owes at most the checksum that it owed before.
    pub offload: Offload,
}

/// Consecutive frames of one TCP or UDP flow that can be one superframe. Made once and reused for ever, about
/// 2 KiB, no other memory.
///
/// ```
/// # use vswitch_core::offload::Train;
/// # fn deliver(_: vswitch_core::offload::Merged<'_>) {}
/// # let arrived: [&[u8]; 2] = [&[0; 60], &[0; 60]];
/// let mut train = Train::new();
/// for (i, frame) in arrived.iter().enumerate() {
///     if train.offer(i, 0, frame, false) {
///         continue;
///     }
///     // Not one of this train. What was taken goes first, so that no frame overtakes another.
///     train.merged().into_iter().for_each(deliver);
///     train.clear();
///     if !train.offer(i, 0, frame, false) {
///         // Nothing that could be merged: it goes as it is.
///     }
/// }
/// train.merged().into_iter().for_each(deliver);
/// ```
#[derive(Debug)]
pub struct Train {
    /// The headers of the first frame; after [`Train::merged`] those of the superframe.
    head: [u8; MAX_HEADERS_LEN],
    /// The bits in which the headers of every frame must equal those of the first.
    same: [u8; MAX_HEADERS_LEN],
    shape: Shape,
    pieces: [Piece; MAX_PIECES],
    count: usize,
    /// Payload bytes of all pieces.
    payload: usize,
    /// TCP: the sequence number of the next frame.
    sequence: u32,
    /// IPv4: the identification of the last frame.
    id: u16,
    /// IPv4: from one frame's identification to the next one's, known from the second on.
    id_step: u16,
    /// TCP: PSH of the last frame.
    push: bool,
    /// A short frame or one with PSH was the last.
    closed: bool,
}

/// What the first frame determines.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: GsoKind,
    version: Version,
    ip_at: usize,
    transport_at: usize,
    header_len: usize,
    /// Payload bytes of each frame but the last.
    size: usize,
    first_id: u16,
    dont_fragment: bool,
    /// The pseudo-header without the length.
    pseudo: Sum,
    /// The IPv4 header without length, identification and checksum.
    ip_sum: Sum,
}

/// What is known of the transport checksum of a frame that is offered to a [`Train`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// Nothing: it is summed.
    Unknown,
    /// It is right.
    Right,
    /// It is left to be finished. A frame of which another checksum is owed than that of its transport is not merged.
    Owed(Checksum),
}

/// A frame that is offered: its headers, and perhaps some payload, in front of the rest.
struct Parts<'a> {
    front: &'a [u8],
    rest: &'a [u8],
    sums: Sums,
}

impl Parts<'_> {
    const fn len(&self) -> usize {
        self.front.len() + self.rest.len()
    }
}

/// What differs from frame to frame, read from one.
struct Varying {
    /// Payload bytes, at least 1.
    payload: usize,
    id: u16,
    sequence: u32,
    push: bool,
    /// IPv4 length and header checksum.
    ip_words: (u16, u16),
    /// The transport checksum.
    checksum: u16,
}

impl Default for Train {
    fn default() -> Self {
        Self::new()
    }
}

impl Train {
    /// An empty train.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: [0; MAX_HEADERS_LEN],
            same: [0; MAX_HEADERS_LEN],
            shape: Shape {
                kind: GsoKind::Udp,
                version: Version::V4,
                ip_at: 0,
                transport_at: 0,
                header_len: 0,
                size: 0,
                first_id: 0,
                dont_fragment: false,
                pseudo: Sum::new(),
                ip_sum: Sum::new(),
            },
            pieces: [Piece { frame: 0, from: 0, to: 0 }; MAX_PIECES],
            count: 0,
            payload: 0,
            sequence: 0,
            id: 0,
            id_step: 0,
            push: false,
            closed: false,
        }
    }

    /// Forgets what was taken.
    pub const fn clear(&mut self) {
        self.count = 0;
    }

    /// How many frames were taken, 0..=[`MAX_PIECES`].
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether none was taken.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The kind of superframe that those taken will be; `None` while none was taken.
    #[must_use]
    pub const fn kind(&self) -> Option<GsoKind> {
        if self.count == 0 { None } else { Some(self.shape.kind) }
    }

    /// Offers the frame that lies at byte `at` of arrived frame `frame`; true when it was taken. `verified` says
    /// that its transport checksum is known to be good, or owed: then it is not summed here. The checksum of an
    /// IPv4 header always is, for merging would hide the damage.
    ///
    /// An empty train takes any whole TCP or UDP frame with payload whose checksums are right (or left unfinished
    /// in the way of [`super::partial_checksum`]) and whose headers fit [`MAX_HEADERS_LEN`]; TCP with ACK and at
    /// most PSH set, UDP with a checksum. From then on it takes frames that differ from the first only
    /// in lengths, checksums, PSH, sequence number and identification: the sequence goes on where the last frame
    /// ended; the identification grows by one, or stays 0 where DF makes it meaningless (RFC 6864 §4.1); the
    /// payload is no longer than the first's. A shorter one or PSH is the last; so is what would exceed 65,535
    /// bytes of IP or [`MAX_PIECES`].
    pub fn offer(&mut self, frame: usize, at: usize, bytes: &[u8], verified: bool) -> bool {
        let sums = if verified { Sums::Right } else { Sums::Unknown };
        isize::try_from(at).is_ok_and(|at| self.offer_parts(frame, at, bytes, &[], sums))
    }

    /// Like [`Self::offer`], of a frame in two parts: `front`, with all its headers, and `rest`. Only payload need lie
    /// in the arrived frame: `at`, perhaps below zero, is where the first header would have to begin for the payload
    /// to follow where it does.
    pub fn offer_parts(&mut self, frame: usize, at: isize, front: &[u8], rest: &[u8], sums: Sums) -> bool {
        let parts = Parts { front, rest, sums };
        if self.count == 0 { self.begin(frame, at, &parts) } else { self.go_on(frame, at, &parts) }
    }

    fn begin(&mut self, frame: usize, at: isize, parts: &Parts<'_>) -> bool {
        let Some(shape) = shape(parts) else { return false };
        let Some(varying) = shape.varying(parts) else { return false };
        let shape = Shape { size: varying.payload, first_id: varying.id, ..shape };
        if !shape.sums_are_right(parts, &varying) {
            return false;
        }
        let (Some(head), Some(from)) =
            (self.head.get_mut(..shape.header_len), parts.front.get(..shape.header_len))
        else {
            return false;
        };
        head.copy_from_slice(from);
        shape.mark_same(&mut self.same);
        self.shape = shape;
        (self.payload, self.closed) = (0, false);
        self.take(frame, at, &varying)
    }

    fn go_on(&mut self, frame: usize, at: isize, parts: &Parts<'_>) -> bool {
        let shape = &self.shape;
        if self.closed || self.count == MAX_PIECES || !self.has_same_headers(parts.front) {
            return false;
        }
        let Some(varying) = shape.varying(parts) else { return false };
        let step = varying.id.wrapping_sub(self.id);
        let id_goes_on = match (shape.version, self.count) {
            (Version::V6, _) => true,
            (Version::V4, 1) => step == 1 || (shape.dont_fragment && shape.first_id == 0 && step == 0),
            (Version::V4, _) => step == self.id_step,
        };
        let is_tcp = shape.kind != GsoKind::Udp;
        let goes_on = id_goes_on
            && (!is_tcp || varying.sequence == self.sequence)
            && varying.payload <= shape.size
            && shape.header_len - shape.ip_at + self.payload + varying.payload <= MAX_IP_LEN;
        if !goes_on || !shape.sums_are_right(parts, &varying) {
            return false;
        }
        self.id_step = step;
        self.take(frame, at, &varying)
    }

    fn take(&mut self, frame: usize, at: isize, varying: &Varying) -> bool {
        let from = self.shape.header_len.checked_add_signed(at).and_then(|from| u32::try_from(from).ok());
        let (Ok(frame), Some(from), Ok(len)) = (u32::try_from(frame), from, u32::try_from(varying.payload))
        else {
            return false;
        };
        let (Some(piece), Some(to)) = (self.pieces.get_mut(self.count), from.checked_add(len)) else {
            return false;
        };
        *piece = Piece { frame, from, to };
        self.count += 1;
        self.payload += varying.payload;
        self.id = varying.id;
        self.sequence = varying.sequence.wrapping_add(len);
        self.push = varying.push;
        self.closed = varying.push || varying.payload < self.shape.size;
        true
    }

    /// Whether the headers of `bytes` are those of the first frame, where they must be.
    fn has_same_headers(&self, bytes: &[u8]) -> bool {
        let len = self.shape.header_len;
        let (Some(these), Some(first), Some(same)) =
            (bytes.get(..len), self.head.get(..len), self.same.get(..len))
        else {
            return false;
        };
        // In blocks from the front, and one from the end over what is left (headers are never that short).
        let differs = |a: &[u8; 16], b: &[u8; 16], mask: &[u8; 16]| {
            (u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b)) & u128::from_ne_bytes(*mask)
        };
        let blocks = these.as_chunks().0.iter().zip(first.as_chunks().0).zip(same.as_chunks().0);
        let front = blocks.fold(0, |found, ((a, b), mask)| found | differs(a, b, mask));
        match (these.last_chunk(), first.last_chunk(), same.last_chunk()) {
            (Some(a), Some(b), Some(mask)) => front | differs(a, b, mask) == 0,
            _ => false,
        }
    }

    /// The superframe of the frames taken so far; `None` when there are none. May be asked at any time.
    ///
    /// Its lengths cover all payload, the IPv4 header checksum is right, PSH is the last frame's, and the
    /// transport checksum holds the folded sum of the pseudo-header, as [`Offload::checksum`] says.
    #[must_use]
    pub fn merged(&mut self) -> Option<Merged<'_>> {
        let shape = self.shape;
        let pieces = self.pieces.get(..self.count).filter(|pieces| !pieces.is_empty())?;
        let head = self.head.get_mut(..shape.header_len)?;
        let (ip_at, at) = (shape.ip_at, shape.transport_at);
        let end = shape.header_len + self.payload;
        if pieces.len() == 1 {
            let offset = shape.kind.checksum_offset();
            let unfinished = shape.pseudo.with_word(word(end - at)).folded();
            let owed = be16(head, at + usize::from(offset)) == Some(unfinished);
            let checksum = owed.then_some(Checksum { start: word(at), offset });
            return Some(Merged { head, pieces, offload: Offload { checksum, gso: None } });
        }
        match shape.version {
            Version::V4 => {
                put(head, ip_at + 2, word(end - ip_at).to_be_bytes());
                put(head, ip_at + 10, [0; 2]);
                let sum = checksum(head.get(ip_at..at)?);
                put(head, ip_at + 10, sum.to_be_bytes());
            }
            Version::V6 => put(head, ip_at + 4, word(end - ip_at - V6_HEADER_LEN).to_be_bytes()),
        }
        let len = word(end - at);
        match shape.kind {
            GsoKind::Udp => put(head, at + 4, len.to_be_bytes()),
            GsoKind::Tcp4 | GsoKind::Tcp6 => {
                put(head, at + 13, [Tcp::ACK | if self.push { Tcp::PSH } else { 0 }]);
            }
        }
        let offset = shape.kind.checksum_offset();
        put(head, at + usize::from(offset), shape.pseudo.with_word(len).folded().to_be_bytes());
        let gso = Gso { kind: shape.kind, size: word(shape.size), header_len: word(shape.header_len) };
        let offload = Offload { checksum: Some(Checksum { start: word(at), offset }), gso: Some(gso) };
        Some(Merged { head, pieces, offload })
    }
}

/// The shape that a frame would give a train, size and identification left open; `None` when it is none for one.
fn shape(parts: &Parts<'_>) -> Option<Shape> {
    let bytes = parts.front;
    let ip = ip::find_in(bytes, parts.len()).filter(|ip| ip.fragment.is_none())?;
    let (kind, transport_len) = match (ip.protocol, ip.version) {
        (PROTOCOL_TCP, version) => {
            let tcp = ip.tcp().filter(|tcp| tcp.flags & !Tcp::PSH == Tcp::ACK)?;
            // The four bits beside the header length are reserved or ECN's (NS, RFC 3540).
            if bytes.get(tcp.at + 12)? & 0xf != 0 {
                return None;
            }
            (if version == Version::V4 { GsoKind::Tcp4 } else { GsoKind::Tcp6 }, tcp.header_len)
        }
        (PROTOCOL_UDP, _) => ip.udp().map(|_| (GsoKind::Udp, UDP_HEADER_LEN))?,
        _ => return None,
    };
    let header_len = ip.transport_at + transport_len;
    (header_len <= MAX_HEADERS_LEN).then_some(Shape {
        kind,
        version: ip.version,
        ip_at: ip.at,
        transport_at: ip.transport_at,
        header_len,
        size: 0,
        first_id: 0,
        dont_fragment: ip.dont_fragment(),
        pseudo: ip.pseudo_header(0)?,
        ip_sum: match ip.version {
            Version::V4 => Sum::new()
                .with(ip.header())
                .without_word(be16(bytes, ip.at + 2)?)
                .without_word(be16(bytes, ip.at + 4)?)
                .without_word(be16(bytes, ip.at + 10)?),
            Version::V6 => Sum::new(),
        },
    })
}

impl Shape {
    /// What varies, in a frame of this shape; `None` when a length does not fit, there is no payload, or UDP has
    /// no checksum.
    fn varying(&self, parts: &Parts<'_>) -> Option<Varying> {
        let bytes = parts.front;
        let (ip, transport) = (bytes.get(self.ip_at..)?, bytes.get(self.transport_at..)?);
        let (ip, transport) =
            (ip.first_chunk::<V4_HEADER_LEN>()?, transport.first_chunk::<UDP_HEADER_LEN>()?);
        let word = |a: u8, b: u8| u16::from_be_bytes([a, b]);
        let (ip_len, id, ip_words) = match self.version {
            Version::V4 => {
                let total = word(ip[2], ip[3]);
                (usize::from(total), word(ip[4], ip[5]), (total, word(ip[10], ip[11])))
            }
            Version::V6 => (V6_HEADER_LEN + usize::from(word(ip[4], ip[5])), 0, (0, 0)),
        };
        let end = self.ip_at + ip_len;
        if end <= self.header_len || end > parts.len() || ip_len > MAX_IP_LEN {
            return None;
        }
        let payload = end - self.header_len;
        if self.kind == GsoKind::Udp {
            let (len, checksum) =
                (usize::from(word(transport[4], transport[5])), word(transport[6], transport[7]));
            let fits = self.transport_at + len == end && checksum != 0;
            return fits.then_some(Varying { payload, id, sequence: 0, push: false, ip_words, checksum });
        }
        let tcp = bytes.get(self.transport_at..)?.first_chunk::<TCP_HEADER_LEN>()?;
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let push = tcp[13] & Tcp::PSH != 0;
        Some(Varying { payload, id, sequence, push, ip_words, checksum: word(tcp[16], tcp[17]) })
    }

    /// Whether the IPv4 header's checksum is right, and the transport's is right, unfinished or verified.
    fn sums_are_right(&self, parts: &Parts<'_>, varying: &Varying) -> bool {
        if self.version == Version::V4 {
            let (total, checksum) = varying.ip_words;
            if self.ip_sum.with_word(total).with_word(varying.id).with_word(checksum).checksum() != 0 {
                return false;
            }
        }
        match parts.sums {
            Sums::Unknown => {}
            Sums::Right => return true,
            Sums::Owed(Checksum { start, offset }) => {
                return usize::from(start) == self.transport_at && offset == self.kind.checksum_offset();
            }
        }
        let (front, end) = (parts.front, self.header_len + varying.payload);
        let (Some(begins), Some(goes_on)) = (
            front.get(self.transport_at..end.min(front.len())),
            parts.rest.get(..end.saturating_sub(front.len())),
        ) else {
            return false;
        };
        let pseudo = self.pseudo.with_word(word(end - self.transport_at));
        pseudo.with(begins).with(goes_on).checksum() == 0 || varying.checksum == pseudo.folded()
    }

    /// Marks every bit that must be the same in all frames.
    fn mark_same(&self, same: &mut [u8; MAX_HEADERS_LEN]) {
        let (ip_at, at) = (self.ip_at, self.transport_at);
        same.fill(0xff);
        match self.version {
            Version::V4 => {
                put(same, ip_at + 2, [0; 4]);
                put(same, ip_at + 10, [0; 2]);
            }
            Version::V6 => put(same, ip_at + 4, [0; 2]),
        }
        match self.kind {
            GsoKind::Udp => put(same, at + 4, [0; 4]),
            GsoKind::Tcp4 | GsoKind::Tcp6 => {
                put(same, at + 4, [0; 4]);
                put(same, at + 13, [!Tcp::PSH]);
                put(same, at + 16, [0; 2]);
            }
        }
    }
}
