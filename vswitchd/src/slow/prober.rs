//! Which peers live, and what their paths carry: asked in SWIM's manner (Das, Gupta, Motivala 2002), a few at random
//! in each interval, so that the cost for a node is the same in a mesh of ten and of a thousand.
//!
//! A probe that is not answered is followed by a small one and by the question of others; only when all of that is in
//! vain is a peer down. Every answer returns a number that only who saw the question can know, and counts only when it
//! comes from whom was asked. Traffic proves less: it puts a probe off, and never contradicts one that failed. A peer
//! that never answered may be of a kind that knows no probes (a kernel, Open vSwitch): it is unknown, and used.
//!
//! Pure: the caller sends, receives, tells the time and the randomness, and guarantees that datagrams come from peers.

mod peer;
mod rounds;

use super::probe::{Message, Nonce, payload_of};
use peer::{Peer, Trial};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::Instant;

/// How often peers are picked.
const INTERVAL: Duration = Duration::from_millis(500);
/// Trials in a row in which only others reached the peer, after which there is no way from here.
const ONLY_OTHERS: u8 = 3;
/// First questions a second.
const CONTACTS: Duration = Duration::from_millis(20);
/// How many peers are asked before their turn in an interval: suspects, and the dead after one came back.
const SOON: usize = 20;
/// A tick that comes so much too late finds us to be slow, not the others to be silent.
const LATE: Duration = Duration::from_millis(200);
/// One that is always late must judge all the same: so often it may wait again.
const SLEEPS: Duration = Duration::from_secs(5);
/// How long a nonce is good.
const NONCE_LIFE: Duration = Duration::from_secs(3);
/// Questions for others that are honoured in an interval, of all and of one.
const FAVOURS: usize = 100;
const FAVOURS_EACH: u8 = 20;

/// Whether a peer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It answers.
    Up,
    /// It did, or should, and does not.
    Down,
    /// It never answered, and need not be able to.
    Unknown,
}

impl PeerState {
    /// One word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A peer to be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePeer {
    /// Its address.
    pub address: IpAddr,
    /// The largest outer IP packet that is sent to it, in bytes.
    pub mtu_limit: u16,
    /// It is known to answer probes.
    pub speaks: bool,
    /// Which of its lives this is, where that is known.
    pub boot: Option<u64>,
}

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this UDP payload to that peer's VXLAN port.
    Send {
        /// The peer.
        to: IpAddr,
        /// The payload.
        datagram: Vec<u8>,
    },
    /// The state of the peer, its path's MTU or its round trip changed: see [`Prober::status`].
    Changed(IpAddr),
}

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it lives.
    pub state: PeerState,
    /// What the path to it carries, in bytes of outer IP packet, as far as that was found out.
    pub mtu: Option<u16>,
    /// How long its answers take.
    pub rtt: Option<Duration>,
}

/// What the answer to a nonce means.
#[derive(Clone, Copy, Debug)]
enum Meaning {
    /// The peer lives; `full`: asked with a datagram of its path's size.
    Lives { size: u16, full: bool },
    /// The path carries this size.
    Carries { size: u16 },
    /// The target lives, says the peer.
    OtherLives { target: IpAddr },
    /// The asker is to be told, under its own nonce.
    Favour { asker: IpAddr, nonce: Nonce },
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    /// Who is to answer.
    peer: IpAddr,
    meaning: Meaning,
    sent: Instant,
}

/// Fills a buffer with numbers that nobody can guess.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// Asks peers.
pub struct Prober {
    random: Random,
    peers: BTreeMap<IpAddr, Peer>,
    pending: HashMap<Nonce, Pending>,
    /// Pending nonces by age.
    ages: VecDeque<(Instant, Nonce)>,
    /// Everybody, shuffled, and whose turn it is.
    turns: Vec<IpAddr>,
    turn: usize,
    /// Who has not been asked yet.
    contacts: VecDeque<IpAddr>,
    next_contact: Instant,
    /// Whose turn came while traffic did.
    put_off: Vec<IpAddr>,
    dead: BTreeSet<IpAddr>,
    /// Who never answered, is not known to be able to, and is to be asked again.
    mute: VecDeque<IpAddr>,
    /// Who is asked before its turn, and how many were in this interval.
    soon: VecDeque<IpAddr>,
    asked_soon: usize,
    next_round: Instant,
    round: u64,
    timers: BTreeSet<(Instant, IpAddr)>,
    favours: usize,
    /// When it last found itself late.
    slept: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober").field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}

impl Prober {
    /// Nobody to ask, yet.
    #[must_use]
    pub fn new(now: Instant, random: Random) -> Self {
        let mut prober = Self {
            random,
            peers: BTreeMap::new(),
            pending: HashMap::new(),
            ages: VecDeque::new(),
            turns: Vec::new(),
            turn: 0,
            contacts: VecDeque::new(),
            next_contact: now,
            put_off: Vec::new(),
            dead: BTreeSet::new(),
            mute: VecDeque::new(),
            soon: VecDeque::new(),
            asked_soon: 0,
            next_round: now,
            round: 1,
            timers: BTreeSet::new(),
            favours: 0,
            slept: None,
            outputs: VecDeque::new(),
        };
        // Nodes that start together shall not ask together.
        let part = u32::try_from(prober.below(1 << 16)).unwrap_or(0);
        prober.next_round = now.after(INTERVAL * part / (1 << 16));
        prober
    }

    /// These are the peers. What is known of one stays, unless this is another life of it; another limit has its path
    /// searched anew.
    pub fn set_peers(&mut self, peers: impl IntoIterator<Item = ProbePeer>) {
        let mut before = std::mem::take(&mut self.peers);
        let (mut contacts, mut ended) = (Vec::new(), BTreeSet::new());
        for spec in peers {
            let address = spec.address;
            let known = before.remove(&address);
            let lives_on = |peer: &Peer| match (peer.spec.boot, spec.boot) {
                (Some(was), Some(is)) => was == is,
                _ => true,
            };
            let peer = match known {
                Some(mut peer) if lives_on(&peer) => {
                    if peer.spec.mtu_limit != spec.mtu_limit {
                        peer.path.restart(spec.mtu_limit);
                        self.outputs.push_back(Output::Changed(address));
                        contacts.push(address);
                    } else if spec.speaks && !peer.spec.speaks {
                        contacts.push(address);
                    }
                    peer.spec = spec;
                    peer
                }
                other => {
                    if let Some(mut old) = other {
                        self.forget_timer(address, &mut old);
                        ended.insert(address);
                        self.outputs.push_back(Output::Changed(address));
                    }
                    contacts.push(address);
                    Peer::new(spec)
                }
            };
            self.peers.insert(address, peer);
        }
        for (address, mut peer) in before {
            self.forget_timer(address, &mut peer);
            ended.insert(address);
        }
        if !ended.is_empty() {
            // What a life that is over answers late says nothing of the next one.
            self.pending.retain(|_, pending| !ended.contains(&pending.peer));
        }
        self.dead.retain(|dead| self.peers.get(dead).is_some_and(|peer| peer.state == PeerState::Down));
        self.turns = self.peers.keys().copied().collect();
        self.shuffle();
        // In an order of our own: nodes that start together shall not all fall upon the same one.
        for last in (1..contacts.len()).rev() {
            let other = self.below(last + 1);
            contacts.swap(last, other);
        }
        self.contacts.extend(contacts);
    }

    /// Frames came from that peer.
    pub fn heard(&mut self, peer: IpAddr) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.heard = Some(self.round);
        }
    }

    /// Somebody says that the peer does not answer: it is asked at once, as long as these are not too many.
    pub fn suspect(&mut self, now: Instant, peer: IpAddr) {
        if self.peers.get(&peer).is_some_and(|peer| peer.state != PeerState::Down) {
            self.ask_soon(now, peer);
        }
    }

    /// The kernel refused a datagram to that peer for its size.
    pub fn too_big(&mut self, now: Instant, peer: IpAddr, payload: usize) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let outer = usize::from(u16::MAX) - payload_of(peer, u16::MAX);
        known.path.refused(now, u16::try_from(payload + outer).unwrap_or(u16::MAX));
        self.outputs.push_back(Output::Changed(peer));
        self.set_timer(peer);
    }

    /// The first bytes of a probe datagram of `len` bytes that came from `from`, a peer.
    pub fn datagram(&mut self, now: Instant, from: IpAddr, head: &[u8], len: usize) {
        let from = from.to_canonical();
        if !self.peers.contains_key(&from) {
            return;
        }
        match Message::parse(head) {
            Some(Message::Probe { nonce }) => {
                let len = u16::try_from(len).unwrap_or(u16::MAX);
                self.send(from, Message::Answer { nonce, len }, 0);
                // Whoever asks may live; whether it does, its own answer tells.
                if self
                    .peers
                    .get(&from)
                    .is_some_and(|peer| peer.state != PeerState::Up && peer.trial.is_none())
                {
                    self.ask(now, from);
                }
            }
            Some(Message::Answer { nonce, len }) => self.answered(now, from, &nonce, Some(len)),
            Some(Message::AskAnswer { nonce }) => self.answered(now, from, &nonce, None),
            Some(Message::Ask { nonce, target }) => self.do_favour(now, from, nonce, target),
            None => {}
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        // What is wanted at once is due since the beginning of time.
        let timer = self.timers.iter().map(|(at, _)| *at).find(|at| *at > Instant::ZERO);
        if now.since(timer.map_or(self.next_round, |at| at.min(self.next_round))) > LATE {
            self.slept(now);
        }
        while let Some((sent, nonce)) = self.ages.front().copied() {
            if now.since(sent) < NONCE_LIFE {
                break;
            }
            self.ages.pop_front();
            self.pending.remove(&nonce);
        }
        while now >= self.next_contact
            && let Some(peer) = self.contacts.pop_front()
        {
            // It may have come first, and been asked then.
            if self.peers.get(&peer).is_some_and(|peer| peer.path.found().is_none()) {
                self.next_contact = now.after(CONTACTS);
                self.ask(now, peer);
            }
        }
        while let Some((at, peer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, peer));
            if let Some(known) = self.peers.get_mut(&peer) {
                known.timer = None;
            }
            self.due(now, peer);
        }
        if now >= self.next_round {
            self.next_round = now.after(INTERVAL);
            self.round(now);
        }
    }

    /// When [`Self::tick`] has something to do; `None` without peers.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let round = (!self.peers.is_empty()).then_some(self.next_round);
        let contact = (!self.contacts.is_empty()).then_some(self.next_contact);
        let timer = self.timers.first().map(|(at, _)| *at);
        [round, contact, timer].into_iter().flatten().min()
    }

    /// What is to be done; `None` when that was all.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What is known of a peer.
    #[must_use]
    pub fn status(&self, peer: IpAddr) -> Option<Status> {
        let peer = self.peers.get(&peer)?;
        Some(Status { state: peer.state, mtu: peer.path.found(), rtt: peer.rtt })
    }

    fn answered(&mut self, now: Instant, from: IpAddr, nonce: &Nonce, len: Option<u16>) {
        let Some(pending) = self.pending.get(nonce).copied().filter(|pending| pending.peer == from) else {
            return;
        };
        // An answer has a length, others' word has none.
        if len.is_some() == matches!(pending.meaning, Meaning::OtherLives { .. }) {
            return;
        }
        self.pending.remove(nonce);
        let whole = |size: u16| len.is_some_and(|len| usize::from(len) == payload_of(from, size));
        match pending.meaning {
            Meaning::Lives { size, full } => {
                self.time(from, now.since(pending.sent));
                let Some(peer) = self.peers.get_mut(&from) else { return };
                let trial = peer.trial.take();
                (peer.only_others, peer.wait) = (0, None);
                let before = peer.path.found();
                if full && whole(size) {
                    peer.path.answered(now, size);
                } else if trial.is_some_and(Trial::full) {
                    peer.path.lost(now, size);
                }
                if peer.path.found() != before {
                    self.outputs.push_back(Output::Changed(from));
                }
                self.set_state(now, from, PeerState::Up);
                // What a small answer leaves open is asked soon.
                if !full && trial.is_some() {
                    self.ask_soon(now, from);
                }
            }
            Meaning::Carries { size } => {
                self.time(from, now.since(pending.sent));
                if let Some(peer) = self.peers.get_mut(&from)
                    && whole(size)
                    && peer.path.answered(now, size)
                {
                    self.outputs.push_back(Output::Changed(from));
                }
            }
            Meaning::OtherLives { target } => {
                let Some(peer) = self.peers.get_mut(&target).filter(|peer| peer.trial.is_some()) else {
                    return;
                };
                peer.trial = None;
                peer.only_others = peer.only_others.saturating_add(1);
                // It lives, but if nothing gets there from here, that is no help.
                if peer.only_others < ONLY_OTHERS {
                    self.put_into_soon(target);
                } else {
                    self.set_state(now, target, PeerState::Down);
                }
                self.set_timer(target);
            }
            Meaning::Favour { asker, nonce } => self.send(asker, Message::AskAnswer { nonce }, 0),
        }
        self.set_timer(from);
    }

    fn time(&mut self, from: IpAddr, took: Duration) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.rtt = Some(peer.rtt.map_or(took, |rtt| (rtt * 7 + took) / 8));
        }
    }

    fn set_state(&mut self, now: Instant, address: IpAddr, state: PeerState) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let before = std::mem::replace(&mut peer.state, state);
        if before == state {
            return;
        }
        (peer.next, peer.only_others, peer.put_off) = (None, 0, None);
        self.outputs.push_back(Output::Changed(address));
        self.dead.remove(&address);
        if state == PeerState::Down {
            // What was lost meanwhile says nothing about sizes.
            peer.path.give_up();
            self.dead.insert(address);
        }
        if before == PeerState::Down {
            peer.path.look_again(now);
            // A network has healed, perhaps: everybody that was lost with it is asked soon.
            for dead in self.dead.clone() {
                self.ask_soon(now, dead);
            }
        }
        self.set_timer(address);
    }

    /// Notes when the peer needs something next.
    fn set_timer(&mut self, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let trial = peer.trial.map(Trial::until);
        let path = peer.path.next_due().filter(|_| peer.state == PeerState::Up);
        let next = [trial, path, peer.next].into_iter().flatten().min();
        if next == peer.timer {
            return;
        }
        if let Some(old) = std::mem::replace(&mut peer.timer, next) {
            self.timers.remove(&(old, address));
        }
        self.timers.extend(next.map(|at| (at, address)));
    }

    fn forget_timer(&mut self, address: IpAddr, peer: &mut Peer) {
        if let Some(timer) = peer.timer.take() {
            self.timers.remove(&(timer, address));
        }
    }

    fn send(&mut self, to: IpAddr, message: Message, len: usize) {
        self.outputs.push_back(Output::Send { to, datagram: message.datagram(len) });
    }

    fn pend(&mut self, now: Instant, peer: IpAddr, meaning: Meaning) -> Nonce {
        let mut nonce = Nonce::default();
        (self.random)(&mut nonce);
        self.pending.insert(nonce, Pending { peer, meaning, sent: now });
        self.ages.push_back((now, nonce));
        nonce
    }

    fn below(&mut self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        (self.random)(&mut bytes);
        let wide = u128::from(u64::from_le_bytes(bytes)) * (bound as u128);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// A new order (Fisher and Yates).
    fn shuffle(&mut self) {
        self.turn = 0;
        for last in (1..self.turns.len()).rev() {
            let other = self.below(last + 1);
            self.turns.swap(last, other);
        }
    }
}
