//! Trains of frames that an interface's kernel may have as one superframe: which frames wait in which train, when a
//! train leaves, and what becomes of one that is refused. What may be merged is the core's to say; the system call is
//! the link's.
//!
//! A flow always has the same lane, so its frames leave in their order whatever becomes of the others: a frame that
//! its lane's train does not take goes behind that train.

use super::settle::bytes_of;
use super::{Sent, vnet};
use std::io::{self, IoSlice};
use std::ops::Range;
use vswitch_core::frame::TxRecord;
use vswitch_core::offload::{GsoKind, MAX_HEADERS_LEN, MAX_PIECES, Merged, Sums, Train, cut};
use vswitch_core::wire::flow;
use vswitch_core::{Batch, Offload, TxList};

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

    /// Whether `lane` holds frames that will leave as one.
    pub(super) fn has_train(&self, lane: usize) -> bool {
        self.lanes.get(lane).is_some_and(|lane| lane.first.is_some() && lane.train.len() > 1)
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

/// Hands a train of so many frames, so many bytes in all, to `write` as one superframe, a virtio-net header in front.
/// A kernel that refuses it, though nothing is wrong with it, has it in pieces, and its kind is given back: of that
/// kind it should be offered none any more.
pub(super) fn write_train(
    batch: &Batch,
    merged: &Merged<'_>,
    (frames, bytes): (usize, usize),
    sent: &mut Sent,
    write: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>,
) -> Option<GsoKind> {
    let header = vnet::header(merged.offload, false);
    let mut pieces = [IoSlice::new(&[]); MAX_PIECES + 2];
    pieces[0] = IoSlice::new(&header);
    pieces[1] = IoSlice::new(merged.head);
    for (place, piece) in pieces[2..].iter_mut().zip(merged.pieces) {
        let range = piece.from as usize..piece.to as usize;
        *place = IoSlice::new(batch.bytes(piece.frame as usize).get(range).unwrap_or_default());
    }
    let pieces = &pieces[..2 + merged.pieces.len()];
    match write(pieces) {
        Ok(_) => sent.taken(frames, bytes),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            // Once in the life of a link at most.
            let whole: Vec<u8> = pieces[1..].iter().flat_map(|piece| piece.iter().copied()).collect();
            write_cut(&whole, merged.offload, sent, write);
            return merged.offload.gso.map(|gso| gso.kind);
        }
        Err(error) => sent.failed(&error, frames),
    }
    None
}

/// Cuts the superframe `frame` and hands what that gives to `write`, a virtio-net header in front of each.
pub(super) fn write_cut(
    frame: &[u8],
    owed: Offload,
    sent: &mut Sent,
    write: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>,
) {
    let visit = |head: &[u8], payload: Range<usize>| {
        let payload = frame.get(payload).unwrap_or_default();
        match write(&[&vnet::NOTHING, head, payload].map(IoSlice::new)) {
            Ok(bytes) => sent.taken(1, bytes),
            Err(error) => sent.failed(&error, 1),
        }
    };
    if cut(frame, &owed, visit).is_err() {
        sent.bad_offload += 1;
    }
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
