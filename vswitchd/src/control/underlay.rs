//! This node's side of the underlay: which local addresses tunnels use, and the sockets on them.
//!
//! The file's `[underlay]` has an address of each family, whose sockets all peers share. A tunnel with options of its
//! own has a pool of senders for them, shared by all that want the same, and receivers at its local address or at the
//! unspecified one, beside the file's. An address that is not there yet is waited for. Not here: peers, and what is in a
//! datagram.

use crate::config::{Config, Families, TunnelConfig};
use crate::link::{LinkError, Outer, POOL_SIZE, Peer, UdpPool, UdpReceiver};
use crate::sys::netlink::Netlink;
use crate::sys::socket;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// An address of the file's `[underlay]`, and what sends from it.
#[derive(Debug)]
struct Family {
    address: IpAddr,
    mtu: u16,
    pool: Arc<UdpPool>,
}

/// By what a tunnel's senders are found: where they are bound, and what they write into outer headers.
type PoolKey = (IpAddr, Outer);

/// Those words that hold, in order.
pub(super) fn words<'a>(words: impl IntoIterator<Item = (bool, &'a str)>) -> String {
    words.into_iter().filter_map(|(holds, word)| holds.then_some(word)).collect::<Vec<_>>().join(" ")
}

/// The sockets that are open, and what is missing.
#[derive(Debug, Default)]
pub(super) struct Underlay {
    families: Vec<Family>,
    udp_port: u16,
    send_sockets: u16,
    offload: bool,
    /// At each address one for each worker: the file's and those of tunnels.
    receivers: BTreeMap<SocketAddr, Vec<Arc<UdpReceiver>>>,
    /// Senders of tunnels.
    pools: BTreeMap<PoolKey, Arc<UdpPool>>,
    /// Where tunnels cannot receive, and how they cannot send, each with a sentence.
    no_receivers: BTreeMap<SocketAddr, String>,
    no_pools: BTreeMap<PoolKey, String>,
    /// What the file asks for and the node does not have, each a sentence.
    pub(super) waiting: Vec<String>,
    /// What is allowed but hardly meant, each a sentence.
    pub(super) warnings: Vec<String>,
    /// Sockets of the file's that the system refused, each a sentence.
    pub(super) failed: Vec<String>,
    /// Every address of the node: none of them is a peer. Only known where the file has an `[underlay]`.
    pub(super) local: Vec<IpAddr>,
}

impl Underlay {
    /// The file's local tunnel addresses in use.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.families.iter().map(|family| family.address).collect()
    }

    pub(super) fn families(&self) -> Families {
        Families {
            v4: self.families.iter().any(|family| family.address.is_ipv4()),
            v6: self.families.iter().any(|family| family.address.is_ipv6()),
        }
    }

    pub(super) const fn udp_port(&self) -> u16 {
        self.udp_port
    }

    /// Which way datagrams of the file's go, in the kernel's words: what every family in use has.
    pub(super) fn path(&self) -> String {
        if self.families.is_empty() {
            return "none".to_owned();
        }
        let segment = self.families.iter().all(|family| family.pool.trains());
        let gro = self.families.iter().all(|family| {
            let at = SocketAddr::new(family.address, self.udp_port);
            self.receivers.get(&at).is_some_and(|all| all.iter().all(|receiver| receiver.trains()))
        });
        words([(segment, "udp_segment"), (gro, "udp_gro"), (true, "mmsg")])
    }

    fn towards(&self, remote: IpAddr) -> Option<&Family> {
        self.families.iter().find(|family| family.address.is_ipv4() == remote.is_ipv4())
    }

    /// The MTU of the interface towards `remote`, as far as is known: 1500 where nothing is.
    pub(super) fn mtu_towards(&self, remote: IpAddr) -> u16 {
        self.towards(remote).map_or(1500, |family| family.mtu)
    }

    /// The smallest MTU of the families in use; `None` while there are none.
    pub(super) fn mtu(&self) -> Option<u16> {
        self.families.iter().map(|family| family.mtu).min()
    }

    pub(super) fn pool_towards(&self, remote: IpAddr) -> Option<Arc<UdpPool>> {
        self.towards(remote).map(|family| Arc::clone(&family.pool))
    }

    /// All receiving sockets by worker, the file's and those of tunnels.
    pub(super) fn receivers(&self) -> Vec<Vec<Arc<UdpReceiver>>> {
        let workers = self.receivers.values().map(Vec::len).max().unwrap_or(0);
        (0..workers)
            .map(|worker| self.receivers.values().filter_map(|all| all.get(worker).cloned()).collect())
            .collect()
    }

    /// Whether tunnels with options of their own have senders.
    pub(super) fn has_tunnels(&self) -> bool {
        !self.pools.is_empty()
    }

    /// Where what `tunnel` sends leaves by.
    ///
    /// # Errors
    /// A sentence: its sockets could not be had when last refreshed, or it was not among those asked for.
    pub(super) fn tunnel(&self, tunnel: &TunnelConfig) -> Result<Peer, String> {
        if tunnel.local.is_some_and(|local| local.is_ipv4() != tunnel.remote.is_ipv4()) {
            return Err("local_ip and remote_ip are of different families".to_owned());
        }
        let (at, key) = (receives_at(tunnel), sends_by(tunnel));
        if let Some(reason) = self.no_receivers.get(&at).or_else(|| self.no_pools.get(&key)) {
            return Err(reason.clone());
        }
        match self.pools.get(&key).filter(|_| self.receivers.contains_key(&at)) {
            Some(pool) => Ok(Peer::new(Arc::clone(pool), SocketAddr::new(tunnel.remote, tunnel.udp_port))),
            None => Err("its sockets are not open yet".to_owned()),
        }
    }

    /// The MTU of the path to the remote end of `tunnel` as the kernel knows it, in bytes of IP packet; 1500 where
    /// there is no route.
    pub(super) fn path_mtu(tunnel: &TunnelConfig) -> u16 {
        let remote = SocketAddr::new(tunnel.remote, tunnel.udp_port);
        socket::path_mtu(tunnel.local, remote).map_or(1500, |mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    /// Looks at the node's addresses and opens or closes sockets so that they are what `config` and `tunnels` ask for;
    /// whether anything changed. Sockets whose wish stays are not touched.
    ///
    /// # Errors
    /// The node's addresses could not be asked for: everything stays as it was.
    pub(super) fn refresh(
        &mut self,
        config: &Config,
        tunnels: &[&TunnelConfig],
        workers: usize,
    ) -> io::Result<bool> {
        let chosen = self.choose(config)?;
        let offload = config.datapath.offload;
        if std::mem::replace(&mut self.offload, offload) != offload {
            self.set_trains(offload);
        }
        let file: BTreeSet<SocketAddr> =
            chosen.iter().map(|(address, _)| SocketAddr::new(*address, self.udp_port)).collect();
        let wished: BTreeSet<SocketAddr> = tunnels.iter().map(|tunnel| receives_at(tunnel)).collect();
        let wished = &wished - &file;
        let (wished, too_many) = at_most(MOST, wished, |at| self.receivers.contains_key(at));
        // What goes is open until the workers have let it go.
        let held: Vec<SocketAddr> = self.receivers.keys().copied().collect();
        self.receivers.retain(|at, _| file.contains(at) || wished.contains(at));
        let mut changed = self.receivers.len() != held.len();
        let too_many = too_many.into_iter();
        self.no_receivers = too_many
            .map(|at| (at, format!("tunnels have more than {MOST} local addresses and ports")))
            .collect();
        changed |= self.refresh_families(config, &chosen, workers, &held);
        for at in wished {
            if self.receivers.contains_key(&at) {
                continue;
            }
            match self.open_receivers(at, workers, &held) {
                Ok(()) => changed = true,
                Err(error) => drop(self.no_receivers.insert(at, sentence(&error))),
            }
        }
        Ok(changed | self.refresh_pools(tunnels))
    }

    /// Which addresses the file's `[underlay]` has, each with its MTU.
    fn choose(&mut self, config: &Config) -> io::Result<Vec<(IpAddr, u16)>> {
        let Some(wish) = &config.underlay else {
            (self.waiting, self.warnings, self.local) = Default::default();
            self.failed.clear();
            self.udp_port = 0;
            return Ok(Vec::new());
        };
        let assigned = match Netlink::open().and_then(|mut netlink| netlink.addresses()) {
            Ok(assigned) => assigned,
            Err(error) => {
                self.failed = vec![format!("asking for the node's addresses: {error}")];
                return Err(error);
            }
        };
        self.failed.clear();
        self.local = assigned.iter().map(|a| a.address).collect();
        self.udp_port = wish.port;
        let chosen = wish.choose(&self.local);
        self.waiting =
            chosen.waiting.iter().map(|spec| format!("no local address matches {spec} yet")).collect();
        self.warnings = chosen
            .several
            .iter()
            .map(|(spec, all)| {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                format!("several local addresses match {spec}: {}; the first is used", all.join(", "))
            })
            .collect();
        let mtu_of = |address: IpAddr| {
            let interface_mtu = assigned.iter().find(|a| a.address == address).map(|a| a.mtu);
            let mtu = wish.mtu.or_else(|| interface_mtu.map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX)));
            mtu.unwrap_or(1500)
        };
        Ok(chosen.addresses.into_iter().map(|address| (address, mtu_of(address))).collect())
    }

    /// Makes the file's addresses those `chosen`; whether anything changed.
    fn refresh_families(
        &mut self,
        config: &Config,
        chosen: &[(IpAddr, u16)],
        workers: usize,
        held: &[SocketAddr],
    ) -> bool {
        let before = self.families.len();
        self.families.retain(|family| chosen.iter().any(|(address, _)| *address == family.address));
        let mut changed = self.families.len() != before;
        let Some(wish) = &config.underlay else { return changed };
        let resize = self.send_sockets != wish.send_sockets;
        for &(address, mtu) in chosen {
            if let Some(family) = self.families.iter_mut().find(|family| family.address == address) {
                changed |= family.mtu != mtu || resize;
                family.mtu = mtu;
                if resize {
                    match pool(address, wish.send_sockets.into(), self.offload, Outer::default()) {
                        Ok(pool) => family.pool = pool,
                        Err(error) => self.failed.push(error.to_string()),
                    }
                }
                continue;
            }
            let at = SocketAddr::new(address, self.udp_port);
            let opened = match self.receivers.contains_key(&at) {
                true => Ok(()),
                false => self.open_receivers(at, workers, held),
            };
            let opened =
                opened.and_then(|()| pool(address, wish.send_sockets.into(), self.offload, Outer::default()));
            match opened {
                Ok(pool) => {
                    self.families.push(Family { address, mtu, pool });
                    changed = true;
                }
                Err(error) => self.failed.push(error.to_string()),
            }
        }
        if self.failed.is_empty() {
            self.send_sockets = wish.send_sockets;
        }
        changed
    }

    /// Makes the pools of senders those that `tunnels` ask for; whether anything changed.
    fn refresh_pools(&mut self, tunnels: &[&TunnelConfig]) -> bool {
        let wished: BTreeSet<PoolKey> = tunnels.iter().map(|tunnel| sends_by(tunnel)).collect();
        let (wished, too_many) = at_most(MOST, wished, |key| self.pools.contains_key(key));
        let before = self.pools.len();
        self.pools.retain(|key, _| wished.contains(key));
        let mut changed = self.pools.len() != before;
        let reason =
            format!("tunnels have more than {MOST} combinations of local_ip, tos, ttl, df_default, csum");
        self.no_pools = too_many.into_iter().map(|key| (key, reason.clone())).collect();
        for key in wished {
            if self.pools.contains_key(&key) {
                continue;
            }
            match pool(key.0, POOL_SIZE, self.offload, key.1) {
                Ok(pool) => {
                    self.pools.insert(key, pool);
                    changed = true;
                }
                Err(error) => drop(self.no_pools.insert(key, sentence(&error))),
            }
        }
        changed
    }

    /// Opens the receivers at `at`; `held` are those that this process had before.
    fn open_receivers(
        &mut self,
        at: SocketAddr,
        workers: usize,
        held: &[SocketAddr],
    ) -> Result<(), LinkError> {
        // The unspecified address and any other would be in each other's way, were they not both ours.
        let beside = |other: &SocketAddr| {
            other.port() == at.port()
                && other.is_ipv4() == at.is_ipv4()
                && (other.ip().is_unspecified() || at.ip().is_unspecified() || *other == at)
        };
        let open = if held.iter().chain(self.receivers.keys()).any(beside) {
            UdpReceiver::open_more
        } else {
            UdpReceiver::open_all
        };
        let receivers = open(at, workers, RECEIVE_QUEUE)?;
        if self.offload {
            receivers.iter().for_each(UdpReceiver::take_trains);
        }
        self.receivers.insert(at, receivers.into_iter().map(Arc::new).collect());
        Ok(())
    }

    fn set_trains(&self, wanted: bool) {
        let pools = self.families.iter().map(|family| &family.pool).chain(self.pools.values());
        pools.for_each(|pool| pool.set_trains(wanted));
        // Those that receive go on as they are: what waits in their queues is still to be told apart.
        if wanted {
            self.receivers.values().flatten().for_each(|receiver| receiver.take_trains());
        }
    }
}

/// What each receiving socket asks the kernel to hold for it, in bytes.
const RECEIVE_QUEUE: u32 = 4 << 20;

/// The most addresses, and the most pools, that tunnels may have: each is a descriptor for each worker, or
/// [`POOL_SIZE`] of them.
const MOST: usize = 64;

/// The first `most` of `wished`, those that are open before the others, and the rest.
fn at_most<T: Ord>(
    most: usize,
    wished: BTreeSet<T>,
    is_open: impl Fn(&T) -> bool,
) -> (BTreeSet<T>, BTreeSet<T>) {
    let (open, new): (Vec<T>, Vec<T>) = wished.into_iter().partition(is_open);
    let mut all = open.into_iter().chain(new);
    let first = all.by_ref().take(most).collect();
    (first, all.collect())
}

/// The unspecified address of `address`'s family.
const fn any_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

fn local_of(tunnel: &TunnelConfig) -> IpAddr {
    tunnel.local.unwrap_or_else(|| any_like(tunnel.remote))
}

fn receives_at(tunnel: &TunnelConfig) -> SocketAddr {
    SocketAddr::new(local_of(tunnel), tunnel.udp_port)
}

fn sends_by(tunnel: &TunnelConfig) -> PoolKey {
    let outer = Outer {
        tos: tunnel.tos.unwrap_or(0),
        ttl: Some(tunnel.ttl.unwrap_or(64)),
        dont_fragment: tunnel.dont_fragment,
        checksum: tunnel.checksum,
    };
    (local_of(tunnel), outer)
}

/// What is said of a tunnel whose socket was refused.
fn sentence(error: &LinkError) -> String {
    match error {
        LinkError::PortTaken { address, port } => format!(
            "udp port {port} of {address} is taken by another program (a kernel vxlan interface?): stop it, or set another dst_port"
        ),
        _ => error.to_string(),
    }
}

fn pool(local: IpAddr, size: usize, offload: bool, outer: Outer) -> Result<Arc<UdpPool>, LinkError> {
    // Another process's pool begins elsewhere, so that two nodes on one host do not try the same ports.
    let start = u16::try_from(u64::from(std::process::id()) * 64 % 16_384).unwrap_or(0);
    let pool = UdpPool::open_with(local, size, start, outer)?;
    pool.set_trains(offload);
    Ok(Arc::new(pool))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Link as _;
    use std::net::UdpSocket;
    use std::os::fd::{AsRawFd as _, RawFd};
    use vswitch_core::Vni;

    /// A UDP port that nobody has.
    fn free_port() -> u16 {
        UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
    }

    fn tunnel(remote: &str, udp_port: u16) -> TunnelConfig {
        let key = Vni::new(0).unwrap();
        TunnelConfig {
            remote: remote.parse().unwrap(),
            local: None,
            in_key: key,
            out_key: key,
            udp_port,
            tos: None,
            ttl: None,
            dont_fragment: true,
            checksum: false,
        }
    }

    fn descriptors(underlay: &Underlay) -> Vec<RawFd> {
        underlay.receivers().iter().flatten().map(|receiver| receiver.fd().as_raw_fd()).collect()
    }

    #[test]
    fn tunnels_share_what_they_wish_alike_and_what_stays_is_not_touched() {
        let (config, port) = (Config::default(), free_port());
        let mut underlay = Underlay::default();
        let one = tunnel("127.0.0.2", port);
        assert!(underlay.tunnel(&one).unwrap_err().contains("not open yet"));
        assert!(underlay.refresh(&config, &[&one], 2).unwrap());
        assert_eq!((underlay.receivers().len(), underlay.receivers()[0].len()), (2, 1));
        assert!(underlay.receivers()[0][0].local().ip().is_unspecified());
        let before = descriptors(&underlay);

        let alike = TunnelConfig { out_key: Vni::new(7).unwrap(), ..tunnel("127.0.0.3", port) };
        let marked = TunnelConfig { tos: Some(8), ..one.clone() };
        let there = TunnelConfig { local: Some("127.0.0.1".parse().unwrap()), ..one.clone() };
        assert!(underlay.refresh(&config, &[&one, &alike, &marked, &there], 2).unwrap());
        let [one_peer, alike_peer, marked_peer, there_peer] =
            [&one, &alike, &marked, &there].map(|tunnel| underlay.tunnel(tunnel).unwrap());
        assert!(Arc::ptr_eq(one_peer.pool(), alike_peer.pool()));
        assert!(!Arc::ptr_eq(one_peer.pool(), marked_peer.pool()));
        assert!(!Arc::ptr_eq(one_peer.pool(), there_peer.pool()));
        assert_eq!(one_peer.remote(), SocketAddr::new(one.remote, port));
        assert!(one_peer.fd().is_none());
        let all = descriptors(&underlay);
        assert!(all.len() == 4 && before.iter().all(|fd| all.contains(fd)));

        assert!(!underlay.refresh(&config, &[&there, &marked, &one], 2).unwrap());
        assert!(underlay.refresh(&config, &[&one], 2).unwrap());
        assert_eq!(descriptors(&underlay), before);
        assert!(Arc::ptr_eq(underlay.tunnel(&one).unwrap().pool(), one_peer.pool()));
        assert!(underlay.refresh(&config, &[], 2).unwrap() && underlay.receivers().is_empty());
    }

    #[test]
    fn a_taken_port_is_the_trouble_of_its_tunnels_alone_and_is_asked_for_again() {
        let config = Config::default();
        let other = UdpSocket::bind("0.0.0.0:0").unwrap();
        let taken = tunnel("127.0.0.2", other.local_addr().unwrap().port());
        let free = tunnel("127.0.0.2", free_port());
        let nowhere = TunnelConfig { local: Some("192.0.2.77".parse().unwrap()), ..free };
        let mixed = TunnelConfig { local: Some("::1".parse().unwrap()), ..free };
        let mut underlay = Underlay::default();
        underlay.refresh(&config, &[&taken, &free, &nowhere, &mixed], 1).unwrap();
        assert!(underlay.failed.is_empty() && underlay.tunnel(&free).is_ok());
        let refused = |underlay: &Underlay, tunnel| underlay.tunnel(tunnel).unwrap_err();
        assert!(refused(&underlay, &taken).contains("taken by another program"));
        assert!(refused(&underlay, &taken).contains("dst_port"));
        assert!(refused(&underlay, &nowhere).contains("192.0.2.77 is on no interface"));
        assert!(refused(&underlay, &mixed).contains("different families"));
        drop(other);
        assert!(underlay.refresh(&config, &[&taken, &free], 1).unwrap());
        assert!(underlay.tunnel(&taken).is_ok() && underlay.tunnel(&free).is_ok());
    }

    #[test]
    fn a_wish_for_any_number_of_sockets_costs_a_bounded_number_and_none_of_those_that_are_there() {
        let config = Config::default();
        let first = tunnel("127.0.0.2", free_port());
        let mut underlay = Underlay::default();
        underlay.refresh(&config, &[&first], 1).unwrap();
        let many: Vec<TunnelConfig> = (1..=200_u16)
            .map(|n| TunnelConfig { udp_port: 20_000 + n, tos: u8::try_from(n).ok(), ..first.clone() })
            .chain([first.clone()])
            .collect();
        underlay.refresh(&config, &many.iter().collect::<Vec<_>>(), 1).unwrap();
        assert!(underlay.tunnel(&first).is_ok());
        assert!(underlay.receivers.len() <= MOST && underlay.pools.len() <= MOST);
        let refused: Vec<String> = many.iter().filter_map(|t| underlay.tunnel(t).err()).collect();
        assert!(refused.iter().any(|reason| reason.contains("more than 64")), "{refused:?}");
    }

    #[test]
    fn a_path_s_mtu_is_the_kernel_s_or_that_of_ethernet() {
        assert!(Underlay::path_mtu(&tunnel("127.0.0.2", 4789)) > 1500);
        let nowhere =
            TunnelConfig { local: Some("192.0.2.77".parse().unwrap()), ..tunnel("127.0.0.2", 4789) };
        assert_eq!(Underlay::path_mtu(&nowhere), 1500);
    }
}
