//! Keys and values of the store that are about addresses of networks: blocks and single addresses.
//!
//! Not here: whose an address is (see [`crate::ipam`]), and the other kinds of keys.

use super::model::{Key, RecordError, bytes, fields, is_node_name, text, wrong};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// A claim to a block; the key says to which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRecord {
    /// The node that gives its addresses.
    pub node: String,
}

/// A claim to a single address; the key says to which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRecord {
    /// The node that gave it.
    pub node: String,
    /// The ID of the container that has it.
    pub container: String,
    /// What the interface is called there.
    pub ifname: String,
}

/// What a key below `ipam/` is about.
pub(super) fn parse(rest: &str) -> Option<Key> {
    let (network, rest) = rest.split_once('/')?;
    let network = is_node_name(network).then(|| network.to_owned())?;
    // One address, one key: not in another form as well.
    let ip = |text: &str| {
        let ip: IpAddr = text.parse().ok()?;
        (ip.to_canonical() == ip && ip.to_string() == text).then_some(ip)
    };
    match rest.split_once('/')? {
        ("addresses", address) => Some(Key::Address { network, address: ip(address)? }),
        ("blocks", block) => {
            let (first, len) = block.split_once('-')?;
            let (first, number): (_, u8) = (ip(first)?, len.parse().ok()?);
            let longest = if first.is_ipv4() { 32 } else { 128 };
            let good = number <= longest && number.to_string() == len;
            good.then_some(Key::Block { network, first, len: number })
        }
        _ => None,
    }
}

impl BlockRecord {
    /// As it stands in the store.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        bytes(&json!({ "node": self.node }))
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// What is missing, of another kind or out of its range.
    pub fn from_json(value: &[u8]) -> Result<Self, RecordError> {
        Ok(Self { node: node_name(&fields(value)?)? })
    }
}

impl AddressRecord {
    /// As it stands in the store.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        bytes(&json!({ "node": self.node, "container": self.container, "ifname": self.ifname }))
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// What is missing, of another kind or out of its range.
    pub fn from_json(value: &[u8]) -> Result<Self, RecordError> {
        let fields = fields(value)?;
        Ok(Self {
            node: node_name(&fields)?,
            container: text(&fields, "container")?,
            ifname: text(&fields, "ifname")?,
        })
    }
}

fn node_name(fields: &Map<String, Value>) -> Result<String, RecordError> {
    let name = text(fields, "node")?;
    if is_node_name(&name) { Ok(name) } else { Err(wrong("node", "the name of a node")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_bad_ones_are_refused() {
        let block = BlockRecord { node: "n-1".into() };
        assert_eq!(BlockRecord::from_json(&block.to_json()), Ok(block));
        let address = AddressRecord { node: "n-1".into(), container: "c".into(), ifname: "eth0".into() };
        assert_eq!(AddressRecord::from_json(&address.to_json()), Ok(address));
        assert!(BlockRecord::from_json(br#"{"node":"a b"}"#).is_err());
        assert!(BlockRecord::from_json(br#"["a"]"#).is_err());
        assert!(AddressRecord::from_json(br#"{"node":"a","container":"c"}"#).is_err());
    }
}
