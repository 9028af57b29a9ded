//! SpladeLoss: another loss, and a price on every word that embeddings use.

mod settings;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use settings::START;
pub use settings::{RegularizerScheduler, Splade};

use super::Wrap;
use super::active_dims::Follower;
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, MicroBatch, ModelType, Outputs};
use crate::loss::{Loss, Parts, Setup};
use crate::ops::{self, Param};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::SparseEncoder],
    inputs: &["whatever the wrapped loss takes, the query first"],
    columns: (1, usize::MAX),
    labels: LabelKind::Any,
    gotchas: &[
        "Too small weights leave embeddings dense, too large ones empty: watch the active dimensions, or name how many \
         are wanted (`target_document_active_dims`, `target_query_active_dims`).",
        "Without `query_regularizer_weight` queries are not regularised.",
    ],
    paper: "https://arxiv.org/abs/2109.10086",
    ..Card::new("SpladeLoss", "Adds the expected cost of comparing texts to a loss, so that embeddings become sparse.")
};

impl Wrap for Splade {
    const KEY: &'static str = "splade";
    const CARD: &'static Card = &CARD;

    fn around(self, inner: Box<dyn Loss>) -> Box<dyn Loss> {
        Box::new(SpladeLoss::new(inner, self, &CARD))
    }
}

/// A loss, plus what it would cost to compare the texts through an inverted index.
///
/// `loss = inner + wd * F(documents) + wq * F(queries)` with `F(e) = sum over words j of (mean over texts i of e_ij)²`
/// (FlopsLoss). The weights `wd`, `wq` grow to their values over the first third of all steps.
///
/// # Inputs
/// What the wrapped loss takes; the first column are queries, the others documents.
///
/// # Shapes
/// Embeddings of `[batch, words]`; the result is a scalar.
///
/// # Defaults
/// The growth is quadratic over a third of the steps, as in the paper and the reference's callback. Evaluations have
/// the whole weights, so that their losses can be compared. Which weights are right depends on how many steps there are
/// to become sparse in: the paper's 150,000 take some 1e-5, a run of some hundred a hundred times as much.
///
/// # Targets
/// With `target_document_active_dims` or `target_query_active_dims` the weight follows what it brings about: after each
/// step it goes up by a little where embeddings of the batch have more active dimensions than that, and down where
/// they have fewer; there is no growth then. It is kept in checkpoints.
///
/// # Source
/// [Formal et al. 2021](https://arxiv.org/abs/2109.10086), [Paria et al. 2020](https://arxiv.org/abs/2004.05665);
/// `sparse_encoder/losses/splade.py` and `callbacks/splade_callbacks.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "SparseEncoder"
/// [loss]
/// name = "SpladeLoss"
/// loss = { name = "SparseMultipleNegativesRankingLoss" }
/// document_regularizer_weight = 3e-3
/// query_regularizer_weight = 5e-3
/// ```
///
/// With a number of active dimensions to aim at:
/// ```toml
/// model_type = "SparseEncoder"
/// [loss]
/// name = "SparseMultipleNegativesRankingLoss"
/// [loss.splade]
/// target_document_active_dims = 128
/// target_query_active_dims = 32
/// ```
pub struct SpladeLoss {
    inner: Box<dyn Loss>,
    settings: Splade,
    card: &'static Card,
    /// Of weights that have a target.
    followers: Mutex<Followers>,
}

/// Where the weights of documents and queries are.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Followers {
    documents: Follower,
    queries: Follower,
}

/// The weights of a step.
struct Weights {
    documents: f64,
    queries: Option<f64>,
}

impl SpladeLoss {
    pub(super) fn new(inner: Box<dyn Loss>, mut settings: Splade, card: &'static Card) -> Self {
        if settings.document_regularizer_weight.is_nan() {
            settings.document_regularizer_weight = START;
        }
        Self { inner, settings, card, followers: Mutex::default() }
    }

    fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn weights(&self, step: Option<(u64, u64)>) -> Weights {
        let (settings, followers, growth) = (&self.settings, *self.followers(), self.growth(step));
        Weights {
            documents: match settings.target_document_active_dims {
                Some(_) => settings.document_regularizer_weight * followers.documents.factor(),
                None => growth * settings.document_regularizer_weight,
            },
            queries: match settings.target_query_active_dims {
                Some(_) => Some(settings.query_regularizer_weight.unwrap_or(START) * followers.queries.factor()),
                None => settings.query_regularizer_weight.map(|weight| growth * weight),
            },
        }
    }

    /// The part of the weights that counts in a step, the first being 0.
    fn growth(&self, step: Option<(u64, u64)>) -> f64 {
        let Some((step, total)) = step else { return 1.0 };
        let warmup = ((total as f64 * self.settings.warmup_ratio) as u64).max(1);
        if step >= warmup {
            return 1.0;
        }
        let part = step as f64 / warmup as f64;
        match self.settings.scheduler_type {
            RegularizerScheduler::Quadratic => part * part,
            RegularizerScheduler::Linear => part,
            RegularizerScheduler::Constant => 1.0,
        }
    }
}

/// The sum over words of the squared mean over texts; texts of at most `threshold` words count as without any.
fn flops(embeddings: &Tensor, threshold: Option<usize>) -> candle_core::Result<Tensor> {
    let embeddings = match threshold {
        None => embeddings.clone(),
        Some(threshold) => {
            let used = embeddings.detach().ne(0.0)?.to_dtype(embeddings.dtype())?.sum_keepdim(D::Minus1)?; // [texts, 1]
            embeddings.broadcast_mul(&used.gt(threshold as f64)?.to_dtype(embeddings.dtype())?)?
        }
    };
    embeddings.mean(0)?.sqr()?.sum_all()
}

/// How many dimensions of a text are not zero, on average.
fn active_dims(embeddings: &Tensor) -> Result<f64> {
    let rows = embeddings.dim(0)?.max(1) as f64;
    Ok(ops::number(&embeddings.detach().ne(0.0)?.to_dtype(embeddings.dtype())?.sum_all()?)? / rows)
}

impl Loss for SpladeLoss {
    fn card(&self) -> &'static Card {
        self.card
    }

    fn base_card(&self) -> &'static Card {
        self.inner.base_card()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        Ok(self.parts(outputs, labels)?.loss)
    }

    fn parts(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Parts> {
        let settings = &self.settings;
        let Parts { mut loss, mut told } = self.inner.parts(outputs, labels)?;
        if told.is_empty() {
            told.push(("base_loss", ops::number(&loss)?));
        }
        let weights = self.weights(outputs.step);
        let (queries, documents) = match outputs.embeddings.as_slice() {
            all if settings.use_document_regularizer_only => (None, all),
            [queries, documents @ ..] if !documents.is_empty() => (Some(queries), documents),
            _ => {
                let text = format!("`{}`: a single column has no documents", self.card.name);
                return Err(Error::data(text).with_hint("set `use_document_regularizer_only = true`"));
            }
        };
        let documents = Tensor::cat(documents, 0)?;
        let mut add = |key: &'static str, embeddings: &Tensor, threshold: Option<usize>, weight: f64| -> Result<()> {
            let price = flops(embeddings, threshold)?.affine(weight, 0.0)?;
            told.push((key, ops::number(&price)?));
            loss = loss.add(&price)?;
            Ok(())
        };
        add("document_regularizer_loss", &documents, settings.document_regularizer_threshold, weights.documents)?;
        if let (Some(queries), Some(weight)) = (queries, weights.queries) {
            add("query_regularizer_loss", queries, settings.query_regularizer_threshold, weight)?;
        }
        told.push(("document_regularizer_weight", weights.documents));
        told.extend(weights.queries.map(|weight| ("query_regularizer_weight", weight)));
        let of_queries = queries.map(active_dims).transpose()?;
        let of_documents = active_dims(&documents)?;
        told.extend(of_queries.map(|active| ("query_active_dims", active)));
        told.push(("corpus_active_dims", of_documents));
        if outputs.step.is_some() {
            let mut followers = self.followers();
            followers.documents.see(of_documents);
            if let Some(active) = of_queries {
                followers.queries.see(active);
            }
        }
        Ok(Parts { loss, told })
    }

    fn after_step(&self, total: u64) {
        let mut followers = self.followers();
        if let Some(target) = self.settings.target_document_active_dims {
            followers.documents.step(target, total);
        }
        if let Some(target) = self.settings.target_query_active_dims {
            followers.queries.step(target, total);
        }
    }

    fn memory(&self) -> Option<serde_json::Value> {
        let settings = &self.settings;
        let follows = settings.target_document_active_dims.is_some() || settings.target_query_active_dims.is_some();
        if follows { serde_json::to_value(*self.followers()).ok() } else { None }
    }

    fn remember(&self, memory: &serde_json::Value) {
        if let Ok(followers) = serde_json::from_value(memory.clone()) {
            *self.followers() = followers;
        }
    }

    fn autoencodes(&self) -> bool {
        self.inner.autoencodes()
    }

    fn config(&self) -> serde_json::Value {
        let mut config = self.settings.to_json();
        let mut inner = self.inner.config();
        inner["name"] = self.inner.card().name.into();
        config["loss"] = inner;
        config
    }

    fn micro_batch(&self) -> Option<MicroBatch> {
        self.settings.mini_batch_size.map(MicroBatch::Sequences).or_else(|| self.inner.micro_batch())
    }

    fn prepare(&mut self, setup: &Setup) -> Result<()> {
        self.inner.prepare(setup)
    }

    fn params(&self) -> Vec<Arc<Param>> {
        self.inner.params()
    }

    fn guide(&self) -> Option<&str> {
        self.inner.guide()
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        self.inner.check_dim(dim)
    }

    fn check_queries(&self) -> Option<String> {
        let settings = &self.settings;
        if settings.use_document_regularizer_only
            || settings.query_regularizer_weight.is_some()
            || settings.target_query_active_dims.is_some()
        {
            return None;
        }
        let key = if self.card.name == CARD.name { "splade" } else { "cached_splade" };
        Some(format!("`loss.{key}.query_regularizer_weight` is not set: queries are not regularised and stay dense"))
    }
}
