//! Network namespaces: open, compare, work inside, make; and private user, network and mount namespaces for
//! the demo and the tests.
//!
//! A thread that entered another namespace never leaves it again: work inside is done by a thread of its own,
//! which then ends. An open descriptor of a namespace keeps the namespace alive; hold it no longer than the
//! work takes.

use super::check;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where named namespaces are (`ip netns`).
pub const DIRECTORY: &str = "/run/netns";

/// The path of the namespace that a configuration calls `name`: a name under [`DIRECTORY`], or, with a slash
/// in it, a path.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    if name.contains('/') { PathBuf::from(name) } else { Path::new(DIRECTORY).join(name) }
}

/// Opens the network namespace called `name` (see [`path`]). `NotFound` when there is no such file;
/// `InvalidInput` when the file is no network namespace, as for a moment while `ip netns add` makes one.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let namespace = OwnedFd::from(File::open(path(name))?);
    if is_network(namespace.as_fd()) {
        Ok(namespace)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is no network namespace", path(name).display()),
        ))
    }
}

/// Whether `file` is a network namespace.
#[must_use]
pub fn is_network(file: BorrowedFd<'_>) -> bool {
    // SAFETY: NS_GET_NSTYPE takes no argument; anything but a namespace answers with an error.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE as libc::Ioctl) };
    kind == libc::CLONE_NEWNET
}

/// The calling thread's network namespace.
pub fn current() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

/// Which namespace it is; unlike a descriptor it keeps nothing alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    /// The device and the inode by which the kernel knows it; both may come back in another life of the machine.
    #[must_use]
    pub const fn numbers(self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// The identity of `namespace`. A namespace made again under the same name has another one.
pub fn id(namespace: BorrowedFd<'_>) -> io::Result<NamespaceId> {
    let metadata = File::from(namespace.try_clone_to_owned()?).metadata()?;
    Ok(NamespaceId { device: metadata.dev(), inode: metadata.ino() })
}

/// Runs `work` in `namespace`, on a thread made for it, and returns what it returns.
///
/// `PermissionDenied` without CAP_SYS_ADMIN here and over the namespace. A panic of `work` is an error.
pub fn within<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_own_thread(|| {
        enter(namespace)?;
        Ok(work())
    })
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the work inside the namespace panicked")))
    })
}

/// Moves the calling thread, for good, into `namespace`. For threads that do nothing else; see [`within`].
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setns takes a descriptor and a number, and changes only the calling thread.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
        .map(drop)
        .map_err(|error| missing_admin(error, "entering a network namespace"))
}

fn missing_admin(error: io::Error, what: &str) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{what} needs CAP_SYS_ADMIN, which this process does not have: run as root, or grant it"),
    )
}

/// Makes a new network namespace, with its loopback down, and returns it. The calling thread stays where it
/// is. The namespace lives as long as the descriptor, a thread in it, or a mount of it.
pub fn create() -> io::Result<OwnedFd> {
    on_own_thread(|| {
        unshare(Kinds { network: true, ..Kinds::default() })?;
        current()
    })
}

/// Keeps `namespace` alive under `path`, a file that must not exist yet, as `ip netns add` does.
pub fn pin(namespace: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    File::create_new(path)?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", namespace.as_raw_fd()));
    bind_mount(&source, path).inspect_err(|_| {
        // The first error is the one to report.
        let _ = std::fs::remove_file(path);
    })
}

/// Undoes [`pin`].
pub fn unpin(path: &Path) -> io::Result<()> {
    let target = c_path(path)?;
    // SAFETY: `target` is a NUL-terminated path that outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })?;
    std::fs::remove_file(path)
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn bind_mount(from: &Path, to: &Path) -> io::Result<()> {
    mount(Some(from), to, None, libc::MS_BIND)
}

fn mount(from: Option<&Path>, to: &Path, kind: Option<&str>, flags: libc::c_ulong) -> io::Result<()> {
    let from = from.map(c_path).transpose()?;
    let kind = kind.map(CString::new).transpose()?;
    let to = c_path(to)?;
    let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: each pointer is null or a NUL-terminated string that outlives the call; no data is passed.
    check(unsafe { libc::mount(pointer(&from), to.as_ptr(), pointer(&kind), flags, std::ptr::null()) })
        .map(drop)
        .map_err(|error| missing_admin(error, "mounting"))
}

/// Puts an empty, private file system in memory over the directory `at`. Call it in a mount namespace of one's
/// own.
pub fn mount_tmpfs(at: &Path) -> io::Result<()> {
    mount(Some(Path::new("tmpfs")), at, Some("tmpfs"), libc::MS_NOSUID | libc::MS_NODEV)
}

/// Shows the tree of files at `from`, with what is mounted in it now, at `to` as well, a directory. Call it in a
/// mount namespace of one's own.
pub fn mount_again(from: &Path, to: &Path) -> io::Result<()> {
    mount(Some(from), to, None, libc::MS_BIND | libc::MS_REC)
}

/// Which namespaces to leave for new ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kinds {
    /// A user namespace, in which the caller is root. Needs no privilege where the system allows it, but the
    /// process must have one thread only.
    pub user: bool,
    /// A network namespace.
    pub network: bool,
    /// A mount namespace, from which no mount travels back.
    pub mount: bool,
}

/// Moves the calling thread (with `user`: the process, which must be single-threaded) into new namespaces.
pub fn unshare(kinds: Kinds) -> io::Result<()> {
    let mut flags = 0;
    for (wanted, flag) in [
        (kinds.user, libc::CLONE_NEWUSER),
        (kinds.network, libc::CLONE_NEWNET),
        (kinds.mount, libc::CLONE_NEWNS),
    ] {
        flags |= if wanted { flag } else { 0 };
    }
    let (uid, gid) = ids();
    // SAFETY: unshare takes a number and changes only the calling thread.
    check(unsafe { libc::unshare(flags) }).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) if kinds.user => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "this system does not allow user namespaces to this user: run as root, or allow them \
             (sysctl kernel.unprivileged_userns_clone=1 or kernel.apparmor_restrict_unprivileged_userns=0)",
        ),
        Some(libc::ENOSPC) => {
            io::Error::other("the limit of namespaces is reached (sysctl user.max_user_namespaces)")
        }
        _ => missing_admin(error, "making a namespace"),
    })?;
    if kinds.user {
        // Without this the kernel refuses an unprivileged group map (user_namespaces(7)).
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    if kinds.mount {
        mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)?;
    }
    Ok(())
}

fn ids() -> (libc::uid_t, libc::gid_t) {
    // SAFETY: both take nothing and cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// Whether the calling thread's effective user is root, in its own user namespace.
#[must_use]
pub fn is_root() -> bool {
    ids().0 == 0
}
