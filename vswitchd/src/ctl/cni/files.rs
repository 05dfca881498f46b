//! Files that others may read or run at any time: they appear and change as a whole. Not here: which ones.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes a file with these permission bits: under another name, which no runtime reads or runs, then renamed. Its
/// directory is made where it is missing. What ran or read the file before goes on with what it had.
pub(super) fn write(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(directory)?;
    let new = directory.join(format!(".{}.new", name.to_string_lossy()));
    // What a run that was cut short left there.
    remove(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    // Whatever the umask is: the runtime may be somebody else.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

/// Removes a file; whether it was there.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether two paths are one file.
pub(super) fn same(one: &Path, other: &Path) -> bool {
    let id = |path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    id(one).is_some_and(|one| id(other) == Some(one))
}
