//! The manifests for Kubernetes, carried out: their containers, from the shipped image, with the capabilities, mounts,
//! words and configuration that they say, by runc, on a node made of a namespace. What kubelet would do (start, restart,
//! replace) the test does. Not here: what the manifests may ask for (see `packaging.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use vswitch_tests::daemon::{Directory, Host, PATIENCE, Pod, program};
use vswitch_tests::etcd::{Etcd, with_etcd};
use vswitch_tests::lab::{Daemon, Lab, Namespace, check, in_lab, skip, until};
use vswitch_tests::packaged::{add_libraries, build, built, json as json_of, manifests, unpacked};
use vswitchd::sys::netns;

/// A node of a cluster: its network, its files, and the manifests' objects.
struct Node {
    network: Namespace,
    /// What lies beyond its underlay.
    others: Namespace,
    files: Directory,
    objects: Vec<Value>,
    started: Cell<u32>,
}

/// A container that runs.
struct Container {
    id: String,
    runc: PathBuf,
    process: Daemon,
}

impl Drop for Container {
    fn drop(&mut self) {
        let mut delete = Command::new("runc");
        delete.arg("--root").arg(&self.runc).args(["delete", "--force", &self.id]);
        let _ = delete.stdin(Stdio::null()).output();
    }
}

impl Container {
    /// The number of its first process, as the node sees it.
    fn pid(&self) -> u64 {
        let said = check(Command::new("runc").arg("--root").arg(&self.runc).args(["state", &self.id]));
        serde_json::from_str::<Value>(&said).unwrap()["pid"].as_u64().unwrap()
    }

    /// Ends it, as kubelet ends a pod or as a crash does.
    fn end(mut self, signal: &str) {
        check(Command::new("runc").arg("--root").arg(&self.runc).args(["kill", &self.id, signal]));
        self.process.until_exit(PATIENCE);
    }
}

impl Node {
    fn new(lab: &Lab, binaries: &Path, objects: Vec<Value>) -> Self {
        let node = Self {
            network: lab.namespace("node"),
            others: lab.namespace("others"),
            files: Directory::new(),
            objects,
            started: Cell::new(0),
        };
        // The address in the manifests is the etcd's, and this node's too; forwarding is on, as kubeadm wants it.
        node.network.veth("under", &node.others, "under");
        node.network.address("under", "192.168.65.10/24");
        node.network.run("sysctl -qw net.ipv4.ip_forward=1");
        let (_, root, _) = unpacked(&build("image/build", binaries, &node.files.0), &node.files.0);
        add_libraries(&root);
        let config = node.objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        fs::create_dir_all(node.file("config")).unwrap();
        for (name, text) in config["data"].as_object().unwrap() {
            fs::write(node.file("config").join(name), text.as_str().unwrap()).unwrap();
        }
        node
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.0.join(name)
    }

    /// What the node has at this path.
    fn host_file(&self, path: &str) -> PathBuf {
        self.file("host").join(path.trim_start_matches('/'))
    }

    fn socket(&self) -> PathBuf {
        self.host_file("/run/vswitchd/control.sock")
    }

    /// Where what a volume names is on this node.
    fn source(&self, volume: &Value) -> PathBuf {
        if volume["configMap"].is_object() {
            return self.file("config");
        }
        let path = volume["hostPath"]["path"].as_str().unwrap();
        match volume["hostPath"]["type"].as_str().unwrap() {
            "CharDevice" => PathBuf::from(path),
            "DirectoryOrCreate" => {
                let path = self.host_file(path);
                fs::create_dir_all(&path).unwrap();
                path
            }
            other => panic!("{other}"),
        }
    }

    /// Starts a container of a DaemonSet's pod.
    fn start(&self, set: &str, name: &str) -> Container {
        let set = self
            .objects
            .iter()
            .find(|object| object["kind"] == "DaemonSet" && object["metadata"]["name"] == set);
        let pod = &set.unwrap()["spec"]["template"]["spec"];
        assert_eq!(pod["hostNetwork"], true);
        let find = |list: &Value, name: &str| -> Value {
            list.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone()
        };
        let container = find(&pod["containers"], name);
        self.started.set(self.started.get() + 1);
        let id = format!("vswitch-{}-{}", std::process::id(), self.started.get());
        let bundle = self.file(&id);
        fs::create_dir_all(&bundle).unwrap();
        check(Command::new("runc").arg("spec").current_dir(&bundle));
        let mut spec = json_of(&bundle.join("config.json"));
        let may = &container["securityContext"];
        spec["root"] = json!({"path": self.file("image-root"), "readonly": may["readOnlyRootFilesystem"]});
        let added = may["capabilities"]["add"].as_array().cloned().unwrap_or_default();
        let capabilities: Vec<String> =
            added.iter().map(|word| format!("CAP_{}", word.as_str().unwrap())).collect();
        let mut environment = vec![json!("PATH=/usr/sbin:/usr/bin:/usr/lib/cni")];
        for entry in container["env"].as_array().into_iter().flatten() {
            let value = entry["value"].as_str().unwrap_or("node-1");
            environment.push(json!(format!("{}={value}", entry["name"].as_str().unwrap())));
        }
        let words: Vec<String> = container["command"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap().replace("$(NODE_NAME)", "node-1"))
            .collect();
        let process = &mut spec["process"];
        process["terminal"] = json!(false);
        process["args"] = json!(words);
        process["env"] = json!(environment);
        process["noNewPrivileges"] = json!(may["allowPrivilegeEscalation"] == false);
        process["capabilities"] =
            json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
        process.as_object_mut().unwrap().remove("rlimits");
        for mount in container["volumeMounts"].as_array().unwrap() {
            let source = self.source(&find(&pod["volumes"], mount["name"].as_str().unwrap()));
            let access = if mount["readOnly"] == true { "ro" } else { "rw" };
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": mount["mountPath"], "source": source, "type": "bind", "options": ["rbind", access]
            }));
        }
        for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["path"] = json!(self.network.path());
            }
        }
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        let runc = self.file("runc");
        let mut command = Command::new("runc");
        command.arg("--root").arg(&runc).arg("run").arg("--bundle").arg(&bundle).arg(&id);
        // A signal to the test's group is not for it: the container is deleted as a whole.
        command.process_group(0);
        Container { id, runc, process: Daemon::spawn(&mut command) }
    }

    fn status(&self) -> Option<Value> {
        let mut command = Command::new(program("vswitchctl").unwrap());
        command.env_remove("VSWITCHD_SOCKET").arg("--socket").arg(self.socket()).args(["--json", "status"]);
        let said = Host::run_command(&mut command);
        (said.code == 0).then(|| said.json())
    }

    /// The network configuration that the node's container runtime would find.
    fn list(&self) -> Option<Value> {
        // Read at once: it may go between two questions.
        let text = fs::read(self.host_file("/etc/cni/net.d/10-vswitch.conflist")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Runs the plugin as the node's container runtime would.
    fn plugin(&self, verb: &str, pod: &Pod, previous: &Value) -> Value {
        let list = self.list().unwrap();
        let mut conf = list["plugins"][0].clone();
        conf["name"] = list["name"].clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        // The node's files are not at their usual place.
        conf["socket"] = json!(self.socket());
        if !previous.is_null() {
            conf["prevResult"] = previous.clone();
        }
        let conf_file = self.file("conf.json");
        fs::write(&conf_file, conf.to_string()).unwrap();
        let bin = self.host_file("/opt/cni/bin");
        let mut command = Command::new(bin.join("vswitch-cni"));
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", pod.name()).env("CNI_IFNAME", "eth0");
        command.env("CNI_NETNS", pod.namespace().path()).env("CNI_PATH", bin);
        let output = command.stdin(fs::File::open(conf_file).unwrap()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{verb}: {text} {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or_default()
    }
}

/// All that a pod's processes could tell an interface by.
fn identity(pod: &Pod) -> Value {
    let links: Value = serde_json::from_str(&pod.namespace().run("ip -json address show eth0")).unwrap();
    let routes: Value = serde_json::from_str(&pod.namespace().run("ip -json route show")).unwrap();
    let link = &links[0];
    let addresses = link["addr_info"].as_array().unwrap().iter().map(|at| at["local"].clone());
    json!([link["ifindex"], link["address"], link["mtu"], addresses.collect::<Value>(), routes])
}

fn address(result: &Value) -> IpAddr {
    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap()
}

#[test]
fn pods_keep_their_interfaces_while_every_container_of_the_manifests_is_replaced() {
    let test = "pods_keep_their_interfaces_while_every_container_of_the_manifests_is_replaced";
    let Some(binaries) = built(&["runc", "tar", "strip", "sha256sum", "ldd", "readelf", "sysctl"]) else {
        return;
    };
    if !netns::is_root() {
        return skip("runc makes no containers of the machine's network without root");
    }
    let Some(objects) = manifests() else { return };
    with_etcd(|| {
        in_lab(test, |lab| {
            let node = Node::new(lab, &binaries, objects);
            let _etcd = Etcd::start_in(&node.network, "192.168.65.10".parse().unwrap());
            let ready = || until("a network for the runtime", PATIENCE, || node.list());
            let keeper = node.start("vswitch-keeper", "keeper");
            let daemon = node.start("vswitchd", "vswitchd");
            let _install = node.start("vswitchd", "install");
            ready();
            assert_eq!(node.status().unwrap()["keeper"], "process");
            let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
            for set in ["CapPrm", "CapEff", "CapBnd"] {
                // CAP_NET_ADMIN is number 12 (capabilities(7)).
                assert!(status.contains(&format!("{set}:\t0000000000001000\n")), "{status}");
            }

            let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
            let (result_a, result_b) =
                (node.plugin("ADD", &a, &Value::Null), node.plugin("ADD", &b, &Value::Null));
            let before = [identity(&a), identity(&b)];
            let holds = |when: &str| {
                assert_eq!([identity(&a), identity(&b)], before, "{when}");
                a.namespace().run(&format!("ping -c 1 -W 10 {}", address(&result_b)));
                // As kubelet's probes would.
                node.network.run(&format!("ping -c 1 -W 10 {}", address(&result_a)));
                node.plugin("CHECK", &a, &result_a);
            };
            holds("as they came");

            daemon.end("TERM");
            until("no network without a daemon", PATIENCE, || node.list().is_none().then_some(()));
            let daemon = node.start("vswitchd", "vswitchd");
            ready();
            holds("after an upgrade of the daemon");

            daemon.end("KILL");
            let daemon = node.start("vswitchd", "vswitchd");
            until("the daemon", PATIENCE, || node.status());
            ready();
            holds("after a crash of the daemon");

            let kept = node.status().unwrap()["keeper_descriptors"].as_u64().unwrap();
            assert!(kept >= 2, "{kept}");
            keeper.end("TERM");
            until("a daemon that misses its keeper", PATIENCE, || {
                node.status().filter(|status| status["keeper_descriptors"] == 0)
            });
            holds("without a keeper");
            let _keeper = node.start("vswitch-keeper", "keeper");
            until("everything with the new keeper", PATIENCE, || {
                node.status().filter(|status| status["keeper_descriptors"] == kept)
            });
            daemon.end("KILL");
            let _daemon = node.start("vswitchd", "vswitchd");
            until("the daemon", PATIENCE, || node.status());
            ready();
            holds("after an upgrade of the keeper, and then a crash of the daemon");

            for (pod, result) in [(&a, &result_a), (&b, &result_b)] {
                node.plugin("DEL", pod, result);
                assert!(!pod.namespace().run("ip -brief link").contains("eth0"));
            }
        });
    });
}
