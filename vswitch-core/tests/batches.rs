//! A batch is forwarded as its frames one by one: what is looked up ahead, or remembered from the frame before, changes
//! no output, no counter and no entry. Not here: what the output should be.

#![allow(clippy::unwrap_used, reason = "a panic of a test is a failure")]

use std::sync::Arc;
use std::time::Duration;
use vswitch_core::port::VlanSet;
use vswitch_core::switch::{Bridge, Counters, Topology, Worker};
use vswitch_core::{Arrival, Attachment, Batch, Instant, Mac, MacTable, Offload, Port, PortId, TxList, Vlan};

/// Numbers that look random (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % end
    }

    fn index(&mut self, end: u64) -> usize {
        usize::try_from(self.below(end)).unwrap()
    }
}

fn port(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap()
}

/// Access ports, trunks and a customer's port, each allowed few stations, over a small table or a large one.
fn worker(limit: u32) -> (Worker, Arc<MacTable>) {
    let few: VlanSet = [vlan(0), vlan(10)].into_iter().collect();
    let attachments = [
        Attachment::Access(vlan(10)),
        Attachment::Access(vlan(20)),
        Attachment::trunk_all(),
        Attachment::native(vlan(10), false, VlanSet::all()),
        Attachment::Trunk { vlans: few, native: None },
        Attachment::dot1q_tunnel(vlan(10), None),
    ];
    let ports = (1..).zip(attachments).map(|(n, attachment)| Port::new(port(n), attachment));
    let macs = Arc::new(MacTable::new(limit, Duration::from_secs(300), [5, 6]));
    let topology = Topology::new(vec![Bridge::default()], ports).unwrap();
    topology.ports().for_each(|port| macs.bind(port.id, Some(5)));
    (Worker::new(Arc::new(topology), Arc::clone(&macs)), macs)
}

/// A frame between two of few stations, at one of the ports, tagged or not.
fn frame(dice: &mut Dice) -> (PortId, Vec<u8>) {
    let from = port(u32::try_from(1 + dice.below(7)).unwrap());
    let station = |n: u64| Mac::new([2, 0, 0, 0, 0, u8::try_from(n).unwrap()]).bytes();
    let to = if dice.below(8) == 0 { [0xff; 6] } else { station(dice.below(8)) };
    let mut frame = [to, station(dice.below(8))].concat();
    for _ in 0..dice.below(3) {
        let tci = [[0, 10], [0xa0, 10], [0, 20], [0, 0], [0x0f, 0xff]][dice.index(5)];
        frame.extend([0x81, 0].into_iter().chain(tci));
    }
    // Sometimes the type is cut off.
    frame.extend(&[8, 0, 1, 2, 3, 4, 5, 6][..dice.index(9)]);
    (from, frame)
}

/// Everything that leaves, by port and in order.
fn sent(tx: &TxList, batch: &Batch, out: &mut [Vec<Vec<u8>>]) {
    for (number, queue) in (0..).zip(out) {
        for record in tx.records(port(number)) {
            let mut bytes = Vec::new();
            tx.copy_out(record, batch, &mut bytes);
            assert_eq!(bytes.len(), record.len());
            queue.push(bytes);
        }
    }
}

/// Output, counts and table after `frames`, in batches of `size`, a second after each `size` of `all`.
fn after(
    frames: &[(PortId, Vec<u8>)],
    size: usize,
    limit: u32,
) -> (Vec<Vec<Vec<u8>>>, Counters, Vec<String>) {
    let (mut worker, macs) = worker(limit);
    let (mut batch, mut tx, mut out) = (Batch::new(size), TxList::new(), vec![Vec::new(); 8]);
    for (at, frames) in frames.chunks(100).enumerate() {
        let now = Instant::from_secs(1 + at as u64);
        for frames in frames.chunks(size) {
            batch.clear();
            tx.clear();
            for (from, bytes) in frames {
                assert!(batch.copy_in(Arrival::Port(*from), bytes, Offload::NONE));
            }
            worker.forward(now, &batch, &mut tx);
            sent(&tx, &batch, &mut out);
        }
    }
    let mut entries = Vec::new();
    macs.for_each(Instant::from_secs(60), |entry| entries.push(format!("{entry:?}")));
    entries.sort_unstable();
    (out, worker.counters().clone(), entries)
}

#[test]
fn a_batch_is_forwarded_as_its_frames_one_by_one() {
    for (seed, limit) in (1..=10).flat_map(|seed| [(seed, 12), (seed, 2000)]) {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let mut frames = Vec::new();
        while frames.len() < 2000 {
            let next = frame(&mut dice);
            let train = if dice.below(3) == 0 { 1 + dice.below(50) } else { 1 };
            frames.extend((0..train).map(|_| next.clone()));
        }
        let expected = after(&frames, 1, limit);
        assert!(expected.0.iter().flatten().count() > 500 && expected.2.len() > 5);
        for size in [2, 7, 32, 33, 100] {
            assert_eq!(
                after(&frames, size, limit),
                expected,
                "seed {seed}, limit {limit}, batches of {size}"
            );
        }
    }
}
