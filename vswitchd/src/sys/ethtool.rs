//! What an interface's driver says of it (SIOCETHTOOL): its name, and how fast the wire is. Asked for one interface at
//! a time; all that many interfaces can be asked for at once is [`super::netlink`]'s.

use super::{check, socket};
use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};

/// What a driver says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// Its name, as "veth".
    pub name: String,
    /// Its version; empty where it says none.
    pub version: String,
    /// The version of the firmware; empty where there is none.
    pub firmware: String,
}

/// What a wire is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// In Mbit/s; `None` where it is not known, as without a carrier.
    pub mbits: Option<u32>,
    /// Whether both ends may send at once; `None` where it is not known.
    pub full_duplex: Option<bool>,
}

/// A door to the drivers of one network namespace.
#[derive(Debug)]
pub struct Ethtool(OwnedFd);

/// A `struct ifreq` as SIOCETHTOOL uses it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    command: *mut libc::c_void,
    rest: [u8; 16],
}

/// `struct ethtool_drvinfo` of linux/ethtool.h.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    /// Where it is plugged in, and numbers of what else can be asked for.
    rest: [u8; 96],
}

/// `struct ethtool_cmd` of linux/ethtool.h: kept by kernels for whoever asks in the old way.
#[repr(C)]
#[derive(Default)]
struct Settings {
    command: u32,
    supported: u32,
    advertising: u32,
    speed_low: u16,
    duplex: u8,
    port: u8,
    phy: u8,
    transceiver: u8,
    autoneg: u8,
    mdio: u8,
    most_tx: u32,
    most_rx: u32,
    speed_high: u16,
    mdix: [u8; 2],
    rest: [u32; 3],
}

const GET_SETTINGS: u32 = 1;
const GET_DRIVER: u32 = 3;
/// SPEED_UNKNOWN is -1; drivers say 0 and 65,535 as well.
const UNKNOWN: [u32; 3] = [0, 0xffff, u32::MAX];

impl Ethtool {
    /// To the drivers of the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        socket::udp(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).map(Self)
    }

    /// The driver of the interface called `name`. ENODEV: no such interface; EOPNOTSUPP: it does not say.
    pub fn driver(&self, name: &str) -> io::Result<Driver> {
        let mut info = DriverInfo {
            command: GET_DRIVER,
            driver: [0; 32],
            version: [0; 32],
            firmware: [0; 32],
            rest: [0; 96],
        };
        let mut request = request(name, (&raw mut info).cast())?;
        // SAFETY: the kernel reads the command and writes one struct ethtool_drvinfo, which `info` is and which
        // outlives the call.
        check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request)
        })?;
        Ok(Driver { name: text(&info.driver), version: text(&info.version), firmware: text(&info.firmware) })
    }

    /// The wire of the interface called `name`. ENODEV: no such interface; EOPNOTSUPP: it does not say.
    pub fn wire(&self, name: &str) -> io::Result<Wire> {
        let mut settings = Settings { command: GET_SETTINGS, ..Settings::default() };
        let mut request = request(name, (&raw mut settings).cast())?;
        // SAFETY: the kernel reads the command and writes one struct ethtool_cmd, which `settings` is and which
        // outlives the call.
        check(unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request)
        })?;
        let mbits = u32::from(settings.speed_high) << 16 | u32::from(settings.speed_low);
        let full_duplex = match settings.duplex {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        Ok(Wire { mbits: Some(mbits).filter(|mbits| !UNKNOWN.contains(mbits)), full_duplex })
    }
}

/// `InvalidInput` when the name has no room.
fn request(name: &str, command: *mut libc::c_void) -> io::Result<Request> {
    let mut request = Request { name: [0; libc::IFNAMSIZ], command, rest: [0; 16] };
    let room = request.name.get_mut(..name.len()).filter(|room| room.len() < libc::IFNAMSIZ);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    Ok(request)
}

fn text(bytes: &[u8]) -> String {
    CStr::from_bytes_until_nul(bytes).unwrap_or_default().to_string_lossy().into_owned()
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());
const _: () = assert!(size_of::<DriverInfo>() == 196 && size_of::<Settings>() == 44);
