//! The runner itself, proved against Debian's plugins: bridge, host-local, portmap, bandwidth and tuning.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vswitch_tests::cni::{Attachment, Release, Runner, Verb, stock};
use vswitch_tests::lab::{Lab, Namespace};
use vswitch_tests::node::{is_installed, pings, tcp};
use vswitch_tests::scene::ip;

/// A directory for host-local, which goes with its guard.
struct Data(PathBuf);

impl Data {
    fn new(host: &Namespace) -> Self {
        Self(std::env::temp_dir().join(format!("cni-{}", host.name())))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bridge(data: &Path) -> Value {
    json!({"type": "bridge", "bridge": "cni0", "isGateway": true, "capabilities": {"mac": true, "ips": true},
        "ipam": {"type": "host-local", "dataDir": data, "ranges": [[{"subnet": "10.9.0.0/24"}]],
            "routes": [{"dst": "10.77.0.0/16", "gw": "10.9.0.1"}]}})
}

fn list(version: &str, plugins: &[Value]) -> Value {
    json!({"cniVersion": version, "name": "stock", "plugins": plugins})
}

fn on_host(test: &str, body: impl FnOnce(&Lab, &Namespace, &[PathBuf], &Path)) {
    stock(test, |lab, host, path| {
        let data = Data::new(host);
        body(lab, host, path, &data.0);
    });
}

fn has(pod: &Namespace, link: &str) -> bool {
    pod.try_run(&format!("ip link show dev {link}")).status.success()
}

#[test]
fn two_pods_of_the_stock_bridge_talk_are_checked_and_go() {
    on_host("two_pods_of_the_stock_bridge_talk_are_checked_and_go", |lab, host, path, data| {
        for (n, version) in ["0.4.0", "1.0.0"].iter().enumerate() {
            let runner = Runner::new(host, path, &list(version, &[bridge(data)]));
            let pods = ["a", "b"].map(|name| lab.namespace(&format!("{name}{n}")));
            let attachments = pods.each_ref().map(Attachment::new);
            let addresses = attachments.each_ref().map(|attachment| {
                let result = runner.add(attachment).unwrap();
                runner.check(attachment).unwrap();
                let address = result["ips"][0]["address"].as_str().unwrap().to_owned();
                address.strip_suffix("/24").unwrap().to_owned()
            });
            assert_eq!(runner.attachments().len(), 2);
            pings(&pods[0], ip(&addresses[1]));
            tcp(&pods[1], &pods[0], ip(&addresses[0]), 1 << 20);
            // What CHECK is for.
            pods[0].ip(&format!("address del {}/24 dev eth0", addresses[0]));
            assert!(runner.check(&attachments[0]).unwrap_err().code > 0);
            for (attachment, pod) in attachments.iter().zip(&pods) {
                runner.del(attachment).unwrap();
                assert!(!has(pod, "eth0"));
                runner.del(attachment).unwrap();
                runner.del(&attachment.clone().without_netns()).unwrap();
            }
            assert!(runner.attachments().is_empty());
        }
    });
}

#[test]
fn a_chain_of_stock_plugins_hands_its_result_on() {
    on_host("a_chain_of_stock_plugins_hands_its_result_on", |lab, host, path, data| {
        let mut dual = bridge(data);
        dual["ipam"]["ranges"] = json!([[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]]);
        let mut plugins = vec![
            dual,
            json!({"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400}),
            json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
        ];
        if is_installed("iptables") {
            plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
        }
        let runner = Runner::new(host, path, &list("1.0.0", &plugins));
        let pod = lab.namespace("pod");
        let mac = "02:00:00:00:00:99";
        let rate = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000,
            "egressBurst": 800_000});
        let mapping = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
        let attachment = Attachment::new(&pod)
            .capability("mac", mac.into())
            .capability("ips", json!(["10.9.0.77/24", "fd09::77/64"]))
            .capability("bandwidth", rate)
            .capability("portMappings", mapping);
        let result = runner.add(&attachment).unwrap();
        // It is the last; release 1.1.1 of it, Debian 12's, looks for IPv4 addresses among the rules of IPv6.
        let checked = runner.check(&attachment).or_else(|failure| match failure.what.as_str() {
            "portmap CHECK" => Ok(()),
            _ => Err(failure),
        });
        checked.unwrap();
        assert_eq!(result["ips"][0]["address"], "10.9.0.77/24");
        let link = pod.run("ip -o link show dev eth0");
        assert!(link.contains(mac) && link.contains("mtu 1400"), "{link}");
        assert_eq!(pod.run("cat /proc/sys/net/core/somaxconn").trim(), "500");
        assert!(host.run("tc qdisc show").contains("tbf"), "the bandwidth plugin was asked");
        if is_installed("iptables") {
            assert!(host.run("iptables -t nat -S").contains("8080"), "portmap was asked");
        }
        runner.gc(&[]).unwrap();
        assert!(!has(&pod, "eth0") && runner.attachments().is_empty());
        assert!(!host.run("tc qdisc show").contains("tbf"));
    });
}

#[test]
fn what_a_stock_plugin_refuses_is_an_error_with_its_code() {
    on_host("what_a_stock_plugin_refuses_is_an_error_with_its_code", |lab, host, path, data| {
        let runner = Runner::new(host, path, &list("1.0.0", &[bridge(data)]));
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        let said = runner.call(Verb::Add, &attachment, |plugin| plugin.set("CNI_CONTAINERID", None));
        let failure = vswitch_tests::cni::Failure::parse("bridge".to_owned(), &said);
        assert_eq!(failure.code, 4, "{failure}");
        let said = runner.call(Verb::Add, &attachment, |plugin| "{".clone_into(&mut plugin.config));
        assert_eq!(vswitch_tests::cni::Failure::parse("bridge".to_owned(), &said).code, 6);
        let gone = Attachment { netns: Some("/nowhere/at/all".into()), ..attachment };
        assert!(runner.add(&gone).unwrap_err().code > 0 && runner.attachments().is_empty());
    });
}

#[test]
fn stock_plugins_say_their_versions_and_are_called_by_the_one_in_common() {
    on_host(
        "stock_plugins_say_their_versions_and_are_called_by_the_one_in_common",
        |lab, host, path, data| {
            let mut all = list("0.4.0", &[bridge(data)]);
            all["cniVersions"] = json!(["0.4.0", "1.0.0"]);
            let runner = Runner::new(host, path, &all);
            for plugin in ["bridge", "host-local", "portmap", "bandwidth", "tuning"] {
                let versions = runner.versions(plugin);
                assert!(
                    ["0.4.0", "1.0.0"].iter().all(|one| versions.iter().any(|other| other == one)),
                    "{versions:?}"
                );
            }
            assert_eq!(runner.release(), Release::V1_0_0);
            let old = Runner::new(host, path, &all).speaking(&[Release::V0_4_0]);
            let attachment = Attachment::new(&lab.namespace("pod"));
            // The namespace went with its guard.
            assert!(old.add(&attachment).is_err());
            let pod = lab.namespace("again");
            let attachment = Attachment::new(&pod);
            assert_eq!(old.add(&attachment).unwrap()["cniVersion"], "0.4.0");
            // STATUS and GC are of later releases: nobody is asked.
            assert_eq!((old.status(), old.gc(&[attachment])), (Ok(()), Ok(())));
            assert!(has(&pod, "eth0"));
        },
    );
}
