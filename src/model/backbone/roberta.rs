//! RoBERTa (Liu et al., 2019, <https://arxiv.org/abs/1907.11692>), as transformers' `RobertaModel` without its pooler;
//! XLM-RoBERTa and CamemBERT are the same network.
//!
//! Positions begin behind the number of the padding token, so that two rows of the table are not used for texts. Each
//! text has them from there on, wherever it stands in a batch.

use serde_json::Value;

use super::bert_like::{Config, Family, LayerNames};
use crate::error::{Error, Result};

pub const FAMILY: Family = Family {
    name: "RoBERTa",
    layer: LayerNames::BERT,
    // its tokenizers tell no types
    reads_types: false,
    positions_after_padding: true,
    projects: false,
    decoder: false,
    distances: None,
};

/// # Errors
/// As [`Config::of_bert`], and when there is no padding token.
pub fn config(config: &Value) -> Result<Config> {
    positions(Config::of_bert(config, &FAMILY, 1)?)
}

/// Refuses a table of positions that has none behind the padding token.
///
/// # Errors
/// Then.
pub(super) fn positions(config: Config) -> Result<Config> {
    match config.pad_token_id {
        Some(padding) if (padding as usize) + 1 < config.max_position_embeddings => Ok(config),
        Some(padding) => Err(Error::model(format!(
            "`max_position_embeddings` is {}, but positions begin behind `pad_token_id`, which is {padding}",
            config.max_position_embeddings
        ))
        .with_hint("it is the longest text's number of tokens, and `pad_token_id` + 1 more")),
        None => Err(Error::model("`pad_token_id` is null").with_hint("positions begin behind it; RoBERTa's is 1")),
    }
}
