//! What tests of CNI stand on: the plugin under test and Debian's beside it, a keeper, and network configuration lists.

use crate::daemon::{Host, PATIENCE, program, with_host};
use crate::lab::{self, Daemon, Lab, Namespace};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian's containernetworking-plugins are.
pub const STOCK: &str = "/usr/lib/cni";

fn has_stock() -> bool {
    let found = Path::new(STOCK).join("host-local").is_file();
    if !found {
        lab::skip("no plugins in /usr/lib/cni: Debian's containernetworking-plugins has them");
    }
    found
}

/// Runs `body` as [`lab::in_lab`] does, where the stock plugins are; it gets a host and the plugins' directories.
pub fn stock(test: &str, body: impl FnOnce(&Lab, &Namespace, &[PathBuf])) {
    if has_stock() {
        lab::in_lab(test, |lab| body(lab, &lab.namespace("host"), &[PathBuf::from(STOCK)]));
    }
}

/// Runs `body` as [`with_host`] does, where the plugin under test and the stock ones are; else a loud word, and in CI a
/// failure. It gets a host whose daemon is not started, and the plugins' directories.
pub fn in_cni(test: &str, body: impl FnOnce(&Lab, Host, &[PathBuf])) {
    let Some(path) = directories() else { return };
    with_host(test, |lab, host| {
        // A host like any other: its gateways may have IPv6 addresses.
        host.namespace().inside(|| {
            for scope in ["all", "default"] {
                let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "0");
            }
        });
        body(lab, host, &path);
    });
}

/// The plugins' directories, ours first; `None` after a loud word.
///
/// # Panics
/// In CI when something is missing.
#[must_use]
pub fn directories() -> Option<Vec<PathBuf>> {
    let Some(plugin) = program("vswitch-cni") else {
        lab::skip("vswitch-cni is not beside the test: cargo build -p vswitch-cni builds it");
        return None;
    };
    has_stock().then(|| vec![plugin.parent().expect("a file is in a directory").to_owned(), STOCK.into()])
}

/// A list of release 1.0.0, which every release may be asked of, with our plugin alone: the daemon at `socket`, and
/// the keys in `more`.
///
/// # Panics
/// When `more` is no object.
#[must_use]
pub fn vswitch(name: &str, socket: &Path, more: &Value) -> Value {
    let mut plugin = Map::new();
    plugin.insert("type".to_owned(), "vswitch-cni".into());
    plugin.insert("socket".to_owned(), socket.display().to_string().into());
    plugin.extend(more.as_object().expect("keys of a plugin").clone());
    json!({"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"], "name": name, "plugins": [plugin]})
}

/// `ipam` by host-local, out of these ranges, with its files in a directory of this host.
///
/// # Panics
/// When there is no range.
#[must_use]
pub fn host_local(host: &Host, subnets: &[&str]) -> Value {
    assert!(!subnets.is_empty(), "a range at least");
    let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    json!({"type": "host-local", "dataDir": host.file("host-local"), "ranges": ranges})
}

/// Addresses that host-local holds for `network` on this host.
#[must_use]
pub fn host_local_leases(host: &Host, network: &str) -> Vec<String> {
    let files = std::fs::read_dir(host.file("host-local").join(network)).into_iter().flatten().flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    let mut addresses: Vec<String> = names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect();
    addresses.sort();
    addresses
}

/// The process that keeps a host's TAPs while its daemon comes and goes.
#[derive(Debug)]
pub struct Keeper {
    socket: PathBuf,
    /// Killed when dropped.
    pub process: Daemon,
}

impl Keeper {
    /// One for this host, without a daemon below it, ready.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(host: &Host) -> Self {
        let socket = host.file("keeper.sock");
        let mut command = host.namespace().command(program("vswitchd").expect("there when the test began"));
        let process = Daemon::spawn(command.arg("keeper").arg("--socket").arg(&socket));
        drop(process.until_connectable(&socket, PATIENCE));
        Self { socket, process }
    }

    /// The command that starts the host's daemon with this keeper.
    #[must_use]
    pub fn vswitchd(&self, host: &Host) -> Command {
        let mut command = host.vswitchd();
        command.env("VSWITCHD_KEEPER", &self.socket);
        command
    }
}
