//! What passes between an Open vSwitch database and control: a [`Wish`] comes, a [`Report`] goes back.
//!
//! Not here: rows and columns.

use crate::config::{BridgeConfig, MirrorConfig, PortConfig};
use std::collections::BTreeMap;
use vswitch_core::Mac;

/// What a database wishes, whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// The UUID of the database's row of `Open_vSwitch`: no two databases have the same.
    pub system: String,
    /// `Open_vSwitch.next_cfg` as it was when this was read.
    pub next_cfg: i64,
    /// `Open_vSwitch.other_config:stats-update-interval`, in milliseconds, 5000 or more.
    pub stats_interval_ms: u64,
    /// Bridges, sorted by name.
    pub bridges: Vec<BridgeConfig>,
    /// Interfaces, each a port of its bridge, sorted by name. Every bridge has its LOCAL among them, a port of kind
    /// Internal with the bridge's name, whether the database lists it or not.
    pub ports: Vec<PortConfig>,
    /// What is said of an interface's OpenFlow port number, by its name.
    pub ofports: BTreeMap<String, OfportWish>,
    /// Mirrors.
    pub mirrors: Vec<MirrorConfig>,
    /// Interfaces that cannot be had as they are wished, by name, each with the reason: they go to `Interface.error`.
    pub refused: BTreeMap<String, String>,
    /// What else is not carried out, each a sentence: for the log.
    pub complaints: Vec<String>,
}

/// An interface's OpenFlow port number, as far as the database says anything of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OfportWish {
    /// `ofport_request`, 1..=65279.
    pub request: Option<u16>,
    /// `ofport`, as this or another daemon wrote it before.
    pub before: Option<u16>,
}

/// What is in force, for the database's status columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The `system` of the wish that is in force: it is written to that database and to no other.
    pub system: String,
    /// The `next_cfg` of the wish that is in force.
    pub cur_cfg: i64,
    /// Bridges by name.
    pub bridges: BTreeMap<String, BridgeReport>,
    /// Interfaces by name.
    pub interfaces: BTreeMap<String, InterfaceReport>,
    /// Mirrors, by bridge and name: frames and bytes copied.
    pub mirrors: BTreeMap<(String, String), (u64, u64)>,
}

/// Of one bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeReport {
    /// `datapath_id`.
    pub datapath_id: u64,
}

/// Of one interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InterfaceReport {
    /// `ofport`; `None` becomes -1: it could not be had, and `error` says why.
    pub ofport: Option<u16>,
    /// `error`.
    pub error: Option<String>,
    /// `mac_in_use`.
    pub mac: Option<Mac>,
    /// `mtu`.
    pub mtu: Option<u32>,
    /// `ifindex`; 0 where there is no interface of the system.
    pub ifindex: Option<u32>,
    /// `admin_state`: up or down.
    pub admin_up: Option<bool>,
    /// `link_state`: up or down.
    pub link_up: Option<bool>,
    /// `link_resets`.
    pub link_resets: Option<u64>,
    /// `link_speed`, in bit/s.
    pub link_speed: Option<u64>,
    /// `duplex`: whether full.
    pub full_duplex: Option<bool>,
    /// `statistics`: Open vSwitch's keys, as `rx_packets`.
    pub statistics: BTreeMap<String, u64>,
    /// `status`: Open vSwitch's keys, as `driver_name`.
    pub status: BTreeMap<String, String>,
}
