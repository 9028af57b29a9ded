//! Pairs alone teach from negatives that are easy.

use serde_json::{Value, json};

use super::{Change, Facts, Rule, Step};
use crate::data::inspect::Shape;
use crate::flow::ModelType;

pub(super) const TABLE: &str = "train_dataset.0.hard_negatives";
/// Negatives of a pair.
const NEGATIVES: usize = 3;

/// With pairs, hard negatives help a retriever or reranker most; where they are mined without a margin, unmarked positives
/// are among them.
pub(super) const RULE: Rule = Rule {
    id: "hard-negatives",
    summary: "Pairs under a loss with in-batch negatives get three mined hard negatives each, and mined ones a margin to \
              the positive.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    if !facts.in_batch_negatives() {
        return Vec::new();
    }
    if facts.run.has_table(TABLE) {
        return margin(facts);
    }
    let Some(format) = facts.loss().and_then(|card| format(card.columns.1)).filter(|_| pairs(facts)) else {
        return Vec::new();
    };
    let mut settings =
        vec![("num_negatives", json!(NEGATIVES)), ("relative_margin", json!(0.05)), ("output_format", json!(format))];
    // a base that does not embed yet, or scores pairs, finds nothing
    let finds = facts.model_type == ModelType::SentenceTransformer && facts.run.has_table("model.source.base");
    if !finds {
        settings.push(("bm25", true.into()));
    }
    let by = if finds { "by the base model" } else { "by common words" };
    let set: Vec<(String, Value)> =
        settings.into_iter().map(|(key, value)| (format!("{TABLE}.{key}"), value)).collect();
    vec![Step::Change(Change {
        what: format!("look for three hard negatives a pair, {by}"),
        why: "negatives of the batch are mostly easy; texts that look like answers and are none teach more".to_owned(),
        evidence: vec!["the data are pairs, and no negatives are mined".to_owned()],
        marks: vec![(format!("{TABLE}.num_negatives"), NEGATIVES.into())],
        set,
    })]
}

/// How mined rows are written for a loss of so many columns at most: all negatives in a row, or one; not at all for one of
/// pairs.
fn format(most: usize) -> Option<&'static str> {
    match most {
        0..=2 => None,
        most if most >= 2 + NEGATIVES => Some("n-tuple"),
        _ => Some("triplet"),
    }
}

/// Whether the rows are a query and its answer.
fn pairs(facts: &Facts<'_>) -> bool {
    match facts.data {
        Some(data) => data.shape == Shape::Pairs && !data.translated(),
        None => {
            let columns = facts.run.settings.get("train_dataset.0.columns").and_then(Value::as_array);
            columns.is_some_and(|columns| columns.len() == 2 && columns.first() != columns.last())
        }
    }
}

fn margin(facts: &Facts<'_>) -> Vec<Step> {
    let limits = ["relative_margin", "absolute_margin", "max_score"];
    if limits.iter().any(|limit| facts.run.number(&format!("{TABLE}.{limit}")).is_some()) {
        return Vec::new();
    }
    let change = Change::setting(
        "leave out negatives that score nearly as high as the positive",
        "without a margin unmarked positives are among the hard negatives",
        &format!("{TABLE}.relative_margin"),
        0.05,
    );
    vec![Step::Change(
        change.because("negatives are mined without `relative_margin`, `absolute_margin` or `max_score`"),
    )]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::super::testing::Case;
    use super::*;

    fn set(case: &Case) -> Vec<String> {
        match &look(&case.facts())[..] {
            [Step::Change(change)] => change.set.iter().map(|(key, _)| key.replace(TABLE, "")).collect(),
            [] => Vec::new(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pairs_get_negatives_and_negatives_a_margin() {
        let mut case = Case::pairs();
        assert_eq!(set(&case), [".num_negatives", ".relative_margin", ".output_format"]);
        // a new model finds nothing
        case.history[0].settings.shift_remove("model.source.base.path");
        assert!(set(&case).contains(&".bm25".to_owned()));
        case.history[0].settings.insert(format!("{TABLE}.num_negatives"), 5.into());
        assert_eq!(set(&case), [".relative_margin"]);
        case.history[0].settings.insert(format!("{TABLE}.absolute_margin"), 0.1.into());
        assert!(set(&case).is_empty() && set(&Case::scored()).is_empty());
        let mut triplets = Case::pairs();
        triplets.history[0].settings.insert("train_dataset.0.columns".into(), json!(["q", "a", "n"]));
        assert!(set(&triplets).is_empty());
    }

    #[test]
    fn rows_are_as_wide_as_the_loss_takes() {
        let format = |loss: &str| {
            let mut case = Case::pairs();
            case.history[0].settings.insert("train_dataset.0.loss.name".into(), loss.into());
            match &look(&case.facts())[..] {
                [Step::Change(change)] => change.set[2].1.as_str().map(str::to_owned),
                _ => None,
            }
        };
        assert_eq!(format("MultipleNegativesRankingLoss").as_deref(), Some("n-tuple"));
        assert_eq!(format("GISTEmbedLoss").as_deref(), Some("triplet"));
        assert_eq!(format("MegaBatchMarginLoss"), None);
    }
}
