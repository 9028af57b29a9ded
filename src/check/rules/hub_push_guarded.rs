//! Publishing comes last, and its failure loses nothing.

use tree_sitter::Node;

use super::{Finding, OfRecipes, Rule, Run, Script};

pub(in crate::check) const RULE: Rule = Rule {
    id: "hub-push-guarded",
    summary: "Publishing comes after the model is saved, and its failure is caught.",
    model_types: &[],
    recipe: OfRecipes::Kept,
    python,
};

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let Some(train) = run.trains().last().copied() else { return Vec::new() };
    let saves = ["save_pretrained", "save_model", "save"];
    let mut findings = Vec::new();
    for push in run.calls().filter(|seen| run.name(*seen) == "push_to_hub") {
        if !run.tries(push).into_iter().any(|attempt| catches(&run, attempt)) {
            findings.push(Finding::new(
                push.line(),
                "a failure to publish ends the run",
                "`try: model.push_to_hub(...)` and `except Exception: logging.exception(\"...\")` around it",
            ));
        }
        let saved = |seen: &super::Seen<'_>| {
            seen.order < push.order && seen.order > train.order && saves.contains(&run.name(*seen))
        };
        if !run.calls().any(|seen| saved(&seen)) {
            findings.push(Finding::new(
                push.line(),
                "the model is published before it is trained and saved",
                "`model.save_pretrained(...)` after training, and publish then",
            ));
        }
    }
    findings
}

/// Whether a `try` goes on after any failure.
fn catches(run: &Run<'_>, attempt: Node<'_>) -> bool {
    let mut cursor = attempt.walk();
    let mut broad = false;
    for clause in attempt.named_children(&mut cursor).filter(|node| node.kind() == "except_clause") {
        let source = run.source(clause);
        let head = source.split(':').next().unwrap_or_default();
        let any = ["except", "except Exception", "except BaseException"]
            .iter()
            .any(|own| head.split(" as ").next().unwrap_or_default().trim() == *own);
        if any {
            broad = !raises(clause);
        }
    }
    broad
}

fn raises(node: Node<'_>) -> bool {
    let mut cursor = node.walk();
    node.kind() == "raise_statement" || node.named_children(&mut cursor).any(raises)
}
