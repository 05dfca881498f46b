//! The pools of a network, as its configuration says them. Not here: who has which part.

use crate::config::Prefix;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The prefix length of a block where the configuration says none, IPv4 and IPv6; of a smaller subnet, its own.
const BLOCKS: [u8; 2] = [24, 112];
/// The longest prefix of a block: it has room for a gateway and a pod beside its first and last address.
const LONGEST: [u8; 2] = [30, 126];
/// The most ranges of addresses that are kept for those who ask for them.
const MOST_STATIC: usize = 256;

/// A network's pools: one of IPv4, one of IPv6, or one of each. In JSON an array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pools(Vec<Pool>);

/// A subnet whose addresses pods get, one of it each.
///
/// ```json
/// {"subnet":"10.244.0.0/16","block":24,"static":["10.244.255.0/24"]}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// All of it is on the link.
    pub subnet: Prefix,
    /// The prefix length of a node's block: that of the subnet up to 30 or 126; 24 or 112 where none is said, or that
    /// of the subnet if it is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<u8>,
    /// Addresses that a pod gets only when it asks for them.
    #[serde(default, rename = "static", skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<Prefix>,
}

impl Pool {
    /// The prefix length of a node's block.
    #[must_use]
    pub fn block_len(&self) -> u8 {
        let usual = BLOCKS[usize::from(self.subnet.network.is_ipv6())];
        self.block.unwrap_or(usual).max(self.subnet.len)
    }

    /// Whether `address` is kept for those who ask for it.
    #[must_use]
    pub fn keeps(&self, address: IpAddr) -> bool {
        self.reserved.iter().any(|range| range.contains(address))
    }

    fn validate(&self) -> Result<(), String> {
        let Self { subnet, block, reserved } = self;
        let longest = LONGEST[usize::from(subnet.network.is_ipv6())];
        let odd = subnet.network.is_unspecified()
            || subnet.network.is_loopback()
            || subnet.network.is_multicast()
            || subnet.network.to_canonical() != subnet.network
            || matches!(subnet.network, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if odd {
            return Err(format!("subnet {subnet} has no addresses that pods can have"));
        }
        if !(1..=longest).contains(&subnet.len) {
            return Err(format!(
                "subnet {subnet} has prefix length {}; 1..{longest} are allowed",
                subnet.len
            ));
        }
        if let Some(block) = block
            && !(subnet.len..=longest).contains(block)
        {
            return Err(format!("block of {subnet} is {block}; {}..{longest} are allowed", subnet.len));
        }
        if reserved.len() > MOST_STATIC {
            return Err(format!(
                "{subnet} has {} static ranges; at most {MOST_STATIC} are allowed",
                reserved.len()
            ));
        }
        match reserved.iter().find(|range| !subnet.contains(range.network) || range.len < subnet.len) {
            Some(range) => Err(format!("static range {range} is not inside {subnet}")),
            None => Ok(()),
        }
    }
}

impl Pools {
    /// Whether addresses can be given from them.
    ///
    /// # Errors
    /// No pool, a second one of a family, or one that is not as [`Pool`] says; a sentence.
    pub fn validate(&self) -> Result<(), String> {
        if self.0.is_empty() {
            return Err("there is no pool; one of IPv4, one of IPv6 or one of each is expected".to_owned());
        }
        for v6 in [false, true] {
            let mut family = self.0.iter().filter(|pool| pool.subnet.network.is_ipv6() == v6);
            if let (Some(_), Some(second)) = (family.next(), family.next()) {
                return Err(format!("{} is a second pool of its family; one is allowed", second.subnet));
            }
        }
        self.0.iter().try_for_each(Pool::validate)
    }

    /// Each pool.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.0.iter()
    }

    /// The pool that has `address`.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<&Pool> {
        self.iter().find(|pool| pool.subnet.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Pools, String> {
        let pools: Pools = serde_json::from_str(text).map_err(|error| error.to_string())?;
        pools.validate().map(|()| pools)
    }

    #[test]
    fn pools_are_read_with_their_defaults_and_come_back() {
        let text =
            r#"[{"subnet":"10.244.0.0/16","block":26,"static":["10.244.255.0/24"]},{"subnet":"fd00::/64"}]"#;
        let pools = read(text).unwrap();
        assert_eq!(pools.iter().map(Pool::block_len).collect::<Vec<_>>(), [26, 112]);
        assert_eq!(serde_json::to_string(&pools).unwrap(), text);
        assert!(pools.iter().next().unwrap().keeps("10.244.255.9".parse().unwrap()));
        assert_eq!(read(r#"[{"subnet":"10.0.0.0/28"}]"#).unwrap().iter().next().unwrap().block_len(), 28);
    }

    #[test]
    fn what_no_pod_can_have_is_refused_with_a_sentence() {
        let cases = [
            ("[]", "there is no pool"),
            (r#"[{"subnet":"10.0.0.1/16"}]"#, "the prefix is 10.0.0.0/16"),
            (r#"[{"subnet":"10.0.0.0"}]"#, "is not an address with a prefix length"),
            (r#"[{"subnet":"10.0.0.0/16","blocks":24}]"#, "unknown field `blocks`"),
            (r#"[{"subnet":"10.0.0.0/16"},{"subnet":"10.1.0.0/16"}]"#, "10.1.0.0/16 is a second pool"),
            (r#"[{"subnet":"10.0.0.0/31"}]"#, "prefix length 31; 1..30"),
            (r#"[{"subnet":"224.0.0.0/8"}]"#, "has no addresses that pods can have"),
            (r#"[{"subnet":"127.0.0.0/8"}]"#, "has no addresses that pods can have"),
            (r#"[{"subnet":"fe80::/64"}]"#, "has no addresses that pods can have"),
            (r#"[{"subnet":"::ffff:10.0.0.0/112"}]"#, "has no addresses that pods can have"),
            (r#"[{"subnet":"10.0.0.0/16","block":15}]"#, "block of 10.0.0.0/16 is 15; 16..30"),
            (r#"[{"subnet":"fd00::/64","block":127}]"#, "block of fd00::/64 is 127; 64..126"),
            (r#"[{"subnet":"10.0.0.0/16","static":["10.1.0.0/24"]}]"#, "10.1.0.0/24 is not inside"),
            (r#"[{"subnet":"10.0.0.0/16","static":["10.0.0.0/8"]}]"#, "10.0.0.0/8 is not inside"),
        ];
        for (text, part) in cases {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
