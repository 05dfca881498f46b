//! What the switch is wished to be: [`Config`], made of one TOML file, the same bytes on every node.
//!
//! [`Config::parse`] turns text into meaning and refuses, all at once and with their places, the wishes that
//! make no sense. Everything here is pure: no descriptor, no netlink, no switch, no clock. What a node has
//! (its name, its addresses, its interfaces) is an argument.

use std::path::PathBuf;
use std::time::Duration;
use vswitch_core::port::VlanSet;

mod error;
mod peer;
mod port;
mod segment;

pub use error::{ConfigError, ConfigErrors, Place, Warning};
pub use peer::{
    AddressSpec, Chosen, Families, FamilyMissing, MAX_PEERS, PeerConfig, PeerSource, Prefix, Reserved,
    Underlay,
};
pub use port::{PortConfig, PortKind, VlanMode};
pub use segment::SegmentConfig;
pub use vswitch_core::port::{InnerVlan, PriorityTags};

/// The whole wish. Two that are equal ask for the same, wherever in their files the words stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[node]`.
    pub node: NodeConfig,
    /// `[underlay]`; without it the node has no tunnels.
    pub underlay: Option<Underlay>,
    /// `[mesh]` and `[[peer]]`: ranges and prefixes expanded, duplicates merged, sorted by address. This
    /// node's own address may still be among them: see [`Config::peers_for`].
    pub mesh: Vec<PeerConfig>,
    /// `[control]`.
    pub control: Control,
    /// `[datapath]`.
    pub datapath: Datapath,
    /// `[mac_table]`.
    pub mac_table: MacTableConfig,
    /// `[switch]`.
    pub switch: Switch,
    /// `[[segment]]`, sorted by VLAN.
    pub segments: Vec<SegmentConfig>,
    /// `[[port]]`, of all nodes, in the order of the file.
    pub ports: Vec<PortConfig>,
    /// What is allowed but hardly meant.
    pub warnings: Vec<Warning>,
}

/// `[node]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// The node's name; `None`: the host name.
    pub name: Option<String>,
}

/// `[control]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The control socket, an absolute path.
    pub socket: PathBuf,
    /// What was changed at run time, an absolute path.
    pub state: PathBuf,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/vswitchd/control.sock"),
            state: PathBuf::from("/var/lib/vswitchd/state.json"),
        }
    }
}

/// `[datapath]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datapath {
    /// Worker threads, 1..=64; `None`: as many as there are CPUs, at most four.
    pub workers: Option<u16>,
    /// Checksum and segmentation offload on TAPs, GSO and GRO on the underlay, where the kernel has them.
    pub offload: bool,
}

impl Default for Datapath {
    fn default() -> Self {
        Self { workers: None, offload: true }
    }
}

/// `[mac_table]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacTableConfig {
    /// Entries in all, 10..=16,777,216.
    pub limit: u32,
    /// Entries one port may hold, at least 1; above `limit` a port has no limit of its own. Not for peers.
    pub port_limit: u32,
    /// How long a station may be silent, 10..=1,000,000 seconds.
    pub ageing: Duration,
}

impl Default for MacTableConfig {
    fn default() -> Self {
        Self { limit: 65_536, port_limit: 8192, ageing: Duration::from_secs(300) }
    }
}

/// `[switch]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// Whether frames to 01-80-C2-00-00-00 … 0F are forwarded.
    pub forward_bpdu: bool,
    /// VLANs in which nothing is learned and all is flooded.
    pub flood_vlans: VlanSet,
    /// How many tags are read, as Open vSwitch's `other_config:vlan-limit`: 1, 2, or 0 for no limit.
    pub vlan_limit: u8,
}

impl Default for Switch {
    fn default() -> Self {
        Self { forward_bpdu: false, flood_vlans: VlanSet::none(), vlan_limit: 1 }
    }
}
