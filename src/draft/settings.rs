//! A user's settings in the places where a template asks for keys.
//!
//! A template prints a line `key = value` with `key(path, default)`. What it never asks for is printed where it says
//! `rest(table)`, once all of it has been rendered: only then it is known what is left.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::render::Keys;

/// A line that is to vanish.
const NOTHING: &str = "\u{1}";
/// Around the table whose rest is printed here.
const REST: char = '\u{2}';
/// Where whole tables are printed that the template does not have.
const TABLES: &str = "\u{3}";

#[derive(Debug, Default)]
struct State {
    tree: Map<String, Value>,
    /// The keys the template asked for.
    asked: BTreeSet<String>,
    /// The tables whose rest it prints.
    tables: BTreeSet<String>,
}

/// Settings that a template asks for.
#[derive(Debug, Clone)]
pub(super) struct Filled(Arc<Mutex<State>>);

impl Filled {
    pub(super) fn new(tree: Map<String, Value>) -> Self {
        Self(Arc::new(Mutex::new(State { tree, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The text with everything in its place.
    ///
    /// # Errors
    /// When the template leaves a setting without a place, which is a fault of the program.
    pub(super) fn finish(&self, rendered: &str) -> Result<String> {
        let mut out = String::new();
        let mut blank = 0;
        let mut printed = BTreeSet::new();
        for line in rendered.lines() {
            let text = if let Some(table) = line.strip_prefix(REST) {
                self.rest_of(table.trim_end_matches(REST), &mut printed)
            } else if line == TABLES {
                self.missing_tables(&mut printed)
            } else if line.starts_with(NOTHING) {
                continue;
            } else {
                line.to_owned()
            };
            if text.is_empty() && !line.is_empty() {
                continue;
            }
            blank = if text.is_empty() { blank + 1 } else { 0 };
            if blank < 2 && !(out.is_empty() && text.is_empty()) {
                out.push_str(text.trim_end());
                out.push('\n');
            }
        }
        let state = self.state();
        let left: Vec<String> = leaves(&Value::Object(state.tree.clone()), "")
            .into_iter()
            .filter(|key| !covered(&state.asked, key) && !covered(&printed, key))
            .collect();
        if left.is_empty() {
            return Ok(format!("{}\n", out.trim_end()));
        }
        Err(Error::Internal(format!("the template has no place for {}", left.join(", "))))
    }

    /// The lines of a table that nobody asked for; its subtables in one line each.
    fn rest_of(&self, table: &str, printed: &mut BTreeSet<String>) -> String {
        let state = self.state();
        let found = if table.is_empty() { None } else { super::at(&state.tree, table) };
        let entries = match found {
            Some(Value::Object(entries)) => entries,
            _ if table.is_empty() => &state.tree,
            _ => return String::new(),
        };
        let mut lines = Vec::new();
        for (name, value) in entries {
            let path = if table.is_empty() { name.clone() } else { format!("{table}.{name}") };
            let own = state.tables.iter().any(|t| *t == path || t.starts_with(&format!("{path}.")));
            let whole = table.is_empty() && (value.is_object() || value.is_array());
            if own || whole || state.asked.contains(&path) {
                continue;
            }
            lines.extend(line(name, value));
            printed.insert(path);
        }
        lines.join("\n")
    }

    /// Tables and entries of lists that the template does not have.
    fn missing_tables(&self, printed: &mut BTreeSet<String>) -> String {
        let state = self.state();
        let mut out = String::new();
        let has = |path: &str| {
            let inside = format!("{path}.");
            state.tables.contains(path) || state.asked.iter().any(|key| key.starts_with(&inside))
        };
        for (name, value) in &state.tree {
            match value {
                Value::Object(table) if !has(name) => {
                    let _ = write!(out, "\n[{name}]\n{}", lines(table));
                    printed.insert(name.clone());
                }
                Value::Array(items) if items.iter().all(Value::is_object) => {
                    for (i, item) in items.iter().enumerate().filter(|(i, _)| !has(&format!("{name}.{i}"))) {
                        let table = item.as_object().map(lines).unwrap_or_default();
                        let _ = write!(out, "\n[[{name}]]\n{table}");
                        printed.insert(format!("{name}.{i}"));
                    }
                }
                _ => {}
            }
        }
        out
    }
}

impl Keys for Filled {
    fn key(&self, path: &str, default: Value) -> String {
        let mut state = self.state();
        let name = path.rsplit('.').next().unwrap_or(path);
        let given = super::at(&state.tree, path).cloned();
        state.asked.insert(path.to_owned());
        line(name, &given.unwrap_or(default)).unwrap_or_else(|| NOTHING.to_owned())
    }

    fn given(&self, path: &str) -> Value {
        super::at(&self.state().tree, path).cloned().unwrap_or_default()
    }

    fn rest(&self, table: &str) -> String {
        self.state().tables.insert(table.to_owned());
        format!("{REST}{table}{REST}")
    }

    fn tables(&self) -> String {
        TABLES.to_owned()
    }
}

/// Whether a key or a table around it is among `keys`.
fn covered(keys: &BTreeSet<String>, key: &str) -> bool {
    keys.iter().any(|k| key == k || key.strip_prefix(k.as_str()).is_some_and(|rest| rest.starts_with('.')))
}

/// The paths of all values that are no tables or lists of tables.
fn leaves(value: &Value, path: &str) -> Vec<String> {
    let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(table) => table.iter().flat_map(|(name, value)| leaves(value, &inside(name))).collect(),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().flat_map(|(i, item)| leaves(item, &inside(&i.to_string()))).collect()
        }
        Value::Null => Vec::new(),
        _ => vec![path.to_owned()],
    }
}

fn lines(table: &Map<String, Value>) -> String {
    table.iter().filter_map(|(name, value)| line(name, value)).map(|line| line + "\n").collect()
}

/// `key = value`; nothing for what has no value.
fn line(name: &str, value: &Value) -> Option<String> {
    (!value.is_null()).then(|| format!("{} = {}", bare(name), toml(value)))
}

/// A key, in quotes where it needs them.
fn bare(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if plain { name.to_owned() } else { quoted(name) }
}

/// A string on one line, as TOML and Python both read it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A number as people write it.
pub(super) fn number(value: &serde_json::Number) -> String {
    match value.as_f64() {
        Some(x) if value.is_f64() && x != 0.0 && x.abs() < 1e-3 => format!("{x:e}"),
        Some(x) if value.is_f64() => format!("{x:?}"),
        _ => value.to_string(),
    }
}

pub(super) fn toml(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(n) => number(n),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().filter(|v| !v.is_null()).map(toml).collect::<Vec<_>>().join(", "))
        }
        Value::Object(table) => {
            let entries: Vec<String> = table.iter().filter_map(|(name, value)| line(name, value)).collect();
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn filled(tree: Value) -> Filled {
        Filled::new(tree.as_object().unwrap().clone())
    }

    #[test]
    fn what_is_set_stands_in_its_place_and_the_rest_behind() {
        let settings = filled(json!({"args": {"lr": 1e-5, "z": [1, {"a": "b"}]}, "hub": {"push": true}, "seed": 3}));
        let text = format!(
            "{}\n{}\n\n[args]\n{}\n{}\n{}\n{}\n",
            settings.key("name", json!("x\"y\n")),
            settings.rest(""),
            settings.key("args.lr", json!(1.0)),
            settings.key("args.none", Value::Null),
            settings.rest("args"),
            settings.tables()
        );
        let out = settings.finish(&text).unwrap();
        assert_eq!(
            out,
            "name = \"x\\\"y\\n\"\nseed = 3\n\n[args]\nlr = 1e-5\nz = [1, { a = \"b\" }]\n\n[hub]\npush = true\n"
        );
        let back: toml::Table = toml::from_str(&out).unwrap();
        assert_eq!(back["name"].as_str(), Some("x\"y\n"));
        let lost = filled(json!({"args": {"lr": 1}}));
        let text = lost.key("args.other", Value::Null);
        assert!(lost.finish(&text).unwrap_err().to_string().contains("args.lr"));
    }

    #[test]
    fn strings_and_keys_are_toml_whatever_stands_in_them() {
        for text in ["", "a\\b", "\u{7f}\u{0}\u{2028}\"", "ä'ö", "{{ x }}", "#\ttab\r\n"] {
            let table: toml::Table = toml::from_str(&format!("{} = {}", bare(text), quoted(text))).unwrap();
            assert_eq!(table[text].as_str(), Some(text));
        }
    }
}
