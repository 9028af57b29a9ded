//! Is a file what the Hub says it is? Large ones go by the hash of their content.

use std::fs;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::util::files;

/// Looks at a file of the cache that was just downloaded: its name there is the SHA-256 of its content, for large ones.
/// What is damaged is removed, so that it is fetched anew.
///
/// # Errors
/// When the content has another hash, or the file cannot be read.
pub(super) fn verify(what: &str, file: &Path) -> Result<()> {
    let Ok(blob) = file.canonicalize() else {
        return Err(Error::model(format!("{what}: `{}` did not come", file.display()))
            .with_hint("the same command goes on where this one was"));
    };
    let name = blob.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if name.len() != 64 || !name.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(());
    }
    let mut hash = Sha256::new();
    let mut handle = files::open(&blob)?;
    let mut bytes = vec![0; 1 << 20];
    loop {
        match handle.read(&mut bytes).map_err(Error::io("read", &blob))? {
            0 => break,
            n => hash.update(&bytes[..n]),
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == name {
        return Ok(());
    }
    let _ = fs::remove_file(&blob);
    let _ = fs::remove_file(file);
    let shown = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Err(Error::model(format!("{what}: `{shown}` was damaged on its way, and is removed"))
        .with_hint("the same command fetches it again"))
}
