//! ContrastiveTensionLossInBatchNegatives.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Loss, Setup, View, inputs};
use crate::error::{Error, Result};
use crate::flow::{Card, LabelKind, Labels, Outputs};
use crate::ops::{self, Context, Param};
use crate::scoring::Similarity;
use crate::util::registry::Settings;

/// The catalogue entry.
pub const CARD: Card = Card {
    inputs: &["single texts"],
    columns: (1, 1),
    labels: LabelKind::None,
    in_batch_negatives: true,
    gotchas: &[
        "A second model is trained beside the one that is saved: twice the memory for weights and optimizer.",
        "Every other text of a batch is a negative: use `batch_sampler = \"no_duplicates\"`, and large batches.",
    ],
    paper: "https://openreview.net/forum?id=Ov_sMNau-PF",
    ..Card::new(
        "ContrastiveTensionLossInBatchNegatives",
        "Two copies of the model find each other's embedding of a text among those of the batch; needs no labels.",
    )
};

/// Contrastive tension with the other texts of the batch as negatives.
///
/// With the twin's embeddings `a` and the model's `b` of the same texts and `s_ij = exp(t) * sim(a_i, b_j)`:
/// `loss = (mean over i of -log softmax over j of s_ij [i] + mean over j of -log softmax over i of s_ij [j]) / 2`. The
/// twin begins as a copy of the model and is trained beside it; `t` is learned, too. The model `b` is the one that is
/// evaluated and saved.
///
/// # Inputs
/// | Inputs | Labels |
/// |---|---|
/// | single texts | none |
///
/// # Shapes
/// Two embeddings of `[batch, dim]`, both of the one column; the result is a scalar.
///
/// # Defaults
/// `scale = 20`, where `exp(t)` begins; it fits cosines. With `similarity_fct = "dot"` begin with 1.
///
/// # Related
/// `ContrastiveTensionLoss` compares pairs; `MultipleNegativesRankingLoss` on the same column twice (SimCSE) needs one
/// model only.
///
/// # Source
/// [Carlsson et al. 2021](https://openreview.net/forum?id=Ov_sMNau-PF); `losses/contrastive_tension.py` of
/// sentence-transformers.
///
/// # Recipe
/// ```toml
/// [train_dataset]
/// path = "sentences.txt"
/// [loss]
/// name = "ContrastiveTensionLossInBatchNegatives"
/// [args]
/// batch_sampler = "no_duplicates"
/// ```
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveTensionLossInBatchNegatives {
    /// What similarities are multiplied with at the beginning; learned from there on.
    pub scale: f64,
    /// How embeddings are compared.
    pub similarity_fct: Similarity,
    /// The logarithm of the scale, `[1, 1]`.
    #[serde(skip)]
    #[schemars(skip)]
    logit_scale: Option<Arc<Param>>,
}

impl Default for ContrastiveTensionLossInBatchNegatives {
    fn default() -> Self {
        Self { scale: 20.0, similarity_fct: Similarity::Cosine, logit_scale: None }
    }
}

impl Settings for ContrastiveTensionLossInBatchNegatives {
    fn validate(&self) -> Result<()> {
        inputs::positive("scale", self.scale)
    }
}

/// The same texts by both models.
const VIEWS: [View; 2] = [View { twin: true, column: 0 }, View { twin: false, column: 0 }];

impl Loss for ContrastiveTensionLossInBatchNegatives {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn config(&self) -> serde_json::Value {
        self.to_json()
    }

    fn views(&self) -> Option<&[View]> {
        Some(&VIEWS)
    }

    fn prepare(&mut self, setup: &Setup) -> Result<()> {
        let start = Tensor::from_vec(vec![self.scale.ln()], (1, 1), &Device::Cpu)?.to_dtype(setup.dtype)?;
        self.logit_scale = Some(Param::new(format!("{}.logit_scale", setup.name), &start.to_device(&setup.device)?)?);
        Ok(())
    }

    fn params(&self) -> Vec<Arc<Param>> {
        self.logit_scale.iter().map(Arc::clone).collect()
    }

    fn compute(&self, outputs: &Outputs, _labels: Option<&Labels>) -> Result<Tensor> {
        let [twin, model] = outputs.embeddings.as_slice() else {
            let got = outputs.embeddings.len();
            return Err(Error::Internal(format!("`{}` computes on both models' embeddings, got {got}", CARD.name)));
        };
        let logit_scale = self.logit_scale.as_ref().ok_or_else(|| super::layer::unprepared(CARD.name))?;
        let scores = self.similarity_fct.matrix(twin, model)?; // [batch, batch]
        // a layer on a 1 of the graph, so that the scale gets its gradient
        let context = Context::training(scores.dtype(), outputs.rng)?;
        let one = context.attach(&Tensor::ones((1, 1), scores.dtype(), scores.device())?)?;
        let scale = ops::linear(&context, &one, logit_scale, None)?.exp()?; // [1, 1]
        let scores = scores.broadcast_mul(&scale)?;
        let targets: Vec<u32> = (0..scores.dim(0)? as u32).collect();
        let rows = ops::cross_entropy(&scores, &targets)?;
        let columns = ops::cross_entropy(&scores.t()?, &targets)?;
        Ok(rows.add(&columns)?.affine(0.5, 0.0)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::DType;

    use super::*;
    use crate::loss::tests::{check_gradient_at, random_columns};
    use crate::util::seed::Rng;

    #[test]
    fn gradient_of_embeddings_and_scale() {
        for similarity_fct in Similarity::ALL {
            let mut loss = ContrastiveTensionLossInBatchNegatives { scale: 2.0, similarity_fct, ..Default::default() };
            let outputs = Outputs::new(random_columns(2, 4, 5, 8));
            assert!(loss.compute(&outputs, None).is_err(), "not prepared");
            let setup = Setup {
                name: "loss".to_owned(),
                dim: 5,
                layers: 0,
                dtype: DType::F64,
                device: Device::Cpu,
                rng: Rng::new(4),
            };
            loss.prepare(&setup).unwrap();
            check_gradient_at(&loss, &random_columns(2, 4, 5, 8), None);
            let param = Arc::clone(&loss.params()[0]);
            assert_eq!(param.name(), "loss.logit_scale");
            let at = |t: f64| {
                param.update::<f64, _>(|values| values[0] = t).unwrap();
                loss.compute(&outputs, None).unwrap().to_scalar::<f64>().unwrap()
            };
            let (t, h) = (2f64.ln(), 1e-5);
            let slope = (at(t + h) - at(t - h)) / (2.0 * h);
            at(t);
            param.clear_gradient();
            let vars: Vec<_> = outputs.embeddings.iter().map(|e| candle_core::Var::from_tensor(e).unwrap()).collect();
            let graph = Outputs::new(vars.iter().map(|v| v.as_tensor().clone()).collect());
            loss.compute(&graph, None).unwrap().backward().unwrap();
            let got = param.gradient_tensor().unwrap().unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()[0];
            assert!((got - slope).abs() < 1e-7, "{similarity_fct:?}: {got} {slope}");
        }
    }
}
