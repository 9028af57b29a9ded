//! Weights of tokens, as inverse document frequencies: a mean over tokens becomes a weighted one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use super::{Config, Features, Module, Source, tensors, write_json};
use crate::error::Result;
use crate::flow::PackedBatch;
use crate::model::weights;
use crate::ops::{self, Context, Param, PoolingMode};

/// One weight a token.
pub struct WordWeights {
    table: Arc<Param>,
    vocabulary: Vec<String>,
    unknown: f64,
}

/// The name of the weights in the weights file.
const NAME: &str = "emb_layer.weight";

impl WordWeights {
    /// Reads the folder's config.json. As in the reference the weights are those that it names word by word, not those
    /// of the weights file beside it.
    ///
    /// # Errors
    /// When it is missing or a key is not what it should be.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let config = Config::read(source.directory, "config.json")?;
        let vocabulary = config.texts("vocab")?.ok_or_else(|| config.bad("no `vocab`"))?;
        let weights = of_words(&config, &vocabulary)?;
        let table = Tensor::from_vec(weights, (vocabulary.len(), 1), source.device)?;
        let unknown = config.number("unknown_word_weight", 1.0)?;
        Ok(Self { table: Param::new(format!("{}{NAME}", source.prefix), &table)?, vocabulary, unknown })
    }
}

/// The weights of the words of a vocabulary, by `word_weights` and `unknown_word_weight` of a configuration.
pub(super) fn of_words(config: &Config, vocabulary: &[String]) -> Result<Vec<f32>> {
    let given: HashMap<String, f64> = match config.get(&["word_weights"]) {
        None => HashMap::new(),
        Some(value) => {
            serde_json::from_value(value.clone()).map_err(|_| config.bad("`word_weights` is not a table of numbers"))?
        }
    };
    let unknown = config.number("unknown_word_weight", 1.0)?;
    let weight = |word: &String| given.get(word).or_else(|| given.get(&word.to_lowercase())).copied();
    Ok(vocabulary.iter().map(|word| weight(word).unwrap_or(unknown) as f32).collect())
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
        // word by word, since that is what is read
        let values = self.table.value().to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        let weights: serde_json::Map<String, Value> =
            self.vocabulary.iter().cloned().zip(values.into_iter().map(Value::from)).collect();
        write_json(
            &directory.join("config.json"),
            &json!({"vocab": self.vocabulary, "word_weights": weights, "unknown_word_weight": self.unknown}),
        )?;
        weights::save(&directory.join("model.safetensors"), &tensors(&self.params())?)
    }
}
