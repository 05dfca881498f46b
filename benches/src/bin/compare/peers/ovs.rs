//! Open vSwitch in userspace (datapath_type=netdev), with TAPs for the pods and, between nodes, its VXLAN port over a
//! bridge that holds the underlay's address, as its documentation wants it. Its database counts as part of it.

use super::Switch;
use crate::ground::{Ground, NODE_ADDRESSES, POD_INTERFACE, Scene, UNDERLAY, VNI};
use crate::place::{FILES, Namespace, Process, check, until};
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Where Debian puts its two builds; the alternative `ovs-vswitchd` is one of them.
const PLAIN: &str = "/usr/lib/openvswitch-switch/ovs-vswitchd";
const DPDK: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
/// Everything of Open vSwitch answers within this time.
const PATIENCE: Duration = Duration::from_secs(20);

fn program(tso: bool) -> Option<PathBuf> {
    let names: &[&str] = if tso { &[DPDK] } else { &[PLAIN, "/usr/sbin/ovs-vswitchd"] };
    names.iter().map(PathBuf::from).find(|path| path.exists())
}

pub(super) fn unavailable(tso: bool, scene: Scene) -> Option<String> {
    if !Path::new(SCHEMA).exists() || program(false).is_none() {
        return Some("Debian's openvswitch-switch is not installed".to_owned());
    }
    let Some(program) = program(tso) else {
        return Some("Debian's openvswitch-switch-dpdk is not installed".to_owned());
    };
    let version = check(Command::new(program).arg("--version")).unwrap_or_default();
    (tso && scene != Scene::Pods && before_3_2(&version)).then(|| {
        "this Open vSwitch drops superframes at a tunnel when userspace-tso is on (3.2 and later do not)"
            .to_owned()
    })
}

/// Whether `ovs-vswitchd --version` tells of a version before 3.2.
fn before_3_2(text: &str) -> bool {
    let Some(version) = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
    else {
        return false;
    };
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (3, 2)
}

pub(super) fn start(ground: &Ground, tso: bool) -> anyhow::Result<Switch> {
    let mut switch = Switch::default();
    for (index, node) in ground.nodes.iter().enumerate() {
        let directory = Path::new(FILES).join(format!("ovs-{}", node.name()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory)?;
        let [database, vswitchd] = daemons(node, &directory, tso)?;
        switch.processes.extend([database, vswitchd]);
        let vsctl = |words: &str| configure(&directory, words);
        vsctl("add-br br0 -- set bridge br0 datapath_type=netdev fail-mode=standalone")?;
        let pods =
            ground.pods.iter().enumerate().filter(|(pod, _)| ground.node_of(*pod).name() == node.name());
        for (pod, namespace) in pods {
            let tap = format!("tap-{}", pod + 1);
            vsctl(&format!("add-port br0 {tap} -- set interface {tap} type=tap"))?;
            node.ip(&format!("link set {tap} netns {} name {POD_INTERFACE}", namespace.name()))?;
            ground.settle(pod)?;
        }
        if ground.scene != Scene::Pods {
            tunnel(node, index, vsctl)?;
        }
    }
    Ok(switch)
}

/// The database and the switch, both running.
fn daemons(node: &Namespace, directory: &Path, tso: bool) -> anyhow::Result<[Process; 2]> {
    let at = |name: &str| directory.join(name).display().to_string();
    check(Command::new("ovsdb-tool").args(["create", &at("conf.db"), SCHEMA]))?;
    let mut command = node.command(Path::new("ovsdb-server"))?;
    command.args([&at("conf.db"), &format!("--remote=punix:{}", at("db.sock"))]);
    let database = start_daemon(command, "ovsdb-server", directory, "db.ctl")?;
    configure(directory, "--no-wait init")?;
    if tso {
        configure(directory, "--no-wait set Open_vSwitch . other_config:userspace-tso-enable=true")?;
    }
    let program = program(tso).context("looked for before")?;
    let mut command = node.command(&program)?;
    command.arg(format!("unix:{}", at("db.sock")));
    let vswitchd = start_daemon(command, "ovs-vswitchd", directory, "v.ctl")?;
    Ok([database, vswitchd])
}

fn start_daemon(mut command: Command, name: &str, directory: &Path, ctl: &str) -> anyhow::Result<Process> {
    environment(&mut command, directory);
    let socket = directory.join(ctl);
    command.arg(format!("--unixctl={}", socket.display()));
    let mut daemon = Process::spawn(command, Path::new(name))?;
    until(&format!("{name} listens"), PATIENCE, || daemon.must_live().map(|()| socket.exists()))?;
    Ok(daemon)
}

fn environment(command: &mut Command, directory: &Path) {
    for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, directory);
    }
}

fn configure(directory: &Path, words: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ovs-vsctl");
    environment(&mut command, directory);
    command.arg(format!("--db=unix:{}", directory.join("db.sock").display()));
    command.arg(format!("--timeout={}", PATIENCE.as_secs()));
    check(command.args(words.split_whitespace())).map(drop)
}

/// The bridge of the underlay takes over its address; the tunnel finds its way by the kernel's routes.
fn tunnel(node: &Namespace, index: usize, vsctl: impl Fn(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (local, remote) = (NODE_ADDRESSES[index], NODE_ADDRESSES[1 - index]);
    vsctl("add-br br-phy -- set bridge br-phy datapath_type=netdev fail-mode=standalone")?;
    vsctl(&format!("add-port br-phy {UNDERLAY}"))?;
    vsctl("set interface br-phy mtu_request=1600")?;
    node.ip(&format!("address del {local}/24 dev {UNDERLAY}"))?;
    node.ip(&format!("address add {local}/24 dev br-phy"))?;
    node.ip("link set br-phy up")?;
    vsctl(&format!(
        "add-port br0 vxlan0 -- set interface vxlan0 type=vxlan options:local_ip={local} \
         options:remote_ip={remote} options:key={VNI}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        assert!(before_3_2("ovs-vswitchd (Open vSwitch) 3.1.0"));
        assert!(before_3_2("ovs-vswitchd (Open vSwitch) 2.17.5"));
        assert!(!before_3_2("ovs-vswitchd (Open vSwitch) 3.2.0\nDPDK 22.11"));
        assert!(!before_3_2("ovs-vswitchd (Open vSwitch) 10.0"));
        assert!(!before_3_2("nonsense"));
    }
}
