//! Offload taken away and given back by a reload while a stream runs: what the sockets of the underlay and the TAPs do
//! then, and what the daemon says of it. Nodes of different abilities are offload_mixed.rs's.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::node::{PATIENCE, in_nodes};
use vswitch_tests::scene::{Place, Plan, Scene, ip};

const ON: &str = "[datapath]\noffload = true";
const WHOLE: &str = "vnet_hdr csum tso uso";
const TRAINS: &str = "udp_segment udp_gro mmsg";
/// Without offload, where there was some before: what waits in a socket is still to be told apart.
const TAKEN: &str = "udp_gro mmsg";

/// Bytes of one write.
const PIECE: u64 = 60_000;

/// Two nodes with a pod each; `keys` are both ports'.
fn scene(lab: &Lab, keys: &str) -> Scene {
    let keys = format!("tag = 10\n{keys}");
    let places = [
        Place { pod: "a", node: 1, keys: &keys, addresses: &["10.10.0.1/24"] },
        Place { pod: "b", node: 2, keys: &keys, addresses: &["10.10.0.2/24"] },
    ];
    Scene::new(lab, &Plan { nodes: &[ON, ON], underlay: "", v6: false, places: &places })
}

/// What stands at `at` of the stream.
fn byte(at: u64) -> u8 {
    u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xff).unwrap()
}

/// A TCP connection.
struct Stream {
    client: TcpStream,
    server: TcpStream,
}

impl Stream {
    fn new(from: &Namespace, to: &Namespace, address: IpAddr) -> Self {
        let listener = to.inside(|| TcpListener::bind("0.0.0.0:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = from.inside(|| TcpStream::connect((address, port))).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { client, server }
    }

    /// Sends while `work` is done, and compares every byte; `work` may wait until many more have arrived.
    fn run(self, work: impl FnOnce(&dyn Fn())) {
        let Self { mut client, mut server } = self;
        let (arrived, enough) = (&AtomicU64::new(0), &AtomicBool::new(false));
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let mut at = 0;
                while !enough.load(Ordering::Relaxed) {
                    let bytes: Vec<u8> = (at..at + PIECE).map(byte).collect();
                    client.write_all(&bytes).unwrap();
                    at += PIECE;
                }
                client.shutdown(Shutdown::Write).unwrap();
                at
            });
            let reader = scope.spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                let mut at = 0;
                loop {
                    let len = server.read(&mut buffer).unwrap();
                    if len == 0 {
                        return at;
                    }
                    let wrong = buffer[..len].iter().zip(at..).find(|(got, at)| **got != byte(*at));
                    assert_eq!(wrong, None);
                    at += u64::try_from(len).unwrap();
                    arrived.store(at, Ordering::Relaxed);
                }
            });
            let further = || {
                // More than can be under way.
                let goal = arrived.load(Ordering::Relaxed) + (8 << 20);
                until("more of the stream", PATIENCE, || {
                    assert!(!writer.is_finished() && !reader.is_finished(), "the stream has ended");
                    (arrived.load(Ordering::Relaxed) > goal).then_some(())
                });
            };
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                further();
                work(&further);
            }));
            enough.store(true, Ordering::Relaxed);
            worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            assert_eq!(reader.join().unwrap(), writer.join().unwrap());
        });
    }
}

/// What node `n` says of its TAPs, of its port `port`, and of its underlay.
fn paths(scene: &Scene, n: usize, port: &str) -> [String; 3] {
    let node = &scene.nodes[n - 1];
    let status = node.ctl("status");
    let rows = node.ctl("port");
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == port).unwrap();
    [&status["tap_path"], &row["offload"], &status["underlay_path"]]
        .map(|said| said.as_str().unwrap().to_owned())
}

/// The number of a pod's interface: another one when it was made anew.
fn index(scene: &Scene, pod: &str) -> String {
    scene.pod(pod).run("cat /sys/class/net/eth0/ifindex")
}

/// Takes offload from each node in turn, and gives it back, in the same order, while a stream runs; `check` sees which
/// nodes have it.
fn in_turn(scene: &mut Scene, check: impl Fn(&Scene, [bool; 2])) {
    let stream = Stream::new(scene.pod("a"), scene.pod("b"), ip("10.10.0.2"));
    stream.run(|further| {
        let mut has = [true, true];
        check(scene, has);
        for (n, wanted) in [(1, false), (2, false), (1, true), (2, true)] {
            scene.reload(
                n,
                &format!("[datapath]\noffload = {}", !wanted),
                &format!("[datapath]\noffload = {wanted}"),
            );
            has[n - 1] = wanted;
            check(scene, has);
            further();
        }
    });
}

#[test]
fn trains_come_and_go_under_a_stream_and_no_tap_notices() {
    in_nodes("trains_come_and_go_under_a_stream_and_no_tap_notices", |lab| {
        // The ports say for themselves that they have offload: only the underlay follows the node's word.
        let mut scene = scene(lab, "offload = true");
        let indices = ["a", "b"].map(|pod| index(&scene, pod));
        in_turn(&mut scene, |scene, has| {
            for (n, port) in [(1, "a0"), (2, "b0")] {
                let underlay = if has[n - 1] { TRAINS } else { TAKEN };
                assert_eq!(paths(scene, n, port), [WHOLE, WHOLE, underlay], "node {n}");
            }
            assert_eq!(["a", "b"].map(|pod| index(scene, pod)), indices);
        });
        for reason in ["bad_offload", "too_big", "tx_error", "rx_truncated"] {
            assert_eq!(scene.drops(reason), 0, "{reason}");
        }
    });
}

#[test]
fn a_stream_outlives_its_taps_that_are_made_anew_without_offload_and_with_it() {
    in_nodes("a_stream_outlives_its_taps_that_are_made_anew_without_offload_and_with_it", |lab| {
        let mut scene = scene(lab, "");
        in_turn(&mut scene, |scene, has| {
            for (n, port) in [(1, "a0"), (2, "b0")] {
                let expected = if has[n - 1] { [WHOLE, WHOLE, TRAINS] } else { ["basic", "basic", TAKEN] };
                assert_eq!(paths(scene, n, port), expected, "node {n}");
            }
        });
        assert_eq!(scene.drops("bad_offload"), 0);
    });
}

#[test]
fn one_port_without_offload_is_named_beside_those_that_have_it() {
    in_nodes("one_port_without_offload_is_named_beside_those_that_have_it", |lab| {
        let places = [
            Place { pod: "a", node: 1, keys: "tag = 10\noffload = false", addresses: &["10.10.0.1/24"] },
            Place { pod: "b", node: 1, keys: "tag = 10", addresses: &["10.10.0.2/24"] },
        ];
        let scene = Scene::new(lab, &Plan { nodes: &[ON], underlay: "", v6: false, places: &places });
        let both = format!("basic, {WHOLE}");
        assert_eq!(paths(&scene, 1, "a0"), [&both, "basic", TRAINS]);
        assert_eq!(paths(&scene, 1, "b0"), [&both, WHOLE, TRAINS]);
        Stream::new(scene.pod("a"), scene.pod("b"), ip("10.10.0.2")).run(|further| further());
        Stream::new(scene.pod("b"), scene.pod("a"), ip("10.10.0.1")).run(|further| further());
    });
}
