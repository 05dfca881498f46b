//! The thread's work: sessions with one etcd after another, each until it fails; in each the lease is kept, wanted
//! keys are written and ranges watched, all three at once.

use super::StoreEvent;
use super::client::{Client, reason, wants_token};
use super::outbox::Outbox;
use super::wanted::{Wanted, transaction};
use super::watching::Watcher;
use crate::config::Cluster;
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

/// The lease is refreshed three times in its life, and at least this often: see the pings in `client.rs`.
pub(super) const KEEP_ALIVE_AT_MOST: Duration = Duration::from_secs(4);
/// The wait after all endpoints failed: the first one, and the longest that it doubles to.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// How long the lease's end may take when the handle is dropped.
const REVOKE: Duration = Duration::from_millis(800);

/// What the sessions share.
pub(super) struct Sessions {
    config: Cluster,
    wanted: Arc<Wanted>,
    outbox: Outbox,
    /// Ours, as far as we know; it outlives a session.
    lease: Cell<Option<i64>>,
    /// The present session's, or the last one's.
    client: RefCell<Option<Rc<Client>>>,
    /// Whether all ranges are listed, and all keys written, in this session.
    listed: Cell<bool>,
    written: Cell<bool>,
    /// What control was told last; `None`: nothing yet.
    up: Cell<Option<bool>>,
}

impl Sessions {
    pub(super) const fn new(config: Cluster, wanted: Arc<Wanted>, outbox: Outbox) -> Self {
        Self {
            config,
            wanted,
            outbox,
            lease: Cell::new(None),
            client: RefCell::new(None),
            listed: Cell::new(false),
            written: Cell::new(false),
            up: Cell::new(None),
        }
    }

    /// Works until the handle is dropped, then ends the lease and with it this node's keys.
    pub(super) async fn run(&self) {
        tokio::select! {
            () = self.wanted.stop.notified() => {}
            () = self.outbox.pump() => {}
            _ = self.try_in_turn() => {}
        }
        let client = self.client.borrow().clone();
        if let (Some(client), Some(lease)) = (client, self.lease.get()) {
            // An etcd that does not answer lets the lease run out by itself.
            let _ = timeout(REVOKE, client.revoke(lease)).await;
        }
    }

    async fn try_in_turn(&self) -> Infallible {
        let mut wait = RETRY[0];
        let mut failed = 0;
        for endpoint in self.config.etcd.iter().cycle() {
            let Err(status) = self.session(endpoint).await;
            if self.listed.get() && self.written.get() {
                // A session that was good. A token that ran out is no outage: the next session fetches another.
                if !wants_token(&status) {
                    self.down(&format!("{endpoint}: {}", reason(&status)));
                }
                (wait, failed) = (RETRY[0], 0);
                sleep(wait).await;
                continue;
            }
            failed += 1;
            // A node that is starting has not failed before all endpoints have.
            if self.up.get().is_some() || failed >= self.config.etcd.len() {
                self.down(&format!("{endpoint}: {}", reason(&status)));
            }
            if failed >= self.config.etcd.len() {
                failed = 0;
                sleep(wait).await;
                wait = (wait * 2).min(RETRY[1]);
            }
        }
        unreachable!("there is at least one endpoint, and the circle of them has no end")
    }

    fn down(&self, reason: &str) {
        if self.up.replace(Some(false)) != Some(false) {
            self.outbox.send(vec![StoreEvent::Down { reason: reason.to_owned() }]);
        }
    }

    fn up_when_all_is_done(&self) {
        if self.listed.get() && self.written.get() && self.up.replace(Some(true)) != Some(true) {
            self.outbox.send(vec![StoreEvent::Up]);
        }
    }

    async fn session(&self, endpoint: &str) -> Result<Infallible, Status> {
        self.listed.set(false);
        self.written.set(false);
        let client = Rc::new(Client::connect(endpoint, &self.config).await?);
        self.client.replace(Some(Rc::clone(&client)));
        // Whether the lease outlived the outage decides what has to be written.
        self.refresh_lease(&client).await?;
        tokio::select! {
            ended = self.keep_lease(&client) => ended,
            ended = self.write(&client) => ended,
            ended = self.watch(&client) => ended,
        }
    }

    async fn refresh_lease(&self, client: &Client) -> Result<(), Status> {
        let Some(lease) = self.lease.get() else { return Ok(()) };
        if client.keep_alive(lease).await?.ttl <= 0 && self.lease.get() == Some(lease) {
            self.lease.set(None);
            self.wanted.write.notify_one();
        }
        Ok(())
    }

    async fn keep_lease(&self, client: &Client) -> Result<Infallible, Status> {
        let pause = (Duration::from_secs(u64::from(self.config.lease)) / 3).min(KEEP_ALIVE_AT_MOST);
        loop {
            sleep(pause).await;
            self.refresh_lease(client).await?;
        }
    }

    async fn watch(&self, client: &Client) -> Result<Infallible, Status> {
        let mut watcher = Watcher::new(client, &self.wanted, &self.outbox);
        watcher.follow().await?;
        loop {
            if !self.listed.get() && watcher.is_complete() {
                self.listed.set(true);
                self.up_when_all_is_done();
            }
            watcher.step().await?;
        }
    }

    async fn write(&self, client: &Client) -> Result<Infallible, Status> {
        loop {
            let Err(status) = self.write_until_refused(client).await;
            if status.code() == Code::NotFound {
                // The lease is gone: the next round has another.
                self.lease.set(None);
                continue;
            }
            let lasting = [
                Code::InvalidArgument,
                Code::PermissionDenied,
                Code::ResourceExhausted,
                Code::FailedPrecondition,
                Code::OutOfRange,
            ];
            if !lasting.contains(&status.code()) || wants_token(&status) {
                return Err(status);
            }
            // A store that is full, or forbids it, can still be read: the session goes on.
            self.written.set(false);
            self.down(&format!("not written: {}", reason(&status)));
            sleep(RETRY[1]).await;
        }
    }

    async fn write_until_refused(&self, client: &Client) -> Result<Infallible, Status> {
        loop {
            let lease = match self.lease.get() {
                Some(lease) => lease,
                None => {
                    let lease = client.grant(self.config.lease.into()).await?.id;
                    self.lease.set(Some(lease));
                    self.wanted.write_all();
                    lease
                }
            };
            let Some(batch) = self.wanted.next_batch() else {
                self.written.set(true);
                self.up_when_all_is_done();
                self.wanted.write.notified().await;
                continue;
            };
            let unfinished = Unfinished { wanted: &self.wanted, batch: Some(batch) };
            unfinished.write(client, lease).await?;
        }
    }
}

/// A batch on its way; when its answer is never seen, its keys are unwritten again.
struct Unfinished<'a> {
    wanted: &'a Wanted,
    batch: Option<super::wanted::Batch>,
}

impl Unfinished<'_> {
    async fn write(mut self, client: &Client, lease: i64) -> Result<(), Status> {
        let request = self.batch.as_ref().map(|batch| transaction(batch, lease)).unwrap_or_default();
        client.txn(request).await?;
        if let Some(batch) = self.batch.take() {
            self.wanted.written(&batch);
        }
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.wanted.not_written(batch);
        }
    }
}
