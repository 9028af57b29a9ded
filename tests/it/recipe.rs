//! Recipes: what is wrong is named with file, line and key; what is left out is decided once, and can be read back.

use std::fs;
use std::path::{Path, PathBuf};

use tallow::Error;
use tallow::optim::interval::{Every, Interval};
use tallow::recipe::plan::{Location, ModelSource};
use tallow::recipe::{self, NamesOnly, Plan, Registry};

const NAMES: NamesOnly = NamesOnly {
    losses: &[
        "MultipleNegativesRankingLoss",
        "CoSENTLoss",
        "CosineSimilarityLoss",
        "TripletLoss",
    ],
    evaluators: &[
        "InformationRetrievalEvaluator",
        "EmbeddingSimilarityEvaluator",
        "TripletEvaluator",
    ],
    samplers: &["batch_sampler", "no_duplicates"],
};

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
        recipe::parse(&self.path(), text, &sets)?.resolve(&NAMES)
    }

    /// The message and hint of the refusal, the folder's name taken out.
    fn refusal(&self, text: &str, sets: &[&str]) -> (String, String) {
        let error = match self.resolve(text, sets) {
            Ok(_) => panic!("not refused: {sets:?}\n{text}"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), tallow::error::Kind::Usage);
        let folder = format!("{}/", self.0.path().display());
        (
            error.to_string().replace(&folder, ""),
            error.hint().unwrap_or_default().to_owned(),
        )
    }

    /// As `refusal`, of `RECIPE` with `from` replaced.
    fn changed(&self, from: &str, to: &str) -> (String, String) {
        assert!(RECIPE.contains(from), "{from}");
        self.refusal(&RECIPE.replace(from, to), &[])
    }
}

#[test]
fn unknown_keys_are_named_with_line_and_suggestion() {
    let p = Place::new();
    for (from, to, message, hint) in [
        (
            "learning_rate",
            "learning_rat",
            "`r.toml` line 24: `args.learning_rat`: unknown key",
            "did you mean `learning_rate`?",
        ),
        (
            "seed",
            "sed",
            "`r.toml` line 1: `sed`: unknown key",
            "did you mean `seed`?",
        ),
        (
            "dropout",
            "drop_out",
            "`r.toml` line 5: `model.drop_out`: unknown key",
            "did you mean `dropout`?",
        ),
        (
            "label",
            "lable",
            "`r.toml` line 10: `train_dataset.lable`: unknown key",
            "did you mean `label`?",
        ),
        (
            "dropout",
            "learning_rate",
            "`r.toml` line 5: `model.learning_rate`: unknown key",
            "`learning_rate` belongs into the table `[args]`",
        ),
        (
            "learning_rate",
            "lr",
            "`r.toml` line 24: `args.lr`: unknown key",
            "here it is called `learning_rate`",
        ),
        (
            "learning_rate",
            "run_name",
            "`r.toml` line 24: `args.run_name`: unknown key",
            "`run_name` stands at the top of the recipe, before the first table",
        ),
        (
            "learning_rate",
            "push_to_hub",
            "`r.toml` line 24: `args.push_to_hub`: unknown key",
            "`push_to_hub` belongs into the table `[hub]`",
        ),
    ] {
        assert_eq!(p.changed(from, to), (message.to_owned(), hint.to_owned()));
    }
    for foreign in ["deepspeed", "fsdp", "torch_compile", "dataloader_num_workers"] {
        assert!(
            p.changed("learning_rate", foreign).1.contains("no counterpart"),
            "{foreign}"
        );
    }
    assert!(p.changed("learning_rate", "hub_token").1.contains("HF_TOKEN"));
    assert!(
        p.changed("learning_rate", "zebra")
            .1
            .starts_with("known are `num_train_epochs`")
    );
}

#[test]
fn wrong_values_are_named_with_line_and_key() {
    let p = Place::new();
    for (from, to, message) in [
        (
            "2e-5",
            "\"fast\"",
            "`r.toml` line 24: `args.learning_rate`: expected a number, found a string",
        ),
        (
            "2e-5",
            "nan",
            "`r.toml` line 24: `args.learning_rate`: expected a finite number, found NaN",
        ),
        (
            "2e-5",
            "2024-01-01",
            "`r.toml` line 24: `args.learning_rate`: a recipe has no dates",
        ),
        (
            "= 16",
            "= 16.5",
            "`r.toml` line 23: `args.per_device_train_batch_size`: expected a whole number, found a number",
        ),
        (
            "= 16",
            "= -1",
            "`r.toml` line 23: `args.per_device_train_batch_size`: must be 0 or more, found -1",
        ),
        (
            "\"minilm\"",
            "3",
            "`r.toml` line 4: `model.base`: expected a string, found a whole number",
        ),
        (
            "\"train.jsonl\"",
            "true",
            "`r.toml` line 8: `train_dataset.path`: expected a string or a list, found a boolean",
        ),
        (
            "\"train.jsonl\"",
            "[1]",
            "`r.toml` line 8: `train_dataset.path.0`: expected a string, found a whole number",
        ),
        (
            "\"CoSENTLoss\"",
            "\"CosentLoss\"",
            "`r.toml` line 13: `loss.name`: there is no loss `CosentLoss`",
        ),
        (
            "type = \"E",
            "kind = \"E",
            "`r.toml` line 16: `evaluator.0.type`: is required but missing",
        ),
    ] {
        assert_eq!(p.changed(from, to).0, message);
    }
    let (message, _) = p.changed("learning_rate = 2e-5", "max_steps = -2");
    assert_eq!(
        message,
        "`r.toml` line 24: `args.max_steps`: must be -1 or more, found -2"
    );
    let (message, hint) = p.changed("learning_rate = 2e-5", "lr_scheduler_type = \"cosin\"");
    assert_eq!(
        message,
        "`r.toml` line 24: `args.lr_scheduler_type`: there is no `cosin`"
    );
    assert_eq!(hint, "did you mean `cosine`?");
    assert_eq!(p.changed("= 2e-5", "= \"2e-5\"").1, "leave out the quotes");
    let (message, hint) = p.refusal("seed = 1\n", &[]);
    assert!(
        message.starts_with("`r.toml` has 2 problems\n  `model`: is required but missing (add a table"),
        "{message}"
    );
    assert!(
        message.contains("`train_dataset`: is required but missing"),
        "{message}"
    );
    assert_eq!(hint, "");
    let (message, _) = p.changed("seed = 12", "seed = = 12");
    assert!(
        message.starts_with("`r.toml` line 1, column 8: not TOML: "),
        "{message}"
    );
}

#[test]
fn several_problems_come_together_in_the_files_order() {
    let p = Place::new();
    let text = RECIPE
        .replace("learning_rate", "learning_rat")
        .replace("seed = 12", "seed = \"x\"");
    assert_eq!(
        p.refusal(&text, &[]).0,
        "`r.toml` has 2 problems\n  line 1: `seed`: expected a whole number, found a string\n  \
         line 24: `args.learning_rat`: unknown key (did you mean `learning_rate`?)"
    );
    let text = RECIPE.replace("2e-5", "-1.0").replace("dev.jsonl", "gone.jsonl");
    let message = p.refusal(&text, &[]).0;
    assert!(
        message.contains("line 19: `evaluator.0.path`: there is no `gone.jsonl`: looked for"),
        "{message}"
    );
    assert!(
        message.contains("line 24: `args.learning_rate`: must be above 0, found -1"),
        "{message}"
    );
}

#[test]
fn overrides_win_and_are_blamed() {
    let p = Place::new();
    let sets = [
        "args.max_steps=1",
        "evaluator.0.name=other",
        "train_dataset.0.limit=100",
        "loss.scale=10.0",
    ];
    let (plan, _) = p.resolve(RECIPE, &sets).unwrap();
    assert_eq!(plan.args.max_steps, Some(1));
    assert_eq!(plan.evaluator[0].name, "other");
    assert_eq!(plan.train_dataset[0].limit, Some(100));
    assert_eq!(plan.train_dataset[0].loss.settings["scale"], 10.0);
    let (message, hint) = p.refusal(RECIPE, &["args.max_step=1"]);
    assert_eq!(
        message,
        "`r.toml` in `--set args.max_step=1`: `args.max_step`: unknown key"
    );
    assert_eq!(hint, "did you mean `max_steps`?");
    let (message, _) = p.refusal(RECIPE, &["args.learning_rate=fast"]);
    assert_eq!(
        message,
        "`r.toml` in `--set args.learning_rate=fast`: `args.learning_rate`: expected a number, found a string"
    );
    let (message, _) = p.refusal(RECIPE, &["args.learning_rate=0"]);
    assert_eq!(
        message,
        "`r.toml` in `--set args.learning_rate=0`: `args.learning_rate`: must be above 0, found 0"
    );
}

#[test]
fn contradictions_are_refused_with_the_key_and_the_way_out() {
    let p = Place::new();
    for (args, key, part) in [
        ("max_steps = 0", "max_steps", "must be 1 or more, or -1"),
        ("num_train_epochs = 0", "num_train_epochs", "must be above 0"),
        (
            "gradient_accumulation_steps = 0",
            "gradient_accumulation_steps",
            "must be 1 or more",
        ),
        ("adam_beta2 = 1.0", "adam_beta2", "below 1"),
        ("warmup_steps = 1.5", "warmup_steps", "whole number of steps"),
        (
            "warmup_steps = 5\nwarmup_ratio = 0.1",
            "warmup_ratio",
            "another way to say",
        ),
        ("eval_steps = 0", "eval_steps", "must be above 0"),
        ("logging_steps = 0", "logging_steps", "must be above 0"),
        (
            "load_best_model_at_end = true\neval_strategy = \"no\"",
            "load_best_model_at_end",
            "needs evaluations",
        ),
        (
            "load_best_model_at_end = true\nsave_strategy = \"no\"",
            "load_best_model_at_end",
            "saves to fall on",
        ),
        (
            "load_best_model_at_end = true\neval_steps = 20\nsave_steps = 50",
            "save_steps",
            "must be a multiple",
        ),
        (
            "load_best_model_at_end = true\neval_steps = 0.1\nsave_steps = 50",
            "save_steps",
            "one is a fraction",
        ),
        (
            "early_stopping_patience = 3",
            "early_stopping_patience",
            "load_best_model_at_end",
        ),
        (
            "early_stopping_threshold = 0.1",
            "early_stopping_threshold",
            "no effect",
        ),
        (
            "metric_for_best_model = \"loss\"",
            "metric_for_best_model",
            "`eval_loss` needs data",
        ),
        (
            "report_to = [\"tensorboard\"]",
            "report_to",
            "`tensorboard` is not built yet",
        ),
        (
            "gradient_checkpointing = true",
            "gradient_checkpointing",
            "not built yet",
        ),
        ("fp16 = true", "fp16", "CPU"),
        ("batch_sampler = \"no_duplicate\"", "batch_sampler", "no batch sampler"),
        ("num_threads = 0", "num_threads", "must be 1 or more"),
        ("save_total_limit = 0", "save_total_limit", "must be 1 or more"),
        (
            "per_device_train_batch_size = 1",
            "per_device_train_batch_size",
            "2 or more with CoSENTLoss",
        ),
    ] {
        let kept: String = RECIPE.split("[args]").next().unwrap().to_owned();
        let (message, hint) = p.refusal(&format!("{kept}[args]\n{args}\n"), &[]);
        let line = 21 + args.lines().position(|l| l.starts_with(key)).unwrap() + 1;
        assert!(
            message.starts_with(&format!("`r.toml` line {line}: `args.{key}`: ")),
            "{args}: {message}"
        );
        assert!(message.contains(part), "{args}: {message}");
        assert!(!hint.is_empty(), "{args}");
    }
    for (from, to, part) in [
        (
            "dropout = 0.0",
            "dropout = 1.0",
            "line 5: `model.dropout`: must be 0 or more and below 1",
        ),
        (
            "dropout = 0.0",
            "num_labels = 1",
            "line 5: `model.num_labels`: has no meaning for a SentenceTransformer",
        ),
        (
            "base = \"minilm\"",
            "base = \"../x/y/minilm\"",
            "line 4: `model.base`: there is no `../x/y/minilm`: looked for",
        ),
        (
            "base = \"minilm\"",
            "base = \"dev.jsonl\"",
            "`model.base`: `dev.jsonl` is not a directory",
        ),
        (
            "base = \"minilm\"\n",
            "",
            "line 3: `model.base`: is required but missing",
        ),
        (
            "path = \"train.jsonl\"",
            "id = \"sentence-transformers/stsb\"",
            "line 8: `train_dataset.id`: data sets from the Hub",
        ),
        (
            "path = \"train.jsonl\"",
            "path = \"*.csv\"",
            "line 8: `train_dataset.path`: nothing matches `*.csv`",
        ),
        (
            "label = \"score\"",
            "label = \"sentence2\"",
            "line 10: `train_dataset.label`: `sentence2` is among `columns` too",
        ),
        (
            "name = \"CoSENTLoss\"",
            "name = \"MatryoshkaLoss\"",
            "line 13: `loss.name`: MatryoshkaLoss wraps another loss",
        ),
        (
            "path = \"dev.jsonl\"\n",
            "",
            "line 16: `evaluator.0.path`: is required but missing",
        ),
        (
            "seed = 12",
            "run_name = \"a/b\"",
            "line 1: `run_name`: `a/b` can't be the name of a folder",
        ),
        (
            "[args]",
            "[hub]\npush_to_hub = true\n[args]",
            "line 22: `hub.push_to_hub`",
        ),
    ] {
        let (message, hint) = p.changed(from, to);
        assert!(message.contains(part), "{message}");
        assert!(!hint.is_empty(), "{message}");
    }
    let new = "[model.static_embedding]\nembedding_dim = 8\ntokenizer = \"tokenizer.json\"\n[train_dataset]";
    let both = p.changed("[train_dataset]", new).0;
    assert!(
        both.contains("`model.static_embedding`: can't be combined with `model.base`"),
        "{both}"
    );
    let wide = RECIPE
        .replace("base = \"minilm\"\ndropout = 0.0\n", "")
        .replace("[train_dataset]", new)
        .replace("scale = 20.0", "scale = 20.0\n[loss.matryoshka]\ndims = [16, 8]");
    let (message, _) = p.refusal(&wide, &[]);
    assert!(message.contains("`loss.matryoshka.dims`: 16 is wider"), "{message}");
}

#[test]
fn what_is_left_out_is_decided_once() {
    let p = Place::new();
    let (plan, notes) = p.resolve(RECIPE, &[]).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(plan.run_name, "r");
    assert_eq!((plan.args.eval, plan.args.save), (Every::Epoch, Every::Epoch));
    assert_eq!(plan.args.logging_steps, Interval::Fraction(0.05));
    let steps = plan.args.steps(100).unwrap();
    assert_eq!((steps.total, steps.epochs), (100, 1));
    let cadence = plan.args.cadence(steps).unwrap();
    assert!(cadence.due(5).log && !cadence.due(5).evaluate && cadence.due(100).save);
    assert_eq!(plan.args.learning_rate_at(50, 100), 1e-5);
    assert!(plan.args.greater_is_better && plan.args.shuffle && plan.args.num_threads >= 1);
    assert_eq!(plan.model.dropout, Some(0.0));
    let base = p.0.path().canonicalize().unwrap().join("minilm");
    assert_eq!(plan.model.source, ModelSource::Base(Location::Path(base)));
    assert!(plan.output_dir.is_absolute() && plan.train_dataset[0].path[0].is_absolute());

    let cadence = |args: &str| {
        let (plan, _) = p.resolve(&format!("{RECIPE}{args}"), &[]).unwrap();
        (plan.args.eval, plan.args.save)
    };
    let every = |x| Every::Steps(Interval::from_number(x).unwrap());
    assert_eq!(cadence("eval_steps = 0.2\n"), (every(0.2), Every::Epoch));
    assert_eq!(
        cadence("eval_steps = 0.2\nload_best_model_at_end = true\n"),
        (every(0.2), every(0.2))
    );
    assert_eq!(cadence("load_best_model_at_end = true\n"), (Every::Epoch, Every::Epoch));
    assert_eq!(cadence("eval_strategy = \"steps\"\n"), (every(0.1), Every::Epoch));
    assert_eq!(
        cadence("eval_steps = 10\nsave_steps = 30\n"),
        (every(10.0), every(30.0))
    );
    assert_eq!(
        cadence("eval_steps = 10\nsave_strategy = \"steps\"\n"),
        (every(10.0), every(10.0))
    );

    let (plan, _) = p
        .resolve(
            &format!("{RECIPE}metric_for_best_model = \"sts-dev_loss\"\n[eval_dataset]\npath = \"dev.jsonl\"\n"),
            &[],
        )
        .unwrap();
    assert_eq!(plan.args.metric_for_best_model.as_deref(), Some("eval_sts-dev_loss"));
    assert!(!plan.args.greater_is_better);
    assert_eq!(plan.eval_dataset[0].loss, plan.train_dataset[0].loss);
    let (plan, notes) = p
        .resolve(&RECIPE.replace("base = \"minilm\"", "base = \"org/model\""), &[])
        .unwrap();
    assert_eq!(
        plan.model.source,
        ModelSource::Base(Location::Hub("org/model".to_owned()))
    );
    assert!(notes.is_empty());
}

#[test]
fn doubtful_choices_are_noted() {
    let p = Place::new();
    let noted = |from: &str, to: &str, part: &str| {
        let (_, notes) = p.resolve(&RECIPE.replace(from, to), &[]).unwrap();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains(part), "{notes:?}");
    };
    noted("\"dev.jsonl\"", "\"train.jsonl\"", "which the model is trained on");
    noted(
        "CoSENTLoss",
        "MultipleNegativesRankingLoss",
        "`args.batch_sampler = \"no_duplicates\"`",
    );
    noted(
        "learning_rate = 2e-5",
        "warmup_ratio = 0.1",
        "write `warmup_steps = 0.1`",
    );
    noted(
        "learning_rate = 2e-5",
        "max_steps = 5",
        "`args.num_train_epochs` is not used",
    );
    noted(
        "learning_rate = 2e-5",
        "eval_strategy = \"epoch\"\neval_steps = 5",
        "`args.eval_steps` is not used",
    );
    noted(
        "learning_rate = 2e-5",
        "lr_scheduler_type = \"constant\"\nwarmup_steps = 5",
        "write `constant_with_warmup`",
    );
}

#[test]
fn hard_negatives_allow_a_batch_of_one() {
    let p = Place::new();
    let text = RECIPE
        .replace("CoSENTLoss", "MultipleNegativesRankingLoss")
        .replace("= 16", "= 1");
    assert!(
        p.refusal(&text, &[])
            .0
            .contains("2 or more with MultipleNegativesRankingLoss")
    );
    let triplets = text.replace("\"sentence2\"]", "\"sentence2\", \"negative\"]");
    assert!(p.resolve(&triplets, &[]).is_ok());
}

#[test]
fn several_data_sets_keep_their_own_losses_and_names() {
    let p = Place::new();
    let text = RECIPE.replace("[train_dataset]", "[[train_dataset]]").replace(
        "[loss]",
        "[[train_dataset]]\npath = [\"train.jsonl\"]\non_bad_row = \"skip\"\nloss = \"TripletLoss\"\n\
         [[train_dataset]]\npath = \"*.jsonl\"\nname = \"all\"\n[train_dataset.loss]\nname = \"CosineSimilarityLoss\"\n[loss]",
    );
    let (plan, _) = p.resolve(&text, &[]).unwrap();
    let losses: Vec<&str> = plan.train_dataset.iter().map(|d| d.loss.name.as_str()).collect();
    assert_eq!(losses, ["CoSENTLoss", "TripletLoss", "CosineSimilarityLoss"]);
    let names: Vec<&str> = plan.train_dataset.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names[1], format!("{}-2", names[0]));
    assert_eq!(names[2], "all");
    assert!(plan.train_dataset[2].path[0].ends_with("*.jsonl"));
}

#[test]
fn plans_survive_saving() {
    let p = Place::new();
    let text = format!(
        "{RECIPE}early_stopping_patience = 3\nload_best_model_at_end = true\neval_steps = 0.1\nsave_total_limit = 2\n\
         [model.prompts]\nquery = \"query: \"\n[loss.matryoshka]\ndims = [16, 8]\n"
    );
    let (plan, _) = p.resolve(&text, &[]).unwrap();
    let digest = plan.digest().unwrap();
    for name in ["plan.toml", "plan.json"] {
        let file = p.0.path().join(name);
        plan.save(&file).unwrap();
        let back = Plan::load(&file).unwrap();
        assert_eq!(back, plan, "{name}");
        assert_eq!(back.digest().unwrap(), digest);
    }
    let file = p.0.path().join("plan.toml");
    fs::write(&file, "plan_version = 1\n").unwrap();
    assert!(
        Plan::load(&file)
            .unwrap_err()
            .to_string()
            .contains("is not the plan of a run")
    );
}

#[test]
fn the_digest_is_of_the_result() {
    let p = Place::new();
    let digest = |sets: &[&str]| p.resolve(RECIPE, sets).unwrap().0.digest().unwrap();
    let plain = digest(&[]);
    for same in [
        ["run_name=other"],
        ["output_dir=elsewhere"],
        ["args.logging_steps=1"],
        ["args.weight_decay=0.0"],
    ] {
        assert_eq!(digest(&same), plain, "{same:?}");
    }
    for other in [
        ["seed=13"],
        ["args.learning_rate=1e-5"],
        ["loss.scale=10.0"],
        ["train_dataset.limit=10"],
    ] {
        assert_ne!(digest(&other), plain, "{other:?}");
    }
}

#[test]
fn the_summary_marks_defaults() {
    let p = Place::new();
    let summary = p.resolve(RECIPE, &[]).unwrap().0.summary();
    let line = |name: &str| {
        summary
            .lines()
            .find(|l| l.split_whitespace().next() == Some(name))
            .unwrap()
            .to_owned()
    };
    assert!(line("learning_rate").ends_with("  2e-5"), "{summary}");
    assert!(line("weight_decay").ends_with("  0.0 (default)"), "{summary}");
    assert!(line("lr_scheduler_type").ends_with("  linear (default)"), "{summary}");
    assert!(line("loss").ends_with("CoSENTLoss; scale = 20.0"), "{summary}");
    let starts: Vec<usize> = summary
        .lines()
        .map(|l| l.find("  ").map_or(0, |i| i + l[i..].len() - l[i..].trim_start().len()))
        .collect();
    assert!(starts.iter().all(|s| *s == starts[0]), "{summary}");
}

#[test]
fn a_registry_fills_in_settings_and_refuses_them() {
    struct Strict;
    impl Registry for Strict {
        fn losses(&self) -> Vec<&str> {
            NAMES.losses.to_vec()
        }
        fn evaluators(&self) -> Vec<&str> {
            NAMES.evaluators.to_vec()
        }
        fn samplers(&self) -> Vec<&str> {
            NAMES.samplers.to_vec()
        }
        fn loss_settings(
            &self,
            loss: &recipe::plan::LossPlan,
        ) -> Result<serde_json::Map<String, serde_json::Value>, Error> {
            if loss.settings.contains_key("scal") {
                return Err(Error::usage("CoSENTLoss has no `scal`").with_hint("did you mean `scale`?"));
            }
            let mut settings = loss.settings.clone();
            settings.insert("similarity_fct".to_owned(), "cos_sim".into());
            settings.insert("nothing".to_owned(), serde_json::Value::Null);
            Ok(settings)
        }
        fn primary_metric(&self, evaluator: &recipe::plan::EvaluatorPlan) -> Option<String> {
            Some(format!("eval_{}_spearman_cosine", evaluator.name))
        }
    }
    let p = Place::new();
    let plan = recipe::parse(&p.path(), RECIPE, &[])
        .unwrap()
        .resolve(&Strict)
        .unwrap()
        .0;
    let settings = &plan.train_dataset[0].loss.settings;
    assert_eq!(settings["similarity_fct"], "cos_sim");
    assert!(!settings.contains_key("nothing"));
    assert_eq!(
        plan.args.metric_for_best_model.as_deref(),
        Some("eval_sts-dev_spearman_cosine")
    );
    let text = RECIPE.replace("scale", "scal");
    let error = recipe::parse(&p.path(), &text, &[])
        .unwrap()
        .resolve(&Strict)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("r.toml` line 14: `loss.scal`: CoSENTLoss has no `scal`"),
        "{error}"
    );
    assert_eq!(error.hint(), Some("did you mean `scale`?"));
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
            let (plan, notes) = loaded.resolve(&NAMES).unwrap_or_else(|e| panic!("{e}: {:?}", e.hint()));
            assert_eq!(notes, Vec::<String>::new(), "{}", path.display());
            assert_eq!(Some(plan.run_name.as_str()), path.file_stem().and_then(|s| s.to_str()));
            let back: Plan = toml::from_str(&plan.to_toml().unwrap()).unwrap();
            assert_eq!(back, plan);
            println!("{}", plan.summary());
        }
    }
    for name in [
        "stsb-cosent",
        "squad-mnrl",
        "static-from-scratch",
        "nli-triplets-matryoshka",
    ] {
        assert!(seen.contains(&format!("{name}.toml")), "{seen:?}");
    }
}

#[test]
fn odd_shapes_are_refused_in_words() {
    let p = Place::new();
    for (text, part) in [
        ("", "`model`: is required but missing"),
        (
            "[[model]]\nbase = \"minilm\"\n[train_dataset]\npath=\"train.jsonl\"\n",
            "line 1: `model`: expected a table, found a list",
        ),
        ("args = 1\n", "line 1: `args`: expected a table, found a whole number"),
        (
            "loss = 3\n",
            "line 1: `loss`: expected a string or a table, found a whole number",
        ),
        (
            "train_dataset = []\n[model]\nbase=\"minilm\"\nloss=\"x\"\n",
            "line 4: `model.loss`: unknown key",
        ),
        (
            "loss=\"CoSENTLoss\"\ntrain_dataset = []\n[model]\nbase=\"minilm\"\n",
            "line 2: `train_dataset`: is an empty list",
        ),
    ] {
        let (message, hint) = p.refusal(text, &[]);
        assert!(message.contains(part), "{text}: {message} {hint}");
    }
    let crlf = RECIPE.replace('\n', "\r\n").replace("learning_rate", "learning_rat");
    assert_eq!(
        p.refusal(&crlf, &[]).0,
        "`r.toml` line 24: `args.learning_rat`: unknown key"
    );
    let bom = format!("\u{feff}{RECIPE}");
    assert!(p.resolve(&bom, &[]).is_ok());
}

/// Whatever is typed, the answer is a recipe or an error, never a panic.
#[test]
fn garbled_recipes_do_not_panic() {
    let p = Place::new();
    let mut rng = tallow::util::seed::Rng::new(5);
    let pieces = [
        "[", "]", "\"", "=", ".", "0", "-1", "nan", "\n", "é", "[[args]]", "args.", "\\", "{", "}", ",",
    ];
    let (mut fine, mut refused) = (0, 0);
    for _ in 0..3000 {
        let mut letters: Vec<char> = RECIPE.chars().collect();
        for _ in 0..=rng.below(3) {
            let at = rng.below(letters.len() as u64) as usize;
            let end = (at + rng.below(6) as usize).min(letters.len());
            let piece = pieces[rng.below(pieces.len() as u64) as usize];
            letters.splice(at..end, piece.chars());
        }
        let text: String = letters.into_iter().collect();
        let set = format!("{}={}", pieces[rng.below(pieces.len() as u64) as usize], "1");
        match p.resolve(&text, &[]) {
            Ok(_) => fine += 1,
            Err(error) => {
                refused += 1;
                assert!(error.kind() == tallow::error::Kind::Usage, "{error}\n{text}");
            }
        }
        drop(p.resolve(RECIPE, &[&set]));
    }
    assert!(fine > 100 && refused > 1000, "{fine} {refused}");
}
