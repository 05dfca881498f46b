//! A laboratory of real network namespaces: veth pairs, kernel VXLAN, daemons, ping and TCP.
//!
//! Everything made here is deleted when it goes out of scope, after a panic too. With root the namespaces are
//! the machine's own, under names that nobody else has; without, [`in_lab`] starts the test again inside a user
//! namespace where it is root. Needs iproute2, and what a test calls besides (ethtool, ping). Not here: anything
//! of the switch.

mod daemon;
mod traffic;

pub use daemon::{Daemon, Deadline, Stopwatch, until};
pub use traffic::{Ping, Transfer, tcp_transfer};

use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Set in a test that has been started again inside a user namespace.
const INSIDE: &str = "VSWITCH_LAB_INSIDE";

/// Says on standard error, past the test harness, that a test does nothing here, and why; in CI that is a failure.
///
/// # Panics
/// Where the environment variable `CI` is set.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: {why}");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("SKIPPED: {why}\n").as_bytes());
}

/// Runs `body` where namespaces can be made: here with root, else by starting the test named `test` (its full name
/// in this binary) again inside a user namespace, else not at all after a loud word.
///
/// # Panics
/// When the test fails inside, or in CI when no namespace can be made.
pub fn in_lab(test: &str, body: impl FnOnce(&Lab)) {
    let lab = Lab::new();
    if lab.works() {
        return body(&lab);
    }
    if std::env::var_os(INSIDE).is_some() {
        return skip("no network namespace can be made, not even in a user namespace of our own");
    }
    // /run must be writable for `ip netns`, and /sys of the namespace for what asks there.
    let script = "mount -t tmpfs none /run && exec \"$0\" \"$@\"";
    let unshare = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-Urnm", "--"]).args(words);
        command
    };
    if !unshare(&["true"]).output().is_ok_and(|output| output.status.success()) {
        return skip("neither root nor unprivileged user namespaces (unshare -Urnm)");
    }
    let program = std::env::current_exe().expect("a test knows its own binary");
    let mut command = unshare(&["sh", "-c", script]);
    command.arg(program).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let output = command.output().expect("unshare was there a moment ago");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{test}, started again in a user namespace: {}\n{text}", output.status);
}

/// Where namespaces come from.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// A laboratory whose namespaces are named after this process and a number of its own.
    #[must_use]
    pub fn new() -> Self {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        Self { prefix: format!("vst{}-{number}", std::process::id()) }
    }

    fn works(&self) -> bool {
        let name = format!("{}-probe", self.prefix);
        let ip = |words: &[&str]| Command::new("ip").args(words).output();
        let made = ip(&["netns", "add", &name]).is_ok_and(|output| output.status.success());
        // What could not be made may still have left a file.
        let _ = ip(&["netns", "delete", &name]);
        made
    }

    /// A new namespace with its loopback up; `name` is unique in this laboratory.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Namespace {
        let name = format!("{}-{name}", self.prefix);
        check(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Namespace { name };
        namespace.ip("link set dev lo up");
        namespace
    }
}

/// A network namespace, deleted when dropped with all that is in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// A kernel VXLAN link: one remote, no learning of remotes needed.
#[derive(Clone, Copy, Debug)]
pub struct Vxlan<'a> {
    /// Name of the link.
    pub name: &'a str,
    /// VNI.
    pub vni: u32,
    /// Our address on the underlay.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// UDP port.
    pub port: u16,
    /// Further words for `ip link add`, such as `udp6zerocsumrx`.
    pub more: &'a str,
}

impl Namespace {
    /// Its name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that will run `program` inside, in a process of the same number as the child's.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a command line inside, split at blanks, and returns what it printed.
    ///
    /// # Panics
    /// When it fails; the message holds its complaint.
    pub fn run(&self, line: &str) -> String {
        let (program, rest) = line.split_once(' ').unwrap_or((line, ""));
        check(self.command(program).args(rest.split_whitespace()))
    }

    /// Runs a command line inside, split at blanks; what comes of it is the caller's.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn try_run(&self, line: &str) -> Output {
        let (program, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut command = self.command(program);
        command.args(rest.split_whitespace()).output().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Runs `ip` on this namespace, with a line of words.
    ///
    /// # Panics
    /// When it fails.
    pub fn ip(&self, line: &str) -> String {
        check(Command::new("ip").args(["-n", &self.name]).args(line.split_whitespace()))
    }

    /// Runs many lines of `ip` on this namespace in one process: a hundred links take no longer than the kernel does.
    ///
    /// # Panics
    /// When one of them fails; the message holds its number and the complaint.
    pub fn ip_batch(&self, lines: &str) {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // What it does not take, it complains about below.
        let _ = child.stdin.take().expect("asked for a line above").write_all(lines.as_bytes());
        let output = child.wait_with_output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    }

    /// Gives `link` an address with its prefix length, such as `10.0.0.1/24`, usable at once, and brings it up.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn address(&self, link: &str, address: &str) {
        // Duplicate address detection would hold an IPv6 address back for a second.
        let nodad = if address.contains(':') { "nodad" } else { "" };
        self.ip(&format!("address add {address} dev {link} {nodad}"));
        self.ip(&format!("link set dev {link} up"));
    }

    /// A veth pair between this namespace and `other`, both ends up.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn veth(&self, link: &str, other: &Self, other_link: &str) {
        let other_name = &other.name;
        self.ip(&format!("link add name {link} type veth peer name {other_link} netns {other_name}"));
        self.ip(&format!("link set dev {link} up"));
        other.ip(&format!("link set dev {other_link} up"));
    }

    /// A kernel VXLAN link, up.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn vxlan(&self, spec: &Vxlan<'_>) {
        let Vxlan { name, vni, local, remote, port, more } = spec;
        self.ip(&format!(
            "link add name {name} type vxlan id {vni} local {local} remote {remote} dstport {port} {more}"
        ));
        self.ip(&format!("link set dev {name} up"));
    }

    /// A kernel bridge, up, with these links in it.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn bridge(&self, name: &str, links: &[&str]) {
        self.ip(&format!("link add name {name} type bridge"));
        self.ip(&format!("link set dev {name} up"));
        for link in links {
            self.ip(&format!("link set dev {link} master {name}"));
            self.ip(&format!("link set dev {link} up"));
        }
    }

    /// Switches features of a link, such as `tx off` or `tso off gso off`.
    ///
    /// # Panics
    /// When ethtool fails.
    pub fn ethtool(&self, link: &str, features: &str) {
        self.run(&format!("ethtool -K {link} {features}"));
    }

    /// Runs `work` in a thread that is inside, and returns what it returns. Sockets made there stay there.
    ///
    /// # Panics
    /// When the namespace cannot be entered, or `work` panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.path(), work)
    }
}

/// Runs `work` in a thread that is in the network namespace at `path`, and returns what it returns.
///
/// # Panics
/// When the namespace cannot be entered, or `work` panics.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(path);
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves the calling thread inside, for good.
fn enter(path: &Path) {
    let file = File::open(path).expect("the namespace is there as long as its guard");
    #[expect(unsafe_code, reason = "the standard library has no way into a namespace")]
    // SAFETY: setns reads nothing but the descriptor, which is open for the whole call; it changes the calling thread
    // alone, which holds no resource that depends on the namespace.
    let entered = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(entered, 0, "{}: {}", path.display(), std::io::Error::last_os_error());
}

/// Runs a command to its end and returns what it printed.
///
/// # Panics
/// When it cannot be started or fails; the message holds its complaint.
pub fn check(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn two_namespaces_talk_over_a_kernel_tunnel() {
        in_lab("lab::tests::two_namespaces_talk_over_a_kernel_tunnel", |lab| {
            let (a, b) = (lab.namespace("a"), lab.namespace("b"));
            a.veth("under", &b, "under");
            a.address("under", "192.0.2.1/24");
            b.address("under", "192.0.2.2/24");
            let address = |n: u8| IpAddr::from([192, 0, 2, n]);
            let spec =
                Vxlan { name: "vx", vni: 5, local: address(1), remote: address(2), port: 4789, more: "" };
            a.vxlan(&spec);
            b.vxlan(&Vxlan { local: address(2), remote: address(1), ..spec });
            a.bridge("br", &["vx"]);
            a.address("br", "10.0.0.1/24");
            a.address("br", "fd00::1/64");
            b.address("vx", "10.0.0.2/24");
            b.address("vx", "fd00::2/64");
            a.ethtool("under", "tx off");
            for to in ["10.0.0.2", "fd00::2"] {
                let ping = a.ping(to.parse().unwrap(), 56, 3);
                assert_eq!((ping.sent, ping.received), (3, 3), "{ping:?}");
                let transfer = tcp_transfer(&a, &b, to.parse().unwrap(), 1 << 20, Duration::from_secs(10));
                assert_eq!(transfer.unwrap().bytes, 1 << 20);
            }
            let nobody = a.ping("10.0.0.3".parse().unwrap(), 56, 1);
            assert_eq!(nobody.received, 0);
            let refused =
                tcp_transfer(&a, &b, "10.0.0.9".parse().unwrap(), 1, Duration::from_millis(300)).unwrap_err();
            assert!(!refused.to_string().is_empty());
        });
    }

    #[test]
    fn a_namespace_goes_with_its_guard_even_in_a_panic() {
        in_lab("lab::tests::a_namespace_goes_with_its_guard_even_in_a_panic", |lab| {
            let mut path = PathBuf::new();
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let namespace = lab.namespace("gone");
                path = namespace.path();
                assert!(path.exists());
                namespace.ip("link add nonsense type nonsense");
            }));
            assert!(caught.is_err() && !path.exists());
        });
    }
}
