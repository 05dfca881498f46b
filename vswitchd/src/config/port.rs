//! Ports: what `[[port]]` means, and what follows from it.
//!
//! Not here: the rules by which one is read; opening what stands behind it.

use super::address::{Prefix, width};
use super::bridge::TunnelConfig;
use super::{Config, Families, InnerVlan, PriorityTags};
use std::net::IpAddr;
use vswitch_core::port::{Guard, VlanSet};
use vswitch_core::wire::vlan::TPID_STAG;
use vswitch_core::{Attachment, Mac, Vlan};

/// What stands behind a port.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum PortKind {
    /// A TAP that the daemon creates and sets up.
    #[default]
    Tap,
    /// A TAP that the daemon creates and whose owner sets it up, as Open vSwitch's internal ports.
    Internal,
    /// An interface that exists already.
    System,
    /// One end of a cable to a port of another bridge.
    Patch {
        /// The port at the other end.
        peer: String,
    },
    /// A VXLAN tunnel, as Open vSwitch means it.
    Vxlan(TunnelConfig),
}

impl PortKind {
    /// The word in the file.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Internal => "internal",
            Self::System => "system",
            Self::Patch { .. } => "patch",
            Self::Vxlan(_) => "vxlan",
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

/// As whom who is behind a port may speak.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum AntiSpoof {
    /// As anybody.
    #[default]
    Off,
    /// With the port's MAC address and its `addresses`.
    Own,
    /// With the port's MAC address and these.
    These(Vec<Prefix>),
}

/// How much may pass a port one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policing {
    /// In kbit/s (1,000 bits), 1..=4294967295.
    pub rate: u32,
    /// What may pass at once, in kbit; at least one superframe passes whatever this says.
    pub burst: u32,
}

impl Policing {
    /// Open vSwitch's, in kbit.
    pub const DEFAULT_BURST: u32 = 8_000;
}

/// `[[port]]`: where the switch ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Its name, and its interface's, no two ports alike: 1..=15 bytes, or up to 63 where a database names what is no
    /// interface of the system.
    pub name: String,
    /// The bridge it belongs to; `None`: the file's.
    pub bridge: Option<String>,
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
    /// As whom who is behind it may speak.
    pub anti_spoof: AntiSpoof,
    /// How much may pass from it into the switch; `None` for no limit.
    pub ingress_policing: Option<Policing>,
    /// How much may leave by it; `None` for no limit.
    pub egress_policing: Option<Policing>,
    /// Whether nothing passes between it and the peers: it is in their split-horizon group.
    pub split_horizon: bool,
    /// Whether nothing passes between it and the other protected ports of its bridge (Open vSwitch's `protected`).
    pub protected: bool,
    /// On a bridge that snoops: whether all multicast leaves by it (`other_config:mcast-snooping-flood`).
    pub mcast_flood: bool,
    /// On a bridge that snoops: whether reports leave by it (`other_config:mcast-snooping-flood-reports`).
    pub mcast_flood_reports: bool,
}

fn vlan_set(vlans: Option<&Vec<u16>>) -> VlanSet {
    vlans.map_or_else(VlanSet::all, |vlans| vlans.iter().copied().filter_map(Vlan::new).collect())
}

/// Bytes of outer IPv4, UDP, VXLAN and inner Ethernet header: what a frame's payload loses on an IPv4 underlay.
const VXLAN_OVERHEAD_V4: u16 = 20 + 8 + 8 + 14;
/// The same with an IPv6 header.
const VXLAN_OVERHEAD_V6: u16 = 40 + 8 + 8 + 14;
/// The MTU of Ethernet (IEEE 802.3 §3.2.7).
const ETHERNET_MTU: u16 = 1500;
/// The smallest MTU (RFC 791 §3.2).
pub const MIN_MTU: u16 = 68;
/// The largest: with an Ethernet header, 65,535 bytes.
pub const MAX_MTU: u16 = 65_521;

impl PortConfig {
    /// A trunk of all VLANs called `name`, with `kind` behind it and nothing else said.
    #[must_use]
    pub fn new(name: &str, kind: PortKind) -> Self {
        Self {
            name: name.to_owned(),
            bridge: None,
            kind,
            nodes: None,
            vlan_mode: VlanMode::Trunk,
            tag: None,
            trunks: None,
            cvlans: None,
            qinq_ethertype: TPID_STAG,
            priority_tags: PriorityTags::default(),
            netns: None,
            ifname: None,
            mac: None,
            mtu: None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            offload: None,
            anti_spoof: AntiSpoof::Off,
            ingress_policing: None,
            egress_policing: None,
            split_horizon: false,
            protected: false,
            mcast_flood: false,
            mcast_flood_reports: false,
        }
    }

    /// How the port is attached to the bridge.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        let trunks = || vlan_set(self.trunks.as_ref());
        match self.vlan_mode {
            VlanMode::Access => Attachment::Access(self.vlan()),
            VlanMode::Trunk => Attachment::Trunk { vlans: trunks(), native: None },
            VlanMode::NativeTagged => Attachment::native(self.vlan(), true, trunks()),
            VlanMode::NativeUntagged => Attachment::native(self.vlan(), false, trunks()),
            VlanMode::Dot1qTunnel => Attachment::Dot1qTunnel {
                vlan: self.vlan(),
                cvlans: self.cvlans.as_ref().map(|cvlans| vlan_set(Some(cvlans))),
                tpid: self.qinq_ethertype,
            },
        }
    }

    /// Its access, native or service VLAN; 0 where nothing is said, and for a trunk.
    #[must_use]
    pub fn vlan(&self) -> Vlan {
        self.tag.and_then(Vlan::new).unwrap_or(Vlan::UNTAGGED)
    }

    /// Whether node `node` has it.
    #[must_use]
    pub fn on_node(&self, node: &str) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.iter().any(|name| name == node))
    }

    /// What its TAP is called where it ends up: `ifname`, or its own name.
    #[must_use]
    pub fn interface(&self) -> &str {
        self.ifname.as_deref().unwrap_or(&self.name)
    }

    /// Its TAP's MAC address on node `node`: `mac`, or one made of both names, the same for ever: locally
    /// administered and unicast (IEEE 802 §8.4).
    #[must_use]
    pub fn mac_for(&self, node: &str) -> Mac {
        self.mac.unwrap_or_else(|| {
            // The zero byte, which no name has, keeps "ab" + "c" and "a" + "bc" apart.
            let bytes = node.bytes().chain([0]).chain(self.name.bytes());
            Mac::from_u64(stable_hash(bytes) & 0xfcff_ffff_ffff | 0x0200_0000_0000)
        })
    }

    /// As whom who is behind it on node `node` may speak; `None` for as anybody.
    #[must_use]
    pub fn guard_for(&self, node: &str) -> Option<Guard> {
        let one = |address: IpAddr| (address, width(address));
        let addresses = match &self.anti_spoof {
            AntiSpoof::Off => return None,
            AntiSpoof::Own => self.addresses.iter().map(|(address, _)| one(*address)).collect(),
            AntiSpoof::These(prefixes) => {
                prefixes.iter().map(|prefix| (prefix.network, prefix.len)).collect()
            }
        };
        Some(Guard { mac: self.mac_for(node), addresses })
    }

    /// Its TAP's MTU over an underlay of `underlay_mtu` bytes with peers of `families`: `mtu`, or the largest
    /// that fits everywhere the port's frames may go. In a segment with a VNI that is the underlay's less what
    /// VXLAN adds (50 bytes on IPv4, 70 on IPv6, the smaller result of the families in use) and less 4 for each
    /// inner tag carried; elsewhere 1500.
    #[must_use]
    pub fn mtu_for(&self, config: &Config, underlay_mtu: u16, families: Families) -> u16 {
        if let Some(mtu) = self.mtu {
            return mtu;
        }
        let (mut with_vni, mut without) = (false, false);
        let mut carry = |vlan: Vlan| {
            let has_vni = config.vni_of(vlan).is_some();
            with_vni |= has_vni;
            without |= !has_vni;
        };
        match self.attachment() {
            Attachment::Trunk { vlans, .. } => vlans.iter().for_each(&mut carry),
            _ => carry(self.vlan()),
        }
        let local = ETHERNET_MTU;
        let overhead = match families {
            Families { v6: true, .. } => VXLAN_OVERHEAD_V6,
            Families { v4: true, .. } => VXLAN_OVERHEAD_V4,
            Families { .. } => return local,
        };
        let tags = 4 * self.inner_tags(config);
        let remote = underlay_mtu.saturating_sub(overhead + tags).clamp(MIN_MTU, MAX_MTU);
        match (with_vni, without) {
            (true, false) => remote,
            (true, true) => remote.min(local),
            (false, _) => local,
        }
    }

    /// How many tags of its frames may travel inside VXLAN: none, unless the underlay or a peer carries them;
    /// then one for the priority or for what a trunk's frames bear behind their first, and one more for a
    /// customer's.
    fn inner_tags(&self, config: &Config) -> u16 {
        let underlay = config.underlay.as_ref().map(|underlay| underlay.vxlan_inner_vlan);
        let mut words = underlay.into_iter().chain(config.mesh.iter().map(|peer| peer.inner_vlan));
        match (words.any(|word| word == InnerVlan::Carry), self.vlan_mode) {
            (false, _) => 0,
            (true, VlanMode::Dot1qTunnel) => 2,
            (true, _) => 1,
        }
    }
}

/// FNV-1a of 64 bits with its bits stirred (the last step of SplitMix64). MAC addresses hang on it: it never
/// changes.
fn stable_hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let fnv = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let a = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    b ^ (b >> 31)
}
