//! A store as etcd is one: keys under leases, revisions, a log that is compacted; and what one node wants of it.
//!
//! Not here: when it fails.

use super::LEASE;
use std::collections::{BTreeMap, BTreeSet};
use vswitch_core::Instant;
use vswitchd::cluster::KeyRange;

/// What stands in the store, and what happened there.
#[derive(Default)]
pub(super) struct Store {
    pub(super) revision: u64,
    pub(super) keys: BTreeMap<String, (Vec<u8>, u64)>,
    pub(super) log: Vec<(u64, String, Option<Vec<u8>>)>,
    pub(super) compacted: u64,
    pub(super) leases: BTreeMap<u64, Instant>,
    pub(super) last_lease: u64,
    pub(super) away: bool,
    /// Counts how often it lost everything.
    pub(super) life: u32,
}

impl Store {
    pub(super) fn write(&mut self, key: &str, value: Option<Vec<u8>>, lease: u64) {
        if value.is_none() && !self.keys.contains_key(key) {
            return;
        }
        self.revision += 1;
        self.log.push((self.revision, key.to_owned(), value.clone()));
        match value {
            Some(value) => drop(self.keys.insert(key.to_owned(), (value, lease))),
            None => drop(self.keys.remove(key)),
        }
    }

    pub(super) fn grant(&mut self, now: Instant) -> u64 {
        self.last_lease += 1;
        self.leases.insert(self.last_lease, now.after(LEASE));
        self.last_lease
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if self.away {
            // As etcd does it: who comes back may need as long as the lease to say so.
            self.leases.values_mut().for_each(|end| *end = now.after(LEASE));
            return;
        }
        let over: Vec<u64> = self.leases.iter().filter(|(_, end)| **end <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.leases.remove(&id);
            let of_it = self.keys.iter().filter(|(_, (_, lease))| *lease == id);
            for key in of_it.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                self.write(&key, None, 0);
            }
        }
    }

    pub(super) fn lose_everything(&mut self) {
        let life = self.life + 1;
        *self = Self { life, last_lease: self.last_lease, ..Self::default() };
    }
}

/// What one node wants of the store, as the daemon's source keeps it.
#[derive(Default)]
pub(super) struct Client {
    pub(super) wanted: BTreeMap<String, Option<Vec<u8>>>,
    pub(super) unwritten: BTreeSet<String>,
    pub(super) lease: Option<u64>,
    /// The store's life that the session is with.
    pub(super) session: Option<u32>,
    /// Ranges that are watched, each from a revision on.
    pub(super) watched: BTreeMap<KeyRange, u64>,
}

impl Client {
    pub(super) fn want(&mut self, key: String, value: Option<Vec<u8>>) {
        self.unwritten.insert(key.clone());
        self.wanted.insert(key, value);
    }

    pub(super) fn missing(&mut self, key: &str) {
        if matches!(self.wanted.get(key), Some(Some(_))) {
            self.unwritten.insert(key.to_owned());
        }
    }
}

/// What the store says.
pub(super) enum Said<'a> {
    Listed(KeyRange, Vec<(&'a str, &'a [u8])>),
    Put(&'a str, &'a [u8]),
    Deleted(&'a str),
}
