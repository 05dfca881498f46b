//! Addresses, prefixes and routes as CNI writes them. Not here: setting them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and the length of its prefix: `10.1.0.5/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address, host bits and all.
    pub address: IpAddr,
    /// The prefix's length, 0..=32 or 0..=128.
    pub len: u8,
}

/// How many bits an address of this family has.
#[must_use]
pub const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address of `like`'s family without any bit.
#[must_use]
pub const fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
}

impl Cidr {
    /// `text` as an address with a prefix length.
    ///
    /// # Errors
    /// A sentence with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        match Self::with_or_without(text)? {
            (address, Some(len)) => Ok(Self { address, len }),
            (_, None) => Err(format!("{text:?} has no prefix length; expected one like 10.1.0.5/16")),
        }
    }

    /// `text` as an address that may have a prefix length.
    ///
    /// # Errors
    /// A sentence with the text.
    pub fn with_or_without(text: &str) -> Result<(IpAddr, Option<u8>), String> {
        let wrong = || format!("{text:?} is no IP address; expected one like 10.1.0.5/16");
        let (address, len) = text.split_once('/').map_or((text, None), |(address, len)| (address, Some(len)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let Some(len) = len else { return Ok((address, None)) };
        let len = len.parse().ok().filter(|len| *len <= width(address)).ok_or_else(wrong)?;
        Ok((address, Some(len)))
    }

    /// The first address of the prefix.
    #[must_use]
    pub fn network(self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - self.len.min(32))).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - self.len.min(128))).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        }
    }

    /// Whether `address` is in the prefix.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Self { address, len: self.len }.network() == self.network()
    }

    /// The address after the prefix's first: who is taken for the gateway where none is said. `None` in a prefix of one
    /// address.
    #[must_use]
    pub fn first_host(self) -> Option<IpAddr> {
        (self.len < width(self.address)).then(|| match self.network() {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() | 1)),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() | 1)),
        })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// An address that a pod gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address in its subnet.
    pub cidr: Cidr,
    /// Who forwards what leaves the subnet.
    pub gateway: Option<IpAddr>,
}

/// A route as a result or a configuration has it (CNI 1.1.0, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub dst: Cidr,
    /// The next hop.
    pub gw: Option<IpAddr>,
    /// The path's MTU in bytes.
    pub mtu: Option<u32>,
    /// The largest segment that TCP is to announce, in bytes.
    pub advmss: Option<u32>,
    /// The metric; lower wins.
    pub priority: Option<u32>,
    /// The routing table.
    pub table: Option<u32>,
    /// How far the destination is: 0 anywhere, 253 on the link, 254 this host.
    pub scope: Option<u8>,
}

impl Route {
    /// The default route by `gateway`.
    #[must_use]
    pub const fn default_by(gateway: IpAddr) -> Self {
        let dst = Cidr { address: unspecified(gateway), len: 0 };
        Self { dst, gw: Some(gateway), mtu: None, advmss: None, priority: None, table: None, scope: None }
    }

    /// Whether it is a default route of `gateway`'s family, in the main table.
    #[must_use]
    pub const fn is_default_of(&self, gateway: IpAddr) -> bool {
        self.dst.len == 0 && self.table.is_none() && self.dst.address.is_ipv4() == gateway.is_ipv4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_masked_and_written() {
        let cidr = Cidr::parse("10.1.2.3/16").unwrap();
        assert_eq!(cidr.to_string(), "10.1.2.3/16");
        assert_eq!(cidr.network(), "10.1.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(cidr.first_host(), Some("10.1.0.1".parse().unwrap()));
        assert!(cidr.contains("10.1.255.255".parse().unwrap()));
        assert!(!cidr.contains("10.2.0.0".parse().unwrap()));
        assert!(!cidr.contains("fd00::1".parse().unwrap()));
        let all = Cidr::parse("::/0").unwrap();
        assert!(all.contains("fd00::1".parse().unwrap()));
        assert_eq!(Cidr::parse("fd00::5/64").unwrap().first_host(), Some("fd00::1".parse().unwrap()));
        assert_eq!(Cidr::parse("10.0.0.1/32").unwrap().first_host(), None);
        for wrong in ["10.0.0.1", "10.0.0.1/33", "fd00::/129", "x/8", "10.0.0.1/", "10.0.0.1/-1"] {
            assert!(Cidr::parse(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
