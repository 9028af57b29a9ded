//! What differs between two runs?

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// A key that two plans do not share.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Difference {
    /// As in the plan, dotted.
    pub key: String,
    /// `null` where it is not set.
    pub first: Value,
    pub second: Value,
}

/// Keys that say nothing about the model: names, places, what was left out, how many threads.
const ASIDE: [&str; 8] =
    ["run_name", "output_dir", "recipe", "plan_version", "defaulted", "hub", "args.report_to", "args.num_threads"];

/// A plan as dotted keys and plain values; lists of plain values are values, what is not set is left out.
#[must_use]
pub fn flat(plan: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    collect(plan, String::new(), &mut found);
    found
}

fn collect(value: &Value, path: String, found: &mut Map<String, Value>) {
    let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(table) => table.iter().for_each(|(name, value)| collect(value, inside(name), found)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().for_each(|(i, item)| collect(item, inside(&i.to_string()), found));
        }
        Value::Null => {}
        plain => {
            found.insert(path, plain.clone());
        }
    }
}

/// The keys in which two plans differ, in the order of the first.
#[must_use]
pub fn differences(first: &Map<String, Value>, second: &Map<String, Value>) -> Vec<Difference> {
    let aside = |key: &str| {
        ASIDE.iter().any(|name| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let same = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    };
    let keys = first.keys().chain(second.keys().filter(|key| !first.contains_key(*key)));
    let get = |map: &Map<String, Value>, key: &str| map.get(key).cloned().unwrap_or(Value::Null);
    keys.filter(|key| !aside(key))
        .map(|key| Difference { key: key.clone(), first: get(first, key), second: get(second, key) })
        .filter(|difference| !same(&difference.first, &difference.second))
        .collect()
}

/// A value for people.
#[must_use]
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(x) if number.is_f64() && x != 0.0 && x.abs() < 1e-3 => format!("{x:e}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plans_are_compared_by_what_makes_the_model() {
        let plan = |rate: f64, more: Value| {
            let mut plan = json!({
                "run_name": rate.to_string(), "seed": 1, "args": {"learning_rate": rate, "num_threads": rate},
                "train_dataset": [{"name": "a", "columns": ["x", "y"], "label": null}], "hub": {"push_to_hub": rate},
            });
            plan["model"] = more;
            flat(&plan)
        };
        let (first, second) = (plan(2e-5, json!({})), plan(1e-5, json!({"lora": {"r": 8}})));
        assert_eq!(first["train_dataset.0.columns"], json!(["x", "y"]));
        assert!(!first.contains_key("train_dataset.0.label"));
        let found = differences(&first, &second);
        let want = |key: &str, first: Value, second: Value| Difference { key: key.into(), first, second };
        assert_eq!(
            found,
            [want("args.learning_rate", json!(2e-5), json!(1e-5)), want("model.lora.r", Value::Null, json!(8))]
        );
        assert!(differences(&first, &first).is_empty());
        assert_eq!((shown(&json!(2e-5)), shown(&Value::Null)), ("2e-5".to_owned(), "none".to_owned()));
    }
}
