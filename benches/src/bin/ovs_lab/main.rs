//! How long a script waits for `ovs-vsctl`: ports added one by one and a thousand in one transaction, by our switch and
//! by stock Open vSwitch in turns, with the same database server and the same tool. Writes a table.
//!
//! `ovs-lab [PORTS] [--out FILE]`, as root. Not here: how fast frames go (see `compare`).

mod run;

use anyhow::{Context as _, bail};
use lexopt::prelude::*;
use std::path::PathBuf;

/// What was asked for.
#[derive(Debug)]
struct Options {
    /// Ports of each kind that are added one by one.
    ports: usize,
    out: PathBuf,
}

fn options() -> anyhow::Result<Options> {
    let out = concat!(env!("CARGO_MANIFEST_DIR"), "/results/ovs.md");
    let mut options = Options { ports: 100, out: out.into() };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("out") => options.out = parser.value()?.into(),
            Value(ports) => options.ports = ports.parse().context("how many ports")?,
            other => return Err(other.unexpected().into()),
        }
    }
    if !(3..=1000).contains(&options.ports) {
        bail!("3 to 1000 ports are possible");
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
