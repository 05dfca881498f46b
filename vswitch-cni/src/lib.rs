//! The CNI plugin of vswitch: a container runtime starts it for one verb, it asks vswitchd for the pod's port, gives the
//! pod's interface its addresses and routes, prints the result and ends.
//!
//! It speaks versions 0.3.0 to 1.1.0 of the CNI specification. The daemon makes the port and moves its interface into
//! the pod's namespace, whose descriptor it is handed over the control socket; addresses and routes inside are set here
//! and live without either. Addresses come from a delegated IPAM plugin, from the daemon, or from nobody. This is a
//! library only so that the program and its tests can share it.

pub mod add;
pub mod collect;
pub mod conf;
pub mod daemon;
pub mod delegate;
pub mod environment;
pub mod error;
pub mod look;
pub mod net;
pub mod owed;
pub mod pod;
pub mod result;
pub mod version;
pub mod wishes;

use conf::Conf;
use environment::{Environment, Verb};
use error::CniError;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{Read, Write};
use version::Version;

/// Exit code: done.
pub const EXIT_GOOD: u8 = 0;
/// Exit code: not done; an error object is on the standard output.
pub const EXIT_FAILED: u8 = 1;

/// Does what `variables` and `input` ask, prints to `out` what the specification wants printed, and gives the exit
/// code.
pub fn run(variables: &dyn Fn(&str) -> Option<OsString>, input: &mut dyn Read, out: &mut dyn Write) -> u8 {
    let (text, code) = match answer(variables, input) {
        Ok(None) => return EXIT_GOOD,
        Ok(Some(answer)) => (answer, EXIT_GOOD),
        Err((error, version)) => (error.json(version), EXIT_FAILED),
    };
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(_) => EXIT_FAILED,
    }
}

fn answer(
    variables: &dyn Fn(&str) -> Option<OsString>,
    input: &mut dyn Read,
) -> Result<Option<Value>, (CniError, Version)> {
    let latest = |error| (error, Version::V110);
    let environment = Environment::read(variables).map_err(latest)?;
    let mut text = Vec::new();
    input.read_to_end(&mut text).map_err(|error| {
        latest(CniError::new(CniError::IO, format!("the network configuration cannot be read: {error}")))
    })?;
    if environment.verb == Verb::Version {
        return version(&text).map(Some).map_err(latest);
    }
    let conf = Conf::parse(&text)?;
    serve(&environment, &conf).map_err(|error| (error, conf.version))
}

fn serve(environment: &Environment, conf: &Conf) -> Result<Option<Value>, CniError> {
    let since = match environment.verb {
        Verb::Check => Version::V040,
        Verb::Gc | Verb::Status => Version::V110,
        Verb::Add | Verb::Del | Verb::Version => Version::V030,
    };
    if conf.version < since {
        let verb = environment.verb.text();
        return Err(CniError::new(CniError::INCOMPATIBLE, format!("version {} has no {verb}", conf.version))
            .because(format!("{verb} came with {since}")));
    }
    match environment.verb {
        Verb::Add => add::add(environment, conf).map(Some),
        Verb::Del => collect::del(environment, conf).map(|()| None),
        Verb::Check => look::check(environment, conf).map(|()| None),
        Verb::Gc => collect::gc(environment, conf).map(|()| None),
        Verb::Status => look::status(environment, conf).map(|()| None),
        Verb::Version => Ok(None),
    }
}

/// The answer to VERSION: in the version that was asked in, whatever that is.
fn version(text: &[u8]) -> Result<Value, CniError> {
    let asked: Value = if text.trim_ascii().is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(text).map_err(|error| {
            CniError::new(CniError::DECODE, format!("what VERSION was given is not JSON: {error}"))
        })?
    };
    let version = asked.get("cniVersion").and_then(Value::as_str).unwrap_or(Version::V110.text());
    Ok(json!({"cniVersion": version, "supportedVersions": Version::ALL.map(Version::text)}))
}
