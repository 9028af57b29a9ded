//! `demo`: trains on bundled data, offline, and shows the model at work before and after.

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::engine::{self, Role};
use super::search::{Hit, find};
use super::{Answer, Reporter, Verb, run};
use crate::data::texts::read_texts;
use crate::error::{Error, Result};
use crate::flow::{Encode, EncodeOptions, ModelType};
use crate::model::{Ranked, SentenceTransformer};
use crate::runs::folder::display;
use crate::util::files;

/// Train a small model on bundled questions and passages, offline and within a minute, and ask it something.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The type of model: `SentenceTransformer`, `CrossEncoder` or `SparseEncoder`.
    #[arg(long, value_name = "TYPE", default_value = "SentenceTransformer", value_parser = model_type)]
    #[serde(default)]
    pub model_type: ModelType,
    /// Where data, recipe, run and model go.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    #[serde(default = "directory")]
    pub output: PathBuf,
}

fn model_type(text: &str) -> std::result::Result<ModelType, String> {
    match text {
        "SentenceTransformer" => Ok(ModelType::SentenceTransformer),
        "CrossEncoder" => Ok(ModelType::CrossEncoder),
        "SparseEncoder" => Ok(ModelType::SparseEncoder),
        _ => Err("give SentenceTransformer, CrossEncoder or SparseEncoder".to_owned()),
    }
}

const DIRECTORY: &str = "tallow-demo";

fn directory() -> PathBuf {
    DIRECTORY.into()
}

/// The demo's files, by name.
const FILES: [(&str, &[u8]); 7] = [
    ("recipe.toml", include_bytes!("../../examples/demo/recipe.toml")),
    ("cross-encoder.toml", include_bytes!("../../examples/demo/cross-encoder.toml")),
    ("sparse-encoder.toml", include_bytes!("../../examples/demo/sparse-encoder.toml")),
    ("train.jsonl", include_bytes!("../../examples/demo/train.jsonl")),
    ("dev.jsonl", include_bytes!("../../examples/demo/dev.jsonl")),
    ("tokenizer.json", include_bytes!("../../examples/demo/tokenizer.json")),
    ("questions.json", include_bytes!("../../examples/demo/questions.json")),
];

/// How the demo went.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Response {
    /// Where everything lies.
    pub output: PathBuf,
    /// What was trained.
    pub recipe: PathBuf,
    /// The run, as `run` answers.
    pub run: run::Response,
    /// The questions with the passages the model found before and after training.
    pub questions: Vec<Comparison>,
}

/// One question, before and after.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Comparison {
    /// The question.
    pub question: String,
    /// The best passages of the untrained model.
    pub before: Vec<Hit>,
    /// The best passages of the trained model.
    pub after: Vec<Hit>,
}

const TOP_K: usize = 1;

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        let here = self.output;
        files::create_dir(&here)?;
        reporter.line(&format!("the demo's data and recipe are in `{}`", display(&here)));
        for (name, bytes) in FILES {
            let path = here.join(name);
            // An edited recipe is there to be tried, and a file of somebody else's is not ours to replace.
            if path.exists() && files::read(&path)? != bytes {
                reporter.line(&format!("`{}` differs from the demo's own: it is used as it is", display(&path)));
            } else {
                files::write_atomic(&path, bytes)?;
            }
        }
        let recipe = here.join(recipe(self.model_type));
        if self.model_type == ModelType::CrossEncoder {
            write_candidates(&here)?;
        }
        let runs = here.join("runs");
        let request = run::Request {
            set: vec![format!("output_dir={}", toml::Value::String(absolute(&runs)?))],
            recipe: Some(recipe.clone()),
            keep_base: true,
            ..run::Request::default()
        };
        let run = request.run(reporter)?;
        let questions = compare(&here, &run)?;
        Ok(Response { output: here, recipe, run, questions })
    }
}

fn absolute(path: &Path) -> Result<String> {
    let path = std::path::absolute(path).map_err(Error::io("resolve", path))?;
    Ok(path.to_string_lossy().into_owned())
}

fn recipe(model_type: ModelType) -> &'static str {
    match model_type {
        ModelType::CrossEncoder => "cross-encoder.toml",
        ModelType::SparseEncoder => "sparse-encoder.toml",
        ModelType::SentenceTransformer | ModelType::MultiVectorEncoder => "recipe.toml",
    }
}

/// Passages of other questions that each question's own is to be put in front of.
const CANDIDATES: usize = 9;

/// What a reranker is measured on: every question of `dev.jsonl` with its passage and those of some others.
fn write_candidates(here: &Path) -> Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        query: &'a str,
        positive: [&'a str; 1],
        negative: Vec<&'a str>,
    }
    let path = here.join("dev.jsonl");
    let (questions, passages) = (read_texts(&path, Some("question"))?, read_texts(&path, Some("passage"))?);
    let count = questions.len();
    let line = |i: usize| Line {
        query: &questions[i],
        positive: [&passages[i]],
        // spread over all, so that some are of the same topic
        negative: (1..=CANDIDATES.min(count.saturating_sub(1)))
            .map(|k| passages[(i + k * k) % count].as_str())
            .collect(),
    };
    super::vectors::write_lines(&here.join("rerank.jsonl"), &(0..count).map(line).collect::<Vec<_>>())
}

/// The passages a model finds for each question: by its embeddings, or by reading each with each.
fn ask(model: &SentenceTransformer, questions: &[String], passages: &[String]) -> Result<Vec<Vec<Hit>>> {
    if model.predictor().is_some() {
        let texts: Vec<&str> = passages.iter().map(String::as_str).collect();
        let best = |question: &String| -> Result<Vec<Hit>> {
            let ranked = model.rank(question, &texts, &EncodeOptions::default())?;
            let hit = |place: &Ranked| Hit {
                index: place.corpus_id,
                score: f64::from(place.score),
                text: passages[place.corpus_id].clone(),
            };
            Ok(ranked.iter().take(TOP_K).map(hit).collect())
        };
        return questions.iter().map(best).collect();
    }
    let query = engine::encode_options(model, Role::Query, "questions");
    let document = engine::encode_options(model, Role::Document, "passages");
    let found = find(model, (questions, &query), (passages, &document), TOP_K)?;
    Ok(found.into_iter().map(|f| f.hits).collect())
}

fn compare(here: &Path, run: &run::Response) -> Result<Vec<Comparison>> {
    let questions = questions(&here.join("questions.json"))?;
    let passages = read_texts(&here.join("dev.jsonl"), Some("passage"))?;
    let ask = |dir: &Path| ask(&engine::load_model(dir)?, &questions, &passages);
    let missing = |what: &str| Error::Internal(format!("the demo's run left no {what} model"));
    let before = ask(run.base_model_dir.as_deref().ok_or_else(|| missing("untrained"))?)?;
    let after = ask(run.model_dir.as_deref().ok_or_else(|| missing("trained"))?)?;
    let both = before.into_iter().zip(after);
    Ok(questions
        .iter()
        .zip(both)
        .map(|(q, (before, after))| Comparison { question: q.clone(), before, after })
        .collect())
}

fn questions(path: &Path) -> Result<Vec<String>> {
    serde_json::from_slice(&files::read(path)?).map_err(|e| {
        Error::data(format!("`{}` is not a list of questions: {e}", path.display()))
            .with_hint("the file is a JSON list of strings")
    })
}

impl Answer for Response {
    fn human(&self) -> String {
        let mut lines = vec!["Three questions, and the passage the model finds nearest:".to_owned()];
        for comparison in &self.questions {
            lines.push(String::new());
            lines.push(format!("? {}", comparison.question));
            lines.extend(side("before", &comparison.before));
            lines.extend(side("after", &comparison.after));
        }
        lines.push(String::new());
        lines.push(format!(
            "Everything is in `{}`: the data, the recipe, the run and the model.",
            display(&self.output)
        ));
        lines.push("Ask something else, or change the recipe and train again:".to_owned());
        let corpus = self.output.join("dev.jsonl");
        if let Some(model) = &self.run.model_dir {
            let (model, corpus) = (display(model), display(&corpus));
            lines.push(match self.run.model_type {
                ModelType::CrossEncoder => {
                    format!("  tallow rank {model} --documents {corpus} --column passage --query \"...\"")
                }
                _ => format!("  tallow search {model} --corpus {corpus} --column passage --query \"...\""),
            });
        }
        lines.push(format!("  tallow run {}", display(&self.recipe)));
        lines.push(String::new());
        lines.push(self.run.human());
        lines.join("\n")
    }
}

/// One model's passages, under its name, wrapped to be read.
fn side(name: &str, hits: &[Hit]) -> Vec<String> {
    const WIDTH: usize = 88;
    let mut lines = Vec::new();
    for (rank, hit) in hits.iter().enumerate() {
        let head = if rank == 0 { name } else { "" };
        for (number, line) in wrap(&hit.text, WIDTH).into_iter().enumerate() {
            lines.push(if number == 0 {
                format!("  {head:<7} {:.2}  {line}", hit.score)
            } else {
                format!("{:16}{line}", "")
            });
        }
    }
    lines
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bundled_data_is_enough_and_does_not_leak() {
        let rows = |name: &str| -> Vec<serde_json::Value> {
            let bytes = FILES.iter().find(|(n, _)| *n == name).unwrap().1;
            std::str::from_utf8(bytes).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
        };
        let (train, dev) = (rows("train.jsonl"), rows("dev.jsonl"));
        assert!(train.len() + dev.len() >= 400, "{}", train.len() + dev.len());
        for field in ["topic", "question", "passage"] {
            let of = |rows: &[serde_json::Value]| -> std::collections::HashSet<String> {
                rows.iter().map(|r| r[field].as_str().unwrap().to_owned()).collect()
            };
            assert!(of(&train).is_disjoint(&of(&dev)), "`{field}` leaks");
        }
        let questions: Vec<String> = serde_json::from_slice(FILES[6].1).unwrap();
        assert_eq!(questions.len(), 3);
    }

    #[test]
    fn passages_are_wrapped_under_their_model() {
        let hit = |text: &str| Hit { index: 0, score: 0.5, text: text.into() };
        let lines = side("after", &[hit(&"word ".repeat(30)), hit("short")]);
        assert!(lines[0].starts_with("  after   0.50  word") && lines[1].starts_with("                word"));
        assert_eq!(lines.last().unwrap(), "          0.50  short");
        assert!(lines.iter().all(|l| l.chars().count() <= 104));
    }
}
