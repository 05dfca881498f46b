//! One superframe into the frames of a wire: TCP (TSO) and UDP (USO), over IPv4 and IPv6.
//!
//! Payload is not copied: a wire frame is freshly written headers and a range of the superframe.

use super::{Gso, GsoKind, MAX_HEADERS_LEN, Offload, OffloadError, put, word};
use crate::wire::be16;
use crate::wire::checksum::{Sum, udp_field};
use crate::wire::ip::{self, Ip, Tcp, UDP_HEADER_LEN, V6_HEADER_LEN, Version};
use core::ops::Range;

/// How many frames [`cut`] makes of a superframe of `frame_len` bytes: at least one; 0 when the facts cannot be
/// true.
#[must_use]
pub fn count(frame_len: usize, gso: &Gso) -> usize {
    match frame_len.checked_sub(usize::from(gso.header_len)) {
        Some(payload) if gso.size != 0 => payload.div_ceil(usize::from(gso.size)).max(1),
        _ => 0,
    }
}

/// The length of all headers of the superframe `frame` of `kind`, measured in its bytes; for facts whose source
/// gives no exact length (virtio's `hdr_len` is a hint only). `None` when the headers are not those of the kind,
/// malformed, or those of a fragment, or when they do not cover the whole frame.
#[must_use]
pub fn header_len(frame: &[u8], kind: GsoKind) -> Option<u16> {
    let ip = ip::find(frame)?;
    u16::try_from(ip.transport_at + transport_len(&ip, kind)?).ok()
}

/// The length of the transport header, where everything about the headers is as it must be in a superframe.
fn transport_len(ip: &Ip<'_>, kind: GsoKind) -> Option<usize> {
    if ip.fragment.is_some() || ip.end != ip.frame_len() {
        return None;
    }
    match (kind, ip.version) {
        (GsoKind::Tcp4, Version::V4) | (GsoKind::Tcp6, Version::V6) => ip.tcp().map(|tcp| tcp.header_len),
        (GsoKind::Udp, _) => {
            let covers = |len: u16| usize::from(len) == ip.end - ip.transport_at;
            ip.udp().filter(|udp| covers(udp.len)).map(|_| UDP_HEADER_LEN)
        }
        _ => None,
    }
}

/// Cuts the superframe `frame` into wire frames and shows each to `visit`, in order: its headers, at most
/// [`MAX_HEADERS_LEN`] bytes, and the range of `frame` that is its payload. Returns how many there were, which is
/// [`count`].
///
/// Every header is complete: lengths; IPv4 identification, one more in each frame, with or without DF, and
/// header checksum; TCP sequence number, FIN and PSH in the last frame only, CWR in the first only (RFC 3168
/// §6.1.2: it belongs to the first segment after a reduction); all transport checksums, for UDP never 0. The sender's own
/// checksum field is not used, except behind a routing header, where only it knows the final destination.
///
/// # Errors
/// An [`OffloadError`], and nothing is visited, when the facts do not fit the bytes.
pub fn cut(
    frame: &[u8],
    facts: &Offload,
    mut visit: impl FnMut(&[u8], Range<usize>),
) -> Result<usize, OffloadError> {
    let gso = facts.gso.ok_or(OffloadError::NotSuperframe)?;
    let header_len = usize::from(gso.header_len);
    let (headers, payload) = frame.split_at_checked(header_len).ok_or(OffloadError::HeaderLen)?;
    cut_parts(headers, payload, facts, |head, part| {
        visit(head, header_len + part.start..header_len + part.end);
    })
}

/// Like [`cut()`], of a superframe in two parts: `headers`, which are as long as the facts say, and `payload`. The
/// ranges that are shown are those of `payload`.
///
/// # Errors
/// As of [`cut()`].
pub fn cut_parts(
    headers: &[u8],
    payload: &[u8],
    facts: &Offload,
    mut visit: impl FnMut(&[u8], Range<usize>),
) -> Result<usize, OffloadError> {
    let gso = facts.gso.ok_or(OffloadError::NotSuperframe)?;
    if gso.size == 0 {
        return Err(OffloadError::Size);
    }
    let frame_len = headers.len() + payload.len();
    let ip = ip::find_in(headers, frame_len).ok_or(OffloadError::Headers)?;
    let transport_len = transport_len(&ip, gso.kind).ok_or(OffloadError::Headers)?;
    let header_len = ip.transport_at + transport_len;
    let lengths = [usize::from(gso.header_len), headers.len()];
    if lengths != [header_len; 2] || header_len > MAX_HEADERS_LEN {
        return Err(OffloadError::HeaderLen);
    }
    let mut writer = Writer::new(headers, &ip, header_len, facts)?;
    let (count, size) = (count(frame_len, &gso), usize::from(gso.size));
    for i in 0..count {
        let part = i * size..payload.len().min((i + 1) * size);
        let bytes = payload.get(part.clone()).unwrap_or_default();
        visit(writer.next(bytes, i == 0, i + 1 == count), part);
    }
    Ok(count)
}

/// Writes the headers of one wire frame after the other over those of the one before.
struct Writer {
    buffer: [u8; MAX_HEADERS_LEN],
    header_len: usize,
    ip_at: usize,
    transport_at: usize,
    version: Version,
    transport: Transport,
    /// IPv4 identification of the next frame.
    id: u16,
    /// What is the same in every frame: the IPv4 header without lengths and identification.
    ip_sum: Sum,
    /// The pseudo-header without the length, and the transport header without what differs.
    transport_sum: Sum,
}

enum Transport {
    Tcp { sequence: u32, flags: u8 },
    Udp,
}

impl Writer {
    fn new(frame: &[u8], ip: &Ip<'_>, header_len: usize, facts: &Offload) -> Result<Self, OffloadError> {
        let mut buffer = [0; MAX_HEADERS_LEN];
        let (Some(head), Some(from)) = (buffer.get_mut(..header_len), frame.get(..header_len)) else {
            return Err(OffloadError::HeaderLen);
        };
        head.copy_from_slice(from);
        let (ip_at, at) = (ip.at, ip.transport_at);
        let (transport, checksum_offset) = match ip.tcp() {
            Some(tcp) => {
                let varying = Transport::Tcp { sequence: tcp.sequence, flags: tcp.flags };
                (varying, Tcp::CHECKSUM_OFFSET)
            }
            None => (Transport::Udp, ip::Udp::CHECKSUM_OFFSET),
        };
        if facts.checksum.is_some_and(|c| usize::from(c.start) != at || c.offset != checksum_offset) {
            return Err(OffloadError::Checksum);
        }
        let len = ip.end - at;
        let field = be16(frame, at + usize::from(checksum_offset)).ok_or(OffloadError::Headers)?;
        let pseudo = match (ip.pseudo_header(0), facts.checksum) {
            (Some(sum), _) => sum,
            (None, Some(_)) => Sum::new().with_word(field).without_word(word(len)),
            (None, None) => return Err(OffloadError::Headers),
        };
        // The fields that differ are written before each visit: until then they count as zeros.
        match transport {
            Transport::Tcp { .. } => {
                put(head, at + 4, [0; 4]);
                put(head, at + 13, [0]);
                put(head, at + 16, [0; 2]);
            }
            Transport::Udp => put(head, at + 4, [0; 4]),
        }
        if ip.version == Version::V4 {
            put(head, ip_at + 2, [0; 4]);
            put(head, ip_at + 10, [0; 2]);
        }
        let ip_sum = Sum::new().with(head.get(ip_at..at).unwrap_or_default());
        let transport_sum = pseudo.with(head.get(at..).unwrap_or_default());
        Ok(Self {
            buffer,
            header_len,
            ip_at,
            transport_at: at,
            version: ip.version,
            transport,
            id: be16(frame, ip_at + 4).ok_or(OffloadError::Headers)?,
            ip_sum,
            transport_sum,
        })
    }

    /// The headers of the next frame, whose data are `payload`.
    fn next(&mut self, payload: &[u8], first: bool, last: bool) -> &[u8] {
        let at = self.transport_at;
        let head = self.buffer.get_mut(..self.header_len).unwrap_or_default();
        let end = self.header_len + payload.len();
        match self.version {
            Version::V4 => {
                let (total, id) = (word(end - self.ip_at), self.id);
                self.id = id.wrapping_add(1);
                let checksum = self.ip_sum.with_word(total).with_word(id).checksum();
                put(head, self.ip_at + 2, total.to_be_bytes());
                put(head, self.ip_at + 4, id.to_be_bytes());
                put(head, self.ip_at + 10, checksum.to_be_bytes());
            }
            Version::V6 => {
                put(head, self.ip_at + 4, word(end - self.ip_at - V6_HEADER_LEN).to_be_bytes());
            }
        }
        let len = word(end - at);
        let sum = self.transport_sum.with_word(len);
        match &mut self.transport {
            Transport::Tcp { sequence, flags } => {
                let not_last = if last { 0 } else { Tcp::FIN | Tcp::PSH };
                let not_first = if first { 0 } else { Tcp::CWR };
                let flags = *flags & !(not_last | not_first);
                let sum = sum.with_double_word(*sequence).with_word(flags.into());
                put(head, at + 4, sequence.to_be_bytes());
                put(head, at + 13, [flags]);
                // Header and data begin at an even distance, so the data are summed on their own.
                put(head, at + 16, sum.with(payload).checksum().to_be_bytes());
                *sequence = sequence.wrapping_add(u32::from(word(payload.len())));
            }
            Transport::Udp => {
                let checksum = sum.with_word(len).with(payload).checksum();
                put(head, at + 4, len.to_be_bytes());
                put(head, at + 6, udp_field(checksum).to_be_bytes());
            }
        }
        head
    }
}
