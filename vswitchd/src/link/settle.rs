//! Paying what a frame owes before it leaves by a link whose kernel cannot: an unfinished checksum is finished,
//! a superframe is cut, both in a copy. The arithmetic is the core's; here are only buffers.

use std::ops::Range;
use vswitch_core::frame::TxRecord;
use vswitch_core::offload::{cut, finish_checksum};
use vswitch_core::{Batch, TxList};

/// Buffers for copies, one worker's, reused for ever.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A copy of one record.
    frame: Vec<u8>,
    /// The headers of what it was cut into, one behind the other.
    heads: Vec<u8>,
    cuts: Vec<Cut>,
}

/// One frame to send: a head and a part of the copied record.
#[derive(Debug)]
struct Cut {
    head: Range<usize>,
    payload: Range<usize>,
}

impl Scratch {
    /// Empty buffers; they grow to the largest frame seen.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of `record` in one piece.
    pub(super) fn copy(&mut self, batch: &Batch, tx: &TxList, record: &TxRecord) -> &[u8] {
        self.frame.clear();
        tx.copy_out(record, batch, &mut self.frame);
        &self.frame
    }

    /// Makes of `record`, whose Ethernet frame begins at byte `wrap`, the frames that owe nothing; they are to
    /// be had from [`Self::settled`]. `None` when the record's offload facts do not fit its bytes.
    pub(super) fn settle(&mut self, batch: &Batch, tx: &TxList, record: &TxRecord, wrap: u16) -> Option<()> {
        self.copy(batch, tx, record);
        let Self { frame, heads, cuts } = self;
        heads.clear();
        cuts.clear();
        let owed = record.offload.shifted(-i32::from(wrap))?;
        let wrap = usize::from(wrap);
        let inner = frame.get_mut(wrap..)?;
        if owed.gso.is_some() {
            let visit = |head: &[u8], payload: Range<usize>| {
                let at = heads.len();
                heads.extend_from_slice(head);
                cuts.push(Cut { head: at..heads.len(), payload: wrap + payload.start..wrap + payload.end });
            };
            return cut(inner, &owed, visit).ok().map(drop);
        }
        if let Some(checksum) = owed.checksum {
            finish_checksum(inner, checksum).ok()?;
        }
        cuts.push(Cut { head: 0..0, payload: wrap..frame.len() });
        Some(())
    }

    /// The frames that [`Self::settle`] made, each in three pieces: the `wrap` bytes in front of the Ethernet
    /// frame, the head, the payload.
    pub(super) fn settled(&self, wrap: u16) -> impl Iterator<Item = [&[u8]; 3]> {
        let wrap = self.frame.get(..usize::from(wrap)).unwrap_or_default();
        self.cuts.iter().map(move |cut| {
            let head = self.heads.get(cut.head.clone()).unwrap_or_default();
            [wrap, head, self.frame.get(cut.payload.clone()).unwrap_or_default()]
        })
    }
}
