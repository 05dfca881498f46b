//! The interfaces of the operating system that the database's bridges have: how they are, and what follows from them for
//! the bridges' own ports.
//!
//! Not here: opening them.

use super::super::daemon::Control;
use super::super::source::ovsdb::{InterfaceReport, Wish};
use crate::config::{MAX_MTU, MIN_MTU, PortConfig, PortKind};
use crate::observe::log;
use crate::sys::ethtool::Ethtool;
use crate::sys::netlink::{Facts, Netlink};
use std::collections::{BTreeMap, HashMap};
use vswitch_core::Mac;

/// Interfaces by name: their number in the system, and how often their carrier had changed.
pub(super) type Carriers = BTreeMap<String, (u32, u64)>;

/// The interfaces of the operating system, as they are at one moment.
#[derive(Debug)]
pub(in super::super) struct System {
    facts: HashMap<String, Facts>,
    drivers: Option<Ethtool>,
}

impl System {
    pub(in super::super) fn look() -> Self {
        let facts = Netlink::open().and_then(|mut netlink| netlink.all_facts()).unwrap_or_else(|error| {
            log::limited(log::Level::Warn, "facts", "interfaces not looked at", &[("reason", &error)]);
            Vec::new()
        });
        let facts = facts.into_iter().map(|facts| (facts.name.clone(), facts)).collect();
        Self { facts, drivers: Ethtool::open().ok() }
    }

    /// What is to be said of the interface called `name`; nothing of one that was moved away.
    pub(super) fn tell(&self, name: &str, carriers: &Carriers, report: &mut InterfaceReport) {
        let Some(facts) = self.facts.get(name) else { return };
        report.mac = facts.mac.or(report.mac);
        (report.mtu, report.ifindex) = (Some(facts.mtu), Some(facts.index));
        (report.admin_up, report.link_up) = (Some(facts.up), Some(facts.carrier));
        let before = carriers.get(name).map_or(0, |(_, changes)| *changes);
        report.link_resets = Some(facts.carrier_changes.saturating_sub(before));
        let Some(drivers) = &self.drivers else { return };
        if let Ok(wire) = drivers.wire(name) {
            report.link_speed = wire.mbits.map(|mbits| u64::from(mbits) * 1_000_000);
            report.full_duplex = wire.full_duplex;
        }
        if let Ok(driver) = drivers.driver(name) {
            report.status.extend([
                ("driver_name".to_owned(), driver.name),
                ("driver_version".to_owned(), driver.version),
                ("firmware_version".to_owned(), driver.firmware),
            ]);
        }
    }

    /// Whether the interface of `port` is there with another MTU than is asked for.
    pub(super) fn has_another_mtu(&self, port: &PortConfig) -> bool {
        let facts = self.facts.get(&port.name).filter(|_| port.has_interface());
        facts.zip(port.mtu).is_some_and(|(facts, wished)| facts.mtu != u32::from(wished))
    }

    /// How often the carriers of `ports` had changed when they were first seen, `before` or now.
    pub(super) fn carriers(&self, ports: &[PortConfig], before: &Carriers) -> Carriers {
        let of = |port: &PortConfig| {
            let facts = self.facts.get(&port.name).filter(|_| port.has_interface())?;
            let known = before.get(&port.name).filter(|(index, _)| *index == facts.index);
            Some((port.name.clone(), known.copied().unwrap_or((facts.index, facts.carrier_changes))))
        };
        ports.iter().filter_map(of).collect()
    }

    /// What the existing interfaces on each bridge have in common.
    fn commons(&self, ports: &[PortConfig]) -> BTreeMap<String, Common> {
        let mut commons: BTreeMap<String, Common> = BTreeMap::new();
        for port in ports.iter().filter(|port| port.kind == PortKind::System) {
            let (Some(bridge), Some(facts)) = (&port.bridge, self.facts.get(&port.name)) else { continue };
            let common = commons.entry(bridge.clone()).or_default();
            // Internal ports are TAPs.
            let mtu = u16::try_from(facts.mtu).unwrap_or(MAX_MTU).clamp(MIN_MTU, MAX_MTU);
            common.mtu = Some(common.mtu.map_or(mtu, |least| least.min(mtu)));
            let is_usable = |mac: &Mac| !mac.is_group() && !mac.is_local() && !mac.is_zero();
            if let Some(mac) = facts.mac.filter(is_usable) {
                common.mac = Some(common.mac.map_or(mac, |least| least.min(mac)));
            }
        }
        commons
    }
}

/// What the internal ports of a bridge take from its existing interfaces, as Open vSwitch has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Common {
    /// The least MTU.
    pub(super) mtu: Option<u16>,
    /// The least MAC address that is not locally administered: that of LOCAL.
    pub(super) mac: Option<Mac>,
}

impl Control {
    /// Looks at the existing interfaces of the database's bridges, and gives each bridge the MAC address and the datapath
    /// id that follow.
    pub(in super::super) fn follow_interfaces(&mut self) {
        let ports = &self.ovs.wish.ports;
        let any = ports.iter().any(|port| port.kind == PortKind::System);
        self.ovs.commons = if any { System::look().commons(ports) } else { BTreeMap::new() };
        let (ovs, node) = (&mut self.ovs, &self.node);
        for (name, bridge) in &mut ovs.bridges {
            let common = ovs.commons.get(name).and_then(|common| common.mac);
            let made =
                || PortConfig::of_bridge(name, name, PortKind::Internal).mac_for(&unique(node, &ovs.wish));
            bridge.mac = bridge.config.mac.or(common).unwrap_or_else(made);
            bridge.datapath_id = bridge.config.datapath_id.unwrap_or_else(|| bridge.mac.as_u64());
        }
    }

    /// The MAC address of `port` unless its owner gave it another: the one that is wished, that of its bridge for LOCAL,
    /// or one made of names that no other host has.
    pub(in super::super) fn mac_of(&self, port: &PortConfig) -> Mac {
        let Some(name) = &port.bridge else { return port.mac_for(&self.node) };
        match self.ovs.bridges.get(name).filter(|_| port.name == *name) {
            Some(bridge) => bridge.mac,
            None => port.mac_for(&unique(&self.node, &self.ovs.wish)),
        }
    }
}

/// A name for this host: that of the node may be another's too, where databases are concerned.
fn unique(node: &str, wish: &Wish) -> String {
    format!("{node} {}", wish.system)
}
