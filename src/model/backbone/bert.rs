//! BERT (Devlin et al., 2018, <https://arxiv.org/abs/1810.04805>), as transformers' `BertModel` without its pooler.

use serde_json::Value;

use super::bert_like::{Config, Family, LayerNames};
use crate::error::Result;

pub const FAMILY: Family = Family {
    name: "BERT",
    layer: LayerNames::BERT,
    reads_types: true,
    positions_after_padding: false,
    projects: false,
    decoder: true,
    distances: None,
};

/// # Errors
/// As [`Config::of_bert`].
pub fn config(config: &Value) -> Result<Config> {
    Config::of_bert(config, &FAMILY, 0)
}
