//! A recipe against its schema: unknown keys, missing keys and wrong types, all of them at once, each with its path.
//!
//! The schema is the one derived from [`super::schema::Recipe`], so that types, help and messages have one source.

use serde_json::{Map, Value};

use super::hints;
use super::locate::Problem;
use crate::util::suggest;

/// TOML as JSON values; problems (dates, numbers that are not finite) come with their path inside the value.
pub(super) fn from_toml(value: toml::Value) -> Result<Value, Vec<Problem>> {
    let mut problems = Vec::new();
    let value = convert(value, &mut Vec::new(), &mut problems);
    if problems.is_empty() { Ok(value) } else { Err(problems) }
}

fn convert(value: toml::Value, path: &mut Vec<String>, problems: &mut Vec<Problem>) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => {
            if !number.is_finite() {
                problems.push(Problem::new(path.join("."), format!("expected a finite number, found {number}")));
            }
            number.into()
        }
        toml::Value::Boolean(flag) => Value::Bool(flag),
        toml::Value::Datetime(date) => {
            problems.push(
                Problem::new(path.join("."), "a recipe has no dates").with_hint(format!("as a text: `\"{date}\"`")),
            );
            Value::Null
        }
        toml::Value::Array(items) => {
            let item = |(i, item): (usize, toml::Value)| {
                path.push(i.to_string());
                let item = convert(item, path, problems);
                path.pop();
                item
            };
            Value::Array(items.into_iter().enumerate().map(item).collect())
        }
        toml::Value::Table(table) => {
            let mut object = Map::new();
            for (key, value) in table {
                path.push(key.clone());
                let value = convert(value, path, problems);
                path.pop();
                object.insert(key, value);
            }
            Value::Object(object)
        }
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(n) if n.is_f64() => "a number",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn wanted(kind: &str) -> &'static str {
    match kind {
        "boolean" => "`true` or `false`",
        "number" => "a number",
        "integer" => "a whole number",
        "string" => "a string",
        "array" => "a list",
        "object" => "a table",
        _ => "something else",
    }
}

/// The alternatives a place in the schema allows, references followed, `null` left out.
#[derive(Debug)]
pub(super) struct Shape<'a> {
    root: &'a Value,
    branches: Vec<&'a Value>,
}

impl<'a> Shape<'a> {
    /// The whole recipe.
    pub(super) fn root(root: &'a Value) -> Self {
        Self::of(root, root)
    }

    /// What stands at `path`; without alternatives when there is no such place.
    pub(super) fn at(root: &'a Value, path: &[String]) -> Self {
        path.iter().fold(Self::root(root), |shape, segment| shape.step(segment))
    }

    fn of(root: &'a Value, schema: &'a Value) -> Self {
        let mut branches = Vec::new();
        flatten(root, schema, &mut branches);
        Self { root, branches }
    }

    fn step(&self, segment: &str) -> Self {
        let mut branches = Vec::new();
        for branch in &self.branches {
            if let Some(schema) = branch.get("properties").and_then(|p| p.get(segment)) {
                flatten(self.root, schema, &mut branches);
            } else if let Some(extra) = branch.get("additionalProperties").filter(|e| e.is_object()) {
                flatten(self.root, extra, &mut branches);
            } else if let Some(items) = branch.get("items").filter(|_| segment.parse::<usize>().is_ok()) {
                flatten(self.root, items, &mut branches);
            } else if segment == "0" && self.branches.len() > 1 {
                branches.push(branch);
            }
        }
        Self { root: self.root, branches }
    }

    /// Whether nothing but text fits.
    pub(super) fn only_text(&self) -> bool {
        !self.branches.is_empty() && self.branches.iter().all(|b| accepts(b, "string"))
    }

    /// Whether it is a table that names `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.branches.iter().any(|b| b.get("properties").is_some_and(|p| p.get(key).is_some()))
    }

    /// Whether a number fits.
    pub(super) fn takes_numbers(&self) -> bool {
        self.branches.iter().any(|b| accepts(b, "number"))
    }
}

fn flatten<'a>(root: &'a Value, schema: &'a Value, branches: &mut Vec<&'a Value>) {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        if let Some(target) = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
            flatten(root, target, branches);
        }
    } else if let Some(alternatives) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) {
        alternatives.iter().for_each(|s| flatten(root, s, branches));
    } else if schema.get("type").and_then(Value::as_str) != Some("null") {
        branches.push(schema);
    }
}

fn accepts(branch: &Value, kind: &str) -> bool {
    match branch.get("type") {
        None => true,
        Some(Value::Array(types)) => types.iter().any(|t| t == kind),
        Some(one) => one == kind,
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Everything in `value` that the schema does not allow.
pub(super) fn check(schema: &Value, value: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    walk(&Shape::root(schema), value, &mut Vec::new(), &mut problems);
    problems
}

fn walk(shape: &Shape<'_>, value: &Value, path: &mut Vec<String>, problems: &mut Vec<Problem>) {
    let found = json_type(value);
    let fitting: Vec<&Value> = shape
        .branches
        .iter()
        .copied()
        .filter(|b| accepts(b, found) || (found == "integer" && accepts(b, "number")))
        .collect();
    let [first, ..] = fitting.as_slice() else {
        problems.push(mismatch(shape, value, path));
        return;
    };
    match value {
        Value::String(text) => one_of(&fitting, text, path, problems),
        Value::Number(number) => range(first, number.as_f64().unwrap_or(f64::NAN), path, problems),
        Value::Array(items) => {
            if let Some(schema) = first.get("items") {
                let shape = Shape::of(shape.root, schema);
                for (i, item) in items.iter().enumerate() {
                    path.push(i.to_string());
                    walk(&shape, item, path, problems);
                    path.pop();
                }
            }
        }
        Value::Object(table) => walk_table(shape.root, first, table, path, problems),
        Value::Bool(_) | Value::Null => {}
    }
}

fn walk_table(
    root: &Value,
    schema: &Value,
    table: &Map<String, Value>,
    path: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, value) in table {
        path.push(key.clone());
        let known = properties.and_then(|p| p.get(key));
        match (known, schema.get("additionalProperties")) {
            (Some(schema), _) => walk(&Shape::of(root, schema), value, path, problems),
            (None, Some(Value::Bool(false))) => {
                let names: Vec<&str> = properties.into_iter().flat_map(|p| p.keys().map(String::as_str)).collect();
                let hint = hints::unknown(root, &path[..path.len() - 1], key, &names);
                problems.push(Problem::new(path.join("."), "unknown key").with_hint(hint));
            }
            (None, Some(schema @ Value::Object(_))) => walk(&Shape::of(root, schema), value, path, problems),
            (None, _) => {}
        }
        path.pop();
    }
    let required = schema.get("required").and_then(Value::as_array);
    for key in required.into_iter().flatten().filter_map(Value::as_str) {
        if !table.contains_key(key) {
            path.push(key.to_owned());
            let problem = Problem::new(path.join("."), "is required but missing");
            problems.push(match hints::missing(key) {
                Some(hint) => problem.with_hint(hint),
                None => problem,
            });
            path.pop();
        }
    }
}

fn mismatch(shape: &Shape<'_>, value: &Value, path: &[String]) -> Problem {
    let mut kinds: Vec<&str> = Vec::new();
    for branch in &shape.branches {
        let types = match branch.get("type") {
            Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).collect(),
            Some(one) => one.as_str().into_iter().collect::<Vec<_>>(),
            None => Vec::new(),
        };
        for kind in types.into_iter().filter(|t| *t != "null").map(wanted) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    let problem = Problem::new(path.join("."), format!("expected {}, found {}", kinds.join(" or "), kind(value)));
    match value {
        Value::String(text) if kinds.contains(&wanted("boolean")) => {
            let word = text.to_lowercase();
            if word == "true" || word == "false" { problem.with_hint(format!("write `{word}`")) } else { problem }
        }
        Value::String(text) if text.parse::<f64>().is_ok() => problem.with_hint("leave out the quotes"),
        Value::String(_) if kinds.contains(&"a list") => problem.with_hint("a list is written `[\"a\", \"b\"]`"),
        _ => problem,
    }
}

fn one_of(fitting: &[&Value], text: &str, path: &[String], problems: &mut Vec<Problem>) {
    let mut allowed: Vec<&str> = Vec::new();
    for branch in fitting {
        match (branch.get("const"), branch.get("enum").and_then(Value::as_array)) {
            (Some(name), _) => allowed.extend(name.as_str()),
            (None, Some(names)) => allowed.extend(names.iter().filter_map(Value::as_str)),
            (None, None) => return,
        }
    }
    if !allowed.contains(&text) {
        let problem = Problem::new(path.join("."), format!("there is no `{text}`"));
        problems.push(problem.with_hint(suggest::hint(text, allowed)));
    }
}

fn range(schema: &Value, number: f64, path: &[String], problems: &mut Vec<Problem>) {
    if let Some(least) = schema.get("minimum").and_then(Value::as_f64).filter(|least| number < *least) {
        problems.push(Problem::new(path.join("."), format!("must be {least} or more, found {number}")));
    }
}
