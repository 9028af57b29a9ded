//! What evaluators read, by kind:
//!
//! - retrieval: a folder in the BEIR layout, or a file of (query, passage) pairs;
//! - scored pairs and labelled pairs: a file of `sentence1`, `sentence2` and a label; triplets: a file;
//! - reranking: a file of queries with lists of documents, or of labelled (query, passage) pairs;
//! - translations: a file of `source`, `target`;
//! - a teacher's embeddings: a file of `source`, `target` and the setting `teacher_model`, or of `target` with the
//!   embeddings as its label column;
//! - a teacher's embeddings in several languages: a file with a column a language, and the setting `teacher_model`;
//! - paraphrases: a folder with a file of sentences and one of duplicates;
//! - classes: a file of `sentence1`, `sentence2` and a class;
//! - a teacher's scores: a file of a query, documents in columns, and a list of scores;
//! - several data sets for retrieval: a folder of folders in the BEIR layout, or with Parquet files as on the Hub;
//! - rankings: a folder with `dense.jsonl` and `sparse.jsonl`;
//! - classified pairs: a file of two columns and a class; documents to rank: as reranking, also with what a search found;
//!   several data sets of these: a folder of folders in the BEIR layout, each with a `bm25.jsonl`, or with Parquet files
//!   as on the Hub.
//!
//! A file of pairs has `sentence1`, `sentence2`, or `query`, `passage`, unless `columns` names others.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::data::beir::{read_beir, read_found};
use crate::data::paraphrases::read_paraphrases;
use crate::data::probe::probe;
use crate::data::reranking::{FoundFor, Ranked, read_ranked, read_rankings, read_reranking};
use crate::data::source::Files;
use crate::data::texts::{self, Table};
use crate::data::{DatasetSpec, OnBadRow, nano};
use crate::error::{Error, Result};
use crate::eval::cross_encoder::reranking::{Others, Sample as PairSample};
use crate::eval::reciprocal_rank_fusion::Ranking;
use crate::eval::reranking::Sample;
use crate::eval::{DataKind, EvaluationData};
use crate::flow::{Embeddings, Encode, EncodeOptions, LabelKind, Labels};
use crate::model::SentenceTransformer;
use crate::recipe::plan::EvaluatorPlan;
use crate::util::files;

type ReadTable<'a> = &'a dyn Fn(&[&str], LabelKind) -> Result<Table>;

fn limit(plan: &EvaluatorPlan) -> usize {
    plan.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// Reads what an evaluator needs.
///
/// # Errors
/// When something is missing or a row cannot be used.
pub fn read(kind: DataKind, plan: &EvaluatorPlan) -> Result<EvaluationData> {
    let table = |defaults: &[&str], needs: LabelKind| -> Result<Table> {
        let mut spec = DatasetSpec::new(vec![plan.path.to_string_lossy().into_owned()], needs);
        spec.label.clone_from(&plan.label);
        spec.limit = plan.limit.map(|_| limit(plan));
        spec.columns = Some(if plan.columns.is_empty() {
            defaults.iter().map(|c| (*c).to_owned()).collect()
        } else {
            plan.columns.clone()
        });
        let table = texts::read_table(&spec, Path::new(""))?;
        if table.columns.len() != defaults.len() {
            return Err(Error::usage(format!(
                "`columns` names {} columns, {} are wanted: {}",
                table.columns.len(),
                defaults.len(),
                defaults.join(", ")
            )));
        }
        Ok(table)
    };
    let folder = match kind {
        DataKind::Paraphrases | DataKind::Retrievals | DataKind::RankedDocumentSets | DataKind::Rankings => true,
        DataKind::Retrieval => plan.path.is_dir(),
        _ => false,
    };
    if folder {
        let given =
            [("limit", plan.limit.is_some()), ("columns", !plan.columns.is_empty()), ("label", plan.label.is_some())];
        if let Some((key, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(Error::usage(format!(
                "`{key}` has no meaning for `{}`, which is a folder",
                plan.path.display()
            ))
            .with_hint("leave it out; to measure less, give a folder with less in it"));
        }
    }
    let ranks = matches!(kind, DataKind::Reranking | DataKind::RankedDocuments);
    if ranks && !matches!(plan.columns.len(), 0 | 2 | 3) {
        return Err(Error::usage(format!("`columns` names {} columns", plan.columns.len()))
            .with_hint("name two (query, passage, beside a label) or three (query, positive, negative)"));
    }
    match kind {
        DataKind::Retrieval if plan.path.is_dir() => beir(&plan.path),
        DataKind::Retrieval => {
            let [queries, passages] = take(table(&["query", "passage"], LabelKind::None)?);
            Ok(retrieval_from_pairs(queries, passages))
        }
        DataKind::ScoredPairs => {
            let table = pairs(plan, &table)?;
            let scores = table.labels.as_ref().and_then(Labels::floats).ok_or_else(|| {
                Error::data(format!("`{}` has no score column", plan.path.display()))
                    .with_hint("name it with `label`, or call it `score`")
            })?;
            let [sentences1, sentences2] = take(table);
            let scores = scores.into_iter().map(f64::from).collect();
            Ok(EvaluationData::ScoredPairs { sentences1, sentences2, scores })
        }
        DataKind::LabelledPairs => labelled_pairs(plan, &table),
        DataKind::Reranking => {
            let mut samples = read_reranking(&plan.path, &plan.columns, plan.label.as_deref())?;
            samples.truncate(limit(plan));
            let sample = |s: Ranked| Sample { query: s.query, positive: s.positive, negative: s.negative };
            Ok(EvaluationData::Reranking(samples.into_iter().map(sample).collect()))
        }
        DataKind::Parallel => {
            let [sources, targets] = take(table(&["source", "target"], LabelKind::None)?);
            Ok(EvaluationData::Parallel { sources, targets })
        }
        DataKind::Teacher => teacher(plan, &table),
        DataKind::Paraphrases => {
            let read = read_paraphrases(&plan.path)?;
            Ok(EvaluationData::Paraphrases { sentences: read.sentences, duplicates: read.duplicates })
        }
        DataKind::Retrievals => retrievals(plan),
        DataKind::Taught => taught(plan),
        DataKind::TeacherScores => teacher_scores(plan),
        DataKind::Rankings => {
            let read = |name: &str| -> Result<Vec<Ranking>> {
                let ranking = |FoundFor { query_id, query, positive, documents }| Ranking {
                    query_id,
                    query,
                    positive,
                    documents,
                };
                Ok(read_rankings(&plan.path.join(name))?.into_iter().map(ranking).collect())
            };
            Ok(EvaluationData::Rankings { dense: read("dense.jsonl")?, sparse: read("sparse.jsonl")? })
        }
        DataKind::Classes => {
            let table = table(&["sentence1", "sentence2"], LabelKind::Int)?;
            if !table.classes.is_empty() {
                return Err(Error::data(format!("`{}`: the label column holds names of classes", plan.path.display()))
                    .with_hint("names are numbered in each file by itself: write the classes as whole numbers"));
            }
            let Some(Labels::Int(classes)) = table.labels else {
                return Err(Error::data(format!("`{}` has no column of classes", plan.path.display()))
                    .with_hint("name it with `label`, or call it `label`"));
            };
            Ok(EvaluationData::Classes { columns: table.columns, classes })
        }
        DataKind::ClassifiedPairs => classified_pairs(plan, &table),
        DataKind::RankedDocuments => {
            let mut samples = read_ranked(&plan.path, &plan.columns, plan.label.as_deref())?;
            samples.truncate(limit(plan));
            Ok(EvaluationData::RankedDocuments(samples.into_iter().map(to_rank).collect()))
        }
        DataKind::RankedDocumentSets => {
            let names = if plan.path.is_dir() { nano::names(&plan.path)? } else { Vec::new() };
            if !names.is_empty() {
                let read = |name: String| {
                    let samples = nano::read_found(&plan.path, &name)?.into_iter().map(to_rank).collect();
                    Ok((name, samples))
                };
                return names.into_iter().map(read).collect::<Result<_>>().map(EvaluationData::RankedDocumentSets);
            }
            let found = |path: &Path| Ok(read_found(path, "test")?.into_iter().map(to_rank).collect());
            Ok(EvaluationData::RankedDocumentSets(folders(plan, ", each with a `bm25.jsonl`", &found)?))
        }
        DataKind::Triplets => {
            let [anchors, positives, negatives] = take(table(&["anchor", "positive", "negative"], LabelKind::None)?);
            Ok(EvaluationData::Triplets { anchors, positives, negatives })
        }
    }
}

/// The columns of a table that was checked to have `N`.
fn take<const N: usize>(table: Table) -> [Vec<String>; N] {
    let mut columns = table.columns.into_iter();
    std::array::from_fn(|_| columns.next().unwrap_or_default())
}

/// Every passage is a document of the corpus; equal texts are one query, one document.
fn retrieval_from_pairs(queries: Vec<String>, passages: Vec<String>) -> EvaluationData {
    fn number(texts: Vec<String>, prefix: char) -> (Vec<(String, String)>, Vec<String>) {
        let mut seen: HashMap<String, String> = HashMap::new();
        let mut distinct = Vec::new();
        let mut ids = Vec::with_capacity(texts.len());
        for text in texts {
            let next = format!("{prefix}{}", seen.len());
            let id = seen.entry(text.clone()).or_insert_with(|| {
                distinct.push((next.clone(), text));
                next
            });
            ids.push(id.clone());
        }
        (distinct, ids)
    }
    let (queries, query_ids) = number(queries, 'q');
    let (corpus, passage_ids) = number(passages, 'd');
    let mut relevant: HashMap<String, HashSet<String>> = HashMap::new();
    for (query, passage) in query_ids.into_iter().zip(passage_ids) {
        relevant.entry(query).or_default().insert(passage);
    }
    EvaluationData::Retrieval { queries, corpus, relevant }
}

fn beir(path: &Path) -> Result<EvaluationData> {
    let beir = read_beir(path, "test")?;
    let ids = beir.queries.iter().map(|(id, _)| id.clone());
    let relevant = ids.zip(beir.relevant).map(|(id, documents)| (id, documents.into_iter().collect())).collect();
    Ok(EvaluationData::Retrieval { queries: beir.queries, corpus: beir.corpus, relevant })
}

/// Every folder in the BEIR layout that lies in the path, or every data set in it as they lie on the Hub.
fn retrievals(plan: &EvaluatorPlan) -> Result<EvaluationData> {
    let names = if plan.path.is_dir() { nano::names(&plan.path)? } else { Vec::new() };
    if names.is_empty() {
        let also = ", or from the folders `corpus`, `queries` and `qrels` of Parquet files, as on the Hub";
        return Ok(EvaluationData::Retrievals(folders(plan, also, &beir)?));
    }
    let mut datasets = Vec::new();
    for name in names {
        let (corpus, queries, relevant) = nano::read(&plan.path, &name)?;
        datasets.push((name, EvaluationData::Retrieval { queries, corpus, relevant }));
    }
    Ok(EvaluationData::Retrievals(datasets))
}

/// Every folder in the BEIR layout that lies in the path; `also` are other layouts, or files.
fn folders<T>(plan: &EvaluatorPlan, also: &str, read: &dyn Fn(&Path) -> Result<T>) -> Result<Vec<(String, T)>> {
    let hint = format!(
        "data sets are read from a folder of folders in the BEIR layout (`corpus.jsonl`, `queries.jsonl`, \
         `qrels/test.tsv`), such as `NanoMSMARCO`{also}; without a path they come from the Hub"
    );
    if !plan.path.is_dir() {
        return Err(Error::data(format!("there is no folder `{}`", plan.path.display())).with_hint(hint));
    }
    let mut datasets = Vec::new();
    for folder in files::list(&plan.path)?.into_iter().filter(|path| path.join("corpus.jsonl").is_file()) {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        datasets.push((name, read(&folder)?));
    }
    if datasets.is_empty() {
        let text = format!("`{}` holds no folder with a `corpus.jsonl`", plan.path.display());
        return Err(Error::data(text).with_hint(hint));
    }
    Ok(datasets)
}

fn to_rank(sample: Ranked) -> PairSample {
    let others = sample.documents.map_or(Others::Negative(sample.negative), Others::Documents);
    PairSample { query: sample.query, positive: sample.positive, others }
}

/// Two texts a row and a number, the texts called `sentence1` and `sentence2` or, where there are none, `query` and
/// `passage`.
fn pairs(plan: &EvaluatorPlan, table: ReadTable<'_>) -> Result<Table> {
    let columns = probe(&Files::resolve(&[plan.path.to_string_lossy().into_owned()], Path::new(""))?)?;
    let has = |name: &str| columns.iter().any(|column| column.name == name);
    let ranked = plan.columns.is_empty() && !has("sentence1") && has("query");
    table(if ranked { &["query", "passage"] } else { &["sentence1", "sentence2"] }, LabelKind::Float)
}

fn classified_pairs(plan: &EvaluatorPlan, table: ReadTable<'_>) -> Result<EvaluationData> {
    let table = pairs(plan, table)?;
    let labels = table.labels.as_ref().and_then(Labels::floats).unwrap_or_default();
    if labels.len() != table.len() {
        return Err(Error::data(format!("`{}` has no label column", plan.path.display()))
            .with_hint("name it with `label`, or call it `label`"));
    }
    if let Some(row) = labels.iter().position(|x| x.fract() != 0.0 || *x < 0.0) {
        return Err(Error::data(format!("{}: the label is {}, and a class is wanted", table.locate(row), labels[row]))
            .with_hint("classes are whole numbers from 0; scores are for CrossEncoderCorrelationEvaluator"));
    }
    let labels = labels.iter().map(|label| *label as i64).collect();
    let [sentences1, sentences2] = take(table);
    Ok(EvaluationData::ClassifiedPairs { sentences1, sentences2, labels })
}

fn labelled_pairs(plan: &EvaluatorPlan, table: ReadTable<'_>) -> Result<EvaluationData> {
    let table = pairs(plan, table)?;
    let scores = table.labels.as_ref().and_then(Labels::floats).unwrap_or_default();
    if let Some(row) = scores.iter().position(|x| *x != 0.0 && *x != 1.0) {
        return Err(Error::data(format!("{}: the label is {}, and 0 or 1 is wanted", table.locate(row), scores[row]))
            .with_hint(
                "1 for sentences that mean the same, 0 for others; scores are for EmbeddingSimilarityEvaluator",
            ));
    }
    if scores.len() != table.len() {
        return Err(Error::data(format!("`{}` has no label column", plan.path.display()))
            .with_hint("name it with `label`, or call it `label`"));
    }
    let labels = scores.iter().map(|score| *score == 1.0).collect();
    let [sentences1, sentences2] = take(table);
    Ok(EvaluationData::LabelledPairs { sentences1, sentences2, labels })
}

/// The teacher encodes the first column of each of the evaluator's `combinations`.
fn taught(plan: &EvaluatorPlan) -> Result<EvaluationData> {
    let combinations = plan.settings.get("combinations").cloned().unwrap_or_default();
    let combinations: Vec<[String; 2]> = serde_json::from_value(combinations).unwrap_or_default();
    let Some(teacher) = plan.settings.get("teacher_model").and_then(|path| path.as_str()) else {
        return Err(Error::usage("`teacher_model` is required but missing")
            .with_hint("set it to the folder of the model that encodes the originals"));
    };
    if let Some((key, _)) =
        [("columns", !plan.columns.is_empty()), ("label", plan.label.is_some())].into_iter().find(|(_, given)| *given)
    {
        return Err(Error::usage(format!("`{key}` has no meaning here"))
            .with_hint("name the columns in `combinations`, as `[[\"en\", \"es\"]]`"));
    }
    let model = SentenceTransformer::load(Path::new(teacher)).map_err(|e| e.within("`teacher_model`"))?;
    let options = EncodeOptions { progress: Some("encoding with the teacher"), ..EncodeOptions::default() };
    let mut all = Vec::with_capacity(combinations.len());
    for columns in combinations {
        let spec = DatasetSpec {
            columns: Some(columns.to_vec()),
            // a row without one of both texts says nothing of this pair
            on_bad_row: OnBadRow::Skip,
            limit: plan.limit.map(|_| limit(plan)),
            ..DatasetSpec::new(vec![plan.path.to_string_lossy().into_owned()], LabelKind::None)
        };
        let [sources, sentences] = take(texts::read_table(&spec, Path::new(""))?);
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        all.push((sentences, model.encode(&sources, &options)?));
    }
    Ok(EvaluationData::Taught(all))
}

/// A query, columns of documents, and a score for each, or one score.
fn teacher_scores(plan: &EvaluatorPlan) -> Result<EvaluationData> {
    let mut spec = DatasetSpec::new(vec![plan.path.to_string_lossy().into_owned()], LabelKind::Any);
    spec.label.clone_from(&plan.label);
    spec.limit = plan.limit.map(|_| limit(plan));
    spec.columns = (!plan.columns.is_empty()).then(|| plan.columns.clone());
    let table = texts::read_table(&spec, Path::new(""))?;
    let shown = plan.path.display();
    let documents = table.columns.len().saturating_sub(1);
    let (width, scores) = match &table.labels {
        Some(Labels::Matrix { width, data }) => (*width, data.iter().map(|x| f64::from(*x)).collect::<Vec<_>>()),
        other => (1, other.as_ref().and_then(Labels::floats).unwrap_or_default().into_iter().map(f64::from).collect()),
    };
    if documents == 0 || width != documents || scores.len() != table.len() * width {
        return Err(Error::data(format!("`{shown}`: {documents} columns of documents, and {width} scores a row"))
            .with_hint(
                "name the query's column first in `columns`, then the documents', and the scores' with `label`",
            ));
    }
    let mut columns = table.columns.into_iter();
    let queries = columns.next().unwrap_or_default();
    Ok(EvaluationData::TeacherScores { queries, documents: columns.collect(), scores })
}

/// The teacher encodes the first column, or its embeddings are the labels.
fn teacher(plan: &EvaluatorPlan, table: ReadTable<'_>) -> Result<EvaluationData> {
    let Some(teacher) = plan.settings.get("teacher_model").and_then(|path| path.as_str()) else {
        let table = table(&["target"], LabelKind::Matrix).map_err(|e| {
            e.with_hint("set `teacher_model` to a model's folder, or give the teacher's embeddings as the label column")
        })?;
        let Some(Labels::Matrix { width, data }) = table.labels.clone() else {
            return Err(Error::data(format!("`{}` has no column with the teacher's embeddings", plan.path.display())));
        };
        let [sentences] = take(table);
        return Ok(EvaluationData::Teacher { sentences, embeddings: Embeddings::new(width, data) });
    };
    let [sources, sentences] = take(table(&["source", "target"], LabelKind::None)?);
    let model = SentenceTransformer::load(Path::new(teacher)).map_err(|e| e.within("`teacher_model`"))?;
    let texts: Vec<&str> = sources.iter().map(String::as_str).collect();
    let options = EncodeOptions { progress: Some("encoding with the teacher"), ..EncodeOptions::default() };
    Ok(EvaluationData::Teacher { sentences, embeddings: model.encode(&texts, &options)? })
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan(path: &Path, columns: &[&str]) -> EvaluatorPlan {
        EvaluatorPlan {
            kind: String::new(),
            name: String::new(),
            path: path.to_path_buf(),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            label: None,
            limit: None,
            settings: serde_json::Map::new(),
        }
    }

    #[test]
    fn pairs_are_found_by_either_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        let read = |kind, text: &str, columns: &[&str]| {
            std::fs::write(&path, text).unwrap();
            read(kind, &plan(&path, columns))
        };
        let expected = EvaluationData::ClassifiedPairs {
            sentences1: vec!["a".into(), "b".into()],
            sentences2: vec!["x".into(), "y".into()],
            labels: vec![2, 0],
        };
        for header in ["sentence1,sentence2", "query,passage"] {
            let text = format!("{header},label\na,x,2\nb,y,0\n");
            assert_eq!(read(DataKind::ClassifiedPairs, &text, &[]).unwrap(), expected);
            assert_eq!(read(DataKind::ScoredPairs, &text, &[]).unwrap().kind(), DataKind::ScoredPairs);
        }
        assert_eq!(
            read(DataKind::ClassifiedPairs, "one,two,label\na,x,2\nb,y,0\n", &["one", "two"]).unwrap(),
            expected
        );
        let told = |text: &str| read(DataKind::ClassifiedPairs, text, &[]).unwrap_err().to_string();
        let half = told("query,passage,label\na,x,1\nb,y,0.5\n");
        assert!(half.contains("line 3") && half.contains("the label is 0.5, and a class is wanted"), "{half}");
        assert!(told("one,two,label\na,x,1\n").contains("sentence1"));
        assert!(told("query,passage,label\na,x,often\n").contains("`label`"));
    }

    #[test]
    fn rows_of_a_query_are_ranked_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let row =
            |passage: &str, label: i32| format!("{{\"query\":\"q\",\"passage\":\"{passage}\",\"label\":{label}}}\n");
        std::fs::write(&path, format!("{}{}{}", row("x", 0), row("y", 1), row("z", 0))).unwrap();
        let data = read(DataKind::RankedDocuments, &plan(&path, &[])).unwrap();
        let sample = PairSample {
            query: "q".into(),
            positive: vec!["y".into()],
            others: Others::Negative(vec!["x".into(), "z".into()]),
        };
        assert_eq!(data, EvaluationData::RankedDocuments(vec![sample]));
    }

    #[test]
    fn rows_without_a_translation_are_left_out_of_their_languages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("parallel.jsonl");
        let rows = r#"{"en": "a cat", "es": "un gato", "fr": "un chat"}
            {"en": "a dog", "es": " ", "fr": "un chien"}
            {"en": "a house", "es": "una casa", "fr": ""}"#;
        std::fs::write(&path, rows).unwrap();
        let settings = serde_json::json!({
            "combinations": [["en", "es"], ["en", "fr"]],
            "teacher_model": concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-static"),
        });
        let plan = EvaluatorPlan {
            kind: "MSEEvaluatorFromDataFrame".to_owned(),
            name: String::new(),
            path,
            columns: Vec::new(),
            label: None,
            limit: None,
            settings: settings.as_object().unwrap().clone(),
        };
        let EvaluationData::Taught(taught) = read(DataKind::Taught, &plan).unwrap() else { panic!("not taught") };
        assert_eq!(taught[0].0, ["un gato", "una casa"]);
        assert_eq!(taught[1].0, ["un chat", "un chien"]);
        assert_eq!(taught[0].1.row(0), taught[1].1.row(0), "both are of `a cat`");
        let without = EvaluatorPlan { settings: serde_json::Map::new(), ..plan };
        assert!(read(DataKind::Taught, &without).unwrap_err().to_string().contains("`teacher_model`"));
    }

    #[test]
    fn pairs_become_a_retrieval_task() {
        let own = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let data = retrieval_from_pairs(own(&["a", "b", "a"]), own(&["x", "x", "y"]));
        let EvaluationData::Retrieval { queries, corpus, relevant } = data else { panic!("not retrieval") };
        assert_eq!((queries.len(), corpus.len()), (2, 2));
        assert_eq!(relevant["q0"].len(), 2, "`a` has two passages");
        assert_eq!(relevant["q1"], HashSet::from(["d0".to_owned()]));
    }
}
