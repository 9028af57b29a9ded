//! How rows are loaded: from the Hub, or from files by their format.

use std::path::Path;

use serde_json::{Value, json};

use super::{Writer, literal, quoted, refused};
use crate::data::source::{Files, Format};
use crate::error::{Error, Result};

impl Writer<'_> {
    /// The call that loads a data set.
    pub(super) fn load(&self, path: &str) -> Result<String> {
        let get = |key: &str| self.value(&format!("{path}.{key}"));
        let limit = get("limit").and_then(Value::as_u64);
        if let Some(id) = get("id").and_then(Value::as_str) {
            let split = get("split").and_then(Value::as_str).unwrap_or("train");
            let split = match limit {
                None => split.to_owned(),
                Some(limit) if !split.contains(['[', '+']) => format!("{split}[:{limit}]"),
                Some(_) => {
                    return Err(refused(&format!("{path}.limit"), "the split says already how many rows there are"));
                }
            };
            let mut parts = vec![quoted(id)];
            parts.extend(get("subset").map(literal));
            parts.push(format!("split={}", quoted(&split)));
            parts.extend(get("revision").map(|revision| format!("revision={}", literal(revision))));
            return Ok(format!("load_dataset({})", parts.join(", ")));
        }
        match get("path") {
            Some(files) => load_files(files, limit),
            None => Err(Error::usage(format!("`{path}` names neither `path` nor `id`"))
                .with_hint("name the rows with `--data`")),
        }
    }
}

/// The call that loads rows of files, by their format; the first `limit` of them.
pub(super) fn load_files(path: &Value, limit: Option<u64>) -> Result<String> {
    let names: Vec<String> = match path {
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        other => other.as_str().map(str::to_owned).into_iter().collect(),
    };
    let unknown = || {
        Error::usage(format!("it cannot be told how to load `{}`", names.join("`, `")))
            .with_hint("a script reads .jsonl, .json, .csv, .tsv, .parquet, .arrow and .txt")
    };
    let files = Files::resolve(&names, &std::env::current_dir().unwrap_or_default()).ok();
    let found = files.as_ref().and_then(|files| files.first()).map(|file| file.format);
    let format = found.or_else(|| Format::of(Path::new(names.first()?))).ok_or_else(unknown)?;
    let (builder, more) = match format {
        Format::JsonLines | Format::Json => ("json", ""),
        Format::Csv => ("csv", ""),
        Format::Tsv => ("csv", ", delimiter=\"\\t\""),
        Format::Parquet => ("parquet", ""),
        Format::Arrow => ("arrow", ""),
        Format::Texts => ("text", ""),
    };
    let named: Vec<String> = names
        .iter()
        .map(|name| {
            let ending = files
                .as_ref()
                .and_then(|files| files.first())
                .and_then(|f| f.path.extension())
                .map(|e| e.to_string_lossy().into_owned());
            match ending.filter(|_| Path::new(name).is_dir()) {
                Some(ending) => format!("{}/*.{ending}", name.trim_end_matches('/')),
                None => name.clone(),
            }
        })
        .collect();
    let shown = if named.len() == 1 { quoted(&named[0]) } else { literal(&json!(named)) };
    let split = limit.map_or_else(|| "train".to_owned(), |limit| format!("train[:{limit}]"));
    Ok(format!("load_dataset(\"{builder}\", data_files={shown}, split=\"{split}\"{more})"))
}
