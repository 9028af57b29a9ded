//! From token embeddings to one sentence embedding.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::{Features, Module, read_config, write_json};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::ops::{self, Context, PoolingMode};

/// One or several pooling modes, concatenated.
pub struct Pooling {
    modes: Vec<PoolingMode>,
    dimension: usize,
    include_prompt: bool,
}

/// The keys of the older configuration format, in the order in which it concatenates.
const LEGACY: [(&str, PoolingMode); 6] = [
    ("pooling_mode_cls_token", PoolingMode::Cls),
    ("pooling_mode_max_tokens", PoolingMode::Max),
    ("pooling_mode_mean_tokens", PoolingMode::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", PoolingMode::MeanSqrtLenTokens),
    ("pooling_mode_weightedmean_tokens", PoolingMode::WeightedMean),
    ("pooling_mode_lasttoken", PoolingMode::LastToken),
];

impl Pooling {
    /// Pools `dimension`-wide token embeddings.
    #[must_use]
    pub fn new(modes: Vec<PoolingMode>, dimension: usize) -> Self {
        Self { modes, dimension, include_prompt: true }
    }

    /// Reads the folder's config.json, in the format of sentence-transformers 6 or an older one.
    ///
    /// # Errors
    /// When a key is missing or a mode unknown.
    pub fn load(directory: &Path) -> Result<Self> {
        let config = read_config(directory)?;
        let bad = |what: String| Error::model(format!("`{}`: {what}", directory.join("config.json").display()));
        let dimension = ["embedding_dimension", "word_embedding_dimension"]
            .iter()
            .find_map(|key| config.get(*key).and_then(Value::as_u64))
            .ok_or_else(|| bad("no `embedding_dimension`".to_owned()))?;
        let modes: Vec<PoolingMode> = match config.get("pooling_mode") {
            Some(Value::Array(list)) => list
                .iter()
                .map(|mode| serde_json::from_value(mode.clone()).map_err(|e| bad(e.to_string())))
                .collect::<Result<_>>()?,
            Some(mode) => vec![serde_json::from_value(mode.clone()).map_err(|e| bad(e.to_string()))?],
            None => {
                let active: Vec<PoolingMode> = LEGACY
                    .iter()
                    .filter(|(key, _)| config.get(*key).and_then(Value::as_bool).unwrap_or(false))
                    .map(|(_, mode)| *mode)
                    .collect();
                if active.is_empty() { vec![PoolingMode::Mean] } else { active }
            }
        };
        if modes.is_empty() {
            return Err(bad("`pooling_mode` is empty".to_owned()));
        }
        Ok(Self {
            modes,
            dimension: dimension as usize,
            include_prompt: config.get("include_prompt").and_then(Value::as_bool).unwrap_or(true),
        })
    }

    /// The modes, in order.
    #[must_use]
    pub fn modes(&self) -> &[PoolingMode] {
        &self.modes
    }

    /// The older format where it can say the same, since every version of sentence-transformers reads it.
    fn config(&self) -> Value {
        let order = |mode: &PoolingMode| LEGACY.iter().position(|(_, m)| m == mode);
        let in_order = self.modes.windows(2).all(|w| order(&w[0]) < order(&w[1]));
        if in_order {
            let mut config = json!({"word_embedding_dimension": self.dimension});
            for (key, mode) in LEGACY {
                config[key] = Value::Bool(self.modes.contains(&mode));
            }
            config["include_prompt"] = Value::Bool(self.include_prompt);
            config
        } else {
            json!({
                "embedding_dimension": self.dimension,
                "pooling_mode": self.modes,
                "include_prompt": self.include_prompt,
            })
        }
    }
}

/// A mean over weighted token embeddings is divided by the sum of the weights, not by the number of tokens.
fn weighted(
    pooled: &Tensor,
    sums: &Tensor,
    batch: &PackedBatch,
    skip: &[u32],
    mode: PoolingMode,
) -> candle_core::Result<Tensor> {
    let divided_by = |sequence: usize| {
        let (start, end) = (batch.offsets[sequence], batch.offsets[sequence + 1]);
        let skipped = f64::from(skip.get(sequence).copied().unwrap_or(0).min(end - start));
        let n = f64::from(end - start) - skipped;
        match mode {
            PoolingMode::Mean => n,
            PoolingMode::MeanSqrtLenTokens => n.sqrt(),
            _ => (2.0 * skipped + 1.0 + n) * n / 2.0,
        }
    };
    if !matches!(mode, PoolingMode::Mean | PoolingMode::MeanSqrtLenTokens | PoolingMode::WeightedMean) {
        return Ok(pooled.clone());
    }
    let was: Vec<f64> = (0..batch.len()).map(divided_by).collect();
    let was = Tensor::from_vec(was, (batch.len(), 1), &Device::Cpu)?.to_dtype(pooled.dtype())?;
    let smallest = (sums.ones_like()? * 1e-9)?;
    let sums = sums.lt(1e-9)?.where_cond(&smallest, sums)?;
    let sums = if mode == PoolingMode::MeanSqrtLenTokens { sums.sqrt()? } else { sums };
    pooled.broadcast_mul(&was.to_device(pooled.device())?.div(&sums)?)
}

impl Module for Pooling {
    fn name(&self) -> &'static str {
        "Pooling"
    }

    fn forward(&self, mut features: Features, _: &Context) -> Result<Features> {
        let tokens = features.token_embeddings.take().ok_or_else(|| {
            Error::model("the Pooling module comes before anything that embeds tokens")
                .with_hint("a Transformer or WordEmbeddings must stand before it in modules.json")
        })?;
        let batch = &features.batch;
        let skip = if self.include_prompt { Arc::new(Vec::new()) } else { Arc::clone(&batch.prompt_lengths) };
        let mut parts = Vec::with_capacity(self.modes.len());
        for mode in &self.modes {
            let pooled = ops::pool(&tokens, &batch.offsets, &skip, *mode)?;
            parts.push(match &features.weight_sums {
                Some(sums) => weighted(&pooled, sums, batch, &skip, *mode)?,
                None => pooled,
            });
        }
        features.sentence_embedding = Some(match parts.len() {
            1 => parts.remove(0),
            _ => Tensor::cat(&parts, 1)?,
        });
        Ok(features)
    }

    fn input_dimension(&self) -> Option<usize> {
        Some(self.dimension)
    }

    fn output_dimension(&self, _: usize) -> usize {
        self.dimension * self.modes.len()
    }

    fn save(&self, directory: &Path) -> Result<()> {
        write_json(&directory.join("config.json"), &self.config())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back() {
        for modes in [
            vec![PoolingMode::Mean],
            vec![PoolingMode::Cls, PoolingMode::Mean],
            vec![PoolingMode::Mean, PoolingMode::Cls],
            vec![PoolingMode::LastToken],
        ] {
            let dir = tempfile::tempdir().unwrap();
            Pooling::new(modes.clone(), 7).save(dir.path()).unwrap();
            let back = Pooling::load(dir.path()).unwrap();
            assert_eq!(back.modes(), modes);
            assert_eq!(back.output_dimension(7), 7 * modes.len());
        }
    }
}
