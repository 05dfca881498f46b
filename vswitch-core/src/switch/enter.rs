//! The first half of a journey: who sends it, which segment it is in, and whether it may enter at all.
//!
//! Nothing here asks the MAC table, so a whole batch can be let in before the first of its frames is decided. Not
//! here: what becomes of a frame that is in (see [`super::leave`]).

use super::dress::{Admitted, admit_other, admit_plain};
use super::edge::{Edge, Kind};
use super::explain::Step;
use super::guard::{self, Allowed};
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
    let (arrival, _, bytes) = arrived;
    match *arrival {
        Arrival::Port(id) => {
            let Some(port) = tables.topology.edge(id) else {
                return Err(dropped(None, DropReason::NoSuchPort, sink));
            };
            sink.received(id, bytes.len());
            let entered = if port.enters_plainly {
                ingress_plain(tables, port, number, arrived, place, sink)
            } else if port.is_watched {
                ingress_watched(tables, port, number, arrived, place, sink)
            } else {
                ingress_other(tables, (port, None), number, arrived, place, sink)
            };
            entered.map_err(|reason| dropped(Some(id), reason, sink))
        }
        Arrival::Underlay { remote, .. } => from_underlay(tables, remote, number, arrived, place, sink),
    }
}

#[cold]
fn dropped<S: Sink>(port: Option<PortId>, reason: DropReason, sink: &mut S) -> Verdict {
    sink.drop(port, reason);
    Verdict::Drop(reason)
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

/// The same for a port that is guarded or policed, whatever its VLANs.
#[inline(never)]
fn ingress_watched<'a, S: Sink>(
    tables: &Tables<'a>,
    port: &'a Edge,
    number: u32,
    (_, offload, bytes): Arrived<'a>,
    place: &mut Option<Entered<'a>>,
    sink: &mut S,
) -> Result<(), DropReason> {
    let frame = Candidate { port, bridge: port.bridge, number, base: 0, offload, bytes };
    let bridge = frame.check(tables, None, sink)?;
    let sets = &tables.topology.vlan_sets;
    let admitted = match port.kind {
        Kind::Plain => admit_plain(port, sets, bridge.config.vlan_limit, bytes)?,
        _ => admit_other(port, sets, bytes)?,
    };
    // What the switch lets in a second time has been looked at; what it says itself is true.
    if S::ARRIVING {
        frame.watch(tables.topology, sink)?;
    }
    frame.settle(tables, bridge, admitted, place, sink)
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
        if let (Some(segment), Some(vni)) = (tunnelled, tunnelled.and_then(|s| tables.topology.vni_of(s))) {
            sink.note(Step::Decapsulated { vni, segment });
        }
        let frame = self.inner();
        if frame.len() > MAX_FRAME_LEN {
            return Err(DropReason::LongFrame);
        }
        let (dst, src) = ethernet::addresses(frame).ok_or(DropReason::ShortFrame)?;
        sink.note(Step::Addresses { dst, src, tag: vlan::tag_at(frame, ADDRESSES_LEN) });
        tables.topology.bridge(self.bridge).ok_or(DropReason::NoSuchPort)
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
        //= IEEE 802.1Q §8.6.3: reserved addresses are not forwarded.
        if dst.is_reserved_group() && !bridge.config.forward_bpdu {
            return Err(DropReason::ReservedGroup);
        }
        let [src, dst] = tables.macs.spots(segment, [src, dst]);
        *place = Some(Entered { bridge, bytes, port, offload, src, dst, segment, admitted, base, frame });
        Ok(())
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
