//! Processes that belong together: a child that ends with its parent, a parent that asks its child to end.
//! Starting one is std's.

use super::check;
use std::io;
use std::process::Child;

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
    // Once it is waited for, its number may be another's; until then it is not.
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: kill takes two numbers; the process is our child and not waited for, so the number is its own.
    check(unsafe { libc::kill(pid, libc::SIGTERM) }).map(drop)
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
