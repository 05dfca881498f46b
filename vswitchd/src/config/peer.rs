//! The underlay and who is on it: this node's tunnel address, the mesh, single peers.
//!
//! Not here: sockets, interfaces, and whether a peer answers.

use super::address::{AddressSpec, family};
use super::{Config, InnerVlan};
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use vswitch_core::Vni;

/// The most peers there may be.
pub const MAX_PEERS: usize = 4096;

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
    /// By a name in `[mesh] peers`, whose address it is in the DNS.
    Dns,
    /// In the cluster's store.
    Cluster,
}

impl PeerSource {
    /// One word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mesh | Self::Table => "file",
            Self::Dns => "dns",
            Self::Cluster => "cluster",
        }
    }
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
    /// Which node of the cluster it is, if it is one.
    pub node: Option<String>,
    /// The UDP port it listens on, 1..=65535; `None`: the underlay's.
    pub udp_port: Option<u16>,
    /// The VNIs whose floods go to it, in any order; `None`: all it carries.
    pub floods: Option<Vec<Vni>>,
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

impl fmt::Display for FamilyMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, peer) in self.refused.iter().enumerate() {
            let separator = if i > 0 { "; " } else { "" };
            let family = family(peer.address.is_ipv6());
            write!(f, "{separator}peer {:?}: this node has no local {family} address for it", peer.label())?;
        }
        Ok(())
    }
}

impl std::error::Error for FamilyMissing {}

impl Underlay {
    /// Which of `local`, the addresses a node has, its tunnels use.
    #[must_use]
    pub fn choose(&self, local: &[IpAddr]) -> Chosen {
        let mut chosen = Chosen::default();
        for spec in &self.addresses {
            let mut matching: Vec<IpAddr> = local.iter().copied().filter(|a| spec.matches(*a)).collect();
            matching.sort_unstable();
            matching.dedup();
            match matching.first() {
                None => chosen.waiting.push(*spec),
                Some(lowest) => {
                    chosen.addresses.push(*lowest);
                    if matching.len() > 1 {
                        chosen.several.push((*spec, matching));
                    }
                }
            }
        }
        chosen
    }

    /// The peer `address` with the underlay's settings and none of its own.
    #[must_use]
    pub fn peer(&self, address: IpAddr, source: PeerSource) -> PeerConfig {
        PeerConfig {
            address,
            name: None,
            vnis: None,
            inner_vlan: self.vxlan_inner_vlan,
            strict: self.vxlan_reserved == Reserved::Strict,
            mtu: None,
            node: None,
            udp_port: None,
            floods: None,
            source,
        }
    }

    /// The families its addresses have.
    #[must_use]
    pub fn families(&self) -> Families {
        Families::of(self.addresses.iter().map(AddressSpec::is_ipv6))
    }
}

impl Families {
    fn of(v6: impl Iterator<Item = bool>) -> Self {
        v6.fold(Self::default(), |f, v6| Self { v4: f.v4 || !v6, v6: f.v6 || v6 })
    }
}

impl PeerConfig {
    /// What a sentence calls it: its name, or its address.
    #[must_use]
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.address.to_string())
    }
}

impl Config {
    /// The peers of a node that has the addresses `local`: `mesh` without its own addresses.
    ///
    /// # Errors
    /// [`FamilyMissing`] when there are peers of a family in which no address of `local` matches
    /// `[underlay] address`; it holds the other peers, too.
    pub fn peers_for(&self, local: &[IpAddr]) -> Result<Vec<PeerConfig>, FamilyMissing> {
        let own: HashSet<&IpAddr> = local.iter().collect();
        let chosen = self.underlay.as_ref().map(|underlay| underlay.choose(local)).unwrap_or_default();
        let here = Families::of(chosen.addresses.iter().map(IpAddr::is_ipv6));
        let peers = self.mesh.iter().filter(|peer| !own.contains(&peer.address)).cloned();
        let (usable, refused): (Vec<_>, Vec<_>) =
            peers.partition(|peer| if peer.address.is_ipv6() { here.v6 } else { here.v4 });
        if refused.is_empty() { Ok(usable) } else { Err(FamilyMissing { refused, usable }) }
    }

    /// The families in use on the underlay: those of the peers; without peers, or where peers come and go by
    /// name or by cluster, those of `[underlay] address`.
    #[must_use]
    pub fn families(&self) -> Families {
        if self.mesh.is_empty() || !self.mesh_names.is_empty() || self.cluster.is_some() {
            return self.underlay.as_ref().map(Underlay::families).unwrap_or_default();
        }
        Families::of(self.mesh.iter().map(|peer| peer.address.is_ipv6()))
    }
}
