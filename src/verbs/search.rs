//! `search`: the texts of a small corpus nearest to a query.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::engine::{self, Role};
use super::{Answer, Reporter, Verb, texts};
use crate::error::{Error, Result};
use crate::flow::{Embeddings, Encode, EncodeOptions};

/// Search a small corpus with a saved model: it is encoded anew each time.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The model's folder.
    pub model: PathBuf,
    /// The texts to search: one a line, or `.jsonl`.
    #[arg(long, value_name = "FILE")]
    pub corpus: PathBuf,
    /// The column with the texts, for `.jsonl`.
    #[arg(long)]
    #[serde(default)]
    pub column: Option<String>,
    /// What to look for. Repeatable.
    #[arg(long = "query", value_name = "TEXT", required = true)]
    pub query: Vec<String>,
    /// How many texts for each query.
    #[arg(long, value_name = "K", default_value_t = default_top_k())]
    #[serde(default = "default_top_k")]
    pub top_k: usize,
}

const fn default_top_k() -> usize {
    5
}

/// What was found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// Texts in the corpus.
    pub corpus_size: usize,
    /// How texts were compared: `cosine`, `dot`, `euclidean`, `manhattan` (the last two as negative distances).
    pub similarity: String,
    /// One entry a query, in order.
    pub queries: Vec<Found>,
}

/// What was found for one query.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Found {
    /// The query.
    pub query: String,
    /// The nearest texts, best first.
    pub hits: Vec<Hit>,
}

/// One text.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Hit {
    /// Its number in the corpus, from 0.
    pub index: usize,
    /// Its similarity to the query.
    pub score: f64,
    /// The text.
    pub text: String,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, _reporter: &mut dyn Reporter) -> Result<Response> {
        if self.query.is_empty() || self.query.iter().any(|q| q.trim().is_empty()) {
            return Err(Error::usage("a query is empty").with_hint("say what to look for: `--query \"...\"`"));
        }
        if self.top_k == 0 {
            return Err(Error::usage("`top_k` is 0").with_hint("ask for at least one text"));
        }
        let corpus = texts::read(&self.corpus, self.column.as_deref())?;
        let model = engine::load_model(&self.model)?;
        let documents = engine::encode_options(&model, Role::Document, "encoding the corpus");
        let queries = engine::encode_options(&model, Role::Query, "encoding the queries");
        let found = find(&model, (&self.query, &queries), (&corpus, &documents), self.top_k)?;
        Ok(Response { corpus_size: corpus.len(), similarity: model.similarity_fn_name().to_owned(), queries: found })
    }
}

/// The `top_k` texts nearest to each query, best first; equal scores in the corpus's order.
pub(super) fn find(
    model: &dyn Encode,
    (queries, query_options): (&[String], &EncodeOptions),
    (corpus, corpus_options): (&[String], &EncodeOptions),
    top_k: usize,
) -> Result<Vec<Found>> {
    let texts = |of: &'static str, all: &[String], options: &EncodeOptions| -> Result<Embeddings> {
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let embeddings = model.encode(&all, options)?;
        if embeddings.rows() == all.len() {
            Ok(embeddings)
        } else {
            Err(Error::Internal(format!("{} embeddings for {} {of}", embeddings.rows(), all.len())))
        }
    };
    let similarity = Similarity::by_name(model.similarity_fn_name())?;
    let documents = similarity.prepared(texts("documents", corpus, corpus_options)?);
    let asked = similarity.prepared(texts("queries", queries, query_options)?);
    let found = queries.iter().enumerate().map(|(q, query)| {
        let mut scored: Vec<(usize, f64)> =
            (0..documents.rows()).map(|d| (d, similarity.score(asked.row(q), documents.row(d)))).collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let hits = scored.into_iter().take(top_k);
        let hits = hits.filter_map(|(index, score)| Some(Hit { index, score, text: corpus.get(index)?.clone() }));
        Found { query: query.clone(), hits: hits.collect() }
    });
    Ok(found.collect())
}

/// How two embeddings are compared; larger is nearer for all of them.
#[derive(Debug, Clone, Copy)]
enum Similarity {
    Cosine,
    Dot,
    Euclidean,
    Manhattan,
}

impl Similarity {
    fn by_name(name: &str) -> Result<Self> {
        match name {
            "cosine" => Ok(Self::Cosine),
            "dot" => Ok(Self::Dot),
            "euclidean" => Ok(Self::Euclidean),
            "manhattan" => Ok(Self::Manhattan),
            _ => Err(Error::model(format!("the model compares texts by `{name}`, which is not known here"))
                .with_hint("`similarity_fn_name` is one of `cosine`, `dot`, `euclidean`, `manhattan`")),
        }
    }

    fn prepared(self, embeddings: Embeddings) -> Embeddings {
        if matches!(self, Self::Cosine) { embeddings.normalized() } else { embeddings }
    }

    fn score(self, a: &[f32], b: &[f32]) -> f64 {
        let pairs = a.iter().zip(b).map(|(x, y)| (f64::from(*x), f64::from(*y)));
        match self {
            Self::Cosine | Self::Dot => pairs.map(|(x, y)| x * y).sum(),
            Self::Euclidean => -pairs.map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt(),
            Self::Manhattan => -pairs.map(|(x, y)| (x - y).abs()).sum::<f64>(),
        }
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = Vec::new();
        for found in &self.queries {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            lines.push(found.query.clone());
            for (rank, hit) in found.hits.iter().enumerate() {
                let text = hit.text.split_whitespace().collect::<Vec<_>>().join(" ");
                lines.push(format!("{:>3}. {:.4}  {text}", rank + 1, hit.score));
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Counts of the letters a, b and c; the prompt counts too.
    struct Letters(&'static str);

    impl Encode for Letters {
        fn encode(&self, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings> {
            let prompt = options.prompt.clone().unwrap_or_default();
            let count = |t: &str, c: char| t.chars().filter(|x| *x == c).count() as f32;
            let rows = texts.iter().map(|t| format!("{prompt}{t}"));
            Ok(Embeddings::new(3, rows.flat_map(|t| ['a', 'b', 'c'].map(|c| count(&t, c))).collect()))
        }

        fn similarity_fn_name(&self) -> &str {
            self.0
        }
    }

    fn search(similarity: &'static str, prompt: Option<&str>) -> Vec<Found> {
        let corpus = ["bbb", "aab", "aaaab", "c"].map(String::from);
        let options = EncodeOptions { prompt: prompt.map(str::to_owned), ..EncodeOptions::default() };
        let plain = EncodeOptions::default();
        find(&Letters(similarity), (&["a".to_owned()], &options), (&corpus, &plain), 2).unwrap()
    }

    #[test]
    fn nearest_first_by_the_models_similarity() {
        let order = |s| search(s, None)[0].hits.iter().map(|h| h.index).collect::<Vec<_>>();
        assert_eq!(order("cosine"), [2, 1]);
        assert_eq!(order("dot"), [2, 1]);
        assert_eq!(order("euclidean"), [1, 3]);
        assert_eq!(order("manhattan"), [1, 3]);
        assert!(search("cosine", None)[0].hits[0].score <= 1.0 + 1e-6);
        let corpus = ["a".to_owned()];
        let plain = EncodeOptions::default();
        assert!(find(&Letters("maxsim"), (&corpus, &plain), (&corpus, &plain), 1).is_err());
    }

    #[test]
    fn the_querys_prompt_counts() {
        assert_eq!(search("cosine", Some("cccc"))[0].hits[0].index, 3);
    }
}
