//! A naive switch, written to be obviously right and nothing else: what the real one is compared with.
//!
//! It takes a frame apart into tags and a rest, loops over all ports to flood, and searches a list to learn. It
//! shares the configuration's types with the core, and no code. The VLAN rules are those of Open vSwitch 3.1 with
//! one tag read, and `ovs_oracle` holds them to the original; the places where we mean something else are named
//! there. The MAC table evicts in the exact order of Open vSwitch (see [`Stations`]). Not here: offload facts,
//! source ports of datagrams, counters.

mod neigh;
mod stations;

pub use stations::{Key, Station, Stations};

use crate::frames::{Frame, vxlan};
use std::collections::BTreeMap;
use std::net::IpAddr;
use vswitch_core::port::{
    Attachment, Carries, Group, InnerVlan, Port, PortId, PriorityTags, Tunnel, VlanSet,
};
use vswitch_core::switch::Rule;
use vswitch_core::verdict::{DropReason, Why};
use vswitch_core::wire::ethernet::{MAX_FRAME_LEN, Mac};
use vswitch_core::wire::vlan::{Priority, TPID_CTAG, TPID_STAG, Tag, Vlan};
use vswitch_core::wire::vxlan::{Header, OVERHEAD_IPV4, OVERHEAD_IPV6, Vni};

/// What is said of one bridge.
#[derive(Clone, Debug)]
pub struct BridgeSpec {
    /// Whether 01-80-C2-00-00-00…0F is carried.
    pub forward_bpdu: bool,
    /// Whether protocols of vendors are not carried either.
    pub keeps_vendor_protocols: bool,
    /// VLANs in which nothing is learned and everything flooded.
    pub flood_vlans: VlanSet,
    /// How many tags are read: 1, or 2 for anything else.
    pub vlan_limit: u8,
    /// Whether questions of ARP and Neighbor Discovery are handed out instead of flooded.
    pub neigh_suppress: bool,
    /// The VNI of each VLAN that has one.
    pub vnis: BTreeMap<Vlan, Vni>,
    /// Rules before the normal way; the naive switch does not know them.
    pub rules: Option<Vec<Rule>>,
}

impl Default for BridgeSpec {
    fn default() -> Self {
        Self {
            forward_bpdu: false,
            keeps_vendor_protocols: false,
            flood_vlans: VlanSet::none(),
            vlan_limit: 1,
            neigh_suppress: false,
            vnis: BTreeMap::new(),
            rules: None,
        }
    }
}

/// What is said of the switch.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Bridges by number.
    pub bridges: Vec<BridgeSpec>,
    /// Ports, in any order.
    pub ports: Vec<Port>,
    /// How many stations the table holds, static ones included.
    pub mac_limit: usize,
    /// After how many seconds without a frame from it a station is forgotten.
    pub ageing: u64,
}

impl Spec {
    /// One bridge with nothing special about it, 65,536 stations, 300 seconds.
    #[must_use]
    pub fn new(ports: Vec<Port>) -> Self {
        Self { bridges: vec![BridgeSpec::default()], ports, mac_limit: 65_536, ageing: 300 }
    }
}

/// What leaves: for a tunnel the UDP payload, VXLAN header first; for any other port the frame.
pub type Sent = Vec<(PortId, Vec<u8>)>;

/// The naive switch.
#[derive(Clone, Debug)]
pub struct Reference {
    spec: Spec,
    /// Who is where.
    pub stations: Stations,
    dropped: Option<DropReason>,
    punted: Option<Why>,
}

/// One tag, or none: then all is zero.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tpid: u16,
    vid: u16,
    /// PCP and DEI.
    priority: Priority,
}

impl Slot {
    fn of(tag: Tag) -> Self {
        Self { tpid: tag.tpid, vid: tag.vid(), priority: tag.priority() }
    }

    fn tag(self) -> Tag {
        Tag::new(if self.tpid == 0 { TPID_CTAG } else { self.tpid }, self.priority, self.vid)
    }

    /// Whether the slot shows on the wire: when it says something, or when the port wants every tag there is.
    fn shows(self, wish: PriorityTags) -> bool {
        self.vid != 0 || self.priority != Priority::ZERO || (wish == PriorityTags::Always && self.tpid != 0)
    }
}

/// A frame inside the switch.
#[derive(Clone, Debug)]
struct Inside {
    dst: Mac,
    src: Mac,
    bridge: u8,
    /// The VLAN it is in, as a tag.
    vlan: Slot,
    /// The customer's tag behind it, where one was read.
    customer: Option<Slot>,
    /// What was not read: further tags, type, payload.
    rest: Vec<u8>,
    /// Priority of the outermost tag that it arrived with.
    arrived: Priority,
}

impl Reference {
    /// A switch that has seen nothing.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        let stations = Stations::new(spec.mac_limit, spec.ageing);
        Self { spec, stations, dropped: None, punted: None }
    }

    /// Why the last frame left by no port; `None` when it left, or was handed out instead.
    #[must_use]
    pub const fn dropped(&self) -> Option<DropReason> {
        self.dropped
    }

    /// What the last frame was handed out for, but for frames that are too big.
    #[must_use]
    pub const fn punted(&self) -> Option<Why> {
        self.punted
    }

    /// A frame arrives at `port`, `now` seconds after the start. Returns what leaves, by rising port number.
    pub fn frame_in(&mut self, now: u64, port: PortId, bytes: &[u8]) -> Sent {
        self.local_in(now, port, bytes, true)
    }

    /// A frame that was handed out comes back, to go where it would have gone.
    pub fn resume(&mut self, now: u64, port: PortId, bytes: &[u8]) -> Sent {
        self.local_in(now, port, bytes, false)
    }

    fn local_in(&mut self, now: u64, port: PortId, bytes: &[u8], arriving: bool) -> Sent {
        self.punted = None;
        let result = match self.port(port) {
            Some(from) => {
                Self::enter(&self.spec, &from, None, bytes).and_then(|f| self.carry(now, &from, &f, arriving))
            }
            None => Err(DropReason::NoSuchPort),
        };
        self.conclude(result)
    }

    /// A VXLAN datagram arrives from `remote`, `now` seconds after the start. Returns what leaves.
    pub fn datagram_in(&mut self, now: u64, remote: IpAddr, datagram: &[u8]) -> Sent {
        self.punted = None;
        if self.member(remote).is_some() && neigh::is_probe(datagram) {
            self.punted = Some(Why::Probe);
            return self.conclude(Ok(Sent::new()));
        }
        let result = self.open(remote, datagram).and_then(|(from, bridge, vlan)| {
            let inside = Self::enter(&self.spec, &from, Some((bridge, vlan)), &datagram[8..])?;
            self.carry(now, &from, &inside, true)
        });
        self.conclude(result)
    }

    fn conclude(&mut self, result: Result<Sent, DropReason>) -> Sent {
        self.dropped = result.as_ref().err().copied();
        result.unwrap_or_default()
    }

    fn port(&self, id: PortId) -> Option<Port> {
        self.spec.ports.iter().find(|port| port.id == id).cloned()
    }

    fn member(&self, remote: IpAddr) -> Option<&Port> {
        let remote = remote.to_canonical();
        self.spec.ports.iter().find(|port| port.tunnel().is_some_and(|t| t.remote == remote))
    }

    /// Whose datagram it is, and what segment it is for.
    fn open(&self, remote: IpAddr, datagram: &[u8]) -> Result<(Port, u8, Vlan), DropReason> {
        let port = self.member(remote).ok_or(DropReason::UnknownPeer)?;
        let tunnel = port.tunnel().ok_or(DropReason::UnknownPeer)?;
        let header = Header::parse(datagram).ok_or(DropReason::VxlanShort)?;
        if !header.has_vni() {
            return Err(DropReason::VxlanNoVni);
        }
        if tunnel.strict && !header.reserved_is_zero() {
            return Err(DropReason::VxlanReserved);
        }
        for (bridge, spec) in (0..).zip(&self.spec.bridges) {
            for (vlan, vni) in &spec.vnis {
                if *vni == header.vni() {
                    let shared = shares(tunnel, *vni);
                    return if shared {
                        Ok((port.clone(), bridge, *vlan))
                    } else {
                        Err(DropReason::VniNotShared)
                    };
                }
            }
        }
        Err(DropReason::UnknownVni)
    }

    /// Whether and how a frame comes in. `segment` is what the VNI said.
    fn enter(
        spec: &Spec,
        port: &Port,
        segment: Option<(u8, Vlan)>,
        bytes: &[u8],
    ) -> Result<Inside, DropReason> {
        if bytes.len() > MAX_FRAME_LEN {
            return Err(DropReason::LongFrame);
        }
        let Frame { dst, src, tags, rest } = Frame::parse(bytes).ok_or(DropReason::ShortFrame)?;
        let first = tags.first().copied();
        if first.is_none() && [TPID_CTAG, TPID_STAG].contains(&u16::from_be_bytes([rest[0], rest[1]])) {
            return Err(DropReason::VlanTruncated);
        }
        let outer = first.map_or_else(Slot::default, Slot::of);
        let vid = Vlan::new(outer.vid).ok_or(DropReason::VlanReserved)?;
        let bridge_number = segment.map_or(port.bridge, |(bridge, _)| bridge);
        let bridge = spec.bridges.get(usize::from(bridge_number)).ok_or(DropReason::NoSuchPort)?;

        // In VLAN `vlan`, the outermost tag being the VLAN's own: it gives TPID and priority.
        let own = |vlan: Vlan, reads_customer: bool, default_tpid: u16| {
            let tpid = if outer.tpid == 0 { default_tpid } else { outer.tpid };
            let customer = tags.get(1).filter(|_| reads_customer).copied().map(Slot::of);
            let read = usize::from(first.is_some()) + usize::from(customer.is_some());
            (Slot { tpid, vid: vlan.get(), priority: outer.priority }, customer, read)
        };
        // In VLAN `vlan`, the whole frame being the customer's.
        let wrapped = |vlan: Vlan, tpid: u16| {
            let service = Slot { tpid, vid: vlan.get(), priority: Priority::ZERO };
            (service, first.map(Slot::of), usize::from(first.is_some()))
        };
        let deep = bridge.vlan_limit != 1;
        let (vlan, customer, read) = match &port.attachment {
            Attachment::Access(vlan) if vid == Vlan::UNTAGGED => own(*vlan, deep, TPID_CTAG),
            Attachment::Access(_) => return Err(DropReason::VlanTaggedOnAccess),
            Attachment::Trunk { native: Some(native), .. } if vid == Vlan::UNTAGGED => {
                own(native.vlan, deep, TPID_CTAG)
            }
            Attachment::Trunk { vlans, .. } if vlans.contains(vid) => own(vid, deep, 0),
            Attachment::Trunk { .. } => return Err(DropReason::VlanNotTrunked),
            Attachment::Dot1qTunnel { vlan, cvlans, tpid } => {
                if cvlans.as_ref().is_some_and(|cvlans| !cvlans.contains(vid)) {
                    return Err(DropReason::CvlanNotAllowed);
                }
                wrapped(*vlan, *tpid)
            }
            Attachment::Tunnel(tunnel) => {
                let vlan = segment.map_or(Vlan::UNTAGGED, |(_, vlan)| vlan);
                match tunnel.inner_vlan {
                    InnerVlan::Strip if first.is_some() => return Err(DropReason::InnerVlan),
                    // A priority tag is the way in which a tunnel carries the VLAN's own priority.
                    InnerVlan::Carry if first.is_some() && vid == Vlan::UNTAGGED => {
                        own(vlan, true, TPID_CTAG)
                    }
                    _ => wrapped(vlan, TPID_CTAG),
                }
            }
        };
        let vendor = bridge.keeps_vendor_protocols && dst.is_vendor_protocol();
        if (dst.is_reserved_group() || vendor) && !bridge.forward_bpdu {
            return Err(DropReason::ReservedGroup);
        }
        let rest = tags[read..].iter().flat_map(|tag| tag.bytes()).chain(rest).collect();
        let arrived = outer.priority;
        Ok(Inside { dst, src, bridge: bridge_number, vlan, customer, rest, arrived })
    }

    /// Learns the source, finds the destination, and sends.
    fn carry(&mut self, now: u64, from: &Port, frame: &Inside, arriving: bool) -> Result<Sent, DropReason> {
        let vlan = Vlan::new(frame.vlan.vid).ok_or(DropReason::VlanReserved)?;
        let bridge = &self.spec.bridges[usize::from(frame.bridge)];
        if bridge.flood_vlans.contains(vlan) {
            return self.flood(from, frame);
        }
        let suppress = bridge.neigh_suppress && arriving && from.tunnel().is_none();
        self.stations.learn(now, (frame.bridge, vlan, frame.src), from);
        // Behind a customer's tag nobody looks.
        if suppress && frame.customer.is_none() {
            self.punted = neigh::neigh(frame.dst.is_group(), &frame.rest);
            if self.punted == Some(Why::Neigh) {
                return Ok(Sent::new());
            }
        }
        if frame.dst.is_group() {
            return self.flood(from, frame);
        }
        let known = self.stations.find(now, (frame.bridge, vlan, frame.dst));
        match known.and_then(|id| self.port(id)) {
            None => self.flood(from, frame),
            Some(to) if to.id == from.id => Err(DropReason::SamePort),
            Some(to) if same_group(from, &to) => Err(DropReason::SplitHorizon),
            Some(to) => Ok(vec![(to.id, self.leave(&to, frame)?)]),
        }
    }

    fn flood(&self, from: &Port, frame: &Inside) -> Result<Sent, DropReason> {
        let mut sent = Sent::new();
        let mut reason = DropReason::NoEgress;
        for to in self.spec.ports.iter().filter(|to| to.id != from.id && self.listens(to, frame)) {
            match self.leave(to, frame) {
                Ok(_) | Err(DropReason::TooBig | DropReason::InnerVlan) if same_group(from, to) => {
                    if reason == DropReason::NoEgress {
                        reason = DropReason::SplitHorizon;
                    }
                }
                Ok(bytes) => sent.push((to.id, bytes)),
                Err(DropReason::TooBig) => reason = DropReason::TooBig,
                Err(DropReason::InnerVlan) if reason != DropReason::TooBig => reason = DropReason::InnerVlan,
                Err(_) => {}
            }
        }
        sent.sort();
        if sent.is_empty() { Err(reason) } else { Ok(sent) }
    }

    /// Whether floods of the frame's segment are for `to`, should it carry them at all.
    fn listens(&self, to: &Port, frame: &Inside) -> bool {
        let Some(tunnel) = to.tunnel() else { return true };
        let (Carries::PerVni(shared), floods) = (&tunnel.carries, &tunnel.floods) else { return true };
        if shared.is_none() && floods.is_none() {
            return true;
        }
        let bridge = &self.spec.bridges[usize::from(frame.bridge)];
        let vlan = Vlan::new(frame.vlan.vid);
        let vni = vlan.and_then(|vlan| bridge.vnis.get(&vlan));
        let hosts = floods.as_ref().is_none_or(|floods| vni.is_some_and(|vni| floods.contains(vni)));
        // Where no local port is and no peer hears another one, lists of peers are not even kept.
        let alike = |other: &Port| other.tunnel().is_none() || same_group(to, other);
        let attended = self.spec.ports.iter().any(|port| carries(port, frame.bridge, vlan));
        hosts && (attended || !self.spec.ports.iter().all(alike))
    }

    /// The frame as it leaves by `port`, if it does.
    fn leave(&self, port: &Port, frame: &Inside) -> Result<Vec<u8>, DropReason> {
        if let Attachment::Tunnel(tunnel) = &port.attachment {
            return self.leave_by_tunnel(port, tunnel, frame);
        }
        let vlan = Vlan::new(frame.vlan.vid).ok_or(DropReason::VlanReserved)?;
        let customer = frame.customer.unwrap_or_default();
        let customer_vlan = Vlan::new(customer.vid);
        let carried = port.bridge == frame.bridge
            && match &port.attachment {
                Attachment::Access(access) => *access == vlan && customer.vid == 0,
                Attachment::Trunk { vlans, .. } => vlans.contains(vlan),
                Attachment::Dot1qTunnel { vlan: service, cvlans: None, .. } => *service == vlan,
                Attachment::Dot1qTunnel { vlan: service, cvlans: Some(cvlans), .. } => {
                    *service == vlan && customer_vlan.is_some_and(|customer| cvlans.contains(customer))
                }
                Attachment::Tunnel(_) => false,
            };
        if !carried {
            return Err(DropReason::VlanNotOnEgress);
        }
        let wish = port.priority_tags;
        let asks_for_priority = wish != PriorityTags::No;
        // What a port that asks for priorities shows of a frame that has no other tag.
        let priority_tag = Slot { priority: frame.arrived, ..Slot::default() };
        let pops = match &port.attachment {
            Attachment::Trunk { native, .. } => native.is_some_and(|n| !n.tagged && n.vlan == vlan),
            _ => true,
        };
        let mut tags = Vec::new();
        if !pops {
            let mut outer = frame.vlan;
            if asks_for_priority {
                outer.priority = frame.arrived;
            }
            // In VLAN 0 a customer's tag must not pass for the VLAN's.
            if outer.shows(wish) || customer.vid != 0 {
                tags.push(outer.tag());
            }
            if customer.shows(wish) {
                tags.push(customer.tag());
            }
        } else if customer.shows(wish) && !matches!(port.attachment, Attachment::Access(_)) {
            tags.push(customer.tag());
        } else if asks_for_priority && priority_tag.shows(wish) {
            tags.push(priority_tag.tag());
        }
        Ok(Frame { dst: frame.dst, src: frame.src, tags, rest: frame.rest.clone() }.bytes())
    }

    /// The datagram to a peer.
    fn leave_by_tunnel(&self, port: &Port, tunnel: &Tunnel, frame: &Inside) -> Result<Vec<u8>, DropReason> {
        let vlan = Vlan::new(frame.vlan.vid).ok_or(DropReason::VlanReserved)?;
        let vni = self.spec.bridges[usize::from(frame.bridge)].vnis.get(&vlan).copied();
        let vni = vni.filter(|vni| shares(tunnel, *vni)).ok_or(DropReason::VlanNotOnEgress)?;
        // The VLAN's own tag never goes along; what stands behind it is the customer's frame.
        let tags: Vec<Tag> = frame.customer.iter().map(|slot| slot.tag()).collect();
        let customer = Frame { dst: frame.dst, src: frame.src, tags, rest: frame.rest.clone() }.bytes();
        let mut inner = Frame::parse(&customer).ok_or(DropReason::ShortFrame)?;
        let says_priority_only = inner.tags.first().is_some_and(|tag| tag.vid() == 0);
        match tunnel.inner_vlan {
            InnerVlan::Strip => {
                if says_priority_only {
                    inner.tags.remove(0);
                }
                if !inner.tags.is_empty() {
                    return Err(DropReason::InnerVlan);
                }
            }
            InnerVlan::Carry => {
                // The other end takes an outermost VID 0 for the VLAN's priority, so a customer's needs one in front.
                if frame.vlan.priority != Priority::ZERO || says_priority_only {
                    inner.tags.insert(0, Tag::new(TPID_CTAG, frame.vlan.priority, 0));
                }
            }
        }
        let inner = inner.bytes();
        let overhead = if tunnel.remote.is_ipv6() { OVERHEAD_IPV6 } else { OVERHEAD_IPV4 };
        // The overhead counts the inner Ethernet header, and so does the frame.
        if inner.len() + usize::from(overhead) > usize::from(port.mtu) + 14 {
            return Err(DropReason::TooBig);
        }
        Ok(vxlan(vni, &inner))
    }
}

/// Whether a local port is in this VLAN of this bridge, whatever tags are inside.
fn carries(port: &Port, bridge: u8, vlan: Option<Vlan>) -> bool {
    port.bridge == bridge
        && vlan.is_some_and(|vlan| match &port.attachment {
            Attachment::Access(own) | Attachment::Dot1qTunnel { vlan: own, .. } => *own == vlan,
            Attachment::Trunk { vlans, .. } => vlans.contains(vlan),
            Attachment::Tunnel(_) => false,
        })
}

fn shares(tunnel: &Tunnel, vni: Vni) -> bool {
    match &tunnel.carries {
        Carries::PerVni(None) => true,
        Carries::PerVni(Some(vnis)) => vnis.contains(&vni),
        Carries::Inside { .. } => false,
    }
}

fn same_group(a: &Port, b: &Port) -> bool {
    a.group != Group::NONE && a.group == b.group
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::CaseFile;
    use crate::frames::{ctag, describe_all, stag, station};

    fn id(number: u32) -> PortId {
        PortId::new(number).unwrap()
    }

    fn vlan(number: u16) -> Vlan {
        Vlan::new(number).unwrap()
    }

    fn access(number: u32, tag: u16) -> Port {
        Port::new(id(number), Attachment::Access(vlan(tag)))
    }

    #[test]
    fn the_shared_vlan_table_holds_in_every_case() {
        let Some(shared) = crate::pcap::shared_dir() else { return };
        let file = CaseFile::read(&shared.join("cases/vlan_table.json"));
        let mut spec = Spec::new(file.ports());
        spec.bridges[0].vlan_limit = file.switch.vlan_limit;
        for case in &file.cases {
            let (port, bytes) = case.arrives();
            let sent = Reference::new(spec.clone()).frame_in(0, port, &bytes);
            assert_eq!(describe_all(&sent), describe_all(&case.leaves()), "{}", case.id);
        }
        assert_eq!(file.cases.len(), 90);
    }

    #[test]
    fn a_station_is_found_where_it_spoke_and_unknown_ones_are_flooded() {
        let mut switch =
            Reference::new(Spec::new(vec![access(1, 10), access(2, 10), access(3, 10), access(4, 12)]));
        let frame = |dst, src| Frame::new(station(dst), station(src)).bytes();
        let to = |sent: &Sent| sent.iter().map(|(port, _)| port.get()).collect::<Vec<_>>();
        assert_eq!(to(&switch.frame_in(0, id(1), &frame(2, 1))), [2, 3]);
        assert_eq!(to(&switch.frame_in(1, id(2), &frame(1, 2))), [1]);
        assert_eq!(to(&switch.frame_in(1, id(3), &frame(3, 3))), [0; 0]);
        assert_eq!(switch.dropped(), Some(DropReason::SamePort));
        assert_eq!(to(&switch.frame_in(1, id(4), &frame(1, 4))), [0; 0]);
        assert_eq!(switch.dropped(), Some(DropReason::NoEgress));
        assert_eq!(to(&switch.frame_in(300, id(3), &frame(1, 3))), [1, 2]);
    }

    #[test]
    fn a_peer_gets_the_frame_without_its_vlan_and_never_gives_it_to_another_peer() {
        let remote = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut spec = Spec::new(vec![
            access(1, 10),
            Port::new(id(2), Attachment::trunk_all()),
            Port::peer(id(8), remote(8), 4789, 1500),
            Port::peer(id(9), remote(9), 4789, 1500),
        ]);
        let vni = Vni::new(10_010).unwrap();
        spec.bridges[0].vnis.insert(vlan(10), vni);
        let mut switch = Reference::new(spec);
        let plain = Frame::new(Mac::BROADCAST, station(1));
        let tagged = plain.clone().tag(ctag(10, 3));
        let outside = vxlan(vni, &plain.bytes());
        assert_eq!(
            switch.frame_in(0, id(2), &tagged.bytes()),
            [(id(1), plain.bytes()), (id(8), outside.clone()), (id(9), outside.clone())]
        );
        let untagged = plain.clone().tag(ctag(10, 0)).bytes();
        assert_eq!(switch.datagram_in(0, remote(8), &outside), [(id(1), plain.bytes()), (id(2), untagged)]);
        for (datagram, from, reason) in [
            (&outside[..], 7, DropReason::UnknownPeer),
            (&outside[..7], 8, DropReason::VxlanShort),
            (&vxlan(Vni::new(5).unwrap(), &plain.bytes())[..], 8, DropReason::UnknownVni),
            (&vxlan(vni, &plain.clone().tag(ctag(0, 1)).bytes())[..], 8, DropReason::InnerVlan),
            (&outside[..20], 8, DropReason::ShortFrame),
        ] {
            assert_eq!(switch.datagram_in(0, remote(from), datagram), []);
            assert_eq!(switch.dropped(), Some(reason));
        }
        let customer = plain.clone().tag(ctag(10, 3)).tag(ctag(7, 0)).bytes();
        let to: Vec<_> = switch.frame_in(0, id(2), &customer).into_iter().map(|sent| sent.0).collect();
        assert_eq!(to, [id(1)]);
        let big = plain.clone().payload(0xabcd, &[0; 1451]).bytes();
        assert_eq!(switch.frame_in(0, id(1), &big).len(), 1);
        let fits = plain.payload(0xabcd, &[0; 1450]).bytes();
        assert_eq!(fits.len(), 1464);
        assert_eq!(switch.frame_in(0, id(1), &fits).len(), 3);
    }

    #[test]
    fn what_no_bridge_may_carry_is_dropped_by_name() {
        let mut switch =
            Reference::new(Spec::new(vec![access(1, 10), Port::new(id(2), Attachment::trunk_all())]));
        let frame = Frame::new(Mac::BROADCAST, station(1));
        let lldp = Frame::new("01:80:c2:00:00:0e".parse().unwrap(), station(1));
        for (port, bytes, reason) in [
            (1, frame.clone().tag(ctag(10, 0)).bytes(), DropReason::VlanTaggedOnAccess),
            (2, frame.clone().tag(ctag(4095, 0)).bytes(), DropReason::VlanReserved),
            (2, frame.clone().tag(stag(10, 0)).bytes()[..17].to_vec(), DropReason::VlanTruncated),
            (2, frame.bytes()[..13].to_vec(), DropReason::ShortFrame),
            (2, lldp.bytes(), DropReason::ReservedGroup),
            (3, frame.bytes(), DropReason::NoSuchPort),
        ] {
            assert_eq!(switch.frame_in(0, id(port), &bytes), []);
            assert_eq!(switch.dropped(), Some(reason));
        }
        assert!(switch.stations.list(0).is_empty());
    }
}
