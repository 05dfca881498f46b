//! Nothing is allocated per frame: counted by the allocator itself, in steady state.
//!
//! A binary of its own, since an allocator is a process's. Not here: time.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]
#![expect(unsafe_code, reason = "allocations can only be counted by an allocator, whose trait is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::port::{Carries, InnerVlan, Tunnel};
use vswitch_core::switch::{Bridge, Rule, RuleAction, RuleMatch, Topology, Worker};
use vswitch_core::{
    Arrival, Attachment, Batch, Instant, Mac, MacTable, Offload, Port, PortId, TxList, Vlan, Vni,
};
use vswitch_tests::driven::from_peer;
use vswitch_tests::frames::{Frame, ctag, station, vxlan};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is handed to the system's allocator as it came; counting touches a thread's own number, which
// needs neither memory nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the promises of the trait, which are those of System.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

const PORTS: u32 = 101;
const TRUNK: u32 = 200;
const BATCH: usize = 32;

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 10, 0, n)
}

fn peer(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

/// 101 access ports of VLAN 10, a trunk, and eight peers.
fn worker() -> Worker {
    let ten = Vlan::new(10).unwrap();
    let local = (1..=PORTS).map(|n| Port::new(id(n), Attachment::Access(ten)));
    let trunk = Port::new(id(TRUNK), Attachment::trunk_all());
    let peers = (1..=8).map(|n| Port::peer(id(300 + u32::from(n)), peer(n), 4789, 1500));
    let mut bridge = Bridge { neigh_suppress: true, ..Bridge::default() };
    bridge.vnis.insert(ten, Vni::new(10_010).unwrap());
    let ports: Vec<Port> = local.chain([trunk]).chain(peers).collect();
    let macs = Arc::new(MacTable::new(65_536, Duration::from_secs(300), [1, 2]));
    ports.iter().for_each(|port| macs.bind(port.id, None));
    Worker::new(Arc::new(Topology::new(vec![bridge], ports).unwrap()), macs)
}

/// A batch of one kind, each frame made by its number.
fn batch(make: impl Fn(u32) -> (Arrival, Frame)) -> Batch {
    let mut batch = Batch::new(BATCH);
    for n in 0..u32::try_from(BATCH).unwrap() {
        let (arrival, frame) = make(n);
        let bytes = match arrival {
            Arrival::Port(_) => frame.bytes(),
            Arrival::Underlay { .. } => vxlan(Vni::new(10_010).unwrap(), &frame.bytes()),
        };
        assert!(batch.copy_in(arrival, &bytes, Offload::NONE));
    }
    batch
}

#[test]
fn a_frame_in_steady_state_allocates_nothing() {
    let mut worker = worker();
    let mut tx = TxList::new();
    let port = |n: u32| Arrival::Port(id(1 + n % PORTS));
    // Stations 0..101 are on the ports of their number, 200..208 behind the peers.
    let local = batch(|n| (port(n), Frame::new(Mac::BROADCAST, station(n))));
    let remote = batch(|n| {
        let n = n % 8;
        (from_peer(peer(1 + u8::try_from(n).unwrap())), Frame::new(Mac::BROADCAST, station(200 + n)))
    });
    let kinds = [
        ("flood to 100 ports and 8 peers", batch(|n| (port(n), Frame::new(Mac::BROADCAST, station(n))))),
        ("unicast", batch(|n| (port(n), Frame::new(station((n + 1) % 32), station(n))))),
        (
            "unicast from a trunk",
            batch(|n| (Arrival::Port(id(TRUNK)), Frame::new(station(n), station(99)).tag(ctag(10, 3)))),
        ),
        ("encapsulation", batch(|n| (port(n), Frame::new(station(200 + n % 8), station(n))))),
        ("decapsulation", batch(|n| (from_peer(peer(1)), Frame::new(station(n), station(200))))),
        (
            "decapsulation and flood",
            batch(|_| (from_peer(peer(1)), Frame::new(Mac::BROADCAST, station(200)))),
        ),
        (
            "drop: a tag on an access port",
            batch(|n| (port(n), Frame::new(station(1), station(n)).tag(ctag(9, 0)))),
        ),
        ("drop: a stranger", batch(|_| (from_peer(peer(77)), Frame::new(station(1), station(2))))),
        ("drop: split horizon", batch(|_| (from_peer(peer(1)), Frame::new(station(201), station(200))))),
        (
            "too big, to the slow path",
            batch(|n| (port(n), Frame::new(station(200), station(n)).payload(0x0800, &[0x45; 1460]))),
        ),
        (
            "a question where an address is, to the slow path",
            batch(|n| {
                let (asks, asked) = ((station(n), v4(1)), (Mac::from_u64(0), v4(2)));
                (port(n), Frame::new(Mac::BROADCAST, station(n)).arp(1, asks, asked))
            }),
        ),
        (
            "an answer, a copy of it to the slow path as well",
            batch(|n| {
                let (answers, asked) = ((station(n), v4(1)), (station((n + 1) % 32), v4(2)));
                (port(n), Frame::new(asked.0, station(n)).arp(2, answers, asked))
            }),
        ),
        ("a station that moves", batch(|n| (port(n), Frame::new(station(1), station(3000))))),
    ];
    let mut now = 0;
    let mut run = |batch: &Batch, tx: &mut TxList| {
        now += 1;
        tx.clear();
        worker.forward(Instant::from_secs(now), batch, tx);
        worker.tick(Instant::from_secs(now));
        worker.events().count()
    };
    run(&local, &mut tx);
    run(&remote, &mut tx);
    for (name, batch) in &kinds {
        // Once to reach the high-water mark; what others have learned meanwhile is learned anew.
        run(&local, &mut tx);
        run(&remote, &mut tx);
        run(batch, &mut tx);
        let rounds = 10;
        let mut left = 0;
        let allocations = allocations_of(|| {
            for _ in 0..rounds {
                run(batch, &mut tx);
                left += tx.len();
            }
        });
        println!("{name}: {allocations} allocations in {} frames, {left} left", rounds * BATCH);
        assert_eq!(allocations, 0, "{name}");
        assert_eq!(
            left == 0,
            name.starts_with("drop") || name.ends_with(", to the slow path"),
            "{name}: {left}"
        );
    }
    // Stations that nobody has seen before, more than the table holds.
    let new =
        (0..2100).map(|round| batch(|n| (port(n), Frame::new(station(1), station(10_000 + round * 32 + n)))));
    for batch in new {
        assert_eq!(allocations_of(|| assert!(run(&batch, &mut tx) > 0)), 0, "learning");
    }
}

/// Two bridges, a cable that changes the tags of what crosses it, an ordinary tunnel and rules on the far side.
fn joined() -> Worker {
    let [ten, twenty] = [10, 20].map(|number| Vlan::new(number).unwrap());
    let port = |bridge: u8, number: u32, attachment| Port { bridge, ..Port::new(id(number), attachment) };
    let cable = |bridge: u8, number: u32, vlan, other: u32| Port {
        patch: Some(id(other)),
        ..port(bridge, number, Attachment::Access(vlan))
    };
    let vni = Vni::new(10_010).unwrap();
    let tunnel = Tunnel {
        remote: peer(1),
        local: None,
        udp_port: 4789,
        carries: Carries::Inside { in_vni: vni, out_vni: vni, attachment: Box::new(Attachment::trunk_all()) },
        floods: None,
        inner_vlan: InnerVlan::Strip,
        strict: false,
    };
    let ports = [
        port(0, 1, Attachment::Access(ten)),
        cable(0, 2, ten, 3),
        cable(1, 3, twenty, 2),
        port(1, 4, Attachment::trunk_all()),
        port(1, 5, Attachment::Tunnel(tunnel)),
    ];
    let rule = |id, matches, actions| Rule { id, matches, actions };
    let rules = vec![
        rule(0, RuleMatch { dst: Some(station(9)), ..RuleMatch::default() }, vec![RuleAction::Flood]),
        rule(1, RuleMatch::default(), vec![RuleAction::Normal]),
    ];
    let bridges = vec![Bridge::default(), Bridge { rules: Some(rules), ..Bridge::default() }];
    let macs = Arc::new(MacTable::new(1000, Duration::from_secs(300), [1, 2]));
    ports.iter().for_each(|port| macs.bind(port.id, None));
    Worker::new(Arc::new(Topology::new(bridges, ports).unwrap()), macs)
}

#[test]
fn a_frame_that_crosses_cables_and_meets_rules_allocates_nothing_either() {
    let mut worker = joined();
    let mut tx = TxList::new();
    let kinds = [
        ("to the far side", batch(|n| (Arrival::Port(id(1)), Frame::new(Mac::BROADCAST, station(n))))),
        (
            "from a tunnel",
            batch(|n| (from_peer(peer(1)), Frame::new(Mac::BROADCAST, station(100 + n)).tag(ctag(20, 0)))),
        ),
        ("back", batch(|n| (Arrival::Port(id(4)), Frame::new(station(n), station(200)).tag(ctag(20, 5))))),
        ("by a rule", batch(|n| (Arrival::Port(id(4)), Frame::new(station(9), station(300 + n))))),
    ];
    for round in 0..20 {
        for (name, batch) in &kinds {
            let allocations = allocations_of(|| {
                tx.clear();
                worker.forward(Instant::from_secs(round), batch, &mut tx);
            });
            worker.events().for_each(drop);
            assert!(tx.len() >= BATCH, "{name}: {} left", tx.len());
            assert!(round == 0 || allocations == 0, "{name}: {allocations} allocations");
        }
    }
}
