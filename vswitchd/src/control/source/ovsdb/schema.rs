//! Which columns are followed and which are written, as far as a server's schema has them (RFC 7047 §3.2).
//!
//! Not here: what a column means.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Columns that say what is wished, by table.
pub(super) const WISHES: [(&str, &[&str]); 7] = [
    ("Open_vSwitch", &["bridges", "next_cfg", "other_config", "external_ids"]),
    (
        "Bridge",
        &[
            "name",
            "ports",
            "mirrors",
            "fail_mode",
            "controller",
            "datapath_type",
            "flood_vlans",
            "mcast_snooping_enable",
            "stp_enable",
            "rstp_enable",
            "netflow",
            "sflow",
            "ipfix",
            "auto_attach",
            "protocols",
            "flow_tables",
            "other_config",
        ],
    ),
    (
        "Port",
        &[
            "name",
            "interfaces",
            "vlan_mode",
            "tag",
            "trunks",
            "cvlans",
            "protected",
            "qos",
            "bond_mode",
            "lacp",
            "fake_bridge",
            "other_config",
        ],
    ),
    (
        "Interface",
        &[
            "name",
            "type",
            "options",
            "mac",
            "mtu_request",
            "ofport_request",
            "ingress_policing_rate",
            "ingress_policing_burst",
            "ingress_policing_kpkts_rate",
            "ingress_policing_kpkts_burst",
            "cfm_mpid",
            "bfd",
            "lldp",
            "other_config",
        ],
    ),
    (
        "Mirror",
        &[
            "name",
            "select_all",
            "select_src_port",
            "select_dst_port",
            "select_vlan",
            "output_port",
            "output_vlan",
            "snaplen",
            "filter",
        ],
    ),
    ("QoS", &["type", "queues", "other_config"]),
    ("Queue", &["dscp", "other_config"]),
];

/// Columns that say how things are, by table: ours to write.
pub(super) const STATES: [(&str, &[&str]); 4] = [
    (
        "Open_vSwitch",
        &["cur_cfg", "ovs_version", "db_version", "datapath_types", "iface_types", "dpdk_initialized"],
    ),
    ("Bridge", &["datapath_id", "status", "rstp_status"]),
    (
        "Interface",
        &[
            "ofport",
            "error",
            "mac_in_use",
            "ifindex",
            "mtu",
            "admin_state",
            "link_state",
            "link_resets",
            "link_speed",
            "duplex",
            "statistics",
            "status",
        ],
    ),
    ("Mirror", &["statistics"]),
];

/// What a server has of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Schema {
    /// The schema's version.
    pub(super) version: String,
    /// Columns by table, and whether each may hold more than one value: its changes are told as differences.
    tables: BTreeMap<String, BTreeMap<String, bool>>,
}

impl Schema {
    /// Reads the answer to `get_schema`; columns that are not followed are left out.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn read(schema: &Value) -> Result<Self, String> {
        let tables = schema.get("tables").and_then(Value::as_object).ok_or("its schema has no tables")?;
        let mut read = Self {
            version: schema.get("version").and_then(Value::as_str).unwrap_or_default().to_owned(),
            tables: BTreeMap::new(),
        };
        for (table, columns) in WISHES.iter().chain(&STATES) {
            let Some(known) = tables.get(*table).and_then(|table| table.get("columns")) else { continue };
            let kept = read.tables.entry((*table).to_owned()).or_default();
            for column in *columns {
                if let Some(column_schema) = known.get(*column) {
                    kept.insert((*column).to_owned(), holds_many(column_schema));
                }
            }
        }
        if read.tables.contains_key("Open_vSwitch") {
            Ok(read)
        } else {
            Err("it has no table Open_vSwitch".into())
        }
    }

    /// What a monitor asks for.
    pub(super) fn requests(&self) -> Value {
        let request =
            |columns: &BTreeMap<String, bool>| json!([{ "columns": columns.keys().collect::<Vec<_>>() }]);
        let requests: Map<String, Value> =
            self.tables.iter().map(|(table, columns)| (table.clone(), request(columns))).collect();
        requests.into()
    }

    /// Whether the table has the column.
    pub(super) fn has(&self, table: &str, column: &str) -> bool {
        self.tables.get(table).is_some_and(|columns| columns.contains_key(column))
    }

    /// Whether changes of the column are told as what came and what went.
    pub(super) fn holds_many(&self, table: &str, column: &str) -> bool {
        self.tables.get(table).and_then(|columns| columns.get(column)).copied().unwrap_or_default()
    }
}

/// Whether columns of this schema hold more than one value.
fn holds_many(column: &Value) -> bool {
    match column.get("type").and_then(|kind| kind.get("max")) {
        Some(Value::String(_)) => true,
        Some(max) => max.as_u64().is_some_and(|max| max > 1),
        None => false,
    }
}

/// Whether a change of these columns of `table` leaves all wishes as they are.
pub(super) fn is_state<'a>(table: &str, mut columns: impl Iterator<Item = &'a String>) -> bool {
    let ours: BTreeSet<&str> = STATES
        .iter()
        .filter(|(name, _)| *name == table)
        .flat_map(|(_, columns)| columns.iter().copied())
        .collect();
    columns.all(|column| ours.contains(column.as_str()))
}
