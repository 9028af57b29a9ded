//! What can be read of a run while it goes on and after: its status, log, metrics, recipe, report and card.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::json;

use super::status::Response;
use crate::error::{Error, Result};
use crate::runs::folder::RUNS;
use crate::runs::{RunFolder, report, status};
use crate::util::{fence, files, suggest};

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    pub mime_type: &'static str,
    pub description: &'static str,
}

const fn part(name: &'static str, mime_type: &'static str, description: &'static str) -> Part {
    Part { name, mime_type, description }
}

/// All parts.
pub const PARTS: &[Part] = &[
    part("status", "application/json", "Where the run stands: state, step, metrics, verdict"),
    part("log", "text/plain", "Its lines for people, the last ones first asked for; `?from=LINE&lines=N` pages"),
    part("metrics", "application/jsonl", "A line a logged step and an evaluation; `?from=LINE&lines=N` pages"),
    part("recipe", "application/toml", "The recipe as it was when the run began"),
    part("plan", "application/toml", "Everything resolved, defaults included"),
    part("report", "text/html", "Curves, what changed for which query, data, time, environment"),
    part("card", "text/markdown", "The model's README with its metadata for the Hub"),
];

/// Lines of a log that are read at once where nothing else is asked for.
const LINES: usize = 200;

/// Which lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lines {
    /// The first, from 1; the last [`LINES`] where left out.
    pub from: Option<usize>,
    /// How many.
    pub lines: Option<usize>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub mime_type: &'static str,
    pub text: String,
    /// First and last line (from 1) and how many there are, of what is read in parts.
    pub range: Option<(usize, usize, usize)>,
}

/// A run in the folder of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub id: String,
    pub state: String,
}

/// The newest runs in the folder of runs; one whose status cannot be read is `unreadable`.
///
/// # Errors
/// When the folder cannot be listed.
pub fn known(most: usize) -> Result<Vec<Known>> {
    let folders = RunFolder::all(Path::new(RUNS))?;
    let known = |folder: &RunFolder| Known {
        id: folder.run_id().to_owned(),
        state: status::read(folder).map_or_else(|_| "unreadable".to_owned(), |s| s.state.name().to_owned()),
    };
    Ok(folders.iter().take(most).map(known).collect())
}

/// How many runs there are.
#[must_use]
pub fn count() -> usize {
    RunFolder::all(Path::new(RUNS)).map_or(0, |all| all.len())
}

/// How a run in `run_dir` is called in addresses: by its id, or by its folder where that is not the folder of runs.
#[must_use]
pub fn name(run_dir: &Path) -> String {
    let id = run_dir.file_name().map(|id| id.to_string_lossy().into_owned()).unwrap_or_default();
    let here = files::absolute(&Path::new(RUNS).join(&id));
    let same = here.canonicalize().is_ok_and(|here| run_dir.canonicalize().is_ok_and(|there| here == there));
    if same { id } else { run_dir.display().to_string() }
}

/// A part of a run.
///
/// # Errors
/// When there is no such run or part, or the run does not have it yet.
pub fn read(run: &str, part: &str, lines: Lines) -> Result<Content> {
    let folder = find(run)?;
    let Some(part) = PARTS.iter().find(|known| known.name == part) else {
        return Err(Error::usage(format!("a run has no `{part}`"))
            .with_hint(suggest::hint(part, PARTS.iter().map(|known| known.name))));
    };
    let mime_type = part.mime_type;
    if part.name == "status" {
        let response = Response::new(&folder, status::read(&folder)?);
        let text = serde_json::to_string_pretty(&json!(response)).unwrap_or_default();
        return Ok(Content { mime_type, text, range: None });
    }
    let path = file(&folder, part.name);
    // a run under way has none yet, or that of before it was resumed; one that has just ended is about to write it
    let under_way = || status::read(&folder).is_ok_and(|status| status.state.under_way());
    if part.name == "report" && (!path.is_file() || under_way()) {
        return Ok(Content { mime_type, text: report::html(&folder)?, range: None });
    }
    if !path.is_file() {
        return Err(Error::usage(format!("run `{}` has no {} yet", folder.run_id(), part.name))
            .with_hint("follow it with `run_status` until it has got there"));
    }
    let text = String::from_utf8_lossy(&files::read(&path)?).into_owned();
    Ok(match part.name {
        "log" | "metrics" => excerpt(mime_type, &text, lines),
        _ => Content { mime_type, text, range: None },
    })
}

/// Pictures (PNG) of a run's loss, and of its metric where there is one, by name; none before there is anything to draw.
#[must_use]
pub fn curves(run: &str) -> Vec<(String, Vec<u8>)> {
    find(run).and_then(|folder| report::curves(&folder, &["loss", "metric"])).unwrap_or_default()
}

/// A text file in the workspace, whole or in parts.
///
/// # Errors
/// When it leads out of the workspace, is no text, or is too large to be read at once.
pub fn read_file(path: &Path, lines: Lines) -> Result<Content> {
    fence::admit(path)?;
    let text = files::read_text(path)?;
    let mime_type = match path.extension().and_then(|ending| ending.to_str()) {
        Some("md") => "text/markdown",
        Some("toml") => "application/toml",
        Some("json") => "application/json",
        Some("jsonl") => "application/jsonl",
        Some("html") => "text/html",
        Some("py") => "text/x-python",
        _ => "text/plain",
    };
    let whole = lines == Lines::default() && text.len() <= 1 << 16;
    Ok(if whole {
        Content { mime_type, text, range: None }
    } else {
        excerpt(mime_type, &text, Lines { from: lines.from.or(Some(1)), ..lines })
    })
}

/// The log of experiments, newest first.
///
/// # Errors
/// When there is none.
pub fn experiments() -> Result<Content> {
    let path = Path::new("logs").join("experiments.md");
    if !path.is_file() {
        return Err(Error::usage("there is no `logs/experiments.md` yet").with_hint("it is written when a run ends"));
    }
    Ok(Content { mime_type: "text/markdown", text: files::read_text(&path)?, range: None })
}

/// What changes when a part of a run does; `None` while there is nothing.
#[must_use]
pub fn stamp(run: &str, part: &str) -> Option<u64> {
    let folder = find(run).ok()?;
    let mut hash = DefaultHasher::new();
    if part == "status" {
        let now = status::read(&folder).ok()?;
        (now.state.name(), now.step, &now.phase, &now.message).hash(&mut hash);
        now.metrics.iter().for_each(|(key, value)| (key, value.to_bits()).hash(&mut hash));
    } else {
        let about = file(&folder, part).metadata().ok()?;
        let changed = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        (about.len(), changed).hash(&mut hash);
    }
    Some(hash.finish())
}

fn find(run: &str) -> Result<RunFolder> {
    if run.contains(['/', '\\']) {
        fence::admit(Path::new(run))?;
    }
    let folder = RunFolder::find(Path::new(RUNS), Some(run))?;
    fence::admit(&folder.dir())?;
    Ok(folder)
}

fn file(folder: &RunFolder, part: &str) -> PathBuf {
    match part {
        "log" => status::read_raw(folder).map_or_else(|_| folder.console_file(), |s| folder.log_file(&s.run_name)),
        "metrics" => folder.metrics_file(),
        "recipe" => folder.recipe_file(),
        "plan" => folder.plan_file(),
        "card" => folder.model_dir().join("README.md"),
        other => folder.dir().join(format!("{other}.html")),
    }
}

fn excerpt(mime_type: &'static str, text: &str, wanted: Lines) -> Content {
    let all: Vec<&str> = text.lines().collect();
    let count = wanted.lines.unwrap_or(LINES).clamp(1, 2000);
    let from = wanted.from.unwrap_or_else(|| all.len().saturating_sub(count) + 1).max(1);
    let shown: Vec<&str> = all.iter().skip(from - 1).take(count).copied().collect();
    let last = from - 1 + shown.len();
    let text = if shown.is_empty() { String::new() } else { shown.join("\n") + "\n" };
    Content { mime_type, text, range: Some((from, last, all.len())) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn long_texts_are_read_in_parts() {
        let text: String = (1..=500).map(|n| format!("line {n}\n")).collect();
        let read = |from, lines| {
            let content = excerpt("text/plain", &text, Lines { from, lines });
            (content.text.lines().count(), content.range.unwrap())
        };
        assert_eq!(read(None, None), (200, (301, 500, 500)), "the end is what is new");
        assert_eq!(read(Some(1), Some(3)), (3, (1, 3, 500)));
        assert_eq!(read(Some(499), Some(50)), (2, (499, 500, 500)));
        assert_eq!(read(Some(900), None), (0, (900, 899, 500)));
        assert_eq!(read(Some(0), Some(0)), (1, (1, 1, 500)));
        assert_eq!(excerpt("text/plain", "", Lines::default()).range, Some((1, 0, 0)));
    }

    #[test]
    fn a_run_elsewhere_is_called_by_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(&dir.path().join("runs"), "a").unwrap();
        status::write(&folder, &status::Status::starting(folder.run_id(), "a")).unwrap();
        let name = name(&folder.dir());
        assert!(name.starts_with('/'), "{name}");
        assert!(read(&name, "status", Lines::default()).unwrap().text.contains("\"running\""));
        let early = read(&name, "card", Lines::default()).unwrap_err();
        assert!(early.to_string().contains("no card yet"), "{early}");
        assert!(read(&name, "report", Lines::default()).unwrap().text.contains("<html"));
        assert!(!folder.dir().join("report.html").exists());
        // one that was resumed has the page of before
        std::fs::write(folder.dir().join("report.html"), "old").unwrap();
        assert!(read(&name, "report", Lines::default()).unwrap().text.contains("<html"));
        let mut status = status::read_raw(&folder).unwrap();
        status.state = status::State::Done;
        status::write(&folder, &status).unwrap();
        assert_eq!(read(&name, "report", Lines::default()).unwrap().text, "old");
        status.state = status::State::Running;
        status::write(&folder, &status).unwrap();
        let wrong = read(&name, "metric", Lines::default()).unwrap_err();
        assert!(wrong.hint().unwrap().contains("metrics"), "{wrong}");
        let before = stamp(&name, "status").unwrap();
        let mut status = status::read_raw(&folder).unwrap();
        status.step = 7;
        status::write(&folder, &status).unwrap();
        assert_ne!(stamp(&name, "status"), Some(before));
        assert_eq!(stamp(&name, "card"), None);
    }
}
