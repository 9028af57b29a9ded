//! Keys: two starts with the same key, in the same folder of runs, are one run.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::folder::RunFolder;
use crate::error::{Error, Result};
use crate::util::files;

/// Held from the look for a key until the run that has it is there.
const LOCK: &str = ".keys.lock";

/// The file of a run with its key.
const KEY: &str = "key";

/// A run's folder is made in moments.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most characters of a key.
const LONGEST: usize = 200;

/// Refuses what cannot be a key.
///
/// # Errors
/// When it is empty, long, or has line breaks and the like.
pub fn check(key: &str) -> Result<()> {
    let length = key.chars().count();
    let fault = if key.trim().is_empty() {
        "is empty".to_owned()
    } else if length > LONGEST {
        format!("has {length} characters, {LONGEST} are the most")
    } else if key.chars().any(char::is_control) {
        "has characters that cannot be printed".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::usage(format!("the key of a run {fault}")).with_hint("any word of your own that no other start has"))
}

/// Keeps others from looking for keys in `runs`, which is made, until the file is dropped.
///
/// # Errors
/// When the folder cannot be written to.
pub fn lock(runs: &Path) -> Result<File> {
    files::create_dir(runs)?;
    files::wait_for_lock(&runs.join(LOCK), PATIENCE)
}

/// Removes the file of the lock, but not from somebody who holds it; whoever waits for it makes it anew.
pub(super) fn forget_lock(runs: &Path) {
    let path = runs.join(LOCK);
    if let Ok(file) = files::open(&path)
        && files::lock(&file)
    {
        let _ = std::fs::remove_file(path);
    }
}

/// The run in `runs` that was started with `key`.
///
/// # Errors
/// When the folder cannot be listed.
pub fn find(runs: &Path, key: &str) -> Result<Option<RunFolder>> {
    Ok(RunFolder::all(runs)?.into_iter().find(|folder| of(folder).as_deref() == Some(key)))
}

/// The key that a run was started with.
#[must_use]
pub fn of(folder: &RunFolder) -> Option<String> {
    let text = files::read_text(&folder.dir().join(KEY)).ok()?;
    Some(text.trim_end_matches('\n').to_owned()).filter(|key| !key.is_empty())
}

/// Gives a run its key.
///
/// # Errors
/// When it cannot be written.
pub fn keep(folder: &RunFolder, key: &str) -> Result<()> {
    files::write_atomic(&folder.dir().join(KEY), format!("{key}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runs::status::{self, Status};

    #[test]
    fn a_key_leads_to_its_run() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        assert!(find(&runs, "a").unwrap().is_none());
        let held = lock(&runs).unwrap();
        let folders: Vec<RunFolder> = ["a", "b", "c"].map(|_| RunFolder::create(&runs, "x").unwrap()).into();
        for (folder, key) in folders.iter().zip(["a", " b "]) {
            status::write(folder, &Status::starting(folder.run_id(), "x")).unwrap();
            keep(folder, key).unwrap();
        }
        drop(held);
        assert_eq!(find(&runs, "a").unwrap().as_ref(), Some(&folders[0]));
        assert_eq!(find(&runs, " b ").unwrap().as_ref(), Some(&folders[1]));
        assert!(find(&runs, "b").unwrap().is_none() && of(&folders[2]).is_none());
    }

    #[test]
    fn what_cannot_be_a_key() {
        check("night-3 of 7/ä").unwrap();
        for key in ["", " ", "a\nb", &"x".repeat(201)] {
            assert!(check(key).unwrap_err().hint().is_some(), "{key:?}");
        }
    }
}
