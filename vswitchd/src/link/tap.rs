//! A TAP: frames to and from the kernel of a host or a pod, one read or write each.
//!
//! This is the basic way, without offload: the kernel finishes its checksums and cuts its superframes before
//! we read. The descriptor is opened on the host, also for an interface that moves to a namespace later; so
//! the namespace can die, and its death shows as EBADFD here. Moving and configuring is netlink's.

use super::{Link, LinkError, Received, Scratch, Sent};
use crate::sys::{event, tun};
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tun_tap::{Iface, Mode};
use vswitch_core::frame::SLOT_LEN;
use vswitch_core::{Arrival, Batch, Offload, PortId, TxList};

/// Frames that one `receive` reads at most, so that no port starves another.
const BUDGET: usize = 64;

/// Pieces of a frame that are gathered; a frame in more is copied.
const PIECES: usize = 64;

/// Where a TAP comes from.
#[derive(Debug)]
pub enum Source<'a> {
    /// Create it, or attach to a persistent one nobody uses, by name.
    Open {
        /// 1..=15 bytes.
        name: &'a str,
    },
    /// Somebody else opened it and handed the descriptor over.
    Adopt(OwnedFd),
}

/// A TAP without packet information or virtio header, non-blocking.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
}

/// Opens or adopts a TAP.
///
/// It is down and unconfigured when new; see [`crate::sys::netlink`]. It is deleted when the last descriptor
/// of it closes, unless somebody made it persistent.
pub fn open_or_adopt(source: Source<'_>) -> Result<Tap, LinkError> {
    let fd = match source {
        Source::Open { name } => open(name)?,
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
    if attached.has_vnet_header() {
        return Err(LinkError::Unfit { what: "a TAP with a virtio-net header in front of its frames" });
    }
    if tun::has_packet_information(fd.as_fd()).map_err(LinkError::os("asking what the tap is"))? {
        return Err(LinkError::Unfit { what: "a TAP with packet information in front of its frames" });
    }
    tun::clear_offload(fd.as_fd()).map_err(LinkError::os("clearing the tap's offload flags"))?;
    event::set_nonblocking(fd.as_fd()).map_err(LinkError::os("making the tap non-blocking"))?;
    Ok(Tap { file: File::from(fd), name: attached.name })
}

fn open(name: &str) -> Result<OwnedFd, LinkError> {
    let named = || name.to_owned();
    if name.len() >= libc::IFNAMSIZ {
        return Err(LinkError::NameTooLong { name: named() });
    }
    // What dev_valid_name of the kernel refuses, and '%', which would ask it to choose a number.
    let odd = |c: u8| matches!(c, b'/' | b':' | b'%' | 0) || c.is_ascii_whitespace() || c == 0x0b;
    if name.is_empty() || name == "." || name == ".." || name.bytes().any(odd) {
        return Err(LinkError::NameInvalid { name: named() });
    }
    let tap = Iface::without_packet_info(name, Mode::Tap).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => LinkError::Busy { name: named() },
        Some(libc::EINVAL) => LinkError::NotTap { name: named() },
        Some(libc::EPERM | libc::EACCES) => LinkError::NotPermitted { name: named() },
        // ENOTTY: something else has been put in its place, as containers do with /dev/null.
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTTY) => LinkError::TunMissing,
        _ => LinkError::Os { what: "opening a tap", source: error },
    })?;
    Ok(tun::into_owned(tap))
}

impl Tap {
    /// The interface's name when it was opened. Whoever moves it may have given it another since.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn write(&self, pieces: &[IoSlice<'_>], sent: &mut Sent) {
        let written = loop {
            match (&self.file).write_vectored(pieces) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => break written,
            }
        };
        match written {
            Ok(bytes) => sent.taken(bytes),
            Err(error) => sent.failed(&error),
        }
    }
}

impl Link for Tap {
    fn receive(&self, port: PortId, batch: &mut Batch) -> Received {
        let mut received = Received::default();
        for _ in 0..BUDGET {
            let Some(slot) = batch.spare() else { break };
            match (&self.file).read(slot) {
                // A TAP hides how much it cut off; a full slot is the sign. No MTU allows such a frame today.
                Ok(len) if len >= SLOT_LEN => received.truncated += 1,
                Ok(len) => {
                    batch.push(Arrival::Port(port), len, Offload::NONE);
                    received.frames += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    received.failed(&error);
                    break;
                }
            }
        }
        received
    }

    fn send(&self, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent {
        let mut sent = Sent::default();
        for record in tx.records(port) {
            if !record.offload.is_none() {
                if scratch.settle(batch, tx, record, 0).is_some() {
                    scratch.settled(0).for_each(|pieces| self.write(&pieces.map(IoSlice::new), &mut sent));
                } else {
                    sent.bad_offload += 1;
                }
                continue;
            }
            let mut gathered = [IoSlice::new(&[]); PIECES];
            let mut pieces = tx.pieces(record, batch);
            let mut len = 0;
            for (place, piece) in gathered.iter_mut().zip(&mut pieces) {
                *place = IoSlice::new(piece);
                len += 1;
            }
            if pieces.next().is_none() {
                self.write(&gathered[..len], &mut sent);
            } else {
                self.write(&[IoSlice::new(scratch.copy(batch, tx, record))], &mut sent);
            }
        }
        sent
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
        let open = |name| open_or_adopt(Source::Open { name }).unwrap_err().to_string();
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
