//! Sysctls of the calling thread's network namespace: whether this host passes packets on between its interfaces, and
//! whether an interface may have IPv6 addresses.
//!
//! Not here: which packets (see [`super::nftables`]).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the network's sysctls are; the kernel shows those of the namespace that the asking thread is in.
const SYSCTLS: &str = "/proc/sys/net";

/// Makes this host a router for the families asked for; nothing is ever switched off. What is on already is not written.
///
/// An interface that has learned from router advertisements goes on doing so: a router ignores them unless its
/// `accept_ra` is 2 (linux, Documentation/networking/ip-sysctl), so a 1 there becomes a 2 first. Interfaces that have
/// learned nothing so far keep what they have: behind one there may be pods, and no pod may become this host's router.
///
/// # Errors
/// `PermissionDenied` or `ReadOnlyFilesystem` where sysctls may not be written, as in most containers; `NotFound` where
/// the kernel lacks the family. The message names the sysctl.
pub fn forward(ipv4: bool, ipv6: bool) -> io::Result<()> {
    if ipv4 {
        set(&sysctl("ipv4/ip_forward"), "1")?;
    }
    let forwarding = sysctl("ipv6/conf/all/forwarding");
    if ipv6 && value(&forwarding)? != "1" {
        for interface in learners()? {
            let accept = sysctl("ipv6/conf").join(interface).join("accept_ra");
            if value(&accept)? == "1" {
                set(&accept, "2")?;
            }
        }
        set(&forwarding, "1")?;
    }
    Ok(())
}

/// Lets interface `ifname` have IPv6 addresses. Some hosts and runtimes switch IPv6 off by default, in every new
/// namespace; whoever gives an interface an IPv6 address wants it.
///
/// # Errors
/// As for [`forward`].
pub fn allow_ipv6(ifname: &str) -> io::Result<()> {
    set(&sysctl("ipv6/conf").join(ifname).join("disable_ipv6"), "0")
}

fn sysctl(name: &str) -> PathBuf {
    Path::new(SYSCTLS).join(name)
}

fn value(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path).map_err(|error| named(path, &error))?;
    Ok(text.trim_end().to_owned())
}

fn set(path: &Path, wanted: &str) -> io::Result<()> {
    if value(path)? == wanted {
        return Ok(());
    }
    fs::write(path, wanted).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The interfaces through which there is a route that was learned from a router advertisement.
fn learners() -> io::Result<BTreeSet<String>> {
    /// RTF_ADDRCONF of linux/ipv6_route.h.
    const LEARNED: u32 = 0x0004_0000;
    // Of this thread's namespace, which need not be the process's.
    let path = Path::new("/proc/thread-self/net/ipv6_route");
    let routes = fs::read_to_string(path).map_err(|error| named(path, &error))?;
    let learned = routes.lines().filter_map(|route| {
        let mut words = route.split_whitespace().rev();
        let (interface, flags) = (words.next()?, words.next()?);
        (u32::from_str_radix(flags, 16).ok()? & LEARNED != 0).then(|| interface.to_owned())
    });
    Ok(learned.collect())
}
