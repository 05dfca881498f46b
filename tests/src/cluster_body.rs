//! The body of the properties of a cluster's room: whatever stands in the store, and whatever happens here, one node
//! writes only what is its own, and what it believes is what a naive model of all claims says. Property tests and fuzz
//! targets feed it bytes.
//!
//! Not here: several nodes together (see `tests/tests/cluster_sim.rs`), and the store.

use crate::offload_body::Choices;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::{Instant, Mac, Vni};
use vswitchd::cluster::{
    AddressRecord, BlockRecord, Change, Key, KeyRange, Keys, MAX_ADDRESSES, Members, NodeRecord,
    StationRecord, Stations, SuspectRecord, VniRanges,
};

/// This node.
const ME: &str = "me";
/// All of them, and one whose name no node can have.
const NAMES: [&str; 5] = ["a", ME, "n-1", "z", "a b"];
const LEASE: Duration = Duration::from_secs(10);
/// How long a claim that was deleted is kept.
const SECOND_THOUGHT: Duration = Duration::from_millis(500);
/// When this node began.
const BOOT: u64 = 5;

type Place = (Vni, Mac);

/// The number of a segment.
fn vni(choice: u8) -> Vni {
    Vni::new(10 + u32::from(choice % 3)).expect("small")
}

fn mac(choice: u8) -> Mac {
    Mac::from_u64(0x0200_0000_0000 + u64::from(choice % 4))
}

fn ip(choice: u8) -> IpAddr {
    let last = choice % 4;
    match choice % 16 {
        0..=6 => [10, 0, 0, last].into(),
        7..=12 => [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into(),
        13 => [224, 0, 0, last].into(),
        14 => [255; 4].into(),
        _ => IpAddr::from([0; 16]),
    }
}

fn some_ips(choices: &mut Choices<'_>) -> Vec<IpAddr> {
    let count = choices.byte() % 4;
    (0..count).map(|_| ip(choices.byte())).collect()
}

/// Whatever is there, as a value: often a record, sometimes a changed one, sometimes anything.
fn value(choices: &mut Choices<'_>, text: String) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    match choices.byte() % 8 {
        0 => {
            let len = usize::from(choices.byte());
            choices.bytes(len)
        }
        1 => {
            let (at, byte) = (usize::from(choices.byte()) % bytes.len(), choices.byte());
            bytes[at] = byte;
            bytes
        }
        _ => bytes,
    }
}

fn sequence(choices: &mut Choices<'_>) -> u64 {
    match choices.byte() {
        255 => u64::MAX,
        254 => u64::MAX / 2,
        253 => u64::MAX / 2 - 1,
        small => u64::from(small % 12),
    }
}

fn station_value(choices: &mut Choices<'_>) -> Vec<u8> {
    let record = StationRecord { ips: some_ips(choices), sequence: sequence(choices), port: "p".to_owned() };
    let text = String::from_utf8(record.to_json()).expect("JSON");
    value(choices, text)
}

fn node_value(choices: &mut Choices<'_>) -> Vec<u8> {
    let record = NodeRecord {
        addresses: some_ips(choices),
        udp_port: choices.word(),
        mtu: choices.word(),
        boot: u64::from(choices.byte() % 8),
        version: String::new(),
        vnis: (0..choices.byte() % 4).map(vni).collect::<VniRanges>(),
    };
    let text = String::from_utf8(record.to_json()).expect("JSON");
    value(choices, text)
}

#[derive(Clone, Debug)]
struct Claim {
    record: StationRecord,
    doomed: Option<Instant>,
}

/// One node, and what it ought to believe.
struct Scene {
    keys: Keys,
    now: Instant,
    members: Members,
    stations: Stations,
    /// Members by name, and whether the store has them.
    nodes: BTreeMap<String, (NodeRecord, bool)>,
    claims: BTreeMap<(Place, String), Claim>,
    local: BTreeSet<Place>,
    rival: bool,
}

impl Scene {
    fn new() -> Self {
        Self {
            keys: Keys::new("/v/c"),
            now: Instant::from_secs(1),
            members: Members::new(ME, BOOT),
            stations: Stations::new(ME, LEASE),
            nodes: BTreeMap::new(),
            claims: BTreeMap::new(),
            local: BTreeSet::new(),
            rival: false,
        }
    }

    /// Any key: mostly one that means something.
    fn key(&self, choices: &mut Choices<'_>) -> String {
        let name = NAMES[usize::from(choices.byte()) % NAMES.len()];
        match choices.byte() % 16 {
            0..=3 => self.keys.node(name),
            4 => self.keys.suspect(name, NAMES[usize::from(choices.byte()) % NAMES.len()]),
            5 => {
                let len = usize::from(choices.byte() % 64);
                format!("/v/c/v1/{}", String::from_utf8_lossy(&choices.bytes(len)))
            }
            6 => self.keys.address(name, ip(choices.byte())),
            7 => self.keys.block(name, ip(choices.byte()), choices.byte()),
            _ => self.keys.station(vni(choices.byte()), mac(choices.byte()), name),
        }
    }

    /// What is read is written as it was read.
    fn parse(&self, key: &str) -> Option<Key> {
        let parsed = self.keys.parse(key)?;
        let again = match &parsed {
            Key::Node(name) => self.keys.node(name),
            Key::Station { vni, mac, node } => self.keys.station(*vni, *mac, node),
            Key::Suspect { node, by } => self.keys.suspect(node, by),
            Key::Block { network, first, len } => self.keys.block(network, *first, *len),
            Key::Address { network, address } => self.keys.address(network, *address),
        };
        assert_eq!(key, again, "one thing, one key");
        Some(parsed)
    }

    fn station_record(bytes: &[u8]) -> Option<StationRecord> {
        let record = StationRecord::from_json(bytes).ok()?;
        assert!(record.ips.len() <= MAX_ADDRESSES && record.sequence > 0);
        assert_eq!(StationRecord::from_json(&record.to_json()).as_ref(), Ok(&record));
        Some(record)
    }

    fn node_record(bytes: &[u8]) -> Option<NodeRecord> {
        let record = NodeRecord::from_json(bytes).ok()?;
        assert!(matches!(record.addresses.len(), 1 | 2) && record.udp_port > 0 && record.mtu >= 576);
        assert_eq!(NodeRecord::from_json(&record.to_json()).as_ref(), Ok(&record));
        Some(record)
    }

    fn put(&mut self, key: &str, value: &[u8]) {
        match self.parse(key) {
            Some(Key::Node(name)) => {
                if let Some(record) = Self::node_record(value) {
                    self.members.put(&name, record.clone());
                    self.note_node(name, record);
                }
            }
            Some(Key::Station { vni, mac, node }) => {
                if let Some(record) = Self::station_record(value) {
                    self.stations.put(self.now, vni, mac, &node, record.clone());
                    self.note_claim((vni, mac), node, record);
                }
            }
            Some(Key::Suspect { .. }) => drop(SuspectRecord::from_json(value)),
            Some(Key::Block { .. }) => drop(BlockRecord::from_json(value)),
            Some(Key::Address { .. }) => drop(AddressRecord::from_json(value)),
            None => {}
        }
    }

    fn note_node(&mut self, name: String, record: NodeRecord) {
        if name == ME {
            self.rival = record.boot > BOOT;
        } else {
            self.nodes.insert(name, (record, true));
        }
    }

    fn note_claim(&mut self, place: Place, node: String, record: StationRecord) {
        if node != ME {
            self.claims.insert((place, node), Claim { record, doomed: None });
        }
    }

    fn deleted(&mut self, key: &str) {
        match self.parse(key) {
            Some(Key::Node(name)) => {
                self.members.deleted(&name);
                self.rival &= name != ME;
                self.nodes.entry(name).and_modify(|node| node.1 = false);
            }
            Some(Key::Station { vni, mac, node }) => {
                self.stations.deleted(self.now, vni, mac, &node);
                let at = self.now.after(SECOND_THOUGHT);
                self.doom(&((vni, mac), node), at);
            }
            Some(Key::Suspect { .. } | Key::Block { .. } | Key::Address { .. }) | None => {}
        }
    }

    fn doom(&mut self, claim: &(Place, String), at: Instant) {
        if let Some(claim) = self.claims.get_mut(claim).filter(|_| claim.1 != ME) {
            claim.doomed = Some(claim.doomed.map_or(at, |then| then.min(at)));
        }
    }

    fn listed(&mut self, range: &KeyRange, entries: &[(String, Vec<u8>)]) {
        let now = self.now;
        if *range == self.keys.nodes_range() {
            let read = entries.iter().filter_map(|(key, value)| match self.parse(key)? {
                Key::Node(name) => Some((name, Self::node_record(value)?)),
                _ => None,
            });
            let records: Vec<(String, NodeRecord)> = read.collect();
            self.members.listed(records.clone());
            self.nodes.values_mut().for_each(|node| node.1 = false);
            records.into_iter().for_each(|(name, record)| self.note_node(name, record));
        } else if let Some(vnis) = self.keys.vnis_of(range) {
            let read = entries.iter().filter_map(|(key, value)| {
                let (place, node) = self.parse(key)?.into_claim()?;
                Some((place, node, Self::station_record(value)?))
            });
            let records: Vec<_> = read.collect();
            self.stations.listed(now, &vnis, records.clone());
            let mut there = BTreeSet::new();
            for (place, node, record) in records.into_iter().filter(|(place, ..)| vnis.contains(&place.0)) {
                there.insert((place, node.clone()));
                self.note_claim(place, node, record);
            }
            let missing: Vec<_> =
                self.claims.keys().filter(|claim| !there.contains(claim)).cloned().collect();
            for claim in missing.into_iter().filter(|((vni, _), _)| vnis.contains(vni)) {
                self.doom(&claim, now.after(LEASE * 2));
            }
        }
    }

    fn due(&mut self) {
        let now = self.now;
        let members = &self.members;
        self.stations.due(now, |node| members.is_lost(node));
        let nodes = &self.nodes;
        self.claims.retain(|(_, node), claim| {
            if claim.doomed.is_some_and(|at| at <= now) {
                claim.doomed = Some(now.after(LEASE));
                return nodes.get(node).is_some_and(|(_, listed)| !listed);
            }
            true
        });
    }

    fn missed(&mut self, lives: &str) {
        let gone = self.members.missed(|name| name == lives);
        let expected: Vec<String> = self
            .nodes
            .iter()
            .filter(|(name, node)| !node.1 && *name != lives)
            .map(|(name, _)| name.clone())
            .collect();
        assert_eq!(gone, expected);
        for name in gone {
            self.nodes.remove(&name);
            self.stations.node_gone(&name);
            self.claims.retain(|(_, node), _| *node != name);
        }
    }

    /// Takes what this node wants written: its own, nothing else.
    fn drain(&mut self) {
        for change in self.stations.drain() {
            match change {
                Change::Claim { vni, mac, record } => {
                    assert!(self.local.contains(&(vni, mac)), "a claim to what is not here");
                    assert_eq!(StationRecord::from_json(&record.to_json()).as_ref(), Ok(&record));
                    self.claims.insert(((vni, mac), ME.to_owned()), Claim { record, doomed: None });
                }
                Change::Withdraw { vni, mac } => {
                    self.claims.remove(&((vni, mac), ME.to_owned()));
                }
                Change::Duplicate { vni, mac, there, .. } => {
                    assert!(self.local.contains(&(vni, mac)) && there != ME);
                }
                Change::Station { .. } | Change::Address { .. } => {}
            }
        }
    }

    /// The claim that wins, by looking at all.
    fn winner(&self, place: Place) -> Option<(&str, &Claim)> {
        let rank = |name: &str, claim: &Claim| {
            (claim.doomed.is_none(), claim.record.sequence, Reverse(name.to_owned()))
        };
        let of_place = self.claims.iter().filter(|((of, _), _)| *of == place);
        of_place
            .map(|((_, name), claim)| (name.as_str(), claim))
            .max_by_key(|(name, claim)| rank(name, claim))
    }

    fn check(&mut self) {
        self.drain();
        let places: BTreeSet<Place> = self.claims.keys().map(|(place, _)| *place).collect();
        assert_eq!(self.stations.macs().collect::<BTreeSet<_>>(), places);
        let mut ips = BTreeSet::new();
        for place in (0..12).map(|n| (vni(n / 4), mac(n % 4))) {
            let got = self.stations.get(place.0, place.1);
            let expected = self.winner(place);
            let got = got.map(|(at, ips)| (at.node, at.sequence, ips));
            assert_eq!(
                got,
                expected.map(|(name, claim)| (name, claim.record.sequence, &claim.record.ips[..])),
                "{place:?}"
            );
            let own = self.claims.contains_key(&(place, ME.to_owned()));
            assert!(!own || expected.is_some_and(|(name, _)| name == ME), "{place:?}: a losing claim stands");
            assert!(!own || self.local.contains(&place), "{place:?}: claimed and not here");
            let nobody = self.local.contains(&place) && expected.is_none();
            assert!(!nobody, "{place:?} is here, and nobody claims it");
        }
        for ((place, _), claim) in &self.claims {
            ips.extend(claim.record.ips.iter().map(|ip| (place.0, *ip)));
        }
        assert_eq!(self.stations.addresses().collect::<BTreeSet<_>>(), ips);
        for (vni, ip) in ips {
            let owners = places.iter().filter(|place| place.0 == vni).filter_map(|place| {
                let (_, claim) = self.winner(*place).filter(|(_, claim)| claim.record.ips.contains(&ip))?;
                Some((claim.doomed.is_none(), claim.record.sequence, Reverse(place.1)))
            });
            assert_eq!(self.stations.address(vni, ip), owners.max().map(|(.., mac)| mac.0), "{ip}");
        }
        let members: Vec<_> =
            self.members.iter().map(|(name, record, stale)| (name, record, !stale)).collect();
        let expected: Vec<_> =
            self.nodes.iter().map(|(name, (record, listed))| (name.as_str(), record, *listed)).collect();
        assert_eq!(members, expected);
        assert_eq!(self.members.rival().is_some(), self.rival);
    }

    /// Takes everything back: nothing may be left.
    fn end(mut self) {
        for (vni, mac) in std::mem::take(&mut self.local) {
            self.stations.local_gone(vni, mac);
        }
        for name in NAMES.iter().filter(|name| **name != ME) {
            self.stations.node_gone(name);
        }
        self.now = self.now.after(LEASE * 100);
        self.stations.due(self.now, |_| false);
        let left = (self.stations.macs().len(), self.stations.addresses().count(), self.stations.next_due());
        assert_eq!(left, (0, 0, None));
        self.members.listed(Vec::new());
        self.members.missed(|_| false);
        assert_eq!(self.members.iter().count(), 0);
    }
}

/// Each few bytes are something that happens.
///
/// # Panics
/// When a property does not hold.
pub fn cluster_body(data: &[u8]) {
    let choices = &mut Choices::new(data);
    let mut scene = Scene::new();
    for _ in 0..data.len().min(2000) / 4 {
        let what = choices.byte();
        match what % 16 {
            0..=4 => {
                let key = scene.key(choices);
                let value = match scene.keys.parse(&key) {
                    Some(Key::Node(_)) => node_value(choices),
                    _ => station_value(choices),
                };
                scene.put(&key, &value);
            }
            5 | 6 => {
                let key = scene.key(choices);
                scene.deleted(&key);
            }
            7 => {
                let range = match choices.byte() % 4 {
                    0 => scene.keys.nodes_range(),
                    n => {
                        let mut ranges = scene.keys.station_ranges(&(0..n).map(vni).collect());
                        ranges.pop().expect("of at least one VNI")
                    }
                };
                let mut entries = Vec::new();
                for _ in 0..choices.byte() % 8 {
                    let key = scene.key(choices);
                    let value = match scene.keys.parse(&key) {
                        Some(Key::Node(_)) => node_value(choices),
                        _ => station_value(choices),
                    };
                    entries.push((key, value));
                }
                scene.listed(&range, &entries);
            }
            8 | 9 => {
                let (vni, mac, ips) = (vni(choices.byte()), mac(choices.byte()), some_ips(choices));
                // Nobody's station: a key cannot speak of it.
                if !mac.is_zero() {
                    scene.local.insert((vni, mac));
                    scene.stations.local(scene.now, vni, mac, &ips, "p");
                }
            }
            10 => {
                let (vni, mac) = (vni(choices.byte()), mac(choices.byte()));
                scene.stations.local_gone(vni, mac);
                scene.drain();
                scene.local.remove(&(vni, mac));
            }
            11 => {
                let vni = vni(choices.byte());
                scene.stations.forget(vni);
                scene.claims.retain(|((of, _), node), _| *of != vni || node == ME);
            }
            12 => scene.missed(NAMES[usize::from(choices.byte()) % NAMES.len()]),
            _ => {
                scene.now = scene.now.after(Duration::from_millis(u64::from(choices.byte()) * 100));
                scene.due();
                let due = scene.stations.next_due();
                assert!(due.is_none_or(|due| due > scene.now), "it would never rest");
            }
        }
        scene.check();
    }
    scene.end();
}
