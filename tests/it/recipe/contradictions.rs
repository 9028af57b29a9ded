//! Settings that are fine one by one and wrong together.

use super::{Place, RECIPE};

#[test]
fn contradictions_are_refused_with_the_key_and_the_way_out() {
    let p = Place::new();
    for (args, key, part) in [
        ("max_steps = 0", "max_steps", "must be 1 or more, or -1"),
        ("num_train_epochs = 0", "num_train_epochs", "must be above 0"),
        ("num_train_epochs = 1e12", "num_train_epochs", "must be 100000 or less"),
        ("num_train_epochs = 1e300", "num_train_epochs", "must be 100000 or less"),
        ("max_steps = 1000000000001", "max_steps", "must be 1000000000000 or less"),
        ("per_device_train_batch_size = 1000001", "per_device_train_batch_size", "must be 1000000 or less"),
        ("per_device_eval_batch_size = 1000001", "per_device_eval_batch_size", "must be 1000000 or less"),
        ("max_tokens_per_batch = 0", "max_tokens_per_batch", "must be 1 or more, found 0"),
        ("gradient_cache_tokens = 0", "gradient_cache_tokens", "must be 1 or more, found 0"),
        ("num_threads = 100000", "num_threads", "must be 1024 or less"),
        ("gradient_accumulation_steps = 0", "gradient_accumulation_steps", "must be 1 or more"),
        ("adam_beta2 = 1.0", "adam_beta2", "below 1"),
        ("warmup_steps = 1.5", "warmup_steps", "whole number of steps"),
        ("warmup_steps = 5\nwarmup_ratio = 0.1", "warmup_ratio", "another way to say"),
        ("eval_steps = 0", "eval_steps", "must be above 0"),
        ("logging_steps = 0", "logging_steps", "must be above 0"),
        ("load_best_model_at_end = true\neval_strategy = \"no\"", "load_best_model_at_end", "needs evaluations"),
        ("load_best_model_at_end = true\nsave_strategy = \"no\"", "load_best_model_at_end", "saves to fall on"),
        ("load_best_model_at_end = true\neval_steps = 20\nsave_steps = 50", "save_steps", "must be a multiple"),
        ("load_best_model_at_end = true\neval_steps = 0.1\nsave_steps = 50", "save_steps", "one is a fraction"),
        ("early_stopping_patience = 3", "early_stopping_patience", "load_best_model_at_end"),
        ("early_stopping_threshold = 0.1", "early_stopping_threshold", "no effect"),
        ("metric_for_best_model = \"loss\"", "metric_for_best_model", "`eval_loss` needs data"),
        ("report_to = [\"tensorbord\"]", "report_to", "there is no tracker `tensorbord`"),
        ("report_to = \"wandb\"\nproject = \" \"", "project", "is empty"),
        (
            "gradient_checkpointing = true\ngradient_cache_tokens = 512",
            "gradient_checkpointing",
            "can't be combined with `args.gradient_cache_tokens`",
        ),
        ("fp16 = true", "fp16", "CPU"),
        ("batch_sampler = \"no_duplicate\"", "batch_sampler", "no batch sampler"),
        ("num_threads = 0", "num_threads", "must be 1 or more"),
        ("save_total_limit = 0", "save_total_limit", "must be 1 or more"),
        ("per_device_train_batch_size = 1", "per_device_train_batch_size", "2 or more with CoSENTLoss"),
    ] {
        let kept: String = RECIPE.split("[args]").next().unwrap().to_owned();
        let (message, hint) = p.refusal(&format!("{kept}[args]\n{args}\n"), &[]);
        let line = 21 + args.lines().position(|l| l.starts_with(key)).unwrap() + 1;
        assert!(message.starts_with(&format!("`r.toml` line {line}: `args.{key}`: ")), "{args}: {message}");
        assert!(message.contains(part), "{args}: {message}");
        assert!(!hint.is_empty(), "{args}");
    }
    for (from, to, part) in [
        ("dropout = 0.0", "dropout = 1.0", "line 5: `model.dropout`: must be 0 or more and below 1"),
        ("dropout = 0.0", "truncate_dim = 0", "line 5: `model.truncate_dim`: is 0"),
        ("dropout = 0.0", "query_length = 32", "`model.query_length`: has no meaning for a SentenceTransformer"),
        (
            "dropout = 0.0",
            "query_expansion = { length = 32 }",
            "`model.query_expansion`: has no meaning for a SentenceTransformer",
        ),
        (
            "dropout = 0.0",
            "similarity_fn_name = \"maxsim\"",
            "`model.similarity_fn_name`: is maxsim, which compares texts that have a vector for each token",
        ),
        ("dropout = 0.0", "embedding_dim = 64", "`model.embedding_dim`: has no meaning for a SentenceTransformer"),
        ("dropout = 0.0", "num_labels = 1", "line 5: `model.num_labels`: has no meaning for a SentenceTransformer"),
        (
            "base = \"minilm\"",
            "base = \"../x/y/minilm\"",
            "line 4: `model.base`: there is no `../x/y/minilm`: looked for",
        ),
        ("base = \"minilm\"", "base = \"dev.jsonl\"", "`model.base`: `dev.jsonl` is not a directory"),
        ("base = \"minilm\"\n", "", "line 3: `model.base`: is required but missing"),
        ("path = \"train.jsonl\"", "id = \"st sb\"", "line 8: `train_dataset.id`: `st sb` is no id of a data set"),
        ("path = \"train.jsonl\"", "path = \"*.csv\"", "line 8: `train_dataset.path`: nothing matches `*.csv`"),
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
        ("path = \"dev.jsonl\"\n", "", "line 16: `evaluator.0.path`: is required but missing"),
        ("seed = 12", "run_name = \"a/b\"", "line 1: `run_name`: `a/b` can't be the name of a folder"),
    ] {
        let (message, hint) = p.changed(from, to);
        assert!(message.contains(part), "{message}");
        assert!(!hint.is_empty(), "{message}");
    }
    let new = "[model.static_embedding]\nembedding_dim = 8\ntokenizer = \"tokenizer.json\"\n[train_dataset]";
    for dim in ["0", "65537", "1000000000000"] {
        let text = RECIPE
            .replace("base = \"minilm\"\ndropout = 0.0\n", "")
            .replace("[train_dataset]", &new.replace("= 8", &format!("= {dim}")));
        let (message, _) = p.refusal(&text, &[]);
        assert!(
            message.ends_with(&format!("`model.static_embedding.embedding_dim`: must be 1 to 65536, found {dim}")),
            "{message}"
        );
    }
    let both = p.changed("[train_dataset]", new).0;
    assert!(both.contains("`model.static_embedding`: can't be combined with `model.base`"), "{both}");
    let wide = RECIPE
        .replace("base = \"minilm\"\ndropout = 0.0\n", "")
        .replace("[train_dataset]", new)
        .replace("scale = 20.0", "scale = 20.0\n[loss.matryoshka]\ndims = [16, 8]");
    let (message, _) = p.refusal(&wide, &[]);
    assert!(message.contains("`loss.matryoshka.dims`: 16 is wider"), "{message}");
}

#[test]
fn what_a_wrapped_loss_needs_is_resolved_and_told_with_its_place() {
    let p = Place::new();
    let with = |loss: &str| RECIPE.replace("name = \"CoSENTLoss\"\nscale = 20.0", loss);
    let wrapped = with("name = \"AdaptiveLayerLoss\"\nloss = { name = \"CachedGISTEmbedLoss\", guide = \"minilm\" }");
    let (plan, notes) = p.resolve(&wrapped, &[]).unwrap();
    let (name, settings) = plan.train_dataset[0].loss.innermost();
    let guide = p.0.path().join("minilm").canonicalize().unwrap();
    assert_eq!((name, settings["guide"].as_str()), ("CachedGISTEmbedLoss", guide.to_str()));
    assert!(
        notes.iter().any(|note| note.contains("CachedGISTEmbedLoss takes the other rows as negatives")),
        "{notes:?}"
    );
    let file = p.0.path().join("plan.toml");
    plan.save(&file).unwrap();
    assert_eq!(tallow::recipe::Plan::load(&file).unwrap(), plan, "settings without a value have no place in a file");

    let other =
        with("name = \"DenoisingAutoEncoderLoss\"\ntie_encoder_decoder = false\ndecoder_name_or_path = \"minilm\"");
    let (plan, _) = p.resolve(&other, &[]).unwrap();
    assert_eq!(plan.train_dataset[0].loss.settings["decoder_name_or_path"].as_str(), guide.to_str());

    let needs = |loss: &str| p.refusal(&with(loss), &[]).0;
    let softmax = needs("name = \"SoftmaxLoss\"");
    assert!(softmax.contains("`loss.num_labels`: is required but missing"), "{softmax}");
    let inner = needs("name = \"AdaptiveLayerLoss\"\nloss = \"SoftmaxLoss\"");
    assert!(inner.contains("`loss.loss.num_labels`: is required but missing"), "{inner}");
    let guide = needs("name = \"Matryoshka2dLoss\"\nloss = \"GISTEmbedLoss\"\ndims = [8]");
    assert!(guide.contains("`loss.loss.guide`: is required but missing"), "{guide}");
    let decoder = needs("name = \"DenoisingAutoEncoderLoss\"\ntie_encoder_decoder = false");
    assert!(decoder.contains("`decoder_name_or_path` is missing"), "{decoder}");
    let gone = needs("name = \"AdaptiveLayerLoss\"\nloss = { name = \"GISTEmbedLoss\", guide = \"./gone\" }");
    assert!(gone.contains("`loss.loss.guide`: there is no `./gone`"), "{gone}");
}
