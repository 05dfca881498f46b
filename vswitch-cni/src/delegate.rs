//! Running a delegated IPAM plugin (CNI 1.1.0, section 4): found in `CNI_PATH`, given the same environment and
//! configuration, heard.
//!
//! Not here: when it is to be run, and what becomes of what it gives.

use crate::conf::Conf;
use crate::environment::{Environment, Verb};
use crate::error::CniError;
use crate::version::Version;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, ErrorKind, Seek, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use vswitchd::control::rpc::cni::CniKey;

/// A plugin to which IPAM is delegated.
#[derive(Debug)]
pub struct Delegate<'a> {
    environment: &'a Environment,
    kind: &'a str,
}

/// For whom it is run.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// As the runtime asked: the environment goes on as it came.
    Ours,
    /// For an attachment of which the runtime said nothing: it has no namespace any more, and no arguments.
    Other(&'a CniKey),
}

#[derive(Deserialize)]
struct Said {
    code: u32,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

#[derive(Deserialize)]
struct Speaks {
    #[serde(rename = "supportedVersions")]
    versions: Vec<String>,
}

impl<'a> Delegate<'a> {
    /// The plugin called `kind`.
    #[must_use]
    pub const fn new(environment: &'a Environment, kind: &'a str) -> Self {
        Self { environment, kind }
    }

    /// Runs it with `conf`, and gives what it printed. A plugin that speaks no version as late as `conf`'s is asked in
    /// its own latest one.
    ///
    /// # Errors
    /// What the plugin said; [`CniError::DELEGATE`] when it cannot be run or says nothing that is understood.
    pub fn run(&self, verb: Verb, whose: Whose<'_>, conf: &Conf) -> Result<Vec<u8>, CniError> {
        self.in_its_version(conf, |conf| self.run_once(verb, whose, &Input::Text(conf.value().to_string())))
    }

    /// The same for an ADD, with `conf` written to `file`, from which the plugin reads it. What is locked by way of
    /// `file` stays so while the plugin runs, even if this process ends.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub fn add(&self, conf: &Conf, file: &File) -> Result<Vec<u8>, CniError> {
        self.in_its_version(conf, |conf| {
            rewrite(file, &conf.value()).map_err(|error| {
                CniError::new(CniError::IO, "the configuration cannot be written down")
                    .because(error.to_string())
            })?;
            self.run_once(Verb::Add, Whose::Ours, &Input::File(file))
        })
    }

    /// Whether it speaks 1.1.0, and so has GC and STATUS.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub fn has_gc_and_status(&self) -> Result<bool, CniError> {
        Ok(self.latest(Version::V110)? == Some(Version::V110))
    }

    fn in_its_version<T>(
        &self,
        conf: &Conf,
        run: impl Fn(&Conf) -> Result<T, CniError>,
    ) -> Result<T, CniError> {
        match run(conf) {
            Err(error) if error.code == CniError::INCOMPATIBLE => match self.latest(conf.version) {
                Ok(Some(version)) if version < conf.version => run(&conf.spoken_as(version)),
                _ => Err(error),
            },
            ran => ran,
        }
    }

    /// The latest version that it speaks, up to `limit`.
    fn latest(&self, limit: Version) -> Result<Option<Version>, CniError> {
        let input = Input::Text(json!({"cniVersion": limit.text()}).to_string());
        let answer = self.run_once(Verb::Version, Whose::Ours, &input)?;
        let Speaks { versions } =
            serde_json::from_slice(&answer).map_err(|error| self.nonsense(&error.to_string()))?;
        Ok(versions.iter().filter_map(|text| Version::parse(text)).filter(|version| *version <= limit).max())
    }

    fn run_once(&self, verb: Verb, whose: Whose<'_>, input: &Input<'_>) -> Result<Vec<u8>, CniError> {
        let mut command = Command::new(self.find()?);
        command.env("CNI_COMMAND", verb.text()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        if let Whose::Other(attachment) = whose {
            command
                .env("CNI_CONTAINERID", &attachment.container)
                .env("CNI_IFNAME", &attachment.ifname)
                .env_remove("CNI_NETNS")
                .env_remove("CNI_ARGS");
        }
        let failed = |error: io::Error| {
            CniError::new(CniError::DELEGATE, format!("IPAM plugin {:?} cannot be run", self.kind))
                .because(error.to_string())
        };
        let output = input.run(&mut command).map_err(failed)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let Ok(Said { code, msg, details }) = serde_json::from_slice(&output.stdout) else {
            return Err(self.nonsense(&output.status.to_string()));
        };
        Err(CniError { code, msg: format!("{}: {msg}", self.kind), details })
    }

    fn nonsense(&self, what: &str) -> CniError {
        CniError::new(CniError::DELEGATE, format!("IPAM plugin {:?} failed without a reason", self.kind))
            .because(what)
    }

    /// Where it is.
    ///
    /// # Errors
    /// There is none on the path: it can give no lease.
    pub fn find(&self) -> Result<PathBuf, CniError> {
        let mut places = self.environment.path.iter().map(|directory| directory.join(self.kind));
        places.find(|path| path.is_file()).ok_or_else(|| {
            let path: Vec<String> = self.environment.path.iter().map(|at| at.display().to_string()).collect();
            CniError::config(format!("IPAM plugin {:?} is not to be found", self.kind))
                .because(format!("CNI_PATH is {:?}", path.join(":")))
        })
    }
}

/// Writes `value` to `file`, from its start, and leaves it there.
///
/// # Errors
/// When it cannot be written.
pub fn rewrite(mut file: &File, value: &Value) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(value.to_string().as_bytes())?;
    file.rewind()
}

/// Where a plugin's standard input comes from.
enum Input<'a> {
    Text(String),
    File(&'a File),
}

impl Input<'_> {
    fn run(&self, command: &mut Command) -> io::Result<std::process::Output> {
        match self {
            Self::File(file) => command.stdin(file.try_clone()?).spawn()?.wait_with_output(),
            Self::Text(text) => {
                let mut child = command.stdin(Stdio::piped()).spawn()?;
                let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()));
                let output = child.wait_with_output()?;
                match written {
                    // Who needs no input need not read it.
                    Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
                    _ => Ok(output),
                }
            }
        }
    }
}
