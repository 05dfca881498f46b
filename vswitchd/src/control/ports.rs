//! Opening a port's interface and keeping its settings: what the operating system does for one port.
//!
//! A TAP is created on the host and, when asked, moved to a network namespace and configured there. Not here:
//! which ports there should be, and their numbers.

use crate::config::PortConfig;
use crate::link::{AnyLink, Link as _, LinkError, Source, Tap, open_or_adopt};
use crate::sys::netlink::{Change, Interface, Netlink};
use crate::sys::{netns, tun};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};
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

/// An open TAP, and what of its settings was refused, if anything.
pub(super) struct Opened {
    pub(super) tap: Tap,
    pub(super) complaint: Option<String>,
}

/// Opens the interface of `config`, moves it where it belongs, configures it and sets it up.
pub(super) fn open(config: &PortConfig, settings: Settings) -> Result<Opened, PortError> {
    let namespace = namespace_of(config)?;
    let source = Source::Open { name: &config.name, offload: config.offload.unwrap_or_default() };
    let tap = open_or_adopt(source).map_err(|e| PortError::Refused(e.to_string()))?;
    let mut host = Netlink::open().map_err(PortError::at("opening netlink"))?;
    let interface = host
        .interface(&config.name)
        .map_err(PortError::at("finding the tap"))?
        .ok_or_else(|| PortError::Refused(format!("tap \"{}\" vanished while it was opened", config.name)))?;
    let ifname = config.netns.as_ref().map(|_| config.ifname.as_deref().unwrap_or(&config.name));
    let change = Change {
        namespace: namespace.as_ref().map(|namespace| namespace.as_fd()),
        name: ifname.filter(|ifname| *ifname != config.name),
        mtu: Some(u32::from(settings.mtu)),
        mac: Some(settings.mac),
        gso_max: settings.gso_max,
        up: Some(true),
    };
    host.change(interface.index, &change).map_err(|error| {
        let place = config.netns.as_ref().map_or(String::new(), |netns| format!(" in \"{netns}\""));
        PortError::Refused(match (error.kind(), ifname) {
            (ErrorKind::AlreadyExists, Some(ifname)) => {
                format!(
                    "an interface \"{ifname}\" exists already{place}: choose another ifname, or delete it"
                )
            }
            _ => format!("configuring the tap{place}: {error}"),
        })
    })?;
    let complaint = addresses(config, namespace.as_ref(), None, ifname.unwrap_or(&config.name)).err();
    Ok(Opened { tap, complaint })
}

/// Gives the open interface of a port new settings; it was `old` until now. One that somebody moved elsewhere is
/// theirs to configure.
pub(super) fn reconfigure(
    link: &AnyLink,
    old: &PortConfig,
    config: &PortConfig,
    settings: Settings,
) -> Result<(), String> {
    let Some(fd) = link.fd() else { return Ok(()) };
    let namespace = namespace_of(config).map_err(|error| error.to_string())?;
    let id = |namespace: io::Result<OwnedFd>| namespace.and_then(|namespace| netns::id(namespace.as_fd()));
    let there = id(tun::namespace(fd)).map_err(|error| format!("asking where the tap is: {error}"))?;
    let meant = match &namespace {
        Some(namespace) => netns::id(namespace.as_fd()),
        None => id(netns::current()),
    };
    if there != meant.map_err(|error| format!("asking where the tap should be: {error}"))? {
        return Ok(());
    }
    // Whoever renamed it meant it: its present name counts.
    let name = tun::attached(fd).map_err(|error| format!("asking for the tap's name: {error}"))?.name;
    let (mut netlink, interface) = inside(namespace.as_ref(), &name)?;
    let change = Change {
        mtu: Some(u32::from(settings.mtu)),
        mac: (interface.mac != Some(settings.mac)).then_some(settings.mac),
        gso_max: settings.gso_max,
        up: Some(true),
        ..Change::default()
    };
    netlink.change(interface.index, &change).map_err(|error| format!("configuring \"{name}\": {error}"))?;
    addresses(config, namespace.as_ref(), Some(old), &name)
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
