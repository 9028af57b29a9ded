//! The score before training: without it nobody knows whether training helped.

use super::{Finding, OfRecipes, RecipeFile, Rule, Script, unconditional};

pub(in crate::check) const RULE: Rule = Rule {
    id: "baseline-eval",
    summary: "The model is evaluated before training.",
    model_types: &[],
    recipe: OfRecipes::Looked(recipe),
    python,
};

fn recipe(file: &RecipeFile<'_>) -> Vec<Finding> {
    if !file.plan.evaluator.is_empty() || !file.plan.eval_dataset.is_empty() {
        return Vec::new();
    }
    vec![Finding::new(
        None,
        "nothing measures the model, so there is no score before training to compare with",
        "add an `[[evaluator]]` with held-out rows, or an `[eval_dataset]`",
    )]
}

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let mut findings = Vec::new();
    let evaluations = run.evaluations();
    for train in run.trains() {
        // kept: what is only printed is not there to be compared with
        let before: Vec<_> =
            evaluations.iter().copied().filter(|seen| seen.order < train.order && run.kept(*seen)).collect();
        let fine = before.iter().any(|seen| run.conditional(*seen, train).is_none());
        if fine {
            continue;
        }
        let near =
            before.last().and_then(|seen| unconditional(&run, *seen, train, "the model is evaluated before training"));
        findings.push(near.unwrap_or_else(|| {
            Finding::new(
                train.line(),
                "the model is trained without a score from before",
                "`baseline = evaluator(model)[evaluator.primary_metric]` before `trainer.train()`",
            )
        }));
    }
    findings
}
