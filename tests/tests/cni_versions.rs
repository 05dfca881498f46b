//! Releases of the CNI specification: what is answered in each, and that each has its own verbs and forms.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use vswitch_tests::cni::{
    Attachment, Failure, Inside, Release, Runner, Verb, host_local, in_cni, left, vswitch,
};
use vswitch_tests::daemon::Host;

const BLUE: &str = "[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010\n";

fn list(host: &Host) -> Value {
    let mut ipam = host_local(host, &["10.1.0.0/16", "fd01::/64"]);
    ipam["routes"] =
        json!([{"dst": "10.77.0.0/16", "gw": "10.1.0.1"}, {"dst": "fd77::/64", "gw": "fd01::1"}]);
    vswitch("blue", &host.socket(), &json!({"ipam": ipam, "dns": {"nameservers": ["10.1.0.1"]}}))
}

#[test]
fn a_pod_lives_and_dies_in_every_release() {
    in_cni("a_pod_lives_and_dies_in_every_release", |lab, mut host, path| {
        host.start_on(BLUE);
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        for release in Release::ALL {
            // The form of the result is looked at by the runner.
            let runner = Runner::new(host.namespace(), path, &list(&host)).speaking(&[release]);
            assert_eq!(runner.release(), release);
            let result = runner.add(&attachment).unwrap();
            assert_eq!(result["cniVersion"], release.text());
            let family = |n: usize| result["ips"][n]["version"].as_str();
            let said = if release == Release::V0_4_0 { [Some("4"), Some("6")] } else { [None, None] };
            assert_eq!([family(0), family(1)], said);
            assert_eq!(result["interfaces"][0].get("mtu").is_some(), release == Release::V1_1_0);
            assert_eq!(result["dns"]["nameservers"], json!(["10.1.0.1"]));
            assert_eq!(result["routes"].as_array().unwrap().len(), 2);
            let inside = Inside::must(&pod, "eth0");
            assert_eq!(inside.addresses.len(), 2);
            assert!(
                inside.routes.iter().any(|route| route.starts_with("10.77.0.0/16 via 10.1.0.1")),
                "{inside:?}"
            );
            assert!(
                inside.routes.iter().any(|route| route.starts_with("fd77::/64 via fd01::1")),
                "{inside:?}"
            );
            runner.check(&attachment).unwrap();
            runner.gc(std::slice::from_ref(&attachment)).unwrap();
            runner.status().unwrap();
            runner.check(&attachment).unwrap();
            runner.del(&attachment).unwrap();
            assert_eq!((left(&host, &["blue"]), Inside::of(&pod, "eth0")), (Vec::new(), None));
        }
    });
}

#[test]
fn what_one_release_added_another_deletes() {
    in_cni("what_one_release_added_another_deletes", |lab, mut host, path| {
        host.start_on(BLUE);
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        // A runtime that was upgraded, and one that was put back.
        for [before, after] in [[Release::V0_4_0, Release::V1_1_0], [Release::V1_1_0, Release::V0_4_0]] {
            let old = Runner::new(host.namespace(), path, &list(&host)).speaking(&[before]);
            old.add(&attachment).unwrap();
            let new = Runner::new(host.namespace(), path, &list(&host)).speaking(&[after]);
            new.del(&attachment).unwrap();
            assert_eq!((left(&host, &["blue"]), Inside::of(&pod, "eth0")), (Vec::new(), None));
        }
    });
}

#[test]
fn the_plugin_names_the_releases_that_it_supports_without_a_daemon() {
    in_cni("the_plugin_names_the_releases_that_it_supports_without_a_daemon", |_, host, path| {
        for release in Release::ALL {
            let runner = Runner::new(host.namespace(), path, &list(&host)).speaking(&[release]);
            let versions = runner.versions("vswitch-cni");
            for wanted in Release::ALL {
                assert!(versions.iter().any(|one| one == wanted.text()), "{} in {versions:?}", wanted.text());
            }
        }
    });
}

#[test]
fn a_release_has_the_verbs_that_it_has() {
    in_cni("a_release_has_the_verbs_that_it_has", |lab, mut host, path| {
        host.start_on(BLUE);
        let runner = Runner::new(host.namespace(), path, &list(&host));
        let attachment = Attachment::new(&lab.namespace("pod"));
        let ask = |verb: Verb, version: &str| {
            let said = runner.call(verb, &attachment, |plugin| {
                let mut config: Value = serde_json::from_str(&plugin.config).unwrap();
                config["cniVersion"] = version.into();
                plugin.config = config.to_string();
            });
            (said.code != 0).then(|| Failure::parse(format!("{} in {version}", verb.text()), &said))
        };
        // The older ones have neither.
        for verb in [Verb::Status, Verb::Gc] {
            assert_eq!(ask(verb, "1.1.0"), None);
            for version in ["0.4.0", "1.0.0"] {
                let failure = ask(verb, version).unwrap();
                assert_eq!((failure.code, failure.version.as_str()), (1, version), "{failure}");
            }
        }
        for version in ["0.1.0", "2.0.0", "one", ""] {
            let failure = ask(Verb::Add, version).unwrap();
            assert_eq!(failure.code, 1, "{failure}");
        }
    });
}
