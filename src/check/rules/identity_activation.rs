//! A reranker's scores are logits under losses that train logits.

use super::{Finding, ModelType, OfRecipes, Rule, Script};

/// Losses after which a model's own activation may stay.
const OWN: [&str; 2] = ["BinaryCrossEntropyLoss", "CrossEntropyLoss"];

pub(in crate::check) const RULE: Rule = Rule {
    id: "identity-activation",
    summary: "Losses other than BinaryCrossEntropyLoss and CrossEntropyLoss have `activation_fn` Identity.",
    model_types: &[ModelType::CrossEncoder],
    // resolving a recipe settles it, or refuses another one
    recipe: OfRecipes::Looked(|_| Vec::new()),
    python,
};

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let mut findings = Vec::new();
    let identity = |text: &str| text.contains("Identity");
    let later = run.settings().any(|seen| {
        let field = |name| seen.place.node.child_by_field_name(name).map(|node| run.text(node)).unwrap_or_default();
        field("left").ends_with(".activation_fn") && identity(field("right"))
    });
    for trainer in run.trainers() {
        let losses = run.losses(trainer);
        let Some((name, loss)) = losses.iter().find(|(name, _)| name.ends_with("Loss") && !OWN.contains(name)) else {
            continue;
        };
        // MSELoss may compare what an activation of its own makes of logits
        if *name == "MSELoss" && run.argument_of(*loss, "activation_fn", None).is_some() {
            continue;
        }
        let made = run.argument_of(trainer, "model", Some(0)).and_then(|model| run.made(model));
        let Some((_, call)) = made else { continue };
        let names = ["activation_fn", "default_activation_function"];
        let given = names.iter().find_map(|name| run.argument_of(call, name, None));
        let fine = given.is_some_and(|place| identity(run.text(run.resolve(place).node)));
        if !fine && !later {
            findings.push(Finding::new(
                call.line(),
                format!("{name} trains logits of any size, and a sigmoid makes those of good passages equal"),
                "`CrossEncoder(..., num_labels=1, activation_fn=torch.nn.Identity())`",
            ));
        }
    }
    findings
}
