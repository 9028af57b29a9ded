//! `evaluate`: an evaluator's metrics for a saved model.

use std::path::PathBuf;

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Answer, Reporter, Verb, engine};
use crate::error::{Error, Result};
use crate::eval;
use crate::flow::{Metrics, ModelType};
use crate::recipe::plan::EvaluatorPlan;
use crate::util::clock;

/// The data of the evaluators that the help text does not name.
const DATA: &str = "\
Data of the other evaluators:
  BinaryClassificationEvaluator
      a file with `sentence1`, `sentence2` and `label` (0 or 1)
  RerankingEvaluator
      a file with `query` and lists `positive`, `negative` (JSON lines),
      or with `query`, `passage`, `label` (0 or 1), a row a passage
  TranslationEvaluator
      a file with `source`, `target`
  MSEEvaluator
      a file with `source`, `target` and `--set teacher_model=FOLDER`,
      or with `target` and the teacher's embedding as `label` (a list)
  MSEEvaluatorFromDataFrame
      a file with a column a language, `--set teacher_model=FOLDER` and
      `--set combinations=[[\"en\",\"es\"]]`
  ParaphraseMiningEvaluator
      a folder with `sentences.jsonl` (`id`, `text`) and
      `duplicates.jsonl` (`id1`, `id2`)
  NanoBEIREvaluator
      a folder of folders in the BEIR layout, such as `NanoMSMARCO`;
      without `--path`, `sentence-transformers/NanoBEIR-en` (or
      `--set dataset_id=ID`) from the Hub or its cache
  LabelAccuracyEvaluator
      only in a run: its classifier is thrown away with it
  CrossEncoderRerankingEvaluator
      a file with `query`, `passage`, `label` (0 or 1), a row a passage,
      or with `query` and lists `positive` and `negative`, or `positive`
      and `documents` (what a search found, best first) (JSON lines)
  CrossEncoderClassificationEvaluator
      a file with `sentence1`, `sentence2` (or `query`, `passage`) and
      `label`, a whole number
  CrossEncoderCorrelationEvaluator
      a file with `sentence1`, `sentence2` (or `query`, `passage`) and
      `score`
  CrossEncoderNanoBEIREvaluator
      as NanoBEIREvaluator, each folder with a `bm25.jsonl` of rows
      `query-id`, `corpus-ids`; on the Hub a subset `bm25`
  Sparse...Evaluator, of SparseEncoder models
      what the evaluator without `Sparse` in its name reads
  MultiVector...Evaluator, of MultiVectorEncoder models
      what the evaluator without `MultiVector` in its name reads;
      MultiVectorDistillationEvaluator a file with a query, columns of
      documents, and a list of a teacher's scores
  ReciprocalRankFusionEvaluator, of SparseEncoder models
      a folder with `dense.jsonl` and `sparse.jsonl`: rows `query_id`,
      `query`, `positive` (a list) and `documents` (as they were found)";

/// Measure a saved model.
///
/// `InformationRetrievalEvaluator` reads a folder in the BEIR layout (`corpus.jsonl`, `queries.jsonl`,
/// `qrels/test.tsv`); `EmbeddingSimilarityEvaluator` a file with `sentence1`, `sentence2`, `score`;
/// `TripletEvaluator` a file with `anchor`, `positive`, `negative`.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[command(after_long_help = DATA)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The model's folder, or its id on the Hub.
    pub model: PathBuf,
    /// The evaluator, by sentence-transformers' class name.
    #[arg(long, value_name = "CLASS")]
    pub evaluator: String,
    /// The data: a folder or a file, as the evaluator needs it; those of NanoBEIR without it fetch
    /// theirs from the Hub.
    #[arg(long)]
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Put in front of every metric's key.
    #[arg(long, default_value = "")]
    #[serde(default)]
    pub name: String,
    /// The columns with the texts, in the evaluator's order; without it those named above.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    #[serde(default)]
    pub columns: Vec<String>,
    /// The column with the labels; without it `label`, `labels`, `score` or `scores`.
    #[arg(long, value_name = "COLUMN")]
    #[serde(default)]
    pub label: Option<String>,
    /// One of the evaluator's own settings, as a recipe has them: `truncate_dim=128`, `similarity_fn_names=["dot"]`.
    /// Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    #[serde(skip)]
    #[schemars(skip)]
    pub set: Vec<String>,
}

/// The metrics.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// The model's folder.
    pub model: PathBuf,
    /// The evaluator.
    pub evaluator: String,
    /// The key of the metric that stands for the whole.
    pub primary_metric: String,
    /// Its value.
    pub primary_value: Option<f64>,
    /// Every metric, in the evaluator's order; `null` for one that is not a number.
    #[schemars(with = "std::collections::BTreeMap<String, Option<f64>>")]
    pub metrics: Map<String, Value>,
    /// What the evaluation took, loading left out.
    pub seconds: f64,
}

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        let settings = engine::evaluator_settings(&self.evaluator, &self.set)?;
        let path = engine::evaluation_path(&self.evaluator, self.path.as_deref(), &settings, reporter)?;
        let evaluator = engine::evaluator(&EvaluatorPlan {
            kind: self.evaluator.clone(),
            name: self.name.clone(),
            path,
            columns: self.columns.clone(),
            label: self.label.clone(),
            limit: None,
            settings,
        })?;
        let model = engine::load_encoder(&self.model, reporter)?;
        // a model with a vector for each token would give its own scores under a name of vectors' similarity
        let kind = model.kind();
        if kind == ModelType::MultiVectorEncoder && !evaluator.card().model_types.contains(&kind) {
            let own: Vec<_> = eval::cards().filter(|c| c.model_types.contains(&kind)).map(|c| c.name).collect();
            let twin = format!("MultiVector{}", self.evaluator);
            let hint = if own.contains(&twin.as_str()) { twin } else { own.join("`, `") };
            let message =
                format!("`{}` compares single vectors, and `{}` is a {kind}", self.evaluator, self.model.display());
            return Err(Error::usage(message).with_hint(format!("take `{hint}`")));
        }
        let begun = std::time::Instant::now();
        let metrics = evaluator.evaluate(&model)?;
        Ok(Response::new(self, &metrics, begun.elapsed().as_secs_f64()))
    }
}

impl Response {
    fn new(request: Request, metrics: &Metrics, seconds: f64) -> Self {
        Self {
            model: request.model,
            evaluator: request.evaluator,
            primary_value: metrics.primary_value().filter(|v| v.is_finite()),
            primary_metric: metrics.primary.clone(),
            metrics: metrics.values.iter().map(|(key, value)| (key.clone(), json!(value))).collect(),
            seconds,
        }
    }
}

impl Answer for Response {
    fn human(&self) -> String {
        let width = self.metrics.keys().map(String::len).max().unwrap_or(0);
        let mut lines: Vec<String> = self
            .metrics
            .iter()
            .map(|(key, value)| {
                let star = if *key == self.primary_metric { "  (primary)" } else { "" };
                let value = value.as_f64().map_or_else(|| "not a number".to_owned(), |v| format!("{v:.4}"));
                format!("{key:<width$}  {value}{star}")
            })
            .collect();
        lines.push(format!("took {}", clock::human(self.seconds)));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_keep_their_order_and_nan_is_null() {
        let request = Request {
            model: "m".into(),
            evaluator: "EmbeddingSimilarityEvaluator".into(),
            path: Some("p".into()),
            name: String::new(),
            columns: Vec::new(),
            label: None,
            set: Vec::new(),
        };
        let mut metrics = Metrics { primary: "spearman_cosine".into(), ..Metrics::default() };
        metrics.push("pearson_cosine", f64::NAN);
        metrics.push("spearman_cosine", 0.5);
        let response = Response::new(request, &metrics, 0.2);
        let document = json!(response)["metrics"].to_string();
        assert_eq!(document, r#"{"pearson_cosine":null,"spearman_cosine":0.5}"#);
        assert!(response.human().contains("spearman_cosine  0.5000  (primary)"), "{}", response.human());
    }
}
