//! Work that may outlast a call: started once, asked for again with the same arguments.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rmcp::model::JsonObject;
use serde_json::Value;
use tokio::sync::watch;

use super::tools::text;
use crate::error::Result;

/// An answer, or an error as text.
type Answer = Result<Value, String>;

/// A finished answer nobody came back for is forgotten after this long: the files may have changed since.
const KEPT: Duration = Duration::from_secs(600);

/// What a call got in its time.
#[derive(Debug, PartialEq)]
pub(super) enum Waited {
    Done(Answer),
    Running,
}

type State = Option<(Instant, Answer)>;

/// The work under way and the answers not yet fetched.
#[derive(Default)]
pub(super) struct Jobs {
    table: Mutex<HashMap<String, watch::Receiver<State>>>,
}

impl Jobs {
    /// The same for the same tool and arguments, in whatever order they are given.
    pub(super) fn key(tool: &str, arguments: &JsonObject) -> String {
        let mut sorted = Value::Object(arguments.clone());
        sorted.sort_all_objects();
        format!("{tool} {sorted}")
    }

    /// Waits for the job `key`, starting it if it is not under way. An answer is handed out once.
    pub(super) async fn wait(
        &self,
        key: String,
        patience: Duration,
        work: impl FnOnce() -> Result<Value> + Send + 'static,
    ) -> Waited {
        let mut job = self.find_or_start(&key, work);
        let state = match tokio::time::timeout(patience, job.wait_for(Option::is_some)).await {
            Err(_) => return Waited::Running,
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => None,
        };
        self.forget(&key, &job);
        Waited::Done(match state {
            Some((_, answer)) => answer,
            None => {
                Err("internal error: the tool crashed\nhint: this is a fault of tallow, please report it".to_owned())
            }
        })
    }

    fn find_or_start(
        &self,
        key: &str,
        work: impl FnOnce() -> Result<Value> + Send + 'static,
    ) -> watch::Receiver<State> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, job| job.borrow().as_ref().is_none_or(|(since, _)| since.elapsed() < KEPT));
        if let Some(job) = table.get(key) {
            return job.clone();
        }
        let (sender, job) = watch::channel(None);
        tokio::task::spawn_blocking(move || {
            let answer = work().map_err(|error| text(&error));
            let _ = sender.send(Some((Instant::now(), answer)));
        });
        table.insert(key.to_owned(), job.clone());
        job
    }

    fn forget(&self, key: &str, job: &watch::Receiver<State>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.get(key).is_some_and(|kept| kept.same_channel(job)) {
            table.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use serde_json::json;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_call_made_again_waits_on() {
        let (jobs, started) = (Jobs::default(), Arc::new(AtomicUsize::new(0)));
        let work = |started: &Arc<AtomicUsize>| {
            let started = Arc::clone(started);
            move || {
                started.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(400));
                Ok(json!(1))
            }
        };
        assert_eq!(jobs.wait("a".into(), SHORT, work(&started)).await, Waited::Running);
        assert_eq!(jobs.wait("a".into(), LONG, work(&started)).await, Waited::Done(Ok(json!(1))));
        assert_eq!(started.load(Ordering::SeqCst), 1);
        jobs.wait("a".into(), LONG, work(&started)).await;
        assert_eq!(started.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_crash_is_an_answer_too() {
        let jobs = Jobs::default();
        let Waited::Done(Err(message)) = jobs.wait("a".into(), LONG, || panic!("on purpose")).await else {
            panic!("no answer");
        };
        assert!(message.contains("crashed"));
        assert_eq!(jobs.wait("a".into(), LONG, || Ok(json!(2))).await, Waited::Done(Ok(json!(2))));
    }

    #[test]
    fn keys_do_not_depend_on_order() {
        let object = |text: &str| serde_json::from_str::<JsonObject>(text).unwrap();
        let key = |text| Jobs::key("t", &object(text));
        assert_eq!(key(r#"{"a": 1, "b": {"c": 1, "d": 2}}"#), key(r#"{"b": {"d": 2, "c": 1}, "a": 1}"#));
        assert_ne!(key(r#"{"a": 1}"#), key(r#"{"a": 2}"#));
    }
}
