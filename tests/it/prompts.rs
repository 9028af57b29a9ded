//! Prompts are one setting: what training puts in front of texts is what evaluators and the saved model have.

use tallow::flow::{Encode, EncodeOptions};
use tallow::model::SentenceTransformer;
use tallow::recipe::{self, Builtin};
use tallow::train::{self, Event, Options, Outcome};

use crate::support::{copy_dir, project};
use crate::train::plan;

/// Two data sets when `scored` is given.
fn text(base: &str, model: &str, prompts: &str, scored: bool) -> String {
    let second = "[[train_dataset]]\nname = \"scored\"\npath = \"tests/golden/curves_scored.jsonl\"\nlabel = \"score\"\n\
                  limit = 16\nloss = { name = \"CoSENTLoss\" }\n";
    format!(
        r#"
        seed = 3
        [model]
        base = "{base}"
        dropout = 0.0
        {model}
        [[train_dataset]]
        name = "pairs"
        path = "tests/golden/curves_pairs.jsonl"
        columns = ["anchor", "positive"]
        limit = 32
        {}
        [loss]
        name = "MultipleNegativesRankingLoss"
        [[evaluator]]
        type = "InformationRetrievalEvaluator"
        path = "tests/golden/curves_pairs.jsonl"
        columns = ["anchor", "positive"]
        limit = 24
        [args]
        max_steps = 2
        per_device_train_batch_size = 16
        learning_rate = 1e-3
        logging_steps = 1
        save_strategy = "no"
        {prompts}
        "#,
        if scored { second } else { "" }
    )
}

struct Trained {
    outcome: Outcome,
    model: SentenceTransformer,
    losses: Vec<f64>,
    warnings: Vec<String>,
}

fn trained(text: &str) -> tallow::Result<Trained> {
    let dir = tempfile::tempdir().unwrap();
    let (mut losses, mut warnings) = (Vec::new(), Vec::new());
    let outcome =
        train::run(&plan(text, &[]), dir.path(), &Options::default(), &mut |event: &Event<'_>| match event {
            Event::Log(line) => losses.push(line.loss),
            Event::Warning(text) => warnings.push((*text).to_owned()),
            _ => {}
        })?;
    let model = SentenceTransformer::load(&outcome.model_dir).unwrap();
    Ok(Trained { outcome, model, losses, warnings })
}

const TINY: &str = "tests/fixtures/tiny-bert";
const BOTH: &str = "prompts = { anchor = \"the question: \", positive = \"the answer: \" }";

/// Those that are not empty, which is as good as none.
fn prompts(model: &SentenceTransformer) -> Vec<(&str, &str)> {
    model.prompts().iter().filter(|(_, text)| !text.is_empty()).map(|(n, text)| (n.as_str(), text.as_str())).collect()
}

#[test]
fn training_evaluation_and_the_saved_model_have_the_same() {
    let with = trained(&text(TINY, "", BOTH, false)).unwrap();
    assert_eq!(prompts(&with.model), [("document", "the answer: "), ("query", "the question: ")]);
    assert_eq!(with.model.default_prompt_name(), None);
    assert!(with.warnings.is_empty(), "{:?}", with.warnings);
    let without = trained(&text(TINY, "", "", false)).unwrap();
    assert!(prompts(&without.model).is_empty());
    assert_ne!(with.losses[0], without.losses[0], "training puts them in front");
    // the evaluator, too, without being told, before training as after it
    let told = text(TINY, "", "", false)
        .replace("limit = 24", "limit = 24\nquery_prompt = \"the question: \"\ncorpus_prompt = \"the answer: \"");
    let told = trained(&told).unwrap();
    assert_eq!(with.outcome.baseline_metrics.values, told.outcome.baseline_metrics.values);
    assert_ne!(with.outcome.baseline_metrics.values, without.outcome.baseline_metrics.values);
    // and an evaluator's own settings win
    let own =
        text(TINY, "", BOTH, false).replace("limit = 24", "limit = 24\nquery_prompt = \"\"\ncorpus_prompt = \"\"");
    let own = trained(&own).unwrap();
    assert_eq!(own.outcome.baseline_metrics.values, without.outcome.baseline_metrics.values);
}

#[test]
fn the_four_forms_and_a_data_sets_own_give_the_same_losses() {
    let losses = |prompts: &str, scored: bool| trained(&text(TINY, "", prompts, scored)).unwrap().losses;
    let flat = losses(BOTH, false);
    let nested = losses("prompts = { pairs = { anchor = \"the question: \", positive = \"the answer: \" } }", false);
    assert_eq!(flat, nested);
    let own = text(TINY, "", "", false)
        .replace("limit = 32", "limit = 32\nprompts = { anchor = \"the question: \", positive = \"the answer: \" }");
    assert_eq!(flat, trained(&own).unwrap().losses);
    let one = losses("prompts = \"the text: \"", false);
    assert_eq!(one, losses("prompts = { anchor = \"the text: \", positive = \"the text: \" }", false));
    assert_ne!(one, flat);
    // of several data sets each has its own
    let apart = losses("prompts = { pairs = \"the text: \" }", true);
    assert_eq!(apart, losses("prompts = { anchor = \"the text: \", positive = \"the text: \" }", true));
    assert_ne!(apart, losses("prompts = \"the text: \"", true));
}

#[test]
fn one_prompt_for_all_is_the_models_default() {
    let model = trained(&text(TINY, "", "prompts = \"the text: \"", false)).unwrap().model;
    assert_eq!(model.default_prompt(), Some("the text: "));
    assert_eq!(prompts(&model), [("default", "the text: "), ("document", "the text: "), ("query", "the text: ")]);
    let encode = |text: &str, prompt: Option<&str>| {
        let options = EncodeOptions { prompt: prompt.map(str::to_owned), ..EncodeOptions::default() };
        model.encode(&[text], &options).unwrap().data().to_vec()
    };
    assert_eq!(encode("a chair", None), encode("the text: a chair", Some("")));
}

#[test]
fn what_the_recipe_says_of_the_model_stays() {
    let given = "prompts = { query = \"mine: \", document = \"\" }";
    let trained = trained(&text(TINY, given, BOTH, false)).unwrap();
    assert_eq!(prompts(&trained.model), [("query", "mine: ")]);
    assert!(trained.warnings.is_empty(), "{:?}", trained.warnings);
}

#[test]
fn a_base_models_own_prompts_are_not_forgotten_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    copy_dir(&project(TINY), &base);
    let config = base.join("config_sentence_transformers.json");
    let json = std::fs::read_to_string(&config).unwrap();
    let json = json
        .replace("\"document\": \"\"", "\"document\": \"passage: \"")
        .replace("\"query\": \"\"", "\"query\": \"query: \"");
    std::fs::write(&config, json).unwrap();
    let base = base.display().to_string();
    // trained without them, as in the reference, and said
    let silent = trained(&text(&base, "", "", false)).unwrap();
    let [warning] = silent.warnings.as_slice() else { panic!("{:?}", silent.warnings) };
    let set = "prompts = { anchor = \"query: \", positive = \"passage: \" }";
    assert!(warning.contains(&format!("`args.{set}`")), "{warning}");
    assert_eq!(silent.losses, trained(&text(TINY, "", "", false)).unwrap().losses);
    // what it says to set works, and nothing is left to say
    let heeded = trained(&text(&base, "", set, false)).unwrap();
    assert!(heeded.warnings.is_empty(), "{:?}", heeded.warnings);
    assert_ne!(heeded.losses, silent.losses);
    assert_eq!(prompts(&heeded.model), [("document", "passage: "), ("query", "query: ")]);
    let on_purpose = trained(&text(&base, "", "prompts = \"\"", false)).unwrap();
    assert!(on_purpose.warnings.is_empty(), "{:?}", on_purpose.warnings);
    // other prompts than the model's change it
    let other = trained(&text(&base, "", BOTH, false)).unwrap();
    assert!(other.warnings[0].contains("`query` from \"query: \" to \"the question: \""), "{:?}", other.warnings);
    assert_eq!(prompts(&other.model), [("document", "the answer: "), ("query", "the question: ")]);
}

#[test]
fn roles_that_are_not_clear_are_named() {
    let both = "prompts = { pairs = { anchor = \"a: \" }, scored = { sentence1 = \"b: \" } }";
    let trained = trained(&text(TINY, "", both, true)).unwrap();
    assert!(prompts(&trained.model).is_empty());
    let [warning] = trained.warnings.as_slice() else { panic!("{:?}", trained.warnings) };
    assert!(warning.contains("is not clear (anchor \"a: \", positive \"\", sentence1 \"b: \""), "{warning}");
    assert!(warning.contains("`[model.prompts]`"), "{warning}");
}

#[test]
fn a_key_that_is_nothing_is_refused() {
    let error = trained(&text(TINY, "", "prompts = { ancor = \"a: \" }", false)).err().unwrap();
    assert!(error.to_string().contains("`args.prompts.ancor`"), "{error}");
    assert!(error.hint().unwrap().contains("did you mean `anchor`?"), "{:?}", error.hint());
    for (prompts, part, hint) in [
        ("prompts = { pair = { anchor = \"a: \" } }", "there is no data set `pair`", "did you mean `pairs`?"),
        ("prompts = { pairs = { ancor = \"a: \" } }", "there is no column `ancor`", "did you mean `anchor`?"),
        (
            "prompts = { pairs = { anchor = \"a: \" }, positive = \"b: \" }",
            "`args.prompts.positive`",
            "data set's table",
        ),
        ("prompts = 3", "expected a string or a table", ""),
    ] {
        let loaded = recipe::parse(&project("test.toml"), &text(TINY, "", prompts, false), &[]);
        let error = loaded.and_then(|loaded| loaded.resolve(&Builtin)).err().unwrap();
        let said = format!("{error} {}", error.hint().unwrap_or_default());
        assert!(said.contains(part) && said.contains(hint), "{prompts}: {said}");
    }
}
