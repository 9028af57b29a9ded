//! Recipes: what is wrong is named with file, line and key; what is left out is decided once, and can be read back.

mod contradictions;
mod plan;
mod refused;

use std::fs;
use std::path::{Path, PathBuf};

use tallow::Error;
use tallow::recipe::{self, Builtin, Plan};

const RECIPE: &str = r#"seed = 12

[model]
base = "minilm"
dropout = 0.0

[train_dataset]
path = "train.jsonl"
columns = ["sentence1", "sentence2"]
label = "score"

[loss]
name = "CoSENTLoss"
scale = 20.0

[[evaluator]]
type = "EmbeddingSimilarityEvaluator"
name = "sts-dev"
path = "dev.jsonl"

[args]
num_train_epochs = 1
per_device_train_batch_size = 16
learning_rate = 2e-5
"#;

/// A folder with everything `RECIPE` names.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("minilm")).unwrap();
        for name in ["train.jsonl", "dev.jsonl", "tokenizer.json"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("r.toml")
    }

    fn resolve(&self, text: &str, sets: &[&str]) -> Result<(Plan, Vec<String>), Error> {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        recipe::parse(&self.path(), text, &sets)?.resolve(&Builtin)
    }

    /// The message and hint of the refusal, the folder's name taken out.
    fn refusal(&self, text: &str, sets: &[&str]) -> (String, String) {
        let error = match self.resolve(text, sets) {
            Ok(_) => panic!("not refused: {sets:?}\n{text}"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), tallow::error::Kind::Usage);
        let folder = format!("{}/", self.0.path().display());
        (error.to_string().replace(&folder, ""), error.hint().unwrap_or_default().to_owned())
    }

    /// As `refusal`, of `RECIPE` with `from` replaced.
    fn changed(&self, from: &str, to: &str) -> (String, String) {
        assert!(RECIPE.contains(from), "{from}");
        self.refusal(&RECIPE.replace(from, to), &[])
    }
}

#[test]
fn every_key_has_help() {
    fn walk(value: &serde_json::Value, path: &str, bare: &mut Vec<String>) {
        for (name, property) in value["properties"].as_object().into_iter().flatten() {
            let said = property["description"].is_string() || property.get("$ref").is_some();
            if !said {
                bare.push(format!("{path}.{name}"));
            }
        }
        for (name, definition) in value["$defs"].as_object().into_iter().flatten() {
            walk(definition, name, bare);
        }
    }
    let mut bare = Vec::new();
    walk(&recipe::json_schema(), "", &mut bare);
    assert_eq!(bare, Vec::<String>::new());
}

#[test]
fn the_ready_recipes_resolve() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let there = root.join("../shared/data").is_dir() && root.join("../shared/models/all-MiniLM-L6-v2").is_dir();
    if !there {
        println!("skipped: the paths in examples/*.toml are not checked, ../shared is not there");
    }
    let mut seen = Vec::new();
    for entry in fs::read_dir(root.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let loaded = recipe::load(&path, &[]).unwrap_or_else(|e| panic!("{e}: {:?}", e.hint()));
        seen.push(path.file_name().unwrap().to_string_lossy().into_owned());
        if there {
            let (plan, notes) = loaded.resolve(&Builtin).unwrap_or_else(|e| panic!("{e}: {:?}", e.hint()));
            assert_eq!(notes, Vec::<String>::new(), "{}", path.display());
            assert_eq!(Some(plan.run_name.as_str()), path.file_stem().and_then(|s| s.to_str()));
            let back: Plan = toml::from_str(&plan.to_toml().unwrap()).unwrap();
            assert_eq!(back, plan);
            println!("{}", plan.summary());
        }
    }
    for name in ["stsb-cosent", "squad-mnrl", "static-from-scratch", "nli-triplets-matryoshka"] {
        assert!(seen.contains(&format!("{name}.toml")), "{seen:?}");
    }
}
