//! A daemon that nobody talks to sleeps: its threads wake up for their ticks and use no processor, whether it has two
//! ports or two hundred.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write as _;
use std::time::Duration;
use vswitch_tests::daemon::{Host, PATIENCE, with_host};
use vswitch_tests::lab::{Deadline, until};

/// Times that a worker goes to sleep while it is watched; it has one tick a second.
const SLEEPS: u64 = 4;
/// The shortest time in which it may do so: ten times a second.
const SHORTEST: Duration = Duration::from_millis(400);
/// What all threads together may run in that time, some four seconds, built without optimisation: half a per cent.
const RUNS: Duration = Duration::from_millis(20);

/// A thread of the daemon: its number, its name, how often it went to sleep, and how long it has run.
#[derive(Clone, Debug)]
struct Thread {
    name: String,
    number: String,
    sleeps: u64,
    runs: Duration,
}

fn threads(host: &Host) -> Vec<Thread> {
    let tasks = format!("/proc/{}/task", host.daemon().pid());
    let thread = |number: String| {
        let read = |file: &str| std::fs::read_to_string(format!("{tasks}/{number}/{file}")).unwrap();
        let status = read("status");
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        // The first of schedstat's numbers: nanoseconds on a processor.
        let runs = read("schedstat").split(' ').next().unwrap().parse().unwrap();
        Thread {
            name: read("comm").trim().to_owned(),
            sleeps: sleeps.trim().parse().unwrap(),
            runs: Duration::from_nanos(runs),
            number,
        }
    };
    let numbers = std::fs::read_dir(&tasks).unwrap();
    numbers.map(|entry| thread(entry.unwrap().file_name().into_string().unwrap())).collect()
}

fn an_idle_daemon_sleeps(host: &mut Host, ports: usize) {
    let mut file = "[datapath]\nworkers = 2\n".to_owned();
    for n in 0..ports {
        let _ = writeln!(file, "[[port]]\nname = \"tap{n}\"\ntag = 10");
    }
    host.start_on(&file);
    assert_eq!(host.json("status")["ports_up"], ports);
    // It has been asked something: let every worker go to sleep once more before it is watched.
    let asleep = threads(host);
    let workers = |threads: &[Thread]| -> Vec<Thread> {
        threads.iter().filter(|thread| thread.name.starts_with("worker-")).cloned().collect()
    };
    assert_eq!(workers(&asleep).len(), 2, "{asleep:?}");
    let slept = |since: &[Thread], times: u64| {
        let since = workers(since);
        until("sleeping workers", PATIENCE, || {
            let now = threads(host);
            let all = workers(&now).iter().zip(&since).all(|(now, since)| now.sleeps >= since.sleeps + times);
            all.then_some(now)
        })
    };
    let before = slept(&asleep, 1);
    let clock = Deadline::after(PATIENCE);
    let after = slept(&before, SLEEPS);
    let took = PATIENCE - clock.left().unwrap_or_default();
    let ran: Duration = after.iter().zip(&before).map(|(after, before)| after.runs - before.runs).sum();
    assert!(took >= SHORTEST, "a worker woke up {SLEEPS} times in {took:?}: {before:?} {after:?}");
    assert!(ran <= RUNS, "{ran:?} of {took:?} on a processor: {before:?} {after:?}");
    for (after, before) in after.iter().zip(&before) {
        assert_eq!(after.number, before.number);
        let sleeps = after.sleeps - before.sleeps;
        assert!(sleeps <= 10 * took.as_secs().max(1), "{} woke up {sleeps} times in {took:?}", after.name);
    }
}

#[test]
fn a_daemon_with_two_ports_that_nobody_talks_to_sleeps() {
    with_host("a_daemon_with_two_ports_that_nobody_talks_to_sleeps", |_, mut host| {
        an_idle_daemon_sleeps(&mut host, 2);
    });
}

#[test]
fn a_daemon_with_two_hundred_ports_that_nobody_talks_to_sleeps() {
    with_host("a_daemon_with_two_hundred_ports_that_nobody_talks_to_sleeps", |_, mut host| {
        an_idle_daemon_sleeps(&mut host, 200);
    });
}
