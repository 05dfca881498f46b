//! The run: start everything, then one question after the other.

use crate::Options;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::time::Duration;
use vswitch_benches::report::{Figure, Report};
use vswitch_tests::etcd::Etcd;
use vswitch_tests::lab::{Lab, Stopwatch};
use vswitch_tests::mesh::{
    Flood, Hearing, Membership, Mesh, NeighbourRoom, Plan, Pods, ROUTER, Routed, Station, Subnet, cpu_time,
    etcd_url, percentile, resident, v4, without,
};

/// How long a question may take before it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long nothing is asked, to see what the daemons do by themselves.
const IDLE: Duration = Duration::from_secs(20);

/// What is left from the questions before ends within this time.
const SETTLE: Duration = Duration::from_secs(10);

/// Stations that move, one after the other.
const MOVES: u8 = 10;

/// How often a pod tries to reach a station that moves: the resolution of that figure.
const PACE: Duration = Duration::from_millis(20);

/// Broadcasts a second that may be under way to see who still floods to a dead node.
const FLOODED: usize = 20_000;

/// Nodes that are killed, one after the other.
const KILLED: usize = 3;

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

fn within(time: Duration, most: Duration) -> Figure {
    Figure { text: seconds(time), kept: time <= most }
}

/// Members through etcd, with the lease that a file without one has.
fn cluster() -> Membership {
    Membership::Cluster { etcd: etcd_url(), prefix: "/vswitch/default".to_owned(), lease: 10 }
}

/// Everything that was asked, as Markdown.
pub(crate) fn run(options: &Options) -> anyhow::Result<String> {
    let count = options.nodes;
    let room = NeighbourRoom::new((count + 2) * (count + 2));
    if room.is_none() && count > 30 {
        eprintln!(
            "the kernel's room for neighbours cannot be made larger here: pods will not find all of each other"
        );
    }
    let lab = Lab::new();
    let mut report = Report::default();
    circumstances(&mut report, options)?;

    let membership = if options.is_static { Membership::Static } else { cluster() };
    // One more than run at first, and a second VLAN that few nodes have.
    let mut plan = Plan::new(count + 1, membership);
    plan.subnets.push(Subnet { vlan: 20, nodes: (1..=(count / 10).max(2)).collect() });
    plan.segments += "\n[[segment]]\nname = \"red\"\nvlan = 20\nvni = 10020\n";
    let clock = Stopwatch::start();
    let underlay = Routed::new(&lab, plan.nodes);
    let store = (!options.is_static).then(|| Etcd::start_in(&underlay.router, ROUTER.into()));
    let mut mesh = Mesh::on(underlay, &plan);
    let pods = Pods::open(&mesh.underlay);
    report.note(&format!("the namespaces and the router took {}", seconds(clock.elapsed())));

    let first: Vec<usize> = (1..=count).collect();
    let clock = Stopwatch::start();
    mesh.spawn_all(&first);
    report.note(&format!("starting the daemons, a few at a time, took {}", seconds(clock.elapsed())));
    report.row(
        &format!(
            "from the last start until all {} ordered pairs of pods have reached each other",
            count * (count - 1)
        ),
        "≤ 10 s",
        || within(pods.until_all_reach(1, &first, PATIENCE), Duration::from_secs(10)),
    );
    first.iter().for_each(|n| mesh.until_ready(*n));
    idle(&mut report, &mesh, &first);
    if let Some(store) = &store {
        let (cpu, bytes) = (cpu_time(store.pid()), resident(store.pid()));
        let text = format!(
            "etcd has used {} of CPU until then, and has {} MB resident",
            seconds(cpu),
            bytes / 1_000_000
        );
        report.note(&text);
    }

    report.row(
        &format!("from the start of node {} until it and all others have reached each other", count + 1),
        "≤ 2 s",
        || {
            let clock = Stopwatch::start();
            mesh.spawn(count + 1);
            pods.until_reached(1, first.iter().flat_map(|n| [(*n, count + 1), (count + 1, *n)]), PATIENCE);
            within(clock.elapsed(), Duration::from_secs(2))
        },
    );
    let all: Vec<usize> = (1..=count + 1).collect();

    copies(&mut report, &mesh, &pods, &all, 1);
    copies(&mut report, &mesh, &pods, &plan.subnets[1].nodes, 2);
    stations(&mut report, &mesh, &pods, &all);
    dead(&mut report, &mut mesh, &pods, &all);
    Ok(report.markdown("A mesh of real daemons on one machine"))
}

fn circumstances(report: &mut Report, options: &Options) -> anyhow::Result<()> {
    let cpus = std::thread::available_parallelism().context("how many CPUs there are")?;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().next().unwrap_or("?");
    report.note(&format!(
        "{cpus} CPUs for all nodes; Linux {}; load average before the run: {load}",
        kernel.trim()
    ));
    let members =
        if options.is_static { "all nodes listed in the file, no etcd" } else { "members through etcd" };
    report.note(&format!(
        "{} daemons with one file; {members}; every datagram between two nodes is routed",
        options.nodes
    ));
    Ok(())
}

/// What the daemons take while nobody asks anything of them.
fn idle(report: &mut Report, mesh: &Mesh, nodes: &[usize]) {
    std::thread::sleep(SETTLE);
    let pids: Vec<u32> = nodes.iter().map(|n| mesh.node(*n).daemon.pid()).collect();
    let clock = Stopwatch::start();
    let before: Vec<Duration> = pids.iter().map(|pid| cpu_time(*pid)).collect();
    std::thread::sleep(IDLE);
    let share = |(pid, before): (&u32, Duration)| {
        (cpu_time(*pid) - before).as_secs_f64() / clock.elapsed().as_secs_f64() * 100.0
    };
    let mut shares: Vec<f64> = pids.iter().zip(before).map(share).collect();
    let mut memory: Vec<u64> = pids.iter().map(|pid| resident(*pid)).collect();
    report.row("CPU of an idle daemon, of one core: median, most", "≤ 0.5 %", || {
        let (median, most) = (percentile(&mut shares, 50), percentile(&mut shares, 100));
        Figure { text: format!("{median:.3} %, {most:.3} %"), kept: most <= 0.5 }
    });
    report.row("resident memory of a daemon: median, most", "≤ 20 MB", || {
        let (median, most) = (percentile(&mut memory, 50), percentile(&mut memory, 100));
        let tenth = |bytes: u64| format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10);
        Figure { text: format!("{}, {}", tenth(median), tenth(most)), kept: most <= 20_000_000 }
    });
}

fn copies(report: &mut Report, mesh: &Mesh, pods: &Pods, nodes: &[usize], subnet: u8) {
    let what = format!("datagrams for one broadcast in a VLAN on {} nodes", nodes.len());
    report.row(&what, &format!("{}, one for each other node", nodes.len() - 1), || {
        let mut seen = Vec::new();
        for from in nodes.iter().step_by((nodes.len() / 3).max(1)) {
            let others = without(nodes, *from);
            let copies = Flood { mesh, pods, from: *from, subnet }.copies(&others);
            let exact: BTreeMap<_, _> = others.iter().map(|n| (v4(*n), 1)).collect();
            let heard: BTreeMap<_, _> = others.iter().map(|n| (*n, 1)).collect();
            let sent: usize = copies.datagrams.values().sum();
            seen.push((sent, copies.datagrams == exact && copies.arrived == heard));
        }
        let text: Vec<String> = seen.iter().map(|(sent, _)| sent.to_string()).collect();
        Figure { text: text.join(", "), kept: seen.iter().all(|(_, exact)| *exact) }
    });
}

/// A silent pod that turns up at another node while the first one still has it.
fn stations(report: &mut Report, mesh: &Mesh, pods: &Pods, nodes: &[usize]) {
    let mut calls = Vec::new();
    let what = format!(
        "a station that moves, until a packet from every other node finds it: {MOVES} moves; median, p99, most"
    );
    report.row(&what, "p99 ≤ 200 ms", || {
        let mut times = Vec::new();
        for number in 1..=MOVES {
            let station = Station::new(1, 10, number);
            let from = nodes[usize::from(number) * 7 % nodes.len()];
            let to = nodes[(usize::from(number) * 7 + nodes.len() / 2) % nodes.len()];
            station.come(mesh, from);
            let follow = |at, senders: &[usize], clock| {
                pods.until_found(station.address, at, senders, clock, PACE, PATIENCE)
            };
            let others = without(nodes, from);
            follow(from, &others, Stopwatch::start());
            let clock = Stopwatch::start();
            station.come(mesh, to);
            calls.push(clock.elapsed());
            // The old node's kernel has the address itself and would not ask the switch.
            times.extend(follow(to, &without(&others, to), clock).into_values());
            station.leave(mesh, from);
        }
        let [median, p99, most] = [50, 99, 100].map(|percent| percentile(&mut times, percent));
        let text = [median, p99, most].map(milliseconds).join(", ");
        Figure { text, kept: p99 <= Duration::from_millis(200) }
    });
    if !calls.is_empty() {
        let call = milliseconds(percentile(&mut calls, 50));
        report.note(&format!(
            "a move is timed from the call that adds the port, which takes {call} itself (median)"
        ));
    }
}

/// A daemon that is killed, until no other floods to it.
fn dead(report: &mut Report, mesh: &mut Mesh, pods: &Pods, nodes: &[usize]) {
    let mut living = nodes.to_vec();
    let pace = nodes.len() * nodes.len() * 1000 / FLOODED;
    let pace = Duration::from_millis(u64::try_from(pace.max(100)).unwrap_or(u64::MAX));
    let what = format!(
        "a daemon that is killed, until the last copy of a broadcast goes to it: {KILLED} of them, most"
    );
    report.row(&what, "≤ 3 s", || {
        let mut times = Vec::new();
        for turn in 1..=KILLED {
            let node = living[living.len() * turn / (KILLED + 1)];
            living.retain(|n| *n != node);
            let mut hearing = Hearing::open(mesh, node);
            let clock = Stopwatch::start();
            mesh.end(node, "KILL");
            times.push(hearing.until_silent(pods, 1, &living, clock, pace, PATIENCE));
        }
        within(percentile(&mut times, 100), Duration::from_secs(3))
    });
    report.note(&format!("every pod broadcasts once in {} while nodes die", milliseconds(pace)));
}
