//! A tracker on a thread of its own: training hands records over and never waits.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::time::{Duration, Instant};

use super::{End, Record, Start, Tracker};
use crate::error::{Error, Result};

/// How long the end of a run waits for its trackers.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Records that wait for a tracker at most.
const QUEUE: usize = 1024;

enum Job {
    Log(Record),
    Finish(End),
}

/// What a thread has to say.
enum Told {
    /// Why it stopped early.
    Failed(Error),
    /// That it is through.
    Done,
}

/// The handle of a tracker.
pub(super) struct Worker {
    name: &'static str,
    /// None once it has stopped.
    jobs: Option<SyncSender<Job>>,
    told: Receiver<Told>,
    /// Records that found the queue full.
    dropped: u64,
    /// Whether it is no news that it cannot be had.
    quiet: bool,
    ended: bool,
}

impl Worker {
    /// Starts the thread; `None` where the system gives none.
    pub(super) fn start(name: &'static str, mut tracker: Box<dyn Tracker>, start: &Start, quiet: bool) -> Option<Self> {
        let (jobs, next) = sync_channel::<Job>(QUEUE);
        let (tell, told) = channel();
        let start = start.clone();
        let work = move || {
            let _ = tell.send(match run(tracker.as_mut(), &start, &next) {
                Ok(()) => Told::Done,
                Err(error) => Told::Failed(error),
            });
        };
        // nobody waits for the thread itself: a tracker that hangs ends with the process
        std::thread::Builder::new().name(format!("report to {name}")).spawn(work).ok()?;
        Some(Self { name, jobs: Some(jobs), told, dropped: 0, quiet, ended: false })
    }

    /// Hands a record over, or drops it where too many wait.
    pub(super) fn log(&mut self, record: &Record) {
        match self.jobs.as_ref().map(|jobs| jobs.try_send(Job::Log(record.clone()))) {
            Some(Err(TrySendError::Full(_))) => self.dropped += 1,
            Some(Err(TrySendError::Disconnected(_))) => self.jobs = None,
            Some(Ok(())) | None => {}
        }
    }

    /// What has come to be known since the last time.
    pub(super) fn told(&mut self) -> Vec<String> {
        match self.told.try_recv() {
            Ok(Told::Failed(error)) => self.failed(&error),
            _ => Vec::new(),
        }
    }

    fn failed(&mut self, error: &Error) -> Vec<String> {
        (self.jobs, self.ended) = (None, true);
        if self.quiet {
            return Vec::new();
        }
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        vec![format!("warning: nothing more is reported to {}: {error}{hint}; the run goes on", self.name)]
    }

    /// Says that the run is over.
    pub(super) fn finish(&mut self, end: End) {
        // a full queue means that nobody takes from it
        let _ = self.jobs.take().map(|jobs| jobs.try_send(Job::Finish(end)));
    }

    /// Waits for its last word.
    pub(super) fn wait(mut self, deadline: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        if self.dropped > 0 {
            lines.push(format!("warning: {} was too slow: {} lines were not reported", self.name, self.dropped));
        }
        if self.ended {
            return lines;
        }
        match self.told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Told::Failed(error)) => lines.extend(self.failed(&error)),
            Ok(Told::Done) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => lines.push(format!(
                "warning: {} has not taken everything after {} s; it is left alone with it",
                self.name,
                PATIENCE.as_secs()
            )),
        }
        lines
    }
}

fn run(tracker: &mut dyn Tracker, start: &Start, jobs: &Receiver<Job>) -> Result<()> {
    tracker.start(start)?;
    for job in jobs {
        match job {
            Job::Log(record) => tracker.log(&record)?,
            Job::Finish(end) => return tracker.finish(end),
        }
    }
    // the run was given up without a word
    tracker.finish(End::Failed)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Writes down what it is told, and fails or sleeps at a step.
    struct Fake {
        seen: Arc<Mutex<Vec<String>>>,
        fails_at: Option<u64>,
        sleeps: Duration,
    }

    impl Fake {
        fn note(&self, text: String) {
            self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(text);
        }
    }

    impl Tracker for Fake {
        fn start(&mut self, start: &Start) -> Result<()> {
            self.note(format!("start {}", start.run_id));
            Ok(())
        }

        fn log(&mut self, record: &Record) -> Result<()> {
            std::thread::sleep(self.sleeps);
            if self.fails_at == Some(record.step) {
                return Err(Error::train("it is gone").with_hint("call it back"));
            }
            self.note(format!("log {}", record.step));
            Ok(())
        }

        fn finish(&mut self, end: End) -> Result<()> {
            self.note(format!("{end:?}"));
            Ok(())
        }
    }

    fn report(
        fails_at: Option<u64>,
        sleeps: Duration,
        records: u64,
        quiet: bool,
    ) -> (Vec<String>, Vec<String>, Duration) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let tracker = Box::new(Fake { seen: Arc::clone(&seen), fails_at, sleeps });
        let start = Start { run_id: "a".into(), ..Start::default() };
        let mut lines = Vec::new();
        let begun = Instant::now();
        if let Some(mut worker) = Worker::start("fake", tracker, &start, quiet) {
            for step in 0..records {
                worker.log(&Record { step, metrics: Vec::new() });
                lines.extend(worker.told());
            }
            worker.finish(End::Done);
            let patience = if sleeps.is_zero() { PATIENCE } else { Duration::from_millis(300) };
            lines.extend(worker.wait(Instant::now() + patience));
        }
        let seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        (seen, lines, begun.elapsed())
    }

    #[test]
    fn everything_arrives_in_order() {
        let (seen, lines, _) = report(None, Duration::ZERO, 3, false);
        assert_eq!(seen, ["start a", "log 0", "log 1", "log 2", "Done"]);
        assert!(lines.is_empty(), "{lines:?}");
    }

    #[test]
    fn a_failure_is_told_once_and_costs_nothing_else() {
        let (seen, lines, _) = report(Some(1), Duration::ZERO, 50, false);
        assert_eq!(seen, ["start a", "log 0"]);
        assert_eq!(lines, ["warning: nothing more is reported to fake: it is gone; call it back; the run goes on"]);
        assert!(report(Some(1), Duration::ZERO, 50, true).1.is_empty());
    }

    #[test]
    fn a_tracker_that_hangs_is_left_alone() {
        let (_, lines, took) = report(None, Duration::from_secs(5), QUEUE as u64 + 10, false);
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert!(lines[0].contains("too slow") && lines[1].contains("left alone"), "{lines:?}");
    }
}
