//! A text's embedding is the mean of its tokens' embeddings: no network, very fast on a CPU.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::{Features, Module, Source, tensors};
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::model::tokenizer::TextTokenizer;
use crate::model::weights::{self, Weights};
use crate::ops::{self, Context, Param};
use crate::util::seed::Rng;

/// One row a token.
pub struct StaticEmbedding {
    table: Arc<Param>,
    tokenizer: Arc<TextTokenizer>,
}

/// The name of the table in the weights file.
const NAME: &str = "embedding.weight";

impl StaticEmbedding {
    /// Rows drawn from the standard normal distribution, as torch's EmbeddingBag does, and put on `device`.
    ///
    /// # Errors
    /// When the table cannot be made.
    pub fn random(tokenizer: TextTokenizer, dimension: usize, prefix: &str, rng: Rng, device: &Device) -> Result<Self> {
        let mut rng = rng.fork(0x57A7);
        let vocabulary = tokenizer.vocabulary();
        let data: Vec<f32> = (0..vocabulary * dimension).map(|_| rng.normal() as f32).collect();
        Self::of(tokenizer, &Tensor::from_vec(data, (vocabulary, dimension), device)?, prefix)
    }

    /// A table, `[tokens, dim]`, as it is.
    ///
    /// # Errors
    /// When it has fewer rows than the tokenizer has tokens.
    pub fn of(tokenizer: TextTokenizer, table: &Tensor, prefix: &str) -> Result<Self> {
        check_vocabulary(&tokenizer, table.dim(0)?)?;
        Ok(Self { table: Param::new(format!("{prefix}{NAME}"), table)?, tokenizer: Arc::new(tokenizer) })
    }

    /// Reads model.safetensors and tokenizer.json; a table as model2vec saves it is accepted: `embeddings`, with a
    /// row's number (`mapping`) and a weight (`weights`) for each token where there are any.
    ///
    /// # Errors
    /// When there is no table, or it does not fit the tokenizer.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let mut tokenizer = TextTokenizer::load(source.directory, false)?;
        if source.options.max_seq_length.is_some() {
            tokenizer.set_max_seq_length(source.options.max_seq_length);
        }
        let file = source.directory.join("model.safetensors");
        let mut weights = Weights::load(source.directory, &Device::Cpu)?;
        let name = if weights.contains(NAME) { NAME } else { "embeddings" };
        let bad = |what: &str| Error::model(format!("`{}` {what}", file.display()));
        let Some(shape) = weights.shape(name).filter(|shape| shape.len() == 2) else {
            return Err(
                bad(&format!("has no table `{NAME}`")).with_hint("is this the folder of a StaticEmbedding module?")
            );
        };
        let mut table = weights.take("", name, &shape)?.value().clone();
        if name != NAME {
            if let Some(mapping) = weights::integers(&file, "mapping")? {
                if mapping.iter().any(|row| *row as usize >= shape[0]) {
                    return Err(bad("has a `mapping` to rows that `embeddings` has not"));
                }
                table = table.index_select(&Tensor::new(mapping, &Device::Cpu)?, 0)?;
            }
            if let Some(shape) = weights.shape("weights") {
                let each = weights.take("", "weights", &shape)?.value().clone();
                if each.elem_count() != table.dim(0)? {
                    return Err(bad("has another number of `weights` than of tokens"));
                }
                table = table.broadcast_mul(&each.reshape(((), 1))?)?;
            }
        }
        Self::of(tokenizer, &table.to_device(source.device)?, source.prefix)
    }

    /// Rows of the table.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.table.dims().first().copied().unwrap_or(0)
    }
}

/// Refuses a tokenizer with more tokens than a table has rows.
pub(super) fn check_vocabulary(tokenizer: &TextTokenizer, rows: usize) -> Result<()> {
    if tokenizer.vocabulary() > rows {
        return Err(Error::model(format!(
            "`{}` has {} tokens, the embedding table {rows} rows",
            tokenizer.source().display(),
            tokenizer.vocabulary()
        ))
        .with_hint("the tokenizer and the weights belong to different models"));
    }
    Ok(())
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

    fn rows(&self, batch: &PackedBatch, _: Option<&str>) -> Vec<(Arc<Param>, Vec<u32>)> {
        vec![(Arc::clone(&self.table), batch.ids.to_vec())]
    }

    fn output_dimension(&self, input: usize) -> usize {
        self.table.dims().get(1).copied().unwrap_or(input)
    }

    fn tokenizer(&self, _: Option<&str>) -> Result<Option<&Arc<TextTokenizer>>> {
        Ok(Some(&self.tokenizer))
    }

    fn saves_in_root(&self) -> bool {
        true
    }

    fn save(&self, directory: &Path) -> Result<()> {
        self.tokenizer.save(directory)?;
        weights::save(&directory.join("model.safetensors"), &tensors(&self.params())?)
    }
}
