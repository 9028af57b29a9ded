//! What is built into the program: the templates, by name.

/// Name and source of every template.
pub const TEMPLATES: &[(&str, &str)] = &[("model_card.md", include_str!("../../templates/model_card.md.j2"))];
