//! Addresses of pods: from host-local and others by delegation, from vswitch itself, and from nobody.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use std::collections::BTreeSet;
use vswitch_tests::cni::{
    Attachment, Inside, Runner, attached, host_local, host_local_leases, in_cni, left, until_left, vswitch,
};
use vswitch_tests::daemon::{Host, PATIENCE};
use vswitch_tests::lab::{Namespace, until};
use vswitch_tests::node::pings;
use vswitch_tests::scene::ip;

const BLUE: &str = "[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010\n";

fn list(host: &Host, ipam: &Value, more: &Value) -> Value {
    let mut keys = json!({"ipam": ipam, "capabilities": {"ips": true, "mac": true}});
    keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    vswitch("blue", &host.socket(), &keys)
}

fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    ips.iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn host_local_gives_both_families_and_the_routes_that_it_names() {
    in_cni("host_local_gives_both_families_and_the_routes_that_it_names", |lab, mut host, path| {
        host.start_on(BLUE);
        let mut ipam = host_local(&host, &["10.1.0.0/16", "fd01::/64"]);
        ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "fd99::/48", "gw": "fd01::9"}]);
        let runner = Runner::new(host.namespace(), path, &list(&host, &ipam, &json!({})));
        let pods = ["a", "b"].map(|name| lab.namespace(name));
        let [a, b] = pods.each_ref().map(Attachment::new);
        runner.add(&a).unwrap();
        let result = runner.add(&b).unwrap();
        let inside = Inside::must(&pods[1], "eth0");
        assert_eq!(inside.addresses, addresses(&result));
        assert_eq!(inside.addresses.len(), 2);
        // Nobody asked for a gateway: the one of host-local's range is where its default route leads.
        assert!(inside.routes.iter().any(|route| route.starts_with("default via 10.1.0.1")), "{inside:?}");
        assert!(inside.routes.iter().any(|route| route.starts_with("fd99::/48 via fd01::9")), "{inside:?}");
        for address in &inside.addresses {
            pings(&pods[0], ip(address.split('/').next().unwrap()));
        }
        runner.check(&b).unwrap();
        pods[1].ip("route del default");
        assert!(runner.check(&b).is_err());
        runner.gc(&[]).unwrap();
        assert_eq!(left(&host, &["blue"]), Vec::<String>::new());
    });
}

#[test]
fn there_is_a_default_route_only_where_it_is_asked_for() {
    in_cni("there_is_a_default_route_only_where_it_is_asked_for", |lab, mut host, path| {
        host.start_on(BLUE);
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        let ipam = host_local(&host, &["10.1.0.0/16", "fd01::/64"]);
        for (more, wanted) in [(json!({}), false), (json!({"isDefaultGateway": true}), true)] {
            let runner = Runner::new(host.namespace(), path, &list(&host, &ipam, &more));
            let result = runner.add(&attachment).unwrap();
            let defaults: Vec<String> = Inside::must(&pod, "eth0").routes;
            let defaults: Vec<&String> =
                defaults.iter().filter(|route| route.starts_with("default")).collect();
            assert_eq!(defaults.len(), if wanted { 2 } else { 0 }, "{more}: {defaults:?}");
            let said = result["routes"].as_array().map_or(0, Vec::len);
            assert_eq!(said, defaults.len(), "{result}");
            runner.check(&attachment).unwrap();
            runner.del(&attachment).unwrap();
        }
        assert_eq!(left(&host, &["blue"]), Vec::<String>::new());
    });
}

#[test]
fn what_an_ipam_refuses_is_said_as_it_said_it_and_nothing_is_left() {
    in_cni("what_an_ipam_refuses_is_said_as_it_said_it_and_nothing_is_left", |lab, mut host, path| {
        host.start_on(BLUE);
        // Two addresses, one of them the gateway's.
        let ipam = host_local(&host, &["10.1.0.0/30"]);
        let runner = Runner::new(host.namespace(), path, &list(&host, &ipam, &json!({})));
        let pods = ["a", "b"].map(|name| lab.namespace(name));
        let [a, b] = pods.each_ref().map(Attachment::new);
        let result = runner.add(&a).unwrap();
        let failure = runner.add(&b).unwrap_err();
        assert!(failure.code > 0 && failure.msg.contains("no IP addresses available"), "{failure}");
        assert_eq!(Inside::of(&pods[1], "eth0"), None);
        runner.check(&a).unwrap();
        assert_eq!(left(&host, &["blue"]).iter().filter(|line| line.starts_with("lease")).count(), 1);
        // The pod dies and nobody says so; the next one needs its address.
        let [first, second] = pods;
        drop(first);
        until("the port to go", PATIENCE, || host.rows("port").is_empty().then_some(()));
        assert_eq!(addresses(&runner.add(&b).unwrap()), addresses(&result));
        runner.check(&b).unwrap();
        drop(second);
        runner.gc(&[]).unwrap();
        until_left(&host, &["blue"]);
    });
}

#[test]
fn a_port_that_cannot_be_had_gives_its_address_back() {
    in_cni("a_port_that_cannot_be_had_gives_its_address_back", |lab, mut host, path| {
        host.start_on(BLUE);
        let ipam = host_local(&host, &["10.1.0.0/16"]);
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        pod.ip("link add eth0 type bridge");
        let good = Runner::new(host.namespace(), path, &list(&host, &ipam, &json!({})));
        let taken = good.add(&attachment).unwrap_err();
        assert!(taken.code >= 100, "{taken}");
        assert_eq!(left(&host, &["blue"]), Vec::<String>::new(), "{taken}");
        pod.ip("link del eth0");
        // A route that the kernel refuses, after the port was made.
        let mut wrong = ipam;
        wrong["routes"] = json!([{"dst": "10.50.0.0/16", "gw": "203.0.113.1"}]);
        let bad = Runner::new(host.namespace(), path, &list(&host, &wrong, &json!({})));
        let unreachable = bad.add(&attachment).unwrap_err();
        assert!(unreachable.code >= 100, "{unreachable}");
        assert_eq!((left(&host, &["blue"]), Inside::of(&pod, "eth0")), (Vec::new(), None), "{unreachable}");
        good.add(&attachment).unwrap();
        good.del(&attachment).unwrap();
        assert_eq!(left(&host, &["blue"]), Vec::<String>::new());
    });
}

#[test]
fn the_stock_static_ipam_gives_the_addresses_of_the_file() {
    in_cni("the_stock_static_ipam_gives_the_addresses_of_the_file", |lab, mut host, path| {
        host.start_on(BLUE);
        let ipam = json!({"type": "static", "addresses": [{"address": "10.6.0.9/24", "gateway": "10.6.0.1"}],
            "routes": [{"dst": "0.0.0.0/0"}]});
        let runner = Runner::new(host.namespace(), path, &list(&host, &ipam, &json!({})));
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        runner.add(&attachment).unwrap();
        let inside = Inside::must(&pod, "eth0");
        assert_eq!(inside.addresses, ["10.6.0.9/24"]);
        assert!(inside.routes.iter().any(|route| route.starts_with("default via 10.6.0.1")), "{inside:?}");
        runner.check(&attachment).unwrap();
        runner.del(&attachment).unwrap();
        assert_eq!(left(&host, &[]), Vec::<String>::new());
    });
}

#[test]
fn a_static_address_by_the_runtimes_wish_goes_through_host_local() {
    in_cni("a_static_address_by_the_runtimes_wish_goes_through_host_local", |lab, mut host, path| {
        host.start_on(BLUE);
        let ipam = host_local(&host, &["10.1.0.0/16"]);
        let runner = Runner::new(host.namespace(), path, &list(&host, &ipam, &json!({})));
        let pods = ["a", "b", "c"].map(|name| lab.namespace(name));
        let [a, b, c] = pods.each_ref().map(Attachment::new);
        let a = a.capability("ips", json!(["10.1.2.3/16"]));
        assert_eq!(addresses(&runner.add(&a).unwrap()), ["10.1.2.3/16"]);
        // It is taken.
        let b = b.capability("ips", json!(["10.1.2.3/16"]));
        assert!(runner.add(&b).is_err());
        let c = c.arg("IP", "10.1.2.4").arg("IgnoreUnknown", "1");
        assert_eq!(addresses(&runner.add(&c).unwrap()), ["10.1.2.4/16"]);
        assert_eq!(host_local_leases(&host, "blue"), ["10.1.2.3", "10.1.2.4"]);
        runner.gc(&[]).unwrap();
        runner.del(&b).unwrap();
        assert_eq!(left(&host, &["blue"]), Vec::<String>::new());
    });
}

fn built_in(pools: &Value) -> Value {
    json!({"type": "vswitch", "pools": pools})
}

#[test]
fn vswitch_gives_addresses_of_both_families_by_itself() {
    in_cni("vswitch_gives_addresses_of_both_families_by_itself", |lab, mut host, path| {
        host.start_on(BLUE);
        let mut ipam = built_in(
            &json!([{"subnet": "10.244.0.0/16", "block": 24}, {"subnet": "fd44::/64", "block": 112}]),
        );
        ipam["routes"] = json!([{"dst": "10.99.0.0/16", "gw": "10.244.0.1"}]);
        let runner = Runner::new(host.namespace(), path, &list(&host, &ipam, &json!({})));
        let pods = ["a", "b"].map(|name| lab.namespace(name));
        let [a, b] = pods.each_ref().map(Attachment::new);
        runner.add(&a).unwrap();
        let result = runner.add(&b).unwrap();
        let inside = Inside::must(&pods[1], "eth0");
        let mut said = addresses(&result);
        said.sort();
        assert_eq!(inside.addresses, said);
        assert!(said[0].starts_with("10.244.") && said[0].ends_with("/16"), "{said:?}");
        assert!(said[1].starts_with("fd44:") && said[1].ends_with("/64"), "{said:?}");
        assert!(
            inside.routes.iter().any(|route| route.starts_with("10.99.0.0/16 via 10.244.0.1")),
            "{inside:?}"
        );
        for address in &said {
            pings(&pods[0], ip(address.split('/').next().unwrap()));
        }
        runner.check(&a).unwrap();
        runner.check(&b).unwrap();
        // The same question has the same answer.
        assert_eq!(runner.add(&b).unwrap(), result);
        runner.gc(&[]).unwrap();
        assert_eq!(left(&host, &[]), Vec::<String>::new());
    });
}

#[test]
fn an_address_of_vswitch_is_free_when_its_pod_is_gone_and_not_before() {
    in_cni("an_address_of_vswitch_is_free_when_its_pod_is_gone_and_not_before", |lab, mut host, path| {
        host.start_on(BLUE);
        // Six addresses, one of them the gateway's.
        let ipam = built_in(&json!([{"subnet": "10.244.0.0/29"}]));
        let runner = Runner::new(host.namespace(), path, &list(&host, &ipam, &json!({})));
        let mut pods: Vec<Namespace> = (0..6).map(|n| lab.namespace(&format!("p{n}"))).collect();
        let attachments: Vec<Attachment> = pods.iter().map(Attachment::new).collect();
        let given: BTreeSet<String> =
            attachments[..5].iter().map(|one| addresses(&runner.add(one).unwrap()).remove(0)).collect();
        assert_eq!(given.len(), 5, "{given:?}");
        assert!(!given.contains("10.244.0.1/29"), "the gateway's: {given:?}");
        let full = runner.add(&attachments[5]).unwrap_err();
        assert!(full.code > 0, "{full}");
        // The daemon's journal remembers, and without a keeper nobody had the interfaces.
        host.end("KILL");
        host.start();
        assert!(runner.add(&attachments[5]).is_err());
        runner.del(&attachments[0]).unwrap();
        let again = addresses(&runner.add(&attachments[5]).unwrap()).remove(0);
        assert!(given.contains(&again));
        // One that dies without a word.
        drop(pods.remove(5));
        until("the dead one to go", PATIENCE, || (attached(&host.socket()).len() == 4).then_some(()));
        runner.add(&attachments[1]).unwrap();
        runner.add(&attachments[0]).unwrap();
        runner.gc(&[]).unwrap();
        until_left(&host, &[]);
    });
}

#[test]
fn vswitch_gives_the_address_that_is_asked_for_out_of_a_static_range() {
    in_cni("vswitch_gives_the_address_that_is_asked_for_out_of_a_static_range", |lab, mut host, path| {
        host.start_on(BLUE);
        let ipam =
            built_in(&json!([{"subnet": "10.244.0.0/24", "block": 24, "static": ["10.244.0.128/25"]}]));
        let runner = Runner::new(host.namespace(), path, &list(&host, &ipam, &json!({})));
        let pods = ["a", "b", "c"].map(|name| lab.namespace(name));
        let [a, b, c] = pods.each_ref().map(Attachment::new);
        let a = a.capability("ips", json!(["10.244.0.200/24"]));
        assert_eq!(addresses(&runner.add(&a).unwrap()), ["10.244.0.200/24"]);
        let b = b.capability("ips", json!(["10.244.0.200/24"]));
        assert!(runner.add(&b).unwrap_err().code >= 100);
        assert_ne!(addresses(&runner.add(&c).unwrap()), ["10.244.0.200/24"]);
        runner.del(&a).unwrap();
        assert_eq!(addresses(&runner.add(&b).unwrap()), ["10.244.0.200/24"]);
        runner.gc(&[]).unwrap();
        assert_eq!(left(&host, &[]), Vec::<String>::new());
    });
}

#[test]
fn a_network_without_ipam_gives_no_address() {
    in_cni("a_network_without_ipam_gives_no_address", |lab, mut host, path| {
        host.start_on(BLUE);
        let runner = Runner::new(host.namespace(), path, &list(&host, &json!({}), &json!({})));
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        let result = runner.add(&attachment).unwrap();
        let inside = Inside::must(&pod, "eth0");
        assert_eq!((addresses(&result), &inside.addresses, &inside.routes), (vec![], &vec![], &vec![]));
        runner.check(&attachment).unwrap();
        runner.del(&attachment).unwrap();
        assert_eq!(left(&host, &[]), Vec::<String>::new());
    });
}
