//! Nothing keeps sparse embeddings sparse but a regulariser.

use super::{Finding, ModelType, OfRecipes, Rule, Script};

const REGULARIZED: [&str; 3] = ["SpladeLoss", "CachedSpladeLoss", "CSRLoss"];

pub(in crate::check) const RULE: Rule = Rule {
    id: "splade-regularizer",
    summary: "The loss of a SparseEncoder stands inside SpladeLoss, CachedSpladeLoss or CSRLoss.",
    model_types: &[ModelType::SparseEncoder],
    // resolving a recipe refuses it
    recipe: OfRecipes::Looked(|_| Vec::new()),
    python,
};

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let bare = run.trainers().into_iter().flat_map(|trainer| run.losses(trainer));
    bare.filter(|(name, _)| name.starts_with("Sparse") && name.ends_with("Loss") && !REGULARIZED.contains(name))
        .map(|(name, call)| {
            Finding::new(
                call.line(),
                format!("{name} alone leaves embeddings dense"),
                "`SpladeLoss(model=model, loss=..., query_regularizer_weight=5e-5, document_regularizer_weight=3e-5)`",
            )
        })
        .collect()
}
