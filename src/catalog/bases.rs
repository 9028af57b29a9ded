//! What is a good model to start from? Published ones whose networks can be trained here, and what is known of them.
//!
//! Facts are those of the models' cards and configuration files on the Hub, and all have their weights as safetensors
//! there without a form to sign, so that a run can fetch and load them. The list is short on purpose: one or two of a
//! size, language and use, the first being the one to take.

use crate::flow::ModelType;
use crate::model::facts::Facts;

/// A published model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// Its id on the Hub.
    pub id: &'static str,
    /// What it was trained to be; `None` of a network that was taught a language only.
    pub model_type: Option<ModelType>,
    pub languages: Languages,
    /// In millions.
    pub parameters: u32,
    pub layers: usize,
    pub hidden: usize,
    pub inner: usize,
    pub vocabulary: usize,
    /// Tokens it reads of a text.
    pub max_seq_length: usize,
    pub licence: &'static str,
    /// In front of queries and of documents; empty for none.
    pub prompts: [&'static str; 2],
}

/// Which languages a model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Languages {
    English,
    Many,
}

const DENSE: Option<ModelType> = Some(ModelType::SentenceTransformer);
const PAIRS: Option<ModelType> = Some(ModelType::CrossEncoder);
const SPARSE: Option<ModelType> = Some(ModelType::SparseEncoder);
const LATE: Option<ModelType> = Some(ModelType::MultiVectorEncoder);
use Languages::{English, Many};

/// `layers`, `hidden`, `inner`, `vocabulary`.
type Size = (usize, usize, usize, usize);
const MINI_6: Size = (6, 384, 1536, 30_522);
const MINI_12: Size = (12, 384, 1536, 30_522);
const MINI_12_MANY: Size = (12, 384, 1536, 250_037);
const BASE: Size = (12, 768, 3072, 30_522);
const BASE_MANY: Size = (12, 768, 3072, 250_002);
const LARGE_MANY: Size = (24, 1024, 4096, 250_002);
const MODERN: Size = (22, 768, 1152, 50_368);
const NONE: [&str; 2] = ["", ""];
const E5: [&str; 2] = ["query: ", "passage: "];
const BGE: [&str; 2] = ["Represent this sentence for searching relevant passages: ", ""];

const fn model(
    id: &'static str,
    model_type: Option<ModelType>,
    languages: Languages,
    parameters: u32,
    (layers, hidden, inner, vocabulary): Size,
    max_seq_length: usize,
    (licence, prompts): (&'static str, [&'static str; 2]),
) -> Published {
    Published {
        id,
        model_type,
        languages,
        parameters,
        layers,
        hidden,
        inner,
        vocabulary,
        max_seq_length,
        licence,
        prompts,
    }
}

const APACHE: &str = "apache-2.0";
const MIT: &str = "mit";

/// The list; within a type and language the one to take first.
#[rustfmt::skip]
pub const PUBLISHED: &[Published] = &[
    model("sentence-transformers/all-MiniLM-L6-v2", DENSE, English, 23, MINI_6, 256, (APACHE, NONE)),
    model("BAAI/bge-small-en-v1.5", DENSE, English, 33, MINI_12, 512, (MIT, BGE)),
    model("sentence-transformers/all-mpnet-base-v2", DENSE, English, 109, (12, 768, 3072, 30_527), 384, (APACHE, NONE)),
    model("BAAI/bge-base-en-v1.5", DENSE, English, 109, BASE, 512, (MIT, BGE)),
    model("Alibaba-NLP/gte-modernbert-base", DENSE, English, 149, MODERN, 8192, (APACHE, NONE)),
    model("intfloat/multilingual-e5-small", DENSE, Many, 118, MINI_12_MANY, 512, (MIT, E5)),
    model("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", DENSE, Many, 118, MINI_12_MANY, 128, (APACHE, NONE)),
    model("intfloat/multilingual-e5-base", DENSE, Many, 278, BASE_MANY, 512, (MIT, E5)),
    model("Alibaba-NLP/gte-multilingual-base", DENSE, Many, 305, (12, 768, 3072, 250_048), 8192, (APACHE, NONE)),

    model("cross-encoder/ms-marco-MiniLM-L6-v2", PAIRS, English, 23, MINI_6, 512, (APACHE, NONE)),
    model("cross-encoder/ms-marco-MiniLM-L12-v2", PAIRS, English, 33, MINI_12, 512, (APACHE, NONE)),
    model("Alibaba-NLP/gte-reranker-modernbert-base", PAIRS, English, 149, MODERN, 8192, (APACHE, NONE)),
    model("cross-encoder/mmarco-mMiniLMv2-L12-H384-v1", PAIRS, Many, 118, MINI_12_MANY, 512, (APACHE, NONE)),
    model("BAAI/bge-reranker-v2-m3", PAIRS, Many, 568, LARGE_MANY, 8192, (APACHE, NONE)),

    model("opensearch-project/opensearch-neural-sparse-encoding-v2-distill", SPARSE, English, 67, (6, 768, 3072, 30_522), 512, (APACHE, NONE)),

    model("answerdotai/answerai-colbert-small-v1", LATE, English, 33, MINI_12, 512, (APACHE, NONE)),
    model("lightonai/GTE-ModernColBERT-v1", LATE, English, 149, MODERN, 8192, (APACHE, NONE)),
    model("colbert-ir/colbertv2.0", LATE, English, 110, BASE, 512, (MIT, NONE)),

    model("distilbert/distilbert-base-uncased", None, English, 66, (6, 768, 3072, 30_522), 512, (APACHE, NONE)),
    model("google-bert/bert-base-uncased", None, English, 110, BASE, 512, (APACHE, NONE)),
    model("answerdotai/ModernBERT-base", None, English, 149, MODERN, 8192, (APACHE, NONE)),
    model("FacebookAI/xlm-roberta-base", None, Many, 278, BASE_MANY, 512, (MIT, NONE)),
];

/// A model to start from, published or on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// An id or a folder.
    pub name: String,
    /// What it was trained to be; `None` of a network that was taught a language only, and of an unknown one.
    pub model_type: Option<ModelType>,
    pub is_static: bool,
    /// Numbers in its weights; 0 where it is not known.
    pub parameters: u64,
    pub layers: usize,
    pub hidden: usize,
    pub inner: usize,
    pub vocabulary: usize,
    pub max_seq_length: Option<usize>,
    pub similarity: Option<String>,
    /// In front of queries and of documents.
    pub prompts: [String; 2],
    pub licence: Option<&'static str>,
}

impl From<&Published> for Base {
    fn from(known: &Published) -> Self {
        Self {
            name: known.id.to_owned(),
            model_type: known.model_type,
            is_static: false,
            parameters: u64::from(known.parameters) * 1_000_000,
            layers: known.layers,
            hidden: known.hidden,
            inner: known.inner,
            vocabulary: known.vocabulary,
            max_seq_length: Some(known.max_seq_length),
            similarity: None,
            prompts: known.prompts.map(str::to_owned),
            licence: Some(known.licence),
        }
    }
}

impl Base {
    /// A model on disk.
    #[must_use]
    pub fn of(name: &str, facts: Facts) -> Self {
        let prompt = |names: &[&str]| names.iter().find_map(|n| facts.prompts.get(*n)).cloned().unwrap_or_default();
        Self {
            name: name.to_owned(),
            model_type: facts.model_type,
            is_static: facts.is_static,
            parameters: facts.parameters,
            layers: facts.layers,
            hidden: facts.hidden,
            inner: facts.inner,
            vocabulary: facts.vocabulary,
            max_seq_length: facts.max_seq_length,
            similarity: facts.similarity_fn_name.clone(),
            prompts: [prompt(&["query"]), prompt(&["document", "passage"])],
            licence: None,
        }
    }

    /// A model of which nothing but the name is known: sizes are those of BERT's base.
    #[must_use]
    pub fn unknown(name: &str) -> Self {
        let (layers, hidden, inner, vocabulary) = BASE;
        Self {
            name: name.to_owned(),
            model_type: None,
            is_static: false,
            parameters: 110_000_000,
            layers,
            hidden,
            inner,
            vocabulary,
            max_seq_length: None,
            similarity: None,
            prompts: Default::default(),
            licence: None,
        }
    }

    /// Values a token leaves behind in a training pass, as the networks count them.
    #[must_use]
    pub fn activations(&self) -> usize {
        self.layers * (6 * self.hidden + self.inner) + 8 * self.hidden + self.inner
    }
}

/// The published model with an id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Published> {
    PUBLISHED.iter().find(|known| known.id == id)
}

/// Models to start from, the first to take: of the type, else networks that become one; of the languages of the data.
#[must_use]
pub fn suggest(model_type: ModelType, english: bool) -> Vec<&'static Published> {
    let languages = if english { English } else { Many };
    let of = |wanted: Option<ModelType>| {
        PUBLISHED.iter().filter(move |known| known.model_type == wanted && known.languages == languages)
    };
    let fresh: Vec<&Published> = match model_type {
        // a bi-encoder's network, its projection or head being new
        ModelType::MultiVectorEncoder | ModelType::CrossEncoder => of(DENSE).take(1).chain(of(None)).collect(),
        _ => of(None).collect(),
    };
    of(Some(model_type)).chain(fresh).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_type_and_language_has_one() {
        for model_type in super::super::choose::TYPES {
            for english in [true, false] {
                let found = suggest(model_type, english);
                assert!(!found.is_empty(), "{model_type} {english}");
                assert!(found.iter().all(|known| (known.languages == English) == english));
            }
        }
    }

    #[test]
    fn facts_are_plausible() {
        for known in PUBLISHED {
            assert!(crate::hub::is_id(known.id), "{}", known.id);
            // words, and layers of four matrices of attention and two or three of the feed-forward half
            let (h, i) = (known.hidden, known.inner);
            let least = known.vocabulary * h + known.layers * (4 * h * h + 2 * h * i);
            let most = least + known.layers * h * i + 1024 * h + 10 * h * h;
            let given = known.parameters as usize * 1_000_000;
            assert!(given > least * 9 / 10 && given < most * 11 / 10, "{}: {least} to {most}", known.id);
            assert_eq!(find(known.id).unwrap().id, known.id);
        }
    }
}
