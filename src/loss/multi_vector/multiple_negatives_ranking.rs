//! MultiVectorMultipleNegativesRankingLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Similarity, TOP_K, check_top_k, columns, joined};
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, ModelType, Outputs};
use crate::loss::{Loss, inputs};
use crate::ops::{self, Pairs, cross_entropy};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::MultiVectorEncoder],
    inputs: &[
        "(anchor, positive) pairs",
        "(anchor, positive, negative) triplets",
        "(anchor, positive, negative_1, ..., negative_n)",
    ],
    columns: (2, usize::MAX),
    labels: LabelKind::None,
    in_batch_negatives: true,
    gotchas: &[
        "`scale = 1` fits `maxsim`, which grows with the query; with `meanmaxsim` take about as many as queries have \
         tokens.",
        "Every other row is a negative: use `batch_sampler = \"no_duplicates\"`.",
        "`xtr` scores depend on the batch and are for training alone: the model is compared by `maxsim` afterwards.",
    ],
    paper: "https://arxiv.org/abs/2004.12832",
    ..Card::new(
        "MultiVectorMultipleNegativesRankingLoss",
        "Picks each query's document among all of the batch by late interaction; the first choice for pairs and triplets.",
    )
};

/// Picks the document of each query among those of the whole batch, scored token by token.
///
/// `loss = mean over rows i of log(sum over documents d of exp(scale * score(q_i, d))) - scale * score(q_i, p_i)`.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | (anchor, positive) pairs | none |
/// | (anchor, positive, negative) triplets | none |
/// | (anchor, positive, negative_1, ..., negative_n) | none |
///
/// # Shapes
/// Two or more columns of `[vectors, dim]`; the result is a scalar. Scores are `[batch, batch * (columns - 1)]`.
///
/// # Defaults
/// `similarity_fct = "maxsim"` and `scale = 1`: a sum over a query's tokens needs no sharpening. With `meanmaxsim`
/// scores lie in [-1, 1], and a scale of about the queries' length is a start. `top_k = 256` is the paper's for `xtr`.
/// `mini_batch_size` and `score_mini_batch_size` bound memory in the reference; here nothing is padded and no matrix of
/// all tokens is kept, so they change nothing.
///
/// # Related
/// `CachedMultiVectorMultipleNegativesRankingLoss` for batches that do not fit into memory.
///
/// # Source
/// [Khattab and Zaharia 2020](https://arxiv.org/abs/2004.12832), [Lee et al. 2023](https://arxiv.org/abs/2304.01982);
/// `multi_vector_encoder/losses/multiple_negatives_ranking.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "MultiVectorEncoder"
/// [loss]
/// name = "MultiVectorMultipleNegativesRankingLoss"
/// scale = 1.0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MultiVectorMultipleNegativesRankingLoss {
    /// Inverse temperature: scores are multiplied by it.
    pub scale: f64,
    /// How a query and a document are scored.
    pub similarity_fct: Similarity,
    /// With `xtr`: how many vectors of all documents a query's vector finds.
    pub top_k: usize,
    /// The reference's bound on padding; changes nothing here.
    pub mini_batch_size: Option<usize>,
    /// The reference's bound on memory for scores; changes nothing here.
    pub score_mini_batch_size: Option<usize>,
    /// The reference's setting for training on several devices; only `false` is possible here.
    pub gather_across_devices: bool,
}

impl Default for MultiVectorMultipleNegativesRankingLoss {
    fn default() -> Self {
        Self {
            scale: 1.0,
            similarity_fct: Similarity::MaxSim,
            top_k: TOP_K,
            mini_batch_size: None,
            score_mini_batch_size: None,
            gather_across_devices: false,
        }
    }
}

impl Settings for MultiVectorMultipleNegativesRankingLoss {
    fn validate(&self) -> Result<()> {
        inputs::positive("scale", self.scale)?;
        inputs::one_device(self.gather_across_devices)?;
        check_top_k(self.top_k)
    }
}

impl Loss for MultiVectorMultipleNegativesRankingLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, _: Option<&Labels>) -> Result<Tensor> {
        let columns = columns(&CARD, outputs)?;
        let [queries, documents @ ..] = columns.as_slice() else {
            return Err(Error::Internal(format!("`{}` without columns", CARD.name)));
        };
        let (all, places) = joined(documents)?;
        let scoring = self.similarity_fct.scoring(self.top_k);
        // row i's positive is the i-th of the first column of documents
        let scores = ops::late_interaction(*queries, (&all, &places), scoring, Pairs::All)?;
        let targets: Vec<u32> = (0..queries.1.len() as u32 - 1).collect();
        Ok(cross_entropy(&scores.affine(self.scale, 0.0)?, &targets)?)
    }

    fn check_dim(&self, _: usize) -> Result<Vec<String>> {
        let mut warnings = self.similarity_fct.warnings(&CARD, self.top_k);
        let usual = match self.similarity_fct {
            Similarity::MaxSim => 0.05..=5.0,
            Similarity::MeanMaxSim | Similarity::Xtr => 5.0..=200.0,
        };
        if !usual.contains(&self.scale) {
            warnings.push(match self.similarity_fct {
                Similarity::MaxSim => format!(
                    "`loss.scale` is {} with `similarity_fct = \"maxsim\"`, whose scores grow with the query: 1 is usual",
                    self.scale
                ),
                _ => format!(
                    "`loss.scale` is {}, and scores that are means over a query's tokens lie in [-1, 1]: take about as \
                     many as queries have tokens, 32 for one",
                    self.scale
                ),
            });
        }
        Ok(warnings)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{check_gradient, random_outputs};
    use super::*;

    #[test]
    fn gradient() {
        for similarity_fct in [Similarity::MaxSim, Similarity::MeanMaxSim, Similarity::Xtr] {
            for (columns, top_k) in [(2, 4), (4, 7)] {
                let loss =
                    MultiVectorMultipleNegativesRankingLoss { similarity_fct, top_k, scale: 0.7, ..Default::default() };
                check_gradient(&loss, &random_outputs(columns, 3), None);
            }
        }
    }

    #[test]
    fn a_scale_fits_its_scores() {
        let warnings = |similarity_fct, scale| {
            let loss = MultiVectorMultipleNegativesRankingLoss { similarity_fct, scale, ..Default::default() };
            loss.check_dim(128).unwrap()
        };
        assert!(warnings(Similarity::MaxSim, 1.0).is_empty());
        assert!(warnings(Similarity::MaxSim, 20.0)[0].contains("1 is usual"));
        assert!(warnings(Similarity::MeanMaxSim, 32.0).is_empty());
        assert!(warnings(Similarity::MeanMaxSim, 1.0)[0].contains("queries have tokens"));
        let loss = MultiVectorMultipleNegativesRankingLoss { top_k: 3, ..Default::default() };
        assert!(loss.check_dim(8).unwrap()[0].contains("top_k"));
        let wrong = [
            MultiVectorMultipleNegativesRankingLoss { top_k: 0, ..Default::default() },
            MultiVectorMultipleNegativesRankingLoss { scale: 0.0, ..Default::default() },
            MultiVectorMultipleNegativesRankingLoss { gather_across_devices: true, ..Default::default() },
        ];
        assert!(wrong.iter().all(|loss| loss.validate().is_err()));
    }
}
