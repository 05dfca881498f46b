//! VLAN tags (IEEE 802.1Q §9, 802.1ad): a TPID, then PCP (3 bits), DEI (1 bit) and VID (12 bits).
//!
//! Not here: what a port does with a tag (see [`crate::port`] and [`crate::switch`]).

use super::be16;
use super::ethernet::ADDRESSES_LEN;
use core::fmt;

/// TPID of a C-tag (IEEE 802.1Q table 9-1): what everybody calls a VLAN tag.
pub const TPID_CTAG: u16 = 0x8100;
/// TPID of an S-tag (IEEE 802.1ad).
pub const TPID_STAG: u16 = 0x88a8;
/// One tag: TPID and tag control information.
pub const TAG_LEN: usize = 4;
/// The reserved VID (IEEE 802.1Q table 9-2): never on a wire.
pub const VID_RESERVED: u16 = 4095;

/// Whether `tpid` begins a tag that the switch reads.
#[inline]
#[must_use]
pub const fn is_tpid(tpid: u16) -> bool {
    // No branch: which it is may change from frame to frame.
    (tpid == TPID_CTAG) | (tpid == TPID_STAG)
}

/// A VLAN identifier that names a VLAN: 1..=4094 (IEEE 802.1Q §9.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vid(u16);

impl Vid {
    /// `None` for 0 (a priority tag), 4095 (reserved) and above.
    #[must_use]
    pub const fn new(vid: u16) -> Option<Self> {
        if vid >= 1 && vid <= 4094 { Some(Self(vid)) } else { None }
    }

    /// The number, 1..=4094.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A VLAN of a bridge, 0..=4094; 0 is the VLAN of untagged frames where no port says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Vlan(u16);

impl Vlan {
    /// The VLAN of untagged frames.
    pub const UNTAGGED: Self = Self(0);

    /// `None` for 4095 and above.
    #[must_use]
    pub const fn new(vlan: u16) -> Option<Self> {
        if vlan < VID_RESERVED { Some(Self(vlan)) } else { None }
    }

    /// The number, 0..=4094.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Vlan {
    /// The other one where this one is [`Self::UNTAGGED`], and the other way round; of two that are neither, some
    /// VLAN.
    #[inline(always)]
    pub(crate) const fn or(self, other: Self) -> Self {
        Self((self.0 | other.0) & 0x0fff)
    }
}

impl From<Vid> for Vlan {
    fn from(vid: Vid) -> Self {
        Self(vid.0)
    }
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Priority code point and drop eligible indicator: the four bits of a tag that every translation keeps
/// (IEEE 802.1Q §6.9.3). Held as they stand in a tag: PCP in bits 15..=13, DEI in bit 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Priority(u16);

impl Priority {
    /// PCP 0, DEI clear.
    pub const ZERO: Self = Self(0);

    /// `None` when `pcp` is above 7.
    #[must_use]
    pub const fn new(pcp: u8, dei: bool) -> Option<Self> {
        if pcp > 7 { None } else { Some(Self(((pcp as u16) << 13) | ((dei as u16) << 12))) }
    }

    /// The priority bits of a tag control information field.
    #[must_use]
    pub const fn of_tci(tci: u16) -> Self {
        Self(tci & 0xf000)
    }

    /// Priority code point, 0..=7.
    #[must_use]
    pub const fn pcp(self) -> u8 {
        (self.0 >> 13) as u8
    }

    /// Drop eligible indicator.
    #[must_use]
    pub const fn dei(self) -> bool {
        self.0 & 0x1000 != 0
    }

    /// The bits as they stand in a tag.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }
}

/// One tag as it stands in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The TPID: [`TPID_CTAG`] or [`TPID_STAG`] where the switch read it.
    pub tpid: u16,
    /// Tag control information: PCP, DEI, VID.
    pub tci: u16,
}

impl Tag {
    /// A tag made of its parts; only the low twelve bits of `vid` count.
    #[must_use]
    pub const fn new(tpid: u16, priority: Priority, vid: u16) -> Self {
        Self { tpid, tci: priority.bits() | (vid & 0x0fff) }
    }

    /// The VID field, 0..=4095: 0 is a priority tag, 4095 is reserved.
    #[must_use]
    pub const fn vid(self) -> u16 {
        self.tci & 0x0fff
    }

    /// PCP and DEI.
    #[must_use]
    pub const fn priority(self) -> Priority {
        Priority::of_tci(self.tci)
    }

    /// The four bytes on the wire.
    #[must_use]
    pub const fn bytes(self) -> [u8; TAG_LEN] {
        let (a, b) = (self.tpid.to_be_bytes(), self.tci.to_be_bytes());
        [a[0], a[1], b[0], b[1]]
    }
}

/// The tag that stands at byte `at` of `frame` (12 for the outermost); `None` when there is none, or when the
/// frame ends before the two bytes of type that must follow a tag.
#[must_use]
pub fn tag_at(frame: &[u8], at: usize) -> Option<Tag> {
    let tpid = be16(frame, at)?;
    if !is_tpid(tpid) {
        return None;
    }
    be16(frame, at.checked_add(TAG_LEN)?)?;
    Some(Tag { tpid, tci: be16(frame, at + 2)? })
}

/// How many tags stand behind the addresses of `frame`, and the byte at which the type behind them begins.
#[must_use]
pub fn tag_stack(frame: &[u8]) -> (usize, usize) {
    let (mut depth, mut at) = (0, ADDRESSES_LEN);
    while tag_at(frame, at).is_some() {
        depth += 1;
        at += TAG_LEN;
    }
    (depth, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vid_and_vlan_refuse_what_names_no_vlan() {
        assert_eq!(Vid::new(0), None);
        assert_eq!(Vid::new(4095), None);
        assert_eq!(Vid::new(4094).map(Vid::get), Some(4094));
        assert_eq!(Vlan::new(0), Some(Vlan::UNTAGGED));
        assert_eq!(Vlan::new(4095), None);
    }

    #[test]
    fn a_tag_keeps_priority_and_vid_apart() {
        let tag = Tag::new(TPID_STAG, Priority::new(5, true).unwrap(), 100);
        assert_eq!(tag.bytes(), [0x88, 0xa8, 0xb0, 100]);
        assert_eq!((tag.vid(), tag.priority().pcp(), tag.priority().dei()), (100, 5, true));
        assert_eq!(Priority::new(8, false), None);
    }

    #[test]
    fn a_tag_needs_a_type_behind_it() {
        let mut frame = [0; 18];
        frame[12..16].copy_from_slice(&[0x81, 0, 0, 7]);
        assert_eq!(tag_at(&frame, 12).map(Tag::vid), Some(7));
        assert_eq!(tag_at(&frame[..17], 12), None);
        assert_eq!(tag_stack(&frame), (1, 16));
    }
}
