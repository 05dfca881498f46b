//! `options` of an interface of type `vxlan`.
//!
//! Not here: what two tunnels may not have in common (see `mod.rs`).

use super::columns::{Columns, short};
use crate::config::TunnelConfig;
use std::net::IpAddr;
use vswitch_core::Vni;

/// Keys that ovs-monitor-ipsec reads, which ovs-vswitchd passes over without a word.
const IPSEC: [&str; 3] = ["remote_cert", "remote_name", "psk"];

/// Reads one. What it cannot carry out and can do without goes to `complain`.
///
/// # Errors
/// Why there can be no such tunnel, in Open vSwitch's words where it has any: one line for each reason.
pub(super) fn read(
    name: &str,
    interface: Columns<'_>,
    complain: &mut impl FnMut(String),
) -> Result<TunnelConfig, String> {
    let mut wrong = Vec::new();
    let (mut remote, mut local) = (None, None);
    let (mut tos, mut ttl, mut udp_port) = (None, None, TunnelConfig::UDP_PORT);
    let (mut dont_fragment, mut checksum) = (true, false);
    for (key, value) in interface.pairs("options") {
        match key {
            "remote_ip" | "local_ip" => match address(value) {
                Ok(address) if key == "remote_ip" => remote = address,
                Ok(address) => local = address,
                Err(reason) => wrong.push(match reason {
                    Unfit::Flow => format!("{key}=flow is not offered: a tunnel has one remote"),
                    Unfit::Group => format!("multicast {key}={} not allowed", short(value)),
                    Unfit::Bad => format!("bad vxlan '{key}'"),
                }),
            },
            // Each has a default in `key`; see below.
            "key" | "in_key" | "out_key" => {}
            "tos" if value == "inherit" => wrong.push("tos=inherit is not offered".to_owned()),
            "tos" => match number(value).and_then(|tos| u8::try_from(tos).ok()).filter(|tos| tos & 3 == 0) {
                Some(0) => {}
                Some(number) => tos = Some(number),
                None => complain(format!("invalid TOS {}", short(value))),
            },
            "ttl" if value == "inherit" => wrong.push("ttl=inherit is not offered".to_owned()),
            "ttl" => match value.trim().parse::<u8>() {
                Ok(0) => {}
                Ok(number) => ttl = Some(number),
                Err(_) => wrong.push(format!("bad ttl {}; 0..255 is allowed", short(value))),
            },
            "dst_port" => match value.trim().parse::<u16>() {
                Ok(number) if number > 0 => udp_port = number,
                _ => wrong.push(format!("bad dst_port {}; 1..65535 is allowed", short(value))),
            },
            "df_default" => dont_fragment = value != "false",
            "csum" => checksum = value == "true",
            "exts" if value.is_empty() => {}
            "exts" => wrong.push(format!("exts={} is not offered", short(value))),
            "packet_type" if value == "legacy_l2" => {}
            "packet_type" => wrong.push(format!("packet_type={} is not offered", short(value))),
            key if IPSEC.contains(&key) || key.starts_with("ipsec_") => {}
            "egress_pkt_mark" => complain("egress_pkt_mark is not offered".to_owned()),
            key => complain(format!("unknown vxlan argument '{}'", short(key))),
        }
    }
    let mut key = |own: &str| match interface
        .option("options", own)
        .map(|text| (own, text))
        .or_else(|| interface.option("options", "key").map(|text| ("key", text)))
    {
        None => Vni::new(0),
        Some((key, "flow")) => {
            wrong.push(format!("{key}=flow is not offered: a tunnel has one key"));
            None
        }
        Some((key, text)) => {
            let vni = number(text).and_then(|number| u32::try_from(number).ok()).and_then(Vni::new);
            if vni.is_none() {
                wrong.push(format!("bad {key} {}; 0..16777215 is allowed", short(text)));
            }
            vni
        }
    };
    let keys = (key("in_key"), key("out_key"));
    if remote.is_none() && !wrong.iter().any(|reason| reason.contains("remote_ip=")) {
        wrong.push("vxlan type requires valid 'remote_ip' argument".to_owned());
    }
    if let (Some(remote), Some(local)) = (remote, local)
        && remote.is_ipv4() != local.is_ipv4()
    {
        wrong.push("'remote_ip' and 'local_ip' has to be of the same address family".to_owned());
    }
    wrong.dedup();
    match (remote, keys) {
        (Some(remote), (Some(in_key), Some(out_key))) if wrong.is_empty() => {
            Ok(TunnelConfig { remote, local, in_key, out_key, udp_port, tos, ttl, dont_fragment, checksum })
        }
        _ => Err(wrong.iter().map(|reason| format!("{name}: {reason}")).collect::<Vec<_>>().join("\n")),
    }
}

/// Why an address is none for a tunnel.
enum Unfit {
    Flow,
    Group,
    Bad,
}

/// An address of one node; `None` for the one that means any.
fn address(text: &str) -> Result<Option<IpAddr>, Unfit> {
    if text == "flow" {
        return Err(Unfit::Flow);
    }
    let address = text.parse::<IpAddr>().map_err(|_| Unfit::Bad)?.to_canonical();
    if address.is_multicast() {
        return Err(Unfit::Group);
    }
    if address == IpAddr::from([255; 4]) {
        return Err(Unfit::Bad);
    }
    Ok((!address.is_unspecified()).then_some(address))
}

/// A number as C writes it: decimal, 0x hexadecimal, 0 octal.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    // A sign is no digit.
    if digits.starts_with(['+', '-']) { None } else { u64::from_str_radix(digits, radix).ok() }
}
