//! Evaluators of a script, and what they read.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::load::load_files;
use super::{Measure, Writer, argument, held_out_rows, quoted, refused};
use crate::error::{Error, Result};
use crate::flow::ModelType;

impl Writer<'_> {
    pub(super) fn measures(&mut self, splits: bool) -> Result<Vec<Measure>> {
        let count = self.value("evaluator").and_then(Value::as_array).map_or(0, Vec::len);
        let mut measures = Vec::new();
        for i in 0..count {
            let table = self.table(&format!("evaluator.{i}"));
            measures.push(self.measure(&table)?);
        }
        if measures.is_empty() && splits {
            // rows of the training data that are set apart
            let lines = held_out_rows(self.draft.variant, self.wanted, self.values)?;
            measures.push(self.measure(&lines.into_iter().collect())?);
        }
        if measures.is_empty() {
            let class = match self.model_type {
                ModelType::SentenceTransformer => "NanoBEIREvaluator",
                ModelType::CrossEncoder => "CrossEncoderNanoBEIREvaluator",
                ModelType::SparseEncoder => "SparseNanoBEIREvaluator",
                ModelType::MultiVectorEncoder => "MultiVectorNanoBEIREvaluator",
            };
            let names = json!({ "type": class, "dataset_names": ["msmarco", "nfcorpus", "nq"] });
            measures.push(self.measure(names.as_object().unwrap_or(&Map::new()))?);
        }
        Ok(measures)
    }

    pub(super) fn measure(&mut self, table: &Map<String, Value>) -> Result<Measure> {
        let class = table.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let columns = |own: &[&str]| -> Vec<String> {
            let given = table.get("columns").and_then(Value::as_array);
            let given = given.map(|names| names.iter().filter_map(Value::as_str).map(quoted).collect::<Vec<_>>());
            given.unwrap_or_else(|| own.iter().map(|name| quoted(name)).collect())
        };
        let path = table.get("path").and_then(Value::as_str);
        let folder = path.filter(|path| Path::new(path).is_dir());
        let bare =
            ["Sparse", "MultiVector", "CrossEncoder"].iter().find_map(|p| class.strip_prefix(p)).unwrap_or(&class);
        let ranked = self.model_type == ModelType::CrossEncoder;
        let (reads, columns) = match bare {
            "NanoBEIREvaluator" => ("nothing", Vec::new()),
            "InformationRetrievalEvaluator" if folder.is_some() => ("folder", Vec::new()),
            "InformationRetrievalEvaluator" => ("pairs", columns(&["query", "passage"])),
            "EmbeddingSimilarityEvaluator" => ("scores", columns(&["sentence1", "sentence2"])),
            "BinaryClassificationEvaluator" => ("labels", columns(&["sentence1", "sentence2"])),
            "TripletEvaluator" => ("triplets", columns(&["anchor", "positive", "negative"])),
            "TranslationEvaluator" => ("translations", columns(&["source", "target"])),
            "MSEEvaluator" => ("taught", columns(&["source", "target"])),
            "RerankingEvaluator" => ("samples", columns(&[])),
            "ClassificationEvaluator" if ranked => ("classes", columns(&["sentence1", "sentence2"])),
            "CorrelationEvaluator" if ranked => ("correlations", columns(&["sentence1", "sentence2"])),
            _ => {
                return Err(Error::usage(format!("a script cannot be rendered with `{class}`"))
                    .with_hint("name another with `--set evaluator.0.type=...`, or change the script afterwards"));
            }
        };
        let (reads, columns) = match (reads, columns.len()) {
            // the teacher's embeddings are the labels
            ("taught", 1) => ("recorded", columns),
            ("samples", 2) if !table.contains_key("label") => ("drawn", columns),
            (_, _) => (reads, columns),
        };
        self.import(&class, "evaluation");
        let own = ["type", "path", "columns", "label", "limit", "teacher_model"];
        let arguments =
            table.iter().filter(|(key, _)| !own.contains(&key.as_str())).map(|(k, v)| argument(k, v)).collect();
        let limit = table.get("limit").and_then(Value::as_u64);
        if limit.is_some() && folder.is_some() {
            return Err(refused("evaluator.limit", "a script measures with all of a folder"));
        }
        let load = match path.filter(|_| folder.is_none()) {
            Some(path) => Some(load_files(&json!(path), limit)?),
            None => None,
        };
        Ok(Measure {
            class,
            reads,
            load,
            folder: folder.map(quoted),
            columns,
            label: Some(quoted(table.get("label").and_then(Value::as_str).unwrap_or(default_label(reads)))),
            arguments,
        })
    }
}

const fn default_label(reads: &str) -> &str {
    match reads.as_bytes() {
        b"scores" | b"correlations" => "score",
        _ => "label",
    }
}
