//! The tun driver's ioctls: a TAP with a virtio-net header, what an open descriptor of /dev/net/tun is, and what
//! sticks to it. What the header says is the link room's.

use super::check;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// A `struct ifreq` as the tun ioctls use it: name and flags.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// The descriptor of an interface that tun-tap opened; the crate cannot give it as an [`OwnedFd`] itself.
#[must_use]
pub fn into_owned(tap: tun_tap::Iface) -> OwnedFd {
    // SAFETY: `into_raw_fd` gives its descriptor, which is open, away.
    unsafe { OwnedFd::from_raw_fd(tap.into_raw_fd()) }
}

/// What a descriptor of /dev/net/tun is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The interface's name, in the namespace it is in now.
    pub name: String,
    flags: i32,
}

impl Attached {
    /// Whole Ethernet frames (TAP), not IP packets (TUN).
    #[must_use]
    pub const fn is_tap(&self) -> bool {
        self.flags & libc::IFF_TAP != 0
    }

    /// Frames wear a virtio-net header in front.
    #[must_use]
    pub const fn has_vnet_header(&self) -> bool {
        self.flags & libc::IFF_VNET_HDR != 0
    }
}

/// What `tun` is attached to (TUNGETIFF). EBADFD when attached to nothing, ENOTTY when it is no tun descriptor.
pub fn attached(tun: BorrowedFd<'_>) -> io::Result<Attached> {
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    // SAFETY: the kernel writes one struct ifreq (40 bytes on 64-bit Linux), which `Request` is large enough for.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETIFF as libc::Ioctl, &raw mut request) })?;
    let name = CStr::from_bytes_until_nul(&request.name).unwrap_or_default();
    Ok(Attached { name: name.to_string_lossy().into_owned(), flags: i32::from(request.flags) })
}

/// Whether frames of the TAP `tap` wear four bytes of packet information in front, that is, whether it lacks
/// IFF_NO_PI. A filter that an earlier owner attached to the interface is removed.
///
/// TUNGETIFF answers with a bit that means two things (linux/if_tun.h): IFF_NO_PI, or IFF_NOFILTER. It is the
/// first only while a filter is attached; so one that takes everything is, for a moment.
pub fn has_packet_information(tap: BorrowedFd<'_>) -> io::Result<bool> {
    // BPF_RET | BPF_K: the whole frame.
    let mut take_all = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: u32::MAX };
    let program = libc::sock_fprog { len: 1, filter: &raw mut take_all };
    // SAFETY: the kernel reads one sock_fprog and the one instruction it points to; both outlive the call.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNATTACHFILTER as libc::Ioctl, &raw const program) })?;
    let attached = attached(tap);
    // SAFETY: TUNDETACHFILTER reads nothing of its argument.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNDETACHFILTER as libc::Ioctl, &raw const program) })?;
    Ok(attached?.flags & libc::IFF_NO_PI == 0)
}

/// Creates the TAP `name`, or attaches to a persistent one nobody uses: no packet information, a virtio-net header in
/// front of each frame, non-blocking. `InvalidInput` also when the name has more than 15 bytes.
pub fn open_with_header(name: &str) -> io::Result<OwnedFd> {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let flags = libc::c_short::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags, rest: [0; 22] };
    let room = request.name.get_mut(..name.len()).filter(|room| room.len() < libc::IFNAMSIZ);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    let tun = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: the kernel reads and writes one struct ifreq (40 bytes on 64-bit Linux), which `Request` is large
    // enough for.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request) })?;
    Ok(tun.into())
}

/// Fixes the virtio-net header of `tun` to `len` bytes, numbers in it little-endian, whoever set it before.
pub fn set_header(tun: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    let len = libc::c_int::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    for (request, value) in [(libc::TUNSETVNETHDRSZ, len), (libc::TUNSETVNETLE, 1)] {
        // SAFETY: both read one int, which outlives the call.
        check(unsafe { libc::ioctl(tun.as_raw_fd(), request as libc::Ioctl, &raw const value) })?;
    }
    Ok(())
}

/// Promises the kernel what we take from it: unfinished checksums and superframes, by TUN_F_ bits (TUNSETOFFLOAD);
/// 0: nothing. What an earlier owner of a persistent interface promised sticks to it otherwise.
pub fn set_offload(tun: BorrowedFd<'_>, features: libc::c_uint) -> io::Result<()> {
    let features = libc::c_ulong::from(features);
    // SAFETY: TUNSETOFFLOAD takes its argument by value; no memory is involved.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD as libc::Ioctl, features) }).map(drop)
}

/// Whether the interface of `tun` outlives its descriptors (TUNSETPERSIST).
pub fn set_persistent(tun: BorrowedFd<'_>, persistent: bool) -> io::Result<()> {
    let persistent = libc::c_ulong::from(persistent);
    // SAFETY: TUNSETPERSIST takes its argument by value; no memory is involved.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST as libc::Ioctl, persistent) }).map(drop)
}

/// The network namespace that the interface of `tun` is in now (TUNGETDEVNETNS). Needs CAP_NET_ADMIN there.
pub fn namespace(tun: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: TUNGETDEVNETNS takes no argument and returns a descriptor.
    let fd = check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETDEVNETNS as libc::Ioctl) })?;
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());
