//! Listens to training and writes it down: status, metrics, log, progress bar.

mod turn;

use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::folder::RunFolder;
use super::log::LogFile;
use super::metrics::MetricsFile;
use super::process::Identity;
use super::reserve::Reserve;
use super::status::{self, State, Status};
use super::trackers::{End, Trackers};
use super::{report, tables};
use crate::error::{Error, Kind, Result};
use crate::flow::Metrics;
use crate::train::events::{Event, Listener, TrainLog};
use crate::util::progress::Progress;
use crate::util::{clock, files};

/// How a run ended.
#[derive(Debug)]
pub enum Ending<'a> {
    /// With a saved model; the line to remember.
    Done(&'a str),
    /// With an error; one of kind [`Kind::Cancelled`] means it was stopped.
    Error(&'a Error),
}

/// Writes a run's files while it goes on. Made by the process that runs it.
///
/// The status is rewritten every two seconds by a thread of its own, so that a heartbeat means a living process
/// even while one long evaluation says nothing.
pub struct Recorder<'a> {
    folder: RunFolder,
    board: Arc<Board>,
    heart: Option<JoinHandle<()>>,
    /// There until it is withdrawn.
    log: Option<LogFile>,
    metrics: MetricsFile,
    progress: Progress,
    echo: &'a mut dyn FnMut(&str),
    /// Whether anything worth keeping has happened.
    began: bool,
    /// Whether this process has done a step.
    stepped: bool,
    /// The step from which on metrics are made again, until the first of them is there.
    again_from: Option<u64>,
    complained: bool,
    /// Whether it had to wait for its turn.
    waited: bool,
    reserve: Option<Reserve>,
    /// Where metrics go besides the run's own files.
    trackers: Trackers,
    /// The first step of this process and when it was done, for the pace.
    first: Option<(u64, Instant)>,
    _lock: File,
}

/// What the training thread and the heart share.
struct Board {
    folder: RunFolder,
    status: Mutex<Status>,
    /// Held while the file is written, so that an older status never replaces a newer one.
    writing: Mutex<()>,
    stop: Mutex<bool>,
    wake: Condvar,
    taken_up: Mutex<Instant>,
}

const HEARTBEAT: Duration = Duration::from_secs(2);

impl Board {
    fn write(&self) -> Result<()> {
        let _turn = held(&self.writing);
        let snapshot = {
            let mut status = held(&self.status);
            status.heartbeat = status::now();
            status.seconds = held(&self.taken_up).elapsed().as_secs_f64();
            status.clone()
        };
        status::write(&self.folder, &snapshot)
    }

    fn beat(&self) {
        let mut stop = held(&self.stop);
        while !*stop {
            stop = self.wake.wait_timeout(stop, HEARTBEAT).unwrap_or_else(PoisonError::into_inner).0;
            if !*stop {
                // a full disk is reported where lines are written; the next beat tries again
                let _ = self.write();
            }
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Recorder<'a> {
    /// Takes up a run, new or resumed: `checkpoint` is the step that training goes on from, none when it starts at
    /// the beginning. `echo` gets the lines for people.
    ///
    /// # Errors
    /// When another process has the run, or a file cannot be written.
    pub fn begin(
        folder: &RunFolder,
        run_name: &str,
        checkpoint: Option<u64>,
        echo: &'a mut dyn FnMut(&str),
    ) -> Result<Self> {
        let lock = folder.lock()?;
        files::clean_temporary(&folder.dir());
        let mut status = Status::starting(folder.run_id(), run_name);
        if let Ok(before) = status::read_raw(folder) {
            status.started = before.started;
            status.total_steps = before.total_steps;
            if let Some(step) = checkpoint {
                status.step = step;
                // the same share of the epochs as of the steps; the next line of training has it exactly
                status.epoch = before.epoch * step as f64 / before.step.max(1) as f64;
                status.metrics = before.metrics;
            }
        }
        status.process = Identity::own();
        status::write(folder, &status)?;
        let reserve = Some(Reserve::take(folder)?);
        let log = Some(LogFile::open(&folder.log_file(run_name))?);
        let metrics = MetricsFile::open(&folder.metrics_file())?;
        let board = Arc::new(Board {
            folder: folder.clone(),
            status: Mutex::new(status),
            writing: Mutex::new(()),
            stop: Mutex::new(false),
            wake: Condvar::new(),
            taken_up: Mutex::new(Instant::now()),
        });
        let heart = {
            let board = Arc::clone(&board);
            std::thread::Builder::new().name("heartbeat".into()).spawn(move || board.beat()).ok()
        };
        Ok(Self {
            folder: folder.clone(),
            board,
            heart,
            log,
            metrics,
            progress: Progress::hidden(),
            echo,
            began: false,
            stepped: false,
            // a checkpoint is written after the metrics of its step
            again_from: Some(checkpoint.map_or(0, |step| step + 1)),
            complained: false,
            waited: false,
            reserve,
            trackers: Trackers::default(),
            first: None,
            _lock: lock,
        })
    }

    /// Reports to trackers as well, from now on.
    pub fn report_to(&mut self, trackers: Trackers) {
        self.trackers = trackers;
    }

    /// Ends the trackers; waits a few seconds for them at most.
    pub fn end_reports(&mut self, end: End) {
        for line in self.trackers.finish(end) {
            self.line(&line);
        }
    }

    /// A line for people, in the log too.
    pub fn line(&mut self, text: &str) {
        self.log_only(text);
        self.show(text);
    }

    /// A line for the log only.
    pub fn log_only(&mut self, text: &str) {
        let written = self.log.as_mut().map_or(Ok(()), |log| log.write(text));
        self.complain(written);
    }

    fn show(&mut self, text: &str) {
        let (progress, echo) = (&self.progress, &mut self.echo);
        progress.suspend(|| echo(text));
    }

    /// Whether this process got as far as a step, an evaluation or a checkpoint.
    #[must_use]
    pub fn began(&self) -> bool {
        self.began
    }

    /// Writes the end down.
    ///
    /// # Errors
    /// When the status cannot be written.
    pub fn finish(mut self, ending: &Ending<'_>) -> Result<()> {
        self.end(ending)
    }

    /// The end of a run of which nothing is kept: its log goes, if nobody else wrote there.
    ///
    /// # Errors
    /// When the status cannot be written.
    pub fn withdraw(mut self, ending: &Ending<'_>) -> Result<()> {
        let ended = self.end(ending);
        if let Some(log) = self.log.take() {
            log.withdraw();
        }
        ended
    }

    fn end(&mut self, ending: &Ending<'_>) -> Result<()> {
        self.end_reports(match ending {
            Ending::Done(_) => End::Done,
            Ending::Error(error) if error.kind() == Kind::Cancelled => End::Cancelled,
            Ending::Error(_) => End::Failed,
        });
        self.progress.finish();
        *held(&self.board.stop) = true;
        self.board.wake.notify_all();
        if let Some(heart) = self.heart.take() {
            let _ = heart.join();
        }
        {
            let mut status = held(&self.board.status);
            status.phase = "ended".to_owned();
            (status.position, status.waits_for) = (None, None);
            match ending {
                Ending::Done(line) => {
                    status.state = State::Done;
                    status.message = Some((*line).to_owned());
                    status.exit_code = Some(0);
                }
                Ending::Error(error) => {
                    let cancelled = error.kind() == Kind::Cancelled;
                    status.state = if cancelled { State::Cancelled } else { State::Failed };
                    status.message = Some(error.to_string());
                    status.hint = error.hint().map(str::to_owned);
                    if let Some(hint) = status.hint.as_mut().filter(|_| error.no_room()) {
                        hint.push_str(&format!("; then go on with `tallow run --resume {}`", self.folder.run_id()));
                    }
                    status.exit_code = Some(match error.kind() {
                        Kind::Cancelled => 130,
                        Kind::Usage => 2,
                        Kind::Failed | Kind::Internal => 1,
                    });
                }
            }
        }
        // what there was no room for before has room now, if anything has
        self.reserve = None;
        let metrics = self.metrics.flush();
        self.complain(metrics);
        self.board.write()
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut held(&self.board.status));
    }

    fn complain(&mut self, result: Result<()>) {
        if let Err(error) = result
            && !self.complained
        {
            self.complained = true;
            self.show(&format!("warning: the run goes on, but {error}"));
        }
    }

    /// Drops the metrics that are made again, before the first of them is written. Until then they are kept: this
    /// process may never get there.
    fn make_room(&mut self) {
        if let Some(step) = self.again_from.take() {
            let trimmed =
                self.metrics.resume_at(step).and_then(|()| tables::resume_at(&self.folder.tables_dir(), step));
            self.complain(trimmed);
        }
    }

    fn step(&mut self, step: u64, total: u64) {
        self.make_room();
        if !self.stepped {
            self.progress = Progress::new("training", total);
        }
        (self.began, self.stepped) = (true, true);
        self.progress.set(step);
        let (first, since) = *self.first.get_or_insert((step, Instant::now()));
        let pace = since.elapsed().as_secs_f64() / step.saturating_sub(first).max(1) as f64;
        self.update(|status| {
            (status.step, status.total_steps) = (step, total);
            status.seconds_per_step = Some(pace).filter(|_| step > first);
        });
    }

    fn training(&mut self, log: &TrainLog) {
        let written = self.metrics.training(log);
        self.complain(written);
        let mut total = 0;
        self.update(|status| {
            (status.step, status.epoch) = (log.step, log.epoch);
            total = status.total_steps;
            remember(status, "loss", log.loss);
            remember(status, "learning_rate", log.learning_rate);
            remember(status, "grad_norm", log.grad_norm);
            remember(status, "rows_per_second", log.rows_per_second);
            log.told.iter().for_each(|(key, value)| remember(status, key, *value));
        });
        self.progress.message(|| format!("loss {:.4}{}", log.loss, terms(&log.told)));
        let of = if total > 0 { format!("/{total}") } else { String::new() };
        self.line(&format!(
            "step {}{of} | epoch {:.2} | loss {:.4}{} | learning rate {:.2e} | gradient norm {:.3} | {} rows/s",
            log.step,
            log.epoch,
            log.loss,
            terms(&log.told),
            log.learning_rate,
            log.grad_norm,
            rate(log.rows_per_second)
        ));
    }

    fn evaluation(&mut self, step: u64, epoch: f64, metrics: &Metrics, seconds: f64) {
        self.make_room();
        let written = self.metrics.evaluation(step, epoch, metrics, seconds);
        self.complain(written);
        self.update(|status| {
            for (key, value) in &metrics.values {
                remember(status, &format!("eval_{key}"), *value);
            }
        });
        self.line(&format!("evaluation at step {step} ({}) | {}", clock::human(seconds), headline(metrics)));
    }
}

/// JSON has no NaN, and a status that cannot be read back is worth less than a missing value.
fn remember(status: &mut Status, key: &str, value: f64) {
    if value.is_finite() {
        status.metrics.insert(key.to_owned(), value);
    } else {
        status.metrics.remove(key);
    }
}

/// The terms of a loss, for a line: what is added up in brackets, then active dimensions.
fn terms(told: &[(String, f64)]) -> String {
    let added: Vec<String> = told
        .iter()
        .filter(|(key, _)| key.ends_with("_loss") || key.contains("_loss_"))
        .map(|(key, value)| match key.strip_suffix("_regularizer_loss") {
            Some("query") => format!("queries {value:.4}"),
            Some(what) => format!("{what}s {value:.4}"),
            None => format!("{} {value:.4}", key.trim_end_matches("_loss").replace('_', " ")),
        })
        .collect();
    let mut text = if added.is_empty() { String::new() } else { format!(" ({})", added.join(", ")) };
    for (key, value) in told.iter().filter(|(key, _)| key.ends_with("_active_dims")) {
        text.push_str(&format!(" | {} {value:.1}", key.replace('_', " ")));
    }
    text
}

/// A decimal where it tells something.
fn rate(per_second: f64) -> String {
    if per_second >= 999.95 { format!("{per_second:.0}") } else { format!("{per_second:.1}") }
}

/// The terminal's part of a message: what is long, as a list of all metrics, is whole in the log.
fn shortened(text: &str) -> String {
    const MOST: usize = 240;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    let begin: String = text.chars().take(MOST).collect();
    let words = begin.rsplit_once(' ').map_or(begin.as_str(), |(words, _)| words);
    format!("{} ... (the whole line is in the log)", words.trim_end_matches(','))
}

/// The primary metric and a few more.
fn headline(metrics: &Metrics) -> String {
    let mut shown: Vec<String> = Vec::new();
    if let Some(value) = metrics.primary_value() {
        shown.push(format!("{} {value:.4}", metrics.primary));
    }
    let others: Vec<&(String, f64)> = metrics.values.iter().filter(|(key, _)| *key != metrics.primary).collect();
    shown.extend(others.iter().take(3).map(|(key, value)| format!("{key} {value:.4}")));
    if others.len() > 3 {
        shown.push(format!("{} more in metrics.jsonl", others.len() - 3));
    }
    shown.join(" | ")
}

impl Listener for Recorder<'_> {
    fn event(&mut self, event: &Event<'_>) {
        for line in self.trackers.event(event) {
            self.line(&line);
        }
        match event {
            Event::Message(text) => {
                self.log_only(text);
                self.show(&shortened(text));
            }
            Event::Warning(text) => {
                self.line(&format!("warning: {text}"));
                let written = report::captured::warning(&self.folder, text);
                self.complain(written);
            }
            Event::Phase(phase) => {
                self.update(|status| status.phase = (*phase).to_owned());
                let written = self.board.write();
                self.complain(written);
                self.log_only(&format!("phase: {phase}"));
            }
            Event::Facts(facts) => {
                let written = report::captured::facts(&self.folder, facts);
                self.complain(written);
            }
            Event::Best { .. } => {
                let written = report::captured::best(&self.folder);
                self.complain(written);
            }
            Event::Step { step, total } => self.step(*step, *total),
            Event::Log(log) => self.training(log),
            Event::Evaluation { step, epoch, metrics, seconds, tables } => {
                self.began = true;
                self.evaluation(*step, *epoch, metrics, *seconds);
                let written = tables::append(&self.folder.tables_dir(), tables, *epoch, *step, metrics);
                self.complain(written);
                let written = report::captured::evaluation(&self.folder, *step, metrics);
                self.complain(written);
            }
            Event::Checkpoint { step, path } => {
                self.log_only(&format!("checkpoint at step {step}: {}", super::folder::display(path)));
            }
        }
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        if self.heart.is_some() {
            let error = Error::Internal(format!("run `{}` was given up before its end", self.folder.run_id()));
            let _ = self.end(&Ending::Error(&error));
        }
    }
}

#[cfg(test)]
mod tests;
