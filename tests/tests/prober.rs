//! The prober's rules, one by one: what it costs, whom it believes, what it does not fall for.
//!
//! `VSWITCH_SEED` repeats a run, `VSWITCH_RUNS` lengthens it. Not here: many of them together (see `prober_sim.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::panic::catch_unwind;
use std::time::Duration;
use vswitch_core::Instant;
use vswitch_tests::frames::hex;
use vswitch_tests::prober_body::{Question, datagram, prober_body};
use vswitch_tests::probing::{address, number, prober};
use vswitch_tests::rng::Rng;
use vswitchd::slow::{Output, PeerState, ProbePeer, Prober};

const INTERVAL: Duration = Duration::from_millis(500);

fn peer(n: usize) -> ProbePeer {
    ProbePeer { address: address(n), mtu_limit: 1500, speaks: true, boot: Some(1) }
}

/// One prober and its peers, of whom `answers` says who does.
struct Desk {
    prober: Prober,
    now: Instant,
    answers: Box<dyn Fn(IpAddr) -> bool>,
    /// Every question that was put, with its length.
    asked: Vec<(Instant, IpAddr, usize)>,
}

impl Desk {
    fn new(peers: impl IntoIterator<Item = ProbePeer>) -> Self {
        let now = Instant::from_secs(1);
        let mut prober = prober(now, 1);
        prober.set_peers(peers);
        Self { prober, now, answers: Box::new(|_| true), asked: Vec::new() }
    }

    /// Does what is wanted, until nothing more is.
    fn settle(&mut self) {
        while let Some(output) = self.prober.poll() {
            let Output::Send { to, datagram } = output else { continue };
            if let Some(question) = Question::read(self.now, to, &datagram) {
                self.asked.push((self.now, to, datagram.len()));
                if (self.answers)(to) {
                    let answer = question.answer();
                    self.prober.datagram(self.now, to, &answer, answer.len());
                }
            }
        }
    }

    /// Lets time pass, from one thing that is due to the next.
    fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        self.settle();
        while let Some(due) = self.prober.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.prober.tick(self.now);
            self.settle();
        }
        self.now = end;
    }

    fn state(&self, n: usize) -> PeerState {
        self.prober.status(address(n)).unwrap().state
    }
}

#[test]
fn the_cost_of_an_interval_is_the_same_for_every_size_of_mesh() {
    for count in [10, 100, 1000] {
        let mut desk = Desk::new((0..count).map(peer));
        desk.run(Duration::from_secs(30));
        assert!((0..count).all(|n| desk.state(n) == PeerState::Up));
        desk.asked.clear();
        desk.run(INTERVAL * 100);
        let living: usize = desk.asked.iter().map(|asked| asked.2).sum();
        assert!(desk.asked.len() <= 202, "{count} peers: {}", desk.asked.len());
        // All but one in five die.
        desk.answers = Box::new(|address| number(address).is_multiple_of(5));
        desk.run(Duration::from_secs(600));
        desk.asked.clear();
        desk.run(INTERVAL * 100);
        println!(
            "{count} peers, an interval: all up {} bytes in 2 questions; four in five down {} questions, {} bytes",
            living / 100,
            desk.asked.len() / 100,
            desk.asked.iter().map(|asked| asked.2).sum::<usize>() / 100,
        );
        assert!(desk.asked.len() <= 1200, "{count} peers: {}", desk.asked.len());
    }
}

#[test]
fn mutes_cost_no_more_where_there_are_many_and_are_never_down() {
    for count in [10, 1000] {
        let mut desk = Desk::new((0..count).map(|n| ProbePeer { speaks: false, boot: None, ..peer(n) }));
        desk.answers = Box::new(|_| false);
        desk.run(Duration::from_secs(1000));
        desk.asked.clear();
        desk.run(INTERVAL * 200);
        println!("{count} mutes: {} questions in 200 intervals", desk.asked.len());
        assert!(desk.asked.len() <= 810);
        assert!(desk.asked.iter().all(|asked| asked.2 == 48), "nothing large for those who may be mute");
        assert!((0..count).all(|n| desk.state(n) == PeerState::Unknown));
    }
}

#[test]
fn a_mute_is_asked_ever_more_rarely_and_once_a_minute_at_last() {
    let mut desk = Desk::new([ProbePeer { speaks: false, boot: None, ..peer(0) }]);
    desk.answers = Box::new(|_| false);
    desk.run(Duration::from_secs(600));
    let firsts: Vec<u64> = desk.asked.chunks(2).map(|pair| pair[0].0.as_secs()).collect();
    let gaps: Vec<u64> = firsts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.is_sorted_by(|a, b| *a <= b + 1), "{gaps:?}");
    assert!(gaps[0] <= 3 && (60..=62).contains(gaps.last().unwrap()), "{gaps:?}");
}

#[test]
fn first_contacts_are_made_at_once_and_spread() {
    let mut desk = Desk::new((0..1000).map(peer));
    let start = desk.now;
    desk.run(Duration::ZERO);
    assert_eq!(desk.asked.len(), 1, "a single new peer would not wait");
    desk.run(Duration::from_secs(30));
    for second in 0..25 {
        let within = |at: Instant| at.since(start).as_secs() == second;
        let asked = desk.asked.iter().filter(|asked| within(asked.0)).count();
        assert!(asked <= 50 + 2 * 3, "{asked} in second {second}");
    }
    assert!((0..1000).all(|n| desk.state(n) == PeerState::Up));
}

#[test]
fn traffic_puts_a_probe_off_for_ten_intervals_and_proves_nothing() {
    let mut desk = Desk::new((0..4).map(peer));
    desk.run(Duration::from_secs(5));
    desk.asked.clear();
    let talks = |desk: &mut Desk, n: usize, intervals: usize| {
        for _ in 0..intervals {
            desk.prober.heard(address(n));
            desk.run(INTERVAL);
        }
    };
    talks(&mut desk, 0, 120);
    let asked = desk.asked.iter().filter(|asked| asked.1 == address(0)).count();
    let others = desk.asked.iter().filter(|asked| asked.1 == address(1)).count();
    assert!((8..=14).contains(&asked), "{asked} of 120 intervals");
    assert!(others > 4 * asked, "{others}");
    desk.answers = Box::new(|to| to != address(0));
    talks(&mut desk, 0, 14);
    assert_eq!(desk.state(0), PeerState::Down, "its source address goes on, it does not answer");
    talks(&mut desk, 0, 14);
    assert_eq!(desk.state(0), PeerState::Down);
}

#[test]
fn one_that_only_others_reach_is_down_in_the_end() {
    // All that is sent to the last peer is lost here; the others say that it lives.
    let mut desk = Desk::new((0..5).map(peer));
    desk.run(Duration::from_secs(5));
    desk.answers = Box::new(|to| to != address(4));
    desk.run(Duration::from_secs(10));
    assert_eq!(desk.state(4), PeerState::Down);
}

#[test]
fn questions_for_others_are_honoured_for_peers_about_peers_and_a_few_at_a_time() {
    let mut desk = Desk::new((0..4).map(peer));
    desk.run(Duration::from_secs(5));
    desk.asked.clear();
    let mut ask = |from: IpAddr, about: IpAddr, times: u8| {
        let before = desk.asked.len();
        desk.answers = Box::new(|_| false);
        for n in 0..times {
            desk.prober.datagram(desk.now, from, &datagram(3, 48, [n; 16], about, 48), 48);
        }
        desk.settle();
        desk.asked.len() - before
    };
    let stranger = IpAddr::from([203, 0, 113, 9]);
    assert_eq!(ask(stranger, address(1), 9), 0, "not for strangers");
    assert_eq!(ask(address(0), stranger, 9), 0, "not about strangers");
    assert_eq!(ask(address(0), address(0), 9), 0, "not about the asker");
    assert_eq!(ask(address(0), address(1), 200), 20);
    assert_eq!(ask(address(2), address(1), 200), 20, "one leaves something to the others");
}

#[test]
fn another_life_begins_with_nothing_and_a_start_that_becomes_known_changes_nothing() {
    let mut desk = Desk::new([ProbePeer { boot: None, ..peer(0) }]);
    desk.run(Duration::from_secs(2));
    let known = desk.prober.status(address(0)).unwrap();
    assert_eq!((known.state, known.mtu), (PeerState::Up, Some(1500)));
    desk.prober.set_peers([peer(0)]);
    assert_eq!(desk.prober.status(address(0)), Some(known));
    desk.prober.set_peers([ProbePeer { boot: Some(2), ..peer(0) }]);
    let anew = desk.prober.status(address(0)).unwrap();
    assert_eq!((anew.state, anew.mtu), (PeerState::Unknown, None));
    assert_eq!(desk.prober.poll(), Some(Output::Changed(address(0))));
    desk.run(Duration::from_secs(1));
    assert_eq!(desk.state(0), PeerState::Up);
    desk.prober.set_peers([]);
    assert_eq!((desk.prober.status(address(0)), desk.prober.next_due()), (None, None));
}

#[test]
fn a_node_that_slept_judges_nobody_by_answers_it_has_not_read() {
    let mut desk = Desk::new((0..10).map(peer));
    desk.run(Duration::from_secs(5));
    desk.answers = Box::new(|_| false);
    (0..10).for_each(|n| desk.prober.suspect(desk.now, address(n)));
    // Everything was lost but the answers to the last small probes, which nobody reads: we are stopped.
    desk.run(Duration::from_millis(550));
    let slept = |desk: &mut Desk| {
        desk.now = desk.now.after(Duration::from_millis(2500));
        desk.prober.tick(desk.now);
        (0..10).filter(|n| desk.state(*n) == PeerState::Down).count()
    };
    assert_eq!(slept(&mut desk), 0);
    assert_eq!(slept(&mut desk), 10, "one that is always late judges all the same");
}

#[test]
fn an_answer_of_another_length_proves_a_life_and_no_path() {
    let mut desk = Desk::new([peer(0)]);
    let Some(Output::Send { to, datagram: asked }) = desk.prober.poll().or_else(|| {
        desk.prober.tick(desk.now);
        desk.prober.poll()
    }) else {
        panic!("nothing is asked")
    };
    assert_eq!(asked.len(), 1472);
    let cut = datagram(2, 1471, asked[16..32].try_into().unwrap(), IpAddr::from([0; 16]), 48);
    desk.prober.datagram(desk.now, to, &cut, cut.len());
    let status = desk.prober.status(to).unwrap();
    assert_eq!((status.state, status.mtu), (PeerState::Up, None));
}

#[test]
fn whatever_happens_only_whom_it_asked_changes_its_mind() {
    let runs = std::env::var("VSWITCH_RUNS").map_or(2000, |runs| runs.parse().unwrap());
    let mut rng = Rng::from_env(1);
    for run in 0..runs {
        let len = rng.within(2..=400);
        let data = rng.bytes(len);
        if catch_unwind(|| prober_body(&data)).is_err() {
            panic!("run {run} of seed {}: {}", rng.seed(), hex(&data));
        }
    }
}

#[test]
fn bytes_of_every_pattern_happen_too() {
    let kinds: BTreeSet<u8> = (0..=255).collect();
    for byte in kinds {
        prober_body(&[byte; 200]);
        prober_body(&[0, 25, 4, 0, byte, byte, 4, 1].repeat(20));
    }
}
