//! The tools: which verbs are offered, under which names, and how a call becomes an answer.

use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::tool::{schema_for_input, schema_for_output};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::jobs::{Jobs, Waited};
use crate::error::{Error, Result};
use crate::verbs::{Verb, cancel, check, choose, evaluate, inspect, mine, recommend, render, run, smoke_test, status};

/// Clients give up after 25 to 60 seconds; every answer is there before.
pub(super) const PATIENCE: Duration = Duration::from_secs(24);

/// One tool.
pub(super) struct Entry {
    pub(super) definition: Tool,
    pub(super) pace: Pace,
    /// Blocks; runs on a thread of its own.
    pub(super) work: fn(JsonObject) -> Result<Value>,
}

/// Whether the answer can take longer than a call may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// The verb keeps to the time itself.
    Prompt,
    /// The call may have to be made again for the result.
    Slow,
}

/// The answer of a tool that can take longer than a call may.
#[derive(Debug, Serialize, JsonSchema)]
struct Slow<R> {
    /// `done`, or `running`: then make the same call again to wait on for the result.
    state: SlowState,
    /// The result, once it is done.
    result: Option<R>,
    /// What to do while it is running.
    next: Option<String>,
}

/// Whether a slow tool is done.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SlowState {
    Done,
    Running,
}

/// All tools, in the order a session needs them.
pub(super) fn all() -> Result<Vec<Entry>> {
    let hints = || ToolAnnotations::new().open_world(false);
    Ok(vec![
        prompt::<choose::Request>("choose_model_type", hints().read_only(true).idempotent(true), |arguments| {
            work(arguments, |_: &mut choose::Request| {})
        })?,
        slow::<inspect::Request>("inspect_dataset", hints().read_only(true).idempotent(true))?,
        slow::<recommend::Request>("recommend_loss", hints().read_only(true).idempotent(true))?,
        prompt::<render::Request>(
            "render_template",
            hints().read_only(false).destructive(false).idempotent(false),
            |arguments| work(arguments, |_: &mut render::Request| {}),
        )?,
        prompt::<check::Request>("check", hints().read_only(true).idempotent(true), |arguments| {
            work(arguments, |_: &mut check::Request| {})
        })?,
        slow::<smoke_test::Request>("smoke_test", hints().read_only(true).idempotent(true))?,
        prompt::<run::Request>("run", hints().read_only(false).destructive(false).idempotent(false), |arguments| {
            work(arguments, |request: &mut run::Request| request.detach = true)
        })?,
        prompt::<status::Request>("run_status", hints().read_only(true).idempotent(true), |arguments| {
            work(arguments, |_: &mut status::Request| {})
        })?,
        prompt::<cancel::Request>(
            "cancel_run",
            hints().read_only(false).destructive(true).idempotent(true),
            |arguments| work(arguments, |_: &mut cancel::Request| {}),
        )?,
        slow::<mine::Request>("mine_hard_negatives", hints().read_only(false).destructive(false).idempotent(true))?,
        slow::<evaluate::Request>("evaluate", hints().read_only(true).idempotent(true))?,
    ])
}

/// What a schema says that a client does not need: it is read with every session.
fn slim(schema: &mut Value, input: bool) {
    match schema {
        Value::Object(object) => {
            // numbers of whatever width are numbers
            object.remove("format");
            if object.get("minimum").is_some_and(|least| *least == 0) {
                object.remove("minimum");
            }
            // what may be left out need not be null as well
            if input {
                if object.get("default").is_some_and(Value::is_null) {
                    object.remove("default");
                }
                if let Some(Value::Array(types)) = object.get_mut("type") {
                    types.retain(|kind| kind != "null");
                    if let [only] = types.as_slice() {
                        let only = only.clone();
                        object.insert("type".to_owned(), only);
                    }
                }
            }
            for (key, value) in object.iter_mut() {
                match (key.as_str(), value) {
                    // names of our own
                    ("properties" | "$defs", Value::Object(named)) => {
                        named.values_mut().for_each(|value| slim(value, input));
                    }
                    (_, value) => slim(value, input),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| slim(value, input)),
        _ => {}
    }
}

fn slimmed(schema: &JsonObject, input: bool) -> Arc<JsonObject> {
    let mut schema = Value::Object(schema.clone());
    slim(&mut schema, input);
    match schema {
        Value::Object(schema) => Arc::new(schema),
        _ => Arc::default(),
    }
}

fn prompt<V: Verb>(name: &'static str, hints: ToolAnnotations, work: fn(JsonObject) -> Result<Value>) -> Result<Entry> {
    let output = slimmed(&schema_for_output::<V::Response>(), false);
    Ok(Entry { definition: definition::<V>(name, hints)?.with_raw_output_schema(output), pace: Pace::Prompt, work })
}

fn slow<V: Verb>(name: &'static str, hints: ToolAnnotations) -> Result<Entry> {
    let output = slimmed(&schema_for_output::<Slow<V::Response>>(), false);
    let definition = definition::<V>(name, hints)?.with_raw_output_schema(output);
    Ok(Entry { definition, pace: Pace::Slow, work: |arguments| work(arguments, |_: &mut V| {}) })
}

fn definition<V: Verb>(name: &'static str, hints: ToolAnnotations) -> Result<Tool> {
    let input = schema_for_input::<V>().map_err(|e| Error::Internal(format!("schema of tool `{name}`: {e}")))?;
    let root = schemars::schema_for!(V);
    let description = root.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Tool::new(name, description, slimmed(&input, true)).with_annotations(hints))
}

fn work<V: Verb>(arguments: JsonObject, prepare: fn(&mut V)) -> Result<Value> {
    let mut request: V = serde_json::from_value(Value::Object(arguments)).map_err(|e| {
        Error::usage(format!("the arguments do not fit: {e}")).with_hint("the tool's inputSchema lists them")
    })?;
    prepare(&mut request);
    request.answer_within(PATIENCE.as_secs_f64());
    let answer = request.run(&mut |_: &str| {})?;
    serde_json::to_value(answer).map_err(|e| Error::Internal(format!("the answer as JSON: {e}")))
}

/// Calls a tool; always answers, within [`PATIENCE`] and a little.
pub(super) async fn call(entry: &Entry, arguments: JsonObject, jobs: &Jobs) -> CallToolResult {
    let (work, name) = (entry.work, entry.definition.name.as_ref());
    match entry.pace {
        Pace::Prompt => match tokio::task::spawn_blocking(move || work(arguments)).await {
            Ok(Ok(answer)) => CallToolResult::structured(answer),
            Ok(Err(error)) => refusal(&error),
            Err(_) => refusal(&Error::Internal(format!("tool `{name}` crashed"))),
        },
        Pace::Slow => {
            let key = Jobs::key(name, &arguments);
            match jobs.wait(key, PATIENCE, move || work(arguments)).await {
                Waited::Done(Ok(answer)) => {
                    structured(&Slow { state: SlowState::Done, result: Some(answer), next: None })
                }
                Waited::Done(Err(message)) => CallToolResult::error(vec![ContentBlock::text(message)]),
                Waited::Running => structured(&Slow::<Value> {
                    state: SlowState::Running,
                    result: None,
                    next: Some(format!("call `{name}` again with the same arguments to wait for the result")),
                }),
            }
        }
    }
}

fn structured(answer: &Slow<Value>) -> CallToolResult {
    match serde_json::to_value(answer) {
        Ok(value) => CallToolResult::structured(value),
        Err(e) => refusal(&Error::Internal(format!("the answer as JSON: {e}"))),
    }
}

/// An error as the model reads it.
pub(super) fn text(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{error}{hint}")
}

fn refusal(error: &Error) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text(error))])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn every_tool_is_described_and_typed() {
        let tools = all().unwrap();
        let names: Vec<&str> = tools.iter().map(|t| t.definition.name.as_ref()).collect();
        assert_eq!(
            names,
            [
                "choose_model_type",
                "inspect_dataset",
                "recommend_loss",
                "render_template",
                "check",
                "smoke_test",
                "run",
                "run_status",
                "cancel_run",
                "mine_hard_negatives",
                "evaluate",
            ]
        );
        for tool in &tools {
            let definition = &tool.definition;
            assert!(definition.description.as_ref().unwrap().len() > 30, "{}", definition.name);
            assert_eq!(definition.output_schema.as_ref().unwrap()["type"], "object", "{}", definition.name);
            assert_eq!(definition.input_schema["additionalProperties"], false, "{}", definition.name);
            for (field, schema) in definition.input_schema["properties"].as_object().unwrap() {
                assert!(schema.get("description").is_some(), "{}.{field}", definition.name);
            }
            assert!(definition.annotations.as_ref().unwrap().read_only_hint.is_some());
        }
        let run = serde_json::to_string(&tools[6].definition.input_schema).unwrap();
        assert!(!run.contains("detach") && !run.contains("prepared"), "{run}");
    }

    #[test]
    fn definitions_stay_short() {
        for tool in all().unwrap() {
            let length = serde_json::to_string(&tool.definition).unwrap().len();
            assert!(length < 7500, "{} takes {length} bytes", tool.definition.name);
        }
        for tool in &all().unwrap()[..3] {
            let length = serde_json::to_string(&tool.definition).unwrap().len();
            assert!(length < 4800, "{} takes {length} bytes", tool.definition.name);
        }
    }

    #[tokio::test]
    async fn mistakes_are_tool_errors_with_a_hint() {
        let tools = all().unwrap();
        let jobs = Jobs::default();
        for (tool, arguments) in [(5, json!({"recipe": "no-such-file.toml"})), (7, json!({"runs": 3})), (10, json!({}))]
        {
            let arguments = arguments.as_object().unwrap().clone();
            let result = call(&tools[tool], arguments, &jobs).await;
            assert_eq!(result.is_error, Some(true));
            let text = serde_json::to_string(&result.content).unwrap();
            assert!(text.contains("hint: "), "{text}");
        }
    }
}
