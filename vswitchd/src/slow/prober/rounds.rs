//! Whom the prober asks and when, and what follows when nobody answers. Not here: answers.

use super::super::probe::{Message, Nonce, payload_of};
use super::{FAVOURS, FAVOURS_EACH, Meaning, PeerState, Prober, SLEEPS, SOON, Trial};
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::Instant;

/// How many are picked in an interval of those that are up, of those that are down, and of those that never answered
/// and may not be able to.
const PICKED: usize = 2;
const PICKED_DEAD: usize = 1;
const PICKED_MUTE: usize = 2;
/// For how many intervals traffic may stand for an answer.
const PUT_OFF: u64 = 10;
/// How much longer small probes and the others' answers are awaited.
const SECOND_PATIENCE: Duration = Duration::from_millis(350);
/// How many small probes are sent meanwhile: one that lives shall not be called down by loss, for then everybody looks,
/// and loss has as many chances more.
const SMALL: u8 = 3;
/// How many others are asked.
const ASKED: usize = 3;

impl Prober {
    /// One interval's share of questions.
    pub(super) fn round(&mut self, now: Instant) {
        self.round += 1;
        (self.favours, self.asked_soon) = (0, 0);
        while self.asked_soon < SOON
            && let Some(address) = self.soon.pop_front()
        {
            let waits = self.peers.get_mut(&address).map(|peer| std::mem::take(&mut peer.soon));
            if waits == Some(true) && self.ask(now, address) {
                self.asked_soon += 1;
            }
        }
        for _ in 0..PICKED {
            if let Some(address) = self.next_put_off().or_else(|| self.next_turn()) {
                self.ask(now, address);
            }
        }
        for _ in 0..PICKED_DEAD {
            let at = self.below(self.dead.len());
            if let Some(address) = self.dead.iter().nth(at).copied() {
                self.ask(now, address);
            }
        }
        for _ in 0..PICKED_MUTE {
            if let Some(address) = self.next_mute() {
                self.ask(now, address);
            }
        }
    }

    /// One whose turn was put off, and which has become quiet or has been put off for long enough.
    fn next_put_off(&mut self) -> Option<IpAddr> {
        let (round, peers) = (self.round, &self.peers);
        // One that has been asked meanwhile, or is gone, is done with.
        self.put_off.retain(|address| peers.get(address).is_some_and(|peer| peer.put_off.is_some()));
        let at = self.put_off.iter().position(|address| {
            peers.get(address).is_some_and(|peer| {
                peer.is_quiet(round) || peer.put_off.is_some_and(|since| round >= since + PUT_OFF)
            })
        })?;
        Some(self.put_off.remove(at))
    }

    /// The next of those that are up; one that was heard of late is put off.
    fn next_turn(&mut self) -> Option<IpAddr> {
        for _ in 0..self.turns.len() {
            if self.turn >= self.turns.len() {
                self.shuffle();
            }
            let address = self.turns.get(self.turn).copied()?;
            self.turn += 1;
            let round = self.round;
            let Some(peer) = self.peers.get_mut(&address) else { continue };
            if peer.state != PeerState::Up || peer.trial.is_some() || peer.put_off.is_some() {
                continue;
            }
            if peer.is_quiet(round) {
                return Some(address);
            }
            peer.put_off = Some(round);
            self.put_off.push(address);
        }
        None
    }

    /// The next of those that never answered and have been left alone for long enough.
    fn next_mute(&mut self) -> Option<IpAddr> {
        while let Some(address) = self.mute.pop_front() {
            // One that was asked meanwhile waits again.
            if self.peers.get(&address).is_some_and(|peer| peer.may_be_mute() && peer.next.is_none()) {
                return Some(address);
            }
        }
        None
    }

    /// Asks a peer now, or in one of the next intervals when too many are asked before their turn.
    pub(super) fn ask_soon(&mut self, now: Instant, address: IpAddr) {
        if self.asked_soon >= SOON {
            self.put_into_soon(address);
        } else if self.ask(now, address) {
            self.asked_soon += 1;
        }
    }

    /// Has a peer asked in one of the next intervals.
    pub(super) fn put_into_soon(&mut self, address: IpAddr) {
        if let Some(peer) = self.peers.get_mut(&address).filter(|peer| !peer.soon) {
            peer.soon = true;
            self.soon.push_back(address);
        }
    }

    /// Asks a peer, unless that is under way; whether it was asked. One of which little is to be hoped is asked by a
    /// small datagram, all others by one of the path's size.
    pub(super) fn ask(&mut self, now: Instant, address: IpAddr) -> bool {
        let Some(peer) = self.peers.get_mut(&address).filter(|peer| peer.trial.is_none()) else {
            return false;
        };
        (peer.put_off, peer.next) = (None, None);
        let full = peer.state == PeerState::Up || peer.state == PeerState::Unknown && peer.wait.is_none();
        let size = peer.path.size();
        peer.trial = Some(Trial::First { until: now.after(peer.patience()), full });
        let nonce = self.pend(now, address, Meaning::Lives { size, full });
        self.send(address, Message::Probe { nonce }, if full { payload_of(address, size) } else { 0 });
        self.set_timer(address);
        true
    }

    /// The time of something about this peer has come.
    pub(super) fn due(&mut self, now: Instant, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        match peer.trial {
            Some(Trial::First { until, full }) if until <= now => {
                let hope = peer.is_hopeful();
                let others = if hope { self.others(address) } else { Vec::new() };
                self.ask_again(now, address, full, if hope { SMALL } else { 1 });
                for other in others {
                    let nonce = self.pend(now, other, Meaning::OtherLives { target: address });
                    self.send(other, Message::Ask { nonce, target: address }, 0);
                }
            }
            Some(Trial::Second { until, full, left }) if until <= now && left > 0 => {
                self.ask_again(now, address, full, left);
            }
            Some(Trial::Second { until, .. }) if until <= now => self.failed(now, address),
            _ => {}
        }
        let Some(peer) = self.peers.get_mut(&address) else { return };
        if peer.next.is_some_and(|at| at <= now) {
            peer.next = None;
            self.mute.push_back(address);
        }
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let patience = peer.patience();
        // Of one that does not answer at all nothing can be learned about its path.
        if peer.state == PeerState::Up {
            let before = peer.path.found();
            let size = peer.path.due(now, patience);
            if peer.path.found() != before {
                self.outputs.push_back(super::Output::Changed(address));
            }
            if let Some(size) = size {
                let nonce = self.pend(now, address, Meaning::Carries { size });
                self.send(address, Message::Probe { nonce }, payload_of(address, size));
            }
        }
        self.set_timer(address);
    }

    /// Sends a small probe, the first of `small` that share the time that is left for all.
    fn ask_again(&mut self, now: Instant, address: IpAddr, full: bool, small: u8) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        let all = SECOND_PATIENCE.max(peer.patience());
        let until = now.after(if small == 1 && !peer.is_hopeful() { all } else { all / SMALL.into() });
        peer.trial = Some(Trial::Second { until, full, left: small - 1 });
        let size = peer.path.size();
        let nonce = self.pend(now, address, Meaning::Lives { size, full: false });
        self.send(address, Message::Probe { nonce }, 0);
    }

    /// Up to three others that live, at random.
    fn others(&mut self, target: IpAddr) -> Vec<IpAddr> {
        let mut others: Vec<IpAddr> = self
            .peers
            .iter()
            .filter(|(address, peer)| **address != target && peer.state == PeerState::Up)
            .map(|(address, _)| *address)
            .collect();
        let few = ASKED.min(others.len());
        for at in 0..few {
            let other = at + self.below(others.len() - at);
            others.swap(at, other);
        }
        others.truncate(few);
        others
    }

    /// Nobody reached the peer.
    fn failed(&mut self, now: Instant, address: IpAddr) {
        let Some(peer) = self.peers.get_mut(&address) else { return };
        peer.trial = None;
        if peer.may_be_mute() {
            peer.next = Some(now.after(peer.wait_longer()));
        } else {
            self.set_state(now, address, PeerState::Down);
        }
    }

    /// Asks a peer because another one cannot reach it; of all and of one, so many in an interval: we are nobody's
    /// megaphone.
    pub(super) fn do_favour(&mut self, now: Instant, asker: IpAddr, nonce: Nonce, target: IpAddr) {
        if target == asker || !self.peers.contains_key(&target) || self.favours >= FAVOURS {
            return;
        }
        let round = self.round;
        let Some(peer) = self.peers.get_mut(&asker) else { return };
        if peer.favours.0 != round {
            peer.favours = (round, 0);
        }
        if peer.favours.1 >= FAVOURS_EACH {
            return;
        }
        peer.favours.1 += 1;
        self.favours += 1;
        let nonce = self.pend(now, target, Meaning::Favour { asker, nonce });
        self.send(target, Message::Probe { nonce }, 0);
    }

    /// It was us who slept, and answers may lie unread: nobody is judged by what ran out meanwhile.
    pub(super) fn slept(&mut self, now: Instant) {
        if self.slept.is_some_and(|at| now.since(at) < SLEEPS) {
            return;
        }
        self.slept = Some(now);
        let mut waiting = Vec::new();
        for (address, peer) in &mut self.peers {
            let later = now.after(peer.patience());
            peer.path.wait_until(later);
            if let Some(trial) = &mut peer.trial {
                trial.wait_until(later);
            }
            waiting.push(*address);
        }
        waiting.into_iter().for_each(|address| self.set_timer(address));
    }
}
