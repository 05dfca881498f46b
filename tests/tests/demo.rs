//! `vswitchd demo` as a newcomer meets it: its table, its exit code, its sentences when the machine lacks something,
//! the commands that `--keep` prints, and that nothing is left behind however it ends.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use vswitch_tests::daemon::{PATIENCE, program};
use vswitch_tests::lab::{self, check, until};

/// Words in front of the program: as whoever runs the test (in CI that is root), and as a user without a privilege.
/// The latter is the owner of the machine's files still, so that it may open /dev/net/tun whatever its mode.
const AS_ONESELF: &[&str] = &[];
const UNPRIVILEGED: &[&str] = &["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"];
/// In a mount namespace of its own, after a line of shell.
fn prepared(line: &str) -> Vec<String> {
    let script = format!("{line} && exec \"$0\" \"$@\"");
    ["unshare", "--map-root-user", "--mount", "--", "sh", "-c", &script].map(str::to_owned).to_vec()
}

const CHECKS: [&str; 11] = [
    "ping        blue-1   blue-2   ok",
    "ping, IPv6  blue-1   blue-2   ok",
    "ping        green-1  green-2  ok",
    "ping, IPv6  green-1  green-2  ok",
    "kept apart  blue-1   green-1  ok",
    "kept apart  blue-1   green-2  ok",
    "kept apart  green-1  blue-2   ok",
    "round trip  blue-1   blue-2   ok",
    "TCP         blue-1   blue-2   ok",
    "TCP, IPv6   green-1  green-2  ok",
    "over VXLAN  node-1   node-2   ok",
];

/// A running demo, alone in its process group, with a directory of its own for whatever it might drop.
struct Demo {
    child: Child,
    directory: PathBuf,
    lines: Receiver<String>,
    out: String,
}

impl Demo {
    /// Starts it, or says why it cannot be tried here.
    fn start(before: &[impl AsRef<str>], arguments: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Some(vswitchd) = program("vswitchd") else {
            lab::skip("vswitchd is not beside the test: cargo build -p vswitchd builds it");
            return None;
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("vswitch-demo-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut words: Vec<&str> = before.iter().map(AsRef::as_ref).collect();
        words.push(vswitchd.to_str().unwrap());
        words.push("demo");
        words.extend(arguments);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&directory).env("TMPDIR", &directory).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Some(Self { child, directory, lines, out: String::new() })
    }

    /// Waits for a line with `text` in it and returns it.
    fn until_line(&mut self, text: &str) -> String {
        loop {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {text:?} in\n{}", self.out));
            self.out.push_str(&line);
            self.out.push('\n');
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Sends a signal to the demo alone, not to what it started.
    fn signal(&self, name: &str) {
        check(Command::new("kill").args(["-s", name, &self.child.id().to_string()]));
    }

    /// Waits for its end and for that of everything it started; then nothing may be left.
    fn end(mut self) -> (ExitStatus, String, String) {
        let status = until("the end of the demo", PATIENCE * 2, || self.child.try_wait().unwrap());
        let group = self.child.id();
        until("the end of its processes", Duration::from_secs(5), || members(group).is_empty().then_some(()));
        self.out.extend(self.lines.iter().map(|line| line + "\n"));
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let dropped: Vec<_> = fs::read_dir(&self.directory).unwrap().collect();
        assert!(dropped.is_empty(), "{dropped:?}");
        nothing_is_left();
        (status, std::mem::take(&mut self.out), err)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        for pid in members(self.child.id()) {
            let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).output();
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The living processes of a process group (proc(5): the fields behind the name).
fn members(group: u32) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let member = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, its_group) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        state != "Z" && its_group == group.to_string()
    };
    processes.filter(member).collect()
}

/// Nothing of the demo is in the machine's own mounts, named namespaces, interfaces and files.
fn nothing_is_left() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap();
    for name in ["node-1", "node-2", "blue-1", "blue-2", "green-1", "green-2"] {
        assert!(!Path::new("/run/netns").join(name).exists(), "namespace {name} is left");
        assert!(!mounts.contains(&format!("/{name}")), "{mounts}");
        assert!(!interfaces.contains(&format!("{name}:")), "{interfaces}");
    }
    assert!(!interfaces.contains("underlay:") && !mounts.contains("/run/demo"));
    assert!(!Path::new("/run/demo").exists());
}

/// Whether a demo can run here at all; if not, a loud word, which is a failure in CI.
fn possible() -> bool {
    let tun = fs::File::options().read(true).write(true).open("/dev/net/tun");
    let unshare = Command::new("unshare").args(["-Urnm", "--", "true"]).output();
    let possible = tun.is_ok() && unshare.is_ok_and(|output| output.status.success());
    if !possible {
        lab::skip("the demo needs /dev/net/tun and namespaces");
    }
    possible
}

fn proves_everything(before: &[&str]) {
    if !possible() {
        return;
    }
    let Some(demo) = Demo::start(before, &[]) else { return };
    let (status, out, err) = demo.end();
    assert!(status.success() && err.is_empty(), "{status}\n{out}\n{err}");
    let table: Vec<_> = out.lines().skip_while(|line| !line.starts_with("CHECK")).skip(1).collect();
    for (expected, row) in CHECKS.iter().zip(&table) {
        assert!(row.starts_with(expected), "{expected:?}\n{out}");
    }
    assert_eq!(table.iter().position(|row| row.is_empty()), Some(CHECKS.len()), "{out}");
    assert!(out.lines().all(|line| line.len() <= 100), "{out}");
}

#[test]
fn the_demo_proves_everything_and_leaves_nothing_behind() {
    proves_everything(AS_ONESELF);
}

#[test]
fn the_demo_needs_no_privilege_where_user_namespaces_are_allowed() {
    proves_everything(UNPRIVILEGED);
}

fn keeps(before: &[&str]) {
    if !possible() {
        return;
    }
    let Some(mut demo) = Demo::start(before, &["--keep"]) else { return };
    demo.until_line("Ctrl-C ends it");
    let commands: Vec<_> = demo.out.lines().filter_map(|line| line.strip_prefix("  nsenter ")).collect();
    assert!(commands.len() >= 3, "{}", demo.out);
    for command in commands {
        // A shell reads what is typed.
        let script = format!("echo cat /proc/net/dev | nsenter {command}");
        let said = check(Command::new("sh").args(["-c", &script]));
        let expected = match command {
            _ if command.contains(" ping ") => " 0% packet loss",
            _ if command.ends_with(" status") => "node: node-1",
            _ if command.ends_with(" mac") => "blue-2",
            _ => "eth0",
        };
        assert!(said.contains(expected), "{command}\n{said}");
    }
    demo.signal("INT");
    let (status, out, err) = demo.end();
    assert!(status.success() && err.is_empty(), "{status}\n{out}\n{err}");
}

#[test]
fn what_keep_prints_works_as_it_is_until_ctrl_c() {
    keeps(AS_ONESELF);
}

#[test]
fn what_keep_prints_works_without_a_privilege() {
    keeps(UNPRIVILEGED);
}

#[test]
fn a_signal_in_the_middle_ends_it_and_leaves_nothing_behind() {
    for (signal, code) in [("INT", Some(1)), ("TERM", Some(1)), ("KILL", None)] {
        if !possible() {
            return;
        }
        let Some(mut demo) = Demo::start(AS_ONESELF, &[]) else { return };
        demo.until_line("CHECK");
        demo.signal(signal);
        let (status, out, err) = demo.end();
        assert_eq!(status.code(), code, "{signal}\n{out}\n{err}");
        let sentence = if code.is_some() { "vswitchd: stopped before everything was proved\n" } else { "" };
        assert_eq!(err, sentence);
    }
}

#[test]
fn a_daemon_that_dies_is_named_and_its_last_words_are_shown() {
    if !possible() {
        return;
    }
    let Some(mut demo) = Demo::start(AS_ONESELF, &["--keep"]) else { return };
    demo.until_line("Ctrl-C ends it");
    let command = demo.out.lines().find(|line| line.ends_with(" status")).unwrap();
    let pid = command.split_whitespace().nth(2).unwrap();
    check(Command::new("kill").args(["-s", "KILL", pid]));
    let (status, out, err) = demo.end();
    assert_eq!(status.code(), Some(1), "{out}\n{err}");
    assert!(err.contains("vswitchd: vswitchd on node-1 ended\n"), "{err}");
    assert!(err.contains("The last that vswitchd on node-1 said:\n") && err.contains("ready"), "{err}");
}

/// What the demo says, in one line on standard error and nothing else, where it cannot run.
fn refusal(before: &[impl AsRef<str>]) -> Option<String> {
    let (status, out, err) = Demo::start(before, &[])?.end();
    assert_eq!((status.code(), out.as_str(), err.lines().count()), (Some(1), "", 1), "{out}\n{err}");
    Some(err)
}

#[test]
fn where_the_machine_lacks_something_one_sentence_says_what_to_do() {
    if !possible() {
        return;
    }
    for (line, expected) in [
        ("mount --bind /dev/null /dev/net/tun", "modprobe tun; mknod /dev/net/tun c 10 200"),
        ("mount -t tmpfs none /dev/net", "/dev/net/tun is missing: load the tun driver (modprobe tun)"),
        ("mount --bind /dev/full /dev/net/tun", "modprobe tun; mknod /dev/net/tun c 10 200"),
        ("echo 0 > /proc/sys/user/max_net_namespaces", "sysctl user.max_"),
        ("echo 0 > /proc/sys/user/max_mnt_namespaces", "sysctl user.max_"),
    ] {
        let Some(said) = refusal(&prepared(line)) else { return };
        assert!(said.contains(expected), "{line}\n{said}");
    }
}
