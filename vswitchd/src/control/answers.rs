//! Answers to questions on the control socket: status, tables, trace, and changes at run time.
//!
//! Rows are flat objects with stable keys (the contract of `--json`). Not here: the protocol (see
//! [`super::rpc`]) and how a change is carried out (see [`super::apply`]).

use super::apply::active_file_ports;
use super::cni;
use super::daemon::Control;
use super::mesh::Cluster;
use super::rpc::{Call, Drops, MacAdd, MacFilter, MacKey, PortSettings, RpcError};
use super::running::RunningPort;
use super::state::{State, fingerprint};
use super::underlay::words;
use crate::config::{PeerConfig, PortConfig, VlanMode};
use crate::datapath::clock;
use crate::link::AnyLink;
use crate::slow::PeerState;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use vswitch_core::mac_table::{Entry, EntryState};
use vswitch_core::switch::Counters;
use vswitch_core::{DropReason, PortId, Segment, Vlan};

pub(super) fn answer(control: &mut Control, call: &Call, descriptors: &[OwnedFd]) -> Result<Value, RpcError> {
    match call {
        Call::Status => control.status(),
        Call::PortList => control.port_list(),
        Call::PortAdd(port) => control.port_add(port),
        Call::PortSet(port) => control.port_set(port),
        Call::PortDel(port) => control.port_del(&port.name),
        Call::PeerList => control.peer_list(),
        Call::SegmentList => Ok(control.segment_list()),
        Call::MacList(filter) => control.mac_list(filter),
        Call::MacAdd(entry) => control.mac_add(entry),
        Call::MacDel(key) => control.mac_del(key),
        Call::MacFlush(filter) => control.mac_flush(filter),
        Call::Drops(which) => control.drops(*which),
        Call::Trace(frame) => control.trace(frame),
        Call::Reload => control.reload().map(|answer| json!(answer)),
        Call::Diff => control.diff(),
        Call::Doctor => Ok(json!(control.doctor())),
        Call::Metrics => control.metrics().map(Value::String),
        Call::CniAdd(_)
        | Call::CniDel(_)
        | Call::CniCheck(_)
        | Call::CniGc(_)
        | Call::CniGone(_)
        | Call::CniStatus(_)
        | Call::CniList => cni::answer(control, call, descriptors),
    }
}

/// Which way frames of a port cross, in the kernel's words; `None` while it is down.
pub(super) fn tap_path(port: &RunningPort) -> Option<String> {
    match &port.link.as_ref()?.link {
        AnyLink::Tap(tap) => {
            let [header, csum, tso, uso] = tap.offload();
            Some(words([
                (!header, "basic"),
                (header, "vnet_hdr"),
                (csum, "csum"),
                (tso, "tso"),
                (uso, "uso"),
            ]))
        }
        AnyLink::Packet(packet) => {
            let [csum, tso, uso] = packet.offload();
            Some(words([(true, "packet vnet_hdr"), (csum, "csum"), (tso, "tso"), (uso, "uso")]))
        }
        AnyLink::Peer(_) | AnyLink::Memory(_) => None,
    }
}

impl Control {
    /// What all workers counted, and what was counted for ports that are gone.
    pub(super) fn counters(&self) -> Result<Counters, RpcError> {
        let mut total = self.retired.clone();
        for snapshot in self.workers.snapshots().map_err(|error| RpcError::of(&error))? {
            total.add(&snapshot.counters);
        }
        Ok(total)
    }

    /// Entries that count: neither aged out nor flushed.
    pub(super) fn mac_entries(&self) -> u64 {
        let mut count = 0;
        self.running.macs.for_each(clock::now(), |_| count += 1);
        count
    }

    fn status(&self) -> Result<Value, RpcError> {
        let counters = self.counters()?;
        let running = &self.running;
        let up = running.ports.values().filter(|port| port.is_up()).count();
        let reasons = running.ports.iter().filter_map(|(name, port)| {
            port.reason.as_ref().map(|reason| format!("port \"{name}\": {reason}"))
        });
        let (attached, gone) = self.cni.counts();
        let underlay = &running.underlay;
        let troubles: Vec<String> = reasons
            .chain(
                underlay.waiting.iter().chain(&underlay.failed).map(|reason| format!("underlay: {reason}")),
            )
            .chain(self.cni.nat.trouble.clone())
            .chain(
                self.mesh.troubles().into_iter().map(|(kind, name, reason)| in_words(kind, &name, &reason)),
            )
            .collect();
        let warnings: Vec<String> = self
            .file
            .warnings
            .iter()
            .map(ToString::to_string)
            .chain(underlay.warnings.iter().cloned())
            .chain(self.mesh.duplicates().map(str::to_owned))
            .chain(self.keeper.trouble().map(|reason| format!("keeper: {reason}")))
            .collect();
        let state = match (&self.file.underlay, underlay.waiting.is_empty(), underlay.failed.is_empty()) {
            (None, ..) => "none",
            (Some(_), _, false) => "failed",
            (Some(_), false, _) => "waiting",
            (Some(_), true, true) => "ready",
        };
        let peers_in = |state: PeerState| running.peers.values().filter(|peer| peer.state == state).count();
        let cluster = self.mesh.cluster.as_ref();
        let (cluster_state, reason) = match (cluster, &self.mesh.refused) {
            (None, None) => ("none", None),
            (None, Some(reason)) => ("down", Some(reason.as_str())),
            (Some(cluster), _) => (if cluster.away().is_some() { "down" } else { "up" }, cluster.away()),
        };
        let neigh = self.slow.counters().read();
        let tap_paths: BTreeSet<String> = running.ports.values().filter_map(tap_path).collect();
        let addresses: Vec<String> = underlay.addresses().iter().map(ToString::to_string).collect();
        Ok(json!({
            "node": self.node,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_seconds": clock::now().since(self.started).as_secs(),
            "config": self.path,
            "state": self.file.control.state,
            "workers": self.workers.count(),
            "keeper": self.keeper.kind(),
            "keeper_descriptors": self.keeper.descriptors(),
            "ports": running.ports.len(),
            "ports_up": up,
            "cni_attachments": attached,
            "cni_gone": gone,
            "peers": running.peers.len(),
            "peers_up": peers_in(PeerState::Up),
            "peers_down": peers_in(PeerState::Down),
            "cluster": cluster_state,
            "cluster_reason": reason,
            "cluster_prefix": cluster.map(Cluster::prefix),
            "cluster_members": cluster.map(Cluster::members),
            "cluster_stations": cluster.map(Cluster::stations),
            "neigh_announced": neigh.announced,
            "neigh_answered": neigh.answered,
            "neigh_flooded": neigh.given_back,
            "neigh_refused": neigh.refused.iter().map(|(_, count)| count).sum::<u64>(),
            "underlay": state,
            "underlay_addresses": addresses,
            "underlay_port": self.file.underlay.as_ref().map(|underlay| underlay.port),
            "tap_path": tap_paths.into_iter().collect::<Vec<_>>().join(", "),
            "underlay_path": underlay.path(),
            "mac_entries": self.mac_entries(),
            "mac_limit": running.macs.limit(),
            "mac_table_bytes": running.macs.memory_bytes(),
            "ageing_seconds": running.macs.ageing().as_secs(),
            "stations_learned": counters.learned,
            "stations_moved": counters.moved,
            "learn_refused_busy": counters.learn_busy,
            "learn_refused_full": counters.learn_full,
            "events_lost": counters.events_lost,
            "troubles": troubles,
            "warnings": warnings,
        }))
    }

    fn port_list(&self) -> Result<Value, RpcError> {
        let counters = self.counters()?;
        let rows = self.running.ports.iter().map(|(name, port)| {
            let config = &port.config;
            let (netns, ifname) = match self.cni.place(name) {
                Some((netns, ifname)) => (Some(netns), ifname),
                None => (config.netns.as_deref(), config.ifname.as_deref().unwrap_or(name)),
            };
            let mut row = json!({
                "name": name,
                "type": config.kind.as_str(),
                "vlan_mode": config.vlan_mode.as_str(),
                "tag": tag_of(config),
                "trunks": config.trunks,
                "cvlans": config.cvlans,
                "segment": tag_of(config).and_then(Vlan::new).map(|vlan| self.file.segment_name(vlan)),
                "netns": netns,
                "ifname": ifname,
                "mac": self.settings(config).mac.to_string(),
                "mtu": self.settings(config).mtu,
                "addresses": config.addresses.iter().map(|(a, len)| format!("{a}/{len}")).collect::<Vec<_>>(),
                "offload": tap_path(port),
                "link": if port.is_up() { "up" } else { "down" },
                "reason": port.reason,
                "source": self.source_of(name),
                "mac_entries": self.running.macs.entries_of(port.id),
            });
            add_counts(&mut row, &counters, port.id);
            row
        });
        Ok(rows.collect())
    }

    fn peer_list(&self) -> Result<Value, RpcError> {
        let counters = self.counters()?;
        let rows = self.running.peers.iter().map(|(address, peer)| {
            let mut row = json!({
                "address": address.to_string(),
                "name": peer.config.name,
                "node": peer.config.node,
                "source": peer.config.source.as_str(),
                "state": if peer.link.is_some() { peer.state.as_str() } else { "down" },
                "mtu": peer.mtu(),
                "rtt_seconds": peer.rtt.map(|rtt| rtt.as_secs_f64()),
                "vnis": peer.config.vnis.as_ref().map(|vnis| vnis.iter().map(|v| v.get()).collect::<Vec<_>>()),
                "mac_entries": self.running.macs.entries_of(peer.id),
            });
            add_counts(&mut row, &counters, peer.id);
            row
        });
        Ok(rows.collect())
    }

    /// Who wished for a port.
    fn source_of(&self, name: &str) -> &'static str {
        if self.state.port(name).is_some() {
            "runtime"
        } else if self.cni.has(name) || self.cni.is_gateway(name) {
            "cni"
        } else {
            "file"
        }
    }

    /// Every segment that the file names or a port uses.
    fn segment_list(&self) -> Value {
        let used = self.running.ports.values().filter_map(|port| tag_of(&port.config)).filter_map(Vlan::new);
        let mut vlans: BTreeSet<Vlan> = used.collect();
        for segment in &self.file.segments {
            vlans.extend(segment.vlans.clone().filter_map(Vlan::new));
        }
        let rows = vlans.into_iter().map(|vlan| {
            let vni = self.file.vni_of(vlan);
            let carries = |config: &PortConfig| match config.attachment() {
                vswitch_core::Attachment::Access(own)
                | vswitch_core::Attachment::Dot1qTunnel { vlan: own, .. } => own == vlan,
                vswitch_core::Attachment::Trunk { vlans, .. } => vlans.contains(vlan),
                vswitch_core::Attachment::Tunnel(_) => false,
            };
            let ports = self.running.ports.values().filter(|port| carries(&port.config)).count();
            let shares = |vnis: &Option<Vec<vswitch_core::Vni>>| {
                vni.is_some_and(|vni| vnis.as_ref().is_none_or(|vnis| vnis.contains(&vni)))
            };
            let hears = |config: &PeerConfig| shares(&config.vnis) && shares(&config.floods);
            let peers = self.running.peers.values().filter(|peer| hears(&peer.config)).count();
            json!({
                "segment": self.file.segment_name(vlan),
                "vlan": vlan.get(),
                "vni": vni.map(|vni| vni.get()),
                "ports": ports,
                "peers": peers,
                "flooded": self.file.switch.flood_vlans.contains(vlan),
            })
        });
        rows.collect()
    }

    fn entries(&self, filter: &MacFilter) -> Result<Vec<Entry>, RpcError> {
        let port = filter.port.as_ref().map(|name| self.port_named(name)).transpose()?;
        let mut entries = Vec::new();
        self.running.macs.for_each(clock::now(), |entry| {
            let wanted = port.is_none_or(|port| port == entry.port)
                && filter.vlan.is_none_or(|vlan| vlan == entry.segment.vlan());
            if wanted {
                entries.push(entry);
            }
        });
        entries.sort_by_key(|entry| (entry.segment, entry.mac));
        Ok(entries)
    }

    pub(super) fn port_named(&self, name: &str) -> Result<PortId, RpcError> {
        self.running.find(name).ok_or_else(|| {
            let ports: Vec<&str> = self.running.ports.keys().map(String::as_str).collect();
            RpcError::refused(format!("no port or peer \"{name}\"; there are: {}", ports.join(", ")))
        })
    }

    fn mac_list(&self, filter: &MacFilter) -> Result<Value, RpcError> {
        let names = self.names();
        let now = clock::now();
        let rows = self.entries(filter)?.into_iter().map(|entry| {
            let name = names.get(&entry.port).cloned();
            let is_peer =
                self.running.setup.topology.port(entry.port).is_some_and(|port| port.tunnel().is_some());
            let vlan = entry.segment.vlan();
            let known = self.directory.get(entry.segment, entry.mac);
            let vlan_vni = self.file.vni_of(vlan);
            json!({
                "mac": entry.mac.to_string(),
                "segment": self.file.segment_name(vlan),
                "vlan": vlan.get(),
                "vni": vlan_vni.map(|vni| vni.get()),
                "port": (!is_peer).then(|| name.clone()).flatten(),
                "peer": is_peer.then_some(name).flatten(),
                "age_seconds": entry.age.as_secs(),
                "state": match entry.state {
                    EntryState::Static => "static",
                    EntryState::Learned if is_peer && self.mesh.claims(vlan_vni, entry.mac) => "cluster",
                    EntryState::Learned => "learned",
                },
                "since_seconds": known.map(|station| now.since(station.since).as_secs()),
                "moves": known.map_or(0, |station| station.moves),
            })
        });
        Ok(rows.collect())
    }

    /// All names by number.
    pub(super) fn names(&self) -> std::collections::HashMap<PortId, String> {
        let ports = self.running.ports.iter().map(|(name, port)| (port.id, name.clone()));
        let peers = self.running.peers.iter().map(|(address, peer)| (peer.id, address.to_string()));
        ports.chain(peers).collect()
    }

    fn mac_add(&mut self, entry: &MacAdd) -> Result<Value, RpcError> {
        let id = self.port_named(&entry.port)?;
        if entry.mac.is_group() || entry.mac.is_zero() {
            return Err(RpcError::refused(format!("{} is no station's address", entry.mac)));
        }
        let topology = &self.running.setup.topology;
        let carried = topology.port(id).is_some_and(|port| match port.attached() {
            vswitch_core::Attachment::Access(vlan) | vswitch_core::Attachment::Dot1qTunnel { vlan, .. } => {
                *vlan == entry.vlan
            }
            vswitch_core::Attachment::Trunk { vlans, .. } => vlans.contains(entry.vlan),
            vswitch_core::Attachment::Tunnel(tunnel) => {
                let vswitch_core::port::Carries::PerVni(shared) = &tunnel.carries else { return false };
                let vni = self.file.vni_of(entry.vlan);
                vni.is_some_and(|vni| shared.as_ref().is_none_or(|shared| shared.contains(&vni)))
            }
        });
        if !carried {
            return Err(RpcError::refused(format!(
                "port \"{}\" does not carry VLAN {}",
                entry.port, entry.vlan
            )));
        }
        let segment = segment(entry.vlan)?;
        let mut state = self.state.clone();
        state.add_mac(entry.vlan, entry.mac, &entry.port);
        self.save(&state)?;
        if let Err(error) = self.running.macs.add_static(segment, entry.mac, id) {
            self.save_back(&state)?;
            return Err(RpcError::of(&error));
        }
        self.state = state;
        Ok(Value::Null)
    }

    /// Writes the state that counts over one that was written in vain.
    fn save_back(&self, written: &State) -> Result<(), RpcError> {
        if *written == self.state {
            return Ok(());
        }
        self.state_file.save(&self.state).map_err(|error| RpcError::of(&error))
    }

    fn mac_del(&mut self, key: &MacKey) -> Result<Value, RpcError> {
        let segment = segment(key.vlan)?;
        let present = self
            .entries(&MacFilter { port: None, vlan: Some(key.vlan) })?
            .iter()
            .any(|entry| entry.mac == key.mac && entry.segment == segment);
        let mut state = self.state.clone();
        let kept = state.remove_mac(key.vlan, key.mac).is_ok();
        if !present && !kept {
            return Err(RpcError::refused(format!(
                "no entry of VLAN {} has the address \"{}\"",
                key.vlan, key.mac
            )));
        }
        self.save(&state)?;
        self.state = state;
        self.running.macs.remove(clock::now(), segment, key.mac);
        Ok(Value::Null)
    }

    fn mac_flush(&mut self, filter: &MacFilter) -> Result<Value, RpcError> {
        let learned = |entries: Vec<Entry>| entries.iter().filter(|e| e.state == EntryState::Learned).count();
        let flushed = learned(self.entries(filter)?);
        let macs = &self.running.macs;
        let port = filter.port.as_ref().map(|name| self.port_named(name)).transpose()?;
        match (port, filter.vlan) {
            (None, None) => macs.flush(),
            (Some(port), None) => macs.flush_port(port),
            (None, Some(vlan)) => macs.flush_segment(segment(vlan)?),
            (Some(port), Some(vlan)) => macs.flush_port_segment(port, segment(vlan)?),
        }
        Ok(json!({ "flushed": flushed }))
    }

    fn drops(&self, which: Drops) -> Result<Value, RpcError> {
        let total = self.counters()?;
        let names = self.names();
        let mut rows = Vec::new();
        for reason in DropReason::ALL {
            let at = |port: &PortId| total.port(*port).dropped[reason.index()];
            if which.by_port {
                let mut ports: Vec<_> = names.iter().map(|(id, name)| (name.as_str(), at(id))).collect();
                ports.sort_unstable();
                for (name, count) in ports.into_iter().filter(|(_, count)| which.all || *count > 0) {
                    rows.push(json!({ "reason": reason.name(), "port": name, "count": count }));
                }
                let nowhere = total.no_port[reason.index()];
                if nowhere > 0 {
                    rows.push(json!({ "reason": reason.name(), "port": null, "count": nowhere }));
                }
            } else {
                let count = total.no_port[reason.index()] + names.keys().map(at).sum::<u64>();
                if which.all || count > 0 {
                    rows.push(json!({ "reason": reason.name(), "count": count, "text": reason.text() }));
                }
            }
        }
        Ok(Value::Array(rows))
    }

    fn port_add(&mut self, asked: &PortSettings) -> Result<Value, RpcError> {
        let name = asked.name.as_str();
        self.cni.refuse_change(name)?;
        if active_file_ports(&self.file, &self.state, &self.node).any(|port| port.name == name) {
            return Err(RpcError::refused(format!(
                "port \"{name}\" is in {}; \"port set\" changes it, \"port del\" deletes it",
                self.path.as_deref().unwrap_or_else(|| Path::new("the file")).display()
            )));
        }
        let port =
            PortConfig::from_pairs(name, &pairs(&asked.settings), &self.file).map_err(RpcError::params)?;
        let mut state = self.state.clone();
        state.add_port(name, settings_of(&port)).map_err(|error| RpcError::refused(error.to_string()))?;
        self.change(state, &[name])?;
        Ok(Value::Null)
    }

    fn port_set(&mut self, asked: &PortSettings) -> Result<Value, RpcError> {
        let name = asked.name.as_str();
        self.cni.refuse_change(name)?;
        let Some(running) = self.running.ports.get(name) else {
            return Err(RpcError::refused(format!("no port \"{name}\"")));
        };
        let port =
            running.config.with_pairs(&pairs(&asked.settings), &self.file).map_err(RpcError::params)?;
        let mut state = self.state.clone();
        let statics: Vec<_> =
            state.macs().filter(|(_, _, at)| *at == name).map(|(vlan, mac, _)| (vlan, mac)).collect();
        let in_file = active_file_ports(&self.file, &self.state, &self.node).find(|port| port.name == name);
        if let Some(entry) = in_file {
            state.delete_file_port(name, &fingerprint(&entry.to_json()));
        } else {
            state.remove_port(name);
        }
        state.add_port(name, settings_of(&port)).map_err(|error| RpcError::refused(error.to_string()))?;
        statics.into_iter().for_each(|(vlan, mac)| state.add_mac(vlan, mac, name));
        self.change(state, &[name])?;
        Ok(Value::Null)
    }

    fn port_del(&mut self, name: &str) -> Result<Value, RpcError> {
        self.cni.refuse_change(name)?;
        // One that was added once and no longer fits the file does not run, and can be deleted all the same.
        if !self.running.ports.contains_key(name) && self.state.port(name).is_none() {
            return Err(RpcError::refused(format!("no port \"{name}\"")));
        }
        let mut state = self.state.clone();
        let in_file = active_file_ports(&self.file, &self.state, &self.node).find(|port| port.name == name);
        if let Some(entry) = in_file {
            state.delete_file_port(name, &fingerprint(&entry.to_json()));
        } else {
            state.remove_port(name);
        }
        self.change(state, &[])?;
        Ok(Value::Null)
    }
}

/// The port's own VLAN as the contract shows it: none for a trunk, 0 where nothing is said.
fn tag_of(config: &PortConfig) -> Option<u16> {
    match config.vlan_mode {
        VlanMode::Trunk => None,
        _ => Some(config.tag.unwrap_or(0)),
    }
}

/// `peer "name": reason`, or `cluster: reason`.
fn in_words(kind: &str, name: &str, reason: &str) -> String {
    if name.is_empty() { format!("{kind}: {reason}") } else { format!("{kind} \"{name}\": {reason}") }
}

fn segment(vlan: Vlan) -> Result<Segment, RpcError> {
    Segment::new(0, vlan).ok_or_else(|| RpcError::params("no such VLAN"))
}

fn add_counts(row: &mut Value, counters: &Counters, id: PortId) {
    let counts = counters.port(id);
    let Value::Object(row) = row else { return };
    let rx_dropped: u64 =
        DropReason::ALL.iter().filter(|r| r.is_ingress()).map(|r| counts.dropped[r.index()]).sum();
    let tx_dropped: u64 =
        DropReason::ALL.iter().filter(|r| !r.is_ingress()).map(|r| counts.dropped[r.index()]).sum();
    for (key, value) in [
        ("rx_frames", counts.rx_frames),
        ("rx_bytes", counts.rx_bytes),
        ("tx_frames", counts.tx_frames),
        ("tx_bytes", counts.tx_bytes),
        ("rx_dropped", rx_dropped),
        ("tx_dropped", tx_dropped),
    ] {
        row.insert(key.to_owned(), value.into());
    }
}

/// What the file would say of a port, without its name.
pub(super) fn settings_of(port: &PortConfig) -> Map<String, Value> {
    match port.to_json() {
        Value::Object(mut settings) => {
            settings.remove("name");
            settings
        }
        _ => Map::new(),
    }
}

/// Settings as KEY=VALUE: lists joined by commas, null as nothing.
fn pairs(settings: &Map<String, Value>) -> Vec<(String, String)> {
    fn text(value: &Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        }
    }
    settings.iter().map(|(key, value)| (key.clone(), text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_words_as_typed() {
        let settings = json!({"tag": 10, "trunks": [1, "5-9"], "netns": null});
        let Value::Object(settings) = settings else { panic!() };
        let mut all = pairs(&settings);
        all.sort();
        let expected = [("netns", ""), ("tag", "10"), ("trunks", "1,5-9")];
        assert_eq!(all, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
