//! What a pod's interface receives, superframes and unfinished checksums included, and the wire frames that these
//! stand for: cut here, by the letter of the RFCs and without the switch's code.

use crate::daemon::{FACTS_LEN, Raw};
use crate::lab::Namespace;
use crate::offload_body::{Layout, repair, wire_frame, word_at};
use std::time::Duration;
use vswitch_core::offload::GsoKind;

/// Bits and kinds of a virtio-net header (linux/virtio_net.h).
const NEEDS_CHECKSUM: u8 = 1;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const UDP: u8 = 5;
const WITH_ECN: u8 = 0x80;

/// What one read of an interface gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The frame or superframe, tags included.
    pub bytes: Vec<u8>,
    /// Where its unfinished checksum begins and where its field is, from there.
    pub unfinished: Option<(usize, usize)>,
    /// For a superframe its kind, and how many bytes of payload each wire frame has.
    pub superframe: Option<(GsoKind, usize)>,
}

impl Seen {
    /// Its bytes with an unfinished checksum finished, wherever that is; for what is no superframe.
    #[must_use]
    pub fn finished(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if let Some((start, offset)) = self.unfinished {
            finish(&mut bytes, start, offset);
        }
        bytes
    }

    /// The wire frames it stands for: itself, unless it owes something.
    ///
    /// # Panics
    /// When its facts do not fit its bytes.
    #[must_use]
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let Some((start, offset)) = self.unfinished else {
            assert_eq!(self.superframe, None, "a superframe without an unfinished checksum");
            return vec![self.bytes.clone()];
        };
        let kind = self.superframe.map_or(GsoKind::Udp, |(kind, _)| kind);
        let kind = if self.superframe.is_none() && offset == 16 { GsoKind::Tcp4 } else { kind };
        let layout = layout(&self.bytes, kind).expect("an unfinished checksum is one of TCP or UDP");
        assert_eq!((start, start + offset), (layout.transport_at, layout.checksum_at()), "{self:02x?}");
        let Some((_, size)) = self.superframe else {
            let mut finished = self.bytes.clone();
            repair(&mut finished, &layout);
            return vec![finished];
        };
        assert!(self.bytes.len() > layout.header_len + size, "one wire frame is no superframe");
        let count = (self.bytes.len() - layout.header_len).div_ceil(size);
        (0..count).map(|i| wire_frame(&self.bytes, &layout, size, i)).collect()
    }
}

/// Puts the checksum of everything from `start` on where it belongs; of two zeros that which is not 0, as Linux does.
pub fn finish(bytes: &mut [u8], start: usize, offset: usize) {
    let sum = match crate::frames::checksum(0, &bytes[start..]) {
        0 => 0xffff,
        sum => sum,
    };
    bytes[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Where things are in a TCP or UDP frame of `kind`, whatever its version of IP.
#[must_use]
pub fn layout(bytes: &[u8], kind: GsoKind) -> Option<Layout> {
    let mut at = 12;
    while matches!(bytes.get(at..at + 2)?, [0x81, 0] | [0x88, 0xa8]) {
        at += 4;
    }
    let v6 = bytes.get(at..at + 2)? == [0x86, 0xdd];
    let ip_at = at + 2;
    let mut transport_at = ip_at + 40;
    if v6 {
        let mut next = *bytes.get(ip_at + 6)?;
        while matches!(next, 0 | 43 | 60) {
            next = *bytes.get(transport_at)?;
            transport_at += 8 + 8 * usize::from(*bytes.get(transport_at + 1)?);
        }
    } else {
        transport_at = ip_at + 4 * usize::from(bytes.get(ip_at)? & 15);
    }
    let transport_len = match kind {
        GsoKind::Udp => 8,
        GsoKind::Tcp4 | GsoKind::Tcp6 => 4 * usize::from(bytes.get(transport_at + 12)? >> 4),
    };
    Some(Layout { kind, v6, ip_at, transport_at, header_len: transport_at + transport_len })
}

/// An open socket on an interface.
#[derive(Debug)]
pub struct Sight {
    raw: Raw,
}

impl Sight {
    /// Looks at `link` of `namespace` from now on; only what it receives, not what it sends.
    ///
    /// # Panics
    /// When there is no such interface.
    #[must_use]
    pub fn open(namespace: &Namespace, link: &str) -> Self {
        Self { raw: namespace.inside(|| Raw::open_with_facts(link)) }
    }

    /// Sends a frame that owes nothing.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        self.raw.send(&[&[0; FACTS_LEN], frame].concat());
    }

    /// Sends a superframe whose wire frames have `size` bytes of payload each, its checksum unfinished.
    ///
    /// # Panics
    /// When it is none, or the kernel refuses.
    #[track_caller]
    pub fn send_superframe(&self, bytes: &[u8], kind: GsoKind, size: usize) {
        let layout = layout(bytes, kind).expect("a superframe of that kind");
        let number = |value: usize| u16::try_from(value).expect("below 65,536").to_ne_bytes();
        let is_reduced = kind != GsoKind::Udp && bytes[layout.transport_at + 13] & 0x80 != 0;
        let kind = match kind {
            GsoKind::Tcp4 => TCP4,
            GsoKind::Tcp6 => TCP6,
            GsoKind::Udp => UDP,
        };
        let kind = kind | if is_reduced { WITH_ECN } else { 0 };
        let mut facts = vec![NEEDS_CHECKSUM, kind];
        let offset = layout.checksum_at() - layout.transport_at;
        for value in [layout.header_len, size, layout.transport_at, offset] {
            facts.extend(number(value));
        }
        self.raw.send(&[&facts, bytes].concat());
    }

    /// Sends a frame that owes a checksum: the sum from byte `start` on is to be put `offset` bytes behind it.
    ///
    /// # Errors
    /// When the kernel does not believe it.
    pub fn send_unfinished(&self, frame: &[u8], start: u16, offset: u16) -> std::io::Result<()> {
        let mut facts = vec![NEEDS_CHECKSUM, 0];
        // Linux wants to be told how much to keep in one piece.
        facts.extend((start + offset + 2).to_ne_bytes());
        facts.extend([0, 0]);
        facts.extend(start.to_ne_bytes());
        facts.extend(offset.to_ne_bytes());
        self.raw.try_send(&[&facts, frame].concat())
    }

    /// The next that arrives, waiting at most `within`.
    ///
    /// # Panics
    /// When the kernel's facts are of a kind unknown here.
    #[must_use]
    pub fn receive(&self, within: Duration) -> Option<Seen> {
        self.raw.receive(within).map(|bytes| seen(&bytes))
    }

    /// Everything that has arrived until now.
    ///
    /// # Panics
    /// When the kernel's facts are of a kind unknown here.
    #[must_use]
    pub fn drain(&self) -> Vec<Seen> {
        self.raw.drain().iter().map(|bytes| seen(bytes)).collect()
    }

    /// Every wire frame that has arrived until now.
    ///
    /// # Panics
    /// When the kernel's facts are of a kind unknown here.
    #[must_use]
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.drain().iter().flat_map(Seen::frames).collect()
    }
}

fn seen(bytes: &[u8]) -> Seen {
    let (facts, bytes) = bytes.split_at(FACTS_LEN);
    let number = |at: usize| usize::from(u16::from_ne_bytes([facts[at], facts[at + 1]]));
    // The kernel counts from a frame whose tag it has taken out.
    let tag_len = if matches!(bytes.get(12..14), Some([0x81, 0] | [0x88, 0xa8])) { 4 } else { 0 };
    let kind = match facts[1] & !WITH_ECN {
        0 => None,
        TCP4 => Some(GsoKind::Tcp4),
        TCP6 => Some(GsoKind::Tcp6),
        UDP => Some(GsoKind::Udp),
        other => panic!("a superframe of kind {other}"),
    };
    let unfinished = (facts[0] & NEEDS_CHECKSUM != 0).then(|| (number(6) + tag_len, number(8)));
    Seen { bytes: bytes.to_vec(), unfinished, superframe: kind.map(|kind| (kind, number(4))) }
}

/// `frame` up to the end of its IP packet: without padding.
#[must_use]
pub fn without_padding(frame: &[u8]) -> &[u8] {
    let Some(layout) = layout(frame, GsoKind::Udp) else { return frame };
    let ip_at = layout.ip_at;
    let Some([0x86, 0xdd] | [8, 0]) = frame.get(ip_at - 2..ip_at) else { return frame };
    let end = if layout.v6 {
        ip_at + 40 + usize::from(word_at(frame, ip_at + 4))
    } else {
        ip_at + usize::from(word_at(frame, ip_at + 2))
    };
    frame.get(..end).unwrap_or(frame)
}
