//! Broadcasts, counted where they leave a node and where they arrive: one datagram to each node that must have it.

use super::pods::{Word, question};
use super::{Mesh, Pods, v4};
use crate::lab::{Deadline, Stopwatch};
use crate::node::{Outer, PATIENCE, Wire};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// How often a broadcast was seen, by underlay address to which it went, and by node at whose pods it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Times that it left the sending node for this address.
    pub datagrams: BTreeMap<IpAddr, usize>,
    /// Times that it arrived at this node.
    pub arrived: BTreeMap<usize, usize>,
}

/// The broadcast address of a subnet.
fn everybody(subnet: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, subnet, 255, 255)
}

/// Times that `word` is in what `frames` carry. Datagrams that were left to be cut later are one frame here.
fn count(frames: &[Vec<u8>], word: [u8; 16], mut seen: impl FnMut(&Outer)) {
    for frame in frames {
        let Some(outer) = Outer::parse(frame).filter(|outer| outer.dst_port == 4789) else { continue };
        for _ in outer.payload.windows(word.len()).filter(|window| *window == word) {
            seen(&outer);
        }
    }
}

/// A broadcast to count.
#[derive(Clone, Copy, Debug)]
pub struct Flood<'a> {
    /// The nodes.
    pub mesh: &'a Mesh,
    /// Their pods.
    pub pods: &'a Pods,
    /// Whose pod sends.
    pub from: usize,
    /// In which subnet.
    pub subnet: u8,
}

impl Flood<'_> {
    /// Sends one broadcast, which the pods of all of `to` must hear, and counts its copies. A second one that all have
    /// heard as well tells that no more of the first are under way.
    ///
    /// # Panics
    /// When one of them does not hear.
    #[must_use]
    pub fn copies(&self, to: &[usize]) -> Copies {
        let mut wire = Wire::open(&self.mesh.underlay.nodes[self.from - 1], "under");
        let question = question();
        let mut copies = Copies::default();
        for number in [0, 1] {
            self.pods.send(self.from, everybody(self.subnet), question, number);
            let deadline = Deadline::after(PATIENCE);
            let mut waiting = to.to_vec();
            while !waiting.is_empty() {
                for at in 1..=self.mesh.underlay.nodes.len() {
                    for word in self.pods.heard(at).into_iter().filter(|word| word.question == question) {
                        // A broadcast is also its own sender's, without the switch.
                        if word.number == 0 && at != self.from {
                            *copies.arrived.entry(at).or_insert(0) += 1;
                        }
                        if word.number == number {
                            waiting.retain(|waits| *waits != at);
                        }
                    }
                }
                assert!(
                    deadline.left().is_some(),
                    "the broadcast of node {} is not heard at {waiting:?}",
                    self.from
                );
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let from = u16::try_from(self.from).expect("a few thousand nodes");
        count(&wire.frames(), Word { question, from, number: 0 }.bytes(), |outer| {
            *copies.datagrams.entry(outer.dst).or_insert(0) += 1;
        });
        copies
    }
}

/// What floods still go to a node that may be dead.
#[derive(Debug)]
pub struct Hearing {
    wire: Wire,
    node: usize,
}

impl Hearing {
    /// Listens before node `n` from now on.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn open(mesh: &Mesh, n: usize) -> Self {
        Self { wire: mesh.underlay.wire(n), node: n }
    }

    /// Lets each of `senders` broadcast every `pace` until no copy has gone to the node for three rounds, and gives
    /// the time on `clock` of the last one.
    ///
    /// # Panics
    /// When that does not happen `within` that time; the message says which nodes still send.
    pub fn until_silent(
        &mut self,
        pods: &Pods,
        subnet: u8,
        senders: &[usize],
        clock: Stopwatch,
        pace: Duration,
        within: Duration,
    ) -> Duration {
        let deadline = Deadline::after(within);
        let (mut last, mut quiet) = (Duration::ZERO, 0);
        while quiet < 3 {
            let (round, question) = (Stopwatch::start(), question());
            let gap = pace / u32::try_from(senders.len().max(1)).unwrap_or(u32::MAX);
            let mut copies = BTreeMap::new();
            // Spread over the round, so that a burst is nobody's excuse.
            for (at, from) in (0..).zip(senders) {
                pods.send(*from, everybody(subnet), question, 0);
                while round.elapsed() < gap * (at + 1) {
                    std::thread::sleep(gap.min(Duration::from_millis(2)));
                }
                for frame in self.wire.frames() {
                    let Some(outer) = Outer::parse(&frame).filter(|outer| outer.dst == v4(self.node)) else {
                        continue;
                    };
                    if outer.dst_port == 4789 && outer.payload.windows(8).any(|window| window == b"reach me")
                    {
                        last = clock.elapsed();
                        *copies.entry(outer.src).or_insert(0) += 1;
                    }
                }
            }
            quiet = if copies.is_empty() { quiet + 1 } else { 0 };
            senders.iter().for_each(|at| drop(pods.heard(*at)));
            assert!(deadline.left().is_some(), "floods still go to node {} from {copies:?}", self.node);
        }
        last
    }
}
