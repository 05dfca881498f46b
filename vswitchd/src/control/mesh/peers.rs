//! Peers: those of the file, those that names resolve to, those that are members of the cluster; and how they are.
//!
//! Not here: when a peer is asked whether it lives (see [`crate::slow`]).

use super::super::apply::fail;
use super::super::daemon::Control;
use super::super::rpc::Failed;
use super::{LISTENING, Probed};
use crate::cluster::{NodeRecord, SuspectRecord};
use crate::config::{Config, PeerConfig, PeerSource};
use crate::observe::log;
use crate::slow::{PeerState, ProbePeer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::{Attachment, Instant, Vni};

impl Control {
    /// Adds to `peers`, those of `file`, what names and the cluster know beyond it.
    pub(in super::super) fn add_found_peers(
        &self,
        file: &Config,
        peers: &mut BTreeMap<IpAddr, PeerConfig>,
        failed: &mut Vec<Failed>,
    ) {
        let Some(wish) = &file.underlay else { return };
        let underlay = &self.running.underlay;
        let families = underlay.families();
        for name in &file.mesh_names {
            for address in self.mesh.addresses_of(&name.name) {
                let usable = if address.is_ipv6() { families.v6 } else { families.v4 };
                if usable && !underlay.local.contains(address) {
                    let mut peer = wish.peer(*address, PeerSource::Dns);
                    peer.name = Some(name.name.clone());
                    peers.entry(*address).or_insert(peer);
                }
            }
        }
        let Some(cluster) = &self.mesh.cluster else { return };
        let vnis: BTreeSet<Vni> = file.vnis().map(|(_, vni)| vni).collect();
        let mut members: Vec<_> = cluster.members.iter().collect();
        // Of two with one address the last counts: one that the store lists, and of those the younger.
        members.sort_by_key(|(_, record, stale)| (!stale, record.boot));
        for (name, record, _) in members {
            let Some(address) = common_address(&underlay.addresses(), record) else {
                // Where there is no local address yet, that is told already.
                if underlay.waiting.is_empty() && !underlay.addresses().is_empty() {
                    let reason = "has no tunnel address of a family that this node has".to_owned();
                    failed.push(fail("peer", name, reason));
                }
                continue;
            };
            if underlay.local.contains(&address) {
                failed.push(fail(
                    "peer",
                    name,
                    format!("says that {address} is its own, which is this node's"),
                ));
                continue;
            }
            let peer = peers.entry(address).or_insert_with(|| wish.peer(address, PeerSource::Cluster));
            if peer.source == PeerSource::Cluster {
                (peer.mtu, peer.name) = (Some(record.mtu), Some(name.to_owned()));
            }
            peer.name.get_or_insert_with(|| name.to_owned());
            peer.node = Some(name.to_owned());
            peer.udp_port = Some(record.udp_port);
            peer.floods = Some(vnis.iter().copied().filter(|vni| record.hosts(*vni)).collect());
        }
    }

    /// The VNIs of which a local port that is up has the VLAN.
    fn hosted(&self) -> BTreeSet<Vni> {
        let by_vlan: BTreeMap<_, _> = self.file.vnis().collect();
        let mut hosted = BTreeSet::new();
        for port in self.running.ports.values().filter(|port| port.link.is_some()) {
            match port.config.attachment() {
                Attachment::Access(vlan) | Attachment::Dot1qTunnel { vlan, .. } => {
                    hosted.extend(by_vlan.get(&vlan));
                }
                Attachment::Trunk { vlans, .. } => {
                    hosted.extend(
                        by_vlan.iter().filter(|(vlan, _)| vlans.contains(**vlan)).map(|(_, vni)| vni),
                    );
                }
                Attachment::Tunnel(_) => {}
            }
        }
        hosted
    }

    /// Tells the cluster and the slow path what runs now; to be called when that may have changed.
    pub(in super::super) fn tell_mesh(&mut self, now: Instant) {
        if self.mesh.cluster.is_some() {
            let hosted = self.hosted();
            let underlay = &self.running.underlay;
            let record = NodeRecord {
                addresses: underlay.addresses(),
                udp_port: underlay.udp_port(),
                mtu: underlay.mtu().unwrap_or(1500),
                boot: self.mesh.cluster.as_ref().map_or(0, |cluster| cluster.boot),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                vnis: hosted.iter().copied().collect(),
            };
            if let Some(cluster) = &mut self.mesh.cluster {
                cluster.tell(&self.node, record);
                if cluster.watched != hosted {
                    cluster.forget_vnis(&hosted);
                    cluster.watched = hosted;
                    cluster.watch();
                }
            }
            self.follow_local_stations(now);
        }
        self.tell_prober();
        self.announce_pods();
    }

    fn tell_prober(&mut self) {
        let mut peers = Vec::new();
        let mut told = Vec::new();
        for peer in self.running.peers.values().filter(|_| self.file.probe) {
            let Some(link) = &peer.link else { continue };
            let record =
                peer.config.node.as_ref().and_then(|node| self.mesh.cluster.as_ref()?.members.get(node));
            let boot = record.map(|record| record.boot);
            let address = peer.config.address;
            let probe = ProbePeer { address, mtu_limit: peer.limit, speaks: boot.is_some(), boot };
            told.push(Probed { peer: probe, link: Arc::downgrade(link), id: peer.id });
            peers.push((probe, Arc::clone(link)));
        }
        if told.iter().eq(&self.mesh.probed) {
            return;
        }
        // Over a way that has changed it is asked again at once.
        let before: BTreeMap<IpAddr, &Probed> =
            self.mesh.probed.iter().map(|probed| (probed.peer.address, probed)).collect();
        let changed = told.iter().filter(|probed| {
            before.get(&probed.peer.address).is_some_and(|before| !before.link.ptr_eq(&probed.link))
        });
        let changed: Vec<IpAddr> = changed.map(|probed| probed.peer.address).collect();
        self.mesh.probed = told;
        self.slow.set_peers(peers);
        changed.into_iter().for_each(|address| self.slow.suspect(address));
    }

    /// Where nobody is to be asked, nobody is down; whether anybody was, or workers knew of a path.
    pub(in super::super) fn forget_unasked(&mut self) -> bool {
        if self.file.probe {
            return false;
        }
        let forgotten = self.running.peers.values_mut().fold(false, |any, peer| peer.forget() | any);
        if let Some(cluster) = &mut self.mesh.cluster {
            for node in std::mem::take(&mut cluster.suspected) {
                cluster.etcd.delete(cluster.keys.suspect(&node, &self.node));
            }
        }
        forgotten
    }

    /// Tells the prober whose frames came in since the last time.
    pub(super) fn listen(&mut self, now: Instant) {
        if self.mesh.probed.is_empty() || now < self.mesh.next_listening {
            return;
        }
        self.mesh.next_listening = now.after(LISTENING);
        let Ok(snapshots) = self.workers.snapshots() else { return };
        let mut heard = Vec::new();
        for Probed { peer, id, .. } in &self.mesh.probed {
            let received = snapshots.iter().map(|snapshot| snapshot.counters.port(*id).rx_frames).sum();
            if self.mesh.received.insert(*id, received).is_some_and(|before| before != received) {
                heard.push(peer.address);
            }
        }
        if !heard.is_empty() {
            self.slow.heard(heard);
        }
    }

    /// A peer was found to live, or not to, or its path to have another MTU; whether workers must be told.
    pub(in super::super) fn note_peer(
        &mut self,
        address: IpAddr,
        state: PeerState,
        mtu: Option<u16>,
        rtt: Option<Duration>,
    ) -> bool {
        // What was found out just before nobody was to be asked any more comes too late.
        let Some(peer) = self.running.peers.get_mut(&address).filter(|_| self.file.probe) else {
            return false;
        };
        let (before, mtu_before) = (peer.state, peer.mtu());
        (peer.state, peer.probed_mtu, peer.rtt) = (state, mtu, rtt);
        if peer.mtu() != mtu_before {
            log::info("path mtu", &[("peer", &address), ("from", &mtu_before), ("to", &peer.mtu())]);
        }
        let (id, node, mtu_changed) = (peer.id, peer.config.node.clone(), peer.mtu() != mtu_before);
        if before == state {
            return mtu_changed;
        }
        let level = if state == PeerState::Down { log::Level::Warn } else { log::Level::Info };
        log::log(level, "peer", &[("peer", &address), ("state", &state), ("before", &before)]);
        let down = state == PeerState::Down;
        if down {
            // Its stations are not answered for any more. Frames to them still go there: if it lives after all, no
            // conversation ends, and if it does not, whoever takes a station over says so.
            self.directory.retain_neighbours(|_, owner| owner.port != id);
        }
        self.report_silence(node.as_deref(), down);
        if before == PeerState::Down {
            self.replay_stations();
        }
        mtu_changed || down || before == PeerState::Down
    }

    /// Tells the other members that `node` does not answer, or that it does again.
    fn report_silence(&mut self, node: Option<&str>, silent: bool) {
        let Some((cluster, node)) = self.mesh.cluster.as_mut().zip(node) else { return };
        let key = cluster.keys.suspect(node, &self.node);
        if silent {
            let boot = cluster.members.get(node).map_or(0, |record| record.boot);
            cluster.suspected.insert(node.to_owned());
            cluster.etcd.put(key, SuspectRecord { boot }.to_json());
        } else if cluster.suspected.remove(node) {
            cluster.etcd.delete(key);
        }
    }

    /// Reports about nodes that are no members any more are taken back.
    pub(super) fn clear_reports(&mut self) {
        let Some(cluster) = &mut self.mesh.cluster else { return };
        let gone: Vec<String> =
            cluster.suspected.iter().filter(|node| cluster.members.get(node).is_none()).cloned().collect();
        for node in gone {
            cluster.suspected.remove(&node);
            cluster.etcd.delete(cluster.keys.suspect(&node, &self.node));
        }
    }
}

/// The address by which both nodes reach each other: of the first of our families that `record` has, too. Every node
/// has the same file, and so the same order of families.
fn common_address(ours: &[IpAddr], record: &NodeRecord) -> Option<IpAddr> {
    ours.iter().find_map(|own| record.addresses.iter().find(|its| its.is_ipv4() == own.is_ipv4())).copied()
}
