//! What must change so that what runs becomes what is desired: one pure function, removals apart from additions.
//!
//! Names and resources held by what goes may be needed by what comes, so whoever carries a [`Plan`] out does
//! the removals first. Nothing here touches the operating system or the switch.

use crate::config::{Config, PeerConfig, PortConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use vswitch_core::Vlan;

/// What one node is wished to be: the file with the state file laid over it, for this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Ports by name.
    pub ports: BTreeMap<String, PortConfig>,
    /// Peers by address.
    pub peers: BTreeMap<IpAddr, PeerConfig>,
}

/// How a port that stays is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Its interface is made anew.
    pub reopen: bool,
    /// Its interface gets other settings: MTU, MAC, addresses, gateway.
    pub reconfigure: bool,
    /// It is on another bridge, carries other VLANs, or others may speak behind it: what was learned on it is forgotten.
    pub relearn: bool,
}

/// The steps, in the order in which they are done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Ports to remove.
    pub remove_ports: Vec<String>,
    /// Peers to remove.
    pub remove_peers: Vec<IpAddr>,
    /// Ports that stay and change.
    pub change_ports: Vec<(String, Touch)>,
    /// Peers that stay and change.
    pub change_peers: Vec<IpAddr>,
    /// Ports to add.
    pub add_ports: Vec<String>,
    /// Peers to add.
    pub add_peers: Vec<IpAddr>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many objects it touches.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.remove_ports.len()
            + self.remove_peers.len()
            + self.change_ports.len()
            + self.change_peers.len()
            + self.add_ports.len()
            + self.add_peers.len()
    }
}

/// What turns `running` into `desired`.
#[must_use]
pub fn plan(running: &Desired, desired: &Desired) -> Plan {
    let mut plan = Plan::default();
    for (name, old) in &running.ports {
        match desired.ports.get(name) {
            None => plan.remove_ports.push(name.clone()),
            Some(new) if new != old => plan.change_ports.push((name.clone(), touch(old, new))),
            Some(_) => {}
        }
    }
    plan.add_ports.extend(desired.ports.keys().filter(|name| !running.ports.contains_key(*name)).cloned());
    for (address, old) in &running.peers {
        match desired.peers.get(address) {
            None => plan.remove_peers.push(*address),
            Some(new) if new != old => plan.change_peers.push(*address),
            Some(_) => {}
        }
    }
    plan.add_peers.extend(desired.peers.keys().filter(|address| !running.peers.contains_key(address)));
    plan
}

fn touch(old: &PortConfig, new: &PortConfig) -> Touch {
    Touch {
        reopen: (&old.netns, &old.ifname, &old.kind, old.offload)
            != (&new.netns, &new.ifname, &new.kind, new.offload),
        reconfigure: (old.mtu, old.mac, &old.addresses, &old.gateways)
            != (new.mtu, new.mac, &new.addresses, &new.gateways),
        relearn: old.bridge != new.bridge
            || old.attachment() != new.attachment()
            || old.anti_spoof != new.anti_spoof,
    }
}

/// The VLANs whose stations must be forgotten because the VLAN now crosses the underlay under another VNI or
/// not at all, or because it is flooded from now on.
#[must_use]
pub fn renamed_vlans(old: &Config, new: &Config) -> BTreeSet<Vlan> {
    let vnis = |config: &Config| config.vnis().collect::<BTreeMap<_, _>>();
    let (before, after) = (vnis(old), vnis(new));
    let renamed = before.iter().filter(|(vlan, vni)| after.get(vlan) != Some(vni)).map(|(vlan, _)| *vlan);
    let flooded = new.switch.flood_vlans.iter().filter(|vlan| !old.switch.flood_vlans.contains(*vlan));
    renamed.chain(flooded).collect()
}
