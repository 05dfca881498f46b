//! Frames for tests: building them from parts, taking them apart, and showing them to a person.
//!
//! Written without the core's own checksum and header code, so that a test compares two independent
//! computations. Not here: what a switch does with a frame (see [`crate::reference`]).

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::wire::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Mac};
use vswitch_core::wire::vlan::{Priority, TPID_CTAG, TPID_STAG, Tag};
use vswitch_core::wire::vxlan::Vni;

/// Protocol numbers of IP (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// TCP flags as they stand in the header.
pub mod tcp_flag {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Begin.
    pub const SYN: u8 = 2;
    /// Push.
    pub const PSH: u8 = 8;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 16;
}

/// A station address for tests, 02:00:00:xx:xx:xx with the low 24 bits of `number`.
#[must_use]
pub const fn station(number: u32) -> Mac {
    Mac::from_u64(0x0200_0000_0000 | (number as u64 & 0x00ff_ffff))
}

/// A C-tag (TPID 0x8100) without DEI.
///
/// # Panics
/// When `pcp` is above 7.
#[must_use]
pub fn ctag(vid: u16, pcp: u8) -> Tag {
    Tag::new(TPID_CTAG, Priority::new(pcp, false).expect("PCP is 0..=7"), vid)
}

/// An S-tag (TPID 0x88A8) without DEI.
///
/// # Panics
/// When `pcp` is above 7.
#[must_use]
pub fn stag(vid: u16, pcp: u8) -> Tag {
    Tag::new(TPID_STAG, Priority::new(pcp, false).expect("PCP is 0..=7"), vid)
}

/// A frame in parts: addresses, every leading tag, and the rest from the type on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// Tags with TPID 0x8100 or 0x88A8, outermost first.
    pub tags: Vec<Tag>,
    /// Type and payload.
    pub rest: Vec<u8>,
}

impl Frame {
    /// An untagged frame of type 0xABCD with 48 bytes of payload that differ from byte to byte.
    #[must_use]
    pub fn new(dst: Mac, src: Mac) -> Self {
        let payload: Vec<u8> = (0..48).collect();
        Self { dst, src, tags: Vec::new(), rest: Vec::new() }.payload(0xabcd, &payload)
    }

    /// Takes a frame apart; `None` when it has no room for addresses and a type. A tag that is cut short is not
    /// a tag: it stays in the rest.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mac = |at: usize| Some(Mac::new(bytes.get(at..at + 6)?.try_into().ok()?));
        let (dst, src) = (mac(0)?, mac(6)?);
        let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let mut tags = Vec::new();
        let mut at = 12;
        word(at)?;
        while let (Some(tpid @ (TPID_CTAG | TPID_STAG)), Some(tci), Some(_)) =
            (word(at), word(at + 2), word(at + 4))
        {
            tags.push(Tag { tpid, tci });
            at += 4;
        }
        Some(Self { dst, src, tags, rest: bytes[at..].to_vec() })
    }

    /// The same frame with one more tag, inside those it has.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// The same frame with these tags instead, outermost first.
    #[must_use]
    pub fn tags(mut self, tags: &[Tag]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    /// The same frame with this type and payload.
    #[must_use]
    pub fn payload(mut self, ethertype: u16, payload: &[u8]) -> Self {
        self.rest = [&ethertype.to_be_bytes(), payload].concat();
        self
    }

    /// An IPv4 or IPv6 packet of `protocol` whose payload is `segment`, in this frame; see [`ip`].
    #[must_use]
    pub fn ip(self, src: IpAddr, dst: IpAddr, protocol: u8, segment: &[u8]) -> Self {
        let ethertype = if src.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        self.payload(ethertype, &ip(src, dst, protocol, segment))
    }

    /// A UDP datagram in this frame, checksums filled in.
    #[must_use]
    pub fn udp(self, src: (IpAddr, u16), dst: (IpAddr, u16), data: &[u8]) -> Self {
        self.ip(src.0, dst.0, protocol::UDP, &udp(src, dst, data))
    }

    /// A TCP segment in this frame, checksums filled in.
    #[must_use]
    pub fn tcp(self, segment: &Tcp, data: &[u8]) -> Self {
        self.ip(segment.src.0, segment.dst.0, protocol::TCP, &segment.bytes(data))
    }

    /// An echo request of ICMP or ICMPv6 in this frame, checksums filled in.
    #[must_use]
    pub fn echo_request(self, src: IpAddr, dst: IpAddr, sequence: u16, data: &[u8]) -> Self {
        let (kind, number) = if src.is_ipv4() { (8, protocol::ICMP) } else { (128, protocol::ICMPV6) };
        let mut message = vec![kind, 0, 0, 0, 0, 1];
        message.extend(sequence.to_be_bytes());
        message.extend(data);
        let seed = if src.is_ipv4() { 0 } else { pseudo_header(src, dst, number, message.len()) };
        let sum = checksum(seed, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.ip(src, dst, number, &message)
    }

    /// An ARP message (RFC 826) in this frame: `operation` 1 asks, 2 answers.
    #[must_use]
    pub fn arp(self, operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Self {
        let mut message = vec![0, 1, 8, 0, 6, 4];
        message.extend(operation.to_be_bytes());
        for (mac, address) in [sender, target] {
            message.extend(mac.bytes());
            message.extend(address.octets());
        }
        self.payload(ETHERTYPE_ARP, &message)
    }

    /// A message of Neighbor Discovery (RFC 4861 §4) in this frame, checksum filled in and hop limit 255: `kind` 135
    /// asks, 136 answers with these `flags` (R, S and O in bits 7, 6 and 5); `options` go behind the target.
    #[must_use]
    pub fn neighbour(
        self,
        (kind, flags): (u8, u8),
        (src, dst): (Ipv6Addr, Ipv6Addr),
        target: Ipv6Addr,
        options: &[u8],
    ) -> Self {
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend(target.octets());
        message.extend(options);
        let (src, dst) = (src.into(), dst.into());
        let sum = checksum(pseudo_header(src, dst, protocol::ICMPV6, message.len()), &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut frame = self.ip(src, dst, protocol::ICMPV6, &message);
        // Behind the type, byte 7 of the header.
        frame.rest[2 + 7] = 255;
        frame
    }

    /// The frame as it stands on a wire, without padding or FCS.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.dst.bytes(), self.src.bytes()].concat();
        self.tags.iter().for_each(|tag| bytes.extend(tag.bytes()));
        bytes.extend(&self.rest);
        bytes
    }
}

/// One TCP header, without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// From.
    pub src: (IpAddr, u16),
    /// To; of the same family.
    pub dst: (IpAddr, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// See [`tcp_flag`].
    pub flags: u8,
    /// Window.
    pub window: u16,
}

impl Tcp {
    /// Header and data with the right checksum.
    #[must_use]
    pub fn bytes(&self, data: &[u8]) -> Vec<u8> {
        let mut bytes = [self.src.1.to_be_bytes(), self.dst.1.to_be_bytes()].concat();
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([5 << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(data);
        let sum = checksum(pseudo_header(self.src.0, self.dst.0, protocol::TCP, bytes.len()), &bytes);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

/// A UDP header and `data` with the right checksum, never 0 (RFC 768).
#[must_use]
pub fn udp(src: (IpAddr, u16), dst: (IpAddr, u16), data: &[u8]) -> Vec<u8> {
    let len = word(8 + data.len());
    let mut bytes = [src.1, dst.1, len, 0].map(u16::to_be_bytes).concat();
    bytes.extend(data);
    let sum = match checksum(pseudo_header(src.0, dst.0, protocol::UDP, bytes.len()), &bytes) {
        0 => 0xffff,
        sum => sum,
    };
    bytes[6..8].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An IPv4 header (DF set, TTL 64, identification 1, right checksum) or an IPv6 header (hop limit 64), and
/// `segment`.
///
/// # Panics
/// When the families differ.
#[must_use]
pub fn ip(src: IpAddr, dst: IpAddr, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut bytes;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes = vec![0x45, 0];
            bytes.extend(word(20 + segment.len()).to_be_bytes());
            bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            let sum = checksum(0, &bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes = vec![0x60, 0, 0, 0];
            bytes.extend(word(segment.len()).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
        }
        _ => panic!("{src} and {dst} are of two families"),
    }
    bytes.extend(segment);
    bytes
}

/// A VXLAN header (RFC 7348 §5) and the inner frame: what a UDP datagram to port 4789 carries.
#[must_use]
pub fn vxlan(vni: Vni, inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0];
    bytes.extend((vni.get() << 8).to_be_bytes());
    bytes.extend(inner);
    bytes
}

/// The Internet checksum (RFC 1071) of `bytes`, begun with the folded or unfolded sum `seed`.
#[must_use]
pub fn checksum(seed: u32, bytes: &[u8]) -> u16 {
    let mut sum = u64::from(seed);
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// The sum of the pseudo header (RFC 793 §3.1, RFC 8200 §8.1), not complemented: the seed of [`checksum`].
#[must_use]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u32 {
    let octets = |address| match address {
        IpAddr::V4(address) => Ipv4Addr::octets(&address).to_vec(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address).to_vec(),
    };
    let mut bytes = [octets(src), octets(dst)].concat();
    bytes.extend([0, protocol]);
    bytes.extend(word(len).to_be_bytes());
    u32::from(!checksum(0, &bytes))
}

fn word(len: usize) -> u16 {
    u16::try_from(len).expect("an IP packet is at most 65,535 bytes")
}

/// A frame in one line, for failure messages: addresses, tags, type, what IP says, length.
#[must_use]
pub fn describe(bytes: &[u8]) -> String {
    let Some(frame) = Frame::parse(bytes) else {
        return format!("{} bytes, no Ethernet header: {}", bytes.len(), hex(bytes));
    };
    let mut text = format!("{} > {}", frame.src, frame.dst);
    for tag in &frame.tags {
        let _ = write!(text, " {}", describe_tag(*tag));
    }
    let (ethertype, payload) = frame.rest.split_at(2);
    let _ = write!(text, " {}", hex(ethertype));
    let ip = match (payload.first().map(|b| b >> 4), payload) {
        (Some(4), [_, _, _, _, _, _, _, _, _, number, _, _, a, b, c, d, e, f, g, h, ..])
            if ethertype == [8, 0] =>
        {
            Some((IpAddr::from([*a, *b, *c, *d]), IpAddr::from([*e, *f, *g, *h]), *number, 20))
        }
        (Some(6), payload) if ethertype == [0x86, 0xdd] && payload.len() >= 40 => {
            let address = |at: usize| <[u8; 16]>::try_from(&payload[at..at + 16]).map(IpAddr::from).ok();
            address(8).zip(address(24)).map(|(src, dst)| (src, dst, payload[6], 40))
        }
        _ => None,
    };
    if let Some((src, dst, number, at)) = ip {
        let ports = match (number, payload.get(at..at + 4)) {
            (protocol::TCP | protocol::UDP, Some([a, b, c, d])) => {
                (Some(u16::from_be_bytes([*a, *b])), Some(u16::from_be_bytes([*c, *d])))
            }
            _ => (None, None),
        };
        let port = |port: Option<u16>| port.map_or(String::new(), |port| format!(" port {port}"));
        let _ = write!(text, " ip {src}{} > {dst}{} protocol {number}", port(ports.0), port(ports.1));
    }
    let _ = write!(text, ", {} bytes", bytes.len());
    text
}

/// A tag as `8100:10.3`: TPID, VID, PCP; a `d` behind when DEI is set.
#[must_use]
pub fn describe_tag(tag: Tag) -> String {
    let dei = if tag.priority().dei() { "d" } else { "" };
    format!("{:04x}:{}.{}{dei}", tag.tpid, tag.vid(), tag.priority().pcp())
}

/// Frames with the port each is at, one a line, sorted: two of these texts compare well in a failure message.
#[must_use]
pub fn describe_all<P: std::fmt::Display>(frames: &[(P, Vec<u8>)]) -> String {
    if frames.is_empty() {
        return "  nothing\n".to_owned();
    }
    let mut lines: Vec<String> =
        frames.iter().map(|(port, bytes)| format!("  port {port}: {}\n", describe(bytes))).collect();
    lines.sort();
    lines.concat()
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that `text` spells in hexadecimal digits, blanks ignored; `None` when it does not.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pnet_packet::Packet;
    use pnet_packet::ipv4::Ipv4Packet;
    use pnet_packet::ipv6::Ipv6Packet;
    use pnet_packet::tcp::TcpPacket;
    use pnet_packet::udp::UdpPacket;
    use pnet_packet::{icmp, icmpv6, ipv4, tcp, udp as udp_oracle};

    fn addresses(v6: bool) -> (IpAddr, IpAddr) {
        if v6 {
            ("fd00::1".parse().unwrap(), "fd00::2:3".parse().unwrap())
        } else {
            ("10.1.2.3".parse().unwrap(), "10.200.0.9".parse().unwrap())
        }
    }

    #[test]
    fn checksums_agree_with_an_independent_library() {
        let frame = Frame::new(station(1), station(2));
        for len in [0, 1, 7, 1400] {
            let data: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let (a, b) = addresses(false);
            let (IpAddr::V4(a4), IpAddr::V4(b4)) = (a, b) else { panic!() };
            let f = frame.clone().udp((a, 5), (b, 6), &data);
            let ip = Ipv4Packet::new(&f.rest[2..]).unwrap();
            assert_eq!(ipv4::checksum(&ip), ip.get_checksum());
            let datagram = UdpPacket::new(ip.payload()).unwrap();
            assert_eq!(udp_oracle::ipv4_checksum(&datagram, &a4, &b4), datagram.get_checksum());
            let f = frame.clone().echo_request(a, b, 9, &data);
            let ip = Ipv4Packet::new(&f.rest[2..]).unwrap();
            let echo = icmp::IcmpPacket::new(ip.payload()).unwrap();
            assert_eq!(icmp::checksum(&echo), echo.get_checksum());

            let (a, b) = addresses(true);
            let (IpAddr::V6(a6), IpAddr::V6(b6)) = (a, b) else { panic!() };
            let header = Tcp { src: (a, 1), dst: (b, 2), seq: 3, ack: 4, flags: tcp_flag::ACK, window: 5 };
            let f = frame.clone().tcp(&header, &data);
            let ip = Ipv6Packet::new(&f.rest[2..]).unwrap();
            let segment = TcpPacket::new(ip.payload()).unwrap();
            assert_eq!(tcp::ipv6_checksum(&segment, &a6, &b6), segment.get_checksum());
            let f = frame.clone().echo_request(a, b, 9, &data);
            let ip = Ipv6Packet::new(&f.rest[2..]).unwrap();
            let echo = icmpv6::Icmpv6Packet::new(ip.payload()).unwrap();
            assert_eq!(icmpv6::checksum(&echo, &a6, &b6), echo.get_checksum());
        }
    }

    #[test]
    fn a_frame_taken_apart_and_put_together_is_the_same() {
        let frame = Frame::new(Mac::BROADCAST, station(7)).tag(stag(100, 5)).tag(ctag(12, 1));
        assert_eq!(Frame::parse(&frame.bytes()), Some(frame.clone()));
        let cut = &frame.bytes()[..17];
        let parsed = Frame::parse(cut).unwrap();
        assert_eq!((parsed.tags.len(), parsed.rest.len()), (0, 5));
        assert_eq!(Frame::parse(&cut[..13]), None);
    }

    #[test]
    fn a_description_says_what_matters() {
        let (a, b) = addresses(false);
        let frame = Frame::new(Mac::BROADCAST, station(7)).tag(ctag(12, 1)).udp((a, 53), (b, 99), b"x");
        assert_eq!(
            describe(&frame.bytes()),
            "02:00:00:00:00:07 > ff:ff:ff:ff:ff:ff 8100:12.1 0800 ip 10.1.2.3 port 53 > 10.200.0.9 port 99 \
             protocol 17, 47 bytes"
        );
        for len in 0..frame.bytes().len() {
            assert!(!describe(&frame.bytes()[..len]).is_empty());
        }
        assert_eq!(unhex("ab 0C"), Some(vec![0xab, 0x0c]));
        assert_eq!((unhex("abc"), unhex("zz")), (None, None));
        assert_eq!(hex(&[1, 0xfe]), "01fe");
    }
}
