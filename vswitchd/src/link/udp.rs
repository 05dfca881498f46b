//! The underlay: VXLAN datagrams to and from remote nodes, over UDP.
//!
//! Per local address there are receivers, one per worker, on the tunnel port, and a pool of senders on ports of
//! the dynamic range. A flow leaves by one sender, so that networks that spread flows by their ports spread ours
//! (RFC 7348 §5). All peers of a family share both. Nothing is ever fragmented. Which source may send to us is
//! the switch's question.

use super::{Link, LinkError, Received, Scratch, Sent};
use crate::sys::address::SocketName;
use crate::sys::mmsg::{self, DATAGRAMS, Run};
use crate::sys::socket;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vswitch_core::{Arrival, Batch, Offload, PortId, TxList};

/// Bytes of the VXLAN header, in front of the Ethernet frame in each record.
const WRAP: u16 = 8;

/// Where senders are bound: the dynamic range (RFC 6335 §6), as RFC 7348 §5 recommends.
pub const POOL_PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// Senders of a pool, unless somebody wants another number.
pub const POOL_SIZE: usize = 16;

/// The largest pool.
pub const POOL_MAX: usize = 64;

/// A received datagram that is whole.
#[derive(Clone, Copy)]
struct Kept {
    len: usize,
    remote: IpAddr,
}

/// A socket on the tunnel port, one worker's.
#[derive(Debug)]
pub struct UdpReceiver {
    socket: OwnedFd,
    local: SocketAddr,
    /// The kernel's count of lost datagrams when last reported. Written by the receiving worker only.
    lost: AtomicU32,
}

impl UdpReceiver {
    /// `workers` sockets that share `local`, at least one, each asking for a queue of `queue` bytes. The kernel
    /// gives every flow to one of them.
    ///
    /// A first bind that shares with nobody finds out whether another program has the port; a program that
    /// takes it in the moment after that is not found, if it shares with us.
    pub fn open_all(local: SocketAddr, workers: usize, queue: u32) -> Result<Vec<Self>, LinkError> {
        let bind = |socket: &OwnedFd| {
            socket::bind(socket, local).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => LinkError::PortTaken { address: local.ip(), port: local.port() },
                io::ErrorKind::AddrNotAvailable => LinkError::NoSuchAddress { address: local.ip() },
                _ => LinkError::Os { what: "binding the tunnel port", source: error },
            })
        };
        let open = || socket::udp(local.ip()).map_err(LinkError::os("making a udp socket"));
        let probe = open()?;
        bind(&probe)?;
        drop(probe);
        (0..workers.max(1))
            .map(|_| {
                let socket = open()?;
                let set = LinkError::os("setting up the tunnel port");
                socket::share_port(&socket).map_err(&set)?;
                socket::report_overflow(&socket).map_err(&set)?;
                socket::set_receive_queue(&socket, queue).map_err(&set)?;
                if local.is_ipv6() {
                    socket::take_zero_checksums(&socket).map_err(&set)?;
                }
                bind(&socket)?;
                Ok(Self { socket, local, lost: AtomicU32::new(0) })
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

    /// Adds up to 32 waiting datagrams to `batch`. Never waits.
    pub fn receive(&self, batch: &mut Batch) -> Received {
        let mut kept = [Kept { len: 0, remote: IpAddr::V4(Ipv4Addr::UNSPECIFIED) }; DATAGRAMS];
        let received = {
            let mut spares = batch.spares();
            let wanted = spares.len().min(DATAGRAMS);
            let mut slots: [&mut [u8]; DATAGRAMS] =
                std::array::from_fn(|_| spares.next().unwrap_or_default());
            self.fill(&mut slots[..wanted], &mut kept)
        };
        for &Kept { len, remote } in &kept[..received.frames] {
            let (local, udp_port) = (self.local.ip(), self.local.port());
            batch.push(Arrival::Underlay { local, remote, udp_port }, len, Offload::NONE);
        }
        received
    }

    /// Fills `slots` from the first on, without a hole, and says in `kept` with what.
    fn fill(&self, slots: &mut [&mut [u8]], kept: &mut [Kept; DATAGRAMS]) -> Received {
        let mut received = Received::default();
        if slots.is_empty() {
            return received;
        }
        // An error that is pending on the socket is reported once, instead of what is waiting.
        let got = match mmsg::receive(self.fd(), slots) {
            Err(error) if is_passing(&error) => mmsg::receive(self.fd(), slots),
            got => got,
        };
        let got = match got {
            Ok(got) => got,
            Err(error) => {
                received.failed(&error);
                return received;
            }
        };
        received.drained = got.all().len() < slots.len();
        received.overflow = got.lost.map_or(0, |lost| self.newly_lost(lost));
        for (i, datagram) in got.all().iter().enumerate() {
            if datagram.truncated {
                received.truncated += 1;
                continue;
            }
            let to = received.frames;
            if to < i {
                let (before, from) = slots.split_at_mut(i);
                before[to][..datagram.len].copy_from_slice(&from[0][..datagram.len]);
            }
            kept[to].len = datagram.len;
            if let Some(from) = datagram.from {
                kept[to].remote = from.ip();
            }
            received.frames += 1;
        }
        received
    }

    /// Datagrams that the kernel's queue has lost since this, or `receive`, last told. `receive` learns of a loss
    /// only from a datagram that was queued after it; this asks. For the receiving worker, now and then.
    pub fn overflow(&self) -> u64 {
        socket::lost(self.fd()).map_or(0, |lost| self.newly_lost(lost))
    }

    /// The kernel's count only grows, modulo 2³²; but one that waited in the queue with its datagram may be
    /// older than one that was asked for.
    fn newly_lost(&self, lost: u32) -> u64 {
        let newly = lost.wrapping_sub(self.lost.load(Ordering::Relaxed));
        if newly > u32::MAX / 2 {
            return 0;
        }
        self.lost.store(lost, Ordering::Relaxed);
        u64::from(newly)
    }
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

/// The sending sockets of one local address.
#[derive(Debug)]
pub struct UdpPool {
    senders: Vec<(OwnedFd, u16)>,
}

impl UdpPool {
    /// `size` sockets, 1..=[`POOL_MAX`], bound to `local` and to the first free ports of [`POOL_PORTS`] from the
    /// `start`th on. There are fewer when fewer ports are free.
    pub fn open(local: IpAddr, size: usize, start: u16) -> Result<Self, LinkError> {
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
            socket::never_fragment(&socket, local).map_err(&set)?;
            // Nobody reads here: whoever sends to these ports shall fill as little memory as possible.
            socket::set_receive_queue(&socket, 0).map_err(&set)?;
            senders.push((socket, port));
        }
        if senders.is_empty() {
            return Err(LinkError::NoSourcePort { address: local });
        }
        Ok(Self { senders })
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
        // A pass for each sender that has something, so that runs are long and each flow keeps its order.
        let mut wanted = tx.records(port).fold(0_u64, |bits, record| bits | 1 << self.place(record.entropy));
        while wanted != 0 {
            let place = wanted.trailing_zeros() as usize;
            wanted &= wanted - 1;
            let socket = self.senders[place].0.as_fd();
            let mut run = Run::default();
            for record in tx.records(port).filter(|record| self.place(record.entropy) == place) {
                if record.offload.is_none() {
                    if run.push(tx.pieces(record, batch)) {
                        continue;
                    }
                    flush(&mut run, socket, to, &mut sent);
                    if run.push(tx.pieces(record, batch)) {
                        continue;
                    }
                    // More pieces than a run has room for.
                    let mut alone = Run::default();
                    alone.push(std::iter::once(scratch.copy(batch, tx, record)));
                    flush(&mut alone, socket, to, &mut sent);
                } else {
                    flush(&mut run, socket, to, &mut sent);
                    if scratch.settle(batch, tx, record, WRAP).is_none() {
                        sent.bad_offload += 1;
                        continue;
                    }
                    let mut cuts = Run::default();
                    for pieces in scratch.settled(WRAP) {
                        if !cuts.push(pieces.into_iter()) {
                            flush(&mut cuts, socket, to, &mut sent);
                            cuts.push(pieces.into_iter());
                        }
                    }
                    flush(&mut cuts, socket, to, &mut sent);
                }
            }
            flush(&mut run, socket, to, &mut sent);
        }
        sent
    }
}

/// Sends and empties `run`, each datagram whatever becomes of the others.
fn flush(run: &mut Run<'_>, socket: BorrowedFd<'_>, to: &SocketName, sent: &mut Sent) {
    let mut at = 0;
    let mut tried = false;
    while at < run.len() {
        match run.send(at, socket, to) {
            Ok(taken) => {
                // The kernel takes at least one or says why not.
                let end = at + taken.max(1);
                (at..end).for_each(|i| sent.taken(run.bytes(i)));
                at = end;
                tried = false;
            }
            // It may have been pending since an earlier datagram: once more.
            Err(error) if !tried && is_passing(&error) => tried = true,
            Err(error) => {
                sent.failed(&error);
                at += 1;
                tried = false;
            }
        }
    }
    run.clear();
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
