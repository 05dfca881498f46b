//! Stations: those behind local ports are told to the cluster, those of other nodes are placed in the MAC table.
//!
//! A placed station is an ordinary entry that is refreshed while its claim stands: frames may move it, as they may any
//! other. Not here: which claim wins (see [`crate::cluster::Stations`]).

use super::super::daemon::Control;
use super::super::running::RunningPort;
use super::cluster::{Cluster, DUPLICATE_MEMORY};
use crate::cluster::Change;
use crate::datapath::PortLink;
use crate::observe::log;
use crate::slow::PeerState;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use vswitch_core::mac_table::{Learned, Refused};
use vswitch_core::port::Group;
use vswitch_core::switch::StationEvent;
use vswitch_core::{Attachment, Instant, Mac, MacTable, PortId, Segment, Vlan, Vni};

/// A station that the configuration puts behind a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Configured {
    pub(super) port: String,
    pub(super) id: PortId,
    pub(super) segment: Segment,
    pub(super) addresses: Vec<IpAddr>,
}

/// What was announced for a port: the link it is behind, and what it has.
#[derive(Debug)]
pub(super) struct Announced {
    link: std::sync::Weak<PortLink>,
    mac: Mac,
    addresses: Vec<IpAddr>,
}

/// Several times within the shortest ageing time, and the table need not be asked who was forgotten.
const REFRESHES: u32 = 4;

impl Control {
    /// A worker learned a station, or saw it move.
    pub(in super::super) fn note_station(&mut self, event: StationEvent, now: Instant) {
        let topology = Arc::clone(&self.running.setup.topology);
        let Some(vni) = topology.vni_of(event.segment) else { return };
        // What is the same on every node is not told: a port of the host that nothing crosses from to the mesh.
        let is_local = |id: PortId| {
            topology.port(id).is_some_and(|port| port.tunnel().is_none() && port.group != Group::MESH)
        };
        let name = is_local(event.port).then(|| self.running.name_of(event.port));
        let member =
            self.running.peers.values().any(|peer| peer.id == event.port && peer.config.node.is_some());
        let limit = self.learned_limit();
        let Some(cluster) = &mut self.mesh.cluster else { return };
        if let Some(name) = name {
            let configured = cluster.configured.get(&(vni, event.mac));
            let noted = cluster.learned.insert((vni, event.mac), event.port, limit);
            if noted || configured.is_some() {
                let addresses = configured.map(|station| station.addresses.clone()).unwrap_or_default();
                cluster.stations.local(now, vni, event.mac, &addresses, &name);
            }
        } else if event.from.is_some_and(is_local) {
            // Of members' stations their claims tell, and of our own pods the configuration; a frame that was under way
            // while one moved tells nothing.
            if member || cluster.configured.contains_key(&(vni, event.mac)) {
                cluster.contested.insert((vni, event.mac));
            } else {
                cluster.learned.remove((vni, event.mac));
                cluster.stations.local_gone(vni, event.mac);
            }
        }
        self.carry_out_stations(now);
    }

    /// How many stations a port may have that nobody configured.
    fn learned_limit(&self) -> u32 {
        let table = &self.file.mac_table;
        table.port_limit.min(table.limit)
    }

    /// The slow path saw a station use an address.
    pub(in super::super) fn note_neighbour(
        &mut self,
        port: PortId,
        segment: Segment,
        mac: Mac,
        ip: IpAddr,
        now: Instant,
    ) {
        let name = self.running.ports.iter().find(|(_, running)| running.id == port);
        let Some((name, false)) = name.map(|(name, port)| (name.clone(), port.config.split_horizon)) else {
            return;
        };
        // Whom the MAC table does not take, or has elsewhere by now, is not remembered by way of its addresses either.
        let macs = &self.running.macs;
        if macs.lookup(now, segment, mac).is_none() {
            learn(macs, now, segment, mac, port);
        }
        if macs.lookup(now, segment, mac) != Some(port) {
            return;
        }
        let vni = self.running.setup.topology.vni_of(segment);
        let limit = self.learned_limit();
        let Some((vni, cluster)) = vni.zip(self.mesh.cluster.as_mut()) else {
            // Nobody else is to know.
            return self.directory.set_neighbour(segment, ip, mac, port);
        };
        if cluster.learned.insert((vni, mac), port, limit) || cluster.configured.contains_key(&(vni, mac)) {
            cluster.stations.local(now, vni, mac, &[ip], &name);
        }
        self.carry_out_stations(now);
    }

    /// Tells everybody in their segments of pods that have just come (RFC 5227 §3, RFC 4861 §7.2.6): frames to them
    /// shall go where they are now, and neighbours know a new address's owner, though the pods themselves are silent.
    pub(super) fn announce_pods(&mut self) {
        let ports = &self.running.ports;
        self.mesh.announced.retain(|name, _| ports.get(name).is_some_and(|port| port.link.is_some()));
        for (name, port) in ports {
            let Some(link) = &port.link else { continue };
            let addresses = self.cni.configured_addresses(name, &port.config);
            if addresses.is_empty() || untagged_segment(&port.config.attachment()).is_none() {
                continue;
            }
            let mac = port.config.mac_for(&self.node);
            let same = |told: &Announced| {
                told.link.as_ptr() == Arc::as_ptr(link) && told.mac == mac && told.addresses == addresses
            };
            if self.mesh.announced.get(name).is_some_and(same) {
                continue;
            }
            self.slow.announce(link, None, addresses.iter().map(|address| (mac, *address)).collect());
            let told = Announced { link: Arc::downgrade(link), mac, addresses };
            self.mesh.announced.insert(name.clone(), told);
        }
    }

    /// Claims what is behind ports by configuration and takes back what was behind ports that are gone.
    pub(super) fn follow_local_stations(&mut self, now: Instant) {
        let mut wanted = BTreeMap::new();
        let told = |port: &&RunningPort| port.link.is_some() && !port.config.split_horizon;
        for (name, port) in self.running.ports.iter().filter(|(_, port)| told(port)) {
            let Some(segment) = untagged_segment(&port.config.attachment()) else { continue };
            let Some(vni) = self.running.setup.topology.vni_of(segment) else { continue };
            let addresses = self.cni.configured_addresses(name, &port.config);
            let station = Configured { port: name.clone(), id: port.id, segment, addresses };
            wanted.insert((vni, port.config.mac_for(&self.node)), station);
        }
        let topology = &self.running.setup.topology;
        let up = self.running.ports.values().filter(|port| port.link.is_some());
        let up: BTreeSet<PortId> = up.map(|port| port.id).collect();
        let carries = |id: PortId, vni: Vni| {
            let segment = topology.segment_of(vni).filter(|_| up.contains(&id));
            segment.is_some_and(|segment| {
                topology.port(id).is_some_and(|port| carries_vlan(&port.attachment, segment.vlan()))
            })
        };
        let Some(cluster) = &mut self.mesh.cluster else { return };
        let gone: Vec<(Vni, Mac)> = cluster
            .learned
            .iter()
            .filter(|((vni, _), port)| !carries(*port, *vni))
            .map(|(key, _)| key)
            .chain(cluster.configured.keys().filter(|key| !wanted.contains_key(*key)).copied())
            .collect();
        for (vni, mac) in gone {
            cluster.learned.remove((vni, mac));
            cluster.stations.local_gone(vni, mac);
        }
        for ((vni, mac), station) in &wanted {
            if cluster.configured.get(&(*vni, *mac)) != Some(station) {
                if cluster.configured.contains_key(&(*vni, *mac)) {
                    // With other addresses perhaps, or behind another port.
                    cluster.stations.local_gone(*vni, *mac);
                }
                cluster.stations.local(now, *vni, *mac, &station.addresses, &station.port);
            }
        }
        cluster.configured = wanted;
        self.carry_out_stations(now);
    }

    /// Learned stations that the MAC table has forgotten are taken back, and those that it has and nobody told of are
    /// claimed, unless somebody else does; `known` are those that it has.
    pub(in super::super) fn follow_learned_stations(
        &mut self,
        known: &std::collections::HashMap<(Segment, Mac), PortId>,
        now: Instant,
    ) {
        let topology = Arc::clone(&self.running.setup.topology);
        let limit = self.learned_limit();
        let Some(cluster) = &mut self.mesh.cluster else { return };
        let silent: Vec<(Vni, Mac)> = cluster
            .learned
            .iter()
            .filter(|((vni, mac), port)| {
                let place = topology.segment_of(*vni).and_then(|segment| known.get(&(segment, *mac)));
                place != Some(port) && !cluster.configured.contains_key(&(*vni, *mac))
            })
            .map(|(key, _)| key)
            .collect();
        for (vni, mac) in silent {
            cluster.learned.remove((vni, mac));
            cluster.stations.local_gone(vni, mac);
        }
        for ((segment, mac), port) in known {
            if let Some(vni) = topology.vni_of(*segment)
                && topology.port(*port).is_some_and(|port| port.tunnel().is_none())
                && cluster.stations.get(vni, *mac).is_none()
            {
                let name = self.running.ports.iter().find(|(_, running)| running.id == *port);
                let Some((name, _)) = name else { continue };
                if cluster.learned.insert((vni, *mac), *port, limit) {
                    cluster.stations.local(now, vni, *mac, &[], name);
                }
            }
        }
        self.carry_out_stations(now);
    }

    /// What follows from claims: keys are written, stations placed, addresses told to the slow path.
    pub(super) fn carry_out_stations(&mut self, now: Instant) {
        let Some(cluster) = &mut self.mesh.cluster else { return };
        let contested = std::mem::take(&mut cluster.contested);
        let mut touched: BTreeSet<(Vni, Mac)> = contested;
        let mut addresses: BTreeSet<(Vni, IpAddr)> = BTreeSet::new();
        for change in cluster.stations.drain() {
            match change {
                Change::Claim { vni, mac, record } => {
                    cluster.etcd.put(cluster.keys.station(vni, mac, &self.node), record.to_json());
                }
                Change::Withdraw { vni, mac } => {
                    cluster.etcd.delete(cluster.keys.station(vni, mac, &self.node));
                }
                Change::Station { vni, mac } => {
                    touched.insert((vni, mac));
                }
                Change::Address { vni, ip } => {
                    addresses.insert((vni, ip));
                }
                Change::Duplicate { vni, mac, here, there, their_port, moves } => {
                    let sentence = format!(
                        "station {mac} (VNI {vni}) is on port \"{here}\" of node \"{}\" and on port \"{their_port}\" \
                         of node \"{there}\" at once: moved {moves} times",
                        self.node
                    );
                    log::warn(
                        "station on two nodes at once",
                        &[
                            ("mac", &mac),
                            ("vni", &vni),
                            ("port", &here),
                            ("node", &self.node),
                            ("other_port", &their_port),
                            ("other_node", &there),
                            ("moves", &moves),
                        ],
                    );
                    cluster.duplicates.insert((vni, mac), (now, sentence));
                }
            }
        }
        if touched.is_empty() && addresses.is_empty() {
            return;
        }
        let places = self.places();
        for (vni, mac) in touched {
            addresses.extend(self.place(&places, vni, mac, now).into_iter().map(|ip| (vni, ip)));
        }
        for (vni, ip) in addresses {
            self.place_address(&places, vni, ip);
        }
    }

    /// Everything that the cluster knows is placed again: a peer or a segment may have come or changed.
    pub(in super::super) fn replay_stations(&mut self) {
        let now = crate::datapath::clock::now();
        let Some(cluster) = &self.mesh.cluster else { return };
        let stations: Vec<(Vni, Mac)> = cluster.stations.macs().collect();
        let addresses: Vec<(Vni, IpAddr)> = cluster.stations.addresses().collect();
        let places = self.places();
        for (vni, mac) in stations {
            self.place(&places, vni, mac, now);
        }
        for (vni, ip) in addresses {
            self.place_address(&places, vni, ip);
        }
    }

    /// Entries age by silence, claims do not.
    pub(in super::super) fn refresh_stations(&mut self, now: Instant) {
        let pause = self.running.macs.ageing() / REFRESHES;
        let Some(cluster) = self.mesh.cluster.as_mut().filter(|cluster| cluster.next_refresh <= now) else {
            return;
        };
        cluster.next_refresh = now.after(pause);
        cluster.duplicates.retain(|_, (since, _)| now.since(*since) < DUPLICATE_MEMORY);
        self.replay_stations();
    }

    /// Members by name: where their stations are reached, if they are.
    fn places(&self) -> BTreeMap<String, PortId> {
        let peers = self.running.peers.values().filter(|peer| peer.state != PeerState::Down);
        peers.filter_map(|peer| Some((peer.config.node.clone()?, peer.id))).collect()
    }

    /// Puts a station where the claims say it is; the addresses that it has.
    fn place(&self, places: &BTreeMap<String, PortId>, vni: Vni, mac: Mac, now: Instant) -> Vec<IpAddr> {
        let (Some(cluster), Some(segment)) =
            (&self.mesh.cluster, self.running.setup.topology.segment_of(vni))
        else {
            return Vec::new();
        };
        let macs = &self.running.macs;
        let Some((at, addresses)) = cluster.stations.get(vni, mac) else {
            // Nobody claims it: what a claim had put at a member goes with it.
            let at = macs.lookup(now, segment, mac);
            if at.is_some_and(|at| self.running.peers.values().any(|p| p.id == at && p.config.node.is_some()))
            {
                macs.remove(now, segment, mac);
            }
            return Vec::new();
        };
        let port = if at.node == self.node {
            let running = self.running.ports.get(at.port).filter(|port| port.link.is_some());
            // One that is here because it spoke must go on speaking: else nobody ever forgot it.
            let configured = cluster.configured.contains_key(&(vni, mac));
            let elsewhere = |id| macs.lookup(now, segment, mac).is_some_and(|at| at != id);
            running.map(|port| port.id).filter(|id| configured || elsewhere(*id))
        } else {
            places.get(at.node).copied()
        };
        if let Some(port) = port {
            learn(macs, now, segment, mac, port);
        }
        addresses.to_vec()
    }

    /// Tells the slow path who has an address, as far as that station can be reached.
    fn place_address(&self, places: &BTreeMap<String, PortId>, vni: Vni, ip: IpAddr) {
        let (Some(cluster), Some(segment)) =
            (&self.mesh.cluster, self.running.setup.topology.segment_of(vni))
        else {
            return;
        };
        let found = cluster.stations.address(vni, ip).and_then(|mac| {
            let (at, _) = cluster.stations.get(vni, mac)?;
            let port = if at.node == self.node {
                self.running.ports.get(at.port).filter(|port| port.link.is_some())?.id
            } else {
                places.get(at.node).copied()?
            };
            Some((mac, port))
        });
        match found {
            Some((mac, port)) => self.directory.set_neighbour(segment, ip, mac, port),
            None => self.directory.remove_neighbour(segment, ip),
        }
    }
}

impl Cluster {
    /// VNIs that are not among `hosted` are not watched any more: what was known there is forgotten.
    pub(super) fn forget_vnis(&mut self, hosted: &BTreeSet<Vni>) {
        for vni in self.watched.difference(hosted) {
            self.stations.forget(*vni);
        }
    }
}

fn carries_vlan(attachment: &Attachment, vlan: Vlan) -> bool {
    match attachment {
        Attachment::Access(own) | Attachment::Dot1qTunnel { vlan: own, .. } => *own == vlan,
        Attachment::Trunk { vlans, .. } => vlans.contains(vlan),
        Attachment::Tunnel(_) => false,
    }
}

/// The segment of a port's untagged frames.
pub(in super::super) fn untagged_segment(attachment: &Attachment) -> Option<Segment> {
    let vlan = match attachment {
        Attachment::Access(vlan) => *vlan,
        Attachment::Trunk { native: Some(native), .. } => native.vlan,
        Attachment::Trunk { vlans, native: None } if vlans.contains(Vlan::UNTAGGED) => Vlan::UNTAGGED,
        _ => return None,
    };
    Segment::new(0, vlan)
}

/// Notes a station as a frame would, past workers that are inserting.
fn learn(macs: &MacTable, now: Instant, segment: Segment, mac: Mac, port: PortId) {
    while macs.learn(now, segment, mac, port) == Learned::Refused(Refused::Busy) {
        std::thread::yield_now();
    }
}
