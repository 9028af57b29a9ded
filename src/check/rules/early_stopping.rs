//! Rerankers are stopped where they are best, which is seldom the end.

use super::{Finding, ModelType, OfRecipes, Rule, Script, arguments, is_true};

/// Evaluations without improvement that are waited for, at least.
const PATIENCE: f64 = 3.0;
/// The callback's own patience.
const DEFAULT: f64 = 1.0;

pub(in crate::check) const RULE: Rule = Rule {
    id: "early-stopping",
    summary: "A CrossEncoder stops after 3 or more evaluations without improvement, and keeps its best model.",
    model_types: &[ModelType::CrossEncoder],
    // resolving a recipe sets it, or refuses less
    recipe: OfRecipes::Looked(|_| Vec::new()),
    python,
};

const FIX: &str = "`callbacks=[EarlyStoppingCallback(early_stopping_patience=3)]` of the Trainer, from transformers";

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let mut findings = Vec::new();
    for trainer in run.trainers() {
        let list = run.argument_of(trainer, "callbacks", None).map(|list| run.items(list)).unwrap_or_default();
        let added = run.calls().filter(|seen| run.name(*seen) == "add_callback");
        let added = added.filter_map(|seen| run.argument(seen, "callback", Some(0)));
        let made = list.into_iter().chain(added).find_map(|item| {
            run.made(item).filter(|(class, _)| *class == "EarlyStoppingCallback").map(|(_, call)| call)
        });
        let Some(call) = made else {
            findings.push(Finding::new(trainer.line(), "a reranker trains past its best", FIX));
            continue;
        };
        let patience = match run.argument_of(call, "early_stopping_patience", Some(0)) {
            Some(place) => run.number(place),
            None => Some(DEFAULT),
        };
        if let Some(patience) = patience.filter(|patience| *patience < PATIENCE) {
            let text = format!("a patience of {patience} stops at the first swing of the metric");
            findings.push(Finding::new(call.line(), text, FIX));
        }
    }
    for (_, call) in arguments(&run) {
        if run.argument_of(call, "load_best_model_at_end", None).is_none()
            || !is_true(&run, call, "load_best_model_at_end")
        {
            findings.push(Finding::new(
                call.line(),
                "training stops past the best model, which is then lost",
                "`load_best_model_at_end=True` among the training arguments",
            ));
        }
    }
    findings
}
