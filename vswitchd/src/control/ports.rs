//! Opening a port's interface and keeping its settings: what the operating system does for one port.
//!
//! A TAP is created on the host and, when asked, moved to a network namespace and configured there; one that is
//! internal is its owner's to set up, and an interface that exists already is left as it is but for what is wished.
//! Not here: which ports there should be, and their numbers.

use crate::config::{PortConfig, PortKind};
use crate::keeper::Keeper;
use crate::link::{AnyLink, Link as _, LinkError, Packet, Source, Tap, open_or_adopt};
use crate::observe::log;
use crate::sys::netlink::{Change, Interface, Netlink};
use crate::sys::{netns, sysctl, tun};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use vswitch_core::Mac;

/// What an interface is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) mac: Mac,
    pub(super) mtu: u16,
    /// The largest superframe its kernel may make, if that is not left to it.
    pub(super) gso_max: Option<u32>,
}

/// Why a port is down.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    /// Its namespace is not there yet. Nothing is wrong.
    #[error("waiting for network namespace \"{0}\"")]
    Waiting(String),
    /// The operating system refused.
    #[error("{0}")]
    Refused(String),
}

impl PortError {
    fn at(what: &str) -> impl Fn(io::Error) -> Self + '_ {
        move |error| Self::Refused(format!("{what}: {error}"))
    }
}

/// Whether TAPs can be had at all; if not, what to do about it.
pub(super) fn tun_available() -> Result<(), String> {
    match File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(
            "/dev/net/tun may not be opened by this user: run as root, or give the user access to it and CAP_NET_ADMIN"
                .to_owned(),
        ),
        Err(_) => Err(LinkError::TunMissing.to_string()),
    }
}

/// An open interface, and what of its settings was refused, if anything.
pub(super) struct Opened {
    pub(super) link: AnyLink,
    pub(super) complaint: Option<String>,
}

/// Opens the interface of `config`. A TAP is kept, moved where it belongs, configured and, unless it is internal, set
/// up.
pub(super) fn open(
    config: &PortConfig,
    settings: Settings,
    keeper: &mut Keeper,
) -> Result<Opened, PortError> {
    match &config.kind {
        PortKind::Tap | PortKind::Internal => {
            let namespace = namespace_of(config)?;
            open_in(config, namespace.as_ref(), settings, keeper)
        }
        PortKind::System => {
            let packet = Packet::open(&config.name, config.offload.unwrap_or_default())
                .map_err(|error| PortError::Refused(error.to_string()))?;
            let complaint = adjust(config).err();
            Ok(Opened { link: AnyLink::Packet(packet), complaint })
        }
        PortKind::Patch { .. } | PortKind::Vxlan(_) => {
            Err(PortError::Refused(format!("a port of type \"{}\" has no interface", config.kind.as_str())))
        }
    }
}

/// Gives an interface that exists already what is wished of it, and leaves alone what is not.
fn adjust(config: &PortConfig) -> Result<(), String> {
    if config.mtu.is_none() && config.mac.is_none() {
        return Ok(());
    }
    let (mut netlink, interface) = inside(None, &config.name)?;
    let change = Change {
        mtu: config.mtu.map(u32::from).filter(|mtu| *mtu != interface.mtu),
        mac: config.mac.filter(|mac| interface.mac != Some(*mac)),
        ..Change::default()
    };
    if change.is_nothing() {
        return Ok(());
    }
    netlink
        .change(interface.index, &change)
        .map_err(|error| format!("configuring \"{}\": {error}", config.name))
}

/// A TAP's, where the namespace that it belongs to is open; `None`: the host's.
pub(super) fn open_in(
    config: &PortConfig,
    namespace: Option<&OwnedFd>,
    settings: Settings,
    keeper: &mut Keeper,
) -> Result<Opened, PortError> {
    let source = Source::Open { name: &config.name, offload: config.offload.unwrap_or_default() };
    let was_there = outlives(config) && is_there(&config.name).map_err(PortError::at("finding the tap"))?;
    let tap = open_or_adopt(source).map_err(|e| PortError::Refused(e.to_string()))?;
    // Before it is moved: whoever dies now leaves either no interface, or one that is found again.
    if let Some(fd) = tap.fd() {
        keep(keeper, &config.name, fd);
    }
    if was_there && let Some(fd) = tap.fd() {
        persist(&tap, config);
        let complaint = settle(fd, namespace, None, None, config, settings).err();
        return Ok(Opened { link: AnyLink::Tap(tap), complaint });
    }
    match place(config, namespace, settings) {
        Ok(ifname) => {
            // Not before: one that cannot be had should leave nothing.
            persist(&tap, config);
            let complaint = addresses(config, namespace, None, ifname).err();
            Ok(Opened { link: AnyLink::Tap(tap), complaint })
        }
        Err(error) => {
            drop(tap);
            keeper.forget(&config.name);
            Err(error)
        }
    }
}

/// Whether the interface of `config` stays when the daemon ends, as Open vSwitch's do: the host's own addresses may be
/// on it.
const fn outlives(config: &PortConfig) -> bool {
    config.bridge.is_some()
}

/// Whether the host has an interface called `name`.
fn is_there(name: &str) -> io::Result<bool> {
    Ok(Netlink::open()?.interface(name)?.is_some())
}

/// Has an interface outlive the daemon where it should. One that cannot ends with it; that is no reason to be without
/// it now.
fn persist(tap: &Tap, config: &PortConfig) {
    if outlives(config)
        && let Err(error) = tap.set_persistent(true)
    {
        let facts: [(&str, &dyn std::fmt::Display); 2] = [("port", &config.name), ("reason", &error)];
        log::limited(log::Level::Warn, "not-persistent", "port ends with the daemon", &facts);
    }
}

/// Has the interface behind `link`, which belongs to no port any more, go with its last descriptor.
pub(super) fn let_go(link: &AnyLink, config: &PortConfig) {
    if let AnyLink::Tap(tap) = link
        && outlives(config)
        && let Err(error) = tap.set_persistent(false)
    {
        log::warn(
            "the interface of a port that is gone stays",
            &[("port", &config.name), ("reason", &error)],
        );
    }
}

/// Gives a port's interface to the keeper. One that is not kept ends with this process; that is no reason to be
/// without it now.
pub(super) fn keep(keeper: &mut Keeper, name: &str, interface: BorrowedFd<'_>) {
    if let Err(error) = keeper.keep(name, interface) {
        let facts: [(&str, &dyn std::fmt::Display); 2] = [("port", &name), ("reason", &error)];
        log::limited(log::Level::Warn, "not-kept", "port not kept: it ends with the daemon", &facts);
    }
}

/// Moves the open interface of `config` where it belongs, configures it and, unless it is internal, sets it up; gives
/// its name there.
fn place<'a>(
    config: &'a PortConfig,
    namespace: Option<&OwnedFd>,
    settings: Settings,
) -> Result<&'a str, PortError> {
    let mut host = Netlink::open().map_err(PortError::at("opening netlink"))?;
    let interface = host
        .interface(&config.name)
        .map_err(PortError::at("finding the tap"))?
        .ok_or_else(|| PortError::Refused(format!("tap \"{}\" vanished while it was opened", config.name)))?;
    let ifname = config.interface();
    let change = Change {
        namespace: namespace.map(|namespace| namespace.as_fd()),
        name: (ifname != config.name).then_some(ifname),
        mtu: Some(u32::from(settings.mtu)),
        mac: Some(settings.mac),
        gso_max: settings.gso_max,
        up: (config.kind == PortKind::Tap).then_some(true),
    };
    host.change(interface.index, &change).map_err(|error| {
        let place = config.netns.as_ref().map_or(String::new(), |netns| format!(" in \"{netns}\""));
        PortError::Refused(match error.kind() {
            ErrorKind::AlreadyExists if namespace.is_some() => {
                format!(
                    "an interface \"{ifname}\" exists already{place}: choose another ifname, or delete it"
                )
            }
            _ => format!("configuring the tap{place}: {error}"),
        })
    })?;
    Ok(ifname)
}

/// Takes `descriptor`, which a keeper gave back, as the interface of `config`, and gives it what is wished of it. It
/// stays as it is wherever it is as wished: its index, its addresses and its routes are not touched.
///
/// # Errors
/// Why it cannot be that interface: it is no TAP or does not exist any more, its frames wear another header, it is
/// not in the namespace that the configuration says. It is closed then.
pub(super) fn adopt(config: &PortConfig, settings: Settings, descriptor: OwnedFd) -> Result<Opened, String> {
    let namespace = namespace_of(config).map_err(|error| error.to_string())?;
    adopt_in(config, namespace.as_ref(), settings, descriptor)
}

/// The same where the namespace that it belongs to is open; `None`: the host's.
pub(super) fn adopt_in(
    config: &PortConfig,
    namespace: Option<&OwnedFd>,
    settings: Settings,
    descriptor: OwnedFd,
) -> Result<Opened, String> {
    let tap = open_or_adopt(Source::Adopt(descriptor)).map_err(|error| error.to_string())?;
    let [header, ..] = tap.offload();
    if header != config.offload.unwrap_or_default() {
        let has = if header { "with" } else { "without" };
        return Err(format!("it was opened {has} offload"));
    }
    let fd = tap.fd().ok_or("it has no descriptor")?;
    persist(&tap, config);
    if !is_in(fd, namespace)? {
        if config.kind == PortKind::Internal {
            // Its owner moved it, and has set it up there.
            return Ok(Opened { link: AnyLink::Tap(tap), complaint: None });
        }
        return Err("it is in another network namespace".to_owned());
    }
    let complaint = settle(fd, namespace, Some(config.interface()), None, config, settings).err();
    Ok(Opened { link: AnyLink::Tap(tap), complaint })
}

/// Gives the open interface of a port new settings; it was `old` until now. One that somebody moved elsewhere is
/// theirs to configure.
pub(super) fn reconfigure(
    link: &AnyLink,
    old: &PortConfig,
    config: &PortConfig,
    settings: Settings,
) -> Result<(), String> {
    if let AnyLink::Packet(_) = link {
        return adjust(config);
    }
    let Some(fd) = link.fd() else { return Ok(()) };
    let namespace = namespace_of(config).map_err(|error| error.to_string())?;
    if !is_in(fd, namespace.as_ref())? {
        return Ok(());
    }
    // Whoever renamed it meant it: its present name counts.
    settle(fd, namespace.as_ref(), None, Some(old), config, settings)
}

/// Whether the interface of `tap` is in `namespace`; `None`: the host's.
pub(super) fn is_in(tap: BorrowedFd<'_>, namespace: Option<&OwnedFd>) -> Result<bool, String> {
    let id = |namespace: io::Result<OwnedFd>| namespace.and_then(|namespace| netns::id(namespace.as_fd()));
    let there = id(tun::namespace(tap)).map_err(|error| format!("asking where the tap is: {error}"))?;
    let meant = match namespace {
        Some(namespace) => netns::id(namespace.as_fd()),
        None => id(netns::current()),
    };
    Ok(there == meant.map_err(|error| format!("asking where the tap should be: {error}"))?)
}

/// Gives the interface of `tap`, which is in `namespace`, what it lacks of what is wished. The namespace is entered
/// only where something is to be changed in it: that takes CAP_SYS_ADMIN.
fn settle(
    tap: BorrowedFd<'_>,
    namespace: Option<&OwnedFd>,
    ifname: Option<&str>,
    old: Option<&PortConfig>,
    config: &PortConfig,
    settings: Settings,
) -> Result<(), String> {
    let mut name = tun::attached(tap).map_err(|error| format!("asking for the tap's name: {error}"))?.name;
    let mut host = Netlink::open().map_err(|error| error.to_string())?;
    let found = match namespace {
        Some(namespace) => host.interface_in(namespace.as_fd(), &name),
        None => host.interface(&name),
    };
    let interface = found
        .map_err(|error| format!("finding \"{name}\": {error}"))?
        .ok_or_else(|| format!("no interface \"{name}\" there: somebody moved or renamed it"))?;
    // What nobody wishes of an internal one its owner may have changed: that stands until what follows from its bridge
    // changes.
    let owned = config.kind == PortKind::Internal;
    let mtu = if owned && old.is_none() { config.mtu } else { Some(settings.mtu) }.map(u32::from);
    let is_local = config.bridge.as_ref() == Some(&config.name);
    let mac = if owned && !is_local { config.mac } else { Some(settings.mac) };
    let change = Change {
        namespace: None,
        name: ifname.filter(|ifname| *ifname != name),
        mtu: mtu.filter(|wished| interface.mtu != *wished),
        mac: mac.filter(|wished| interface.mac != Some(*wished)),
        gso_max: settings.gso_max.filter(|wished| interface.gso_max != Some(*wished)),
        up: (!owned && !interface.up).then_some(true),
    };
    if !change.is_nothing() {
        let (mut netlink, interface) = inside(namespace, &name)?;
        netlink
            .change(interface.index, &change)
            .map_err(|error| format!("configuring \"{name}\": {error}"))?;
        name = change.name.map_or(name, str::to_owned);
    }
    addresses(config, namespace, old, &name)
}

/// Puts addresses and gateways in place and takes those of `old` away that are not wanted any more.
fn addresses(
    config: &PortConfig,
    namespace: Option<&OwnedFd>,
    old: Option<&PortConfig>,
    ifname: &str,
) -> Result<(), String> {
    let has_any = |config: &PortConfig| !(config.addresses.is_empty() && config.gateways.is_empty());
    if !has_any(config) && !old.is_some_and(has_any) {
        return Ok(());
    }
    let (mut netlink, interface) = inside(namespace, ifname)?;
    let old_gateways = old.map_or(&[][..], |old| &old.gateways);
    for gateway in old_gateways.iter().filter(|gateway| !config.gateways.contains(gateway)) {
        netlink
            .delete_gateway(interface.index, *gateway)
            .map_err(|error| format!("removing gateway {gateway}: {error}"))?;
    }
    let old_addresses = old.map_or(&[][..], |old| &old.addresses);
    for (address, len) in old_addresses.iter().filter(|address| !config.addresses.contains(address)) {
        netlink
            .delete_address(interface.index, *address, *len)
            .map_err(|error| format!("removing address {address}/{len}: {error}"))?;
    }
    if config.addresses.iter().any(|(address, _)| address.is_ipv6()) {
        let allowed = match namespace {
            Some(namespace) => netns::within(namespace.as_fd(), || sysctl::allow_ipv6(ifname)).flatten(),
            None => sysctl::allow_ipv6(ifname),
        };
        allowed.map_err(|error| format!("allowing IPv6: {error}"))?;
    }
    for (address, len) in &config.addresses {
        netlink
            .add_address(interface.index, *address, *len)
            .map_err(|error| format!("setting address {address}/{len}: {error}"))?;
    }
    for gateway in &config.gateways {
        netlink
            .set_gateway(interface.index, *gateway)
            .map_err(|error| format!("setting gateway {gateway}: {error}"))?;
    }
    Ok(())
}

fn inside(namespace: Option<&OwnedFd>, ifname: &str) -> Result<(Netlink, Interface), String> {
    let opened = match namespace {
        Some(namespace) => Netlink::open_in(namespace.as_fd()),
        None => Netlink::open(),
    };
    let mut netlink = opened.map_err(|error| error.to_string())?;
    let interface = netlink
        .interface(ifname)
        .map_err(|error| format!("finding \"{ifname}\": {error}"))?
        .ok_or_else(|| format!("no interface \"{ifname}\" there: somebody moved or renamed it"))?;
    Ok((netlink, interface))
}

fn namespace_of(config: &PortConfig) -> Result<Option<OwnedFd>, PortError> {
    let Some(name) = &config.netns else { return Ok(None) };
    match netns::open(name) {
        Ok(namespace) => Ok(Some(namespace)),
        // While it is being made, its file is there and is no namespace yet.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
            Err(PortError::Waiting(name.clone()))
        }
        Err(error) => Err(PortError::at("opening the network namespace")(error)),
    }
}
