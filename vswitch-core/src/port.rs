//! Where the switch ends: ports, and which VLANs they carry in which dress.
//!
//! A port is an access, trunk, native or 802.1Q-tunnel port as Open vSwitch defines them, or a tunnel to a
//! remote node. Not here: the operating system's thing behind a port (a link), nor any frame.

use crate::policer::Policer;
use crate::wire::ethernet::Mac;
use crate::wire::vlan::{TPID_STAG, Vlan};
use crate::wire::vxlan::Vni;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A port's number: dense, chosen by whoever configures the switch, and not given to another port before
/// every worker has let go of the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(u32);

impl PortId {
    /// The largest number is 2¹⁷ − 1: more ports and peers than one node will see.
    pub const MAX: u32 = (1 << 17) - 1;

    /// Number 0.
    pub(crate) const ZERO: Self = Self(0);

    /// `None` above [`Self::MAX`].
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// The number as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One broadcast domain (RFC 7348's word): a VLAN of a bridge. Inside the switch there is nothing else;
/// a VID or VNI is a name that a segment has on a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment(u32);

impl Segment {
    /// Bridges in one switch: 0..16.
    pub const BRIDGES: u8 = 16;

    /// The segment of `vlan` in `bridge`; `None` when the bridge is not below [`Self::BRIDGES`].
    #[must_use]
    pub const fn new(bridge: u8, vlan: Vlan) -> Option<Self> {
        if bridge < Self::BRIDGES { Some(Self(((bridge as u32) << 12) | vlan.get() as u32)) } else { None }
    }

    /// A number below 65,536, unique over all bridges.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The bridge's number.
    #[must_use]
    pub const fn bridge(self) -> u8 {
        ((self.0 >> 12) & 0xf) as u8
    }

    /// The VLAN in that bridge.
    #[must_use]
    pub fn vlan(self) -> Vlan {
        // Only `new` makes a Segment, from a Vlan: the twelve bits are one again.
        Vlan::new((self.0 & 0xfff) as u16).unwrap_or(Vlan::UNTAGGED)
    }
}

/// A set of VLANs, 0..=4094.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet(Box<[u64; 64]>);

impl VlanSet {
    /// No VLAN.
    #[must_use]
    pub fn none() -> Self {
        Self(Box::new([0; 64]))
    }

    /// Every VLAN, and 0.
    #[must_use]
    pub fn all() -> Self {
        let mut bits = Box::new([u64::MAX; 64]);
        bits[63] = u64::MAX >> 1;
        Self(bits)
    }

    /// Adds one.
    pub fn insert(&mut self, vlan: Vlan) {
        self.0[usize::from(vlan.get() / 64)] |= 1 << (vlan.get() % 64);
    }

    /// Takes one out.
    pub fn remove(&mut self, vlan: Vlan) {
        self.0[usize::from(vlan.get() / 64)] &= !(1 << (vlan.get() % 64));
    }

    /// Whether `vlan` is in the set.
    #[must_use]
    pub fn contains(&self, vlan: Vlan) -> bool {
        self.0[usize::from(vlan.get() / 64)] >> (vlan.get() % 64) & 1 != 0
    }

    /// Whether every VLAN from 1 to 4094 is in the set.
    #[must_use]
    pub fn has_every_vid(&self) -> bool {
        self.0[0] | 1 == u64::MAX
            && self.0[1..63].iter().all(|w| *w == u64::MAX)
            && self.0[63] == u64::MAX >> 1
    }

    /// Bit *n* of word *m*: VLAN 64 *m* + *n*.
    pub(crate) fn words(&self) -> &[u64; 64] {
        &self.0
    }

    /// The members in rising order.
    pub fn iter(&self) -> impl Iterator<Item = Vlan> + '_ {
        (0..4095).filter_map(Vlan::new).filter(|vlan| self.contains(*vlan))
    }
}

impl FromIterator<Vlan> for VlanSet {
    fn from_iter<I: IntoIterator<Item = Vlan>>(vlans: I) -> Self {
        let mut set = Self::none();
        vlans.into_iter().for_each(|vlan| set.insert(vlan));
        set
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Whether a frame that leaves in VLAN 0 wears a priority tag (Open vSwitch's `other_config:priority-tags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PriorityTags {
    /// It leaves untagged.
    #[default]
    No,
    /// It wears one when its priority is not zero.
    IfNonzero,
    /// It always wears one.
    Always,
}

/// The native VLAN of a trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Native {
    /// Untagged and priority-tagged frames arrive in it.
    pub vlan: Vlan,
    /// Whether its frames leave tagged (`native-tagged`) or not (`native-untagged`).
    pub tagged: bool,
}

/// Which inner frames a tunnel takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Every segment under its own VNI: of all segments that have one, or only of these.
    PerVni(Option<Vec<Vni>>),
    /// Frames of the port's bridge under one VNI each way, as Open vSwitch's `vxlan` interfaces do: an ordinary port
    /// whose wire is the underlay. Which VLANs it carries, and in which dress, its attachment says; the tags are inside,
    /// whatever [`Tunnel::inner_vlan`] is.
    Inside {
        /// The VNI of datagrams that are for it (`in_key`).
        in_vni: Vni,
        /// The VNI of those that it sends (`out_key`).
        out_vni: Vni,
        /// How it treats VLANs: all but a tunnel.
        attachment: Box<Attachment>,
    },
}

/// What a tunnel does with tags that remain inside a segment's frames (RFC 7348 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum InnerVlan {
    /// None is sent and none accepted.
    #[default]
    Strip,
    /// They are carried, and a priority that is not zero travels in a priority tag.
    Carry,
}

/// A tunnel to one remote node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The peer's address: its datagrams come from it, and ours go to it.
    pub remote: IpAddr,
    /// The address that its datagrams are sent to here (`local_ip`); `None` for any. Read of [`Carries::Inside`] alone.
    pub local: Option<IpAddr>,
    /// The UDP port our datagrams go to.
    pub udp_port: u16,
    /// Which segments it carries.
    pub carries: Carries,
    /// Of these, by their VNIs, the ones whose floods go to the peer, because it has said that it hosts them; `None`
    /// for all. What comes from the peer, and what a known station behind it is sent, this does not restrict.
    pub floods: Option<Vec<Vni>>,
    /// Tags inside.
    pub inner_vlan: InnerVlan,
    /// Whether a datagram with a reserved bit set is refused; RFC 7348 §5 says to ignore them.
    pub strict: bool,
}

/// How a port is attached to the bridge: Open vSwitch's `vlan_mode`, or a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// One VLAN, untagged outside.
    Access(Vlan),
    /// Many VLANs, tagged outside; VLAN 0 in the set admits untagged frames. With a native VLAN, untagged
    /// frames belong to it, it is always carried, and VLAN 0 never is (unless it is the native one).
    Trunk {
        /// The VLANs carried.
        vlans: VlanSet,
        /// The native VLAN, if any.
        native: Option<Native>,
    },
    /// Customer frames, tags and all, inside one service VLAN (IEEE 802.1ad).
    Dot1qTunnel {
        /// The service VLAN.
        vlan: Vlan,
        /// The customer VLANs admitted; `None` for all. 0 stands for untagged.
        cvlans: Option<VlanSet>,
        /// TPID of the service tag on trunks: 0x88A8 (802.1ad) or 0x8100.
        tpid: u16,
    },
    /// A remote node.
    Tunnel(Tunnel),
}

impl Attachment {
    /// A trunk of every VLAN and of untagged frames: what a port is when nothing is said of it.
    #[must_use]
    pub fn trunk_all() -> Self {
        Self::Trunk { vlans: VlanSet::all(), native: None }
    }

    /// A trunk with a native VLAN, with the set put right: the native VLAN in, VLAN 0 out unless native.
    #[must_use]
    pub fn native(vlan: Vlan, tagged: bool, mut vlans: VlanSet) -> Self {
        vlans.remove(Vlan::UNTAGGED);
        vlans.insert(vlan);
        Self::Trunk { vlans, native: Some(Native { vlan, tagged }) }
    }

    /// A customer port with 802.1ad service tags.
    #[must_use]
    pub const fn dot1q_tunnel(vlan: Vlan, cvlans: Option<VlanSet>) -> Self {
        Self::Dot1qTunnel { vlan, cvlans, tpid: TPID_STAG }
    }
}

/// A split-horizon group: a frame never leaves by a port of the group it came in by; 0 is no group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Group(pub u8);

impl Group {
    /// No group.
    pub const NONE: Self = Self(0);
    /// All peers of the mesh.
    pub const MESH: Self = Self(1);
}

/// As whom the station behind a port may speak, and nobody else: the port is guarded against spoofing.
///
/// What is held against it: the source MAC of every frame; sender and probed address of ARP (RFC 826, RFC 5227); the
/// source of IPv4 and IPv6; targets and link-layer addresses of Neighbor Discovery (RFC 4861). Beyond its own addresses
/// it has the link-local one of its MAC (RFC 4291, appendix A), may look for an address by DHCP, ask for its own before it
/// has them (RFC 4862 §5.4), and tell of its groups (RFC 3810). It is no DHCP server and no router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses, each with how many of its bits count: all, 32 or 128, where it is one address; fewer for all
    /// addresses that begin alike. None: it may speak no IP but what a station without an address says.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Guard {
    /// Whether `address` is among the addresses. One that no single station has never is: unspecified, multicast or
    /// broadcast.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let is_one = !address.is_unspecified() && !address.is_multicast() && address != Ipv4Addr::BROADCAST;
        is_one && self.addresses.iter().any(|(own, len)| begin_alike(*own, address, *len))
    }

    /// The link-local address that a station makes of its MAC address (RFC 4291 §2.5.6 and appendix A).
    #[must_use]
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac.bytes();
        let id = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(u64::from_be_bytes(id)))
    }
}

fn begin_alike(a: IpAddr, b: IpAddr, len: u8) -> bool {
    let differ = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differ >= u32::from(len)
}

/// How much may pass a port, each way; `None` where there is no limit. Two ports that are given the same one share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policers {
    /// Of frames from the port into the switch.
    pub ingress: Option<Arc<Policer>>,
    /// Of frames that leave by the port.
    pub egress: Option<Arc<Policer>>,
}

/// Everything the switch must know of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub id: PortId,
    /// Its bridge, 0..16; the TOML file has one bridge, 0.
    pub bridge: u8,
    /// Its VLANs.
    pub attachment: Attachment,
    /// Priority tags on frames that leave in VLAN 0.
    pub priority_tags: PriorityTags,
    /// Its split-horizon group.
    pub group: Group,
    /// For a tunnel: the MTU of the path to the peer, in bytes of outer IP packet. Not read elsewhere.
    pub mtu: u16,
    /// How many learned MAC entries it may hold; `None` for no limit of its own.
    pub mac_limit: Option<u32>,
    /// As whom who is behind it may speak; `None` for whoever it likes. Not read of a tunnel.
    pub guard: Option<Arc<Guard>>,
    /// How much may pass it. Not read of a tunnel.
    pub policers: Policers,
    /// In a bridge that snoops: whether it is sent all multicast traffic, joined or not (Open vSwitch's
    /// `mcast-snooping-flood`).
    pub mcast_flood: bool,
    /// In a bridge that snoops: whether it is sent reports of hosts, as a port with a router is (Open vSwitch's
    /// `mcast-snooping-flood-reports`).
    pub mcast_flood_reports: bool,
    /// The other end of the cable whose one end it is (a `patch` port): what leaves here arrives there. That port must
    /// name this one, or nothing passes.
    pub patch: Option<PortId>,
}

impl Port {
    /// A port of bridge 0 with nothing special about it.
    #[must_use]
    pub const fn new(id: PortId, attachment: Attachment) -> Self {
        Self {
            id,
            bridge: 0,
            attachment,
            priority_tags: PriorityTags::No,
            group: Group::NONE,
            mtu: 1500,
            mac_limit: None,
            guard: None,
            policers: Policers { ingress: None, egress: None },
            mcast_flood: false,
            mcast_flood_reports: false,
            patch: None,
        }
    }

    /// A peer of the mesh that carries every VNI by RFC 7348's defaults, over a path of `mtu` bytes.
    #[must_use]
    pub const fn peer(id: PortId, remote: IpAddr, udp_port: u16, mtu: u16) -> Self {
        let tunnel = Tunnel {
            remote,
            local: None,
            udp_port,
            carries: Carries::PerVni(None),
            floods: None,
            inner_vlan: InnerVlan::Strip,
            strict: false,
        };
        let mut port = Self::new(id, Attachment::Tunnel(tunnel));
        port.group = Group::MESH;
        port.mtu = mtu;
        port
    }

    /// The tunnel, if the port is one.
    #[must_use]
    pub const fn tunnel(&self) -> Option<&Tunnel> {
        match &self.attachment {
            Attachment::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        }
    }

    /// How it treats VLANs: its attachment, or for a tunnel of [`Carries::Inside`] the one inside.
    #[must_use]
    pub fn attached(&self) -> &Attachment {
        match &self.attachment {
            Attachment::Tunnel(Tunnel { carries: Carries::Inside { attachment, .. }, .. }) => attachment,
            attachment => attachment,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_vlan_is_carried_and_pushes_vlan_0_out() {
        let ten = Vlan::new(10).unwrap();
        let Attachment::Trunk { vlans, .. } = Attachment::native(ten, true, VlanSet::all()) else { panic!() };
        assert!(vlans.contains(ten) && !vlans.contains(Vlan::UNTAGGED) && vlans.has_every_vid());
        let Attachment::Trunk { vlans, .. } = Attachment::native(Vlan::UNTAGGED, true, VlanSet::none())
        else {
            panic!()
        };
        assert!(vlans.contains(Vlan::UNTAGGED));
    }

    #[test]
    fn a_vlan_set_holds_0_to_4094() {
        assert_eq!(VlanSet::all().iter().count(), 4095);
        assert!(VlanSet::all().has_every_vid());
        let set: VlanSet = [1, 64, 4094].into_iter().filter_map(Vlan::new).collect();
        assert_eq!(set.iter().map(Vlan::get).collect::<Vec<_>>(), [1, 64, 4094]);
    }

    #[test]
    fn a_guard_allows_its_own_addresses_and_ranges_and_what_nobody_has_never() {
        let guard = |addresses: &[(&str, u8)]| Guard {
            mac: "02:00:00:0a:0b:0c".parse().unwrap(),
            addresses: addresses.iter().map(|(address, len)| (address.parse().unwrap(), *len)).collect(),
        };
        let one = guard(&[("10.0.0.2", 32), ("fd00::2", 128), ("192.0.2.0", 24)]);
        let all = guard(&[("0.0.0.0", 0), ("::", 0)]);
        for (address, is_one) in [
            ("10.0.0.2", true),
            ("10.0.0.3", false),
            ("fd00::2", true),
            ("fd00::3", false),
            ("192.0.2.9", true),
        ] {
            assert_eq!(one.allows(address.parse().unwrap()), is_one, "{address}");
            assert!(all.allows(address.parse().unwrap()), "{address}");
        }
        for nobody in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
            assert!(!all.allows(nobody.parse().unwrap()), "{nobody}");
        }
        assert!(!guard(&[("::", 0)]).allows("10.0.0.2".parse().unwrap()));
        assert_eq!(one.link_local(), "fe80::ff:fe0a:b0c".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn a_segment_is_a_bridge_and_a_vlan() {
        let segment = Segment::new(15, Vlan::new(4094).unwrap()).unwrap();
        assert_eq!((segment.bridge(), segment.vlan().get(), segment.index()), (15, 4094, 65_534));
        assert_eq!(Segment::new(16, Vlan::UNTAGGED), None);
    }
}
