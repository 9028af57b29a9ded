#![allow(clippy::unwrap_used)]

use super::*;
use crate::mcp::answers::tokens;

#[test]
fn every_tool_is_described_and_typed() {
    let tools = all().unwrap();
    assert!(tools.len() <= 12);
    for tool in &tools {
        let definition = &tool.definition;
        assert!(definition.description.as_ref().unwrap().len() > 30, "{}", definition.name);
        assert_eq!(definition.output_schema.as_ref().unwrap()["type"], "object", "{}", definition.name);
        assert!(!definition.output_schema.as_ref().unwrap()["properties"].as_object().unwrap().is_empty());
        assert_eq!(definition.input_schema["additionalProperties"], false, "{}", definition.name);
        for (field, schema) in definition.input_schema["properties"].as_object().unwrap() {
            assert!(schema.get("description").is_some(), "{}.{field}", definition.name);
        }
        let hints = definition.annotations.as_ref().unwrap();
        assert!(hints.read_only_hint.is_some() && hints.open_world_hint.is_some());
    }
    let run = tools.iter().find(|tool| tool.definition.name == "run").unwrap();
    let run = serde_json::to_string(&run.definition.input_schema).unwrap();
    assert!(!run.contains("detach") && !run.contains("prepared"), "{run}");
}

/// They are read with every session, whether used or not.
#[test]
fn definitions_together_stay_below_4000_tokens() {
    let mut sum = 0;
    let mut each = Vec::new();
    for tool in all().unwrap() {
        let count = tokens(&serde_json::to_string(&tool.definition).unwrap());
        each.push(format!("{} {count}", tool.definition.name));
        sum += count;
    }
    // the count is a little low
    assert!(sum < 3900, "{sum}: {}", each.join(", "));
}

#[test]
fn arguments_in_plain_words_are_no_paths() {
    let object = |value: Value| value.as_object().unwrap().clone();
    // without a workspace everything is let through
    admitted(&object(json!({"task": "/etc/passwd", "data": ["/etc/*.conf"]}))).unwrap();
}
