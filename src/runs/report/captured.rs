//! `report/`: what a run writes down for its report while it goes on.
//!
//! `data.json` is what it works on; `before.json`, `last.json` and `best.json` are what was seen at the evaluation before
//! training, at the last one, and at the best one so far.

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

const DATA: &str = "data.json";
const BEFORE: &str = "before.json";
const LAST: &str = "last.json";
const BEST: &str = "best.json";

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
    let seen = Seen { step, primary: metrics.primary.clone(), look: metrics.looks.first().cloned() };
    write(&dir(folder), if step == 0 { BEFORE } else { LAST }, &seen)
}

/// Keeps what was seen at the last evaluation as that of the best.
///
/// # Errors
/// As [`facts`].
pub fn best(folder: &RunFolder) -> Result<()> {
    let dir = dir(folder);
    files::copy(&dir.join(LAST), &dir.join(BEST)).map(|_| ())
}

/// Everything that was written down.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    pub facts: Option<RunFacts>,
    pub before: Option<Seen>,
    pub last: Option<Seen>,
    pub best: Option<Seen>,
}

impl Captured {
    /// What there is, and nothing where a file is missing or not whole.
    #[must_use]
    pub fn read(folder: &RunFolder) -> Self {
        let dir = dir(folder);
        Self { facts: read(&dir, DATA), before: read(&dir, BEFORE), last: read(&dir, LAST), best: read(&dir, BEST) }
    }

    /// What was seen of the model that was kept, or of the newest one.
    #[must_use]
    pub fn after(&self, best_step: Option<u64>) -> Option<&Seen> {
        let best = self.best.as_ref().filter(|seen| Some(seen.step) == best_step);
        best.or(self.last.as_ref())
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
