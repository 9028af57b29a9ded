//! Is a content what its name says? Large files are called by the SHA-256 of their content.

use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::util::files;

/// Whether a content goes by the hash of itself.
pub(super) fn is_hash(etag: &str) -> bool {
    etag.len() == 64 && etag.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether a file has the content that goes by `etag`, where that can be told.
///
/// # Errors
/// When it cannot be read.
pub(super) fn matches(file: &Path, etag: &str) -> Result<bool> {
    if !is_hash(etag) {
        return Ok(true);
    }
    let mut hash = Sha256::new();
    let mut handle = files::open(file)?;
    let mut bytes = vec![0; 1 << 20];
    loop {
        match handle.read(&mut bytes).map_err(Error::io("read", file))? {
            0 => break,
            n => hash.update(&bytes[..n]),
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(found.eq_ignore_ascii_case(etag))
}
