//! The underlay and who is on it: this node's tunnel address, the mesh, single peers.
//!
//! Not here: sockets, interfaces, and whether a peer answers.

use super::InnerVlan;
use std::net::IpAddr;
use vswitch_core::Vni;

/// The most peers there may be.
pub const MAX_PEERS: usize = 4096;

/// All addresses that begin alike, as `192.168.65.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The first of them: every bit behind `len` is zero.
    pub network: IpAddr,
    /// How many bits are alike, 0..=32 or 0..=128.
    pub len: u8,
}

/// One entry of `[underlay] address`: which of a node's addresses its tunnels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSpec {
    /// This one.
    Exact(IpAddr),
    /// The one that lies in this prefix.
    Prefix(Prefix),
}

/// What is done with the reserved bits of a VXLAN header (RFC 7348 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reserved {
    /// They are ignored, as the RFC says.
    #[default]
    Rfc,
    /// A datagram in which one is set is refused.
    Strict,
}

/// `[underlay]`: the network between the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// This node's tunnel addresses, one or two, at most one per family.
    pub addresses: Vec<AddressSpec>,
    /// The UDP port, 1..=65535.
    pub port: u16,
    /// Its MTU, 576..=65535; `None`: the MTU of the interface that holds the address.
    pub mtu: Option<u16>,
    /// Reserved bits.
    pub vxlan_reserved: Reserved,
    /// Tags inside.
    pub vxlan_inner_vlan: InnerVlan,
    /// How many sending sockets, and so outer source ports, each family has, 1..=64.
    pub send_sockets: u16,
}

/// Where a peer was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerSource {
    /// In `[mesh] peers`.
    Mesh,
    /// In a `[[peer]]` of its own, be it among `[mesh] peers` or not.
    Table,
}

/// One remote node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its address, which is what it is: one address, one peer.
    pub address: IpAddr,
    /// What it is called.
    pub name: Option<String>,
    /// The VNIs it carries, in rising order; `None`: all.
    pub vnis: Option<Vec<Vni>>,
    /// Tags inside: its own word, or the underlay's.
    pub inner_vlan: InnerVlan,
    /// Whether its datagrams must have every reserved bit zero: its own word, or the underlay's.
    pub strict: bool,
    /// The MTU of the path to it, 576..=65535; `None`: the underlay's.
    pub mtu: Option<u16>,
    /// Where it was named.
    pub source: PeerSource,
}

/// Address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// The addresses that a node's tunnels use.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Chosen {
    /// One per family, in the order of `[underlay] address`.
    pub addresses: Vec<IpAddr>,
    /// Entries of `[underlay] address` that no address of the node matches yet.
    pub waiting: Vec<AddressSpec>,
    /// Entries that several addresses match, and those addresses, in rising order: the first was chosen.
    pub several: Vec<(AddressSpec, Vec<IpAddr>)>,
}

/// Peers for which this node has no local address of their family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyMissing {
    /// Those peers, at least one.
    pub refused: Vec<PeerConfig>,
    /// The others.
    pub usable: Vec<PeerConfig>,
}
