//! `vswitchd keeper`: a process that does nothing but hold descriptors by name, behind a Unix socket; and, where it
//! is given a command, is its parent.
//!
//! It never looks into a descriptor. Only its own user and root may speak to it, and whoever says what it does not
//! understand is disconnected: no client can end it. Not here: the words (see `words.rs`).

use super::child::Child;
use super::words::{AFTER, DONE, END, FORGET, HERE, Inbox, KEEP, LINE, REFUSED, escaped, unescaped};
use crate::datapath::clock;
use crate::observe::log;
use crate::sys::event::{Signal, Signals};
use crate::sys::{process, rights, socket};
use anyhow::{Context as _, anyhow};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Clients at once. The daemon is one.
const CONNECTIONS: usize = 64;
/// Descriptors that are left for everything but what is kept.
const RESERVE: usize = 128;
/// The longest name, in bytes.
const NAME: usize = 255;
const _: () = assert!(NAME * 3 + 16 < LINE);

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
const CHILD: Token = Token(2);
const FIRST: usize = 3;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub socket: PathBuf,
    /// The program to be the parent of, and its arguments; empty: none.
    pub command: Vec<OsString>,
}

/// Keeps what it is given until SIGTERM or SIGINT, or, with a command, until that has ended for good; gives the exit
/// code. Nothing is kept any longer then.
///
/// # Errors
/// The socket cannot be had, or the command cannot be started.
pub fn run(options: &Options) -> anyhow::Result<u8> {
    let signals = Signals::take().context("taking signals")?;
    let limit = process::raise_descriptor_limit().context("asking how many descriptors there may be")?;
    let mut poll = Poll::new().context("waiting for events")?;
    let door = Door::open(&options.socket)?;
    let own = |fd, token| poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE);
    own(door.listener.as_raw_fd(), LISTENER).context("waiting for clients")?;
    own(signals.fd().as_raw_fd(), SIGNALS).context("waiting for signals")?;
    let mut server = Server {
        room: usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(RESERVE),
        kept: BTreeMap::new(),
        connections: HashMap::new(),
        next: FIRST,
    };
    log::info("keeping", &[("socket", &options.socket.display()), ("room", &server.room)]);
    let child = match options.command.first() {
        None => None,
        Some(program) => {
            let child = Child::start(&options.command, &options.socket, clock::now());
            let child = child.with_context(|| format!("starting {}", program.display()))?;
            watch(poll.registry(), &child)?;
            Some(child)
        }
    };
    serve(&mut poll, &door, &signals, &mut server, child)
}

fn watch(registry: &Registry, child: &Child) -> io::Result<()> {
    let Some(fd) = child.watch() else { return Ok(()) };
    registry.register(&mut SourceFd(&fd.as_raw_fd()), CHILD, Interest::READABLE)
}

fn serve(
    poll: &mut Poll,
    door: &Door,
    signals: &Signals,
    server: &mut Server,
    mut child: Option<Child>,
) -> anyhow::Result<u8> {
    let mut ready = Events::with_capacity(CONNECTIONS);
    loop {
        let due = child.as_ref().and_then(Child::due);
        match poll.poll(&mut ready, due.map(|due| due.since(clock::now()))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &ready {
            match event.token() {
                LISTENER => server.welcome(&door.listener, poll.registry()),
                SIGNALS | CHILD => {}
                token => server.hear(token),
            }
        }
        while let Some(signal) = signals.next().context("reading signals")? {
            let code = match &mut child {
                Some(child) => child.signal(signal).context("passing a signal on")?,
                None => (signal != Signal::Hangup).then_some(0),
            };
            if let Some(code) = code {
                return Ok(code);
            }
        }
        if let Some(child) = &mut child {
            if let Some(code) = child.ended(clock::now()).context("waiting for the command")? {
                return Ok(code);
            }
            if child.due().is_some_and(|due| due <= clock::now()) {
                child.start_again(clock::now());
                watch(poll.registry(), child)?;
            }
        }
        log::report_suppressed();
    }
}

/// The socket's file, for as long as this process has it.
#[derive(Debug)]
struct Door {
    listener: UnixListener,
    path: PathBuf,
    _lock: File,
}

impl Door {
    /// Takes `path`: mode 0600; its directory is created (0755) when missing; a socket that a killed keeper left
    /// behind is replaced. Of two keepers one succeeds: whoever holds the lock on `path` + `.lock`, a file that
    /// stays.
    fn open(path: &Path) -> anyhow::Result<Self> {
        if let Some(directory) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(directory)
                .with_context(|| format!("creating directory {}", directory.display()))?;
        }
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&lock_path)
            .with_context(|| format!("opening {}", lock_path.display()))?;
        lock.try_lock().map_err(|_| anyhow!("another keeper has {}", path.display()))?;
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(anyhow!("{} exists and is not a socket; remove it", path.display()));
            }
            Ok(_) => fs::remove_file(path)?,
            Err(_) => {}
        }
        // Who connects before the mode is set is asked who it is, as everybody is.
        let listener = UnixListener::bind(path)
            .and_then(|listener| {
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
                listener.set_nonblocking(true).map(|()| listener)
            })
            .with_context(|| format!("listening on {}", path.display()))?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    inbox: Inbox,
}

/// What is kept, and who is connected.
#[derive(Debug)]
struct Server {
    kept: BTreeMap<String, OwnedFd>,
    /// How many may be kept.
    room: usize,
    connections: HashMap<Token, Connection>,
    next: usize,
}

impl Server {
    /// Lets everybody in who waits and may.
    fn welcome(&mut self, listener: &UnixListener, registry: &Registry) {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    return log::limited(
                        log::Level::Warn,
                        "accept",
                        "a client could not be let in",
                        &[("reason", &error)],
                    );
                }
            };
            let allowed = socket::peer_credentials(stream.as_fd())
                .is_ok_and(|who| who.uid == 0 || who.uid == process::user());
            if allowed && self.connections.len() >= CONNECTIONS {
                // Some may have left since we were woken.
                let all: Vec<Token> = self.connections.keys().copied().collect();
                all.into_iter().for_each(|token| self.hear(token));
            }
            if !allowed || self.connections.len() >= CONNECTIONS {
                let reason = if allowed { "there are too many" } else { "it is another user's" };
                log::limited(log::Level::Warn, "turned-away", "client turned away", &[("reason", &reason)]);
                continue;
            }
            let token = Token(self.next);
            self.next += 1;
            let registered = stream.set_nonblocking(true).and_then(|()| {
                registry.register(&mut SourceFd(&stream.as_raw_fd()), token, Interest::READABLE)
            });
            if registered.is_ok() {
                self.connections.insert(token, Connection { stream, inbox: Inbox::default() });
            }
        }
    }

    /// Answers all that a client has said. One that has ended, or says what no client says, is gone then.
    fn hear(&mut self, token: Token) {
        let Some(mut connection) = self.connections.remove(&token) else { return };
        match self.answer_all(&mut connection) {
            Ok(true) => drop(self.connections.insert(token, connection)),
            Ok(false) => {}
            Err(error) => {
                log::limited(log::Level::Warn, "disconnected", "client disconnected", &[("reason", &error)]);
            }
        }
    }

    /// Whether there may be more later.
    fn answer_all(&mut self, connection: &mut Connection) -> io::Result<bool> {
        loop {
            match connection.inbox.read(&connection.stream) {
                Ok(false) => return Ok(false),
                Ok(true) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
            if let Some((line, descriptor)) = connection.inbox.line()? {
                let (answer, descriptor) = self.answer(&line, descriptor);
                let descriptor = descriptor.map(|descriptor| descriptor.as_fd());
                let answer = format!("{answer}\n");
                // Whoever does not read its answers has no use for us.
                let sent = rights::send(&connection.stream, answer.as_bytes(), descriptor.as_slice())?;
                if sent != answer.len() {
                    return Err(ErrorKind::WriteZero.into());
                }
            }
        }
    }

    fn answer(&mut self, line: &str, descriptor: Option<OwnedFd>) -> (String, Option<&OwnedFd>) {
        let (word, name) = line.split_once(' ').unwrap_or((line, ""));
        let refused = |reason: &str| (format!("{REFUSED} {reason}"), None);
        let Some(name) = unescaped(name).filter(|name| name.len() <= NAME) else {
            return refused("that is no name");
        };
        match (word, descriptor) {
            (KEEP, _) if name.is_empty() => refused("that is no name"),
            (KEEP, Some(_)) if self.kept.len() >= self.room && !self.kept.contains_key(&name) => {
                refused("there is no room for more descriptors")
            }
            (KEEP, Some(descriptor)) => {
                self.kept.insert(name, descriptor);
                (DONE.to_owned(), None)
            }
            (KEEP, None) => refused("no descriptor came with it"),
            (FORGET, None) => {
                self.kept.remove(&name);
                (DONE.to_owned(), None)
            }
            (AFTER, None) => {
                let behind = (Bound::Excluded(name.as_str()), Bound::Unbounded);
                match self.kept.range::<str, _>(behind).next() {
                    Some((name, descriptor)) => (format!("{HERE} {}", escaped(name)), Some(descriptor)),
                    None => (END.to_owned(), None),
                }
            }
            _ => refused("that is nothing to be asked"),
        }
    }
}
