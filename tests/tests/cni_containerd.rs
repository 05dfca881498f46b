//! containerd and runc give containers their network by CNI: `ctr run --cni`, which sends DEL late, or never.
//!
//! Not here: podman, and plugins that are called without a runtime.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use serde_json::{Value, json};
use vswitch_tests::cni_runtimes::{
    CniNode, Containerd, Machine, SEEN, STOCK, built_in, host_local, in_machines, leases, texts,
};
use vswitch_tests::lab::{Lab, until};
use vswitch_tests::node::{PATIENCE, Underlay};

/// A node with the network `blue`, and its containerd.
fn one(lab: &Lab, keys: &Value) -> (Underlay, CniNode, Containerd) {
    let underlay = Underlay::new(lab, 1, 1500);
    let node = CniNode::start(&underlay.nodes[0], "n1");
    node.network("blue", keys);
    let containerd = Containerd::start(&node.machine);
    (underlay, node, containerd)
}

#[test]
fn containerd_works_on_this_machine_with_plugins_that_are_not_ours() {
    in_machines("containerd_works_on_this_machine_with_plugins_that_are_not_ours", |lab| {
        let machine = Machine::new(&lab.namespace("m1"));
        machine.write("/etc/cni/net.d/10-stock.conflist", STOCK);
        let containerd = Containerd::start(&machine);
        let shown = containerd.once(&machine, "c1", "ip address show dev eth0");
        assert!(shown.contains("10.88.0.2/24"), "{shown}");
        containerd.detached(&machine, "c2", "sleep 1000");
        containerd.exec(&machine, "c2", "ping -c 1 10.88.0.1");
        containerd.kill(&machine, "c2");
        // Nobody was told: the lease would stay for ever.
        assert_eq!(leases(&machine, "stock"), ["10.88.0.3"]);
    });
}

#[test]
fn a_container_in_the_foreground_has_its_interface_and_leaves_nothing() {
    in_machines("a_container_in_the_foreground_has_its_interface_and_leaves_nothing", |lab| {
        let (_underlay, node, containerd) = one(lab, &host_local(1, 10, 20));
        // DEL comes with an empty CNI_NETNS, when the namespace is gone.
        let shown = containerd.once(&node.machine, "c1", "ip address show dev eth0");
        assert!(shown.contains("inet 10.1.0.10/16") && shown.contains("mtu 1450"), "{shown}");
        node.until_nothing_left();
        assert_eq!(leases(&node.machine, "blue"), [""; 0]);

        node.network("blue", &built_in());
        let shown = containerd.once(&node.machine, "c2", "ip address show dev eth0");
        assert!(shown.contains("inet 10.1.0.2/24"), "{shown}");
        node.until_nothing_left();
    });
}

#[test]
fn containers_that_nobody_deletes_are_gone_when_they_are_killed() {
    in_machines("containers_that_nobody_deletes_are_gone_when_they_are_killed", |lab| {
        let (_underlay, node, containerd) = one(lab, &built_in());
        for name in ["c1", "c2", "c3"] {
            containerd.detached(&node.machine, name, "sleep 1000");
        }
        let ping = format!("ping -c 1 {}", node.address("c3"));
        containerd.exec(&node.machine, "c1", &ping);
        for name in ["c1", "c2", "c3"] {
            containerd.kill(&node.machine, name);
        }
        node.until_nothing_left();
    });
}

#[test]
fn addresses_of_another_ipam_come_back_though_nobody_deletes_the_containers() {
    in_machines("addresses_of_another_ipam_come_back_though_nobody_deletes_the_containers", |lab| {
        let (_underlay, node, containerd) = one(lab, &host_local(1, 10, 12));
        // More than the range has.
        for number in 1..=7 {
            let name = format!("c{number}");
            containerd.detached(&node.machine, &name, "sleep 1000");
            assert_eq!(node.attachment(&name)["state"], "up");
            containerd.kill(&node.machine, &name);
            until("the port is gone", PATIENCE, || {
                // That of the IPAM's lease is remembered; or the next container has freed it.
                node.attachments().iter().all(|row| row["state"] == "gone").then_some(())
            });
            assert!(leases(&node.machine, "blue").len() <= 3);
        }
        assert_eq!(node.node.ctl("port"), json!([]));
    });
}

#[test]
fn containers_that_end_while_the_daemon_is_away_are_gone_when_it_is_back() {
    in_machines("containers_that_end_while_the_daemon_is_away_are_gone_when_it_is_back", |lab| {
        let (_underlay, mut node, containerd) = one(lab, &built_in());
        containerd.detached(&node.machine, "c1", "sleep 1000");
        node.stop();
        containerd.kill(&node.machine, "c1");
        node.start_again();
        node.until_nothing_left();
    });
}

#[test]
fn without_a_daemon_no_container_gets_a_network_and_no_address_is_lost() {
    in_machines("without_a_daemon_no_container_gets_a_network_and_no_address_is_lost", |lab| {
        let (_underlay, mut node, containerd) = one(lab, &host_local(1, 10, 10));
        node.stop();
        let refused = containerd.try_once(&node.machine, "c1", "true");
        let [_, why] = texts(&refused);
        assert!(!refused.status.success() && why.contains("vswitch-cni"), "{why}");
        assert_eq!(leases(&node.machine, "blue"), [""; 0]);
        node.start_again();
        let shown = containerd.once(&node.machine, "c2", "ip address show dev eth0");
        assert!(shown.contains("inet 10.1.0.10/16"), "{shown}");
        node.until_nothing_left();
    });
}

#[test]
fn a_container_notices_nothing_when_the_daemon_is_killed() {
    in_machines("a_container_notices_nothing_when_the_daemon_is_killed", |lab| {
        let (_underlay, node, containerd) = one(lab, &built_in());
        let machine = &node.machine;
        containerd.detached(machine, "server", "nc -ll -p 7000 -e cat");
        containerd.detached(machine, "client", "sleep 1000");
        let server = node.address("server");
        let before = containerd.exec(machine, "client", SEEN);
        assert!(before.contains("inet 10.1.0."), "{before}");
        // One connection, opened before and used after.
        let wait = "until [ -e /tmp/go ]; do sleep 0.05; done";
        let talk = format!("(echo one; {wait}; echo two) | nc {server} 7000 >/tmp/got");
        std::thread::scope(|scope| {
            let client = scope.spawn(|| containerd.try_exec(machine, "client", &talk));
            let got = |text: &str| {
                until(&format!("{text:?} back"), PATIENCE, || {
                    let got = containerd.try_exec(machine, "client", "cat /tmp/got");
                    (texts(&got)[0] == text).then_some(())
                });
            };
            got("one\n");
            node.kill_daemon();
            assert_eq!(containerd.exec(machine, "client", SEEN), before);
            containerd.exec(machine, "client", "touch /tmp/go");
            got("one\ntwo\n");
            client.join().unwrap();
        });
        assert_eq!(containerd.exec(machine, "client", SEEN), before);
        for name in ["client", "server"] {
            containerd.kill(machine, name);
        }
        node.until_nothing_left();
    });
}

#[test]
fn a_container_keeps_its_port_when_containerd_is_killed() {
    in_machines("a_container_keeps_its_port_when_containerd_is_killed", |lab| {
        let (_underlay, node, mut containerd) = one(lab, &built_in());
        containerd.detached(&node.machine, "c1", "sleep 1000");
        let before = containerd.exec(&node.machine, "c1", SEEN);
        containerd.kill_and_start(&node.machine);
        assert_eq!(node.attachment("c1")["state"], "up");
        assert_eq!(containerd.exec(&node.machine, "c1", SEEN), before);
        containerd.kill(&node.machine, "c1");
        node.until_nothing_left();
    });
}

#[test]
fn a_node_and_its_containers_reach_each_other_through_the_gateway_in_both_families() {
    in_machines("a_node_and_its_containers_reach_each_other_through_the_gateway_in_both_families", |lab| {
        let pools = json!([{"subnet": "10.1.0.0/24"}, {"subnet": "fd00:1::/64"}]);
        let keys = json!({"isDefaultGateway": true, "ipam": {"type": "vswitch", "pools": pools}});
        let (_underlay, node, containerd) = one(lab, &keys);
        containerd.detached(&node.machine, "c1", "sleep 1000");
        containerd.detached(&node.machine, "c2", "sleep 1000");
        let row = node.attachment("c1");
        let addresses = row["addresses"].as_array().unwrap();
        assert_eq!(addresses.len(), 2, "{row}");
        for address in addresses {
            let address = address.as_str().unwrap().split('/').next().unwrap();
            node.machine.run(&format!("ping -c 1 -W 5 {address}"));
            containerd.exec(&node.machine, "c2", &format!("ping -c 1 -W 5 {address}"));
        }
        let seen = containerd.exec(&node.machine, "c1", SEEN);
        assert!(seen.contains("default via 10.1.0.1 dev eth0"), "{seen}");
        assert!(seen.contains("default via fd00:1::1 dev eth0"), "{seen}");
        // What is beyond the gateway: the node's own address on the underlay.
        containerd.exec(&node.machine, "c1", "ping -c 1 -W 5 192.0.2.1 && ping -c 1 -W 5 2001:db8::1");
        containerd.kill(&node.machine, "c1");
        containerd.kill(&node.machine, "c2");
        node.until_nothing_left();
    });
}

#[test]
fn containers_on_two_nodes_ping_and_speak_tcp_over_vxlan() {
    in_machines("containers_on_two_nodes_ping_and_speak_tcp_over_vxlan", |lab| {
        let underlay = Underlay::new(lab, 2, 1500);
        let nodes: Vec<_> = (1_u8..)
            .zip(&underlay.nodes)
            .map(|(n, namespace)| {
                let node = CniNode::start(namespace, &format!("n{n}"));
                node.network("blue", &host_local(1, n * 10, n * 10 + 9));
                let containerd = Containerd::start(&node.machine);
                (node, containerd)
            })
            .collect();
        let [(one, first), (two, second)] = nodes.as_slice() else { panic!("two nodes") };
        first.detached(&one.machine, "c1", "sleep 1000");
        second.detached(&two.machine, "c2", "httpd -f -p 80 -h /bin");
        // Frames to whom nobody has learned yet cross as well.
        first.exec(&one.machine, "c1", "ping -c 3 -W 5 10.1.0.20");
        second.exec(&two.machine, "c2", "ping -c 3 -W 5 10.1.0.10");
        first.exec(
            &one.machine,
            "c1",
            "wget -q -O /tmp/got http://10.1.0.20/busybox && cmp /tmp/got /bin/busybox",
        );
        first.kill(&one.machine, "c1");
        second.kill(&two.machine, "c2");
        for node in [one, two] {
            until("no port", PATIENCE, || (node.node.ctl("port") == json!([])).then_some(()));
        }
    });
}
