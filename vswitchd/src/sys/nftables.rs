//! The host's packet rules for gateways: the table `inet vswitch`, which is ours alone, by netlink; and for interfaces
//! whose frames are the switch's alone (see [`Claims`]).
//!
//! Pods reach the world through a gateway port of the host. Two things must be seen to there. What a pod sends to a
//! UDP port of VXLAN would, with the host's own address as its source, be taken for a member's by any other node (a
//! member is known by its address, RFC 7348 §4): it dies. And where pods have addresses that nobody outside knows, they
//! get the host's. Not here: which gateways and ranges those are.

mod batch;
mod claims;

pub use claims::Claims;

use self::batch::{Base, Batch, Element, Hook, Key, Meta, Rule, Verdict};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// The table's name; its family is `inet`.
const TABLE: &str = "vswitch";

/// Longest name of an interface, with the zero behind it (IFNAMSIZ).
const NAME: usize = 16;

/// Protocol numbers (IANA), and types of ICMPv6 (RFC 4861 §4).
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;

/// RTN_UNICAST of rtnetlink(7): neither this host, nor many.
const UNICAST: u32 = 1;

/// What the rules are about. Prefixes may overlap and stand in any order; a length beyond the family's is a single
/// address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The interfaces that are gateways of pods, 1..=15 bytes each; they need not exist yet.
    pub gateways: Vec<String>,
    /// The ranges that pods have their addresses from: address and prefix length.
    pub pods: Vec<(IpAddr, u8)>,
    /// The ranges whose packets leave with the host's address as their source.
    pub masquerade: Vec<(IpAddr, u8)>,
    /// The nodes' addresses on the underlay: never masqueraded to, and never sent VXLAN.
    pub nodes: Vec<(IpAddr, u8)>,
    /// The UDP ports that nodes listen on for VXLAN, 1..=65535; 4789 by RFC 7348 §5.
    pub vxlan_ports: Vec<u16>,
}

/// Puts `rules` in place of what is in the table, in the calling thread's network namespace, in one transaction: at no
/// moment does a packet meet less than the old rules or the new ones. What the kernel has counted begins at zero.
///
/// * Chain `prerouting`, behind the reassembly of fragments and before other people's translation of addresses: of what
///   comes in by a gateway, VXLAN is dropped and counted where it is for a node, or for anything that is not a pod; and
///   router advertisements and redirects (RFC 4861 §4.2, §4.5), which no pod may give a host.
/// * Chains `input` and `forward`: the same again for VXLAN, behind the translation of addresses; for the host itself
///   without exception.
/// * Chain `postrouting`: packets from a masqueraded range to a unicast address that is no pod's, no node's and not
///   this host's get the host's address.
///
/// # Errors
/// `PermissionDenied` without CAP_NET_ADMIN; `InvalidInput` for a name that is too long; `NotFound` or `Unsupported` where the kernel lacks nftables, or (before
/// Linux 5.2) translation of addresses in tables of both families. The old rules are in force then.
pub fn apply(rules: &Ruleset) -> io::Result<()> {
    let mut batch = Batch::new(batch::Family::Inet, TABLE);
    // So that deleting finds one.
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    let gateways: BTreeSet<&str> = rules.gateways.iter().map(String::as_str).collect();
    let gateways = gateways.into_iter().map(|name| {
        let mut key = name.as_bytes().to_vec();
        key.resize(NAME.max(key.len()), 0);
        Element { key, end: false }
    });
    let gateways: Vec<Element> = gateways.collect();
    batch.add_set("gateways", Key::INTERFACE, false, &gateways);
    for family in FAMILIES {
        for (set, prefixes) in
            [("pods", &rules.pods), ("masquerade", &rules.masquerade), ("nodes", &rules.nodes)]
        {
            let elements = family.elements(prefixes);
            batch.add_set(&family.set(set), family.key, true, &elements);
        }
    }
    let ports: BTreeSet<u16> = rules.vxlan_ports.iter().copied().collect();
    let ports: Vec<Element> =
        ports.into_iter().map(|port| Element { key: port.to_be_bytes().to_vec(), end: false }).collect();
    batch.add_set("ports", Key::PORT, false, &ports);

    let hook = |kind, number, priority| Hook { kind, number, priority };
    // Fragments have been put together at -400, in every namespace with translation of addresses: ours, see below.
    let chain = "prerouting";
    batch.add_chain(chain, hook("filter", 0, -150));
    leave_others_alone(&mut batch, chain);
    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        batch.add_rule(chain, |rule| {
            let rule = rule.meta(Meta::TransportProtocol).is(&[ICMPV6]);
            rule.payload(Base::Transport, 0, 1).is(&[kind]).counter().verdict(Verdict::Drop);
        });
    }
    drop_vxlan(&mut batch, chain);
    let chain = "input";
    batch.add_chain(chain, hook("filter", 1, 0));
    leave_others_alone(&mut batch, chain);
    batch.add_rule(chain, |rule| vxlan(rule).counter().verdict(Verdict::Drop));
    let chain = "forward";
    batch.add_chain(chain, hook("filter", 2, 0));
    leave_others_alone(&mut batch, chain);
    drop_vxlan(&mut batch, chain);

    let chain = "postrouting";
    batch.add_chain(chain, hook("nat", 4, 100));
    for family in FAMILIES {
        batch.add_rule(chain, |rule| {
            let rule = family.address(rule, family.source).lookup(&family.set("masquerade"), false);
            let rule = family.address(rule, family.destination).lookup(&family.set("pods"), true);
            let rule = family.address(rule, family.destination).lookup(&family.set("nodes"), true);
            rule.destination_type().is(&UNICAST.to_ne_bytes()).masquerade();
        });
    }
    batch.commit()
}

/// Deletes the table, in the calling thread's network namespace. That there is none, or no nftables in the kernel, is no
/// error. Connections that were masqueraded go on as they are.
///
/// # Errors
/// `PermissionDenied` without CAP_NET_ADMIN.
pub fn remove() -> io::Result<()> {
    let mut batch = Batch::new(batch::Family::Inet, TABLE);
    batch.delete_table();
    match batch.commit() {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported) => Ok(()),
        // No netfilter at all: socket(2) knows no such protocol.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(()),
        removed => removed,
    }
}

/// Whether the table is there, in the calling thread's network namespace: whoever flushes all rules takes it away.
///
/// # Errors
/// `PermissionDenied` without CAP_NET_ADMIN.
pub fn is_there() -> io::Result<bool> {
    // Made and deleted in one transaction, which is nothing, unless there is one already.
    let mut batch = Batch::new(batch::Family::Inet, TABLE);
    batch.add_first_table();
    batch.delete_table();
    match batch.commit() {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
        Err(error) => Err(error),
    }
}

/// Lets a filter's chain have nothing to say about what does not come in by a gateway.
fn leave_others_alone(batch: &mut Batch, chain: &str) {
    batch.add_rule(chain, |rule| {
        rule.meta(Meta::InterfaceName).lookup("gateways", true).verdict(Verdict::Accept);
    });
}

/// What is sent to a port of VXLAN.
fn vxlan(rule: Rule<'_>) -> Rule<'_> {
    let rule = rule.meta(Meta::TransportProtocol).is(&[UDP]);
    rule.payload(Base::Transport, 2, 2).lookup("ports", false)
}

/// Drops VXLAN that is for a node, or for anything that is not a pod.
fn drop_vxlan(batch: &mut Batch, chain: &str) {
    for family in FAMILIES {
        for (set, inverted) in [("nodes", false), ("pods", true)] {
            batch.add_rule(chain, |rule| {
                let rule = family.address(vxlan(rule), family.destination);
                rule.lookup(&family.set(set), inverted).counter().verdict(Verdict::Drop);
            });
        }
    }
}

/// What differs between the families.
#[derive(Clone, Copy)]
struct Family {
    /// NFPROTO_IPV4, NFPROTO_IPV6.
    number: u8,
    key: Key,
    /// Bits of an address.
    bits: u8,
    /// Where the source address stands in the header (RFC 791 §3.1, RFC 8200 §3).
    source: u32,
    /// And the destination.
    destination: u32,
}

const FAMILIES: [Family; 2] = [
    Family { number: 2, key: Key::IPV4, bits: 32, source: 12, destination: 16 },
    Family { number: 10, key: Key::IPV6, bits: 128, source: 8, destination: 24 },
];

impl Family {
    /// The name of a set of this family.
    fn set(self, name: &str) -> String {
        format!("{name}{}", if self.bits == 32 { 4 } else { 6 })
    }

    /// Loads the address at `offset`, or ends the rule for packets of the other family.
    fn address(self, rule: Rule<'_>, offset: u32) -> Rule<'_> {
        let rule = rule.meta(Meta::NetworkProtocol).is(&[self.number]);
        rule.payload(Base::Network, offset, u32::from(self.bits / 8))
    }

    /// The elements of a set that holds those of `prefixes` that are of this family: ranges that neither overlap nor
    /// touch, as the kernel wants them, in rising order.
    fn elements(self, prefixes: &[(IpAddr, u8)]) -> Vec<Element> {
        let mut ranges: Vec<(u128, u128)> = prefixes
            .iter()
            .filter(|(address, _)| address.is_ipv4() == (self.bits == 32))
            .map(|(address, len)| {
                let address = match address {
                    IpAddr::V4(v4) => v4.to_bits().into(),
                    IpAddr::V6(v6) => v6.to_bits(),
                };
                let hosts = self.bits.saturating_sub(*len);
                let within = 1_u128.checked_shl(hosts.into()).map_or(u128::MAX, |size| size - 1);
                (address & !within, address | within)
            })
            .collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        let key = |bits: u128| bits.to_be_bytes()[16 - usize::from(self.bits / 8)..].to_vec();
        let highest = u128::MAX >> (128 - u32::from(self.bits));
        let mut elements = Vec::new();
        for (first, last) in merged {
            elements.push(Element { key: key(first), end: false });
            // A range up to the last address is not closed.
            if last < highest {
                elements.push(Element { key: key(last + 1), end: true });
            }
        }
        elements
    }
}
