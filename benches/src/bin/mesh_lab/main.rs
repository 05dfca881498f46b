//! A laboratory for a mesh: as many real daemons as asked for, in namespaces behind one router, with one byte-identical
//! file and, unless it is to do without, a real etcd. Measures what grows with their number and writes a table.
//!
//! `mesh-lab [NODES] [--static] [--out FILE]`, as root. One machine plays all the nodes: what they do at the same time,
//! they do one after the other here. Not here: how the mesh is built (see `vswitch_tests::mesh`), and bare speed (see
//! `compare`).

mod run;

use anyhow::{Context as _, bail};
use lexopt::prelude::*;
use std::path::PathBuf;

/// What was asked for.
#[derive(Debug)]
struct Options {
    nodes: usize,
    /// Without etcd.
    is_static: bool,
    out: PathBuf,
}

fn options() -> anyhow::Result<Options> {
    let out = concat!(env!("CARGO_MANIFEST_DIR"), "/results/mesh.md");
    let mut options = Options { nodes: 100, is_static: false, out: out.into() };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("static") => options.is_static = true,
            Long("out") => options.out = parser.value()?.into(),
            Value(nodes) => options.nodes = nodes.parse().context("how many nodes")?,
            other => return Err(other.unexpected().into()),
        }
    }
    if !(4..=1000).contains(&options.nodes) {
        bail!("{} nodes: 4 to 1000 are possible", options.nodes);
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
