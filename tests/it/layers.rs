//! Who may import whom: downwards only, and siblings on one line never import each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From the top; modules of one line are siblings.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli", "mcp"],
    &["verbs"],
    &["runs"],
    &["train", "check", "draft"],
    &["recipe"],
    &["catalog"],
    &["data", "model", "loss", "eval", "optim", "negatives", "render", "hub"],
    &["scoring"],
    &["ops", "flow"],
    &["util"],
    &["error"],
];

/// The fronts are thin: they see the verbs and nothing behind them.
const FRONTS: &[&str] = &["cli", "mcp"];
const SEEN_BY_FRONTS: &[&str] = &["verbs", "error"];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|line| line.contains(&module))
}

/// Why `from` may not import `to`, if it may not.
fn verdict(from: &str, to: &str) -> Option<String> {
    if from == to {
        return None;
    }
    let (Some(above), Some(below)) = (layer(from), layer(to)) else {
        return Some(format!("`{from}` or `{to}` has no place in the layers"));
    };
    if FRONTS.contains(&from) && !SEEN_BY_FRONTS.contains(&to) {
        return Some(format!("`{from}` is a front and may only import {SEEN_BY_FRONTS:?}, not `{to}`"));
    }
    if above == below {
        return Some(format!("`{from}` and `{to}` are siblings"));
    }
    (above > below).then(|| format!("`{from}` lies below `{to}`"))
}

/// The top-level modules that `crate::` paths in `source` name, with their lines.
fn imports(source: &str, root: &str) -> Vec<(usize, String)> {
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices(root) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + root.len()..];
        // macros live at the root wherever they are written
        if rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').starts_with('!') {
            continue;
        }
        found.extend(heads(rest).into_iter().map(|name| (line, name)));
    }
    found
}

/// The first name of a path, or of each path in braces.
fn heads(path: &str) -> Vec<String> {
    let name =
        |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(group) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => parts.push(String::new()),
            c => parts.last_mut().unwrap().push(c),
        }
    }
    parts.iter().map(|p| name(p)).filter(|n| !n.is_empty()).collect()
}

/// `crate::Error` and the like are `error`'s, re-exported.
fn module_of(name: &str) -> &str {
    if matches!(name, "Error" | "Result") { "error" } else { name }
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn imports_point_downwards() {
    let root = src();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in &files {
        let relative = file.strip_prefix(&root).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.strip_suffix(".rs").unwrap_or(first);
        if module == "lib" {
            continue;
        }
        let text = std::fs::read_to_string(file).unwrap();
        let prefix = if module == "main" { "tallow::" } else { "crate::" };
        for (line, name) in imports(&text, prefix) {
            // names declared by a macro of ours
            if name.is_empty() || (name.chars().next().is_some_and(char::is_uppercase) && module_of(&name) == name) {
                continue;
            }
            seen += 1;
            if let Some(reason) = verdict(module, module_of(&name)) {
                wrong.push(format!("src/{}:{line}: {reason}", relative.display()));
            }
        }
    }
    assert!(seen > 50, "only {seen} imports were found: the reader is broken");
    assert!(wrong.is_empty(), "{} imports point the wrong way:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_folder_says_which_question_it_answers() {
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(src()).unwrap() {
        let file = entry.unwrap().path().join("mod.rs");
        if let Ok(text) = std::fs::read_to_string(&file) {
            let first = text.lines().next().unwrap_or_default();
            if !first.starts_with("//! ") || !first.contains('?') {
                wrong.push(format!("{}: {first}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_sees_what_it_should() {
    let source = "use crate::error::Result;\n// use crate::cli;\nuse crate::{flow::{Batch, Labels}, util::files};\n\
                  fn f() -> crate::runs::State { not_crate::x() }\n";
    let names: BTreeSet<String> = imports(source, "crate::").into_iter().map(|(_, n)| n).collect();
    assert_eq!(names, ["error", "flow", "util", "runs"].map(String::from).into());
    assert!(verdict("train", "recipe").is_none());
    assert!(verdict("recipe", "train").unwrap().contains("below"));
    assert!(verdict("data", "model").unwrap().contains("siblings"));
    assert!(verdict("mcp", "runs").unwrap().contains("front"));
    assert!(verdict("mcp", "cli").is_some() && verdict("cli", "error").is_none());
    assert!(verdict("verbs", "nowhere").unwrap().contains("no place"));
}
