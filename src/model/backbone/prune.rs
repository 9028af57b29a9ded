//! How is a smaller network made of a larger one: of some of its layers, and all that is in no layer?
//!
//! As sentence-transformers' examples of distillation make a student (`layers_to_keep`, `num_hidden_layers`). What is
//! left computes something else than the whole did, until it is trained on what that gave.

use serde_json::Value;

use super::{llama_like, modernbert};
use crate::error::{Error, Result};
use crate::model::weights::Weights;

/// Changes config.json before all layers but those named are dropped.
type Rule = fn(&mut Value, &[usize]) -> Result<()>;

/// Where an architecture keeps its layers.
struct Layers {
    /// `model_type`s of config.json.
    model_types: &'static [&'static str],
    /// The key of config.json that has their number.
    count: &'static str,
    /// One of these stands before a layer's number in the names of its weights, behind what stands before the whole
    /// network.
    stems: &'static [&'static str],
    /// Why the first one has to stay, where it is not like the others.
    first: Option<&'static str>,
    /// Changes what config.json says of layers by a rule, before any are dropped.
    rule: Option<Rule>,
}

const LAYERS: &[Layers] = &[
    Layers {
        model_types: &["bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "jina_bert", "deberta-v2"],
        count: "num_hidden_layers",
        stems: &["encoder.layer."],
        first: None,
        rule: None,
    },
    Layers { model_types: &["distilbert"], count: "n_layers", stems: &["transformer.layer."], first: None, rule: None },
    Layers {
        model_types: &["llama", "mistral", "qwen2", "qwen3", "gemma3_text"],
        count: "num_hidden_layers",
        stems: &["layers."],
        first: None,
        rule: Some(llama_like::keep_layer_types),
    },
    Layers {
        model_types: &["nomic_bert", "gte", "new"],
        count: "num_hidden_layers",
        stems: &["layers.", "encoder.layers.", "encoder.layer."],
        first: None,
        rule: None,
    },
    Layers {
        model_types: &["t5"],
        count: "num_layers",
        stems: &["encoder.block."],
        first: Some("it has the table of distances that the others use"),
        rule: None,
    },
    Layers {
        model_types: &["modernbert"],
        count: "num_hidden_layers",
        stems: &["layers."],
        first: Some("it has no normalisation before its attention, and the others do"),
        rule: Some(modernbert::keep_layer_types),
    },
];

/// Keys of config.json with an entry for each layer.
const LISTS: [&str; 1] = ["layer_types"];

/// What is wrong with a choice of layers whatever the network, and the way out.
#[must_use]
pub fn problem(keep: &[usize]) -> Option<(String, String)> {
    if keep.is_empty() {
        return Some(("is an empty list".to_owned(), "name the layers to keep, as `[0, 3, 6, 9]`".to_owned()));
    }
    let pair = keep.windows(2).find(|pair| pair[0] >= pair[1])?;
    let mut sorted = keep.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let what = match pair {
        [a, b] if a == b => format!("names layer {a} twice"),
        [a, b] => format!("has layer {b} behind layer {a}: layers stay in the order they have"),
        _ => return None,
    };
    Some((what, format!("write `{sorted:?}`")))
}

/// Some of the layers of a network.
pub struct Choice<'a> {
    layers: &'static Layers,
    /// Stands before the network's names in the weights of a model with a head.
    prefix: &'static str,
    keep: &'a [usize],
}

impl<'a> Choice<'a> {
    /// Checks that the network that `config` describes has these layers and can do without the others; `place` is where
    /// `config` stands.
    ///
    /// # Errors
    /// When it has not or cannot, or `keep` has no layer, one twice, or another order.
    pub fn new(config: &Value, place: &str, keep: &'a [usize]) -> Result<Self> {
        let architecture = super::architecture(config, place)?;
        let refuse = |what: String, hint: String| Error::usage(format!("`keep_layers` {what}")).with_hint(hint);
        if let Some((what, hint)) = problem(keep) {
            return Err(refuse(what, hint));
        }
        let name = architecture.model_type;
        let layers = LAYERS.iter().find(|layers| layers.model_types.contains(&name)).ok_or_else(|| {
            refuse(
                format!("can't be had of a `{name}` network, whose layers depend on each other"),
                "leave it out: the whole network is trained".to_owned(),
            )
        })?;
        let count = config.get(layers.count).and_then(Value::as_u64).unwrap_or(0) as usize;
        if let Some(beyond) = keep.iter().find(|layer| **layer >= count) {
            return Err(refuse(
                format!("names layer {beyond}, and `{place}` has {count}"),
                format!("they are counted from 0 to {}", count.saturating_sub(1)),
            ));
        }
        if let Some(why) = layers.first.filter(|_| keep.first() != Some(&0)) {
            return Err(refuse(
                format!("leaves out layer 0 of a `{name}` network: {why}"),
                "begin with 0, as `[0, 3, 6, 9]`".to_owned(),
            ));
        }
        Ok(Self { layers, prefix: architecture.prefix, keep })
    }

    /// config.json of the smaller network.
    ///
    /// # Errors
    /// When what it says of its layers makes no sense.
    pub fn config(&self, config: &Value) -> Result<Value> {
        let mut config = config.clone();
        if let Some(rule) = self.layers.rule {
            rule(&mut config, self.keep)?;
        }
        for key in LISTS {
            if let Some(Value::Array(all)) = config.get_mut(key) {
                *all = self.keep.iter().filter_map(|layer| all.get(*layer).cloned()).collect();
            }
        }
        config[self.layers.count] = self.keep.len().into();
        Ok(config)
    }

    /// Drops the weights of the other layers, and gives those that stay their new numbers.
    pub fn weights(&self, weights: &mut Weights) {
        weights.rename(|name| {
            let inner = name.strip_prefix(self.prefix).unwrap_or(&name);
            let found = self.layers.stems.iter().find_map(|stem| Some((stem, inner.strip_prefix(stem)?)));
            let Some((stem, (number, rest))) = found.and_then(|(stem, rest)| Some((stem, rest.split_once('.')?)))
            else {
                return Some(name);
            };
            let Ok(number) = number.parse::<usize>() else { return Some(name) };
            let outer = name.strip_suffix(inner).unwrap_or_default();
            let place = self.keep.iter().position(|layer| *layer == number)?;
            Some(format!("{outer}{stem}{place}.{rest}"))
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::backbone::SUPPORTED;

    #[test]
    fn every_architecture_has_its_layers_somewhere() {
        for architecture in SUPPORTED {
            let found = LAYERS.iter().filter(|layers| layers.model_types.contains(&architecture.model_type)).count();
            assert_eq!(found, 1, "`{}` needs a line in `LAYERS`", architecture.model_type);
        }
    }

    #[test]
    fn a_choice_that_makes_no_sense_is_told() {
        let bert = json!({"model_type": "bert", "num_hidden_layers": 4});
        let modern = json!({"model_type": "modernbert", "num_hidden_layers": 4});
        for (config, keep, message, hint) in [
            (&bert, &[][..], "`keep_layers` is an empty list", "name the layers to keep, as `[0, 3, 6, 9]`"),
            (&bert, &[1, 3, 3], "`keep_layers` names layer 3 twice", "write `[1, 3]`"),
            (
                &bert,
                &[2, 0],
                "`keep_layers` has layer 0 behind layer 2: layers stay in the order they have",
                "write `[0, 2]`",
            ),
            (&bert, &[0, 4], "`keep_layers` names layer 4, and `c` has 4", "they are counted from 0 to 3"),
            (
                &modern,
                &[1, 3],
                "`keep_layers` leaves out layer 0 of a `modernbert` network: it has no normalisation before its \
                 attention, and the others do",
                "begin with 0, as `[0, 3, 6, 9]`",
            ),
        ] {
            let error = Choice::new(config, "c", keep).err().unwrap();
            assert_eq!((error.to_string().as_str(), error.hint()), (message, Some(hint)), "{keep:?}");
        }
    }
}
