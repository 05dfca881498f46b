//! Whether a frame from a guarded port says only what is true of the station behind it (see [`Guard`]).
//!
//! What a receiver might believe is looked at: behind any depth of VLAN tags and of 802.2 SNAP headers, behind IPv6
//! extension headers, in first fragments. What cannot be read to the end is refused, for a receiver may read it otherwise
//! than we do. Frames that are neither ARP nor IP have nothing to be held against but their source MAC. Not here: what
//! happens to a frame that is refused, and the words for it (see [`super::explain`]).

use crate::port::Guard;
use crate::verdict::DropReason;
use crate::wire::be16;
use crate::wire::ethernet::{self, ADDRESSES_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Mac};
use crate::wire::ip::{
    self, Ip, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, TCP_HEADER_LEN, UDP_HEADER_LEN,
};
use crate::wire::neigh::{
    ARP_LEN, ARP_OF_IPV4, ARP_REQUEST, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION,
};
use crate::wire::vlan::is_tpid;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Smaller numbers in the place of a type are lengths (IEEE 802.3 §3.2.6).
const LEAST_TYPE: u16 = 0x0600;
/// 802.2 SNAP, of an Ethernet type (RFC 1042) and of a bridged one (IEEE 802.1H).
const SNAP: [[u8; 6]; 2] = [[0xaa, 0xaa, 3, 0, 0, 0], [0xaa, 0xaa, 3, 0, 0, 0xf8]];

/// Ports of DHCP (RFC 2131 §4.1).
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
/// Ports of DHCPv6 (RFC 8415 §7.2).
const DHCPV6_CLIENT: u16 = 546;
const DHCPV6_SERVER: u16 = 547;

/// Messages of MLD that a station sends without an address too: reports and done (RFC 2710 §3, RFC 3810 §5.2.13).
const MLD: [u8; 3] = [131, 132, 143];
/// Router Solicitation (RFC 4861 §4.1).
const ROUTER_SOLICITATION: u8 = 133;
/// Router Advertisement and Redirect (RFC 4861 §4.2, §4.5).
const OF_ROUTERS: [u8; 2] = [134, 137];
/// Options of Neighbor Discovery: source and target link-layer address (RFC 4861 §4.6.1).
const LINK_LAYER: [u8; 2] = [1, 2];

/// Which rule a frame breaks, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// The source MAC is this one.
    SourceMac(Mac),
    /// ARP that is not of Ethernet and IPv4, or cut short.
    ArpForm,
    /// The sender's hardware address in ARP is this one.
    ArpMac(Mac),
    /// The sender's protocol address in ARP is this one, or none in what is no probe.
    ArpSender(Ipv4Addr),
    /// An ARP probe (RFC 5227 §2.1.1) for this address.
    ArpProbe(Ipv4Addr),
    /// The headers of IPv4 are malformed or cut short.
    Ipv4Form,
    /// The source of IPv4 is this one.
    Ipv4Source(Ipv4Addr),
    /// The headers of IPv6 are malformed, cut short, more than [`ip::MAX_EXTENSIONS`], or not all in the first fragment
    /// (RFC 7112 §4).
    Ipv6Form,
    /// The source of IPv6 is this one, or none in what needs one.
    Ipv6Source(Ipv6Addr),
    /// Neighbor Discovery with a fragment header (RFC 6980 §5).
    NdFragment,
    /// Neighbor Discovery that is cut short, or whose options are malformed.
    NdForm,
    /// An advertisement of, or duplicate address detection for, this address.
    NdTarget(Ipv6Addr),
    /// A link-layer address option with this address; `None` where it is not as long as one.
    NdMac(Option<Mac>),
    /// UDP from a DHCP server's port, or to a client's: its source and destination port.
    DhcpServer(u16, u16),
    /// A message of ICMPv6 that only routers send, of this type.
    Router(u8),
}

impl Breach {
    /// The reason for which such a frame is dropped.
    #[must_use]
    pub const fn reason(self) -> DropReason {
        match self {
            Self::SourceMac(_) => DropReason::SpoofedMac,
            Self::ArpForm | Self::ArpMac(_) | Self::ArpSender(_) | Self::ArpProbe(_) => {
                DropReason::SpoofedArp
            }
            Self::Ipv4Form | Self::Ipv4Source(_) => DropReason::SpoofedIpv4,
            Self::Ipv6Form | Self::Ipv6Source(_) => DropReason::SpoofedIpv6,
            Self::NdFragment | Self::NdForm | Self::NdTarget(_) | Self::NdMac(_) => DropReason::SpoofedNd,
            Self::DhcpServer(..) => DropReason::DhcpServer,
            Self::Router(_) => DropReason::RouterAdvertisement,
        }
    }
}

/// What a guard allows, for whoever is told of a breach: as much of it as a person reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The MAC address.
    pub mac: Mac,
    /// The first addresses, each with how many of its bits count.
    pub addresses: [Option<(IpAddr, u8)>; 4],
    /// How many there are besides.
    pub more: usize,
    /// The link-local address of the MAC.
    pub link_local: Ipv6Addr,
}

impl Allowed {
    pub(super) fn by(guard: &Guard) -> Self {
        let addresses = core::array::from_fn(|at| guard.addresses.get(at).copied());
        let more = guard.addresses.len().saturating_sub(addresses.len());
        Self { mac: guard.mac, addresses, more, link_local: guard.link_local() }
    }
}

/// Holds a frame against the guard of the port that it came in by.
///
/// # Errors
/// The first rule that it breaks.
pub(super) fn check(guard: &Guard, frame: &[u8]) -> Result<(), Breach> {
    let Some((_, source)) = ethernet::addresses(frame) else { return Ok(()) };
    if source != guard.mac {
        return Err(Breach::SourceMac(source));
    }
    match payload(frame) {
        Some((ETHERTYPE_ARP, at)) => arp(guard, frame.get(at..).unwrap_or_default()),
        Some((ETHERTYPE_IPV4, at)) => ipv4(guard, frame, at),
        Some((ETHERTYPE_IPV6, at)) => ipv6(guard, frame, at),
        _ => Ok(()),
    }
}

/// The type of what the frame carries, and where that begins; `None` where no type is told.
///
/// A receiver may take off tags of VID 0, and SNAP headers whatever length stands before them, in any order.
fn payload(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = ADDRESSES_LEN;
    loop {
        let kind = be16(frame, at)?;
        at += 2;
        if is_tpid(kind) {
            at += 2;
        } else if kind < LEAST_TYPE {
            SNAP.iter().find(|snap| frame.get(at..).is_some_and(|rest| rest.starts_with(*snap)))?;
            at += 6;
        } else {
            return Some((kind, at));
        }
    }
}

fn arp(guard: &Guard, packet: &[u8]) -> Result<(), Breach> {
    let arp: &[u8; ARP_LEN] =
        packet.first_chunk().filter(|arp| arp.starts_with(&ARP_OF_IPV4)).ok_or(Breach::ArpForm)?;
    let address = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    let (sender, target) = (address(14), address(24));
    let mac = Mac::new([arp[8], arp[9], arp[10], arp[11], arp[12], arp[13]]);
    if mac != guard.mac {
        return Err(Breach::ArpMac(mac));
    }
    //= RFC 5227 §2.1.1
    //# A host probes to see if an address is already in use by broadcasting an ARP Request for the desired address.
    if sender.is_unspecified() && be16(arp, 6) == Some(ARP_REQUEST) {
        return if guard.allows(target.into()) { Ok(()) } else { Err(Breach::ArpProbe(target)) };
    }
    if guard.allows(sender.into()) { Ok(()) } else { Err(Breach::ArpSender(sender)) }
}

fn ipv4(guard: &Guard, frame: &[u8], at: usize) -> Result<(), Breach> {
    let ip = ip::find_v4(frame, frame.len(), at).ok_or(Breach::Ipv4Form)?;
    let source = ip.source();
    let IpAddr::V4(claimed) = source else { return Err(Breach::Ipv4Form) };
    let is_later = ip.fragment.is_some_and(|fragment| fragment.offset != 0);
    let ports = match ip.protocol {
        PROTOCOL_UDP if !is_later => Some(ports(&ip, ip.transport_at).ok_or(Breach::Ipv4Form)?),
        _ => None,
    };
    if let Some((from, to)) = ports
        && (from == DHCP_SERVER || to == DHCP_CLIENT)
    {
        return Err(Breach::DhcpServer(from, to));
    }
    //= RFC 2131 §4.1
    //# DHCP messages broadcast by a client prior to that client obtaining its IP address must have the source address
    //# field in the IP header set to 0.
    let looks_for_address = claimed.is_unspecified()
        && ip.destination() == Ipv4Addr::BROADCAST
        && ports == Some((DHCP_CLIENT, DHCP_SERVER))
        && !ip.is_part();
    if looks_for_address || guard.allows(source) { Ok(()) } else { Err(Breach::Ipv4Source(claimed)) }
}

/// Source and destination port of the UDP header at `at`; `None` when it is cut short.
fn ports(ip: &Ip<'_>, at: usize) -> Option<(u16, u16)> {
    let header = upper(ip, at).first_chunk::<UDP_HEADER_LEN>()?;
    Some((be16(header, 0)?, be16(header, 2)?))
}

/// What stands behind the headers of IP, from byte `at` of the frame.
fn upper<'a>(ip: &Ip<'a>, at: usize) -> &'a [u8] {
    at.checked_sub(ip.transport_at).and_then(|from| ip.payload().get(from..)).unwrap_or_default()
}

fn ipv6(guard: &Guard, frame: &[u8], at: usize) -> Result<(), Breach> {
    let ip = ip::find_v6(frame, frame.len(), at).ok_or(Breach::Ipv6Form)?;
    let IpAddr::V6(source) = ip.source() else { return Err(Breach::Ipv6Form) };
    let has_address = owns(guard, source);
    let spoofed = Breach::Ipv6Source(source);
    if ip.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return if has_address { Ok(()) } else { Err(spoofed) };
    }
    let (protocol, at) = ip.upper().ok_or(Breach::Ipv6Form)?;
    match protocol {
        PROTOCOL_ICMPV6 => return icmpv6(guard, &ip, upper(&ip, at), source),
        PROTOCOL_UDP => {
            let (from, to) = ports(&ip, at).ok_or(Breach::Ipv6Form)?;
            if from == DHCPV6_SERVER || to == DHCPV6_CLIENT {
                return Err(Breach::DhcpServer(from, to));
            }
        }
        PROTOCOL_TCP if upper(&ip, at).len() < TCP_HEADER_LEN => return Err(Breach::Ipv6Form),
        _ => {}
    }
    if has_address { Ok(()) } else { Err(spoofed) }
}

/// Whether `address` is the station's own: one of the guard's, or the link-local one of its MAC.
fn owns(guard: &Guard, address: Ipv6Addr) -> bool {
    address == guard.link_local() || guard.allows(address.into())
}

/// A message of ICMPv6 in a packet from `source`: in a whole packet, or in a first fragment.
fn icmpv6(guard: &Guard, ip: &Ip<'_>, message: &[u8], source: Ipv6Addr) -> Result<(), Breach> {
    let kind = message.first_chunk::<8>().ok_or(Breach::Ipv6Form)?[0];
    //= RFC 7113 §2: router advertisements are found behind whatever headers stand in front of them.
    if OF_ROUTERS.contains(&kind) {
        return Err(Breach::Router(kind));
    }
    let is_discovery = matches!(kind, ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT);
    //= RFC 6980 §5
    //# Nodes MUST silently ignore the following Neighbor Discovery […] messages if the packets carrying them include an
    //# IPv6 Fragmentation Header
    if is_discovery && ip.fragment.is_some() {
        return Err(Breach::NdFragment);
    }
    let is_silent = source.is_unspecified();
    let may_be_silent = kind == NEIGHBOUR_SOLICITATION || MLD.contains(&kind);
    if !(owns(guard, source) || is_silent && may_be_silent) {
        return Err(Breach::Ipv6Source(source));
    }
    if !is_discovery {
        return Ok(());
    }
    let options = if kind == ROUTER_SOLICITATION {
        8
    } else {
        let (_, target) = message.split_first_chunk::<8>().ok_or(Breach::NdForm)?;
        let target = Ipv6Addr::from(*target.first_chunk::<16>().ok_or(Breach::NdForm)?);
        // Who asks without an address wants the one that is asked for (RFC 4862 §5.4.2).
        if (kind == NEIGHBOUR_ADVERTISEMENT || is_silent) && !owns(guard, target) {
            return Err(Breach::NdTarget(target));
        }
        24
    };
    link_layer(guard, message.get(options..).ok_or(Breach::NdForm)?)
}

/// Every link-layer address among the options is the station's.
fn link_layer(guard: &Guard, mut options: &[u8]) -> Result<(), Breach> {
    while let [kind, len, ..] = *options {
        //= RFC 4861 §4.6
        //# The value 0 is invalid. Nodes MUST silently discard an ND packet that contains an option with length zero.
        let len = usize::from(len) * 8;
        let (option, rest) =
            options.split_at_checked(len).filter(|(option, _)| !option.is_empty()).ok_or(Breach::NdForm)?;
        if LINK_LAYER.contains(&kind) {
            let mac = <[u8; 8]>::try_from(option).ok().map(|[_, _, mac @ ..]| Mac::new(mac));
            if mac != Some(guard.mac) {
                return Err(Breach::NdMac(mac));
            }
        }
        options = rest;
    }
    if options.is_empty() { Ok(()) } else { Err(Breach::NdForm) }
}
