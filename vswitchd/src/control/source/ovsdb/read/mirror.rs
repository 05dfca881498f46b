//! A row of table `Mirror`.
//!
//! Not here: how copies are made.

use super::super::replica::Uuid;
use super::columns::{Columns, short};
use crate::config::{MirrorConfig, MirrorOutput};
use vswitch_core::Vlan;

/// Reads a mirror of `bridge`; `port_named` says which port of that bridge a row of table `Port` is. What cannot be
/// carried out goes to `complain`; `None` where that is all of it.
pub(super) fn read<'a>(
    row: Columns<'_>,
    bridge: &str,
    port_named: impl Fn(&Uuid) -> Option<&'a str>,
    complain: &mut impl FnMut(String),
) -> Option<MirrorConfig> {
    let name = short(row.text("name").unwrap_or_default()).into_owned();
    let output = match (row.references("output_port").next(), row.integer("output_vlan")) {
        (Some(port), vlan) => {
            if vlan.is_some() {
                complain(format!("mirror {name}: output_vlan has no meaning beside output_port"));
            }
            let Some(port) = port_named(port) else {
                complain(format!("mirror {name}: output_port is no port of the bridge"));
                return None;
            };
            MirrorOutput::Port(port.to_owned())
        }
        (None, Some(number)) => {
            let vlan = u16::try_from(number).ok().filter(|vlan| *vlan > 0).and_then(Vlan::new);
            let Some(vlan) = vlan else {
                complain(format!("mirror {name}: output_vlan {number} is not a VLAN; 1..4094 is allowed"));
                return None;
            };
            MirrorOutput::Vlan(vlan)
        }
        (None, None) => {
            complain(format!("mirror {name}: neither output_port nor output_vlan is given"));
            return None;
        }
    };
    let mut ports = |column: &str| -> Vec<String> {
        let mut names = Vec::new();
        for port in row.references(column) {
            match port_named(port) {
                Some(port) => names.push(port.to_owned()),
                None => complain(format!("mirror {name}: one of {column} is no port of the bridge")),
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    };
    let (sources, destinations) = (ports("select_src_port"), ports("select_dst_port"));
    let vlans = row.says("select_vlan").then(|| {
        row.integers("select_vlan").filter_map(|vlan| u16::try_from(vlan).ok().and_then(Vlan::new)).collect()
    });
    if row.says("filter") {
        complain(format!("mirror {name}: filter is not offered"));
    }
    Some(MirrorConfig {
        bridge: bridge.to_owned(),
        select_all: row.is_true("select_all"),
        sources,
        destinations,
        vlans,
        output,
        snaplen: row.integer("snaplen").and_then(|bytes| u16::try_from(bytes).ok()).filter(|n| *n >= 14),
        name,
    })
}
