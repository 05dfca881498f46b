//! Every verb of CNI by our plugin and our daemon: what each does, twice, late, at once, and without the daemon.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use std::collections::BTreeSet;
use vswitch_tests::cni::{
    Attachment, Failure, Inside, Release, Runner, Verb, attached, host_local, host_local_leases, in_cni,
    left, until_left, vswitch,
};
use vswitch_tests::daemon::{Host, PATIENCE};
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::node::{pings, silence, tcp};
use vswitch_tests::scene::ip;

const BLUE: &str = "[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010\n[[segment]]\nname = \"red\"\nvlan = 20\nvni = 10020\n";

/// A host whose daemon runs, and a runtime on it with one network, `blue`, whose addresses are host-local's.
fn blue(test: &str, body: impl FnOnce(&Lab, &mut Host, &Runner)) {
    with(test, &json!({}), body);
}

fn with(test: &str, more: &Value, body: impl FnOnce(&Lab, &mut Host, &Runner)) {
    in_cni(test, |lab, mut host, path| {
        host.start_on(BLUE);
        let list = list(&host, more);
        let runner = Runner::new(host.namespace(), path, &list);
        body(lab, &mut host, &runner);
    });
}

fn list(host: &Host, more: &Value) -> Value {
    let mut keys = json!({"ipam": host_local(host, &["10.1.0.0/16"])});
    keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    vswitch("blue", &host.socket(), &keys)
}

fn address(result: &Value) -> String {
    let address = result["ips"][0]["address"].as_str().unwrap_or_else(|| panic!("no address in {result}"));
    address.split('/').next().unwrap().to_owned()
}

fn code(runner: &Runner, verb: Verb, attachment: &Attachment, name: &str, value: Option<&str>) -> u64 {
    let said = runner.call(verb, attachment, |plugin| plugin.set(name, value));
    assert_eq!(said.code, 1, "{said:?}");
    let failure = Failure::parse(format!("{} with {name} {value:?}", verb.text()), &said);
    assert!(!failure.version.is_empty(), "{failure}: no cniVersion");
    failure.code
}

#[test]
fn a_pod_has_its_interface_from_add_until_del() {
    blue("a_pod_has_its_interface_from_add_until_del", |lab, host, runner| {
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        let result = runner.add(&attachment).unwrap();
        assert_eq!(result["cniVersion"], "1.1.0");
        let inside = Inside::must(&pod, "eth0");
        assert_eq!(inside.addresses, [result["ips"][0]["address"].as_str().unwrap()]);
        assert!(inside.routes.is_empty(), "no route is asked for: {inside:?}");
        let interface = &result["interfaces"][0];
        assert_eq!(interface["name"], "eth0");
        assert_eq!(interface["mac"], inside.mac.as_str());
        assert_eq!(interface["mtu"], inside.mtu);
        assert_eq!(interface["sandbox"], pod.path().to_str().unwrap());
        assert_eq!(result["ips"][0]["interface"], 0);
        runner.check(&attachment).unwrap();
        let known = attached(&host.socket());
        assert_eq!(known.len(), 1);
        assert_eq!((&known[0]["container"], &known[0]["state"]), (&pod.name().into(), &"up".into()));
        runner.del(&attachment).unwrap();
        // Not in a moment, but when DEL returns.
        assert_eq!((Inside::of(&pod, "eth0"), left(host, &["blue"])), (None, Vec::new()));
    });
}

#[test]
fn two_pods_of_a_network_talk_and_those_of_another_do_not() {
    in_cni("two_pods_of_a_network_talk_and_those_of_another_do_not", |lab, mut host, path| {
        host.start_on(BLUE);
        let ours = Runner::new(host.namespace(), path, &list(&host, &json!({})));
        let red = vswitch("red", &host.socket(), &json!({"ipam": host_local(&host, &["10.1.0.0/16"])}));
        let red = Runner::new(host.namespace(), path, &red);
        let pods = ["a", "b", "c"].map(|name| lab.namespace(name));
        let a = address(&ours.add(&Attachment::new(&pods[0])).unwrap());
        let b = address(&ours.add(&Attachment::new(&pods[1])).unwrap());
        pings(&pods[0], ip(&b));
        tcp(&pods[1], &pods[0], ip(&a), 1 << 20);
        assert_eq!(address(&red.add(&Attachment::new(&pods[2])).unwrap()), a, "a network of its own");
        silence(&pods[2], ip(&b));
    });
}

#[test]
fn what_is_deleted_may_be_deleted_again_and_so_may_what_never_was() {
    blue("what_is_deleted_may_be_deleted_again_and_so_may_what_never_was", |lab, host, runner| {
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        runner.del(&attachment).unwrap();
        runner.add(&attachment).unwrap();
        for _ in 0..3 {
            runner.del(&attachment).unwrap();
            runner.del(&attachment.clone().without_netns()).unwrap();
        }
        runner.del(&Attachment { netns: Some("/nowhere".into()), ..attachment.clone() }).unwrap();
        // And it may be added again.
        runner.add(&attachment).unwrap();
        runner.check(&attachment).unwrap();
        runner.del(&attachment.without_netns()).unwrap();
        assert_eq!((Inside::of(&pod, "eth0"), left(host, &["blue"])), (None, Vec::new()));
    });
}

#[test]
fn a_pod_whose_namespace_went_first_is_deleted_without_one() {
    blue("a_pod_whose_namespace_went_first_is_deleted_without_one", |lab, host, runner| {
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        runner.add(&attachment).unwrap();
        drop(pod);
        // As `ctr run --rm` does.
        runner.del(&attachment.without_netns()).unwrap();
        assert_eq!(left(host, &["blue"]), Vec::<String>::new());
    });
}

#[test]
fn an_interface_that_is_there_is_not_added_twice_and_stays() {
    blue("an_interface_that_is_there_is_not_added_twice_and_stays", |lab, host, runner| {
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        let result = runner.add(&attachment).unwrap();
        let before = Inside::must(&pod, "eth0");
        // A runtime must not; what it has is not to suffer for it.
        match runner.add(&attachment) {
            Ok(again) => assert_eq!(again, result),
            Err(failure) => assert!(failure.code >= 100, "{failure}"),
        }
        assert_eq!(Inside::must(&pod, "eth0"), before);
        runner.check(&attachment).unwrap();
        assert_eq!(host_local_leases(host, "blue"), [address(&result)]);
        // Nor does an interface of that name that is somebody else's.
        let other = lab.namespace("other");
        other.ip("link add eth0 type veth peer name eth9");
        assert!(runner.add(&Attachment::new(&other)).is_err());
        assert!(other.run("ip -d link show dev eth0").contains("veth"));
        runner.del(&Attachment::new(&other)).unwrap();
        assert!(other.run("ip -d link show dev eth0").contains("veth"));
        runner.del(&attachment).unwrap();
        assert_eq!(left(host, &["blue"]), Vec::<String>::new());
    });
}

#[test]
fn a_container_that_comes_back_in_another_namespace_leaves_the_old_one() {
    let network = json!({"ipam": {}});
    with(
        "a_container_that_comes_back_in_another_namespace_leaves_the_old_one",
        &network,
        |lab, host, runner| {
            let pods = ["old", "new"].map(|name| lab.namespace(name));
            let [old, new] = pods.each_ref().map(|pod| Attachment::new(pod).of("one"));
            runner.add(&old).unwrap();
            let again = runner.add(&old).unwrap();
            assert_eq!(Some(again), runner.cached(&old));
            runner.add(&new).unwrap();
            runner.check(&new).unwrap();
            until("the old one to go", PATIENCE, || Inside::of(&pods[0], "eth0").is_none().then_some(()));
            assert_eq!(attached(&host.socket()).len(), 1);
            runner.del(&new).unwrap();
            assert_eq!(left(host, &[]), Vec::<String>::new());
        },
    );
}

#[test]
fn fifty_pods_come_and_go_at_once() {
    blue("fifty_pods_come_and_go_at_once", |lab, host, runner| {
        let pods: Vec<Namespace> = (0..50).map(|n| lab.namespace(&format!("p{n}"))).collect();
        let attachments: Vec<Attachment> = pods.iter().map(Attachment::new).collect();
        let results: Vec<Value> = std::thread::scope(|scope| {
            let adding: Vec<_> = attachments
                .iter()
                .map(|attachment| scope.spawn(|| runner.add(attachment).unwrap()))
                .collect();
            adding.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let addresses: BTreeSet<String> = results.iter().map(address).collect();
        let macs: BTreeSet<&str> =
            results.iter().map(|r| r["interfaces"][0]["mac"].as_str().unwrap()).collect();
        assert_eq!((addresses.len(), macs.len()), (50, 50));
        for (attachment, n) in attachments.iter().zip(0..) {
            runner.check(attachment).unwrap();
            if n % 10 == 0 {
                pings(&pods[n], ip(&address(&results[(n + 7) % 50])));
            }
        }
        std::thread::scope(|scope| {
            for attachment in &attachments {
                scope.spawn(|| runner.del(attachment).unwrap());
            }
        });
        assert_eq!(left(host, &["blue"]), Vec::<String>::new());
        assert!(pods.iter().all(|pod| Inside::of(pod, "eth0").is_none()));
    });
}

#[test]
fn without_the_daemon_every_verb_says_so_and_nothing_is_taken() {
    blue("without_the_daemon_every_verb_says_so_and_nothing_is_taken", |lab, host, runner| {
        let pods = ["a", "b"].map(|name| lab.namespace(name));
        let [there, new] = pods.each_ref().map(Attachment::new);
        let result = runner.add(&there).unwrap();
        host.end("TERM");
        assert_eq!(runner.add(&new).unwrap_err().code, 11);
        assert_eq!(runner.del(&there).unwrap_err().code, 11);
        assert_eq!(runner.check(&there).unwrap_err().code, 11);
        assert_eq!(runner.gc_plugins(Some(&[])).unwrap_err().code, 11);
        assert!([50, 51].contains(&runner.status().unwrap_err().code));
        // The one that was refused holds no address; the one that was not let go does.
        assert_eq!(host_local_leases(host, "blue"), [address(&result)]);
        assert_eq!(runner.attachments(), std::slice::from_ref(&there));
        host.start();
        runner.status().unwrap();
        // Nobody kept its interface.
        let lost = runner.check(&there).unwrap_err();
        assert!(lost.code >= 100 || lost.code == 3, "{lost}");
        runner.add(&new).unwrap();
        runner.del(&there).unwrap();
        runner.del(&new).unwrap();
        assert_eq!(left(host, &["blue"]), Vec::<String>::new());
    });
}

#[test]
fn a_namespace_that_dies_takes_its_port_along_and_gc_frees_the_address() {
    blue("a_namespace_that_dies_takes_its_port_along_and_gc_frees_the_address", |lab, host, runner| {
        let (dead, alive) = (lab.namespace("dead"), lab.namespace("alive"));
        let kept = Attachment::new(&alive);
        runner.add(&Attachment::new(&dead)).unwrap();
        let address = address(&runner.add(&kept).unwrap());
        drop(dead);
        // As `ctr run -d` does: nobody ever says DEL.
        let of_pods = |host: &Host| host.rows("port").len();
        until("the port to go", PATIENCE, || (of_pods(host) == 1).then_some(()));
        // No attachments are listed: what is provably gone goes, and nothing else.
        runner.gc_plugins(None).unwrap();
        assert_eq!(host_local_leases(host, "blue"), [address]);
        runner.check(&kept).unwrap();
        runner.del(&kept).unwrap();
        assert_eq!(left(host, &["blue"]), Vec::<String>::new());
    });
}

#[test]
fn gc_removes_what_is_not_listed_and_nothing_of_another_network() {
    in_cni("gc_removes_what_is_not_listed_and_nothing_of_another_network", |lab, mut host, path| {
        host.start_on(BLUE);
        let blue = Runner::new(host.namespace(), path, &list(&host, &json!({})));
        let red = vswitch("red", &host.socket(), &json!({"ipam": host_local(&host, &["10.2.0.0/16"])}));
        let red = Runner::new(host.namespace(), path, &red);
        let pods = ["a", "b", "c"].map(|name| lab.namespace(name));
        let [a, b, c] = pods.each_ref().map(Attachment::new);
        let keeps = address(&blue.add(&a).unwrap());
        blue.add(&b).unwrap();
        red.add(&c.clone().at("net1")).unwrap();
        // A runtime that has lost its cache.
        blue.gc_plugins(Some(std::slice::from_ref(&a))).unwrap();
        assert_eq!((Inside::of(&pods[1], "eth0"), host_local_leases(&host, "blue")), (None, vec![keeps]));
        blue.check(&a).unwrap();
        red.check(&c.at("net1")).unwrap();
        // And one that has not.
        blue.gc(&[]).unwrap();
        assert_eq!(Inside::of(&pods[0], "eth0"), None);
        red.gc(&[]).unwrap();
        assert_eq!(left(&host, &["blue", "red"]), Vec::<String>::new());
    });
}

#[test]
fn check_finds_what_was_changed_behind_the_plugins_back() {
    let network = json!({"isDefaultGateway": false});
    with("check_finds_what_was_changed_behind_the_plugins_back", &network, |lab, host, runner| {
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        let bad = |what: &str| {
            let failure = runner.check(&attachment).expect_err(what);
            assert!(failure.code >= 100 || failure.code == 3, "{what}: {failure}");
            runner.del(&attachment).unwrap();
        };
        let result = runner.add(&attachment).unwrap();
        pod.ip(&format!("address del {} dev eth0", result["ips"][0]["address"].as_str().unwrap()));
        bad("the address is gone");
        runner.add(&attachment).unwrap();
        pod.ip("link set dev eth0 name eth7");
        bad("it has another name");
        runner.add(&attachment).unwrap();
        pod.ip("link set dev eth0 address 02:00:00:00:00:77");
        bad("it has another MAC address");
        runner.add(&attachment).unwrap();
        pod.ip("link set dev eth0 down");
        bad("it is down");
        runner.add(&attachment).unwrap();
        pod.ip("link del dev eth0");
        bad("it was deleted");
        runner.add(&attachment).unwrap();
        let lease = &host_local_leases(host, "blue")[0];
        std::fs::remove_file(host.file("host-local").join("blue").join(lease)).unwrap();
        let failure = runner.check(&attachment).expect_err("the lease is gone");
        assert!(failure.code > 0, "{failure}");
        runner.del(&attachment).unwrap();
        assert_eq!(left(host, &["blue"]), Vec::<String>::new());
    });
}

#[test]
fn what_is_wrong_with_a_call_has_the_code_of_the_specification() {
    blue("what_is_wrong_with_a_call_has_the_code_of_the_specification", |lab, host, runner| {
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        // 4: the environment.
        for (verb, name, value) in [
            (Verb::Add, "CNI_COMMAND", None),
            (Verb::Add, "CNI_COMMAND", Some("FETCH")),
            (Verb::Add, "CNI_CONTAINERID", None),
            (Verb::Add, "CNI_CONTAINERID", Some("../x")),
            (Verb::Add, "CNI_NETNS", None),
            (Verb::Add, "CNI_NETNS", Some("")),
            (Verb::Add, "CNI_IFNAME", None),
            (Verb::Add, "CNI_IFNAME", Some("longer-than-15-bytes")),
            (Verb::Add, "CNI_IFNAME", Some("a/b")),
            (Verb::Add, "CNI_ARGS", Some("WHATEVER=1")),
            (Verb::Add, "CNI_ARGS", Some("MAC=02")),
            (Verb::Del, "CNI_CONTAINERID", None),
            (Verb::Del, "CNI_IFNAME", None),
        ] {
            assert_eq!(code(runner, verb, &attachment, name, value), 4, "{} {name} {value:?}", verb.text());
        }
        assert!(code(runner, Verb::Add, &attachment, "CNI_NETNS", Some("/nowhere")) > 0);
        assert!(code(runner, Verb::Add, &attachment, "CNI_NETNS", Some("/etc/passwd")) > 0);
        let config = |edit: &dyn Fn(&mut Value)| {
            let said = runner.call(Verb::Add, &attachment, |plugin| {
                let mut config: Value = serde_json::from_str(&plugin.config).unwrap();
                edit(&mut config);
                plugin.config = config.to_string();
            });
            assert_eq!(said.code, 1, "{said:?}");
            Failure::parse("ADD".to_owned(), &said)
        };
        // 1: a release of the specification that nobody knows.
        assert_eq!(config(&|config| config["cniVersion"] = "7.0.0".into()).code, 1);
        // 6: not understood.
        let said = runner.call(Verb::Add, &attachment, |plugin| "{\"cni".clone_into(&mut plugin.config));
        assert_eq!(Failure::parse("ADD".to_owned(), &said).code, 6);
        // 7: wrong; 2: not known.
        for (key, value) in [
            ("segment", json!("green")),
            ("vlan", json!(4095)),
            ("vlanMode", json!("hybrid")),
            ("mtu", json!(1)),
            ("trunks", json!([5000])),
            ("isGateway", json!("yes")),
            ("ipMasq", json!(true)),
            ("bandwidth", json!({"ingressRate": -1})),
            ("name", json!("../blue")),
            ("ipam", json!({"type": "nobody"})),
            ("ipam", json!({"type": "vswitch"})),
        ] {
            let failure = config(&|config| config[key] = value.clone());
            assert!([2, 7].contains(&failure.code), "{key} = {value}: {failure}");
        }
        assert!([2, 7].contains(&config(&|config| config["antiSpof"] = true.into()).code));
        // What a runtime does after an ADD that failed.
        runner.del(&attachment).unwrap();
        assert_eq!((left(host, &["blue"]), Inside::of(&pod, "eth0")), (Vec::new(), None));
    });
}

#[test]
fn status_says_whether_an_add_could_work_now() {
    in_cni("status_says_whether_an_add_could_work_now", |_, mut host, path| {
        host.start_on(BLUE);
        let on = |host: &Host, more: &Value| Runner::new(host.namespace(), path, &list(host, more));
        on(&host, &json!({})).status().unwrap();
        let wrong = on(&host, &json!({"segment": "green"}));
        let failure = wrong.status().unwrap_err();
        assert!([7, 50].contains(&failure.code), "{failure}");
        let nobody = on(&host, &json!({"ipam": {"type": "nobody"}}));
        assert!([7, 50].contains(&nobody.status().unwrap_err().code));
        // An older runtime has no such verb, and does not ask.
        on(&host, &json!({"segment": "green"})).speaking(&[Release::V1_0_0]).status().unwrap();
        host.end("KILL");
        let down = on(&host, &json!({})).status().unwrap_err();
        assert!([50, 51].contains(&down.code), "{down}");
    });
}

#[test]
fn a_runtime_asks_for_a_mac_and_its_loudest_word_counts() {
    let network = json!({"ipam": {}, "capabilities": {"mac": true, "ips": true},
        "args": {"cni": {"mac": "02:00:00:00:00:02", "ips": ["10.5.0.2/24"]}}});
    with("a_runtime_asks_for_a_mac_and_its_loudest_word_counts", &network, |lab, host, runner| {
        let pods = ["a", "b"].map(|name| lab.namespace(name));
        let quiet = Attachment::new(&pods[0])
            .arg("IgnoreUnknown", "1")
            .arg("K8S_POD_NAME", "web-0")
            .arg("MAC", "02:00:00:00:00:03")
            .arg("IP", "10.5.0.3/24");
        runner.add(&quiet).unwrap();
        let inside = Inside::must(&pods[0], "eth0");
        assert_eq!(
            (inside.mac.as_str(), inside.addresses),
            ("02:00:00:00:00:02", vec!["10.5.0.2/24".to_owned()])
        );
        let loud = Attachment { container: "b".into(), netns: Some(pods[1].path()), ..quiet }
            .capability("mac", "02:00:00:00:00:01".into())
            .capability("ips", json!(["10.5.0.1/24", "fd05::1/64"]));
        let result = runner.add(&loud).unwrap();
        let inside = Inside::must(&pods[1], "eth0");
        assert_eq!(inside.mac, "02:00:00:00:00:01");
        assert_eq!(inside.addresses, ["10.5.0.1/24", "fd05::1/64"]);
        assert_eq!(result["ips"].as_array().unwrap().len(), 2);
        runner.check(&loud).unwrap();
        pings(&pods[0], ip("10.5.0.1"));
        runner.gc(&[]).unwrap();
        until_left(host, &[]);
    });
}
