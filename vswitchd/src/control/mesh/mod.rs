//! The mesh beyond the file: what names resolve to, what the cluster's store says, how peers are.
//!
//! Sources and probes run in threads of their own and send words; here those words become wishes (peers), stations
//! and addresses, and this node's own words go back. Not here: how a store is spoken to (see [`super::source`]), what
//! follows from claims (see [`crate::cluster`]), how a peer is asked (see [`crate::slow`]).

mod claims;
mod cluster;
mod learned;
mod peers;
mod stations;

pub(super) use cluster::Cluster;
use stations::Announced;

use super::daemon::Control;
use super::source::dns::Names;
use crate::config;
use crate::datapath::{PortLink, clock};
use crate::observe::log;
use crate::slow::{PeerState, ProbePeer};
use crossbeam_channel::{Receiver, unbounded};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use vswitch_core::{Instant, Mac, PortId, Vni};

/// How often traffic is looked at as a sign of life, while peers are probed.
const LISTENING: Duration = Duration::from_millis(500);
/// How soon a change of membership follows the one before: a mesh that starts brings many.
const MEMBERS_PAUSE: Duration = Duration::from_millis(200);

/// Everything that control knows of the mesh beyond the file.
pub(super) struct Mesh {
    wake: Arc<dyn Fn() + Send + Sync>,
    names: Option<Resolving>,
    pub(super) cluster: Option<Cluster>,
    /// Why the cluster could not be joined.
    pub(super) refused: Option<String>,
    /// Frames received from each peer when last looked at.
    received: HashMap<PortId, u64>,
    next_listening: Instant,
    /// When a change of membership may be carried out; none waits.
    members_due: Option<Instant>,
    last_members: Instant,
    /// Peers as the slow path was last told.
    probed: Vec<Probed>,
    /// Stations that were announced: by port, what with, and the link they are behind.
    announced: BTreeMap<String, Announced>,
    /// Whether the store has said something new of addresses since it was last looked at.
    pub(super) claims_came: bool,
}

/// DNS names that are being followed.
struct Resolving {
    names: Vec<String>,
    _thread: Names,
    answers: Receiver<Found>,
    found: BTreeMap<String, (Vec<IpAddr>, Option<String>)>,
}

/// A peer as the slow path was told of it.
struct Probed {
    peer: ProbePeer,
    /// Weak: whoever closes the link need not wait for this; and none else comes to stand in its place.
    link: Weak<PortLink>,
    id: PortId,
}

impl PartialEq for Probed {
    fn eq(&self, other: &Self) -> bool {
        (self.peer, self.id) == (other.peer, other.id) && self.link.ptr_eq(&other.link)
    }
}

/// A name, its addresses, and what is wrong with them, if anything.
type Found = (String, Vec<IpAddr>, Option<String>);

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("cluster", &self.cluster.is_some()).finish_non_exhaustive()
    }
}

impl Mesh {
    /// Nothing, yet; `wake` makes the control thread look.
    pub(super) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            wake,
            names: None,
            cluster: None,
            refused: None,
            received: HashMap::new(),
            next_listening: Instant::ZERO,
            members_due: None,
            last_members: Instant::ZERO,
            probed: Vec::new(),
            announced: BTreeMap::new(),
            claims_came: false,
        }
    }

    /// When control should look again at the latest.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let listening = (!self.probed.is_empty()).then_some(self.next_listening);
        let claims = self.cluster.as_ref().and_then(|cluster| cluster.stations.next_due());
        [listening, self.members_due, claims].into_iter().flatten().min()
    }

    /// What is not as it should be: kind, name, reason.
    pub(super) fn troubles(&self) -> Vec<(&'static str, String, String)> {
        let mut troubles = Vec::new();
        for (name, (_, trouble)) in self.names.iter().flat_map(|names| &names.found) {
            troubles.extend(trouble.iter().map(|trouble| ("peer", name.clone(), trouble.clone())));
        }
        troubles.extend(self.refused.iter().map(|reason| ("cluster", String::new(), reason.clone())));
        if let Some(cluster) = &self.cluster {
            troubles.extend(cluster.troubles().into_iter().map(|reason| ("cluster", String::new(), reason)));
        }
        troubles
    }

    /// Stations that were on two nodes at once, each in a sentence.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = &str> {
        let cluster = self.cluster.iter();
        cluster.flat_map(|cluster| cluster.duplicates.values()).map(|(_, sentence)| sentence.as_str())
    }

    /// Whether members are kept that the store does not list any more: they are looked at more often.
    pub(super) fn misses_members(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.members.iter().any(|(.., stale)| stale))
    }

    /// Whether a node of the cluster claims to have `mac`.
    pub(super) fn claims(&self, vni: Option<Vni>, mac: Mac) -> bool {
        let cluster = self.cluster.as_ref();
        vni.is_some_and(|vni| cluster.is_some_and(|cluster| cluster.stations.get(vni, mac).is_some()))
    }

    /// Ends what waits for others, and takes this node's words back.
    pub(super) fn stop(&mut self) {
        self.cluster = None;
        self.names = None;
    }

    fn follow_names(&mut self, wanted: &[config::PeerName]) {
        let wanted: BTreeSet<&String> = wanted.iter().map(|name| &name.name).collect();
        let same = |names: &Resolving| names.names.iter().collect::<BTreeSet<_>>() == wanted;
        if self.names.as_ref().map_or(wanted.is_empty(), same) {
            return;
        }
        let before = self.names.take().map(|names| names.found).unwrap_or_default();
        if wanted.is_empty() {
            return;
        }
        let names: Vec<String> = wanted.into_iter().cloned().collect();
        let (sender, answers) = unbounded();
        match Names::start(names.clone(), sender, Arc::clone(&self.wake)) {
            Ok(thread) => {
                // What was known of a name that stays counts until it is resolved anew.
                let waiting = || (Vec::new(), Some("waiting for its address".to_owned()));
                let known = |name: &String| before.get(name).cloned().unwrap_or_else(waiting);
                let found = names.iter().map(|name| (name.clone(), known(name))).collect();
                self.names = Some(Resolving { names, _thread: thread, answers, found });
            }
            Err(error) => log::error("names cannot be resolved", &[("reason", &error)]),
        }
    }

    /// Takes what was resolved since; whether any address changed.
    fn take_names(&mut self) -> bool {
        let Some(names) = &mut self.names else { return false };
        let mut changed = false;
        while let Ok((name, addresses, trouble)) = names.answers.try_recv() {
            let known = names.found.entry(name).or_default();
            changed |= known.0 != addresses;
            *known = (addresses, trouble);
        }
        changed
    }

    /// The addresses of `name`, as far as they are known.
    fn addresses_of(&self, name: &str) -> &[IpAddr] {
        self.names.as_ref().and_then(|names| names.found.get(name)).map_or(&[], |(found, _)| found)
    }
}

impl Control {
    /// Starts and ends sources so that they are what the file asks for.
    pub(super) fn follow_sources(&mut self) {
        self.mesh.follow_names(&self.file.mesh_names);
        let running = self.mesh.cluster.as_ref().map(|cluster| &cluster.config);
        if running == self.file.cluster.as_ref() {
            return;
        }
        self.mesh.refused = None;
        if let (Some(cluster), Some(wish)) = (&mut self.mesh.cluster, &self.file.cluster)
            && cluster.prefix() == wish.prefix
        {
            self.mesh.refused = cluster.reach_by(wish.clone(), Arc::clone(&self.mesh.wake)).err();
            return;
        }
        self.mesh.cluster = None;
        let Some(wish) = &self.file.cluster else { return };
        match Cluster::join(wish.clone(), &self.node, Arc::clone(&self.mesh.wake)) {
            Ok(cluster) => self.mesh.cluster = Some(cluster),
            Err(reason) => self.mesh.refused = Some(reason),
        }
    }

    /// What is due by the clock alone: members that are missed, reports and claims that are old.
    pub(super) fn mesh_is_due(&mut self, now: Instant) {
        let states: HashMap<&str, PeerState> = self
            .running
            .peers
            .values()
            .filter_map(|peer| Some((peer.config.node.as_deref()?, peer.state)))
            .collect();
        let Some(cluster) = &mut self.mesh.cluster else { return };
        if cluster.let_go(now, &states) {
            self.mesh.members_due.get_or_insert(now);
        }
        let Cluster { members, stations, .. } = cluster;
        stations.due(now, |name| members.is_lost(name));
        self.clear_reports();
        self.carry_out_stations(now);
        self.refresh_stations(now);
        self.follow_claims();
    }

    /// Takes the words of all sources; whether the wishes changed, and it is time to carry them out.
    pub(super) fn take_sources(&mut self) -> bool {
        let now = clock::now();
        let mut members = self.mesh.take_names();
        members |= self.take_store(now);
        if members && self.mesh.members_due.is_none() {
            self.mesh.members_due = Some(self.mesh.last_members.after(MEMBERS_PAUSE).max(now));
        }
        self.listen(now);
        let claims = self.mesh.cluster.as_ref().and_then(|cluster| cluster.stations.next_due());
        if claims.is_some_and(|due| due <= now) {
            self.mesh_is_due(now);
        }
        let due = self.mesh.members_due.is_some_and(|due| due <= now);
        if due {
            self.mesh.members_due = None;
            self.mesh.last_members = now;
        }
        due
    }
}
