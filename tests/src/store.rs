//! A node's side of the store under test: the etcd source, and what a reader of its events believes.
//!
//! Not here: etcd itself (`etcd.rs`), and what a test expects.

use crate::daemon::PATIENCE;
use crate::etcd::Etcd;
use crate::lab::Deadline;
use crossbeam_channel::{Receiver, bounded};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use vswitchd::cluster::KeyRange;
use vswitchd::config::Cluster;
use vswitchd::control::source::etcd::{Etcd as Source, StoreEvent};

/// A source with what it has told so far.
#[derive(Debug)]
pub struct Node {
    /// The handle under test.
    pub source: Source,
    /// What it has told and nobody has taken in yet.
    pub events: Receiver<Vec<StoreEvent>>,
    /// How often control was woken.
    pub woken: Arc<AtomicUsize>,
    /// What there is, as a reader of the events believes.
    pub seen: BTreeMap<String, Vec<u8>>,
    /// Every event so far.
    pub log: Vec<StoreEvent>,
}

/// How a node is told where `etcd` is.
#[must_use]
pub fn config(etcd: &Etcd) -> Cluster {
    config_of(vec![etcd.url()])
}

/// How a node is told of these endpoints.
#[must_use]
pub fn config_of(endpoints: Vec<String>) -> Cluster {
    Cluster {
        etcd: endpoints,
        prefix: "/t".to_owned(),
        lease: 10,
        cacert: None,
        cert: None,
        key: None,
        user: None,
        password: None,
        password_file: None,
    }
}

/// All keys below `prefix`.
#[must_use]
pub fn under(prefix: &str) -> KeyRange {
    KeyRange { from: format!("{prefix}/"), to: format!("{prefix}0") }
}

impl Node {
    /// One that watches nothing.
    ///
    /// # Panics
    /// When the source does not start.
    #[must_use]
    pub fn start(config: &Cluster) -> Self {
        Self::start_with(config, 64, &[])
    }

    /// One whose channel has that much room, watching these prefixes.
    ///
    /// # Panics
    /// When the source does not start.
    #[must_use]
    pub fn start_with(config: &Cluster, room: usize, prefixes: &[&str]) -> Self {
        let (sender, events) = bounded(room);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let source = Source::start(config, sender, wake).expect("the configuration is right");
        source.watch(prefixes.iter().map(|prefix| under(prefix)).collect());
        Self { source, events, woken, seen: BTreeMap::new(), log: Vec::new() }
    }

    /// One that watches these prefixes, from its beginning on.
    ///
    /// # Panics
    /// When the source does not start.
    #[must_use]
    pub fn watching(config: &Cluster, prefixes: &[&str]) -> Self {
        Self::start_with(config, 64, prefixes)
    }

    /// Wants a text at a key.
    pub fn put(&self, key: &str, value: &str) {
        self.source.put(key.to_owned(), value.into());
    }

    /// Takes in events until `found` likes one; returns it.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn until(&mut self, what: &str, found: impl Fn(&StoreEvent) -> bool) -> StoreEvent {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let left = deadline.left().unwrap_or_default();
            let batch = self.events.recv_timeout(left);
            let batch = batch.unwrap_or_else(|_| {
                let told: String = format!("{:?}", self.log).chars().take(4000).collect();
                panic!("never {what}; but {told}")
            });
            let hit = batch.iter().find(|event| found(event)).cloned();
            for event in batch {
                self.believe(event);
            }
            if let Some(hit) = hit {
                return hit;
            }
        }
    }

    fn believe(&mut self, event: StoreEvent) {
        match &event {
            StoreEvent::Listed { range, entries } => {
                self.seen.retain(|key, _| *key < range.from || *key >= range.to);
                self.seen.extend(entries.iter().cloned());
            }
            StoreEvent::Put { key, value } => {
                self.seen.insert(key.clone(), value.clone());
            }
            StoreEvent::Deleted { key } => {
                self.seen.remove(key);
            }
            StoreEvent::Up | StoreEvent::Down { .. } => {}
        }
        self.log.push(event);
    }

    /// Waits until the store is up.
    ///
    /// # Panics
    /// When that does not come in time.
    pub fn until_up(&mut self) {
        self.until("up", |event| *event == StoreEvent::Up);
    }

    /// Waits until it is down; says why.
    ///
    /// # Panics
    /// When that does not come in time.
    pub fn until_down(&mut self) -> String {
        match self.until("down", |event| matches!(event, StoreEvent::Down { .. })) {
            StoreEvent::Down { reason } => reason,
            other => unreachable!("{other:?} is no outage"),
        }
    }

    /// Waits until a key is told to have this value.
    ///
    /// # Panics
    /// When that does not come in time.
    pub fn until_put(&mut self, wanted: &str, as_value: &str) {
        self.until(&format!("{wanted} = {as_value}"), |event| {
            matches!(event, StoreEvent::Put { key, value } if key == wanted && value == as_value.as_bytes())
        });
    }

    /// Waits until a key is told to be gone.
    ///
    /// # Panics
    /// When that does not come in time.
    pub fn until_deleted(&mut self, wanted: &str) {
        self.until(
            &format!("{wanted} deleted"),
            |event| matches!(event, StoreEvent::Deleted { key } if key == wanted),
        );
    }

    /// How many lists there were.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.log.iter().filter(|event| matches!(event, StoreEvent::Listed { .. })).count()
    }

    /// How many outages there were.
    #[must_use]
    pub fn downs(&self) -> usize {
        self.log.iter().filter(|event| matches!(event, StoreEvent::Down { .. })).count()
    }

    /// The keys that there are, as far as was told.
    #[must_use]
    pub fn keys(&self) -> Vec<&str> {
        self.seen.keys().map(String::as_str).collect()
    }
}
