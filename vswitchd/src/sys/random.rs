//! The kernel's random numbers: nobody can guess them. Not here: what for.

use std::fs::File;
use std::io::{self, Read as _};

/// random(4), kept open.
#[derive(Debug)]
pub struct Random(File);

impl Random {
    /// # Errors
    /// When there is no such device.
    pub fn open() -> io::Result<Self> {
        File::open("/dev/urandom").map(Self)
    }

    /// Fills `bytes`.
    ///
    /// # Errors
    /// When the device does not give them.
    pub fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(bytes)
    }

    /// The next 64 bits.
    ///
    /// # Errors
    /// When the device does not give them.
    pub fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
