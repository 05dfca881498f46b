//! The control thread's view of the workers: start, change, ask, stop.

use super::idle::Bulk;
use super::punt::{Injector, Punts};
use super::setup::Setup;
use super::thread::{Event, Outlets, Thread, WAKER};
use crossbeam_channel::{Receiver, Sender, bounded};
use mio::{Poll, Waker};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use vswitch_core::switch::Counters;

/// How long a change may take until a worker is called stuck. A worker's longest way to a command is one batch, and
/// what all its frames are flooded to.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) enum Command {
    Apply(Arc<Setup>, Sender<usize>),
    Snapshot(Sender<Snapshot>),
    Stop,
}

/// How a worker spends its time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Time not spent waiting.
    pub busy: Duration,
}

/// One worker's counts.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its number.
    pub worker: usize,
    /// What it counted.
    pub counters: Counters,
    /// How it spends its time.
    pub load: Load,
}

/// A worker did not answer in ten seconds, or has died.
#[derive(Debug, thiserror::Error)]
#[error("worker {worker} does not answer")]
pub struct StuckError {
    /// Its number.
    pub worker: usize,
}

struct Handle {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    thread: JoinHandle<io::Result<()>>,
}

/// All worker threads.
pub struct Workers {
    handles: Vec<Handle>,
    injector: Injector,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("count", &self.handles.len()).finish()
    }
}

impl Workers {
    /// Starts `count` threads with nothing to do. `events` are followed by a call of `wake_control`.
    ///
    /// # Errors
    /// When the kernel gives no thread or no epoll instance.
    pub fn start(
        count: usize,
        events: Sender<Event>,
        wake_control: Arc<dyn Fn() + Send + Sync>,
        punts: Punts,
    ) -> io::Result<Self> {
        let outlets = Outlets { events, wake_control, punts, bulk: Bulk::default() };
        let (mut handles, mut queues) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for number in 0..count {
            let poll = Poll::new()?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
            let (commands, receiver) = bounded(16);
            let (queue, injected) = Injector::queue();
            queues.push((queue, Arc::clone(&waker)));
            let worker = Thread::new(number, poll, (receiver, injected), outlets.clone());
            let thread =
                std::thread::Builder::new().name(format!("worker-{number}")).spawn(|| worker.run())?;
            handles.push(Handle { commands, waker, thread });
        }
        Ok(Self { handles, injector: Injector::new(queues) })
    }

    /// Where frames go that workers are to send on.
    #[must_use]
    pub fn injector(&self) -> Injector {
        self.injector.clone()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.handles.len()
    }

    /// Gives every worker `setup` and waits until each runs it: from then on nobody holds the one before.
    ///
    /// # Errors
    /// When a worker does not answer; the others run the new setup.
    pub fn apply(&self, setup: &Arc<Setup>) -> Result<(), StuckError> {
        let (done, acknowledged) = bounded(self.handles.len());
        self.tell(|| Command::Apply(Arc::clone(setup), done.clone()))?;
        self.collect(&acknowledged, |worker| *worker).map(|_| ())
    }

    /// Everybody's counts.
    ///
    /// # Errors
    /// When a worker does not answer.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, StuckError> {
        let (reply, replies) = bounded(self.handles.len());
        self.tell(|| Command::Snapshot(reply.clone()))?;
        let mut all = self.collect(&replies, |snapshot| snapshot.worker)?;
        all.sort_by_key(|snapshot| snapshot.worker);
        Ok(all)
    }

    /// A worker that has ended though nobody told it to.
    #[must_use]
    pub fn dead(&self) -> Option<usize> {
        self.handles.iter().position(|handle| handle.thread.is_finished())
    }

    /// Lets every worker send what it has and ends it.
    pub fn stop(self) {
        let _ = self.tell(|| Command::Stop);
        for handle in self.handles {
            // A worker that failed has nothing left to drain.
            let _ = handle.thread.join();
        }
    }

    fn tell(&self, command: impl Fn() -> Command) -> Result<(), StuckError> {
        let mut stuck = None;
        for (worker, handle) in self.handles.iter().enumerate() {
            if handle.commands.send_timeout(command(), PATIENCE).is_err() || handle.waker.wake().is_err() {
                stuck.get_or_insert(worker);
            }
        }
        stuck.map_or(Ok(()), |worker| Err(StuckError { worker }))
    }

    fn collect<T>(&self, from: &Receiver<T>, worker_of: impl Fn(&T) -> usize) -> Result<Vec<T>, StuckError> {
        let mut answers: Vec<T> = Vec::with_capacity(self.handles.len());
        for _ in &self.handles {
            match from.recv_timeout(PATIENCE) {
                Ok(answer) => answers.push(answer),
                Err(_) => {
                    let silent =
                        (0..self.handles.len()).find(|w| !answers.iter().any(|a| worker_of(a) == *w));
                    return Err(StuckError { worker: silent.unwrap_or(0) });
                }
            }
        }
        Ok(answers)
    }
}
