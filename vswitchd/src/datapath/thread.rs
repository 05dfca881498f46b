//! One worker's loop.
//!
//! Readiness is edge-triggered: a source that became ready stays on the worker's own list until it is found
//! drained, and each round serves every source on it once, at most a batch, so no port starves another.

use super::clock;
use super::idle::{Bulk, Idle};
use super::punt::{Injected, Punts};
use super::setup::{PortLink, Setup};
use super::workers::{Command, Load, Snapshot};
use crate::link::{AnyLink, Link as _, Received, Scratch, Sent};
use crate::slow::PeerState;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;
use vswitch_core::switch::{Groups, StationEvent, Worker};
use vswitch_core::verdict::Why;
use vswitch_core::{Arrival, Batch, DropReason, Instant, Mac, PortId, Segment, TxList};

/// Frames a source may deliver before the next one's turn.
const BATCH: usize = 64;
/// How often background work is done.
const TICK: Duration = Duration::from_secs(1);
/// Rounds that a stopping worker grants to what the kernel still holds.
const DRAIN_ROUNDS: usize = 256;
const VXLAN_HEADER: u64 = vswitch_core::wire::vxlan::HEADER_LEN as u64;

pub(super) const WAKER: Token = Token(0);

/// What workers and the slow path tell the control thread.
#[derive(Debug)]
pub enum Event {
    /// The thing behind a link does not exist any more. Weak: whoever closes the link need not wait for this.
    Gone(Weak<PortLink>),
    /// A station was learned or moved.
    Station(StationEvent),
    /// A station behind a local port has said that it has an address.
    Neighbour {
        /// The port.
        port: PortId,
        /// The segment in which it said so.
        segment: Segment,
        /// The station.
        mac: Mac,
        /// The address.
        ip: IpAddr,
    },
    /// What is known of a peer has changed: whether it lives, what the path to it carries, or how long its answers
    /// take.
    Peer {
        /// The peer.
        address: IpAddr,
        /// Whether it lives.
        state: PeerState,
        /// What the path carries, in bytes of outer IP packet, as far as that was found out.
        mtu: Option<u16>,
        /// How long its answers take.
        rtt: Option<Duration>,
    },
    /// Who listens to which multicast group, and where routers are: all of it, after a change.
    Groups(Arc<Groups>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Port(PortId),
    /// The nth receiving socket of this worker.
    Underlay(usize),
    /// What the slow path gives back, and says itself.
    Injected,
}

impl Source {
    const fn token(self) -> Token {
        match self {
            Self::Port(port) => Token(1 + 2 * port.index()),
            Self::Underlay(n) => Token(2 + 2 * n),
            Self::Injected => WAKER,
        }
    }

    fn of(token: Token) -> Option<Self> {
        let Some(n) = token.0.checked_sub(1) else { return Some(Self::Injected) };
        if n % 2 == 0 {
            PortId::new(u32::try_from(n / 2).ok()?).map(Self::Port)
        } else {
            Some(Self::Underlay(n / 2))
        }
    }
}

/// Where a worker's messages go.
#[derive(Clone)]
pub(super) struct Outlets {
    pub(super) events: Sender<Event>,
    pub(super) wake_control: Arc<dyn Fn() + Send + Sync>,
    pub(super) punts: Punts,
    pub(super) bulk: Bulk,
}

pub(super) struct Thread {
    number: usize,
    poll: Poll,
    commands: Receiver<Command>,
    injected: Receiver<Injected>,
    outlets: Outlets,
    setup: Arc<Setup>,
    worker: Option<Worker>,
    batch: Batch,
    /// Frames that were to be handed out and found no room: they are sent on as if nobody had wanted them.
    kept: Batch,
    tx: TxList,
    scratch: Scratch,
    /// Sources that may have something, each once.
    ready: VecDeque<Source>,
    /// Links whose end the control thread does not know of yet.
    gone: Vec<Weak<PortLink>>,
    load: Load,
}

impl Thread {
    pub(super) fn new(
        number: usize,
        poll: Poll,
        (commands, injected): (Receiver<Command>, Receiver<Injected>),
        outlets: Outlets,
    ) -> Self {
        Self {
            number,
            poll,
            commands,
            injected,
            outlets,
            setup: Arc::default(),
            worker: None,
            batch: Batch::new(BATCH),
            kept: Batch::new(BATCH),
            tx: TxList::new(),
            scratch: Scratch::default(),
            ready: VecDeque::new(),
            gone: Vec::new(),
            load: Load::default(),
        }
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        let mut next_tick = clock::now().after(TICK);
        let mut idle = Idle::default();
        let mut now = clock::now();
        loop {
            let looks_again =
                self.ready.is_empty() && idle.looks_again(now, self.setup.busy_poll, &self.outlets.bulk);
            let waits = self.ready.is_empty() && !looks_again;
            let wait = if waits { next_tick.since(now) } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let began = clock::now();
            if looks_again && events.is_empty() {
                // Whoever has something for us may need this very processor to hand it over.
                std::thread::yield_now();
                now = clock::now();
                continue;
            }
            if self.ready.is_empty() {
                idle.ends(began);
            }
            for event in &events {
                if let Some(source) = Source::of(event.token())
                    && !self.ready.contains(&source)
                {
                    self.ready.push_back(source);
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                if !self.obey(command) {
                    self.drain();
                    return Ok(());
                }
            }
            self.round(began);
            now = clock::now();
            if now >= next_tick {
                next_tick = now.after(TICK);
                self.tick(now);
            }
            self.load.busy += now.since(began);
            idle.begins(now);
        }
    }

    fn tick(&mut self, now: Instant) {
        self.tell_gone();
        let Some(worker) = &mut self.worker else { return };
        worker.tick(now);
        // What a socket lost after the last datagram that was read, no datagram tells.
        for receiver in self.setup.receivers.get(self.number).into_iter().flatten() {
            worker.counters_mut().drop(None, DropReason::RxOverflow, receiver.overflow());
        }
    }

    /// Serves every ready source once, or fewer when there is a command: whoever gave that waits.
    fn round(&mut self, now: Instant) {
        for _ in 0..self.ready.len() {
            let Some(source) = self.ready.pop_front() else { return };
            if self.serve(source, now) {
                self.ready.push_back(source);
            }
            if !self.commands.is_empty() {
                return;
            }
        }
    }

    /// Everything that is already there still leaves, within reason.
    fn drain(&mut self) {
        for _ in 0..DRAIN_ROUNDS {
            if self.ready.is_empty() {
                return;
            }
            self.round(clock::now());
        }
    }

    /// One batch from one source; whether it may have more.
    fn serve(&mut self, source: Source, now: Instant) -> bool {
        let Some(worker) = &mut self.worker else { return false };
        self.batch.clear();
        let (received, at) = match source {
            Source::Injected => return self.serve_injected(now),
            Source::Port(port) => match self.setup.link(port) {
                Some(link) => (link.link.receive(port, &mut self.batch), Some(port)),
                None => return false,
            },
            Source::Underlay(n) => match self.setup.receivers.get(self.number).and_then(|mine| mine.get(n)) {
                Some(receiver) => (receiver.receive(&mut self.batch), None),
                None => return false,
            },
        };
        let Received { drained, gone, overflow, truncated, bad_offload, bytes, .. } = received;
        self.outlets.bulk.came(now, bytes);
        if overflow > 0 {
            worker.counters_mut().drop(at, DropReason::RxOverflow, overflow);
        }
        if truncated > 0 {
            worker.counters_mut().drop(at, DropReason::RxTruncated, truncated);
        }
        if bad_offload > 0 {
            worker.counters_mut().drop(at, DropReason::BadOffload, bad_offload);
        }
        if !self.batch.is_empty() {
            worker.forward(now, &self.batch, &mut self.tx);
            self.send();
            self.report(now);
        }
        if gone && let Source::Port(port) = source {
            self.lose(port);
        }
        !drained && !gone
    }

    /// One batch of what the slow path gave; whether there may be more.
    fn serve_injected(&mut self, now: Instant) -> bool {
        for _ in 0..self.batch.capacity() {
            let Ok(frame) = self.injected.try_recv() else { break };
            frame.copy_into(&mut self.batch, |port| self.setup.link(port));
        }
        self.resume(now);
        self.report(now);
        !self.injected.is_empty()
    }

    /// Sends on the batch's frames, which were counted before or are the switch's own.
    fn resume(&mut self, now: Instant) {
        let Some(worker) = &mut self.worker else { return };
        worker.resume(now, &self.batch, &mut self.tx);
        self.send();
    }

    /// Sends all that is queued; a link that refuses or is full costs only its own frames.
    fn send(&mut self) {
        let Some(worker) = &mut self.worker else { return };
        let mut lost = None;
        for &port in self.tx.ports() {
            let Some(link) = self.setup.link(port) else {
                let frames = self.tx.records(port).count() as u64;
                worker.counters_mut().drop(Some(port), DropReason::LinkDown, frames);
                continue;
            };
            let Sent { ok, bytes, would_block, refused, down, too_big, bad_offload, gone } =
                link.link.send(&self.batch, &self.tx, port, &mut self.scratch);
            // A tunnel counts inner frames.
            let headers = if matches!(link.link, AnyLink::Peer(_)) { ok * VXLAN_HEADER } else { 0 };
            let counters = worker.counters_mut();
            counters.sent(port, ok, bytes.saturating_sub(headers));
            for (reason, frames) in [
                (DropReason::TxFull, would_block),
                (DropReason::TxError, refused),
                (DropReason::LinkDown, down),
                (DropReason::TooBig, too_big),
                (DropReason::BadOffload, bad_offload),
            ] {
                if frames > 0 {
                    counters.drop(Some(port), reason, frames);
                }
            }
            if gone {
                lost = Some(port);
            }
        }
        self.tx.clear();
        if let Some(port) = lost {
            self.lose(port);
        }
    }

    /// Passes on what forwarding noticed.
    fn report(&mut self, now: Instant) {
        self.hand_out();
        if !self.kept.is_empty() {
            std::mem::swap(&mut self.batch, &mut self.kept);
            self.kept.clear();
            self.resume(now);
            // Nothing of them is kept again: what is resumed is not asked for.
            self.hand_out();
        }
        let Some(worker) = &mut self.worker else { return };
        let mut told = false;
        let mut lost = 0;
        for event in worker.events() {
            match self.outlets.events.try_send(Event::Station(event)) {
                Ok(()) => told = true,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => lost += 1,
            }
        }
        worker.counters_mut().events_lost += lost;
        if told {
            (self.outlets.wake_control)();
        }
    }

    /// Gives the slow path what is for it, and keeps the frames that it has no room for and that are nowhere else.
    fn hand_out(&mut self) {
        let Some(worker) = &self.worker else { return };
        let punts = &self.outlets.punts;
        for punt in worker.punts() {
            let frame = self.batch.bytes(punt.frame).get(punt.from..).unwrap_or_default();
            let Some((arrival, offload)) = self.batch.arrival(punt.frame) else { continue };
            let link = self.setup.link(punt.port);
            match (punt.why, link, punt.segment, arrival) {
                (Why::TooBig { mtu }, Some(link), ..) => punts.too_big(link, mtu, frame),
                (Why::Probe, Some(link), _, Arrival::Underlay { remote, .. }) => {
                    punts.probe(remote, link, frame);
                }
                (Why::NeighSeen, Some(link), Some(segment), _) => {
                    // A copy that finds no room is lost; the frame itself has gone its way.
                    let _ = punts.neigh(link, segment, false, offload, frame);
                }
                (Why::Snoop, _, Some(segment), _) => {
                    punts.snoop(punt.port, segment, offload.checksum.is_some(), frame);
                }
                (Why::Neigh, link, segment, _) => {
                    let taken = link
                        .zip(segment)
                        .is_some_and(|(link, segment)| punts.neigh(link, segment, true, offload, frame));
                    if !taken {
                        self.kept.copy_in(arrival, frame, offload);
                    }
                }
                _ => {}
            }
        }
    }

    /// The thing behind a port's link is gone: stop listening to it and say so.
    fn lose(&mut self, port: PortId) {
        let Some(link) = self.setup.link(port).cloned() else { return };
        if link.worker == self.number {
            self.unwatch(link.link.fd());
        }
        if !self.gone.iter().any(|told| told.as_ptr() == Arc::as_ptr(&link)) {
            self.gone.push(Arc::downgrade(&link));
        }
        self.tell_gone();
    }

    /// Tells the control thread of links that are gone; what its queue has no room for is told at the next tick.
    fn tell_gone(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        self.gone.retain(|link| self.outlets.events.try_send(Event::Gone(Weak::clone(link))).is_err());
        (self.outlets.wake_control)();
    }

    /// Carries out one command; `false` to stop.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Apply(setup, done) => {
                self.apply(setup);
                // Nobody waits any more when the control thread has given up.
                let _ = done.send(self.number);
            }
            Command::Snapshot(reply) => {
                let counters =
                    self.worker.as_ref().map(|worker| worker.counters().clone()).unwrap_or_default();
                let _ = reply.send(Snapshot { worker: self.number, counters, load: self.load });
            }
            Command::Stop => return false,
        }
        true
    }

    fn apply(&mut self, setup: Arc<Setup>) {
        let old = std::mem::replace(&mut self.setup, setup);
        let new = Arc::clone(&self.setup);
        let Some(macs) = new.macs.clone() else { return };
        match &mut self.worker {
            Some(worker) => worker.apply(Arc::clone(&new.topology), macs),
            None => self.worker = Some(Worker::new(Arc::clone(&new.topology), macs)),
        }
        if let Some(worker) = &mut self.worker {
            if let Some(groups) = &new.groups {
                worker.set_groups(Arc::clone(groups));
            }
            for port in &new.fresh {
                worker.counters_mut().reset_port(*port);
            }
            for mirror in &new.fresh_mirrors {
                worker.counters_mut().reset_mirror(*mirror);
            }
        }
        let mine = |link: &&Arc<PortLink>| link.worker == self.number;
        let kept = |link: &Arc<PortLink>, in_setup: &Setup| {
            in_setup.link(link.port).is_some_and(|other| Arc::ptr_eq(other, link))
        };
        for link in old.links.iter().flatten().filter(mine).filter(|link| !kept(link, &new)) {
            self.unwatch(link.link.fd());
            self.ready.retain(|source| *source != Source::Port(link.port));
        }
        for link in new.links.iter().flatten().filter(mine).filter(|link| !kept(link, &old)) {
            self.watch(link.link.fd(), Source::Port(link.port));
            self.ready.push_back(Source::Port(link.port));
        }
        let sockets = |setup: &Setup| setup.receivers.get(self.number).cloned().unwrap_or_default();
        let (before, after) = (sockets(&old), sockets(&new));
        let same = before.len() == after.len() && before.iter().zip(&after).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            before.iter().for_each(|socket| self.unwatch(Some(socket.fd())));
            self.ready.retain(|source| !matches!(source, Source::Underlay(_)));
            for (n, socket) in after.iter().enumerate() {
                self.watch(Some(socket.fd()), Source::Underlay(n));
                self.ready.push_back(Source::Underlay(n));
            }
        }
    }

    fn watch(&self, fd: Option<BorrowedFd<'_>>, source: Source) {
        if let Some(fd) = fd {
            // A descriptor that cannot be watched is dead; reading it will say so.
            let _ = self.poll.registry().register(
                &mut SourceFd(&fd.as_raw_fd()),
                source.token(),
                Interest::READABLE,
            );
        }
    }

    fn unwatch(&self, fd: Option<BorrowedFd<'_>>) {
        if let Some(fd) = fd {
            // One that is not watched any more is what is wanted.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
    }
}
