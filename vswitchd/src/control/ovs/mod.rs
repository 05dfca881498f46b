//! What an Open vSwitch database wishes, beside the file: bridges with numbers, ports with OpenFlow numbers.
//!
//! Not here: how the database is spoken to (see [`super::source::ovsdb`]), and what follows from what runs (see
//! `report.rs`).

mod follow;
mod mirrors;
mod ofports;
mod report;
mod snooping;
mod system;

pub(super) use ofports::OFPP_LOCAL;
pub(super) use report::statistics_of;
pub(super) use system::System;

use super::openflow::FlowTable;
use super::rpc::Failed;
use super::source::ovsdb::{Ovsdb, Wish};
use crate::config::{BridgeConfig, PortConfig};
use crate::datapath::clock;
use crate::slow::SnoopedBridge;
use std::collections::BTreeMap;
use vswitch_core::port::Segment;
use vswitch_core::switch::{Bridge, Snooping};
use vswitch_core::{Instant, Mac, PortId};

/// Everything that control knows of an Open vSwitch database.
#[derive(Debug)]
pub(super) struct Ovs {
    /// What is wished.
    pub(super) wish: Wish,
    /// Bridges that run, by name.
    pub(super) bridges: BTreeMap<String, OvsBridge>,
    /// OpenFlow port numbers by the name of the port (a name is unique over all bridges).
    pub(super) ofports: BTreeMap<String, u16>,
    /// The number given last on each bridge, by name.
    last_ofports: BTreeMap<String, u16>,
    /// The database, if one is followed.
    source: Option<Ovsdb>,
    /// Whether it has not said anything yet.
    awaited: bool,
    /// Whether the bridges are not published as they are wished.
    pub(super) changed: bool,
    /// What was not as it was wished at the last look.
    pub(super) failed: Vec<Failed>,
    /// Interfaces by name: their number in the system, and how often their carrier had changed when they were first
    /// seen.
    carriers: system::Carriers,
    /// What existing interfaces on each bridge have in common, where there are any.
    commons: BTreeMap<String, system::Common>,
    next_report: Instant,
    next_statistics: Instant,
    /// Counters of ports as they were last read.
    statistics: BTreeMap<String, BTreeMap<String, u64>>,
    mirror_numbers: mirrors::Numbers,
    /// What mirrors had copied when that was last read, by bridge and name.
    copied: BTreeMap<(String, String), (u64, u64)>,
    /// Numbers of bridges that are to forget their stations once they are published as they are wished.
    forgetful: Vec<u8>,
    /// Bridges that snoop, as the slow path was last told.
    snooped: Vec<SnoopedBridge>,
}

/// A bridge that runs.
#[derive(Debug)]
pub(super) struct OvsBridge {
    /// Its number in the core, 1..=15; the file's is 0.
    pub(super) number: u8,
    /// What is wished of it.
    pub(super) config: BridgeConfig,
    /// The MAC address of its LOCAL port: known once interfaces were looked at.
    pub(super) mac: Mac,
    /// Its datapath id: known with that.
    pub(super) datapath_id: u64,
    /// Its flows.
    pub(super) flows: FlowTable,
}

impl Default for Ovs {
    fn default() -> Self {
        Self {
            wish: Wish::default(),
            bridges: BTreeMap::new(),
            ofports: BTreeMap::new(),
            last_ofports: BTreeMap::new(),
            source: None,
            awaited: false,
            changed: false,
            failed: Vec::new(),
            carriers: BTreeMap::new(),
            commons: BTreeMap::new(),
            next_report: Instant::ZERO,
            next_statistics: Instant::ZERO,
            statistics: BTreeMap::new(),
            mirror_numbers: mirrors::Numbers::default(),
            copied: BTreeMap::new(),
            forgetful: Vec::new(),
            snooped: Vec::new(),
        }
    }
}

impl Ovs {
    /// Whether there is a database.
    pub(super) const fn is_followed(&self) -> bool {
        self.source.is_some()
    }

    /// The number of the bridge that `port` belongs to; `None` while that is not there.
    pub(super) fn bridge_of(&self, port: &PortConfig) -> Option<u8> {
        match &port.bridge {
            None => Some(0),
            Some(name) => self.bridges.get(name).map(|bridge| bridge.number),
        }
    }

    /// The MTU of internal ports of `bridge` of which nothing is said: the least of its existing interfaces, as Open
    /// vSwitch has it.
    pub(super) fn mtu_of(&self, bridge: &str) -> u16 {
        self.commons.get(bridge).and_then(|common| common.mtu).unwrap_or(1500)
    }

    /// The bridges as the core takes them, by number, the file's, 0, as one of which nothing is said; `id_of` knows the
    /// ports that run.
    pub(super) fn core_bridges(&self, id_of: impl Fn(&str) -> Option<PortId>) -> Vec<Bridge> {
        let count = self.bridges.values().map(|bridge| usize::from(bridge.number) + 1).max().unwrap_or(1);
        let mut bridges = vec![Bridge::default(); count];
        for (name, bridge) in &self.bridges {
            let config = &bridge.config;
            let numbers: BTreeMap<u16, &str> = if bridge.flows.is_plain() {
                BTreeMap::new()
            } else {
                let of_bridge =
                    self.wish.ports.iter().filter(|port| port.bridge.as_deref() == Some(name.as_str()));
                of_bridge
                    .filter_map(|port| Some((*self.ofports.get(&port.name)?, port.name.as_str())))
                    .collect()
            };
            bridges[usize::from(bridge.number)] = Bridge {
                forward_bpdu: config.forward_bpdu,
                keeps_vendor_protocols: true,
                flood_vlans: config.flood_vlans.clone(),
                vlan_limit: if config.vlan_limit == 1 { 1 } else { 2 },
                rules: bridge.flows.rules(|number| id_of(numbers.get(&number)?)),
                mirrors: self.core_mirrors(name, &id_of),
                snooping: config
                    .snooping
                    .as_ref()
                    .map(|wished| Snooping { flood_unregistered: wished.flood_unregistered }),
                ..Bridge::default()
            };
        }
        bridges
    }

    /// Takes `wish` as what is wished from now on; whether bridges, mirrors or numbers of ports changed.
    pub(super) fn take(&mut self, wish: Wish) -> bool {
        let mirrors = std::mem::replace(&mut self.wish, wish).mirrors;
        let before: Vec<_> = self.bridges.iter().map(|(name, b)| (name.clone(), b.config.clone())).collect();
        self.bridges.retain(|name, _| self.wish.bridges.iter().any(|bridge| bridge.name == *name));
        for config in &self.wish.bridges {
            if let Some(bridge) = self.bridges.get_mut(&config.name) {
                if bridge.config.flood_vlans != config.flood_vlans {
                    self.forgetful.push(bridge.number);
                }
                bridge.config = config.clone();
                bridge.flows.set_fail_secure(config.fail_secure, clock::now());
                continue;
            }
            let taken = |number: u8| self.bridges.values().any(|bridge| bridge.number == number);
            let Some(number) = (1..Segment::BRIDGES).find(|number| !taken(*number)) else { continue };
            let bridge = OvsBridge {
                number,
                config: config.clone(),
                mac: Mac::from_u64(0),
                datapath_id: 0,
                flows: FlowTable::new(number, config.fail_secure, clock::now()),
            };
            self.bridges.insert(config.name.clone(), bridge);
        }
        let numbers = self.ofports.clone();
        self.number_ports();
        self.number_mirrors();
        let now = self.bridges.iter().map(|(name, bridge)| (name, &bridge.config));
        // Flows name ports by their numbers.
        let renumbered = numbers != self.ofports;
        renumbered
            || mirrors != self.wish.mirrors
            || !before.iter().map(|(name, config)| (name, config)).eq(now)
    }
}
