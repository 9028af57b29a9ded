//! A run's report: one page from the run's folder alone, whatever the model, and however the run ended.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::project;

struct Work {
    dir: tempfile::TempDir,
}

/// A query that is a page's code to one who does not look.
const NASTY: &str = "<script>alert('x')</script> & \"why\"?";

impl Work {
    /// A folder with pairs, some of which are nasty.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rows = std::fs::read_to_string(project("examples/demo/dev.jsonl")).unwrap();
        let rows: Vec<Value> = rows.lines().take(24).map(|line| serde_json::from_str(line).unwrap()).collect();
        let (mut pairs, mut ranked) = (String::new(), String::new());
        for (i, row) in rows.iter().enumerate() {
            let question = if i == 0 { NASTY.to_owned() } else { row["question"].as_str().unwrap().to_owned() };
            let other = &rows[(i + 7) % rows.len()]["passage"];
            pairs.push_str(&format!("{}\n", serde_json::json!({"question": question, "passage": row["passage"]})));
            let sample = serde_json::json!({"query": question, "positive": [row["passage"]], "negative": [other]});
            ranked.push_str(&format!("{sample}\n"));
        }
        std::fs::write(dir.path().join("pairs.jsonl"), pairs).unwrap();
        std::fs::write(dir.path().join("ranked.jsonl"), ranked).unwrap();
        Self { dir }
    }

    fn tallow(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tallow"))
            .args(arguments)
            .current_dir(self.dir.path())
            .env("TALLOW_CACHE", self.dir.path().join("cache"))
            .output()
            .unwrap()
    }

    /// Runs a recipe; the run's folder.
    fn run(&self, model: &str, loss: &str, evaluator: &str, args: &str) -> PathBuf {
        let recipe = format!(
            "run_name = \"tiny\"\n{model}\n[[train_dataset]]\npath = \"pairs.jsonl\"\ncolumns = [\"question\", \
             \"passage\"]\n{loss}\n[[evaluator]]\nname = \"dev\"\n{evaluator}\n[args]\nper_device_train_batch_size = 6\n\
             logging_steps = 1\neval_steps = 2\n{args}\n"
        );
        std::fs::write(self.dir.path().join("recipe.toml"), recipe).unwrap();
        let output = self.tallow(&["run", "recipe.toml", "--force"]);
        let runs = std::fs::read_dir(self.dir.path().join("runs")).unwrap_or_else(|e| {
            panic!("{e}: {}", String::from_utf8_lossy(&output.stderr));
        });
        runs.map(|entry| entry.unwrap().path()).next().unwrap()
    }
}

fn base(model_type: &str, fixture: &str) -> String {
    let path = project("tests/fixtures").join(fixture);
    format!("model_type = \"{model_type}\"\n[model]\nbase = {:?}", path.display().to_string())
}

/// The text of every attribute `name="..."`.
fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" {name}=\"");
    page.split(&begin).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// What every report keeps.
fn sound(run: &Path) -> String {
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    for attribute in ["src", "href", "xlink:href", "data"] {
        let foreign = attributes(&page, attribute);
        assert!(foreign.iter().all(|to| to.starts_with('#') || to.starts_with("https://hf.co/")), "{foreign:?}");
    }
    for foreign in ["@import", "url(", "<script", "<link", "<img", "<iframe"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let ids = attributes(&page, "id");
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "{ids:?}");
    for section in ["curves", "changes", "data", "time", "recipe", "environment"] {
        assert!(ids.contains(&section), "{section}");
    }
    for tag in ["section", "details", "figure", "table", "div", "dl", "svg", "text", "summary", "p", "span"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "<{tag}>");
    }
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("</html>"));
    let charts = page.split("<svg").skip(1).filter_map(|rest| rest.split("</svg>").next());
    charts.for_each(|chart| assert!(!chart.contains("NaN") && !chart.contains("inf"), "{chart}"));
    page
}

/// The pictures of curves, decoded: each is small and drawn upon.
fn pictures(run: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(run.join("report")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "png") {
            let bytes = std::fs::read(&path).unwrap();
            assert!(bytes.len() < 60_000, "{}: {}", path.display(), bytes.len());
            let picture = tiny_skia::Pixmap::decode_png(&bytes).unwrap();
            let drawn = picture.pixels().iter().filter(|p| p.red() < 250).count();
            assert!(picture.width() > 800 && drawn > 1000, "{}", path.display());
            assert!(path.with_extension("svg").is_file());
            names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    names.sort();
    names
}

#[test]
fn a_report_shows_what_a_search_gained_and_lost() {
    let work = Work::new();
    let run = work.run(
        &base("SentenceTransformer", "tiny-bert"),
        "[loss]\nname = \"MultipleNegativesRankingLoss\"",
        "type = \"InformationRetrievalEvaluator\"\npath = \"pairs.jsonl\"\ncolumns = [\"question\", \"passage\"]",
        "max_steps = 6\nlearning_rate = 1e-2",
    );
    let page = sound(&run);
    assert!(page.contains("By nDCG@10:") && page.contains("Gained most"), "{page}");
    assert!(page.contains("relevant documents") && page.contains("Before training") && page.contains("After training"));
    assert!(page.contains("Tokens a text") && page.contains("Wall time") && page.contains("dev_cosine_ndcg@10"));
    assert!(page.contains("&lt;script&gt;alert"), "the nasty query stands in the data's first rows, as text");
    assert!(page.contains("MultipleNegativesRankingLoss") && page.contains("before training ("));
    assert_eq!(pictures(&run), ["gradient", "learning_rate", "loss", "metric"]);

    // from files alone, and the same but for the time it was made
    std::fs::remove_file(run.join("report.html")).unwrap();
    let again = work.tallow(&["report", "--json"]);
    let answer: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(answer["pictures"].as_array().unwrap().len(), 4);
    let without = |page: &str| page.lines().filter(|l| !l.contains("Report made")).collect::<Vec<_>>().join("\n");
    assert_eq!(without(&sound(&run)), without(&page));
    let elsewhere = work.tallow(&["report", "--output", "elsewhere.html"]);
    assert!(elsewhere.status.success() && work.dir.path().join("elsewhere.html").is_file());

    let card = std::fs::read_to_string(run.join("model/README.md")).unwrap();
    assert!(card.contains("### Course of training") && card.contains("\nwidget:\n- source_sentence: "), "{card}");
    assert!(card.contains("First rows:") && card.contains("&lt;script&gt;alert"), "{card}");
}

#[test]
fn a_report_shows_the_queries_whichever_metric_of_a_search_decides() {
    let work = Work::new();
    let run = work.run(
        &base("SentenceTransformer", "tiny-bert"),
        "[loss]\nname = \"MultipleNegativesRankingLoss\"",
        "type = \"InformationRetrievalEvaluator\"\npath = \"pairs.jsonl\"\ncolumns = [\"question\", \"passage\"]",
        "max_steps = 4\nlearning_rate = 1e-2\nmetric_for_best_model = \"eval_dev_cosine_map@100\"\n\
         load_best_model_at_end = true\nsave_steps = 2",
    );
    let page = sound(&run);
    assert!(page.contains("By nDCG@10:") && page.contains("Gained most"), "{page}");
    assert!(page.contains("each model found itself") && !page.contains("of all pairings"), "{page}");
    let written = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(run.join("report").join(name)).unwrap()).unwrap()
    };
    let kept: Value = serde_json::from_slice(&std::fs::read(run.join("outcome.json")).unwrap()).unwrap();
    assert_eq!(written("best.json")["step"], kept["training"]["best_step"]);
    // the machine is the run's, wherever the page is made
    let mut data = written("data.json");
    let machine = data["environment"].as_array().unwrap().clone();
    assert!(machine.iter().any(|pair| pair[0] == "System"), "{machine:?}");
    data["environment"] = serde_json::json!([["System", "another machine"]]);
    std::fs::write(run.join("report/data.json"), data.to_string()).unwrap();
    assert!(work.tallow(&["report"]).status.success());
    assert!(sound(&run).contains("another machine"));
    let column = &data["datasets"][0]["columns"][0];
    assert_eq!((&column["texts"], column["tokens"]["max"].as_u64() > Some(2)), (&serde_json::json!(24), true));
}

#[test]
fn a_reports_queries_are_those_of_a_reranker_too() {
    let work = Work::new();
    let run = work.run(
        &format!("{}\nnum_labels = 1", base("CrossEncoder", "tiny-bert")),
        "[loss]\nname = \"MultipleNegativesRankingLoss\"",
        "type = \"CrossEncoderRerankingEvaluator\"\npath = \"ranked.jsonl\"",
        "max_steps = 4\nlearning_rate = 1e-2",
    );
    let page = sound(&run);
    assert!(page.contains("relevant documents") && page.contains("other documents"), "{page}");
    assert!(page.contains("CrossEncoder from tiny-bert") && page.contains("dev_ndcg@10"));
    assert!(pictures(&run).contains(&"metric".to_owned()));
}

#[test]
fn a_report_of_sparse_embeddings_has_their_sparsity() {
    let work = Work::new();
    let run = work.run(
        &base("SparseEncoder", "tiny-splade"),
        "[loss]\nname = \"SparseMultipleNegativesRankingLoss\"\n[loss.splade]\ndocument_regularizer_weight = 0.001\n\
         query_regularizer_weight = 0.001",
        "type = \"SparseInformationRetrievalEvaluator\"\npath = \"pairs.jsonl\"\ncolumns = [\"question\", \"passage\"]",
        "max_steps = 4\nlearning_rate = 1e-3",
    );
    let page = sound(&run);
    assert!(page.contains("Active dimensions") && page.contains("dot product"), "{page}");
    assert!(pictures(&run).contains(&"sparsity".to_owned()));
}

#[test]
fn a_report_of_late_interaction() {
    let work = Work::new();
    let run = work.run(
        &format!("{}\nembedding_dim = 16", base("MultiVectorEncoder", "tiny-bert")),
        "[loss]\nname = \"MultiVectorMultipleNegativesRankingLoss\"",
        "type = \"MultiVectorInformationRetrievalEvaluator\"\npath = \"pairs.jsonl\"\n\
         columns = [\"question\", \"passage\"]",
        "max_steps = 4\nlearning_rate = 1e-3",
    );
    let page = sound(&run);
    assert!(page.contains("By nDCG@10:") && page.contains("maxsim"), "{page}");
}

#[test]
fn a_failed_run_gets_a_report_that_says_why() {
    let work = Work::new();
    let run = work.run(
        &base("SentenceTransformer", "tiny-bert"),
        "[loss]\nname = \"MultipleNegativesRankingLoss\"",
        "type = \"InformationRetrievalEvaluator\"\npath = \"pairs.jsonl\"\ncolumns = [\"question\", \"passage\"]",
        "max_steps = 8\nlearning_rate = 1e30\nmax_grad_norm = 0.0",
    );
    let page = sound(&run);
    assert!(page.contains(">FAILED<") && page.contains("Way out: ") && page.contains("after step"), "{page}");
    assert!(!page.contains("After training"), "{page}");
}
