//! Paying what a frame owes before it leaves by a link whose kernel cannot: an unfinished checksum is finished, a
//! superframe is cut. Headers are written anew; payload stays where it arrived. The arithmetic is the core's; here
//! are only buffers.

use super::trains::Trains;
use std::ops::Range;
use vswitch_core::frame::{TxRange, TxRecord};
use vswitch_core::offload::{cut_parts, finished_value};
use vswitch_core::wire::{ip, vlan};
use vswitch_core::{Batch, Offload, TxList};

/// Buffers of one worker, reused for ever.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Freshly written first bytes of frames, one frame's behind the other's.
    heads: Vec<u8>,
    /// The headers of a superframe that is being cut.
    front: Vec<u8>,
    /// A record in one piece.
    copy: Vec<u8>,
    frames: Vec<Frame>,
    pub(super) trains: Trains,
}

/// A frame that owes nothing any more: its first bytes, and the rest of it.
#[derive(Clone, Debug)]
struct Frame {
    lane: usize,
    head: Range<usize>,
    rest: TxRange,
    alone: bool,
}

/// The first bytes of a frame in which its IP header's length is looked for: eleven tags may stand before it.
const LOOKED_AT: usize = 64;

const NO_BYTES: TxRange = TxRange { frame: 0, from: 0, to: 0 };

impl Scratch {
    /// Empty buffers; they grow to what is needed at most.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of `record` in one piece.
    pub(super) fn copy(&mut self, batch: &Batch, tx: &TxList, record: &TxRecord) -> &[u8] {
        self.copy.clear();
        tx.copy_out(record, batch, &mut self.copy);
        &self.copy
    }

    /// Forgets the frames that were settled.
    pub(super) fn clear(&mut self) {
        self.heads.clear();
        self.frames.clear();
    }

    /// Makes of `record`, whose Ethernet frame begins at byte `wrap`, frames of `lane` that owe nothing; they are to
    /// be had from [`Self::settled`]. `None`, and none are made, when the record's offload facts do not fit its
    /// bytes.
    pub(super) fn settle(
        &mut self,
        batch: &Batch,
        tx: &TxList,
        record: &TxRecord,
        wrap: u16,
        lane: usize,
    ) -> Option<()> {
        let owed = record.offload.shifted(-i32::from(wrap))?;
        let wrap = usize::from(wrap);
        // A record in many pieces, or whose checksum is far behind its headers, is rare: it is copied whole.
        let (head, rest) = tx.parts(record).unwrap_or((&[], NO_BYTES));
        let whole = if head.len() + len_of(rest) == record.len() { None } else { Some(record) };
        let begin = self.heads.len();
        if let Some(gso) = owed.gso {
            self.front.clear();
            let headers = wrap + usize::from(gso.header_len);
            if let Some(record) = whole {
                tx.copy_out(record, batch, &mut self.front);
                return self.cut_copy(&owed, wrap, headers, lane);
            }
            let rest = first(&mut self.front, batch, head, rest, headers)?;
            return self.cut(&owed, wrap, batch, rest, lane);
        }
        let fresh = owed.checksum.map_or(0, |c| wrap + usize::from(c.start) + usize::from(c.offset) + 2);
        let rest = match whole {
            Some(record) => {
                tx.copy_out(record, batch, &mut self.heads);
                NO_BYTES
            }
            None => first(&mut self.heads, batch, head, rest, fresh)?,
        };
        if let Some(checksum) = owed.checksum {
            let inner = self.heads.get(begin + wrap..).unwrap_or_default();
            let Some(value) = finished_value([inner, bytes_of(batch, rest)], checksum) else {
                self.heads.truncate(begin);
                return None;
            };
            let at = begin + wrap + usize::from(checksum.start) + usize::from(checksum.offset);
            if let Some(field) = self.heads.get_mut(at..at + 2) {
                field.copy_from_slice(&value.to_be_bytes());
            }
        }
        let alone = self.lies(begin + wrap, bytes_of(batch, rest));
        self.frames.push(Frame { lane, head: begin..self.heads.len(), rest, alone });
        Some(())
    }

    /// Whether the frame that begins at byte `begin` of the heads and goes on with `rest` says that it is longer than
    /// it is, or hides its length behind a heap of tags. Whoever receives it first in a train may take what follows
    /// for a part of it.
    fn lies(&self, begin: usize, rest: &[u8]) -> bool {
        let head = self.heads.get(begin..).unwrap_or_default();
        let len = head.len() + rest.len();
        if let Some(claimed) = ip::claimed_len(if head.is_empty() { rest } else { head }) {
            return claimed > len;
        }
        let mut front = [0; LOOKED_AT];
        let bytes = head.iter().chain(rest);
        let looked_at = front.iter_mut().zip(bytes).map(|(to, from)| *to = *from).count();
        let front = &front[..looked_at];
        let hidden = looked_at < len && vlan::tag_stack(front).1 + 8 > looked_at;
        ip::claimed_len(front).map_or(hidden, |claimed| claimed > len)
    }

    /// Cuts the superframe whose headers, `wrap` bytes in front of them, are in `front`.
    fn cut(&mut self, owed: &Offload, wrap: usize, batch: &Batch, rest: TxRange, lane: usize) -> Option<()> {
        let Self { heads, front, frames, .. } = self;
        let (wrap, headers) = front.split_at_checked(wrap)?;
        let visit = |head: &[u8], part: Range<usize>| {
            let begin = heads.len();
            heads.extend_from_slice(wrap);
            heads.extend_from_slice(head);
            let from = |at: usize| rest.from.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
            let part = TxRange { frame: rest.frame, from: from(part.start), to: from(part.end) };
            frames.push(Frame { lane, head: begin..heads.len(), rest: part, alone: false });
        };
        cut_parts(headers, bytes_of(batch, rest), owed, visit).ok().map(drop)
    }

    /// Cuts the superframe that is in `front` as a whole, `headers` bytes up to its payload.
    fn cut_copy(&mut self, owed: &Offload, wrap: usize, headers: usize, lane: usize) -> Option<()> {
        let Self { heads, front, frames, .. } = self;
        let (front, payload) = front.split_at_checked(headers)?;
        let (wrap, headers) = front.split_at_checked(wrap)?;
        let visit = |head: &[u8], part: Range<usize>| {
            let begin = heads.len();
            heads.extend_from_slice(wrap);
            heads.extend_from_slice(head);
            heads.extend_from_slice(payload.get(part).unwrap_or_default());
            frames.push(Frame { lane, head: begin..heads.len(), rest: NO_BYTES, alone: false });
        };
        cut_parts(headers, payload, owed, visit).ok().map(drop)
    }

    /// The frames of `lane` that [`Self::settle`] made, in order, each in its pieces, and whether it must not be of a
    /// train.
    pub(super) fn settled<'a>(
        &'a self,
        batch: &'a Batch,
        lane: usize,
    ) -> impl Iterator<Item = (impl Iterator<Item = &'a [u8]>, bool)> {
        self.frames.iter().filter(move |frame| frame.lane == lane).map(|frame| {
            let head = self.heads.get(frame.head.clone()).unwrap_or_default();
            let pieces = [head, bytes_of(batch, frame.rest)].into_iter().filter(|piece| !piece.is_empty());
            (pieces, frame.alone)
        })
    }
}

const fn len_of(range: TxRange) -> usize {
    range.to.saturating_sub(range.from) as usize
}

pub(super) fn bytes_of(batch: &Batch, range: TxRange) -> &[u8] {
    batch.bytes(range.frame as usize).get(range.from as usize..range.to as usize).unwrap_or_default()
}

/// Appends to `out` all of `head` and as much of `rest` as there must be of both, `fresh` bytes; returns what is left
/// of `rest`. `None` when there is not so much.
fn first(out: &mut Vec<u8>, batch: &Batch, head: &[u8], rest: TxRange, fresh: usize) -> Option<TxRange> {
    let more = fresh.saturating_sub(head.len());
    let copied = bytes_of(batch, rest).get(..more)?;
    out.extend_from_slice(head);
    out.extend_from_slice(copied);
    Some(TxRange { from: rest.from.checked_add(u32::try_from(more).ok()?)?, ..rest })
}
