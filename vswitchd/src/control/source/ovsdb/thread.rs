//! The thread that talks to a database server: connects, again and again, and carries messages.
//!
//! Not here: what is said (see `session.rs`).

use super::framing::{Framing, MAX_LEN};
use super::remote::{Remote, Stream};
use super::session::{Known, Session, SessionError};
use super::words::{Report, Wish};
use crate::datapath::clock;
use crate::observe::log;
use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const STREAM: Token = Token(0);
const WAKER: Token = Token(1);
/// How soon a server that is away is tried again: from this, doubling, to that.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(8)];
/// A server that says nothing for so long is asked whether it is there; in as long again it has to answer.
const SILENCE: Duration = Duration::from_secs(30);
/// What is read at once.
const PIECE: usize = 64 << 10;
/// How many pieces of a server that never pauses are read before anything else is looked at.
const PIECES: usize = 64;

/// How the conversation stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The server tells us of its rows.
    pub connected: bool,
    /// We hold the lock: our wishes are carried out, and what is in force is written.
    pub locked: bool,
    /// Why the last conversation ended, or none could begin.
    pub last_error: Option<String>,
}

/// A database that is followed, until this is dropped.
#[derive(Debug)]
pub struct Ovsdb {
    wishes: Receiver<Wish>,
    reports: Option<Sender<Report>>,
    status: Arc<Mutex<Status>>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Ovsdb {
    /// Follows the database at `remote`, be it there or not; `wake` is called when there is a wish.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(remote: &Remote, wake: Arc<dyn Fn() + Send + Sync>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (wish_sender, wishes) = unbounded();
        let (reports, report_receiver) = unbounded();
        let status = Arc::new(Mutex::new(Status::default()));
        let mut follower = Follower {
            remote: remote.clone(),
            poll,
            waker: Arc::clone(&waker),
            wishes: (wish_sender, wishes.clone()),
            reports: report_receiver,
            status: Arc::clone(&status),
            wake,
        };
        let thread = std::thread::Builder::new().name("ovsdb".into()).spawn(move || follower.run())?;
        Ok(Self { wishes, reports: Some(reports), status, waker, thread: Some(thread) })
    }

    /// Where wishes come from. Only the newest matters, and no more than one waits.
    #[must_use]
    pub const fn wishes(&self) -> &Receiver<Wish> {
        &self.wishes
    }

    /// Tells what is in force; it is written when it can be, and until then the newest counts.
    pub fn report(&self, report: Report) {
        if let Some(reports) = &self.reports {
            // A thread that has ended writes nothing.
            let _ = reports.send(report);
            let _ = self.waker.wake();
        }
    }

    /// How the conversation stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Ovsdb {
    fn drop(&mut self) {
        self.reports = None;
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Follower {
    remote: Remote,
    poll: Poll,
    waker: Arc<Waker>,
    wishes: (Sender<Wish>, Receiver<Wish>),
    reports: Receiver<Report>,
    status: Arc<Mutex<Status>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// How a conversation ended.
enum End {
    /// The daemon wants no more of it.
    Meant,
    /// It went well for so long, or not at all, and then this.
    Failed { error: String, lasted: Duration },
}

impl Follower {
    fn run(&mut self) {
        let mut known = Known::default();
        let mut report = None;
        let mut pause = Duration::ZERO;
        loop {
            if !self.rest(pause, &mut report) {
                return;
            }
            let (end, left) = self.converse(known, report);
            (known, report) = left;
            let (error, lasted) = match end {
                End::Meant => return,
                End::Failed { error, lasted } => (error, lasted),
            };
            let news = {
                let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
                let news = status.last_error.as_ref() != Some(&error) || status.connected;
                *status = Status { last_error: Some(error.clone()), ..Status::default() };
                news
            };
            if news {
                log::warn(
                    "the Open vSwitch database is away; what runs stays",
                    &[("server", &self.remote), ("reason", &error)],
                );
            }
            pause = pause_after(pause, lasted);
        }
    }

    /// Waits; `false` when nobody wants more.
    fn rest(&mut self, pause: Duration, report: &mut Option<Report>) -> bool {
        let until = clock::now().after(pause);
        let mut events = Events::with_capacity(4);
        loop {
            if !self.take_reports(|newest| *report = Some(newest)) {
                return false;
            }
            let wait = until.since(clock::now());
            if wait.is_zero() {
                return true;
            }
            // Whatever ends the wait is looked at again.
            let _ = self.poll.poll(&mut events, Some(wait.max(Duration::from_millis(1))));
        }
    }

    /// Hands the newest report on; `false` when nobody will ever report again.
    fn take_reports(&self, mut take: impl FnMut(Report)) -> bool {
        let mut newest = None;
        let goes_on = loop {
            match self.reports.try_recv() {
                Ok(report) => newest = Some(report),
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        newest.into_iter().for_each(&mut take);
        goes_on
    }

    /// Opens the way to the server; `None` when nobody wants more.
    fn open(&mut self, report: &mut Option<Report>) -> io::Result<Option<Stream>> {
        let waker = Arc::clone(&self.waker);
        // A poll that is gone need not be woken.
        let opening = self.remote.open(move || drop(waker.wake()))?;
        let mut events = Events::with_capacity(4);
        loop {
            if !self.take_reports(|newest| *report = Some(newest)) {
                return Ok(None);
            }
            match opening.try_recv() {
                Ok(opened) => return opened.map(Some),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(ErrorKind::BrokenPipe.into()),
            }
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    fn converse(&mut self, known: Known, mut report: Option<Report>) -> (End, (Known, Option<Report>)) {
        let mut stream = match self.open(&mut report) {
            Ok(Some(stream)) => stream,
            Ok(None) => return (End::Meant, (known, report)),
            Err(error) => {
                return (End::Failed { error: error.to_string(), lasted: Duration::ZERO }, (known, report));
            }
        };
        let mut session = Session::begin(known, report);
        let began = clock::now();
        let end = match self.carry(&mut stream, &mut session) {
            Ok(()) => End::Meant,
            Err(error) => {
                let lasted = if session.monitored { clock::now().since(began) } else { Duration::ZERO };
                End::Failed { error, lasted }
            }
        };
        // A stream that could not be registered cannot be taken back either.
        let _ = self.poll.registry().deregister(stream.source());
        (end, session.end())
    }

    /// Carries messages until nobody wants more.
    fn carry(&mut self, stream: &mut Stream, session: &mut Session) -> Result<(), String> {
        let broken = |error: io::Error| error.to_string();
        self.poll
            .registry()
            .register(stream.source(), STREAM, Interest::READABLE | Interest::WRITABLE)
            .map_err(broken)?;
        let (mut framing, mut unsent) = (Framing::default(), Vec::new());
        let mut events = Events::with_capacity(16);
        let mut heard = clock::now();
        let mut asked = false;
        let mut more = false;
        loop {
            for message in session.outgoing() {
                unsent.extend(message.to_string().into_bytes());
            }
            send(stream, &mut unsent).map_err(broken)?;
            if unsent.len() > MAX_LEN {
                return Err("it does not read what it is sent".to_owned());
            }
            let quiet_until = heard.after(if asked { SILENCE * 2 } else { SILENCE });
            let wait = quiet_until.since(clock::now()).max(Duration::from_millis(1));
            let wait = if more { Duration::ZERO } else { wait };
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(broken(error)),
                _ => {}
            }
            if !self.take_reports(|report| session.report(report)) {
                return Ok(());
            }
            let received = receive(stream, &mut framing, session).map_err(|error| error.to_string())?;
            if received > 0 {
                (heard, asked) = (clock::now(), false);
            }
            more = received == PIECES;
            self.tell(session);
            let silent = clock::now().since(heard);
            if asked && silent >= SILENCE * 2 {
                return Err("it does not answer".to_owned());
            }
            if !asked && silent >= SILENCE {
                session.probe();
                asked = true;
            }
        }
    }

    /// Passes the wish on, and how things stand.
    fn tell(&self, session: &mut Session) {
        {
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            let (connected, locked) = (session.monitored, session.locked);
            let comes = connected && !status.connected;
            if comes {
                log::info("the Open vSwitch database is there", &[("server", &self.remote)]);
            }
            if connected && locked && !status.locked {
                log::info("the lock ovs_vswitchd is ours: what is wished is carried out", &[]);
            } else if connected && !locked && (comes || status.locked) {
                let doing = if comes { "has" } else { "takes" };
                let message = format!(
                    "another {doing} the lock ovs_vswitchd; what runs goes on as it is, and nothing more that is wished \
                     is carried out here until the lock is free"
                );
                log::warn(&message, &[("server", &self.remote)]);
            }
            (status.connected, status.locked) = (connected, connected && locked);
            if connected {
                status.last_error = None;
            }
        }
        if let Some(wish) = session.wish() {
            let (sender, receiver) = &self.wishes;
            // Nobody needs an older one.
            while receiver.try_recv().is_ok() {}
            // Control that is gone wants none.
            let _ = sender.send(wish);
            (self.wake)();
        }
    }
}

/// How long to wait after a conversation that `lasted`, where it was `pause` before. One that never lasts is not asked for
/// all its rows over and over.
fn pause_after(pause: Duration, lasted: Duration) -> Duration {
    let [shortest, longest] = PAUSES;
    match pause {
        _ if lasted >= longest => Duration::ZERO,
        before if before < shortest => shortest,
        before => (before * 2).min(longest),
    }
}

/// Sends as much as the stream takes.
fn send(stream: &mut Stream, unsent: &mut Vec<u8>) -> io::Result<()> {
    let mut sent = 0;
    while sent < unsent.len() {
        match stream.write(&unsent[sent..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(more) => sent += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // mio's way to say that a connection is still being made.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
            Err(error) => return Err(error),
        }
    }
    unsent.drain(..sent);
    Ok(())
}

/// Why nothing more is to be had of a stream.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Reads what there is, [`PIECES`] at most; how many there were.
fn receive(stream: &mut Stream, framing: &mut Framing, session: &mut Session) -> Result<usize, Lost> {
    let mut piece = vec![0; PIECE];
    let mut pieces = 0;
    while pieces < PIECES {
        match stream.read(&mut piece) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed the connection").into()),
            Ok(len) => {
                pieces += 1;
                framing.push(&piece[..len]);
                while let Some(message) = framing.message().map_err(SessionError::from)? {
                    session.take(&message)?;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_lost_is_tried_at_once_and_one_that_never_lasts_ever_less() {
        let mut pause = pause_after(PAUSES[1], Duration::from_secs(60));
        let mut pauses = Vec::new();
        for _ in 0..10 {
            pauses.push(pause.as_millis());
            pause = pause_after(pause, Duration::from_secs(1));
        }
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 6400, 8000, 8000]);
    }
}
