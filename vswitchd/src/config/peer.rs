//! The underlay and who is on it: this node's tunnel address, the mesh, single peers.
//!
//! Not here: sockets, interfaces, and whether a peer answers.

use super::file::{Span, Value};
use super::read::{Field, Section};
use super::{Config, InnerVlan};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::Vni;

/// The most peers there may be.
pub const MAX_PEERS: usize = 4096;

/// All addresses that begin alike, as `192.168.65.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The first of them: every bit behind `len` is zero.
    pub network: IpAddr,
    /// How many bits are alike, 0..=32 or 0..=128.
    pub len: u8,
}

/// One entry of `[underlay] address`: which of a node's addresses its tunnels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressSpec {
    /// This one.
    Exact(IpAddr),
    /// The one that lies in this prefix.
    Prefix(Prefix),
}

/// What is done with the reserved bits of a VXLAN header (RFC 7348 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reserved {
    /// They are ignored, as the RFC says.
    #[default]
    Rfc,
    /// A datagram in which one is set is refused.
    Strict,
}

/// `[underlay]`: the network between the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// This node's tunnel addresses, one or two, at most one per family.
    pub addresses: Vec<AddressSpec>,
    /// The UDP port, 1..=65535.
    pub port: u16,
    /// Its MTU, 576..=65535; `None`: the MTU of the interface that holds the address.
    pub mtu: Option<u16>,
    /// Reserved bits.
    pub vxlan_reserved: Reserved,
    /// Tags inside.
    pub vxlan_inner_vlan: InnerVlan,
    /// How many sending sockets, and so outer source ports, each family has, 1..=64.
    pub send_sockets: u16,
}

/// Where a peer was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerSource {
    /// In `[mesh] peers`.
    Mesh,
    /// In a `[[peer]]` of its own, be it among `[mesh] peers` or not.
    Table,
}

/// One remote node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its address, which is what it is: one address, one peer.
    pub address: IpAddr,
    /// What it is called.
    pub name: Option<String>,
    /// The VNIs it carries, in rising order; `None`: all.
    pub vnis: Option<Vec<Vni>>,
    /// Tags inside: its own word, or the underlay's.
    pub inner_vlan: InnerVlan,
    /// Whether its datagrams must have every reserved bit zero: its own word, or the underlay's.
    pub strict: bool,
    /// The MTU of the path to it, 576..=65535; `None`: the underlay's.
    pub mtu: Option<u16>,
    /// Where it was named.
    pub source: PeerSource,
}

/// Address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// The addresses that a node's tunnels use.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Chosen {
    /// One per family, in the order of `[underlay] address`.
    pub addresses: Vec<IpAddr>,
    /// Entries of `[underlay] address` that no address of the node matches yet.
    pub waiting: Vec<AddressSpec>,
    /// Entries that several addresses match, and those addresses, in rising order: the first was chosen.
    pub several: Vec<(AddressSpec, Vec<IpAddr>)>,
}

/// Peers for which this node has no local address of their family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyMissing {
    /// Those peers, at least one.
    pub refused: Vec<PeerConfig>,
    /// The others.
    pub usable: Vec<PeerConfig>,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.len)
    }
}

impl fmt::Display for AddressSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(address) => address.fmt(f),
            Self::Prefix(prefix) => prefix.fmt(f),
        }
    }
}

const fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

impl fmt::Display for FamilyMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, peer) in self.refused.iter().enumerate() {
            let separator = if i > 0 { "; " } else { "" };
            let family = family(peer.address.is_ipv6());
            write!(f, "{separator}peer {:?}: this node has no local {family} address for it", peer.label())?;
        }
        Ok(())
    }
}

impl std::error::Error for FamilyMissing {}

impl Prefix {
    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.network.is_ipv4() == address.is_ipv4()
            && (bits(self.network) ^ bits(address)) & !self.host_mask() == 0
    }

    /// Ones where its addresses differ.
    fn host_mask(&self) -> u128 {
        let host_bits = width(self.network).saturating_sub(self.len);
        1u128.checked_shl(u32::from(host_bits)).map_or(u128::MAX, |above| above - 1)
    }

    /// The address and prefix length in `text`, host bits and all; in words, what is wrong with it.
    pub(super) fn split(text: &str) -> Result<(IpAddr, u8), String> {
        let unfit = || format!("is not an address with a prefix length, like {EXAMPLE_INTERFACE}");
        let (address, len) = text.split_once('/').ok_or_else(unfit)?;
        let address: IpAddr = address.parse().map_err(|_| unfit())?;
        let digits = !len.is_empty() && len.len() <= 3 && len.bytes().all(|c| c.is_ascii_digit());
        let len: u16 = if digits { len.parse().map_err(|_| unfit())? } else { return Err(unfit()) };
        let max = width(address);
        match u8::try_from(len) {
            Ok(len) if len <= max => Ok((address, len)),
            _ => Err(format!(
                "has prefix length {len}; 0..{max} are allowed for {}",
                family(address.is_ipv6())
            )),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (address, len) = Self::split(text)?;
        let mask = Self { network: address, len }.host_mask();
        let network = address_of(bits(address) & !mask, address.is_ipv6());
        let prefix = Self { network, len };
        if network == address {
            Ok(prefix)
        } else {
            Err(format!("has bits behind its prefix length; the prefix is {prefix}"))
        }
    }
}

const EXAMPLE_INTERFACE: &str = "10.10.0.2/24";

/// How many bits an address of this family has.
const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address_of(bits: u128, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::from(bits).into()
    } else {
        Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX)).into()
    }
}

/// Why no node can have `address` in an underlay.
fn unfit(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("is no node's address"),
        _ if address.is_multicast() => Some("is a multicast address; a node's own is expected"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address; a node's own is expected"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("is a link-local address, which means nothing without its interface")
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Some("is an IPv4 address in IPv6 form; write it as IPv4")
        }
        _ => None,
    }
}

impl AddressSpec {
    /// Whether it speaks of IPv6.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        match self {
            Self::Exact(address) => address.is_ipv6(),
            Self::Prefix(prefix) => prefix.network.is_ipv6(),
        }
    }

    /// Whether a tunnel may use `address`, one of the node's.
    #[must_use]
    pub fn matches(&self, address: IpAddr) -> bool {
        match self {
            Self::Exact(exact) => *exact == address,
            Self::Prefix(prefix) => prefix.contains(address) && unfit(address).is_none(),
        }
    }
}

impl Underlay {
    /// Which of `local`, the addresses a node has, its tunnels use.
    #[must_use]
    pub fn choose(&self, local: &[IpAddr]) -> Chosen {
        let mut chosen = Chosen::default();
        for spec in &self.addresses {
            let mut matching: Vec<IpAddr> = local.iter().copied().filter(|a| spec.matches(*a)).collect();
            matching.sort_unstable();
            matching.dedup();
            match matching.first() {
                None => chosen.waiting.push(*spec),
                Some(lowest) => {
                    chosen.addresses.push(*lowest);
                    if matching.len() > 1 {
                        chosen.several.push((*spec, matching));
                    }
                }
            }
        }
        chosen
    }

    /// The families its addresses have.
    #[must_use]
    pub fn families(&self) -> Families {
        Families::of(self.addresses.iter().map(AddressSpec::is_ipv6))
    }
}

impl Families {
    fn of(v6: impl Iterator<Item = bool>) -> Self {
        v6.fold(Self::default(), |f, v6| Self { v4: f.v4 || !v6, v6: f.v6 || v6 })
    }
}

impl PeerConfig {
    /// What a sentence calls it: its name, or its address.
    #[must_use]
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.address.to_string())
    }
}

impl Config {
    /// The peers of a node that has the addresses `local`: `mesh` without its own addresses.
    ///
    /// # Errors
    /// [`FamilyMissing`] when there are peers of a family in which no address of `local` matches
    /// `[underlay] address`; it holds the other peers, too.
    pub fn peers_for(&self, local: &[IpAddr]) -> Result<Vec<PeerConfig>, FamilyMissing> {
        let own: HashSet<&IpAddr> = local.iter().collect();
        let chosen = self.underlay.as_ref().map(|underlay| underlay.choose(local)).unwrap_or_default();
        let here = Families::of(chosen.addresses.iter().map(IpAddr::is_ipv6));
        let peers = self.mesh.iter().filter(|peer| !own.contains(&peer.address)).cloned();
        let (usable, refused): (Vec<_>, Vec<_>) =
            peers.partition(|peer| if peer.address.is_ipv6() { here.v6 } else { here.v4 });
        if refused.is_empty() { Ok(usable) } else { Err(FamilyMissing { refused, usable }) }
    }

    /// The families in use on the underlay: those of the peers; without peers, those of `[underlay] address`.
    #[must_use]
    pub fn families(&self) -> Families {
        if self.mesh.is_empty() {
            return self.underlay.as_ref().map(Underlay::families).unwrap_or_default();
        }
        Families::of(self.mesh.iter().map(|peer| peer.address.is_ipv6()))
    }
}

/// An address that a node can have.
fn node_address(field: &Field<'_>, text: &str, or: &str) -> Option<IpAddr> {
    let Ok(address) = text.parse() else {
        return field.refuse(format!("is not an address{or}"));
    };
    match unfit(address) {
        Some(reason) => field.refuse(reason),
        None => Some(address),
    }
}

fn read_spec(field: &Field<'_>) -> Option<AddressSpec> {
    let text = field.text()?;
    if text.contains('/') {
        return match Prefix::parse(text) {
            Ok(prefix) => Some(AddressSpec::Prefix(prefix)),
            Err(reason) => field.refuse(reason),
        };
    }
    node_address(field, text, " or a prefix, like 192.168.65.1 or 192.168.65.0/24").map(AddressSpec::Exact)
}

const RESERVED: [(&str, Reserved); 2] = [("rfc", Reserved::Rfc), ("strict", Reserved::Strict)];
const INNER_VLAN: [(&str, InnerVlan); 2] = [("strip", InnerVlan::Strip), ("carry", InnerVlan::Carry)];

/// Reads `[underlay]`.
pub(super) fn read_underlay(section: &Section<'_>) -> Option<Underlay> {
    let addresses = section.need("address").and_then(|field| {
        let fields = field.one_or_more()?;
        let mut specs: Vec<AddressSpec> = Vec::new();
        for field in &fields {
            let spec = read_spec(field)?;
            if let Some(other) = specs.iter().find(|other| other.is_ipv6() == spec.is_ipv6()) {
                let family = family(spec.is_ipv6());
                return field.refuse(format!("is {family} as {other} is; one per family is allowed"));
            }
            specs.push(spec);
        }
        Some(specs)
    });
    let port = section.get("port").map_or(Some(4789), |field| field.number(1..=u16::MAX));
    let mtu = section.get("mtu").map(|field| field.number(576..=u16::MAX));
    let reserved = section.get("vxlan_reserved").map_or(Some(Reserved::Rfc), |f| f.word(&RESERVED));
    let inner_vlan = section.get("vxlan_inner_vlan").map_or(Some(InnerVlan::Strip), |f| f.word(&INNER_VLAN));
    let send_sockets = section.get("send_sockets").map_or(Some(16), |field| field.number(1..=64));
    section.refuse_unknown();
    Some(Underlay {
        addresses: addresses?,
        port: port?,
        mtu: mtu.flatten(),
        vxlan_reserved: reserved?,
        vxlan_inner_vlan: inner_vlan?,
        send_sockets: send_sockets?,
    })
}

/// The first and last address that one entry of `[mesh] peers` stands for.
fn read_span(field: &Field<'_>) -> Option<(IpAddr, IpAddr)> {
    const LIKE: &str = ", a range or a prefix, like 192.168.65.112, 192.168.65.116-192.168.65.120 or \
                        192.168.65.128/26";
    let text = field.text()?;
    let (first, last) = if text.contains('/') {
        let prefix = match Prefix::parse(text) {
            Ok(prefix) => prefix,
            Err(reason) => return field.refuse(reason),
        };
        let (low, mask) = (bits(prefix.network), prefix.host_mask());
        // The network's and the broadcast address of an IPv4 prefix are nobody's, where it has both.
        let ends = u128::from(prefix.network.is_ipv4() && prefix.len < 31);
        let v6 = prefix.network.is_ipv6();
        (address_of(low + ends, v6), address_of((low | mask) - ends, v6))
    } else if let Some((first, last)) = text.split_once('-') {
        let first = node_address(field, first.trim(), LIKE)?;
        let last = node_address(field, last.trim(), LIKE)?;
        if first.is_ipv6() != last.is_ipv6() {
            return field.refuse("is a range from one address family to another");
        }
        if first > last {
            return field.refuse("runs backwards; the lower address comes first");
        }
        (first, last)
    } else {
        let address = node_address(field, text, LIKE)?;
        (address, address)
    };
    let more = bits(last) - bits(first);
    if more >= MAX_PEERS as u128 {
        let count = more.checked_add(1).map_or_else(|| "2^128".to_owned(), |count| count.to_string());
        return field.refuse(format!("holds {count} addresses; at most {MAX_PEERS} peers are allowed"));
    }
    match unfit(first).or_else(|| unfit(last)) {
        Some(reason) => field.refuse(reason),
        None => Some((first, last)),
    }
}

fn read_vnis(field: &Field<'_>) -> Option<Vec<Vni>> {
    let items = field.items()?;
    if items.is_empty() {
        return field.refuse("is empty; leave it out for all VNIs");
    }
    let mut vnis: Vec<Vni> = Vec::new();
    for item in &items {
        let range = item.range((1 << 24) - 1, "VNI")?;
        if (range.end() - range.start()) as usize + vnis.len() >= MAX_VNIS {
            return item.refuse(format!("is too much; a peer has at most {MAX_VNIS} VNIs"));
        }
        vnis.extend(range.filter_map(Vni::new));
    }
    vnis.sort_unstable();
    vnis.dedup();
    Some(vnis)
}

/// More VNIs than a switch has VLANs are good for nothing.
const MAX_VNIS: usize = 4096;

/// Peers as they are gathered: each with the place that named it last.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) peers: BTreeMap<IpAddr, (PeerConfig, Option<Span>)>,
    full: bool,
    judged: bool,
}

impl Gathered {
    /// None yet. `judged`: whether it can be said who is reachable; not when `[underlay]` is in error itself.
    pub(super) const fn new(judged: bool) -> Self {
        Self { peers: BTreeMap::new(), full: false, judged }
    }

    /// Whether this node could reach `address` at all.
    fn reachable(&self, field: &Field<'_>, address: IpAddr, underlay: Option<&Underlay>) -> bool {
        if !self.judged {
            return true;
        }
        let Some(underlay) = underlay else {
            let _: Option<()> = field.refuse("needs [underlay] address, this node's own tunnel address");
            return false;
        };
        let families = underlay.families();
        let good = if address.is_ipv6() { families.v6 } else { families.v4 };
        if !good {
            let family = family(address.is_ipv6());
            let _: Option<()> =
                field.refuse(format!("is {family}; [underlay] address has none of that family"));
        }
        good
    }

    fn put(&mut self, field: &Field<'_>, peer: PeerConfig) {
        self.peers.insert(peer.address, (peer, field.span().cloned()));
        if self.peers.len() > MAX_PEERS && !self.full {
            self.full = true;
            let _: Option<()> =
                field.refuse(format!("is one too many; at most {MAX_PEERS} peers are allowed in all"));
        }
    }
}

/// Reads `[mesh]`.
pub(super) fn read_mesh(section: &Section<'_>, underlay: Option<&Underlay>, gathered: &mut Gathered) {
    let fields = section.need("peers").and_then(|field| field.items()).unwrap_or_default();
    section.refuse_unknown();
    let mut named = 0;
    for field in &fields {
        let Some((first, last)) = read_span(field) else { continue };
        if !gathered.reachable(field, first, underlay) {
            continue;
        }
        named += bits(last) - bits(first) + 1;
        if gathered.full || named > 16 * MAX_PEERS as u128 {
            return;
        }
        for address in bits(first)..=bits(last) {
            let address = address_of(address, first.is_ipv6());
            let peer = peer(address, underlay, PeerSource::Mesh);
            gathered.put(field, peer);
        }
    }
}

fn peer(address: IpAddr, underlay: Option<&Underlay>, source: PeerSource) -> PeerConfig {
    PeerConfig {
        address,
        name: None,
        vnis: None,
        inner_vlan: underlay.map_or(InnerVlan::Strip, |underlay| underlay.vxlan_inner_vlan),
        strict: underlay.is_some_and(|underlay| underlay.vxlan_reserved == Reserved::Strict),
        mtu: None,
        source,
    }
}

/// Reads every `[[peer]]`, behind `[mesh]`.
pub(super) fn read_tables(file: &Section<'_>, underlay: Option<&Underlay>, gathered: &mut Gathered) {
    let mut names: HashMap<String, IpAddr> = HashMap::new();
    for (number, table, span) in file.tables("peer") {
        let subject = match table.text("address") {
            Some(address) => format!("peer {address:?}: "),
            None => format!("peer {number}: "),
        };
        let section = Section::new("peer", subject, table, span, file.report);
        read_table(&section, underlay, gathered, &mut names);
    }
}

fn read_table(
    section: &Section<'_>,
    underlay: Option<&Underlay>,
    gathered: &mut Gathered,
    names: &mut HashMap<String, IpAddr>,
) -> Option<()> {
    let field = section.need("address");
    let name_field = section.get("name");
    let name = name_field.and_then(|field| field.name(63));
    let vnis = section.get("vnis").map(|field| read_vnis(&field));
    let mtu = section.get("mtu").and_then(|field| field.number(576..=u16::MAX));
    let reserved = section.get("vxlan_reserved").and_then(|field| field.word(&RESERVED));
    let inner_vlan = section.get("vxlan_inner_vlan").and_then(|field| field.word(&INNER_VLAN));
    section.refuse_unknown();
    let field = field?;
    let text = field.text()?;
    if text.contains(['/', '-']) {
        return field.refuse("is more than one address; a [[peer]] has one, [mesh] peers takes many");
    }
    let address = node_address(&field, text, ", like 192.168.65.201")?;
    if !gathered.reachable(&field, address, underlay) {
        return None;
    }
    if gathered.peers.get(&address).is_some_and(|(other, _)| other.source == PeerSource::Table) {
        return field.refuse("has a [[peer]] already");
    }
    if let (Some(name), Some(field)) = (name, name_field)
        && let Some(other) = names.insert(name.to_owned(), address)
    {
        return field.refuse(format!("is the name of peer \"{other}\" already"));
    }
    let mut peer = peer(address, underlay, PeerSource::Table);
    peer.name = name.map(str::to_owned);
    peer.vnis = vnis.flatten();
    peer.mtu = mtu;
    peer.strict = reserved.map_or(peer.strict, |reserved| reserved == Reserved::Strict);
    peer.inner_vlan = inner_vlan.unwrap_or(peer.inner_vlan);
    gathered.put(&field, peer);
    Some(())
}

/// Reads addresses with prefix lengths, as `["10.10.0.2/24"]`.
pub(super) fn read_interface_addresses(field: &Field<'_>) -> Option<Vec<(IpAddr, u8)>> {
    let mut addresses: Vec<(IpAddr, u8)> = Vec::new();
    for item in field.items()? {
        let (address, len) = match Prefix::split(item.text()?) {
            Ok(address) => address,
            Err(reason) => return item.refuse(reason),
        };
        if len == 0 {
            return item.refuse(format!("has prefix length 0; 1..{} are allowed", width(address)));
        }
        if address.is_unspecified() || address.is_multicast() || address == Ipv4Addr::BROADCAST {
            return item.refuse("is not an address that one interface can have");
        }
        if addresses.iter().any(|(other, _)| *other == address) {
            return item.refuse("is given twice");
        }
        addresses.push((address, len));
    }
    Some(addresses)
}

/// Reads a gateway, or one per family.
pub(super) fn read_gateways(field: &Field<'_>, addresses: &[(IpAddr, u8)]) -> Option<Vec<IpAddr>> {
    let mut gateways: Vec<IpAddr> = Vec::new();
    for item in field.one_or_more()? {
        let Value::String(text) = item.value() else {
            return item.refuse_type("an address like \"10.10.0.1\" is expected");
        };
        let Ok(gateway) = text.parse::<IpAddr>() else {
            return item.refuse("is not an address, like 10.10.0.1");
        };
        let v6 = gateway.is_ipv6();
        if gateway.is_unspecified() || gateway.is_multicast() {
            return item.refuse("is not an address that a gateway can have");
        }
        if gateways.iter().any(|other| other.is_ipv6() == v6) {
            return item.refuse(format!("is a second {} gateway; one per family is allowed", family(v6)));
        }
        if !addresses.iter().any(|(address, _)| address.is_ipv6() == v6) {
            return item.refuse(format!("is {}, but addresses holds none of that family", family(v6)));
        }
        let on_link =
            |(address, len): &(IpAddr, u8)| Prefix { network: *address, len: *len }.contains(gateway);
        let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !link_local && !addresses.iter().any(on_link) {
            item.warn(format!("gateway {gateway} is in the network of none of the addresses"));
        }
        gateways.push(gateway);
    }
    Some(gateways)
}
