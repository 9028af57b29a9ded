//! What evaluators read, in memory.

use std::collections::{HashMap, HashSet};

use super::cross_encoder::reranking as pair_reranking;
use super::{mse_from_dataframe, reciprocal_rank_fusion, reranking};
use crate::flow::Embeddings;

/// What an evaluator reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKind {
    /// Queries, a corpus and which of it is relevant to each query.
    Retrieval,
    /// Pairs of sentences with a score.
    ScoredPairs,
    /// Anchors with a positive and a negative.
    Triplets,
    /// Pairs of sentences that mean the same or do not.
    LabelledPairs,
    /// Queries, each with documents that answer it and documents that do not.
    Reranking,
    /// Sentences with their translations.
    Parallel,
    /// Sentences with a teacher's embeddings of them.
    Teacher,
    /// Sentences with ids, and which of them mean the same.
    Paraphrases,
    /// Several data sets for retrieval.
    Retrievals,
    /// Pairs of sentences with a class.
    Classes,
    /// Pairs of texts with a class.
    ClassifiedPairs,
    /// Queries, each with documents that answer it and others, or what a search found.
    RankedDocuments,
    /// Several data sets for reranking what a search found.
    RankedDocumentSets,
    /// Sentences with a teacher's embeddings of what they are translations of, for each of several pairs of languages.
    Taught,
    /// Queries with documents and a teacher's scores of them.
    TeacherScores,
    /// What a dense and a sparse search found for each query.
    Rankings,
}

impl std::fmt::Display for DataKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Retrieval => "queries, corpus and relevance judgements",
            Self::ScoredPairs => "sentence pairs with scores",
            Self::Triplets => "(anchor, positive, negative) triplets",
            Self::LabelledPairs => "sentence pairs with labels 0 and 1",
            Self::Reranking => "queries with positive and negative documents",
            Self::Parallel => "(source, target) translations",
            Self::Teacher => "sentences with a teacher's embeddings",
            Self::Paraphrases => "sentences with ids and pairs of duplicates",
            Self::Retrievals => "a folder of data sets for retrieval",
            Self::Classes => "sentence pairs with classes",
            Self::ClassifiedPairs => "pairs with classes",
            Self::RankedDocuments => "queries with positive documents and others to rank",
            Self::RankedDocumentSets => "a folder of data sets with what a search found",
            Self::TeacherScores => "queries with documents and a teacher's scores",
            Self::Taught => "parallel sentences with a teacher's embeddings",
            Self::Rankings => "a folder with the rankings `dense.jsonl` and `sparse.jsonl`",
        })
    }
}

/// Data already read.
#[derive(Debug, Clone, PartialEq)]
pub enum EvaluationData {
    /// For [`DataKind::Retrieval`]: ids with texts, and the ids of the relevant documents by query id.
    Retrieval {
        queries: Vec<(String, String)>,
        corpus: Vec<(String, String)>,
        relevant: HashMap<String, HashSet<String>>,
    },
    /// For [`DataKind::ScoredPairs`]: three columns of equal length.
    ScoredPairs { sentences1: Vec<String>, sentences2: Vec<String>, scores: Vec<f64> },
    /// For [`DataKind::Triplets`]: three columns of equal length.
    Triplets { anchors: Vec<String>, positives: Vec<String>, negatives: Vec<String> },
    /// For [`DataKind::LabelledPairs`]: three columns of equal length.
    LabelledPairs { sentences1: Vec<String>, sentences2: Vec<String>, labels: Vec<bool> },
    /// For [`DataKind::Reranking`].
    Reranking(Vec<reranking::Sample>),
    /// For [`DataKind::Parallel`]: two columns of equal length.
    Parallel { sources: Vec<String>, targets: Vec<String> },
    /// For [`DataKind::Teacher`]: texts for the model, and what its embeddings of them are held against, row by row.
    Teacher { sentences: Vec<String>, embeddings: Embeddings },
    /// For [`DataKind::Paraphrases`]: ids with texts, and pairs of ids.
    Paraphrases { sentences: Vec<(String, String)>, duplicates: Vec<(String, String)> },
    /// For [`DataKind::Retrievals`]: names, each with data of the kind [`DataKind::Retrieval`].
    Retrievals(Vec<(String, EvaluationData)>),
    /// For [`DataKind::Classes`]: `[columns][rows]` and a class a row.
    Classes { columns: Vec<Vec<String>>, classes: Vec<i64> },
    /// For [`DataKind::ClassifiedPairs`]: three columns of equal length.
    ClassifiedPairs { sentences1: Vec<String>, sentences2: Vec<String>, labels: Vec<i64> },
    /// For [`DataKind::RankedDocuments`].
    RankedDocuments(Vec<pair_reranking::Sample>),
    /// For [`DataKind::RankedDocumentSets`]: names, each with samples.
    RankedDocumentSets(Vec<(String, Vec<pair_reranking::Sample>)>),
    /// For [`DataKind::Taught`]: a pair of languages after the other, as the evaluator's settings name them.
    Taught(Vec<mse_from_dataframe::Taught>),
    /// For [`DataKind::TeacherScores`]: queries, columns of as many documents, and scores row after row.
    TeacherScores { queries: Vec<String>, documents: Vec<Vec<String>>, scores: Vec<f64> },
    /// For [`DataKind::Rankings`].
    Rankings { dense: Vec<reciprocal_rank_fusion::Ranking>, sparse: Vec<reciprocal_rank_fusion::Ranking> },
}

impl EvaluationData {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> DataKind {
        match self {
            Self::Retrieval { .. } => DataKind::Retrieval,
            Self::ScoredPairs { .. } => DataKind::ScoredPairs,
            Self::Triplets { .. } => DataKind::Triplets,
            Self::LabelledPairs { .. } => DataKind::LabelledPairs,
            Self::Reranking(_) => DataKind::Reranking,
            Self::Parallel { .. } => DataKind::Parallel,
            Self::Teacher { .. } => DataKind::Teacher,
            Self::Paraphrases { .. } => DataKind::Paraphrases,
            Self::Retrievals(_) => DataKind::Retrievals,
            Self::Classes { .. } => DataKind::Classes,
            Self::ClassifiedPairs { .. } => DataKind::ClassifiedPairs,
            Self::RankedDocuments(_) => DataKind::RankedDocuments,
            Self::RankedDocumentSets(_) => DataKind::RankedDocumentSets,
            Self::Taught(_) => DataKind::Taught,
            Self::TeacherScores { .. } => DataKind::TeacherScores,
            Self::Rankings { .. } => DataKind::Rankings,
        }
    }
}
