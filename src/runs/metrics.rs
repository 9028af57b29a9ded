//! `metrics.jsonl`: one JSON object a line, appended as training goes.
//!
//! Training: `{"step", "epoch", "loss", "learning_rate", "grad_norm", "seconds", "rows_per_second"}`, and of losses of
//! several terms each of these (`base_loss`, `document_regularizer_loss`, ...); evaluation: `{"step", "epoch", "seconds", "eval_<key>"...}`. Numbers JSON cannot hold (NaN, infinity) are `null`.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::flow::Metrics;
use crate::train::events::TrainLog;
use crate::util::files;

/// Appends to a run's metrics.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    /// Lines for which there was no room yet.
    pending: String,
}

impl MetricsFile {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn open(path: &Path) -> Result<Self> {
        let resumed = path.is_file();
        let file = files::append(path)?;
        let mut metrics = Self { path: path.to_path_buf(), file, pending: String::new() };
        if resumed {
            // a killed process may have left half a line
            metrics.keep(|_| true)?;
        }
        Ok(metrics)
    }

    /// Drops what was written at `step` and later: those steps are made again.
    ///
    /// # Errors
    /// When the file cannot be rewritten.
    pub fn resume_at(&mut self, step: u64) -> Result<()> {
        self.keep(|line| line.get("step").and_then(Value::as_u64).is_some_and(|s| s < step))
    }

    fn keep(&mut self, wanted: impl Fn(&Map<String, Value>) -> bool) -> Result<()> {
        let mut text = String::new();
        for line in whole_lines(&self.path)? {
            if wanted(&line) {
                text.push_str(&Value::Object(line).to_string());
                text.push('\n');
            }
        }
        files::write_atomic(&self.path, text.as_bytes())?;
        self.file = files::append(&self.path)?;
        Ok(())
    }

    /// Appends a training line.
    ///
    /// # Errors
    /// When the disk is full, for one.
    pub fn training(&mut self, log: &TrainLog) -> Result<()> {
        let mut line = json!({
            "step": log.step,
            "epoch": log.epoch,
            "loss": log.loss,
            "learning_rate": log.learning_rate,
            "grad_norm": log.grad_norm,
            "seconds": log.seconds,
            "rows_per_second": log.rows_per_second,
        });
        for (key, value) in &log.told {
            line[key.as_str()] = json!(value);
        }
        self.append(&line)
    }

    /// Appends an evaluation line; `seconds` is what the evaluation took.
    ///
    /// # Errors
    /// When the disk is full, for one.
    pub fn evaluation(&mut self, step: u64, epoch: f64, metrics: &Metrics, seconds: f64) -> Result<()> {
        let mut line = Map::new();
        line.insert("step".into(), json!(step));
        line.insert("epoch".into(), json!(epoch));
        line.insert("seconds".into(), json!(seconds));
        for (key, value) in &metrics.values {
            line.insert(format!("eval_{key}"), json!(value));
        }
        self.append(&Value::Object(line))
    }

    fn append(&mut self, line: &Value) -> Result<()> {
        self.pending.push_str(&format!("{line}\n"));
        self.flush()
    }

    /// Writes the lines for which there was no room when they were made.
    ///
    /// # Errors
    /// When there still is none.
    pub fn flush(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            files::append_whole(&mut self.file, &self.path, self.pending.as_bytes())?;
            self.pending.clear();
        }
        Ok(())
    }
}

fn whole_lines(path: &Path) -> Result<Vec<Map<String, Value>>> {
    Ok(files::read_text(path)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    fn log(step: u64, loss: f64) -> TrainLog {
        TrainLog {
            step,
            epoch: 0.5,
            loss,
            learning_rate: 2e-5,
            grad_norm: 1.0,
            seconds: 3.0,
            rows_per_second: 40.0,
            told: vec![("base_loss".to_owned(), 0.25)],
        }
    }

    #[test]
    fn lines_have_the_pinned_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path).unwrap();
        file.training(&log(1, f64::NAN)).unwrap();
        let mut metrics = Metrics::default();
        metrics.push("dev_spearman_cosine", 0.8);
        file.evaluation(1, 0.5, &metrics, 0.1).unwrap();
        let lines = whole_lines(&path).unwrap();
        for key in ["step", "epoch", "loss", "learning_rate", "grad_norm", "seconds"] {
            assert!(lines[0].contains_key(key), "{key}");
        }
        assert!(lines[0]["loss"].is_null());
        assert_eq!(lines[0]["base_loss"], 0.25);
        assert_eq!(lines[1]["eval_dev_spearman_cosine"], 0.8);
    }

    #[test]
    fn steps_made_again_appear_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path).unwrap();
        (1..=4).for_each(|step| file.training(&log(step, 1.0)).unwrap());
        drop(file);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"step\":5,\"lo").unwrap();

        let mut file = MetricsFile::open(&path).unwrap();
        file.resume_at(3).unwrap();
        file.training(&log(3, 2.0)).unwrap();
        let lines = whole_lines(&path).unwrap();
        let seen: Vec<(u64, f64)> =
            lines.iter().map(|l| (l["step"].as_u64().unwrap(), l["loss"].as_f64().unwrap())).collect();
        assert_eq!(seen, [(1, 1.0), (2, 1.0), (3, 2.0)]);
        file.resume_at(0).unwrap();
        assert!(files::read(&path).unwrap().is_empty());
    }
}
