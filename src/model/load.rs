//! From a directory or from nothing to a model: its modules, and what a recipe changes about them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde_json::{Map, Value};

use super::directory::{self, Description, Entry};
use super::distill::distill;
use super::module::dense::Dense;
use super::module::multi_vector_mask::MultiVectorMask;
use super::module::normalize::Normalize;
use super::module::pooling::Pooling;
use super::module::splade_pooling::SpladePooling;
use super::module::static_embedding::StaticEmbedding;
use super::module::transformer::Transformer;
use super::module::{self, Module, Source, chain_width};
use super::options::{ModelOptions, NetworkTokenizer, StaticOptions, StaticSource, TransformerTask};
use super::pairs::Pairs;
use super::sentence_transformer::SentenceTransformer;
use super::sparse_modules;
use super::tokenizer::TextTokenizer;
use crate::error::{Error, Result};
use crate::flow::{ModelType, PackedBatch};
use crate::ops::{Context, PoolingMode};
use crate::util::files;
use crate::util::seed::Rng;

impl SentenceTransformer {
    /// Loads a directory that sentence-transformers, transformers, model2vec or tallow saved.
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
        let found = description.kind;
        let options = &settle(directory, &mut description, options)?;
        let device = options.device.as_ref().unwrap_or(&Device::Cpu);
        let mut modules: Vec<Box<dyn Module>> = Vec::new();
        let entries = directory::read_modules(directory)?;
        let options = &by_modules(options, entries.as_deref());
        match entries {
            Some(entries) => {
                let entries = chosen(&entries, (found, options.task), directory)?;
                for (i, entry) in entries.iter().enumerate() {
                    let (folder, prefix) = (directory.join(&entry.path), sparse_modules::prefix(options, i));
                    let source = Source { directory: &folder, prefix: &prefix, device, options };
                    modules.push(module::load(&entry.kind, &source)?);
                }
            }
            None => {
                let prefix = sparse_modules::prefix(options, 0);
                let source = Source { directory, prefix: &prefix, device, options };
                modules = without_modules(&source)?;
            }
        }
        if options.task == TransformerTask::TokenEmbeddings {
            complete(&mut modules, (found, options), device)?;
        }
        if options.keep_layers.is_some() && modules.iter().all(|module| module.encoder_shape().is_none()) {
            return Err(Error::usage(format!("`keep_layers`: `{}` has no layers to choose from", directory.display()))
                .with_hint("leave it out: it is for networks such as BERT"));
        }
        change_modules(&mut modules, options, directory)?;
        sparse_modules::add(&mut modules, options, directory)?;
        change_description(&mut description, options)?;
        Self::assemble(modules, description, directory)
    }

    /// A static embedding with random rows.
    ///
    /// # Errors
    /// When the tokenizer cannot be read.
    pub fn new_static(from: &StaticOptions, options: &ModelOptions, rng: Rng) -> Result<Self> {
        Self::new_static_from(&StaticSource::Random(from.clone()), options, rng)
    }

    /// A static embedding with random rows, or distilled from a transformer.
    ///
    /// # Errors
    /// When the tokenizer or the teacher cannot be read.
    pub fn new_static_from(source: &StaticSource, options: &ModelOptions, rng: Rng) -> Result<Self> {
        let device = options.device.as_ref().unwrap_or(&Device::Cpu);
        let prefix = format!("{}0.", options.name_prefix);
        let limited = |mut tokenizer: TextTokenizer| {
            if options.max_seq_length.is_some() {
                tokenizer.set_max_seq_length(options.max_seq_length);
            }
            tokenizer
        };
        let (module, origin) = match source {
            StaticSource::Random(StaticOptions { tokenizer, embedding_dim }) => {
                let read = limited(TextTokenizer::load(tokenizer, false)?);
                (StaticEmbedding::random(read, *embedding_dim, &prefix, rng, device)?, tokenizer.clone())
            }
            StaticSource::RandomFor(bytes, embedding_dim) => {
                let origin = PathBuf::from("tokenizer.json");
                let read = limited(TextTokenizer::from_bytes(bytes.clone(), &origin, false)?);
                (StaticEmbedding::random(read, *embedding_dim, &prefix, rng, device)?, origin)
            }
            StaticSource::Teacher(directory, how) => {
                let made = distill(directory, how, device)?;
                let table = made.table.to_device(device)?;
                (StaticEmbedding::of(limited(made.tokenizer), &table, &prefix)?, directory.clone())
            }
        };
        let mut modules: Vec<Box<dyn Module>> = vec![Box::new(module)];
        change_modules(&mut modules, options, &origin)?;
        let mut description = Description::default();
        change_description(&mut description, options)?;
        Self::assemble(modules, description, &origin)
    }

    /// A new network with random weights, of the architecture of a config.json's keys; mean pooling unless `options`
    /// name another.
    ///
    /// # Errors
    /// When the architecture is not supported, or the tokenizer cannot be read.
    pub fn new_network(config: &Map<String, Value>, from: &NetworkTokenizer, options: &ModelOptions) -> Result<Self> {
        let (tokenizer, read) = match from {
            NetworkTokenizer::File(path) => (path.as_path(), TextTokenizer::load(path, true)?),
            NetworkTokenizer::Bytes(bytes) => {
                let origin = Path::new("tokenizer.json");
                (origin, TextTokenizer::from_bytes(bytes.clone(), origin, true)?)
            }
        };
        let mut description = Description::default();
        let options = &by_modules(&settle(tokenizer, &mut description, options)?, None);
        let device = options.device.as_ref().unwrap_or(&Device::Cpu);
        let prefix = sparse_modules::prefix(options, 0);
        let source = Source { directory: tokenizer, prefix: &prefix, device, options };
        let transformer = Transformer::fresh(config, read, &source)?;
        let mut modules: Vec<Box<dyn Module>> = vec![Box::new(transformer)];
        if options.task == TransformerTask::FeatureExtraction {
            let dimension = chain_width(modules.iter().map(AsRef::as_ref))?;
            modules.push(Box::new(Pooling::new(vec![PoolingMode::Mean], dimension)));
        }
        if options.task == TransformerTask::TokenEmbeddings {
            complete(&mut modules, (ModelType::SentenceTransformer, options), device)?;
        }
        change_modules(&mut modules, options, tokenizer)?;
        sparse_modules::add(&mut modules, options, tokenizer)?;
        change_description(&mut description, options)?;
        Self::assemble(modules, description, tokenizer)
    }

    fn assemble(modules: Vec<Box<dyn Module>>, description: Description, source: &Path) -> Result<Self> {
        let dimension = chain_width(modules.iter().map(AsRef::as_ref))?;
        let tasks: Vec<String> = modules.iter().flat_map(|m| m.tasks()).collect();
        let first = modules.first().map(AsRef::as_ref);
        let tokenizer_for = |task: Option<&str>| match first {
            Some(first) => first.tokenizer(task),
            None => Ok(None),
        };
        // a Router without a default route reads texts of a known task only
        let found = match (tokenizer_for(None), tasks.first()) {
            (Err(_), Some(task)) => tokenizer_for(Some(task)),
            (found, _) => found,
        }?;
        let tokenizer = Arc::clone(found.ok_or_else(|| {
            Error::model(format!("`{}` has no module that reads text", source.display()))
                .with_hint("modules.json must begin with a Transformer, StaticEmbedding, WordEmbeddings, BoW or Router")
        })?);
        let (layers, hidden) = modules.iter().find_map(|m| m.encoder_shape()).unwrap_or((0, dimension));
        let pairs = match description.kind {
            ModelType::CrossEncoder => Some(Pairs::new(&tokenizer)?),
            _ => None,
        };
        let model = Self::of(modules, tokenizer, description, dimension, layers, hidden, pairs);
        if let Some(dim) = model.description().truncate_dim
            && (dim == 0 || dim > dimension)
        {
            return Err(Error::usage(format!("`truncate_dim` is {dim}, the model has {dimension} dimensions"))
                .with_hint(format!("give a number from 1 to {dimension}")));
        }
        // One token through every module: shapes that do not fit are found now and not after an hour.
        let token = PackedBatch::pack([(&[0u32][..], 0)]);
        for task in &tasks {
            model.forward_task(&token, Some(task), &Context::inference())?;
        }
        if tasks.is_empty() {
            model.forward(&token, &Context::inference())?;
        }
        Ok(model)
    }
}

/// What the model is to be, and with it what its Transformer makes.
fn settle(directory: &Path, description: &mut Description, options: &ModelOptions) -> Result<ModelOptions> {
    let (found, wanted) = (description.kind, options.model_type.unwrap_or(description.kind));
    let task = match wanted {
        ModelType::CrossEncoder => TransformerTask::SequenceClassification,
        ModelType::SentenceTransformer if found == wanted => TransformerTask::FeatureExtraction,
        ModelType::SentenceTransformer => {
            return Err(Error::model(format!("`{}` is a {found}", directory.display())).with_hint(format!(
                "a {wanted} starts from another {wanted}, or from a network without a head; to go on with this model \
                 set `model_type = \"{found}\"`"
            )));
        }
        ModelType::SparseEncoder => TransformerTask::FillMask,
        ModelType::MultiVectorEncoder => TransformerTask::TokenEmbeddings,
    };
    if options.activation_fn.is_some() {
        description.activation_fn = options.activation_fn;
    } else if let Some(path) = description.unknown_activation.take().filter(|_| found == wanted) {
        return Err(Error::model(format!("`{}`: the activation `{path}` is not known", directory.display()))
            .with_hint("set `model.activation_fn` to Identity, Sigmoid, Tanh or ReLU"));
    }
    if found != wanted {
        // prompts and truncation belong to embeddings
        let kept = match (found, wanted) {
            // what stood before queries and documents stands there for each of their tokens, too
            (ModelType::SentenceTransformer, ModelType::MultiVectorEncoder) => Description {
                prompts: std::mem::take(&mut description.prompts),
                default_prompt_name: description.default_prompt_name.take(),
                ..Description::default()
            },
            _ => Description::default(),
        };
        *description = Description { activation_fn: options.activation_fn, ..kept };
    }
    description.kind = wanted;
    let multi_vector = options.multi_vector.clone().over(description.multi_vector.clone());
    Ok(ModelOptions { task, multi_vector, ..options.clone() })
}

/// An autoencoder takes dense embeddings, so the network before it makes hidden states and foretells no words.
fn by_modules(options: &ModelOptions, entries: Option<&[Entry]>) -> ModelOptions {
    let there = entries.is_some_and(|entries| entries.iter().any(|entry| entry.class() == "SparseAutoEncoder"));
    let dense = options.task == TransformerTask::FillMask && (there || options.autoencoder.is_some());
    let task = if dense { TransformerTask::FeatureExtraction } else { options.task };
    ModelOptions { task, ..options.clone() }
}

/// The modules that are loaded: all, but of a model that becomes a reranker only its network, and of one that becomes a
/// MultiVectorEncoder also its layers after pooling.
fn chosen<'a>(
    entries: &'a [Entry],
    (found, task): (ModelType, TransformerTask),
    directory: &Path,
) -> Result<Vec<&'a Entry>> {
    if task == TransformerTask::TokenEmbeddings && found == ModelType::SentenceTransformer {
        let kept = entries.iter().enumerate().filter(|(i, entry)| *i == 0 || entry.class() == "Dense");
        let kept = kept.map(|(_, entry)| entry).collect::<Vec<_>>();
        if kept.first().is_some_and(|first| first.class() == "Transformer") {
            return Ok(kept);
        }
    }
    let all = |entries: &'a [Entry]| Ok(entries.iter().collect());
    let tokens = task == TransformerTask::TokenEmbeddings && found == ModelType::MultiVectorEncoder;
    // a Router of a sparse model holds its own SpladePooling
    let sparse = |class: &str| class == "SpladePooling" || (found == ModelType::SparseEncoder && is_router(class));
    let splade = entries.iter().any(|entry| sparse(entry.class()));
    if tokens || task == TransformerTask::FeatureExtraction || (task == TransformerTask::FillMask && splade) {
        return all(entries);
    }
    if task == TransformerTask::FillMask && found == ModelType::SparseEncoder {
        return Err(Error::model(format!(
            "`{}` is a {found} without SpladePooling, SparseAutoEncoder or Router",
            directory.display()
        ))
        .with_hint("one of these makes the embeddings sparse: modules.json must name it"));
    }
    match entries {
        [first, ..] if ["Transformer", "MLMTransformer"].contains(&first.class()) => all(&entries[..1]),
        [first, ..] if is_router(first.class()) => Err(Error::model(format!(
            "`{}` has a Router, whose ways cannot be taken for one network",
            directory.display()
        ))
        .with_hint("start from the folder of the network in it, such as `document_0_Transformer`")),
        _ => Err(Error::model(format!("`{}` does not begin with a Transformer", directory.display()))
            .with_hint("it takes a network such as BERT, and not a static embedding")),
    }
}

fn is_router(class: &str) -> bool {
    ["Router", "Asym"].contains(&class)
}

/// The modules of a directory without modules.json: one that transformers or model2vec saved.
fn without_modules(source: &Source<'_>) -> Result<Vec<Box<dyn Module>>> {
    let file = source.directory.join("config.json");
    if file.exists() {
        let config: serde_json::Value = serde_json::from_str(&files::read_text(&file)?)
            .map_err(|e| Error::model(format!("`{}` is not JSON: {e}", file.display())))?;
        if config["model_type"] == "model2vec" || config["architectures"][0] == "StaticModel" {
            let mut modules: Vec<Box<dyn Module>> = vec![Box::new(StaticEmbedding::load(source)?)];
            if config["normalize"] == true {
                modules.push(Box::new(Normalize::new()));
            }
            return Ok(modules);
        }
    }
    let mut transformer = Transformer::load(source)?;
    if source.options.task == TransformerTask::TokenEmbeddings
        && let Some(weight) = transformer.take_unused("linear.weight")
    {
        // Stanford's ColBERT keeps its projection among the network's weights
        let projection = Dense::projection(&weight.to_device(source.device)?, &source.prefix.replace("0.", "1."))?;
        return Ok(vec![Box::new(transformer), Box::new(projection)]);
    }
    if source.options.task != TransformerTask::FeatureExtraction {
        return Ok(vec![Box::new(transformer)]);
    }
    let (dimension, mode) = (transformer.output_dimension(0), usual_pooling(transformer.network_config()));
    Ok(vec![Box::new(transformer), Box::new(Pooling::new(vec![mode], dimension))])
}

/// How a network that was not made for embeddings is pooled: the last token has seen the others where each sees those
/// before it.
///
/// Source: `SentenceTransformer._load_default_modules` of sentence-transformers.
fn usual_pooling(config: &Value) -> PoolingMode {
    let class = config.get("architectures").and_then(|all| all.get(0)).and_then(Value::as_str).unwrap_or("");
    let causal = config.get("is_causal").and_then(Value::as_bool).unwrap_or(true);
    if class.ends_with("ForCausalLM") && causal { PoolingMode::LastToken } else { PoolingMode::Mean }
}

/// Adds what a model with a vector for each token has beside its network: a projection, a mask, and normalisation.
fn complete(
    modules: &mut Vec<Box<dyn Module>>,
    (found, options): (ModelType, &ModelOptions),
    device: &Device,
) -> Result<()> {
    /// Keeps the projection's weights apart from other things drawn from the same seed.
    const STREAM: u64 = 0x9801;
    /// The width of the paper, and of the reference.
    const WIDTH: usize = 128;
    let settings = &options.multi_vector;
    let made = found == ModelType::MultiVectorEncoder;
    let there = |modules: &[Box<dyn Module>], name: &str| modules.iter().any(|module| module.name() == name);
    if !made && !there(modules, "Dense") {
        let (input, out) = (chain_width(modules.iter().map(AsRef::as_ref))?, settings.embedding_dim.unwrap_or(WIDTH));
        let mut rng = Rng::new(options.seed).fork(STREAM);
        // as torch's linear layers begin
        let bound = 1.0 / (input.max(1) as f64).sqrt();
        let values: Vec<f32> = (0..input * out).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32).collect();
        let weight = Tensor::from_vec(values, (out, input), &Device::Cpu)?.to_device(device)?;
        let prefix = format!("{}{}.", options.name_prefix, modules.len());
        modules.push(Box::new(Dense::new_projection(&weight, &prefix)?));
    } else if let Some(wanted) = settings.embedding_dim {
        let width = chain_width(modules.iter().map(AsRef::as_ref))?;
        if width != wanted {
            return Err(Error::usage(format!("`model.embedding_dim` is {wanted}, the model's vectors have {width}"))
                .with_hint("leave it out: it is for models that have no projection yet"));
        }
    }
    if modules.iter().any(|module| is_router(module.name())) {
        return Err(Error::model("a MultiVectorEncoder with a Router cannot be loaded")
            .with_hint("queries and documents take one network here: start from the folder of the network in it"));
    }
    let legacy = settings.legacy.as_deref().and_then(|legacy| legacy.skiplist_words.clone());
    if !there(modules, "MultiVectorMask") && (!made || settings.complete) {
        modules.push(Box::new(MultiVectorMask::new(legacy.unwrap_or_default())));
        if !there(modules, "Normalize") {
            modules.push(Box::new(Normalize::of_tokens()));
        }
    }
    let tokenizer = match modules.first() {
        Some(first) => first.tokenizer(None)?.map(Arc::clone),
        None => None,
    };
    let Some(tokenizer) = tokenizer else { return Ok(()) };
    let words = settings.skiplist_words.as_deref();
    if words.is_some_and(|words| !words.is_empty()) && !there(modules, "MultiVectorMask") {
        return Err(Error::usage("`model.skiplist_words`: the model has no MultiVectorMask module")
            .with_hint("leave it out, or add the module to the model"));
    }
    let expands = modules.first().is_some_and(|first| first.least_length(Some("query")) > 0);
    if expands && !there(modules, "MultiVectorMask") {
        return Err(Error::model(
            "queries are made longer, and there is no MultiVectorMask that counts what was added",
        )
        .with_hint("set `model.query_expansion = { length = 0 }`, or add the module to the model"));
    }
    modules.iter_mut().for_each(|module| module.set_skiplist(words, &tokenizer));
    Ok(())
}

/// Applies the recipe's pooling and normalisation.
fn change_modules(modules: &mut Vec<Box<dyn Module>>, options: &ModelOptions, source: &Path) -> Result<()> {
    let makes_words = |m: &dyn Module| m.name() == "SpladePooling" || is_router(m.name());
    if options.task == TransformerTask::FillMask && !modules.iter().any(|m| makes_words(m.as_ref())) {
        let words = chain_width(modules.iter().map(AsRef::as_ref))?;
        modules.push(Box::new(SpladePooling::new(words)));
    }
    if options.max_seq_length.is_some() && modules.first().is_some_and(|m| m.name() == "BoW") {
        return Err(Error::usage(format!(
            "`{}` counts every word of a text, it has no greatest length",
            source.display()
        ))
        .with_hint("leave out `model.max_seq_length`"));
    }
    if !options.pooling_mode.is_empty() {
        let Some(at) = modules.iter().position(|m| m.name() == "Pooling") else {
            return Err(Error::usage(format!("`{}` has no Pooling module to change", source.display()))
                .with_hint("leave out `model.pooling_mode`"));
        };
        let width = modules[..at].iter().fold(0, |width, m| m.output_dimension(width));
        modules[at] = Box::new(Pooling::new(options.pooling_mode.clone(), width));
    }
    if options.task == TransformerTask::SequenceClassification {
        if options.normalize == Some(true) {
            return Err(Error::usage("`model.normalize` is for embeddings, and a CrossEncoder has none")
                .with_hint("leave it out"));
        }
        return Ok(());
    }
    match options.normalize {
        Some(true) if options.task == TransformerTask::TokenEmbeddings => {
            let there = modules.iter().any(|m| m.name() == "Normalize");
            modules.extend((!there).then(|| Box::new(Normalize::of_tokens()) as Box<dyn Module>));
        }
        Some(true) if modules.last().is_some_and(|m| m.name() != "Normalize") => {
            modules.push(Box::new(Normalize::new()))
        }
        Some(false) => {
            modules.retain(|m| m.name() != "Normalize");
            modules.iter_mut().for_each(|m| m.drop_normalize());
        }
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
