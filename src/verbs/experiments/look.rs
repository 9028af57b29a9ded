//! What do the data of a run look like, where that is known in a moment?

use std::path::Path;

use crate::data::inspect::{self, Inspection};
use crate::recipe::Plan;
use crate::recipe::plan::DatasetPlan;
use crate::util::files;

/// Files that are read in a moment.
const SMALL: u64 = 64 << 20;

/// Whether a file, or all files of a folder, can be read in a moment.
fn is_small(path: &Path) -> bool {
    let length = |path: &Path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
    let whole = match path.is_dir() {
        // of a folder of queries and corpus; what lies deeper is small beside them
        true => files::list(path).ok().map(|inside| inside.iter().filter_map(|path| length(path)).sum::<u64>()),
        false => length(path),
    };
    whole.is_some_and(|bytes| bytes <= SMALL)
}

/// The training data of a run, where they are one small file.
pub(super) fn look_at(plan: &Plan) -> Option<Inspection> {
    let [DatasetPlan { path, columns, label, hub: None, .. }] = plan.train_dataset.as_slice() else { return None };
    let [file] = path.as_slice() else { return None };
    if !file.is_file() || !is_small(file) {
        return None;
    }
    let data = file.to_str()?;
    let eval = plan.evaluator.first().filter(|evaluator| is_small(&evaluator.path));
    let eval = eval.and_then(|evaluator| evaluator.path.to_str());
    let request = |eval| inspect::Request {
        data,
        columns: (!columns.is_empty()).then_some(columns),
        label: label.as_deref(),
        eval,
        tokenizer: None,
    };
    // held-out data of another form are no reason to know nothing of the training data
    inspect::inspect(&request(eval)).or_else(|_| inspect::inspect(&request(None))).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn large_data_are_not_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let sparse = |name: &str, length: u64| std::fs::File::create(at(name)).unwrap().set_len(length).unwrap();
        std::fs::create_dir(at("beir")).unwrap();
        for (name, length) in [("small.jsonl", SMALL), ("large.jsonl", SMALL + 1), ("beir/queries.jsonl", 1)] {
            sparse(name, length);
        }
        assert!(is_small(&at("small.jsonl")) && is_small(&at("beir")));
        assert!(!is_small(&at("large.jsonl")) && !is_small(&at("none.jsonl")));
        sparse("beir/corpus.jsonl", SMALL);
        assert!(!is_small(&at("beir")));
    }
}
