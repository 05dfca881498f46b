//! Links: the operating system's things behind the switch's ports.
//!
//! A link turns arrived bytes into frames of a [`Batch`] and the numbers of a [`TxList`] into gather lists for
//! the kernel. It counts what the kernel said and decides nothing: the switch is not known here. Each kind of
//! link is opened or adopted through one function of its file.

mod error;
mod losses;
mod memory;
mod packet;
mod settle;
mod tap;
mod trains;
mod udp;
mod vnet;

pub use error::LinkError;
pub use memory::Memory;
pub use packet::Packet;
pub use settle::Scratch;
pub use tap::{Source, Tap, open_or_adopt};
pub use udp::{Outer, POOL_MAX, POOL_PORTS, POOL_SIZE, Peer, TRAIN, TRAIN_BYTES, UdpPool, UdpReceiver};

use std::io;
use std::os::fd::BorrowedFd;
use vswitch_core::{Batch, PortId, TxList};

/// What one `receive` brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Frames added to the batch.
    pub frames: usize,
    /// Bytes that were received for them, with all headers.
    pub bytes: usize,
    /// Nothing is left: wait for the next event. Otherwise call again, as an edge-triggered wait will not tell.
    pub drained: bool,
    /// What the link stood for no longer exists: its interface or its namespace was deleted.
    pub gone: bool,
    /// Frames that the kernel's receive queue has lost since this was last reported.
    pub overflow: u64,
    /// Frames lost because they did not fit their slot.
    pub truncated: u64,
    /// Frames lost because what their kernel said they owe cannot be true.
    pub bad_offload: u64,
    /// The errno of a read that failed in another way.
    pub error: Option<i32>,
}

impl Received {
    /// Nothing came and nothing will before the next event.
    pub(crate) const NOTHING: Self = Self {
        frames: 0,
        bytes: 0,
        drained: true,
        gone: false,
        overflow: 0,
        truncated: 0,
        bad_offload: 0,
        error: None,
    };

    /// A read failed with `error`: drained, gone, or something else; never to be tried again at once.
    fn failed(&mut self, error: &io::Error) {
        self.drained = true;
        match error.raw_os_error() {
            Some(libc::EAGAIN) => {}
            Some(libc::EBADFD) => self.gone = true,
            errno => self.error = errno,
        }
    }
}

/// What became of the frames of one `send`: those of the switch's records. One that had to be cut counts as those it
/// was cut into; those that left as one count as many as they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames the kernel took.
    pub ok: u64,
    /// Their bytes; for a peer, of UDP payload.
    pub bytes: u64,
    /// Frames the kernel had no room for.
    pub would_block: u64,
    /// Frames the kernel refused.
    pub refused: u64,
    /// Frames refused because the interface is administratively down.
    pub down: u64,
    /// Datagrams larger than the MTU of the interface they should leave by.
    pub too_big: u64,
    /// Frames whose offload facts do not fit their bytes.
    pub bad_offload: u64,
    /// What the link stood for no longer exists.
    pub gone: bool,
}

impl Sent {
    fn taken(&mut self, frames: usize, bytes: usize) {
        self.ok += u64::try_from(frames).unwrap_or(0);
        self.bytes += u64::try_from(bytes).unwrap_or(0);
    }

    fn failed(&mut self, error: &io::Error, frames: usize) {
        let frames = u64::try_from(frames).unwrap_or(0);
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => self.would_block += frames,
            Some(libc::EMSGSIZE) => self.too_big += frames,
            // A TAP's word, and everybody else's.
            Some(libc::EIO | libc::ENETDOWN) => self.down += frames,
            Some(libc::EBADFD) => {
                self.refused += frames;
                self.gone = true;
            }
            _ => self.refused += frames,
        }
    }

    /// Every frame that was to be sent, whatever became of it.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.ok + self.would_block + self.refused + self.down + self.too_big + self.bad_offload
    }
}

/// Something that frames come from and go to. One worker receives; any worker may send.
pub trait Link {
    /// Adds waiting frames to `batch`, as many as are free in it and not more than one budget, each arriving at
    /// `port`. Never waits.
    fn receive(&self, port: PortId, batch: &mut Batch) -> Received;

    /// Sends the records that `tx` has for `port`, each one whatever becomes of the others. Never waits.
    fn send(&self, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent;

    /// What to wait on; `None` for a link that nothing is received from.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

/// A link of any kind, as the datapath's table holds it.
#[derive(Debug)]
pub enum AnyLink {
    /// A TAP.
    Tap(Tap),
    /// An interface that exists already.
    Packet(Packet),
    /// A remote node.
    Peer(Peer),
    /// One end of a pair in memory.
    Memory(Memory),
}

impl Link for AnyLink {
    fn receive(&self, port: PortId, batch: &mut Batch) -> Received {
        match self {
            Self::Tap(link) => link.receive(port, batch),
            Self::Packet(link) => link.receive(port, batch),
            Self::Peer(link) => link.receive(port, batch),
            Self::Memory(link) => link.receive(port, batch),
        }
    }

    fn send(&self, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent {
        match self {
            Self::Tap(link) => link.send(batch, tx, port, scratch),
            Self::Packet(link) => link.send(batch, tx, port, scratch),
            Self::Peer(link) => link.send(batch, tx, port, scratch),
            Self::Memory(link) => link.send(batch, tx, port, scratch),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tap(link) => link.fd(),
            Self::Packet(link) => link.fd(),
            Self::Peer(link) => link.fd(),
            Self::Memory(link) => link.fd(),
        }
    }
}

/// Refuses what is no name of an interface: what dev_valid_name of the kernel refuses, and '%', which would ask it to
/// choose a number.
fn check_name(name: &str) -> Result<(), LinkError> {
    let named = || name.to_owned();
    if name.len() >= libc::IFNAMSIZ {
        return Err(LinkError::NameTooLong { name: named() });
    }
    let odd = |c: u8| matches!(c, b'/' | b':' | b'%' | 0) || c.is_ascii_whitespace() || c == 0x0b;
    if name.is_empty() || name == "." || name == ".." || name.bytes().any(odd) {
        return Err(LinkError::NameInvalid { name: named() });
    }
    Ok(())
}

/// Workers share links.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<AnyLink>();
};
