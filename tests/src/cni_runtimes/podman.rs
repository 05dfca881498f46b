//! podman with its CNI backend and runc: no daemon, every command calls the plugins itself.
//!
//! Not here: what a test expects, and netavark, podman's other backend, which knows no CNI plugins.

use super::{IMAGE, Machine, told};
use std::process::Output;

/// What podman is told of networks, cgroups and logs.
const CONTAINERS: &str = include_str!("../../data/podman/containers.conf");

/// Where it keeps images and containers: every layer a directory of its own, so that nothing has to be mounted.
const STORAGE: &str = r#"
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"#;

/// podman on a machine, with the image.
#[derive(Debug)]
pub struct Podman(());

impl Podman {
    /// Puts its configuration onto `machine` and gives it the image. `network` is the one that containers are in
    /// which name none.
    ///
    /// # Panics
    /// When it does not take the image.
    #[must_use]
    pub fn set_up(machine: &Machine, network: &str) -> Self {
        let containers = format!("{CONTAINERS}default_network = \"{network}\"\n");
        machine.write("/etc/containers/containers.conf", &containers);
        machine.write("/etc/containers/storage.conf", STORAGE);
        machine.write("/etc/containers/policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
        machine.run(&format!("podman load --quiet --input {}", machine.image()));
        Self(())
    }

    /// Runs a container in the foreground and removes it, with further words for podman and those of its command;
    /// what comes of it is the caller's.
    ///
    /// # Panics
    /// When podman cannot be started.
    #[must_use]
    pub fn try_once(&self, machine: &Machine, options: &str, words: &str) -> Output {
        machine.try_run(&format!("podman run --rm {options} {IMAGE} {words}"))
    }

    /// The same, which must succeed; what the container printed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn once(&self, machine: &Machine, options: &str, words: &str) -> String {
        machine.run(&format!("podman run --rm {options} {IMAGE} {words}"))
    }

    /// Runs a container in the background, with further words for podman. It may send ICMP from a raw socket.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn detached(&self, machine: &Machine, name: &str, options: &str, words: &str) {
        machine.run(&format!("podman run -d --name {name} --cap-add NET_RAW {options} {IMAGE} {words}"));
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
    /// When podman cannot be started.
    #[must_use]
    pub fn try_exec(&self, machine: &Machine, name: &str, script: &str) -> Output {
        let mut command = machine.command("podman");
        command.args(["exec", name, "sh", "-c", script]);
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }
}
