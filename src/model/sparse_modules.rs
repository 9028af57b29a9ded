//! What a recipe adds to the modules of a sparse model: queries without a network, or an autoencoder.

use std::path::Path;

use candle_core::Tensor;
use serde_json::{Value, json};

use super::module::router::Router;
use super::module::sparse_auto_encoder::{Shape, SparseAutoEncoder};
use super::module::sparse_static_embedding::{self, SparseStaticEmbedding};
use super::module::{Module, chain_width};
use super::options::{AutoencoderOptions, ModelOptions, StaticQueries, StaticWeights};
use super::tokenizer::TextTokenizer;
use super::tokenizer::beside::TokenizerFiles;
use crate::error::{Error, Result};
use crate::util::seed::Rng;

/// What stands before the names of the parameters of module `number`, which may be one of a route that is yet to be.
pub fn prefix(options: &ModelOptions, number: usize) -> String {
    match &options.static_queries {
        Some(_) => format!("{}0.sub_modules.document.{number}.", options.name_prefix),
        None => format!("{}{number}.", options.name_prefix),
    }
}

/// Adds what the options ask for; `folder` has the tokenizer's files.
///
/// # Errors
/// When the model has it already, or it does not fit.
pub fn add(modules: &mut Vec<Box<dyn Module>>, options: &ModelOptions, folder: &Path) -> Result<()> {
    if let Some(autoencoder) = &options.autoencoder {
        let module = autoencoder_of(modules, *autoencoder, options)?;
        modules.push(Box::new(module));
    }
    if let Some(queries) = &options.static_queries {
        let static_embedding = queries_of(modules, queries, options, folder)?;
        let router = Router::for_query_document(vec![Box::new(static_embedding)], std::mem::take(modules))?;
        modules.push(Box::new(router));
    }
    Ok(())
}

fn autoencoder_of(
    modules: &[Box<dyn Module>],
    wanted: AutoencoderOptions,
    options: &ModelOptions,
) -> Result<SparseAutoEncoder> {
    if modules.iter().any(|module| module.autoencoder().is_some()) {
        return Err(Error::usage("`model.sparse_auto_encoder`: the base model has one").with_hint("leave it out"));
    }
    let usual = Shape::of(chain_width(modules.iter().map(AsRef::as_ref))?);
    let shape = Shape {
        input_dim: usual.input_dim,
        hidden_dim: wanted.hidden_dim.unwrap_or(usual.hidden_dim),
        k: wanted.k.unwrap_or(usual.k),
        k_aux: wanted.k_aux.unwrap_or(usual.k_aux.min(wanted.hidden_dim.unwrap_or(usual.k_aux))),
        normalize: wanted.normalize.unwrap_or(usual.normalize),
        dead_threshold: wanted.dead_threshold.unwrap_or(usual.dead_threshold),
    };
    let device = options.device.clone().unwrap_or(candle_core::Device::Cpu);
    SparseAutoEncoder::fresh(shape, &prefix(options, modules.len()), Rng::new(options.seed), &device)
}

/// A tokenizer.json that lower-cases where the tokenizer has to be told so: the module has no place to say it.
fn cased(tokenizer: &TextTokenizer) -> Result<Vec<u8>> {
    let json = tokenizer.json();
    if !tokenizer.lower_case() {
        return Ok(json.to_vec());
    }
    let bad = |e: serde_json::Error| Error::model(format!("`{}` is not JSON: {e}", tokenizer.source().display()));
    let mut file: Value = serde_json::from_slice(json).map_err(bad)?;
    let mut steps = vec![json!({"type": "Lowercase"})];
    steps.extend(Some(file["normalizer"].take()).filter(|normalizer| !normalizer.is_null()));
    file["normalizer"] = json!({"type": "Sequence", "normalizers": steps});
    serde_json::to_vec(&file).map_err(bad)
}

fn queries_of(
    modules: &[Box<dyn Module>],
    wanted: &StaticQueries,
    options: &ModelOptions,
    folder: &Path,
) -> Result<SparseStaticEmbedding> {
    let key = "`model.sparse_static_embedding`";
    if modules.iter().any(|module| ["Router", "Asym"].contains(&module.name())) {
        return Err(Error::usage(format!("{key}: the base model has a Router already")).with_hint("leave it out"));
    }
    let tokenizer = modules.first().map(|module| module.tokenizer(None)).transpose()?.flatten();
    let Some(tokenizer) = tokenizer.filter(|_| modules.iter().any(|module| module.name() == "SpladePooling")) else {
        return Err(Error::usage(format!("{key}: the model's documents have no weights of words"))
            .with_hint("it stands beside SPLADE: leave out `[model.sparse_auto_encoder]`"));
    };
    // the same words, without special tokens around the text
    let mut own = TextTokenizer::from_bytes(cased(tokenizer)?, tokenizer.source(), false)?;
    own.set_max_seq_length(tokenizer.limit());
    let device = options.device.clone().unwrap_or(candle_core::Device::Cpu);
    // as many as the network has words: it may have more than the tokenizer
    let words = chain_width(modules.iter().map(AsRef::as_ref))?;
    let weights = match &wanted.weights {
        StaticWeights::Ones => vec![1.0; words],
        StaticWeights::File(file) => sparse_static_embedding::weights_of(file, &own)?,
        StaticWeights::Counted(counting) => {
            let (texts, with) = (counting.0)(&own)?;
            sparse_static_embedding::idf(texts, &with)
        }
    };
    let mut padded = weights;
    padded.resize(words, 0.0);
    let weight = Tensor::from_vec(padded, words, &device)?;
    let prefix = format!("{}0.sub_modules.query.0.", options.name_prefix);
    let files = match folder.is_file() {
        true => TokenizerFiles::read(folder.parent().unwrap_or(folder))?,
        false => TokenizerFiles::read(folder)?,
    };
    SparseStaticEmbedding::of(own, files, &weight, wanted.frozen, &prefix)
}
