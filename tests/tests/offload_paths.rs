//! The same random traffic over the path with offload and over the one without, captured in the receiving pod and put
//! together again: streams, datagrams and their order are the same.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use vswitch_core::offload::GsoKind;
use vswitch_tests::lab::Lab;
use vswitch_tests::node::in_nodes;
use vswitch_tests::offload_body::word_at;
use vswitch_tests::rng::Rng;
use vswitch_tests::scene::{Place, Plan, Scene, ip};
use vswitch_tests::sight::{Sight, layout, without_padding};
use vswitch_tests::streams::{Tcp, Udp, tcp, udp};

/// One direction of a TCP connection as a capture shows it.
#[derive(Default)]
struct Stream {
    /// Behind SYN.
    begin: u32,
    /// Data by their distance from there.
    pieces: BTreeMap<u32, Vec<u8>>,
}

impl Stream {
    /// All bytes, each of which must have come, and the same whenever it came again.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, piece) in &self.pieces {
            let at = usize::try_from(*at).unwrap();
            assert!(at <= bytes.len(), "{} bytes are missing at {}", at - bytes.len(), bytes.len());
            let again = piece.len().min(bytes.len() - at);
            assert!(bytes[at..at + again] == piece[..again], "other bytes the second time");
            bytes.extend(&piece[again..]);
        }
        bytes
    }
}

/// What a pod received, put together.
#[derive(Default)]
struct Capture {
    frames: usize,
    superframes: usize,
    streams: Vec<Stream>,
    /// Where the streams from each address and port are.
    known: BTreeMap<Vec<u8>, usize>,
    datagrams: Vec<Vec<u8>>,
}

impl Capture {
    fn take(&mut self, sight: &Sight) {
        for seen in sight.drain() {
            self.superframes += usize::from(seen.superframe.is_some());
            for frame in seen.frames() {
                self.frame(without_padding(&frame));
            }
        }
    }

    fn frame(&mut self, frame: &[u8]) {
        let Some(layout) = layout(frame, GsoKind::Udp) else { return };
        let protocol = frame[layout.ip_at + if layout.v6 { 6 } else { 9 }];
        let at = layout.transport_at;
        match protocol {
            6 => self.segment(frame, layout.ip_at, at),
            17 => self.datagrams.push(frame[at + 8..].to_vec()),
            _ => return,
        }
        self.frames += 1;
    }

    fn segment(&mut self, frame: &[u8], ip_at: usize, at: usize) {
        let number = u32::from(word_at(frame, at + 4)) << 16 | u32::from(word_at(frame, at + 6));
        let data = &frame[at + 4 * usize::from(frame[at + 12] >> 4)..];
        let addresses = if frame[ip_at] >> 4 == 4 { ip_at + 12..ip_at + 20 } else { ip_at + 8..ip_at + 40 };
        let key = [&frame[addresses], &frame[at..at + 4]].concat();
        if frame[at + 13] & 2 != 0 && !self.known.contains_key(&key) {
            self.known.insert(key.clone(), self.streams.len());
            self.streams.push(Stream { begin: number.wrapping_add(1), ..Stream::default() });
        }
        let stream = &mut self.streams[self.known[&key]];
        let from = number.wrapping_sub(stream.begin);
        if data.is_empty() || frame[at + 13] & 2 != 0 {
            return;
        }
        let known = stream.pieces.entry(from).or_default();
        if known.len() < data.len() {
            assert!(*known == data[..known.len()], "other bytes the second time");
            *known = data.to_vec();
        }
    }
}

/// What arrived at the pod: by capture and by its sockets.
struct Arrived {
    capture: Capture,
    streams: Vec<Vec<u8>>,
    datagrams: Vec<Vec<u8>>,
}

/// Random traffic of `seed` from `a` to `b`.
fn run(lab: &Lab, nodes: &[&str], v6: bool, seed: u64) -> Arrived {
    let last = u8::try_from(nodes.len()).unwrap();
    let (a, b) = (["10.10.0.1/24", "fd10::1/64"], ["10.10.0.2/24", "fd10::2/64"]);
    let places = [
        Place { pod: "a", node: 1, keys: "tag = 10", addresses: &a },
        Place { pod: "b", node: last, keys: "tag = 10", addresses: &b },
    ];
    let scene = Scene::new(lab, &Plan { nodes, underlay: "", v6, places: &places });
    let (a, b) = (scene.pod("a"), scene.pod("b"));
    let sight = Sight::open(b, "eth0");
    let mut rng = Rng::new(seed);
    let mut arrived = Arrived { capture: Capture::default(), streams: Vec::new(), datagrams: Vec::new() };
    for _ in 0..10 {
        let to = ip(if rng.one_in(2) { "10.10.0.2" } else { "fd10::2" });
        let how = Tcp {
            bytes: rng.within(1..=400_000),
            urgent: rng.one_in(4),
            changing: rng.one_in(4),
            max_segment: *rng.pick(&[0, 0, 0, 1001, 536]),
            no_delay: rng.one_in(5),
            ..Tcp::default()
        };
        arrived.streams.push(tcp(a, b, to, &how, &mut rng));
        arrived.capture.take(&sight);
        let how = Udp {
            count: rng.within(50..=300),
            shortest: 0,
            longest: *rng.pick(&[20, 500, 1350]),
            superframes: rng.one_in(2),
            merged: rng.one_in(2),
            changing: rng.one_in(4),
            ..Udp::default()
        };
        arrived.datagrams.extend(udp(a, b, to, &how, &mut rng));
        arrived.capture.take(&sight);
    }
    arrived
}

fn both_paths_are_the_same(lab: &Lab, count: usize, v6: bool, seed: u64) {
    let seed = Rng::from_env(seed).seed();
    let paths = ["", "[datapath]\noffload = false"].map(|text| run(lab, &vec![text; count], v6, seed));
    for path in &paths {
        let streams: Vec<Vec<u8>> = path.capture.streams.iter().map(Stream::bytes).collect();
        assert!(streams == path.streams, "seed {seed}: another stream was captured than read");
        assert!(path.capture.datagrams == path.datagrams, "seed {seed}: other datagrams captured than read");
    }
    let [with, without] = &paths;
    assert!(with.streams == without.streams, "seed {seed}: streams");
    assert!(with.datagrams == without.datagrams, "seed {seed}: datagrams");
    println!("{} superframes among {} frames", with.capture.superframes, with.capture.frames);
    assert_eq!(without.capture.superframes, 0);
    assert!(with.capture.superframes > 0, "both are the path without offload");
}

#[test]
fn random_traffic_on_one_node_is_the_same_with_offload_and_without() {
    in_nodes("random_traffic_on_one_node_is_the_same_with_offload_and_without", |lab| {
        both_paths_are_the_same(lab, 1, false, 21);
    });
}

#[test]
fn random_traffic_between_two_nodes_is_the_same_with_offload_and_without() {
    in_nodes("random_traffic_between_two_nodes_is_the_same_with_offload_and_without", |lab| {
        both_paths_are_the_same(lab, 2, false, 22);
    });
}

#[test]
fn random_traffic_between_two_nodes_over_ipv6_is_the_same_with_offload_and_without() {
    in_nodes("random_traffic_between_two_nodes_over_ipv6_is_the_same_with_offload_and_without", |lab| {
        both_paths_are_the_same(lab, 2, true, 23);
    });
}
