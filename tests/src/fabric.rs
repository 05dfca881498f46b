//! Many switches in one process: a full mesh of VXLAN over simulated links, with loss, duplication, delay, reorder
//! and partition, on a virtual clock. Everything random comes from one seed; a failure prints it.
//!
//! Stations send frames that carry a number. The fabric writes down which station heard which number how often, and
//! panics at once on what must never happen: a frame in another segment, a frame back at its sender, a copy too
//! many, a datagram that gives birth to datagrams. Not here: links of an operating system, and time that passes.

use crate::frames::{Frame, ctag, describe, station};
use crate::rng::Rng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::frame::{Arrival, Batch, TxList};
use vswitch_core::mac_table::MacTable;
use vswitch_core::offload::Offload;
use vswitch_core::port::{Attachment, Port, PortId};
use vswitch_core::switch::{Bridge, Topology, Worker};
use vswitch_core::time::Instant;
use vswitch_core::wire::ethernet::{ADDRESSES_LEN, Mac};
use vswitch_core::wire::vlan::{Tag, Vlan};
use vswitch_core::wire::vxlan::{HEADER_LEN, Vni};

/// Ethertype of what stations send: IEEE 802's first for local experiments.
const ETHERTYPE: u16 = 0x88b5;

/// What the links between nodes do to a datagram.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Of a thousand datagrams, this many are lost.
    pub loss: usize,
    /// Of a thousand, this many arrive twice.
    pub duplication: usize,
    /// Nanoseconds on the way; a range makes them overtake one another.
    pub delay: RangeInclusive<usize>,
}

impl Faults {
    /// Every datagram arrives once, after ten microseconds.
    pub const NONE: Self = Self { loss: 0, duplication: 0, delay: 10_000..=10_000 };
}

/// A station: where it is, and in which segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its number and, by it, its address.
    pub number: usize,
    /// The node.
    pub node: usize,
    /// The port of the node.
    pub port: PortId,
    /// Its VLAN.
    pub vlan: Vlan,
    /// Whether it tags its frames itself, on a trunk.
    pub tagged: bool,
}

impl Station {
    /// Its address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        station(u32::try_from(self.number).unwrap_or(0xff_ffff))
    }
}

struct Node {
    worker: Worker,
    macs: Arc<MacTable>,
    address: IpAddr,
    side: usize,
}

/// Makes a MAC table, as [`MacTable::new`] does.
type Table = fn(u32, Duration, [u64; 2]) -> MacTable;

/// What is configured.
struct Plan {
    vlans: RangeInclusive<u16>,
    /// The local ports of each node.
    local: Vec<Vec<Attachment>>,
    /// Whether a node's peers know which VNIs it hosts.
    tells: bool,
}

impl Plan {
    /// Local ports have the numbers below, with some to spare.
    fn first_peer(&self) -> usize {
        self.local.iter().map(|ports| ports.len() / 16 * 16 + 17).max().unwrap_or(1)
    }

    /// The VNIs that a node hosts.
    fn hosted(&self, node: usize) -> Vec<Vni> {
        let vlan = |port: &Attachment| match port {
            Attachment::Access(vlan) => Some(*vlan),
            _ => None,
        };
        self.local[node].iter().filter_map(vlan).map(|vlan| vni_of(vlan.get())).collect()
    }

    fn topology(&self, own: usize) -> Topology {
        let vnis = self.vlans.clone().filter_map(|vlan| Some((Vlan::new(vlan)?, vni_of(vlan)))).collect();
        let local = (1..).zip(&self.local[own]).map(|(n, attachment)| Port::new(id(n), attachment.clone()));
        let first = self.first_peer();
        let peers = (0..self.local.len()).filter(|peer| *peer != own).map(|peer| {
            let mut port = Port::peer(id(first + peer), address(peer), 4789, 1500);
            if let Attachment::Tunnel(tunnel) = &mut port.attachment {
                tunnel.floods = self.tells.then(|| self.hosted(peer));
            }
            port
        });
        let bridge = Bridge { vnis, ..Bridge::default() };
        Topology::new(vec![bridge], local.chain(peers)).expect("no two names are equal")
    }
}

struct Datagram {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

/// The switches, their links and stations.
pub struct Fabric {
    plan: Plan,
    nodes: Vec<Node>,
    by_address: BTreeMap<IpAddr, usize>,
    stations: Vec<Station>,
    /// By node and port.
    at_port: BTreeMap<(usize, PortId), Vec<usize>>,
    links: Links,
    now: u64,
    sent: u64,
    /// By number of frame, then by station: how often it was heard.
    heard: BTreeMap<u64, BTreeMap<usize, u32>>,
    senders: BTreeMap<u64, usize>,
    batch: Batch,
    tx: TxList,
}

struct Links {
    faults: Faults,
    rng: Rng,
    flying: BinaryHeap<Reverse<(u64, u64)>>,
    datagrams: BTreeMap<u64, Datagram>,
    launched: u64,
    count: u64,
    lost: u64,
    /// By number of frame and receiving node: copies beyond the first.
    extra: BTreeMap<(u64, usize), u32>,
}

/// The VNI of a VLAN, everywhere in the fabric.
fn vni_of(vlan: u16) -> Vni {
    Vni::new(10_000 + u32::from(vlan)).expect("24 bits")
}

/// The address of a node: the first 200 have IPv4 addresses, but for every fifth.
fn address(node: usize) -> IpAddr {
    match u8::try_from(node) {
        Ok(n) if !node.is_multiple_of(5) => IpAddr::from([192, 0, 2, n]),
        _ => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::try_from(node).expect("few nodes")]),
    }
}

fn id(number: usize) -> PortId {
    u32::try_from(number).ok().and_then(PortId::new).expect("few ports")
}

impl Fabric {
    /// `nodes` switches that are each other's peers, with these local ports each, numbered from 1, and VLANs
    /// `vlans` with a VNI each. Every flood goes to every peer. Stations age after `ageing` seconds.
    #[must_use]
    pub fn new(
        seed: u64,
        nodes: usize,
        ports: &[Attachment],
        vlans: RangeInclusive<u16>,
        ageing: u64,
    ) -> Self {
        let plan = Plan { vlans, local: vec![ports.to_vec(); nodes], tells: false };
        Self::of(seed, plan, MacTable::new, 8192, ageing)
    }

    /// Switches that are each other's peers and tell each other which VNIs they host: node *n* has an access port,
    /// numbered from 1, for each VLAN of `hosted[n]`. All have the same `vlans`, with a VNI each.
    #[must_use]
    pub fn hosting(seed: u64, hosted: &[Vec<Vlan>], vlans: RangeInclusive<u16>, ageing: u64) -> Self {
        let access = |vlans: &Vec<Vlan>| vlans.iter().map(|vlan| Attachment::Access(*vlan)).collect();
        let plan = Plan { vlans, local: hosted.iter().map(access).collect(), tells: true };
        Self::of(seed, plan, MacTable::few_ports, 1024, ageing)
    }

    fn of(seed: u64, plan: Plan, table: Table, limit: u32, ageing: u64) -> Self {
        let nodes: Vec<Node> = (0..plan.local.len())
            .map(|own| {
                let macs = table(limit, Duration::from_secs(ageing), [own as u64, seed]);
                let (topology, macs) = (Arc::new(plan.topology(own)), Arc::new(macs));
                topology.ports().for_each(|port| macs.bind(port.id, None));
                let worker = Worker::new(topology, Arc::clone(&macs));
                Node { worker, macs, address: address(own), side: 0 }
            })
            .collect();
        let by_address = nodes.iter().enumerate().map(|(n, node)| (node.address, n)).collect();
        let links = Links {
            faults: Faults::NONE,
            rng: Rng::new(seed),
            flying: BinaryHeap::new(),
            datagrams: BTreeMap::new(),
            launched: 0,
            count: 0,
            lost: 0,
            extra: BTreeMap::new(),
        };
        Self {
            plan,
            nodes,
            by_address,
            stations: Vec::new(),
            at_port: BTreeMap::new(),
            links,
            now: 0,
            sent: 0,
            heard: BTreeMap::new(),
            senders: BTreeMap::new(),
            batch: Batch::new(1),
            tx: TxList::new(),
        }
    }

    /// Node `node` begins to host `vlan`, at one more access port; returns its number. All others that have a port in
    /// that VLAN are told, and nobody else needs to be.
    ///
    /// # Panics
    /// In a fabric of nodes that do not tell what they host, or where there is no room for one more port.
    pub fn host(&mut self, node: usize, vlan: u16) -> usize {
        assert!(self.plan.tells, "the nodes do not tell what they host");
        let vlan = Vlan::new(vlan).expect("below 4095");
        let access = Attachment::Access(vlan);
        let first_peer = self.plan.first_peer();
        self.plan.local[node].push(access.clone());
        assert_eq!(self.plan.first_peer(), first_peer, "the node has ports enough");
        for (own, there) in self.nodes.iter_mut().enumerate() {
            if self.plan.local[own].contains(&access) {
                let topology = Arc::new(self.plan.topology(own));
                topology.ports().for_each(|port| there.macs.bind(port.id, None));
                there.worker.apply(topology, Arc::clone(&there.macs));
            }
        }
        self.plan.local[node].len()
    }

    /// What the links do from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.links.faults = faults;
    }

    /// Nodes of different sides do not reach each other.
    pub fn partition(&mut self, side: impl Fn(usize) -> usize) {
        self.nodes.iter_mut().enumerate().for_each(|(n, node)| node.side = side(n));
    }

    /// All reach all.
    pub fn heal(&mut self) {
        self.partition(|_| 0);
    }

    /// A new station at `port` of `node`; returns its number. One that tags sits on a trunk.
    pub fn attach(&mut self, node: usize, port: usize, vlan: u16, tagged: bool) -> usize {
        let number = self.stations.len();
        let vlan = Vlan::new(vlan).expect("below 4095");
        self.stations.push(Station { number, node, port: id(port), vlan, tagged });
        self.at_port.entry((node, id(port))).or_default().push(number);
        number
    }

    /// The station is somewhere else now, and says nothing of it.
    pub fn move_to(&mut self, number: usize, node: usize, port: usize) {
        let station = &mut self.stations[number];
        if let Some(there) = self.at_port.get_mut(&(station.node, station.port)) {
            there.retain(|other| *other != number);
        }
        (station.node, station.port) = (node, id(port));
        self.at_port.entry((node, id(port))).or_default().push(number);
    }

    /// Who and where `number` is.
    #[must_use]
    pub fn station(&self, number: usize) -> Station {
        self.stations[number]
    }

    /// All stations of the segment that `number` is in, itself left out.
    #[must_use]
    pub fn others_of(&self, number: usize) -> Vec<usize> {
        let vlan = self.stations[number].vlan;
        let others = self.stations.iter().filter(|s| s.vlan == vlan && s.number != number);
        others.map(|s| s.number).collect()
    }

    /// The side of the partition that a station is on.
    #[must_use]
    pub fn side_of(&self, number: usize) -> usize {
        self.nodes[self.stations[number].node].side
    }

    /// `from` sends a frame to everybody; returns its number.
    pub fn broadcast(&mut self, from: usize) -> u64 {
        self.send(from, Mac::BROADCAST)
    }

    /// `from` sends a frame to `to`; returns its number.
    pub fn unicast(&mut self, from: usize, to: usize) -> u64 {
        self.send(from, self.stations[to].mac())
    }

    fn send(&mut self, from: usize, dst: Mac) -> u64 {
        self.sent += 1;
        let number = self.sent;
        self.senders.insert(number, from);
        let sender = self.stations[from];
        let mut payload = number.to_be_bytes().to_vec();
        payload.extend([0; 40]);
        let mut frame = Frame::new(dst, sender.mac()).payload(ETHERTYPE, &payload);
        if sender.tagged {
            frame = frame.tag(ctag(sender.vlan.get(), 0));
        }
        let bytes = frame.bytes();
        self.pass(sender.node, Arrival::Port(sender.port), &bytes);
        number
    }

    /// Lets every datagram under way arrive.
    pub fn settle(&mut self) {
        while let Some(Reverse((at, count))) = self.links.flying.pop() {
            self.now = self.now.max(at);
            let Some(datagram) = self.links.datagrams.remove(&count) else { continue };
            let remote = self.nodes[datagram.from].address;
            let arrival =
                Arrival::Underlay { local: self.nodes[datagram.to].address, remote, udp_port: 4789 };
            self.pass(datagram.to, arrival, &datagram.bytes);
        }
    }

    /// Lets `seconds` go by, with the switches' background work in each.
    pub fn sleep(&mut self, seconds: u64) {
        self.settle();
        for _ in 0..seconds {
            self.now += 1_000_000_000;
            for node in &mut self.nodes {
                node.worker.tick(Instant::from_nanos(self.now));
            }
        }
    }

    /// How often each station heard frame `number`, every station that did.
    #[must_use]
    pub fn heard(&self, number: u64) -> BTreeMap<usize, u32> {
        self.heard.get(&number).cloned().unwrap_or_default()
    }

    /// Datagrams sent, and of them lost.
    #[must_use]
    pub const fn datagrams(&self) -> (u64, u64) {
        (self.links.count, self.links.lost)
    }

    /// Stations that node `node` knows.
    #[must_use]
    pub fn known_at(&self, node: usize) -> usize {
        let mut count = 0;
        self.nodes[node].macs.for_each(Instant::from_nanos(self.now), |_| count += 1);
        count
    }

    /// What to say when a test fails.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.links.rng.seed()
    }

    fn pass(&mut self, node: usize, arrival: Arrival, bytes: &[u8]) {
        self.batch.clear();
        self.tx.clear();
        assert!(self.batch.copy_in(arrival, bytes, Offload::NONE));
        self.nodes[node].worker.forward(Instant::from_nanos(self.now), &self.batch, &mut self.tx);
        let mut left = Vec::new();
        for port in self.tx.ports() {
            for record in self.tx.records(*port) {
                let mut bytes = Vec::new();
                self.tx.copy_out(record, &self.batch, &mut bytes);
                left.push((*port, bytes));
            }
        }
        for (port, bytes) in left {
            let remote =
                self.nodes[node].worker.topology().port(port).and_then(|p| p.tunnel()).map(|t| t.remote);
            match remote {
                None => self.deliver(node, port, &bytes),
                Some(remote) => {
                    let seed = self.seed();
                    assert!(matches!(arrival, Arrival::Port(_)), "seed {seed}: a datagram made a datagram");
                    let to = self.by_address[&remote];
                    let cut = self.nodes[node].side != self.nodes[to].side;
                    self.links.carry(self.now, cut, node, to, bytes);
                }
            }
        }
    }

    /// A frame leaves by a local port: every station there hears it.
    fn deliver(&mut self, node: usize, port: PortId, bytes: &[u8]) {
        let seed = self.seed();
        let told = |what: &str| format!("seed {seed}: node {node} port {port}: {what}: {}", describe(bytes));
        let frame = Frame::parse(bytes).unwrap_or_else(|| panic!("{}", told("not a frame")));
        let number = number_in(&frame.rest).unwrap_or_else(|| panic!("{}", told("no number")));
        let sender = self.stations[self.senders[&number]];
        assert_eq!(frame.src, sender.mac(), "{}", told("another source"));
        for at in self.at_port.get(&(node, port)).cloned().unwrap_or_default() {
            let station = self.stations[at];
            let tag = frame.tags.first().map_or(0, |tag| Tag::vid(*tag));
            let its_own = if station.tagged { station.vlan.get() } else { 0 };
            if tag != its_own {
                assert!(station.tagged, "{}", told("a tag on an access port"));
                // Of another VLAN of the trunk: this station does not look at it.
                continue;
            }
            assert_eq!(station.vlan, sender.vlan, "{}", told("in another segment"));
            assert_ne!(at, sender.number, "{}", told("back at its sender"));
            let copies = self.links.extra.get(&(number, node)).copied().unwrap_or(0);
            let count = self.heard.entry(number).or_default().entry(at).or_default();
            *count += 1;
            assert!(*count <= 1 + copies, "{}", told(&format!("heard {count} times")));
        }
    }
}

/// The number that a frame carries.
fn number_in(rest: &[u8]) -> Option<u64> {
    let rest = rest.strip_prefix(&ETHERTYPE.to_be_bytes())?;
    Some(u64::from_be_bytes(*rest.first_chunk()?))
}

impl Links {
    fn carry(&mut self, now: u64, cut: bool, from: usize, to: usize, bytes: Vec<u8>) {
        self.count += 1;
        if cut || self.rng.below(1000) < self.faults.loss {
            self.lost += 1;
            return;
        }
        if self.rng.below(1000) < self.faults.duplication {
            let number = number_in(&bytes[HEADER_LEN + ADDRESSES_LEN..]);
            *self.extra.entry((number.expect("no tag travels inside"), to)).or_default() += 1;
            self.launch(now, Datagram { from, to, bytes: bytes.clone() });
        }
        self.launch(now, Datagram { from, to, bytes });
    }

    fn launch(&mut self, now: u64, datagram: Datagram) {
        let at = now + self.rng.within(self.faults.delay.clone()) as u64;
        // A number of its own keeps what arrives together in order.
        self.launched += 1;
        let count = self.launched;
        self.flying.push(Reverse((at, count)));
        self.datagrams.insert(count, datagram);
    }
}
