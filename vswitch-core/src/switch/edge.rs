//! A port as every frame asks for it: in half a cache line, and in numbers that give one answer for access ports and
//! trunks without asking which of them it is.
//!
//! Made once for each port of a topology. Not here: tunnels beyond their being one (see [`crate::port::Tunnel`]), and
//! what is done with the answers (see [`super::dress`]).

use crate::port::{Attachment, Group, InnerVlan, Port, PortId, PriorityTags, VlanSet};
use crate::verdict::DropReason;
use crate::wire::vlan::{TPID_CTAG, Vlan};
use alloc::vec::Vec;

/// How a port treats tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// There is no port of this number.
    Absent,
    /// Access port or trunk: the outermost tag is the VLAN's.
    Plain,
    /// 802.1Q tunnel: all tags are the customer's.
    Customer,
    /// A remote node that shares segments under their VNIs.
    Tunnel,
}

/// What is behind a port that has VLANs of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Something that takes frames.
    Link,
    /// A remote node: an ordinary tunnel.
    Underlay,
    /// Another port, at the other end of a cable.
    Cable,
}

/// No VLAN, where one is compared with.
const NO_VLAN: u16 = u16::MAX;

/// The number of no set: whatever VLAN it is.
const EVERY_VLAN: u32 = u32::MAX;

/// See the head of this file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    pub(crate) id: PortId,
    /// Of a trunk, the VLANs carried; of a customer's port, the VLANs admitted inside; of an access port, none.
    vlans: u32,
    /// The VLAN of frames that arrive untagged, and the VLAN whose frames leave untagged.
    own: u16,
    untags: u16,
    /// What is added to the VID of a tagged frame and of an untagged one: 0, and `own` if there is one.
    by_untagged: [Vlan; 2],
    /// TPID of the VLAN's tag for a frame that arrived without one.
    pub(crate) tpid: u16,
    pub(crate) bridge: u8,
    pub(crate) group: Group,
    pub(crate) kind: Kind,
    pub(crate) behind: Behind,
    pub(crate) shows: PriorityTags,
    pub(crate) is_access: bool,
    /// An access port or trunk with a link behind it that shows no priority tags and takes whatever there is.
    pub(crate) is_simple: bool,
    /// An access port or trunk from which whatever its VLANs allow is let in, and no rules are asked.
    pub(crate) enters_plainly: bool,
    /// Not a tunnel, and guarded or policed where frames enter.
    pub(crate) is_watched: bool,
    /// Not a tunnel, and policed where frames leave.
    pub(crate) is_policed: bool,
    /// Reserved for the copies of a mirror.
    pub(crate) is_reserved: bool,
    /// Its bridge has rules.
    pub(crate) has_rules: bool,
    pub(crate) inner_vlan: InnerVlan,
}

impl Edge {
    pub(crate) const ABSENT: Self = Self {
        id: PortId::ZERO,
        vlans: 0,
        own: NO_VLAN,
        untags: NO_VLAN,
        by_untagged: [Vlan::UNTAGGED; 2],
        tpid: 0,
        bridge: 0,
        group: Group::NONE,
        kind: Kind::Absent,
        behind: Behind::Link,
        shows: PriorityTags::No,
        is_access: false,
        is_simple: false,
        enters_plainly: false,
        is_watched: false,
        is_policed: false,
        is_reserved: false,
        has_rules: false,
        inner_vlan: InnerVlan::Strip,
    };

    pub(crate) fn new(port: &Port, sets: &mut VlanSets) -> Self {
        let (bridge, group, shows) = (port.bridge, port.group, port.priority_tags);
        let is_local = port.tunnel().is_none();
        let is_plain = matches!(port.attached(), Attachment::Access(_) | Attachment::Trunk { .. });
        let is_watched = is_local && (port.guard.is_some() || port.policers.ingress.is_some());
        let is_policed = is_local && port.policers.egress.is_some();
        let behind = match port.patch {
            _ if !is_local => Behind::Underlay,
            Some(_) => Behind::Cable,
            None => Behind::Link,
        };
        let edge = Self {
            id: port.id,
            behind,
            bridge,
            group,
            shows,
            is_simple: is_plain && behind == Behind::Link && shows == PriorityTags::No && !is_policed,
            enters_plainly: is_plain && !is_watched,
            is_watched,
            is_policed,
            ..Self::ABSENT
        };
        match port.attached() {
            Attachment::Access(vlan) => {
                let own = vlan.get();
                let by_untagged = [Vlan::UNTAGGED, *vlan];
                let kind = Kind::Plain;
                Self { kind, is_access: true, own, untags: own, by_untagged, tpid: TPID_CTAG, ..edge }
            }
            Attachment::Trunk { vlans, native } => {
                let own = native.map_or(NO_VLAN, |native| native.vlan.get());
                let untags = if native.is_some_and(|native| !native.tagged) { own } else { NO_VLAN };
                let tpid = if native.is_some() { TPID_CTAG } else { 0 };
                let by_untagged = [Vlan::UNTAGGED, native.map_or(Vlan::UNTAGGED, |native| native.vlan)];
                let (kind, vlans) = (Kind::Plain, sets.number(vlans));
                Self { kind, vlans, own, untags, by_untagged, tpid, ..edge }
            }
            Attachment::Dot1qTunnel { vlan, cvlans, tpid } => {
                let vlans = cvlans.as_ref().map_or(EVERY_VLAN, |set| sets.number(set));
                Self { kind: Kind::Customer, vlans, own: vlan.get(), tpid: *tpid, ..edge }
            }
            Attachment::Tunnel(tunnel) => {
                Self { kind: Kind::Tunnel, tpid: TPID_CTAG, inner_vlan: tunnel.inner_vlan, ..edge }
            }
        }
    }

    /// The same port when a mirror's copies go there: nothing is simple about it any more.
    pub(crate) const fn reserved(self) -> Self {
        Self { is_reserved: true, is_simple: false, enters_plainly: false, ..self }
    }

    /// What arrives is asked for its bridge's rules.
    pub(crate) const fn follow_rules(&mut self) {
        (self.has_rules, self.enters_plainly) = (true, false);
    }

    /// The VLAN of a frame that arrives at an access port or trunk with this VID, 0 without a tag.
    #[inline(always)]
    pub(crate) fn vlan_of(&self, sets: &VlanSets, vid: Vlan) -> Result<Vlan, DropReason> {
        let is_untagged = vid == Vlan::UNTAGGED;
        let is_own = is_untagged & (self.own != NO_VLAN);
        if !is_own & !sets.contains(self.vlans, vid) {
            return Err(if self.is_access {
                DropReason::VlanTaggedOnAccess
            } else {
                DropReason::VlanNotTrunked
            });
        }
        // Looked up: tagged and untagged frames come in any order, and a branch would be mispredicted.
        Ok(self.by_untagged[usize::from(is_untagged)].or(vid))
    }

    /// The service VLAN, or that of untagged frames.
    #[inline(always)]
    pub(crate) fn own_vlan(&self) -> Vlan {
        Vlan::new(self.own).unwrap_or(Vlan::UNTAGGED)
    }

    #[inline(always)]
    pub(crate) fn is_own(&self, vlan: Vlan) -> bool {
        self.own == vlan.get()
    }

    /// Whether `vlan` is among the VLANs of a trunk.
    #[inline(always)]
    pub(crate) fn lists(&self, sets: &VlanSets, vlan: Vlan) -> bool {
        sets.contains(self.vlans, vlan)
    }

    /// Whether a customer's port admits this VID inside, 0 without a tag.
    pub(crate) fn admits_inside(&self, sets: &VlanSets, vid: u16) -> bool {
        self.vlans == EVERY_VLAN || Vlan::new(vid).is_some_and(|vlan| sets.contains(self.vlans, vlan))
    }

    /// Whether frames of `vlan` leave an access port or trunk without its tag.
    #[inline(always)]
    pub(crate) fn untags(&self, vlan: Vlan) -> bool {
        self.untags == vlan.get()
    }
}

/// All sets of VLANs of a topology; ports with the same one share it. Number 0 is the empty one.
#[derive(Debug)]
pub(crate) struct VlanSets {
    words: Vec<u64>,
}

const WORDS: usize = 64;

impl Default for VlanSets {
    fn default() -> Self {
        Self { words: alloc::vec![0; WORDS] }
    }
}

impl VlanSets {
    fn number(&mut self, set: &VlanSet) -> u32 {
        let known = self.words.chunks_exact(WORDS).position(|words| words == set.words());
        let number = known.unwrap_or_else(|| {
            self.words.extend_from_slice(set.words());
            self.words.len() / WORDS - 1
        });
        u32::try_from(number).unwrap_or(0)
    }

    #[inline(always)]
    fn contains(&self, set: u32, vlan: Vlan) -> bool {
        let word = self.words.get(set as usize * WORDS + usize::from(vlan.get() / 64)).copied().unwrap_or(0);
        word >> (vlan.get() % 64) & 1 != 0
    }
}
