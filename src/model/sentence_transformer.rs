//! The bi-encoder: modules in a row, from texts to dense vectors.

mod encoding;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;

use super::backbone::Decoder;
use super::directory::{self, Description};
use super::lora::Lora;
use super::module::sparse_auto_encoder::SparseAutoEncoder;
use super::module::{Features, Module};
use super::pairs::Pairs;
use super::tasks::RoutedPreprocess;
use super::tokenizer::TextTokenizer;
use crate::error::{Error, Result};
use crate::flow::{Batch, ModelType, PackedBatch, Preprocess};
use crate::ops::{Context, Param};
use crate::util::files;
use crate::util::seed::Rng;

/// A model in memory.
pub struct SentenceTransformer {
    modules: Vec<Box<dyn Module>>,
    tokenizer: Arc<TextTokenizer>,
    description: Description,
    dimension: usize,
    layers: usize,
    hidden: usize,
    /// How it frames pairs, of a model that reads two texts at once.
    pairs: Option<Pairs>,
    /// What each column of a training batch is to the model; empty for all alike.
    column_tasks: Vec<Option<String>>,
    /// Its adapters, where it has them.
    lora: Option<Lora>,
}

/// Texts tokenised at a time.
pub(super) const TEXTS_PER_BLOCK: usize = 8192;

impl SentenceTransformer {
    pub(super) fn of(
        modules: Vec<Box<dyn Module>>,
        tokenizer: Arc<TextTokenizer>,
        description: Description,
        dimension: usize,
        layers: usize,
        hidden: usize,
        pairs: Option<Pairs>,
    ) -> Self {
        Self { modules, tokenizer, description, dimension, layers, hidden, pairs, column_tasks: Vec::new(), lora: None }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> ModelType {
        self.description.kind
    }

    /// How it frames pairs; `None` for a model that reads single texts.
    #[must_use]
    pub fn pairs(&self) -> Option<&Pairs> {
        self.pairs.as_ref()
    }

    /// The layers that its checkpoint had no weights for: they are random.
    #[must_use]
    pub fn new_layers(&self) -> Vec<String> {
        self.modules.iter().flat_map(|m| m.new_layers()).collect()
    }

    pub(super) fn description(&self) -> &Description {
        &self.description
    }

    /// Width of the embeddings as the modules make them; `encode` may cut them to the model's `truncate_dim`.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Layers of the encoder; 0 for a static embedding.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Width of the encoder's hidden states.
    #[must_use]
    pub fn hidden_size(&self) -> usize {
        self.hidden
    }

    /// Prompts by name.
    #[must_use]
    pub fn prompts(&self) -> &BTreeMap<String, String> {
        &self.description.prompts
    }

    /// The prompt used when none is named.
    #[must_use]
    pub fn default_prompt_name(&self) -> Option<&str> {
        self.description.default_prompt_name.as_deref()
    }

    /// Takes these prompts over those of the same names, and the default where there is none; saved with the model.
    pub fn adopt_prompts(&mut self, prompts: BTreeMap<String, String>, default: Option<&str>) {
        self.description.prompts.extend(prompts);
        if self.description.default_prompt_name.is_none() {
            self.description.default_prompt_name = default.map(str::to_owned);
        }
    }

    /// Tokens kept of a text; `None` for no limit.
    #[must_use]
    pub fn max_seq_length(&self) -> Option<usize> {
        self.tokenizer.max_seq_length()
    }

    /// Texts to tokens.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<TextTokenizer> {
        &self.tokenizer
    }

    /// The modules' class names, in order.
    #[must_use]
    pub fn module_names(&self) -> Vec<&'static str> {
        self.modules.iter().map(|m| m.name()).collect()
    }

    /// Every parameter, in the order of the modules.
    #[must_use]
    pub fn params(&self) -> Vec<Arc<Param>> {
        let own = self.modules.iter().flat_map(|m| m.params().into_iter().map(|(_, param)| param));
        own.chain(self.lora.iter().flat_map(Lora::params)).collect()
    }

    /// Says what the classes of its classifier are called; saved with it.
    pub fn name_classes(&mut self, names: &[String]) {
        self.modules.iter_mut().for_each(|module| module.name_classes(names));
    }

    /// Its adapters, where it has them.
    #[must_use]
    pub fn lora(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }

    pub(super) fn set_lora(&mut self, lora: Lora) {
        self.lora = Some(lora);
    }

    pub(super) fn modules(&self) -> &[Box<dyn Module>] {
        &self.modules
    }

    /// Values a token leaves behind in a training pass, for memory estimates.
    #[must_use]
    pub fn activation_floats(&self) -> usize {
        self.modules.iter().map(|m| m.activation_floats()).sum()
    }

    /// The rows of embedding tables that a pass over `batch` reads.
    #[must_use]
    pub fn rows(&self, batch: &Batch) -> Vec<(Arc<Param>, Vec<u32>)> {
        let of = |packed: &PackedBatch, task: Option<&str>| {
            self.modules.iter().flat_map(|m| m.rows(packed, task)).collect::<Vec<_>>()
        };
        if self.column_tasks.is_empty() {
            return of(&batch.packed, None);
        }
        let column = |c: usize| of(&batch.packed.part(c * batch.rows..(c + 1) * batch.rows), self.column_task(c));
        (0..batch.columns).flat_map(column).collect()
    }

    /// The tasks that the model treats differently, as `query` and `document`; empty when it treats all texts alike.
    #[must_use]
    pub fn tasks(&self) -> Vec<String> {
        self.modules.iter().flat_map(|m| m.tasks()).collect()
    }

    /// Whether its embeddings are those of a StaticEmbedding, or of one behind a Router.
    #[must_use]
    pub fn looks_up(&self) -> bool {
        self.modules.first().is_some_and(|first| first.looks_up())
    }

    /// Whether texts of a task go through a network.
    #[must_use]
    pub fn network_for(&self, task: Option<&str>) -> bool {
        self.modules.iter().any(|module| module.network(task))
    }

    /// Says what the columns of training batches are to the model.
    pub fn set_column_tasks(&mut self, tasks: Vec<Option<String>>) {
        self.column_tasks = tasks;
    }

    /// What the columns of training batches are to the model; empty for all alike.
    #[must_use]
    pub fn column_tasks(&self) -> &[Option<String>] {
        &self.column_tasks
    }

    fn column_task(&self, column: usize) -> Option<&str> {
        self.column_tasks.get(column)?.as_deref()
    }

    /// The tokenizer of texts that are `task` to the model.
    ///
    /// # Errors
    /// When the model has no way for such texts.
    pub fn tokenizer_for(&self, task: Option<&str>) -> Result<&Arc<TextTokenizer>> {
        if let Some(pairs) = &self.pairs {
            return Ok(pairs.tokenizer());
        }
        match self.modules.first() {
            Some(first) => Ok(first.tokenizer(task)?.unwrap_or(&self.tokenizer)),
            None => Ok(&self.tokenizer),
        }
    }

    /// The tokenizers of a data set's columns, where they may differ by column.
    ///
    /// # Errors
    /// When the model has no way for the task of a column.
    pub fn preprocess(&self, columns: &BTreeMap<String, String>) -> Result<RoutedPreprocess> {
        let default = self.tokenizer_for(None).or_else(|_| Ok::<_, Error>(&self.tokenizer))?;
        let of = |(column, task): (&String, &String)| {
            let found = self.tokenizer_for(Some(task)).map_err(|e| e.within(format!("column `{column}`")))?;
            Ok((column.clone(), Arc::clone(found)))
        };
        let places = match self.kind() {
            ModelType::MultiVectorEncoder => {
                let of = |task: &str| Ok::<_, Error>(Arc::clone(self.tokenizer_for(Some(task))?));
                Some([of("query")?, of("document")?])
            }
            _ => None,
        };
        Ok(RoutedPreprocess::new(Arc::clone(default), columns.iter().map(of).collect::<Result<_>>()?, places))
    }

    /// `[sequences, dim]`: the embedding of every sequence.
    ///
    /// # Errors
    /// When a sequence does not fit the network.
    pub fn forward(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        self.forward_task(batch, None, context)
    }

    /// As [`SentenceTransformer::forward`], of texts that are `task` to the model.
    ///
    /// # Errors
    /// As there, and when the model has no way for such texts.
    pub fn forward_task(&self, batch: &PackedBatch, task: Option<&str>, context: &Context) -> Result<Tensor> {
        self.pass(Features::new(batch.clone(), task), 0..self.modules.len(), context)
    }

    /// `[sequences]`: how many vectors each sequence has, of a model with one for each token.
    fn vectors(&self, batch: &PackedBatch, task: Option<&str>) -> Option<Vec<u32>> {
        if self.kind() != ModelType::MultiVectorEncoder {
            return None;
        }
        let expanded = self.modules.first().and_then(|first| first.expand(batch, task));
        let batch = expanded.as_ref().unwrap_or(batch);
        let all = || batch.offsets.windows(2).map(|w| w[1] - w[0]).collect();
        Some(self.modules.iter().find_map(|module| module.vectors(batch, task)).unwrap_or_else(all))
    }

    /// Tokens that a text which is `task` to the model has at least, once it is in the network.
    fn least_length(&self, task: Option<&str>) -> usize {
        self.modules.first().map_or(0, |first| first.least_length(task))
    }

    /// `[sequences + 1]`: where each sequence of a training batch begins and ends once it is in the network, where
    /// queries may be longer than they came.
    #[must_use]
    pub fn token_offsets(&self, batch: &Batch) -> Vec<u32> {
        let mut offsets = vec![0u32];
        for (i, w) in batch.packed.offsets.windows(2).enumerate() {
            let least = self.least_length(self.column_task(i / batch.rows.max(1))) as u32;
            offsets.push(offsets.last().copied().unwrap_or(0) + (w[1] - w[0]).max(least));
        }
        offsets
    }

    /// Words that documents were to be compared without, and that are not one token each.
    #[must_use]
    pub fn unknown_words(&self) -> Vec<String> {
        self.modules.iter().flat_map(|module| module.unknown_words().to_vec()).collect()
    }

    /// `[sequences + 1]`: where each sequence's vectors of a training batch begin and end, of a model with one for each
    /// token; `None` for a model with one vector a sequence.
    #[must_use]
    pub fn vector_offsets(&self, batch: &Batch) -> Option<Vec<u32>> {
        let mut offsets = vec![0u32];
        for column in 0..batch.columns {
            let part = batch.packed.part(column * batch.rows..(column + 1) * batch.rows);
            for count in self.vectors(&part, self.column_task(column))? {
                offsets.push(offsets.last().copied().unwrap_or(0) + count);
            }
        }
        Some(offsets)
    }

    /// Modules in a row.
    fn pass(&self, mut features: Features, numbers: std::ops::Range<usize>, context: &Context) -> Result<Tensor> {
        for module in self.modules.iter().take(numbers.end).skip(numbers.start) {
            features = module.forward(features, context)?;
        }
        if self.kind() == ModelType::MultiVectorEncoder {
            return features
                .token_embeddings
                .ok_or_else(|| Error::model("the model's modules make no token embeddings"));
        }
        features.sentence_embedding.ok_or_else(|| {
            Error::model("the model's modules make no sentence embedding").with_hint("add a Pooling module")
        })
    }

    /// `[part, dim]`: the embeddings of some of a training batch's sequences, each by the task of its column.
    ///
    /// # Errors
    /// As [`SentenceTransformer::forward_task`].
    pub fn embed_part(&self, batch: &Batch, part: std::ops::Range<usize>, context: &Context) -> Result<Tensor> {
        self.embed_part_as(batch, part, &self.column_tasks, context)
    }

    /// As [`SentenceTransformer::embed_part`], with what each column's texts are to the model; empty for all alike.
    ///
    /// # Errors
    /// As there.
    pub fn embed_part_as(
        &self,
        batch: &Batch,
        part: std::ops::Range<usize>,
        tasks: &[Option<String>],
        context: &Context,
    ) -> Result<Tensor> {
        self.embed_part_by(batch, part, tasks, self.modules.len(), context)
    }

    /// As [`SentenceTransformer::embed_part`], before the autoencoder that the model ends with.
    ///
    /// # Errors
    /// As there.
    pub fn embed_dense(&self, batch: &Batch, part: std::ops::Range<usize>, context: &Context) -> Result<Tensor> {
        let end = self.modules.len() - usize::from(self.autoencoder().is_some());
        self.embed_part_by(batch, part, &self.column_tasks, end, context)
    }

    /// The autoencoder that the model ends with, if it does.
    #[must_use]
    pub fn autoencoder(&self) -> Option<&SparseAutoEncoder> {
        self.modules.last().and_then(|module| module.autoencoder())
    }

    /// By the first `end` modules.
    fn embed_part_by(
        &self,
        batch: &Batch,
        part: std::ops::Range<usize>,
        tasks: &[Option<String>],
        end: usize,
        context: &Context,
    ) -> Result<Tensor> {
        let forward = |packed: PackedBatch, task: Option<&str>| self.pass(Features::new(packed, task), 0..end, context);
        if tasks.is_empty() {
            let whole = part == (0..batch.packed.len());
            return forward(if whole { batch.packed.clone() } else { batch.packed.part(part) }, None);
        }
        let mut pieces = Vec::new();
        for column in 0..batch.columns {
            let start = part.start.max(column * batch.rows);
            let end = part.end.min((column + 1) * batch.rows);
            if start < end {
                let piece = batch.packed.part(start..end);
                let task = tasks.get(column).and_then(Option::as_deref);
                pieces.push(forward(piece, task)?);
            }
        }
        Ok(Tensor::cat(&pieces, 0)?)
    }

    /// The embeddings of some of a training batch's sequences after so many of the network's layers each, then after
    /// all: `[layers + 1]` of `[part, dim]`.
    ///
    /// # Errors
    /// As [`SentenceTransformer::forward`], and when layers are asked of a model whose first module has none.
    pub fn embed_layers(
        &self,
        batch: &Batch,
        part: std::ops::Range<usize>,
        layers: &[usize],
        context: &Context,
    ) -> Result<Vec<Tensor>> {
        let Some(network) = self.modules.first().filter(|_| !layers.is_empty()) else {
            return Ok(vec![self.embed_part(batch, part, context)?]);
        };
        let packed = batch.packed.part(part);
        let states = network.forward_layers(&packed, layers, context)?;
        let pooled = states.into_iter().map(|state| {
            let features = Features { token_embeddings: Some(state), ..Features::new(packed.clone(), None) };
            self.pass(features, 1..self.modules.len(), context)
        });
        pooled.collect()
    }

    /// The embeddings of a training batch, column by column: `[columns]` of `[rows, dim]`, from one pass.
    ///
    /// # Errors
    /// As [`SentenceTransformer::forward_task`].
    pub fn embed(&self, batch: &Batch, context: &Context) -> Result<Vec<Tensor>> {
        let all = self.embed_part(batch, 0..batch.packed.len(), context)?;
        let mut columns = Vec::with_capacity(batch.columns);
        for column in 0..batch.columns {
            columns.push(all.narrow(0, column * batch.rows, batch.rows)?);
        }
        Ok(columns)
    }

    /// A decoder of the model's width with the parameters of its network, those that only a decoder has named with
    /// `prefix` before them.
    ///
    /// # Errors
    /// When the model has no network, or one that cannot be a decoder of its embeddings.
    pub fn decoder(&self, prefix: &str, rng: Rng) -> Result<Box<dyn Decoder>> {
        let network = self.modules.first().and_then(|module| module.backbone());
        let network = network.ok_or_else(|| {
            Error::model(format!("a model that begins with {} has no decoder", self.module_names().join(", ")))
                .with_hint("it has to begin with a Transformer")
        })?;
        network.decoder(prefix, rng)
    }

    /// Writes the model into `directory`, whole or not at all; what stood there is replaced.
    ///
    /// # Errors
    /// When a file cannot be written; then `directory` is as it was.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let temporary = files::temporary_name(directory);
        files::remove_dir(&temporary)?;
        let result = files::create_dir(&temporary)
            .and_then(|()| self.save_into(&temporary))
            .and_then(|()| files::publish_dir(&temporary, directory));
        if result.is_err() {
            let _ = files::remove_dir(&temporary);
        }
        result
    }

    /// Writes the model's files into a directory that exists, for those who publish it themselves.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save_into(&self, directory: &Path) -> Result<()> {
        directory::save(directory, &self.modules, &self.description)
    }
}
