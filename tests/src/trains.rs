//! Trains of frames that look as if they could be merged, and what makes them not so: each a flow with a name.
//!
//! Not here: which of them a switch merges. Whether it does or not, what comes out must be what went in.

use crate::frames::station;
use crate::headers::Headers;
use crate::offload_body::word_at;
use crate::rng::Rng;
use crate::sight::{layout, without_padding};
use std::net::IpAddr;
use vswitch_core::offload::GsoKind;
use vswitch_core::wire::ethernet::Mac;
use vswitch_core::wire::vlan::Tag;

/// Frames of one flow, from a source station that no other flow has.
#[derive(Clone, Debug)]
pub struct Flow {
    /// What is odd about it.
    pub name: String,
    /// Where it comes from.
    pub source: Mac,
    /// In the order in which they are sent.
    pub frames: Vec<Vec<u8>>,
    /// Whether all of it may be told to be one flow, so that it keeps its order on every way.
    pub one_flow: bool,
}

type Change = fn(&mut Vec<Headers>);

/// Frames of a plain train.
const COUNT: usize = 8;
/// Payload of each, in bytes.
const SIZE: usize = 500;

/// Options of TCP: two no-operations, and a timestamp (RFC 7323 §3.2) of `value`.
fn timestamp(value: u8) -> Vec<u8> {
    vec![1, 1, 8, 10, 0, 0, 0, value, 0, 0, 0, 1]
}

/// A destination options header of padding alone, the last byte of which is `value`.
fn destination_options(value: u8) -> (u8, Vec<u8>) {
    (60, vec![1, 4, 0, 0, 0, value])
}

fn renumber(train: &mut [Headers], ids: impl Fn(u16) -> u16) {
    for (i, frame) in (0..).zip(train) {
        frame.id = ids(i);
    }
}

/// What either transport may bring.
const OF_BOTH: [(&str, Change); 26] = [
    ("nothing", |_| ()),
    ("another TTL", |train| train[3].ttl = 63),
    ("another DSCP", |train| train[3].tos = 0x28),
    ("congestion met on the way", |train| {
        train.iter_mut().for_each(|frame| frame.tos = 2);
        train[4].tos = 3;
    }),
    ("the other ECN-capable codepoint", |train| {
        train.iter_mut().for_each(|frame| frame.tos = 2);
        train[4].tos = 1;
    }),
    ("all with a traffic class", |train| train.iter_mut().for_each(|frame| frame.tos = 0xb9)),
    ("a wrong checksum", |train| train[3].wrong_by = 1),
    ("a wrong checksum in front", |train| train[0].wrong_by = 0x100),
    ("wrong checksums everywhere", |train| train.iter_mut().for_each(|frame| frame.wrong_by = 7)),
    ("one reordered", |train| train.swap(3, 4)),
    ("all reversed", |train| train.reverse()),
    ("one twice", |train| train.insert(4, train[3].clone())),
    ("one lost", |train| drop(train.remove(4))),
    ("padding", |train| train[3].padding = vec![0xee; 9]),
    ("padding everywhere", |train| train.iter_mut().for_each(|frame| frame.padding = vec![0; 6])),
    ("an empty one", |train| train[3].data.clear()),
    ("tiny ones", |train| train.iter_mut().for_each(|frame| frame.data.truncate(1))),
    ("a short one in the middle", |train| train[3].data.truncate(77)),
    ("a long one in the middle", |train| train[3].data.extend([0x55; 301])),
    ("odd lengths", |train| train.iter_mut().for_each(|frame| frame.data.truncate(333))),
    ("growing", |train| (0..).zip(train).for_each(|(i, frame)| frame.data.truncate(100 + i))),
    ("shrinking", |train| (0..).zip(train).for_each(|(i, frame)| frame.data.truncate(400 - i))),
    ("another tag", |train| {
        if let Some(tag) = train[3].tags.last_mut() {
            tag.tci ^= 0x2000;
        }
    }),
    ("zeros", |train| train.iter_mut().for_each(|frame| frame.data.fill(0))),
    ("ones", |train| train.iter_mut().for_each(|frame| frame.data.fill(0xff))),
    ("a checksum of zero", |train| {
        // Two bytes of data make up for all else.
        let frame = &mut train[3];
        frame.data[..2].fill(0);
        let bytes = frame.bytes();
        let kind = if frame.tcp.is_some() { GsoKind::Tcp4 } else { GsoKind::Udp };
        let sum = layout(&bytes, kind).map(|layout| word_at(&bytes, layout.checksum_at()));
        frame.data[..2].copy_from_slice(&sum.unwrap_or(0).to_be_bytes());
    }),
];

const OF_TCP: [(&str, Change); 28] = [
    ("SYN in front", |train| train[0].tcp().flags = 0x02),
    ("SYN and ACK in the middle", |train| train[3].tcp().flags = 0x12),
    ("FIN at the end", |train| train[COUNT - 1].tcp().flags |= 0x01),
    ("FIN in the middle", |train| train[3].tcp().flags |= 0x01),
    ("RST in the middle", |train| train[3].tcp().flags |= 0x04),
    ("PSH in the middle", |train| train[3].tcp().flags |= 0x08),
    ("PSH everywhere", |train| train.iter_mut().for_each(|frame| frame.tcp().flags |= 0x08)),
    ("no ACK", |train| train[3].tcp().flags = 0),
    ("an urgent byte", |train| {
        train[3].tcp().flags |= 0x20;
        train[3].tcp().urgent = 17;
    }),
    ("urgent everywhere", |train| {
        for (i, frame) in (0..).zip(train) {
            frame.tcp().flags |= 0x20;
            frame.tcp().urgent = 4000 - 500 * i;
        }
    }),
    ("an urgent pointer without its flag", |train| train[3].tcp().urgent = 5),
    ("ECE in the middle", |train| train[3].tcp().flags |= 0x40),
    ("ECE everywhere", |train| train.iter_mut().for_each(|frame| frame.tcp().flags |= 0x40)),
    ("CWR in front", |train| train[0].tcp().flags |= 0x80),
    ("CWR in the middle", |train| train[3].tcp().flags |= 0x80),
    ("CWR everywhere", |train| train.iter_mut().for_each(|frame| frame.tcp().flags |= 0x80)),
    ("the ninth flag", |train| train[3].tcp().reserved = 1),
    ("the ninth flag everywhere", |train| train.iter_mut().for_each(|frame| frame.tcp().reserved = 1)),
    ("a timestamp", |train| train.iter_mut().for_each(|frame| frame.tcp().options = timestamp(1))),
    ("timestamps that go on", |train| {
        (0..).zip(train).for_each(|(i, frame)| frame.tcp().options = timestamp(i / 3));
    }),
    ("a timestamp in the middle", |train| train[3].tcp().options = timestamp(1)),
    ("other padding of options", |train| {
        train.iter_mut().for_each(|frame| frame.tcp().options = vec![1, 1, 1, 1]);
        train[3].tcp().options = vec![1, 1, 1, 0];
        train[5].tcp().options = vec![0, 0, 0, 0];
    }),
    ("forty bytes of options", |train| {
        train.iter_mut().for_each(|frame| frame.tcp().options = vec![1; 40]);
    }),
    ("selective acknowledgement", |train| {
        train[3].tcp().options = vec![1, 1, 5, 10, 0, 0, 1, 0, 0, 0, 2, 0];
    }),
    ("another acknowledgement", |train| train[3].tcp().ack = 78),
    ("another window", |train| train[3].tcp().window = 501),
    ("a gap and an overlap", |train| {
        train[3].tcp().seq += 100;
        train[5].tcp().seq -= 100;
    }),
    ("a sequence that wraps", |train| {
        for frame in train {
            frame.tcp().seq = frame.tcp().seq.wrapping_sub(1000 + 1700);
        }
    }),
];

const OF_UDP: [(&str, Change); 3] = [
    ("another port", |train| train[3].ports.1 += 1),
    ("no checksum in the middle", |train| train[3].no_checksum = true),
    ("no checksums", |train| train.iter_mut().for_each(|frame| frame.no_checksum = true)),
];

const OF_V4: [(&str, Change); 17] = [
    ("identifications that stand still", |train| renumber(train, |_| 5)),
    ("identifications of zero", |train| renumber(train, |_| 0)),
    ("identifications of zero that begin late", |train| renumber(train, |i| u16::from(i == 0))),
    ("identifications that go down", |train| renumber(train, |i| 100 - i)),
    ("identifications by two", |train| renumber(train, |i| 100 + 2 * i)),
    ("an identification that jumps", |train| renumber(train, |i| 100 + i + u16::from(i > 3) * 50)),
    ("identifications that wrap", |train| renumber(train, |i| 65_533_u16.wrapping_add(i))),
    ("identifications in the other byte order", |train| renumber(train, |i| (100 + i).swap_bytes())),
    ("fragmentation allowed", |train| train.iter_mut().for_each(|frame| frame.fragment = 0)),
    ("fragmentation allowed, identifications of zero", |train| {
        train.iter_mut().for_each(|frame| (frame.fragment, frame.id) = (0, 0));
    }),
    ("fragmentation allowed in the middle", |train| train[3].fragment = 0),
    ("the reserved bit", |train| train.iter_mut().for_each(|frame| frame.fragment |= 0x8000)),
    ("a wrong checksum of the header", |train| train[3].ip_wrong_by = 1),
    ("wrong checksums of the header everywhere", |train| {
        train.iter_mut().for_each(|frame| frame.ip_wrong_by = 0x55);
    }),
    ("options of the header", |train| {
        train.iter_mut().for_each(|frame| frame.options = vec![0x94, 4, 0, 0, 1, 1, 1, 0]);
    }),
    ("options of one header", |train| train[3].options = vec![0x94, 4, 0, 0]),
    ("other options of one header", |train| {
        train.iter_mut().for_each(|frame| frame.options = vec![1, 1, 1, 1]);
        train[3].options = vec![1, 1, 1, 0];
    }),
];

const OF_V6: [(&str, Change); 7] = [
    ("a flow label", |train| train.iter_mut().for_each(|frame| frame.label = 0x12345)),
    ("another flow label", |train| train[3].label = 0x12345),
    ("destination options", |train| {
        train.iter_mut().for_each(|frame| frame.extensions = vec![destination_options(0)]);
    }),
    ("destination options of one", |train| train[3].extensions = vec![destination_options(0)]),
    ("other destination options of one", |train| {
        train.iter_mut().for_each(|frame| frame.extensions = vec![destination_options(0)]);
        train[3].extensions = vec![destination_options(9)];
    }),
    ("hop-by-hop options", |train| {
        train.iter_mut().for_each(|frame| frame.extensions = vec![(0, vec![1, 4, 0, 0, 0, 0])]);
    }),
    ("a routing header", |train| {
        // Type 253 is for experiments; no segments are left.
        train.iter_mut().for_each(|frame| frame.extensions = vec![(43, vec![253, 0, 0, 0, 0, 0])]);
    }),
];

/// Not told to be of the flow, for a part shows no ports.
const PARTS_V4: [(&str, Change); 2] = [
    ("more fragments", |train| train[3].fragment = 0x2000),
    ("a later fragment", |train| train[3].fragment = 100),
];

const PARTS_V6: [(&str, Change); 1] = [("a fragment header", |train| {
    train[3].extensions = vec![(44, vec![0, 1, 0, 0, 0, 9])];
})];

/// Every flow there is to `to`, with these tags, TCP and UDP over IPv4 or IPv6; data are drawn from `rng`.
#[must_use]
pub fn flows(to: Mac, tags: &[Tag], v6: bool, rng: &mut Rng) -> Vec<Flow> {
    let mut flows = Vec::new();
    for tcp in [true, false] {
        let of_transport: &[_] = if tcp { &OF_TCP } else { &OF_UDP };
        let of_version: &[_] = if v6 { &OF_V6 } else { &OF_V4 };
        let parts: &[_] = if v6 { &PARTS_V6 } else { &PARTS_V4 };
        let whole = [&OF_BOTH, of_transport, of_version].concat();
        let changes = whole.iter().map(|change| (change, true)).chain(parts.iter().map(|c| (c, false)));
        for ((name, change), one_flow) in changes {
            let number = u32::try_from(flows.len()).expect("a few hundred");
            let source = station(0x1_0000 * (1 + u32::from(v6)) + number);
            let mut train = plain(source, to, tags, v6, tcp, rng);
            change(&mut train);
            let kind = if tcp { "TCP" } else { "UDP" };
            flows.push(Flow {
                name: format!("{kind} over IPv{}: {name}", if v6 { 6 } else { 4 }),
                source,
                frames: train.iter().map(Headers::bytes).collect(),
                // Another port is another flow.
                one_flow: one_flow && *name != "another port",
            });
        }
    }
    flows
}

/// A train that may be merged from end to end.
fn plain(source: Mac, to: Mac, tags: &[Tag], v6: bool, tcp: bool, rng: &mut Rng) -> Vec<Headers> {
    let [src, dst]: [IpAddr; 2] = if v6 {
        [[0xfd10, 0, 0, 0, 0, 0, 0, 0x101], [0xfd10, 0, 0, 0, 0, 0, 0, 0x102]].map(IpAddr::from)
    } else {
        [[10, 10, 1, 1], [10, 10, 1, 2]].map(IpAddr::from)
    };
    let mut frame = Headers::new(source, to, src, dst, tcp);
    frame.tags = tags.to_vec();
    // So that flows are many for whoever spreads them.
    frame.ports.0 = u16::try_from(rng.within(1024..=65_535)).expect("a port");
    (0..COUNT)
        .map(|_| {
            frame.data = rng.bytes(SIZE);
            let this = frame.clone();
            frame.id += 1;
            if let Some(tcp) = &mut frame.tcp {
                tcp.seq += 500;
            }
            this
        })
        .collect()
}

/// Whether `got` is `sent` as it came out of a wire.
///
/// Two things may differ: padding behind the IP packet, which was not sent by whoever sent the packet; and an
/// identification of 0 that DF makes meaningless (RFC 6864 §4.1), in what was cut.
#[must_use]
pub fn is_same(got: &[u8], sent: &[u8]) -> bool {
    if got == sent || got == without_padding(sent) {
        return true;
    }
    let Some(at) = layout(sent, GsoKind::Udp).filter(|layout| !layout.v6).map(|layout| layout.ip_at) else {
        return false;
    };
    let meaningless = sent.get(at + 4..at + 8) == Some(&[0, 0, 0x40, 0]);
    meaningless && got.len() == without_padding(sent).len() && {
        let end = at + 4 * usize::from(sent[at] & 15);
        let mut zeroed = got.to_vec();
        zeroed[at + 4..at + 6].fill(0);
        zeroed[at + 10..at + 12].fill(0);
        let sum = crate::frames::checksum(0, &zeroed[at..end]);
        zeroed[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        let right = crate::frames::checksum(0, &got[at..end]) == 0;
        right && zeroed == without_padding(sent)
    }
}
