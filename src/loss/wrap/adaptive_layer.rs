//! AdaptiveLayerLoss: another loss on what fewer layers give, too.

use std::sync::Arc;

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Wrap;
use crate::error::{Error, Result};
use crate::flow::{Card, Classify, LabelKind, Labels, MicroBatch, Outputs};
use crate::loss::{Loss, Setup};
use crate::ops::{self, Param};
use crate::util::registry::Settings;
use crate::util::seed::Rng;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["whatever the wrapped loss takes"],
    columns: (1, usize::MAX),
    labels: LabelKind::Any,
    gotchas: &[
        "The model has to begin with a Transformer; a static embedding has no layers.",
        "It costs the wrapped loss once for every layer drawn, and little more of the network.",
    ],
    paper: "https://arxiv.org/abs/2402.14776",
    ..Card::new("AdaptiveLayerLoss", "Trains embeddings of fewer layers as well, so that layers can be left out later.")
};

/// How much the loss of a layer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayerWeighting {
    /// All alike.
    #[default]
    Uniform,
    /// `1 / (1 + ln(1 + layer))`.
    Log,
    /// `1 / (1 + layer)`.
    Linear,
}

impl LayerWeighting {
    /// The weight of the state after `layer` layers.
    fn weight(self, layer: usize) -> f64 {
        match self {
            Self::Uniform => 1.0,
            Self::Log => 1.0 / (1.0 + (1.0 + layer as f64).ln()),
            Self::Linear => 1.0 / (1.0 + layer as f64),
        }
    }
}

/// The settings of [`AdaptiveLayerLoss`]: the table `[loss.adaptive_layer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveLayer {
    /// Layers drawn in each step, besides the last; -1 for all.
    pub n_layers_per_step: i64,
    /// How much the loss of all layers counts.
    pub last_layer_weight: f64,
    /// How much the losses of fewer layers count, on average over those drawn.
    pub prior_layers_weight: f64,
    /// How much it counts that fewer layers give other embeddings than all.
    pub kl_div_weight: f64,
    /// The temperature of that comparison; 0 for none.
    pub kl_temperature: f64,
    /// How much each of the layers counts: `uniform`, `log` or `linear`.
    pub layer_weighting: LayerWeighting,
}

impl Default for AdaptiveLayer {
    fn default() -> Self {
        Self {
            n_layers_per_step: 1,
            last_layer_weight: 1.0,
            prior_layers_weight: 1.0,
            kl_div_weight: 1.0,
            kl_temperature: 0.3,
            layer_weighting: LayerWeighting::Uniform,
        }
    }
}

impl Settings for AdaptiveLayer {
    fn validate(&self) -> Result<()> {
        if self.n_layers_per_step == 0 || self.n_layers_per_step < -1 {
            let text = format!("`n_layers_per_step` must be -1 or at least 1, got {}", self.n_layers_per_step);
            return Err(Error::usage(text).with_hint("-1 trains all layers in each step"));
        }
        for (key, value) in [
            ("last_layer_weight", self.last_layer_weight),
            ("prior_layers_weight", self.prior_layers_weight),
            ("kl_div_weight", self.kl_div_weight),
            ("kl_temperature", self.kl_temperature),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::usage(format!("`{key}` must be 0 or more, got {value}")));
            }
        }
        Ok(())
    }
}

impl Wrap for AdaptiveLayer {
    const KEY: &'static str = "adaptive_layer";
    const CARD: &'static Card = &CARD;

    fn around(self, inner: Box<dyn Loss>) -> Box<dyn Loss> {
        let config = config(inner.as_ref(), self.to_json());
        Box::new(AdaptiveLayerLoss { inner, settings: self, card: &CARD, config })
    }
}

/// Computes a loss on the embeddings of all layers and of fewer, and keeps the latter near the former.
///
/// With the wrapped loss `L`, the layers `S` drawn in this step and the embeddings `e_l` after `l` of them (0 for the
/// embedding layer's states), each through the model's other modules:
///
/// `loss = last_layer_weight * L(e) + sum over l in S of prior_layers_weight * weight(l) / |S| * L(e_l)
/// + sum over l in S of kl_div_weight * T * KL(softmax(e / T) || softmax(e_l / T))`,
///
/// where KL is a sum over values and a mean over texts, and takes no gradient to `e`.
///
/// # Inputs
/// Whatever the wrapped loss takes.
///
/// # Shapes
/// Embeddings of `[batch, dim]`, of all layers and of those drawn; the result is a scalar.
///
/// # Defaults
/// One layer a step, all weights 1 and a temperature of 0.3, as in the reference and the paper.
///
/// # Related
/// `Matryoshka2dLoss` cuts the embeddings at the same time.
///
/// # Source
/// [Li et al. 2024](https://arxiv.org/abs/2402.14776); `losses/adaptive_layer.py` of sentence-transformers. Layers are
/// drawn from other random numbers.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "MultipleNegativesRankingLoss"
/// [loss.adaptive_layer]
/// n_layers_per_step = 1
/// ```
/// The same with the wrapper named first:
/// ```toml
/// [loss]
/// name = "AdaptiveLayerLoss"
/// loss = { name = "MultipleNegativesRankingLoss" }
/// ```
pub struct AdaptiveLayerLoss {
    pub(super) inner: Box<dyn Loss>,
    pub(super) settings: AdaptiveLayer,
    pub(super) card: &'static Card,
    /// What makes it again.
    pub(super) config: Value,
}

/// The settings of a wrapper with those of the loss it wraps.
pub(super) fn config(inner: &dyn Loss, own: Value) -> Value {
    let mut wrapped = Map::from_iter([("name".to_owned(), json!(inner.card().name))]);
    if let Value::Object(settings) = inner.config() {
        wrapped.extend(settings);
    }
    let mut config = Map::from_iter([("loss".to_owned(), Value::Object(wrapped))]);
    if let Value::Object(own) = own {
        config.extend(own);
    }
    Value::Object(config)
}

/// `log softmax(x / temperature)` of each row.
fn log_softmax(x: &Tensor, temperature: f64) -> Result<Tensor> {
    let x = x.affine(1.0 / temperature, 0.0)?;
    let total = ops::logsumexp(&x)?.reshape((x.dim(0)?, 1))?;
    Ok(x.broadcast_sub(&total)?)
}

impl AdaptiveLayerLoss {
    /// `KL(softmax(all / T) || softmax(fewer / T))`, a mean over all texts; no gradient goes to `all`.
    fn divergence(&self, all: &[Tensor], fewer: &[Tensor]) -> Result<Tensor> {
        let temperature = self.settings.kl_temperature;
        let target = log_softmax(&Tensor::cat(all, 0)?.detach(), temperature)?.detach(); // [columns * batch, dim]
        let other = log_softmax(&Tensor::cat(fewer, 0)?, temperature)?;
        Ok(target.exp()?.mul(&target.sub(&other)?)?.sum(D::Minus1)?.mean_all()?)
    }
}

impl Loss for AdaptiveLayerLoss {
    fn card(&self) -> &'static Card {
        self.card
    }

    fn base_card(&self) -> &'static Card {
        self.inner.base_card()
    }

    fn config(&self) -> Value {
        self.config.clone()
    }

    fn micro_batch(&self) -> Option<MicroBatch> {
        self.inner.micro_batch()
    }

    fn prepare(&mut self, setup: &Setup) -> Result<()> {
        if setup.layers == 0 {
            return Err(Error::usage(format!("`{}` needs a model with layers, and this one has none", self.card.name))
                .with_hint("it is for models that begin with a Transformer; leave it out"));
        }
        self.inner.prepare(setup)
    }

    fn params(&self) -> Vec<Arc<Param>> {
        self.inner.params()
    }

    fn classifier(&self) -> Option<&dyn Classify> {
        self.inner.classifier()
    }

    fn guide(&self) -> Option<&str> {
        self.inner.guide()
    }

    fn layers(&self, total: usize, mut rng: Rng) -> Vec<usize> {
        match usize::try_from(self.settings.n_layers_per_step) {
            Ok(count) if count < total => {
                rng.permutation(total).into_iter().take(count).map(|layer| layer as usize).collect()
            }
            _ => (0..total).collect(),
        }
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        let settings = &self.settings;
        if outputs.layers.is_empty() {
            return Err(Error::Internal(format!("`{}` computes without the layers it asked for", self.card.name)));
        }
        let mut total = self.inner.compute(outputs, labels)?.affine(settings.last_layer_weight, 0.0)?;
        let count = outputs.layers.len() as f64;
        for (layer, embeddings) in &outputs.layers {
            let value = self.inner.compute(&outputs.with_embeddings(embeddings.clone()), labels)?;
            let weight = settings.prior_layers_weight * settings.layer_weighting.weight(*layer) / count;
            total = total.add(&value.affine(weight, 0.0)?)?;
            if settings.kl_temperature > 0.0 {
                let divergence = self.divergence(&outputs.embeddings, embeddings)?;
                total = total.add(&divergence.affine(settings.kl_temperature * settings.kl_div_weight, 0.0)?)?;
            }
        }
        Ok(total)
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        self.inner.check_dim(dim)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::loss::build;

    fn loss(settings: Value) -> Box<dyn Loss> {
        let table = json!({ "adaptive_layer": settings });
        build("MultipleNegativesRankingLoss", table.as_object().unwrap()).unwrap()
    }

    #[test]
    fn layers_are_drawn_without_repetition() {
        let mut seen = [0; 6];
        for i in 0..200 {
            let mut layers = loss(json!({ "n_layers_per_step": 2 })).layers(6, Rng::new(i));
            layers.iter().for_each(|layer| seen[*layer] += 1);
            layers.sort_unstable();
            layers.dedup();
            assert_eq!(layers.len(), 2);
        }
        assert!(seen.iter().all(|count| *count > 30), "{seen:?}");
        for n in [-1, 6, 9] {
            assert_eq!(loss(json!({ "n_layers_per_step": n })).layers(6, Rng::new(1)), [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn settings_make_it_again() {
        let settings = json!({ "loss": "CoSENTLoss", "dims": [4, 2], "kl_temperature": 0.5 });
        for (name, settings) in
            [("Matryoshka2dLoss", settings), ("AdaptiveLayerLoss", json!({ "loss": { "name": "CoSENTLoss" } }))]
        {
            let once = crate::loss::settings(name, settings.as_object().unwrap()).unwrap();
            assert_eq!(crate::loss::settings(name, &once).unwrap(), once);
            assert_eq!(build(name, &once).unwrap().card().name, name);
        }
    }

    #[test]
    fn wrong_settings_are_refused() {
        for settings in [json!({ "n_layers_per_step": 0 }), json!({ "kl_temperature": -0.1 }), json!({ "layers": 2 })] {
            let table = json!({ "adaptive_layer": settings });
            assert!(build("MultipleNegativesRankingLoss", table.as_object().unwrap()).is_err());
        }
    }
}
