//! Trains of frames that a TAP's kernel may have as one superframe: which frames wait in which train, and when a train
//! leaves. What may be merged is the core's to say; writing is the TAP's.
//!
//! A flow always has the same lane, so its frames leave in their order whatever becomes of the others: a frame that
//! its lane's train does not take goes behind that train.

use super::settle::bytes_of;
use vswitch_core::frame::TxRecord;
use vswitch_core::offload::{GsoKind, MAX_HEADERS_LEN, Merged, Sums, Train};
use vswitch_core::wire::flow;
use vswitch_core::{Batch, TxList};

/// Trains that may wait at a time.
pub(super) const LANES: usize = 8;

/// All lanes, one worker's; empty between two calls of `send`.
#[derive(Debug)]
pub(super) struct Trains {
    lanes: Vec<Lane>,
    /// The lane of the frame before.
    last: usize,
}

#[derive(Debug, Default)]
struct Lane {
    train: Train,
    /// The train's first frame as it was: what leaves when no other joined.
    first: Option<TxRecord>,
    /// Bytes of all its frames.
    bytes: usize,
}

/// What a lane gives back.
#[derive(Debug)]
pub(super) enum Leaves<'a> {
    /// One frame, as it was.
    Alone(TxRecord),
    /// A superframe made of so many frames of so many bytes.
    Merged { merged: Merged<'a>, frames: usize, bytes: usize },
}

/// What becomes of a frame that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It waits.
    Taken,
    /// What this lane holds must leave first; then it may be offered again.
    Behind(usize),
    /// It goes as it is, and nothing that waits is of its flow.
    Alone,
    /// It goes as it is, behind everything that waits: whose flow it is cannot be told.
    Last,
}

impl Default for Trains {
    fn default() -> Self {
        Self { lanes: (0..LANES).map(|_| Lane::default()).collect(), last: 0 }
    }
}

impl Trains {
    /// Offers a record of the batch; `tso` and `uso` say whether frames of TCP, and of UDP, may leave as one.
    pub(super) fn offer(
        &mut self,
        batch: &Batch,
        tx: &TxList,
        record: &TxRecord,
        [tso, uso]: [bool; 2],
    ) -> Offered {
        let Some((head, range)) = tx.parts(record) else { return Offered::Last };
        let body = bytes_of(batch, range);
        let (Ok(from), Ok(head_len)) = (isize::try_from(range.from), isize::try_from(head.len())) else {
            return Offered::Last;
        };
        let (frame, at) = (range.frame as usize, from - head_len);
        let mut offer = Offer { record, frame, at, front: body, rest: &[], tso, uso };
        if head.is_empty() {
            return self.take(&offer);
        }
        // Headers in one piece: a copy of them.
        let mut copy = [0; MAX_HEADERS_LEN];
        let Some((to_head, to_body)) = copy.split_at_mut_checked(head.len()) else { return Offered::Last };
        let (more, rest) = body.split_at(to_body.len().min(body.len()));
        to_head.copy_from_slice(head);
        to_body[..more.len()].copy_from_slice(more);
        (offer.front, offer.rest) = (&copy[..head.len() + more.len()], rest);
        self.take(&offer)
    }

    fn take(&mut self, offer: &Offer<'_>) -> Offered {
        let superframe = offer.record.offload.gso.is_some();
        // Mostly the train of the frame before goes on.
        if let Some(lane) = self.lanes.get_mut(self.last)
            && lane.first.is_some()
            && !superframe
            && lane.take(offer)
        {
            return Offered::Taken;
        }
        let Some(flow) = flow::of_datagram(offer.front, offer.front.len() + offer.rest.len()) else {
            return Offered::Last;
        };
        self.last = flow as usize % LANES;
        let Some(lane) = self.lanes.get_mut(self.last) else { return Offered::Last };
        if !superframe && lane.take(offer) {
            Offered::Taken
        } else if lane.first.is_some() {
            Offered::Behind(self.last)
        } else {
            Offered::Alone
        }
    }

    /// What `lane` holds, which is empty from now on; `None` when it was.
    pub(super) fn leave(&mut self, lane: usize) -> Option<Leaves<'_>> {
        let lane = self.lanes.get_mut(lane)?;
        let first = lane.first.take()?;
        match lane.train.len() {
            0 | 1 => Some(Leaves::Alone(first)),
            frames => Some(Leaves::Merged { frames, bytes: lane.bytes, merged: lane.train.merged()? }),
        }
    }
}

/// A frame: its record, and its bytes in the two parts that a train wants.
struct Offer<'a> {
    record: &'a TxRecord,
    frame: usize,
    at: isize,
    front: &'a [u8],
    rest: &'a [u8],
    tso: bool,
    uso: bool,
}

/// Datagrams that every kernel with USO takes as one superframe (UDP_MAX_SEGMENTS).
const MOST_DATAGRAMS: usize = 64;

impl Lane {
    fn take(&mut self, offer: &Offer<'_>) -> bool {
        if self.first.is_none() {
            self.train.clear();
            self.bytes = 0;
        }
        if self.train.kind() == Some(GsoKind::Udp) && self.train.len() == MOST_DATAGRAMS {
            return false;
        }
        let sums = offer.record.offload.checksum.map_or(Sums::Unknown, Sums::Owed);
        let taken = self.train.offer_parts(offer.frame, offer.at, offer.front, offer.rest, sums);
        let may = if self.train.kind() == Some(GsoKind::Udp) { offer.uso } else { offer.tso };
        if taken && !may {
            self.train.clear();
            return false;
        }
        if taken {
            self.first.get_or_insert(*offer.record);
            self.bytes += offer.record.len();
        }
        taken
    }
}
