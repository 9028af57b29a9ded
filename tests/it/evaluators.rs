//! Evaluators equal the reference's: keys, their order, values, primary metrics.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use candle_core::{DType, Device};
use serde_json::{Map, Value};
use tallow::eval::cross_encoder::reranking::{Others, Sample as PairSample};
use tallow::eval::reranking::Sample;
use tallow::eval::{self, Csv, EvaluationData, Evaluator, bootstrap};
use tallow::flow::{ActivationFn, Classify, Embeddings, Encode, EncodeOptions, Metrics, Predict};
use tallow::loss::{self, Loss, Setup};
use tallow::model::SentenceTransformer;
use tallow::util::seed::Rng;

use crate::support::{golden, numbers, shape, shared, tensor, whole};

/// Looks every text up in a table of vectors.
struct Table {
    vectors: HashMap<String, Vec<f32>>,
    similarity: String,
    /// Of evaluators that want a classifier.
    loss: Option<Box<dyn Loss>>,
}

impl Encode for Table {
    fn encode(&self, texts: &[&str], options: &EncodeOptions) -> tallow::Result<Embeddings> {
        let dim = self.vectors.values().next().unwrap().len();
        let rows = Embeddings::new(dim, texts.iter().flat_map(|t| self.vectors[*t].clone()).collect());
        let rows = rows.truncated(options.truncate_dim.unwrap_or(dim));
        Ok(if options.normalize { rows.normalized() } else { rows })
    }

    fn similarity_fn_name(&self) -> &str {
        &self.similarity
    }

    fn classifier(&self) -> Option<&dyn Classify> {
        self.loss.as_ref()?.classifier()
    }
}

/// The loss of a case whose classifier is measured, with its weights.
fn trained(case: &Value) -> Option<Box<dyn Loss>> {
    let inputs = &case["inputs"];
    let mut loss = loss::build("SoftmaxLoss", inputs.get("loss")?.as_object().unwrap()).unwrap();
    let dim = shape(&case["embeddings"]["sentences1"])[1];
    let (rng, device) = (Rng::new(1), Device::Cpu);
    loss.prepare(&Setup { name: "loss".into(), dim, layers: 0, dtype: DType::F32, device, rng }).unwrap();
    for (param, key) in loss.params().iter().zip(["weight", "bias"]) {
        param.assign(&tensor(&inputs[key], DType::F32)).unwrap();
    }
    Some(loss)
}

/// Looks the scores of every pair up.
struct Scores {
    table: HashMap<(String, String), Vec<f32>>,
    num_labels: usize,
}

impl Predict for Scores {
    fn predict(
        &self,
        pairs: &[(&str, &str)],
        activation_fn: Option<ActivationFn>,
        _: &EncodeOptions,
    ) -> tallow::Result<Embeddings> {
        assert!(activation_fn.is_none(), "the model's own");
        let scores = pairs.iter().flat_map(|(a, b)| self.table[&((*a).to_owned(), (*b).to_owned())].clone());
        Ok(Embeddings::new(self.num_labels, scores.collect()))
    }

    fn num_labels(&self) -> usize {
        self.num_labels
    }
}

impl Encode for Scores {
    fn encode(&self, _: &[&str], _: &EncodeOptions) -> tallow::Result<Embeddings> {
        panic!("a model of pairs has no embeddings")
    }

    fn similarity_fn_name(&self) -> &str {
        "cosine"
    }

    fn predictor(&self) -> Option<&dyn Predict> {
        Some(self)
    }
}

/// The case's data and its model.
fn pair_data(case: &Value) -> (EvaluationData, Scores) {
    let inputs = &case["inputs"];
    let pairs: Vec<Vec<String>> = inputs["pairs"].as_array().unwrap().iter().map(strings).collect();
    let num_labels = inputs["num_labels"].as_u64().unwrap() as usize;
    let scores = numbers(&case["embeddings"]["scores"]);
    let rows = scores.chunks(num_labels).map(|row| row.iter().map(|x| *x as f32).collect());
    let table = pairs.iter().map(|pair| (pair[0].clone(), pair[1].clone())).zip(rows).collect();
    let column = |i: usize| pairs.iter().map(|pair| pair[i].clone()).collect::<Vec<String>>();
    let data = match case["evaluator"].as_str().unwrap() {
        "CrossEncoderCorrelationEvaluator" => EvaluationData::ScoredPairs {
            sentences1: column(0),
            sentences2: column(1),
            scores: inputs["scores"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect(),
        },
        "CrossEncoderClassificationEvaluator" => EvaluationData::ClassifiedPairs {
            sentences1: column(0),
            sentences2: column(1),
            labels: inputs["labels"].as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect(),
        },
        "CrossEncoderRerankingEvaluator" => {
            let sample = |sample: &Value| PairSample {
                query: sample["query"].as_str().unwrap().to_owned(),
                positive: strings(&sample["positive"]),
                others: match sample.get("documents") {
                    Some(documents) => Others::Documents(strings(documents)),
                    None => Others::Negative(strings(&sample["negative"])),
                },
            };
            EvaluationData::RankedDocuments(inputs["samples"].as_array().unwrap().iter().map(sample).collect())
        }
        "CrossEncoderNanoBEIREvaluator" => {
            let dataset = |name: String| {
                let own = |ids: &Value| strings(ids).iter().map(|id| format!("{name} {id}")).collect();
                let set = &inputs["sets"][&name];
                let sample = |(query, found): (&String, &Value)| PairSample {
                    query: format!("{name} {query}"),
                    positive: own(&set["relevant"][query]),
                    others: Others::Documents(own(found)),
                };
                let samples = set["found"].as_object().unwrap().iter().map(sample).collect();
                (name, samples)
            };
            EvaluationData::RankedDocumentSets(strings(&inputs["names"]).into_iter().map(dataset).collect())
        }
        other => panic!("no such evaluator: {other}"),
    };
    (data, Scores { table, num_labels })
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned()).collect()
}

/// The case's data, with every vector under a text of its own.
fn data(case: &Value) -> (EvaluationData, HashMap<String, Vec<f32>>) {
    let mut vectors = HashMap::new();
    let mut texts = |column: &str| -> Vec<String> {
        let embeddings = &case["embeddings"][column];
        let values = numbers(embeddings);
        let rows = values.chunks(shape(embeddings)[1]).enumerate();
        rows.map(|(i, row)| {
            let text = format!("{column} {i}");
            vectors.insert(text.clone(), row.iter().map(|x| *x as f32).collect());
            text
        })
        .collect()
    };
    let inputs = &case["inputs"];
    let data = match case["evaluator"].as_str().unwrap() {
        "InformationRetrievalEvaluator" => EvaluationData::Retrieval {
            queries: strings(&inputs["query_ids"]).into_iter().zip(texts("queries")).collect(),
            corpus: strings(&inputs["corpus_ids"]).into_iter().zip(texts("corpus")).collect(),
            relevant: inputs["relevant_docs"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(query, ids)| (query.clone(), strings(ids).into_iter().collect()))
                .collect(),
        },
        "EmbeddingSimilarityEvaluator" => EvaluationData::ScoredPairs {
            sentences1: texts("sentences1"),
            sentences2: texts("sentences2"),
            scores: inputs["scores"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect(),
        },
        "TripletEvaluator" => EvaluationData::Triplets {
            anchors: texts("anchors"),
            positives: texts("positives"),
            negatives: texts("negatives"),
        },
        "BinaryClassificationEvaluator" => EvaluationData::LabelledPairs {
            sentences1: texts("sentences1"),
            sentences2: texts("sentences2"),
            labels: inputs["labels"].as_array().unwrap().iter().map(|x| x == 1).collect(),
        },
        "RerankingEvaluator" => {
            let (queries, mut documents) = (texts("queries"), texts("documents").into_iter());
            let counts = inputs["counts"].as_array().unwrap();
            let mut some = |count: &Value| documents.by_ref().take(count.as_u64().unwrap() as usize).collect();
            let sample = |(query, counts): (String, &Value)| Sample {
                query,
                positive: some(&counts[0]),
                negative: some(&counts[1]),
            };
            EvaluationData::Reranking(queries.into_iter().zip(counts).map(sample).collect())
        }
        "TranslationEvaluator" => {
            // The names say which sentences are the same.
            let mut named = |column: &str, names: &Value| {
                let texts = texts(column);
                let names = strings(names);
                let first = |name| names.iter().position(|n| n == name).unwrap();
                names.iter().map(|name| texts[first(name)].clone()).collect()
            };
            EvaluationData::Parallel {
                sources: named("sources", &inputs["names"][0]),
                targets: named("targets", &inputs["names"][1]),
            }
        }
        "MSEEvaluator" => {
            let teacher = &case["embeddings"]["teacher"];
            let values = numbers(teacher).into_iter().map(|x| x as f32).collect();
            let embeddings = Embeddings::new(shape(teacher)[1], values);
            EvaluationData::Teacher { sentences: texts("sentences"), embeddings }
        }
        "ParaphraseMiningEvaluator" => {
            let pairs = inputs["duplicates"].as_array().unwrap().iter().map(strings);
            EvaluationData::Paraphrases {
                sentences: strings(&inputs["ids"]).into_iter().zip(texts("sentences")).collect(),
                duplicates: pairs.map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
            }
        }
        "NanoBEIREvaluator" => {
            let numbered = |letter: char, texts: Vec<String>| -> Vec<(String, String)> {
                texts.into_iter().enumerate().map(|(i, text)| (format!("{letter}{i}"), text)).collect()
            };
            let dataset = |name: String| {
                let relevant = inputs["relevant"][&name].as_object().unwrap();
                let data = EvaluationData::Retrieval {
                    queries: numbered('q', texts(&format!("{name} queries"))),
                    corpus: numbered('d', texts(&format!("{name} docs"))),
                    relevant: relevant.iter().map(|(q, ids)| (q.clone(), strings(ids).into_iter().collect())).collect(),
                };
                (name, data)
            };
            EvaluationData::Retrievals(strings(&inputs["names"]).into_iter().map(dataset).collect())
        }
        "MSEEvaluatorFromDataFrame" => {
            let teacher = &case["embeddings"]["teacher"];
            let values = numbers(teacher).into_iter().map(|x| x as f32).collect();
            let teacher = Embeddings::new(shape(teacher)[1], values);
            let mut of = |combination: &Value| {
                let target = combination[1].as_str().unwrap();
                let rows: Vec<usize> = whole(&inputs["rows"][target]).iter().map(|row| *row as usize).collect();
                let all = texts(target);
                (rows.iter().map(|row| all[*row].clone()).collect(), teacher.select(&rows))
            };
            EvaluationData::Taught(case["config"]["combinations"].as_array().unwrap().iter().map(&mut of).collect())
        }
        "LabelAccuracyEvaluator" => EvaluationData::Classes {
            columns: vec![texts("sentences1"), texts("sentences2")],
            classes: inputs["labels"].as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect(),
        },
        other => panic!("no such evaluator: {other}"),
    };
    (data, vectors)
}

/// The files the reference wrote, header and row, if it was asked to.
fn check_csv(place: &str, expected: &Map<String, Value>, files: &[Csv], metrics: &Metrics) {
    if expected.is_empty() {
        return;
    }
    let names: BTreeSet<&str> = files.iter().map(|csv| csv.file.as_str()).collect();
    assert_eq!(names, expected.keys().map(String::as_str).collect(), "{place}");
    for csv in files {
        let expected = &expected[&csv.file];
        assert_eq!(csv.header(), strings(&expected["header"]).join(","), "{place} {}", csv.file);
        let row = csv.row(0.5, 20, metrics);
        let row = row.split(',').map(|cell| cell.parse::<f64>().unwrap());
        for (got, expected) in row.zip(expected["row"].as_array().unwrap()) {
            let expected = expected.as_f64().unwrap_or(f64::NAN);
            let same = (got - expected).abs() <= 1e-6 * expected.abs().max(1.0) || (got.is_nan() && expected.is_nan());
            assert!(same, "{place} {}: {got}, expected {expected}", csv.file);
        }
    }
}

#[test]
fn evaluators_equal_the_reference() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut missing_values = 0;
    for (file, of_pairs) in [("evaluators", false), ("evaluators_pairs", true)] {
        let golden = golden(file);
        for (number, case) in golden["cases"].as_array().unwrap().iter().enumerate() {
            let name = case["evaluator"].as_str().unwrap();
            let place = format!("{file} case {number}: {name} {}", case["config"]);
            let mut settings: Map<String, Value> = case["config"].as_object().unwrap().clone();
            let similarity = settings.shift_remove("similarity_fn_name");
            let (data, model): (EvaluationData, Box<dyn Encode>) = if of_pairs {
                let (data, model) = pair_data(case);
                (data, Box::new(model))
            } else {
                let (data, vectors) = data(case);
                let similarity = similarity.unwrap().as_str().unwrap().to_owned();
                (data, Box::new(Table { vectors, similarity, loss: trained(case) }))
            };
            let evaluator = eval::build(name, &settings, data).unwrap_or_else(|e| panic!("{place}: {e}"));
            missing_values += check(&place, case, evaluator.as_ref(), model.as_ref());
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert!(missing_values > 0, "the golden files have cases without a correlation");
    // those of sparse embeddings: see `sparse_encoder.rs`
    for card in eval::EVALUATORS.iter().map(|entry| entry.card) {
        assert!(counts.get(card.name).is_some_and(|count| *count >= 3), "{}: {counts:?}", card.name);
    }
}

/// Evaluates twice and compares all there is; gives back how many values were NaN.
fn check(place: &str, case: &Value, evaluator: &dyn Evaluator, model: &dyn Encode) -> usize {
    let similarity = model.similarity_fn_name();
    evaluator.meet(model);
    let keys = evaluator.keys(similarity);
    assert!(keys.contains(&evaluator.primary_key(similarity)), "{place}");
    let mut missing_values = 0;
    for _ in 0..2 {
        let metrics = evaluator.evaluate(model).unwrap_or_else(|e| panic!("{place}: {e}"));
        let expected = case["metrics"].as_object().unwrap();
        let got: Vec<&String> = metrics.values.iter().map(|(key, _)| key).collect();
        assert_eq!(got, expected.keys().collect::<Vec<_>>(), "{place}");
        assert_eq!(got, keys.iter().collect::<Vec<_>>(), "{place}");
        for (key, value) in &metrics.values {
            match expected[key].as_f64() {
                Some(expected) => {
                    let tolerance = 1e-6 * expected.abs().max(1.0);
                    assert!((value - expected).abs() <= tolerance, "{place} {key}: {value}, expected {expected}");
                }
                None => {
                    assert!(value.is_nan(), "{place} {key}: {value}, expected NaN");
                    missing_values += 1;
                }
            }
            assert_eq!(eval::trainer_key(key), case["trainer_keys"][key].as_str().unwrap(), "{place}");
        }
        assert_eq!(metrics.primary, case["primary_metric"].as_str().unwrap(), "{place}");
        assert_eq!(evaluator.primary_key(similarity), metrics.primary, "{place}");
        check_csv(place, case["csv"].as_object().unwrap(), &evaluator.csv(similarity), &metrics);
        for sample in &metrics.samples {
            let again = bootstrap::value(sample);
            let same = (again - metrics.get(&sample.key).unwrap()).abs() < 1e-9 || again.is_nan();
            assert!(same, "{place}: the items give {again}");
        }
    }
    missing_values
}

/// The first `limit` rows of a JSON Lines file.
fn rows(path: &std::path::Path, limit: usize) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().take(limit).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn column(rows: &[Value], name: &str) -> Vec<String> {
    rows.iter().map(|row| row[name].as_str().unwrap().to_owned()).collect()
}

/// The real model on real rows. The numbers are sentence-transformers 6.2.0's, in f32 on a CPU:
///
/// ```python
/// model = SentenceTransformer("shared/models/all-MiniLM-L6-v2")
/// rows = 200 first of stsb/dev.jsonl
/// EmbeddingSimilarityEvaluator(sentence1, sentence2, score, similarity_fn_names=[all four])(model)
/// rows = 200 first of nli_snli_triplets/test.jsonl
/// TripletEvaluator(anchor, positive, negative, margin=0.1)(model)
/// # stackfaq: the whole corpus, text = title + " " + text; the first 60 queries that have a relevant document
/// InformationRetrievalEvaluator(queries, corpus, relevant)(model)
/// ```
#[test]
fn real_models_score_as_with_the_reference() {
    let Some(directory) = shared("models/all-MiniLM-L6-v2") else {
        return;
    };
    let Some(data) = shared("data") else { return };
    let model = SentenceTransformer::load(&directory).unwrap();
    let check = |name: &str, settings: Value, data: EvaluationData, expected: &[(&str, f64)], tolerance: f64| {
        let metrics = eval::build(name, settings.as_object().unwrap(), data).unwrap().evaluate(&model).unwrap();
        for (key, expected) in expected {
            let got = metrics.get(key).unwrap();
            assert!((got - expected).abs() <= tolerance, "{name} {key}: {got}, expected {expected}");
        }
    };

    let pairs = rows(&data.join("stsb/dev.jsonl"), 200);
    let scored = EvaluationData::ScoredPairs {
        sentences1: column(&pairs, "sentence1"),
        sentences2: column(&pairs, "sentence2"),
        scores: pairs.iter().map(|row| row["score"].as_f64().unwrap()).collect(),
    };
    let expected = [
        ("pearson_cosine", 0.919_526_777_3),
        ("spearman_cosine", 0.907_158_398_0),
        ("pearson_euclidean", 0.913_311_876_9),
        ("pearson_manhattan", 0.913_676_999_4),
        ("spearman_manhattan", 0.908_641_788_7),
    ];
    let settings = serde_json::json!({"similarity_fn_names": ["cosine", "euclidean", "manhattan", "dot"]});
    check("EmbeddingSimilarityEvaluator", settings, scored, &expected, 1e-5);

    let triplets = rows(&data.join("nli_snli_triplets/test.jsonl"), 200);
    let triplets = EvaluationData::Triplets {
        anchors: column(&triplets, "anchor"),
        positives: column(&triplets, "positive"),
        negatives: column(&triplets, "negative"),
    };
    check("TripletEvaluator", serde_json::json!({"margin": 0.1}), triplets, &[("cosine_accuracy", 0.88)], 1e-9);

    let mut relevant: HashMap<String, HashSet<String>> = HashMap::new();
    for line in std::fs::read_to_string(data.join("stackfaq/qrels/test.tsv")).unwrap().lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields[2] != "0" {
            relevant.entry(fields[0].to_owned()).or_default().insert(fields[1].to_owned());
        }
    }
    let id = |row: &Value| row["_id"].as_str().unwrap().to_owned();
    let text = |row: &Value| row["text"].as_str().unwrap().to_owned();
    let queries = rows(&data.join("stackfaq/queries.jsonl"), usize::MAX);
    let queries = queries.iter().filter(|row| relevant.contains_key(&id(row))).take(60);
    let corpus = rows(&data.join("stackfaq/corpus.jsonl"), usize::MAX);
    let retrieval = EvaluationData::Retrieval {
        queries: queries.map(|row| (id(row), text(row))).collect(),
        corpus: corpus
            .iter()
            .map(|row| (id(row), format!("{} {}", row["title"].as_str().unwrap(), text(row)).trim().to_owned()))
            .collect(),
        relevant,
    };
    let expected = [
        ("cosine_accuracy@1", 0.95),
        ("cosine_recall@3", 1.0),
        ("cosine_ndcg@10", 0.981_546_487_7),
        ("cosine_mrr@10", 0.975),
        ("cosine_map@100", 0.975),
    ];
    check("InformationRetrievalEvaluator", serde_json::json!({}), retrieval, &expected, 1e-9);
}

#[test]
fn wrong_matches_are_told() {
    let data = EvaluationData::Parallel {
        sources: ["a", "b", "c"].map(str::to_owned).into(),
        targets: ["x", "y", "z"].map(str::to_owned).into(),
    };
    let settings = serde_json::json!({"name": "de", "print_wrong_matches": true});
    let evaluator = eval::build("TranslationEvaluator", settings.as_object().unwrap(), data).unwrap();
    let at = |x: f32, y: f32| vec![x, y];
    let vectors = [("a", at(1.0, 0.0)), ("b", at(0.6, 0.8)), ("c", at(0.0, 1.0))].into_iter();
    let vectors = vectors.chain([("x", at(1.0, 0.0)), ("y", at(0.0, 1.0)), ("z", at(0.6, 0.8))]);
    let vectors = vectors.map(|(text, vector)| (text.to_owned(), vector)).collect();
    let model = Table { vectors, similarity: "cosine".into(), loss: None };
    let metrics = evaluator.evaluate(&model).unwrap();
    assert_eq!(metrics.documents[0].file, "translation_evaluation_de_wrong_matches.jsonl");
    let lines: Vec<Value> = metrics.documents[0].text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["source"].as_str().unwrap()).collect::<Vec<_>>(), ["b", "c"]);
    let nearest = lines[0]["nearest"].as_array().unwrap();
    assert_eq!(nearest.iter().map(|n| n["target"].as_str().unwrap()).collect::<Vec<_>>(), ["z", "y", "x"]);
}

#[test]
fn a_classifier_is_measured_in_a_run_only() {
    let data = EvaluationData::Classes { columns: vec![vec!["a".into()], vec!["b".into()]], classes: vec![0] };
    let evaluator = eval::build("LabelAccuracyEvaluator", &Map::new(), data).unwrap();
    let vectors = [("a", 1.0), ("b", 2.0)].map(|(text, x)| (text.to_owned(), vec![x])).into();
    let model = Table { vectors, similarity: "cosine".into(), loss: None };
    let error = evaluator.evaluate(&model).unwrap_err();
    assert!(error.hint().unwrap().contains("SoftmaxLoss"), "{error}");
}
