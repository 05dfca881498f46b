//! What the benches share: criterion with short runs, frames, stations drawn at random, threads side by side, a race,
//! and a table of figures.
//!
//! Every bench counts in frames (or segments, or lookups): the time criterion prints is that of one, whatever the
//! size of the batch. A full run takes minutes, not an hour, so a figure is good for about a tenth of itself; what
//! is to be compared to a hair runs in one [`race`]. Not here: anything of the operating system.

pub mod report;
pub mod traffic;

use criterion::{Bencher, Criterion};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vswitch_core::{Instant, Mac, PortId, Segment, Vlan};

/// The time of day in every bench: stations were seen just now, as they are in all but one frame a second.
pub const NOW: Instant = Instant::from_secs(1000);

/// The VLAN of every bench.
pub const VLAN: u16 = 10;

/// Criterion as the benches run it: one point in less than a second.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(500))
        .without_plots()
        .configure_from_args()
}

/// How long `work` took.
pub fn timed(work: impl FnOnce()) -> Duration {
    #[expect(clippy::disallowed_types, reason = "a bench is a clock")]
    let start = std::time::Instant::now();
    work();
    start.elapsed()
}

/// Has criterion measure `work`, which does `size` things at once, and print the time of one.
pub fn each(bencher: &mut Bencher<'_>, size: u64, mut work: impl FnMut()) {
    bencher.iter_custom(|things| {
        let (mut slices, mut left) = (Slices::default(), things);
        while left > 0 {
            let rounds = left.min(SLICE).div_ceil(size);
            slices.add(timed(|| (0..rounds).for_each(|_| work())), rounds * size);
            left = left.saturating_sub(rounds * size);
        }
        slices.median(things)
    });
}

/// Things done between two looks at the clock: some twenty microseconds' worth.
pub const SLICE: u64 = 512;

/// A run in slices. What counts is the median slice: a slice in which the system ran something else does not.
#[derive(Clone, Debug, Default)]
pub struct Slices(Vec<f64>);

impl Slices {
    /// A slice of `things` took `took`.
    pub fn add(&mut self, took: Duration, things: u64) {
        self.0.push(nanos_each(took, things));
    }

    /// One thing took so many nanoseconds; what is not a number does not count.
    pub fn note(&mut self, nanos: f64) {
        if !nanos.is_nan() {
            self.0.push(nanos);
        }
    }

    /// What `things` take.
    pub fn median(&mut self, things: u64) -> Duration {
        Duration::from_secs(1)
            .mul_f64(self.nanos() * f64::from(u32::try_from(things).unwrap_or(u32::MAX)) / 1e9)
    }

    /// What one thing takes, in nanoseconds.
    pub fn nanos(&mut self) -> f64 {
        middle(&mut self.0)
    }
}

fn nanos_each(took: Duration, things: u64) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(u32::try_from(things).unwrap_or(u32::MAX))
}

/// The middle one of `values`; 0 of none.
fn middle(values: &mut [f64]) -> f64 {
    let at = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(at, f64::total_cmp).1 }
}

/// What `part` of `whole` things took, when all took `took`.
#[must_use]
pub fn share(took: Duration, part: u64, whole: u64) -> Duration {
    let nanos = took.as_nanos() * u128::from(part) / u128::from(whole.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How far a thread has come, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Turn(AtomicU64);

/// Slices that count in a lap of [`abreast`].
const LAP: usize = 500;

/// Runs each of one or two works, which does `size` things at once, on a thread of its own, all at the same time, and
/// returns how many nanoseconds one thing took, of all threads together; not a number where two threads never got two
/// CPUs. Of two, only those slices count in which the other came about as far: neither was stopped by the system.
///
/// # Panics
/// When a work does.
pub fn abreast<W: FnMut() + Send>(works: Vec<W>, size: u64) -> f64 {
    let (threads, turns) = (works.len(), [Turn::default(), Turn::default()]);
    let barrier = Barrier::new(threads);
    let (barrier, turns) = (&barrier, &turns);
    let run = |thread: usize, mut work: W| {
        let (mine, other) = (&turns[thread].0, &turns[1 - thread].0);
        let mut slices = Slices::default();
        let mut counted = 0;
        barrier.wait();
        for _ in 0..16 * LAP {
            let before = other.load(Ordering::Relaxed);
            let took = timed(|| {
                for _ in 0..SLICE / size {
                    work();
                    mine.fetch_add(1, Ordering::Relaxed);
                }
            });
            let about_as_far = SLICE / size / 2..SLICE / size * 2;
            if threads == 1 || about_as_far.contains(&(other.load(Ordering::Relaxed) - before)) {
                slices.add(took, SLICE);
                counted += 1;
            }
            if counted == LAP {
                break;
            }
        }
        if counted == 0 { f64::NAN } else { slices.nanos() }
    };
    let rates = std::thread::scope(|scope| {
        let run = &run;
        let started: Vec<_> =
            works.into_iter().enumerate().map(|(at, work)| scope.spawn(move || run(at, work))).collect();
        started.into_iter().map(|thread| 1.0 / thread.join().expect("no work panics")).sum::<f64>()
    });
    1.0 / rates
}

/// One who runs in a [`race`]: a name, and a lap that returns how many nanoseconds one thing took.
pub type Runner<'a> = (&'a str, Box<dyn FnMut() -> f64 + 'a>);

/// Lets all run in turn, `laps` times, and prints the median time of one thing for each and how that compares to
/// the first: noise that comes and goes strikes everybody alike. A lap that is not a number does not count.
pub fn race(title: &str, laps: usize, runners: &mut [Runner<'_>]) {
    let mut times = vec![Vec::with_capacity(laps); runners.len()];
    // The first lap warms up.
    for lap in 0..=laps {
        for ((_, run), times) in runners.iter_mut().zip(&mut times) {
            let took = run();
            if lap > 0 && !took.is_nan() {
                times.push(took);
            }
        }
    }
    println!("{title}: medians of {laps} laps, interleaved");
    let mut first = None;
    for ((name, _), mut times) in runners.iter().zip(times) {
        let median = middle(&mut times);
        let base = *first.get_or_insert(median);
        match (times.is_empty(), base > 0.0) {
            (true, _) => println!("    {name:<32}        – (never ran undisturbed)"),
            (_, true) => println!("    {name:<32}{median:>9.1} ns   × {:.2}", median / base),
            _ => println!("    {name:<32}{median:>9.1} ns"),
        }
    }
}

/// Numbers that look random and are the same in every run (xorshift64).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice of their own for each `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `end`, which must not be 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        (self.roll() >> 16) % end
    }

    /// [`Self::below`], other numbers and faster.
    pub const fn pick(&mut self, end: u64) -> u64 {
        ((self.roll() as u128 * end as u128) >> 64) as u64
    }

    const fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The port of that number.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn port(number: u64) -> PortId {
    u32::try_from(number).ok().and_then(PortId::new).expect("benches use small numbers")
}

/// The segment of every bench.
///
/// # Panics
/// Never.
#[must_use]
pub fn segment() -> Segment {
    Segment::new(0, vlan()).expect("bridge 0 exists")
}

/// [`VLAN`], as a VLAN.
///
/// # Panics
/// Never.
#[must_use]
pub fn vlan() -> Vlan {
    Vlan::new(VLAN).expect("10 is a VLAN")
}

/// The address of station `number`; neighbours in number share nothing but the first bytes.
#[must_use]
pub const fn station(number: u64) -> Mac {
    // An odd factor, so no two of the first 2⁴⁰ stations have one address.
    Mac::from_u64(0x0200_0000_0000 | (number.wrapping_mul(0x9e_3779_b97f) & 0xff_ffff_ffff))
}

/// A TCP segment with 12 bytes of options over IPv4 or IPv6 in Ethernet: headers of 66 or 86 bytes, then
/// `payload` bytes; lengths are right, checksums zero.
#[must_use]
pub fn tcp(v6: bool, payload: usize) -> Vec<u8> {
    let mut frame = [station(1).bytes(), station(2).bytes()].concat();
    let word = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(word(32 + payload));
        frame.extend([6, 64]);
        frame.extend([0xfd; 32]);
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(word(52 + payload));
        frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    }
    frame.extend([0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 1, 0xf6, 0, 0, 0, 0]);
    frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
    let mut dice = Dice::new(7);
    frame.extend((0..payload).map(|_| u8::try_from(dice.below(256)).unwrap_or(0)));
    frame
}

/// A UDP datagram over IPv4 in an Ethernet frame of `len` bytes, at least 42; no checksum.
#[must_use]
pub fn udp(len: usize) -> Vec<u8> {
    let mut frame = [station(1).bytes(), station(2).bytes()].concat();
    let word = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(word(len.saturating_sub(14)));
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x30, 0x39, 0x14, 0x51]);
    frame.extend(word(len.saturating_sub(34)));
    frame.extend([0, 0]);
    frame.resize(len, 0x55);
    frame
}
