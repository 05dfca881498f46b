//! The daemon as the tools of Open vSwitch see it: ovs-appctl's socket, its commands and their text.
//!
//! A thread of its own talks to the clients (see `serve.rs`); the control thread answers, in the words of Open vSwitch
//! 3.1 where a script may read them. Not here: vswitchctl's socket (see [`super::socket`]), and OpenFlow.

mod bridges;
mod commands;
mod dpif;
mod fdb;
mod fields;
mod flow;
mod flows;
mod general;
mod mdb;
pub(super) mod place;
mod serve;
mod trace;
mod wire;

pub use place::PlaceError;
pub use serve::{MAX_CLIENTS, Reply, Request};

use super::daemon::Control;
use crate::observe::log;
use crossbeam_channel::Receiver;
use place::{Pidfile, Socket};
use std::path::PathBuf;
use std::sync::Arc;

/// This program's name in the run directory.
const PROGRAM: &str = "vswitchd";
/// The name of the daemon whose seat may be taken.
const OVS_PROGRAM: &str = "ovs-vswitchd";

/// What the command line says about it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A socket to listen on instead of `vswitchd.PID.ctl`, below the run directory when it is no absolute path;
    /// `none`: none at all.
    pub path: Option<PathBuf>,
    /// Be found under the name of ovs-vswitchd too.
    pub as_ovs_vswitchd: bool,
}

/// How the control thread hears the tools of Open vSwitch, and where they find it.
#[derive(Debug, Default)]
pub(super) struct Unixctl {
    /// Who asked the daemon to exit: they hear when it has.
    exiting: Vec<Reply>,
    as_ovs_vswitchd: bool,
    /// What was learned, for fdb/stats-show.
    pub(super) stations: fdb::Stations,
    /// What was counted when somebody asked, for coverage/show.
    coverage: general::Coverage,
    requests: Option<Receiver<Request>>,
    serving: Option<serve::Serving>,
    sockets: Vec<Socket>,
    pidfiles: Vec<Pidfile>,
}

impl Unixctl {
    /// Takes the places that `options` names and listens; `wake` is called when there is something to answer.
    ///
    /// Where nothing is asked for, what cannot be had is done without, for a switch of a file alone needs none of it.
    ///
    /// # Errors
    /// What was asked for and cannot be had.
    pub(super) fn start(options: &Options, wake: Arc<dyn Fn() + Send + Sync>) -> anyhow::Result<Self> {
        if options.path.as_ref().is_some_and(|path| path.as_os_str() == "none") && !options.as_ovs_vswitchd {
            return Ok(Self::default());
        }
        let asked = options.path.is_some() || options.as_ovs_vswitchd;
        match Self::listen(options, wake) {
            Err(error) if !asked => {
                log::info("ovs-appctl finds nobody here", &[("reason", &error)]);
                Ok(Self::default())
            }
            listening => listening,
        }
    }

    fn listen(options: &Options, wake: Arc<dyn Fn() + Send + Sync>) -> anyhow::Result<Self> {
        let directory = place::run_directory();
        place::make_directory(&directory)?;
        place::sweep(&directory, PROGRAM);
        let pid = std::process::id();
        let mut pidfiles = Vec::new();
        let mut paths = Vec::new();
        if options.as_ovs_vswitchd {
            pidfiles.push(Pidfile::take(&directory.join(format!("{OVS_PROGRAM}.pid")))?);
            // The seat is ours, and so is what was left in it.
            place::sweep(&directory, OVS_PROGRAM);
            place::sweep_bridges(&directory);
            paths.push(directory.join(format!("{OVS_PROGRAM}.{pid}.ctl")));
        }
        match &options.path {
            Some(path) if path.as_os_str() == "none" => paths.clear(),
            Some(path) => paths.push(directory.join(path)),
            None => paths.push(directory.join(format!("{PROGRAM}.{pid}.ctl"))),
        }
        // Another one of this program may run beside it: then this one is found by its socket.
        match Pidfile::take(&directory.join(format!("{PROGRAM}.pid"))) {
            Ok(pidfile) => pidfiles.push(pidfile),
            Err(error) => log::info("no pidfile", &[("reason", &error)]),
        }
        let sockets: Vec<_> = paths.iter().map(|path| Socket::bind(path)).collect::<Result<_, _>>()?;
        let (serving, requests) = serve::serve(&sockets, wake)?;
        let (serving, requests) = (Some(serving), Some(requests));
        let as_ovs_vswitchd = options.as_ovs_vswitchd;
        Ok(Self {
            exiting: Vec::new(),
            as_ovs_vswitchd,
            stations: fdb::Stations::default(),
            coverage: general::Coverage::default(),
            requests,
            serving,
            sockets,
            pidfiles,
        })
    }
}

impl Drop for Unixctl {
    fn drop(&mut self) {
        // Whoever still waits hears that the daemon stops; then whoever asked for it, that it has.
        self.requests = None;
        for reply in self.exiting.drain(..) {
            reply.answer(Ok(String::new()));
        }
        self.serving = None;
        self.sockets.clear();
        self.pidfiles.clear();
    }
}

impl Control {
    /// Answers what the tools of Open vSwitch asked since the last time; whether the daemon is told to exit.
    pub(super) fn answer_unixctl(&mut self) -> bool {
        // No more than one of each client: they must not keep signals and workers waiting.
        for _ in 0..MAX_CLIENTS {
            let Some(Ok(request)) = self.unixctl.requests.as_ref().map(Receiver::try_recv) else { break };
            self.command(request);
        }
        !self.unixctl.exiting.is_empty()
    }
}
