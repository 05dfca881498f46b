//! The second half of a journey: learn the source, find the destination, leave.
//!
//! Not here: how a frame came to be in a segment (see [`super::enter`]), and what a tag edit is (see
//! [`super::dress`]).

use super::dress::{Dress, dress, dress_for_tunnel, dress_plainly};
use super::edge::{Edge, Kind};
use super::enter::Entered;
use super::explain::Step;
use super::topology::Topology;
use super::{Sink, Tables};
use crate::frame::{Head, TxList};
use crate::mac_table::Learned;
use crate::offload::{self, Gso, GsoKind, Offload, partial_checksum};
use crate::port::{Carries, Group, Port, PortId, Segment};
use crate::verdict::{DropReason, Verdict, Why};
use crate::wire::ethernet::{self, ADDRESSES_LEN};
use crate::wire::neigh::{self, Message};
use crate::wire::{flow, vlan, vxlan};

/// From the decision to the ports.
#[inline(always)]
pub(super) fn leave<S: Sink>(
    tables: &Tables<'_>,
    frame: &Entered<'_>,
    last: &mut Last,
    sink: &mut S,
) -> Verdict {
    if frame.base != 0 {
        return leave_tunnel(tables, frame, last, sink);
    }
    pass(tables, frame, frame.offload, last, sink)
}

/// For a frame that came out of a tunnel, whose offload facts are its own affair.
#[inline(never)]
fn leave_tunnel<S: Sink>(tables: &Tables<'_>, frame: &Entered<'_>, last: &mut Last, sink: &mut S) -> Verdict {
    match tables.topology.port(frame.port.id).and_then(|port| inner_offload(port, frame)) {
        Some(offload) => pass(tables, frame, &offload, last, sink),
        None => dropped(frame, DropReason::BadOffload, sink),
    }
}

#[inline(always)]
fn pass<S: Sink>(
    tables: &Tables<'_>,
    frame: &Entered<'_>,
    offload: &Offload,
    last: &mut Last,
    sink: &mut S,
) -> Verdict {
    match decide(tables, frame, last, sink) {
        Decision::To(port) => to(tables.topology, frame, offload, port, sink).unwrap_or(Verdict::To(port.id)),
        Decision::Flood => {
            flood(tables.topology, frame, offload, sink).unwrap_or(Verdict::Flood(frame.segment))
        }
        Decision::Drop(reason) => dropped(frame, reason, sink),
        Decision::Punt(why) => Verdict::Punt(why),
    }
}

#[cold]
fn dropped<S: Sink>(frame: &Entered<'_>, reason: DropReason, sink: &mut S) -> Verdict {
    sink.drop(Some(frame.port.id), reason);
    Verdict::Drop(reason)
}

/// What a frame out of a tunnel owes, counted from its own first byte.
#[inline(never)]
fn inner_offload(port: &Port, entered: &Entered<'_>) -> Option<Offload> {
    let (offload, frame) = (entered.offload, entered.inner());
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

/// What the addresses say.
enum Decision<'a> {
    To(&'a Edge),
    Flood,
    Drop(DropReason),
    /// Handed out already.
    Punt(Why),
}

/// What the MAC table said of the frame before, for the next one of the same flow: asked again at once, it would say
/// the same. Frames that a kernel or a peer hands over in one piece come in trains of forty and more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    src: u64,
    dst: u64,
    /// The arrival port; none where the source was not known and noted already.
    port: Option<PortId>,
    found: Option<PortId>,
}

impl Last {
    pub(super) const fn nothing() -> Self {
        Self { src: 0, dst: 0, port: None, found: None }
    }

    #[inline(always)]
    fn is_of(&self, frame: &Entered<'_>) -> bool {
        self.dst == frame.dst.key() && self.src == frame.src.key() && self.port == Some(frame.port.id)
    }
}

/// Learns the source and looks the destination up.
#[inline(always)]
fn decide<'a, S: Sink>(
    tables: &Tables<'a>,
    frame: &Entered<'_>,
    last: &mut Last,
    sink: &mut S,
) -> Decision<'a> {
    if frame.bridge.floods(frame.admitted.vlan) {
        sink.note(Step::FloodVlan);
        return Decision::Flood;
    }
    let found = if last.is_of(frame) {
        last.found
    } else {
        let learned = sink.learn(frame);
        sink.note(Step::Learned(learned));
        if S::ARRIVING && frame.bridge.config.neigh_suppress && punted(frame, sink) {
            return Decision::Punt(Why::Neigh);
        }
        if frame.dst.mac().is_group() {
            sink.note(Step::Group);
            return Decision::Flood;
        }
        let found = if frame.dst.key() == frame.src.key() && !matches!(learned, Learned::Refused(_)) {
            // Said apart, because `explain` has not really learned it.
            Some(frame.port.id)
        } else {
            tables.macs.lookup_at(&tables.now, frame.segment, &frame.dst)
        };
        let port = (learned == Learned::Same).then_some(frame.port.id);
        *last = Last { src: frame.src.key(), dst: frame.dst.key(), port, found };
        found
    };
    sink.note(Step::LookedUp(found));
    match found {
        Some(port) if port == frame.port.id => Decision::Drop(DropReason::SamePort),
        Some(port) => match tables.topology.edge(port) {
            Some(to) if to.group == frame.port.group && to.group != Group::NONE => {
                Decision::Drop(DropReason::SplitHorizon)
            }
            Some(to) => Decision::To(to),
            // Removed a moment ago; its entries are being forgotten.
            None => Decision::Flood,
        },
        None => Decision::Flood,
    }
}

/// Hands out a question where an address is, and a copy of a statement, from a local port. Whether that was the frame's
/// end.
#[inline(always)]
fn punted<S: Sink>(frame: &Entered<'_>, sink: &mut S) -> bool {
    if frame.base != 0 {
        return false;
    }
    match neigh::message(frame.bytes, frame.admitted.is_tagged()) {
        None => false,
        Some(Message::Question) => {
            sink.punt(frame.punt(Why::Neigh));
            true
        }
        Some(Message::Statement) => {
            sink.punt(frame.punt(Why::NeighSeen));
            false
        }
    }
}

/// Leaves by one port. `Some` where that came to nothing.
#[inline(always)]
fn to<S: Sink>(
    topology: &Topology,
    frame: &Entered<'_>,
    offload: &Offload,
    port: &Edge,
    sink: &mut S,
) -> Option<Verdict> {
    if port.bridge == frame.segment.bridge()
        && let Some(dress) = plainly(topology, port, frame, offload)
    {
        sink.emit::<false>(port.id, frame, &dress, Offload::NONE, 0);
        return None;
    }
    to_by_all_rules(topology, frame, offload, port, sink)
}

/// The dress of a frame about which there is nothing to think but its VLAN's tag. Most are like that, and this is
/// all they need; what is told to the others, [`egress`] says.
#[inline(always)]
fn plainly(topology: &Topology, port: &Edge, frame: &Entered<'_>, offload: &Offload) -> Option<Dress> {
    let dress = dress_plainly(port, &topology.vlan_sets, &frame.admitted)?;
    offload.is_none().then_some(dress)
}

#[inline(never)]
fn to_by_all_rules<S: Sink>(
    topology: &Topology,
    frame: &Entered<'_>,
    offload: &Offload,
    port: &Edge,
    sink: &mut S,
) -> Option<Verdict> {
    // A flood asks the segment's listeners; here the MAC table alone has spoken.
    let carried = match port.kind {
        Kind::Tunnel => shares(topology, port, frame.segment),
        _ => port.bridge == frame.segment.bridge(),
    };
    let left = if carried {
        egress::<false, S>(topology, port, frame, offload, sink)
    } else {
        Err(Refusal::Drop(DropReason::VlanNotOnEgress))
    };
    left.err().map(|refusal| refused(frame, port, &refusal, sink))
}

/// Whether the peer behind `port` shares `segment`.
fn shares(topology: &Topology, port: &Edge, segment: Segment) -> bool {
    match topology.port(port.id).and_then(Port::tunnel).map(|tunnel| &tunnel.carries) {
        Some(Carries::PerVni(None)) => true,
        Some(Carries::PerVni(Some(vnis))) => topology.vni_of(segment).is_some_and(|vni| vnis.contains(&vni)),
        Some(Carries::Inside { .. }) | None => false,
    }
}

#[cold]
fn refused<S: Sink>(frame: &Entered<'_>, port: &Edge, refusal: &Refusal, sink: &mut S) -> Verdict {
    match *refusal {
        Refusal::Drop(reason) => {
            sink.drop(Some(frame.dies_at(port, reason)), reason);
            Verdict::Drop(reason)
        }
        Refusal::TooBig { mtu } => {
            let why = Why::TooBig { mtu };
            sink.drop(Some(port.id), DropReason::TooBig);
            sink.punt(frame.punt(why));
            Verdict::Punt(why)
        }
    }
}

/// Leaves by every port of the segment but its own and its group's. `Some` when nobody heard.
#[inline(never)]
fn flood<S: Sink>(
    topology: &Topology,
    frame: &Entered<'_>,
    offload: &Offload,
    sink: &mut S,
) -> Option<Verdict> {
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
        if let Some(dress) = plainly(topology, port, frame, offload) {
            sink.emit::<true>(port.id, frame, &dress, Offload::NONE, 0);
            heard = true;
            continue;
        }
        match egress::<true, S>(topology, port, frame, offload, sink) {
            Ok(()) => heard = true,
            Err(Refusal::Drop(reason)) => {
                sink.note(Step::Refused { port: port.id, reason });
                // Not a listener after all, where only the frame's inner tag tells; else a death, counted once.
                let is_known = reason == DropReason::PolicedEgress && refused.is_some();
                if reason != DropReason::VlanNotOnEgress && !is_known {
                    refused = Some((frame.dies_at(port, reason), reason));
                }
            }
            Err(Refusal::TooBig { mtu }) => {
                sink.drop(Some(port.id), DropReason::TooBig);
                too_big = Some(too_big.map_or(mtu, |least: u16| least.min(mtu)));
            }
        }
    }
    if let Some((at, reason)) = refused
        && reason != DropReason::PolicedEgress
    {
        sink.drop(Some(at), reason);
    }
    if let Some(mtu) = too_big {
        if !frame.dst.mac().is_group() {
            sink.punt(frame.punt(Why::TooBig { mtu }));
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
    /// As [`Why::TooBig`] says it.
    TooBig {
        mtu: u16,
    },
}

#[inline(never)]
fn egress<const MANY: bool, S: Sink>(
    topology: &Topology,
    port: &Edge,
    frame: &Entered<'_>,
    offload: &Offload,
    sink: &mut S,
) -> Result<(), Refusal> {
    if port.kind == Kind::Tunnel {
        return into_tunnel::<MANY, S>(topology, port, frame, offload, sink);
    }
    let dress = dress(port, &topology.vlan_sets, &frame.admitted).map_err(Refusal::Drop)?;
    let offload = shifted(offload, dress.growth())?;
    if port.is_policed {
        policed::<MANY, S>(topology, port.id, frame, &dress, sink)?;
    }
    sink.emit::<MANY>(port.id, frame, &dress, offload, 0);
    Ok(())
}

/// Refuses what is more than the port is to be sent. Where `MANY` hear the frame, each that does not is counted here: it
/// is the port's affair and not the frame's.
#[inline(never)]
fn policed<const MANY: bool, S: Sink>(
    topology: &Topology,
    port: PortId,
    frame: &Entered<'_>,
    dress: &Dress,
    sink: &mut S,
) -> Result<(), Refusal> {
    let policer = topology.port(port).and_then(|port| port.policers.egress.as_ref());
    let growth = isize::try_from(dress.growth()).unwrap_or(0);
    match policer {
        Some(policer) if !sink.admits(policer, frame.inner().len().saturating_add_signed(growth)) => {
            sink.note(Step::Policed { port, rate: policer.rate() });
            if MANY {
                sink.drop(Some(port), DropReason::PolicedEgress);
            }
            Err(Refusal::Drop(DropReason::PolicedEgress))
        }
        _ => Ok(()),
    }
}

#[inline(always)]
fn into_tunnel<const MANY: bool, S: Sink>(
    topology: &Topology,
    port: &Edge,
    frame: &Entered<'_>,
    offload: &Offload,
    sink: &mut S,
) -> Result<(), Refusal> {
    let refused = Refusal::Drop(DropReason::VlanNotOnEgress);
    let Some((port, tunnel)) = topology.port(port.id).and_then(|port| Some((port, port.tunnel()?))) else {
        return Err(refused);
    };
    let inner = frame.inner();
    let vni = frame.bridge.members(frame.admitted.vlan).vni;
    let dress = dress_for_tunnel(tunnel.inner_vlan, vni, &frame.admitted, inner).map_err(Refusal::Drop)?;
    let offload = shifted(offload, dress.growth())?;
    fits(port.mtu, tunnel.remote.to_canonical().is_ipv6(), inner, &dress, &offload)?;
    let offload = shifted(&offload, 8)?;
    sink.emit::<MANY>(port.id, frame, &dress, offload, flow::entropy(inner));
    Ok(())
}

#[inline(always)]
fn shifted(offload: &Offload, by: i32) -> Result<Offload, Refusal> {
    if offload.is_none() {
        return Ok(Offload::NONE);
    }
    offload.shifted(by).ok_or(Refusal::Drop(DropReason::BadOffload))
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
    Err(Refusal::TooBig { mtu: u16::try_from(mtu).unwrap_or(u16::MAX) })
}

/// Writes what stands in front of the arrived bytes: VXLAN header, addresses, tag, as many of them as the dress has.
#[inline(always)]
pub(super) fn write_head(tx: &mut TxList, frame: &Entered<'_>, dress: &Dress) -> Head {
    let vxlan = dress.vni.map(vxlan::header);
    let vxlan = vxlan.as_ref().map_or(&[][..], |header| header);
    match frame.inner().first_chunk() {
        // The addresses, and four bytes in whose place the tag will stand.
        Some(start) if dress.from > 0 => {
            let tag = dress.tag.is_some().then(|| dress.tag.bytes());
            tx.head_of(vxlan, start, tag)
        }
        _ if dress.from > 0 => short_head(tx, vxlan, frame, dress),
        _ => tx.head(&[vxlan]).unwrap_or(Head::NONE),
    }
}

/// [`write_head`] for a frame that has a type behind its addresses and nothing else.
#[cold]
fn short_head(tx: &mut TxList, vxlan: &[u8], frame: &Entered<'_>, dress: &Dress) -> Head {
    let addresses = frame.inner().get(..ADDRESSES_LEN).unwrap_or_default();
    let tag = dress.tag.bytes();
    let tag = if dress.tag.is_some() { &tag[..] } else { &[] };
    tx.head(&[vxlan, addresses, tag]).unwrap_or(Head::NONE)
}
