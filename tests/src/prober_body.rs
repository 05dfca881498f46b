//! The body of the properties of probing: whatever is done to one prober, and whatever anybody sends it, only whom it
//! asked can change its mind, by what only they have seen. Property tests and fuzz targets feed it bytes.
//!
//! Its datagrams are read and made here byte by byte, with nothing of the prober's own. Not here: whether what is
//! believed is true (see [`crate::probing`]).

use crate::offload_body::Choices;
use crate::probing::prober;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::Instant;
use vswitchd::slow::{Output, PeerState, ProbePeer, Prober, Status};

/// What a probe datagram begins with, up to the kind.
pub const BEGINNING: [u8; 13] = *b"\x01\0\0\0\0\0\0\0VSWP\x01";
const PROBE: u8 = 1;
const ANSWER: u8 = 2;
const ASK: u8 = 3;
const ASK_ANSWER: u8 = 4;
/// The shortest of them; all but probes are so short.
pub const SHORTEST: usize = 48;

/// A probe datagram of `len` bytes.
#[must_use]
pub fn datagram(kind: u8, word: u16, nonce: [u8; 16], target: IpAddr, len: usize) -> Vec<u8> {
    let target = match target {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut bytes = BEGINNING.to_vec();
    bytes.push(kind);
    bytes.extend(word.to_be_bytes());
    bytes.extend(nonce);
    bytes.extend(target);
    bytes.resize(len, 0);
    bytes
}

/// A question that the prober has put.
#[derive(Clone, Debug)]
pub struct Question {
    /// To whom.
    pub to: IpAddr,
    kind: u8,
    nonce: [u8; 16],
    len: u16,
    at: Instant,
}

impl Question {
    /// Reads a question; `None` when it is an answer.
    ///
    /// # Panics
    /// When it is no probe datagram.
    #[must_use]
    pub fn read(now: Instant, to: IpAddr, bytes: &[u8]) -> Option<Self> {
        assert!(bytes.len() >= SHORTEST && bytes.starts_with(&BEGINNING), "{bytes:?}");
        let kind = bytes[13];
        let word = u16::from_be_bytes([bytes[14], bytes[15]]);
        let nonce = bytes[16..32].try_into().expect("16 bytes");
        if matches!(kind, ANSWER | ASK_ANSWER) {
            return None;
        }
        assert_eq!(usize::from(word), bytes.len(), "the length as sent");
        Some(Self { to, kind, nonce, len: word, at: now })
    }

    /// The answer that it asks for.
    #[must_use]
    pub fn answer(&self) -> Vec<u8> {
        let none = IpAddr::from([0; 16]);
        match self.kind {
            PROBE => datagram(ANSWER, self.len, self.nonce, none, SHORTEST),
            _ => datagram(ASK_ANSWER, 48, self.nonce, none, SHORTEST),
        }
    }
}

fn peers(choice: u8) -> Vec<ProbePeer> {
    let bit = |n: u8| choice & 1 << n != 0;
    let addresses: [IpAddr; 4] = [
        [10, 0, 0, 1].into(),
        [10, 0, 0, 2].into(),
        [0xfd00, 0, 0, 0, 0, 0, 0, 3].into(),
        [10, 0, 0, 4].into(),
    ];
    let mut peers: Vec<ProbePeer> = addresses
        .into_iter()
        .enumerate()
        .map(|(n, address)| ProbePeer {
            address,
            mtu_limit: if bit(7) && n == 1 { 9000 } else { 1500 },
            speaks: n != 3,
            boot: (n < 2).then_some(u64::from(bit(6))),
        })
        .collect();
    if bit(5) {
        peers.truncate(3);
    }
    peers
}

/// One prober, and what it was told in truth.
struct Scene {
    prober: Prober,
    now: Instant,
    peers: Vec<ProbePeer>,
    open: Vec<Question>,
    answered: Vec<(IpAddr, Vec<u8>)>,
    /// Who has answered for itself, or was answered for, in this life.
    proved: BTreeSet<IpAddr>,
    /// Sizes of outer IP packets that were answered.
    sizes: BTreeSet<(IpAddr, u16)>,
}

impl Scene {
    fn statuses(&self) -> Vec<Option<Status>> {
        self.peers.iter().map(|peer| self.prober.status(peer.address)).collect()
    }

    /// Reads what the prober wants; `asked_by`: the peer whose datagram it was given last.
    fn drain(&mut self, asked_by: Option<IpAddr>) {
        let mut answers = 0;
        while let Some(output) = self.prober.poll() {
            let Output::Send { to, datagram } = output else { continue };
            // One that is no peer any more may still be on the way out.
            let peer = self.peers.iter().find(|peer| peer.address == to);
            let most =
                peer.map_or(9000, |peer| usize::from(peer.mtu_limit)) - if to.is_ipv4() { 28 } else { 48 };
            assert!(datagram.len() <= most, "{} bytes to {to}", datagram.len());
            match Question::read(self.now, to, &datagram) {
                Some(question) => self.open.push(question),
                None => {
                    answers += 1;
                    assert_eq!(datagram.len(), SHORTEST);
                    assert!(asked_by.is_some() && answers == 1, "an answer to nobody's question");
                }
            }
        }
        let now = self.now;
        self.open.retain(|question| now.since(question.at) < Duration::from_secs(10));
    }

    fn give(&mut self, from: IpAddr, bytes: &[u8]) {
        self.prober.datagram(self.now, from, &bytes[..bytes.len().min(96)], bytes.len());
        self.drain(Some(from));
    }

    /// Gives it what must not change its mind.
    fn give_in_vain(&mut self, from: IpAddr, bytes: &[u8]) {
        let before = self.statuses();
        self.give(from, bytes);
        assert_eq!(self.statuses(), before, "changed by {from}: {bytes:?}");
    }

    fn answer_truly(&mut self, question: &Question) {
        if question.kind == PROBE {
            let outer = if question.to.is_ipv4() { 28 } else { 48 };
            self.sizes.insert((question.to, question.len.max(48) + outer));
            self.proved.insert(question.to);
        }
        self.give(question.to, &question.answer());
        self.answered.push((question.to, question.answer()));
    }

    fn check(&self) {
        for peer in &self.peers {
            let Some(status) = self.prober.status(peer.address) else { panic!("{peer:?} is forgotten") };
            let proved = self.proved.contains(&peer.address);
            assert!(status.state != PeerState::Up || proved, "{peer:?} never answered");
            assert!(status.state != PeerState::Down || proved || peer.speaks, "{peer:?} may be mute");
            if let Some(mtu) = status.mtu {
                let least = if peer.address.is_ipv4() { 576 } else { 1280 };
                let seen = self.sizes.contains(&(peer.address, mtu));
                assert!(mtu <= peer.mtu_limit && (seen || mtu <= least), "{mtu} to {}", peer.address);
            }
        }
    }
}

/// Each few bytes are something that happens.
///
/// # Panics
/// When a property does not hold.
pub fn prober_body(data: &[u8]) {
    let choices = &mut Choices::new(data);
    let now = Instant::from_secs(1);
    let first = peers(0);
    let mut scene = Scene {
        prober: prober(now, 7),
        now,
        peers: first.clone(),
        open: Vec::new(),
        answered: Vec::new(),
        proved: BTreeSet::new(),
        sizes: BTreeSet::new(),
    };
    scene.prober.set_peers(first);
    for _ in 0..data.len().min(2000) / 2 {
        let (what, byte) = (choices.byte(), choices.byte());
        let among = |len: usize| usize::from(byte) % len.max(1);
        let peer = scene.peers[among(scene.peers.len())].address;
        let other = scene.peers[usize::from(byte >> 4) % scene.peers.len()].address;
        let nonce = [byte; 16];
        match what % 16 {
            0..=3 => {
                scene.now = scene.now.after(Duration::from_millis(u64::from(byte) * 4));
                scene.prober.tick(scene.now);
                scene.drain(None);
                let due = scene.prober.next_due().expect("there are peers");
                assert!(due > scene.now, "it would never rest");
            }
            4..=6 if !scene.open.is_empty() => {
                let question = scene.open.swap_remove(among(scene.open.len()));
                scene.answer_truly(&question);
            }
            7 => {
                let len = 48 + usize::from(byte) * 6;
                let word = u16::try_from(len).expect("small");
                scene.give_in_vain(peer, &datagram(PROBE, word, nonce, peer, len));
            }
            8 => scene.give_in_vain(peer, &datagram(ASK, 48, nonce, other, SHORTEST)),
            9 => scene.give_in_vain(peer, &datagram(byte, 48, nonce, other, SHORTEST + among(7))),
            10 => {
                let start = among(data.len());
                scene.give_in_vain(peer, data.get(start..).unwrap_or_default());
                scene.give_in_vain(IpAddr::from([203, 0, 113, 1]), data.get(start..).unwrap_or_default());
            }
            11 if !scene.open.is_empty() => {
                // The right number from the wrong peer.
                let question = scene.open[among(scene.open.len())].clone();
                let wrong = scene.peers.iter().map(|peer| peer.address).find(|peer| *peer != question.to);
                scene.give_in_vain(wrong.unwrap_or(peer), &question.answer());
                scene.give_in_vain(IpAddr::from([203, 0, 113, 1]), &question.answer());
            }
            12 if !scene.answered.is_empty() => {
                let (from, answer) = scene.answered[among(scene.answered.len())].clone();
                scene.give_in_vain(from, &answer);
            }
            13 => {
                scene.prober.heard(peer);
                scene.prober.suspect(scene.now, other);
                scene.drain(None);
            }
            14 => {
                scene.prober.too_big(scene.now, peer, 500 + usize::from(byte) * 4);
                scene.prober.tick(scene.now);
                scene.drain(None);
            }
            15 if byte & 1 == 0 => {
                let peers = peers(byte);
                scene.prober.set_peers(peers.clone());
                for old in std::mem::replace(&mut scene.peers, peers) {
                    let now = scene.peers.iter().find(|peer| peer.address == old.address);
                    if now.is_some_and(|peer| peer.boot == old.boot) {
                        continue;
                    }
                    // Another life, or none: what the last one was asked is worth nothing any more.
                    scene.proved.remove(&old.address);
                    scene.sizes.retain(|(address, _)| *address != old.address);
                    for question in scene.open.extract_if(.., |question| question.to == old.address) {
                        scene.answered.push((question.to, question.answer()));
                    }
                }
                scene.drain(None);
            }
            _ => {}
        }
        scene.check();
    }
}
