//! `teach`: a teacher's embeddings or scores beside the rows of a data set.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine};
use crate::data::OnBadRow;
use crate::error::Result;
use crate::recipe::teacher::{Lesson, Teacher};
use crate::runs::folder::display;
use crate::train::teaching::{Subject, Teaching, Wanted, teach};
use crate::util::numbers::thousands;
use crate::util::{files, interrupt, memory};

/// Write what a teacher says of each row, to distil it into another model.
///
/// Embeddings for MSELoss and EmbedDistillLoss, scores of pairs for rerankers, margins for MarginMSELoss, scores of lists
/// for DistillKLDivLoss: once, before training. The teacher is a bi-encoder, SPLADE, ColBERT or a reranker. A call that was
/// interrupted goes on where it was.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The rows: `.jsonl`, `.csv`, `.tsv`, `.parquet`, `.arrow`, or `.txt` with a text a line.
    pub data: PathBuf,
    /// Where the rows go, as JSON lines: the columns that were read, and the label.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// The columns with texts, the query or the text to embed first; the last may hold lists. Without it all text columns.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    #[serde(default)]
    pub columns: Vec<String>,
    /// What the label's column is called.
    #[arg(long, value_name = "NAME", default_value_t = default_label())]
    #[serde(default = "default_label")]
    pub label: String,
    #[command(flatten)]
    #[serde(flatten)]
    pub teacher: Teacher,
    /// What to do with rows without one of the texts: refuse the data, or leave them out.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnBadRow::Refuse)]
    #[serde(default)]
    pub on_bad_row: OnBadRow,
}

fn default_label() -> String {
    "label".to_owned()
}

/// What was written.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The file.
    pub output: PathBuf,
    /// Rows in it.
    pub rows: usize,
    /// Of these, rows that an earlier call had done.
    pub resumed: usize,
    /// Rows of the data that were left out.
    pub rows_skipped: u64,
    /// What was taught.
    pub labels: Lesson,
    /// The columns, the label last.
    pub columns: Vec<String>,
    /// Columns of the data that were not read.
    pub left_out: Vec<String>,
    /// The smallest score or margin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Their mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// The largest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// What it took, loading left out.
    pub seconds: f64,
    /// The most memory the program had.
    pub peak_memory_bytes: u64,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        engine::json_lines(&self.output)?;
        self.teacher.check()?;
        interrupt::install();
        let wanted = Wanted {
            paths: std::slice::from_ref(&self.data),
            columns: &self.columns,
            lesson: self.teacher.labels,
            label: &self.label,
            limit: None,
        };
        let subject = Subject::settle(&wanted)?;
        files::keep_apart(&self.output, subject.paths())?;
        self.teacher.check_lesson(subject.lesson())?;
        let path = PathBuf::from(&self.teacher.model);
        let teacher = engine::load_encoder(&path, reporter)?;
        engine::warn_of_bf16(self.teacher.bf16, reporter);
        let teaching = Teaching::new(&subject, &self.teacher, &teacher, self.on_bad_row)?;
        let begun = Instant::now();
        let key = engine::model_key(&path)?;
        let taught = teach(&subject, &teaching, &teacher, &key, &self.output, &mut |line| reporter.line(line))?;
        Ok(Response {
            output: self.output,
            rows: taught.rows,
            resumed: taught.resumed,
            rows_skipped: taught.skipped,
            labels: subject.lesson(),
            columns: [subject.columns(), &[self.label]].concat(),
            left_out: subject.left_out().to_vec(),
            min: taught.range.map(|range| range.0),
            mean: taught.range.map(|range| range.1),
            max: taught.range.map(|range| range.2),
            seconds: begun.elapsed().as_secs_f64(),
            peak_memory_bytes: memory::peak(),
        })
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = Vec::new();
        if self.resumed > 0 {
            lines.push(format!("{} rows were there from an earlier call", thousands(self.resumed)));
        }
        if let (Some(min), Some(mean), Some(max)) = (self.min, self.mean, self.max) {
            lines.push(format!("{}: {min:.4} to {max:.4}, {mean:.4} on average", self.labels.name()));
        }
        if self.rows_skipped > 0 {
            lines.push(format!("{} rows of the data were left out", thousands(self.rows_skipped)));
        }
        if !self.left_out.is_empty() {
            lines.push(format!("columns left out: {}", self.left_out.join(", ")));
        }
        lines.push(format!(
            "{} rows ({}) in {} after {:.1} s",
            thousands(self.rows),
            self.columns.join(", "),
            display(&self.output),
            self.seconds
        ));
        lines.join("\n")
    }
}
