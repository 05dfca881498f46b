//! Makes the small captures of `tests/data/golden` anew, from the Linux kernel and from stock Open vSwitch:
//! `cargo test -p vswitch-tests --test golden_record -- --ignored`.
//!
//! Not here: what is compared with them (see `golden.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vswitch_core::port::VlanSet;
use vswitch_core::{Attachment, Mac, Port, PortId, Vlan};
use vswitch_tests::frames::{Frame, ctag, stag, station};
use vswitch_tests::lab::{Daemon, Vxlan, in_lab, until};
use vswitch_tests::ovs::Ovs;
use vswitch_tests::pcap;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden").join(name)
}

fn write(name: &str, frames: &[Vec<u8>]) {
    std::fs::write(golden(name), pcap::write(frames.iter().map(Vec::as_slice))).unwrap();
}

#[test]
#[ignore = "rewrites tests/data/golden from the stock Open vSwitch of this machine"]
fn record_open_vswitch() {
    let Some(mut ovs) = Ovs::start(1) else { return };
    let vlan = |number| Vlan::new(number).unwrap();
    let ports = [
        ("a", Attachment::dot1q_tunnel(vlan(10), None)),
        ("t", Attachment::trunk_all()),
        ("c", Attachment::Access(vlan(10))),
        ("n", Attachment::native(vlan(10), false, VlanSet::all())),
    ];
    let made: Vec<Port> =
        (1..).zip(&ports).map(|(n, port)| Port::new(PortId::new(n).unwrap(), port.1.clone())).collect();
    ovs.bridge(&made, &[]);
    let plain = Frame::new(Mac::BROADCAST, station(1));
    let inside: Vec<Vec<u8>> = [
        vec![],
        vec![ctag(10, 0)],
        vec![ctag(10, 3)],
        vec![stag(10, 5)],
        vec![ctag(12, 5)],
        vec![ctag(10, 3), ctag(12, 5)],
        vec![stag(10, 2), ctag(12, 0)],
        vec![ctag(12, 4), ctag(13, 5)],
        vec![ctag(10, 1), stag(11, 2), ctag(12, 3)],
    ]
    .iter()
    .map(|tags| plain.clone().tags(tags).bytes())
    .collect();
    for (from, port) in ports.iter().map(|p| p.0).zip(&made) {
        write(&format!("ovs-{from}.pcap"), &inside);
        let mut left = vec![Vec::new(); made.len()];
        for frame in &inside {
            ovs.forget();
            for (to, bytes) in ovs.frame_in(port.id, frame) {
                left[to.index() - 1].push(bytes);
            }
        }
        for (to, frames) in ports.iter().map(|p| p.0).zip(&left).filter(|(to, _)| *to != from) {
            write(&format!("ovs-{from}-{to}.pcap"), frames);
        }
    }
}

#[test]
#[ignore = "rewrites tests/data/golden from the kernel of this machine"]
fn record_linux() {
    in_lab("record_linux", |lab| {
        let (pod, node, far) = (lab.namespace("pod"), lab.namespace("node"), lab.namespace("far"));
        for namespace in [&pod, &node, &far] {
            namespace.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        }
        node.veth("u0", &far, "u0");
        node.address("u0", "192.0.2.2/24");
        far.address("u0", "192.0.2.1/24");
        let (local, remote) = (IpAddr::from([192, 0, 2, 2]), IpAddr::from([192, 0, 2, 1]));
        node.vxlan(&Vxlan { name: "vx", vni: 10_010, local, remote, port: 4789, more: "" });
        node.veth("p0", &pod, "eth0");
        node.bridge("br", &["p0", "vx"]);
        pod.ip("link set dev eth0 address 02:00:00:00:00:02");
        pod.address("eth0", "10.10.0.2/24");
        pod.ethtool("eth0", "tx off");
        // ARP asks first, for 10.10.0.9; the other is known, and does not answer.
        pod.ip("neigh add 10.10.0.3 lladdr 02:00:00:00:00:03 dev eth0");
        let directory = std::env::temp_dir();
        let capture = |namespace: &vswitch_tests::lab::Namespace, link: &str, name: &str, filter: &str| {
            let file = directory.join(name);
            let mut command = namespace.command("tcpdump");
            command.args(["-i", link, "-U", "-Q", "out", "-w"]).arg(&file);
            let daemon = Daemon::spawn(command.args(["-Z", "root", filter]));
            daemon.until_logged("listening on", Duration::from_secs(10));
            (daemon, file)
        };
        let (inside, inside_file) = capture(&pod, "eth0", "linux-vxlan-inside.pcap", "");
        let (outside, outside_file) = capture(&node, "u0", "linux-vxlan-outside.pcap", "udp port 4789");
        for line in [
            "ping -c 2 -i 0.2 -W 1 -s 56 10.10.0.3",
            "ping -c 1 -W 1 -s 1400 10.10.0.3",
            "ping -c 1 -W 1 10.10.0.9",
        ] {
            let _ = pod.try_run(line);
        }
        // The node's bridge has things to say too: only what the pod sent counts, which begins `at` bytes in.
        let of_pod = |file: &Path, at: usize| -> Vec<Vec<u8>> {
            let records = std::fs::read(file).ok().and_then(|file| pcap::read(&file).ok()).map(|c| c.records);
            let frames = records.unwrap_or_default().into_iter().map(|record| record.bytes);
            frames.filter(|frame| frame[at + 6..at + 12] == station(2).bytes()).collect()
        };
        let both = until("as many outside as inside", Duration::from_secs(10), || {
            let both = (of_pod(&inside_file, 0), of_pod(&outside_file, 14 + 20 + 8 + 8));
            (both.0.len() == both.1.len() && both.0.len() > 3).then_some(both)
        });
        drop((inside, outside));
        write("linux-vxlan-inside.pcap", &both.0);
        write("linux-vxlan-outside.pcap", &both.1);
        println!("{} frames", both.0.len());
    });
}
