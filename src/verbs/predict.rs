//! `predict`: pairs of texts in, a reranker's scores out.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine, vectors};
use crate::data::texts::read_columns;
use crate::error::{Error, Result};
use crate::flow::{ActivationFn, Embeddings, EncodeOptions, LabelKind, Predict};
use crate::runs::folder::display;
use crate::util::memory;

/// Score the pairs of a file with a saved CrossEncoder.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The model's folder, or its id on the Hub.
    pub model: PathBuf,
    /// The pairs, one a row (`.jsonl`, `.csv`, `.tsv`, `.parquet`, `.arrow`).
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// The columns with the two texts, the query first; without it the file's only two text columns.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    #[serde(default)]
    pub columns: Vec<String>,
    /// One of the model's prompts, put in front of the first text of each pair.
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    #[serde(default)]
    pub prompt_name: Option<String>,
    /// This text in front of the first text of each pair; empty for none at all.
    #[arg(long, value_name = "TEXT")]
    #[serde(default)]
    pub prompt: Option<String>,
    /// What is applied to the logits, `Identity`, `Sigmoid`, `Tanh` or `ReLU`; without it what the model says.
    #[arg(long, value_name = "NAME")]
    #[serde(default)]
    pub activation_fn: Option<ActivationFn>,
    /// Make the scores of several labels probabilities that sum to 1.
    #[arg(long)]
    #[serde(default)]
    pub apply_softmax: bool,
    /// Round the operands of matrix products to bfloat16 or nearer: faster, and scores off by about 0.01.
    #[arg(long)]
    #[serde(default)]
    pub bf16: bool,
    /// Where the scores go, by ending: `.jsonl` (`score`, or `label` and `scores`), `.npy` or `.safetensors`.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// What was written.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The file.
    pub output: PathBuf,
    /// Pairs.
    pub rows: usize,
    /// Scores of a pair.
    pub num_labels: usize,
    /// What was applied to the logits.
    pub activation_fn: ActivationFn,
    /// What scoring took, loading left out.
    pub seconds: f64,
    /// The most memory the program had.
    pub peak_memory_bytes: u64,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        vectors::Format::of(&self.output)?;
        let names: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let named = (!names.is_empty()).then_some(names.as_slice());
        let mut table = read_columns(&self.input, named, None, LabelKind::None)?;
        if named.is_none() && table.columns.len() > 2 {
            // two of several are known by their names
            let usual = [["query", "passage"], ["sentence1", "sentence2"], ["question", "passage"]];
            if let Some(pair) = usual.into_iter().find(|pair| pair.iter().all(|c| table.names.iter().any(|n| n == c))) {
                table = read_columns(&self.input, Some(pair.as_slice()), None, LabelKind::None)?;
            }
        }
        let [first, second] = table.columns.as_slice() else {
            let found: Vec<String> = table.names.iter().map(|name| format!("`{name}`")).collect();
            let text = format!("`{}` gives {} text columns ({})", display(&self.input), found.len(), found.join(", "));
            return Err(Error::usage(text).with_hint("name the two of each pair with `--columns query,passage`"));
        };
        let pairs: Vec<(&str, &str)> = first.iter().zip(second).map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let model = engine::load_reranker(&self.model, reporter)?;
        if self.apply_softmax && model.num_labels() == 1 {
            return Err(Error::usage("`--apply-softmax` has no effect: the model gives a pair one score")
                .with_hint("leave it out; `--activation-fn Sigmoid` makes a probability of a score"));
        }
        engine::warn_of_bf16(self.bf16, reporter);
        let prompt = match (self.prompt, &self.prompt_name) {
            (None, Some(name)) => Some(model.prompt(name)?.to_owned()),
            (text, _) => text,
        };
        let options = EncodeOptions { prompt, bf16: self.bf16, progress: Some("scoring"), ..EncodeOptions::default() };
        let begun = std::time::Instant::now();
        let scores = model.predict(&pairs, self.activation_fn, &options)?;
        let seconds = begun.elapsed().as_secs_f64();
        let scores = if self.apply_softmax { softmax(scores) } else { scores };
        write(&self.output, &scores)?;
        Ok(Response {
            output: self.output,
            rows: scores.rows(),
            num_labels: scores.dim(),
            activation_fn: self.activation_fn.unwrap_or_else(|| model.activation_fn()),
            seconds,
            peak_memory_bytes: memory::peak(),
        })
    }
}

/// Probabilities of the classes, row by row.
pub(super) fn softmax(mut scores: Embeddings) -> Embeddings {
    for row in scores.rows_mut() {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|x| *x = (*x - top).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|x| *x /= sum);
    }
    scores
}

/// A line of `.jsonl`.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Score { score: f32 },
    Classes { label: usize, scores: &'a [f32] },
}

/// The class of the highest score, the first of equal ones.
pub(super) fn best(scores: &[f32]) -> usize {
    let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.map_or(0, |(label, _)| label)
}

fn write(output: &std::path::Path, scores: &Embeddings) -> Result<()> {
    if vectors::Format::of(output)? != vectors::Format::JsonLines {
        return vectors::write(output, scores);
    }
    let line = |i: usize| match scores.row(i) {
        [score] => Line::Score { score: *score },
        scores => Line::Classes { label: best(scores), scores },
    };
    vectors::write_lines(output, &(0..scores.rows()).map(line).collect::<Vec<_>>())
}

impl Answer for Response {
    fn human(&self) -> String {
        let rate = self.rows as f64 / self.seconds.max(1e-9);
        let what =
            if self.num_labels == 1 { "scores".to_owned() } else { format!("scores of {} labels", self.num_labels) };
        format!(
            "{} pairs: {what} ({}) in {} ({rate:.0} pairs/s)",
            self.rows,
            self.activation_fn.name(),
            display(&self.output)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let scores = softmax(Embeddings::new(2, vec![1000.0, 999.0, -3.0, -3.0]));
        assert!((scores.row(0)[0] - 0.731_058_6).abs() < 1e-6);
        assert_eq!(scores.row(1), [0.5, 0.5]);
    }
}
