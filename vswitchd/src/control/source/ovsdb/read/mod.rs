//! Rows become wishes: what ovs-vswitchd.conf.db(5) says a database means, with its ranges, defaults and words.
//!
//! Pure: the same rows make the same wish. One row that is wrong costs nothing but itself. Not here: where rows come
//! from (see `session.rs`), and what is written back (see `write.rs`).

mod bridge;
mod columns;
mod mirror;
mod port;
mod tunnel;

#[cfg(test)]
mod tests;

use super::replica::{Database, Uuid};
use super::words::{OfportWish, Wish};
use crate::config::{PortConfig, PortKind};
use port::Rows;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use vswitch_core::Vni;
use vswitch_core::port::Segment;

pub(crate) use columns::{Columns, short};

/// What is said of STP and RSTP.
pub(super) const SPANNING_TREE: &str = "spanning tree protocols are not offered";
/// Bridges of a database: all the numbers the core has but the file's.
const MAX_BRIDGES: usize = Segment::BRIDGES as usize - 1;
/// The most complaints of one wish.
const MAX_COMPLAINTS: usize = 256;
/// The largest OpenFlow port number of a port that is not LOCAL.
const MAX_OFPORT: u16 = 0xfeff;
/// The default of `stats-update-interval`, and its least: milliseconds.
const STATS_INTERVAL_MS: u64 = 5000;

/// What `database` wishes.
#[must_use]
pub fn read(database: &Database) -> Wish {
    let mut reader = Reader::new(database);
    let Some((uuid, system)) = database.system() else {
        return reader.finish();
    };
    let system = Columns::new(system);
    reader.wish.system = uuid.to_string();
    reader.wish.next_cfg = system.integer("next_cfg").unwrap_or_default();
    if let Some(wanted) = system.option("other_config", "stats-update-interval") {
        let wanted = wanted.trim().parse().unwrap_or(STATS_INTERVAL_MS);
        reader.wish.stats_interval_ms = wanted.clamp(STATS_INTERVAL_MS, u64::from(u32::MAX));
    }
    let vlan_limit = match system.number("other_config", "vlan-limit") {
        None | Some(1) => 1,
        Some(2..) => 2,
        Some(_) => 0,
    };
    let bridges = reader.bridges(system, vlan_limit);
    for (name, row) in &bridges {
        reader.ports(name, *row);
    }
    reader.refuse_twins();
    for (name, row) in &bridges {
        reader.mirrors(name, *row);
    }
    reader.finish()
}

struct Reader<'a> {
    database: &'a Database,
    wish: Wish,
    /// By name.
    ports: BTreeMap<&'a str, PortConfig>,
    /// Rows of table `Port`, and which port each is.
    names: BTreeMap<&'a Uuid, &'a str>,
    /// Complaints beyond the most.
    more: usize,
}

impl<'a> Reader<'a> {
    fn new(database: &'a Database) -> Self {
        let wish = Wish { stats_interval_ms: STATS_INTERVAL_MS, ..Wish::default() };
        Self { database, wish, ports: BTreeMap::new(), names: BTreeMap::new(), more: 0 }
    }

    fn complain(&mut self, sentence: String) {
        if self.wish.complaints.len() < MAX_COMPLAINTS {
            self.wish.complaints.push(sentence);
        } else {
            self.more += 1;
        }
    }

    /// The rows of `table` that `column` of `row` refers to, by name.
    fn referred(&self, row: Columns<'a>, column: &str, table: &str) -> Vec<(&'a str, &'a Uuid, Columns<'a>)> {
        let mut rows: Vec<_> = row
            .references(column)
            .filter_map(|uuid| Columns::of(self.database, table, uuid).map(|row| (uuid, row)))
            .map(|(uuid, row)| (row.text("name").unwrap_or_default(), uuid, row))
            .collect();
        rows.sort_unstable_by_key(|(name, uuid, _)| (*name, *uuid));
        rows.dedup_by_key(|(_, uuid, _)| *uuid);
        rows
    }

    /// The bridges that there can be, by name. Those that run come before others where there are too many: they are
    /// known by the datapath id that was written to them.
    fn bridges(&mut self, system: Columns<'a>, vlan_limit: u8) -> BTreeMap<&'a str, Columns<'a>> {
        let mut rows = self.referred(system, "bridges", "Bridge");
        rows.sort_by_key(|(name, _, row)| (!row.says("datapath_id"), *name));
        let mut good = BTreeMap::new();
        for (name, _, row) in rows {
            let mut said = Vec::new();
            let read = if good.contains_key(name) {
                Err(format!("{name}: another bridge has this name"))
            } else if good.len() == MAX_BRIDGES {
                Err(format!("no more than {MAX_BRIDGES} bridges are offered"))
            } else {
                bridge::read(row, name, vlan_limit, &mut |sentence| said.push(sentence))
            };
            let shown = short(name);
            said.into_iter().for_each(|sentence| self.complain(format!("bridge {shown}: {sentence}")));
            match read {
                Ok(config) => {
                    self.wish.bridges.push(config);
                    good.insert(name, row);
                }
                Err(reason) => {
                    let reason = format!("bridge {shown} cannot be had: {reason}");
                    self.refuse_ports(row, &reason);
                    self.complain(reason);
                }
            }
        }
        self.wish.bridges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        good
    }

    /// Every interface of a bridge that there cannot be.
    fn refuse_ports(&mut self, bridge: Columns<'a>, reason: &str) {
        for (_, _, port) in self.referred(bridge, "ports", "Port") {
            for (name, ..) in self.referred(port, "interfaces", "Interface") {
                self.refuse(name, reason.to_owned());
            }
        }
    }

    fn refuse(&mut self, name: &str, reason: String) {
        if !self.ports.contains_key(name) {
            self.wish.refused.entry(name.to_owned()).or_insert(reason);
        }
    }

    /// The ports of `bridge`, its LOCAL among them.
    fn ports(&mut self, bridge: &'a str, row: Columns<'a>) {
        for (_, uuid, port) in self.referred(row, "ports", "Port") {
            let interfaces = self.referred(port, "interfaces", "Interface");
            if interfaces.len() > 1 {
                for (name, ..) in &interfaces {
                    self.refuse(name, format!("{}: bonds are not offered", short(name)));
                }
                continue;
            }
            if let Some((name, _, interface)) = interfaces.first() {
                let qos = port.references("qos").next();
                let qos = qos.and_then(|uuid| Columns::of(self.database, "QoS", uuid));
                let is_local = *name == bridge;
                self.port(bridge, uuid, Rows { name, port, interface: *interface, qos, is_local });
            }
        }
        if !self.ports.contains_key(bridge) {
            // One that is wished otherwise than can be had carries nothing.
            let trunks = self.wish.refused.contains_key(bridge).then(Vec::new);
            let local = PortConfig { trunks, ..PortConfig::of_bridge(bridge, bridge, PortKind::Internal) };
            self.ports.insert(bridge, local);
        }
        let mac = self.wish.bridges.iter().find(|config| config.name == bridge).and_then(|config| config.mac);
        if let Some(local) = self.ports.get_mut(bridge) {
            local.mac = mac;
        }
    }

    fn port(&mut self, bridge: &'a str, uuid: &'a Uuid, rows: Rows<'a>) {
        let name = rows.name;
        let shown = short(name);
        let is_another_local = !rows.is_local && self.wish.bridges.iter().any(|config| config.name == name);
        if is_another_local || self.ports.contains_key(name) {
            self.complain(format!("bridge {bridge}: another bridge or port has the name {shown}"));
            return;
        }
        let mut said = Vec::new();
        let read = port::read(rows, bridge, &mut |sentence| said.push(sentence));
        said.into_iter().for_each(|sentence| self.complain(format!("port {shown}: {sentence}")));
        match read {
            Ok(config) => {
                self.names.insert(uuid, name);
                self.wish.refused.remove(name);
                let number = |column| {
                    let number = u16::try_from(rows.interface.integer(column)?).ok()?;
                    (1..=MAX_OFPORT).contains(&number).then_some(number)
                };
                let wish = OfportWish { request: number("ofport_request"), before: number("ofport") };
                if !rows.is_local && wish != OfportWish::default() {
                    self.wish.ofports.insert(name.to_owned(), wish);
                }
                self.ports.insert(name, config);
            }
            Err(reason) => self.refuse(name, reason),
        }
    }

    /// Of tunnels that the same datagrams would belong to, one is had: one that runs (it has a number) rather than
    /// another, and the first by name among equals.
    fn refuse_twins(&mut self) {
        let mut tunnels: Vec<(bool, &'a str, Ends)> = Vec::new();
        for (name, port) in &self.ports {
            if let PortKind::Vxlan(tunnel) = &port.kind {
                let runs = self.wish.ofports.get(*name).is_some_and(|wish| wish.before.is_some());
                tunnels.push((!runs, *name, (tunnel.remote, tunnel.local, tunnel.udp_port, tunnel.in_key)));
            }
        }
        tunnels.sort_unstable_by_key(|(is_new, name, _)| (*is_new, *name));
        let mut taken: BTreeSet<Ends> = BTreeSet::new();
        for (_, name, ends) in tunnels {
            if !taken.insert(ends) {
                self.ports.remove(name);
                self.wish.ofports.remove(name);
                self.refuse(name, format!("could not add network device {name} to ofproto (File exists)"));
            }
        }
    }

    fn mirrors(&mut self, bridge: &str, row: Columns<'a>) {
        for (_, _, row) in self.referred(row, "mirrors", "Mirror") {
            let mut said = Vec::new();
            let port_named = |uuid: &Uuid| {
                let name = self.names.get(uuid).copied()?;
                let port = self.ports.get(name)?;
                (port.bridge.as_deref() == Some(bridge)).then_some(name)
            };
            let mirror = mirror::read(row, bridge, port_named, &mut |sentence| said.push(sentence));
            self.wish.mirrors.extend(mirror);
            said.into_iter().for_each(|sentence| self.complain(format!("bridge {bridge}: {sentence}")));
        }
    }

    fn finish(mut self) -> Wish {
        self.wish.ports = self.ports.into_values().collect();
        if self.more > 0 {
            self.wish.complaints.push(format!("{} more complaints", self.more));
        }
        self.wish
    }
}

/// What tells whose a datagram is: remote and local address, UDP port, VNI.
type Ends = (IpAddr, Option<IpAddr>, u16, Vni);
