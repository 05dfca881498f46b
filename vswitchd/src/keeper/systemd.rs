//! systemd as keeper: its descriptor store (sd_notify(3), FDSTORE; sd_listen_fds(3)), and the word to it how we are.
//!
//! A unit has a store where FileDescriptorStoreMax is set; systemd before version 254 does not say whether it is.

use super::words::{escaped, unescaped};
use crate::observe::log;
use crate::sys::{event, process, rights};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

/// How long a word to systemd, or its answer, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells systemd, if it started us, how we are (`sd_notify(3)`).
pub fn notify(state: &str) {
    if let Err(error) = say(state, None) {
        log::limited(log::Level::Warn, "notify", "systemd does not listen", &[("reason", &error)]);
    }
}

/// What the store gave back when this process began. Of several under one name the last counts.
pub(super) fn kept() -> io::Result<BTreeMap<String, OwnedFd>> {
    let all = process::take_inherited()?;
    Ok(all.into_iter().filter_map(|(word, descriptor)| Some((unescaped(&word)?, descriptor))).collect())
}

/// Puts a duplicate of `descriptor` into the store; one that was put there under `name` before is taken out first
/// where `replaces` says that there is one: systemd would keep both. It shall not poll it (FDPOLL=0): each frame would
/// wake it.
pub(super) fn keep(name: &str, descriptor: BorrowedFd<'_>, replaces: bool) -> io::Result<()> {
    let word = escaped(name);
    if replaces {
        say(&format!("FDSTOREREMOVE=1\nFDNAME={word}"), None)?;
    }
    say(&format!("FDSTORE=1\nFDNAME={word}\nFDPOLL=0"), Some(descriptor))
}

/// Takes `names` out of the store; returns when systemd has closed them.
pub(super) fn forget(names: &[&str]) {
    let told = names
        .iter()
        .try_for_each(|name| say(&format!("FDSTOREREMOVE=1\nFDNAME={}", escaped(name)), None))
        .and_then(|()| wait());
    if let Err(error) = told {
        log::warn("systemd was not told to forget descriptors", &[("reason", &error)]);
    }
}

/// Waits until systemd has done all that it was told before: it closes its end of a pipe then (BARRIER,
/// `sd_notify_barrier(3)`, systemd 246).
fn wait() -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    say("BARRIER=1", Some(writer.as_fd()))?;
    drop(writer);
    let ready = event::wait_readable(reader.as_fd(), Some(PATIENCE))?;
    if ready.failed { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
}

/// Sends `state`, where there is a systemd to hear it.
fn say(state: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(Path::new(&path)),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect_addr(&address?)?;
    rights::send(&socket, state.as_bytes(), descriptor.as_slice()).map(drop)
}
