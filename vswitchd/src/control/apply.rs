//! Makes what runs what is desired, and keeps it so: removals, changes, additions, then one swap in all workers.
//!
//! A step that the operating system refuses leaves its one object down, with the reason; it is tried again.
//! Not here: where wishes come from, and answers to questions.

use super::daemon::Control;
use super::plan::{Desired, Touch, plan, renamed_vlans};
use super::ports::{self, Opened, PortError, Settings};
use super::rpc::Failed;
use super::running::{PublishError, RunningPeer, RunningPort, port_mac_limit};
use super::state::{State, fingerprint};
use crate::config::{Config, PortConfig, PortKind, TunnelConfig};
use crate::datapath::{PortLink, clock};
use crate::link::{AnyLink, TRAIN, TRAIN_BYTES};
use crate::observe::log;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;
use vswitch_core::mac_table::EntryState;
use vswitch_core::wire::{ethernet, vxlan};
use vswitch_core::{MacTable, PortId, Segment, Vlan};

/// How long a removed interface may take to be gone.
const GONE_PATIENCE: Duration = Duration::from_secs(5);

impl Control {
    /// What `file` and `state` wish for this node, with what is refused.
    pub(super) fn desired(&self, file: &Config, state: &State) -> (Desired, Vec<Failed>) {
        let (mut desired, mut failed) = self.desired_ports(file, state);
        self.add_peers(file, &mut desired, &mut failed);
        (desired, failed)
    }

    /// The same without peers, which depend on the node's addresses.
    fn desired_ports(&self, file: &Config, state: &State) -> (Desired, Vec<Failed>) {
        let mut failed = Vec::new();
        let mut desired = Desired::default();
        for port in active_file_ports(file, state, &self.node) {
            desired.ports.insert(port.name.clone(), port.clone());
        }
        for (name, settings) in state.ports() {
            if desired.ports.contains_key(name) {
                continue;
            }
            match port_from(name, settings, file) {
                Ok(port) => {
                    desired.ports.insert(name.to_owned(), port);
                }
                Err(reason) => failed.push(fail("port", name, reason)),
            }
        }
        self.add_attached(file, &mut desired, &mut failed);
        self.add_ovs_ports(&mut desired.ports, &mut failed);
        for port in desired.ports.values_mut() {
            // A pod's interface cannot be made a second time: it stays as it was made.
            let made = self.running.ports.get(&port.name).filter(|_| self.cni.has(&port.name));
            let made = made.and_then(|running| running.config.offload);
            port.offload.get_or_insert_with(|| made.unwrap_or(file.datapath.offload));
        }
        (desired, failed)
    }

    /// Adds the peers to what is desired.
    fn add_peers(&self, file: &Config, desired: &mut Desired, failed: &mut Vec<Failed>) {
        let peers = file.peers_for(&self.running.underlay.local).unwrap_or_else(|missing| {
            // While an address is waited for, so are its peers.
            let refused = missing.refused.iter().filter(|_| self.running.underlay.waiting.is_empty());
            for peer in refused {
                let family = if peer.address.is_ipv6() { "IPv6" } else { "IPv4" };
                failed.push(fail("peer", &peer.label(), format!("no local {family} tunnel address")));
            }
            missing.usable
        });
        desired.peers.extend(peers.into_iter().map(|peer| (peer.address, peer)));
        self.add_found_peers(file, &mut desired.peers, failed);
    }

    /// Takes `file` and `state` as what is wished from now on and makes it so. Gives the number of objects
    /// touched and everything that is not as it was wished.
    pub(super) fn adopt(&mut self, file: Config, state: State) -> Result<(usize, Vec<Failed>), PublishError> {
        let old = std::mem::replace(&mut self.file, file);
        self.state = state;
        let renamed = renamed_vlans(&old, &self.file);
        self.retune_macs(&old);
        let switch_changed = old.switch != self.file.switch
            || !old.vnis().eq(self.file.vnis())
            || old.mac_table != self.file.mac_table
            || old.datapath.busy_poll != self.file.datapath.busy_poll;
        self.reconcile(switch_changed, &renamed)
    }

    /// A changed `[mac_table]`: ageing in place, another limit by another table.
    fn retune_macs(&mut self, old: &Config) {
        let (before, after) = (old.mac_table.clone(), self.file.mac_table.clone());
        if before.limit != after.limit {
            self.replace_mac_table(after.limit);
        } else if before.port_limit != after.port_limit {
            for port in self.running.ports.values() {
                self.running.macs.bind(port.id, port_mac_limit(&port.config, &self.file));
            }
        }
        self.running.macs.set_ageing(after.ageing);
    }

    /// Another table of `limit` entries in place of the one that is there, with what it knows.
    pub(super) fn replace_mac_table(&mut self, limit: u32) {
        let macs = MacTable::new(limit, self.file.mac_table.ageing, self.seed);
        self.running.replace_macs(macs, &self.file, clock::now());
        self.tune_bridges();
    }

    /// One pass over everything: what is wished, what runs, what waits for something. Cheap when nothing is to do.
    /// What is known of stations in `renamed` VLANs is forgotten.
    pub(super) fn reconcile(
        &mut self,
        mut publish: bool,
        renamed: &BTreeSet<Vlan>,
    ) -> Result<(usize, Vec<Failed>), PublishError> {
        let mut failed = Vec::new();
        self.follow_sources();
        self.follow_bridges();
        self.follow_interfaces();
        publish |= std::mem::take(&mut self.ovs.changed);
        let (mut desired, mut refused) = self.desired_ports(&self.file, &self.state);
        let tunnels: Vec<&TunnelConfig> = desired.ports.values().filter_map(PortConfig::tunnel).collect();
        match self.running.underlay.refresh(&self.file, &tunnels, self.workers.count()) {
            Ok(changed) => publish |= changed,
            Err(error) => failed.push(fail("underlay", "", error.to_string())),
        }
        failed.extend(self.running.underlay.failed.iter().map(|reason| fail("underlay", "", reason.clone())));
        self.add_peers(&self.file, &mut desired, &mut refused);
        failed.extend(refused);
        let plan = plan(&self.running.as_desired(), &desired);
        let steps = plan.len();

        // Removals, from the workers first: then nobody uses what is taken away.
        let mut gone: Vec<(PortId, Option<Arc<PortLink>>)> = Vec::new();
        for name in &plan.remove_ports {
            if let Some(port) = self.running.ports.remove(name) {
                log::info("port removed", &[("port", name)]);
                if let Some(link) = &port.link {
                    ports::let_go(&link.link, &port.config);
                }
                gone.push((port.id, port.link));
            }
        }
        for address in &plan.remove_peers {
            if let Some(peer) = self.running.peers.remove(address) {
                log::info("peer removed", &[("peer", address)]);
                gone.push((peer.id, peer.link));
            }
        }
        let mut closing: Vec<Arc<PortLink>> = Vec::new();
        let mut closed: Vec<&str> = plan.remove_ports.iter().map(String::as_str).collect();
        for (name, touch) in &plan.change_ports {
            if let Some(port) = self.running.ports.get_mut(name).filter(|_| touch.reopen) {
                if let Some(link) = &port.link {
                    ports::let_go(&link.link, &port.config);
                }
                closing.extend(port.link.take());
                closed.push(name);
            }
        }
        if !gone.is_empty() || !closing.is_empty() {
            self.retire(&gone);
            self.publish()?;
            let (ids, links): (Vec<_>, Vec<_>) = gone.into_iter().unzip();
            self.forget_beyond_patches(&ids);
            // Their numbers are given out again, and what was said of who is behind them is not true any more.
            self.directory.retain_neighbours(|_, owner| !ids.contains(&owner.port));
            self.running.release(ids);
            // Before they are closed here: an interface goes with its last descriptor.
            self.keeper.forget_all(closed);
            close_all(links.into_iter().flatten().chain(closing).collect());
        }

        // Changes in place.
        let mut relearn = Vec::new();
        for (name, touch) in plan.change_ports {
            if let Some(config) = desired.ports.get(&name) {
                relearn.extend(self.change_port(&name, config.clone(), touch));
                publish = true;
            }
        }
        for address in plan.change_peers {
            if let (Some(peer), Some(config)) =
                (self.running.peers.get_mut(&address), desired.peers.get(&address))
            {
                if peer.config.vnis != config.vnis {
                    relearn.push(peer.id);
                }
                if peer.config.node != config.node {
                    // Another node may have that address now. Whether it lives is another matter: who asks knows by
                    // its boot whether it is the same.
                    relearn.push(peer.id);
                }
                peer.config = config.clone();
                publish = true;
            }
        }

        // Additions.
        for name in plan.add_ports {
            let Some(config) = desired.ports.get(&name) else { continue };
            let Some(id) = self.running.number(port_mac_limit(config, &self.file)) else {
                failed.push(fail("port", &name, "there are too many ports and peers".to_owned()));
                continue;
            };
            log::info("port added", &[("port", &name)]);
            self.running.ports.insert(name, RunningPort::new(id, config.clone()));
            publish = true;
        }
        for address in plan.add_peers {
            let Some(config) = desired.peers.get(&address) else { continue };
            let Some(id) = self.running.number(None) else {
                failed.push(fail(
                    "peer",
                    &address.to_string(),
                    "there are too many ports and peers".to_owned(),
                ));
                continue;
            };
            log::info("peer added", &[("peer", &address)]);
            self.running.peers.insert(address, RunningPeer::new(id, config.clone()));
            publish = true;
        }

        publish |= self.lose_deleted();
        publish |= self.open_ports();
        self.claim_interfaces();
        publish |= self.running.follow_tunnels();
        publish |= self.forget_unasked();
        self.refresh_interfaces();
        self.follow_gateways();
        if publish {
            self.publish()?;
        }
        self.forget_beyond_patches(&relearn);
        for id in relearn {
            self.running.macs.flush_port(id);
            self.directory.retain_neighbours(|_, owner| owner.port != id);
        }
        for segment in renamed.iter().filter_map(|vlan| Segment::new(0, *vlan)) {
            self.running.macs.flush_segment(segment);
        }
        self.set_static_macs();
        self.tell_mesh(clock::now());
        if publish {
            self.replay_stations();
        }
        let is_there = |name: &str| self.running.ports.get(name).is_some_and(RunningPort::is_up);
        failed.extend(self.ovs.mirror_troubles(is_there));
        failed.extend(self.running.ports.iter().filter_map(|(name, port)| {
            let waiting = port.link.is_none() && port.reason.as_deref().is_some_and(is_waiting);
            let reason = port.reason.clone().filter(|_| !waiting)?;
            Some(fail("port", name, reason))
        }));
        Ok((steps, failed))
    }

    /// Gives the workers what runs now.
    pub(super) fn publish(&mut self) -> Result<(), PublishError> {
        self.running.publish(&self.file, &mut self.ovs, &self.workers)?;
        self.forget_stations();
        self.tell_snooping();
        Ok(())
    }

    /// Stations behind these ports, which are forgotten there next, are not behind a patch port of another bridge any more
    /// either.
    fn forget_beyond_patches(&self, ids: &[PortId]) {
        let is_patch = |port: &&RunningPort| matches!(port.config.kind, PortKind::Patch { .. });
        let patches: BTreeSet<PortId> =
            self.running.ports.values().filter(is_patch).map(|port| port.id).collect();
        if ids.is_empty() || patches.is_empty() {
            return;
        }
        let now = clock::now();
        let (mut stations, mut beyond) = (BTreeSet::new(), Vec::new());
        self.running.macs.for_each(now, |entry| {
            if ids.contains(&entry.port) {
                stations.insert(entry.mac);
            } else if entry.state == EntryState::Learned && patches.contains(&entry.port) {
                beyond.push((entry.segment, entry.mac));
            }
        });
        for (segment, mac) in beyond.into_iter().filter(|(_, mac)| stations.contains(mac)) {
            self.running.macs.remove(now, segment, mac);
        }
    }

    /// Keeps what was counted for ports that go, so that no total ever falls.
    fn retire(&mut self, gone: &[(PortId, Option<Arc<PortLink>>)]) {
        let Ok(snapshots) = self.workers.snapshots() else { return };
        for snapshot in snapshots {
            for (id, _) in gone {
                let dropped = snapshot.counters.port(*id).dropped;
                for (sum, count) in self.retired.no_port.iter_mut().zip(dropped) {
                    *sum += count;
                }
            }
        }
    }

    /// Changes what can be changed while the port stays; gives its number when its stations are to be forgotten.
    fn change_port(&mut self, name: &str, config: PortConfig, touch: Touch) -> Option<PortId> {
        let settings = self.settings(&config);
        let port = self.running.ports.get_mut(name)?;
        port.set_config(config);
        if touch.reconfigure {
            port.reconfigure(settings);
        }
        log::info("port changed", &[("port", &name)]);
        touch.relearn.then_some(port.id)
    }

    /// Notices interfaces that were deleted while nothing told of it; whether there was one.
    fn lose_deleted(&mut self) -> bool {
        let links = self.running.ports.values().filter_map(|port| port.link.as_ref());
        let gone = links.filter(|link| matches!(&link.link, AnyLink::Packet(packet) if packet.is_gone()));
        let gone: Vec<_> = gone.map(Arc::downgrade).collect();
        gone.iter().fold(false, |any, link| any | self.lost(link))
    }

    /// Frames of existing interfaces that are ports are no business of the host's own stack.
    fn claim_interfaces(&mut self) {
        let claimed = self.running.ports.values().filter_map(|port| match &port.link.as_ref()?.link {
            AnyLink::Packet(packet) if !packet.is_loopback() => {
                Some((packet.name().to_owned(), packet.index()))
            }
            _ => None,
        });
        if let Err(reason) = self.claims.set(claimed.collect()) {
            let facts: [(&str, &dyn std::fmt::Display); 1] = [("reason", &reason)];
            let what = "the host's own stack takes frames of interfaces that are ports too";
            log::limited(log::Level::Warn, "not-claimed", what, &facts);
        }
    }

    /// Tries to open every port that is down; whether one came up.
    fn open_ports(&mut self) -> bool {
        let down: Vec<String> = self
            .running
            .ports
            .iter()
            .filter(|(_, port)| port.link.is_none() && port.config.has_interface())
            .map(|(name, _)| name.clone())
            .collect();
        let mut any = false;
        for name in down {
            let Some(config) = self.running.ports.get(&name).map(|port| port.config.clone()) else {
                continue;
            };
            let settings = self.settings(&config);
            let opened = if self.cni.has(&name) {
                let link = self.attached_interface(&name);
                link.map(|link| Opened { link, complaint: None }).map_err(PortError::Refused)
            } else {
                match self.adopt_kept(&config, settings) {
                    Some(adopted) => Ok(adopted),
                    None => ports::open(&config, settings, &mut self.keeper),
                }
            };
            let worker = self.running.idlest_worker();
            let Some(port) = self.running.ports.get_mut(&name) else { continue };
            match opened {
                Ok(opened) => {
                    port.link = Some(Arc::new(PortLink { port: port.id, worker, link: opened.link }));
                    port.reason = opened.complaint;
                    port.applied = port.config.clone();
                    log::info("port up", &[("port", &name)]);
                    any = true;
                }
                Err(error) => {
                    let reason = error.to_string();
                    if port.reason.as_ref() != Some(&reason) {
                        let level = if matches!(error, PortError::Waiting(_)) {
                            log::Level::Info
                        } else {
                            log::Level::Warn
                        };
                        log::log(level, "port down", &[("port", &name), ("reason", &reason)]);
                    }
                    port.reason = Some(reason);
                }
            }
        }
        any
    }

    /// Interfaces whose default MTU or MAC address followed a change elsewhere, or whose settings were refused before.
    fn refresh_interfaces(&mut self) {
        let due: Vec<(String, Settings)> = self
            .running
            .ports
            .iter()
            .filter(|(_, port)| port.link.is_some())
            .map(|(name, port)| (name, port, self.settings(&port.config)))
            .filter(|(name, port, settings)| {
                let given = self.given.get(*name);
                port.reason.is_some() || given.is_some_and(|given| *given != (settings.mtu, settings.mac))
            })
            .map(|(name, _, settings)| (name.clone(), settings))
            .collect();
        for (name, settings) in due {
            if let Some(port) = self.running.ports.get_mut(&name) {
                port.reconfigure(settings);
            }
        }
        let given = self.running.ports.iter().map(|(name, port)| {
            let settings = self.settings(&port.config);
            (name.clone(), (settings.mtu, settings.mac))
        });
        self.given = given.collect();
    }

    /// What an interface is given where the file does not say.
    pub(super) fn settings(&self, config: &PortConfig) -> Settings {
        let underlay = &self.running.underlay;
        let families = if underlay.mtu().is_some() { underlay.families() } else { self.file.families() };
        let mtu = match &config.bridge {
            Some(bridge) => config.mtu.unwrap_or_else(|| self.ovs.mtu_of(bridge)),
            None => config.mtu_for(&self.file, underlay.mtu().unwrap_or(1500), families),
        };
        let tunnelled = self.file.underlay.is_some() || underlay.has_tunnels();
        let superframe = if tunnelled { train_for(mtu) } else { GSO_MAX };
        let gso_max = (config.offload == Some(true)).then_some(superframe);
        Settings { mac: self.mac_of(config), mtu, gso_max }
    }

    /// Every static entry whose port runs is in the table.
    fn set_static_macs(&mut self) {
        for (vlan, mac, name) in self.state.macs() {
            if let (Some(id), Some(segment)) = (self.running.find(name), Segment::new(0, vlan))
                && let Err(error) = self.running.macs.add_static(segment, mac, id)
            {
                log::limited(
                    log::Level::Warn,
                    "static-mac",
                    "static MAC entry not set",
                    &[("mac", &mac), ("vlan", &vlan), ("reason", &error)],
                );
            }
        }
    }

    /// A worker says that the interface behind a link does not exist any more.
    pub(super) fn lost(&mut self, link: &Weak<PortLink>) -> bool {
        let found = self.running.ports.iter_mut().find(|(_, port)| {
            port.link.as_ref().is_some_and(|current| Arc::as_ptr(current) == link.as_ptr())
        });
        let Some((name, port)) = found else { return false };
        self.keeper.forget(name);
        port.link = None;
        port.reason = Some("its interface or network namespace was deleted".to_owned());
        log::warn(
            "port down",
            &[("port", name), ("reason", &"its interface or network namespace was deleted")],
        );
        let id = port.id;
        self.forget_beyond_patches(&[id]);
        self.running.macs.flush_port(id);
        self.directory.retain_neighbours(|_, owner| owner.port != id);
        true
    }
}

/// The largest superframe where nobody wants smaller ones (Linux's GSO_LEGACY_MAX_SIZE).
const GSO_MAX: u32 = 65_536;

/// The largest superframe, headers included, of which an interface of `mtu` should make one train for a tunnel: cut
/// into full frames and wrapped, it is one message of UDP.
fn train_for(mtu: u16) -> u32 {
    let mtu = u32::from(mtu);
    let wrapped = u32::try_from(vxlan::HEADER_LEN + ethernet::HEADER_LEN).unwrap_or(0) + mtu;
    // TCP with timestamps over IPv4 leaves the most payload of those that matter.
    let payload = mtu.saturating_sub(52);
    // Linux leaves room for the headers before it counts segments (MAX_TCP_HEADER and one).
    (TRAIN_BYTES / wrapped).clamp(1, TRAIN) * payload + 512
}

/// The ports of `file` on `node` that were not deleted at run time.
pub(super) fn active_file_ports<'a>(
    file: &'a Config,
    state: &'a State,
    node: &'a str,
) -> impl Iterator<Item = &'a PortConfig> {
    file.ports.iter().filter(move |port| {
        port.on_node(node) && !state.is_deleted(&port.name, &fingerprint(&port.to_json()))
    })
}

/// A port of the state file.
pub(super) fn port_from(
    name: &str,
    settings: &Map<String, Value>,
    file: &Config,
) -> Result<PortConfig, String> {
    let mut entry = settings.clone();
    entry.insert("name".to_owned(), name.into());
    PortConfig::from_json(&Value::Object(entry), file)
}

pub(super) fn is_waiting(reason: &str) -> bool {
    reason.starts_with("waiting")
}

pub(super) fn fail(kind: &str, name: &str, reason: String) -> Failed {
    Failed { kind: kind.to_owned(), name: name.to_owned(), reason }
}

/// How many interfaces are removed at once. The kernel waits some milliseconds for each, mostly without its lock.
const CLOSERS: usize = 32;

/// Closes links that no worker runs any more; returns when all their interfaces are gone.
pub(super) fn close_all(links: Vec<Arc<PortLink>>) {
    if links.len() < 2 {
        return links.into_iter().for_each(close);
    }
    let closers = links.len().min(CLOSERS);
    let (sender, receiver) = crossbeam_channel::unbounded();
    links.into_iter().for_each(|link| drop(sender.send(link)));
    drop(sender);
    std::thread::scope(|scope| {
        for _ in 1..closers {
            let links = receiver.clone();
            // Without another thread those that there are do the work.
            let _ = std::thread::Builder::new().name("close".into()).spawn_scoped(scope, move || {
                links.iter().for_each(close);
            });
        }
        receiver.iter().for_each(close);
    });
}

/// Closes a link that no worker runs any more, and with it, for a TAP, its interface. A frame on its way to the
/// slow path may hold it for a moment.
fn close(link: Arc<PortLink>) {
    let deadline = clock::now().after(GONE_PATIENCE);
    let mut link = Some(link);
    while let Some(held) = link.take() {
        if let Err(shared) = Arc::try_unwrap(held)
            && clock::now() < deadline
        {
            std::thread::yield_now();
            link = Some(shared);
        }
    }
}
