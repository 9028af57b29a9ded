//! What was tried so far, and what came of it? `experiments.jsonl` has an entry a run and is what programs read;
//! `experiments.md` beside it says the same for people: a table on top, a section a run below, newest first.
//!
//! Failures are entries, too. A run that is resumed renews its own entry; text that people wrote stays. Two runs that end
//! at once wait for each other.

pub mod compare;
mod entry;
mod of_run;
mod page;
mod script_log;
mod table;
mod words;

use std::cmp::Ordering;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use entry::{Entry, Source};
pub use of_run::{Written, base, effective_recipe, keep_sets, losses};
pub use script_log::read_log;
pub use table::escape;

use crate::error::{Error, Result};
use crate::util::{files, suggest};

/// The folder's experiments, below the current directory, where nothing else is named.
pub const DEFAULT_FILE: &str = "logs/experiments.md";

/// All that was tried, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Experiments {
    pub entries: Vec<Entry>,
    /// Lines of the JSONL file that are no entries; they are kept.
    pub unreadable: usize,
}

/// The experiments that a script's log belongs to: those in its folder where that is called `logs`.
#[must_use]
pub fn beside_log(log: &Path) -> PathBuf {
    let folder = files::absolute(log).parent().map(Path::to_path_buf).unwrap_or_default();
    if folder.ends_with("logs") { folder.join("experiments.md") } else { PathBuf::from(DEFAULT_FILE) }
}

/// `experiments.jsonl` beside `experiments.md`.
#[must_use]
pub fn jsonl(page: &Path) -> PathBuf {
    page.with_extension("jsonl")
}

/// Reads what there is; nothing when the files are not there. Rows of the table that have no entry (those of a script, or
/// of an earlier version) are taken from the page.
///
/// # Errors
/// When a file cannot be read.
pub fn read(page: &Path) -> Result<Experiments> {
    let (lines, mut entries) = lines(&jsonl(page))?;
    let unreadable = lines.iter().filter(|line| matches!(line, Line::Other(_))).count();
    if page.is_file() {
        let mut rows: Vec<Entry> = table::entries(&files::read_text(page)?);
        rows.retain(|row| entries.iter().all(|entry| !entry.is_row(row)));
        entries.extend(rows.into_iter().rev());
    }
    entries.sort_by_key(|entry| sortable(&entry.date));
    Ok(Experiments { entries, unreadable })
}

/// A date as it sorts: scripts write `2026-08-21 10:20`, runs `2026-08-21T10:20:30Z`.
fn sortable(date: &str) -> String {
    date.replace('T', " ")
}

impl Experiments {
    /// The entry meant by `run`: an id, a run's folder, or the beginning of exactly one id.
    ///
    /// # Errors
    /// When there is none, or several could be meant.
    pub fn find(&self, run: &str) -> Result<&Entry> {
        let newest_first = || self.entries.iter().rev();
        let wanted = Path::new(run);
        let folder = wanted.canonicalize().ok();
        let exact = newest_first()
            .find(|entry| entry.run_id == run || folder.is_some() && entry.run_dir.as_deref() == folder.as_deref());
        if let Some(entry) = exact {
            return Ok(entry);
        }
        let begin: Vec<&Entry> =
            newest_first().filter(|entry| !run.is_empty() && entry.run_id.starts_with(run)).collect();
        let names = || newest_first().take(8).map(|entry| entry.run_id.as_str());
        match begin.as_slice() {
            [one] => Ok(one),
            [] if self.entries.is_empty() => Err(Error::usage(format!("there is no experiment `{run}`, and no other"))
                .with_hint("runs enter themselves when they end; `tallow log RUN` enters one")),
            [] => Err(Error::usage(format!("there is no experiment `{run}`"))
                .with_hint(suggest::hint(run, names().collect::<Vec<_>>()))),
            several => {
                let names: Vec<String> = several.iter().take(8).map(|entry| format!("`{}`", entry.run_id)).collect();
                Err(Error::usage(format!("`{run}` could be {} experiments", several.len()))
                    .with_hint(format!("name one of {}", names.join(", "))))
            }
        }
    }

    /// The run before `entry` with the same metric on the same held-out data that ended with a score.
    #[must_use]
    pub fn before(&self, entry: &Entry) -> Option<&Entry> {
        let own = self.entries.iter().position(|other| other.run_id == entry.run_id).unwrap_or(self.entries.len());
        let date = sortable(&entry.date);
        let earlier = |at: usize, other: &Entry| match sortable(&other.date).cmp(&date) {
            Ordering::Less => other.run_id != entry.run_id,
            Ordering::Equal => at < own,
            Ordering::Greater => false,
        };
        let scored = |other: &Entry| other.score.is_some() && other.measured_as(entry);
        let mut entries = self.entries.iter().enumerate();
        entries.rfind(|(at, other)| earlier(*at, other) && scored(other)).map(|(_, other)| other)
    }
}

/// Adds the entry of a run, or renews the one it had: its notes stay. Says what was tried and learned by the runs before.
/// Returns the entry as it stands there, and whether there was one.
///
/// # Errors
/// When a file cannot be read or written.
pub fn enter(page: &Path, entry: Entry) -> Result<(Entry, bool)> {
    let _lock = lock(page)?;
    let known = read(page)?;
    let mut entry = entry;
    let earlier = known.entries.iter().find(|other| other.run_id == entry.run_id);
    if let Some(earlier) = earlier {
        entry.amended_as(earlier);
    }
    let renewed = earlier.is_some();
    let mut others = known.entries.iter().filter(|other| other.run_id != entry.run_id);
    let newest = others.all(|other| sortable(&other.date) <= sortable(&entry.date));
    let before = known.before(&entry);
    entry.tried = words::tried(&entry, before);
    entry.learned = words::learned(&entry, before);
    write(page, &entry, newest)?;
    Ok((entry, renewed))
}

/// Adds what people say of a run that is entered: a note, and what was learned of it.
///
/// # Errors
/// When there is no such entry, or a file cannot be written.
pub fn amend(page: &Path, run_id: &str, note: Option<&str>, learned: Option<&str>) -> Result<Entry> {
    let _lock = lock(page)?;
    let mut entry = read(page)?.find(run_id)?.clone();
    if let Some(note) = note.filter(|note| !entry.notes.iter().any(|known| known == note)) {
        entry.notes.push(note.to_owned());
    }
    if let Some(learned) = learned {
        entry.said = Some(learned.to_owned());
    }
    write(page, &entry, false)?;
    Ok(entry)
}

/// Writes one entry into both files; the newest becomes the first of the page and the last of the JSONL. What the page
/// lost of others is put back.
fn write(page: &Path, entry: &Entry, newest: bool) -> Result<()> {
    let path = jsonl(page);
    let (mut lines, known) = lines(&path)?;
    let text = serde_json::to_string(entry).map_err(|e| Error::Internal(format!("an experiment as JSON: {e}")))?;
    // of several lines of one run the last counts
    let own = lines.iter().rposition(|line| line.is(&entry.run_id)).filter(|_| !newest);
    let behind = lines.split_off(own.map_or(lines.len(), |at| at + 1));
    lines.retain(|line| !line.is(&entry.run_id));
    lines.push(Line::Entry(entry.run_id.clone(), text));
    lines.extend(behind);
    let text: String = lines.iter().map(|line| line.text().to_owned() + "\n").collect();
    files::write_atomic(&path, text.as_bytes())?;
    let old = if page.is_file() { files::read_text(page)? } else { page::INTRODUCTION.to_owned() };
    let mut new = put(&old, entry, newest, &known);
    let (mut rows, mut headings) = (table::entries(&new), page::headings(&new));
    for other in known.iter().filter(|other| other.run_id != entry.run_id) {
        if !table::has_row(&rows, other) || !headings.contains(&page::heading(&other.run_id)) {
            new = put(&new, other, false, &known);
            (rows, headings) = (table::entries(&new), page::headings(&new));
        }
    }
    files::write_atomic(page, new.as_bytes())
}

/// The page with the row and the section of an entry, which go before older ones.
fn put(text: &str, entry: &Entry, newest: bool, known: &[Entry]) -> String {
    let date = sortable(&entry.date);
    let earlier = |other: &&Entry| sortable(&other.date) < date;
    let older: Vec<String> = known.iter().filter(earlier).map(|other| page::heading(&other.run_id)).collect();
    let text = table::with_row(text, entry, newest);
    page::with_section(&text, entry, newest, |heading| older.iter().any(|own| own == heading))
}

/// How long one process waits for another to write its entry.
const PATIENCE: Duration = Duration::from_secs(30);

/// Held while the files are read and written.
fn lock(page: &Path) -> Result<File> {
    let folder = page.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::create_dir(folder)?;
    // the lock of training scripts, too
    files::wait_for_lock(&folder.join(".experiments.lock"), PATIENCE)
}

/// A line of the JSONL file.
enum Line {
    /// An entry: its run and the line.
    Entry(String, String),
    /// Something else, which is left as it is.
    Other(String),
}

impl Line {
    fn is(&self, run_id: &str) -> bool {
        matches!(self, Self::Entry(own, _) if own == run_id)
    }

    fn text(&self) -> &str {
        match self {
            Self::Entry(_, text) | Self::Other(text) => text,
        }
    }
}

fn lines(path: &Path) -> Result<(Vec<Line>, Vec<Entry>)> {
    let text = if path.is_file() { files::read_text(path)? } else { String::new() };
    let mut entries: Vec<Entry> = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match serde_json::from_str::<Entry>(line) {
            Ok(entry) if !entry.run_id.is_empty() => {
                lines.push(Line::Entry(entry.run_id.clone(), line.to_owned()));
                // of two lines of one run the later counts
                entries.retain(|other| other.run_id != entry.run_id);
                entries.push(entry);
            }
            _ => lines.push(Line::Other(line.to_owned())),
        }
    }
    Ok((lines, entries))
}

#[cfg(test)]
mod tests;
