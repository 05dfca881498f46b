//! Pods that send what no kernel would, so that offload might be taken in: lengths that lie in the middle of a train.
//! Nobody gets a byte that was sent to another.
#![allow(clippy::unwrap_used, reason = "a test")]

use vswitch_core::offload::GsoKind;
use vswitch_core::wire::ethernet::Mac;
use vswitch_core::wire::flow;
use vswitch_tests::frames::{Frame, ctag, describe_all, station};
use vswitch_tests::headers::Headers;
use vswitch_tests::lab::{Lab, until};
use vswitch_tests::node::{PATIENCE, in_nodes};
use vswitch_tests::offload_body::{repair, seed};
use vswitch_tests::rng::Rng;
use vswitch_tests::scene::{Place, Plan, Scene, ip};
use vswitch_tests::sight::{Seen, Sight, finish, layout};

/// Stations in VLAN 10 and 20 on the second node, where the frames go.
const BLUE: Mac = station(10);
const RED: Mac = station(20);

/// Bytes of every frame that is sent, its tag not among them.
const LEN: usize = 500;

/// How many frames follow the first.
const MORE: usize = 5;

/// Sockets that the sending node has.
const SENDERS: u32 = 16;

/// An IPv4 frame of UDP, `LEN` bytes long, whose lengths say that it goes on for `beyond` bytes after its end. The
/// checksum is unfinished, or right for all of it.
fn liar(source: Mac, beyond: &[u8], unfinished: bool) -> Vec<u8> {
    let mut headers = Headers::new(source, BLUE, ip("10.10.0.1"), ip("10.10.0.2"), false);
    headers.data = vec![b'a'; LEN - 42];
    headers.data.extend(beyond);
    let mut whole = headers.bytes();
    let layout = layout(&whole, GsoKind::Udp).unwrap();
    if unfinished {
        seed(&mut whole, &layout);
    } else {
        repair(&mut whole, &layout);
    }
    whole.truncate(LEN);
    whole
}

/// A frame of no IP for the station in VLAN 20.
fn innocent(source: Mac, number: u8) -> Vec<u8> {
    Frame::new(RED, source).payload(0x88b5, &[number; LEN - 14]).bytes()
}

/// What a VXLAN datagram with `frame` in the red segment begins with, and the frame.
fn datagram(frame: &[u8]) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0];
    bytes.extend((10_020_u32 << 8).to_be_bytes());
    bytes.extend(frame);
    bytes
}

fn with_tag(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &ctag(vlan, 0).bytes(), &frame[12..]].concat()
}

fn arrived(sight: &Sight) -> Vec<Vec<u8>> {
    sight.drain().iter().flat_map(Seen::frames).collect()
}

#[test]
fn a_length_that_lies_takes_no_frame_of_another_segment_along_and_costs_none() {
    in_nodes("a_length_that_lies_takes_no_frame_of_another_segment_along_and_costs_none", |lab| {
        let places = [
            Place { pod: "trunk", node: 1, keys: "trunks = [10, 20]", addresses: &[] },
            Place { pod: "blue", node: 2, keys: "tag = 10", addresses: &[] },
            Place { pod: "red", node: 2, keys: "tag = 20", addresses: &[] },
        ];
        let scene = Scene::new(lab, &Plan { nodes: &["", ""], underlay: "", v6: false, places: &places });
        let [trunk, blue, red] = ["trunk", "blue", "red"].map(|pod| Sight::open(scene.pod(pod), "eth0"));
        for (sight, station) in [(&blue, BLUE), (&red, RED)] {
            sight.send(&Frame::new(Mac::BROADCAST, station).bytes());
            until("a frame back", PATIENCE, || {
                trunk.receive(PATIENCE).filter(|seen| seen.bytes[6..12] == station.bytes())
            });
        }
        for unfinished in [true, false] {
            // All of them by one socket, so that they may be one train.
            let place = |frame: &[u8]| flow::entropy(frame) % SENDERS;
            let source = station(7);
            let wanted = place(&liar(source, &[0; 100], unfinished));
            let other = (100..).map(station).find(|other| place(&innocent(*other, 0)) == wanted).unwrap();
            let innocents: Vec<Vec<u8>> =
                (0..MORE).map(|n| innocent(other, u8::try_from(n).unwrap())).collect();
            let beyond: Vec<u8> = innocents.iter().flat_map(|frame| datagram(frame)).collect();
            let first = liar(source, &beyond, unfinished);
            assert_eq!(place(&first), wanted);
            let done = scene.nodes[0].port("trunk0", "rx_frames") + 1 + MORE as u64;
            scene.paused(
                || {
                    trunk.send(&with_tag(&first, 10));
                    innocents.iter().for_each(|frame| trunk.send(&with_tag(frame, 20)));
                },
                || {
                    let node = &scene.nodes[0];
                    until("a heap", PATIENCE, || (node.port("trunk0", "rx_frames") >= done).then_some(()));
                },
            );
            // What was sent behind them, by the same socket, has arrived, and so has all else.
            for (sight, to, vlan) in [(&blue, BLUE, 10), (&red, RED, 20)] {
                let mut ends = (200..).map(|from| Frame::new(to, station(from)).bytes());
                let end = ends.find(|end| place(end) == wanted).unwrap();
                let mut seen = Vec::new();
                trunk.send(&with_tag(&end, vlan));
                until("the end", PATIENCE, || {
                    seen.extend(arrived(sight));
                    seen.last().is_some_and(|frame| *frame == end).then_some(())
                });
                seen.pop();
                let strangers: Vec<_> =
                    seen.iter().filter(|frame| frame[..6] != to.bytes() || frame.len() != LEN).collect();
                let all: Vec<_> = seen.iter().map(|frame| (vlan, frame.clone())).collect();
                assert!(strangers.is_empty(), "unfinished {unfinished}: {}", describe_all(&all));
                // Nobody's frames are lost for it either: the liar travels alone.
                assert!(vlan == 10 || seen == innocents, "{}", describe_all(&all));
            }
        }
    });
}

/// A frame of no protocol, drawn from `rng`, and where its checksum is to be taken from and put.
fn owing(rng: &mut Rng, source: Mac) -> (Vec<u8>, u16, u16) {
    let len = rng.within(40..=1000);
    let frame = Frame::new(BLUE, source).payload(0x88b5, &rng.bytes(len)).bytes();
    // Linux believes in no checksum that begins in front of where IP would end.
    let start = rng.within(34..=frame.len() - 2);
    // Words count from where the sum begins, so its field is one of them.
    let offset = rng.below(frame.len() - 1 - start) & !1;
    (frame, u16::try_from(start).unwrap(), u16::try_from(offset).unwrap())
}

#[test]
fn a_checksum_that_is_owed_at_an_odd_place_is_finished_there() {
    in_nodes("a_checksum_that_is_owed_at_an_odd_place_is_finished_there", |lab| {
        let basic = "tag = 10\noffload = false";
        let variants: [(&[&str], _, _, &[_]); 5] = [
            (&[""], "tag = 10", "tag = 10", &[]),
            (&[""], "tag = 10", basic, &[]),
            (&[""], "tag = 10", "trunks = [10]", &[ctag(10, 0)]),
            (&["", ""], "tag = 10", "tag = 10", &[]),
            (&["", ""], "tag = 10", "trunks = [10]", &[ctag(10, 0)]),
        ];
        for (variant, (nodes, from, to, tags)) in variants.into_iter().enumerate() {
            let lab = if variant == 0 { lab } else { &Lab::new() };
            let last = u8::try_from(nodes.len()).unwrap();
            let places = [
                Place { pod: "a", node: 1, keys: from, addresses: &[] },
                Place { pod: "b", node: last, keys: to, addresses: &[] },
            ];
            let scene = Scene::new(lab, &Plan { nodes, underlay: "", v6: false, places: &places });
            let [a, b] = ["a", "b"].map(|pod| Sight::open(scene.pod(pod), "eth0"));
            let mut rng = Rng::from_env(51);
            for n in 0..100 {
                let source = station(0x3_0000 + n);
                let (frame, start, offset) = owing(&mut rng, source);
                a.send_unfinished(&frame, start, offset).unwrap();
                let mut expected = frame.clone();
                finish(&mut expected, start.into(), offset.into());
                let tags: Vec<u8> = tags.iter().flat_map(|tag| tag.bytes()).collect();
                expected.splice(12..12, tags);
                let seen = until("a frame", PATIENCE, || {
                    b.receive(PATIENCE).filter(|seen| seen.bytes[6..12] == source.bytes())
                });
                let got = seen.finished();
                let first = got.iter().zip(&expected).position(|(got, wanted)| got != wanted);
                assert!(
                    got == expected,
                    "seed {}, variant {variant}, frame {n}, {start} + {offset}: {} of {} bytes, other from {first:?}, \
                     owing {:?}",
                    rng.seed(),
                    got.len(),
                    expected.len(),
                    seen.unfinished
                );
            }
        }
    });
}

#[test]
fn a_superframe_of_tiny_pieces_takes_no_memory_and_stops_nobody() {
    in_nodes("a_superframe_of_tiny_pieces_takes_no_memory_and_stops_nobody", |lab| {
        let places = [
            Place { pod: "a", node: 1, keys: "tag = 10", addresses: &[] },
            Place { pod: "b", node: 2, keys: "tag = 10", addresses: &[] },
        ];
        let scene = Scene::new(lab, &Plan { nodes: &["", ""], underlay: "", v6: false, places: &places });
        let [a, b] = ["a", "b"].map(|pod| Sight::open(scene.pod(pod), "eth0"));
        b.send(&Frame::new(Mac::BROADCAST, BLUE).bytes());
        until("a frame back", PATIENCE, || a.receive(PATIENCE).filter(|s| s.bytes[6..12] == BLUE.bytes()));
        let resident = || {
            let pid = scene.nodes[0].daemon.pid();
            let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = resident();
        let mut headers = Headers::new(station(7), BLUE, ip("10.10.0.1"), ip("10.10.0.2"), true);
        headers.data = vec![1; 60_000];
        let mut bytes = headers.bytes();
        let found = layout(&bytes, GsoKind::Tcp4).unwrap();
        seed(&mut bytes, &found);
        for _ in 0..5 {
            a.send_superframe(&bytes, GsoKind::Tcp4, 1);
        }
        let end = Frame::new(BLUE, station(8)).bytes();
        until("a frame behind them", PATIENCE, || {
            a.send(&end);
            let seen = b.receive(std::time::Duration::from_millis(100));
            seen.filter(|seen| seen.bytes == end).or_else(|| b.drain().into_iter().find(|s| s.bytes == end))
        });
        let more = resident().saturating_sub(before);
        assert!(more < 8 << 10, "{more} KiB more for superframes of 60,000 pieces");
        assert!(scene.drops("bad_offload") > 0);
    });
}
