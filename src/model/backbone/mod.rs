//! Which networks turn a packed token stream into hidden states?
//!
//! A backbone is chosen by `model_type` in config.json.

mod bert;
mod bert_like;
mod borrowed;
mod deberta;
mod distances;
mod distilbert;
mod electra;
mod gte;
mod llama_like;
mod loader;
mod modernbert;
mod mpnet;
mod nomic;
pub mod prune;
mod roberta;
mod rotary_bert;
mod t5;

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde_json::Value;

use self::bert_like::{BertLike, Family};
use self::llama_like::LlamaLike;
pub use self::loader::Tensors;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::flow::PackedBatch;
use crate::ops::{Activation, Context, Param};
use crate::util::files;
use crate::util::seed::Rng;

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

    /// What became of the checkpoint's tensors.
    fn tensors(&self) -> &Tensors;

    /// The same, to change.
    fn tensors_mut(&mut self) -> &mut Tensors;

    /// Every parameter with its name in the checkpoint.
    fn params(&self) -> Vec<(String, Arc<Param>)> {
        self.tensors().named.clone()
    }

    /// The rows of its tables that a pass over `batch` reads.
    fn rows(&self, batch: &PackedBatch) -> Vec<(Arc<Param>, Vec<u32>)>;

    /// Tensors of the checkpoint that the network does not use (a pooler, a classifier), in f32; saved again.
    fn unused(&self) -> &[(String, Tensor)] {
        &self.tensors().unused
    }

    /// The same for a head, which saves those that it uses.
    fn take_unused(&mut self) -> Vec<(String, Tensor)> {
        std::mem::take(&mut self.tensors_mut().unused)
    }

    /// Puts back what was not taken out of them.
    fn put_unused(&mut self, unused: Vec<(String, Tensor)>) {
        self.tensors_mut().unused = unused;
    }

    /// The table of the words' embeddings, `[words, width]`, which a head may share; `None` where it is not such.
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

    /// From now on a layer keeps its input alone in passes that will be differentiated, and is computed again for its
    /// gradient.
    ///
    /// # Errors
    /// When the architecture's layers cannot.
    fn set_checkpointing(&mut self) -> Result<()> {
        Err(Error::usage("`args.gradient_checkpointing`: layers of this architecture are not computed twice").with_hint(
            "leave it out; batches in parts need less memory, too: `args.gradient_cache_tokens = 8192`, or a loss named \
             `Cached...` with a small `mini_batch_size`",
        ))
    }

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

/// An architecture that can be loaded.
pub struct Architecture {
    /// `model_type` of config.json.
    pub model_type: &'static str,
    /// What the names of its classes in transformers begin with.
    pub class: &'static str,
    /// Stands before the network's names in the weights of a model with a head.
    pub prefix: &'static str,
    network: Network,
}

impl Architecture {
    /// Whether its networks have gradients here.
    #[must_use]
    pub const fn is_trained(&self) -> bool {
        !matches!(self.network, Network::JinaBert)
    }
}

enum Network {
    BertLike(&'static Family, fn(&Value) -> Result<bert_like::Config>),
    Deberta,
    RotaryBert(&'static rotary_bert::Family, fn(&Value) -> Result<rotary_bert::Config>),
    LlamaLike(&'static llama_like::Family),
    ModernBert,
    T5,
    /// Computed by candle-transformers, not trained.
    JinaBert,
}

/// Says `bert` in its config.json, and that its positions are `alibi`.
const JINA_BERT: &str = "jina_bert";

const ROBERTA: Network = Network::BertLike(&roberta::FAMILY, roberta::config);

/// Every architecture.
pub const SUPPORTED: &[Architecture] = &[
    Architecture {
        model_type: "bert",
        class: "Bert",
        prefix: "bert.",
        network: Network::BertLike(&bert::FAMILY, bert::config),
    },
    Architecture { model_type: "camembert", class: "Camembert", prefix: "roberta.", network: ROBERTA },
    Architecture { model_type: "deberta-v2", class: "DebertaV2", prefix: "deberta.", network: Network::Deberta },
    Architecture {
        model_type: "distilbert",
        class: "DistilBert",
        prefix: "distilbert.",
        network: Network::BertLike(&distilbert::FAMILY, distilbert::config),
    },
    Architecture {
        model_type: "electra",
        class: "Electra",
        prefix: "electra.",
        network: Network::BertLike(&electra::FAMILY, electra::config),
    },
    Architecture {
        model_type: "gte",
        class: "Gte",
        prefix: "gte.",
        network: Network::RotaryBert(&gte::FAMILY, gte::config),
    },
    Architecture {
        model_type: "gemma3_text",
        class: "Gemma3Text",
        prefix: "model.",
        network: Network::LlamaLike(&llama_like::GEMMA3),
    },
    Architecture { model_type: JINA_BERT, class: "JinaBert", prefix: "bert.", network: Network::JinaBert },
    Architecture {
        model_type: "llama",
        class: "Llama",
        prefix: "model.",
        network: Network::LlamaLike(&llama_like::LLAMA),
    },
    Architecture {
        model_type: "mistral",
        class: "Mistral",
        prefix: "model.",
        network: Network::LlamaLike(&llama_like::MISTRAL),
    },
    Architecture { model_type: "modernbert", class: "ModernBert", prefix: "model.", network: Network::ModernBert },
    Architecture {
        model_type: "mpnet",
        class: "MPNet",
        prefix: "mpnet.",
        network: Network::BertLike(&mpnet::FAMILY, mpnet::config),
    },
    Architecture {
        model_type: "new",
        class: "New",
        prefix: "new.",
        network: Network::RotaryBert(&gte::FAMILY, gte::new_config),
    },
    Architecture {
        model_type: "nomic_bert",
        class: "NomicBert",
        prefix: "nomic_bert.",
        network: Network::RotaryBert(&nomic::FAMILY, nomic::config),
    },
    Architecture {
        model_type: "qwen2",
        class: "Qwen2",
        prefix: "model.",
        network: Network::LlamaLike(&llama_like::QWEN2),
    },
    Architecture {
        model_type: "qwen3",
        class: "Qwen3",
        prefix: "model.",
        network: Network::LlamaLike(&llama_like::QWEN3),
    },
    Architecture { model_type: "roberta", class: "Roberta", prefix: "roberta.", network: ROBERTA },
    Architecture { model_type: "t5", class: "T5", prefix: "", network: Network::T5 },
    Architecture { model_type: "xlm-roberta", class: "XLMRoberta", prefix: "roberta.", network: ROBERTA },
];

/// The architecture that `config` names; `place` is where that stands.
///
/// # Errors
/// When it is not supported; the message lists those that are.
pub fn architecture(config: &Value, place: &str) -> Result<&'static Architecture> {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or("");
    let name = match text("model_type") {
        "bert" if text("position_embedding_type") == "alibi" => JINA_BERT,
        name => name,
    };
    SUPPORTED.iter().find(|a| a.model_type == name).ok_or_else(|| {
        let error = Error::model(format!("`{place}`: models of type `{name}` are not supported"));
        if name.is_empty() {
            return error.with_hint("config.json has no `model_type`; is this a transformers model?");
        }
        let known: Vec<String> = SUPPORTED.iter().map(|a| format!("`{}`", a.model_type)).collect();
        error.with_hint(format!("supported are {}; choose a base model of one of these", known.join(", ")))
    })
}

/// Says in the keys of transformers what a configuration says in others that an architecture had before.
pub fn complete(config: &mut Value) {
    if config.get("model_type").and_then(Value::as_str) == Some("nomic_bert") {
        nomic::complete(config);
    }
}

/// Whether config.json says yes to a key; the second part is what it means without the key.
#[must_use]
pub fn flag(config: &Value, (key, default): (&str, bool)) -> bool {
    config.get(key).and_then(Value::as_bool).unwrap_or(default)
}

/// The activation that config.json's `key` names.
///
/// # Errors
/// For one that is not supported.
pub fn activation(key: &str, name: &str) -> Result<Activation> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => Err(Error::model(format!("`{key}` is `{other}`"))
            .with_hint("supported activations are `gelu`, `gelu_new`, `gelu_pytorch_tanh`, `relu` and `silu`")),
    }
}

/// Loads the network in `directory` onto `device`; returns it with its config.json.
///
/// # Errors
/// When the architecture is not supported (the message lists those that are), or files are missing or broken.
pub fn load(directory: &Path, prefix: &str, device: &Device) -> Result<(Box<dyn Backbone>, Value)> {
    load_layers(directory, prefix, device, None)
}

/// As [`load`], with some of the layers only where `keep` names them.
///
/// # Errors
/// As there, and when the network has no such layers or cannot do without the others.
pub fn load_layers(
    directory: &Path,
    prefix: &str,
    device: &Device,
    keep: Option<&[usize]>,
) -> Result<(Box<dyn Backbone>, Value)> {
    let file = directory.join("config.json");
    if !file.exists() {
        return Err(Error::model(format!("no config.json in `{}`", directory.display()))
            .with_hint("give a model directory that sentence-transformers or transformers saved"));
    }
    let mut config: Value = serde_json::from_str(&files::read_text(&file)?)
        .map_err(|e| Error::model(format!("`{}` is not JSON: {e}", file.display())))?;
    complete(&mut config);
    let shown = file.display().to_string();
    let choice = keep.map(|keep| prune::Choice::new(&config, &shown, keep)).transpose()?;
    if let Some(choice) = &choice {
        config = choice.config(&config).map_err(|e| e.within(format!("`{shown}`")))?;
    }
    let weights = || {
        let mut weights = Weights::load(directory, device)?;
        choice.iter().for_each(|choice| choice.weights(&mut weights));
        Ok(weights)
    };
    let network = build(&config, &shown, prefix, weights)?;
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
    let architecture = architecture(config, place)?;
    let within = |e: Error| e.within(format!("`{place}`"));
    let open = || -> Result<Weights> {
        let mut weights = weights()?;
        weights.strip_prefix(architecture.prefix);
        Ok(weights)
    };
    Ok(match architecture.network {
        Network::BertLike(family, read) => {
            let config = read(config).map_err(within)?;
            Box::new(BertLike::load(family, config, open()?, prefix)?)
        }
        Network::Deberta => {
            let config = deberta::Config::read(config).map_err(within)?;
            Box::new(deberta::Deberta::load(config, open()?, prefix)?)
        }
        Network::JinaBert => {
            let weights = open()?;
            let device = weights.device().clone();
            Box::new(borrowed::JinaBert::load(config, weights, &device).map_err(within)?)
        }
        Network::LlamaLike(family) => {
            let config = llama_like::Config::read(config, family).map_err(within)?;
            Box::new(LlamaLike::load(family, config, open()?, prefix)?)
        }
        Network::T5 => {
            let config = t5::Config::read(config).map_err(within)?;
            Box::new(t5::T5Encoder::load(config, open()?, prefix)?)
        }
        Network::ModernBert => {
            let config = modernbert::Config::read(config).map_err(within)?;
            Box::new(modernbert::ModernBert::load(config, open()?, prefix)?)
        }
        Network::RotaryBert(family, read) => {
            let config = read(config).map_err(within)?;
            Box::new(rotary_bert::RotaryBert::load(family, config, open()?, prefix)?)
        }
    })
}
