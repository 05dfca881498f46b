//! One port in other words: KEY=VALUE of `vswitchctl port add` and `port set`, and JSON of the state file.
//!
//! The keys are those of `[[port]]`, and so are the rules: all becomes a table and is read as one. Not here:
//! any rule.

use super::address::width;
use super::file::{Node, Table, Value, from_json, to_json};
use super::port::{AntiSpoof, Policing, PortConfig, PortKind, VlanMode};
use super::port_rules::{self, PRIORITY_TAGS, QINQ_ETHTYPE};
use super::read::{Report, Section};
use super::{Config, PriorityTags, tunnel_rules};
use std::net::IpAddr;

impl PortConfig {
    /// The port `name` with the given keys and values, as in the file but without quotes and brackets:
    /// `tag=10`, `trunks=10,20,100-199`, `addresses=10.0.0.2/24,fd00::2/64`. `key=` is as good as no key.
    ///
    /// # Errors
    /// What is wrong with them, in one line.
    pub fn from_pairs(name: &str, pairs: &[(String, String)], config: &Config) -> Result<Self, String> {
        let mut table = Table::default();
        table.set("name", Value::String(name.to_owned()));
        change(&mut table, name, pairs)?;
        read(&table, config)
    }

    /// This port with the given keys changed; `key=` unsets one. A `vlan_mode` that only says what tag and
    /// trunks say anyway follows them: `tag=10` makes an access port of a plain trunk.
    ///
    /// # Errors
    /// What is wrong with them, in one line.
    pub fn with_pairs(&self, pairs: &[(String, String)], config: &Config) -> Result<Self, String> {
        let mut table = self.table();
        let implied = if self.tag.is_some() { VlanMode::Access } else { VlanMode::Trunk };
        if self.vlan_mode == implied {
            table.unset("vlan_mode");
        }
        let gives = |wanted: &str| pairs.iter().any(|(key, _)| key == wanted);
        if gives("segment") && !gives("tag") {
            table.unset("tag");
        }
        change(&mut table, &self.name, pairs)?;
        read(&table, config)
    }

    /// The port as JSON: the keys of `[[port]]` that say something, and `type` and `vlan_mode` always.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        to_json(&self.table())
    }

    /// The port that [`Self::to_json`] wrote, by all the rules; null stands for a key that is not there.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn from_json(json: &serde_json::Value, config: &Config) -> Result<Self, String> {
        let table = from_json(json).ok_or("a port is an object in JSON")?;
        read(&table, config)
    }

    /// The port in the words of the file.
    fn table(&self) -> Table {
        let mut table = Table::default();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                table.set(key, value);
            }
        };
        let text = |text: &str| Value::String(text.to_owned());
        let address = |address: &IpAddr| Value::String(address.to_string());
        set("name", Some(text(&self.name)));
        set("type", Some(text(self.kind.as_str())));
        set("node", self.nodes.as_ref().map(|nodes| array(nodes, |node| text(node))));
        set("vlan_mode", Some(text(self.vlan_mode.as_str())));
        set("tag", self.tag.map(number));
        set("trunks", self.trunks.as_ref().map(|vlans| array(vlans, |vlan| number(*vlan))));
        set("cvlans", self.cvlans.as_ref().map(|vlans| array(vlans, |vlan| number(*vlan))));
        if self.vlan_mode == VlanMode::Dot1qTunnel {
            set("qinq_ethtype", word(&QINQ_ETHTYPE, &self.qinq_ethertype));
        }
        if self.priority_tags != PriorityTags::default() {
            set("priority_tags", word(&PRIORITY_TAGS, &self.priority_tags));
        }
        set("netns", self.netns.as_deref().map(text));
        set("ifname", self.ifname.as_deref().map(text));
        set("mac", self.mac.map(|mac| Value::String(mac.to_string())));
        set("mtu", self.mtu.map(number));
        let with_len = |(address, len): &(IpAddr, u8)| Value::String(format!("{address}/{len}"));
        set("addresses", (!self.addresses.is_empty()).then(|| array(&self.addresses, with_len)));
        set("gateway", (!self.gateways.is_empty()).then(|| array(&self.gateways, address)));
        set("offload", self.offload.map(Value::Boolean));
        set("anti_spoof", anti_spoof(&self.anti_spoof));
        let mut police = |keys: [&str; 2], policing: Option<Policing>| {
            set(keys[0], policing.map(|policing| number(policing.rate)));
            let burst = policing.map(|policing| policing.burst).filter(|n| *n != Policing::DEFAULT_BURST);
            set(keys[1], burst.map(number));
        };
        police(["ingress_policing_rate", "ingress_policing_burst"], self.ingress_policing);
        police(["egress_policing_rate", "egress_policing_burst"], self.egress_policing);
        set("split_horizon", self.split_horizon.then_some(Value::Boolean(true)));
        if let PortKind::Vxlan(tunnel) = &self.kind {
            tunnel_rules::write(tunnel, set);
        }
        table
    }
}

fn number(number: impl Into<i64>) -> Value {
    Value::Integer(number.into())
}

fn anti_spoof(anti_spoof: &AntiSpoof) -> Option<Value> {
    match anti_spoof {
        AntiSpoof::Off => None,
        AntiSpoof::Own => Some(Value::Boolean(true)),
        AntiSpoof::These(prefixes) => Some(array(prefixes, |prefix| {
            let is_one = prefix.len == width(prefix.network);
            Value::String(if is_one { prefix.network.to_string() } else { prefix.to_string() })
        })),
    }
}

fn array<T>(items: &[T], value: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.iter().map(|item| Node::from(value(item))).collect())
}

fn word<T: PartialEq>(words: &[(&str, T)], wanted: &T) -> Option<Value> {
    words.iter().find(|(_, meaning)| meaning == wanted).map(|(word, _)| Value::String((*word).to_owned()))
}

fn read(table: &Table, config: &Config) -> Result<PortConfig, String> {
    let report = Report::new();
    let subject = table.text("name").map_or_else(|| "port: ".to_owned(), |name| format!("port {name:?}: "));
    let port = port_rules::read(&Section::new("port", subject, table, None, &report), config);
    report.finish().map_err(|errors| errors.in_one_line())?;
    port.ok_or_else(|| "port: not understood".to_owned())
}

/// Puts the pairs into the table.
fn change(table: &mut Table, name: &str, pairs: &[(String, String)]) -> Result<(), String> {
    for (i, (key, text)) in pairs.iter().enumerate() {
        if key == "name" {
            return Err(format!("port {name:?}: name cannot be changed; add a port of the new name"));
        }
        if pairs[..i].iter().any(|(other, _)| other == key) {
            return Err(format!("port {name:?}: {key} is given twice"));
        }
        match text.trim() {
            "" => table.unset(key),
            text => table.set(key, typed(key, text)),
        }
    }
    Ok(())
}

/// Keys with a number.
const NUMBERS: [&str; 12] = [
    "tag",
    "mtu",
    "ingress_policing_rate",
    "ingress_policing_burst",
    "egress_policing_rate",
    "egress_policing_burst",
    "key",
    "in_key",
    "out_key",
    "dst_port",
    "tos",
    "ttl",
];

/// Keys with true or false.
const FLAGS: [&str; 4] = ["offload", "split_horizon", "df_default", "csum"];

/// What `text` would be in the file behind `key`.
fn typed(key: &str, text: &str) -> Value {
    let integer = |text: &str| text.parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer);
    let items = |of: &dyn Fn(&str) -> Value| {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        Value::Array(bare.split(',').map(|item| Node::from(of(item.trim().trim_matches('"')))).collect())
    };
    match (key, text) {
        (key, _) if NUMBERS.contains(&key) => integer(text),
        ("trunks" | "cvlans", _) => items(&integer),
        ("node" | "addresses" | "gateway", _) => items(&|item| Value::String(item.to_owned())),
        (key, "true" | "false") if key == "anti_spoof" || FLAGS.contains(&key) => {
            Value::Boolean(text == "true")
        }
        ("anti_spoof", _) => items(&|item| Value::String(item.to_owned())),
        _ => Value::String(text.to_owned()),
    }
}
