//! Where the comparison happens: a private /run and private network namespaces, which the kernel takes away with the
//! last process inside, however this one ends. Commands and processes in them.
//!
//! A process is started by this program again, which enters the namespace, asks to be killed when we end, and becomes
//! what was wanted. Not here: which interfaces there are, and what a switch is.

use anyhow::{Context as _, bail};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use vswitchd::sys::netns::{self, Kinds};
use vswitchd::sys::process;

/// Files of the comparison, private and in memory.
pub(crate) const FILES: &str = "/run/vswitch-compare";

/// The argument that makes this program enter a namespace and become another.
pub(crate) const WITHIN: &str = "within";

/// The clock of what waits and measures here.
#[expect(clippy::disallowed_types, reason = "a measurement is a clock; the switch is not in here")]
pub(crate) type Clock = std::time::Instant;

/// Leaves for a private place. The process must have one thread and be root.
pub(crate) fn isolate() -> anyhow::Result<()> {
    if !netns::is_root() {
        bail!("benches/compare makes network namespaces, which needs root: run it as root");
    }
    if std::env::current_exe()?.starts_with("/run") {
        bail!("/run is covered while this runs, and this program lies in it: build elsewhere");
    }
    netns::unshare(Kinds { network: true, mount: true, ..Kinds::default() })?;
    netns::mount_tmpfs(Path::new("/run"))?;
    fs::create_dir_all(netns::DIRECTORY)?;
    fs::create_dir_all(FILES)?;
    Ok(())
}

/// A named network namespace, gone when dropped.
#[derive(Debug)]
pub(crate) struct Namespace(&'static str);

impl Namespace {
    /// Makes it, with its loopback up.
    pub(crate) fn new(name: &'static str) -> anyhow::Result<Self> {
        let made = netns::create().with_context(|| format!("making namespace {name}"))?;
        netns::pin(made.as_fd(), &netns::path(name))?;
        let namespace = Self(name);
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.0
    }

    /// Runs `ip` with these words, in here.
    pub(crate) fn ip(&self, words: &str) -> anyhow::Result<()> {
        check(Command::new("ip").args(["-n", self.0]).args(words.split_whitespace())).map(drop)
    }

    /// Lets no interface that comes speak by itself: without IPv6 nobody solicits a router or reports a group.
    pub(crate) fn silence(&self) -> anyhow::Result<()> {
        let namespace = netns::open(self.0)?;
        let path = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
        // A kernel without IPv6 is silent already.
        netns::within(namespace.as_fd(), || {
            if Path::new(path).exists() { fs::write(path, "1") } else { Ok(()) }
        })?
        .context(path)
    }

    /// Runs a program in here to its end and returns what it printed.
    pub(crate) fn run(&self, program: impl AsRef<Path>, words: &str) -> anyhow::Result<String> {
        check(self.command(program.as_ref())?.args(words.split_whitespace()))
    }

    /// Starts a program in here.
    pub(crate) fn spawn(&self, program: impl AsRef<Path>, words: &str) -> anyhow::Result<Process> {
        let mut command = self.command(program.as_ref())?;
        command.args(words.split_whitespace());
        Process::spawn(command, program.as_ref())
    }

    /// A program that will run in here.
    pub(crate) fn command(&self, program: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([WITHIN, self.0, &std::process::id().to_string()]).arg(program);
        Ok(command)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left goes with the mount namespace.
        let _ = netns::unpin(&netns::path(self.0));
    }
}

/// The child's side of [`Namespace::command`]: `NAMESPACE PARENT PROGRAM ARGUMENT…`. Returns only when it fails.
pub(crate) fn become_within(arguments: &[String]) -> anyhow::Result<()> {
    let [name, parent, program, rest @ ..] = arguments else { bail!("{WITHIN} is for this program alone") };
    let namespace = netns::open(name)?;
    netns::enter(namespace.as_fd())?;
    drop(namespace);
    process::end_with(parent.parse()?)?;
    Err(Command::new(program).args(rest).exec()).with_context(|| format!("starting {program}"))
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn check(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout);
        bail!("{command:?}: {} {} {}", output.status, complaint.trim(), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A running process, killed when dropped. Its complaints are in a file under [`FILES`].
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, which is, or becomes, `program`.
    pub(crate) fn spawn(mut command: Command, program: &Path) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let log = Path::new(FILES).join(format!("{name}.log"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let output = BufReader::new(child.stdout.take().context("its output is ours")?);
        Ok(Self { child, output, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads its output until a line that contains `word`.
    pub(crate) fn until_it_says(&mut self, word: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        while self.output.read_line(&mut line)? > 0 {
            if line.contains(word) {
                return Ok(());
            }
            line.clear();
        }
        bail!("it ended: {}", self.complaint())
    }

    /// Asks it to end (SIGTERM), waits for that, which must go well, and returns the rest of its output.
    pub(crate) fn stop(mut self) -> anyhow::Result<String> {
        process::ask_to_end(&mut self.child)?;
        let text = std::io::read_to_string(&mut self.output)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{status}: {} {}", text.trim(), self.complaint());
        }
        Ok(text)
    }

    /// Waits for its end, which must come in time and be a good one.
    pub(crate) fn end_within(mut self, limit: Duration) -> anyhow::Result<()> {
        let mut status = None;
        until("it ends", limit, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        match status {
            Some(status) if !status.success() => bail!("{status}: {}", self.complaint()),
            _ => Ok(()),
        }
    }

    /// The last of what it wrote to standard error.
    pub(crate) fn complaint(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Fails when it has ended.
    pub(crate) fn must_live(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{status}: {}", self.complaint()),
        }
    }

    /// Seconds of CPU that it has used, in user and kernel mode.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(&fs::read_to_string(format!("/proc/{}/stat", self.id()))?).context("/proc/PID/stat")
    }

    /// The same to the nanosecond, of threads that live.
    pub(crate) fn cpu_seconds_exactly(&self) -> anyhow::Result<f64> {
        let mut nanoseconds = 0.0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().unwrap_or_default().parse::<f64>()?;
        }
        Ok(nanoseconds / 1e9)
    }

    /// Bytes of memory that are resident.
    pub(crate) fn resident(&self) -> anyhow::Result<f64> {
        resident(&fs::read_to_string(format!("/proc/{}/status", self.id()))?).context("/proc/PID/status")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Clock ticks per second in /proc (USER_HZ, 100 on every platform that Rust's Linux targets have).
const TICKS: f64 = 100.0;

/// utime + stime of a /proc/PID/stat (proc_pid_stat(5), fields 14 and 15); a name with spaces is skipped over.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}

/// VmRSS of a /proc/PID/status, in bytes.
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

/// Asks `question` until the answer is yes, some milliseconds apart; fails when `what` is not so within that time.
pub(crate) fn until(
    what: &str,
    within: Duration,
    mut question: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let begun = Clock::now();
    loop {
        let answer = question();
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        if begun.elapsed() > within {
            return match answer {
                Err(error) => Err(error.context(format!("{what}: not within {within:?}"))),
                Ok(_) => bail!("{what}: not within {within:?}"),
            };
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 7 8 9";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("42 (short) S 1"), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t     12 kB\nVmData: 1 kB\n"), Some(12288.0));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
