//! What vswitchd costs while nothing is sent: CPU with 2 and with 200 ports, and memory.

use super::Table;
use crate::ground::{Ground, Scene};
use crate::measure::Pods;
use crate::options::Options;
use crate::peers::vswitchd;
use crate::place::{Clock, Namespace};
use crate::report::short;
use crate::stats::summary;
use crate::targets::Bound;
use crate::tools::Tools;
use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

const PORTS: [u32; 2] = [2, 200];

/// After the start, and the first frames.
const SETTLE: Duration = Duration::from_secs(2);

/// Percent of one CPU.
const MUST: Bound = Bound::AtMost(0.2);

pub(super) fn run(options: &Options, tools: &Tools) -> anyhow::Result<Table> {
    let mut table =
        Table::new("vswitchd with nothing to do", &["ports", "CPU, % of one", "RSS, MB", "must", "reached"]);
    let watched = Duration::from_secs((options.seconds * 5).into());
    table.note(format!(
        "median (least–greatest) of {} rounds, each {} s after {} s to settle; without IPv6, so that nothing is \
         sent",
        options.rounds,
        watched.as_secs(),
        SETTLE.as_secs()
    ));
    let mut samples = PORTS.map(|ports| (ports, Vec::new(), Vec::new()));
    for _ in 0..options.rounds {
        for (ports, cpu, memory) in &mut samples {
            let (percent, bytes) = once(*ports, watched, tools)?;
            cpu.push(percent);
            memory.push(bytes / 1e6);
        }
    }
    for (ports, cpu, memory) in samples {
        let (Some(cpu), Some(memory)) = (summary(&cpu), summary(&memory)) else { continue };
        let reached = if MUST.holds(cpu.median) { "yes" } else { "no" };
        table.row([
            ports.to_string(),
            format!("{:.3} ({:.3}–{:.3})", cpu.median, cpu.least, cpu.greatest),
            short(memory.median),
            "≤ 0.2 %".to_owned(),
            reached.to_owned(),
        ]);
    }
    Ok(table)
}

/// Percent of one CPU, and bytes resident.
fn once(ports: u32, watched: Duration, tools: &Tools) -> anyhow::Result<(f64, f64)> {
    let ground = Ground::new(Scene::Pods)?;
    ground.pods.iter().chain(&ground.nodes).try_for_each(Namespace::silence)?;
    // Two ports are the pods'; the others stay on the node.
    let mut more = String::new();
    for port in 3..=ports {
        let _ = write!(more, "[[port]]\nname = \"tap-{port}\"\ntag = 10\n\n");
    }
    let mut switch = vswitchd::start(&ground, tools, &more)?;
    Pods::new(&ground, tools)?.meet(&mut switch)?;
    sleep(SETTLE);
    let (begun, before) = (Clock::now(), switch.cpu_seconds_exactly()?);
    sleep(watched);
    let used = switch.cpu_seconds_exactly()? - before;
    let resident = switch.resident()?.unwrap_or_default();
    switch.must_live()?;
    Ok((used / begun.elapsed().as_secs_f64() * 100.0, resident))
}
