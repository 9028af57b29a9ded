//! What a smoke test leaves behind: which plan it tried on which data, how it went, and what the run will take.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::folder::display;
use crate::data::store::cache;
use crate::error::{Error, Result};
use crate::recipe::Plan;
use crate::util::{clock, fence, files};

/// Parts of a plan that say nothing of whether it can be trained and what that takes: names, places, publishing, and which
/// of many equal beginnings is taken.
const IGNORED: [&str; 11] = [
    "plan_version",
    "run_name",
    "output_dir",
    "recipe",
    "defaulted",
    "seed",
    "hub",
    "args.logging_steps",
    "args.report_to",
    "args.save_total_limit",
    "args.num_threads",
];

/// Where a run writes by itself.
const WRITTEN: &str = ".cache_folder";

/// Data sets, whose folders are read without those in them; models beside them are read whole.
const DATA: [&str; 2] = ["train_dataset", "eval_dataset"];

/// Files of a folder that are looked at; a folder of more is known by its first ones.
const MOST_FILES: usize = 20_000;

/// Receipts kept.
const MOST_RECEIPTS: usize = 400;

/// What a smoke test said of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// When (UTC).
    pub made: String,
    /// The recipe's file.
    pub recipe: PathBuf,
    /// What spoke against the run; empty for a test that was passed.
    pub problems: Vec<String>,
    /// The most memory the run will need, in bytes.
    pub estimated_peak_memory_bytes: u64,
    /// How long it will take.
    pub estimated_seconds: f64,
    /// What was tried.
    pub tried: Tried,
}

/// What a plan comes to: its keys, and the files that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Dotted keys with their values as JSON.
    keys: BTreeMap<String, String>,
    /// Paths with sizes and times.
    files: BTreeMap<String, String>,
}

/// What is known of a plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// Its smoke test was passed.
    Passed(Receipt),
    /// Its smoke test was not.
    Failed(Receipt),
    /// There was none; of the test of the recipe that comes nearest, what was different.
    Nothing(Option<Vec<String>>),
}

impl Tried {
    /// The plan, and its files as they are now.
    ///
    /// # Errors
    /// When the plan has no form as JSON.
    pub fn of(plan: &Plan) -> Result<Self> {
        let mut tried = Self::default();
        tried.walk("", &plan.to_json()?);
        Ok(tried)
    }

    fn walk(&mut self, key: &str, value: &Value) {
        let below = |part: &str| if key.is_empty() { part.to_owned() } else { format!("{key}.{part}") };
        match value {
            _ if IGNORED.contains(&key) || key.ends_with(WRITTEN) => {}
            Value::Null => {}
            Value::Object(table) => table.iter().for_each(|(name, value)| self.walk(&below(name), value)),
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, value)| self.walk(&below(&i.to_string()), value))
            }
            other => {
                if let Value::String(text) = other
                    && Path::new(text).is_absolute()
                {
                    self.look(text, is_data(key));
                }
                self.keys.insert(key.to_owned(), other.to_string());
            }
        }
    }

    /// Notes the files that a path or a pattern leads to; of a folder of data only its own.
    fn look(&mut self, text: &str, data: bool) {
        let path = Path::new(text);
        // texts such as prompts may look like paths; what lies outside the workspace is nobody's business
        if fence::admit_open(&fence::before_wildcards(path)).is_err() {
            return;
        }
        let mut left = MOST_FILES;
        let depth = if data { 1 } else { usize::MAX };
        if path.exists() {
            self.note(path, depth, &mut left);
        } else if let Ok(found) = glob::glob(text) {
            found.flatten().take(MOST_FILES).for_each(|path| self.note(&path, depth, &mut left));
        }
    }

    fn note(&mut self, path: &Path, depth: usize, left: &mut usize) {
        if *left == 0 || fence::admit_open(path).is_err() {
            return;
        }
        let Ok(metadata) = std::fs::metadata(path) else { return };
        if metadata.is_dir() {
            let visible = |path: &PathBuf| path.file_name().is_none_or(|name| !name.to_string_lossy().starts_with('.'));
            if depth > 0 {
                let entries = files::list(path).unwrap_or_default();
                entries.iter().filter(|path| visible(path)).for_each(|path| self.note(path, depth - 1, left));
            }
        } else {
            *left -= 1;
            self.files.insert(path.display().to_string(), state(&metadata));
        }
    }

    /// The same for the same.
    fn fingerprint(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{:032x}", xxh3_128(text.as_bytes()))
    }

    /// The keys whose values differ.
    #[must_use]
    pub fn different_keys(&self, before: &Self) -> Vec<String> {
        let keys = self.keys.keys().chain(before.keys.keys().filter(|key| !self.keys.contains_key(*key)));
        keys.filter(|key| self.keys.get(*key) != before.keys.get(*key)).cloned().collect()
    }

    /// Where this differs from what was tried `before`, as sentences.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let mut found: Vec<String> = self
            .different_keys(before)
            .iter()
            .map(|key| match (self.keys.get(key), before.keys.get(key)) {
                (Some(now), Some(then)) => format!("`{key}` is {now} and was {then}"),
                (Some(now), None) => format!("`{key}` is {now} and was not set"),
                (None, then) => format!("`{key}` is not set and was {}", then.map_or("", String::as_str)),
            })
            .collect();
        let all = self.files.keys().chain(before.files.keys().filter(|path| !self.files.contains_key(*path)));
        found.extend(all.filter(|path| self.files.get(*path) != before.files.get(*path)).map(|path| {
            let shown = display(Path::new(path));
            match (self.files.get(path), before.files.get(path)) {
                (Some(_), Some(_)) => format!("`{shown}` has changed"),
                (Some(_), None) => format!("`{shown}` is new"),
                _ => format!("`{shown}` is gone"),
            }
        }));
        found
    }
}

/// Size and time of a file.
fn state(metadata: &Metadata) -> String {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!("{} {}", metadata.len(), modified.map_or(0, |time| time.as_nanos()))
}

fn folder() -> Result<PathBuf> {
    cache::place("smoke")
}

fn file(tried: &Tried) -> Result<PathBuf> {
    Ok(folder()?.join(format!("{}.json", tried.fingerprint())))
}

fn read(path: &Path) -> Option<Receipt> {
    serde_json::from_slice(&files::read(path).ok()?).ok()
}

/// Keeps what a smoke test of `plan` said: `problems`, none if it was passed, and what the run will take, in bytes and
/// seconds.
///
/// # Errors
/// When it cannot be written.
pub fn keep(plan: &Plan, tried: Tried, problems: &[String], memory: u64, seconds: f64) -> Result<()> {
    let path = file(&tried)?;
    let receipt = Receipt {
        made: clock::now(),
        recipe: plan.recipe.clone(),
        problems: problems.to_vec(),
        estimated_peak_memory_bytes: memory,
        estimated_seconds: if seconds.is_finite() { seconds } else { 0.0 },
        tried,
    };
    let text = serde_json::to_vec(&receipt).map_err(|e| Error::Internal(format!("a receipt: {e}")))?;
    files::write_atomic(&path, &text)?;
    prune(&folder()?);
    Ok(())
}

/// Removes the oldest receipts beyond those that are kept.
fn prune(folder: &Path) {
    let mut all = files::list(folder).unwrap_or_default();
    if all.len() > MOST_RECEIPTS {
        all.sort_by_key(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok());
        all.iter().take(all.len() - MOST_RECEIPTS * 3 / 4).for_each(|path| drop(std::fs::remove_file(path)));
    }
}

/// What smoke tests have said of a plan, on its files as they are now.
///
/// # Errors
/// When there is no place where they would have left it.
pub fn look(plan: &Plan) -> Result<Known> {
    let tried = Tried::of(plan)?;
    if let Some(receipt) = read(&file(&tried)?) {
        return Ok(if receipt.problems.is_empty() { Known::Passed(receipt) } else { Known::Failed(receipt) });
    }
    let of_this_recipe = |path: &PathBuf| read(path).filter(|receipt| receipt.recipe == plan.recipe);
    let mut others: Vec<Receipt> = files::list(&folder()?)?.iter().filter_map(of_this_recipe).collect();
    others.sort_by(|a, b| b.made.cmp(&a.made));
    let differences = others.iter().map(|receipt| tried.differences(&receipt.tried));
    Ok(Known::Nothing(differences.min_by_key(Vec::len)))
}

/// The most memory that the run of a plan will need, in bytes, where a smoke test has told.
#[must_use]
pub fn memory(plan: &Plan) -> Option<u64> {
    match look(plan).ok()? {
        Known::Passed(receipt) | Known::Failed(receipt) => Some(receipt.estimated_peak_memory_bytes),
        Known::Nothing(_) => None,
    }
}

/// Whether a key names the files of a data set: `train_dataset.0.path.0`.
fn is_data(key: &str) -> bool {
    let mut parts = key.split('.');
    parts.next().is_some_and(|first| DATA.contains(&first)) && parts.nth(1) == Some("path")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn tried(plan: &Value) -> Tried {
        let mut tried = Tried::default();
        tried.walk("", plan);
        tried
    }

    #[test]
    fn what_matters_is_told_from_what_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a.jsonl");
        std::fs::write(&data, "{}").unwrap();
        let pattern = dir.path().join("*.jsonl").display().to_string();
        let plan = |rate: f64, name: &str| {
            json!({
                "run_name": name, "output_dir": dir.path(), "seed": name.len(), "hub": {"push_to_hub": name == "b"},
                "args": {"learning_rate": rate, "max_steps": null, "num_threads": name.len()},
                "train_dataset": [{"path": [pattern]}],
            })
        };
        let first = tried(&plan(0.5, "a"));
        assert_eq!(first.keys.keys().collect::<Vec<_>>(), ["args.learning_rate", "train_dataset.0.path.0"]);
        assert_eq!(first.files.len(), 1);
        let renamed = tried(&plan(0.5, "bc"));
        assert_eq!((renamed.fingerprint(), renamed.differences(&first)), (first.fingerprint(), Vec::new()));

        std::fs::write(&data, "{}\n{}").unwrap();
        std::fs::write(dir.path().join("b.jsonl"), "").unwrap();
        let changed = tried(&plan(0.25, "a"));
        assert_ne!(changed.fingerprint(), first.fingerprint());
        let told = changed.differences(&first);
        assert_eq!(told[0], "`args.learning_rate` is 0.25 and was 0.5");
        assert!(told[1].ends_with("a.jsonl` has changed") && told[2].ends_with("b.jsonl` is new"), "{told:?}");
        let told = tried(&json!({})).differences(&first);
        assert_eq!(told[0], "`args.learning_rate` is not set and was 0.5");
        assert!(told[2].ends_with("a.jsonl` is gone"), "{told:?}");
    }

    #[test]
    fn models_beside_data_are_looked_at_whole() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("folder/1_Dense")).unwrap();
        std::fs::write(dir.path().join("folder/1_Dense/model.safetensors"), "").unwrap();
        let folder = dir.path().join("folder");
        let as_data = tried(&json!({"train_dataset": [{"path": [&folder]}], "eval_dataset": [{"path": [&folder]}]}));
        assert!(as_data.files.is_empty());
        let as_guide = tried(&json!({"train_dataset": [{"loss": {"settings": {"guide": &folder}}}]}));
        assert_eq!(as_guide.files.len(), 1);
    }

    #[test]
    fn the_oldest_go_when_there_are_many() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..=MOST_RECEIPTS {
            std::fs::write(dir.path().join(format!("{number}.json")), "{}").unwrap();
        }
        prune(dir.path());
        assert_eq!(files::list(dir.path()).unwrap().len(), MOST_RECEIPTS * 3 / 4);
    }
}
