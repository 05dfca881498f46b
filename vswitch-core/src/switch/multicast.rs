//! Multicast in a bridge that snoops (RFC 4541): to those who joined, and to routers.
//!
//! Not here: who joined (that is found out from [`crate::verdict::Why::Snoop`], by whoever keeps [`Groups`]).

use super::edge::Edge;
use super::enter::Entered;
use super::explain::Step;
use super::leave::{flood, is_of, spread};
use super::{Sink, Tables};
use crate::offload::Offload;
use crate::port::{PortId, Segment};
use crate::verdict::{DropReason, Verdict, Why};
use crate::wire::group::{self, Multicast};
use alloc::vec::Vec;
use core::net::IpAddr;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// How a bridge snoops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snooping {
    /// Whether frames to a group that nobody joined are flooded; else they go to routers alone.
    pub flood_unregistered: bool,
}

/// Who has joined which multicast group, and behind which ports routers are. Immutable; a change is a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Ports by rising number.
    members: HashMap<(Segment, IpAddr), Vec<PortId>, FixedState>,
    routers: HashMap<Segment, Vec<PortId>, FixedState>,
}

impl Groups {
    /// Of members, each a segment, a group and a port, and of ports with routers; in any order.
    #[must_use]
    pub fn new(
        members: impl IntoIterator<Item = (Segment, IpAddr, PortId)>,
        routers: impl IntoIterator<Item = (Segment, PortId)>,
    ) -> Self {
        let mut groups = Self::default();
        for (segment, group, port) in members {
            insert(groups.members.entry((segment, group)).or_default(), port);
        }
        for (segment, port) in routers {
            insert(groups.routers.entry(segment).or_default(), port);
        }
        groups
    }

    /// The ports that joined `group`, by rising number; `None` where nobody did.
    #[must_use]
    pub fn members(&self, segment: Segment, group: IpAddr) -> Option<&[PortId]> {
        self.members.get(&(segment, group)).map(Vec::as_slice)
    }

    /// The ports with routers, by rising number.
    #[must_use]
    pub fn routers(&self, segment: Segment) -> &[PortId] {
        self.routers.get(&segment).map_or(&[], Vec::as_slice)
    }
}

fn insert(ports: &mut Vec<PortId>, port: PortId) {
    if let Err(at) = ports.binary_search(&port) {
        ports.insert(at, port);
    }
}

/// Sends a frame to a group address on, as RFC 4541 §2.1 has it and Open vSwitch does it.
pub(super) fn send<S: Sink>(
    tables: &Tables<'_>,
    frame: &Entered<'_>,
    offload: &Offload,
    snooping: Snooping,
    sink: &mut S,
) -> Verdict {
    let kind = group::read(frame.inner());
    if S::IS_NEW && matches!(kind, Some(Multicast::Report | Multicast::Query)) {
        sink.punt(frame.punt(Why::Snoop));
    }
    let routers = tables.groups.routers(frame.segment);
    let (bridge, nobody) = (frame.bridge, &[][..]);
    let (members, extra, group) = match kind {
        //= RFC 4541 §2.1.1
        //# A snooping switch should forward IGMP Membership Reports only to those ports where multicast routers are
        //# attached.
        Some(Multicast::Report) => (Some(nobody), &bridge.reported, None),
        Some(Multicast::Group(group)) => {
            let members = tables.groups.members(frame.segment, group);
            let ends = members.is_some() || !snooping.flood_unregistered;
            (ends.then_some(members.unwrap_or(nobody)), &bridge.flooded, Some(group))
        }
        //= RFC 4541 §2.1.2
        //# Packets with a destination IP (DIP) address in the 224.0.0.X range which are not IGMP must be forwarded on all
        //# ports.
        Some(Multicast::Query | Multicast::Link) | None => (None, &bridge.flooded, None),
    };
    let left = match members {
        Some(members) => {
            sink.note(Step::Multicast { group, joined: !members.is_empty() });
            let ports = [members, routers, extra.as_slice()];
            let listeners = Union(ports).filter_map(|port| tables.topology.edge(port));
            let listeners = listeners.filter(|port: &&Edge| is_of(tables.topology, port, frame.segment));
            spread(tables, frame, offload, listeners, DropReason::NoListener, sink)
        }
        None => flood(tables, frame, offload, sink),
    };
    left.unwrap_or(Verdict::Flood(frame.segment))
}

/// The ports of three lists by rising number, each once.
struct Union<'a>([&'a [PortId]; 3]);

impl Iterator for Union<'_> {
    type Item = PortId;

    fn next(&mut self) -> Option<PortId> {
        let least = *self.0.iter().filter_map(|ports| ports.first()).min()?;
        for ports in &mut self.0 {
            if let Some((first, rest)) = ports.split_first()
                && *first == least
            {
                *ports = rest;
            }
        }
        Some(least)
    }
}
