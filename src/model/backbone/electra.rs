//! ELECTRA (Clark et al., 2020, <https://arxiv.org/abs/2003.10555>), as transformers' `ElectraModel`: BERT, whose
//! embeddings may be narrower than its layers.

use serde_json::Value;

use super::bert_like::{Config, Family, LayerNames};
use crate::error::Result;

pub const FAMILY: Family = Family {
    name: "ELECTRA",
    layer: LayerNames::BERT,
    reads_types: true,
    positions_after_padding: false,
    projects: true,
    decoder: false,
    distances: None,
};

/// # Errors
/// As [`Config::of_bert`].
pub fn config(config: &Value) -> Result<Config> {
    let mut config = config.clone();
    if let Some(keys) = config.as_object_mut() {
        // of the smallest ELECTRA, as transformers has it
        keys.entry("embedding_size").or_insert_with(|| 128.into());
    }
    Config::of_bert(&config, &FAMILY, 0)
}
