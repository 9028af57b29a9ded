//! Evaluators with their data, and all of them together.

use std::cell::Cell;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::evaluation_data;
use super::sets::DataSet;
use super::step::{Setting, views};
use crate::data::EpochPlan;
use crate::error::Result;
use crate::eval::{self, Csv, Evaluator, shared};
use crate::flow::look::{Look, SCORES, Scores};
use crate::flow::{
    ActivationFn, Classify, Embeddings, Encode, EncodeMultiVector, EncodeOptions, EncodeSparse, Metrics, ModelType,
    Predict,
};
use crate::model::SentenceTransformer;
use crate::ops::{self, Context, Precision};
use crate::recipe::plan::EvaluatorPlan;
use crate::scoring::Similarity;
use crate::scoring::rows::Rows;
use crate::util::seed::Rng;

/// The key of the loss on the evaluation data, without `eval_`.
const LOSS: &str = "loss";

/// An evaluator with its data; [`evaluation_data`](super::evaluation_data) says what is read for which.
///
/// # Errors
/// When the type or a setting is unknown, or the data cannot be read.
pub fn build_evaluator(plan: &EvaluatorPlan) -> Result<Box<dyn Evaluator>> {
    let entry = eval::find(&plan.kind)?;
    let settings = plan.table();
    entry.settings(&settings)?;
    let data = evaluation_data::read(entry.data, plan).map_err(|e| e.within(format!("`{}`", plan.kind)))?;
    entry.build(&settings, data)
}

/// A data set whose loss is part of the evaluation.
pub struct EvalSet {
    pub set: DataSet,
    /// The same batches at every evaluation, by the sampler of the training data, rows in order.
    pub batches: Arc<EpochPlan>,
}

/// A model, and what the run's loss has learnt on top of it.
struct InTraining<'a> {
    model: &'a SentenceTransformer,
    classifier: Option<&'a dyn Classify>,
    /// Scores of pairs that are all alike.
    collapsed: Cell<Option<f32>>,
    /// Whether the evaluator at work makes the metric that decides.
    decides: Cell<bool>,
}

/// Fewer pairs than these may have equal scores.
const MANY_PAIRS: usize = 20;
/// Scores that lie closer together, by their size, are one.
const ALIKE: f32 = 1e-5;

impl Predict for InTraining<'_> {
    fn predict(
        &self,
        pairs: &[(&str, &str)],
        activation_fn: Option<ActivationFn>,
        options: &EncodeOptions,
    ) -> Result<Embeddings> {
        let scores = self.model.predict(pairs, activation_fn, options)?;
        let (least, most) = scores.data().iter().fold((f32::MAX, f32::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
        if scores.dim() == 1 && scores.rows() >= MANY_PAIRS && most - least <= ALIKE * most.abs().max(1e-3) {
            self.collapsed.set(Some(most));
        }
        Ok(scores)
    }

    fn num_labels(&self) -> usize {
        self.model.num_labels()
    }
}

impl Encode for InTraining<'_> {
    fn encode(&self, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings> {
        self.model.encode(texts, options)
    }

    fn similarity_fn_name(&self) -> &str {
        self.model.similarity_fn_name()
    }

    fn named_prompt(&self, name: &str) -> Option<String> {
        self.model.named_prompt(name)
    }

    fn sparse(&self) -> Option<&dyn EncodeSparse> {
        self.model.sparse()
    }

    fn multi_vector(&self) -> Option<&dyn EncodeMultiVector> {
        self.model.multi_vector()
    }

    fn predictor(&self) -> Option<&dyn Predict> {
        self.model.predictor().map(|_| self as &dyn Predict)
    }

    fn classifier(&self) -> Option<&dyn Classify> {
        self.classifier
    }

    fn looked_at(&self) -> bool {
        self.decides.get()
    }
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

    /// The CSV files that get a row at each evaluation.
    pub fn csv(&self, similarity: &str) -> Vec<Csv> {
        self.evaluators.iter().flat_map(|e| e.csv(similarity)).collect()
    }

    /// Measures the model with everything. What people can look at is made of the loss or the evaluator that has the
    /// key `deciding`, and is one at most.
    ///
    /// # Errors
    /// When an evaluator or a loss fails.
    pub fn run(
        &self,
        model: &SentenceTransformer,
        classifier: Option<&dyn Classify>,
        deciding: Option<&str>,
    ) -> Result<Metrics> {
        let seen = InTraining { model, classifier, collapsed: Cell::new(None), decides: Cell::new(false) };
        let mut all = Metrics::default();
        for (set, key) in self.sets.iter().zip(self.loss_keys()) {
            let (loss, pairs) = Self::loss(model, set, deciding == Some(key.as_str()))?;
            if !pairs.is_empty() {
                let scored_by = shared::scored_by(model.similarity_fn_name().parse()?);
                let sides = ["rows' own texts", "texts of other rows"].map(str::to_owned);
                let look = Look::new(&key, "loss", &[], 0);
                all.looks.push(look.with_scores(Scores::new(scored_by, sides, pairs.into_iter())));
            }
            all.push(key, loss);
        }
        for evaluator in &self.evaluators {
            let keys = evaluator.keys(model.similarity_fn_name());
            let own = deciding.filter(|deciding| all.looks.is_empty() && keys.iter().any(|key| key == deciding));
            seen.decides.set(own.is_some());
            let metrics =
                evaluator.evaluate(&seen).map_err(|e| e.within(format!("evaluator `{}`", evaluator.card().name)))?;
            all.values.extend(metrics.values);
            all.samples.extend(metrics.samples);
            all.details.extend(metrics.details);
            all.documents.extend(metrics.documents);
            all.looks.extend(own.and_then(|deciding| nearest(metrics.looks, deciding)));
        }
        all.primary = self.primary(model.similarity_fn_name()).unwrap_or_default();
        all.alarm = seen.collapsed.get().map(|score| {
            format!(
                "all pairs get the same score, {score:.4}: the reranker tells nothing apart, and its metrics are those \
                 of chance; lower `args.learning_rate`, or give rows with harder and more balanced labels"
            )
        });
        Ok(all)
    }

    /// The mean loss over the batches of a data set, without dropout; with `look` also, of pairs without labels, how
    /// similar the first two texts of a row are, and those of a row and the next one of its batch.
    fn loss(model: &SentenceTransformer, set: &EvalSet, look: bool) -> Result<(f64, Vec<(f32, bool)>)> {
        let (mut sum, mut weight, mut pairs) = (0.0, 0usize, Vec::new());
        for rows in set.batches.from(0) {
            let batch = set.set.feed.batch(rows, 0)?;
            let batch = model.arrange(batch, set.set.loss.pairing(), Rng::new(0))?;
            let setting = Setting {
                model,
                twin: set.set.twin.as_deref(),
                decoder: set.set.decoder.as_deref(),
                loss: set.set.loss.as_ref(),
                guide: set.set.guide.as_ref(),
                precision: Precision::Full,
                cache_tokens: None,
                step: None,
            };
            let layers = set.set.loss.layers(model.layers(), Rng::new(0));
            let spans = views::spans(setting, &batch);
            let sequences = spans.last().map_or(0, |span| span.end);
            let all = views::embed(setting, &batch, 0..sequences, &layers, &Context::inference())?;
            let vectors = model.vector_offsets(&batch);
            let columns = |x: &Tensor| {
                let rows = spans.iter().map(|span| views::rows(vectors.as_deref(), span));
                rows.map(|rows| x.narrow(0, rows.start, rows.len())).collect::<candle_core::Result<Vec<_>>>()
            };
            let mut columns = all.iter().map(columns).collect::<candle_core::Result<Vec<_>>>()?;
            let embeddings = columns.pop().unwrap_or_default();
            if let (true, [first, second, ..], None) = (look, embeddings.as_slice(), &batch.labels)
                && model.kind() == ModelType::SentenceTransformer
                && pairs.len() < 2 * SCORES
            {
                // the loss stands without them
                let similarity = model.similarity_fn_name().parse();
                pairs.extend(similarity.and_then(|s| in_batch(s, first, second)).unwrap_or_default());
            }
            let layers = layers.into_iter().zip(columns).collect();
            let outputs = views::outputs(setting, &batch, embeddings, layers, Rng::new(0), &Context::inference())?;
            let value = set.set.loss.compute(&outputs, batch.labels.as_ref())?;
            // The Trainer repeats a batch's loss once a row and takes the mean over rows.
            sum += ops::number(&value)? * batch.rows as f64;
            weight += batch.rows;
        }
        Ok((sum / weight.max(1) as f64, pairs))
    }
}

/// The look behind the metric `key`, or behind the one whose key is most like it.
fn nearest(looks: Vec<Look>, key: &str) -> Option<Look> {
    let alike = |look: &Look| look.key.bytes().zip(key.bytes()).take_while(|(a, b)| a == b).count();
    // of several that are as near the first
    looks.into_iter().rev().max_by_key(|look| (look.key == key, alike(look)))
}

/// The similarity of each row of `first` to the same row of `second`, and to the next one.
fn in_batch(similarity: Similarity, first: &Tensor, second: &Tensor) -> Result<Vec<(f32, bool)>> {
    let rows = |x: &Tensor| -> Result<Rows> {
        let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        Ok(Rows::Dense(Embeddings::new(x.dim(1)?, x.flatten_all()?.to_vec1()?)))
    };
    let (first, second) = (rows(first)?, rows(second)?);
    let count = first.rows().min(second.rows());
    let own: Vec<usize> = (0..count).collect();
    let next: Vec<usize> = (0..count).map(|row| (row + 1) % count).collect();
    let mut pairs: Vec<(f32, bool)> =
        first.pairwise(similarity, &own, &second, &own).into_iter().map(|score| (score, true)).collect();
    if count > 1 {
        pairs.extend(first.pairwise(similarity, &own, &second, &next).into_iter().map(|score| (score, false)));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_look_of_another_metric_of_the_same_evaluator_is_kept() {
        let looks = || ["dev_cosine_ndcg@10", "dev_dot_ndcg@10"].map(|key| Look::new(key, "nDCG@10", &[], 0)).to_vec();
        let key = |deciding| nearest(looks(), deciding).map(|look| look.key).unwrap_or_default();
        assert_eq!(key("dev_dot_ndcg@10"), "dev_dot_ndcg@10");
        assert_eq!(key("dev_dot_map@100"), "dev_dot_ndcg@10");
        assert_eq!(key("dev_cosine_mrr@10"), "dev_cosine_ndcg@10");
        assert_eq!(key("other"), "dev_cosine_ndcg@10");
        assert_eq!(nearest(Vec::new(), "x"), None);
    }
}
