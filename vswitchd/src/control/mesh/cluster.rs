//! This node's side of a cluster: one store, joined under one name.
//!
//! Not here: what is done with members and stations (see [`super::peers`] and [`super::stations`]).

use super::super::daemon::Control;
use super::super::source::etcd::{Etcd, StoreEvent};
use super::learned::Learned;
use crate::cluster::{
    Key, KeyRange, Keys, Members, NodeRecord, RecordError, StationRecord, Stations, SuspectRecord,
};
use crate::config;
use crate::ipam::Claims;
use crate::observe::log;
use crate::slow::PeerState;
use crossbeam_channel::{Receiver, bounded};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vswitch_core::{Instant, Mac, Vni};

/// Messages from the store that may wait for the control thread.
const EVENTS: usize = 64;

/// A cluster that this node has joined, or tries to.
pub(in super::super) struct Cluster {
    pub(super) config: config::Cluster,
    pub(super) keys: Keys,
    pub(super) etcd: Etcd,
    events: Receiver<Vec<StoreEvent>>,
    pub(super) members: Members,
    pub(super) stations: Stations,
    /// When this daemon began, in milliseconds since 1970.
    pub(super) boot: u64,
    /// Why the store does not answer; none while it does.
    away: Option<String>,
    /// What the store was last told of this node.
    told: Option<NodeRecord>,
    /// VNIs whose stations are watched.
    pub(super) watched: BTreeSet<Vni>,
    /// Stations that are here by configuration.
    pub(super) configured: BTreeMap<(Vni, Mac), super::stations::Configured>,
    /// Stations that are here because they spoke.
    pub(super) learned: Learned,
    /// Members that this node reports as silent.
    pub(super) suspected: BTreeSet<String>,
    /// Stations that were seen on two nodes at once, each in a sentence.
    pub(super) duplicates: BTreeMap<(Vni, Mac), (Instant, String)>,
    pub(super) next_refresh: Instant,
    /// Members that the store has lost, since when.
    lost: BTreeMap<String, Instant>,
    /// Stations that a frame has just put elsewhere than their claim does.
    pub(super) contested: BTreeSet<(Vni, Mac)>,
    /// Whose addresses are whose.
    pub(super) claims: Claims,
    /// Whether the store has said something new of them.
    pub(super) claims_changed: bool,
}

/// How long a station that was seen twice is remembered as such (RFC 7432 §15.1's M).
pub(super) const DUPLICATE_MEMORY: Duration = Duration::from_secs(180);

impl Cluster {
    /// Begins to follow the store of `config` as node `node`.
    pub(super) fn join(
        config: config::Cluster,
        node: &str,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Self, String> {
        if !crate::cluster::is_node_name(node) {
            return Err(format!(
                "node name {node:?} cannot stand in the store; letters, digits, '.', '_' and '-' are allowed"
            ));
        }
        let (sender, events) = bounded(EVENTS);
        let etcd = Etcd::start(&config, sender, wake).map_err(|error| error.to_string())?;
        let lease = Duration::from_secs(config.lease.into());
        let keys = Keys::new(&config.prefix);
        let boot = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let boot = u64::try_from(boot).unwrap_or(u64::MAX);
        let cluster = Self {
            members: Members::new(node, boot),
            stations: Stations::new(node, lease),
            keys,
            etcd,
            events,
            boot,
            away: Some("waiting for the store".to_owned()),
            told: None,
            watched: BTreeSet::new(),
            configured: BTreeMap::new(),
            learned: Learned::default(),
            suspected: BTreeSet::new(),
            duplicates: BTreeMap::new(),
            next_refresh: Instant::ZERO,
            lost: BTreeMap::new(),
            contested: BTreeSet::new(),
            claims: Claims::new(node),
            claims_changed: false,
            config,
        };
        cluster.watch();
        Ok(cluster)
    }

    /// Goes on by other means: what is known stays, and what this node said it says again.
    pub(super) fn reach_by(
        &mut self,
        config: config::Cluster,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<(), String> {
        let (sender, events) = bounded(EVENTS);
        // The old connection ends here, and its lease with it; what is written under the new one stays.
        self.etcd = Etcd::start(&config, sender, wake).map_err(|error| error.to_string())?;
        (self.events, self.config, self.told) = (events, config, None);
        self.away = Some("waiting for the store".to_owned());
        for (vni, mac, record) in self.stations.own() {
            self.etcd.put(self.keys.station(vni, mac, self.stations.name()), record.to_json());
        }
        for node in &self.suspected {
            let boot = self.members.get(node).map_or(0, |record| record.boot);
            self.etcd.put(self.keys.suspect(node, self.stations.name()), SuspectRecord { boot }.to_json());
        }
        self.watch();
        Ok(())
    }

    /// Lets go of members that the store has lost and that do not live; where nobody knows whether they do, after two
    /// leases. Whether there were any.
    pub(super) fn let_go(&mut self, now: Instant, states: &HashMap<&str, PeerState>) -> bool {
        let lost: BTreeMap<String, Instant> = self
            .members
            .iter()
            .filter(|(.., stale)| *stale)
            .map(|(name, ..)| (name.to_owned(), self.lost.get(name).copied().unwrap_or(now)))
            .collect();
        let patience = Duration::from_secs(self.config.lease.into()) * 2;
        let gone = self.members.missed(|name| match states.get(name) {
            Some(PeerState::Up) => true,
            Some(PeerState::Down) => false,
            Some(PeerState::Unknown) | None => {
                lost.get(name).is_some_and(|since| now.since(*since) < patience)
            }
        });
        self.lost = lost;
        gone.iter().for_each(|name| self.stations.node_gone(name));
        !gone.is_empty()
    }

    /// Why the store does not answer; `None` while it does.
    pub(in super::super) fn away(&self) -> Option<&str> {
        self.away.as_deref()
    }

    /// The prefix of its keys.
    pub(in super::super) fn prefix(&self) -> &str {
        &self.config.prefix
    }

    /// Other nodes that are members.
    pub(in super::super) fn members(&self) -> usize {
        self.members.iter().count()
    }

    /// Stations that are known, this node's own included.
    pub(in super::super) fn stations(&self) -> usize {
        self.stations.macs().count()
    }

    /// What is not as it should be, each a sentence.
    pub(super) fn troubles(&self) -> Vec<String> {
        let away = self.away.iter().map(|reason| format!("the store does not answer: {reason}"));
        let rival = self.members.rival().map(|rival| format!("another node uses this node's name: {rival}"));
        let ignored = [self.members.ignored(), self.stations.ignored()].into_iter().flatten();
        let ignored = ignored.map(|reason| format!("some records are ignored: {reason}"));
        away.chain(rival).chain(ignored).chain(self.claims.troubles()).collect()
    }

    /// Tells the source which keys matter.
    pub(super) fn watch(&self) {
        let mut ranges: Vec<KeyRange> =
            vec![self.keys.nodes_range(), self.keys.suspects_range(), self.keys.ipam_range()];
        ranges.extend(self.keys.station_ranges(&self.watched));
        self.etcd.watch(ranges);
    }

    /// Writes this node's own record, if it differs from what was written.
    pub(super) fn tell(&mut self, node: &str, record: NodeRecord) {
        if self.told.as_ref() == Some(&record) {
            return;
        }
        if record.addresses.is_empty() {
            // A node without a tunnel address is nobody's peer.
            self.etcd.delete(self.keys.node(node));
        } else {
            self.etcd.put(self.keys.node(node), record.to_json());
        }
        self.told = Some(record);
    }
}

impl Control {
    /// Takes what the store said; whether membership changed.
    pub(super) fn take_store(&mut self, now: Instant) -> bool {
        let Some(cluster) = &mut self.mesh.cluster else { return false };
        let mut members = false;
        let mut suspects = Vec::new();
        // No more than there was room for: a busy store must not keep clients and workers waiting. Of what comes
        // meanwhile this thread is woken again.
        for _ in 0..EVENTS {
            let Ok(events) = cluster.events.try_recv() else { break };
            for event in events {
                members |= cluster.take(now, &self.node, event, &mut suspects);
            }
        }
        for (name, boot) in suspects {
            let record = cluster.members.get(&name).filter(|record| record.boot == boot);
            let peer = record.and_then(|_| self.running.peers.values().find(|peer| peer.is_node(&name)));
            if let Some(peer) = peer {
                self.slow.suspect(peer.config.address);
            }
        }
        self.carry_out_stations(now);
        if self.mesh.cluster.as_mut().is_some_and(|cluster| std::mem::take(&mut cluster.claims_changed)) {
            self.follow_claims();
            self.mesh.claims_came = true;
        }
        members
    }
}

impl Cluster {
    fn take(
        &mut self,
        now: Instant,
        node: &str,
        event: StoreEvent,
        suspects: &mut Vec<(String, u64)>,
    ) -> bool {
        match event {
            StoreEvent::Up => {
                log::info("cluster store up", &[("prefix", &self.config.prefix)]);
                (self.away, self.claims_changed) = (None, true);
                false
            }
            StoreEvent::Down { reason } => {
                log::warn("cluster store down; what is known stays", &[("reason", &reason)]);
                self.away = Some(reason);
                false
            }
            StoreEvent::Listed { range, entries } => self.listed(now, node, &range, entries, suspects),
            StoreEvent::Put { key, value } => match self.keys.parse(&key) {
                Some(Key::Node(name)) => good(&key, NodeRecord::from_json(&value))
                    .is_some_and(|record| self.members.put(&name, record)),
                Some(Key::Station { vni, mac, node }) => {
                    if let Some(record) = good(&key, StationRecord::from_json(&value)) {
                        self.stations.put(now, vni, mac, &node, record);
                    }
                    false
                }
                Some(Key::Suspect { node: name, by }) => {
                    if let Some(record) = good(&key, SuspectRecord::from_json(&value))
                        && by != node
                    {
                        suspects.push((name, record.boot));
                    }
                    false
                }
                Some(claimed @ (Key::Block { .. } | Key::Address { .. })) => {
                    self.claimed(&key, claimed, &value);
                    false
                }
                None => false,
            },
            StoreEvent::Deleted { key } => match self.keys.parse(&key) {
                Some(Key::Node(name)) => {
                    self.members.deleted(&name);
                    // Whether it lives all the same is asked at once.
                    suspects.extend(self.members.get(&name).map(|record| (name.clone(), record.boot)));
                    false
                }
                Some(Key::Station { vni, mac, node }) => {
                    self.stations.deleted(now, vni, mac, &node);
                    false
                }
                Some(claimed @ (Key::Block { .. } | Key::Address { .. })) => {
                    self.unclaimed(claimed);
                    false
                }
                Some(Key::Suspect { .. }) | None => false,
            },
        }
    }

    fn listed(
        &mut self,
        now: Instant,
        node: &str,
        range: &KeyRange,
        entries: Vec<(String, Vec<u8>)>,
        suspects: &mut Vec<(String, u64)>,
    ) -> bool {
        if *range == self.keys.nodes_range() {
            let records = entries.into_iter().filter_map(|(key, value)| match self.keys.parse(&key)? {
                Key::Node(name) => Some((name, good(&key, NodeRecord::from_json(&value))?)),
                _ => None,
            });
            let records: Vec<_> = records.collect();
            let changed = self.members.listed(records);
            let missed = self.members.iter().filter(|(.., stale)| *stale);
            suspects.extend(missed.map(|(name, record, _)| (name.to_owned(), record.boot)));
            return changed;
        }
        if *range == self.keys.suspects_range() {
            return entries.into_iter().fold(false, |changed, (key, value)| {
                self.take(now, node, StoreEvent::Put { key, value }, suspects) | changed
            });
        }
        if *range == self.keys.ipam_range() {
            self.claims_listed(entries);
            return false;
        }
        if let Some(vnis) = self.keys.vnis_of(range) {
            let records = entries.into_iter().filter_map(|(key, value)| {
                let (place, node) = self.keys.parse(&key)?.into_claim()?;
                Some((place, node, good(&key, StationRecord::from_json(&value))?))
            });
            let records = records.collect();
            self.stations.listed(now, &vnis, records);
        }
        false
    }
}

/// A record that can be read; of one that cannot, the log tells now and then.
pub(super) fn good<T>(key: &str, record: Result<T, RecordError>) -> Option<T> {
    let complain = |error: &RecordError| {
        log::limited(
            log::Level::Warn,
            "record",
            "a record of the store is ignored",
            &[("key", &key), ("reason", error)],
        );
    };
    record.inspect_err(complain).ok()
}
