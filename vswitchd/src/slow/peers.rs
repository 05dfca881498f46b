//! The prober's hands: what it wants sent leaves by the links to peers, and what it finds out is told to control.
//!
//! Not here: whom to ask and whom to believe (see [`super::Prober`]).

use super::probe::Message;
use super::thread::Out;
use super::{Output, ProbePeer, Prober, Random, Status};
use crate::datapath::{Event, PortLink, Probe};
use crossbeam_channel::Sender;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use vswitch_core::Instant;

/// How soon control, which had no room, is told again.
const AGAIN: Duration = Duration::from_millis(10);

/// Everybody who is probed, and how to reach them.
pub(super) struct Peers {
    prober: Prober,
    /// Weak: whoever closes a link need not wait for this.
    links: HashMap<IpAddr, Weak<PortLink>>,
    /// Of whom control is yet to be told.
    changed: BTreeSet<IpAddr>,
}

impl Peers {
    pub(super) fn new(now: Instant, random: Random) -> Self {
        Self { prober: Prober::new(now, random), links: HashMap::new(), changed: BTreeSet::new() }
    }

    pub(super) fn set(&mut self, peers: Vec<(ProbePeer, Arc<PortLink>)>) {
        self.links = peers.iter().map(|(peer, link)| (peer.address, Arc::downgrade(link))).collect();
        self.prober.set_peers(peers.into_iter().map(|(peer, _)| peer));
    }

    pub(super) fn suspect(&mut self, now: Instant, peer: IpAddr) {
        self.prober.suspect(now, peer);
    }

    pub(super) fn heard(&mut self, peers: Vec<IpAddr>) {
        peers.into_iter().for_each(|peer| self.prober.heard(peer));
    }

    /// A peer's datagram. One whom nobody asks here, because nobody is to be asked, is answered all the same: it would
    /// think us dead.
    pub(super) fn hear(&mut self, now: Instant, probe: &Probe, out: &mut Out) {
        let from = probe.from.to_canonical();
        if self.links.contains_key(&from) {
            self.prober.datagram(now, from, &probe.head, probe.len);
        } else if let Some(Message::Probe { nonce }) = Message::parse(&probe.head) {
            let len = u16::try_from(probe.len).unwrap_or(u16::MAX);
            out.send(&probe.link, &Message::Answer { nonce, len }.datagram(0));
        }
    }

    /// Does what is due, and sends what is to be sent. A datagram that its link does not take is lost, as on a wire; one
    /// that it says is too big tells of the path.
    pub(super) fn do_due(&mut self, now: Instant, out: &mut Out) {
        if self.prober.next_due().is_some_and(|due| due <= now) {
            self.prober.tick(now);
        }
        while let Some(output) = self.prober.poll() {
            match output {
                Output::Send { to, datagram } => {
                    if let Some(link) = self.links.get(&to).and_then(Weak::upgrade)
                        && out.send(&link, &datagram).too_big > 0
                    {
                        self.prober.too_big(now, to, datagram.len());
                    }
                }
                Output::Changed(peer) => drop(self.changed.insert(peer)),
            }
        }
    }

    /// Tells control what has changed, as far as it has room; whether it was told anything.
    pub(super) fn tell(&mut self, events: &Sender<Event>) -> bool {
        let mut told = false;
        while let Some(address) = self.changed.first().copied() {
            if let Some(Status { state, mtu, rtt }) = self.prober.status(address) {
                if events.try_send(Event::Peer { address, state, mtu, rtt }).is_err() {
                    break;
                }
                told = true;
            }
            self.changed.remove(&address);
        }
        told
    }

    /// When something is to be done next.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let untold = (!self.changed.is_empty()).then(|| now.after(AGAIN));
        untold.into_iter().chain(self.prober.next_due()).min()
    }
}
