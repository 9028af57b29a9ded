//! Room for a run's last words: a file that goes when the disk is full.

use std::path::PathBuf;

use super::folder::RunFolder;
use crate::error::Result;
use crate::util::files;
use crate::util::seed::Rng;

/// Room for a status, a row and some lines, in file systems with large blocks too.
const BYTES: usize = 64 << 10;

/// The room; it is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Reserve(PathBuf);

impl Reserve {
    /// Takes the room now, before it is needed.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn take(folder: &RunFolder) -> Result<Self> {
        let path = folder.dir().join(".reserve");
        // what could be compressed would take no room
        let mut random = Rng::new(BYTES as u64);
        let bytes: Vec<u8> = (0..BYTES / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        files::write_atomic(&path, &bytes)?;
        Ok(Self(path))
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
