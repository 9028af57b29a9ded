//! The skill and the pages beside it: every name in them exists, every command runs, every recipe can be read, and an agent
//! has little to read.

mod commands;
mod names;
mod place;
mod recipes;

use std::path::Path;

use tallow::flow::ModelType;

use crate::support::project;

/// Pages that are looked things up in, not read: generated, measured, or for those who change the program.
const LOOKED_UP: [&str; 4] = ["catalogue.md", "decisions.md", "performance.md", "results.md"];

/// A page with its text.
struct Page {
    /// `SKILL.md`, or a page's name in `references`.
    name: String,
    text: String,
}

/// A fenced part of a page.
struct Block {
    language: String,
    text: String,
}

impl Page {
    fn read(name: &str) -> Self {
        let path = project(if name == "SKILL.md" { "" } else { "references" }).join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { name: name.to_owned(), text }
    }

    /// The type that a page is about; those about all types are read as about the first.
    fn model_type(&self) -> ModelType {
        let named = |part: &str| self.name.ends_with(&format!("_{part}.md"));
        match () {
            () if named("cross_encoder") => ModelType::CrossEncoder,
            () if named("sparse_encoder") => ModelType::SparseEncoder,
            () if named("multi_vector_encoder") => ModelType::MultiVectorEncoder,
            () => ModelType::SentenceTransformer,
        }
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            let Some(language) = line.strip_prefix("```") else { continue };
            let text: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            blocks.push(Block { language: language.to_owned(), text: text.join("\n") });
        }
        blocks
    }

    /// The text between backticks in prose and tables.
    fn spans(&self) -> Vec<String> {
        let mut fenced = false;
        let mut spans = Vec::new();
        for line in self.text.lines() {
            if line.starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
            }
        }
        spans
    }

    /// Where its links lead, but for those to other places.
    fn links(&self) -> Vec<String> {
        let targets = self.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
    }
}

/// The skill and the pages that are read.
fn pages() -> Vec<Page> {
    let mut names: Vec<String> = std::fs::read_dir(project("references"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == "md") && !LOOKED_UP.contains(&name.as_str()))
        .collect();
    names.sort();
    names.insert(0, "SKILL.md".to_owned());
    names.iter().map(|name| Page::read(name)).collect()
}

/// What a heading is called in links.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn pages_are_short_and_begin_with_the_decision() {
    for page in pages() {
        let (length, table) = (page.text.chars().count(), page.text.find("\n|").unwrap_or(usize::MAX));
        let (most, first) = if page.name == "SKILL.md" { (12_000, 2_400) } else { (8_000, 1_000) };
        assert!(length <= most, "{} has {length} characters, {most} are the most", page.name);
        // a rule or two may come before the table
        assert!(table < first, "{} begins with something else than a table", page.name);
        assert!(page.text.starts_with("# ") || page.name == "SKILL.md", "{} has no title", page.name);
    }
}

#[test]
fn what_a_common_task_needs_is_little() {
    let skill = Page::read("SKILL.md");
    let length = |name: &str| Page::read(name).text.chars().count();
    for part in ["sentence_transformer", "cross_encoder", "sparse_encoder", "multi_vector_encoder"] {
        let required = [format!("losses_{part}.md"), format!("evaluators_{part}.md"), "training_args.md".to_owned()];
        for page in &required {
            assert!(skill.text.contains(&format!("(references/{page})")), "SKILL.md does not lead to {page}");
        }
        let characters = skill.text.chars().count() + required.iter().map(|page| length(page)).sum::<usize>();
        assert!(characters <= 4 * 6_000, "{part}: {characters} characters, about four a token");
    }
}

#[test]
fn the_skill_keeps_to_the_specification() {
    let text = Page::read("SKILL.md").text;
    let (head, body) = text.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap();
    let field = |key: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
        line.unwrap_or_else(|| panic!("SKILL.md has no `{key}`")).to_owned()
    };
    let (name, description) = (field("name"), field("description"));
    assert!(
        name.len() <= 64 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
        "{name}"
    );
    let length = description.chars().count();
    assert!((100..1024).contains(&length), "the description has {length} characters");
    // a plain value of YAML
    assert!(!description.contains(": ") && !description.contains(" #"), "{description}");
    assert!(body.lines().count() < 500 && body.chars().count() < 3 * 5_000, "the body is long");
}

#[test]
fn links_lead_somewhere() {
    for page in pages().into_iter().chain(LOOKED_UP.map(Page::read)) {
        for link in page.links() {
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let folder = if page.name == "SKILL.md" { "" } else { "references/" };
            let target = match file {
                "" => format!("{folder}{}", page.name),
                file => format!("{folder}{file}"),
            };
            let target = project(&target);
            assert!(target.exists(), "{}: there is no {link}", page.name);
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter_map(|line| line.strip_prefix('#'));
                assert!(
                    headings.any(|line| anchor(line.trim_start_matches('#')) == heading),
                    "{}: {link} leads to no heading",
                    page.name
                );
            }
        }
    }
}

#[test]
fn every_page_is_led_to() {
    let skill = Page::read("SKILL.md");
    for page in pages().iter().skip(1) {
        assert!(skill.text.contains(&format!("(references/{}", page.name)), "SKILL.md does not lead to {}", page.name);
    }
}
