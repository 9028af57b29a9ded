//! Evaluators with their data, and all of them together.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use candle_core::DType;
use serde_json::{Map, Value};

use crate::data::{self, DatasetSpec, Store};
use crate::error::{Error, Result};
use crate::eval::{self, DataKind, EvaluationData, Evaluator};
use crate::flow::{Encode, LabelKind, Loss, Metrics, Outputs};
use crate::model::SentenceTransformer;
use crate::ops::Context;

/// The key of the loss on the evaluation data, without `eval_`.
const LOSS: &str = "loss";

/// An evaluator of type `kind` over the data at `path`.
///
/// What is read depends on the evaluator: a directory in the BEIR layout or a file of (query, passage) pairs for
/// retrieval, a file of scored pairs, a file of triplets. The setting `columns` names the columns, `label` the score.
///
/// # Errors
/// When the type or a setting is unknown, or the data cannot be read.
pub fn build_evaluator(kind: &str, path: &Path, settings: &Map<String, Value>) -> Result<Box<dyn Evaluator>> {
    let entry = eval::find(kind)?;
    let mut settings = settings.clone();
    let columns = match settings.shift_remove("columns") {
        None => None,
        Some(value) => Some(serde_json::from_value::<Vec<String>>(value).map_err(|_| {
            Error::usage(format!("`{kind}` setting `columns`: not a list of column names"))
                .with_hint("write it as `columns = [\"sentence1\", \"sentence2\"]`")
        })?),
    };
    let text = |settings: &mut Map<String, Value>, key: &str| -> Result<Option<String>> {
        match settings.shift_remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Error::usage(format!("`{kind}` setting `{key}`: not a string"))),
        }
    };
    let label = text(&mut settings, "label")?;
    let split = text(&mut settings, "split")?;
    entry.check(&settings)?;
    let data = read(entry.data, path, columns.as_deref(), label.as_deref(), split.as_deref())
        .map_err(|e| e.within(format!("`{kind}`")))?;
    entry.build(&settings, data)
}

/// The settings that [`build_evaluator`] takes itself, beside the evaluator's own.
pub const DATA_SETTINGS: [&str; 3] = ["columns", "label", "split"];

fn read(
    kind: DataKind,
    path: &Path,
    columns: Option<&[String]>,
    label: Option<&str>,
    split: Option<&str>,
) -> Result<EvaluationData> {
    let table = |defaults: &[&str], needs: LabelKind| -> Result<data::Table> {
        let mut spec = DatasetSpec::new(vec![path.to_string_lossy().into_owned()], needs);
        spec.label = label.map(str::to_owned);
        spec.columns = Some(match columns {
            Some(columns) => columns.to_vec(),
            None => defaults.iter().map(|c| (*c).to_owned()).collect(),
        });
        let table = data::read_table(&spec, Path::new(""))?;
        if table.columns.len() != defaults.len() {
            return Err(Error::usage(format!(
                "`columns` names {} columns, {} are wanted",
                table.columns.len(),
                defaults.len()
            )));
        }
        Ok(table)
    };
    match kind {
        DataKind::Retrieval if path.is_dir() => {
            let beir = data::read_beir(path, split.unwrap_or("test"))?;
            let relevant = beir
                .queries
                .iter()
                .zip(beir.relevant)
                .map(|((id, _), documents)| (id.clone(), documents.into_iter().collect()))
                .collect();
            Ok(EvaluationData::Retrieval {
                queries: beir.queries,
                corpus: beir.corpus,
                relevant,
            })
        }
        DataKind::Retrieval => {
            let mut table = table(&["query", "passage"], LabelKind::None)?;
            Ok(retrieval_from_pairs(
                std::mem::take(&mut table.columns[0]),
                std::mem::take(&mut table.columns[1]),
            ))
        }
        DataKind::ScoredPairs => {
            let mut table = table(&["sentence1", "sentence2"], LabelKind::Float)?;
            let scores = table.labels.as_ref().and_then(crate::flow::Labels::floats).ok_or_else(|| {
                Error::data(format!("`{}` has no score column", path.display()))
                    .with_hint("name it with `label`, or call it `score`")
            })?;
            Ok(EvaluationData::ScoredPairs {
                sentences1: std::mem::take(&mut table.columns[0]),
                sentences2: std::mem::take(&mut table.columns[1]),
                scores: scores.into_iter().map(f64::from).collect(),
            })
        }
        DataKind::Triplets => {
            let mut table = table(&["anchor", "positive", "negative"], LabelKind::None)?;
            Ok(EvaluationData::Triplets {
                anchors: std::mem::take(&mut table.columns[0]),
                positives: std::mem::take(&mut table.columns[1]),
                negatives: std::mem::take(&mut table.columns[2]),
            })
        }
    }
}

/// Every passage is a document of the corpus; equal texts are one query, one document.
fn retrieval_from_pairs(queries: Vec<String>, passages: Vec<String>) -> EvaluationData {
    fn number(texts: Vec<String>, prefix: char) -> (Vec<(String, String)>, Vec<String>) {
        let mut seen: HashMap<String, String> = HashMap::new();
        let mut distinct = Vec::new();
        let mut ids = Vec::with_capacity(texts.len());
        for text in texts {
            let next = format!("{prefix}{}", seen.len());
            let id = seen.entry(text.clone()).or_insert_with(|| {
                distinct.push((next.clone(), text));
                next
            });
            ids.push(id.clone());
        }
        (distinct, ids)
    }
    let (queries, query_ids) = number(queries, 'q');
    let (corpus, passage_ids) = number(passages, 'd');
    let mut relevant: HashMap<String, HashSet<String>> = HashMap::new();
    for (query, passage) in query_ids.into_iter().zip(passage_ids) {
        relevant.entry(query).or_default().insert(passage);
    }
    EvaluationData::Retrieval {
        queries,
        corpus,
        relevant,
    }
}

/// A data set whose loss is part of the evaluation.
pub struct EvalSet {
    pub store: Store,
    pub loss: Box<dyn Loss>,
}

/// Everything that measures the model of a run.
#[derive(Default)]
pub struct Evaluation {
    pub evaluators: Vec<Box<dyn Evaluator>>,
    pub sets: Vec<EvalSet>,
    pub batch_size: usize,
}

impl Evaluation {
    /// Whether there is nothing to measure with.
    pub fn is_empty(&self) -> bool {
        self.evaluators.is_empty() && self.sets.is_empty()
    }

    /// Every key that an evaluation will have, without `eval_`.
    pub fn keys(&self, similarity: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.loss_keys();
        keys.extend(self.evaluators.iter().flat_map(|e| e.keys(similarity)));
        keys
    }

    fn loss_keys(&self) -> Vec<String> {
        match self.sets.as_slice() {
            [] => Vec::new(),
            [_] => vec![LOSS.to_owned()],
            several => several
                .iter()
                .map(|set| format!("{}_{LOSS}", set.store.report().name.as_deref().unwrap_or("dataset")))
                .collect(),
        }
    }

    /// The metric that stands for the whole when none is named: the first evaluator's, else the loss.
    pub fn primary(&self, similarity: &str) -> Option<String> {
        match self.evaluators.first() {
            Some(evaluator) => Some(evaluator.primary_key(similarity)),
            None => self.loss_keys().into_iter().next(),
        }
    }

    /// Measures the model with everything.
    ///
    /// # Errors
    /// When an evaluator or a loss fails.
    pub fn run(&self, model: &SentenceTransformer) -> Result<Metrics> {
        let mut all = Metrics::default();
        for (set, key) in self.sets.iter().zip(self.loss_keys()) {
            all.push(key, self.loss(model, set)?);
        }
        for evaluator in &self.evaluators {
            let metrics = evaluator
                .evaluate(model)
                .map_err(|e| e.within(format!("evaluator `{}`", evaluator.card().name)))?;
            all.values.extend(metrics.values);
        }
        all.primary = self.primary(model.similarity_fn_name()).unwrap_or_default();
        Ok(all)
    }

    /// The mean loss over the batches of a data set, in order, without dropout.
    fn loss(&self, model: &SentenceTransformer, set: &EvalSet) -> Result<f64> {
        let rows: Vec<u32> = (0..set.store.len() as u32).collect();
        let (mut sum, mut weight) = (0.0, 0usize);
        for rows in rows.chunks(self.batch_size.max(1)) {
            let batch = set.store.batch(rows)?;
            let outputs = Outputs {
                embeddings: model.embed(&batch, &Context::inference())?,
                text_ids: batch.text_ids.clone(),
                rng: crate::util::seed::Rng::new(0),
            };
            let value = set.loss.compute(&outputs, batch.labels.as_ref())?;
            // The Trainer repeats a batch's loss once a row and takes the mean over rows.
            sum += value.to_dtype(DType::F64)?.to_scalar::<f64>()? * rows.len() as f64;
            weight += rows.len();
        }
        Ok(sum / weight.max(1) as f64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_a_retrieval_task() {
        let own = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let data = retrieval_from_pairs(own(&["a", "b", "a"]), own(&["x", "x", "y"]));
        let EvaluationData::Retrieval { queries, corpus, relevant } = data else { panic!("not retrieval") };
        assert_eq!((queries.len(), corpus.len()), (2, 2));
        assert_eq!(relevant["q0"].len(), 2, "`a` has two passages");
        assert_eq!(relevant["q1"], HashSet::from(["d0".to_owned()]));
    }
}
