//! The life of the daemon: start, serve, reload, drain.
//!
//! One thread owns everything that changes; signals, the control socket, the workers and the clock only wake
//! it. Not here: how a wish becomes fact (see `apply.rs`) and how questions are answered
//! (see `answers.rs`).

use super::apply::is_waiting;
use super::cni::Cni;
use super::leases::Waiting;
use super::mesh::Mesh;
use super::openflow::Openflow;
use super::ovs::Ovs;
use super::ports;
use super::rpc::{Failed, ReloadAnswer, RpcError};
use super::running::{PublishError, Running, RunningPort};
use super::socket::{QUEUE_LEN, Request, Server, Serving};
use super::source::ovsdb::{Ovsdb, Remote};
use super::state::{State, StateFile, fingerprint};
use super::unixctl::{self, Unixctl};
use crate::config::{Config, ConfigErrors};
use crate::datapath::{self, Event, StuckError, Workers, clock};
use crate::keeper::{self, Keeper, Kept};
use crate::observe::{Directory, log};
use crate::slow;
use crate::sys::event::{Signal, Signals};
use crate::sys::nftables::Claims;
use crate::sys::random::Random;
use crate::sys::{process, socket};
use anyhow::{Context as _, anyhow};
use crossbeam_channel::{Receiver, bounded};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::switch::StationEvent;
use vswitch_core::{Instant, Mac, MacTable};

/// How soon something that is down is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How often the node's own addresses are looked at when nothing is missing.
const LOOK_AROUND: Duration = Duration::from_secs(2);
/// How often the station directory is compared with the MAC table, where that does not age faster.
const TIDYING: Duration = Duration::from_secs(60);
/// Messages from workers that may wait for this thread.
const EVENTS: usize = 4096;

const WAKER: Token = Token(0);
const SIGNALS: Token = Token(1);

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The TOML file; `None`: nothing is said but what an Open vSwitch database says.
    pub config: Option<PathBuf>,
    /// The node's name; by default the file's, or the host's.
    pub node: Option<String>,
    /// Where the tools of Open vSwitch find the daemon.
    pub unixctl: unixctl::Options,
    /// An Open vSwitch database that says what is wished, too.
    pub ovsdb: Option<Remote>,
}

/// Everything that the control thread owns.
#[derive(Debug)]
pub struct Control {
    pub(super) node: String,
    pub(super) path: Option<PathBuf>,
    pub(super) file: Config,
    pub(super) state: State,
    pub(super) state_file: StateFile,
    pub(super) workers: Workers,
    pub(super) running: Running,
    pub(super) directory: Arc<Directory>,
    pub(super) slow: slow::SlowPath,
    /// Whoever holds duplicates of the ports' descriptors.
    pub(super) keeper: Keeper,
    /// What it gave back and nobody has adopted yet.
    pub(super) kept: Kept,
    pub(super) mesh: Mesh,
    pub(super) cni: Cni,
    pub(super) ovs: Ovs,
    pub(super) openflow: Openflow,
    pub(super) unixctl: Unixctl,
    /// Interfaces whose frames the host's own stack does not see.
    pub(super) claims: Claims,
    pub(super) seed: [u64; 2],
    pub(super) started: Instant,
    /// MTU and MAC address last meant for each port's interface.
    pub(super) given: BTreeMap<String, (u16, Mac)>,
    /// Counts of ports that are gone, so that no total ever falls.
    pub(super) retired: vswitch_core::switch::Counters,
    events: Receiver<Event>,
    requests: Receiver<Request>,
    /// Requests that wait for the cluster's store.
    pub(super) waiting: Waiting,
    next_look: Instant,
    next_tidying: Instant,
    /// What was not as wished at the last look: kind, name, reason.
    troubles: BTreeSet<(String, String, String)>,
}

/// Loads the file, starts everything, serves until a signal says stop.
///
/// # Errors
/// [`ConfigErrors`] for a bad file; otherwise what could not be had, with what to do about it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let file = load(options.config.as_deref())?;
    for warning in &file.warnings {
        log::warn(&warning.to_string(), &[]);
    }
    // A TAP each: the usual limit of 1,024 is for programs that wait by select(2).
    process::raise_descriptor_limit().context("asking how many descriptors there may be")?;
    // Before any thread is made: they all inherit the mask.
    let signals = Signals::take().context("taking signals")?;
    let mut poll = Poll::new().context("waiting for events")?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER).context("waiting for events")?);
    poll.registry()
        .register(&mut SourceFd(&signals.fd().as_raw_fd()), SIGNALS, Interest::READABLE)
        .context("waiting for signals")?;
    // First of all: another daemon on this socket must not be disturbed.
    let server = Server::bind(&file.control.socket)?;
    let state_file = StateFile::new(&file.control.state);
    let state = state_file.load()?;
    let cni = Cni::load(&file.control.state)?;
    let (request_sender, requests) = bounded(QUEUE_LEN);
    let keeper = Keeper::from_environment().context("asking for what was kept")?;
    let mut control = Control::start(options, file, (state_file, state, cni), keeper, &waker, requests)?;
    if let Some(remote) = &options.ovsdb {
        let wake = Arc::clone(&waker);
        let wake = Arc::new(move || drop(wake.wake()));
        control.follow_ovsdb(Ovsdb::start(remote, wake).context("following the Open vSwitch database")?);
    }
    let (steps, failed) = control.first_pass()?;
    let wake = Arc::clone(&waker);
    let serving = server.serve(
        request_sender,
        Box::new(move || drop(wake.wake())),
        Box::new(|stream| socket::peer_credentials(stream).map(|credentials| credentials.uid)),
    )?;
    log::info("ready", &[("node", &control.node), ("objects", &steps), ("not_as_wished", &failed.len())]);
    keeper::notify("READY=1");
    let served = control.serve(&mut poll, &signals);
    keeper::notify("STOPPING=1");
    control.stop(serving);
    served
}

impl Control {
    fn start(
        options: &Options,
        file: Config,
        (state_file, state, cni): (StateFile, State, Cni),
        (keeper, kept): (Keeper, Kept),
        waker: &Arc<Waker>,
        requests: Receiver<Request>,
    ) -> anyhow::Result<Self> {
        let count = file.datapath.workers.map_or_else(default_workers, usize::from);
        let node = options.node.clone().or_else(|| file.node.name.clone()).map_or_else(host_name, Ok)?;
        let (event_sender, events) = bounded(EVENTS);
        let wake = Arc::clone(waker);
        // A waker that fails means that the process is ending.
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(move || drop(wake.wake()));
        let (punts, punted) = datapath::punts();
        let workers = Workers::start(count, event_sender.clone(), Arc::clone(&wake), punts)
            .context("starting workers")?;
        let directory = Arc::new(Directory::default());
        let mut random = Random::open().context("reading random bytes")?;
        let mut number = || random.number().context("reading random bytes");
        let seed = [number()?, number()?];
        let slow = slow::SlowPath::start(slow::Parts {
            punted,
            injector: workers.injector(),
            directory: Arc::clone(&directory),
            events: event_sender,
            wake_control: Arc::clone(&wake),
            random: Box::new(move |bytes| {
                random.fill(bytes).expect("the kernel's random numbers can be read once they are open");
            }),
        })
        .context("starting the slow path")?;
        let macs = MacTable::new(file.mac_table.limit, file.mac_table.ageing, seed);
        let control = Self {
            running: Running::new(macs, count, node.clone()),
            node,
            path: options.config.clone(),
            directory,
            slow,
            keeper,
            kept,
            unixctl: Unixctl::start(&options.unixctl, Arc::clone(&wake))?,
            openflow: Openflow::new(Arc::clone(&wake)),
            mesh: Mesh::new(wake),
            cni,
            ovs: Ovs::default(),
            file,
            state,
            state_file,
            workers,
            seed,
            started: clock::now(),
            claims: Claims::default(),
            given: BTreeMap::new(),
            retired: vswitch_core::switch::Counters::default(),
            events,
            requests,
            waiting: Waiting::default(),
            next_look: Instant::ZERO,
            next_tidying: Instant::ZERO,
            troubles: BTreeSet::new(),
        };
        Ok(control)
    }

    /// The first time everything is made. What the whole node lacks ends the start; one port's trouble does not.
    fn first_pass(&mut self) -> anyhow::Result<(usize, Vec<Failed>)> {
        self.catch_up_with_file();
        let (mut steps, mut failed) = self.reconcile(true, &BTreeSet::new())?;
        if self.reap_attachments() {
            // Pods that ended while nobody was here.
            (steps, failed) = self.reconcile(false, &BTreeSet::new())?;
        }
        self.let_kept_go();
        let opened_by_name = |name: &String| !self.cni.has(name) && !self.cni.is_gateway(name);
        let mut by_name = self.running.ports.iter().filter(|(name, _)| opened_by_name(name));
        let wants_tap = by_name.any(|(_, port)| port.link.is_none());
        if wants_tap {
            ports::tun_available().map_err(|reason| anyhow!("{reason}"))?;
        }
        let hopeless = |port: &RunningPort| {
            port.link.is_none() && port.reason.as_deref().is_some_and(|reason| !is_waiting(reason))
        };
        let mut by_name = self.running.ports.iter().filter(|(name, _)| opened_by_name(name)).peekable();
        if by_name.peek().is_some() && by_name.all(|(_, port)| hopeless(port)) {
            let reasons = self.running.ports.values().filter_map(|port| port.reason.clone());
            return Err(anyhow!("no port can be opened: {}", reasons.into_iter().next().unwrap_or_default()));
        }
        if let Some(reason) = self.running.underlay.failed.first() {
            return Err(anyhow!("{reason}"));
        }
        for failed in &failed {
            log::warn(
                "not as wished",
                &[("kind", &failed.kind), ("name", &failed.name), ("reason", &failed.reason)],
            );
        }
        Ok((steps, failed))
    }

    fn serve(&mut self, poll: &mut Poll, signals: &Signals) -> anyhow::Result<()> {
        let mut ready = Events::with_capacity(16);
        loop {
            let now = clock::now();
            if now >= self.next_look {
                self.look_around()?;
            }
            if self.take_sources() | self.take_ovsdb() {
                self.look_around()?;
            }
            self.answer_waiting();
            self.report_to_ovsdb();
            let due = [
                self.mesh.next_due(),
                self.waiting.next_due(),
                self.ovs_report_due(),
                self.openflow.next_due(),
            ];
            let due = due.into_iter().flatten();
            let due = due.fold(self.next_look, Instant::min);
            let wait = due.since(clock::now()).max(Duration::from_millis(1));
            match poll.poll(&mut ready, Some(wait)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            while let Some(signal) = signals.next().context("reading signals")? {
                match signal {
                    Signal::Hangup => match self.reload() {
                        Ok(answer) if answer.failed.is_empty() => {
                            log::info("reloaded", &[("changed", &answer.changed)]);
                        }
                        Ok(answer) => {
                            let first = answer.failed.first().map_or("", |failed| failed.reason.as_str());
                            let count = answer.failed.len();
                            log::warn(
                                "reloaded, not all as wished",
                                &[("failed", &count), ("first", &first)],
                            );
                        }
                        Err(error) if error.code == RpcError::BAD_CONFIG => {
                            log::error("reload refused; nothing changed", &[("reason", &error)]);
                        }
                        Err(error) => log::error("reload failed", &[("reason", &error)]),
                    },
                    Signal::Terminate | Signal::Interrupt => return Ok(()),
                }
            }
            self.take_events()?;
            // No more than one of each client: they must not keep signals and workers waiting.
            for _ in 0..QUEUE_LEN {
                let Ok(request) = self.requests.try_recv() else { break };
                self.answer(request);
            }
            self.answer_openflow()?;
            if self.answer_unixctl() {
                return Ok(());
            }
            log::report_suppressed();
        }
    }

    /// What workers noticed.
    fn take_events(&mut self) -> Result<(), PublishError> {
        let (mut lost, mut changed, mut groups) = (false, false, None);
        for _ in 0..EVENTS {
            match self.events.try_recv() {
                Ok(Event::Gone(link)) => lost |= self.lost(&link),
                Ok(Event::Station(station)) => self.note(station),
                Ok(Event::Peer { address, state, mtu, rtt }) => {
                    changed |= self.note_peer(address, state, mtu, rtt);
                }
                Ok(Event::Neighbour { port, segment, mac, ip }) => {
                    self.note_neighbour(port, segment, mac, ip, clock::now());
                }
                Ok(Event::Groups(all)) => groups = Some(all),
                Err(_) => break,
            }
        }
        if let Some(groups) = groups {
            self.running.set_groups(groups, &self.workers)?;
        }
        if lost {
            self.reap_attachments();
        }
        if lost || changed {
            self.publish()?;
        }
        if lost {
            self.look_around()?;
        }
        Ok(())
    }

    fn note(&mut self, station: StationEvent) {
        self.unixctl.stations.note(&station);
        self.directory.note(station, clock::now());
        self.note_station(station, clock::now());
        if let Some(from) = station.from
            && let Some(suppressed) = log::admitted(log::Level::Info, "station-moved")
        {
            let (from, to) = (self.running.name_of(from), self.running.name_of(station.port));
            let vlan = station.segment.vlan();
            log::info(
                "station moved",
                &[
                    ("mac", &station.mac),
                    ("vlan", &vlan),
                    ("from", &from),
                    ("to", &to),
                    ("suppressed", &suppressed),
                ],
            );
        }
    }

    /// The directory follows the MAC table, which forgets by itself, and learns what was lost on the way here.
    fn tidy_directory(&mut self) {
        let now = clock::now();
        if now < self.next_tidying {
            return;
        }
        self.next_tidying = now.after(TIDYING.min(self.running.macs.ageing()));
        let mut known = HashMap::new();
        self.running.macs.for_each(now, |entry| {
            known.insert((entry.segment, entry.mac), entry.port);
            self.directory.fill_in(entry, now);
        });
        self.directory.retain(|segment, mac| known.contains_key(&(segment, mac)));
        self.directory
            .retain_neighbours(|segment, owner| known.get(&(segment, owner.mac)) == Some(&owner.port));
        self.follow_learned_stations(&known, now);
    }

    /// Retries what is down and follows the node's addresses.
    fn look_around(&mut self) -> Result<(), PublishError> {
        self.reap_attachments();
        self.look_at_keeper();
        let outcome = self.reconcile(false, &BTreeSet::new());
        self.let_kept_go();
        let down = self.running.ports.values().any(|port| !port.is_up() || port.reason.is_some());
        let underlay = &self.running.underlay;
        let missing =
            down || !underlay.waiting.is_empty() || !underlay.failed.is_empty() || self.mesh.misses_members();
        self.next_look = clock::now().after(if missing { RETRY } else { LOOK_AROUND });
        self.tidy_directory();
        self.mesh_is_due(clock::now());
        let (_, failed) = outcome?;
        self.report_troubles(&failed);
        self.ovs.failed = failed;
        self.report_to_ovsdb();
        if let Some(worker) = self.workers.dead() {
            return Err(StuckError { worker }.into());
        }
        Ok(())
    }

    /// Logs what is newly not as it was wished.
    fn report_troubles(&mut self, failed: &[Failed]) {
        let waiting = self.running.underlay.waiting.iter().map(|reason| ("underlay", "", reason.as_str()));
        let failed = failed.iter().map(|f| (f.kind.as_str(), f.name.as_str(), f.reason.as_str()));
        let mesh = self.mesh.troubles();
        let mesh = mesh.iter().map(|(kind, name, reason)| (*kind, name.as_str(), reason.as_str()));
        let now: BTreeSet<_> = failed
            .chain(waiting)
            .chain(mesh)
            .map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
            .collect();
        for (kind, name, reason) in now.difference(&self.troubles) {
            log::warn("not as wished", &[("kind", kind), ("name", name), ("reason", reason)]);
        }
        self.troubles = now;
    }

    /// The file as it is now.
    pub(super) fn load(&self) -> Result<Config, RpcError> {
        load(self.path.as_deref()).map_err(|errors| bad_config(&errors))
    }

    /// Reads the file again and makes it so, whole or not at all.
    pub(super) fn reload(&mut self) -> Result<ReloadAnswer, RpcError> {
        let file = self.load()?;
        let restart = Config::restart_needed(&self.file, &file);
        if !restart.is_empty() {
            let keys = restart.join(", ");
            return Err(RpcError::refused(format!(
                "a change of {keys} needs a restart; nothing was changed"
            )));
        }
        let state = self.state_beside(&file);
        self.check_together(&file, &state).map_err(RpcError::bad_config)?;
        self.save(&state)?;
        let (changed, failed) = self.adopt(file, state).map_err(|error| RpcError::of(&error))?;
        Ok(ReloadAnswer { changed, failed })
    }

    /// Whether the ports of the file and those of the state can be together.
    pub(super) fn check_together(&self, file: &Config, state: &State) -> Result<(), String> {
        let (desired, failed) = self.desired(file, state);
        // What a database wishes and cannot have is no trouble of theirs, unless they are why.
        let is_new = |failed: &&Failed| failed.kind == "port" && !self.ovs.failed.contains(failed);
        if let Some(failed) = failed.iter().find(is_new) {
            return Err(format!("port \"{}\", added at run time: {}", failed.name, failed.reason));
        }
        let ports: Vec<_> = desired.ports.into_values().filter(|port| port.bridge.is_none()).collect();
        file.validate_ports(&ports).map_err(|errors| errors.in_one_line())
    }

    /// Writes the state before it counts.
    pub(super) fn save(&self, state: &State) -> Result<(), RpcError> {
        if *state == self.state {
            return Ok(());
        }
        self.state_file.save(state).map_err(|error| RpcError::of(&error))
    }

    /// What of the state counts beside `file`: deletions end whose entry changed, and the file wins on a name in
    /// both.
    fn state_beside(&self, file: &Config) -> State {
        let mut state = self.state.clone();
        state.forget(|name| {
            file.ports.iter().find(|port| port.name == name).map(|port| fingerprint(&port.to_json()))
        });
        let of_file: Vec<_> = super::apply::active_file_ports(file, &state, &self.node)
            .map(|port| port.name.clone())
            .filter(|name| state.port(name).is_some())
            .collect();
        for name in of_file {
            log::warn("the file has a port that was added at run time; the file wins", &[("port", &name)]);
            let statics: Vec<_> =
                state.macs().filter(|(.., at)| *at == name).map(|(vlan, mac, _)| (vlan, mac)).collect();
            state.remove_port(&name);
            statics.into_iter().for_each(|(vlan, mac)| state.add_mac(vlan, mac, &name));
        }
        state
    }

    /// The file may have changed while the daemon was away.
    fn catch_up_with_file(&mut self) {
        let state = self.state_beside(&self.file);
        match self.save(&state) {
            Ok(()) => self.state = state,
            Err(error) => log::warn("state not written", &[("reason", &error)]),
        }
    }

    fn stop(mut self, serving: Serving) {
        log::info("stopping", &[]);
        // Nobody is answered any more, but the socket and its lock stay until the next daemon can have the rest.
        drop(self.requests);
        self.mesh.stop();
        self.workers.stop();
        // The TAPs close with the last setup. What they are in the pods goes with them, unless they are kept: then the
        // next daemon adopts them. Those of a database's bridges stay and are opened again by name.
        let links: Vec<_> = self.running.ports.values_mut().filter_map(|port| port.link.take()).collect();
        drop(self.running);
        super::apply::close_all(links);
        serving.stop();
        log::info("stopped", &[]);
        log::report_suppressed();
    }

    /// Changes what is wished at run time: checked, written, made so, or left exactly as it was.
    pub(super) fn change(&mut self, state: State, names: &[&str]) -> Result<(), RpcError> {
        self.check_together(&self.file, &state).map_err(RpcError::refused)?;
        self.save(&state)?;
        let before = self.state.clone();
        let known: BTreeMap<_, _> =
            self.running.ports.iter().map(|(name, port)| (name.clone(), port.reason.clone())).collect();
        let (_, _) = self.adopt(self.file.clone(), state).map_err(|error| RpcError::of(&error))?;
        let refused = names.iter().find_map(|name| {
            let port = self.running.ports.get(*name)?;
            let news = port.link.is_none() || known.get(*name) != Some(&port.reason);
            port.reason.clone().filter(|reason| news && !is_waiting(reason))
        });
        let Some(reason) = refused else { return Ok(()) };
        self.save(&before)?;
        let _ = self.adopt(self.file.clone(), before).map_err(|error| RpcError::of(&error))?;
        Err(RpcError::refused(reason))
    }
}

fn load(path: Option<&Path>) -> Result<Config, ConfigErrors> {
    path.map_or_else(|| Ok(Config::default()), Config::load)
}

fn bad_config(errors: &ConfigErrors) -> RpcError {
    let mut lines = errors.iter().map(ToString::to_string);
    let first = lines.next().unwrap_or_default();
    RpcError::bad_config(first).because(lines)
}

/// What `config` asks for and this process may not do, each a sentence.
#[must_use]
pub fn missing_privileges(config: &Config) -> Vec<String> {
    let mut missing = Vec::new();
    if config.ports.is_empty() {
        return missing;
    }
    if let Err(reason) = ports::tun_available() {
        missing.push(reason);
    }
    let capabilities = privileges();
    let lacks = |bit: u32| capabilities.is_some_and(|held| held >> bit & 1 == 0);
    if lacks(CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN is missing: no TAP can be created or moved".to_owned());
    }
    let inside = |port: &&crate::config::PortConfig| {
        port.netns.is_some() && !(port.addresses.is_empty() && port.gateways.is_empty())
    };
    if lacks(CAP_SYS_ADMIN)
        && let Some(port) = config.ports.iter().find(inside)
    {
        missing.push(format!(
            "CAP_SYS_ADMIN is missing: the addresses of port \"{}\" cannot be set inside its namespace",
            port.name
        ));
    }
    missing
}

/// Bits of capabilities(7).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

/// The effective capabilities of this process; `None` where /proc does not say.
fn privileges() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}

fn host_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("reading the host name")?;
    Ok(name.trim().to_owned())
}
