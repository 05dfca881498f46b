//! One worker of vswitchd beside two, with 64 flows: whether the second costs anything where there are two CPUs for
//! sender, switch and receiver together, and whether datagrams of one flow stay in order.

use super::Table;
use crate::ground::{Ground, Scene};
use crate::measure::{Pods, SMALLEST_PAYLOAD, Stream};
use crate::options::Options;
use crate::peers::vswitchd;
use crate::report::short;
use crate::stats::summary;
use crate::targets::Bound;
use crate::tools::Tools;

const FLOWS: u32 = 64;

/// Two workers' part of one's.
const MUST: Bound = Bound::AtLeast(0.95);

/// What one turn has seen.
#[derive(Debug, Default)]
struct Seen {
    tcp: Vec<f64>,
    udp: Vec<f64>,
    reordered: f64,
}

pub(super) fn run(options: &Options, tools: &Tools) -> anyhow::Result<Table> {
    let head = ["scene, load", "1 worker", "2 workers", "2 ÷ 1", "must", "reached"];
    let mut table = Table::new("vswitchd, two workers beside one, 64 flows", &head);
    table.note(format!("medians of {} rounds, {} s per throughput", options.rounds, options.seconds));
    for scene in options.scenes.iter().copied().filter(|scene| *scene != Scene::Segmented) {
        let mut seen = [Seen::default(), Seen::default()];
        for _ in 0..options.rounds {
            for (seen, workers) in seen.iter_mut().zip([1, 2]) {
                turn(options, tools, scene, workers, seen)?;
            }
        }
        let [one, two] = seen;
        for (what, one, two) in
            [("TCP, Gbit/s", one.tcp, two.tcp), ("64 B UDP received, kpps", one.udp, two.udp)]
        {
            let (Some(one), Some(two)) = (summary(&one), summary(&two)) else { continue };
            let ratio = two.median / one.median;
            table.row([
                format!("{}, {what}", scene.word()),
                short(one.median),
                short(two.median),
                short(ratio) + "×",
                MUST.to_string(),
                if MUST.holds(ratio) { "yes" } else { "no" }.to_owned(),
            ]);
        }
        table.row([
            format!("{}, datagrams out of order", scene.word()),
            one.reordered.to_string(),
            two.reordered.to_string(),
            String::new(),
            "0".to_owned(),
            if one.reordered + two.reordered == 0.0 { "yes" } else { "no" }.to_owned(),
        ]);
    }
    Ok(table)
}

fn turn(options: &Options, tools: &Tools, scene: Scene, workers: u32, seen: &mut Seen) -> anyhow::Result<()> {
    let ground = Ground::new(scene)?;
    let mut switch = vswitchd::start(&ground, tools, &format!("[datapath]\nworkers = {workers}\n\n"))?;
    let pods = Pods::new(&ground, tools)?;
    pods.meet(&mut switch)?;
    seen.tcp.push(pods.tcp(FLOWS, options.seconds)?.0 / 1e9);
    let milliseconds = options.seconds * 1000;
    let got = pods.datagrams(Stream { milliseconds, rate: 0.0, payload: SMALLEST_PAYLOAD, flows: FLOWS })?;
    seen.udp.push(got.rate / 1e3);
    seen.reordered += got.reordered;
    pods.no_checksum_errors()?;
    switch.must_live()
}
