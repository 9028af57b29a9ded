//! `rank`: documents in the order in which a reranker finds them relevant to a query.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Answer, Reporter, Verb, engine};
use crate::data::corpus;
use crate::error::{Error, Result};
use crate::flow::EncodeOptions;

/// Order documents by their relevance to a query with a saved CrossEncoder.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The model's folder, or its id on the Hub.
    pub model: PathBuf,
    /// What is asked.
    #[arg(long, value_name = "TEXT")]
    pub query: String,
    /// The documents: `.txt` with one a line, or rows (`.jsonl`, `.csv`, `.tsv`, `.parquet`, `.arrow`).
    #[arg(long, value_name = "FILE")]
    pub documents: PathBuf,
    /// The column with the documents; needed where rows have several. BEIR rows are title and text without it.
    #[arg(long)]
    #[serde(default)]
    pub column: Option<String>,
    /// How many documents, best first; 0 for all.
    #[arg(long, value_name = "K", default_value_t = default_top_k())]
    #[serde(default = "default_top_k")]
    pub top_k: usize,
    /// This text in front of the query; empty for none, where the model has a default prompt.
    #[arg(long, value_name = "TEXT")]
    #[serde(default)]
    pub prompt: Option<String>,
}

const fn default_top_k() -> usize {
    10
}

/// The order.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The query.
    pub query: String,
    /// Documents that were scored.
    pub documents: usize,
    /// Best first.
    pub hits: Vec<Hit>,
}

/// A document in its place.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Hit {
    /// Its number in the file, from 0.
    pub corpus_id: usize,
    /// What the file calls it, where rows have an `_id` or `id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The model's score.
    pub score: f32,
    /// The document.
    pub text: String,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        let texts = corpus::read(&self.documents, self.column.as_deref())?;
        let ids = corpus::ids(&self.documents)?;
        let filled: Vec<usize> = (0..texts.len()).filter(|i| !texts[*i].trim().is_empty()).collect();
        if filled.is_empty() {
            return Err(Error::data(format!("`{}` holds no text", self.documents.display()))
                .with_hint("give a file with a document a line or a row"));
        }
        let model = engine::load_reranker(&self.model, reporter)?;
        let documents: Vec<&str> = filled.iter().map(|i| texts[*i].as_str()).collect();
        let options = EncodeOptions { prompt: self.prompt, progress: Some("scoring"), ..EncodeOptions::default() };
        let ranked = model.rank(&self.query, &documents, &options)?;
        let most = if self.top_k == 0 { ranked.len() } else { self.top_k };
        let hit = |place: &crate::model::Ranked| Hit {
            corpus_id: filled[place.corpus_id],
            id: ids.get(filled[place.corpus_id]).cloned(),
            score: place.score,
            text: documents[place.corpus_id].to_owned(),
        };
        Ok(Response {
            query: self.query,
            documents: documents.len(),
            hits: ranked.iter().take(most).map(hit).collect(),
        })
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = vec![self.query.clone()];
        lines.extend(self.hits.iter().map(|hit| format!("  {:>8.4}  {}", hit.score, hit.text)));
        lines.join("\n")
    }
}
