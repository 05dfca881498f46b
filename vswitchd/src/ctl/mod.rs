//! `vswitchctl`: arguments in, one call to the daemon, its answer as a table or as JSON; the installation of the
//! CNI plugin; and the import of Open vSwitch's configuration.
//!
//! A client of the control socket like any other: it can do nothing that another client could not. Not here:
//! the process itself (see `bin/vswitchctl.rs`).

mod args;
mod client;
mod cni;
mod import;
mod text;

use crate::control::rpc::{ReloadAnswer, RpcError};
use args::{Answer, Invocation, Order};
use client::Failure;
use serde::Deserialize;
use serde_json::Value;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};

/// The socket, where neither `--socket` nor `VSWITCHD_SOCKET` names one.
pub const DEFAULT_SOCKET: &str = "/run/vswitchd/control.sock";

/// Exit code: done.
pub const EXIT_GOOD: u8 = 0;
/// Exit code: anything that has no code of its own.
pub const EXIT_FAILED: u8 = 1;
/// Exit code: wrong usage (sysexits.h, EX_USAGE).
pub const EXIT_USAGE: u8 = 64;
/// Exit code: the daemon does not answer (sysexits.h, EX_UNAVAILABLE).
pub const EXIT_UNAVAILABLE: u8 = 69;
/// Exit code: the configuration is bad (sysexits.h, EX_CONFIG).
pub const EXIT_CONFIG: u8 = 78;

/// Does what `args` (without the program's name) ask and gives the exit code. `socket` is the value of
/// `VSWITCHD_SOCKET`. A reader of `out` who has gone is no failure.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    socket: Option<OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let (text, code) = match args::parse(args, socket) {
        Ok(Order::Say(text)) => (text, EXIT_GOOD),
        Ok(Order::Refuse(text)) => {
            say(err, &text);
            return EXIT_FAILED;
        }
        Ok(Order::Call(invocation)) => match call(&invocation, err) {
            Ok(done) => done,
            Err(failure) => return failure.report(err),
        },
        Ok(Order::Cni(order)) => match order.run(err) {
            Ok(text) => (text, EXIT_GOOD),
            Err(failure) => return failure.report(err),
        },
        Ok(Order::Import(order)) => match order.run(err) {
            Ok(text) => (text, EXIT_GOOD),
            Err(failure) => return failure.report(err),
        },
        Err(usage) => {
            say(err, &format!("{usage}; vswitchctl --help shows how"));
            return EXIT_USAGE;
        }
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            say(err, &format!("cannot write the answer: {error}"));
            EXIT_FAILED
        }
        _ => code,
    }
}

fn call(invocation: &Invocation, err: &mut dyn Write) -> Result<(String, u8), Failure> {
    let mut answer = invocation.daemon.call(invocation.method, &invocation.params)?;
    if let Answer::Drops { all: false } = invocation.answer
        && let Some(rows) = answer.as_array_mut()
    {
        rows.retain(|row| row.get("count").and_then(Value::as_u64) != Some(0));
    }
    let code = match invocation.answer {
        Answer::Reload => reload_code(&answer, err),
        Answer::Diff if answer.as_array().is_some_and(|lines| !lines.is_empty()) => EXIT_FAILED,
        Answer::Doctor if text::has_bad(&answer) => EXIT_FAILED,
        _ => EXIT_GOOD,
    };
    let text = match (answer.is_null(), invocation.json) {
        (true, _) => String::new(),
        (false, true) => format!("{answer}\n"),
        (false, false) => text::render(invocation.answer, &answer),
    };
    Ok((text, code))
}

/// Lists what the operating system refused.
fn reload_code(answer: &Value, err: &mut dyn Write) -> u8 {
    let Ok(answer) = ReloadAnswer::deserialize(answer) else { return EXIT_GOOD };
    if answer.failed.is_empty() {
        return EXIT_GOOD;
    }
    let count = answer.failed.len();
    say(err, &format!("reloaded, but {count} of the objects are down; each is tried again"));
    for failed in &answer.failed {
        say_cause(err, &format!("{} {:?}: {}", failed.kind, failed.name, failed.reason));
    }
    EXIT_FAILED
}

/// One line for the person; nobody is left to tell when it cannot be written.
fn say(err: &mut dyn Write, text: &str) {
    drop::<io::Result<()>>(writeln!(err, "vswitchctl: {}", text::printable(text)));
}

fn say_cause(err: &mut dyn Write, text: &str) {
    drop::<io::Result<()>>(writeln!(err, "  {}", text::printable(text)));
}

impl Failure {
    /// Says it, and gives the exit code.
    fn report(&self, err: &mut dyn Write) -> u8 {
        say(err, &self.message());
        self.causes().iter().for_each(|cause| say_cause(err, cause));
        self.exit()
    }

    fn message(&self) -> String {
        match self {
            Self::Unavailable(message) | Self::Here(message, _) => message.clone(),
            Self::Refused(RpcError { message, .. }) => message.clone(),
        }
    }

    fn causes(&self) -> &[String] {
        match self {
            Self::Unavailable(_) | Self::Here(..) => &[],
            Self::Refused(error) => &error.data.causes,
        }
    }

    const fn exit(&self) -> u8 {
        match self {
            Self::Unavailable(_) => EXIT_UNAVAILABLE,
            Self::Here(_, exit) => *exit,
            Self::Refused(error) => match error.data.exit {
                code @ (EXIT_USAGE | EXIT_CONFIG) => code,
                _ => EXIT_FAILED,
            },
        }
    }
}
