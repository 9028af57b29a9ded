//! `cluster`: groups of similar texts in a file.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine, vectors};
use crate::data::corpus;
use crate::error::{Error, Result};
use crate::scoring::communities::communities;

/// Groups and texts of each that are shown to people.
const SHOWN: (usize, usize) = (10, 5);

/// Find groups of similar texts in a file, by cosine with a text in the middle; texts in no group are left out.
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
    /// The least cosine with the text in the middle.
    #[arg(long, value_name = "X", default_value_t = default_threshold())]
    #[serde(default = "default_threshold")]
    pub threshold: f64,
    /// The least number of texts in a group.
    #[arg(long, value_name = "N", default_value_t = default_size())]
    #[serde(default = "default_size")]
    pub min_community_size: usize,
    /// Where the groups go, one JSON object a line; without it they are part of the answer.
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub output: Option<PathBuf>,
}

const fn default_threshold() -> f64 {
    0.75
}

const fn default_size() -> usize {
    10
}

/// The groups.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// Texts in the file, empty ones included, which are in no group.
    pub texts: usize,
    /// Texts that are in a group.
    pub grouped: usize,
    /// How many groups there are.
    pub count: usize,
    /// The file with the groups, where one was asked for.
    pub output: Option<PathBuf>,
    /// The groups, the largest first; none where they are in the file.
    pub communities: Vec<Community>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Community {
    /// How many texts.
    pub size: usize,
    /// The text in the middle, then the others by falling cosine with it.
    pub members: Vec<Member>,
}

/// A text of a group.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Member {
    /// Its number in the file, from 0.
    pub index: usize,
    /// The text.
    pub text: String,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        if self.min_community_size == 0 {
            return Err(Error::usage("`--min-community-size` must be at least 1, got 0"));
        }
        if !self.threshold.is_finite() {
            return Err(Error::usage(format!("`--threshold` must be a number, got {}", self.threshold))
                .with_hint("a cosine between -1 and 1"));
        }
        let texts = corpus::read(&self.input, self.column.as_deref())?;
        let (numbers, embeddings) = engine::encode_filled(&self.model, &texts, self.prompt_name.as_deref(), reporter)?;
        let mut found: Vec<Community> = communities(embeddings, self.threshold as f32, self.min_community_size)
            .into_iter()
            .map(|rows| {
                let member = |row: u32| {
                    let index = numbers[row as usize];
                    Member { index, text: texts[index].clone() }
                };
                Community { size: rows.len(), members: rows.into_iter().map(member).collect() }
            })
            .collect();
        let (count, grouped) = (found.len(), found.iter().map(|community| community.size).sum());
        if let Some(output) = &self.output {
            vectors::write_lines(output, &found)?;
            found.clear();
        }
        Ok(Response { texts: texts.len(), grouped, count, output: self.output, communities: found })
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = vec![format!("{} groups with {} of {} texts", self.count, self.grouped, self.texts)];
        lines.extend(self.output.iter().map(|path| format!("written to {}", path.display())));
        for community in self.communities.iter().take(SHOWN.0) {
            lines.push(format!("{} texts", community.size));
            for member in community.members.iter().take(SHOWN.1) {
                lines.push(format!("  {}", member.text.split_whitespace().collect::<Vec<_>>().join(" ")));
            }
        }
        if self.communities.len() > SHOWN.0 {
            lines.push(format!("{} more: `--output FILE` or `--json` has them all", self.communities.len() - SHOWN.0));
        }
        lines.join("\n")
    }
}
