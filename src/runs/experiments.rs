//! `logs/experiments.md`: a table with one row a run, newest first, failures included.

use std::path::Path;

use super::verdict::Judgement;
use crate::error::{Error, Result};
use crate::util::{clock, files};

/// One row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// When the run ended (UTC).
    pub date: String,
    /// The run's id.
    pub run_id: String,
    /// The base model.
    pub base: String,
    /// The training data, with the number of rows of all of it where the run ended well.
    pub data: String,
    /// The loss.
    pub loss: String,
    /// What one changes from run to run: learning rate, batch size, epochs.
    pub settings: String,
    /// The metric's key, score before and after, verdict.
    pub metric: String,
    pub baseline: String,
    pub score: String,
    pub delta: String,
    /// `WIN`, `MARGINAL`, `REGRESSION`, `NONE`, `FAILED`, `CANCELLED`.
    pub verdict: String,
    /// How long it took.
    pub time: String,
}

const HEADER: &str =
    "| date | run | base | data | loss | settings | metric | baseline | score | delta | verdict | time |";
const RULE: &str = "|---|---|---|---|---|---|---|---|---|---|---|---|";
const INTRODUCTION: &str = "# Experiments\n\nOne row a run, newest first, written by tallow when a run ends. \
                            Text around the table is left alone.\n\n";

impl Row {
    /// Takes the numbers of a judgement.
    #[must_use]
    pub fn judged(mut self, judgement: &Judgement) -> Self {
        let plain = |x: Option<f64>| x.map(|x| format!("{x:.4}")).unwrap_or_default();
        self.metric = judgement.metric.clone().unwrap_or_default();
        self.baseline = plain(judgement.baseline);
        self.score = plain(judgement.score);
        self.delta = judgement.delta.map(|d| format!("{d:+.4}")).unwrap_or_default();
        self.verdict = judgement.verdict.name().to_owned();
        self
    }

    /// Sets the time it took.
    #[must_use]
    pub fn took(mut self, seconds: f64) -> Self {
        self.time = clock::human(seconds);
        self
    }

    fn line(&self) -> String {
        let cells = [
            &self.date,
            &self.run_id,
            &self.base,
            &self.data,
            &self.loss,
            &self.settings,
            &self.metric,
            &self.baseline,
            &self.score,
            &self.delta,
            &self.verdict,
            &self.time,
        ];
        let cells: Vec<String> = cells.iter().map(|c| escape(c)).collect();
        format!("| {} |", cells.join(" | "))
    }
}

/// A table cell cannot hold a bar or a line break.
#[must_use]
pub fn escape(cell: &str) -> String {
    cell.replace('\\', "\\\\").replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Puts a row at the top of the table, in place of the one that the run left when it ended before and was resumed
/// since; the file and the table are made when they are not there. Two runs that end at once wait for each other.
///
/// # Errors
/// When the file cannot be read or written.
pub fn enter(path: &Path, row: &Row) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    files::create_dir(folder)?;
    let lock_path = folder.join(".experiments.lock");
    let lock = files::create(&lock_path)?;
    // a file system without locks is better served by a row at risk than by none
    if let Err(e) = lock.lock()
        && e.kind() != std::io::ErrorKind::Unsupported
    {
        return Err(Error::io("lock", &lock_path)(e));
    }
    let text = if path.is_file() { files::read_text(path)? } else { INTRODUCTION.to_owned() };
    files::write_atomic(path, with_row(&text, row).as_bytes())
}

fn with_row(text: &str, row: &Row) -> String {
    let (line, run) = (row.line(), escape(&row.run_id));
    let mut lines: Vec<&str> = text.lines().collect();
    let rule_after_header =
        lines.windows(2).position(|pair| matches!(pair, [h, r] if h.trim() == HEADER && r.starts_with("|--")));
    match rule_after_header {
        Some(header) => {
            let first = header + 2;
            let rows = lines.iter().skip(first).take_while(|l| l.starts_with('|')).count();
            // the id is the second cell
            let earlier = lines.iter().skip(first).take(rows).position(|l| l.split(" | ").nth(1) == Some(&run));
            if let Some(earlier) = earlier {
                lines.remove(first + earlier);
            }
            lines.insert(first, &line);
        }
        None => {
            if lines.last().is_some_and(|l| !l.trim().is_empty()) {
                lines.push("");
            }
            lines.extend([HEADER, RULE, &line]);
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row(run_id: &str) -> Row {
        Row { run_id: run_id.into(), ..Row::default() }
            .judged(&Judgement::new(Some("eval_a|b"), Some(0.9), Some(0.8), true))
            .took(61.0)
    }

    #[test]
    fn newest_first_and_escaped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/experiments.md");
        enter(&path, &row("run-one")).unwrap();
        std::fs::write(&path, files::read_text(&path).unwrap() + "\nMy own notes.\n").unwrap();
        enter(&path, &row("run-two")).unwrap();
        let text = files::read_text(&path).unwrap();
        assert!(text.find("run-two").unwrap() < text.find("run-one").unwrap());
        assert!(text.ends_with("My own notes.\n"));
        assert!(text.contains("eval_a\\|b") && text.contains("| +0.1000 | WIN | 1 min 1 s |"), "{text}");
        assert_eq!(text.matches(HEADER).count(), 1);
        let bars = |l: &str| l.replace("\\|", "").matches('|').count();
        assert!(text.lines().filter(|l| l.starts_with('|')).all(|l| bars(l) == bars(HEADER)), "{text}");
    }

    #[test]
    fn somebody_elses_file_keeps_its_text() {
        let text = with_row("# Mine\n\n| a | b |\n|---|---|\n| 1 | 2 |", &row("new"));
        assert!(text.starts_with("# Mine\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n| date"));
        assert!(text.lines().last().unwrap().contains("| new |"), "{text}");
    }

    #[test]
    fn a_resumed_run_replaces_its_own_row_alone() {
        let mut text = with_row("", &Row { date: "monday".into(), verdict: "CANCELLED".into(), ..row("run-1") });
        text = with_row(&text, &row("run-11"));
        text.push_str("\n| note | run-1 |\n");
        let text = with_row(&text, &Row { date: "tuesday".into(), ..row("run-1") });
        assert!(!text.contains("monday") && !text.contains("CANCELLED"), "{text}");
        assert!(text.find("tuesday").unwrap() < text.find("run-11").unwrap(), "{text}");
        assert!(text.ends_with("\n| note | run-1 |\n"), "{text}");
    }

    #[test]
    fn runs_that_end_together_lose_no_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("experiments.md");
        std::thread::scope(|scope| {
            for i in 0..8 {
                let path = &path;
                scope.spawn(move || enter(path, &row(&format!("run-{i}."))).unwrap());
            }
        });
        let text = files::read_text(&path).unwrap();
        assert!((0..8).all(|i| text.contains(&format!("run-{i}."))), "{text}");
    }
}
