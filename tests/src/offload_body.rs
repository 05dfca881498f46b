//! Bodies of the properties of offload: superframes cut into wire frames and merged again. Property tests and
//! fuzz targets feed them bytes; a body panics when a property does not hold.
//!
//! What they check against is written here a second time, slowly and by the letter of the RFCs; nothing of the
//! core's own parsing or summing is used for it.

use std::ops::Range;
use vswitch_core::offload::{
    self, Checksum, Gso, GsoKind, MAX_HEADERS_LEN, MAX_PIECES, Offload, OffloadError, Train,
};
use vswitch_core::wire::{flow, ip};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

/// Numbers drawn from bytes; zeros when they run out.
#[derive(Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Draws from `data`.
    #[must_use]
    pub const fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Two bytes.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A number of `range`, which must not be empty nor end above 65,535.
    pub fn among(&mut self, range: Range<usize>) -> usize {
        range.start + usize::from(self.word()) % (range.end - range.start)
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }
}

/// Where things are in a frame of [`superframe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The transport.
    pub kind: GsoKind,
    /// IPv6, not IPv4.
    pub v6: bool,
    /// Where the IP header begins.
    pub ip_at: usize,
    /// Where the TCP or UDP header begins.
    pub transport_at: usize,
    /// Where the payload begins.
    pub header_len: usize,
}

impl Layout {
    /// Whether the transport is UDP.
    #[must_use]
    pub fn is_udp(&self) -> bool {
        self.kind == GsoKind::Udp
    }

    /// Where the transport's checksum field is.
    #[must_use]
    pub fn checksum_at(&self) -> usize {
        self.transport_at + if self.is_udp() { 6 } else { 16 }
    }
}

/// A superframe as a kernel hands it over.
#[derive(Clone, Debug)]
pub struct Superframe {
    /// All of it.
    pub bytes: Vec<u8>,
    /// What it owes.
    pub facts: Offload,
    /// Where things are.
    pub layout: Layout,
}

/// Two bytes at `at`.
#[must_use]
pub fn word_at(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn set(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn word(value: usize) -> u16 {
    u16::try_from(value).expect("lengths are drawn below 65,536")
}

/// The one's complement sum of RFC 1071 §1, word by word.
#[must_use]
pub fn ones_sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum, pair| {
        let next = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (total, carry) = next.overflowing_add(sum);
        total + u16::from(carry)
    })
}

/// The pseudo-header of a frame, as bytes (RFC 793 §3.1, RFC 8200 §8.1).
#[must_use]
pub fn pseudo_header(frame: &[u8], layout: &Layout) -> Vec<u8> {
    let protocol = if layout.is_udp() { 17 } else { 6 };
    let [a, b] = word(frame.len() - layout.transport_at).to_be_bytes();
    let (addresses, rest) = if layout.v6 {
        (&frame[layout.ip_at + 8..layout.ip_at + 40], vec![0, 0, a, b, 0, 0, 0, protocol])
    } else {
        (&frame[layout.ip_at + 12..layout.ip_at + 20], vec![0, protocol, a, b])
    };
    [addresses, &rest].concat()
}

/// Makes lengths and the IPv4 header checksum right for the frame as it is, and leaves the transport checksum
/// unfinished.
pub fn seed(frame: &mut [u8], layout: &Layout) {
    let Layout { ip_at, transport_at, .. } = *layout;
    let end = frame.len();
    if layout.v6 {
        set(frame, ip_at + 4, word(end - ip_at - 40));
    } else {
        set(frame, ip_at + 2, word(end - ip_at));
        sum_ip(frame, layout);
    }
    if layout.is_udp() {
        set(frame, transport_at + 4, word(end - transport_at));
    }
    let sum = ones_sum(&pseudo_header(frame, layout));
    set(frame, layout.checksum_at(), sum);
}

fn sum_ip(frame: &mut [u8], layout: &Layout) {
    if !layout.v6 {
        set(frame, layout.ip_at + 10, 0);
        let sum = !ones_sum(&frame[layout.ip_at..layout.transport_at]);
        set(frame, layout.ip_at + 10, sum);
    }
}

/// The transport checksum that `frame` should have.
#[must_use]
pub fn right_checksum(frame: &[u8], layout: &Layout) -> u16 {
    let mut bytes = pseudo_header(frame, layout);
    let field = bytes.len() + layout.checksum_at() - layout.transport_at;
    bytes.extend_from_slice(&frame[layout.transport_at..]);
    set(&mut bytes, field, 0);
    match !ones_sum(&bytes) {
        0 if layout.is_udp() => 0xffff,
        sum => sum,
    }
}

/// Makes all checksums of a wire frame right.
pub fn repair(frame: &mut [u8], layout: &Layout) {
    sum_ip(frame, layout);
    let sum = right_checksum(frame, layout);
    set(frame, layout.checksum_at(), sum);
}

/// A superframe drawn from `choices`: any kind, up to four tags, IPv4 options or IPv6 extension headers, TCP
/// options, any size and payload that IP can carry.
#[must_use]
pub fn superframe(choices: &mut Choices<'_>) -> Superframe {
    let shape = choices.byte();
    let (v6, udp) = (shape & 1 != 0, shape & 2 != 0);
    let mut bytes = choices.bytes(12);
    for _ in 0..(shape >> 2) % 5 {
        bytes.extend(if choices.byte() & 1 == 0 { [0x81, 0] } else { [0x88, 0xa8] });
        bytes.extend(choices.bytes(2));
    }
    bytes.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
    let (protocol, ip_at) = (if udp { 17 } else { 6 }, bytes.len());
    if v6 {
        let extensions = choices.among(0..10).saturating_sub(6);
        bytes.extend([0x60 | choices.byte() >> 4, choices.byte(), choices.byte(), choices.byte(), 0, 0]);
        bytes.extend([if extensions == 0 { protocol } else { 60 }, choices.byte()]);
        bytes.extend(choices.bytes(32));
        for i in 1..=extensions {
            let eights = choices.byte() % 3;
            bytes.extend([if i == extensions { protocol } else { 60 }, eights]);
            bytes.extend(choices.bytes(6 + 8 * usize::from(eights)));
        }
    } else {
        let options = choices.among(0..22).saturating_sub(11);
        bytes.extend([0x45 + u8::try_from(options).expect("at most ten words"), choices.byte(), 0, 0]);
        bytes.extend(choices.bytes(2));
        bytes.extend([choices.byte() & 0x40, 0, choices.byte(), protocol, 0, 0]);
        bytes.extend(choices.bytes(8 + 4 * options));
    }
    let transport_at = bytes.len();
    bytes.extend(choices.bytes(4));
    if udp {
        bytes.extend([0; 4]);
    } else {
        let options = choices.among(0..11);
        bytes.extend(choices.bytes(8));
        bytes.push((5 + u8::try_from(options).expect("at most ten words")) << 4);
        bytes.push(ACK | [0, PSH, PSH, PSH | FIN, CWR, FIN | CWR, 0x40, 0][usize::from(choices.byte() % 8)]);
        bytes.extend(choices.bytes(2));
        bytes.extend([0; 4]);
        bytes.extend(choices.bytes(4 * options));
    }
    let header_len = bytes.len();
    let room = 65_535 - (header_len - ip_at);
    let size = match choices.byte() % 4 {
        0 => choices.among(1..64),
        1 => choices.among(1..2000),
        2 => 1448,
        _ => choices.among(1..room + 1),
    };
    let payload = match choices.byte() % 4 {
        0 => choices.among(1..room + 1),
        1 => (size * choices.among(1..10)).min(room),
        _ => choices.among(1..(size * 20).min(room) + 1),
    };
    let mut noise = u64::from(choices.word()) << 32 | 1;
    bytes.extend((0..payload).map(|_| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.to_be_bytes()[0]
    }));
    let kind = match (udp, v6) {
        (true, _) => GsoKind::Udp,
        (false, false) => GsoKind::Tcp4,
        (false, true) => GsoKind::Tcp6,
    };
    let layout = Layout { kind, v6, ip_at, transport_at, header_len };
    seed(&mut bytes, &layout);
    let start = word(transport_at);
    let facts = Offload {
        checksum: Some(Checksum { start, offset: word(layout.checksum_at()) - start }),
        gso: Some(Gso { kind, size: word(size), header_len: word(header_len) }),
    };
    Superframe { bytes, facts, layout }
}

/// What [`offload::cut`] makes of a superframe, as whole frames.
///
/// # Errors
/// Those of [`offload::cut`]; it must not have visited anything then.
pub fn wire_frames(bytes: &[u8], facts: &Offload) -> Result<Vec<Vec<u8>>, OffloadError> {
    let mut frames = Vec::new();
    let result = offload::cut(bytes, facts, |head, payload| {
        assert!(head.len() <= MAX_HEADERS_LEN);
        frames.push([head, &bytes[payload]].concat());
    });
    match result {
        Ok(count) => {
            assert_eq!(count, frames.len());
            assert_eq!(facts.gso.map(|gso| offload::count(bytes.len(), &gso)), Some(count));
            Ok(frames)
        }
        Err(error) => {
            assert!(frames.is_empty(), "visited in spite of {error}");
            Err(error)
        }
    }
}

/// What a train has become, as a whole frame.
pub fn merged_frame(train: &mut Train, arrived: &[Vec<u8>]) -> Option<(Vec<u8>, Offload)> {
    let merged = train.merged()?;
    assert!(merged.head.len() <= MAX_HEADERS_LEN);
    let mut bytes = merged.head.to_vec();
    for piece in merged.pieces {
        bytes.extend_from_slice(&arrived[piece.frame as usize][piece.from as usize..piece.to as usize]);
    }
    Some((bytes, merged.offload))
}

/// Frame `i` of those that the superframe `bytes` stands for, by the letter: `size` bytes of payload each, every
/// checksum finished.
#[must_use]
pub fn wire_frame(bytes: &[u8], layout: &Layout, size: usize, i: usize) -> Vec<u8> {
    let Layout { ip_at, transport_at, header_len, .. } = *layout;
    let from = header_len + i * size;
    let mut expected = bytes[..header_len].to_vec();
    expected.extend_from_slice(&bytes[from..bytes.len().min(from + size)]);
    let step = word(i);
    if !layout.v6 {
        let id = word_at(&expected, ip_at + 4).wrapping_add(step);
        set(&mut expected, ip_at + 4, id);
    }
    if !layout.is_udp() {
        let at = transport_at + 4;
        let first = u32::from_be_bytes(expected[at..at + 4].try_into().expect("four bytes"));
        let sequence = first.wrapping_add(u32::try_from(i * size).expect("below 65,536"));
        expected[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
        if from + size < bytes.len() {
            expected[transport_at + 13] &= !(FIN | PSH);
        }
        if i > 0 {
            expected[transport_at + 13] &= !CWR;
        }
    }
    seed(&mut expected, layout);
    repair(&mut expected, layout);
    expected
}

/// Whether `frame` is frame `i` of `count` that `whole` must be cut into.
fn check_wire_frame(whole: &Superframe, frame: &[u8], i: usize, count: usize) {
    let size = usize::from(whole.facts.gso.expect("it is a superframe").size);
    let expected = wire_frame(&whole.bytes, &whole.layout, size, i);
    assert!(frame == expected, "frame {i} of {count}: {frame:02x?} is not {expected:02x?}");
}

/// A superframe drawn from `data` is cut into exactly the frames that it stands for, and those merge into exactly
/// the superframe again, when they may.
pub fn cut_merge_body(data: &[u8]) {
    let whole = superframe(&mut Choices::new(data));
    let layout = whole.layout;
    assert_eq!(offload::header_len(&whole.bytes, layout.kind), u16::try_from(layout.header_len).ok());
    assert_eq!(offload::partial_checksum(&whole.bytes), whole.facts.checksum);
    if layout.header_len > MAX_HEADERS_LEN {
        assert_eq!(wire_frames(&whole.bytes, &whole.facts), Err(OffloadError::HeaderLen));
        return;
    }
    let frames = wire_frames(&whole.bytes, &whole.facts).expect("the facts are true");
    for (i, frame) in frames.iter().enumerate() {
        check_wire_frame(&whole, frame, i, frames.len());
    }
    let unowing = Offload { checksum: None, ..whole.facts };
    assert!(wire_frames(&whole.bytes, &unowing).as_ref() == Ok(&frames), "the sender's field was used");

    let mergeable = layout.is_udp() || whole.bytes[layout.transport_at + 13] & !PSH == ACK;
    let mut train = Train::new();
    let taken = frames.iter().enumerate().take_while(|(i, frame)| train.offer(*i, 0, frame, false)).count();
    if mergeable {
        assert_eq!(taken, frames.len().min(MAX_PIECES));
    }
    check_round_trip(&mut train, &frames[..taken], &layout);
    if mergeable && taken == frames.len() {
        let (bytes, facts) = merged_frame(&mut train, &frames).expect("it took some");
        if taken > 1 {
            assert!(bytes == whole.bytes, "merged into another frame");
            let size = frames[0].len() - layout.header_len;
            let gso = whole.facts.gso.map(|gso| Gso { size: word(size), ..gso });
            assert_eq!(facts, Offload { gso, ..whole.facts });
        } else {
            assert!(bytes == frames[0] && facts.gso.is_none());
        }
    }
}

/// What a train took comes out again when it is cut: the frames as they went in, with checksums finished.
fn check_round_trip(train: &mut Train, taken: &[Vec<u8>], layout: &Layout) {
    assert_eq!(train.len(), taken.len());
    let Some((bytes, facts)) = merged_frame(train, taken) else { return };
    if facts.gso.is_none() {
        // One frame is itself, and owes no more than it did.
        assert_eq!(taken.len(), 1);
        assert_eq!(facts.checksum, offload::partial_checksum(&bytes));
        return;
    }
    let again = wire_frames(&bytes, &facts).expect("what was merged can be cut");
    assert_eq!(again.len(), taken.len());
    let id_stays = !layout.v6 && word_at(&taken[0], layout.ip_at + 4) == word_at(&taken[1], layout.ip_at + 4);
    for (frame, again) in taken.iter().zip(again) {
        let mut expected = frame[..again.len()].to_vec();
        if id_stays {
            set(&mut expected, layout.ip_at + 4, word_at(&again, layout.ip_at + 4));
        }
        repair(&mut expected, layout);
        assert!(again == expected, "{again:02x?} came out of {expected:02x?}");
    }
}

/// Frames of one superframe, some bytes changed, some checksums made right again, some padded, offered in any
/// order to a train: what it takes must come out again byte for byte.
pub fn changed_train_body(data: &[u8]) {
    let mut choices = Choices::new(data);
    let whole = superframe(&mut choices);
    let Ok(mut frames) = wire_frames(&whole.bytes, &whole.facts) else { return };
    frames.truncate(20);
    let header_len = whole.layout.header_len;
    for _ in 0..choices.among(0..6) {
        let i = choices.among(0..frames.len());
        let frame = &mut frames[i];
        match choices.byte() % 8 {
            0..4 => {
                let at = choices.among(0..header_len);
                frame[at] ^= 1 << (choices.byte() % 8);
            }
            4 => {
                let at = choices.among(0..frame.len());
                frame[at] = choices.byte();
            }
            5 => {
                frame.truncate(header_len.max(choices.among(0..frame.len())));
                seed(frame, &whole.layout);
            }
            6 => seed(frame, &whole.layout),
            _ => {
                let to = choices.among(0..frames.len());
                frames.swap(i, to);
                continue;
            }
        }
        if choices.byte() & 1 != 0 {
            repair(frame, &whole.layout);
        }
    }
    let mut train = Train::new();
    let mut taken = Vec::new();
    for frame in &frames {
        if train.offer(taken.len(), 0, frame, false) {
            taken.push(frame.clone());
            continue;
        }
        check_taken(&mut train, &taken, &whole.layout);
        train.clear();
        taken.clear();
        if train.offer(0, 0, frame, false) {
            taken.push(frame.clone());
        }
    }
    check_taken(&mut train, &taken, &whole.layout);
}

/// A change may have moved the headers: only trains whose layout is still that of the superframe are checked
/// against it.
fn check_taken(train: &mut Train, taken: &[Vec<u8>], layout: &Layout) {
    let Some(found) = taken.first().and_then(|first| ip::find(first)) else { return };
    let udp = found.udp().is_some();
    let moved = (found.at, found.transport_at) != (layout.ip_at, layout.transport_at)
        || udp != layout.is_udp()
        || offload::header_len(&taken[0], layout.kind).map(usize::from) != Some(layout.header_len);
    if moved {
        let _ = merged_frame(train, taken);
    } else {
        check_round_trip(train, taken, layout);
    }
}

/// Any bytes with any facts: nothing panics, and what is cut adds up.
pub fn any_bytes_body(data: &[u8]) {
    let mut choices = Choices::new(data);
    let checksum = Checksum { start: choices.word() >> (choices.byte() % 16), offset: choices.word() % 32 };
    let kind = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp][choices.among(0..3)];
    let gso = Gso { kind, size: choices.word() >> (choices.byte() % 16), header_len: choices.word() % 256 };
    let mut facts = Offload { checksum: (choices.byte() & 1 == 0).then_some(checksum), gso: Some(gso) };
    let mut bytes;
    if choices.byte() & 1 == 0 {
        let whole = superframe(&mut choices);
        bytes = whole.bytes;
        if choices.byte() & 1 == 0 {
            facts = whole.facts;
        }
        for _ in 0..choices.among(0..5) {
            let at = choices.among(0..whole.layout.header_len);
            bytes[at] = choices.byte();
        }
        bytes.truncate(match choices.byte() % 4 {
            0 => choices.among(0..65_535),
            _ => usize::MAX,
        });
    } else {
        bytes = choices.0.to_vec();
    }
    let measured = offload::header_len(&bytes, kind);
    if let (Some(gso), Some(len), true) = (&mut facts.gso, measured, choices.byte() & 1 == 0) {
        gso.header_len = len;
    }
    if let (Ok(frames), Some(gso)) = (wire_frames(&bytes, &facts), facts.gso) {
        let header_len = usize::from(gso.header_len);
        assert!(frames.iter().all(|frame| frame.len() - header_len <= usize::from(gso.size)));
        let payload: Vec<u8> = frames.iter().flat_map(|frame| &frame[header_len..]).copied().collect();
        assert!(payload == bytes[header_len..]);
    }
    let middle = choices.among(0..bytes.len().clamp(1, 65_535));
    let (front, back) = bytes.split_at(middle.min(bytes.len()));
    let value = offload::finished_value([front, &[], back], checksum);
    let mut train = Train::new();
    let _ = (train.offer(0, 0, &bytes, false), train.offer(usize::MAX, usize::MAX, &bytes, true));
    let _ = (train.merged().is_some(), flow::entropy(&bytes), offload::partial_checksum(&bytes));
    if let Some(ip) = ip::find(&bytes) {
        let _ = (ip.source(), ip.destination(), ip.tcp(), ip.udp(), ip.icmp(), ip.dont_fragment());
    }
    let result = offload::finish_checksum(&mut bytes, checksum);
    assert_eq!(result.is_ok(), value.is_some());
    if let Some(value) = value {
        assert_eq!(word_at(&bytes, usize::from(checksum.start) + usize::from(checksum.offset)), value);
    }
}
