//! A run as a process of its own.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use super::{Job, Response};
use crate::error::{Error, Result};
use crate::runs::folder::display;
use crate::runs::log::LogFile;
use crate::runs::process::{self, Identity};
use crate::runs::{RunFolder, State, keys, status};

/// Starts the job as a process of its own and waits only until that has taken it up.
///
/// # Errors
/// When that fails; a run that nobody took up is written down as failed.
pub(super) fn start(job: &Job) -> Result<Response> {
    let mut child_id = None;
    launch(job, &mut child_id).inspect_err(|error| give_up(job, child_id, error))
}

fn never_taken_up(folder: &RunFolder, exit: &str) {
    if let Ok(mut status) = status::read_raw(folder)
        && status.state.under_way()
        && status.process == Identity::own()
    {
        status.state = State::Failed;
        status.message = Some(format!("the run's process ended before it began ({exit})"));
        status.hint = Some(format!("its output is in `{}`", display(&folder.console_file())));
        let _ = status::write(folder, &status);
    }
}

/// Writes down that nothing came of the run, unless another process has it.
fn give_up(job: &Job, child_id: Option<u32>, error: &Error) {
    let Ok(mut status) = status::read_raw(&job.folder) else { return };
    let own = Identity::own();
    let nobodys = status.process == own || Some(status.process.pid) == child_id;
    if !status.state.under_way() || !nobodys || job.folder.held() {
        return;
    }
    status.state = State::Failed;
    status.message = Some(error.to_string());
    status.hint = error.hint().map(str::to_owned);
    status.exit_code = Some(1);
    // where even that cannot be written, the answer to this start says what happened
    let _ = status::write(&job.folder, &status);
}

fn launch(job: &Job, child_id: &mut Option<u32>) -> Result<Response> {
    let dir = job.folder.dir();
    if !job.notes.is_empty() {
        // the new process knows the plan, not how it came about
        let notes: Vec<String> = job.notes.iter().map(|note| format!("note: {note}")).collect();
        LogFile::open(&job.folder.log_file(&job.plan.run_name))?.write(&notes.join("\n"))?;
    }
    let flag = if job.resume { "--resume" } else { "--prepared" };
    let mut arguments: Vec<&OsStr> = vec![OsStr::new("run"), OsStr::new(flag), dir.as_os_str()];
    arguments.extend(job.now.then_some(OsStr::new("--now")));
    let here = std::env::current_dir().map_err(Error::io("find", "the current directory"))?;
    let mut child = process::spawn_detached(&arguments, &here, &job.folder.console_file())?;
    *child_id = Some(child.id());
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        let taken_up = status::read_raw(&job.folder).ok().filter(|s| s.process.pid == child.id());
        // by then it knows whether it has to wait
        if taken_up.as_ref().is_some_and(|s| s.phase != "starting") || Instant::now() > deadline {
            break taken_up;
        }
        if let Ok(Some(exit)) = child.try_wait() {
            let words = process::tail(&job.folder.console_file(), 4);
            return Err(Error::train(format!("the run's process ended at once ({exit}): {words}"))
                .with_hint(format!("its output is in `{}`", display(&job.folder.console_file()))));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // a child nobody waits for stays in the process table for as long as a server lives, and one that ends before it has
    // taken the run up leaves it to this process
    let untaken = status.is_none().then(|| job.folder.clone());
    std::thread::spawn(move || {
        let ended = child.wait();
        if let (Some(folder), Ok(exit)) = (untaken, ended) {
            never_taken_up(&folder, &exit.to_string());
        }
    });
    let run_id = job.folder.run_id();
    let queued = status.filter(|status| status.state == State::Queued);
    let waits = queued.as_ref().and_then(|status| status.waits_for.as_deref());
    let waits = waits.map_or_else(String::new, |reason| format!("it waits for its turn ({reason}): "));
    Ok(Response {
        started: true,
        key: keys::of(&job.folder),
        next: format!(
            "{waits}follow it with `tallow status {run_id} --wait 600`, stop it with `tallow cancel {run_id}`"
        ),
        ..Response::bare(
            &job.folder,
            if queued.is_some() { State::Queued } else { State::Running },
            job.plan.model_type,
        )
    })
}
