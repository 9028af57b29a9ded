//! Losses that take the other rows of a batch as negatives want batches without a text twice.

use super::{Finding, OfRecipes, RecipeFile, Rule, Script, word};
use crate::flow::ModelType;
use crate::loss;

pub(in crate::check) const RULE: Rule = Rule {
    id: "no-duplicates-sampler",
    summary: "Losses with in-batch negatives have batches in which no text stands twice.",
    model_types: &[],
    recipe: OfRecipes::Looked(recipe),
    python,
};

fn in_batch_negatives(model_type: Option<ModelType>, name: &str) -> bool {
    model_type.is_some_and(|own| loss::cards_for(own).any(|card| card.name == name && card.in_batch_negatives))
}

fn recipe(file: &RecipeFile<'_>) -> Vec<Finding> {
    let plan = file.plan;
    if plan.args.batch_sampler.starts_with("no_duplicates") {
        return Vec::new();
    }
    let found = file.losses().find(|(_, loss)| in_batch_negatives(Some(plan.model_type), loss.innermost().0));
    let Some((key, loss)) = found else { return Vec::new() };
    let line = file.line("args.batch_sampler").or_else(|| file.line(&key));
    vec![Finding::new(
        line,
        format!("{} takes the other rows as negatives, and a text twice in a batch is a wrong one", loss.innermost().0),
        "`batch_sampler = \"no_duplicates\"` under `[args]`",
    )]
}

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let model_type = script.model_type();
    let mut findings = Vec::new();
    for trainer in run.trainers() {
        let losses = run.losses(trainer).into_iter().flat_map(|loss| run.nested(loss));
        let Some((name, _)) = losses.into_iter().find(|(name, _)| in_batch_negatives(model_type, name)) else {
            continue;
        };
        let Some(call) = run.arguments(trainer) else { continue };
        if !word(&run, call, "batch_sampler").is_some_and(|word| word.starts_with("no_duplicates")) {
            findings.push(Finding::new(
                call.line(),
                format!("{name} takes the other rows as negatives, and a text twice in a batch is a wrong one"),
                "`batch_sampler=BatchSamplers.NO_DUPLICATES` among the training arguments",
            ));
        }
    }
    findings
}
