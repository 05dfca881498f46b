//! Answers that look behind the tables: trace, diff, doctor, metrics. None of them changes anything.
//!
//! Not here: the tables themselves and changes at run time (see [`super::answers`]).

use super::answers::{settings_of, tap_path};
use super::apply::is_waiting;
use super::daemon::Control;
use super::plan::{Desired, plan};
use super::ports::tun_available;
use super::rpc::{Change, DiffLine, Failed, Finding, Health, RpcError, Trace, TraceAnswer, TraceOutput};
use super::running::RunningPort;
use super::state::fingerprint;
use crate::config::Config;
use crate::datapath::clock;
use crate::observe::metrics;
use crate::slow::PeerState;
use serde_json::{Value, json};
use vswitch_core::switch::{Step, Worker};
use vswitch_core::{Arrival, PortId, Verdict};

impl Control {
    pub(super) fn trace(&self, asked: &Trace) -> Result<Value, RpcError> {
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
            Verdict::Punt(why) => ("punt", Some(why.name().to_owned())),
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
        if self.cni.has(name) {
            return Some(format!("the network configuration of CNI (port \"{name}\")"));
        }
        let places = &self.file.places;
        let place = places.port(name).or_else(|| places.peer(name.parse().ok()?))?;
        Some(format!("{}:{}", place.file, place.line))
    }

    pub(super) fn diff(&self) -> Result<Value, RpcError> {
        let file = self.load()?;
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
        if self.file.probe != file.probe {
            line(Change::Change, "setting", "[mesh] probe".to_owned(), String::new());
        }
        if self.file.cluster != file.cluster {
            line(Change::Change, "setting", "[cluster]".to_owned(), String::new());
        }
        if self.file.underlay != file.underlay {
            line(Change::Change, "setting", "[underlay]".to_owned(), String::new());
        }
        for (name, port) in &self.running.ports {
            if !port.is_up() {
                line(Change::Add, "link", name.clone(), port.reason.clone().unwrap_or_default());
            }
        }
        Ok(json!(lines))
    }

    pub(super) fn doctor(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |check: &str, state, what: String, remedy: Option<&str>| {
            let remedy = remedy.map(str::to_owned);
            findings.push(Finding { check: check.to_owned(), state, what, remedy });
        };
        match tun_available() {
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
        let wanted = |port: &&RunningPort| port.config.offload == Some(true);
        let slow = self.running.ports.iter().filter(|(_, port)| wanted(port));
        for (name, path) in slow.filter_map(|(name, port)| Some((name, tap_path(port)?))) {
            if !path.contains("tso uso") {
                let what = format!("the kernel does not do every offload on this tap, only: {path}");
                find(&format!("port {name}"), Health::Warning, what, None);
            }
        }
        let path = self.running.underlay.path();
        if self.file.datapath.offload && path != "none" && !path.contains("udp_segment udp_gro") {
            let what = format!("the kernel does not do trains both ways on the underlay, only: {path}");
            let remedy = "use Linux 5.0 or later, and leave checksum offload of the underlay's interface on";
            find("underlay", Health::Warning, what, Some(remedy));
        }
        for reason in &self.running.underlay.waiting {
            find("underlay", Health::Warning, reason.clone(), Some("give the node that address"));
        }
        for reason in &self.running.underlay.failed {
            find("underlay", Health::Bad, reason.clone(), None);
        }
        if let Some(reason) = &self.cni.nat.trouble {
            find("gateway", Health::Bad, reason.clone(), None);
        }
        if let Some(reason) = self.keeper.trouble() {
            let remedy = "start vswitchd keeper: until it is back, interfaces end with the daemon";
            find("keeper", Health::Warning, reason, Some(remedy));
        }
        for warning in self.file.warnings.iter().map(ToString::to_string) {
            find("configuration", Health::Warning, warning, None);
        }
        for (kind, name, reason) in self.mesh.troubles() {
            find(format!("{kind} {name}").trim_end(), Health::Warning, reason, None);
        }
        for sentence in self.mesh.duplicates() {
            let remedy = "give one of the two another MAC address";
            find("station", Health::Warning, sentence.to_owned(), Some(remedy));
        }
        for (address, peer) in &self.running.peers {
            let check = format!("peer {address}");
            if peer.state == PeerState::Down {
                let remedy = "see whether that node and the way to it are up";
                find(&check, Health::Warning, "does not answer probes".to_owned(), Some(remedy));
            } else if peer.mtu() < peer.limit {
                let what = format!("the path carries {} bytes, the interfaces {}", peer.mtu(), peer.limit);
                let remedy = "raise the MTU on the way, or set [underlay] mtu to what it carries";
                find(&check, Health::Warning, what, Some(remedy));
            }
        }
        for Failed { kind, name, reason } in self.desired(&self.file, &self.state).1 {
            find(&format!("{kind} {name}"), Health::Bad, reason, None);
        }
        if findings.iter().all(|finding| finding.state == Health::Good) {
            find_all_good(&mut findings, self.running.ports.len(), self.running.peers.len());
        }
        findings
    }

    pub(super) fn metrics(&self) -> Result<String, RpcError> {
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
        let peers_up = self
            .running
            .peers
            .iter()
            .map(|(a, peer)| (a.to_string(), peer.link.is_some() && peer.state != PeerState::Down))
            .collect::<Vec<_>>();
        let busy = snapshots.iter().map(|snapshot| snapshot.load.busy).collect::<Vec<_>>();
        Ok(metrics::open_metrics(&metrics::View {
            ports: &ports,
            peers: &peers,
            peers_up: &peers_up,
            attachments: self.cni.counts(),
            counters: &total,
            mac_entries: self.mac_entries(),
            slow: &self.slow.counters().read(),
            cluster_up: self.mesh.cluster.as_ref().map(|cluster| cluster.away().is_none()),
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
