//! The thread that ovs-ofctl talks to: a socket for each bridge and any number of clients, none of whom it waits for.
//!
//! Hello, echo and what belongs to one connection are answered here; the rest goes to the control thread, changes of
//! flows many at a time. A client has one such request on its way; what it sends meanwhile stays in the kernel. Whoever
//! does not say hello, sends what the protocol does not know, keeps half a message to itself or leaves an answer unread
//! is disconnected, as is whoever was idle longest when there are too many. Not here: what the messages do.

use super::super::stream;
use super::codec::{HEADER_LEN, Message, REPEATED, Refusal, Writer, decode, has_version, kind, split};
use crate::datapath::clock;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use vswitch_core::Instant;

/// How many clients may be connected at once, over all bridges.
pub const MAX_CLIENTS: usize = 64;
/// How many messages a request has at most.
pub const MAX_BATCH: usize = 256;
/// How long a client may keep half a message to itself, be silent at first, or leave an answer unread.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nobody is let in when descriptors have run out.
const BREATH: Duration = Duration::from_millis(50);
/// How many messages of one client are looked at before it is others' turn.
const TURN: usize = 256;

const WAKER: Token = Token(usize::MAX);

/// A message that the control thread is to answer.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it says.
    pub message: Message,
    /// Its beginning, header and all, for an error.
    pub beginning: Vec<u8>,
}

impl Asked {
    /// The number that the answer repeats.
    #[must_use]
    pub fn xid(&self) -> u32 {
        xid_of(&self.beginning)
    }
}

fn xid_of(message: &[u8]) -> u32 {
    let bytes = message.get(4..HEADER_LEN).and_then(|bytes| bytes.try_into().ok());
    u32::from_be_bytes(bytes.unwrap_or_default())
}

/// Messages of one client, on their way to the control thread: changes of flows, and behind them one other at most.
#[derive(Debug)]
pub struct Request {
    /// The bridge that is meant.
    pub bridge: String,
    /// The messages, in the order in which they came.
    pub messages: Vec<Asked>,
    /// Where the answers go.
    pub reply: Reply,
}

/// Where the answer to a [`Request`] goes. Dropping it ends the connection.
#[derive(Debug)]
pub struct Reply {
    client: usize,
    answers: Sender<(usize, Option<Vec<u8>>)>,
    waker: Arc<Waker>,
    answered: bool,
}

impl Reply {
    /// Sends the answers to all messages, which may be nothing; a client that has gone meanwhile does not matter.
    pub fn answer(mut self, answers: Vec<u8>) {
        self.send(Some(answers));
    }

    fn send(&mut self, answers: Option<Vec<u8>>) {
        self.answered = true;
        // Nobody is there to take it once the server has stopped.
        drop(self.answers.send((self.client, answers)));
        drop(self.waker.wake());
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.send(None);
        }
    }
}

/// A change of what is listened on.
enum Order {
    Open { bridge: String, listener: std::os::unix::net::UnixListener, owner: u32 },
    Close { bridge: String },
}

/// The server; dropping it ends all connections.
#[derive(Debug)]
pub struct Serving {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// Starts one that listens nowhere yet: requests come out of the channel, and `wake` is called after each.
    ///
    /// # Errors
    /// When there is no thread or no poll to be had.
    pub fn start(wake: Arc<dyn Fn() + Send + Sync>) -> io::Result<(Self, Receiver<Request>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let stopping = Arc::new(AtomicBool::new(false));
        let (requests, asked) = bounded(MAX_CLIENTS);
        let (orders, ordered) = unbounded();
        // No more answers are on their way than requests were let in.
        let (answers, answered) = unbounded();
        let mut server = Server {
            poll,
            listeners: BTreeMap::new(),
            clients: BTreeMap::new(),
            again: BTreeSet::new(),
            next: 0,
            requests,
            answers,
            waker: Arc::clone(&waker),
            wake,
            pause_until: None,
        };
        let until = Arc::clone(&stopping);
        let run = move || server.run(&ordered, &answered, &until);
        let thread = thread::Builder::new().name("openflow".to_owned()).spawn(run)?;
        Ok((Self { orders, waker, stopping, thread: Some(thread) }, asked))
    }

    /// Lets clients of `bridge` in at `listener`, which does not block: `owner`, a user, and root.
    pub fn open(&self, bridge: &str, listener: std::os::unix::net::UnixListener, owner: u32) {
        self.order(Order::Open { bridge: bridge.to_owned(), listener, owner });
    }

    /// Lets nobody in for `bridge` any more, and ends its connections.
    pub fn close(&self, bridge: &str) {
        self.order(Order::Close { bridge: bridge.to_owned() });
    }

    fn order(&self, order: Order) {
        // A thread that has ended has nothing to open or close.
        drop(self.orders.send(order));
        drop(self.waker.wake());
    }
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

struct Listener {
    listener: UnixListener,
    bridge: String,
    /// Who may connect beside root.
    owner: u32,
}

struct Client {
    stream: UnixStream,
    bridge: String,
    /// What has come and was not looked at yet.
    unread: Vec<u8>,
    /// What it has not taken yet.
    unsent: Vec<u8>,
    /// Whether it has said hello, and speaks our version.
    greeted: bool,
    /// Whether it was told that it cannot be spoken to: it hears no more, and goes by itself or when patience ends.
    leaving: bool,
    /// Whether the control thread has a request of it.
    asking: bool,
    /// What it said of how much of a frame a controller gets.
    miss_send_len: u16,
    /// Whether its changes of flows say which table they mean.
    table_ids: bool,
    /// When it last did something.
    since: Instant,
}

impl Client {
    /// When it has tried the patience of the server; never while it is idle or waits for an answer.
    fn deadline(&self) -> Option<Instant> {
        let owes = !self.unsent.is_empty() || (!self.asking && (!self.greeted || !self.unread.is_empty()));
        owes.then(|| self.since.after(PATIENCE))
    }

    /// Sends what is unsent; `false` when there is still some.
    fn flush(&mut self) -> io::Result<bool> {
        if stream::send(&self.stream, &mut self.unsent)? {
            self.since = clock::now();
        }
        Ok(self.unsent.is_empty())
    }

    /// Whether there is a whole message among what is unread, after reading as far as that takes.
    fn has_message(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if split(&self.unread).map_err(|_| io::Error::from(ErrorKind::InvalidData))?.is_some() {
                return Ok(true);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => {
                    // Patience is counted from the beginning of a message, however slowly the rest drips.
                    if self.unread.is_empty() && self.greeted {
                        self.since = clock::now();
                    }
                    self.unread.extend_from_slice(&chunk[..len]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what is answered here or by nobody off what is unread and answers it; collects what the control thread
    /// is to answer. At most `most` messages.
    fn sort(&mut self, most: usize) -> io::Result<Vec<Asked>> {
        let mut asked: Vec<Asked> = Vec::new();
        let mut writer = Writer::default();
        let mut taken = 0;
        for _ in 0..most {
            let Ok(Some(bytes)) = split(&self.unread[taken..]) else { break };
            if !self.greeted {
                if bytes[1] != kind::HELLO {
                    return Err(ErrorKind::InvalidData.into());
                }
                taken += bytes.len();
                if !has_version(bytes) {
                    let refusal = Refusal::incompatible("only OpenFlow 1.0 is spoken here");
                    writer.hello_failed(xid_of(bytes), refusal);
                    self.leaving = true;
                    break;
                }
                self.greeted = true;
                continue;
            }
            let decoded = decode(bytes, self.table_ids);
            // What is answered here waits for the answers to what came before.
            let here = !matches!(
                decoded,
                Ok(Message::Features
                    | Message::FlowMod(_)
                    | Message::PortMod(_)
                    | Message::Stats(_)
                    | Message::Barrier)
            );
            if here && !asked.is_empty() {
                break;
            }
            match decoded {
                Ok(Message::Ignored) => {}
                Ok(Message::Echo) => writer.echo(bytes),
                Ok(Message::GetConfig) => writer.config(xid_of(bytes), self.miss_send_len),
                Ok(Message::Queues(port)) => writer.no_queues(xid_of(bytes), port),
                Ok(Message::SetConfig { miss_send_len }) => self.miss_send_len = miss_send_len,
                Ok(Message::FlowModTableId(table_ids)) => self.table_ids = table_ids,
                Ok(message) => {
                    asked.push(Asked { message, beginning: bytes[..bytes.len().min(REPEATED)].to_vec() });
                }
                Err(refusal) => {
                    super::note_refusal(&self.bridge, refusal);
                    writer.error(refusal, bytes);
                }
            }
            taken += bytes.len();
            let last = asked.last().map(|asked| &asked.message);
            if last.is_some_and(|message| !matches!(message, Message::FlowMod(_))) || asked.len() >= MAX_BATCH
            {
                break;
            }
        }
        self.unread.drain(..taken);
        self.unsent.extend(writer.into_bytes());
        Ok(asked)
    }
}

struct Server {
    poll: Poll,
    /// By token, as are the clients.
    listeners: BTreeMap<usize, Listener>,
    clients: BTreeMap<usize, Client>,
    /// Clients that said more than one turn takes.
    again: BTreeSet<usize>,
    next: usize,
    requests: Sender<Request>,
    answers: Sender<(usize, Option<Vec<u8>>)>,
    waker: Arc<Waker>,
    wake: Arc<dyn Fn() + Send + Sync>,
    /// Until then nobody is let in.
    pause_until: Option<Instant>,
}

impl Server {
    fn run(
        &mut self,
        ordered: &Receiver<Order>,
        answered: &Receiver<(usize, Option<Vec<u8>>)>,
        stopping: &AtomicBool,
    ) {
        let mut events = Events::with_capacity(MAX_CLIENTS + 8);
        while !stopping.load(Ordering::SeqCst) {
            let now = clock::now();
            self.clients.retain(|_, client| client.deadline().is_none_or(|deadline| now < deadline));
            if self.pause_until.is_some_and(|until| until <= now) {
                self.pause_until = None;
                self.accept_all();
            }
            let due = self.clients.values().filter_map(Client::deadline).chain(self.pause_until).min();
            let wait = due.map(|due| due.since(clock::now()).max(Duration::from_millis(1)));
            let wait = if self.again.is_empty() { wait } else { Some(Duration::ZERO) };
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return,
                _ => {}
            }
            let mut ready = std::mem::take(&mut self.again);
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(number) if self.listeners.contains_key(&number) => self.accept_all(),
                    Token(number) => drop(ready.insert(number)),
                }
            }
            while let Ok(order) = ordered.try_recv() {
                self.obey(order);
            }
            while let Ok((number, answers)) = answered.try_recv() {
                let Some(client) = self.clients.get_mut(&number) else { continue };
                client.asking = false;
                match answers {
                    Some(answers) => {
                        client.unsent.extend(answers);
                        client.since = clock::now();
                        ready.insert(number);
                    }
                    None => drop(self.clients.remove(&number)),
                }
            }
            for number in ready {
                self.drive(number);
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Open { bridge, listener, owner } => {
                let mut listener = UnixListener::from_std(listener);
                let number = self.number();
                if self.poll.registry().register(&mut listener, Token(number), Interest::READABLE).is_ok() {
                    self.listeners.insert(number, Listener { listener, bridge, owner });
                    self.accept_all();
                }
            }
            Order::Close { bridge } => {
                self.listeners.retain(|_, listener| listener.bridge != bridge);
                self.clients.retain(|_, client| client.bridge != bridge);
            }
        }
    }

    const fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    fn accept_all(&mut self) {
        let numbers: Vec<usize> = self.listeners.keys().copied().collect();
        for number in numbers {
            while let Some(Listener { listener, bridge, owner }) = self.listeners.get(&number) {
                match stream::accept(listener, *owner) {
                    Ok(Some(stream)) => {
                        let bridge = bridge.clone();
                        self.admit(stream, bridge);
                    }
                    Ok(None) => break,
                    Err(_) => {
                        self.pause_until = Some(clock::now().after(BREATH));
                        break;
                    }
                }
            }
        }
    }

    fn admit(&mut self, mut stream: UnixStream, bridge: String) {
        if self.clients.len() >= MAX_CLIENTS {
            let idle = self.clients.iter().filter(|(_, client)| !client.asking);
            let longest =
                idle.min_by_key(|(number, client)| (client.since, **number)).map(|(number, _)| *number);
            // All are waiting for answers: this one will try again.
            let Some(longest) = longest else { return };
            self.clients.remove(&longest);
        }
        let number = self.number();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(number), interest).is_ok() {
            let mut hello = Writer::default();
            hello.hello();
            let client = Client {
                stream,
                bridge,
                unread: Vec::new(),
                unsent: hello.into_bytes(),
                greeted: false,
                leaving: false,
                asking: false,
                miss_send_len: 0,
                table_ids: false,
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

    fn converse(&mut self, number: usize, client: &mut Client) -> io::Result<()> {
        if !client.flush()? || client.asking {
            return Ok(());
        }
        if client.leaving {
            // Whether it has gone; whatever else it says, nobody listens.
            return match client.stream.read(&mut [0; 1024]) {
                Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                Err(error) => Err(error),
            };
        }
        if !client.has_message()? {
            return Ok(());
        }
        let messages = client.sort(TURN)?;
        if messages.is_empty() {
            // What was answered here is sent, and the rest read, when it is this one's turn again.
            self.again.insert(number);
            return Ok(());
        }
        // What was answered here does not wait for the control thread.
        client.flush()?;
        let (answers, waker) = (self.answers.clone(), Arc::clone(&self.waker));
        let reply = Reply { client: number, answers, waker, answered: false };
        client.asking = true;
        match self.requests.try_send(Request { bridge: client.bridge.clone(), messages, reply }) {
            Ok(()) => (self.wake)(),
            // As many as there are clients wait already, or the daemon is stopping.
            Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) => drop(request),
        }
        Ok(())
    }
}
