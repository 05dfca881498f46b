//! Capture files in the classic pcap format (draft-ietf-opsawg-pcap): reading what others recorded, and writing
//! what a failing test wants a person to open. Not here: pcapng.

use std::fmt;
use std::path::{Path, PathBuf};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Nanoseconds since 1970.
    pub nanos: u64,
    /// Length on the wire; larger than the bytes when the capture cut them.
    pub wire_len: usize,
    /// What was kept of the frame.
    pub bytes: Vec<u8>,
}

/// A capture file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Link type; 1 is Ethernet.
    pub link_type: u32,
    /// Records in the order of the file.
    pub records: Vec<Record>,
}

/// Why a file is not a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PcapError {
    /// It does not begin with one of the four magic numbers.
    Magic,
    /// It ends inside the header or a record; the number of whole records before.
    Truncated(usize),
    /// A record claims more bytes than any capture keeps.
    RecordLen(u32),
}

impl fmt::Display for PcapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not a classic pcap file"),
            Self::Truncated(whole) => write!(f, "the file ends inside what follows record {whole}"),
            Self::RecordLen(len) => write!(f, "a record of {len} bytes; 262144 are allowed"),
        }
    }
}

impl std::error::Error for PcapError {}

const MAX_RECORD_LEN: u32 = 262_144;

/// Reads a capture, of either byte order, in microseconds or nanoseconds.
///
/// # Errors
/// See [`PcapError`].
pub fn read(file: &[u8]) -> Result<Capture, PcapError> {
    let magic: [u8; 4] = file.get(..4).and_then(|m| m.try_into().ok()).ok_or(PcapError::Magic)?;
    let (big, scale) = match magic {
        [0xa1, 0xb2, 0xc3, 0xd4] => (true, 1000),
        [0xd4, 0xc3, 0xb2, 0xa1] => (false, 1000),
        [0xa1, 0xb2, 0x3c, 0x4d] => (true, 1),
        [0x4d, 0x3c, 0xb2, 0xa1] => (false, 1),
        _ => return Err(PcapError::Magic),
    };
    let word = |at: usize, whole: usize| {
        let four: [u8; 4] =
            file.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(PcapError::Truncated(whole))?;
        Ok(if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
    };
    // The upper bits say how long an FCS the records carry.
    let link_type = word(20, 0)? & 0xffff;
    let mut records = Vec::new();
    let mut at = 24;
    while at < file.len() {
        let whole = records.len();
        let (seconds, fraction) = (word(at, whole)?, word(at + 4, whole)?);
        let (kept, wire_len) = (word(at + 8, whole)?, word(at + 12, whole)?);
        if kept > MAX_RECORD_LEN {
            return Err(PcapError::RecordLen(kept));
        }
        let bytes = file.get(at + 16..at + 16 + kept as usize).ok_or(PcapError::Truncated(whole))?.to_vec();
        at += 16 + bytes.len();
        let nanos = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * scale;
        records.push(Record { nanos, wire_len: wire_len as usize, bytes });
    }
    Ok(Capture { link_type, records })
}

/// Reads a capture file.
///
/// # Panics
/// When it cannot be read; the message names it.
#[must_use]
pub fn read_file(path: &Path) -> Capture {
    let file = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    read(&file).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A capture file of Ethernet frames, one microsecond apart, in nanosecond form.
///
/// # Panics
/// When a frame is longer than 262,144 bytes.
pub fn write<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_3c4d, 0x0002_0004, 0, 0, MAX_RECORD_LEN, 1u32] {
        file.extend(word.to_be_bytes());
    }
    for (n, frame) in (0u32..).zip(frames) {
        let len = u32::try_from(frame.len()).ok().filter(|len| *len <= MAX_RECORD_LEN);
        let len = len.expect("a frame fits a record");
        for word in [n / 1_000_000, n % 1_000_000 * 1000, len, len] {
            file.extend(word.to_be_bytes());
        }
        file.extend(frame);
    }
    file
}

/// Writes `frames` into `target/failures/NAME.pcap` for a person to open, and returns the path.
///
/// # Panics
/// When the file cannot be written.
pub fn leave_behind<'a>(name: &str, frames: impl IntoIterator<Item = &'a [u8]>) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/failures");
    std::fs::create_dir_all(&directory).expect("the target directory can be written");
    let path = directory.join(format!("{name}.pcap"));
    std::fs::write(&path, write(frames)).expect("the target directory can be written");
    path
}

/// The directory of shared captures and cases: `VSWITCH_SHARED`, else `../shared` beside the workspace.
/// Without one the calling test has nothing to do: `None` after a loud word, and a failure where `CI` is set.
///
/// # Panics
/// In CI, when there is no such directory.
#[must_use]
pub fn shared_dir() -> Option<PathBuf> {
    let directory = std::env::var_os("VSWITCH_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    if directory.join("pcaps").is_dir() {
        return Some(directory);
    }
    crate::lab::skip(&format!("no captures at {} (VSWITCH_SHARED names another place)", directory.display()));
    None
}

/// Every capture file in `directory`, by name.
///
/// # Panics
/// When the directory cannot be read.
#[must_use]
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap"))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shared_capture_has_as_many_records_as_its_manifest_says() {
        let Some(shared) = shared_dir() else { return };
        let pcaps = shared.join("pcaps");
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(pcaps.join("manifest.json")).unwrap()).unwrap();
        let manifest = manifest.as_array().unwrap();
        assert!(!manifest.is_empty() && manifest.len() == files(&pcaps).len());
        for entry in manifest {
            let capture = read_file(&pcaps.join(entry["file"].as_str().unwrap()));
            assert_eq!(capture.records.len() as u64, entry["frames"].as_u64().unwrap(), "{entry}");
            assert_eq!(u64::from(capture.link_type), entry["linktype"].as_u64().unwrap() & 0xffff, "{entry}");
        }
    }

    #[test]
    fn both_byte_orders_and_both_clocks_are_read() {
        let frames: [&[u8]; 2] = [b"first", b""];
        let ours = write(frames);
        let expected = read(&ours).unwrap();
        assert_eq!(expected.records.iter().map(|r| &r.bytes[..]).collect::<Vec<_>>(), frames);
        assert_eq!(expected.records[1].nanos, 1000);
        // The same file as a little-endian machine writes it, and in microseconds.
        let swap = |at: usize, file: &mut Vec<u8>| file[at..at + 4].reverse();
        let mut little = ours;
        for at in [0, 8, 12, 16, 20, 24, 28, 32, 36, 45, 49, 53, 57] {
            swap(at, &mut little);
        }
        assert_eq!(read(&little), Ok(expected));
        little[0] = 0xd4;
        little[1] = 0xc3;
        assert_eq!(read(&little).unwrap().records[1].nanos, 1_000_000);
    }

    #[test]
    fn a_damaged_file_is_an_error_at_every_length() {
        let frames: [&[u8]; 2] = [b"first", b"second"];
        let file = write(frames);
        for len in 0..file.len() {
            let whole = read(&file[..len]);
            let expected = match len {
                0..4 => Err(PcapError::Magic),
                24 | 45 => Ok(usize::from(len > 24)),
                _ => Err(PcapError::Truncated(usize::from(len > 45))),
            };
            assert_eq!(whole.map(|capture| capture.records.len()), expected, "{len}");
        }
        let mut long = file;
        long[32] = 0x7f;
        assert!(matches!(read(&long), Err(PcapError::RecordLen(_))));
    }
}
