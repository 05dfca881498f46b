//! Record locks of whole files (fcntl(2), F_SETLK): the lock by which others see that a process still has its
//! pidfile.
//!
//! A lock ends with the process, or as soon as the process closes any descriptor of that file. What a locked file
//! means is for the rooms above.

use super::check;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

fn whole() -> libc::flock {
    // SAFETY: a flock is plain numbers, for which zeros are values.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    // F_WRLCK and SEEK_SET are 1 and 0.
    lock.l_type = libc::c_short::try_from(libc::F_WRLCK).unwrap_or_default();
    lock.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default();
    lock
}

/// Locks all of `file`, which is open for writing, for this process alone; `false` when another process has a lock
/// on it.
pub fn take(file: &impl AsFd) -> io::Result<bool> {
    let lock = whole();
    // SAFETY: the kernel reads one flock that outlives the call.
    match check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETLK, &raw const lock) }) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The other process that has a lock on `file`, which is open for writing; `None` when there is none. 0 is a process
/// that our process namespace does not see.
pub fn holder(file: &impl AsFd) -> io::Result<Option<i32>> {
    let mut lock = whole();
    // SAFETY: the kernel reads and writes one live flock.
    check(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETLK, &raw mut lock) })?;
    Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid))
}
