//! Weights of tokens, as inverse document frequencies: a mean over tokens becomes a weighted one.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::{Config, Features, Module, Source, tensors, write_json};
use crate::error::Result;
use crate::flow::PackedBatch;
use crate::model::weights::{self, Weights};
use crate::ops::{self, Context, Param, PoolingMode};
use crate::util::files;

/// One weight a token.
pub struct WordWeights {
    table: Arc<Param>,
    /// The configuration as it was found: vocabulary and the weights they came from.
    config: Value,
}

/// The name of the weights in the weights file.
const NAME: &str = "emb_layer.weight";

impl WordWeights {
    /// Reads the folder's config.json and model.safetensors.
    ///
    /// # Errors
    /// When a file or key is missing.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let config = Config::read(source.directory, "config.json")?;
        let words = config.texts("vocab")?.ok_or_else(|| config.bad("no `vocab`"))?.len();
        let table = Weights::load(source.directory, source.device)?.take(source.prefix, NAME, &[words, 1])?;
        let text = files::read_text(&source.directory.join("config.json"))?;
        Ok(Self { table, config: serde_json::from_str(&text).map_err(|e| config.bad(e))? })
    }
}

/// How many tokens each sequence has, as a column; 1 where there is none.
pub(super) fn counts(batch: &PackedBatch, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
    let counts: Vec<f64> = batch.offsets.windows(2).map(|w| f64::from((w[1] - w[0]).max(1))).collect();
    Tensor::from_slice(&counts, (counts.len(), 1), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
}

impl Module for WordWeights {
    fn name(&self) -> &'static str {
        "WordWeights"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let x = features.tokens(self.name())?;
        let weights = ops::embedding_sum(context, &[(&self.table, Arc::clone(&features.batch.ids))])?;
        let weighted = x.broadcast_mul(&weights)?;
        let means = ops::pool(&weights, &features.batch.offsets, &Arc::new(Vec::new()), PoolingMode::Mean)?;
        features.weight_sums = Some((means * counts(&features.batch, x.dtype(), x.device())?)?);
        features.token_embeddings = Some(weighted);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        vec![(NAME.to_owned(), Arc::clone(&self.table))]
    }

    fn rows(&self, batch: &PackedBatch, _: Option<&str>) -> Vec<(Arc<Param>, Vec<u32>)> {
        vec![(Arc::clone(&self.table), batch.ids.to_vec())]
    }

    fn save(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join("config.json"), &self.config)?;
        weights::save(&directory.join("model.safetensors"), &tensors(&self.params())?)
    }
}
