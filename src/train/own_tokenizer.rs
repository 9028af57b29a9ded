//! A tokenizer learnt from the texts of the training data.

use std::path::Path;

use crate::data::{DatasetSpec, texts};
use crate::error::Result;
use crate::flow::LabelKind;
use crate::model::{Corpus, TokenizerTraining};
use crate::recipe::Plan;

/// The tokenizer.json for the texts of all training data sets, prompts included.
///
/// # Errors
/// When a data set cannot be read, or has more characters than the tokenizer may have tokens.
pub fn train(plan: &Plan, training: TokenizerTraining) -> Result<Vec<u8>> {
    let mut corpus = Corpus::new(training)?;
    for set in &plan.train_dataset {
        let spec = DatasetSpec {
            name: Some(set.name.clone()),
            columns: (!set.columns.is_empty()).then(|| set.columns.clone()),
            label: set.label.clone(),
            limit: set.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            prompts: set.prompts.clone(),
            ..DatasetSpec::new(set.path.iter().map(|p| p.to_string_lossy().into_owned()).collect(), LabelKind::None)
        };
        texts::each_text(&spec, Path::new(""), &mut |texts| corpus.add(texts))?;
    }
    corpus.train()
}
