//! Our plugin among others in a chain: what comes before it stays in the result, what comes after it has what it needs,
//! and a chain that breaks is taken back.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use vswitch_tests::cni::{Attachment, Inside, Runner, host_local, in_cni, left, vswitch};
use vswitch_tests::daemon::{Host, PATIENCE};
use vswitch_tests::lab::Namespace;
use vswitch_tests::node::{is_installed, tcp};
use vswitch_tests::scene::ip;

const BLUE: &str = "[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010\n";

/// Our plugin with `before` and `after` around it.
fn list(host: &Host, before: &[Value], after: &[Value]) -> Value {
    let more = json!({"ipam": host_local(host, &["10.1.0.0/16"]), "capabilities": {"mac": true}});
    let mut list = vswitch("blue", &host.socket(), &more);
    let own = list["plugins"][0].take();
    list["plugins"] = before.iter().cloned().chain([own]).chain(after.iter().cloned()).collect();
    // The stock ones know no later release.
    list["cniVersions"] = json!(["0.4.0", "1.0.0"]);
    list
}

/// A plugin of a few lines, for what no stock one does.
fn script(directory: &Path, name: &str, text: &str) -> Value {
    std::fs::create_dir_all(directory).unwrap();
    let file = directory.join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    json!({"type": name})
}

fn with(path: &[PathBuf], directory: &Path) -> Vec<PathBuf> {
    path.iter().cloned().chain([directory.to_owned()]).collect()
}

#[test]
fn stock_plugins_work_on_behind_ours() {
    in_cni("stock_plugins_work_on_behind_ours", |lab, mut host, path| {
        host.start_on(BLUE);
        let tuning = json!({"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1300,
            "capabilities": {"mac": true}});
        let runner = Runner::new(host.namespace(), path, &list(&host, &[], &[tuning]));
        let pods = ["a", "b"].map(|name| lab.namespace(name));
        let mac = "02:00:00:00:00:42";
        let [a, b] = pods.each_ref().map(Attachment::new);
        let a = a.capability("mac", mac.into());
        let result = runner.add(&a).unwrap();
        runner.add(&b).unwrap();
        runner.check(&a).unwrap();
        let inside = Inside::must(&pods[0], "eth0");
        assert_eq!((inside.mac.as_str(), inside.mtu), (mac, 1300));
        assert_eq!(result["interfaces"][0]["mac"], mac);
        assert_eq!(pods[0].run("cat /proc/sys/net/core/somaxconn").trim(), "500");
        let address = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
        tcp(&pods[1], &pods[0], ip(address), 1 << 20);
        runner.gc(&[]).unwrap();
        assert_eq!(left(&host, &["blue"]), Vec::<String>::new());
    });
}

#[test]
fn ports_of_the_node_lead_to_a_pod_by_the_stock_portmap() {
    in_cni("ports_of_the_node_lead_to_a_pod_by_the_stock_portmap", |lab, mut host, path| {
        if !is_installed("iptables") {
            return vswitch_tests::lab::skip("no iptables: the stock portmap calls it");
        }
        host.start_on(BLUE);
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        let mut list = list(&host, &[], &[portmap]);
        list["plugins"][0]["isDefaultGateway"] = true.into();
        let runner = Runner::new(host.namespace(), path, &list);
        let pod = lab.namespace("pod");
        let mapping = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
        let attachment = Attachment::new(&pod).capability("portMappings", mapping);
        runner.add(&attachment).unwrap();
        let server = pod.inside(|| std::net::TcpListener::bind("0.0.0.0:80")).unwrap();
        let to = "192.0.2.1:8080".parse().unwrap();
        let outside = lab.namespace("outside");
        outside.veth("wire", host.namespace(), "wire");
        outside.address("wire", "192.0.2.9/24");
        host.namespace().address("wire", "192.0.2.1/24");
        let reached = outside.inside(|| std::net::TcpStream::connect_timeout(&to, PATIENCE));
        assert!(reached.is_ok(), "{reached:?}");
        assert!(server.accept().is_ok());
        runner.del(&attachment).unwrap();
        assert!(!host.namespace().run("iptables -t nat -S").contains("8080"));
        assert_eq!(left(&host, &["blue"]), Vec::<String>::new());
    });
}

#[test]
fn what_came_before_ours_stays_in_the_result() {
    in_cni("what_came_before_ours_stays_in_the_result", |lab, mut host, path| {
        host.start_on(BLUE);
        let directory = host.file("bin");
        let before = r#"[ "$CNI_COMMAND" = ADD ] || exit 0
cat >/dev/null
echo '{"cniVersion":"1.0.0","interfaces":[{"name":"net0","mac":"02:00:00:00:00:09","sandbox":"'$CNI_NETNS'"}],
"ips":[{"address":"192.0.2.7/24","interface":0}],"routes":[{"dst":"198.51.100.0/24"}],"dns":{"search":["example"]}}'"#;
        let first = script(&directory, "first", before);
        let runner = Runner::new(host.namespace(), &with(path, &directory), &list(&host, &[first], &[]));
        let pod = lab.namespace("pod");
        // What the first one says that it did.
        pod.ip("link add net0 type bridge");
        pod.ip("address add 192.0.2.7/24 dev net0");
        pod.ip("link set dev net0 up");
        pod.ip("route add 198.51.100.0/24 dev net0");
        let attachment = Attachment::new(&pod);
        let result = runner.add(&attachment).unwrap();
        let names: Vec<&Value> =
            result["interfaces"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["net0", "eth0"]);
        let inside = Inside::must(&pod, "eth0");
        let ips: Vec<(&str, u64)> = result["ips"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ip| (ip["address"].as_str().unwrap(), ip["interface"].as_u64().unwrap()))
            .collect();
        assert_eq!(ips, [("192.0.2.7/24", 0), (inside.addresses[0].as_str(), 1)]);
        assert!(result["routes"].as_array().unwrap().iter().any(|route| route["dst"] == "198.51.100.0/24"));
        assert_eq!(result["dns"]["search"], json!(["example"]));
        runner.check(&attachment).unwrap();
        runner.del(&attachment).unwrap();
        assert_eq!((left(&host, &["blue"]), Inside::of(&pod, "eth0")), (Vec::new(), None));
        assert!(Inside::of(&pod, "net0").is_some(), "that is somebody else's");
    });
}

#[test]
fn a_chain_that_breaks_behind_ours_is_taken_back_without_a_result() {
    in_cni("a_chain_that_breaks_behind_ours_is_taken_back_without_a_result", |lab, mut host, path| {
        host.start_on(BLUE);
        let directory = host.file("bin");
        let error = r#"[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion":"1.0.0","code":123,"msg":"no","details":"not today"}'; exit 1"#;
        let last = script(&directory, "last", error);
        let runner = Runner::new(host.namespace(), &with(path, &directory), &list(&host, &[], &[last]));
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        let failure = runner.add(&attachment).unwrap_err();
        assert_eq!((failure.code, failure.msg.as_str()), (123, "no"));
        assert_eq!(runner.cached(&attachment), None);
        assert!(Inside::of(&pod, "eth0").is_some(), "the runtime has yet to say DEL");
        runner.del(&attachment).unwrap();
        assert_eq!((left(&host, &["blue"]), Inside::of(&pod, "eth0")), (Vec::new(), None));
    });
}

#[test]
fn several_networks_of_one_pod_come_and_go_one_by_one() {
    in_cni("several_networks_of_one_pod_come_and_go_one_by_one", |lab, mut host, path| {
        host.start_on("[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010\n[[segment]]\nname = \"red\"\nvlan = 20\nvni = 10020\n");
        let network = |name: &str, subnet: &str| {
            let more = json!({"ipam": host_local(&host, &[subnet])});
            Runner::new(host.namespace(), path, &vswitch(name, &host.socket(), &more))
        };
        let (blue, red) = (network("blue", "10.1.0.0/16"), network("red", "10.2.0.0/16"));
        let pods: Vec<Namespace> = ["a", "b"].map(|name| lab.namespace(name)).into();
        let mut addresses = Vec::new();
        for pod in &pods {
            for (runner, ifname) in [(&blue, "eth0"), (&red, "net1")] {
                let result = runner.add(&Attachment::new(pod).at(ifname)).unwrap();
                addresses.push(
                    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().to_owned(),
                );
            }
        }
        for to in &addresses[2..] {
            vswitch_tests::node::pings(&pods[0], ip(to));
        }
        let first = Attachment::new(&pods[0]);
        let before = Inside::must(&pods[0], "net1");
        blue.del(&first).unwrap();
        assert_eq!((Inside::of(&pods[0], "eth0"), Inside::must(&pods[0], "net1")), (None, before));
        red.check(&first.at("net1")).unwrap();
        vswitch_tests::node::pings(&pods[0], ip(&addresses[3]));
        blue.gc(&[]).unwrap();
        red.gc(&[]).unwrap();
        assert_eq!(left(&host, &["blue", "red"]), Vec::<String>::new());
    });
}
