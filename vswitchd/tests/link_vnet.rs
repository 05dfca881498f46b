//! TAPs with a virtio-net header between two real kernels: superframes and what they owe, trains of frames that leave
//! as one, descriptors from elsewhere, and TAPs that show no header at all. What is finished and cut where a kernel
//! takes neither is link_offload.rs's.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use link_support::{
    LIMIT, assert_all_sent, assert_clean, folded_sum, isolated, kernel, payload, port, received_by, run,
    unfinished,
};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vswitch_core::frame::{Head, TxRange};
use vswitch_core::offload::{Checksum, GsoKind};
use vswitch_core::{Arrival, Batch, Offload, TxList};
use vswitchd::link::{Link, Scratch, Source, Tap, open_or_adopt};
use vswitchd::sys::event::wait_readable;
use vswitchd::sys::mmsg::Run;
use vswitchd::sys::netlink::{Change, Netlink};
use vswitchd::sys::{netns, socket, tun};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A TAP whose interface is in a network of its own, with an address in both families.
struct Pod {
    tap: Tap,
    space: OwnedFd,
    mac: [u8; 6],
}

impl Pod {
    /// Number `n` has 10.9.0.n and fd09::n.
    fn new(tap: Tap, n: u8) -> Self {
        let space = netns::create().unwrap();
        let mut here = Netlink::open().unwrap();
        let index = here.interface(tap.name()).unwrap().unwrap().index;
        let change = Change {
            namespace: Some(space.as_fd()),
            name: Some("eth0"),
            up: Some(true),
            ..Change::default()
        };
        here.change(index, &change).unwrap();
        let mut inside = Netlink::open_in(space.as_fd()).unwrap();
        let eth0 = inside.interface("eth0").unwrap().unwrap();
        inside.add_address(eth0.index, ip(&format!("10.9.0.{n}")), 24).unwrap();
        inside.add_address(eth0.index, ip(&format!("fd09::{n}")), 64).unwrap();
        Self { tap, space, mac: eth0.mac.unwrap().bytes() }
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::within(self.space.as_fd(), work).unwrap()
    }
}

type Seen = (Vec<u8>, Offload);

/// Carries everything from `from` to `to` as it is until `done`; returns it.
fn carry(from: &Tap, to: &Tap, done: &AtomicBool) -> Vec<Seen> {
    let (mut batch, mut tx, mut scratch) = (Batch::new(64), TxList::new(), Scratch::new());
    let mut seen = Vec::new();
    while !done.load(Ordering::Relaxed) {
        batch.clear();
        tx.clear();
        let received = from.receive(port(), &mut batch);
        assert_clean(received);
        assert_eq!((received.frames, received.bad_offload), (batch.len(), 0));
        for i in 0..batch.len() {
            let (arrival, owed) = batch.arrival(i).unwrap();
            assert_eq!(arrival, Arrival::Port(port()));
            let range = TxRange::new(i, 0, batch.bytes(i).len()).unwrap();
            tx.push(port(), Head::NONE, &[range], owed, 0);
            seen.push((batch.bytes(i).to_vec(), owed));
        }
        let sent = to.send(&batch, &tx, port(), &mut scratch);
        assert_eq!(sent.frames(), sent.ok, "{sent:?}");
        if received.drained {
            wait_readable(from.fd().unwrap(), Some(Duration::from_millis(10))).unwrap();
        }
    }
    seen
}

/// Does `work` while everything is carried between `a` and `b`; returns what `a` handed over.
fn while_carried(a: &Pod, b: &Pod, work: impl FnOnce()) -> Vec<Seen> {
    let done = AtomicBool::new(false);
    let done = &done;
    std::thread::scope(|scope| {
        let there = scope.spawn(move || carry(&a.tap, &b.tap, done));
        let back = scope.spawn(move || carry(&b.tap, &a.tap, done));
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        back.join().unwrap();
        let seen = there.join().unwrap();
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        seen
    })
}

/// A TCP stream from `a` to `to` of `b`, every byte compared.
fn stream(a: &Pod, b: &Pod, to: IpAddr) -> Vec<Seen> {
    let sent = payload(1 << 20);
    while_carried(a, b, || {
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
    })
}

/// Ten datagrams of 1,000 bytes and one of 300, which the kernel of `a` is left to cut, to `to` of `b`.
fn datagrams(a: &Pod, b: &Pod, to: IpAddr) -> Vec<Seen> {
    let sent = payload(10_300);
    while_carried(a, b, || {
        let server = b.inside(|| UdpSocket::bind((to, 0)).unwrap());
        server.set_read_timeout(Some(LIMIT)).unwrap();
        let address = server.local_addr().unwrap();
        let client = a.inside(|| socket::udp(to).unwrap());
        let mut run = Run::new(true);
        assert!(sent.chunks(1000).all(|datagram| run.push(std::iter::once(datagram), false)));
        assert_eq!((run.len(), run.send(0, client.as_fd(), Some(&address.into())).unwrap()), (1, 1));
        for expected in sent.chunks(1000) {
            let mut got = [0; 2000];
            let len = server.recv(&mut got).unwrap();
            assert_eq!(&got[..len], expected);
        }
    })
}

/// Where the transport header begins in a frame of IP without options or extensions, and its protocol.
fn transport(frame: &[u8]) -> Option<(usize, u8)> {
    match frame[12..14] {
        [8, 0] => Some((34, frame[23])),
        [0x86, 0xdd] => Some((54, frame[20])),
        _ => None,
    }
}

fn two_pods(offload: [bool; 2]) -> (Pod, Pod) {
    let open = |name, offload| open_or_adopt(Source::Open { name, offload }).unwrap();
    (Pod::new(open("tap1", offload[0]), 1), Pod::new(open("tap2", offload[1]), 2))
}

const TO: [&str; 2] = ["10.9.0.2", "fd09::2"];

#[test]
fn a_tcp_superframe_comes_with_what_it_owes_and_goes_on_as_one() {
    isolated(|| {
        let (a, b) = two_pods([true, true]);
        let [header, csum, tso, _] = a.tap.offload();
        assert!(header && csum && tso, "{:?}", a.tap.offload());
        for (to, kind) in TO.into_iter().zip([GsoKind::Tcp4, GsoKind::Tcp6]) {
            let mut superframes = 0;
            for (frame, owed) in stream(&a, &b, ip(to)) {
                let Some((at, 6)) = transport(&frame) else { continue };
                let start = u16::try_from(at).unwrap();
                let header_len = at + 4 * usize::from(frame[at + 12] >> 4);
                // An acknowledgement by itself may be finished already.
                if frame.len() > header_len || owed.checksum.is_some() {
                    assert_eq!(owed.checksum, Some(Checksum { start, offset: 16 }), "{owed:?}");
                }
                let Some(gso) = owed.gso else {
                    assert!(frame.len() <= 1514, "{} bytes owe no cutting", frame.len());
                    continue;
                };
                superframes += 1;
                assert_eq!((gso.kind, usize::from(gso.header_len)), (kind, header_len));
                assert_eq!(usize::from(gso.size) + header_len, 1514, "what the MTU leaves");
                assert!(frame.len() > 1514);
            }
            assert!(superframes > 0);
        }
    });
}

#[test]
fn a_udp_superframe_comes_with_what_it_owes_and_goes_on_as_one() {
    isolated(|| {
        let (a, b) = two_pods([true, true]);
        let [.., uso] = a.tap.offload();
        for to in TO {
            let seen = datagrams(&a, &b, ip(to));
            let seen: Vec<_> = seen
                .into_iter()
                .filter(|(frame, _)| transport(frame).is_some_and(|(_, p)| p == 17))
                .collect();
            if !uso {
                assert!(seen.len() == 11 && seen.iter().all(|(_, owed)| owed.gso.is_none()), "{seen:?}");
                continue;
            }
            let [(frame, owed)] = &seen[..] else { panic!("{} frames", seen.len()) };
            let (at, _) = transport(frame).unwrap();
            let start = u16::try_from(at).unwrap();
            assert_eq!(owed.checksum, Some(Checksum { start, offset: 6 }));
            let gso = owed.gso.unwrap();
            assert_eq!((gso.kind, gso.size, gso.header_len), (GsoKind::Udp, 1000, start + 8));
            assert_eq!(frame.len(), at + 8 + 10_300);
        }
    });
}

#[test]
fn without_offload_no_frame_wears_a_header_or_owes_anything() {
    isolated(|| {
        // Its maker meant it to have a header, which sticks to nothing.
        run("ip tuntap add dev tap1 mode tap vnet_hdr");
        for offload in [[false, false], [false, true], [true, false]] {
            let (a, b) = two_pods(offload);
            assert_eq!((a.tap.offload()[0], b.tap.offload()[0]), (offload[0], offload[1]));
            for to in TO {
                for (frame, owed) in stream(&a, &b, ip(to)).into_iter().chain(datagrams(&a, &b, ip(to))) {
                    let group = frame[0] & 1 == 1;
                    assert!(group || frame[..6] == b.mac, "to nobody: {:02x?}", &frame[..14]);
                    assert_eq!(frame[6..12], a.mac);
                    if !offload[0] {
                        assert_eq!(
                            (owed, frame.len() <= 1514),
                            (Offload::NONE, true),
                            "{} bytes",
                            frame.len()
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn a_descriptor_with_a_header_from_elsewhere_is_adopted_with_offload() {
    isolated(|| {
        let opened = tun::open_with_header("tap1").unwrap();
        // Whoever opened it had his own idea of the header, and promised nothing.
        tun::set_header(opened.as_fd(), 12).unwrap();
        let adopted = open_or_adopt(Source::Adopt(opened)).unwrap();
        let reference = open_or_adopt(Source::Open { name: "tap3", offload: true }).unwrap();
        assert_eq!((adopted.name(), adopted.offload()), ("tap1", reference.offload()));
        let a = Pod::new(adopted, 1);
        let b = Pod::new(open_or_adopt(Source::Open { name: "tap2", offload: true }).unwrap(), 2);
        for (from, to, address) in [(&a, &b, "10.9.0.2"), (&b, &a, "10.9.0.1")] {
            assert!(stream(from, to, ip(address)).iter().any(|(_, owed)| owed.gso.is_some()));
        }
    });
}

/// What a frame to the socket of [`kernel`] is: source port, TTL, and bytes of payload.
#[derive(Clone, Copy)]
struct Datagram(u8, u8, usize);

/// `datagrams` as frames that owe their checksum, each with its number in its first bytes; their identification
/// grows by one in each flow.
fn frames(mac: [u8; 6], datagrams: &[Datagram]) -> Vec<Vec<u8>> {
    let mut sent = [0_u8; 256];
    let mut frame = |(n, Datagram(flow, ttl, len)): (usize, &Datagram)| {
        let mut data = payload(*len);
        data[..2].copy_from_slice(&u16::try_from(n).unwrap().to_be_bytes());
        let mut frame = unfinished(mac, &data);
        let identification = &mut sent[usize::from(*flow)];
        *identification += 1;
        (frame[19], frame[22], frame[35]) = (*identification, *ttl, *flow);
        frame[24..26].fill(0);
        let sum = !folded_sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    datagrams.iter().enumerate().map(&mut frame).collect()
}

/// Sends all in one call, and asserts that every one arrives whole; how many frames its kernel had.
fn leave(tap: &Tap, mac: [u8; 6], socket: &UdpSocket, datagrams: &[Datagram]) -> u64 {
    let frames = frames(mac, datagrams);
    let mut batch = Batch::new(frames.len());
    let mut tx = TxList::new();
    for (i, frame) in frames.iter().enumerate() {
        let owed = Offload { checksum: Some(Checksum { start: 34, offset: 6 }), gso: None };
        assert!(batch.copy_in(Arrival::Port(port()), frame, owed));
        tx.push(port(), Head::NONE, &[TxRange::new(i, 0, frame.len()).unwrap()], owed, 0);
    }
    let before = received_by("tap0");
    let sent = tap.send(&batch, &tx, port(), &mut Scratch::new());
    let bytes = frames.iter().map(Vec::len).sum();
    assert_all_sent(sent, u64::try_from(frames.len()).unwrap(), bytes);
    let mut last = vec![None; 256];
    let mut left: Vec<_> = (0..frames.len()).collect();
    while !left.is_empty() {
        let mut got = [0; 2000];
        let (len, from) = socket.recv_from(&mut got).unwrap();
        let n = usize::from(u16::from_be_bytes([got[0], got[1]]));
        assert_eq!(&got[2..len], &frames[n][44..]);
        left.remove(left.iter().position(|waits| *waits == n).expect("each once"));
        let flow = usize::from(from.port());
        assert!(last[flow].replace(n) < Some(n), "{n} was overtaken");
    }
    received_by("tap0") - before
}

#[test]
fn neighbours_of_a_flow_leave_as_one_and_what_may_not_be_merged_leaves_alone() {
    isolated(|| {
        let (tap, mac, socket) = kernel(true);
        let [.., uso] = tap.offload();
        let same = [Datagram(7, 64, 400); 10];
        let two_flows: Vec<_> = (0..20).map(|i| Datagram(7 + i % 2, 64, 400)).collect();
        let other_ttl: Vec<_> = (0..9).map(|i| Datagram(7, if i == 4 { 63 } else { 64 }, 400)).collect();
        let falling: Vec<_> = (1..=9).map(|i| Datagram(7, 64, 1000 - 100 * i)).collect();
        let rising: Vec<_> = (1..=9).map(|i| Datagram(7, 64, 100 * i)).collect();
        for (what, datagrams, expected) in [
            ("one size", &same[..], 1),
            ("one size and a shorter last", &[&same[..], &[Datagram(7, 64, 33)]].concat(), 1),
            ("behind a shorter one begins another", &[&same[..], &[Datagram(7, 64, 33)], &same].concat(), 2),
            ("a longer one between", &[&same[..3], &[Datagram(7, 64, 500)], &same[..4]].concat(), 3),
            ("two flows in turn", &two_flows, 2),
            ("another TTL between", &other_ttl, 3),
            ("each shorter than the one before", &falling, 5),
            ("each longer than the one before", &rising, 9),
            ("one alone", &same[..1], 1),
        ] {
            let expected = if uso { expected } else { u64::try_from(datagrams.len()).unwrap() };
            assert_eq!(leave(&tap, mac, &socket, datagrams), expected, "{what}");
        }
    });
}

#[test]
fn without_offload_every_frame_leaves_alone() {
    isolated(|| {
        let (tap, mac, socket) = kernel(false);
        assert_eq!(leave(&tap, mac, &socket, &[Datagram(7, 64, 400); 10]), 10);
    });
}
