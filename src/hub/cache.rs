//! Where does a repository lie on this machine? In the cache of Python's `huggingface_hub`:
//!
//! ```text
//! models--owner--name/   refs/<revision>            the commit that a branch was at
//!                        snapshots/<commit>/<path>  links into blobs
//!                        blobs/<etag>               contents; what is not whole yet ends in .incomplete
//! .locks/models--owner--name/<etag>.lock            held by whoever fetches it
//! ```
//!
//! Source: `file_download.py` of huggingface_hub. A repository lies under the id that was asked for, as there.

use std::fs::{self, File, TryLockError};
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::util::files;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// In addresses and folders.
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// The part of the cache that is one repository's.
pub(super) struct Cache {
    root: PathBuf,
    locks: PathBuf,
}

impl Cache {
    /// Of the repository `id` in the cache at `folder`.
    pub(super) fn new(folder: &Path, kind: Kind, id: &str) -> Self {
        let name = format!("{}--{}", kind.plural(), id.replace('/', "--"));
        Self { locks: folder.join(".locks").join(&name), root: folder.join(name) }
    }

    /// What is here of a commit, or of what a branch or tag was at when it was asked for last.
    pub(super) fn snapshot(&self, revision: &str) -> Option<PathBuf> {
        let named = self.root.join("refs").join(revision);
        let commit = match is_commit(revision) {
            true => revision.to_owned(),
            false => fs::read_to_string(named).ok()?.trim().to_owned(),
        };
        Some(self.folder(&commit)).filter(|folder| is_commit(&commit) && folder.is_dir())
    }

    /// The folder of a commit.
    pub(super) fn folder(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// Writes down what a branch is at.
    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        if is_commit(revision) || !is_inside(revision) {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        path.parent().map_or(Ok(()), files::create_dir)?;
        files::write_atomic(&path, commit.as_bytes())
    }

    /// Where a content lies once it is whole.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where a content lies while it comes.
    pub(super) fn incomplete(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The right to fetch a content; `None` while another process has it.
    pub(super) fn lock(&self, etag: &str) -> Result<Option<File>> {
        files::create_dir(&self.locks)?;
        files::create_dir(&self.root.join("blobs"))?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = files::create(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            // not every file system has locks; contents appear whole without them, too
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(Some(file)),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", path)(e)),
        }
    }

    /// Makes a content appear as a file of a commit.
    pub(super) fn link(&self, commit: &str, path: &str, etag: &str) -> Result<()> {
        let file = self.folder(commit).join(path);
        file.parent().map_or(Ok(()), files::create_dir)?;
        if file.symlink_metadata().is_ok() {
            fs::remove_file(&file).map_err(Error::io("replace", &file))?;
        }
        let up = "../".repeat(2 + Path::new(path).components().count() - 1);
        put(&format!("{up}blobs/{etag}"), &self.blob(etag), &file)
    }
}

#[cfg(unix)]
fn put(relative: &str, _: &Path, file: &Path) -> Result<()> {
    std::os::unix::fs::symlink(relative, file).map_err(Error::io("link", file))
}

/// Links need rights here that most accounts have not.
#[cfg(not(unix))]
fn put(_: &str, blob: &Path, file: &Path) -> Result<()> {
    files::copy(blob, file)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}

/// Whether a path stays inside the folder that it is put behind.
pub(super) fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_commit_are_links_to_contents() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), Kind::Dataset, "owner/name");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert!(cache.lock("tag").unwrap().is_some());
        fs::write(cache.blob("tag"), "content").unwrap();
        for path in ["a.json", "deep/er/b.json", "a.json"] {
            cache.link(commit, path, "tag").unwrap();
            assert_eq!(fs::read_to_string(cache.folder(commit).join(path)).unwrap(), "content");
        }
        assert_eq!(cache.snapshot("main"), None);
        cache.remember("main", commit).unwrap();
        cache.remember("refs/convert/parquet", commit).unwrap();
        cache.remember("../../out", commit).unwrap();
        assert!(!dir.path().join("out").exists());
        for revision in ["main", "refs/convert/parquet", commit] {
            assert_eq!(cache.snapshot(revision), Some(cache.folder(commit)), "{revision}");
        }
        let root = dir.path().join("datasets--owner--name");
        assert!(root.join("refs/refs/convert/parquet").is_file());
        // one at a time
        let held = cache.lock("tag").unwrap();
        assert!(cache.lock("tag").unwrap().is_none());
        drop(held);
        assert!(cache.lock("tag").unwrap().is_some());
    }

    #[test]
    fn paths_stay_inside() {
        for (path, inside) in [("a/b.json", true), ("../a", false), ("/a", false), ("", false), ("a/../b", false)] {
            assert_eq!(is_inside(path), inside, "{path}");
        }
    }
}
