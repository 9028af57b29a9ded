//! Rules over recipes and scripts: each finds what it must and lets pass what it must.

mod mentioned;

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use tallow::check::{RULES, Report, Violation, check};
use tallow::draft::{self, Wanted};
use tallow::flow::ModelType;

use crate::support::project;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    script: String,
    name: String,
    old: String,
    new: String,
    #[serde(default)]
    more: Vec<[String; 2]>,
    breaks: Vec<String>,
    line: Option<String>,
}

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

/// A rendered script that trains on data on the Hub.
fn script(kind: &str) -> String {
    let (model_type, variant) = match kind {
        "SentenceTransformer" => (ModelType::SentenceTransformer, "default"),
        "Lora" => (ModelType::SentenceTransformer, "with_lora"),
        "CrossEncoder" => (ModelType::CrossEncoder, "default"),
        "Listwise" => (ModelType::CrossEncoder, "listwise"),
        "SparseEncoder" => (ModelType::SparseEncoder, "default"),
        "MultiVectorEncoder" => (ModelType::MultiVectorEncoder, "default"),
        other => panic!("{other}"),
    };
    let file = "train.py".into();
    let wanted = Wanted { model_type, variant: Some(variant.to_owned()), file, ..Wanted::default() };
    draft::python(&draft::values(&wanted).unwrap(), &wanted).unwrap()
}

fn edited(mut text: String, case: &Case) -> String {
    let first = [case.old.clone(), case.new.clone()];
    for [old, new] in std::iter::once(&first).chain(&case.more) {
        assert_eq!(
            text.matches(old.as_str()).count(),
            1,
            "{}: {old:?} does not stand there once in\n{text}",
            case.name
        );
        text = text.replace(old.as_str(), new);
    }
    text
}

fn broken(report: &Report) -> BTreeSet<&'static str> {
    report.violations.iter().map(|violation| violation.rule).collect()
}

#[test]
fn edited_scripts_break_what_they_should() {
    let text = std::fs::read_to_string(project("tests/it/check/python.toml")).unwrap();
    let cases: Cases = toml::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    let mut names = BTreeSet::new();
    for case in &cases.case {
        assert!(names.insert(&case.name), "{} is there twice", case.name);
        let text = edited(script(&case.script), case);
        let report = check(Path::new("train.py"), &text).unwrap();
        let wanted: BTreeSet<&str> = case.breaks.iter().map(String::as_str).collect();
        if broken(&report) != wanted {
            wrong.push(format!("{}: {wanted:?} wanted, found {:?}", case.name, report.violations));
            continue;
        }
        if let Some(part) = &case.line {
            let line = report.violations[0].line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
            assert!(line.contains(part), "{}: on line {line:?}", case.name);
        }
        for violation in &report.violations {
            assert!(!violation.fix.is_empty() && !violation.message.is_empty(), "{}", case.name);
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.case.len(), wrong.join("\n"));
    // every rule about scripts is broken somewhere
    let broken: BTreeSet<&str> = cases.case.iter().flat_map(|case| &case.breaks).map(String::as_str).collect();
    for rule in RULES.iter().filter(|rule| rule.id != "valid") {
        assert!(broken.contains(rule.id), "no case breaks `{}`", rule.id);
    }
}

#[test]
fn rendered_scripts_pass() {
    for kind in ["SentenceTransformer", "Lora", "CrossEncoder", "Listwise", "SparseEncoder", "MultiVectorEncoder"] {
        let report = check(Path::new("train.py"), &script(kind)).unwrap();
        assert!(report.violations.is_empty(), "{kind}: {:?}", report.violations);
        assert!(report.passed.len() > 12, "{kind}: {:?}", report.passed);
    }
}

#[test]
fn what_is_no_python_is_refused_with_its_line() {
    let good = script("SentenceTransformer");
    for (old, new, part) in [
        ("def main():", "def main(:", "line "),
        ("    trainer.train()\n", "  trainer.train()\n", "line "),
        ("    started = time.time()\n", "        started = time.time()\n", "line "),
        ("SEED = 12\n", "SEED = \"12\n", "line "),
        ("SEED = 12\n", "SEED = = 12\n", "line "),
        ("    trainer.train()\n", "    trainer.train(\n", "line "),
        ("    trainer.train()\n", "    if trainer\n        trainer.train()\n", "line "),
        ("    trainer.train()\n", "    train trainer.train()\n", "line "),
        ("    trainer.train()\n", "    let x = trainer.train();\n", "line "),
        ("    trainer.train()\n", "    trainer.train())\n", "line "),
    ] {
        let told = check(Path::new("train.py"), &good.replace(old, new));
        let error = told.err().unwrap_or_else(|| panic!("{new:?} is taken for Python"));
        assert!(error.to_string().contains(part) && error.to_string().contains("not Python"), "{error}");
    }
    for text in ["", "\u{feff}x = 1", "def f(): pass\nf()\n", "while True: pass", "x = [", "lambda: (yield)", "\0"] {
        // whatever it is, it is told and not a crash
        let _ = check(Path::new("x.py"), text);
    }
    assert!(check(Path::new("x.md"), "").unwrap_err().hint().unwrap().contains(".toml"));
}

#[test]
fn calls_in_a_circle_end() {
    let text = "from sentence_transformers import SentenceTransformerTrainer\n\
                def a(x):\n    b(x)\n    c(a)\ndef b(x):\n    a(x)\n    c(b)\ndef c(f):\n    f(f)\n    a(c)\n\
                x = x\ny = (y := x)\na(1)\nt = SentenceTransformerTrainer(t)\nt.train()\n\
                print('VERDICT:', x, y)\n";
    let report = check(Path::new("x.py"), text).unwrap();
    assert!(broken(&report).contains("verdict-line"));
}

const RECIPE: &str = r#"model_type = "SentenceTransformer"

[model]
base = "owner/model"

[[train_dataset]]
path = "train.jsonl"
columns = ["question", "answer"]

[loss]
name = "MultipleNegativesRankingLoss"

[[evaluator]]
type = "InformationRetrievalEvaluator"
name = "dev"
path = "dev.jsonl"
columns = ["question", "answer"]

[args]
batch_sampler = "no_duplicates"
eval_steps = 0.1
save_steps = 0.1
load_best_model_at_end = true
"#;

const LATE: [(&str, &str); 2] = [
    ("model_type = \"SentenceTransformer\"", "model_type = \"MultiVectorEncoder\""),
    ("\"InformationRetrievalEvaluator\"", "\"MultiVectorInformationRetrievalEvaluator\""),
];

fn recipe(edits: &[(&str, &str)]) -> (tempfile::TempDir, Report) {
    let dir = tempfile::tempdir().unwrap();
    let rows = |from: usize| (from..from + 4).map(|i| format!("{{\"question\": \"q{i}\", \"answer\": \"a{i}\"}}\n"));
    std::fs::write(dir.path().join("train.jsonl"), rows(0).collect::<String>()).unwrap();
    std::fs::write(dir.path().join("dev.jsonl"), rows(4).collect::<String>()).unwrap();
    std::fs::write(dir.path().join("leaky.jsonl"), rows(3).collect::<String>()).unwrap();
    let mut text = RECIPE.to_owned();
    for (old, new) in edits {
        assert!(text.contains(old), "{old} is not in\n{text}");
        text = text.replace(old, new);
    }
    let report = check(&dir.path().join("r.toml"), &text).unwrap();
    (dir, report)
}

/// Edits of the recipe, the rules they break, and the line of the first.
type RecipeCase<'a> = (Vec<(&'a str, &'a str)>, &'a [&'a str], Option<usize>);

#[test]
fn recipes_break_what_they_should() {
    let late = |more: &[(&'static str, &'static str)]| -> Vec<(&'static str, &'static str)> {
        LATE.iter().chain(more).copied().collect()
    };
    let loss = "name = \"MultipleNegativesRankingLoss\"";
    let evaluator = "type = \"InformationRetrievalEvaluator\"";
    let kind = LATE[0].0;
    let reranker = |more: &[(&'static str, &'static str)]| -> Vec<(&'static str, &'static str)> {
        let own = [
            (kind, "model_type = \"CrossEncoder\""),
            (evaluator, "type = \"CrossEncoderCorrelationEvaluator\"\nlabel = \"score\""),
        ];
        own.iter().chain(more).copied().collect()
    };
    let cases: Vec<RecipeCase<'_>> = vec![
        (vec![], &[], None),
        (vec![("eval_steps = 0.1", "eval_step = 0.1")], &["valid"], Some(21)),
        (vec![("path = \"dev.jsonl\"", "path = \"gone.jsonl\"")], &["valid"], Some(16)),
        (vec![("batch_sampler = \"no_duplicates\"\n", "")], &["no-duplicates-sampler"], None),
        (vec![("\"no_duplicates\"", "\"batch_sampler\"")], &["no-duplicates-sampler"], Some(20)),
        (vec![("save_steps = 0.1", "save_steps = 0.15")], &["save-multiple-of-eval"], Some(22)),
        (vec![("save_steps = 0.1", "save_strategy = \"epoch\"")], &["save-multiple-of-eval"], Some(23)),
        (
            vec![("load_best_model_at_end = true", "metric_for_best_model = \"eval_dev_cosine_ndgc@10\"")],
            &["metric-key-exists"],
            Some(23),
        ),
        (vec![("load_best_model_at_end = true", "metric_for_best_model = \"dev_cosine_ndcg@10\"")], &[], None),
        (
            vec![("load_best_model_at_end = true", "metric_for_best_model = \"eval_loss\"")],
            &["metric-key-exists"],
            Some(23),
        ),
        (vec![("path = \"dev.jsonl\"", "path = \"train.jsonl\"")], &["train-eval-disjoint"], Some(16)),
        (vec![("path = \"dev.jsonl\"", "path = \"leaky.jsonl\"")], &["train-eval-disjoint"], Some(16)),
        (
            vec![
                (loss, "name = \"CachedMultipleNegativesRankingLoss\""),
                ("eval_steps = 0.1", "eval_steps = 0.1\ngradient_checkpointing = true"),
            ],
            &["cached-loss-without-checkpointing"],
            Some(22),
        ),
        (
            vec![
                (
                    "[[evaluator]]\ntype = \"InformationRetrievalEvaluator\"\nname = \"dev\"\npath = \"dev.jsonl\"\ncolumns = [\"question\", \"answer\"]\n",
                    "",
                ),
                ("eval_steps = 0.1\nsave_steps = 0.1\nload_best_model_at_end = true\n", ""),
            ],
            &["baseline-eval"],
            None,
        ),
        (
            vec![
                (kind, "model_type = \"SparseEncoder\""),
                (loss, "name = \"SparseMultipleNegativesRankingLoss\""),
                (evaluator, "type = \"SparseInformationRetrievalEvaluator\""),
            ],
            &["splade-regularizer"],
            Some(10),
        ),
        (
            vec![
                (kind, "model_type = \"SparseEncoder\""),
                (
                    loss,
                    "name = \"SparseMultipleNegativesRankingLoss\"\nsplade = { document_regularizer_weight = 1e-3, query_regularizer_weight = 1e-3 }",
                ),
                (evaluator, "type = \"SparseInformationRetrievalEvaluator\""),
            ],
            &[],
            None,
        ),
        (late(&[(loss, "name = \"MultiVectorMultipleNegativesRankingLoss\"")]), &[], None),
        (
            late(&[(loss, "name = \"MultiVectorMultipleNegativesRankingLoss\"\nscale = 20.0")]),
            &["scale-matches-scoring"],
            Some(12),
        ),
        (
            late(&[(
                loss,
                "name = \"MultiVectorMultipleNegativesRankingLoss\"\nscale = 1.0\nsimilarity_fct = \"meanmaxsim\"",
            )]),
            &["scale-matches-scoring"],
            Some(12),
        ),
        (reranker(&[]), &[], None),
        (
            reranker(&[("eval_steps = 0.1", "eval_steps = 0.1\nearly_stopping_patience = 1")]),
            &["early-stopping"],
            Some(23),
        ),
        (
            reranker(&[("base = \"owner/model\"", "base = \"owner/model\"\nactivation_fn = \"Sigmoid\"")]),
            &["identity-activation"],
            Some(5),
        ),
    ];
    let (mut seen, mut broken) = (BTreeSet::new(), BTreeSet::new());
    for (edits, wanted, line) in cases {
        let (_dir, report) = recipe(&edits);
        seen.extend(report.passed.iter().copied());
        broken.extend(wanted.iter().copied());
        let found: Vec<&str> = report.violations.iter().map(|violation| violation.rule).collect();
        assert_eq!(found, wanted, "{edits:?}: {:?}", report.violations);
        if line.is_some() {
            assert_eq!(report.violations[0].line, line, "{edits:?}: {:?}", report.violations);
        }
        for violation in &report.violations {
            assert!(!violation.fix.is_empty() && !violation.message.is_empty(), "{violation:?}");
        }
    }
    assert_eq!(seen, broken, "rules that are looked at, and rules that a case breaks");
}

#[test]
fn a_run_keeps_its_contracts() {
    let (_dir, report) = recipe(&[]);
    for id in ["quiet-http", "log-tee", "smoke-test", "verdict-line", "experiment-logged", "hub-push-guarded"] {
        assert!(report.kept_by_the_run.contains(&id), "{id}");
    }
    assert!(!report.passed.contains(&"active-dims") && !report.kept_by_the_run.contains(&"active-dims"));
}

/// A rule's row on the page: what has to hold, and of the first case that breaks it what is said and how it is mended.
fn row(id: &str, summary: &str, violation: &Violation) -> String {
    // a bar would end the table's cell
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    format!("| `{id}` | {} | {} | {} |", cell(summary), cell(&violation.message), cell(&violation.fix))
}

#[test]
fn the_page_of_rules_is_complete() {
    let text = std::fs::read_to_string(project("tests/it/check/python.toml")).unwrap();
    let cases: Cases = toml::from_str(&text).unwrap();
    let (_dir, refused) = recipe(&[("eval_steps = 0.1", "eval_step = 0.1")]);
    let mut table = String::new();
    let mut ids = BTreeSet::new();
    for rule in RULES {
        assert!(ids.insert(rule.id), "{} is there twice", rule.id);
        let case = cases.case.iter().find(|case| case.breaks.iter().any(|id| id == rule.id));
        let report = match case {
            Some(case) => check(Path::new("train.py"), &edited(script(&case.script), case)).unwrap(),
            None => refused.clone(),
        };
        let violation = report.violations.iter().find(|violation| violation.rule == rule.id).unwrap();
        table.push_str(&format!("{}\n", row(rule.id, rule.summary, violation)));
    }
    let file = project("references/checks.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let head = "|---|---|---|---|\n";
    let (before, after) = page.split_once(head).unwrap();
    let (_, after) = after.split_once("\n## ").unwrap();
    let wanted = format!("{before}{head}{table}\n## {after}");
    if std::env::var_os("UPDATE_REFERENCES").is_some() {
        std::fs::write(&file, &wanted).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written == wanted, "write it again: UPDATE_REFERENCES=1 cargo test --test it the_page_of_rules");
}
