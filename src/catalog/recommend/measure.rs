//! What measures the model, and under which key does a run log it?

use serde_json::{Map, Value, json};

use super::losses::Candidate;
use super::{Goal, Measure, Situation};
use crate::catalog::bases::Base;
use crate::data::columns::LABEL_COLUMNS;
use crate::data::inspect::{LabelFacts, Shape};
use crate::error::Result;
use crate::eval;
use crate::flow::ModelType::{CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder};

/// What metrics are called after.
const NAME: &str = "dev";

/// Rows to measure on, or those to train on where there are none yet.
struct Rows<'a> {
    shape: Shape,
    columns: &'a [String],
    label: Option<&'a str>,
    beir: bool,
    grouped: bool,
}

/// How to measure, and the keys of a recipe for it, dotted; none where nothing measures such rows.
///
/// # Errors
/// When the evaluator is not known, which is a bug.
pub fn measure(s: &Situation<'_>, first: &Candidate, base: &Base) -> Result<(Option<Measure>, Map<String, Value>)> {
    let own: Vec<String> = s.data.columns.iter().map(|column| column.name.clone()).collect();
    let rows = match &s.data.eval {
        Some(eval) => Rows {
            shape: eval.shape,
            columns: &eval.columns,
            label: eval.label.as_deref(),
            beir: eval.beir,
            grouped: eval.grouped,
        },
        None => Rows {
            shape: s.data.shape,
            columns: &own,
            label: s.data.label.as_ref().map(|label| label.column.as_str()),
            beir: false,
            grouped: s.data.signs.grouped,
        },
    };
    let none = Map::new();
    let Some((kind, columns)) = evaluator(s, first, &rows) else {
        return match (ranked_rows(s, &rows), s.eval) {
            (Some(needs), _) => Ok((Some(named(s, first, base, "CrossEncoderRerankingEvaluator", Some(needs))?), none)),
            (None, Some(path)) if rows.shape == s.data.shape && first.hard_negatives.is_empty() => {
                let keys = table("eval_dataset.0", path, &first.columns, &rows);
                let kind = "the loss, as no evaluator reads such rows".to_owned();
                Ok((Some(Measure { kind, metric: "eval_loss".to_owned(), needs: None }), keys))
            }
            _ => Ok((None, none)),
        };
    };
    let Some(path) = s.eval else {
        let needs = "rows like the training data's that are not among them, as `--eval FILE`".to_owned();
        return Ok((Some(named(s, first, base, &kind, Some(needs))?), none));
    };
    let mut keys = Map::new();
    keys.insert("evaluator.0.type".to_owned(), kind.clone().into());
    keys.insert("evaluator.0.name".to_owned(), NAME.into());
    keys.extend(table("evaluator.0", path, &columns, &rows));
    Ok((Some(named(s, first, base, &kind, None)?), keys))
}

/// The keys of a table with rows.
fn table(table: &str, path: &str, columns: &[String], rows: &Rows<'_>) -> Map<String, Value> {
    let mut keys = Map::new();
    keys.insert(format!("{table}.path"), path.into());
    if !rows.beir {
        keys.insert(format!("{table}.columns"), json!(columns));
        if let Some(label) = rows.label.filter(|label| !LABEL_COLUMNS.contains(label)) {
            keys.insert(format!("{table}.label"), label.into());
        }
    }
    keys
}

/// An evaluator with the key of its first metric.
fn named(s: &Situation<'_>, first: &Candidate, base: &Base, kind: &str, needs: Option<String>) -> Result<Measure> {
    let mut settings = Map::new();
    settings.insert("name".to_owned(), NAME.into());
    let similarity = match s.model_type {
        SparseEncoder => "dot",
        MultiVectorEncoder => "maxsim",
        SentenceTransformer | CrossEncoder => base.similarity.as_deref().unwrap_or("cosine"),
    };
    let key = match (kind, first.classes) {
        // which metrics there are depends on the model's number of classes
        ("CrossEncoderClassificationEvaluator", Some(_)) => format!("{NAME}_f1_macro"),
        _ => eval::find(kind)?.primary_key(&settings, similarity)?,
    };
    Ok(Measure { kind: kind.to_owned(), metric: eval::trainer_key(&key), needs })
}

/// How rows that a reranker is measured on come from those that there are.
fn ranked_rows(s: &Situation<'_>, rows: &Rows<'_>) -> Option<String> {
    if s.model_type != CrossEncoder {
        return None;
    }
    let path = s.eval.filter(|_| !rows.beir).unwrap_or("DEV");
    match rows.shape {
        Shape::Pairs => Some(format!(
            "passages that are no answers: `tallow mine {path} --bm25 --num-negatives 10 --output-format labeled-pair \
             --output ranked.jsonl`, then `--eval ranked.jsonl`"
        )),
        Shape::Lists => {
            let [query, texts, ..] = rows.columns else { return None };
            let label = rows.label.unwrap_or("labels");
            Some(format!(
                "a row for each passage: `jq -c 'range(.{texts} | length) as $i | {{{query}, passage: .{texts}[$i], label: \
                 .{label}[$i]}}' {path} > ranked.jsonl`, then `--eval ranked.jsonl`"
            ))
        }
        _ => None,
    }
}

/// The evaluator for rows, and the columns that it reads.
fn evaluator(s: &Situation<'_>, first: &Candidate, rows: &Rows<'_>) -> Option<(String, Vec<String>)> {
    let names = |n: usize| rows.columns.get(..n).map(<[String]>::to_vec);
    let of_type = |name: &str| match s.model_type {
        SentenceTransformer => name.to_owned(),
        CrossEncoder => format!("CrossEncoder{name}"),
        SparseEncoder => format!("Sparse{name}"),
        MultiVectorEncoder => format!("MultiVector{name}"),
    };
    let whole = !names_of_classes(s, rows);
    let pairs = |name: &str| names(2).map(|columns| (of_type(name), columns));
    let retrieves = s.goal == Some(Goal::Retrieval) || s.goal.is_none();
    match (s.model_type, rows.shape) {
        (CrossEncoder, Shape::BinaryPairs) if rows.grouped => pairs("RerankingEvaluator"),
        (CrossEncoder, Shape::BinaryPairs) => pairs("ClassificationEvaluator"),
        (CrossEncoder, Shape::ClassifiedPairs) if first.classes.is_some() => {
            pairs("ClassificationEvaluator").filter(|_| whole)
        }
        (CrossEncoder, Shape::ScoredPairs | Shape::ClassifiedPairs) => pairs("CorrelationEvaluator").filter(|_| whole),
        (CrossEncoder, Shape::Triplets) => names(3).map(|columns| (of_type("RerankingEvaluator"), columns)),
        (CrossEncoder, _) => None,
        (SentenceTransformer | SparseEncoder, Shape::Pairs) if s.data.translated() && !rows.beir => {
            pairs("TranslationEvaluator")
        }
        (_, Shape::Pairs) => pairs("InformationRetrievalEvaluator"),
        (_, Shape::Triplets | Shape::ScoredTriplets) => names(3).map(|columns| (of_type("TripletEvaluator"), columns)),
        (MultiVectorEncoder, Shape::ListedTriplets) => Some((of_type("DistillationEvaluator"), rows.columns.to_vec())),
        (_, Shape::ListedTriplets) => names(3).map(|columns| (of_type("TripletEvaluator"), columns)),
        (_, Shape::BinaryPairs) if s.model_type == MultiVectorEncoder || (rows.grouped && retrieves) => {
            pairs("RerankingEvaluator")
        }
        (_, Shape::BinaryPairs) => pairs("BinaryClassificationEvaluator"),
        (MultiVectorEncoder, _) => None,
        (_, Shape::ScoredPairs) => pairs("EmbeddingSimilarityEvaluator"),
        (SentenceTransformer, Shape::ClassifiedPairs) if first.name == "SoftmaxLoss" => {
            pairs("LabelAccuracyEvaluator").filter(|_| whole)
        }
        (_, Shape::ClassifiedPairs) => pairs("EmbeddingSimilarityEvaluator").filter(|_| whole),
        (SentenceTransformer | SparseEncoder, Shape::EmbeddedTexts) => {
            names(1).map(|columns| (of_type("MSEEvaluator"), columns))
        }
        _ => None,
    }
}

/// Whether classes have names, which evaluators do not read.
fn names_of_classes(s: &Situation<'_>, rows: &Rows<'_>) -> bool {
    let own = s.data.label.as_ref().is_some_and(|label| label.kind == LabelFacts::Names);
    rows.shape == Shape::ClassifiedPairs && own
}
