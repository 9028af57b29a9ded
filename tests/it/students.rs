//! Students that keep some of a teacher's layers: the reference's numbers, in every kind of model, and what they learn.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tallow::flow::{ActivationFn, Encode, EncodeMultiVector, EncodeOptions, EncodeSparse, ModelType, Predict};
use tallow::model::backbone::prune;
use tallow::model::{ModelOptions, SentenceTransformer};

use crate::support::{assert_close, copy_dir, golden, numbers, project, whole};

fn load(folder: &Path, keep: Option<Vec<usize>>) -> tallow::Result<SentenceTransformer> {
    SentenceTransformer::load_with(folder, &ModelOptions { keep_layers: keep, ..ModelOptions::default() })
}

/// What a model gives for each text or pair.
fn given(model: &SentenceTransformer, texts: &[&str], pairs: &[(&str, &str)]) -> Vec<Vec<f64>> {
    let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    match model.kind() {
        ModelType::SentenceTransformer => {
            let all = model.encode(texts, &EncodeOptions::default()).unwrap();
            (0..all.rows()).map(|row| wide(all.row(row))).collect()
        }
        ModelType::SparseEncoder => {
            let all = model.encode_sparse(texts, &EncodeOptions::default()).unwrap();
            (0..all.rows())
                .map(|row| {
                    let mut dense = vec![0.0; model.dimension()];
                    let (indices, values) = all.row(row);
                    indices.iter().zip(values).for_each(|(i, value)| dense[*i as usize] = f64::from(*value));
                    dense
                })
                .collect()
        }
        ModelType::CrossEncoder => {
            let sigmoid = Some(ActivationFn::Sigmoid);
            let all = model.predict(pairs, sigmoid, &EncodeOptions::default()).unwrap();
            all.data().iter().map(|score| vec![f64::from(*score)]).collect()
        }
        ModelType::MultiVectorEncoder => {
            let prompt = Some(model.named_prompt("document").unwrap_or_default());
            let options = EncodeOptions { task: Some("document".to_owned()), prompt, ..EncodeOptions::default() };
            texts.iter().map(|text| wide(model.encode_multi_vector(&[text], &options).unwrap().data())).collect()
        }
    }
}

#[test]
fn students_are_the_references() {
    let golden = golden("students");
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let texts = strings(&golden["texts"]);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let pairs: Vec<Vec<String>> = golden["pairs"].as_array().unwrap().iter().map(strings).collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    for case in golden["cases"].as_array().unwrap() {
        let folder = project("tests/fixtures").join(case["model"].as_str().unwrap());
        let keep: Vec<usize> = whole(&case["keep"]).into_iter().map(|layer| layer as usize).collect();
        let what = format!("{} {keep:?}", case["model"]);
        let student = load(&folder, Some(keep.clone())).unwrap();
        assert_eq!(student.kind().to_string(), case["kind"].as_str().unwrap());
        assert_eq!(student.layers(), keep.len(), "{what}");
        let got = given(&student, &texts, &pairs);
        let want: Vec<Vec<f64>> = case["values"].as_array().unwrap().iter().map(numbers).collect();
        for (got, want) in got.iter().zip(&want) {
            assert_close(&what, got, want, 1e-5);
        }
        let whole = given(&load(&folder, None).unwrap(), &texts, &pairs);
        assert_ne!(whole, got, "{what}: the layers that are left out do something");
        // saved and loaded without a word of layers it is the same model, and nothing of the others is left
        let dir = tempfile::tempdir().unwrap();
        let saved = dir.path().join("saved");
        student.save(&saved).unwrap();
        let again = load(&saved, None).unwrap();
        assert_eq!((given(&again, &texts, &pairs), again.layers()), (got, keep.len()), "{what}");
        let names = candle_core::safetensors::load(saved.join("model.safetensors"), &candle_core::Device::Cpu).unwrap();
        let numbers = names.keys().flat_map(|name| name.split('.')).filter_map(|part| part.parse::<usize>().ok());
        assert_eq!(numbers.max(), Some(keep.len() - 1), "{what}: {:?}", names.keys());
        if let Some(folder) = std::env::var_os("TALLOW_SAVED") {
            let number = keep.iter().map(usize::to_string).collect::<String>();
            let name = format!("student-{}-{number}", case["model"].as_str().unwrap().replace('/', "-"));
            copy_dir(&saved, &Path::new(&folder).join(name));
        }
    }
}

#[test]
fn rules_are_spelled_out_before_layers_move() {
    let layers = |keep: &[usize], extra: Value| {
        let mut config = json!({
            "model_type": "modernbert", "num_hidden_layers": 7, "vocab_size": 9, "hidden_size": 4, "intermediate_size": 4,
            "num_attention_heads": 2, "max_position_embeddings": 8,
        });
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        prune::Choice::new(&config, "c", keep).unwrap().config(&config).unwrap()
    };
    let local = |config: &Value| -> Vec<bool> {
        let types = config["layer_types"].as_array().unwrap().iter();
        types.map(|name| name == "sliding_attention").collect()
    };
    // by the rule, layers 0, 3 and 6 see everything
    for (keep, kinds, every) in [
        (&[0, 1, 2, 3][..], &[false, true, true, false][..], Some(3)),
        (&[0, 2, 3], &[false, true, false], Some(2)),
        (&[0, 3, 6], &[false, false, false], Some(1)),
        // no rule has this pattern
        (&[0, 3, 4, 5], &[false, false, true, true], None),
    ] {
        let config = layers(keep, json!({}));
        assert_eq!(local(&config), kinds, "{keep:?}");
        assert_eq!(config["global_attn_every_n_layers"].as_u64(), every, "{keep:?}");
        assert_eq!(config["num_hidden_layers"], keep.len());
    }
    let told = ["full_attention", "full_attention", "sliding_attention"].repeat(3);
    let config = layers(&[0, 2, 4], json!({"layer_types": told[..7], "global_attn_every_n_layers": 3}));
    assert_eq!(local(&config), [false, true, false]);
    assert_eq!(config["global_attn_every_n_layers"], 2);
}

fn tallow(arguments: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallow"));
    command.args(arguments).current_dir(dir).env("TALLOW_CACHE_DIR", dir.join("cache")).output().unwrap()
}

fn answer(arguments: &[&str], dir: &Path) -> Value {
    let out = tallow(&[arguments, &["--json"]].concat(), dir);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{arguments:?}: {}{}", text(&out.stdout), text(&out.stderr));
    let last = text(&out.stdout);
    serde_json::from_str(&last).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {last}"))
}

#[test]
fn a_student_comes_nearer_to_its_teacher() {
    let dir = tempfile::tempdir().unwrap();
    let teacher = project("tests/fixtures/tiny-bert").display().to_string();
    let texts: Vec<Value> = std::fs::read_to_string(project("tests/golden/curves_pairs.jsonl"))
        .unwrap()
        .lines()
        .flat_map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            [row["anchor"].clone(), row["positive"].clone()]
        })
        .collect();
    let (held_out, trained) = texts.split_at(texts.len() / 4);
    for (name, rows) in [("train", trained), ("test", held_out)] {
        let lines: Vec<String> = rows.iter().map(|text| json!({"sentence": text}).to_string()).collect();
        std::fs::write(dir.path().join(format!("{name}.jsonl")), lines.join("\n")).unwrap();
        let (input, output) = (format!("{name}.jsonl"), format!("{name}-taught.jsonl"));
        answer(&["teach", &input, "--teacher", &teacher, "--columns", "sentence", "--output", &output], dir.path());
    }
    let recipe = format!(
        "[model]\nbase = \"{teacher}\"\nkeep_layers = [1]\n[train_dataset]\npath = \"train-taught.jsonl\"\ncolumns = \
         [\"sentence\"]\nlabel = \"label\"\n[eval_dataset]\npath = \"test-taught.jsonl\"\ncolumns = [\"sentence\"]\nlabel = \
         \"label\"\n[loss]\nname = \"MSELoss\"\n[args]\nnum_train_epochs = 6\nper_device_train_batch_size = \
         8\nlearning_rate = 1e-3\n"
    );
    std::fs::write(dir.path().join("student.toml"), recipe).unwrap();
    let ran = answer(&["run", "student.toml", "--force"], dir.path());
    let (before, after) = (ran["baseline"].as_f64().unwrap(), ran["score"].as_f64().unwrap());
    assert_eq!(ran["metric"], "eval_loss");
    assert!(after < 0.7 * before && before > 1e-4, "{before} before, {after} after");
    let model = Path::new(ran["model_dir"].as_str().unwrap()).to_path_buf();
    assert_eq!(load(&dir.path().join(model), None).unwrap().layers(), 1);
    // the same student by the verb
    let made = answer(&["distill", &teacher, "--keep-layers", "1", "--output", "student"], dir.path());
    assert_eq!((&made["layers"], &made["dimension"]), (&1.into(), &32.into()), "{made}");
    let (a, b) = (load(&dir.path().join("student"), None).unwrap(), load(Path::new(&teacher), Some(vec![1])).unwrap());
    let encode = |model: &SentenceTransformer| given(model, &["the sailor sells it"], &[]);
    assert_eq!(encode(&a), encode(&b));
}

#[test]
fn layers_that_cannot_be_chosen_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = |name: &str| project(&format!("tests/fixtures/{name}")).display().to_string();
    let (bert, fixed) = (fixture("tiny-bert"), fixture("tiny-static"));
    for (arguments, part) in [
        (&["distill", &bert, "--keep-layers", "0,2", "--output", "x"][..], "tiny-bert/config.json` has 2"),
        (&["distill", &bert, "--keep-layers", "1,0", "--output", "x"], "write `[0, 1]`"),
        (&["distill", &fixed, "--keep-layers", "0", "--output", "x"], "has no layers to choose from"),
        (&["distill", &bert, "--keep-layers", "0", "--pca-dims", "8", "--output", "x"], "cannot be used with"),
    ] {
        let out = tallow(arguments, dir.path());
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && text.contains(part), "{arguments:?}: {text}");
        assert!(!dir.path().join("x").exists());
    }
    for (lines, part) in [
        ("keep_layers = []", "`model.keep_layers` is an empty list"),
        ("keep_layers = [1, 1]", "`model.keep_layers` names layer 1 twice"),
        ("keep_layers = [0, -1]", "`model.keep_layers.1`: must be 0 or more, found -1"),
        ("layers_to_keep = [0]", "`model.layers_to_keep`: unknown key"),
        ("keep_layers = [0]\n[model.lora]\nr = 2", "can't be combined with `model.lora`"),
    ] {
        let text = crate::train::SMALL.replace("[train_dataset]", &format!("{lines}\n[train_dataset]"));
        let error = match tallow::recipe::parse(&project("test.toml"), &text, &[]) {
            Err(error) => error.to_string(),
            Ok(recipe) => recipe.resolve(&tallow::recipe::Builtin).err().unwrap().to_string(),
        };
        assert!(error.replace("`: ", "` ").contains(&part.replace("`: ", "` ")), "{lines}: {error}");
    }
}
