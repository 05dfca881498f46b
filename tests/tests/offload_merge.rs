//! What may not be merged, sent raw into one pod and looked at in another: cut by the letter, what arrived is what was
//! sent, byte for byte and in order, whatever was merged on its way.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use vswitch_core::offload::GsoKind;
use vswitch_core::wire::ethernet::Mac;
use vswitch_core::wire::vlan::Tag;
use vswitch_tests::frames::{Frame, ctag, describe, hex, stag, station};
use vswitch_tests::headers::Headers;
use vswitch_tests::lab::{Deadline, Lab, until};
use vswitch_tests::node::{PATIENCE, in_nodes};
use vswitch_tests::offload_body::{seed, wire_frame};
use vswitch_tests::rng::Rng;
use vswitch_tests::scene::{Place, Plan, Scene, ip};
use vswitch_tests::sight::{Seen, Sight, layout};
use vswitch_tests::trains::{Flow, flows, is_same};

/// Frames that a TAP's queue and a socket's hold while nobody reads.
const HEAP: usize = 200;

/// Where the frames go.
const TO: Mac = station(2);

/// Two silent pods, `a` that sends and `b` that looks.
struct Field {
    scene: Scene,
    from: Sight,
    to: Sight,
    /// The tags with which frames are sent, and with which they arrive.
    tags: (Vec<Tag>, Vec<Tag>),
}

impl Field {
    fn new(lab: &Lab, plan: &Plan<'_>, keys: [&str; 2], tags: (&[Tag], &[Tag])) -> Self {
        let last = u8::try_from(plan.nodes.len()).unwrap();
        let places = [
            Place { pod: "a", node: 1, keys: keys[0], addresses: &[] },
            Place { pod: "b", node: last, keys: keys[1], addresses: &[] },
        ];
        let scene = Scene::new(lab, &Plan { places: &places, ..*plan });
        let sights = ["a", "b"].map(|pod| Sight::open(scene.pod(pod), "eth0"));
        let [from, to] = sights;
        // Where the frames are for is known from here on.
        to.send(&Frame::new(Mac::BROADCAST, TO).tags(tags.1).bytes());
        until("a frame back", PATIENCE, || {
            from.receive(PATIENCE).filter(|seen| seen.bytes[6..12] == TO.bytes())
        });
        Self { scene, from, to, tags: (tags.0.to_vec(), tags.1.to_vec()) }
    }

    /// Everything that arrives until `count` wire frames have, and a frame that was sent afterwards.
    fn arrivals(&self, count: usize) -> Vec<Seen> {
        let end = station(0xff_ffff);
        let mut arrived = Vec::new();
        let (mut frames, mut asked) = (0, false);
        let deadline = Deadline::after(PATIENCE);
        loop {
            if frames >= count && !asked {
                self.from.send(&Frame::new(TO, end).tags(&self.tags.0).bytes());
                asked = true;
            }
            // Not all that was awaited has come: show what has.
            let Some(seen) = deadline.left().and_then(|left| self.to.receive(left)) else { return arrived };
            if seen.bytes[6..12] == end.bytes() {
                return arrived;
            }
            frames += seen.frames().len();
            arrived.push(seen);
        }
    }

    /// Sends frames in heaps, and returns what arrived.
    fn send(&self, frames: &[Vec<u8>]) -> Vec<Seen> {
        let mut arrived = Vec::new();
        let first = &self.scene.nodes[0];
        for heap in frames.chunks(HEAP) {
            let done = first.port("a0", "rx_frames") + heap.len() as u64;
            let heaped = || heap.iter().for_each(|frame| self.from.send(frame));
            // Every frame is on the underlay before the second node goes on.
            self.scene.paused(heaped, || {
                until("a heap", PATIENCE, || (first.port("a0", "rx_frames") >= done).then_some(()));
            });
            arrived.extend(self.arrivals(heap.len()));
        }
        arrived
    }

    /// `frame` with the tags that it arrives with: the plan's are put in front of those it was sent with, or it loses
    /// as many as the plan has fewer.
    fn as_it_arrives(&self, frame: &[u8]) -> Vec<u8> {
        let (sent, rest) = frame[12..].split_at(4 * self.tags.0.len());
        let planned: Vec<u8> = self.tags.1.iter().flat_map(|tag| tag.bytes()).collect();
        let more = planned.len().saturating_sub(sent.len());
        let fewer = sent.len().saturating_sub(planned.len());
        [&frame[..12], &planned[..more], &sent[fewer..], rest].concat()
    }

    /// Asserts that of every flow exactly what was sent has arrived.
    fn compare(&self, flows: &[Flow], arrived: &[Seen], what: &str) {
        let mut by_source = BTreeMap::<Vec<u8>, Vec<Vec<u8>>>::new();
        for frame in arrived.iter().flat_map(Seen::frames) {
            by_source.entry(frame[6..12].to_vec()).or_default().push(frame);
        }
        for flow in flows {
            let got = by_source.remove(flow.source.bytes().as_slice()).unwrap_or_default();
            let mut sent: Vec<Vec<u8>> = flow.frames.iter().map(|frame| self.as_it_arrives(frame)).collect();
            let mut order: Vec<usize> = (0..sent.len()).collect();
            if !flow.one_flow {
                // In the order of arrival, whatever that is.
                order.clear();
                for frame in &got {
                    let at = (0..sent.len()).find(|at| !order.contains(at) && is_same(frame, &sent[*at]));
                    order.extend(at);
                }
                sent = order.iter().map(|at| sent[*at].clone()).collect();
                assert_eq!(sent.len(), flow.frames.len(), "{what}, {}: lost or changed", flow.name);
            }
            for (i, (got, sent)) in got.iter().zip(&sent).enumerate() {
                let name = &flow.name;
                let texts = [got, sent].map(|frame| describe(frame));
                let heads = [got, sent].map(|frame| hex(&frame[..frame.len().min(120)]));
                assert!(is_same(got, sent), "{what}, {name}, frame {i}: {texts:#?}\n{heads:#?}");
            }
            assert_eq!(got.len(), sent.len(), "{what}, {}", flow.name);
        }
        assert!(by_source.is_empty(), "{what}: from stations that sent nothing: {:?}", by_source.keys());
    }
}

/// Every flow by itself, and then all at once, shuffled as a busy network would.
fn nothing_changes(field: &Field, seed: u64) {
    let mut rng = Rng::from_env(seed);
    let mut superframes = 0;
    for v6 in [false, true] {
        let flows = flows(TO, &field.tags.0, v6, &mut rng);
        let what = format!("seed {}, IPv6 {v6}", rng.seed());
        let in_turn: Vec<Vec<u8>> = flows.iter().flat_map(|flow| flow.frames.clone()).collect();
        let arrived = field.send(&in_turn);
        superframes += arrived.iter().filter(|seen| seen.superframe.is_some()).count();
        field.compare(&flows, &arrived, &what);
        let arrived = field.send(&interleaved(&flows, &mut rng));
        superframes += arrived.iter().filter(|seen| seen.superframe.is_some()).count();
        field.compare(&flows, &arrived, &format!("{what}, shuffled"));
    }
    let all = superframes_change_nothing(field, &mut rng);
    println!("{superframes} superframes made, {all} of those sent arrived whole");
    let may_be_none = field
        .scene
        .nodes
        .iter()
        .any(|node| node.ctl("port").as_array().unwrap().iter().any(|port| !has_offload(port)));
    assert!(superframes > 0 || may_be_none, "nothing was ever merged");
}

/// Whether a port's row says that superframes cross it.
fn has_offload(port: &serde_json::Value) -> bool {
    port["offload"].as_str().is_some_and(|words| words.contains("uso"))
}

/// Frames of a few flows at a time, each in its order.
fn interleaved(flows: &[Flow], rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for some in flows.chunks(5) {
        let mut left: Vec<_> = some.iter().map(|flow| flow.frames.iter()).collect();
        while !left.is_empty() {
            let one = rng.below(left.len());
            let burst = rng.within(1..=4);
            for _ in 0..burst {
                match left[one].next() {
                    Some(frame) => frames.push(frame.clone()),
                    None => {
                        drop(left.remove(one));
                        break;
                    }
                }
            }
        }
    }
    frames
}

type Change = fn(&mut Headers);

/// What a pod's kernel may hand over uncut; bytes of payload, and of each wire frame's.
const SUPERFRAMES: [(&str, usize, usize, Change); 16] = [
    ("plain", 9000, 1000, |_| ()),
    ("one byte too many", 2001, 1000, |_| ()),
    ("odd", 5555, 333, |_| ()),
    ("tiny", 50, 1, |_| ()),
    ("more than one train", 9900, 99, |_| ()),
    ("as large as can be", 64_000, 1300, |_| ()),
    ("not to the end of a frame", 64_001, 1299, |frame| frame.ttl = 3),
    ("pushed and finished", 4000, 700, |frame| {
        if let Some(tcp) = &mut frame.tcp {
            tcp.flags = 0x19;
        }
    }),
    ("after a reduction", 4000, 700, |frame| {
        frame.tos = 2;
        if let Some(tcp) = &mut frame.tcp {
            tcp.flags = 0x98;
        }
    }),
    ("with an echo of congestion", 4000, 700, |frame| {
        frame.tos = 1;
        if let Some(tcp) = &mut frame.tcp {
            tcp.flags = 0x50;
        }
    }),
    ("urgent", 4000, 700, |frame| {
        if let Some(tcp) = &mut frame.tcp {
            tcp.flags = 0x30;
            tcp.urgent = 3001;
        }
    }),
    ("with options of TCP", 4000, 700, |frame| {
        if let Some(tcp) = &mut frame.tcp {
            tcp.options = vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1];
        }
    }),
    ("with forty bytes of options", 4000, 700, |frame| {
        if let Some(tcp) = &mut frame.tcp {
            tcp.options = vec![1; 40];
        }
    }),
    ("with options of IP", 4000, 700, |frame| frame.options = vec![0x94, 4, 0, 0]),
    ("with destination options", 4000, 700, |frame| frame.extensions = vec![(60, vec![1, 4, 0, 0, 0, 0])]),
    ("with a wrapping sequence and identification", 4000, 700, |frame| {
        frame.id = 0xffff;
        if let Some(tcp) = &mut frame.tcp {
            tcp.seq = 0xffff_fff0;
        }
    }),
];

/// Superframes from the pod's kernel arrive as the frames that they stand for; how many arrived whole.
fn superframes_change_nothing(field: &Field, rng: &mut Rng) -> usize {
    let mut whole = 0;
    let mut number = 0x2_0000;
    for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        for (name, len, size, change) in SUPERFRAMES {
            let (src, dst) = if v6 { ("fd10::1", "fd10::2") } else { ("10.1.0.1", "10.1.0.2") };
            number += 1;
            let mut frame = Headers::new(station(number), TO, ip(src), ip(dst), tcp);
            frame.tags.clone_from(&field.tags.0);
            // Room in the tunnel's 1,500 bytes, and not more than so many in one.
            let count = if tcp { usize::MAX } else { 128 };
            frame.data = rng.bytes(len.min(size.saturating_mul(count)));
            change(&mut frame);
            let kind = match (tcp, v6) {
                (false, _) => GsoKind::Udp,
                (true, false) => GsoKind::Tcp4,
                (true, true) => GsoKind::Tcp6,
            };
            let mut bytes = frame.bytes();
            let found = layout(&bytes, kind).unwrap();
            seed(&mut bytes, &found);
            let count = (bytes.len() - found.header_len).div_ceil(size);
            field.from.send_superframe(&bytes, kind, size);
            let arrived = field.arrivals(count);
            whole += usize::from(arrived.len() == 1);
            let frames = (0..count).map(|i| wire_frame(&bytes, &found, size, i)).collect();
            let flow = Flow { name: name.to_owned(), source: station(number), frames, one_flow: true };
            field.compare(&[flow], &arrived, &format!("a superframe, {kind:?}, IPv6 {v6}"));
        }
    }
    whole
}

const NODE: Plan<'_> = Plan { nodes: &[""], underlay: "", v6: false, places: &[] };
const NODES: Plan<'_> = Plan { nodes: &["", ""], ..NODE };
const BASIC: &str = "[datapath]\noffload = false";

#[test]
fn what_may_not_be_merged_arrives_as_it_was_on_one_node() {
    in_nodes("what_may_not_be_merged_arrives_as_it_was_on_one_node", |lab| {
        nothing_changes(&Field::new(lab, &NODE, ["tag = 10"; 2], (&[], &[])), 11);
    });
}

#[test]
fn what_may_not_be_merged_arrives_as_it_was_between_trunks() {
    in_nodes("what_may_not_be_merged_arrives_as_it_was_between_trunks", |lab| {
        let tags = [ctag(10, 3)];
        nothing_changes(&Field::new(lab, &NODE, [""; 2], (&tags, &tags)), 12);
    });
}

#[test]
fn what_may_not_be_merged_arrives_as_it_was_when_tags_come_and_go() {
    in_nodes("what_may_not_be_merged_arrives_as_it_was_when_tags_come_and_go", |lab| {
        nothing_changes(&Field::new(lab, &NODE, ["", "tag = 10"], (&[ctag(10, 0)], &[])), 13);
        let tunnel = "vlan_mode = \"dot1q-tunnel\"\ntag = 500";
        let (one, two) = ([ctag(7, 0)], [stag(500, 0), ctag(7, 0)]);
        nothing_changes(&Field::new(&Lab::new(), &NODE, [tunnel, ""], (&one, &two)), 14);
    });
}

#[test]
fn what_may_not_be_merged_arrives_as_it_was_on_two_nodes() {
    in_nodes("what_may_not_be_merged_arrives_as_it_was_on_two_nodes", |lab| {
        nothing_changes(&Field::new(lab, &NODES, ["tag = 10"; 2], (&[], &[])), 15);
    });
}

#[test]
fn what_may_not_be_merged_arrives_as_it_was_over_ipv6_with_tags_inside() {
    in_nodes("what_may_not_be_merged_arrives_as_it_was_over_ipv6_with_tags_inside", |lab| {
        let plan = Plan { v6: true, underlay: "vxlan_inner_vlan = \"carry\"", ..NODES };
        let tunnel = "vlan_mode = \"dot1q-tunnel\"\ntag = 500";
        let tags = [ctag(7, 5)];
        nothing_changes(&Field::new(lab, &plan, [tunnel; 2], (&tags, &tags)), 16);
    });
}

#[test]
fn what_may_not_be_merged_arrives_as_it_was_where_one_end_has_no_offload() {
    in_nodes("what_may_not_be_merged_arrives_as_it_was_where_one_end_has_no_offload", |lab| {
        for (i, nodes) in (0..).zip([["", BASIC], [BASIC, ""]]) {
            let lab = if i == 0 { lab } else { &Lab::new() };
            let plan = Plan { nodes: &nodes, ..NODES };
            nothing_changes(&Field::new(lab, &plan, ["tag = 10"; 2], (&[], &[])), 17 + i);
        }
        for (i, keys) in (0..).zip([["offload = false", ""], ["", "offload = false"]]) {
            let keys = keys.map(|key| format!("tag = 10\n{key}"));
            let keys = [keys[0].as_str(), keys[1].as_str()];
            nothing_changes(&Field::new(&Lab::new(), &NODE, keys, (&[], &[])), 19 + i);
        }
    });
}

#[test]
fn a_superframe_for_everybody_arrives_whole_or_cut_as_each_takes_it() {
    in_nodes("a_superframe_for_everybody_arrives_whole_or_cut_as_each_takes_it", |lab| {
        let place = |pod, node, keys| Place { pod, node, keys, addresses: &[] };
        let places = [
            place("a", 1, "tag = 10"),
            place("b", 1, "tag = 10"),
            place("basic", 1, "tag = 10\noffload = false"),
            place("trunk", 1, "trunks = [10]"),
            place("far", 2, "tag = 10"),
            place("fartrunk", 2, "trunks = [10]\noffload = false"),
        ];
        let scene = Scene::new(lab, &Plan { places: &places, ..NODES });
        let from = Sight::open(scene.pod("a"), "eth0");
        let hearers = ["b", "basic", "trunk", "far", "fartrunk"].map(|pod| {
            let tags = if pod.contains("trunk") { vec![ctag(10, 0)] } else { Vec::new() };
            (pod, Sight::open(scene.pod(pod), "eth0"), tags)
        });
        let mut rng = Rng::from_env(24);
        let mut number = 0x2_0000;
        // Broadcast, a group, and nobody that is known.
        for to in [Mac::BROADCAST, Mac::new([1, 0, 0x5e, 0, 0, 9]), station(0xdead)] {
            for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
                let (src, dst) = if v6 { ("fd10::1", "ff02::9") } else { ("10.1.0.1", "239.0.0.9") };
                number += 1;
                let source = station(number);
                let mut frame = Headers::new(source, to, ip(src), ip(dst), tcp);
                frame.data = rng.bytes(9_999);
                let kind = match (tcp, v6) {
                    (false, _) => GsoKind::Udp,
                    (true, false) => GsoKind::Tcp4,
                    (true, true) => GsoKind::Tcp6,
                };
                let mut bytes = frame.bytes();
                let found = layout(&bytes, kind).unwrap();
                seed(&mut bytes, &found);
                from.send_superframe(&bytes, kind, 1000);
                for (pod, sight, tags) in &hearers {
                    let mut frames = Vec::new();
                    while frames.len() < 10 {
                        let seen = sight.receive(PATIENCE);
                        let seen = seen.unwrap_or_else(|| panic!("{pod}: {} of 10 frames", frames.len()));
                        frames.extend(seen.frames().into_iter().filter(|f| f[6..12] == source.bytes()));
                    }
                    for (i, got) in frames.iter().enumerate() {
                        let sent = Frame::parse(&wire_frame(&bytes, &found, 1000, i)).unwrap().tags(tags);
                        assert!(
                            *got == sent.bytes(),
                            "{pod}, {kind:?} to {to}, frame {i}: {}",
                            describe(got)
                        );
                    }
                }
            }
        }
    });
}
