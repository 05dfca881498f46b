//! Cables inside the switch: what leaves by one patch port arrives at the other, in the same run.
//!
//! A second journey is a journey like the first, over a sink that knows how the frame's bytes are found in what arrived
//! (`Across`). Not here: any decision but how often a frame may cross.

use super::dress::Dress;
use super::edge::Edge;
use super::enter::{Entered, ingress_by_all_rules};
use super::explain::Step;
use super::leave::{Last, leave};
use super::{Punt, Sink, Tables};
use crate::mac_table::Learned;
use crate::offload::Offload;
use crate::policer::Policer;
use crate::port::{PortId, Segment};
use crate::verdict::{DropReason, Why};
use crate::wire::ethernet::ADDRESSES_LEN;
use alloc::vec::Vec;

/// How many cables a frame may cross in a row: whoever crosses as many as there are bridges has been in one of them
/// twice.
const IN_A_ROW: u8 = Segment::BRIDGES - 1;
/// How many it may cross in all, by all ways of a flood: enough for every bridge to have four ways in.
const IN_ALL: u32 = 4 * Segment::BRIDGES as u32;
/// How many copies of one frame rules may make, and how many may leave beyond cables before it crosses no other.
const COPIES: u32 = 8192;

/// What one worker needs for frames that cross cables.
#[derive(Debug)]
pub(super) struct Crossings {
    /// The frame that was counted last, how many cables it crossed, and how many copies of it there are.
    frame: u32,
    count: u32,
    copies: u32,
    /// For bytes of frames that change on the way; the memory stays.
    spare: Vec<Vec<u8>>,
}

impl Crossings {
    /// No batch has as many frames.
    const NO_FRAME: u32 = u32::MAX;

    pub(super) const fn new() -> Self {
        Self { frame: Self::NO_FRAME, count: 0, copies: 0, spare: Vec::new() }
    }

    /// The numbers of frames begin again.
    pub(super) const fn restart(&mut self) {
        self.frame = Self::NO_FRAME;
    }

    /// Whether that frame may cross one cable more, which is counted.
    const fn admit(&mut self, frame: u32) -> bool {
        self.turn_to(frame);
        self.count += 1;
        self.count <= IN_ALL && self.copies < COPIES
    }

    /// Whether there may be one copy more of that frame, which is counted.
    pub(super) const fn copy(&mut self, frame: u32) -> bool {
        self.turn_to(frame);
        self.copies = self.copies.saturating_add(1);
        self.copies <= COPIES
    }

    const fn turn_to(&mut self, frame: u32) {
        if self.frame != frame {
            (self.frame, self.count, self.copies) = (frame, 0, 0);
        }
    }
}

/// How a frame that has crossed cables is found in what arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Where it came in from outside.
    port: PortId,
    segment: Segment,
    base: u32,
    /// From byte `split` on, the frame is what arrived from byte `at` on, to its end; the bytes before are new.
    pub(super) split: u32,
    pub(super) at: u32,
    /// The length of what arrived.
    pub(super) end: u32,
    /// How many cables it crossed.
    in_a_row: u8,
}

impl Origin {
    /// Of a frame that has crossed none.
    pub(super) fn of(frame: &Entered<'_>) -> Self {
        Self {
            port: frame.port.id,
            segment: frame.segment,
            base: frame.base,
            split: 0,
            at: frame.base,
            end: u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX),
            in_a_row: 0,
        }
    }

    /// Of the frame in another dress, of which `fresh` bytes are new.
    const fn dressed(&self, fresh: u32, dress: &Dress) -> Self {
        // What was new before and is still there stands behind what is new now.
        let kept = self.split.saturating_sub(dress.from);
        let gone = dress.from.saturating_sub(self.split);
        Self { split: fresh + kept, at: self.at + gone, ..*self }
    }
}

/// Carries a frame that leaves by `port`, in this dress, to the other end of the cable and on from there. What becomes
/// of it there is told there.
///
/// # Errors
/// When there is no other end, or it has crossed enough.
#[inline(never)]
pub(super) fn cross<S: Sink>(
    tables: &Tables<'_>,
    port: &Edge,
    frame: &Entered<'_>,
    (dress, offload): (&Dress, Offload),
    sink: &mut S,
) -> Result<(), DropReason> {
    let other = tables.topology.other_end(port.id).ok_or(DropReason::LinkDown)?;
    let (base, mut origin) = sink.base(frame);
    origin.in_a_row += 1;
    if origin.in_a_row > IN_A_ROW || !base.crossings().admit(frame.frame) {
        return Err(DropReason::PatchLoop);
    }
    let inner = frame.inner();
    if dress.is_as_arrived() {
        arrive(tables, [port, other], (frame.frame, inner, &offload), base, origin);
        return Ok(());
    }
    let mut bytes = base.crossings().spare.pop().unwrap_or_default();
    bytes.clear();
    bytes.extend_from_slice(inner.get(..ADDRESSES_LEN).unwrap_or_default());
    if dress.tag.is_some() {
        bytes.extend_from_slice(&dress.tag.bytes());
    }
    let fresh = u32::try_from(bytes.len()).unwrap_or(0);
    bytes.extend_from_slice(inner.get(dress.from as usize..).unwrap_or_default());
    let origin = origin.dressed(fresh, dress);
    arrive(tables, [port, other], (frame.frame, &bytes, &offload), base, origin);
    base.crossings().spare.push(bytes);
    Ok(())
}

/// The other end's journey.
fn arrive<B: Sink>(
    tables: &Tables<'_>,
    [from, to]: [&Edge; 2],
    (number, bytes, offload): (u32, &[u8], &Offload),
    base: &mut B,
    origin: Origin,
) {
    base.crossed(from.id, to.id, bytes.len());
    let sink = &mut Across { base, origin };
    let mut entered = None;
    if ingress_by_all_rules(tables, (to, 0), number, (offload, bytes), &mut entered, sink).is_ok()
        && let Some(entered) = &entered
    {
        let _ = leave(tables, entered, &mut Last::nothing(), sink);
    }
}

/// The sink of a journey that began at the end of a cable.
struct Across<'a, B> {
    base: &'a mut B,
    origin: Origin,
}

impl<B: Sink> Sink for Across<'_, B> {
    // It came from outside when it arrived at another port; there it has been looked at.
    const ARRIVING: bool = false;
    const IS_NEW: bool = true;
    type Base = B;

    fn base(&mut self, _frame: &Entered<'_>) -> (&mut B, Origin) {
        (self.base, self.origin)
    }

    fn crossings(&mut self) -> &mut Crossings {
        self.base.crossings()
    }

    fn crossed(&mut self, from: PortId, to: PortId, bytes: usize) {
        self.base.crossed(from, to, bytes);
    }

    fn mirrored(&mut self, id: u32, bytes: usize) {
        self.base.mirrored(id, bytes);
    }

    fn matched(&mut self, rule: u32, bytes: usize) {
        self.base.matched(rule, bytes);
    }

    fn note(&mut self, step: Step) {
        self.base.note(step);
    }

    fn received(&mut self, port: PortId, bytes: usize) {
        self.base.received(port, bytes);
    }

    fn learn(&mut self, frame: &Entered<'_>) -> Learned {
        self.base.learn(frame)
    }

    fn admits(&mut self, policer: &Policer, bytes: usize) -> bool {
        self.base.admits(policer, bytes)
    }

    fn drop(&mut self, port: Option<PortId>, reason: DropReason) {
        self.base.drop(port, reason);
    }

    fn punt(&mut self, punt: Punt) {
        let Origin { port, segment, base, .. } = self.origin;
        self.base.punt(match punt.why {
            // Its sender is answered where it came in.
            Why::TooBig { .. } => Punt { port, segment: Some(segment), from: base as usize, ..punt },
            _ => Punt { from: base as usize, ..punt },
        });
    }

    fn emit<const MANY: bool>(
        &mut self,
        port: PortId,
        frame: &Entered<'_>,
        dress: &Dress,
        offload: Offload,
        entropy: u32,
    ) {
        self.base.crossings().copy(frame.frame);
        self.base.emit_across(port, frame, (dress, &self.origin), offload, entropy);
    }

    fn emit_across(
        &mut self,
        port: PortId,
        frame: &Entered<'_>,
        (dress, origin): (&Dress, &Origin),
        offload: Offload,
        entropy: u32,
    ) {
        self.base.emit_across(port, frame, (dress, origin), offload, entropy);
    }
}
