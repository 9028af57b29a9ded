//! Whatever can be chosen is documented, shown in use, and compared with the reference.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tallow::catalog;
use tallow::flow::ModelType;

use crate::support::project;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The recipe snippets of the doc comments in a folder.
fn snippets(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    sources(&project(folder), &mut files);
    let mut snippets = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        for part in text.split("/// ```toml\n").skip(1) {
            let lines = part.lines().take_while(|line| !line.trim_start().starts_with("/// ```"));
            snippets.push(
                lines.map(|line| line.trim_start().trim_start_matches("///").trim()).collect::<Vec<_>>().join("\n"),
            );
        }
    }
    snippets
}

#[test]
fn the_page_says_what_the_cards_say() {
    let file = project("references/catalogue.md");
    let page = catalog::page() + &tallow::draft::variants::page();
    if std::env::var_os("UPDATE_REFERENCES").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "write it again: UPDATE_REFERENCES=1 cargo test --test it catalogue");
}

#[test]
fn every_loss_shows_a_recipe_that_can_be_built() {
    let snippets: Vec<(String, Value)> = snippets("src/loss")
        .into_iter()
        .map(|text| {
            let recipe = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            (text, recipe)
        })
        .collect();
    for model_type in [ModelType::SentenceTransformer, ModelType::CrossEncoder, ModelType::SparseEncoder] {
        // Without a model type it is a bi-encoder's.
        let own = |recipe: &Value| {
            recipe.get("model_type").and_then(Value::as_str).unwrap_or("SentenceTransformer") == model_type.name()
        };
        for name in tallow::loss::names_for(model_type) {
            let named = |text: &str| {
                text.contains(&format!("\"{name}\""))
                    || (name == "MatryoshkaLoss" && text.contains("[loss.matryoshka]"))
            };
            let shown: Vec<_> = snippets.iter().filter(|(text, recipe)| named(text) && own(recipe)).collect();
            assert!(!shown.is_empty(), "{name} of {model_type} shows no recipe");
            for (snippet, recipe) in shown {
                let mut table =
                    recipe["loss"].as_object().unwrap_or_else(|| panic!("{name}: no [loss]\n{snippet}")).clone();
                let named = table.remove("name").unwrap();
                let settings = table.into_iter().collect();
                let built = tallow::loss::build_for(model_type, named.as_str().unwrap(), &settings);
                built.unwrap_or_else(|e| panic!("{name}: {e}\n{snippet}"));
            }
        }
    }
}

#[test]
fn every_evaluator_shows_a_recipe() {
    let snippets = snippets("src/eval");
    for card in tallow::eval::cards() {
        let shown = snippets.iter().find(|s| s.contains(&format!("\"{}\"", card.name)));
        let shown = shown.unwrap_or_else(|| panic!("{} shows no recipe", card.name));
        let recipe: Value = toml::from_str(shown).unwrap_or_else(|e| panic!("{}: {e}\n{shown}", card.name));
        assert!(recipe["evaluator"][0]["type"] == card.name, "{shown}");
    }
}

#[test]
fn cards_are_filled_in() {
    for section in catalog::sections() {
        assert!(section.cards.len() >= 2 || section.title == "Losses around losses", "{}", section.title);
        for card in section.cards {
            assert!(card.summary.len() > 20 && card.summary.ends_with('.'), "{}", card.name);
            assert!(!card.inputs.is_empty(), "{} takes nothing", card.name);
        }
    }
}
