//! The keeper: whoever holds a duplicate of every TAP's descriptor, by port name, so that an interface outlives the
//! daemon that opened it.
//!
//! A TAP lives as long as a descriptor of it is open somewhere. systemd's descriptor store is one such place
//! (`systemd.rs`), `vswitchd keeper` another ([`process`], spoken to by `client.rs`). Not here: which ports there are,
//! and whether what comes back still fits one of them.

mod child;
mod client;
pub mod process;
mod systemd;
mod words;

pub use systemd::notify;

use crate::sys::tun;
use client::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use vswitch_core::Instant;

/// The environment variable that names the keeper's socket.
pub const VARIABLE: &str = "VSWITCHD_KEEPER";

/// Where the keeper's socket is where nobody says otherwise.
pub const SOCKET: &str = "/run/vswitchd/keeper.sock";

#[derive(Debug)]
enum Kind {
    None,
    Systemd,
    Process(Client),
}

/// The daemon's way to its keeper.
#[derive(Debug)]
pub struct Keeper {
    kind: Kind,
    /// The names of what was given to it and not taken back.
    given: BTreeSet<String>,
}

impl Keeper {
    /// Nobody who keeps anything.
    #[must_use]
    pub const fn none() -> Self {
        Self { kind: Kind::None, given: BTreeSet::new() }
    }

    /// The keeper that the environment names, and what it kept: with VSWITCHD_KEEPER the process behind that socket,
    /// else with NOTIFY_SOCKET systemd's descriptor store, else none. A process that does not answer is one that is
    /// not there yet: see [`Keeper::look`].
    ///
    /// # Errors
    /// `InvalidData` when systemd's variables say what cannot be.
    pub fn from_environment() -> io::Result<(Self, Kept)> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(path) = variable(VARIABLE) {
            return Ok(Self::process(PathBuf::from(path)));
        }
        if variable("NOTIFY_SOCKET").is_none() {
            return Ok((Self::none(), Kept::default()));
        }
        let kept = systemd::kept()?;
        let given = kept.keys().cloned().collect();
        Ok((Self { kind: Kind::Systemd, given }, Kept(kept)))
    }

    /// The process behind the socket `path`, and what it kept. One that does not answer is not there yet.
    #[must_use]
    pub fn process(path: PathBuf) -> (Self, Kept) {
        let mut client = Client::new(path);
        let kept = client.begin();
        let given = kept.keys().cloned().collect();
        (Self { kind: Kind::Process(client), given }, Kept(kept))
    }

    /// Gives it a duplicate of `descriptor` under `name`, in place of what it had under that name. Without a keeper
    /// nothing happens, and that is no error.
    ///
    /// # Errors
    /// It does not take it, or is not there.
    pub fn keep(&mut self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        match &mut self.kind {
            Kind::None => return Ok(()),
            Kind::Systemd => systemd::keep(name, descriptor, self.given.contains(name))?,
            Kind::Process(client) => client.keep(name, descriptor)?,
        }
        self.given.insert(name.to_owned());
        Ok(())
    }

    /// Lets it close what it has under `name`; see [`Keeper::forget_all`].
    pub fn forget(&mut self, name: &str) {
        self.forget_all([name]);
    }

    /// Lets it close what it has under each of `names`, and waits until it has, for a while: what nobody else has
    /// open is gone then. Names that it does not know are no error, and what it cannot be told now it will never
    /// give back: it is not there, or is told when it is again.
    pub fn forget_all<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let known: Vec<&str> = names.into_iter().filter(|name| self.given.remove(*name)).collect();
        if known.is_empty() {
            return;
        }
        match &mut self.kind {
            Kind::None => {}
            Kind::Systemd => systemd::forget(&known),
            Kind::Process(client) => client.forget(&known),
        }
    }

    /// Sees whether it is there, and looks for it where it is not, no more often than makes sense. Where it has come
    /// back: what it has. Then everything is to be given to it again.
    pub fn look(&mut self, now: Instant) -> Option<Kept> {
        let Kind::Process(client) = &mut self.kind else { return None };
        let kept = Kept(client.look(now)?);
        self.given = kept.0.keys().cloned().collect();
        Some(kept)
    }

    /// Whether what is given to it now is kept.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        match &self.kind {
            Kind::None => false,
            Kind::Systemd => true,
            Kind::Process(client) => client.is_there(),
        }
    }

    /// Why it is not there, where there should be one.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match &self.kind {
            Kind::Process(client) => client.trouble(),
            Kind::None | Kind::Systemd => None,
        }
    }

    /// `none`, `systemd` or `process`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.kind {
            Kind::None => "none",
            Kind::Systemd => "systemd",
            Kind::Process(_) => "process",
        }
    }

    /// How many descriptors it holds of ours; 0 while it is not there.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        if self.is_there() { self.given.len() } else { 0 }
    }
}

/// What a keeper gave back, by name.
#[derive(Debug, Default)]
pub struct Kept(BTreeMap<String, OwnedFd>);

impl Kept {
    /// Takes what was kept under `name`.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        self.0.remove(name)
    }

    /// Keeps what `stays` likes the name of, and gives the rest.
    #[must_use]
    pub fn split(&mut self, stays: impl Fn(&str) -> bool) -> Self {
        Self(self.0.extract_if(.., |name, _| !stays(name)).collect())
    }

    /// The names of what was not taken, rising.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Has what is left go with its descriptors, also what was to outlive the daemon before us.
    pub fn end_with_us(&self) {
        for descriptor in self.0.values() {
            // What is no TAP ends with its descriptor anyway.
            drop(tun::set_persistent(descriptor.as_fd(), false));
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
