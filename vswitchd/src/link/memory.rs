//! A pair of links joined in memory, for tests: what one sends, the other receives, offload facts and all. A
//! queue that is full refuses, as a real one does. Not for production: every frame is copied and allocated.

use super::{Link, Received, Scratch, Sent};
use crate::sys::event::Bell;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use vswitch_core::{Arrival, Batch, Offload, PortId, TxList};

type Frame = (Vec<u8>, Offload);

/// Frames that one `receive` takes at most.
const BUDGET: usize = 64;

/// One end of the pair.
#[derive(Debug)]
pub struct Memory {
    /// `None` only while it is being dropped.
    out: Option<Sender<Frame>>,
    inward: Receiver<Frame>,
    theirs: Arc<Bell>,
    ours: Arc<Bell>,
}

impl Memory {
    /// Two ends with room for `frames` frames in each direction.
    pub fn pair(frames: usize) -> io::Result<(Self, Self)> {
        let (left_out, right_in) = bounded(frames);
        let (right_out, left_in) = bounded(frames);
        let (left, right) = (Arc::new(Bell::new()?), Arc::new(Bell::new()?));
        Ok((
            Self { out: Some(left_out), inward: left_in, theirs: right.clone(), ours: left.clone() },
            Self { out: Some(right_out), inward: right_in, theirs: left, ours: right },
        ))
    }

    /// Sends one frame to the other end; an error is one that [`Link::send`] would have counted.
    pub fn offer(&self, frame: &[u8], offload: Offload) -> io::Result<()> {
        let gone = || io::Error::from_raw_os_error(libc::EBADFD);
        let out = self.out.as_ref().ok_or_else(gone)?;
        out.try_send((frame.to_vec(), offload)).map_err(|error| match error {
            TrySendError::Full(_) => io::Error::from_raw_os_error(libc::EAGAIN),
            TrySendError::Disconnected(_) => gone(),
        })?;
        self.theirs.ring();
        Ok(())
    }

    /// The next frame the other end sent; `None` when there is none.
    #[must_use]
    pub fn take(&self) -> Option<(Vec<u8>, Offload)> {
        self.inward.try_recv().ok()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // First gone, then told so.
        self.out = None;
        self.theirs.ring();
    }
}

impl Link for Memory {
    fn receive(&self, port: PortId, batch: &mut Batch) -> Received {
        self.ours.hush();
        let mut received = Received::default();
        while received.frames < BUDGET && batch.len() < batch.capacity() {
            match self.inward.try_recv() {
                Ok((frame, offload)) => {
                    if batch.copy_in(Arrival::Port(port), &frame, offload) {
                        received.frames += 1;
                        received.bytes += frame.len();
                    } else {
                        received.truncated += 1;
                    }
                }
                Err(empty) => {
                    received.drained = true;
                    received.gone = empty == TryRecvError::Disconnected;
                    break;
                }
            }
        }
        received
    }

    fn send(&self, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent {
        let mut sent = Sent::default();
        for record in tx.records(port) {
            match self.offer(scratch.copy(batch, tx, record), record.offload) {
                Ok(()) => sent.taken(1, record.len()),
                Err(error) => sent.failed(&error, 1),
            }
        }
        sent
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ours.as_ref().as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::event::wait_readable;
    use std::time::Duration;
    use vswitch_core::frame::{Head, TxRange};

    #[test]
    fn what_one_end_sends_the_other_receives_until_it_is_gone() {
        let port = PortId::new(3).unwrap();
        let (left, right) = Memory::pair(2).unwrap();
        let ready = |link: &Memory| wait_readable(link.fd().unwrap(), Some(Duration::ZERO)).unwrap().readable;
        assert!(!ready(&right));
        let mut batch = Batch::new(4);
        assert!(batch.copy_in(Arrival::Port(port), b"abcdef", Offload::NONE));
        let mut tx = TxList::new();
        for _ in 0..3 {
            tx.push(port, Head::NONE, &[TxRange::new(0, 1, 4).unwrap()], Offload::NONE, 0);
        }
        let sent = left.send(&batch, &tx, port, &mut Scratch::new());
        assert_eq!(sent, Sent { ok: 2, bytes: 6, would_block: 1, ..Sent::default() });
        assert!(ready(&right));
        batch.clear();
        let received = right.receive(port, &mut batch);
        assert_eq!(received, Received { frames: 2, bytes: 6, ..Received::NOTHING });
        assert_eq!(batch.bytes(1), b"bcd");
        assert!(!ready(&right));
        drop(left);
        assert!(ready(&right));
        assert_eq!(right.receive(port, &mut batch), Received { gone: true, ..Received::NOTHING });
        assert!(right.send(&batch, &tx, port, &mut Scratch::new()).gone);
    }
}
