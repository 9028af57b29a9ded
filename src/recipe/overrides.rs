//! `--set key.path=value`: values from outside put over those of the file.

use serde_json::{Map, Value};

use super::validate::{Shape, from_toml};
use crate::error::{Error, Result};

/// One `--set`, applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The path it landed on, list positions written out.
    pub path: String,
    /// As it was given.
    pub text: String,
}

/// Puts `sets` (each `key.path=value`) over `recipe`, in order.
///
/// Values are read as TOML, and as plain text where they are none or only text fits. List entries are counted from 0
/// (`evaluator.0.path`); a list's next entry may be begun. Whether keys exist is checked with the whole recipe.
///
/// # Errors
/// When one has no `=`, or goes through something that is no table or list.
pub fn apply(recipe: &mut Value, schema: &Value, sets: &[String]) -> Result<Vec<Override>> {
    sets.iter()
        .map(|text| {
            let Some((key, raw)) = text.split_once('=') else {
                return Err(Error::usage(format!("`--set {text}`: expected `key=value`"))
                    .with_hint("for example `--set args.max_steps=10`"));
            };
            let segments = split(key.trim())
                .ok_or_else(|| Error::usage(format!("`--set {text}`: `{key}` is not the path of a key")))?;
            let shape = Shape::at(schema, &segments);
            let value = value(raw.trim(), &shape);
            let mut path = Vec::new();
            place(recipe, &segments, value, &mut path).map_err(|e| e.within(format!("`--set {text}`")))?;
            Ok(Override { path: path.join("."), text: text.clone() })
        })
        .collect()
}

/// Puts a value at a dotted key.
///
/// # Errors
/// When the key is no path, or goes through something that is no table or list.
pub fn put(target: &mut Value, key: &str, value: Value) -> Result<()> {
    let segments = split(key.trim()).ok_or_else(|| {
        Error::usage(format!("`{key}` is not the path of a key")).with_hint("as `args.learning_rate`")
    })?;
    place(target, &segments, value, &mut Vec::new()).map_err(|e| e.within(format!("`{key}`")))
}

/// `a."b.c".d` in its parts.
fn split(key: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in key.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            _ => parts.last_mut()?.push(c),
        }
    }
    (!quoted && parts.iter().all(|p| !p.is_empty())).then_some(parts)
}

fn value(raw: &str, shape: &Shape) -> Value {
    let parsed = raw.parse::<toml::Value>().ok().and_then(|v| from_toml(v).ok());
    match parsed {
        Some(Value::String(text)) => Value::String(text),
        Some(other) if !shape.only_text() => other,
        // `.5` and `+3e-5` are numbers to people, though not to TOML
        _ => match raw.parse::<f64>() {
            Ok(number) if number.is_finite() && shape.takes_numbers() => number.into(),
            _ => Value::String(raw.to_owned()),
        },
    }
}

fn place(target: &mut Value, segments: &[String], value: Value, path: &mut Vec<String>) -> Result<()> {
    let Some((segment, rest)) = segments.split_first() else {
        *target = value;
        return Ok(());
    };
    let index = segment.parse::<usize>().ok();
    match target {
        Value::Object(table) => {
            // a single table stands for a list of one
            if index == Some(0) && !path.is_empty() && !table.contains_key(segment) {
                return place(target, rest, value, path);
            }
            path.push(segment.clone());
            let entry = table.entry(segment.clone()).or_insert_with(|| empty(rest));
            place(entry, rest, value, path)
        }
        Value::Array(items) => {
            let position = match index {
                Some(i) if i <= items.len() => i,
                Some(i) => {
                    return Err(Error::usage(format!(
                        "there is no `{}.{i}`: the list has {}",
                        path.join("."),
                        items.len()
                    ))
                    .with_hint("entries are counted from 0"));
                }
                None if items.len() == 1 => {
                    return place_in_list(items, 0, segments, value, path);
                }
                None => {
                    let list = path.join(".");
                    return Err(Error::usage(format!("`{list}` is a list of {}", items.len()))
                        .with_hint(format!("say which one, as in `{list}.0.{segment}=…`")));
                }
            };
            if position == items.len() {
                items.push(empty(rest));
            }
            place_in_list(items, position, rest, value, path)
        }
        other => {
            let found = super::validate::kind(other);
            Err(Error::usage(format!("`{}` is {found}, so it has no `{segment}`", path.join("."))))
        }
    }
}

fn place_in_list(
    items: &mut [Value],
    position: usize,
    rest: &[String],
    value: Value,
    path: &mut Vec<String>,
) -> Result<()> {
    path.push(position.to_string());
    match items.get_mut(position) {
        Some(item) => place(item, rest, value, path),
        None => Err(Error::Internal(format!("no entry {position} in `{}`", path.join(".")))),
    }
}

fn empty(rest: &[String]) -> Value {
    match rest.first() {
        Some(next) if next.parse::<usize>().is_ok() => Value::Array(Vec::new()),
        _ => Value::Object(Map::new()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::recipe::json_schema;

    fn set(mut recipe: Value, text: &str) -> Result<(Value, String)> {
        let applied = apply(&mut recipe, &json_schema(), &[text.to_owned()])?;
        Ok((recipe, applied[0].path.clone()))
    }

    #[test]
    fn values_land_with_the_type_that_fits() {
        for (text, expected) in [
            ("args.max_steps=1", json!({"args": {"max_steps": 1}})),
            ("args.learning_rate = 2e-5", json!({"args": {"learning_rate": 2e-5}})),
            ("args.learning_rate=.5", json!({"args": {"learning_rate": 0.5}})),
            ("args.bf16=true", json!({"args": {"bf16": true}})),
            ("run_name=12", json!({"run_name": "12"})),
            ("run_name=2024-01-02", json!({"run_name": "2024-01-02"})),
            ("run_name=\"a b\"", json!({"run_name": "a b"})),
            ("loss.scale=20.0", json!({"loss": {"scale": 20.0}})),
            ("loss.matryoshka.dims=[4, 2]", json!({"loss": {"matryoshka": {"dims": [4, 2]}}})),
            ("model.prompts.\"a.b\"=x=y", json!({"model": {"prompts": {"a.b": "x=y"}}})),
            ("evaluator.0.path=dev.jsonl", json!({"evaluator": [{"path": "dev.jsonl"}]})),
        ] {
            assert_eq!(set(json!({}), text).unwrap().0, expected, "{text}");
        }
    }

    #[test]
    fn lists_are_indexed() {
        let two = json!({"train_dataset": [{"path": "a"}, {"path": "b"}]});
        let (after, path) = set(two.clone(), "train_dataset.1.limit=5").unwrap();
        assert_eq!(after["train_dataset"][1], json!({"path": "b", "limit": 5}));
        assert_eq!(path, "train_dataset.1.limit");
        let error = set(two.clone(), "train_dataset.limit=5").unwrap_err();
        assert_eq!(error.to_string(), "`--set train_dataset.limit=5`: `train_dataset` is a list of 2");
        assert_eq!(error.hint(), Some("say which one, as in `train_dataset.0.limit=…`"));
        assert!(set(two, "train_dataset.4.limit=5").unwrap_err().to_string().contains("no `train_dataset.4`"));
        let one = json!({"train_dataset": [{"path": "a"}]});
        assert_eq!(set(one, "train_dataset.limit=5").unwrap().1, "train_dataset.0.limit");
        let table = json!({"train_dataset": {"path": "a"}});
        assert_eq!(set(table, "train_dataset.0.limit=5").unwrap().0["train_dataset"]["limit"], 5);
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, part) in [
            ("args.max_steps", "expected `key=value`"),
            ("=1", "is not the path of a key"),
            ("args..x=1", "is not the path of a key"),
            ("seed.x=1", "`seed` is a whole number, so it has no `x`"),
        ] {
            let error = set(json!({"seed": 1}), text).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
