//! The rules by which `[underlay]`, `[mesh]` and `[[peer]]` are read.
//!
//! Not here: what follows from good ones.

use super::address::{AddressSpec, Prefix, address_of, bits, family, node_address, read_spec, unfit};
use super::file::{Span, Value};
use super::host::{PeerName, is_host_name};
use super::peer::{MAX_PEERS, PeerConfig, PeerSource, Reserved, Underlay};
use super::read::{Field, Section};
use super::{InnerVlan, put};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use vswitch_core::Vni;

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
    const LIKE: &str = ", a range, a prefix or a host name, like 192.168.65.112, \
                        192.168.65.116-192.168.65.120, 192.168.65.128/26 or node-1.example";
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

/// More VNIs than a switch has VLANs are good for nothing.
const MAX_VNIS: usize = 4096;

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

/// The host name that one entry of `[mesh] peers` is, in lower case.
fn read_host_name(field: &Field<'_>) -> Option<String> {
    let Value::String(text) = field.value() else { return None };
    // A range gone wrong at its second end could pass for a name.
    let range = text.split_once('-').is_some_and(|(first, _)| first.trim().parse::<IpAddr>().is_ok());
    (is_host_name(text) && !range).then(|| text.to_ascii_lowercase())
}

/// Peers as they are gathered: each with the place that named it last, and names with the place of the first.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) peers: BTreeMap<IpAddr, (PeerConfig, Option<Span>)>,
    pub(super) names: Vec<(PeerName, Option<Span>)>,
    known_names: HashSet<String>,
    full: bool,
    judged: bool,
}

impl Gathered {
    /// None yet. `judged`: whether it can be said who is reachable; not when `[underlay]` is in error itself.
    pub(super) fn new(judged: bool) -> Self {
        Self { peers: BTreeMap::new(), names: Vec::new(), known_names: HashSet::new(), full: false, judged }
    }

    /// Whether there is an underlay to reach anybody over.
    fn underlaid(&self, field: &Field<'_>, underlay: Option<&Underlay>) -> bool {
        if self.judged && underlay.is_none() {
            let _: Option<()> = field.refuse("needs [underlay] address, this node's own tunnel address");
            return false;
        }
        true
    }

    /// Whether this node could reach `address` at all.
    fn reachable(&self, field: &Field<'_>, address: IpAddr, underlay: Option<&Underlay>) -> bool {
        if !self.underlaid(field, underlay) {
            return false;
        }
        let Some(underlay) = underlay else { return true };
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
        self.limit(field);
    }

    fn put_name(&mut self, field: &Field<'_>, name: String) {
        if self.known_names.insert(name.clone()) {
            let place = field.report().place(field.span().map(|span| span.start));
            self.names.push((PeerName { name, place }, field.span().cloned()));
            self.limit(field);
        }
    }

    /// A name is at least one peer.
    fn limit(&mut self, field: &Field<'_>) {
        if self.peers.len() + self.names.len() > MAX_PEERS && !self.full {
            self.full = true;
            let _: Option<()> =
                field.refuse(format!("is one too many; at most {MAX_PEERS} peers are allowed in all"));
        }
    }
}

/// Reads `[mesh]`. Who is in the mesh must be said somewhere: `listed` is whether it must be here.
pub(super) fn read_mesh(
    section: &Section<'_>,
    listed: bool,
    underlay: Option<&Underlay>,
    gathered: &mut Gathered,
    probe: &mut bool,
) {
    let must = listed && !section.has("probe");
    let peers = if must { section.need("peers") } else { section.get("peers") };
    let fields = peers.and_then(|field| field.items()).unwrap_or_default();
    put(probe, section.get("probe").and_then(|field| field.boolean()));
    section.refuse_unknown();
    let mut named = 0;
    for field in &fields {
        if let Some(name) = read_host_name(field) {
            if !gathered.full && gathered.underlaid(field, underlay) {
                gathered.put_name(field, name);
            }
            continue;
        }
        let Some((first, last)) = read_span(field) else { continue };
        if !gathered.reachable(field, first, underlay) {
            continue;
        }
        named += bits(last) - bits(first) + 1;
        if gathered.full || named > 16 * MAX_PEERS as u128 {
            return;
        }
        // An underlay in error has no peers, and nothing comes of the file.
        let Some(underlay) = underlay else { continue };
        for address in bits(first)..=bits(last) {
            let address = address_of(address, first.is_ipv6());
            gathered.put(field, underlay.peer(address, PeerSource::Mesh));
        }
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
    let mut peer = underlay?.peer(address, PeerSource::Table);
    peer.name = name.map(str::to_owned);
    peer.vnis = vnis.flatten();
    peer.mtu = mtu;
    peer.strict = reserved.map_or(peer.strict, |reserved| reserved == Reserved::Strict);
    peer.inner_vlan = inner_vlan.unwrap_or(peer.inner_vlan);
    gathered.put(&field, peer);
    Some(())
}
