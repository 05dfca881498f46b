//! What goes to control, in order, over a channel that may be full; then it waits here, and who makes more than a
//! little waits too. The runtime never does.

use super::StoreEvent;
use crossbeam_channel::{Sender, TrySendError};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Batches that may wait beside the channel before [`Outbox::room`] waits for them.
const WAITING: usize = 16;
/// How long until a full channel is tried again.
const AGAIN: Duration = Duration::from_millis(20);

pub(super) struct Outbox {
    channel: Sender<Vec<StoreEvent>>,
    wake: Arc<dyn Fn() + Send + Sync>,
    waiting: RefCell<VecDeque<Vec<StoreEvent>>>,
    more: Notify,
}

impl Outbox {
    pub(super) fn new(channel: Sender<Vec<StoreEvent>>, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { channel, wake, waiting: RefCell::default(), more: Notify::new() }
    }

    /// Sends events, behind all that were sent before.
    pub(super) fn send(&self, events: Vec<StoreEvent>) {
        self.waiting.borrow_mut().push_back(events);
        if !self.flush() {
            self.more.notify_one();
        }
    }

    /// Hands over what the channel takes; whether that was all.
    fn flush(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let mut sent = false;
        while let Some(events) = waiting.pop_front() {
            match self.channel.try_send(events) {
                Ok(()) => sent = true,
                Err(TrySendError::Full(events)) => {
                    waiting.push_front(events);
                    break;
                }
                // Nobody listens any more; the handle will be dropped next.
                Err(TrySendError::Disconnected(_)) => waiting.clear(),
            }
        }
        if sent {
            (self.wake)();
        }
        waiting.is_empty()
    }

    /// Waits until little waits.
    pub(super) async fn room(&self) {
        while self.waiting.borrow().len() > WAITING {
            sleep(AGAIN).await;
        }
    }

    /// Hands over what had to wait, for ever.
    pub(super) async fn pump(&self) {
        loop {
            self.more.notified().await;
            while !self.flush() {
                sleep(AGAIN).await;
            }
        }
    }
}
