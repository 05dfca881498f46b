//! The database goes, comes back, is huge or full of nonsense: what the switch carries meanwhile it goes on carrying.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vswitch_tests::daemon::program;
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::numbered::{Numbered, Outcome, numbered};
use vswitch_tests::on_seats;
use vswitch_tests::ovs_seat::{Seat, Switch, in_seats, reach};
use vswitch_tests::ovsdb_client::Client;
use vswitch_tests::rng::Rng;

/// How long the switch may take for thousands of rows, in a build that is not optimised.
const LONG: Duration = Duration::from_secs(120);

const LOAD: Numbered = Numbered { flows: 4, datagrams: 6000, longest: 1400 };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A host with bridge `br0`, and two pods there that talk.
fn two_pods(lab: &Lab, switch: Switch) -> (Seat, [Namespace; 2]) {
    let seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    let a = seat.pod(lab, "br0", "pa", "", &["10.1.1.1/24"]);
    let b = seat.pod(lab, "br0", "pb", "", &["10.1.1.2/24"]);
    reach(&a, ip("10.1.1.2"));
    (seat, [a, b])
}

/// Numbered datagrams between the pods, again and again, for as long as `work` takes: nothing is repeated, overtaken or
/// changed, and at ours nothing is lost. Stock Open vSwitch reads a veth with the system's own small buffer, which
/// such a load fills at times.
fn under_load(switch: Switch, pods: &[Namespace; 2], work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    /// Ends the load also when the work panics.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut sum = Outcome::default();
            loop {
                let outcome = numbered((&pods[0], ip("10.1.1.1")), (&pods[1], ip("10.1.1.2")), &LOAD);
                sum.sent += outcome.sent;
                sum.received += outcome.received;
                if done.load(Ordering::SeqCst) {
                    break;
                }
            }
            sum
        });
        let end = End(&done);
        work();
        drop(end);
        let sum = load.join().unwrap();
        assert!(sum.received > 0, "{sum:?}");
        if switch == Switch::Ours {
            assert_eq!(sum.received, sum.sent, "{sum:?}");
        }
    });
}

fn a_database_that_is_killed_and_comes_back_costs_no_frame(lab: &Lab, switch: Switch) {
    let (mut seat, pods) = two_pods(lab, switch);
    under_load(switch, &pods, || {
        for round in 0..3 {
            seat.kill_database();
            assert!(seat.is_alive());
            seat.start_database();
            // Returns when the switch has come back to it and carries out what is new.
            seat.sh(&format!(
                "ovs-vsctl --timeout=25 add-port br0 int{round} -- set interface int{round} type=internal"
            ));
            seat.host().ip(&format!("link show dev int{round}"));
        }
    });
    assert!(seat.is_alive());
    // A server that stands still holds nothing up either.
    seat.database().signal("STOP");
    under_load(switch, &pods, || ());
    seat.database().signal("CONT");
    seat.sh("ovs-vsctl --timeout=25 del-port int0");
    let gone = seat.host().try_run("ip link show dev int0");
    assert!(!gone.status.success());
}

fn a_switch_that_starts_again_finds_everything_in_the_database(lab: &Lab, switch: Switch) {
    let (mut seat, pods) = two_pods(lab, switch);
    let ofport = seat.sh("ovs-vsctl get interface pb ofport");
    for signal in ["TERM", "KILL"] {
        seat.end_switch(signal);
        seat.start_switch();
        reach(&pods[0], ip("10.1.1.2"));
        until("the same OpenFlow number", LONG, || {
            (seat.sh("ovs-vsctl get interface pb ofport") == ofport).then_some(())
        });
    }
}

fn the_hosts_own_address_outlives_the_switch_and_goes_with_its_bridge(lab: &Lab, switch: Switch) {
    let mut seat = Seat::new(lab, "h", switch);
    seat.bridge("br0");
    seat.host().address("br0", "10.1.1.3/24");
    seat.host().ip("route add 10.2.0.0/16 via 10.1.1.1");
    let pod = seat.pod(lab, "br0", "pa", "", &["10.1.1.1/24"]);
    let before = seat_facts(seat.host());
    for signal in ["TERM", "KILL"] {
        seat.end_switch(signal);
        assert_eq!(seat_facts(seat.host()), before, "after {signal}");
        seat.start_switch();
        reach(&pod, ip("10.1.1.3"));
        assert_eq!(seat_facts(seat.host()), before, "anew after {signal}");
    }
    seat.sh("ovs-vsctl add-port br0 int0 -- set interface int0 type=internal -- del-br br0");
    for name in ["br0", "int0"] {
        assert!(!seat.host().try_run(&format!("ip link show dev {name}")).status.success(), "{name}");
    }
    seat.bridge("br0");
    seat.sh("ovs-appctl exit --cleanup");
    until("the end of br0", LONG, || {
        (!seat.host().try_run("ip link show dev br0").status.success()).then_some(())
    });
}

/// What the host knows of its own: index, MAC address, addresses, routes.
fn seat_facts(host: &Namespace) -> [String; 3] {
    let link = host.run("ip -o link show dev br0");
    let words: Vec<&str> = link.split_whitespace().collect();
    let mac = words.iter().skip_while(|word| **word != "link/ether").nth(1).copied().unwrap_or_default();
    let routes = host.run("ip route show").replace(" linkdown", "").replace(" dead", "");
    [format!("{} {mac}", words[0]), host.run("ip -4 -o addr show dev br0"), routes]
}

fn rows_of_any_content_harm_nobody_else(lab: &Lab, switch: Switch) {
    let (seat, pods) = two_pods(lab, switch);
    let mut rng = Rng::new(6);
    let types = [
        "", "internal", "tap", "system", "patch", "vxlan", "gre", "geneve", "dpdk", "nonsense", "\u{7}",
        "dummy",
    ];
    let keys = [
        "remote_ip",
        "local_ip",
        "key",
        "in_key",
        "out_key",
        "dst_port",
        "tos",
        "ttl",
        "df_default",
        "csum",
        "peer",
        "exts",
        "egress_pkt_mark",
        "unheard_of",
    ];
    let values = [
        "",
        "flow",
        "inherit",
        "0",
        "-1",
        "16777216",
        "99999999999999999999",
        "192.0.2.1",
        "::",
        "224.0.0.1",
        "ff02::1",
        "256.1.1.1",
        "true",
        "no",
        "p0",
        "br0",
        "../../etc/passwd",
        "%s%n",
        "999",
        "64",
    ];
    for round in 0..8 {
        let mut ports = Vec::new();
        for n in 0..24 {
            // Some are too long, some hold what no name may.
            let name = match rng.below(6) {
                0 => format!("r{round}-{n}-and-much-longer-than-a-name"),
                1 => format!("r{round}/{n}"),
                2 => format!("r{round}\u{e4}{n}"),
                3 => format!("r{round} {n}"),
                _ => format!("r{round}x{n}"),
            };
            let options: BTreeMap<_, _> =
                (0..rng.below(5)).map(|_| (*rng.pick(&keys), *rng.pick(&values))).collect();
            let options: Vec<Value> = options.iter().map(|entry| json!(entry)).collect();
            let mut row = json!({"type": *rng.pick(&types), "options": ["map", options]});
            if rng.below(4) == 0 {
                row["mtu_request"] = json!(*rng.pick(&[68, 1, 65_535, 9000]));
            }
            if rng.below(4) == 0 {
                row["ofport_request"] = json!(*rng.pick(&[1, 2, 65_279]));
            }
            ports.push((name, row));
        }
        let next = seat.insert_ports("br0", &ports);
        until("the rows of a round carried out", LONG, || seat.carries_out(next).then_some(()));
        assert!(seat.is_alive());
        reach(&pods[0], ip("10.1.1.2"));
    }
    // Each bad row says so in its own row; those two of before say nothing.
    for name in ["pa", "pb"] {
        assert_eq!(seat.sh(&format!("ovs-vsctl get interface {name} error")), "[]\n");
    }
    assert_eq!(seat.sh("ovs-vsctl get interface br0 error"), "[]\n");
    // What cannot be is taken away as easily as it came.
    let mut script = "ovs-vsctl".to_owned();
    for port in seat.rows("Port", &["name"]) {
        let name = port["name"].as_str().unwrap();
        if name.starts_with('r') {
            let _ = write!(script, " -- del-port 'br0' '{name}'");
        }
    }
    seat.sh(&script);
    assert_eq!(seat.sh("ovs-vsctl list-ports br0"), "pa\npb\n");
    reach(&pods[0], ip("10.1.1.2"));
}

fn a_thousand_ports_are_added_and_removed_in_one_transaction_each(lab: &Lab, switch: Switch) {
    let (seat, pods) = two_pods(lab, switch);
    let ports: Vec<_> = (0..1000).map(|n| (format!("i{n}"), json!({"type": "internal"}))).collect();
    let next = seat.insert_ports("br0", &ports);
    until("a thousand ports", LONG, || seat.carries_out(next).then_some(()));
    let interfaces = seat.rows("Interface", &["name", "ofport", "error"]);
    assert_eq!(interfaces.len(), 1003);
    let mut numbers = BTreeSet::new();
    for interface in &interfaces {
        let number = interface["ofport"].as_i64().unwrap_or_else(|| panic!("{interface}"));
        assert!(number > 0 && numbers.insert(number), "{interface}");
        assert_eq!(interface["error"], json!(["set", []]), "{interface}");
    }
    let links = |seat: &Seat| seat.host().ip("-br link").lines().filter(|line| line.starts_with('i')).count();
    assert_eq!(links(&seat), 1000);
    reach(&pods[0], ip("10.1.1.2"));
    let names: Vec<String> = (0..1000).map(|n| format!("-- del-port i{n}")).collect();
    seat.sh(&format!("ovs-vsctl --no-wait {}", names.join(" ")));
    until("a thousand ports gone", LONG, || (links(&seat) == 0).then_some(()));
    reach(&pods[0], ip("10.1.1.2"));
}

fn ten_thousand_ports_that_cannot_be_leave_the_others_as_they_are(lab: &Lab, switch: Switch) {
    let (seat, pods) = two_pods(lab, switch);
    let ports: Vec<_> = (0..10_000).map(|n| (format!("no{n}"), json!({}))).collect();
    under_load(switch, &pods, || {
        let next = seat.insert_ports("br0", &ports);
        until("ten thousand ports", LONG, || seat.carries_out(next).then_some(()));
    });
    assert!(seat.is_alive());
    let interfaces = seat.rows("Interface", &["name", "ofport", "error"]);
    let bad = interfaces.iter().filter(|row| row["ofport"] == -1);
    let said = json!("could not open network device no77 (No such device)");
    assert_eq!(bad.count(), 10_000);
    assert!(interfaces.iter().any(|row| row["name"] == "no77" && row["error"] == said));
    reach(&pods[0], ip("10.1.1.2"));
    // One that comes to be is taken in.
    seat.host().ip("link add no5000 type veth peer name far");
    seat.sh("ovs-vsctl --no-wait set interface no5000 external_ids:x=y");
    until("a number for the one that is", LONG, || {
        let rows = seat.rows("Interface", &["name", "ofport"]);
        rows.iter().any(|row| row["name"] == "no5000" && row["ofport"].as_i64() > Some(0)).then_some(())
    });
}

/// Stock Open vSwitch destroys its bridges then.
#[test]
fn who_loses_the_lock_says_so_goes_on_forwarding_and_carries_out_what_came_when_it_is_free() {
    let test = "who_loses_the_lock_says_so_goes_on_forwarding_and_carries_out_what_came_when_it_is_free";
    in_seats(test, |lab| {
        let (seat, pods) = two_pods(lab, Switch::Ours);
        under_load(Switch::Ours, &pods, || {
            let remote = seat.remote();
            let mut thief = Client::connect(Path::new(remote.strip_prefix("unix:").unwrap()));
            thief.call("steal", &json!(["ovs_vswitchd"]));
            let said = "another takes the lock ovs_vswitchd; what runs goes on as it is";
            until("a word in the log", LONG, || seat.vswitchd().log().contains(said).then_some(()));
            seat.sh("ovs-vsctl --no-wait add-port br0 int0 -- set interface int0 type=internal");
            drop(thief);
            until("the port", LONG, || {
                seat.host().try_run("ip link show dev int0").status.success().then_some(())
            });
        });
    });
}

on_seats! {
    stock: Stock, ours: Ours => {
        a_database_that_is_killed_and_comes_back_costs_no_frame,
        a_switch_that_starts_again_finds_everything_in_the_database,
        the_hosts_own_address_outlives_the_switch_and_goes_with_its_bridge,
        rows_of_any_content_harm_nobody_else,
        a_thousand_ports_are_added_and_removed_in_one_transaction_each,
        ten_thousand_ports_that_cannot_be_leave_the_others_as_they_are,
    }
}

/// Stock Open vSwitch has no file.
#[test]
fn a_row_that_collides_with_the_file_is_the_trouble_of_that_row_alone() {
    in_seats("a_row_that_collides_with_the_file_is_the_trouble_of_that_row_alone", |lab| {
        let seat = Seat::new(lab, "h", Switch::Ours);
        seat.bridge("br0");
        let ctl = format!(
            "{} --socket {}",
            program("vswitchctl").unwrap().display(),
            seat.file("control.sock").display()
        );
        seat.sh(&format!("{ctl} port add pf"));
        let said = seat.try_sh("ovs-vsctl add-port br0 pf -- set interface pf type=internal");
        assert!(said.err.contains("was added at run time"), "{said:?}");
        seat.sh(&format!("{ctl} port add other"));
        seat.sh("ovs-vsctl add-port br0 theirs -- set interface theirs type=internal");
        let said = seat.try_sh(&format!("{ctl} port add theirs"));
        assert!(said.code != 0, "{said:?}");
        seat.sh(&format!("{ctl} port del pf"));
        seat.sh("ovs-vsctl --timeout=20 wait-until interface pf 'ofport>0'");
    });
}

#[test]
fn a_port_that_comes_anew_counts_from_nothing() {
    in_seats("a_port_that_comes_anew_counts_from_nothing", |lab| {
        let (seat, pods) = two_pods(lab, Switch::Ours);
        seat.sh("ovs-vsctl --timeout=20 wait-until interface pa 'statistics:rx_packets>0'");
        seat.sh("ovs-vsctl del-port pa");
        pods[0].ip("link set dev eth0 down");
        seat.sh("ovs-vsctl add-port br0 pa");
        assert_eq!(seat.sh("ovs-vsctl get interface pa statistics:rx_packets").trim(), "0");
    });
}
