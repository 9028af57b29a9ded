//! The catalogue entries of the modules, in the order of [`MODULES`](super::MODULES).

use crate::flow::{Card, ModelType};

const TOKENS: &[&str] = &["token embeddings"];
const SENTENCE: &[&str] = &["a sentence embedding"];
const TEXTS: &[&str] = &["texts"];

const fn card(name: &'static str, summary: &'static str, inputs: &'static [&'static str]) -> Card {
    Card { inputs, columns: (1, 1), ..Card::new(name, summary) }
}

/// One each.
pub const CARDS: &[Card] = &[
    card("Transformer", "A network that gives every token an embedding that depends on the others.", TEXTS),
    Card {
        model_types: &[ModelType::SparseEncoder],
        ..card(
            "SpladePooling",
            "Makes one weight a word of the scores that a network gives every word at each token.",
            TOKENS,
        )
    },
    Card {
        model_types: &[ModelType::SparseEncoder],
        gotchas: &["It knows no words but those of the text, so documents have to be expanded."],
        ..card("SparseStaticEmbedding", "One weight a word, as its idf: queries that need no network.", TEXTS)
    },
    Card {
        model_types: &[ModelType::SparseEncoder],
        gotchas: &["Its dimensions are no words; `k` values of each embedding are active."],
        paper: "https://arxiv.org/abs/2503.01776",
        ..card(
            "SparseAutoEncoder",
            "A wide layer whose largest outputs stay, trained to be turned back (CSR).",
            SENTENCE,
        )
    },
    Card {
        gotchas: &["A prompt's tokens take part unless `include_prompt` is false."],
        ..card(
            "Pooling",
            "Makes one embedding of a text's token embeddings: mean, cls, max and others, or several.",
            TOKENS,
        )
    },
    Card {
        model_types: &[ModelType::MultiVectorEncoder],
        ..card("MultiVectorMask", "Leaves out the vectors of tokens that say nothing, such as punctuation.", TOKENS)
    },
    card("Normalize", "Divides an embedding by its length.", SENTENCE),
    card("Dense", "A linear layer with an activation, often to another width.", SENTENCE),
    card("LayerNorm", "Normalises an embedding's values, then scales and shifts them.", SENTENCE),
    card("Dropout", "Leaves values out at random while training.", SENTENCE),
    Card {
        gotchas: &["It has no idea of word order; it is some hundred times faster than a transformer on a CPU."],
        ..card("StaticEmbedding", "The mean of one trainable vector a token.", TEXTS)
    },
    card("WordEmbeddings", "One vector a word, from a vocabulary of words.", TEXTS),
    card("WordWeights", "Multiplies each word's embedding with a weight of the word's, as its idf.", TOKENS),
    card("BoW", "A text's words counted, one value a word of the vocabulary.", TEXTS),
    Card {
        gotchas: &["A text is always read as if alone, where the reference lets it see the padding of its batch."],
        ..card("CNN", "Convolutions over neighbouring token embeddings, several widths side by side.", TOKENS)
    },
    card("LSTM", "A recurrent network over token embeddings, in one direction or both.", TOKENS),
    Card {
        gotchas: &["The Transformer before it has to give all layers: `output_hidden_states` in its config.json."],
        ..card("WeightedLayerPooling", "A trained average of a transformer's last layers.", TOKENS)
    },
    Card {
        gotchas: &["In training `args.router_mapping` says which route a column takes."],
        ..card("Router", "Sends queries and documents through modules of their own.", TEXTS)
    },
];

#[cfg(test)]
mod tests {
    #[test]
    fn every_module_has_a_card() {
        let cards: Vec<&str> = super::CARDS.iter().map(|card| card.name).collect();
        let other_names = ["Asym", "MLMTransformer"];
        let modules = super::super::supported().into_iter().filter(|name| !other_names.contains(name));
        let modules: Vec<&str> = modules.collect();
        assert_eq!(cards, modules);
    }
}
