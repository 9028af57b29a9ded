//! The score of sparse embeddings is read beside what it costs.

use super::{Finding, ModelType, OfRecipes, Rule, Script, verdict_line};

pub(in crate::check) const RULE: Rule = Rule {
    id: "active-dims",
    summary: "The verdict of a SparseEncoder has `query_active_dims` and `corpus_active_dims`.",
    model_types: &[ModelType::SparseEncoder],
    recipe: OfRecipes::Kept,
    python,
};

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let verdict = run.trains().last().and_then(|train| verdict_line::line(&run, *train));
    let Some((seen, text)) = verdict else { return Vec::new() };
    let missing: Vec<&str> =
        ["query_active_dims", "corpus_active_dims"].into_iter().filter(|name| !text.contains(name)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    vec![Finding::new(
        seen.line(),
        format!("the verdict lacks {}: a score with dense embeddings is no win", missing.join(" and ")),
        "take them from the evaluator's result by the end of their keys, and put `query_active_dims=... | corpus_active_dims=...` \
         on the line",
    )]
}
