//! Static embeddings out of transformers, and tokenizers out of texts.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::Device;
use serde_json::Value;
use tallow::flow::{Encode, EncodeOptions, Preprocess};
use tallow::model::distill::{Components, Distillation, distill};
use tallow::model::{Corpus, SentenceTransformer, TextTokenizer, TokenizerAlgorithm, TokenizerTraining};
use tallow::ops::PoolingMode;
use tallow::train::Options;

use crate::support::{assert_close, copy_dir, golden, numbers, project, shape, values, whole};
use crate::train::{SMALL, plan, run};

/// The options of a call of the reference.
fn options(given: &Value) -> Distillation {
    let or = |key: &str, default: Value| given.get(key).cloned().unwrap_or(default);
    Distillation {
        components: match or("pca_dims", 256.into()) {
            Value::Null => Components::Off,
            Value::String(_) => Components::All,
            number if number.is_f64() => Components::Variance(number.as_f64().unwrap()),
            number => Components::Most(number.as_u64().unwrap() as usize),
        },
        sif_coefficient: or("sif_coefficient", 1e-4.into()).as_f64(),
        token_remove_pattern: or("token_remove_pattern", r"\[unused\d+\]".into()).as_str().map(str::to_owned),
        pooling: match or("pooling", "mean".into()).as_str().unwrap() {
            "first" => PoolingMode::Cls,
            "last" => PoolingMode::LastToken,
            _ => PoolingMode::Mean,
        },
    }
}

/// A teacher: a fixture, or its weights with another tokenizer.
fn teacher(golden: &Value, name: &str, folder: &Path) -> PathBuf {
    let fixture = project("tests/fixtures/tiny-bert");
    let Some(given) = golden["tokenizers"][name]["given"].as_object() else {
        return fixture;
    };
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture.join(file), folder.join(file)).unwrap();
    }
    for (file, content) in given {
        std::fs::write(folder.join(file), content.to_string()).unwrap();
    }
    folder.to_path_buf()
}

/// `rows` of a table, and the products of each with each.
fn gram(rows: &[f64], width: usize) -> Vec<f64> {
    let rows: Vec<&[f64]> = rows.chunks_exact(width).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    rows.iter().flat_map(|a| rows.iter().map(|b| dot(a, b))).collect()
}

#[test]
fn distilled_tables_equal_the_reference() {
    let golden = golden("distill");
    for case in golden["cases"].as_array().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let name = case["teacher"].as_str().unwrap();
        let what = format!("{name} {}", case["options"]);
        let directory = teacher(&golden, name, folder.path());
        let made = distill(&directory, &options(&case["options"]), &Device::Cpu).unwrap();
        let wanted_shape: Vec<usize> = whole(&case["shape"]).iter().map(|n| *n as usize).collect();
        assert_eq!(made.table.dims(), wanted_shape, "{what}");
        assert_eq!(made.tokenizer.vocabulary(), wanted_shape[0], "{what}");
        let width = wanted_shape[1];
        let all = values(&made.table);
        let rows: Vec<f64> = whole(&case["rows"])
            .iter()
            .flat_map(|row| all[*row as usize * width..(*row as usize + 1) * width].to_vec())
            .collect();
        let wanted = numbers(&case["table"]);
        assert_eq!(shape(&case["table"])[1], width, "{what}");
        // the rows are small numbers: compared by the largest of them
        let scale = wanted.iter().fold(0.0f64, |a, b| a.max(b.abs()));
        let scaled = |rows: &[f64]| rows.iter().map(|x| x / scale).collect::<Vec<_>>();
        let (rows, wanted) = (scaled(&rows), scaled(&wanted));
        assert_close(&format!("{what}: products"), &gram(&rows, width), &gram(&wanted, width), 1e-5);
        assert_close(&format!("{what}: rows"), &rows, &wanted, 1e-4);
    }
}

#[test]
fn pruned_tokenizers_equal_the_reference() {
    let golden = golden("distill");
    for (name, files) in golden["tokenizers"].as_object().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let directory = teacher(&golden, name, folder.path());
        // the last options that the script made of this teacher
        let last = golden["cases"].as_array().unwrap().iter().rev().find(|case| case["teacher"] == name.as_str());
        let given = if name == "tiny-bert" { &golden["cases"][0]["options"] } else { &last.unwrap()["options"] };
        let made = distill(&directory, &options(given), &Device::Cpu).unwrap().tokenizer;
        let (own, wanted): (Value, &Value) = (serde_json::from_slice(made.json()).unwrap(), &files["made"]);
        for key in ["normalizer", "pre_tokenizer", "post_processor", "truncation", "padding", "added_tokens"] {
            assert_eq!(own[key], wanted[key], "{name} {key}");
        }
        // model2vec leaves the number of Unigram's unknown token as it was before others were removed
        let unigram = own["model"]["vocab"].is_array();
        if unigram {
            assert_eq!((&own["model"]["unk_id"], &own["model"]["vocab"][1][0]), (&1.into(), &"<unk>".into()));
        }
        for key in ["vocab", "merges", "unk_token"] {
            let (got, want) = (own["model"].get(key), wanted["model"].get(key));
            // whole scores are written without a point
            let plain = |value: Option<&Value>| value.map(|v| v.to_string().replace(".0]", "]"));
            assert!(plain(got) == plain(want), "{name} {key}");
        }
        let reference = TextTokenizer::from_bytes(wanted.to_string().into_bytes(), Path::new("x"), false).unwrap();
        for text in
            ["The grey cat sleeps on the warm stove.", "<s> [MASK] zürich 42"].iter().take(2 - usize::from(unigram))
        {
            let ids = |tokenizer: &TextTokenizer| tokenizer.tokenize(&[*text], None).unwrap()[0].ids.clone();
            assert_eq!(ids(&made), ids(&reference), "{name} {text}");
        }
    }
}

#[test]
fn learnt_tokenizers_equal_the_reference() {
    let text = std::fs::read_to_string(project("tests/golden/curves_pairs.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<String> = rows
        .iter()
        .flat_map(|row| ["anchor", "positive"].map(|column| row[column].as_str().unwrap().to_owned()))
        .collect();
    for case in golden("tokenizers")["cases"].as_array().unwrap() {
        let vocab_size = case["vocab_size"].as_u64().unwrap() as usize;
        let lowercase = case["lowercase"].as_bool().unwrap();
        let how = TokenizerTraining { vocab_size, algorithm: TokenizerAlgorithm::Bpe, lowercase, framed: false };
        let mut corpus = Corpus::new(how).unwrap();
        corpus.add(&texts).unwrap();
        let made: Value = serde_json::from_slice(&corpus.train().unwrap()).unwrap();
        let tokens: Vec<&String> = made["model"]["vocab"].as_object().unwrap().keys().skip(256).collect();
        assert_eq!(serde_json::to_value(tokens).unwrap(), case["tokens"], "{vocab_size}");
        let join = |merge: &Value| format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap());
        let merges: Vec<String> = made["model"]["merges"].as_array().unwrap().iter().map(join).collect();
        assert_eq!(serde_json::to_value(merges).unwrap(), case["merges"], "{vocab_size}");
    }
}

/// `SMALL`, with a new static embedding in place of its model.
fn recipe(table: &str) -> String {
    SMALL.replace("[model]\nbase = \"tests/fixtures/tiny-bert\"", &format!("[model.static_embedding]\n{table}"))
}

#[test]
fn a_tokenizer_is_learnt_from_the_training_data() {
    for (algorithm, unknown) in [("wordpiece", Some(0)), ("bpe", None)] {
        let table = format!("embedding_dim = 32\nvocab_size = 420\ntokenizer_algorithm = \"{algorithm}\"");
        let train = || {
            let dir = tempfile::tempdir().unwrap();
            let (outcome, _) =
                run(&plan(&recipe(&table), &["args.learning_rate=0.05"]), dir.path(), Options::default());
            let outcome = outcome.unwrap_or_else(|e| panic!("{algorithm}: {e}"));
            assert!(outcome.score.unwrap() > outcome.baseline.unwrap() + 0.02, "{algorithm}: {:?}", outcome.score);
            let read = |file: &str| std::fs::read(outcome.model_dir.join(file)).unwrap();
            (read("model.safetensors"), read("tokenizer.json"), outcome.model_dir.clone(), dir)
        };
        let (weights, tokenizer, model_dir, _dir) = train();
        let (again, same, ..) = train();
        assert!(weights == again && tokenizer == same, "{algorithm}: the same recipe gives the same bits");
        let model = SentenceTransformer::load(&model_dir).unwrap();
        assert_eq!(model.dimension(), 32);
        let tokens = model.tokenizer().tokenize(&["ξ", "the"], None).unwrap();
        assert_eq!(tokens[1].ids.len(), 1, "{algorithm}: a frequent word is one token");
        assert_eq!(tokens[0].ids.first().copied().filter(|id| *id == 0), unknown, "{algorithm}");
        keep_for_the_reference(algorithm, &model, &model_dir);
    }
}

#[test]
fn a_distilled_model_is_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let text = recipe("distill_from = \"tests/fixtures/tiny-bert\"\npca_dims = 16");
    let (outcome, _) = run(&plan(&text, &["args.learning_rate=0.01"]), dir.path(), Options::default());
    let outcome = outcome.unwrap();
    let model = SentenceTransformer::load(&outcome.model_dir).unwrap();
    assert_eq!((model.dimension(), model.module_names()), (16, vec!["StaticEmbedding"]));
    assert_eq!(model.max_seq_length(), Some(512));
    keep_for_the_reference("distilled", &model, &outcome.model_dir);
    let error = plan_error(&recipe("distill_from = \"tests/fixtures/tiny-bert\"\nembedding_dim = 16"));
    assert!(error.contains("`model.static_embedding.embedding_dim`: can't be combined with `distill_from`"), "{error}");
    let static_model = recipe("distill_from = \"tests/fixtures/tiny-static\"");
    let error = run(&plan(&static_model, &[]), dir.path(), Options::default()).0.unwrap_err();
    assert!(error.to_string().contains("does not begin with a Transformer"), "{error}");
}

#[test]
fn what_a_new_static_embedding_cannot_have_is_refused() {
    for (table, part) in [
        ("vocab_size = 500", "`model.static_embedding.embedding_dim`: is required"),
        ("embedding_dim = 8\nvocab_size = 12", "`model.static_embedding.vocab_size`: must be 256 or more, found 12"),
        (
            "embedding_dim = 8\npca_dims = 12",
            "`model.static_embedding.pca_dims`: is only for vectors that are distilled",
        ),
        (
            "embedding_dim = 8\ntokenizer = \"tests/fixtures/tiny-bert\"\nlowercase = false",
            "`model.static_embedding.lowercase`: is only for a tokenizer that is learnt",
        ),
        ("embedding_dim = 8\ntokenizer_algorithm = \"unigram\"", "`model.static_embedding.tokenizer_algorithm`"),
        ("distill_from = \"tests/fixtures/tiny-bert\"\npca_dims = 1.5", "`model.static_embedding.pca_dims`"),
        ("distill_from = \"tests/fixtures/tiny-bert\"\npca_dims = \"some\"", "`model.static_embedding.pca_dims`"),
        (
            "distill_from = \"tests/fixtures/tiny-bert\"\nsif_coefficient = 1",
            "`model.static_embedding.sif_coefficient`: must be 0 or more and below 1, found 1",
        ),
        (
            "distill_from = \"tests/fixtures/tiny-bert\"\ntoken_remove_pattern = \"(\"",
            "`model.static_embedding.token_remove_pattern`: `(` is not a regular expression: unclosed group",
        ),
    ] {
        let error = plan_error(&recipe(table));
        assert!(error.contains(part), "{table}: {error}");
    }
}

fn plan_error(text: &str) -> String {
    match tallow::recipe::parse(&project("test.toml"), text, &[]) {
        Err(error) => error.to_string(),
        Ok(recipe) => recipe.resolve(&tallow::recipe::Builtin).err().unwrap().to_string(),
    }
}

/// With `TALLOW_SAVED` set to a folder, saved models are kept there for check_saved.py.
fn keep_for_the_reference(name: &str, model: &SentenceTransformer, saved: &Path) {
    let Some(folder) = std::env::var_os("TALLOW_SAVED") else { return };
    let folder = Path::new(&folder).join(format!("static-{name}")).join("none");
    copy_dir(saved, &folder.join("model"));
    let texts = ["The grey cat sleeps on the warm stove.", "Zwei Kinder bauen: 42 Türme!", "the THE tHe"];
    let got = model.encode(&texts, &EncodeOptions::default()).unwrap();
    let lines: Vec<String> = (0..got.rows()).map(|i| serde_json::to_string(got.row(i)).unwrap()).collect();
    std::fs::write(folder.join("embeddings.jsonl"), lines.join("\n")).unwrap();
    std::fs::write(folder.join("texts.txt"), texts.join("\n")).unwrap();
}

fn tallow(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tallow")).args(arguments).output().unwrap()
}

#[test]
fn the_program_distils_without_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, output) = (project("tests/fixtures/tiny-bert"), dir.path().join("static"));
    let [teacher, output] = [&teacher, &output].map(|path| path.to_str().unwrap());
    let call = ["distill", teacher, "--output", output, "--pca-dims", "16", "--json"];
    let answer: Value = serde_json::from_slice(&tallow(&call).stdout).unwrap();
    assert_eq!((&answer["tokens"], &answer["dimension"]), (&597.into(), &16.into()), "{answer}");
    let golden = golden("distill");
    let case = golden["cases"].as_array().unwrap().iter().find(|case| case["options"]["pca_dims"] == 16).unwrap();
    let model = SentenceTransformer::load(Path::new(output)).unwrap();
    let all = values(model.params()[0].value());
    let rows: Vec<f64> = whole(&case["rows"])
        .iter()
        .flat_map(|row| all[*row as usize * 16..(*row as usize + 1) * 16].to_vec())
        .collect();
    assert_close("the saved table", &rows, &numbers(&case["table"]), 1e-5);
    for (call, part) in [
        (&call[..], "there is something at"),
        (&["distill", teacher, "--output", "x", "--pca-dims", "1.5"], "`--pca-dims` must be"),
        (&["distill", teacher, "--output", "x", "--sif-coefficient", "2"], "`--sif-coefficient` must be"),
    ] {
        let output = tallow(call);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.code() == Some(2) && text.contains(part), "{text}");
    }
}

#[test]
fn a_router_without_a_default_route_is_asked_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let (model, texts) = (dir.path().join("model"), dir.path().join("texts.txt"));
    copy_dir(&project("tests/fixtures/modules/router"), &model);
    let file = model.join("router_config.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("\"default_route\": \"document\"", "\"default_route\": null");
    std::fs::write(&file, text.replace("\"allow_empty_key\": true", "\"allow_empty_key\": false")).unwrap();
    std::fs::write(&texts, "a cat\nthe cat\nred house\n").unwrap();
    for verb in ["cluster", "paraphrase-mining"] {
        let call = [verb, model.to_str().unwrap(), "--input", texts.to_str().unwrap()];
        let refused = String::from_utf8(tallow(&call).stderr).unwrap();
        assert!(refused.contains("with `--prompt-name`: `query`, `document`"), "{verb}: {refused}");
        let told = tallow(&[&call[..], &["--prompt-name", "query"]].concat());
        assert!(told.status.success(), "{verb}: {}", String::from_utf8_lossy(&told.stderr));
    }
}
