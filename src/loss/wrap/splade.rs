//! SpladeLoss: another loss, and a price on every word that embeddings use.

use std::sync::Arc;

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Wrap;
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, MicroBatch, ModelType, Outputs};
use crate::loss::{Loss, Setup};
use crate::ops::Param;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::SparseEncoder],
    inputs: &["whatever the wrapped loss takes, the query first"],
    columns: (1, usize::MAX),
    labels: LabelKind::Any,
    gotchas: &[
        "Too small weights leave embeddings dense, too large ones empty: watch the active dimensions.",
        "Without `query_regularizer_weight` queries are not regularised.",
    ],
    paper: "https://arxiv.org/abs/2109.10086",
    ..Card::new("SpladeLoss", "Adds the expected cost of comparing texts to a loss, so that embeddings become sparse.")
};

/// How the weights grow to what they are set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegularizerScheduler {
    /// As the square of the part of the warmup that is done.
    Quadratic,
    /// As that part.
    Linear,
    /// Not at all: they are the same from the first step on.
    Constant,
}

/// The settings of [`SpladeLoss`]: the table `[loss.splade]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Splade {
    /// What a document's words cost; 3e-5 is usual.
    pub document_regularizer_weight: f64,
    /// What a query's words cost; 5e-5 is usual. Left out, queries cost nothing, as for models without inference for
    /// them.
    pub query_regularizer_weight: Option<f64>,
    /// Documents with so many words or fewer cost nothing.
    pub document_regularizer_threshold: Option<usize>,
    /// Queries with so many words or fewer cost nothing.
    pub query_regularizer_threshold: Option<usize>,
    /// Whether all columns count as documents.
    pub use_document_regularizer_only: bool,
    /// How the weights grow in the beginning.
    pub scheduler_type: RegularizerScheduler,
    /// The part of all steps in which they grow.
    pub warmup_ratio: f64,
    /// Sequences in a part, where gradients of embeddings are cached (CachedSpladeLoss); left out for a batch at once.
    pub mini_batch_size: Option<usize>,
}

impl Default for Splade {
    fn default() -> Self {
        Self {
            document_regularizer_weight: f64::NAN,
            query_regularizer_weight: None,
            document_regularizer_threshold: None,
            query_regularizer_threshold: None,
            use_document_regularizer_only: false,
            scheduler_type: RegularizerScheduler::Quadratic,
            warmup_ratio: 1.0 / 3.0,
            mini_batch_size: None,
        }
    }
}

impl Settings for Splade {
    fn validate(&self) -> Result<()> {
        if self.document_regularizer_weight.is_nan() {
            return Err(Error::usage("`document_regularizer_weight` is required but missing")
                .with_hint("3e-5 is usual for documents, 5e-5 for queries (`query_regularizer_weight`)"));
        }
        let weights = [
            ("document_regularizer_weight", Some(self.document_regularizer_weight)),
            ("query_regularizer_weight", self.query_regularizer_weight),
        ];
        for (key, weight) in weights {
            if let Some(weight) = weight.filter(|weight| !weight.is_finite() || *weight < 0.0) {
                return Err(Error::usage(format!("`{key}` must be 0 or more, got {weight}")));
            }
        }
        if self.use_document_regularizer_only && self.query_regularizer_weight.is_some() {
            return Err(Error::usage("`query_regularizer_weight` has no effect with `use_document_regularizer_only`")
                .with_hint("leave one of them out: with it all columns count as documents"));
        }
        if !(self.warmup_ratio > 0.0 && self.warmup_ratio <= 1.0) {
            return Err(Error::usage(format!(
                "`warmup_ratio` must be above 0 and at most 1, got {}",
                self.warmup_ratio
            )));
        }
        if self.mini_batch_size == Some(0) {
            return Err(Error::usage("`mini_batch_size` must be at least 1, got 0"));
        }
        Ok(())
    }
}

impl Wrap for Splade {
    const KEY: &'static str = "splade";
    const CARD: &'static Card = &CARD;

    fn around(self, inner: Box<dyn Loss>) -> Box<dyn Loss> {
        Box::new(SpladeLoss { inner, settings: self })
    }
}

/// [`Splade`] by gradient caching: the table `[loss.cached_splade]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct CachedSplade(Splade);

/// The catalogue entry of the form that takes a batch in parts.
pub const CACHED: Card = Card {
    name: "CachedSpladeLoss",
    summary: "SpladeLoss in the memory of small batches, by gradient caching.",
    ..CARD
};

impl Settings for CachedSplade {
    fn validate(&self) -> Result<()> {
        self.0.validate()
    }
}

impl Wrap for CachedSplade {
    const KEY: &'static str = "cached_splade";
    const CARD: &'static Card = &CACHED;

    fn around(self, inner: Box<dyn Loss>) -> Box<dyn Loss> {
        /// As in the reference.
        const MINI_BATCH: usize = 32;
        let mini_batch_size = self.0.mini_batch_size.or(Some(MINI_BATCH));
        Box::new(SpladeLoss { inner, settings: Splade { mini_batch_size, ..self.0 } })
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
/// the whole weights, so that their losses can be compared.
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
/// document_regularizer_weight = 3e-5
/// query_regularizer_weight = 5e-5
/// ```
///
/// The same in parts of 16 sequences:
/// ```toml
/// model_type = "SparseEncoder"
/// [loss]
/// name = "CachedSpladeLoss"
/// loss = { name = "SparseMultipleNegativesRankingLoss" }
/// document_regularizer_weight = 3e-5
/// query_regularizer_weight = 5e-5
/// mini_batch_size = 16
/// ```
pub struct SpladeLoss {
    inner: Box<dyn Loss>,
    settings: Splade,
}

impl SpladeLoss {
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

impl Loss for SpladeLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn base_card(&self) -> &'static Card {
        self.inner.base_card()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let settings = &self.settings;
        let mut loss = self.inner.compute(outputs, labels)?;
        let growth = self.growth(outputs.step);
        let (queries, documents) = match outputs.embeddings.as_slice() {
            all if settings.use_document_regularizer_only => (None, all),
            [queries, documents @ ..] if !documents.is_empty() => (Some(queries), documents),
            _ => {
                let text = format!("`{}`: a single column has no documents", CARD.name);
                return Err(Error::data(text).with_hint("set `use_document_regularizer_only = true`"));
            }
        };
        let documents = Tensor::cat(documents, 0)?;
        let price = flops(&documents, settings.document_regularizer_threshold)?;
        loss = loss.add(&price.affine(growth * settings.document_regularizer_weight, 0.0)?)?;
        if let (Some(queries), Some(weight)) = (queries, settings.query_regularizer_weight) {
            let price = flops(queries, settings.query_regularizer_threshold)?;
            loss = loss.add(&price.affine(growth * weight, 0.0)?)?;
        }
        Ok(loss)
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
        let mut warnings = self.inner.check_dim(dim)?;
        if !self.settings.use_document_regularizer_only && self.settings.query_regularizer_weight.is_none() {
            warnings.push(
                "`loss.splade.query_regularizer_weight` is not set: queries are not regularised and stay dense, which \
                 is right only where they need no network"
                    .to_owned(),
            );
        }
        Ok(warnings)
    }
}
