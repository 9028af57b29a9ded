//! Where in the file a key stands, and errors that say so.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::overrides::Override;
use crate::error::{Error, Result};

/// Something wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's path, as `args.learning_rate` or `evaluator.0.path`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// The way out, where there is one to tell.
    pub hint: Option<String>,
    /// The id of the check that is broken, where it has one of its own.
    pub rule: Option<&'static str>,
}

impl Problem {
    /// A problem without a hint.
    #[must_use]
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), hint: None, rule: None }
    }

    /// Says which check is broken.
    #[must_use]
    pub fn under(mut self, rule: &'static str) -> Self {
        self.rule = Some(rule);
        self
    }

    /// Adds the way out.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The lines of a recipe's keys, and the keys that were set from outside.
#[derive(Debug, Clone, Default)]
pub struct Locations {
    file: String,
    lines: BTreeMap<String, usize>,
    overrides: Vec<Override>,
}

impl Locations {
    /// Reads where each key of `text` stands.
    ///
    /// # Errors
    /// When `text` is not TOML: with line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let table = DeTable::parse(text).map_err(|e| syntax_error(file, text, e.message(), e.span()))?;
        let mut lines = BTreeMap::new();
        let mut path = Vec::new();
        collect(table.get_ref(), text, &mut path, &mut lines);
        Ok(Self { file: file.to_owned(), lines, overrides: Vec::new() })
    }

    /// Remembers what was set from outside.
    pub fn set_overrides(&mut self, overrides: Vec<Override>) {
        self.overrides = overrides;
    }

    /// The path as the user would write it: a lone `[train_dataset]` has no `.0`.
    #[must_use]
    pub fn display(&self, key: &str) -> String {
        let mut shown: Vec<&str> = Vec::new();
        for segment in key.split('.') {
            let indexed = format!("{}.{segment}", shown.join("."));
            let written = self.lines.contains_key(&indexed)
                || self.overrides.iter().any(|o| o.path == indexed || o.path.starts_with(&format!("{indexed}.")));
            if segment == "0" && !written {
                continue;
            }
            shown.push(segment);
        }
        shown.join(".")
    }

    /// The line `key`, or the nearest table around it, stands on; from 1.
    #[must_use]
    pub fn line(&self, key: &str) -> Option<usize> {
        let shown = self.display(key);
        let mut path = shown.as_str();
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind('.')?];
        }
    }

    fn place(&self, key: &str) -> (usize, String) {
        let covers = |o: &&Override| key == o.path || key.starts_with(&format!("{}.", o.path));
        if let Some(set) = self.overrides.iter().rev().find(covers) {
            return (usize::MAX, format!("in `--set {}`", set.text));
        }
        match self.line(key) {
            Some(line) => (line, format!("line {line}")),
            None => (0, String::new()),
        }
    }

    /// One error for all `problems`, each with its place; `None` when there are none.
    #[must_use]
    pub fn error(&self, problems: Vec<Problem>) -> Option<Error> {
        let mut placed: Vec<_> = problems
            .into_iter()
            .map(|problem| {
                let key = self.display(&problem.key);
                let (order, place) = self.place(&key);
                (order, place, key, problem)
            })
            .collect();
        placed.sort_by_key(|(order, ..)| *order);
        if let [(_, place, key, problem)] = placed.as_slice() {
            let gap = if place.is_empty() { "" } else { " " };
            let error = Error::usage(format!("`{}`{gap}{place}: `{key}`: {}", self.file, problem.message));
            return Some(match &problem.hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            });
        }
        if placed.is_empty() {
            return None;
        }
        let mut text = format!("`{}` has {} problems", self.file, placed.len());
        for (_, place, key, problem) in &placed {
            let colon = if place.is_empty() { "" } else { ": " };
            text += &format!("\n  {place}{colon}`{key}`: {}", problem.message);
            if let Some(hint) = &problem.hint {
                text += &format!(" ({hint})");
            }
        }
        Some(Error::usage(text))
    }
}

fn collect(table: &DeTable<'_>, text: &str, path: &mut Vec<String>, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        lines.insert(path.join("."), position(text, key.span().start).0);
        collect_value(value, text, path, lines);
        path.pop();
    }
}

fn collect_value(
    value: &Spanned<DeValue<'_>>,
    text: &str,
    path: &mut Vec<String>,
    lines: &mut BTreeMap<String, usize>,
) {
    match value.get_ref() {
        DeValue::Table(table) => collect(table, text, path, lines),
        DeValue::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                path.push(i.to_string());
                lines.insert(path.join("."), position(text, item.span().start).0);
                collect_value(item, text, path, lines);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Line and column of a byte offset, both from 1, columns in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn syntax_error(file: &str, text: &str, message: &str, span: Option<Range<usize>>) -> Error {
    let (line, column) = position(text, span.map_or(text.len(), |s| s.start));
    Error::usage(format!("`{file}` line {line}, column {column}: not TOML: {}", message.trim().replace('\n', ", ")))
        .with_hint("texts stand in quotes, tables begin with `[name]`, and each key is written once in its table")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TEXT: &str =
        "seed = 1\n\n[[train_dataset]]\npath = \"a\"\n[[train_dataset]]\npath = \"b\"\n\n[args]\nx.y = 2\n";

    #[test]
    fn keys_have_lines() {
        let l = Locations::parse("r.toml", TEXT).unwrap();
        for (key, line) in [
            ("seed", 1),
            ("train_dataset.0", 3),
            ("train_dataset.0.path", 4),
            ("train_dataset.1.path", 6),
            ("args", 8),
            ("args.x.y", 9),
            ("args.missing", 8),
        ] {
            assert_eq!(l.line(key), Some(line), "{key}");
        }
        assert_eq!(l.line("nowhere"), None);
    }

    #[test]
    fn a_lone_table_is_shown_without_index() {
        let l = Locations::parse("r.toml", "[train_dataset]\npath = \"a\"\n").unwrap();
        assert_eq!(l.display("train_dataset.0.path"), "train_dataset.path");
        assert_eq!(l.line("train_dataset.0.path"), Some(2));
    }

    #[test]
    fn syntax_errors_have_line_and_column() {
        let error = Locations::parse("r.toml", "a = 1\nb = = 2\n").unwrap_err();
        assert!(error.to_string().starts_with("`r.toml` line 2, column 5: not TOML: "), "{error}");
        let error = Locations::parse("r.toml", "a = 1\na = 2\n").unwrap_err();
        assert!(error.to_string().starts_with("`r.toml` line 2, column 1: "), "{error}");
        assert!(Locations::parse("r.toml", "[args\n").unwrap_err().to_string().contains("line 1, column"));
    }

    #[test]
    fn one_problem_is_a_line_and_several_a_list() {
        let l = Locations::parse("r.toml", TEXT).unwrap();
        let one = l.error(vec![Problem::new("seed", "expected a number").with_hint("write one")]).unwrap();
        assert_eq!(one.to_string(), "`r.toml` line 1: `seed`: expected a number");
        assert_eq!(one.hint(), Some("write one"));
        let many = l.error(vec![Problem::new("args.z", "unknown key"), Problem::new("seed", "bad").with_hint("why")]);
        assert_eq!(
            many.unwrap().to_string(),
            "`r.toml` has 2 problems\n  line 1: `seed`: bad (why)\n  line 8: `args.z`: unknown key"
        );
        assert!(l.error(Vec::new()).is_none());
    }
}
