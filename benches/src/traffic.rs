//! A worker and frames for it without end, for whoever wants to know what forwarding costs.
//!
//! Ports with odd numbers are access ports, those with even numbers trunks; every one has a limit of stations. A
//! frame is drawn at random when it is written, so that no list of what comes next takes cache from the MAC table.
//! Not here: clocks, and what is measured.

use crate::{Dice, NOW, port, segment, station, udp, vlan};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::policer::Policer;
use vswitch_core::port::{Guard, Policers};
use vswitch_core::switch::{Bridge, Topology, Worker};
use vswitch_core::wire::vxlan;
use vswitch_core::{Arrival, Attachment, Batch, Mac, MacTable, Offload, Port, TxList, Vni};

const UDP_PORT: u16 = 4789;
const MAX_BATCH: usize = 64;

/// What becomes of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From access port to access port, as it came.
    Plain,
    /// From access port to trunk: a tag is put in.
    Tag,
    /// From trunk to access port: a tag is taken out.
    Untag,
    /// One of these two, at random.
    Either,
    /// From one access port to all other ports.
    Flood,
    /// From access port to peer.
    Encap,
    /// From peer to access port.
    Decap,
}

/// Who is there and who speaks.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// What becomes of every frame.
    pub way: Way,
    /// Stations, an even number; all of them speak and are spoken to.
    pub stations: u64,
    /// Pairs of stations that speak to each other; 0 for all pairs.
    pub flows: u64,
    /// Frames of one pair that come in a row.
    pub train: u64,
    /// Ports, an even number.
    pub ports: u64,
    /// Peers; none where nothing enters a tunnel.
    pub peers: u64,
    /// Frames in a batch, 64 at most.
    pub batch: usize,
    /// Whether questions of ARP and Neighbor Discovery are looked for. No frame is one.
    pub neigh_suppress: bool,
    /// Whether every port is guarded, and policed both ways at a rate that nothing reaches. Each has one station then.
    pub watched: bool,
}

impl Scene {
    /// 10,000 stations behind 16 ports, or 16 ports and 16 peers, in batches of 32.
    #[must_use]
    pub const fn new(way: Way) -> Self {
        let peers = if matches!(way, Way::Encap | Way::Decap) { 16 } else { 0 };
        let (neigh_suppress, watched) = (false, false);
        Self {
            way,
            stations: 10_000,
            flows: 0,
            train: 1,
            ports: 16,
            peers,
            batch: 32,
            neigh_suppress,
            watched,
        }
    }

    /// The port of station `n`.
    const fn home(&self, n: u64) -> u64 {
        match self.way {
            Way::Tag | Way::Untag | Way::Either => 1 + n % self.ports,
            // Even stations are local, odd ones behind peers.
            Way::Encap | Way::Decap if n % 2 == 1 => 1 + self.ports + n / 2 % self.peers,
            // Access ports only.
            _ => 1 + 2 * (n % (self.ports / 2)),
        }
    }

    fn topology(&self) -> Topology {
        let vni = Vni::new(10_010).expect("10010 is a VNI");
        let (vnis, neigh_suppress) = (BTreeMap::from([(vlan(), vni)]), self.neigh_suppress);
        let bridge = Bridge { vnis, neigh_suppress, ..Bridge::default() };
        let ports = (1..=self.ports).map(|n| {
            let trunk = n % 2 == 0;
            let attachment = if trunk { Attachment::trunk_all() } else { Attachment::Access(vlan()) };
            let mut made = Port::new(port(n), attachment);
            if self.watched {
                // Station n is behind port 1 + n; all frames are of one IPv4 packet.
                let addresses = vec![([10, 0, 0, 1].into(), 32)];
                made.guard = Some(Arc::new(Guard { mac: station(n - 1), addresses }));
                let policer = || Some(Arc::new(Policer::new(u32::MAX, u32::MAX)));
                made.policers = Policers { ingress: policer(), egress: policer() };
            }
            made
        });
        let peers = (0..self.peers).map(|n| Port::peer(port(1 + self.ports + n), remote(n), UDP_PORT, 1500));
        Topology::new(vec![bridge], ports.chain(peers)).expect("no two names are equal")
    }

    /// A table that knows every station, and may know no more on any port.
    #[must_use]
    pub fn table(&self) -> Arc<MacTable> {
        let limit = u32::try_from(self.stations.max(65_536)).unwrap_or(u32::MAX);
        let macs = MacTable::new(limit, Duration::from_secs(300), [1, 2]);
        for n in 1..=self.ports + self.peers {
            macs.bind(port(n), Some(limit));
        }
        for n in 0..self.stations {
            macs.learn(NOW, segment(), station(n), port(self.home(n)));
        }
        Arc::new(macs)
    }
}

fn remote(n: u64) -> IpAddr {
    let [.., high, low] = n.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 1, high, low))
}

/// A worker, and frames for it.
#[derive(Debug)]
pub struct Traffic {
    scene: Scene,
    worker: Worker,
    batch: Batch,
    tx: TxList,
    dice: Dice,
    /// Frames of the present pair still to come, and the pair.
    left: u64,
    pair: (u64, u64),
    /// Bytes in front of each frame, and a frame's length with them.
    base: usize,
    len: usize,
    leaves: usize,
}

impl Traffic {
    /// Traffic in `scene` over a table of [`Scene::table`]; another `seed` draws other frames.
    ///
    /// # Panics
    /// When the scene makes no sense.
    #[must_use]
    pub fn new(scene: Scene, macs: &Arc<MacTable>, seed: u64) -> Self {
        let vni = Vni::new(10_010).expect("10010 is a VNI");
        let header = vxlan::header(vni);
        let base = if scene.way == Way::Decap { header.len() } else { 0 };
        let mut frame = [&header[..base], &udp(64)].concat();
        if scene.way == Way::Untag {
            frame[12..16].copy_from_slice(&TAG);
        }
        let mut batch = Batch::new(scene.batch);
        while batch.copy_in(Arrival::Port(port(1)), &frame, Offload::NONE) {}
        let out = usize::try_from(scene.ports).expect("ports are few") - 1;
        Self {
            scene,
            worker: Worker::new(Arc::new(scene.topology()), Arc::clone(macs)),
            batch,
            tx: TxList::new(),
            dice: Dice::new(seed),
            left: 0,
            pair: (0, 0),
            base,
            len: frame.len(),
            leaves: scene.batch * if scene.way == Way::Flood { out } else { 1 },
        }
    }

    /// Source and destination of the next frame, on two sides of the switch.
    const fn draw(&mut self) -> (u64, u64) {
        if self.left == 0 {
            self.left = self.scene.train;
            let half = self.scene.stations / 2;
            // Of few pairs each is drawn from dice of its own.
            let mut of_pair = Dice::new(match self.scene.flows {
                0 => 1,
                flows => 1 + self.dice.pick(flows),
            });
            let dice = if self.scene.flows == 0 { &mut self.dice } else { &mut of_pair };
            let (even, odd) = (dice.pick(half) * 2, dice.pick(half) * 2 + 1);
            // Station n is behind port 1 + n: even ones are behind access ports.
            let from_odd = match self.scene.way {
                Way::Untag | Way::Decap => true,
                Way::Either => dice.pick(2) == 0,
                _ => false,
            };
            self.pair = if from_odd { (odd, even) } else { (even, odd) };
        }
        self.left -= 1;
        self.pair
    }

    /// Writes the next batch.
    pub fn fill(&mut self) {
        let size = self.scene.batch;
        let mut pairs = [(0, 0); MAX_BATCH];
        for pair in &mut pairs[..size] {
            *pair = self.draw();
        }
        self.batch.clear();
        for (slot, (src, dst)) in self.batch.spares().zip(pairs) {
            let to = if self.scene.way == Way::Flood { Mac::BROADCAST } else { station(dst) };
            let header = &mut slot[self.base..self.base + 16];
            header[..6].copy_from_slice(&to.bytes());
            header[6..12].copy_from_slice(&station(src).bytes());
            if self.scene.way == Way::Either {
                header[12..].copy_from_slice(if src % 2 == 1 { &TAG } else { &UNTAGGED });
            }
        }
        for (src, _) in &pairs[..size] {
            let from = self.scene.home(*src);
            let arrival = match self.scene.way {
                Way::Decap => Arrival::Underlay {
                    local: IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1)),
                    remote: remote(from - self.scene.ports - 1),
                    udp_port: UDP_PORT,
                },
                _ => Arrival::Port(port(from)),
            };
            self.batch.push(arrival, self.len, Offload::NONE);
        }
        black_box(&self.batch);
    }

    /// Writes the next batch and forwards it.
    ///
    /// # Panics
    /// When what leaves is not what should.
    pub fn forward(&mut self) {
        self.fill();
        self.worker.forward(NOW, &self.batch, &mut self.tx);
        assert_eq!(self.tx.len(), self.leaves);
        black_box(&self.tx);
        self.tx.clear();
    }
}

/// A tag of the VLAN, and what stands in its place where there is none.
const TAG: [u8; 4] = [0x81, 0, 0, 10];
const UNTAGGED: [u8; 4] = [8, 0, 0x45, 0];
