//! MatryoshkaLoss: another loss at several embedding sizes at once.

use std::sync::Arc;

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Wrap;
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, MicroBatch, Outputs};
use crate::loss::{Loss, Setup};
use crate::ops::Param;
use crate::scoring::cosine;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["whatever the wrapped loss takes"],
    columns: (1, usize::MAX),
    labels: LabelKind::Any,
    gotchas: &[
        "Put the model's full dimension among `dims`, or the untruncated embeddings are not trained.",
        "Embeddings are normalised at each size, so losses that need magnitudes do not see them.",
        "Evaluate with `truncate_dim` at the sizes that will be used.",
    ],
    paper: "https://arxiv.org/abs/2205.13147",
    ..Card::new("MatryoshkaLoss", "Trains embeddings that can be truncated, by applying a loss at several sizes.")
};

/// The settings of [`MatryoshkaLoss`]: the table `[loss.matryoshka]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Matryoshka {
    /// The embedding sizes to train, in any order; the model's own should be among them.
    #[serde(alias = "matryoshka_dims")]
    pub dims: Vec<usize>,
    /// How much each size counts, in the order of `dims`; 1 each when left out.
    #[serde(alias = "matryoshka_weights")]
    pub weights: Option<Vec<f64>>,
    /// How many sizes, drawn at random, a step computes; -1 for all.
    pub n_dims_per_step: i64,
}

impl Default for Matryoshka {
    fn default() -> Self {
        Self { dims: Vec::new(), weights: None, n_dims_per_step: -1 }
    }
}

impl Settings for Matryoshka {
    fn validate(&self) -> Result<()> {
        if self.dims.is_empty() {
            return Err(Error::usage("`dims` must name at least one embedding size")
                .with_hint("for a model of 384 dimensions: `dims = [384, 192, 96, 48]`"));
        }
        if self.dims.contains(&0) {
            return Err(Error::usage("`dims` must be greater than 0"));
        }
        if let Some(weights) = &self.weights {
            if weights.len() != self.dims.len() {
                return Err(Error::usage(format!(
                    "`weights` must be as many as `dims`: {} weights, {} dims",
                    weights.len(),
                    self.dims.len()
                )));
            }
            if let Some(weight) = weights.iter().find(|weight| !weight.is_finite()) {
                return Err(Error::usage(format!("`weights` must be finite numbers, got {weight}")));
            }
        }
        if self.n_dims_per_step == 0 || self.n_dims_per_step < -1 {
            let text = format!("`n_dims_per_step` must be -1 or at least 1, got {}", self.n_dims_per_step);
            return Err(Error::usage(text).with_hint("-1 computes all `dims` in each step"));
        }
        Ok(())
    }
}

impl Wrap for Matryoshka {
    const KEY: &'static str = "matryoshka";
    const CARD: &'static Card = &CARD;

    fn around(self, inner: Box<dyn Loss>) -> Box<dyn Loss> {
        Box::new(MatryoshkaLoss::new(inner, &self))
    }
}

/// Computes a loss on embeddings cut to several sizes and normalised again.
///
/// `loss = sum over sizes d of weight_d * inner(normalise(embeddings[:, :d]))`.
///
/// # Inputs
/// Whatever the wrapped loss takes. Labels that are vectors as wide as the embeddings are cut with them.
///
/// # Shapes
/// Embeddings of `[batch, dim]` with `dim` at least the largest size; the result is a scalar.
///
/// # Defaults
/// `weights` 1 each and every size in each step, as in the paper. `n_dims_per_step` saves time when there are many
/// sizes.
///
/// # Source
/// [Kusupati et al. 2022](https://arxiv.org/abs/2205.13147); `losses/matryoshka.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "MultipleNegativesRankingLoss"
/// [loss.matryoshka]
/// dims = [384, 192, 96, 48]
/// ```
pub struct MatryoshkaLoss {
    inner: Box<dyn Loss>,
    // Sizes with their weights, largest first.
    sizes: Vec<(usize, f64)>,
    n_dims_per_step: i64,
}

impl MatryoshkaLoss {
    /// A wrapper around `inner`; `settings` are valid.
    #[must_use]
    pub fn new(inner: Box<dyn Loss>, settings: &Matryoshka) -> Self {
        let weights = settings.weights.clone().unwrap_or_else(|| vec![1.0; settings.dims.len()]);
        let mut sizes: Vec<(usize, f64)> = settings.dims.iter().copied().zip(weights).collect();
        sizes.sort_by_key(|(dim, _)| std::cmp::Reverse(*dim));
        Self { inner, sizes, n_dims_per_step: settings.n_dims_per_step }
    }

    fn dims(&self) -> Vec<usize> {
        self.sizes.iter().map(|(dim, _)| *dim).collect()
    }

    /// The sizes of this step, largest first.
    fn step_sizes(&self, outputs: &Outputs) -> Vec<(usize, f64)> {
        let count = usize::try_from(self.n_dims_per_step).unwrap_or(usize::MAX);
        if count >= self.sizes.len() {
            return self.sizes.clone();
        }
        let mut rng = outputs.rng.fork(0x4d61_7472); // a stream of its own, apart from the wrapped loss's
        let mut drawn = rng.permutation(self.sizes.len());
        drawn.truncate(count);
        drawn.sort_unstable();
        drawn.into_iter().filter_map(|i| self.sizes.get(i as usize).copied()).collect()
    }
}

/// The labels for embeddings cut from `full` to `dim` values: vectors of the full width, one for all columns or one
/// for each, are cut as well.
fn cut_labels(labels: Option<&Labels>, columns: usize, full: usize, dim: usize) -> Option<Labels> {
    match labels {
        Some(Labels::Matrix { width, data }) if (*width == full || *width == columns * full) && dim < full => {
            let data = data.chunks(full).flat_map(|row| row.iter().take(dim).copied()).collect();
            Some(Labels::Matrix { width: width / full * dim, data })
        }
        labels => labels.cloned(),
    }
}

impl Loss for MatryoshkaLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn base_card(&self) -> &'static Card {
        self.inner.base_card()
    }

    fn config(&self) -> serde_json::Value {
        let weights: Vec<f64> = self.sizes.iter().map(|(_, weight)| *weight).collect();
        let mut inner = serde_json::Map::from_iter([("name".to_owned(), json!(self.inner.card().name))]);
        if let serde_json::Value::Object(settings) = self.inner.config() {
            inner.extend(settings);
        }
        json!({
            "loss": inner,
            "matryoshka_dims": self.dims(),
            "matryoshka_weights": weights,
            "n_dims_per_step": self.n_dims_per_step,
        })
    }

    fn prepare(&mut self, setup: &Setup) -> Result<()> {
        self.inner.prepare(setup)?;
        if !self.inner.layers(2, setup.rng).is_empty() {
            return Err(Error::usage(format!("`{}` cannot wrap {}", CARD.name, self.inner.card().name)).with_hint(
                "turn them around: `AdaptiveLayerLoss` around `MatryoshkaLoss`, which is `Matryoshka2dLoss`",
            ));
        }
        if !self.inner.params().is_empty() && self.sizes.iter().any(|(dim, _)| *dim != setup.dim) {
            return Err(Error::usage(format!(
                "`{}` cannot wrap {} here: it has parameters for embeddings of {} values, not for shorter ones",
                CARD.name,
                self.inner.card().name,
                setup.dim
            ))
            .with_hint("wrap a loss that only compares embeddings, as MultipleNegativesRankingLoss"));
        }
        Ok(())
    }

    fn params(&self) -> Vec<Arc<Param>> {
        self.inner.params()
    }

    fn guide(&self) -> Option<&str> {
        self.inner.guide()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let full = match outputs.embeddings.first() {
            Some(first) => first.dim(D::Minus1)?,
            None => return Err(Error::data(format!("`{}`: the batch has no columns", CARD.name))),
        };
        let mut total: Option<Tensor> = None;
        for (dim, weight) in self.step_sizes(outputs) {
            if dim > full {
                return Err(too_large(&self.dims(), full));
            }
            let cut = outputs.embeddings.iter().map(|x| cosine::normalize_prefix(x, dim, cosine::NORMALIZE_EPS));
            let cut = outputs.with_embeddings(cut.collect::<candle_core::Result<_>>()?);
            let labels = cut_labels(labels, outputs.embeddings.len(), full, dim);
            let value = self.inner.compute(&cut, labels.as_ref())?.affine(weight, 0.0)?;
            total = Some(match total {
                Some(total) => total.add(&value)?,
                None => value,
            });
        }
        total.ok_or_else(|| Error::Internal(format!("`{}` has no sizes", CARD.name)))
    }

    fn micro_batch(&self) -> Option<MicroBatch> {
        self.inner.micro_batch()
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        let dims = self.dims();
        if dims.iter().any(|d| *d > dim) {
            return Err(too_large(&dims, dim));
        }
        let mut warnings = self.inner.check_dim(dim)?;
        if !dims.contains(&dim) {
            warnings.push(format!(
                "`{}`: the model's embedding size {dim} is not among `dims` {dims:?}, so untruncated embeddings are \
                 not trained and may get worse; put {dim} among them",
                CARD.name
            ));
        }
        Ok(warnings)
    }
}

fn too_large(dims: &[usize], full: usize) -> Error {
    Error::usage(format!("`{}`: `dims` {dims:?} must not exceed the model's embedding size {full}", CARD.name))
        .with_hint(format!("for example `dims = [{full}, {}, {}]`", (full / 2).max(1), (full / 4).max(1)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::cosent::CoSENTLoss;
    use crate::loss::multiple_negatives_ranking::MultipleNegativesRankingLoss;
    use crate::loss::tests::{check_gradient, random_columns};
    use crate::util::seed::Rng;

    fn around(inner: impl Loss + 'static, dims: &[usize], weights: Option<&[f64]>, n: i64) -> MatryoshkaLoss {
        let settings = Matryoshka { dims: dims.to_vec(), weights: weights.map(<[f64]>::to_vec), n_dims_per_step: n };
        settings.validate().unwrap();
        MatryoshkaLoss::new(Box::new(inner), &settings)
    }

    fn value(loss: &dyn Loss, outputs: &Outputs) -> f64 {
        loss.compute(outputs, None).unwrap().to_scalar::<f64>().unwrap()
    }

    #[test]
    fn is_the_weighted_sum_over_sizes() {
        let outputs = Outputs::new(random_columns(2, 4, 8, 1));
        let plain = MultipleNegativesRankingLoss::default();
        let cut = |dim: usize| {
            let columns = outputs.embeddings.iter().map(|x| x.narrow(1, 0, dim).unwrap()).collect();
            value(&plain, &outputs.with_embeddings(columns))
        };
        let loss = around(plain.clone(), &[2, 8, 5], Some(&[0.3, 1.0, 2.0]), -1);
        assert_eq!(loss.sizes, [(8, 1.0), (5, 2.0), (2, 0.3)]);
        assert!((value(&loss, &outputs) - (cut(8) + 2.0 * cut(5) + 0.3 * cut(2))).abs() < 1e-10);
        assert_eq!(loss.base_card().name, "MultipleNegativesRankingLoss");
        assert_eq!(loss.config()["loss"]["scale"], 20.0);
    }

    #[test]
    fn gradient() {
        let labels = Labels::Float(vec![0.1, 0.9, 0.4, 0.4]);
        let loss = around(CoSENTLoss { scale: 3.0, ..Default::default() }, &[6, 3], Some(&[1.0, 0.5]), -1);
        check_gradient(&loss, &random_columns(2, 4, 6, 2), Some(&labels));
    }

    #[test]
    fn draws_sizes_by_the_outputs_numbers() {
        let mut outputs = Outputs::new(random_columns(2, 4, 8, 3));
        let loss = around(MultipleNegativesRankingLoss::default(), &[8, 6, 4, 2], None, 2);
        let mut seen = std::collections::BTreeSet::new();
        for step in 0..200 {
            outputs.rng = Rng::new(5).fork(step);
            let sizes: Vec<usize> = loss.step_sizes(&outputs).iter().map(|s| s.0).collect();
            assert_eq!(sizes, loss.step_sizes(&outputs).iter().map(|s| s.0).collect::<Vec<_>>());
            assert!(sizes.len() == 2 && sizes[0] > sizes[1]);
            seen.insert(sizes);
        }
        assert_eq!(seen.len(), 6);
        assert_eq!(around(MultipleNegativesRankingLoss::default(), &[8, 4], None, 2).step_sizes(&outputs).len(), 2);
    }

    #[test]
    fn vector_labels_are_cut_with_the_embeddings() {
        let labels = Labels::Matrix { width: 3, data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] };
        let cut = cut_labels(Some(&labels), 1, 3, 2).unwrap();
        assert_eq!(cut, Labels::Matrix { width: 2, data: vec![1.0, 2.0, 4.0, 5.0] });
        assert_eq!(cut_labels(Some(&labels), 1, 5, 2).unwrap(), labels);
        // one vector a column
        let each = Labels::Matrix { width: 4, data: vec![1.0, 2.0, 3.0, 4.0] };
        let cut = cut_labels(Some(&each), 2, 2, 1).unwrap();
        assert_eq!(cut, Labels::Matrix { width: 2, data: vec![1.0, 3.0] });
    }

    #[test]
    fn sizes_are_checked_against_the_model() {
        let loss = around(MultipleNegativesRankingLoss::default(), &[16, 8], None, -1);
        assert!(loss.check_dim(16).unwrap().is_empty());
        assert!(loss.check_dim(32).unwrap()[0].contains("32 is not among `dims` [16, 8]"));
        let error = loss.check_dim(12).unwrap_err();
        assert!(error.to_string().contains("must not exceed the model's embedding size 12"), "{error}");
        let outputs = Outputs::new(random_columns(2, 3, 12, 4));
        assert!(loss.compute(&outputs, None).unwrap_err().to_string().contains("must not exceed"));
    }
}
