//! The underlay: VXLAN datagrams to and from remote nodes, over UDP.
//!
//! Per local address there are receivers, one per worker, on the tunnel port, and a pool of senders on ports of
//! the dynamic range; a tunnel that names no address has those of the unspecified one. A flow leaves by one sender, so that networks that spread flows by their ports spread ours
//! (RFC 7348 §5). All peers that want the same outer headers share both. Nothing is fragmented, unless a tunnel
//! wants it. Which source may send to us is
//! the switch's question.

use super::losses::Losses;
use super::{Link, LinkError, Received, Scratch, Sent};
use crate::sys::address::SocketName;
use crate::sys::mmsg::{self, MESSAGES, Message, Run};
pub use crate::sys::mmsg::{TRAIN, TRAIN_BYTES};
use crate::sys::socket;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vswitch_core::offload::{Gso, GsoKind, header_len, partial_checksum};
use vswitch_core::{Arrival, Batch, Offload, PortId, TxList};

/// Bytes of the VXLAN header, in front of the Ethernet frame in each record.
const WRAP: u16 = 8;

/// Where senders are bound: the dynamic range (RFC 6335 §6), as RFC 7348 §5 recommends.
pub const POOL_PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// Senders of a pool, unless somebody wants another number.
pub const POOL_SIZE: usize = 16;

/// The largest pool.
pub const POOL_MAX: usize = 64;

/// Messages that one system call takes when those before were trains: each may be of 64 KiB, and what was read should
/// still be in a core's cache when it leaves.
const TRAINS: usize = 8;

/// System calls of one `receive` when they were not: the more frames come at once, the more leave as one.
const CALLS: usize = 2;

/// What each sending socket may have on its way, in bytes: more than the queue of an interface holds. All peers share
/// the sockets, and one whose interface is slow must not stop the others.
const SEND_QUEUE: u32 = 64 << 20;

/// A socket on the tunnel port, one worker's.
#[derive(Debug)]
pub struct UdpReceiver {
    socket: OwnedFd,
    local: SocketAddr,
    /// The kernel hands over datagrams of one flow together (UDP_GRO).
    trains: AtomicBool,
    /// There were trains in the last messages. For the receiving worker only.
    saw_trains: AtomicBool,
    losses: Losses,
}

impl UdpReceiver {
    /// `workers` sockets that share `local`, at least one, each asking for a queue of `queue` bytes. The kernel
    /// gives every flow to one of them.
    ///
    /// A first bind that shares with nobody finds out whether another program has the port; a program that
    /// takes it in the moment after that is not found, if it shares with us.
    pub fn open_all(local: SocketAddr, workers: usize, queue: u32) -> Result<Vec<Self>, LinkError> {
        drop(Self::bind(socket::udp(local.ip()), local)?);
        Self::open_more(local, workers, queue)
    }

    fn bind(socket: io::Result<OwnedFd>, local: SocketAddr) -> Result<OwnedFd, LinkError> {
        let socket = socket.map_err(LinkError::os("making a udp socket"))?;
        socket::bind(&socket, local).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => LinkError::PortTaken { address: local.ip(), port: local.port() },
            io::ErrorKind::AddrNotAvailable => LinkError::NoSuchAddress { address: local.ip() },
            _ => LinkError::Os { what: "binding the tunnel port", source: error },
        })?;
        Ok(socket)
    }

    /// The same beside sockets on that port which this process has already: another program of this user that shares
    /// the port is not found. A datagram goes to those with its very address, where there are such, and else to those
    /// with the unspecified one.
    pub fn open_more(local: SocketAddr, workers: usize, queue: u32) -> Result<Vec<Self>, LinkError> {
        (0..workers.max(1))
            .map(|_| {
                let socket = socket::udp(local.ip()).map_err(LinkError::os("making a udp socket"))?;
                let set = LinkError::os("setting up the tunnel port");
                socket::share_port(&socket).map_err(&set)?;
                socket::report_overflow(&socket).map_err(&set)?;
                socket::set_receive_queue(&socket, queue).map_err(&set)?;
                if local.is_ipv6() {
                    socket::take_zero_checksums(&socket).map_err(&set)?;
                }
                Ok(Self {
                    socket: Self::bind(Ok(socket), local)?,
                    local,
                    trains: AtomicBool::new(false),
                    saw_trains: AtomicBool::new(false),
                    losses: Losses::default(),
                })
            })
            .collect()
    }

    /// The address it receives on.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// What to wait on.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Wants trains of the kernel from now on, where it has them. For good: of a train that waits when they are not
    /// wanted any more, the kernel would not tell where its datagrams end.
    pub fn take_trains(&self) {
        self.trains.fetch_or(socket::take_trains(&self.socket).is_ok(), Ordering::Relaxed);
    }

    /// Whether the kernel hands over trains; not at first.
    #[must_use]
    pub fn trains(&self) -> bool {
        self.trains.load(Ordering::Relaxed)
    }

    /// Adds waiting datagrams to `batch`, those of up to 64 messages. Never waits.
    pub fn receive(&self, batch: &mut Batch) -> Received {
        let mut received = Received::default();
        for _ in 0..CALLS {
            self.receive_once(batch, &mut received);
            if received.drained || self.saw_trains.load(Ordering::Relaxed) {
                break;
            }
        }
        received
    }

    fn receive_once(&self, batch: &mut Batch, received: &mut Received) {
        let mut spares = batch.spares();
        let most = if self.saw_trains.load(Ordering::Relaxed) { TRAINS } else { MESSAGES };
        let wanted = spares.len().min(most);
        if wanted == 0 {
            return;
        }
        let mut slots: [&mut [u8]; MESSAGES] = std::array::from_fn(|_| spares.next().unwrap_or_default());
        let slots = &mut slots[..wanted];
        // An error that is pending on the socket is reported once, instead of what is waiting.
        let got = match mmsg::receive(self.fd(), slots) {
            Err(error) if is_passing(&error) => mmsg::receive(self.fd(), slots),
            got => got,
        };
        drop(spares);
        let got = match got {
            Ok(got) => got,
            Err(error) => return received.failed(&error),
        };
        received.drained = got.all().len() < wanted;
        received.overflow += got.lost.map_or(0, |lost| self.losses.newly(lost));
        let mut trains = false;
        for (i, message) in got.all().iter().enumerate() {
            trains |= message.segment.is_some();
            self.take(batch, i, message, received);
        }
        self.saw_trains.store(trains, Ordering::Relaxed);
        batch.take(got.all().len());
    }

    /// The frames of one message, which lies in the `i`th spare slot of `batch`.
    fn take(&self, batch: &mut Batch, i: usize, message: &Message, received: &mut Received) {
        received.bytes += message.len;
        if message.truncated {
            received.truncated += 1;
            return;
        }
        let (local, udp_port) = (self.local.ip(), self.local.port());
        let remote = message.from.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |from| from.ip());
        let arrival = Arrival::Underlay { local, remote, udp_port };
        let bytes = batch.spares().nth(i).and_then(|slot| slot.get(..message.len)).unwrap_or_default();
        match message.segment.and_then(|segment| uncut(bytes, segment)) {
            None => {}
            Some(Uncut::Superframe(owed)) => {
                batch.push_part(i, 0..message.len, arrival, owed);
                received.frames += 1;
                return;
            }
            Some(Uncut::Unclear) => {
                let datagrams = message.segment.map_or(1, |segment| message.len.div_ceil(segment));
                received.bad_offload += u64::try_from(datagrams).unwrap_or(0);
                return;
            }
        }
        // A message without a byte is a datagram all the same.
        let segment = message.segment.unwrap_or(message.len).max(1);
        let mut from = 0;
        loop {
            let to = message.len.min(from + segment);
            batch.push_part(i, from..to, arrival, Offload::NONE);
            received.frames += 1;
            from = to;
            if from == message.len {
                break;
            }
        }
    }

    /// Datagrams that the kernel's queue has lost since this, or `receive`, last told. `receive` learns of a loss
    /// only from a datagram that was queued after it; this asks. For the receiving worker, now and then.
    pub fn overflow(&self) -> u64 {
        socket::lost(self.fd()).map_or(0, |lost| self.losses.newly(lost))
    }
}

/// What a message is that may be no train.
enum Uncut {
    /// One datagram with a superframe in it, which owes this.
    Superframe(Offload),
    /// It can be read as that and as a train.
    Unclear,
}

/// What `message` is where it is no train of datagrams of `segment` bytes, or not for certain, but one datagram with a
/// superframe of UDP in it: a Linux peer whose underlay cuts nothing leaves it whole, and then the kernel says of the
/// inner datagrams what it otherwise says of the outer. The inner length tells which it is; but pods write inner lengths,
/// and payload. Were a length believed that lies, the frames behind it in a train would be taken for its payload; were
/// payload believed that looks like datagrams, a pod could write its own VNIs.
fn uncut(message: &[u8], segment: usize) -> Option<Uncut> {
    let inner = message.get(usize::from(WRAP)..).filter(|_| message.len() > segment)?;
    let header_len = header_len(inner, GsoKind::Udp)?;
    // As RFC 7348 §5 and Linux's group policies have it sent; a peer that sends anything else is not guessed at.
    let begins_datagram = |bytes: &[u8]| matches!(bytes, [0x08 | 0x88, _, _, _, _, _, _, 0, ..]);
    if !begins_datagram(message) || message.chunks(segment).all(begins_datagram) {
        return Some(Uncut::Unclear);
    }
    let gso = Gso { kind: GsoKind::Udp, size: u16::try_from(segment).ok()?, header_len };
    Offload { checksum: partial_checksum(inner), gso: Some(gso) }.shifted(WRAP.into()).map(Uncut::Superframe)
}

/// An error that an ICMP message left on the socket: not about this call, and gone once reported.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EINTR
        )
    )
}

/// What the outer headers of datagrams say besides addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outer {
    /// DS field and ECN.
    pub tos: u8,
    /// TTL or hop limit, 1..=255; `None`: the system's.
    pub ttl: Option<u8>,
    /// IPv4 forbids fragments. IPv6 is never fragmented.
    pub dont_fragment: bool,
    /// UDP over IPv4 has a checksum. Over IPv6 it always has; without one the kernel sends no trains.
    pub checksum: bool,
}

impl Default for Outer {
    fn default() -> Self {
        Self { tos: 0, ttl: None, dont_fragment: true, checksum: true }
    }
}

impl Outer {
    fn set(self, socket: &OwnedFd, local: IpAddr) -> io::Result<()> {
        if self.dont_fragment || local.is_ipv6() {
            socket::never_fragment(socket, local)?;
        } else {
            socket::allow_fragments(socket)?;
        }
        if self.tos != 0 {
            socket::set_tos(socket, local, self.tos)?;
        }
        if let Some(ttl) = self.ttl {
            socket::set_ttl(socket, local, ttl)?;
        }
        if !self.checksum && local.is_ipv4() {
            socket::leave_out_checksums(socket)?;
        }
        Ok(())
    }
}

/// The sending sockets of one local address, or of any.
#[derive(Debug)]
pub struct UdpPool {
    senders: Vec<(OwnedFd, u16)>,
    /// The kernel cuts trains (UDP_SEGMENT); off for good once it refused one that it should have taken.
    trains: AtomicBool,
    /// Every datagram has a checksum: the kernel cuts no others.
    checksums: bool,
}

impl UdpPool {
    /// `size` sockets, 1..=[`POOL_MAX`], bound to `local` and to the first free ports of [`POOL_PORTS`] from the
    /// `start`th on. There are fewer when fewer ports are free.
    pub fn open(local: IpAddr, size: usize, start: u16) -> Result<Self, LinkError> {
        Self::open_with(local, size, start, Outer::default())
    }

    /// The same with other words in the outer headers.
    pub fn open_with(local: IpAddr, size: usize, start: u16, outer: Outer) -> Result<Self, LinkError> {
        let size = size.clamp(1, POOL_MAX);
        let mut senders = Vec::with_capacity(size);
        // Once around the range.
        let from = POOL_PORTS.start() + start % (POOL_PORTS.end() - POOL_PORTS.start() + 1);
        for port in (from..=*POOL_PORTS.end()).chain(*POOL_PORTS.start()..from) {
            if senders.len() == size {
                break;
            }
            let socket = socket::udp(local).map_err(LinkError::os("making a udp socket"))?;
            match socket::bind(&socket, SocketAddr::new(local, port)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    return Err(LinkError::NoSuchAddress { address: local });
                }
                Err(source) => return Err(LinkError::Os { what: "binding a udp source port", source }),
            }
            let set = LinkError::os("setting up a udp source port");
            outer.set(&socket, local).map_err(&set)?;
            // Nobody reads here: whoever sends to these ports shall fill as little memory as possible.
            socket::set_receive_queue(&socket, 0).map_err(&set)?;
            socket::set_send_queue(&socket, SEND_QUEUE).map_err(&set)?;
            senders.push((socket, port));
        }
        if senders.is_empty() {
            return Err(LinkError::NoSourcePort { address: local });
        }
        let checksums = outer.checksum || local.is_ipv6();
        Ok(Self { senders, trains: AtomicBool::new(false), checksums })
    }

    /// Sends trains, where the kernel can, or sends none.
    pub fn set_trains(&self, wanted: bool) {
        let can =
            wanted && self.checksums && self.senders.iter().all(|(socket, _)| socket::can_segment(socket));
        self.trains.store(can, Ordering::Relaxed);
    }

    /// Whether trains are sent; not at first.
    #[must_use]
    pub fn trains(&self) -> bool {
        self.trains.load(Ordering::Relaxed)
    }

    /// The source ports, in the order that entropy picks them.
    pub fn ports(&self) -> impl ExactSizeIterator<Item = u16> {
        self.senders.iter().map(|&(_, port)| port)
    }

    /// The source port of a flow with this entropy.
    #[must_use]
    pub fn source_port(&self, entropy: u32) -> u16 {
        self.senders[self.place(entropy)].1
    }

    /// Which sender carries a flow with this entropy. There is at least one.
    fn place(&self, entropy: u32) -> usize {
        entropy as usize % self.senders.len()
    }

    fn send(&self, to: &SocketName, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent {
        let mut sent = Sent::default();
        scratch.clear();
        let mut wanted = 0_u64;
        for record in tx.records(port) {
            let place = self.place(record.entropy);
            match scratch.settle(batch, tx, record, WRAP, place) {
                Some(()) => wanted |= 1 << place,
                None => sent.bad_offload += 1,
            }
        }
        // A pass for each sender that has something, so that runs are long and each flow keeps its order.
        while wanted != 0 {
            let place = wanted.trailing_zeros() as usize;
            wanted &= wanted - 1;
            let mut run = Run::new(self.trains());
            let socket = self.senders[place].0.as_fd();
            for (datagram, alone) in scratch.settled(batch, place) {
                let mut pieces = [&[][..]; 2];
                let count = pieces.iter_mut().zip(datagram).map(|(place, piece)| *place = piece).count();
                let pieces = || pieces.into_iter().take(count);
                if !run.push(pieces(), alone) {
                    self.flush(&mut run, socket, to, &mut sent);
                    run.push(pieces(), alone);
                }
            }
            self.flush(&mut run, socket, to, &mut sent);
        }
        sent
    }

    /// Sends and empties `run`, each datagram whatever becomes of the others.
    fn flush(&self, run: &mut Run<'_>, socket: BorrowedFd<'_>, to: &SocketName, sent: &mut Sent) {
        let mut at = 0;
        let mut tried = false;
        while at < run.len() {
            let (_, datagrams) = run.size(at);
            match run.send(at, socket, Some(to)) {
                Ok(taken) => {
                    // The kernel takes at least one or says why not.
                    let end = at + taken.max(1);
                    for (bytes, datagrams) in (at..end).map(|i| run.size(i)) {
                        sent.taken(datagrams, bytes);
                    }
                    at = end;
                    tried = false;
                    continue;
                }
                // It may have been pending since an earlier datagram: once more.
                Err(error) if !tried && is_passing(&error) => {
                    tried = true;
                    continue;
                }
                Err(error) if datagrams > 1 && !is_full(&error) => {
                    self.split(run, at, &error, socket, to, sent);
                }
                Err(error) => sent.failed(&error, datagrams),
            }
            at += 1;
            tried = false;
        }
        run.clear();
    }

    /// Sends the datagrams of a train one by one, which the kernel refused. If it takes the first, it cannot do trains
    /// on this path (a route out of an interface that does no checksums, say) and is not asked again.
    fn split(
        &self,
        run: &Run<'_>,
        train: usize,
        refused: &io::Error,
        socket: BorrowedFd<'_>,
        to: &SocketName,
        sent: &mut Sent,
    ) {
        let before = sent.ok;
        // Anything else may pass: a firewall's limit, a route that flaps.
        let cannot = matches!(refused.raw_os_error(), Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP));
        for (n, pieces) in run.datagrams(train).enumerate() {
            let mut alone = Run::new(false);
            alone.push(pieces.iter().map(|piece| &**piece), true);
            self.flush(&mut alone, socket, to, sent);
            if n == 0 && sent.ok > before && cannot {
                self.trains.store(false, Ordering::Relaxed);
            }
        }
    }
}

/// The kernel has no room now; that says nothing about what was sent.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM))
}

/// A remote node: the sending side of a tunnel port. What it sends arrives at the receivers, with everybody
/// else's.
#[derive(Clone, Debug)]
pub struct Peer {
    pool: Arc<UdpPool>,
    remote: SocketAddr,
    name: SocketName,
}

impl Peer {
    /// The peer at `remote`, which must be of the pool's family.
    #[must_use]
    pub fn new(pool: Arc<UdpPool>, remote: SocketAddr) -> Self {
        Self { pool, remote, name: remote.into() }
    }

    /// The sockets it sends with.
    #[must_use]
    pub const fn pool(&self) -> &Arc<UdpPool> {
        &self.pool
    }

    /// Its address and UDP port.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }
}

impl Link for Peer {
    fn receive(&self, _: PortId, _: &mut Batch) -> Received {
        Received::NOTHING
    }

    fn send(&self, batch: &Batch, tx: &TxList, port: PortId, scratch: &mut Scratch) -> Sent {
        self.pool.send(&self.name, batch, tx, port, scratch)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: usize = 200;

    /// A VXLAN header, then UDP over IPv4 that says it ends where the message of `len` bytes does.
    fn message(len: usize) -> Vec<u8> {
        let word = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
        let mut message = vec![8, 0, 0, 0, 0, 0, 10, 0];
        message.extend([2; 12]);
        message.extend([8, 0, 0x45, 0]);
        message.extend(word(len - 22));
        message.extend([0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9]);
        message.extend(word(len - 42));
        message.extend([1, 1]);
        message.resize(len, 0xaa);
        message
    }

    #[test]
    fn a_superframe_in_one_datagram_is_told_from_a_train_by_its_length() {
        let Some(Uncut::Superframe(owed)) = uncut(&message(1000), SEGMENT) else { panic!() };
        let gso = Gso { kind: GsoKind::Udp, size: 200, header_len: 50 };
        assert_eq!(owed, Offload { checksum: None, gso: Some(gso) });
        // A train: the first datagram ends in its segment. One datagram alone.
        let train = [message(SEGMENT), message(SEGMENT)].concat();
        assert!(uncut(&train, SEGMENT).is_none() && uncut(&message(SEGMENT), SEGMENT).is_none());
        assert!(uncut(&[8; 4], 2).is_none());
    }

    #[test]
    fn what_can_be_read_as_both_is_neither() {
        let mut both = message(5 * SEGMENT);
        both.chunks_mut(SEGMENT).for_each(|chunk| chunk[..8].copy_from_slice(&[8, 0, 0, 0, 0, 0, 20, 0]));
        assert!(matches!(uncut(&both, SEGMENT), Some(Uncut::Unclear)));
        // A group policy (draft-smith-vxlan-group-policy) makes it no clearer; nor do bits that nobody knows.
        both[2 * SEGMENT..2 * SEGMENT + 4].copy_from_slice(&[0x88, 0, 1, 2]);
        assert!(matches!(uncut(&both, SEGMENT), Some(Uncut::Unclear)));
        both[0] = 0x0c;
        assert!(matches!(uncut(&both, SEGMENT), Some(Uncut::Unclear)));
        both[0] = 0x88;
        both[3 * SEGMENT] = 0;
        assert!(matches!(uncut(&both, SEGMENT), Some(Uncut::Superframe(_))));
    }
}
