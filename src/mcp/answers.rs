//! How does an answer become what a model reads? Short enough, with links to the rest.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rmcp::model::{CallToolResult, ContentBlock, Resource};
use serde_json::{Value, json};

use super::resources;
use crate::error::Error;
use crate::verbs::{library, run_files};

/// Tokens of an answer that a model is asked to read.
const MOST_TOKENS: usize = 1900;

/// Whole answers that are kept for those who want more.
const KEPT: usize = 64;

/// Items of a list and characters of a text that are left, from mild to harsh.
const CUTS: [(usize, usize); 7] = [(40, 1500), (20, 800), (12, 400), (8, 240), (5, 160), (3, 100), (1, 60)];

/// The whole of what was cut, by address.
#[derive(Default)]
pub(super) struct Answers {
    kept: Mutex<(HashMap<String, String>, VecDeque<String>)>,
}

impl Answers {
    /// The whole answer at an address.
    pub(super) fn find(&self, uri: &str) -> Option<String> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).0.get(uri).cloned()
    }

    fn keep(&self, whole: String) -> String {
        let mut hash = DefaultHasher::new();
        whole.hash(&mut hash);
        let uri = format!("{}{:016x}", resources::ANSWER, hash.finish());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (table, order) = &mut *kept;
        if table.insert(uri.clone(), whole).is_none() {
            order.push_back(uri.clone());
        }
        while order.len() > KEPT {
            order.pop_front().and_then(|oldest| table.remove(&oldest));
        }
        uri
    }

    /// As [`Answers::result`], of a tool that might have answered that it is still at work.
    pub(super) fn slow(&self, answer: Value) -> CallToolResult {
        let links = links(&answer);
        let mut result = self.result(json!({"state": "done", "result": answer}));
        result.content.extend(links.into_iter().map(ContentBlock::resource_link));
        result
    }

    /// An answer as a tool's result: what is too long is cut, the rest is a link away, as are the files it speaks of.
    pub(super) fn result(&self, answer: Value) -> CallToolResult {
        let answer = without_nulls(answer);
        let mut links = links(&answer);
        let whole = answer.to_string();
        let mut result = if tokens(&whole) <= MOST_TOKENS {
            CallToolResult::structured(answer)
        } else {
            let shown = shortened(&answer);
            let uri = self.keep(serde_json::to_string_pretty(&answer).unwrap_or(whole));
            let link = Resource::new(uri, "whole answer")
                .with_description("What was cut from this answer")
                .with_mime_type("application/json");
            links.insert(0, link);
            CallToolResult::structured(shown)
        };
        result.content.extend(links.into_iter().map(ContentBlock::resource_link));
        result
    }
}

/// About how many tokens a model makes of a text: words, numbers in threes, signs. Of the tools' definitions it counts
/// 2 % fewer than `o200k_base`, and 3 % more than `cl100k_base`.
pub(super) fn tokens(text: &str) -> usize {
    #[derive(PartialEq, Clone, Copy)]
    enum Class {
        Word,
        Digit,
        Sign,
        Space,
        Other,
    }
    let class = |c: char| match c {
        c if c.is_ascii_alphabetic() => Class::Word,
        c if c.is_ascii_digit() => Class::Digit,
        c if c.is_whitespace() => Class::Space,
        c if c.is_ascii() => Class::Sign,
        _ => Class::Other,
    };
    let (mut count, mut run, mut of) = (0, 0, Class::Space);
    let cost = |of: Class, run: usize| match of {
        Class::Word => run.div_ceil(10),
        Class::Digit => run.div_ceil(3),
        Class::Sign => run.div_ceil(4),
        Class::Other => run,
        Class::Space => 0,
    };
    for c in text.chars() {
        let now = class(c);
        if now == of {
            run += 1;
        } else {
            count += cost(of, run);
            (of, run) = (now, 1);
        }
    }
    count + cost(of, run)
}

/// The mildest cut that fits.
fn shortened(answer: &Value) -> Value {
    let mut shown = answer.clone();
    for (items, characters) in CUTS {
        shown = cut(answer, items, characters);
        if tokens(&shown.to_string()) <= MOST_TOKENS {
            break;
        }
    }
    shown
}

/// Fields that say nothing are left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(all) => Value::Object(
            all.into_iter().filter(|(_, v)| !v.is_null()).map(|(key, v)| (key, without_nulls(v))).collect(),
        ),
        Value::Array(all) => Value::Array(all.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Lists of objects keep their first items, long texts their beginning; what a program needs to go on, such as ids and
/// paths, is short and stays.
fn cut(value: &Value, items: usize, characters: usize) -> Value {
    match value {
        Value::String(text) if text.chars().count() > characters => {
            let begin: String = text.chars().take(characters).collect();
            Value::String(format!("{begin}…"))
        }
        Value::Array(all) => Value::Array(all.iter().take(items).map(|item| cut(item, items, characters)).collect()),
        Value::Object(all) => {
            // an answer's own fields stay; a long object is a table of values
            let most = if all.len() > 30 { items.max(5) } else { usize::MAX };
            let kept = all.iter().take(most);
            Value::Object(kept.map(|(key, value)| (key.clone(), cut(value, items, characters))).collect())
        }
        other => other.clone(),
    }
}

/// The files that an answer speaks of.
fn links(answer: &Value) -> Vec<Resource> {
    let mut links = Vec::new();
    if let Some(dir) = answer.get("run_dir").and_then(Value::as_str) {
        let name = run_files::name(Path::new(dir));
        let ended = answer.get("state").and_then(Value::as_str).is_some_and(|state| state == "done");
        let parts: &[&str] = if ended { &["report", "card", "log"] } else { &["status", "log", "metrics"] };
        for part in run_files::PARTS.iter().filter(|part| parts.contains(&part.name)) {
            let link = Resource::new(resources::run_uri(&name, part.name), part.name);
            links.push(link.with_description(part.description).with_mime_type(part.mime_type));
        }
    }
    let list = |key: &str| answer.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    for page in list("required_reading").iter().filter_map(Value::as_str).filter_map(library::find) {
        links.push(Resource::new(page.uri(), &page.path).with_title(&page.title).with_mime_type(page.mime_type));
    }
    for file in list("files").iter().filter_map(Value::as_str) {
        links.push(Resource::new(resources::file_uri(Path::new(file)), file).with_description("What was written"));
    }
    links
}

/// An error as the model reads it.
pub(super) fn text(error: &Error) -> String {
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{error}{hint}")
}

/// A mistake that the model can put right.
pub(super) fn refusal(error: &Error) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text(error))])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_are_counted_like_a_tokenizers() {
        for (text, count) in [("", 0), ("steps", 1), ("run_id", 3), ("0.1234", 4), (r#"{"a":1}"#, 5), ("naïve", 3)] {
            assert_eq!(tokens(text), count, "{text}");
        }
    }

    #[test]
    fn long_answers_are_cut_and_kept_whole() {
        let answers = Answers::default();
        let rows: Vec<Value> =
            (0..400).map(|n| json!({"rule": format!("rule-{n}"), "text": "words ".repeat(30)})).collect();
        let answer = json!({"ok": false, "rows": rows, "next": "mend them"});
        let result = answers.result(answer.clone());
        let shown = result.structured_content.unwrap();
        assert!(tokens(&shown.to_string()) <= MOST_TOKENS);
        assert_eq!((&shown["ok"], &shown["next"]), (&json!(false), &json!("mend them")));
        assert!(shown["rows"].as_array().unwrap().len() >= 5);
        let link = result.content[1].as_resource_link().unwrap();
        let whole: Value = serde_json::from_str(&answers.find(&link.uri).unwrap()).unwrap();
        assert_eq!(whole, answer);
        let short = answers.result(json!({"ok": true, "hint": null}));
        assert_eq!((short.content.len(), short.structured_content), (1, Some(json!({"ok": true}))));
    }

    #[test]
    fn only_the_latest_answers_are_kept() {
        let answers = Answers::default();
        let uris: Vec<String> = (0..=KEPT).map(|n| answers.keep(n.to_string())).collect();
        assert_eq!(answers.find(&uris[0]), None);
        assert_eq!(answers.find(&uris[KEPT]), Some(KEPT.to_string()));
    }

    #[test]
    fn what_an_answer_speaks_of_is_linked() {
        let answer = json!({"required_reading": ["SKILL.md", "examples/x.toml"], "files": ["a b.toml"], "run_dir": "/x/runs/a-1", "state": "done"});
        let uris: Vec<String> = links(&answer).into_iter().map(|link| link.uri).collect();
        assert!(uris.contains(&library::find("SKILL.md").unwrap().uri()), "{uris:?}");
        assert!(uris.contains(&"run://%2Fx%2Fruns%2Fa-1/report".to_owned()), "{uris:?}");
        assert!(uris.iter().any(|uri| uri.starts_with("file:///") && uri.ends_with("/a%20b.toml")), "{uris:?}");
    }
}
