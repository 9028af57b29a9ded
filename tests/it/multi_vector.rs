//! Models with a vector for each token: embeddings, scores, losses, evaluators, older formats, and twenty steps of
//! training as the reference's.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use serde_json::{Map, Value, json};
use tallow::eval::reranking::Sample;
use tallow::eval::{self, EvaluationData};
use tallow::flow::{
    Encode, EncodeMultiVector, EncodeOptions, Labels, ModelType, MultiVectors, Outputs, PackedBatch, Preprocess,
};
use tallow::loss;
use tallow::model::{ModelOptions, MultiVectorOptions, QueryExpansion, SentenceTransformer};
use tallow::scoring::late;

use crate::curves::{follow, recipe_of};
use crate::support::{assert_close, golden, numbers, project, tensor};
use crate::train::plan;

fn load() -> SentenceTransformer {
    SentenceTransformer::load(&project("tests/fixtures/tiny-colbert")).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect()
}

fn encode(model: &SentenceTransformer, texts: &[String], task: &str) -> MultiVectors {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let prompt = Some(model.named_prompt(task).unwrap_or_default());
    let options = EncodeOptions { task: Some(task.to_owned()), prompt, ..EncodeOptions::default() };
    model.encode_multi_vector(&texts, &options).unwrap()
}

fn same(what: &str, got: &MultiVectors, want: &Value, tolerance: f64) {
    let counts: Vec<u64> = (0..got.texts()).map(|i| got.vectors(i) as u64).collect();
    let wanted: Vec<u64> = want["counts"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    assert_eq!(counts[..wanted.len()], wanted, "{what}: vectors of each text");
    let values: Vec<f64> = got.data().iter().map(|x| f64::from(*x)).collect();
    let want = numbers(&want["values"]);
    assert_close(what, &values[..want.len()], &want, tolerance);
}

#[test]
fn embeddings_and_scores_are_the_references() {
    let golden = golden("multi_vector");
    let (queries, documents) = (texts(&golden["queries"]), texts(&golden["documents"]));
    let saved = tempfile::tempdir().unwrap();
    load().save(saved.path()).unwrap();
    let case = &golden["encodings"][0];
    for model in [load(), SentenceTransformer::load(saved.path()).unwrap()] {
        assert_eq!((model.kind(), model.similarity_fn_name()), (ModelType::MultiVectorEncoder, "maxsim"));
        assert_eq!(model.module_names(), ["Transformer", "Dense", "MultiVectorMask", "Normalize"]);
        assert!(model.new_layers().is_empty());
        let (q, d) = (encode(&model, &queries, "query"), encode(&model, &documents, "document"));
        same("queries", &q, &case["query"], 1e-5);
        same("documents", &d, &case["document"], 1e-5);
        for (key, scoring) in [
            ("scores", tallow::ops::LateInteraction::MaxSim),
            ("mean_scores", tallow::ops::LateInteraction::MeanMaxSim),
        ] {
            let scores: Vec<f64> = late::all_pairs(scoring, &q, &d).iter().map(|x| f64::from(*x)).collect();
            assert_close(key, &scores, &numbers(&case[key]), 2e-5);
        }
        let pairs = late::pairwise(tallow::ops::LateInteraction::MaxSim, &q, &d);
        let pairs: Vec<f64> = pairs.iter().map(|x| f64::from(*x)).collect();
        assert_close("pairs", &pairs, &numbers(&case["pairs"]), 2e-5);
        // one at a time is the same
        let alone = encode(&model, &queries[4..], "query");
        let together: Vec<f64> = q.text(4).iter().map(|x| f64::from(*x)).collect();
        let alone: Vec<f64> = alone.text(0).iter().map(|x| f64::from(*x)).collect();
        assert_close("alone", &alone, &together, 1e-6);
        // single vectors are not to be had
        assert!(model.encode(&["a"], &EncodeOptions::default()).unwrap_err().to_string().contains("a vector for each"));
    }
}

#[test]
fn queries_are_made_longer_as_settings_say() {
    let golden = golden("multi_vector");
    let queries = texts(&golden["queries"]);
    let cases = golden["encodings"].as_array().unwrap();
    assert!(cases.len() >= 5);
    for case in &cases[1..] {
        let expansion = match &case["expansion"] {
            Value::Null => json!({"length": 0}),
            given => given.clone(),
        };
        let expansion: QueryExpansion = serde_json::from_value(expansion).unwrap();
        let multi_vector = MultiVectorOptions { query_expansion: Some(expansion), ..MultiVectorOptions::default() };
        let options = ModelOptions { multi_vector, ..ModelOptions::default() };
        let model = SentenceTransformer::load_with(&project("tests/fixtures/tiny-colbert"), &options).unwrap();
        let name = case["name"].as_str().unwrap();
        same(name, &encode(&model, &queries, "query"), &case["query"], 1e-5);
        let saved = tempfile::tempdir().unwrap();
        model.save(saved.path()).unwrap();
        let again = SentenceTransformer::load(saved.path()).unwrap();
        same(name, &encode(&again, &queries, "query"), &case["query"], 1e-5);
    }
    let refused = |expansion: Value, query_length| {
        let query_expansion = Some(serde_json::from_value(expansion).unwrap());
        let multi_vector = MultiVectorOptions { query_expansion, query_length, ..MultiVectorOptions::default() };
        let options = ModelOptions { multi_vector, ..ModelOptions::default() };
        let loaded = SentenceTransformer::load_with(&project("tests/fixtures/tiny-colbert"), &options);
        loaded.err().map_or_else(String::new, |e| e.to_string())
    };
    assert!(refused(json!({"length": 14, "token": "[Q]"}), None).contains("no token `[Q]`"));
    assert!(refused(json!({"length": 1000}), None).contains("64 positions"));
    assert!(refused(json!({"length": 2}), None).contains("is 2"));
    assert!(refused(json!({"length": 20}), Some(10)).contains("less than"));
}

/// A projection that the script makes, too.
fn projection(width: usize) -> Tensor {
    let value = |i: usize| ((0.7 * i as f64 + 0.3).sin() / 4.0) as f32;
    Tensor::from_vec((0..width * 32).map(value).collect(), (width, 32), &Device::Cpu).unwrap()
}

fn write(path: &Path, value: &Value) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, value.to_string()).unwrap();
}

/// A directory as PyLate saves it.
fn pylate(folder: &Path) {
    let bert = project("tests/fixtures/tiny-bert");
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(bert.join(name), folder.join(name)).unwrap();
    }
    write(&folder.join("sentence_bert_config.json"), &json!({"max_seq_length": 30, "do_lower_case": false}));
    let modules = ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense"];
    let entry = |(i, kind): (usize, &&str)| json!({"idx": i, "name": i.to_string(), "path": if i == 0 { "" } else { "1_Dense" }, "type": kind});
    write(&folder.join("modules.json"), &modules.iter().enumerate().map(entry).collect());
    write(
        &folder.join("config_sentence_transformers.json"),
        &json!({
            "prompts": {}, "default_prompt_name": null, "similarity_fn_name": "MaxSim", "model_type": "ColBERT",
            "query_prefix": "##u ", "document_prefix": "##n ", "query_length": 11, "document_length": 17,
            "attend_to_expansion_tokens": false, "skiplist_words": [".", "?"], "do_query_expansion": true,
        }),
    );
    let identity = "torch.nn.modules.linear.Identity";
    let dense = json!({"in_features": 32, "out_features": 8, "bias": false, "activation_function": identity});
    write(&folder.join("1_Dense/config.json"), &dense);
    let weights = HashMap::from([("linear.weight", projection(8))]);
    candle_core::safetensors::save(&weights, folder.join("1_Dense/model.safetensors")).unwrap();
}

/// A directory as Stanford's ColBERT saves it.
fn stanford(folder: &Path) {
    let bert = project("tests/fixtures/tiny-bert");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(bert.join(name), folder.join(name)).unwrap();
    }
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(bert.join("config.json")).unwrap()).unwrap();
    config["architectures"] = json!(["HF_ColBERT"]);
    write(&folder.join("config.json"), &config);
    let weights = candle_core::safetensors::load(bert.join("model.safetensors"), &Device::Cpu).unwrap();
    let mut weights: HashMap<String, Tensor> = weights
        .into_iter()
        .map(|(name, value)| (format!("bert.{}", name.trim_start_matches("bert.")), value))
        .collect();
    weights.insert("linear.weight".to_owned(), projection(8));
    candle_core::safetensors::save(&weights, folder.join("model.safetensors")).unwrap();
    write(
        &folder.join("artifact.metadata"),
        &json!({
            "query_token_id": "##u", "doc_token_id": "##n", "query_maxlen": 9, "doc_maxlen": 16,
            "mask_punctuation": true, "attend_to_mask_tokens": false,
        }),
    );
}

#[test]
fn older_formats_load_and_are_saved_in_the_new_one() {
    let golden = golden("multi_vector");
    let (queries, documents) = (texts(&golden["queries"]), texts(&golden["documents"]));
    for name in ["pylate", "stanford"] {
        let (folder, saved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        if name == "pylate" {
            pylate(folder.path())
        } else {
            stanford(folder.path())
        }
        let model = SentenceTransformer::load(folder.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        model.save(saved.path()).unwrap();
        for (how, model) in [("loaded", &model), ("saved", &SentenceTransformer::load(saved.path()).unwrap())] {
            assert_eq!((model.kind(), model.similarity_fn_name()), (ModelType::MultiVectorEncoder, "maxsim"));
            for (key, prompt) in golden[name]["prompts"].as_object().unwrap() {
                assert_eq!(model.named_prompt(key).as_deref(), prompt.as_str(), "{name}");
            }
            same(&format!("{name} {how} query"), &encode(model, &queries, "query"), &golden[name]["query"], 1e-5);
            let documents = encode(model, &documents, "document");
            same(&format!("{name} {how} document"), &documents, &golden[name]["document"], 1e-5);
        }
        let weights = candle_core::safetensors::load(saved.path().join("model.safetensors"), &Device::Cpu).unwrap();
        assert!(!weights.contains_key("linear.weight"), "{name}: the projection is a module of its own now");
    }
}

/// What a folder's file says, with changes.
fn change(path: &Path, what: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    what(&mut value);
    write(path, &value);
}

#[test]
fn what_an_older_folder_leaves_out_is_told_by_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    pylate(folder.path());
    let config = folder.path().join("config_sentence_transformers.json");
    let query = texts(&json!(["the map"]));
    let whole = encode(&SentenceTransformer::load(folder.path()).unwrap(), &query, "query");
    change(&config, |config| drop(config.as_object_mut().unwrap().remove("model_type")));
    let model = SentenceTransformer::load(folder.path()).unwrap();
    assert_eq!(model.kind(), ModelType::MultiVectorEncoder, "settings that only PyLate writes");
    assert_eq!(encode(&model, &query, "query"), whole);
    // settings that are given win over those of the older format
    let options = ModelOptions {
        multi_vector: MultiVectorOptions {
            query_expansion: Some(serde_json::from_value(json!({"length": 0})).unwrap()),
            ..MultiVectorOptions::default()
        },
        ..ModelOptions::default()
    };
    let model = SentenceTransformer::load_with(folder.path(), &options).unwrap();
    assert!(encode(&model, &query, "query").vectors(0) < whole.vectors(0));
    // and its name for the expansion as a whole
    change(&config, |config| config["query_expansion"] = json!({"strategy": "fixed", "length": 7}));
    let model = SentenceTransformer::load(folder.path()).unwrap();
    assert_eq!(encode(&model, &query, "query").vectors(0), 7);
}

#[test]
fn prompts_and_limits_outlive_a_change_of_type() {
    let (folder, saved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    pylate(folder.path());
    write(&folder.path().join("config_sentence_transformers.json"), &json!({"prompts": {"query": "ask: "}}));
    change(&folder.path().join("sentence_bert_config.json"), |config| config["do_lower_case"] = json!(true));
    let options = ModelOptions { model_type: Some(ModelType::MultiVectorEncoder), ..ModelOptions::default() };
    let model = SentenceTransformer::load_with(folder.path(), &options).unwrap();
    assert_eq!(model.named_prompt("query").as_deref(), Some("ask: "));
    model.save(saved.path()).unwrap();
    let again = SentenceTransformer::load(saved.path()).unwrap();
    assert_eq!(again.named_prompt("query").as_deref(), Some("ask: "));
    let long = texts(&json!(["The Map ".repeat(40)]));
    let vectors = encode(&again, &long, "document");
    assert_eq!(vectors.vectors(0), 30, "the limit is kept");
    assert_eq!(vectors, encode(&model, &long, "document"));
}

#[test]
fn a_new_model_has_a_projection_a_mask_and_a_warning() {
    let options = ModelOptions {
        model_type: Some(ModelType::MultiVectorEncoder),
        multi_vector: MultiVectorOptions {
            embedding_dim: Some(16),
            skiplist_words: Some(tallow::model::punctuation()),
            ..MultiVectorOptions::default()
        },
        seed: 3,
        ..ModelOptions::default()
    };
    let base = project("tests/fixtures/tiny-bert");
    let model = SentenceTransformer::load_with(&base, &options).unwrap();
    assert_eq!(model.module_names(), ["Transformer", "Dense", "MultiVectorMask", "Normalize"]);
    assert_eq!((model.dimension(), model.new_layers().len()), (16, 1));
    let (with, without) = (texts(&json!(["the map, the bee."])), texts(&json!(["the map the bee"])));
    let [with, without] = [with, without].map(|text| encode(&model, &text, "document"));
    assert_eq!(with.vectors(0), without.vectors(0), "marks are not compared");
    for vector in with.data().chunks(16) {
        let length: f32 = vector.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "vectors have the length 1");
    }
    let other = SentenceTransformer::load_with(&base, &ModelOptions { seed: 4, ..options.clone() }).unwrap();
    let query = texts(&json!(["the map"]));
    assert_ne!(encode(&model, &query, "query"), encode(&other, &query, "query"), "seeds make projections");
    let again = SentenceTransformer::load_with(&base, &options).unwrap();
    assert_eq!(encode(&model, &query, "query"), encode(&again, &query, "query"));
    // a dense layer of a bi-encoder becomes one of every token
    let plain = ModelOptions { model_type: options.model_type, ..ModelOptions::default() };
    let folder = tempfile::tempdir().unwrap();
    pylate(folder.path());
    std::fs::remove_file(folder.path().join("config_sentence_transformers.json")).unwrap();
    let model = SentenceTransformer::load_with(folder.path(), &plain).unwrap();
    assert_eq!(model.module_names(), ["Transformer", "Dense", "MultiVectorMask", "Normalize"]);
    assert!(model.new_layers().is_empty());
    let error = SentenceTransformer::load_with(&project("tests/fixtures/tiny-static"), &options).err().unwrap();
    assert!(error.to_string().contains("does not begin with a Transformer"), "{error}");
}

#[test]
fn training_reads_the_first_column_as_queries() {
    let model = load();
    let preprocess = model.preprocess(&Default::default()).unwrap();
    let text = "the map ".repeat(30);
    let lengths: Vec<usize> =
        (0..2).map(|c| preprocess.tokenize_column((c, "x"), &[&text], None).unwrap()[0].ids.len()).collect();
    assert_eq!(lengths, [14, 20], "queries have 14 tokens, documents 20 at most");
    let rows = model.rows(&tallow::flow::Batch {
        packed: PackedBatch::pack([(&[2u32, 3][..], 0)]),
        columns: 1,
        rows: 1,
        lists: Vec::new(),
        text_ids: Vec::new(),
        labels: None,
        row_ids: vec![0],
        dataset: 0,
    });
    assert!(!rows.is_empty());
}

fn labels(value: &Value) -> Option<Labels> {
    let rows = value.as_array()?;
    Some(match rows.first()? {
        Value::Array(first) => Labels::Matrix {
            width: first.len(),
            data: rows.iter().flat_map(|r| r.as_array().unwrap()).map(|x| x.as_f64().unwrap() as f32).collect(),
        },
        _ => Labels::Float(rows.iter().map(|x| x.as_f64().unwrap() as f32).collect()),
    })
}

#[test]
fn losses_equal_the_reference() {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for (number, case) in golden("multi_vector")["losses"].as_array().unwrap().iter().enumerate() {
        let name = case["loss"].as_str().unwrap();
        let place = format!("case {number}: {name} {}", case["config"]);
        let loss = loss::build_for(ModelType::MultiVectorEncoder, name, case["config"].as_object().unwrap()).unwrap();
        let all = tensor(&case["vectors"], DType::F64);
        let (mut vars, mut vectors, mut first) = (Vec::new(), Vec::new(), 0);
        for column in case["lengths"].as_array().unwrap() {
            let mut places = vec![0u32];
            for length in column.as_array().unwrap() {
                places.push(places[places.len() - 1] + length.as_u64().unwrap() as u32);
            }
            let count = places[places.len() - 1] as usize;
            vars.push(Var::from_tensor(&all.narrow(0, first, count).unwrap()).unwrap());
            vectors.push(Arc::new(places));
            first += count;
        }
        let embeddings = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let outputs = Outputs { vectors, ..Outputs::new(embeddings) };
        let value = loss.compute(&outputs, labels(&case["labels"]).as_ref()).unwrap_or_else(|e| panic!("{place}: {e}"));
        let wanted = case["value"].as_f64().unwrap();
        let got = value.to_scalar::<f64>().unwrap();
        assert!((got - wanted).abs() < 1e-5 * wanted.abs().max(1.0), "{place}: {got}, expected {wanted}");
        let gradients = value.backward().unwrap();
        let got: Vec<f64> = vars
            .iter()
            .flat_map(|var| match gradients.get(var) {
                Some(gradient) => gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
                None => vec![0.0; var.elem_count()],
            })
            .collect();
        assert_close(&place, &got, &numbers(&case["gradient"]), 1e-5);
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    for name in loss::names_for(ModelType::MultiVectorEncoder) {
        assert!(counts.get(name).is_some_and(|count| *count >= 3), "{name}: {counts:?}");
    }
}

#[test]
fn losses_follow_the_reference() {
    let golden = golden("multi_vector");
    let cases = golden["curves"].as_array().unwrap();
    assert!(cases.len() >= 5);
    let (queries, documents) = (texts(&golden["queries"]), texts(&golden["documents"]));
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let text = recipe_of(case, "MultiVectorEncoder");
        for cache in [&[][..], &["args.gradient_cache_tokens=90"]] {
            let model = follow(name, case, &plan(&text, cache));
            same(name, &encode(&model, &queries[..2], "query"), &case["query"], 1e-3);
            same(name, &encode(&model, &documents[..2], "document"), &case["document"], 1e-3);
        }
    }
}

fn data(case: &Value) -> EvaluationData {
    let data = &case["data"];
    let column = |name: &str| texts(&data[name]);
    let map = |name: &str| -> Vec<(String, String)> {
        let object = data[name].as_object().unwrap();
        object.iter().map(|(id, text)| (id.clone(), text.as_str().unwrap().to_owned())).collect()
    };
    match case["evaluator"].as_str().unwrap() {
        "MultiVectorInformationRetrievalEvaluator" => EvaluationData::Retrieval {
            queries: map("queries"),
            corpus: map("corpus"),
            relevant: data["relevant"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(id, documents)| (id.clone(), texts(documents).into_iter().collect()))
                .collect::<HashMap<_, _>>(),
        },
        "MultiVectorTripletEvaluator" => EvaluationData::Triplets {
            anchors: column("anchor"),
            positives: column("positive"),
            negatives: column("negative"),
        },
        "MultiVectorRerankingEvaluator" => {
            let sample = |sample: &Value| Sample {
                query: sample["query"].as_str().unwrap().to_owned(),
                positive: texts(&sample["positive"]),
                negative: texts(&sample["negative"]),
            };
            EvaluationData::Reranking(data["samples"].as_array().unwrap().iter().map(sample).collect())
        }
        "MultiVectorDistillationEvaluator" => {
            let rows: Vec<Vec<String>> = data["documents"].as_array().unwrap().iter().map(texts).collect();
            let columns = (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c].clone()).collect()).collect();
            let scores = data["scores"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
            let scores = scores.map(|x| x.as_f64().unwrap()).collect();
            EvaluationData::TeacherScores { queries: column("query"), documents: columns, scores }
        }
        other => panic!("no such evaluator: {other}"),
    }
}

#[test]
fn evaluators_equal_the_reference() {
    let golden = golden("multi_vector");
    let mut seen = BTreeSet::new();
    for case in golden["evaluators"].as_array().unwrap() {
        let name = case["evaluator"].as_str().unwrap();
        let similarity = case["similarity"].as_str().unwrap();
        let place = format!("{name} {similarity} {}", case["config"]);
        let options = ModelOptions { similarity_fn_name: Some(similarity.to_owned()), ..ModelOptions::default() };
        let model = SentenceTransformer::load_with(&project("tests/fixtures/tiny-colbert"), &options).unwrap();
        let settings: Map<String, Value> = case["config"].as_object().unwrap().clone();
        let evaluator = eval::build(name, &settings, data(case)).unwrap_or_else(|e| panic!("{place}: {e}"));
        let metrics = evaluator.evaluate(&model).unwrap_or_else(|e| panic!("{place}: {e}"));
        let wanted = case["metrics"].as_object().unwrap();
        let keys: Vec<&String> = metrics.values.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, wanted.keys().collect::<Vec<_>>(), "{place}");
        assert_eq!(evaluator.keys(similarity).iter().collect::<Vec<_>>(), keys, "{place}");
        for (key, value) in &metrics.values {
            let want = wanted[key].as_f64().unwrap();
            assert!((value - want).abs() < 1e-4 * want.abs().max(1.0), "{place} {key}: {value}, expected {want}");
        }
        assert_eq!(metrics.primary, case["primary"].as_str().unwrap(), "{place}");
        for csv in evaluator.csv(similarity) {
            assert_eq!(case["csv"][&csv.file].as_str(), Some(csv.header().as_str()), "{place}");
        }
        seen.insert(name.to_owned());
    }
    // several searches are as many single ones, see below
    for entry in eval::multi_vector::EVALUATORS.iter().filter(|e| e.card.name != "MultiVectorNanoBEIREvaluator") {
        assert!(seen.contains(entry.card.name), "{} has no golden case", entry.card.name);
    }
    let case = &golden["evaluators"][0];
    let build = |name: &str, settings: Value, data| eval::build(name, settings.as_object().unwrap(), data);
    let searches = vec![("one".to_owned(), data(case)), ("two".to_owned(), data(case))];
    let several = build("MultiVectorNanoBEIREvaluator", json!({}), EvaluationData::Retrievals(searches)).unwrap();
    let metrics = several.evaluate(&load()).unwrap();
    let one = case["metrics"]["dev_maxsim_ndcg@10"].as_f64().unwrap();
    for key in ["one_maxsim_ndcg@10", "NanoBEIR_mean_maxsim_ndcg@10"] {
        let got = metrics.get(key).unwrap_or_else(|| panic!("no {key} in {:?}", metrics.values));
        assert!((got - one).abs() < 1e-6, "{key}: {got}, one alone {one}");
    }
    let dense = SentenceTransformer::load(&project("tests/fixtures/tiny-bert")).unwrap();
    let search = build("MultiVectorInformationRetrievalEvaluator", json!({}), data(case)).unwrap();
    assert!(search.evaluate(&dense).unwrap_err().to_string().contains("token by token"));
    let foreign = build("MultiVectorInformationRetrievalEvaluator", json!({"truncate_dim": 3}), data(case));
    assert!(foreign.err().unwrap().to_string().contains("single vectors"));
}
