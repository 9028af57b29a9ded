//! The entry of a run that a training script made: from its log, the script beside it, and the row it left in the table.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::compare::shown;
use super::entry::{Entry, Source, finite};
use crate::check::python::Script;
use crate::error::{Error, Result};
use crate::util::{clock, files};

const MARK: &str = "VERDICT: ";
/// Scripts say it before the verdict of a smoke test, which is none.
const SMOKE: &str = "SMOKE TEST: ";
/// Scripts that are looked through for the one that wrote the log.
const MOST_SCRIPTS: usize = 200;

/// What the last verdict line of a log says.
#[derive(Debug, Clone, PartialEq, Default)]
struct Verdict {
    word: String,
    numbers: Vec<(String, Option<f64>)>,
    /// The how manieth it is, from 1.
    count: usize,
}

impl Verdict {
    fn number(&self, name: &str) -> Option<f64> {
        self.numbers.iter().find(|(own, _)| own == name).and_then(|(_, number)| *number)
    }
}

/// Reads the log of a script: the last verdict in it. `script` is what wrote it, looked for beside the log where it is not
/// named; `page` may have its row.
///
/// # Errors
/// When the log has no verdict line, or a file cannot be read.
pub fn read_log(log: &Path, script: Option<&Path>, page: &Path) -> Result<Entry> {
    let text = String::from_utf8_lossy(&files::read(log)?).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let Some((at, verdict)) = last_verdict(&lines) else {
        return Err(Error::data(format!("`{}` has no verdict line", log.display())).with_hint(
            "a run that ended well says `VERDICT: WIN|MARGINAL|REGRESSION | score=... | baseline=... | delta=...` last; \
             scripts of `tallow render --target python` do",
        ));
    };
    let begun = lines.iter().take(at).rposition(|line| line.contains(MARK)).map_or(0, |before| before + 1);
    let own = lines.get(begun..=at).unwrap_or_default();
    let run_name = log.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let (model_type, plan) = match script.map(Path::to_path_buf).or_else(|| beside(log, &run_name)) {
        Some(path) => {
            let script = Script::parse(&path, &files::read_text(&path)?)?;
            (script.model_type(), script.settings())
        }
        None => (None, Map::new()),
    };
    let known = |key: &str| plan.get(key).map(shown);
    let losses: Vec<String> = (0..).map_while(|i| known(&format!("train_dataset.{i}.loss.name"))).collect();
    let mut entry = Entry {
        // later runs of the same script are others
        run_id: if verdict.count == 1 { run_name.clone() } else { format!("{run_name}-{}", verdict.count) },
        run_name,
        date: clock::modified(log),
        source: Source::Script,
        model_type,
        base: known("model.source.base.hub").unwrap_or_default(),
        data: after(own, "rows: ").unwrap_or_default(),
        loss: losses.join(" + "),
        settings: settings(&plan),
        metric: after(own, "before training: ").and_then(|text| Some(text.split_whitespace().next()?.to_owned())),
        baseline: verdict.number("baseline"),
        score: verdict.number("score"),
        delta: verdict.number("delta"),
        verdict: verdict.word.clone(),
        seconds: seconds(own),
        plan,
        ..Entry::default()
    };
    let costs = verdict.numbers.iter().filter(|(name, _)| name.ends_with("active_dims"));
    entry.costs = costs.filter_map(|(name, number)| Some((name.clone(), (*number)?))).collect();
    if page.is_file() {
        let rows = super::table::entries(&files::read_text(page)?);
        if let Some(row) = rows.into_iter().find(|row| entry.is_row(row)) {
            entry.completed_by(row);
        }
    }
    Ok(entry)
}

impl Entry {
    /// The row that the script wrote knows more than its log, and when it was.
    fn completed_by(&mut self, row: Self) {
        self.date = row.date;
        for (own, theirs) in [
            (&mut self.base, row.base),
            (&mut self.data, row.data),
            (&mut self.loss, row.loss),
            (&mut self.settings, row.settings),
        ] {
            if !theirs.is_empty() {
                *own = theirs;
            }
        }
        self.metric = row.metric.or(self.metric.take());
        self.seconds = row.seconds.or(self.seconds);
    }
}

/// The place of the last verdict line that is none of a smoke test, and what it says.
fn last_verdict(lines: &[&str]) -> Option<(usize, Verdict)> {
    let mut found = None;
    let mut count = 0;
    let mut smoke = false;
    for (at, line) in lines.iter().enumerate() {
        smoke |= line.contains(SMOKE);
        if let Some(mut verdict) = line.split_once(MARK).and_then(|(_, rest)| verdict(rest)) {
            if std::mem::take(&mut smoke) {
                continue;
            }
            count += 1;
            verdict.count = count;
            found = Some((at, verdict));
        }
    }
    found
}

fn verdict(rest: &str) -> Option<Verdict> {
    let mut parts = rest.split('|').map(str::trim);
    let word = parts.next().filter(|word| matches!(*word, "WIN" | "MARGINAL" | "REGRESSION" | "NONE"))?.to_owned();
    let number = |part: &str| {
        let (name, value) = part.split_once('=')?;
        Some((name.trim().to_owned(), finite(value.trim().parse().ok())))
    };
    let numbers: Vec<(String, Option<f64>)> = parts.filter_map(number).collect();
    numbers.iter().any(|(name, _)| name == "score").then_some(Verdict { word, numbers, count: 0 })
}

/// What stands behind `mark` in the last line that has it.
fn after(lines: &[&str], mark: &str) -> Option<String> {
    lines.iter().rev().find_map(|line| line.split_once(mark)).map(|(_, rest)| rest.trim().to_owned())
}

/// The time of day that a line begins with, in seconds.
fn time(line: &str) -> Option<u32> {
    let mut parts = line.get(..8)?.split(':').map(|part| part.parse::<u32>().ok());
    match (parts.next()??, parts.next()??, parts.next()??) {
        (h, m, s) if h < 24 && m < 60 && s < 60 => Some(h * 3600 + m * 60 + s),
        _ => None,
    }
}

/// From the first line to the last; midnight may lie between them.
fn seconds(lines: &[&str]) -> Option<f64> {
    let mut times = lines.iter().filter_map(|line| time(line));
    let first = times.next()?;
    let last = times.next_back().unwrap_or(first);
    Some(f64::from((last + 24 * 3600 - first) % (24 * 3600)))
}

fn settings(plan: &Map<String, Value>) -> String {
    let named =
        |name: &str, key: &str| plan.get(&format!("args.{key}")).map(|value| format!("{name} {}", shown(value)));
    let length = named("steps", "max_steps").or_else(|| named("epochs", "num_train_epochs"));
    let parts = [named("lr", "learning_rate"), named("batch", "per_device_train_batch_size"), length];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The script of that run name, beside the folder of the log or in the current one.
fn beside(log: &Path, run_name: &str) -> Option<PathBuf> {
    let logs = files::absolute(log);
    let above = logs.parent().and_then(Path::parent).map(Path::to_path_buf);
    let folders = above.into_iter().chain(std::env::current_dir().ok());
    let scripts = folders.flat_map(|folder| files::list(&folder).unwrap_or_default());
    let scripts = scripts.filter(|path| path.extension().is_some_and(|ending| ending == "py")).take(MOST_SCRIPTS);
    let lines = ['"', '\''].map(|quote| format!("RUN_NAME = {quote}{run_name}{quote}"));
    scripts.into_iter().find(|path| {
        files::read_text(path).is_ok_and(|text| text.lines().any(|line| lines.iter().any(|own| line.trim() == own)))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LOG: &str = "23:59:00 rows: 12\n23:59:10 before training: dev_spearman_cosine 0.5000\n\
                       23:59:50 VERDICT: MARGINAL | score=0.5010 | baseline=0.5000 | delta=+0.0010\n\
                       23:59:55 rows: 4549\n23:59:56 before training: dev_spearman_cosine 0.5000\n{'loss': 1.0}\n\
                       00:01:05 VERDICT: WIN | score=0.6000 | baseline=0.5000 | delta=+0.1000 | query_active_dims=31.4\n\
                       00:01:06 the line `VERDICT: none of ours` is not one\n";

    #[test]
    fn the_last_verdict_counts() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("logs/mine.log");
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        std::fs::write(&log, LOG).unwrap();
        let entry = read_log(&log, None, &dir.path().join("logs/experiments.md")).unwrap();
        assert_eq!((entry.run_id.as_str(), entry.run_name.as_str()), ("mine-2", "mine"));
        assert_eq!((entry.verdict.as_str(), entry.score, entry.delta), ("WIN", Some(0.6), Some(0.1)));
        assert_eq!((entry.metric.as_deref(), entry.data.as_str()), (Some("dev_spearman_cosine"), "4549"));
        assert_eq!((entry.seconds, entry.costs.len(), entry.source), (Some(70.0), 1, Source::Script));
        assert!(entry.date.starts_with("20"), "{}", entry.date);
    }

    #[test]
    fn smoke_tests_have_no_verdict() {
        let smoke = "22:00:00 rows: 64\n22:00:01 before training: dev_spearman_cosine 0.4000\n22:00:02 SMOKE TEST: no result\n\
                     22:00:02 VERDICT: WIN | score=0.9000 | baseline=0.4000 | delta=+0.5000\n";
        let found = |text: &str| last_verdict(&text.lines().collect::<Vec<_>>()).map(|(_, verdict)| verdict);
        assert_eq!(found(smoke), None);
        let both = found(&format!("{smoke}{LOG}{smoke}"));
        assert_eq!(both, found(LOG));
        assert_eq!(both.map(|verdict| verdict.count), Some(2));
    }

    #[test]
    fn a_log_without_a_verdict_is_refused_with_the_form() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("a.log");
        for text in ["", "12:00:00 rows: 3\n", "VERDICT: MAYBE | score=1\n", "VERDICT: WIN\n"] {
            std::fs::write(&log, text).unwrap();
            let error = read_log(&log, None, &dir.path().join("e.md")).unwrap_err();
            assert!(error.to_string().ends_with("has no verdict line"), "{text}: {error}");
            assert!(error.hint().unwrap().contains("VERDICT: WIN"));
        }
    }

    #[test]
    fn lines_without_a_time_have_none() {
        assert_eq!(
            (time("12:00:01 x"), time("25:00:00 x"), time("äöüäöüäöü"), time("1")),
            (Some(43201), None, None, None)
        );
    }
}
