//! The run: one host for each switch, and every question asked of both in turns.

use crate::Options;
use anyhow::Context as _;
use serde_json::json;
use std::time::Duration;
use vswitch_benches::report::{Figure, Report};
use vswitch_tests::daemon::program;
use vswitch_tests::lab::{Lab, Stopwatch, check, until};
use vswitch_tests::mesh::percentile;
use vswitch_tests::ovs_seat::{Seat, Switch};

/// The median that a script may wait for one port.
const TARGET: Duration = Duration::from_millis(50);

/// Ports in one transaction.
const AT_ONCE: usize = 1000;

/// A thousand ports may take this long before the measurement fails.
const PATIENCE: Duration = Duration::from_secs(120);

const SWITCHES: [Switch; 2] = [Switch::Ours, Switch::Stock];

fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

/// How long each port took, or what the switch complained of.
type Times = Result<Vec<Duration>, String>;

/// Median, p99 and most of `times`; the median of ours is to be within the target.
fn figure(times: Times, switch: Switch) -> Figure {
    let mut times = match times {
        Ok(times) => times,
        Err(complaint) => return Figure { text: format!("failed: {complaint}"), kept: false },
    };
    let [median, p99, most] = [50, 99, 100].map(|percent| percentile(&mut times, percent));
    let text = [median, p99, most].map(milliseconds).join(", ");
    let kept = switch == Switch::Stock || median <= TARGET;
    Figure { text: format!("{text} ms of {}", times.len()), kept }
}

/// The time that this line takes until the tool returns, which is when the switch carries it out.
fn timed(seat: &Seat, words: &str) -> Duration {
    let mut command = seat.tool("ovs-vsctl");
    command.arg("--timeout=30").args(words.split_whitespace());
    let clock = Stopwatch::start();
    check(&mut command);
    clock.elapsed()
}

/// Rows of one kind of port: how long each add and each removal took, by switch.
fn one_by_one(
    report: &mut Report,
    what: &str,
    seats: &[Seat; 2],
    ports: usize,
    words: impl Fn(usize) -> (String, String),
) {
    let mut added: [Times; 2] = [Ok(Vec::new()), Ok(Vec::new())];
    let mut removed: [Times; 2] = [Ok(Vec::new()), Ok(Vec::new())];
    for n in 0..ports {
        let (name, more) = words(n);
        for (seat, times) in seats.iter().zip(&mut added) {
            let Ok(so_far) = times else { continue };
            so_far.push(timed(seat, &format!("add-port br0 {name} {more}")));
            let error = check(seat.tool("ovs-vsctl").args(["get", "interface", &name, "error"]));
            if error.trim() != "[]" {
                *times = Err(error.trim().to_owned());
            }
        }
    }
    for n in 0..ports {
        for ((seat, added), times) in seats.iter().zip(&added).zip(&mut removed) {
            match (added, &mut *times) {
                (Ok(_), Ok(so_far)) => so_far.push(timed(seat, &format!("del-port br0 {}", words(n).0))),
                _ => *times = Err("nothing was added".to_owned()),
            }
        }
    }
    for (verb, times) in [("add-port", added), ("del-port", removed)] {
        for (switch, times) in SWITCHES.into_iter().zip(times) {
            let target = if switch == Switch::Ours { "median 50 ms" } else { "-" };
            report.row(&format!("{verb}, {what}: {}", name(switch)), target, || figure(times, switch));
        }
    }
}

const fn name(switch: Switch) -> &'static str {
    match switch {
        Switch::Ours => "vswitchd",
        Switch::Stock => "ovs-vswitchd",
    }
}

/// From when a thousand internal ports go into the database until the switch says that it carries them out.
fn at_once(seat: &Seat) -> Duration {
    let ports: Vec<_> = (0..AT_ONCE).map(|n| (format!("m{n}"), json!({"type": "internal"}))).collect();
    let clock = Stopwatch::start();
    let next = seat.insert_ports("br0", &ports);
    until("a thousand ports", PATIENCE, || seat.carries_out(next).then_some(()));
    clock.elapsed()
}

/// Everything that was asked, as Markdown.
pub(crate) fn run(options: &Options) -> anyhow::Result<String> {
    program("vswitchd").context("build vswitchd beside this program")?;
    let mut report = Report::default();
    let cpus = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    report.note(&format!("{cpus} CPUs; Linux {}; load average before the run: {load}", kernel.trim()));
    report.note("median, p99 and most; both switches in turns, each with a database server of its own");
    let lab = Lab::new();
    let seats = SWITCHES.map(|switch| {
        let seat = Seat::new(&lab, name(switch), switch);
        seat.bridge("br0");
        seat
    });
    let version = check(seats[1].tool("ovs-vswitchd").arg("--version"));
    report.note(version.lines().next().unwrap_or_default());
    let ports = options.ports;
    one_by_one(&mut report, "internal", &seats, ports, |n| {
        (format!("i{n}"), format!("-- set interface i{n} type=internal"))
    });
    for seat in &seats {
        let lines: Vec<_> = (0..ports).map(|n| format!("link add v{n} type veth peer name w{n}\n")).collect();
        seat.host().ip_batch(&lines.concat());
    }
    one_by_one(&mut report, "existing interface", &seats, ports, |n| (format!("v{n}"), "tag=10".to_owned()));
    one_by_one(&mut report, "vxlan", &seats, ports, |n| {
        let remote = format!("192.0.2.{}", n % 250 + 1);
        (
            format!("x{n}"),
            format!("-- set interface x{n} type=vxlan options:remote_ip={remote} options:key={n}"),
        )
    });
    for seat in &seats {
        report.row(
            &format!("{AT_ONCE} internal ports in one transaction: {}", name(seat.switch())),
            "-",
            || Figure { text: format!("{} ms", milliseconds(at_once(seat))), kept: true },
        );
    }
    Ok(report.markdown("How long a script waits for ovs-vsctl"))
}
