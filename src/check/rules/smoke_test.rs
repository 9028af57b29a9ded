//! A run can be tried first: one step on a few rows.

use super::{Finding, OfRecipes, Place, Rule, Run, Script, arguments};

/// Steps at most of a smoke test.
const FEW: f64 = 10.0;

pub(in crate::check) const RULE: Rule = Rule {
    id: "smoke-test",
    summary: "A switch (`SMOKE_TEST=1`, `--smoke-test`) runs one step on a few rows.",
    model_types: &[],
    recipe: OfRecipes::Kept,
    python,
};

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    if run.trains().is_empty() {
        return Vec::new();
    }
    let Some(line) = run.smoke_switch() else {
        return vec![Finding::new(
            None,
            "there is no switch for a smoke test",
            "`SMOKE_TEST = os.environ.get(\"SMOKE_TEST\") == \"1\"`, and by it `max_steps=1` and a few rows",
        )];
    };
    let mut findings = Vec::new();
    let steps = arguments(&run)
        .iter()
        .any(|(_, call)| run.argument_of(*call, "max_steps", None).is_some_and(|steps| few(&run, steps)));
    let set = run.settings().any(|seen| {
        let left = seen.place.node.child_by_field_name("left").map(|n| run.text(n)).unwrap_or_default();
        left.ends_with(".max_steps") && run.under_smoke(seen)
    });
    if !steps && !set {
        findings.push(Finding::new(
            line,
            "the smoke test does not limit the steps",
            "`max_steps=1 if SMOKE_TEST else -1` among the training arguments",
        ));
    }
    let sliced = run.calls().any(|seen| {
        let takes = ["select", "take", "head", "load_dataset", "islice", "train_test_split", "sample"];
        takes.contains(&run.name(seen)) && (run.under_smoke(seen) || run.by_smoke(seen.place.node))
    });
    if !sliced && !run.sliced_by_smoke() {
        findings.push(Finding::new(
            line,
            "the smoke test reads all the data",
            "`dataset.select(range(50))` where `SMOKE_TEST` is set",
        ));
    }
    findings
}

/// Whether steps go by the switch, and are few on one side of it.
fn few(run: &Run<'_>, steps: Place<'_>) -> bool {
    let choice = run.resolve(steps);
    let values = run.possible(steps);
    run.by_smoke(choice.node) && values.iter().any(|v| run.number(*v).is_some_and(|n| (1.0..=FEW).contains(&n)))
}
