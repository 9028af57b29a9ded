//! What is there to read? The skill with its references and templates, built into the program.

use std::sync::OnceLock;

use crate::render::assets::{DOCUMENTS, TEMPLATES};

/// Where the skill's files stand for MCP clients.
pub const ROOT: &str = "skill://train-sentence-transformers-rs/";

/// A file of the skill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// As in the project: `SKILL.md`, `references/training_args.md`, `templates/recipe/_base.toml.j2`.
    pub path: String,
    /// Its heading, or its path.
    pub title: String,
    /// `text/markdown`, `text/x-jinja2`.
    pub mime_type: &'static str,
    pub text: &'static str,
}

impl Document {
    /// Its address.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{ROOT}{}", self.path)
    }
}

/// All of them: the skill first, then references, then templates.
#[must_use]
pub fn documents() -> &'static [Document] {
    static ALL: OnceLock<Vec<Document>> = OnceLock::new();
    ALL.get_or_init(|| {
        let pages = DOCUMENTS.iter().map(|(path, text)| Document {
            path: (*path).to_owned(),
            title: heading(text).unwrap_or(path).to_owned(),
            mime_type: "text/markdown",
            text,
        });
        let templates = TEMPLATES.iter().map(|(name, text)| Document {
            path: format!("templates/{name}.j2"),
            title: format!("Template {name}"),
            mime_type: "text/x-jinja2",
            text,
        });
        pages.chain(templates).collect()
    })
}

/// The document at an address, or with that path.
#[must_use]
pub fn find(uri: &str) -> Option<&'static Document> {
    let path = uri.strip_prefix(ROOT).unwrap_or(uri);
    documents().iter().find(|document| document.path == path)
}

/// The first heading of a page.
fn heading(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("# ")).map(str::trim)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn documents_are_found_by_address_and_path() {
        let skill = &documents()[0];
        assert_eq!((skill.path.as_str(), skill.mime_type), ("SKILL.md", "text/markdown"));
        assert!(
            skill
                .text
                .starts_with(&format!("---\nname: {}\n", ROOT.trim_start_matches("skill://").trim_end_matches('/')))
        );
        assert_eq!(find(&skill.uri()), Some(skill));
        assert_eq!(find("templates/recipe/_base.toml.j2").unwrap().mime_type, "text/x-jinja2");
        assert!(find("references/no.md").is_none() && find("../Cargo.toml").is_none());
    }

    #[test]
    fn every_page_is_built_in() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("references");
        let mut pages: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| format!("references/{}", entry.unwrap().file_name().to_str().unwrap()))
            .filter(|path| path.ends_with(".md"))
            .collect();
        pages.sort();
        let built_in: Vec<&str> = DOCUMENTS.iter().map(|(path, _)| *path).filter(|p| p.starts_with("ref")).collect();
        assert_eq!(built_in, pages);
    }
}
