//! Every kind of evaluation data, from a recipe and from the command line; the CSV files and the interval of a run.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::project;

struct Work(tempfile::TempDir);

impl Work {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn lines(&self, name: &str, rows: &[Value]) {
        self.file(name, &rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    }

    fn beir(&self, folder: &str) {
        let texts = ["a red house", "the green tree", "rain in the night", "bread and butter"];
        let rows = |letter: &str| -> Vec<Value> {
            texts.iter().enumerate().map(|(i, text)| json!({"_id": format!("{letter}{i}"), "text": text})).collect()
        };
        self.lines(&format!("{folder}/corpus.jsonl"), &rows("d"));
        self.lines(&format!("{folder}/queries.jsonl"), &rows("q")[..3]);
        self.file(&format!("{folder}/qrels/test.tsv"), "query-id\tcorpus-id\tscore\nq0\td0\t1\nq1\td1\t1\nq2\td3\t1\n");
    }

    fn tallow(&self, arguments: &[&str]) -> (bool, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_tallow"))
            .args(arguments)
            .current_dir(self.0.path())
            .env("TALLOW_CACHE_DIR", self.0.path().join("cache"))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (_, stdout, stderr) = self.tallow(&[arguments, &["--json"]].concat());
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {stdout} {stderr}"))
    }
}

/// A file or folder for every evaluator whose data are not told elsewhere: type, path, more of its table, a key.
const CASES: [(&str, &str, &str, &str); 8] = [
    ("BinaryClassificationEvaluator", "pairs.jsonl", "", "cosine_ap"),
    ("RerankingEvaluator", "lists.jsonl", "at_k = 3", "ndcg@3"),
    ("RerankingEvaluator", "judged.csv", "name = \"judged\"", "judged_ndcg@10"),
    ("TranslationEvaluator", "parallel.jsonl", "", "mean_accuracy"),
    ("MSEEvaluator", "parallel.jsonl", "teacher_model = \"teacher\"", "negative_mse"),
    ("MSEEvaluator", "vectors.jsonl", "name = \"vectors\"", "vectors_negative_mse"),
    ("ParaphraseMiningEvaluator", "mining", "add_transitive_closure = true", "average_precision"),
    ("NanoBEIREvaluator", "nano", "dataset_names = [\"msmarco\"]", "NanoBEIR_mean_cosine_ndcg@10"),
];

fn data() -> Work {
    let work = Work::new();
    let texts = ["a red house", "the green tree", "rain in the night", "bread and butter"];
    let others = ["the house is red", "trees are green", "it rains at night", "butter on bread"];
    let pair = |i: usize, label: Value| json!({"sentence1": texts[i], "sentence2": others[i], "label": label});
    work.lines("pairs.jsonl", &[pair(0, json!(1)), pair(1, json!(0)), pair(2, json!(1)), pair(3, json!(0))]);
    let list = |i: usize| json!({"query": others[i], "positive": [texts[i]], "negative": [texts[1], others[3]]});
    work.lines("lists.jsonl", &[list(0), list(2)]);
    work.file(
        "judged.csv",
        "query,passage,label\nred,a red house,1\nred,the green tree,0\nrain,it rains,1\nrain,bread,0\n",
    );
    let rows: Vec<Value> = (0..4).map(|i| json!({"source": texts[i], "target": others[i]})).collect();
    work.lines("parallel.jsonl", &rows);
    let vector = |i: usize| (0..32).map(|j| f64::from(u8::from(i == j))).collect::<Vec<_>>();
    let rows: Vec<Value> = (0..4).map(|i| json!({"target": others[i], "label": vector(i)})).collect();
    work.lines("vectors.jsonl", &rows);
    let rows: Vec<Value> = texts.iter().chain(&others).enumerate().map(|(i, t)| json!({"id": i, "text": t})).collect();
    work.lines("mining/sentences.jsonl", &rows);
    work.lines("mining/duplicates.jsonl", &[json!({"id1": 0, "id2": 4}), json!({"id1": 1, "id2": 5})]);
    work.beir("nano/NanoMSMARCO");
    work.beir("nano/own");
    crate::support::copy_dir(&project("tests/fixtures/tiny-bert"), &work.0.path().join("teacher"));
    work
}

#[test]
fn every_kind_of_data_is_read_from_a_recipe_and_from_the_command_line() {
    let work = data();
    let scored = std::fs::read_to_string(project("tests/golden/curves_scored.jsonl")).unwrap();
    work.file("train.jsonl", &scored);
    work.file("dev.jsonl", &scored.lines().take(20).collect::<Vec<_>>().join("\n"));
    let mut recipe = "run_name = \"all\"\n[model]\nbase = \"teacher\"\n[[train_dataset]]\npath = \"train.jsonl\"\n\
                      columns = [\"sentence1\", \"sentence2\"]\nlabel = \"score\"\n[loss]\nname = \"CoSENTLoss\"\n\
                      [args]\nmax_steps = 2\nper_device_train_batch_size = 4\neval_steps = 1\n\
                      [[evaluator]]\ntype = \"EmbeddingSimilarityEvaluator\"\nname = \"dev\"\npath = \"dev.jsonl\"\n"
        .to_owned();
    for (kind, path, more, _) in CASES {
        recipe.push_str(&format!("[[evaluator]]\ntype = \"{kind}\"\npath = \"{path}\"\n{more}\n"));
    }
    work.file("recipe.toml", &recipe);
    let (fine, stdout, stderr) = work.tallow(&["run", "recipe.toml", "--force"]);
    assert!(fine, "{stderr}");
    let before_last = stdout.lines().rev().nth(1).unwrap();
    assert!(before_last.starts_with("95 % interval of the delta: "), "{stdout}");

    let status = work.json(&["status"]);
    let run = Path::new(status["run_dir"].as_str().unwrap()).to_path_buf();
    let outcome: Value = serde_json::from_str(&std::fs::read_to_string(run.join("outcome.json")).unwrap()).unwrap();
    let interval: Vec<f64> = serde_json::from_value(outcome["delta_interval"].clone()).unwrap();
    assert!(interval.len() == 2 && interval[0] <= interval[1], "{interval:?}");
    assert!(outcome["training"]["final_metrics"].get("samples").is_none());
    let metrics = &outcome["training"]["final_metrics"]["values"];
    let model = run.join("model").display().to_string();
    for (kind, path, more, key) in CASES {
        let set = format!("--set={}", more.replace(" = ", "="));
        let name = more.strip_prefix("name = ").map(|n| n.trim_matches('"'));
        let mut arguments = vec!["evaluate", &model, "--evaluator", kind, "--path", path];
        match name {
            Some(name) => arguments.extend(["--name", name]),
            None if !more.is_empty() => arguments.push(&set),
            None => {}
        }
        let answer = work.json(&arguments);
        assert_eq!(answer["primary_metric"], key, "{answer}");
        let difference = answer["primary_value"].as_f64().unwrap() - metrics[key].as_f64().unwrap();
        assert!(difference.abs() < 1e-9, "{kind} {key}: {difference}");
    }

    let csv = |file: &str| std::fs::read_to_string(run.join("eval").join(file)).unwrap();
    let table = csv("similarity_evaluation_dev_results.csv");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "epoch,steps,cosine_pearson,cosine_spearman");
    assert_eq!(lines.len(), 4, "before training and after each step: {table}");
    assert!(lines[1].starts_with("0.0,0,") && lines[3].contains(",2,"), "{table}");
    assert!(csv("mse_evaluation_vectors_results.csv").starts_with("epoch,steps,MSE\n"));
    assert!(run.join("eval/NanoBEIR_evaluation_mean_results.csv").is_file());
    let card = std::fs::read_to_string(run.join("model/README.md")).unwrap();
    assert!(card.contains("Paraphrase Mining") && card.contains("Knowledge Distillation"), "{card}");
}

#[test]
fn data_of_another_kind_is_refused_with_the_way_out() {
    let work = data();
    let fails = |kind: &str, path: &str, parts: &[&str]| {
        let answer = work.json(&["evaluate", "teacher", "--evaluator", kind, "--path", path]);
        let text = answer["error"].to_string();
        for part in parts {
            assert!(text.contains(part), "{kind} {path}: {part} is missing in {text}");
        }
    };
    work.lines("scored.jsonl", &[json!({"sentence1": "a", "sentence2": "b", "label": 0.5})]);
    fails("BinaryClassificationEvaluator", "scored.jsonl", &["line 1", "0.5", "0 or 1"]);
    fails("RerankingEvaluator", "pairs.jsonl", &["`query`"]);
    fails("MSEEvaluator", "parallel.jsonl", &["teacher_model"]);
    fails("ParaphraseMiningEvaluator", "pairs.jsonl", &["sentences.jsonl"]);
    fails("NanoBEIREvaluator", "mining", &["corpus.jsonl", "from the Hub"]);
}

#[test]
fn texts_are_mined_grouped_and_kept_in_few_bits() {
    let work = data();
    let texts = "a red house\n\na red house\nthe green tree\nbread and butter\na red house\n";
    work.file("texts.txt", texts);
    let mined = work.json(&["paraphrase-mining", "teacher", "--input", "texts.txt", "--max-pairs", "3"]);
    assert_eq!((mined["texts"].as_u64(), mined["count"].as_u64()), (Some(6), Some(3)), "{mined}");
    let numbers: Vec<(u64, u64)> = mined["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["first"].as_u64().unwrap(), p["second"].as_u64().unwrap()))
        .collect();
    assert_eq!(numbers, [(0, 2), (0, 5), (2, 5)]);

    let arguments = ["cluster", "teacher", "--input", "texts.txt", "--threshold", "0.999", "--min-community-size", "2"];
    let grouped = work.json(&arguments);
    assert_eq!((grouped["count"].as_u64(), grouped["grouped"].as_u64()), (Some(1), Some(3)), "{grouped}");
    let (fine, _, _) = work.tallow(&[&arguments[..], &["--output", "groups.jsonl"]].concat());
    let written = std::fs::read_to_string(work.0.path().join("groups.jsonl")).unwrap();
    assert!(fine && written.starts_with("{\"size\":3,\"members\":[{\"index\":0,"), "{written}");

    work.file("some.txt", "a red house\nthe green tree\nbread and butter\n");
    let encode = |precision: &str| {
        work.json(&["encode", "teacher", "--input", "some.txt", "--output", "e.npy", "--precision", precision])
    };
    assert_eq!(encode("ubinary")["bytes"], 4);
    let bytes = std::fs::read(work.0.path().join("e.npy")).unwrap();
    assert!(String::from_utf8_lossy(&bytes[..128]).contains("'|u1', 'fortran_order': False, 'shape': (3, 4)"));
    assert_eq!((encode("int8")["bytes"].as_u64(), encode("float32")["bytes"].as_u64()), (Some(32), Some(128)));
    work.file("one.txt", "a red house\n");
    let one = ["encode", "teacher", "--input", "one.txt", "--output", "e.npy", "--precision", "int8"];
    assert!(work.json(&one)["error"].to_string().contains("--calibration"));
    let calibrated = work.json(&[&one[..], &["--calibration", "some.txt"]].concat());
    assert_eq!(calibrated["rows"], 1, "{calibrated}");
}
