//! Frames in bulk: what arrived ([`Batch`]) and what is to leave ([`TxList`]).
//!
//! An arrived frame is never written to again. What leaves is described in numbers: a *head* of freshly
//! written bytes, then *ranges* of arrived frames. So one buffer can leave by every port at once, in as many
//! dresses, without a copy, a reference count or a lock; whoever sends turns the numbers into a gather list.
//! Both are made once and reused for ever; growing to a new high-water mark is all they ever allocate.
//!
//! Not here: decisions (see [`crate::switch`]) and sending.

use crate::offload::Offload;
use crate::port::PortId;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::Range;

/// Where a frame or datagram came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A whole Ethernet frame, from a port.
    Port(PortId),
    /// The payload of a UDP datagram from the underlay: VXLAN header, then a frame.
    Underlay {
        /// The address it was sent to; unspecified where the receiver does not know.
        local: IpAddr,
        /// The address it came from.
        remote: IpAddr,
        /// The UDP port it was sent to.
        udp_port: u16,
    },
}

/// Bytes of one slot of a [`Batch`]: the largest frame or datagram, with its last tags, and an odd number of
/// cache lines over, so that neighbouring slots do not compete for the same sets of a cache.
pub const SLOT_LEN: usize = 65_536 + 13 * 64;

#[derive(Clone, Copy, Debug)]
struct Arrived {
    /// Its first byte in the slab.
    at: usize,
    len: usize,
    arrival: Arrival,
    offload: Offload,
}

/// Arrived frames, one worker's, in a slab of equal slots. Mostly a slot holds one frame; what a kernel hands over
/// in one piece, many datagrams say, stays where it is, as many frames of one slot.
#[derive(Debug)]
pub struct Batch {
    slab: Vec<u8>,
    slots: usize,
    /// Slots that hold something.
    used: usize,
    arrived: Vec<Arrived>,
}

impl Batch {
    /// Room for `slots` frames, at least one.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        let slots = slots.max(1);
        let slab = alloc::vec![0; slots * SLOT_LEN];
        Self { slab, slots, used: 0, arrived: Vec::with_capacity(slots) }
    }

    /// The next free slot, [`SLOT_LEN`] bytes, to receive into; `None` when the batch is full.
    pub fn spare(&mut self) -> Option<&mut [u8]> {
        self.spares().next()
    }

    /// All free slots in order: of what is pushed next, the *n*th must lie in the *n*th.
    pub fn spares(&mut self) -> impl ExactSizeIterator<Item = &mut [u8]> {
        self.slab[self.used * SLOT_LEN..].chunks_exact_mut(SLOT_LEN)
    }

    /// The first `len` bytes of the next free slot have become a frame. A `len` over [`SLOT_LEN`] is cut to it;
    /// in a full batch nothing happens.
    pub fn push(&mut self, arrival: Arrival, len: usize, offload: Offload) {
        self.push_part(0, 0..len.min(SLOT_LEN), arrival, offload);
        self.take(1);
    }

    /// The bytes `range` of the `spare`th free slot, counted from 0, have become a frame. The slot stays free until
    /// [`Self::take`] says that all its frames are named. A slot that is not there, or a range that does not lie in
    /// one, is no frame: nothing happens.
    pub fn push_part(&mut self, spare: usize, range: Range<usize>, arrival: Arrival, offload: Offload) {
        if range.start <= range.end && range.end <= SLOT_LEN && spare < self.slots - self.used {
            let at = (self.used + spare) * SLOT_LEN + range.start;
            self.arrived.push(Arrived { at, len: range.len(), arrival, offload });
        }
    }

    /// The next `slots` free slots hold what was pushed of them, and are free no more.
    pub fn take(&mut self, slots: usize) {
        self.used = self.used.saturating_add(slots).min(self.slots);
    }

    /// Copies `bytes` in as a frame; `false` when the batch is full or the bytes exceed [`SLOT_LEN`].
    pub fn copy_in(&mut self, arrival: Arrival, bytes: &[u8], offload: Offload) -> bool {
        let Some(room) = self.spare().and_then(|slot| slot.get_mut(..bytes.len())) else { return false };
        room.copy_from_slice(bytes);
        self.push(arrival, bytes.len(), offload);
        true
    }

    /// How many frames it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arrived.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    /// How many slots it has.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.slots
    }

    /// The bytes of frame `i`; empty when there is none.
    #[must_use]
    pub fn bytes(&self, i: usize) -> &[u8] {
        self.arrived.get(i).map_or(&[], |a| &self.slab[a.at..a.at + a.len])
    }

    /// The bytes of `range` and the `front` bytes that lie before them in its slot; `None` when there are not so many,
    /// or `range` does not lie in the batch.
    #[must_use]
    pub fn with_front(&self, range: TxRange, front: usize) -> Option<&[u8]> {
        let frame = self.arrived.get(range.frame as usize)?;
        let (from, to) = (frame.at + range.from as usize, frame.at + range.to as usize);
        let whole = from.checked_sub(front)?..to;
        (whole.start / SLOT_LEN == frame.at / SLOT_LEN && range.to as usize <= frame.len)
            .then(|| self.slab.get(whole))?
    }

    /// Where frame `i` came in, and what it still owes.
    #[must_use]
    pub fn arrival(&self, i: usize) -> Option<(Arrival, Offload)> {
        self.arrived.get(i).map(|a| (a.arrival, a.offload))
    }

    /// All frames in order: where each came in, what it still owes, and its bytes.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (&Arrival, &Offload, &[u8])> {
        self.arrived.iter().map(|a| (&a.arrival, &a.offload, &self.slab[a.at..a.at + a.len]))
    }

    /// Forgets all frames; the memory stays.
    pub fn clear(&mut self) {
        self.used = 0;
        self.arrived.clear();
    }
}

/// The largest head: outer headers, VXLAN, Ethernet, tags, IPv6 and TCP with all options fit.
pub const MAX_HEAD_LEN: usize = 192;

/// Freshly written bytes in a [`TxList`]'s arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Head {
    at: u32,
    len: u32,
}

impl Head {
    /// No head.
    pub const NONE: Self = Self { at: 0, len: 0 };

    /// Its length in bytes, 0..=[`MAX_HEAD_LEN`].
    #[must_use]
    pub const fn len(self) -> usize {
        self.len as usize
    }

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// A piece of an arrived frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxRange {
    /// Which frame of the batch.
    pub frame: u32,
    /// First byte.
    pub from: u32,
    /// The byte behind the last.
    pub to: u32,
}

impl TxRange {
    /// Bytes `from..to` of frame `frame`; `None` when a number does not fit 32 bits or `to < from`.
    #[must_use]
    pub fn new(frame: usize, from: usize, to: usize) -> Option<Self> {
        let range = Self {
            frame: u32::try_from(frame).ok()?,
            from: u32::try_from(from).ok()?,
            to: u32::try_from(to).ok()?,
        };
        (range.from <= range.to).then_some(range)
    }
}

/// The ranges of a record: nearly always one.
#[derive(Clone, Copy, Debug)]
enum Ranges {
    One(TxRange),
    /// So many of the list's, from the first of these.
    Listed {
        first: u32,
        count: u32,
    },
}

/// One frame or datagram to send: a head, ranges, and what it still owes.
#[derive(Clone, Copy, Debug)]
pub struct TxRecord {
    head: Head,
    ranges: Ranges,
    len: u32,
    /// Checksum and segmentation still to be done, counted from the record's first byte.
    pub offload: Offload,
    /// For a tunnel: the inner flow's hash. One flow keeps one outer source port.
    pub entropy: u32,
    next: u32,
}

impl TxRecord {
    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

const END: u32 = u32::MAX;

/// What is to leave, by port; within a port in order of arrival.
#[derive(Debug, Default)]
pub struct TxList {
    heads: Vec<u8>,
    ranges: Vec<TxRange>,
    records: Vec<TxRecord>,
    /// First and last record of each port, by port number; END when none.
    queues: Vec<(u32, u32)>,
    /// The ports that have records.
    ports: Vec<PortId>,
}

impl TxList {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all records; the memory stays.
    pub fn clear(&mut self) {
        for port in self.ports.drain(..) {
            self.queues[port.index()] = (END, END);
        }
        self.heads.clear();
        self.ranges.clear();
        self.records.clear();
    }

    /// Writes the parts of a head one behind the other; `None` when they exceed [`MAX_HEAD_LEN`].
    pub fn head(&mut self, parts: &[&[u8]]) -> Option<Head> {
        let at = self.heads.len();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > MAX_HEAD_LEN {
            return None;
        }
        parts.iter().for_each(|part| self.heads.extend_from_slice(part));
        Some(Head { at: u32::try_from(at).ok()?, len: u32::try_from(len).ok()? })
    }

    /// [`Self::head`] of `front`, of the first twelve bytes of `start` and of four more, if any, that take the place
    /// of the rest. What is moved is known when this is compiled, so this costs a few instructions.
    #[inline(always)]
    pub(crate) fn head_of(&mut self, front: &[u8], start: &[u8; 16], four: Option<[u8; 4]>) -> Head {
        let at = self.heads.len();
        let Ok(first) = u32::try_from(at) else { return Head::NONE };
        self.heads.extend_from_slice(front);
        self.heads.extend_from_slice(start);
        let end = at + front.len() + 12 + if four.is_some() { 4 } else { 0 };
        if let Some(last) = self.heads.last_chunk_mut() {
            *last = four.unwrap_or_default();
        }
        self.heads.truncate(end);
        Head { at: first, len: u32::try_from(end - at).unwrap_or(0) }
    }

    /// The bytes of a head.
    pub(crate) fn head_bytes(&self, head: Head) -> &[u8] {
        self.heads.get(head.at as usize..).and_then(|bytes| bytes.get(..head.len())).unwrap_or_default()
    }

    /// Queues a record for `port`. The same head may serve many records.
    pub fn push(&mut self, port: PortId, head: Head, ranges: &[TxRange], offload: Offload, entropy: u32) {
        let len = ranges.iter().fold(head.len, |len, r| len.saturating_add(r.to.saturating_sub(r.from)));
        let Some(ranges) = self.keep(ranges) else { return };
        self.queue(port, TxRecord { head, ranges, len, offload, entropy, next: END });
    }

    /// [`Self::push`] of one range.
    #[inline(always)]
    pub(crate) fn push_one(
        &mut self,
        port: PortId,
        head: Head,
        range: TxRange,
        offload: Offload,
        entropy: u32,
    ) {
        let len = head.len.saturating_add(range.to.saturating_sub(range.from));
        self.queue(port, TxRecord { head, ranges: Ranges::One(range), len, offload, entropy, next: END });
    }

    #[inline(always)]
    fn queue(&mut self, port: PortId, record: TxRecord) {
        let Ok(at) = u32::try_from(self.records.len()) else { return };
        self.records.push(record);
        let i = port.index();
        if self.queues.len() <= i {
            self.queues.resize(i + 1, (END, END));
        }
        let (first, last) = &mut self.queues[i];
        if *first == END {
            *first = at;
            self.ports.push(port);
        } else if let Some(record) = self.records.get_mut(*last as usize) {
            record.next = at;
        }
        *last = at;
    }

    /// `None` when there are more than can be counted.
    #[inline]
    fn keep(&mut self, ranges: &[TxRange]) -> Option<Ranges> {
        if let [one] = ranges {
            return Some(Ranges::One(*one));
        }
        let (first, count) = (u32::try_from(self.ranges.len()).ok()?, u32::try_from(ranges.len()).ok()?);
        self.ranges.extend_from_slice(ranges);
        Some(Ranges::Listed { first, count })
    }

    /// Whether nothing is to leave.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many records there are, over all ports.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The ports that have records, in the order of their first.
    #[must_use]
    pub fn ports(&self) -> &[PortId] {
        &self.ports
    }

    /// The records of `port`, in order.
    pub fn records(&self, port: PortId) -> impl Iterator<Item = &TxRecord> {
        let mut at = self.queues.get(port.index()).map_or(END, |queue| queue.0);
        core::iter::from_fn(move || {
            let record = self.records.get(at as usize)?;
            at = record.next;
            Some(record)
        })
    }

    /// The pieces of `record` in order, as slices: the head if there is one, then each range of `batch`. A range
    /// that does not lie in `batch` yields an empty slice.
    pub fn pieces<'a>(&'a self, record: &TxRecord, batch: &'a Batch) -> impl Iterator<Item = &'a [u8]> {
        let at = record.head.at as usize;
        let head = self.heads.get(at..at + record.head.len()).unwrap_or_default();
        let (one, listed) = match record.ranges {
            Ranges::One(range) => (Some(range), &[][..]),
            Ranges::Listed { first, count } => {
                let (first, count) = (first as usize, count as usize);
                (None, self.ranges.get(first..first + count).unwrap_or_default())
            }
        };
        let pieces = one
            .into_iter()
            .chain(listed.iter().copied())
            .map(|r| batch.bytes(r.frame as usize).get(r.from as usize..r.to as usize).unwrap_or_default());
        (!head.is_empty()).then_some(head).into_iter().chain(pieces)
    }

    /// `record` as its head and the one range that follows; `None` when it has none or several.
    #[must_use]
    pub fn parts(&self, record: &TxRecord) -> Option<(&[u8], TxRange)> {
        let at = record.head.at as usize;
        match record.ranges {
            Ranges::One(range) => Some((self.heads.get(at..at + record.head.len())?, range)),
            Ranges::Listed { .. } => None,
        }
    }

    /// Appends the bytes of `record` to `out`.
    pub fn copy_out(&self, record: &TxRecord, batch: &Batch, out: &mut Vec<u8>) {
        self.pieces(record, batch).for_each(|piece| out.extend_from_slice(piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(n: u32) -> PortId {
        PortId::new(n).unwrap()
    }

    #[test]
    fn one_frame_leaves_by_two_ports_in_two_dresses() {
        let mut batch = Batch::new(2);
        assert!(batch.copy_in(Arrival::Port(port(1)), b"abcdef", Offload::NONE));
        let mut tx = TxList::new();
        let head = tx.head(&[b"x", b"yz"]).unwrap();
        tx.push(port(7), head, &[TxRange::new(0, 2, 6).unwrap()], Offload::NONE, 9);
        tx.push(port(3), Head::NONE, &[TxRange::new(0, 0, 6).unwrap()], Offload::NONE, 0);
        tx.push(port(7), head, &[], Offload::NONE, 0);
        let two = [TxRange::new(0, 0, 1).unwrap(), TxRange::new(0, 4, 6).unwrap()];
        tx.push(port(3), head, &two, Offload::NONE, 0);
        assert_eq!(tx.ports(), [port(7), port(3)]);
        let sent = |p| {
            tx.records(p)
                .map(|r| {
                    let mut out = Vec::new();
                    tx.copy_out(r, &batch, &mut out);
                    assert_eq!(out.len(), r.len());
                    out
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(sent(port(7)), [b"xyzcdef".to_vec(), b"xyz".to_vec()]);
        assert_eq!(sent(port(3)), [b"abcdef".to_vec(), b"xyzaef".to_vec()]);
        assert_eq!(sent(port(100)), Vec::<Vec<u8>>::new());
        tx.clear();
        assert!(tx.is_empty() && tx.records(port(7)).next().is_none());
    }

    #[test]
    fn a_full_batch_takes_no_more_and_a_long_frame_is_refused() {
        let mut batch = Batch::new(1);
        assert!(!batch.copy_in(Arrival::Port(port(0)), &alloc::vec![0; SLOT_LEN + 1], Offload::NONE));
        assert!(batch.copy_in(Arrival::Port(port(0)), b"1", Offload::NONE));
        assert!(batch.spare().is_none() && !batch.copy_in(Arrival::Port(port(0)), b"2", Offload::NONE));
        batch.push(Arrival::Port(port(0)), 5, Offload::NONE);
        assert_eq!((batch.len(), batch.bytes(0), batch.bytes(1)), (1, &b"1"[..], &b""[..]));
        batch.clear();
        assert!(batch.is_empty() && batch.spare().is_some_and(|slot| slot.len() == SLOT_LEN));
    }

    #[test]
    fn several_frames_lie_in_one_slot() {
        let mut batch = Batch::new(2);
        for slot in batch.spares() {
            slot[..6].copy_from_slice(b"abcdef");
        }
        let arrival = Arrival::Port(port(0));
        batch.push_part(0, 1..3, arrival, Offload::NONE);
        batch.push_part(0, 3..6, arrival, Offload::NONE);
        batch.push_part(1, 0..1, arrival, Offload::NONE);
        // Not a slot, and not in one.
        batch.push_part(2, 0..1, arrival, Offload::NONE);
        batch.push_part(0, 0..SLOT_LEN + 1, arrival, Offload::NONE);
        batch.take(1);
        let front = |frame, from, to, front| batch.with_front(TxRange::new(frame, from, to).unwrap(), front);
        assert_eq!((front(0, 0, 2, 1), front(1, 1, 3, 2)), (Some(&b"abc"[..]), Some(&b"cdef"[..])));
        // Before the slot, behind the frame, not a frame.
        assert_eq!(
            (front(0, 0, 2, 2), front(2, 0, 1, 1), front(0, 0, 3, 1), front(3, 0, 1, 0)),
            (None, None, None, None)
        );
        assert_eq!((batch.len(), batch.spares().len()), (3, 1));
        assert_eq!([0, 1, 2].map(|i| batch.bytes(i)), [&b"bc"[..], b"def", b"a"]);
        batch.take(5);
        assert!(batch.spare().is_none());
        batch.clear();
        assert!(batch.is_empty() && batch.spares().len() == 2);
    }

    #[test]
    fn a_head_has_a_limit() {
        let mut tx = TxList::new();
        assert_eq!(tx.head(&[&[0; MAX_HEAD_LEN], &[0]]), None);
        assert!(tx.head(&[&[0; MAX_HEAD_LEN]]).is_some());
    }
}
