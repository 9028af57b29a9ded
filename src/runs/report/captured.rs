//! `report/`: what a run writes down for its report while it goes on.
//!
//! `data.json` is what it works on; `before.json`, `last.json` and `best.json` are what was seen at the evaluation before
//! training, at the last one, and at the best one so far where that is kept; `warnings.jsonl` has a warning a line.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::flow::{Look, Metrics};
use crate::runs::RunFolder;
use crate::train::facts::RunFacts;
use crate::util::files;

/// What was seen at an evaluation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub step: u64,
    /// The key of the first evaluator's metric, without `eval_`.
    pub primary: String,
    /// Behind the metric that decides, where its evaluator tells.
    pub look: Option<Look>,
}

/// [`Seen`], as it is written.
#[derive(Serialize)]
struct Seeing<'a> {
    step: u64,
    primary: &'a str,
    look: Option<&'a Look>,
}

const DATA: &str = "data.json";
const BEFORE: &str = "before.json";
const LAST: &str = "last.json";
const BEST: &str = "best.json";
const WARNINGS: &str = "warnings.jsonl";

/// Where it lies.
#[must_use]
pub fn dir(folder: &RunFolder) -> PathBuf {
    folder.dir().join("report")
}

/// Writes down what a run works on.
///
/// # Errors
/// When the disk is full, for one.
pub fn facts(folder: &RunFolder, facts: &RunFacts) -> Result<()> {
    write(&dir(folder), DATA, facts)
}

/// Writes down what was seen at an evaluation.
///
/// # Errors
/// As [`facts`].
pub fn evaluation(folder: &RunFolder, step: u64, metrics: &Metrics) -> Result<()> {
    let seen = Seeing { step, primary: &metrics.primary, look: metrics.looks.first() };
    write(&dir(folder), if step == 0 { BEFORE } else { LAST }, &seen)
}

/// Keeps what was seen at the last evaluation as that of the best.
///
/// # Errors
/// As [`facts`].
pub fn best(folder: &RunFolder) -> Result<()> {
    let dir = dir(folder);
    files::write_atomic(&dir.join(BEST), &files::read(&dir.join(LAST))?)
}

/// Writes down a warning.
///
/// # Errors
/// As [`facts`].
pub fn warning(folder: &RunFolder, text: &str) -> Result<()> {
    let dir = dir(folder);
    files::create_dir(&dir)?;
    let path = dir.join(WARNINGS);
    let mut file = files::append(&path)?;
    files::append_whole(&mut file, &path, format!("{}\n", serde_json::json!(text)).as_bytes())
}

/// Everything that was written down.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    pub facts: Option<RunFacts>,
    pub before: Option<Seen>,
    pub last: Option<Seen>,
    pub best: Option<Seen>,
    /// Each once: a run that is resumed may say the same again.
    pub warnings: Vec<String>,
}

impl Captured {
    /// What there is, and nothing where a file is missing or not whole.
    #[must_use]
    pub fn read(folder: &RunFolder) -> Self {
        let dir = dir(folder);
        let mut warnings: Vec<String> = Vec::new();
        let lines = files::read_text(&dir.join(WARNINGS)).unwrap_or_default();
        for text in lines.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            if !warnings.contains(&text) {
                warnings.push(text);
            }
        }
        Self {
            facts: read(&dir, DATA),
            before: read(&dir, BEFORE),
            last: read(&dir, LAST),
            best: read(&dir, BEST),
            warnings,
        }
    }

    /// What was seen of the model of `best_step`, which was kept, or without one of the newest model.
    #[must_use]
    pub fn after(&self, best_step: Option<u64>) -> Option<&Seen> {
        match best_step {
            Some(step) => [&self.best, &self.last].into_iter().flatten().find(|seen| seen.step == step),
            None => self.last.as_ref(),
        }
    }
}

fn write<T: Serialize>(dir: &Path, name: &str, value: &T) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|e| Error::Internal(format!("`{name}`: {e}")))?;
    files::create_dir(dir)?;
    files::write_atomic(&dir.join(name), &text)
}

fn read<T: DeserializeOwned>(dir: &Path, name: &str) -> Option<T> {
    serde_json::from_slice(&files::read(&dir.join(name)).ok()?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_that_of_the_model_that_was_kept() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&temporary.path().join("runs"), "a").unwrap();
        let look = Look::new("dev_x", "nDCG@10", &["query"], 3);
        let metrics = Metrics { primary: "dev_x".into(), looks: vec![look.clone()], ..Metrics::default() };
        for step in [0, 2, 4] {
            evaluation(&folder, step, &metrics).unwrap();
            if step == 2 {
                best(&folder).unwrap();
            }
        }
        for text in ["careful", "of two\nlines", "careful"] {
            warning(&folder, text).unwrap();
        }
        let captured = Captured::read(&folder);
        assert_eq!(captured.before.as_ref().map(|seen| (seen.step, seen.look.clone())), Some((0, Some(look))));
        let after = |best| captured.after(best).map(|seen| seen.step);
        assert_eq!([after(Some(2)), after(Some(4)), after(None), after(Some(3))], [Some(2), Some(4), Some(4), None]);
        assert_eq!(captured.warnings, ["careful", "of two\nlines"]);
    }
}
