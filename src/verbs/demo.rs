//! `demo`: trains on bundled data, offline, and shows the model at work before and after.

use std::path::{Path, PathBuf};

use clap::Args;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::engine::{self, Role};
use super::search::{Hit, find};
use super::{Answer, Reporter, Verb, predict, run};
use crate::data::texts::read_texts;
use crate::error::{Error, Result};
use crate::flow::{EncodeOptions, ModelType, Predict};
use crate::model::SentenceTransformer;
use crate::runs::folder::display;
use crate::util::files;

/// Train a small model on bundled questions and passages, offline and within a minute, and ask it something.
#[derive(Debug, Clone, Args, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The type of model: `SentenceTransformer`, `CrossEncoder`, `SparseEncoder` or `MultiVectorEncoder`.
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
        "MultiVectorEncoder" => Ok(ModelType::MultiVectorEncoder),
        _ => Err("give SentenceTransformer, CrossEncoder, SparseEncoder or MultiVectorEncoder".to_owned()),
    }
}

const DIRECTORY: &str = "tallow-demo";

fn directory() -> PathBuf {
    DIRECTORY.into()
}

/// The demo's files, by name.
const FILES: [(&str, &[u8]); 8] = [
    ("recipe.toml", include_bytes!("../../examples/demo/recipe.toml")),
    ("cross-encoder.toml", include_bytes!("../../examples/demo/cross-encoder.toml")),
    ("sparse-encoder.toml", include_bytes!("../../examples/demo/sparse-encoder.toml")),
    ("multi-vector-encoder.toml", include_bytes!("../../examples/demo/multi-vector-encoder.toml")),
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
/// Pairs shown of those a classifier was measured on.
const SHOWN: usize = 3;

impl Verb for Request {
    type Response = Response;

    fn run(self, reporter: &mut dyn Reporter) -> Result<Response> {
        let here = self.output;
        files::create_dir(&here)?;
        reporter.line(&format!("the demo's data and recipe are in `{}`", display(&here)));
        for (name, bytes) in FILES {
            place(&here.join(name), bytes, reporter)?;
        }
        let recipe = here.join(recipe(self.model_type));
        if self.model_type == ModelType::CrossEncoder {
            Topics::write(&here, reporter)?;
        }
        let runs = here.join("runs");
        let request = run::Request {
            set: vec![format!("output_dir={}", toml::Value::String(absolute(&runs)?))],
            recipe: Some(recipe.clone()),
            keep_base: true,
            // what is bundled has been tried, and takes a minute
            force: true,
            now: true,
            ..run::Request::default()
        };
        let run = request.run(reporter)?;
        let questions = compare(&here, &run)?;
        Ok(Response { output: here, recipe, run, questions })
    }
}

/// Writes one of the demo's files. An edited recipe is there to be tried, and a file of somebody else's is not ours to
/// replace.
fn place(path: &Path, bytes: &[u8], reporter: &mut dyn Reporter) -> Result<()> {
    if path.exists() && files::read(path)? != bytes {
        reporter.line(&format!("`{}` differs from the demo's own: it is used as it is", display(path)));
        return Ok(());
    }
    files::write_atomic(path, bytes)
}

fn absolute(path: &Path) -> Result<String> {
    let path = std::path::absolute(path).map_err(Error::io("resolve", path))?;
    Ok(path.to_string_lossy().into_owned())
}

fn recipe(model_type: ModelType) -> &'static str {
    match model_type {
        ModelType::CrossEncoder => "cross-encoder.toml",
        ModelType::SparseEncoder => "sparse-encoder.toml",
        ModelType::MultiVectorEncoder => "multi-vector-encoder.toml",
        ModelType::SentenceTransformer => "recipe.toml",
    }
}

/// The rows of `train.jsonl` as a classifier of pairs reads them: every fifth is held out to measure on.
const HELD_OUT: usize = 5;
const CLASSES: [(&str, bool); 2] = [("topics-train.jsonl", false), ("topics-dev.jsonl", true)];

/// A pair with its topic, as a name and as the number of its class.
#[derive(Serialize)]
struct Labelled<'a> {
    question: &'a str,
    passage: &'a str,
    topic: &'a str,
    label: usize,
}

/// What the bundled pairs with a topic say, column by column.
struct Topics {
    questions: Vec<String>,
    passages: Vec<String>,
    topics: Vec<String>,
    /// The topics' names, by class.
    names: Vec<String>,
}

impl Topics {
    fn read(here: &Path) -> Result<Self> {
        let column = |name: &str| read_texts(&here.join("train.jsonl"), Some(name));
        let topics = column("topic")?;
        let names: std::collections::BTreeSet<String> = topics.iter().cloned().collect();
        let (questions, passages) = (column("question")?, column("passage")?);
        Ok(Self { questions, passages, topics, names: names.into_iter().collect() })
    }

    fn rows(&self, held_out: bool) -> Vec<Labelled<'_>> {
        let row = |i: usize| Labelled {
            question: &self.questions[i],
            passage: &self.passages[i],
            topic: &self.topics[i],
            label: self.names.iter().position(|name| *name == self.topics[i]).unwrap_or_default(),
        };
        (0..self.questions.len()).filter(|i| (i % HELD_OUT == 0) == held_out).map(row).collect()
    }

    fn write(here: &Path, reporter: &mut dyn Reporter) -> Result<()> {
        let topics = Self::read(here)?;
        for (name, held_out) in CLASSES {
            let text = super::vectors::lines(&topics.rows(held_out))?;
            place(&here.join(name), text.as_bytes(), reporter)?;
        }
        Ok(())
    }
}

/// Three pairs that were held out, and the topic each model gives them.
fn classify(here: &Path, before: &Path, after: &Path) -> Result<Vec<Comparison>> {
    let topics = Topics::read(here)?;
    let held_out = topics.rows(true);
    // spread over the file, whose rows are ordered by topic
    let asked: Vec<&Labelled> = (1..=SHOWN).filter_map(|k| held_out.get(k * held_out.len() / (SHOWN + 1))).collect();
    let pairs: Vec<(&str, &str)> = asked.iter().map(|row| (row.question, row.passage)).collect();
    let ask = |dir: &Path| -> Result<Vec<Hit>> {
        let model = engine::load_model(dir)?;
        let scores = predict::softmax(model.predict(&pairs, None, &EncodeOptions::default())?);
        let best = |i: usize| {
            let row = scores.row(i);
            let index = predict::best(row);
            let text = topics.names.get(index).cloned().unwrap_or_else(|| index.to_string());
            Hit { index, id: None, score: f64::from(row[index]), text }
        };
        Ok((0..scores.rows()).map(best).collect())
    };
    let both = ask(before)?.into_iter().zip(ask(after)?);
    Ok(asked
        .iter()
        .zip(both)
        .map(|(row, (before, after))| Comparison {
            question: format!("{} (of the topic `{}`)", row.question, row.topic),
            before: vec![before],
            after: vec![after],
        })
        .collect())
}

/// The passages a model finds for each question.
fn ask(model: &SentenceTransformer, questions: &[String], passages: &[String]) -> Result<Vec<Vec<Hit>>> {
    let query = engine::encode_options(model, Role::Query, "questions");
    let document = engine::encode_options(model, Role::Document, "passages");
    let found = find(model, (questions, &query), (passages, &document), TOP_K, &mut |_| {})?;
    Ok(found.into_iter().map(|f| f.hits).collect())
}

fn compare(here: &Path, run: &run::Response) -> Result<Vec<Comparison>> {
    let missing = |what: &str| Error::Internal(format!("the demo's run left no {what} model"));
    let before = run.base_model_dir.as_deref().ok_or_else(|| missing("untrained"))?;
    let after = run.model_dir.as_deref().ok_or_else(|| missing("trained"))?;
    if run.model_type == ModelType::CrossEncoder {
        return classify(here, before, after);
    }
    let questions = questions(&here.join("questions.json"))?;
    let passages = read_texts(&here.join("dev.jsonl"), Some("passage"))?;
    let ask = |dir: &Path| ask(&engine::load_model(dir)?, &questions, &passages);
    let both = ask(before)?.into_iter().zip(ask(after)?);
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
        let classifies = self.run.model_type == ModelType::CrossEncoder;
        let mut lines = vec![if classifies {
            "Three pairs that were held out, and the topic the model gives them:".to_owned()
        } else {
            "Three questions, and the passage the model finds nearest:".to_owned()
        }];
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
        lines.push(if classifies {
            "Classify the pairs yourself, or change the recipe and train again:".to_owned()
        } else {
            "Ask something else, or change the recipe and train again:".to_owned()
        });
        if let Some(model) = &self.run.model_dir {
            let model = display(model);
            let file = |name: &str| display(&self.output.join(name));
            lines.push(if classifies {
                let pairs = file(CLASSES[1].0);
                format!("  tallow predict {model} --input {pairs} --columns question,passage --output topics.jsonl")
            } else {
                format!("  tallow search {model} --corpus {} --column passage --query \"...\"", file("dev.jsonl"))
            });
        }
        let recipe = display(&self.recipe);
        lines.extend(["smoke-test", "run"].map(|verb| format!("  tallow {verb} {recipe}")));
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
        let questions: Vec<String> = serde_json::from_slice(FILES[7].1).unwrap();
        assert_eq!(questions.len(), 3);
    }

    #[test]
    fn passages_are_wrapped_under_their_model() {
        let hit = |text: &str| Hit { index: 0, id: None, score: 0.5, text: text.into() };
        let lines = side("after", &[hit(&"word ".repeat(30)), hit("short")]);
        assert!(lines[0].starts_with("  after   0.50  word") && lines[1].starts_with("                word"));
        assert_eq!(lines.last().unwrap(), "          0.50  short");
        assert!(lines.iter().all(|l| l.chars().count() <= 104));
    }
}
