//! `search`: the texts of a small corpus nearest to a query.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::engine::{self, Role};
use super::{Answer, Reporter, Verb};
use crate::data::corpus;
use crate::error::{Error, Result};
use crate::flow::{Embeddings, Encode, EncodeOptions, EncodeSparse, embedding_not_finite};
use crate::scoring::Similarity;
use crate::scoring::blocks::{self, Search};
use crate::scoring::inverted::InvertedIndex;
use crate::scoring::rows::{Finder, Rows};

/// Search a small corpus with a saved model: it is encoded anew each time.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The model's folder, or its id on the Hub.
    pub model: PathBuf,
    /// The texts to search: `.txt` with one a line, or rows (`.jsonl`, `.csv`, `.tsv`, `.parquet`, `.arrow`).
    #[arg(long, value_name = "FILE")]
    pub corpus: PathBuf,
    /// The column with the texts; needed where rows have several. BEIR rows are title and text without it.
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
    /// Texts in the corpus, empty ones included, which are never found.
    pub corpus_size: usize,
    /// How texts were compared: `cosine`, `dot`, `euclidean`, `manhattan` (the last two as negative distances), `maxsim`
    /// or `meanmaxsim` token by token.
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
    /// What the file calls it, where rows have an `_id` or `id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its similarity to the query.
    pub score: f64,
    /// The text.
    pub text: String,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        if self.query.is_empty() || self.query.iter().any(|q| q.trim().is_empty()) {
            return Err(Error::usage("a query is empty").with_hint("say what to look for: `--query \"...\"`"));
        }
        if self.top_k == 0 {
            return Err(Error::usage("`top_k` is 0").with_hint("ask for at least one text"));
        }
        let corpus = corpus::read(&self.corpus, self.column.as_deref())?;
        let model = engine::load_encoder(&self.model, reporter)?;
        let documents = engine::encode_options(&model, Role::Document, "encoding the corpus");
        let queries = engine::encode_options(&model, Role::Query, "encoding the queries");
        let mut found =
            find(&model, (&self.query, &queries), (&corpus, &documents), self.top_k, &mut |text| reporter.line(text))?;
        let ids = corpus::ids(&self.corpus)?;
        found.iter_mut().flat_map(|found| &mut found.hits).for_each(|hit| hit.id = ids.get(hit.index).cloned());
        Ok(Response { corpus_size: corpus.len(), similarity: model.similarity_fn_name().to_owned(), queries: found })
    }
}

/// The `top_k` texts nearest to each query, best first; equal scores in the corpus's order.
pub(super) fn find(
    model: &dyn Encode,
    (queries, query_options): (&[String], &EncodeOptions),
    (corpus, corpus_options): (&[String], &EncodeOptions),
    top_k: usize,
    warn: &mut dyn FnMut(&str),
) -> Result<Vec<Found>> {
    let mut empty: Vec<String> = Vec::new();
    let name = model.similarity_fn_name();
    let similarity: Similarity = name.parse().map_err(|_| {
        Error::model(format!("the model compares texts by `{name}`, which is not known here"))
            .with_hint("`similarity_fn_name` is one of `cosine`, `dot`, `euclidean`, `manhattan`")
    })?;
    let encode = |what: &str, texts: &[&str], options: &EncodeOptions| -> Result<Embeddings> {
        let embeddings = model.encode(texts, options)?;
        if embeddings.rows() != texts.len() {
            return Err(Error::Internal(format!("{} embeddings for {} {what}", embeddings.rows(), texts.len())));
        }
        match embeddings.data().iter().position(|value| !value.is_finite()) {
            Some(at) => Err(embedding_not_finite(texts[at / embeddings.dim().max(1)])),
            None => Ok(embeddings),
        }
    };
    let encode_sparse = |model: &dyn EncodeSparse, texts: &[&str], options: &EncodeOptions| {
        let embeddings = model.encode_sparse(texts, options)?;
        match embeddings.not_finite().and_then(|row| texts.get(row)) {
            Some(text) => Err(embedding_not_finite(text)),
            None => Ok(embeddings),
        }
    };
    // empty lines keep their numbers, but nobody looks for them
    let with_text = || corpus.iter().zip(0u32..).filter(|(text, _)| !text.trim().is_empty());
    let documents: Vec<&str> = with_text().map(|(text, _)| text.as_str()).collect();
    let numbers: Vec<u32> = with_text().map(|(_, number)| number).collect();
    let asked: Vec<&str> = queries.iter().map(String::as_str).collect();
    if model.multi_vector().is_some() {
        return Ok(found(
            queries,
            corpus,
            late_hits(model, similarity, (&asked, query_options), (&documents, &numbers, corpus_options), top_k)?,
        ));
    }
    let inverted = model.sparse().filter(|_| matches!(similarity, Similarity::Cosine | Similarity::Dot));
    let hits = if let Some(model) = inverted {
        let documents = encode_sparse(model, &documents, corpus_options)?;
        let index = InvertedIndex::new(&documents, similarity == Similarity::Cosine);
        let asked_for = encode_sparse(model, &asked, query_options)?;
        for (row, query) in queries.iter().enumerate() {
            if asked_for.row(row).0.is_empty() {
                empty.push(query.clone());
            }
        }
        let mut hits = index.search(&asked_for, top_k);
        // texts that share no word are not found
        hits.iter_mut().for_each(|hits| hits.retain(|hit| hit.score > 0.0));
        hits.iter_mut().flatten().for_each(|hit| hit.rank = numbers[hit.rank as usize]);
        hits
    } else {
        let documents = encode("documents", &documents, corpus_options)?;
        let mut search = Search::new(similarity, encode("queries", &asked, query_options)?, top_k);
        search.add(documents, &numbers);
        search.finish()
    };
    for query in empty {
        warn(&format!("warning: the embedding of the query `{query}` is empty, so nothing is found for it"));
    }
    Ok(found(queries, corpus, hits))
}

/// The texts that were found, by query.
fn found(queries: &[String], corpus: &[String], hits: Vec<Vec<blocks::Hit>>) -> Vec<Found> {
    let found = queries.iter().zip(hits).map(|(query, hits)| {
        let hits = hits.into_iter().filter_map(|hit| {
            let index = hit.rank as usize;
            Some(Hit { index, id: None, score: f64::from(hit.score), text: corpus.get(index)?.clone() })
        });
        Found { query: query.clone(), hits: hits.collect() }
    });
    found.collect()
}

/// Texts whose vectors are in memory at a time, where each token has one.
const LATE_CHUNK: usize = 2048;

/// The nearest texts of a model with a vector for each token.
fn late_hits(
    model: &dyn Encode,
    similarity: Similarity,
    (queries, query_options): (&[&str], &EncodeOptions),
    (documents, numbers, corpus_options): (&[&str], &[u32], &EncodeOptions),
    top_k: usize,
) -> Result<Vec<Vec<blocks::Hit>>> {
    let mut search = Finder::new(similarity, Rows::encode(model, queries, query_options)?, top_k);
    for (documents, numbers) in documents.chunks(LATE_CHUNK).zip(numbers.chunks(LATE_CHUNK)) {
        search.add(Rows::encode(model, documents, corpus_options)?, numbers);
    }
    Ok(search.finish())
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
        find(&Letters(similarity), (&["a".to_owned()], &options), (&corpus, &plain), 2, &mut |_| {}).unwrap()
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
        assert!(find(&Letters("hamming"), (&corpus, &plain), (&corpus, &plain), 1, &mut |_| {}).is_err());
    }

    #[test]
    fn empty_lines_are_counted_and_not_found() {
        let (corpus, plain) = (["", "a", " ", "b"].map(String::from), EncodeOptions::default());
        let found =
            find(&Letters("euclidean"), (&["b".to_owned()], &plain), (&corpus, &plain), 9, &mut |_| {}).unwrap();
        assert_eq!(found[0].hits.iter().map(|h| h.index).collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn the_querys_prompt_counts() {
        assert_eq!(search("cosine", Some("cccc"))[0].hits[0].index, 3);
    }

    /// Sparse embeddings: a dimension for `a`, and what is no number for `n`.
    struct Sparse;

    impl Encode for Sparse {
        fn encode(&self, _: &[&str], _: &EncodeOptions) -> Result<Embeddings> {
            Err(Error::Internal("dense".to_owned()))
        }

        fn similarity_fn_name(&self) -> &str {
            "dot"
        }

        fn sparse(&self) -> Option<&dyn EncodeSparse> {
            Some(self)
        }
    }

    impl EncodeSparse for Sparse {
        fn encode_sparse(&self, texts: &[&str], _: &EncodeOptions) -> Result<crate::flow::SparseEmbeddings> {
            let mut embeddings = crate::flow::SparseEmbeddings::new(2);
            for text in texts {
                let a = f32::from(u8::from(text.contains('a')));
                embeddings.push(&[a, if text.contains('n') { f32::NAN } else { 0.0 }], None);
            }
            Ok(embeddings)
        }

        fn words(&self, _: &[u32]) -> Vec<String> {
            Vec::new()
        }
    }

    #[test]
    fn embeddings_without_words_and_without_numbers_are_told() {
        let plain = EncodeOptions::default();
        let search = |query: &str, corpus: &[String]| {
            let mut told = Vec::new();
            let found = find(&Sparse, (&[query.to_owned()], &plain), (corpus, &plain), 3, &mut |text| {
                told.push(text.to_owned())
            });
            (found.map(|found| found[0].hits.len()), told)
        };
        let corpus = ["a".to_owned(), "b".to_owned()];
        let (found, told) = search("a", &corpus);
        assert_eq!((found.unwrap(), told.len()), (1, 0));
        let (found, told) = search("b", &corpus);
        assert_eq!(found.unwrap(), 0);
        assert!(told[0].contains("embedding of the query `b` is empty"), "{told:?}");
        for (query, corpus) in [("n", corpus.clone()), ("a", ["a".to_owned(), "n".to_owned()])] {
            let error = search(query, &corpus).0.unwrap_err().to_string();
            assert!(error.contains("embedding of `n` has values that are not finite"), "{error}");
        }
    }
}
