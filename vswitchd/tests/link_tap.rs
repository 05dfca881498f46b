//! TAPs against a real kernel, each test in a network namespace of its own.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use link_support::{LIMIT, assert_all_sent, isolated, port, record, repeated, up, wait};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::Path;
use tun_tap::{Iface, Mode};
use vswitch_core::frame::{Head, TxRange};
use vswitch_core::{Arrival, Batch, Offload, TxList};
use vswitchd::link::{Link, LinkError, Received, Scratch, Sent, Source, Tap, open_or_adopt};
use vswitchd::sys::netlink::{Change, Netlink};
use vswitchd::sys::{netns, tun};

fn open(name: &str) -> Tap {
    open_or_adopt(Source::Open { name, offload: false }).unwrap()
}

/// A TAP "tap0", up, with 10.9.0.2/24.
fn with_address() -> Tap {
    let tap = open("tap0");
    let index = up("tap0");
    Netlink::open().unwrap().add_address(index, "10.9.0.2".parse().unwrap(), 24).unwrap();
    tap
}

/// Receives until a frame comes that `wanted` likes; it is the last of the batch.
fn receive_until(tap: &Tap, batch: &mut Batch, wanted: impl Fn(&[u8]) -> bool) -> usize {
    loop {
        batch.clear();
        let received = tap.receive(port(), batch);
        link_support::assert_clean(received);
        if let Some(i) = (0..batch.len()).find(|&i| wanted(batch.bytes(i))) {
            assert_eq!(batch.arrival(i), Some((Arrival::Port(port()), Offload::NONE)));
            return i;
        }
        if received.drained {
            wait(tap.fd().unwrap());
        }
    }
}

const STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The answer of 10.9.0.1 to the kernel's ARP request.
fn answer_arp(tap: &Tap) {
    let mut batch = Batch::new(8);
    let i = receive_until(tap, &mut batch, |frame| frame[12..14] == [8, 6] && frame[21] == 1);
    let request = batch.bytes(i);
    let mut reply = request[6..12].to_vec();
    reply.extend(STATION);
    reply.extend(&request[12..21]);
    reply.push(2);
    reply.extend(STATION);
    reply.extend([10, 9, 0, 1]);
    reply.extend(&request[22..32]);
    let mut tx = TxList::new();
    // The request's own padding, if any, goes along as the range.
    record(&mut tx, &reply, &batch, i, reply.len().min(request.len()));
    assert_all_sent(tap.send(&batch, &tx, port(), &mut Scratch::new()), 1, request.len());
}

/// The Ethernet, IP and UDP header of an answer to `frame`; swapping changes no checksum.
fn answer_headers(frame: &[u8]) -> Vec<u8> {
    let mut head = frame[6..12].to_vec();
    head.extend(&frame[..6]);
    head.extend(&frame[12..26]);
    head.extend([&frame[30..34], &frame[26..30], &frame[36..38], &frame[34..36], &frame[38..42]].concat());
    head
}

fn is_udp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0] && frame[23] == 17
}

#[test]
fn frames_come_from_the_kernel_and_go_to_it_gathered_from_pieces() {
    isolated(|| {
        let tap = with_address();
        let socket = UdpSocket::bind("10.9.0.2:9000").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let payload: Vec<u8> = (0..=255).cycle().take(1400).collect();
        socket.send_to(&payload, "10.9.0.1:7").unwrap();
        answer_arp(&tap);
        let mut batch = Batch::new(8);
        let i = receive_until(&tap, &mut batch, is_udp);
        assert_eq!(batch.bytes(i).len(), 42 + payload.len());

        // One head and one range; one head and more ranges than are gathered, so that they are copied; a whole
        // frame that is not for the kernel's MAC, and one too short to be a frame, which stops no other.
        let mut tx = TxList::new();
        record(&mut tx, &answer_headers(batch.bytes(i)), &batch, i, 42);
        tx.push(port(), Head::NONE, &[TxRange::new(i, 0, 9).unwrap()], Offload::NONE, 0);
        let head = tx.head(&[&answer_headers(batch.bytes(i))]).unwrap();
        let ranges: Vec<_> = (0..100).map(|n| TxRange::new(i, 42 + n * 14, 56 + n * 14).unwrap()).collect();
        tx.push(port(), head, &ranges, Offload::NONE, 0);
        let sent = tap.send(&batch, &tx, port(), &mut Scratch::new());
        assert_eq!(sent, Sent { ok: 2, bytes: 2 * 1442, refused: 1, ..Sent::default() });
        for _ in 0..2 {
            let mut answer = [0; 2000];
            let (len, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!((&answer[..len], from), (&payload[..], "10.9.0.1:7".parse().unwrap()));
        }
    });
}

#[test]
fn a_receive_takes_one_budget_and_says_whether_more_waits() {
    isolated(|| {
        let tap = with_address();
        let socket = UdpSocket::bind("10.9.0.2:9000").unwrap();
        socket.send_to(b"first", "10.9.0.1:7").unwrap();
        answer_arp(&tap);
        for _ in 0..100 {
            socket.send_to(b"more", "10.9.0.1:7").unwrap();
        }
        let mut batch = Batch::new(80);
        let received = tap.receive(port(), &mut batch);
        assert_eq!(received, Received { frames: 64, bytes: 47 + 63 * 46, ..Received::default() });
        let received = tap.receive(port(), &mut batch);
        assert_eq!((received.frames, received.drained, batch.len()), (16, false, 80));
        assert_eq!(tap.receive(port(), &mut batch), Received::default());
        batch.clear();
        let received = tap.receive(port(), &mut batch);
        assert!(received.frames >= 21 && received.drained, "{received:?}");
        batch.clear();
        let received = tap.receive(port(), &mut batch);
        assert_eq!((received.frames, received.drained, received.error), (0, true, None));
    });
}

#[test]
fn a_tap_that_is_down_refuses_frames_and_is_not_gone() {
    isolated(|| {
        let tap = open("tap0");
        let (batch, tx) = repeated(&[0; 60], [0, 0, 0]);
        let sent = tap.send(&batch, &tx, port(), &mut Scratch::new());
        assert_eq!(sent, Sent { down: 3, ..Sent::default() });
        let index = up("tap0");
        assert_all_sent(tap.send(&batch, &tx, port(), &mut Scratch::new()), 3, 180);
        Netlink::open().unwrap().change(index, &Change { up: Some(false), ..Change::default() }).unwrap();
        assert_eq!(tap.send(&batch, &tx, port(), &mut Scratch::new()).down, 3);
        let mut batch = Batch::new(70);
        let received = tap.receive(port(), &mut batch);
        assert_eq!((received.gone, received.error), (false, None));
    });
}

#[test]
fn a_tap_in_use_or_another_kind_of_interface_is_refused_by_name() {
    isolated(|| {
        let tap = open("tap0");
        let error = open_or_adopt(Source::Open { name: "tap0", offload: false }).unwrap_err();
        assert!(matches!(&error, LinkError::Busy { name } if name == "tap0"), "{error}");
        assert!(error.to_string().contains("in use by another process"), "{error}");
        drop(tap);
        assert_eq!(open("tap0").name(), "tap0");
        let error = open_or_adopt(Source::Open { name: "lo", offload: false }).unwrap_err();
        assert!(matches!(error, LinkError::NotTap { .. }), "{error}");
    });
}

#[test]
fn a_missing_tun_driver_is_said_with_what_to_do() {
    isolated(|| {
        netns::mount_tmpfs(Path::new("/dev/net")).unwrap();
        let error = open_or_adopt(Source::Open { name: "tap0", offload: false }).unwrap_err();
        assert!(matches!(error, LinkError::TunMissing), "{error}");
        assert!(error.to_string().starts_with("/dev/net/tun is missing: load the driver"), "{error}");
    });
}

#[test]
fn a_descriptor_from_outside_is_adopted_and_keeps_the_tap() {
    isolated(|| {
        let opened = Iface::without_packet_info("tap7", Mode::Tap).unwrap();
        let fd = tun::into_owned(opened);
        let copy = fd.try_clone().unwrap();
        drop(fd);
        let tap = open_or_adopt(Source::Adopt(copy)).unwrap();
        assert_eq!(tap.name(), "tap7");
        up("tap7");
        // Non-blocking, although it came blocking.
        let mut batch = Batch::new(64);
        while !tap.receive(port(), &mut batch).drained {
            batch.clear();
        }
        let (batch, tx) = repeated(&[0; 60], [0]);
        assert_all_sent(tap.send(&batch, &tx, port(), &mut Scratch::new()), 1, 60);
        drop(tap);
        assert_eq!(Netlink::open().unwrap().interface("tap7").unwrap(), None);
    });
}

#[test]
fn a_descriptor_of_the_wrong_kind_is_refused_with_what_it_is() {
    isolated(|| {
        let refused =
            |iface: Iface| open_or_adopt(Source::Adopt(tun::into_owned(iface))).unwrap_err().to_string();
        let error = refused(Iface::without_packet_info("tun0", Mode::Tun).unwrap());
        assert!(error.contains("a TUN, which carries IP packets"), "{error}");
        let error = refused(Iface::new("tap0", Mode::Tap).unwrap());
        assert!(error.contains("packet information"), "{error}");
        let file = std::fs::File::options().read(true).write(true).open("/dev/net/tun").unwrap();
        let error = open_or_adopt(Source::Adopt(file.into())).unwrap_err().to_string();
        assert!(error.contains("attached to no interface"), "{error}");
    });
}

fn assert_gone(tap: &Tap) {
    assert!(wait(tap.fd().unwrap()).failed);
    assert_eq!(
        tap.receive(port(), &mut Batch::new(1)),
        Received { drained: true, gone: true, ..Received::default() }
    );
    let (batch, tx) = repeated(&[0; 60], [0, 0]);
    let sent = tap.send(&batch, &tx, port(), &mut Scratch::new());
    assert_eq!(sent, Sent { refused: 2, gone: true, ..Sent::default() });
}

#[test]
fn a_deleted_tap_is_gone_at_once() {
    isolated(|| {
        let tap = open("tap0");
        let index = up("tap0");
        Netlink::open().unwrap().delete(index).unwrap();
        assert_gone(&tap);
        assert_eq!(open("tap0").name(), "tap0");
    });
}

#[test]
fn the_end_of_its_namespace_is_the_end_of_a_tap_that_moved_there() {
    isolated(|| {
        let tap = open("tap0");
        let pod = netns::create().unwrap();
        let index = up("tap0");
        let change = Change { namespace: Some(pod.as_fd()), name: Some("eth0"), ..Change::default() };
        Netlink::open().unwrap().change(index, &change).unwrap();
        let now_in = tun::namespace(tap.fd().unwrap()).unwrap();
        assert_eq!(netns::id(now_in.as_fd()).unwrap(), netns::id(pod.as_fd()).unwrap());
        assert_eq!(tun::attached(tap.fd().unwrap()).unwrap().name, "eth0");
        drop(now_in);
        drop(pod);
        assert_gone(&tap);
    });
}
