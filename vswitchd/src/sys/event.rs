//! Waiting on one descriptor, waking through one, and signals as a descriptor.

use super::{check, count};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Something to read, or the end.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
    /// An error is pending, or what it stood for is gone (POLLERR, POLLHUP, POLLNVAL).
    pub failed: bool,
}

/// Waits until `fd` can be read or has failed, for `limit` at most (`None`: for ever). Nothing set: the time is
/// over. A signal that the process takes ends the wait early, as `Interrupted`.
pub fn wait_readable(fd: BorrowedFd<'_>, limit: Option<Duration>) -> io::Result<Ready> {
    let mut asked = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let limit =
        limit.map_or(-1, |limit| libc::c_int::try_from(limit.as_millis()).unwrap_or(libc::c_int::MAX));
    // SAFETY: one live pollfd, and the count says one.
    check(unsafe { libc::poll(&raw mut asked, 1, limit) })?;
    let any = |bits| asked.revents & bits != 0;
    Ok(Ready {
        readable: any(libc::POLLIN | libc::POLLHUP),
        writable: any(libc::POLLOUT),
        failed: any(libc::POLLERR | libc::POLLHUP | libc::POLLNVAL),
    })
}

/// Makes reads and writes on `fd` return `WouldBlock` instead of waiting. It holds for every descriptor that
/// shares its open file.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: F_SETFL takes its flags by value.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// Something to ring: its descriptor is readable from the first `ring` until `hush`.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A silent bell (eventfd).
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain numbers in; the result is checked before use.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        // SAFETY: the kernel just made this descriptor and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes the descriptor readable.
    pub fn ring(&self) {
        let one = 1_u64;
        // SAFETY: eight live bytes. It can only fail with EAGAIN, at 2⁶⁴ − 1 rings: then it rings anyway.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Makes it unreadable again.
    pub fn hush(&self) {
        let mut rings = 0_u64;
        // SAFETY: eight live, writable bytes. It can only fail with EAGAIN, when it is silent already.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut rings).cast(), size_of::<u64>()) };
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A signal the daemon listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

impl Signal {
    /// Its number (signal(7)).
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Hangup => libc::SIGHUP,
            Self::Terminate => libc::SIGTERM,
            Self::Interrupt => libc::SIGINT,
        }
    }
}

/// SIGHUP, SIGTERM and SIGINT as a descriptor.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the three for the calling thread, and for all that it starts from now on, and takes them through
    /// a descriptor instead (signalfd). Call it in `main` before the first thread.
    pub fn take() -> io::Result<Self> {
        // SAFETY: an all-zero sigset_t is one that sigemptyset may initialise; the other calls get that
        // initialised set, and signalfd and pthread_sigmask only read it.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGHUP, libc::SIGTERM, libc::SIGINT] {
                libc::sigaddset(&raw mut set, signal);
            }
            let failed = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            if failed != 0 {
                return Err(io::Error::from_raw_os_error(failed));
            }
            check(libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC))?
        };
        // SAFETY: the kernel just made this descriptor and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// What to wait on.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The next signal that came; `None` when there is none. Never waits.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        loop {
            let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
            // SAFETY: the kernel writes at most one siginfo into as many live bytes.
            let got = count(unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), info.len()) });
            match got {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            // The signal's number is the first field (signalfd(2)).
            let [a, b, c, d, ..] = info;
            match libc::c_int::try_from(u32::from_ne_bytes([a, b, c, d])) {
                Ok(libc::SIGHUP) => return Ok(Some(Signal::Hangup)),
                Ok(libc::SIGTERM) => return Ok(Some(Signal::Terminate)),
                Ok(libc::SIGINT) => return Ok(Some(Signal::Interrupt)),
                _ => {}
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_rings_until_it_is_hushed() {
        let bell = Bell::new().unwrap();
        let rings = || wait_readable(bell.as_fd(), Some(Duration::ZERO)).unwrap().readable;
        bell.hush();
        assert!(!rings());
        bell.ring();
        bell.ring();
        assert!(rings());
        bell.hush();
        assert!(!rings());
    }

    #[test]
    fn signals_wait_in_their_descriptor() {
        let signals = Signals::take().unwrap();
        assert_eq!(signals.next().unwrap(), None);
        for signal in [libc::SIGHUP, libc::SIGTERM] {
            // SAFETY: raise takes a number; the signal is blocked for this thread, to which alone it goes.
            assert_eq!(unsafe { libc::raise(signal) }, 0);
        }
        assert!(wait_readable(signals.as_fd(), Some(Duration::ZERO)).unwrap().readable);
        let got = [signals.next().unwrap(), signals.next().unwrap(), signals.next().unwrap()];
        assert_eq!(got, [Some(Signal::Hangup), Some(Signal::Terminate), None]);
    }
}
