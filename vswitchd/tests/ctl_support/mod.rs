//! What the tests of the control socket and of `vswitchctl` share: a place of their own and a control thread
//! that only pretends. The real daemon is tested elsewhere.
#![allow(dead_code, reason = "each test program uses its part of this")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, thread};
use vswitchd::control::rpc::{Call, RpcError};
use vswitchd::control::socket::{PeerUid, QUEUE_LEN, Request, Server, Serving};

/// A directory that goes with the value.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vswitch-ctl-{}-{count}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Whoever connects is this user, as far as the server is told.
pub(crate) fn everybody_is_us() -> PeerUid {
    let us = fs::metadata("/proc/self").unwrap().uid();
    Box::new(move |_| Ok(us))
}

/// What the pretended control thread does with a call: answer, or keep the client waiting.
pub(crate) enum Act {
    Answer(Result<Value, RpcError>),
    Hold,
}

pub(crate) struct Fake {
    pub(crate) place: Place,
    serving: Option<Serving>,
    pub(crate) calls: Arc<Mutex<Vec<Call>>>,
    pub(crate) held: Arc<Mutex<Vec<Request>>>,
    pub(crate) wakes: Arc<AtomicUsize>,
}

impl Fake {
    pub(crate) fn new(act: impl FnMut(&Call) -> Act + Send + 'static) -> Self {
        Self::with(Duration::from_secs(10), everybody_is_us(), act)
    }

    pub(crate) fn with(
        patience: Duration,
        peer_uid: PeerUid,
        mut act: impl FnMut(&Call) -> Act + Send + 'static,
    ) -> Self {
        let place = Place::new();
        let (requests, incoming) = crossbeam_channel::bounded::<Request>(QUEUE_LEN);
        let (calls, held) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let wakes = Arc::new(AtomicUsize::new(0));
        let woken = Arc::clone(&wakes);
        let wake = Box::new(move || {
            woken.fetch_add(1, Ordering::Relaxed);
        });
        let server = Server::bind(place.socket()).unwrap().patience(patience);
        let serving = server.serve(requests, wake, peer_uid).unwrap();
        let (seen, waiting) = (Arc::clone(&calls), Arc::clone(&held));
        thread::spawn(move || {
            for request in incoming {
                seen.lock().unwrap().push(request.call.clone());
                match act(&request.call) {
                    Act::Answer(answer) => request.answer(answer),
                    Act::Hold => waiting.lock().unwrap().push(request),
                }
            }
        });
        Self { place, serving: Some(serving), calls, held, wakes }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.place.socket()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.socket())
    }

    pub(crate) fn stop(&mut self) {
        self.serving.take().unwrap().stop();
    }

    /// Waits until `count` requests are held.
    pub(crate) fn until_held(&self, count: usize) {
        for _ in 0..2_000 {
            if self.held.lock().unwrap().len() >= count {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("{} requests are held, not {count}", self.held.lock().unwrap().len());
    }
}

/// A client that speaks raw lines. Nothing takes longer than 20 s.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The next answer; `None` when the server has closed.
    pub(crate) fn answer(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            other => {
                other.unwrap();
                Some(serde_json::from_str(&line).unwrap())
            }
        }
    }

    pub(crate) fn ask(&mut self, line: &str) -> Value {
        self.send(format!("{line}\n"));
        self.answer().expect("the server closed")
    }

    /// Asks for `status`, in the fewest words.
    pub(crate) fn status(&mut self) -> Value {
        self.ask(r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#)
    }
}
