//! What a frame still owes when it has come in: as it is told, or as a tunnel's frame shows.
//!
//! Not here: paying it (see [`crate::offload`]), and how the facts move with a frame's dress (see [`super::leave`]).

use super::enter::Entered;
use super::topology::Topology;
use crate::offload::{self, Gso, GsoKind, Offload, partial_checksum};
use crate::port::Port;
use crate::wire::{ethernet, vlan, vxlan};

/// What a frame owes, counted from its own first byte; `None` where what is said of it cannot be.
pub(super) fn offload_of(topology: &Topology, frame: &Entered<'_>) -> Option<Offload> {
    if frame.base == 0 {
        return Some(*frame.offload);
    }
    topology.port(frame.port.id).and_then(|port| inner_offload(port, frame))
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
pub(super) fn room(mtu: u16, ipv6: bool) -> usize {
    let overhead = if ipv6 { vxlan::OVERHEAD_IPV6 } else { vxlan::OVERHEAD_IPV4 };
    usize::from(mtu).saturating_sub(usize::from(overhead) - ethernet::HEADER_LEN)
}
