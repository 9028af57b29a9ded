//! The best model can only be kept where checkpoints fall on evaluations.

use super::{Finding, OfRecipes, Place, Rule, Run, Script, arguments, is_true, word};

/// The Trainer's own cadence.
const STEPS: f64 = 500.0;

pub(in crate::check) const RULE: Rule = Rule {
    id: "save-multiple-of-eval",
    summary: "With `load_best_model_at_end`, `save_steps` is a multiple of `eval_steps` and both go by the same strategy.",
    model_types: &[],
    // resolving a recipe refuses it
    recipe: OfRecipes::Looked(|_| Vec::new()),
    python,
};

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let best = arguments(&run).into_iter().filter(|(_, call)| is_true(&run, *call, "load_best_model_at_end"));
    best.filter_map(|(_, call)| cadence(&run, call)).collect()
}

fn cadence(run: &Run<'_>, call: Place<'_>) -> Option<Finding> {
    let strategy = |name, default: &str| word(run, call, name).unwrap_or_else(|| default.to_owned());
    let (eval, save) = (strategy("eval_strategy", "no"), strategy("save_strategy", "steps"));
    let known = |word: &str| ["no", "steps", "epoch", "best"].contains(&word);
    if !known(&eval) || !known(&save) || save == "best" {
        return None;
    }
    if eval != save || eval == "no" {
        return Some(Finding::new(
            call.line(),
            format!("the best model cannot be kept: evaluation goes by `{eval}`, saving by `{save}`"),
            "set `eval_strategy=\"steps\"` and `save_strategy=\"steps\"`",
        ));
    }
    if eval != "steps" {
        return None;
    }
    let steps = |name| match run.argument_of(call, name, None) {
        Some(place) => run.number(place).map(|n| (n, place.line())),
        None => Some((STEPS, call.line())),
    };
    let logging = steps("logging_steps");
    let (eval, _) = match run.argument_of(call, "eval_steps", None) {
        Some(_) => steps("eval_steps")?,
        None => logging?,
    };
    let (save, line) = steps("save_steps")?;
    let ratio = save / eval;
    let mixed = (eval < 1.0) != (save < 1.0);
    if eval > 0.0 && !mixed && (ratio - ratio.round()).abs() < 1e-6 && ratio >= 1.0 {
        return None;
    }
    Some(Finding::new(
        line,
        format!("the best model may be none of the checkpoints: `save_steps` is {save}, `eval_steps` {eval}"),
        format!("set `save_steps={eval}`"),
    ))
}
