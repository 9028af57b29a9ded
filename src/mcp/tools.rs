//! The tools: which verbs are offered, under which names, and how a call becomes an answer.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::ErrorData;
use rmcp::handler::server::tool::{schema_for_input, schema_for_output};
use rmcp::model::{
    CallToolResponse, CallToolResult, ContentBlock, CreateTaskResult, JsonObject, Tool, ToolAnnotations,
};
use serde_json::{Value, json};

use super::answers::refusal;
use super::caller::Caller;
use super::jobs::{Answer, Job, Jobs, Waited};
use super::server::Shared;
use super::{schema, tasks};
use crate::error::{Error, Result};
use crate::verbs::{
    Verb, cancel, check, choose, evaluate, inspect, log, mine, recommend, render, run, run_files, smoke_test, status,
    workspace,
};

/// Clients give up after 25 to 60 seconds; every answer is there before.
pub(super) const PATIENCE: Duration = Duration::from_secs(23);

/// A client that follows tasks gets one for what takes longer than this.
const BEFORE_A_TASK: Duration = Duration::from_secs(2);

/// Progress is told at least this often while a call waits: clients extend their patience by it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// One tool.
pub(super) struct Entry {
    pub(super) definition: Tool,
    pace: Pace,
    /// Blocks; runs on a thread of its own.
    work: Blocking,
}

/// Arguments, and where lines for people go, to an answer.
type Blocking = fn(JsonObject, &mut dyn FnMut(&str)) -> Result<Value>;

/// How a tool's answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// It is there at once, as a rule.
    Prompt,
    /// The call may have to be made again for the result.
    Slow,
    /// It waits for a run as long as it is asked to.
    Follow,
    /// It starts a run, which is a task of its own.
    Start,
}

/// All tools, in the order a session needs them.
pub(super) fn all() -> Result<Vec<Entry>> {
    // of what only reads it goes without saying that it destroys nothing and can be done again
    let reads = || ToolAnnotations::new().read_only(true).open_world(false);
    let writes = || ToolAnnotations::new().read_only(false).destructive(false).open_world(false);
    Ok(vec![
        entry::<choose::Request>("choose_model_type", Pace::Prompt, reads())?,
        entry::<inspect::Request>("inspect_dataset", Pace::Slow, reads())?,
        entry::<recommend::Request>("recommend_loss", Pace::Slow, reads())?,
        // writes over a file where it is told to
        entry::<render::Request>("render_template", Pace::Prompt, writes().destructive(true).idempotent(false))?,
        entry::<check::Request>("check", Pace::Prompt, reads())?,
        // may fetch a model, and keeps a receipt
        entry::<smoke_test::Request>("smoke_test", Pace::Slow, writes().idempotent(true).open_world(true))?,
        Entry {
            work: |arguments, tell| work(arguments, tell, |request: &mut run::Request| request.detach = true),
            ..entry::<run::Request>("run", Pace::Start, writes().idempotent(false).open_world(true))?
        },
        entry::<status::Request>("run_status", Pace::Follow, reads())?,
        entry::<cancel::Request>("cancel_run", Pace::Prompt, writes().destructive(true).idempotent(true))?,
        entry::<log::Request>("log_experiment", Pace::Prompt, writes().idempotent(true))?,
        entry::<mine::Request>("mine_hard_negatives", Pace::Slow, writes().idempotent(true).open_world(true))?,
        entry::<evaluate::Request>("evaluate", Pace::Slow, reads().open_world(true))?,
    ])
}

/// What is for people, or for programs that read a command's answer: every name is read with every session.
const OF_THE_COMMAND_LINE: &[(&str, &[&str], &[&str])] = &[
    ("render_template", &["from"], &[]),
    (
        "run",
        &[],
        &[
            "model_dir",
            "adapter_dir",
            "hub_url",
            "hub_error",
            "steps",
            "verdict",
            "score",
            "baseline",
            "delta",
            "metric",
            "seconds",
            "peak_memory_bytes",
            "base_model_dir",
            "report",
        ],
    ),
    ("run_status", &[], &["adapter_dir", "hub_url", "hub_error", "heartbeat_age_seconds", "key", "epoch"]),
    ("log_experiment", &["script", "experiments"], &["jsonl", "experiments"]),
    (
        "mine_hard_negatives",
        &[
            "cache_folder",
            "bf16",
            "query_prompt",
            "corpus_prompt",
            "seed",
            "include_positives",
            "range_max",
            "output_scores",
            "on_bad_row",
        ],
        &["rows_skipped", "skipped", "missing", "cached", "range_max", "positives_per_query", "peak_memory_bytes"],
    ),
];

fn entry<V: Verb>(name: &'static str, pace: Pace, hints: ToolAnnotations) -> Result<Entry> {
    let input = schema_for_input::<V>().map_err(|e| Error::Internal(format!("schema of tool `{name}`: {e}")))?;
    let root = schemars::schema_for!(V);
    let description = root.get("description").and_then(Value::as_str).unwrap_or_default();
    let answer = schema_for_output::<V::Response>();
    let hidden = OF_THE_COMMAND_LINE.iter().find(|(tool, ..)| *tool == name);
    let (arguments, fields) = hidden.map_or((&[][..], &[][..]), |(_, arguments, fields)| (arguments, fields));
    let output = schema::output(&answer, fields, pace == Pace::Slow);
    let definition = Tool::new(name, schema::paragraphs(description), schema::input(&input, arguments))
        .with_annotations(hints)
        .with_raw_output_schema(output);
    Ok(Entry { definition, pace, work: |arguments, tell| work(arguments, tell, |_: &mut V| {}) })
}

fn work<V: Verb>(arguments: JsonObject, tell: &mut dyn FnMut(&str), prepare: fn(&mut V)) -> Result<Value> {
    let mut request: V = parsed(arguments)?;
    prepare(&mut request);
    request.answer_within(PATIENCE.as_secs_f64());
    let answer = request.run(&mut |line: &str| tell(line))?;
    serde_json::to_value(answer).map_err(|e| Error::Internal(format!("the answer as JSON: {e}")))
}

fn parsed<V: Verb>(arguments: JsonObject) -> Result<V> {
    admitted(&arguments)?;
    serde_json::from_value(Value::Object(arguments)).map_err(|e| {
        Error::usage(format!("the arguments do not fit: {e}")).with_hint("the tool's inputSchema lists them")
    })
}

/// Refuses arguments that lead out of the workspace; what is no path leads nowhere. What a recipe names is seen to where
/// it is read.
fn admitted(arguments: &JsonObject) -> Result<()> {
    /// Arguments in plain words, and keys of a recipe.
    const WORDS: [&str; 7] = ["task", "set", "settings", "note", "learned", "name", "key"];
    fn see(value: &Value) -> Result<()> {
        match value {
            Value::String(text) if text.is_empty() => Ok(()),
            Value::String(text) => workspace::admit_pattern(Path::new(text)),
            Value::Array(all) => all.iter().try_for_each(see),
            Value::Object(all) => all.values().try_for_each(see),
            _ => Ok(()),
        }
    }
    arguments.iter().filter(|(key, _)| !WORDS.contains(&key.as_str())).try_for_each(|(_, value)| see(value))
}

/// Calls a tool; always answers, within [`PATIENCE`] and a little.
pub(super) async fn call(
    entry: &Entry,
    arguments: JsonObject,
    shared: &Shared,
    caller: &mut Caller,
) -> Result<CallToolResponse, ErrorData> {
    Ok(match entry.pace {
        Pace::Prompt => prompt(entry, arguments, shared, caller).await.into(),
        Pace::Start => {
            let result = prompt(entry, arguments, shared, caller).await;
            let run = result.structured_content.as_ref().and_then(|answer| answer.get("run_dir")?.as_str());
            match run.filter(|_| caller.follows_tasks()) {
                Some(run) => CallToolResponse::Task(CreateTaskResult::new(tasks::of_run(run).await?.task)),
                None => result.into(),
            }
        }
        Pace::Follow => follow(arguments, shared, caller).await.into(),
        Pace::Slow => slow(entry, arguments, shared, caller).await,
    })
}

/// A tool whose answer is there at once, but for data or machines beyond measure: then the call is made again.
async fn prompt(entry: &Entry, arguments: JsonObject, shared: &Shared, caller: &mut Caller) -> CallToolResult {
    let mut job = start(entry, arguments, shared, false);
    match wait(&mut job, PATIENCE, caller).await {
        Some(Ok(answer)) => {
            shared.jobs.forget(&job);
            shared.answers.result(answer)
        }
        Some(Err(message)) => {
            shared.jobs.forget(&job);
            failed(message)
        }
        None => again(entry, shared),
    }
}

/// Waits for a run to end, telling its steps.
async fn follow(arguments: JsonObject, shared: &Shared, caller: &mut Caller) -> CallToolResult {
    const LOOK: Duration = Duration::from_millis(500);
    let mut request: status::Request = match parsed(arguments) {
        Ok(request) => request,
        Err(error) => return refusal(&error),
    };
    request.answer_within(PATIENCE.as_secs_f64());
    let patience = Duration::try_from_secs_f64(request.wait_s).unwrap_or_default();
    request.wait_s = 0.0;
    let begun = Instant::now();
    loop {
        let look = request.clone();
        let seen = match tokio::task::spawn_blocking(move || look.run(&mut |_: &str| {})).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => return refusal(&error),
            Err(_) => return refusal(&Error::Internal("tool `run_status` crashed".to_owned())),
        };
        let left = patience.saturating_sub(begun.elapsed());
        if !seen.under_way() || left.is_zero() || caller.gone() {
            let pictures = if request.curves { curves(&seen).await } else { Vec::new() };
            return match serde_json::to_value(seen) {
                Ok(answer) => {
                    let mut result = shared.answers.result(answer);
                    result.content.extend(pictures);
                    result
                }
                Err(e) => refusal(&Error::Internal(format!("the answer as JSON: {e}"))),
            };
        }
        // the run may be one of several by now: the same one is followed on
        request.run = Some(seen.run_dir.display().to_string());
        caller.progress(seen.step as f64, (seen.total_steps > 0).then_some(seen.total_steps as f64), seen.line()).await;
        tokio::select! {
            () = tokio::time::sleep(LOOK.min(left)) => {}
            () = caller.cancelled() => {}
        }
    }
}

/// The curves of a run as pictures.
async fn curves(seen: &status::Response) -> Vec<ContentBlock> {
    let run = seen.run_dir.display().to_string();
    let drawn = tokio::task::spawn_blocking(move || run_files::curves(&run)).await.unwrap_or_default();
    drawn.into_iter().map(|(_, png)| ContentBlock::image(BASE64_STANDARD.encode(png), "image/png")).collect()
}

async fn slow(entry: &Entry, arguments: JsonObject, shared: &Shared, caller: &mut Caller) -> CallToolResponse {
    let mut job = start(entry, arguments, shared, true);
    let patience = if caller.follows_tasks() { BEFORE_A_TASK } else { PATIENCE };
    match wait(&mut job, patience, caller).await {
        Some(answer) => {
            shared.jobs.forget(&job);
            finished(answer, shared).into()
        }
        None if caller.follows_tasks() => {
            CallToolResponse::Task(CreateTaskResult::new(tasks::of_job(&job, shared).task))
        }
        None => again(entry, shared).into(),
    }
}

/// The work of a call, which goes on whatever becomes of the call; `heavy` work takes turns.
fn start(entry: &Entry, arguments: JsonObject, shared: &Shared, heavy: bool) -> Job {
    let work = entry.work;
    let id = Jobs::key(entry.definition.name.as_ref(), &arguments);
    shared.jobs.find_or_start(&id, Box::new(move |tell| work(arguments, tell)), heavy)
}

/// The answer, if it comes in time; meanwhile the client is told that work goes on.
async fn wait(job: &mut Job, patience: Duration, caller: &mut Caller) -> Option<Answer> {
    let begun = tokio::time::Instant::now();
    let deadline = begun + patience;
    loop {
        match job.next(deadline.min(tokio::time::Instant::now() + SIGN_OF_LIFE)).await {
            Waited::Done(answer) => return Some(answer),
            Waited::Line(line) => caller.line(begun.elapsed().as_secs_f64(), line).await,
            Waited::Running if tokio::time::Instant::now() < deadline => {
                caller.progress(begun.elapsed().as_secs_f64(), None, job.line()).await;
            }
            Waited::Running => return None,
        }
    }
}

/// The answer of a call that is to be made again.
fn again(entry: &Entry, shared: &Shared) -> CallToolResult {
    let next = format!("call `{}` again with the same arguments to wait for the result", entry.definition.name);
    shared.answers.result(json!({"state": "running", "next": next}))
}

fn failed(message: String) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(message)])
}

/// The result of a tool that may take long.
pub(super) fn finished(answer: Answer, shared: &Shared) -> CallToolResult {
    match answer {
        Ok(answer) => shared.answers.slow(answer),
        Err(message) => failed(message),
    }
}

#[cfg(test)]
mod tests;
