//! Multicast in a bridge that snoops (RFC 4541): to those who joined, and to routers.
//!
//! Not here: who joined (that is found out from [`crate::verdict::Why::Snoop`], by whoever keeps [`Groups`]).

use crate::port::{PortId, Segment};
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
