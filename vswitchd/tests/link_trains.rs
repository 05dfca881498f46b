//! Trains of datagrams on the underlay's sockets against a real kernel: what is sent as few messages arrives as the same
//! datagrams, and an interface, an MTU or a firewall that takes no trains costs nothing but them.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use link_support::{LIMIT, assert_clean, isolated, payload, port, received_by, run, wait};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use vswitch_core::frame::{Head, TxRange};
use vswitch_core::{Arrival, Batch, Offload, TxList};
use vswitchd::link::{Link, POOL_SIZE, Peer, Received, Scratch, Sent, TRAIN, UdpPool, UdpReceiver};
use vswitchd::sys::event::wait_readable;
use vswitchd::sys::netlink::{Change, Netlink};
use vswitchd::sys::netns;

const LOOPBACKS: [&str; 2] = ["127.0.0.1", "::1"];
const QUEUE: u32 = 4 << 20;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A pool and a receiver that want trains, from `local` to `remote`, which is in `space` or here.
fn ends(local: IpAddr, remote: IpAddr, space: Option<&OwnedFd>) -> (Peer, UdpReceiver) {
    let (peer, receiver) = ends_without_trains(local, remote, space);
    receiver.take_trains();
    peer.pool().set_trains(true);
    assert!(peer.pool().trains() && receiver.trains(), "the kernel is too old: Linux 5.0");
    (peer, receiver)
}

/// The same as they are at first.
fn ends_without_trains(local: IpAddr, remote: IpAddr, space: Option<&OwnedFd>) -> (Peer, UdpReceiver) {
    let remote = SocketAddr::new(remote, 4789);
    let open = || UdpReceiver::open_all(remote, 1, QUEUE).unwrap().remove(0);
    let receiver = space.map_or_else(open, |space| netns::within(space.as_fd(), open).unwrap());
    let pool = UdpPool::open(local, POOL_SIZE, 0).unwrap();
    (Peer::new(Arc::new(pool), remote), receiver)
}

/// One datagram for each length: no two begin alike.
fn datagrams(lens: &[usize]) -> Vec<Vec<u8>> {
    let datagram = |(n, len): (usize, &usize)| {
        let mut bytes = payload(*len);
        bytes.iter_mut().zip(u16::try_from(n).unwrap().to_be_bytes()).for_each(|(to, from)| *to = from);
        bytes
    };
    lens.iter().enumerate().map(datagram).collect()
}

/// Sends `datagrams` of one flow in one call.
fn send(peer: &Peer, datagrams: &[Vec<u8>]) -> Sent {
    let mut batch = Batch::new(datagrams.len());
    let mut tx = TxList::new();
    for (i, datagram) in datagrams.iter().enumerate() {
        assert!(batch.copy_in(Arrival::Port(port()), datagram, Offload::NONE));
        // In two pieces where there are two bytes, as a head and what follows it are.
        let middle = datagram.len() / 2;
        let ranges = [TxRange::new(i, 0, middle).unwrap(), TxRange::new(i, middle, datagram.len()).unwrap()];
        tx.push(port(), Head::NONE, &ranges, Offload::NONE, 3);
    }
    peer.send(&batch, &tx, port(), &mut Scratch::new())
}

/// Sends them, and asserts that all are taken and arrive as they were, in order.
fn cross(peer: &Peer, receiver: &UdpReceiver, lens: &[usize]) {
    let sent = datagrams(lens);
    let bytes = lens.iter().sum::<usize>();
    let (frames, bytes) = (u64::try_from(lens.len()).unwrap(), u64::try_from(bytes).unwrap());
    assert_eq!(send(peer, &sent), Sent { ok: frames, bytes, ..Sent::default() }, "{lens:?}");
    arrive(receiver, &sent);
}

fn arrive(receiver: &UdpReceiver, expected: &[Vec<u8>]) {
    let mut got = Vec::new();
    let mut batch = Batch::new(64);
    while got.len() < expected.len() {
        wait(receiver.fd());
        batch.clear();
        let received = receiver.receive(&mut batch);
        assert_clean(received);
        assert_eq!(received.frames, batch.len());
        got.extend((0..batch.len()).map(|i| batch.bytes(i).to_vec()));
        assert!((0..batch.len()).all(|i| batch.arrival(i).unwrap().1 == Offload::NONE));
    }
    let lens = |all: &[Vec<u8>]| all.iter().map(Vec::len).collect::<Vec<_>>();
    assert!(got == expected, "{:?} arrived of {:?}", lens(&got), lens(expected));
    let rest = receiver.receive(&mut batch);
    assert_eq!(rest, Received { drained: true, ..Received::default() });
}

#[test]
fn what_leaves_in_few_messages_arrives_as_the_same_datagrams_in_order() {
    isolated(|| {
        for local in LOOPBACKS.map(ip) {
            let (peer, receiver) = ends(local, local, None);
            let train = usize::try_from(TRAIN).unwrap();
            let falling: Vec<_> = (1..=9).map(|i| 1000 - 100 * i).collect();
            let rising: Vec<_> = (1..=9).map(|i| 100 * i).collect();
            for (what, lens, expected) in [
                ("one", vec![1000], 1),
                ("one size", vec![1000; 20], 1),
                ("one size and a shorter last", [vec![1000; 20], vec![9]].concat(), 1),
                ("a shorter one is the last", [vec![1000; 3], vec![9], vec![1000; 3]].concat(), 2),
                ("a longer one is the first", [vec![1000; 3], vec![1001], vec![1000; 4]].concat(), 3),
                ("each shorter than the one before", falling, 5),
                ("each longer than the one before", rising, 9),
                ("more than a train takes", vec![500; train + 1], 2),
                ("more bytes than a train takes", vec![1400; 50], 2),
                ("one without a byte", vec![0], 1),
                ("of a byte", vec![1; 60], 1),
            ] {
                let before = received_by("lo");
                cross(&peer, &receiver, &lens);
                assert_eq!(received_by("lo") - before, expected, "{what}, {local}");
            }
            assert!(peer.pool().trains());
        }
    });
}

#[test]
fn a_side_that_wants_no_trains_gets_along_with_one_that_does() {
    isolated(|| {
        for local in LOOPBACKS.map(ip) {
            let (peer, receiver) = ends_without_trains(local, local, None);
            // Who takes them does so for good: one that waits could not be told apart any more.
            for (sends, takes) in [(true, false), (false, false), (false, true), (true, true)] {
                peer.pool().set_trains(sends);
                if takes {
                    receiver.take_trains();
                }
                assert_eq!((peer.pool().trains(), receiver.trains()), (sends, takes));
                cross(&peer, &receiver, &[vec![1000; 20], vec![9], vec![1200; 30]].concat());
            }
        }
    });
}

#[test]
fn a_train_for_a_smaller_mtu_is_too_big_datagram_by_datagram_and_revokes_nothing() {
    isolated(|| {
        let change = Change { mtu: Some(1500), ..Change::default() };
        Netlink::open().unwrap().change(1, &change).unwrap();
        for (local, headers) in [(ip("127.0.0.1"), 28), (ip("::1"), 48)] {
            let (peer, receiver) = ends(local, local, None);
            let largest = 1500 - headers;
            let sent = send(&peer, &datagrams(&[largest + 1; 5]));
            assert_eq!(sent, Sent { too_big: 5, ..Sent::default() });
            // The last of a train may fit, and so may the trains beside it.
            let lens = [vec![largest; 4], vec![largest + 1; 3], vec![100], vec![largest; 4]].concat();
            let all = datagrams(&lens);
            let sent = send(&peer, &all);
            let bytes = u64::try_from(8 * largest + 100).unwrap();
            assert_eq!(sent, Sent { ok: 9, too_big: 3, bytes, ..Sent::default() });
            arrive(&receiver, &all.into_iter().filter(|d| d.len() <= largest).collect::<Vec<_>>());
            assert!(peer.pool().trains());
            let before = received_by("lo");
            cross(&peer, &receiver, &[largest; 20]);
            assert_eq!(received_by("lo") - before, 1);
        }
    });
}

/// Lets everything of the calling thread's network leave but what this rule of nft(8) drops; EPERM says so.
fn firewall(rule: &str) {
    run("nft flush ruleset");
    run("nft add table inet t");
    run("nft add chain inet t out { type filter hook output priority 0 ; }");
    run(&format!("nft add rule inet t out {rule}"));
}

#[test]
fn a_way_that_takes_datagrams_and_no_trains_loses_nothing_and_is_asked_again() {
    isolated(|| {
        // A firewall that lets nothing long pass sees a train as what it is. It may be lifted, so nothing is revoked: that
        // only EINVAL, EIO and EOPNOTSUPP do, which no way that can be made here gives.
        firewall("meta length > 3000 drop");
        for local in LOOPBACKS.map(ip) {
            let (peer, receiver) = ends(local, local, None);
            let lens = [vec![700; 20], vec![9], vec![1000; 20], vec![100]].concat();
            cross(&peer, &receiver, &lens);
            let before = received_by("lo");
            cross(&peer, &receiver, &lens);
            assert_eq!(received_by("lo") - before, u64::try_from(lens.len()).unwrap());
            assert!(peer.pool().trains());
        }
    });
}

#[test]
fn a_way_that_takes_nothing_costs_what_was_sent_and_revokes_nothing() {
    isolated(|| {
        for local in LOOPBACKS.map(ip) {
            firewall("udp dport 4789 drop");
            let (peer, receiver) = ends(local, local, None);
            let nowhere =
                SocketAddr::new(if local.is_ipv4() { ip("192.0.2.1") } else { ip("2001:db8::1") }, 9);
            let nowhere = Peer::new(Arc::clone(peer.pool()), nowhere);
            for peer in [&peer, &nowhere] {
                let sent = send(peer, &datagrams(&[700; 70]));
                assert_eq!(sent, Sent { refused: 70, ..Sent::default() });
            }
            assert!(peer.pool().trains());
            run("nft flush ruleset");
            cross(&peer, &receiver, &[700; 30]);
        }
    });
}

/// A veth pair to a namespace of its own, 10.8.0.1 and fd08::1 here, 10.8.0.2 and fd08::2 there.
fn veth() -> OwnedFd {
    let space = netns::create().unwrap();
    run("ip link add name under type veth peer name other");
    let mut here = Netlink::open().unwrap();
    let other = here.interface("other").unwrap().unwrap().index;
    let change = Change { namespace: Some(space.as_fd()), up: Some(true), ..Change::default() };
    here.change(other, &change).unwrap();
    let mut there = Netlink::open_in(space.as_fd()).unwrap();
    let under = link_support::up("under");
    for (netlink, name, n) in [(&mut here, "under", 1), (&mut there, "other", 2)] {
        let index = netlink.interface(name).unwrap().unwrap().index;
        assert!(name == "other" || index == under);
        netlink.add_address(index, ip(&format!("10.8.0.{n}")), 24).unwrap();
        netlink.add_address(index, ip(&format!("fd08::{n}")), 64).unwrap();
    }
    space
}

#[test]
fn an_interface_that_can_less_and_less_loses_no_datagram() {
    isolated(|| {
        let space = veth();
        for (local, remote) in [("10.8.0.1", "10.8.0.2"), ("fd08::1", "fd08::2")] {
            let (peer, receiver) = ends(ip(local), ip(remote), Some(&space));
            // Room in the kernel's neighbour queue is for a few only, until the address is resolved.
            cross(&peer, &receiver, &[1000]);
            let lens = [vec![1400; 20], vec![9], vec![1000; 20], vec![100]].concat();
            for abilities in [
                "tx-udp-segmentation off",
                "gso off tso off",
                "tx off",
                "tx on gso on tx-udp-segmentation on",
            ] {
                run(&format!("ethtool -K under {abilities}"));
                cross(&peer, &receiver, &lens);
                // Before Linux 6.11 an interface without checksums takes no trains.
                println!("{abilities}: trains {}", peer.pool().trains());
                peer.pool().set_trains(true);
            }
        }
    });
}

#[test]
fn a_way_too_narrow_revokes_nothing_and_loses_no_datagram_that_was_taken() {
    isolated(|| {
        let space = veth();
        let (peer, receiver) = ends(ip("10.8.0.1"), ip("10.8.0.2"), Some(&space));
        cross(&peer, &receiver, &[1000]);
        run("tc qdisc add dev under root tbf rate 8kbit burst 4k limit 100m");
        let all = datagrams(&[1400; 60]);
        let mut total = Sent::default();
        // Until the socket has no room, or for long enough that others would have none.
        for _ in 0..100 {
            let sent = send(&peer, &all);
            assert_eq!(sent.frames(), sent.ok + sent.would_block);
            (total.ok, total.would_block) = (total.ok + sent.ok, total.would_block + sent.would_block);
            if sent.would_block > 0 {
                break;
            }
        }
        assert!(peer.pool().trains(), "{total:?}");
        // What waited is told either by a datagram or by the count of those that found the queue full.
        run("tc qdisc change dev under root tbf rate 10gbit burst 100m limit 100m");
        let mut got = 0;
        let mut batch = Batch::new(64);
        for _ in 0..1000 {
            batch.clear();
            let received = receiver.receive(&mut batch);
            got += u64::try_from(received.frames).unwrap() + received.overflow + receiver.overflow();
            if got == total.ok {
                break;
            }
            if received.drained {
                wait_readable(receiver.fd(), Some(LIMIT / 1000)).unwrap();
            }
        }
        assert_eq!(got, total.ok);
    });
}
