//! IPv4 (RFC 791), IPv6 (RFC 8200) and the first header above them, behind any depth of VLAN tags.
//!
//! What a header says about lengths is checked against the frame; what does not fit is `None`. Checksums are
//! not verified here, and nothing is reassembled.

use super::checksum::Sum;
use super::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use super::vlan::tag_stack;
use super::{be16, be32};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol number of ICMP (RFC 792).
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of TCP (RFC 9293).
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP (RFC 768).
pub const PROTOCOL_UDP: u8 = 17;
/// Protocol number of ICMPv6 (RFC 4443).
pub const PROTOCOL_ICMPV6: u8 = 58;

/// An IPv4 header without options.
pub const V4_HEADER_LEN: usize = 20;
/// The fixed IPv6 header.
pub const V6_HEADER_LEN: usize = 40;
/// A TCP header without options.
pub const TCP_HEADER_LEN: usize = 20;
/// A UDP header.
pub const UDP_HEADER_LEN: usize = 8;

/// How many IPv6 extension headers are walked; a frame with more counts as malformed.
pub const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// Which IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// What a header says about fragmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where its data belong in the whole, in bytes: 0..=65,528.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
    /// Identification; 16 bits of it in IPv4.
    pub id: u32,
}

/// The IP headers of a frame. Positions count from the frame's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip<'a> {
    frame: &'a [u8],
    frame_len: usize,
    /// Which IP.
    pub version: Version,
    /// Where the IP header begins.
    pub at: usize,
    /// Where the transport header begins: behind options or extension headers.
    pub transport_at: usize,
    /// The byte behind the last that the length field covers; the frame may be longer (padding).
    pub end: usize,
    /// What stands at `transport_at`. For a part of a fragmented IPv6 datagram: what the fragment header names,
    /// which is the same in all parts.
    pub protocol: u8,
    /// The fragment header of IPv6; for IPv4, only when it says that this is a part of something.
    pub fragment: Option<Fragment>,
    /// A routing header is not used up: the destination is not yet the final one, which the pseudo-header wants.
    pub routed: bool,
}

/// Finds the IP headers of `frame` behind its VLAN tags. `None` when it carries no IP, or when a version or
/// length is wrong: a header shorter than its minimum, a total longer than the frame, an extension header past
/// the end, more than [`MAX_EXTENSIONS`] of them.
#[inline]
#[must_use]
pub fn find(frame: &[u8]) -> Option<Ip<'_>> {
    find_in(frame, frame.len())
}

/// Like [`find`], in a frame of `frame_len` bytes of which `frame` holds the first ones: all headers, and perhaps
/// not the payload. `None` also when a header reaches past them.
#[inline]
#[must_use]
pub fn find_in(frame: &[u8], frame_len: usize) -> Option<Ip<'_>> {
    let (_, type_at) = tag_stack(frame);
    match be16(frame, type_at)? {
        ETHERTYPE_IPV4 => find_v4(frame, frame_len, type_at + 2),
        ETHERTYPE_IPV6 => find_v6(frame, frame_len, type_at + 2),
        _ => None,
    }
}

/// The length that a frame of IP says it has, Ethernet header and tags included, whatever it really has; `None` when
/// it carries no IP or `front`, its first bytes, end before the length.
#[inline]
#[must_use]
pub fn claimed_len(front: &[u8]) -> Option<usize> {
    let (_, type_at) = tag_stack(front);
    let at = type_at + 2;
    match be16(front, type_at)? {
        ETHERTYPE_IPV4 => Some(at + usize::from(be16(front, at + 2)?)),
        ETHERTYPE_IPV6 => Some(at + V6_HEADER_LEN + usize::from(be16(front, at + 4)?)),
        _ => None,
    }
}

/// The IPv4 header at byte `at`, wherever that is; otherwise like [`find_in`].
#[inline]
pub(crate) fn find_v4(frame: &[u8], frame_len: usize, at: usize) -> Option<Ip<'_>> {
    let (header, _) = frame.get(at..)?.split_first_chunk::<V4_HEADER_LEN>()?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fits = header_len >= V4_HEADER_LEN && total >= header_len && at + total <= frame_len;
    if header[0] >> 4 != 4 || !fits || at + header_len > frame.len() {
        return None;
    }
    let bits = u16::from_be_bytes([header[6], header[7]]);
    let fragment = (bits & 0x3fff != 0).then(|| Fragment {
        offset: (bits & 0x1fff) << 3,
        more: bits & 0x2000 != 0,
        id: u32::from(u16::from_be_bytes([header[4], header[5]])),
    });
    Some(Ip {
        frame,
        frame_len,
        version: Version::V4,
        at,
        transport_at: at + header_len,
        end: at + total,
        protocol: header[9],
        fragment,
        routed: false,
    })
}

/// The IPv6 header at byte `at`, wherever that is; otherwise like [`find_in`].
#[inline]
pub(crate) fn find_v6(frame: &[u8], frame_len: usize, at: usize) -> Option<Ip<'_>> {
    let (header, _) = frame.get(at..)?.split_first_chunk::<V6_HEADER_LEN>()?;
    let end = at + V6_HEADER_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if header[0] >> 4 != 6 || end > frame_len {
        return None;
    }
    let mut ip = Ip {
        frame,
        frame_len,
        version: Version::V6,
        at,
        transport_at: at + V6_HEADER_LEN,
        end,
        protocol: header[6],
        fragment: None,
        routed: false,
    };
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(ip.protocol) {
            return Some(ip);
        }
        let (extension, len) = extension(frame, ip.protocol, ip.transport_at, end)?;
        ip.routed |= ip.protocol == ROUTING && extension[3] != 0;
        let is_fragment = ip.protocol == FRAGMENT;
        ip.protocol = extension[0];
        ip.transport_at += len;
        if is_fragment {
            let bits = u16::from_be_bytes([extension[2], extension[3]]);
            let id = u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]);
            ip.fragment = Some(Fragment { offset: bits & 0xfff8, more: bits & 1 != 0, id });
            if ip.is_part() {
                return Some(ip);
            }
        }
    }
    (!is_extension(ip.protocol)).then_some(ip)
}

/// The first eight bytes of the extension header `protocol` at `at`, and its length; `None` when it reaches past `end`
/// or past what is there.
#[inline]
fn extension(frame: &[u8], protocol: u8, at: usize, end: usize) -> Option<(&[u8; 8], usize)> {
    let extension = frame.get(at..end.min(frame.len()))?.first_chunk::<8>()?;
    let len = match protocol {
        // RFC 4302 §2.2 counts in words of 4 bytes, less 2.
        AUTHENTICATION => (usize::from(extension[1]) + 2) * 4,
        FRAGMENT => 8,
        // RFC 8200 §4.3 to §4.6: in words of 8 bytes, the first not counted.
        _ => (usize::from(extension[1]) + 1) * 8,
    };
    (len <= end - at).then_some((extension, len))
}

const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY)
}

impl<'a> Ip<'a> {
    /// Whether this is a part of a fragmented datagram. (A whole IPv6 datagram may wear a fragment header all
    /// the same: RFC 6946.)
    #[inline]
    #[must_use]
    pub const fn is_part(&self) -> bool {
        match self.fragment {
            Some(fragment) => fragment.more || fragment.offset != 0,
            None => false,
        }
    }

    /// The protocol and the place of the first header behind all extension headers, those behind a first fragment's
    /// header included; `None` when the chain of headers does not end in here (RFC 7112), or this is a later fragment.
    #[must_use]
    pub(crate) fn upper(&self) -> Option<(u8, usize)> {
        if self.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return None;
        }
        let (mut protocol, mut at) = (self.protocol, self.transport_at);
        for _ in 0..=MAX_EXTENSIONS {
            if self.version == Version::V4 || !is_extension(protocol) {
                return Some((protocol, at));
            }
            // Nobody makes fragments of fragments.
            if protocol == FRAGMENT {
                return None;
            }
            let (extension, len) = extension(self.frame, protocol, at, self.end)?;
            (protocol, at) = (extension[0], at + len);
        }
        None
    }

    /// The length of the frame it was found in.
    #[inline]
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        self.frame_len
    }

    /// The IP header with its options or extension headers.
    #[inline]
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        self.frame.get(self.at..self.transport_at).unwrap_or_default()
    }

    /// What the IP header carries: transport header and data, without padding; as much of it as is there.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.frame.get(self.transport_at..self.end.min(self.frame.len())).unwrap_or_default()
    }

    /// Source and destination as they stand in the header, 8 or 32 bytes.
    #[inline]
    #[must_use]
    pub fn address_bytes(&self) -> &'a [u8] {
        let (from, to) = match self.version {
            Version::V4 => (12, 20),
            Version::V6 => (8, 40),
        };
        self.header().get(from..to).unwrap_or_default()
    }

    /// The source address.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        let bytes = self.address_bytes();
        address(&bytes[..bytes.len() / 2])
    }

    /// The destination address in the fixed header.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        let bytes = self.address_bytes();
        address(&bytes[bytes.len() / 2..])
    }

    /// Whether nobody on the path may fragment it: DF in IPv4, always in IPv6.
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        match self.version {
            Version::V4 => self.header().get(6).is_some_and(|bits| bits & 0x40 != 0),
            Version::V6 => true,
        }
    }

    /// The sum of the pseudo-header over `len` bytes of transport header and data; `None` when the destination
    /// is not the final one, or when `len` exceeds what IP can carry.
    #[inline]
    #[must_use]
    pub fn pseudo_header(&self, len: usize) -> Option<Sum> {
        if self.routed {
            return None;
        }
        let len = u16::try_from(len).ok()?;
        match self.version {
            Version::V4 => Some(Sum::pseudo_v4(self.address_bytes().first_chunk()?, self.protocol, len)),
            Version::V6 => {
                Some(Sum::pseudo_v6(self.address_bytes().first_chunk()?, self.protocol, len.into()))
            }
        }
    }

    /// The TCP header; `None` when there is another transport, when this is a later fragment, or when the
    /// header is malformed or cut short.
    #[inline]
    #[must_use]
    pub fn tcp(&self) -> Option<Tcp> {
        let bytes = self.first(PROTOCOL_TCP)?;
        let (fixed, _) = bytes.split_first_chunk::<TCP_HEADER_LEN>()?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        (header_len >= TCP_HEADER_LEN && header_len <= bytes.len()).then_some(Tcp {
            at: self.transport_at,
            header_len,
            source_port: u16::from_be_bytes([fixed[0], fixed[1]]),
            destination_port: u16::from_be_bytes([fixed[2], fixed[3]]),
            sequence: be32(fixed, 4)?,
            acknowledgement: be32(fixed, 8)?,
            flags: fixed[13],
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            checksum: u16::from_be_bytes([fixed[16], fixed[17]]),
        })
    }

    /// The UDP header; `None` when there is another transport, when this is a later fragment, or when the header
    /// is cut short or, in a whole datagram, says a length below 8 or past the end.
    #[inline]
    #[must_use]
    pub fn udp(&self) -> Option<Udp> {
        let bytes = self.first(PROTOCOL_UDP)?;
        let header = bytes.first_chunk::<UDP_HEADER_LEN>()?;
        let len = u16::from_be_bytes([header[4], header[5]]);
        let whole = self.end - self.transport_at;
        let fits = usize::from(len) >= UDP_HEADER_LEN && (self.is_part() || usize::from(len) <= whole);
        fits.then_some(Udp {
            at: self.transport_at,
            source_port: u16::from_be_bytes([header[0], header[1]]),
            destination_port: u16::from_be_bytes([header[2], header[3]]),
            len,
            checksum: u16::from_be_bytes([header[6], header[7]]),
        })
    }

    /// The ICMP or ICMPv6 header; `None` when there is another transport (ICMPv6 over IPv4 counts as another),
    /// when this is a later fragment, or when it has fewer than 8 bytes.
    #[must_use]
    pub fn icmp(&self) -> Option<Icmp> {
        let bytes = self.first(match self.version {
            Version::V4 => PROTOCOL_ICMP,
            Version::V6 => PROTOCOL_ICMPV6,
        })?;
        let header = bytes.first_chunk::<8>()?;
        Some(Icmp { version: self.version, at: self.transport_at, kind: header[0], code: header[1] })
    }

    /// The payload, when it begins with the header of `protocol`.
    #[inline]
    fn first(&self, protocol: u8) -> Option<&'a [u8]> {
        let begins = self.fragment.is_none_or(|fragment| fragment.offset == 0);
        (self.protocol == protocol && begins).then(|| self.payload())
    }
}

/// A TCP header (RFC 9293 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Where it begins in the frame.
    pub at: usize,
    /// Its length with options, 20..=60.
    pub header_len: usize,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN from bit 7 to bit 0.
    pub flags: u8,
    /// Window as it stands in the header.
    pub window: u16,
    /// The checksum field.
    pub checksum: u16,
}

impl Tcp {
    /// Where the checksum field is, from `at`.
    pub const CHECKSUM_OFFSET: u16 = 16;
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
    /// Congestion window reduced (RFC 3168).
    pub const CWR: u8 = 0x80;
}

/// A UDP header (RFC 768).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Where it begins in the frame.
    pub at: usize,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The length field: header and data, at least 8.
    pub len: u16,
    /// The checksum field; 0 means that there is none.
    pub checksum: u16,
}

impl Udp {
    /// Where the checksum field is, from `at`.
    pub const CHECKSUM_OFFSET: u16 = 6;
}

/// The first bytes of an ICMP (RFC 792) or ICMPv6 (RFC 4443) message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Which ICMP.
    pub version: Version,
    /// Where it begins in the frame.
    pub at: usize,
    /// The type field.
    pub kind: u8,
    /// The code field.
    pub code: u8,
}

impl Icmp {
    /// Whether it reports an error, so that no error may answer it (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
    #[must_use]
    pub const fn is_error(&self) -> bool {
        match self.version {
            Version::V4 => matches!(self.kind, 3 | 4 | 5 | 11 | 12),
            Version::V6 => self.kind < 128 || self.kind == 137,
        }
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => Ipv4Addr::from(v4).into(),
        (_, Ok(v6)) => Ipv6Addr::from(v6).into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn ethernet(tags: &[u8], ethertype: u16, rest: &[u8]) -> Vec<u8> {
        let mut frame = alloc::vec![2; 12];
        frame.extend_from_slice(tags);
        frame.extend_from_slice(&ethertype.to_be_bytes());
        frame.extend_from_slice(rest);
        frame
    }

    fn v4(bits: u16, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let header_len = 20 + options.len();
        let total = u16::try_from(header_len + payload.len()).unwrap();
        let mut bytes = alloc::vec![0x40 | u8::try_from(header_len / 4).unwrap(), 0];
        bytes.extend(total.to_be_bytes());
        bytes.extend([0x12, 0x34]);
        bytes.extend(bits.to_be_bytes());
        bytes.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend(options);
        bytes.extend(payload);
        bytes
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = alloc::vec![0x60, 0, 0, 0];
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend([next, 64]);
        bytes.extend([[0xfd; 16], [0xfe; 16]].concat());
        bytes.extend(payload);
        bytes
    }

    const UDP: [u8; 9] = [0, 7, 0, 9, 0, 9, 0xab, 0xcd, b'x'];

    #[test]
    fn udp_is_found_behind_tags_and_options() {
        let tags = [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7];
        let frame = ethernet(&tags, 0x0800, &[v4(0x4000, 17, &[1; 8], &UDP), alloc::vec![0; 6]].concat());
        let ip = find(&frame).unwrap();
        assert_eq!((ip.at, ip.transport_at, ip.end, frame.len()), (26, 54, 63, 69));
        assert_eq!((ip.source(), ip.destination()), ([10, 0, 0, 1].into(), [10, 0, 0, 2].into()));
        assert!(ip.dont_fragment() && !ip.is_part() && ip.tcp().is_none() && ip.icmp().is_none());
        assert_eq!(ip.payload(), UDP);
        let udp = ip.udp().unwrap();
        assert_eq!((udp.source_port, udp.destination_port, udp.len, udp.checksum), (7, 9, 9, 0xabcd));
        for len in 0..63 {
            assert_eq!(find(&frame[..len]).map(|ip| ip.end), None, "{len}");
        }
    }

    #[test]
    fn only_the_first_fragment_has_a_transport_header() {
        let first = ethernet(&[], 0x0800, &v4(0x2000, 17, &[], &[0, 7, 0, 9, 5, 0, 0, 0]));
        let ip = find(&first).unwrap();
        assert_eq!(ip.fragment, Some(Fragment { offset: 0, more: true, id: 0x1234 }));
        assert!(ip.is_part() && !ip.dont_fragment() && ip.udp().is_some());
        let last = ethernet(&[], 0x0800, &v4(3, 17, &[], &UDP));
        let ip = find(&last).unwrap();
        assert_eq!(ip.fragment, Some(Fragment { offset: 24, more: false, id: 0x1234 }));
        assert!(ip.is_part() && ip.udp().is_none());
    }

    #[test]
    fn extension_headers_are_walked_to_the_transport() {
        let chain = [
            &[43, 0, 0, 0, 0, 0, 0, 0][..],         // hop-by-hop
            &[60, 0, 0, 1, 0, 0, 0, 0],             // routing, one segment left
            &[51, 1, 0, 0, 0, 0, 0, 0],             // destination options, 16 bytes
            &[0; 8],                                //
            &[44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // authentication, 12 bytes
            &[17, 0, 0, 0, 0, 0, 0, 9],             // fragment header around a whole
            &UDP,
        ]
        .concat();
        let frame = ethernet(&[], 0x86dd, &v6(0, &chain));
        let ip = find(&frame).unwrap();
        assert_eq!((ip.protocol, ip.transport_at, ip.end), (17, 54 + 52, frame.len()));
        assert!(ip.routed && !ip.is_part() && ip.pseudo_header(9).is_none());
        assert_eq!(ip.fragment, Some(Fragment { offset: 0, more: false, id: 9 }));
        assert_eq!(ip.udp().map(|udp| udp.len), Some(9));
        for cut in 1..52 {
            assert_eq!(find(&ethernet(&[], 0x86dd, &v6(0, &chain[..cut]))), None, "{cut}");
        }
    }

    #[test]
    fn the_walk_stops_at_a_real_fragment_and_at_its_bound() {
        let part = [&[60, 0, 0, 8, 0, 0, 0, 9][..], &[17, 0, 0, 0, 0, 0, 0, 0], &UDP].concat();
        let frame = ethernet(&[], 0x86dd, &v6(44, &part));
        let ip = find(&frame).unwrap();
        assert_eq!((ip.protocol, ip.transport_at), (60, 62));
        assert_eq!(ip.fragment, Some(Fragment { offset: 8, more: false, id: 9 }));
        let chain = |n: usize| {
            let mut bytes = [60, 0, 0, 0, 0, 0, 0, 0].repeat(n);
            bytes[(n - 1) * 8] = 17;
            bytes.extend(UDP);
            ethernet(&[], 0x86dd, &v6(60, &bytes))
        };
        assert!(find(&chain(MAX_EXTENSIONS)).is_some_and(|ip| ip.udp().is_some()));
        assert_eq!(find(&chain(MAX_EXTENSIONS + 1)), None);
    }

    #[test]
    fn a_wrong_length_or_version_is_no_ip() {
        let good = ethernet(&[], 0x0800, &v4(0, 17, &[], &UDP));
        assert!(find(&good).is_some());
        for (at, value) in [(14, 0x55), (14, 0x44), (14, 0x4f), (17, 19), (17, 30), (12, 0x09)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(find(&bad), None, "byte {at} = {value}");
        }
        for (at, value) in [(38, 0), (39, 7), (39, 10)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(find(&bad).and_then(|ip| ip.udp()).is_some(), at == 38, "byte {at} = {value}");
        }
        let mut tcp = [0; 24];
        for (offset, fits) in [(0x40, false), (0x50, true), (0x60, true), (0x70, false)] {
            tcp[12] = offset;
            let frame = ethernet(&[], 0x86dd, &v6(6, &tcp));
            assert_eq!(find(&frame).and_then(|ip| ip.tcp()).is_some(), fits, "{offset:x}");
        }
    }
}
