//! What does a person ask an agent for? Prompts that lead through the tools in the right order.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::library::ROOT;
use super::run_files;
use crate::catalog::bases;
use crate::error::{Error, Result};
use crate::render;
use crate::util::{files, suggest};

/// An argument of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    pub name: &'static str,
    pub description: &'static str,
    /// What stands in its place where it is left out.
    pub missing: &'static str,
}

/// A prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompt {
    pub name: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub arguments: &'static [Argument],
}

const fn argument(name: &'static str, description: &'static str, missing: &'static str) -> Argument {
    Argument { name, description, missing }
}

const TRAINING: &[Argument] = &[
    argument("task", "What the model is for, in plain words", "(ask the user what the model is for)"),
    argument("data", "The training data: a file, a glob or a directory", "(ask the user where the training data are)"),
    argument("eval", "Held-out data to measure with", "(hold out a part that nothing is trained on)"),
    argument("base", "The model to start from: a folder or an id on the Hub", "(as `recommend_loss` says)"),
];

/// All prompts.
pub const PROMPTS: &[Prompt] = &[
    Prompt {
        name: "train_a_retriever",
        title: "Train a retriever",
        description: "From data to an embedding model for search, with a verdict",
        arguments: TRAINING,
    },
    Prompt {
        name: "train_a_reranker",
        title: "Train a reranker",
        description: "From data to a CrossEncoder that orders what a search found, with a verdict",
        arguments: TRAINING,
    },
    Prompt {
        name: "train_a_sparse_encoder",
        title: "Train a sparse encoder",
        description: "From data to a SPLADE model for an inverted index, with a verdict and its active dimensions",
        arguments: TRAINING,
    },
    Prompt {
        name: "improve_last_run",
        title: "Improve the last run",
        description: "What a run showed, the next change, and whether it was better",
        arguments: &[
            argument("run", "The run: its id or the beginning of it", "the last run (`run_status` without a run)"),
            argument("goal", "What should become better", ""),
        ],
    },
];

#[derive(Serialize)]
struct Context {
    skill: &'static str,
    #[serde(flatten)]
    arguments: Map<String, Value>,
}

/// The prompt of that name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Prompt> {
    PROMPTS.iter().find(|prompt| prompt.name == name).ok_or_else(|| {
        Error::usage(format!("there is no prompt `{name}`"))
            .with_hint(suggest::hint(name, PROMPTS.iter().map(|prompt| prompt.name)))
    })
}

/// The text of a prompt with what was given.
///
/// # Errors
/// When there is no such prompt, or it has no such argument.
pub fn text(name: &str, given: &Map<String, Value>) -> Result<String> {
    let prompt = find(name)?;
    let known = || prompt.arguments.iter().map(|argument| argument.name);
    if let Some(unknown) = given.keys().find(|key| !known().any(|name| name == key.as_str())) {
        return Err(Error::usage(format!("prompt `{name}` has no argument `{unknown}`"))
            .with_hint(suggest::hint(unknown, known())));
    }
    let value = |argument: &Argument| {
        let text = given.get(argument.name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
        let text = text
            .map_or_else(|| argument.missing.to_owned(), |text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        match (argument.name, text.as_str()) {
            ("goal", "") => text,
            ("goal", goal) => format!("\nWhat should become better: {goal}\n"),
            _ => text,
        }
    };
    let arguments = prompt.arguments.iter().map(|a| (a.name.to_owned(), Value::String(value(a)))).collect();
    render::render(&format!("prompts/{name}.md"), &Context { skill: ROOT, arguments })
}

/// What an argument of a prompt may begin with `begun` for: runs, files of rows, base models.
#[must_use]
pub fn completions(argument: &str, begun: &str) -> Vec<String> {
    let all = match argument {
        "run" => run_files::known(100).unwrap_or_default().into_iter().map(|run| run.id).collect(),
        "data" | "eval" => data_files(Path::new("."), 3),
        "base" => bases::PUBLISHED.iter().map(|known| known.id.to_owned()).collect(),
        _ => Vec::new(),
    };
    all.into_iter().filter(|value: &String| value.starts_with(begun)).collect()
}

/// Files of rows in a folder and those in it, hidden ones and what runs wrote left out.
fn data_files(folder: &Path, depth: usize) -> Vec<String> {
    const ENDINGS: [&str; 5] = ["jsonl", "csv", "tsv", "parquet", "arrow"];
    let mut found = Vec::new();
    for path in files::list(folder).unwrap_or_default() {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') || ["runs", "logs", "target", "node_modules"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            if depth > 0 {
                found.extend(data_files(&path, depth - 1));
            }
        } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)) {
            found.push(path.strip_prefix(".").unwrap_or(&path).display().to_string());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Map<String, Value> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect()
    }

    #[test]
    fn every_prompt_renders_with_and_without_arguments() {
        for prompt in PROMPTS {
            let bare = text(prompt.name, &Map::new()).unwrap();
            let all: Vec<(&str, &str)> = prompt.arguments.iter().map(|a| (a.name, "a\n given one")).collect();
            let full = text(prompt.name, &given(&all)).unwrap();
            assert_ne!(bare, full);
            assert_eq!(full.matches("a given one").count(), prompt.arguments.len(), "{full}");
            assert!(full.contains("smoke_test") && full.contains("run_status"), "{full}");
        }
    }

    #[test]
    fn files_of_rows_are_offered() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        ["a.jsonl", "deep/b.parquet", ".hidden/c.csv", "runs/d.jsonl", "e.txt"].into_iter().for_each(put);
        let found = data_files(dir.path(), 2);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("a.jsonl") && found[1].ends_with("deep/b.parquet"), "{found:?}");
        assert!(completions("base", "sentence-transformers/").iter().any(|id| id.contains("MiniLM")));
        assert!(completions("task", "").is_empty());
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert!(text("train_a_retriver", &Map::new()).unwrap_err().hint().unwrap().contains("train_a_retriever"));
        let wrong = text("train_a_reranker", &given(&[("dat", "x")])).unwrap_err();
        assert!(wrong.to_string().contains("`dat`") && wrong.hint().unwrap().contains("data"), "{wrong}");
    }
}
