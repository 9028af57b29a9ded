//! What scores are multiplied by fits how large they are.

use super::{Finding, ModelType, OfRecipes, RecipeFile, Rule, Script};

/// From here on a scale sharpens MaxSim's sums until one document takes all; below the other, divided sums stay flat.
const MOST: f64 = 4.0;
const LEAST: f64 = 4.0;

pub(in crate::check) const RULE: Rule = Rule {
    id: "scale-matches-scoring",
    summary: "`scale` is near 1 with MaxSim and about the queries' length where scores are divided by it; XTR only trains.",
    model_types: &[ModelType::MultiVectorEncoder],
    recipe: OfRecipes::Looked(recipe),
    python,
};

/// What is wrong with a scale: message and fix.
fn verdict(scale: f64, divided: bool) -> Option<(String, String)> {
    if !divided && scale > MOST {
        let text = format!(
            "a scale of {scale} is for cosines: MaxSim sums over a query's tokens, so scores are large already"
        );
        return Some((text, "set `scale` to 1.0".to_owned()));
    }
    if divided && scale < LEAST {
        let text = format!("a scale of {scale} leaves scores that are divided by the query's tokens almost equal");
        return Some((text, "set `scale` to about the number of tokens that queries have, 32 for instance".to_owned()));
    }
    None
}

fn recipe(file: &RecipeFile<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, loss) in file.losses() {
        let (name, settings) = loss.innermost();
        if !name.contains("MultipleNegativesRanking") {
            continue;
        }
        let scale = settings.get("scale").and_then(serde_json::Value::as_f64).unwrap_or(1.0);
        let scoring = settings.get("similarity_fct").and_then(|value| value.as_str()).unwrap_or("maxsim");
        if let Some((message, fix)) = verdict(scale, scoring != "maxsim") {
            findings.push(Finding::new(file.line(&format!("{key}.scale")), message, fix));
        }
    }
    findings
}

fn python(script: &Script) -> Vec<Finding> {
    let run = script.walk();
    let mut findings = Vec::new();
    for loss in run.trainers().into_iter().flat_map(|trainer| run.losses(trainer)) {
        for (name, call) in run.nested(loss) {
            if !name.contains("MultipleNegativesRanking") {
                continue;
            }
            let scoring = run.argument_of(call, "similarity_fct", Some(2));
            let scoring = scoring.map(|place| run.text(run.resolve(place).node).to_lowercase()).unwrap_or_default();
            let divided = scoring.contains("mean") || scoring.contains("xtr");
            let scale = run.argument_of(call, "scale", Some(1));
            let line = scale.map_or(call.line(), |place| place.line());
            let scale = scale.map_or(Some(1.0), |place| run.number(place));
            if let Some((message, fix)) = scale.and_then(|scale| verdict(scale, divided)) {
                findings.push(Finding::new(line, message, fix));
            }
        }
    }
    for (class, seen) in run.evaluators() {
        if run
            .parts(seen.place)
            .into_iter()
            .any(|part| part.node.kind() == "identifier" && run.text(part.node).to_lowercase().starts_with("xtr"))
        {
            findings.push(Finding::new(
                seen.line(),
                format!("{class} cannot score with XTR, which depends on the batch"),
                "leave the evaluator's scoring out: MaxSim measures models that XTR has trained, too",
            ));
        }
    }
    findings
}
