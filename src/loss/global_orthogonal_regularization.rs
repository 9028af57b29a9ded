//! GlobalOrthogonalRegularizationLoss.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inputs;
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::loss::Loss;
use crate::scoring::{Similarity, stable};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["any texts, each column by itself"],
    columns: (1, usize::MAX),
    labels: LabelKind::None,
    compares_rows: true,
    gotchas: &[
        "A regulariser: it spreads embeddings out and knows nothing of what belongs together, so alone it trains no \
         useful model.",
        "The same text twice in a batch is pushed away from itself.",
    ],
    paper: "https://arxiv.org/abs/1708.06320",
    ..Card::new("GlobalOrthogonalRegularizationLoss", "Spreads the embeddings of a column evenly over the sphere.")
};

/// How the columns of a batch are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// Wants the similarities of different rows to have the mean and the spread that random directions have.
///
/// `loss = mean over columns of mean_weight * M1^2 + second_moment_weight * max(M2 - 1 / dim, 0)`, where `M1` is the
/// mean and `M2` the mean square of the similarities of the column's embeddings to each other, themselves left out.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | any texts | none |
///
/// # Shapes
/// One or more embeddings of `[batch, dim]`; the result is a scalar. Similarities are `[batch, batch]`.
///
/// # Defaults
/// `mean_weight = 1` and `second_moment_weight = 1`, as in the paper; 0 leaves a term out. `similarity_fct = "cosine"`,
/// since `1 / dim` is the mean square of the cosine of random directions. `aggregation = "mean"`.
///
/// # Related
/// `MultipleNegativesRankingLoss` spreads embeddings as well, by its negatives.
///
/// # Source
/// [Zhang et al. 2017](https://arxiv.org/abs/1708.06320), [EmbeddingGemma](https://arxiv.org/abs/2509.20354);
/// `losses/global_orthogonal_regularization.py` of sentence-transformers, whose two terms are added up here. A batch of
/// one row has loss 0.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "GlobalOrthogonalRegularizationLoss"
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GlobalOrthogonalRegularizationLoss {
    /// How embeddings are compared.
    pub similarity_fct: Similarity,
    /// How much the mean counts; 0 for not at all.
    pub mean_weight: f64,
    /// How much the mean square counts; 0 for not at all.
    pub second_moment_weight: f64,
    /// Whether columns are averaged or added up: `mean` or `sum`.
    pub aggregation: Aggregation,
}

impl Default for GlobalOrthogonalRegularizationLoss {
    fn default() -> Self {
        Self {
            similarity_fct: Similarity::Cosine,
            mean_weight: 1.0,
            second_moment_weight: 1.0,
            aggregation: Aggregation::Mean,
        }
    }
}

impl Settings for GlobalOrthogonalRegularizationLoss {
    fn validate(&self) -> Result<()> {
        for (key, value) in [("mean_weight", self.mean_weight), ("second_moment_weight", self.second_moment_weight)] {
            if !value.is_finite() {
                return Err(Error::usage(format!("`{key}` must be a finite number, got {value}")));
            }
        }
        if self.mean_weight == 0.0 && self.second_moment_weight == 0.0 {
            return Err(Error::usage("`mean_weight` and `second_moment_weight` are both 0, which leaves no loss"));
        }
        Ok(())
    }
}

impl Loss for GlobalOrthogonalRegularizationLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn compute(&self, outputs: &Outputs, _labels: Option<&Labels>) -> Result<Tensor> {
        let columns = inputs::columns(&CARD, outputs)?;
        let (rows, dim) = columns[0].dims2()?;
        let pairs = (rows * (rows - 1)).max(1) as f64;
        let own = inputs::mask(rows, rows, columns[0].device(), |i, j| i == j)?;
        let mut terms = Vec::with_capacity(columns.len());
        for column in columns {
            let similarities = stable::masked_fill(&self.similarity_fct.matrix(column, column)?, &own, 0.0)?;
            let mean = similarities.sum_all()?.affine(1.0 / pairs, 0.0)?.sqr()?;
            let square = similarities.sqr()?.sum_all()?.affine(1.0 / pairs, -1.0 / dim as f64)?;
            let square = stable::relu(&square)?.affine(self.second_moment_weight, 0.0)?;
            terms.push(mean.affine(self.mean_weight, 0.0)?.add(&square)?);
        }
        let terms = Tensor::stack(&terms, 0)?; // [columns]
        Ok(match self.aggregation {
            Aggregation::Mean => terms.mean_all()?,
            Aggregation::Sum => terms.sum_all()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::tests::{check_gradient, random_columns};

    #[test]
    fn by_hand() {
        let device = candle_core::Device::Cpu;
        let x = Tensor::new(&[[2.0f64, 0.0], [3.0, 4.0], [0.0, 1.0]], &device).unwrap();
        // Cosines 0.6, 0 and 0.8, each way round.
        let (mean, square): (f64, f64) = (1.4 / 3.0, (0.36 + 0.64) / 3.0);
        let value = |mean_weight, second_moment_weight, aggregation| -> f64 {
            let loss = GlobalOrthogonalRegularizationLoss {
                mean_weight,
                second_moment_weight,
                aggregation,
                ..Default::default()
            };
            loss.compute(&Outputs::new(vec![x.clone(), x.clone()]), None).unwrap().to_scalar().unwrap()
        };
        assert!((value(1.0, 1.0, Aggregation::Mean) - mean * mean).abs() < 1e-12, "the square is below {}", square);
        assert!((value(0.5, 0.0, Aggregation::Sum) - mean * mean).abs() < 1e-12);
        let one = x.narrow(0, 0, 1).unwrap();
        let loss = GlobalOrthogonalRegularizationLoss::default();
        assert_eq!(loss.compute(&Outputs::new(vec![one]), None).unwrap().to_scalar::<f64>().unwrap(), 0.0);
    }

    #[test]
    fn gradient() {
        for similarity_fct in Similarity::ALL {
            for aggregation in [Aggregation::Mean, Aggregation::Sum] {
                let loss = GlobalOrthogonalRegularizationLoss { similarity_fct, aggregation, ..Default::default() };
                check_gradient(&loss, &random_columns(2, 4, 5, 6), None);
            }
        }
    }

    #[test]
    fn some_weight_is_needed() {
        let loss = |mean_weight, second_moment_weight| GlobalOrthogonalRegularizationLoss {
            mean_weight,
            second_moment_weight,
            ..Default::default()
        };
        assert!(loss(0.0, 0.0).validate().is_err());
        assert!(loss(f64::INFINITY, 0.0).validate().is_err());
        assert!(loss(0.0, 1.0).validate().is_ok());
    }
}
