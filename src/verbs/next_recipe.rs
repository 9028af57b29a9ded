//! The recipe of a proposal: that of the run it goes on from, with one thing changed.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::check;
use crate::draft;
use crate::error::{Error, Result};
use crate::recipe;
use crate::runs::experiments::Written;
use crate::util::files;

/// Keys whose text can be a path.
const PATHS: [&str; 10] =
    ["path", "base", "tokenizer", "guide", "model", "corpus", "idf", "distill_from", "cross_encoder", "adapter"];

/// The command that tries and trains the change without a file of its own.
pub(super) fn command(written: &Written, set: &Map<String, Value>) -> String {
    let mut words = vec![written.path.display().to_string()];
    let changes = set.iter().map(|(key, value)| format!("{key}={}", plain(value)));
    for setting in written.set.iter().cloned().chain(changes) {
        words.extend(["--set".to_owned(), setting]);
    }
    let rest = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    // a run wants a smoke test that passed
    format!("tallow smoke-test {rest} && tallow run {rest}")
}

/// A value as `--set` reads it: words as they are, the rest as TOML.
fn plain(value: &Value) -> String {
    match value.as_str() {
        Some(text) if text.chars().all(|c| c.is_ascii_alphanumeric() || "_-/.".contains(c)) => text.to_owned(),
        _ => draft::value(value),
    }
}

/// A word as a shell reads it.
pub(super) fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-./=:@,+%".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Writes the recipe; returns what `check` has to say against it.
///
/// # Errors
/// When the file is there already and `force` is not, when it cannot be written, or when it cannot be meant.
pub(super) fn write(
    output: &Path,
    force: bool,
    written: &Written,
    set: &Map<String, Value>,
    about: &[String],
) -> Result<Option<String>> {
    if output.exists() && !force {
        return Err(Error::usage(format!("`{}` is there already", output.display()))
            .with_hint("name another file with `--output`, or write over it with `--force`"));
    }
    if output.extension().is_none_or(|ending| ending != "toml") {
        return Err(
            Error::usage(format!("a recipe is a TOML file, not `{}`", output.display())).with_hint("end it in `.toml`")
        );
    }
    let mut tables = written.tables.clone();
    let (from, to) = (folder(&written.path), folder(output));
    if from != to {
        tables.iter_mut().for_each(|(key, value)| moved(key, value, &from));
    }
    recipe::put(&mut tables, set)?;
    let name = output.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    // its run, log and folder are told apart from those of the run before
    tables.insert("run_name".to_owned(), name.into());
    let comment: String = about.iter().flat_map(|line| line.lines()).map(|line| format!("# {line}\n")).collect();
    let text = comment + &draft::text(tables)?;
    let report = check::check(output, &text)?;
    files::create_dir(&to)?;
    files::write_atomic(output, text.as_bytes())?;
    let first = report.violations.first();
    Ok(first.map(|violation| format!("{}: {}", violation.rule, violation.message)))
}

fn folder(file: &Path) -> PathBuf {
    files::absolute(file).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Relative paths that lie beside the old recipe are written out, so that they mean the same beside the new one.
fn moved(key: &str, value: &mut Value, from: &Path) {
    match value {
        Value::Object(table) => table.iter_mut().for_each(|(key, value)| moved(key, value, from)),
        Value::Array(items) => items.iter_mut().for_each(|item| moved(key, item, from)),
        Value::String(text) if PATHS.contains(&key) && Path::new(text.as_str()).is_relative() => {
            // of a glob its folder has to be there
            let fixed = text.split(['*', '?', '[']).next().unwrap_or_default();
            let fixed =
                if fixed.len() < text.len() { fixed.rsplit_once('/').map_or("", |(folder, _)| folder) } else { fixed };
            if from.join(fixed).exists() {
                *text = from.join(text.as_str()).display().to_string();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn written(path: PathBuf, tables: Value) -> Written {
        Written { path, set: vec!["args.max_steps=4".into()], tables: tables.as_object().cloned().unwrap() }
    }

    #[test]
    fn commands_are_read_by_a_shell() {
        let set = json!({"args.batch_sampler": "no_duplicates", "loss": {"name": "A", "scale": 2e-5}});
        let own = written("my recipe.toml".into(), json!({}));
        let rest = "'my recipe.toml' --set args.max_steps=4 --set args.batch_sampler=no_duplicates --set 'loss={ name = \
                    \"A\", scale = 2e-5 }'";
        let want = format!("tallow smoke-test {rest} && tallow run {rest}");
        assert_eq!(command(&own, set.as_object().unwrap()), want);
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn paths_mean_the_same_from_another_folder() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("a");
        std::fs::create_dir_all(from.join("data")).unwrap();
        let mut tables = json!({
            "model": {"base": "owner/name"},
            "train_dataset": [{"path": ["data/*.jsonl", "*.csv", "elsewhere"], "columns": ["data"]}],
        });
        moved("", &mut tables, &from);
        let want = |name: &str| from.join(name).display().to_string();
        assert_eq!(tables["train_dataset"][0]["path"], json!([want("data/*.jsonl"), want("*.csv"), "elsewhere"]));
        assert_eq!(tables["model"]["base"], "owner/name");
        assert_eq!(tables["train_dataset"][0]["columns"], json!(["data"]));
    }
}
