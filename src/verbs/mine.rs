//! `mine`: hard negatives for pairs, as a data set to train on.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine};
use crate::data::OnBadRow;
use crate::error::Result;
use crate::negatives::Settings;
use crate::runs::folder::display;
use crate::train::hard_negatives::{Pairs, Summary, Wanted, mine};
use crate::util::numbers::thousands;
use crate::util::{interrupt, memory};

/// Find hard negatives: texts that a model takes for answers to an anchor and that are none of its positives.
///
/// Reads pairs of an anchor and a positive (rows with the same anchor are its positives), compares every anchor with every
/// positive and the corpus, exactly, and writes rows to train on: `relative_margin` 0.05 leaves out what is likely a
/// positive that nobody marked.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The pairs: `.jsonl`, `.csv`, `.tsv`, `.parquet` or `.arrow`.
    pub data: PathBuf,
    /// Where the rows go, as JSON lines.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Column of anchors; the first text column without it.
    #[arg(long, value_name = "COLUMN")]
    #[serde(default)]
    pub anchor_column_name: Option<String>,
    /// Column of positives; the second without it.
    #[arg(long, value_name = "COLUMN")]
    #[serde(default)]
    pub positive_column_name: Option<String>,
    /// What to do with rows that lack a text.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnBadRow::Refuse)]
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    #[command(flatten)]
    #[serde(flatten)]
    pub settings: Settings,
    /// Whether signals stop the work in good order: on the command line, not in a server, which lives on.
    #[arg(skip = true)]
    #[serde(skip)]
    pub heed_signals: bool,
}

/// What was found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The file with the rows.
    pub output: PathBuf,
    #[serde(flatten)]
    pub summary: Summary,
    /// What it took.
    pub seconds: f64,
    /// The most memory the program had.
    pub peak_memory_bytes: u64,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        engine::json_lines(&self.output)?;
        if self.heed_signals {
            interrupt::install();
        }
        let pairs = Pairs::find(&Wanted {
            paths: &[self.data],
            anchor: self.anchor_column_name.as_deref(),
            positive: self.positive_column_name.as_deref(),
            limit: None,
            on_bad_row: self.on_bad_row,
            way_out: "correct them, or leave them out with `--on-bad-row skip`",
        })?;
        engine::warn_of_bf16(self.settings.bf16, reporter);
        let begun = Instant::now();
        let summary = mine(
            &pairs,
            &self.settings,
            &self.output,
            &mut |path| engine::load_encoder(Path::new(path), reporter),
            &|path| engine::model_key(Path::new(path)),
        )?;
        Ok(Response {
            output: self.output,
            summary,
            seconds: begun.elapsed().as_secs_f64(),
            peak_memory_bytes: memory::peak(),
        })
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let last = format!(
            "{} rows ({}) in {} after {:.1} s",
            thousands(self.summary.rows),
            self.summary.columns.join(", "),
            display(&self.output),
            self.seconds
        );
        let mut lines = self.summary.lines();
        lines.push(last);
        lines.join("\n")
    }
}
