//! The journey of a frame: ingress, learn, forward, egress.
//!
//! A [`Worker`] is one thread's share of the switch. It reads an immutable [`Topology`] and a [`MacTable`] that
//! all workers share, and writes a [`TxList`]. [`Worker::forward`] and [`Worker::explain`] run the very same
//! code over two kinds of `Sink`: one counts and sends, the other writes down.
//!
//! Not here: reading, sending, waiting, and the time.

mod counters;
mod cross;
mod dress;
mod edge;
mod enter;
mod explain;
mod guard;
mod inside;
mod leave;
mod mirrors;
mod multicast;
mod rules;
mod sending;
mod special;
mod topology;

pub use counters::{Counters, MirrorCount, PortCounters};
pub use explain::{Explanation, Output, Step};
pub use guard::{Allowed, Breach};
pub use mirrors::{Mirror, MirrorTo};
pub use multicast::{Groups, Snooping};
pub use rules::{Rule, RuleAction, RuleCount, RuleMatch, RuleVlan};
pub use topology::{Bridge, Topology, TopologyError};

use crate::frame::{Arrival, Batch, TxList};
use crate::mac_table::{Learned, MacTable, Moment};
use crate::offload::Offload;
use crate::policer::Policer;
use crate::port::{PortId, Segment};
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict, Why};
use crate::wire::ethernet::Mac;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::black_box;
use cross::{Crossings, Origin};
use dress::Dress;
use enter::{Entered, enter};
use leave::{Last, leave};
use sending::{Sending, Written};

/// How many frames are let in before the first of them is decided.
const AHEAD: usize = 32;
/// How many buckets of the MAC table are swept while its lock is held.
const SWEEP_BUCKETS: usize = 4096;
/// In how many ticks a whole table is swept.
const SWEEP_TICKS: usize = 32;
/// How many learning events wait for being fetched.
const EVENTS: usize = 1024;

/// A station was learned or moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StationEvent {
    /// Its segment.
    pub segment: Segment,
    /// Its address.
    pub mac: Mac,
    /// Where it is now.
    pub port: PortId,
    /// Where it was, when it moved.
    pub from: Option<PortId>,
}

/// A frame for the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punt {
    /// Which frame of the batch.
    pub frame: usize,
    /// Where the Ethernet frame begins in it: behind the VXLAN header, if any. 0 for a probe, which is no frame.
    pub from: usize,
    /// The port it came in by; an answer leaves there.
    pub port: PortId,
    /// The segment it was let into; none for a probe.
    pub segment: Option<Segment>,
    /// What is asked.
    pub why: Why,
}

/// One thread's share of the switch.
#[derive(Debug)]
pub struct Worker {
    topology: Arc<Topology>,
    macs: Arc<MacTable>,
    counters: Counters,
    events: Vec<StationEvent>,
    punts: Vec<Punt>,
    groups: Arc<Groups>,
    crossings: Crossings,
}

impl Worker {
    /// A worker over these. Every port must be bound in `macs` (see [`MacTable::bind`]) to be learned on.
    #[must_use]
    pub fn new(topology: Arc<Topology>, macs: Arc<MacTable>) -> Self {
        let mut counters = Counters::default();
        counters.grow(topology.port_numbers());
        counters.grow_mirrors(topology.mirror_numbers());
        counters.grow_rules(topology.rule_ids());
        let (events, punts) = (Vec::with_capacity(EVENTS), Vec::new());
        let (groups, crossings) = (Arc::default(), Crossings::new());
        Self { topology, macs, counters, events, punts, groups, crossings }
    }

    /// Takes who has joined which multicast group, between two batches; read in bridges that snoop.
    pub fn set_groups(&mut self, groups: Arc<Groups>) {
        self.groups = groups;
    }

    /// Takes a new configuration, between two batches; the old one is let go.
    pub fn apply(&mut self, topology: Arc<Topology>, macs: Arc<MacTable>) {
        self.counters.grow(topology.port_numbers());
        self.counters.grow_mirrors(topology.mirror_numbers());
        self.counters.grow_rules(topology.rule_ids());
        self.topology = topology;
        self.macs = macs;
    }

    /// The configuration in force.
    #[must_use]
    pub const fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// For what only the sender knows: what a link took or refused.
    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Stations learned or moved since the last call, 1,024 at most; more are counted as lost.
    pub fn events(&mut self) -> impl Iterator<Item = StationEvent> + '_ {
        self.events.drain(..)
    }

    /// The frames of the last [`Self::forward`] or [`Self::resume`] that the slow path should see.
    #[must_use]
    pub fn punts(&self) -> &[Punt] {
        &self.punts
    }

    /// Decides every frame of `batch` and queues what leaves in `tx`, in order; what `tx` held stays.
    pub fn forward(&mut self, now: Instant, batch: &Batch, tx: &mut TxList) {
        self.run::<true>(now, batch, tx);
    }

    /// [`Self::forward`] for frames that have been counted as received before, or that the switch makes itself: those
    /// that were punted and found no answer, or what is said in the name of a port's station. They are not counted as
    /// received, and ARP and Neighbor Discovery go their way like everything else; what can be learned from a frame
    /// is learned, and a drop is counted.
    pub fn resume(&mut self, now: Instant, batch: &Batch, tx: &mut TxList) {
        self.run::<false>(now, batch, tx);
    }

    fn run<const ARRIVING: bool>(&mut self, now: Instant, batch: &Batch, tx: &mut TxList) {
        self.punts.clear();
        self.crossings.restart();
        let (clock, now) = (now, self.macs.moment(now));
        let tables = &Tables { topology: &self.topology, macs: &self.macs, groups: &self.groups, now };
        let mut sink = Sending::<ARRIVING> {
            macs: &self.macs,
            clock,
            now,
            counters: &mut self.counters,
            events: &mut self.events,
            punts: &mut self.punts,
            crossings: &mut self.crossings,
            tx,
            written: [Written::NOTHING; 2],
        };
        let (mut frames, mut last) = ((0..).zip(batch.frames()), Last::nothing());
        loop {
            // Let in a few, then have the lines of the MAC table brought that they will ask for, all at once, then
            // decide: what takes long is waiting for memory, and so it is waited for once.
            let mut entered = core::array::from_fn(|_| None);
            let len = let_in(tables, &mut frames, &mut entered, &mut sink);
            if len == 0 {
                return;
            }
            let entered = &entered[..len];
            touch(&self.macs, entered);
            send_on(tables, entered, &mut last, &mut sink);
        }
    }

    /// Background work, once a second or so: clears what aged out.
    pub fn tick(&mut self, now: Instant) {
        // A bucket holds four entries and is half full at the limit.
        let buckets = usize::try_from(self.macs.limit() / 2).unwrap_or(usize::MAX);
        for _ in 0..=buckets / SWEEP_TICKS / SWEEP_BUCKETS {
            self.macs.sweep(now, SWEEP_BUCKETS);
        }
    }

    /// What [`Self::forward`] would do with `bytes`, step by step; nothing is learned, counted or sent. One thing it
    /// cannot tell: an entry that learning the source would push out of a full table is still found.
    #[must_use]
    pub fn explain(&self, now: Instant, arrival: Arrival, bytes: &[u8]) -> Explanation {
        let tables = Tables {
            topology: &self.topology,
            macs: &self.macs,
            groups: &self.groups,
            now: self.macs.moment(now),
        };
        explain::explain(&tables, now, arrival, bytes)
    }
}

// Three loops over a few frames each; apart, so that each has the registers to itself.

/// Lets the next frames in, and returns how many of `entered` have been written; those that end here are `None`.
#[inline(never)]
fn let_in<'a, S: Sink>(
    tables: &Tables<'a>,
    frames: &mut impl Iterator<Item = (u32, Arrived<'a>)>,
    entered: &mut [Option<Entered<'a>>; AHEAD],
    sink: &mut S,
) -> usize {
    let mut len = 0;
    for (place, (number, frame)) in entered.iter_mut().zip(frames) {
        let _ = enter(tables, number, frame, place, sink);
        len += 1;
    }
    len
}

#[inline(never)]
fn touch(macs: &MacTable, entered: &[Option<Entered<'_>>]) {
    let frames = entered.iter().flatten();
    black_box(frames.fold(0, |words, frame| words ^ macs.touch(&frame.src) ^ macs.touch(&frame.dst)));
}

#[inline(never)]
fn send_on<S: Sink>(tables: &Tables<'_>, entered: &[Option<Entered<'_>>], last: &mut Last, sink: &mut S) {
    for frame in entered.iter().flatten() {
        leave(tables, frame, last, sink);
    }
}

/// Where a frame came in, what it still owes, and its bytes.
type Arrived<'a> = (&'a Arrival, &'a Offload, &'a [u8]);

/// Where a frame's journey leaves its marks.
trait Sink {
    /// Whether the frames come from outside just now, and not a second time or from the switch itself.
    const ARRIVING: bool;
    /// Whether those who look on have not seen the frames arrive where they do.
    const IS_NEW: bool = Self::ARRIVING;
    /// Whether whoever is to see them arrive is told by somebody else.
    const COPIES: bool = false;
    /// Where all marks are left in the end: the sink itself, but for a frame that has crossed cables.
    type Base: Sink;
    /// That one, and how `frame` is found in what arrived.
    fn base(&mut self, frame: &Entered<'_>) -> (&mut Self::Base, Origin);
    /// A frame of so many bytes matches the rule of this id.
    fn matched(&mut self, rule: u32, bytes: usize);
    /// What is known of the frames that cross cables.
    fn crossings(&mut self) -> &mut Crossings;
    /// A frame of so many bytes leaves by one end of a cable and arrives at the other.
    fn crossed(&mut self, from: PortId, to: PortId, bytes: usize);
    /// The frame has left by this end of a cable, of which [`Self::emit`] is not told.
    fn left(&mut self, _port: PortId) {}
    /// A thing that happened, for whoever writes it down.
    fn note(&mut self, _step: Step) {}
    fn received(&mut self, port: PortId, bytes: usize);
    /// Notes the frame's source.
    fn learn(&mut self, frame: &Entered<'_>) -> Learned;
    /// Whether a frame of so many bytes may pass, which then counts as passed.
    fn admits(&mut self, policer: &Policer, bytes: usize) -> bool;
    fn drop(&mut self, port: Option<PortId>, reason: DropReason);
    fn punt(&mut self, punt: Punt);
    /// A frame of so many bytes was copied by the mirror of this number.
    fn mirrored(&mut self, id: u32, bytes: usize);
    /// The frame leaves by `port` in this dress; by others too, if `many`.
    fn emit<const MANY: bool>(
        &mut self,
        port: PortId,
        frame: &Entered<'_>,
        dress: &Dress,
        offload: Offload,
        entropy: u32,
    );
    /// The same of a frame that has crossed cables.
    fn emit_across(
        &mut self,
        port: PortId,
        frame: &Entered<'_>,
        shape: (&Dress, &Origin),
        offload: Offload,
        entropy: u32,
    );
}

/// What decisions are made from.
struct Tables<'a> {
    topology: &'a Topology,
    macs: &'a MacTable,
    groups: &'a Groups,
    now: Moment,
}

/// A frame's whole journey.
fn journey<'a, S: Sink>(tables: &Tables<'a>, frame: Arrived<'a>, sink: &mut S) -> Verdict {
    let mut entered = None;
    match (enter(tables, 0, frame, &mut entered, sink), &entered) {
        (Ok(()), Some(entered)) => leave(tables, entered, &mut Last::nothing(), sink),
        (Ok(()), None) => Verdict::Drop(DropReason::NoSuchPort),
        (Err(verdict), _) => verdict,
    }
}
