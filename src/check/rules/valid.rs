//! A recipe says only what a recipe can say.

use super::{OfRecipes, Rule};

pub(in crate::check) const RULE: Rule = Rule {
    id: "valid",
    summary: "The file can be run: no unknown keys, wrong types, missing files or settings that exclude each other.",
    model_types: &[],
    // what resolving it refuses and no other rule is about
    recipe: OfRecipes::Looked(|_| Vec::new()),
    // a script that is no Python is not checked at all
    python: |_| Vec::new(),
};
