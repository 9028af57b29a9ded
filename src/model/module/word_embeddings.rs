//! A table of word vectors, one row a token, trained or not.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::{Config, Features, Module, Source, tensors, write_json};
use crate::error::Result;
use crate::flow::PackedBatch;
use crate::model::tokenizer::TextTokenizer;
use crate::model::weights::{self, Weights};
use crate::ops::{self, Context, Param};

/// Word vectors and the words' tokenizer.
pub struct WordEmbeddings {
    table: Arc<Param>,
    tokenizer: Arc<TextTokenizer>,
    tokenizer_class: String,
    max_seq_length: Option<u64>,
}

const CONFIG: &str = "wordembedding_config.json";
/// The name of the table in the weights file.
const NAME: &str = "emb_layer.weight";

impl WordEmbeddings {
    /// Reads the folder's wordembedding_config.json, model.safetensors and the tokenizer.
    ///
    /// # Errors
    /// When a file or key is missing, or the tokenizer's class is not supported.
    pub fn load(source: &Source<'_>) -> Result<Self> {
        let config = Config::read(source.directory, CONFIG)?;
        let kind = config.text("tokenizer_class")?.unwrap_or_default();
        let mut tokenizer = match super::class(kind) {
            "WhitespaceTokenizer" => TextTokenizer::whitespace(source.directory)?,
            "TransformersTokenizerWrapper" => TextTokenizer::load(source.directory, true)?,
            _ => {
                return Err(config
                    .bad(format!("`tokenizer_class` is `{kind}`"))
                    .with_hint("supported are WhitespaceTokenizer and TransformersTokenizerWrapper"));
            }
        };
        let max_seq_length = config.get(&["max_seq_length"]).and_then(serde_json::Value::as_u64);
        // a million is "no limit"
        let own = max_seq_length.filter(|n| *n < 1_000_000).map(|n| n as usize);
        tokenizer.set_max_seq_length(source.options.max_seq_length.or(own));
        let mut weights = Weights::load(source.directory, source.device)?;
        let Some(shape) = weights.shape(NAME).filter(|shape| shape.len() == 2) else {
            return Err(config.bad(format!("the weights beside it have no table `{NAME}`")));
        };
        let table = weights.take(source.prefix, NAME, &shape)?;
        let table = if config.flag("update_embeddings", false)? {
            table
        } else {
            Param::frozen(table.name().to_owned(), table.value())?
        };
        super::static_embedding::check_vocabulary(&tokenizer, shape.first().copied().unwrap_or(0))?;
        Ok(Self { table, tokenizer: Arc::new(tokenizer), tokenizer_class: kind.to_owned(), max_seq_length })
    }
}

impl Module for WordEmbeddings {
    fn name(&self) -> &'static str {
        "WordEmbeddings"
    }

    fn forward(&self, mut features: Features, context: &Context) -> Result<Features> {
        let ids = Arc::clone(&features.batch.ids);
        features.token_embeddings = Some(ops::embedding_sum(context, &[(&self.table, ids)])?);
        Ok(features)
    }

    fn params(&self) -> Vec<(String, Arc<Param>)> {
        vec![(NAME.to_owned(), Arc::clone(&self.table))]
    }

    fn rows(&self, batch: &PackedBatch, _: Option<&str>) -> Vec<(Arc<Param>, Vec<u32>)> {
        vec![(Arc::clone(&self.table), batch.ids.to_vec())]
    }

    fn activation_floats(&self) -> usize {
        2 * self.output_dimension(0)
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
        let limit = self.tokenizer.limit().map(|n| n as u64).or(self.max_seq_length).unwrap_or(1_000_000);
        write_json(
            &directory.join(CONFIG),
            &json!({
                "tokenizer_class": self.tokenizer_class,
                "update_embeddings": self.table.trainable(),
                "max_seq_length": limit,
            }),
        )?;
        self.tokenizer.save(directory)?;
        weights::save(&directory.join("model.safetensors"), &tensors(&self.params())?)
    }
}
