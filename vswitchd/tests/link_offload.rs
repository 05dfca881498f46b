//! What a frame owes is paid before it leaves by a link whose kernel cannot: checked by a real kernel's sockets.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use link_support::{LIMIT, assert_all_sent, isolated, port, up};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use vswitch_core::frame::{Head, TxRange};
use vswitch_core::offload::{Checksum, Gso, GsoKind};
use vswitch_core::{Arrival, Batch, Offload, TxList};
use vswitchd::link::{
    Link, POOL_SIZE, Peer, Scratch, Sent, Source, Tap, UdpPool, UdpReceiver, open_or_adopt,
};
use vswitchd::sys::netlink::Netlink;

/// Ethernet, IPv4, UDP.
const HEADERS: usize = 42;
const VXLAN: [u8; 8] = [8, 0, 0, 0, 0, 0, 10, 0];

const CHECKSUM: Checksum = Checksum { start: 34, offset: 6 };
const CHECKSUM_ONLY: Offload = Offload { checksum: Some(CHECKSUM), gso: None };

fn superframe(size: u16) -> Offload {
    Offload { checksum: Some(CHECKSUM), gso: Some(Gso { kind: GsoKind::Udp, size, header_len: 42 }) }
}

fn folded_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|two| u32::from(two[0]) * 256 + u32::from(two[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// A UDP datagram from 10.9.0.1:7 to 10.9.0.2:9000 whose checksum is left to be finished.
fn unfinished(to: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let be16 = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
    let mut frame = to.to_vec();
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
    frame.extend(be16(payload.len() + 28));
    frame.extend([0, 1, 0x40, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    let ip = !folded_sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&ip.to_be_bytes());
    let len = be16(payload.len() + 8);
    let pseudo = [&frame[26..34], &[0, 17], &len].concat();
    frame.extend([0, 7, 0x23, 0x28]);
    frame.extend(len);
    frame.extend(folded_sum(&pseudo).to_be_bytes());
    frame.extend(payload);
    frame
}

fn payload(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// One frame of which the list sends each of `dresses`: a head in front of the frame, and offload facts.
fn dressed(frame: &[u8], head: &[u8], facts: &[Offload]) -> (Batch, TxList) {
    let mut batch = Batch::new(1);
    assert!(batch.copy_in(Arrival::Port(port()), frame, Offload::NONE));
    let mut tx = TxList::new();
    for facts in facts {
        let head = if head.is_empty() { Head::NONE } else { tx.head(&[head]).unwrap() };
        let facts = facts.shifted(i32::try_from(head.len()).unwrap()).unwrap();
        // In two pieces, of an odd length the first.
        let ranges = [TxRange::new(0, 0, 51).unwrap(), TxRange::new(0, 51, frame.len()).unwrap()];
        tx.push(port(), head, &ranges, facts, 3);
    }
    (batch, tx)
}

/// A TAP "tap0" with 10.9.0.2/24, its MAC address, and a socket on port 9000.
fn kernel() -> (Tap, [u8; 6], UdpSocket) {
    let tap = open_or_adopt(Source::Open { name: "tap0", offload: false }).unwrap();
    let index = up("tap0");
    let mut netlink = Netlink::open().unwrap();
    netlink.add_address(index, "10.9.0.2".parse().unwrap(), 24).unwrap();
    let socket = UdpSocket::bind("10.9.0.2:9000").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    (tap, netlink.interface("tap0").unwrap().unwrap().mac.unwrap().bytes(), socket)
}

#[test]
fn a_tap_s_kernel_gets_finished_checksums_and_cut_superframes() {
    isolated(|| {
        let (tap, mac, socket) = kernel();
        let payload = payload(3301);
        let frame = unfinished(mac, &payload);
        let (batch, tx) = dressed(&frame, &[], &[CHECKSUM_ONLY, superframe(1000), superframe(1400)]);
        let sent = tap.send(&batch, &tx, port(), &mut Scratch::new());
        assert_all_sent(sent, 1 + 4 + 3, 3 * payload.len() + 8 * HEADERS);
        let whole: &[&[u8]] = &[&payload];
        for expected in whole.iter().copied().chain(payload.chunks(1000)).chain(payload.chunks(1400)) {
            let mut got = [0; 4000];
            let len = socket.recv(&mut got).unwrap();
            assert_eq!(&got[..len], expected);
        }
    });
}

#[test]
fn each_part_of_a_superframe_is_a_datagram_with_the_vxlan_header_in_front() {
    isolated(|| {
        let (tap, mac, socket) = kernel();
        for local in ["127.0.0.1", "::1"].map(|text| text.parse::<IpAddr>().unwrap()) {
            let local = SocketAddr::new(local, 4789);
            let receivers = UdpReceiver::open_all(local, 1, 4 << 20).unwrap();
            let pool = Arc::new(UdpPool::open(local.ip(), POOL_SIZE, 0).unwrap());
            let peer = Peer::new(pool, local);
            // More parts than one call sends.
            let payload = payload(40 * 1000 + 1);
            let frame = unfinished(mac, &payload);
            let (batch, tx) = dressed(&frame, &VXLAN, &[CHECKSUM_ONLY, superframe(1000)]);
            let sent = peer.send(&batch, &tx, port(), &mut Scratch::new());
            assert_all_sent(sent, 1 + 41, 2 * payload.len() + 42 * (HEADERS + VXLAN.len()));
            let mut batch = Batch::new(64);
            while batch.len() < 42 {
                assert_ne!(receivers[0].receive(&mut batch).frames, 0);
            }
            // The kernel judges the inner frames.
            let mut inner = TxList::new();
            for i in 0..42 {
                assert_eq!(batch.bytes(i)[..8], VXLAN);
                let range = TxRange::new(i, 8, batch.bytes(i).len()).unwrap();
                inner.push(port(), Head::NONE, &[range], Offload::NONE, 0);
            }
            let sent = tap.send(&batch, &inner, port(), &mut Scratch::new());
            assert_eq!((sent.ok, sent.frames()), (42, 42));
            let whole: &[&[u8]] = &[&payload];
            for expected in whole.iter().copied().chain(payload.chunks(1000)) {
                let mut got = [0; 65_536];
                let len = socket.recv(&mut got).unwrap();
                assert_eq!(&got[..len], expected);
            }
        }
    });
}

#[test]
fn facts_that_do_not_fit_their_frame_cost_that_frame_only() {
    isolated(|| {
        let (tap, mac, socket) = kernel();
        let frame = unfinished(mac, &payload(900));
        let past_end = Offload { checksum: Some(Checksum { start: 941, offset: 6 }), gso: None };
        let facts = [CHECKSUM_ONLY, past_end, superframe(0), CHECKSUM_ONLY];
        let (batch, tx) = dressed(&frame, &[], &facts);
        let sent = tap.send(&batch, &tx, port(), &mut Scratch::new());
        let bytes = u64::try_from(2 * frame.len()).unwrap();
        assert_eq!(sent, Sent { ok: 2, bad_offload: 2, bytes, ..Sent::default() });
        for _ in 0..2 {
            assert_eq!(socket.recv(&mut [0; 1000]).unwrap(), 900);
        }
        // Facts that point into the VXLAN header.
        let local: SocketAddr = "127.0.0.1:4789".parse().unwrap();
        let peer = Peer::new(Arc::new(UdpPool::open(local.ip(), POOL_SIZE, 0).unwrap()), local);
        let mut tx = TxList::new();
        let head = tx.head(&[&VXLAN]).unwrap();
        let wrong = Offload { checksum: Some(Checksum { start: 7, offset: 0 }), gso: None };
        for facts in [wrong, Offload::NONE] {
            tx.push(port(), head, &[TxRange::new(0, 0, 900).unwrap()], facts, 0);
        }
        let sent = peer.send(&batch, &tx, port(), &mut Scratch::new());
        assert_eq!(sent, Sent { ok: 1, bytes: 908, bad_offload: 1, ..Sent::default() });
    });
}
