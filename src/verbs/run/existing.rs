//! The answer to a start whose key has a run.

use super::{Response, try_it};
use crate::error::Result;
use crate::flow::ModelType;
use crate::recipe::Plan;
use crate::runs::folder::display;
use crate::runs::receipt::Tried;
use crate::runs::{RunFolder, State, keys, status};
use crate::util::files;

impl Response {
    /// What is known of a run that has no outcome yet.
    pub(super) fn bare(folder: &RunFolder, state: State, model_type: ModelType) -> Self {
        Self {
            run_id: folder.run_id().to_owned(),
            run_dir: folder.dir(),
            state,
            started: false,
            key: None,
            model_dir: None,
            adapter_dir: None,
            hub_url: None,
            hub_error: None,
            model_type,
            steps: None,
            verdict: None,
            score: None,
            baseline: None,
            delta: None,
            metric: None,
            seconds: None,
            peak_memory_bytes: None,
            base_model_dir: None,
            next: String::new(),
            verdict_line: None,
            report: None,
            interval_line: None,
        }
    }
}

/// The run that has the key, if there is one: as it stands, and how to go on. `plan` is what was to be started.
///
/// # Errors
/// When its status cannot be read.
pub(super) fn find(plan: &Plan, key: &str) -> Result<Option<Response>> {
    keys::find(&plan.output_dir, key)?.map(|folder| answer(plan, &folder, key)).transpose()
}

/// What a start is told whose key that run has.
///
/// # Errors
/// When its status cannot be read.
pub(super) fn answer(plan: &Plan, folder: &RunFolder, key: &str) -> Result<Response> {
    let status = status::read(folder)?;
    let id = folder.run_id();
    let outcome = files::read(&folder.outcome_file()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let known: Option<Response> = outcome.filter(|_| status.state == State::Done);
    let base = known.unwrap_or_else(|| Response::bare(folder, status.state, plan.model_type));
    let next = match status.state {
        State::Queued | State::Running => {
            format!("follow it with `tallow status {id} --wait 600`, stop it with `tallow cancel {id}`")
        }
        State::Done => try_it(plan, &display(&folder.model_dir())),
        State::Failed | State::Cancelled => {
            format!("go on with `tallow run --resume {id}`; another key starts a new run")
        }
    };
    let different = different(plan, folder);
    Ok(Response {
        state: status.state,
        started: false,
        key: Some(key.to_owned()),
        verdict_line: status.message.filter(|_| status.state == State::Done),
        next: format!("nothing was started: this run has the key{different}; {next}"),
        ..base
    })
}

/// Keys that the run was started with otherwise.
fn different(plan: &Plan, folder: &RunFolder) -> String {
    let both = || -> Result<Vec<String>> {
        Ok(Tried::of(plan)?.different_keys(&Tried::of(&Plan::load(&folder.plan_file())?)?))
    };
    match both() {
        Ok(keys) if !keys.is_empty() => {
            let shown: Vec<String> = keys.iter().take(3).map(|key| format!("`{key}`")).collect();
            let more = if keys.len() > 3 { ", ..." } else { "" };
            format!(", though it was started with other values of {}{more}", shown.join(", "))
        }
        _ => String::new(),
    }
}
