//! Waiting for the runs that came before.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::recipe::Plan;
use crate::runs::queue::{Queue, Ticket};
use crate::runs::{Recorder, RunFolder, receipt};
use crate::util::interrupt;

/// How often the queue is looked at.
const POLL: Duration = Duration::from_millis(300);

/// Waits until the run may begin; the turn is over when the ticket is dropped. `now` does not wait. Where there is no
/// place for a queue, nobody waits for anybody, and a line says so.
///
/// # Errors
/// When the process was asked to stop.
pub(super) fn wait(plan: &Plan, folder: &RunFolder, now: bool, recorder: &mut Recorder<'_>) -> Result<Option<Ticket>> {
    let turn = Queue::here().and_then(|queue| queue.join(folder, receipt::memory(plan)));
    let waited = turn.and_then(|ticket| wait_with(ticket, now, recorder));
    match waited {
        Ok(ticket) => Ok(Some(ticket)),
        Err(error @ Error::Cancelled(_)) => Err(error),
        Err(error) => {
            recorder.line(&format!("warning: runs on this machine do not wait for each other: {error}"));
            recorder.begins();
            Ok(None)
        }
    }
}

fn wait_with(mut ticket: Ticket, now: bool, recorder: &mut Recorder<'_>) -> Result<Ticket> {
    let mut told = None;
    while let Some(wait) = ticket.ask(now)? {
        if told.as_ref() != Some(&wait) {
            recorder.queued(&wait);
            told = Some(wait);
        }
        let until = Instant::now() + POLL;
        while Instant::now() < until {
            if interrupt::requested() {
                return Err(Error::cancelled("taken out of the queue before its turn came")
                    .with_hint("start it again with `tallow run --resume RUN`"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    recorder.begins();
    Ok(ticket)
}
