//! Evaluators with their data, and all of them together.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::data::beir::read_beir;
use crate::data::texts::{self, Table};
use super::sets::DataSet;
use crate::data::{DatasetSpec, EpochPlan};
use crate::error::{Error, Result};
use crate::eval::{self, DataKind, EvaluationData, Evaluator};
use crate::flow::{Encode, LabelKind, Labels, Metrics, Outputs};
use crate::model::SentenceTransformer;
use crate::ops::{self, Context};
use crate::recipe::plan::EvaluatorPlan;

/// The key of the loss on the evaluation data, without `eval_`.
const LOSS: &str = "loss";

/// An evaluator with its data.
///
/// What is read depends on the evaluator: a directory in the BEIR layout or a file of (query, passage) pairs for
/// retrieval, a file of scored pairs, a file of triplets.
///
/// # Errors
/// When the type or a setting is unknown, or the data cannot be read.
pub fn build_evaluator(plan: &EvaluatorPlan) -> Result<Box<dyn Evaluator>> {
    let entry = eval::find(&plan.kind)?;
    let settings = plan.table();
    entry.settings(&settings)?;
    let data = read(entry.data, plan).map_err(|e| e.within(format!("`{}`", plan.kind)))?;
    entry.build(&settings, data)
}

fn read(kind: DataKind, plan: &EvaluatorPlan) -> Result<EvaluationData> {
    let table = |defaults: &[&str], needs: LabelKind| -> Result<Table> {
        let mut spec = DatasetSpec::new(vec![plan.path.to_string_lossy().into_owned()], needs);
        spec.label.clone_from(&plan.label);
        spec.limit = plan.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        spec.columns = Some(if plan.columns.is_empty() {
            defaults.iter().map(|c| (*c).to_owned()).collect()
        } else {
            plan.columns.clone()
        });
        let table = texts::read_table(&spec, Path::new(""))?;
        if table.columns.len() != defaults.len() {
            return Err(Error::usage(format!(
                "`columns` names {} columns, {} are wanted: {}",
                table.columns.len(),
                defaults.len(),
                defaults.join(", ")
            )));
        }
        Ok(table)
    };
    match kind {
        DataKind::Retrieval if plan.path.is_dir() => {
            let beir = read_beir(&plan.path, "test")?;
            let relevant = beir
                .queries
                .iter()
                .zip(beir.relevant)
                .map(|((id, _), documents)| (id.clone(), documents.into_iter().collect()))
                .collect();
            Ok(EvaluationData::Retrieval { queries: beir.queries, corpus: beir.corpus, relevant })
        }
        DataKind::Retrieval => {
            let [queries, passages] = take(table(&["query", "passage"], LabelKind::None)?);
            Ok(retrieval_from_pairs(queries, passages))
        }
        DataKind::ScoredPairs => {
            let table = table(&["sentence1", "sentence2"], LabelKind::Float)?;
            let scores = table.labels.as_ref().and_then(Labels::floats).ok_or_else(|| {
                Error::data(format!("`{}` has no score column", plan.path.display()))
                    .with_hint("name it with `label`, or call it `score`")
            })?;
            let [sentences1, sentences2] = take(table);
            let scores = scores.into_iter().map(f64::from).collect();
            Ok(EvaluationData::ScoredPairs { sentences1, sentences2, scores })
        }
        DataKind::Triplets => {
            let [anchors, positives, negatives] = take(table(&["anchor", "positive", "negative"], LabelKind::None)?);
            Ok(EvaluationData::Triplets { anchors, positives, negatives })
        }
    }
}

/// The columns of a table that was checked to have `N`.
fn take<const N: usize>(table: Table) -> [Vec<String>; N] {
    let mut columns = table.columns.into_iter();
    std::array::from_fn(|_| columns.next().unwrap_or_default())
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
    EvaluationData::Retrieval { queries, corpus, relevant }
}

/// A data set whose loss is part of the evaluation.
pub struct EvalSet {
    pub set: DataSet,
    /// The same batches at every evaluation, by the sampler of the training data, rows in order.
    pub batches: Arc<EpochPlan>,
}

/// Everything that measures the model of a run.
#[derive(Default)]
pub struct Evaluation {
    pub evaluators: Vec<Box<dyn Evaluator>>,
    pub sets: Vec<EvalSet>,
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
                .map(|set| format!("{}_{LOSS}", set.set.store.report().name.as_deref().unwrap_or("dataset")))
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
            all.push(key, Self::loss(model, set)?);
        }
        for evaluator in &self.evaluators {
            let metrics =
                evaluator.evaluate(model).map_err(|e| e.within(format!("evaluator `{}`", evaluator.card().name)))?;
            all.values.extend(metrics.values);
        }
        all.primary = self.primary(model.similarity_fn_name()).unwrap_or_default();
        Ok(all)
    }

    /// The mean loss over the batches of a data set, without dropout.
    fn loss(model: &SentenceTransformer, set: &EvalSet) -> Result<f64> {
        let (mut sum, mut weight) = (0.0, 0usize);
        for rows in set.batches.from(0) {
            let batch = set.set.store.batch(rows)?;
            let outputs = Outputs {
                embeddings: model.embed(&batch, &Context::inference())?,
                text_ids: batch.text_ids.clone(),
                guide: set.set.guide.as_ref().map(|guide| guide.embed(&batch)).transpose()?.unwrap_or_default(),
                rng: crate::util::seed::Rng::new(0),
            };
            let value = set.set.loss.compute(&outputs, batch.labels.as_ref())?;
            // The Trainer repeats a batch's loss once a row and takes the mean over rows.
            sum += ops::number(&value)? * rows.len() as f64;
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
