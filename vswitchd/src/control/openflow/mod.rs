//! OpenFlow 1.0 as ovs-ofctl speaks it: a flow table for each bridge of a database, and a socket to change it by.
//!
//! A thread of its own talks to the clients (see `server.rs`); the control thread answers. Not here: what the core
//! does with flows (see `vswitch_core::switch`).

mod answers;
pub mod codec;
mod ports;
pub mod server;
mod table;

pub use answers::{Facts, stats_reply};
pub use table::{
    Count, Flow, FlowAction, FlowCommand, FlowError, FlowMatch, FlowMod, FlowTable, FlowVlan, MAX_ACTIONS,
    MAX_FLOWS,
};

use super::daemon::Control;
use super::running::PublishError;
use super::unixctl::place::{self, Socket};
use crate::datapath::clock;
use crate::observe::log::{self, Level};
use codec::{Message, Refusal, Writer};
use crossbeam_channel::Receiver;
use server::{Asked, MAX_CLIENTS, Request, Serving};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::{Instant, PortId};

/// How soon a socket that cannot be had is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// How the control thread hears ovs-ofctl.
pub(super) struct Openflow {
    wake: Arc<dyn Fn() + Send + Sync>,
    /// There as soon as there is a bridge.
    serving: Option<(Serving, Receiver<Request>)>,
    /// By bridge.
    sockets: BTreeMap<String, Socket>,
    /// Bridges whose socket cannot be had.
    without: BTreeSet<String>,
    next_try: Instant,
    /// When flows should be looked at that have timeouts.
    next_look: Option<Instant>,
    /// What each port of a bridge had received when flows were last told.
    received: HashMap<PortId, Count>,
}

impl fmt::Debug for Openflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Openflow").field("sockets", &self.sockets).finish_non_exhaustive()
    }
}

impl Openflow {
    /// Nothing yet; `wake` will be called when there is something to answer.
    pub(super) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            wake,
            serving: None,
            sockets: BTreeMap::new(),
            without: BTreeSet::new(),
            next_try: Instant::ZERO,
            next_look: None,
            received: HashMap::new(),
        }
    }

    /// When [`Control::answer_openflow`] should be called although nobody asks.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let retry = (!self.without.is_empty()).then_some(self.next_try);
        [self.next_look, retry].into_iter().flatten().min()
    }

    /// Listens for `bridge`.
    fn open(&mut self, bridge: &str) -> anyhow::Result<()> {
        let directory = place::run_directory();
        place::make_directory(&directory)?;
        let socket = Socket::bind(&directory.join(format!("{bridge}.mgmt")))?;
        let listener = socket.listener.try_clone()?;
        if self.serving.is_none() {
            self.serving = Some(Serving::start(Arc::clone(&self.wake))?);
        }
        if let Some((serving, _)) = &self.serving {
            serving.open(bridge, listener, socket.owner);
        }
        self.sockets.insert(bridge.to_owned(), socket);
        Ok(())
    }
}

/// Logs what was refused: the error that the client gets has no room for words. By a vendor's messages ovs-ofctl finds
/// out what there is; it does without.
fn note_refusal(bridge: &str, refusal: Refusal) {
    let level = if refusal.is_of_vendor() { Level::Debug } else { Level::Info };
    log::limited(
        level,
        refusal.reason,
        "OpenFlow message refused",
        &[("bridge", &bridge), ("reason", &refusal.reason)],
    );
}

impl Control {
    /// Listens for the bridges that there are, and for no others.
    pub(super) fn follow_openflow(&mut self) {
        let (openflow, bridges) = (&mut self.openflow, &self.ovs.bridges);
        openflow.without.retain(|bridge| bridges.contains_key(bridge));
        let gone: Vec<String> =
            openflow.sockets.keys().filter(|bridge| !bridges.contains_key(*bridge)).cloned().collect();
        for bridge in gone {
            openflow.sockets.remove(&bridge);
            if let Some((serving, _)) = &openflow.serving {
                serving.close(&bridge);
            }
        }
        for bridge in bridges.keys() {
            if openflow.sockets.contains_key(bridge) {
                continue;
            }
            match openflow.open(bridge) {
                Ok(()) => drop(openflow.without.remove(bridge)),
                Err(error) if openflow.without.insert(bridge.clone()) => {
                    log::warn("ovs-ofctl finds nobody here", &[("bridge", bridge), ("reason", &error)]);
                }
                Err(_) => {}
            }
        }
        openflow.next_try = clock::now().after(RETRY);
    }

    /// Answers what ovs-ofctl asked since the last time, and removes flows whose time is over.
    pub(super) fn answer_openflow(&mut self) -> Result<(), PublishError> {
        let now = clock::now();
        if !self.openflow.without.is_empty() && self.openflow.next_try <= now {
            self.follow_openflow();
        }
        if self.openflow.next_look.is_some_and(|due| due <= now) {
            self.settle_flows();
            self.ovs.bridges.values_mut().for_each(|bridge| bridge.flows.expire(now));
        }
        self.publish_flows()?;
        // No more than one of each client: they must not keep signals and workers waiting.
        for _ in 0..MAX_CLIENTS {
            let Some((_, requests)) = &self.openflow.serving else { break };
            let Ok(request) = requests.try_recv() else { break };
            let mut writer = Writer::default();
            for asked in &request.messages {
                self.answer_message(&request.bridge, asked, &mut writer)?;
            }
            self.publish_flows()?;
            // A bridge that has gone meanwhile takes its connections along.
            request.reply.answer(writer.into_bytes());
        }
        let tables = self.ovs.bridges.values().map(|bridge| &bridge.flows);
        self.openflow.next_look = tables.filter_map(|table| table.next_due(clock::now())).min();
        Ok(())
    }

    fn answer_message(&mut self, name: &str, asked: &Asked, writer: &mut Writer) -> Result<(), PublishError> {
        let refused = match &asked.message {
            Message::FlowMod(flow_mod) => {
                let now = clock::now();
                let change = |control: &mut Self| {
                    let bridge = control.ovs.bridges.get_mut(name)?;
                    bridge.flows.change(flow_mod, now).err()
                };
                let refused = match change(self) {
                    Some(FlowError::Full) => {
                        // Numbers of flows that are gone are free again once the core has heard of it.
                        self.publish_flows()?;
                        change(self)
                    }
                    other => other,
                };
                refused.map(Refusal::from)
            }
            Message::PortMod(port_mod) => self.mod_port(name, port_mod).err(),
            Message::Stats(request) => {
                if answers::is_about_ports(request) {
                    let facts = self.port_facts(name);
                    if let Some(bridge) = self.ovs.bridges.get(name) {
                        stats_reply(request, asked.xid(), &bridge.flows, &facts, writer);
                    }
                } else {
                    self.publish_flows()?;
                    self.settle_flows();
                    let facts = Facts { now: clock::now(), ..Facts::default() };
                    if let Some(bridge) = self.ovs.bridges.get(name) {
                        stats_reply(request, asked.xid(), &bridge.flows, &facts, writer);
                    }
                }
                None
            }
            Message::Features => {
                let facts = self.port_facts(name);
                writer.features(asked.xid(), facts.datapath_id, &facts.ports);
                None
            }
            Message::Barrier => {
                self.publish_flows()?;
                writer.barrier(asked.xid());
                None
            }
            // The server answers these by itself.
            Message::Ignored
            | Message::Echo
            | Message::GetConfig
            | Message::SetConfig { .. }
            | Message::FlowModTableId(_)
            | Message::Queues(_) => None,
        };
        if let Some(refusal) = refused {
            note_refusal(name, refusal);
            writer.error(refusal, &asked.beginning);
        }
        Ok(())
    }

    /// Brings changed flows into force.
    fn publish_flows(&mut self) -> Result<(), PublishError> {
        if !self.ovs.bridges.values().any(|bridge| bridge.flows.is_changed()) {
            return Ok(());
        }
        self.settle_flows();
        self.publish()?;
        self.ovs.bridges.values_mut().for_each(|bridge| bridge.flows.published());
        Ok(())
    }

    /// Adds to the flows what was counted since the last time. A worker that is stuck is found elsewhere.
    pub(super) fn settle_flows(&mut self) {
        let Ok(counters) = self.counters() else { return };
        let mut by_bridge: BTreeMap<&str, Count> = BTreeMap::new();
        let mut received = HashMap::new();
        for port in self.running.ports.values() {
            let Some(bridge) = &port.config.bridge else { continue };
            let counts = counters.port(port.id);
            let count = Count { frames: counts.rx_frames, bytes: counts.rx_bytes };
            let before = self.openflow.received.get(&port.id).copied().unwrap_or_default();
            // The number may have been that of a port that is gone.
            let more = if count.frames < before.frames { count } else { count.since(before) };
            by_bridge.entry(bridge).or_default().add(more);
            received.insert(port.id, count);
        }
        self.openflow.received = received;
        let count_of = |id: u32| {
            let count = counters.rule(id);
            Count { frames: count.frames, bytes: count.bytes }
        };
        let now = clock::now();
        for (name, bridge) in &mut self.ovs.bridges {
            let all = by_bridge.get(name.as_str()).copied().unwrap_or_default();
            bridge.flows.settle(count_of, all, now);
        }
    }
}
