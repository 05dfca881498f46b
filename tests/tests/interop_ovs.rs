//! Stock Open vSwitch, in userspace and in a namespace of its own, as the remote node, and our node: pods on
//! either side talk.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use vswitch_tests::lab::{Daemon, Lab, Namespace, check, skip, until};
use vswitch_tests::node::{
    Fleet, PATIENCE, Underlay, Wire, in_nodes, is_fragment, pings, pod, silence, talk, udp_echo, v4, v6,
};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A private Open vSwitch inside a namespace. Fields are dropped in order: the switch before its database.
struct Ovs {
    _vswitchd: Daemon,
    _database: Daemon,
    directory: Directory,
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Ovs {
    fn start(namespace: &Namespace) -> Self {
        let directory = std::env::temp_dir().join(namespace.name());
        std::fs::create_dir_all(&directory).unwrap();
        let directory = Directory(directory);
        let at = |name: &str| directory.0.join(name);
        check(Command::new("ovsdb-tool").arg("create").args([&at("conf.db"), Path::new(SCHEMA)]));
        let inside = |program: &str| {
            let mut command = namespace.command("env");
            for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
                command.arg(format!("{variable}={}", directory.0.display()));
            }
            command.arg(program);
            command
        };
        let remote = format!("unix:{}", at("db.sock").display());
        let database =
            Daemon::spawn(inside("ovsdb-server").arg(at("conf.db")).arg(format!("--remote=p{remote}")));
        drop(database.until_connectable(&at("db.sock"), PATIENCE));
        let ovs = Self {
            _vswitchd: Daemon::spawn(inside("ovs-vswitchd").arg(&remote)),
            _database: database,
            directory,
        };
        ovs.vsctl("init");
        ovs
    }

    /// Runs `ovs-vsctl` with these words and waits until the switch has taken it in.
    fn vsctl(&self, words: &str) {
        let remote = format!("--db=unix:{}", self.directory.0.join("db.sock").display());
        check(Command::new("ovs-vsctl").args(["--timeout=20", &remote]).args(words.split_whitespace()));
    }
}

fn talks(lab: &Lab, address: fn(u8) -> IpAddr) {
    if !Path::new(SCHEMA).exists() {
        return skip("Open vSwitch is not installed (Debian: openvswitch-switch)");
    }
    let underlay = Underlay::new(lab, 2, 1500);
    let (first, second) = (&underlay.nodes[0], &underlay.nodes[1]);
    // Open vSwitch reads the underlay through a packet socket: a checksum that a veth leaves undone is wrong there.
    first.ethtool("under", "tx off");
    let ours = [lab.namespace("ours10"), lab.namespace("ours20")];
    let theirs = [lab.namespace("theirs10"), lab.namespace("theirs20")];
    let ports = (1..).zip(&ours).map(|(n, space)| {
        let address = [format!("10.{n}.0.1/16"), format!("fd1{n}::1/64")];
        let address: Vec<&str> = address.iter().map(String::as_str).collect();
        pod(&format!("ours{n}0"), "n1", space, &format!("tag = {n}0"), &address)
    });
    let ports: String = ports.collect();
    let fleet = Fleet::new(&format!(
        "[underlay]\naddress = \"{0}\"\n[mesh]\npeers = [\"{0}\", \"{1}\"]\n[[segment]]\nname = \"blue\"\n\
         vlan = 10\nvni = 10010\n[[segment]]\nname = \"red\"\nvlan = 20\nvni = 10020\n{ports}",
        address(1),
        address(2)
    ));
    let node = fleet.start(first, "n1");

    // The tunnel's own address is on a bridge with the underlay's link in it: so OVS routes its tunnels.
    let ovs = Ovs::start(second);
    ovs.vsctl("add-br br-phy -- set bridge br-phy datapath_type=netdev -- add-port br-phy under");
    second.ip("address flush dev under");
    second.address("br-phy", &format!("{}/{}", address(2), if address(2).is_ipv4() { 24 } else { 64 }));
    ovs.vsctl("add-br br-int -- set bridge br-int datapath_type=netdev");
    let mtu = if address(1).is_ipv4() { 1450 } else { 1430 };
    for (n, space) in (1..).zip(&theirs) {
        let remote = address(1);
        ovs.vsctl(&format!(
            "add-port br-int vx{n}0 tag={n}0 -- set interface vx{n}0 type=vxlan options:remote_ip={remote} \
             options:key=100{n}0"
        ));
        second.veth(&format!("pod{n}0"), space, "eth0");
        ovs.vsctl(&format!("add-port br-int pod{n}0 tag={n}0"));
        space.ip(&format!("link set dev eth0 mtu {mtu}"));
        // OVS in userspace takes no superframes. It does take unfinished checksums, and sends them to us so.
        space.ethtool("eth0", "tso off gso off");
        space.address("eth0", &format!("10.{n}.0.2/16"));
        space.address("eth0", &format!("fd1{n}::2/64"));
    }

    let mut wire = Wire::open(first, "under");
    for (n, (our, their)) in (1..).zip(ours.iter().zip(&theirs)) {
        let (us, them) = (format!("10.{n}.0.1"), format!("10.{n}.0.2"));
        // OVS drops what it sends while it asks who has the tunnel's other address.
        until("the first answer", PATIENCE, || {
            (their.ping_with(ip(&us), 56, 1, "-W 1").received == 1).then_some(())
        });
        talk(our, ip(&us), their, ip(&them));
        pings(their, ip(&us));
        udp_echo(their, our, ip(&us));
        let (us, them) = (format!("fd1{n}::1"), format!("fd1{n}::2"));
        talk(our, ip(&us), their, ip(&them));
        pings(their, ip(&us));
    }
    // Another VLAN, in the same IP network.
    ours[0].ip("address add 10.2.0.9/16 dev eth0");
    silence(&theirs[1], ip("10.2.0.9"));
    assert!(!wire.frames().iter().any(|frame| is_fragment(frame)));
    for reason in ["unknown_peer", "unknown_vni", "inner_vlan", "bad_offload", "too_big", "tx_error"] {
        assert_eq!(node.drops(reason), 0, "{reason}: {}", node.ctl("drops"));
    }
}

#[test]
fn open_vswitch_talks_over_ipv4() {
    in_nodes("open_vswitch_talks_over_ipv4", |lab| talks(lab, v4));
}

#[test]
fn open_vswitch_talks_over_ipv6() {
    in_nodes("open_vswitch_talks_over_ipv6", |lab| talks(lab, v6));
}
