//! The Tasks extension: a run, or a call that takes long, as a task that a client follows by its id.
//!
//! A run's task is the run itself: its id is made of the run's folder, so a restarted server knows it still, and that
//! nobody asks any more never ends it. A call's task lives as long as the server, and ten minutes after its answer.
//! Source: SEP-2663.

use rmcp::ErrorData;
use rmcp::model::{DetailedTask, JsonObject, Task, TaskPayload, TaskStatus};
use serde_json::Value;

use super::answers::text;
use super::jobs::{Job, KEPT};
use super::server::Shared;
use super::tools;
use crate::error::Result;
use crate::verbs::{Reporter, Verb, cancel, run_files, status};

/// In front of what names a run.
const RUN: &str = "run:";

/// How often a client is to look.
const EVERY_MS: u64 = 2000;

/// The task of the run in `run_dir`.
pub(super) async fn of_run(run: &str) -> Result<DetailedTask, ErrorData> {
    let run = run.to_owned();
    let look = move || {
        let request = status::Request { run: Some(run), wait_s: 0.0, ..status::Request::default() };
        request.run(&mut silent())
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(Ok(seen)) => Ok(run_task(&seen)),
        Ok(Err(error)) => Err(ErrorData::invalid_params(text(&error), None)),
        Err(_) => Err(ErrorData::internal_error("the status could not be read", None)),
    }
}

fn silent() -> impl Reporter {
    |_: &str| {}
}

fn run_task(seen: &status::Response) -> DetailedTask {
    let id = format!("{RUN}{}", run_files::name(&seen.run_dir));
    let now = jiff::Timestamp::now();
    let age = jiff::SignedDuration::try_from_secs_f64(seen.heartbeat_age_seconds).unwrap_or_default();
    let updated = now.checked_sub(age).unwrap_or(now);
    let mut task = Task::new(id, TaskStatus::Working, seen.started.clone(), stamp(updated))
        .with_status_message(seen.message.clone().unwrap_or_else(|| seen.line()))
        .with_poll_interval_ms(EVERY_MS);
    task.ttl_ms = None;
    let payload = if seen.under_way() {
        TaskPayload::Working
    } else if seen.state.name() == "cancelled" {
        TaskPayload::Cancelled
    } else {
        // a run that failed is an answer that says so
        let failed = seen.state.name() != "done";
        completed(serde_json::to_value(seen).unwrap_or_default(), failed)
    };
    DetailedTask::new(task, payload)
}

fn completed(answer: Value, failed: bool) -> TaskPayload {
    let result = if failed {
        rmcp::model::CallToolResult::structured_error(answer)
    } else {
        rmcp::model::CallToolResult::structured(answer)
    };
    TaskPayload::Completed { result: object(&result) }
}

fn object(result: &rmcp::model::CallToolResult) -> JsonObject {
    match serde_json::to_value(result) {
        Ok(Value::Object(object)) => object,
        _ => JsonObject::new(),
    }
}

fn stamp(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}

/// The task of a call.
pub(super) fn of_job(job: &Job, shared: &Shared) -> DetailedTask {
    let kept_ms = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
    let now = stamp(jiff::Timestamp::now());
    let answer = job.answer();
    let line = if job.stopping() && answer.is_none() { "stopping".to_owned() } else { job.line() };
    let mut task = Task::new(job.id.clone(), TaskStatus::Working, stamp(job.started), now)
        .with_status_message(line)
        .with_poll_interval_ms(EVERY_MS);
    // counted from its creation: it is kept for a time after its end, whenever that is
    let age = jiff::Timestamp::now().duration_since(job.started).as_millis();
    task.ttl_ms = u64::try_from(age).ok().map(|age| age + kept_ms);
    let payload = match answer {
        None => TaskPayload::Working,
        Some(Err(_)) if job.stopping() => TaskPayload::Cancelled,
        Some(answer) => TaskPayload::Completed { result: object(&tools::finished(answer, shared)) },
    };
    DetailedTask::new(task, payload)
}

/// A task by its id.
pub(super) async fn find(id: &str, shared: &Shared) -> Result<DetailedTask, ErrorData> {
    match id.strip_prefix(RUN) {
        Some(run) => of_run(run).await,
        None => shared.jobs.find(id).map(|job| of_job(&job, shared)).ok_or_else(|| unknown(id)),
    }
}

/// Stops what a task does, at the client's explicit wish: a run writes a checkpoint and can be resumed.
pub(super) async fn stop(id: &str, shared: &Shared) -> Result<(), ErrorData> {
    let Some(run) = id.strip_prefix(RUN) else {
        return shared.jobs.find(id).map(|job| job.stop()).ok_or_else(|| unknown(id));
    };
    let request = cancel::Request { run: run.to_owned(), wait_s: 0.0 };
    match tokio::task::spawn_blocking(move || request.run(&mut silent())).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(ErrorData::invalid_params(text(&error), None)),
        Err(_) => Err(ErrorData::internal_error("the run could not be stopped", None)),
    }
}

fn unknown(id: &str) -> ErrorData {
    ErrorData::invalid_params(format!("there is no task `{id}`: answers are kept for ten minutes"), None)
}
