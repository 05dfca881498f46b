//! Notes of leases that may be owed back to a delegated IPAM and for which no attachment of the daemon answers.
//!
//! Whoever takes a lease writes a note before and removes it when the daemon has the attachment, or the lease is given
//! back; so a process that is killed between any two steps leaves a note, and the next DEL, GC or ADD of that
//! attachment settles it. A note is a file beside the daemon's socket, locked (flock(2)) by whoever is at work on it:
//! one that is not locked was left behind. It holds the network configuration. After a restart of the machine there
//! are none, and no pods either. Not here: giving leases back.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use vswitchd::control::rpc::cni::CniKey;

/// A note, locked.
#[derive(Debug)]
pub struct Owed {
    file: File,
    path: PathBuf,
    /// Whether it had been left behind by another process.
    pub was_left: bool,
}

impl Owed {
    /// The note for `attachment` to `network` of the daemon at `socket`, made where there is none. Waits while a
    /// plugin is still at work for it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn take(socket: &Path, network: &str, attachment: &CniKey) -> io::Result<Self> {
        let directory = directory(socket, network);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let path = directory.join(format!("{}:{}", attachment.container, attachment.ifname));
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            if let Some(owed) = Self::new(file, path.clone())? {
                return Ok(owed);
            }
        }
    }

    /// `None` when the file was removed before it was locked.
    fn new(file: File, path: PathBuf) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        Ok((metadata.nlink() > 0).then_some(Self { file, path, was_left: metadata.len() > 0 }))
    }

    /// The file, to write the configuration into.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// What is written in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn text(&self) -> io::Result<Vec<u8>> {
        let mut file = &self.file;
        let mut text = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut text)?;
        Ok(text)
    }

    /// Nothing is owed any more.
    pub fn settle(self) {
        // Where it cannot be removed, somebody will find it and give back what has been given back: no harm.
        drop(std::fs::remove_file(&self.path));
    }
}

/// The notes about `network` that were left behind.
///
/// # Errors
/// When they cannot be listed.
pub fn left(socket: &Path, network: &str) -> io::Result<Vec<(CniKey, Owed)>> {
    let entries = match std::fs::read_dir(directory(socket, network)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((container, ifname)) = name.split_once(':') else { continue };
        let attachment = CniKey { container: container.to_owned(), ifname: ifname.to_owned() };
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => all.extend(Owed::new(file, path)?.map(|owed| (attachment, owed))),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(all)
}

fn directory(socket: &Path, network: &str) -> PathBuf {
    socket.parent().unwrap_or_else(|| Path::new(".")).join("cni").join(network)
}
