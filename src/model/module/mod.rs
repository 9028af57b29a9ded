//! Which steps can stand in a model's modules.json?
//!
//! A module is chosen by the last part of its `type`, so that the old and the new Python paths both work.

pub mod bow;
mod cards;
pub mod cnn;
pub mod dense;
pub mod dropout;
pub mod layer_norm;
pub mod lstm;
pub mod multi_vector_mask;
pub mod normalize;
pub mod pooling;
mod read;
pub mod router;
pub mod sparse_auto_encoder;
pub mod sparse_static_embedding;
pub mod splade_pooling;
pub mod static_embedding;
pub mod transformer;
pub mod weighted_layer_pooling;
pub mod word_embeddings;
pub mod word_weights;

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde_json::Value;

use sparse_auto_encoder::SparseAutoEncoder;

use super::backbone::Backbone;
use super::masked_lm::Vocabulary;
use super::options::{ModelOptions, TransformerTask};
use super::tokenizer::TextTokenizer;
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::ops::{Context, Param};
use crate::util::files;

pub use cards::CARDS;
pub(super) use read::{Config, Slot};

/// What flows from module to module.
pub struct Features {
    /// The input.
    pub batch: PackedBatch,
    /// What the texts are to the model: `query`, `document`; a Router chooses by it.
    pub task: Option<String>,
    /// `[tokens, hidden]`, once a Transformer has run.
    pub token_embeddings: Option<Tensor>,
    /// The embedding layer's and every layer's token embeddings, where the model's config.json asks for them.
    pub all_layers: Option<Vec<Tensor>>,
    /// `[sequences, 1]`: what a mean over token embeddings is divided by, where tokens have weights.
    pub weight_sums: Option<Tensor>,
    /// What token embeddings are to be multiplied with for scores of every word, of a network that foretells words.
    pub vocabulary: Option<Vocabulary>,
    /// `[sequences, dim]`, once something has pooled.
    pub sentence_embedding: Option<Tensor>,
    /// How many values of a sparse embedding are wanted, where not as many as the model says.
    pub max_active_dims: Option<usize>,
}

impl Features {
    /// The beginning of a pass.
    #[must_use]
    pub fn new(batch: PackedBatch, task: Option<&str>) -> Self {
        Self {
            batch,
            task: task.map(str::to_owned),
            token_embeddings: None,
            all_layers: None,
            weight_sums: None,
            vocabulary: None,
            sentence_embedding: None,
            max_active_dims: None,
        }
    }

    /// The sentence embedding.
    ///
    /// # Errors
    /// When no module before `module` made one.
    pub fn sentence(&self, module: &str) -> Result<&Tensor> {
        self.sentence_embedding.as_ref().ok_or_else(|| {
            Error::model(format!("the {module} module comes before anything that pools"))
                .with_hint("modules.json wants Transformer, Pooling, then the rest")
        })
    }

    /// The token embeddings.
    ///
    /// # Errors
    /// When no module before `module` made any.
    pub fn tokens(&self, module: &str) -> Result<&Tensor> {
        self.token_embeddings.as_ref().ok_or_else(|| {
            Error::model(format!("the {module} module comes before anything that embeds tokens"))
                .with_hint("a Transformer or WordEmbeddings must stand before it in modules.json")
        })
    }
}

/// One step of a model.
pub trait Module: Send + Sync {
    /// The class name of sentence-transformers.
    fn name(&self) -> &'static str;

    /// Where Python finds its class: a path that every version since 2.0 understands.
    fn class_path(&self) -> String {
        format!("sentence_transformers.models.{}", self.name())
    }

    /// Runs it.
    ///
    /// # Errors
    /// When what it needs is missing, or a tensor operation fails.
    fn forward(&self, features: Features, context: &Context) -> Result<Features>;

    /// The token embeddings after so many of its layers each, then after all.
    ///
    /// # Errors
    /// When it has no layers, or as [`Module::forward`].
    fn forward_layers(&self, batch: &PackedBatch, layers: &[usize], context: &Context) -> Result<Vec<Tensor>> {
        let _ = (batch, layers, context);
        Err(Error::model(format!("the {} module has no layers that could be left out", self.name()))
            .with_hint("use a loss that does not ask for them"))
    }

    /// Every parameter, with its name inside the module's weights file.
    fn params(&self) -> Vec<(String, Arc<Param>)> {
        Vec::new()
    }

    /// The rows of its tables that a pass over `batch`, whose texts are `task` to the model, reads.
    fn rows(&self, batch: &PackedBatch, task: Option<&str>) -> Vec<(Arc<Param>, Vec<u32>)> {
        let _ = (batch, task);
        Vec::new()
    }

    /// Values a token leaves behind in a forward pass that is to be differentiated.
    fn activation_floats(&self) -> usize {
        0
    }

    /// Width of what it takes, where only one will do.
    fn input_dimension(&self) -> Option<usize> {
        None
    }

    /// Width of what it puts out, given the width of what goes in.
    fn output_dimension(&self, input: usize) -> usize {
        input
    }

    /// The layers that had no weights in the checkpoint and got random ones.
    fn new_layers(&self) -> Vec<String> {
        Vec::new()
    }

    /// What turns texts into its tokens, of modules that read texts.
    ///
    /// # Errors
    /// When there is no way for `task`.
    fn tokenizer(&self, task: Option<&str>) -> Result<Option<&Arc<TextTokenizer>>> {
        let _ = task;
        Ok(None)
    }

    /// The tasks that it treats differently; empty when it treats all alike.
    fn tasks(&self) -> Vec<String> {
        Vec::new()
    }

    /// The batch as its network reads it, where texts that are `task` to the model are made longer; `None` for no change.
    fn expand(&self, batch: &PackedBatch, task: Option<&str>) -> Option<PackedBatch> {
        let _ = (batch, task);
        None
    }

    /// Tokens that a text which is `task` to the model has at least, once it is in the network.
    fn least_length(&self, task: Option<&str>) -> usize {
        let _ = task;
        0
    }

    /// Words that it was told to leave out and that are not one token each.
    fn unknown_words(&self) -> &[String] {
        &[]
    }

    /// `[sequences]`: how many tokens' vectors of each sequence it leaves, of a module that leaves some out.
    fn vectors(&self, batch: &PackedBatch, task: Option<&str>) -> Option<Vec<u32>> {
        let _ = (batch, task);
        None
    }

    /// Says by which words, and by which tokenizer's tokens, it leaves vectors out; `None` for the words it has.
    fn set_skiplist(&mut self, words: Option<&[String]>, tokenizer: &Arc<TextTokenizer>) {
        let _ = (words, tokenizer);
    }

    /// Takes the Normalize modules out of those that it holds.
    fn drop_normalize(&mut self) {}

    /// Layers of its encoder and their width.
    fn encoder_shape(&self) -> Option<(usize, usize)> {
        None
    }

    /// Whether it looks tokens up in a StaticEmbedding, itself or on one of its routes.
    fn looks_up(&self) -> bool {
        self.name() == "StaticEmbedding"
    }

    /// Whether texts of a task go through a network in it.
    fn network(&self, task: Option<&str>) -> bool {
        let _ = task;
        self.encoder_shape().is_some()
    }

    /// Its network, of modules that have one.
    fn backbone(&self) -> Option<&dyn Backbone> {
        None
    }

    /// Says what its classes are called, of modules that have a classifier.
    fn name_classes(&mut self, names: &[String]) {
        let _ = names;
    }

    /// Its parameters as low-rank adapters see them, of modules that have a network.
    ///
    /// # Errors
    /// When what stands on the network is new, and would have to be trained whole.
    fn adaptable(&self) -> Result<Option<Adaptable>> {
        Ok(None)
    }

    /// It as an autoencoder of embeddings, if it is one.
    fn autoencoder(&self) -> Option<&SparseAutoEncoder> {
        None
    }

    /// The folder it is saved in is the model's own, not a numbered one.
    fn saves_in_root(&self) -> bool {
        false
    }

    /// Writes configuration and weights into `directory`.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn save(&self, directory: &Path) -> Result<()>;
}

/// Where a module is loaded from, and how.
pub struct Source<'a> {
    /// Its folder.
    pub directory: &'a Path,
    /// Stands before the names of its parameters.
    pub prefix: &'a str,
    /// Where its parameters are put.
    pub device: &'a Device,
    /// What the recipe changes.
    pub options: &'a ModelOptions,
}

type Load = fn(&Source<'_>) -> Result<Box<dyn Module>>;

/// The modules that can be loaded: class name, loader.
pub static MODULES: &[(&str, Load)] = &[
    ("Transformer", |source| Ok(Box::new(transformer::Transformer::load(source)?))),
    // the name of 5.x for a Transformer that foretells words
    ("MLMTransformer", |source| Ok(Box::new(transformer::Transformer::load(source)?))),
    ("SpladePooling", |source| Ok(Box::new(splade_pooling::SpladePooling::load(source.directory)?))),
    ("SparseStaticEmbedding", |source| Ok(Box::new(sparse_static_embedding::SparseStaticEmbedding::load(source)?))),
    ("SparseAutoEncoder", |source| Ok(Box::new(sparse_auto_encoder::SparseAutoEncoder::load(source)?))),
    ("Pooling", |source| Ok(Box::new(pooling::Pooling::load(source.directory)?))),
    ("MultiVectorMask", |source| Ok(Box::new(multi_vector_mask::MultiVectorMask::load(source.directory)?))),
    ("Normalize", |source| Ok(Box::new(normalize::Normalize::load(source.directory)?))),
    ("Dense", |source| Ok(Box::new(dense::Dense::load(source)?))),
    ("LayerNorm", |source| Ok(Box::new(layer_norm::LayerNorm::load(source)?))),
    ("Dropout", |source| Ok(Box::new(dropout::Dropout::load(source)?))),
    ("StaticEmbedding", |source| Ok(Box::new(static_embedding::StaticEmbedding::load(source)?))),
    ("WordEmbeddings", |source| Ok(Box::new(word_embeddings::WordEmbeddings::load(source)?))),
    ("WordWeights", |source| Ok(Box::new(word_weights::WordWeights::load(source)?))),
    ("BoW", |source| Ok(Box::new(bow::Bow::load(source)?))),
    ("CNN", |source| Ok(Box::new(cnn::Cnn::load(source)?))),
    ("LSTM", |source| Ok(Box::new(lstm::Lstm::load(source)?))),
    ("WeightedLayerPooling", |source| Ok(Box::new(weighted_layer_pooling::WeightedLayerPooling::load(source)?))),
    ("Router", |source| Ok(Box::new(router::Router::load(source)?))),
    // the Router's name before 5.0
    ("Asym", |source| Ok(Box::new(router::Router::load(source)?))),
];

/// The names of the modules that can be loaded.
#[must_use]
pub fn supported() -> Vec<&'static str> {
    MODULES.iter().map(|(name, _)| *name).collect()
}

/// The class name at the end of a Python path.
#[must_use]
pub fn class(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Loads a module of the class at the end of the Python path `kind`.
///
/// # Errors
/// When there is no such class, or the module's files are missing or broken.
pub fn load(kind: &str, source: &Source<'_>) -> Result<Box<dyn Module>> {
    match MODULES.iter().find(|(name, _)| *name == class(kind)) {
        Some((_, load)) => load(source),
        None => Err(Error::model(format!("modules of type `{kind}` are not supported"))
            .with_hint(format!("supported are {}", supported().join(", ")))),
    }
}

/// A network's parameters, by their names in its checkpoint.
pub struct Adaptable {
    /// Those of the network, whose layers may get adapters.
    pub network: Vec<(String, Arc<Param>)>,
    /// Others that are frozen with it.
    pub frozen: Vec<(String, Arc<Param>)>,
    /// Those that are trained whole.
    pub trained: Vec<(String, Arc<Param>)>,
    /// What the network is to make.
    pub task: TransformerTask,
}

/// Where Python finds a class that sparse embeddings alone have.
pub(super) fn sparse_path(name: &str) -> String {
    format!("sentence_transformers.sparse_encoder.models.{name}")
}

/// config.json of a module's folder.
pub(super) fn read_config(directory: &Path) -> Result<Value> {
    let file = directory.join("config.json");
    let text = files::read_text(&file)?;
    serde_json::from_str(&text).map_err(|e| Error::model(format!("`{}` is not JSON: {e}", file.display())))
}

/// Writes a JSON file as sentence-transformers does, indented.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|e| Error::Internal(format!("cannot write JSON: {e}")))?;
    text.push('\n');
    files::write_atomic(path, text.as_bytes())
}

/// The values of parameters under their names, on the host, for saving; low-rank updates are added to them.
pub(super) fn tensors(params: &[(String, Arc<Param>)]) -> Result<Vec<(String, Tensor)>> {
    params.iter().map(|(name, param)| Ok((name.clone(), param.merged()?.to_device(&Device::Cpu)?))).collect()
}

/// The width at the end of modules in a row.
///
/// # Errors
/// When one of them takes another width than the one before it has.
pub(super) fn chain_width<'a>(modules: impl Iterator<Item = &'a dyn Module>) -> Result<usize> {
    let mut dimension = 0;
    for (i, module) in modules.enumerate() {
        if let Some(wanted) = module.input_dimension()
            && i > 0
            && wanted != dimension
        {
            return Err(Error::model(format!(
                "the {} module takes a width of {wanted}, what comes before it has {dimension}",
                module.name()
            ))
            .with_hint(
                "a changed `model.pooling_mode` may be the cause; otherwise the modules belong to different models",
            ));
        }
        dimension = module.output_dimension(dimension);
    }
    Ok(dimension)
}
