//! File operations whose errors carry the path, and writes that are whole or not there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::util::fence;

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
    fence::admit_open(path)?;
    fs::read(path).map_err(Error::io("read", path))
}

/// Opens for reading.
pub fn open(path: &Path) -> Result<File> {
    fence::admit_open(path)?;
    File::open(path).map_err(Error::io("open", path))
}

/// Creates or empties a file.
pub fn create(path: &Path) -> Result<File> {
    fence::admit_open(path)?;
    File::create(path).map_err(Error::io("create", path))
}

/// Opens as `options` say.
pub fn open_with(options: &OpenOptions, path: &Path) -> Result<File> {
    fence::admit_open(path)?;
    options.open(path).map_err(Error::io("open", path))
}

/// Opens for writing behind what is there; a file that is not there is made.
pub fn append(path: &Path) -> Result<File> {
    open_with(File::options().create(true).append(true), path)
}

/// Creates a directory and its parents.
pub fn create_dir(path: &Path) -> Result<()> {
    fence::admit_open(path)?;
    fs::create_dir_all(path).map_err(Error::io("create the directory", path))
}

/// The path from the root, without looking at the disk; as it is when there is no current directory.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Copies a file.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fence::admit_open(from)?;
    fence::admit_open(to)?;
    fs::copy(from, to).map(drop).map_err(Error::io("copy", from))
}

/// Removes a directory with all in it; one that is not there is fine.
pub fn remove_dir(path: &Path) -> Result<()> {
    fence::admit_open(path)?;
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// The entries of a directory, sorted by name.
pub fn list(path: &Path) -> Result<Vec<PathBuf>> {
    fence::admit_open(path)?;
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
    fence::admit_open(path)?;
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

/// Appends to a file that was opened for that: all of `bytes`, or nothing where they do not fit on the disk.
///
/// # Errors
/// When they cannot be written.
pub fn append_whole(file: &mut File, path: &Path, bytes: &[u8]) -> Result<()> {
    let before = file.metadata().map_err(Error::io("write", path))?.len();
    // one write: a reader never sees half of it
    file.write_all(bytes).map_err(|e| {
        let _ = file.set_len(before);
        Error::io("write", path)(e)
    })
}

/// Removes what processes that were killed while they wrote have left in a folder; nobody may be writing there.
pub fn clean_temporary(dir: &Path) {
    let temporary = |path: &PathBuf| {
        path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with('.') && name.contains(".tmp-")
        })
    };
    for path in list(dir).unwrap_or_default().iter().filter(|path| path.is_file() && temporary(path)) {
        let _ = fs::remove_file(path);
    }
}

/// Waits for the lock of the file `path`, which is made for it; the lock goes with the returned file. What another
/// process does under it takes moments; `None` when it is held longer than `patience`. `stop` ends the waiting.
///
/// # Errors
/// When the file cannot be made, or `stop` says so meanwhile.
pub fn lock_within(path: &Path, patience: Duration, stop: fn() -> bool) -> Result<Option<File>> {
    let deadline = Instant::now() + patience;
    loop {
        let file = open_with(File::options().create(true).truncate(false).write(true), path)?;
        // one that was removed meanwhile is nobody's lock
        if lock(&file) && is_at(&file, path) {
            return Ok(Some(file));
        }
        if stop() {
            return Err(Error::cancelled(format!("stopped while it waited for `{}`", path.display())));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// [`lock_within`], for those who cannot go on without the lock, whatever the process was asked meanwhile.
///
/// # Errors
/// As [`lock_within`], and when another process holds it all that time.
pub fn wait_for_lock(path: &Path, patience: Duration) -> Result<File> {
    lock_within(path, patience, || false)?.ok_or_else(|| {
        Error::data(format!("`{}` is held by another process", path.display()))
            .with_hint("see what that process does; remove the file if it is none of tallow's")
    })
}

/// A hidden name beside `path` that no other process or thread uses.
#[must_use]
pub fn temporary_name(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.tmp-{}-{number}", std::process::id()))
}

/// Takes the lock of a file, which goes with it; `false` when another process has it. A file system without locks
/// stops nobody.
#[must_use]
pub fn lock(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// Whether `path` is still the name of an open file, which another process may have renamed or removed meanwhile.
#[must_use]
pub fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => identity(&open) == identity(&there),
        _ => false,
    }
}

#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// What tells files apart here: when they were made, and their length.
#[cfg(not(unix))]
fn identity(metadata: &fs::Metadata) -> (Option<std::time::SystemTime>, u64) {
    (metadata.created().ok(), metadata.len())
}

/// Refuses an output that is one of the files it is made of, whatever its name: a link to it, or another way there.
///
/// # Errors
/// [`Error::Usage`] naming both.
pub fn keep_apart<'a>(output: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    let Ok(there) = output.canonicalize() else { return Ok(()) };
    let same = |input: &Path| {
        let linked = || match (fs::metadata(&there), fs::metadata(input)) {
            (Ok(a), Ok(b)) => cfg!(unix) && identity(&a) == identity(&b),
            _ => false,
        };
        input.canonicalize().is_ok_and(|input| input == there) || linked()
    };
    match inputs.into_iter().find(|input| same(input)) {
        None => Ok(()),
        Some(input) if input == output => {
            Err(Error::usage(format!("the output `{}` is read, too, and would be overwritten", output.display()))
                .with_hint("give the output another name"))
        }
        Some(input) => Err(Error::usage(format!(
            "the output `{}` is the same file as `{}`, which is read",
            output.display(),
            input.display()
        ))
        .with_hint("give the output another name")),
    }
}

/// A file that is written under a hidden name and has its own when it is whole; one that is dropped before leaves
/// nothing, and what stood there stays.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
}

impl NewFile {
    /// Begins the file that will be `path`: where that cannot be written, it is told now.
    ///
    /// # Errors
    /// When the folder is not there or cannot be written to, or `path` is a folder.
    pub fn create(path: &Path) -> Result<Self> {
        fence::admit_open(path)?;
        if path.is_dir() {
            return Err(Error::usage(format!("`{}` is a folder", path.display())).with_hint("name a file in it"));
        }
        let temporary = temporary_name(path);
        let file = File::create(&temporary).map_err(Error::io("create", path))?;
        Ok(Self { path: path.to_path_buf(), temporary, file: BufWriter::new(file) })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}").map_err(Error::io("write", &self.path))
    }

    /// Makes it appear, after everything is on the disk.
    ///
    /// # Errors
    /// When it cannot be written or renamed.
    pub fn publish(mut self) -> Result<()> {
        let whole = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        whole.and_then(|()| fs::rename(&self.temporary, &self.path)).map_err(Error::io("write", &self.path))?;
        sync_parent(&self.path);
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // not there any more when it was published
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Makes a rename within the folder of `path` last, where the file system can.
pub fn sync_parent(path: &Path) {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_dir(parent.unwrap_or(Path::new(".")));
}

/// Makes a directory that was filled under a temporary name appear under its own: contents are synced first, and what
/// stood there before is replaced, or put back when that fails.
pub fn publish_dir(temporary: &Path, path: &Path) -> Result<()> {
    fence::admit_open(path)?;
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
    sync_parent(path);
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
    fn new_files_appear_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        fs::write(&path, "old").unwrap();
        let mut dropped = NewFile::create(&path).unwrap();
        dropped.line("half").unwrap();
        // two of one process do not share a name
        let mut kept = NewFile::create(&path).unwrap();
        kept.line("new").unwrap();
        drop(dropped);
        assert_eq!(read_text(&path).unwrap(), "old");
        kept.publish().unwrap();
        assert_eq!((read_text(&path).unwrap().as_str(), list(dir.path()).unwrap().len()), ("new\n", 1));
        assert!(NewFile::create(dir.path()).unwrap_err().to_string().contains("is a folder"));
        assert!(NewFile::create(&dir.path().join("no/rows.jsonl")).is_err());
    }

    #[test]
    fn an_output_is_none_of_the_inputs() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a.jsonl"), "a").unwrap();
        fs::write(at("b.jsonl"), "a").unwrap();
        let refused = |output: &Path| keep_apart(output, [at("b.jsonl").as_path(), &at("a.jsonl")]).is_err();
        assert!(refused(&at("a.jsonl")) && refused(&at("../").join(dir.path()).join("./a.jsonl")));
        assert!(!refused(&at("new.jsonl")) && !refused(&at("no/a.jsonl")));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("a.jsonl", at("soft.jsonl")).unwrap();
            fs::hard_link(at("a.jsonl"), at("hard.jsonl")).unwrap();
            assert!(refused(&at("soft.jsonl")) && refused(&at("hard.jsonl")));
        }
    }

    #[test]
    fn a_renamed_file_is_no_longer_there() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        let file = create(&path).unwrap();
        assert!(is_at(&file, &path));
        fs::rename(&path, &other).unwrap();
        assert!(!is_at(&file, &path) && is_at(&file, &other));
        let second = open(&other).unwrap();
        assert!(lock(&file) && !lock(&second));
        drop(file);
        assert!(lock(&second));
    }

    #[test]
    fn leftovers_go_and_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.json", ".a.json.tmp-1-2", ".lock"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        clean_temporary(dir.path());
        assert_eq!(list(dir.path()).unwrap(), [dir.path().join(".lock"), dir.path().join("a.json")]);
    }

    #[test]
    fn a_lock_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let held = wait_for_lock(&path, Duration::ZERO).unwrap();
        assert!(wait_for_lock(&path, Duration::from_millis(20)).unwrap_err().to_string().contains("another process"));
        drop(held);
        wait_for_lock(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn bad_utf8_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs::write(&path, b"ok \xff").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("first bad byte at 3"));
    }
}
