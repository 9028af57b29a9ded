//! Everything that is logged goes into a file as well.

use super::{Finding, OfRecipes, Place, Rule, Run, Script};

pub(in crate::check) const RULE: Rule = Rule {
    id: "log-tee",
    summary: "Everything that is logged goes to `logs/{run_name}.log` as well.",
    model_types: &[],
    recipe: OfRecipes::Kept,
    python,
};

const FIX: &str = "`logging.basicConfig(level=logging.INFO, handlers=[logging.StreamHandler(), \
                   logging.FileHandler(f\"logs/{RUN_NAME}.log\")], force=True)` before training";

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let Some(train) = run.trains().first().copied() else { return Vec::new() };
    let mut near = None;
    for seen in run.calls().filter(|seen| seen.order < train.order) {
        let handlers = match run.name(seen) {
            "basicConfig" => run.argument(seen, "handlers", None).map(|list| run.items(list)),
            "addHandler" => run.argument(seen, "hdlr", Some(0)).map(|handler| vec![handler]),
            _ => None,
        };
        let Some(file) = handlers.into_iter().flatten().find_map(|handler| log_file(&run, handler)) else { continue };
        if let Err(message) = file {
            near = Some(Finding::new(seen.line(), message, FIX));
        } else if run.name(seen) == "basicConfig"
            && run.argument(seen, "force", None).and_then(|f| run.boolean(f)) != Some(true)
        {
            near = Some(Finding::new(
                seen.line(),
                "`basicConfig` does nothing where a library has set up logging before",
                "add `force=True`",
            ));
        } else if let Some(line) = run.conditional(seen, train) {
            near = Some(Finding::new(
                seen.line(),
                format!("the file is opened only under the condition on line {line}"),
                FIX,
            ));
        } else {
            return Vec::new();
        }
    }
    vec![near.unwrap_or_else(|| Finding::new(None, "what is logged goes into no file", FIX))]
}

/// The file a handler writes to, if it writes to one, or what is wrong with it.
fn log_file(run: &Run<'_>, handler: Place<'_>) -> Option<Result<(), String>> {
    let (class, call) = run.made(handler)?;
    if !class.ends_with("FileHandler") {
        return None;
    }
    let path = run.words(run.argument_of(call, "filename", Some(0))?);
    let fine =
        path.replace('\\', "/").split('/').rev().skip(1).any(|folder| folder == "logs") && path.ends_with(".log");
    Some(if fine { Ok(()) } else { Err(format!("the log goes to `{path}`, and is looked for in `logs/`")) })
}
