//! What a recipe cannot say is named with its place and the way out.

use super::{Place, RECIPE};

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
        ("seed", "sed", "`r.toml` line 1: `sed`: unknown key", "did you mean `seed`?"),
        ("dropout", "drop_out", "`r.toml` line 5: `model.drop_out`: unknown key", "did you mean `dropout`?"),
        ("label", "lable", "`r.toml` line 10: `train_dataset.lable`: unknown key", "did you mean `label`?"),
        (
            "dropout",
            "learning_rate",
            "`r.toml` line 5: `model.learning_rate`: unknown key",
            "`learning_rate` belongs into the table `[args]`",
        ),
        ("learning_rate", "lr", "`r.toml` line 24: `args.lr`: unknown key", "here it is called `learning_rate`"),
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
        assert!(p.changed("learning_rate", foreign).1.contains("no counterpart"), "{foreign}");
    }
    assert!(p.changed("learning_rate", "hub_token").1.contains("HF_TOKEN"));
    assert!(p.changed("learning_rate", "zebra").1.starts_with("known are `num_train_epochs`"));
}

#[test]
fn wrong_values_are_named_with_line_and_key() {
    let p = Place::new();
    for (from, to, message) in [
        ("2e-5", "\"fast\"", "`r.toml` line 24: `args.learning_rate`: expected a number, found a string"),
        ("2e-5", "nan", "`r.toml` line 24: `args.learning_rate`: expected a finite number, found NaN"),
        ("2e-5", "2024-01-01", "`r.toml` line 24: `args.learning_rate`: a recipe has no dates"),
        (
            "= 16",
            "= 16.5",
            "`r.toml` line 23: `args.per_device_train_batch_size`: expected a whole number, found a number",
        ),
        ("= 16", "= -1", "`r.toml` line 23: `args.per_device_train_batch_size`: must be 0 or more, found -1"),
        ("\"minilm\"", "3", "`r.toml` line 4: `model.base`: expected a string, found a whole number"),
        (
            "\"train.jsonl\"",
            "true",
            "`r.toml` line 8: `train_dataset.path`: expected a string or a list, found a boolean",
        ),
        ("\"train.jsonl\"", "[1]", "`r.toml` line 8: `train_dataset.path.0`: expected a string, found a whole number"),
        ("\"CoSENTLoss\"", "\"CosentLoss\"", "`r.toml` line 13: `loss.name`: there is no loss `CosentLoss`"),
        ("type = \"E", "kind = \"E", "`r.toml` line 16: `evaluator.0.type`: is required but missing"),
    ] {
        assert_eq!(p.changed(from, to).0, message);
    }
    let (message, _) = p.changed("learning_rate = 2e-5", "max_steps = -2");
    assert_eq!(message, "`r.toml` line 24: `args.max_steps`: must be -1 or more, found -2");
    let (message, hint) = p.changed("learning_rate = 2e-5", "lr_scheduler_type = \"cosin\"");
    assert_eq!(message, "`r.toml` line 24: `args.lr_scheduler_type`: there is no `cosin`");
    assert_eq!(hint, "did you mean `cosine`?");
    assert_eq!(p.changed("= 2e-5", "= \"2e-5\"").1, "leave out the quotes");
    let (message, hint) = p.refusal("seed = 1\n", &[]);
    assert!(
        message.starts_with("`r.toml` has 2 problems\n  `model`: is required but missing (add a table"),
        "{message}"
    );
    assert!(message.contains("`train_dataset`: is required but missing"), "{message}");
    assert_eq!(hint, "");
    let (message, _) = p.changed("seed = 12", "seed = = 12");
    assert!(message.starts_with("`r.toml` line 1, column 8: not TOML: "), "{message}");
}

#[test]
fn several_problems_come_together_in_the_files_order() {
    let p = Place::new();
    let text = RECIPE.replace("learning_rate", "learning_rat").replace("seed = 12", "seed = \"x\"");
    assert_eq!(
        p.refusal(&text, &[]).0,
        "`r.toml` has 2 problems\n  line 1: `seed`: expected a whole number, found a string\n  \
         line 24: `args.learning_rat`: unknown key (did you mean `learning_rate`?)"
    );
    let text = RECIPE.replace("2e-5", "-1.0").replace("dev.jsonl", "gone.jsonl");
    let message = p.refusal(&text, &[]).0;
    assert!(message.contains("line 19: `evaluator.0.path`: there is no `gone.jsonl`: looked for"), "{message}");
    assert!(message.contains("line 24: `args.learning_rate`: must be above 0, found -1"), "{message}");
}

#[test]
fn overrides_win_and_are_blamed() {
    let p = Place::new();
    let sets = ["args.max_steps=1", "evaluator.0.name=other", "train_dataset.0.limit=100", "loss.scale=10.0"];
    let (plan, _) = p.resolve(RECIPE, &sets).unwrap();
    assert_eq!(plan.args.max_steps, Some(1));
    assert_eq!(plan.evaluator[0].name, "other");
    assert_eq!(plan.train_dataset[0].limit, Some(100));
    assert_eq!(plan.train_dataset[0].loss.settings["scale"], 10.0);
    let (message, hint) = p.refusal(RECIPE, &["args.max_step=1"]);
    assert_eq!(message, "`r.toml` in `--set args.max_step=1`: `args.max_step`: unknown key");
    assert_eq!(hint, "did you mean `max_steps`?");
    let (message, _) = p.refusal(RECIPE, &["args.learning_rate=fast"]);
    assert_eq!(
        message,
        "`r.toml` in `--set args.learning_rate=fast`: `args.learning_rate`: expected a number, found a string"
    );
    let (message, _) = p.refusal(RECIPE, &["args.learning_rate=0"]);
    assert_eq!(message, "`r.toml` in `--set args.learning_rate=0`: `args.learning_rate`: must be above 0, found 0");
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
        ("loss = 3\n", "line 1: `loss`: expected a string or a table, found a whole number"),
        ("train_dataset = []\n[model]\nbase=\"minilm\"\nloss=\"x\"\n", "line 4: `model.loss`: unknown key"),
        (
            "loss=\"CoSENTLoss\"\ntrain_dataset = []\n[model]\nbase=\"minilm\"\n",
            "line 2: `train_dataset`: is an empty list",
        ),
    ] {
        let (message, hint) = p.refusal(text, &[]);
        assert!(message.contains(part), "{text}: {message} {hint}");
    }
    let crlf = RECIPE.replace('\n', "\r\n").replace("learning_rate", "learning_rat");
    assert_eq!(p.refusal(&crlf, &[]).0, "`r.toml` line 24: `args.learning_rat`: unknown key");
    let bom = format!("\u{feff}{RECIPE}");
    assert!(p.resolve(&bom, &[]).is_ok());
}

/// Whatever is typed, the answer is a recipe or an error, never a panic.
#[test]
fn garbled_recipes_do_not_panic() {
    let p = Place::new();
    let mut rng = tallow::util::seed::Rng::new(5);
    let pieces = ["[", "]", "\"", "=", ".", "0", "-1", "nan", "\n", "é", "[[args]]", "args.", "\\", "{", "}", ","];
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
    assert!(fine > 50 && refused > 1000, "{fine} {refused}");
}
