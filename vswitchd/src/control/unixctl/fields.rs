//! The fields of a frame in the words of ovs-fields(7): what `ofproto/trace` says that it traces.
//!
//! Not here: the other way round (see [`super::flow`]).

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

const TPIDS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// The TPID of a tag where none is said.
pub(super) const CTAG: u16 = 0x8100;

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The tags of a frame, TPID and TCI, the outermost first.
pub(super) fn tags(frame: &[u8]) -> Vec<(u16, u16)> {
    let mut tags = Vec::new();
    let mut at = 12;
    while let (Some(tpid), Some(tci)) = (word(frame, at), word(frame, at + 2)) {
        if !TPIDS.contains(&tpid) {
            break;
        }
        tags.push((tpid, tci));
        at += 4;
    }
    tags
}

fn mac(frame: &[u8], at: usize) -> String {
    let bytes = frame.get(at..at + 6).unwrap_or(&[0; 6]);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn ipv4(bytes: &[u8], at: usize) -> Ipv4Addr {
    let octets = bytes.get(at..at + 4).and_then(|octets| <[u8; 4]>::try_from(octets).ok());
    octets.unwrap_or_default().into()
}

fn ipv6(bytes: &[u8], at: usize) -> Ipv6Addr {
    let octets = bytes.get(at..at + 16).and_then(|octets| <[u8; 16]>::try_from(octets).ok());
    octets.unwrap_or_default().into()
}

/// A frame's fields: all of them, and those that a switch that learns looks at.
pub(super) struct Described {
    /// `ip,in_port=1,…`
    pub(super) flow: String,
    /// `recirc_id=0,eth,…`
    pub(super) megaflow: String,
}

/// The fields of `frame`, which arrived on what is called `in_port`.
pub(super) fn describe(frame: &[u8], in_port: &str) -> Described {
    let tags = tags(frame);
    let at = 12 + 4 * tags.len();
    let ethertype = word(frame, at).unwrap_or(0);
    let packet = frame.get(at + 2..).unwrap_or_default();
    let (proto, rest) = network(ethertype, packet);
    let (dst, src) = (mac(frame, 0), mac(frame, 6));
    let mut vlan = String::new();
    match tags.first() {
        None => vlan.push_str("vlan_tci=0x0000"),
        Some((_, tci)) => {
            let _ = write!(vlan, "dl_vlan={},dl_vlan_pcp={},", tci & 0xfff, tci >> 13);
            let _ = match tags.get(1) {
                None => write!(vlan, "vlan_tci1=0x0000"),
                Some((_, tci)) => write!(vlan, "dl_vlan1={},dl_vlan_pcp1={}", tci & 0xfff, tci >> 13),
            };
        }
    }
    let name = proto.map_or_else(String::new, |proto| format!("{proto},"));
    let rest = if proto.is_some() { rest } else { format!(",dl_type={ethertype:#06x}") };
    let flow = format!("{name}in_port={in_port},{vlan},dl_src={src},dl_dst={dst}{rest}");
    let looked = match ethertype {
        0x0800 => "ip,",
        0x86dd => "ipv6,",
        0x0806 => "arp,",
        0x8035 => "rarp,",
        _ => "",
    };
    let vlan = tags.first().map_or_else(String::new, |(_, tci)| format!("dl_vlan={},", tci & 0xfff));
    let kind = match ethertype {
        0x0800 | 0x86dd => ",nw_frag=no".to_owned(),
        0x0806 | 0x8035 => String::new(),
        _ => format!(",dl_type={ethertype:#06x}"),
    };
    let megaflow = format!("recirc_id=0,eth,{looked}in_port={in_port},{vlan}dl_src={src},dl_dst={dst}{kind}");
    Described { flow, megaflow }
}

/// The protocol's short name, and the fields of the network and transport headers, each with a comma in front.
fn network(ethertype: u16, packet: &[u8]) -> (Option<&'static str>, String) {
    let byte = |at: usize| packet.get(at).copied().unwrap_or(0);
    match ethertype {
        0x0800 => {
            let (header, proto) = (usize::from(byte(0) & 0xf) * 4, byte(9));
            let (name, last) = transport(proto, packet.get(header..).unwrap_or_default(), false);
            let (src, dst) = (ipv4(packet, 12), ipv4(packet, 16));
            let ip = common(proto, name, byte(1), byte(8));
            (Some(name.unwrap_or("ip")), format!(",nw_src={src},nw_dst={dst}{ip}{last}"))
        }
        0x86dd => {
            let (proto, tos) = (byte(6), byte(0) << 4 | byte(1) >> 4);
            let label = u32::from_be_bytes([0, byte(1) & 0xf, byte(2), byte(3)]);
            let (name, last) = transport(proto, packet.get(40..).unwrap_or_default(), true);
            let (src, dst) = (ipv6(packet, 8), ipv6(packet, 24));
            let ip = common(proto, name, tos, byte(7));
            let text = format!(",ipv6_src={src},ipv6_dst={dst},ipv6_label={label:#07x}{ip}{last}");
            (Some(name.unwrap_or("ipv6")), text)
        }
        0x0806 | 0x8035 => {
            let (op, spa, tpa) = (word(packet, 6).unwrap_or(0), ipv4(packet, 14), ipv4(packet, 24));
            let (sha, tha) = (mac(packet, 8), mac(packet, 18));
            let name = if ethertype == 0x0806 { "arp" } else { "rarp" };
            (Some(name), format!(",arp_spa={spa},arp_tpa={tpa},arp_op={op},arp_sha={sha},arp_tha={tha}"))
        }
        _ => (None, String::new()),
    }
}

/// The fields that both IPs have; the protocol's number where it has no name.
fn common(proto: u8, name: Option<&str>, tos: u8, ttl: u8) -> String {
    let proto = if name.is_some() { String::new() } else { format!(",nw_proto={proto}") };
    format!("{proto},nw_tos={},nw_ecn={},nw_ttl={ttl},nw_frag=no", tos & 0xfc, tos & 3)
}

fn transport(proto: u8, bytes: &[u8], v6: bool) -> (Option<&'static str>, String) {
    let name = match (proto, v6) {
        (1, false) => "icmp",
        (6, false) => "tcp",
        (17, false) => "udp",
        (132, false) => "sctp",
        (58, true) => "icmp6",
        (6, true) => "tcp6",
        (17, true) => "udp6",
        (132, true) => "sctp6",
        _ => return (None, String::new()),
    };
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    if name.starts_with("icmp") {
        return (Some(name), format!(",icmp_type={},icmp_code={}", byte(0), byte(1)));
    }
    let (src, dst) = (word(bytes, 0).unwrap_or(0), word(bytes, 2).unwrap_or(0));
    let flags = if proto == 6 { tcp_flags(word(bytes, 12).unwrap_or(0) & 0xfff) } else { String::new() };
    (Some(name), format!(",tp_src={src},tp_dst={dst}{flags}"))
}

fn tcp_flags(flags: u16) -> String {
    const NAMES: [&str; 9] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"];
    let set: Vec<_> =
        (0..).zip(NAMES).filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, name)| name).collect();
    if set.is_empty() { ",tcp_flags=0".to_owned() } else { format!(",tcp_flags={}", set.join("|")) }
}

#[cfg(test)]
mod tests {
    use super::super::flow::{Flow, parse_hex};
    use super::*;

    /// As Open vSwitch 3.1 says it of the same words.
    #[test]
    fn fields_are_said_as_they_were_given() {
        for (given, said) in [
            (
                "in_port=1,dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07",
                "in_port=1,vlan_tci=0x0000,dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07,dl_type=0x0000",
            ),
            (
                "in_port=1,dl_vlan=20,dl_vlan_pcp=3,dl_src=50:54:00:00:00:05,dl_dst=ff:ff:ff:ff:ff:ff,\
                 ip,nw_src=10.0.0.1,nw_dst=10.0.0.2",
                "ip,in_port=1,dl_vlan=20,dl_vlan_pcp=3,vlan_tci1=0x0000,dl_src=50:54:00:00:00:05,\
                 dl_dst=ff:ff:ff:ff:ff:ff,nw_src=10.0.0.1,nw_dst=10.0.0.2,nw_proto=0,nw_tos=0,nw_ecn=0,nw_ttl=0,\
                 nw_frag=no",
            ),
            (
                "in_port=1,tcp,nw_ttl=3,nw_tos=4 tcp_flags=syn,tcp_dst=80",
                "tcp,in_port=1,vlan_tci=0x0000,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00,nw_src=0.0.0.0,\
                 nw_dst=0.0.0.0,nw_tos=4,nw_ecn=0,nw_ttl=3,nw_frag=no,tp_src=0,tp_dst=80,tcp_flags=syn",
            ),
            (
                "in_port=1,arp,arp_spa=1.2.3.4,arp_tpa=1.2.3.5",
                "arp,in_port=1,vlan_tci=0x0000,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00,\
                 arp_spa=1.2.3.4,arp_tpa=1.2.3.5,arp_op=0,arp_sha=00:00:00:00:00:00,arp_tha=00:00:00:00:00:00",
            ),
            (
                "in_port=1,icmp6,ipv6_src=fe80::1",
                "icmp6,in_port=1,vlan_tci=0x0000,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00,\
                 ipv6_src=fe80::1,ipv6_dst=::,ipv6_label=0x00000,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,\
                 icmp_type=0,icmp_code=0",
            ),
        ] {
            assert_eq!(describe(&Flow::parse(given).unwrap().frame(), "1").flow, said, "{given}");
        }
    }

    #[test]
    fn the_keys_of_the_datapath_are_the_same_fields() {
        let keys = "in_port(1),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x8100),\
                    vlan(vid=20,pcp=3),encap(eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=6,tos=4,\
                    ttl=64,frag=no),tcp(src=1,dst=2))";
        let words = "in_port=1,dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07,dl_vlan=20,dl_vlan_pcp=3,tcp,\
                     nw_src=10.0.0.1,nw_dst=10.0.0.2,nw_tos=4,nw_ttl=64,tp_src=1,tp_dst=2";
        assert_eq!(Flow::parse_keys(keys), Flow::parse(words));
        for bad in ["br0", "in_port(1", "in_port)1(", "eth(src=zz)", "nonsense(1)", ")"] {
            assert!(Flow::parse_keys(bad).unwrap_err().starts_with("syntax error at"), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_the_words_of_open_vswitch() {
        for (given, said) in [
            ("foo=1", "foo=1: unknown field foo"),
            ("foo", "foo: unknown field foo"),
            ("dl_src=zz", "dl_src=zz: bad value for dl_src (zz: invalid Ethernet address)"),
            ("nw_src=1.2.3.4", "nw_src=1.2.3.4: prerequisites not met for setting nw_src"),
            ("ip,tcp_dst=1", "ip,tcp_dst=1: prerequisites not met for setting tcp_dst"),
        ] {
            assert_eq!(Flow::parse(given), Err(format!("Bad openflow flow syntax: {said}")));
        }
    }

    #[test]
    fn any_text_is_a_flow_or_refused() {
        let good = [
            "in_port=LOCAL,dl_vlan=20,dl_vlan_pcp=3,tcp6,ipv6_src=fe80::1,tcp_flags=syn|ack,nw_tos=0x10",
            "in_port(1),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x8100),vlan(vid=20,pcp=3),\
             encap(eth_type(0x0806),arp(sip=1.2.3.4,op=1))",
        ];
        let strange = ['(', ')', ',', '=', ' ', '\0', '9', 'é', ':'];
        for (good, strange) in good.iter().flat_map(|good| strange.map(|strange| (good, strange))) {
            for at in 0..good.len() {
                for text in [
                    good[..at].to_owned(),
                    format!("{}{strange}{}", &good[..at], &good[at..]),
                    format!("{}{strange}{}", &good[..at], &good[at + 1..]),
                ] {
                    for flow in [Flow::parse(&text), Flow::parse_keys(&text)].into_iter().flatten() {
                        assert!(flow.frame().len() >= 60);
                    }
                }
            }
        }
        assert!(Flow::parse_keys(&"encap(".repeat(100_000)).is_err());
        let closed = "encap(".repeat(5_000) + &")".repeat(5_000);
        assert!(Flow::parse_keys(&closed).is_err());
    }

    #[test]
    fn any_bytes_are_described() {
        assert_eq!(parse_hex("00 ff\n1a"), Some(vec![0, 0xff, 0x1a]));
        assert_eq!(parse_hex("0"), None);
        assert_eq!(parse_hex("0g"), None);
        let whole = Flow::parse("in_port=1,dl_vlan=3,tcp6").unwrap().frame();
        for len in 0..whole.len() {
            assert!(!describe(&whole[..len], "1").flow.is_empty());
        }
        for byte in 0..=255 {
            for ethertype in [0x0800_u16, 0x86dd, 0x0806, 0x8100, 0] {
                let mut frame = vec![byte; 40];
                frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
                assert!(!describe(&frame, "1").megaflow.is_empty());
            }
        }
    }
}
