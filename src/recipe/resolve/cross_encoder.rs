//! What a recipe of a reranker comes to besides: the activation of its scores, and when it stops.

use super::Resolver;
use crate::flow::{ActivationFn, ModelType};
use crate::recipe::plan::Plan;
use crate::recipe::schema::ArgsConfig;

/// Evaluations without improvement after which a reranker's training ends, at least.
const PATIENCE: u64 = 3;
/// The one loss that trains what a sigmoid makes of logits.
const SIGMOID_LOSS: &str = "BinaryCrossEntropyLoss";
/// The one loss after which scores are what its own activation makes of logits.
const SCORE_LOSS: &str = "MSELoss";

/// The arguments with a reranker's defaults: it overfits soon, so the best checkpoint is kept and training ends when
/// nothing improves.
pub(super) fn args(r: &mut Resolver<'_>, args: &ArgsConfig, measurable: bool) -> ArgsConfig {
    let mut args = args.clone();
    if r.model_type != ModelType::CrossEncoder || !measurable {
        return args;
    }
    if args.early_stopping_patience.is_some_and(|patience| patience < PATIENCE) {
        r.breaks(
            "early-stopping",
            "args.early_stopping_patience",
            format!("must be {PATIENCE} or more for a CrossEncoder, whose metric swings between evaluations"),
            format!("set it to {PATIENCE}, or leave it out"),
        );
    }
    if args.load_best_model_at_end == Some(false) {
        r.breaks(
            "early-stopping",
            "args.load_best_model_at_end",
            "must be true for a CrossEncoder: it stops early, past its best",
            "leave it out",
        );
    }
    for (key, given) in [
        ("args.early_stopping_patience", args.early_stopping_patience.is_some()),
        ("args.load_best_model_at_end", args.load_best_model_at_end.is_some()),
    ] {
        if !given {
            r.defaulted.push(key.to_owned());
        }
    }
    args.early_stopping_patience.get_or_insert(PATIENCE);
    args.load_best_model_at_end.get_or_insert(true);
    args
}

/// Settles what `predict` applies to logits: a sigmoid under the loss that trains it, the loss's own activation where its
/// outcome is compared with labels, nothing under all others.
pub(super) fn settle(r: &mut Resolver<'_>, plan: &mut Plan) {
    if plan.model_type != ModelType::CrossEncoder {
        return;
    }
    let Some(other) = plan.train_dataset.iter().map(|set| &set.loss).find(|loss| loss.name != SIGMOID_LOSS) else {
        return;
    };
    let (loss, own) = (other.name.clone(), other.settings.get("activation_fn").and_then(serde_json::Value::as_str));
    let wanted = own.filter(|_| loss == SCORE_LOSS).and_then(ActivationFn::of_path).unwrap_or(ActivationFn::Identity);
    match plan.model.activation_fn {
        None => {
            plan.model.activation_fn = Some(wanted);
            r.defaulted.push("model.activation_fn".to_owned());
        }
        Some(given) if given == wanted => {}
        Some(given) if wanted != ActivationFn::Identity => r.breaks(
            "identity-activation",
            "model.activation_fn",
            format!(
                "must be {} with {loss}, whose own activation compares that with the labels, found {}",
                wanted.name(),
                given.name()
            ),
            format!("leave it out, or set `activation_fn = \"{}\"`", wanted.name()),
        ),
        Some(activation) => r.breaks(
            "identity-activation",
            "model.activation_fn",
            format!(
                "must be Identity with {loss}, found {}: the loss trains logits of any size, and {0} would squeeze \
                 those of good documents into equal scores",
                activation.name()
            ),
            "leave it out, or set `activation_fn = \"Identity\"`",
        ),
    }
}
