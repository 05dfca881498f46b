//! The real daemon as a process, in a namespace that stands for its host, asked through the real `vswitchctl`.
//!
//! Both programs are those beside the test's own binary, `target/<profile>/`. Not here: what a test expects.

mod pod;
mod raw;

pub use pod::Pod;
pub(crate) use pod::hush;
pub use raw::{FACTS_LEN, Raw};

use crate::lab::{self, Daemon, Lab, Namespace, until};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

/// How long a test waits for what must happen soon; a busy machine has slow moments.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The file of a program that is built with the tests; `None` when nobody built it.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    // A test is target/<profile>/deps/test, a program target/<profile>/program.
    own.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// Runs `body` with a host in a laboratory, as [`lab::in_lab`] does, where there are the programs and a
/// /dev/net/tun that may be opened; else a loud word, and in CI a failure.
pub fn with_host(test: &str, body: impl FnOnce(&Lab, Host)) {
    for name in ["vswitchd", "vswitchctl"] {
        if program(name).is_none() {
            return lab::skip(&format!("{name} is not beside the test: cargo build -p vswitchd builds it"));
        }
    }
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        return lab::skip(&format!("/dev/net/tun cannot be opened: {error}"));
    }
    lab::in_lab(test, |lab| body(lab, Host::new(lab)));
}

/// A directory of its own, removed when dropped.
#[derive(Debug)]
pub struct Directory(pub PathBuf);

impl Directory {
    /// One among the temporary files.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a directory on a disk is no default of anything")]
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// In memory, where there is room: for whoever waits for a disk that others keep busy.
    pub(crate) fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::below(memory) } else { Self::new() }
    }

    fn below(parent: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("vswitch-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the directory for temporary files can be written");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A namespace that stands for a host, a directory for its files, and the daemon on it, which may come and go.
#[derive(Debug)]
pub struct Host {
    /// The daemon goes first, then the namespace.
    daemon: Option<Daemon>,
    namespace: Namespace,
    directory: Directory,
}

/// What `vswitchctl` or `vswitchd` said to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Host {
    fn new(lab: &Lab) -> Self {
        static HOSTS: AtomicU32 = AtomicU32::new(0);
        let number = HOSTS.fetch_add(1, Ordering::Relaxed);
        let namespace = lab.namespace(&format!("host{number}"));
        hush(&namespace);
        Self { daemon: None, namespace, directory: Directory::new() }
    }

    /// The namespace that stands for the host.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A file in the host's directory.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.0.join(name)
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.file("vswitch.toml")
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.file("control.sock")
    }

    /// The state file.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.file("state.json")
    }

    /// Writes the configuration file: a `[control]` section of this host's paths, then `toml`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, toml: &str) {
        let text = format!("[control]\nsocket = {:?}\nstate = {:?}\n{toml}", self.socket(), self.state());
        std::fs::write(self.config(), text).expect("the host's directory can be written");
    }

    /// The line of the configuration file that contains `text`, counted from 1.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn line_of(&self, text: &str) -> usize {
        let file = std::fs::read_to_string(self.config()).expect("the configuration was written");
        let at = file.lines().position(|line| line.contains(text));
        at.unwrap_or_else(|| panic!("{text:?} is not in the configuration")) + 1
    }

    /// A command that starts the daemon with the configuration file; not started yet.
    ///
    /// # Panics
    /// When there is no such program; [`with_host`] looked.
    #[must_use]
    pub fn vswitchd(&self) -> Command {
        let mut command = self.namespace.command(program("vswitchd").expect("there when the test began"));
        command.arg("--config").arg(self.config());
        // Daemons of other tests have pidfiles of their own.
        command.env("OVS_RUNDIR", &self.directory.0);
        command
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start(&mut self) {
        let mut command = self.vswitchd();
        self.start_with(&mut command);
    }

    /// Starts the daemon by this command and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start_with(&mut self, command: &mut Command) {
        assert!(self.daemon.is_none(), "one daemon at a time");
        let daemon = Daemon::spawn(command.env("OVS_RUNDIR", &self.directory.0));
        daemon.until_connectable(&self.socket(), PATIENCE);
        self.daemon = Some(daemon);
        let status = self.ctl("status");
        assert_eq!(status.code, 0, "{status:?}\n{}", self.log());
    }

    /// Configures, and starts the daemon.
    ///
    /// # Panics
    /// When it does not become ready.
    pub fn start_on(&mut self, toml: &str) {
        self.configure(toml);
        self.start();
    }

    /// Runs the daemon's program to its end with these further words, such as `--check`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, words: &str) -> Said {
        Self::run_command(self.vswitchd().args(words.split_whitespace()))
    }

    /// Runs a command to its end; one that is still running after [`PATIENCE`] is killed, and that is a failure.
    ///
    /// # Panics
    /// When it cannot be started, or does not end.
    #[must_use]
    pub fn run_command(command: &mut Command) -> Said {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let pid = child.id().to_string();
        let (sender, said) = channel();
        let reader = std::thread::spawn(move || drop(sender.send(child.wait_with_output())));
        let output = said.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            // Its number is its own until the thread has waited for it.
            let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
            panic!("{name} does not end");
        });
        reader.join().expect("the thread does nothing that fails");
        Said::of(&output.unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    /// The daemon that runs.
    ///
    /// # Panics
    /// When none does.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the daemon was started")
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// Ends the daemon by a signal and gives its exit code (-1 when it died of the signal) and its log.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(&mut self, signal: &str) -> (i32, String) {
        let mut daemon = self.daemon.take().expect("the daemon was started");
        daemon.signal(signal);
        let status = daemon.until_exit(PATIENCE);
        (status.code().unwrap_or(-1), daemon.log())
    }

    /// Asks `vswitchctl` with these words.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn ctl(&self, words: &str) -> Said {
        self.ctl_words(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// The same for words with blanks in them.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn ctl_words(&self, words: &[&str]) -> Said {
        let mut command = Command::new(program("vswitchctl").expect("there when the test began"));
        command.env_remove("VSWITCHD_SOCKET").arg("--socket").arg(self.socket()).args(words);
        Self::run_command(&mut command)
    }

    /// Asks `vswitchctl` with these words to change something, which must succeed.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn must(&self, words: &str) {
        let said = self.ctl(words);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "vswitchctl {words}: {said:?}\n{}", self.log());
    }

    /// Asks `vswitchctl --json` with these words, which must succeed.
    ///
    /// # Panics
    /// When it is refused, or the answer is no JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self, words: &str) -> Value {
        let said = self.ctl(&format!("--json {words}"));
        assert_eq!((said.code, said.err.as_str()), (0, ""), "vswitchctl {words}: {said:?}\n{}", self.log());
        said.json()
    }

    /// The rows of a table.
    ///
    /// # Panics
    /// When the answer is no array.
    #[must_use]
    #[track_caller]
    pub fn rows(&self, words: &str) -> Vec<Value> {
        let answer = self.json(words);
        answer.as_array().unwrap_or_else(|| panic!("vswitchctl {words}: {answer}")).clone()
    }

    /// The row of a port.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    #[track_caller]
    pub fn port(&self, name: &str) -> Value {
        let rows = self.rows("port");
        rows.into_iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no port {name:?}"))
    }

    /// Waits until the port's `link` says so, `up` or `down`, and gives its row.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn until_link(&self, name: &str, link: &str) -> Value {
        until(&format!("port {name} {link}\n{}", self.log()), PATIENCE, || {
            Some(self.port(name)).filter(|row| row["link"] == link)
        })
    }

    /// Every frame that was dropped, by reason.
    #[must_use]
    #[track_caller]
    pub fn drops(&self) -> std::collections::BTreeMap<String, u64> {
        let rows = self.rows("drops");
        rows.iter().map(|row| (text(row, "reason"), number(row, "count"))).collect()
    }

    /// The MAC table as `(mac, vlan, port, state)`, in its order.
    #[must_use]
    #[track_caller]
    pub fn macs(&self) -> Vec<(String, u64, String, String)> {
        let rows = self.rows("mac");
        let row =
            |row: &Value| (text(row, "mac"), number(row, "vlan"), text(row, "port"), text(row, "state"));
        rows.iter().map(row).collect()
    }

    /// Whether the host's namespace has an interface of that name.
    #[must_use]
    pub fn has_interface(&self, name: &str) -> bool {
        self.namespace.inside(|| raw::index(name).is_some())
    }

    /// Sends a frame, which `to` must receive as it is, until its source is known at `port`: a worker that finds
    /// another one changing the table leaves the learning to the next frame.
    ///
    /// # Panics
    /// When it does not arrive or is never learned.
    #[track_caller]
    pub fn teach(&self, from: &Raw, to: &Raw, frame: &[u8], port: &str) {
        let source: Vec<String> = frame[6..12].iter().map(|byte| format!("{byte:02x}")).collect();
        let source = source.join(":");
        until(&format!("{source} learned at {port}"), PATIENCE, || {
            from.reaches(to, frame);
            self.macs().iter().any(|(mac, _, at, _)| *mac == source && at == port).then_some(())
        });
    }
}

/// Calls one method over the control socket at `socket`, without a process of its own: where it is asked often.
///
/// # Errors
/// When nobody answers, or the answer is an error; its message is the daemon's.
pub fn call(socket: &Path, method: &str, params: &Value) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let mut answer: Value = serde_json::from_str(&line).map_err(std::io::Error::other)?;
    match answer.get("error") {
        Some(error) => Err(std::io::Error::other(error["message"].to_string())),
        None => Ok(answer["result"].take()),
    }
}

/// A text in a row; `-` for null.
///
/// # Panics
/// When there is no such key, or it is something else.
#[must_use]
#[track_caller]
pub fn text(row: &Value, key: &str) -> String {
    match &row[key] {
        Value::String(text) => text.clone(),
        Value::Null if row.get(key).is_some() => "-".to_owned(),
        _ => panic!("{key:?} is no text in {row}"),
    }
}

/// A number in a row.
///
/// # Panics
/// When there is no such key, or it is something else.
#[must_use]
#[track_caller]
pub fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("{key:?} is no number in {row}"))
}
