//! The whole decision for frames of 64 bytes among 10,000 stations: one known destination, a flood to 16 ports,
//! into the tunnel and out of it, in batches of 1 to 64. The time is that of one frame and contains writing its
//! addresses into the batch, which a run named `fill` shows alone.

use criterion::Criterion;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use vswitch_benches::{Dice, NOW, criterion, each, port, segment, station, udp, vlan};
use vswitch_core::switch::{Bridge, Topology, Worker};
use vswitch_core::wire::vxlan;
use vswitch_core::{Arrival, Attachment, Batch, Mac, MacTable, Offload, Port, TxList, Vni};

const STATIONS: u64 = 10_000;
/// Access ports 1..=17: a flood out of one reaches 16.
const PORTS: u64 = 17;
/// Ports 21..=36.
const PEERS: u64 = 16;
const UDP_PORT: u16 = 4789;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Unicast,
    Flood,
    Encap,
    Decap,
}

/// A worker, and frames for it without end.
struct Rig {
    worker: Worker,
    batch: Batch,
    tx: TxList,
    way: Way,
    /// Port and addresses of each frame; small, so as not to push the MAC table out of the cache.
    plan: Vec<(u32, [u8; 12])>,
    next: usize,
    base: usize,
    len: usize,
    /// Records that a batch must come to.
    leaves: usize,
}

impl Rig {
    fn new(way: Way, size: usize) -> Self {
        let vni = Vni::new(10_010).expect("10010 is a VNI");
        let bridge = Bridge { vnis: BTreeMap::from([(vlan(), vni)]), ..Bridge::default() };
        let ports = (1..=PORTS).map(|n| Port::new(port(n), Attachment::Access(vlan())));
        let peers = (0..PEERS).map(|n| Port::peer(port(21 + n), remote(n), UDP_PORT, 1500));
        // A flood among local ports must meet no peer.
        let peers = peers.filter(|_| way != Way::Flood);
        let topology = Topology::new(vec![bridge], ports.chain(peers)).expect("no two names are equal");
        let macs = MacTable::new(65_536, Duration::from_secs(300), [1, 2]);
        topology.ports().for_each(|port| macs.bind(port.id, None));
        let (here, there) = (|n: u64| 1 + n % PORTS, |n: u64| 21 + n % PEERS);
        // Even stations are local; odd ones are too, or behind a peer.
        let home = |n: u64| match way {
            Way::Encap | Way::Decap if n % 2 == 1 => there(n / 2),
            _ => here(n),
        };
        for n in 0..STATIONS {
            macs.learn(NOW, segment(), station(n), port(home(n)));
        }
        let mut dice = Dice::new(3);
        let plan = (0..1 << 14).map(|_| {
            let (mut src, mut dst) = (dice.below(STATIONS / 2) * 2, dice.below(STATIONS / 2) * 2 + 1);
            if way == Way::Decap {
                (src, dst) = (dst, src);
            }
            while home(src) == home(dst) {
                dst = (dst + 2) % STATIONS;
            }
            let to = if way == Way::Flood { Mac::BROADCAST } else { station(dst) };
            let mut addresses = [0; 12];
            addresses[..6].copy_from_slice(&to.bytes());
            addresses[6..].copy_from_slice(&station(src).bytes());
            (port(home(src)).get(), addresses)
        });
        let header = vxlan::header(vni);
        let base = if way == Way::Decap { header.len() } else { 0 };
        let frame = [&header[..base], &udp(64)].concat();
        let mut batch = Batch::new(size);
        while batch.copy_in(Arrival::Port(port(1)), &frame, Offload::NONE) {}
        let leaves = if way == Way::Flood { size * 16 } else { size };
        Self {
            way,
            plan: plan.collect(),
            worker: Worker::new(Arc::new(topology), Arc::new(macs)),
            batch,
            tx: TxList::new(),
            next: 0,
            base,
            len: frame.len(),
            leaves,
        }
    }

    fn fill(&mut self) {
        let size = self.batch.capacity();
        if self.next + size > self.plan.len() {
            self.next = 0;
        }
        let plan = &self.plan[self.next..self.next + size];
        self.next += size;
        self.batch.clear();
        for (slot, (_, addresses)) in self.batch.spares().zip(plan) {
            slot[self.base..self.base + 12].copy_from_slice(addresses);
        }
        for (from, _) in plan {
            let arrival = match self.way {
                Way::Decap => Arrival::Underlay {
                    local: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
                    remote: remote(u64::from(*from) - 21),
                    udp_port: UDP_PORT,
                },
                _ => Arrival::Port(port((*from).into())),
            };
            self.batch.push(arrival, self.len, Offload::NONE);
        }
        black_box(&self.batch);
    }

    fn forward(&mut self) {
        self.fill();
        self.worker.forward(NOW, &self.batch, &mut self.tx);
        assert_eq!(self.tx.len(), self.leaves);
        black_box(&self.tx);
        self.tx.clear();
    }
}

fn remote(n: u64) -> IpAddr {
    let last = u8::try_from(100 + n).expect("there are 16 peers");
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

fn forward(criterion: &mut Criterion) {
    let ways = [
        ("unicast", Way::Unicast),
        ("flood to 16", Way::Flood),
        ("encap", Way::Encap),
        ("decap", Way::Decap),
    ];
    for (name, way) in ways {
        let mut group = criterion.benchmark_group(name);
        for size in [1, 8, 32, 64] {
            let mut rig = Rig::new(way, size);
            group.bench_function(format!("batch {size}"), |b| each(b, size as u64, || rig.forward()));
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("fill");
    for (name, way) in [("from ports", Way::Unicast), ("from peers", Way::Decap)] {
        let mut rig = Rig::new(way, 32);
        group.bench_function(format!("batch 32, {name}"), |b| each(b, 32, || rig.fill()));
    }
    group.finish();
}

fn main() {
    let mut criterion = criterion();
    forward(&mut criterion);
    criterion.final_summary();
}
