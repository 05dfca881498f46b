//! The underlay's sockets against a real kernel, each test in a network namespace of its own.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use link_support::{LIMIT, assert_all_sent, assert_clean, isolated, port, repeated, run, up, wait};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use vswitch_core::frame::{Head, TxRange};
use vswitch_core::{Arrival, Batch, Offload, TxList};
use vswitchd::link::{
    Link, LinkError, Outer, POOL_PORTS, POOL_SIZE, Packet, Peer, Scratch, Sent, Source, UdpPool, UdpReceiver,
    open_or_adopt,
};
use vswitchd::sys::event::wait_readable;
use vswitchd::sys::netlink::{Change, Netlink};
use vswitchd::sys::socket;

const LOOPBACKS: [&str; 2] = ["127.0.0.1", "::1"];
const QUEUE: u32 = 4 << 20;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn peer(local: IpAddr, remote: SocketAddr) -> Peer {
    Peer::new(Arc::new(UdpPool::open(local, POOL_SIZE, 0).unwrap()), remote)
}

fn open_error(local: &str) -> LinkError {
    UdpReceiver::open_all(local.parse().unwrap(), 1, QUEUE).unwrap_err()
}

#[test]
fn two_receivers_on_one_port_get_every_datagram_between_them() {
    isolated(|| {
        for local in LOOPBACKS.map(ip) {
            let receivers = UdpReceiver::open_all(SocketAddr::new(local, 4789), 2, QUEUE).unwrap();
            let peer = peer(local, SocketAddr::new(local, 4789));
            let mut batch = Batch::new(1);
            assert!(batch.copy_in(Arrival::Port(port()), &(0..200).collect::<Vec<u8>>(), Offload::NONE));
            // 200 datagrams of 64 flows, each with its number in the head.
            let mut tx = TxList::new();
            for n in 0..200_u8 {
                let head = tx.head(&[&[n]]).unwrap();
                let range = TxRange::new(0, 0, usize::from(n)).unwrap();
                tx.push(port(), head, &[range], Offload::NONE, u32::from(n % 64));
            }
            assert_all_sent(peer.send(&batch, &tx, port(), &mut Scratch::new()), 200, 200 + 199 * 100);
            let mut seen = BTreeSet::new();
            let mut by_receiver = Vec::new();
            for receiver in &receivers {
                let before = seen.len();
                let mut batch = Batch::new(40);
                loop {
                    batch.clear();
                    let received = receiver.receive(&mut batch);
                    assert_clean(received);
                    assert_eq!(received.frames, batch.len());
                    for i in 0..batch.len() {
                        let bytes = batch.bytes(i);
                        let arrival = Arrival::Underlay { local, remote: local, udp_port: 4789 };
                        assert_eq!(batch.arrival(i), Some((arrival, Offload::NONE)));
                        assert_eq!(bytes.len(), usize::from(bytes[0]) + 1);
                        assert!(seen.insert(bytes[0]));
                    }
                    if received.drained {
                        break;
                    }
                }
                by_receiver.push(seen.len() - before);
            }
            assert_eq!(seen.len(), 200, "of which by receiver {by_receiver:?}");
        }
    });
}

#[test]
fn a_flow_keeps_one_source_port_of_the_range_and_flows_spread_over_the_pool() {
    isolated(|| {
        for local in LOOPBACKS.map(ip) {
            let far = UdpSocket::bind((local, 0)).unwrap();
            far.set_read_timeout(Some(LIMIT)).unwrap();
            let pool = UdpPool::open(local, POOL_SIZE, 65_535).unwrap();
            let peer = Peer::new(Arc::new(pool), far.local_addr().unwrap());
            let pool = UdpPool::open(local, POOL_SIZE, 65_535).unwrap();
            let mut ports = BTreeMap::new();
            for round in 0..3 {
                for entropy in [0_u32, 1, 15, 16, 17, 0xffff_ffff, 0x8000_0001] {
                    let (batch, tx) = repeated(b"datagram", [entropy]);
                    assert_all_sent(peer.send(&batch, &tx, port(), &mut Scratch::new()), 1, 8);
                    let (_, from) = far.recv_from(&mut [0; 16]).unwrap();
                    assert!(POOL_PORTS.contains(&from.port()), "{from}");
                    assert_eq!(
                        *ports.entry(entropy).or_insert_with(|| from.port()),
                        from.port(),
                        "round {round}"
                    );
                }
            }
            assert_eq!(ports.values().collect::<BTreeSet<_>>().len(), 3, "{ports:?}");
            assert_eq!((ports[&0], ports[&1]), (ports[&16], ports[&17]));
            // The first pool has the ports that the second would have begun with.
            assert_eq!(pool.ports().len(), POOL_SIZE);
            assert!(pool.ports().all(|port| !ports.values().any(|taken| *taken == port)));
            assert_eq!(pool.source_port(5), pool.source_port(21));
        }
    });
}

#[test]
fn a_taken_source_port_is_skipped() {
    isolated(|| {
        let taken = UdpSocket::bind("0.0.0.0:50000").unwrap();
        let pool = UdpPool::open(ip("127.0.0.1"), 3, 50_000 - 49_152 - 1).unwrap();
        assert_eq!(pool.ports().collect::<Vec<_>>(), [49_999, 50_001, 50_002]);
        drop(taken);
        // Around the end of the range.
        let pool = UdpPool::open(ip("127.0.0.1"), 3, 16_383).unwrap();
        assert_eq!(pool.ports().collect::<Vec<_>>(), [65_535, 49_152, 49_153]);
    });
}

#[test]
fn another_program_on_the_port_is_found_even_if_it_would_share() {
    isolated(|| {
        let somebody = UdpSocket::bind("0.0.0.0:4789").unwrap();
        let error = open_error("127.0.0.1:4789");
        assert!(matches!(error, LinkError::PortTaken { port: 4789, .. }), "{error}");
        assert!(error.to_string().starts_with("udp port 4789 of 127.0.0.1 is taken"), "{error}");
        // The families are apart.
        let six = UdpReceiver::open_all("[::]:4789".parse().unwrap(), 2, QUEUE).unwrap();
        assert!(matches!(open_error("[::1]:4789"), LinkError::PortTaken { .. }));
        drop((somebody, six));
        let sharing = UdpReceiver::open_all("127.0.0.1:4789".parse().unwrap(), 2, QUEUE).unwrap();
        assert_eq!((sharing.len(), sharing[0].local()), (2, "127.0.0.1:4789".parse().unwrap()));
        assert!(matches!(open_error("127.0.0.1:4789"), LinkError::PortTaken { .. }));
        assert!(matches!(open_error("192.0.2.1:4789"), LinkError::NoSuchAddress { .. }));
        let error = UdpPool::open(ip("192.0.2.1"), 1, 0).unwrap_err();
        assert_eq!(error.to_string(), "192.0.2.1 is on no interface of this node");
    });
}

#[test]
fn a_datagram_too_big_for_the_path_is_counted_and_stops_no_other() {
    isolated(|| {
        let change = Change { mtu: Some(1500), ..Change::default() };
        Netlink::open().unwrap().change(1, &change).unwrap();
        for (local, headers) in [(ip("127.0.0.1"), 28), (ip("::1"), 48)] {
            let far = UdpSocket::bind((local, 0)).unwrap();
            far.set_read_timeout(Some(LIMIT)).unwrap();
            let peer = peer(local, far.local_addr().unwrap());
            let largest = 1500 - headers;
            let mut batch = Batch::new(1);
            assert!(batch.copy_in(Arrival::Port(port()), &[7; 3000], Offload::NONE));
            let mut tx = TxList::new();
            for len in [largest, largest + 1, largest, 3000, 1] {
                tx.push(port(), Head::NONE, &[TxRange::new(0, 0, len).unwrap()], Offload::NONE, 0);
            }
            let sent = peer.send(&batch, &tx, port(), &mut Scratch::new());
            let bytes = u64::try_from(2 * largest + 1).unwrap();
            assert_eq!(sent, Sent { ok: 3, too_big: 2, bytes, ..Sent::default() });
            for len in [largest, largest, 1] {
                assert_eq!(far.recv(&mut [0; 4000]).unwrap(), len);
            }
        }
    });
}

#[test]
fn a_peer_nobody_can_reach_is_counted_and_one_that_does_not_listen_is_no_error() {
    isolated(|| {
        for (local, nowhere) in [("127.0.0.1", "192.0.2.1:4789"), ("::1", "[2001:db8::1]:4789")] {
            let pool = Arc::new(UdpPool::open(ip(local), POOL_SIZE, 0).unwrap());
            let (batch, tx) = repeated(b"datagram", 0..40);
            let unreachable = Peer::new(pool.clone(), nowhere.parse().unwrap());
            let sent = unreachable.send(&batch, &tx, port(), &mut Scratch::new());
            assert_eq!(sent, Sent { refused: 40, ..Sent::default() });
            // Port unreachable comes back for every one; then the same sockets serve a peer that listens.
            let deaf = Peer::new(pool.clone(), SocketAddr::new(ip(local), 9));
            for _ in 0..3 {
                assert_all_sent(deaf.send(&batch, &tx, port(), &mut Scratch::new()), 40, 320);
            }
            let far = UdpSocket::bind((ip(local), 0)).unwrap();
            far.set_read_timeout(Some(LIMIT)).unwrap();
            let good = Peer::new(pool, far.local_addr().unwrap());
            assert_all_sent(good.send(&batch, &tx, port(), &mut Scratch::new()), 40, 320);
            for _ in 0..40 {
                assert_eq!(far.recv(&mut [0; 16]).unwrap(), 8);
            }
        }
    });
}

#[test]
fn what_the_queue_lost_is_counted_once() {
    isolated(|| {
        let local: SocketAddr = "127.0.0.1:4789".parse().unwrap();
        let receivers = UdpReceiver::open_all(local, 1, 0).unwrap();
        let peer = peer(local.ip(), local);
        let (datagram, tx) = repeated(&[0; 1000], (0..100).map(|_| 3));
        let mut batch = Batch::new(64);
        let mut total = 0;
        for _ in 0..2 {
            assert_all_sent(peer.send(&datagram, &tx, port(), &mut Scratch::new()), 100, 100_000);
            batch.clear();
            loop {
                let received = receivers[0].receive(&mut batch);
                total += received.overflow + u64::try_from(received.frames).unwrap();
                if received.drained {
                    break;
                }
            }
            assert!(batch.len() < 100);
        }
        let late = receivers[0].overflow();
        assert!(late > 0, "the last losses had no datagram to tell of them");
        assert_eq!(total + late, 200);
        assert_eq!(receivers[0].overflow(), 0);
        let (datagram, tx) = repeated(&[0; 10], [3]);
        assert_all_sent(peer.send(&datagram, &tx, port(), &mut Scratch::new()), 1, 10);
        assert_eq!(receivers[0].receive(&mut batch).overflow, 0);
    });
}

#[test]
fn a_record_in_more_pieces_than_are_gathered_arrives_whole() {
    isolated(|| {
        let local = ip("127.0.0.1");
        let far = UdpSocket::bind((local, 0)).unwrap();
        far.set_read_timeout(Some(LIMIT)).unwrap();
        let peer = peer(local, far.local_addr().unwrap());
        let bytes: Vec<u8> = (0..=255).cycle().take(600).collect();
        let mut batch = Batch::new(1);
        assert!(batch.copy_in(Arrival::Port(port()), &bytes, Offload::NONE));
        let mut tx = TxList::new();
        for pieces in [300, 100, 60, 1, 200] {
            let step = bytes.len() / pieces;
            let ranges: Vec<_> =
                (0..pieces).map(|n| TxRange::new(0, n * step, (n + 1) * step).unwrap()).collect();
            tx.push(port(), Head::NONE, &ranges, Offload::NONE, 0);
        }
        assert_all_sent(peer.send(&batch, &tx, port(), &mut Scratch::new()), 5, 5 * 600);
        for _ in 0..5 {
            let mut got = [0; 700];
            let len = far.recv(&mut got).unwrap();
            assert_eq!(&got[..len], &bytes[..]);
        }
    });
}

#[test]
fn an_ipv6_datagram_without_a_checksum_is_taken() {
    isolated(|| {
        let tap = open_or_adopt(Source::Open { name: "tap0", offload: false }).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let index = up("tap0");
        let local: SocketAddr = "[fd00::2]:4789".parse().unwrap();
        netlink.add_address(index, local.ip(), 64).unwrap();
        let mac = netlink.interface("tap0").unwrap().unwrap().mac.unwrap();
        let receivers = UdpReceiver::open_all(local, 1, QUEUE).unwrap();
        let mut frame = mac.bytes().to_vec();
        frame.extend([2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 12, 17, 64]);
        let (IpAddr::V6(from), IpAddr::V6(to)) = (ip("fd00::1"), local.ip()) else { unreachable!() };
        frame.extend(from.octets());
        frame.extend(to.octets());
        frame.extend([0xc0, 0, 0x12, 0xb5, 0, 12, 0, 0]);
        frame.extend(b"data");
        let (batch, tx) = repeated(&frame, [0]);
        // The kernel takes frames for a new IPv6 address when its work queue has added the route: until then
        // it drops them.
        let arrived = (0..200).any(|_| {
            assert_all_sent(tap.send(&batch, &tx, port(), &mut Scratch::new()), 1, 66);
            wait_readable(receivers[0].fd(), Some(LIMIT / 200)).unwrap().readable
        });
        assert!(arrived, "nothing arrived for {LIMIT:?}");
        let mut batch = Batch::new(1);
        let received = receivers[0].receive(&mut batch);
        assert_eq!((received.frames, batch.bytes(0)), (1, &b"data"[..]));
        let arrival = Arrival::Underlay { local: local.ip(), remote: from.into(), udp_port: 4789 };
        assert_eq!(batch.arrival(0), Some((arrival, Offload::NONE)));
    });
}

#[test]
fn an_empty_queue_is_drained_and_a_full_batch_is_not() {
    isolated(|| {
        let local: SocketAddr = "127.0.0.1:4789".parse().unwrap();
        let receivers = UdpReceiver::open_all(local, 1, QUEUE).unwrap();
        let mut batch = Batch::new(1);
        let received = receivers[0].receive(&mut batch);
        assert_eq!((received.frames, received.drained, received.error), (0, true, None));
        let (datagram, tx) = repeated(b"x", [0, 0]);
        assert_all_sent(peer(local.ip(), local).send(&datagram, &tx, port(), &mut Scratch::new()), 2, 2);
        for expected in [1, 0] {
            let received = receivers[0].receive(&mut batch);
            assert_eq!((received.frames, received.drained), (expected, false));
        }
        batch.clear();
        assert_eq!(receivers[0].receive(&mut batch).frames, 1);
    });
}

/// Sends one datagram of `len` bytes from a pool with `outer` to `remote`, and returns the IP packets
/// that lo has for it.
fn on_the_wire(local: &str, remote: &str, outer: Outer, len: usize) -> Vec<Vec<u8>> {
    let watcher = Packet::open("lo", true).unwrap();
    let pool = Arc::new(UdpPool::open_with(ip(local), 2, 0, outer).unwrap());
    pool.set_trains(true);
    assert_eq!(pool.trains(), outer.checksum || ip(local).is_ipv6());
    let peer = Peer::new(pool, SocketAddr::new(ip(remote), 4789));
    let (batch, tx) = repeated(&vec![8; len], [0]);
    assert_eq!(peer.send(&batch, &tx, port(), &mut Scratch::new()).ok, 1);
    let mut batch = Batch::new(64);
    let mut seen = Vec::new();
    while seen.is_empty() {
        wait(watcher.fd().unwrap());
        batch.clear();
        watcher.receive(port(), &mut batch);
        // Only what goes there: an ICMP message that nobody listens goes back.
        let to = match ip(remote) {
            IpAddr::V4(v4) => (30..34, v4.octets().to_vec()),
            IpAddr::V6(v6) => (38..54, v6.octets().to_vec()),
        };
        let all = (0..batch.len()).map(|i| batch.bytes(i).to_vec());
        seen.extend(
            all.filter(|frame| frame.get(to.0.clone()) == Some(&to.1)).map(|frame| frame[14..].to_vec()),
        );
    }
    seen
}

#[test]
fn outer_headers_say_what_is_wished_of_them() {
    isolated(|| {
        run("ip address add 10.9.0.2/32 dev lo");
        run("ip address add fd09::2/128 dev lo nodad");
        let usual = Outer::default();
        let other = Outer { tos: 0xb8, ttl: Some(7), dont_fragment: false, checksum: false };
        for (outer, tos, ttl, df, sums) in [(usual, 0, 64, true, true), (other, 0xb8, 7, false, false)] {
            let packet = &on_the_wire("0.0.0.0", "10.9.0.2", outer, 100)[0];
            assert_eq!((packet[1], packet[8], packet[6] & 0x40 != 0), (tos, ttl, df));
            assert_eq!(packet[26..28] != [0, 0], sums);
            let packet = &on_the_wire("::", "fd09::2", outer, 100)[0];
            assert_eq!((packet[0] & 15) << 4 | packet[1] >> 4, tos);
            assert_eq!((packet[7], packet[46..48] != [0, 0]), (ttl, true));
        }
    });
}

#[test]
fn what_may_be_fragmented_is_and_what_may_not_is_too_big() {
    isolated(|| {
        run("ip link set lo mtu 1500");
        let len = 3000;
        let may = Outer { dont_fragment: false, ..Outer::default() };
        let fragments = on_the_wire("127.0.0.1", "127.0.0.2", may, len);
        assert!(fragments[0][6] & 0x20 != 0, "more fragments follow");
        let (batch, tx) = repeated(&vec![8; len], [0]);
        for (local, remote, outer) in [
            ("127.0.0.1", "127.0.0.2", Outer::default()),
            ("::1", "::1", may),
            ("::1", "::1", Outer::default()),
        ] {
            let pool = Arc::new(UdpPool::open_with(ip(local), 2, 0, outer).unwrap());
            let peer = Peer::new(pool, SocketAddr::new(ip(remote), 4789));
            assert_eq!(
                peer.send(&batch, &tx, port(), &mut Scratch::new()),
                Sent { too_big: 1, ..Sent::default() }
            );
        }
    });
}

#[test]
fn receivers_at_any_address_leave_those_at_one_what_is_theirs() {
    isolated(|| {
        for (any, one, other) in [("0.0.0.0", "127.0.0.1", "127.0.0.2"), ("::", "::1", "fd09::2")] {
            if other == "fd09::2" {
                run("ip address add fd09::2/128 dev lo nodad");
            }
            let at = |address| SocketAddr::new(ip(address), 4789);
            let mut all = UdpReceiver::open_all(at(one), 2, QUEUE).unwrap();
            assert!(matches!(UdpReceiver::open_all(at(any), 2, QUEUE), Err(LinkError::PortTaken { .. })));
            all.extend(UdpReceiver::open_more(at(any), 2, QUEUE).unwrap());
            let socket = UdpSocket::bind(SocketAddr::new(ip(any), 0)).unwrap();
            for (to, local) in [(one, one), (other, any)] {
                for _ in 0..20 {
                    socket.send_to(&[8; 64], at(to)).unwrap();
                }
                // On loopback what was sent has arrived.
                let mut batch = Batch::new(128);
                all.iter().for_each(|receiver| assert_clean(receiver.receive(&mut batch)));
                assert_eq!(batch.len(), 20);
                for i in 0..batch.len() {
                    let Some((Arrival::Underlay { local: arrived, .. }, _)) = batch.arrival(i) else {
                        panic!()
                    };
                    assert_eq!(arrived, ip(local));
                }
            }
        }
    });
}

#[test]
fn the_kernel_knows_the_mtu_of_a_path() {
    isolated(|| {
        run("ip link add near type veth peer name far");
        run("ip link set near mtu 1400 up");
        run("ip link set far up");
        run("ip address add 10.9.0.1/24 dev near");
        run("ip address add fd09::1/64 dev near nodad");
        run("ip route add 10.8.0.0/24 via 10.9.0.2 mtu 1300");
        let to = |address: &str| SocketAddr::new(ip(address), 4789);
        let asked = |local: Option<&str>, remote| socket::path_mtu(local.map(ip), to(remote)).ok();
        assert_eq!(asked(None, "10.9.0.2"), Some(1400));
        assert_eq!(asked(Some("10.9.0.1"), "10.8.0.2"), Some(1300));
        assert_eq!(asked(None, "fd09::2"), Some(1400));
        assert_eq!(asked(None, "192.0.2.1"), None, "no route");
    });
}
