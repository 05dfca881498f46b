//! Where the demo happens: private namespaces, file systems in memory, an underlay between two nodes.
//!
//! Nothing here is cleaned up, because nothing needs it: no other process can see it, and the kernel takes it
//! away with the last process inside.

use super::CONFIG;
use super::layout::{Layout, UNDERLAY_PREFIX};
use crate::link::{Source, open_or_adopt};
use crate::sys::netlink::{Change, Netlink};
use crate::sys::netns::{self, Kinds};
use anyhow::{Context as _, anyhow};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What the nodes share: the configuration file, and the sockets on which they say that they are ready.
pub(super) const SHARED: &str = "/run/demo";
/// The configuration file.
pub(super) const FILE: &str = "/run/demo/demo.toml";

const TUN: &str = "/dev/net/tun";

/// What the private place is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Private {
    /// It is in a user namespace of its own, in which we are root.
    pub(super) own_user: bool,
    /// The kernel has IPv6.
    pub(super) ipv6: bool,
}

/// Leaves for private namespaces, with an empty /run. The process must have one thread.
pub(super) fn isolate() -> anyhow::Result<Private> {
    // First, because most machines that cannot run the demo lack this.
    File::options().read(true).write(true).open(TUN).map_err(|error| no_tun(&error))?;
    let kinds = Kinds { user: !netns::is_root(), network: true, mount: true };
    let mut own_user = kinds.user;
    let left = netns::unshare(kinds).or_else(|error| {
        // Root without CAP_SYS_ADMIN, as in a container, is no better than anybody.
        if own_user || error.kind() != ErrorKind::PermissionDenied {
            return Err(error);
        }
        own_user = true;
        netns::unshare(Kinds { user: true, ..kinds })
    });
    left.and_then(|()| cover(Path::new("/run"), &[])).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied if own_user => anyhow!(
            "private namespaces are refused here: run the demo as root, or allow user namespaces \
             (sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0, \
             whichever of them this system has)"
        ),
        _ => anyhow!("private namespaces are refused here: {error}"),
    })?;
    let probe = Source::Open { name: "probe", offload: false };
    open_or_adopt(probe).map_err(|error| {
        anyhow!(
            "{TUN} gives no TAP ({error}): it must be the tun driver's device, character 10:200 \
             (modprobe tun; mknod {TUN} c 10 200; in a container: --device {TUN})"
        )
    })?;
    Ok(Private { own_user, ipv6: Path::new("/proc/net/if_inet6").exists() })
}

fn no_tun(error: &io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::PermissionDenied => anyhow!(
            "{TUN} may not be opened by this user: run the demo as root, or allow it (chmod 666 {TUN}, as most systems do)"
        ),
        ErrorKind::NotFound => anyhow!(
            "{TUN} is missing: load the tun driver (modprobe tun); in a container, pass the device in (--device {TUN})"
        ),
        _ => anyhow!("{TUN} cannot be opened ({error}): load the tun driver (modprobe tun)"),
    }
}

/// Covers the directory `at` with an empty file system in memory. Those of the directories `kept` that are in it still
/// show through, and this program, should it live there.
pub(super) fn cover(at: &Path, kept: &[&str]) -> io::Result<()> {
    let program = std::env::current_exe()?;
    let mut shown = Vec::new();
    for path in kept.iter().map(Path::new).chain(program.parent()).filter(|path| path.starts_with(at)) {
        shown.push((path, File::options().read(true).custom_flags(libc::O_PATH).open(path)?));
    }
    netns::mount_tmpfs(at)?;
    for (path, file) in shown {
        fs::create_dir_all(path)?;
        netns::mount_again(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), path)?;
    }
    Ok(())
}

/// Makes the namespaces of nodes and pods, the underlay, and the file.
pub(super) fn build(layout: &Layout) -> anyhow::Result<()> {
    fs::create_dir_all(netns::DIRECTORY)?;
    fs::create_dir_all(SHARED)?;
    fs::write(FILE, CONFIG)?;
    let nodes = layout.nodes.iter().map(|node| &node.name);
    for name in nodes.chain(layout.pods.iter().map(|pod| &pod.name)) {
        let namespace = netns::create().with_context(|| format!("making namespace {name}"))?;
        netns::pin(namespace.as_fd(), &netns::path(name))
            .with_context(|| format!("naming namespace {name}"))?;
        up(&mut Netlink::open_in(namespace.as_fd())?, "lo")?;
    }
    let [first, second] = layout.nodes.as_slice() else { return Err(anyhow!("an underlay of two nodes")) };
    let (near, far) = (netns::open(&first.name)?, netns::open(&second.name)?);
    Netlink::open_in(near.as_fd())?
        .add_veth("underlay", "underlay", far.as_fd())
        .context("making the veth pair of the underlay")?;
    for (namespace, node) in [(near, first), (far, second)] {
        let mut netlink = Netlink::open_in(namespace.as_fd())?;
        let index = up(&mut netlink, "underlay")?;
        netlink.add_address(index, IpAddr::V4(node.address), UNDERLAY_PREFIX)?;
    }
    Ok(())
}

/// Sets an interface up and returns its index.
fn up(netlink: &mut Netlink, name: &str) -> anyhow::Result<u32> {
    let index = netlink.interface(name)?.with_context(|| format!("there is no {name}"))?.index;
    netlink.change(index, &Change { up: Some(true), ..Change::default() })?;
    Ok(index)
}
