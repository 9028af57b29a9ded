//! `eval/`: the CSV files of a run's evaluators, one row an evaluation, named and laid out as the reference's.

use std::path::Path;

use crate::error::{Error, Result};
use crate::eval::Csv;
use crate::flow::Metrics;
use crate::util::files;

/// Appends the row of an evaluation to each file, with a header to those that are new; the evaluators' own documents
/// take the place of the last evaluation's.
///
/// # Errors
/// When the disk is full, for one.
pub fn append(dir: &Path, tables: &[Csv], epoch: f64, steps: u64, metrics: &Metrics) -> Result<()> {
    if !(tables.is_empty() && metrics.documents.is_empty()) {
        files::create_dir(dir)?;
    }
    for document in &metrics.documents {
        files::write_atomic(&dir.join(&document.file), document.text.as_bytes())?;
    }
    for table in tables {
        let path = dir.join(&table.file);
        let mut file = files::append(&path)?;
        // there may have been no room for the header of one that is there
        let new = file.metadata().map_err(Error::io("open", &path))?.len() == 0;
        let header = if new { format!("{}\n", table.header()) } else { String::new() };
        let text = format!("{header}{}\n", table.row(epoch, steps, metrics));
        files::append_whole(&mut file, &path, text.as_bytes())?;
    }
    Ok(())
}

/// Drops the rows of `step` and later: those evaluations are made again.
///
/// # Errors
/// When a file cannot be rewritten.
pub fn resume_at(dir: &Path, step: u64) -> Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    for path in files::list(dir)?.iter().filter(|path| path.extension().is_some_and(|ending| ending == "csv")) {
        let text = files::read_text(path)?;
        let early = |line: &&str| line.split(',').nth(1).and_then(|s| s.parse::<u64>().ok()).is_none_or(|s| s < step);
        let kept: String = text.lines().filter(early).flat_map(|line| [line, "\n"]).collect();
        if kept != text {
            files::write_atomic(path, kept.as_bytes())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::flow::Document;

    #[test]
    fn evaluations_made_again_appear_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("eval");
        let table = Csv::new(None, "a.csv".to_owned()).unwrap().column("MSE", "x");
        let mut metrics = Metrics::default();
        metrics.push("x", 0.5);
        resume_at(&dir, 0).unwrap();
        for (step, epoch) in [(0, 0.0), (10, 0.5), (20, 1.0)] {
            append(&dir, std::slice::from_ref(&table), epoch, step, &metrics).unwrap();
        }
        resume_at(&dir, 10).unwrap();
        metrics.documents.push(Document { file: "b.jsonl".to_owned(), text: "{}\n".to_owned() });
        append(&dir, &[table], 0.5, 10, &metrics).unwrap();
        assert_eq!(files::read_text(&dir.join("b.jsonl")).unwrap(), "{}\n");
        let text = files::read_text(&dir.join("a.csv")).unwrap();
        assert_eq!(text, "epoch,steps,MSE\n0.0,0,0.5\n0.5,10,0.5\n");
    }
}
