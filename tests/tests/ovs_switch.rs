//! One host, its bridges and ports made with the stock tools: at either switch the same frames come out.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use vswitch_core::wire::ethernet::Mac;
use vswitch_tests::frames::{Frame, ctag, stag, station};
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::node::{PATIENCE, silence, talk};
use vswitch_tests::on_seats;
use vswitch_tests::ovs_seat::{Seat, Stage, Switch, in_seats, reach};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A broadcast of station `from`.
fn broadcast(from: u32) -> Frame {
    Frame::new(Mac::BROADCAST, station(from))
}

fn ports_of_a_bridge_talk_and_so_does_the_host(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let a = seat.pod(lab, "br0", "pa", "", &["10.1.1.1/24", "fd10::1/64"]);
    let b = seat.pod(lab, "br0", "pb", "", &["10.1.1.2/24", "fd10::2/64"]);
    for (one, other) in [("10.1.1.1", "10.1.1.2"), ("fd10::1", "fd10::2")] {
        reach(&a, ip(other));
        talk(&a, ip(one), &b, ip(other));
    }
    // The bridge's own port is the host's.
    seat.host().address("br0", "10.1.1.3/24");
    reach(&a, ip("10.1.1.3"));
    // And a further one, in a VLAN.
    seat.sh("ovs-vsctl add-port br0 int0 tag=7 -- set interface int0 type=internal");
    seat.host().address("int0", "10.7.0.3/24");
    let c = seat.pod(lab, "br0", "pc", "tag=7", &["10.7.0.1/24", "10.1.1.9/24"]);
    reach(&c, ip("10.7.0.3"));
    silence(&c, ip("10.1.1.3"));
    // A port that goes takes its pod off the bridge, and one that comes back brings it.
    seat.sh("ovs-vsctl del-port pb");
    silence(&a, ip("10.1.1.2"));
    seat.sh("ovs-vsctl add-port br0 pb");
    reach(&a, ip("10.1.1.2"));
}

fn the_bridges_own_port_takes_mac_address_and_mtu_of_its_interfaces(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let far = lab.namespace("far");
    for (n, mtu) in [(9, 1400), (5, 1450)] {
        seat.host().veth(&format!("v{n}"), &far, &format!("w{n}"));
        seat.host().ip(&format!("link set dev v{n} address 00:16:3e:00:00:0{n} mtu {mtu}"));
        seat.sh(&format!("ovs-vsctl add-port br0 v{n}"));
    }
    // One of a locally administered address, as pods have them, counts for nothing.
    seat.host().veth("v0", &far, "w0");
    seat.host().ip("link set dev v0 address 02:00:00:00:00:01");
    seat.sh("ovs-vsctl add-port br0 v0");
    let least = "'mac_in_use=\"00:16:3e:00:00:05\"' mtu=1400";
    seat.sh(&format!("ovs-vsctl --timeout=20 wait-until interface br0 {least}"));
    seat.sh("ip link show dev br0 | grep -q 'mtu 1400' && ip link show dev br0 | grep -q 00:16:3e:00:00:05");
    seat.sh("ovs-vsctl --timeout=20 wait-until bridge br0 'datapath_id=\"000000163e000005\"'");
    // What is asked for is held.
    seat.sh("ovs-vsctl set interface br0 mtu_request=1300");
    seat.sh("ovs-vsctl --timeout=20 wait-until interface br0 mtu=1300");
    seat.host().ip("link set dev br0 mtu 1250");
    until("the MTU that was asked for", PATIENCE, || {
        seat.sh("cat /sys/class/net/br0/mtu").starts_with("1300").then_some(())
    });
    seat.sh("ovs-vsctl del-port v5 -- set bridge br0 other_config:hwaddr=02:00:00:00:00:77");
    seat.sh("ovs-vsctl --timeout=20 wait-until interface br0 'mac_in_use=\"02:00:00:00:00:77\"'");
}

fn internal_ports_moved_into_namespaces_are_pods(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let pods = [1, 2].map(|n| {
        let pod = lab.namespace(&format!("pod{n}"));
        let port = format!("int{n}");
        seat.sh(&format!(
            "ovs-vsctl add-port br0 {port} tag=10 -- set interface {port} type=internal
             ip link set dev {port} netns {}",
            pod.name()
        ));
        pod.address(&port, &format!("10.1.1.{n}/24"));
        pod.address(&port, &format!("fd10::{n}/64"));
        if switch == Switch::Stock {
            pod.ethtool(&port, "tx off");
        }
        pod
    });
    for (one, other) in [("10.1.1.1", "10.1.1.2"), ("fd10::1", "fd10::2")] {
        reach(&pods[0], ip(other));
        talk(&pods[0], ip(one), &pods[1], ip(other));
    }
    // A change elsewhere leaves them where they are.
    seat.sh("ovs-vsctl add-port br0 int3 -- set interface int3 type=internal");
    seat.sh("ovs-vsctl set port int2 tag=20");
    seat.settle();
    silence(&pods[0], ip("10.1.1.2"));
    seat.sh("ovs-vsctl set port int2 tag=10");
    seat.settle();
    reach(&pods[0], ip("10.1.1.2"));
    seat.sh("ovs-vsctl del-port int2");
    silence(&pods[0], ip("10.1.1.2"));
}

fn vlans_of_access_and_trunk_ports_are_dressed_as_the_columns_say(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let mut stage = Stage::default();
    for (port, words) in [
        ("a10", "tag=10"),
        ("b10", "tag=10"),
        ("c20", "tag=20"),
        ("trunk", ""),
        ("only20", "trunks=20"),
        ("nu10", "vlan_mode=native-untagged tag=10 trunks=20"),
        ("nt10", "vlan_mode=native-tagged tag=10"),
        ("prio", "tag=10 other_config:priority-tags=if-nonzero"),
    ] {
        stage.port(lab, &seat, "br0", port, words);
    }
    seat.settle();
    let plain = broadcast(1);
    let (ten, twenty) = (broadcast(1).tag(ctag(10, 0)), broadcast(1).tag(ctag(20, 0)));
    stage.expect(
        "a10",
        &plain,
        &[
            ("b10", plain.clone()),
            ("trunk", ten.clone()),
            ("nu10", plain.clone()),
            ("nt10", ten.clone()),
            ("prio", plain.clone()),
        ],
    );
    stage.expect(
        "nu10",
        &twenty,
        &[
            ("c20", plain.clone()),
            ("trunk", twenty.clone()),
            ("only20", twenty.clone()),
            ("nt10", twenty.clone()),
        ],
    );
    stage.expect(
        "nt10",
        &plain.clone(),
        &[
            ("a10", plain.clone()),
            ("b10", plain.clone()),
            ("trunk", ten.clone()),
            ("nu10", plain.clone()),
            ("prio", plain.clone()),
        ],
    );
    // A priority survives, an access port takes no tag, and a trunk only those it lists.
    stage.expect(
        "trunk",
        &broadcast(2).tag(ctag(20, 5)),
        &[
            ("c20", broadcast(2)),
            ("only20", broadcast(2).tag(ctag(20, 5))),
            ("nu10", broadcast(2).tag(ctag(20, 5))),
            ("nt10", broadcast(2).tag(ctag(20, 5))),
        ],
    );
    // A port that wants priorities shows those that are not zero.
    stage.expect(
        "trunk",
        &broadcast(4).tag(ctag(10, 5)),
        &[
            ("a10", broadcast(4)),
            ("b10", broadcast(4)),
            ("nu10", broadcast(4)),
            ("nt10", broadcast(4).tag(ctag(10, 5))),
            ("prio", broadcast(4).tag(ctag(0, 5))),
        ],
    );
    stage.expect("a10", &ten, &[]);
    stage.expect("only20", &ten, &[]);
    stage.expect("only20", &plain, &[]);
    // A station that is known is sent to alone.
    stage.expect(
        "b10",
        &Frame::new(station(1), station(3)),
        &[("nt10", Frame::new(station(1), station(3)).tag(ctag(10, 0)))],
    );
}

fn a_dot1q_tunnel_wraps_what_customers_send(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.sh("ovs-vsctl set Open_vSwitch . other_config:vlan-limit=0");
    seat.bridge("br0");
    let mut stage = Stage::default();
    for (port, words) in [
        ("cust", "vlan_mode=dot1q-tunnel tag=100"),
        ("some", "vlan_mode=dot1q-tunnel tag=100 cvlans=5,6"),
        ("qtag", "vlan_mode=dot1q-tunnel tag=100 other_config:qinq-ethtype=802.1q"),
        ("core", ""),
    ] {
        stage.port(lab, &seat, "br0", port, words);
    }
    seat.settle();
    let five = broadcast(1).tags(&[ctag(5, 0)]);
    let wrapped = broadcast(1).tags(&[stag(100, 0), ctag(5, 0)]);
    stage.expect("cust", &five, &[("some", five.clone()), ("qtag", five.clone()), ("core", wrapped.clone())]);
    stage.expect("core", &wrapped, &[("cust", five.clone()), ("some", five.clone()), ("qtag", five)]);
    let nine = broadcast(2).tags(&[ctag(9, 0)]);
    stage.expect("some", &nine, &[]);
    stage.expect(
        "cust",
        &nine,
        &[("qtag", nine.clone()), ("core", broadcast(2).tags(&[stag(100, 0), ctag(9, 0)]))],
    );
}

fn bridges_are_apart_until_a_patch_joins_them(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    seat.bridge("br1");
    let mut stage = Stage::default();
    for (bridge, port, words) in
        [("br0", "a", ""), ("br0", "a10", "tag=10"), ("br1", "b", ""), ("br1", "b10", "tag=10")]
    {
        stage.port(lab, &seat, bridge, port, words);
    }
    seat.settle();
    let plain = broadcast(1);
    let ten = broadcast(1).tag(ctag(10, 0));
    stage.expect("a10", &plain, &[("a", ten.clone())]);
    stage.expect("b10", &plain, &[("b", ten.clone())]);
    seat.sh("ovs-vsctl add-port br0 patch0 -- set interface patch0 type=patch options:peer=patch1 \
         -- add-port br1 patch1 -- set interface patch1 type=patch options:peer=patch0");
    seat.sh("ovs-appctl fdb/flush br0; ovs-appctl fdb/flush br1");
    seat.settle();
    stage.expect("a10", &plain, &[("a", ten.clone()), ("b", ten.clone()), ("b10", plain.clone())]);
    // What br1 learned at its end of the cable it finds again.
    let answer = Frame::new(station(1), station(2));
    stage.expect("b10", &answer, &[("a10", answer.clone())]);
    // The cable may be a trunk of some VLANs.
    seat.sh("ovs-vsctl set port patch0 trunks=20");
    seat.settle();
    stage.expect("a10", &plain, &[("a", ten.clone())]);
    seat.sh("ovs-vsctl del-port br1 patch1; ovs-vsctl clear port patch0 trunks");
    seat.settle();
    stage.expect("a10", &plain, &[("a", ten)]);
}

fn mirrors_copy_what_they_select(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let mut stage = Stage::default();
    for (port, words) in [("a", "tag=10"), ("b", "tag=10"), ("c", "tag=20"), ("d", "tag=20"), ("out", "")] {
        stage.port(lab, &seat, "br0", port, words);
    }
    seat.settle();
    let (one, two) = (broadcast(1), broadcast(2));
    let tagged = |frame: &Frame, vlan: u16| frame.clone().tag(ctag(vlan, 0));
    stage.expect("a", &one, &[("b", one.clone()), ("out", tagged(&one, 10))]);
    // With a mirror the output port is no longer one of the bridge: it has copies and nothing else.
    seat.sh(
        "ovs-vsctl -- --id=@out get port out -- --id=@m create mirror name=m0 select_all=true output-port=@out \
         -- set bridge br0 mirrors=@m",
    );
    seat.settle();
    stage.expect("a", &one, &[("b", one.clone()), ("out", tagged(&one, 10))]);
    stage.expect("c", &two, &[("d", two.clone()), ("out", tagged(&two, 20))]);
    let answer = Frame::new(station(1), station(3));
    stage.expect("b", &answer, &[("a", answer.clone()), ("out", tagged(&answer, 10))]);
    stage.expect("out", &tagged(&broadcast(4), 10), &[]);
    // Only what comes from a, and what goes to d.
    seat.sh("ovs-vsctl -- --id=@a get port a -- --id=@d get port d \
         -- set mirror m0 select_all=false select_src_port=@a select_dst_port=@d");
    seat.settle();
    stage.expect("a", &one, &[("b", one.clone()), ("out", tagged(&one, 10))]);
    stage.expect("b", &answer, &[("a", answer.clone())]);
    stage.expect("c", &two, &[("d", two.clone()), ("out", tagged(&two, 20))]);
    // Only of a VLAN.
    seat.sh("ovs-vsctl set mirror m0 select_src_port=[] select_dst_port=[] select_all=true select_vlan=20");
    seat.settle();
    stage.expect("a", &one, &[("b", one.clone())]);
    stage.expect("c", &two, &[("d", two.clone()), ("out", tagged(&two, 20))]);
    // Into a VLAN.
    seat.sh("ovs-vsctl set mirror m0 output_port=[] output_vlan=99 select_vlan=10");
    stage.port(lab, &seat, "br0", "rspan", "tag=99");
    seat.settle();
    stage.expect(
        "a",
        &one,
        &[("b", one.clone()), ("rspan", one.clone()), ("out", tagged(&one, 10)), ("out", tagged(&one, 99))],
    );
    seat.sh("ovs-vsctl clear bridge br0 mirrors");
    seat.settle();
    stage.expect("a", &one, &[("b", one.clone()), ("out", tagged(&one, 10))]);
}

fn a_secure_bridge_without_flows_carries_nothing(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let mut stage = Stage::default();
    for port in ["a", "b", "c"] {
        stage.port(lab, &seat, "br0", port, "");
    }
    seat.settle();
    let one = broadcast(1);
    let all = [("b", one.clone()), ("c", one.clone())];
    stage.expect("a", &one, &all);
    seat.sh("ovs-vsctl set-fail-mode br0 secure; ovs-ofctl del-flows br0");
    seat.settle();
    stage.expect("a", &one, &[]);
    seat.sh("ovs-ofctl add-flow br0 actions=normal");
    seat.settle();
    stage.expect("a", &one, &all);
    seat.sh("ovs-ofctl del-flows br0");
    seat.settle();
    stage.expect("a", &one, &[]);
}

fn a_secure_bridge_that_nobody_gave_a_flow_carries_nothing(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.sh("ovs-vsctl add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure");
    let mut stage = Stage::default();
    for port in ["a", "b"] {
        stage.port(lab, &seat, "br0", port, "");
    }
    seat.settle();
    stage.expect("a", &broadcast(1), &[]);
    assert!(!seat.sh("ovs-appctl bridge/dump-flows br0").contains("NORMAL"));
    seat.sh("ovs-vsctl set-fail-mode br0 standalone");
    seat.settle();
    stage.expect("a", &broadcast(1), &[("b", broadcast(1))]);
}

fn flows_of_ovs_ofctl_say_where_frames_go(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let mut stage = Stage::default();
    for (n, port) in (1..).zip(["a", "b", "c"]) {
        stage.port(lab, &seat, "br0", port, &format!("-- set interface {port} ofport_request={n}"));
    }
    let one = broadcast(1);
    let ten = broadcast(1).tag(ctag(10, 0));
    let both = |frame: &Frame| [("b", frame.clone()), ("c", frame.clone())];
    seat.settle();
    stage.expect("a", &one, &both(&one));
    seat.sh("ovs-ofctl add-flow br0 priority=10,in_port=1,actions=output:3");
    seat.settle();
    stage.expect("a", &one, &[("c", one.clone())]);
    stage.expect("b", &broadcast(2), &[("a", broadcast(2)), ("c", broadcast(2))]);
    seat.sh("ovs-ofctl add-flow br0 priority=20,dl_vlan=10,actions=drop");
    seat.settle();
    stage.expect("a", &ten, &[]);
    stage.expect("a", &one, &[("c", one.clone())]);
    seat.sh("ovs-ofctl add-flow br0 priority=30,in_port=1,actions=in_port,output:2");
    seat.settle();
    stage.expect("a", &one, &[("a", one.clone()), ("b", one.clone())]);
    seat.sh("ovs-ofctl --strict del-flows br0 priority=30,in_port=1");
    seat.sh("ovs-ofctl mod-flows br0 in_port=1,actions=flood");
    seat.settle();
    stage.expect("a", &one, &both(&one));
    seat.sh("ovs-ofctl del-flows br0; ovs-ofctl add-flow br0 dl_type=0xabcd,actions=normal");
    seat.settle();
    stage.expect("a", &one, &both(&one));
    stage.expect("a", &broadcast(1).payload(0xabce, &[0; 50]), &[]);
}

/// Addresses of protocols between bridges: IEEE 802.1's, Cisco's and Extreme's.
const PROTOCOLS: &[u64] = &[
    0x0180_c200_0000,
    0x0180_c200_0002,
    0x0180_c200_000e,
    0x0180_c200_000f,
    0x0100_0c00_0000,
    0x0100_0ccc_cccc,
    0x0100_0ccc_cccd,
    0x0100_0ccd_cdcd,
    0x0100_0ccc_ccc0,
    0x0100_0ccc_ccc7,
    0x00e0_2b00_0000,
    0x00e0_2b00_0004,
    0x00e0_2b00_0006,
];

/// Others beside them.
const NO_PROTOCOLS: &[u64] = &[
    0x0180_c200_0010,
    0x0100_0c00_0001,
    0x0100_0ccc_ccce,
    0x0100_0ccd_cdcc,
    0x0100_0ccc_ccc8,
    0x00e0_2b00_0001,
    0x00e0_2b00_0005,
    0x00e0_2b00_0007,
];

fn bridge_protocols_stay_local_unless_the_bridge_forwards_them(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let mut stage = Stage::default();
    for port in ["a", "b"] {
        stage.port(lab, &seat, "br0", port, "");
    }
    seat.settle();
    let to = |dst| Frame::new(Mac::from_u64(dst), station(1));
    for dst in PROTOCOLS {
        stage.expect("a", &to(*dst), &[]);
    }
    for dst in NO_PROTOCOLS {
        stage.expect("a", &to(*dst), &[("b", to(*dst))]);
    }
    seat.sh("ovs-vsctl set bridge br0 other_config:forward-bpdu=true");
    seat.settle();
    for dst in PROTOCOLS {
        stage.expect("a", &to(*dst), &[("b", to(*dst))]);
    }
}

fn a_protected_port_talks_to_others_only(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let mut stage = Stage::default();
    for (port, words) in [("a", "protected=true"), ("b", "protected=true"), ("c", "")] {
        stage.port(lab, &seat, "br0", port, words);
    }
    seat.settle();
    let one = broadcast(1);
    stage.expect("a", &one, &[("c", one.clone())]);
    stage.expect("c", &broadcast(3), &[("a", broadcast(3)), ("b", broadcast(3))]);
}

fn a_port_that_goes_to_another_bridge_takes_its_stations_along(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    seat.bridge("br1");
    let mut stage = Stage::default();
    for (port, bridge) in [("a", "br0"), ("b", "br0"), ("c", "br0"), ("d", "br1")] {
        stage.port(lab, &seat, bridge, port, "");
    }
    seat.settle();
    stage.expect("b", &broadcast(2), &[("a", broadcast(2)), ("c", broadcast(2))]);
    let to_two = Frame::new(station(2), station(1));
    stage.expect("a", &to_two, &[("b", to_two.clone())]);
    seat.sh("ovs-vsctl del-port b -- add-port br1 b");
    seat.settle();
    stage.expect("a", &to_two, &[("c", to_two.clone())]);
    stage.expect("b", &broadcast(2), &[("d", broadcast(2))]);
}

fn a_port_that_goes_over_a_patch_takes_its_stations_along(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    seat.bridge("br1");
    seat.sh("ovs-vsctl add-port br0 pa0 -- set interface pa0 type=patch options:peer=pa1 \
             -- add-port br1 pa1 -- set interface pa1 type=patch options:peer=pa0");
    let mut stage = Stage::default();
    for (port, bridge) in [("a", "br0"), ("b", "br1"), ("c", "br0"), ("d", "br1")] {
        stage.port(lab, &seat, bridge, port, "");
    }
    seat.settle();
    let all = |from: u32, ports: [&'static str; 3]| ports.map(|port| (port, broadcast(from)));
    stage.expect("b", &broadcast(2), &all(2, ["a", "c", "d"]));
    let to_two = Frame::new(station(2), station(1));
    stage.expect("a", &to_two, &[("b", to_two.clone())]);
    seat.sh("ovs-vsctl del-port b -- add-port br0 b");
    seat.settle();
    // Nobody knows where it is until it speaks.
    let flooded = ["b", "c", "d"].map(|port| (port, to_two.clone()));
    stage.expect("a", &to_two, &flooded);
    stage.expect("b", &broadcast(2), &all(2, ["a", "c", "d"]));
    let to_two = Frame::new(station(2), station(4));
    stage.expect("d", &to_two, &[("b", to_two.clone())]);
}

fn a_port_is_saved_from_a_bridge_that_goes(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    seat.bridge("br1");
    let mut stage = Stage::default();
    stage.port(lab, &seat, "br0", "a", "");
    stage.port(lab, &seat, "br1", "b", "");
    seat.sh("ovs-vsctl add-port br1 int0 -- set interface int0 type=internal");
    seat.sh(
        "ovs-vsctl del-br br1 -- add-port br0 b -- add-port br0 int0 -- set interface int0 type=internal",
    );
    seat.settle();
    assert!(seat.is_alive());
    stage.expect("a", &broadcast(1), &[("b", broadcast(1))]);
}

fn static_stations_are_sent_to_and_never_move(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let mut stage = Stage::default();
    for port in ["a", "b", "c"] {
        stage.port(lab, &seat, "br0", port, "tag=10");
    }
    seat.sh("ovs-appctl fdb/add br0 b 10 02:00:00:00:00:05");
    seat.settle();
    let to_five = Frame::new(station(5), station(1));
    stage.expect("a", &to_five, &[("b", to_five.clone())]);
    let five = broadcast(5);
    stage.expect("c", &five, &[("a", five.clone()), ("b", five.clone())]);
    stage.expect("a", &to_five, &[("b", to_five.clone())]);
    seat.sh("ovs-appctl fdb/del br0 10 02:00:00:00:00:05");
    seat.settle();
    stage.expect("a", &to_five, &[("b", to_five.clone()), ("c", to_five.clone())]);
}

on_seats! {
    stock: Stock, ours: Ours => {
        ports_of_a_bridge_talk_and_so_does_the_host,
        internal_ports_moved_into_namespaces_are_pods,
        the_bridges_own_port_takes_mac_address_and_mtu_of_its_interfaces,
        vlans_of_access_and_trunk_ports_are_dressed_as_the_columns_say,
        a_dot1q_tunnel_wraps_what_customers_send,
        bridges_are_apart_until_a_patch_joins_them,
        mirrors_copy_what_they_select,
        a_secure_bridge_that_nobody_gave_a_flow_carries_nothing,
        a_secure_bridge_without_flows_carries_nothing,
        flows_of_ovs_ofctl_say_where_frames_go,
        bridge_protocols_stay_local_unless_the_bridge_forwards_them,
        a_protected_port_talks_to_others_only,
        a_port_that_goes_to_another_bridge_takes_its_stations_along,
        a_port_that_goes_over_a_patch_takes_its_stations_along,
        a_port_is_saved_from_a_bridge_that_goes,
        static_stations_are_sent_to_and_never_move,
    }
}

/// Stock Open vSwitch in userspace leaves this to the host's packet rules.
#[test]
fn the_hosts_own_stack_does_not_hear_by_an_interface_what_it_hears_by_the_bridge() {
    in_seats("the_hosts_own_stack_does_not_hear_by_an_interface_what_it_hears_by_the_bridge", |lab| {
        let mut seat = Seat::new(lab, "h", Switch::Ours);
        seat.bridge("br0");
        seat.host().address("br0", "10.1.1.3/24");
        let a = seat.pod(lab, "br0", "pa", "", &["10.1.1.1/24"]);
        let own = seat.sh("cat /sys/class/net/br0/address");
        let own = own.trim().to_owned();
        let once = |from: &Namespace| {
            reach(from, ip("10.1.1.3"));
            let said = from.run("ping -n -c 3 -i 0.2 10.1.1.3");
            assert!(said.contains("3 received") && !said.contains("DUP!"), "{said}");
            let owner = from.run("ip neigh show 10.1.1.3");
            assert!(owner.contains(&own), "{owner}");
        };
        once(&a);
        // An interface that is made anew under its name, with the same station behind it: the host asks nobody anew.
        let station = a.run("cat /sys/class/net/eth0/address");
        seat.host().ip("link delete dev pa");
        seat.host().veth("pa", &a, "eth0");
        a.ip(&format!("link set dev eth0 address {}", station.trim()));
        a.address("eth0", "10.1.1.1/24");
        once(&a);
        assert!(seat.sh("nft list tables").contains("netdev vswitch-"));
        seat.end_switch("KILL");
        assert_eq!(seat.sh("nft list tables"), "");
    });
}
