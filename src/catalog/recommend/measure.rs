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

/// The evaluator, and its keys in a recipe; none without a file to measure on, or where nothing measures such rows.
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
    let Some((kind, columns)) = evaluator(s, first, &rows) else { return Ok((None, Map::new())) };
    let mut settings = Map::new();
    settings.insert("name".to_owned(), NAME.into());
    let similarity = match s.model_type {
        SparseEncoder => "dot",
        MultiVectorEncoder => "maxsim",
        SentenceTransformer | CrossEncoder => base.similarity.as_deref().unwrap_or("cosine"),
    };
    let key = match (kind.as_str(), first.classes) {
        // which metrics there are depends on the model's number of classes
        ("CrossEncoderClassificationEvaluator", Some(_)) => format!("{NAME}_f1_macro"),
        _ => eval::find(&kind)?.primary_key(&settings, similarity)?,
    };
    let metric = eval::trainer_key(&key);
    let Some(path) = s.eval else {
        let needs = "rows like the training data's that are not among them, as `--eval FILE`".to_owned();
        return Ok((Some(Measure { kind, metric, needs: Some(needs) }), Map::new()));
    };
    let mut keys = Map::new();
    keys.insert("type".to_owned(), kind.clone().into());
    keys.insert("name".to_owned(), NAME.into());
    keys.insert("path".to_owned(), path.into());
    if !rows.beir {
        keys.insert("columns".to_owned(), json!(columns));
        if let Some(label) = rows.label.filter(|label| !LABEL_COLUMNS.contains(label)) {
            keys.insert("label".to_owned(), label.into());
        }
    }
    Ok((Some(Measure { kind, metric, needs: None }), keys))
}

/// The evaluator for rows, and the columns that it reads.
fn evaluator(s: &Situation<'_>, first: &Candidate, rows: &Rows<'_>) -> Option<(String, Vec<String>)> {
    let names = |n: usize| rows.columns.get(..n).map(<[String]>::to_vec);
    let named = |name: &str| match s.model_type {
        SentenceTransformer => name.to_owned(),
        CrossEncoder => format!("CrossEncoder{name}"),
        SparseEncoder => format!("Sparse{name}"),
        MultiVectorEncoder => format!("MultiVector{name}"),
    };
    let whole = !names_of_classes(s, rows);
    let pairs = |name: &str| names(2).map(|columns| (named(name), columns));
    let retrieves = s.goal == Some(Goal::Retrieval) || s.goal.is_none();
    match (s.model_type, rows.shape) {
        (CrossEncoder, Shape::BinaryPairs) if rows.grouped => pairs("RerankingEvaluator"),
        (CrossEncoder, Shape::BinaryPairs) => pairs("ClassificationEvaluator"),
        (CrossEncoder, Shape::ClassifiedPairs) if first.classes.is_some() => {
            pairs("ClassificationEvaluator").filter(|_| whole)
        }
        (CrossEncoder, Shape::ScoredPairs | Shape::ClassifiedPairs) => pairs("CorrelationEvaluator").filter(|_| whole),
        (CrossEncoder, Shape::Triplets) => names(3).map(|columns| (named("RerankingEvaluator"), columns)),
        (CrossEncoder, _) => None,
        (_, Shape::Pairs) => pairs("InformationRetrievalEvaluator"),
        (_, Shape::Triplets | Shape::ScoredTriplets) => names(3).map(|columns| (named("TripletEvaluator"), columns)),
        (MultiVectorEncoder, Shape::ListedTriplets) => Some((named("DistillationEvaluator"), rows.columns.to_vec())),
        (_, Shape::ListedTriplets) => names(3).map(|columns| (named("TripletEvaluator"), columns)),
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
            names(1).map(|columns| (named("MSEEvaluator"), columns))
        }
        _ => None,
    }
}

/// Whether classes have names, which evaluators do not read.
fn names_of_classes(s: &Situation<'_>, rows: &Rows<'_>) -> bool {
    let own = s.data.label.as_ref().is_some_and(|label| label.kind == LabelFacts::Names);
    rows.shape == Shape::ClassifiedPairs && own
}
