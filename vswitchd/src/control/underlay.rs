//! This node's side of the underlay: which local addresses tunnels use, and the sockets on them.
//!
//! An address that is not there yet is waited for. Not here: peers, and what is in a datagram.

use crate::config::{self, Config, Families};
use crate::link::{LinkError, UdpPool, UdpReceiver};
use crate::sys::netlink::Netlink;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// One address family's sockets.
#[derive(Debug)]
struct Family {
    address: IpAddr,
    mtu: u16,
    pool: Arc<UdpPool>,
    /// One for each worker.
    receivers: Vec<Arc<UdpReceiver>>,
}

impl Family {
    fn set_trains(&self, wanted: bool) {
        self.pool.set_trains(wanted);
        // Those that receive go on as they are: what waits in their queues is still to be told apart.
        if wanted {
            self.receivers.iter().for_each(|receiver| receiver.take_trains());
        }
    }
}

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
    /// What the file asks for and the node does not have, each a sentence.
    pub(super) waiting: Vec<String>,
    /// What is allowed but hardly meant, each a sentence.
    pub(super) warnings: Vec<String>,
    /// Sockets that the system refused, each a sentence.
    pub(super) failed: Vec<String>,
    /// Every address of the node: none of them is a peer.
    pub(super) local: Vec<IpAddr>,
}

impl Underlay {
    /// The local tunnel addresses in use.
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

    /// Which way datagrams go, in the kernel's words: what every family in use has.
    pub(super) fn path(&self) -> String {
        if self.families.is_empty() {
            return "none".to_owned();
        }
        let receives = |family: &Family| family.receivers.iter().all(|receiver| receiver.trains());
        let segment = self.families.iter().all(|family| family.pool.trains());
        let gro = self.families.iter().all(receives);
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

    /// The receiving sockets by worker.
    pub(super) fn receivers(&self) -> Vec<Vec<Arc<UdpReceiver>>> {
        let workers = self.families.iter().map(|family| family.receivers.len()).max().unwrap_or(0);
        (0..workers)
            .map(|worker| self.families.iter().filter_map(|f| f.receivers.get(worker).cloned()).collect())
            .collect()
    }

    /// Looks at the node's addresses and opens or closes sockets so that they are what `config` asks for; whether
    /// anything changed. Sockets whose address stays are not touched.
    pub(super) fn refresh(&mut self, config: &Config, workers: usize) -> io::Result<bool> {
        let Some(wish) = &config.underlay else {
            let changed = !self.families.is_empty();
            *self = Self::default();
            return Ok(changed);
        };
        let assigned = match Netlink::open().and_then(|mut netlink| netlink.addresses()) {
            Ok(assigned) => assigned,
            Err(error) => {
                self.failed = vec![format!("asking for the node's addresses: {error}")];
                return Err(error);
            }
        };
        self.local = assigned.iter().map(|a| a.address).collect();
        self.udp_port = wish.port;
        let resize = self.send_sockets != wish.send_sockets;
        let offload = config.datapath.offload;
        if std::mem::replace(&mut self.offload, offload) != offload {
            self.families.iter().for_each(|family| family.set_trains(offload));
        }
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
        let mut changed = false;
        self.families.retain(|family| {
            let kept = chosen.addresses.contains(&family.address);
            changed |= !kept;
            kept
        });
        self.failed.clear();
        for address in chosen.addresses {
            let interface_mtu = assigned.iter().find(|a| a.address == address).map(|a| a.mtu);
            let mtu = wish.mtu.or_else(|| interface_mtu.map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX)));
            let mtu = mtu.unwrap_or(1500);
            if let Some(family) = self.families.iter_mut().find(|family| family.address == address) {
                changed |= family.mtu != mtu || resize;
                family.mtu = mtu;
                if resize {
                    match pool(address, wish.send_sockets, offload) {
                        Ok(pool) => family.pool = pool,
                        Err(error) => self.failed.push(error.to_string()),
                    }
                }
                continue;
            }
            match open(address, wish, workers, offload) {
                Ok((pool, receivers)) => {
                    self.families.push(Family { address, mtu, pool, receivers });
                    changed = true;
                }
                Err(error) => self.failed.push(error.to_string()),
            }
        }
        if self.failed.is_empty() {
            self.send_sockets = wish.send_sockets;
        }
        Ok(changed)
    }
}

/// What each receiving socket asks the kernel to hold for it, in bytes.
const RECEIVE_QUEUE: u32 = 4 << 20;

type Sockets = (Arc<UdpPool>, Vec<Arc<UdpReceiver>>);

fn open(
    address: IpAddr,
    wish: &config::Underlay,
    workers: usize,
    offload: bool,
) -> Result<Sockets, LinkError> {
    let receivers = UdpReceiver::open_all(SocketAddr::new(address, wish.port), workers, RECEIVE_QUEUE)?;
    if offload {
        receivers.iter().for_each(UdpReceiver::take_trains);
    }
    Ok((pool(address, wish.send_sockets, offload)?, receivers.into_iter().map(Arc::new).collect()))
}

fn pool(address: IpAddr, send_sockets: u16, offload: bool) -> Result<Arc<UdpPool>, LinkError> {
    // Another process's pool begins elsewhere, so that two nodes on one host do not try the same ports.
    let start = u16::try_from(u64::from(std::process::id()) * 64 % 16_384).unwrap_or(0);
    let pool = UdpPool::open(address, usize::from(send_sockets), start)?;
    pool.set_trains(offload);
    Ok(Arc::new(pool))
}
