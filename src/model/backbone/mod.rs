//! Which networks turn a packed token stream into hidden states?
//!
//! A backbone is chosen by `model_type` in config.json.

pub mod bert;

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde_json::Value;

use super::weights::Weights;
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::ops::{Context, Param};
use crate::util::seed::Rng;
use crate::util::{files, suggest};

/// A network from packed tokens to hidden states.
pub trait Backbone: Send + Sync {
    /// `[tokens, hidden]`: the last layer's hidden state of every token.
    ///
    /// # Errors
    /// When a sequence is longer than the network has positions for, or an id is not in its vocabulary.
    fn forward(&self, batch: &PackedBatch, context: &Context) -> Result<Tensor>;

    /// The embedding layer's hidden states, then every layer's; the last are those of [`Backbone::forward`].
    ///
    /// # Errors
    /// As there, and when the architecture has no such thing.
    fn forward_layers(&self, batch: &PackedBatch, context: &Context) -> Result<Vec<Tensor>> {
        let _ = (batch, context);
        Err(Error::model("this architecture gives its last layer only")
            .with_hint("take `output_hidden_states` out of config.json, and WeightedLayerPooling out of modules.json"))
    }

    /// The hidden states after so many layers each, 0 for the embedding layer's; then the last layer's.
    ///
    /// # Errors
    /// As [`Backbone::forward_layers`].
    fn forward_some(&self, batch: &PackedBatch, layers: &[usize], context: &Context) -> Result<Vec<Tensor>> {
        let all = self.forward_layers(batch, context)?;
        layers
            .iter()
            .map(|layer| all.get(*layer))
            .chain([all.last()])
            .map(|state| state.cloned())
            .collect::<Option<_>>()
            .ok_or_else(|| Error::Internal(format!("layers {layers:?} of {}", self.layers())))
    }

    /// Every parameter with its name in the checkpoint.
    fn params(&self) -> Vec<(String, Arc<Param>)>;

    /// The rows of its tables that a pass over `batch` reads.
    fn rows(&self, batch: &PackedBatch) -> Vec<(Arc<Param>, Vec<u32>)>;

    /// Tensors of the checkpoint that the network does not use (a pooler, a classifier), in f32; saved again.
    fn unused(&self) -> &[(String, Tensor)];

    /// The same for a head, which saves those that it uses.
    fn take_unused(&mut self) -> Vec<(String, Tensor)>;

    /// Puts back what was not taken out of them.
    fn put_unused(&mut self, unused: Vec<(String, Tensor)>);

    /// The table of the words' embeddings, `[words, hidden]`, which a head may share; `None` where it is not such.
    fn word_embeddings(&self) -> Option<&Arc<Param>> {
        None
    }

    /// Width of the hidden states.
    fn hidden_size(&self) -> usize;

    /// How many layers.
    fn layers(&self) -> usize;

    /// Values a token leaves behind in a forward pass that is to be differentiated.
    fn activation_floats(&self) -> usize;

    /// Most positions a sequence may have; `None` for no limit.
    fn max_positions(&self) -> Option<usize>;

    /// Replaces every dropout probability.
    fn set_dropout(&mut self, probability: f64);

    /// A decoder with the network's parameters; those that only a decoder has are those of the checkpoint, or new ones
    /// drawn from `rng`, and their names begin with `prefix`.
    ///
    /// # Errors
    /// When the architecture cannot be one.
    fn decoder(&self, prefix: &str, rng: Rng) -> Result<Box<dyn Decoder>> {
        let _ = (prefix, rng);
        Err(Error::model("this architecture cannot be a decoder").with_hint("BERT models can"))
    }
}

/// A network that writes texts from sentence embeddings.
pub trait Decoder: Send + Sync {
    /// The mean over the tokens of `texts`, the first of each left out, of their negative log-probability given those
    /// before them and the text's sentence embedding.
    ///
    /// # Shapes
    /// `sentence` `[texts, hidden]`; the result is a scalar.
    ///
    /// # Errors
    /// When a text has more tokens than the network has positions for, or no text has two tokens.
    fn cross_entropy(&self, sentence: &Tensor, texts: &PackedBatch, context: &Context) -> Result<Tensor>;

    /// The parameters that it does not share with the network it was made of.
    fn own_params(&self) -> Vec<Arc<Param>>;

    /// The tables of which a pass reads every row.
    fn whole_tables(&self) -> Vec<Arc<Param>>;

    /// Values a token leaves behind in a pass that is to be differentiated.
    fn activation_floats(&self) -> usize;
}

/// The `model_type`s that can be loaded.
pub const SUPPORTED: &[&str] = &["bert"];

/// Loads the network in `directory` onto `device`; returns it with its config.json.
///
/// # Errors
/// When the architecture is not supported (the message lists those that are), or files are missing or broken.
pub fn load(directory: &Path, prefix: &str, device: &Device) -> Result<(Box<dyn Backbone>, Value)> {
    let file = directory.join("config.json");
    if !file.exists() {
        return Err(Error::model(format!("no config.json in `{}`", directory.display()))
            .with_hint("give a model directory that sentence-transformers or transformers saved"));
    }
    let config: Value = serde_json::from_str(&files::read_text(&file)?)
        .map_err(|e| Error::model(format!("`{}` is not JSON: {e}", file.display())))?;
    let shown = file.display().to_string();
    let network = build(&config, &shown, prefix, || Weights::load(directory, device))?;
    Ok((network, config))
}

/// The network that `config`, which stands in `place`, describes, with weights that are asked for once it is known to
/// be supported.
///
/// # Errors
/// As [`load`].
pub fn build(
    config: &Value,
    place: &str,
    prefix: &str,
    weights: impl FnOnce() -> Result<Weights>,
) -> Result<Box<dyn Backbone>> {
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or("");
    let context = |e: serde_json::Error| Error::model(format!("`{place}`: {e}"));
    match model_type {
        "bert" => {
            let parsed: bert::Config = serde_json::from_value(config.clone()).map_err(context)?;
            parsed.validate().map_err(|e| e.within(format!("`{place}`")))?;
            Ok(Box::new(bert::Bert::load(parsed, weights()?, prefix)?))
        }
        other => Err(Error::model(format!("`{place}`: models of type `{other}` are not supported")).with_hint(
            match suggest::nearest(other, SUPPORTED.iter().copied()) {
                _ if other.is_empty() => "config.json has no `model_type`; is this a transformers model?".to_owned(),
                _ => format!(
                    "supported are {}; choose a base model of one of these",
                    SUPPORTED.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", ")
                ),
            },
        )),
    }
}
