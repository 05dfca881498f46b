//! The watching side of a session: ranges are listed, then watched from the next revision on, over one stream.
//!
//! Not here: what the keys mean, and what happens when the connection is lost (all ranges are listed again).

use super::StoreEvent;
use super::client::{Client, speaks_of_token};
use super::messages::{
    DELETE, RangeRequest, Watch, WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use super::outbox::Outbox;
use super::wanted::Wanted;
use crate::cluster::KeyRange;
use std::collections::BTreeMap;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

/// Keys asked for at a time.
const PAGE: i64 = 1000;
/// What etcd calls a watch that it refused to create, from 3.5 on.
const NO_WATCH: i64 = -1;

/// The stream of a session's watches.
pub(super) struct Watcher<'a> {
    client: &'a Client,
    wanted: &'a Wanted,
    outbox: &'a Outbox,
    /// Both ends of the stream, once there is a first watch. The requests wait in a channel without a bound: they
    /// are no more than there are ranges.
    stream: Option<(UnboundedSender<WatchRequest>, Streaming<WatchResponse>)>,
    watched: BTreeMap<i64, KeyRange>,
    last_id: i64,
}

impl<'a> Watcher<'a> {
    pub(super) const fn new(client: &'a Client, wanted: &'a Wanted, outbox: &'a Outbox) -> Self {
        Self { client, wanted, outbox, stream: None, watched: BTreeMap::new(), last_id: 0 }
    }

    /// Waits for one more thing to happen, a wish or an answer, and sees to it.
    pub(super) async fn step(&mut self) -> Result<(), Status> {
        let answer = async {
            match &mut self.stream {
                Some((_, answers)) => answers.message().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.wanted.ranges_changed.notified() => self.follow().await,
            answer = answer => match answer? {
                Some(answer) => self.take(answer).await,
                None => Err(Status::unavailable("the stream of watches has ended")),
            },
        }
    }

    /// Whether what is wanted has been said, and is watched.
    pub(super) fn is_complete(&self) -> bool {
        self.wanted.ranges().is_some_and(|wanted| {
            self.watched.len() == wanted.len() && self.watched.values().all(|range| wanted.contains(range))
        })
    }

    /// Makes what is watched what is wanted: old ranges are dropped, new ones listed and watched.
    pub(super) async fn follow(&mut self) -> Result<(), Status> {
        let mut new = self.wanted.ranges().unwrap_or_default();
        let dropped: Vec<i64> =
            self.watched.iter().filter(|(_, range)| !new.remove(range)).map(|(id, _)| *id).collect();
        for watch_id in dropped {
            self.watched.remove(&watch_id);
            self.request(Watch::Cancel(WatchCancelRequest { watch_id })).await?;
        }
        for range in new {
            self.list_and_watch(range).await?;
        }
        Ok(())
    }

    async fn list_and_watch(&mut self, range: KeyRange) -> Result<(), Status> {
        let (revision, entries) = self.list(&range).await?;
        self.wanted.seen(&range, &entries.iter().map(|(key, _)| key.as_str()).collect());
        self.outbox.send(vec![StoreEvent::Listed { range: range.clone(), entries }]);
        self.outbox.room().await;
        self.last_id += 1;
        let create = WatchCreateRequest {
            key: range.from.clone().into_bytes(),
            range_end: range.to.clone().into_bytes(),
            start_revision: revision + 1,
            watch_id: self.last_id,
            fragment: true,
        };
        self.watched.insert(self.last_id, range);
        self.request(Watch::Create(create)).await
    }

    async fn request(&mut self, request: Watch) -> Result<(), Status> {
        let request = WatchRequest { request: Some(request) };
        if let Some((requests, _)) = &self.stream {
            return requests
                .send(request)
                .map_err(|_| Status::unavailable("the stream of watches has ended"));
        }
        let (requests, receiver) = unbounded_channel();
        requests.send(request).expect("the receiver is on the line above");
        let answers = self.client.watch(UnboundedReceiverStream::new(receiver)).await?;
        self.stream = Some((requests, answers));
        Ok(())
    }

    /// All keys of a range with their values, at the revision returned with them.
    async fn list(&self, range: &KeyRange) -> Result<(i64, Vec<(String, Vec<u8>)>), Status> {
        let mut limit = PAGE;
        loop {
            match self.list_at_one_revision(range, limit).await {
                // Others wrote and compacted between two pages: the next attempt is at a newer revision.
                Err(status) if status.message().contains("compacted") => {}
                // A page larger than what is taken in: smaller ones, down to one key, which etcd itself bounds.
                Err(status) if status.code() == Code::OutOfRange && limit > 1 => limit = (limit / 8).max(1),
                other => return other,
            }
        }
    }

    async fn list_at_one_revision(
        &self,
        range: &KeyRange,
        limit: i64,
    ) -> Result<(i64, Vec<(String, Vec<u8>)>), Status> {
        let mut key = range.from.clone().into_bytes();
        let range_end = range.to.clone().into_bytes();
        let (mut revision, mut entries) = (0, Vec::new());
        loop {
            let request = RangeRequest { key: key.clone(), range_end: range_end.clone(), limit, revision };
            let page = self.client.range(request).await?;
            if revision == 0 {
                revision = page.header.map_or(0, |header| header.revision);
            }
            let last = page.kvs.last().map(|pair| pair.key.clone());
            entries.extend(page.kvs.into_iter().filter_map(|pair| Some((text(pair.key)?, pair.value))));
            let Some(last) = last.filter(|_| page.more) else { return Ok((revision, entries)) };
            // The key right behind the last one.
            key = last;
            key.push(0);
        }
    }

    async fn take(&mut self, answer: WatchResponse) -> Result<(), Status> {
        let id = answer.watch_id;
        if !self.watched.contains_key(&id) && id != NO_WATCH {
            // Dropped meanwhile.
            return Ok(());
        }
        if answer.canceled {
            self.watched.remove(&id);
            if answer.compact_revision > 0 {
                // What was missed is forgotten: list again.
                return self.follow().await;
            }
            let refusal = format!("a watch was refused: {}", answer.cancel_reason);
            let token = speaks_of_token(&answer.cancel_reason);
            return Err(if token { Status::unauthenticated(refusal) } else { Status::aborted(refusal) });
        }
        let mut events = Vec::with_capacity(answer.events.len());
        for event in answer.events {
            let Some(pair) = event.kv else { continue };
            let Some(key) = text(pair.key) else { continue };
            if event.kind == DELETE {
                self.wanted.missing(&key);
                events.push(StoreEvent::Deleted { key });
            } else {
                events.push(StoreEvent::Put { key, value: pair.value });
            }
        }
        if !events.is_empty() {
            self.outbox.send(events);
            self.outbox.room().await;
        }
        Ok(())
    }
}

/// A key as text; those that are none are nobody's here.
fn text(key: Vec<u8>) -> Option<String> {
    String::from_utf8(key).ok()
}
