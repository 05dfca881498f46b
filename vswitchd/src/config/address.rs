//! Addresses in a file: prefixes, a node's own tunnel address, an interface's addresses and gateways.
//!
//! Not here: which addresses a node really has.

use super::file::Value;
use super::read::Field;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// All addresses that begin alike, as `192.168.65.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|reason| serde::de::Error::custom(format!("{text:?} {reason}")))
    }
}

pub(super) const fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

impl Prefix {
    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.network.is_ipv4() == address.is_ipv4()
            && (bits(self.network) ^ bits(address)) & !self.host_mask() == 0
    }

    /// The one of length `len` that `address` lies in.
    #[must_use]
    pub fn around(address: IpAddr, len: u8) -> Self {
        let mask = Self { network: address, len }.host_mask();
        Self { network: address_of(bits(address) & !mask, address.is_ipv6()), len }
    }

    /// The numbers of its first and of its last address, in its family.
    pub(crate) fn edges(&self) -> (u128, u128) {
        (bits(self.network), bits(self.network) | self.host_mask())
    }

    /// The address of its family that has this number.
    pub(crate) fn address(&self, number: u128) -> IpAddr {
        address_of(number, self.network.is_ipv6())
    }

    /// The prefix that is this address alone.
    pub(crate) const fn alone(address: IpAddr) -> Self {
        Self { network: address, len: width(address) }
    }

    /// Whether one of the two lies in the other.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// How many bits an address of its family has.
    pub(crate) const fn width(&self) -> u8 {
        width(self.network)
    }

    /// Ones where its addresses differ.
    pub(super) fn host_mask(&self) -> u128 {
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

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (address, len) = Self::split(text)?;
        let prefix = Self::around(address, len);
        if prefix.network == address {
            Ok(prefix)
        } else {
            Err(format!("has bits behind its prefix length; the prefix is {prefix}"))
        }
    }
}

const EXAMPLE_INTERFACE: &str = "10.10.0.2/24";

/// How many bits an address of this family has.
pub(super) const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

pub(super) fn address_of(bits: u128, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::from(bits).into()
    } else {
        Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX)).into()
    }
}

/// Why no node can have `address` in an underlay.
pub(super) fn unfit(address: IpAddr) -> Option<&'static str> {
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

/// Whether a node can have `address` in an underlay: a unicast address with a meaning beyond one interface.
#[must_use]
pub fn fits_a_node(address: IpAddr) -> bool {
    unfit(address).is_none()
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

/// An address that a node can have.
pub(super) fn node_address(field: &Field<'_>, text: &str, or: &str) -> Option<IpAddr> {
    let Ok(address) = text.parse() else {
        return field.refuse(format!("is not an address{or}"));
    };
    match unfit(address) {
        Some(reason) => field.refuse(reason),
        None => Some(address),
    }
}

pub(super) fn read_spec(field: &Field<'_>) -> Option<AddressSpec> {
    let text = field.text()?;
    if text.contains('/') {
        return match Prefix::parse(text) {
            Ok(prefix) => Some(AddressSpec::Prefix(prefix)),
            Err(reason) => field.refuse(reason),
        };
    }
    node_address(field, text, " or a prefix, like 192.168.65.1 or 192.168.65.0/24").map(AddressSpec::Exact)
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

/// Reads addresses and prefixes, as `["10.10.0.2", "fd00:10::/64"]`: one address is the prefix of all its bits.
pub(super) fn read_addresses_and_prefixes(field: &Field<'_>) -> Option<Vec<Prefix>> {
    let mut prefixes: Vec<Prefix> = Vec::new();
    for item in field.items()? {
        let text = item.text()?;
        let prefix = if text.contains('/') {
            match Prefix::parse(text) {
                Ok(prefix) => prefix,
                Err(reason) => return item.refuse(reason),
            }
        } else {
            let Ok(address) = text.parse::<IpAddr>() else {
                return item.refuse("is not an address or a prefix, like 10.10.0.2 or 10.10.0.0/24");
            };
            if address.is_unspecified() || address.is_multicast() || address == Ipv4Addr::BROADCAST {
                return item.refuse("is not an address that one interface can have");
            }
            Prefix { network: address, len: width(address) }
        };
        if prefixes.contains(&prefix) {
            return item.refuse("is given twice");
        }
        prefixes.push(prefix);
    }
    Some(prefixes)
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
