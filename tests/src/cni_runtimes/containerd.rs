//! containerd with runc, driven by its own `ctr`, which calls CNI plugins itself: in its own process, with the
//! configuration in /etc/cni/net.d and the plugins in /opt/cni/bin.
//!
//! Not here: what a test expects, and the CRI plugin, which only kubelet talks to.

use super::{IMAGE, Machine, told};
use crate::lab::Daemon;
use crate::node::PATIENCE;
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};

const SOCKET: &str = "/run/containerd/containerd.sock";

/// Without a share of the processor: that needs a controller which not every system gives to version 2 of cgroups.
const RUN: &str = "ctr run --cpu-shares 0 --cni";

/// A running containerd that has the image.
#[derive(Debug)]
pub struct Containerd {
    daemon: Daemon,
}

impl Containerd {
    /// Starts it on `machine` and gives it the image.
    ///
    /// # Panics
    /// When it does not answer, or does not take the image.
    #[must_use]
    pub fn start(machine: &Machine) -> Self {
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        machine.write("/etc/containerd/config.toml", config);
        let this = Self { daemon: machine.start("containerd --log-level warn") };
        this.until_ready(machine);
        machine.run(&format!("ctr image import {}", machine.image()));
        this
    }

    fn until_ready(&self, machine: &Machine) {
        drop(self.daemon.until_connectable(&machine.path(SOCKET), PATIENCE));
        machine.run("ctr version");
    }

    /// Kills it with `kill -9` and starts it again; its shims, and the containers under them, live on.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn kill_and_start(&mut self, machine: &Machine) {
        machine.signal(&self.daemon, "KILL");
        let _ = self.daemon.until_exit(PATIENCE);
        self.daemon = machine.start("containerd --log-level warn");
        self.until_ready(machine);
    }

    /// Runs a container in the foreground and removes it, with the words of its command; what comes of it is the
    /// caller's. `ctr` sends DEL when the process is gone, and the namespace with it.
    ///
    /// # Panics
    /// When `ctr` cannot be started.
    #[must_use]
    pub fn try_once(&self, machine: &Machine, name: &str, words: &str) -> Output {
        machine.try_run(&format!("{RUN} --rm {IMAGE} {name} {words}"))
    }

    /// The same, which must succeed; what the container printed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn once(&self, machine: &Machine, name: &str, words: &str) -> String {
        machine.run(&format!("{RUN} --rm {IMAGE} {name} {words}"))
    }

    /// Runs a container in the background. `ctr` never sends DEL for such a one.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn detached(&self, machine: &Machine, name: &str, words: &str) {
        machine.run(&format!("{RUN} -d {IMAGE} {name} {words}"));
    }

    /// Runs a line of shell in a container and gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn exec(&self, machine: &Machine, name: &str, script: &str) -> String {
        told(&self.try_exec(machine, name, script), script)
    }

    /// The same; what comes of it is the caller's.
    ///
    /// # Panics
    /// When `ctr` cannot be started.
    #[must_use]
    pub fn try_exec(&self, machine: &Machine, name: &str, script: &str) -> Output {
        // It wants a name for what it starts that is unused for as long as that runs.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("e{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut command = machine.command("ctr");
        command.args(["task", "exec", "--exec-id", &id, name, "sh", "-c", script]);
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Kills a container's process as `kill -9` does, and removes what containerd knows of it.
    ///
    /// # Panics
    /// When it cannot be.
    pub fn kill(&self, machine: &Machine, name: &str) {
        machine.run(&format!("ctr task kill --signal SIGKILL {name}"));
        machine.run(&format!("ctr task rm --force {name}"));
        machine.run(&format!("ctr container rm {name}"));
    }
}
