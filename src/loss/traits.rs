//! What the trainer knows of a loss.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::flow::{Arrangement, Card, Classify, Labels, MicroBatch, Outputs, Pairing};
use crate::ops::Param;
use crate::util::seed::Rng;

/// The model a loss is used with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What its parameters' names begin with.
    pub name: String,
    /// Width of its embeddings.
    pub dim: usize,
    /// Its layers; 0 for a static embedding.
    pub layers: usize,
    /// Element type of the embeddings.
    pub dtype: DType,
    /// Where it computes.
    pub device: Device,
    /// For parameters of the loss's own.
    pub rng: Rng,
}

/// Which of two models embeds which input column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The second model, which begins as a copy of the one that is saved and is trained beside it.
    pub twin: bool,
    /// The input column.
    pub column: usize,
}

/// The decoder that a loss wants its first embedding to be decoded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderWanted<'a> {
    /// The input column with the texts it is to write.
    pub column: usize,
    /// The model it begins as, a directory or an id on the Hub; `None` for the trained model's own parameters.
    pub model: Option<&'a str>,
}

/// How the labels of training data are spread: a label of `y` counts as `y` positives and `1 - y` negatives.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Balance {
    /// The labels' sum.
    pub positives: f64,
    /// What is missing in each to 1, summed.
    pub negatives: f64,
    /// The first label that is not from 0 to 1, which neither counts.
    pub outside: Option<f32>,
}

impl Balance {
    /// Counts one label.
    pub fn add(&mut self, label: f32) {
        if !(0.0..=1.0).contains(&label) {
            self.outside.get_or_insert(label);
            return;
        }
        self.positives += f64::from(label);
        self.negatives += 1.0 - f64::from(label);
    }
}

/// What a loss is made of.
#[derive(Debug)]
pub struct Parts {
    /// The whole: a scalar.
    pub loss: Tensor,
    /// What is told of a batch, under the reference's keys: the terms of a sum, and what they depend on.
    pub told: Vec<(&'static str, f64)>,
}

/// A loss: a differentiable function of embeddings and labels, nothing else.
pub trait Loss: Send + Sync {
    /// Its catalogue entry.
    fn card(&self) -> &'static Card;

    /// The catalogue entry of the loss that reads columns and labels: a wrapper answers with what it wraps.
    fn base_card(&self) -> &'static Card {
        self.card()
    }

    /// The scalar loss of a batch, differentiable with respect to every embedding.
    ///
    /// # Errors
    /// When the number of columns, the labels or the shapes are not what it takes.
    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor>;

    /// As [`Loss::compute`], with its terms for the log; a loss of one term tells none.
    ///
    /// # Errors
    /// As there.
    fn parts(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Parts> {
        Ok(Parts { loss: self.compute(outputs, labels)?, told: Vec::new() })
    }

    /// Its settings, defaults filled in, for the plan and the model card.
    fn config(&self) -> serde_json::Value;

    /// The parts a batch is to be taken in by gradient caching; `None` for no wish. The value is the same either way.
    fn micro_batch(&self) -> Option<MicroBatch> {
        None
    }

    /// Makes the parameters of its own, which are trained with the model and not saved with it. A loss without any has
    /// nothing to do.
    ///
    /// # Errors
    /// When they cannot be made for such a model.
    fn prepare(&mut self, setup: &Setup) -> Result<()> {
        let _ = setup;
        Ok(())
    }

    /// The parameters of its own; none before [`prepare`](Loss::prepare).
    fn params(&self) -> Vec<Arc<Param>> {
        Vec::new()
    }

    /// The model whose embeddings of the same texts it wants as [`Outputs::guide`]: a directory, or an id on the Hub.
    fn guide(&self) -> Option<&str> {
        None
    }

    /// What it computes on, where that is not the model's embedding of every column: an embedding for each of these.
    /// A second model is trained where one of them asks for it.
    fn views(&self) -> Option<&[View]> {
        None
    }

    /// The decoder whose cross-entropy it wants as [`Outputs::decoded`]; trained with the model.
    fn decoder(&self) -> Option<DecoderWanted<'_>> {
        None
    }

    /// Whether it wants [`Outputs::autoencoded`], of a model that ends with an autoencoder.
    fn autoencodes(&self) -> bool {
        false
    }

    /// Told after each optimizer step of `total`: a loss with a weight that follows what it sees moves it now.
    fn after_step(&self, total: u64) {
        let _ = total;
    }

    /// What such a loss has to know when a run goes on; `None` for one that remembers nothing.
    fn memory(&self) -> Option<serde_json::Value> {
        None
    }

    /// Gives it back what [`Loss::memory`] said.
    fn remember(&self, memory: &serde_json::Value) {
        let _ = memory;
    }

    /// How the rows of a data set with so many input columns are to be put into batches.
    fn arrangement(&self, columns: usize) -> Arrangement {
        let _ = columns;
        Arrangement::AsIs
    }

    /// What tells classes from embeddings, of a loss that trains such a layer.
    fn classifier(&self) -> Option<&dyn Classify> {
        None
    }

    /// After how many of `total` layers it wants embeddings, too, as [`Outputs::layers`], in this step; `rng` is the
    /// step's.
    fn layers(&self, total: usize, rng: Rng) -> Vec<usize> {
        let _ = (total, rng);
        Vec::new()
    }

    /// The pairs it compares, of a model that reads two texts at once.
    fn pairing(&self) -> Pairing {
        Pairing::Rows
    }

    /// The least and the largest label that it can use, where a row has one number as its label; `dim` is the width of
    /// the model's output; and what to do about others. `None` for any.
    fn label_range(&self, dim: usize) -> Option<(f64, f64, &'static str)> {
        let _ = dim;
        None
    }

    /// Whether it cannot compute before it has been told of the labels by [`see_labels`](Loss::see_labels).
    fn wants_balance(&self) -> bool {
        false
    }

    /// Told once, before the first batch: the labels of all training data that this loss is for.
    ///
    /// # Errors
    /// [`Error::Data`](crate::error::Error::Data) when it cannot do with such labels.
    fn see_labels(&mut self, balance: Balance) -> Result<()> {
        let _ = balance;
        Ok(())
    }

    /// A warning, of a loss that leaves queries dense where a network makes them.
    fn check_queries(&self) -> Option<String> {
        None
    }

    /// Checks that depend on the model: `dim` is the width of its embeddings, or the number of
    /// a pair's logits. Returns warnings.
    ///
    /// # Errors
    /// When the loss cannot be used with that model.
    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        let _ = dim;
        Ok(Vec::new())
    }
}
