//! What the comparison runs besides the peers: its own C programs, compiled on the spot, and Debian's. Installs
//! nothing; says what is missing.

use crate::place::{FILES, check};
use anyhow::{Context as _, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Programs by path.
#[derive(Debug)]
pub(crate) struct Tools {
    /// This repository's daemon, release build.
    pub(crate) vswitchd: PathBuf,
    /// `copier.c`.
    pub(crate) copier: PathBuf,
    /// `load.c`.
    pub(crate) load: PathBuf,
}

/// Commands without which nothing goes, and their Debian packages.
const NEEDED: [(&str, &str); 4] =
    [("cc", "gcc libc6-dev"), ("ip", "iproute2"), ("iperf3", "iperf3"), ("ethtool", "ethtool")];

impl Tools {
    /// Finds and compiles them. Call it in the private place.
    pub(crate) fn prepare() -> anyhow::Result<Self> {
        let path = std::env::var("PATH").unwrap_or_default();
        let missing = missing(&NEEDED, |program| {
            std::env::split_paths(&path).any(|directory| directory.join(program).exists())
        });
        if !missing.is_empty() {
            bail!("missing Debian packages: apt-get install {}", missing.join(" "));
        }
        let beside = std::env::current_exe()?;
        let vswitchd = beside.parent().context("a program lies in a directory")?.join("vswitchd");
        if !vswitchd.exists() {
            bail!("{} is missing: start this by benches/compare, which builds it", vswitchd.display());
        }
        Ok(Self {
            vswitchd,
            copier: compile("copier", include_str!("copier.c"))?,
            load: compile("load", include_str!("load.c"))?,
        })
    }
}

/// Compiles a C program of the comparison, for this machine.
pub(crate) fn compile(name: &str, source: &str) -> anyhow::Result<PathBuf> {
    let program = Path::new(FILES).join(name);
    let file = program.with_extension("c");
    std::fs::write(&file, source)?;
    let mut cc = Command::new("cc");
    cc.args(["-O3", "-march=native", "-pthread", "-o"]).arg(&program).arg(&file);
    check(&mut cc)?;
    Ok(program)
}

/// The packages of those commands that `is_there` does not find.
fn missing(needed: &[(&str, &'static str)], is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    needed.iter().filter(|(command, _)| !is_there(command)).map(|(_, package)| *package).collect()
}

/// The machine, and versions of what runs on it. Call it before anything runs, as it looks whether others do.
pub(crate) fn machine() -> [String; 2] {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map(|(_, model)| model.trim())
        .collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = |program: &str| {
        let text = check(Command::new(program).arg("--version")).unwrap_or_default();
        text.lines().next().unwrap_or("none").to_owned()
    };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let (cpus, model) = (models.len(), models.first().unwrap_or(&"?"));
    let load = load.split(' ').next().unwrap_or("?");
    [
        format!("{cpus} CPUs, {model}; Linux {}; load average before the run: {load}", kernel.trim()),
        format!("{}; {}; vswitchd {}", version("ovs-vswitchd"), version("iperf3"), env!("CARGO_PKG_VERSION")),
    ]
}

/// What a reader must know to judge the numbers of the comparison.
pub(crate) fn circumstances(machine: &[String], rounds: u32, seconds: u32, took: Duration) -> Vec<String> {
    let mut lines = machine.to_vec();
    lines.push(format!(
        "{rounds} rounds, interleaved, {seconds} s per throughput, {} s in all; pods' MTU 1500, underlay's 1600; \
         TCP: iperf3 -C cubic; CPU and memory of both nodes together",
        took.as_secs()
    ));
    lines.push(
        "The kernel bridges in the sender's own time: its figure for 64-byte UDP is what one sender can send"
            .to_owned(),
    );
    lines.push(
        "Only ratios within this table mean something, not numbers beside those of another run".to_owned(),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_by_its_package() {
        assert_eq!(missing(&NEEDED, |_| true), Vec::<&str>::new());
        assert_eq!(missing(&NEEDED, |command| command != "ip"), ["iproute2"]);
    }
}
