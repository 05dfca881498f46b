//! podman with its CNI backend and runc gives containers their network.
//!
//! Not here: containerd, and plugins that are called without a runtime.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use serde_json::Value;
use vswitch_tests::cni_runtimes::{
    CniNode, Containerd, Machine, Podman, SEEN, STOCK, built_in, host_local, in_machines, leases, texts,
};
use vswitch_tests::lab::{Lab, until};
use vswitch_tests::node::{PATIENCE, Underlay};

/// A node with these networks, of which the first is podman's default.
fn one(lab: &Lab, networks: &[(&str, Value)]) -> (Underlay, CniNode, Podman) {
    let underlay = Underlay::new(lab, 1, 1500);
    let node = CniNode::start(&underlay.nodes[0], "n1");
    for (name, keys) in networks {
        node.network(name, keys);
    }
    let podman = Podman::set_up(&node.machine, networks[0].0);
    (underlay, node, podman)
}

#[test]
fn podman_works_on_this_machine_with_plugins_that_are_not_ours() {
    in_machines("podman_works_on_this_machine_with_plugins_that_are_not_ours", |lab| {
        let machine = Machine::new(&lab.namespace("m1"));
        machine.write("/etc/cni/net.d/10-stock.conflist", STOCK);
        let podman = Podman::set_up(&machine, "stock");
        let shown = podman.once(&machine, "", "ip address show dev eth0");
        assert!(shown.contains("10.88.0.2/24"), "{shown}");
        podman.detached(&machine, "c2", "", "sleep 1000");
        podman.exec(&machine, "c2", "ping -c 1 10.88.0.1");
        machine.run("podman rm --force --time 0 c2");
        assert_eq!(leases(&machine, "stock"), [""; 0]);
    });
}

#[test]
fn a_container_has_its_interface_and_leaves_nothing() {
    in_machines("a_container_has_its_interface_and_leaves_nothing", |lab| {
        let (_underlay, node, podman) = one(lab, &[("blue", host_local(1, 10, 20)), ("red", built_in())]);
        let shown = podman.once(&node.machine, "", "ip address show dev eth0");
        assert!(shown.contains("inet 10.1.0.10/16") && shown.contains("mtu 1450"), "{shown}");
        node.until_nothing_left();
        assert_eq!(leases(&node.machine, "blue"), [""; 0]);

        let shown = podman.once(&node.machine, "--network red", "ip address show dev eth0");
        assert!(shown.contains("inet 10.1.0.2/24"), "{shown}");
        node.until_nothing_left();
    });
}

#[test]
fn a_container_that_is_killed_leaves_nothing() {
    in_machines("a_container_that_is_killed_leaves_nothing", |lab| {
        let (_underlay, node, podman) = one(lab, &[("blue", host_local(1, 10, 20))]);
        podman.detached(&node.machine, "c1", "", "sleep 1000");
        assert_eq!(leases(&node.machine, "blue"), ["10.1.0.10"]);
        node.machine.run("podman kill c1");
        // Who watched it says DEL; podman itself has returned long before.
        node.until_nothing_left();
        until("the lease is free", PATIENCE, || leases(&node.machine, "blue").is_empty().then_some(()));
    });
}

#[test]
fn a_container_is_in_several_networks_and_can_leave_and_join_them() {
    in_machines("a_container_is_in_several_networks_and_can_leave_and_join_them", |lab| {
        let networks = [("blue", host_local(1, 10, 20)), ("red", host_local(2, 10, 20))];
        let (_underlay, node, podman) = one(lab, &networks);
        let machine = &node.machine;
        podman.detached(machine, "both", "--network blue --network red", "sleep 1000");
        podman.detached(machine, "blue", "--network blue", "sleep 1000");
        podman.detached(machine, "red", "--network red", "sleep 1000");
        podman.exec(machine, "both", "ping -c 1 -W 5 10.1.0.11 && ping -c 1 -W 5 10.2.0.11");
        // Networks are apart from each other: nobody has a route, and none would help.
        let other =
            podman.try_exec(machine, "blue", "ip route add 10.2.0.0/16 dev eth0; ping -c 1 -W 1 10.2.0.11");
        assert!(texts(&other)[0].contains("0 packets received") || !other.status.success(), "{other:?}");
        assert_eq!(node.attachments().len(), 4);

        machine.run("podman network disconnect red both");
        assert_eq!(node.attachments().len(), 3);
        assert!(!podman.exec(machine, "both", "ip address").contains("10.2.0."));
        machine.run("podman network connect red both");
        podman.exec(machine, "both", "ping -c 1 -W 5 10.2.0.11 && ping -c 1 -W 5 10.1.0.11");
        machine.run("podman rm --force --time 0 both blue red");
        node.until_nothing_left();
    });
}

#[test]
fn an_address_and_a_mac_can_be_asked_for() {
    in_machines("an_address_and_a_mac_can_be_asked_for", |lab| {
        let (_underlay, node, podman) = one(lab, &[("blue", host_local(1, 10, 200))]);
        let options = "--ip 10.1.0.77 --mac-address 02:00:00:00:00:77";
        let shown = podman.once(&node.machine, options, "ip address show dev eth0");
        assert!(shown.contains("inet 10.1.0.77/16") && shown.contains("02:00:00:00:00:77"), "{shown}");
        node.until_nothing_left();
    });
}

#[test]
fn a_container_is_stopped_and_started_and_the_daemon_killed_under_it() {
    in_machines("a_container_is_stopped_and_started_and_the_daemon_killed_under_it", |lab| {
        let (_underlay, node, podman) = one(lab, &[("blue", built_in())]);
        let machine = &node.machine;
        podman.detached(machine, "c1", "", "sleep 1000");
        podman.detached(machine, "c2", "", "sleep 1000");
        let before = podman.exec(machine, "c1", SEEN);
        assert!(before.contains("inet 10.1.0."), "{before}");
        node.kill_daemon();
        assert_eq!(podman.exec(machine, "c1", SEEN), before);
        assert_eq!(node.attachments().len(), 2);
        let second = machine.run("podman inspect --format {{.Id}} c2");
        let ping = format!("ping -c 1 -W 5 {}", node.address(second.trim()));
        podman.exec(machine, "c1", &ping);

        machine.run("podman stop --time 0 c1");
        machine.run("podman start c1");
        podman.exec(machine, "c1", &ping);
        machine.run("podman rm --force --time 0 c1 c2");
        node.until_nothing_left();
    });
}

#[test]
fn a_container_with_every_right_over_its_interface_speaks_for_nobody_else() {
    in_machines("a_container_with_every_right_over_its_interface_speaks_for_nobody_else", |lab| {
        let (_underlay, node, podman) = one(lab, &[("blue", host_local(1, 10, 20))]);
        let machine = &node.machine;
        podman.detached(machine, "c1", "--cap-add NET_ADMIN", "sleep 1000");
        podman.detached(machine, "c2", "", "sleep 1000");
        podman.exec(machine, "c1", "ping -c 1 -W 5 10.1.0.11");
        podman.exec(machine, "c1", "ip address add 10.1.0.99/16 dev eth0");
        let spoofed = podman.try_exec(machine, "c1", "ping -c 1 -W 1 -I 10.1.0.99 10.1.0.11");
        assert!(!spoofed.status.success(), "{spoofed:?}");
        assert!(node.node.drops("spoofed_ipv4") > 0, "{}", node.node.ctl("drops"));
        podman.exec(machine, "c1", "ip link set dev eth0 address 02:00:00:00:00:99");
        let spoofed = podman.try_exec(machine, "c1", "ping -c 1 -W 1 10.1.0.11");
        assert!(!spoofed.status.success(), "{spoofed:?}");
        assert!(node.node.drops("spoofed_mac") > 0, "{}", node.node.ctl("drops"));
        machine.run("podman rm --force --time 0 c1 c2");
        node.until_nothing_left();
    });
}

#[test]
fn without_a_daemon_no_container_starts_and_no_address_is_lost() {
    in_machines("without_a_daemon_no_container_starts_and_no_address_is_lost", |lab| {
        let (_underlay, mut node, podman) = one(lab, &[("blue", host_local(1, 10, 10))]);
        node.stop();
        let refused = podman.try_once(&node.machine, "", "true");
        let [_, why] = texts(&refused);
        assert!(!refused.status.success() && why.contains("vswitch-cni"), "{why}");
        assert_eq!(leases(&node.machine, "blue"), [""; 0]);
        node.start_again();
        podman.once(&node.machine, "", "true");
        node.until_nothing_left();
    });
}

#[test]
fn a_container_of_podman_and_one_of_containerd_speak_over_vxlan() {
    in_machines("a_container_of_podman_and_one_of_containerd_speak_over_vxlan", |lab| {
        let underlay = Underlay::new(lab, 2, 1500);
        let [one, two] = [1_u8, 2].map(|n| {
            let node = CniNode::start(&underlay.nodes[usize::from(n) - 1], &format!("n{n}"));
            node.network("blue", &host_local(1, n * 10, n * 10 + 9));
            node
        });
        let podman = Podman::set_up(&one.machine, "blue");
        let containerd = Containerd::start(&two.machine);
        podman.detached(&one.machine, "c1", "", "httpd -f -p 80 -h /bin");
        containerd.detached(&two.machine, "c2", "httpd -f -p 80 -h /bin");
        podman.exec(&one.machine, "c1", "ping -c 3 -W 5 10.1.0.20");
        containerd.exec(&two.machine, "c2", "ping -c 3 -W 5 10.1.0.10");
        let fetch =
            |from: &str| format!("wget -q -O /tmp/got http://{from}/busybox && cmp /tmp/got /bin/busybox");
        podman.exec(&one.machine, "c1", &fetch("10.1.0.20"));
        containerd.exec(&two.machine, "c2", &fetch("10.1.0.10"));
        one.machine.run("podman rm --force --time 0 c1");
        one.until_nothing_left();
    });
}
