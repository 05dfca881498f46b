//! From a database's wish to what control makes of it: bridges, ports among the others, tunnels.
//!
//! Not here: opening what stands behind a port, and the report back (see `report.rs`).

use super::super::apply::fail;
use super::super::daemon::Control;
use super::super::rpc::Failed;
use super::super::running::RunningPort;
use super::super::source::ovsdb::Ovsdb;
use crate::config::{PortConfig, PortKind, TunnelConfig};
use crate::observe::log;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use vswitch_core::port::Segment;
use vswitch_core::{Instant, Vni};

/// By what a datagram finds its tunnel: two that are alike cannot be told apart.
type TunnelKey = (IpAddr, Option<IpAddr>, u16, Vni);

const fn key_of(tunnel: &TunnelConfig) -> TunnelKey {
    (tunnel.remote, tunnel.local, tunnel.udp_port, tunnel.in_key)
}

impl Control {
    /// Takes the newest wish of the database; whether there is one to be carried out.
    pub(in super::super) fn take_ovsdb(&mut self) -> bool {
        let Some(source) = &self.ovs.source else { return false };
        let Some(wish) = source.wishes().try_iter().last() else { return false };
        for complaint in
            wish.complaints.iter().filter(|complaint| !self.ovs.wish.complaints.contains(complaint))
        {
            log::warn("not carried out", &[("source", &"ovsdb"), ("reason", complaint)]);
        }
        self.ovs.awaited = false;
        let stays: BTreeMap<&str, &PortConfig> =
            wish.ports.iter().map(|port| (port.name.as_str(), port)).collect();
        let goes =
            |port: &PortConfig| stays.get(port.name.as_str()).is_none_or(|new| new.bridge != port.bridge);
        let gone: Vec<&PortConfig> = self.ovs.wish.ports.iter().filter(|port| goes(port)).collect();
        for port in &gone {
            self.ovs.statistics.remove(&port.name);
        }
        if !gone.is_empty() || wish.ofports != self.ovs.wish.ofports {
            // What arrived on a port stays counted for the flows of its bridge and its number.
            self.settle_flows();
        }
        self.ovs.changed |= self.ovs.take(wish);
        // Before the database hears that the bridges are there: then ovs-ofctl finds them.
        self.follow_openflow();
        self.ovs.next_report = Instant::ZERO;
        true
    }

    /// Starts following the database at `remote`.
    pub(in super::super) fn follow_ovsdb(&mut self, source: Ovsdb) {
        self.ovs.source = Some(source);
        self.ovs.awaited = true;
    }

    /// Adds the ports of the database to those that are desired; one that cannot be beside the others is refused.
    pub(in super::super) fn add_ovs_ports(
        &self,
        desired: &mut BTreeMap<String, PortConfig>,
        failed: &mut Vec<Failed>,
    ) {
        let tunnels = desired.values().filter_map(PortConfig::tunnel).map(key_of);
        let mut tunnels: BTreeSet<TunnelKey> = tunnels.collect();
        for port in &self.ovs.wish.ports {
            if self.ovs.bridge_of(port).is_none() {
                continue;
            }
            if desired.contains_key(&port.name) {
                let reason = format!("a port \"{}\" is in the file or was added at run time", port.name);
                failed.push(fail("port", &port.name, reason));
            } else if port.tunnel().is_some_and(|tunnel| !tunnels.insert(key_of(tunnel))) {
                let reason = "could not add network device (File exists): another tunnel has the same remote_ip, \
                              local_ip, key and dst_port";
                failed.push(fail("port", &port.name, reason.to_owned()));
            } else {
                desired.insert(port.name.clone(), port.clone());
            }
        }
    }

    /// Room in the MAC table for what each bridge may hold, and its own limit and ageing.
    pub(in super::super) fn follow_bridges(&mut self) {
        let wanted = self.ovs.bridges.values().map(|bridge| bridge.config.mac_limit);
        let wanted = wanted.fold(self.file.mac_table.limit, u32::saturating_add).min(MAC_LIMIT);
        if self.running.macs.limit() < wanted {
            self.replace_mac_table(wanted);
        } else if self.ovs.changed {
            self.tune_bridges();
        }
    }

    /// Forgets the stations of bridges whose `flood_vlans` have changed, as Open vSwitch does.
    pub(in super::super) fn forget_stations(&mut self) {
        for number in std::mem::take(&mut self.ovs.forgetful) {
            let here = |port: &&RunningPort| self.ovs.bridge_of(&port.config) == Some(number);
            self.running.ports.values().filter(here).for_each(|port| self.running.macs.flush_port(port.id));
        }
    }

    /// Gives the entries of each bridge of the database their limit and ageing, and none to numbers without a bridge.
    pub(in super::super) fn tune_bridges(&self) {
        for number in 1..Segment::BRIDGES {
            let bridge = self.ovs.bridges.values().find(|bridge| bridge.number == number);
            let limits = bridge.map(|bridge| (bridge.config.mac_limit, bridge.config.mac_ageing));
            let (limit, ageing) = limits.unzip();
            self.running.macs.set_bridge(number, limit, ageing);
        }
    }

    /// Whether what the keeper kept may be let go: not while nobody has said yet what is wished.
    pub(in super::super) fn knows_all_wishes(&self) -> bool {
        !self.ovs.awaited
    }

    /// When the database should hear of what runs.
    pub(in super::super) fn ovs_report_due(&self) -> Option<Instant> {
        (self.ovs.source.is_some() && !self.ovs.awaited).then_some(self.ovs.next_report)
    }
}

/// The largest MAC table.
const MAC_LIMIT: u32 = 16_777_216;

impl PortConfig {
    /// The tunnel behind it, if there is one.
    pub(in super::super) const fn tunnel(&self) -> Option<&TunnelConfig> {
        match &self.kind {
            PortKind::Vxlan(tunnel) => Some(tunnel),
            _ => None,
        }
    }

    /// Whether something of the operating system's is opened for it.
    pub(in super::super) const fn has_interface(&self) -> bool {
        matches!(self.kind, PortKind::Tap | PortKind::Internal | PortKind::System)
    }
}
