//! The sink of [`super::Worker::forward`]: counts, learns and queues.
//!
//! Not here: any decision (see [`super`]).

use super::counters::Counters;
use super::cross::{Crossings, Origin};
use super::dress::Dress;
use super::enter::Entered;
use super::leave::write_head;
use super::{EVENTS, Punt, Sink, StationEvent};
use crate::frame::{Head, TxList, TxRange};
use crate::mac_table::{Learned, MacTable, Moment, Refused};
use crate::offload::Offload;
use crate::policer::Policer;
use crate::port::PortId;
use crate::time::Instant;
use crate::verdict::DropReason;
use crate::wire::ethernet::ADDRESSES_LEN;
use crate::wire::vxlan;
use alloc::vec::Vec;
use core::ops::Range;

/// Where the journeys of one batch leave their marks; `ARRIVING` is [`Sink::ARRIVING`].
pub(super) struct Sending<'a, const ARRIVING: bool> {
    pub(super) macs: &'a MacTable,
    pub(super) clock: Instant,
    pub(super) now: Moment,
    pub(super) counters: &'a mut Counters,
    pub(super) events: &'a mut Vec<StationEvent>,
    pub(super) punts: &'a mut Vec<Punt>,
    pub(super) crossings: &'a mut Crossings,
    pub(super) tx: &'a mut TxList,
    /// The heads written last for a flood, which needs each dress once: without a VXLAN header, and with.
    pub(super) written: [Written; 2],
}

/// A head, and what is in it.
#[derive(Clone, Copy)]
pub(super) struct Written {
    frame: u32,
    dress: Dress,
    head: Head,
}

impl Written {
    /// No batch has as many frames.
    pub(super) const NOTHING: Self = Self { frame: u32::MAX, dress: Dress::AS_ARRIVED, head: Head::NONE };
}

impl<const ARRIVING: bool> Sink for Sending<'_, ARRIVING> {
    const ARRIVING: bool = ARRIVING;
    type Base = Self;

    fn base(&mut self, frame: &Entered<'_>) -> (&mut Self, Origin) {
        (self, Origin::of(frame))
    }

    fn crossings(&mut self) -> &mut Crossings {
        self.crossings
    }

    fn matched(&mut self, rule: u32, bytes: usize) {
        if ARRIVING {
            self.counters.matched(rule, bytes as u64);
        }
    }

    fn crossed(&mut self, from: PortId, to: PortId, bytes: usize) {
        self.counters.sent(from, 1, bytes as u64);
        self.counters.received(to, bytes as u64);
    }

    #[inline]
    fn received(&mut self, port: PortId, bytes: usize) {
        if ARRIVING {
            self.counters.received(port, bytes as u64);
        }
    }

    #[inline(always)]
    fn learn(&mut self, frame: &Entered<'_>) -> Learned {
        let learned = self.macs.learn_at(&self.now, frame.segment, &frame.src, frame.port.id);
        if learned != Learned::Same {
            self.learned(frame, learned);
        }
        learned
    }

    fn admits(&mut self, policer: &Policer, bytes: usize) -> bool {
        policer.admits(self.clock, bytes)
    }

    fn drop(&mut self, port: Option<PortId>, reason: DropReason) {
        self.counters.drop(port, reason, 1);
    }

    fn punt(&mut self, punt: Punt) {
        self.punts.push(punt);
    }

    fn mirrored(&mut self, id: u32, bytes: usize) {
        self.counters.mirrored(id, bytes as u64);
    }

    #[inline(always)]
    fn emit<const MANY: bool>(
        &mut self,
        port: PortId,
        frame: &Entered<'_>,
        dress: &Dress,
        offload: Offload,
        entropy: u32,
    ) {
        let head = if dress.is_as_arrived() {
            Head::NONE
        } else if MANY {
            self.head_of_many(frame, dress)
        } else {
            write_head(self.tx, frame, dress)
        };
        let to = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let range = TxRange { frame: frame.frame, from: frame.base + dress.from, to };
        self.tx.push_one(port, head, range, offload, entropy);
    }

    fn emit_across(
        &mut self,
        port: PortId,
        frame: &Entered<'_>,
        (dress, origin): (&Dress, &Origin),
        offload: Offload,
        entropy: u32,
    ) {
        let inner = frame.inner();
        let bytes =
            |range: Range<u32>| inner.get(range.start as usize..range.end as usize).unwrap_or_default();
        let vxlan = dress.vni.map(vxlan::header);
        let vxlan = vxlan.as_ref().map_or(&[][..], |header| header);
        let addresses = if dress.from > 0 { inner.get(..ADDRESSES_LEN).unwrap_or_default() } else { &[] };
        let tag = dress.tag.bytes();
        let tag = if dress.tag.is_some() { &tag[..] } else { &[] };
        // A copy may have been cut shorter.
        let len = u32::try_from(inner.len()).unwrap_or(u32::MAX);
        let split = origin.split.min(len);
        let head = self.tx.head(&[vxlan, addresses, tag, bytes(dress.from..split)]);
        let from = origin.at + dress.from.saturating_sub(split);
        let range = TxRange { frame: frame.frame, from, to: (origin.at + len - split).min(origin.end) };
        self.tx.push_one(port, head.unwrap_or(Head::NONE), range, offload, entropy);
    }
}

impl<const ARRIVING: bool> Sending<'_, ARRIVING> {
    #[inline(always)]
    fn head_of_many(&mut self, frame: &Entered<'_>, dress: &Dress) -> Head {
        let last = &mut self.written[usize::from(dress.vni.is_some())];
        if last.frame != frame.frame || last.dress != *dress {
            *last = Written { frame: frame.frame, dress: *dress, head: write_head(self.tx, frame, dress) };
        }
        last.head
    }

    /// Counts what learning a source has changed, or why it has not.
    #[inline(never)]
    fn learned(&mut self, frame: &Entered<'_>, learned: Learned) {
        let from = match learned {
            Learned::New => {
                self.counters.learned += 1;
                None
            }
            Learned::Moved { from } => {
                self.counters.moved += 1;
                Some(from)
            }
            Learned::Refused(Refused::Busy) => {
                self.counters.learn_busy += 1;
                return;
            }
            Learned::Refused(Refused::Full) => {
                self.counters.learn_full += 1;
                return;
            }
            Learned::Same | Learned::Refused(_) => return,
        };
        if self.events.len() < EVENTS {
            let (segment, mac, port) = (frame.segment, frame.src.mac(), frame.port.id);
            self.events.push(StationEvent { segment, mac, port, from });
        } else {
            self.counters.events_lost += 1;
        }
    }
}
