//! What can be read through the server: the skill, the files of runs, the experiments, files of the workspace.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rmcp::ErrorData;
use rmcp::model::{ListResourcesResult, ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::json;

use super::answers::{Answers, text};
use crate::error::Error;
use crate::verbs::run_files::{self, Content, Lines, PARTS};
use crate::verbs::{library, workspace};

/// Where whole answers stand.
pub(super) const ANSWER: &str = "answer://";
const RUN: &str = "run://";
const FILE: &str = "file://";
/// The log of experiments.
const EXPERIMENTS: &str = "experiments://log";

/// Runs that are listed; older ones are read by their ids.
const RUNS_LISTED: usize = 20;
/// Resources on a page of the list.
const PAGE: usize = 100;

const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
const NAME: &AsciiSet = &PATH.add(b'/');

/// The address of a part of a run; `name` is its id, or the path of its folder.
pub(super) fn run_uri(name: &str, part: &str) -> String {
    format!("{RUN}{}/{part}", utf8_percent_encode(name, NAME))
}

/// The address of a file.
pub(super) fn file_uri(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    format!("{FILE}{}", utf8_percent_encode(&absolute.to_string_lossy(), PATH))
}

/// The run and part that an address names, without what it asks of them.
pub(super) fn run_of(uri: &str) -> Option<(String, String)> {
    let (path, _) = split(uri);
    let (name, part) = path.strip_prefix(RUN)?.rsplit_once('/')?;
    Some((decoded(name), part.to_owned()))
}

/// A page of the list; `cursor` is the number of the first.
pub(super) fn list(cursor: Option<&str>) -> Result<ListResourcesResult, ErrorData> {
    let first = match cursor {
        None => 0,
        Some(cursor) => cursor
            .parse::<usize>()
            .map_err(|_| ErrorData::invalid_params(format!("`{cursor}` is no cursor of this list"), None))?,
    };
    let all = all();
    let page: Vec<Resource> = all.iter().skip(first).take(PAGE).cloned().collect();
    let next = first + page.len();
    let mut result = ListResourcesResult::with_all_items(page);
    result.next_cursor = (next < all.len()).then(|| next.to_string());
    Ok(result)
}

fn all() -> Vec<Resource> {
    let mut all: Vec<Resource> = library::documents()
        .iter()
        .map(|document| {
            Resource::new(document.uri(), &document.path)
                .with_title(&document.title)
                .with_mime_type(document.mime_type)
                .with_size(document.text.len() as u64)
        })
        .collect();
    if run_files::experiments().is_ok() {
        let log = Resource::new(EXPERIMENTS, "experiments").with_description("What was tried and what came of it");
        all.push(log.with_mime_type("text/markdown"));
    }
    for run in run_files::known(RUNS_LISTED).unwrap_or_default() {
        for part in PARTS {
            // what a run does not have yet is not offered
            if ["status", "report"].contains(&part.name) || run_files::stamp(&run.id, part.name).is_some() {
                let name = format!("{} {}", run.id, part.name);
                let description = format!("{} ({})", part.description, run.state);
                let resource = Resource::new(run_uri(&run.id, part.name), name).with_description(description);
                all.push(resource.with_mime_type(part.mime_type));
            }
        }
    }
    all
}

/// The forms of addresses.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    let parts: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
    vec![
        ResourceTemplate::new("run://{id}/{part}", "run")
            .with_description(format!("A part of a run: {}", parts.join(", "))),
        ResourceTemplate::new("run://{id}/log{?from,lines}", "run log")
            .with_description("Lines of a run's log; the last ones without `from`")
            .with_mime_type("text/plain"),
        ResourceTemplate::new("run://{id}/metrics{?from,lines}", "run metrics")
            .with_description("Lines of a run's metrics; the last ones without `from`")
            .with_mime_type("application/jsonl"),
        ResourceTemplate::new(format!("{}references/{{page}}", library::ROOT), "reference")
            .with_description("A page of the skill's references")
            .with_mime_type("text/markdown"),
        ResourceTemplate::new(format!("{}templates/{{+name}}", library::ROOT), "template")
            .with_description("A template of recipes, scripts, launch files or prompts"),
        ResourceTemplate::new("file:///{+path}{?from,lines}", "file")
            .with_description("A text file in the workspace: a recipe, a script, rows"),
    ]
}

/// What stands at an address.
pub(super) fn read(uri: &str, answers: &Answers) -> Result<ReadResourceResult, ErrorData> {
    let content = content(uri, answers)
        .map_err(|error| ErrorData::resource_not_found(text(&error), Some(json!({"uri": uri}))))?;
    let body = ResourceContents::text(content.text, uri).with_mime_type(content.mime_type);
    let mut contents = vec![body];
    if let Some((first, last, all)) = content.range {
        let (path, _) = split(uri);
        let mut note = format!("lines {first} to {last} of {all}");
        if first > 1 {
            let count = (last + 1).saturating_sub(first).clamp(1, first - 1);
            note.push_str(&format!("; before them {path}?from={}&lines={count}", first - count));
        }
        if last < all {
            note.push_str(&format!("; after them {path}?from={}", last + 1));
        }
        contents.push(ResourceContents::text(note, format!("{path}#range")));
    }
    Ok(ReadResourceResult::new(contents))
}

fn content(uri: &str, answers: &Answers) -> Result<Content, Error> {
    let (path, query) = split(uri);
    let lines = lines(query)?;
    if let Some((run, part)) = run_of(uri) {
        return run_files::read(&run, &part, lines);
    }
    if let Some(document) = path.starts_with(library::ROOT).then(|| library::find(path)).flatten() {
        return Ok(Content { mime_type: document.mime_type, text: document.text.to_owned(), range: None });
    }
    if path == EXPERIMENTS {
        return run_files::experiments();
    }
    if let Some(whole) = answers.find(path) {
        return Ok(Content { mime_type: "application/json", text: whole, range: None });
    }
    if let Some(file) = path.strip_prefix(FILE).filter(|file| file.starts_with('/')) {
        let file = PathBuf::from(decoded(file));
        // a server without a workspace opens the folder it was started in, and no more
        if workspace::admit(&file).is_ok() && below_here(&file) {
            return run_files::read_file(&file, lines);
        }
        return Err(Error::usage(format!("`{}` leads out of the workspace", file.display()))
            .with_hint("only files in the server's folder can be read as resources"));
    }
    Err(Error::usage(format!("there is no resource `{uri}`"))
        .with_hint("resources/list and resources/templates/list tell which there are"))
}

fn below_here(path: &Path) -> bool {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    path.canonicalize().is_ok_and(|path| here.is_ok_and(|here| path.starts_with(here)))
}

fn split(uri: &str) -> (&str, &str) {
    uri.split_once('?').unwrap_or((uri, ""))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn lines(query: &str) -> Result<Lines, Error> {
    let mut lines = Lines::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = value.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(|| {
            Error::usage(format!("`{pair}` is no number of lines")).with_hint("ask for `?from=1&lines=200`")
        })?;
        match key {
            "from" => lines.from = Some(number),
            "lines" => lines.lines = Some(number),
            other => {
                return Err(
                    Error::usage(format!("a resource knows no `{other}`")).with_hint("ask for `?from=1&lines=200`")
                );
            }
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_lead_back() {
        for name in ["a-2026", "/tmp/my runs/a?b#c"] {
            let uri = run_uri(name, "log");
            assert_eq!(run_of(&format!("{uri}?from=3")), Some((name.to_owned(), "log".to_owned())));
        }
        assert_eq!(run_of("run://only"), None);
        assert_eq!(run_of("skill://a/b"), None);
    }

    #[test]
    fn the_skill_is_read_and_nothing_else_is_made_up() {
        let answers = Answers::default();
        let skill = read(&library::documents()[0].uri(), &answers).unwrap();
        assert_eq!(skill.contents.len(), 1);
        for uri in
            ["skill://other/SKILL.md", "run://no-such-run/log", "answer://1", "file:///etc/passwd", "nonsense", ""]
        {
            let error = read(uri, &answers).unwrap_err();
            assert!(error.message.contains("hint: "), "{uri}: {}", error.message);
        }
        let bad = read("run://a/log?from=x", &answers).unwrap_err();
        assert!(bad.message.contains("from=x"), "{}", bad.message);
    }

    #[test]
    fn lists_have_pages() {
        assert!(list(Some("no")).is_err());
        let first = list(None).unwrap();
        assert_eq!(first.resources[0].name, "SKILL.md");
        let last = list(Some("100000")).unwrap();
        assert!(last.resources.is_empty() && last.next_cursor.is_none());
    }
}
