//! Bridges and ports in the words of the tools: bridges by name, ports by their OpenFlow numbers.
//!
//! The file's bridge is called `vswitch` here, and its ports and peers, of which nobody numbers any, have the numbers
//! that the core knows them by, counted from 1. Not here: how bridges come to be.

use super::super::daemon::Control;
use super::super::ovs::OFPP_LOCAL;
use super::super::running::RunningPort;
use std::collections::{BTreeMap, HashMap};
use vswitch_core::PortId;

/// The name of the file's bridge, unless the database has one of that name.
const FILE_BRIDGE: &str = "vswitch";

/// A port as the tools see it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Its name; of a peer its address.
    pub(super) name: String,
    /// Its OpenFlow number.
    pub(super) number: u32,
    /// The core's.
    pub(super) id: PortId,
}

impl Seen {
    /// As ovs-ofctl writes the number.
    pub(super) fn word(&self) -> String {
        if self.number == u32::from(OFPP_LOCAL) { "LOCAL".to_owned() } else { self.number.to_string() }
    }
}

/// The number of the core counted from 1: how ports are called where OpenFlow does not number them, and in what is
/// said of the datapath.
pub(super) const fn datapath_number(id: PortId) -> u32 {
    id.get() + 1
}

impl Control {
    /// The bridges that are in use, by name, with their numbers in the core.
    pub(super) fn bridge_numbers(&self) -> BTreeMap<&str, u8> {
        let mut bridges: BTreeMap<&str, u8> =
            self.ovs.bridges.iter().map(|(name, bridge)| (name.as_str(), bridge.number)).collect();
        let of_file = |port: &RunningPort| port.config.bridge.is_none();
        let used = !self.running.peers.is_empty() || self.running.ports.values().any(of_file);
        if used {
            bridges.entry(FILE_BRIDGE).or_insert(0);
        }
        bridges
    }

    /// The number of the bridge `name`, or `refusal`.
    pub(super) fn bridge_number(&self, name: &str, refusal: &str) -> Result<u8, String> {
        // The file's is there for whoever names it, also while nothing is in it.
        let file = || (name == FILE_BRIDGE).then_some(0);
        self.bridge_numbers().get(name).copied().or_else(file).ok_or_else(|| refusal.to_owned())
    }

    /// Whether a port belongs to bridge `number`.
    fn is_in(&self, port: &RunningPort, number: u8) -> bool {
        self.ovs.bridge_of(&port.config) == Some(number)
    }

    /// The ports of bridge `number`, by name, and of the file's its peers too.
    pub(super) fn ports_in(&self, number: u8) -> Vec<Seen> {
        let ports = self.running.ports.iter().filter(|(_, port)| self.is_in(port, number));
        let peers = self.running.peers.iter().filter(|_| number == 0);
        let peers = peers.map(|(address, peer)| Seen {
            name: address.to_string(),
            number: datapath_number(peer.id),
            id: peer.id,
        });
        ports.map(|(name, port)| self.seen(name, port)).chain(peers).collect()
    }

    /// A port as the tools see it.
    pub(super) fn seen(&self, name: &str, port: &RunningPort) -> Seen {
        let local = port.config.bridge.as_deref() == Some(name);
        let given = if local { Some(OFPP_LOCAL) } else { self.ovs.ofports.get(name).copied() };
        let number = given.map_or_else(|| datapath_number(port.id), u32::from);
        Seen { name: name.to_owned(), number, id: port.id }
    }

    /// Everything in bridge `number`, by the core's number.
    pub(super) fn ports_by_id(&self, number: u8) -> HashMap<PortId, Seen> {
        self.ports_in(number).into_iter().map(|port| (port.id, port)).collect()
    }
}
