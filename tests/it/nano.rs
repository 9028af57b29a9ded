//! NanoBEIR out of the Hugging Face cache: Parquet files in the Hub's layout.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use serde_json::Value;

use crate::support::project;

fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn texts(texts: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

/// Two data sets; of one the judgements are lists.
pub fn write(dir: &Path) {
    for name in ["NanoMSMARCO", "NanoNQ"] {
        let file = |part: &str| dir.join(part).join(format!("{name}-00000-of-00001.parquet"));
        let corpus = ["the grey cat sleeps", "a ship at night", "", "bread is baked in the morning"];
        parquet(&file("corpus"), vec![("_id", texts(&["d1", "d2", "d3", "d4"])), ("text", texts(&corpus))]);
        let queries = ["a cat that sleeps", "bread in the morning", ""];
        parquet(&file("queries"), vec![("_id", texts(&["q1", "q2", "q3"])), ("text", texts(&queries))]);
        let judged: ArrayRef = if name == "NanoNQ" {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for id in ["d1", "d4"] {
                lists.values().append_value(id);
                lists.append(true);
            }
            Arc::new(lists.finish())
        } else {
            texts(&["d1", "d4"])
        };
        parquet(&file("qrels"), vec![("query-id", texts(&["q1", "q2"])), ("corpus-id", judged)]);
        let mut found = ListBuilder::new(StringBuilder::new());
        for ids in [["d2", "d1", "d4"], ["d4", "d2", "d1"]] {
            ids.iter().for_each(|id| found.values().append_value(id));
            found.append(true);
        }
        parquet(&file("bm25"), vec![("query-id", texts(&["q1", "q2"])), ("corpus-ids", Arc::new(found.finish()))]);
    }
}

fn evaluate(home: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tallow"))
        .args(["evaluate", project("tests/fixtures/tiny-bert").to_str().unwrap()])
        .args(["--evaluator", "NanoBEIREvaluator", "--json"])
        .args(more)
        .env("HF_HOME", home)
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("HF_HUB_CACHE")
        .output()
        .unwrap()
}

#[test]
fn the_cache_is_read_where_there_is_no_path() {
    let dir = tempfile::tempdir().unwrap();
    let answer = |output: &Output| -> Value { serde_json::from_slice(&output.stdout).unwrap() };
    let missing = answer(&evaluate(dir.path(), &[]));
    let message = missing["error"].to_string();
    assert!(message.contains("`sentence-transformers/NanoBEIR-en` is not in the Hugging Face cache"), "{message}");
    let hint = missing["error"]["hint"].to_string();
    assert!(hint.contains("HF_HUB_OFFLINE"), "{missing}");

    let repository = dir.path().join("hub/datasets--sentence-transformers--NanoBEIR-en");
    let revision = "0123456789012345678901234567890123456789";
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), revision).unwrap();
    let snapshot = repository.join("snapshots").join(revision);
    write(&snapshot);
    let found = answer(&evaluate(dir.path(), &[]));
    let metrics = found["metrics"].as_object().unwrap_or_else(|| panic!("{found}"));
    assert_eq!(found["primary_metric"], "NanoBEIR_mean_cosine_ndcg@10", "{found}");
    for name in ["NanoMSMARCO", "NanoNQ"] {
        assert_eq!(metrics[&format!("{name}_cosine_recall@10")], 1.0, "{name}: {found}");
    }
    let by_path = answer(&evaluate(dir.path(), &["--path", snapshot.to_str().unwrap()]));
    assert_eq!(by_path["metrics"], found["metrics"]);
    let one = answer(&evaluate(dir.path(), &["--set", "dataset_names=[\"nq\"]"]));
    assert!(one["metrics"].as_object().unwrap().keys().all(|key| !key.contains("MSMARCO")), "{one}");
}

/// Rerankers read what BM25 found from the same folder, and measure it as from the layout with a folder a data set.
#[test]
fn rerankers_read_what_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, beir) = (dir.path().join("hub"), dir.path().join("beir"));
    write(&hub);
    for name in ["NanoMSMARCO", "NanoNQ"] {
        let folder = beir.join(name);
        fs::create_dir_all(folder.join("qrels")).unwrap();
        let corpus = "{\"_id\":\"d1\",\"text\":\"the grey cat sleeps\"}\n{\"_id\":\"d2\",\"text\":\"a ship at night\"}\n\
                      {\"_id\":\"d4\",\"text\":\"bread is baked in the morning\"}\n";
        let queries =
            "{\"_id\":\"q1\",\"text\":\"a cat that sleeps\"}\n{\"_id\":\"q2\",\"text\":\"bread in the morning\"}\n";
        let found = "{\"query-id\":\"q1\",\"corpus-ids\":[\"d2\",\"d1\",\"d4\"]}\n{\"query-id\":\"q2\",\"corpus-ids\":[\"d4\",\"d2\",\"d1\"]}\n";
        fs::write(folder.join("corpus.jsonl"), corpus).unwrap();
        fs::write(folder.join("queries.jsonl"), queries).unwrap();
        fs::write(folder.join("bm25.jsonl"), found).unwrap();
        fs::write(folder.join("qrels/test.tsv"), "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td4\t1\n").unwrap();
    }
    let measured = |path: &Path| -> Value {
        let out = Command::new(env!("CARGO_BIN_EXE_tallow"))
            .args(["evaluate", project("tests/fixtures/tiny-cross-encoder").to_str().unwrap()])
            .args(["--evaluator", "CrossEncoderNanoBEIREvaluator", "--json", "--path", path.to_str().unwrap()])
            .output()
            .unwrap();
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let (one, other) = (measured(&hub), measured(&beir));
    assert!(one["metrics"].as_object().is_some_and(|metrics| metrics.len() > 6), "{one}");
    assert_eq!(one["metrics"], other["metrics"]);
    fs::remove_dir_all(hub.join("bm25")).unwrap();
    let message = measured(&hub)["error"].to_string();
    assert!(message.contains("bm25` has no Parquet file of `NanoMSMARCO`"), "{message}");
}
