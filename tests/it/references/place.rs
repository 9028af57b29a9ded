//! A folder with the files and models that the pages speak of.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{copy_dir, project};

const MODELS: [(&str, &str); 5] = [
    ("base-model", "tiny-bert"),
    ("teacher-model", "tiny-bert"),
    ("reranker-model", "tiny-cross-encoder"),
    ("splade-model", "tiny-splade"),
    ("colbert-model", "tiny-colbert"),
];

const RECIPE: &str = r#"[model]
base = "base-model"

[train_dataset]
path = "pairs.jsonl"
columns = ["anchor", "positive"]

[loss]
name = "MultipleNegativesRankingLoss"

[[evaluator]]
type = "InformationRetrievalEvaluator"
name = "dev"
path = "DEV"
columns = ["anchor", "positive"]

[args]
max_steps = 4
per_device_train_batch_size = 8
batch_sampler = "no_duplicates"
load_best_model_at_end = true
"#;

/// The folder; it goes with the value.
pub struct Place {
    dir: tempfile::TempDir,
    bin: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap(), bin: tempfile::tempdir().unwrap() };
        for (name, fixture) in MODELS {
            copy_dir(&project(&format!("tests/fixtures/{fixture}")), &place.path().join(name));
        }
        place.data();
        place.file("recipe.toml", &RECIPE.replace("DEV", "dev.jsonl"));
        place.file("leaky.toml", &RECIPE.replace("DEV", "pairs.jsonl"));
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tallow"), place.bin.path().join("tallow")).unwrap();
        place
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a line as a shell does, without the network.
    pub fn shell(&self, line: &str) -> Output {
        let mut path = vec![PathBuf::from(self.bin.path())];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        Command::new("sh")
            .args(["-c", line])
            .current_dir(self.path())
            .env("PATH", std::env::join_paths(path).unwrap())
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", self.path().join("hub"))
            .env("TALLOW_CACHE_DIR", self.path().join("cache"))
            .output()
            .unwrap()
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn rows(&self, name: &str, rows: impl IntoIterator<Item = Value>) {
        let mut text = String::new();
        for row in rows {
            writeln!(text, "{row}").unwrap();
        }
        self.file(name, &text);
    }

    fn data(&self) {
        let (train, dev) = (scenes(0..24), scenes(24..36));
        let pairs = |scenes: &[Scene]| {
            scenes.iter().map(|s| json!({"anchor": s.question, "positive": s.answer})).collect::<Vec<_>>()
        };
        self.rows("pairs.jsonl", pairs(&train));
        self.rows("dev.jsonl", pairs(&dev));
        self.rows(
            "triplets.jsonl",
            train
                .iter()
                .zip(train.iter().skip(1))
                .map(|(s, other)| json!({"anchor": s.question, "positive": s.answer, "negative": other.answer})),
        );
        let scored = |scenes: &[Scene]| {
            let two = scenes.iter().zip(scenes.iter().skip(1)).enumerate();
            two.map(|(i, (a, b))| {
                let (second, score) = if i % 2 == 0 { (&a.question, 0.9) } else { (&b.answer, 0.1) };
                json!({"sentence1": a.answer, "sentence2": second, "score": score + 0.001 * i as f64})
            })
            .collect::<Vec<_>>()
        };
        self.rows("scored.jsonl", scored(&train));
        self.rows("scored-dev.jsonl", scored(&dev));
        let judged = |scenes: &[Scene]| {
            let two = scenes.iter().zip(scenes.iter().skip(1));
            two.flat_map(|(s, other)| {
                [(&s.answer, 1), (&other.answer, 0)]
                    .map(|(passage, label)| json!({"query": s.question, "passage": passage, "label": label}))
            })
            .collect::<Vec<_>>()
        };
        self.rows("reranker.jsonl", judged(&train));
        self.rows("reranker-dev.jsonl", judged(&dev));
        self.rows("translations.jsonl", train.iter().map(|s| json!({"english": s.answer, "german": s.question})));
        self.rows("corpus.jsonl", train.iter().map(|s| json!({"text": s.answer})));
        self.file("texts.txt", &train.iter().map(|s| s.answer.clone() + "\n").collect::<String>());
        let beir = self.path().join("dev/qrels");
        std::fs::create_dir_all(&beir).unwrap();
        let numbered = |texts: Vec<&String>, prefix: &str| {
            let rows = texts.into_iter().enumerate();
            rows.map(|(i, text)| json!({"_id": format!("{prefix}{i}"), "text": text})).collect::<Vec<_>>()
        };
        self.rows("dev/corpus.jsonl", numbered(dev.iter().map(|s| &s.answer).collect(), "d"));
        self.rows("dev/queries.jsonl", numbered(dev.iter().map(|s| &s.question).collect(), "q"));
        let qrels: String = (0..dev.len()).map(|i| format!("q{i}\td{i}\t1\n")).collect();
        self.file("dev/qrels/test.tsv", &format!("query-id\tcorpus-id\tscore\n{qrels}"));
    }
}

/// Something that somebody does, and a question about it.
struct Scene {
    question: String,
    answer: String,
}

/// In words that the small models know; no two alike.
fn scenes(numbers: std::ops::Range<usize>) -> Vec<Scene> {
    const WHO: [&str; 6] = ["gardener", "teacher", "nurse", "sailor", "student", "baker"];
    const DOES: [&str; 6] = ["repairs", "sells", "finds", "borrows", "paints", "cleans"];
    const WHAT: [&str; 7] = ["bicycle", "radio", "lamp", "chair", "mirror", "bottle", "map"];
    const WHERE: [&str; 5] = ["near the station", "in the garden", "at the market", "behind the church", "by the lake"];
    numbers
        .map(|i| {
            let (who, does) = (WHO[i % 6], DOES[(i / 6 + i) % 6]);
            let (what, place) = (WHAT[i % 7], WHERE[i % 5]);
            Scene {
                question: format!("who {does} the {what} {place} ?"),
                answer: format!("the {who} {does} the old {what} {place} every morning ."),
            }
        })
        .collect()
}
