//! What changes while traffic runs: a node dies and comes back, an underlay address comes late or changes, the
//! tunnel port is taken, a reload adds and removes a peer.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::node::{Fleet, Node, PATIENCE, Underlay, in_nodes, pings, pod, silence, talk, v4};

struct Scene {
    underlay: Underlay,
    pods: Vec<Namespace>,
    fleet: Fleet,
    file: String,
}

/// An underlay of `count` nodes, none of which runs yet, and a pod for each: number *n* has 10.10.0.*n*.
fn scene(lab: &Lab, count: u8) -> Scene {
    let underlay = Underlay::new(lab, count, 1500);
    let pods: Vec<_> = (1..=count).map(|n| lab.namespace(&format!("pod{n}"))).collect();
    let ports = (1..).zip(&pods).map(|(n, space)| {
        pod(&format!("pod{n}"), &format!("n{n}"), space, "tag = 10", &[&format!("10.10.0.{n}/24")])
    });
    let ports: String = ports.collect();
    let file = format!(
        "[underlay]\naddress = \"192.0.2.0/24\"\n[mesh]\npeers = [\"192.0.2.1-192.0.2.9\"]\n[[segment]]\n\
         name = \"blue\"\nvlan = 10\nvni = 10010\n{ports}"
    );
    let fleet = Fleet::new(&file);
    Scene { underlay, pods, fleet, file }
}

impl Scene {
    fn spawn(&self, n: usize) -> Node {
        self.fleet.spawn(&self.underlay.nodes[n - 1], &format!("n{n}"))
    }

    fn start(&self, n: usize) -> Node {
        let node = self.spawn(n);
        node.until_ready();
        node
    }
}

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 10, 0, n])
}

fn status(node: &Node, key: &str) -> Value {
    node.ctl("status")[key].clone()
}

fn until_underlay(node: &Node, state: &str) {
    until(&format!("underlay {state}"), PATIENCE, || (status(node, "underlay") == state).then_some(()));
}

#[test]
fn traffic_resumes_when_a_killed_node_is_back() {
    in_nodes("traffic_resumes_when_a_killed_node_is_back", |lab| {
        let scene = scene(lab, 2);
        let first = scene.start(1);
        let mut second = scene.start(2);
        pings(&scene.pods[0], ip(2));
        let sender = scene.pods[0].inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // While nobody answers there may be no way, or no room.
                    let _ = sender.send_to(&[7; 1000], (ip(2), 4000));
                }
            });
            let heard = |within| {
                let ear = scene.pods[1].inside(|| UdpSocket::bind("0.0.0.0:4000")).unwrap();
                ear.set_read_timeout(Some(within)).unwrap();
                ear.recv(&mut [0; 2000]).is_ok()
            };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..3 {
                    assert!(heard(PATIENCE));
                    second.daemon.signal("KILL");
                    second.daemon.until_exit(PATIENCE);
                    // Its TAP is gone from the pod with it.
                    assert!(!scene.pods[1].try_run("ip link show eth0").status.success());
                    second = scene.start(2);
                    assert!(heard(PATIENCE));
                    // The load fills queues, which may cost a ping.
                    until("an answer", PATIENCE, || {
                        (scene.pods[1].ping_with(ip(1), 56, 1, "-W 1").received == 1).then_some(())
                    });
                }
            }));
            stop.store(true, Ordering::Relaxed);
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        talk(&scene.pods[0], ip(1), &scene.pods[1], ip(2));
        // The MAC is derived, so nobody knows it in two places; the new life knows only what it has heard.
        for node in [&first, &second] {
            let rows = node.ctl("mac");
            let mut macs: Vec<_> =
                rows.as_array().unwrap().iter().map(|row| row["mac"].to_string()).collect();
            macs.sort();
            macs.dedup();
            assert_eq!((macs.len(), rows.as_array().unwrap().len()), (2, 2), "{rows}");
        }
    });
}

#[test]
fn an_underlay_address_that_comes_late_is_waited_for() {
    in_nodes("an_underlay_address_that_comes_late_is_waited_for", |lab| {
        let scene = scene(lab, 2);
        let address = format!("{}/24", v4(1));
        scene.underlay.nodes[0].ip(&format!("address del {address} dev under"));
        let (first, _second) = (scene.start(1), scene.start(2));
        assert_eq!(status(&first, "underlay"), "waiting");
        assert!(status(&first, "troubles").to_string().contains("192.0.2.0/24"));
        silence(&scene.pods[0], ip(2));
        scene.underlay.nodes[0].address("under", &address);
        until_underlay(&first, "ready");
        assert_eq!(status(&first, "troubles"), Value::Array(Vec::new()));
        talk(&scene.pods[0], ip(1), &scene.pods[1], ip(2));
    });
}

#[test]
fn an_underlay_address_that_changes_is_followed() {
    in_nodes("an_underlay_address_that_changes_is_followed", |lab| {
        let scene = scene(lab, 2);
        let (first, second) = (scene.start(1), scene.start(2));
        pings(&scene.pods[0], ip(2));
        let node = &scene.underlay.nodes[0];
        for (old, new) in [(1, 9), (9, 1)] {
            node.ip(&format!("address del {}/24 dev under", v4(old)));
            node.address("under", &format!("{}/24", v4(new)));
            until("the new address", PATIENCE, || {
                (status(&first, "underlay_addresses") == Value::from(vec![v4(new).to_string()])).then_some(())
            });
            // The old address is somebody else's now, the new one nobody's peer.
            let rows = first.ctl("peer");
            let peers: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["address"].clone()).collect();
            assert!(
                peers.contains(&v4(old).to_string().into()) && !peers.contains(&v4(new).to_string().into())
            );
            pings(&scene.pods[0], ip(2));
            pings(&scene.pods[1], ip(1));
            let behind = second.ctl("mac --vlan 10");
            let behind = behind.as_array().unwrap().iter().find(|row| row["peer"].is_string()).unwrap();
            assert_eq!(behind["peer"], v4(new).to_string());
        }
        talk(&scene.pods[0], ip(1), &scene.pods[1], ip(2));
    });
}

#[test]
fn a_tunnel_port_that_is_taken_is_named_and_waited_for() {
    in_nodes("a_tunnel_port_that_is_taken_is_named_and_waited_for", |lab| {
        let scene = scene(lab, 2);
        let space = &scene.underlay.nodes[0];
        let thief = space.inside(|| UdpSocket::bind("0.0.0.0:4789")).unwrap();
        let mut node = scene.spawn(1);
        assert_eq!(node.daemon.until_exit(PATIENCE).code(), Some(1));
        assert!(node.daemon.log().contains("4789"), "{}", node.daemon.log());
        drop(node);
        // The same when the address comes while the daemon runs: then it waits.
        let address = format!("{}/24", v4(1));
        space.ip(&format!("address del {address} dev under"));
        let (node, _second) = (scene.start(1), scene.start(2));
        assert_eq!(status(&node, "underlay"), "waiting");
        space.address("under", &address);
        until_underlay(&node, "failed");
        assert!(status(&node, "troubles").to_string().contains("4789"));
        drop(thief);
        until_underlay(&node, "ready");
        talk(&scene.pods[0], ip(1), &scene.pods[1], ip(2));
    });
}

/// Sends numbered datagrams from one pod to another and back, one after the other, until told to stop; gives how
/// many came back.
fn lockstep(from: &Namespace, to: &Namespace, stop: &AtomicBool, count: &AtomicU64) {
    let bind = |space: &Namespace| {
        let socket = space.inside(|| UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0)))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    };
    let (client, server) = (bind(from), bind(to));
    let port = server.local_addr().unwrap().port();
    let mut buffer = [0; 1000];
    while !stop.load(Ordering::Relaxed) {
        let number = count.load(Ordering::Relaxed);
        let sent = [number.to_be_bytes(); 100].concat();
        client.send_to(&sent, (ip(2), port)).unwrap();
        let (len, back) = server.recv_from(&mut buffer).unwrap_or_else(|e| panic!("lost {number}: {e}"));
        server.send_to(&buffer[..len], back).unwrap();
        let len = client.recv(&mut buffer).unwrap_or_else(|e| panic!("lost reply {number}: {e}"));
        assert_eq!(buffer[..len], sent);
        count.store(number + 1, Ordering::Relaxed);
    }
}

#[test]
fn a_reload_that_adds_and_removes_a_peer_loses_nothing_to_the_others() {
    in_nodes("a_reload_that_adds_and_removes_a_peer_loses_nothing_to_the_others", |lab| {
        let scene = scene(lab, 3);
        let nodes: Vec<_> = (1..=3).map(|n| scene.start(n)).collect();
        pings(&scene.pods[0], ip(2));
        pings(&scene.pods[0], ip(3));
        let without = scene.file.replace("\"192.0.2.1-192.0.2.9\"", "\"192.0.2.1-192.0.2.2\"");
        let index = |n: usize| scene.pods[n].run("cat /sys/class/net/eth0/ifindex");
        let before = index(0);
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let load = scope.spawn(|| lockstep(&scene.pods[0], &scene.pods[1], &stop, &count));
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for round in 0..5 {
                    for (file, peers) in [(&without, 1), (&scene.file, 8)] {
                        let at = count.load(Ordering::Relaxed);
                        scene.fleet.write(file);
                        nodes[0].ctl("reload");
                        assert_eq!(status(&nodes[0], "peers"), peers);
                        until("traffic between two reloads", PATIENCE, || {
                            (load.is_finished() || count.load(Ordering::Relaxed) > at + 20).then_some(())
                        });
                        if round == 0 && peers == 1 {
                            // A removed peer is nobody.
                            let unknown = nodes[0].drops("unknown_peer");
                            silence(&scene.pods[2], ip(1));
                            assert!(nodes[0].drops("unknown_peer") > unknown);
                        }
                    }
                }
            }));
            stop.store(true, Ordering::Relaxed);
            load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        assert_eq!(index(0), before);
        pings(&scene.pods[2], ip(1));
        talk(&scene.pods[0], ip(1), &scene.pods[2], ip(3));
    });
}
