//! File operations whose errors carry the path, and writes that are whole or not there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};

/// The whole file as text; bad UTF-8 is an error that says so.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = read(path)?;
    String::from_utf8(bytes).map_err(|e| {
        Error::data(format!(
            "`{}` is not UTF-8 text (first bad byte at {})",
            path.display(),
            e.utf8_error().valid_up_to()
        ))
    })
}

/// The whole file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io("read", path))
}

/// Opens for reading.
pub fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(Error::io("open", path))
}

/// Creates or empties a file.
pub fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(Error::io("create", path))
}

/// Creates a directory and its parents.
pub fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create the directory", path))
}

/// The path from the root, without looking at the disk; as it is when there is no current directory.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Copies a file.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).map_err(Error::io("copy", from))
}

/// Removes a directory with all in it; one that is not there is fine.
pub fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// The entries of a directory, sorted by name.
pub fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
        entries.push(entry.map_err(Error::io("list", path))?.path());
    }
    entries.sort();
    Ok(entries)
}

/// A hash of a file's content, or of a folder's: names and contents of all files in it but notes (`.md`).
///
/// # Errors
/// When something cannot be read.
pub fn fingerprint(path: &Path) -> Result<String> {
    let mut hash = Xxh3::new();
    hash_into(path, &mut hash)?;
    Ok(format!("{:032x}", hash.digest128()))
}

fn hash_into(path: &Path, hash: &mut Xxh3) -> Result<()> {
    if path.is_dir() {
        for entry in list(path)?.iter().filter(|entry| entry.extension().is_none_or(|ending| ending != "md")) {
            hash.update(entry.file_name().unwrap_or_default().as_encoded_bytes());
            hash_into(entry, hash)?;
        }
        return Ok(());
    }
    let mut file = open(path)?;
    let mut bytes = vec![0; 1 << 20];
    loop {
        match file.read(&mut bytes).map_err(Error::io("read", path))? {
            0 => return Ok(()),
            n => hash.update(&bytes[..n]),
        }
    }
}

/// Writes to a temporary name beside `path`, syncs, and renames: readers see the old file or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary_name(path);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io("write", path)(e)
    })
}

/// A hidden name beside `path` that no other process uses.
#[must_use]
pub fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.tmp-{}", std::process::id()))
}

/// Makes a directory that was filled under a temporary name appear under its own: contents are synced first, and what
/// stood there before is replaced, or put back when that fails.
pub fn publish_dir(temporary: &Path, path: &Path) -> Result<()> {
    sync_tree(temporary)?;
    let aside = temporary_name(path).with_extension("old");
    let replaced = path.exists();
    if replaced {
        remove_dir(&aside)?;
        fs::rename(path, &aside).map_err(Error::io("replace", path))?;
    }
    if let Err(e) = fs::rename(temporary, path) {
        if replaced {
            let _ = fs::rename(&aside, path);
        }
        return Err(Error::io("rename to", path)(e));
    }
    if let Some(parent) = path.parent() {
        sync_dir(parent);
    }
    if replaced { remove_dir(&aside) } else { Ok(()) }
}

fn sync_tree(dir: &Path) -> Result<()> {
    for entry in list(dir)? {
        if entry.is_dir() {
            sync_tree(&entry)?;
        } else {
            open(&entry)?.sync_all().map_err(Error::io("sync", &entry))?;
        }
    }
    sync_dir(dir);
    Ok(())
}

fn sync_dir(dir: &Path) {
    // Not every file system lets a directory be synced; the rename itself is still atomic.
    if let Ok(handle) = File::open(dir) {
        let _ = handle.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_writes_replace_whole_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(read_text(&path).unwrap(), "two");
        assert_eq!(list(dir.path()).unwrap(), [path]);
    }

    #[test]
    fn bad_utf8_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs::write(&path, b"ok \xff").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("first bad byte at 3"));
    }
}
