//! A sparse model whose embeddings are not sparse is no result yet.

use super::{Change, Facts, Rule, Step, longer_training};

/// Active dimensions that are usual for documents and queries of a SPLADE model.
const USUAL: [(&str, u64); 2] = [("document", 128), ("query", 32)];

/// A score with thousands of active dimensions is that of a dense model, and searches like one: this comes before any stop.
pub(super) const RULE: Rule = Rule {
    id: "dense-embeddings",
    summary: "A score with more than 1,000 active dimensions is no win: the regulariser gets targets (128 a document, 32 a \
              query); where it had them, twice the steps.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let run = facts.run;
    if !run.is_dense() {
        return Vec::new();
    }
    let evidence = run.costs.iter().map(|(name, value)| format!("`{name}` is {value:.0}")).collect();
    let why = "a score with thousands of active dimensions is that of a dense model, at the price of one";
    let planned = |key: &str| format!("train_dataset.0.loss.settings.splade.{key}");
    if facts.loss().is_none() || !run.has_table("train_dataset.0.loss.settings.splade") {
        let what = "let the regulariser cost ten times as much, or name targets (`target_document_active_dims`)";
        return vec![Step::Change(Change { evidence, ..Change::by_hand(what, why) })];
    }
    if run.number(&planned("target_document_active_dims")).is_some() {
        let longer = longer_training::doubled(run, why);
        return longer.map(|change| Step::Change(Change { evidence, ..change })).into_iter().collect();
    }
    let place = if facts.written("loss.splade").is_some() { "loss" } else { "train_dataset.0.loss" };
    let (mut set, mut marks) = (Vec::new(), Vec::new());
    for (side, dimensions) in USUAL {
        let weight = format!("{side}_regularizer_weight");
        let free = run.number(&planned(&weight)).is_none();
        // queries that cost nothing have no network, or are meant to be as wide as they are
        if side == "query" && free {
            continue;
        }
        let target = format!("target_{side}_active_dims");
        marks.push((planned(&target), dimensions.into()));
        set.push((format!("{place}.splade.{target}"), dimensions.into()));
        // a target moves the weight by factors
        if run.number(&planned(&weight)) == Some(0.0) {
            set.push((format!("{place}.splade.{weight}"), 1e-3.into()));
        }
    }
    let what = "name how many dimensions are to be active; the weights of the regulariser follow".to_owned();
    vec![Step::Change(Change { what, why: why.to_owned(), evidence, set, marks })]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, done};
    use super::*;
    use crate::flow::ModelType;
    use serde_json::{Value, json};

    fn look_at(case: &Case) -> Vec<Change> {
        let facts = Facts { model_type: ModelType::SparseEncoder, ..case.facts() };
        let change = |step| match step {
            Step::Change(change) => Some(change),
            Step::Stop(_) => None,
        };
        look(&facts).into_iter().filter_map(change).collect()
    }

    #[test]
    fn targets_then_more_steps() {
        let mut case = Case::pairs();
        let planned = "train_dataset.0.loss.settings.splade";
        let run = &mut case.history[0];
        *run = super::super::Past { settings: run.settings.clone(), ..done("a", 0.1, 0.9) };
        let own = json!({"train_dataset.0.loss.name": "SparseMultipleNegativesRankingLoss", "args.max_steps": 24,
                         format!("{planned}.document_regularizer_weight"): 0.0,
                         format!("{planned}.query_regularizer_weight"): 5e-3});
        run.settings.extend(own.as_object().cloned().unwrap_or_default());
        case.recipe.insert("loss".into(), json!({"name": "SparseMultipleNegativesRankingLoss", "splade": {}}));
        assert!(look_at(&case).is_empty(), "nothing is known of dimensions");
        case.history[0].costs = vec![("query_active_dims".into(), 40.0), ("corpus_active_dims".into(), 180.0)];
        assert!(look_at(&case).is_empty());
        case.history[0].costs[1].1 = 29_000.0;
        let changes = look_at(&case);
        let set: Value = changes[0].set.iter().cloned().collect::<serde_json::Map<_, _>>().into();
        let want = json!({"loss.splade.target_document_active_dims": 128, "loss.splade.document_regularizer_weight": 1e-3,
                          "loss.splade.target_query_active_dims": 32});
        assert_eq!(set, want);
        assert_eq!(changes[0].evidence[1], "`corpus_active_dims` is 29000");
        // before the stop that the score alone would be
        assert_eq!(case.propose().rule, RULE.id);
        case.history[0].settings.insert(format!("{planned}.target_document_active_dims"), 128.into());
        assert_eq!(look_at(&case)[0].set, [("args.max_steps".to_owned(), 48.into())]);
        // of a script no table is known
        case.history[0].settings.retain(|key, _| !key.starts_with(planned));
        assert!(look_at(&case)[0].set.is_empty());
    }
}
