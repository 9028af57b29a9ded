//! The rules: a file each, called after its id.

pub(super) mod active_dims;
pub(super) mod baseline_eval;
pub(super) mod cached_loss_without_checkpointing;
pub(super) mod early_stopping;
pub(super) mod eval_has_data;
pub(super) mod experiment_logged;
pub(super) mod full_precision_weights;
pub(super) mod hub_push_guarded;
pub(super) mod identity_activation;
pub(super) mod log_tee;
pub(super) mod metric_key_exists;
pub(super) mod no_duplicates_sampler;
pub(super) mod quiet_http;
pub(super) mod save_multiple_of_eval;
pub(super) mod scale_matches_scoring;
pub(super) mod smoke_test;
pub(super) mod splade_regularizer;
pub(super) mod train_eval_disjoint;
pub(super) mod trains;
pub(super) mod valid;
pub(super) mod verdict_line;

use super::python::{Place, Run, Seen};
use super::{Finding, OfRecipes, RecipeFile, Rule, Script};
use crate::flow::ModelType;

/// The training arguments of each trainer that is trained, where they can be followed.
fn arguments<'s>(run: &Run<'s>) -> Vec<(Place<'s>, Place<'s>)> {
    run.trainers().into_iter().filter_map(|trainer| Some((trainer, run.arguments(trainer)?))).collect()
}

/// Whether an argument is `True` in a run that is no smoke test.
fn is_true(run: &Run<'_>, call: Place<'_>, name: &str) -> bool {
    run.argument_of(call, name, None)
        .is_some_and(|place| run.possible(place).into_iter().any(|value| run.boolean(value) == Some(true)))
}

/// The word an argument is: a text, or the last name of `IntervalStrategy.STEPS`, in small letters.
fn word(run: &Run<'_>, call: Place<'_>, name: &str) -> Option<String> {
    Some(run.word(run.argument_of(call, name, None)?))
}

/// A call that has to run wherever training does, or why it does not.
fn unconditional(run: &Run<'_>, seen: Seen<'_>, train: Seen<'_>, what: &str) -> Option<Finding> {
    let line = run.conditional(seen, train)?;
    Some(Finding::new(
        seen.line(),
        format!("{what} only under the condition on line {line}"),
        "take it out of the condition: every run has to do it",
    ))
}
