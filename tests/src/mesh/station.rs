//! A pod that comes, moves and goes while the daemons run.

use super::{Mesh, name};
use serde_json::json;
use std::net::Ipv4Addr;

/// A pod with a MAC and an address of its own, which say nothing: only the node that has it knows.
#[derive(Clone, Debug)]
pub struct Station {
    /// Its port's name.
    pub port: String,
    /// Its VLAN.
    pub vlan: u16,
    /// Its MAC.
    pub mac: String,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Station {
    /// Station number `number` of the subnet, in this VLAN.
    #[must_use]
    pub fn new(subnet: u8, vlan: u16, number: u8) -> Self {
        Self {
            port: format!("station{number}"),
            vlan,
            mac: format!("02:00:00:fe:{subnet:02x}:{number:02x}"),
            address: Ipv4Addr::new(10, subnet, 250, number),
        }
    }

    /// Puts it on node `n`; it is there when this returns.
    ///
    /// # Panics
    /// When the daemon refuses.
    pub fn come(&self, mesh: &Mesh, n: usize) {
        // With no network behind the address, the namespace's other pod keeps its own way to all of them.
        let settings =
            json!({"tag": self.vlan, "mac": self.mac, "addresses": [format!("{}/32", self.address)]});
        let added = mesh.node(n).call("port.add", &json!({"name": self.port, "settings": settings}));
        added.unwrap_or_else(|error| panic!("{} on {}: {error}", self.port, name(n)));
    }

    /// Takes it from node `n`; it is gone when this returns.
    ///
    /// # Panics
    /// When the daemon refuses.
    pub fn leave(&self, mesh: &Mesh, n: usize) {
        let gone = mesh.node(n).call("port.del", &json!({"name": self.port}));
        gone.unwrap_or_else(|error| panic!("{} off {}: {error}", self.port, name(n)));
    }
}
