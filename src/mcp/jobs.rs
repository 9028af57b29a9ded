//! Work that may outlast a call: started once, asked for again with the same arguments, or followed as a task.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rmcp::model::JsonObject;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use super::answers::text;
use crate::error::Result;
use crate::verbs::stoppable;

/// An answer, or an error as text.
pub(super) type Answer = Result<Value, String>;

/// A finished answer nobody came back for is forgotten after this long: the files may have changed since.
pub(super) const KEPT: Duration = Duration::from_secs(600);

/// Jobs that compute at once; more would only slow each other down.
const AT_ONCE: usize = 2;

/// What a call got in its time.
#[derive(Debug, PartialEq)]
pub(super) enum Waited {
    Done(Answer),
    /// It told something, the newest where there is much.
    Line(String),
    Running,
}

/// The answer, and since when it is there.
type State = Option<(Instant, Answer)>;

/// What a job does, telling lines for people on the way.
pub(super) type Work = Box<dyn FnOnce(&mut dyn FnMut(&str)) -> Result<Value> + Send>;

/// One piece of work, shared by those who wait for it.
#[derive(Clone)]
pub(super) struct Job {
    /// What it is asked for by.
    pub(super) id: String,
    pub(super) started: jiff::Timestamp,
    state: watch::Receiver<State>,
    line: watch::Receiver<String>,
    stop: Arc<AtomicBool>,
}

impl Job {
    /// The answer, if it is there.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.state.borrow().as_ref().map(|(_, answer)| answer.clone())
    }

    /// The last line it told; empty before the first.
    pub(super) fn line(&self) -> String {
        self.line.borrow().clone()
    }

    /// Asks it to stop where it next looks; it is to say itself that it did.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to stop.
    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What happens first: it is done, it tells a line, or the time is over.
    pub(super) async fn next(&mut self, deadline: tokio::time::Instant) -> Waited {
        // what is borrowed from the channel is not held while others are waited for
        let finished = async { self.state.wait_for(Option::is_some).await.ok().and_then(|state| state.clone()) };
        let changed = async {
            if self.line.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let crashed =
            || "internal error: the tool crashed\nhint: this is a fault of tallow, please report it".to_owned();
        tokio::select! {
            biased;
            state = finished => Waited::Done(state.map_or_else(|| Err(crashed()), |(_, answer)| answer)),
            () = changed => Waited::Line(self.line.borrow_and_update().clone()),
            () = tokio::time::sleep_until(deadline) => Waited::Running,
        }
    }
}

/// The work under way and the answers not yet fetched.
pub(super) struct Jobs {
    table: Mutex<HashMap<String, Job>>,
    turns: Arc<Semaphore>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { table: Mutex::default(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Jobs {
    /// The same for the same tool and arguments, in whatever order they are given.
    pub(super) fn key(tool: &str, arguments: &JsonObject) -> String {
        let mut sorted = Value::Object(arguments.clone());
        sorted.sort_all_objects();
        let mut hash = DefaultHasher::new();
        (tool, sorted.to_string()).hash(&mut hash);
        format!("{tool}-{:016x}", hash.finish())
    }

    /// The job of that id, started if it is not there; `heavy` ones take turns.
    pub(super) fn find_or_start(&self, id: &str, work: Work, heavy: bool) -> Job {
        let mut table = self.table();
        if let Some(job) = table.get(id) {
            return job.clone();
        }
        let (done, state) = watch::channel(None);
        let (teller, line) = watch::channel(String::new());
        let stop = Arc::new(AtomicBool::new(false));
        let job = Job { id: id.to_owned(), started: jiff::Timestamp::now(), state, line, stop: Arc::clone(&stop) };
        let turns = heavy.then(|| Arc::clone(&self.turns));
        tokio::spawn(async move {
            let _turn = match turns {
                None => None,
                Some(turns) => match Arc::clone(&turns).try_acquire_owned() {
                    Ok(turn) => Some(turn),
                    Err(_) => {
                        teller.send_replace("waiting for other calls to end".to_owned());
                        turns.acquire_owned().await.ok()
                    }
                },
            };
            let answer = tokio::task::spawn_blocking(move || {
                let mut tell = |text: &str| drop(teller.send_replace(text.to_owned()));
                stoppable(stop, || work(&mut tell)).map_err(|error| text(&error))
            });
            // a crash drops the sender, which those who wait see
            if let Ok(answer) = answer.await {
                done.send_replace(Some((Instant::now(), answer)));
            }
        });
        table.insert(id.to_owned(), job.clone());
        job
    }

    /// The job of that id.
    pub(super) fn find(&self, id: &str) -> Option<Job> {
        self.table().get(id).cloned()
    }

    /// Hands a finished job out for the last time: the same call made again is new work.
    pub(super) fn forget(&self, job: &Job) {
        let mut table = self.table();
        if table.get(&job.id).is_some_and(|kept| kept.state.same_channel(&job.state)) {
            table.remove(&job.id);
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<String, Job>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, job| job.state.borrow().as_ref().is_none_or(|(since, _)| since.elapsed() < KEPT));
        table
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::error::Error;
    use serde_json::json;
    use std::sync::atomic::AtomicUsize;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(20);

    async fn wait(jobs: &Jobs, id: &str, patience: Duration, work: Work) -> (Waited, Vec<String>) {
        let mut job = jobs.find_or_start(id, work, true);
        let mut lines = Vec::new();
        let deadline = tokio::time::Instant::now() + patience;
        let waited = loop {
            match job.next(deadline).await {
                Waited::Line(line) => lines.push(line),
                waited => break waited,
            }
        };
        if waited != Waited::Running {
            jobs.forget(&job);
        }
        (waited, lines)
    }

    #[tokio::test]
    async fn a_call_made_again_waits_on() {
        let (jobs, started) = (Jobs::default(), Arc::new(AtomicUsize::new(0)));
        let work = |started: &Arc<AtomicUsize>| -> Work {
            let started = Arc::clone(started);
            Box::new(move |tell| {
                started.fetch_add(1, Ordering::SeqCst);
                tell("half way");
                std::thread::sleep(Duration::from_millis(400));
                Ok(json!(1))
            })
        };
        let (waited, lines) = wait(&jobs, "a", SHORT * 3, work(&started)).await;
        assert_eq!((waited, lines), (Waited::Running, vec!["half way".to_owned()]));
        assert_eq!(wait(&jobs, "a", LONG, work(&started)).await.0, Waited::Done(Ok(json!(1))));
        assert_eq!(started.load(Ordering::SeqCst), 1);
        wait(&jobs, "a", LONG, work(&started)).await;
        assert_eq!(started.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_crash_is_an_answer_too() {
        let jobs = Jobs::default();
        let (Waited::Done(Err(message)), _) = wait(&jobs, "a", LONG, Box::new(|_| panic!("on purpose"))).await else {
            panic!("no answer");
        };
        assert!(message.contains("crashed"));
        assert_eq!(wait(&jobs, "a", LONG, Box::new(|_| Ok(json!(2)))).await.0, Waited::Done(Ok(json!(2))));
    }

    #[tokio::test]
    async fn more_than_can_compute_take_turns() {
        let (jobs, at_once, most) = (Jobs::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let go = Arc::new(AtomicBool::new(false));
        for n in 0..5 {
            let (at_once, most, go) = (Arc::clone(&at_once), Arc::clone(&most), Arc::clone(&go));
            let work: Work = Box::new(move |_| {
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                while !go.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                at_once.fetch_sub(1, Ordering::SeqCst);
                Ok(json!(n))
            });
            jobs.find_or_start(&n.to_string(), work, true);
        }
        // what is light does not wait for them
        let mut light = jobs.find_or_start("light", Box::new(|_| Ok(json!("light"))), false);
        let deadline = tokio::time::Instant::now() + LONG;
        assert_eq!(light.next(deadline).await, Waited::Done(Ok(json!("light"))));
        go.store(true, Ordering::SeqCst);
        for n in 0..5 {
            let again: Work = Box::new(|_| Err(Error::usage("started twice")));
            assert_eq!(wait(&jobs, &n.to_string(), LONG, again).await.0, Waited::Done(Ok(json!(n))));
        }
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
    }

    #[test]
    fn keys_do_not_depend_on_order() {
        let object = |text: &str| serde_json::from_str::<JsonObject>(text).unwrap();
        let key = |text| Jobs::key("t", &object(text));
        assert_eq!(key(r#"{"a": 1, "b": {"c": 1, "d": 2}}"#), key(r#"{"b": {"d": 2, "c": 1}, "a": 1}"#));
        assert_ne!(key(r#"{"a": 1}"#), key(r#"{"a": 2}"#));
    }
}
