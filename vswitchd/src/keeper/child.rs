//! The command whose parent the keeper's process is: started, started again when it fails, told what we are told.
//!
//! Not here: waiting for its end, and descriptors.

use super::VARIABLE;
use crate::observe::log;
use crate::sys::event::Signal;
use crate::sys::process;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;
use vswitch_core::Instant;

/// The end that is meant.
const DONE: i32 = 0;
/// Wrong usage, bad configuration: as a first end it says that nothing was ever begun. Later there is something to keep,
/// until somebody has put right what is wrong.
const HOPELESS: [i32; 2] = [64, 78];
/// How soon one that failed is started again: from this, doubling, to that.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];
/// One that lived as long is started again at once, and its next failure is a first one.
const HEALTHY: Duration = Duration::from_secs(10);

/// A command that runs, or waits to be started again.
#[derive(Debug)]
pub(super) struct Child {
    command: Command,
    state: State,
    pause: Duration,
    /// It has been started again before.
    again: bool,
    /// It was asked to end: then any end is the last.
    ending: bool,
}

#[derive(Debug)]
enum State {
    Runs { child: std::process::Child, watch: OwnedFd, since: Instant },
    Waits { until: Instant },
}

impl Child {
    /// Starts `words`, a program and its arguments, with the keeper's socket in its environment.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(words: &[OsString], socket: &Path, now: Instant) -> io::Result<Self> {
        let [program, arguments @ ..] = words else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut command = Command::new(program);
        command.args(arguments).env(VARIABLE, socket);
        let state = run(&mut command, now)?;
        Ok(Self { command, state, pause: PAUSES[0], again: false, ending: false })
    }

    /// What becomes readable when it ends; `None` while it waits.
    pub(super) fn watch(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Runs { watch, .. } => Some(watch.as_fd()),
            State::Waits { .. } => None,
        }
    }

    /// When it is to be started again; `None` while it runs.
    pub(super) const fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Runs { .. } => None,
            State::Waits { until } => Some(*until),
        }
    }

    /// It may have ended. The exit code with which we end as well, if it is not to be started again: its own, or,
    /// where a signal ended it, 128 and the signal's number.
    pub(super) fn ended(&mut self, now: Instant) -> io::Result<Option<u8>> {
        let State::Runs { child, since, .. } = &mut self.state else { return Ok(None) };
        let Some(status) = child.try_wait()? else { return Ok(None) };
        let is_final = |code| code == DONE || (!self.again && HOPELESS.contains(&code));
        if self.ending || status.code().is_some_and(is_final) {
            return Ok(Some(code(status)));
        }
        let healthy = now.since(*since) >= HEALTHY;
        self.wait(now, healthy);
        log::warn("the command has ended and is started again", &[("how", &status)]);
        Ok(None)
    }

    /// Starts it again; one that cannot be started is tried again later.
    pub(super) fn start_again(&mut self, now: Instant) {
        match run(&mut self.command, now) {
            Ok(state) => self.state = state,
            Err(error) => {
                log::warn("the command cannot be started", &[("reason", &error)]);
                self.wait(now, false);
            }
        }
    }

    fn wait(&mut self, now: Instant, healthy: bool) {
        self.again = true;
        if healthy {
            self.pause = PAUSES[0];
            self.state = State::Waits { until: now };
        } else {
            self.state = State::Waits { until: now.after(self.pause) };
            self.pause = (self.pause * 2).min(PAUSES[1]);
        }
    }

    /// Passes a signal on. The exit code with which we end, where nobody is there to be asked to end.
    pub(super) fn signal(&mut self, signal: Signal) -> io::Result<Option<u8>> {
        self.ending |= signal != Signal::Hangup;
        match &mut self.state {
            State::Runs { child, .. } => process::signal(child, signal).map(|()| None),
            State::Waits { .. } => Ok(self.ending.then_some(0)),
        }
    }
}

fn run(command: &mut Command, now: Instant) -> io::Result<State> {
    let mut child = process::start_unblocked(command)?;
    match process::watch(&child) {
        Ok(watch) => {
            log::info("command started", &[("pid", &child.id())]);
            Ok(State::Runs { child, watch, since: now })
        }
        Err(error) => {
            process::ask_to_end(&mut child)?;
            child.wait()?;
            Err(error)
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let signal = || 128 + status.signal().unwrap_or(0);
    u8::try_from(status.code().unwrap_or_else(signal)).unwrap_or(u8::MAX)
}
