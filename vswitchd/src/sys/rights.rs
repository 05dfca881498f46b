//! Descriptors through a Unix socket (SCM_RIGHTS).

use super::{count, len_of};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// How many descriptors one message carries at most.
pub const DESCRIPTORS: usize = 16;

/// Room for one control message with [`DESCRIPTORS`] descriptors, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; 128]);

// SAFETY: CMSG_SPACE is arithmetic.
const SPACE: libc::c_uint = unsafe { libc::CMSG_SPACE(len_of::<[RawFd; DESCRIPTORS]>()) };
const _: () = assert!(size_of::<Control>() >= SPACE as usize);

fn header(iov: &mut libc::iovec, control: &mut Control, len: usize) -> libc::msghdr {
    libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: iov,
        msg_iovlen: 1,
        msg_control: if len == 0 { std::ptr::null_mut() } else { std::ptr::from_mut(control).cast() },
        msg_controllen: len,
        msg_flags: 0,
    }
}

/// Sends `bytes` (at least one) by the connected Unix socket `socket`, and with the first of them `descriptors`.
/// Returns how many bytes went, as `write` does; the descriptors go with the first byte. More than [`DESCRIPTORS`]
/// is `InvalidInput`.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if descriptors.len() > DESCRIPTORS || bytes.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    #[expect(clippy::cast_possible_truncation, reason = "at most 16 times 4 bytes")]
    let len = size_of_val(raw.as_slice()) as libc::c_uint;
    // SAFETY: CMSG_SPACE is arithmetic.
    let space = if raw.is_empty() { 0 } else { unsafe { libc::CMSG_SPACE(len) as usize } };
    let mut control = Control([0; 128]);
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let header = header(&mut iov, &mut control, space);
    if !raw.is_empty() {
        // SAFETY: `control` has room for one control message with `len` bytes of data (checked above against
        // DESCRIPTORS, and DESCRIPTORS against its size), so CMSG_FIRSTHDR is not null and its data is ours.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(len) as usize;
            let data = libc::CMSG_DATA(first);
            std::ptr::copy_nonoverlapping(raw.as_ptr().cast(), data, len as usize);
        }
    }
    // SAFETY: the header describes live bytes and a live, initialised control area; sendmsg only reads them.
    count(unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) })
}

/// Receives up to `bytes.len()` bytes and the descriptors that came with them; 0 bytes is the end. Descriptors
/// close on exec. A message whose descriptors did not all fit is `InvalidData`, and those that did are closed.
pub fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control([0; 128]);
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut header = header(&mut iov, &mut control, size_of::<Control>());
    // SAFETY: the header describes live, writable bytes and a live, writable control area.
    let got =
        count(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) })?;
    let mut descriptors = Vec::new();
    // SAFETY: the kernel filled the control area and its length; the area is alive and aligned.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !at.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole header inside the control area.
        let found = unsafe { *at };
        if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: CMSG_LEN is arithmetic.
            let len = found.cmsg_len.saturating_sub(unsafe { libc::CMSG_LEN(0) as usize });
            for i in 0..len / size_of::<RawFd>() {
                // SAFETY: the message's data is `len` bytes of descriptors that the kernel made for us, in this
                // process and for nobody else; they need not be aligned.
                let fd = unsafe {
                    OwnedFd::from_raw_fd(libc::CMSG_DATA(at).cast::<RawFd>().add(i).read_unaligned())
                };
                descriptors.push(fd);
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR; `at` lies in the same control area.
        at = unsafe { libc::CMSG_NXTHDR(&raw const header, at) };
    }
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((got, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_descriptor_arrives_and_works() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut left, right) = UnixStream::pair().unwrap();
        assert_eq!(send(&here, b"take", &[right.as_fd()]).unwrap(), 4);
        drop(right);
        let mut bytes = [0; 16];
        let (len, mut descriptors) = receive(&there, &mut bytes).unwrap();
        assert_eq!((&bytes[..len], descriptors.len()), (&b"take"[..], 1));
        let mut taken = UnixStream::from(descriptors.remove(0));
        taken.write_all(b"hello").unwrap();
        drop(taken);
        let mut text = String::new();
        left.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(send(&here, b"plain", &[]).unwrap(), 5);
        let (len, descriptors) = receive(&there, &mut bytes).unwrap();
        assert_eq!((len, descriptors.len()), (5, 0));
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let (here, _there) = UnixStream::pair().unwrap();
        let many = vec![here.as_fd(); DESCRIPTORS + 1];
        assert_eq!(send(&here, b"x", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_other_end_is_known() {
        let (here, _there) = UnixStream::pair().unwrap();
        let who = crate::sys::socket::peer_credentials(here.as_fd()).unwrap();
        assert_eq!(u32::try_from(who.pid).unwrap(), std::process::id());
    }
}
