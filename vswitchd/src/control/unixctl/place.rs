//! Where the tools of Open vSwitch look for a daemon: its pidfile and its socket in the run directory.
//!
//! `ovs-appctl -t NAME` reads `NAME.pid`, which must be locked by the process it names, and connects to
//! `NAME.PID.ctl` beside it. Not here: what is said on the socket (see [`super::serve`]).

use crate::sys::lock;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The directory where nothing else is said (ovs-appctl(8), OVS_RUNDIR).
const RUN_DIRECTORY: &str = "/run/openvswitch";

/// Why a place cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Another process has the pidfile.
    #[error("pidfile {path:?}: already running as pid {pid}")]
    Running {
        /// The pidfile.
        path: PathBuf,
        /// Who holds its lock.
        pid: i32,
    },
    /// The operating system refused.
    #[error("cannot {what} {path:?}: {source}")]
    Os {
        /// The step.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn os(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    move |source| PlaceError::Os { what, path: path.to_owned(), source }
}

/// The run directory: OVS_RUNDIR, or /run/openvswitch.
pub(in super::super) fn run_directory() -> PathBuf {
    std::env::var_os("OVS_RUNDIR")
        .filter(|path| !path.is_empty())
        .map_or_else(|| RUN_DIRECTORY.into(), Into::into)
}

/// Makes the run directory (0755) where it is missing.
///
/// # Errors
/// [`PlaceError::Os`].
pub(in super::super) fn make_directory(path: &Path) -> Result<(), PlaceError> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(os("create directory", path))
}

/// Device and inode of what has a name now.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|there| (there.dev(), there.ino()))
}

/// Whether somebody listens on the socket `path`; `None` where there is nothing. Nobody is waited for: one who lets no
/// more in, because he is stopped or busy, is there too.
///
/// # Errors
/// What is there cannot be asked.
fn is_answered(path: &Path) -> io::Result<Option<bool>> {
    match mio::net::UnixStream::connect(path) {
        Ok(_) => Ok(Some(true)),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => Ok(Some(true)),
            ErrorKind::ConnectionRefused => Ok(Some(false)),
            ErrorKind::NotFound => Ok(None),
            _ => Err(error),
        },
    }
}

/// A locked pidfile; removed when dropped.
#[derive(Debug)]
pub(in super::super) struct Pidfile {
    path: PathBuf,
    /// Whoever closes any descriptor of it gives the lock up.
    file: File,
}

impl Pidfile {
    /// Takes `path`: a locked file with this process's number in it. One that is locked by nobody is replaced, so
    /// that there is no moment at which others see a pidfile that is not whole.
    ///
    /// # Errors
    /// [`PlaceError`]; nothing that was there is touched then.
    pub(in super::super) fn take(path: &Path) -> Result<Self, PlaceError> {
        let own = beside(path, &format!(".tmp{}", std::process::id()));
        let mut file = open(&own, true).map_err(os("create", &own))?;
        let written = lock::take(&file)
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(os("write", &own))
            .and_then(|()| put(&own, path));
        drop(fs::remove_file(&own));
        written.map(|()| Self { path: path.to_owned(), file })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        let own = self.file.metadata().ok().map(|own| (own.dev(), own.ino()));
        if own.is_some() && own == identity(&self.path) {
            drop(fs::remove_file(&self.path));
        }
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(create).mode(0o644);
    options.custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Gives the file `own` the name `path`, unless what has it is locked by a living process.
fn put(own: &Path, path: &Path) -> Result<(), PlaceError> {
    loop {
        match fs::hard_link(own, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            done => return done.map_err(os("create", path)),
        }
        let there = match open(path, false) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.map_err(os("open", path))?,
        };
        // Of two that find a stale one, the one with its lock replaces it.
        if !lock::take(&there).map_err(os("lock", path))? {
            let pid = lock::holder(&there).map_err(os("lock", path))?;
            let Some(pid) = pid else { continue };
            return Err(PlaceError::Running { path: path.to_owned(), pid });
        }
        let locked = there.metadata().map_err(os("look at", path))?;
        if identity(path) == Some((locked.dev(), locked.ino())) {
            return fs::rename(own, path).map_err(os("replace", path));
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A listening socket, for its owner alone; its file is removed when dropped.
#[derive(Debug)]
pub(in super::super) struct Socket {
    pub(in super::super) listener: UnixListener,
    path: PathBuf,
    file: Option<(u64, u64)>,
    /// Who runs this daemon.
    pub(in super::super) owner: u32,
}

impl Socket {
    /// Listens on `path`, mode 0600. A socket that nobody answers on is replaced.
    ///
    /// # Errors
    /// [`PlaceError::Os`]: also when another process answers there, or what is there is no socket.
    pub(in super::super) fn bind(path: &Path) -> Result<Self, PlaceError> {
        if is_answered(path).map_err(os("ask who is on", path))? == Some(true) {
            return Err(os("listen on", path)(ErrorKind::AddrInUse.into()));
        }
        if let Ok(there) = fs::symlink_metadata(path)
            && !there.file_type().is_socket()
        {
            return Err(os("listen on", path)(io::Error::new(
                ErrorKind::AlreadyExists,
                "it is not a socket",
            )));
        }
        // Made under another name and renamed: there is no moment at which others could connect.
        let unfinished = beside(path, "~");
        drop(fs::remove_file(&unfinished));
        let listener = UnixListener::bind(&unfinished).map_err(os("listen on", path))?;
        let finished = fs::set_permissions(&unfinished, Permissions::from_mode(0o600))
            .and_then(|()| fs::symlink_metadata(&unfinished))
            .and_then(|made| fs::rename(&unfinished, path).map(|()| made))
            .and_then(|made| listener.set_nonblocking(true).map(|()| made));
        let made =
            finished.inspect_err(|_| drop(fs::remove_file(&unfinished))).map_err(os("listen on", path))?;
        let file = Some((made.dev(), made.ino()));
        Ok(Self { listener, path: path.to_owned(), file, owner: made.uid() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.file == identity(&self.path) {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Removes the sockets for ovs-appctl that killed daemons of this program left in the run directory.
///
/// Of a program that listens after it has made its socket, its pidfile must be held.
pub(in super::super) fn sweep(directory: &Path, program: &str) {
    sweep_named(directory, |name| {
        let number = name.strip_prefix(program).and_then(|name| name.strip_prefix('.'));
        let number = number.and_then(|name| name.strip_suffix(".ctl"));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    });
}

/// Removes the sockets for ovs-ofctl that whoever sat in the seat of ovs-vswitchd before left in the run directory:
/// for whoever holds its pidfile, and nobody else. A bridge's name tells nobody's whose socket it was.
pub(in super::super) fn sweep_bridges(directory: &Path) {
    sweep_named(directory, |name| name.strip_suffix(".mgmt").is_some_and(|bridge| !bridge.is_empty()));
}

/// Removes sockets that nobody listens on, of these names.
fn sweep_named(directory: &Path, is_meant: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        // Who knocks at a file that is no socket is refused as well.
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        if is_socket
            && name.to_str().is_some_and(&is_meant)
            && is_answered(&path).is_ok_and(|answered| answered == Some(false))
        {
            drop(fs::remove_file(&path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("vswitch-place-{}-{number}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_pidfile_replaces_a_stale_one_and_goes_with_its_owner() {
        let scratch = Scratch::new();
        let path = scratch.0.join("vswitchd.pid");
        fs::write(&path, "1\n").unwrap();
        let taken = Pidfile::take(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1, "nothing is left beside it");
        drop(taken);
        assert!(!path.exists());
    }

    #[test]
    fn a_pidfile_that_another_has_replaced_is_left_to_it() {
        let scratch = Scratch::new();
        let path = scratch.0.join("vswitchd.pid");
        let taken = Pidfile::take(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(taken);
        assert!(path.exists());
    }

    #[test]
    fn a_socket_is_its_owners_alone_and_only_a_dead_one_is_replaced() {
        let scratch = Scratch::new();
        let path = scratch.0.join("vswitchd.1.ctl");
        drop(UnixListener::bind(&path).unwrap());
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(matches!(Socket::bind(&path), Err(PlaceError::Os { .. })));
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        assert!(Socket::bind(&path).is_err(), "a file is no socket");
        assert!(path.exists());
    }

    #[test]
    fn a_socket_whose_owner_lets_nobody_in_is_his_and_is_not_waited_for() {
        let scratch = Scratch::new();
        let path = scratch.0.join("br0.mgmt");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let listener = socket.listen(0).unwrap();
        // One after another knocks until no more find room.
        let mut knocking = Vec::new();
        let full = loop {
            match mio::net::UnixStream::connect(&path) {
                Ok(stream) => knocking.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        assert!(matches!(Socket::bind(&path), Err(PlaceError::Os { what: "listen on", .. })));
        drop(listener);
    }

    #[test]
    fn sockets_of_the_dead_are_swept_and_others_stay() {
        let scratch = Scratch::new();
        let names = [
            "vswitchd.1.ctl",
            "vswitchd.x.ctl",
            "ovs-vswitchd.1.ctl",
            "br0.mgmt",
            "br1.mgmt",
            "vswitchd.2.ctl",
        ];
        let mut listeners: Vec<_> =
            names.iter().map(|name| UnixListener::bind(scratch.0.join(name)).unwrap()).collect();
        let alive = listeners.split_off(4);
        drop(listeners);
        fs::write(scratch.0.join("vswitchd.3.ctl"), "").unwrap();
        let left = || names.map(|name| scratch.0.join(name).exists());
        sweep(&scratch.0, "vswitchd");
        assert_eq!(left(), [false, true, true, true, true, true]);
        sweep(&scratch.0, "ovs-vswitchd");
        assert_eq!(left(), [false, true, false, true, true, true]);
        sweep_bridges(&scratch.0);
        assert_eq!(left(), [false, true, false, false, true, true]);
        assert!(scratch.0.join("vswitchd.3.ctl").exists(), "no socket");
        drop(alive);
    }
}
