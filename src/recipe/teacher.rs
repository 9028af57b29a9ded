//! What is a teacher asked about the rows of a data set? Its answers are the labels that a student learns.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::flow::ActivationFn;

/// What a teacher writes beside each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Lesson {
    /// The first column's embedding, a list: for MSELoss, EmbedDistillLoss and SparseMSELoss. With a translation as the
    /// second column a model learns another language.
    Embedding,
    /// Every column's embedding, one after the other, a list: for EmbedDistillLoss.
    Embeddings,
    /// How well two texts belong together, a number: for MSELoss of rerankers, CoSENTLoss.
    Score,
    /// The score of the second column less that of each column after it, with the first as the query; a number, or a list
    /// for several: for MarginMSELoss.
    Margin,
    /// The score of each column after the first, or of each text of a list, a list: for DistillKLDivLoss, MarginMSELoss and
    /// the losses of rerankers on lists.
    Scores,
}

impl Lesson {
    /// What fits so many columns, the last of which may hold lists, where nothing was asked for.
    #[must_use]
    pub fn of(columns: usize, lists: bool) -> Self {
        match (columns, lists) {
            (_, true) => Self::Scores,
            (1, _) => Self::Embedding,
            (2, _) => Self::Score,
            (3, _) => Self::Margin,
            _ => Self::Scores,
        }
    }

    /// Its name in commands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Embeddings => "embeddings",
            Self::Score => "score",
            Self::Margin => "margin",
            Self::Scores => "scores",
        }
    }

    /// Whether it is of single texts, not of how well texts belong together.
    #[must_use]
    pub fn embeds(self) -> bool {
        matches!(self, Self::Embedding | Self::Embeddings)
    }
}

/// A teacher, and how it is asked about the rows of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Teacher {
    /// The teacher's folder, or its id on the Hub: a bi-encoder, SPLADE, ColBERT or a reranker.
    #[arg(long = "teacher", value_name = "FOLDER")]
    pub model: String,
    /// What is taught. Without it: an embedding of one column, a score of two, a margin of three, scores of more or of lists.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub labels: Option<Lesson>,
    /// Of a reranker: what is applied to its logits, `Identity`, `Sigmoid`, `Tanh` or `ReLU`. Students learn logits best.
    #[arg(long, value_name = "NAME", default_value = "Identity")]
    pub activation_fn: ActivationFn,
    /// The teacher's prompt of this name in front of queries and of texts to embed. Without it `query` of scores, the
    /// default prompt of embeddings.
    #[arg(long, value_name = "NAME", conflicts_with = "query_prompt")]
    pub query_prompt_name: Option<String>,
    /// This text in front of them; empty for none at all.
    #[arg(long, value_name = "TEXT")]
    pub query_prompt: Option<String>,
    /// The teacher's prompt of this name in front of documents. Without it `document`, where it has one.
    #[arg(long, value_name = "NAME", conflicts_with = "corpus_prompt")]
    pub corpus_prompt_name: Option<String>,
    /// This text in front of documents; empty for none at all.
    #[arg(long, value_name = "TEXT")]
    pub corpus_prompt: Option<String>,
    /// Keep only the first dimensions of embeddings, as narrow as the student's are.
    #[arg(long, value_name = "D")]
    pub truncate_dim: Option<usize>,
    /// Divide each embedding by its length.
    #[arg(long)]
    pub normalize: bool,
    /// Round the operands of matrix products to bfloat16 or nearer: faster, and labels off by about 0.001.
    #[arg(long)]
    pub bf16: bool,
}

impl Default for Teacher {
    fn default() -> Self {
        Self {
            model: String::new(),
            labels: None,
            activation_fn: ActivationFn::Identity,
            query_prompt_name: None,
            query_prompt: None,
            corpus_prompt_name: None,
            corpus_prompt: None,
            truncate_dim: None,
            normalize: false,
            bf16: false,
        }
    }
}

impl Teacher {
    /// Refuses what cannot be meant, as far as can be told without rows and teacher.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> Result<()> {
        if self.model.is_empty() {
            return Err(
                Error::usage("there is no teacher").with_hint("name its folder, or its id on the Hub, with `model`")
            );
        }
        if self.truncate_dim == Some(0) {
            return Err(Error::usage("`truncate_dim` is 0").with_hint("give the number of dimensions to keep"));
        }
        let twice = [
            ("query_prompt", self.query_prompt.is_some() && self.query_prompt_name.is_some()),
            ("corpus_prompt", self.corpus_prompt.is_some() && self.corpus_prompt_name.is_some()),
        ];
        match twice.into_iter().find(|(_, both)| *both) {
            Some((name, _)) => Err(Error::usage(format!("`{name}` and `{name}_name` say the same in two ways"))
                .with_hint("leave one of them out")),
            None => Ok(()),
        }
    }

    /// Refuses settings that would have no effect on this lesson.
    ///
    /// # Errors
    /// Then.
    pub fn check_lesson(&self, lesson: Lesson) -> Result<()> {
        self.check()?;
        if !lesson.embeds() && (self.truncate_dim.is_some() || self.normalize) {
            return Err(Error::usage("`truncate_dim` and `normalize` are for embeddings")
                .with_hint("name them with `labels` (`embedding`), or leave these out"));
        }
        if lesson.embeds() && (self.corpus_prompt.is_some() || self.corpus_prompt_name.is_some()) {
            return Err(Error::usage("`corpus_prompt` and `corpus_prompt_name` are for documents that are scored")
                .with_hint("`query_prompt` and `query_prompt_name` are for texts to embed"));
        }
        Ok(())
    }
}
