//! Processes that belong together: a child that ends with its parent, a parent that watches its child and passes
//! signals on; and what a process has from whoever started it.

use super::check;
use super::event::Signal;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the calling process at once (SIGKILL) when the thread of `parent` that started it ends, for whatever
/// reason; that lasts through exec. An error when `parent` is not the parent, because it has ended already.
pub fn end_with(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a number and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "the process that started this one has ended"))
    }
}

/// Asks `child` to end (SIGTERM). That it has ended already is no error.
pub fn ask_to_end(child: &mut Child) -> io::Result<()> {
    signal(child, Signal::Terminate)
}

/// Sends `child` a signal. That it has ended already is no error.
pub fn signal(child: &mut Child, signal: Signal) -> io::Result<()> {
    // Once it is waited for, its number may be another's; until then it is not.
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: kill takes two numbers; the process is our child and not waited for, so the number is its own.
    check(unsafe { libc::kill(pid, signal.number()) }).map(drop)
}

/// Starts `command` with no signal blocked, whatever this thread has blocked (std's children inherit that).
pub fn start_unblocked(command: &mut Command) -> io::Result<Child> {
    // SAFETY: between fork and exec it calls two functions that are async-signal-safe (signal-safety(7)), on memory
    // of its own, and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        });
    }
    command.spawn()
}

/// A descriptor that becomes readable when `child` ends (pidfd_open(2), Linux 5.3). The child must still be waited
/// for.
pub fn watch(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers in; the result is checked before use.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(child.id()), 0) };
    let fd = check(libc::c_int::try_from(fd).map_err(io::Error::other)?)?;
    // SAFETY: the kernel just made this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The first descriptor that systemd passes (SD_LISTEN_FDS_START, sd_listen_fds(3)).
const LISTEN_FDS_START: RawFd = 3;

/// Takes the descriptors that systemd left open for this process, with their names (sd_listen_fds(3)): LISTEN_PID,
/// LISTEN_FDS and LISTEN_FDNAMES of the environment. From now on they close on exec. None where the variables are
/// missing or speak to another process, and none the second time: each has one owner.
///
/// `InvalidData` when the variables say what cannot be.
pub fn take_inherited() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| std::env::var(name).ok();
    let is_for_us = variable("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    if !is_for_us || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "LISTEN_FDS does not count open descriptors");
    let count: RawFd = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).ok_or_else(wrong)?;
    let last = LISTEN_FDS_START.checked_add(count).filter(|_| count >= 0).ok_or_else(wrong)?;
    for fd in LISTEN_FDS_START..last {
        // SAFETY: F_SETFD takes its flags by value; of a number that is not open it says EBADF.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }).map_err(|_| wrong())?;
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    // SAFETY: whoever started this process says, to it by its number, that it opened them for it: nothing here did.
    // All are open (checked above) and are given away once only.
    let taken = (LISTEN_FDS_START..last).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(names.zip(taken).collect())
}

/// The user this process acts as.
#[must_use]
pub fn user() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Lets this process have as many descriptors open as the system allows it (RLIMIT_NOFILE), and says how many.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit into live memory.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one rlimit that outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn a_child_ends_when_asked_and_may_be_asked_again() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        ask_to_end(&mut child).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
        ask_to_end(&mut child).unwrap();
    }
}
