//! Recipes, scripts and launch files that are rendered: what stands in them, and that recipes train.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tallow::draft::variants::VARIANTS;
use tallow::draft::{self, Wanted};
use tallow::{check, recipe};

use crate::support::project;

const WORDS: [&str; 12] =
    ["red", "green", "wing", "honey", "bee", "river", "stone", "light", "paper", "train", "model", "loss"];

/// A folder with rows of every shape.
struct Place(tempfile::TempDir);

/// `count` words that differ from call to call.
fn words(seed: &mut usize, count: usize) -> String {
    let mut next = || {
        *seed = (*seed * 1_103_515_245 + 12345) % (1 << 31);
        WORDS[*seed / 65536 % WORDS.len()]
    };
    (0..count).map(|_| next()).collect::<Vec<_>>().join(" ")
}

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let mut seed = 7;
        for (split, rows) in [("train", 24), ("dev", 12)] {
            let mut file = |name: &str, row: &mut dyn FnMut(&mut usize, usize) -> Value| {
                let text: String = (0..rows).map(|i| format!("{}\n", row(&mut seed, i))).collect();
                place.file(&format!("{name}-{split}.jsonl"), &text);
            };
            file("pairs", &mut |s, _| serde_json::json!({"question": words(s, 5), "answer": words(s, 8)}));
            file(
                "triplets",
                &mut |s, _| serde_json::json!({"anchor": words(s, 5), "positive": words(s, 7), "negative": words(s, 7)}),
            );
            file(
                "scored",
                &mut |s, i| serde_json::json!({"sentence1": words(s, 5), "sentence2": words(s, 5), "score": i as f64 / 24.0 + 0.01}),
            );
            file(
                "labelled",
                &mut |s, i| serde_json::json!({"query": format!("question {}", i / 4), "passage": words(s, 7), "label": u8::from(i % 4 == 0)}),
            );
            file(
                "margins",
                &mut |s, i| serde_json::json!({"query": words(s, 5), "positive": words(s, 7), "negative": words(s, 7), "score": i as f64 / 7.0}),
            );
            file(
                "lists",
                &mut |s, _| serde_json::json!({"query": words(s, 5), "documents": [words(s, 6), words(s, 6), words(s, 6)], "labels": [1.0, 0.0, 0.5]}),
            );
            let vector: Vec<f64> = (0..32).map(|i| f64::from(i % 5) - 2.0).collect();
            file("taught", &mut |s, _| serde_json::json!({"text": words(s, 6), "label": vector}));
            file(
                "parallel",
                &mut |s, _| serde_json::json!({"english": words(s, 6), "german": words(s, 6), "label": vector}),
            );
        }
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn tallow(&self, arguments: &[&str]) -> Output {
        let empty = self.path().join("hub");
        Command::new(env!("CARGO_BIN_EXE_tallow"))
            .args(arguments)
            .current_dir(self.path())
            .env("HF_HOME", empty)
            .env("TALLOW_CACHE_DIR", self.path().join("cache"))
            .env("HF_HUB_OFFLINE", "1")
            .output()
            .unwrap()
    }

    /// Runs it and returns stdout, after checking that it went well.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.tallow(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The message and hint of a refusal.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.tallow(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Type, variant, rows, held-out rows.
const CASES: [(&str, &str, &str, &str); 14] = [
    ("SentenceTransformer", "default", "pairs-train.jsonl", "pairs-dev.jsonl"),
    ("SentenceTransformer", "matryoshka", "triplets-train.jsonl", "triplets-dev.jsonl"),
    ("SentenceTransformer", "multi_dataset", "pairs-train.jsonl", "scored-dev.jsonl"),
    ("SentenceTransformer", "with_lora", "scored-train.jsonl", "scored-dev.jsonl"),
    ("SentenceTransformer", "distillation", "taught-train.jsonl", "taught-dev.jsonl"),
    ("SentenceTransformer", "make_multilingual", "parallel-train.jsonl", "parallel-dev.jsonl"),
    ("SentenceTransformer", "static_embedding", "pairs-train.jsonl", "pairs-dev.jsonl"),
    ("SentenceTransformer", "mining", "pairs-train.jsonl", "pairs-dev.jsonl"),
    ("CrossEncoder", "default", "labelled-train.jsonl", "labelled-dev.jsonl"),
    ("CrossEncoder", "distillation", "margins-train.jsonl", "labelled-dev.jsonl"),
    ("CrossEncoder", "listwise", "lists-train.jsonl", "labelled-dev.jsonl"),
    ("SparseEncoder", "default", "pairs-train.jsonl", "pairs-dev.jsonl"),
    ("SparseEncoder", "distillation", "margins-train.jsonl", "pairs-dev.jsonl"),
    ("MultiVectorEncoder", "default", "triplets-train.jsonl", "triplets-dev.jsonl"),
];

/// What a variant needs besides.
fn extra(variant: &str) -> &'static [&'static str] {
    match variant {
        "multi_dataset" => &["--set", "train_dataset.1.path=scored-train.jsonl"],
        _ => &[],
    }
}

fn arguments<'a>(case: &(&'a str, &'a str, &'a str, &'a str), more: &[&'a str]) -> Vec<&'a str> {
    let (model_type, variant, data, eval) = *case;
    let mut all = vec!["render", "--model-type", model_type, "--variant", variant, "--data", data, "--eval", eval];
    all.extend(extra(variant));
    all.extend(more);
    all
}

#[test]
fn every_file_is_what_it_was() {
    let place = Place::new();
    for case in &CASES {
        let name = format!("{}_{}", case.0, case.1);
        for (target, file) in [("recipe", "recipe.toml"), ("python", "train.py")] {
            place.done(&arguments(case, &["--target", target, "-o", file, "--force"]));
            insta::assert_snapshot!(format!("{name}_{target}"), place.read(file));
        }
    }
    for (target, file) in [
        ("accelerate", "launch.sh"),
        ("torchrun", "launch.sh"),
        ("jobs", "launch.sh"),
        ("slurm", "launch.sh"),
        ("ray", "launch.py"),
    ] {
        place.done(&arguments(&CASES[0], &["--target", target, "-o", file, "--force"]));
        insta::assert_snapshot!(format!("launch_{target}"), place.read(file));
        assert!(place.read("launch_train.py").contains("trainer.train()"));
    }
}

#[test]
fn what_begins_on_the_hub_passes_too() {
    let place = Place::new();
    for variant in VARIANTS {
        let model_type = variant.model_type.name();
        let own = ["render", "--model-type", model_type, "--variant", variant.name, "--force", "--json"];
        let script = [&own[..], &["--target", "python", "-o", "s.py"]].concat();
        place.done(&script);
        place.done(&["check", "s.py"]);
        let recipe = [&own[..], &["-o", "r.toml"]].concat();
        if variant.hub.is_empty() {
            let told = place.tallow(&recipe);
            assert_eq!(told.status.code(), Some(2), "{}", variant.name);
            assert!(String::from_utf8(told.stdout).unwrap().contains("--data"), "{}", variant.name);
        } else {
            place.done(&recipe);
            place.done(&["check", "r.toml"]);
        }
    }
}

#[test]
fn every_recipe_trains_a_step() {
    let place = Place::new();
    let fixture = |name: &str| project("tests/fixtures").join(name).display().to_string();
    let tokenizer = format!("model.static_embedding.tokenizer={}/tokenizer.json", fixture("tiny-static"));
    for case in &CASES {
        let (base, own): (Option<&str>, &[&str]) = match (case.0, case.1) {
            (_, "static_embedding") => {
                (None, &[&tokenizer, "model.static_embedding.embedding_dim=16", "loss.matryoshka.dims=[16,8]"])
            }
            (_, "matryoshka") => (Some("tiny-bert"), &["loss.matryoshka.dims=[32,16]"]),
            (_, "mining") => (Some("tiny-bert"), &["train_dataset.0.hard_negatives.relative_margin=-9.0"]),
            ("CrossEncoder", _) => (Some("tiny-cross-encoder"), &[]),
            ("MultiVectorEncoder", _) => (Some("tiny-bert"), &["model.embedding_dim=16", "model.document_length=32"]),
            _ => (Some("tiny-bert"), &[]),
        };
        let base = base.map(fixture);
        let mut more = vec!["-o", "r.toml", "--force", "--set", "args.max_steps=1"];
        more.extend(["--set", "args.per_device_train_batch_size=4"]);
        if let Some(base) = &base {
            more.extend(["--base", base]);
        }
        for setting in own {
            more.extend(["--set", setting]);
        }
        place.done(&arguments(case, &more));
        let report: Value = serde_json::from_str(&place.done(&["check", "r.toml", "--json"])).unwrap();
        assert_eq!((&report["ok"], &report["kind"]), (&true.into(), &"recipe".into()), "{report}");
        let run: Value = serde_json::from_str(&place.done(&["run", "r.toml", "--force", "--json"])).unwrap();
        assert_eq!(run["steps"], 1, "{case:?}: {run}");
        assert!(["WIN", "MARGINAL", "REGRESSION"].contains(&run["verdict"].as_str().unwrap()), "{case:?}: {run}");
    }
}

#[test]
fn a_setting_means_the_same_in_both() {
    let place = Place::new();
    place.file(
        "from.json",
        r#"{"model_type": "SentenceTransformer", "settings": {"loss.name": "CachedMultipleNegativesRankingLoss",
            "loss.mini_batch_size": 4, "args.batch_sampler": "no_duplicates", "args.learning_rate": 3e-5,
            "evaluator.0.type": "InformationRetrievalEvaluator", "evaluator.0.name": "mine"}}"#,
    );
    let more =
        ["--from", "from.json", "--set", "args.learning_rate=4e-5", "--set", "seed=3", "--set", "hub.push_to_hub=true"];
    place.done(&arguments(&CASES[0], &[&more[..], &["-o", "r.toml"]].concat()));
    place.done(&arguments(&CASES[0], &[&more[..], &["--target", "python", "-o", "s.py"]].concat()));
    let loaded = recipe::load(&place.path().join("r.toml"), &[]).unwrap().recipe;
    assert_eq!(loaded.args.learning_rate, Some(4e-5), "--set stands over --from");
    assert_eq!(loaded.loss.unwrap().settings["mini_batch_size"], 4);
    assert_eq!(loaded.hub.push_to_hub, Some(true));
    assert_eq!(loaded.evaluator.unwrap().0[0].name.as_deref(), Some("mine"));
    let script = place.read("s.py");
    for part in [
        "CachedMultipleNegativesRankingLoss(model, mini_batch_size=4)",
        "learning_rate=4e-5,",
        "batch_sampler=BatchSamplers.NO_DUPLICATES",
        "SEED = 3",
        "name=\"mine\"",
        "os.environ.get(\"PUSH_TO_HUB\", \"1\")",
        "\"json\", data_files=\"pairs-train.jsonl\"",
        "retrieval(held_out, \"question\", \"answer\")",
    ] {
        assert!(script.contains(part), "{part} is not in\n{script}");
    }
}

#[test]
fn names_are_quoted_for_both_languages() {
    let place = Place::new();
    let odd = "a\"b\\c 'd' {{ x }} #%\u{2028}é";
    let row =
        |i: usize| format!("{}\n", serde_json::json!({odd: format!("text {i}"), "answer\t2": format!("other {i}")}));
    let name = "rows \"1\" 'x' {{ y }}.jsonl";
    place.file(name, &(0..8).map(row).collect::<String>());
    place.file("held out.jsonl", &(8..12).map(row).collect::<String>());
    let own = ["render", "--model-type", "SentenceTransformer", "--data", name, "--eval", "held out.jsonl"];
    let base = "base \"model\"\\x";
    std::fs::create_dir(place.path().join(base)).unwrap();
    place.done(&[&own[..], &["--base", base, "-o", "r.toml"]].concat());
    place.done(&[&own[..], &["--base", base, "--target", "python", "-o", "s.py"]].concat());
    let loaded = recipe::load(&place.path().join("r.toml"), &[]).unwrap().recipe;
    assert_eq!(loaded.model.base.as_deref(), Some(base));
    assert_eq!(loaded.train_dataset.0[0].columns.as_ref().unwrap(), &[odd, "answer\t2"]);
    assert_eq!(loaded.train_dataset.0[0].path.as_ref().unwrap().0, [name]);
    let script = place.read("s.py");
    assert!(script.contains(r#"BASE_MODEL = "base \"model\"\\x""#), "{script}");
    assert!(script.contains(r#""a\"b\\c 'd' {{ x }} #%\u2028é", "answer\t2""#), "{script}");
    let report = check::check(Path::new("s.py"), &script).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    compiles(&place, "s.py");
}

/// With Python's own parser, where there is one.
fn compiles(place: &Place, script: &str) {
    match Command::new("python3").args(["-m", "py_compile", script]).current_dir(place.path()).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(e) => println!("skipped: no Python to compile with ({e})"),
    }
}

#[test]
fn every_script_is_python() {
    let place = Place::new();
    for case in &CASES {
        place.done(&arguments(case, &["--target", "python", "-o", "s.py", "--force"]));
        compiles(&place, "s.py");
    }
    place.done(&arguments(&CASES[0], &["--target", "ray", "-o", "launch.py"]));
    compiles(&place, "launch.py");
}

#[test]
fn shell_files_are_shell() {
    let place = Place::new();
    for target in ["accelerate", "torchrun", "jobs", "slurm"] {
        place.done(&arguments(&CASES[0], &["--target", target, "-o", "l.sh", "--force"]));
        let output = Command::new("bash").args(["-n", "l.sh"]).current_dir(place.path()).output().unwrap();
        assert!(output.status.success(), "{target}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn rows_without_labels_get_those_of_a_teacher() {
    let place = Place::new();
    let fixture = |name: &str| project(&format!("tests/fixtures/{name}")).display().to_string();
    let (bert, reranker) = (fixture("tiny-bert"), fixture("tiny-cross-encoder"));
    place.file("texts.jsonl", "{\"text\": \"red wing\"}\n{\"text\": \"green stone\"}\n{\"text\": \"a river\"}\n");
    for (kind, variant, data, eval, teacher, loss, labels) in [
        ("SentenceTransformer", "distillation", "texts.jsonl", "scored-dev.jsonl", &bert, "MSELoss", "embedding"),
        (
            "SentenceTransformer",
            "distillation",
            "triplets-train.jsonl",
            "triplets-dev.jsonl",
            &reranker,
            "MarginMSELoss",
            "margin",
        ),
        ("CrossEncoder", "distillation", "pairs-train.jsonl", "labelled-dev.jsonl", &reranker, "MSELoss", "score"),
        (
            "SparseEncoder",
            "distillation",
            "triplets-train.jsonl",
            "pairs-dev.jsonl",
            &bert,
            "SparseMarginMSELoss",
            "margin",
        ),
    ] {
        let base = if kind == "CrossEncoder" { &reranker } else { &bert };
        let told = place.done(&[
            "render",
            "--model-type",
            kind,
            "--variant",
            variant,
            "--data",
            data,
            "--eval",
            eval,
            "--base",
            base,
            "--teacher",
            teacher,
            "-o",
            "t.toml",
            "--force",
        ]);
        assert!(told.contains(loss), "{told}");
        let text = place.read("t.toml");
        assert!(text.contains(&format!("labels = \"{labels}\"")), "{text}");
        place.done(&["smoke-test", "t.toml", "--set", "args.per_device_train_batch_size=2"]);
    }
}

#[test]
fn mistakes_say_what_to_do() {
    let place = Place::new();
    let own = |more: &[&'static str]| -> Vec<&'static str> {
        [&["render", "--model-type", "SentenceTransformer", "-o", "r.toml"], more].concat()
    };
    let eval = ["--data", "pairs-train.jsonl", "--eval", "pairs-dev.jsonl"];
    for (more, wanted) in [
        (vec!["--variant", "listwise"], vec!["no variant `listwise`", "CrossEncoder"]),
        (vec!["--variant", "matroshka"], vec!["did you mean `matryoshka`?"]),
        (vec!["--data", "pairs-train.jsonl"], vec!["held-out rows", "--eval"]),
        (vec!["--data", "gone.jsonl", "--eval", "pairs-dev.jsonl"], vec!["gone.jsonl"]),
        (vec!["--data", "lists-train.jsonl", "--eval", "pairs-dev.jsonl"], vec!["a list of texts", "loss.name"]),
        (
            vec!["--variant", "distillation", "--data", "pairs-train.jsonl", "--eval", "pairs-dev.jsonl"],
            vec!["tallow teach", "--teacher"],
        ),
        (vec!["--data", "pairs-train.jsonl", "--eval", "pairs-train.jsonl"], vec!["train-eval-disjoint"]),
        ([&eval[..], &["--set", "args.learning_rat=1"]].concat(), vec!["learning_rat", "learning_rate"]),
        ([&eval[..], &["--set", "args.save_steps=0.15"]].concat(), vec!["save_steps"]),
        ([&eval[..], &["--set", "args.batch_sampler=batch_sampler"]].concat(), vec!["no-duplicates-sampler"]),
        ([&eval[..], &["--set", "evaluator.0.type=Nothing"]].concat(), vec!["Nothing"]),
        ([&eval[..], &["--from", "pairs-dev.jsonl"]].concat(), vec!["pairs-dev.jsonl", "hint: "]),
        (
            [&eval[..], &["--target", "python", "--set", "args.gradient_cache_tokens=100"]].concat(),
            vec!["--target recipe"],
        ),
    ] {
        let told = place.refused(&own(&more));
        assert!(wanted.iter().all(|part| told.contains(part)), "{more:?}: {told}");
        assert!(!place.path().join("r.toml").exists(), "{more:?}");
    }
    let told = place.refused(&["render", "--model-type", "Sentence"]);
    assert!(told.contains("MultiVectorEncoder"), "{told}");
    place.done(&own(&eval));
    let before = place.read("r.toml");
    let told = place.refused(&own(&eval));
    assert!(told.contains("is there already") && told.contains("--force"), "{told}");
    assert_eq!(place.read("r.toml"), before);
    place.done(&own(&[&eval[..], &["--force", "--set", "seed=4"]].concat()));
    assert_ne!(place.read("r.toml"), before);
}

#[test]
fn settings_without_a_file_need_no_folder() {
    let wanted = Wanted { file: "x.toml".into(), set: vec!["args.max_steps=3".to_owned()], ..Wanted::default() };
    let draft = draft::recipe(&wanted).unwrap();
    assert!(draft.text.contains("max_steps = 3\n"), "{}", draft.text);
    assert_eq!(draft.run_name(), "x");
}
