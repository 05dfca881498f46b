//! Between workers and the slow path: what is handed out, in bounded queues by kind, and what comes back.
//!
//! Nobody waits here. A full queue of packets too big costs answers; of questions where an address is, it costs nothing:
//! the worker floods them itself. Probes have a queue of their own, so that no pod keeps peers waiting. Not here: what
//! is answered (see [`crate::slow`]).

use super::setup::PortLink;
use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use vswitch_core::{Arrival, Batch, Offload, PortId, Segment};

/// How much of a refused frame the slow path sees: what an ICMPv6 error may quote (RFC 4443 §2.4), and headers.
const TOO_BIG_LEN: usize = 1280 + 32;
/// The longest frame of ARP or neighbour discovery that is handed out: with all options that a station may add, short of
/// a signature (RFC 3971), which could not be answered in its owner's place anyway.
const NEIGH_LEN: usize = 256;
/// How much of a probe the slow path sees: all but the zeros that make it long.
const PROBE_LEN: usize = 64;

/// The longest message of IGMP or MLD that is handed out: what a link of jumbo frames carries, tags included. A host of
/// very many groups fills it, and would be sent none of those that others have joined if its report were passed over.
const SNOOP_LEN: usize = 9216 + 22;

/// How many of each may wait.
const TOO_BIG: usize = 64;
const NEIGH: usize = 512;
const PROBES: usize = 512;
const SNOOPED: usize = 128;
/// How many frames may wait for one worker.
const INJECTED: usize = 256;

/// A frame's bytes, or its first ones, in a message of fixed size: nothing is allocated for a frame.
#[derive(Clone, Copy, Debug)]
pub struct Copied<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Copied<N> {
    /// The first `N` bytes of `frame`.
    fn front_of(frame: &[u8]) -> Self {
        let mut bytes = [0; N];
        let len = frame.len().min(N);
        bytes[..len].copy_from_slice(&frame[..len]);
        Self { bytes, len }
    }

    /// All of `frame`, if there is room for it.
    fn of(frame: &[u8]) -> Option<Self> {
        (frame.len() <= N).then(|| Self::front_of(frame))
    }
}

impl<const N: usize> std::ops::Deref for Copied<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A packet that does not fit the way to a peer.
#[derive(Debug)]
pub struct TooBig {
    /// The link it came in by; the answer leaves there.
    pub link: Arc<PortLink>,
    /// What the sender should keep to, in bytes of inner IP packet.
    pub mtu: u16,
    /// The frame's first bytes.
    pub frame: Copied<TOO_BIG_LEN>,
}

/// A frame of ARP or neighbour discovery from a local port.
#[derive(Debug)]
pub struct Neigh {
    /// The link it came in by; an answer leaves there.
    pub link: Arc<PortLink>,
    /// The segment it was let into.
    pub segment: Segment,
    /// Whether it has gone nowhere else: it is to be answered or given back.
    pub held: bool,
    /// What it still owes.
    pub offload: Offload,
    /// The whole frame as it came.
    pub frame: Copied<NEIGH_LEN>,
}

/// A datagram that is no frame but a probe of a peer, or a peer's answer to one.
#[derive(Debug)]
pub struct Probe {
    /// The address it came from.
    pub from: IpAddr,
    /// The link to that peer.
    pub link: Arc<PortLink>,
    /// Its first bytes, from the VXLAN header on.
    pub head: Copied<PROBE_LEN>,
    /// How many bytes of UDP payload there were in all.
    pub len: usize,
}

/// A message of IGMP or MLD from a port of a bridge that snoops. It holds no link: one end of a cable inside the switch
/// has none.
#[derive(Debug)]
pub struct Snooped {
    /// The port it came in by.
    pub port: PortId,
    /// The segment it was let into.
    pub segment: Segment,
    /// Whether its checksum is still to be made.
    pub owed: bool,
    /// The whole frame as it came.
    pub frame: Copied<SNOOP_LEN>,
}

/// Where workers put what is for the slow path.
#[derive(Clone, Debug)]
pub struct Punts {
    too_big: Sender<TooBig>,
    neigh: Sender<Neigh>,
    probes: Sender<Probe>,
    snooped: Sender<Snooped>,
}

/// The other end of [`Punts`].
#[derive(Debug)]
pub struct Punted {
    /// Packets that did not fit.
    pub too_big: Receiver<TooBig>,
    /// Frames of ARP and neighbour discovery.
    pub neigh: Receiver<Neigh>,
    /// Probes and their answers.
    pub probes: Receiver<Probe>,
    /// Messages of IGMP and MLD.
    pub snooped: Receiver<Snooped>,
}

/// The queues from all workers to the slow path.
#[must_use]
pub fn punts() -> (Punts, Punted) {
    let (too_big, from_too_big) = bounded(TOO_BIG);
    let (neigh, from_neigh) = bounded(NEIGH);
    let (probes, from_probes) = bounded(PROBES);
    let (snooped, from_snooped) = bounded(SNOOPED);
    let punted =
        Punted { too_big: from_too_big, neigh: from_neigh, probes: from_probes, snooped: from_snooped };
    (Punts { too_big, neigh, probes, snooped }, punted)
}

impl Punts {
    /// Hands out the front of a frame that did not fit. A full queue costs the answer; the frame is counted already.
    pub fn too_big(&self, link: &Arc<PortLink>, mtu: u16, frame: &[u8]) {
        let _ = self.too_big.try_send(TooBig { link: Arc::clone(link), mtu, frame: Copied::front_of(frame) });
    }

    /// Hands out a frame of ARP or neighbour discovery; `false` when it is too long or the queue is full. Then a frame
    /// that was `held` is still the worker's to send on, and the copy of another is lost. Copies leave half the queue to
    /// frames that are held.
    #[must_use]
    pub fn neigh(
        &self,
        link: &Arc<PortLink>,
        segment: Segment,
        held: bool,
        offload: Offload,
        frame: &[u8],
    ) -> bool {
        let Some(frame) = Copied::of(frame).filter(|_| held || self.neigh.len() < NEIGH / 2) else {
            return false;
        };
        self.neigh.try_send(Neigh { link: Arc::clone(link), segment, held, offload, frame }).is_ok()
    }

    /// Hands out a message of IGMP or MLD. One that is too long, or finds the queue full, is lost: what it says is said
    /// again.
    pub fn snoop(&self, port: PortId, segment: Segment, owed: bool, frame: &[u8]) {
        if !self.snooped.is_full()
            && let Some(frame) = Copied::of(frame)
        {
            let _ = self.snooped.try_send(Snooped { port, segment, owed, frame });
        }
    }

    /// Hands out a probe. One that finds the queue full is lost, as on a wire.
    pub fn probe(&self, from: IpAddr, link: &Arc<PortLink>, datagram: &[u8]) {
        let (link, head) = (Arc::clone(link), Copied::front_of(datagram));
        let _ = self.probes.try_send(Probe { from, link, head, len: datagram.len() });
    }
}

/// A frame for a worker, as if it came in by a port.
#[derive(Debug)]
pub(super) struct Injected {
    /// Weak: whoever closes the link need not wait for this.
    link: Weak<PortLink>,
    offload: Offload,
    frame: Copied<NEIGH_LEN>,
}

impl Injected {
    /// Copies it into `batch`, unless its port is no more what `current` says: its number may be another's by now.
    pub(super) fn copy_into<'a>(
        &self,
        batch: &mut Batch,
        current: impl Fn(PortId) -> Option<&'a Arc<PortLink>>,
    ) {
        let Some(link) = self.link.upgrade() else { return };
        if current(link.port).is_some_and(|now| Arc::ptr_eq(now, &link)) {
            batch.copy_in(Arrival::Port(link.port), &self.frame, self.offload);
        }
    }
}

/// Where the slow path puts frames that workers are to send on: what it gives back, and what it says in the name of a
/// station. They are neither counted as received nor handed out again.
#[derive(Clone, Debug)]
pub struct Injector {
    workers: Arc<[(Sender<Injected>, Arc<Waker>)]>,
}

impl Injector {
    pub(super) fn new(workers: Vec<(Sender<Injected>, Arc<Waker>)>) -> Self {
        Self { workers: workers.into() }
    }

    /// One worker's queue.
    pub(super) fn queue() -> (Sender<Injected>, Receiver<Injected>) {
        bounded(INJECTED)
    }

    /// Whether every worker has room for a frame more. Where one thread alone injects, that stays so until it does.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.workers.iter().all(|(queue, _)| !queue.is_full())
    }

    /// Gives the worker that reads from `link` a frame as if it came from there; `false` when it is too long, the
    /// worker has no room, or there is no such worker.
    pub fn inject(&self, link: &Arc<PortLink>, offload: Offload, frame: &[u8]) -> bool {
        let Some((queue, waker)) = self.workers.get(link.worker) else { return false };
        let Some(frame) = Copied::of(frame) else { return false };
        let injected = Injected { link: Arc::downgrade(link), offload, frame };
        // A waker that fails means that the process is ending.
        queue.try_send(injected).is_ok() && waker.wake().is_ok()
    }
}
