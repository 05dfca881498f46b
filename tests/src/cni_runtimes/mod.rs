//! Real container runtimes, each on a machine of its own: containerd with `ctr`, and podman, both with runc.
//!
//! A [`Machine`] is a network namespace with process, mount and cgroup namespaces to it. Whatever a runtime writes
//! at a path that is fixed lands in memory that goes with the machine, and every process in it does too. Needs root.
//! Not here: what a test expects, and a runner of plugins without a runtime (those tests make pods of their own).

mod containerd;
mod image;
mod node;
mod podman;

pub use containerd::Containerd;
pub use image::{BUSYBOX, IMAGE};
pub use node::{CniNode, SEEN, STOCK, built_in, conflist, host_local, leases};
pub use podman::Podman;

use crate::lab::{self, Daemon, Lab, Namespace, check};
use crate::node::{in_nodes, is_installed};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Programs that a runtime's test calls, and the Debian packages they are in.
const PROGRAMS: [(&str, &str); 8] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("podman", "podman"),
    ("conmon", "conmon"),
    ("nsenter", "util-linux"),
    ("pkill", "procps"),
    ("tar", "tar"),
];

/// Where the programs under test are seen on a machine.
pub const PROGRAMS_AT: &str = "/mnt";

/// Seconds that a command on a machine may take, as `timeout` has it.
const BOUND: &str = "60";

/// Runs `body` where machines can be had: as [`in_nodes`] does, with root, the runtimes and the plugin under test;
/// else a loud word, and in CI a failure.
pub fn in_machines(test: &str, body: impl FnOnce(&Lab)) {
    if std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
        return lab::skip("container runtimes need root");
    }
    if crate::daemon::program("vswitch-cni").is_none() {
        return lab::skip("vswitch-cni is not beside the test: cargo build -p vswitch-cni builds it");
    }
    if let Some((name, package)) = PROGRAMS.into_iter().find(|(name, _)| !is_installed(name)) {
        return lab::skip(&format!("{name} is not installed (Debian: {package})"));
    }
    for (file, package) in
        [(BUSYBOX, "busybox-static"), ("/usr/lib/cni/bridge", "containernetworking-plugins")]
    {
        if !Path::new(file).is_file() {
            return lab::skip(&format!("{file} is not there (Debian: {package})"));
        }
    }
    if !image::is_static() {
        return lab::skip(&format!("{BUSYBOX} needs libraries (Debian: busybox-static, instead of busybox)"));
    }
    in_nodes(test, |lab| {
        let probe = lab.namespace("runtimes");
        if let Err(why) = Machine::try_new(&probe) {
            return lab::skip(&format!("no machine for container runtimes: {why}"));
        }
        body(lab);
    });
}

/// Becomes the first process of a machine: all that a runtime writes to is memory, and the only cgroups are those of
/// version 2 below the machine's own, which has no controller on some systems and needs none here. The words are the
/// directory of the programs under test and the one to show them at. Ends with its standard input. (`ip netns exec` has
/// mounted /sys already.)
const FIRST: &str = r#"
set -e
mount --bind "$1" "$2"
for directory in /etc /opt /run /tmp /var; do mount -t tmpfs machine "$directory"; done
mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /etc/cni/net.d /opt/cni/bin /var/lib /var/tmp
echo root:x:0:0:root:/root:/bin/sh >/etc/passwd
echo root:x:0: >/etc/group
: >/etc/resolv.conf
echo 127.0.0.1 localhost >/etc/hosts
ln -s /usr/lib/cni/* "$2"/vswitch-cni /opt/cni/bin/
trap '' CHLD
echo ready
exec cat >/dev/null
"#;

/// Makes the cgroup named `$1`, below its own, the root of all that it sees, and is in one below that: a cgroup with
/// processes of its own gives no controllers to others. The rest of the words run as the first process of namespaces.
const ENTER: &str = r#"
set -e
mount -t cgroup2 cgroup2 /sys/fs/cgroup
own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/$1
shift
mkdir "$own" "$own/first"
echo 0 >"$own/cgroup.procs"
exec unshare --cgroup sh -c '
    echo 0 >"$0/first/cgroup.procs" && umount /sys/fs/cgroup &&
    exec unshare --mount --pid --fork --kill-child -- "$@"
' "$own" "$@"
"#;

/// Removes the cgroup named `$1`, below its own, with all in it: their processes are dead, and soon out of it.
const LEAVE: &str = r#"
[ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 0
own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/$1
for try in $(seq 100); do
    find "$own" -depth -type d -exec rmdir {} + 2>/dev/null
    [ -d "$own" ] || exit 0
    sleep 0.05
done
exit 1
"#;

/// A machine of its own on this one. When dropped, every process on it dies, and all that it has written is gone.
#[derive(Debug)]
pub struct Machine {
    /// `unshare`, which waits for the first process; that one reads from us, and ends when we do.
    outside: Child,
    /// The number of the first process, as this machine's `/proc` has it.
    first: String,
    cgroup: String,
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.outside.stdin.take());
        let _ = self.outside.kill();
        let _ = self.outside.wait();
        let mut leave = Command::new("unshare");
        leave.args(["--mount", "sh", "-c", LEAVE, "sh", &self.cgroup]);
        let left = leave.output().is_ok_and(|output| output.status.success());
        assert!(left || std::thread::panicking(), "the cgroup {} cannot be removed", self.cgroup);
    }
}

impl Machine {
    /// A machine with the network of `namespace`. It has the stock plugins and the one under test in /opt/cni/bin,
    /// and no network of CNI.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(namespace: &Namespace) -> Self {
        Self::try_new(namespace).unwrap_or_else(|why| panic!("no machine in {}: {why}", namespace.name()))
    }

    fn try_new(namespace: &Namespace) -> Result<Self, String> {
        static MACHINES: AtomicU32 = AtomicU32::new(0);
        let number = MACHINES.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("vst{}-{number}", std::process::id());
        let programs = crate::daemon::program("vswitchd").ok_or("no program under test")?;
        let programs = programs.parent().ok_or("a program without a directory")?;
        let mut command = namespace.command("unshare");
        command.args(["--mount", "sh", "-c", ENTER, "sh", &cgroup, "sh", "-c", FIRST, "sh"]);
        command.arg(programs).arg(PROGRAMS_AT);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let outside = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut machine = Self { outside, first: String::new(), cgroup };
        let mut word = [0; 6];
        let heard = machine.outside.stdout.as_mut().map(|out| out.read_exact(&mut word));
        let ready = heard.is_some_and(|heard| heard.is_ok()) && &word == b"ready\n";
        if !ready {
            let _ = machine.outside.kill();
            let mut complaint = String::new();
            let _ = machine.outside.stderr.take().map(|mut err| err.read_to_string(&mut complaint));
            return Err(complaint);
        }
        let outside = machine.outside.id().to_string();
        machine.first = check(Command::new("pgrep").args(["-P", &outside])).trim().to_owned();
        Ok(machine)
    }

    /// The file that is `path` on the machine, from outside.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.first))
    }

    /// Writes a file on the machine; its directory is made where it is missing.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        let directory = path.parent().expect("a file has a directory");
        std::fs::create_dir_all(directory)
            .and_then(|()| std::fs::write(&path, text))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Names of what is in a directory of the machine, in order; none when it is not there.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first, "--net", "--mount", "--pid", "--cgroup", "--"]);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// A command that will run `program` on the machine and is killed when it takes more than a minute.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.enter();
        command.args(["timeout", "--kill-after=1", BOUND, program]);
        command
    }

    /// Runs a command line on the machine, split at blanks, and returns what it printed.
    ///
    /// # Panics
    /// When it fails; the message holds its complaint.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        told(&self.try_run(line), line)
    }

    /// Runs a command line on the machine, split at blanks; what comes of it is the caller's.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn try_run(&self, line: &str) -> Output {
        let (program, rest) = line.split_once(' ').unwrap_or((line, ""));
        let output = self.command(program).args(rest.split_whitespace()).output();
        output.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Starts a command line on the machine, split at blanks, that runs until it is signalled or the machine ends.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self, line: &str) -> Daemon {
        Daemon::spawn(self.enter().args(line.split_whitespace()))
    }

    /// Sends a signal, such as `KILL`, to what [`Self::start`] started: it is a child of what this one knows.
    ///
    /// # Panics
    /// When it runs no more.
    pub fn signal(&self, daemon: &Daemon, signal: &str) {
        check(Command::new("pkill").args(["--signal", signal, "-P", &daemon.pid().to_string()]));
    }

    /// Puts the image onto the machine, as a file that every runtime reads.
    fn image(&self) -> String {
        let path = "/run/image.tar";
        image::write(&self.path(path));
        path.to_owned()
    }
}

/// What a program wrote to its standard output; it must have ended well.
#[track_caller]
fn told(output: &Output, line: &str) -> String {
    let [out, err] = texts(output);
    assert!(output.status.success(), "{line}: {}\n{out}{err}", output.status);
    out
}

/// What a program wrote: to its standard output, and to its standard error.
#[must_use]
pub fn texts(output: &Output) -> [String; 2] {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}
