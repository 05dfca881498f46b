//! CHECK and STATUS: whether an attachment is as it was made, and whether one could be made now. They change nothing.

use crate::conf::{Conf, Ipam, key};
use crate::daemon::{Daemon, Failure};
use crate::delegate::{Delegate, Whose};
use crate::environment::{Environment, Verb};
use crate::error::CniError;
use crate::pod;
use crate::result::Expected;
use crate::wishes::Wishes;
use serde_json::{Map, Value, json};
use std::os::fd::AsFd;
use vswitchd::control::rpc::cni::CniStatus;

/// Whether the attachment is as `prevResult` has it (CNI 1.1.0, section 2, "CHECK").
///
/// # Errors
/// What is not, or [`CniError::UNKNOWN_CONTAINER`] when there is no such attachment.
pub fn check(environment: &Environment, conf: &Conf) -> Result<(), CniError> {
    let wishes = Wishes::read(conf, &environment.args)?;
    let previous: Map<String, Value> =
        key(&conf.raw, "prevResult")?.ok_or_else(|| CniError::config("\"prevResult\" is missing"))?;
    let attachment = &environment.attachment;
    let expected = Expected::read(&previous, &attachment.ifname)
        .map_err(|error| CniError::config(format!("\"prevResult\": {error}")))?;
    let namespace = pod::open(&environment.netns)?;
    let mut daemon = Daemon::connect(&conf.socket).map_err(Failure::error)?;
    let checked = daemon.check(attachment, namespace.as_fd()).map_err(Failure::error)?;
    // A pod that is held to its MAC address is cut off with any other.
    let held = wishes.settings.get("anti_spoof") == Some(&json!(true));
    let mac = held.then_some(checked.mac.as_str());
    pod::compare(namespace.as_fd(), &attachment.ifname, &expected, mac)?;
    if let Ipam::Delegated(kind) = &conf.ipam {
        Delegate::new(environment, kind).run(Verb::Check, Whose::Ours, conf)?;
    }
    Ok(())
}

/// Whether an ADD could be served (CNI 1.1.0, section 2, "STATUS").
///
/// # Errors
/// [`CniError::UNAVAILABLE`], or [`CniError::LIMITED`] where the daemon does not answer and so carries nothing.
pub fn status(environment: &Environment, conf: &Conf) -> Result<(), CniError> {
    let wishes = Wishes::read(conf, "")?;
    let not_now = |failure: Failure| {
        let code = match failure {
            Failure::Away(_) => CniError::LIMITED,
            Failure::Refused(_) => CniError::UNAVAILABLE,
        };
        CniError { code, ..failure.error() }
    };
    let mut daemon = Daemon::connect(&conf.socket).map_err(not_now)?;
    let ipam = wishes.built_in();
    let status = CniStatus { network: conf.name.clone(), settings: wishes.settings, ipam };
    daemon.status(&status).map_err(not_now)?;
    if let Ipam::Delegated(kind) = &conf.ipam {
        let ipam = Delegate::new(environment, kind);
        let asked = ipam
            .has_gc_and_status()
            .and_then(|has| if has { ipam.run(Verb::Status, Whose::Ours, conf).map(drop) } else { Ok(()) });
        asked.map_err(|error| match error.code {
            CniError::UNAVAILABLE | CniError::LIMITED => error,
            _ => CniError { code: CniError::UNAVAILABLE, ..error },
        })?;
    }
    Ok(())
}
