//! A veth pair with a packet socket at each end, frames to send over it, and what arrives. Not here: any check of what
//! that should be.

use super::{assert_clean, port, run, up, wait};
use vswitch_core::frame::{Head, TxRange};
use vswitch_core::{Arrival, Batch, Offload, TxList};
use vswitchd::link::{Link, Packet, Scratch, Sent};
use vswitchd::sys::netlink::Netlink;

pub(crate) fn open(name: &str) -> Packet {
    Packet::open(name, true).unwrap()
}

/// A veth pair of this namespace, both ends up and without IPv6, which would speak by itself.
pub(crate) fn pair(a: &str, b: &str) {
    run(&format!("ip link add {a} type veth peer name {b}"));
    for name in [a, b] {
        run(&format!("sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1"));
        up(name);
    }
    // The first that is up sends nothing until the kernel has noticed the second: whoever asks makes it look.
    let mut netlink = Netlink::open().unwrap();
    assert!([a, b].into_iter().all(|name| netlink.interface(name).unwrap().unwrap().up));
}

pub(crate) type Seen = (Vec<u8>, Offload);

/// Receives until there are `count` frames.
pub(crate) fn receive(link: &Packet, count: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut batch = Batch::new(64);
    while seen.len() < count {
        batch.clear();
        let received = link.receive(port(), &mut batch);
        assert_clean(received);
        assert_eq!((received.frames, received.bad_offload), (batch.len(), 0));
        let bytes: usize = (0..batch.len()).map(|i| batch.bytes(i).len()).sum();
        assert_eq!(received.bytes, bytes);
        seen.extend((0..batch.len()).map(|i| {
            let (arrival, owed) = batch.arrival(i).unwrap();
            assert_eq!(arrival, Arrival::Port(port()));
            (batch.bytes(i).to_vec(), owed)
        }));
        if received.drained && seen.len() < count {
            wait(link.fd().unwrap());
        }
    }
    seen
}

/// Sends frames in one call, each with what it owes, every second one gathered from two pieces.
pub(crate) fn send(link: &Packet, frames: &[Seen]) -> Sent {
    let mut batch = Batch::new(frames.len());
    let mut tx = TxList::new();
    for (i, (frame, owed)) in frames.iter().enumerate() {
        assert!(batch.copy_in(Arrival::Port(port()), frame, *owed));
        let from = if i % 2 == 0 { 0 } else { 14.min(frame.len()) };
        let head = if from == 0 { Head::NONE } else { tx.head(&[&frame[..from]]).unwrap() };
        tx.push(port(), head, &[TxRange::new(i, from, frame.len()).unwrap()], *owed, 0);
    }
    link.send(&batch, &tx, port(), &mut Scratch::new())
}

/// A frame of an experimental EtherType (IEEE 802), `tags` in front of it.
pub(crate) fn tagged(tags: &[(u16, u16)], number: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1];
    for (tpid, tci) in tags {
        frame.extend([tpid.to_be_bytes(), tci.to_be_bytes()].concat());
    }
    frame.extend([0x88, 0xb5]);
    frame.extend([number; 60]);
    frame
}

pub(crate) fn owing_nothing(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Seen> {
    frames.into_iter().map(|frame| (frame, Offload::NONE)).collect()
}
