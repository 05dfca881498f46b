//! The plugin as a process, verb by verb, before a socket that speaks the daemon's words and real namespaces.
//! Not here: the daemon, and what a kill leaves (see `kills.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use support::{Call, Directory, Scripted, UNAVAILABLE, conf, host_local, leases};
use vswitch_tests::lab::{in_lab, until};

fn ips(result: &Value) -> Vec<&str> {
    result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap()).collect()
}

#[test]
fn a_pod_gets_its_interface_addresses_and_routes_and_del_takes_all_of_it() {
    in_lab("a_pod_gets_its_interface_addresses_and_routes_and_del_takes_all_of_it", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        let call = Call::new("c1", &pod.path(), &conf("1.1.0", &daemon, &host_local(directory.path())));
        let result = call.good();
        assert_eq!(result["cniVersion"], "1.1.0");
        assert_eq!(
            result["interfaces"],
            json!([{"name": "eth0", "mac": "02:00:00:00:00:0a", "mtu": 1450, "sandbox": call.netns}])
        );
        assert_eq!(ips(&result), ["10.1.0.2/24", "fd01::2/112"]);
        assert_eq!(result["routes"], json!([{"dst": "192.0.2.0/24", "gw": "10.1.0.1"}]));
        let shown = pod.ip("address show dev eth0");
        assert!(shown.contains("inet 10.1.0.2/24") && shown.contains("inet6 fd01::2/112"), "{shown}");
        assert!(pod.ip("route show").contains("192.0.2.0/24 via 10.1.0.1 dev eth0"));
        assert_eq!(leases(directory.path()), ["10.1.0.2", "fd01::2"]);
        let asked = &daemon.asked("cni.add")[0];
        assert_eq!(asked["addresses"], json!(["10.1.0.2/24", "fd01::2/112"]));
        assert_eq!(asked["settings"], json!({"segment": "blue", "vlan_mode": "access", "anti_spoof": true}));

        let del = call.is("DEL").with("prevResult", result);
        assert_eq!(del.good(), Value::Null);
        assert_eq!((daemon.containers().len(), leases(directory.path()).len()), (0, 0));
        assert!(!pod.ip("link show").contains("eth0"));
        // Again, and without a namespace.
        assert_eq!(Call { netns: String::new(), ..del }.good(), Value::Null);
        assert_eq!(std::fs::read_dir(directory.path().join("cni/blue")).unwrap().count(), 0);
    });
}

#[test]
fn version_answers_in_the_version_it_is_asked_in() {
    let directory = Directory::new();
    let mut call = Call::new("", directory.path(), &json!({"cniVersion": "1.0.0"})).is("VERSION");
    let all = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!(call.good(), json!({"cniVersion": "1.0.0", "supportedVersions": all}));
    call.conf = json!({"cniVersion": "9.9.9"});
    assert_eq!(call.good()["cniVersion"], "9.9.9");
}

#[test]
fn every_fault_of_the_call_has_the_specifications_code() {
    in_lab("every_fault_of_the_call_has_the_specifications_code", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        let call = Call::new("c1", &pod.path(), &conf("1.0.0", &daemon, &json!({})));
        let with = |change: &dyn Fn(&mut Call)| {
            let mut call = call.clone();
            change(&mut call);
            call.code()
        };
        assert_eq!(with(&|call| call.conf["cniVersion"] = json!("0.2.0")), 1);
        assert_eq!(with(&|call| call.command = "GC"), 1, "GC came with 1.1.0");
        assert_eq!(with(&|call| call.command = "STATUS"), 1);
        let old = call.is("CHECK").with("cniVersion", json!("0.3.1"));
        assert_eq!(old.code(), 1, "CHECK came with 0.4.0");
        assert_eq!(with(&|call| call.conf["tag"] = json!(10)), 2);
        assert_eq!(with(&|call| call.netns = "/run/netns/nobody".to_owned()), 3);
        assert_eq!(with(&|call| call.command = "REMOVE"), 4);
        assert_eq!(with(&|call| call.ifname = String::new()), 4);
        assert_eq!(with(&|call| call.netns = "/proc/self/ns/net".to_owned()), 4, "its own namespace");
        assert_eq!(with(&|call| call.netns = "/etc/passwd".to_owned()), 4);
        assert_eq!(with(&|call| call.args = "FOO=1".to_owned()), 4);
        assert_eq!(with(&|call| call.conf = json!([])), 6);
        assert_eq!(with(&|call| call.conf["vlan"] = json!(5000)), 7);
        assert_eq!(with(&|call| call.command = "CHECK"), 7, "without prevResult");
        let error = call.with("cniVersion", json!("0.4.0")).with("vlan", json!(5000)).bad();
        assert_eq!(error["cniVersion"], "0.4.0");
        assert!(daemon.asked("cni.add").is_empty());
    });
}

#[test]
fn the_daemons_refusals_become_codes_and_a_passing_one_is_tried_again() {
    in_lab("the_daemons_refusals_become_codes_and_a_passing_one_is_tried_again", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        let call = Call::new("c1", &pod.path(), &conf("1.1.0", &daemon, &host_local(directory.path())));
        for (code, expected) in [(-32001, 7), (-32602, 7), (-32000, 100), (-32601, 100)] {
            daemon.refuse("cni.add", code, "no such segment");
            let error = call.bad();
            assert_eq!(
                (error["code"].as_u64(), error["msg"].as_str()),
                (Some(expected), Some("no such segment"))
            );
            assert!(leases(directory.path()).is_empty(), "the lease is given back");
        }
        daemon.refuse("cni.add", UNAVAILABLE, "the claim is on its way");
        call.good();
        assert_eq!(leases(directory.path()).len(), 2);
    });
}

#[test]
fn without_a_daemon_nothing_is_leased_and_every_verb_says_try_again() {
    in_lab("without_a_daemon_nothing_is_leased_and_every_verb_says_try_again", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        let call = Call::new("c1", &pod.path(), &conf("1.1.0", &daemon, &host_local(directory.path())));
        assert_eq!(call.is("STATUS").good(), Value::Null);
        daemon.refuse("cni.status", UNAVAILABLE, "no tun");
        assert_eq!(call.is("STATUS").code(), 50);
        let result = call.good();
        daemon.stop();
        let check = call.is("CHECK").with("prevResult", result);
        for call in [&call, &call.is("DEL"), &check, &call.is("GC")] {
            let error = call.bad();
            assert_eq!(error["code"], 11, "{error}");
            assert!(error["msg"].as_str().unwrap().contains("control.sock"), "{error}");
        }
        assert_eq!(call.is("STATUS").code(), 51);
        assert_eq!(leases(directory.path()).len(), 2, "its port may still carry frames");
    });
}

#[test]
fn check_sees_what_was_changed_behind_the_runtimes_back() {
    in_lab("check_sees_what_was_changed_behind_the_runtimes_back", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        let ipam = host_local(directory.path());
        let call = Call::new("c1", &pod.path(), &conf("0.4.0", &daemon, &ipam));
        let check = call.is("CHECK").with("prevResult", call.good());
        let fails = |break_it: &str, word: &str, mend: &str| {
            pod.ip(break_it);
            let error = check.bad();
            assert_eq!(error["code"], 100, "{error}");
            assert!(error["msg"].as_str().unwrap().contains(word), "{error}");
            for line in mend.split(';') {
                pod.ip(line);
            }
            assert_eq!(check.good(), Value::Null, "{mend}");
        };
        assert_eq!(check.good(), Value::Null);
        fails(
            "address del 10.1.0.2/24 dev eth0",
            "10.1.0.2/24",
            "address add 10.1.0.2/24 dev eth0;route add 192.0.2.0/24 via 10.1.0.1",
        );
        fails("route del 192.0.2.0/24", "192.0.2.0/24 by 10.1.0.1", "route add 192.0.2.0/24 via 10.1.0.1");
        fails(
            "link set eth0 address 02:00:00:00:00:99",
            "02:00:00:00:00:99",
            "link set eth0 address 02:00:00:00:00:0a",
        );
        fails(
            "link set eth0 down",
            "down",
            "link set eth0 up;address add fd01::2/112 dev eth0 nodad;route add 192.0.2.0/24 via 10.1.0.1",
        );
        let other = lab.namespace("other");
        let elsewhere = Call { netns: other.path().display().to_string(), ..check.clone() };
        assert_eq!(elsewhere.code(), 100);
        std::fs::remove_file(directory.path().join("leases/blue/10.1.0.2")).unwrap();
        std::fs::remove_file(directory.path().join("leases/blue/fd01::2")).unwrap();
        assert!(check.bad()["msg"].as_str().unwrap().starts_with("host-local"), "the lease is gone");
        daemon.bury("c1");
        assert_eq!(check.code(), 100, "its port is lost");
        call.is("DEL").good();
        assert_eq!(check.code(), 3, "it is not attached");
    });
}

#[test]
fn in_a_chain_what_came_before_is_kept_and_an_earlier_default_route_stands() {
    in_lab("in_a_chain_what_came_before_is_kept_and_an_earlier_default_route_stands", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        pod.ip("link add first type veth peer name second");
        pod.ip("link set second up");
        pod.address("first", "10.9.0.2/24");
        pod.ip("route add default via 10.9.0.1");
        let before = json!({
            "cniVersion": "0.4.0",
            "interfaces": [{"name": "first", "mac": "02:00:00:00:00:77", "sandbox": pod.path()}],
            "ips": [{"version": "4", "address": "10.9.0.2/24", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}],
            "dns": {"nameservers": ["10.9.0.1"]},
        });
        let mut ipam = host_local(directory.path());
        ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let conf = conf("0.4.0", &daemon, &ipam);
        let call = Call::new("c1", &pod.path(), &conf).with("prevResult", before);
        let result = call.good();
        let names: Vec<&Value> =
            result["interfaces"].as_array().unwrap().iter().map(|interface| &interface["name"]).collect();
        assert_eq!(names, ["first", "eth0"]);
        assert_eq!(
            result["ips"],
            json!([
                {"version": "4", "address": "10.9.0.2/24", "interface": 0},
                {"version": "4", "address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1},
                {"version": "6", "address": "fd01::2/112", "gateway": "fd01::1", "interface": 1},
            ])
        );
        let routes = json!([{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}, {"dst": "::/0", "gw": "fd01::1"}]);
        assert_eq!((&result["routes"], &result["dns"]), (&routes, &json!({"nameservers": ["10.9.0.1"]})));
        assert!(pod.ip("route show default").contains("dev first"));
        assert!(pod.ip("-6 route show default").contains("dev eth0"));
        call.is("CHECK").with("prevResult", result).good();
    });
}

#[test]
fn the_daemons_own_ipam_gives_addresses_and_the_gateway_leads_out() {
    in_lab("the_daemons_own_ipam_gives_addresses_and_the_gateway_leads_out", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        let ipam = json!({"type": "vswitch", "pools": [{"subnet": "10.244.0.0/16"}], "routes": [{"dst": "192.0.2.0/24"}]});
        let call = Call::new("c1", &pod.path(), &conf("1.0.0", &daemon, &ipam))
            .with("isDefaultGateway", json!(true))
            .with("vlan", json!(10))
            .with("dns", json!({"search": ["x"]}))
            .with("runtimeConfig", json!({"ips": ["10.244.0.2/16"], "mac": "02:00:00:00:00:42"}));
        let result = call.good();
        assert_eq!(
            result,
            json!({
                "cniVersion": "1.0.0",
                "interfaces": [
                    {"name": "vgw10", "mac": "02:00:00:00:00:01"},
                    {"name": "eth0", "mac": "02:00:00:00:00:42", "sandbox": call.netns},
                ],
                "ips": [{"address": "10.244.0.2/16", "gateway": "10.244.0.1", "interface": 1}],
                "routes": [
                    {"dst": "192.0.2.0/24", "gw": "10.244.0.1"},
                    {"dst": "0.0.0.0/0", "gw": "10.244.0.1"},
                ],
                "dns": {"search": ["x"]},
            })
        );
        let asked = &daemon.asked("cni.add")[0];
        assert_eq!(asked["ipam"], json!({"pools": [{"subnet": "10.244.0.0/16"}], "wanted": ["10.244.0.2"]}));
        let gateway = json!({"interface": "vgw10", "addresses": [], "masquerade": false, "anycast": false});
        assert_eq!(asked["gateway"], gateway);
        // The same again: the same.
        assert_eq!(call.good(), result);
        call.is("CHECK").with("prevResult", result).good();
    });
}

#[test]
fn a_gateway_of_a_delegated_ipam_is_the_leases_or_the_first_or_everywhere_the_same() {
    in_lab("a_gateway_of_a_delegated_ipam_is_the_leases_or_the_first_or_everywhere_the_same", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let give =
            |lease: &str| directory.plugin("giver", &format!("[ $CNI_COMMAND != ADD ] || echo '{lease}'"));
        let pod = lab.namespace("pod");
        let mut call = Call::new("c1", &pod.path(), &conf("1.0.0", &daemon, &json!({"type": "giver"})))
            .with("isDefaultGateway", json!(true));
        call.path = directory.path().display().to_string();
        give(r#"{"ips":[{"address":"10.1.0.5/16","gateway":"10.1.0.9"},{"address":"fd01::5/64"}]}"#);
        let result = call.good();
        assert_eq!(result["ips"][1]["gateway"], "fd01::1");
        assert_eq!(daemon.asked("cni.add")[0]["gateway"]["addresses"], json!(["10.1.0.9/16", "fd01::1/64"]));
        assert!(pod.ip("route show default").contains("via 10.1.0.9"));
        assert!(pod.ip("-6 route show default").contains("via fd01::1"));
        call.is("DEL").good();
        let anycast = call.with("anycastGateway", json!(["10.1.0.254"])).with("ipMasq", json!(true));
        anycast.good();
        let gateway =
            json!({"interface": null, "addresses": ["10.1.0.254/16"], "masquerade": true, "anycast": true});
        assert_eq!(daemon.asked("cni.add")[1]["gateway"], gateway);
        assert!(pod.ip("route show default").contains("via 10.1.0.254"));
        call.is("DEL").good();
        assert_eq!(call.with("anycastGateway", json!(["10.7.0.254"])).code(), 7, "in no subnet");
        give(r#"{"ips":[]}"#);
        assert_eq!(call.code(), 7, "a gateway of nothing");
        assert!(daemon.containers().is_empty());
    });
}

#[test]
fn without_an_ipam_a_pod_has_what_the_runtime_asks_for_or_nothing() {
    in_lab("without_an_ipam_a_pod_has_what_the_runtime_asks_for_or_nothing", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        let mut call = Call::new("c1", &pod.path(), &conf("1.0.0", &daemon, &Value::Null));
        assert_eq!(call.good().get("ips"), None);
        call.is("DEL").good();
        call.args = "IP=10.5.0.5/24,fd05::5/64".to_owned();
        assert_eq!(ips(&call.good()), ["10.5.0.5/24", "fd05::5/64"]);
        call.is("DEL").good();
        call.args = "IP=10.5.0.5".to_owned();
        assert_eq!(call.code(), 7, "without a prefix length");
        assert!(daemon.containers().is_empty());
    });
}

#[test]
fn what_cannot_be_set_in_the_pod_is_taken_back_whole() {
    in_lab("what_cannot_be_set_in_the_pod_is_taken_back_whole", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        let mut ipam = host_local(directory.path());
        ipam["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "172.16.0.1"}]);
        let call = Call::new("c1", &pod.path(), &conf("1.0.0", &daemon, &ipam));
        let error = call.bad();
        assert_eq!(error["code"], 102, "{error}");
        assert!(error["msg"].as_str().unwrap().contains("192.0.2.0/24 by 172.16.0.1"), "{error}");
        assert_eq!((daemon.containers().len(), leases(directory.path()).len()), (0, 0));
        // An interface of that name is somebody else's.
        pod.ip("link add eth0 type veth peer name eth1");
        let call = Call::new("c1", &pod.path(), &conf("1.0.0", &daemon, &host_local(directory.path())));
        assert_eq!(call.code(), 100);
        assert_eq!((daemon.containers().len(), leases(directory.path()).len()), (0, 0));
        assert!(Path::new(&call.netns).exists() && pod.ip("link show eth0").contains("eth0"));
    });
}

#[test]
fn the_neighbours_are_told_who_has_the_addresses_now() {
    in_lab("the_neighbours_are_told_who_has_the_addresses_now", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        // As runtimes have it that want no IPv6 in pods.
        pod.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        Call::new("c1", &pod.path(), &conf("1.0.0", &daemon, &host_local(directory.path()))).good();
        let mut told = (false, false);
        until("both are told", Duration::from_secs(20), || {
            for frame in daemon.frames("c1") {
                // ARP with the sender's address as its target (RFC 5227 §2.3).
                let arp = frame[12..14] == [8, 6]
                    && frame[28..32] == [10, 1, 0, 2]
                    && frame[38..42] == [10, 1, 0, 2];
                // A neighbour advertisement to all nodes (RFC 4861 §7.2.6).
                let target: std::net::Ipv6Addr = "fd01::2".parse().unwrap();
                let nd = frame[12..14] == [0x86, 0xdd]
                    && frame[54] == 136
                    && frame[..2] == [0x33, 0x33]
                    && frame[62..78] == target.octets();
                told = (told.0 || arp, told.1 || nd);
            }
            (told == (true, true)).then_some(())
        });
    });
}

#[test]
fn routes_have_all_that_their_version_knows() {
    in_lab("routes_have_all_that_their_version_knows", |lab| {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        let routes = json!([
            {"dst": "198.51.100.7/24", "mtu": 1300, "advmss": 1200, "priority": 50, "table": 1000},
            {"dst": "203.0.113.0/24", "scope": 253},
            {"dst": "2001:db8::/32", "gw": "fd01::9", "priority": 7, "mtu": 1400},
            {"dst": "2001:db9::/32"},
        ]);
        let ips = json!([{"address": "10.1.0.5/16", "gateway": "10.1.0.1"}, {"address": "fd01::5/64"}]);
        let lease = json!({"cniVersion": "1.1.0", "ips": ips, "routes": routes});
        directory.plugin("giver", &format!("[ $CNI_COMMAND != ADD ] || echo '{lease}'"));
        let mut call = Call::new("c1", &pod.path(), &conf("1.1.0", &daemon, &json!({"type": "giver"})));
        call.path = directory.path().display().to_string();
        let result = call.good();
        assert_eq!(
            result["routes"],
            json!([
                {"dst": "198.51.100.0/24", "gw": "10.1.0.1", "mtu": 1300, "advmss": 1200, "priority": 50, "table": 1000},
                {"dst": "203.0.113.0/24", "scope": 253},
                {"dst": "2001:db8::/32", "gw": "fd01::9", "priority": 7, "mtu": 1400},
                {"dst": "2001:db9::/32"},
            ])
        );
        let shown = pod.ip("route show table 1000");
        for word in ["198.51.100.0/24 via 10.1.0.1", "metric 50", "mtu 1300", "advmss 1200"] {
            assert!(shown.contains(word), "{shown}");
        }
        assert!(pod.ip("route show 203.0.113.0/24").contains("dev eth0 proto static scope link"));
        let shown = pod.ip("-6 route show 2001:db8::/32");
        assert!(
            shown.contains("via fd01::9") && shown.contains("metric 7") && shown.contains("mtu 1400"),
            "{shown}"
        );
        let check = call.is("CHECK").with("prevResult", result);
        assert_eq!(check.good(), Value::Null);
        pod.ip("route del 198.51.100.0/24 table 1000");
        assert!(check.bad()["msg"].as_str().unwrap().contains("198.51.100.0/24"));
    });
}
