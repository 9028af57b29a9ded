//! `logs/<run_name>.log`: every line for people, with the time.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::util::{clock, files};

/// A log that is appended to; runs of one name share it.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// What was there, and what was written to it from here, in bytes.
    before: u64,
    written: u64,
    /// Whether its folder was made for it.
    new_folder: bool,
}

impl LogFile {
    /// Opens or makes the log, with its folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        let new_folder = path.parent().is_some_and(|parent| !parent.exists());
        if let Some(parent) = path.parent() {
            files::create_dir(parent)?;
        }
        let file = files::append(path)?;
        let before = file.metadata().map_err(Error::io("open", path))?.len();
        Ok(Self { path: path.to_path_buf(), file, before, written: 0, new_folder })
    }

    /// Appends the lines of `text`, each with the time in front.
    ///
    /// # Errors
    /// When the disk is full, for one.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let now = clock::now();
        let stamped: String = text.lines().map(|line| format!("{now} {line}\n")).collect();
        self.file.write_all(stamped.as_bytes()).map_err(Error::io("write", &self.path))?;
        self.written += stamped.len() as u64;
        Ok(())
    }

    /// Removes the log, and its folder if that was made for it, unless something else is in there.
    pub fn withdraw(self) {
        let ours = self.before == 0 && self.file.metadata().is_ok_and(|now| now.len() == self.written);
        if ours && std::fs::remove_file(&self.path).is_ok() && self.new_folder {
            // fails on a folder that is not empty, as it should
            let _ = self.path.parent().map(std::fs::remove_dir);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_is_ours_is_withdrawn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/a.log");
        let mut log = LogFile::open(&path).unwrap();
        log.write("one").unwrap();
        log.withdraw();
        assert!(!dir.path().join("logs").exists());

        let mut log = LogFile::open(&path).unwrap();
        log.write("one").unwrap();
        LogFile::open(&path).unwrap().write("somebody else").unwrap();
        log.withdraw();
        LogFile::open(&path).unwrap().withdraw();
        assert!(files::read_text(&path).unwrap().contains("somebody else"));
    }

    #[test]
    fn every_line_has_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/a.log");
        LogFile::open(&path).unwrap().write("one\ntwo").unwrap();
        LogFile::open(&path).unwrap().write("three").unwrap();
        let text = files::read_text(&path).unwrap();
        let words: Vec<&str> = text.lines().map(|l| l.split_once(' ').unwrap().1).collect();
        assert_eq!(words, ["one", "two", "three"]);
        assert!(text.lines().all(|l| l.split(' ').next().unwrap().ends_with('Z')));
    }
}
