//! Pods that come by CNI: attachments become ports, and nothing of them stays when they go.
//!
//! An attachment is one more source of ports: what the journal says is desired, and the one diff makes it so. What is
//! different is the interface: it is made when the attachment is, in a namespace whose descriptor came with the
//! request, and cannot be made a second time; it lives on in the keeper, or is lost. Not here: the plugin, which sets
//! addresses and routes inside, and the words between both (see [`super::rpc::cni`]).

mod gateway;
mod journal;
mod verbs;

use self::journal::{Attachment, Journal, JournalFile};
use super::apply::fail;
use super::daemon::Control;
use super::plan::Desired;
use super::rpc::{Failed, RpcError};
use super::state::StateError;
use crate::config::{Config, PortConfig};
use crate::ipam::Book;
use crate::link::{AnyLink, Source, open_or_adopt};
use crate::observe::log;
use crate::sys::netns;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

pub(super) use self::gateway::Nat;
pub(super) use self::verbs::answer;

/// Why a port of an attachment is down.
const LOST: &str = "lost: its interface ended with the process that kept it; delete the pod";

/// Everything that belongs to attachments.
#[derive(Debug)]
pub(super) struct Cni {
    journal: Journal,
    file: JournalFile,
    /// Interfaces that are made and not yet behind a port, by the port's name.
    made: BTreeMap<String, AnyLink>,
    /// Packet rules of the host for its own ports in the segments.
    pub(super) nat: Nat,
}

impl Cni {
    /// What was attached when the daemon ended; of another life of the machine, what has gone with it.
    ///
    /// # Errors
    /// A journal that cannot be read. The daemon must not start then.
    pub(super) fn load(state: &Path) -> Result<Self, StateError> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let file = JournalFile::beside(state, boot.trim().to_owned());
        let (mut journal, same_life) = file.load()?;
        if !same_life {
            let all: Vec<Attachment> = journal.all().map(|attachment| (**attachment).clone()).collect();
            for attachment in all {
                bury(&mut journal, attachment);
            }
            file.save(&journal)?;
        }
        let nat = if file.exists() { Nat::unknown() } else { Nat::default() };
        Ok(Self { journal, file, made: BTreeMap::new(), nat })
    }

    /// The addresses that the daemon gave.
    pub(super) const fn book(&self) -> &Book {
        &self.journal.book
    }

    /// The attachment behind port `name`.
    fn behind(&self, name: &str) -> Option<&Arc<Attachment>> {
        self.journal.alive().find(|attachment| attachment.port == name)
    }

    /// Whether the port is an attachment's: then its interface is not to be opened by name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.behind(name).is_some()
    }

    /// Whether the port is one of the host's own that attachments ask for.
    pub(super) fn is_gateway(&self, name: &str) -> bool {
        let gateways = self.journal.alive().filter_map(|attachment| attachment.gateway.as_ref());
        gateways.filter_map(|gateway| gateway.interface.as_deref()).any(|interface| interface == name)
    }

    /// How many attachments have a port, and how many are gone and not yet deleted.
    pub(super) fn counts(&self) -> (usize, usize) {
        let gone = self.journal.all().filter(|attachment| attachment.gone);
        (self.journal.alive().count(), gone.count())
    }

    /// Where the pod behind port `name` is, and what its interface is called there.
    pub(super) fn place(&self, name: &str) -> Option<(&str, &str)> {
        self.behind(name).map(|attachment| (attachment.netns.as_str(), attachment.ifname.as_str()))
    }

    /// Refuses a change of port `name` by hand: who made it is to change it.
    ///
    /// # Errors
    /// When it is an attachment's, or the host's own that attachments ask for.
    pub(super) fn refuse_change(&self, name: &str) -> Result<(), RpcError> {
        if let Some(attachment) = self.behind(name) {
            let pod = &attachment.container;
            return Err(RpcError::refused(format!(
                "port \"{name}\" came by CNI; delete the pod {pod:?} instead"
            )));
        }
        if self.is_gateway(name) {
            return Err(RpcError::refused(format!(
                "port \"{name}\" is the gateway of pods and goes with the last"
            )));
        }
        Ok(())
    }

    /// The addresses of stations that the configuration puts behind a port: those of its own interface.
    pub(super) fn configured_addresses(&self, name: &str, config: &PortConfig) -> Vec<IpAddr> {
        // What is the same on every node is nobody's in particular.
        if config.split_horizon {
            return Vec::new();
        }
        let own = config.addresses.iter().map(|(address, _)| *address);
        if own.len() > 0 {
            return own.collect();
        }
        let pod = self.behind(name).into_iter();
        pod.flat_map(|attachment| attachment.prefixes()).map(|(address, _)| address).collect()
    }
}

/// What becomes of an attachment whose namespace died: nothing is left of it, unless another IPAM has to be told.
fn bury(journal: &mut Journal, mut attachment: Attachment) {
    if attachment.is_delegated() {
        attachment.gone = true;
        journal.put(attachment);
    } else {
        journal.remove(&attachment.key());
    }
}

/// The port of an attachment.
fn port_of(attachment: &Attachment, file: &Config) -> Result<PortConfig, String> {
    let mut entry = attachment.settings.clone();
    entry.insert("name".to_owned(), attachment.port.as_str().into());
    if entry.get("anti_spoof") == Some(&Value::Bool(true)) {
        // Of a pod whose addresses nobody told us, any may be its own; its MAC address is known.
        let own: Vec<String> = match attachment.addresses.is_empty() {
            true => ["0.0.0.0/0", "::/0"].map(str::to_owned).into(),
            false => attachment.prefixes().map(|(address, _)| address.to_string()).collect(),
        };
        entry.insert("anti_spoof".to_owned(), own.into());
    }
    PortConfig::from_json(&Value::Object(entry), file)
}

impl Control {
    /// Adds the ports of attachments, and the host's own in their segments, to what `file` wishes.
    pub(super) fn add_attached(&self, file: &Config, desired: &mut Desired, failed: &mut Vec<Failed>) {
        let ports = self.cni.journal.alive().map(|attachment| (&attachment.port, port_of(attachment, file)));
        for (name, port) in ports.map(|(name, port)| (name.clone(), port)).chain(self.gateway_ports(file)) {
            if desired.ports.contains_key(&name) {
                continue;
            }
            match port {
                Ok(port) => {
                    desired.ports.insert(name, port);
                }
                Err(reason) => failed.push(fail("port", &name, reason)),
            }
        }
    }

    /// The interface of an attachment's port that is down: just made by an `add`, or kept over the daemon's end.
    ///
    /// # Errors
    /// There is none: why. It cannot be made here.
    pub(super) fn attached_interface(&mut self, name: &str) -> Result<AnyLink, String> {
        if let Some(link) = self.cni.made.remove(name) {
            return Ok(link);
        }
        let descriptor = self.kept.take(name).ok_or(LOST)?;
        open_or_adopt(Source::Adopt(descriptor))
            .map(AnyLink::Tap)
            .inspect(|_| log::info("port adopted", &[("port", &name)]))
            .map_err(|error| {
                self.keeper.forget(name);
                format!("lost: {error}")
            })
    }

    /// Takes the port away of every attachment whose namespace has died; `true` when there was one.
    pub(super) fn reap_attachments(&mut self) -> bool {
        let lost = |attachment: &&Arc<Attachment>| {
            let port = self.running.ports.get(&attachment.port);
            port.is_none_or(|port| port.link.is_none()) && !self.cni.made.contains_key(&attachment.port)
        };
        let dead: Vec<Attachment> = self
            .cni
            .journal
            .alive()
            .filter(lost)
            .filter(|attachment| !namespace_lives(attachment))
            .map(|attachment| (**attachment).clone())
            .collect();
        if dead.is_empty() {
            return false;
        }
        let mut journal = self.cni.journal.clone();
        for attachment in dead {
            log::info(
                "pod gone with its network namespace",
                &[("container", &attachment.container), ("port", &attachment.port)],
            );
            self.end_lease(&mut journal.book, &verbs::owner(&attachment.key()));
            bury(&mut journal, attachment);
        }
        if let Err(error) = self.cni.file.save(&journal) {
            log::limited(log::Level::Warn, "journal", "journal not written", &[("reason", &error)]);
            return false;
        }
        self.cni.journal = journal;
        true
    }

    /// Makes `journal` the one that counts, first on the disk.
    fn commit(&mut self, journal: Journal) -> Result<(), RpcError> {
        self.cni.file.save(&journal).map_err(|error| RpcError::of(&error))?;
        self.cni.journal = journal;
        self.follow_claims();
        Ok(())
    }

    /// Frees addresses that no attachment has.
    pub(super) fn tidy_leases(&mut self) {
        let live: BTreeSet<_> =
            self.cni.journal.all().map(|attachment| verbs::owner(&attachment.key())).collect();
        let mut journal = self.cni.journal.clone();
        self.reconcile_leases(&mut journal.book, &live);
        if journal.book != self.cni.journal.book
            && let Err(error) = self.commit(journal)
        {
            log::limited(log::Level::Warn, "journal", "journal not written", &[("reason", &error)]);
        }
    }
}

/// Whether the attachment's namespace can still be where it was. One that is nowhere is provably gone: nobody but its
/// own interface kept it.
fn namespace_lives(attachment: &Attachment) -> bool {
    match netns::open(&attachment.netns).and_then(|namespace| netns::id(namespace.as_fd())) {
        Ok(id) => attachment.namespace == id.into(),
        // What may not be looked at may be there.
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput),
    }
}
