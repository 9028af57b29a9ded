//! How much of a schema does a client need? Definitions are read with every session, so they are made short.
//!
//! Of inputs stays what a call is written by: names, types, choices, defaults, and one sentence each. Of outputs stays
//! what an answer is read by: names and types. What is null in an answer is left out of it, so no type says `null`.

use std::sync::Arc;

use rmcp::model::JsonObject;
use serde_json::{Map, Value, json};

/// An input's schema, shortened, without the `hidden` properties.
pub(super) fn input(schema: &JsonObject, hidden: &[&str]) -> Arc<JsonObject> {
    let definitions = schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut short = Map::new();
    short.insert("type".to_owned(), json!("object"));
    let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let properties: Map<String, Value> = properties
        .into_iter()
        .filter(|(name, _)| !hidden.contains(&name.as_str()))
        .map(|(name, property)| (name, argument(&property, &definitions)))
        .collect();
    short.insert("properties".to_owned(), Value::Object(properties));
    if let Some(required) = schema.get("required") {
        short.insert("required".to_owned(), required.clone());
    }
    short.insert("additionalProperties".to_owned(), json!(false));
    Arc::new(short)
}

/// An output's schema, shortened, without the `hidden` fields; that of a `slow` tool stands in `result`, beside what says
/// whether the tool is still at work.
pub(super) fn output(schema: &JsonObject, hidden: &[&str], slow: bool) -> Arc<JsonObject> {
    let definitions = schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default();
    let result = fields(schema, &definitions, hidden);
    if !slow {
        return Arc::new(result);
    }
    let whole = json!({
        "type": "object",
        "properties": {"state": {"enum": ["done", "running"]}, "result": result, "next": {"type": "string"}},
        "required": ["state"],
    });
    Arc::new(whole.as_object().cloned().unwrap_or_default())
}

fn fields(schema: &JsonObject, definitions: &JsonObject, hidden: &[&str]) -> JsonObject {
    let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let shown = properties.into_iter().filter(|(name, _)| !hidden.contains(&name.as_str()));
    let short = shown.map(|(name, property)| (name, Value::Object(typed(&property, definitions))));
    let properties = short.collect();
    Map::from_iter([("type".to_owned(), json!("object")), ("properties".to_owned(), Value::Object(properties))])
}

fn resolved<'a>(schema: &'a Value, definitions: &'a JsonObject) -> &'a Value {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
    name.and_then(|name| definitions.get(name)).unwrap_or(schema)
}

/// A schema that says its type and nothing else.
fn typed(schema: &Value, definitions: &JsonObject) -> JsonObject {
    let mut kinds = types(schema, definitions);
    kinds.retain(|kind| kind != "null");
    match kinds.as_slice() {
        [] => Map::new(),
        [one] => Map::from_iter([("type".to_owned(), json!(one))]),
        several => Map::from_iter([("type".to_owned(), json!(several))]),
    }
}

/// The JSON types that a schema admits; none where that is not told.
fn types(schema: &Value, definitions: &JsonObject) -> Vec<String> {
    let schema = resolved(schema, definitions);
    if let Some(kind) = schema.get("type") {
        return match kind {
            Value::String(one) => vec![one.clone()],
            Value::Array(several) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
    }
    let mut all = Vec::new();
    for ways in ["anyOf", "oneOf"] {
        for way in schema.get(ways).and_then(Value::as_array).into_iter().flatten() {
            let of_way = if way.get("const").is_some_and(Value::is_string) {
                vec!["string".to_owned()]
            } else {
                types(way, definitions)
            };
            // one way that is not told makes the whole so
            if of_way.is_empty() {
                return Vec::new();
            }
            all.extend(of_way.into_iter().filter(|kind| !all.contains(kind)).collect::<Vec<_>>());
        }
    }
    if all.is_empty() && schema.get("enum").is_some() {
        all.push("string".to_owned());
    }
    all
}

/// An argument: what may be left out need not be null as well.
fn argument(property: &Value, definitions: &JsonObject) -> Value {
    let mut short = typed(property, definitions);
    let choices = choices(property, definitions);
    if !choices.is_empty() {
        short.insert("enum".to_owned(), json!(choices));
    }
    if let Some(items) = resolved(property, definitions).get("items") {
        let item = argument(items, definitions);
        short.insert("items".to_owned(), item);
    }
    let trivial = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(table) => table.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    };
    if let Some(default) = property.get("default").filter(|default| !trivial(default)) {
        short.insert("default".to_owned(), default.clone());
    }
    if let Some(text) = property.get("description").and_then(Value::as_str) {
        short.insert("description".to_owned(), json!(sentence(text)));
    }
    Value::Object(short)
}

/// The values of an argument with a fixed set of them.
fn choices(property: &Value, definitions: &JsonObject) -> Vec<Value> {
    let schema = resolved(property, definitions);
    if let Some(Value::Array(values)) = schema.get("enum") {
        return values.iter().filter(|value| !value.is_null()).cloned().collect();
    }
    let ways = ["oneOf", "anyOf"].into_iter().filter_map(|ways| schema.get(ways)?.as_array());
    ways.flatten()
        .flat_map(|way| way.get("const").map_or_else(|| choices(way, definitions), |value| vec![value.clone()]))
        .collect()
}

/// The first sentence, without its full stop.
pub(super) fn sentence(text: &str) -> String {
    let text = text.split("\n\n").next().unwrap_or(text).split_whitespace().collect::<Vec<_>>().join(" ");
    let end = text.find(". ").unwrap_or(text.len());
    text.get(..end).unwrap_or(&text).trim_end_matches('.').to_owned()
}

/// A description without the line breaks that only its source needs.
pub(super) fn paragraphs(text: &str) -> String {
    let joined = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    text.split("\n\n").map(joined).filter(|paragraph| !paragraph.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn object(value: Value) -> JsonObject {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn inputs_keep_what_a_call_is_written_by() {
        let schema = object(json!({
            "$schema": "x", "title": "Request", "description": "Long.", "type": "object",
            "properties": {
                "a": {"type": ["string", "null"], "default": null, "description": "First. Second."},
                "b": {"$ref": "#/$defs/Choice", "default": "one", "description": "Which\none."},
                "c": {"type": "array", "items": {"type": "string"}, "default": []},
                "d": {"anyOf": [{"$ref": "#/$defs/Choice"}, {"type": "null"}]},
                "e": {"type": "number", "format": "double", "default": 20.0},
                "f": {"type": "boolean", "description": "Hidden."},
            },
            "required": ["e"],
            "$defs": {"Choice": {"oneOf": [{"const": "one", "type": "string"}, {"const": "two", "type": "string"}]}},
        }));
        let wanted = json!({
            "type": "object",
            "properties": {
                "a": {"type": "string", "description": "First"},
                "b": {"type": "string", "enum": ["one", "two"], "default": "one", "description": "Which one"},
                "c": {"type": "array", "items": {"type": "string"}},
                "d": {"type": "string", "enum": ["one", "two"]},
                "e": {"type": "number", "default": 20.0},
            },
            "required": ["e"],
            "additionalProperties": false,
        });
        assert_eq!(Value::Object((*input(&schema, &["f"])).clone()), wanted);
    }

    #[test]
    fn outputs_keep_names_and_types() {
        let schema = object(json!({
            "properties": {
                "state": {"$ref": "#/$defs/State"},
                "score": {"type": ["number", "null"], "description": "x"},
                "anything": true,
                "report": {"$ref": "#/$defs/Report"},
                "hidden": {"type": "string"},
            },
            "$defs": {"State": {"enum": ["a"], "type": "string"}, "Report": {"type": "object", "properties": {"x": {}}}},
        }));
        let wanted = json!({
            "type": "object",
            "properties": {
                "state": {"type": "string"}, "score": {"type": "number"}, "anything": {},
                "report": {"type": "object"},
            },
        });
        assert_eq!(Value::Object((*output(&schema, &["hidden"], false)).clone()), wanted);
        let slow = output(&schema, &["hidden"], true);
        assert_eq!(slow["properties"]["result"], wanted);
    }
}
