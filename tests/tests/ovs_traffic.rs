//! What Open vSwitch tries with real traffic in namespaces of its own, told again as scripts with the stock tools: a
//! bridge with one flow of action NORMAL, trunks between hosts, tunnels of the kernel at the other end.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use std::time::Duration;
use vswitch_tests::lab::{Lab, Namespace, Vxlan, tcp_transfer};
use vswitch_tests::node::{silence, talk, udp_echo};
use vswitch_tests::on_seats;
use vswitch_tests::ovs_seat::{Facing, Seat, Switch, V4, V6, reach};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Bridge `br0` with its one flow, and two pods there.
fn two_ports(lab: &Lab, switch: Switch) -> (Seat, [Namespace; 2]) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    seat.sh("ovs-ofctl add-flow br0 actions=normal");
    let pods = ["p0", "p1"].map(|port| {
        let n = if port == "p0" { 1 } else { 2 };
        let addresses = [format!("10.1.1.{n}/24"), format!("fc00::{n}/96")];
        seat.pod(lab, "br0", port, "", &addresses.each_ref().map(String::as_str))
    });
    (seat, pods)
}

fn ping_and_a_transfer_between_two_ports(lab: &Lab, switch: Switch) {
    let (_seat, [a, b]) = two_ports(lab, switch);
    for (one, other) in [("10.1.1.1", "10.1.1.2"), ("fc00::1", "fc00::2")] {
        reach(&a, ip(other));
        talk(&a, ip(one), &b, ip(other));
    }
    let took = tcp_transfer(&a, &b, ip("10.1.1.2"), 16 << 20, Duration::from_secs(30)).unwrap();
    assert_eq!(took.bytes, 16 << 20);
}

/// Two hosts joined by a veth that is a port of both switches, called `trunk` and added with these words, and pods on
/// ports `p10` and `p20` of each, added with these.
fn by_a_trunk(
    lab: &Lab,
    switch: Switch,
    trunk: &str,
    ten: &str,
    twenty: &str,
) -> ([Seat; 2], [[Namespace; 2]; 2]) {
    let seats = ["g", "h"].map(|name| {
        let seat = Seat::new(lab, name, switch);
        seat.sh("ovs-vsctl set Open_vSwitch . other_config:vlan-limit=0");
        seat.bridge("br0");
        seat
    });
    seats[0].host().veth("trunk", seats[1].host(), "trunk");
    let pods = [0, 1].map(|n| {
        let seat = &seats[n];
        if switch == Switch::Stock {
            seat.host().ethtool("trunk", "tx off");
        }
        seat.sh(&format!("ovs-vsctl add-port br0 trunk {trunk}"));
        let host = n + 1;
        [("p10", ten, 10), ("p20", twenty, 20)].map(|(port, words, net)| {
            let addresses = [
                format!("10.{net}.0.{host}/24"),
                format!("fd10:{net}::{host}/64"),
                format!("10.9.{net}.{host}/16"),
            ];
            let pod = seat.pod(lab, "br0", port, words, &addresses.each_ref().map(String::as_str));
            pod.ip("link set dev eth0 mtu 1492");
            pod
        })
    });
    seats.iter().for_each(Seat::settle);
    (seats, pods)
}

/// The pods of both hosts that are in one VLAN talk, and those of different ones do not.
fn vlans_are_apart(pods: &[[Namespace; 2]; 2]) {
    for (at, net) in [(0, 10), (1, 20)] {
        for (one, other) in [
            (format!("10.{net}.0.1"), format!("10.{net}.0.2")),
            (format!("fd10:{net}::1"), format!("fd10:{net}::2")),
        ] {
            reach(&pods[0][at], ip(&other));
            talk(&pods[0][at], ip(&one), &pods[1][at], ip(&other));
        }
    }
    // In one IP network, all four of them.
    silence(&pods[0][0], ip("10.9.20.1"));
    silence(&pods[0][0], ip("10.9.20.2"));
}

fn ping_between_hosts_on_vlans_of_a_trunk(lab: &Lab, switch: Switch) {
    let (seats, pods) = by_a_trunk(lab, switch, "", "tag=10", "tag=20");
    vlans_are_apart(&pods);
    // Only what the trunk lists goes over it.
    seats[0].sh("ovs-vsctl set port trunk trunks=20,30");
    seats[0].settle();
    silence(&pods[0][0], ip("10.10.0.2"));
    reach(&pods[0][1], ip("10.20.0.2"));
}

fn ping_between_hosts_on_the_native_vlan_of_a_trunk(lab: &Lab, switch: Switch) {
    let (_seats, pods) =
        by_a_trunk(lab, switch, "vlan_mode=native-untagged tag=10 trunks=20", "tag=10", "tag=20");
    vlans_are_apart(&pods);
}

fn ping_between_hosts_on_service_vlans(lab: &Lab, switch: Switch) {
    let customer = |vlan| format!("vlan_mode=dot1q-tunnel tag={vlan}");
    let (_seats, pods) = by_a_trunk(lab, switch, "trunks=10,20", &customer(10), &customer(20));
    vlans_are_apart(&pods);
}

fn traffic_through_a_cable_between_two_bridges(lab: &Lab, switch: Switch) {
    let (seat, [a, _b]) = two_ports(lab, switch);
    seat.bridge("br1");
    seat.sh("ovs-vsctl add-port br0 patch0 -- set interface patch0 type=patch options:peer=patch1
         ovs-vsctl add-port br1 patch1 -- set interface patch1 type=patch options:peer=patch0");
    let c = seat.pod(lab, "br1", "p2", "", &["10.1.1.3/24", "fc00::3/96"]);
    for (one, other) in [("10.1.1.1", "10.1.1.3"), ("fc00::1", "fc00::3")] {
        reach(&a, ip(other));
        talk(&a, ip(one), &c, ip(other));
    }
}

fn flows_that_drop_and_pass_what_they_match(lab: &Lab, switch: Switch) {
    let (seat, [a, b]) = two_ports(lab, switch);
    reach(&a, ip("10.1.1.2"));
    seat.sh(
        "ovs-vsctl set interface p0 ofport_request=1 -- set interface p1 ofport_request=2
         printf 'priority=10,in_port=1,dl_type=0x0800,actions=drop\\npriority=0,actions=normal\\n' >$OVS_RUNDIR/flows
         ovs-ofctl replace-flows br0 $OVS_RUNDIR/flows",
    );
    seat.settle();
    // IPv4 is dropped, IPv6 goes on.
    silence(&a, ip("10.1.1.2"));
    reach(&a, ip("fc00::2"));
    seat.sh("ovs-ofctl del-flows br0 in_port=1");
    seat.settle();
    reach(&a, ip("10.1.1.2"));
    udp_echo(&a, &b, ip("10.1.1.2"));
    assert!(seat.sh("ovs-ofctl dump-flows br0").contains("priority=0 actions=NORMAL"));
}

/// Ping and TCP to an interface of a kernel's tunnel.
fn kernel_tunnel(lab: &Lab, switch: Switch, local: &str, remote: &str, more: &str) {
    let facing = Facing::new(lab, switch);
    let seat = &facing.seat;
    seat.bridge("br0");
    seat.sh(&format!(
        "ovs-vsctl add-port br0 at_vxlan0 -- set interface at_vxlan0 type=vxlan options:remote_ip={remote} \
         options:key=100"
    ));
    let addresses = ["10.1.1.100/24", "fc00::100/96"];
    let pod = seat.pod(lab, "br0", "p0", "", &addresses);
    pod.ip("link set dev eth0 mtu 1426");
    let spec = Vxlan { name: "vx", vni: 100, local: ip(remote), remote: ip(local), port: 4789, more };
    facing.kernel.vxlan(&spec);
    facing.kernel.ip("link set dev vx mtu 1426");
    facing.kernel.address("vx", "10.1.1.1/24");
    facing.kernel.address("vx", "fc00::1/96");
    for (one, other) in [("10.1.1.100", "10.1.1.1"), ("fc00::100", "fc00::1")] {
        reach(&pod, ip(other));
        talk(&pod, ip(one), &facing.kernel, ip(other));
    }
}

fn ping_over_a_vxlan_tunnel(lab: &Lab, switch: Switch) {
    kernel_tunnel(lab, switch, V4[0], V4[1], "");
}

fn ping_over_a_vxlan_tunnel_on_ipv6(lab: &Lab, switch: Switch) {
    kernel_tunnel(lab, switch, V6[0], V6[1], "udp6zerocsumrx");
}

fn a_mirror_sees_the_traffic_of_others(lab: &Lab, switch: Switch) {
    let (seat, [a, _b]) = two_ports(lab, switch);
    let (_pod, watcher) = seat.raw_pod(lab, "br0", "p2", "");
    seat.sh("ovs-vsctl set bridge br0 mirrors=@m -- --id=@p0 get port p0 -- --id=@p2 get port p2 \
         -- --id=@m create mirror name=m select_src_port=@p0 select_dst_port=@p0 output_port=@p2");
    seat.settle();
    reach(&a, ip("10.1.1.2"));
    drop(watcher.drain());
    let ping = a.ping(ip("10.1.1.2"), 56, 3);
    assert_eq!(ping.received, 3, "{}", ping.text);
    // ICMP echo requests and replies, whole.
    let mut seen = [0, 0];
    while let Some(frame) = watcher.receive(Duration::from_millis(500)) {
        if frame[12..14] == [8, 0] && frame[23] == 1 {
            match frame[34] {
                8 => seen[0] += 1,
                0 => seen[1] += 1,
                other => panic!("ICMP type {other}"),
            }
        }
    }
    assert_eq!(seen, [3, 3]);
}

on_seats! {
    stock: Stock, ours: Ours => {
        ping_and_a_transfer_between_two_ports,
        traffic_through_a_cable_between_two_bridges,
        flows_that_drop_and_pass_what_they_match,
        ping_between_hosts_on_vlans_of_a_trunk,
        ping_between_hosts_on_the_native_vlan_of_a_trunk,
        ping_between_hosts_on_service_vlans,
        ping_over_a_vxlan_tunnel,
        ping_over_a_vxlan_tunnel_on_ipv6,
        a_mirror_sees_the_traffic_of_others,
    }
}
