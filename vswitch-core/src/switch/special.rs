//! The second half of a journey in a bridge about which more is to be asked: one with mirrors, with snooping, or with
//! VLANs in which everything is flooded. Others do not pay for it.
//!
//! Not here: what [`super::leave`] does with a decision.

use super::enter::Entered;
use super::explain::Step;
use super::leave::{Decision, Last, carry_out, decide};
use super::mirrors::Copying;
use super::{Sink, Tables, multicast};
use crate::offload::Offload;
use crate::verdict::Verdict;

/// From the decision to the ports, in a bridge with VLANs in which all is flooded, with mirrors, or with snooping.
#[inline(never)]
pub(super) fn pass_specially<S: Sink>(
    tables: &Tables<'_>,
    frame: &Entered<'_>,
    offload: &Offload,
    last: &mut Last,
    sink: &mut S,
) -> Verdict {
    let Some(mirrors) = &frame.bridge.mirrors else {
        return pass_unseen(tables, frame, offload, last, sink);
    };
    let mut copying = Copying::new(tables, mirrors, Some(*frame), offload, sink);
    if S::IS_NEW {
        copying.arrived();
    }
    pass_unseen(tables, frame, offload, last, &mut copying)
}

/// The same without looking for mirrors.
pub(super) fn pass_unseen<S: Sink>(
    tables: &Tables<'_>,
    frame: &Entered<'_>,
    offload: &Offload,
    last: &mut Last,
    sink: &mut S,
) -> Verdict {
    let decision = if frame.bridge.floods(frame.admitted.vlan) {
        sink.note(Step::FloodVlan);
        Decision::Flood
    } else {
        decide(tables, frame, last, sink)
    };
    match (decision, frame.bridge.config.snooping) {
        (Decision::Flood, Some(snooping)) if frame.dst.mac().is_group() => {
            multicast::send(tables, frame, offload, snooping, sink)
        }
        (decision, _) => carry_out(tables, frame, offload, decision, sink),
    }
}
