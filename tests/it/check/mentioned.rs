//! What a script only mentions does not run: neither does it keep a rule, nor does it break one.

use std::path::Path;

use tallow::check::check;

use super::{broken, script};

/// The ways to mention statements without running them, by name, to stand in the body of `main`.
fn disguises(statement: &str) -> Vec<(&'static str, String)> {
    let indented = |by: usize| -> String {
        statement.lines().map(|line| format!("{}{line}\n", " ".repeat(by))).collect::<Vec<_>>().concat()
    };
    let comment: String = statement.lines().map(|line| format!("    # {line}\n")).collect();
    vec![
        ("a comment", comment),
        ("a text", format!("    r'''\n{}    '''\n", indented(4))),
        ("a text with a name", format!("    wanted = r'''\n{}    '''\n", indented(4))),
        ("if False", format!("    if False:\n{}", indented(8))),
        ("if not True", format!("    if not True and model:\n{}", indented(8))),
        ("an else that is never reached", format!("    if 1:\n        pass\n    else:\n{}", indented(8))),
        ("while False", format!("    while False:\n{}", indented(8))),
        ("no round of a loop", format!("    for never in []:\n{}", indented(8))),
        ("a function that nobody calls", format!("    def unused():\n{}", indented(8))),
        ("a method that nobody calls", format!("    class Unused:\n        def go(self):\n{}", indented(12))),
        ("behind a return", format!("    def ends():\n        return\n{}\n    ends()\n", indented(8))),
        ("behind a raise", format!("    def ends():\n        raise SystemExit\n{}", indented(8))),
    ]
}

/// Puts `statement` at the beginning of `main`.
fn with(text: &str, statement: &str) -> String {
    let anchor = "    started = time.time()\n";
    assert_eq!(text.matches(anchor).count(), 1);
    text.replace(anchor, &format!("{anchor}{statement}"))
}

fn without(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "{old:?} does not stand once in\n{text}");
    text.replace(old, new)
}

/// The script, the rule, what is taken away from it with what stands there instead, and what is only mentioned.
const NEEDED: [(&str, &str, &str, &str, &str); 18] = [
    ("SentenceTransformer", "trains", "    trainer.train()\n", "", "trainer.train()"),
    (
        "SentenceTransformer",
        "quiet-http",
        "        logging.getLogger(name).setLevel(logging.WARNING)\n",
        "        print(name)\n",
        "for name in (\"httpx\", \"httpcore\", \"huggingface_hub\", \"urllib3\", \"filelock\", \"fsspec\"):\n    \
         logging.getLogger(name).setLevel(logging.WARNING)",
    ),
    (
        "SentenceTransformer",
        "log-tee",
        "        handlers=[logging.StreamHandler(), logging.FileHandler(f\"logs/{RUN_NAME}.log\", encoding=\"utf-8\")],\n",
        "",
        "logging.basicConfig(handlers=[logging.FileHandler(f\"logs/{RUN_NAME}.log\")], force=True)",
    ),
    (
        "SentenceTransformer",
        "smoke-test",
        "        max_steps=1 if SMOKE_TEST else -1,\n",
        "",
        "arguments = SentenceTransformerTrainingArguments(max_steps=1 if SMOKE_TEST else -1)",
    ),
    (
        "SentenceTransformer",
        "baseline-eval",
        "        before = evaluator(model)\n",
        "        before = {}\n",
        "before = NanoBEIREvaluator()(model)",
    ),
    (
        "SentenceTransformer",
        "eval-has-data",
        "        evaluator=evaluator,\n",
        "",
        "trainer = SentenceTransformerTrainer(evaluator=evaluator)",
    ),
    (
        "SentenceTransformer",
        "no-duplicates-sampler",
        "        batch_sampler=BatchSamplers.NO_DUPLICATES,\n",
        "",
        "arguments = SentenceTransformerTrainingArguments(batch_sampler=BatchSamplers.NO_DUPLICATES)",
    ),
    (
        "SentenceTransformer",
        "save-multiple-of-eval",
        "        save_steps=0.1,\n",
        "        save_steps=0.15,\n",
        "arguments = SentenceTransformerTrainingArguments(eval_steps=0.1, save_steps=0.1)",
    ),
    (
        "SentenceTransformer",
        "metric-key-exists",
        "        metric_for_best_model=f\"eval_{metric}\",\n",
        "",
        "arguments = SentenceTransformerTrainingArguments(metric_for_best_model=f\"eval_{metric}\")",
    ),
    (
        "SentenceTransformer",
        "verdict-line",
        "    logging.info(f\"VERDICT: {verdict} | score={score:.4f} | baseline={baseline:.4f} | delta={delta:+.4f}\")\n",
        "",
        "logging.info(f\"VERDICT: {verdict} | score={score:.4f} | baseline={baseline:.4f} | delta={delta:+.4f}\")",
    ),
    ("SentenceTransformer", "experiment-logged", "        log_experiment(\n", "        print(\n", "log_experiment([])"),
    (
        "SentenceTransformer",
        "hub-push-guarded",
        "    except Exception:\n        logging.exception(f\"publishing",
        "    except ImportError:\n        logging.exception(f\"publishing",
        "try:\n    publish(model)\nexcept Exception:\n    pass",
    ),
    ("Lora", "trains", "    trainer.train()\n", "    trainer.evaluate()\n", "trainer.train()"),
    (
        "CrossEncoder",
        "early-stopping",
        "        callbacks=[EarlyStoppingCallback(early_stopping_patience=3)],\n",
        "",
        "trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=3))",
    ),
    (
        "Listwise",
        "identity-activation",
        ", activation_fn=torch.nn.Identity()",
        "",
        "model.activation_fn = torch.nn.Identity()",
    ),
    (
        "SparseEncoder",
        "splade-regularizer",
        "        loss=loss,\n",
        "        loss=SparseMultipleNegativesRankingLoss(model),\n",
        "loss = SpladeLoss(model, loss=SparseMultipleNegativesRankingLoss(model))",
    ),
    (
        "SparseEncoder",
        "active-dims",
        " | corpus_active_dims={corpus_dims:.1f}\"",
        "\"",
        "logging.info(f\"VERDICT: {verdict} | query_active_dims={query_dims:.1f} | corpus_active_dims={corpus_dims:.1f}\")",
    ),
    (
        "MultiVectorEncoder",
        "scale-matches-scoring",
        "scale=1.0",
        "scale=20.0",
        "loss = MultiVectorMultipleNegativesRankingLoss(model, scale=1.0)",
    ),
];

#[test]
fn what_is_only_mentioned_keeps_no_rule() {
    for (kind, rule, old, new, statement) in NEEDED {
        let less = without(&script(kind), old, new);
        let wanted = broken(&check(Path::new("train.py"), &less).unwrap());
        assert!(wanted.contains(rule), "{rule} holds without\n{old}");
        for (way, mention) in disguises(statement) {
            let text = with(&less, &mention);
            let found = check(Path::new("train.py"), &text).unwrap();
            assert_eq!(broken(&found), wanted, "{kind}: {rule}: {way}: {:?}\n{mention}", found.violations);
        }
    }
}

/// What would break rules if it ran.
const HARMFUL: [(&str, &str); 10] = [
    ("SentenceTransformer", "model.push_to_hub(RUN_NAME)"),
    ("SentenceTransformer", "logging.getLogger(\"httpx\").setLevel(logging.INFO)"),
    ("SentenceTransformer", "model = SentenceTransformer(BASE_MODEL, model_kwargs={\"torch_dtype\": torch.bfloat16})"),
    (
        "SentenceTransformer",
        "trainer = SentenceTransformerTrainer(model=model, train_dataset=load_rows(), eval_dataset=load_rows(), \
         loss=MultipleNegativesRankingLoss(model))\ntrainer.train()",
    ),
    ("SentenceTransformer", "loss = CachedMultipleNegativesRankingLoss(model)\nmodel.gradient_checkpointing_enable()"),
    ("SentenceTransformer", "Path(\"logs/experiments.md\").write_text(\"\")"),
    ("Listwise", "model.activation_fn = torch.nn.Sigmoid()"),
    ("CrossEncoder", "trainer.remove_callback(EarlyStoppingCallback)"),
    ("SparseEncoder", "loss = SparseMultipleNegativesRankingLoss(model)\nraise SystemExit"),
    ("MultiVectorEncoder", "loss = MultiVectorMultipleNegativesRankingLoss(model, scale=20.0)"),
];

#[test]
fn what_is_only_mentioned_breaks_no_rule() {
    for (kind, statement) in HARMFUL {
        for (way, mention) in disguises(statement) {
            let found = check(Path::new("train.py"), &with(&script(kind), &mention)).unwrap();
            assert!(found.violations.is_empty(), "{kind}: {way}: {:?}\n{mention}", found.violations);
        }
    }
}
