//! Which port has the most entries: a binary heap of ports by weight.
//!
//! Which of equally heavy ports comes first is decided by what came before, by the textbook rules: a port
//! that comes in goes to the end; one whose weight changed rises past lighter ones, never past an equal, or
//! else sinks below a heavier child, of two equal ones the left; when one leaves, the last takes its place.
//! Open vSwitch's tables choose by the same rules, so the same frames leave the same stations in both.
//!
//! Not here: which ports are in it, what a port gives up.

use super::sync::{AtomicU32, Held, zeroed_u32};
use alloc::boxed::Box;

/// Heaps, the heaviest port of each on top; a port is in one of them at most. Changed under the lock only.
pub(super) struct Ranks {
    /// One heap after the other, each with room for all ports.
    heaps: Box<[AtomicU32]>,
    /// By heap.
    len: Box<[AtomicU32]>,
    /// By port: its place in the heap plus one, or zero.
    place: Box<[AtomicU32]>,
    weight: Box<[AtomicU32]>,
}

impl Ranks {
    /// So many heaps for ports 0..`ports`.
    pub(super) fn new(ports: usize, heaps: usize) -> Self {
        Self {
            heaps: zeroed_u32(ports * heaps),
            len: zeroed_u32(heaps),
            place: zeroed_u32(ports),
            weight: zeroed_u32(ports),
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.heaps) + size_of_val(&*self.place) * 2
    }

    /// The heaviest port of `heap` and its weight.
    pub(super) fn top(&self, heap: usize) -> Option<(usize, u32)> {
        let heap = self.heap(heap);
        (heap.len.get() > 0).then(|| (heap.at(0), self.weight[heap.at(0)].get()))
    }

    /// Gives `port` this weight in `heap`, or takes it out of it.
    pub(super) fn rank(&self, heap: usize, port: usize, weight: Option<u32>) {
        self.heap(heap).rank(port, weight);
    }

    fn heap(&self, heap: usize) -> Heap<'_> {
        let room = self.place.len();
        Heap {
            ports: &self.heaps[heap * room..][..room],
            len: &self.len[heap],
            place: &self.place,
            weight: &self.weight,
        }
    }

    /// Every port in the heap and its weight, after a look at its insides.
    #[cfg(all(test, not(loom)))]
    pub(super) fn audit(&self, heap: usize) -> alloc::collections::BTreeMap<usize, u32> {
        let heap = self.heap(heap);
        let ports = (0..heap.len.get()).map(|place| {
            let port = heap.at(place);
            assert_eq!(self.place[port].get(), place + 1);
            assert!(place == 0 || !heap.outweighs(port, heap.at((place - 1) / 2)));
            (port, self.weight[port].get())
        });
        ports.collect()
    }
}

/// One of the heaps.
struct Heap<'a> {
    ports: &'a [AtomicU32],
    len: &'a AtomicU32,
    place: &'a [AtomicU32],
    weight: &'a [AtomicU32],
}

impl Heap<'_> {
    fn rank(&self, port: usize, weight: Option<u32>) {
        let place = self.place[port].get();
        match (weight, place) {
            (None, 0) => {}
            (None, _) => self.take_out(port, place - 1),
            (Some(weight), 0) => {
                let last = self.len.get();
                self.len.set(last + 1);
                self.weight[port].set(weight);
                self.put(last, port);
                self.rise(last);
            }
            (Some(weight), _) => {
                self.weight[port].set(weight);
                self.rise(place - 1);
                self.sink(self.place[port].get() - 1);
            }
        }
    }

    fn take_out(&self, port: usize, at: u32) {
        let last = self.len.get() - 1;
        self.len.set(last);
        self.place[port].set(0);
        if at != last {
            let moved = self.at(last);
            self.put(at, moved);
            self.rise(at);
            self.sink(self.place[moved].get() - 1);
        }
    }

    fn at(&self, place: u32) -> usize {
        self.ports[place as usize].get() as usize
    }

    fn put(&self, place: u32, port: usize) {
        self.ports[place as usize].set(u32::try_from(port).unwrap_or(0));
        self.place[port].set(place + 1);
    }

    fn outweighs(&self, a: usize, b: usize) -> bool {
        self.weight[a].get() > self.weight[b].get()
    }

    fn rise(&self, mut place: u32) {
        let port = self.at(place);
        while place > 0 {
            let parent = (place - 1) / 2;
            if !self.outweighs(port, self.at(parent)) {
                break;
            }
            self.put(place, self.at(parent));
            place = parent;
        }
        self.put(place, port);
    }

    fn sink(&self, mut place: u32) {
        let port = self.at(place);
        let len = self.len.get();
        loop {
            let left = place * 2 + 1;
            if left >= len {
                break;
            }
            let right = left + 1;
            let child =
                if right < len && self.outweighs(self.at(right), self.at(left)) { right } else { left };
            if !self.outweighs(self.at(child), port) {
                break;
            }
            self.put(place, self.at(child));
            place = child;
        }
        self.put(place, port);
    }
}
