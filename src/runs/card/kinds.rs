//! What a card says of each type of model: tags, purpose, facts, and how to use it.

use super::{Facts, quoted};
use crate::flow::ModelType;

/// The Hub's tags that say what it is.
pub(super) fn tags(facts: &Facts) -> &'static [&'static str] {
    match facts.model_type {
        ModelType::SentenceTransformer => &["sentence-similarity", "feature-extraction", "dense"],
        ModelType::CrossEncoder if facts.dimension == 1 => &["cross-encoder", "reranker"],
        ModelType::CrossEncoder => &["cross-encoder", "text-classification"],
        ModelType::SparseEncoder if autoencodes(facts) => &["sparse-encoder", "sparse", "csr"],
        ModelType::SparseEncoder if facts.modules.contains(&"Router") => {
            &["sparse-encoder", "sparse", "splade", "inference-free", "asymmetric"]
        }
        ModelType::SparseEncoder => &["sparse-encoder", "sparse", "splade"],
        ModelType::MultiVectorEncoder => &["multi-vector", "late-interaction"],
    }
}

/// Whether its dimensions are an autoencoder's and no words.
fn autoencodes(facts: &Facts) -> bool {
    facts.modules.contains(&"SparseAutoEncoder")
}

/// The Hub's task.
pub(super) fn pipeline(facts: &Facts) -> &'static str {
    match facts.model_type {
        ModelType::SentenceTransformer | ModelType::MultiVectorEncoder => "sentence-similarity",
        ModelType::CrossEncoder if facts.dimension == 1 => "text-ranking",
        ModelType::CrossEncoder => "text-classification",
        ModelType::SparseEncoder => "feature-extraction",
    }
}

/// What it is for.
pub(super) fn purpose(facts: &Facts) -> &'static str {
    match facts.model_type {
        ModelType::SentenceTransformer => {
            "It maps texts to vectors, for semantic search, clustering and comparing texts."
        }
        ModelType::CrossEncoder if facts.dimension == 1 => {
            "It reads two texts at once and scores them, to put what a search has found in order."
        }
        ModelType::CrossEncoder => "It reads two texts at once and says which of several classes they are.",
        ModelType::SparseEncoder if autoencodes(facts) => {
            "It maps texts to long vectors, most values of them zero, for search through an inverted index."
        }
        ModelType::SparseEncoder => {
            "It maps texts to weights of words, most of them zero, for search through an inverted index."
        }
        ModelType::MultiVectorEncoder => "It maps texts to a vector for each token, for search by late interaction.",
    }
}

/// The facts of its output.
pub(super) fn output(facts: &Facts) -> Vec<(&'static str, String)> {
    match facts.model_type {
        ModelType::CrossEncoder => vec![
            ("Labels", facts.dimension.to_string()),
            ("Activation", facts.activation.unwrap_or("Sigmoid").to_owned()),
        ],
        _ => vec![("Dimensions", facts.dimension.to_string()), ("Similarity", facts.similarity.clone())],
    }
}

/// How to use it from Python.
pub(super) fn python(facts: &Facts) -> String {
    let class = facts.model_type.name();
    let mut lines = vec![
        format!("from sentence_transformers import {class}"),
        String::new(),
        format!("model = {class}(\"path/to/this/folder\")"),
    ];
    let asymmetric = facts.prompts.iter().any(|(name, text)| name == "query" && !text.is_empty());
    let line = |text: &str| text.to_owned();
    match facts.model_type {
        ModelType::CrossEncoder if facts.dimension == 1 => lines.extend([
            line("scores = model.predict([(\"a question\", \"a passage\"), (\"a question\", \"another passage\")])"),
            line("print(model.rank(\"a question\", [\"a passage\", \"another passage\"]))"),
        ]),
        ModelType::CrossEncoder => {
            lines.push(line("scores = model.predict([(\"a text\", \"another text\")])"));
            lines.push(format!("print(scores.shape)  # (1, {})", facts.dimension));
        }
        ModelType::SparseEncoder => lines.extend([
            line("queries = model.encode_query([\"a question\"])"),
            line("documents = model.encode_document([\"a passage\", \"another passage\"])"),
            line("print(model.similarity(queries, documents))"),
            line(if autoencodes(facts) {
                "print(model.sparsity(documents))"
            } else {
                "print(model.decode(queries[0], top_k=10))"
            }),
        ]),
        ModelType::MultiVectorEncoder => lines.extend([
            line("queries = model.encode_query([\"a question\"])"),
            line("documents = model.encode_document([\"a passage\", \"another passage\"])"),
            format!("print(queries[0].shape)  # (tokens, {})", facts.dimension),
            line("print(model.similarity(queries, documents))"),
        ]),
        ModelType::SentenceTransformer => {
            if let Some(dim) = facts.matryoshka_dims.iter().min().filter(|dim| **dim < facts.dimension) {
                lines.push(format!("# shorter vectors: {class}(\"path/to/this/folder\", truncate_dim={dim})"));
            }
            if asymmetric {
                lines.push(line("queries = model.encode_query([\"a question\"])"));
                lines.push(line("documents = model.encode_document([\"a passage\", \"another passage\"])"));
                lines.push(format!("print(queries.shape)  # (1, {})", facts.dimension));
                lines.push(line("print(model.similarity(queries, documents))"));
            } else {
                lines.push(line("embeddings = model.encode([\"a text\", \"another text\", \"a third one\"])"));
                lines.push(format!("print(embeddings.shape)  # (3, {})", facts.dimension));
                lines.push(line("print(model.similarity(embeddings, embeddings))"));
            }
        }
    }
    lines.join("\n")
}

/// How to use it from a shell.
pub(super) fn shell(facts: &Facts) -> String {
    let lines: &[&str] = match facts.model_type {
        ModelType::CrossEncoder if facts.dimension == 1 => &[
            "tallow rank path/to/this/folder --query \"your question\" --documents passages.txt",
            "tallow predict path/to/this/folder --input pairs.jsonl --columns query,passage --output scores.jsonl",
        ],
        ModelType::CrossEncoder => {
            &["tallow predict path/to/this/folder --input pairs.jsonl --columns first,second --output scores.jsonl"]
        }
        _ => &[
            "tallow search path/to/this/folder --corpus passages.txt --query \"your question\"",
            if matches!(facts.model_type, ModelType::SparseEncoder | ModelType::MultiVectorEncoder) {
                "tallow encode path/to/this/folder --input texts.txt --output embeddings.jsonl"
            } else {
                "tallow encode path/to/this/folder --input texts.txt --output embeddings.npy"
            },
        ],
    };
    lines.join("\n")
}

/// `name: value` lines of its prompts.
pub(super) fn prompts(facts: &Facts) -> Vec<(&'static str, String)> {
    let filled = facts.prompts.iter().filter(|(_, text)| !text.is_empty());
    filled.map(|(name, text)| ("Prompt", format!("`{name}`: {}", quoted(text)))).collect()
}
