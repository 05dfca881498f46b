//! Ordinary tunnels ([`Carries::Inside`]): which of them a datagram is for.
//!
//! Not here: peers that are told apart by their addresses alone (see [`super::topology`]), and what becomes of the frame
//! inside (see [`super::enter`]).

use super::topology::{TopologyError, peer_key};
use crate::port::{Carries, Port, PortId};
use crate::wire::vxlan::Vni;
use core::net::IpAddr;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

/// What a datagram must say to be for one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// As [`peer_key`] has it.
    remote: u128,
    /// The same; 0 for any, which is what `::` is as well.
    local: u128,
    vni: Vni,
    udp_port: u16,
}

/// All ordinary tunnels of a topology.
#[derive(Debug, Default)]
pub(super) struct Insides {
    by_key: HashMap<Key, PortId, FixedState>,
    /// The addresses that any of them goes to.
    remotes: HashSet<u128, FixedState>,
}

impl Insides {
    /// Takes `port` in; a port that is no such tunnel is none of its business.
    pub(super) fn add(&mut self, port: &Port) -> Result<(), TopologyError> {
        let Some(tunnel) = port.tunnel() else { return Ok(()) };
        let Carries::Inside { in_vni, .. } = &tunnel.carries else { return Ok(()) };
        let local = tunnel.local.filter(|local| !local.is_unspecified()).map_or(0, peer_key);
        let (remote, udp_port) = (peer_key(tunnel.remote), tunnel.udp_port);
        if self.by_key.insert(Key { remote, local, vni: *in_vni, udp_port }, port.id).is_some() {
            return Err(TopologyError::DuplicateTunnel(tunnel.remote, *in_vni));
        }
        self.remotes.insert(remote);
        Ok(())
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.remotes.is_empty()
    }

    /// Whether any goes to `remote`.
    pub(super) fn knows(&self, remote: IpAddr) -> bool {
        self.remotes.contains(&peer_key(remote))
    }

    /// The tunnel that datagrams from `remote` to `local` and `udp_port` belong to: the one that names `local`, else the
    /// one that takes any address.
    pub(super) fn find(&self, remote: IpAddr, local: IpAddr, udp_port: u16, vni: Vni) -> Option<PortId> {
        let key = Key { remote: peer_key(remote), local: peer_key(local), vni, udp_port };
        self.by_key.get(&key).or_else(|| self.by_key.get(&Key { local: 0, ..key })).copied()
    }
}
