//! A text's embedding is the mean of its tokens' embeddings: no network, very fast on a CPU.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{Features, Module, tensors};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::weights::{self, Weights};
use crate::ops::{self, Context, Param};
use crate::util::seed::Rng;

/// One row a token.
pub struct StaticEmbedding {
    table: Arc<Param>,
}

/// The name of the table in the weights file.
const NAME: &str = "embedding.weight";

impl StaticEmbedding {
    /// Rows drawn from the standard normal distribution, as torch's EmbeddingBag does, and put on `device`.
    ///
    /// # Errors
    /// When the table cannot be made.
    pub fn random(vocabulary: usize, dimension: usize, prefix: &str, rng: Rng, device: &Device) -> Result<Self> {
        let mut rng = rng.fork(0x57A7);
        let data: Vec<f32> = (0..vocabulary * dimension).map(|_| rng.normal() as f32).collect();
        let table = Tensor::from_vec(data, (vocabulary, dimension), device)?;
        Ok(Self { table: Param::new(format!("{prefix}{NAME}"), &table)? })
    }

    /// Reads model.safetensors onto `device`; `embeddings`, as model2vec names the table, is accepted.
    ///
    /// # Errors
    /// When there is no table.
    pub fn load(directory: &Path, prefix: &str, device: &Device) -> Result<Self> {
        let mut weights = Weights::load(directory, device)?;
        let name = if weights.contains(NAME) { NAME } else { "embeddings" };
        let Some(shape) = weights.shape(name) else {
            return Err(Error::model(format!(
                "`{}` has no table `{NAME}`",
                directory.join("model.safetensors").display()
            ))
            .with_hint("is this the folder of a StaticEmbedding module?"));
        };
        let table = weights.take("", name, &shape)?;
        Ok(Self { table: Param::new(format!("{prefix}{NAME}"), table.value())? })
    }

    /// Rows of the table.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.table.dims().first().copied().unwrap_or(0)
    }
}

impl Module for StaticEmbedding {
    fn name(&self) -> &'static str {
        "StaticEmbedding"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let batch = &features.batch;
        let mean = ops::embedding_bag_mean(context, &self.table, &batch.ids, &batch.offsets)?;
        features.sentence_embedding = Some(mean);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        vec![(NAME.to_owned(), Arc::clone(&self.table))]
    }

    fn rows(&self, batch: &PackedBatch) -> Vec<(Arc<Param>, Vec<u32>)> {
        vec![(Arc::clone(&self.table), batch.ids.to_vec())]
    }

    fn output_dimension(&self, input: usize) -> usize {
        self.table.dims().get(1).copied().unwrap_or(input)
    }

    fn saves_in_root(&self) -> bool {
        true
    }

    fn save(&self, directory: &Path) -> Result<()> {
        weights::save(&directory.join("model.safetensors"), &tensors(&self.params())?)
    }
}
