//! Losses that cache gradients and gradient checkpointing cannot be had together.

use super::{Finding, OfRecipes, Rule, Script, arguments, is_true};

pub(in crate::check) const RULE: Rule = Rule {
    id: "cached-loss-without-checkpointing",
    summary: "`Cached...` losses train without gradient checkpointing.",
    model_types: &[],
    // resolving a recipe refuses it
    recipe: OfRecipes::Looked(|_| Vec::new()),
    python,
};

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let mut findings = Vec::new();
    for trainer in run.trainers() {
        let losses = run.losses(trainer).into_iter().flat_map(|loss| run.nested(loss));
        let Some((name, _)) = losses.into_iter().find(|(name, _)| name.starts_with("Cached")) else { continue };
        let set = arguments(&run)
            .into_iter()
            .find(|(own, call)| own.node.id() == trainer.node.id() && is_true(&run, *call, "gradient_checkpointing"));
        let enabled = run.calls().find(|seen| run.name(*seen) == "gradient_checkpointing_enable");
        let line = set.map(|(_, call)| call.line()).or_else(|| enabled.map(|seen| seen.line()));
        if let Some(line) = line {
            findings.push(Finding::new(
                line,
                format!("{name} runs the network twice by itself, which checkpointing breaks"),
                "leave out `gradient_checkpointing`: the loss's `mini_batch_size` bounds the memory already",
            ));
        }
    }
    findings
}
