//! HTTP libraries stay quiet: their lines about every download would bury the training's own.

use super::{Finding, OfRecipes, Rule, Run, Script, Seen};

/// The loggers that report every request and lock.
const NOISY: [&str; 6] = ["httpx", "httpcore", "huggingface_hub", "urllib3", "filelock", "fsspec"];
/// `logging.WARNING`.
const WARNING: f64 = 30.0;

pub(in crate::check) const RULE: Rule = Rule {
    id: "quiet-http",
    summary: "httpx, httpcore, huggingface_hub, urllib3, filelock and fsspec log warnings only.",
    model_types: &[],
    recipe: OfRecipes::Kept,
    python,
};

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let Some(train) = run.trains().first().copied() else { return Vec::new() };
    let before = run.calls().filter(|seen| seen.order < train.order && run.name(*seen) == "setLevel");
    let quiet: Vec<String> =
        before.filter(|seen| run.conditional(*seen, train).is_none()).flat_map(|seen| silenced(&run, seen)).collect();
    let missing: Vec<&str> = NOISY.into_iter().filter(|name| !quiet.iter().any(|known| known == name)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    vec![Finding::new(
        None,
        format!("every request is logged: {}", missing.join(", ")),
        "before anything is loaded: `for name in (\"httpx\", ...): logging.getLogger(name).setLevel(logging.WARNING)`",
    )]
}

/// The loggers that a call of `setLevel` makes quiet.
fn silenced(run: &Run<'_>, seen: Seen<'_>) -> Vec<String> {
    let Some(level) = run.argument(seen, "level", Some(0)) else { return Vec::new() };
    let word = run.string(level).unwrap_or_else(|| run.text(run.resolve(level).node).to_owned());
    let loud = !["WARNING", "WARN", "ERROR", "CRITICAL", "FATAL"].iter().any(|known| word.ends_with(known));
    if loud && run.number(level).is_none_or(|level| level < WARNING) {
        return Vec::new();
    }
    let Some((_, logger)) = run.object(seen).and_then(|object| run.made_by(object, "getLogger")) else {
        return Vec::new();
    };
    let names = run.argument_of(logger, "name", Some(0)).map(|name| run.looped(name)).unwrap_or_default();
    names.into_iter().filter_map(|name| run.string(name)).collect()
}
