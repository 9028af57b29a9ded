//! The weights that words have in queries without a network, counted in texts.

use std::path::Path;
use std::sync::Arc;

use crate::data::{DatasetSpec, texts};
use crate::error::Result;
use crate::flow::{LabelKind, Preprocess};
use crate::model::{Counting, StaticQueries, StaticWeights, TextTokenizer};
use crate::recipe::Plan;

/// What a plan says of queries.
pub fn options(plan: &Plan) -> Option<StaticQueries> {
    let wanted = plan.model.sparse_static_embedding.as_ref()?;
    let weights = match (&wanted.idf, wanted.corpus.is_empty()) {
        (Some(file), _) => StaticWeights::File(file.clone()),
        (None, true) => StaticWeights::Ones,
        (None, false) => {
            let paths: Vec<String> = wanted.corpus.iter().map(|path| path.to_string_lossy().into_owned()).collect();
            let count = move |tokenizer: &TextTokenizer| {
                count(&paths, tokenizer).map_err(|e| e.within("`model.sparse_static_embedding.corpus`"))
            };
            StaticWeights::Counted(Counting(Arc::new(count)))
        }
    };
    Some(StaticQueries { weights, frozen: wanted.frozen })
}

/// How many texts there are, and how many of them have each word: `[words]`.
fn count(paths: &[String], tokenizer: &TextTokenizer) -> Result<(u64, Vec<u64>)> {
    let (mut all, mut with) = (0, vec![0u64; tokenizer.vocabulary()]);
    let spec = DatasetSpec::new(paths.to_vec(), LabelKind::None);
    texts::each_text(&spec, Path::new(""), &mut |texts| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        all += texts.len() as u64;
        for tokens in tokenizer.tokenize(&texts, None)? {
            let mut ids = tokens.ids;
            ids.sort_unstable();
            ids.dedup();
            ids.iter().for_each(|id| with[*id as usize] += 1);
        }
        Ok(())
    })?;
    Ok((all, with))
}
