//! What is left out is decided once, and a saved plan says the same when it is read back.

use std::fs;

use tallow::Error;
use tallow::flow::ModelType;
use tallow::optim::interval::{Every, Interval};
use tallow::optim::steps::Steps;
use tallow::recipe::plan::{Location, ModelSource};
use tallow::recipe::{self, Plan, Registry};

use super::{Place, RECIPE};

#[test]
fn what_is_left_out_is_decided_once() {
    let p = Place::new();
    let (plan, notes) = p.resolve(RECIPE, &[]).unwrap();
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(plan.run_name, "r");
    assert_eq!((plan.args.eval, plan.args.save), (Every::Epoch, Every::Epoch));
    assert_eq!(plan.args.logging_steps, Interval::Fraction(0.05));
    let steps = Steps::new(100, 1, plan.args.num_train_epochs, plan.args.max_steps).unwrap();
    assert_eq!((steps.total, steps.epochs), (100, 1));
    assert_eq!(plan.args.metric_for_best_model, None);
    assert_eq!(serde_json::Value::from(plan.evaluator[0].table()), serde_json::json!({ "name": "sts-dev" }));
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
    assert_eq!(cadence("eval_steps = 0.2\nload_best_model_at_end = true\n"), (every(0.2), every(0.2)));
    assert_eq!(cadence("load_best_model_at_end = true\n"), (Every::Epoch, Every::Epoch));
    assert_eq!(cadence("eval_strategy = \"steps\"\n"), (every(0.1), Every::Epoch));
    assert_eq!(cadence("eval_steps = 10\nsave_steps = 30\n"), (every(10.0), every(30.0)));
    assert_eq!(cadence("eval_steps = 10\nsave_strategy = \"steps\"\n"), (every(10.0), every(10.0)));

    let (plan, _) = p
        .resolve(
            &format!("{RECIPE}metric_for_best_model = \"sts-dev_loss\"\n[eval_dataset]\npath = \"dev.jsonl\"\n"),
            &[],
        )
        .unwrap();
    assert_eq!(plan.args.metric_for_best_model.as_deref(), Some("eval_sts-dev_loss"));
    assert!(!plan.args.greater_is_better);
    assert_eq!(plan.eval_dataset[0].loss, plan.train_dataset[0].loss);
    let (plan, notes) = p.resolve(&RECIPE.replace("base = \"minilm\"", "base = \"org/model\""), &[]).unwrap();
    assert_eq!(plan.model.source, ModelSource::Base(Location::Hub("org/model".to_owned())));
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
    noted("CoSENTLoss", "MultipleNegativesRankingLoss", "`args.batch_sampler = \"no_duplicates\"`");
    noted("CoSENTLoss\"\nscale = 20.0", "BatchAllTripletLoss\"", "`args.batch_sampler = \"group_by_label\"`");
    noted("learning_rate = 2e-5", "warmup_ratio = 0.1", "write `warmup_steps = 0.1`");
    noted("learning_rate = 2e-5", "max_steps = 5", "`args.num_train_epochs` is not used");
    noted("learning_rate = 2e-5", "eval_strategy = \"epoch\"\neval_steps = 5", "`args.eval_steps` is not used");
    noted("learning_rate = 2e-5", "full_determinism = true", "the plan fixes `args.num_threads` at ");
    noted("learning_rate = 2e-5", "lr_scheduler_type = \"constant\"\nwarmup_steps = 5", "write `constant_with_warmup`");
    let fixed = RECIPE.replace("learning_rate = 2e-5", "full_determinism = true\nnum_threads = 2");
    assert_eq!(p.resolve(&fixed, &[]).unwrap().1, Vec::<String>::new());
}

#[test]
fn hard_negatives_allow_a_batch_of_one() {
    let p = Place::new();
    let text = RECIPE.replace("CoSENTLoss", "MultipleNegativesRankingLoss").replace("= 16", "= 1");
    assert!(p.refusal(&text, &[]).0.contains("2 or more with MultipleNegativesRankingLoss"));
    let triplets = text.replace("\"sentence2\"]", "\"sentence2\", \"negative\"]");
    assert!(p.resolve(&triplets, &[]).is_ok());
}

#[test]
fn group_by_label_goes_with_losses_on_classes() {
    let p = Place::new();
    let grouped = format!("{RECIPE}batch_sampler = \"group_by_label\"\n");
    assert!(p.refusal(&grouped, &[]).0.contains("goes by the rows' classes, and CoSENTLoss"));
    let classes = grouped.replace("CoSENTLoss\"\nscale = 20.0", "BatchHardTripletLoss\"");
    assert_eq!(p.resolve(&classes, &[]).unwrap().1, Vec::<String>::new());
    for size in ["= 2\n", "= 15\n"] {
        assert!(p.refusal(&classes.replace("= 16\n", size), &[]).0.contains("an even number of 4 or more"));
    }
}

#[test]
fn several_data_sets_keep_their_own_losses_and_names() {
    let p = Place::new();
    let text = RECIPE.replace(
        "[loss]",
        "[[eval_dataset]]\npath = \"train.jsonl\"\n\
         [[eval_dataset]]\npath = [\"train.jsonl\"]\non_bad_row = \"skip\"\nloss = \"TripletLoss\"\n\
         [[eval_dataset]]\npath = \"*.jsonl\"\nname = \"all\"\n[eval_dataset.loss]\nname = \"CosineSimilarityLoss\"\n[loss]",
    );
    let (plan, _) = p.resolve(&text, &[]).unwrap();
    let losses: Vec<&str> = plan.eval_dataset.iter().map(|d| d.loss.name.as_str()).collect();
    assert_eq!(losses, ["CoSENTLoss", "TripletLoss", "CosineSimilarityLoss"]);
    let names: Vec<&str> = plan.eval_dataset.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names[1], format!("{}-2", names[0]));
    assert_eq!(names[2], "all");
    assert!(plan.eval_dataset[2].path[0].ends_with("*.jsonl"));
}

#[test]
fn plans_survive_saving() {
    let p = Place::new();
    let text = format!(
        "{RECIPE}early_stopping_patience = 3\nload_best_model_at_end = true\neval_steps = 0.1\nsave_total_limit = 2\n\
         max_tokens_per_batch = 4096\ngradient_cache_tokens = 512\n\
         prompts = {{ a = \"text: \" }}\n[model.prompts]\nquery = \"query: \"\n[loss.matryoshka]\ndims = [16, 8]\n"
    );
    let text = text
        .replace("name = \"sts-dev\"", "columns = [\"a\", \"b\"]\nlabel = \"s\"\nlimit = 9\nmain_similarity = \"dot\"");
    let (plan, _) = p.resolve(&text, &[]).unwrap();
    assert_eq!((plan.args.max_tokens_per_batch, plan.args.gradient_cache_tokens), (Some(4096), Some(512)));
    let evaluator = &plan.evaluator[0];
    assert_eq!((evaluator.columns.len(), evaluator.label.as_deref(), evaluator.limit), (2, Some("s"), Some(9)));
    assert_eq!(serde_json::Value::from(evaluator.table()), serde_json::json!({ "main_similarity": "dot" }));
    assert_eq!(
        serde_json::Value::from(plan.train_dataset[0].loss.table()),
        serde_json::json!({
            "scale": 20.0,
            "similarity_fct": "cosine",
            "matryoshka": { "dims": [16, 8], "weights": [1.0, 1.0], "n_dims_per_step": -1 }
        })
    );
    for name in ["plan.toml", "plan.json"] {
        let file = p.0.path().join(name);
        plan.save(&file).unwrap();
        let back = Plan::load(&file).unwrap();
        assert_eq!(back, plan, "{name}");
    }
    let file = p.0.path().join("plan.toml");
    fs::write(&file, "plan_version = 1\n").unwrap();
    assert!(Plan::load(&file).unwrap_err().to_string().contains("is not the plan of a run"));
}

#[test]
fn the_summary_marks_defaults() {
    let p = Place::new();
    let summary = p.resolve(RECIPE, &[]).unwrap().0.summary();
    let line = |name: &str| summary.lines().find(|l| l.split_whitespace().next() == Some(name)).unwrap().to_owned();
    assert!(line("learning_rate").ends_with("  2e-5"), "{summary}");
    assert!(line("weight_decay").ends_with("  0.0 (default)"), "{summary}");
    assert!(line("lr_scheduler_type").ends_with("  linear (default)"), "{summary}");
    assert!(!summary.contains("_tokens"), "what is not limited is not listed\n{summary}");
    let sets = ["args.max_tokens_per_batch=8192", "args.gradient_cache_tokens=2048"];
    let limited = p.resolve(RECIPE, &sets).unwrap().0.summary();
    assert!(limited.contains("max_tokens_per_batch         8192\n"), "{limited}");
    assert!(limited.contains("gradient_cache_tokens        2048\n"), "{limited}");
    assert!(line("loss").ends_with("CoSENTLoss; scale = 20.0, similarity_fct = \"cosine\""), "{summary}");
    let starts: Vec<usize> =
        summary.lines().map(|l| l.find("  ").map_or(0, |i| i + l[i..].len() - l[i..].trim_start().len())).collect();
    assert!(starts.iter().all(|s| *s == starts[0]), "{summary}");
}

#[test]
fn a_registry_fills_in_settings_and_refuses_them() {
    struct Strict;
    impl Registry for Strict {
        fn losses(&self, _: ModelType) -> Vec<&str> {
            vec!["CoSENTLoss"]
        }
        fn evaluators(&self, _: ModelType) -> Vec<&str> {
            vec!["EmbeddingSimilarityEvaluator"]
        }
        fn samplers(&self) -> Vec<&str> {
            vec!["batch_sampler"]
        }
        fn loss_settings(
            &self,
            _: ModelType,
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
    }
    let p = Place::new();
    let plan = recipe::parse(&p.path(), RECIPE, &[]).unwrap().resolve(&Strict).unwrap().0;
    let settings = &plan.train_dataset[0].loss.settings;
    assert_eq!(settings["similarity_fct"], "cos_sim");
    assert!(!settings.contains_key("nothing"));
    let text = RECIPE.replace("scale", "scal");
    let error = recipe::parse(&p.path(), &text, &[]).unwrap().resolve(&Strict).unwrap_err();
    assert!(error.to_string().ends_with("r.toml` line 14: `loss.scal`: CoSENTLoss has no `scal`"), "{error}");
    assert_eq!(error.hint(), Some("did you mean `scale`?"));
}
