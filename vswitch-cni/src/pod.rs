//! The pod's side: addresses and routes of its interface, set and looked at by netlink inside its namespace.
//!
//! They are the kernel's from then on: neither this process nor the daemon is needed to keep them.

use crate::error::CniError;
use crate::net::{Address, Cidr, Route};
use crate::result::Expected;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use vswitch_core::Mac;
use vswitchd::sys::netlink::{Change, Interface, Netlink, Route as KernelRoute};
use vswitchd::sys::{netns, sysctl};

/// Opens the pod's network namespace.
///
/// # Errors
/// [`CniError::UNKNOWN_CONTAINER`] when it is gone, [`CniError::ENVIRONMENT`] when `path` is something else, or
/// the host's own.
pub fn open(path: &str) -> Result<OwnedFd, CniError> {
    let wrong = |what: &str| CniError::new(CniError::ENVIRONMENT, format!("CNI_NETNS is {path:?}: {what}"));
    if !path.contains('/') {
        return Err(wrong("expected a path"));
    }
    let namespace = netns::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => CniError::new(
            CniError::UNKNOWN_CONTAINER,
            format!("CNI_NETNS is {path:?}: there is no such namespace"),
        ),
        _ => wrong(&error.to_string()),
    })?;
    let same = || Ok::<_, io::Error>(netns::id(namespace.as_fd())? == netns::id(netns::current()?.as_fd())?);
    match same() {
        Ok(false) => Ok(namespace),
        Ok(true) => Err(wrong("that is the namespace this plugin runs in, not a pod's")),
        Err(error) => Err(wrong(&error.to_string())),
    }
}

/// Gives interface `ifname` in `namespace` its addresses and routes, and tells the neighbours. Where somebody
/// else's route leads already, none is set: the first one stands, as when another network of the pod has its default
/// route. Gives the interface's own routes, with their gateways.
///
/// # Errors
/// [`CniError::INTERFACE`], with what the kernel said. What was set before stays set.
pub fn equip(
    namespace: BorrowedFd<'_>,
    ifname: &str,
    addresses: &[Address],
    routes: &[Route],
) -> Result<Vec<Route>, CniError> {
    inside(namespace, || {
        let mut netlink = Netlink::open().map_err(|error| failed("netlink", &error))?;
        let interface = find(&mut netlink, ifname)?;
        if addresses.iter().any(|address| address.cidr.address.is_ipv6()) {
            sysctl::allow_ipv6(ifname).map_err(|error| failed(&format!("IPv6 of {ifname}"), &error))?;
        }
        for Address { cidr, .. } in addresses {
            netlink
                .add_address(interface.index, cidr.address, cidr.len)
                .map_err(|error| failed(&format!("address {cidr} of {ifname}"), &error))?;
        }
        let mut set = Vec::new();
        for route in routes {
            let gateway = |v4| addresses.iter().filter_map(|of| of.gateway).find(|of| of.is_ipv4() == v4);
            let on_link = route.scope.is_some_and(|scope| scope >= SCOPE_LINK);
            let gw = route.gw.or_else(|| gateway(route.dst.address.is_ipv4()).filter(|_| !on_link));
            let route = Route { gw, ..*route };
            match netlink.add_route(&kernel_route(&route, interface.index)) {
                Ok(()) => set.push(route),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    let all = netlink.routes().map_err(|error| failed("routes", &error))?;
                    let ours = |of: &KernelRoute| of.index == interface.index && is_there(&route, of);
                    set.extend(all.iter().any(ours).then_some(route));
                }
                Err(error) => {
                    let by = route.gw.map(|gw| format!(" by {gw}")).unwrap_or_default();
                    return Err(failed(&format!("route to {}{by}", route.dst), &error));
                }
            }
        }
        if !addresses.is_empty() {
            announce(&mut netlink, &interface);
        }
        Ok(set)
    })
}

/// What is not as `expected` of interface `ifname` in `namespace`; its MAC address must be `mac` where one is given.
///
/// # Errors
/// [`CniError::REFUSED`], which names what is missing.
pub fn compare(
    namespace: BorrowedFd<'_>,
    ifname: &str,
    expected: &Expected,
    mac: Option<&str>,
) -> Result<(), CniError> {
    let wrong = |what: String| Err(CniError::new(CniError::REFUSED, what));
    inside(namespace, || {
        let mut netlink = Netlink::open().map_err(|error| failed("netlink", &error))?;
        let interface = find(&mut netlink, ifname)?;
        if !interface.up {
            return wrong(format!("{ifname} is down"));
        }
        let actual = interface.mac.map(|mac| mac.to_string()).unwrap_or_default();
        for mac in [expected.mac.as_deref(), mac].into_iter().flatten() {
            if mac.parse::<Mac>().ok() != interface.mac {
                return wrong(format!("the MAC address of {ifname} is {actual}; expected {mac}"));
            }
        }
        let assigned = netlink.addresses().map_err(|error| failed("addresses", &error))?;
        for Cidr { address, len } in &expected.addresses {
            let is = |of: &vswitchd::sys::netlink::Assigned| {
                of.index == interface.index && of.address == *address && of.prefix_len == *len
            };
            if !assigned.iter().any(is) {
                return wrong(format!("{ifname} does not have its address {address}/{len}"));
            }
        }
        let routes = netlink.routes().map_err(|error| failed("routes", &error))?;
        for route in &expected.routes {
            if !routes.iter().any(|of| is_there(route, of)) {
                let by = route.gw.map(|gw| format!(" by {gw}")).unwrap_or_default();
                return wrong(format!("the route to {}{by} is missing", route.dst));
            }
        }
        Ok(())
    })
}

/// RT_TABLE_MAIN of rtnetlink(7).
const MAIN_TABLE: u32 = 254;

/// RT_SCOPE_LINK of rtnetlink(7): nobody forwards what goes no further.
const SCOPE_LINK: u8 = 253;

fn inside<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, CniError> + Send,
) -> Result<T, CniError> {
    netns::within(namespace, work).map_err(|error| failed("the namespace", &error))?
}

fn find(netlink: &mut Netlink, ifname: &str) -> Result<Interface, CniError> {
    netlink
        .interface(ifname)
        .map_err(|error| failed(ifname, &error))?
        .ok_or_else(|| CniError::new(CniError::INTERFACE, format!("the namespace has no interface {ifname}")))
}

fn failed(what: &str, error: &io::Error) -> CniError {
    CniError::new(CniError::INTERFACE, format!("{what}: {error}"))
}

fn kernel_route(route: &Route, index: u32) -> KernelRoute {
    KernelRoute {
        destination: route.dst.network(),
        prefix_len: route.dst.len,
        gateway: route.gw.filter(|gw: &IpAddr| !gw.is_unspecified()),
        index,
        mtu: route.mtu,
        advmss: route.advmss,
        metric: route.priority,
        table: route.table,
        scope: route.scope,
    }
}

/// Whether `of` is `route`, as far as that says.
fn is_there(route: &Route, of: &KernelRoute) -> bool {
    of.destination == route.dst.network()
        && of.prefix_len == route.dst.len
        && of.table == route.table.filter(|table| *table != MAIN_TABLE)
        && (route.gw.is_none() || of.gateway == route.gw)
        && (route.priority.is_none() || of.metric == route.priority)
}

fn setting(family: &str, ifname: &str, name: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(family).join("conf").join(ifname).join(name)
}

/// Lets the kernel tell the neighbours who has the addresses now (RFC 5227 §2.3, RFC 4861 §7.2.6): one of them may
/// have belonged to another pod a moment ago. It does so when an interface's MAC address is set, to the same one too.
/// Where it cannot be asked for, neighbours find out when their entries age.
fn announce(netlink: &mut Netlink, interface: &Interface) {
    for (family, name) in [("ipv4", "arp_notify"), ("ipv6", "ndisc_notify")] {
        drop(std::fs::write(setting(family, &interface.name, name), "1"));
    }
    drop(netlink.change(interface.index, &Change { mac: interface.mac, ..Change::default() }));
}
