//! A node: this program again as a daemon, in its node's network namespace, with a /run and a /var/lib of its own.
//!
//! The child enters its place itself, while it has one thread, and then becomes `vswitchd --config FILE --node
//! NAME`, as anybody would start it. It is told where by its environment.

use super::Event;
use super::place::{FILE, SHARED, cover};
use crate::ctl;
use crate::sys::netns::{self, Kinds};
use crate::sys::process;
use anyhow::{Context as _, bail};
use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Asks a child for the daemon of this node. Nobody else's business.
const NODE: &str = "VSWITCHD_DEMO_NODE";
/// The process number of the demo.
const PARENT: &str = "VSWITCHD_DEMO_PARENT";

/// Lines of a daemon's log that are kept.
const KEPT: usize = 20;

/// Which daemon this process is asked to become.
#[derive(Debug)]
pub(super) struct Request {
    node: String,
    parent: u32,
}

/// What the environment asks for; `None` in the process that somebody started.
pub(super) fn requested() -> Option<Request> {
    let parent = std::env::var(PARENT).ok()?.parse().ok()?;
    Some(Request { node: std::env::var(NODE).ok()?, parent })
}

/// Enters the node's place and becomes its daemon; returns only when that fails.
pub(super) fn become_daemon(request: &Request) -> anyhow::Result<()> {
    let node = &request.node;
    let namespace = netns::open(node).context("opening the node's namespace")?;
    netns::enter(namespace.as_fd())?;
    drop(namespace);
    netns::unshare(Kinds { mount: true, ..Kinds::default() })?;
    for at in ["/run", "/var/lib"] {
        cover(Path::new(at), &[netns::DIRECTORY, SHARED]).with_context(|| format!("covering {at}"))?;
    }
    process::end_with(request.parent)?;
    let error = Command::new(std::env::current_exe()?)
        .args(["--config", FILE, "--node", node])
        .env_remove(NODE)
        .env_remove(PARENT)
        .env("NOTIFY_SOCKET", ready_socket(node))
        .exec();
    Err(error).context("starting vswitchd")
}

/// Where the daemon of `node` says `READY=1` (sd_notify(3)).
fn ready_socket(node: &str) -> PathBuf {
    Path::new(SHARED).join(format!("{node}.ready"))
}

/// What a daemon has said.
#[derive(Debug, Default)]
struct Log {
    last: VecDeque<String>,
    ended: bool,
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    child: Child,
    log: Arc<Mutex<Log>>,
}

impl Node {
    /// Starts the daemon of node `number`. What becomes of it is sent to `events`.
    pub(super) fn start(number: usize, name: &str, events: &Sender<Event>) -> anyhow::Result<Self> {
        let ready = UnixDatagram::bind(ready_socket(name)).context("listening for its readiness")?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("demo")
            .env(NODE, name)
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take();
        let node = Self { name: name.to_owned(), child, log: Arc::default() };
        let sender = events.clone();
        thread::Builder::new().name("ready".into()).spawn(move || {
            let mut bytes = [0; 64];
            while let Ok(len) = ready.recv(&mut bytes) {
                if bytes[..len].starts_with(b"READY=1") {
                    // Nobody listens only when the demo is ending.
                    let _ = sender.send(Event::Ready(number));
                    return;
                }
            }
        })?;
        let (log, sender) = (Arc::clone(&node.log), events.clone());
        let stderr = stderr.context("taking its log")?;
        thread::Builder::new().name("log".into()).spawn(move || {
            collect(stderr, &log);
            let _ = sender.send(Event::Ended(number));
        })?;
        Ok(node)
    }

    /// Its process number.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its control socket, as seen from here.
    pub(super) fn socket(&self) -> PathBuf {
        let within = ctl::DEFAULT_SOCKET;
        PathBuf::from(format!("/proc/{}/root{within}", self.pid()))
    }

    /// Whether it answers `vswitchctl status`.
    pub(super) fn ask_status(&self) -> anyhow::Result<()> {
        ask(&self.socket(), &["status"])
            .with_context(|| format!("vswitchd on {} says it is ready", self.name))
            .map(drop)
    }

    pub(super) fn ask_to_end(&mut self) -> io::Result<()> {
        process::ask_to_end(&mut self.child)
    }

    pub(super) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Whether it has closed its log.
    pub(super) fn log_ended(&self) -> bool {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).ended
    }

    /// The end of its log.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).last.iter().cloned().collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stderr: ChildStderr, log: &Mutex<Log>) {
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.last.len() == KEPT {
            log.last.pop_front();
        }
        log.last.push_back(String::from_utf8_lossy(&line).into_owned());
    }
    log.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
}

/// What `vswitchctl` says to `words`.
pub(super) fn ask(socket: &Path, words: &[&str]) -> anyhow::Result<String> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut args = vec!["--socket".into(), socket.as_os_str().to_owned()];
    args.extend(words.iter().map(Into::into));
    if ctl::run(args, None, &mut out, &mut err) != ctl::EXIT_GOOD {
        bail!("{}", String::from_utf8_lossy(&err).trim());
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}
