//! The underlay of a mesh: a router, and behind each of its links a node. Every datagram between two nodes is routed.
//!
//! A node has one address of its own, /32 and /128, and all else lies behind the router, so that addresses can be
//! given, taken and changed one by one. Not here: daemons.

use crate::lab::{Lab, Namespace};
use crate::node::Wire;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The prefix in which every node's IPv4 address is (RFC 2544: for tests of networks).
pub const PREFIX: &str = "198.18.0.0/15";

/// The same for IPv6.
pub const PREFIX_V6: &str = "fd99::/64";

/// The router's own address, where a service of all nodes may listen.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// The same in IPv6.
const ROUTER_V6: &str = "fd99::ffff";

/// The underlay address of node `n`, 1 and up: they follow each other without a gap.
///
/// # Panics
/// From 65,000 nodes on.
#[must_use]
pub fn v4(n: usize) -> IpAddr {
    let first = u32::from(Ipv4Addr::new(198, 18, 1, 0));
    Ipv4Addr::from(first + u32::try_from(n).expect("a few thousand nodes")).into()
}

/// The same in IPv6.
///
/// # Panics
/// From 65,000 nodes on.
#[must_use]
pub fn v6(n: usize) -> IpAddr {
    let n = u16::try_from(n).expect("a few thousand nodes");
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 1, n).into()
}

/// A router, and nodes in both address families; `under` is a node's link, `w1`, `w2` … are the router's.
#[derive(Debug)]
pub struct Routed {
    /// The router.
    pub router: Namespace,
    /// The nodes, by number less one.
    pub nodes: Vec<Namespace>,
}

impl Routed {
    /// A router and `count` nodes. Pods there say nothing in IPv6 of their own accord.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn new(lab: &Lab, count: usize) -> Self {
        let router = lab.namespace("router");
        let mut lines = format!("address add {ROUTER}/32 dev lo\naddress add {ROUTER_V6}/128 dev lo nodad\n");
        let nodes: Vec<Namespace> = (1..=count).map(|n| lab.namespace(&format!("n{n}"))).collect();
        for (n, node) in (1..).zip(&nodes) {
            let _ = write!(
                lines,
                "link add name w{n} type veth peer name under netns {name}\naddress add fe80::1/64 dev w{n} nodad\n\
                 link set dev w{n} up\nroute add {v4}/32 dev w{n}\nroute add {v6}/128 dev w{n}\n",
                name = node.name(),
                v4 = v4(n),
                v6 = v6(n),
            );
        }
        router.inside(|| {
            set("ipv4/ip_forward", "1");
            set("ipv6/conf/all/forwarding", "1");
            // Its links have no addresses to tell of, and a made-up one would come a second late.
            set("ipv6/conf/default/addr_gen_mode", "1");
        });
        router.ip_batch(&lines);
        for (n, node) in (1..).zip(&nodes) {
            node.ip_batch(&format!(
                "address add {v4}/32 dev under\naddress add {v6}/128 dev under nodad\nlink set dev under up\n\
                 route add default via {ROUTER} dev under onlink\nroute add default via fe80::1 dev under\n",
                v4 = v4(n),
                v6 = v6(n),
            ));
            node.inside(|| {
                // A pod's address is its TAP's alone, though all are in one namespace.
                set("ipv4/conf/all/arp_ignore", "1");
                set("ipv6/conf/default/disable_ipv6", "1");
            });
        }
        Self { router, nodes }
    }

    /// Lets pods whose ports come from now on speak IPv6.
    pub fn with_ipv6(&self) {
        for node in &self.nodes {
            node.inside(|| set("ipv6/conf/default/disable_ipv6", "0"));
        }
    }

    /// Lets all pods forget whose MAC is whose.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn forget_neighbours(&self) {
        self.nodes.iter().for_each(|node| drop(node.ip("neigh flush all")));
    }

    /// Gives node `n` the address that node `as_if` would have, in IPv4, and takes its own away.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn move_to(&self, n: usize, as_if: usize) {
        let (old, new) = (v4(n), v4(as_if));
        self.router.ip_batch(&format!("route replace {new}/32 dev w{n}\n"));
        let node = &self.nodes[n - 1];
        node.ip_batch(&format!("address add {new}/32 dev under\naddress del {old}/32 dev under\n"));
        self.router.ip_batch(&format!("route del {old}/32 dev w{n}\n"));
    }

    /// Lets nothing pass between the nodes of `half` and the others, until [`Self::heal`]; all still reach the router,
    /// unless `alone`: then those of `half` do not.
    ///
    /// # Panics
    /// When nft fails.
    pub fn cut(&self, half: &[usize], alone: bool) {
        let names: Vec<String> = half.iter().map(|n| format!("w{n}")).collect();
        let links = names.join(",");
        let run = |words: &str| drop(self.router.run(&format!("nft {words}")));
        run("add table inet cut");
        run("add chain inet cut forward { type filter hook forward priority 0 ; }");
        run(&format!("add rule inet cut forward iifname {{ {links} }} oifname != {{ {links} }} drop"));
        run(&format!("add rule inet cut forward iifname != {{ {links} }} oifname {{ {links} }} drop"));
        if alone {
            run("add chain inet cut input { type filter hook input priority 0 ; }");
            run(&format!("add rule inet cut input iifname {{ {links} }} meta l4proto tcp drop"));
        }
    }

    /// Ends [`Self::cut`].
    ///
    /// # Panics
    /// When nothing was cut.
    pub fn heal(&self) {
        self.router.run("nft delete table inet cut");
    }

    /// What passes the router's link to node `n` from now on.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn wire(&self, n: usize) -> Wire {
        Wire::open(&self.router, &format!("w{n}"))
    }
}

/// Sets a parameter of the calling thread's namespace, where the kernel has it.
fn set(name: &str, value: &str) {
    let _ = std::fs::write(format!("/proc/sys/net/{name}"), value);
}
