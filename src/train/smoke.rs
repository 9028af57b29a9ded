//! Two steps before a long run: does everything fit together, and what will it take?

use std::cell::{Cell, RefCell};
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::events::{Event, Listener};
use super::prepare::Prepared;
use super::sets::{classifier, own_params};
use super::step::forward_backward;
use super::timings::Timings;
use super::{Coverage, guard};
use crate::data::Store;
use crate::error::{Error, Result};
use crate::eval::trainer_key;
use crate::flow::{
    ActivationFn, Classify, Embeddings, Encode, EncodeMultiVector, EncodeOptions, EncodeSparse, MultiVectors, Predict,
    SparseEmbeddings,
};
use crate::model::SentenceTransformer;
use crate::ops::Param;
use crate::optim::{AdamW, AdamWConfig, clip_coefficient, gradient_norm};
use crate::recipe::Plan;
use crate::util::seed::Rng;

/// What a smoke test found.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SmokeReport {
    /// Loss of each step that was taken.
    pub losses: Vec<f64>,
    /// Gradient norm before clipping, of each step.
    pub grad_norms: Vec<f64>,
    /// How much of the model the first batch's gradient reaches.
    pub gradient_coverage: Coverage,
    /// Rows of training data.
    pub train_rows: u64,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Seconds of one optimizer step, the second one taken.
    pub seconds_per_step: f64,
    /// Seconds one evaluation will take.
    pub seconds_per_evaluation: f64,
    /// How many evaluations the run makes, the one before training included.
    pub evaluations: u64,
    /// Seconds of the whole run.
    pub estimated_seconds: f64,
    /// Peak memory of the whole run, in bytes, from the largest batch or micro-batch.
    pub estimated_peak_memory_bytes: u64,
    /// Tokens of a micro-batch where batches are not taken at once: asked for, or because memory is short.
    pub gradient_cache_tokens: Option<usize>,
    /// Memory that is free now, in bytes, where the system tells.
    pub available_memory_bytes: Option<u64>,
    /// Texts of the training data that are cut at `max_seq_length`.
    pub truncated_texts: u64,
    /// Texts of the training data in all.
    pub texts: u64,
    /// The keys `metric_for_best_model` may name.
    pub metrics: Vec<String>,
    /// The key that decides.
    pub metric: Option<String>,
    /// What needs attention.
    pub warnings: Vec<String>,
}

/// Texts that are encoded to learn how long evaluations take.
const PROBE: usize = 192;

/// Reads all data, takes up to two optimizer steps on the run's first batches, and estimates the whole run. Nothing
/// is written but the cache of tokenised data.
///
/// # Errors
/// When the run could not start, or its loss or gradients are not finite.
pub fn smoke_test(plan: &Plan, listener: &mut dyn Listener) -> Result<SmokeReport> {
    listener.event(&Event::Phase("data"));
    let prepared = Prepared::new(plan, None, listener)?;
    let mut warnings = prepared.warnings.clone();
    listener.event(&Event::Phase("evaluate"));
    let (evaluation_texts, seconds_a_text) = probe_evaluation(&prepared)?;

    listener.event(&Event::Phase("train"));
    let params = prepared.params();
    let taken = take_steps(plan, &prepared, &params)?;
    if let Some(warning) = guard::first_step(&taken.coverage, taken.losses.first().copied().unwrap_or(f64::NAN))? {
        warnings.push(warning);
    }
    let seconds_per_evaluation = evaluation_texts as f64 * seconds_a_text;
    let evaluations = if prepared.evaluation.is_empty() { 0 } else { prepared.cadence.evaluations() + 1 };
    let keys = prepared.evaluation.keys(prepared.model.similarity_fn_name());
    Ok(SmokeReport {
        losses: taken.losses,
        grad_norms: taken.norms,
        gradient_coverage: taken.coverage,
        train_rows: prepared.train_rows(),
        total_steps: prepared.steps.total,
        seconds_per_step: taken.seconds,
        seconds_per_evaluation,
        evaluations,
        estimated_seconds: prepared.steps.total as f64 * taken.seconds + evaluations as f64 * seconds_per_evaluation,
        estimated_peak_memory_bytes: prepared.estimate.peak(prepared.cache_tokens),
        gradient_cache_tokens: prepared.cache_tokens,
        available_memory_bytes: prepared.available,
        truncated_texts: prepared.sets.iter().flat_map(|s| &s.store.report().columns).map(|c| c.truncated).sum(),
        texts: prepared.sets.iter().map(|s| texts(&s.store)).sum::<Result<u64>>()?,
        metrics: keys.iter().map(|k| trainer_key(k)).collect(),
        metric: prepared.metric.as_deref().map(trainer_key),
        warnings,
    })
}

/// How many texts a data set has: of lists each counts.
fn texts(store: &Store) -> Result<u64> {
    if !store.has_lists() {
        return Ok(store.len() as u64 * store.columns().len() as u64);
    }
    (0..store.len() as u32).map(|row| Ok(store.row_sequences(row)? as u64)).sum()
}

struct Taken {
    losses: Vec<f64>,
    norms: Vec<f64>,
    coverage: Coverage,
    /// Of the last step.
    seconds: f64,
}

fn take_steps(plan: &Plan, prepared: &Prepared, params: &[std::sync::Arc<Param>]) -> Result<Taken> {
    let mut optimizer = AdamW::new(params, AdamWConfig::default()).without_clipping(&own_params(&prepared.sets));
    let batches = prepared.sampler.epoch(0);
    let mut taken = Taken { losses: Vec::new(), norms: Vec::new(), coverage: Coverage::default(), seconds: 0.0 };
    let mut timings = Timings::default();
    let parts = plan.args.gradient_accumulation_steps.max(1) as usize;
    let steps = prepared.steps.total.min(2) as usize;
    for step in 0..steps {
        let start = Instant::now();
        let mut used = Vec::new();
        let mut sum = 0.0;
        for part in 0..parts {
            let Some((set, rows)) = batches.batch(step * parts + part) else { break };
            let rng = Rng::new(plan.seed).fork(step as u64).fork(part as u64);
            let batch = prepared.arrange(prepared.batch(set, rows)?, rng)?;
            optimizer.catch_up(&prepared.rows(&batch))?;
            sum += forward_backward(prepared.setting(set)?, &batch, rng, &mut timings)?.loss;
            used.push(batch);
        }
        if used.is_empty() {
            break;
        }
        let count = used.len() as f64;
        let loss = sum / count;
        if step == 0 {
            taken.coverage = guard::coverage(&prepared.reached(&used))?;
        }
        let norm = gradient_norm(&prepared.model.params())? / count;
        guard::finite(step as u64 + 1, loss, gradient_norm(params)? / count, &used, &prepared.sets)?;
        let clip = clip_coefficient(norm, plan.args.max_grad_norm);
        optimizer.step_clipped(plan.args.learning_rate, 1.0 / count, clip)?;
        taken.losses.push(loss);
        taken.norms.push(norm);
        taken.seconds = start.elapsed().as_secs_f64();
    }
    if taken.losses.is_empty() {
        return Err(Error::Internal("the smoke test found no batch".to_owned()));
    }
    Ok(taken)
}

/// Runs every evaluator on a stand-in that only counts, then encodes some of those texts for real: how many texts an
/// evaluation has and how long one takes.
fn probe_evaluation(prepared: &Prepared) -> Result<(usize, f64)> {
    let counter = Counter {
        model: &prepared.model,
        classifier: classifier(&prepared.sets),
        texts: Cell::new(0),
        sample: RefCell::new(Vec::new()),
        task: RefCell::new(None),
    };
    for evaluator in &prepared.evaluation.evaluators {
        evaluator.evaluate(&counter)?;
    }
    let mut texts = counter.texts.get();
    for set in &prepared.evaluation.sets {
        texts += set.set.store.len() * set.set.store.columns().len();
    }
    let sample = counter.sample.into_inner();
    if sample.is_empty() {
        return Ok((texts, 0.0));
    }
    let start = Instant::now();
    let options = EncodeOptions { task: counter.task.into_inner(), ..EncodeOptions::default() };
    if prepared.model.predictor().is_some() {
        let pairs: Vec<(&str, &str)> = sample.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        prepared.model.predict(&pairs, None, &options)?;
    } else {
        let sample: Vec<&str> = sample.iter().map(|(text, _)| text.as_str()).collect();
        match prepared.model.multi_vector() {
            Some(model) => drop(model.encode_multi_vector(&sample, &options)?),
            None => drop(prepared.model.encode(&sample, &options)?),
        }
    }
    Ok((texts, start.elapsed().as_secs_f64() / sample.len() as f64))
}

/// Gives every text or pair the same made-up vector and keeps a few, spread over all.
struct Counter<'a> {
    model: &'a SentenceTransformer,
    classifier: Option<&'a dyn Classify>,
    texts: Cell<usize>,
    sample: RefCell<Vec<(String, String)>>,
    /// What the latest texts were to the model.
    task: RefCell<Option<String>>,
}

impl Encode for Counter<'_> {
    fn encode(&self, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings> {
        self.texts.set(self.texts.get() + texts.len());
        let mut sample = self.sample.borrow_mut();
        self.task.borrow_mut().clone_from(&options.task);
        let stride = (texts.len() / (PROBE / 3)).max(1);
        for text in texts.iter().step_by(stride) {
            if sample.len() < PROBE {
                sample.push(((*text).to_owned(), String::new()));
            }
        }
        let dim = options.truncate_dim.unwrap_or(self.model.dimension());
        Ok(Embeddings::new(dim, vec![1.0; texts.len() * dim]))
    }

    fn sparse(&self) -> Option<&dyn EncodeSparse> {
        self.model.sparse().map(|_| self as &dyn EncodeSparse)
    }

    fn multi_vector(&self) -> Option<&dyn EncodeMultiVector> {
        self.model.multi_vector().map(|_| self as &dyn EncodeMultiVector)
    }

    fn predictor(&self) -> Option<&dyn Predict> {
        self.model.predictor().map(|_| self as &dyn Predict)
    }

    fn similarity_fn_name(&self) -> &str {
        self.model.similarity_fn_name()
    }

    fn classifier(&self) -> Option<&dyn Classify> {
        self.classifier
    }
}

impl EncodeSparse for Counter<'_> {
    fn encode_sparse(&self, texts: &[&str], options: &EncodeOptions) -> Result<SparseEmbeddings> {
        // one value is enough to be counted
        let narrow = self.encode(texts, &EncodeOptions { truncate_dim: Some(1), ..options.clone() })?;
        let mut embeddings = SparseEmbeddings::new(self.model.dimension());
        (0..narrow.rows()).for_each(|_| embeddings.push_entries(&[(0, 1.0)]));
        Ok(embeddings)
    }

    fn words(&self, dimensions: &[u32]) -> Vec<String> {
        dimensions.iter().map(u32::to_string).collect()
    }
}

impl EncodeMultiVector for Counter<'_> {
    fn encode_multi_vector(&self, texts: &[&str], options: &EncodeOptions) -> Result<MultiVectors> {
        // one short vector is enough to be counted
        let narrow = self.encode(texts, &EncodeOptions { truncate_dim: Some(1), ..options.clone() })?;
        let mut vectors = MultiVectors::new(1);
        (0..narrow.rows()).for_each(|i| vectors.push(narrow.row(i)));
        Ok(vectors)
    }
}

impl Predict for Counter<'_> {
    fn predict(&self, pairs: &[(&str, &str)], _: Option<ActivationFn>, _: &EncodeOptions) -> Result<Embeddings> {
        self.texts.set(self.texts.get() + pairs.len());
        let mut sample = self.sample.borrow_mut();
        for (first, second) in pairs.iter().step_by((pairs.len() / (PROBE / 3)).max(1)) {
            if sample.len() < PROBE {
                sample.push(((*first).to_owned(), (*second).to_owned()));
            }
        }
        let labels = self.num_labels();
        // different scores, so that no evaluator finds them all alike
        Ok(Embeddings::new(labels, (0..pairs.len() * labels).map(|i| i as f32).collect()))
    }

    fn num_labels(&self) -> usize {
        self.model.num_labels()
    }
}
