//! Names in the pages are those of the catalogue, and tables have all of their kind.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tallow::catalog::{bases, iterate};
use tallow::data::sampler;
use tallow::eval::{self, trainer_key};
use tallow::flow::ModelType;
use tallow::loss;
use tallow::model::{backbone, module};
use tallow::optim::schedule::SchedulerType;

use super::{Page, pages};
use crate::support::project;

const TYPES: [(ModelType, &str, &str); 4] = [
    (ModelType::SentenceTransformer, "sentence_transformer", "cosine"),
    (ModelType::CrossEncoder, "cross_encoder", ""),
    (ModelType::SparseEncoder, "sparse_encoder", "dot"),
    (ModelType::MultiVectorEncoder, "multi_vector_encoder", "maxsim"),
];

/// Wrappers that go with models of a type.
fn wrappers(model_type: ModelType) -> &'static [&'static str] {
    match model_type {
        ModelType::SentenceTransformer => &["MatryoshkaLoss", "AdaptiveLayerLoss", "Matryoshka2dLoss"],
        ModelType::SparseEncoder => &["SpladeLoss", "CachedSpladeLoss", "CSRLoss"],
        ModelType::CrossEncoder | ModelType::MultiVectorEncoder => &[],
    }
}

/// Words that end in `ending`, in the whole text: names of classes.
fn words(page: &Page, ending: &str) -> BTreeSet<String> {
    let words = page.text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.ends_with(ending));
    words.filter(|word| word.len() > ending.len() && word.starts_with(char::is_uppercase)).map(str::to_owned).collect()
}

fn must_have<'a>(page: &Page, names: impl IntoIterator<Item = &'a str>) {
    let spans = page.spans();
    for name in names {
        assert!(spans.iter().any(|span| span == name), "{} does not name `{name}`", page.name);
    }
}

#[test]
fn pages_on_losses_have_them_all_and_no_others() {
    for (model_type, part, _) in TYPES {
        let page = Page::read(&format!("losses_{part}.md"));
        let known: BTreeSet<&str> = loss::names_for(model_type).chain(wrappers(model_type).iter().copied()).collect();
        must_have(&page, known.iter().copied());
        for word in words(&page, "Loss") {
            assert!(known.contains(word.as_str()), "{}: there is no `{word}`", page.name);
        }
    }
    let wrapped = TYPES.iter().map(|(model_type, ..)| wrappers(*model_type).len()).sum::<usize>();
    assert_eq!(wrapped, loss::wrap::WRAPPERS.len(), "a wrapper has no page");
}

#[test]
fn pages_on_evaluators_have_them_all_and_their_keys() {
    for (model_type, part, similarity) in TYPES {
        let page = Page::read(&format!("evaluators_{part}.md"));
        let spans = page.spans();
        let entries: Vec<_> = eval::entries().filter(|entry| entry.card.model_types.contains(&model_type)).collect();
        must_have(&page, entries.iter().map(|entry| entry.card.name));
        for word in words(&page, "Evaluator") {
            assert!(entries.iter().any(|entry| entry.card.name == word), "{}: there is no `{word}`", page.name);
        }
        for entry in entries {
            let mut settings = Map::new();
            if !entry.card.name.contains("NanoBEIR") {
                settings.insert("name".to_owned(), "dev".into());
            }
            if entry.card.name == "MSEEvaluatorFromDataFrame" {
                settings.insert("combinations".to_owned(), json!([["en", "de"]]));
            }
            let key = trainer_key(&entry.primary_key(&settings, similarity).unwrap());
            assert!(spans.contains(&key), "{}: {} has the key `{key}`", page.name, entry.card.name);
            let row = page.text.lines().find(|line| line.contains(&format!("`{}`", entry.card.name))).unwrap();
            assert!(row.contains(&key), "{}: {row}", page.name);
        }
    }
}

#[test]
fn classes_named_anywhere_exist() {
    let losses: BTreeSet<&str> = TYPES
        .iter()
        .flat_map(|(model_type, ..)| loss::names_for(*model_type).chain(wrappers(*model_type).iter().copied()))
        .collect();
    for page in pages() {
        for word in words(&page, "Loss") {
            assert!(losses.contains(word.as_str()), "{}: there is no `{word}`", page.name);
        }
        for word in words(&page, "Evaluator") {
            assert!(eval::cards().any(|card| card.name == word), "{}: there is no `{word}`", page.name);
        }
    }
}

#[test]
fn samplers_schedules_networks_and_modules_are_all_there() {
    let arguments = Page::read("training_args.md");
    must_have(&arguments, sampler::cards().map(|card| card.name));
    must_have(&arguments, SchedulerType::ALL.iter().map(|schedule| schedule.name()));
    let architectures = Page::read("model_architectures.md");
    must_have(&architectures, backbone::SUPPORTED.iter().map(|network| network.model_type));
    must_have(&architectures, module::CARDS.iter().map(|card| card.name));
}

/// What stands behind a key in the schema; a table of any keys, or one of several, knows no names.
fn below<'a>(schema: &'a Value, node: &'a Value, name: &str) -> Option<&'a Value> {
    let node = match node["$ref"].as_str() {
        Some(place) => schema.pointer(place.trim_start_matches('#')).unwrap(),
        None => node,
    };
    if let Some(found) = node["properties"].get(name) {
        return Some(found);
    }
    let choices = ["anyOf", "oneOf", "allOf"].iter().filter_map(|of| node[of].as_array()).flatten();
    choices.chain([&node["items"]]).filter(|choice| choice.is_object()).find_map(|choice| below(schema, choice, name))
}

/// Keys of recipes that a page names, as `args.bf16` or `[model.lora]`, without values.
fn keys(page: &Page) -> Vec<String> {
    const TABLES: [&str; 5] = ["args", "hub", "model", "train_dataset", "eval_dataset"];
    let spans = page.spans().into_iter();
    let spans = spans.map(|span| span.split(" = ").next().unwrap_or_default().trim_matches(['[', ']']).to_owned());
    let is_key = |key: &String| {
        let mut parts = key.split('.');
        TABLES.contains(&parts.next().unwrap_or_default())
            && parts.clone().next().is_some()
            && parts.all(|part| {
                !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
            })
    };
    spans.filter(is_key).collect()
}

#[test]
fn keys_of_recipes_exist() {
    let schema = tallow::recipe::json_schema();
    let mut failed = Vec::new();
    let mut seen = 0;
    // the page about checks shows mistakes
    for page in pages().iter().filter(|page| page.name != "checks.md") {
        for key in keys(page) {
            seen += 1;
            if key.split('.').try_fold(&schema, |node, part| below(&schema, node, part)).is_none() {
                failed.push(format!("{}: there is no key `{key}`", page.name));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(seen > 60, "{seen} keys were found");
}

/// Rules of `check` that the skill names have a line on the page about them.
#[test]
fn ids_of_rules_are_on_their_page() {
    let checks = Page::read("checks.md");
    for span in pages().iter().filter(|page| page.name != "checks.md").flat_map(Page::spans) {
        let is_id =
            span.contains('-') && !span.starts_with('-') && span.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let proposes = iterate::RULES.iter().any(|rule| rule.id == span) || span == iterate::EXHAUSTED;
        if is_id && !proposes && !NO_RULES.contains(&span.as_str()) {
            assert!(checks.text.contains(&format!("| `{span}` |")), "there is no rule `{span}`");
        }
    }
}

/// Every rule of proposals has a line on the page about experiments, as it says it itself.
#[test]
fn rules_of_proposals_are_on_their_page() {
    let page = Page::read("experiments.md");
    for rule in iterate::RULES {
        let line = format!("| `{}` | {} |", rule.id, rule.summary);
        assert!(page.text.contains(&line), "the page about experiments lacks the line\n{line}");
    }
}

/// Names with hyphens that are none of rules: models, formats, networks, machines.
const NO_RULES: [&str; 10] = [
    "base-model",
    "reranker-model",
    "splade-model",
    "colbert-model",
    "teacher-model",
    "labeled-pair",
    "labeled-list",
    "n-tuple",
    "xlm-roberta",
    "cpu-upgrade",
];

/// Tools of the MCP server, as its own test has them.
#[test]
fn tools_are_those_of_the_server() {
    let surface = std::fs::read_to_string(project("tests/it/mcp/snapshots/it__mcp__mcp_tools.snap")).unwrap();
    let tools: BTreeSet<&str> =
        surface.lines().filter_map(|line| line.strip_prefix("    \"name\": \"")?.strip_suffix("\",")).collect();
    let skill = Page::read("SKILL.md");
    must_have(&skill, tools.iter().copied());
    let rows = skill.text.lines().filter(|line| line.starts_with("| ") && line.split('|').count() == 6);
    let named: Vec<&str> = rows.flat_map(|row| row.split('|').nth(3).unwrap().split('`').skip(1).step_by(2)).collect();
    assert!(named.len() >= 7, "{named:?}");
    for name in named {
        assert!(tools.contains(name), "there is no tool `{name}`");
    }
}

/// Facts of published models are those of the list that advice goes by.
#[test]
fn base_models_are_those_of_the_list() {
    let page = Page::read("base_model_selection.md");
    let mut seen = 0;
    for row in page.text.lines().filter(|line| line.split('|').count() == 8) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let ids: Vec<&str> = cells[2].split('`').skip(1).step_by(2).filter(|id| id.contains('/')).collect();
        for (i, id) in ids.iter().enumerate() {
            let known = bases::find(id).unwrap_or_else(|| panic!("`{id}` is not on the list"));
            // one for all, or one each
            let of = |cell: &str| cell.split(", ").nth(i).or(cell.split(", ").next()).unwrap_or_default().to_owned();
            let prompts = match known.prompts {
                ["", ""] => "",
                [_, ""] => "query",
                _ => "both",
            };
            let facts = (known.parameters.to_string(), known.max_seq_length.to_string());
            assert_eq!((of(cells[3]), of(cells[4])), facts, "{id}");
            assert_eq!((cells[5], cells[6]), (known.licence, prompts), "{id}");
            seen += 1;
        }
    }
    assert!(seen >= 15, "{seen} models were found");
}
