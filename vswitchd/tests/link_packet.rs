//! Frames through packet sockets on veth pairs, against a real kernel: tags, superframes and what they owe, order, sizes.
//! What becomes of interfaces is link_interface.rs's.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use link_support::wire::{Seen, open, owing_nothing, pair, receive, send, tagged};
use link_support::{
    LIMIT, assert_all_sent, assert_clean, folded_sum, isolated, payload, port, run, unfinished, up,
};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vswitch_core::frame::{Head, TxRange};
use vswitch_core::offload::{Checksum, Gso, GsoKind};
use vswitch_core::{Arrival, Batch, Offload, TxList};
use vswitchd::link::{Link, Packet, Scratch, Sent};
use vswitchd::sys::event::wait_readable;
use vswitchd::sys::netlink::Netlink;
use vswitchd::sys::netns;

#[test]
fn tags_arrive_where_they_were_however_many_and_whatever_their_kind() {
    isolated(|| {
        pair("near", "far");
        let (a, b) = (open("near"), open("far"));
        // The kernel takes the outermost tag out of each.
        let frames = owing_nothing([
            tagged(&[], 0),
            tagged(&[(0x8100, 10)], 1),
            tagged(&[(0x8100, 0xe00f)], 2),
            tagged(&[(0x88a8, 0x5064)], 3),
            tagged(&[(0x88a8, 100), (0x8100, 0x6007)], 4),
            tagged(&[(0x8100, 0)], 5),
            tagged(&[(0x8100, 1), (0x8100, 2), (0x8100, 3)], 6),
            tagged(&[(0x9100, 4)], 7),
        ]);
        for (from, to) in [(&a, &b), (&b, &a)] {
            let bytes = frames.iter().map(|(frame, _)| frame.len()).sum();
            assert_all_sent(send(from, &frames), 8, bytes);
            assert_eq!(receive(to, 8), frames);
        }
    });
}

#[test]
fn nothing_that_leaves_by_the_interface_is_seen_as_arriving() {
    isolated(|| {
        pair("near", "far");
        let (a, b) = (open("near"), open("far"));
        let other = open("near");
        let frames = owing_nothing([tagged(&[], 1)]);
        assert_eq!(send(&other, &frames).ok, 1);
        assert_eq!(receive(&b, 1), frames);
        assert_eq!(send(&b, &frames).ok, 1);
        // The first thing that either sees.
        assert_eq!((receive(&a, 1), receive(&other, 1)), (frames.clone(), frames));
    });
}

/// A host behind a veth, whose other end is here.
struct Pod {
    link: Packet,
    space: OwnedFd,
}

impl Pod {
    /// Number `n` has 10.9.0.n and fd09::n.
    fn new(n: u8, offload: bool) -> Self {
        let space = netns::create().unwrap();
        let mut here = Netlink::open().unwrap();
        let name = format!("veth{n}");
        here.add_veth(&name, "eth0", space.as_fd()).unwrap();
        run(&format!("sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1"));
        up(&name);
        netns::within(space.as_fd(), || {
            let index = up("eth0");
            let mut netlink = Netlink::open().unwrap();
            netlink.add_address(index, format!("10.9.0.{n}").parse().unwrap(), 24).unwrap();
            netlink.add_address(index, format!("fd09::{n}").parse().unwrap(), 64).unwrap();
        })
        .unwrap();
        Self { link: Packet::open(&name, offload).unwrap(), space }
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::within(self.space.as_fd(), work).unwrap()
    }
}

const TAG: [u8; 4] = [0x81, 0, 0x60, 7];

/// What becomes of a frame on its way.
#[derive(Clone, Copy)]
enum Edit {
    Tag,
    Untag,
}

/// Carries everything from `from` to `to`, edited, until `done`; returns the length of each frame, its first bytes and
/// what it owed.
fn carry(from: &Packet, to: &Packet, edit: Edit, done: &AtomicBool) -> Vec<(usize, Seen)> {
    let (mut batch, mut tx, mut scratch) = (Batch::new(64), TxList::new(), Scratch::new());
    let mut seen = Vec::new();
    while !done.load(Ordering::Relaxed) {
        batch.clear();
        tx.clear();
        let received = from.receive(port(), &mut batch);
        assert_clean(received);
        assert_eq!((received.frames, received.bad_offload), (batch.len(), 0));
        for i in 0..batch.len() {
            let (_, owed) = batch.arrival(i).unwrap();
            let bytes = batch.bytes(i);
            seen.push((bytes.len(), (bytes[..bytes.len().min(100)].to_vec(), owed)));
            let (tag, rest, by) = match edit {
                Edit::Tag => (&TAG[..], 12, 4),
                Edit::Untag => (&[][..], 16, -4),
            };
            let head = tx.head(&[&bytes[..12], tag]).unwrap();
            let range = TxRange::new(i, rest, bytes.len()).unwrap();
            tx.push(port(), head, &[range], owed.shifted(by).unwrap(), 0);
        }
        let sent = to.send(&batch, &tx, port(), &mut scratch);
        assert_eq!(sent.frames(), sent.ok, "{sent:?}");
        if received.drained {
            wait_readable(from.fd().unwrap(), Some(Duration::from_millis(10))).unwrap();
        }
    }
    seen
}

/// A TCP stream from `a` to `to` of `b` through `wire`, on which its frames are tagged, every byte compared; returns
/// what came from `a`, and what came off the wire.
fn stream(a: &Pod, b: &Pod, wire: &[Packet; 2], to: &str) -> [Vec<(usize, Seen)>; 2] {
    let to: IpAddr = to.parse().unwrap();
    let sent = payload(4 << 20);
    let done = AtomicBool::new(false);
    let done = &done;
    let [near, far] = wire;
    std::thread::scope(|scope| {
        let there = scope.spawn(move || carry(&a.link, near, Edit::Tag, done));
        let off = scope.spawn(move || carry(far, &b.link, Edit::Untag, done));
        let back = scope.spawn(move || carry(&b.link, far, Edit::Tag, done));
        let home = scope.spawn(move || carry(near, &a.link, Edit::Untag, done));
        let worked = std::panic::catch_unwind(|| {
            let listener = b.inside(|| TcpListener::bind((to, 0)).unwrap());
            let address = listener.local_addr().unwrap();
            let received = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.set_read_timeout(Some(LIMIT)).unwrap();
                    stream.read_to_end(&mut received.lock().unwrap()).unwrap();
                });
                let mut stream = a.inside(|| TcpStream::connect_timeout(&address, LIMIT).unwrap());
                stream.set_write_timeout(Some(LIMIT)).unwrap();
                stream.write_all(&sent).unwrap();
            });
            assert!(*received.lock().unwrap() == sent);
        });
        done.store(true, Ordering::Relaxed);
        let [_, _, there, off] = [back, home, there, off].map(|thread| thread.join().unwrap());
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        [there, off]
    })
}

#[test]
fn superframes_come_with_what_they_owe_and_go_on_as_one_or_cut_tagged_or_not() {
    isolated(|| {
        pair("near", "far");
        for offload in [[true, true], [true, false], [false, true]] {
            let (a, b) = (Pod::new(1, offload[0]), Pod::new(2, offload[1]));
            let wire = ["near", "far"].map(|name| Packet::open(name, offload[1]).unwrap());
            for (to, kind, ip) in [("10.9.0.2", GsoKind::Tcp4, 20), ("fd09::2", GsoKind::Tcp6, 40)] {
                for (seen, tag) in stream(&a, &b, &wire, to).into_iter().zip([&[][..], &TAG]) {
                    let transport = 14 + tag.len() + ip;
                    let superframes: Vec<_> =
                        seen.iter().filter(|(_, (_, owed))| owed.gso.is_some()).collect();
                    // What was cut before the wire comes off it cut.
                    assert!(!superframes.is_empty() || (!tag.is_empty() && !offload[1]), "{to} {offload:?}");
                    for (len, (frame, owed)) in superframes {
                        assert_eq!(frame[12..12 + tag.len()], *tag);
                        let start = u16::try_from(transport).unwrap();
                        assert_eq!(owed.checksum, Some(Checksum { start, offset: 16 }));
                        let gso = owed.gso.unwrap();
                        let header_len = transport + 4 * usize::from(frame[transport + 12] >> 4);
                        assert_eq!((gso.kind, usize::from(gso.header_len)), (kind, header_len));
                        assert!(*len > usize::from(gso.size) + header_len);
                    }
                }
            }
            for n in [1, 2] {
                run(&format!("ip link delete veth{n}"));
            }
        }
    });
}

/// The sum over TCP or UDP of IPv4, pseudo header included, in `frame`; 0xffff when its checksum is right.
fn transport_sum(frame: &[u8]) -> u16 {
    let ip = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    let end = ip + usize::from(u16::from_be_bytes([frame[ip + 2], frame[ip + 3]]));
    let segment = &frame[ip + 20..end];
    let len = u16::try_from(segment.len()).unwrap().to_be_bytes();
    let pseudo = [&frame[ip + 12..ip + 20], &[0, frame[ip + 9]], &len].concat();
    let padding = &[0][..segment.len() % 2];
    folded_sum(&[&pseudo, segment, padding].concat())
}

/// A superframe of UDP with ten datagrams of 1,000 bytes and one of 300, tagged or not; a datagram that owes its
/// checksum; and one that owes nothing.
fn owing(tag: &[u8]) -> Vec<Seen> {
    let with_tag = |frame: Vec<u8>| [&frame[..12], tag, &frame[12..]].concat();
    let moved = u16::try_from(tag.len()).unwrap();
    let checksum = Some(Checksum { start: 34 + moved, offset: 6 });
    let gso = Some(Gso { kind: GsoKind::Udp, size: 1000, header_len: 42 + moved });
    let to = [2, 0, 0, 0, 0, 9];
    let mut finished = unfinished(to, &payload(77));
    // A UDP checksum of zero: none at all.
    finished[40..42].fill(0);
    vec![
        (with_tag(unfinished(to, &payload(10_300))), Offload { checksum, gso }),
        (with_tag(unfinished(to, &payload(501))), Offload { checksum, gso: None }),
        (with_tag(finished), Offload::NONE),
    ]
}

#[test]
fn what_is_owed_is_paid_before_an_interface_that_can_nothing() {
    isolated(|| {
        pair("near", "far");
        let b = open("far");
        run("ethtool -K near tx off sg off tso off gso off tx-udp-segmentation off");
        for (offload, tag) in
            [(true, &[][..]), (true, &[0x81, 0, 0, 7]), (false, &[]), (false, &[0x81, 0, 0, 7])]
        {
            let a = Packet::open("near", offload).unwrap();
            let sent = send(&a, &owing(tag));
            assert_eq!((sent.ok, sent.frames()), (if offload { 3 } else { 13 }, sent.ok), "{sent:?}");
            let seen = receive(&b, 13);
            let header_len = 42 + tag.len();
            for (n, (frame, owed)) in seen.iter().enumerate() {
                assert_eq!(*owed, Offload::NONE, "frame {n}, offload {offload}");
                let expected = [[1000; 10].as_slice(), &[300, 501, 77]].concat()[n];
                assert_eq!(frame.len(), header_len + expected, "frame {n}");
                assert_eq!(frame[12..12 + tag.len()], *tag);
                if n < 12 {
                    assert_eq!(transport_sum(frame), 0xffff, "frame {n}, offload {offload}");
                }
            }
            let data: Vec<u8> =
                seen[..11].iter().flat_map(|(frame, _)| &frame[header_len..]).copied().collect();
            assert!(data == payload(10_300));
        }
    });
}

#[test]
fn facts_that_do_not_fit_their_frame_cost_that_frame_only() {
    isolated(|| {
        pair("near", "far");
        let b = open("far");
        for offload in [true, false] {
            let a = Packet::open("near", offload).unwrap();
            let beyond = Some(Checksum { start: 200, offset: 6 });
            let wrong = Offload { checksum: beyond, gso: None };
            let frames = [tagged(&[], 1), tagged(&[], 2), tagged(&[], 3)].map(|frame| (frame, Offload::NONE));
            let mut given = frames.to_vec();
            given[1].1 = wrong;
            let sent = send(&a, &given);
            assert_eq!((sent.ok, sent.refused + sent.bad_offload, sent.gone), (2, 1, false), "{sent:?}");
            assert_eq!(receive(&b, 2), [frames[0].clone(), frames[2].clone()]);
        }
    });
}

#[test]
fn frames_in_order_stay_in_order_many_at_a_time() {
    isolated(|| {
        pair("near", "far");
        for offload in [true, false] {
            let (a, b) = (Packet::open("near", offload).unwrap(), open("far"));
            let mut next = 0_u32;
            for _ in 0..10 {
                let numbered = |n: u32| {
                    let mut frame = tagged(if n.is_multiple_of(3) { &[(0x8100, 5)] } else { &[] }, 0);
                    let end = frame.len();
                    frame[end - 4..].copy_from_slice(&n.to_be_bytes());
                    frame
                };
                let frames = owing_nothing((next..next + 200).map(numbered));
                next += 200;
                let bytes = frames.iter().map(|(frame, _)| frame.len()).sum();
                assert_all_sent(send(&a, &frames), 200, bytes);
                assert_eq!(receive(&b, 200), frames);
            }
        }
    });
}

#[test]
fn neighbours_of_a_flow_leave_as_one_and_others_stay_in_their_order() {
    isolated(|| {
        pair("near", "far");
        let (a, b) = (open("near"), open("far"));
        let datagram = |n: u8| {
            let mut data = payload(400);
            data[0] = n;
            let mut frame = unfinished([2, 0, 0, 0, 0, 9], &data);
            // Linux counts the identification up within a superframe.
            frame[19] = n;
            frame[24..26].fill(0);
            let sum = !folded_sum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            (frame, Offload { checksum: Some(Checksum { start: 34, offset: 6 }), gso: None })
        };
        let mut frames: Vec<Seen> = (0..20).map(datagram).collect();
        frames.insert(10, (tagged(&[], 1), Offload::NONE));
        let bytes = frames.iter().map(|(frame, _)| frame.len()).sum();
        assert_all_sent(send(&a, &frames), 21, bytes);
        let seen = receive(&b, 2);
        let superframes: Vec<_> = seen.iter().filter(|(_, owed)| owed.gso.is_some()).collect();
        assert!(!superframes.is_empty(), "{seen:?}");
        let data: Vec<u8> = superframes.iter().flat_map(|(frame, _)| &frame[42..]).copied().collect();
        let sent: Vec<u8> = (0..20)
            .flat_map(|n| {
                let mut data = payload(400);
                data[0] = n;
                data
            })
            .collect();
        assert!(sent.starts_with(&data), "{} bytes", data.len());
    });
}

#[test]
fn a_frame_larger_than_the_mtu_is_too_big_and_stops_no_other() {
    isolated(|| {
        pair("near", "far");
        let b = open("far");
        for offload in [true, false] {
            let a = Packet::open("near", offload).unwrap();
            let sized = |tag: &[(u16, u16)], len: usize| {
                let mut frame = tagged(tag, 1);
                frame.resize(len, 1);
                frame
            };
            let frames = owing_nothing([
                sized(&[], 1514),
                sized(&[], 1515),
                sized(&[(0x8100, 7)], 1518),
                sized(&[(0x8100, 7)], 1519),
                sized(&[], 60),
            ]);
            let sent = send(&a, &frames);
            assert_eq!(sent, Sent { ok: 3, bytes: 1514 + 1518 + 60, too_big: 2, ..Sent::default() });
            let passed = [0, 2, 4].map(|i: usize| frames[i].clone());
            assert_eq!(receive(&b, 3), passed);
        }
    });
}

#[test]
fn a_frame_in_more_pieces_than_one_call_takes_arrives_whole() {
    isolated(|| {
        pair("near", "far");
        for offload in [true, false] {
            let (a, b) = (Packet::open("near", offload).unwrap(), open("far"));
            let mut frame = tagged(&[], 1);
            frame.extend(payload(1200));
            let mut batch = Batch::new(1);
            assert!(batch.copy_in(Arrival::Port(port()), &frame, Offload::NONE));
            let mut tx = TxList::new();
            let ranges: Vec<_> =
                (0..frame.len()).map(|at| TxRange::new(0, at, at + 1).unwrap()).take(frame.len()).collect();
            let whole = [TxRange::new(0, 0, frame.len()).unwrap()];
            tx.push(port(), Head::NONE, &whole, Offload::NONE, 0);
            tx.push(port(), Head::NONE, &ranges, Offload::NONE, 0);
            tx.push(port(), Head::NONE, &whole, Offload::NONE, 0);
            let sent = a.send(&batch, &tx, port(), &mut Scratch::new());
            assert_all_sent(sent, 3, 3 * frame.len());
            assert_eq!(receive(&b, 3), owing_nothing(vec![frame; 3]));
        }
    });
}
