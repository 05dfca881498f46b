//! Throughput by frame size after RFC 2544 §26.1, with one difference: a trial counts as without loss when at most one
//! frame in a thousand is lost. No switch in software on a machine that also sends and receives loses nothing.

use super::Table;
use crate::ground::{Ground, Scene};
use crate::measure::{Pods, Stream, search};
use crate::options::Options;
use crate::peers::Peer;
use crate::report::short;
use crate::tools::Tools;

/// RFC 2544 §9.1: for Ethernet, in bytes, frame check sequence included.
const SIZES: [u32; 7] = [64, 128, 256, 512, 1024, 1280, 1518];
/// 14 of Ethernet, 20 of IPv4, 8 of UDP, 4 of the frame check sequence.
const HEADERS: u32 = 46;

const LOSS: f64 = 0.001;
const STEPS: u32 = 8;

pub(super) fn run(options: &Options, tools: &Tools) -> anyhow::Result<Table> {
    let mut head = vec!["scene, switch".to_owned()];
    head.extend(SIZES.iter().map(|size| format!("{size} B")));
    let mut table = Table::new("Throughput by frame size, kpps (Mbit/s), after RFC 2544", &[]);
    table.head = head;
    table.note(format!(
        "the greatest rate of one UDP flow with at most {} % lost, by bisection in {STEPS} steps of {} s; \
         Mbit/s of whole frames, without preamble and gap",
        LOSS * 100.0,
        options.seconds
    ));
    let peers = options.peers.clone().unwrap_or_else(|| vec![Peer::Vswitchd, Peer::Ovs, Peer::Kernel]);
    for scene in options.scenes.iter().copied().filter(|scene| *scene != Scene::Segmented) {
        for peer in &peers {
            let mut row = vec![format!("{}, {}", scene.word(), peer.title(scene))];
            match peer.unavailable(scene) {
                Some(why) => row.push(why),
                None => row.extend(sizes(options, tools, scene, *peer)?),
            }
            table.row(row);
        }
    }
    Ok(table)
}

fn sizes(options: &Options, tools: &Tools, scene: Scene, peer: Peer) -> anyhow::Result<Vec<String>> {
    let ground = Ground::new(scene)?;
    let mut switch = peer.start(&ground, tools)?;
    let pods = Pods::new(&ground, tools)?;
    pods.meet(&mut switch)?;
    let mut cells = Vec::new();
    for size in SIZES {
        let milliseconds = options.seconds * 1000;
        let stream = Stream { milliseconds, rate: 0.0, payload: size - HEADERS, flows: 1 };
        let most = pods.datagrams(stream)?.offered;
        let best = search(most, STEPS, |rate| Ok(pods.datagrams(Stream { rate, ..stream })?.loss <= LOSS))?;
        cells.push(format!("{} ({:.0})", short(best / 1e3), best * f64::from(size) * 8.0 / 1e6));
    }
    switch.must_live()?;
    Ok(cells)
}
