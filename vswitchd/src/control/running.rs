//! What runs: ports and peers with their numbers and links, and the workers' setup made of them.
//!
//! Not here: what is desired, and how links come to be (see [`super::ports`] and [`super::underlay`]).

use super::ovs::Ovs;
use super::plan::Desired;
use super::ports::{self, Settings};
use super::underlay::Underlay;
use crate::config::{Config, PeerConfig, PeerSource, Policing, PortConfig, PortKind};
use crate::datapath::{PortLink, Setup, StuckError, Workers};
use crate::link::{AnyLink, Link as _, Peer, UdpPool};
use crate::observe::log;
use crate::slow::PeerState;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::policer::Policer;
use vswitch_core::port::{Carries, Group, InnerVlan, Policers, Port, Tunnel};
use vswitch_core::switch::{Bridge, Groups, Topology, TopologyError};
use vswitch_core::{Attachment, MacTable, PortId};

/// A port that runs, up or down.
#[derive(Debug)]
pub(super) struct RunningPort {
    pub(super) id: PortId,
    pub(super) config: PortConfig,
    /// What enforces its policing: the same for as long as that is the same, so that a change elsewhere gives nobody a
    /// full bucket.
    policers: Policers,
    /// What its interface was last given in full.
    pub(super) applied: PortConfig,
    /// None while it is down.
    pub(super) link: Option<Arc<PortLink>>,
    /// Why it is down, or what of its settings the system refused.
    pub(super) reason: Option<String>,
    /// Of a tunnel: the largest outer IP packet that it sends, in bytes.
    path_mtu: u16,
}

impl RunningPort {
    /// A port that is down.
    pub(super) fn new(id: PortId, config: PortConfig) -> Self {
        let policers = Policers {
            ingress: config.ingress_policing.map(policer),
            egress: config.egress_policing.map(policer),
        };
        Self { id, applied: config.clone(), config, policers, link: None, reason: None, path_mtu: 1500 }
    }

    /// Whether frames can cross: a patch has nothing of the operating system's behind it, only its peer.
    pub(super) const fn is_up(&self) -> bool {
        match self.config.kind {
            PortKind::Patch { .. } => self.reason.is_none(),
            _ => self.link.is_some(),
        }
    }

    /// What is wished of it from now on.
    pub(super) fn set_config(&mut self, config: PortConfig) {
        if config.ingress_policing != self.config.ingress_policing {
            self.policers.ingress = config.ingress_policing.map(policer);
        }
        if config.egress_policing != self.config.egress_policing {
            self.policers.egress = config.egress_policing.map(policer);
        }
        self.config = config;
    }

    /// Gives its interface, if it is up, what its configuration says; what is refused is the port's reason.
    pub(super) fn reconfigure(&mut self, settings: Settings) {
        let Some(link) = &self.link else { return };
        self.reason = ports::reconfigure(&link.link, &self.applied, &self.config, settings).err();
        if self.reason.is_none() {
            self.applied = self.config.clone();
        }
    }
}

/// A peer that is configured, or was found.
#[derive(Debug)]
pub(super) struct RunningPeer {
    pub(super) id: PortId,
    pub(super) config: PeerConfig,
    pub(super) link: Option<Arc<PortLink>>,
    /// The largest MTU that the path to it may have: the file's, or that of the interfaces at both ends.
    pub(super) limit: u16,
    /// The path's MTU as far as it was probed.
    pub(super) probed_mtu: Option<u16>,
    /// Whether it lives, as far as it was asked.
    pub(super) state: PeerState,
    /// How long its answers take.
    pub(super) rtt: Option<Duration>,
}

impl RunningPeer {
    /// A peer of which nothing is known.
    pub(super) const fn new(id: PortId, config: PeerConfig) -> Self {
        let state = PeerState::Unknown;
        Self { id, config, link: None, limit: 1500, probed_mtu: None, state, rtt: None }
    }

    /// The MTU of the path to it, in bytes of outer IP packet.
    pub(super) fn mtu(&self) -> u16 {
        self.probed_mtu.map_or(self.limit, |probed| probed.min(self.limit))
    }

    /// Nobody asks it any more: what was found out so far says nothing. Whether anything was known.
    pub(super) fn forget(&mut self) -> bool {
        let known = self.state != PeerState::Unknown || self.probed_mtu.is_some();
        (self.state, self.probed_mtu, self.rtt) = (PeerState::Unknown, None, None);
        known
    }

    /// Whether it is the cluster's node of that name.
    pub(super) fn is_node(&self, name: &str) -> bool {
        self.config.node.as_deref() == Some(name)
    }
}

/// Port numbers: one that came back is given out again before a new one, the one that came back first.
#[derive(Debug, Default)]
struct Numbers {
    next: u32,
    free: VecDeque<PortId>,
}

impl Numbers {
    fn take(&mut self) -> Option<PortId> {
        if let Some(id) = self.free.pop_front() {
            return Some(id);
        }
        let id = PortId::new(self.next)?;
        self.next += 1;
        Some(id)
    }
}

/// A change that could not be made whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    /// The core refused it.
    #[error("the configuration does not fit together: {0}")]
    Topology(#[from] TopologyError),
    /// A worker is stuck.
    #[error(transparent)]
    Stuck(#[from] StuckError),
}

/// What runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) ports: BTreeMap<String, RunningPort>,
    pub(super) peers: BTreeMap<IpAddr, RunningPeer>,
    pub(super) underlay: Underlay,
    pub(super) macs: Arc<MacTable>,
    /// Who listens to which multicast group.
    pub(super) groups: Arc<Groups>,
    pub(super) setup: Arc<Setup>,
    numbers: Numbers,
    fresh: Vec<PortId>,
    workers: usize,
    /// This node's name: MAC addresses that nobody names are made of it.
    node: String,
}

impl Running {
    /// Nothing, yet, for `workers` workers on node `node`.
    pub(super) fn new(macs: MacTable, workers: usize, node: String) -> Self {
        Self {
            node,
            ports: BTreeMap::new(),
            peers: BTreeMap::new(),
            underlay: Underlay::default(),
            macs: Arc::new(macs),
            groups: Arc::default(),
            setup: Arc::default(),
            numbers: Numbers::default(),
            fresh: Vec::new(),
            workers,
        }
    }

    /// The same in the words of what is desired.
    pub(super) fn as_desired(&self) -> Desired {
        Desired {
            ports: self.ports.iter().map(|(name, port)| (name.clone(), port.config.clone())).collect(),
            peers: self.peers.iter().map(|(address, peer)| (*address, peer.config.clone())).collect(),
        }
    }

    /// A number for a new port or peer, bound in the MAC table; `None` when there are too many.
    pub(super) fn number(&mut self, mac_limit: Option<u32>) -> Option<PortId> {
        let id = self.numbers.take()?;
        self.macs.bind(id, mac_limit);
        self.fresh.push(id);
        Some(id)
    }

    /// Takes numbers back that no worker uses any more, and forgets what was learned on them.
    pub(super) fn release(&mut self, ids: impl IntoIterator<Item = PortId>) {
        for id in ids {
            self.macs.forget_port(id);
            self.numbers.free.push_back(id);
        }
    }

    /// The worker that reads the fewest ports.
    pub(super) fn idlest_worker(&self) -> usize {
        let mut reads = vec![0_usize; self.workers.max(1)];
        let links = self.ports.values().filter_map(|port| port.link.as_ref());
        // What comes by a tunnel arrives at the underlay's sockets, which every worker has.
        for link in links.filter(|link| link.link.fd().is_some()) {
            if let Some(count) = reads.get_mut(link.worker) {
                *count += 1;
            }
        }
        reads.iter().enumerate().min_by_key(|(_, count)| **count).map_or(0, |(worker, _)| worker)
    }

    /// Gives every port that is a tunnel the sockets it needs, and tells every patch whether its peer is there; whether
    /// anything changed.
    pub(super) fn follow_tunnels(&mut self) -> bool {
        let mut changed = false;
        for (name, port) in &mut self.ports {
            let Some(tunnel) = port.config.tunnel() else { continue };
            // What may be sent in fragments has no limit here.
            let mtu = if tunnel.dont_fragment { Underlay::path_mtu(tunnel) } else { u16::MAX };
            changed |= std::mem::replace(&mut port.path_mtu, mtu) != mtu;
            match self.underlay.tunnel(tunnel) {
                Ok(wished) => {
                    port.reason = None;
                    if !port.link.as_ref().is_some_and(|link| sends_to(link, wished.pool(), wished.remote()))
                    {
                        let link = PortLink { port: port.id, worker: 0, link: AnyLink::Peer(wished) };
                        port.link = Some(Arc::new(link));
                        changed = true;
                    }
                }
                Err(reason) => {
                    changed |= port.link.take().is_some();
                    say_down(name, port, Some(reason));
                }
            }
        }
        let patches: BTreeMap<&String, &String> = self
            .ports
            .iter()
            .filter_map(|(name, port)| match &port.config.kind {
                PortKind::Patch { peer } => Some((name, peer)),
                _ => None,
            })
            .collect();
        let lonely: Vec<(String, Option<String>)> = patches
            .iter()
            .map(|(name, peer)| {
                let usable = patches.get(*peer) == Some(name);
                let reason = || format!("No usable peer '{peer}' exists in 'netdev' datapath.");
                ((*name).clone(), (!usable).then(reason))
            })
            .collect();
        for (name, reason) in lonely {
            if let Some(port) = self.ports.get_mut(&name) {
                say_down(&name, port, reason);
            }
        }
        changed
    }

    /// Gives the workers what runs now, and waits until they all run it.
    pub(super) fn publish(
        &mut self,
        config: &Config,
        ovs: &mut Ovs,
        workers: &Workers,
    ) -> Result<(), PublishError> {
        for peer in self.peers.values_mut() {
            let local = self.underlay.mtu_towards(peer.config.address);
            peer.limit = match peer.config.source {
                // What a member says of its own interface cannot make ours larger.
                PeerSource::Cluster => peer.config.mtu.map_or(local, |mtu| mtu.min(local)),
                _ => peer.config.mtu.unwrap_or(local),
            };
            let to: SocketAddr =
                (peer.config.address, peer.config.udp_port.unwrap_or_else(|| self.underlay.udp_port()))
                    .into();
            let pool = self.underlay.pool_towards(peer.config.address);
            let same = match (&pool, &peer.link) {
                (Some(pool), Some(link)) => sends_to(link, pool, to),
                (None, None) => true,
                _ => false,
            };
            if !same {
                let link = pool.map(|pool| AnyLink::Peer(Peer::new(pool, to)));
                peer.link = link.map(|link| Arc::new(PortLink { port: peer.id, worker: 0, link }));
            }
        }
        let id_of =
            |name: &str| self.ports.get(name).filter(|port| port.config.bridge.is_some()).map(|port| port.id);
        let mut bridges = ovs.core_bridges(id_of);
        bridges[0] = bridge(config);
        let ports = self.ports.values().filter_map(|port| {
            let number = ovs.bridge_of(&port.config)?;
            let mut core = core_port(port, number, config, &self.node);
            if let PortKind::Patch { peer } = &port.config.kind {
                core.patch = self.ports.get(peer).map(|peer| peer.id);
            }
            Some(core)
        });
        let peers = self.peers.values().map(|peer| core_peer(peer, self.underlay.udp_port()));
        let topology = Topology::new(bridges, ports.chain(peers))?;
        let mut links = Vec::new();
        links.resize_with(topology.port_numbers(), || None);
        let up = self.ports.values().map(|port| &port.link).chain(self.peers.values().map(|peer| &peer.link));
        // A port whose bridge has just gone is in no topology.
        for link in up.flatten().filter(|link| topology.port(link.port).is_some()) {
            links[link.port.index()] = Some(Arc::clone(link));
        }
        self.setup = Arc::new(Setup {
            topology: Arc::new(topology),
            macs: Some(Arc::clone(&self.macs)),
            groups: Some(Arc::clone(&self.groups)),
            links,
            receivers: self.underlay.receivers(),
            busy_poll: Duration::from_micros(config.datapath.busy_poll.into()),
            fresh: std::mem::take(&mut self.fresh),
            fresh_mirrors: ovs.take_fresh_mirrors(),
        });
        workers.apply(&self.setup)?;
        Ok(())
    }

    /// Who listens to which multicast group is this from now on; nothing else changes, so no topology is built.
    pub(super) fn set_groups(&mut self, groups: Arc<Groups>, workers: &Workers) -> Result<(), PublishError> {
        self.groups = Arc::clone(&groups);
        let setup = Setup::clone(&self.setup);
        self.setup =
            Arc::new(Setup { groups: Some(groups), fresh: Vec::new(), fresh_mirrors: Vec::new(), ..setup });
        Ok(workers.apply(&self.setup)?)
    }

    /// Puts another table in place of the one that runs, with as many of its entries as it takes.
    pub(super) fn replace_macs(&mut self, macs: MacTable, config: &Config, now: vswitch_core::Instant) {
        for port in self.ports.values() {
            macs.bind(port.id, port_mac_limit(&port.config, config));
        }
        for peer in self.peers.values() {
            macs.bind(peer.id, None);
        }
        let mut entries = Vec::new();
        self.macs.for_each(now, |entry| entries.push(entry));
        // The youngest first: those are kept when not all fit.
        entries.sort_by_key(|entry| entry.age);
        for entry in entries {
            macs.restore(now, entry);
        }
        self.macs = Arc::new(macs);
    }

    /// The port or peer of that name: a port's name, a peer's name or address.
    pub(super) fn find(&self, name: &str) -> Option<PortId> {
        if let Some(port) = self.ports.get(name) {
            return Some(port.id);
        }
        let by_address = name.parse::<IpAddr>().ok().and_then(|address| self.peers.get(&address));
        let peer =
            by_address.or_else(|| self.peers.values().find(|peer| peer.config.name.as_deref() == Some(name)));
        peer.map(|peer| peer.id)
    }

    /// What a number is called: a port's name or a peer's address.
    pub(super) fn name_of(&self, id: PortId) -> String {
        let port = self.ports.iter().find(|(_, port)| port.id == id).map(|(name, _)| name.clone());
        let peer =
            || self.peers.iter().find(|(_, peer)| peer.id == id).map(|(address, _)| address.to_string());
        port.or_else(peer).unwrap_or_else(|| format!("number {id}"))
    }
}

/// The bridge that the file describes.
fn bridge(config: &Config) -> Bridge {
    Bridge {
        forward_bpdu: config.switch.forward_bpdu,
        flood_vlans: config.switch.flood_vlans.clone(),
        vlan_limit: if config.switch.vlan_limit == 1 { 1 } else { 2 },
        vnis: config.vnis().collect(),
        neigh_suppress: config.switch.neigh_suppress,
        ..Bridge::default()
    }
}

/// Ports that Open vSwitch calls protected: those of one bridge send each other nothing.
const PROTECTED: Group = Group(2);

/// How many MAC entries `port` may hold: one of a bridge of its own shares the bridge's limit and has none, and whoever
/// is behind a tunnel has a switch that limits them.
pub(super) fn port_mac_limit(port: &PortConfig, config: &Config) -> Option<u32> {
    if port.bridge.is_some() || port.tunnel().is_some() { None } else { mac_limit(config) }
}

/// How many MAC entries a port of the file's bridge may hold.
fn mac_limit(config: &Config) -> Option<u32> {
    let table = &config.mac_table;
    (table.port_limit <= table.limit).then_some(table.port_limit)
}

fn policer(policing: Policing) -> Arc<Policer> {
    Arc::new(Policer::new(policing.rate, policing.burst))
}

/// Whether what leaves by `link` is sent by `pool` to `remote`.
fn sends_to(link: &PortLink, pool: &Arc<UdpPool>, remote: SocketAddr) -> bool {
    matches!(&link.link, AnyLink::Peer(peer) if Arc::ptr_eq(peer.pool(), pool) && peer.remote() == remote)
}

/// Keeps why `port` is down, and logs it when that is news.
fn say_down(name: &str, port: &mut RunningPort, reason: Option<String>) {
    if let Some(reason) = reason.as_ref().filter(|reason| port.reason.as_ref() != Some(reason)) {
        log::warn("port down", &[("port", &name), ("reason", reason)]);
    }
    port.reason = reason;
}

/// How the core sees the VLANs of a port, and its tunnel if there is one behind it.
fn port_attachment(config: &PortConfig) -> Attachment {
    let Some(tunnel) = config.tunnel() else { return config.attachment() };
    Attachment::Tunnel(Tunnel {
        remote: tunnel.remote,
        local: tunnel.local,
        udp_port: tunnel.udp_port,
        carries: Carries::Inside {
            in_vni: tunnel.in_key,
            out_vni: tunnel.out_key,
            attachment: Box::new(config.attachment()),
        },
        floods: None,
        inner_vlan: InnerVlan::Carry,
        strict: false,
    })
}

fn core_port(port: &RunningPort, bridge: u8, config: &Config, node: &str) -> Port {
    let mut core = Port::new(port.id, port_attachment(&port.config));
    core.mtu = port.path_mtu;
    core.bridge = bridge;
    core.priority_tags = port.config.priority_tags;
    core.mcast_flood = port.config.mcast_flood;
    core.mcast_flood_reports = port.config.mcast_flood_reports;
    core.mac_limit = port_mac_limit(&port.config, config);
    core.guard = port.config.guard_for(node).map(Arc::new);
    core.policers = port.policers.clone();
    if port.config.split_horizon {
        core.group = Group::MESH;
    } else if port.config.protected {
        core.group = PROTECTED;
    }
    core
}

fn core_peer(peer: &RunningPeer, udp_port: u16) -> Port {
    let tunnel = Tunnel {
        remote: peer.config.address,
        local: None,
        udp_port: peer.config.udp_port.unwrap_or(udp_port),
        carries: Carries::PerVni(peer.config.vnis.clone()),
        inner_vlan: peer.config.inner_vlan,
        strict: peer.config.strict,
        // Whoever is found dead hears no flood; what is addressed to its stations still goes there.
        floods: if peer.state == PeerState::Down { Some(Vec::new()) } else { peer.config.floods.clone() },
    };
    let mut core = Port::new(peer.id, Attachment::Tunnel(tunnel));
    core.group = Group::MESH;
    core.mtu = peer.mtu();
    core
}
