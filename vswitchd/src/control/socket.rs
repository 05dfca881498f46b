//! The control socket: who may listen on it. Its file, its lock, and which of two daemons gets it.
//!
//! Not here: who may connect and what they say (see [`Request`]), and what the calls mean (see [`super::rpc`]).

mod serve;

pub use serve::{MAX_CONNECTIONS, MAX_LINE_LEN, PeerUid, QUEUE_LEN, Request, Serving, Wake};

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest path of a Unix socket is 107 bytes (unix(7)); one is for the name it is made under.
const MAX_PATH_LEN: usize = 106;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon has it.
    #[error("another vswitchd answers on {path:?}; stop it, or give this one a [control] socket of its own")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has its name.
    #[error(
        "control socket {path:?} exists and is not a socket; remove it, or choose another [control] socket"
    )]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// No Unix socket can have that name.
    #[error("control socket {path:?} has {len} bytes; expected an absolute path of at most {MAX_PATH_LEN}")]
    BadPath {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// The operating system refused.
    #[error("cannot {what} {path:?}")]
    Os {
        /// The step.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn os(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BindError {
    move |source| BindError::Os { what, path: path.to_owned(), source }
}

/// The socket, bound and listening: clients may connect, and wait until it is served.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file.
    file: (u64, u64),
    /// Who runs this daemon.
    owner: u32,
    patience: Duration,
    /// Held for as long as the socket is ours.
    _lock: File,
    lock_path: PathBuf,
}

impl Server {
    /// Takes the socket `path`: mode 0600; its directory is created (0755) when missing; a socket that a killed
    /// daemon left behind is replaced. Of two daemons that try at once, one succeeds: whoever holds the lock on
    /// `path` + `.lock`.
    ///
    /// # Errors
    /// [`BindError`]; nothing that was there is touched then.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self, BindError> {
        let path = path.as_ref().to_owned();
        let len = path.as_os_str().len();
        let (Some(directory), true, true) = (path.parent(), path.is_absolute(), len <= MAX_PATH_LEN) else {
            return Err(BindError::BadPath { path, len });
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755).create(directory).map_err(os("create directory", directory))?;
        let lock_path = beside(&path, ".lock");
        let lock = take_lock(&path, &lock_path)?;
        match fs::symlink_metadata(&path) {
            Ok(there) if !there.file_type().is_socket() => return Err(BindError::NotASocket { path }),
            Ok(_) => match UnixStream::connect(&path) {
                Ok(_) => return Err(BindError::InUse { path }),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(os("ask who is on", &path)(error)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(os("look at", &path)(error)),
        }
        // Made under another name and renamed, so that there is no moment at which others could connect.
        let unfinished = beside(&path, "~");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(os("remove", &unfinished)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&unfinished).map_err(os("listen on", &path))?;
        let finished = fs::set_permissions(&unfinished, Permissions::from_mode(0o600))
            .and_then(|()| fs::symlink_metadata(&unfinished))
            .and_then(|made| fs::rename(&unfinished, &path).map(|()| made));
        let made = match finished {
            Ok(made) => made,
            Err(error) => {
                drop(fs::remove_file(&unfinished));
                return Err(os("listen on", &path)(error));
            }
        };
        let file = (made.dev(), made.ino());
        Ok(Self {
            listener,
            path,
            file,
            owner: made.uid(),
            patience: serve::PATIENCE,
            _lock: lock,
            lock_path,
        })
    }

    /// With another patience than 10 s: how long a client may keep half a line to itself or leave an answer
    /// unread before it is disconnected. More than zero. Silence between lines may last.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ours = |there: fs::Metadata| (there.dev(), there.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            drop(fs::remove_file(&self.path));
        }
        drop(fs::remove_file(&self.lock_path));
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn take_lock(path: &Path, lock_path: &Path) -> Result<File, BindError> {
    loop {
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(lock_path)
            .map_err(os("open", lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BindError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(os("lock", lock_path)(error)),
        }
        // A daemon that stopped between our open and our lock has removed the file: then the lock is worth
        // nothing, since the next one would lock another file.
        let held = lock.metadata().map_err(os("look at", lock_path))?;
        if fs::symlink_metadata(lock_path).is_ok_and(|there| there.ino() == held.ino()) {
            return Ok(lock);
        }
    }
}
