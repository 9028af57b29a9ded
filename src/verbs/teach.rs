//! `teach`: a teacher's embeddings or scores beside the rows of a data set.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine};
use crate::data::OnBadRow;
use crate::error::{Error, Result};
use crate::eval::shared::{self, DOCUMENT, QUERY};
use crate::flow::{ActivationFn, Encode, EncodeOptions};
use crate::model::SentenceTransformer;
use crate::runs::folder::display;
use crate::train::teaching::{Lesson, Subject, Teaching, teach};
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
    /// The teacher's folder.
    #[arg(long, value_name = "FOLDER")]
    pub teacher: PathBuf,
    /// Where the rows go, as JSON lines: the columns that were read, and the label.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// The columns with texts, the query or the text to embed first; the last may hold lists. Without it all text columns.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    #[serde(default)]
    pub columns: Vec<String>,
    /// What is taught. Without it: an embedding of one column, a score of two, a margin of three, scores of more or of lists.
    #[arg(long, value_enum, value_name = "WHAT")]
    #[serde(default)]
    pub labels: Option<Lesson>,
    /// What the label's column is called.
    #[arg(long, value_name = "NAME", default_value_t = default_label())]
    #[serde(default = "default_label")]
    pub label: String,
    /// Of a reranker: what is applied to its logits, `Identity`, `Sigmoid`, `Tanh` or `ReLU`. Students learn logits best.
    #[arg(long, value_name = "NAME", value_parser = super::predict::activation, default_value = "Identity")]
    #[serde(default = "identity")]
    pub activation_fn: ActivationFn,
    /// The teacher's prompt of this name in front of queries and of texts to embed. Without it `query` of scores, the
    /// default prompt of embeddings.
    #[arg(long, value_name = "NAME", conflicts_with = "query_prompt")]
    #[serde(default)]
    pub query_prompt_name: Option<String>,
    /// This text in front of them; empty for none at all.
    #[arg(long, value_name = "TEXT")]
    #[serde(default)]
    pub query_prompt: Option<String>,
    /// The teacher's prompt of this name in front of documents. Without it `document`, where it has one.
    #[arg(long, value_name = "NAME", conflicts_with = "corpus_prompt")]
    #[serde(default)]
    pub corpus_prompt_name: Option<String>,
    /// This text in front of documents; empty for none at all.
    #[arg(long, value_name = "TEXT")]
    #[serde(default)]
    pub corpus_prompt: Option<String>,
    /// Keep only the first dimensions of embeddings, as narrow as the student's are.
    #[arg(long, value_name = "D")]
    #[serde(default)]
    pub truncate_dim: Option<usize>,
    /// Divide each embedding by its length.
    #[arg(long)]
    #[serde(default)]
    pub normalize: bool,
    /// Round the operands of matrix products to bfloat16 or nearer: faster, and labels off by about 0.001.
    #[arg(long)]
    #[serde(default)]
    pub bf16: bool,
    /// What to do with rows without one of the texts: refuse the data, or leave them out.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnBadRow::Refuse)]
    #[serde(default)]
    pub on_bad_row: OnBadRow,
}

fn default_label() -> String {
    "label".to_owned()
}

const fn identity() -> ActivationFn {
    ActivationFn::Identity
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
        if self.truncate_dim == Some(0) {
            return Err(Error::usage("`truncate_dim` is 0").with_hint("give the number of dimensions to keep"));
        }
        interrupt::install();
        let subject = Subject::settle(std::slice::from_ref(&self.data), &self.columns, self.labels, &self.label)?;
        files::keep_apart(&self.output, subject.paths())?;
        let embeds = subject.lesson().embeds();
        if !embeds && (self.truncate_dim.is_some() || self.normalize) {
            return Err(Error::usage("`--truncate-dim` and `--normalize` are for embeddings")
                .with_hint("name them with `--labels embedding`, or leave these out"));
        }
        if embeds && (self.corpus_prompt.is_some() || self.corpus_prompt_name.is_some()) {
            return Err(Error::usage("`--corpus-prompt` and `--corpus-prompt-name` are for documents that are scored")
                .with_hint("`--query-prompt` and `--query-prompt-name` are for texts to embed"));
        }
        let teacher = engine::load_encoder(&self.teacher, reporter)?;
        subject.check_teacher(&teacher)?;
        engine::warn_of_bf16(self.bf16, reporter);
        let (query, document) = self.options(&teacher, embeds)?;
        let teaching = Teaching {
            label: self.label.clone(),
            on_bad_row: self.on_bad_row,
            activation_fn: self.activation_fn,
            query,
            document,
        };
        let begun = Instant::now();
        let key = engine::model_key(&self.teacher)?;
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

impl Request {
    /// How queries and single texts are encoded, and how documents.
    fn options(&self, teacher: &SentenceTransformer, embeds: bool) -> Result<(EncodeOptions, EncodeOptions)> {
        let scores_pairs = teacher.predictor().is_some();
        if scores_pairs && (self.corpus_prompt.is_some() || self.corpus_prompt_name.is_some()) {
            return Err(Error::usage(format!(
                "a {} has one prompt, before the pair: `--corpus-prompt` and `--corpus-prompt-name` mean nothing to it",
                teacher.kind()
            ))
            .with_hint("give it with `--query-prompt` or `--query-prompt-name`"));
        }
        if !scores_pairs && self.activation_fn != ActivationFn::Identity {
            return Err(Error::usage(format!(
                "`--activation-fn` is for rerankers, and the teacher is a {}",
                teacher.kind()
            ))
            .with_hint("leave it out"));
        }
        let own = EncodeOptions {
            bf16: self.bf16,
            truncate_dim: self.truncate_dim,
            normalize: self.normalize,
            ..EncodeOptions::default()
        };
        let name = self.query_prompt_name.as_deref();
        if scores_pairs || embeds {
            let plain =
                engine::named_options(teacher, self.query_prompt.clone(), name, ("--query-prompt", "teaching"))?;
            let query = EncodeOptions { prompt: plain.prompt, task: plain.task, ..own };
            return Ok((query, EncodeOptions::default()));
        }
        let of = |role: &str, text: Option<&str>, name: Option<&str>| -> Result<EncodeOptions> {
            let prompt = shared::prompt(teacher, text, name, role)?;
            Ok(EncodeOptions { prompt, task: Some(role.to_owned()), ..own.clone() })
        };
        let query = of(QUERY, self.query_prompt.as_deref(), name)?;
        Ok((query, of(DOCUMENT, self.corpus_prompt.as_deref(), self.corpus_prompt_name.as_deref())?))
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
