//! A run's folder: `runs/<run_id>/`, what lies in it, and how a run is found again.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::runs::keys;
use crate::runs::status::{self, State};
use crate::util::{clock, files, suggest};

/// The folder of one run, by absolute path. `runs` is the recipe's `output_dir`.
///
/// ```text
/// <root>/runs/<run_id>/plan.toml      everything resolved; what `--resume` goes on from
///                      recipe.toml    the recipe as it was
///                      key            what the run was asked for by, where it was
///                      status.json    state, process, heartbeat, step
///                      metrics.jsonl  one line a training or evaluation event
///                      eval/          a CSV file an evaluator, one row an evaluation
///                      report.html    what the run did, for people
///                      report/        its curves as pictures, and what it is made of
///                      console.log    what a detached process wrote outside the log
///                      checkpoints/  model/  outcome.json
/// <root>/runs/.keys.lock                held while a key is looked for
/// <root>/logs/<run_name>.log          every line for people
///             experiments.md          one row a run
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    runs: PathBuf,
    run_id: String,
}

/// A killed process counts as ended while its last threads still hold its files open; so long they may take.
const DYING: Duration = Duration::from_secs(2);

/// Where runs are looked for when no folder is named: a recipe's default `output_dir`.
pub const RUNS: &str = "runs";

impl RunFolder {
    /// Makes a new folder `<runs>/<run_name>-<stamp>`; a number is added if that name is taken.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn create(runs: &Path, run_name: &str) -> Result<Self> {
        files::create_dir(runs)?;
        let runs = absolute(runs)?;
        let base = format!("{}-{}", safe_name(run_name), clock::stamp());
        for attempt in 1..1000_u32 {
            let run_id = if attempt == 1 { base.clone() } else { format!("{base}-{attempt}") };
            let dir = runs.join(&run_id);
            match std::fs::create_dir(&dir) {
                Ok(()) => {
                    files::create_dir(&dir.join("checkpoints"))?;
                    return Ok(Self { runs, run_id });
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io("create the directory", &dir)(e)),
            }
        }
        Err(Error::Internal(format!("no free name for a run below `{}`", runs.display())))
    }

    /// The folders that [`RunFolder::create`] would have to make around the run's own, innermost first.
    #[must_use]
    pub fn missing_around(runs: &Path) -> Vec<PathBuf> {
        files::absolute(runs).ancestors().take_while(|dir| !dir.exists()).map(Path::to_path_buf).collect()
    }

    /// Takes the run away again, with those of the `made` folders that nothing else lies in.
    ///
    /// # Errors
    /// When the run's own folder cannot be removed.
    pub fn withdraw(&self, made: &[PathBuf]) -> Result<()> {
        files::remove_dir(&self.dir())?;
        if made.iter().any(|dir| dir.file_name() == self.runs.file_name()) {
            keys::forget_lock(&self.runs);
        }
        // stops at the first folder that is not empty
        let _ = made.iter().try_for_each(std::fs::remove_dir);
        Ok(())
    }

    /// The run whose folder `dir` is.
    ///
    /// # Errors
    /// When it is not the folder of a run.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = absolute(dir)?;
        let not_a_run = || {
            Error::usage(format!("`{}` is not the folder of a run", dir.display()))
                .with_hint("a run's folder is `runs/<run_id>` and holds `status.json`")
        };
        let run_id = dir.file_name().map(|n| n.to_string_lossy().into_owned()).ok_or_else(not_a_run)?;
        let runs = dir.parent().map(Path::to_path_buf).ok_or_else(not_a_run)?;
        let folder = Self { runs, run_id };
        if !(folder.status_file().is_file() || folder.plan_file().is_file()) {
            return Err(not_a_run());
        }
        Ok(folder)
    }

    /// The run meant by `run` among those in `runs`: a folder, an id, or the beginning of exactly one id;
    /// the latest run when left out.
    ///
    /// # Errors
    /// When there is none, or several could be meant.
    pub fn find(runs: &Path, run: Option<&str>) -> Result<Self> {
        let all = Self::all(runs)?;
        let place = absolute(runs)?;
        let place = place.display();
        let Some(wanted) = run else {
            return all.into_iter().next().ok_or_else(|| {
                Error::usage(format!("there are no runs in `{place}`"))
                    .with_hint("start one with `tallow run RECIPE`, or name a run's folder")
            });
        };
        if let Some(exact) = all.iter().find(|f| f.run_id == wanted) {
            return Ok(exact.clone());
        }
        if Path::new(wanted).is_dir() {
            return Self::open(Path::new(wanted));
        }
        let begin: Vec<&Self> = all.iter().filter(|f| !wanted.is_empty() && f.run_id.starts_with(wanted)).collect();
        match begin.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(Error::usage(format!("there is no run `{wanted}`")).with_hint(if all.is_empty() {
                format!("no runs lie in `{place}`; name the run's folder")
            } else {
                suggest::hint(wanted, all.iter().take(8).map(|f| f.run_id.as_str()))
            })),
            several => Err(Error::usage(format!("`{wanted}` could be {} runs", several.len())).with_hint(format!(
                "name one of {}",
                several.iter().take(8).map(|f| format!("`{}`", f.run_id)).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// The newest run of `run_name` that has not ended well and is not under way.
    ///
    /// # Errors
    /// When there is none; the hint says whether one is still running.
    pub fn latest_unfinished(runs: &Path, run_name: &str) -> Result<Self> {
        let mut running = None;
        for folder in Self::all(runs)? {
            let Ok(status) = status::read(&folder) else {
                continue;
            };
            if status.run_name != run_name {
                continue;
            }
            match status.state {
                State::Failed | State::Cancelled if folder.planned() => return Ok(folder),
                State::Failed | State::Cancelled => {}
                State::Queued | State::Running => running = Some(folder.run_id),
                State::Done => {}
            }
        }
        Err(Error::usage(format!("there is no unfinished run of `{run_name}` to resume")).with_hint(match running {
            Some(id) => {
                format!("`{id}` is still running: follow it with `tallow status {id} --wait 600`")
            }
            None => "start a new run without `--resume`".to_owned(),
        }))
    }

    /// All runs in a folder, newest first; none when the folder is not there.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn all(runs: &Path) -> Result<Vec<Self>> {
        if !runs.is_dir() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for dir in files::list(runs)? {
            if let Ok(folder) = Self::open(&dir) {
                // a status that cannot be read takes nothing from the others
                let started = status::read_raw(&folder).map(|s| s.started).unwrap_or_else(|_| folder.stamped());
                found.push((started, folder));
            }
        }
        found.sort_by(|a, b| (&b.0, &b.1.run_id).cmp(&(&a.0, &a.1.run_id)));
        Ok(found.into_iter().map(|(_, folder)| folder).collect())
    }

    /// Holds the run for this process: a second process that tries to go on with it is refused. The lock goes
    /// with the returned file, however the process ends.
    ///
    /// # Errors
    /// When another process holds it.
    pub fn lock(&self) -> Result<File> {
        let file = files::create(&self.lock_file())?;
        let deadline = Instant::now() + DYING;
        while !files::lock(&file) {
            if Instant::now() >= deadline {
                return Err(Error::usage(format!("run `{}` is under way in another process", self.run_id))
                    .with_hint(format!("follow it with `tallow status {}`", self.run_id)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(file)
    }

    /// Whether a process of this machine holds the run; changes nothing.
    #[must_use]
    pub fn held(&self) -> bool {
        let file = File::open(self.lock_file());
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Whether the run's plan was written: a start that was cut off before that has nothing to go on with.
    #[must_use]
    pub fn planned(&self) -> bool {
        self.plan_file().is_file()
    }

    fn lock_file(&self) -> PathBuf {
        self.dir().join(".lock")
    }

    /// When the run was first started by its id, in the form of a status; empty for an id without a time.
    #[must_use]
    pub fn stamped(&self) -> String {
        let stamp = self.run_id.split('-').collect::<Vec<_>>();
        let stamped = stamp.windows(2).rev().find_map(|two| clock::from_stamp(&format!("{}-{}", two[0], two[1])));
        stamped.unwrap_or_default()
    }

    /// The run's id, which is its folder's name.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The folder itself.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.runs.join(&self.run_id)
    }

    /// Where the resolved plan lies.
    #[must_use]
    pub fn plan_file(&self) -> PathBuf {
        self.dir().join("plan.toml")
    }

    /// Where the copy of the recipe lies.
    #[must_use]
    pub fn recipe_file(&self) -> PathBuf {
        self.dir().join("recipe.toml")
    }

    /// Where the status lies.
    #[must_use]
    pub fn status_file(&self) -> PathBuf {
        self.dir().join("status.json")
    }

    /// Where the evaluators' CSV files lie.
    #[must_use]
    pub fn tables_dir(&self) -> PathBuf {
        self.dir().join("eval")
    }

    /// Where the metrics lie.
    #[must_use]
    pub fn metrics_file(&self) -> PathBuf {
        self.dir().join("metrics.jsonl")
    }

    /// The step of the newest complete checkpoint, the one that training goes on from.
    ///
    /// # Errors
    /// When the folder of checkpoints cannot be listed.
    pub fn checkpoint_step(&self) -> Result<Option<u64>> {
        let checkpoints = self.dir().join("checkpoints");
        if !checkpoints.is_dir() {
            return Ok(None);
        }
        let step = |path: &PathBuf| -> Option<u64> {
            let step = path.file_name()?.to_str()?.strip_prefix("checkpoint-")?.parse().ok()?;
            path.join("trainer_state.json").exists().then_some(step)
        };
        Ok(files::list(&checkpoints)?.iter().filter_map(step).max())
    }

    /// Where a detached process's own output goes (panics, libraries).
    #[must_use]
    pub fn console_file(&self) -> PathBuf {
        self.dir().join("console.log")
    }

    /// Where the trained model lies.
    #[must_use]
    pub fn model_dir(&self) -> PathBuf {
        self.dir().join("model")
    }

    /// Where the outcome lies.
    #[must_use]
    pub fn outcome_file(&self) -> PathBuf {
        self.dir().join("outcome.json")
    }

    /// `logs`, beside the folder of runs: the same for a run that is resumed from somewhere else.
    fn logs(&self) -> PathBuf {
        self.runs.parent().unwrap_or(&self.runs).join("logs")
    }

    /// `logs/<run_name>.log`.
    #[must_use]
    pub fn log_file(&self, run_name: &str) -> PathBuf {
        self.logs().join(format!("{}.log", safe_name(run_name)))
    }

    /// `logs/experiments.md`.
    #[must_use]
    pub fn experiments_file(&self) -> PathBuf {
        self.logs().join("experiments.md")
    }
}

/// A path as people like to read it: relative to the current directory where it lies below.
#[must_use]
pub fn display(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here) {
        Ok(relative) if !relative.as_os_str().is_empty() => relative.display().to_string(),
        _ => path.display().to_string(),
    }
}

/// `run_name` as one part of a path: anything but letters, digits, `.`, `_` and `-` becomes `-`.
fn safe_name(run_name: &str) -> String {
    let name: String =
        run_name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' }).collect();
    let name = name.trim_matches(|c| c == '.' || c == '-');
    if name.is_empty() { "run".to_owned() } else { name.chars().take(100).collect() }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    // the lexical form of `absolute` keeps `..`, which would make one run have two names
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(_) => std::path::absolute(path).map_err(Error::io("resolve", path)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(folder: &RunFolder, started: &str, state: State, run_name: &str) {
        let mut status = status::Status::starting(folder.run_id(), run_name);
        status.started = started.to_owned();
        status.state = state;
        status::write(folder, &status).unwrap();
    }

    #[test]
    fn two_runs_of_one_second_get_two_folders() {
        let dir = tempfile::tempdir().unwrap();
        let ids: std::collections::BTreeSet<String> =
            (0..4).map(|_| RunFolder::create(&dir.path().join("runs"), "a b/c").unwrap().run_id().to_owned()).collect();
        assert_eq!(ids.len(), 4);
        assert!(ids.iter().all(|id| id.starts_with("a-b-c-2")), "{ids:?}");
    }

    #[test]
    fn runs_are_found_by_id_prefix_folder_and_age() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RunFolder::find(&dir.path().join("runs"), None).unwrap_err().to_string().contains("no runs"));
        let old = RunFolder::create(&dir.path().join("runs"), "alpha").unwrap();
        let new = RunFolder::create(&dir.path().join("runs"), "beta").unwrap();
        put(&old, "2026-01-01T00:00:00Z", State::Failed, "alpha");
        put(&new, "2026-01-02T00:00:00Z", State::Done, "beta");
        assert_eq!(RunFolder::find(&dir.path().join("runs"), None).unwrap(), new);
        assert_eq!(RunFolder::find(&dir.path().join("runs"), Some("alpha")).unwrap(), old);
        assert_eq!(RunFolder::find(&dir.path().join("runs"), Some(old.run_id())).unwrap(), old);
        assert_eq!(RunFolder::find(&dir.path().join("runs"), old.dir().to_str()).unwrap(), old);
        let error = RunFolder::find(&dir.path().join("runs"), Some("gamma")).unwrap_err();
        assert!(error.hint().unwrap().contains(new.run_id()), "{error}");
        assert!(RunFolder::open(dir.path()).is_err());
    }

    #[test]
    fn only_an_unfinished_run_of_that_name_is_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        let other = RunFolder::create(&dir.path().join("runs"), "a-b").unwrap();
        let last = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        put(&first, "2026-01-01T00:00:00Z", State::Cancelled, "a");
        put(&other, "2026-01-02T00:00:00Z", State::Failed, "a-b");
        put(&last, "2026-01-03T00:00:00Z", State::Done, "a");
        std::fs::write(first.plan_file(), "").unwrap();
        std::fs::write(other.plan_file(), "").unwrap();
        let cut_off = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        put(&cut_off, "2026-01-04T00:00:00Z", State::Failed, "a");
        assert_eq!(RunFolder::latest_unfinished(&dir.path().join("runs"), "a").unwrap(), first);
        assert_eq!(RunFolder::latest_unfinished(&dir.path().join("runs"), "a-b").unwrap(), other);
        assert!(RunFolder::latest_unfinished(&dir.path().join("runs"), "b").is_err());
    }

    #[test]
    fn only_complete_checkpoints_count() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        assert_eq!(folder.checkpoint_step().unwrap(), None);
        for (name, complete) in [("checkpoint-9", true), ("checkpoint-10", true), ("checkpoint-20", false)] {
            let checkpoint = folder.dir().join("checkpoints").join(name);
            std::fs::create_dir(&checkpoint).unwrap();
            if complete {
                std::fs::write(checkpoint.join("trainer_state.json"), "{}").unwrap();
            }
        }
        assert_eq!(folder.checkpoint_step().unwrap(), Some(10));
    }

    #[test]
    fn a_withdrawn_run_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("new/runs");
        let made = RunFolder::missing_around(&runs);
        assert_eq!(made, [runs.clone(), dir.path().join("new")]);
        let folder = RunFolder::create(&runs, "a").unwrap();
        let other = RunFolder::create(&runs, "b").unwrap();
        folder.withdraw(&made).unwrap();
        assert!(!folder.dir().exists() && other.dir().exists());
        other.withdraw(&made).unwrap();
        assert!(dir.path().is_dir() && !dir.path().join("new").exists());
        assert!(RunFolder::missing_around(dir.path()).is_empty());
    }

    #[test]
    fn a_broken_status_keeps_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        for (id, started) in
            [("a-20260101-000000", "2026-01-01T00:00:00.5Z"), ("a-20260103-000000", "2026-01-03T00:00:00Z")]
        {
            std::fs::create_dir_all(runs.join(id)).unwrap();
            let folder = RunFolder { runs: runs.clone(), run_id: id.to_owned() };
            put(&folder, started, State::Done, "a");
        }
        let broken = runs.join("a-b-20260102-000000-2");
        std::fs::create_dir(&broken).unwrap();
        std::fs::write(broken.join("status.json"), "{").unwrap();
        let ids: Vec<String> = RunFolder::all(&runs).unwrap().into_iter().map(|f| f.run_id).collect();
        assert_eq!(ids, ["a-20260103-000000", "a-b-20260102-000000-2", "a-20260101-000000"]);
    }

    #[test]
    fn a_held_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        assert!(!folder.held());
        let held = folder.lock().unwrap();
        assert!(folder.held());
        assert!(folder.lock().unwrap_err().to_string().contains("another process"));
        drop(held);
        folder.lock().unwrap();
    }

    #[test]
    fn names_become_parts_of_paths() {
        assert_eq!(safe_name("../x y"), "x-y");
        assert_eq!(safe_name(""), "run");
        assert_eq!(safe_name("minilm-stsb_1.0"), "minilm-stsb_1.0");
    }
}
