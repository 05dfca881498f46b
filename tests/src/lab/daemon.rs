//! Processes that a test starts and stops, and waiting for what they do.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The clock of a test that runs in real time.
#[expect(
    clippy::disallowed_types,
    reason = "a test that waits for a process needs a clock; the switch does not"
)]
type Clock = std::time::Instant;

/// A point in time after which a test no longer waits.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Clock);

impl Deadline {
    /// `within` from now.
    #[must_use]
    pub fn after(within: Duration) -> Self {
        Self(Clock::now() + within)
    }

    /// How much is left; `None` when it is over.
    #[must_use]
    pub fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(Clock::now()).filter(|left| !left.is_zero())
    }
}

/// Time since a moment.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Clock);

impl Stopwatch {
    /// Since now.
    #[must_use]
    pub fn start() -> Self {
        Self(Clock::now())
    }

    /// How long that is ago.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Asks `question` again and again, a millisecond apart, until it has an answer.
///
/// # Panics
/// When there is none `within` that time; the message says `what` was awaited.
pub fn until<T>(what: &str, within: Duration, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Deadline::after(within);
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(deadline.left().is_some(), "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[derive(Debug, Default)]
struct Log {
    /// The text so far, and whether it has ended.
    text: Mutex<(String, bool)>,
    grown: Condvar,
}

/// A process, killed when dropped. What it writes to standard error is kept, and shown when the test panics.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    name: String,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts `command` with its standard error captured, nothing to read, and standard output thrown away.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("asked for a line above");
        let kept = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            loop {
                line.clear();
                let more = stderr.read_until(b'\n', &mut line).is_ok_and(|len| len > 0);
                let mut text = kept.text.lock().unwrap_or_else(PoisonError::into_inner);
                text.0.push_str(&String::from_utf8_lossy(&line));
                text.1 = !more;
                drop(text);
                kept.grown.notify_all();
                if !more {
                    return;
                }
            }
        });
        Self { child, name, log, reader: Some(reader) }
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard error.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits until it has written `text` to standard error.
    ///
    /// # Panics
    /// When it has not `within` that time, or ends before.
    pub fn until_logged(&self, text: &str, within: Duration) {
        let deadline = Deadline::after(within);
        let mut kept = self.log.text.lock().unwrap_or_else(PoisonError::into_inner);
        while !kept.0.contains(text) {
            let left = deadline.left().filter(|_| !kept.1);
            let Some(left) = left else {
                panic!("{} never said {text:?}; it said:\n{}", self.name, kept.0);
            };
            kept = self.log.grown.wait_timeout(kept, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until a Unix stream socket answers at `path`, and returns the connection.
    ///
    /// # Panics
    /// When none does `within` that time, or the process ends before.
    pub fn until_connectable(&self, path: &Path, within: Duration) -> UnixStream {
        until(&format!("{} at {}", self.name, path.display()), within, || {
            let connected = UnixStream::connect(path).ok();
            let ended = connected.is_none() && self.log.text.lock().unwrap_or_else(PoisonError::into_inner).1;
            assert!(!ended, "{} ended; it said:\n{}", self.name, self.log());
            connected
        })
    }

    /// Sends it a signal by name, such as `HUP`.
    ///
    /// # Panics
    /// When there is no such signal.
    pub fn signal(&self, name: &str) {
        super::check(Command::new("kill").args(["-s", name, &self.pid().to_string()]));
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended `within` that time.
    pub fn until_exit(&mut self, within: Duration) -> ExitStatus {
        let what = format!("end of {}", self.name);
        let status = until(&what, within, || self.child.try_wait().expect("it is our child"));
        // Everything that it wrote is in the log when this returns, unless it left children of its own behind.
        let _ = self.log.grown.wait_timeout_while(
            self.log.text.lock().unwrap_or_else(PoisonError::into_inner),
            within,
            |text| !text.1,
        );
        status
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{} said:\n{}", self.name, self.log());
        }
        // A child of its own may hold the pipe open; then the thread ends with that.
        if let Some(reader) = self.reader.take().filter(JoinHandle::is_finished) {
            let _ = reader.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_daemon_is_heard_signalled_and_gone_when_dropped() {
        let script = "trap 'echo bye >&2; exit 7' TERM; echo ready >&2; while :; do sleep 0.01; done";
        let mut daemon = Daemon::spawn(Command::new("sh").args(["-c", script]));
        daemon.until_logged("ready", PATIENCE);
        daemon.signal("TERM");
        assert_eq!(daemon.until_exit(PATIENCE).code(), Some(7));
        assert_eq!(daemon.log(), "ready\nbye\n");

        let daemon = Daemon::spawn(Command::new("sleep").arg("1000"));
        let process = format!("/proc/{}", daemon.pid());
        assert!(Path::new(&process).exists());
        drop(daemon);
        assert!(!Path::new(&process).exists());
    }

    #[test]
    #[should_panic(expected = "never said \"ready\"; it said:\nno\n")]
    fn waiting_for_a_word_ends_when_the_daemon_does() {
        Daemon::spawn(Command::new("sh").args(["-c", "echo no >&2"])).until_logged("ready", PATIENCE);
    }

    #[test]
    #[should_panic(expected = "ended; it said:\nno\n")]
    fn waiting_for_a_socket_ends_when_the_daemon_does() {
        let daemon = Daemon::spawn(Command::new("sh").args(["-c", "echo no >&2"]));
        daemon.until_connectable(Path::new("/nonexistent/socket"), PATIENCE);
    }
}
