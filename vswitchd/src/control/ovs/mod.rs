//! What an Open vSwitch database wishes, beside the file: bridges with numbers, ports with OpenFlow numbers.
//!
//! Not here: how the database is spoken to (see [`super::source::ovsdb`]).

use super::source::ovsdb::Wish;
use crate::config::BridgeConfig;
use std::collections::BTreeMap;
use vswitch_core::Mac;

/// OpenFlow's number of a bridge's own port (OFPP_LOCAL).
pub(super) const OFPP_LOCAL: u16 = 0xfffe;

/// Everything that control knows of an Open vSwitch database.
#[derive(Debug, Default)]
pub(super) struct Ovs {
    /// What is wished.
    pub(super) wish: Wish,
    /// Bridges that run, by name.
    pub(super) bridges: BTreeMap<String, OvsBridge>,
    /// OpenFlow port numbers by the name of the port (a name is unique over all bridges).
    pub(super) ofports: BTreeMap<String, u16>,
}

/// A bridge that runs.
#[derive(Debug)]
pub(super) struct OvsBridge {
    /// Its number in the core, 1..=15; the file's is 0.
    pub(super) number: u8,
    /// What is wished of it.
    pub(super) config: BridgeConfig,
    /// The MAC address of its LOCAL port.
    pub(super) mac: Mac,
    /// Its datapath id.
    pub(super) datapath_id: u64,
}

impl Ovs {
    /// The port of `bridge` that has this OpenFlow number.
    pub(super) fn port_of(&self, bridge: &str, ofport: u16) -> Option<&str> {
        let mine = |name: &&String| {
            self.wish.ports.iter().any(|port| port.name == **name && port.bridge.as_deref() == Some(bridge))
        };
        self.ofports
            .iter()
            .filter(|(_, number)| **number == ofport)
            .map(|(name, _)| name)
            .find(mine)
            .map(String::as_str)
    }
}
