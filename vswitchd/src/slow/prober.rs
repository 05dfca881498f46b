//! Which peers live, and what their paths carry: asked in SWIM's manner (Das, Gupta, Motivala 2002), a few at random
//! in each interval, so that the cost for a node is the same in a mesh of ten and of a thousand.
//!
//! A probe that is not answered is followed by a small one and by the question of others; only when all of that is in
//! vain is a peer down. Every answer returns a number that only who saw the question can know, and counts only when it
//! comes from whom was asked. Traffic proves less: it puts a probe off, and never contradicts one that failed. A peer
//! that never answered may be of a kind that knows no probes (a kernel, Open vSwitch): it is unknown, and used.
//!
//! Pure: the caller sends, receives, tells the time and the randomness, and guarantees that datagrams come from peers.

use super::path_mtu::PathMtu;
use super::probe::{Message, Nonce, payload_of};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::Instant;

/// How often peers are picked.
const INTERVAL: Duration = Duration::from_millis(500);
/// How many are picked of those that are up.
const PICKED: usize = 2;
/// How many are looked at in an interval until so many are found that were not heard.
const LOOKED_AT: usize = 32;
/// For how many of its turns traffic may stand for an answer.
const PUT_OFF: u8 = 10;
/// How long a direct answer is awaited at least, and at most; in between, three times what answers take.
const PATIENCE: Duration = Duration::from_millis(250);
const MOST_PATIENCE: Duration = Duration::from_secs(1);
/// How much longer the second, small probe and the others' answers are awaited.
const SECOND_PATIENCE: Duration = Duration::from_millis(350);
/// How many others are asked.
const ASKED: usize = 3;
/// Trials in a row in which only others reached the peer, after which there is no way from here.
const ONLY_OTHERS: u8 = 3;
/// First questions a second.
const CONTACTS: Duration = Duration::from_millis(20);
/// How many dead peers are asked in an interval, after one came back.
const REVIVED: usize = 20;
/// How soon a peer that never answered is asked again, at first and at last.
const UNKNOWN_FIRST: Duration = Duration::from_secs(1);
const UNKNOWN_LAST: Duration = Duration::from_secs(60);
/// How long a nonce is good.
const NONCE_LIFE: Duration = Duration::from_secs(3);
/// Questions for others that are honoured in an interval.
const FAVOURS: usize = 32;

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

/// A question that is under way.
#[derive(Clone, Copy, Debug)]
enum Trial {
    /// The full-size probe is.
    First(Instant),
    /// A small one and others' are.
    Second(Instant),
}

#[derive(Debug)]
struct Peer {
    spec: ProbePeer,
    state: PeerState,
    rtt: Option<Duration>,
    path: PathMtu,
    trial: Option<Trial>,
    /// Traffic came since its last turn.
    heard: bool,
    put_off: u8,
    only_others: u8,
    /// When one that never answered is asked again, and how long it is waited for after that.
    next: Option<(Instant, Duration)>,
    /// What stands in `Prober::timers`.
    timer: Option<Instant>,
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
    /// Dead ones that are asked before their turn.
    revived: VecDeque<IpAddr>,
    next_round: Instant,
    timers: BTreeSet<(Instant, IpAddr)>,
    favours: usize,
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
        Self {
            random,
            peers: BTreeMap::new(),
            pending: HashMap::new(),
            ages: VecDeque::new(),
            turns: Vec::new(),
            turn: 0,
            contacts: VecDeque::new(),
            next_contact: now,
            revived: VecDeque::new(),
            next_round: now.after(INTERVAL),
            timers: BTreeSet::new(),
            favours: 0,
            outputs: VecDeque::new(),
        }
    }

    /// These are the peers. What is known of one stays, unless this is another life of it.
    pub fn set_peers(&mut self, peers: impl IntoIterator<Item = ProbePeer>) {
        let mut before = std::mem::take(&mut self.peers);
        for spec in peers {
            let address = spec.address;
            let peer = match before.remove(&address) {
                Some(mut peer) if peer.spec.boot == spec.boot => {
                    if peer.spec.mtu_limit != spec.mtu_limit {
                        peer.path.restart(spec.mtu_limit);
                        self.contacts.push_back(address);
                    }
                    peer.spec = spec;
                    peer
                }
                other => {
                    if let Some(timer) = other.and_then(|peer| peer.timer) {
                        self.timers.remove(&(timer, address));
                    }
                    self.contacts.push_back(address);
                    Peer::new(spec)
                }
            };
            self.peers.insert(address, peer);
        }
        for (address, peer) in before {
            if let Some(timer) = peer.timer {
                self.timers.remove(&(timer, address));
            }
        }
        self.turns = self.peers.keys().copied().collect();
        self.shuffle();
    }

    /// Frames came from that peer.
    pub fn heard(&mut self, peer: IpAddr) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.heard = true;
        }
    }

    /// Somebody says that the peer does not answer: it is asked at once.
    pub fn suspect(&mut self, now: Instant, peer: IpAddr) {
        self.ask(now, peer);
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
            Some(Message::Ask { nonce, target }) => {
                if target != from && self.peers.contains_key(&target) && self.favours < FAVOURS {
                    self.favours += 1;
                    let meaning = Meaning::Favour { asker: from, nonce };
                    let nonce = self.pend(now, target, meaning);
                    self.send(target, Message::Probe { nonce }, 0);
                }
            }
            None => {}
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
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
            self.next_contact = self.next_contact.max(now).after(CONTACTS);
            self.ask(now, peer);
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

    /// One interval's share of questions.
    fn round(&mut self, now: Instant) {
        self.favours = 0;
        let (mut picked, mut down) = (0, 0);
        for _ in 0..LOOKED_AT.min(self.turns.len()) {
            if self.turn >= self.turns.len() {
                self.shuffle();
            }
            let Some(address) = self.turns.get(self.turn).copied() else { break };
            let Some(peer) = self.peers.get_mut(&address) else {
                self.turn += 1;
                continue;
            };
            match peer.state {
                _ if peer.trial.is_some() => {}
                PeerState::Up if peer.heard && peer.put_off < PUT_OFF => {
                    (peer.heard, peer.put_off) = (false, peer.put_off + 1);
                }
                PeerState::Up if picked < PICKED => {
                    picked += 1;
                    self.ask(now, address);
                }
                // The next interval's.
                PeerState::Up if picked == PICKED => break,
                PeerState::Down if down == 0 => {
                    down += 1;
                    self.ask(now, address);
                }
                PeerState::Up | PeerState::Down | PeerState::Unknown => {}
            }
            self.turn += 1;
        }
        for _ in 0..REVIVED {
            let Some(address) = self.revived.pop_front() else { break };
            self.ask(now, address);
        }
    }

    /// Asks a peer, unless that is under way.
    fn ask(&mut self, now: Instant, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(&address).filter(|peer| peer.trial.is_none()) else { return };
        (peer.heard, peer.put_off) = (false, 0);
        let size = peer.path.size();
        peer.trial = Some(Trial::First(now.after(peer.patience())));
        let nonce = self.pend(now, address, Meaning::Lives { size, full: true });
        self.send(address, Message::Probe { nonce }, payload_of(address, size));
        self.set_timer(address);
    }

    /// The time of something about this peer has come.
    fn due(&mut self, now: Instant, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        match peer.trial {
            Some(Trial::First(at)) if at <= now => {
                let more = SECOND_PATIENCE.max(peer.patience());
                peer.trial = Some(Trial::Second(now.after(more)));
                let size = peer.path.size();
                let nonce = self.pend(now, address, Meaning::Lives { size, full: false });
                self.send(address, Message::Probe { nonce }, 0);
                for helper in self.helpers(address) {
                    let nonce = self.pend(now, helper, Meaning::OtherLives { target: address });
                    self.send(helper, Message::Ask { nonce, target: address }, 0);
                }
            }
            Some(Trial::Second(at)) if at <= now => self.failed(now, address),
            _ => {}
        }
        let Some(peer) = self.peers.get_mut(&address) else { return };
        if let Some((at, wait)) = peer.next
            && at <= now
        {
            peer.next = None;
            if peer.state == PeerState::Unknown && peer.trial.is_none() {
                self.ask(now, address);
                if let Some(peer) = self.peers.get_mut(&address) {
                    let wait = (wait * 2).min(UNKNOWN_LAST);
                    peer.next = Some((now.after(wait), wait));
                }
            }
        }
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let patience = peer.patience();
        // Of one that does not answer at all nothing can be learned about its path.
        if peer.state == PeerState::Up
            && let Some(size) = peer.path.due(now, patience)
        {
            let nonce = self.pend(now, address, Meaning::Carries { size });
            self.send(address, Message::Probe { nonce }, payload_of(address, size));
            self.outputs.push_back(Output::Changed(address));
        }
        self.set_timer(address);
    }

    /// Up to three others that live.
    fn helpers(&mut self, target: IpAddr) -> Vec<IpAddr> {
        let mut helpers: Vec<IpAddr> = Vec::new();
        for _ in 0..4 * ASKED {
            let at = self.below(self.turns.len());
            let Some(helper) = self.turns.get(at).copied() else { break };
            let lives = self.peers.get(&helper).is_some_and(|peer| peer.state == PeerState::Up);
            if lives && helper != target && !helpers.contains(&helper) && helpers.len() < ASKED {
                helpers.push(helper);
            }
        }
        helpers
    }

    /// Nobody reached the peer.
    fn failed(&mut self, now: Instant, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        peer.trial = None;
        if peer.state == PeerState::Unknown && !peer.spec.speaks {
            let wait = peer.next.map_or(UNKNOWN_FIRST, |(_, wait)| wait);
            peer.next.get_or_insert((now.after(wait), wait));
            return;
        }
        self.set_state(address, PeerState::Down);
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
                let under_way = peer.trial.take().is_some();
                peer.only_others = 0;
                let mut changed = false;
                if full && whole(size) {
                    changed = peer.path.answered(now, size);
                } else if under_way {
                    peer.path.lost(now, size);
                    changed = peer.path.found().is_none();
                }
                if changed {
                    self.outputs.push_back(Output::Changed(from));
                }
                self.set_state(from, PeerState::Up);
                // What a first small answer leaves open is asked soon.
                if !full && under_way {
                    self.contacts.push_back(from);
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
                peer.only_others += 1;
                // It lives, but if nothing gets there from here, that is no help.
                let state = if peer.only_others < ONLY_OTHERS { peer.state } else { PeerState::Down };
                self.set_state(target, state);
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

    fn set_state(&mut self, address: IpAddr, state: PeerState) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let before = std::mem::replace(&mut peer.state, state);
        if before == state {
            return;
        }
        peer.next = None;
        peer.only_others = 0;
        self.outputs.push_back(Output::Changed(address));
        if before == PeerState::Down && self.revived.is_empty() {
            // A network has healed, perhaps: everybody that was lost with it is asked soon.
            let dead = self.turns.iter().filter(|peer| self.peers.get(peer).is_some_and(Peer::is_down));
            self.revived = dead.copied().collect();
        }
        self.set_timer(address);
    }

    /// Notes when the peer needs something next.
    fn set_timer(&mut self, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let trial = peer.trial.map(|(Trial::First(at) | Trial::Second(at))| at);
        let path = peer.path.next_due().filter(|_| peer.state == PeerState::Up);
        let next = [trial, path, peer.next.map(|(at, _)| at)].into_iter().flatten().min();
        if next == peer.timer {
            return;
        }
        if let Some(old) = std::mem::replace(&mut peer.timer, next) {
            self.timers.remove(&(old, address));
        }
        self.timers.extend(next.map(|at| (at, address)));
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

impl Peer {
    fn new(spec: ProbePeer) -> Self {
        Self {
            path: PathMtu::new(spec.address, spec.mtu_limit),
            spec,
            state: PeerState::Unknown,
            rtt: None,
            trial: None,
            heard: false,
            put_off: 0,
            only_others: 0,
            next: None,
            timer: None,
        }
    }

    fn is_down(&self) -> bool {
        self.state == PeerState::Down
    }

    fn patience(&self) -> Duration {
        self.rtt.map_or(PATIENCE, |rtt| (rtt * 3).clamp(PATIENCE, MOST_PATIENCE))
    }
}
