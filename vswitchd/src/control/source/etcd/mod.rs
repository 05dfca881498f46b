//! etcd as a source: this node's keys are kept there under a lease, and others' keys are watched.
//!
//! [`Etcd`] is a handle on one thread that speaks etcd's gRPC interface, version 3 (etcd 3.4 upwards). What is
//! wanted is declared, not done: it becomes true as soon as there is an etcd, and again after each outage. Not
//! here: what keys and values mean (the cluster room).

mod client;
mod messages;
mod outbox;
mod session;
mod wanted;
mod watching;

use self::outbox::Outbox;
use self::session::Sessions;
use self::wanted::{Wanted, Wish};
use crate::cluster::KeyRange;
use crate::config::Cluster;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long dropping the handle waits for the lease to be ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the store tells. Events of one answer of etcd come in one batch, in etcd's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// The store answers, all ranges are listed and all own keys written; once after each [`StoreEvent::Down`],
    /// and once in the beginning, not before the first [`Etcd::watch`].
    Up,
    /// The store does not answer, or does not let us write; once for each outage.
    Down {
        /// Why, for people.
        reason: String,
    },
    /// All that there is in a range: after it was asked for, after each outage, and after history was forgotten.
    /// Nothing is to be thought deleted before this says so. Keys that are not UTF-8 are left out here and below.
    Listed {
        /// The range, as it was asked for.
        range: KeyRange,
        /// Keys, sorted, with values of up to 1.5 MiB that anybody may have written.
        entries: Vec<(String, Vec<u8>)>,
    },
    /// A key has this value now.
    Put {
        /// The key.
        key: String,
        /// The value, of up to 1.5 MiB.
        value: Vec<u8>,
    },
    /// A key is gone.
    Deleted {
        /// The key.
        key: String,
    },
}

/// A node's side of the store. Dropping it ends the lease, with it all keys of this node, and the thread; when no
/// etcd answers that takes a second at most, and the keys go when the lease runs out.
#[derive(Debug)]
pub struct Etcd {
    wanted: Arc<Wanted>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread's work is done.
    done: Receiver<()>,
}

impl Etcd {
    /// Starts the thread. `events` should be bounded: when it is full, watching waits. After each batch that was
    /// sent `wake` is called, from the thread.
    ///
    /// # Errors
    /// An endpoint that is none, a file of certificates that cannot be read, or no thread to be had. An etcd that
    /// is not there is none: it may come.
    pub fn start(
        config: &Cluster,
        events: Sender<Vec<StoreEvent>>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Self> {
        let wrong = |reason: String| Error::new(ErrorKind::InvalidInput, reason);
        if config.etcd.is_empty() {
            return Err(wrong("no endpoint of etcd".to_owned()));
        }
        for endpoint in &config.etcd {
            client::dial(endpoint, config).map_err(wrong)?;
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().thread_name("etcd").build()?;
        let wanted = Arc::new(Wanted::default());
        let (alive, done) = bounded(0);
        let (config, theirs) = (config.clone(), Arc::clone(&wanted));
        let thread = std::thread::Builder::new().name("etcd".to_owned()).spawn(move || {
            let sessions = Sessions::new(config, theirs, Outbox::new(events, wake));
            runtime.block_on(sessions.run());
            // A name that is still being looked up is not waited for.
            runtime.shutdown_background();
            drop(alive);
        })?;
        Ok(Self { wanted, thread: Some(thread), done })
    }

    /// Wants `value` at `key`, under this node's lease, from now on: it is written again whenever it is lost, and
    /// the last value counts. Not more than 1 MiB, which is less than etcd refuses.
    pub fn put(&self, key: String, value: Vec<u8>) {
        self.wanted.want(key, Wish::Keep(value));
    }

    /// No longer wants `key`, and deletes it, whoever wrote it.
    pub fn delete(&self, key: String) {
        self.wanted.want(key, Wish::Delete);
    }

    /// Gives `key` the value `value` as soon as there is a store, under no lease, unless the key has one by then:
    /// of all who claim it, one succeeds. Who watches the key learns who. The last wish for a key counts.
    pub fn claim(&self, key: String, value: Vec<u8>) {
        self.wanted.want(key, Wish::Claim(value));
    }

    /// Deletes `key` as soon as there is a store, if it has this value then.
    pub fn release(&self, key: String, value: Vec<u8>) {
        self.wanted.want(key, Wish::Release(value));
    }

    /// Wants these ranges watched, which must not overlap: new ones are listed, those that are not among them
    /// are no longer heard of. None at all is a wish too.
    pub fn watch(&self, ranges: Vec<KeyRange>) {
        self.wanted.watch(ranges);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.wanted.stop.notify_one();
        // Nothing is ever sent: this ends when the other end is dropped, or after the time.
        let ended =
            self.done.recv_timeout(FAREWELL) == Err(crossbeam_channel::RecvTimeoutError::Disconnected);
        if let Some(thread) = self.thread.take().filter(|_| ended) {
            let _ = thread.join();
        }
    }
}
