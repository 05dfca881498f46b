//! What a database says of a bridge that the file has no words for: every column that says something and is neither
//! in the file nor a report of how things are.
//!
//! Not here: what is in the file.

use crate::config::PortKind;
use crate::control::source::ovsdb::{Atom, Columns, Database, Datum, Wish, short};
use std::collections::{BTreeMap, BTreeSet};

/// Columns of a table that are expressed, or told otherwise, or only report how things are; and keys of its maps that
/// are expressed.
struct Known {
    columns: &'static str,
    keys: &'static [(&'static str, &'static str)],
}

const SYSTEM: Known = Known {
    columns: "bridges next_cfg cur_cfg ovs_version db_version system_type system_version datapath_types iface_types \
              dpdk_initialized dpdk_version statistics datapaths",
    keys: &[("other_config", "vlan-limit")],
};

const BRIDGE: Known = Known {
    columns: "name ports mirrors flood_vlans datapath_id datapath_type datapath_version status rstp_status controller \
              netflow sflow ipfix auto_attach flow_tables fail_mode stp_enable rstp_enable",
    keys: &[("other_config", "forward-bpdu mac-aging-time mac-table-size hwaddr")],
};

const PORT: Known = Known {
    columns: "name interfaces tag trunks cvlans vlan_mode qos lacp status rstp_status rstp_statistics statistics \
              bond_active_slave",
    keys: &[("other_config", "priority-tags qinq-ethtype")],
};

const INTERFACE: Known = Known {
    columns: "name type mtu_request ingress_policing_rate ingress_policing_burst ingress_policing_kpkts_rate \
              ingress_policing_kpkts_burst cfm_mpid mac_in_use ifindex ofport bfd_status cfm_flap_count cfm_fault \
              cfm_fault_status cfm_remote_mpids cfm_remote_opstate cfm_health lacp_current statistics status \
              admin_state link_state link_resets link_speed duplex mtu error",
    keys: &[("bfd", "enable"), ("lldp", "enable")],
};

fn has(words: &str, word: &str) -> bool {
    words.split(' ').any(|known| known == word)
}

/// The lines, those of the bridge first. `lost` are ports of it that cannot stand in the file, each with the reason.
pub(super) fn list(database: &Database, wish: &Wish, bridge: &str, lost: &[(String, String)]) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(system) = database.system().map(|(_, row)| Columns::new(row)) else { return lines };
    let bridges = || system.references("bridges").filter_map(|uuid| Columns::of(database, "Bridge", uuid));
    let Some(row) = bridges().find(|row| row.text("name") == Some(bridge)) else { return lines };

    let mut lost: BTreeMap<&str, &str> =
        lost.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
    lost.extend(wish.refused.iter().map(|(name, why)| (name.as_str(), why.as_str())));
    let by_name = |row: Columns<'_>| row.text("name").unwrap_or_default().to_owned();
    let mut ports: Vec<_> =
        row.references("ports").filter_map(|uuid| Columns::of(database, "Port", uuid)).collect();
    ports.sort_by_key(|port| by_name(*port));

    let kinds: BTreeMap<&str, &PortKind> =
        wish.ports.iter().map(|port| (port.name.as_str(), &port.kind)).collect();

    lines.extend(told(wish, "bridge", bridge));
    if row.text("fail_mode") == Some("secure") {
        lines.push(format!("bridge {bridge}: fail_mode=secure"));
    }
    lines.extend(columns(row, &format!("bridge {bridge}"), &BRIDGE, |_, _| true));
    for mirror in wish.mirrors.iter().filter(|mirror| mirror.bridge == bridge) {
        lines.push(format!("mirror {}: the file has no mirrors", mirror.name));
    }
    for port in ports {
        let interfaces = port.references("interfaces");
        let mut interfaces: Vec<_> =
            interfaces.filter_map(|uuid| Columns::of(database, "Interface", uuid)).collect();
        interfaces.sort_by_key(|interface| by_name(*interface));
        let mut whole = false;
        for interface in interfaces {
            let name = interface.text("name").unwrap_or_default();
            if let Some(reason) = lost.get(name) {
                lines.push(format!("port {}: left out: {}", short(name), reason.replace('\n', "; ")));
                continue;
            }
            whole = true;
            lines.extend(told(wish, "port", name));
            lines.extend(interface_columns(kinds.get(name).copied(), name, interface));
        }
        if whole {
            lines.extend(columns(port, &format!("port {}", short(&by_name(port))), &PORT, |_, _| true));
        }
    }
    let others: BTreeSet<String> = bridges().map(by_name).filter(|name| name != bridge).collect();
    for other in others {
        lines.push(format!(
            "bridge {}: a file has one bridge; --bridge makes a file of this one",
            short(&other)
        ));
    }
    lines.extend(columns(system, "Open_vSwitch", &SYSTEM, |_, _| true));
    lines
}

/// What reading the rows complained of.
fn told(wish: &Wish, kind: &str, name: &str) -> Vec<String> {
    let begin = format!("{kind} {}: ", short(name));
    wish.complaints.iter().filter(|said| said.starts_with(&begin)).cloned().collect()
}

fn interface_columns(kind: Option<&PortKind>, name: &str, interface: Columns<'_>) -> Vec<String> {
    columns(interface, &format!("interface {}", short(name)), &INTERFACE, |column, key| {
        match (kind, column, key) {
            (Some(PortKind::Internal), "mac", _) => false,
            // Of a tunnel's options all others are expressed or were told.
            (Some(PortKind::Vxlan(_)), "options", Some(key)) => {
                key.starts_with("ipsec_") || has("psk remote_cert remote_name", key)
            }
            _ => true,
        }
    })
}

/// The columns of `row`, and the keys of those that are maps, that say something, are not known and that `counts`
/// does not pass over: a line each.
fn columns(
    row: Columns<'_>,
    label: &str,
    known: &Known,
    counts: impl Fn(&str, Option<&str>) -> bool,
) -> Vec<String> {
    let mut lines = Vec::new();
    let unknown = |column: &str| !column.starts_with('_') && !has(known.columns, column);
    for (column, datum) in row.all().filter(|(column, datum)| unknown(column) && says(datum)) {
        let Some(values) = &datum.values else {
            if counts(column, None) {
                let values: Vec<String> = datum.keys.iter().map(shown).collect();
                lines.push(format!("{label}: {column}={}", short(&values.join(","))));
            }
            continue;
        };
        let keys = known.keys.iter().find(|(name, _)| *name == column).map_or("", |(_, keys)| keys);
        for (key, value) in datum.keys.iter().zip(values) {
            let key = shown(key);
            if !has(keys, &key) && counts(column, Some(&key)) {
                // Somebody's secret does not belong into a file that everybody may read.
                let value = if key == "psk" { "…".to_owned() } else { shown(value) };
                lines.push(format!("{label}: {column}:{}={}", short(&key), short(&value)));
            }
        }
    }
    lines
}

/// Whether a column holds anything but what a new row holds.
fn says(datum: &Datum) -> bool {
    match datum.keys.as_slice() {
        [] => false,
        [Atom::String(text)] if datum.values.is_none() => !text.is_empty(),
        [Atom::Integer(0) | Atom::Boolean(false)] if datum.values.is_none() => false,
        _ => true,
    }
}

fn shown(atom: &Atom) -> String {
    match atom {
        Atom::Integer(number) => number.to_string(),
        Atom::Real(number) => number.to_string(),
        Atom::Boolean(value) => value.to_string(),
        Atom::String(text) => text.clone(),
        Atom::Uuid(uuid) => uuid.to_string(),
    }
}
