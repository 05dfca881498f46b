//! The text of the file.
//!
//! Not here: what cannot stand in it (see [`super::unsaid`]).

use crate::config::BridgeConfig;
use serde_json::Value;

/// The order in which a person would say them; others come behind.
const ORDER: &str = "name type vlan_mode tag trunks cvlans qinq_ethtype priority_tags mac mtu ingress_policing_rate \
                     ingress_policing_burst egress_policing_rate egress_policing_burst remote_ip local_ip key in_key \
                     out_key dst_port tos ttl df_default csum";

/// The file of `bridge` with `ports`, each in the words of the file as JSON.
pub(super) fn file(bridge: &BridgeConfig, ports: &[Value]) -> String {
    let mut text =
        format!("# The bridge {} of an Open vSwitch database, by vswitchctl import ovs.\n", bridge.name);
    let plain = BridgeConfig::new(&bridge.name);
    let mut switch = Vec::new();
    if bridge.forward_bpdu {
        switch.push("forward_bpdu = true".to_owned());
    }
    if bridge.flood_vlans != plain.flood_vlans {
        let vlans: Vec<u64> = bridge.flood_vlans.iter().map(|vlan| vlan.get().into()).collect();
        switch.push(format!("flood_vlans = {}", ranges(&vlans)));
    }
    if bridge.vlan_limit != plain.vlan_limit {
        switch.push(format!("vlan_limit = {}", bridge.vlan_limit));
    }
    let mut mac_table = Vec::new();
    if bridge.mac_limit != plain.mac_limit {
        mac_table.push(format!("limit = {}", bridge.mac_limit));
    }
    if bridge.mac_ageing != plain.mac_ageing {
        mac_table.push(format!("ageing = {}", bridge.mac_ageing.as_secs()));
    }
    for (name, lines) in [("switch", switch), ("mac_table", mac_table)] {
        if !lines.is_empty() {
            text += &format!("\n[{name}]\n{}\n", lines.join("\n"));
        }
    }
    for port in ports {
        text.push_str("\n[[port]]\n");
        let mut keys: Vec<_> = port.as_object().into_iter().flatten().collect();
        keys.retain(|(key, _)| says(port, key));
        keys.sort_by_key(|(key, _)| ORDER.split(' ').position(|known| known == *key).unwrap_or(usize::MAX));
        for (key, value) in keys {
            text += &format!("{key} = {}\n", shown(key, value));
        }
    }
    text
}

/// Whether a key says what is not so without it.
fn says(port: &Value, key: &str) -> bool {
    match key {
        "type" => port[key] != "tap",
        "vlan_mode" => port[key] != if port.get("tag").is_some() { "access" } else { "trunk" },
        _ => true,
    }
}

/// A value as TOML; what is a string, a number, true or false in JSON is written alike.
fn shown(key: &str, value: &Value) -> String {
    match value.as_array() {
        Some(items) if matches!(key, "trunks" | "cvlans") => {
            ranges(&items.iter().filter_map(Value::as_u64).collect::<Vec<_>>())
        }
        _ => value.to_string(),
    }
}

/// Rising VLANs as the file lists them, three and more in a row as a range.
fn ranges(vlans: &[u64]) -> String {
    let mut items = Vec::new();
    let mut rest = vlans;
    while let [first, ..] = rest {
        let run = rest.iter().zip(*first..).take_while(|(vlan, expected)| *vlan == expected).count();
        let (these, behind) = rest.split_at(if run > 2 { run } else { 1 });
        match these {
            [.., last] if these.len() > 1 => items.push(format!("\"{first}-{last}\"")),
            _ => items.push(first.to_string()),
        }
        rest = behind;
    }
    format!("[{}]", items.join(", "))
}

/// `text` with what it does not express behind its first line.
pub(super) fn with_comment(text: &str, unsaid: &[String]) -> String {
    if unsaid.is_empty() {
        return text.to_owned();
    }
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let lines: String =
        unsaid.iter().map(|line| format!("#   {}\n", line.replace(|c: char| c.is_control(), " "))).collect();
    format!("{first}\n# Not expressed here:\n{lines}{rest}")
}
