//! Routes of a network namespace beyond the default ones: set, list. Which ones there should be is decided
//! elsewhere.

use super::{Netlink, family_of};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A unicast route (rtnetlink(7), RTM_NEWROUTE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads: the first address of the prefix.
    pub destination: IpAddr,
    /// The prefix's length; 0 is a default route.
    pub prefix_len: u8,
    /// The next hop; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The interface by which it leaves.
    pub index: u32,
    /// The path's MTU in bytes of IP packet, where it is not the interface's.
    pub mtu: Option<u32>,
    /// The largest segment that TCP is to announce, in bytes, where it is not the MTU's.
    pub advmss: Option<u32>,
    /// Its metric: of two routes to one destination the lower wins. `None`: the kernel's (0, of IPv6 1024).
    pub metric: Option<u32>,
    /// The routing table; `None` is the main one.
    pub table: Option<u32>,
    /// How far the destination is: 0 anywhere, 253 on the link, 254 this host. `None`: as the gateway says. Without
    /// meaning in IPv6.
    pub scope: Option<u8>,
}

impl Netlink {
    /// Adds `route`. `AlreadyExists`: there is one to that destination, by whatever way, with that metric and in that
    /// table; ENETUNREACH or EHOSTUNREACH: no address of the interface reaches the gateway.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRoute(message(route));
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, drop)
    }

    /// All unicast routes of both families that leave by one interface, in every table but the kernel's own one of
    /// local addresses.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut all = Vec::new();
        for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let mut asked = RouteMessage::default();
            asked.header.address_family = family_of(any);
            self.request(RouteNetlinkMessage::GetRoute(asked), NLM_F_DUMP, |answer| {
                if let RouteNetlinkMessage::NewRoute(message) = answer {
                    all.extend(describe(any, &message));
                }
            })?;
        }
        Ok(all)
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(route.destination);
    message.header.destination_prefix_length = route.prefix_len;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match (route.scope, route.gateway) {
        (Some(scope), _) => RouteScope::from(scope),
        (None, Some(_)) => RouteScope::Universe,
        (None, None) => RouteScope::Link,
    };
    message.header.table = match route.table.map(u8::try_from) {
        None => RouteHeader::RT_TABLE_MAIN,
        Some(Ok(table)) => table,
        Some(Err(_)) => RouteHeader::RT_TABLE_UNSPEC,
    };
    let attributes = &mut message.attributes;
    attributes.extend(route.table.map(RouteAttribute::Table));
    if route.prefix_len > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.into()));
    }
    attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    attributes.push(RouteAttribute::Oif(route.index));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    let metrics: Vec<RouteMetric> =
        route.mtu.map(RouteMetric::Mtu).into_iter().chain(route.advmss.map(RouteMetric::Advmss)).collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

fn describe(any: IpAddr, message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route {
        destination: any,
        prefix_len: header.destination_prefix_length,
        gateway: None,
        index: 0,
        mtu: None,
        advmss: None,
        metric: None,
        table: Some(header.table.into()),
        scope: Some(header.scope.into()),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(destination) => route.destination = address(destination)?,
            RouteAttribute::Gateway(gateway) => route.gateway = address(gateway),
            RouteAttribute::Oif(index) => route.index = *index,
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            RouteAttribute::Table(table) => route.table = Some(*table),
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => route.mtu = Some(*mtu),
                        RouteMetric::Advmss(bytes) => route.advmss = Some(*bytes),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    route.table = route.table.filter(|table| *table != u32::from(RouteHeader::RT_TABLE_MAIN));
    (route.index != 0).then_some(route)
}

const fn address(of: &RouteAddress) -> Option<IpAddr> {
    match of {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
