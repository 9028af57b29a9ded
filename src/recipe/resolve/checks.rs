//! Settings that are fine one by one and wrong together, and what is not to be had at all.

use std::path::Path;

use super::Resolver;
use crate::flow::{LabelKind, ModelType};
use crate::optim::interval::{Every, Interval};
use crate::optim::schedule::SchedulerType;
use crate::recipe::plan::{DatasetPlan, ModelSource, Plan};
use crate::recipe::prompts::{Part, Prompts};
use crate::recipe::schema::Recipe;

/// Looks at the plan as a whole.
pub(super) fn run(r: &mut Resolver<'_>, recipe: &Recipe, plan: &Plan) {
    unavailable_model(r, recipe, plan);
    unavailable(r, recipe);
    checkpointing(r, plan);
    batches(r, plan);
    classes(r, plan);
    best(r, plan);
    matryoshka(r, plan);
    schedule(r, plan);
    leakage(r, plan);
    prompts(r, plan);
    if plan.model.lora.is_some() && (1e-12..1e-4).contains(&plan.args.learning_rate) {
        r.notes.push(format!(
            "adapters learn slowly at a learning rate of {}: 1e-4 to 5e-4 is usual with `model.lora`",
            plan.args.learning_rate
        ));
    }
    if plan.evaluator.is_empty() {
        r.notes.push(
            "without an `[[evaluator]]` the run has no score before training to compare with, and no verdict"
                .to_owned(),
        );
    }
}

/// What is not built, named with its place before a model or data are read.
fn unavailable_model(r: &mut Resolver<'_>, recipe: &Recipe, plan: &Plan) {
    if plan.model_type != ModelType::SentenceTransformer && recipe.model.static_embedding.is_some() {
        r.problem(
            "model.static_embedding",
            format!("can't become a {}, which needs a network", plan.model_type),
            "start from `model.base`: a network such as MiniLM",
        );
    }
    regularized(r, plan);
    if recipe.model.truncate_dim == Some(0) {
        r.problem("model.truncate_dim", "is 0", "give the number of values to keep, or leave it out");
    }
}

/// Nothing keeps sparse embeddings sparse but a regulariser.
fn regularized(r: &mut Resolver<'_>, plan: &Plan) {
    if plan.model_type != ModelType::SparseEncoder {
        return;
    }
    for (i, set) in plan.train_dataset.iter().chain(&plan.eval_dataset).enumerate() {
        let loss = &set.loss;
        let known = loss.name.is_empty() || loss.name.ends_with("SpladeLoss") || loss.name == "CSRLoss";
        if !known && !["splade", "cached_splade", "csr"].iter().any(|key| loss.settings.contains_key(*key)) {
            let key = if i == 0 { "loss".to_owned() } else { format!("train_dataset.{i}.loss") };
            r.breaks(
                "splade-regularizer",
                key,
                format!("{} alone leaves embeddings dense: it needs a regulariser", loss.name),
                "add a table `[loss.splade]` with `document_regularizer_weight = 3e-3` and `query_regularizer_weight = \
                 5e-3`, or `target_document_active_dims = 128` to aim at a number of active dimensions; a model with a \
                 SparseAutoEncoder takes CSRLoss",
            );
            return;
        }
    }
}

fn unavailable(r: &mut Resolver<'_>, recipe: &Recipe) {
    if recipe.args.fp16 == Some(true) {
        r.problem(
            "args.fp16",
            "is not to be had: a CPU computes in f32, and fp16 would be slower and less exact",
            "leave it out for f32, or use `bf16 = true`",
        );
    }
}

/// Parts of a batch that are computed twice leave little to be saved by computing their layers again.
fn checkpointing(r: &mut Resolver<'_>, plan: &Plan) {
    if !plan.args.gradient_checkpointing {
        return;
    }
    let key = "args.gradient_checkpointing";
    let hint = "leave it out, and set a smaller `mini_batch_size` (or `args.gradient_cache_tokens`) if memory is short";
    if plan.args.gradient_cache_tokens.is_some() {
        r.problem(key, "can't be combined with `args.gradient_cache_tokens`: both compute the network again", hint);
    }
    let cached = |set: &&DatasetPlan| {
        let settings = &set.loss.settings;
        set.loss.name.contains("Cached")
            || set.loss.innermost().0.contains("Cached")
            || settings.contains_key("cached_splade")
    };
    if let Some(set) = plan.train_dataset.iter().find(cached) {
        let (innermost, _) = set.loss.innermost();
        let loss = if innermost.contains("Cached") { innermost } else { &set.loss.name };
        let text = format!("can't be combined with {loss} (`{}`): both compute the network again", set.name);
        r.breaks("cached-loss-without-checkpointing", key, text, hint);
    }
}

fn batches(r: &mut Resolver<'_>, plan: &Plan) {
    let alone = plan.args.per_device_train_batch_size == 1;
    let mut noted = false;
    for (i, dataset) in plan.train_dataset.iter().enumerate() {
        let (loss, _) = dataset.loss.innermost();
        let card = r.registry.loss_card(r.model_type, loss);
        let in_batch = card.is_some_and(|card| card.in_batch_negatives);
        // hard negatives give a row something to be compared with
        let lonely = (in_batch && dataset.columns.len() < 3) || card.is_some_and(|card| card.compares_rows);
        if alone && lonely {
            r.problem(
                "args.per_device_train_batch_size",
                format!(
                    "must be 2 or more with {loss} (`{}`): on a single row it is the same whatever the model does",
                    dataset.name
                ),
                if in_batch { "32 and more is usual: the other rows are the negatives" } else { "16 or 32 is usual" },
            );
        }
        if in_batch && !noted && !plan.args.batch_sampler.starts_with("no_duplicates") {
            noted = true;
            r.notes.push(format!(
                "{loss} takes the other rows as negatives, so the same text twice in a batch is a wrong one: set \
                 `args.batch_sampler = \"no_duplicates\"`"
            ));
        }
        if dataset.limit.is_some_and(|limit| limit < plan.args.per_device_train_batch_size as u64)
            && plan.args.dataloader_drop_last
            && plan.args.max_tokens_per_batch.is_none()
        {
            r.problem(
                format!("train_dataset.{i}.limit"),
                "is below the batch size, and `args.dataloader_drop_last` leaves out the only batch",
                "raise it, or set `dataloader_drop_last = false`",
            );
        }
    }
}

/// Losses that compare classes and the sampler that puts classes together want each other.
fn classes(r: &mut Resolver<'_>, plan: &Plan) {
    let grouped = plan.args.batch_sampler == "group_by_label";
    let size = plan.args.per_device_train_batch_size;
    if grouped && size > 0 && (size < 4 || !size.is_multiple_of(2)) {
        r.problem(
            "args.per_device_train_batch_size",
            format!("must be an even number of 4 or more with `group_by_label`, found {size}"),
            "a batch is made of pairs of at least two classes: 32 or 64 is usual",
        );
    }
    let size = plan.args.per_device_eval_batch_size;
    if grouped && !plan.eval_dataset.is_empty() && size > 0 && (size < 4 || !size.is_multiple_of(2)) {
        r.problem(
            "args.per_device_eval_batch_size",
            format!("must be an even number of 4 or more with `group_by_label`, found {size}"),
            "the evaluation data are put into batches like the training data",
        );
    }
    let trained = plan.train_dataset.len();
    for (i, dataset) in plan.train_dataset.iter().chain(&plan.eval_dataset).enumerate() {
        let (loss, _) = dataset.loss.innermost();
        let Some(card) = r.registry.loss_card(r.model_type, loss) else {
            continue;
        };
        if grouped && !matches!(card.labels, LabelKind::Int | LabelKind::Any) {
            r.problem(
                "args.batch_sampler",
                format!("`group_by_label` goes by the rows' classes, and {loss} (`{}`) takes none", dataset.name),
                "leave it out, or use a loss on classes, BatchAllTripletLoss for one",
            );
        }
        if card.compares_labels && !grouped && i < trained {
            r.notes.push(format!(
                "{loss} compares rows of a class with rows of others, and a batch may have none: set \
                 `args.batch_sampler = \"group_by_label\"`"
            ));
        }
    }
}

fn best(r: &mut Resolver<'_>, plan: &Plan) {
    let args = &plan.args;
    if args.early_stopping.is_some() {
        if !args.load_best_model_at_end {
            r.breaks(
                "early-stopping",
                "args.early_stopping_patience",
                "needs `args.load_best_model_at_end = true`, or the run would end with a model past its best",
                "set `load_best_model_at_end = true`",
            );
        }
        if args.eval == Every::No {
            r.breaks(
                "early-stopping",
                "args.early_stopping_patience",
                "needs evaluations during the run",
                "set `eval_steps = 0.1` and add an `[[evaluator]]`",
            );
        }
    }
    let metric = args.metric_for_best_model.as_deref().unwrap_or_default();
    if metric.ends_with("_loss") && plan.eval_dataset.is_empty() {
        r.breaks(
            "metric-key-exists",
            "args.metric_for_best_model",
            format!("`{metric}` needs data to compute the loss on"),
            "add an `[eval_dataset]`, or name a metric of an `[[evaluator]]`",
        );
    }
    if !args.load_best_model_at_end {
        return;
    }
    let key = "args.load_best_model_at_end";
    match (args.eval, args.save) {
        (Every::No, _) => r.problem(key, "needs evaluations during the run", "set `eval_steps = 0.1`, or leave it out"),
        (Every::Epoch, Every::Epoch) => {}
        (Every::Steps(eval), Every::Steps(save)) => {
            if !save.is_multiple_of(eval) {
                let mixed = matches!(
                    (eval, save),
                    (Interval::Steps(_), Interval::Fraction(_)) | (Interval::Fraction(_), Interval::Steps(_))
                );
                let why = if mixed {
                    "one is a fraction and one a number of steps, so that can't be told"
                } else {
                    "it is none"
                };
                r.breaks(
                    "save-multiple-of-eval",
                    "args.save_steps",
                    format!(
                        "must be a multiple of `args.eval_steps` with `args.load_best_model_at_end`, and {why}: {save} \
                         and {eval}"
                    ),
                    format!("set `save_steps = {eval}`"),
                );
            }
        }
        (eval, save) => r.breaks(
            "save-multiple-of-eval",
            key,
            format!("needs saves to fall on evaluations, but evaluation is {eval} and saving {save}"),
            "set `save_strategy` as `eval_strategy`, or leave it out",
        ),
    }
}

fn matryoshka(r: &mut Resolver<'_>, plan: &Plan) {
    let (ModelSource::StaticEmbedding { embedding_dim, .. }
    | ModelSource::StaticEmbeddingAndTokenizer { embedding_dim, .. }) = plan.model.source
    else {
        return;
    };
    for (i, dataset) in plan.train_dataset.iter().enumerate() {
        let Some(matryoshka) = &dataset.loss.matryoshka else {
            continue;
        };
        if let Some(dim) = matryoshka.dims.iter().find(|d| **d > embedding_dim) {
            r.problem(
                if i == 0 {
                    "loss.matryoshka.dims".to_owned()
                } else {
                    format!("train_dataset.{i}.loss.matryoshka.dims")
                },
                format!("{dim} is wider than `model.static_embedding.embedding_dim`, which is {embedding_dim}"),
                "leave it out, or widen the embedding",
            );
            return;
        }
    }
}

fn schedule(r: &mut Resolver<'_>, plan: &Plan) {
    let args = &plan.args;
    if args.lr_scheduler_type == SchedulerType::Constant && !args.warmup_steps.is_zero() {
        r.notes.push(
            "`lr_scheduler_type = \"constant\"` has no warmup: write `constant_with_warmup` for `args.warmup_steps` to count"
                .to_owned(),
        );
    }
    if let (Interval::Steps(warmup), Some(total)) = (args.warmup_steps, args.max_steps)
        && warmup >= total
    {
        r.notes.push(format!(
            "the learning rate never gets to its highest: `args.warmup_steps` is {warmup} of {total} steps"
        ));
    }
}

fn leakage(r: &mut Resolver<'_>, plan: &Plan) {
    let trained = |path: &Path| plan.train_dataset.iter().any(|d| d.path.iter().any(|p| p == path));
    let mut note = |what: String, path: &Path| {
        if trained(path) {
            r.notes.push(format!(
                "{what} reads `{}`, which the model is trained on: its score says nothing about new texts",
                path.display()
            ));
        }
    };
    for evaluator in &plan.evaluator {
        note(format!("the evaluator {}", evaluator.kind), &evaluator.path);
    }
    for DatasetPlan { name, path, .. } in &plan.eval_dataset {
        path.iter().for_each(|p| note(format!("the evaluation data `{name}`"), p));
    }
    for DatasetPlan { name, hub, .. } in &plan.eval_dataset {
        if let Some(hub) = hub.as_ref().filter(|hub| plan.train_dataset.iter().any(|d| d.hub.as_ref() == Some(*hub))) {
            r.notes.push(format!(
                "the evaluation data `{name}` reads `{}` of `{}`, which the model is trained on: its score says nothing \
                 about new texts",
                hub.split, hub.id
            ));
        }
    }
}

/// Keys of `args.prompts` that can be told to be wrong without the data.
fn prompts(r: &mut Resolver<'_>, plan: &Plan) {
    let Some(Prompts::Each(map)) = &plan.args.prompts else { return };
    let nested = plan.args.prompts.as_ref().is_some_and(Prompts::nested);
    let datasets = plan.train_dataset.iter().chain(&plan.eval_dataset);
    let names: Vec<&str> = datasets.clone().map(|set| set.name.as_str()).collect();
    for (name, part) in map {
        let key = format!("args.prompts.{name}");
        match part {
            Part::Columns(columns) => {
                if !r.known(&key, "data set", name, &names) {
                    continue;
                }
                for set in datasets.clone().filter(|set| set.name == *name && !set.columns.is_empty()) {
                    let known: Vec<&str> = set.columns.iter().map(String::as_str).collect();
                    for column in columns.keys() {
                        r.known(&format!("{key}.{column}"), "column", column, &known);
                    }
                }
            }
            Part::One(_) if nested && !names.contains(&name.as_str()) => r.problem(
                key,
                "is no data set, and other keys are",
                format!("there are {}; prompts for columns stand in the data set's table", names.join(", ")),
            ),
            Part::One(_) => {}
        }
    }
}
