//! The variants there are: what each is for, its templates, and the values it begins with.

use std::path::Path;

use crate::error::{Error, Result};
use crate::flow::ModelType;
use crate::util::suggest;

/// A data set on the Hub that a variant begins with where the user names no data.
#[derive(Debug, Clone, Copy)]
pub struct Hub {
    pub id: &'static str,
    pub subset: Option<&'static str>,
    pub split: &'static str,
    /// The split that is held out.
    pub eval_split: &'static str,
    pub columns: &'static [&'static str],
    pub label: Option<&'static str>,
    /// Its loss, where several data sets have one each.
    pub loss: Option<&'static str>,
}

/// What kind of labels a variant's loss learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learns {
    /// From texts that belong together, or whatever labels the data has.
    Data,
    /// From lists of graded texts.
    Lists,
    /// From a teacher's labels.
    Teacher,
    /// From a teacher's embeddings of one of the texts.
    Translations,
}

/// A beginning for a model of one type.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    pub model_type: ModelType,
    pub name: &'static str,
    /// The first line of the file.
    pub title: &'static str,
    /// The names of its templates.
    pub recipe: &'static str,
    pub python: &'static str,
    pub learns: Learns,
    /// Whether negatives are looked for, where rows are pairs.
    pub mines: bool,
    /// The data it begins with; empty where there is none that could be trained on as it is.
    pub hub: &'static [Hub],
    /// The same for a script, which can run a teacher or mine by itself.
    pub script_hub: &'static [Hub],
    pub base: Option<&'static str>,
    /// The model a script learns from or mines with.
    pub teacher: Option<&'static str>,
    pub epochs: u32,
    pub batch: usize,
    pub learning_rate: f64,
    /// What active dimensions of documents and queries cost, of sparse embeddings.
    pub weights: (f64, f64),
}

/// The catalogue's section about them.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "\n## Templates\n\nChosen by `tallow render --model-type TYPE --variant NAME`; each is a recipe and a script.\n\n\
         | type | name | what it writes | begins with |\n|---|---|---|---|\n",
    );
    for variant in VARIANTS {
        let base = variant.base.map_or_else(|| "your model".to_owned(), |base| format!("`{base}`"));
        let (batch, rate, epochs) = (variant.batch, variant.learning_rate, variant.epochs);
        page += &format!(
            "| {} | `{}` | {} | {base}, batches of {batch}, a learning rate of {rate:e}, {epochs} epoch(s) |\n",
            variant.model_type, variant.name, variant.title
        );
    }
    page
}

impl Variant {
    /// What a run is called that has no better name.
    #[must_use]
    pub fn run_name(&self) -> String {
        let kind = match self.model_type {
            ModelType::SentenceTransformer => "sentence-transformer",
            ModelType::CrossEncoder => "cross-encoder",
            ModelType::SparseEncoder => "sparse-encoder",
            ModelType::MultiVectorEncoder => "multi-vector-encoder",
        };
        format!("{kind}-{}", self.name.replace('_', "-"))
    }
}

const NLI: Hub = Hub {
    id: "sentence-transformers/all-nli",
    subset: Some("triplet"),
    split: "train[:100000]",
    eval_split: "dev",
    columns: &["anchor", "positive", "negative"],
    label: None,
    loss: None,
};
const NLI_PAIRS: Hub = Hub { subset: Some("pair"), columns: &["anchor", "positive"], ..NLI };
const NLI_SCORES: Hub =
    Hub { subset: Some("pair-score"), columns: &["sentence1", "sentence2"], label: Some("score"), ..NLI };
const STSB: Hub = Hub {
    id: "sentence-transformers/stsb",
    subset: None,
    split: "train",
    eval_split: "validation",
    columns: &["sentence1", "sentence2"],
    label: Some("score"),
    loss: Some("CoSENTLoss"),
};
const TALKS: Hub = Hub {
    id: "sentence-transformers/parallel-sentences-talks",
    subset: Some("en-de"),
    split: "train[:100000]",
    eval_split: "dev",
    columns: &["english", "non_english"],
    label: None,
    loss: None,
};

/// What most variants of bi-encoders have in common.
const PLAIN: Variant = Variant {
    model_type: ModelType::SentenceTransformer,
    name: "default",
    title: "An embedding model, fine-tuned on your own texts.",
    recipe: "recipe/sentence_transformer_default.toml",
    python: "python/sentence_transformer_default.py",
    learns: Learns::Data,
    mines: false,
    hub: &[NLI],
    script_hub: &[NLI],
    base: Some("sentence-transformers/all-MiniLM-L6-v2"),
    teacher: None,
    epochs: 1,
    batch: 64,
    learning_rate: 2e-5,
    weights: (0.0, 0.0),
};
const RERANKER: Variant = Variant {
    model_type: ModelType::CrossEncoder,
    title: "A reranker: scores of (query, passage) pairs.",
    recipe: "recipe/cross_encoder_default.toml",
    python: "python/cross_encoder_default.py",
    mines: true,
    hub: &[NLI_SCORES],
    script_hub: &[NLI_SCORES],
    base: Some("cross-encoder/ms-marco-MiniLM-L6-v2"),
    teacher: Some("sentence-transformers/all-MiniLM-L6-v2"),
    batch: 32,
    ..PLAIN
};
const SPLADE: Variant = Variant {
    model_type: ModelType::SparseEncoder,
    title: "SPLADE: sparse embeddings over the vocabulary, for an inverted index.",
    recipe: "recipe/sparse_encoder_default.toml",
    python: "python/sparse_encoder_default.py",
    base: Some("distilbert/distilbert-base-uncased"),
    batch: 16,
    weights: (3e-5, 5e-5),
    ..PLAIN
};

/// All variants, those of one type together.
pub static VARIANTS: &[Variant] = &[
    PLAIN,
    Variant {
        name: "matryoshka",
        title: "An embedding model whose embeddings can be cut short afterwards.",
        recipe: "recipe/sentence_transformer_matryoshka.toml",
        python: "python/sentence_transformer_matryoshka.py",
        ..PLAIN
    },
    Variant {
        name: "multi_dataset",
        title: "One embedding model from several data sets, each with a loss of its own.",
        recipe: "recipe/sentence_transformer_multi_dataset.toml",
        python: "python/sentence_transformer_multi_dataset.py",
        hub: &[Hub { loss: Some("MultipleNegativesRankingLoss"), ..NLI }, STSB],
        script_hub: &[Hub { loss: Some("MultipleNegativesRankingLoss"), ..NLI }, STSB],
        batch: 32,
        ..PLAIN
    },
    Variant {
        name: "with_lora",
        title: "An embedding model with adapters (LoRA): the network is frozen, thin matrices are trained.",
        recipe: "recipe/sentence_transformer_with_lora.toml",
        python: "python/sentence_transformer_with_lora.py",
        learning_rate: 2e-4,
        ..PLAIN
    },
    Variant {
        name: "distillation",
        title: "A small embedding model that learns from a better one.",
        recipe: "recipe/sentence_transformer_distillation.toml",
        python: "python/sentence_transformer_distillation.py",
        learns: Learns::Teacher,
        hub: &[],
        script_hub: &[NLI_PAIRS],
        base: Some("sentence-transformers/all-MiniLM-L6-v2"),
        teacher: Some("sentence-transformers/all-MiniLM-L12-v2"),
        learning_rate: 1e-4,
        ..PLAIN
    },
    Variant {
        name: "make_multilingual",
        title: "A model of one language that learns others from translations.",
        recipe: "recipe/sentence_transformer_make_multilingual.toml",
        python: "python/sentence_transformer_make_multilingual.py",
        learns: Learns::Translations,
        hub: &[],
        script_hub: &[TALKS],
        base: Some("FacebookAI/xlm-roberta-base"),
        teacher: Some("sentence-transformers/all-mpnet-base-v2"),
        epochs: 3,
        ..PLAIN
    },
    Variant {
        name: "static_embedding",
        title: "A static embedding: a vector for each token and no network, so it is very fast.",
        recipe: "recipe/sentence_transformer_static_embedding.toml",
        python: "python/sentence_transformer_static_embedding.py",
        base: None,
        batch: 1024,
        learning_rate: 0.2,
        ..PLAIN
    },
    Variant {
        name: "mining",
        title: "An embedding model from pairs alone, with hard negatives that are looked for first.",
        recipe: "recipe/sentence_transformer_mining.toml",
        python: "python/sentence_transformer_mining.py",
        mines: true,
        hub: &[NLI_PAIRS],
        script_hub: &[NLI_PAIRS],
        teacher: Some("sentence-transformers/all-MiniLM-L6-v2"),
        batch: 32,
        ..PLAIN
    },
    RERANKER,
    Variant {
        name: "distillation",
        title: "A small reranker that learns from a better one.",
        recipe: "recipe/cross_encoder_distillation.toml",
        python: "python/cross_encoder_distillation.py",
        learns: Learns::Teacher,
        mines: false,
        hub: &[],
        script_hub: &[NLI],
        base: Some("distilbert/distilbert-base-uncased"),
        teacher: Some("cross-encoder/ms-marco-MiniLM-L12-v2"),
        ..RERANKER
    },
    Variant {
        name: "listwise",
        title: "A reranker that learns the order of lists of passages.",
        recipe: "recipe/cross_encoder_listwise.toml",
        python: "python/cross_encoder_listwise.py",
        learns: Learns::Lists,
        hub: &[],
        script_hub: &[NLI_PAIRS],
        batch: 16,
        ..RERANKER
    },
    SPLADE,
    Variant {
        name: "distillation",
        title: "SPLADE that learns from a reranker.",
        recipe: "recipe/sparse_encoder_distillation.toml",
        python: "python/sparse_encoder_distillation.py",
        learns: Learns::Teacher,
        hub: &[],
        teacher: Some("cross-encoder/ms-marco-MiniLM-L6-v2"),
        weights: (0.08, 0.1),
        ..SPLADE
    },
    Variant {
        model_type: ModelType::MultiVectorEncoder,
        title: "ColBERT: a vector for each token, compared by MaxSim.",
        recipe: "recipe/multi_vector_encoder_default.toml",
        python: "python/multi_vector_encoder_default.py",
        base: Some("answerdotai/ModernBERT-base"),
        batch: 32,
        learning_rate: 3e-5,
        ..PLAIN
    },
];

/// The variant called `name` (`-` or `_` alike) of models of a type.
///
/// # Errors
/// When there is none, with the names there are.
pub fn find(model_type: ModelType, name: &str) -> Result<&'static Variant> {
    let wanted = name.replace('-', "_");
    let own = || VARIANTS.iter().filter(move |v| v.model_type == model_type);
    own().find(|v| v.name == wanted).ok_or_else(|| {
        let names: Vec<&str> = own().map(|v| v.name).collect();
        let elsewhere = VARIANTS.iter().find(|v| v.name == wanted);
        let hint = match elsewhere {
            Some(other) => format!("it is one of a {}; here there are {}", other.model_type, names.join(", ")),
            None => suggest::hint(name, names),
        };
        Error::usage(format!("there is no variant `{name}` of a {model_type}")).with_hint(hint)
    })
}

/// Whether a file holds a recipe or a script, by its name.
#[must_use]
pub fn is_python(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "py")
}
