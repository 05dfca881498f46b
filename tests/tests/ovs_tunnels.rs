//! Tunnels made with the stock tools between two hosts: the same commands at either switch, and pods that talk.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use vswitch_tests::lab::{Lab, Namespace};
use vswitch_tests::node::{silence, talk};
use vswitch_tests::on_seats;
use vswitch_tests::ovs_seat::{Nodes, Seat, Switch, V4, V6, in_seats, reach};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Tunnels over both families, each with a key of its own, on these hosts: pods on either side talk through each.
fn both_families(lab: &Lab, nodes: &Nodes) {
    nodes.seats.iter().for_each(|seat| seat.bridge("br1"));
    for (net, addresses) in [(4, V4), (6, V6)] {
        let pods = [0, 1].map(|n| {
            let (seat, remote) = (&nodes.seats[n], addresses[1 - n]);
            seat.sh(&format!(
                "ovs-vsctl add-port br1 vx{net} tag={net} -- set interface vx{net} type=vxlan \
                 options:remote_ip={remote} options:key={net}"
            ));
            pod(lab, seat, n, &format!("p{net}"), &format!("tag={net}"), net)
        });
        all_talk(&pods, net);
    }
}

/// A pod of host `n` at `br1`, small enough for a tunnel over IPv6, with the addresses that end in `n` + 1.
fn pod(lab: &Lab, seat: &Seat, n: usize, port: &str, words: &str, net: u8) -> Namespace {
    let host = n + 1;
    let addresses = [format!("10.{net}.0.{host}/24"), format!("fd10:{net}::{host}/64")];
    let addresses = addresses.each_ref().map(String::as_str);
    let pod = seat.pod(lab, "br1", port, words, &addresses);
    pod.ip("link set dev eth0 mtu 1430");
    pod
}

/// Both ways, in both address families.
fn all_talk(pods: &[Namespace; 2], net: u8) {
    for (one, other) in [
        (format!("10.{net}.0.1"), format!("10.{net}.0.2")),
        (format!("fd10:{net}::1"), format!("fd10:{net}::2")),
    ] {
        reach(&pods[0], ip(&other));
        reach(&pods[1], ip(&one));
        talk(&pods[0], ip(&one), &pods[1], ip(&other));
    }
}

fn the_two_commands_of_the_source_join_two_hosts(lab: &Lab, switch: Switch) {
    let nodes = Nodes::new(lab, [switch; 2]);
    nodes.seats.iter().for_each(|seat| seat.bridge("br1"));
    nodes.seats[0]
        .sh("ovs-vsctl add-port br1 vx1 -- set interface vx1 type=vxlan options:remote_ip=192.168.65.116");
    nodes.seats[1]
        .sh("ovs-vsctl add-port br1 vx1 -- set interface vx1 type=vxlan options:remote_ip=192.168.65.112");
    let pods = [0, 1].map(|n| pod(lab, &nodes.seats[n], n, "p1", "", 1));
    all_talk(&pods, 1);
}

fn a_tunnel_over_ipv6_with_a_key_and_a_port_of_its_own_joins_two_hosts(lab: &Lab, switch: Switch) {
    let nodes = Nodes::new(lab, [switch; 2]);
    let pods = [0, 1].map(|n| {
        let seat = &nodes.seats[n];
        seat.bridge("br1");
        let (local, remote) = (V6[n], V6[1 - n]);
        seat.sh(&format!(
            "ovs-vsctl add-port br1 vx6 -- set interface vx6 type=vxlan options:remote_ip={remote} \
             options:local_ip={local} options:key=77 options:dst_port=8472"
        ));
        pod(lab, seat, n, "p1", "", 1)
    });
    all_talk(&pods, 1);
}

fn the_vlans_of_pods_go_through_a_tunnel_and_stay_apart(lab: &Lab, switch: Switch) {
    let nodes = Nodes::new(lab, [switch; 2]);
    let [ten, twenty] = [(10, 1), (20, 2)].map(|(vlan, net)| {
        [0, 1].map(|n| {
            let seat = &nodes.seats[n];
            if vlan == 10 {
                seat.bridge("br1");
                let remote = V4[1 - n];
                seat.sh(&format!(
                    "ovs-vsctl add-port br1 vx1 -- set interface vx1 type=vxlan options:remote_ip={remote}"
                ));
            }
            pod(lab, seat, n, &format!("p{vlan}"), &format!("tag={vlan}"), net)
        })
    });
    // Room for a tag inside.
    for pod in ten.iter().chain(&twenty) {
        pod.ip("link set dev eth0 mtu 1426");
    }
    all_talk(&ten, 1);
    all_talk(&twenty, 2);
    // In the same IP network, but in another VLAN.
    ten[0].ip("address add 10.9.0.1/24 dev eth0");
    twenty[1].ip("address add 10.9.0.2/24 dev eth0");
    silence(&ten[0], ip("10.9.0.2"));
}

fn tunnels_of_one_host_to_another_are_told_apart_by_their_keys(lab: &Lab, switch: Switch) {
    let nodes = Nodes::new(lab, [switch; 2]);
    let pods = |key: u8| {
        [0, 1].map(|n| {
            let seat = &nodes.seats[n];
            if key == 1 {
                seat.bridge("br1");
            }
            let remote = V4[1 - n];
            let vlan = key * 10;
            // The tunnel is an access port: what is inside has no tag.
            seat.sh(&format!(
                "ovs-vsctl add-port br1 vx{key} tag={vlan} -- set interface vx{key} type=vxlan \
                 options:remote_ip={remote} options:key={key}"
            ));
            pod(lab, seat, n, &format!("p{key}"), &format!("tag={vlan}"), key)
        })
    };
    let [one, two] = [1, 2].map(pods);
    all_talk(&one, 1);
    all_talk(&two, 2);
    one[0].ip("address add 10.9.0.1/24 dev eth0");
    two[1].ip("address add 10.9.0.2/24 dev eth0");
    silence(&one[0], ip("10.9.0.2"));
    // One of them goes, the other stays.
    nodes.seats[0].sh("ovs-vsctl del-port br1 vx1");
    silence(&one[0], ip("10.1.0.2"));
    talk(&two[0], ip("10.2.0.1"), &two[1], ip("10.2.0.2"));
}

on_seats! {
    stock: Stock, ours: Ours => {
        the_two_commands_of_the_source_join_two_hosts,
        a_tunnel_over_ipv6_with_a_key_and_a_port_of_its_own_joins_two_hosts,
        the_vlans_of_pods_go_through_a_tunnel_and_stay_apart,
        tunnels_of_one_host_to_another_are_told_apart_by_their_keys,
    }
}

#[test]
fn a_host_of_ours_and_a_stock_one_are_one_ethernet() {
    in_seats("a_host_of_ours_and_a_stock_one_are_one_ethernet", |lab| {
        both_families(lab, &Nodes::new(lab, [Switch::Ours, Switch::Stock]));
    });
}

#[test]
fn the_link_of_the_underlay_may_be_a_port_of_the_switch_itself() {
    in_seats("the_link_of_the_underlay_may_be_a_port_of_the_switch_itself", |lab| {
        both_families(lab, &Nodes::with(lab, [Switch::Ours; 2], [true; 2]));
    });
}
