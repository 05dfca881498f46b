//! What is configured, as the frame path reads it: bridges, ports, segments and peers, immutable.
//!
//! Built whole by whoever configures the switch, handed to every worker behind an `Arc`, replaced by the next
//! one. All lists that a flood needs are made here, once. Not here: stations (see [`crate::mac_table`]).

use super::edge::{Behind, Edge, Kind, VlanSets};
use super::inside::Insides;
use super::mirrors::{Mirror, Mirrors};
use super::multicast::Snooping;
use super::rules::{Rule, Rules};
use crate::port::{Attachment, Carries, Group, Port, PortId, Segment, VlanSet};
use crate::wire::ethernet::Mac;
use crate::wire::vlan::Vlan;
use crate::wire::vxlan::Vni;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// What is said of a bridge as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Whether 01-80-C2-00-00-00…0F is carried like any group address (`forward-bpdu`).
    pub forward_bpdu: bool,
    /// Whether [`Mac::is_vendor_protocol`] says what else `forward_bpdu` is about, as in Open vSwitch.
    pub keeps_vendor_protocols: bool,
    /// VLANs in which nothing is learned and everything is flooded (`flood_vlans`).
    pub flood_vlans: VlanSet,
    /// How many tags are read, the outermost first (`vlan-limit`): 1, or 2 for 2 and above. What stands behind
    /// is payload.
    pub vlan_limit: u8,
    /// Whether questions where an address is are not flooded but handed out, and statements shown, of ARP and Neighbor
    /// Discovery from local ports (iproute2's `neigh_suppress`). Not in `flood_vlans`.
    pub neigh_suppress: bool,
    /// The VNI of each VLAN that crosses the underlay.
    pub vnis: BTreeMap<Vlan, Vni>,
    /// Who looks on, in falling precedence; of more than [`Mirror::PER_BRIDGE`] the rest copies nothing.
    pub mirrors: Vec<Mirror>,
    /// Whether multicast goes to those who joined (RFC 4541); `None`: it is flooded.
    pub snooping: Option<Snooping>,
    /// What becomes of the frames that arrive at its ports: what the first rule that matches says; a frame that none
    /// matches is dropped. `None`: all go the normal way. Peers ([`Carries::PerVni`]) are no ports of a bridge: what they
    /// bring goes the normal way.
    pub rules: Option<Vec<Rule>>,
}

impl Default for Bridge {
    fn default() -> Self {
        Self {
            forward_bpdu: false,
            keeps_vendor_protocols: false,
            flood_vlans: VlanSet::none(),
            vlan_limit: 1,
            neigh_suppress: false,
            vnis: BTreeMap::new(),
            mirrors: Vec::new(),
            snooping: None,
            rules: None,
        }
    }
}

/// Why a topology is refused; nothing of it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyError {
    /// More than [`Segment::BRIDGES`] bridges.
    TooManyBridges(usize),
    /// Two ports of one number.
    DuplicatePort(PortId),
    /// A port of a bridge that is not there.
    NoSuchBridge(PortId, u8),
    /// Two tunnels to one address.
    DuplicatePeer(IpAddr),
    /// One VNI for two segments.
    DuplicateVni(Vni),
    /// Two ordinary tunnels for the datagrams of one address, local address, UDP port and VNI.
    DuplicateTunnel(IpAddr, Vni),
    /// A rule with an id of 65,536 or above.
    RuleId(u32),
    /// An ordinary tunnel whose frames would be another tunnel's.
    TunnelInTunnel(PortId),
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyBridges(n) => write!(f, "{n} bridges; {} are allowed", Segment::BRIDGES),
            Self::DuplicatePort(id) => write!(f, "two ports have the number {id}"),
            Self::NoSuchBridge(id, bridge) => {
                write!(f, "port {id} is in bridge {bridge}, which does not exist")
            }
            Self::DuplicatePeer(address) => write!(f, "two tunnels go to {address}"),
            Self::DuplicateTunnel(remote, vni) => write!(f, "two tunnels take VNI {vni} from {remote}"),
            Self::RuleId(id) => write!(f, "a rule has the id {id}; those below 65536 are counted"),
            Self::TunnelInTunnel(id) => write!(f, "port {id} is a tunnel inside a tunnel"),
            Self::DuplicateVni(vni) => write!(f, "two segments have VNI {vni}"),
        }
    }
}

impl core::error::Error for TopologyError {}

/// Who hears a flood in one segment.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// Ports that carry this VLAN but not every one.
    ports: Vec<PortId>,
    /// Peers that hear floods of this VNI but not of every one. Left out where no local port carries the VLAN and all
    /// tunnels are of one group: nobody could send them any.
    peers: Vec<PortId>,
    /// Its name on the underlay.
    pub(crate) vni: Option<Vni>,
}

#[derive(Debug)]
pub(crate) struct BridgeState {
    pub(crate) config: Bridge,
    /// Whether there are any `flood_vlans`.
    has_flood_vlans: bool,
    /// Whether it has any of these, mirrors or snooping.
    pub(crate) is_special: bool,
    pub(crate) mirrors: Option<Mirrors>,
    /// Where it snoops: ports that are sent all multicast, and those that are sent reports, by rising number.
    pub(crate) flooded: Vec<PortId>,
    pub(crate) reported: Vec<PortId>,
    /// By VLAN; those that nobody names share one.
    segments: Vec<Arc<Members>>,
    /// Trunks of every VLAN.
    everywhere: Vec<PortId>,
    pub(super) rules: Option<Rules>,
}

impl BridgeState {
    /// Whether frames to `dst` are not forwarded, whatever is known of it.
    #[cold]
    #[inline(never)]
    pub(super) fn keeps(&self, dst: Mac) -> bool {
        !self.config.forward_bpdu && self.reserves(dst)
    }

    /// Whether `dst` is an address of protocols between bridges.
    pub(super) const fn reserves(&self, dst: Mac) -> bool {
        dst.is_reserved_group() || (self.config.keeps_vendor_protocols && dst.is_vendor_protocol())
    }

    /// Whether nothing is learned in `vlan` and everything flooded; asked of a special bridge alone.
    pub(crate) fn floods(&self, vlan: Vlan) -> bool {
        self.has_flood_vlans && self.config.flood_vlans.contains(vlan)
    }

    pub(crate) fn members(&self, vlan: Vlan) -> &Members {
        &self.segments[usize::from(vlan.get())]
    }
}

/// Bridges, ports, segments and peers.
#[derive(Debug, Default)]
pub struct Topology {
    bridges: Vec<BridgeState>,
    ports: Vec<Option<Port>>,
    /// The same ports, as the frame path asks for them.
    edges: Vec<Edge>,
    pub(crate) vlan_sets: VlanSets,
    /// By [`peer_key`].
    peers: HashMap<u128, PortId, FixedState>,
    pub(super) insides: Insides,
    vnis: HashMap<Vni, Segment, FixedState>,
    /// Peers that hear floods of every VNI.
    mesh: Vec<PortId>,
}

impl Topology {
    /// Bridges by number, and ports in any order.
    ///
    /// # Errors
    /// When two things claim one name; see [`TopologyError`].
    pub fn new(bridges: Vec<Bridge>, ports: impl IntoIterator<Item = Port>) -> Result<Self, TopologyError> {
        if bridges.len() > usize::from(Segment::BRIDGES) {
            return Err(TopologyError::TooManyBridges(bridges.len()));
        }
        let mut built = Self::default();
        let empty = Arc::new(Members::default());
        for mut config in bridges {
            let rules = config.rules.take().map(Rules::new).transpose()?.flatten();
            let segments = (0..4095).map(|_| Arc::clone(&empty)).collect();
            let has_flood_vlans = config.flood_vlans.iter().next().is_some();
            let mirrors = Mirrors::new(&config.mirrors);
            let mut bridge = BridgeState {
                is_special: has_flood_vlans || mirrors.is_some() || config.snooping.is_some(),
                has_flood_vlans,
                mirrors,
                flooded: Vec::new(),
                reported: Vec::new(),
                segments,
                everywhere: Vec::new(),
                rules,
                config,
            };
            let number = u8::try_from(built.bridges.len()).unwrap_or(u8::MAX);
            for (vlan, vni) in bridge.config.vnis.clone() {
                if let Some(segment) = Segment::new(number, vlan)
                    && built.vnis.insert(vni, segment).is_some()
                {
                    return Err(TopologyError::DuplicateVni(vni));
                }
                bridge.edit(vlan).vni = Some(vni);
            }
            built.bridges.push(bridge);
        }
        // Local ports first, and the tunnels that are like them: where there is none, nobody sends anything for a peer to hear.
        let mut tunnels = Vec::new();
        for port in ports {
            if matches!(port.attached(), Attachment::Tunnel(_)) {
                tunnels.push(port);
            } else {
                built.add_local(&port)?;
                built.insides.add(&port)?;
                built.keep(port);
            }
        }
        let one_group = match tunnels.split_first() {
            Some((first, others)) => {
                first.group != Group::NONE && others.iter().all(|tunnel| tunnel.group == first.group)
            }
            None => false,
        };
        for port in tunnels {
            built.add_tunnel(&port, one_group)?;
            built.keep(port);
        }
        Ok(built)
    }

    fn add_local(&mut self, port: &Port) -> Result<(), TopologyError> {
        let id = self.unused(port.id)?;
        let bridge = self
            .bridges
            .get_mut(usize::from(port.bridge))
            .ok_or(TopologyError::NoSuchBridge(id, port.bridge))?;
        if bridge.is_reserved(id) {
            return Ok(());
        }
        match port.attached() {
            Attachment::Access(vlan) | Attachment::Dot1qTunnel { vlan, .. } => {
                bridge.edit(*vlan).ports.push(id);
            }
            Attachment::Trunk { vlans, .. } if vlans.has_every_vid() => {
                bridge.everywhere.push(id);
                if vlans.contains(Vlan::UNTAGGED) {
                    bridge.edit(Vlan::UNTAGGED).ports.push(id);
                }
            }
            Attachment::Trunk { vlans, .. } => {
                for vlan in vlans.iter() {
                    bridge.edit(vlan).ports.push(id);
                }
            }
            Attachment::Tunnel(_) => {}
        }
        Ok(())
    }

    /// All local ports are there; `one_group`: no tunnel's frame ever leaves by a tunnel.
    fn add_tunnel(&mut self, port: &Port, one_group: bool) -> Result<(), TopologyError> {
        let (id, Attachment::Tunnel(tunnel)) = (self.unused(port.id)?, &port.attachment) else {
            return Ok(());
        };
        // One that is not among the local ports has no VLANs of its own.
        let Carries::PerVni(shared) = &tunnel.carries else { return Err(TopologyError::TunnelInTunnel(id)) };
        if self.peers.insert(peer_key(tunnel.remote), id).is_some() {
            return Err(TopologyError::DuplicatePeer(tunnel.remote));
        }
        let (listed, also) = match (shared, &tunnel.floods) {
            (None, None) => {
                self.mesh.push(id);
                return Ok(());
            }
            (Some(vnis), None) | (None, Some(vnis)) => (vnis, None),
            (Some(shared), Some(floods)) => (floods, Some(shared.iter().collect::<BTreeSet<_>>())),
        };
        for vni in listed.iter().filter(|vni| also.as_ref().is_none_or(|also| also.contains(vni))) {
            let Some(segment) = self.vnis.get(vni) else { continue };
            let bridge = &mut self.bridges[usize::from(segment.bridge())];
            if one_group && !bridge.has_ports(segment.vlan()) {
                continue;
            }
            let peers = &mut bridge.edit(segment.vlan()).peers;
            // A VNI may be listed twice; tunnels come one after the other.
            if peers.last() != Some(&id) {
                peers.push(id);
            }
        }
        Ok(())
    }

    fn unused(&self, id: PortId) -> Result<PortId, TopologyError> {
        if self.port(id).is_some() { Err(TopologyError::DuplicatePort(id)) } else { Ok(id) }
    }

    fn keep(&mut self, port: Port) {
        let at = port.id.index();
        if self.ports.len() <= at {
            self.ports.resize_with(at + 1, || None);
            self.edges.resize(at + 1, Edge::ABSENT);
        }
        let mut edge = Edge::new(&port, &mut self.vlan_sets);
        if let Some(bridge) = self.bridges.get_mut(usize::from(port.bridge)) {
            if bridge.is_reserved(port.id) {
                edge = edge.reserved();
            } else {
                bridge.snoop(&port);
                if edge.kind != Kind::Tunnel
                    && let Some(rules) = &mut bridge.rules
                {
                    rules.add_port(port.id);
                    edge.follow_rules();
                }
            }
        }
        self.edges[at] = edge;
        self.ports[at] = Some(port);
    }

    /// The port of that number.
    #[must_use]
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.index())?.as_ref()
    }

    /// What the frame path asks of the port of that number.
    #[inline(always)]
    pub(crate) fn edge(&self, id: PortId) -> Option<&Edge> {
        self.edges.get(id.index()).filter(|edge| edge.kind != Kind::Absent)
    }

    /// The port at the other end of the cable of patch port `id`; `None` where there is none that says so too.
    pub(super) fn other_end(&self, id: PortId) -> Option<&Edge> {
        let other = self.port(id)?.patch.filter(|other| *other != id)?;
        self.port(other).filter(|port| port.patch == Some(id))?;
        self.edge(other).filter(|edge| edge.behind == Behind::Cable)
    }

    /// All ports by rising number.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().flatten()
    }

    /// The tunnel to `remote`.
    #[must_use]
    pub fn peer(&self, remote: IpAddr) -> Option<&Port> {
        self.port(*self.peers.get(&peer_key(remote))?)
    }

    /// The segment that `vni` names on the underlay.
    #[must_use]
    pub fn segment_of(&self, vni: Vni) -> Option<Segment> {
        self.vnis.get(&vni).copied()
    }

    /// The VNI of `segment`.
    #[must_use]
    pub fn vni_of(&self, segment: Segment) -> Option<Vni> {
        self.bridge(segment.bridge())?.members(segment.vlan()).vni
    }

    /// One more than the largest port number in use.
    #[must_use]
    pub fn port_numbers(&self) -> usize {
        self.ports.len()
    }

    /// One more than the largest number of a mirror that is counted.
    pub(super) fn mirror_numbers(&self) -> usize {
        let mirrors = self.bridges.iter().flat_map(|bridge| &bridge.config.mirrors);
        let counted = mirrors.map(|mirror| mirror.id).filter(|id| *id < Mirror::MAX_ID);
        counted.max().map_or(0, |id| id as usize + 1)
    }

    /// One more than the largest id of a rule.
    pub(super) fn rule_ids(&self) -> usize {
        self.bridges.iter().filter_map(|bridge| bridge.rules.as_ref()).map(Rules::ids).max().unwrap_or(0)
    }

    pub(crate) fn bridge(&self, number: u8) -> Option<&BridgeState> {
        self.bridges.get(usize::from(number))
    }

    /// Everybody who hears a flood in `segment`, the arrival port and its group included.
    pub(crate) fn listeners(&self, segment: Segment) -> impl Iterator<Item = &Edge> {
        let bridge = self.bridge(segment.bridge());
        let members = bridge.map(|bridge| bridge.members(segment.vlan()));
        let everywhere = match bridge {
            Some(bridge) if segment.vlan() != Vlan::UNTAGGED => bridge.everywhere.as_slice(),
            _ => &[],
        };
        let (ports, peers) = members.map_or((&[][..], &[][..]), |m| (m.ports.as_slice(), m.peers.as_slice()));
        let mesh = if members.is_some_and(|m| m.vni.is_some()) { self.mesh.as_slice() } else { &[] };
        ports.iter().chain(everywhere).chain(peers).chain(mesh).filter_map(|id| self.edge(*id))
    }
}

/// A peer's address as one number: an IPv4 address is what it is when mapped to IPv6.
#[inline]
pub(super) fn peer_key(remote: IpAddr) -> u128 {
    match remote {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl BridgeState {
    /// Whether `port`, one of its own, is for copies alone.
    fn is_reserved(&self, port: PortId) -> bool {
        self.mirrors.as_ref().is_some_and(|mirrors| mirrors.is_output(port))
    }

    /// Notes what `port` is sent where the bridge snoops.
    fn snoop(&mut self, port: &Port) {
        for (ports, wanted) in
            [(&mut self.flooded, port.mcast_flood), (&mut self.reported, port.mcast_flood_reports)]
        {
            if wanted && let Err(at) = ports.binary_search(&port.id) {
                ports.insert(at, port.id);
            }
        }
    }

    /// Whether a local port carries `vlan`.
    fn has_ports(&self, vlan: Vlan) -> bool {
        !self.members(vlan).ports.is_empty() || (vlan != Vlan::UNTAGGED && !self.everywhere.is_empty())
    }

    fn edit(&mut self, vlan: Vlan) -> &mut Members {
        let slot = &mut self.segments[usize::from(vlan.get())];
        if Arc::get_mut(slot).is_none() {
            // Shared with the VLANs that nobody names: this one gets its own, which starts as empty as they are.
            *slot = Arc::new(Members::default());
        }
        Arc::get_mut(slot).expect("made a line above, or found unshared")
    }
}

#[cfg(test)]
mod tests;
