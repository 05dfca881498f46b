//! A row of table `Bridge`.
//!
//! Not here: its ports and mirrors.

use super::columns::{Columns, short};
use super::port::interface_name;
use crate::config::{BridgeConfig, SnoopingConfig};
use std::time::Duration;
use vswitch_core::{Mac, Vlan};

/// Columns that speak of what is not offered, each with the word for it.
const NOT_OFFERED: [(&str, &str); 6] = [
    ("controller", "OpenFlow controllers are"),
    ("netflow", "NetFlow is"),
    ("sflow", "sFlow is"),
    ("ipfix", "IPFIX is"),
    ("auto_attach", "Auto-Attach is"),
    ("flow_tables", "flow tables are"),
];

/// Reads one. What it cannot carry out and can do without goes to `complain`.
///
/// # Errors
/// Why there can be no such bridge.
pub(super) fn read(
    row: Columns<'_>,
    name: &str,
    vlan_limit: u8,
    complain: &mut impl FnMut(String),
) -> Result<BridgeConfig, String> {
    interface_name(name)?;
    if let Some(kind) = row.text("datapath_type").filter(|kind| !matches!(*kind, "" | "system" | "netdev")) {
        return Err(format!("datapath type {:?} is unknown; netdev and system are offered", short(kind)));
    }
    for (column, what) in NOT_OFFERED {
        if row.says(column) {
            complain(format!("{what} not offered"));
        }
    }
    for column in ["stp_enable", "rstp_enable"] {
        if row.is_true(column) {
            complain(format!("{column}: {}", super::SPANNING_TREE));
        }
    }
    if row.says("protocols") && row.texts("protocols").all(|protocol| protocol != "OpenFlow10") {
        complain("of all protocols only OpenFlow10 is offered".to_owned());
    }
    let config = "other_config";
    let mac = row.option(config, "hwaddr").and_then(|text| {
        let mac = station(text);
        if mac.is_none() {
            complain(format!("other_config:hwaddr {:?} is no station's MAC address", short(text)));
        }
        mac
    });
    let datapath_id = row.option(config, "datapath-id").and_then(|text| {
        let id = datapath_id(text);
        if id.is_none() {
            complain(format!("other_config:datapath-id {:?} is not 16 hexadecimal digits", short(text)));
        }
        id
    });
    Ok(BridgeConfig {
        forward_bpdu: row.flag(config, "forward-bpdu"),
        flood_vlans: row
            .integers("flood_vlans")
            .filter_map(|vlan| u16::try_from(vlan).ok().and_then(Vlan::new))
            .collect(),
        vlan_limit,
        mac_ageing: ageing(row, "mac-aging-time", BridgeConfig::MAC_AGEING),
        mac_limit: limit(row, "mac-table-size", BridgeConfig::MAC_LIMIT),
        fail_secure: row.text("fail_mode") == Some("secure"),
        snooping: row.is_true("mcast_snooping_enable").then(|| snooping(row)),
        mac,
        datapath_id,
        ..BridgeConfig::new(name)
    })
}

fn snooping(row: Columns<'_>) -> SnoopingConfig {
    let default = SnoopingConfig::default();
    SnoopingConfig {
        ageing: ageing(row, "mcast-snooping-aging-time", default.ageing),
        limit: limit(row, "mcast-snooping-table-size", default.limit),
        flood_unregistered: !row.flag("other_config", "mcast-snooping-disable-flood-unregistered"),
    }
}

/// Seconds, 15..=3600, and what is outside as the nearest of these; 0 is the default, as in Open vSwitch.
fn ageing(row: Columns<'_>, key: &str, default: Duration) -> Duration {
    match row.number("other_config", key) {
        None | Some(0) => default,
        Some(seconds) => Duration::from_secs(u64::try_from(seconds.clamp(15, 3600)).unwrap_or(15)),
    }
}

/// Entries, 10..=1,000,000; 0 is the default, and a negative number the most, as in Open vSwitch.
fn limit(row: Columns<'_>, key: &str, default: u32) -> u32 {
    const MOST: u32 = 1_000_000;
    match row.number("other_config", key) {
        None | Some(0) => default,
        Some(entries) => u32::try_from(entries).unwrap_or(MOST).clamp(10, MOST),
    }
}

/// A MAC address that a station may have.
pub(super) fn station(text: &str) -> Option<Mac> {
    text.parse::<Mac>().ok().filter(|mac| !mac.is_group() && !mac.is_zero())
}

fn datapath_id(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.len() != 16 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().filter(|id| *id != 0)
}
