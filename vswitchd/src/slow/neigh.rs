//! ARP (RFC 826, RFC 5227) and IPv6 neighbour discovery (RFC 4861): what a frame tells and asks, the answer in the
//! place of whom it asks for, and the announcement of who has just come.
//!
//! A station's answer is given as the station would: from its own address, naming its own, so nothing has to be
//! unlearned when it speaks itself. What breaks the RFCs' rules is neither believed nor answered, and has a name.
//! Link-local IPv6 addresses are left to those who have them: routers are asked for by theirs, and only a router knows
//! that it is one (an advertisement without the R flag would take it off its hosts' lists, RFC 4861 §7.2.5).
//!
//! Not here: who is known (see [`crate::observe::Directory`]) and what becomes of the frame.

mod say;

pub use say::announcement;

use super::too_big::dressed;
use pnet_packet::arp::ArpOperations;
use say::{HOP_LIMIT, OVERRIDE, SOLICITED, advertisement, arp};
use smoltcp::wire::{
    ArpOperation as Operation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Message, IpProtocol, Ipv6Packet,
    NdiscNeighborFlags, NdiscOption, NdiscOptionType,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::Mac;
use vswitch_core::wire::checksum::Sum;
use vswitch_core::wire::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV6, addresses};
use vswitch_core::wire::ip::{PROTOCOL_ICMPV6, V6_HEADER_LEN};
use vswitch_core::wire::vlan::tag_stack;

/// A unit of an option's length; a link-layer address option of Ethernet has one (RFC 4861 §4.6.1).
const OPTION_LEN: usize = 8;

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal;)+) => {
        /// Why a message is neither believed nor answered. Each is a counter of that name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Refusal { $($(#[doc = $doc])+ $variant,)+ }

        impl Refusal {
            /// Every one, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The counter's name: lower case, underscores, stable.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

refusals! {
    /// It ends before its length says, or there is no such message in it.
    Truncated = "truncated";
    /// ARP of other things than Ethernet and IPv4.
    ArpKind = "arp_kind";
    /// The sender's MAC address is zero, a group's, or not the one that the frame came from.
    SenderMac = "sender_mac";
    /// The sender's IP address is one that no station has.
    SenderIp = "sender_ip";
    /// What is asked for, or advertised, is an address that no station has.
    Target = "target";
    /// A hop limit other than 255: it came through a router (RFC 4861 §7.1).
    HopLimit = "hop_limit";
    /// The ICMPv6 checksum is wrong.
    Checksum = "checksum";
    /// An ICMPv6 code other than 0.
    Code = "code";
    /// An option of length 0, of a length that its kind cannot have, or that reaches past the end (RFC 4861 §4.6).
    OptionLen = "option_len";
    /// A link-layer address option that is not the MAC address which the frame came from.
    OptionMac = "option_mac";
    /// A source link-layer address from somebody who has no address yet (RFC 4861 §7.1.1).
    OptionFromNobody = "option_from_nobody";
    /// A solicitation without a source not sent to a solicited-node address, or an advertisement to a group that says
    /// it was asked for (RFC 4861 §7.1.1, §7.1.2).
    Destination = "destination";
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The counter's place.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What a message tells and asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A station and an address that is its own.
    pub station: Option<(Mac, IpAddr)>,
    /// What it wants to know.
    pub question: Option<Question>,
}

/// Whose MAC address is wanted, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The MAC address of whoever asks.
    pub asker: Mac,
    asking: Asking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    /// `from` is 0.0.0.0 in a probe (RFC 5227 §2.1.1).
    Arp { from: Ipv4Addr, target: Ipv4Addr },
    /// `from` is :: in duplicate address detection (RFC 4862 §5.4).
    Solicitation { from: Ipv6Addr, target: Ipv6Addr },
}

impl Question {
    /// The address whose owner is asked for.
    #[must_use]
    pub const fn target(&self) -> IpAddr {
        match self.asking {
            Asking::Arp { target, .. } => IpAddr::V4(target),
            Asking::Solicitation { target, .. } => IpAddr::V6(target),
        }
    }

    /// The frame that says the target is `owner`'s, with the tags of `frame`, which asked. `None` for a probe: whoever
    /// wants an address for itself is answered by its owner alone, for one who is known may be gone.
    #[must_use]
    pub fn answer(&self, frame: &[u8], owner: Mac) -> Option<Vec<u8>> {
        let (_, type_at) = tag_stack(frame);
        let header = frame.get(..type_at + 2)?;
        match self.asking {
            Asking::Arp { from, .. } if from.is_unspecified() => None,
            Asking::Solicitation { from, .. } if from.is_unspecified() => None,
            Asking::Arp { from, target } => {
                let message = arp(ArpOperations::Reply, (owner, target), (self.asker, from))?;
                Some(dressed(self.asker, owner, header, &message))
            }
            Asking::Solicitation { from, target } => {
                let message = advertisement(owner, target, from, SOLICITED | OVERRIDE)?;
                Some(dressed(self.asker, owner, header, &message))
            }
        }
    }
}

/// What `frame`, as it came on its port's wire, tells and asks. With `checksum_owed` its sender has left the checksum
/// to be finished, and what stands in its place says nothing.
///
/// # Errors
/// Why it must not be believed.
pub fn read(frame: &[u8], checksum_owed: bool) -> Result<Seen, Refusal> {
    let (_, type_at) = tag_stack(frame);
    let (_, source) = addresses(frame).ok_or(Refusal::Truncated)?;
    if source.is_group() || source.is_zero() {
        return Err(Refusal::SenderMac);
    }
    let (ethertype, message) = frame
        .get(type_at..)
        .and_then(<[u8]>::split_first_chunk)
        .map(|(ethertype, message)| (u16::from_be_bytes(*ethertype), message))
        .ok_or(Refusal::Truncated)?;
    match ethertype {
        ETHERTYPE_ARP => read_arp(source, message),
        ETHERTYPE_IPV6 => read_discovery(source, message, checksum_owed),
        _ => Err(Refusal::Truncated),
    }
}

fn read_arp(source: Mac, message: &[u8]) -> Result<Seen, Refusal> {
    let packet = ArpPacket::new_checked(message).map_err(|_| Refusal::Truncated)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: sender,
        source_protocol_addr: from,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&packet).map_err(|_| Refusal::ArpKind)?
    else {
        return Err(Refusal::ArpKind);
    };
    if mac(sender) != source {
        return Err(Refusal::SenderMac);
    }
    //= RFC 5227 §2.1.1: a probe comes from 0.0.0.0.
    let is_probe = operation == Operation::Request && from.is_unspecified();
    if !is_probe && !is_station_v4(from) {
        return Err(Refusal::SenderIp);
    }
    match operation {
        Operation::Request => {
            if !is_station_v4(target) {
                return Err(Refusal::Target);
            }
            let asking = Asking::Arp { from, target };
            Ok(Seen {
                station: (!is_probe).then_some((source, IpAddr::V4(from))),
                //= RFC 5227 §3: an announcement asks for what its sender has.
                question: (from != target).then_some(Question { asker: source, asking }),
            })
        }
        Operation::Reply => Ok(Seen { station: Some((source, IpAddr::V4(from))), question: None }),
        Operation::Unknown(_) => Ok(Seen::default()),
    }
}

fn read_discovery(source: Mac, message: &[u8], checksum_owed: bool) -> Result<Seen, Refusal> {
    let ip = Ipv6Packet::new_checked(message).map_err(|_| Refusal::Truncated)?;
    if ip.version() != 6 || ip.next_header() != IpProtocol::Icmpv6 {
        return Err(Refusal::Truncated);
    }
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let icmp = smoltcp::wire::Icmpv6Packet::new_checked(ip.payload()).map_err(|_| Refusal::Truncated)?;
    let kind = icmp.msg_type();
    if !matches!(kind, Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert) {
        return Err(Refusal::Truncated);
    }
    if ip.hop_limit() != HOP_LIMIT {
        return Err(Refusal::HopLimit);
    }
    if !checksum_owed && !checksum_holds(message, ip.payload()) {
        return Err(Refusal::Checksum);
    }
    if icmp.msg_code() != 0 {
        return Err(Refusal::Code);
    }
    let target = icmp.target_addr();
    if !is_station_v6(target) {
        return Err(Refusal::Target);
    }
    let names_mac = options(source, kind, icmp.payload())?;
    if kind == Icmpv6Message::NeighborAdvert {
        //= RFC 4861 §7.1.2
        if to.is_multicast() && icmp.neighbor_flags().contains(NdiscNeighborFlags::SOLICITED) {
            return Err(Refusal::Destination);
        }
        if !is_station_v6(from) {
            return Err(Refusal::SenderIp);
        }
        return Ok(Seen { station: known(source, target), question: None });
    }
    //= RFC 4861 §7.1.1
    if from.is_unspecified() {
        if !is_solicited_node(to) {
            return Err(Refusal::Destination);
        }
        if names_mac {
            return Err(Refusal::OptionFromNobody);
        }
    } else if !is_station_v6(from) {
        return Err(Refusal::SenderIp);
    }
    let asking = Asking::Solicitation { from, target };
    Ok(Seen {
        // Only who says which MAC address is its own has said anything of it.
        station: names_mac.then(|| known(source, from)).flatten(),
        question: (!target.is_unicast_link_local()).then_some(Question { asker: source, asking }),
    })
}

/// Goes through the options of a message of `kind`; whether one names its sender's MAC address.
fn options(source: Mac, kind: Icmpv6Message, mut rest: &[u8]) -> Result<bool, Refusal> {
    let wanted = if kind == Icmpv6Message::NeighborSolicit {
        NdiscOptionType::SourceLinkLayerAddr
    } else {
        NdiscOptionType::TargetLinkLayerAddr
    };
    let mut names_mac = false;
    while !rest.is_empty() {
        let option = NdiscOption::new_checked(rest).map_err(|_| Refusal::OptionLen)?;
        let len = usize::from(option.data_len()) * OPTION_LEN;
        let (bytes, behind) = rest.split_at_checked(len).ok_or(Refusal::OptionLen)?;
        if option.option_type() == wanted {
            let named: [u8; OPTION_LEN] = bytes.try_into().map_err(|_| Refusal::OptionLen)?;
            let [_, _, address @ ..] = named;
            if Mac::new(address) != source {
                return Err(Refusal::OptionMac);
            }
            names_mac = true;
        }
        rest = behind;
    }
    Ok(names_mac)
}

fn known(owner: Mac, ip: Ipv6Addr) -> Option<(Mac, IpAddr)> {
    (!ip.is_unicast_link_local()).then_some((owner, IpAddr::V6(ip)))
}

/// Whether the ICMPv6 checksum in `payload` is that of the IPv6 packet `message`.
fn checksum_holds(message: &[u8], payload: &[u8]) -> bool {
    let addresses = message.get(8..V6_HEADER_LEN).and_then(<[u8]>::first_chunk);
    let (Some(addresses), Ok(len)) = (addresses, u32::try_from(payload.len())) else { return false };
    Sum::pseudo_v6(addresses, PROTOCOL_ICMPV6, len).with(payload).checksum() == 0
}

fn mac(address: EthernetAddress) -> Mac {
    Mac::new(address.0)
}

/// Whether a station can have this address.
const fn is_station_v4(ip: Ipv4Addr) -> bool {
    //= RFC 1122 §3.2.1.3: 0/8 and 127/8 are never on a wire; 224/4 are groups and 240/4 reserved.
    !matches!(ip.octets()[0], 0 | 127 | 224..)
}

const fn is_station_v6(ip: Ipv6Addr) -> bool {
    // Mapped IPv4 addresses are never on a wire either.
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && ip.to_ipv4_mapped().is_none()
}

/// ff02::1:ff00:0/104 (RFC 4291 §2.7.1).
fn is_solicited_node(ip: Ipv6Addr) -> bool {
    ip.octets().starts_with(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff])
}

#[cfg(test)]
mod tests {
    use super::say::ALL_NODES;
    use super::*;

    // As Linux 6.18 sends them: 02:…:01 has 10.0.0.1 and fd00::1, 02:…:02 has 10.0.0.2 and fd00::2.
    const REQUEST: &str =
        "ffffffffffff020000000001080600010800060400010200000000010a0000010000000000000a000002";
    const REPLY: &str =
        "020000000001020000000002080600010800060400020200000000020a0000020200000000010a000001";
    const ANNOUNCEMENT: &str =
        "ffffffffffff020000000001080600010800060400010200000000010a0000010000000000000a000001";
    const SOLICITATION: &str = "3333ff00000202000000000186dd6000000000203afffd000000000000000000000000000001\
        ff0200000000000000000001ff00000287007d9700000000fd0000000000000000000000000000020101020000000001";
    const ADVERT: &str = "02000000000102000000000286dd6000000000203afffd000000000000000000000000000002\
        fd00000000000000000000000000000188001c9a60000000fd0000000000000000000000000000020201020000000002";
    const DETECTION: &str = "3333ff00000202000000000186dd6000000000203aff00000000000000000000000000000000\
        ff0200000000000000000001ff0000028700505a00000000fd0000000000000000000000000000020e0179e35a004b5c";
    const UNASKED: &str = "33330000000102000000000186dd6000000000203afffd000000000000000000000000000001\
        ff02000000000000000000000000000188005a9b20000000fd0000000000000000000000000000010201020000000001";
    const LINK_LOCAL: &str = "33330000000102000000000186dd6000000000203afffe80000000000000000000fffe000001\
        ff0200000000000000000000000000018800599b20000000fe80000000000000000000fffe0000010201020000000001";

    const ONE: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const TWO: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            hex.bytes().map(|c| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap()).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// With the right checksum again after a change.
    fn summed(mut frame: Vec<u8>) -> Vec<u8> {
        frame[56..58].fill(0);
        let sum = Sum::pseudo_v6(
            frame[22..54].first_chunk().unwrap(),
            58,
            u32::try_from(frame.len() - 54).unwrap(),
        );
        let checksum = sum.with(&frame[54..]).checksum();
        frame[56..58].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// An IPv6 frame whose bytes from `at` on are `with`, cut or lengthened to that where they are its last.
    fn changed(hex: &str, at: usize, with: &[u8]) -> Vec<u8> {
        let mut frame = bytes(hex);
        frame.resize(frame.len().max(at + with.len()), 0);
        frame[at..at + with.len()].copy_from_slice(with);
        let len = u16::try_from(frame.len() - 54).unwrap();
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        summed(frame)
    }

    #[test]
    fn the_answer_is_the_owners_own_byte_for_byte() {
        for (asked, answered) in [(REQUEST, REPLY), (SOLICITATION, ADVERT)] {
            let asked = bytes(asked);
            let question = read(&asked, false).unwrap().question.unwrap();
            assert_eq!(question.asker, ONE);
            assert_eq!(question.answer(&asked, TWO), Some(bytes(answered)));
        }
    }

    #[test]
    fn an_answer_wears_the_tag_of_its_question() {
        for asked in [REQUEST, SOLICITATION] {
            let mut asked = bytes(asked);
            asked.splice(12..12, [0x81, 0, 0x60, 10]);
            let answer = read(&asked, false).unwrap().question.unwrap().answer(&asked, TWO).unwrap();
            assert_eq!(answer[..6], asked[6..12]);
            assert_eq!(answer[12..18], asked[12..18]);
        }
    }

    #[test]
    fn whoever_wants_an_address_for_itself_is_left_to_its_owner() {
        let mut probe = bytes(REQUEST);
        probe[28..32].fill(0);
        for asked in [probe, bytes(DETECTION)] {
            let seen = read(&asked, false).unwrap();
            assert_eq!(seen.station, None);
            assert_eq!(seen.question.unwrap().answer(&asked, TWO), None);
        }
    }

    #[test]
    fn announcements_are_those_of_a_station_that_comes_up() {
        assert_eq!(announcement(ONE, ip("10.0.0.1"), None), Some(bytes(ANNOUNCEMENT)));
        assert_eq!(announcement(ONE, ip("fd00::1"), None), Some(bytes(UNASKED)));
        let mut tagged = bytes(ANNOUNCEMENT);
        tagged.splice(12..12, [0x81, 0, 0, 10]);
        assert_eq!(announcement(ONE, ip("10.0.0.1"), Some([0x81, 0, 0, 10])), Some(tagged));
        for nobody in
            ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1", "::ffff:a00:1"]
        {
            assert_eq!(announcement(ONE, ip(nobody), None), None, "{nobody}");
        }
    }

    #[test]
    fn what_a_message_tells_of_its_sender_is_seen() {
        let told = |mac, text| Some((mac, ip(text)));
        let cases = [
            (REQUEST, told(ONE, "10.0.0.1"), Some(ip("10.0.0.2"))),
            (REPLY, told(TWO, "10.0.0.2"), None),
            (ANNOUNCEMENT, told(ONE, "10.0.0.1"), None),
            (SOLICITATION, told(ONE, "fd00::1"), Some(ip("fd00::2"))),
            (ADVERT, told(TWO, "fd00::2"), None),
            (DETECTION, None, Some(ip("fd00::2"))),
            (UNASKED, told(ONE, "fd00::1"), None),
            (LINK_LOCAL, None, None),
        ];
        for (frame, station, target) in cases {
            let seen = read(&bytes(frame), false).unwrap();
            assert_eq!((seen.station, seen.question.map(|q| q.target())), (station, target), "{frame}");
            // Padding to the shortest frame of a wire changes nothing.
            let mut padded = bytes(frame);
            padded.resize(padded.len() + 18, 0);
            assert_eq!(read(&padded, false), Ok(seen), "{frame}");
        }
        // Link-local addresses are asked for as ever.
        let mut asked = bytes(SOLICITATION);
        asked[62..64].copy_from_slice(&[0xfe, 0x80]);
        assert_eq!(read(&summed(asked), false).unwrap().question, None);
        // Not ours to understand, and no harm.
        let mut inverse = bytes(REQUEST);
        inverse[21] = 8;
        assert_eq!(read(&inverse, false), Ok(Seen::default()));
    }

    #[test]
    fn hostile_arp_is_refused_by_name() {
        let with = |at: usize, bytes_: &[u8]| {
            let mut frame = bytes(REQUEST);
            frame[at..at + bytes_.len()].copy_from_slice(bytes_);
            frame
        };
        let cases = [
            (with(14, &[0, 6]), Refusal::ArpKind),
            (with(16, &[0x86, 0xdd]), Refusal::ArpKind),
            (with(18, &[5]), Refusal::ArpKind),
            (with(19, &[3]), Refusal::ArpKind),
            (with(18, &[200, 200]), Refusal::Truncated),
            (bytes(REQUEST)[..41].to_vec(), Refusal::Truncated),
            (bytes(REQUEST)[..13].to_vec(), Refusal::Truncated),
            (with(22, &[2, 0, 0, 0, 0, 2]), Refusal::SenderMac),
            (with(22, &[0; 6]), Refusal::SenderMac),
            (with(6, &[0; 6]), Refusal::SenderMac),
            (with(6, &[3]), Refusal::SenderMac),
            (with(28, &[224]), Refusal::SenderIp),
            (with(28, &[255; 4]), Refusal::SenderIp),
            (with(28, &[127]), Refusal::SenderIp),
            (with(38, &[239]), Refusal::Target),
            (with(38, &[0; 4]), Refusal::Target),
        ];
        for (frame, refusal) in cases {
            assert_eq!(read(&frame, false), Err(refusal), "{frame:02x?}");
        }
        // Only a request may come from nobody.
        let mut reply = bytes(REPLY);
        reply[28..32].fill(0);
        assert_eq!(read(&reply, false), Err(Refusal::SenderIp));
    }

    #[test]
    fn hostile_discovery_is_refused_by_name() {
        let own = [1, 1, 2, 0, 0, 0, 0, 1];
        let cases = [
            (changed(SOLICITATION, 21, &[254]), Refusal::HopLimit),
            (changed(SOLICITATION, 55, &[1]), Refusal::Code),
            (changed(SOLICITATION, 62, &[0xff, 2]), Refusal::Target),
            (changed(SOLICITATION, 62, &[0; 16]), Refusal::Target),
            (changed(SOLICITATION, 79, &[0]), Refusal::OptionLen),
            (changed(SOLICITATION, 79, &[2]), Refusal::OptionLen),
            (changed(SOLICITATION, 79, &[255]), Refusal::OptionLen),
            (changed(SOLICITATION, 86, &[1]), Refusal::OptionLen),
            (changed(SOLICITATION, 86, &[14, 0, 0, 0, 0, 0, 0, 0]), Refusal::OptionLen),
            // A link-layer address of two units is none of Ethernet's.
            (changed(SOLICITATION, 78, &[&[1, 2], &own[2..], &[0; 8]].concat()), Refusal::OptionLen),
            (changed(SOLICITATION, 80, &[2, 0, 0, 0, 0, 2]), Refusal::OptionMac),
            (changed(SOLICITATION, 80, &[3, 0, 0, 0, 0, 1]), Refusal::OptionMac),
            // The second of two is looked at as well.
            (changed(SOLICITATION, 86, &[1, 1, 2, 0, 0, 0, 0, 2]), Refusal::OptionMac),
            (changed(SOLICITATION, 22, &[0xff, 2]), Refusal::SenderIp),
            (changed(DETECTION, 78, &own), Refusal::OptionFromNobody),
            (changed(DETECTION, 86, &own), Refusal::OptionFromNobody),
            (changed(DETECTION, 38, &[0xfd, 0]), Refusal::Destination),
            (changed(DETECTION, 38, ALL_NODES.octets().as_slice()), Refusal::Destination),
            (changed(UNASKED, 58, &[0x60]), Refusal::Destination),
            (changed(UNASKED, 22, &[0; 16]), Refusal::SenderIp),
            (changed(UNASKED, 80, &[2, 0, 0, 0, 0, 2]), Refusal::OptionMac),
            (changed(UNASKED, 62, &[0xff, 2]), Refusal::Target),
        ];
        for (frame, refusal) in cases {
            assert_eq!(read(&frame, false), Err(refusal), "{frame:02x?}");
        }
        for len in 0..bytes(SOLICITATION).len() {
            assert_eq!(read(&bytes(SOLICITATION)[..len], false), Err(Refusal::Truncated), "{len} bytes");
        }
    }

    #[test]
    fn a_checksum_counts_unless_it_is_still_owed() {
        let mut frame = bytes(SOLICITATION);
        frame[57] ^= 1;
        assert_eq!(read(&frame, false), Err(Refusal::Checksum));
        assert_eq!(read(&frame, true), read(&bytes(SOLICITATION), false));
    }

    #[test]
    fn every_refusal_has_its_own_name_and_place() {
        for (at, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(refusal.index(), at);
            assert_eq!(Refusal::ALL.iter().filter(|other| other.name() == refusal.name()).count(), 1);
        }
    }
}
