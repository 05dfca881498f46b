//! One execution of a plugin: the specification's environment and standard input in, its answer out.

use super::{Attachment, Kill};
use crate::daemon::{PATIENCE, Said};
use crate::lab::inside;
use serde_json::Value;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};

/// What a plugin is asked to do: `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// ADD
    Add,
    /// DEL
    Del,
    /// CHECK
    Check,
    /// GC
    Gc,
    /// STATUS
    Status,
    /// VERSION
    Version,
}

impl Verb {
    /// As `CNI_COMMAND` has it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// A plugin's word that it could not (CNI 1.1.0, section 5, "Error"), or that it died of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error's code; 0 when it died.
    pub code: u64,
    /// `cniVersion`; empty where it is not said.
    pub version: String,
    /// `msg`.
    pub msg: String,
    /// `details`.
    pub details: String,
    /// Which plugin, and what it was asked.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {} ({})", self.what, self.code, self.msg, self.details)
    }
}

impl Failure {
    /// Whether the plugin died of a signal instead of saying something.
    #[must_use]
    pub fn killed(&self) -> bool {
        self.code == 0
    }

    /// The answer in `said`, or the failure in it.
    ///
    /// # Panics
    /// When it is neither.
    pub(super) fn or_answer(verb: Verb, plugin: &Value, said: &Said) -> Result<String, Self> {
        let what = format!("{} {}", plugin["type"].as_str().unwrap_or_default(), verb.text());
        match said.code {
            0 => Ok(said.out.clone()),
            -1 => {
                let [version, msg, details] = ["", "killed by a signal", ""].map(str::to_owned);
                Err(Self { code: 0, version, msg, details, what })
            }
            _ => Err(Self::parse(what, said)),
        }
    }

    /// What a plugin said that ended with another code than 0.
    ///
    /// # Panics
    /// When that is no error object.
    #[must_use]
    pub fn parse(what: String, said: &Said) -> Self {
        let error: Value = serde_json::from_str(&said.out)
            .unwrap_or_else(|error| panic!("{what}: no error object ({error}): {said:?}"));
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        let code = error["code"].as_u64().filter(|code| *code > 0);
        let code = code.unwrap_or_else(|| panic!("{what}: an error without a code: {error}"));
        assert!(!text("msg").is_empty(), "{what}: an error without a message: {error}");
        Self { code, version: text("cniVersion"), msg: text("msg"), details: text("details"), what }
    }
}

/// A plugin about to be called.
#[derive(Debug)]
pub struct Execution {
    host: PathBuf,
    /// The words to run: the plugin's file, and what stands before it.
    pub words: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Standard input.
    pub config: String,
    /// Its end before its time.
    pub kill: Option<Kill>,
}

impl Execution {
    pub(super) fn new(
        host: &Path,
        before: &[String],
        program: &Path,
        verb: Verb,
        attachment: Option<&Attachment>,
        path: &[PathBuf],
        config: &Value,
    ) -> Self {
        let mut words = before.to_vec();
        words.push(program.display().to_string());
        let path: Vec<String> = path.iter().map(|directory| directory.display().to_string()).collect();
        let mut environment = vec![("CNI_COMMAND", verb.text().to_owned()), ("CNI_PATH", path.join(":"))];
        // Plugins of others call programs: iptables, sysctl.
        environment.push(("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()));
        if let Some(attachment) = attachment {
            let args: Vec<String> =
                attachment.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
            environment.extend([
                ("CNI_CONTAINERID", attachment.container.clone()),
                ("CNI_IFNAME", attachment.ifname.clone()),
                (
                    "CNI_NETNS",
                    attachment.netns.as_ref().map_or_else(String::new, |at| at.display().to_string()),
                ),
                ("CNI_ARGS", args.join(";")),
            ]);
        }
        let environment = environment.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self { host: host.to_owned(), words, environment, config: config.to_string(), kill: None }
    }

    /// Puts a variable of the environment in the place of the one of that name; `None` takes it away.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Runs it to its end; one that is still running after [`PATIENCE`] is killed.
    ///
    /// # Panics
    /// When it cannot be started, or does not end by itself.
    #[must_use]
    pub fn run(&self) -> Said {
        let mut command = Command::new(&self.words[0]);
        command
            .args(&self.words[1..])
            .env_clear()
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The child is born where the thread is that starts it.
        let child = inside(&self.host, || command.spawn());
        let mut child = child.unwrap_or_else(|error| panic!("{:?}: {error}", self.words));
        // What it does not take is its own affair: it may have refused before.
        let _ = child.stdin.take().expect("asked for a line above").write_all(self.config.as_bytes());
        let (over, ended) = channel::<()>();
        let (pid, kill) = (child.id().to_string(), self.kill);
        let watch = std::thread::spawn(move || {
            let early = match kill {
                Some(Kill::After(moment)) => moment,
                None => PATIENCE,
            };
            // Its number is its own until the other thread has waited for it, and that waits for this one.
            let late = ended.recv_timeout(early) == Err(RecvTimeoutError::Timeout);
            if late {
                let _ = Command::new("kill").args(["-s", "KILL", &pid]).output();
            }
            late && kill.is_none()
        });
        let mut out = String::new();
        let mut err = String::new();
        std::thread::scope(|scope| {
            let (mut stderr, err) = (child.stderr.take().expect("asked for above"), &mut err);
            scope.spawn(move || stderr.read_to_string(err));
            let _ = child.stdout.take().expect("asked for above").read_to_string(&mut out);
        });
        let _ = over.send(());
        let late = watch.join().expect("the thread does nothing that fails");
        let status = child.wait().unwrap_or_else(|error| panic!("{:?}: {error}", self.words));
        let said = Said { code: status.code().unwrap_or(-1), out, err };
        assert!(!late, "{:?} with {:?} does not end: {said:?}", self.words, self.config);
        said
    }
}
