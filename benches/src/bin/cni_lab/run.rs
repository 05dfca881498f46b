//! The run: two nodes, pods that are made once and attached again and again, and one question after the other.

use crate::Options;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Duration;
use vswitch_benches::report::{Figure, Report};
use vswitch_tests::cni::{Attachment, Runner, directories, vswitch};
use vswitch_tests::lab::{Lab, Namespace, Stopwatch};
use vswitch_tests::mesh::percentile;
use vswitch_tests::node::{Fleet, Node, Underlay};

const FILE: &str = "[underlay]\naddress = \"192.0.2.0/24\"\n[mesh]\npeers = [\"192.0.2.1-192.0.2.2\"]\n\
    [[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010\n";

fn milliseconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}

/// Median, p99 and most of `times`, of which the p99 is to be at most `target`.
fn figure(mut times: Vec<Duration>, target: Option<Duration>) -> Figure {
    let [median, p99, most] = [50, 99, 100].map(|percent| percentile(&mut times, percent));
    let text = [median, p99, most].map(milliseconds).join(", ");
    Figure { text: format!("{text} ms of {}", times.len()), kept: target.is_none_or(|target| p99 <= target) }
}

/// One after the other, or all at once: how long `work` took for each attachment.
fn time_all(attachments: &[Attachment], at_once: bool, work: impl Fn(&Attachment) + Sync) -> Vec<Duration> {
    let timed = |attachment: &Attachment| {
        let clock = Stopwatch::start();
        work(attachment);
        clock.elapsed()
    };
    if !at_once {
        return attachments.iter().map(timed).collect();
    }
    let start = Barrier::new(attachments.len());
    let (start, timed) = (&start, &timed);
    std::thread::scope(|scope| {
        let one = |attachment| {
            scope.spawn(move || {
                start.wait();
                timed(attachment)
            })
        };
        let threads: Vec<_> = attachments.iter().map(one).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("an ADD or DEL failed, as said above"))
            .collect()
    })
}

fn add(runner: &Runner) -> impl Fn(&Attachment) + Sync + '_ {
    |attachment| {
        runner.add(attachment).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

fn del(runner: &Runner) -> impl Fn(&Attachment) + Sync + '_ {
    |attachment| runner.del(attachment).unwrap_or_else(|failure| panic!("{failure}"))
}

/// host-local with the files in a directory and the addresses of one node.
fn host_local(node: &Node, what: &str, n: u8) -> Value {
    let data = node.socket().with_file_name(what);
    json!({"type": "host-local", "dataDir": data, "ranges":
        [[{"subnet": "10.10.0.0/16", "rangeStart": format!("10.10.{n}.2"), "rangeEnd": format!("10.10.{n}.250")}]]})
}

struct Bed {
    underlay: Underlay,
    nodes: Vec<Node>,
    path: Vec<PathBuf>,
    pods: Vec<Namespace>,
    attachments: Vec<Attachment>,
    /// On the other node.
    far: Namespace,
    _fleet: Fleet,
}

impl Bed {
    fn new(lab: &Lab, options: &Options) -> anyhow::Result<Self> {
        let path = directories().context("build vswitchd and vswitch-cni beside this program")?;
        let underlay = Underlay::new(lab, 2, 1500);
        let fleet = Fleet::new(FILE);
        let spaces = underlay.nodes.iter().zip(["n1", "n2"]);
        let nodes: Vec<Node> = spaces.map(|(space, name)| fleet.spawn(space, name)).collect();
        nodes.iter().for_each(Node::until_ready);
        let pods: Vec<Namespace> = (0..options.pods).map(|n| lab.namespace(&format!("p{n}"))).collect();
        let attachments = pods.iter().map(Attachment::new).collect();
        Ok(Self { underlay, nodes, path, pods, attachments, far: lab.namespace("far"), _fleet: fleet })
    }

    fn ours(&self, n: u8, ipam: &Value) -> Runner {
        let at = usize::from(n) - 1;
        let list = vswitch("blue", self.nodes[at].socket(), &json!({"ipam": ipam}));
        Runner::new(&self.underlay.nodes[at], &self.path, &list)
    }

    /// From when `attachment` is added until its pod hears of `to` by ping, which is tried again where it is lost.
    fn first_ping(&self, runner: &Runner, n: usize, to: &str) -> Duration {
        add(runner)(&self.attachments[n]);
        let clock = Stopwatch::start();
        while !self.pods[n].try_run(&format!("ping -n -c 1 -W 1 {to}")).status.success() {}
        clock.elapsed()
    }
}

/// Everything that was asked, as Markdown.
pub(crate) fn run(options: &Options) -> anyhow::Result<String> {
    let mut report = Report::default();
    let cpus = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    report.note(&format!("{cpus} CPUs; Linux {}; load average before the run: {load}", kernel.trim()));
    let (pods, rounds) = (options.pods, options.rounds);
    report.note(&format!(
        "{pods} pods, {rounds} rounds, ours and the stock plugins in turn; median, p99, most"
    ));
    report
        .note("a time is from the plugin's start to its exit, its IPAM and the runtime's own work included");
    let lab = Lab::new();
    let bed = Bed::new(&lab, options)?;
    let ours = bed.ours(1, &host_local(&bed.nodes[0], "ours", 1));
    let alone = bed.ours(1, &json!({}));
    let stock_host = lab.namespace("stock");
    let bridge = json!({"type": "bridge", "bridge": "cni0", "ipam": host_local(&bed.nodes[0], "stock", 1)});
    let bridge = json!({"cniVersion": "1.0.0", "name": "stock", "plugins": [bridge]});
    let stock = Runner::new(&stock_host, &bed.path, &bridge);
    // The bridge is made and the files are read once before anybody looks.
    for runner in [&ours, &alone, &stock] {
        add(runner)(&bed.attachments[0]);
        del(runner)(&bed.attachments[0]);
    }
    let all = &bed.attachments;
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..rounds {
        for (at, runner) in [&ours, &stock].into_iter().enumerate() {
            times[2 * at].extend(time_all(all, true, add(runner)));
            times[2 * at + 1].extend(time_all(all, true, del(runner)));
        }
    }
    let [added, deleted, stock_added, stock_deleted] = times;
    let limit = |milliseconds| Some(Duration::from_millis(milliseconds));
    report.row(&format!("ADD, {pods} at once: vswitch-cni, vswitchd, host-local"), "p99 ≤ 50 ms", || {
        figure(added, limit(50))
    });
    report.row(&format!("ADD, {pods} at once: stock bridge, host-local"), "for comparison", || {
        figure(stock_added, None)
    });
    report.row(&format!("DEL, {pods} at once: ours"), "none", || figure(deleted, None));
    report.row(&format!("DEL, {pods} at once: stock"), "for comparison", || figure(stock_deleted, None));
    one_by_one(&mut report, &bed, [&ours, &alone, &stock], rounds);
    first_pings(&mut report, &bed, &ours)?;
    Ok(report.markdown("How long pods wait for their network"))
}

fn one_by_one(report: &mut Report, bed: &Bed, [ours, alone, stock]: [&Runner; 3], rounds: usize) {
    let all = &bed.attachments;
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..rounds.div_ceil(5) {
        times[0].extend(time_all(all, false, |_| drop(ours.versions("vswitch-cni"))));
        for (at, runner) in [(1, alone), (2, ours), (3, stock)] {
            times[at].extend(time_all(all, false, add(runner)));
            time_all(all, false, del(runner));
        }
    }
    let [version, bare, whole, bridge] = times;
    report.row("VERSION: the plugin from start to exit", "p99 ≤ 10 ms", || {
        figure(version, Some(Duration::from_millis(10)))
    });
    report.row("ADD, one by one: vswitch-cni and vswitchd, no IPAM", "none", || figure(bare, None));
    report.row("ADD, one by one: with host-local", "none", || figure(whole, None));
    report.row("ADD, one by one: stock bridge, host-local", "for comparison", || figure(bridge, None));
}

fn first_pings(report: &mut Report, bed: &Bed, ours: &Runner) -> anyhow::Result<()> {
    let there = bed.ours(2, &host_local(&bed.nodes[1], "far", 2));
    let far = there.add(&Attachment::new(&bed.far)).map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let far =
        far["ips"][0]["address"].as_str().and_then(|text| text.split('/').next()).context("an address")?;
    let times = (0..bed.pods.len()).map(|n| bed.first_ping(ours, n, far)).collect();
    report.row(
        "from ADD's end until the first ping to a pod on another node is answered, the start of ping included",
        "p99 ≤ 100 ms",
        || figure(times, Some(Duration::from_millis(100))),
    );
    time_all(&bed.attachments, true, del(ours));
    Ok(())
}
