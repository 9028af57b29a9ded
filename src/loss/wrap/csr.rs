//! CSRLoss: another loss on an autoencoder's sparse embeddings, and how well these can be turned back.

use std::sync::Arc;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Wrap;
use crate::error::{Error, Result};
use crate::flow::{Autoencoded, Card, LabelKind, Labels, MicroBatch, ModelType, Outputs};
use crate::loss::{Loss, Parts, Setup};
use crate::ops::{self, Param};
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    model_types: &[ModelType::SparseEncoder],
    inputs: &["whatever the wrapped loss takes"],
    columns: (1, usize::MAX),
    labels: LabelKind::Any,
    gotchas: &[
        "The model has to end with a SparseAutoEncoder: `[model.sparse_auto_encoder]` adds one to a bi-encoder.",
        "Embeddings have `k` active dimensions by their making, so there is no regulariser.",
    ],
    paper: "https://arxiv.org/abs/2503.01776",
    ..Card::new("CSRLoss", "Adds what is lost by turning a sparse autoencoder's embeddings back to a loss (CSR).")
};

/// The settings of [`CSRLoss`]: the table `[loss.csr]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Csr {
    /// What the reconstruction by idle units counts.
    pub beta: f64,
    /// What the wrapped loss counts.
    pub gamma: f64,
}

impl Default for Csr {
    fn default() -> Self {
        Self { beta: 0.1, gamma: 1.0 }
    }
}

impl Settings for Csr {
    fn validate(&self) -> Result<()> {
        for (key, weight) in [("beta", self.beta), ("gamma", self.gamma)] {
            if !weight.is_finite() || weight < 0.0 {
                return Err(Error::usage(format!("`{key}` must be 0 or more, got {weight}")));
            }
        }
        Ok(())
    }
}

impl Wrap for Csr {
    const KEY: &'static str = "csr";
    const CARD: &'static Card = &CARD;
    const USUAL: Option<&'static str> = Some("SparseMultipleNegativesRankingLoss");

    fn around(self, inner: Box<dyn Loss>) -> Box<dyn Loss> {
        Box::new(CSRLoss { inner, settings: self })
    }
}

/// A loss of sparse embeddings, and what an autoencoder loses on the way there and back.
///
/// `loss = gamma * inner + L(k) + L(4k) / 8 + beta * L(aux)`, each `L` a mean over columns:
/// `L(k) = mean((x - back(top k))²)`, `L(4k)` the same of four times as many values, and
/// `L(aux) = mean((e - back(idle units))²) / mean((e - mean(e))²)` with `e = x - (back(top k) - bias)`, which brings units
/// back that are never among the largest. Where all rows of a batch are alike, it is divided by 1.
///
/// # Inputs
/// What the wrapped loss takes.
///
/// # Shapes
/// Embeddings of `[batch, hidden_dim]`, dense ones of `[batch, input_dim]`; the result is a scalar.
///
/// # Defaults
/// `beta` 0.1 and `gamma` 1 as in the paper and the reference; SparseMultipleNegativesRankingLoss inside.
///
/// # Source
/// [Wen et al. 2025](https://arxiv.org/abs/2503.01776); `sparse_encoder/losses/csr.py` of sentence-transformers.
///
/// # Recipe
/// ```toml
/// model_type = "SparseEncoder"
/// [model.sparse_auto_encoder]
/// k = 64
/// [loss]
/// name = "CSRLoss"
/// loss = { name = "SparseMultipleNegativesRankingLoss" }
/// beta = 0.1
/// gamma = 1.0
/// ```
pub struct CSRLoss {
    inner: Box<dyn Loss>,
    settings: Csr,
}

/// What is said of a model without an autoencoder.
#[must_use]
pub fn no_autoencoder() -> Error {
    Error::usage("`CSRLoss`: the model does not end with a SparseAutoEncoder")
        .with_hint("add one with a table `[model.sparse_auto_encoder]`, or take a model that has one")
}

fn mean_square(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(a.sub(b)?.sqr()?.mean_all()?)
}

/// `L(aux)` of a column.
fn auxiliary(column: &Autoencoded) -> Result<Option<Tensor>> {
    let Some(auxiliary) = &column.auxiliary else { return Ok(None) };
    let left = column.input.sub(&column.without_bias.detach())?; // [rows, dim]
    let spread = left.broadcast_sub(&left.mean_keepdim(0)?)?.sqr()?.mean_all()?;
    let first = left.narrow(0, 0, 1)?;
    let differs = ops::number(&left.detach().broadcast_ne(&first.detach())?.to_dtype(left.dtype())?.sum_all()?)?;
    let alike = differs == 0.0 || ops::number(&spread)? == 0.0;
    let loss = mean_square(auxiliary, &left)?;
    Ok(Some(if alike { loss } else { loss.div(&spread)? }))
}

impl CSRLoss {
    /// `L(k)`, `L(4k) / 8` and `beta * L(aux)`.
    ///
    /// # Errors
    /// When there is no column, or shapes do not fit.
    pub fn reconstruction(columns: &[Autoencoded], beta: f64) -> Result<[Tensor; 3]> {
        let mut sums: Option<[Tensor; 3]> = None;
        let share = 1.0 / columns.len().max(1) as f64;
        for column in columns {
            let few = mean_square(&column.input, &column.reconstruction)?;
            let wide = mean_square(&column.input, &column.wide)?;
            let aux = auxiliary(column)?.map_or_else(|| few.zeros_like(), Ok)?;
            let terms = [few.affine(share, 0.0)?, wide.affine(share / 8.0, 0.0)?, aux.affine(share * beta, 0.0)?];
            sums = Some(match sums {
                None => terms,
                Some([a, b, c]) => [a.add(&terms[0])?, b.add(&terms[1])?, c.add(&terms[2])?],
            });
        }
        sums.ok_or_else(no_autoencoder)
    }
}

impl Loss for CSRLoss {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn base_card(&self) -> &'static Card {
        self.inner.base_card()
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        Ok(self.parts(outputs, labels)?.loss)
    }

    fn parts(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Parts> {
        let terms = Self::reconstruction(&outputs.autoencoded, self.settings.beta)?;
        let base = self.inner.compute(outputs, labels)?.affine(self.settings.gamma, 0.0)?;
        let mut told = Vec::new();
        let mut loss = base.clone();
        for (key, term) in
            ["reconstruction_loss_k", "reconstruction_loss_4k", "reconstruction_loss_aux"].into_iter().zip(terms)
        {
            told.push((key, ops::number(&term)?));
            loss = loss.add(&term)?;
        }
        told.push(("base_loss", ops::number(&base)?));
        Ok(Parts { loss, told })
    }

    fn config(&self) -> serde_json::Value {
        let mut config = self.settings.to_json();
        let mut inner = self.inner.config();
        inner["name"] = self.inner.card().name.into();
        config["loss"] = inner;
        config
    }

    fn micro_batch(&self) -> Option<MicroBatch> {
        self.inner.micro_batch()
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

    fn autoencodes(&self) -> bool {
        true
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        self.inner.check_dim(dim)
    }
}
