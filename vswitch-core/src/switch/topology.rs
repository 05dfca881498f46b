//! What is configured, as the frame path reads it: bridges, ports, segments and peers, immutable.
//!
//! Built whole by whoever configures the switch, handed to every worker behind an `Arc`, replaced by the next
//! one. All lists that a flood needs are made here, once. Not here: stations (see [`crate::mac_table`]).

use super::edge::{Edge, Kind, VlanSets};
use crate::port::{Attachment, Carries, Port, PortId, Segment, VlanSet};
use crate::wire::vlan::Vlan;
use crate::wire::vxlan::Vni;
use alloc::collections::BTreeMap;
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
    /// VLANs in which nothing is learned and everything is flooded (`flood_vlans`).
    pub flood_vlans: VlanSet,
    /// How many tags are read, the outermost first (`vlan-limit`): 1, or 2 for 2 and above. What stands behind
    /// is payload.
    pub vlan_limit: u8,
    /// The VNI of each VLAN that crosses the underlay.
    pub vnis: BTreeMap<Vlan, Vni>,
}

impl Default for Bridge {
    fn default() -> Self {
        Self { forward_bpdu: false, flood_vlans: VlanSet::none(), vlan_limit: 1, vnis: BTreeMap::new() }
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
    /// Peers that share this VNI but not every one.
    peers: Vec<PortId>,
    /// Its name on the underlay.
    pub(crate) vni: Option<Vni>,
}

#[derive(Debug)]
pub(crate) struct BridgeState {
    pub(crate) config: Bridge,
    /// Whether there are any `flood_vlans`.
    has_flood_vlans: bool,
    /// By VLAN; those that nobody names share one.
    segments: Vec<Arc<Members>>,
    /// Trunks of every VLAN.
    everywhere: Vec<PortId>,
}

impl BridgeState {
    #[inline(always)]
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
    vnis: HashMap<Vni, Segment, FixedState>,
    /// Peers that share every VNI.
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
        for config in bridges {
            let segments = (0..4095).map(|_| Arc::clone(&empty)).collect();
            let has_flood_vlans = config.flood_vlans.iter().next().is_some();
            let mut bridge = BridgeState { config, has_flood_vlans, segments, everywhere: Vec::new() };
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
        for port in ports {
            built.add(port)?;
        }
        Ok(built)
    }

    fn add(&mut self, port: Port) -> Result<(), TopologyError> {
        let id = port.id;
        if self.port(id).is_some() {
            return Err(TopologyError::DuplicatePort(id));
        }
        if let Attachment::Tunnel(tunnel) = &port.attachment {
            if self.peers.insert(peer_key(tunnel.remote), id).is_some() {
                return Err(TopologyError::DuplicatePeer(tunnel.remote));
            }
            match &tunnel.carries {
                Carries::PerVni(None) => self.mesh.push(id),
                Carries::PerVni(Some(vnis)) => {
                    for segment in vnis.iter().filter_map(|vni| self.vnis.get(vni)) {
                        let peers =
                            &mut self.bridges[usize::from(segment.bridge())].edit(segment.vlan()).peers;
                        if !peers.contains(&id) {
                            peers.push(id);
                        }
                    }
                }
            }
        } else {
            let bridge = self
                .bridges
                .get_mut(usize::from(port.bridge))
                .ok_or(TopologyError::NoSuchBridge(id, port.bridge))?;
            match &port.attachment {
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
        }
        if self.ports.len() <= id.index() {
            self.ports.resize_with(id.index() + 1, || None);
            self.edges.resize(id.index() + 1, Edge::ABSENT);
        }
        self.edges[id.index()] = Edge::new(&port, &mut self.vlan_sets);
        self.ports[id.index()] = Some(port);
        Ok(())
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
fn peer_key(remote: IpAddr) -> u128 {
    match remote {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl BridgeState {
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
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn id(number: u32) -> PortId {
        PortId::new(number).unwrap()
    }

    fn vlan(number: u16) -> Vlan {
        Vlan::new(number).unwrap()
    }

    fn vni(number: u32) -> Vni {
        Vni::new(number).unwrap()
    }

    fn access(number: u32, tag: u16) -> Port {
        Port::new(id(number), Attachment::Access(vlan(tag)))
    }

    fn peer(number: u32, last: u8) -> Port {
        Port::peer(id(number), IpAddr::from([192, 0, 2, last]), 4789, 1500)
    }

    fn with_vnis(vnis: [(Vlan, Vni); 2]) -> Bridge {
        Bridge { vnis: vnis.into(), ..Bridge::default() }
    }

    fn hears(topology: &Topology, tag: u16) -> Vec<u32> {
        let segment = Segment::new(0, vlan(tag)).unwrap();
        let mut all: Vec<u32> = topology.listeners(segment).map(|edge| edge.id.get()).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn two_things_of_one_name_are_refused_with_the_name() {
        let twice = with_vnis([(vlan(1), vni(5)), (vlan(2), vni(5))]);
        let mut elsewhere = access(1, 10);
        elsewhere.bridge = 1;
        let one = || vec![Bridge::default()];
        let cases = [
            (Topology::new(one(), [access(1, 1), access(1, 2)]), "two ports have the number 1"),
            (Topology::new(one(), [peer(1, 7), peer(2, 7)]), "two tunnels go to 192.0.2.7"),
            (Topology::new(vec![twice], []), "two segments have VNI 5"),
            (Topology::new(one(), [elsewhere]), "port 1 is in bridge 1, which does not exist"),
            (Topology::new(vec![Bridge::default(); 17], []), "17 bridges; 16 are allowed"),
        ];
        for (topology, text) in cases {
            assert_eq!(topology.unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn a_flood_is_heard_by_members_trunks_and_the_peers_of_its_vni() {
        let bridge = with_vnis([(vlan(10), vni(10)), (vlan(20), vni(20))]);
        let mut some = peer(8, 8);
        if let Attachment::Tunnel(tunnel) = &mut some.attachment {
            // A VNI named twice, and one that no segment has.
            tunnel.carries = Carries::PerVni(Some(vec![vni(20), vni(20), vni(99)]));
        }
        let trunk = Attachment::Trunk { vlans: [0, 10].map(vlan).into_iter().collect(), native: None };
        let ports = [
            access(1, 10),
            access(2, 20),
            Port::new(id(3), Attachment::trunk_all()),
            Port::new(id(4), trunk),
            Port::new(id(5), Attachment::native(vlan(20), false, VlanSet::all())),
            Port::new(id(6), Attachment::dot1q_tunnel(vlan(10), None)),
            peer(7, 7),
            some,
        ];
        let topology = Topology::new(vec![bridge], ports).unwrap();
        assert_eq!(hears(&topology, 0), [3, 4]);
        assert_eq!(hears(&topology, 10), [1, 3, 4, 5, 6, 7]);
        assert_eq!(hears(&topology, 20), [2, 3, 5, 7, 8]);
        assert_eq!(hears(&topology, 30), [3, 5]);
        assert_eq!(topology.port_numbers(), 9);
        assert_eq!(topology.ports().count(), 8);
        assert_eq!(topology.peer(IpAddr::from([192, 0, 2, 8])).map(|port| port.id), Some(id(8)));
        assert_eq!(topology.segment_of(vni(20)), Segment::new(0, vlan(20)));
        assert_eq!(topology.vni_of(Segment::new(0, vlan(10)).unwrap()), Some(vni(10)));
        assert_eq!(topology.vni_of(Segment::new(1, vlan(10)).unwrap()), None);
    }

    #[test]
    fn bridges_are_worlds_apart() {
        let mut other = access(2, 10);
        other.bridge = 1;
        let topology = Topology::new(vec![Bridge::default(); 2], [access(1, 10), other]).unwrap();
        assert_eq!(hears(&topology, 10), [1]);
        let far = Segment::new(1, vlan(10)).unwrap();
        assert_eq!(topology.listeners(far).map(|edge| edge.id.get()).collect::<Vec<_>>(), [2]);
        assert_eq!(topology.listeners(Segment::new(2, vlan(10)).unwrap()).count(), 0);
    }
}
