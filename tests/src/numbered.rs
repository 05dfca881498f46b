//! Many UDP flows at once in both directions between two pods, every datagram numbered: what is overtaken, repeated or
//! changed is found, and what is lost is counted.

use crate::lab::{Deadline, Namespace};
use crate::node::PATIENCE;
use crate::rng::Rng;
use crate::socket::set_room;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How many flows each way, and how many datagrams each has.
#[derive(Clone, Copy, Debug)]
pub struct Numbered {
    /// Pairs of sockets.
    pub flows: usize,
    /// Datagrams of each flow in each direction.
    pub datagrams: u32,
    /// The longest datagram; 8 at least.
    pub longest: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Datagrams sent, both ways.
    pub sent: u64,
    /// And received; the others were lost.
    pub received: u64,
}

/// Datagrams that may be under way in one direction.
const UNDER_WAY: u64 = 200;

/// A datagram of this number: its length and every byte follow from it.
fn datagram(number: u32, longest: usize) -> Vec<u8> {
    let mut rng = Rng::new(u64::from(number >> 3) << 3 | 5);
    // Eight in a row are of one length, as they are in a flow that is worth merging.
    let len = rng.within(8..=longest);
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(len, number.to_be_bytes()[3]);
    bytes
}

/// One direction's progress.
#[derive(Default)]
struct Progress {
    sent: AtomicU64,
    received: AtomicU64,
    /// What nobody waits for any more.
    lost: AtomicU64,
    ended: AtomicBool,
}

/// Runs them between `a` and `b`, which have these addresses.
///
/// # Panics
/// When a datagram overtook another of its flow, came twice or was changed.
#[must_use]
pub fn numbered(a: (&Namespace, IpAddr), b: (&Namespace, IpAddr), how: &Numbered) -> Outcome {
    let open = |(space, address): (&Namespace, IpAddr)| -> Vec<UdpSocket> {
        space
            .inside(|| (0..how.flows).map(|_| UdpSocket::bind((address, 0))).collect::<Result<_, _>>())
            .expect("ports are free")
    };
    let ends = [open(a), open(b)];
    for (one, other) in ends[0].iter().zip(&ends[1]) {
        let name = |socket: &UdpSocket| -> SocketAddr { socket.local_addr().expect("it is bound") };
        one.connect(name(other)).expect("a way there");
        other.connect(name(one)).expect("a way back");
        for socket in [one, other] {
            set_room(socket);
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("not zero");
        }
    }
    // By direction: from the sockets of this number to the others.
    let progress = [Progress::default(), Progress::default()];
    std::thread::scope(|scope| {
        for (from, progress) in progress.iter().enumerate() {
            for socket in &ends[1 - from] {
                scope.spawn(move || receive(socket, how, progress));
            }
            let sockets = &ends[from];
            scope.spawn(move || send(sockets, how, progress, &mut Rng::new(from as u64)));
        }
    });
    let sum = |of: fn(&Progress) -> &AtomicU64| progress.iter().map(|p| of(p).load(Ordering::SeqCst)).sum();
    Outcome { sent: sum(|p| &p.sent), received: sum(|p| &p.received) }
}

/// Bursts of one flow and then of another, each flow to its end.
fn send(sockets: &[UdpSocket], how: &Numbered, progress: &Progress, rng: &mut Rng) {
    let mut next = vec![0_u32; sockets.len()];
    let mut open: Vec<usize> = (0..sockets.len()).collect();
    while !open.is_empty() {
        let place = rng.below(open.len());
        let flow = open[place];
        for _ in 0..rng.within(1..=12) {
            if next[flow] == how.datagrams {
                open.swap_remove(place);
                break;
            }
            wait(progress);
            // A full queue loses it; that is no reason to stop.
            let _ = sockets[flow].send(&datagram(next[flow], how.longest));
            progress.sent.fetch_add(1, Ordering::SeqCst);
            next[flow] += 1;
        }
    }
    progress.ended.store(true, Ordering::SeqCst);
}

/// Waits until not too much is under way; what has not come in a long time never will.
fn wait(progress: &Progress) {
    let deadline = Deadline::after(Duration::from_millis(300));
    let under_way = || {
        let [sent, received, lost] =
            [&progress.sent, &progress.received, &progress.lost].map(|count| count.load(Ordering::SeqCst));
        sent.saturating_sub(received + lost)
    };
    while under_way() >= UNDER_WAY {
        if deadline.left().is_none() {
            progress.lost.fetch_add(under_way(), Ordering::SeqCst);
        }
        std::thread::yield_now();
    }
}

fn receive(socket: &UdpSocket, how: &Numbered, progress: &Progress) {
    let mut buffer = vec![0; 1 << 16];
    let mut next = 0;
    let deadline = Deadline::after(PATIENCE);
    while next < how.datagrams && deadline.left().is_some() {
        let Ok(len) = socket.recv(&mut buffer) else {
            if progress.ended.load(Ordering::SeqCst) {
                return;
            }
            continue;
        };
        let number = buffer.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        assert!(number >= next, "{:?}: {number} came behind {}", socket.local_addr(), next - 1);
        assert!(buffer[..len] == datagram(number, how.longest), "{number} was changed: {len} bytes");
        next = number + 1;
        progress.received.fetch_add(1, Ordering::SeqCst);
    }
}
