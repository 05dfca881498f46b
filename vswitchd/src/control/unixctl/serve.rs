//! The thread that ovs-appctl talks to: any number of sockets and clients, none of whom it waits for.
//!
//! A client has one request on its way to the control thread at a time; what it sends meanwhile stays in the kernel.
//! Whoever sends what the protocol does not know, keeps half a request to itself or leaves an answer unread is
//! disconnected, as is whoever was idle longest when there are too many. Not here: what the commands mean.

use super::super::objects::Objects;
use super::super::stream;
use super::place::Socket;
use super::wire::{self, MAX_DEPTH, MAX_REQUEST_LEN, Wire};
use crate::datapath::clock;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use vswitch_core::Instant;

/// How many clients may be connected at once.
pub const MAX_CLIENTS: usize = 64;
/// How long a client may keep half a request to itself, or leave an answer unread.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the clients get to take their last answers when the server stops.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long nobody is let in when descriptors have run out.
const BREATH: Duration = Duration::from_millis(50);

const WAKER: Token = Token(usize::MAX);

/// A command of a client, on its way to the control thread.
#[derive(Debug)]
pub struct Request {
    /// What is asked for.
    pub method: String,
    /// With what.
    pub params: Vec<String>,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Where the answer to a [`Request`] goes. Dropping it tells the client that the daemon is stopping.
#[derive(Debug)]
pub struct Reply {
    client: usize,
    answers: Sender<(usize, Result<String, String>)>,
    waker: Arc<Waker>,
    answered: bool,
}

impl Reply {
    /// Sends text, or an error's text; a client that has gone meanwhile does not matter.
    pub fn answer(mut self, answer: Result<String, String>) {
        self.send(answer);
    }

    fn send(&mut self, answer: Result<String, String>) {
        self.answered = true;
        // Nobody is there to take it once the server has stopped.
        drop(self.answers.send((self.client, answer)));
        drop(self.waker.wake());
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.send(Err("the daemon is stopping".to_owned()));
        }
    }
}

/// Sockets being served; dropping it stops, after the answers that were given are delivered (half a second at most).
#[derive(Debug)]
pub(super) struct Serving {
    waker: Arc<Waker>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Serves `sockets`: requests come out of the channel, and `wake` is called after each.
///
/// # Errors
/// When there is no thread or no poll to be had.
pub(super) fn serve(
    sockets: &[Socket],
    wake: Arc<dyn Fn() + Send + Sync>,
) -> io::Result<(Serving, Receiver<Request>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let stopping = Arc::new(AtomicBool::new(false));
    let (requests, asked) = bounded(MAX_CLIENTS);
    // No more answers are on their way than requests were let in.
    let (answers, answered) = unbounded();
    let mut listeners = Vec::new();
    for (number, socket) in sockets.iter().enumerate() {
        let mut listener = UnixListener::from_std(socket.listener.try_clone()?);
        poll.registry().register(&mut listener, Token(number), Interest::READABLE)?;
        listeners.push((listener, socket.owner));
    }
    let mut server = Server {
        next: listeners.len(),
        listeners,
        poll,
        clients: BTreeMap::new(),
        requests,
        answers,
        waker: Arc::clone(&waker),
        wake,
        pause_until: None,
    };
    let until = Arc::clone(&stopping);
    let thread =
        thread::Builder::new().name("unixctl".to_owned()).spawn(move || server.run(&answered, &until))?;
    Ok((Serving { waker, stopping, thread: Some(thread) }, asked))
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(self.waker.wake());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Client {
    stream: UnixStream,
    pieces: Objects,
    /// The id of the request that the control thread has.
    asking: Option<Value>,
    /// What it has not taken yet.
    unsent: Vec<u8>,
    /// When it last did something.
    since: Instant,
}

impl Client {
    /// When it has tried the patience of the server; never while it is idle or waits for an answer.
    fn deadline(&self) -> Option<Instant> {
        let owes = !self.unsent.is_empty() || (self.asking.is_none() && !self.pieces.is_empty());
        owes.then(|| self.since.after(PATIENCE))
    }

    /// Sends what is unsent; `false` when there is still some.
    fn flush(&mut self) -> io::Result<bool> {
        if stream::send(&self.stream, &mut self.unsent)? {
            self.since = clock::now();
        }
        Ok(self.unsent.is_empty())
    }

    /// The next request, read as far as that takes; `None` when there is none yet.
    fn next(&mut self) -> io::Result<Option<Wire>> {
        let malformed = || io::Error::from(ErrorKind::InvalidData);
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(object) = self.pieces.next().map_err(|_| malformed())? {
                return Wire::parse(&object).map(Some).map_err(|_| malformed());
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    // Patience is counted from the beginning of a request, however slowly the rest drips.
                    if self.pieces.is_empty() {
                        self.since = clock::now();
                    }
                    self.pieces.push(&chunk[..len]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

struct Server {
    poll: Poll,
    /// With the user who may connect beside root.
    listeners: Vec<(UnixListener, u32)>,
    /// By token: those above the listeners'.
    clients: BTreeMap<usize, Client>,
    next: usize,
    requests: Sender<Request>,
    answers: Sender<(usize, Result<String, String>)>,
    waker: Arc<Waker>,
    wake: Arc<dyn Fn() + Send + Sync>,
    /// Until then nobody is let in.
    pause_until: Option<Instant>,
}

impl Server {
    fn run(&mut self, answered: &Receiver<(usize, Result<String, String>)>, stopping: &AtomicBool) {
        let mut events = Events::with_capacity(MAX_CLIENTS + 8);
        let mut end = None;
        loop {
            let now = clock::now();
            self.clients.retain(|_, client| client.deadline().is_none_or(|deadline| now < deadline));
            if self.pause_until.is_some_and(|until| until <= now) {
                self.pause_until = None;
                self.accept_all();
            }
            if end.is_some_and(|end| now >= end || self.clients.values().all(|c| c.unsent.is_empty())) {
                return;
            }
            let due =
                self.clients.values().filter_map(Client::deadline).chain(self.pause_until).chain(end).min();
            let wait = due.map(|due| due.since(clock::now()).max(Duration::from_millis(1)));
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return,
                _ => {}
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(number) if number < self.listeners.len() => self.accept_all(),
                    Token(number) => self.drive(number),
                }
            }
            if end.is_none() && stopping.load(Ordering::SeqCst) {
                self.listeners.clear();
                end = Some(clock::now().after(LAST_WORDS));
            }
            while let Ok((number, answer)) = answered.try_recv() {
                if let Some(client) = self.clients.get_mut(&number)
                    && let Some(id) = client.asking.take()
                {
                    client.unsent = wire::answer(&id, answer);
                    client.since = clock::now();
                    self.drive(number);
                }
            }
        }
    }

    fn accept_all(&mut self) {
        for at in 0..self.listeners.len() {
            loop {
                let (listener, owner) = &self.listeners[at];
                match stream::accept(listener, *owner) {
                    Ok(Some(stream)) => self.admit(stream),
                    Ok(None) => break,
                    Err(_) => {
                        self.pause_until = Some(clock::now().after(BREATH));
                        break;
                    }
                }
            }
        }
    }

    fn admit(&mut self, mut stream: UnixStream) {
        if self.clients.len() >= MAX_CLIENTS {
            let idle = self.clients.iter().filter(|(_, client)| client.asking.is_none());
            let longest =
                idle.min_by_key(|(number, client)| (client.since, **number)).map(|(number, _)| *number);
            // All are waiting for answers: this one will try again.
            let Some(longest) = longest else { return };
            self.clients.remove(&longest);
        }
        let number = self.next;
        self.next += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(number), interest).is_ok() {
            let client = Client {
                stream,
                pieces: Objects::new(MAX_REQUEST_LEN, MAX_DEPTH),
                asking: None,
                unsent: Vec::new(),
                since: clock::now(),
            };
            self.clients.insert(number, client);
            self.drive(number);
        }
    }

    /// Does what can be done for a client without waiting; one that fails is gone, there is nobody to tell.
    fn drive(&mut self, number: usize) {
        if let Some(mut client) = self.clients.remove(&number)
            && self.converse(number, &mut client).is_ok()
        {
            self.clients.insert(number, client);
        }
    }

    fn converse(&self, number: usize, client: &mut Client) -> io::Result<()> {
        loop {
            if !client.flush()? || client.asking.is_some() {
                return Ok(());
            }
            let Some(wire) = client.next()? else { return Ok(()) };
            let Wire { method, params, id } = wire;
            let strings: Option<Vec<String>> = params
                .into_iter()
                .map(|param| if let Value::String(text) = param { Some(text) } else { None })
                .collect();
            let Some(params) = strings else {
                let refused = format!("\"{method}\" command has non-string argument");
                client.unsent = wire::answer(&id, Err(refused));
                continue;
            };
            let (answers, waker) = (self.answers.clone(), Arc::clone(&self.waker));
            let reply = Reply { client: number, answers, waker, answered: false };
            client.asking = Some(id);
            match self.requests.try_send(Request { method, params, reply }) {
                Ok(()) => (self.wake)(),
                Err(TrySendError::Full(request)) => {
                    request.reply.answer(Err("too many commands are waiting; try again".to_owned()));
                }
                Err(TrySendError::Disconnected(request)) => drop(request),
            }
        }
    }
}
