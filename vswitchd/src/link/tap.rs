//! A TAP: frames to and from the kernel of a host or a pod, one read or write each.
//!
//! With offload, a frame has a virtio-net header in front, may be a superframe, and may owe its checksum; and frames
//! of one flow that leave one after the other leave as one superframe. In the basic way, without, the kernel finishes
//! checksums and cuts superframes before we read, and we do before we write. The descriptor is opened on the host,
//! also for an interface that moves to a namespace later; so the namespace can die, and its death shows as EBADFD
//! here. Moving and configuring is netlink's.

use super::trains::{LANES, Leaves, Offered, write_cut, write_train};
use super::{Link, LinkError, Received, Scratch, Sent, check_name, vnet};
use crate::sys::{event, tun};
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use tun_tap::{Iface, Mode};
use vswitch_core::frame::{SLOT_LEN, TxRecord};
use vswitch_core::offload::{GsoKind, count};
use vswitch_core::{Arrival, Batch, Offload, PortId, TxList};

/// Frames that one `receive` reads at most, so that no port starves another.
const BUDGET: usize = 64;

/// Bytes after which one `receive` reads no further: what was read is still in a core's cache when it leaves.
const BUDGET_BYTES: usize = 128 << 10;

/// Pieces of a frame that are gathered, the virtio-net header among them; a frame in more is copied.
const PIECES: usize = 4;

/// What is asked of a kernel, in order: the first that it grants.
const OFFERS: [libc::c_uint; 4] = [
    libc::TUN_F_CSUM
        | libc::TUN_F_TSO4
        | libc::TUN_F_TSO6
        | libc::TUN_F_TSO_ECN
        | libc::TUN_F_USO4
        | libc::TUN_F_USO6,
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN,
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6,
    libc::TUN_F_CSUM,
];

/// Where a TAP comes from.
#[derive(Debug)]
pub enum Source<'a> {
    /// Create it, or attach to a persistent one nobody uses, by name.
    Open {
        /// 1..=15 bytes.
        name: &'a str,
        /// With a virtio-net header and whatever offload the kernel has; where it has none, the basic way.
        offload: bool,
    },
    /// Somebody else opened it and handed the descriptor over.
    Adopt(OwnedFd),
}

/// A TAP without packet information, non-blocking.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    /// Frames wear a virtio-net header.
    header: bool,
    /// The kernel leaves checksums to us.
    csum: bool,
    /// Superframes of TCP, and of UDP, cross. Only what the kernel granted, less what it refused later.
    tso: AtomicBool,
    uso: AtomicBool,
}

/// Opens or adopts a TAP. One that is adopted is used with offload if it has a virtio-net header.
///
/// It is down and unconfigured when new; see [`crate::sys::netlink`]. It is deleted when the last descriptor
/// of it closes, unless somebody made it persistent.
pub fn open_or_adopt(source: Source<'_>) -> Result<Tap, LinkError> {
    let fd = match source {
        Source::Open { name, offload } => open(name, offload)?,
        Source::Adopt(fd) => fd,
    };
    let attached = tun::attached(fd.as_fd()).map_err(|error| match error.raw_os_error() {
        Some(libc::EBADFD) => LinkError::Unfit { what: "attached to no interface" },
        Some(libc::ENOTTY | libc::EINVAL | libc::EOPNOTSUPP) => {
            LinkError::Unfit { what: "not one of /dev/net/tun" }
        }
        _ => LinkError::Os { what: "asking what the tap is", source: error },
    })?;
    if !attached.is_tap() {
        return Err(LinkError::Unfit { what: "a TUN, which carries IP packets" });
    }
    if tun::has_packet_information(fd.as_fd()).map_err(LinkError::os("asking what the tap is"))? {
        return Err(LinkError::Unfit { what: "a TAP with packet information in front of its frames" });
    }
    let header = attached.has_vnet_header();
    let mut granted = 0;
    if header {
        tun::set_header(fd.as_fd(), vnet::LEN).map_err(LinkError::os("setting up the tap's header"))?;
        granted = OFFERS.into_iter().find(|offer| tun::set_offload(fd.as_fd(), *offer).is_ok()).unwrap_or(0);
    }
    if granted == 0 {
        tun::set_offload(fd.as_fd(), 0).map_err(LinkError::os("clearing the tap's offload flags"))?;
    }
    event::set_nonblocking(fd.as_fd()).map_err(LinkError::os("making the tap non-blocking"))?;
    let has = |feature| AtomicBool::new(granted & feature != 0);
    let (tso, uso) = (has(libc::TUN_F_TSO4), has(libc::TUN_F_USO4));
    let csum = granted & libc::TUN_F_CSUM != 0;
    Ok(Tap { file: File::from(fd), name: attached.name, header, csum, tso, uso })
}

fn open(name: &str, offload: bool) -> Result<OwnedFd, LinkError> {
    check_name(name)?;
    let named = || name.to_owned();
    let opened = if offload {
        tun::open_with_header(name)
    } else {
        Iface::without_packet_info(name, Mode::Tap).map(tun::into_owned)
    };
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => LinkError::Busy { name: named() },
        Some(libc::EINVAL) => LinkError::NotTap { name: named() },
        Some(libc::EPERM | libc::EACCES) => LinkError::NotPermitted { name: named() },
        // ENOTTY: something else has been put in its place, as containers do with /dev/null.
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTTY) => LinkError::TunMissing,
        _ => LinkError::Os { what: "opening a tap", source: error },
    })
}

impl Tap {
    /// The interface's name when it was opened. Whoever moves it may have given it another since.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether frames cross with a virtio-net header; unfinished checksums; superframes of TCP, and of UDP.
    #[must_use]
    pub fn offload(&self) -> [bool; 4] {
        [self.header, self.csum, self.tso.load(Ordering::Relaxed), self.uso.load(Ordering::Relaxed)]
    }

    /// Has the interface outlive this process, or go with its last descriptor as it does otherwise.
    ///
    /// # Errors
    /// The kernel's word.
    pub fn set_persistent(&self, persistent: bool) -> io::Result<()> {
        tun::set_persistent(self.file.as_fd(), persistent)
    }

    /// Writes one frame; its first piece begins with the virtio-net header where there is one.
    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match (&self.file).write_vectored(pieces) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(bytes) => return Ok(bytes - if self.header { vnet::LEN } else { 0 }),
                Err(error) => return Err(error),
            }
        }
    }

    /// The feature that a superframe of `kind` needs.
    const fn feature(&self, kind: GsoKind) -> &AtomicBool {
        match kind {
            GsoKind::Tcp4 | GsoKind::Tcp6 => &self.tso,
            GsoKind::Udp => &self.uso,
        }
    }

    /// Writes a record as it is, with what it owes; one that this kernel does not take so is cut.
    fn write_record(
        &self,
        batch: &Batch,
        tx: &TxList,
        record: &TxRecord,
        scratch: &mut Scratch,
        sent: &mut Sent,
    ) {
        let owed = record.offload;
        if owed.gso.is_some_and(|gso| !self.feature(gso.kind).load(Ordering::Relaxed)) {
            return write_cut(scratch.copy(batch, tx, record), owed, sent, |pieces| self.write(pieces));
        }
        let header = vnet::header_of(owed, tx.pieces(record, batch));
        // One that came from a TAP, and leaves as it came, has its header still in front.
        let whole = match tx.parts(record) {
            Some((&[], range)) => {
                batch.with_front(range, vnet::LEN).filter(|whole| whole.starts_with(&header))
            }
            _ => None,
        };
        let mut gathered = [IoSlice::new(&[]); PIECES];
        let mut pieces = tx.pieces(record, batch);
        let mut len = 1;
        if let Some(whole) = whole {
            gathered[0] = IoSlice::new(whole);
        } else {
            gathered[0] = IoSlice::new(&header);
            for (place, piece) in gathered[1..].iter_mut().zip(&mut pieces) {
                *place = IoSlice::new(piece);
                len += 1;
            }
        }
        let written = if whole.is_some() || pieces.next().is_none() {
            self.write(&gathered[..len])
        } else {
            self.write(&[IoSlice::new(&header), IoSlice::new(scratch.copy(batch, tx, record))])
        };
        match written {
            Ok(bytes) => sent.taken(1, bytes),
            Err(error) if owed.gso.is_some() && error.raw_os_error() == Some(libc::EINVAL) => {
                write_cut(scratch.copy(batch, tx, record), owed, sent, |pieces| self.write(pieces));
            }
            Err(error) => sent.failed(&error, 1),
        }
    }

    /// Writes what waits in `lane`.
    fn leave(&self, batch: &Batch, tx: &TxList, lane: usize, scratch: &mut Scratch, sent: &mut Sent) {
        match scratch.trains.leave(lane) {
            None => {}
            Some(Leaves::Alone(record)) => self.write_record(batch, tx, &record, scratch, sent),
            Some(Leaves::Merged { merged, frames, bytes }) => {
                let write = |pieces: &[IoSlice<'_>]| self.write(pieces);
                if let Some(kind) = write_train(batch, &merged, (frames, bytes), sent, write) {
                    self.feature(kind).store(false, Ordering::Relaxed);
                }
            }
        }
    }

    /// With a virtio-net header: neighbours of one flow leave as one.
    fn send_merged(&self, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent {
        let mut sent = Sent::default();
        let [_, _, tso, uso] = self.offload();
        let alone = !(tso || uso) || tx.records(port).nth(1).is_none();
        for record in tx.records(port) {
            let mut offered =
                if alone { Offered::Alone } else { scratch.trains.offer(batch, tx, record, [tso, uso]) };
            if let Offered::Behind(lane) = offered {
                self.leave(batch, tx, lane, scratch, &mut sent);
                offered = scratch.trains.offer(batch, tx, record, [tso, uso]);
            }
            match offered {
                Offered::Taken => continue,
                Offered::Alone | Offered::Behind(_) => {}
                Offered::Last => (0..LANES).for_each(|lane| self.leave(batch, tx, lane, scratch, &mut sent)),
            }
            self.write_record(batch, tx, record, scratch, &mut sent);
        }
        if !alone {
            (0..LANES).for_each(|lane| self.leave(batch, tx, lane, scratch, &mut sent));
        }
        sent
    }

    /// Without one: every frame by itself, nothing owed.
    fn send_basic(&self, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent {
        let mut sent = Sent::default();
        scratch.clear();
        for record in tx.records(port) {
            if scratch.settle(batch, tx, record, 0, 0).is_none() {
                sent.bad_offload += 1;
            }
        }
        for (frame, _) in scratch.settled(batch, 0) {
            let mut pieces = [IoSlice::new(&[]); 2];
            pieces.iter_mut().zip(frame).for_each(|(place, piece)| *place = IoSlice::new(piece));
            match self.write(&pieces) {
                Ok(bytes) => sent.taken(1, bytes),
                Err(error) => sent.failed(&error, 1),
            }
        }
        sent
    }
}

impl Link for Tap {
    fn receive(&self, port: PortId, batch: &mut Batch) -> Received {
        let mut received = Received::default();
        let begin = if self.header { vnet::LEN } else { 0 };
        // What was read may have to be cut: that is bounded as well.
        let mut pieces = 0;
        for _ in 0..BUDGET {
            let enough = received.bytes >= BUDGET_BYTES || pieces >= vnet::MOST;
            let Some(slot) = batch.spare().filter(|_| !enough) else { break };
            match (&self.file).read(slot) {
                // A TAP hides how much it cut off; a full slot is the sign. No MTU allows such a frame today.
                Ok(len) if len >= SLOT_LEN => received.truncated += 1,
                Ok(len) => {
                    let owed = match slot.get(begin..len) {
                        Some(frame) if self.header => {
                            slot.first_chunk().and_then(|header| vnet::read(*header, frame))
                        }
                        frame => frame.map(|_| Offload::NONE),
                    };
                    let Some(owed) = owed else {
                        received.bad_offload += 1;
                        continue;
                    };
                    pieces += owed.gso.map_or(1, |gso| count(len - begin, &gso));
                    batch.push_part(0, begin..len, Arrival::Port(port), owed);
                    batch.take(1);
                    received.frames += 1;
                    received.bytes += len;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A frame that the kernel has no words for; it is gone, and others may be behind it.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => received.bad_offload += 1,
                Err(error) => {
                    received.failed(&error);
                    break;
                }
            }
        }
        received
    }

    fn send(&self, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent {
        if self.header {
            self.send_merged(batch, tx, port, scratch)
        } else {
            self.send_basic(batch, tx, port, scratch)
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_the_kernel_would_not_take_is_refused_before_it_is_asked() {
        let open = |name| open_or_adopt(Source::Open { name, offload: false }).unwrap_err().to_string();
        assert_eq!(
            open("a-name-of-sixteen"),
            "interface name \"a-name-of-sixteen\" has 17 bytes: at most 15 are allowed"
        );
        for name in ["", ".", "..", "a/b", "tap%d", "a b", "a:b", "a\nb"] {
            assert!(open(name).contains("is no interface name"), "{name}");
        }
    }

    #[test]
    fn a_descriptor_that_is_no_tap_is_refused_by_name() {
        let file = File::open("/dev/null").unwrap();
        let error = open_or_adopt(Source::Adopt(file.into())).unwrap_err();
        assert!(error.to_string().contains("not one of /dev/net/tun"), "{error}");
    }
}
