//! The sink of [`super::Worker::forward`]: counts, learns and queues.
//!
//! Not here: any decision (see [`super`]).

use super::counters::Counters;
use super::dress::Dress;
use super::{EVENTS, Punt, Sink, StationEvent, write_head};
use crate::frame::{Head, MAX_HEAD_LEN, TxList, TxRange};
use crate::mac_table::{Learned, MacTable, Refused};
use crate::offload::Offload;
use crate::port::{PortId, Segment};
use crate::time::Instant;
use crate::verdict::{DropReason, Why};
use crate::wire::ethernet::Mac;
use alloc::vec::Vec;

/// Where the journeys of one batch leave their marks.
pub(super) struct Sending<'a> {
    pub(super) macs: &'a MacTable,
    pub(super) now: Instant,
    pub(super) counters: &'a mut Counters,
    pub(super) events: &'a mut Vec<StationEvent>,
    pub(super) punts: &'a mut Vec<Punt>,
    pub(super) tx: &'a mut TxList,
    pub(super) frame: usize,
    /// Heads written for this frame already: a flood needs each dress once. First without a VXLAN header, then with.
    pub(super) heads: [Option<(Dress, Head)>; 2],
}

impl Sink for Sending<'_> {
    #[inline]
    fn received(&mut self, port: PortId, bytes: usize) {
        self.counters.received(port, bytes as u64);
    }

    #[inline]
    fn learn(&mut self, segment: Segment, mac: Mac, port: PortId) -> Learned {
        let learned = self.macs.learn(self.now, segment, mac, port);
        let from = match learned {
            Learned::Same => return learned,
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
                return learned;
            }
            Learned::Refused(Refused::Full) => {
                self.counters.learn_full += 1;
                return learned;
            }
            Learned::Refused(_) => return learned,
        };
        if self.events.len() < EVENTS {
            self.events.push(StationEvent { segment, mac, port, from });
        } else {
            self.counters.events_lost += 1;
        }
        learned
    }

    fn drop(&mut self, port: Option<PortId>, reason: DropReason) {
        self.counters.drop(port, reason, 1);
    }

    fn punt(&mut self, port: PortId, from: usize, why: Why) {
        self.punts.push(Punt { frame: self.frame, from, port, why });
    }

    fn emit(
        &mut self,
        port: PortId,
        bytes: &[u8],
        base: usize,
        dress: &Dress,
        offload: Offload,
        entropy: u32,
    ) {
        let slot = usize::from(dress.vni.is_some());
        let head = match self.heads[slot] {
            _ if dress.is_as_arrived() => Head::NONE,
            Some((written, head)) if written == *dress => head,
            _ => {
                let mut buffer = [0; MAX_HEAD_LEN];
                let len = write_head(&mut buffer, bytes, base, dress);
                let Some(head) = self.tx.head(&[&buffer[..len]]) else { return };
                self.heads[slot] = Some((*dress, head));
                head
            }
        };
        if let Some(range) = TxRange::new(self.frame, base + dress.from, bytes.len()) {
            self.tx.push(port, head, &[range], offload, entropy);
        }
    }
}
