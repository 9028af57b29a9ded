//! What a recipe may set of SpladeLoss.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::util::registry::Settings;

/// What weights are usual, and when.
const USUAL: &str = "for documents 3e-3 is a start with some hundred steps and 3e-5, the paper's order, with many \
                     thousands; queries (`query_regularizer_weight`) a little more; or name what to aim at, \
                     `target_document_active_dims = 128`";
/// Where a weight that follows a target begins.
pub(super) const START: f64 = 1e-3;

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
    /// What a document's words cost; 3e-3 is a start with few steps, 3e-5 with many. With a target it is where the
    /// weight begins, 1e-3 when left out.
    pub document_regularizer_weight: f64,
    /// What a query's words cost; 5e-3 is a start with few steps, 5e-5 with many. Left out, queries cost nothing, as for
    /// models without inference for them; with a target it begins at 1e-3.
    pub query_regularizer_weight: Option<f64>,
    /// So many active dimensions are aimed at in documents: the weight is moved until they have as many, from the first
    /// step on.
    pub target_document_active_dims: Option<usize>,
    /// As that, in queries.
    pub target_query_active_dims: Option<usize>,
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
            target_document_active_dims: None,
            target_query_active_dims: None,
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
        let documents = Some(self.document_regularizer_weight).filter(|weight| !weight.is_nan());
        if documents.is_none() && self.target_document_active_dims.is_none() {
            return Err(Error::usage("`document_regularizer_weight` is required but missing").with_hint(USUAL));
        }
        let weights = [
            ("document_regularizer_weight", documents, self.target_document_active_dims),
            ("query_regularizer_weight", self.query_regularizer_weight, self.target_query_active_dims),
        ];
        for (key, weight, target) in weights {
            if target == Some(0) {
                let target = key.replace("_regularizer_weight", "_active_dims");
                return Err(Error::usage(format!("`target_{target}` must be at least 1, got 0")));
            }
            if target.is_some() && weight == Some(0.0) {
                return Err(Error::usage(format!("`{key}` is 0, and a target moves it by factors"))
                    .with_hint("leave it out, or begin with a small number"));
            }
        }
        let weights = weights.map(|(key, weight, _)| (key, weight));
        for (key, weight) in weights {
            if let Some(weight) = weight.filter(|weight| !weight.is_finite() || *weight < 0.0) {
                return Err(Error::usage(format!("`{key}` must be 0 or more, got {weight}")));
            }
        }
        if self.use_document_regularizer_only && self.target_query_active_dims.is_some() {
            return Err(Error::usage("`target_query_active_dims` has no effect with `use_document_regularizer_only`")
                .with_hint("leave one of them out: with it all columns count as documents"));
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
