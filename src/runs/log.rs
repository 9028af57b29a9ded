//! `logs/<run_name>.log`: every line for people, with the time.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::util::{clock, files};

/// A log that is appended to; runs of one name share it.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens or makes the log, with its folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            files::create_dir(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("open", path))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Appends the lines of `text`, each with the time in front.
    ///
    /// # Errors
    /// When the disk is full, for one.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let now = clock::now();
        let stamped: String = text.lines().map(|line| format!("{now} {line}\n")).collect();
        self.file.write_all(stamped.as_bytes()).map_err(Error::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
