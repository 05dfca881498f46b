//! Whoever floods, does not read, or cannot be reached costs nobody else a frame; and what is lost is counted where.
//! Everything is bounded by counts. Not here: how fast any of it is.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::Write as _;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::node::{Node, PATIENCE, in_nodes, pings, v4};
use vswitch_tests::scene::{Place, Plan, Scene, ip};
use vswitch_tests::socket::set;
use vswitch_tests::sums::counter;

/// Frames of a flood, at least.
const FLOOD: u64 = 300_000;
/// Frames of one that would only be slow if nobody stopped it.
const NO_MORE: u64 = 50_000_000;
/// Questions that each get an answer while others flood.
const QUESTIONS: usize = 200;

const fn place(pod: &'static str, node: u8, addresses: &'static [&'static str]) -> Place<'static> {
    Place { pod, node, keys: "tag = 10", addresses }
}

const A: Place<'_> = place("a", 1, &["10.10.0.1/24"]);
const B: Place<'_> = place("b", 1, &["10.10.0.2/24"]);
const LOUD: Place<'_> = place("loud", 1, &["10.10.0.3/24"]);
const SINK: Place<'_> = place("sink", 1, &["10.10.0.4/24"]);

/// Pods that say nothing of their own accord once they know each other.
fn scene(lab: &Lab, nodes: &[&str], underlay: &str, places: &[Place<'_>]) -> Scene {
    let scene = Scene::new(lab, &Plan { nodes, underlay, v6: false, places });
    for place in places {
        scene.pod(place.pod).inside(|| {
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
        });
    }
    scene
}

/// Lets `from` know for good that `address` is at `mac`.
fn know(from: &Namespace, address: &str, mac: &str) {
    from.ip(&format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent"));
}

fn mac_of(node: &Node, port: &str) -> String {
    let rows = node.ctl("port");
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == port).unwrap();
    row["mac"].as_str().unwrap().to_owned()
}

/// How many frames died at this port or peer, by reason.
fn drops_at(node: &Node, port: &str) -> Vec<(String, u64)> {
    let rows = node.ctl("drops --by-port");
    let rows = rows.as_array().unwrap().iter().filter(|row| row["port"] == port);
    rows.map(|row| (row["reason"].as_str().unwrap().to_owned(), row["count"].as_u64().unwrap())).collect()
}

fn all_drops_at(node: &Node, port: &str) -> u64 {
    drops_at(node, port).iter().map(|(_, count)| count).sum()
}

fn drops_of(node: &Node, port: &str, reason: &str) -> u64 {
    drops_at(node, port).iter().filter(|(name, _)| name == reason).map(|(_, count)| count).sum()
}

/// Two sockets that ask and answer.
struct Talk {
    client: UdpSocket,
    server: UdpSocket,
}

impl Talk {
    fn new(from: &Namespace, to: &Namespace, address: &str) -> Self {
        let [client, server] = [from, to].map(|pod| {
            let socket = pod.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        });
        client.connect((address, server.local_addr().unwrap().port())).unwrap();
        let talk = Self { client, server };
        talk.round_trips(1);
        talk
    }

    /// Each question is answered before the next.
    fn round_trips(&self, count: usize) {
        for n in 0..count {
            let question = n.to_be_bytes();
            self.client.send(&question).unwrap();
            let mut got = [0; 64];
            let (len, from) = self.server.recv_from(&mut got).unwrap_or_else(|e| panic!("question {n}: {e}"));
            assert_eq!(got[..len], question);
            self.server.send_to(&got[..len], from).unwrap();
            let len = self.client.recv(&mut got).unwrap_or_else(|e| panic!("answer {n}: {e}"));
            assert_eq!(got[..len], question);
        }
    }
}

/// Datagrams of `len` bytes from `from` to a port of `to` while `work` is done: as many as `least` at any rate, and more
/// as long as it goes on. Returns how many.
fn while_flooding(from: &Namespace, to: (IpAddr, u16), least: u64, len: usize, work: impl FnOnce()) -> u64 {
    let socket = from.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.connect(to).unwrap();
    let (sent, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..NO_MORE {
                if n >= least && enough.load(Ordering::Relaxed) {
                    return;
                }
                // What finds no room is not sent; the kernel counts what it drops itself.
                if socket.send(&vec![7; len]).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        until("the flood", PATIENCE, || (sent.load(Ordering::Relaxed) > 1000).then_some(()));
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        enough.store(true, Ordering::Relaxed);
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    sent.into_inner()
}

/// Waits until a number stays as it is from one look to the next.
fn until_steady(what: &str, number: impl Fn() -> u64) -> u64 {
    until(what, PATIENCE, || {
        let before = number();
        std::thread::sleep(std::time::Duration::from_millis(50));
        (number() == before).then_some(before)
    })
}

/// What the kernel counted at an interface.
fn statistic(space: &Namespace, link: &str, name: &str) -> u64 {
    let table = space.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let row = table.lines().find_map(|line| line.trim().strip_prefix(link)?.strip_prefix(':')).unwrap();
    let column = match name {
        "tx_packets" => 9,
        "tx_dropped" => 11,
        _ => panic!("{name}"),
    };
    row.split_whitespace().nth(column).unwrap().parse().unwrap()
}

fn a_flood_leaves_room_for_others(lab: &Lab, text: &str) {
    let scene = scene(lab, &[text], "", &[A, B, LOUD, SINK]);
    let (node, loud, sink) = (&scene.nodes[0], scene.pod("loud"), scene.pod("sink"));
    let talk = Talk::new(scene.pod("a"), scene.pod("b"), "10.10.0.2");
    pings(sink, ip("10.10.0.3"));
    know(loud, "10.10.0.4", &mac_of(node, "sink0"));
    know(sink, "10.10.0.3", &mac_of(node, "loud0"));
    let deaf = sink.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let numbers = || {
        let rx = until_steady("the end of the flood", || node.port("loud0", "rx_frames"));
        let read = std::iter::from_fn(|| deaf.recv(&mut [0; 64]).ok());
        deaf.set_nonblocking(true).unwrap();
        read.for_each(drop);
        [
            rx,
            node.port("sink0", "tx_frames"),
            all_drops_at(node, "sink0") + all_drops_at(node, "loud0"),
            statistic(loud, "eth0", "tx_packets"),
            statistic(loud, "eth0", "tx_dropped"),
            counter(sink, "UdpInDatagrams") + counter(sink, "UdpRcvbufErrors"),
        ]
    };
    let before = numbers();
    let to = (ip("10.10.0.4"), deaf.local_addr().unwrap().port());
    let sent = while_flooding(loud, to, FLOOD, 18, || talk.round_trips(QUESTIONS));
    let after = numbers();
    let [rx, tx, dropped, read, refused, arrived] = std::array::from_fn(|i| after[i] - before[i]);
    assert_eq!(rx, tx + dropped);
    assert_eq!(rx, read, "the kernel counts what was taken from it");
    assert_eq!(arrived, tx, "and what it was given");
    assert_eq!(rx + refused, sent, "what is not taken from the kernel it counts itself");
    for port in ["a0", "b0"] {
        assert_eq!(drops_at(node, port), [], "{port}");
    }
}

#[test]
fn a_port_that_floods_keeps_no_other_from_being_served_by_the_same_worker() {
    in_nodes("a_port_that_floods_keeps_no_other_from_being_served_by_the_same_worker", |lab| {
        a_flood_leaves_room_for_others(lab, "[datapath]\nworkers = 1");
    });
}

#[test]
fn a_port_that_floods_keeps_no_other_from_being_served_by_two_workers() {
    in_nodes("a_port_that_floods_keeps_no_other_from_being_served_by_two_workers", |lab| {
        a_flood_leaves_room_for_others(lab, "[datapath]\nworkers = 2");
    });
}

#[test]
fn a_port_that_floods_keeps_no_other_from_being_served_without_offload() {
    in_nodes("a_port_that_floods_keeps_no_other_from_being_served_without_offload", |lab| {
        a_flood_leaves_room_for_others(lab, "[datapath]\nworkers = 1\noffload = false");
    });
}

#[test]
fn pods_that_read_nothing_of_what_they_are_sent_hold_nobody_up() {
    in_nodes("pods_that_read_nothing_of_what_they_are_sent_hold_nobody_up", |lab| {
        let scene = scene(lab, &["[datapath]\nworkers = 1"], "", &[A, B, LOUD, SINK]);
        let (node, loud, sink) = (&scene.nodes[0], scene.pod("loud"), scene.pod("sink"));
        let talk = Talk::new(scene.pod("a"), scene.pod("b"), "10.10.0.2");
        pings(sink, ip("10.10.0.3"));
        // A connection whose other end has stopped reading: what fits is taken, then nothing moves.
        let listener = sink.inside(|| TcpListener::bind("0.0.0.0:0")).unwrap();
        let to = (ip("10.10.0.4"), listener.local_addr().unwrap().port());
        let mut stream = loud.inside(|| TcpStream::connect(to)).unwrap();
        let (unread, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut taken = 0;
        let mut fill = || {
            while let Ok(more) = stream.write(&[7; 60_000]) {
                taken += more;
            }
        };
        fill();
        // And datagrams for a socket with room for hardly any.
        let deaf = sink.inside(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        set(&deaf, libc::SOL_SOCKET, libc::SO_RCVBUF, 0);
        let lost = counter(sink, "UdpRcvbufErrors");
        let to = (ip("10.10.0.4"), deaf.local_addr().unwrap().port());
        while_flooding(loud, to, 20_000, 1000, || talk.round_trips(QUESTIONS));
        fill();
        talk.round_trips(QUESTIONS);
        assert!(counter(sink, "UdpRcvbufErrors") > lost && taken > 60_000);
        for port in ["a0", "b0", "sink0"] {
            assert_eq!(drops_at(node, port), [], "{port}");
        }
        drop(unread);
    });
}

/// Peers of the first node that are not there: nobody answers for the first one's address, to the second there is no
/// way, and the third is behind an interface that is down.
const DEAD: &str = "
[datapath]
workers = 1
[[peer]]
address = \"192.0.2.9\"
[[peer]]
address = \"198.51.100.1\"
[[peer]]
address = \"203.0.113.1\"
";

#[test]
fn a_peer_that_cannot_be_reached_costs_its_own_frames_alone() {
    in_nodes("a_peer_that_cannot_be_reached_costs_its_own_frames_alone", |lab| {
        let far = place("far", 2, &["10.10.0.9/24"]);
        // One socket for all: what could stand in each other's way does.
        let scene = scene(lab, &[DEAD, ""], "send_sockets = 1", &[A, B, LOUD, far]);
        let (node, loud) = (&scene.nodes[0], scene.pod("loud"));
        let space = &scene.underlay.nodes[0];
        space.ip("link add name dead type veth peer name daed");
        space.address("dead", "203.0.113.2/24");
        space.ip("link set dev dead down");
        space.ip("route add unreachable 198.51.100.1");
        let local = Talk::new(scene.pod("a"), scene.pod("b"), "10.10.0.2");
        let remote = Talk::new(scene.pod("a"), scene.pod("far"), "10.10.0.9");
        let before = node.peer(v4(2), "tx_frames");
        for (n, peer) in ["192.0.2.9", "198.51.100.1", "203.0.113.1"].into_iter().enumerate() {
            let (address, mac) = (format!("10.10.0.10{n}"), format!("02:00:00:00:00:1{n}"));
            node.ctl(&format!("mac add {peer} 10 {mac}"));
            know(loud, &address, &mac);
            let numbers = || {
                let rx = until_steady("the end of the flood", || node.port("loud0", "rx_frames"));
                [
                    rx,
                    node.peer(ip(peer), "tx_frames"),
                    all_drops_at(node, peer),
                    drops_of(node, peer, "tx_error"),
                ]
            };
            let before = numbers();
            while_flooding(loud, (ip(&address), 9), 20_000, 1000, || {
                local.round_trips(QUESTIONS);
                remote.round_trips(QUESTIONS);
            });
            let after = numbers();
            let [rx, tx, dropped, errors] = std::array::from_fn(|i| after[i] - before[i]);
            assert_eq!(rx, tx + dropped, "{peer}");
            if n > 0 {
                assert_eq!((tx, errors), (0, rx), "{peer}: {:?}", drops_at(node, peer));
            }
        }
        assert_eq!(drops_at(node, "192.0.2.2"), []);
        assert!(node.peer(v4(2), "tx_frames") - before >= 3 * QUESTIONS as u64);
        let path = node.ctl("status")["underlay_path"].clone();
        assert!(
            path.as_str().unwrap().contains("udp_segment"),
            "nothing said that trains cannot be sent: {path}"
        );
    });
}

#[test]
fn an_underlay_that_is_down_costs_what_should_leave_by_it_alone_and_is_used_again() {
    in_nodes("an_underlay_that_is_down_costs_what_should_leave_by_it_alone_and_is_used_again", |lab| {
        let far = place("far", 2, &["10.10.0.9/24"]);
        let scene = scene(lab, &["[datapath]\nworkers = 1", ""], "", &[A, B, LOUD, far]);
        let (node, space, loud) = (&scene.nodes[0], &scene.underlay.nodes[0], scene.pod("loud"));
        let local = Talk::new(scene.pod("a"), scene.pod("b"), "10.10.0.2");
        let remote = Talk::new(scene.pod("a"), scene.pod("far"), "10.10.0.9");
        know(loud, "10.10.0.9", &mac_of(&scene.nodes[1], "far0"));
        for link in ["under", "nothing"] {
            if link == "under" {
                space.ip("link set dev under down");
            } else {
                // The address stays, and no way leads anywhere.
                space.ip("route flush table main");
            }
            let lost = drops_of(node, "192.0.2.2", "tx_error");
            while_flooding(loud, (ip("10.10.0.9"), 9), 20_000, 1000, || local.round_trips(QUESTIONS));
            let now = until_steady("the end of the flood", || drops_of(node, "192.0.2.2", "tx_error"));
            assert!(now > lost, "{link}: {:?}", drops_at(node, "192.0.2.2"));
            space.ip("link set dev under down");
            space.ip("link set dev under up");
            until("the way back", PATIENCE, || {
                let ways = space.ip("route show");
                ways.contains("192.0.2.0/24").then_some(())
            });
            remote.round_trips(QUESTIONS);
        }
        assert_eq!(drops_at(node, "a0"), []);
        let path = node.ctl("status")["underlay_path"].clone();
        assert!(
            path.as_str().unwrap().contains("udp_segment"),
            "nothing said that trains cannot be sent: {path}"
        );
    });
}

#[test]
fn many_dead_peers_leave_room_for_the_one_that_lives() {
    in_nodes("many_dead_peers_leave_room_for_the_one_that_lives", |lab| {
        let dead: String = (10..90).map(|n| format!("[[peer]]\naddress = \"192.0.2.{n}\"\n")).collect();
        let text = format!("[datapath]\nworkers = 1\n{dead}");
        let far = place("far", 2, &["10.10.0.9/24"]);
        let scene = scene(lab, &[&text, ""], "send_sockets = 1", &[A, LOUD, far]);
        let (node, loud) = (&scene.nodes[0], scene.pod("loud"));
        let remote = Talk::new(scene.pod("a"), scene.pod("far"), "10.10.0.9");
        while_flooding(loud, (ip("10.10.0.255"), 9), 5000, 1200, || remote.round_trips(20));
        assert_eq!(drops_at(node, "192.0.2.2"), []);
    });
}
