//! A packet socket: frames of an interface that exists already, many with each call.
//!
//! Each frame has a virtio-net header in front, in both directions, whatever the interface can: a superframe and an
//! unfinished checksum come with what they owe, and the kernel pays for what leaves. A VLAN tag that the kernel took
//! out of a frame is put back in place. The interface is somebody else's: nothing of it is configured here, and its
//! frames go to the host's own stack as well, unless somebody sees to it that they do not.

use super::losses::Losses;
use super::trains::{LANES, Leaves, Offered, write_train};
use super::{Link, LinkError, Received, Scratch, Sent, check_name, vnet};
use crate::sys::mmsg::{self, MESSAGES, Message, Run};
use crate::sys::{packet, socket};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use vswitch_core::frame::TxRecord;
use vswitch_core::offload::GsoKind;
use vswitch_core::{Arrival, Batch, PortId, TxList};

/// System calls of one `receive`: the more frames come at once, the more leave as one.
const CALLS: usize = 2;

/// Messages that one system call takes when there were superframes among those before: each may be of 64 KiB, and what
/// was read should still be in a core's cache when it leaves.
const LARGE: usize = 4;

/// What the socket asks the kernel to hold of frames that come, and of frames that have not left yet, in bytes.
const QUEUE: u32 = 8 << 20;

/// Bytes of a VLAN tag: so much room is left in front of what is received.
const TAG_LEN: usize = 4;

/// Bytes of the two MAC addresses, behind which a frame has its first tag.
const MACS_LEN: usize = 12;

/// An existing interface.
#[derive(Debug)]
pub struct Packet {
    socket: File,
    name: String,
    index: u32,
    /// The kernel is given what frames owe; otherwise they owe nothing when they leave.
    offload: bool,
    loopback: bool,
    /// Superframes of TCP, and of UDP, may leave: not any more once this kernel has refused one.
    tso: AtomicBool,
    uso: AtomicBool,
    /// There were superframes among the last messages. For the receiving worker only.
    large: AtomicBool,
    losses: Losses,
}

impl Packet {
    /// The interface called `name` of the calling thread's namespace, from now on promiscuous. With `offload`, frames
    /// leave with what they owe; without, only what comes from it may owe something.
    ///
    /// # Errors
    /// There is no such interface, it carries no Ethernet frames, CAP_NET_RAW is missing, or the kernel's word.
    pub fn open(name: &str, offload: bool) -> Result<Self, LinkError> {
        check_name(name)?;
        let named = || name.to_owned();
        let refused = |error: io::Error| match error.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => LinkError::NoSuchDevice { name: named() },
            Some(libc::EPERM | libc::EACCES) => LinkError::RawNotPermitted { name: named() },
            _ => LinkError::Os { what: "opening an interface", source: error },
        };
        let index = packet::index_of(name).map_err(refused)?;
        let socket = packet::open(index).map_err(refused)?;
        let bound = packet::bound(socket.as_fd()).map_err(refused)?;
        if !matches!(bound.hardware, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK) {
            return Err(LinkError::NotEthernet { name: named() });
        }
        let set = LinkError::os("setting up a packet socket");
        socket::set_receive_queue(&socket, QUEUE).map_err(&set)?;
        socket::set_send_queue(&socket, QUEUE).map_err(&set)?;
        Ok(Self {
            socket: socket.into(),
            name: named(),
            index,
            offload,
            loopback: bound.hardware == libc::ARPHRD_LOOPBACK,
            tso: AtomicBool::new(offload),
            uso: AtomicBool::new(offload),
            large: AtomicBool::new(false),
            losses: Losses::default(),
        })
    }

    /// The interface's name when it was opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether frames leave with unfinished checksums; as superframes of TCP, and of UDP.
    #[must_use]
    pub fn offload(&self) -> [bool; 3] {
        [self.offload, self.tso.load(Ordering::Relaxed), self.uso.load(Ordering::Relaxed)]
    }

    /// The interface's number.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Whether it is the host's way to itself.
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Whether its interface was deleted or moved to another namespace. Nothing tells so to whoever waits for frames
    /// of an interface that was down at that moment: ask now and then.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        packet::bound(self.socket.as_fd()).is_ok_and(|bound| bound.index.is_none())
    }

    fn receive_once(&self, port: PortId, batch: &mut Batch, received: &mut Received) {
        let mut spares = batch.spares();
        let most = if self.large.load(Ordering::Relaxed) { LARGE } else { MESSAGES };
        let wanted = spares.len().min(most);
        if wanted == 0 {
            return;
        }
        let mut slots: [&mut [u8]; MESSAGES] = std::array::from_fn(|_| {
            spares.next().and_then(|slot| slot.get_mut(TAG_LEN..)).unwrap_or_default()
        });
        // Fewer than wanted need not be all: after a frame that cannot be handed over, too, the kernel stops.
        let got = match mmsg::receive(self.socket.as_fd(), &mut slots[..wanted]) {
            Ok(got) => got,
            Err(error) => return self.failed(&error, received),
        };
        drop(spares);
        received.overflow += got.lost.map_or(0, |lost| self.losses.newly(lost));
        let mut large = false;
        for (i, message) in got.all().iter().enumerate() {
            large |= self.take(port, batch, i, message, received);
        }
        self.large.store(large, Ordering::Relaxed);
        batch.take(got.all().len());
    }

    /// One message, which lies in the `i`th spare slot of `batch` behind the room for a tag; whether it is a
    /// superframe.
    fn take(
        &self,
        port: PortId,
        batch: &mut Batch,
        i: usize,
        message: &Message,
        received: &mut Received,
    ) -> bool {
        if message.truncated {
            received.truncated += 1;
            return false;
        }
        let Some(slot) = batch.spares().nth(i) else { return false };
        let (mut begin, end) = (TAG_LEN + vnet::LEN, TAG_LEN + message.len);
        let header = slot.get(TAG_LEN..).and_then(|bytes| bytes.first_chunk());
        let owed = match (header, slot.get(begin..end)) {
            (Some(header), Some(frame)) => vnet::read(*header, frame),
            _ => None,
        };
        let macs = TAG_LEN..begin + MACS_LEN;
        let tag = message.tag.filter(|_| macs.end <= end);
        let owed = match tag {
            Some(tag) => {
                slot.copy_within(macs.clone(), 0);
                slot[macs.end - TAG_LEN..macs.end].copy_from_slice(&tag);
                begin -= TAG_LEN;
                owed.and_then(|owed| owed.shifted(4))
            }
            None => owed,
        };
        let Some(owed) = owed else {
            received.bad_offload += 1;
            return false;
        };
        batch.push_part(i, begin..end, Arrival::Port(port), owed);
        received.frames += 1;
        received.bytes += end - begin;
        owed.gso.is_some()
    }

    /// What a receive that failed means.
    fn failed(&self, error: &io::Error, received: &mut Received) {
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // A frame that the kernel has no words for; it is gone, and others may be behind it.
            Some(libc::EINVAL) => received.bad_offload += 1,
            // The interface was set down, or deleted; told once, in front of what is waiting.
            Some(libc::ENETDOWN) => {
                received.gone = self.is_gone();
                received.drained = received.gone;
            }
            _ => received.failed(error),
        }
    }

    /// Counts what a send of one message that failed means.
    fn refused(error: &io::Error, frames: usize, sent: &mut Sent) {
        sent.failed(error, frames);
        // There is no interface any more.
        sent.gone |= error.raw_os_error() == Some(libc::ENXIO);
    }

    /// Sends `pieces`, a virtio-net header in front, as one message; gives the frame's bytes.
    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut tried = false;
        loop {
            match (&self.socket).write_vectored(pieces) {
                Ok(bytes) => return Ok(bytes.saturating_sub(vnet::LEN)),
                Err(error) if is_passing(&error, &mut tried) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends and empties `run`, each message whatever becomes of the others; what the kernel refuses goes to
    /// `refused`, with its place in the run.
    fn flush(
        &self,
        run: &mut Run<'_>,
        sent: &mut Sent,
        mut refused: impl FnMut(&io::Error, usize, &mut Sent),
    ) {
        let (mut at, mut tried) = (0, false);
        while at < run.len() {
            match run.send(at, self.socket.as_fd(), None) {
                Ok(taken) => {
                    // The kernel takes at least one or says why not.
                    let end = at + taken.max(1);
                    (at..end).for_each(|i| sent.taken(1, run.size(i).0.saturating_sub(vnet::LEN)));
                    at = end;
                    tried = false;
                }
                Err(error) if is_passing(&error, &mut tried) => {}
                Err(error) => {
                    refused(&error, at, sent);
                    at += 1;
                    tried = false;
                }
            }
        }
        run.clear();
    }

    /// Sends the frames that [`Scratch::settle`] made.
    fn send_settled(&self, batch: &Batch, scratch: &Scratch, sent: &mut Sent) {
        let mut run = Run::new(false);
        for (frame, _) in scratch.settled(batch, 0) {
            let mut pieces = [&vnet::NOTHING[..], &[], &[]];
            let count = 1 + pieces[1..].iter_mut().zip(frame).map(|(place, piece)| *place = piece).count();
            let pieces = || pieces.into_iter().take(count);
            if !run.push(pieces(), true) {
                self.flush(&mut run, sent, |error, _, sent| Self::refused(error, 1, sent));
                run.push(pieces(), true);
            }
        }
        self.flush(&mut run, sent, |error, _, sent| Self::refused(error, 1, sent));
    }

    /// Without offload: nothing that leaves owes anything.
    fn send_basic(&self, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent {
        let mut sent = Sent::default();
        scratch.clear();
        for record in tx.records(port) {
            if scratch.settle(batch, tx, record, 0, 0).is_none() {
                sent.bad_offload += 1;
            }
        }
        self.send_settled(batch, scratch, &mut sent);
        sent
    }

    /// With it: frames leave with what they owe, and neighbours of one flow as one.
    fn send_merged(&self, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent {
        let mut sent = Sent::default();
        let [_, tso, uso] = self.offload();
        let alone = !(tso || uso) || tx.records(port).nth(1).is_none();
        let mut out = Out { packet: self, batch, tx, queue: [None; MESSAGES], len: 0 };
        for record in tx.records(port) {
            let mut offered =
                if alone { Offered::Alone } else { scratch.trains.offer(batch, tx, record, [tso, uso]) };
            if let Offered::Behind(lane) = offered {
                out.leave(lane, scratch, &mut sent);
                offered = scratch.trains.offer(batch, tx, record, [tso, uso]);
            }
            match offered {
                Offered::Taken => continue,
                Offered::Alone | Offered::Behind(_) => {}
                Offered::Last => (0..LANES).for_each(|lane| out.leave(lane, scratch, &mut sent)),
            }
            out.push(record, scratch, &mut sent);
        }
        if !alone {
            (0..LANES).for_each(|lane| out.leave(lane, scratch, &mut sent));
        }
        out.flush(scratch, &mut sent);
        sent
    }
}

/// What is about to leave, in order: single frames wait for one another, a train goes at once, behind them.
struct Out<'a> {
    packet: &'a Packet,
    batch: &'a Batch,
    tx: &'a TxList,
    queue: [Option<TxRecord>; MESSAGES],
    len: usize,
}

impl Out<'_> {
    fn push(&mut self, record: &TxRecord, scratch: &mut Scratch, sent: &mut Sent) {
        if self.len == MESSAGES {
            self.flush(scratch, sent);
        }
        self.queue[self.len] = Some(*record);
        self.len += 1;
    }

    /// Lets go what waits in `lane`.
    fn leave(&mut self, lane: usize, scratch: &mut Scratch, sent: &mut Sent) {
        if scratch.trains.has_train(lane) {
            self.flush(scratch, sent);
        }
        match scratch.trains.leave(lane) {
            None => {}
            Some(Leaves::Alone(record)) => self.push(&record, scratch, sent),
            Some(Leaves::Merged { merged, frames, bytes }) => {
                let write = |pieces: &[IoSlice<'_>]| self.packet.write(pieces);
                let before = sent.refused;
                let refused = write_train(self.batch, &merged, (frames, bytes), sent, write);
                match refused {
                    Some(GsoKind::Udp) => self.packet.uso.store(false, Ordering::Relaxed),
                    Some(GsoKind::Tcp4 | GsoKind::Tcp6) => self.packet.tso.store(false, Ordering::Relaxed),
                    None => {}
                }
                // Why it was refused is not told.
                sent.gone |= sent.refused > before && self.packet.is_gone();
            }
        }
    }

    /// Sends what is queued.
    fn flush(&mut self, scratch: &mut Scratch, sent: &mut Sent) {
        let Self { packet, batch, tx, .. } = *self;
        let queue = &self.queue[..std::mem::take(&mut self.len)];
        let mut headers = [vnet::NOTHING; MESSAGES];
        for (header, record) in headers.iter_mut().zip(queue.iter().flatten()) {
            *header = vnet::header_of(record.offload, tx.pieces(record, batch));
        }
        // Of these records the messages of the run are, from the first on.
        let mut run = Run::new(false);
        let mut first = 0;
        for (n, (header, record)) in headers.iter().zip(queue.iter().flatten()).enumerate() {
            let pieces = || std::iter::once(&header[..]).chain(tx.pieces(record, batch));
            if !run.push(pieces(), true) {
                let queued = queue.get(first..n).unwrap_or_default();
                packet.flush(&mut run, sent, |error, at, sent| {
                    cut_or_count(
                        packet,
                        batch,
                        tx,
                        queued.get(at).and_then(Option::as_ref),
                        error,
                        scratch,
                        sent,
                    );
                });
                first = n;
                if !run.push(pieces(), true) {
                    // In more pieces than one call takes.
                    first = n + 1;
                    let whole = [IoSlice::new(header), IoSlice::new(scratch.copy(batch, tx, record))];
                    match packet.write(&whole) {
                        Ok(bytes) => sent.taken(1, bytes),
                        Err(error) => cut_or_count(packet, batch, tx, Some(record), &error, scratch, sent),
                    }
                }
            }
        }
        let queued = queue.get(first..).unwrap_or_default();
        packet.flush(&mut run, sent, |error, at, sent| {
            cut_or_count(packet, batch, tx, queued.get(at).and_then(Option::as_ref), error, scratch, sent);
        });
    }
}

/// What becomes of a record that the kernel refused: a superframe of a kind that it does not know is cut.
fn cut_or_count(
    packet: &Packet,
    batch: &Batch,
    tx: &TxList,
    record: Option<&TxRecord>,
    error: &io::Error,
    scratch: &mut Scratch,
    sent: &mut Sent,
) {
    match record.filter(|record| record.offload.gso.is_some()) {
        Some(record) if error.raw_os_error() == Some(libc::EINVAL) => {
            scratch.clear();
            match scratch.settle(batch, tx, record, 0, 0) {
                Some(()) => packet.send_settled(batch, scratch, sent),
                None => sent.bad_offload += 1,
            }
        }
        _ => Packet::refused(error, 1, sent),
    }
}

/// Whether the same is to be tried once more: an error that was left on the socket when the interface was set down,
/// and is not about this call, is told once.
fn is_passing(error: &io::Error, tried: &mut bool) -> bool {
    match error.raw_os_error() {
        Some(libc::EINTR) => true,
        Some(libc::ENETDOWN) => !std::mem::replace(tried, true),
        _ => false,
    }
}

impl Link for Packet {
    fn receive(&self, port: PortId, batch: &mut Batch) -> Received {
        let mut received = Received::default();
        for _ in 0..CALLS {
            self.receive_once(port, batch, &mut received);
            if received.drained || received.error.is_some() || self.large.load(Ordering::Relaxed) {
                break;
            }
        }
        received
    }

    fn send(&self, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent {
        if self.offload {
            self.send_merged(batch, tx, port, scratch)
        } else {
            self.send_basic(batch, tx, port, scratch)
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}
