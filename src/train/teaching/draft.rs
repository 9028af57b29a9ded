//! The rows so far, in a hidden file beside the output, and in a second one what they are made of: who is killed goes on
//! there.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::util::files;
use crate::util::numbers::thousands;

/// Everything that rows depend on, each as a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub teacher: String,
    pub data: String,
    pub settings: String,
}

impl Origin {
    /// What differs, for messages.
    fn differs(&self, other: &Self) -> String {
        let parts = [
            ("teacher", self.teacher != other.teacher),
            ("data", self.data != other.data),
            ("settings", self.settings != other.settings),
        ];
        let named: Vec<&str> = parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
        named.join(" and ")
    }
}

/// The least, the mean and the largest of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    least: f64,
    sum: f64,
    most: f64,
    count: u64,
}

impl Spread {
    fn add(&mut self, number: f32) {
        let number = f64::from(number);
        (self.least, self.most) = (self.least.min(number), self.most.max(number));
        (self.sum, self.count) = (self.sum + number, self.count + 1);
    }

    /// The least, the mean and the largest; `None` of no number.
    pub fn figures(&self) -> Option<(f64, f64, f64)> {
        (self.count > 0).then(|| (self.least, self.sum / self.count as f64, self.most))
    }
}

/// Rows that are written, whole lines at a time.
pub struct Draft {
    path: PathBuf,
    notes: PathBuf,
    /// Locked from before it is looked into until it has the output's name.
    file: BufWriter<File>,
    rows: usize,
    spread: Spread,
}

impl Draft {
    /// Goes on with the draft of `output` if it has rows of the same origin, with labels in the column `label`. Another is
    /// thrown away: the text says so, and why.
    ///
    /// # Errors
    /// When another process is writing it, or it cannot be written.
    pub fn open(output: &Path, origin: &Origin, label: &str) -> Result<(Self, Option<String>)> {
        if output.is_dir() {
            return Err(Error::usage(format!("`{}` is a folder", output.display())).with_hint("name a file in it"));
        }
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let beside = |ending: &str| output.with_file_name(format!(".{name}.{ending}"));
        let (path, notes) = (beside("part"), beside("part-of"));
        let file = locked(&path, output)?;
        let spread = Spread { least: f64::INFINITY, sum: 0.0, most: f64::NEG_INFINITY, count: 0 };
        let mut draft = Self { path, notes, file: BufWriter::new(file), rows: 0, spread };
        let before = files::read_text(&draft.notes).ok().and_then(|text| serde_json::from_str::<Origin>(&text).ok());
        draft.take_up(label)?;
        let thrown = match before {
            Some(before) if before == *origin => return Ok((draft, None)),
            Some(before) => format!("of another call ({} differ)", origin.differs(&before)),
            None => "of which nobody knows what they were made of".to_owned(),
        };
        let notice = (draft.rows > 0).then(|| {
            format!("{} rows in `{}`, {thrown}, are thrown away", thousands(draft.rows), draft.path.display())
        });
        (draft.rows, draft.spread) = (0, spread);
        draft.cut(0)?;
        let text = serde_json::to_string(origin).map_err(|e| Error::Internal(format!("an origin as JSON: {e}")))?;
        files::write_atomic(&draft.notes, text.as_bytes())?;
        Ok((draft, notice))
    }

    /// Counts the rows that are there; what was being written when the process ended goes.
    fn take_up(&mut self, label: &str) -> Result<()> {
        let mut file = self.file.get_ref();
        file.seek(SeekFrom::Start(0)).map_err(Error::io("read", &self.path))?;
        let mut reader = BufReader::new(file);
        let (mut bytes, mut whole) = (Vec::new(), 0);
        loop {
            bytes.clear();
            let read = reader.read_until(b'\n', &mut bytes).map_err(Error::io("read", &self.path))?;
            let Some(numbers) = bytes.strip_suffix(b"\n").and_then(|line| numbers(line, label)) else { break };
            numbers.into_iter().for_each(|number| self.spread.add(number));
            whole += read as u64;
            self.rows += 1;
        }
        self.cut(whole)
    }

    fn cut(&self, length: u64) -> Result<()> {
        self.file.get_ref().set_len(length).map_err(Error::io("write", &self.path))
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How the labels' numbers are spread.
    pub fn spread(&self) -> Spread {
        self.spread
    }

    /// Adds a row with its label's numbers.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, line: &str, numbers: &[f32]) -> Result<()> {
        writeln!(self.file, "{line}").map_err(Error::io("write", &self.path))?;
        numbers.iter().for_each(|number| self.spread.add(*number));
        self.rows += 1;
        Ok(())
    }

    /// Hands all rows to the system, which keeps them if this process is killed.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }

    /// Makes the rows appear as `output`.
    ///
    /// # Errors
    /// When they cannot be written or renamed.
    pub fn publish(mut self, output: &Path) -> Result<()> {
        self.flush()?;
        self.file.get_ref().sync_all().map_err(Error::io("write", &self.path))?;
        // still locked: who waits for it finds that it has gone
        std::fs::rename(&self.path, output).map_err(Error::io("write", output))?;
        let _ = std::fs::remove_file(&self.notes);
        files::sync_parent(output);
        Ok(())
    }
}

/// The draft's file, made if it is not there, held by this process.
fn locked(path: &Path, output: &Path) -> Result<File> {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        let file = files::open_with(OpenOptions::new().read(true).append(true).create(true), path)?;
        if !files::lock(&file) {
            break;
        }
        // who held it before may have made it the output meanwhile
        if files::is_at(&file, path) {
            return Ok(file);
        }
    }
    Err(Error::usage(format!("another process is writing `{}`", output.display()))
        .with_hint("wait for it, or name another `--output`"))
}

/// The numbers of a row's label; `None` for what is no row.
fn numbers(line: &[u8], label: &str) -> Option<Vec<f32>> {
    let row: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line).ok()?;
    let number = |value: &serde_json::Value| value.as_f64().map(|number| number as f32);
    match row.get(label)? {
        serde_json::Value::Array(numbers) => numbers.iter().map(number).collect(),
        one => Some(vec![number(one)?]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn origin(teacher: &str, data: &str) -> Origin {
        Origin { teacher: teacher.to_owned(), data: data.to_owned(), settings: "s".to_owned() }
    }

    fn write(output: &Path, from: &Origin, labels: &[f32]) -> Draft {
        let (mut draft, _) = Draft::open(output, from, "label").unwrap();
        for label in labels {
            draft.add(&format!("{{\"label\":{label}}}"), &[*label]).unwrap();
        }
        draft.flush().unwrap();
        draft
    }

    #[test]
    fn a_draft_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("o.jsonl");
        let held = write(&output, &origin("a", "d"), &[1.0, 2.0]);
        let there = std::fs::read(dir.path().join(".o.jsonl.part")).unwrap();
        // another call with another teacher, at the same time
        let error = Draft::open(&output, &origin("b", "d"), "label").err().unwrap();
        assert!(error.to_string().contains("another process is writing"), "{error}");
        assert_eq!(std::fs::read(dir.path().join(".o.jsonl.part")).unwrap(), there);
        held.publish(&output).unwrap();
        assert_eq!(std::fs::read(&output).unwrap(), there);
        assert_eq!(files::list(dir.path()).unwrap(), [output]);
    }

    #[test]
    fn rows_of_the_same_origin_are_taken_up_and_others_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("o.jsonl");
        drop(write(&output, &origin("a", "d"), &[1.0, 0.1, -3.0]));
        // half a line, and zeros where the machine went down
        let part = dir.path().join(".o.jsonl.part");
        for rest in [&b"{\"label\": 7"[..], b"\0\0\0\n{\"label\": 7}\n"] {
            let mut file = OpenOptions::new().append(true).open(&part).unwrap();
            file.write_all(rest).unwrap();
            let (draft, notice) = Draft::open(&output, &origin("a", "d"), "label").unwrap();
            assert_eq!((draft.rows(), notice), (3, None));
            let (least, mean, most) = draft.spread().figures().unwrap();
            assert_eq!((least, most), (-3.0, 1.0));
            assert!((mean - (1.0 + f64::from(0.1f32) - 3.0) / 3.0).abs() < 1e-12);
        }
        let (draft, notice) = Draft::open(&output, &origin("b", "e"), "label").unwrap();
        let notice = notice.unwrap();
        assert!(notice.contains("3 rows") && notice.contains("teacher and data differ"), "{notice}");
        assert_eq!((draft.rows(), draft.spread().figures()), (0, None));
        drop(draft);
        assert_eq!(Draft::open(&output, &origin("c", "e"), "label").unwrap().1, None, "nothing to throw away");
        assert!(Draft::open(dir.path(), &origin("a", "d"), "label").is_err());
    }
}
