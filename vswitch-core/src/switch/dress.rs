//! VLAN translation at the edges: what a port admits ([`admit_plain`], [`admit_other`]), and in which dress a frame leaves ([`dress`]).
//!
//! Two pure functions own all tagging; between them a frame has one segment, one priority, and perhaps tags
//! that are its own business. The modes are Open vSwitch's `vlan_mode`. Not here: MAC addresses, offload.

use super::edge::{Edge, Kind, VlanSets};
use crate::port::{InnerVlan, PriorityTags};
use crate::verdict::DropReason;
use crate::wire::ethernet::ADDRESSES_LEN;
use crate::wire::vlan::{Priority, TAG_LEN, TPID_CTAG, Tag, Vlan, is_tpid, tag_at};
use crate::wire::vxlan::Vni;
use crate::wire::{be16, be32};

/// A tag or none, in one word: TPID and tag control information. No tag that is read or written has TPID 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MaybeTag(u32);

impl MaybeTag {
    pub(crate) const NONE: Self = Self(0);

    const fn some(tpid: u16, priority: Priority, vid: u16) -> Self {
        Self::of(Tag::new(tpid, priority, vid))
    }

    const fn of(tag: Tag) -> Self {
        Self((tag.tpid as u32) << 16 | tag.tci as u32)
    }

    /// The four bytes at `at` of a header that goes on behind them, if they are a tag.
    fn at(header: &[u8; HEADER_LEN], at: usize) -> Self {
        Self(be32(header, at).unwrap_or(0)).filter(is_tpid(Self(be32(header, at).unwrap_or(0)).tpid()))
    }

    pub(crate) const fn is_some(self) -> bool {
        self.0 != 0
    }

    pub(crate) fn get(self) -> Option<Tag> {
        self.is_some().then_some(Tag { tpid: self.tpid(), tci: self.tci() })
    }

    pub(crate) const fn bytes(self) -> [u8; TAG_LEN] {
        self.0.to_be_bytes()
    }

    const fn tpid(self) -> u16 {
        (self.0 >> 16) as u16
    }

    const fn tci(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// 0 where there is no tag.
    const fn vid(self) -> u16 {
        self.tci() & 0x0fff
    }

    /// Zero where there is no tag.
    const fn priority(self) -> Priority {
        Priority::of_tci(self.tci())
    }

    /// This one or none. An arithmetic expression: whether there is a tag changes from frame to frame, and a branch
    /// on it would be mispredicted.
    #[inline(always)]
    const fn filter(self, keep: bool) -> Self {
        Self(self.0 & 0_u32.wrapping_sub(keep as u32))
    }

    /// This one, or `other` where there is none to keep.
    #[inline(always)]
    const fn select(self, keep: bool, other: Self) -> Self {
        Self(self.filter(keep).0 | other.filter(!keep).0)
    }
}

/// Addresses, two tags and the type behind them: as much of a frame as VLAN rules read.
const HEADER_LEN: usize = ADDRESSES_LEN + 2 * TAG_LEN + 2;

/// The two outermost tags of `frame`, and the VID of the first, 0 where there is none.
#[inline(always)]
fn tags(frame: &[u8]) -> Result<(MaybeTag, MaybeTag, Vlan), DropReason> {
    let (first, second) = match frame.first_chunk::<HEADER_LEN>() {
        Some(header) => (MaybeTag::at(header, ADDRESSES_LEN), MaybeTag::at(header, ADDRESSES_LEN + TAG_LEN)),
        None => tags_of_short(frame)?,
    };
    //= IEEE 802.1Q table 9-2
    //# FFF: Reserved for implementation use. This VID value shall not be configured as a PVID or transmitted.
    let vid = Vlan::new(first.vid()).ok_or(DropReason::VlanReserved)?;
    Ok((first, second.filter(first.is_some()), vid))
}

#[cold]
fn tags_of_short(frame: &[u8]) -> Result<(MaybeTag, MaybeTag), DropReason> {
    let tag = |at| tag_at(frame, at).map_or(MaybeTag::NONE, MaybeTag::of);
    let first = tag(ADDRESSES_LEN);
    if first == MaybeTag::NONE && be16(frame, ADDRESSES_LEN).is_some_and(is_tpid) {
        return Err(DropReason::VlanTruncated);
    }
    Ok((first, tag(ADDRESSES_LEN + TAG_LEN)))
}

/// A frame inside the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) vlan: Vlan,
    /// TPID of the VLAN's tag for a frame that wears none; 0 when no port has named one.
    tpid: u16,
    /// The tag that arrived and belongs to the VLAN; it stands at byte 12 and is not part of the body.
    worn: MaybeTag,
    /// The tag that follows, if any: a customer's.
    inner: MaybeTag,
    /// Whether VLAN rules may see it: what the VLAN limit does not let the switch read is payload.
    inner_read: bool,
}

impl Admitted {
    /// A frame whose tags nobody has looked at: all of it is payload.
    pub(crate) const UNREAD: Self = Self {
        vlan: Vlan::UNTAGGED,
        tpid: 0,
        worn: MaybeTag::NONE,
        inner: MaybeTag::NONE,
        inner_read: false,
    };

    /// Whether it arrived with a tag that is the VLAN's own.
    pub(crate) const fn is_tagged(&self) -> bool {
        self.worn.is_some()
    }

    /// The frame's priority in its VLAN.
    pub(crate) const fn priority(&self) -> Priority {
        self.worn.priority()
    }

    /// Priority of the outermost tag as the frame arrived: what a priority tag shows.
    const fn arrived_priority(&self) -> Priority {
        self.worn.select(self.worn.is_some(), self.inner).priority()
    }

    /// The customer's tag as far as VLAN rules may see it.
    const fn customer(&self) -> MaybeTag {
        self.inner.filter(self.inner_read)
    }

    /// The TPID of the VLAN's tag; 0 when no tag and no port has named one.
    const fn tpid(&self) -> u16 {
        if self.worn.is_some() { self.worn.tpid() } else { self.tpid }
    }

    /// The dress that shows `tag` in front of the body, with or without the customer's tag; the frame as it
    /// arrived where that is the same.
    #[inline(always)]
    fn wear(&self, tag: MaybeTag, keep_inner: bool) -> Dress {
        let is_dropped = !keep_inner & self.inner.is_some();
        let is_changed = (tag != self.worn) | is_dropped;
        let tags = u32::from(self.worn.is_some()) + u32::from(is_dropped);
        Dress { vni: None, tag: tag.filter(is_changed), from: (12 + 4 * tags) * u32::from(is_changed) }
    }
}

/// How a frame leaves: a VXLAN header or none, a tag or none, and the first byte of the arrived frame that goes
/// along. `from` 0 means the frame as it arrived; otherwise its addresses are written anew in front of the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dress {
    pub(crate) vni: Option<Vni>,
    pub(crate) tag: MaybeTag,
    pub(crate) from: u32,
}

impl Dress {
    pub(crate) const AS_ARRIVED: Self = Self { vni: None, tag: MaybeTag::NONE, from: 0 };

    /// Whether it leaves with the very bytes it arrived with.
    pub(crate) const fn is_as_arrived(&self) -> bool {
        self.from == 0 && self.vni.is_none()
    }

    /// By how much the frame itself grows: what offload facts move by, the VXLAN header apart.
    pub(crate) fn growth(&self) -> i32 {
        if self.from == 0 {
            return 0;
        }
        let tag = if self.tag.is_some() { 4 } else { 0 };
        // `from` is 12, 16 or 20.
        12 + tag - i32::try_from(self.from).unwrap_or(0)
    }
}

/// Whether and how `frame`, which came in by `port`, an access port or trunk, enters the bridge.
#[inline(always)]
pub(crate) fn admit_plain(
    port: &Edge,
    sets: &VlanSets,
    vlan_limit: u8,
    frame: &[u8],
) -> Result<Admitted, DropReason> {
    let (worn, inner, vid) = tags(frame)?;
    let vlan = port.vlan_of(sets, vid)?;
    Ok(Admitted { vlan, tpid: port.tpid, worn, inner, inner_read: vlan_limit >= 2 })
}

/// The same of a frame from a customer's port or out of a tunnel.
pub(crate) fn admit_other(port: &Edge, sets: &VlanSets, frame: &[u8]) -> Result<Admitted, DropReason> {
    let (first, second, vid) = tags(frame)?;
    // The frame as it is becomes the payload of the VLAN.
    let wrapped = |vlan, tpid| Admitted { vlan, tpid, worn: MaybeTag::NONE, inner: first, inner_read: true };
    match (port.kind, port.inner_vlan) {
        (Kind::Customer, _) if !port.admits_inside(sets, vid.get()) => Err(DropReason::CvlanNotAllowed),
        (Kind::Customer, _) => Ok(wrapped(port.own_vlan(), port.tpid)),
        // Which VLAN it is in, the VNI says; here only what becomes of the tags inside.
        //= RFC 7348 §6.1
        //# If a tunnel packet with an inner VLAN tag is received, it SHOULD be discarded unless configured
        //# otherwise.
        (_, InnerVlan::Strip) if first.is_some() => Err(DropReason::InnerVlan),
        (_, InnerVlan::Carry) if first.is_some() && vid == Vlan::UNTAGGED => {
            let (vlan, tpid) = (Vlan::UNTAGGED, TPID_CTAG);
            Ok(Admitted { vlan, tpid, worn: first, inner: second, inner_read: true })
        }
        _ => Ok(wrapped(Vlan::UNTAGGED, TPID_CTAG)),
    }
}

/// [`dress`] where it is easily said: of a frame without a customer's tag, at a port that shows no priority tags,
/// nothing is left of the rules but whether the VLAN's tag is worn. `None` for all others, and where `dress` refuses.
#[inline(always)]
pub(crate) fn dress_plainly(port: &Edge, sets: &VlanSets, frame: &Admitted) -> Option<Dress> {
    let is_carried = (port.is_access & port.is_own(frame.vlan)) | port.lists(sets, frame.vlan);
    let is_plain = port.is_simple & !frame.inner.is_some();
    (is_plain & is_carried).then(|| frame.wear(own_tag(frame).filter(!port.untags(frame.vlan)), true))
}

/// The VLAN's tag with the frame's priority; none in VLAN 0 where it would say nothing. [`dress`] has it in words.
#[inline(always)]
fn own_tag(frame: &Admitted) -> MaybeTag {
    let default = MaybeTag::some(frame.tpid | (TPID_CTAG * u16::from(frame.tpid == 0)), Priority::ZERO, 0);
    let MaybeTag(arrived) = frame.worn.select(frame.worn.is_some(), default);
    let tag = MaybeTag((arrived & !0x0fff) | u32::from(frame.vlan.get()));
    tag.filter(tag.tci() != 0)
}

/// In which dress an admitted frame leaves by `port`, which is no tunnel, or why it does not.
pub(crate) fn dress(port: &Edge, sets: &VlanSets, frame: &Admitted) -> Result<Dress, DropReason> {
    let customer = frame.customer();
    let carried = match port.kind {
        Kind::Plain if port.is_access => port.is_own(frame.vlan) && customer.vid() == 0,
        Kind::Plain => port.lists(sets, frame.vlan),
        Kind::Customer => port.is_own(frame.vlan) && port.admits_inside(sets, customer.vid()),
        // Dressed by `dress_for_tunnel`.
        Kind::Tunnel | Kind::Absent => false,
    };
    if carried { Ok(dress_anyhow(port, frame)) } else { Err(DropReason::VlanNotOnEgress) }
}

/// [`dress`] without asking whether the port, which is no tunnel, carries the frame's VLAN.
pub(crate) fn dress_anyhow(port: &Edge, frame: &Admitted) -> Dress {
    let (customer, shows) = (frame.customer(), port.shows);
    // A customer's priority tag that says nothing is not carried, unless the port wants every tag.
    let keep_inner = shows == PriorityTags::Always || !customer.is_some() || customer.tci() != 0;
    if port.is_access {
        // Whatever could be read is taken off; it was VID 0.
        return frame.wear(priority_tag(shows, frame), !customer.is_some());
    }
    if port.kind == Kind::Customer || port.untags(frame.vlan) {
        // The VLAN's tag is popped; a customer's frame leaves as the customer sent it.
        return match keep_inner && customer.is_some() {
            true => frame.wear(MaybeTag::NONE, true),
            false => frame.wear(priority_tag(shows, frame), keep_inner),
        };
    }
    let priority = if shows == PriorityTags::No { frame.priority() } else { frame.arrived_priority() };
    let tpid = if frame.tpid() == 0 { TPID_CTAG } else { frame.tpid() };
    let tag = MaybeTag::some(tpid, priority, frame.vlan.get());
    // In VLAN 0 a tag is worn for its priority, or to keep a customer's tag that was read from passing for the
    // VLAN's.
    let worn = tag.tci() != 0
        || (shows == PriorityTags::Always && frame.tpid() != 0)
        || (keep_inner && customer.vid() != 0);
    frame.wear(tag.filter(worn), keep_inner)
}

/// The priority tag of a frame that leaves in VLAN 0 and wears no other.
fn priority_tag(shows: PriorityTags, frame: &Admitted) -> MaybeTag {
    let shown = shows != PriorityTags::No && frame.arrived_priority() != Priority::ZERO;
    MaybeTag::some(TPID_CTAG, frame.arrived_priority(), 0).filter(shown)
}

/// In which dress an admitted frame enters a tunnel. `vni` is the name of its segment on the underlay, `bytes` the
/// Ethernet frame as it arrived.
pub(crate) fn dress_for_tunnel(
    inner_vlan: InnerVlan,
    vni: Option<Vni>,
    frame: &Admitted,
    bytes: &[u8],
) -> Result<Dress, DropReason> {
    let vni = Some(vni.ok_or(DropReason::VlanNotOnEgress)?);
    match inner_vlan {
        //= RFC 7348 §6.1
        //# On the encapsulation side, a VTEP SHOULD NOT include an inner VLAN tag on tunnel packets unless
        //# configured otherwise.
        InnerVlan::Strip => {
            // The VLAN's own tag and a priority tag are stripped; a customer's VLAN is not ours to lose.
            let keep_inner = !frame.inner.is_some() || frame.inner.vid() != 0;
            let dress = Dress { vni, ..frame.wear(MaybeTag::NONE, keep_inner) };
            let first = if dress.from == 0 { ADDRESSES_LEN } else { dress.from as usize };
            if tag_at(bytes, first).is_some() { Err(DropReason::InnerVlan) } else { Ok(dress) }
        }
        // The other end reads an outermost VID 0 as priority, so a customer's own needs one in front.
        InnerVlan::Carry => {
            let is_zero = frame.inner.is_some() && frame.inner.vid() == 0;
            let tag = MaybeTag::some(TPID_CTAG, frame.priority(), 0);
            let shown = frame.priority() != Priority::ZERO || is_zero;
            Ok(Dress { vni, ..frame.wear(tag.filter(shown), true) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{Attachment, Port, PortId, VlanSet};
    use crate::wire::vlan::TPID_STAG;
    use alloc::vec::Vec;

    fn port(attachment: Attachment, shows: PriorityTags) -> Port {
        let mut port = Port::new(PortId::new(1).unwrap(), attachment);
        port.priority_tags = shows;
        port
    }

    fn ten() -> Vlan {
        Vlan::new(10).unwrap()
    }

    fn tag(tpid: u16, vid: u16, pcp: u8, dei: bool) -> Tag {
        Tag::new(tpid, Priority::new(pcp, dei).unwrap(), vid)
    }

    fn frame(tags: &[Tag]) -> Vec<u8> {
        let mut bytes = alloc::vec![2; 12];
        tags.iter().for_each(|tag| bytes.extend(tag.bytes()));
        bytes.extend([0x88, 0xb5, 1, 2, 3]);
        bytes
    }

    fn admit(port: &Edge, sets: &VlanSets, frame: &[u8]) -> Result<Admitted, DropReason> {
        if port.kind == Kind::Plain {
            admit_plain(port, sets, 1, frame)
        } else {
            admit_other(port, sets, frame)
        }
    }

    /// What leaves by `to` of a frame that came in by `from` with these tags: its tags.
    fn leaves(from: &Port, to: &Port, tags: &[Tag]) -> Option<Vec<Tag>> {
        let bytes = frame(tags);
        let mut sets = VlanSets::default();
        let [from, to] = [from, to].map(|port| Edge::new(port, &mut sets));
        let dress = dress(&to, &sets, &admit(&from, &sets, &bytes).ok()?).ok()?;
        let mut out = Vec::new();
        if dress.from > 0 {
            out.extend_from_slice(&bytes[..12]);
            dress.tag.get().iter().for_each(|tag| out.extend(tag.bytes()));
        }
        out.extend_from_slice(&bytes[dress.from as usize..]);
        let grown = isize::try_from(out.len()).unwrap() - isize::try_from(bytes.len()).unwrap();
        assert_eq!(isize::try_from(dress.growth()).unwrap(), grown);
        let mut read = Vec::new();
        while let Some(tag) = tag_at(&out, 12 + 4 * read.len()) {
            read.push(tag);
        }
        Some(read)
    }

    /// IEEE 802.1Q §6.9.3: four bits survive every translation that leaves a tag to hold them.
    #[test]
    fn pcp_and_dei_survive_every_translation() {
        let every = || VlanSet::all();
        let no = |attachment| port(attachment, PriorityTags::No);
        let trunk = no(Attachment::trunk_all());
        let tagged = no(Attachment::native(ten(), true, every()));
        let untagged = no(Attachment::native(ten(), false, every()));
        let access = no(Attachment::Access(ten()));
        let shows = port(Attachment::Access(ten()), PriorityTags::IfNonzero);
        let native_shows = port(Attachment::native(ten(), false, every()), PriorityTags::Always);
        for pcp in 0..8 {
            for dei in [false, true] {
                for tpid in [TPID_CTAG, TPID_STAG] {
                    let own = tag(tpid, 10, pcp, dei);
                    let zero = tag(tpid, 0, pcp, dei);
                    let shown = tag(TPID_CTAG, 0, pcp, dei);
                    for trunk in [&trunk, &tagged] {
                        assert_eq!(leaves(trunk, trunk, &[own]), Some(alloc::vec![own]));
                        assert_eq!(leaves(&access, trunk, &[zero]), Some(alloc::vec![own]));
                        assert_eq!(leaves(&untagged, trunk, &[zero]), Some(alloc::vec![own]));
                    }
                    assert_eq!(leaves(&trunk, &access, &[own]), Some(alloc::vec![]));
                    let priority = if shown.tci == 0 { alloc::vec![] } else { alloc::vec![shown] };
                    assert_eq!(leaves(&trunk, &shows, &[own]), Some(priority.clone()));
                    assert_eq!(leaves(&trunk, &native_shows, &[own]), Some(priority));
                }
            }
        }
    }

    #[test]
    fn what_is_dressed_plainly_is_dressed_as_all_rules_say() {
        let one: VlanSet = [ten()].into_iter().collect();
        let zero = Vlan::UNTAGGED;
        let attachments = [
            Attachment::Access(ten()),
            Attachment::Access(zero),
            Attachment::trunk_all(),
            Attachment::Trunk { vlans: one.clone(), native: None },
            Attachment::native(ten(), true, VlanSet::all()),
            Attachment::native(ten(), false, one.clone()),
            Attachment::native(zero, false, VlanSet::all()),
            Attachment::dot1q_tunnel(ten(), None),
            Attachment::dot1q_tunnel(ten(), Some(one)),
        ];
        let mut sets = VlanSets::default();
        let edges: Vec<Edge> = attachments
            .iter()
            .flat_map(|attachment| {
                [PriorityTags::No, PriorityTags::IfNonzero, PriorityTags::Always]
                    .map(|shows| Edge::new(&port(attachment.clone(), shows), &mut sets))
            })
            .collect();
        let mut dressed = 0;
        for from in &edges {
            for vid in [None, Some(0), Some(10), Some(11)] {
                for (tpid, pcp) in [(TPID_CTAG, 0), (TPID_CTAG, 5), (TPID_STAG, 0), (TPID_STAG, 7)] {
                    let tags: Vec<Tag> = vid.iter().map(|vid| tag(tpid, *vid, pcp, false)).collect();
                    let Ok(admitted) = admit(from, &sets, &frame(&tags)) else { continue };
                    for to in &edges {
                        dressed += 1;
                        if let Some(dressed) = dress_plainly(to, &sets, &admitted) {
                            assert_eq!(dress(to, &sets, &admitted), Ok(dressed), "{admitted:?} {to:?}");
                        } else if to.is_simple && !admitted.inner.is_some() {
                            assert!(dress(to, &sets, &admitted).is_err(), "{admitted:?} {to:?}");
                        }
                    }
                }
            }
        }
        assert!(dressed > 1000, "{dressed}");
    }

    #[test]
    fn what_a_port_may_not_bring_is_refused_by_name() {
        let one: VlanSet = [ten()].into_iter().collect();
        let access = Attachment::Access(ten());
        let trunk = Attachment::Trunk { vlans: one.clone(), native: None };
        let customer = Attachment::dot1q_tunnel(ten(), Some(one));
        let t = |vid| tag(TPID_CTAG, vid, 0, false);
        for (attachment, tags, reason) in [
            (&access, &[t(10)][..], DropReason::VlanTaggedOnAccess),
            (&access, &[t(4095)], DropReason::VlanReserved),
            (&trunk, &[], DropReason::VlanNotTrunked),
            (&trunk, &[t(11)], DropReason::VlanNotTrunked),
            (&customer, &[t(11)], DropReason::CvlanNotAllowed),
            (&customer, &[], DropReason::CvlanNotAllowed),
        ] {
            let mut sets = VlanSets::default();
            let port = Edge::new(&port(attachment.clone(), PriorityTags::No), &mut sets);
            assert_eq!(admit(&port, &sets, &frame(tags)), Err(reason), "{attachment:?} {tags:?}");
        }
        let mut sets = VlanSets::default();
        let port = Edge::new(&port(Attachment::trunk_all(), PriorityTags::No), &mut sets);
        let cut = &frame(&[t(10)])[..17];
        assert_eq!(admit(&port, &sets, cut), Err(DropReason::VlanTruncated));
    }

    #[test]
    fn any_depth_of_inner_tags_is_carried_untouched() {
        let inner: Vec<Tag> = (1..40).map(|vid| tag(TPID_STAG, vid, 5, true)).collect();
        let own = tag(TPID_CTAG, 10, 1, false);
        let trunk = port(Attachment::trunk_all(), PriorityTags::No);
        let access = port(Attachment::Access(ten()), PriorityTags::No);
        let customer = port(Attachment::dot1q_tunnel(ten(), None), PriorityTags::No);
        let tags = [&[own][..], &inner].concat();
        assert_eq!(leaves(&trunk, &trunk, &tags), Some(tags.clone()));
        assert_eq!(leaves(&trunk, &access, &tags), Some(inner.clone()));
        assert_eq!(leaves(&trunk, &customer, &tags), Some(inner.clone()));
        let service = tag(TPID_STAG, 10, 0, false);
        assert_eq!(leaves(&customer, &trunk, &inner), Some([&[service][..], &inner].concat()));
    }
}
