//! Bridges beside the file's own, and what stands behind their ports: wishes in Open vSwitch's words.
//!
//! An Open vSwitch database has many bridges, isolated from each other; the file has one, which these are apart from.
//! Not here: how a database is read (see `control/source/ovsdb`), and what follows from a wish.

use super::port::{PortConfig, PortKind};
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::port::VlanSet;
use vswitch_core::{Mac, Vlan, Vni};

/// A bridge of its own, isolated from every other: columns of Open vSwitch's table `Bridge`.
#[derive(Clone, Debug, PartialEq)]
pub struct BridgeConfig {
    /// Its name, which is that of its internal port LOCAL as well.
    pub name: String,
    /// `other_config:forward-bpdu`.
    pub forward_bpdu: bool,
    /// `flood_vlans`.
    pub flood_vlans: VlanSet,
    /// How many tags are read: `other_config:vlan-limit` of table `Open_vSwitch`; 1, 2, or 0 for no limit.
    pub vlan_limit: u8,
    /// `other_config:mac-aging-time`, 15..=3600 seconds.
    pub mac_ageing: Duration,
    /// `other_config:mac-table-size`, 10..=1,000,000 entries.
    pub mac_limit: u32,
    /// `fail_mode`: whether a bridge without a flow drops everything (`secure`) instead of being a learning switch.
    pub fail_secure: bool,
    /// `mcast_snooping_enable`; `None`: multicast is flooded.
    pub snooping: Option<SnoopingConfig>,
    /// `other_config:hwaddr`: the MAC address of LOCAL.
    pub mac: Option<Mac>,
    /// `other_config:datapath-id`; `None`: made of LOCAL's MAC address.
    pub datapath_id: Option<u64>,
}

impl BridgeConfig {
    /// Open vSwitch's default of `mac-table-size`.
    pub const MAC_LIMIT: u32 = 8192;
    /// Open vSwitch's default of `mac-aging-time`.
    pub const MAC_AGEING: Duration = Duration::from_secs(300);

    /// One of which nothing is said but its name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            forward_bpdu: false,
            flood_vlans: VlanSet::none(),
            vlan_limit: 1,
            mac_ageing: Self::MAC_AGEING,
            mac_limit: Self::MAC_LIMIT,
            fail_secure: false,
            snooping: None,
            mac: None,
            datapath_id: None,
        }
    }
}

/// IGMP and MLD snooping of a bridge (RFC 4541).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnoopingConfig {
    /// `other_config:mcast-snooping-aging-time`, 15..=3600 seconds.
    pub ageing: Duration,
    /// `other_config:mcast-snooping-table-size`, 10..=1,000,000 groups.
    pub limit: u32,
    /// Not `other_config:mcast-snooping-disable-flood-unregistered`: groups that nobody joined are flooded.
    pub flood_unregistered: bool,
}

impl Default for SnoopingConfig {
    fn default() -> Self {
        Self { ageing: Duration::from_secs(300), limit: 2048, flood_unregistered: true }
    }
}

/// A VXLAN tunnel as an ordinary port: columns `options` of an Open vSwitch interface of type `vxlan`. Its frames wear
/// one VNI, whatever their VLAN, and their tags inside.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelConfig {
    /// `remote_ip`.
    pub remote: IpAddr,
    /// `local_ip`: datagrams come from it and must be for it; `None`: any of the node's addresses.
    pub local: Option<IpAddr>,
    /// `in_key` or `key`: the VNI of datagrams that belong to it.
    pub in_key: Vni,
    /// `out_key` or `key`: the VNI of datagrams that it sends.
    pub out_key: Vni,
    /// `dst_port`: the UDP port at both ends.
    pub udp_port: u16,
    /// `tos`: of the outer header; `None`: 0.
    pub tos: Option<u8>,
    /// `ttl`: of the outer header; `None`: 64.
    pub ttl: Option<u8>,
    /// `df_default`: whether the outer IPv4 header forbids fragments.
    pub dont_fragment: bool,
    /// `csum`: whether the outer UDP header has a checksum over IPv4.
    pub checksum: bool,
}

impl TunnelConfig {
    /// The UDP port of VXLAN (RFC 7348 §5).
    pub const UDP_PORT: u16 = 4789;
}

/// Copies of frames for somebody who looks on: Open vSwitch's table `Mirror`. Ports by name.
#[derive(Clone, Debug, PartialEq)]
pub struct MirrorConfig {
    /// Its name; several of a bridge may have the same.
    pub name: String,
    /// The bridge it belongs to.
    pub bridge: String,
    /// `select_all`: every frame of the bridge.
    pub select_all: bool,
    /// `select_src_port`: frames that arrive on these.
    pub sources: Vec<String>,
    /// `select_dst_port`: frames that leave by these.
    pub destinations: Vec<String>,
    /// `select_vlan`: of these VLANs only; `None`: of all.
    pub vlans: Option<VlanSet>,
    /// Where the copies go.
    pub output: MirrorOutput,
    /// `snaplen`: bytes of each frame that are copied, 14..=65535; `None`: all.
    pub snaplen: Option<u16>,
}

/// Where a mirror's copies go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorOutput {
    /// `output_port`, which then carries nothing else.
    Port(String),
    /// `output_vlan` (RSPAN): flooded in this VLAN.
    Vlan(Vlan),
}

impl PortConfig {
    /// A trunk of all VLANs called `name` on `bridge`, with `kind` behind it and nothing else said.
    #[must_use]
    pub fn of_bridge(bridge: &str, name: &str, kind: PortKind) -> Self {
        Self { bridge: Some(bridge.to_owned()), ..Self::new(name, kind) }
    }
}
