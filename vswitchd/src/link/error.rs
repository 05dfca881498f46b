//! Why a link could not be had, each with what to do about it.

use std::io;
use std::net::IpAddr;

/// Why a link could not be opened or adopted.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Longer than the kernel's IFNAMSIZ allows.
    #[error("interface name \"{name}\" has {} bytes: at most 15 are allowed", name.len())]
    NameTooLong {
        /// The name.
        name: String,
    },
    /// Not a name the kernel accepts.
    #[error(
        "\"{name}\" is no interface name: 1 to 15 bytes without '/', ':', '%', blanks, and not \".\" or \"..\""
    )]
    NameInvalid {
        /// The name.
        name: String,
    },
    /// Another descriptor is attached to it.
    #[error("tap \"{name}\" is in use by another process: stop that process, or choose another name")]
    Busy {
        /// The TAP's name.
        name: String,
    },
    /// An interface of that name exists and is something else.
    #[error("interface \"{name}\" exists and is no single-queue TAP: delete it, or choose another name")]
    NotTap {
        /// The interface's name.
        name: String,
    },
    /// CAP_NET_ADMIN is missing.
    #[error(
        "tap \"{name}\" may not be opened: run as root, or grant CAP_NET_ADMIN (setcap cap_net_admin+ep) and access to /dev/net/tun"
    )]
    NotPermitted {
        /// The TAP's name.
        name: String,
    },
    /// There is no interface of that name.
    #[error("could not open network device {name} (No such device)")]
    NoSuchDevice {
        /// The name.
        name: String,
    },
    /// CAP_NET_RAW is missing.
    #[error(
        "could not open network device {name} (Operation not permitted): run as root, or grant CAP_NET_RAW (setcap cap_net_raw+ep)"
    )]
    RawNotPermitted {
        /// The interface's name.
        name: String,
    },
    /// Its frames have no Ethernet header.
    #[error("interface \"{name}\" carries no Ethernet frames (a TUN, a tunnel of IP?): choose another")]
    NotEthernet {
        /// The interface's name.
        name: String,
    },
    /// No tun driver, or no door to it.
    #[error(
        "/dev/net/tun is missing: load the driver (modprobe tun); in a container, pass the device in (--device /dev/net/tun)"
    )]
    TunMissing,
    /// A descriptor that was handed over is of the wrong kind.
    #[error(
        "the descriptor handed over is {what}: expected one of /dev/net/tun, attached as IFF_TAP | IFF_NO_PI"
    )]
    Unfit {
        /// What it is.
        what: &'static str,
    },
    /// Somebody else receives on the port.
    #[error(
        "udp port {port} of {address} is taken by another program (a kernel vxlan interface?): stop it, or set another [underlay] port"
    )]
    PortTaken {
        /// The local address.
        address: IpAddr,
        /// The UDP port.
        port: u16,
    },
    /// The address is not this node's.
    #[error("{address} is on no interface of this node")]
    NoSuchAddress {
        /// The address.
        address: IpAddr,
    },
    /// Every port of the pool's range is taken.
    #[error("no udp source port of {address} in 49152-65535 is free")]
    NoSourcePort {
        /// The local address.
        address: IpAddr,
    },
    /// Anything else, in the kernel's words.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LinkError {
    /// For `map_err`: the kernel refused `what`.
    pub(super) fn os(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Os { what, source }
    }
}
