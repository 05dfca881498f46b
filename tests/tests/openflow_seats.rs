//! Flows of `ovs-ofctl` in scripts, the same typed at stock Open vSwitch and at our switch: cables between bridges, the
//! host, ports that come later, `fail_mode`, counts and timeouts.
//!
//! Not here: which frames a flow is for (see `openflow_frames.rs`), and what ovs-ofctl prints (see `openflow.rs`).
#![allow(clippy::unwrap_used, reason = "a test")]

use vswitch_core::wire::ethernet::Mac;
use vswitch_tests::daemon::Raw;
use vswitch_tests::frames::{Frame, ctag, station};
use vswitch_tests::lab::{Lab, until};
use vswitch_tests::node::PATIENCE;
use vswitch_tests::on_seats;
use vswitch_tests::ovs_seat::{Seat, Stage, Switch};

fn broadcast(from: u32) -> Frame {
    Frame::new(Mac::BROADCAST, station(from))
}

/// Silent pods at these ports of br0, numbered from 1.
fn stage(lab: &Lab, seat: &Seat, ports: &[&str]) -> Stage {
    let mut stage = Stage::default();
    for (n, port) in (1..).zip(ports) {
        stage.port(lab, seat, "br0", port, &format!("-- set interface {port} ofport_request={n}"));
    }
    seat.settle();
    stage
}

/// The flows of br0 as they are, without counts.
fn flows(seat: &Seat) -> Vec<String> {
    let text = seat.sh("ovs-ofctl --no-stats dump-flows br0");
    // Open vSwitch speaks another dialect to its own tool, and begins with a line that names it.
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.contains("reply")).collect()
}

fn flows_lead_over_cables_into_tags_and_to_the_host(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    seat.bridge("br1");
    let mut stage = stage(lab, &seat, &["a", "b"]);
    stage.port(lab, &seat, "br1", "c", "tag=10 -- set interface c ofport_request=1");
    stage.port(lab, &seat, "br1", "d", "tag=20 -- set interface d ofport_request=2");
    seat.sh("ovs-vsctl add-port br0 patch0 \
             -- set interface patch0 type=patch options:peer=patch1 ofport_request=9 \
             -- add-port br1 patch1 \
             -- set interface patch1 type=patch options:peer=patch0 ofport_request=9");
    seat.host().ip("link set dev br0 up");
    let host = seat.host().inside(|| Raw::open("br0"));
    seat.sh("ovs-ofctl add-flow br0 priority=5,in_port=1,actions=output:9");
    seat.sh("ovs-ofctl add-flow br0 priority=5,in_port=9,actions=output:b,output:a");
    seat.sh("ovs-ofctl del-flows br1");
    seat.sh("ovs-ofctl add-flow br1 in_port=9,actions=output:c,output:d");
    seat.sh("ovs-ofctl add-flow br1 in_port=1,actions=output:9");
    seat.settle();
    // As it arrived, whatever the tags of the ports: only NORMAL minds them.
    let ten = broadcast(1).tag(ctag(10, 3));
    stage.expect("a", &ten, &[("c", ten.clone()), ("d", ten.clone())]);
    let plain = broadcast(2);
    stage.expect("c", &plain, &[("a", plain.clone()), ("b", plain.clone())]);
    stage.expect("d", &plain, &[]);
    seat.sh("ovs-ofctl add-flow br0 priority=6,in_port=2,actions=LOCAL");
    seat.sh("ovs-ofctl add-flow br0 priority=6,in_port=LOCAL,actions=output:2");
    seat.settle();
    stage.expect("b", &plain, &[]);
    host.until(&plain.bytes());
    let answer = broadcast(3);
    host.send(&answer.bytes());
    stage.at("b").until(&answer.bytes());
    // Without flows nothing leaves br1, wherever it comes from.
    seat.sh("ovs-ofctl del-flows br1");
    seat.settle();
    stage.expect("a", &ten, &[]);
}

fn a_flow_for_a_port_that_is_not_there_waits_for_it(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let mut stage = stage(lab, &seat, &["a", "b"]);
    seat.sh("ovs-ofctl add-flow br0 priority=5,in_port=1,actions=output:3");
    seat.sh("ovs-ofctl add-flow br0 priority=5,in_port=3,actions=output:2");
    seat.settle();
    let (one, two) = (broadcast(1), broadcast(2));
    stage.expect("a", &one, &[]);
    stage.port(lab, &seat, "br0", "c", "-- set interface c ofport_request=3");
    seat.settle();
    stage.expect("a", &one, &[("c", one.clone())]);
    stage.expect("c", &two, &[("b", two.clone())]);
    seat.sh("ovs-vsctl del-port c");
    seat.settle();
    stage.expect("a", &one, &[]);
    assert_eq!(flows(&seat).len(), 3);
}

fn a_flow_finds_a_port_by_the_number_that_it_has_now(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let stage = stage(lab, &seat, &["a", "b"]);
    seat.sh("ovs-ofctl add-flow br0 priority=5,in_port=7,actions=drop");
    seat.settle();
    let one = broadcast(1);
    stage.expect("a", &one, &[("b", one.clone())]);
    seat.sh("ovs-vsctl set interface a ofport_request=7");
    seat.settle();
    stage.expect("a", &one, &[]);
}

fn a_change_of_fail_mode_makes_the_table_that_of_a_new_bridge(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let stage = stage(lab, &seat, &["a", "b"]);
    let one = broadcast(1);
    let passes = [("b", one.clone())];
    seat.sh("ovs-ofctl add-flow br0 priority=5,in_port=1,actions=drop");
    seat.settle();
    stage.expect("a", &one, &[]);
    // What is said already changes nothing, nor does another setting.
    seat.sh(
        "ovs-vsctl set-fail-mode br0 standalone; ovs-vsctl set bridge br0 other_config:mac-aging-time=60",
    );
    assert_eq!(flows(&seat).len(), 2);
    for _ in 0..2 {
        seat.sh("ovs-vsctl set-fail-mode br0 secure");
        assert_eq!(flows(&seat), [] as [&str; 0]);
        seat.settle();
        stage.expect("a", &one, &[]);
        seat.sh("ovs-ofctl add-flow br0 actions=normal");
        assert_eq!(flows(&seat), ["actions=NORMAL"]);
        seat.settle();
        stage.expect("a", &one, &passes);
        seat.sh("ovs-ofctl del-flows br0; ovs-vsctl del-fail-mode br0");
        assert_eq!(flows(&seat), ["priority=0 actions=NORMAL"]);
        seat.settle();
        stage.expect("a", &one, &passes);
    }
    // Another bridge of the same name has none of its flows.
    seat.sh("ovs-ofctl add-flow br0 in_port=1,actions=drop; ovs-vsctl del-br br0");
    seat.bridge("br0");
    assert_eq!(flows(&seat), ["priority=0 actions=NORMAL"]);
}

fn flows_count_what_they_match_and_go_when_their_time_is_over(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let stage = stage(lab, &seat, &["a", "b"]);
    seat.sh("ovs-ofctl add-flow br0 priority=5,in_port=1,dl_vlan=10,actions=output:2");
    seat.sh("ovs-ofctl add-flow br0 priority=4,in_port=1,actions=drop");
    seat.settle();
    let ten = broadcast(1).tag(ctag(10, 0));
    for _ in 0..7 {
        stage.expect("a", &ten, &[("b", ten.clone())]);
    }
    for _ in 0..3 {
        stage.expect("a", &broadcast(1), &[]);
    }
    let counted = |of: &str| {
        let text = seat.sh(&format!("ovs-ofctl dump-aggregate br0 {of}"));
        let words = text.split_whitespace().filter_map(|word| word.split_once('='));
        words.filter(|(key, _)| *key != "(xid").map(|(_, count)| count.parse().unwrap()).collect::<Vec<u64>>()
    };
    // Stock Open vSwitch hears of its caches' counts now and then.
    let len = u64::try_from(ten.bytes().len()).unwrap();
    let expected = [7, 7 * len, 1];
    until("the counts of a flow", PATIENCE, || (counted("in_port=1,dl_vlan=10") == expected).then_some(()));
    let expected = [10, 7 * len + 3 * (len - 4), 2];
    until("the counts of both", PATIENCE, || (counted("in_port=1") == expected).then_some(()));
    // Other flows come and go: what was counted stays. One of the same match and priority begins at nothing.
    seat.sh("ovs-ofctl add-flow br0 priority=9,in_port=2,dl_vlan=7,actions=drop; ovs-ofctl del-flows br0 in_port=2");
    assert_eq!(counted("in_port=1,dl_vlan=10"), [7, 7 * len, 1]);
    seat.sh("ovs-ofctl add-flow br0 priority=5,in_port=1,dl_vlan=10,actions=output:2");
    assert_eq!(counted("in_port=1,dl_vlan=10"), [0, 0, 1]);
    seat.sh("ovs-ofctl del-flows br0");
    seat.sh("ovs-ofctl add-flow br0 in_port=1,hard_timeout=1,actions=output:2");
    seat.sh("ovs-ofctl add-flow br0 in_port=2,idle_timeout=1,actions=drop");
    seat.sh("ovs-ofctl add-flow br0 priority=1,idle_timeout=3600,hard_timeout=3600,actions=normal");
    until("two flows gone", PATIENCE, || (flows(&seat).len() == 1).then_some(()));
    seat.settle();
    stage.expect("a", &broadcast(1), &[("b", broadcast(1))]);
    stage.expect("b", &broadcast(2), &[("a", broadcast(2))]);
}

fn what_arrived_on_ports_that_go_elsewhere_stays_counted(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    seat.bridge("br1");
    let stage = stage(lab, &seat, &["a", "b", "c"]);
    let counted = |bridge: &str, frames: u64| {
        let expected = format!("packet_count={frames} ");
        until(&format!("{expected} of {bridge}"), PATIENCE, || {
            let text = seat.sh(&format!("ovs-ofctl dump-aggregate {bridge}"));
            text.contains(&expected).then_some(())
        });
    };
    let one = broadcast(1);
    for (port, others) in [("a", ["b", "c"]), ("b", ["a", "c"]), ("b", ["a", "c"]), ("c", ["a", "b"])] {
        stage.expect(port, &one, &others.map(|other| (other, one.clone())));
    }
    seat.sh("ovs-vsctl del-port a -- del-port b -- add-port br1 b");
    seat.settle();
    stage.expect("c", &one, &[]);
    counted("br0", 5);
    counted("br1", 0);
    stage.expect("b", &one, &[]);
    counted("br1", 1);
    counted("br0", 5);
}

on_seats! {
    stock: Stock, ours: Ours => {
        flows_lead_over_cables_into_tags_and_to_the_host,
        a_flow_for_a_port_that_is_not_there_waits_for_it,
        a_flow_finds_a_port_by_the_number_that_it_has_now,
        a_change_of_fail_mode_makes_the_table_that_of_a_new_bridge,
        flows_count_what_they_match_and_go_when_their_time_is_over,
        what_arrived_on_ports_that_go_elsewhere_stays_counted,
    }
}
