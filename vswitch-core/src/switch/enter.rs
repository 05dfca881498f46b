//! The first half of a journey: who sends it, which segment it is in, and whether it may enter at all.
//!
//! Nothing here asks the MAC table, so a whole batch can be let in before the first of its frames is decided. Not
//! here: what becomes of a frame that is in (see [`super::leave`]).

use super::dress::{Admitted, admit_other, admit_plain};
use super::edge::{Edge, Kind};
use super::explain::Step;
use super::guard::{self, Allowed};
use super::leave::{Last, owed};
use super::mirrors::{self, Copying, Mirrors};
use super::rules::{self, Rules};
use super::special::pass_unseen;
use super::topology::{BridgeState, Topology};
use super::{Arrived, Punt, Sink, Tables};
use crate::frame::Arrival;
use crate::mac_table::Spot;
use crate::offload::Offload;
use crate::port::{Carries, Port, PortId, Segment};
use crate::verdict::{DropReason, Verdict, Why};
use crate::wire::ethernet::{self, ADDRESSES_LEN, MAX_FRAME_LEN};
use crate::wire::{probe, vlan, vxlan};
use core::net::IpAddr;

/// A frame that has been let in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entered<'a> {
    pub(super) bridge: &'a BridgeState,
    /// All that arrived, a VXLAN header included.
    pub(super) bytes: &'a [u8],
    /// The port it came in by.
    pub(super) port: &'a Edge,
    /// As it arrived: counted from the first byte of all, where a tunnel's receiver knows of any.
    pub(super) offload: &'a Offload,
    pub(super) src: Spot,
    pub(super) dst: Spot,
    pub(super) segment: Segment,
    pub(super) admitted: Admitted,
    /// Where the Ethernet frame begins in `bytes`.
    pub(super) base: u32,
    /// Which frame of the batch.
    pub(super) frame: u32,
}

impl<'a> Entered<'a> {
    /// The Ethernet frame as it arrived.
    #[inline]
    pub(super) fn inner(&self) -> &'a [u8] {
        self.bytes.get(self.base as usize..).unwrap_or_default()
    }

    /// What is handed out of it, for this reason.
    pub(super) const fn punt(&self, why: Why) -> Punt {
        let (frame, from) = (self.frame as usize, self.base as usize);
        Punt { frame, from, port: self.port.id, segment: Some(self.segment), why }
    }

    /// Where a frame that `to` would have sent is counted when it dies.
    pub(super) const fn dies_at(&self, to: &Edge, reason: DropReason) -> PortId {
        if reason.is_ingress() { self.port.id } else { to.id }
    }
}

/// Lets frame number `number` of its batch into `place`, or says how it ended.
///
/// What is let in is written where it is to stay: handed back, it would be copied for every frame.
#[inline(always)]
pub(super) fn enter<'a, S: Sink>(
    tables: &Tables<'a>,
    number: u32,
    arrived: Arrived<'a>,
    place: &mut Option<Entered<'a>>,
    sink: &mut S,
) -> Result<(), Verdict> {
    let (arrival, offload, bytes) = arrived;
    match *arrival {
        Arrival::Port(id) => {
            let Some(port) = tables.topology.edge(id) else {
                return Err(dropped(None, DropReason::NoSuchPort, sink));
            };
            sink.received(id, bytes.len());
            let entered = if port.enters_plainly {
                ingress_plain(tables, port, number, arrived, place, sink)
            } else if port.is_watched | port.has_rules {
                return ingress_watched(tables, port, number, (offload, bytes), place, sink);
            } else {
                ingress_other(tables, (port, None), number, arrived, place, sink)
            };
            entered.map_err(|reason| dropped(Some(id), reason, sink))
        }
        Arrival::Underlay { remote, .. } => {
            if !tables.topology.insides.is_empty()
                && let Some(entered) = from_inside(tables, number, arrived, place, sink)
            {
                return entered;
            }
            from_underlay(tables, remote, number, arrived, place, sink)
        }
    }
}

/// The end of a frame in `place` that is kept from all; whoever looks on sees it.
#[cold]
#[inline(never)]
fn kept<S: Sink>(tables: &Tables<'_>, place: &mut Option<Entered<'_>>, sink: &mut S) -> DropReason {
    if let Some(entered) = place.take() {
        mirrors::copy_refused(tables, &entered, sink);
    }
    DropReason::ReservedGroup
}

#[cold]
fn dropped<S: Sink>(port: Option<PortId>, reason: DropReason, sink: &mut S) -> Verdict {
    sink.drop(port, reason);
    Verdict::Drop(reason)
}

/// A journey that begins in an ordinary tunnel; `None` for a datagram that belongs to none, which may be a peer's.
#[inline(never)]
fn from_inside<'a, S: Sink>(
    tables: &Tables<'a>,
    number: u32,
    arrived: Arrived<'a>,
    place: &mut Option<Entered<'a>>,
    sink: &mut S,
) -> Option<Result<(), Verdict>> {
    let (arrival, offload, bytes) = arrived;
    let Arrival::Underlay { local, remote, udp_port } = *arrival else { return None };
    let topology = tables.topology;
    let header = vxlan::Header::parse(bytes);
    let vni = header.filter(|header| header.has_vni()).map(vxlan::Header::vni);
    let found = vni.and_then(|vni| topology.insides.find(remote, local, udp_port, vni));
    let Some(edge) = found.and_then(|id| topology.edge(id)) else {
        if !topology.insides.knows(remote) || topology.peer(remote).is_some() {
            return None;
        }
        let reason = match (header, vni) {
            (None, _) => DropReason::VxlanShort,
            (_, None) => DropReason::VxlanNoVni,
            _ => DropReason::UnknownVni,
        };
        return Some(Err(dropped(None, reason, sink)));
    };
    sink.received(edge.id, bytes.len().saturating_sub(vxlan::HEADER_LEN));
    let is_strict = topology.port(edge.id).and_then(Port::tunnel).is_some_and(|tunnel| tunnel.strict);
    Some(if is_strict && !header.is_some_and(vxlan::Header::reserved_is_zero) {
        Err(dropped(Some(edge.id), DropReason::VxlanReserved, sink))
    } else {
        ingress_by_all_rules(tables, (edge, HEADER_LEN), number, (offload, bytes), place, sink)
    })
}

/// A journey that begins in a tunnel. Apart, because a frame from a port should not pay for it.
#[inline(never)]
fn from_underlay<'a, S: Sink>(
    tables: &Tables<'a>,
    remote: IpAddr,
    number: u32,
    arrived: Arrived<'a>,
    place: &mut Option<Entered<'a>>,
    sink: &mut S,
) -> Result<(), Verdict> {
    let Some(port) = tables.topology.peer(remote) else {
        return Err(dropped(None, DropReason::UnknownPeer, sink));
    };
    let (.., bytes) = arrived;
    let (edge, segment) = match decapsulate(tables.topology, port, bytes) {
        Ok(opened) => opened,
        Err(reason) => return Err(unopened(port.id, reason, number, bytes, sink)),
    };
    sink.received(port.id, bytes.len().saturating_sub(vxlan::HEADER_LEN));
    ingress_other(tables, (edge, Some(segment)), number, arrived, place, sink)
        .map_err(|reason| dropped(Some(port.id), reason, sink))
}

/// The end of a datagram without a frame to be let in. A probe is neither counted as one nor dropped.
#[cold]
fn unopened<S: Sink>(port: PortId, reason: DropReason, number: u32, bytes: &[u8], sink: &mut S) -> Verdict {
    if reason == DropReason::VxlanNoVni && probe::is_probe(bytes) {
        sink.punt(Punt { frame: number as usize, from: 0, port, segment: None, why: Why::Probe });
        return Verdict::Punt(Why::Probe);
    }
    sink.received(port, bytes.len().saturating_sub(vxlan::HEADER_LEN));
    dropped(Some(port), reason, sink)
}

/// A frame that would like to enter.
struct Candidate<'a> {
    port: &'a Edge,
    bridge: u8,
    number: u32,
    base: u32,
    offload: &'a Offload,
    bytes: &'a [u8],
}

/// Admission: which segment, which tags, and whether at all.
#[inline(always)]
fn ingress_plain<'a, S: Sink>(
    tables: &Tables<'a>,
    port: &'a Edge,
    number: u32,
    (_, offload, bytes): Arrived<'a>,
    place: &mut Option<Entered<'a>>,
    sink: &mut S,
) -> Result<(), DropReason> {
    let frame = Candidate { port, bridge: port.bridge, number, base: 0, offload, bytes };
    let bridge = frame.check(tables, None, sink)?;
    let admitted = admit_plain(port, &tables.topology.vlan_sets, bridge.config.vlan_limit, bytes)?;
    frame.settle(tables, bridge, admitted, place, sink)
}

/// The same for a customer's port, or for a tunnel, where a VXLAN header has said the segment.
#[inline(never)]
fn ingress_other<'a, S: Sink>(
    tables: &Tables<'a>,
    (port, tunnelled): (&'a Edge, Option<Segment>),
    number: u32,
    (_, offload, bytes): Arrived<'a>,
    place: &mut Option<Entered<'a>>,
    sink: &mut S,
) -> Result<(), DropReason> {
    if port.is_reserved {
        return Err(DropReason::MirrorOutput);
    }
    let base = if tunnelled.is_some() { HEADER_LEN } else { 0 };
    let bridge = tunnelled.map_or(port.bridge, Segment::bridge);
    let frame = Candidate { port, bridge, number, base, offload, bytes };
    let bridge = frame.check(tables, tunnelled, sink)?;
    let mut admitted = admit_other(port, &tables.topology.vlan_sets, frame.inner())?;
    if let Some(segment) = tunnelled {
        admitted.vlan = segment.vlan();
    }
    frame.settle(tables, bridge, admitted, place, sink)
}

/// [`ingress_by_all_rules`] of what a link has brought: its own, because its frames should not pay for those that come
/// otherwise.
#[inline(never)]
fn ingress_watched<'a, S: Sink>(
    tables: &Tables<'a>,
    port: &'a Edge,
    number: u32,
    arrived: (&'a Offload, &'a [u8]),
    place: &mut Option<Entered<'a>>,
    sink: &mut S,
) -> Result<(), Verdict> {
    ingress_by_all_rules(tables, (port, 0), number, arrived, place, sink)
}

/// The same for a port with VLANs of its own, of whatever kind it is and whatever else is asked there; `base` is where
/// the frame begins. A frame that ends here has been counted.
#[inline(always)]
pub(super) fn ingress_by_all_rules<'a, S: Sink>(
    tables: &Tables<'a>,
    (port, base): (&'a Edge, u32),
    number: u32,
    (offload, bytes): (&'a Offload, &'a [u8]),
    place: &mut Option<Entered<'a>>,
    sink: &mut S,
) -> Result<(), Verdict> {
    let frame = Candidate { port, bridge: port.bridge, number, base, offload, bytes };
    match frame.ask_all(tables, place, sink) {
        Ok(None) => Ok(()),
        Ok(Some(verdict)) => Err(verdict),
        Err(reason) => Err(dropped(Some(port.id), reason, sink)),
    }
}

impl<'a> Candidate<'a> {
    #[inline(always)]
    fn inner(&self) -> &'a [u8] {
        self.bytes.get(self.base as usize..).unwrap_or_default()
    }

    /// What is asked of every frame before its tags are read; `tunnelled` is what a VXLAN header said.
    #[inline(always)]
    fn check<S: Sink>(
        &self,
        tables: &Tables<'a>,
        tunnelled: Option<Segment>,
        sink: &mut S,
    ) -> Result<&'a BridgeState, DropReason> {
        sink.note(Step::Arrived { port: self.port.id, len: self.bytes.len() });
        if self.base != 0
            && let Some(header) = vxlan::Header::parse(self.bytes)
        {
            sink.note(Step::Decapsulated { vni: header.vni(), segment: tunnelled });
        }
        let frame = self.inner();
        if frame.len() > MAX_FRAME_LEN {
            return Err(DropReason::LongFrame);
        }
        let (dst, src) = ethernet::addresses(frame).ok_or(DropReason::ShortFrame)?;
        sink.note(Step::Addresses { dst, src, tag: vlan::tag_at(frame, ADDRESSES_LEN) });
        tables.topology.bridge(self.bridge).ok_or(DropReason::NoSuchPort)
    }

    /// [`ingress_by_all_rules`]; `Some` where the bridge's rules are its end.
    #[inline(always)]
    fn ask_all<S: Sink>(
        &self,
        tables: &Tables<'a>,
        place: &mut Option<Entered<'a>>,
        sink: &mut S,
    ) -> Result<Option<Verdict>, DropReason> {
        if self.port.is_reserved {
            return Err(DropReason::MirrorOutput);
        }
        let bridge = self.check(tables, None, sink)?;
        if let Some(rules) = &bridge.rules {
            return self.ask_rules(tables, bridge, rules, place, sink);
        }
        let admitted = self.admit(tables, bridge)?;
        self.watch_once(tables, sink)?;
        self.settle(tables, bridge, admitted, place, sink)?;
        Ok(None)
    }

    /// The same in a bridge that has rules.
    #[inline(never)]
    fn ask_rules<S: Sink>(
        &self,
        tables: &Tables<'a>,
        bridge: &'a BridgeState,
        rules: &Rules,
        place: &mut Option<Entered<'a>>,
        sink: &mut S,
    ) -> Result<Option<Verdict>, DropReason> {
        self.watch_once(tables, sink)?;
        if let Some(mirrors) = &bridge.mirrors {
            return self.follow_seen(tables, bridge, (rules, mirrors), sink).map(Some);
        }
        let unread = self.entered(tables, bridge, Admitted::UNREAD)?;
        if let Some(verdict) = rules::follow(tables, rules, &unread, sink)? {
            return Ok(Some(verdict));
        }
        let admitted = self.admit(tables, bridge)?;
        self.settle(tables, bridge, admitted, place, sink)?;
        Ok(None)
    }

    /// [`Self::watch`], where that is due: what the switch lets in a second time has been looked at; what it says itself
    /// is true.
    #[inline(always)]
    fn watch_once<S: Sink>(&self, tables: &Tables<'a>, sink: &mut S) -> Result<(), DropReason> {
        if S::ARRIVING && self.port.is_watched { self.watch(tables.topology, sink) } else { Ok(()) }
    }

    /// The frame with these tags, wherever it may go.
    #[inline(always)]
    fn entered(
        &self,
        tables: &Tables<'a>,
        bridge: &'a BridgeState,
        admitted: Admitted,
    ) -> Result<Entered<'a>, DropReason> {
        let Self { port, number: frame, base, offload, bytes, .. } = *self;
        let (dst, src) = ethernet::addresses(self.inner()).ok_or(DropReason::ShortFrame)?;
        let segment = Segment::new(self.bridge, admitted.vlan).ok_or(DropReason::NoSuchPort)?;
        let [src, dst] = tables.macs.spots(segment, [src, dst]);
        Ok(Entered { bridge, bytes, port, offload, src, dst, segment, admitted, base, frame })
    }

    /// What a guarded or policed port adds to the rules of its VLANs.
    #[inline(never)]
    fn watch<S: Sink>(&self, topology: &Topology, sink: &mut S) -> Result<(), DropReason> {
        let Some(port) = topology.port(self.port.id) else { return Ok(()) };
        if let Some(guard) = &port.guard
            && let Err(breach) = guard::check(guard, self.inner())
        {
            sink.note(Step::Spoofed { port: port.id, breach, guard: Allowed::by(guard) });
            return Err(breach.reason());
        }
        // What is refused for another reason costs nothing of what may pass.
        match &port.policers.ingress {
            Some(policer) if !sink.admits(policer, self.inner().len()) => {
                sink.note(Step::Policed { port: port.id, rate: policer.rate() });
                Err(DropReason::Policed)
            }
            _ => Ok(()),
        }
    }

    /// It has been let in, unless its destination is kept from all.
    #[inline(always)]
    fn settle<S: Sink>(
        &self,
        tables: &Tables<'a>,
        bridge: &'a BridgeState,
        admitted: Admitted,
        place: &mut Option<Entered<'a>>,
        sink: &mut S,
    ) -> Result<(), DropReason> {
        let Self { port, number: frame, base, offload, bytes, .. } = *self;
        let (dst, src) = ethernet::addresses(self.inner()).ok_or(DropReason::ShortFrame)?;
        let segment = Segment::new(self.bridge, admitted.vlan).ok_or(DropReason::NoSuchPort)?;
        sink.note(Step::Admitted { port: port.id, segment, priority: admitted.priority() });
        let to = dst;
        let [src, dst] = tables.macs.spots(segment, [src, dst]);
        *place = Some(Entered { bridge, bytes, port, offload, src, dst, segment, admitted, base, frame });
        //= IEEE 802.1Q §8.6.3: reserved addresses are not forwarded.
        if to.may_be_kept() && bridge.keeps(to) {
            return Err(kept(tables, place, sink));
        }
        Ok(())
    }
}

impl<'a> Candidate<'a> {
    /// What the VLANs of its port say.
    #[inline(always)]
    fn admit(&self, tables: &Tables<'a>, bridge: &BridgeState) -> Result<Admitted, DropReason> {
        let sets = &tables.topology.vlan_sets;
        match self.port.kind {
            Kind::Plain => admit_plain(self.port, sets, bridge.config.vlan_limit, self.inner()),
            _ => admit_other(self.port, sets, self.inner()),
        }
    }

    /// The whole journey in a bridge with rules and mirrors: what looks on sees it by its VLAN, whatever the rules send
    /// where, and once.
    #[inline(never)]
    fn follow_seen<S: Sink>(
        &self,
        tables: &Tables<'a>,
        bridge: &'a BridgeState,
        (rules, mirrors): (&Rules, &Mirrors),
        sink: &mut S,
    ) -> Result<Verdict, DropReason> {
        let unread = self.entered(tables, bridge, Admitted::UNREAD)?;
        let offload = owed(tables, &unread).ok_or(DropReason::BadOffload)?;
        let admitted = self.admit(tables, bridge);
        let shown = admitted.and_then(|admitted| self.entered(tables, bridge, admitted));
        let mut copying = Copying::new(tables, mirrors, shown.ok(), &offload, sink);
        if S::IS_NEW {
            copying.arrived();
        }
        if let Some(verdict) = rules::follow(tables, rules, &unread, &mut copying)? {
            return Ok(verdict);
        }
        let mut place = None;
        self.settle(tables, bridge, admitted?, &mut place, &mut copying)?;
        let entered = place.ok_or(DropReason::NoSuchPort)?;
        Ok(pass_unseen(tables, &entered, &offload, &mut Last::nothing(), &mut copying))
    }
}

/// Length of a VXLAN header.
const HEADER_LEN: u32 = 8;
const _: () = assert!(HEADER_LEN as usize == vxlan::HEADER_LEN);

/// The VXLAN header's rules: which segment the datagram is for, or why it is refused.
fn decapsulate<'a>(
    topology: &'a Topology,
    port: &Port,
    datagram: &[u8],
) -> Result<(&'a Edge, Segment), DropReason> {
    let header = vxlan::Header::parse(datagram).ok_or(DropReason::VxlanShort)?;
    let tunnel = port.tunnel().ok_or(DropReason::UnknownPeer)?;
    if !header.has_vni() {
        return Err(DropReason::VxlanNoVni);
    }
    if tunnel.strict && !header.reserved_is_zero() {
        return Err(DropReason::VxlanReserved);
    }
    let segment = topology.segment_of(header.vni()).ok_or(DropReason::UnknownVni)?;
    let edge = topology.edge(port.id).ok_or(DropReason::UnknownPeer)?;
    match &tunnel.carries {
        Carries::PerVni(Some(vnis)) if !vnis.contains(&header.vni()) => Err(DropReason::VniNotShared),
        Carries::PerVni(_) => Ok((edge, segment)),
        Carries::Inside { .. } => Err(DropReason::UnknownVni),
    }
}
