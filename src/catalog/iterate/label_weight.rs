//! Few positives among many negatives.

use super::{Change, Facts, Rule, Step};
use crate::data::inspect::LabelFacts;

/// Below this part of positives they are weighed.
const FEW: f64 = 0.25;
const KEY: &str = "pos_weight";

/// Where one label is rare, the other's rows make most of the gradient: the rare ones are weighed by their number.
pub(super) const RULE: Rule = Rule {
    id: "label-weight",
    summary: "BinaryCrossEntropyLoss on labels of which less than a quarter is 1 takes `loss.pos_weight = \"auto\"`.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let Some(label) = facts.data.and_then(|data| data.label.as_ref()) else { return Vec::new() };
    let own = facts.loss().is_some_and(|card| card.name == "BinaryCrossEntropyLoss");
    let planned = format!("train_dataset.0.loss.settings.{KEY}");
    let weighed = facts.run.settings.get(&planned).is_some_and(|value| !value.is_null());
    let part = label.positives();
    if !own || weighed || label.kind != LabelFacts::Binary || !(part > 0.0 && part < FEW) {
        return Vec::new();
    }
    let place = if facts.written("loss.name").is_some() { "loss" } else { "train_dataset.0.loss" };
    vec![Step::Change(Change {
        what: "weigh positives by the number of negatives for each".to_owned(),
        why: "most rows are negatives, so a model that calls everything one already has a low loss".to_owned(),
        evidence: vec![format!("`{}` is 1 in {:.0} % of the rows", label.column, part * 100.0)],
        set: vec![(format!("{place}.{KEY}"), "auto".into())],
        // a number or "auto": either is a weight
        marks: vec![(planned, "auto".into())],
    })]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::Case;
    use super::*;
    use crate::data::inspect::{self, Inspection};
    use crate::flow::ModelType;
    use serde_json::json;

    fn labelled(positives: usize) -> Inspection {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let row = |i: usize| {
            format!("{{\"query\": \"q {i}\", \"passage\": \"text {i}\", \"label\": {}}}\n", u8::from(i < positives))
        };
        std::fs::write(&path, (0..40).map(row).collect::<String>()).unwrap();
        let data = path.display().to_string();
        inspect::inspect(&inspect::Request { data: &data, ..inspect::Request::default() }).unwrap()
    }

    #[test]
    fn rare_positives_are_weighed_once() {
        let mut case = Case::scored();
        case.recipe.insert("loss".into(), json!({"name": "BinaryCrossEntropyLoss"}));
        case.history[0].settings.insert("train_dataset.0.loss.name".into(), "BinaryCrossEntropyLoss".into());
        let set = |case: &Case, data: &Inspection| {
            let facts = Facts { model_type: ModelType::CrossEncoder, data: Some(data), ..case.facts() };
            let steps = look(&facts);
            steps.into_iter().find_map(|step| match step {
                Step::Change(change) => Some(change.set),
                Step::Stop(_) => None,
            })
        };
        let (few, many) = (labelled(4), labelled(16));
        assert_eq!(set(&case, &few), Some(vec![("loss.pos_weight".to_owned(), "auto".into())]));
        assert_eq!(set(&case, &many), None);
        case.history[0].settings.insert(format!("train_dataset.0.loss.settings.{KEY}"), 6.0.into());
        assert_eq!(set(&case, &few), None);
    }
}
