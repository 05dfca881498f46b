//! Copies of frames for somebody who looks on: Open vSwitch's mirrors.
//!
//! A bridge with mirrors has its journeys run over a [`Copying`] in front of the sink, which sees where a frame leaves;
//! others know nothing of them. Not here: how a frame got where it is copied (see [`super::enter`]).

use super::cross::{Crossings, Origin};
use super::dress::{Dress, dress, dress_anyhow};
use super::edge::{Edge, Kind};
use super::enter::Entered;
use super::explain::Step;
use super::leave::{Refusal, egress, in_dress, is_of_port, owed};
use super::{Punt, Sink, Tables};
use crate::mac_table::Learned;
use crate::offload::Offload;
use crate::policer::Policer;
use crate::port::{Group, PortId, Segment, VlanSet};
use crate::verdict::DropReason;
use crate::wire::vlan::Vlan;
use alloc::vec::Vec;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Which frames of a bridge are copied, and where the copies go (ovs-vswitchd.conf.db(5), table `Mirror`).
///
/// A frame is copied once, however many of the conditions it meets, and however many mirrors have the same output.
/// Copies are not copied again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Its number, by which it is counted: below [`Self::MAX_ID`], unique over all bridges.
    pub id: u32,
    /// Whether every port is both a source and a destination.
    pub select_all: bool,
    /// Frames that arrive on these ports, if they are admitted, whatever becomes of them.
    pub sources: Vec<PortId>,
    /// Frames that leave by these ports.
    pub destinations: Vec<PortId>,
    /// Of these, the ones in these VLANs; `None`: in any.
    pub vlans: Option<VlanSet>,
    /// Where the copies go.
    pub output: MirrorTo,
    /// How many bytes of each frame are copied, 14..=65,535; `None`: all.
    pub snaplen: Option<u16>,
}

impl Mirror {
    /// How many of a bridge copy frames.
    pub const PER_BRIDGE: usize = 32;
    /// Numbers from here on are not counted.
    pub const MAX_ID: u32 = 1 << 16;
}

/// Where the copies of a mirror go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorTo {
    /// To this port, in the frame's VLAN and in the dress of that port. It carries nothing else, and what arrives on it
    /// is dropped.
    Port(PortId),
    /// To every port of this VLAN (RSPAN). Frames of that VLAN are not copied, nor those to 01-80-C2-00-00-00…0F.
    Vlan(Vlan),
}

/// Some of a bridge's mirrors: a bit for each, the first in the lowest.
type Set = u32;
const _: () = assert!(Set::BITS as usize == Mirror::PER_BRIDGE);

/// The mirrors of one bridge, as frames ask for them.
#[derive(Debug)]
pub(crate) struct Mirrors {
    all: Vec<Mirror>,
    /// By mirror: those with the same output, itself included.
    alike: Vec<Set>,
    /// Those of every port, and more by port.
    every: Set,
    sources: HashMap<PortId, Set, FixedState>,
    destinations: HashMap<PortId, Set, FixedState>,
}

impl Mirrors {
    /// `None` where there are none.
    pub(super) fn new(mirrors: &[Mirror]) -> Option<Self> {
        let all: Vec<Mirror> = mirrors.iter().take(Mirror::PER_BRIDGE).cloned().collect();
        let those = |is_wanted: &dyn Fn(&Mirror) -> bool| -> Set {
            let wanted = all.iter().enumerate().filter(|(_, mirror)| is_wanted(mirror));
            wanted.fold(0, |set, (n, _)| set | 1 << n)
        };
        let alike = all.iter().map(|mirror| those(&|other| other.output == mirror.output)).collect();
        let every = those(&|mirror| mirror.select_all);
        let by_port = |ports: fn(&Mirror) -> &[PortId]| {
            let mut sets: HashMap<PortId, Set, FixedState> = HashMap::default();
            for (n, mirror) in all.iter().enumerate() {
                for port in ports(mirror) {
                    *sets.entry(*port).or_default() |= 1 << n;
                }
            }
            sets
        };
        let (sources, destinations) = (by_port(|m| &m.sources), by_port(|m| &m.destinations));
        (!all.is_empty()).then_some(Self { all, alike, every, sources, destinations })
    }

    /// Whether `port` is for copies alone.
    pub(super) fn is_output(&self, port: PortId) -> bool {
        self.all.iter().any(|mirror| mirror.output == MirrorTo::Port(port))
    }

    fn of_source(&self, port: PortId) -> Set {
        self.every | self.sources.get(&port).copied().unwrap_or(0)
    }

    fn of_destination(&self, port: PortId) -> Set {
        self.every | self.destinations.get(&port).copied().unwrap_or(0)
    }
}

/// Copies a frame that was admitted and goes nowhere.
pub(super) fn copy_refused<S: Sink>(tables: &Tables<'_>, frame: &Entered<'_>, sink: &mut S) {
    if S::IS_NEW
        && !S::COPIES
        && let Some(mirrors) = &frame.bridge.mirrors
        && let Some(offload) = owed(tables, frame)
    {
        Copying::new(tables, mirrors, Some(*frame), &offload, sink).arrived();
    }
}

/// A sink that passes everything on and has copies made of one frame.
pub(super) struct Copying<'a, 'f, S> {
    tables: &'a Tables<'a>,
    mirrors: &'a Mirrors,
    /// As it was let in; `None`: it was not, and is not copied.
    frame: Option<Entered<'f>>,
    /// What it owes, counted from its own first byte.
    offload: &'a Offload,
    /// Those by which it was copied, and those with the same outputs.
    copied: Set,
    sink: &'a mut S,
}

impl<'a, 'f, S: Sink> Copying<'a, 'f, S> {
    pub(super) const fn new(
        tables: &'a Tables<'a>,
        mirrors: &'a Mirrors,
        frame: Option<Entered<'f>>,
        offload: &'a Offload,
        sink: &'a mut S,
    ) -> Self {
        Self { tables, mirrors, frame, offload, copied: 0, sink }
    }

    /// The frame has come in.
    pub(super) fn arrived(&mut self) {
        if let Some(frame) = self.frame {
            self.copy(self.mirrors.of_source(frame.port.id));
        }
    }

    fn copy(&mut self, wanted: Set) {
        let Some(frame) = self.frame else { return };
        let mut wanted = wanted & !self.copied;
        while wanted != 0 {
            let n = wanted.trailing_zeros() as usize;
            wanted &= wanted - 1;
            let (Some(mirror), Some(alike)) = (self.mirrors.all.get(n), self.mirrors.alike.get(n)) else {
                return;
            };
            if mirror.vlans.as_ref().is_some_and(|vlans| !vlans.contains(frame.segment.vlan())) {
                continue;
            }
            self.copied |= alike;
            wanted &= !alike;
            self.sink.mirrored(mirror.id, frame.inner().len());
            match mirror.output {
                MirrorTo::Port(port) => self.copy_to_port(&frame, port, mirror.snaplen),
                MirrorTo::Vlan(vlan) => self.copy_to_vlan(&frame, vlan, mirror.snaplen),
            }
        }
    }

    fn copy_to_port(&mut self, frame: &Entered<'_>, port: PortId, snaplen: Option<u16>) {
        if let Some(port) = self.tables.topology.edge(port)
            && port.bridge == frame.segment.bridge()
        {
            self.leave(port, frame, snaplen);
        }
    }

    fn copy_to_vlan(&mut self, frame: &Entered<'_>, vlan: Vlan, snaplen: Option<u16>) {
        let Some(segment) = Segment::new(frame.segment.bridge(), vlan) else { return };
        if segment == frame.segment || frame.bridge.reserves(frame.dst.mac()) {
            return;
        }
        let mut copy = *frame;
        (copy.segment, copy.admitted.vlan) = (segment, vlan);
        // As in Open vSwitch the arrival port may be among them: the copy is in another VLAN.
        for port in self.tables.topology.listeners(segment) {
            if port.group == Group::NONE || port.group != frame.port.group {
                self.leave(port, &copy, snaplen);
            }
        }
    }

    /// A copy leaves by one port; what comes in the way is counted there, and is nothing to the frame.
    fn leave(&mut self, port: &Edge, frame: &Entered<'_>, snaplen: Option<u16>) {
        let left = if port.kind == Kind::Tunnel {
            let (frame, offload) = cut(frame, self.offload, snaplen, 0);
            egress::<true, S>(self.tables, port, &frame, &offload, self.sink)
        } else {
            self.leave_local(port, frame, snaplen)
        };
        if let Err(refusal) = left {
            let reason = match refusal {
                Refusal::Drop(reason) => reason,
                Refusal::TooBig { .. } => DropReason::TooBig,
            };
            // What dies at a port of many has been counted; one that is no listener after all misses nothing.
            if !is_of_port(reason) && reason != DropReason::VlanNotOnEgress {
                self.sink.drop(Some(port.id), reason);
            }
        }
    }

    fn leave_local(&mut self, port: &Edge, frame: &Entered<'_>, snaplen: Option<u16>) -> Result<(), Refusal> {
        let dress = if port.is_reserved {
            dress_anyhow(port, &frame.admitted)
        } else {
            dress(port, &self.tables.topology.vlan_sets, &frame.admitted).map_err(Refusal::Drop)?
        };
        let (frame, offload) = cut(frame, self.offload, snaplen, dress.growth());
        in_dress::<true, S>(self.tables, port, &frame, (&dress, &offload), self.sink)
    }
}

/// The front of a frame that will grow by so much: `snaplen` bytes in all. What is cut off cannot be made good at the
/// end of the way, so the front owes nothing.
fn cut<'a>(
    frame: &Entered<'a>,
    offload: &Offload,
    snaplen: Option<u16>,
    growth: i32,
) -> (Entered<'a>, Offload) {
    let Some(snaplen) = snaplen else { return (*frame, *offload) };
    // No shorter than addresses and two tags, which a dress may take the place of.
    let len = usize::try_from(i32::from(snaplen) - growth).unwrap_or(0).max(20);
    if frame.inner().len() <= len {
        return (*frame, *offload);
    }
    let to = frame.base as usize + len;
    (Entered { bytes: frame.bytes.get(..to).unwrap_or(frame.bytes), ..*frame }, Offload::NONE)
}

impl<S: Sink> Sink for Copying<'_, '_, S> {
    const ARRIVING: bool = S::ARRIVING;
    const IS_NEW: bool = S::IS_NEW;
    const COPIES: bool = true;
    type Base = S::Base;

    fn base(&mut self, frame: &Entered<'_>) -> (&mut S::Base, Origin) {
        self.sink.base(frame)
    }

    fn crossings(&mut self) -> &mut Crossings {
        self.sink.crossings()
    }

    fn crossed(&mut self, from: PortId, to: PortId, bytes: usize) {
        self.sink.crossed(from, to, bytes);
    }

    fn left(&mut self, port: PortId) {
        self.copy(self.mirrors.of_destination(port));
    }

    fn mirrored(&mut self, id: u32, bytes: usize) {
        self.sink.mirrored(id, bytes);
    }

    fn matched(&mut self, rule: u32, bytes: usize) {
        self.sink.matched(rule, bytes);
    }

    fn note(&mut self, step: Step) {
        self.sink.note(step);
    }

    fn received(&mut self, port: PortId, bytes: usize) {
        self.sink.received(port, bytes);
    }

    fn learn(&mut self, frame: &Entered<'_>) -> Learned {
        self.sink.learn(frame)
    }

    fn admits(&mut self, policer: &Policer, bytes: usize) -> bool {
        self.sink.admits(policer, bytes)
    }

    fn drop(&mut self, port: Option<PortId>, reason: DropReason) {
        self.sink.drop(port, reason);
    }

    fn punt(&mut self, punt: Punt) {
        self.sink.punt(punt);
    }

    fn emit<const MANY: bool>(
        &mut self,
        port: PortId,
        frame: &Entered<'_>,
        dress: &Dress,
        offload: Offload,
        entropy: u32,
    ) {
        self.sink.emit::<MANY>(port, frame, dress, offload, entropy);
        self.copy(self.mirrors.of_destination(port));
    }

    fn emit_across(
        &mut self,
        port: PortId,
        frame: &Entered<'_>,
        shape: (&Dress, &Origin),
        offload: Offload,
        entropy: u32,
    ) {
        self.sink.emit_across(port, frame, shape, offload, entropy);
        self.copy(self.mirrors.of_destination(port));
    }
}
