//! Answers to questions on the control socket: status, tables, trace, and changes at run time.
//!
//! Rows are flat objects with stable keys (the contract of `--json`). Not here: the protocol (see
//! [`super::rpc`]) and how a change is carried out (see [`super::apply`]).

use super::apply::{active_file_ports, is_waiting};
use super::daemon::{Control, bad_config};
use super::plan::{Desired, plan};
use super::rpc::{
    Call, Change, DiffLine, Drops, Failed, Finding, Health, MacAdd, MacFilter, MacKey, PortSettings,
    RpcError, Trace, TraceAnswer, TraceOutput,
};
use super::state::{State, fingerprint};
use crate::config::{Config, PortConfig, VlanMode};
use crate::datapath::clock;
use crate::observe::metrics;
use serde_json::{Map, Value, json};
use vswitch_core::mac_table::{Entry, EntryState};
use vswitch_core::switch::{Counters, Step, Worker};
use vswitch_core::{Arrival, DropReason, PortId, Segment, Verdict, Vlan};

pub(super) fn answer(control: &mut Control, call: &Call) -> Result<Value, RpcError> {
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
    }
}

impl Control {
    /// What all workers counted, and what was counted for ports that are gone.
    fn counters(&self) -> Result<Counters, RpcError> {
        let mut total = self.retired.clone();
        for snapshot in self.workers.snapshots().map_err(|error| RpcError::of(&error))? {
            total.add(&snapshot.counters);
        }
        Ok(total)
    }

    fn status(&self) -> Result<Value, RpcError> {
        let counters = self.counters()?;
        let running = &self.running;
        let up = running.ports.values().filter(|port| port.link.is_some()).count();
        let reasons = running.ports.iter().filter_map(|(name, port)| {
            port.reason.as_ref().map(|reason| format!("port \"{name}\": {reason}"))
        });
        let underlay = &running.underlay;
        let troubles: Vec<String> = reasons
            .chain(
                underlay.waiting.iter().chain(&underlay.failed).map(|reason| format!("underlay: {reason}")),
            )
            .collect();
        let warnings: Vec<String> = self
            .file
            .warnings
            .iter()
            .map(ToString::to_string)
            .chain(underlay.warnings.iter().cloned())
            .collect();
        let state = match (&self.file.underlay, underlay.waiting.is_empty(), underlay.failed.is_empty()) {
            (None, ..) => "none",
            (Some(_), _, false) => "failed",
            (Some(_), false, _) => "waiting",
            (Some(_), true, true) => "ready",
        };
        let addresses: Vec<String> = underlay.addresses().iter().map(ToString::to_string).collect();
        Ok(json!({
            "node": self.node,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_seconds": clock::now().since(self.started).as_secs(),
            "config": self.path,
            "state": self.file.control.state,
            "workers": self.workers.count(),
            "ports": running.ports.len(),
            "ports_up": up,
            "peers": running.peers.len(),
            "underlay": state,
            "underlay_addresses": addresses,
            "underlay_port": self.file.underlay.as_ref().map(|underlay| underlay.port),
            "tap_path": "basic",
            "underlay_path": "mmsg",
            "mac_entries": running.macs.len(),
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
            let mut row = json!({
                "name": name,
                "type": config.kind.as_str(),
                "vlan_mode": config.vlan_mode.as_str(),
                "tag": tag_of(config),
                "trunks": config.trunks,
                "cvlans": config.cvlans,
                "segment": tag_of(config).and_then(Vlan::new).map(|vlan| self.file.segment_name(vlan)),
                "netns": config.netns,
                "ifname": config.ifname.as_deref().unwrap_or(name),
                "mac": self.settings(config).mac.to_string(),
                "mtu": self.settings(config).mtu,
                "addresses": config.addresses.iter().map(|(a, len)| format!("{a}/{len}")).collect::<Vec<_>>(),
                "link": if port.link.is_some() { "up" } else { "down" },
                "reason": port.reason,
                "source": if self.state.port(name).is_some() { "runtime" } else { "file" },
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
                // Nobody asks peers yet, and traffic alone proves little.
                "state": if peer.link.is_some() { "unknown" } else { "down" },
                "mtu": peer.mtu,
                "vnis": peer.config.vnis.as_ref().map(|vnis| vnis.iter().map(|v| v.get()).collect::<Vec<_>>()),
                "mac_entries": self.running.macs.entries_of(peer.id),
            });
            add_counts(&mut row, &counters, peer.id);
            row
        });
        Ok(rows.collect())
    }

    /// Every segment that the file names or a port uses.
    fn segment_list(&self) -> Value {
        let used = self.running.ports.values().filter_map(|port| tag_of(&port.config)).filter_map(Vlan::new);
        let mut vlans: std::collections::BTreeSet<Vlan> = used.collect();
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
            let peers = self.running.peers.values().filter(|peer| shares(&peer.config.vnis)).count();
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

    fn port_named(&self, name: &str) -> Result<PortId, RpcError> {
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
            json!({
                "mac": entry.mac.to_string(),
                "segment": self.file.segment_name(vlan),
                "vlan": vlan.get(),
                "vni": self.file.vni_of(vlan).map(|vni| vni.get()),
                "port": (!is_peer).then(|| name.clone()).flatten(),
                "peer": is_peer.then_some(name).flatten(),
                "age_seconds": entry.age.as_secs(),
                "state": if entry.state == EntryState::Static { "static" } else { "learned" },
                "since_seconds": known.map(|station| now.since(station.since).as_secs()),
                "moves": known.map_or(0, |station| station.moves),
            })
        });
        Ok(rows.collect())
    }

    /// All names by number.
    fn names(&self) -> std::collections::HashMap<PortId, String> {
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
        let carried = topology.port(id).is_some_and(|port| match &port.attachment {
            vswitch_core::Attachment::Access(vlan) | vswitch_core::Attachment::Dot1qTunnel { vlan, .. } => {
                *vlan == entry.vlan
            }
            vswitch_core::Attachment::Trunk { vlans, .. } => vlans.contains(entry.vlan),
            vswitch_core::Attachment::Tunnel(_) => self.file.vni_of(entry.vlan).is_some(),
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

    fn trace(&self, asked: &Trace) -> Result<Value, RpcError> {
        let id = self.port_named(&asked.port)?;
        let names = self.names();
        let name = |id: PortId| names.get(&id).map_or_else(|| id.to_string(), |name| format!("\"{name}\""));
        let setup = &self.running.setup;
        let worker = Worker::new(setup.topology.clone(), self.running.macs.clone());
        let tunnel = setup.topology.port(id).and_then(|port| port.tunnel());
        let arrival = match tunnel {
            None => Arrival::Port(id),
            Some(tunnel) => {
                let local = self.running.underlay.addresses().into_iter().next().unwrap_or(tunnel.remote);
                Arrival::Underlay { local, remote: tunnel.remote, udp_port: tunnel.udp_port }
            }
        };
        let story = worker.explain(clock::now(), arrival, &asked.frame);
        let steps = story.steps.iter().map(|step| step.text(&name)).collect();
        let (verdict, reason) = match story.verdict {
            Verdict::To(_) => ("forward", None),
            Verdict::Flood(_) => ("flood", None),
            Verdict::Drop(reason) => ("drop", Some(reason.name().to_owned())),
            Verdict::Punt(_) => ("punt", Some(DropReason::TooBig.name().to_owned())),
        };
        let outputs = story.outputs.iter().map(|output| {
            let peer = setup.topology.port(output.port).is_some_and(|port| port.tunnel().is_some());
            let bytes = if peer { output.bytes.get(8..).unwrap_or_default() } else { &output.bytes };
            let vni = peer.then(|| output.bytes.get(4..7)).flatten();
            TraceOutput {
                port: (!peer).then(|| names.get(&output.port).cloned()).flatten(),
                peer: peer.then(|| names.get(&output.port).cloned()).flatten(),
                vni: vni.map(|v| u32::from_be_bytes([0, v[0], v[1], v[2]])),
                frame: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            }
        });
        let deciding = story.steps.iter().rev().find_map(|step| match step {
            Step::Dropped { port: Some(port), .. } | Step::Admitted { port, .. } => Some(*port),
            _ => None,
        });
        let decided_by = deciding.and_then(|id| self.place_of(&self.running.name_of(id)));
        Ok(json!(TraceAnswer {
            steps,
            verdict: verdict.to_owned(),
            reason,
            outputs: outputs.collect(),
            decided_by,
        }))
    }

    /// `file:line` of a port's or peer's entry.
    fn place_of(&self, name: &str) -> Option<String> {
        if self.state.port(name).is_some() {
            return Some(format!(
                "{} (port \"{name}\", added at run time)",
                self.file.control.state.display()
            ));
        }
        let places = &self.file.places;
        let place = places.port(name).or_else(|| places.peer(name.parse().ok()?))?;
        Some(format!("{}:{}", place.file, place.line))
    }

    fn port_add(&mut self, asked: &PortSettings) -> Result<Value, RpcError> {
        let name = asked.name.as_str();
        if active_file_ports(&self.file, &self.state, &self.node).any(|port| port.name == name) {
            return Err(RpcError::refused(format!(
                "port \"{name}\" is in {}; \"port set\" changes it, \"port del\" deletes it",
                self.path.display()
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

    fn diff(&self) -> Result<Value, RpcError> {
        let file = Config::load(&self.path).map_err(|errors| bad_config(&errors))?;
        let mut state = self.state.clone();
        state.forget(|name| {
            file.ports.iter().find(|port| port.name == name).map(|p| fingerprint(&p.to_json()))
        });
        let (desired, _) = self.desired(&file, &state);
        let running = self.running.as_desired();
        let steps = plan(&running, &desired);
        let mut lines: Vec<DiffLine> = Vec::new();
        let mut line = |change, kind: &str, name: String, what: String| {
            lines.push(DiffLine { change, kind: kind.to_owned(), name, what });
        };
        for name in steps.remove_ports {
            line(Change::Remove, "port", name, String::new());
        }
        for address in steps.remove_peers {
            line(Change::Remove, "peer", address.to_string(), String::new());
        }
        for (name, _) in steps.change_ports {
            let what = changed_keys(&running, &desired, &name);
            line(Change::Change, "port", name, what);
        }
        for address in steps.change_peers {
            line(Change::Change, "peer", address.to_string(), String::new());
        }
        for name in steps.add_ports {
            line(Change::Add, "port", name, String::new());
        }
        for address in steps.add_peers {
            line(Change::Add, "peer", address.to_string(), String::new());
        }
        for key in Config::restart_needed(&self.file, &file) {
            line(Change::Change, "setting", key.to_owned(), "needs a restart".to_owned());
        }
        if self.file.segments != file.segments {
            line(Change::Change, "setting", "[[segment]]".to_owned(), String::new());
        }
        if self.file.switch != file.switch {
            line(Change::Change, "setting", "[switch]".to_owned(), String::new());
        }
        if self.file.mac_table != file.mac_table {
            line(Change::Change, "setting", "[mac_table]".to_owned(), String::new());
        }
        if self.file.underlay != file.underlay {
            line(Change::Change, "setting", "[underlay]".to_owned(), String::new());
        }
        for (name, port) in &self.running.ports {
            if port.link.is_none() {
                line(Change::Add, "link", name.clone(), port.reason.clone().unwrap_or_default());
            }
        }
        Ok(json!(lines))
    }

    fn doctor(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |check: &str, state, what: String, remedy: Option<&str>| {
            let remedy = remedy.map(str::to_owned);
            findings.push(Finding { check: check.to_owned(), state, what, remedy });
        };
        match super::ports::tun_available() {
            Ok(()) => find("tun", Health::Good, "/dev/net/tun can be opened".to_owned(), None),
            Err(reason) => find("tun", Health::Bad, reason, None),
        }
        for (name, port) in &self.running.ports {
            match &port.reason {
                Some(reason) if port.link.is_some() => {
                    find(&format!("port {name}"), Health::Warning, reason.clone(), None);
                }
                Some(reason) if is_waiting(reason) => {
                    find(
                        &format!("port {name}"),
                        Health::Warning,
                        reason.clone(),
                        Some("create the namespace"),
                    );
                }
                Some(reason) => find(&format!("port {name}"), Health::Bad, reason.clone(), None),
                None => {}
            }
        }
        for reason in &self.running.underlay.waiting {
            find("underlay", Health::Warning, reason.clone(), Some("give the node that address"));
        }
        for reason in &self.running.underlay.failed {
            find("underlay", Health::Bad, reason.clone(), None);
        }
        for warning in self.file.warnings.iter().map(ToString::to_string) {
            find("configuration", Health::Warning, warning, None);
        }
        for Failed { kind, name, reason } in self.desired(&self.file, &self.state).1 {
            find(&format!("{kind} {name}"), Health::Bad, reason, None);
        }
        if findings.iter().all(|finding| finding.state == Health::Good) {
            find_all_good(&mut findings, self.running.ports.len(), self.running.peers.len());
        }
        findings
    }

    fn metrics(&self) -> Result<String, RpcError> {
        let snapshots = self.workers.snapshots().map_err(|error| RpcError::of(&error))?;
        let mut total = self.retired.clone();
        snapshots.iter().for_each(|snapshot| total.add(&snapshot.counters));
        let ports = self.running.ports.iter().map(|(name, port)| (name.clone(), port.id)).collect::<Vec<_>>();
        let peers = self
            .running
            .peers
            .iter()
            .map(|(address, peer)| (address.to_string(), peer.id))
            .collect::<Vec<_>>();
        let busy = snapshots.iter().map(|snapshot| snapshot.load.busy).collect::<Vec<_>>();
        Ok(metrics::open_metrics(&metrics::View {
            ports: &ports,
            peers: &peers,
            counters: &total,
            mac_entries: u64::from(self.running.macs.len()),
            busy: &busy,
        }))
    }
}

fn find_all_good(findings: &mut Vec<Finding>, ports: usize, peers: usize) {
    findings.push(Finding {
        check: "everything".to_owned(),
        state: Health::Good,
        what: format!("{ports} ports and {peers} peers are as the configuration says"),
        remedy: None,
    });
}

/// The port's own VLAN as the contract shows it: none for a trunk, 0 where nothing is said.
fn tag_of(config: &PortConfig) -> Option<u16> {
    match config.vlan_mode {
        VlanMode::Trunk => None,
        _ => Some(config.tag.unwrap_or(0)),
    }
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
fn settings_of(port: &PortConfig) -> Map<String, Value> {
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

fn changed_keys(running: &Desired, desired: &Desired, name: &str) -> String {
    let (Some(old), Some(new)) = (running.ports.get(name), desired.ports.get(name)) else {
        return String::new();
    };
    let (old, new) = (settings_of(old), settings_of(new));
    let mut keys: Vec<&String> =
        old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).collect();
    keys.sort();
    keys.dedup();
    let show = |value: Option<&Value>| value.map_or_else(|| "-".to_owned(), ToString::to_string);
    let changes = keys.iter().map(|key| format!("{key}: {} -> {}", show(old.get(*key)), show(new.get(*key))));
    changes.collect::<Vec<_>>().join(", ")
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
