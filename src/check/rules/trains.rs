//! A script trains.

use super::{Finding, OfRecipes, Rule, Script};

pub(in crate::check) const RULE: Rule = Rule {
    id: "trains",
    summary: "`trainer.train()` of a sentence-transformers Trainer is called.",
    model_types: &[],
    recipe: OfRecipes::Never,
    python,
};

fn python(script: &Script) -> Vec<Finding> {
    if script.walk().trains().is_empty() {
        vec![Finding::new(
            None,
            "nothing is trained: no `train()` of a Trainer runs",
            "call `trainer.train()` from what the script runs, outside dead code",
        )]
    } else {
        Vec::new()
    }
}
