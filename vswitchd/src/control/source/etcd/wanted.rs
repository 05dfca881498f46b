//! What this node wants of the store: its own keys, and the ranges that it watches. Written by the handle, read by
//! the thread; the latest wish for a key is all that is kept, so time without a store costs no memory.
//!
//! Not here: how it gets there.

use super::messages::{
    CREATED, Compare, DeleteRangeRequest, Op, PutRequest, RequestOp, TxnRequest, VALUE, With,
};
use crate::cluster::KeyRange;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Operations of one transaction: etcd takes 128 by default.
const OPERATIONS: usize = 100;
/// Bytes of one transaction after which no more join it: etcd takes 1.5 MiB by default.
const BYTES: usize = 512 << 10;

/// What is wanted of a key. All but the first are forgotten when the store has been asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It has this value under the lease, always.
    Keep(Vec<u8>),
    /// There is none.
    Delete,
    /// It gets this value, under no lease, if there is none.
    Claim(Vec<u8>),
    /// There is none, if it has this value.
    Release(Vec<u8>),
}

impl Wish {
    const fn value(&self) -> Option<&Vec<u8>> {
        match self {
            Self::Keep(value) | Self::Claim(value) | Self::Release(value) => Some(value),
            Self::Delete => None,
        }
    }

    /// Whether it depends on what is there; then it goes in a transaction of its own.
    const fn is_conditional(&self) -> bool {
        matches!(self, Self::Claim(_) | Self::Release(_))
    }
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<String, Wish>,
    /// Keys that the store has yet to hear of.
    unwritten: BTreeSet<String>,
    /// `None`: nobody has said yet.
    ranges: Option<BTreeSet<KeyRange>>,
}

/// The wishes, and what wakes those who see to them. Each bell has one listener.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    state: Mutex<State>,
    /// There may be something to write.
    pub(super) write: Notify,
    /// The set of ranges is another.
    pub(super) ranges_changed: Notify,
    /// The handle is gone.
    pub(super) stop: Notify,
}

/// What goes into one transaction.
pub(super) type Batch = Vec<(String, Wish)>;

impl Wanted {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has this wish for `key`, and no longer any other.
    pub(super) fn want(&self, key: String, wish: Wish) {
        let mut state = self.state();
        state.unwritten.insert(key.clone());
        state.keys.insert(key, wish);
        drop(state);
        self.write.notify_one();
    }

    /// Wants these ranges watched from now on, and no others.
    pub(super) fn watch(&self, ranges: Vec<KeyRange>) {
        let ranges = ranges.into_iter().filter(|range| range.from < range.to).collect();
        self.state().ranges = Some(ranges);
        self.ranges_changed.notify_one();
    }

    pub(super) fn ranges(&self) -> Option<BTreeSet<KeyRange>> {
        self.state().ranges.clone()
    }

    /// Everything has to be written again: what was there went with its lease.
    pub(super) fn write_all(&self) {
        let mut state = self.state();
        state.unwritten = state.keys.keys().cloned().collect();
    }

    /// The next writes; `None` when all is written. They count as written until [`Self::not_written`].
    pub(super) fn next_batch(&self) -> Option<Batch> {
        let mut state = self.state();
        let (mut batch, mut bytes) = (Batch::new(), 0);
        while batch.len() < OPERATIONS && bytes < BYTES {
            let Some(key) = state.unwritten.pop_first() else { break };
            let Some(wish) = state.keys.get(&key).cloned() else { continue };
            let alone = wish.is_conditional();
            let size = key.len() + wish.value().map_or(0, Vec::len);
            if !batch.is_empty() && (alone || bytes + size > BYTES) {
                state.unwritten.insert(key);
                break;
            }
            bytes += size;
            batch.push((key, wish));
            if alone {
                break;
            }
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// The store took these: all but what is to be kept is done with.
    pub(super) fn written(&self, batch: &Batch) {
        let mut state = self.state();
        for (key, _) in batch.iter().filter(|(_, wish)| !matches!(wish, Wish::Keep(_))) {
            if !state.unwritten.contains(key) {
                state.keys.remove(key);
            }
        }
    }

    /// The store did not take these, or nobody knows.
    pub(super) fn not_written(&self, batch: Batch) {
        self.state().unwritten.extend(batch.into_iter().map(|(key, _)| key));
    }

    /// A key was seen to be missing; if it is wanted, it is written again.
    pub(super) fn missing(&self, key: &str) {
        let mut state = self.state();
        if matches!(state.keys.get(key), Some(Wish::Keep(_))) {
            state.unwritten.insert(key.to_owned());
            drop(state);
            self.write.notify_one();
        }
    }

    /// All that there is in a range was seen; wanted keys that are not among it are written again.
    pub(super) fn seen(&self, range: &KeyRange, present: &BTreeSet<&str>) {
        let mut state = self.state();
        let State { keys, unwritten, .. } = &mut *state;
        let wanted = keys.range(range.from.clone()..range.to.clone());
        let wanted = wanted.filter(|(_, wish)| matches!(wish, Wish::Keep(_)));
        unwritten
            .extend(wanted.filter(|(key, _)| !present.contains(key.as_str())).map(|(key, _)| key.clone()));
        drop(state);
        self.write.notify_one();
    }
}

/// The transaction that writes a batch, what is to be kept under a lease.
pub(super) fn transaction(batch: &Batch, lease: i64) -> TxnRequest {
    let mut request = TxnRequest::default();
    for (key, wish) in batch {
        let key = key.clone().into_bytes();
        let (condition, op) = match wish.clone() {
            Wish::Keep(value) => (None, Op::Put(PutRequest { key: key.clone(), value, lease })),
            Wish::Delete => (None, Op::Delete(DeleteRangeRequest { key: key.clone() })),
            Wish::Claim(value) => {
                let put = PutRequest { key: key.clone(), value, lease: 0 };
                (Some((CREATED, With::Created(0))), Op::Put(put))
            }
            Wish::Release(value) => {
                (Some((VALUE, With::Value(value))), Op::Delete(DeleteRangeRequest { key: key.clone() }))
            }
        };
        request.success.push(RequestOp { op: Some(op) });
        let compare = |(target, with)| Compare { result: 0, target, key, with: Some(with) };
        request.compare.extend(condition.map(compare));
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(value: &str) -> Wish {
        Wish::Keep(value.into())
    }

    fn put(wanted: &Wanted, key: &str, value: &str) {
        wanted.want(key.to_owned(), keep(value));
    }

    fn range(from: &str, to: &str) -> KeyRange {
        KeyRange { from: from.to_owned(), to: to.to_owned() }
    }

    #[test]
    fn the_latest_wish_for_a_key_is_the_one_that_is_written() {
        let wanted = Wanted::default();
        put(&wanted, "a", "1");
        put(&wanted, "a", "2");
        put(&wanted, "b", "1");
        wanted.want("b".to_owned(), Wish::Delete);
        let batch = wanted.next_batch().unwrap();
        assert_eq!(batch, [("a".to_owned(), keep("2")), ("b".to_owned(), Wish::Delete)]);
        assert_eq!(wanted.next_batch(), None);
    }

    #[test]
    fn a_delete_is_not_forgotten_before_the_store_took_it() {
        let wanted = Wanted::default();
        wanted.want("a".to_owned(), Wish::Delete);
        let batch = wanted.next_batch().unwrap();
        wanted.not_written(batch);
        wanted.write_all();
        let batch = wanted.next_batch().unwrap();
        assert_eq!(batch, [("a".to_owned(), Wish::Delete)]);
        wanted.written(&batch);
        wanted.write_all();
        assert_eq!(wanted.next_batch(), None);
    }

    #[test]
    fn a_wish_made_while_an_older_one_is_on_its_way_is_written_next() {
        let wanted = Wanted::default();
        wanted.want("a".to_owned(), Wish::Delete);
        let batch = wanted.next_batch().unwrap();
        put(&wanted, "a", "again");
        wanted.written(&batch);
        assert_eq!(wanted.next_batch().unwrap(), [("a".to_owned(), keep("again"))]);
    }

    #[test]
    fn what_depends_on_what_is_there_goes_alone_and_once() {
        let wanted = Wanted::default();
        put(&wanted, "a", "1");
        wanted.want("b".to_owned(), Wish::Claim(b"me".to_vec()));
        wanted.want("c".to_owned(), Wish::Release(b"me".to_vec()));
        put(&wanted, "d", "1");
        let mut conditions = Vec::new();
        while let Some(batch) = wanted.next_batch() {
            let request = transaction(&batch, 7);
            conditions.push((batch.len(), request.compare.iter().map(|compare| compare.target).collect()));
            wanted.written(&batch);
        }
        assert_eq!(conditions, [(1, vec![]), (1, vec![CREATED]), (1, vec![VALUE]), (1, vec![])]);
        wanted.write_all();
        let kept = wanted.next_batch().unwrap();
        assert_eq!(kept, [("a".to_owned(), keep("1")), ("d".to_owned(), keep("1"))]);
    }

    #[test]
    fn a_batch_is_as_large_as_a_store_takes_and_one_large_value_goes_alone() {
        let wanted = Wanted::default();
        for number in 0..250 {
            put(&wanted, &format!("k{number:03}"), "small");
        }
        let sizes: Vec<usize> = std::iter::from_fn(|| wanted.next_batch()).map(|batch| batch.len()).collect();
        assert_eq!(sizes, [100, 100, 50]);
        for key in ["a", "b", "c"] {
            wanted.want(key.to_owned(), Wish::Keep(vec![0; 400 << 10]));
        }
        let sizes: Vec<usize> = std::iter::from_fn(|| wanted.next_batch()).map(|batch| batch.len()).collect();
        assert_eq!(sizes, [1, 1, 1]);
    }

    #[test]
    fn a_wanted_key_that_is_missing_is_written_again_and_an_unwanted_one_is_not() {
        let wanted = Wanted::default();
        for key in ["a/1", "a/2", "b/1"] {
            put(&wanted, key, "v");
        }
        while wanted.next_batch().is_some() {}
        wanted.seen(&range("a/", "a0"), &BTreeSet::from(["a/1", "a/9"]));
        wanted.missing("a/9");
        assert_eq!(wanted.next_batch().unwrap(), [("a/2".to_owned(), keep("v"))]);
        wanted.missing("b/1");
        assert_eq!(wanted.next_batch().unwrap(), [("b/1".to_owned(), keep("v"))]);
    }

    #[test]
    fn an_empty_or_reversed_range_is_not_watched() {
        let wanted = Wanted::default();
        assert_eq!(wanted.ranges(), None);
        wanted.watch(vec![range("a", "a"), range("b", "a"), range("a", "b"), range("a", "b")]);
        assert_eq!(wanted.ranges(), Some(BTreeSet::from([range("a", "b")])));
    }
}
