//! What the plugin's tests share: a socket that speaks the daemon's words and makes real TAPs, and the plugin run as a
//! runtime runs it. Not here: the daemon itself, which tests of the whole switch start.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    reason = "support of tests, none of which uses all of it"
)]

mod scripted;

pub(crate) use scripted::{Hold, Scripted, UNAVAILABLE};

use serde_json::{Value, json};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where Debian has the plugins of the CNI project.
pub(crate) const STOCK: &str = "/usr/lib/cni";

/// A directory that is removed when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vswitch-cni-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts a plugin of shell script there.
    pub(crate) fn plugin(&self, name: &str, script: &str) {
        let path = self.0.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A call of the plugin.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) command: &'static str,
    pub(crate) container: String,
    pub(crate) ifname: String,
    pub(crate) netns: String,
    pub(crate) args: String,
    pub(crate) path: String,
    pub(crate) conf: Value,
}

/// What came of one.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
}

impl Call {
    pub(crate) fn new(container: &str, netns: &Path, conf: &Value) -> Self {
        Self {
            command: "ADD",
            container: container.to_owned(),
            ifname: "eth0".to_owned(),
            netns: netns.display().to_string(),
            args: String::new(),
            path: STOCK.to_owned(),
            conf: conf.clone(),
        }
    }

    pub(crate) fn is(&self, command: &'static str) -> Self {
        Self { command, ..self.clone() }
    }

    /// With another value of a key of the configuration.
    pub(crate) fn with(&self, key: &str, value: Value) -> Self {
        let mut call = self.clone();
        call.conf[key] = value;
        call
    }

    pub(crate) fn start(&self) -> std::process::Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vswitch-cni"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("CNI_COMMAND", self.command);
        for (name, value) in [
            ("CNI_CONTAINERID", &self.container),
            ("CNI_IFNAME", &self.ifname),
            ("CNI_NETNS", &self.netns),
            ("CNI_ARGS", &self.args),
            ("CNI_PATH", &self.path),
        ] {
            if !value.is_empty() {
                command.env(name, value);
            }
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // One that refuses its environment may have ended before it was given anything to read.
        match child.stdin.take().unwrap().write_all(self.conf.to_string().as_bytes()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written.unwrap(),
        }
        child
    }

    pub(crate) fn run(&self) -> Outcome {
        let output = self.start().wait_with_output().unwrap();
        Outcome { code: output.status.code(), out: String::from_utf8(output.stdout).unwrap() }
    }

    /// What it printed, where it went well.
    pub(crate) fn good(&self) -> Value {
        let outcome = self.run();
        assert_eq!(outcome.code, Some(0), "{self:?}: {}", outcome.out);
        if outcome.out.is_empty() { Value::Null } else { serde_json::from_str(&outcome.out).unwrap() }
    }

    /// The error, which must be of the form that the specification has.
    pub(crate) fn bad(&self) -> Value {
        let outcome = self.run();
        assert_eq!(outcome.code, Some(1), "{self:?}: {}", outcome.out);
        let error: Value = serde_json::from_str(&outcome.out).unwrap();
        assert!(error["cniVersion"].is_string() && error["msg"].is_string(), "{error}");
        error
    }

    /// The error's code.
    pub(crate) fn code(&self) -> u64 {
        self.bad()["code"].as_u64().unwrap()
    }
}

/// The configuration of a network called `blue`, with the socket of `daemon` and `ipam`.
pub(crate) fn conf(version: &str, daemon: &Scripted, ipam: &Value) -> Value {
    json!({"cniVersion": version, "name": "blue", "type": "vswitch-cni", "socket": daemon.socket(), "ipam": ipam})
}

/// host-local with its leases under `directory`.
pub(crate) fn host_local(directory: &Path) -> Value {
    json!({
        "type": "host-local",
        "dataDir": directory.join("leases"),
        "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/112"}]],
        "routes": [{"dst": "192.0.2.0/24"}],
    })
}

/// The leases of network `blue` that host-local has under `directory`.
pub(crate) fn leases(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory.join("leases/blue")) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<String> = names.filter(|name| !name.starts_with("last") && name != "lock").collect();
    all.sort();
    all
}
