//! A frame by its fields: what `ofproto/trace` is given, as ovs-fields(7) and the datapath's keys name them.
//!
//! Not here: a frame's fields in words (see [`super::fields`]), and what becomes of it (see [`super::trace`]).

use super::fdb::parse_mac;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use vswitch_core::Mac;

/// The length that a frame has at least, without its checksum (IEEE 802.3 §4.2.3.3).
const LEAST: usize = 60;
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const CTAG: u16 = 0x8100;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Words that stand for a type and a protocol.
const SHORTHANDS: &[(&str, u16, Option<u8>)] = &[
    ("ip", IPV4, None),
    ("arp", ARP, None),
    ("rarp", RARP, None),
    ("icmp", IPV4, Some(ICMP)),
    ("tcp", IPV4, Some(TCP)),
    ("udp", IPV4, Some(UDP)),
    ("sctp", IPV4, Some(SCTP)),
    ("ipv6", IPV6, None),
    ("ip6", IPV6, None),
    ("icmp6", IPV6, Some(ICMPV6)),
    ("tcp6", IPV6, Some(TCP)),
    ("udp6", IPV6, Some(UDP)),
    ("sctp6", IPV6, Some(SCTP)),
];

/// The fields of a frame; what is not said is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    /// The port it arrives on, as it was written.
    pub(super) in_port: Option<String>,
    /// The VNI that a tunnel's datagram has.
    pub(super) tun_id: Option<u32>,
    dst: Mac,
    src: Mac,
    /// VID and PCP of its tag.
    tag: Option<(u16, u8)>,
    ethertype: u16,
    proto: u8,
    tos: u8,
    ttl: u8,
    /// Source and destination of IPv4, sender and target of ARP.
    ipv4: [Ipv4Addr; 2],
    ipv6: [Ipv6Addr; 2],
    /// Sender and target of ARP.
    arp_macs: [Mac; 2],
    arp_op: u16,
    /// Ports; of ICMP, type and code.
    ports: [u16; 2],
    tcp_flags: u16,
}

/// A field that was set and what it stands on: a predicate of the whole flow.
type Needs = fn(&Flow) -> bool;

impl Flow {
    fn new() -> Self {
        let mac = Mac::new([0; 6]);
        Self {
            in_port: None,
            tun_id: None,
            dst: mac,
            src: mac,
            tag: None,
            ethertype: 0,
            proto: 0,
            tos: 0,
            ttl: 0,
            ipv4: [Ipv4Addr::UNSPECIFIED; 2],
            ipv6: [Ipv6Addr::UNSPECIFIED; 2],
            arp_macs: [mac; 2],
            arp_op: 0,
            ports: [0; 2],
            tcp_flags: 0,
        }
    }

    /// Reads the fields of ovs-fields(7), `key=value` and shorthands, with commas or blanks between.
    ///
    /// # Errors
    /// What is wrong, as ovs-vswitchd says it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut flow = Self::new();
        let mut needs: Vec<(&str, Needs)> = Vec::new();
        let bad = |why: String| format!("Bad openflow flow syntax: {text}: {why}");
        for word in text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty()) {
            let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
            let Some(value) = value else {
                let known = SHORTHANDS.iter().find(|(name, ..)| *name == key);
                let (_, ethertype, proto) = known.ok_or_else(|| bad(format!("unknown field {key}")))?;
                flow.ethertype = *ethertype;
                flow.proto = proto.unwrap_or(flow.proto);
                continue;
            };
            let need = flow.set(key, value).map_err(|why| match why {
                Wrong::Field => bad(format!("unknown field {key}")),
                Wrong::Value(why) => bad(format!("bad value for {key} ({value}: {why})")),
            })?;
            needs.extend(need.map(|need| (key, need)));
        }
        match needs.into_iter().find(|(_, need)| !need(&flow)) {
            Some((key, _)) => Err(bad(format!("prerequisites not met for setting {key}"))),
            None => Ok(flow),
        }
    }

    /// Reads the keys of the datapath: `in_port(1),eth(src=…,dst=…),…`.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn parse_keys(text: &str) -> Result<Self, String> {
        let mut flow = Self::new();
        flow.take_keys(text, 0)?;
        Ok(flow)
    }

    /// The keys in `text`, which stand inside `outer` others.
    fn take_keys(&mut self, text: &str, outer: usize) -> Result<(), String> {
        let mut left = text.trim_matches([',', ' ']);
        while !left.is_empty() {
            let wrong = || format!("syntax error at {left} (or the bridge name was omitted)");
            let open = left.find('(').ok_or_else(wrong)?;
            let mut depth = 0_usize;
            let close = left.char_indices().find_map(|(at, c)| {
                depth = if c == '(' { depth + 1 } else { depth.checked_sub(usize::from(c == ')'))? };
                (c == ')' && depth == 0).then_some(at)
            });
            let close = close.ok_or_else(wrong)?;
            let (name, inside) = (&left[..open], &left[open + 1..close]);
            self.take_key(name, inside, outer).ok_or_else(wrong)?;
            left = left[close + 1..].trim_start_matches([',', ' ']);
        }
        Ok(())
    }

    /// One key; `None` when it cannot be read.
    fn take_key(&mut self, name: &str, inside: &str, outer: usize) -> Option<()> {
        let pairs = || inside.split(',').filter_map(|pair| pair.split_once('='));
        match name {
            "in_port" => self.in_port = Some(inside.to_owned()),
            "eth_type" => self.ethertype = number(inside)?,
            // Behind each of two tags at most.
            "encap" if outer < 2 => return self.take_keys(inside, outer + 1).ok(),
            "vlan" => self.tag = Some((0, 0)),
            // What is known of a frame before it arrives says nothing here.
            "recirc_id" | "skb_priority" | "skb_mark" | "ct_state" | "ct_zone" | "ct_mark" | "ct_label"
            | "dp_hash" | "packet_type" | "eth" | "ipv4" | "ipv6" | "arp" | "tcp" | "udp" | "sctp"
            | "icmp" | "icmpv6" | "tcp_flags" | "tunnel" => {}
            _ => return None,
        }
        let key_of = |key: &str| match (name, key) {
            ("eth", "src") => Some("dl_src"),
            ("eth", "dst") => Some("dl_dst"),
            ("vlan", "vid") => Some("dl_vlan"),
            ("vlan", "pcp") => Some("dl_vlan_pcp"),
            ("ipv4", "src") | ("arp", "sip") => Some("nw_src"),
            ("ipv4", "dst") | ("arp", "tip") => Some("nw_dst"),
            ("ipv6", "src") => Some("ipv6_src"),
            ("ipv6", "dst") => Some("ipv6_dst"),
            ("ipv4" | "ipv6", "proto") => Some("nw_proto"),
            ("ipv4", "ttl") | ("ipv6", "hlimit") => Some("nw_ttl"),
            ("ipv4", "tos") | ("ipv6", "tclass") => Some("nw_tos"),
            ("arp", "op") => Some("arp_op"),
            ("arp", "sha") => Some("arp_sha"),
            ("arp", "tha") => Some("arp_tha"),
            ("tcp" | "udp" | "sctp", "src") | ("icmp" | "icmpv6", "type") => Some("tp_src"),
            ("tcp" | "udp" | "sctp", "dst") | ("icmp" | "icmpv6", "code") => Some("tp_dst"),
            ("tunnel", "tun_id") => Some("tun_id"),
            _ => None,
        };
        for (key, value) in pairs() {
            if let Some(key) = key_of(key) {
                self.set(key, value).ok()?;
            }
        }
        Some(())
    }

    /// Sets one field, and says what it stands on.
    fn set(&mut self, key: &str, value: &str) -> Result<Option<Needs>, Wrong> {
        let is_ip: Needs = |flow| matches!(flow.ethertype, IPV4 | IPV6);
        let is_v4: Needs = |flow| matches!(flow.ethertype, IPV4 | ARP | RARP);
        let is_v6: Needs = |flow| flow.ethertype == IPV6;
        let is_arp: Needs = |flow| matches!(flow.ethertype, ARP | RARP);
        let has_ports: Needs = |flow| {
            matches!(flow.ethertype, IPV4 | IPV6) && matches!(flow.proto, TCP | UDP | SCTP | ICMP | ICMPV6)
        };
        let need = match key {
            "in_port" => {
                self.in_port = Some(value.to_owned());
                return Ok(None);
            }
            "tun_id" => {
                self.tun_id = Some(numeric(value)?);
                return Ok(None);
            }
            "dl_src" | "eth_src" => {
                self.src = mac(value)?;
                return Ok(None);
            }
            "dl_dst" | "eth_dst" => {
                self.dst = mac(value)?;
                return Ok(None);
            }
            "dl_vlan" | "vlan_vid" => {
                // VLAN_VID of OpenFlow 1.2 has a bit above that says that there is a tag.
                let vid: u16 = numeric(value)?;
                // OFP_VLAN_NONE of OpenFlow 1.0.
                if vid == 0xffff {
                    self.tag = None;
                    return Ok(None);
                }
                self.tag = Some((vid & 0xfff, self.tag.map_or(0, |(_, pcp)| pcp)));
                return Ok(None);
            }
            "dl_vlan_pcp" | "vlan_pcp" => {
                let pcp: u8 = numeric(value)?;
                self.tag = Some((self.tag.map_or(0, |(vid, _)| vid), pcp & 7));
                return Ok(None);
            }
            "vlan_tci" => {
                let tci: u16 = numeric(value)?;
                // 0x1000 stands for the tag itself; without it there is none.
                self.tag = (tci & 0x1000 != 0).then(|| (tci & 0xfff, (tci >> 13).to_le_bytes()[0]));
                return Ok(None);
            }
            "dl_type" | "eth_type" => {
                self.ethertype = numeric(value)?;
                return Ok(None);
            }
            "nw_src" | "ip_src" | "arp_spa" | "nw_dst" | "ip_dst" | "arp_tpa" => {
                let at = usize::from(matches!(key, "nw_dst" | "ip_dst" | "arp_tpa"));
                self.ipv4[at] = parsed(value, "invalid IP address")?;
                if key.starts_with("arp") { is_arp } else { is_v4 }
            }
            "ipv6_src" | "ipv6_dst" => {
                self.ipv6[usize::from(key == "ipv6_dst")] = parsed(value, "invalid IPv6 address")?;
                is_v6
            }
            "nw_proto" | "ip_proto" => {
                self.proto = numeric(value)?;
                is_ip
            }
            "nw_tos" => {
                self.tos = (self.tos & 3) | (numeric::<u8>(value)? & 0xfc);
                is_ip
            }
            "ip_dscp" => {
                self.tos = (self.tos & 3) | (numeric::<u8>(value)? << 2);
                is_ip
            }
            "nw_ecn" | "ip_ecn" => {
                self.tos = (self.tos & 0xfc) | (numeric::<u8>(value)? & 3);
                is_ip
            }
            "nw_ttl" => {
                self.ttl = numeric(value)?;
                is_ip
            }
            "arp_sha" | "arp_tha" => {
                self.arp_macs[usize::from(key == "arp_tha")] = mac(value)?;
                is_arp
            }
            "arp_op" => {
                self.arp_op = numeric(value)?;
                is_arp
            }
            "tp_src" | "tcp_src" | "udp_src" | "sctp_src" | "icmp_type" | "icmpv6_type" => {
                self.ports[0] = numeric(value)?;
                has_ports
            }
            "tp_dst" | "tcp_dst" | "udp_dst" | "sctp_dst" | "icmp_code" | "icmpv6_code" => {
                self.ports[1] = numeric(value)?;
                has_ports
            }
            "tcp_flags" => {
                self.tcp_flags =
                    tcp_flags(value).ok_or_else(|| Wrong::Value("invalid TCP flags".to_owned()))?;
                |flow: &Self| flow.proto == TCP
            }
            _ => return Err(Wrong::Field),
        };
        Ok(Some(need))
    }

    /// A frame with these fields.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = [self.dst.bytes(), self.src.bytes()].concat();
        if let Some((vid, pcp)) = self.tag {
            frame.extend(CTAG.to_be_bytes());
            frame.extend((u16::from(pcp) << 13 | vid).to_be_bytes());
        }
        frame.extend(self.ethertype.to_be_bytes());
        match self.ethertype {
            IPV4 => {
                let payload = self.transport();
                let len = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
                let at = frame.len();
                frame.extend([0x45, self.tos]);
                frame.extend(len.to_be_bytes());
                frame.extend([0, 0, 0, 0, self.ttl, self.proto, 0, 0]);
                self.ipv4.iter().for_each(|address| frame.extend(address.octets()));
                let sum = checksum(&frame[at..]);
                frame[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(payload);
            }
            IPV6 => {
                let payload = self.transport();
                let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
                frame.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
                frame.extend(len.to_be_bytes());
                frame.extend([self.proto, self.ttl]);
                self.ipv6.iter().for_each(|address| frame.extend(address.octets()));
                frame.extend(payload);
            }
            ARP | RARP => {
                frame.extend([0, 1, 8, 0, 6, 4]);
                frame.extend(self.arp_op.to_be_bytes());
                for (mac, address) in self.arp_macs.iter().zip(self.ipv4) {
                    frame.extend(mac.bytes());
                    frame.extend(address.octets());
                }
            }
            _ => {}
        }
        if frame.len() < LEAST {
            frame.resize(LEAST, 0);
        }
        frame
    }

    /// What stands behind the IP header.
    fn transport(&self) -> Vec<u8> {
        let [src, dst] = self.ports.map(u16::to_be_bytes);
        let ports = [src, dst].concat();
        match self.proto {
            TCP => {
                let flags = (0x5000 | self.tcp_flags & 0xfff).to_be_bytes();
                [&ports[..], &[0; 8], &flags, &[0; 6]].concat()
            }
            UDP => [&ports[..], &[0, 8, 0, 0]].concat(),
            SCTP => [&ports[..], &[0; 8]].concat(),
            ICMP | ICMPV6 => [&[src[1], dst[1]][..], &[0; 6]].concat(),
            _ => Vec::new(),
        }
    }
}

/// Why a field was not set.
enum Wrong {
    /// There is none of that name.
    Field,
    /// The value is none.
    Value(String),
}

/// A number, decimal or hexadecimal.
fn number<T: TryFrom<u64>>(text: &str) -> Option<T> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let number = hex.map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())?;
    T::try_from(number).ok()
}

fn numeric<T: TryFrom<u64>>(text: &str) -> Result<T, Wrong> {
    number(text).ok_or_else(|| Wrong::Value("invalid or out of range".to_owned()))
}

fn parsed<T: FromStr>(text: &str, why: &str) -> Result<T, Wrong> {
    text.parse().map_err(|_| Wrong::Value(why.to_owned()))
}

fn mac(text: &str) -> Result<Mac, Wrong> {
    parse_mac(text).ok_or_else(|| Wrong::Value("invalid Ethernet address".to_owned()))
}

/// TCP flags as a number, or by name with `|` between.
fn tcp_flags(text: &str) -> Option<u16> {
    const NAMES: [&str; 9] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"];
    if let Some(number) = number(text) {
        return Some(number);
    }
    text.split(['|', '+'])
        .filter(|name| !name.is_empty())
        .try_fold(0, |flags, name| NAMES.iter().position(|known| *known == name).map(|at| flags | 1 << at))
}

/// The Internet checksum (RFC 1071) of whole words.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum & 0xffff).unwrap_or_default()
}

/// A frame of hexadecimal digits, blanks between them allowed.
pub(super) fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pairs = digits.chunks(2).map(|pair| Some(value(pair[0])? << 4 | value(*pair.get(1)?)?));
    pairs.collect()
}
