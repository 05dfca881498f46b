//! The rules by which the keys of a `[[port]]` of type "vxlan" are read, and in which they are written.
//!
//! The words are Open vSwitch's `options`. Not here: what else a port says.

use super::bridge::TunnelConfig;
use super::file::Value;
use super::read::{Field, Section};
use std::net::IpAddr;
use vswitch_core::Vni;

/// The largest VNI: 24 bits (RFC 7348 §5).
const MAX_VNI: u32 = (1 << 24) - 1;

/// Keys of a tunnel and of no other port.
const KEYS: [&str; 10] =
    ["remote_ip", "local_ip", "key", "in_key", "out_key", "dst_port", "tos", "ttl", "df_default", "csum"];

/// Refuses what only a tunnel may say, of a port that is none; these keys are hereby known.
pub(super) fn refuse(section: &Section<'_>, kind: &str) {
    for key in KEYS {
        if let Some(field) = section.get(key) {
            let _: Option<()> =
                field.refuse(format!("has no meaning with type {kind:?}; \"vxlan\" is expected beside it"));
        }
    }
}

/// Reads a tunnel; `None` when something is wrong, which is then in the report.
pub(super) fn read(section: &Section<'_>) -> Option<TunnelConfig> {
    let remote = section.need("remote_ip").and_then(|field| address(&field));
    let local_field = section.get("local_ip");
    let local = local_field.and_then(|field| address(&field));
    if let (Some(remote), Some(local), Some(field)) = (remote, local, local_field)
        && remote.is_ipv4() != local.is_ipv4()
    {
        let _: Option<()> =
            field.refuse(format!("and remote_ip {:?} are not of one family", remote.to_string()));
    }
    let key = |name| section.get(name).map(|field| field.number(0..=MAX_VNI)).map(|n| n.and_then(Vni::new));
    let (both, in_key, out_key) = (key("key"), key("in_key"), key("out_key"));
    let default = both.unwrap_or_else(|| Vni::new(0));
    let udp_port = section.get("dst_port").map_or(Some(TunnelConfig::UDP_PORT), |f| f.number(1..=u16::MAX));
    let tos = section.get("tos").and_then(|field| match field.number(0..=252u8)? {
        number if number & 3 == 0 => Some(number),
        _ => field.refuse(
            "has one of its two lowest bits set, which are ECN's (RFC 3168); multiples of 4 are allowed",
        ),
    });
    let ttl = section.get("ttl").and_then(|field| field.number(1..=u8::MAX));
    let dont_fragment = section.get("df_default").and_then(|field| field.boolean());
    let checksum = section.get("csum").and_then(|field| field.boolean());
    Some(TunnelConfig {
        remote: remote?,
        local,
        in_key: in_key.unwrap_or(default)?,
        out_key: out_key.unwrap_or(default)?,
        udp_port: udp_port?,
        tos: tos.filter(|tos| *tos > 0),
        ttl,
        dont_fragment: dont_fragment.unwrap_or(true),
        checksum: checksum.unwrap_or_default(),
    })
}

fn address(field: &Field<'_>) -> Option<IpAddr> {
    let Ok(address) = field.text()?.parse::<IpAddr>() else {
        return field.refuse("is not an address, like \"192.168.65.116\"");
    };
    let address = address.to_canonical();
    if address.is_multicast() || address.is_unspecified() || address == IpAddr::from([255; 4]) {
        return field.refuse("is no node's address");
    }
    Some(address)
}

/// The tunnel in the words of the file: the keys that say something.
pub(super) fn write(tunnel: &TunnelConfig, mut set: impl FnMut(&str, Option<Value>)) {
    let text = |address: IpAddr| Value::String(address.to_string());
    let number = |number: u32| Value::Integer(number.into());
    let (in_key, out_key) = (tunnel.in_key.get(), tunnel.out_key.get());
    set("remote_ip", Some(text(tunnel.remote)));
    set("local_ip", tunnel.local.map(text));
    set("key", (in_key == out_key && in_key > 0).then(|| number(in_key)));
    set("in_key", (in_key != out_key).then(|| number(in_key)));
    set("out_key", (in_key != out_key).then(|| number(out_key)));
    let udp_port = Some(tunnel.udp_port).filter(|port| *port != TunnelConfig::UDP_PORT);
    set("dst_port", udp_port.map(|port| number(port.into())));
    set("tos", tunnel.tos.map(|tos| number(tos.into())));
    set("ttl", tunnel.ttl.map(|ttl| number(ttl.into())));
    set("df_default", (!tunnel.dont_fragment).then_some(Value::Boolean(false)));
    set("csum", tunnel.checksum.then_some(Value::Boolean(true)));
}
