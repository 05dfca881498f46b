//! What a bridge of the database can do beside sending frames where they belong: it counts copies, follows listeners,
//! bounds its table, floods and polices as the columns say.
//!
//! Not here: where frames go in the end, and how (see `ovs_switch.rs`).
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use vswitch_core::wire::checksum::checksum;
use vswitch_core::wire::ethernet::Mac;
use vswitch_tests::daemon::Raw;
use vswitch_tests::frames::{Frame, ctag, station};
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::node::PATIENCE;
use vswitch_tests::on_seats;
use vswitch_tests::ovs_seat::{Seat, Stage, Switch};

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x101);

fn broadcast(from: u32) -> Frame {
    Frame::new(Mac::BROADCAST, station(from))
}

/// A bridge with silent pods at these ports, added with these words.
fn stage(lab: &Lab, switch: Switch, ports: &[(&str, &str)]) -> (Seat, Stage) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let mut stage = Stage::default();
    for (port, words) in ports {
        stage.port(lab, &seat, "br0", port, words);
    }
    seat.settle();
    (seat, stage)
}

/// A datagram to `group` from 10.1.1.9 or fe80::9, the host of station 9.
fn to_group(group: IpAddr) -> Frame {
    let (mac, from) = match group {
        IpAddr::V4(group) => {
            let [_, a, b, c] = group.octets();
            ([1, 0, 0x5e, a & 0x7f, b, c], IpAddr::from([10, 1, 1, 9]))
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            ([0x33, 0x33, a, b, c, d], "fe80::9".parse().unwrap())
        }
    };
    Frame::new(Mac::new(mac), station(9)).udp((from, 4000), (group, 4000), b"to those who listen")
}

/// A general query of IGMPv2 by 10.1.1.9, to be answered within a tenth of a second.
fn query() -> Frame {
    let mut message = [0x11, 1, 0, 0, 0, 0, 0, 0];
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let all = IpAddr::from([224, 0, 0, 1]);
    Frame::new(Mac::new([1, 0, 0x5e, 0, 0, 1]), station(9)).ip(IpAddr::from([10, 1, 1, 9]), all, 2, &message)
}

/// Sends `frame` until these hear it and those do not. Each time a broadcast follows that everybody hears: whoever has
/// not heard the frame by then has not been sent it. What `mdb/show` tells the workers follow a moment later.
#[track_caller]
fn hears(from: &Raw, frame: &Frame, these: &[&Raw], those: &[&Raw]) {
    let (frame, end) = (frame.bytes(), broadcast(9).bytes());
    let heard = |raw: &Raw| {
        let mut heard = false;
        loop {
            let next = raw.receive(PATIENCE).expect("everybody hears a broadcast");
            if next == end {
                return heard;
            }
            heard |= next == frame;
        }
    };
    until("the frame where it belongs, and nowhere else", PATIENCE, || {
        from.send(&frame);
        from.send(&end);
        let [these, those] = [these, those].map(|raws| raws.iter().map(|raw| heard(raw)).collect::<Vec<_>>());
        (these.iter().all(|heard| *heard) && !those.contains(&true)).then_some(())
    });
}

/// The lines of `mdb/show` that tell of a router or of the groups that are tried here, without their age, sorted.
fn listeners(seat: &Seat) -> Vec<String> {
    let text = seat.sh("ovs-appctl mdb/show br0");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(" port  VLAN  GROUP                Age"));
    let ours = [GROUP_V4.to_string(), GROUP_V6.to_string(), "querier".to_owned()];
    let mut kept = Vec::new();
    for line in lines.filter(|line| ours.iter().any(|word| line.split_whitespace().nth(2) == Some(word))) {
        let (rest, age) = line.split_at(line.rfind(' ').unwrap() + 1);
        assert!(age.parse::<u32>().unwrap() < 300, "{line}");
        // The age is three places wide.
        let width = rest.len() + age.len() - 3;
        kept.push(line[..width].to_owned());
    }
    kept.sort();
    kept
}

#[track_caller]
fn until_listeners(seat: &Seat, wanted: &[&str]) {
    let mut last = Vec::new();
    until(&format!("listeners {wanted:#?}"), PATIENCE, || {
        last = listeners(seat);
        (last == wanted).then_some(())
    });
    seat.settle();
}

/// A socket that has joined both groups by `eth0` of `pod`.
fn join(pod: &Namespace) -> [UdpSocket; 2] {
    let index = pod.run("ip -o link show dev eth0").split(':').next().unwrap().parse().unwrap();
    pod.inside(|| {
        let four = UdpSocket::bind("0.0.0.0:4000").unwrap();
        four.join_multicast_v4(&GROUP_V4, &Ipv4Addr::new(10, 1, 1, 1)).unwrap();
        let six = UdpSocket::bind("[::]:4001").unwrap();
        six.join_multicast_v6(&GROUP_V6, index).unwrap();
        [four, six]
    })
}

const FOUR: &str = "    1     0  239.1.1.1         ";
const SIX: &str = "    1     0  ff05::101         ";
const ROUTER: &str = "    3     0  querier             ";

fn multicast_goes_to_those_who_joined_and_to_routers(lab: &Lab, switch: Switch) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    assert!(seat.try_sh("ovs-appctl mdb/show br0").err.contains("multicast snooping is disabled"));
    seat.sh("ovs-vsctl set bridge br0 mcast_snooping_enable=true \
         other_config:mcast-snooping-disable-flood-unregistered=true");
    let words = |n| format!("-- set interface p{n} ofport_request={n}");
    let pod = seat.pod(lab, "br0", "p1", &words(1), &["10.1.1.1/24", "fe80::1/64"]);
    let listener = pod.inside(|| Raw::open("eth0"));
    let mut stage = Stage::default();
    for n in [2, 3] {
        stage.port(lab, &seat, "br0", &format!("p{n}"), &words(n));
    }
    let (other, source) = (stage.at("p2"), stage.at("p3"));
    seat.settle();
    let frames = [to_group(GROUP_V4.into()), to_group(GROUP_V6.into())];
    // Nobody has joined, and nobody is sent any.
    until_listeners(&seat, &[]);
    for frame in &frames {
        hears(source, frame, &[], &[&listener, other]);
    }
    // Unless that is flooded, which is how a bridge begins.
    seat.sh("ovs-vsctl remove bridge br0 other_config mcast-snooping-disable-flood-unregistered");
    seat.settle();
    for frame in &frames {
        hears(source, frame, &[&listener, other], &[]);
    }
    // A kernel's own join.
    let sockets = join(&pod);
    until_listeners(&seat, &[FOUR, SIX]);
    for frame in &frames {
        hears(source, frame, &[&listener], &[other]);
    }
    // A port that is sent all multicast, as behind it may be who says nothing.
    seat.sh("ovs-vsctl set port p2 other_config:mcast-snooping-flood=true");
    seat.settle();
    for frame in &frames {
        hears(source, frame, &[&listener, other], &[]);
    }
    seat.sh("ovs-vsctl remove port p2 other_config mcast-snooping-flood");
    seat.settle();
    // A router is sent every group, and is heard by everybody.
    hears(source, &query(), &[&listener, other], &[]);
    until_listeners(&seat, &[FOUR, SIX, ROUTER]);
    hears(other, &frames[0], &[&listener, source], &[]);
    assert_eq!(seat.sh("ovs-appctl mdb/flush br0").trim(), "table successfully flushed");
    // Whoever joins again is heard of again.
    drop(sockets);
    let sockets = join(&pod);
    until_listeners(&seat, &[FOUR, SIX]);
    drop(sockets);
    until_listeners(&seat, &[]);
    seat.sh("ovs-vsctl set bridge br0 mcast_snooping_enable=false");
    seat.settle();
    for frame in &frames {
        hears(source, frame, &[&listener, other], &[]);
    }
    assert!(seat.try_sh("ovs-appctl mdb/flush br0").err.contains("multicast snooping is disabled"));
}

/// What `create mirror` is told to select: everything, with its copies at "out".
const ALL_TO_OUT: &str = "ovs-vsctl -- --id=@out get port out -- --id=@m create mirror name=m select_all=true \
     output_port=@out -- add bridge br0 mirrors @m";

fn a_mirror_counts_its_copies_and_another_begins_at_zero(lab: &Lab, switch: Switch) {
    let (seat, stage) = stage(lab, switch, &[("a", ""), ("b", ""), ("out", "")]);
    seat.sh(ALL_TO_OUT);
    seat.settle();
    for n in 1..=5 {
        stage.expect("a", &broadcast(n), &[("b", broadcast(n)), ("out", broadcast(n))]);
    }
    let bytes = 5 * broadcast(1).bytes().len();
    let counted = |mirror: &str, frames: usize, bytes: usize| {
        let wanted = format!("statistics:tx_packets={frames} statistics:tx_bytes={bytes}");
        seat.sh(&format!("ovs-vsctl --timeout=30 wait-until mirror {mirror} {wanted}"));
    };
    counted("m", 5, bytes);
    // Its columns change, and it counts on.
    seat.sh("ovs-vsctl -- --id=@b get port b -- set mirror m select_all=false select_dst_port=@b");
    seat.settle();
    stage.expect("a", &broadcast(6), &[("b", broadcast(6)), ("out", broadcast(6))]);
    counted("m", 6, bytes / 5 * 6);
    seat.sh("ovs-vsctl clear bridge br0 mirrors");
    seat.sh(&ALL_TO_OUT.replace("name=m ", "name=another "));
    seat.settle();
    stage.expect("b", &broadcast(7), &[("a", broadcast(7)), ("out", broadcast(7))]);
    counted("another", 1, bytes / 5);
}

fn a_mirror_may_copy_the_first_bytes_alone(lab: &Lab, switch: Switch) {
    let (seat, stage) = stage(lab, switch, &[("a", "tag=10"), ("b", "tag=10"), ("out", "")]);
    seat.sh(&ALL_TO_OUT.replace("select_all=true", "select_all=true snaplen=100"));
    seat.settle();
    let long = broadcast(1).payload(0xabcd, &[7; 300]);
    stage.at("a").send(&long.bytes());
    stage.at("b").until(&long.bytes());
    let copy = stage.at("out").receive(PATIENCE).expect("a copy");
    let whole = long.tag(ctag(10, 0)).bytes();
    assert!(whole.starts_with(&copy) && copy.len() < 110, "{} bytes", copy.len());
}

fn a_mirror_without_its_port_harms_nobody(lab: &Lab, switch: Switch) {
    let (seat, stage) = stage(lab, switch, &[("a", ""), ("b", "")]);
    let _ = seat.try_sh("ovs-vsctl add-port br0 ghost");
    seat.sh(&ALL_TO_OUT.replace("port out", "port ghost"));
    seat.settle();
    stage.expect("a", &broadcast(1), &[("b", broadcast(1))]);
    stage.expect("b", &broadcast(2), &[("a", broadcast(2))]);
    seat.sh("ovs-vsctl del-port ghost");
    seat.settle();
    stage.expect("a", &broadcast(1), &[("b", broadcast(1))]);
}

/// How many stations `fdb/show` lists.
fn stations(seat: &Seat) -> usize {
    seat.sh("ovs-appctl fdb/show br0").lines().count() - 1
}

fn a_bridge_knows_as_many_stations_as_it_may_and_for_as_long(lab: &Lab, switch: Switch) {
    let (seat, stage) = stage(lab, switch, &[("a", ""), ("b", "")]);
    seat.sh("ovs-vsctl set bridge br0 other_config:mac-table-size=10");
    seat.settle();
    for n in 1..=15 {
        stage.expect("a", &broadcast(n), &[("b", broadcast(n))]);
    }
    let stats = seat.sh("ovs-appctl fdb/stats-show br0");
    assert!(stats.contains("Current/maximum MAC entries in the table: 10/10"), "{stats}");
    // The oldest gave way.
    let text = seat.sh("ovs-appctl fdb/show br0");
    let knows = |n: u32| text.contains(&station(n).to_string());
    assert!(stations(&seat) == 10 && !knows(5) && knows(6) && knows(15), "{text}");
    // 15 seconds are the least.
    seat.sh("ovs-vsctl set bridge br0 other_config:mac-aging-time=1");
    until("stations that are forgotten", 2 * PATIENCE, || (stations(&seat) == 0).then_some(()));
}

fn vlans_that_are_flooded_teach_nothing(lab: &Lab, switch: Switch) {
    let ports = [("a", "tag=10"), ("b", "tag=10"), ("c", "tag=10"), ("d", "tag=20"), ("e", "tag=20")];
    let (seat, stage) = stage(lab, switch, &ports);
    let to = |to, from| Frame::new(station(to), station(from));
    stage.expect("b", &broadcast(2), &[("a", broadcast(2)), ("c", broadcast(2))]);
    stage.expect("a", &to(2, 1), &[("b", to(2, 1))]);
    seat.sh("ovs-vsctl set bridge br0 flood_vlans=10");
    seat.settle();
    stage.expect("a", &to(2, 1), &[("b", to(2, 1)), ("c", to(2, 1))]);
    stage.expect("b", &to(1, 2), &[("a", to(1, 2)), ("c", to(1, 2))]);
    assert_eq!(stations(&seat), 0);
    // Another VLAN is as before.
    stage.expect("d", &broadcast(4), &[("e", broadcast(4))]);
    assert_eq!(stations(&seat), 1);
    seat.sh("ovs-vsctl clear bridge br0 flood_vlans");
    seat.settle();
    stage.expect("a", &to(2, 1), &[("b", to(2, 1)), ("c", to(2, 1))]);
    stage.expect("b", &to(1, 2), &[("a", to(1, 2))]);
}

/// Stock Open vSwitch has the kernel police an interface, whose frames its userspace datapath takes before that.
fn a_policed_interface_passes_its_burst_and_its_rate(lab: &Lab, switch: Switch) {
    let (seat, stage) = stage(lab, switch, &[("a", ""), ("b", "")]);
    // A byte in a millisecond, and the least burst: one of the largest superframes, so many frames of 1,000.
    let burst = 65;
    seat.sh("ovs-vsctl set interface a ingress_policing_rate=8 ingress_policing_burst=1");
    let frame = broadcast(1).payload(0x88b5, &[0; 986]).bytes();
    for _ in 0..300 {
        stage.at("a").send(&frame);
    }
    seat.sh("ovs-vsctl --timeout=30 wait-until interface a 'statistics:rx_packets>=300' 'statistics:rx_dropped>200'");
    seat.sh("ovs-vsctl set interface a ingress_policing_rate=0");
    stage.at("a").send(&broadcast(9).bytes());
    let mut passed = 0;
    while stage.at("b").receive(PATIENCE).expect("what is not policed any more") != broadcast(9).bytes() {
        passed += 1;
    }
    assert!((burst..burst + 60).contains(&passed), "{passed} frames");
    // The other way nothing was policed.
    stage.expect("b", &broadcast(2), &[("a", broadcast(2))]);
}

/// Stock Open vSwitch has all of these.
fn what_is_not_offered_says_so_in_its_row_and_harms_nobody(lab: &Lab, switch: Switch) {
    let (seat, stage) = stage(lab, switch, &[("a", ""), ("b", ""), ("e0", ""), ("e1", "")]);
    seat.sh("ovs-vsctl del-port e0 -- del-port e1");
    let said = seat.try_sh("ovs-vsctl add-bond br0 bond0 e0 e1 lacp=active");
    assert!(said.err.contains("bonds are not offered"), "{}{}", said.out, said.err);
    for interface in ["e0", "e1"] {
        let row = seat.sh(&format!("ovs-vsctl get interface {interface} error ofport"));
        assert_eq!(row, format!("\"{interface}: bonds are not offered\"\n-1\n"));
    }
    let spanning = "{error=\"spanning tree protocols are not offered\"}";
    for (wish, status) in [("stp_enable", "status"), ("rstp_enable", "rstp_status")] {
        seat.sh(&format!("ovs-vsctl set bridge br0 {wish}=true"));
        assert_eq!(seat.sh(&format!("ovs-vsctl get bridge br0 {status}")).trim(), spanning);
        let bpdu = Frame::new(Mac::from_u64(0x0180_c200_0000), station(1));
        stage.expect("a", &bpdu, &[]);
        stage.expect("a", &broadcast(1), &[("b", broadcast(1))]);
        seat.sh(&format!("ovs-vsctl set bridge br0 {wish}=false"));
        assert_eq!(seat.sh(&format!("ovs-vsctl get bridge br0 {status}")).trim(), "{}");
    }
    seat.sh("ovs-vsctl del-port bond0; ovs-vsctl add-port br0 e0");
    stage.expect("a", &broadcast(1), &[("b", broadcast(1)), ("e0", broadcast(1))]);
}

on_seats! {
    stock: Stock, ours: Ours => {
        multicast_goes_to_those_who_joined_and_to_routers,
        a_mirror_counts_its_copies_and_another_begins_at_zero,
        a_mirror_may_copy_the_first_bytes_alone,
        a_mirror_without_its_port_harms_nobody,
        a_bridge_knows_as_many_stations_as_it_may_and_for_as_long,
        vlans_that_are_flooded_teach_nothing,
    }
}

on_seats! {
    ours_alone: Ours => {
        a_policed_interface_passes_its_burst_and_its_rate,
        what_is_not_offered_says_so_in_its_row_and_harms_nobody,
    }
}
