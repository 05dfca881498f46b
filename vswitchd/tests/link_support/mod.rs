//! Support for the link tests: a private network for each test. As root, or in a user namespace of which this
//! process is root, a thread of its own leaves for new namespaces; otherwise the test runs again inside
//! `unshare -Urnm`. Not here: any check.
#![allow(dead_code, reason = "each test file uses its part of it")]

pub(crate) mod wire;

use std::net::UdpSocket;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use vswitch_core::frame::{Head, TxRange};
use vswitch_core::{Arrival, Batch, Offload, PortId, TxList};
use vswitchd::link::{Received, Sent, Source, Tap, open_or_adopt};
use vswitchd::sys::event::{Ready, wait_readable};
use vswitchd::sys::netlink::{Change, Netlink};
use vswitchd::sys::netns::{self, Kinds};

/// How long something may take that should take no time: the bound of every wait.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// The port all tests send and receive by.
pub(crate) fn port() -> PortId {
    PortId::new(5).unwrap()
}

/// Runs `test` in network and mount namespaces of its own, loopback up, /run empty but for /run/netns.
pub(crate) fn isolated(test: fn()) {
    let name = std::thread::current().name().unwrap().to_owned();
    if !netns::is_root() {
        let exe = std::env::current_exe().unwrap();
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--mount"])
            .arg(exe)
            .args(["--exact", &name, "--nocapture"])
            .status()
            .expect("unshare(1) is installed");
        assert!(status.success(), "{name} failed inside its user namespace");
        return;
    }
    let inside = move || {
        netns::unshare(Kinds { network: true, mount: true, user: false }).unwrap();
        netns::mount_tmpfs(Path::new("/run")).unwrap();
        std::fs::create_dir(netns::DIRECTORY).unwrap();
        up("lo");
        test();
    };
    let ended = std::thread::Builder::new().name(name).spawn(inside).unwrap().join();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// Sets an interface of this namespace up and returns its index.
pub(crate) fn up(name: &str) -> u32 {
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.interface(name).unwrap().expect(name).index;
    netlink.change(index, &Change { up: Some(true), ..Change::default() }).unwrap();
    index
}

/// Waits for `fd`; the time being over is a failure.
pub(crate) fn wait(fd: BorrowedFd<'_>) -> Ready {
    let ready = wait_readable(fd, Some(LIMIT)).unwrap();
    assert_ne!(ready, Ready::default(), "nothing happened for {LIMIT:?}");
    ready
}

/// A list with one record for [`port`]: `head`, then the frame `i` of `batch` from `from` on.
pub(crate) fn record(tx: &mut TxList, head: &[u8], batch: &Batch, i: usize, from: usize) {
    let head = tx.head(&[head]).unwrap();
    let range = TxRange::new(i, from, batch.bytes(i).len()).unwrap();
    tx.push(port(), head, &[range], Offload::NONE, 0);
}

/// A batch with one frame, and a list that sends it once for each of `entropies`.
pub(crate) fn repeated(frame: &[u8], entropies: impl IntoIterator<Item = u32>) -> (Batch, TxList) {
    let mut batch = Batch::new(1);
    assert!(batch.copy_in(Arrival::Port(port()), frame, Offload::NONE));
    let mut tx = TxList::new();
    for entropy in entropies {
        tx.push(port(), Head::NONE, &[TxRange::new(0, 0, frame.len()).unwrap()], Offload::NONE, entropy);
    }
    (batch, tx)
}

/// That the kernel took `frames` frames of `bytes` bytes in all and refused none.
pub(crate) fn assert_all_sent(sent: Sent, frames: u64, bytes: usize) {
    assert_eq!(sent, Sent { ok: frames, bytes: u64::try_from(bytes).unwrap(), ..Sent::default() });
}

/// That nothing was lost or failed.
pub(crate) fn assert_clean(received: Received) {
    let Received { gone, overflow, truncated, error, .. } = received;
    assert_eq!((gone, overflow, truncated, error), (false, 0, 0, None));
}

pub(crate) fn folded_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|two| u32::from(two[0]) * 256 + u32::from(two[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// A UDP datagram from 10.9.0.1:7 to 10.9.0.2:9000 whose checksum is left to be finished.
pub(crate) fn unfinished(to: [u8; 6], payload: &[u8]) -> Vec<u8> {
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

pub(crate) fn payload(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// A TAP "tap0" with 10.9.0.2/24, its MAC address, and a socket on port 9000.
pub(crate) fn kernel(offload: bool) -> (Tap, [u8; 6], UdpSocket) {
    let tap = open_or_adopt(Source::Open { name: "tap0", offload }).unwrap();
    let index = up("tap0");
    let mut netlink = Netlink::open().unwrap();
    netlink.add_address(index, "10.9.0.2".parse().unwrap(), 24).unwrap();
    let socket = UdpSocket::bind("10.9.0.2:9000").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    (tap, netlink.interface("tap0").unwrap().unwrap().mac.unwrap().bytes(), socket)
}

/// How many frames `interface` of the calling thread's network has received, a superframe counting as one.
pub(crate) fn received_by(interface: &str) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let row = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
    row.expect(interface).split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs a command line in the calling thread's network, split at blanks.
pub(crate) fn run(line: &str) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().expect(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}
