//! What else can the data become, and which key or command makes it?

use schemars::JsonSchema;
use serde::Serialize;

use crate::data::inspect::{Inspection, LabelFacts, LabelReport, Shape};
use crate::flow::ModelType;

/// A way from the data as they are to rows for other losses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reshape {
    /// The losses that it opens.
    pub losses: Vec<&'static str>,
    /// The recipe's keys or the command.
    pub how: String,
}

/// The ways for models of a type.
#[must_use]
pub fn ways(model_type: ModelType, data: &Inspection) -> Vec<Reshape> {
    use ModelType::{CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder};
    let name = |i: usize| data.columns.get(i).map_or("text", |c| c.name.as_str());
    let label = data.label.as_ref().map_or("label", |l| l.column.as_str());
    let way = |losses: &[&'static str], how: String| Reshape { losses: losses.to_vec(), how };
    let ranking = match model_type {
        SentenceTransformer | CrossEncoder => "MultipleNegativesRankingLoss",
        SparseEncoder => "SparseMultipleNegativesRankingLoss",
        MultiVectorEncoder => "MultiVectorMultipleNegativesRankingLoss",
    };
    let (margins, scores) = match model_type {
        SentenceTransformer => ("MarginMSELoss", "DistillKLDivLoss"),
        CrossEncoder => ("MarginMSELoss", "MSELoss"),
        SparseEncoder => ("SparseMarginMSELoss", "SparseDistillKLDivLoss"),
        MultiVectorEncoder => ("MultiVectorMarginMSELoss", "MultiVectorDistillKLDivLoss"),
    };
    let tuples = || {
        way(
            &[ranking],
            "`[train_dataset.hard_negatives]` with `num_negatives = 3`, `relative_margin = 0.05`, `output_format = \
             \"n-tuple\"`; or `tallow mine DATA --model MODEL --output mined.jsonl`"
                .to_owned(),
        )
    };
    let taught = || {
        way(
            &[margins, scores],
            "mine triplets or n-tuples first, then `tallow teach mined.jsonl --teacher RERANKER --labels margin` (or \
             `scores`) `--output taught.jsonl`"
                .to_owned(),
        )
    };
    let labelled = || {
        way(
            &["BinaryCrossEntropyLoss"],
            "`[train_dataset.hard_negatives]` with `output_format = \"labeled-pair\"`, `num_negatives = 5` and a \
             bi-encoder as `model`, or `bm25 = true`"
                .to_owned(),
        )
    };
    let lists = || {
        way(
            &["LambdaLoss"],
            "`[train_dataset.hard_negatives]` with `output_format = \"labeled-list\"`, `num_negatives = 7`".to_owned(),
        )
    };
    let positives = || {
        way(
            &[ranking],
            format!(
                "keep the rows that belong together: `jq -c 'select(.{label} == {})' rows.jsonl > pairs.jsonl`",
                data.label.as_ref().map_or_else(|| "1".to_owned(), together)
            ),
        )
    };
    let embedded = || {
        way(
            &["MSELoss"],
            format!(
                "`tallow teach DATA --teacher MODEL --labels embedding --columns {} --output taught.jsonl`",
                name(0)
            ),
        )
    };
    match (model_type, data.shape) {
        (CrossEncoder, Shape::Pairs) => vec![labelled(), lists(), taught()],
        (CrossEncoder, Shape::Triplets) => vec![taught(), labelled()],
        (CrossEncoder, Shape::BinaryPairs) => vec![positives()],
        (_, Shape::Pairs) if model_type == SentenceTransformer => vec![tuples(), taught(), embedded()],
        (_, Shape::Pairs) => vec![tuples(), taught()],
        (_, Shape::Triplets) => vec![taught(), way(
            &[ranking],
            format!("in-batch negatives alone: `columns = [\"{}\", \"{}\"]`", name(0), name(1)),
        )],
        (CrossEncoder, _) => Vec::new(),
        (_, Shape::BinaryPairs | Shape::ClassifiedPairs) => vec![positives()],
        (SentenceTransformer, Shape::Texts) => vec![
            way(&[ranking], format!("the same text twice (SimCSE): `columns = [\"{0}\", \"{0}\"]`", name(0))),
            embedded(),
        ],
        (SparseEncoder | MultiVectorEncoder, Shape::Texts) => {
            vec![way(&[ranking], format!("the same text twice: `columns = [\"{0}\", \"{0}\"]`", name(0)))]
        }
        (_, Shape::ScoredTriplets | Shape::ListedTriplets) => vec![way(
            &[ranking],
            "leave the teacher out: the loss reads no labels, so name the columns with `columns` and write the file without \
             the label"
                .to_owned(),
        )],
        (_, Shape::Lists) => vec![way(
            &[ranking],
            format!(
                "a row for each relevant text: `jq -c '. as $r | range(.{0} | length) | select($r.{label}[.] > 0) | \
                 {{{1}: $r.{1}, {0}: $r.{0}[.]}}' rows.jsonl > pairs.jsonl`",
                name(1),
                name(0)
            ),
        )],
        _ => Vec::new(),
    }
}

/// The label of texts that belong together, as jq has it.
fn together(label: &LabelReport) -> String {
    /// What it is called in public data sets.
    const NAMES: [&str; 6] = ["entailment", "duplicate", "paraphrase", "positive", "relevant", "yes"];
    if label.kind != LabelFacts::Names {
        return "1".to_owned();
    }
    let names = || label.commonest.iter().map(|(name, _)| name.as_str());
    let known = names().find(|name| NAMES.contains(&name.to_lowercase().as_str()));
    format!("{:?}", known.or_else(|| names().next()).unwrap_or("NAME"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::data::inspect;

    #[test]
    fn rows_that_belong_together_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        for (labels, wanted) in [(["neutral", "entailment"], "== \"entailment\")"), (["0", "1"], "== 1)")] {
            let rows: String = labels.iter().map(|label| format!("a cat,it sits,{label}\n")).collect();
            std::fs::write(&path, format!("a,b,label\n{rows}")).unwrap();
            let request = inspect::Request { data: path.to_str().unwrap(), ..inspect::Request::default() };
            let ways = ways(ModelType::SparseEncoder, &inspect::inspect(&request).unwrap());
            assert!(ways[0].how.contains(wanted), "{ways:?}");
        }
    }
}
