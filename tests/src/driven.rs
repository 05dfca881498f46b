//! The core driven one frame at a time: forwards each, and holds the production path and `explain` to each other.
//!
//! Not here: what should come out (see [`crate::reference`]).

use crate::frames::describe_all;
use crate::reference::{Sent, Spec};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::frame::{Arrival, Batch, TxList};
use vswitch_core::mac_table::{Learned, MacTable};
use vswitch_core::offload::Offload;
use vswitch_core::port::PortId;
use vswitch_core::switch::{Bridge, Counters, Explanation, Punt, Step, Topology, Worker};
use vswitch_core::time::Instant;
use vswitch_core::verdict::{DropReason, Verdict, Why};

/// What became of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// What left, sorted by port number.
    pub sent: Sent,
    /// What each of these still owes, and the hash of its flow, in the same order.
    pub facts: Vec<(Offload, u32)>,
    /// Why it left by no port; `None` when it left, or was handed out instead.
    pub dropped: Option<DropReason>,
    /// What the slow path is asked.
    pub punts: Vec<Punt>,
    /// The story that `explain` told beforehand.
    pub story: Explanation,
}

/// One switch with one worker.
#[derive(Debug)]
pub struct Driven {
    worker: Worker,
    macs: Arc<MacTable>,
    batch: Batch,
    tx: TxList,
}

/// The topology that `spec` means.
///
/// # Panics
/// When the core refuses it.
#[must_use]
pub fn topology(spec: &Spec) -> Topology {
    let bridges = spec
        .bridges
        .iter()
        .map(|bridge| Bridge {
            forward_bpdu: bridge.forward_bpdu,
            keeps_vendor_protocols: bridge.keeps_vendor_protocols,
            flood_vlans: bridge.flood_vlans.clone(),
            vlan_limit: bridge.vlan_limit,
            neigh_suppress: bridge.neigh_suppress,
            vnis: bridge.vnis.clone(),
            rules: bridge.rules.clone(),
            ..Bridge::default()
        })
        .collect();
    Topology::new(bridges, spec.ports.iter().cloned()).expect("the test's configuration is a good one")
}

/// A datagram's arrival from `remote`.
#[must_use]
pub const fn from_peer(remote: IpAddr) -> Arrival {
    Arrival::Underlay { local: IpAddr::V4(Ipv4Addr::UNSPECIFIED), remote, udp_port: 4789 }
}

impl Driven {
    /// A switch that has seen nothing.
    #[must_use]
    pub fn new(spec: &Spec) -> Self {
        let limit = u32::try_from(spec.mac_limit).unwrap_or(u32::MAX);
        let macs = Arc::new(MacTable::new(limit, Duration::from_secs(spec.ageing), [7, 9]));
        spec.ports.iter().for_each(|port| macs.bind(port.id, port.mac_limit));
        let worker = Worker::new(Arc::new(topology(spec)), Arc::clone(&macs));
        Self { worker, macs, batch: Batch::new(1), tx: TxList::new() }
    }

    /// Its MAC table.
    #[must_use]
    pub fn macs(&self) -> &MacTable {
        &self.macs
    }

    /// Its worker.
    pub const fn worker(&mut self) -> &mut Worker {
        &mut self.worker
    }

    /// A frame that owes nothing arrives.
    pub fn pass(&mut self, now: Instant, arrival: Arrival, bytes: &[u8]) -> Passed {
        self.pass_owing(now, arrival, bytes, Offload::NONE)
    }

    /// A frame arrives. What `explain` says beforehand must be what `forward` then does, unless facts on the
    /// frame, which `explain` is not told of, made the difference.
    ///
    /// # Panics
    /// When the two disagree, or a rule that holds for every frame is broken.
    pub fn pass_owing(&mut self, now: Instant, arrival: Arrival, bytes: &[u8], owed: Offload) -> Passed {
        let story = self.worker.explain(now, arrival, bytes);
        let before = self.worker.counters().clone();
        self.batch.clear();
        self.tx.clear();
        assert!(self.batch.copy_in(arrival, bytes, owed), "{} bytes do not fit a slot", bytes.len());
        self.worker.forward(now, &self.batch, &mut self.tx);
        let (sent, facts) = self.left();
        let punts = self.worker.punts().to_vec();
        let dropped = if sent.is_empty() { self.risen(&before) } else { None };
        if owed.is_none() && !self.gives_up(&story) {
            let mut told: Sent = story.outputs.iter().map(|out| (out.port, out.bytes.clone())).collect();
            told.sort();
            assert_eq!(describe_all(&told), describe_all(&sent), "explain and forward disagree");
            assert!(told == sent, "explain and forward disagree in bytes");
            self.counted_as_told(&before, &story);
        }
        let handed_out = matches!(story.verdict, Verdict::Punt(Why::Probe | Why::Neigh));
        assert_eq!(dropped.is_some(), sent.is_empty() && !handed_out, "{:?}", story.verdict);
        Passed { sent, facts, dropped, punts, story }
    }

    /// A frame that was handed out comes back: what leaves, and why nothing does.
    ///
    /// # Panics
    /// When it is counted as received once more, or handed out again for the same reason.
    pub fn resume(&mut self, now: Instant, arrival: Arrival, bytes: &[u8]) -> (Sent, Option<DropReason>) {
        let before = self.worker.counters().clone();
        self.batch.clear();
        self.tx.clear();
        assert!(self.batch.copy_in(arrival, bytes, Offload::NONE), "{} bytes do not fit a slot", bytes.len());
        self.worker.resume(now, &self.batch, &mut self.tx);
        let (sent, _) = self.left();
        for port in self.worker.topology().ports().map(|port| port.id) {
            let (was, is) = (before.port(port), self.worker.counters().port(port));
            assert_eq!((was.rx_frames, was.rx_bytes), (is.rx_frames, is.rx_bytes), "port {port}");
        }
        assert!(self.worker.punts().iter().all(|punt| matches!(punt.why, Why::TooBig { .. } | Why::Probe)));
        let dropped = if sent.is_empty() { self.risen(&before) } else { None };
        (sent, dropped)
    }

    /// What is in the list: what left, sorted by port number, and what each owes.
    fn left(&self) -> (Sent, Vec<(Offload, u32)>) {
        let mut left: Vec<(PortId, Vec<u8>, (Offload, u32))> = Vec::new();
        for port in self.tx.ports() {
            for record in self.tx.records(*port) {
                let mut frame = Vec::new();
                self.tx.copy_out(record, &self.batch, &mut frame);
                assert_eq!(frame.len(), record.len());
                left.push((*port, frame, (record.offload, record.entropy)));
            }
        }
        left.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        left.into_iter().map(|(port, frame, fact)| ((port, frame), fact)).unzip()
    }

    /// Whether learning the source made the table give up an entry, which may have been the destination's: the one
    /// thing that `explain`, which learns nothing, does not see.
    fn gives_up(&self, story: &Explanation) -> bool {
        let learns = |step: &Step| matches!(step, Step::Learned(Learned::New | Learned::Moved { .. }));
        let from = story.steps.iter().find_map(|step| match step {
            Step::Arrived { port, .. } => self.worker.topology().port(*port),
            _ => None,
        });
        let full = self.macs.len() >= self.macs.limit()
            || from.is_some_and(|p| p.mac_limit.is_some_and(|limit| self.macs.entries_of(p.id) >= limit));
        full && story.steps.iter().any(learns)
    }

    /// The reason whose counter has risen.
    fn risen(&self, before: &Counters) -> Option<DropReason> {
        let now = self.worker.counters();
        let rose = |reason: &DropReason| {
            let at = reason.index();
            now.no_port[at] > before.no_port[at]
                || self
                    .worker
                    .topology()
                    .ports()
                    .any(|port| now.port(port.id).dropped[at] > before.port(port.id).dropped[at])
        };
        // Where peers died of several reasons, the verdict names the one that a sender can do something about.
        [DropReason::TooBig].iter().chain(DropReason::ALL).copied().find(rose)
    }

    /// Every drop of the story is one on a counter, and no other.
    fn counted_as_told(&self, before: &Counters, story: &Explanation) {
        let mut expected = before.clone();
        for step in &story.steps {
            if let Step::Dropped { port, reason } = step {
                expected.drop(*port, *reason, 1);
            }
        }
        let now = self.worker.counters();
        assert_eq!(expected.no_port, now.no_port);
        for port in self.worker.topology().ports() {
            assert_eq!(expected.port(port.id).dropped, now.port(port.id).dropped, "port {}", port.id);
        }
    }

    /// Frames that arrive together, in one batch: what leaves by each port, in order.
    ///
    /// # Panics
    /// When one does not fit a slot.
    pub fn pass_all(&mut self, now: Instant, frames: &[(Arrival, Vec<u8>)]) -> Sent {
        let mut batch = Batch::new(frames.len());
        for (arrival, bytes) in frames {
            assert!(batch.copy_in(*arrival, bytes, Offload::NONE));
        }
        self.tx.clear();
        self.worker.forward(now, &batch, &mut self.tx);
        let mut ports = self.tx.ports().to_vec();
        ports.sort();
        let mut sent = Sent::new();
        for port in ports {
            for record in self.tx.records(port) {
                let mut frame = Vec::new();
                self.tx.copy_out(record, &batch, &mut frame);
                sent.push((port, frame));
            }
        }
        sent
    }
}
