//! `benches/compare`: vswitchd beside its peers, in one interleaved run: this file takes turns.
//!
//! In each round every peer is put on fresh ground, measured and taken away, in an order that moves on by one from round
//! to round: what the machine does meanwhile, it does to all. Only ratios within one run mean anything.

mod ground;
mod measure;
mod modes;
mod options;
mod peers;
mod place;
mod report;
mod stats;
mod targets;
mod tools;

use crate::ground::{Ground, Scene};
use crate::measure::{Metric, Plan};
use crate::modes::Mode;
use crate::options::{Options, Wish};
use crate::peers::Peer;
use crate::place::Clock;
use crate::stats::Results;
use crate::tools::Tools;
use std::process::ExitCode;

const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = if arguments.first().is_some_and(|word| word == place::WITHIN) {
        place::become_within(&arguments[1..])
    } else {
        match options::parse(lexopt::Parser::from_env()) {
            Ok(Wish::Help) => {
                println!("{}", options::USAGE);
                Ok(())
            }
            Ok(Wish::Run(mode, options)) => run(mode, &options),
            Err(error) => {
                eprintln!("compare: {error}; --help shows the usage");
                return ExitCode::from(EX_USAGE);
            }
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: Option<Mode>, options: &Options) -> anyhow::Result<()> {
    place::isolate()?;
    let tools = Tools::prepare()?;
    let Some(mode) = mode else { return compare(options, &tools) };
    let machine = tools::machine();
    let mut table = mode.run(options, &tools)?;
    table.notes.extend(machine);
    print!("{}", report::write_table(&table, &options.out, mode.word())?);
    Ok(())
}

/// The comparison itself. Fails when vswitchd, where it takes part, has failed once.
fn compare(options: &Options, tools: &Tools) -> anyhow::Result<()> {
    let (begun, machine) = (Clock::now(), tools::machine());
    let mut results = Results::default();
    for round in 0..options.rounds {
        for scene in &options.scenes {
            let mut peers = options.peers(*scene);
            let shift = usize::try_from(round)? % peers.len();
            peers.rotate_left(shift);
            for peer in peers {
                take_turn(options, *scene, peer, tools, &mut results);
                let said = said(&results, *scene, peer);
                eprintln!("{}/{} {} {}: {said}", round + 1, options.rounds, scene.word(), peer.word());
            }
        }
    }
    let circumstances = tools::circumstances(&machine, options.rounds, options.seconds, begun.elapsed());
    print!("{}", report::write(&results, &circumstances, &options.out)?);
    for scene in &options.scenes {
        let ours = results.why(*scene, Peer::Vswitchd);
        if let Some(why) = ours {
            anyhow::bail!("vswitchd failed with {}: {why}", scene.word());
        }
    }
    Ok(())
}

/// One peer on fresh ground. That it fails is a result, too.
fn take_turn(options: &Options, scene: Scene, peer: Peer, tools: &Tools, results: &mut Results) {
    if let Some(why) = peer.unavailable(scene) {
        results.note(scene, peer, why);
        return;
    }
    let plan = Plan {
        seconds: options.seconds,
        round_trips: 5000,
        steps: if options.quick { 0 } else { 5 },
        tcp_only: scene == Scene::Segmented,
    };
    let turn = || {
        let ground = Ground::new(scene)?;
        let mut switch = peer.start(&ground, tools)?;
        measure::turn(plan, &ground, &mut switch, tools)
    };
    match turn() {
        Ok(found) => found.into_iter().for_each(|(metric, value)| results.add(scene, peer, metric, value)),
        Err(error) => results.note(scene, peer, format!("{error:#}").replace('\n', " ")),
    }
}

/// The last number of each metric, for somebody who watches.
fn said(results: &Results, scene: Scene, peer: Peer) -> String {
    let last = |metric: Metric| {
        let value = results.samples(scene, peer, metric).last()?;
        Some(format!("{} {}", metric.word(), report::short(*value)))
    };
    let numbers: Vec<String> = Metric::ALL.into_iter().filter_map(last).collect();
    match results.why(scene, peer) {
        Some(why) => format!("{} ({why})", numbers.join(", ")),
        None => numbers.join(", "),
    }
}
