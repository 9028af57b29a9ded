//! Which losses train sparse embeddings? Those of dense ones, with the defaults of sentence-transformers' `Sparse…`
//! classes.
//!
//! None of them is used alone, since nothing would keep the embeddings sparse: `[loss.splade]` adds a regulariser.

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use super::cosent::CoSENTLoss;
use super::cosine_similarity::CosineSimilarityLoss;
use super::distill_kl_div::DistillKLDivLoss;
use super::margin_mse::MarginMSELoss;
use super::mse::MSELoss;
use super::multiple_negatives_ranking::MultipleNegativesRankingLoss;
use super::triplet::TripletLoss;
use super::{Entry, Loss, Setup, angle, cosent, cosine_similarity, distill_kl_div, margin_mse, mse};
use super::{multiple_negatives_ranking, triplet};
use crate::error::Result;
use crate::flow::{Card, Labels, MicroBatch, ModelType, Outputs};
use crate::util::registry::{self, Settings};

/// A loss under another name.
struct Renamed {
    card: &'static Card,
    loss: Box<dyn Loss>,
}

impl Loss for Renamed {
    fn card(&self) -> &'static Card {
        self.card
    }

    fn compute(&self, outputs: &Outputs, labels: Option<&Labels>) -> Result<Tensor> {
        self.loss.compute(outputs, labels)
    }

    fn config(&self) -> Value {
        self.loss.config()
    }

    fn micro_batch(&self) -> Option<MicroBatch> {
        self.loss.micro_batch()
    }

    fn prepare(&mut self, setup: &Setup) -> Result<()> {
        self.loss.prepare(setup)
    }

    fn check_dim(&self, dim: usize) -> Result<Vec<String>> {
        self.loss.check_dim(dim)
    }
}

/// A loss of dense embeddings under another name, with other defaults.
macro_rules! sparse {
    ($($(#[$doc:meta])* $entry:ident, $name:literal, $loss:ty, $card:path, $defaults:tt;)*) => {
        $(
            mod $entry {
                use super::*;

                $(#[$doc])*
                pub const CARD: Card = Card { name: $name, model_types: &[ModelType::SparseEncoder], ..$card };

                fn with_defaults(settings: &Map<String, Value>) -> Result<$loss> {
                    let mut all = match json!($defaults) {
                        Value::Object(all) => all,
                        _ => Map::new(),
                    };
                    all.extend(settings.clone());
                    registry::read_settings($name, &all)
                }

                pub const ENTRY: Entry = Entry {
                    card: &CARD,
                    defaults: || with_defaults(&Map::new()).map_or(Value::Null, |loss| loss.to_json()),
                    schema: || schemars::schema_for!($loss),
                    build: |settings| Ok(Box::new(Renamed { card: &CARD, loss: Box::new(with_defaults(settings)?) })),
                };
            }
        )*

        /// Every loss, one line each.
        pub static LOSSES: &[Entry] = &[$($entry::ENTRY),*];
    };
}

sparse! {
    /// Scores are dot products and not scaled.
    ///
    /// ```toml
    /// model_type = "SparseEncoder"
    /// [loss]
    /// name = "SparseMultipleNegativesRankingLoss"
    /// [loss.splade]
    /// document_regularizer_weight = 3e-3
    /// query_regularizer_weight = 5e-3
    /// ```
    ranking, "SparseMultipleNegativesRankingLoss", MultipleNegativesRankingLoss, multiple_negatives_ranking::CARD,
        {"scale": 1.0, "similarity_fct": "dot"};
    /// ```toml
    /// model_type = "SparseEncoder"
    /// [loss]
    /// name = "SparseMarginMSELoss"
    /// [loss.splade]
    /// document_regularizer_weight = 3e-3
    /// query_regularizer_weight = 5e-3
    /// ```
    margins, "SparseMarginMSELoss", MarginMSELoss, margin_mse::CARD, {};
    /// ```toml
    /// model_type = "SparseEncoder"
    /// [loss]
    /// name = "SparseDistillKLDivLoss"
    /// [loss.splade]
    /// document_regularizer_weight = 3e-3
    /// ```
    distributions, "SparseDistillKLDivLoss", DistillKLDivLoss, distill_kl_div::CARD, {"temperature": 2.0};
    /// ```toml
    /// model_type = "SparseEncoder"
    /// [loss]
    /// name = "SparseTripletLoss"
    /// [loss.splade]
    /// document_regularizer_weight = 3e-3
    /// ```
    triplets, "SparseTripletLoss", TripletLoss, triplet::CARD, {};
    /// ```toml
    /// model_type = "SparseEncoder"
    /// [loss]
    /// name = "SparseCoSENTLoss"
    /// [loss.splade]
    /// document_regularizer_weight = 3e-3
    /// use_document_regularizer_only = true
    /// ```
    order, "SparseCoSENTLoss", CoSENTLoss, cosent::CARD, {};
    /// ```toml
    /// model_type = "SparseEncoder"
    /// [loss]
    /// name = "SparseAnglELoss"
    /// [loss.splade]
    /// document_regularizer_weight = 3e-3
    /// use_document_regularizer_only = true
    /// ```
    angles, "SparseAnglELoss", angle::AnglELoss, angle::CARD, {};
    /// ```toml
    /// model_type = "SparseEncoder"
    /// [loss]
    /// name = "SparseCosineSimilarityLoss"
    /// [loss.splade]
    /// document_regularizer_weight = 3e-3
    /// use_document_regularizer_only = true
    /// ```
    cosines, "SparseCosineSimilarityLoss", CosineSimilarityLoss, cosine_similarity::CARD, {};
    /// ```toml
    /// model_type = "SparseEncoder"
    /// [loss]
    /// name = "SparseMSELoss"
    /// [loss.splade]
    /// document_regularizer_weight = 3e-3
    /// use_document_regularizer_only = true
    /// ```
    values, "SparseMSELoss", MSELoss, mse::CARD, {};
}
