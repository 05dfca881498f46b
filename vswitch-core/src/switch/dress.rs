//! VLAN translation at the edges: what a port admits ([`admit`]), and in which dress a frame leaves ([`dress`]).
//!
//! Two pure functions own all tagging; between them a frame has one segment, one priority, and perhaps tags
//! that are its own business. The modes are Open vSwitch's `vlan_mode`. Not here: MAC addresses, offload.

use crate::port::{Attachment, InnerVlan, Port, PriorityTags};
use crate::verdict::DropReason;
use crate::wire::be16;
use crate::wire::ethernet::ADDRESSES_LEN;
use crate::wire::vlan::{Priority, TAG_LEN, TPID_CTAG, Tag, VID_RESERVED, Vlan, is_tpid, tag_at};
use crate::wire::vxlan::Vni;

/// A frame inside the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) vlan: Vlan,
    /// TPID of the VLAN's tag where it is worn; 0 when no tag and no port has named one.
    tpid: u16,
    pub(crate) priority: Priority,
    /// Priority of the outermost tag as the frame arrived: what a priority tag shows.
    arrived_priority: Priority,
    /// The tag that arrived and belongs to the VLAN; it stands at byte 12 and is not part of the body.
    worn: Option<Tag>,
    /// The tag that follows, if any: a customer's.
    inner: Option<Tag>,
    /// Whether the VLAN limit lets the switch read it; what it may not read is payload.
    inner_read: bool,
}

impl Admitted {
    /// The customer's tag as far as VLAN rules may see it.
    fn customer(&self) -> Option<Tag> {
        self.inner.filter(|_| self.inner_read)
    }

    fn customer_vid(&self) -> u16 {
        self.customer().map_or(0, Tag::vid)
    }

    /// The dress that shows `tag` in front of the body, with or without the customer's tag; the frame as it
    /// arrived where that is the same.
    fn wear(&self, tag: Option<Tag>, keep_inner: bool) -> Dress {
        let dropped = if keep_inner || self.inner.is_none() { 0 } else { TAG_LEN };
        if tag == self.worn && dropped == 0 {
            return Dress { vni: None, tag: None, from: 0 };
        }
        let body = if self.worn.is_some() { ADDRESSES_LEN + TAG_LEN } else { ADDRESSES_LEN };
        Dress { vni: None, tag, from: body + dropped }
    }
}

/// How a frame leaves: a VXLAN header or none, a tag or none, and the first byte of the arrived frame that goes
/// along. `from` 0 means the frame as it arrived; otherwise its addresses are written anew in front of the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dress {
    pub(crate) vni: Option<Vni>,
    pub(crate) tag: Option<Tag>,
    pub(crate) from: usize,
}

impl Dress {
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

/// Whether and how `frame`, which came in by `port`, enters the bridge.
#[inline(always)]
pub(crate) fn admit(port: &Port, vlan_limit: u8, frame: &[u8]) -> Result<Admitted, DropReason> {
    let first = tag_at(frame, ADDRESSES_LEN);
    let vid = first.map_or(0, Tag::vid);
    //= IEEE 802.1Q table 9-2
    //# FFF: Reserved for implementation use. This VID value shall not be configured as a PVID or transmitted.
    if vid == VID_RESERVED {
        return Err(DropReason::VlanReserved);
    }
    if first.is_none() && be16(frame, ADDRESSES_LEN).is_some_and(is_tpid) {
        return Err(DropReason::VlanTruncated);
    }
    let tagged = Vlan::new(vid).unwrap_or(Vlan::UNTAGGED);
    let arrived_priority = first.map_or(Priority::ZERO, Tag::priority);
    // Nothing in front of the VLAN but the tag it arrived with.
    let own = |vlan, tpid: u16| Admitted {
        vlan,
        tpid: first.map_or(tpid, |tag| tag.tpid),
        priority: arrived_priority,
        arrived_priority,
        worn: first,
        inner: first.and_then(|_| tag_at(frame, ADDRESSES_LEN + TAG_LEN)),
        inner_read: vlan_limit >= 2,
    };
    // The frame as it is becomes the payload of the VLAN.
    let wrapped = |vlan, tpid| Admitted {
        vlan,
        tpid,
        priority: Priority::ZERO,
        arrived_priority,
        worn: None,
        inner: first,
        inner_read: true,
    };
    match &port.attachment {
        Attachment::Access(vlan) if vid == 0 => Ok(own(*vlan, TPID_CTAG)),
        Attachment::Access(_) => Err(DropReason::VlanTaggedOnAccess),
        Attachment::Trunk { native: Some(native), .. } if vid == 0 => Ok(own(native.vlan, TPID_CTAG)),
        Attachment::Trunk { vlans, .. } if vlans.contains(tagged) => Ok(own(tagged, 0)),
        Attachment::Trunk { .. } => Err(DropReason::VlanNotTrunked),
        Attachment::Dot1qTunnel { cvlans: Some(cvlans), .. } if !cvlans.contains(tagged) => {
            Err(DropReason::CvlanNotAllowed)
        }
        Attachment::Dot1qTunnel { vlan, tpid, .. } => Ok(wrapped(*vlan, *tpid)),
        // Which VLAN it is in, the VNI says; here only what becomes of the tags inside.
        Attachment::Tunnel(tunnel) => match (tunnel.inner_vlan, first) {
            //= RFC 7348 §6.1
            //# If a tunnel packet with an inner VLAN tag is received, it SHOULD be discarded unless configured
            //# otherwise.
            (InnerVlan::Strip, Some(_)) => Err(DropReason::InnerVlan),
            (InnerVlan::Carry, Some(tag)) if tag.vid() == 0 => {
                Ok(Admitted { inner_read: true, ..own(Vlan::UNTAGGED, TPID_CTAG) })
            }
            _ => Ok(wrapped(Vlan::UNTAGGED, TPID_CTAG)),
        },
    }
}

/// In which dress an admitted frame leaves by `port`, or why it does not. `vni` is the name of its segment on
/// the underlay, `bytes` the Ethernet frame as it arrived.
#[inline(always)]
pub(crate) fn dress(
    port: &Port,
    vni: Option<Vni>,
    frame: &Admitted,
    bytes: &[u8],
) -> Result<Dress, DropReason> {
    let carried = match &port.attachment {
        Attachment::Access(vlan) => frame.vlan == *vlan && frame.customer_vid() == 0,
        Attachment::Trunk { vlans, .. } => vlans.contains(frame.vlan),
        Attachment::Dot1qTunnel { vlan, cvlans, .. } => {
            frame.vlan == *vlan
                && cvlans
                    .as_ref()
                    .is_none_or(|cvlans| Vlan::new(frame.customer_vid()).is_some_and(|c| cvlans.contains(c)))
        }
        Attachment::Tunnel(tunnel) => return dress_for_tunnel(tunnel.inner_vlan, vni, frame, bytes),
    };
    if !carried {
        return Err(DropReason::VlanNotOnEgress);
    }
    let shows = port.priority_tags;
    // A customer's priority tag that says nothing is not carried, unless the port wants every tag.
    let keep_inner = shows == PriorityTags::Always || frame.customer().is_none_or(|tag| tag.tci != 0);
    Ok(match &port.attachment {
        // Whatever could be read is taken off; it was VID 0.
        Attachment::Access(_) => frame.wear(priority_tag(shows, frame), frame.customer().is_none()),
        Attachment::Trunk { native, .. } if !native.is_some_and(|n| !n.tagged && n.vlan == frame.vlan) => {
            let priority = if shows == PriorityTags::No { frame.priority } else { frame.arrived_priority };
            let tag =
                Tag::new(if frame.tpid == 0 { TPID_CTAG } else { frame.tpid }, priority, frame.vlan.get());
            // In VLAN 0 a tag is worn for its priority, or to keep a
            // customer's tag that was read from passing for the VLAN's.
            let worn = tag.tci != 0
                || (shows == PriorityTags::Always && frame.tpid != 0)
                || (keep_inner && frame.customer_vid() != 0);
            frame.wear(worn.then_some(tag), keep_inner)
        }
        // The VLAN's tag is popped; a customer's frame leaves as the customer sent it.
        _ if keep_inner && frame.customer().is_some() => frame.wear(None, true),
        _ => frame.wear(priority_tag(shows, frame), keep_inner),
    })
}

/// The priority tag of a frame that leaves in VLAN 0 and wears no other.
fn priority_tag(shows: PriorityTags, frame: &Admitted) -> Option<Tag> {
    (shows != PriorityTags::No && frame.arrived_priority != Priority::ZERO)
        .then(|| Tag::new(TPID_CTAG, frame.arrived_priority, 0))
}

fn dress_for_tunnel(
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
            let dress = Dress { vni, ..frame.wear(None, frame.inner.is_none_or(|tag| tag.vid() != 0)) };
            let first = if dress.from == 0 { ADDRESSES_LEN } else { dress.from };
            if tag_at(bytes, first).is_some() { Err(DropReason::InnerVlan) } else { Ok(dress) }
        }
        // The other end reads an outermost VID 0 as priority, so a customer's own needs one in front.
        InnerVlan::Carry => {
            let shown = frame.priority != Priority::ZERO || frame.inner.is_some_and(|tag| tag.vid() == 0);
            let tag = shown.then(|| Tag::new(TPID_CTAG, frame.priority, 0));
            Ok(Dress { vni, ..frame.wear(tag, true) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{PortId, VlanSet};
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

    /// What leaves by `to` of a frame that came in by `from` with these tags: its tags.
    fn leaves(from: &Port, to: &Port, tags: &[Tag]) -> Option<Vec<Tag>> {
        let bytes = frame(tags);
        let dress = dress(to, None, &admit(from, 1, &bytes).ok()?, &bytes).ok()?;
        let mut out = Vec::new();
        if dress.from > 0 {
            out.extend_from_slice(&bytes[..12]);
            dress.tag.iter().for_each(|tag| out.extend(tag.bytes()));
        }
        out.extend_from_slice(&bytes[dress.from..]);
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
            let port = port(attachment.clone(), PriorityTags::No);
            assert_eq!(admit(&port, 1, &frame(tags)), Err(reason), "{attachment:?} {tags:?}");
        }
        let port = port(Attachment::trunk_all(), PriorityTags::No);
        let cut = &frame(&[t(10)])[..17];
        assert_eq!(admit(&port, 1, cut), Err(DropReason::VlanTruncated));
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
