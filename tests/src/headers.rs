//! TCP and UDP frames of which every field can be chosen, wrong ones too.
//!
//! Beside [`crate::frames`], which builds frames that are right and plain; checksums are from there.

use crate::frames::{Frame, checksum, protocol, pseudo_header};
use std::net::IpAddr;
use vswitch_core::wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Mac};
use vswitch_core::wire::vlan::Tag;

/// What stands in a TCP header beside ports and sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The eight flags from CWR to FIN.
    pub flags: u8,
    /// The four bits beside the data offset.
    pub reserved: u8,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options, a multiple of four bytes.
    pub options: Vec<u8>,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Source station.
    pub src_mac: Mac,
    /// Destination station.
    pub dst_mac: Mac,
    /// Tags, outermost first.
    pub tags: Vec<Tag>,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Ports.
    pub ports: (u16, u16),
    /// TOS or traffic class: DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification.
    pub id: u16,
    /// IPv4: the three flags and the fragment offset in units of eight bytes.
    pub fragment: u16,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 flow label.
    pub label: u32,
    /// IPv6 extension headers: the number of each and its bytes from the third on, 6 + 8 n of them.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// TCP; `None` for UDP.
    pub tcp: Option<TcpHeader>,
    /// Payload.
    pub data: Vec<u8>,
    /// Added to the transport checksum: 0 for a right one.
    pub wrong_by: u16,
    /// UDP: no checksum.
    pub no_checksum: bool,
    /// Added to the checksum of the IPv4 header.
    pub ip_wrong_by: u16,
    /// Bytes behind the IP packet.
    pub padding: Vec<u8>,
}

impl Headers {
    /// A TCP or UDP frame with DF, TTL 64 and no data.
    #[must_use]
    pub fn new(src_mac: Mac, dst_mac: Mac, src: IpAddr, dst: IpAddr, tcp: bool) -> Self {
        let tcp = tcp.then(|| TcpHeader {
            seq: 1000,
            ack: 77,
            flags: 0x10,
            reserved: 0,
            window: 500,
            urgent: 0,
            options: Vec::new(),
        });
        Self {
            src_mac,
            dst_mac,
            tags: Vec::new(),
            src,
            dst,
            ports: (40_000, 50_000),
            tos: 0,
            ttl: 64,
            id: 1,
            fragment: 0x4000,
            options: Vec::new(),
            label: 0,
            extensions: Vec::new(),
            tcp,
            data: Vec::new(),
            wrong_by: 0,
            no_checksum: false,
            ip_wrong_by: 0,
            padding: Vec::new(),
        }
    }

    /// The TCP header.
    ///
    /// # Panics
    /// For UDP.
    pub const fn tcp(&mut self) -> &mut TcpHeader {
        self.tcp.as_mut().expect("a test of TCP")
    }

    /// The whole frame.
    ///
    /// # Panics
    /// When something is too long, or the families differ.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (number, mut transport) = self.transport();
        let sum_at = if self.tcp.is_some() { 16 } else { 6 };
        let sum = checksum(pseudo_header(self.src, self.dst, number, transport.len()), &transport);
        let sum = if sum == 0 && self.tcp.is_none() { 0xffff } else { sum };
        let sum = if self.no_checksum { 0 } else { sum.wrapping_add(self.wrong_by) };
        transport[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        let (ethertype, packet) = match (self.src, self.dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) => (ETHERTYPE_IPV4, self.v4(number, &transport)),
            (IpAddr::V6(_), IpAddr::V6(_)) => (ETHERTYPE_IPV6, self.v6(number, &transport)),
            _ => panic!("{} and {} are of two families", self.src, self.dst),
        };
        let frame = Frame::new(self.dst_mac, self.src_mac).tags(&self.tags).payload(ethertype, &packet);
        [frame.bytes(), self.padding.clone()].concat()
    }

    fn transport(&self) -> (u8, Vec<u8>) {
        let mut bytes = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        let Some(tcp) = &self.tcp else {
            bytes.extend(word(8 + self.data.len()).to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(&self.data);
            return (protocol::UDP, bytes);
        };
        bytes.extend(tcp.seq.to_be_bytes());
        bytes.extend(tcp.ack.to_be_bytes());
        let words = u8::try_from(5 + tcp.options.len() / 4).expect("at most ten words of options");
        bytes.extend([words << 4 | tcp.reserved, tcp.flags]);
        bytes.extend(tcp.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(tcp.urgent.to_be_bytes());
        bytes.extend(&tcp.options);
        bytes.extend(&self.data);
        (protocol::TCP, bytes)
    }

    fn v4(&self, number: u8, transport: &[u8]) -> Vec<u8> {
        let words = u8::try_from(5 + self.options.len() / 4).expect("at most ten words of options");
        let mut bytes = vec![0x40 | words, self.tos];
        bytes.extend(word(usize::from(words) * 4 + transport.len()).to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, number, 0, 0]);
        for address in [self.src, self.dst] {
            let IpAddr::V4(address) = address else { unreachable!("looked at above") };
            bytes.extend(address.octets());
        }
        bytes.extend(&self.options);
        let sum = checksum(0, &bytes).wrapping_add(self.ip_wrong_by);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        [bytes.as_slice(), transport].concat()
    }

    fn v6(&self, number: u8, transport: &[u8]) -> Vec<u8> {
        let mut extensions = Vec::new();
        let numbers: Vec<u8> = self.extensions.iter().map(|(number, _)| *number).chain([number]).collect();
        for ((_, rest), next) in self.extensions.iter().zip(&numbers[1..]) {
            let eights = u8::try_from((rest.len() - 6) / 8).expect("a short header");
            // A fragment header has no length.
            extensions.extend([*next, eights]);
            extensions.extend(rest);
        }
        let first = 6 << 28 | u32::from(self.tos) << 20 | self.label;
        let mut bytes = first.to_be_bytes().to_vec();
        bytes.extend(word(extensions.len() + transport.len()).to_be_bytes());
        bytes.extend([numbers[0], self.ttl]);
        for address in [self.src, self.dst] {
            let IpAddr::V6(address) = address else { unreachable!("looked at above") };
            bytes.extend(address.octets());
        }
        [bytes, extensions, transport.to_vec()].concat()
    }
}

fn word(len: usize) -> u16 {
    u16::try_from(len).expect("an IP packet is at most 65,535 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{Tcp, station, tcp_flag};

    #[test]
    fn plain_ones_are_those_of_the_plain_builder() {
        for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (a, b): (IpAddr, IpAddr) = (a.parse().unwrap(), b.parse().unwrap());
            let plain = Frame::new(station(2), station(1));
            let mut ours = Headers::new(station(1), station(2), a, b, false);
            ours.data = b"odd".to_vec();
            assert_eq!(ours.bytes(), plain.clone().udp((a, 40_000), (b, 50_000), b"odd").bytes());
            let mut ours = Headers::new(station(1), station(2), a, b, true);
            ours.data = b"odd".to_vec();
            let tcp = Tcp {
                src: (a, 40_000),
                dst: (b, 50_000),
                seq: 1000,
                ack: 77,
                flags: tcp_flag::ACK,
                window: 500,
            };
            assert_eq!(ours.bytes(), plain.tcp(&tcp, b"odd").bytes());
        }
    }
}
