//! DEL and GC: the port goes first and the lease after it, so that no address is given out while somebody else's port
//! still has it.

use crate::conf::{Conf, Ipam, key};
use crate::daemon::{Daemon, Failure, Known};
use crate::delegate::{Delegate, Whose, rewrite};
use crate::environment::{Environment, Verb};
use crate::error::CniError;
use crate::owed::{self, Owed};
use serde::Deserialize;
use serde_json::Value;
use std::io;
use vswitchd::control::rpc::cni::{CniGc, CniKey};

/// Detaches. What is gone already is no error.
///
/// # Errors
/// [`CniError::TRY_AGAIN`] where the daemon does not answer: then nothing was done.
pub fn del(environment: &Environment, conf: &Conf) -> Result<(), CniError> {
    let attachment = &environment.attachment;
    let mut daemon = Daemon::connect(&conf.socket).map_err(Failure::error)?;
    let Ipam::Delegated(kind) = &conf.ipam else {
        let old = daemon.del(attachment).map_err(Failure::error)?;
        return free(environment, attachment, &old.conf);
    };
    let owed = note(&daemon, environment, conf, attachment)?;
    let old = daemon.del(attachment).map_err(Failure::error)?;
    // The configuration may have changed since.
    if old.conf.get("ipam") != conf.raw.get("ipam") {
        free(environment, attachment, &old.conf)?;
    }
    Delegate::new(environment, kind).run(Verb::Del, Whose::Ours, conf)?;
    owed.settle();
    Ok(())
}

#[derive(Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

/// Removes what belongs to no valid attachment (CNI 1.1.0, section 2, "GC"); where none are listed, what is provably
/// gone.
///
/// # Errors
/// The first one; it goes on behind each.
pub fn gc(environment: &Environment, conf: &Conf) -> Result<(), CniError> {
    let listed: Option<Vec<Valid>> = match key(&conf.raw, "cni.dev/valid-attachments")? {
        None => key(&conf.raw, "cni.dev/attachments")?,
        listed => listed,
    };
    let valid: Option<Vec<CniKey>> = listed
        .map(|all| all.into_iter().map(|of| CniKey { container: of.container, ifname: of.ifname }).collect());
    let mut daemon = Daemon::connect(&conf.socket).map_err(Failure::error)?;
    let mut errors = Vec::new();
    let mut notes = Vec::new();
    if matches!(conf.ipam, Ipam::Delegated(_)) {
        for known in daemon.list().map_err(Failure::error)?.into_iter().filter(|of| of.network == conf.name) {
            let attachment = CniKey { container: known.container, ifname: known.ifname };
            if valid.as_ref().is_none_or(|valid| !valid.contains(&attachment)) {
                let owed = note(&daemon, environment, conf, &attachment)?;
                notes.push((attachment, owed));
            }
        }
    }
    let wish = CniGc { network: conf.name.clone(), attachments: valid.clone() };
    for gone in daemon.gc(&wish).map_err(Failure::error)? {
        let attachment = CniKey { container: gone.container, ifname: gone.ifname };
        let at = notes.iter().position(|(of, _)| *of == attachment);
        let noted = at.map(|at| notes.swap_remove(at).1);
        match free(environment, &attachment, &gone.conf) {
            Ok(()) => noted.into_iter().for_each(Owed::settle),
            Err(error) => errors.push(error),
        }
    }
    // These have stayed: the daemon answers for them.
    notes.into_iter().for_each(|(_, owed)| owed.settle());
    let is_valid = |of: &CniKey| valid.as_ref().is_some_and(|valid| valid.contains(of));
    free_left(&mut daemon, environment, conf, is_valid, &mut errors)?;
    if let Ipam::Delegated(kind) = &conf.ipam {
        let ipam = Delegate::new(environment, kind);
        let collected = ipam
            .has_gc_and_status()
            .and_then(|has| if has { ipam.run(Verb::Gc, Whose::Ours, conf).map(drop) } else { Ok(()) });
        errors.extend(collected.err());
    }
    errors.into_iter().reduce(|first, next| first.and(&next)).map_or(Ok(()), Err)
}

/// Gives back the leases of attachments whose namespace died and that nobody detached, and of notes left behind. Whether
/// there were any.
///
/// # Errors
/// When the daemon does not answer. A lease that cannot be given back stays for DEL or GC.
pub fn free_gone(daemon: &mut Daemon, environment: &Environment, conf: &Conf) -> Result<bool, CniError> {
    let mut freed = false;
    for gone in daemon.gone(&conf.name).map_err(Failure::error)? {
        let attachment = CniKey { container: gone.container, ifname: gone.ifname };
        if free(environment, &attachment, &gone.conf).is_ok() {
            freed = true;
            daemon.del(&attachment).map_err(Failure::error)?;
        }
    }
    Ok(free_left(daemon, environment, conf, |_| false, &mut Vec::new())? || freed)
}

/// Settles the notes left behind, but for those of attachments that `stay`. Whether there were any.
fn free_left(
    daemon: &mut Daemon,
    environment: &Environment,
    conf: &Conf,
    stay: impl Fn(&CniKey) -> bool,
    errors: &mut Vec<CniError>,
) -> Result<bool, CniError> {
    let left = owed::left(&conf.socket, &conf.name).map_err(|error| unwritable(&error))?;
    if left.is_empty() {
        return Ok(false);
    }
    let known = daemon.list().map_err(Failure::error)?;
    let mut freed = false;
    for (attachment, owed) in left {
        let is = |of: &Known| of.container == attachment.container && of.ifname == attachment.ifname;
        if known.iter().any(is) {
            owed.settle();
        } else if !stay(&attachment) {
            match free(environment, &attachment, &noted(&owed)?) {
                Ok(()) => {
                    freed = true;
                    owed.settle();
                }
                Err(error) => errors.push(error),
            }
        }
    }
    Ok(freed)
}

/// Gives back the lease of `attachment`, which was made with configuration `was`, if another plugin gave it.
///
/// # Errors
/// What that plugin said.
pub fn free(environment: &Environment, attachment: &CniKey, was: &Value) -> Result<(), CniError> {
    let Some(was) = Conf::kept(was) else { return Ok(()) };
    let Ipam::Delegated(kind) = &was.ipam else { return Ok(()) };
    Delegate::new(environment, kind).run(Verb::Del, Whose::Other(attachment), &was).map(drop)
}

/// A note that the lease of `attachment` is to be given back. What was noted before of an ADD that was killed is given
/// back first, where another plugin than today's gave it.
fn note(
    daemon: &Daemon,
    environment: &Environment,
    conf: &Conf,
    attachment: &CniKey,
) -> Result<Owed, CniError> {
    let owed = Owed::take(daemon.socket(), &conf.name, attachment).map_err(|error| unwritable(&error))?;
    if owed.was_left {
        let was = noted(&owed)?;
        if was.get("ipam") != conf.raw.get("ipam") {
            free(environment, attachment, &was)?;
        }
    }
    rewrite(owed.file(), &conf.value()).map_err(|error| unwritable(&error))?;
    Ok(owed)
}

/// The configuration in a note; null in one that was made before any lease was asked for.
///
/// # Errors
/// When it cannot be read.
pub fn noted(owed: &Owed) -> Result<Value, CniError> {
    let text = owed.text().map_err(|error| unwritable(&error))?;
    Ok(serde_json::from_slice(&text).unwrap_or_default())
}

/// As the runtime is told that notes cannot be kept.
#[must_use]
pub fn unwritable(error: &io::Error) -> CniError {
    CniError::new(CniError::IO, "the notes of leases beside vswitchd's socket cannot be read or written")
        .because(error.to_string())
}
