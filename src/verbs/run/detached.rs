//! A run as a process of its own.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use super::{Job, Response};
use crate::error::{Error, Result};
use crate::runs::folder::display;
use crate::runs::log::LogFile;
use crate::runs::status::{self, Status};
use crate::runs::{State, keys, process};

/// Starts the job as a process of its own and waits only until that has taken it up.
pub(super) fn start(job: &Job) -> Result<Response> {
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
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        let taken_up = status::read_raw(&job.folder).ok().filter(|s| s.process.pid == child.id());
        // by then it knows whether it has to wait
        if taken_up.as_ref().is_some_and(|s| s.phase != "starting") || Instant::now() > deadline {
            break taken_up;
        }
        if let Ok(Some(exit)) = child.try_wait() {
            let words = process::tail(&job.folder.console_file(), 4);
            let error = Error::train(format!("the run's process ended at once ({exit}): {words}"))
                .with_hint(format!("its output is in `{}`", display(&job.folder.console_file())));
            let mut failed = Status::starting(job.folder.run_id(), &job.plan.run_name);
            failed.state = State::Failed;
            failed.message = Some(error.to_string());
            failed.exit_code = exit.code();
            status::write(&job.folder, &failed)?;
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // a child nobody waits for stays in the process table for as long as a server lives
    std::thread::spawn(move || child.wait());
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
