//! What becomes of a frame, and the name of every way it can die.
//!
//! One list, `drop_reasons!`, makes the enum, the counter's name and the sentence for people. Not here:
//! the counters themselves (see [`crate::switch::Counters`]) and any decision.

use crate::port::{PortId, Segment};
use core::fmt;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $text:literal;)+) => {
        /// Why a frame was not carried. Each is a counter of that name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)+ }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The counter's name: lower case, underscores, stable.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for a person.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

drop_reasons! {
    /// Fewer bytes than addresses and type.
    ShortFrame = "short_frame", "the frame is shorter than an Ethernet header";
    /// More bytes than any link carries.
    LongFrame = "long_frame", "the frame is longer than the switch carries";
    /// 01-80-C2-00-00-00…0F, or a vendor's protocol in Open vSwitch's seat, without `forward_bpdu`.
    ReservedGroup = "reserved_group", "the destination is reserved for bridges (01-80-C2-00-00-00 to 0F, in bridges of a database also those of Cisco's and Extreme's protocols) and forward_bpdu is off";
    /// VID 4095.
    VlanReserved = "vlan_reserved", "the tag says VLAN 4095, which is reserved";
    /// A tag cut short.
    VlanTruncated = "vlan_truncated", "the frame ends inside a VLAN tag or before the type behind it";
    /// A tag on an access port.
    VlanTaggedOnAccess = "vlan_tagged_on_access", "a tagged frame arrived on an access port";
    /// A VLAN the trunk does not carry.
    VlanNotTrunked = "vlan_not_trunked", "the trunk that the frame arrived on does not carry its VLAN";
    /// A customer VLAN the tunnel port does not admit.
    CvlanNotAllowed = "cvlan_not_allowed", "the customer VLAN is not among the port's cvlans";
    /// A guarded port's frame from another MAC address.
    SpoofedMac = "spoofed_mac", "the source MAC is not the port's, and anti_spoof is on";
    /// A guarded port's ARP for another station.
    SpoofedArp = "spoofed_arp", "the ARP message speaks for another station, and anti_spoof is on";
    /// A guarded port's IPv4 from another address.
    SpoofedIpv4 = "spoofed_ipv4", "the IPv4 source is not among the port's addresses, and anti_spoof is on";
    /// A guarded port's IPv6 from another address.
    SpoofedIpv6 = "spoofed_ipv6", "the IPv6 source is not among the port's addresses, and anti_spoof is on";
    /// A guarded port's Neighbor Discovery for another station.
    SpoofedNd = "spoofed_nd", "the Neighbor Discovery message speaks for another station, and anti_spoof is on";
    /// A guarded port that acts as a DHCP server.
    DhcpServer = "dhcp_server", "a DHCP server's message from a port with anti_spoof";
    /// A guarded port that acts as a router.
    RouterAdvertisement = "router_advertisement", "a router's message, advertisement or redirect, from a port with anti_spoof";
    /// More than `ingress_policing_rate` from a port.
    Policed = "policed", "the port sends more than its ingress_policing_rate";
    /// More than `egress_policing_rate` towards a port.
    PolicedEgress = "policed_egress", "the port is sent more than its egress_policing_rate";
    /// No such port in this configuration.
    NoSuchPort = "no_such_port", "the port it arrived on is not configured";
    /// The destination is behind the port the frame came from.
    SamePort = "same_port", "the destination is on the port the frame arrived on";
    /// From a tunnel to a tunnel.
    SplitHorizon = "split_horizon", "a frame from a peer never leaves to a peer";
    /// The destination's port does not carry the segment.
    VlanNotOnEgress = "vlan_not_on_egress", "the port of the destination does not carry the frame's VLAN";
    /// A flood that nobody is to hear.
    NoEgress = "no_egress", "no other port carries the frame's VLAN";
    /// A group that nobody joined, where such are not flooded.
    NoListener = "no_listener", "nobody has joined the group that the frame is for";
    /// What arrives on a port that carries copies.
    MirrorOutput = "mirror_output", "it arrived on the output port of a mirror, which carries nothing else";
    /// More cables in a row than there are bridges, or too many cables or copies in all.
    PatchLoop = "patch_loop", "patch ports lead the frame in a circle";
    /// The bridge has rules, and none matches.
    NoFlow = "no_flow", "no rule of the bridge matches the frame";
    /// A rule says so.
    FlowDrop = "flow_drop", "the rule that the frame matches has no actions";
    /// Copies that a rule makes beyond the most.
    TooManyCopies = "too_many_copies", "the rule that the frame matches makes too many copies of it";
    /// A datagram from an address that is no peer.
    UnknownPeer = "unknown_peer", "the datagram's source is not a peer";
    /// A datagram too short for a VXLAN header.
    VxlanShort = "vxlan_short", "the datagram is shorter than a VXLAN header";
    /// The I flag is clear.
    VxlanNoVni = "vxlan_no_vni", "the VXLAN header does not have the I flag";
    /// A reserved bit under `strict`.
    VxlanReserved = "vxlan_reserved", "a reserved bit of the VXLAN header is set and vxlan_reserved is strict";
    /// A VNI that no segment has.
    UnknownVni = "unknown_vni", "no segment has the datagram's VNI";
    /// A VNI this peer does not share.
    VniNotShared = "vni_not_shared", "the peer is not configured to share the datagram's VNI";
    /// A tag inside VXLAN where none is allowed.
    InnerVlan = "inner_vlan", "a VLAN tag inside VXLAN, which vxlan_inner_vlan does not allow";
    /// Larger than the path to the peer.
    TooBig = "too_big", "the frame does not fit the path to the peer";
    /// The port's link is down.
    LinkDown = "link_down", "the port it should leave by is down";
    /// The kernel had no room.
    TxFull = "tx_full", "the link it should leave by was full";
    /// The kernel refused it.
    TxError = "tx_error", "the link it should leave by refused it";
    /// The kernel's receive queue overflowed.
    RxOverflow = "rx_overflow", "the kernel's receive queue overflowed before the frame was read";
    /// A read that did not fit its buffer.
    RxTruncated = "rx_truncated", "the frame did not fit the receive buffer";
    /// A superframe that could not be cut.
    BadOffload = "bad_offload", "the frame's offload facts do not fit its bytes";
}

impl DropReason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether it is counted where the frame came in, not where it should have left.
    #[must_use]
    pub const fn is_ingress(self) -> bool {
        !matches!(
            self,
            Self::VlanNotOnEgress
                | Self::PolicedEgress
                | Self::PatchLoop
                | Self::TooBig
                | Self::LinkDown
                | Self::TxFull
                | Self::TxError
                | Self::BadOffload
        )
    }

    /// The counter's place.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a frame goes to the slow path as well, or instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It does not fit the path to a peer; an IP packet in it should be at most `mtu` bytes.
    TooBig {
        /// What the sender should keep to, in bytes of inner IP packet.
        mtu: u16,
    },
    /// A member's datagram that is no frame but a probe (see [`crate::wire::probe`]); it goes nowhere else.
    Probe,
    /// A question where an address is ([`crate::wire::neigh`]), which somebody nearer than everybody may answer. It
    /// has not been flooded; where there is no answer, [`crate::switch::Worker::resume`] does that.
    Neigh,
    /// A statement where an address is; the frame itself goes its way.
    NeighSeen,
    /// A message of IGMP or Multicast Listener Discovery in a bridge that snoops; the frame itself goes its way.
    Snoop,
}

impl Why {
    /// Its name: lower case, underscores, stable. Where a frame died of it, the name of the drop.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooBig { .. } => DropReason::TooBig.name(),
            Self::Probe => "probe",
            Self::Neigh => "neigh",
            Self::NeighSeen => "neigh_seen",
            Self::Snoop => "snoop",
        }
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves by this port.
    To(PortId),
    /// It leaves by every other port of its segment.
    Flood(Segment),
    /// It leaves as the bridge's rule of this id says, and as by no other.
    Rule(u32),
    /// It is not carried.
    Drop(DropReason),
    /// It goes to the slow path.
    Punt(Why),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_place() {
        for (at, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), at);
            assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            assert_eq!(DropReason::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
            assert!(!reason.text().is_empty());
        }
    }
}
