//! rtnetlink: interfaces, addresses and routes of a network namespace.
//!
//! A [`Netlink`] speaks to the namespace it was opened in, from whatever thread. Every request waits for the
//! kernel's answer; an error carries the kernel's errno. What a TAP should look like is decided elsewhere.

mod facts;
mod route;

pub use facts::Facts;
pub use route::Route;

use super::netns;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use vswitch_core::Mac;

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number, in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address, if it is an Ethernet interface.
    pub mac: Option<Mac>,
    /// Its MTU in bytes of IP packet.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// The largest superframe it may be given, in bytes with headers, where the kernel says.
    pub gso_max: Option<u32>,
}

/// An address of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix.
    pub prefix_len: u8,
    /// The interface that has it.
    pub index: u32,
    /// That interface's name.
    pub interface: String,
    /// That interface's MTU.
    pub mtu: u32,
}

/// What to change of an interface; `None` leaves a thing as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// The namespace to move it to. From then on its index and name are that namespace's.
    pub namespace: Option<BorrowedFd<'a>>,
    /// Its new name, 1..=15 bytes.
    pub name: Option<&'a str>,
    /// Its new MTU.
    pub mtu: Option<u32>,
    /// Its new MAC address.
    pub mac: Option<Mac>,
    /// The largest superframe it may be given, in bytes with headers.
    pub gso_max: Option<u32>,
    /// Up or down.
    pub up: Option<bool>,
}

impl Change<'_> {
    /// Whether it leaves everything as it is.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        matches!(self, Self { namespace: None, name: None, mtu: None, mac: None, gso_max: None, up: None })
    }
}

/// A connection to the kernel's routing tables of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// To the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// To `namespace`. `PermissionDenied`, with a sentence, without CAP_SYS_ADMIN.
    pub fn open_in(namespace: BorrowedFd<'_>) -> io::Result<Self> {
        netns::within(namespace, Self::open)?
    }

    /// The interface called `name`; `None` when there is none.
    pub fn interface(&mut self, name: &str) -> io::Result<Option<Interface>> {
        self.named(vec![LinkAttribute::IfName(name.to_owned())])
    }

    fn named(&mut self, attributes: Vec<LinkAttribute>) -> io::Result<Option<Interface>> {
        Ok(self.link(attributes)?.as_ref().map(describe))
    }

    fn link(&mut self, attributes: Vec<LinkAttribute>) -> io::Result<Option<LinkMessage>> {
        let mut message = LinkMessage::default();
        message.attributes = attributes;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut found = None;
        let asked = self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                found = Some(link);
            }
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            asked => asked.map(|()| found),
        }
    }

    /// The interface called `name` of `namespace`, which is not entered: CAP_NET_ADMIN here and over the namespace is
    /// enough (IFLA_TARGET_NETNSID, Linux 4.16). The namespace gets a number in this one, if it has none yet.
    pub fn interface_in(&mut self, namespace: BorrowedFd<'_>, name: &str) -> io::Result<Option<Interface>> {
        let id = match self.namespace_number(namespace)? {
            Some(id) => id,
            None => {
                self.number_namespace(namespace)?;
                self.namespace_number(namespace)?.ok_or(io::ErrorKind::NotFound)?
            }
        };
        self.named(vec![LinkAttribute::IfNetnsId(id), LinkAttribute::IfName(name.to_owned())])
    }

    /// The number that `namespace` has in this one, if any (RTM_GETNSID).
    fn namespace_number(&mut self, namespace: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        let message = RouteNetlinkMessage::GetNsId(nsid_message(namespace)?);
        let mut number = None;
        self.request(message, NLM_F_ACK, |answer| {
            let RouteNetlinkMessage::NewNsId(message) = answer else { return };
            number = message.attributes.iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                _ => None,
            });
        })?;
        Ok(number)
    }

    /// Gives `namespace` a number in this one (RTM_NEWNSID). That it has one is no error.
    fn number_namespace(&mut self, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut message = nsid_message(namespace)?;
        // Any.
        message.attributes.push(NsidAttribute::Id(-1));
        match self.request(RouteNetlinkMessage::NewNsId(message), NLM_F_ACK, drop) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            numbered => numbered,
        }
    }

    /// All interfaces.
    pub fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut all = Vec::new();
        self.request(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                all.push(describe(&link));
            }
        })?;
        Ok(all)
    }

    /// Changes interface `index` in one request. The kernel moves it first and sets it up last; what came
    /// before a refused step stays done. EEXIST: the new name is taken (one that moves is then in its new
    /// namespace, down, under its old name); ENODEV: no such interface.
    pub fn change(&mut self, index: u32, change: &Change<'_>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let attributes = &mut message.attributes;
        attributes.extend(change.namespace.map(|namespace| LinkAttribute::NetNsFd(namespace.as_raw_fd())));
        attributes.extend(change.name.map(|name| LinkAttribute::IfName(name.to_owned())));
        attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.bytes().to_vec())));
        attributes.extend(change.gso_max.map(LinkAttribute::GsoMaxSize));
        if let Some(up) = change.up {
            message.header.flags.set(LinkFlags::Up, up);
            message.header.change_mask = LinkFlags::Up;
        }
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK, drop)
    }

    /// Makes a pair of Ethernet interfaces, each the other's wire: one called `name` here, one called `far_name`
    /// in `far_namespace`, both down. They go together, or with either namespace.
    pub fn add_veth(&mut self, name: &str, far_name: &str, far_namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut far = LinkMessage::default();
        far.attributes.push(LinkAttribute::IfName(far_name.to_owned()));
        far.attributes.push(LinkAttribute::NetNsFd(far_namespace.as_raw_fd()));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(RouteNetlinkMessage::NewLink(message), flags, drop)
    }

    /// Deletes interface `index`.
    pub fn delete(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.request(RouteNetlinkMessage::DelLink(message), NLM_F_ACK, drop)
    }

    /// Gives interface `index` an address, without duplicate address detection: it can be bound at once. For an
    /// IPv6 one the kernel adds the route by which frames reach it a moment later, from a work queue. That the
    /// interface has the address already is no error.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        let message = address_message(index, address, prefix_len);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.request(RouteNetlinkMessage::NewAddress(message), flags, drop) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            added => added,
        }
    }

    /// Takes an address from interface `index`. That it does not have it is no error.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix_len: u8) -> io::Result<()> {
        let message = address_message(index, address, prefix_len);
        match self.request(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK, drop) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
            deleted => deleted,
        }
    }

    /// All addresses of the namespace, with their interfaces.
    pub fn addresses(&mut self) -> io::Result<Vec<Assigned>> {
        let interfaces = self.interfaces()?;
        let mut all = Vec::new();
        self.request(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP, |answer| {
            let RouteNetlinkMessage::NewAddress(message) = answer else { return };
            // While duplicates are looked for nobody may bind it: it is not there yet.
            let flags = message.header.flags;
            if flags.contains(AddressHeaderFlags::Tentative)
                && !flags.contains(AddressHeaderFlags::Optimistic)
            {
                return;
            }
            // On a point-to-point link ADDRESS is the other end; LOCAL, where given, is always ours.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = local.or_else(|| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
            });
            let interface = interfaces.iter().find(|interface| interface.index == message.header.index);
            if let (Some(address), Some(interface)) = (address, interface) {
                all.push(Assigned {
                    address,
                    prefix_len: message.header.prefix_len,
                    index: interface.index,
                    interface: interface.name.clone(),
                    mtu: interface.mtu,
                });
            }
        })?;
        Ok(all)
    }

    /// Makes `gateway` the default route of its family, through interface `index`. A default route through
    /// that interface by another gateway is replaced; one through another interface is left alone, and the
    /// error is `AlreadyExists`. ENETUNREACH: no address of the interface reaches the gateway.
    pub fn set_gateway(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let message = RouteNetlinkMessage::NewRoute(default_route(index, gateway));
        let add = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.request(message.clone(), add, drop) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.default_interfaces(gateway)?.contains(&index) {
                    self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, drop)
                } else {
                    Err(error)
                }
            }
            set => set,
        }
    }

    /// Removes the default route by `gateway` through interface `index`; there being none is fine.
    pub fn delete_gateway(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let message = RouteNetlinkMessage::DelRoute(default_route(index, gateway));
        match self.request(message, NLM_F_ACK, drop) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            deleted => deleted,
        }
    }

    /// The gateways of default routes through interface `index`, of both families.
    pub fn gateways(&mut self, index: u32) -> io::Result<Vec<IpAddr>> {
        let mut all = Vec::new();
        for family in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            self.default_routes(family, |oif, gateway| {
                all.extend(gateway.filter(|_| oif == Some(index)));
            })?;
        }
        Ok(all)
    }

    fn default_interfaces(&mut self, family: IpAddr) -> io::Result<Vec<u32>> {
        let mut all = Vec::new();
        self.default_routes(family, |oif, _| all.extend(oif))?;
        Ok(all)
    }

    fn default_routes(
        &mut self,
        family: IpAddr,
        mut each: impl FnMut(Option<u32>, Option<IpAddr>),
    ) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family_of(family);
        self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP, |answer| {
            let RouteNetlinkMessage::NewRoute(route) = answer else { return };
            let header = &route.header;
            if header.destination_prefix_length != 0 || header.table != RouteHeader::RT_TABLE_MAIN {
                return;
            }
            let (mut oif, mut gateway) = (None, None);
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => oif = Some(*index),
                    RouteAttribute::Gateway(RouteAddress::Inet(v4)) => gateway = Some(IpAddr::V4(*v4)),
                    RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
                    _ => {}
                }
            }
            each(oif, gateway);
        })
    }

    /// Sends `message` and hands every answer to `each` until the kernel says that it was the last.
    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        // The kernel puts as many answers into one datagram as fit into what the last one was read into.
        let mut bytes = Vec::with_capacity(DATAGRAM);
        loop {
            bytes.clear();
            match self.socket.recv(&mut bytes, libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(len) if len > DATAGRAM => return Err(io::ErrorKind::InvalidData.into()),
                received => received?,
            };
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let buffer = NetlinkBuffer::new_checked(rest).map_err(garbled)?;
                let (ours, len) = (buffer.sequence_number() == self.sequence, buffer.length() as usize);
                // Messages are aligned to four bytes; the last one need not be padded.
                let (this, next) = (&rest[..len], len.next_multiple_of(4).min(rest.len()));
                rest = &rest[next..];
                if !ours {
                    continue;
                }
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(this).map_err(garbled)?.payload {
                    NetlinkPayload::InnerMessage(answer) => each(answer),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(()),
                    _ => {}
                }
            }
        }
    }
}

/// The largest datagram that is read. The kernel makes answers of up to 32 KiB, and single ones of up to 64.
const DATAGRAM: usize = 128 << 10;

fn garbled(error: netlink_packet_core::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn describe(message: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        gso_max: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::GsoMaxSize(bytes) => interface.gso_max = Some(*bytes),
            LinkAttribute::Address(bytes) => {
                interface.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac::new);
            }
            _ => {}
        }
    }
    interface
}

const fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn nsid_message(namespace: BorrowedFd<'_>) -> io::Result<NsidMessage> {
    let fd = u32::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?;
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(fd));
    Ok(message)
}

fn address_message(index: u32, address: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.prefix_len = prefix_len;
    message.header.index = index;
    message.header.scope = match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => AddressScope::Link,
        _ => AddressScope::Universe,
    };
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    if let IpAddr::V4(v4) = address
        && prefix_len < 31
    {
        let hosts = u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
        let broadcast = Ipv4Addr::from_bits(v4.to_bits() | hosts);
        message.attributes.push(AddressAttribute::Broadcast(broadcast));
    }
    message
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    message.attributes.push(RouteAttribute::Oif(index));
    message
}
