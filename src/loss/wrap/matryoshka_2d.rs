//! Matryoshka2dLoss: fewer layers and fewer values at once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Wrap;
use super::adaptive_layer::{self, AdaptiveLayer, AdaptiveLayerLoss, LayerWeighting};
use super::matryoshka::{Matryoshka, MatryoshkaLoss};
use crate::error::Result;
use crate::flow::Card;
use crate::loss::Loss;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    gotchas: &[
        "Put the model's full dimension among `dims`, or the untruncated embeddings are not trained.",
        "The model has to begin with a Transformer; a static embedding has no layers.",
    ],
    ..Card {
        name: "Matryoshka2dLoss",
        summary: "Trains embeddings of fewer layers that can be truncated as well.",
        ..adaptive_layer::CARD
    }
};

/// The settings of Matryoshka2dLoss: the table `[loss.matryoshka_2d]`. MatryoshkaLoss around the loss, then
/// AdaptiveLayerLoss around that.
///
/// With the wrapped loss `L`, the sizes `D` and the layers `S` drawn in this step, the embeddings `e` of all layers and
/// `e_l` after `l` of them:
///
/// `M(x) = sum over d in D of weight_d * L(normalise(x[:, :d]))`,
///
/// `loss = last_layer_weight * M(e) + sum over l in S of prior_layers_weight * weight(l) / |S| * M(e_l)
/// + sum over l in S of kl_div_weight * T * KL(softmax(e / T) || softmax(e_l / T))`,
///
/// where `T` is `kl_temperature`, and KL is a sum over all values and a mean over texts, and takes no gradient to `e`.
///
/// # Inputs
/// Those of the loss inside, and its labels.
///
/// # Shapes
/// Embeddings of `[batch, dim]`, of all layers and of those drawn; the result is a scalar.
///
/// # Defaults
/// One size and one layer a step (`n_dims_per_step = 1`, `n_layers_per_step = 1`), since the cost of a step grows with
/// their product. `weights`, `last_layer_weight`, `prior_layers_weight` and `kl_div_weight` are 1, all layers count alike
/// (`layer_weighting = "uniform"`), and `kl_temperature = 0.3`. `dims` has none: it belongs to the model.
///
/// # Source
/// [Li et al. 2024](https://arxiv.org/abs/2402.14776); `losses/matryoshka_2d.py` of sentence-transformers, with its
/// defaults: one size and one layer a step.
///
/// # Recipe
/// ```toml
/// [loss]
/// name = "Matryoshka2dLoss"
/// loss = { name = "MultipleNegativesRankingLoss" }
/// dims = [384, 192, 96]
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Matryoshka2d {
    /// The embedding sizes to train.
    #[serde(alias = "matryoshka_dims")]
    pub dims: Vec<usize>,
    /// How much each size counts, in the order of `dims`; 1 each when left out.
    #[serde(alias = "matryoshka_weights")]
    pub weights: Option<Vec<f64>>,
    /// How many sizes, drawn at random, a step computes; -1 for all.
    pub n_dims_per_step: i64,
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

impl Default for Matryoshka2d {
    fn default() -> Self {
        let layers = AdaptiveLayer::default();
        Self {
            dims: Vec::new(),
            weights: None,
            n_dims_per_step: 1,
            n_layers_per_step: layers.n_layers_per_step,
            last_layer_weight: layers.last_layer_weight,
            prior_layers_weight: layers.prior_layers_weight,
            kl_div_weight: layers.kl_div_weight,
            kl_temperature: layers.kl_temperature,
            layer_weighting: layers.layer_weighting,
        }
    }
}

impl Matryoshka2d {
    fn sizes(&self) -> Matryoshka {
        Matryoshka { dims: self.dims.clone(), weights: self.weights.clone(), n_dims_per_step: self.n_dims_per_step }
    }

    fn layers(&self) -> AdaptiveLayer {
        AdaptiveLayer {
            n_layers_per_step: self.n_layers_per_step,
            last_layer_weight: self.last_layer_weight,
            prior_layers_weight: self.prior_layers_weight,
            kl_div_weight: self.kl_div_weight,
            kl_temperature: self.kl_temperature,
            layer_weighting: self.layer_weighting,
        }
    }
}

impl Settings for Matryoshka2d {
    fn validate(&self) -> Result<()> {
        self.sizes().validate()?;
        self.layers().validate()
    }
}

impl Wrap for Matryoshka2d {
    const KEY: &'static str = "matryoshka_2d";
    const CARD: &'static Card = &CARD;

    fn around(self, inner: Box<dyn Loss>) -> Box<dyn Loss> {
        let config = adaptive_layer::config(inner.as_ref(), self.to_json());
        let inner = Box::new(MatryoshkaLoss::new(inner, &self.sizes()));
        Box::new(AdaptiveLayerLoss { inner, settings: self.layers(), card: &CARD, config })
    }
}
