//! What a frame owes is paid before it leaves by a link whose kernel cannot: checked by a real kernel's sockets.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use link_support::{assert_all_sent, isolated, kernel, payload, port, unfinished};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use vswitch_core::frame::{Head, TxRange};
use vswitch_core::offload::{Checksum, Gso, GsoKind};
use vswitch_core::{Arrival, Batch, Offload, TxList};
use vswitchd::link::{Link, POOL_SIZE, Peer, Scratch, Sent, UdpPool, UdpReceiver};

/// Ethernet, IPv4, UDP.
const HEADERS: usize = 42;
const VXLAN: [u8; 8] = [8, 0, 0, 0, 0, 0, 10, 0];

const CHECKSUM: Checksum = Checksum { start: 34, offset: 6 };
const CHECKSUM_ONLY: Offload = Offload { checksum: Some(CHECKSUM), gso: None };

fn superframe(size: u16) -> Offload {
    Offload { checksum: Some(CHECKSUM), gso: Some(Gso { kind: GsoKind::Udp, size, header_len: 42 }) }
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

#[test]
fn a_tap_s_kernel_gets_finished_checksums_and_cut_superframes() {
    isolated(|| {
        let (tap, mac, socket) = kernel(false);
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
        let (tap, mac, socket) = kernel(false);
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
        let (tap, mac, socket) = kernel(false);
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
