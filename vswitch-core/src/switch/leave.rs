//! The second half of a journey: learn the source, find the destination, leave.
//!
//! Not here: how a frame came to be in a segment (see [`super::enter`]), and what a tag edit is (see
//! [`super::dress`]).

use super::cross::cross;
use super::dress::{Dress, dress, dress_for_tunnel, dress_plainly};
use super::edge::{Behind, Edge, Kind};
use super::enter::Entered;
use super::explain::Step;
use super::special::pass_specially;
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
    match owed(tables, frame) {
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
    if frame.bridge.is_special {
        return pass_specially(tables, frame, offload, last, sink);
    }
    let decision = decide(tables, frame, last, sink);
    carry_out(tables, frame, offload, decision, sink)
}

/// What was decided is done.
#[inline(always)]
pub(super) fn carry_out<S: Sink>(
    tables: &Tables<'_>,
    frame: &Entered<'_>,
    offload: &Offload,
    decision: Decision<'_>,
    sink: &mut S,
) -> Verdict {
    match decision {
        Decision::To(port) => to(tables, frame, offload, port, sink).unwrap_or(Verdict::To(port.id)),
        Decision::Flood => flood(tables, frame, offload, sink).unwrap_or(Verdict::Flood(frame.segment)),
        Decision::Drop(reason) => dropped(frame, reason, sink),
        Decision::Punt(why) => Verdict::Punt(why),
    }
}

#[cold]
fn dropped<S: Sink>(frame: &Entered<'_>, reason: DropReason, sink: &mut S) -> Verdict {
    sink.drop(Some(frame.port.id), reason);
    Verdict::Drop(reason)
}

/// What a frame owes, counted from its own first byte; `None` where that cannot be.
pub(super) fn owed(tables: &Tables<'_>, frame: &Entered<'_>) -> Option<Offload> {
    if frame.base == 0 {
        return Some(*frame.offload);
    }
    inner_offload(tables.topology.port(frame.port.id)?, frame)
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
#[derive(Clone, Copy)]
pub(super) enum Decision<'a> {
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
pub(super) fn decide<'a, S: Sink>(
    tables: &Tables<'a>,
    frame: &Entered<'_>,
    last: &mut Last,
    sink: &mut S,
) -> Decision<'a> {
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
    tables: &Tables<'_>,
    frame: &Entered<'_>,
    offload: &Offload,
    port: &Edge,
    sink: &mut S,
) -> Option<Verdict> {
    if port.bridge == frame.segment.bridge()
        && let Some(dress) = plainly(tables.topology, port, frame, offload)
    {
        sink.emit::<false>(port.id, frame, &dress, Offload::NONE, 0);
        return None;
    }
    to_by_all_rules(tables, frame, offload, port, sink)
}

/// The dress of a frame about which there is nothing to think but its VLAN's tag. Most are like that, and this is
/// all they need; what is told to the others, [`egress`] says.
#[inline(always)]
pub(super) fn plainly(
    topology: &Topology,
    port: &Edge,
    frame: &Entered<'_>,
    offload: &Offload,
) -> Option<Dress> {
    let dress = dress_plainly(port, &topology.vlan_sets, &frame.admitted)?;
    offload.is_none().then_some(dress)
}

#[inline(never)]
fn to_by_all_rules<S: Sink>(
    tables: &Tables<'_>,
    frame: &Entered<'_>,
    offload: &Offload,
    port: &Edge,
    sink: &mut S,
) -> Option<Verdict> {
    // A flood asks the segment's listeners; here the MAC table alone has spoken.
    let left = if is_of(tables.topology, port, frame.segment) {
        egress::<false, S>(tables, port, frame, offload, sink)
    } else {
        Err(Refusal::Drop(DropReason::VlanNotOnEgress))
    };
    left.err().map(|refusal| refused(frame, port, &refusal, sink))
}

/// Whether `port` is in the bridge of `segment`, or in the tunnel's case shares it, and is not for copies alone.
#[inline(always)]
pub(super) fn is_of(topology: &Topology, port: &Edge, segment: Segment) -> bool {
    let carried = match port.kind {
        Kind::Tunnel => shares(topology, port, segment),
        _ => port.bridge == segment.bridge(),
    };
    carried && !port.is_reserved
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
pub(super) fn flood<S: Sink>(
    tables: &Tables<'_>,
    frame: &Entered<'_>,
    offload: &Offload,
    sink: &mut S,
) -> Option<Verdict> {
    let listeners = tables.topology.listeners(frame.segment);
    spread(tables, frame, offload, listeners, DropReason::NoEgress, sink)
}

/// Leaves by all of `listeners` but its own port and its group's. Where there was nobody else, that is why it died.
#[inline(always)]
pub(super) fn spread<'a, S: Sink>(
    tables: &Tables<'_>,
    frame: &Entered<'_>,
    offload: &Offload,
    listeners: impl Iterator<Item = &'a Edge>,
    nobody: DropReason,
    sink: &mut S,
) -> Option<Verdict> {
    let topology = tables.topology;
    let (mut heard, mut horizon) = (false, false);
    let (mut too_big, mut refused) = (None, None);
    for port in listeners {
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
        match egress::<true, S>(tables, port, frame, offload, sink) {
            Ok(()) => heard = true,
            Err(Refusal::Drop(reason)) => {
                sink.note(Step::Refused { port: port.id, reason });
                // Not a listener after all, where only the frame's inner tag tells; else a death, counted once.
                let is_known = is_of_port(reason) && refused.is_some();
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
        && !is_of_port(reason)
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
    let reason = if horizon { DropReason::SplitHorizon } else { nobody };
    sink.drop(Some(frame.port.id), reason);
    Some(Verdict::Drop(reason))
}

/// Whether a frame that many should hear dies of it at one port alone, where it has been counted.
pub(super) const fn is_of_port(reason: DropReason) -> bool {
    matches!(reason, DropReason::PolicedEgress | DropReason::LinkDown | DropReason::PatchLoop)
}

pub(super) enum Refusal {
    Drop(DropReason),
    /// As [`Why::TooBig`] says it.
    TooBig {
        mtu: u16,
    },
}

#[inline(never)]
pub(super) fn egress<const MANY: bool, S: Sink>(
    tables: &Tables<'_>,
    port: &Edge,
    frame: &Entered<'_>,
    offload: &Offload,
    sink: &mut S,
) -> Result<(), Refusal> {
    let topology = tables.topology;
    if port.kind == Kind::Tunnel {
        return into_tunnel::<MANY, S>(topology, port, frame, offload, sink);
    }
    let dress = dress(port, &topology.vlan_sets, &frame.admitted).map_err(Refusal::Drop)?;
    in_dress::<MANY, S>(tables, port, frame, (&dress, offload), sink)
}

/// Leaves by `to`, a port of the bridge that the frame is in, as it arrived. `Some` where that came to nothing.
#[inline(never)]
pub(super) fn output<S: Sink>(
    tables: &Tables<'_>,
    frame: &Entered<'_>,
    offload: &Offload,
    to: PortId,
    sink: &mut S,
) -> Option<Verdict> {
    let is_of_bridge = |port: &&Edge| port.kind != Kind::Tunnel && port.bridge == frame.segment.bridge();
    let Some(port) = tables.topology.edge(to).filter(is_of_bridge) else {
        return Some(dropped(frame, DropReason::NoEgress, sink));
    };
    let left = in_dress::<false, S>(tables, port, frame, (&Dress::AS_ARRIVED, offload), sink);
    left.err().map(|refusal| refused(frame, port, &refusal, sink))
}

/// Leaves by a port with VLANs of its own, whatever is behind it.
#[inline(always)]
pub(super) fn in_dress<const MANY: bool, S: Sink>(
    tables: &Tables<'_>,
    port: &Edge,
    frame: &Entered<'_>,
    (dress, offload): (&Dress, &Offload),
    sink: &mut S,
) -> Result<(), Refusal> {
    let topology = tables.topology;
    if port.behind == Behind::Underlay {
        return wrapped::<MANY, S>(topology, port, frame, (dress, offload), sink);
    }
    let offload = shifted(offload, dress.growth())?;
    if port.is_policed {
        policed::<MANY, S>(topology, port.id, frame, dress, sink)?;
    }
    if port.behind == Behind::Cable {
        let crossed = cross(tables, port, frame, (dress, offload), sink);
        if MANY && let Err(reason) = crossed {
            sink.drop(Some(port.id), reason);
        }
        if crossed.is_ok() {
            sink.left(port.id);
        }
        return crossed.map_err(Refusal::Drop);
    }
    sink.emit::<MANY>(port.id, frame, dress, offload, 0);
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
    let vni = frame.bridge.members(frame.admitted.vlan).vni;
    let dress = dress_for_tunnel(port.inner_vlan, vni, &frame.admitted, frame.inner());
    into_datagram::<MANY, S>(topology, port, frame, (&dress.map_err(Refusal::Drop)?, offload), sink)
}

/// Into an ordinary tunnel, in the dress of its VLANs.
#[inline(never)]
fn wrapped<const MANY: bool, S: Sink>(
    topology: &Topology,
    port: &Edge,
    frame: &Entered<'_>,
    (dress, offload): (&Dress, &Offload),
    sink: &mut S,
) -> Result<(), Refusal> {
    let vni = match topology.port(port.id).and_then(Port::tunnel).map(|tunnel| &tunnel.carries) {
        Some(Carries::Inside { out_vni, .. }) => Some(*out_vni),
        _ => return Err(Refusal::Drop(DropReason::VlanNotOnEgress)),
    };
    into_datagram::<MANY, S>(topology, port, frame, (&Dress { vni, ..*dress }, offload), sink)
}

/// Behind a VXLAN header, if it fits the path.
#[inline(always)]
fn into_datagram<const MANY: bool, S: Sink>(
    topology: &Topology,
    port: &Edge,
    frame: &Entered<'_>,
    (dress, offload): (&Dress, &Offload),
    sink: &mut S,
) -> Result<(), Refusal> {
    let Some((port, tunnel)) = topology.port(port.id).and_then(|port| Some((port, port.tunnel()?))) else {
        return Err(Refusal::Drop(DropReason::VlanNotOnEgress));
    };
    let inner = frame.inner();
    let offload = shifted(offload, dress.growth())?;
    fits(port.mtu, tunnel.remote.to_canonical().is_ipv6(), inner, dress, &offload)?;
    let offload = shifted(&offload, 8)?;
    sink.emit::<MANY>(port.id, frame, dress, offload, flow::entropy(inner));
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
