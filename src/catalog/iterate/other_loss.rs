//! Another loss that takes the same rows.

use serde_json::{Map, Value};

use super::hard_negatives::TABLE;
use super::{Change, Facts, Rule, Step};
use crate::catalog::fit;
use crate::catalog::recommend::{RankedLoss, Situation, recommend};
use crate::flow::Card;

/// Tables and keys of `[loss]` that stay when the loss in it is another.
const KEPT: [&str; 5] = ["matryoshka", "splade", "cached_splade", "csr", "mini_batch_size"];

/// The losses that are recommended for the data beside the one that was used, in their order; those that need another model
/// last. Wrappers stay, and a loss that caches gradients is followed by one that does.
pub(super) const RULE: Rule = Rule {
    id: "other-loss",
    summary: "The next of the losses that `tallow recommend` ranks for the data, with its arguments.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let (Some(data), Some(card)) = (facts.data, facts.loss()) else { return Vec::new() };
    let place = if facts.written("loss.name").is_some() { "loss" } else { "train_dataset.0.loss" };
    let Some(Value::Object(own)) = facts.written(place) else { return Vec::new() };
    let situation =
        Situation { model_type: facts.model_type, goal: None, data, path: "", eval: None, base: None, memory: None };
    let Ok(advice) = recommend(&situation) else { return Vec::new() };
    let bare = card.name.trim_start_matches("Cached");
    let takes = |ranked: &RankedLoss| {
        fit::fitting(facts.model_type, data).any(|card| card.name == ranked.name && takes_mined(facts, card))
    };
    let mut others: Vec<RankedLoss> =
        advice.losses.into_iter().filter(|ranked| ranked.name != bare && takes(ranked)).collect();
    others.sort_by_key(|ranked| ranked.arguments.contains_key("guide"));
    let caches = card.name != bare;
    let step = |ranked: RankedLoss| {
        let cached = fit::cached(facts.model_type, &ranked.name).filter(|_| caches);
        let name = cached.unwrap_or(&ranked.name).to_owned();
        let mut table: Map<String, Value> = [("name".to_owned(), Value::from(name.as_str()))].into_iter().collect();
        table.extend(ranked.arguments);
        let kept = own
            .iter()
            .filter(|(key, _)| KEPT.contains(&key.as_str()) && (*key != "mini_batch_size" || cached.is_some()));
        table.extend(kept.map(|(key, value)| (key.clone(), value.clone())));
        Step::Change(Change {
            what: format!("train with {name}"),
            why: ranked.why,
            evidence: vec![format!("{} was used, and the data suit both", card.name)],
            set: vec![(place.to_owned(), Value::Object(table))],
            marks: vec![("train_dataset.0.loss.name".to_owned(), name.into())],
        })
    };
    others.into_iter().map(step).collect()
}

/// Whether a loss takes the columns of mined rows, where negatives are mined; labels that come of mining are for the loss
/// they were chosen for.
fn takes_mined(facts: &Facts<'_>, card: &Card) -> bool {
    if !facts.run.has_table(TABLE) {
        return true;
    }
    let mined = match facts.run.text(&format!("{TABLE}.output_format")) {
        Some("labeled-pair" | "labeled-list") => return false,
        Some("n-tuple") => facts.run.number(&format!("{TABLE}.num_negatives")).unwrap_or(3.0) as usize,
        _ => 1,
    };
    (card.columns.0..=card.columns.1).contains(&mined.saturating_add(2))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::super::testing::Case;
    use super::*;
    use crate::data::inspect::{self, Inspection};
    use serde_json::json;

    fn scored() -> Inspection {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.jsonl");
        let row = |i: u32| format!("{{\"a\": \"text {i}\", \"b\": \"other {i}\", \"score\": 0.{i}}}\n");
        std::fs::write(&path, (1..9).map(row).collect::<String>()).unwrap();
        let data = path.display().to_string();
        inspect::inspect(&inspect::Request { data: &data, ..inspect::Request::default() }).unwrap()
    }

    #[test]
    fn mined_columns_have_to_fit() {
        let mut case = Case::pairs();
        let takes = |case: &Case, name: &str| {
            let card = crate::loss::cards_for(case.facts().model_type).find(|card| card.name == name).unwrap();
            takes_mined(&case.facts(), card)
        };
        assert!(takes(&case, "MegaBatchMarginLoss") && takes(&case, "GISTEmbedLoss"));
        for (format, gist) in [("triplet", true), ("n-tuple", false)] {
            case.history[0].settings.insert(format!("{TABLE}.output_format"), format.into());
            case.history[0].settings.insert(format!("{TABLE}.num_negatives"), 3.into());
            assert!(!takes(&case, "MegaBatchMarginLoss") && takes(&case, "MultipleNegativesRankingLoss"));
            assert_eq!(takes(&case, "GISTEmbedLoss"), gist);
        }
        case.history[0].settings.insert(format!("{TABLE}.output_format"), "labeled-pair".into());
        assert!(!takes(&case, "MultipleNegativesRankingLoss"));
    }

    #[test]
    fn the_next_in_rank_with_wrappers_kept() {
        let data = scored();
        let mut case = Case::scored();
        case.recipe.insert("loss".into(), json!({"name": "CoSENTLoss", "scale": 30.0, "matryoshka": {"dims": [8, 4]}}));
        let facts = Facts { data: Some(&data), ..case.facts() };
        let steps = look(&facts);
        let Some(Step::Change(change)) = steps.first() else { panic!("{steps:?}") };
        let want = json!({"name": "AnglELoss", "scale": 20.0, "matryoshka": {"dims": [8, 4]}});
        assert_eq!(change.set, [("loss".to_owned(), want)]);
        assert!(steps.len() >= 2);
        // a loss of the data set's own is changed there
        case.recipe.shift_remove("loss");
        case.recipe.insert("train_dataset".into(), json!([{"path": "s", "loss": {"name": "CoSENTLoss"}}]));
        let steps = look(&Facts { data: Some(&data), ..case.facts() });
        assert!(matches!(&steps[0], Step::Change(change) if change.set[0].0 == "train_dataset.0.loss"), "{steps:?}");
        assert!(look(&case.facts()).is_empty(), "without a look at the data there is no rank");
    }
}
