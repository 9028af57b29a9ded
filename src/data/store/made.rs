//! Rows that are made of others, with hard negatives or of parts of splits, kept by what they depend on: a file of rows and
//! one of notes an entry.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::cache;
use crate::error::Result;
use crate::util::files;

/// Entries are kept up to this many bytes; those unused for longest go first.
const MOST_BYTES: u64 = 5_000_000_000;

/// The place of the rows that one data set and one way to make them give.
#[derive(Debug)]
pub struct MadeRows {
    folder: PathBuf,
    /// The rows, as JSON lines.
    pub rows: PathBuf,
    /// Written last, so that rows with them are whole; their age is when the rows were used.
    notes: PathBuf,
}

impl MadeRows {
    /// Where what `key` stands for lies, beside the store of tokenised data.
    ///
    /// # Errors
    /// As [`cache::folder`].
    pub fn of(key: u128) -> Result<Self> {
        let folder = cache::folder()?.with_file_name("rows");
        files::create_dir(&folder)?;
        Ok(Self::within(folder, &format!("{key:032x}")))
    }

    fn within(folder: PathBuf, name: &str) -> Self {
        let at = |ending: &str| folder.join(format!("{name}.{ending}"));
        Self { rows: at("jsonl"), notes: at("json"), folder }
    }

    /// What was noted of the rows, where they are there and whole.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn notes(&self) -> Result<Option<String>> {
        if !(self.notes.is_file() && self.rows.is_file()) {
            return Ok(None);
        }
        // where that cannot be written, they only go earlier
        let _ = File::options().append(true).open(&self.notes).and_then(|file| file.set_modified(SystemTime::now()));
        files::read_text(&self.notes).map(Some)
    }

    /// Notes that the rows are whole; the rows that were unused for longest go when there are too many.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, notes: &str) -> Result<()> {
        files::write_atomic(&self.notes, notes.as_bytes())?;
        self.prune(MOST_BYTES);
        Ok(())
    }

    fn prune(&self, most_bytes: u64) {
        let mut entries = Vec::new();
        for path in files::list(&self.folder).unwrap_or_default() {
            let ending = |wanted: &str| path.extension().is_some_and(|ending| ending == wanted);
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if ending("jsonl") && !hidden {
                entries.push((used(&path), fs::metadata(&path).map_or(0, |m| m.len()), path));
            } else if hidden && cache::age(&path) > cache::STALE {
                // a process that was killed left it
                let _ = fs::remove_file(&path);
            }
        }
        entries.sort_by_key(|(age, ..)| std::cmp::Reverse(*age));
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, rows) in entries.iter().filter(|(.., rows)| *rows != self.rows) {
            if total <= most_bytes {
                break;
            }
            // the notes first: without them rows count as not there
            let _ = fs::remove_file(rows.with_extension("json"));
            if fs::remove_file(rows).is_ok() {
                total -= bytes;
            }
        }
    }
}

/// When rows were used last: of rows without notes, which are being made, when they were written.
fn used(rows: &Path) -> Duration {
    let notes = rows.with_extension("json");
    cache::age(if notes.is_file() { &notes } else { rows })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn set_age(path: &Path, seconds: u64) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    fn entry(folder: &Path, name: &str, seconds: u64) -> MadeRows {
        let entry = MadeRows::within(folder.to_path_buf(), name);
        fs::write(&entry.rows, [b'x'; 1000]).unwrap();
        fs::write(&entry.notes, "notes").unwrap();
        set_age(&entry.notes, seconds);
        entry
    }

    #[test]
    fn rows_that_are_used_stay_longest() {
        let dir = tempfile::tempdir().unwrap();
        let [old, used, young] = [("a", 50), ("b", 90), ("c", 5)].map(|(name, age)| entry(dir.path(), name, age));
        fs::write(dir.path().join(".d.jsonl.tmp-1-0"), "half").unwrap();
        assert_eq!(used.notes().unwrap().as_deref(), Some("notes"));
        young.prune(2500);
        assert_eq!((old.notes().unwrap(), old.rows.exists()), (None, false));
        assert!(used.rows.exists() && young.rows.exists());
        set_age(&dir.path().join(".d.jsonl.tmp-1-0"), 100_000);
        young.prune(0);
        assert_eq!(files::list(dir.path()).unwrap(), [young.notes.clone(), young.rows.clone()]);
        // without notes nobody knows whether they are whole
        fs::remove_file(&young.notes).unwrap();
        assert_eq!(young.notes().unwrap(), None);
    }
}
