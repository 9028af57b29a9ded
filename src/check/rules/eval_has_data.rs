//! Evaluations during training have something to evaluate with.

use super::{Finding, OfRecipes, Rule, Script, arguments, word};

pub(in crate::check) const RULE: Rule = Rule {
    id: "eval-has-data",
    summary: "Where training evaluates, it has an evaluator or evaluation data.",
    model_types: &[],
    // resolving a recipe refuses it
    recipe: OfRecipes::Never,
    python,
};

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let mut findings = Vec::new();
    for (trainer, call) in arguments(&run) {
        let evaluates = word(&run, call, "eval_strategy").is_some_and(|word| word != "no");
        let given = |name| {
            let place = run.argument_of(trainer, name, None);
            place.is_some_and(|place| run.resolve(place).node.kind() != "none")
        };
        if evaluates && !given("evaluator") && !given("eval_dataset") {
            findings.push(Finding::new(
                trainer.line(),
                "training stops at the first evaluation: there is neither an evaluator nor an `eval_dataset`",
                "give the Trainer one of them, or set `eval_strategy=\"no\"`",
            ));
        }
    }
    findings
}
