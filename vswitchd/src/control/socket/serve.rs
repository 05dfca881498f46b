//! The clients of the control socket: one thread each, which turns lines into requests and answers into lines.
//!
//! A request crosses to the control thread through a bounded channel and its answer comes back through a
//! channel of its own; these threads touch nothing else. The one call answered here is `hello`. Not here:
//! what the calls mean (see [`super::super::rpc`]) and what they do.

use super::Server;
use crate::control::rpc::{self, Call, RpcError};
use crate::sys::rights;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded, select};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How many clients may be connected at once.
pub const MAX_CONNECTIONS: usize = 256;
/// The longest line a client may send, in bytes, without its end.
pub const MAX_LINE_LEN: usize = 1 << 20;
/// How many requests may wait for the control thread: one per client.
pub const QUEUE_LEN: usize = MAX_CONNECTIONS;

/// How long a client may keep half a line to itself, or leave an answer unread.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// What the clients get to take their last answers when the server stops.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// A call on its way to the control thread.
#[derive(Debug)]
pub struct Request {
    /// What is asked for.
    pub call: Call,
    /// What came beside it by SCM_RIGHTS: as many descriptors as the call takes.
    pub descriptors: Vec<OwnedFd>,
    /// Where the answer goes; dropping it tells the client that there is none.
    pub reply: Sender<Result<Value, RpcError>>,
}

impl Request {
    /// Sends the answer; a client that has gone meanwhile does not matter.
    pub fn answer(self, answer: Result<Value, RpcError>) {
        drop(self.reply.try_send(answer));
    }
}

/// Called after each request was put into the channel.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// Gives the user that is at the other end of a connection (SO_PEERCRED, unix(7)).
pub type PeerUid = Box<dyn Fn(BorrowedFd<'_>) -> io::Result<u32> + Send + Sync>;

impl Server {
    /// Starts to serve: each request goes into `requests` (a channel with room for [`QUEUE_LEN`]), and `wake` is
    /// called after it. Only root and the daemon's own user are served, as `peer_uid` tells them.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn serve(self, requests: Sender<Request>, wake: Wake, peer_uid: PeerUid) -> io::Result<Serving> {
        let (alive, ended) = bounded(0);
        let (stop, stopped) = bounded(0);
        let shared = Arc::new(Shared {
            requests,
            wake,
            peer_uid,
            owner: self.owner,
            patience: self.patience,
            stopping: AtomicBool::new(false),
            stopped,
            clients: Mutex::default(),
        });
        let listener = self.listener.try_clone()?;
        let accepting = Arc::clone(&shared);
        thread::Builder::new()
            .name("control-accept".to_owned())
            .spawn(move || accept(&listener, &accepting, &alive))?;
        Ok(Serving { server: self, shared, stop: Some(stop), ended })
    }
}

/// A socket being served; dropping it stops.
#[derive(Debug)]
pub struct Serving {
    server: Server,
    shared: Arc<Shared>,
    /// Dropping it tells every thread that waits for the control thread.
    stop: Option<Sender<()>>,
    /// Disconnected when the last thread has ended.
    ended: Receiver<()>,
}

impl Serving {
    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.server.path()
    }

    /// Stops: nobody new is let in, answers already given are still delivered (for half a second), requests
    /// without one get an error. The socket file is removed if it is still ours.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.stop = None;
        // What ends accept(2) on Linux: a listening socket that is shut down.
        if let Ok(listener) = self.server.listener.try_clone() {
            drop(UnixStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both));
        }
        for how in [Shutdown::Read, Shutdown::Both] {
            for client in self.shared.clients().connected.values() {
                drop(client.stream.shutdown(how));
            }
            if self.ended.recv_timeout(LAST_WORDS) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }
}

struct Shared {
    requests: Sender<Request>,
    wake: Wake,
    peer_uid: PeerUid,
    owner: u32,
    patience: Duration,
    stopping: AtomicBool,
    stopped: Receiver<()>,
    clients: Mutex<Clients>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("owner", &self.owner)
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Clients {
    connected: HashMap<u64, Client>,
    /// Counts connections and requests: what has the smaller number was longer ago.
    turn: u64,
}

#[derive(Debug)]
struct Client {
    stream: Arc<UnixStream>,
    /// When it connected or last asked.
    turn: u64,
    /// Whether the control thread has a request of it.
    asking: bool,
}

impl Clients {
    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// Makes room for one more, at the cost of whoever was idle longest; `false` when nobody is.
    fn make_room(&mut self) -> bool {
        if self.connected.len() < MAX_CONNECTIONS {
            return true;
        }
        let idle = self.connected.iter().filter(|(_, client)| !client.asking);
        let Some(longest) = idle.min_by_key(|(_, client)| client.turn).map(|(id, _)| *id) else {
            return false;
        };
        if let Some(client) = self.connected.remove(&longest) {
            drop(client.stream.shutdown(Shutdown::Both));
        }
        true
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        // Every change under the lock is whole, so a panic elsewhere leaves nothing half done.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, stream: &UnixStream) -> Result<(), RpcError> {
        match (self.peer_uid)(stream.as_fd()) {
            Ok(uid) if uid == 0 || uid == self.owner => Ok(()),
            Ok(uid) => Err(RpcError::unavailable(format!(
                "user {uid} may not use this socket; only root and user {} may",
                self.owner
            ))),
            Err(error) => Err(RpcError::unavailable(format!("cannot tell who is connecting: {error}"))),
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>, alive: &Sender<()>) {
    loop {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok((stream, _)) = accepted else {
            // Out of descriptors or memory: the client waits in the backlog until there are some again.
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let Err(refusal) = start(stream, shared, alive) else { continue };
        let (mut stream, error) = *refusal;
        drop(stream.set_nonblocking(true));
        drop(stream.write_all(&line(&failure(&Value::Null, &error))));
    }
}

/// Starts the thread of a client, or gives the client back with what to tell it.
fn start(
    stream: UnixStream,
    shared: &Arc<Shared>,
    alive: &Sender<()>,
) -> Result<(), Box<(UnixStream, RpcError)>> {
    if let Err(error) = shared.admit(&stream) {
        return Err(Box::new((stream, error)));
    }
    let stream = Arc::new(stream);
    let id = {
        let mut clients = shared.clients();
        if !clients.make_room() {
            drop(clients);
            let busy = format!("{MAX_CONNECTIONS} clients are waiting for answers; try again");
            return match Arc::into_inner(stream) {
                Some(stream) => Err(Box::new((stream, RpcError::unavailable(busy)))),
                None => Ok(()),
            };
        }
        let turn = clients.next_turn();
        clients.connected.insert(turn, Client { stream: Arc::clone(&stream), turn, asking: false });
        turn
    };
    let (serving, alive) = (Arc::clone(shared), alive.clone());
    let spawned = thread::Builder::new().name("control-client".to_owned()).spawn(move || {
        // A client that fails is gone; there is nobody to tell.
        drop(
            Conversation {
                id,
                stream: &stream,
                shared: &serving,
                read: Vec::new(),
                descriptors: Vec::new(),
                searched: 0,
            }
            .run(),
        );
        drop(stream.shutdown(Shutdown::Both));
        serving.clients().connected.remove(&id);
        drop(alive);
    });
    if spawned.is_err() {
        shared.clients().connected.remove(&id);
    }
    Ok(())
}

/// A request as it stands on the wire.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    jsonrpc: String,
    method: String,
    #[serde(default)]
    params: Value,
    /// Absent in a notification; an explicit null is an id.
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn failure(id: &Value, error: &RpcError) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": error})
}

fn line(answer: &Value) -> Vec<u8> {
    let mut line = answer.to_string().into_bytes();
    line.push(b'\n');
    line
}

enum Next {
    Line(Vec<u8>),
    TooLong,
    Late,
    End,
}

struct Conversation<'a> {
    id: u64,
    stream: &'a UnixStream,
    shared: &'a Shared,
    /// Read and not yet used.
    read: Vec<u8>,
    /// Arrived with it, for the next line that ends.
    descriptors: Vec<OwnedFd>,
    /// How much of it is known to hold no end of line.
    searched: usize,
}

impl Conversation<'_> {
    fn run(mut self) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.shared.patience))?;
        loop {
            let answer = match self.next()? {
                Next::End => return Ok(()),
                Next::Line(line) if line.trim_ascii().is_empty() => continue,
                Next::Line(line) => self.answer(&line),
                Next::TooLong => {
                    let error = RpcError::request(format!("the line is longer than {MAX_LINE_LEN} bytes"));
                    return self.write(&failure(&Value::Null, &error));
                }
                Next::Late => {
                    let error = RpcError::request("the rest of the line did not come in time");
                    return self.write(&failure(&Value::Null, &error));
                }
            };
            if let Some(answer) = answer {
                self.write(&answer)?;
            }
        }
    }

    fn write(&self, answer: &Value) -> io::Result<()> {
        let mut stream = self.stream;
        stream.write_all(&line(answer))
    }

    /// The next line, without its end. Half a line before the end of the stream is none.
    fn next(&mut self) -> io::Result<Next> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(at) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') {
                let end = self.searched + at;
                if end > MAX_LINE_LEN {
                    return Ok(Next::TooLong);
                }
                let rest = self.read.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.read, rest);
                line.truncate(end);
                self.searched = 0;
                return Ok(Next::Line(line));
            }
            self.searched = self.read.len();
            if self.searched > MAX_LINE_LEN {
                return Ok(Next::TooLong);
            }
            // Silence between lines may last; silence within one may not.
            self.stream.set_read_timeout((self.searched > 0).then_some(self.shared.patience))?;
            match rights::receive(self.stream, &mut chunk) {
                Ok((0, _)) => return Ok(Next::End),
                Ok((len, descriptors)) => {
                    self.read.extend_from_slice(&chunk[..len]);
                    self.descriptors.extend(descriptors);
                    if self.descriptors.len() > rights::DESCRIPTORS {
                        return Err(ErrorKind::InvalidData.into());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(Next::Late);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The answer to a line; a notification has none.
    fn answer(&mut self, line: &[u8]) -> Option<Value> {
        let descriptors = std::mem::take(&mut self.descriptors);
        let parsed: Value = match serde_json::from_slice(line) {
            Ok(parsed) => parsed,
            Err(error) => {
                return Some(failure(&Value::Null, &RpcError::parse(format!("not JSON: {error}"))));
            }
        };
        if parsed.is_array() {
            let error = RpcError::request("batches are not supported; send one request per line");
            return Some(failure(&Value::Null, &error));
        }
        let id = parsed.get("id").filter(|id| id.is_string() || id.is_number()).cloned();
        let refuse = |text: String| Some(failure(&id.unwrap_or_default(), &RpcError::request(text)));
        let request: Wire = match serde_json::from_value(parsed) {
            Ok(request) => request,
            Err(error) => return refuse(format!("not a request: {error}")),
        };
        if request.jsonrpc != "2.0" {
            return refuse(format!("jsonrpc is {:?}; expected \"2.0\"", request.jsonrpc));
        }
        if request.id.as_ref().is_some_and(|id| !(id.is_string() || id.is_number() || id.is_null())) {
            return refuse("an id is a string or a number".to_owned());
        }
        if !(request.params.is_null() || request.params.is_object() || request.params.is_array()) {
            return refuse("params is an object".to_owned());
        }
        let result = self.call(&request.method, request.params, descriptors);
        let id = request.id?;
        Some(match result {
            Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
            Err(error) => failure(&id, &error),
        })
    }

    fn call(&self, method: &str, params: Value, descriptors: Vec<OwnedFd>) -> Result<Value, RpcError> {
        if method == "hello" {
            rpc::none(method, params)?;
            self.set_asking(false);
            return Ok(json!({
                "protocol": rpc::PROTOCOL,
                "version": env!("CARGO_PKG_VERSION"),
                "features": rpc::FEATURES,
            }));
        }
        let call = Call::parse(method, params)?;
        let (least, most) = call.descriptors();
        if !(least..=most).contains(&descriptors.len()) {
            let came = descriptors.len();
            return Err(RpcError::params(format!(
                "{method}: takes {least} to {most} descriptors; {came} came with it"
            )));
        }
        let stopping = || RpcError::unavailable("the daemon is stopping");
        let (reply, answer) = bounded(1);
        self.set_asking(true);
        let sent = self.shared.requests.try_send(Request { call, descriptors, reply });
        let result = match sent {
            Err(TrySendError::Full(_)) => {
                Err(RpcError::unavailable("too many requests are waiting; try again"))
            }
            Err(TrySendError::Disconnected(_)) => Err(stopping()),
            Ok(()) => {
                (self.shared.wake)();
                select! {
                    recv(answer) -> answer => answer.unwrap_or_else(|_| Err(stopping())),
                    // Nothing is ever sent here: it ends when the server does.
                    recv(self.shared.stopped) -> _ => answer.try_recv().unwrap_or_else(|_| Err(stopping())),
                }
            }
        };
        self.set_asking(false);
        result
    }

    fn set_asking(&self, asking: bool) {
        let mut clients = self.shared.clients();
        let turn = clients.next_turn();
        if let Some(client) = clients.connected.get_mut(&self.id) {
            client.asking = asking;
            client.turn = turn;
        }
    }
}
