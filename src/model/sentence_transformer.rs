//! The bi-encoder: modules in a row, from texts to dense vectors.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::directory::{self, Description};
use super::module::dense::Dense;
use super::module::normalize::Normalize;
use super::module::pooling::Pooling;
use super::module::static_embedding::StaticEmbedding;
use super::module::transformer::Transformer;
use super::module::{Features, Module};
use super::options::{ModelOptions, StaticOptions};
use super::tokenizer::TextTokenizer;
use crate::error::{Error, Result};
use crate::flow::{Batch, Embeddings, Encode, EncodeOptions, PackedBatch, Preprocess};
use crate::ops::{Context, Param, PoolingMode, Precision};
use crate::util::files;
use crate::util::progress::Progress;
use crate::util::seed::Rng;

/// A model in memory.
pub struct SentenceTransformer {
    modules: Vec<Box<dyn Module>>,
    tokenizer: Arc<TextTokenizer>,
    description: Description,
    dimension: usize,
    layers: usize,
    hidden: usize,
}

/// Tokens encoded in one pass when nothing is trained.
const TOKENS_PER_PASS: usize = 8192;
/// Texts tokenised at a time.
const TEXTS_PER_BLOCK: usize = 8192;

impl SentenceTransformer {
    /// Loads a directory that sentence-transformers, transformers or tallow saved.
    ///
    /// # Errors
    /// When a file is missing or broken, or the model is of a kind that is not supported; the message names it.
    pub fn load(directory: &Path) -> Result<Self> {
        Self::load_with(directory, &ModelOptions::default())
    }

    /// As [`SentenceTransformer::load`], with changes.
    ///
    /// # Errors
    /// As there, and when a change does not fit the model.
    pub fn load_with(directory: &Path, options: &ModelOptions) -> Result<Self> {
        if !directory.is_dir() {
            return Err(Error::model(format!("there is no model directory `{}`", directory.display()))
                .with_hint("give the path of a model directory, or the id of a model on the Hub"));
        }
        let mut description = Description::load(directory)?;
        let entries = directory::read_modules(directory)?;
        let mut modules: Vec<Box<dyn Module>> = Vec::new();
        let (mut layers, mut hidden) = (0, 0);
        let device = options.device.as_ref().unwrap_or(&Device::Cpu);
        let mut tokenizer = None;
        let mut take_transformer = |folder: &Path, prefix: &str| -> Result<(Box<dyn Module>, TextTokenizer)> {
            let mut transformer = Transformer::load(folder, prefix, device)?;
            if let Some(dropout) = options.dropout {
                transformer.backbone_mut().set_dropout(dropout);
            }
            if let Some(limit) = options.max_seq_length {
                check_length(limit, transformer.backbone().max_positions())?;
                transformer.set_max_seq_length(limit);
            }
            (layers, hidden) = (transformer.backbone().layers(), transformer.backbone().hidden_size());
            let mut tokenizer = TextTokenizer::load(folder, true)?;
            tokenizer.set_max_seq_length(transformer.max_seq_length());
            tokenizer.set_lower_case(transformer.lower_case());
            Ok((Box::new(transformer), tokenizer))
        };
        match entries {
            None => {
                let (module, found) = take_transformer(directory, "0.auto_model.")?;
                let dimension = module.output_dimension(0);
                modules.push(module);
                modules.push(Box::new(Pooling::new(vec![PoolingMode::Mean], dimension)));
                tokenizer = Some(found);
            }
            Some(entries) => {
                for (i, entry) in entries.iter().enumerate() {
                    let folder = directory.join(&entry.path);
                    let prefix = format!("{i}.");
                    modules.push(match entry.class() {
                        "Transformer" => {
                            let (module, found) = take_transformer(&folder, &format!("{i}.auto_model."))?;
                            tokenizer = Some(found);
                            module
                        }
                        "Pooling" => Box::new(Pooling::load(&folder)?),
                        "Normalize" => Box::new(Normalize),
                        "Dense" => Box::new(Dense::load(&folder, &prefix, device)?),
                        "StaticEmbedding" => {
                            let module = StaticEmbedding::load(&folder, &prefix, device)?;
                            let mut found = TextTokenizer::load(&folder, false)?;
                            if options.max_seq_length.is_some() {
                                found.set_max_seq_length(options.max_seq_length);
                            }
                            check_vocabulary(&found, module.vocabulary())?;
                            tokenizer = Some(found);
                            Box::new(module)
                        }
                        other => return Err(Error::Internal(format!("module `{other}` is listed but not built"))),
                    });
                }
            }
        }
        let tokenizer = tokenizer.ok_or_else(|| {
            Error::model(format!("`{}` has no module that reads text", directory.display()))
                .with_hint("modules.json must begin with a Transformer or a StaticEmbedding")
        })?;
        change_modules(&mut modules, options, directory)?;
        change_description(&mut description, options)?;
        Self::assemble(modules, tokenizer, description, layers, hidden)
    }

    /// A static embedding with random rows.
    ///
    /// # Errors
    /// When the tokenizer cannot be read.
    pub fn new_static(from: &StaticOptions, options: &ModelOptions, rng: Rng) -> Result<Self> {
        let mut tokenizer = TextTokenizer::load(&from.tokenizer, false)?;
        if options.max_seq_length.is_some() {
            tokenizer.set_max_seq_length(options.max_seq_length);
        }
        let device = options.device.as_ref().unwrap_or(&Device::Cpu);
        let table = StaticEmbedding::random(tokenizer.vocabulary(), from.embedding_dim, "0.", rng, device)?;
        let mut modules: Vec<Box<dyn Module>> = vec![Box::new(table)];
        change_modules(&mut modules, options, &from.tokenizer)?;
        let mut description = Description::default();
        change_description(&mut description, options)?;
        Self::assemble(modules, tokenizer, description, 0, from.embedding_dim)
    }

    fn assemble(
        modules: Vec<Box<dyn Module>>,
        tokenizer: TextTokenizer,
        description: Description,
        layers: usize,
        hidden: usize,
    ) -> Result<Self> {
        let mut dimension = 0;
        for (i, module) in modules.iter().enumerate() {
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
        let model = Self { modules, tokenizer: Arc::new(tokenizer), description, dimension, layers, hidden };
        if let Some(dim) = model.description.truncate_dim
            && (dim == 0 || dim > dimension)
        {
            return Err(Error::usage(format!("`truncate_dim` is {dim}, the model has {dimension} dimensions"))
                .with_hint(format!("give a number from 1 to {dimension}")));
        }
        // One token through every module: shapes that do not fit are found now and not after an hour.
        model.forward(&PackedBatch::pack([(&[0u32][..], 0)]), &Context::inference())?;
        Ok(model)
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
        self.modules.iter().flat_map(|m| m.params().into_iter().map(|(_, param)| param)).collect()
    }

    /// Values a token leaves behind in a training pass, for memory estimates.
    #[must_use]
    pub fn activation_floats(&self) -> usize {
        self.modules.iter().map(|m| m.activation_floats()).sum()
    }

    /// The rows of embedding tables that a pass over `batch` reads.
    #[must_use]
    pub fn rows(&self, batch: &PackedBatch) -> Vec<(Arc<Param>, Vec<u32>)> {
        self.modules.iter().flat_map(|m| m.rows(batch)).collect()
    }

    /// `[sequences, dim]`: the embedding of every sequence.
    ///
    /// # Errors
    /// When a sequence does not fit the network.
    pub fn forward(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor> {
        let mut features = Features { batch: batch.clone(), token_embeddings: None, sentence_embedding: None };
        for module in &self.modules {
            features = module.forward(features, context)?;
        }
        features.sentence_embedding.ok_or_else(|| {
            Error::model("the model's modules make no sentence embedding").with_hint("add a Pooling module")
        })
    }

    /// The embeddings of a training batch, column by column: `[columns]` of `[rows, dim]`, from one pass.
    ///
    /// # Errors
    /// As [`SentenceTransformer::forward`].
    pub fn embed(&self, batch: &Batch, context: &Context) -> Result<Vec<Tensor>> {
        let all = self.forward(&batch.packed, context)?;
        let mut columns = Vec::with_capacity(batch.columns);
        for column in 0..batch.columns {
            columns.push(all.narrow(0, column * batch.rows, batch.rows)?);
        }
        Ok(columns)
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
        directory::save(directory, &self.modules, &self.description)?;
        self.tokenizer.save(directory)
    }

    /// The prompt that `encode` uses without being told one.
    #[must_use]
    pub fn default_prompt(&self) -> Option<&str> {
        let name = self.description.default_prompt_name.as_deref()?;
        self.description.prompts.get(name).map(String::as_str)
    }

    /// The prompt called `name`.
    ///
    /// # Errors
    /// When the model has none of that name.
    pub fn prompt(&self, name: &str) -> Result<&str> {
        self.description.prompts.get(name).map(String::as_str).ok_or_else(|| {
            let known: Vec<&str> = self.description.prompts.keys().map(String::as_str).collect();
            Error::usage(format!("the model has no prompt named `{name}`")).with_hint(if known.is_empty() {
                "it has no prompts at all; give the text itself with `--prompt`".to_owned()
            } else {
                format!("it has {}", known.join(", "))
            })
        })
    }

    fn encode_sorted(
        &self,
        texts: &[&str],
        prompt: Option<&str>,
        bf16: bool,
        out: &mut [f32],
        progress: &Progress,
    ) -> Result<()> {
        let precision = if bf16 { Precision::Bf16 } else { Precision::Full };
        let context = Context::inference().with_precision(precision);
        let tokens = self.tokenizer.tokenize(texts, prompt)?;
        let mut order: Vec<usize> = (0..tokens.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(tokens[*i].ids.len()));
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let mut budget = TOKENS_PER_PASS;
            let take = rest
                .iter()
                .take_while(|i| {
                    let length = tokens[**i].ids.len().max(1);
                    let fits = length <= budget;
                    budget = budget.saturating_sub(length);
                    fits
                })
                .count()
                .max(1);
            let (now, later) = rest.split_at(take);
            let packed = PackedBatch::pack(now.iter().map(|i| (tokens[*i].ids.as_slice(), tokens[*i].prompt_length)));
            let embeddings = self.forward(&packed, &context)?.flatten_all()?.to_vec1::<f32>()?;
            for (row, i) in embeddings.chunks_exact(self.dimension.max(1)).zip(now) {
                out[i * self.dimension..(i + 1) * self.dimension].copy_from_slice(row);
            }
            progress.inc(take as u64);
            rest = later;
        }
        Ok(())
    }
}

impl Encode for SentenceTransformer {
    fn encode(&self, texts: &[&str], options: &EncodeOptions) -> Result<Embeddings> {
        let progress = options.progress.map_or_else(Progress::hidden, |what| Progress::new(what, texts.len() as u64));
        let prompt = options.prompt.as_deref().or_else(|| self.default_prompt());
        let mut data = vec![0.0; texts.len() * self.dimension];
        let blocks = data.chunks_mut((TEXTS_PER_BLOCK * self.dimension).max(1));
        for (texts, out) in texts.chunks(TEXTS_PER_BLOCK).zip(blocks) {
            self.encode_sorted(texts, prompt, options.bf16, out, &progress)?;
        }
        progress.finish();
        let embeddings = Embeddings::new(self.dimension, data);
        let truncate_dim = options.truncate_dim.or(self.description.truncate_dim);
        if let Some(dim) = truncate_dim
            && (dim == 0 || dim > self.dimension)
        {
            return Err(Error::usage(format!("truncate_dim is {dim}, the model has {} dimensions", self.dimension)));
        }
        let embeddings = match truncate_dim {
            Some(dim) => embeddings.truncated(dim),
            None => embeddings,
        };
        Ok(if options.normalize { embeddings.normalized() } else { embeddings })
    }

    fn named_prompt(&self, name: &str) -> Option<String> {
        self.description.prompts.get(name).cloned()
    }

    fn similarity_fn_name(&self) -> &str {
        self.description.similarity_fn_name.as_deref().unwrap_or("cosine")
    }
}

fn check_length(limit: usize, positions: Option<usize>) -> Result<()> {
    match positions {
        Some(positions) if limit > positions => {
            Err(Error::usage(format!("`model.max_seq_length` is {limit}, the model has {positions} positions"))
                .with_hint(format!("set it to {positions} or less")))
        }
        _ if limit < 3 => Err(Error::usage(format!("`model.max_seq_length` is {limit}"))
            .with_hint("it counts special tokens, so at least 3 are needed; 128 to 512 are usual")),
        _ => Ok(()),
    }
}

fn check_vocabulary(tokenizer: &TextTokenizer, rows: usize) -> Result<()> {
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

/// Applies the recipe's pooling and normalisation.
fn change_modules(modules: &mut Vec<Box<dyn Module>>, options: &ModelOptions, source: &Path) -> Result<()> {
    if !options.pooling_mode.is_empty() {
        let Some(at) = modules.iter().position(|m| m.name() == "Pooling") else {
            return Err(Error::usage(format!("`{}` has no Pooling module to change", source.display()))
                .with_hint("leave out `model.pooling_mode`"));
        };
        let width = modules[..at].iter().fold(0, |width, m| m.output_dimension(width));
        modules[at] = Box::new(Pooling::new(options.pooling_mode.clone(), width));
    }
    match options.normalize {
        Some(true) if modules.last().is_some_and(|m| m.name() != "Normalize") => modules.push(Box::new(Normalize)),
        Some(false) => modules.retain(|m| m.name() != "Normalize"),
        _ => {}
    }
    Ok(())
}

fn change_description(description: &mut Description, options: &ModelOptions) -> Result<()> {
    description.prompts.extend(options.prompts.clone());
    if options.default_prompt_name.is_some() {
        description.default_prompt_name.clone_from(&options.default_prompt_name);
    }
    if options.similarity_fn_name.is_some() {
        description.similarity_fn_name.clone_from(&options.similarity_fn_name);
    }
    if options.truncate_dim.is_some() {
        description.truncate_dim = options.truncate_dim;
    }
    if let Some(name) = &description.default_prompt_name
        && !description.prompts.contains_key(name)
        && !["query", "document"].contains(&name.as_str())
    {
        let known = description.prompts.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ");
        return Err(Error::usage(format!("`model.default_prompt_name`: there is no prompt `{name}`")).with_hint(
            if known.is_empty() {
                "define it under `[model.prompts]`".to_owned()
            } else {
                format!("the prompts are {known}; others are defined under `[model.prompts]`")
            },
        ));
    }
    Ok(())
}
