//! Nodes of a cluster around a store, in one thread and on a virtual clock, with everything going wrong by a seed: in
//! the end all believe the same, and it is true.
//!
//! `VSWITCH_SEED` is the first seed, `VSWITCH_RUNS` how many. The store here is a map with leases, revisions and
//! watches that lag; whether peers live is told, with a delay. Not here: etcd (see `source_etcd.rs`) and frames.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

#[path = "cluster_sim/store.rs"]
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use store::{Client, Said, Store};
use vswitch_core::{Instant, Mac, Vni};
use vswitch_tests::rng::Rng;
use vswitchd::cluster::{Change, Key, Keys, Members, NodeRecord, StationRecord, Stations, SuspectRecord};

const TICK: Duration = Duration::from_millis(250);
const LEASE: Duration = Duration::from_secs(4);
/// How long a dead peer seems to live.
const DETECTION: Duration = Duration::from_secs(2);
/// How long a port that has lost its station believes to have it, while nobody else does.
const AGEING: Duration = Duration::from_secs(5);
/// What all names begin with; a number follows.
const NAME: &str = "node-";
const VNIS: u32 = 4;
const MACS: usize = 24;

type Place = (Vni, Mac);

fn vni(n: usize) -> Vni {
    Vni::new(100 + 10 * u32::try_from(n).unwrap()).unwrap()
}

fn mac(n: usize) -> Mac {
    Mac::from_u64(0x0200_0000_0100 + n as u64)
}

fn ip(n: usize) -> IpAddr {
    [10, 0, 0, u8::try_from(n).unwrap()].into()
}

/// The life of one daemon.
struct Life {
    members: Members,
    stations: Stations,
    client: Client,
    /// Stations that it believes to have, and since when they are not there any more.
    believed: BTreeMap<Place, Option<Instant>>,
    hosted: BTreeSet<Vni>,
    told: BTreeSet<Vni>,
    suspected: BTreeSet<String>,
    boot: u64,
}

struct Node {
    name: String,
    /// What is behind its ports, alive or not.
    ports: BTreeMap<Place, Vec<IpAddr>>,
    /// Segments that it always has a port in.
    always: BTreeSet<Vni>,
    life: Option<Life>,
    died: Instant,
    cut_off: bool,
}

impl Node {
    fn key_is_own(&self, key: &str) {
        assert_eq!(key.rsplit('/').next(), Some(&*self.name), "{} writes {key}", self.name);
    }
}

struct Mesh {
    rng: Rng,
    now: Instant,
    keys: Keys,
    store: Store,
    nodes: Vec<Node>,
    boots: u64,
    faults: bool,
}

impl Mesh {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        // Few more often than many.
        let count = 8 + rng.below(33) * rng.below(33) / 31;
        let node = |n: usize, rng: &mut Rng| Node {
            name: format!("{NAME}{n:02}"),
            ports: BTreeMap::new(),
            always: (0..VNIS as usize).filter(|_| rng.one_in(4)).map(vni).collect(),
            life: None,
            died: Instant::ZERO,
            cut_off: false,
        };
        let nodes = (0..count).map(|n| node(n, &mut rng)).collect();
        let (keys, store, now) = (Keys::new("/v/sim"), Store::default(), Instant::from_secs(100));
        Self { rng, now, keys, store, nodes, boots: 1, faults: false }
    }

    fn start(&mut self, n: usize) {
        self.boots += 1;
        let node = &mut self.nodes[n];
        let mut life = Life {
            members: Members::new(&node.name, self.boots),
            stations: Stations::new(&node.name, LEASE),
            client: Client::default(),
            believed: BTreeMap::new(),
            hosted: BTreeSet::new(),
            told: BTreeSet::new(),
            suspected: BTreeSet::new(),
            boot: self.boots,
        };
        for ((vni, mac), ips) in &node.ports {
            life.stations.local(self.now, *vni, *mac, ips, "p");
            life.believed.insert((*vni, *mac), None);
        }
        node.life = Some(life);
    }

    fn kill(&mut self, n: usize) {
        self.nodes[n].life = None;
        self.nodes[n].died = self.now;
    }

    /// The station comes to node `n`.
    fn attach(&mut self, n: usize, place: Place, ips: &[IpAddr]) {
        let node = &mut self.nodes[n];
        node.ports.insert(place, ips.to_vec());
        if let Some(life) = &mut node.life {
            life.believed.insert(place, None);
            life.stations.local(self.now, place.0, place.1, ips, "p");
        }
    }

    /// The station leaves node `n`, which sees it if it is told.
    fn detach(&mut self, n: usize, place: Place, told: bool) {
        let node = &mut self.nodes[n];
        node.ports.remove(&place);
        let Some(life) = &mut node.life else { return };
        if told {
            life.believed.remove(&place);
            life.stations.local_gone(place.0, place.1);
        } else if let Some(since) = life.believed.get_mut(&place) {
            *since = Some(self.now);
        }
    }

    /// Nodes that have the station, dead ones as well.
    fn at(&self, place: Place) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].ports.contains_key(&place)).collect()
    }

    /// What happens to the pods.
    fn move_something(&mut self) {
        let which = self.rng.below(MACS);
        let place = (vni(which % VNIS as usize), mac(which));
        let to = self.rng.below(self.nodes.len());
        let from = self.at(place);
        // One address is its own.
        let ips = [ip(which)];
        match self.rng.below(8) {
            // It is on two nodes for a while.
            0 if from.len() < 2 && !from.contains(&to) => self.attach(to, place, &ips),
            1 => {
                for n in from {
                    self.detach(n, place, true);
                }
            }
            choice => {
                let silent = choice < 5;
                for n in from.iter().filter(|n| **n != to) {
                    self.detach(*n, place, !silent);
                }
                if !from.contains(&to) {
                    self.attach(to, place, &ips);
                }
            }
        }
    }

    fn something_fails(&mut self) {
        let n = self.rng.below(self.nodes.len());
        match self.rng.below(12) {
            0 => self.store.away = true,
            1..=3 => self.store.away = false,
            4 | 5 => self.kill(n),
            6 | 7 => self.start(n),
            8 => self.nodes[n].cut_off = true,
            9 | 10 => self.nodes.iter_mut().for_each(|node| node.cut_off = false),
            _ if self.rng.one_in(8) => self.store.lose_everything(),
            _ => {
                self.store.compacted = self.store.revision;
                self.store.log.clear();
            }
        }
    }

    fn tick(&mut self) {
        self.now = self.now.after(TICK);
        self.store.tick(self.now);
        for n in 0..self.nodes.len() {
            if let Some(mut life) = self.nodes[n].life.take() {
                self.speak_to_store(n, &mut life);
                self.control(n, &mut life);
                self.nodes[n].life = Some(life);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.now < end {
            self.tick();
        }
    }

    fn speak_to_store(&mut self, n: usize, life: &mut Life) {
        let client = &mut life.client;
        if self.store.away || self.nodes[n].cut_off || client.session.is_some_and(|of| of != self.store.life)
        {
            client.session = None;
            return;
        }
        if client.session.is_none() {
            if self.rng.one_in(2) {
                return;
            }
            client.session = Some(self.store.life);
            client.watched.clear();
        }
        match client.lease.and_then(|id| self.store.leases.get_mut(&id)) {
            Some(end) => *end = self.now.after(LEASE),
            None => {
                client.lease = Some(self.store.grant(self.now));
                client.unwritten = client.wanted.keys().cloned().collect();
            }
        }
        let mut ranges = vec![self.keys.nodes_range(), self.keys.suspects_range()];
        ranges.extend(self.keys.station_ranges(&life.hosted));
        client.watched.retain(|range, _| ranges.contains(range));
        self.rng.shuffle(&mut ranges);
        for range in ranges {
            if self.rng.one_in(3) {
                // It comes later.
                continue;
            }
            let Some(from) = life.client.watched.get(&range).copied() else {
                let inside = self.store.keys.range(range.from.clone()..range.to.clone());
                let entries = inside.map(|(key, (value, _))| (key.as_str(), value.as_slice())).collect();
                let wanted = life.client.wanted.keys().filter(|key| range.contains(key));
                let lost = wanted.filter(|key| !self.store.keys.contains_key(*key)).cloned();
                lost.collect::<Vec<_>>().iter().for_each(|key| life.client.missing(key));
                life.client.watched.insert(range.clone(), self.store.revision);
                self.take(n, life, Said::Listed(range, entries));
                continue;
            };
            if from < self.store.compacted || self.faults && self.rng.one_in(200) {
                life.client.session = None;
                return;
            }
            let most = self.rng.within(1..=40);
            let start = self.store.log.partition_point(|(revision, ..)| *revision <= from);
            let end = self.store.log.len().min(start + most);
            let events = &self.store.log[start..end];
            if let Some((revision, ..)) = events.last() {
                life.client.watched.insert(range.clone(), *revision);
            }
            for (_, key, value) in events.iter().filter(|(_, key, _)| range.contains(key)) {
                if value.is_none() {
                    life.client.missing(key);
                }
                self.take(n, life, value.as_ref().map_or(Said::Deleted(key), |value| Said::Put(key, value)));
            }
        }
        let client = &mut life.client;
        let lost = self.faults && self.rng.one_in(50);
        for _ in 0..self.rng.within(1..=20) {
            let Some(key) = client.unwritten.pop_first() else { break };
            self.nodes[n].key_is_own(&key);
            let value = client.wanted.get(&key).cloned().flatten();
            if !lost || self.rng.one_in(2) {
                self.store.write(&key, value.clone(), client.lease.unwrap());
            }
            if lost {
                // Nobody knows whether it is written.
                client.unwritten.insert(key);
                client.session = None;
                break;
            }
            if value.is_none() {
                client.wanted.remove(&key);
            }
        }
    }

    /// What control does with what the store says.
    fn take(&self, n: usize, life: &mut Life, said: Said<'_>) {
        let name = &self.nodes[n].name;
        match said {
            Said::Listed(range, entries) if range == self.keys.nodes_range() => {
                let read = entries.iter().map(|(key, value)| match self.keys.parse(key) {
                    Some(Key::Node(name)) => (name, NodeRecord::from_json(value).unwrap()),
                    other => panic!("{key}: {other:?}"),
                });
                life.members.listed(read.collect());
            }
            Said::Listed(range, entries) => {
                let Some(vnis) = self.keys.vnis_of(&range) else { return };
                let read = entries.iter().map(|(key, value)| {
                    let (place, node) = self.keys.parse(key).unwrap().into_claim().unwrap();
                    (place, node, StationRecord::from_json(value).unwrap())
                });
                life.stations.listed(self.now, &vnis, read.collect());
            }
            Said::Put(key, value) => match self.keys.parse(key).unwrap() {
                Key::Node(name) => drop(life.members.put(&name, NodeRecord::from_json(value).unwrap())),
                Key::Station { vni, mac, node } => {
                    life.stations.put(self.now, vni, mac, &node, StationRecord::from_json(value).unwrap());
                }
                Key::Block { .. } | Key::Address { .. } => unreachable!("nobody here gives addresses"),
                Key::Suspect { .. } => drop(SuspectRecord::from_json(value).unwrap()),
            },
            Said::Deleted(key) => match self.keys.parse(key).unwrap() {
                Key::Node(name) => life.members.deleted(&name),
                Key::Station { vni, mac, node } => life.stations.deleted(self.now, vni, mac, &node),
                Key::Suspect { .. } | Key::Block { .. } | Key::Address { .. } => {}
            },
        }
        assert!(life.members.iter().all(|(member, ..)| member != name));
    }

    fn seems_to_live(&self, n: usize, name: &str) -> bool {
        let node: usize = name[NAME.len()..].parse().unwrap();
        node == n || self.nodes[node].life.is_some() || self.now.since(self.nodes[node].died) < DETECTION
    }

    fn control(&self, n: usize, life: &mut Life) {
        let node = &self.nodes[n];
        // Ports that are there, and the node's own record.
        let hosted: BTreeSet<Vni> =
            life.believed.keys().map(|(vni, _)| *vni).chain(node.always.iter().copied()).collect();
        for vni in life.hosted.difference(&hosted).copied().collect::<Vec<_>>() {
            life.stations.forget(vni);
        }
        life.hosted = hosted;
        let key = self.keys.node(&node.name);
        if life.told != life.hosted || !life.client.wanted.contains_key(&key) {
            life.told.clone_from(&life.hosted);
            let record = NodeRecord {
                addresses: vec![[192, 0, 2, u8::try_from(n).unwrap()].into()],
                udp_port: 4789,
                mtu: 1500,
                boot: life.boot,
                version: String::new(),
                vnis: life.hosted.iter().copied().collect(),
            };
            life.client.want(key, Some(record.to_json()));
        }
        // Whoever does not live is reported, and let go when the store does not have it either.
        for (name, record, _) in life.members.iter() {
            let silent = !self.seems_to_live(n, name);
            if silent == life.suspected.contains(name) {
                continue;
            }
            let report = SuspectRecord { boot: record.boot }.to_json();
            life.client.want(self.keys.suspect(name, &node.name), silent.then_some(report));
            if silent {
                life.suspected.insert(name.to_owned());
            } else {
                life.suspected.remove(name);
            }
        }
        for name in life.members.missed(|name| self.seems_to_live(n, name)) {
            life.stations.node_gone(&name);
        }
        let gone = life.suspected.extract_if(.., |name| life.members.get(name).is_none());
        for name in gone.collect::<Vec<_>>() {
            life.client.want(self.keys.suspect(&name, &node.name), None);
        }
        let members = &life.members;
        life.stations.due(self.now, |name| members.is_lost(name));
        // A station that has left without a word is missed when its frames come from elsewhere, or none do.
        for (place, since) in life.believed.clone() {
            let Some(since) = since else { continue };
            let elsewhere = life.stations.get(place.0, place.1).is_some_and(|(at, _)| at.node != node.name);
            if elsewhere || self.now.since(since) > AGEING {
                life.believed.remove(&place);
                life.stations.local_gone(place.0, place.1);
            }
        }
        for change in life.stations.drain() {
            match change {
                Change::Claim { vni, mac, record } => {
                    life.client.want(self.keys.station(vni, mac, &node.name), Some(record.to_json()));
                }
                Change::Withdraw { vni, mac } => {
                    life.client.want(self.keys.station(vni, mac, &node.name), None);
                }
                Change::Duplicate { there, .. } => assert_ne!(there, node.name),
                Change::Station { .. } | Change::Address { .. } => {}
            }
        }
    }

    /// Everything that goes wrong stops; a station that is on two nodes stays on one.
    fn heal(&mut self) {
        self.faults = false;
        self.store.away = false;
        self.nodes.iter_mut().for_each(|node| node.cut_off = false);
        for which in 0..MACS {
            let place = (vni(which % VNIS as usize), mac(which));
            for n in self.at(place).into_iter().skip(1) {
                self.detach(n, place, true);
            }
        }
        for n in 0..self.nodes.len() {
            // Most come back, some do not.
            if self.nodes[n].life.is_none() && !self.rng.one_in(3) {
                self.start(n);
            }
        }
    }

    /// Every station that is taken for elsewhere says a word, as a frame of it would.
    fn all_speak(&mut self) {
        for node in &mut self.nodes {
            let Some(life) = &mut node.life else { continue };
            for ((vni, mac), ips) in &node.ports {
                if life.stations.get(*vni, *mac).is_none_or(|(at, _)| at.node != node.name) {
                    life.stations.local(self.now, *vni, *mac, ips, "p");
                }
            }
        }
    }

    /// What is not as it should be, in the first place where it is not.
    fn trouble(&self) -> Option<String> {
        let living = || self.nodes.iter().filter(|node| node.life.is_some());
        let names: BTreeSet<&str> = living().map(|node| node.name.as_str()).collect();
        let mut truth: BTreeMap<Place, (&str, &[IpAddr])> = BTreeMap::new();
        for node in living() {
            truth.extend(node.ports.iter().map(|(place, ips)| (*place, (&*node.name, &ips[..]))));
        }
        let mut expected: BTreeSet<String> = names.iter().map(|name| self.keys.node(name)).collect();
        expected.extend(truth.iter().map(|((vni, mac), (node, _))| self.keys.station(*vni, *mac, node)));
        let keys: BTreeSet<String> = self.store.keys.keys().cloned().collect();
        if keys != expected {
            return Some(format!("keys: {:?}", keys.symmetric_difference(&expected).collect::<Vec<_>>()));
        }
        for node in living() {
            let life = node.life.as_ref().unwrap();
            let members: BTreeSet<&str> =
                life.members.iter().filter(|(.., stale)| !stale).map(|(name, ..)| name).collect();
            let count = life.members.iter().count();
            if count != names.len() - 1 || members.len() != count || !members.is_subset(&names) {
                return Some(format!("members of {}: {members:?} of {count}", node.name));
            }
            let interesting = |place: &&Place| life.hosted.contains(&place.0);
            let places: BTreeSet<Place> = truth.keys().filter(interesting).copied().collect();
            let known: BTreeSet<Place> = life.stations.macs().collect();
            if known != places {
                let wrong: Vec<_> = known.symmetric_difference(&places).collect();
                return Some(format!("stations that {} knows: {wrong:?}", node.name));
            }
            for place in places {
                let at = life.stations.get(place.0, place.1).map(|(at, ips)| (at.node, ips));
                if at != Some(truth[&place]) {
                    return Some(format!("{} has {place:?} at {at:?}, not {:?}", node.name, truth[&place]));
                }
                for ip in truth[&place].1 {
                    if life.stations.address(place.0, *ip) != Some(place.1) {
                        return Some(format!("{} does not have {ip} at {place:?}", node.name));
                    }
                }
            }
        }
        None
    }

    /// How long it takes until nothing is wrong any more.
    fn settles(&mut self, most: Duration) -> Duration {
        let start = self.now;
        while let Some(trouble) = self.trouble() {
            assert!(self.now.since(start) < most, "after {most:?}: {trouble}");
            self.tick();
        }
        self.now.since(start)
    }
}

/// Runs `scene` for many seeds; which of them fail.
fn many(default: u64, scene: impl Fn(u64) -> Duration) {
    let runs: u64 = std::env::var("VSWITCH_RUNS").map_or(default, |runs| runs.parse().unwrap());
    let first = Rng::from_env(1).seed();
    let mut times = Vec::new();
    for seed in first..first + runs {
        match catch_unwind(AssertUnwindSafe(|| scene(seed))) {
            Ok(time) => times.push(time),
            Err(_) => panic!("seed {seed}"),
        }
    }
    times.sort_unstable();
    println!("{runs} seeds: settled in {:?}, at most {:?}", times[times.len() / 2], times.last().unwrap());
}

#[test]
fn when_faults_stop_every_node_has_the_same_table_and_it_is_true() {
    many(200, |seed| {
        let mut mesh = Mesh::new(seed);
        (0..mesh.nodes.len()).for_each(|n| mesh.start(n));
        mesh.run(Duration::from_secs(2));
        mesh.faults = true;
        for _ in 0..40 {
            for _ in 0..mesh.rng.below(4) {
                mesh.move_something();
            }
            if mesh.rng.one_in(2) {
                mesh.something_fails();
            }
            let pause = TICK * u32::try_from(mesh.rng.within(1..=4)).unwrap();
            mesh.run(pause);
        }
        mesh.heal();
        mesh.run(LEASE);
        mesh.all_speak();
        mesh.settles(LEASE * 4)
    });
}

#[test]
fn without_faults_a_silent_move_is_known_everywhere_as_soon_as_it_is_read() {
    many(100, |seed| {
        let mut mesh = Mesh::new(seed);
        for which in 0..MACS {
            let n = mesh.rng.below(mesh.nodes.len());
            mesh.nodes[n].ports.insert((vni(which % VNIS as usize), mac(which)), vec![ip(which)]);
        }
        (0..mesh.nodes.len()).for_each(|n| mesh.start(n));
        mesh.settles(LEASE * 2);
        let mut longest = Duration::ZERO;
        for _ in 0..10 {
            // To a node that may never have heard of the segment.
            let which = mesh.rng.below(MACS);
            let place = (vni(which % VNIS as usize), mac(which));
            let to = mesh.rng.below(mesh.nodes.len());
            let from = mesh.at(place);
            from.iter().filter(|n| **n != to).for_each(|n| mesh.detach(*n, place, false));
            if !from.contains(&to) {
                mesh.attach(to, place, &[ip(which)]);
            }
            longest = longest.max(mesh.settles(LEASE * 2));
        }
        longest
    });
}
