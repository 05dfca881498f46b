//! Pods that send each other small numbered datagrams: who reaches whom, and when.
//!
//! One socket on every node serves all that is asked of its pods; no thread and no process. Not here: load.

use super::{Routed, pod};
use crate::lab::{Deadline, Namespace, Stopwatch};
use crate::socket::set_room;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What a datagram says: which question it belongs to, and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) question: u32,
    pub(super) from: u16,
    pub(super) number: u16,
}

const MAGIC: [u8; 8] = *b"reach me";

impl Word {
    pub(super) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.question.to_be_bytes());
        bytes[12..14].copy_from_slice(&self.from.to_be_bytes());
        bytes[14..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let question = u32::from(word(8)) << 16 | u32::from(word(10));
        (bytes[..8] == MAGIC).then(|| Self { question, from: word(12), number: word(14) })
    }
}

/// A number that no other question has.
pub(super) fn question() -> u32 {
    static QUESTIONS: AtomicU32 = AtomicU32::new(1);
    QUESTIONS.fetch_add(1, Ordering::Relaxed)
}

/// UDP port of the pods.
const PORT: u16 = 7000;

/// How soon a pod asks again. A hundred pods that ask a hundred each are 10,000 datagrams, the first of which are also
/// 10,000 requests for an address.
const AGAIN: Duration = Duration::from_millis(100);

/// The pods of all nodes.
#[derive(Debug)]
pub struct Pods {
    /// By node's number less one.
    sockets: Vec<UdpSocket>,
}

fn open(node: &Namespace) -> UdpSocket {
    let socket = node.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))).expect("the port is free");
    socket.set_nonblocking(true).expect("a socket");
    socket.set_broadcast(true).expect("a socket");
    set_room(&socket);
    socket
}

impl Pods {
    /// Opens their sockets; the pods themselves may come later.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn open(underlay: &Routed) -> Self {
        Self { sockets: underlay.nodes.iter().map(open).collect() }
    }

    /// Sends from node `from`; while there is no way, nothing is sent.
    pub(super) fn send(&self, from: usize, to: Ipv4Addr, question: u32, number: u16) {
        let word = Word { question, from: u16::try_from(from).expect("a few thousand nodes"), number };
        let _ = self.sockets[from - 1].send_to(&word.bytes(), (to, PORT));
    }

    /// What has arrived at node `at`.
    pub(super) fn heard(&self, at: usize) -> Vec<Word> {
        let mut words = Vec::new();
        let mut buffer = [0; 64];
        // An error of an earlier datagram (ICMP) is told once and no end.
        for _ in 0..100_000 {
            match self.sockets[at - 1].recv(&mut buffer) {
                Ok(len) => words.extend(Word::parse(&buffer[..len])),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
        words
    }

    /// Waits until a datagram from every node's pod in the subnet has reached every other's, and gives how long that
    /// took: each ordered pair of `nodes`.
    ///
    /// # Panics
    /// When some do not `within` that time; the message lists them.
    pub fn until_all_reach(&self, subnet: u8, nodes: &[usize], within: Duration) -> Duration {
        let pairs = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
        self.until_reached(subnet, pairs.filter(|(from, to)| from != to), within)
    }

    /// The same for these ordered pairs of nodes.
    ///
    /// # Panics
    /// When some do not `within` that time; the message lists them.
    pub fn until_reached(
        &self,
        subnet: u8,
        pairs: impl IntoIterator<Item = (usize, usize)>,
        within: Duration,
    ) -> Duration {
        let (clock, deadline, question) = (Stopwatch::start(), Deadline::after(within), question());
        let mut left: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (from, to) in pairs {
            left.entry(from).or_default().insert(to);
        }
        let mut due = Duration::ZERO;
        while !left.is_empty() {
            if clock.elapsed() >= due {
                let froms: Vec<usize> = left.keys().copied().collect();
                for from in froms {
                    for to in left.get(&from).into_iter().flatten() {
                        self.send(from, pod(subnet, *to), question, 0);
                    }
                    self.cross_off(&mut left, question);
                }
                due = clock.elapsed() + AGAIN;
            }
            self.cross_off(&mut left, question);
            if deadline.left().is_none() {
                let count: usize = left.values().map(BTreeSet::len).sum();
                let shown: Vec<_> = left.iter().take(10).collect();
                panic!("{count} ordered pairs do not reach each other within {within:?}, such as {shown:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        clock.elapsed()
    }

    fn cross_off(&self, left: &mut BTreeMap<usize, BTreeSet<usize>>, question: u32) {
        for at in 1..=self.sockets.len() {
            for word in self.heard(at).into_iter().filter(|word| word.question == question) {
                let from = usize::from(word.from);
                if let Some(to) = left.get_mut(&from) {
                    to.remove(&at);
                    if to.is_empty() {
                        left.remove(&from);
                    }
                }
            }
        }
    }

    /// The ordered pairs of these that a datagram reaches now: each is tried `times`, and what has not come a moment
    /// after the last one, does not.
    #[must_use]
    pub fn reaching(&self, subnet: u8, pairs: &[(usize, usize)], times: u32) -> BTreeSet<(usize, usize)> {
        let question = question();
        let mut reached = BTreeSet::new();
        for _ in 0..times {
            for (from, to) in pairs {
                self.send(*from, pod(subnet, *to), question, 0);
            }
            std::thread::sleep(AGAIN);
            for at in 1..=self.sockets.len() {
                let heard = self.heard(at).into_iter().filter(|word| word.question == question);
                reached.extend(heard.map(|word| (usize::from(word.from), at)));
            }
        }
        reached
    }

    /// Waits until a datagram from each of `senders` to `address` has arrived at node `at`, and gives for each sender
    /// the time on `clock` when its first did. Asked every `pace`; what arrives at other nodes is counted by node.
    ///
    /// # Panics
    /// When some do not `within` that time.
    pub fn until_found(
        &self,
        address: Ipv4Addr,
        at: usize,
        senders: &[usize],
        clock: Stopwatch,
        pace: Duration,
        within: Duration,
    ) -> BTreeMap<usize, Duration> {
        let (deadline, question) = (Deadline::after(within), question());
        let mut found = BTreeMap::new();
        let mut due = Duration::ZERO;
        while found.len() < senders.len() {
            if clock.elapsed() >= due {
                due = clock.elapsed() + pace;
                for from in senders.iter().filter(|from| !found.contains_key(*from)) {
                    self.send(*from, address, question, 0);
                }
            }
            let heard = self.heard(at).into_iter().filter(|word| word.question == question);
            for word in heard {
                found.entry(usize::from(word.from)).or_insert_with(|| clock.elapsed());
            }
            let missing =
                || senders.iter().filter(|from| !found.contains_key(*from)).take(10).collect::<Vec<_>>();
            assert!(deadline.left().is_some(), "{address} at node {at} is not reached from {:?}", missing());
            std::thread::sleep(Duration::from_micros(500));
        }
        found
    }

    /// Sends `times` datagrams from each of `senders` to `address` and gives how many of them arrived at each node,
    /// once all have arrived somewhere or a moment has passed.
    #[must_use]
    pub fn whereabouts(&self, address: Ipv4Addr, senders: &[usize], times: u16) -> BTreeMap<usize, usize> {
        let question = question();
        for number in 0..times {
            for from in senders {
                self.send(*from, address, question, number);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let deadline = Deadline::after(Duration::from_millis(500));
        let mut arrived = BTreeMap::new();
        while deadline.left().is_some()
            && arrived.values().sum::<usize>() < senders.len() * usize::from(times)
        {
            for at in 1..=self.sockets.len() {
                let count = self.heard(at).iter().filter(|word| word.question == question).count();
                if count > 0 {
                    *arrived.entry(at).or_insert(0) += count;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        arrived
    }
}
