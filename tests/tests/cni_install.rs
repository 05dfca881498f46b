//! `vswitchctl cni`: the plugin and the network configuration appear where a runtime looks while the daemon would take
//! a pod, and go. Not here: what the plugin does, and packages (see `packaging.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use vswitch_tests::daemon::{Host, PATIENCE, Pod, Said, program, with_host};
use vswitch_tests::lab::{Daemon, until};
use vswitch_tests::packaged::packaging;
use vswitchd::sys::rights;

const SEGMENT: &str = "[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010\n";
const LIST: &str = "10-vswitch.conflist";

/// Where a runtime of this host would look, and the network that it is to find there.
struct Runtime<'a> {
    host: &'a Host,
}

impl<'a> Runtime<'a> {
    fn new(host: &'a Host) -> Self {
        let runtime = Self { host };
        // Any program will do: nobody runs it here.
        fs::write(runtime.binary(), "#!/bin/sh\n").unwrap();
        runtime.ask_for(&json!({"name": "blue", "plugins": [{"type": "vswitch-cni", "segment": "blue"}]}));
        runtime
    }

    fn binary(&self) -> PathBuf {
        self.host.file("vswitch-cni")
    }

    fn file(&self) -> PathBuf {
        self.host.file("cni.conflist")
    }

    fn ask_for(&self, list: &Value) {
        fs::write(self.file(), list.to_string()).unwrap();
    }

    fn plugin(&self) -> PathBuf {
        self.host.file("bin/vswitch-cni")
    }

    /// The network configuration that is there now; it is never half of one.
    fn list(&self) -> Option<Value> {
        let text = fs::read_to_string(self.host.file("net.d").join(LIST)).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(program("vswitchctl").unwrap());
        command.env_remove("VSWITCHD_SOCKET").arg("--socket").arg(self.host.socket()).args(["cni", verb]);
        for (option, name) in [("--bin-dir", "bin"), ("--conf-dir", "net.d")] {
            command.arg(option).arg(self.host.file(name));
        }
        if verb == "install" {
            command.arg(self.file()).arg("--binary").arg(self.binary());
        }
        command
    }

    fn run(&self, verb: &str, more: &[&str]) -> Said {
        Host::run_command(self.command(verb).args(more))
    }

    /// Names in the two directories.
    fn files(&self) -> BTreeSet<String> {
        let names = |name: &str| -> Vec<String> {
            let entries = fs::read_dir(self.host.file(name)).into_iter().flatten();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        names("bin").into_iter().chain(names("net.d")).collect()
    }
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn an_installation_leaves_the_plugin_and_the_list_and_nothing_else() {
    with_host("an_installation_leaves_the_plugin_and_the_list_and_nothing_else", |_, mut host| {
        host.start_on(SEGMENT);
        let runtime = Runtime::new(&host);
        let said = runtime.run("install", &[]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
        assert_eq!(runtime.files(), names(&["vswitch-cni", LIST]));
        let mode = fs::metadata(runtime.plugin()).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode, fs::read(runtime.plugin()).unwrap()), (0o755, fs::read(runtime.binary()).unwrap()));
        let expected = json!({
            "cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0"], "name": "blue",
            "plugins": [{"type": "vswitch-cni", "segment": "blue", "socket": host.socket()}]
        });
        assert_eq!(runtime.list().unwrap(), expected);
        // Again, over a plugin that may be running, and what an installation that was cut short left behind.
        fs::write(host.file("bin/.vswitch-cni.new"), "half").unwrap();
        fs::write(runtime.binary(), "#!/bin/sh\n# a new one\n").unwrap();
        assert_eq!(runtime.run("install", &[]).code, 0);
        assert_eq!(fs::read(runtime.plugin()).unwrap(), fs::read(runtime.binary()).unwrap());
        assert_eq!(runtime.files(), names(&["vswitch-cni", LIST]));

        assert_eq!(runtime.run("uninstall", &[]).code, 0);
        assert_eq!(runtime.files(), BTreeSet::new());
        assert_eq!(runtime.run("uninstall", &[]).code, 0);
    });
}

#[test]
fn a_runtime_finds_no_network_that_the_daemon_would_not_serve() {
    with_host("a_runtime_finds_no_network_that_the_daemon_would_not_serve", |_, mut host| {
        let runtime = Runtime::new(&host);
        let said = runtime.run("install", &["--timeout", "1"]);
        assert_eq!(said.code, 69, "{said:?}");
        assert!(said.err.contains("is not written"), "{said:?}");
        assert_eq!(runtime.files(), names(&["vswitch-cni"]));

        host.start_on(SEGMENT);
        let runtime = Runtime::new(&host);
        let plugin =
            |segment: &str| json!({"name": "red", "plugins": [{"type": "vswitch-cni", "segment": segment}]});
        runtime.ask_for(&plugin("red"));
        let said = runtime.run("install", &[]);
        assert_eq!(said.code, 78, "{said:?}");
        assert!(said.err.contains("\"red\""), "{said:?}");
        assert_eq!(runtime.files(), names(&["vswitch-cni"]));
        for bad in [json!([]), json!({"name": "red", "plugins": [{"type": "bridge"}]})] {
            runtime.ask_for(&bad);
            let said = runtime.run("install", &[]);
            assert_eq!(said.code, 78, "{said:?}");
            assert!(said.err.contains("cni.conflist"), "{said:?}");
        }
        runtime.ask_for(&plugin("blue"));
        assert_eq!(runtime.run("install", &[]).code, 0);
        assert_eq!(runtime.list().unwrap()["name"], "red");
    });
}

#[test]
fn what_is_shipped_for_one_host_serves_pods_as_it_is() {
    with_host("what_is_shipped_for_one_host_serves_pods_as_it_is", |_, mut host| {
        host.start_on(&fs::read_to_string(packaging().join("etc/vswitchd.toml")).unwrap());
        let runtime = Runtime::new(&host);
        fs::copy(packaging().join("etc/cni.conflist"), runtime.file()).unwrap();
        let said = runtime.run("install", &[]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
        let list = runtime.list().unwrap();
        assert_eq!((&list["name"], &list["cniVersions"][2]), (&json!("pods"), &json!("1.1.0")));
    });
}

#[test]
fn the_list_follows_the_daemon_and_its_file() {
    with_host("the_list_follows_the_daemon_and_its_file", |_, mut host| {
        host.configure(SEGMENT);
        let mut follower = Daemon::spawn(Runtime::new(&host).command("install").arg("--follow"));
        follower.until_logged("does not answer", PATIENCE);
        assert_eq!(Runtime { host: &host }.list(), None);

        host.start();
        let runtime = Runtime { host: &host };
        until("a list while the daemon is ready", PATIENCE, || runtime.list());
        // A file that is bad changes nothing; one that is good does, at once when asked.
        runtime.ask_for(&json!({"name": "blue"}));
        follower.signal("HUP");
        follower.until_logged("expected a network configuration list", PATIENCE);
        assert!(runtime.list().is_some());
        runtime.ask_for(&json!({"name": "new", "plugins": [{"type": "vswitch-cni", "vlan": 7}]}));
        follower.signal("HUP");
        until("the new network", PATIENCE, || runtime.list().filter(|list| list["name"] == "new"));
        // Somebody else's deletion is put right.
        fs::remove_file(host.file("net.d").join(LIST)).unwrap();
        until("the list again", PATIENCE, || runtime.list());

        assert_eq!(host.end("TERM").0, 0);
        let runtime = Runtime { host: &host };
        until("no list without a daemon", PATIENCE, || runtime.list().is_none().then_some(()));
        assert!(runtime.plugin().exists());
        host.start();
        let runtime = Runtime { host: &host };
        until("the list when it is back", PATIENCE, || runtime.list());
        host.end("KILL");
        let runtime = Runtime { host: &host };
        until("no list for a daemon that died", PATIENCE, || runtime.list().is_none().then_some(()));
        host.start();
        let runtime = Runtime { host: &host };
        until("the list once more", PATIENCE, || runtime.list());

        follower.signal("TERM");
        assert_eq!(follower.until_exit(PATIENCE).code(), Some(0));
        assert_eq!(runtime.files(), names(&["vswitch-cni"]), "the plugin has pods to remove yet");
    });
}

#[test]
fn a_network_that_comes_before_ours_is_named() {
    with_host("a_network_that_comes_before_ours_is_named", |_, mut host| {
        host.start_on(SEGMENT);
        let runtime = Runtime::new(&host);
        fs::create_dir_all(host.file("net.d")).unwrap();
        for other in ["05-bridge.conf", "20-late.conflist", "00-README"] {
            fs::write(host.file("net.d").join(other), "{}").unwrap();
        }
        let said = runtime.run("install", &[]);
        assert_eq!(said.code, 0);
        assert!(said.err.contains("05-bridge.conf comes before"), "{said:?}");
        let said = runtime.run("install", &["--conf-name", "01-first.conflist"]);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    });
}

/// A pod's interface, asked of the daemon as the plugin asks, with these parameters more.
fn attach(host: &Host, pod: &Pod, more: &Value) -> Value {
    let stream = UnixStream::connect(host.socket()).unwrap();
    let namespace = File::open(pod.namespace().path()).unwrap();
    let mut params = json!({
        "container": "c1", "ifname": "eth0", "network": "blue", "netns": pod.namespace().path(),
        "settings": {"segment": "blue"}
    });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "cni.add", "params": params});
    let line = format!("{request}\n");
    assert_eq!(rights::send(&stream, line.as_bytes(), &[namespace.as_fd()]).unwrap(), line.len());
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn the_plugin_stays_while_it_has_interfaces_to_remove() {
    with_host("the_plugin_stays_while_it_has_interfaces_to_remove", |lab, mut host| {
        host.start_on(SEGMENT);
        let runtime = Runtime::new(&host);
        assert_eq!(runtime.run("install", &[]).code, 0);
        let pod = Pod::new(lab, "pod");
        let added = attach(&host, &pod, &json!({"addresses": ["10.1.0.5/16"]}));
        assert!(added["error"].is_null(), "{added}");

        let rows = host.rows("cni list");
        assert_eq!(rows.len(), 1, "{rows:?}");
        for (key, value) in [("container", "c1"), ("ifname", "eth0"), ("network", "blue"), ("state", "up")] {
            assert_eq!(rows[0][key], value, "{rows:?}");
        }
        assert_eq!(rows[0]["port"], added["result"]["port"]);
        assert_eq!(rows[0]["addresses"], json!(["10.1.0.5/16"]));
        let text = host.ctl("cni").out;
        assert!(text.starts_with("container  ifname  network  port"), "{text}");

        let said = runtime.run("uninstall", &[]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("1 of the pods' interfaces"), "{said:?}");
        assert_eq!(runtime.files(), names(&["vswitch-cni"]));
        assert_eq!(runtime.run("uninstall", &["--force"]).code, 0);
        assert_eq!(runtime.files(), BTreeSet::new());
    });
}

#[test]
fn a_node_that_runs_out_of_addresses_keeps_its_network() {
    with_host("a_node_that_runs_out_of_addresses_keeps_its_network", |lab, mut host| {
        host.start_on(SEGMENT);
        let runtime = Runtime::new(&host);
        // Two addresses, of which the gateway's is one.
        let pools = json!([{"subnet": "10.9.0.0/30", "block": 30}]);
        let ipam = json!({"type": "vswitch", "pools": pools});
        runtime.ask_for(&json!({"name": "blue", "plugins": [{"type": "vswitch-cni", "ipam": ipam}]}));
        let mut follower = Daemon::spawn(runtime.command("install").arg("--follow"));
        until("a list while there are addresses", PATIENCE, || runtime.list());
        let pod = Pod::new(lab, "pod");
        let added = attach(&host, &pod, &json!({"ipam": {"pools": pools}}));
        assert!(added["error"].is_null(), "{added}");
        follower.until_logged("10.9.0.0/30", PATIENCE);
        assert!(runtime.list().is_some(), "{}", follower.log());
        // One that was not there before does not come.
        follower.signal("TERM");
        assert_eq!(follower.until_exit(PATIENCE).code(), Some(0));
        let said = runtime.run("install", &["--timeout", "1"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert_eq!(runtime.files(), names(&["vswitch-cni"]));
    });
}
