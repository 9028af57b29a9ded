//! Where tokenised data lives, how an entry appears whole, and what goes when there is too much.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::util::{clock, files};

/// Entries are kept up to this many bytes; those unused for longest go first.
const MOST_BYTES: u64 = 20_000_000_000;

/// What a crashed process left behind goes after this long.
pub(super) const STALE: Duration = Duration::from_secs(24 * 3600);

const USED: &str = "last_used";

/// The folder of the store's entries.
///
/// # Errors
/// As [`place`].
pub fn folder() -> Result<PathBuf> {
    place("store")
}

/// A folder of this user for what is kept between commands: under `TALLOW_CACHE_DIR`, `$XDG_CACHE_HOME/tallow`,
/// `~/.cache/tallow` or the system's temporary directory, whichever is set and can be written to first.
///
/// # Errors
/// When `TALLOW_CACHE_DIR` is set and cannot be written to, or nothing can.
pub fn place(name: &str) -> Result<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = var("TALLOW_CACHE_DIR") {
        let folder = dir.join(name);
        files::create_dir(&folder)?;
        return Ok(folder);
    }
    let candidates = [
        var("XDG_CACHE_HOME").map(|d| d.join("tallow")),
        var("HOME").map(|d| d.join(".cache").join("tallow")),
        Some(std::env::temp_dir().join("tallow")),
    ];
    let mut refused = None;
    for folder in candidates.into_iter().flatten().map(|d| d.join(name)) {
        // Being able to create the folder does not mean that one may write into a folder that stood there.
        let probe = files::temporary_name(&folder.join("probe"));
        match files::create_dir(&folder).and_then(|()| files::create_dir(&probe)) {
            Ok(()) => {
                let _ = fs::remove_dir(&probe);
                return Ok(folder);
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Error::data("there is no place to keep anything between commands").with_hint("set `TALLOW_CACHE_DIR`")
    }))
}

/// A directory that goes when it is dropped unless it was published.
pub(super) struct Draft {
    pub path: PathBuf,
}

impl Draft {
    pub(super) fn create(entry: &Path) -> Result<Self> {
        let path = files::temporary_name(entry);
        // A process that had the same number long ago may have died over it.
        files::remove_dir(&path)?;
        files::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Makes the draft appear as `entry`. Should another process have been faster, `is_whole` tells whether its
    /// work can be used; if not, it is replaced.
    pub(super) fn publish(self, entry: &Path, is_whole: impl Fn(&Path) -> bool) -> Result<()> {
        for _ in 0..8 {
            // A rename onto a directory with something in it fails, so nobody's finished work is overwritten.
            let Err(error) = fs::rename(&self.path, entry) else {
                return Ok(());
            };
            if !entry.exists() {
                return Err(Error::io("rename to", entry)(error));
            }
            if is_whole(entry) {
                return Ok(());
            }
            let aside = files::temporary_name(entry);
            if fs::rename(entry, &aside).is_ok() {
                let _ = files::remove_dir(&aside);
            }
        }
        Err(Error::data(format!("`{}` cannot be replaced", entry.display()))
            .with_hint("remove it, or set `TALLOW_CACHE_DIR`"))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = files::remove_dir(&self.path);
    }
}

/// Notes that an entry was used now; where that cannot be written, it only goes earlier.
pub(super) fn touch(entry: &Path) {
    let _ = fs::write(entry.join(USED), clock::now());
}

/// Removes leftovers and, while there is too much, the entries unused for longest; never `keep`.
pub(super) fn prune(folder: &Path, keep: &Path) {
    prune_to(folder, keep, MOST_BYTES);
}

/// How long ago something was written to; of what cannot be read, very long.
pub(super) fn age(path: &Path) -> Duration {
    let modified = fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    SystemTime::now().duration_since(modified).unwrap_or_default()
}

fn prune_to(folder: &Path, keep: &Path, most_bytes: u64) {
    let mut entries = Vec::new();
    for path in files::list(folder).unwrap_or_default().into_iter().filter(|p| p.is_dir()) {
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if hidden {
            if age(&path) > STALE {
                let _ = files::remove_dir(&path);
            }
        } else {
            let sizes = files::list(&path).unwrap_or_default();
            let bytes: u64 = sizes.iter().filter_map(|f| fs::metadata(f).ok()).map(|m| m.len()).sum();
            entries.push((age(&path.join(USED)), bytes, path));
        }
    }
    entries.sort_by_key(|e| std::cmp::Reverse(e.0));
    let mut total: u64 = entries.iter().map(|e| e.1).sum();
    for (_, bytes, path) in entries.iter().filter(|e| e.2 != keep) {
        if total <= most_bytes {
            break;
        }
        // Renamed first, so that nobody finds half an entry.
        let aside = files::temporary_name(path);
        if fs::rename(path, &aside).is_ok() {
            let _ = files::remove_dir(&aside);
            total -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn entry(folder: &Path, name: &str, bytes: usize, seconds_ago: u64) -> PathBuf {
        let path = folder.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("tokens"), vec![0; bytes]).unwrap();
        touch(&path);
        let used = fs::File::options().write(true).open(path.join(USED)).unwrap();
        used.set_modified(SystemTime::now() - Duration::from_secs(seconds_ago)).unwrap();
        path
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let old = entry(dir.path(), "old", 1000, 50);
        let kept = entry(dir.path(), "kept", 1000, 90);
        let young = entry(dir.path(), "young", 1000, 5);
        prune_to(dir.path(), &kept, 2500);
        assert!(!old.exists() && kept.exists() && young.exists());
        prune_to(dir.path(), &kept, 100);
        assert!(kept.exists() && !young.exists());
        assert_eq!(files::list(dir.path()).unwrap(), [kept]);
    }

    #[test]
    fn a_draft_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("entry");
        drop(Draft::create(&place).unwrap());
        assert!(files::list(dir.path()).unwrap().is_empty());

        let write = |text: &str| {
            let draft = Draft::create(&place).unwrap();
            fs::write(draft.path.join("x"), text).unwrap();
            draft
        };
        let read = || fs::read_to_string(place.join("x")).unwrap();
        write("one").publish(&place, |_| true).unwrap();
        // The one that was first stays, if it is whole ...
        write("two").publish(&place, |_| true).unwrap();
        assert_eq!(read(), "one");
        // ... and goes if it is not.
        write("three").publish(&place, |p| fs::read_to_string(p.join("x")).unwrap() != "one").unwrap();
        assert_eq!(read(), "three");
        assert_eq!(files::list(dir.path()).unwrap(), [place]);
    }
}
