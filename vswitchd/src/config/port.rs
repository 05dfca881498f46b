//! Ports: what `[[port]]` means.
//!
//! Not here: opening what stands behind a port.

use super::PriorityTags;
use std::net::IpAddr;
use vswitch_core::Mac;

/// What stands behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PortKind {
    /// A TAP that the daemon creates.
    #[default]
    Tap,
    /// An interface that exists already. No file may ask for it yet.
    System,
}

impl PortKind {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::System => "system",
        }
    }
}

/// How a port treats VLAN tags: Open vSwitch's `vlan_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanMode {
    /// One VLAN, untagged outside.
    Access,
    /// Many VLANs, tagged outside.
    Trunk,
    /// A trunk with a native VLAN, whose frames leave tagged.
    NativeTagged,
    /// A trunk with a native VLAN, whose frames leave untagged.
    NativeUntagged,
    /// Customer frames inside one service VLAN.
    Dot1qTunnel,
}

impl VlanMode {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Access, Self::Trunk, Self::NativeTagged, Self::NativeUntagged, Self::Dot1qTunnel];

    /// The word in the file, in JSON and in Open vSwitch.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Trunk => "trunk",
            Self::NativeTagged => "native-tagged",
            Self::NativeUntagged => "native-untagged",
            Self::Dot1qTunnel => "dot1q-tunnel",
        }
    }
}

/// `[[port]]`: where the switch ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Its name, and its TAP's: 1..=15 bytes, no two ports alike.
    pub name: String,
    /// What stands behind it.
    pub kind: PortKind,
    /// The nodes that have it; `None`: every node.
    pub nodes: Option<Vec<String>>,
    /// How it treats tags; where the file says nothing, `access` with a `tag` and `trunk` without.
    pub vlan_mode: VlanMode,
    /// The access, native or service VLAN, 0..=4094; `None` for a trunk, or where the file says nothing (0).
    pub tag: Option<u16>,
    /// The VLANs a trunk or native port carries, 0..=4094, rising, at least one; `None`: all, and 0.
    pub trunks: Option<Vec<u16>>,
    /// The customer VLANs a `dot1q-tunnel` port admits, 0..=4094, rising, at least one; `None`: all.
    pub cvlans: Option<Vec<u16>>,
    /// TPID of the service tag of a `dot1q-tunnel` port: 0x88a8 or 0x8100.
    pub qinq_ethertype: u16,
    /// Priority tags on frames that leave in VLAN 0.
    pub priority_tags: PriorityTags,
    /// The network namespace its TAP is moved to: a name under /run/netns, or an absolute path.
    pub netns: Option<String>,
    /// The TAP's name inside `netns`; `None`: `name`.
    pub ifname: Option<String>,
    /// The TAP's MAC address; `None`: see [`PortConfig::mac_for`].
    pub mac: Option<Mac>,
    /// The TAP's MTU, 68..=65521; `None`: see [`PortConfig::mtu_for`].
    pub mtu: Option<u16>,
    /// Addresses of the TAP, each with its prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Default gateways, at most one per family.
    pub gateways: Vec<IpAddr>,
    /// Offload on its TAP; `None`: as `[datapath] offload`.
    pub offload: Option<bool>,
}
