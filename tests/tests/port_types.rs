//! Ports of the file that are no TAP of the daemon's: existing interfaces, and tunnels as Open vSwitch means them.
//!
//! Not here: the same from a database (see `ovs_tunnels.rs`), and the mesh.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use vswitch_tests::daemon::program;
use vswitch_tests::lab::{Daemon, Lab, Namespace, until};
use vswitch_tests::node::{Fleet, PATIENCE, Underlay, in_nodes, pings, pod, silence, talk, v4, v6};
use vswitch_tests::ovs_seat::{Facing, Switch, V4, in_seats, reach};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A pod with these addresses behind a bridge of `host`'s kernel, with `link` as its other port.
fn kernel_pod(lab: &Lab, host: &Namespace, link: &str, addresses: &[&str]) -> Namespace {
    let pod = lab.namespace(&format!("pod-{link}"));
    host.veth(&format!("p-{link}"), &pod, "eth0");
    host.bridge(&format!("b-{link}"), &[link, &format!("p-{link}")]);
    pod.ip("link set dev eth0 mtu 1430");
    addresses.iter().for_each(|address| pod.address("eth0", address));
    pod
}

#[test]
fn tunnels_of_the_file_join_a_kernel_over_both_families() {
    in_nodes("tunnels_of_the_file_join_a_kernel_over_both_families", |lab| {
        let underlay = Underlay::new(lab, 2, 1500);
        let [ours, linux] = [&underlay.nodes[0], &underlay.nodes[1]];
        let mut toml = String::new();
        let mut pods = Vec::new();
        for (net, address) in [(4, v4 as fn(u8) -> IpAddr), (6, v6)] {
            let space = lab.namespace(&format!("ours{net}"));
            toml += &format!(
                "[[port]]\nname = \"vx{net}\"\ntype = \"vxlan\"\ntag = {net}\nremote_ip = \"{}\"\nkey = 1000{net}\n",
                address(2)
            );
            let addresses = [format!("10.{net}.0.1/24"), format!("fd10:{net}::1/64")];
            let addresses = addresses.each_ref().map(String::as_str);
            toml += &pod(&format!("p{net}"), "n1", &space, &format!("tag = {net}\nmtu = 1430"), &addresses);
            let vxlan = format!("type vxlan id 1000{net} remote {} dstport 4789", address(1));
            linux.ip(&format!("link add name vx{net} {vxlan}"));
            linux.ip(&format!("link set dev vx{net} up"));
            let addresses = [format!("10.{net}.0.2/24"), format!("fd10:{net}::2/64")];
            let addresses = addresses.each_ref().map(String::as_str);
            pods.push((net, space, kernel_pod(lab, linux, &format!("vx{net}"), &addresses)));
        }
        let fleet = Fleet::new(&toml);
        let node = fleet.start(ours, "n1");
        for (net, mine, theirs) in &pods {
            for (one, other) in [
                (format!("10.{net}.0.1"), format!("10.{net}.0.2")),
                (format!("fd10:{net}::1"), format!("fd10:{net}::2")),
            ] {
                talk(mine, ip(&one), theirs, ip(&other));
                pings(theirs, ip(&one));
            }
        }
        assert!(node.port("vx4", "rx_frames") > 0 && node.port("vx6", "tx_frames") > 0);
        // Both are ordinary ports of one switch: only their VLANs keep them apart.
        pods[0].1.ip("address add 10.9.0.1/24 dev eth0");
        pods[1].2.ip("address add 10.9.0.2/24 dev eth0");
        silence(&pods[0].1, ip("10.9.0.2"));
        assert_eq!(node.ctl("port list").as_array().unwrap().len(), 4);
    });
}

#[test]
fn an_interface_that_exists_is_a_port_when_it_is_there() {
    in_nodes("an_interface_that_exists_is_a_port_when_it_is_there", |lab| {
        let (host, far, near) = (lab.namespace("host"), lab.namespace("far"), lab.namespace("near"));
        let port = pod("near", "n1", &near, "tag = 10", &["10.1.0.1/24", "fd10::1/64"]);
        let fleet = Fleet::new(&format!("[[port]]\nname = \"uplink\"\ntype = \"system\"\ntag = 10\n{port}"));
        let node = fleet.start(&host, "n1");
        let reason = |node: &vswitch_tests::node::Node| node.ctl("port list").to_string();
        assert!(reason(&node).contains("could not open network device uplink (No such device)"));
        for _ in 0..2 {
            host.veth("uplink", &far, "eth0");
            // The same station: nobody is to ask who has its address now.
            far.ip("link set dev eth0 address 02:00:00:00:00:02");
            far.address("eth0", "10.1.0.2/24");
            far.address("eth0", "fd10::2/64");
            reach(&near, ip("10.1.0.2"));
            talk(&near, ip("10.1.0.1"), &far, ip("10.1.0.2"));
            talk(&near, ip("fd10::1"), &far, ip("fd10::2"));
            host.ip("link delete dev uplink");
            until("a word on the interface that went", PATIENCE, || {
                let reason = reason(&node);
                (reason.contains("No such device") || reason.contains("was deleted")).then_some(())
            });
        }
    });
}

#[test]
fn a_host_that_leaves_its_database_for_the_imported_file_talks_on() {
    in_seats("a_host_that_leaves_its_database_for_the_imported_file_talks_on", |lab| {
        let Facing { mut seat, kernel, wire: _wire } = Facing::new(lab, Switch::Ours);
        seat.bridge("br0");
        seat.sh(&format!(
            "ovs-vsctl add-port br0 vx0 tag=7 -- set interface vx0 type=vxlan options:remote_ip={} options:key=42",
            V4[1]
        ));
        seat.sh("ovs-vsctl add-port br0 int0 tag=7 -- set interface int0 type=internal");
        let near = seat.pod(lab, "br0", "pa", "tag=7", &["10.7.0.1/24"]);
        near.ip("link set dev eth0 mtu 1430");
        kernel.ip(&format!("link add name vx type vxlan id 42 remote {} dstport 4789", V4[0]));
        kernel.ip("link set dev vx up");
        let far = kernel_pod(lab, &kernel, "vx", &["10.7.0.2/24"]);
        reach(&near, ip("10.7.0.2"));

        let ctl = program("vswitchctl").unwrap().display().to_string();
        let (file, socket, state) = (seat.file("own.toml"), seat.file("own.sock"), seat.file("own.json"));
        let imported = seat.try_sh(&format!("{ctl} import ovs --db {}", seat.remote()));
        assert_eq!((imported.code, imported.err.as_str()), (0, ""));
        let control = format!("\n[control]\nsocket = {socket:?}\nstate = {state:?}\n");
        std::fs::write(&file, format!("{}{control}", imported.out)).unwrap();
        seat.end_switch("TERM");
        silence(&near, ip("10.7.0.2"));

        let mut command = seat.host().command(program("vswitchd").unwrap());
        let daemon = Daemon::spawn(command.arg("--config").arg(&file));
        drop(daemon.until_connectable(&socket, PATIENCE));
        reach(&near, ip("10.7.0.2"));
        talk(&near, ip("10.7.0.1"), &far, ip("10.7.0.2"));
        seat.host().address("int0", "10.7.0.3/24");
        reach(&far, ip("10.7.0.3"));
        let diff = seat.try_sh(&format!("{ctl} --socket {} diff", socket.display()));
        assert_eq!((diff.code, diff.out.as_str()), (0, ""), "{diff:?}");
    });
}
