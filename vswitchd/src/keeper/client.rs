//! The daemon's connection to the keeper's process: one question, one answer, and finding it again.

use super::words::{AFTER, DONE, END, FORGET, HERE, Inbox, KEEP, REFUSED, escaped, unescaped};
use crate::observe::log;
use crate::sys::{event, rights};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use vswitch_core::Instant;

/// How long an answer may take at the start, when everything depends on it.
const PATIENCE_AT_START: Duration = Duration::from_secs(10);
/// How long one may take while the daemon serves.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon a keeper that is away is looked for again: from this, doubling, to that.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// A connection that comes and goes.
#[derive(Debug)]
pub(super) struct Client {
    path: PathBuf,
    stream: Option<UnixStream>,
    /// Why it is away, where it is.
    reason: String,
    next: Instant,
    pause: Duration,
}

impl Client {
    /// To the keeper at `path`, not yet connected.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, stream: None, reason: String::new(), next: Instant::ZERO, pause: PAUSES[0] }
    }

    /// Connects, and gives what is kept there.
    pub(super) fn begin(&mut self) -> BTreeMap<String, OwnedFd> {
        self.connect(PATIENCE_AT_START)
    }

    /// Whether it answers, as far as is known.
    pub(super) const fn is_there(&self) -> bool {
        self.stream.is_some()
    }

    /// Why it is away, where it is.
    pub(super) fn trouble(&self) -> Option<String> {
        let words = || format!("nobody keeps descriptors at {}: {}", self.path.display(), self.reason);
        self.stream.is_none().then(words)
    }

    /// Notices that the keeper is gone; looks for it when it is time to. What it has, where it has come back.
    pub(super) fn look(&mut self, now: Instant) -> Option<BTreeMap<String, OwnedFd>> {
        if let Some(stream) = &self.stream {
            // It never speaks unasked: whatever there is to read is the end.
            match event::wait_readable(stream.as_fd(), Some(Duration::ZERO)) {
                Ok(ready) if ready == event::Ready::default() => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => return None,
                _ => self.away(&ErrorKind::ConnectionReset.into()),
            }
        }
        if now < self.next {
            return None;
        }
        let kept = self.connect(PATIENCE);
        if self.stream.is_some() {
            self.pause = PAUSES[0];
            return Some(kept);
        }
        self.next = now.after(self.pause);
        self.pause = (self.pause * 2).min(PAUSES[1]);
        None
    }

    /// Has `descriptor` kept under `name`.
    pub(super) fn keep(&mut self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.ask_for_done(&format!("{KEEP} {}", escaped(name)), Some(descriptor))
    }

    /// Has what is kept under `names` closed.
    pub(super) fn forget(&mut self, names: &[&str]) {
        // Whoever is away is asked for all that it has when it is back; what is no port's then is forgotten.
        let told =
            names.iter().try_for_each(|name| self.ask_for_done(&format!("{FORGET} {}", escaped(name)), None));
        if let Err(error) = told {
            log::limited(
                log::Level::Warn,
                "keeper-forget",
                "the keeper was not told to forget",
                &[("reason", &error)],
            );
        }
    }

    fn connect(&mut self, patience: Duration) -> BTreeMap<String, OwnedFd> {
        let mut kept = BTreeMap::new();
        let connected = UnixStream::connect(&self.path).and_then(|stream| {
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            self.stream = Some(stream);
            let mut last = String::new();
            while let Some((name, descriptor)) = self.after(&last)? {
                last.clone_from(&name);
                kept.insert(name, descriptor);
            }
            let stream = self.stream.as_ref().ok_or(ErrorKind::NotConnected)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))
        });
        match connected {
            Ok(()) => log::info("keeper found", &[("path", &self.path.display()), ("kept", &kept.len())]),
            Err(error) => self.away(&error),
        }
        kept
    }

    /// The first that is kept behind `name`.
    fn after(&mut self, name: &str) -> io::Result<Option<(String, OwnedFd)>> {
        let (line, descriptor) = self.ask(&format!("{AFTER} {}", escaped(name)), None)?;
        if line == END {
            return Ok(None);
        }
        let kept =
            line.split_once(' ').filter(|(word, _)| *word == HERE).and_then(|(_, name)| unescaped(name));
        // One that goes back would have us ask for ever.
        let kept = kept.filter(|kept| kept.as_str() > name);
        kept.zip(descriptor).map(Some).ok_or_else(|| unexpected(&line))
    }

    fn ask_for_done(&mut self, line: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let (answer, _) = self.ask(line, descriptor)?;
        match answer.split_once(' ') {
            Some((REFUSED, reason)) => Err(io::Error::other(format!("the keeper refuses: {reason}"))),
            _ if answer == DONE => Ok(()),
            _ => {
                let error = unexpected(&answer);
                self.away(&error);
                Err(error)
            }
        }
    }

    /// Says one line and hears one.
    fn ask(
        &mut self,
        line: &str,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<(String, Option<OwnedFd>)> {
        let Some(stream) = &self.stream else { return Err(ErrorKind::NotConnected.into()) };
        let heard = talk(stream, line, descriptor);
        if let Err(error) = &heard {
            self.away(error);
        }
        heard
    }

    fn away(&mut self, error: &io::Error) {
        let reason = match error.kind() {
            // What a timeout of a socket is called.
            ErrorKind::WouldBlock => "it does not answer".to_owned(),
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => {
                "it has ended".to_owned()
            }
            _ => error.to_string(),
        };
        if self.stream.take().is_some() || self.reason != reason {
            log::warn("keeper away", &[("path", &self.path.display()), ("reason", &reason)]);
        }
        self.reason = reason;
    }
}

fn talk(
    stream: &UnixStream,
    line: &str,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<(String, Option<OwnedFd>)> {
    let line = format!("{line}\n");
    let sent = rights::send(stream, line.as_bytes(), descriptor.as_slice())?;
    // A line is far smaller than what a socket takes at once.
    if sent != line.len() {
        return Err(ErrorKind::WriteZero.into());
    }
    let mut inbox = Inbox::default();
    loop {
        match inbox.read(stream) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(false) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(true) => {
                if let Some(whole) = inbox.line()? {
                    return Ok(whole);
                }
            }
        }
    }
}

fn unexpected(line: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the keeper says {line:?}"))
}
