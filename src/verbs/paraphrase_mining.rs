//! `paraphrase-mining`: the most similar pairs among the texts of a file.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine, vectors};
use crate::data::corpus;
use crate::error::{Error, Result};
use crate::scoring::Similarity;
use crate::scoring::mining;

/// Pairs shown to people.
const SHOWN: usize = 20;

/// Find the texts of a file that say the same: every text is compared with every other, by cosine.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The model's folder, or its id on the Hub.
    pub model: PathBuf,
    /// The texts: `.txt` with one a line, or rows (`.jsonl`, `.csv`, `.tsv`, `.parquet`, `.arrow`).
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// The column with the texts; needed where rows have several. BEIR rows are title and text without it.
    #[arg(long)]
    #[serde(default)]
    pub column: Option<String>,
    /// One of the model's prompts, put in front of every text; of a model with a Router, also the route of that name.
    /// Without it the model's default prompt is used.
    #[arg(long, value_name = "NAME")]
    #[serde(default)]
    pub prompt_name: Option<String>,
    /// The nearest texts of each text that make pairs.
    #[arg(long, value_name = "K", default_value_t = default_top_k())]
    #[serde(default = "default_top_k")]
    pub top_k: usize,
    /// Pairs that are kept, the most similar ones.
    #[arg(long, value_name = "N", default_value_t = default_max_pairs())]
    #[serde(default = "default_max_pairs")]
    pub max_pairs: usize,
    /// Where the pairs go, one JSON object a line; without it they are part of the answer.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub output: Option<PathBuf>,
}

const fn default_top_k() -> usize {
    100
}

const fn default_max_pairs() -> usize {
    500_000
}

/// The pairs.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// Texts in the file, empty ones included, which are in no pair.
    pub texts: usize,
    /// How many pairs there are.
    pub count: usize,
    /// The file with the pairs, where one was asked for.
    pub output: Option<PathBuf>,
    /// The pairs, the most similar first; none where they are in the file.
    pub pairs: Vec<Pair>,
}

/// Two texts.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Pair {
    /// Their cosine.
    pub score: f64,
    /// The first one's number in the file, from 0.
    pub first: usize,
    /// The second one's number in the file, from 0.
    pub second: usize,
    /// The first text.
    pub first_text: String,
    /// The second text.
    pub second_text: String,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        for (key, value) in [("top-k", self.top_k), ("max-pairs", self.max_pairs)] {
            if value == 0 {
                return Err(Error::usage(format!("`--{key}` must be at least 1, got 0")));
            }
        }
        let texts = corpus::read(&self.input, self.column.as_deref())?;
        let (numbers, embeddings) = engine::encode_filled(&self.model, &texts, self.prompt_name.as_deref(), reporter)?;
        let pairs = mining::pairs(Similarity::Cosine, embeddings, self.top_k, self.max_pairs);
        let mut found: Vec<Pair> = pairs
            .into_iter()
            .map(|pair| {
                let (first, second) = (numbers[pair.first as usize], numbers[pair.second as usize]);
                Pair {
                    score: f64::from(pair.score),
                    first,
                    second,
                    first_text: texts[first].clone(),
                    second_text: texts[second].clone(),
                }
            })
            .collect();
        let count = found.len();
        if let Some(output) = &self.output {
            vectors::write_lines(output, &found)?;
            found.clear();
        }
        Ok(Response { texts: texts.len(), count, output: self.output, pairs: found })
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = vec![format!("{} pairs of {} texts", self.count, self.texts)];
        lines.extend(self.output.iter().map(|path| format!("written to {}", path.display())));
        for pair in self.pairs.iter().take(SHOWN) {
            let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            lines.push(format!("{:.4}  {}", pair.score, line(&pair.first_text)));
            lines.push(format!("        {}", line(&pair.second_text)));
        }
        if self.pairs.len() > SHOWN {
            lines.push(format!("{} more: `--output FILE` or `--json` has them all", self.pairs.len() - SHOWN));
        }
        lines.join("\n")
    }
}
