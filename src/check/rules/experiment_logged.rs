//! Every run leaves a row in the experiments log.

use super::{Finding, OfRecipes, Rule, Run, Script, Seen, unconditional};

pub(in crate::check) const RULE: Rule = Rule {
    id: "experiment-logged",
    summary: "A row is added to `logs/experiments.md` after training.",
    model_types: &[],
    recipe: OfRecipes::Kept,
    python,
};

const FIX: &str = "`with open(\"logs/experiments.md\", \"a\") as log: log.write(f\"| ... | {score:.4f} | {verdict} |\\n\")` after \
                   the verdict";

/// What a call does with the log.
#[derive(PartialEq, Eq)]
enum Use {
    Reads,
    Adds,
    Overwrites,
}

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let Some(train) = run.trains().last().copied() else { return Vec::new() };
    let uses: Vec<(Seen<'_>, Use)> = run.calls().filter_map(|seen| Some((seen, used(&run, seen)?))).collect();
    let kept = uses.iter().any(|(_, what)| *what == Use::Reads);
    let written = uses.iter().find(|(seen, what)| seen.order > train.order && *what != Use::Reads);
    match written {
        None => vec![Finding::new(None, "the run leaves no row in `logs/experiments.md`", FIX)],
        Some((seen, Use::Overwrites)) if !kept => {
            vec![Finding::new(seen.line(), "the rows of earlier runs are overwritten", FIX)]
        }
        Some((seen, _)) => unconditional(&run, *seen, train, "the row is written").into_iter().collect(),
    }
}

fn used(run: &Run<'_>, seen: Seen<'_>) -> Option<Use> {
    let name = run.name(seen);
    let (path, mode) = match (run.object(seen), name) {
        (None, "open") => (run.argument(seen, "file", Some(0))?, run.argument(seen, "mode", Some(1))),
        (Some(own), "open" | "write_text" | "read_text") => (own, run.argument(seen, "mode", Some(0))),
        // a new page in place of the old: `os.replace(new, page)`, `new.replace(page)`; texts have `replace`, too
        (Some(_), _) if ["os.replace", "os.rename", "shutil.move"].contains(&run.callee(seen)) => {
            (run.argument(seen, "dst", Some(1))?, None)
        }
        (Some(_), "replace" | "rename") if run.argument(seen, "count", Some(1)).is_none() => {
            (run.argument(seen, "target", Some(0))?, None)
        }
        _ => return None,
    };
    if !run.words(path).ends_with("experiments.md") {
        return None;
    }
    let mode = mode.map(|mode| run.words(mode)).unwrap_or_default();
    Some(match name {
        "read_text" => Use::Reads,
        "write_text" | "replace" | "rename" | "move" => Use::Overwrites,
        _ if mode.starts_with('a') || mode.contains('+') => Use::Adds,
        _ if mode.starts_with('w') || mode.starts_with('x') => Use::Overwrites,
        _ => Use::Reads,
    })
}
