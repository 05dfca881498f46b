//! Two slow paths that probe each other through real workers and sockets. Not here: whom the prober asks and believes (see
//! `slow/prober.rs`).

#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use crossbeam_channel::{Receiver, bounded};
use link_support::{LIMIT, isolated, up};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::switch::{Bridge, Topology};
use vswitch_core::{MacTable, Port, PortId};
use vswitchd::datapath::{Event, PortLink, Setup, Workers, punts};
use vswitchd::link::{AnyLink, POOL_SIZE, Peer, UdpPool, UdpReceiver};
use vswitchd::slow::{Parts, PeerState, ProbePeer, SlowPath};
use vswitchd::sys::netlink::{Change, Netlink};
use vswitchd::sys::random::Random;

/// A node with one peer and no pods.
struct Node {
    workers: Workers,
    slow: SlowPath,
    events: Receiver<Event>,
    link: Arc<PortLink>,
    peer: IpAddr,
}

impl Node {
    fn new(own: IpAddr, peer: IpAddr) -> Self {
        let id = PortId::new(40).unwrap();
        let port = Port::peer(id, peer, 4789, 1500);
        let (tell, events) = bounded(1024);
        let (punts, punted) = punts();
        let workers = Workers::start(1, tell.clone(), Arc::new(|| {}), punts).unwrap();
        let pool = Arc::new(UdpPool::open(own, POOL_SIZE, 0).unwrap());
        let to = AnyLink::Peer(Peer::new(pool, SocketAddr::new(peer, 4789)));
        let link = Arc::new(PortLink { port: id, worker: 0, link: to });
        let mut links = vec![None; 41];
        links[40] = Some(Arc::clone(&link));
        let receivers = UdpReceiver::open_all(SocketAddr::new(own, 4789), 1, 1 << 20).unwrap();
        let setup = Setup {
            topology: Arc::new(Topology::new(vec![Bridge::default()], [port]).unwrap()),
            macs: Some(Arc::new(MacTable::new(16, Duration::from_secs(300), [1, 2]))),
            links,
            receivers: vec![receivers.into_iter().map(Arc::new).collect()],
            ..Setup::default()
        };
        workers.apply(&Arc::new(setup)).unwrap();
        let mut random = Random::open().unwrap();
        let slow = SlowPath::start(Parts {
            punted,
            injector: workers.injector(),
            directory: Arc::default(),
            events: tell,
            wake_control: Arc::new(|| {}),
            random: Box::new(move |bytes| random.fill(bytes).unwrap()),
        })
        .unwrap();
        Self { workers, slow, events, link, peer }
    }

    fn probes(&self) {
        let spec = ProbePeer { address: self.peer, mtu_limit: 1500, speaks: true, boot: None };
        self.slow.set_peers(vec![(spec, Arc::clone(&self.link))]);
    }

    /// Waits until the peer is known to be like this.
    fn hears_of(&self, state: PeerState, mtu: Option<u16>) {
        loop {
            if let Event::Peer { address, state: is, mtu: carries, rtt } =
                self.events.recv_timeout(LIMIT).unwrap()
                && is == state
                && (mtu.is_none() || carries == mtu)
            {
                assert_eq!(address, self.peer);
                assert!(state != PeerState::Up || rtt.is_some(), "up without an answer");
                return;
            }
        }
    }
}

/// Two nodes that do not ask yet.
fn pair() -> (Node, Node) {
    let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
    (Node::new(one, two), Node::new(two, one))
}

#[test]
fn two_nodes_find_each_other_up_and_one_that_is_gone_down() {
    isolated(|| {
        let (one, two) = pair();
        one.probes();
        two.probes();
        one.hears_of(PeerState::Up, Some(1500));
        two.hears_of(PeerState::Up, Some(1500));
        // Probes are no frames: nothing is counted or dropped for them.
        for node in [&one, &two] {
            let snapshots = node.workers.snapshots().unwrap();
            let counters = snapshots[0].counters.port(PortId::new(40).unwrap());
            assert_eq!((counters.rx_frames, counters.dropped.iter().sum::<u64>()), (0, 0));
        }
        two.workers.stop();
        one.hears_of(PeerState::Down, None);
    });
}

#[test]
fn a_way_that_takes_less_than_was_thought_is_found_out_by_what_the_kernel_refuses() {
    isolated(|| {
        let lo = up("lo");
        Netlink::open().unwrap().change(lo, &Change { mtu: Some(1400), ..Change::default() }).unwrap();
        let (one, two) = pair();
        one.probes();
        two.probes();
        one.hears_of(PeerState::Up, Some(1400));
        two.hears_of(PeerState::Up, Some(1400));
    });
}

#[test]
fn a_node_that_asks_nobody_answers_all_the_same() {
    isolated(|| {
        let (one, two) = pair();
        one.probes();
        one.hears_of(PeerState::Up, Some(1500));
        assert!(two.events.is_empty());
    });
}
