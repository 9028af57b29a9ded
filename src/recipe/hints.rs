//! What to say about keys a recipe does not know: typos, keys in the wrong table, and other trainers' settings.

use serde_json::Value;

use super::validate::Shape;
use crate::util::suggest;

/// Names people know from elsewhere, and what they are called here.
const RENAMED: &[(&str, &str)] = &[
    ("lr", "args.learning_rate"),
    ("epochs", "args.num_train_epochs"),
    ("num_epochs", "args.num_train_epochs"),
    ("batch_size", "args.per_device_train_batch_size"),
    ("train_batch_size", "args.per_device_train_batch_size"),
    ("eval_batch_size", "args.per_device_eval_batch_size"),
    ("max_tokens", "args.max_tokens_per_batch"),
    ("batch_tokens", "args.max_tokens_per_batch"),
    ("evaluation_strategy", "args.eval_strategy"),
    ("evaluation_steps", "args.eval_steps"),
    ("scheduler", "args.lr_scheduler_type"),
    ("lr_scheduler", "args.lr_scheduler_type"),
    ("patience", "args.early_stopping_patience"),
    ("model_name", "model.base"),
    ("model_name_or_path", "model.base"),
    ("max_length", "model.max_seq_length"),
    ("layers_to_keep", "model.keep_layers"),
    ("similarity_function", "model.similarity_fn_name"),
    ("train_data", "train_dataset"),
    ("train", "train_dataset"),
    ("eval_data", "eval_dataset"),
    ("dev_dataset", "eval_dataset"),
    ("evaluators", "evaluator"),
    ("loss_name", "loss.name"),
    ("matryoshka_dims", "loss.matryoshka.dims"),
    ("matryoshka_weights", "loss.matryoshka.weights"),
    ("file", "path"),
    ("data_files", "path"),
    ("hub_repo_id", "hub.hub_model_id"),
];

/// `TrainingArguments` that have no counterpart in a native run on one machine.
const NO_COUNTERPART: &[&str] = &[
    "accelerator_config",
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "auto_find_batch_size",
    "average_tokens_across_devices",
    "batch_eval_metrics",
    "bf16_full_eval",
    "dataloader_in_order",
    "dataloader_multiprocessing_context",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "ddp_backend",
    "ddp_broadcast_buffers",
    "ddp_bucket_cap_mb",
    "ddp_find_unused_parameters",
    "ddp_static_graph",
    "ddp_timeout",
    "debug",
    "deepspeed",
    "disable_tqdm",
    "do_eval",
    "do_predict",
    "do_train",
    "enable_jit_checkpoint",
    "eval_accumulation_steps",
    "eval_do_concat_batches",
    "eval_use_gather_object",
    "fp16_full_eval",
    "fsdp",
    "fsdp_config",
    "gradient_checkpointing_kwargs",
    "ignore_data_skip",
    "include_for_metrics",
    "include_num_input_tokens_seen",
    "label_names",
    "label_smoothing_factor",
    "length_column_name",
    "liger_kernel_config",
    "local_rank",
    "log_level",
    "log_level_replica",
    "log_on_each_node",
    "logging_nan_inf_filter",
    "neftune_noise_alpha",
    "optim_args",
    "optim_target_modules",
    "parallelism_config",
    "prediction_loss_only",
    "remove_unused_columns",
    "restore_callback_states_from_checkpoint",
    "save_on_each_node",
    "save_only_model",
    "skip_memory_metrics",
    "tf32",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
    "torch_empty_cache_steps",
    "use_cache",
    "use_liger_kernel",
];

/// Settings of the Trainer that are fixed here or live somewhere else.
const ELSEWHERE: &[(&str, &str)] = &[
    ("optim", "tallow trains with AdamW, which is what `adamw_torch` means: leave it out"),
    ("logging_strategy", "logging goes by steps: set `args.logging_steps`"),
    ("logging_first_step", "set `args.logging_steps = 1` to log every step"),
    ("eval_on_start", "a run always evaluates before the first step: leave it out"),
    ("data_seed", "one `seed` at the top of the recipe decides all random numbers"),
    ("resume_from_checkpoint", "continue a run with `tallow run RECIPE --resume`"),
    ("hub_token", "a token does not belong into a file: set the environment variable `HF_TOKEN`"),
    ("use_auth_token", "a token does not belong into a file: set the environment variable `HF_TOKEN`"),
    ("prompts", "prompts for training stand in `[args.prompts]`, those for use in `[model.prompts]`"),
    ("lora", "adapters stand in `[model.lora]`"),
    ("device", "tallow computes on the CPU; `args.num_threads` says with how many threads"),
];

/// The way out for an unknown `key` in the table at `path`, whose keys are `known`.
pub(super) fn unknown(schema: &Value, path: &[String], key: &str, known: &[&str]) -> String {
    if let Some((_, text)) = ELSEWHERE.iter().find(|(name, _)| *name == key) {
        return (*text).to_owned();
    }
    let table = path.iter().filter(|p| p.parse::<usize>().is_err()).cloned().collect::<Vec<_>>().join(".");
    let full = |name: &str| {
        if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
    };
    if let Some((_, name)) = RENAMED.iter().find(|(name, _)| *name == key) {
        let last = name.rsplit('.').next().unwrap_or(name);
        if full(last) == *name || known.contains(&last) {
            return format!("here it is called `{last}`");
        }
        return format!("here it is called `{name}`");
    }
    if NO_COUNTERPART.contains(&key) {
        return "this setting of Hugging Face's Trainer has no counterpart in a native run on one machine: leave it out"
            .to_owned();
    }
    for other in TABLES {
        let segments: Vec<String> = other.split('.').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        if *other != table && Shape::at(schema, &segments).has(key) {
            return match *other {
                "" => format!("`{key}` stands at the top of the recipe, before the first table"),
                other => format!("`{key}` belongs into the table `[{other}]`"),
            };
        }
    }
    suggest::hint(key, known.iter().copied())
}

const TABLES: &[&str] = &[
    "args",
    "model",
    "",
    "hub",
    "train_dataset",
    "model.static_embedding",
    "model.sparse_static_embedding",
    "model.sparse_auto_encoder",
    "loss.matryoshka",
];

/// The way out for a key that must be there.
pub(super) fn missing(key: &str) -> Option<&'static str> {
    match key {
        "model" => Some("add a table `[model]` with `base = \"a model directory or Hub id\"`"),
        "train_dataset" => Some("add a table `[[train_dataset]]` with `path = \"your-data.jsonl\"`"),
        "name" => Some("name the loss, as `name = \"MultipleNegativesRankingLoss\"`"),
        "type" => Some("name the evaluator, as `type = \"EmbeddingSimilarityEvaluator\"`"),
        "dims" => Some("name the widths, widest first, as `dims = [384, 256, 128, 64]`"),
        "embedding_dim" => Some("say how wide the vectors are, as `embedding_dim = 256`"),
        "tokenizer" => Some("say where the tokenizer is, as `tokenizer = \"path/to/tokenizer.json\"`"),
        _ => None,
    }
}
