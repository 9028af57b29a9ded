//! One line says whether training helped, in a form that programs read.

use super::{Finding, OfRecipes, Rule, Run, Script, Seen, unconditional};

pub(in crate::check) const RULE: Rule = Rule {
    id: "verdict-line",
    summary: "One line `VERDICT: WIN|MARGINAL|REGRESSION | score=... | baseline=... | delta=...` after training.",
    model_types: &[],
    recipe: OfRecipes::Kept,
    python,
};

const FIX: &str = "`logging.info(f\"VERDICT: {verdict} | score={score:.4f} | baseline={baseline:.4f} | delta={delta:+.4f}\")` \
                   after an evaluation that follows training";

/// The line: the call that prints it, and its text.
pub(super) fn line<'s>(run: &Run<'s>, train: Seen<'s>) -> Option<(Seen<'s>, String)> {
    let prints = ["info", "warning", "error", "critical", "log", "print", "write"];
    run.calls().filter(|seen| seen.order > train.order && prints.contains(&run.name(*seen))).find_map(|seen| {
        let arguments = seen.place.node.child_by_field_name("arguments")?;
        let mut cursor = arguments.walk();
        let text: Vec<String> =
            arguments.named_children(&mut cursor).map(|argument| run.words(seen.place.with(argument))).collect();
        let text = text.join(" ");
        text.contains("VERDICT:").then_some((seen, text))
    })
}

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let Some(train) = run.trains().last().copied() else { return Vec::new() };
    let Some((seen, text)) = line(&run, train) else {
        return vec![Finding::new(None, "no line `VERDICT: ...` is printed after training", FIX)];
    };
    let mut findings = Vec::new();
    findings.extend(unconditional(&run, seen, train, "the verdict is printed"));
    let missing: Vec<&str> =
        ["score=", "baseline=", "delta="].into_iter().filter(|part| !text.contains(part)).collect();
    if !missing.is_empty() {
        findings.push(Finding::new(seen.line(), format!("the verdict lacks {}", missing.join(", ")), FIX));
    }
    let parts = run.parts(seen.place);
    let says = |word: &str| {
        text.contains(word) || parts.iter().any(|part| part.node.kind() == "string" && run.words(*part).contains(word))
    };
    let unsaid: Vec<&str> = ["WIN", "MARGINAL", "REGRESSION"].into_iter().filter(|word| !says(word)).collect();
    if !unsaid.is_empty() {
        findings.push(Finding::new(
            seen.line(),
            format!("the verdict is never {}", unsaid.join(" or ")),
            "`\"WIN\" if delta >= 0.005 else \"MARGINAL\" if delta >= 0 else \"REGRESSION\"`",
        ));
    }
    let after =
        |own: &Seen<'_>| own.order > train.order && own.order < seen.order && run.conditional(*own, train).is_none();
    if !run.evaluations().iter().any(after) {
        findings.push(Finding::new(seen.line(), "the score in it is not from after training", FIX));
    }
    findings
}
