//! The slow path: one thread for frames that ask for an answer.
//!
//! Today it answers packets that do not fit the way to a peer (ICMP fragmentation needed, ICMPv6 packet too
//! big). Bounded and rate-limited per port; a full queue costs answers, never frames. Not here: deciding which
//! frames come (that is the core).

mod path_mtu;
mod probe;
mod prober;
mod too_big;

pub use prober::{Output, PeerState, ProbePeer, Prober, Random, Status};
pub use too_big::too_big;

use crate::datapath::{Punted, clock};
use crate::link::{Link as _, Scratch};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use vswitch_core::frame::{Head, TxRange};
use vswitch_core::verdict::Why;
use vswitch_core::{Arrival, Batch, Instant, Offload, PortId, TxList};

/// Frames that may wait.
const QUEUE: usize = 64;
/// Answers a port may be given at once, and one more after each [`REFILL`].
const BURST: u32 = 50;
const REFILL: Duration = Duration::from_millis(10);

/// The thread's queue; the thread ends when nobody can put anything into it any more.
#[derive(Debug)]
pub struct SlowPath {
    queue: Sender<Punted>,
}

impl SlowPath {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub fn start() -> io::Result<Self> {
        let (queue, punted) = bounded(QUEUE);
        std::thread::Builder::new().name("slow-path".to_owned()).spawn(move || run(&punted))?;
        Ok(Self { queue })
    }

    /// Where workers put frames.
    #[must_use]
    pub fn queue(&self) -> Sender<Punted> {
        self.queue.clone()
    }
}

/// How many answers a port may still get.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    const fn full(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let earned = now.since(self.since).as_nanos() / REFILL.as_nanos();
        if earned > 0 {
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(BURST);
            self.since = now;
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

fn run(punted: &Receiver<Punted>) {
    let mut allowances: HashMap<PortId, Allowance> = HashMap::new();
    let mut batch = Batch::new(1);
    let mut tx = TxList::new();
    let mut scratch = Scratch::default();
    while let Ok(Punted { link, why, bytes, len }) = punted.recv() {
        let now = clock::now();
        if !allowances.entry(link.port).or_insert_with(|| Allowance::full(now)).take(now) {
            continue;
        }
        let Why::TooBig { mtu } = why else { continue };
        let Some(answer) = too_big(&bytes[..len], mtu) else { continue };
        batch.clear();
        tx.clear();
        if batch.copy_in(Arrival::Port(link.port), &answer, Offload::NONE)
            && let Some(whole) = TxRange::new(0, 0, answer.len())
        {
            tx.push(link.port, Head::NONE, &[whole], Offload::NONE, 0);
            // An answer that is lost is asked for again by the next frame.
            let _ = link.link.send(&batch, &tx, link.port, &mut scratch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_gets_a_burst_and_then_one_answer_per_refill() {
        let mut allowance = Allowance::full(Instant::ZERO);
        assert_eq!((0..100).filter(|_| allowance.take(Instant::ZERO)).count(), 50);
        let later = Instant::ZERO.after(REFILL * 3);
        assert_eq!((0..100).filter(|_| allowance.take(later)).count(), 3);
    }
}
