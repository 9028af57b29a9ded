//! A run that got worse towards its end was better in its middle.

use serde_json::Value;

use super::{Change, Facts, Rule, Step};

/// Where the last model is worse than the base and only the last was looked at, the best of the run may be better than
/// both; keeping it costs evaluations and no quality, so it comes before all other changes.
pub(super) const RULE: Rule = Rule {
    id: "keep-best",
    summary: "A REGRESSION of a run that keeps its last model: evaluate ten times and keep the best.",
    look,
};

fn look(facts: &Facts<'_>) -> Vec<Step> {
    let worse = facts.run.delta.is_some_and(|delta| delta < 0.0);
    if !worse || facts.run.is_on("args.load_best_model_at_end") {
        return Vec::new();
    }
    let key = "args.load_best_model_at_end";
    let mut change = Change::setting(
        "evaluate at every tenth of the run, and keep the best model",
        "only the last model was kept, and it is worse than the base; rates that are too high show in which one is best",
        key,
        true,
    );
    for what in ["eval", "save"] {
        let strategy = format!("args.{what}_strategy");
        // what is written may say otherwise, and both have to agree
        if facts.written(&strategy).is_some_and(|own| own != "steps") {
            change.set.push((strategy, "steps".into()));
        }
        change.set.push((format!("args.{what}_steps"), Value::from(0.1)));
    }
    vec![Step::Change(change)]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Case, done};
    use super::*;
    use serde_json::json;

    #[test]
    fn regressions_without_the_best_model() {
        let mut case = Case::scored();
        case.history[0] = done("a", 0.8, 0.7);
        case.recipe.insert("args".into(), json!({"save_strategy": "no", "eval_strategy": "steps"}));
        let proposal = case.propose();
        assert_eq!(proposal.rule, RULE.id);
        let want = json!({"args.load_best_model_at_end": true, "args.eval_steps": 0.1,
                          "args.save_strategy": "steps", "args.save_steps": 0.1});
        assert_eq!(Value::Object(proposal.set), want);
        case.history[0].settings.insert("args.load_best_model_at_end".into(), true.into());
        assert_ne!(case.propose().rule, RULE.id);
    }
}
