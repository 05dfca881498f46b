//! What servers on sockets of the filesystem that wait for nobody have in common: who may come in, and sending.
//!
//! Not here: what is said (see `unixctl` and `openflow`), and the control socket, which has a thread for each client.

use crate::sys::socket::peer_credentials;
use mio::net::{UnixListener, UnixStream};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;

/// The next client at `listener` whose user is `owner` or root; `None` while nobody knocks. Others are sent away.
///
/// # Errors
/// Out of descriptors or memory: who knocks waits in the backlog until there are some again.
pub(super) fn accept(listener: &UnixListener, owner: u32) -> io::Result<Option<UnixStream>> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let uid = peer_credentials(stream.as_fd()).map(|who| who.uid);
                if uid.is_ok_and(|uid| uid == 0 || uid == owner) {
                    return Ok(Some(stream));
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Sends of `unsent` what `stream` takes without waiting; whether it took anything.
///
/// # Errors
/// The client is gone.
pub(super) fn send(mut stream: &UnixStream, unsent: &mut Vec<u8>) -> io::Result<bool> {
    let mut sent = 0;
    while sent < unsent.len() {
        match stream.write(&unsent[sent..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => sent += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    unsent.drain(..sent);
    Ok(sent > 0)
}
