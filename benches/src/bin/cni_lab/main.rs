//! How long pods wait for their network: fifty ADDs at once by our plugin and daemon, and by Debian's bridge plugin, both
//! with host-local, in one interleaved run; the plugin alone; the first ping across two nodes. Writes a table.
//!
//! `cni-lab [PODS] [--rounds N] [--out FILE]`, as root. Not here: how a runtime calls plugins (see
//! `vswitch_tests::cni`), and how fast frames go (see `compare`).

mod run;

use anyhow::{Context as _, bail};
use lexopt::prelude::*;
use std::path::PathBuf;

/// What was asked for.
#[derive(Debug)]
struct Options {
    pods: usize,
    rounds: usize,
    out: PathBuf,
}

fn options() -> anyhow::Result<Options> {
    let out = concat!(env!("CARGO_MANIFEST_DIR"), "/results/cni.md");
    let mut options = Options { pods: 50, rounds: 10, out: out.into() };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("rounds") => options.rounds = parser.value()?.parse().context("how many rounds")?,
            Long("out") => options.out = parser.value()?.into(),
            Value(pods) => options.pods = pods.parse().context("how many pods")?,
            other => return Err(other.unexpected().into()),
        }
    }
    if !(2..=200).contains(&options.pods) || !(1..=1000).contains(&options.rounds) {
        bail!("2 to 200 pods and 1 to 1000 rounds are possible");
    }
    Ok(options)
}

fn main() -> anyhow::Result<()> {
    let options = options()?;
    let report = run::run(&options)?;
    print!("{report}");
    std::fs::write(&options.out, report).with_context(|| format!("{}", options.out.display()))?;
    println!("\nwritten to {}", options.out.display());
    Ok(())
}
