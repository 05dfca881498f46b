//! A network of probers on a virtual clock: latency, loss, paths that swallow what is too large, partitions, nodes
//! that die and come back, nodes that speak no probes, and a store that passes on who does not answer.
//!
//! Everything depends on one seed. Not here: frames (see [`crate::fabric`]) and what should come of it all.

use crate::rng::Rng;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::Instant;
use vswitchd::slow::{Output, PeerState, ProbePeer, Prober};

/// What the local interfaces carry.
pub const LIMIT: u16 = 1500;

/// The address of node `n`.
///
/// # Panics
/// When there are more than 65,000.
#[must_use]
pub fn address(n: usize) -> IpAddr {
    let [high, low] = u16::try_from(n + 1).expect("few nodes").to_be_bytes();
    IpAddr::from([10, 0, high, low])
}

/// The node of an address.
#[must_use]
pub fn number(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(v4) => usize::from(u16::from_be_bytes([v4.octets()[2], v4.octets()[3]])) - 1,
        IpAddr::V6(_) => usize::MAX,
    }
}

/// A prober whose nonces and choices come from the stream of `seed`.
#[must_use]
pub fn prober(now: Instant, seed: u64) -> Prober {
    let mut rng = Rng::new(seed);
    Prober::new(now, Box::new(move |bytes| bytes.copy_from_slice(&rng.bytes(bytes.len()))))
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Wakes { node: usize },
    Arrives { to: usize, from: usize, datagram: Vec<u8> },
    Hint { node: usize, about: usize },
}

struct Node {
    /// `None`: it is dead, or speaks no probes.
    prober: Option<Prober>,
    wakes: Option<Instant>,
    boot: u64,
    states: BTreeMap<usize, PeerState>,
}

/// What one node thinks of another from now on.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// When.
    pub at: Instant,
    /// Who.
    pub node: usize,
    /// Of whom.
    pub peer: usize,
    /// What.
    pub state: PeerState,
}

/// The network.
pub struct Probing {
    /// The virtual time.
    pub now: Instant,
    /// Datagrams of a thousand that are lost.
    pub loss: usize,
    /// The largest outer IP packet that passes from one node to another.
    pub path: Box<dyn Fn(usize, usize) -> u16>,
    /// Whether anything passes from one node to another.
    pub passes: Box<dyn Fn(usize, usize) -> bool>,
    /// Whether the store passes on who is down, 5 to 50 ms later.
    pub hints: bool,
    /// Whether members of the store are probed (else the list is static).
    pub members: bool,
    /// Datagrams and bytes of UDP payload sent by all.
    pub sent: (u64, u64),
    /// What has changed, in order.
    pub changes: Vec<Change>,
    rng: Rng,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(Instant, u64, Happens)>>,
    order: u64,
}

impl Probing {
    /// `count` nodes that are not there yet.
    #[must_use]
    pub fn new(count: usize, seed: u64) -> Self {
        let node = || Node { prober: None, wakes: None, boot: 0, states: BTreeMap::new() };
        Self {
            now: Instant::from_secs(1000),
            loss: 0,
            path: Box::new(|_, _| LIMIT),
            passes: Box::new(|_, _| true),
            hints: true,
            members: true,
            sent: (0, 0),
            changes: Vec::new(),
            rng: Rng::new(seed),
            nodes: (0..count).map(|_| node()).collect(),
            queue: BinaryHeap::new(),
            order: 0,
        }
    }

    /// The node starts, in a new life. The store, if there is one, tells the others.
    pub fn start(&mut self, node: usize) {
        let seed = self.rng.next();
        let it = &mut self.nodes[node];
        it.boot += 1;
        it.states.clear();
        it.prober = Some(prober(self.now, seed));
    }

    /// The node is no more; nobody is told.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].prober = None;
    }

    /// Everybody knows of everybody, as they are now.
    pub fn introduce(&mut self) {
        let specs: Vec<ProbePeer> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(n, node)| ProbePeer {
                address: address(n),
                mtu_limit: LIMIT,
                speaks: self.members,
                boot: self.members.then_some(node.boot),
            })
            .collect();
        for n in 0..self.nodes.len() {
            let others = specs.iter().filter(|spec| spec.address != address(n)).copied();
            if let Some(prober) = &mut self.nodes[n].prober {
                prober.set_peers(others);
                self.settle(n);
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, _, what))) = self.queue.pop() else { break };
            self.now = at;
            let node = match what {
                Happens::Wakes { node } => {
                    if self.nodes[node].wakes != Some(at) {
                        continue;
                    }
                    self.nodes[node].wakes = None;
                    node
                }
                Happens::Arrives { to, from, datagram } => {
                    if let Some(prober) = &mut self.nodes[to].prober {
                        let head = &datagram[..datagram.len().min(64)];
                        prober.datagram(at, address(from), head, datagram.len());
                    }
                    to
                }
                Happens::Hint { node, about } => {
                    if let Some(prober) = &mut self.nodes[node].prober {
                        prober.suspect(at, address(about));
                    }
                    node
                }
            };
            self.settle(node);
        }
        self.now = end;
    }

    /// What a node thinks of another, and of the path to it.
    #[must_use]
    pub fn thinks(&self, node: usize, peer: usize) -> Option<(PeerState, Option<u16>)> {
        let status = self.nodes[node].prober.as_ref()?.status(address(peer))?;
        Some((status.state, status.mtu))
    }

    /// How many ordered pairs of living nodes think `state`.
    #[must_use]
    pub fn count(&self, state: PeerState) -> usize {
        let alive: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].prober.is_some()).collect();
        let pairs = alive.iter().flat_map(|a| alive.iter().map(move |b| (*a, *b)));
        pairs.filter(|(a, b)| a != b && self.thinks(*a, *b).is_some_and(|(is, _)| is == state)).count()
    }

    /// The node does what is due, and what it wants is done.
    fn settle(&mut self, n: usize) {
        let now = self.now;
        let Some(prober) = &mut self.nodes[n].prober else { return };
        if prober.next_due().is_some_and(|due| due <= now) {
            prober.tick(now);
        }
        let mut outputs = Vec::new();
        while let Some(output) = prober.poll() {
            outputs.push(output);
        }
        for output in outputs {
            match output {
                Output::Send { to, datagram } => self.transmit(n, number(to), datagram),
                Output::Changed(peer) => self.changed(n, number(peer)),
            }
        }
        let node = &mut self.nodes[n];
        let due = node.prober.as_ref().and_then(Prober::next_due).map(|due| due.max(now));
        if due.is_some() && due != node.wakes {
            node.wakes = due;
            self.happens(due.unwrap_or(now), Happens::Wakes { node: n });
        }
    }

    fn changed(&mut self, node: usize, peer: usize) {
        let Some((state, _)) = self.thinks(node, peer) else { return };
        if self.nodes[node].states.insert(peer, state) == Some(state) {
            return;
        }
        self.changes.push(Change { at: self.now, node, peer, state });
        if self.hints && state == PeerState::Down {
            for other in (0..self.nodes.len()).filter(|other| *other != node && *other != peer) {
                let later = Duration::from_millis(self.rng.within(5..=50) as u64);
                self.happens(self.now.after(later), Happens::Hint { node: other, about: peer });
            }
        }
    }

    fn transmit(&mut self, from: usize, to: usize, datagram: Vec<u8>) {
        self.sent = (self.sent.0 + 1, self.sent.1 + datagram.len() as u64);
        let lost = self.rng.below(1000) < self.loss;
        let fits = datagram.len() + 28 <= usize::from((self.path)(from, to));
        if lost || !fits || !(self.passes)(from, to) {
            return;
        }
        let latency = Duration::from_micros(self.rng.within(200..=2000) as u64);
        self.happens(self.now.after(latency), Happens::Arrives { to, from, datagram });
    }

    fn happens(&mut self, at: Instant, what: Happens) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order, what)));
    }
}
