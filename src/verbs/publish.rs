//! A run's model on the Hub: each checkpoint's on a thread of its own while training goes on, and the last one's at the
//! end. Whatever becomes of it, the run is kept.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use serde_json::{Map, Value};

use super::engine;
use super::run::Response;
use crate::error::{Error, Result};
use crate::hub::{Push, Pushed};
use crate::recipe::Plan;
use crate::recipe::plan::HubPlan;
use crate::recipe::schema::HubStrategy;
use crate::runs::folder::display;
use crate::runs::{Recorder, RunFolder};
use crate::train::events::{Event, Listener};
use crate::util::files;

/// Where models wait for their way, in the run's folder.
const WAITING: &str = ".publishing";

/// Listens for the recorder, and publishes each checkpoint's model where that is asked for.
pub(super) struct Publishing<'a, 'b> {
    recorder: &'a mut Recorder<'b>,
    publisher: Option<Publisher>,
}

impl<'a, 'b> Publishing<'a, 'b> {
    /// For a run that begins, or goes on.
    pub(super) fn new(plan: &Plan, folder: &RunFolder, recorder: &'a mut Recorder<'b>) -> Self {
        let each = plan.hub.push_to_hub && plan.hub.hub_strategy == HubStrategy::EverySave;
        let publisher = each.then(|| Publisher::new(&plan.hub, folder.dir().join(WAITING))).flatten();
        Self { recorder, publisher }
    }

    /// Training is over: the model that is on its way gets there first.
    pub(super) fn finish(self) {
        let Some(mut publisher) = self.publisher else { return };
        if publisher.under_way > 0 {
            self.recorder.line("waiting for a checkpoint's model to be published");
        }
        publisher.jobs = None;
        while publisher.under_way > 0
            && let Ok(done) = publisher.done.recv()
        {
            self.recorder.line(&publisher.tell(done));
        }
        if let Some(thread) = publisher.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Listener for Publishing<'_, '_> {
    fn event(&mut self, event: &Event<'_>) {
        self.recorder.event(event);
        let Some(publisher) = &mut self.publisher else { return };
        while let Ok(done) = publisher.done.try_recv() {
            self.recorder.line(&publisher.tell(done));
        }
        if let Event::Checkpoint { step, path } = event
            && let Some(line) = publisher.checkpoint(*step, path)
        {
            self.recorder.line(&line);
        }
    }
}

/// A step, and what became of its model.
type Done = (u64, Result<Pushed>);

/// The thread that publishes, one model after the other.
struct Publisher {
    waiting: PathBuf,
    /// Whether a model waits while another is on its way.
    always: bool,
    /// Models that were handed over and of which nothing was heard.
    under_way: usize,
    jobs: Option<Sender<(u64, PathBuf)>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// `None` where the system gives no thread.
    fn new(hub: &HubPlan, waiting: PathBuf) -> Option<Self> {
        // of a process that did not come to its end
        let _ = files::remove_dir(&waiting);
        let (jobs, next) = channel::<(u64, PathBuf)>();
        let (tell, done) = channel();
        let (hub, always) = (hub.clone(), hub.hub_always_push);
        let work = move || {
            for (step, folder) in next {
                let message = format!("Training in progress, step {step}");
                let pushed = engine::push(&to_push(&hub, &folder, &message));
                let _ = files::remove_dir(&folder);
                if tell.send((step, pushed)).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("publish".to_owned()).spawn(work).ok()?;
        Some(Self { waiting, always, under_way: 0, jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// Hands a checkpoint's model over; a line where there is something to tell.
    fn checkpoint(&mut self, step: u64, checkpoint: &Path) -> Option<String> {
        if self.under_way > 0 && !self.always {
            return Some(format!(
                "the model of step {step} is not published: the one before is still on its way \
                 (`hub.hub_always_push = true` lets it wait)"
            ));
        }
        let folder = self.waiting.join(step.to_string());
        // the checkpoint may be gone before its model is
        match engine::copy_model(checkpoint, &folder) {
            Ok(()) => {
                self.under_way += usize::from(self.jobs.as_ref().is_some_and(|jobs| jobs.send((step, folder)).is_ok()));
                None
            }
            Err(error) => Some(format!("warning: the model of step {step} is not published: {error}; the run goes on")),
        }
    }

    /// What became of one, as a line.
    fn tell(&mut self, (step, pushed): Done) -> String {
        self.under_way -= 1;
        match pushed {
            Ok(pushed) => format!("published the model of step {step} at {}", pushed.url),
            Err(error) => format!("warning: the model of step {step} is not published: {error}; the run goes on"),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // a thread that is still at work ends with the process; a commit is there whole or not at all
        let _ = files::remove_dir(&self.waiting);
    }
}

fn to_push<'a>(hub: &'a HubPlan, folder: &'a Path, message: &'a str) -> Push<'a> {
    Push {
        folder,
        id: &hub.hub_model_id,
        private: hub.hub_private_repo,
        revision: hub.hub_revision.as_deref(),
        message,
        create_pr: false,
    }
}

/// Publishes the model of a run that is over; a failure is told, with the command that tries again.
pub(super) fn publish(plan: &Plan, folder: &RunFolder, response: &mut Response, recorder: &mut Recorder<'_>) {
    let (hub, model) = (&plan.hub, folder.model_dir());
    recorder.line(&format!("publishing as `{}`", hub.hub_model_id));
    let message = format!("Add the model of the run {}", folder.run_id());
    match engine::push(&to_push(hub, &model, &message)) {
        Ok(pushed) => {
            recorder.line(&format!("published at {}", pushed.url));
            response.hub_url = Some(pushed.url);
        }
        Err(error) => {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            let again = push_again(folder, hub);
            recorder.line(&format!("warning: not published: {error}{hint}"));
            recorder.line(&format!("warning: the model is kept; `{again}` tries again"));
            response.hub_error = Some(format!("{error}{hint}; `{again}` tries again"));
        }
    }
    if let Err(error) = add_to_outcome(folder, response) {
        recorder.line(&format!("warning: outcome.json does not tell of it: {error}"));
    }
}

/// The command that publishes a run's model as its recipe says.
fn push_again(folder: &RunFolder, hub: &HubPlan) -> String {
    let mut words =
        vec!["tallow".to_owned(), "push".to_owned(), display(&folder.model_dir()), hub.hub_model_id.clone()];
    if hub.hub_private_repo {
        words.push("--private".to_owned());
    }
    if let Some(branch) = &hub.hub_revision {
        words.extend(["--revision".to_owned(), branch.clone()]);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-~".contains(c);
    words
        .iter_mut()
        .filter(|word| !word.chars().all(plain))
        .for_each(|word| *word = format!("'{}'", word.replace('\'', r"'\''")));
    words.join(" ")
}

/// What became of publishing, beside what was known before.
fn add_to_outcome(folder: &RunFolder, response: &Response) -> Result<()> {
    let path = folder.outcome_file();
    let internal = |e: serde_json::Error| Error::Internal(format!("outcome: {e}"));
    let mut outcome: Map<String, Value> = serde_json::from_str(&files::read_text(&path)?).map_err(internal)?;
    for (key, text) in [("hub_url", &response.hub_url), ("hub_error", &response.hub_error)] {
        if let Some(text) = text {
            outcome.insert(key.to_owned(), Value::from(text.as_str()));
        }
    }
    files::write_atomic(&path, serde_json::to_string_pretty(&outcome).map_err(internal)?.as_bytes())
}
