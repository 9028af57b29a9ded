//! How alike are two embeddings? Similarity functions, differentiable for losses and plain for evaluation.
//!
//! The numbers are those of `sentence_transformers.util`: larger is more alike, distances are negated. Losses use
//! [`Similarity::matrix`] and [`Similarity::pairwise`] on tensors; evaluators use [`blocks`] on host embeddings.

pub mod blocks;
pub mod bm25;
pub mod communities;
pub mod cosine;
pub mod distance;
pub mod dot;
pub mod inverted;
pub mod late;
pub mod mining;
pub mod quantize;
pub mod rows;
pub mod stable;

use candle_core::{Result as TensorResult, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::util::suggest;

/// A similarity function by the value of sentence-transformers' `SimilarityFunction`; the names of its functions
/// (`cos_sim`, `dot_score`, `pairwise_cos_sim`, ...) are read as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// The cosine of the angle: dot product of the normalised embeddings, in [-1, 1].
    #[default]
    #[serde(alias = "cos_sim", alias = "pairwise_cos_sim", alias = "pytorch_cos_sim")]
    Cosine,
    /// The dot product.
    #[serde(alias = "dot_score", alias = "pairwise_dot_score", alias = "dot_product")]
    Dot,
    /// The negated Euclidean (L2) distance.
    #[serde(alias = "euclidean_sim", alias = "pairwise_euclidean_sim")]
    Euclidean,
    /// The negated Manhattan (L1) distance.
    #[serde(alias = "manhattan_sim", alias = "pairwise_manhattan_sim")]
    Manhattan,
    /// The sum over the vectors of a query of the most similar one of a document, of models with a vector for each token;
    /// of single vectors the dot product. No setting names it: it is the model's.
    #[serde(rename = "maxsim", skip_deserializing)]
    #[schemars(skip)]
    MaxSim,
    /// That divided by how many vectors the query has.
    #[serde(rename = "meanmaxsim", skip_deserializing)]
    #[schemars(skip)]
    MeanMaxSim,
}

impl Similarity {
    /// All of single vectors.
    pub const ALL: [Self; 4] = [Self::Cosine, Self::Dot, Self::Euclidean, Self::Manhattan];

    /// The name in recipes and metric keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
            Self::Manhattan => "manhattan",
            Self::MaxSim => "maxsim",
            Self::MeanMaxSim => "meanmaxsim",
        }
    }

    /// The reference's function of matrices, as its model cards show it.
    #[must_use]
    pub const fn function_name(self) -> &'static str {
        match self {
            Self::Cosine => "cos_sim",
            Self::Dot => "dot_score",
            Self::Euclidean => "euclidean_sim",
            Self::Manhattan => "manhattan_sim",
            Self::MaxSim => "maxsim",
            Self::MeanMaxSim => "mean_maxsim",
        }
    }

    /// What has to be done to each embedding before [`Self::prepared_matrix`]: cosine normalises, the others nothing.
    pub fn prepare(self, x: &Tensor) -> TensorResult<Tensor> {
        match self {
            Self::Cosine => cosine::normalize(x, cosine::NORMALIZE_EPS),
            _ => Ok(x.clone()),
        }
    }

    /// [`Self::matrix`] of embeddings that went through [`Self::prepare`], so that those used several times are
    /// normalised once.
    pub fn prepared_matrix(self, a: &Tensor, b: &Tensor) -> TensorResult<Tensor> {
        match self {
            Self::Cosine | Self::Dot | Self::MaxSim | Self::MeanMaxSim => dot::matrix(a, b),
            Self::Euclidean => distance::euclidean_matrix(a, b)?.neg(),
            Self::Manhattan => distance::manhattan_matrix(a, b)?.neg(),
        }
    }

    /// The similarity of every row of `a` to every row of `b`; differentiable.
    ///
    /// # Shapes
    /// `a` `[n, dim]`, `b` `[m, dim]`, result `[n, m]`.
    pub fn matrix(self, a: &Tensor, b: &Tensor) -> TensorResult<Tensor> {
        self.prepared_matrix(&self.prepare(a)?, &self.prepare(b)?)
    }

    /// The similarity of each row of `a` to the same row of `b`; differentiable.
    ///
    /// # Shapes
    /// `a` and `b` `[n, dim]`, result `[n]`.
    pub fn pairwise(self, a: &Tensor, b: &Tensor) -> TensorResult<Tensor> {
        match self {
            Self::Cosine => cosine::pairwise(a, b, cosine::NORMALIZE_EPS),
            Self::Dot | Self::MaxSim | Self::MeanMaxSim => dot::pairwise(a, b),
            Self::Euclidean => distance::euclidean_pairwise(a, b)?.neg(),
            Self::Manhattan => distance::manhattan_pairwise(a, b)?.neg(),
        }
    }
}

impl std::fmt::Display for Similarity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Similarity {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        if let Some(late) = [Self::MaxSim, Self::MeanMaxSim].into_iter().find(|late| late.name() == name) {
            return Ok(late);
        }
        serde_json::from_value(serde_json::Value::from(name)).map_err(|_| {
            Error::usage(format!("unknown similarity function `{name}`"))
                .with_hint(suggest::hint(name, Self::ALL.iter().map(|s| s.name())))
        })
    }
}

#[cfg(test)]
mod tests;
