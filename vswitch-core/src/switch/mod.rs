//! The journey of a frame: ingress, learn, forward, egress.
//!
//! A [`Worker`] is one thread's share of the switch. It reads an immutable [`Topology`] and a [`MacTable`] that
//! all workers share, and writes a [`TxList`]. [`Worker::forward`] and [`Worker::explain`] run the very same
//! code over two kinds of `Sink`: one counts and sends, the other writes down.
//!
//! Not here: reading, sending, waiting, and the time.

mod counters;
mod dress;
mod explain;
mod sending;
mod topology;

pub use counters::{Counters, PortCounters};
pub use explain::{Explanation, Output, Step};
pub use topology::{Bridge, Topology, TopologyError};

use crate::frame::{Arrival, Batch, MAX_HEAD_LEN, TxList};
use crate::mac_table::{Learned, MacTable};
use crate::offload::{self, Gso, GsoKind, Offload, partial_checksum};
use crate::port::{Carries, Group, Port, PortId, Segment};
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict, Why};
use crate::wire::ethernet::{self, ADDRESSES_LEN, MAX_FRAME_LEN, Mac};
use crate::wire::{flow, vlan, vxlan};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use dress::{Admitted, Dress, admit, dress};
use sending::Sending;
use topology::BridgeState;

/// How many buckets of the MAC table are swept while its lock is held.
const SWEEP_BUCKETS: usize = 4096;
/// In how many ticks a whole table is swept.
const SWEEP_TICKS: usize = 32;
/// How many learning events wait for being fetched.
const EVENTS: usize = 1024;

/// A station was learned or moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StationEvent {
    /// Its segment.
    pub segment: Segment,
    /// Its address.
    pub mac: Mac,
    /// Where it is now.
    pub port: PortId,
    /// Where it was, when it moved.
    pub from: Option<PortId>,
}

/// A frame for the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punt {
    /// Which frame of the batch.
    pub frame: usize,
    /// Where the Ethernet frame begins in it: behind the VXLAN header, if any.
    pub from: usize,
    /// The port it came in by; an answer leaves there.
    pub port: PortId,
    /// What is asked.
    pub why: Why,
}

/// One thread's share of the switch.
#[derive(Debug)]
pub struct Worker {
    topology: Arc<Topology>,
    macs: Arc<MacTable>,
    counters: Counters,
    events: Vec<StationEvent>,
    punts: Vec<Punt>,
}

impl Worker {
    /// A worker over these. Every port must be bound in `macs` (see [`MacTable::bind`]) to be learned on.
    #[must_use]
    pub fn new(topology: Arc<Topology>, macs: Arc<MacTable>) -> Self {
        let mut counters = Counters::default();
        counters.grow(topology.port_numbers());
        let (events, punts) = (Vec::with_capacity(EVENTS), Vec::new());
        Self { topology, macs, counters, events, punts }
    }

    /// Takes a new configuration, between two batches; the old one is let go.
    pub fn apply(&mut self, topology: Arc<Topology>, macs: Arc<MacTable>) {
        self.counters.grow(topology.port_numbers());
        self.topology = topology;
        self.macs = macs;
    }

    /// The configuration in force.
    #[must_use]
    pub const fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// For what only the sender knows: what a link took or refused.
    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Stations learned or moved since the last call, 1,024 at most; more are counted as lost.
    pub fn events(&mut self) -> impl Iterator<Item = StationEvent> + '_ {
        self.events.drain(..)
    }

    /// The frames of the last [`Self::forward`] that the slow path should see.
    #[must_use]
    pub fn punts(&self) -> &[Punt] {
        &self.punts
    }

    /// Decides every frame of `batch` and queues what leaves in `tx`, in order; what `tx` held stays.
    pub fn forward(&mut self, now: Instant, batch: &Batch, tx: &mut TxList) {
        self.punts.clear();
        let tables = &Tables { topology: &self.topology, macs: &self.macs, now };
        let mut sink = Sending {
            macs: &self.macs,
            now,
            counters: &mut self.counters,
            events: &mut self.events,
            punts: &mut self.punts,
            tx,
            frame: 0,
            heads: [None; 2],
        };
        for (frame, (arrival, offload, bytes)) in batch.frames().enumerate() {
            sink.frame = frame;
            sink.heads = [None; 2];
            journey(tables, arrival, offload, bytes, &mut sink);
        }
    }

    /// Background work, once a second or so: clears what aged out.
    pub fn tick(&mut self, now: Instant) {
        // A bucket holds four entries and is half full at the limit.
        let buckets = usize::try_from(self.macs.limit() / 2).unwrap_or(usize::MAX);
        for _ in 0..=buckets / SWEEP_TICKS / SWEEP_BUCKETS {
            self.macs.sweep(now, SWEEP_BUCKETS);
        }
    }

    /// What [`Self::forward`] would do with `bytes`, step by step; nothing is learned, counted or sent. One thing it
    /// cannot tell: an entry that learning the source would push out of a full table is still found.
    #[must_use]
    pub fn explain(&self, now: Instant, arrival: Arrival, bytes: &[u8]) -> Explanation {
        explain::explain(&Tables { topology: &self.topology, macs: &self.macs, now }, arrival, bytes)
    }
}

/// Where a frame's journey leaves its marks.
trait Sink {
    /// A thing that happened, for whoever writes it down.
    fn note(&mut self, _step: Step) {}
    fn received(&mut self, port: PortId, bytes: usize);
    fn learn(&mut self, segment: Segment, mac: Mac, port: PortId) -> Learned;
    fn drop(&mut self, port: Option<PortId>, reason: DropReason);
    fn punt(&mut self, port: PortId, from: usize, why: Why);
    /// `bytes` in this dress leaves by `port`; `base` is where the Ethernet frame begins in what arrived.
    fn emit(
        &mut self,
        port: PortId,
        bytes: &[u8],
        base: usize,
        dress: &Dress,
        offload: Offload,
        entropy: u32,
    );
}

/// What decisions are made from.
struct Tables<'a> {
    topology: &'a Topology,
    macs: &'a MacTable,
    now: Instant,
}

/// A frame that has been let in.
struct Entered<'a> {
    bridge: &'a BridgeState,
    bytes: &'a [u8],
    base: usize,
    port: &'a Port,
    segment: Segment,
    admitted: Admitted,
    offload: Offload,
    dst: Mac,
    src: Mac,
}

impl Entered<'_> {
    /// Where a frame that `to` would have sent is counted when it dies.
    const fn dies_at(&self, to: &Port, reason: DropReason) -> PortId {
        if reason.is_ingress() { self.port.id } else { to.id }
    }
}

#[inline]
fn journey<S: Sink>(
    tables: &Tables<'_>,
    arrival: &Arrival,
    offload: &Offload,
    bytes: &[u8],
    sink: &mut S,
) -> Verdict {
    match *arrival {
        Arrival::Port(id) => {
            let Some(port) = tables.topology.port(id) else {
                return dropped(None, DropReason::NoSuchPort, sink);
            };
            sink.received(id, bytes.len());
            ingress(tables, port, None, offload, bytes, sink)
                .unwrap_or_else(|reason| dropped(Some(id), reason, sink))
        }
        Arrival::Underlay { remote, .. } => from_underlay(tables, remote, offload, bytes, sink),
    }
}

/// A journey that begins in a tunnel. Apart, because a frame from a port should not pay for it.
#[inline(never)]
fn from_underlay<S: Sink>(
    tables: &Tables<'_>,
    remote: IpAddr,
    offload: &Offload,
    bytes: &[u8],
    sink: &mut S,
) -> Verdict {
    let Some(port) = tables.topology.peer(remote.to_canonical()) else {
        return dropped(None, DropReason::UnknownPeer, sink);
    };
    sink.received(port.id, bytes.len().saturating_sub(vxlan::HEADER_LEN));
    decapsulate(tables.topology, port, bytes)
        .and_then(|segment| ingress(tables, port, Some(segment), offload, bytes, sink))
        .unwrap_or_else(|reason| dropped(Some(port.id), reason, sink))
}

fn dropped<S: Sink>(port: Option<PortId>, reason: DropReason, sink: &mut S) -> Verdict {
    sink.drop(port, reason);
    Verdict::Drop(reason)
}

/// Admission: which segment, which tags, and whether at all; `segment` is what a VXLAN header said. What is let
/// in goes on from here: handed back, it would be copied for every frame.
#[inline(always)]
fn ingress<S: Sink>(
    tables: &Tables<'_>,
    port: &Port,
    segment: Option<Segment>,
    offload: &Offload,
    bytes: &[u8],
    sink: &mut S,
) -> Result<Verdict, DropReason> {
    let topology = tables.topology;
    let base = if segment.is_some() { vxlan::HEADER_LEN } else { 0 };
    sink.note(Step::Arrived { port: port.id, len: bytes.len() });
    if let (Some(segment), Some(vni)) = (segment, segment.and_then(|s| topology.vni_of(s))) {
        sink.note(Step::Decapsulated { vni, segment });
    }
    let frame = bytes.get(base..).unwrap_or_default();
    if frame.len() > MAX_FRAME_LEN {
        return Err(DropReason::LongFrame);
    }
    let (dst, src) = ethernet::addresses(frame).ok_or(DropReason::ShortFrame)?;
    sink.note(Step::Addresses { dst, src, tag: vlan::tag_at(frame, ADDRESSES_LEN) });
    let number = segment.map_or(port.bridge, Segment::bridge);
    let bridge = topology.bridge(number).ok_or(DropReason::NoSuchPort)?;
    let mut admitted = admit(port, bridge.config.vlan_limit, frame)?;
    if let Some(segment) = segment {
        admitted.vlan = segment.vlan();
    }
    let segment = Segment::new(number, admitted.vlan).ok_or(DropReason::NoSuchPort)?;
    sink.note(Step::Admitted { port: port.id, segment, priority: admitted.priority });
    //= IEEE 802.1Q §8.6.3: reserved addresses are not forwarded.
    if dst.is_reserved_group() && !bridge.config.forward_bpdu {
        return Err(DropReason::ReservedGroup);
    }
    let offload = if base == 0 {
        *offload
    } else {
        inner_offload(port, offload, frame).ok_or(DropReason::BadOffload)?
    };
    let entered = Entered { bridge, bytes, base, port, segment, admitted, offload, dst, src };
    Ok(pass(tables, &entered, sink))
}

/// From the decision to the ports.
#[inline(always)]
fn pass<S: Sink>(tables: &Tables<'_>, frame: &Entered<'_>, sink: &mut S) -> Verdict {
    let verdict = decide(tables, frame, sink);
    match verdict {
        Verdict::To(port) => to(tables.topology, frame, port, sink).unwrap_or(verdict),
        Verdict::Flood(_) => flood(tables.topology, frame, sink).unwrap_or(verdict),
        Verdict::Drop(reason) => dropped(Some(frame.port.id), reason, sink),
        Verdict::Punt(_) => verdict,
    }
}

/// The VXLAN header's rules: which segment the datagram is for, or why it is refused.
fn decapsulate(topology: &Topology, port: &Port, datagram: &[u8]) -> Result<Segment, DropReason> {
    let header = vxlan::Header::parse(datagram).ok_or(DropReason::VxlanShort)?;
    let tunnel = port.tunnel().ok_or(DropReason::UnknownPeer)?;
    if !header.has_vni() {
        return Err(DropReason::VxlanNoVni);
    }
    if tunnel.strict && !header.reserved_is_zero() {
        return Err(DropReason::VxlanReserved);
    }
    let segment = topology.segment_of(header.vni()).ok_or(DropReason::UnknownVni)?;
    match &tunnel.carries {
        Carries::PerVni(Some(vnis)) if !vnis.contains(&header.vni()) => Err(DropReason::VniNotShared),
        Carries::PerVni(_) => Ok(segment),
    }
}

/// What a frame out of a tunnel owes, counted from its own first byte.
fn inner_offload(port: &Port, offload: &Offload, frame: &[u8]) -> Option<Offload> {
    if !offload.is_none() {
        return offload.shifted(-8);
    }
    // A Linux peer may have left the checksum to a wire that was not there, and the cutting as well.
    let checksum = partial_checksum(frame);
    let gso = checksum.and_then(|_| uncut(frame, room(port.mtu, port.tunnel()?.remote.is_ipv6())));
    Some(Offload { checksum, gso })
}

/// The facts of a TCP superframe that its sender's kernel never cut, because no wire on the way made it: a frame
/// larger than any that could have crossed the path in one piece. Into what it should have been cut nobody says;
/// the largest frames that fit the path are what a sender of full segments meant.
fn uncut(frame: &[u8], room: usize) -> Option<Gso> {
    if frame.len() <= room {
        return None;
    }
    let known = |kind| Some((kind, offload::header_len(frame, kind)?));
    let (kind, header_len) = known(GsoKind::Tcp4)
        .or_else(|| known(GsoKind::Tcp6))
        .filter(|(_, len)| usize::from(*len) + vlan::TAG_LEN <= offload::MAX_HEADERS_LEN)?;
    let size = room.checked_sub(usize::from(header_len)).filter(|size| *size > 0)?;
    Some(Gso { kind, size: u16::try_from(size).ok()?, header_len })
}

/// The longest frame that a tunnel over a path of `mtu` bytes can carry.
fn room(mtu: u16, ipv6: bool) -> usize {
    let overhead = if ipv6 { vxlan::OVERHEAD_IPV6 } else { vxlan::OVERHEAD_IPV4 };
    usize::from(mtu).saturating_sub(usize::from(overhead) - ethernet::HEADER_LEN)
}

/// Learns the source and looks the destination up.
#[inline(always)]
fn decide<S: Sink>(tables: &Tables<'_>, frame: &Entered<'_>, sink: &mut S) -> Verdict {
    if frame.bridge.config.flood_vlans.contains(frame.admitted.vlan) {
        sink.note(Step::FloodVlan);
        return Verdict::Flood(frame.segment);
    }
    let learned = sink.learn(frame.segment, frame.src, frame.port.id);
    sink.note(Step::Learned(learned));
    if frame.dst.is_group() {
        sink.note(Step::Group);
        return Verdict::Flood(frame.segment);
    }
    let found = if frame.dst == frame.src && !matches!(learned, Learned::Refused(_)) {
        // Said apart, because `explain` has not really learned it.
        Some(frame.port.id)
    } else {
        tables.macs.lookup(tables.now, frame.segment, frame.dst)
    };
    sink.note(Step::LookedUp(found));
    match found {
        Some(port) if port == frame.port.id => Verdict::Drop(DropReason::SamePort),
        Some(port) => match tables.topology.port(port) {
            Some(to) if to.group == frame.port.group && to.group != Group::NONE => {
                Verdict::Drop(DropReason::SplitHorizon)
            }
            Some(_) => Verdict::To(port),
            // Removed a moment ago; its entries are being forgotten.
            None => Verdict::Flood(frame.segment),
        },
        None => Verdict::Flood(frame.segment),
    }
}

/// Leaves by one port. `Some` where that came to nothing.
#[inline(always)]
fn to<S: Sink>(topology: &Topology, frame: &Entered<'_>, port: PortId, sink: &mut S) -> Option<Verdict> {
    let port = topology.port(port)?;
    // A flood asks the segment's listeners; here the MAC table alone has spoken.
    let carried = match port.tunnel().map(|tunnel| &tunnel.carries) {
        None => port.bridge == frame.segment.bridge(),
        Some(Carries::PerVni(None)) => true,
        Some(Carries::PerVni(Some(vnis))) => {
            topology.vni_of(frame.segment).is_some_and(|vni| vnis.contains(&vni))
        }
    };
    let left =
        if carried { egress(port, frame, sink) } else { Err(Refusal::Drop(DropReason::VlanNotOnEgress)) };
    match left {
        Ok(()) => None,
        Err(Refusal::Drop(reason)) => {
            sink.drop(Some(frame.dies_at(port, reason)), reason);
            Some(Verdict::Drop(reason))
        }
        Err(Refusal::TooBig(why)) => {
            sink.drop(Some(port.id), DropReason::TooBig);
            sink.punt(frame.port.id, frame.base, why);
            Some(Verdict::Punt(why))
        }
    }
}

/// Leaves by every port of the segment but its own and its group's. `Some` when nobody heard.
#[inline(never)]
fn flood<S: Sink>(topology: &Topology, frame: &Entered<'_>, sink: &mut S) -> Option<Verdict> {
    let (mut heard, mut horizon) = (false, false);
    let (mut too_big, mut refused) = (None, None);
    for port in topology.listeners(frame.segment) {
        if port.id == frame.port.id {
            continue;
        }
        if port.group == frame.port.group && port.group != Group::NONE {
            horizon = true;
            continue;
        }
        match egress(port, frame, sink) {
            Ok(()) => heard = true,
            Err(Refusal::Drop(reason)) => {
                sink.note(Step::Refused { port: port.id, reason });
                // Not a listener after all, where only the frame's inner tag tells; else a death, counted once.
                if reason != DropReason::VlanNotOnEgress {
                    refused = Some((frame.dies_at(port, reason), reason));
                }
            }
            Err(Refusal::TooBig(Why::TooBig { mtu })) => {
                sink.drop(Some(port.id), DropReason::TooBig);
                too_big = Some(too_big.map_or(mtu, |least: u16| least.min(mtu)));
            }
        }
    }
    if let Some((at, reason)) = refused {
        sink.drop(Some(at), reason);
    }
    if let Some(mtu) = too_big {
        if !frame.dst.is_group() {
            sink.punt(frame.port.id, frame.base, Why::TooBig { mtu });
        }
        return (!heard).then_some(Verdict::Drop(DropReason::TooBig));
    }
    if heard {
        return None;
    }
    if let Some((_, reason)) = refused {
        return Some(Verdict::Drop(reason));
    }
    let reason = if horizon { DropReason::SplitHorizon } else { DropReason::NoEgress };
    sink.drop(Some(frame.port.id), reason);
    Some(Verdict::Drop(reason))
}

enum Refusal {
    Drop(DropReason),
    TooBig(Why),
}

#[inline(always)]
fn egress<S: Sink>(port: &Port, frame: &Entered<'_>, sink: &mut S) -> Result<(), Refusal> {
    let inner = frame.bytes.get(frame.base..).unwrap_or_default();
    let tunnel = port.tunnel();
    let vni = tunnel.and_then(|_| frame.bridge.members(frame.admitted.vlan).vni);
    let dress = dress(port, vni, &frame.admitted, inner).map_err(Refusal::Drop)?;
    let mut offload = frame.offload;
    if !offload.is_none() {
        offload = offload.shifted(dress.growth()).ok_or(Refusal::Drop(DropReason::BadOffload))?;
    }
    if let Some(tunnel) = tunnel {
        fits(port.mtu, tunnel.remote.to_canonical().is_ipv6(), inner, &dress, &offload)?;
        let offload = offload.shifted(8).ok_or(Refusal::Drop(DropReason::BadOffload))?;
        sink.emit(port.id, frame.bytes, frame.base, &dress, offload, flow::entropy(inner));
    } else {
        sink.emit(port.id, frame.bytes, frame.base, &dress, offload, 0);
    }
    Ok(())
}

/// Whether the frame, or each frame that a superframe will be cut into, fits a path of `mtu` bytes.
fn fits(mtu: u16, ipv6: bool, inner: &[u8], dress: &Dress, offload: &Offload) -> Result<(), Refusal> {
    let whole = inner.len().saturating_add_signed(isize::try_from(dress.growth()).unwrap_or(0));
    let cut = |gso: Gso| usize::from(gso.header_len) + usize::from(gso.size);
    let len = offload.gso.map_or(whole, |gso| whole.min(cut(gso)));
    let room = room(mtu, ipv6);
    if len <= room {
        return Ok(());
    }
    let header =
        (vlan::tag_stack(inner).1 + 2).saturating_add_signed(isize::try_from(dress.growth()).unwrap_or(0));
    let mtu = room.saturating_sub(header);
    Err(Refusal::TooBig(Why::TooBig { mtu: u16::try_from(mtu).unwrap_or(u16::MAX) }))
}

/// Writes what stands in front of the arrived bytes; returns its length, 0..=24.
fn write_head(head: &mut [u8; MAX_HEAD_LEN], bytes: &[u8], base: usize, dress: &Dress) -> usize {
    let mut len = 0;
    let mut put = |part: &[u8]| {
        head[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    };
    if let Some(vni) = dress.vni {
        put(&vxlan::header(vni));
    }
    if dress.from > 0 {
        put(bytes.get(base..base + ADDRESSES_LEN).unwrap_or_default());
        if let Some(tag) = dress.tag {
            put(&tag.bytes());
        }
    }
    len
}
