//! Which losses train rerankers and classifiers of pairs?
//!
//! Their columns are logits, `[pairs, labels]`: one column for each of a row's pairs, or a single one with the pairs of
//! all rows one after the other where a row has a list of texts ([`Outputs::lists`](crate::flow::Outputs)).

pub mod adr_mse;
pub mod binary_cross_entropy;
pub mod cached_multiple_negatives_ranking;
pub mod cross_entropy;
pub mod lambda;
pub mod list_mle;
pub mod list_net;
mod lists;
mod logits;
pub mod margin_mse;
pub mod mse;
pub mod multiple_negatives_ranking;
pub mod plist_mle;
pub mod rank_net;

use super::Entry;

crate::registry! {
    /// Every loss, one line each.
    pub static LOSSES: [Entry] = {
        binary_cross_entropy::BinaryCrossEntropyLoss,
        cross_entropy::CrossEntropyLoss,
        multiple_negatives_ranking::MultipleNegativesRankingLoss,
        cached_multiple_negatives_ranking::CachedMultipleNegativesRankingLoss,
        mse::MSELoss,
        margin_mse::MarginMSELoss,
        lambda::LambdaLoss,
        rank_net::RankNetLoss,
        list_net::ListNetLoss,
        list_mle::ListMLELoss,
        plist_mle::PListMLELoss,
        adr_mse::ADRMSELoss,
    }
}
